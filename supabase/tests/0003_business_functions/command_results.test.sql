-- What follows from Stripe's answers: each kind of command, refusals, and events that are faster.
begin;
\ir ../helpers.psql
select plan(57);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');

-- Claims the oldest call that is due, and answers it; the kind of the call answered.
create function tests.answer(p_response jsonb, p_http_status integer default 200) returns text
language plpgsql as $$
declare
  v_claimed billing.claimed_command;
begin
  select * into strict v_claimed from billing_private.claim_commands(1, null);
  perform billing.complete_command(
    v_claimed.id, v_claimed.lease, p_http_status, p_response, null);
  return (select kind from billing_private.commands where id = v_claimed.id);
end;
$$;

-- Answers the call that was claimed earlier.
create function tests.answer_claimed(p_response jsonb, p_http_status integer default 200)
returns text
language plpgsql as $$
declare
  v_claimed billing_private.commands;
begin
  select * into strict v_claimed from billing_private.commands where status = 'leased';
  return (billing.complete_command(
    v_claimed.id, v_claimed.lease, p_http_status, p_response, null)).status;
end;
$$;

create function tests.checkout(p_name text) returns void
language plpgsql as $$
begin
  perform tests.sign_in(p_name);
  perform billing.prepare_checkout('plus_monthly', 'https://app.example/ok',
    'https://app.example/no');
  perform tests.be_owner();
end;
$$;

create function tests.as_member(p_name text, p_statement text) returns void
language plpgsql as $$
begin
  perform tests.sign_in(p_name);
  execute p_statement;
  perform tests.be_owner();
end;
$$;

create function tests.session(p_id text, p_status text, p_extra jsonb default '{}') returns jsonb
language sql as $$
  select jsonb_build_object(
    'id', p_id, 'object', 'checkout.session', 'status', p_status, 'livemode', false,
    'url', case when p_status = 'open' then 'https://checkout.stripe.com/c/' || p_id end,
    'created', 1768464000, 'expires_at', 1768550400, 'customer', 'cus_ann', 'subscription', null,
    'metadata', jsonb_build_object(
      'checkout_id', (select id from billing.checkout_sessions order by created_at, id limit 1)))
    || p_extra;
$$;

create view tests.open_commands as
select kind, method, path, params
from billing_private.commands
where status in ('pending', 'leased')
order by position;

savepoint s;

-- ---- the service: create_customer -------------------------------------------

select tests.checkout('ann');
select results_eq(
  $$ select * from tests.open_commands $$,
  $$
    values ('create_customer', 'POST', '/v1/customers', jsonb_build_object(
      'email', 'ann@example.com',
      'metadata', jsonb_build_object('account_id', md5('ann')::uuid)))
  $$,
  'B8: a first checkout asks for a customer that carries the account''s id'
);
savepoint customer;

select is(
  tests.answer(jsonb_build_object('id', 'cus_ann', 'object', 'customer', 'created', 1768464000,
    'livemode', false, 'email', 'ann@example.com',
    'metadata', jsonb_build_object('account_id', md5('ann')::uuid))),
  'create_customer',
  'Stripe answers with the customer'
);
select results_eq(
  $$ select account_id, is_primary, stripe_customer_id, email from billing.customers $$,
  $$ values (md5('ann')::uuid, true, 'cus_ann', 'ann@example.com') $$,
  'B8: the claim becomes that customer'
);
select results_eq(
  $$ select * from tests.open_commands $$,
  $$
    select 'create_checkout', 'POST', '/v1/checkout/sessions', jsonb_build_object(
      'mode', 'subscription',
      'customer', 'cus_ann',
      'client_reference_id', md5('ann')::uuid,
      'line_items', '[{"price": "price_plus_monthly", "quantity": 1}]'::jsonb,
      'success_url', 'https://app.example/ok',
      'cancel_url', 'https://app.example/no',
      'metadata', jsonb_build_object('account_id', md5('ann')::uuid, 'checkout_id', id),
      'subscription_data', jsonb_build_object('metadata',
        jsonb_build_object('account_id', md5('ann')::uuid, 'checkout_id', id)))
    from billing.checkout_sessions
  $$,
  'and the page is asked for, with what leads every later event back to the account'
);
rollback to customer;

