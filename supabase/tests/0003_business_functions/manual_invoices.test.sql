-- Invoices of subscriptions without Stripe: one per period, due by their terms, paid in parts or
-- whole, and what becomes of access meanwhile.
begin;
\ir ../helpers.psql
select plan(47);

select tests.catalog();
select tests.set_time('2026-01-31 10:00');
select billing_private.ensure_account(md5(name)::uuid)
from unnest(array['ann', 'bob', 'ada']) as name;
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'first');
create function tests.invoice_to(
  p_name text,
  p_quantity bigint default 1,
  p_starts_at timestamptz default null,
  p_days integer default 30,
  p_kind text default 'invoiced',
  p_ends_at timestamptz default null
) returns uuid
language sql as $$
  select billing_private.start_manual_subscription(
    md5(p_name)::uuid, md5('plus_monthly')::uuid, p_quantity, p_ends_at, p_kind, p_starts_at,
    p_days);
$$;

create view tests.invoices as
select
  invoices.id, number, invoices.status, billing_reason, subtotal_minor, amount_due_minor as due,
  amount_paid_minor as paid, amount_remaining_minor as remaining, issued_at, due_at
from billing.invoices
order by number;

create function tests.id_of(p_number text) returns uuid
language sql as $$
  select id from billing.invoices where number = p_number;
$$;

create function tests.pay(p_number text, p_amount bigint, p_reference text) returns text
language plpgsql as $$
declare
  v_status text;
begin
  perform tests.sign_in('ada');
  v_status := (billing_admin.record_payment(
    tests.id_of(p_number), p_amount, 'bank statement', p_reference)).status;
  perform tests.be_owner();
  return v_status;
end;
$$;

create function tests.standing(p_name text) returns text
language sql as $$
  select format('%s since %s, %s', status, coalesce(past_due_since::text, 'ever'), (
    select count(*)
    from billing.entitlements
    where entitlements.account_id = subscriptions.account_id
      and feature_key = 'premium'
      and valid_until > billing_private.now()
  ))
  from billing.subscriptions
  where account_id = md5(p_name)::uuid;
$$;
alter function tests.id_of(text) security definer;
alter function tests.standing(text) security definer;
grant execute on all functions in schema tests to anon, authenticated, service_role;
savepoint s;

-- ---- the machine: one invoice per period ------------------------------------

select tests.invoice_to('ann', 3);
select results_eq(
  $$ select number, status, billing_reason, subtotal_minor, due, paid, remaining, issued_at, due_at
    from tests.invoices $$,
  $$
    values ('INV-2026-000001', 'open', 'subscription_cycle', 3000::bigint, 3000::bigint, 0::bigint,
      3000::bigint, '2026-01-31 10:00+00'::timestamptz, '2026-03-02 10:00+00'::timestamptz)
  $$,
  'an invoiced subscription owes for its first period at once, due by its terms'
);
select results_eq(
  $$ select amount_minor, quantity, period_start, period_end, is_proration
    from billing.invoice_lines $$,
  $$
    values (3000::bigint, 3::bigint, '2026-01-31 10:00+00'::timestamptz,
      '2026-02-28 10:00+00'::timestamptz, false)
  $$,
  'its line names the seats and the period'
);
select tests.sign_in('ann');
select is((select count(*) from billing.invoices), 1::bigint, 'its owner reads it');
select tests.sign_in('bob');
select is_empty($$ select * from billing.invoices $$, 'nobody else does');
select tests.be_owner();

select tests.set_time('2026-02-28 09:59:59');
select billing_private.renew_manual_subscriptions(10);
select is((select count(*) from tests.invoices), 1::bigint, 'before the period ends there is no other');
select tests.set_time('2026-02-28 10:00');
select is(billing_private.renew_manual_subscriptions(10), 1::bigint, 'it renews on the second');
select is(billing_private.renew_manual_subscriptions(10), 0::bigint, 'once');
select results_eq(
  $$ select number, issued_at from tests.invoices $$,
  $$
    values ('INV-2026-000001', '2026-01-31 10:00+00'::timestamptz),
      ('INV-2026-000002', '2026-02-28 10:00+00')
  $$,
  'each period has its invoice, numbered without a gap'
);
select tests.set_time('2026-06-15');
select billing_private.renew_manual_subscriptions(10);
select results_eq(
  $$ select issued_at from tests.invoices offset 2 $$,
  $$
    values ('2026-03-31 10:00+00'::timestamptz), ('2026-04-30 10:00+00'), ('2026-05-31 10:00+00')
  $$,
  'G18: periods that were missed are invoiced too, each from its own day'
);
select is_empty(
  $$
    select lines.id
    from billing.invoice_lines as lines
    join billing.invoice_lines as other on other.period_start < lines.period_end
      and other.period_end > lines.period_start and other.id <> lines.id
  $$,
  'no time is charged twice'
);
rollback to s;

