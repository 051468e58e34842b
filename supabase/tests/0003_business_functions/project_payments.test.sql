-- Projectors of payment intents, charges and invoice payments: one payment, told by three objects.
begin;
\ir ../helpers.psql
\ir convergence.psql
select plan(26);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

create function tests.intent(p_status text, p_extra jsonb default '{}') returns jsonb
language sql as $$
  select jsonb_build_object(
    'id', 'pi_1', 'object', 'payment_intent', 'status', p_status, 'amount', 1000,
    'amount_received', case when p_status = 'succeeded' then 1000 else 0 end,
    'currency', 'usd', 'customer', 'cus_ann', 'payment_method', 'pm_1', 'created', 1768003200,
    'latest_charge', 'ch_1', 'last_payment_error', null) || p_extra;
$$;

create function tests.charge(p_status text, p_extra jsonb default '{}') returns jsonb
language sql as $$
  select jsonb_build_object(
    'id', 'ch_1', 'object', 'charge', 'status', p_status, 'payment_intent', 'pi_1',
    'amount', 1000, 'amount_captured', case when p_status = 'succeeded' then 1000 else 0 end,
    'amount_refunded', 0, 'currency', 'usd', 'customer', 'cus_ann', 'payment_method', 'pm_2',
    'created', 1768089600, 'disputed', false) || p_extra;
$$;

-- Delivered under a name made of time and contents.
create function tests.tell(p_type text, p_at timestamptz, p_object jsonb) returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_type || p_at::text || p_object), p_type, p_at, p_object);
$$;

savepoint s;

-- ---- the service: an intent -------------------------------------------------

