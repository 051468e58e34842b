-- billing.cancel_subscription(): the end, with the period or at once; asked twice it is asked once.
begin;
\ir ../helpers.psql
select plan(53);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);
select tests.subscribe('ann');

-- Ann's subscription, as Stripe says a little later.
create function tests.sub(p_status text, p_extra jsonb default '{}') returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_status || p_extra), 'customer.subscription.updated',
    '2026-01-11', tests.subscription('ann', p_status, '2026-01-10', 'price_plus_monthly', p_extra));
$$;

create function tests.details(p_statement text) returns jsonb
language plpgsql as $$
declare
  v_details text;
begin
  execute p_statement;
  return null;
exception when others then
  get stacked diagnostics v_details = pg_exception_detail;
  return v_details;
end;
$$;

-- What Stripe is to be asked, in this order.
create view tests.asked as
select kind, method, path, params
from billing_private.commands
where status in ('pending', 'leased')
order by position;

-- What Stripe is asked when ann ends her subscription in this status; undone again.
create function tests.asked_after(p_status text) returns jsonb
language plpgsql as $$
declare
  v_params jsonb;
begin
  perform tests.sub(p_status);
  perform tests.sign_in('ann');
  perform billing.cancel_subscription();
  perform tests.be_owner();
  select params into v_params from tests.asked;
  raise exception sqlstate 'TS001';
exception when sqlstate 'TS001' then
  return v_params;
end;
$$;

create function tests.is_allowed(p_from text, p_to text) returns boolean
language plpgsql as $$
declare
  v_subscription billing.subscriptions;
begin
  v_subscription.status := p_from;
  perform billing_private.require_transition(v_subscription, p_to);
  return true;
exception when sqlstate 'PT422' then
  return false;
end;
$$;

grant execute on all functions in schema tests to authenticated, service_role;
savepoint s;

-- ---- a member: with the period ----------------------------------------------

select tests.sign_in('ann');
select results_eq(
  $$ select status, ends_at, pending_command from billing.cancel_subscription() $$,
  $$ values ('active', null::timestamptz, 'update_subscription') $$,
  'a member asks for the end; until Stripe has answered, that is all that is shown'
);
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('update_subscription', 'POST', '/v1/subscriptions/sub_ann',
      '{"cancel_at_period_end": true}'::jsonb)
  $$,
  'Stripe is asked to end the subscription with its period'
);
select results_eq(
  $$
    select account_id, target_object_id, actor_id, cause ->> 'kind'
    from billing_private.commands
  $$,
  $$ values (md5('ann')::uuid, 'sub_ann', md5('ann')::uuid, 'user') $$,
  'in the name of who asked'
);
select tests.sign_in('ann');
select lives_ok($$ select billing.cancel_subscription() $$, 'asking again is no error');
select lives_ok(
  $$ select billing.cancel_subscription(null) $$, 'also without saying when'
);
select tests.be_owner();
select is((select count(*) from tests.asked), 1::bigint, 'a double click is one command');

update billing_private.commands
set status = 'leased', lease = gen_random_uuid(), lease_expires_at = '2026-01-15 09:00';
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is(
  (select count(*) from tests.asked), 1::bigint,
  'so is a click while Stripe is being asked'
);
rollback to s;

select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
update billing_private.commands set status = 'dead';
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is(
  (select count(*) from tests.asked), 1::bigint,
  'what Stripe has refused can be asked again'
);
rollback to s;

select tests.sub('active', '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select is(
  (select ends_at from billing.cancel_subscription()), '2026-02-10 00:00+00'::timestamptz,
  'who cancels what is ending is told when'
);
select tests.be_owner();
select is_empty($$ select * from tests.asked $$, 'and Stripe is asked nothing');
rollback to s;

