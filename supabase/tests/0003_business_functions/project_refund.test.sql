-- billing_private.project_refund(): money given back, whose account is that of its payment.
begin;
\ir ../helpers.psql
select plan(13);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

create function tests.refund(p_status text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_status || p_at::text || p_extra), 'refund.updated', p_at,
    jsonb_build_object('id', 're_1', 'object', 'refund', 'status', p_status, 'amount', 300,
      'currency', 'usd', 'reason', 'requested_by_customer', 'payment_intent', 'pi_1',
      'charge', 'ch_1', 'created', 1768176000) || p_extra);
$$;

create function tests.intent() returns text
language sql as $$
  select tests.deliver('evt_pi', 'payment_intent.succeeded', '2026-01-10', '{
    "id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 1000,
    "currency": "usd", "customer": "cus_ann", "created": 1768003200}');
$$;

savepoint s;

-- ---- the service ------------------------------------------------------------

select tests.intent();
select is(
  tests.refund('pending', '2026-01-12'), 'applied',
  'E8: a refund, which names no mode and no customer, is applied'
);
select results_eq(
  $$
    select account_id, stripe_payment_key, status, amount_minor, currency, reason, failure_reason,
      refunded_at, stripe_refund_id
    from billing.refunds
  $$,
  $$
    values (md5('ann')::uuid, 'pi_1', 'pending', 300::bigint, 'usd', 'requested_by_customer',
      null, '2026-01-12 00:00+00'::timestamptz, 're_1')
  $$,
  'E8: it is the account''s whose payment it gives back'
);
select tests.refund('failed', '2026-01-14',
  '{"failure_reason": "lost_or_stolen_card", "reason": "duplicate", "amount": 200}');
select results_eq(
  $$ select status, failure_reason, reason, amount_minor from billing.refunds $$,
  $$ values ('failed', 'lost_or_stolen_card', 'duplicate', 200::bigint) $$,
  'a refund may fail, and says why'
);
rollback to s;

select is(
  tests.deliver('evt_live', 'refund.created', '2026-01-12',
    '{"id": "re_1", "object": "refund", "payment_intent": "pi_1", "amount": 1, "currency": "usd"}',
    null, '{"livemode": true}'),
  'ignored',
  'E8: the mode of a refund is its event''s'
);
select is_empty($$ select * from billing.refunds $$, 'E8: one of the other mode is not stored');
rollback to s;

select tests.refund('succeeded', '2026-01-12');
select tests.refund('succeeded', '2026-01-12', '{"id": "re_2", "payment_intent": "pi_2"}');
select is_empty(
  $$ select * from billing.refunds where account_id is not null $$,
  'a refund that comes before its payment is nobody''s yet'
);
select tests.intent();
select results_eq(
  $$ select stripe_refund_id, account_id from billing.refunds order by 1 $$,
  $$ values ('re_1', md5('ann')::uuid), ('re_2', null) $$,
  'and finds its account with the payment; those of others wait on'
);
rollback to s;

select tests.refund('succeeded', '2026-01-12', '{"payment_intent": null}');
select tests.deliver('evt_ch', 'charge.succeeded', '2026-01-10', '{
  "id": "ch_1", "object": "charge", "status": "succeeded", "payment_intent": null,
  "customer": "cus_ann", "amount": 1000, "currency": "usd", "created": 1768003200}');
select results_eq(
  $$ select account_id, stripe_payment_key from billing.refunds $$,
  $$ values (md5('ann')::uuid, 'ch_1') $$,
  'the refund of a charge without an intent is found by the charge'
);
rollback to s;

select tests.intent();
select tests.refund('succeeded', '2026-01-12',
  '{"payment_intent": {"id": "pi_1", "object": "payment_intent"}, "charge": {"id": "ch_1"}}');
select is(
  (select account_id from billing.refunds), md5('ann')::uuid,
  'D11: intent and charge may be objects'
);
rollback to s;

select tests.refund('succeeded', '2026-01-12');
select is(
  tests.deliver('evt_old', 'charge.refund.updated', '2026-01-13',
    '{"id": "re_1", "object": "refund", "status": "failed", "amount": 300, "currency": "usd"}'),
  'applied',
  'the older name of a refund''s event is understood'
);
select is((select status from billing.refunds), 'failed', 'and tells of the same refund');
rollback to s;

-- ---- a member, a stranger ---------------------------------------------------

select tests.intent();
select tests.refund('succeeded', '2026-01-12');
select tests.sign_in('ann');
select is((select count(*) from billing.refunds), 1::bigint,
  'a member sees the account''s refunds');
select tests.sign_in('bob');
select is_empty($$ select * from billing.refunds $$, 'a stranger sees none');

select * from finish();
rollback;