select billing_private.claim_commands(1, null);
select tests.deliver('evt_cus', 'customer.created', '2026-01-15 08:00', jsonb_build_object(
  'id', 'cus_ann', 'object', 'customer', 'email', 'ann@example.com',
  'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
select is(
  tests.answer_claimed(jsonb_build_object(
    'id', 'cus_ann', 'object', 'customer', 'email', 'ann@example.com',
    'metadata', jsonb_build_object('account_id', md5('ann')::uuid))),
  'succeeded',
  'the event about the customer may be faster than the answer'
);
select results_eq(
  $$ select account_id, is_primary, stripe_customer_id, email from billing.customers $$,
  $$ values (md5('ann')::uuid, true, 'cus_ann', 'ann@example.com') $$,
  'B8: then too there is one customer'
);
select is(
  (select kind from tests.open_commands), 'create_checkout',
  'and the page is asked for'
);
rollback to customer;

select is(
  tests.answer('{"error": {"code": "email_invalid", "message": "Invalid email address"}}', 400),
  'create_customer',
  'Stripe refuses the customer'
);
select results_eq(
  $$ select status, failure from billing.checkout_sessions $$,
  $$
    values ('failed',
      '{"code": "email_invalid", "message": "Invalid email address"}'::jsonb)
  $$,
  'who waits is told why'
);
select is_empty($$ select * from tests.open_commands $$, 'and nothing more is asked of Stripe');
select lives_ok(
  $$ select tests.checkout('ann') $$,
  'the next try is free'
);
select is(
  (select count(*) from tests.open_commands where kind = 'create_customer'), 1::bigint,
  'and asks for the customer again'
);
rollback to customer;

select is(
  tests.answer('{"error": {"message": "busy"}}', 503), 'create_customer',
  'Stripe is busy'
);
select is(
  (select status from billing.checkout_sessions), 'creating',
  'who waits goes on waiting'
);
rollback to customer;

select tests.answer('{"id": "cus_live", "object": "customer", "livemode": true}');
select is_empty(
  $$ select * from billing.customers where stripe_customer_id is not null $$,
  'E6: a customer of the other mode, made with the wrong key, is not taken'
);
select results_eq(
  $$ select status, failure ->> 'code' from billing.checkout_sessions $$,
  $$ values ('failed', 'other_livemode') $$,
  'E6: and who waits is told'
);
select is(
  (select last_error #>> '{error,code}' from billing_private.commands), 'other_livemode',
  'E6: and so are admins'
);
rollback to s;

-- ---- the service: create_checkout -------------------------------------------

select tests.account('ann');
select tests.checkout('ann');
savepoint checkout;

select is(tests.answer(tests.session('cs_1', 'open')), 'create_checkout', 'Stripe opens the page');
select results_eq(
  $$ select status, url, expires_at, stripe_session_id from billing.checkout_sessions $$,
  $$
    values ('open', 'https://checkout.stripe.com/c/cs_1', '2026-01-16 08:00+00'::timestamptz,
      'cs_1')
  $$,
  'the checkout has its address'
);
select results_eq(
  $$ select result_id from billing_private.commands $$,
  $$ values ('cs_1') $$,
  'B10: and the command its result'
);
rollback to checkout;

select billing_private.claim_commands(1, null);
select tests.deliver('evt_cs', 'checkout.session.completed', '2026-01-15 08:05',
  tests.session('cs_1', 'complete', '{"subscription": "sub_ann"}'));
select is(
  tests.answer_claimed(tests.session('cs_1', 'open')), 'succeeded',
  'the completion may be faster than the answer'
);
select results_eq(
  $$ select status, url, stripe_subscription_id from billing.checkout_sessions $$,
  $$ values ('complete', null, 'sub_ann') $$,
  'a completed checkout is not opened again by it'
);
rollback to checkout;

select billing_private.claim_commands(1, null);
select tests.deliver('evt_cs', 'checkout.session.completed', '2026-01-15 08:05',
  tests.session('cs_1', 'complete', '{"subscription": "sub_ann"}'));
select tests.answer_claimed('{"error": {"type": "idempotency_error"}}', 400);
select results_eq(
  $$ select status, failure from billing.checkout_sessions $$,
  $$ values ('complete', null::jsonb) $$,
  'nor taken for failed by a refusal'
);
rollback to checkout;

select tests.answer('{"error": {"code": "resource_missing", "type": "invalid_request_error",
  "message": "No such price: price_plus_monthly"}}', 404);
select results_eq(
  $$ select status, failure ->> 'code' from billing.checkout_sessions $$,
  $$ values ('failed', 'resource_missing') $$,
  'Stripe refuses the page: who waits is told why'
);
rollback to checkout;

select tests.answer('{"error": {"type": "card_error"}}', 402);
select is(
  (select failure from billing.checkout_sessions),
  '{"code": "card_error", "message": "Stripe did not answer"}',
  'a refusal without a code is told by its type'
);
rollback to checkout;

update billing_private.commands set attempts = 11;
select tests.answer('{"error": {"message": "no route to host"}}', null);
select results_eq(
  $$ select status, failure from billing.checkout_sessions $$,
  $$ values ('failed', '{"code": "unknown", "message": "no route to host"}'::jsonb) $$,
  'after the last try without an answer, who waits is told that'
);
rollback to checkout;

-- ---- the service: expire_checkout -------------------------------------------

select tests.answer(tests.session('cs_1', 'open'));
select billing_private.retire_checkouts(md5('ann')::uuid, null);
select results_eq(
  $$ select kind, method, path, params from tests.open_commands $$,
  $$
    values ('expire_checkout', 'POST', '/v1/checkout/sessions/cs_1/expire', '{}'::jsonb)
  $$,
  'a checkout that is closed here is closed at Stripe'
);
select is(tests.answer(tests.session('cs_1', 'expired')), 'expire_checkout', 'Stripe closes it');
select results_eq(
  $$ select status, url from billing.checkout_sessions $$,
  $$ values ('expired', null) $$,
  'and it is expired'
);
rollback to s;

-- ---- the service: changes of a subscription ---------------------------------

select tests.account('ann');
select tests.subscribe('ann');
savepoint subscribed;

select tests.as_member('ann', 'select billing.cancel_subscription()');
savepoint canceling;
select is(
  tests.answer(tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
    '{"cancel_at_period_end": true, "canceled_at": 1768464000}')),
  'update_subscription',
  'Stripe schedules the end'
);
select results_eq(
  $$ select cancel_at_period_end, canceled_at from billing.subscriptions $$,
  $$ values (true, '2026-01-15 08:00+00'::timestamptz) $$,
  'the answer is applied at once, before any event'
);
select results_eq(
  $$
    select subscription_changes.kind, subscription_changes.cause ->> 'kind',
      commands.kind, commands.actor_id
    from billing.subscription_changes
    join billing_private.commands on commands.id::text = subscription_changes.cause ->> 'reference'
  $$,
  $$ values ('cancel_scheduled', 'command', 'update_subscription', md5('ann')::uuid) $$,
  'the history names the command, which names who wanted it'
);
select tests.deliver('evt_later', 'customer.subscription.updated', '2026-01-15 08:00:01',
  tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
    '{"cancel_at_period_end": true, "canceled_at": 1768464000}'));