select tests.sign_in('ann');
select billing.cancel_subscription(reason => 'too dear');
select tests.be_owner();
select is(
  (select params from tests.asked),
  '{"cancel_at_period_end": true, "cancellation_details": {"comment": "too dear"}}',
  'what the member says about it goes along'
);
select tests.sign_in('ann');
select billing.cancel_subscription(false, ' ');
select tests.be_owner();
select is(
  (select array_agg(params) from tests.asked where method = 'DELETE'), array['{}'::jsonb],
  'nothing is nothing'
);
rollback to s;

select tests.sub('active', '{"cancel_at": 1770681600}');
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is_empty(
  $$ select * from tests.asked $$,
  'G7: a subscription that the portal has set to end with its period is ending'
);
rollback to s;

select tests.sub('active', '{"cancel_at": 1770681601}');
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is(
  (select params from tests.asked), '{"cancel_at_period_end": true}',
  'one that ends later can be ended with its period'
);
rollback to s;

select is_empty(
  $$
    select status
    from unnest(array['trialing', 'past_due', 'unpaid', 'paused']) as status
    where tests.asked_after(status) is distinct from '{"cancel_at_period_end": true}'
  $$,
  'whatever state it is in'
);

-- ---- a member: at once ------------------------------------------------------

select tests.sign_in('ann');
select billing.cancel_subscription(false);
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked $$,
  $$ values ('cancel_subscription', 'DELETE', '/v1/subscriptions/sub_ann', '{}'::jsonb) $$,
  'Stripe is asked to end the subscription now'
);
select tests.sign_in('ann');
select billing.cancel_subscription(false);
select billing.cancel_subscription(true);
select tests.be_owner();
select is(
  (select count(*) from tests.asked), 1::bigint,
  'a double click is one command, and the end of the period no second'
);
rollback to s;

select tests.sign_in('ann');
select billing.cancel_subscription(true);
select billing.cancel_subscription(false);
select tests.be_owner();
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('update_subscription'), ('cancel_subscription') $$,
  'who asked for the end of the period may still end it at once'
);
rollback to s;

select tests.sub('active', '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select billing.cancel_subscription(false);
select tests.be_owner();
select is((select kind from tests.asked), 'cancel_subscription', 'also once it is ending');
rollback to s;

select tests.deliver('evt_i', 'customer.subscription.updated', '2026-01-09',
  tests.subscription('ann', 'incomplete', '2026-01-09'));
update billing.subscriptions set status = 'incomplete';
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is(
  (select method from tests.asked), 'DELETE',
  'one that was never paid has no period to wait for: it ends at once'
);
rollback to s;

-- ---- a member: a change that waits ------------------------------------------

select tests.sub('active', '{"schedule": "sub_sched_1"}');
savepoint scheduled;
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values
      ('release_schedule', 'POST', '/v1/subscription_schedules/sub_sched_1/release', '{}'::jsonb),
      ('update_subscription', 'POST', '/v1/subscriptions/sub_ann', '{"cancel_at_period_end": true}')
  $$,
  'while a schedule is attached Stripe refuses to end a subscription: it is let go first'
);
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is((select count(*) from tests.asked), 2::bigint, 'a double click lets go of it once');
rollback to scheduled;

select tests.sign_in('ann');
select billing.cancel_subscription(false);
select tests.be_owner();
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('release_schedule'), ('cancel_subscription') $$,
  'the same for an end at once'
);
rollback to s;

select tests.sign_in('ann');
select billing.change_plan('basic_monthly', true);
select billing.cancel_subscription();
select tests.be_owner();
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('update_subscription') $$,
  'a change Stripe has not been told of is left out'
);
rollback to s;

select tests.sign_in('ann');
select billing.change_plan('basic_monthly', true);
select tests.be_owner();
create temporary table making as select * from billing.claim_commands();
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
-- Bob's schedule is another story.
insert into billing_private.commands (kind, account_id, path, subject_id)
values ('release_schedule', md5('bob')::uuid, '/bob''s {id}', md5('bob''s')::uuid);
savepoint making;
select billing.complete_command(id, lease, 200, '{"id": "sub_sched_9", "livemode": false,
  "object": "subscription_schedule", "phases": [{"items": [{"price": "price_plus_monthly"}]}]}')