select is(
  tests.tell('payment_intent.payment_failed', '2026-01-10', tests.intent(
    'requires_payment_method', '{"last_payment_error": {"code": "card_declined",
      "decline_code": "insufficient_funds", "message": "Your card has insufficient funds."}}')),
  'applied',
  'a payment intent is applied'
);
select results_eq(
  $$
    select account_id, stripe_payment_key, status, amount_minor, amount_received_minor, currency,
      failure_code, decline_code, failure_message, paid_at, stripe_payment_method_id, created_at
    from billing.payments
  $$,
  $$
    values (md5('ann')::uuid, 'pi_1', 'requires_payment_method', 1000::bigint, 0::bigint, 'usd',
      'card_declined', 'insufficient_funds', 'Your card has insufficient funds.',
      null::timestamptz, 'pm_1', '2026-01-10 00:00+00'::timestamptz)
  $$,
  'a declined card is told with the issuer''s reason'
);
select tests.tell('payment_intent.succeeded', '2026-01-11', tests.intent('succeeded', '{
  "amount": 900, "amount_received": 900, "payment_method": "pm_9"}'));
select results_eq(
  $$
    select status, amount_minor, amount_received_minor, stripe_payment_method_id, failure_code,
      decline_code, failure_message
    from billing.payments
  $$,
  $$ values ('succeeded', 900::bigint, 900::bigint, 'pm_9', null, null, null) $$,
  'the payment that succeeds in the end says nothing of it any more'
);
rollback to s;

select is(
  tests.tell('payment_intent.requires_action', '2026-01-10',
    tests.intent('requires_action', '{"amount": 5000000000, "currency": "idr"}')),
  'applied',
  'a payment that waits for its customer is applied'
);
select results_eq(
  $$ select status, amount_minor from billing.payments $$,
  $$ values ('requires_action', 5000000000) $$,
  'D15: with an amount beyond 32 bits'
);
rollback to s;

-- ---- the service: intent and charge -----------------------------------------

select tests.tell('payment_intent.succeeded', '2026-01-11', tests.intent('succeeded'));
select tests.tell('charge.succeeded', '2026-01-11', tests.charge('succeeded'));
select results_eq(
  $$
    select stripe_payment_key, status, paid_at, stripe_charge_id, stripe_payment_method_id,
      created_at
    from billing.payments
  $$,
  $$
    values ('pi_1', 'succeeded', '2026-01-11 00:00+00'::timestamptz, 'ch_1', 'pm_1',
      '2026-01-10 00:00+00'::timestamptz)
  $$,
  'intent and charge are one payment; when it was paid is the charge''s to say'
);
select tests.tell('charge.refunded', '2026-01-12',
  tests.charge('succeeded', '{"amount_refunded": 400}'));
select is(
  (select amount_refunded_minor from billing.payments), 400::bigint,
  'G10: what was given back is seen on the payment'
);
select tests.tell('charge.updated', '2026-01-13',
  tests.charge('succeeded', '{"amount_refunded": 400, "disputed": true}'));
select ok((select is_disputed from billing.payments), 'G10: and so is a dispute');
rollback to s;

select is(
  tests.play(array[
    tests.event('evt_1', 'charge.succeeded', '2026-01-11', tests.charge('succeeded')),
    tests.event('evt_2', 'payment_intent.succeeded', '2026-01-11', tests.intent('succeeded'))]),
  tests.play(array[
    tests.event('evt_2', 'payment_intent.succeeded', '2026-01-11', tests.intent('succeeded')),
    tests.event('evt_1', 'charge.succeeded', '2026-01-11', tests.charge('succeeded'))]),
  'which of the two comes first makes no difference'
);

select tests.tell('payment_intent.payment_failed', '2026-01-10',
  tests.intent('requires_payment_method'));
select is(
  tests.tell('charge.failed', '2026-01-10', tests.charge('failed', '{"id": "ch_0"}')), 'applied',
  'the failed charge of an intent is applied'
);
select results_eq(
  $$ select count(*), max(status), max(stripe_charge_id) from billing.payments $$,
  $$ values (1::bigint, 'requires_payment_method', null) $$,
  'and leaves the telling to the intent, which outlives it'
);
rollback to s;

select tests.tell('charge.failed', '2026-01-10', tests.charge('failed', '{"id": "ch_0"}'));
select is_empty(
  $$ select * from billing.payments $$,
  'a failed charge alone makes no payment of an intent nobody has heard of'
);
rollback to s;

-- ---- the service: charges without an intent ---------------------------------

select tests.tell('charge.failed', '2026-01-10', tests.charge('failed', '{
  "payment_intent": null, "failure_code": "card_declined", "failure_message": "No.",
  "outcome": {"reason": "do_not_honor"}}'));
select results_eq(
  $$
    select stripe_payment_key, status, amount_received_minor, failure_code, decline_code,
      failure_message, paid_at
    from billing.payments
  $$,
  $$
    values ('ch_1', 'failed', 0::bigint, 'card_declined', 'do_not_honor', 'No.', null::timestamptz)
  $$,
  'a charge without an intent is a payment of its own'
);
select tests.tell('charge.succeeded', '2026-01-11',
  tests.charge('succeeded', '{"payment_intent": null}'));
select results_eq(
  $$ select status, amount_received_minor, failure_code, paid_at from billing.payments $$,
  $$ values ('succeeded', 1000::bigint, null, '2026-01-11 00:00+00'::timestamptz) $$,
  'and follows its newest snapshot in everything'
);
rollback to s;

select tests.tell('charge.captured', '2026-01-10', tests.charge('succeeded', '{
  "payment_intent": null, "amount_captured": 600}'));
select is(
  (select amount_received_minor from billing.payments), 600::bigint,
  'of a charge captured in part that part was received'
);
rollback to s;

-- ---- the service: ids and objects -------------------------------------------

select is(
  tests.play(array[
    tests.event('evt_1', 'charge.succeeded', '2026-01-11', tests.charge('succeeded', '{
      "payment_intent": {"id": "pi_1", "object": "payment_intent"},
      "customer": {"id": "cus_ann", "object": "customer"},
      "invoice": {"id": "in_1", "object": "invoice"}}'))]),
  tests.play(array[
    tests.event('evt_1', 'charge.succeeded', '2026-01-11',
      tests.charge('succeeded', '{"invoice": "in_1"}'))]),
  'D11: intent, customer and invoice of a charge may be ids or objects'
);

select is(
  tests.play(array[
    tests.event('evt_1', 'payment_intent.succeeded', '2026-01-11', tests.intent('succeeded', '{
      "customer": {"id": "cus_ann", "deleted": true}, "invoice": "in_1",
      "payment_method": {"id": "pm_1", "object": "payment_method"}}'))]),
  tests.play(array[
    tests.event('evt_1', 'payment_intent.succeeded', '2026-01-11',
      tests.intent('succeeded', '{"invoice": {"id": "in_1"}}'))]),
  'D11: and so may those of an intent'
);

-- ---- the service: which invoice ---------------------------------------------

create function tests.link(p_payment jsonb) returns text
language sql as $$
  select tests.tell('invoice_payment.paid', '2026-01-11', jsonb_build_object(
    'id', 'inpay_1', 'object', 'invoice_payment', 'invoice', 'in_1', 'currency', 'usd',
    'amount_requested', 1000, 'payment', p_payment));
$$;
savepoint link;

select tests.tell('payment_intent.succeeded', '2026-01-11', tests.intent('succeeded'));
select is(
  tests.link('{"type": "payment_intent", "payment_intent": "pi_1"}'), 'applied',
  'the payment of an invoice is applied'
);
select results_eq(
  $$ select stripe_payment_key, stripe_invoice_id, status from billing.payments $$,
  $$ values ('pi_1', 'in_1', 'succeeded') $$,
  'and says which invoice the intent paid'
);
rollback to link;

select tests.link('{"type": "payment_intent", "payment_intent": {"id": "pi_1"}}');
select tests.tell('payment_intent.succeeded', '2026-01-11', tests.intent('succeeded'));
select results_eq(
  $$ select stripe_payment_key, stripe_invoice_id, status, account_id from billing.payments $$,
  $$ values ('pi_1', 'in_1', 'succeeded', md5('ann')::uuid) $$,
  'D11: also when it comes first, with the intent as an object'
);
rollback to link;

select is(
  tests.play(array[
    tests.event('evt_0', 'payment_intent.created', '2026-01-10', tests.intent('processing')),
    tests.event('evt_1', 'payment_intent.succeeded', '2026-01-11', tests.intent('succeeded')),
    tests.event('evt_2', 'invoice_payment.paid', '2026-01-11', '{"id": "inpay_1",
      "object": "invoice_payment", "invoice": "in_1", "currency": "usd",
      "amount_requested": 1000, "payment": {"payment_intent": "pi_1"}}')]) -> 'payments',
  tests.play(array[
    tests.event('evt_0', 'payment_intent.created', '2026-01-10', tests.intent('processing')),
    tests.event('evt_1', 'payment_intent.succeeded', '2026-01-11',
      tests.intent('succeeded', '{"invoice": "in_1"}'))]) -> 'payments',
  'D7: an intent that names its invoice, as up to acacia, gives the same payment'
);

select tests.link('{"type": "charge", "charge": "ch_9"}');
select results_eq(
  $$ select stripe_payment_key, stripe_invoice_id from billing.payments $$,
  $$ values ('ch_9', 'in_1') $$,
  'an invoice may be paid by a charge without an intent'
);
rollback to link;

select is(
  tests.link('{"type": "payment_record", "payment_record": "prec_1"}'), 'applied',
  'a payment made outside of Stripe is applied'
);
select is_empty($$ select * from billing.payments $$, 'and is none of ours');
rollback to link;

-- ---- a member, a stranger ---------------------------------------------------

select tests.tell('payment_intent.succeeded', '2026-01-11', tests.intent('succeeded'));
select tests.sign_in('ann');
select is((select count(*) from billing.payments), 1::bigint,
  'a member sees the account''s payments');
select tests.sign_in('bob');
select is_empty($$ select * from billing.payments $$, 'a stranger sees none');

select * from finish();
rollback;
