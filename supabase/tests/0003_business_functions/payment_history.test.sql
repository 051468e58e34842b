-- billing.payment_history: all that concerns an account's money, newest first.
begin;
\ir ../helpers.psql
select plan(8);

select tests.catalog();
select tests.set_time('2026-03-01');
select tests.account('ann');
select tests.account('bob');
select tests.subscribe('ann');

create function pg_temp.at(p_at timestamptz) returns bigint
language sql as $$
  select extract(epoch from p_at)::bigint;
$$;
create function pg_temp.hear(p_type text, p_at timestamptz, p_object jsonb) returns text
language sql as $$
  select tests.deliver(
    format('evt_%s_%s', p_object ->> 'id', p_type), p_type, p_at,
    jsonb_build_object('customer', 'cus_ann', 'currency', 'usd', 'created', pg_temp.at(p_at))
      || p_object);
$$;

select pg_temp.hear('payment_method.attached', '2026-01-10', '{"id": "pm_1",
  "object": "payment_method", "type": "card", "card": {"brand": "visa", "last4": "4242"}}');
select pg_temp.hear('invoice.paid', '2026-01-10', '{"id": "in_1", "object": "invoice",
  "status": "paid", "number": "A-1", "total": 1000, "billing_reason": "subscription_create",
  "invoice_pdf": "https://stripe.example/in_1.pdf"}');
select pg_temp.hear('payment_intent.succeeded', '2026-01-10', '{"id": "pi_1",
  "object": "payment_intent", "status": "succeeded", "amount": 1000, "amount_received": 1000,
  "invoice": "in_1", "payment_method": "pm_1"}');
select pg_temp.hear('refund.created', '2026-01-12', '{"id": "re_1", "object": "refund",
  "status": "succeeded", "amount": 400, "payment_intent": "pi_1",
  "reason": "requested_by_customer"}');
select pg_temp.hear('credit_note.created', '2026-01-13', '{"id": "cn_1", "object": "credit_note",
  "status": "issued", "amount": 100, "invoice": "in_1", "number": "CN-1",
  "pdf": "https://stripe.example/cn_1.pdf"}');
select pg_temp.hear('charge.dispute.created', '2026-01-14', '{"id": "dp_1", "object": "dispute",
  "status": "warning_needs_response", "amount": 600, "payment_intent": "pi_1",
  "reason": "fraudulent"}');
select pg_temp.hear('payment_intent.payment_failed', '2026-02-10', '{"id": "pi_2",
  "object": "payment_intent", "status": "requires_payment_method", "amount": 1000,
  "last_payment_error": {"code": "card_declined", "decline_code": "stolen_card"}}');
select pg_temp.hear('invoice.created', '2026-02-11', '{"id": "in_2", "object": "invoice",
  "status": "draft", "total": 5}');

select tests.sign_in('ann');
select results_eq(
  $$
    select kind, reference, status, amount_minor, currency
    from billing.payment_history
  $$,
  $$
    values
      ('payment', 'pi_2', 'requires_payment_method', 1000::bigint, 'usd'),
      ('dispute', 'dp_1', 'warning_needs_response', -600, 'usd'),
      ('credit_note', 'cn_1', 'issued', -100, 'usd'),
      ('refund', 're_1', 'succeeded', -400, 'usd'),
      ('invoice', 'in_1', 'paid', 1000, 'usd'),
      ('payment', 'pi_1', 'succeeded', 1000, 'usd')
  $$,
  'a member sees what was billed, paid, given back, disputed and credited, newest first'
);
select results_eq(
  $$
    select invoice_number, method, card_brand, card_last4
    from billing.payment_history
    where reference = 'pi_1'
  $$,
  $$ values ('A-1', 'card', 'visa', '4242') $$,
  'a payment names its invoice, and what of the card is on a receipt'
);
select is(
  (select reason from billing.payment_history where reference = 'pi_2'), 'declined',
  'a stolen card is a declined one for whoever holds it'
);
select is(
  (select document_url from billing.payment_history where reference = 'in_1'),
  'https://stripe.example/in_1.pdf',
  'an invoice leads to its document'
);
select is_empty(
  $$ select * from billing.payment_history where reference = 'in_2' $$, 'a draft is none yet'
);

select tests.sign_in('bob');
select is_empty('select * from billing.payment_history', 'another member sees nothing of it');
select tests.sign_out();
select throws_ok(
  'select * from billing.payment_history', '42501', null, 'a visitor may not look'
);

select tests.be_owner();
insert into billing.subscriptions (
  id, account_id, provider, manual_kind, status, price_id, quantity, currency, started_at,
  billing_anchor, current_period_start, current_period_end, updated_at
)
values (
  md5('bob')::uuid, md5('bob')::uuid, 'manual', 'invoiced', 'active', md5('basic_monthly')::uuid,
  1, 'usd', '2026-03-01', '2026-03-01', '2026-03-01', '2026-04-01', '2026-03-01'
);
insert into billing.invoices (
  id, account_id, subscription_id, number, status, currency, subtotal_minor, total_minor,
  amount_due_minor, amount_paid_minor, amount_remaining_minor, issued_at, due_at
)
values (
  md5('bob')::uuid, md5('bob')::uuid, md5('bob')::uuid, 'INV-1', 'open', 'usd', 500, 500, 500, 0,
  500, '2026-03-01', '2026-03-15'
);
select billing_private.record_payment(md5('bob')::uuid, 500, 'bank_transfer', 'T-1', '2026-03-10');
select results_eq(
  $$
    select kind, invoice_number, method, reference
    from billing.payment_history
    where account_id = md5('bob')::uuid
  $$,
  $$
    values
      ('payment', 'INV-1', 'bank_transfer', 'T-1'),
      ('invoice', 'INV-1', null, md5('bob')::uuid::text)
  $$,
  'what is paid outside Stripe is in it as well'
);

select * from finish();
rollback;