from making;
select results_eq(
  $$ select kind, path from tests.asked $$,
  $$
    values ('release_schedule', '/v1/subscription_schedules/sub_sched_9/release'),
      ('update_subscription', '/v1/subscriptions/sub_ann'),
      ('release_schedule', '/bob''s {id}')
  $$,
  'a schedule Stripe was making meanwhile is let go, and then the subscription ended'
);
rollback to making;
select billing.complete_command(id, lease, 400, '{"error": {"message": "No."}}') from making;
select results_eq(
  $$ select path from tests.asked $$,
  $$ values ('/v1/subscriptions/sub_ann'), ('/bob''s {id}') $$,
  'one that Stripe did not make needs no letting go'
);
rollback to s;

select tests.sign_in('ann');
select billing.change_plan('basic_monthly', true);
select tests.be_owner();
select billing.complete_command(id, lease, 503, '{}') from billing.claim_commands();
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('create_schedule'), ('release_schedule'), ('update_subscription') $$,
  'one that Stripe may have made before it failed to answer is asked for again, to be let go'
);
rollback to s;

-- ---- a member: what is over, what never was ---------------------------------

select tests.deliver('evt_d', 'customer.subscription.deleted', '2026-01-12',
  tests.subscription('ann', 'canceled', '2026-01-10', 'price_plus_monthly',
    '{"ended_at": 1768176000}'));
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.cancel_subscription() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'what has ended cannot be ended'
);
select is(
  tests.details($$ select billing.cancel_subscription() $$) - 'subscription_id',
  '{"code": "INVALID_TRANSITION", "from": "canceled", "to": "canceled"}',
  'the refusal names both states'
);
select tests.be_owner();
rollback to s;

select tests.deliver('evt_e', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('ann', 'incomplete_expired', '2026-01-10'));
select tests.sign_in('ann');
select is(
  tests.details($$ select billing.cancel_subscription() $$) ->> 'from', 'incomplete_expired',
  'nor can what never began'
);
select tests.be_owner();
rollback to s;

select tests.sub('hibernating');
select tests.sign_in('ann');
select is(
  tests.details($$ select billing.cancel_subscription() $$) ->> 'from', 'hibernating',
  'D10: nor, by us, what is in a state nobody knows'
);
select tests.be_owner();
rollback to s;

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.cancel_subscription() $$,
  'PT404', 'the account has no such subscription',
  'who never subscribed has nothing to end'
);
select tests.be_owner();

-- ---- a member: a manual subscription ----------------------------------------

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('plus_monthly')::uuid, 1, null);
savepoint manual;
select tests.set_time('2026-01-20');
select tests.sign_in('bob');
select results_eq(
  $$ select status, ends_at, access_until, pending_command from billing.cancel_subscription() $$,
  $$
    values ('active', '2026-02-15 08:00+00'::timestamptz, '2026-02-15 08:00+00'::timestamptz, null)
  $$,
  'a manual subscription is set to end with its period at once, and access with it'
);
select tests.be_owner();
select results_eq(
  $$
    select cancel_at_period_end, canceled_at, cancellation_reason, ended_at
    from billing.subscriptions
    where provider = 'manual'
  $$,
  $$
    values (true, '2026-01-20 00:00+00'::timestamptz, 'cancellation_requested', null::timestamptz)
  $$,
  'with when and why'
);
select is_empty($$ select * from tests.asked $$, 'and Stripe has no part in it');
select tests.set_time('2026-01-25');
select tests.sign_in('bob');
select billing.cancel_subscription(true, 'another reason');
select tests.be_owner();
select results_eq(
  $$
    select canceled_at, cancellation_reason, updated_at
    from billing.subscriptions
    where provider = 'manual'
  $$,
  $$
    values ('2026-01-20 00:00+00'::timestamptz, 'cancellation_requested',
      '2026-01-20 00:00+00'::timestamptz)
  $$,
  'asking again changes nothing'
);
rollback to manual;