select is(
  (select count(*) from billing.subscription_changes where kind = 'cancel_scheduled'), 1::bigint,
  'B2: the event that tells the same makes no second entry'
);
select tests.deliver('evt_early', 'customer.subscription.updated', '2026-01-09',
  tests.subscription('ann', 'active', '2026-01-09'));
select ok(
  (select cancel_at_period_end from billing.subscriptions),
  'A7: an older event changes nothing of it'
);
rollback to canceling;

select tests.answer(tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
  '{"cancel_at_period_end": true}'));
select tests.deliver('evt_same', 'customer.subscription.updated', '2026-01-10',
  tests.subscription('ann', 'active', '2026-01-10'), '{"status": "incomplete"}');
select ok(
  (select cancel_at_period_end from billing.subscriptions),
  'A7: nor does an event of the very second it builds on'
);
rollback to canceling;

select tests.answer(tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
  '{"cancel_at_period_end": true}'));
select tests.deliver('evt_new', 'customer.subscription.updated', '2026-01-10 00:00:01',
  tests.subscription('ann', 'past_due', '2026-01-10'));
select is(
  (select status from billing.subscriptions), 'past_due',
  'A7: an event Stripe made after the snapshot the answer builds on is never lost'
);
rollback to canceling;

select billing_private.claim_commands(1, null);
select tests.deliver('evt_during', 'customer.subscription.updated', '2026-01-15 07:59:59',
  tests.subscription('ann', 'past_due', '2026-01-10'));
select is(
  tests.answer_claimed(tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
    '{"cancel_at_period_end": true}')),
  'succeeded',
  'A8: an event that comes in during the call may be newer than the answer'
);
select results_eq(
  $$ select status, cancel_at_period_end from billing.subscriptions $$,
  $$ values ('past_due', false) $$,
  'A8: the answer does not overwrite it'
);
select is_empty(
  $$ select * from tests.open_commands $$,
  'A8: but not asked to do it again'
);
rollback to canceling;

select tests.answer('{"error": {"code": "resource_missing", "message": "No such subscription"}}',
  404);
select results_eq(
  $$ select status, cancel_at_period_end from billing.subscriptions $$,
  $$ values ('active', false) $$,
  'a refusal changes nothing'
);
rollback to canceling;

alter table billing.subscriptions add constraint never_ending check (not cancel_at_period_end);
select is(
  tests.answer(tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
    '{"cancel_at_period_end": true}')),
  'update_subscription',
  'B5: an answer that cannot be applied is an answer all the same'
);
select results_eq(
  $$
    select commands.status, stripe_events.status, stripe_events.attempts
    from billing_private.commands
    join billing_private.stripe_events on event_id = 'command:' || commands.id
  $$,
  $$ values ('succeeded', 'failed', 1) $$,
  'B5: the call is not made again; what it returned will be applied again'
);
alter table billing.subscriptions drop constraint never_ending;
select is(
  (
    select billing_private.apply_event(event_id)
    from billing_private.stripe_events
    where source = 'command'
  ),
  'applied',
  'B5: and is, once the cause is gone'
);
select ok((select cancel_at_period_end from billing.subscriptions), 'B5: with the same result');
rollback to subscribed;

