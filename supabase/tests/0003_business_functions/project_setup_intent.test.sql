-- billing_private.project_setup_intent(): payment methods put on file without paying.
begin;
\ir ../helpers.psql
select plan(11);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

-- As of 2026-10-28.endive.
create function tests.intent(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_' || md5(p_event || p_at::text || p_extra), 'setup_intent.' || p_event, p_at,
    '{"id": "seti_1", "object": "setup_intent", "status": "requires_payment_method",
      "usage": "off_session", "customer": "cus_ann", "customer_account": null,
      "created": 1768003200, "livemode": false, "client_secret": "seti_1_secret",
      "last_setup_error": null,
      "cancellation_reason": null, "payment_method": null, "payment_method_types": ["card"],
      "metadata": {}}' || p_extra);
$$;

savepoint s;

-- ---- the service ------------------------------------------------------------

select is(tests.intent('created', '2026-01-10'), 'applied', 'a setup intent is applied');
select results_eq(
  $$
    select account_id, status, usage, failure_code, stripe_customer_id, stripe_payment_method_id,
      created_at
    from billing.setup_intents
  $$,
  $$
    values (md5('ann')::uuid, 'requires_payment_method', 'off_session', null, 'cus_ann', null,
      '2026-01-10 00:00+00'::timestamptz)
  $$,
  'with whose it is and how far it has come'
);
select is_empty(
  $$ select * from billing.setup_intents where to_jsonb(setup_intents)::text like '%secret%' $$,
  'what would let somebody else complete it is not kept'
);
select tests.intent('setup_failed', '2026-01-11', '{"last_setup_error": {
  "code": "card_declined", "decline_code": "lost_card", "message": "Your card was declined."}}');
select results_eq(
  $$ select failure_code, decline_code, failure_message from billing.setup_intents $$,
  $$ values ('card_declined', 'lost_card', 'Your card was declined.') $$,
  'it may fail, and says why'
);
select tests.intent('succeeded', '2026-01-12', '{"status": "succeeded",
  "payment_method": {"id": "pm_1", "object": "payment_method"}, "customer": {"id": "cus_ann"}}');
select tests.intent('requires_action', '2026-01-12', '{"status": "requires_action"}');
select results_eq(
  $$ select status, stripe_payment_method_id, failure_code from billing.setup_intents $$,
  $$ values ('succeeded', 'pm_1', null) $$,
  'A2, D11: once it succeeded, it has its payment method, whatever comes after'
);
rollback to s;

select tests.intent('canceled', '2026-01-12', '{
  "status": "canceled", "cancellation_reason": "abandoned"}');
select tests.intent('created', '2026-01-13');
select results_eq(
  $$ select status, cancellation_reason from billing.setup_intents $$,
  $$ values ('canceled', 'abandoned') $$,
  'A6: what was given up stays so'
);
rollback to s;

select is(
  tests.intent('created', '2026-01-12', '{"customer": null, "status": "dreaming", "usage": null}'),
  'applied',
  'D10: nobody''s, of an unknown status, is stored'
);
select is((select account_id from billing.setup_intents), null, 'and nobody''s');
select tests.intent('requires_action', '2026-01-13', '{"status": "requires_action"}');
select is(
  (select account_id from billing.setup_intents), md5('ann')::uuid,
  'until it has a customer'
);

-- ---- a member, a stranger ---------------------------------------------------

select tests.sign_in('ann');
select is(
  (select count(*) from billing.setup_intents), 1::bigint, 'a member sees the account''s own');
select tests.sign_in('bob');
select is_empty($$ select * from billing.setup_intents $$, 'a stranger sees none');

select * from finish();
rollback;