select tests.invoice_to('ann', 1, '2025-11-15');
select results_eq(
  $$ select number, issued_at from tests.invoices $$,
  $$
    values ('INV-2025-000001', '2025-11-15 00:00+00'::timestamptz),
      ('INV-2025-000002', '2025-12-15 00:00+00'), ('INV-2026-000001', '2026-01-15 00:00+00')
  $$,
  'one that began in the past owes for what it has had; each year numbers from one'
);
rollback to s;

select tests.invoice_to('ann', 1, '2026-03-01');
select results_eq(
  $$
    select valid_from, valid_until
    from billing.entitlements
    where account_id = md5('ann')::uuid
      and feature_key = 'premium'
  $$,
  $$ values ('2026-03-01 00:00+00'::timestamptz, 'infinity'::timestamptz) $$,
  'one that begins later gives access from then on'
);
select tests.sign_in('ann');
select ok(not billing.has_entitlement('premium'), 'and not before');
rollback to s;

select tests.invoice_to('ann', 1, null, null, 'complimentary');
select tests.invoice_to('bob', 1, null, null, 'gifted', '2026-04-01');
select tests.set_time('2026-03-15');
select billing_private.renew_manual_subscriptions(10);
select is_empty($$ select * from tests.invoices $$, 'what is free is not invoiced');
rollback to s;

select tests.invoice_to('ann', 1, null, 0);
update billing.prices set unit_amount_minor = 0 where key = 'plus_monthly';
select tests.set_time('2026-02-28 10:00');
select billing_private.renew_manual_subscriptions(10);
select is(
  (select status from tests.invoices order by issued_at desc limit 1), 'paid',
  'G2: where nothing is due nothing is open'
);
rollback to s;

-- ---- the machine: overdue ---------------------------------------------------

select tests.invoice_to('ann');
select tests.set_time('2026-03-02 09:59:59');
select billing_private.task_apply_scheduled_changes();
select is(tests.standing('ann'), 'active since ever, 1', 'within its terms an invoice may wait');
select tests.set_time('2026-03-02 10:00');
select is(billing_private.note_overdue_invoices(10), 1::bigint, 'then it is overdue');
select is(billing_private.note_overdue_invoices(10), 0::bigint, 'which is noted once');
select is(
  tests.standing('ann'), 'past_due since 2026-03-02 10:00:00+00, 1',
  'the subscription is past due since then, with the plan''s grace'
);
select tests.set_time('2026-03-05 10:00');
select is(
  tests.standing('ann'), 'past_due since 2026-03-02 10:00:00+00, 0', 'and not a second longer'
);
savepoint overdue;

-- ---- an administrator: payments ---------------------------------------------

select is(tests.pay('INV-2026-000001', 400, 'A'), 'open', 'a part of it may be paid');
select is(
  tests.standing('ann'), 'past_due since 2026-03-02 10:00:00+00, 0', 'which settles nothing'
);
select is(tests.pay('INV-2026-000001', 400, 'A'), 'open', 'the same payment twice');
select results_eq(
  $$ select paid, remaining from tests.invoices where number = 'INV-2026-000001' $$,
  $$ values (400::bigint, 600::bigint) $$,
  'B2: is booked once'
);
select throws_ok(
  $$ select tests.pay('INV-2026-000001', 601, 'B') $$,
  'PT400', 'the request is not valid', 'more than is owed is refused'
);
select throws_ok(
  $$ select tests.pay('INV-2026-000001', 0, 'B') $$,
  'PT400', 'the request is not valid', 'and so is nothing'
);
select throws_ok(
  $$ select tests.pay('INV-2026-000001', 1, ' ') $$,
  'PT400', 'the request is not valid', 'and a payment nobody can tell from another'
);
select is(tests.pay('INV-2026-000001', 600, 'B'), 'paid', 'the rest pays it');
select is(
  tests.standing('ann'), 'active since ever, 1',
  'H4: access is back in the transaction that books the payment'
);
select tests.sign_in('ann');
select results_eq(
  $$ select status, amount_minor, method, reference from billing.payments order by reference $$,
  $$
    values ('succeeded', 400::bigint, 'bank_transfer', 'A'),
      ('succeeded', 600::bigint, 'bank_transfer', 'B')
  $$,
  'its owner sees what was paid, and how'
);
select throws_ok(
  $$ select tests.pay('INV-2026-000001', 1, 'C') $$,
  'PT422', 'the invoice cannot go from its state to the one asked for', 'what is paid is closed'
);
rollback to overdue;