select tests.as_member('ann', 'select billing.cancel_subscription(false)');
select is(
  tests.answer(tests.subscription('ann', 'canceled', '2026-01-10', 'price_plus_monthly',
    '{"ended_at": 1768464000, "canceled_at": 1768464000}')),
  'cancel_subscription',
  'Stripe ends the subscription'
);
select results_eq(
  $$ select status, ended_at from billing.subscriptions $$,
  $$ values ('canceled', '2026-01-15 08:00+00'::timestamptz) $$,
  'it has ended'
);
select is_empty($$ select * from billing.entitlements $$, 'and access with it');
select tests.deliver('evt_old', 'customer.subscription.updated', '2026-01-20',
  tests.subscription('ann', 'active', '2026-01-10'));
select is(
  (select status from billing.subscriptions), 'canceled',
  'A6: for good'
);
rollback to subscribed;

select tests.as_member('ann', $$ select billing.change_plan('plus_yearly') $$);
select is(
  tests.answer(tests.subscription('ann', 'active', '2026-01-15', 'price_plus_yearly')),
  'change_plan',
  'Stripe changes the price'
);
select is(
  (
    select prices.key
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
  ),
  'plus_yearly',
  'and the subscription has it'
);
rollback to subscribed;

-- ---- the service: schedules -------------------------------------------------

select tests.as_member('ann', $$ select billing.change_plan('basic_monthly') $$);
select is(
  tests.answer('{"id": "sub_sched_1", "object": "subscription_schedule", "status": "active",
    "subscription": "sub_ann", "livemode": false, "end_behavior": "release",
    "current_phase": {"start_date": 1768003200, "end_date": 1770681600},
    "phases": [{"start_date": 1768003200, "end_date": 1770681600, "trial_end": null,
      "discounts": [], "items": [
        {"price": "price_plus_monthly", "quantity": 1, "metadata": {}, "tax_rates": []}]}]}'),
  'create_schedule',
  'Stripe makes a schedule of the subscription'
);
select is(
  (select pending_price_id from billing.subscriptions), null,
  'nothing waits yet'
);
select is(
  tests.answer('{"id": "sub_sched_1", "object": "subscription_schedule", "livemode": false,
    "subscription": "sub_ann", "status": "active",
    "current_phase": {"start_date": 1768003200, "end_date": 1770681600}, "phases": [
      {"start_date": 1768003200, "end_date": 1770681600,
        "items": [{"price": "price_plus_monthly"}]},
      {"start_date": 1770681600, "end_date": 1773100800,
        "items": [{"price": "price_basic_monthly"}]}]}'),
  'update_schedule',
  'Stripe takes the new price as the schedule''s next phase'
);
select results_eq(
  $$
    select prices.key, pending_change_at, stripe_schedule_id
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.pending_price_id
  $$,
  $$ values ('basic_monthly', '2026-02-10 00:00+00'::timestamptz, 'sub_sched_1') $$,
  'the change waits for the end of the period'
);
select tests.as_member('ann', $$ select billing.change_plan('plus_monthly') $$);
select is(
  tests.answer('{"id": "sub_sched_1", "object": "subscription_schedule", "status": "released",
    "livemode": false, "subscription": null, "released_subscription": "sub_ann"}'),
  'release_schedule',
  'Stripe lets go of the schedule'
);
select results_eq(
  $$
    select pending_price_id, pending_change_at, stripe_schedule_id
    from billing.subscriptions
  $$,
  $$ values (null::uuid, null::timestamptz, null) $$,
  'and nothing waits any more'
);
rollback to subscribed;

-- ---- the service: create_portal ---------------------------------------------

select tests.as_member('ann', $$ select billing.prepare_portal('https://app.example') $$);
create temporary table opened as
select claimed.*
from billing_private.commands
cross join lateral billing_private.claim_commands(1, commands.subject_id) as claimed;
select tests.answer_claimed('{"id": "bps_1", "object": "billing_portal.session",
  "livemode": false, "url": "https://billing.stripe.com/p/secret"}');
select is_empty(
  $$
    select commands::text
    from billing_private.commands
    where commands::text like '%billing.stripe.com/p/secret%'
    union all
    select payload from billing_private.stripe_events where payload like '%/p/secret%'
  $$,
  'the address of a portal is for who waits, and is not kept'
);

select * from finish();
rollback;