select tests.sign_in('bob');
select billing.cancel_subscription(null, 'too many books');
select tests.be_owner();
select results_eq(
  $$
    select status, cancel_at_period_end, cancellation_reason
    from billing.subscriptions
    where provider = 'manual'
  $$,
  $$ values ('active', true, 'too many books') $$,
  'without saying when, it ends with the period; the reason given is kept'
);
rollback to manual;

select tests.sign_in('bob');
select results_eq(
  $$ select status, ends_at, access_until from billing.cancel_subscription(false) $$,
  $$ values ('canceled', '2026-01-15 08:00+00'::timestamptz, null::timestamptz) $$,
  'at once it ends at once, and so does access'
);
select tests.be_owner();
select is_empty(
  $$ select * from billing.entitlements where account_id = md5('bob')::uuid $$,
  'to the second'
);
select results_eq(
  $$
    select canceled_at, ended_at, cancellation_reason
    from billing.subscriptions
    where provider = 'manual'
  $$,
  $$
    values ('2026-01-15 08:00+00'::timestamptz, '2026-01-15 08:00+00'::timestamptz,
      'cancellation_requested')
  $$,
  'and it is kept when and why'
);
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.cancel_subscription() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'and cannot be ended again'
);
select tests.be_owner();
rollback to manual;

update billing.subscriptions
set pending_price_id = md5('basic_monthly')::uuid, pending_change_at = current_period_end
where provider = 'manual';
savepoint waiting;
select tests.sign_in('bob');
select is(
  (select pending_price_key from billing.cancel_subscription()), null,
  'a change that waited for the end of the period is gone with it'
);
select tests.be_owner();
rollback to waiting;
select tests.sign_in('bob');
select is(
  (select pending_price_key from billing.cancel_subscription(false)), null,
  'also when it ends at once'
);
select tests.be_owner();
rollback to s;

-- ---- a member of several ----------------------------------------------------

select tests.deliver('evt_o', 'customer.subscription.created', '2025-01-01',
  tests.subscription('ann', 'canceled', '2025-01-01', 'price_plus_monthly',
    '{"id": "sub_old", "ended_at": 1740000000}'));
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is(
  (select path from tests.asked), '/v1/subscriptions/sub_ann',
  'G6: the subscription that runs is ended, not an older one'
);
rollback to s;

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.cancel_subscription(true, null, md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody can end the subscription of somebody else'
);
select throws_ok(
  $$ select billing.cancel_subscription(true, null, md5('nobody')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: with the same answer for an account that does not exist'
);
select throws_ok(
  $$ update billing.subscriptions set status = 'canceled' $$,
  '42501', 'permission denied for table subscriptions',
  'nor write it directly'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.cancel_subscription() $$,
  '42501', 'permission denied for function cancel_subscription',
  'a visitor has to sign in first'
);
select tests.be_owner();
select is_empty($$ select * from tests.asked $$, 'E11: no refusal has asked Stripe for anything');

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select is(
  (select pending_command from billing.cancel_subscription(true, 'fraud', md5('ann')::uuid)),
  'update_subscription',
  'the service may end any account''s subscription'
);
select throws_ok(
  $$ select billing.cancel_subscription() $$,
  'PT400', 'the request is not valid',
  'and has to name the account'
);
select throws_ok(
  $$ select billing.cancel_subscription(account_id => md5('nobody')::uuid) $$,
  'PT404', 'there is no such account',
  'and is told when it does not exist'
);

-- ---- the owner: the rules ---------------------------------------------------

select tests.be_owner();
select is_empty(
  $$
    with statuses as (
      select *
      from unnest(array['incomplete', 'trialing', 'active', 'past_due', 'unpaid', 'paused',
        'canceled', 'incomplete_expired', 'hibernating']) as status
    )
    select before.status, after.status
    from statuses as before
    cross join statuses as after
    left join billing.subscription_transitions
      on (from_status, to_status) = (before.status, after.status)
    where tests.is_allowed(before.status, after.status) <> (from_status is not null)
  $$,
  'exactly the transitions that are listed are allowed'
);

select * from finish();
rollback;