select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.record_payment(tests.id_of('INV-2026-000001'), 1000, 'me', 'X') $$,
  'PT403', 'this needs a billing administrator', 'nobody books their own payment'
);
select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.record_payment(md5('none')::uuid, 1000, 'oops', 'X') $$,
  'PT404', 'there is no such invoice', 'an invoice has to exist'
);
select throws_ok(
  $$ select billing_admin.record_payment(tests.id_of('INV-2026-000001'), 1000, 'x', 'X',
    paid_at => '2026-03-06') $$,
  'PT400', 'the request is not valid', 'nobody has paid tomorrow'
);
rollback to overdue;

-- ---- an administrator: void and written off ---------------------------------

select tests.sign_in('ada');
select is(
  (billing_admin.void_invoice(tests.id_of('INV-2026-000001'), 'billed in error')).status, 'void',
  'an invoice that was never owed is void'
);
select is(tests.standing('ann'), 'active since ever, 1', 'and holds nothing against anybody');
select is(
  (billing_admin.void_invoice(tests.id_of('INV-2026-000001'), 'again')).status, 'void',
  'twice changes nothing more'
);
select throws_ok(
  $$ select billing_admin.write_off_invoice(tests.id_of('INV-2026-000001'), 'oops') $$,
  'PT422', 'the invoice cannot go from its state to the one asked for', 'void is final'
);
rollback to overdue;

select tests.sign_in('ada');
select is(
  (billing_admin.write_off_invoice(tests.id_of('INV-2026-000001'), 'hopeless')).status,
  'uncollectible', 'an invoice may be given up'
);
select is(tests.pay('INV-2026-000001', 1000, 'late'), 'paid', 'and be paid all the same');
rollback to overdue;

select tests.pay('INV-2026-000001', 1, 'A');
select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.void_invoice(tests.id_of('INV-2026-000001'), 'oops') $$,
  'PT422', 'the invoice cannot go from its state to the one asked for',
  'money that has come is not declared away'
);
rollback to s;

-- ---- the machine: changes within a period -----------------------------------

select tests.invoice_to('ann', 1, '2026-01-01', 0);
select tests.set_time('2026-01-16 12:00'); -- half of January
select billing_private.set_manual_terms(
  id, md5('plus_yearly')::uuid, 1, billing_private.now())
from billing.subscriptions;
select results_eq(
  $$
    select billing_reason, amount_minor, is_proration, period_end
    from billing.invoice_lines
    join billing.invoices on invoices.id = invoice_lines.invoice_id
    where billing_reason = 'subscription_update'
    order by amount_minor
  $$,
  $$
    values ('subscription_update', -500::bigint, true, '2026-02-01 00:00+00'::timestamptz),
      ('subscription_update', 10000, false, '2027-01-16 12:00+00')
  $$,
  'a longer period begins anew; the unused half of the old one is given back'
);
select is(
  (select due from tests.invoices where billing_reason = 'subscription_update'), 9500::bigint,
  'on one invoice'
);
rollback to s;

select tests.invoice_to('ann', 1, '2026-01-01', 0);
select tests.set_time('2026-01-16 12:00');
select billing_private.set_manual_terms(
  id, md5('basic_monthly')::uuid, 1, billing_private.now())
from billing.subscriptions;
select is(
  (select credit_minor from billing.subscriptions), 250::bigint,
  'G11: what a smaller plan leaves over is credit, not a refund'
);
select tests.set_time('2026-02-01');
select billing_private.renew_manual_subscriptions(10);
select results_eq(
  $$ select subtotal_minor, due from tests.invoices order by issued_at desc limit 1 $$,
  $$ values (500::bigint, 250::bigint) $$,
  'the next invoice is that much smaller'
);
select is((select credit_minor from billing.subscriptions), 0::bigint, 'and the credit is used up');
select is_empty(
  $$
    select invoices.id
    from billing.invoices
    left join billing.invoice_lines on invoice_lines.invoice_id = invoices.id
    group by invoices.id
    having sum(amount_minor) is distinct from subtotal_minor
      or amount_due_minor <> amount_paid_minor + amount_remaining_minor
  $$,
  'every invoice is the sum of its lines, and due what is paid and what remains'
);

select * from finish();
rollback;
