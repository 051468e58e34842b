-- billing.undo_cancel(): taking a scheduled end back, in whichever form it was scheduled.
begin;
\ir ../helpers.psql
select plan(28);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);
select tests.subscribe('ann');

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

create view tests.asked as
select kind, method, path, params
from billing_private.commands
where status in ('pending', 'leased')
order by position;

grant execute on all functions in schema tests to authenticated;
savepoint s;

-- ---- a member: what Stripe is asked -----------------------------------------

select tests.sub('active', '{"cancel_at_period_end": true, "cancel_at": 1770681600}');
select tests.sign_in('ann');
select is(
  (select pending_command from billing.undo_cancel()), 'undo_cancel',
  'a member takes a scheduled end back'
);
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('undo_cancel', 'POST', '/v1/subscriptions/sub_ann',
      '{"cancel_at_period_end": false}'::jsonb)
  $$,
  'Stripe is asked to clear the flag, and with it the date Stripe derives from it'
);
select tests.sign_in('ann');
select lives_ok($$ select billing.undo_cancel() $$, 'asking again is no error');
select tests.be_owner();
select is((select count(*) from tests.asked), 1::bigint, 'a double click is one command');
rollback to s;

select tests.sub('active', '{"cancel_at": 1770681600, "cancel_at_period_end": false}');
select tests.sign_in('ann');
select billing.undo_cancel();
select tests.be_owner();
select is(
  (select params from tests.asked), '{"cancel_at": ""}',
  'G7: an end at a date, as the portal sets it, is cleared as one: Stripe unsets what is empty'
);
rollback to s;

select tests.sub('trialing', '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select lives_ok($$ select billing.undo_cancel() $$, 'the end of a trial can be taken back');
select tests.be_owner();
rollback to s;

-- ---- a member: before Stripe has answered -----------------------------------

select tests.sign_in('ann');
select billing.cancel_subscription();
select lives_ok(
  $$ select billing.undo_cancel() $$,
  'a cancellation can be taken back before Stripe has answered it'
);
select lives_ok($$ select billing.undo_cancel() $$, 'twice is no error');
select tests.be_owner();
select results_eq(
  $$ select kind, params from tests.asked $$,
  $$
    values ('update_subscription', '{"cancel_at_period_end": true}'::jsonb),
      ('undo_cancel', '{"cancel_at_period_end": false}')
  $$,
  'Stripe is asked one after the other'
);
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('update_subscription'), ('undo_cancel'), ('update_subscription') $$,
  'who changes her mind again is ended after all: the last word counts'
);
rollback to s;

select tests.sub('active', '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select billing.undo_cancel();
select billing.cancel_subscription();
select billing.cancel_subscription();
select tests.be_owner();
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('undo_cancel'), ('update_subscription') $$,
  'also where the subscription was ending before'
);
rollback to s;

select tests.sign_in('ann');
select billing.cancel_subscription(false);
select throws_ok(
  $$ select billing.undo_cancel() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'an end at once cannot be taken back'
);
select tests.be_owner();
rollback to s;

-- ---- a member: nothing to take back -----------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.undo_cancel() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'where no end is scheduled there is nothing to take back'
);
select is(
  tests.details($$ select billing.undo_cancel() $$) - 'subscription_id',
  '{"code": "INVALID_TRANSITION", "from": "active", "to": "active",
    "problem": "no cancellation is scheduled"}',
  'and the refusal says so'
);
select tests.be_owner();
rollback to s;

select tests.sub('canceled', '{"ended_at": 1768100000, "cancel_at_period_end": true}');
select tests.sign_in('ann');
select is(
  tests.details($$ select billing.undo_cancel() $$) ->> 'from', 'canceled',
  'what has ended does not come back'
);
select tests.be_owner();
rollback to s;

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.undo_cancel() $$,
  'PT404', 'the account has no such subscription',
  'who never subscribed has nothing to take back'
);
select tests.be_owner();

-- ---- a member: a manual subscription ----------------------------------------

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('plus_monthly')::uuid, 1, null);
savepoint manual;
select tests.sign_in('bob');
select billing.cancel_subscription(true, 'on a whim');
select results_eq(
  $$ select ends_at, access_until, pending_command from billing.undo_cancel() $$,
  $$ values (null::timestamptz, null::timestamptz, null) $$,
  'a manual subscription renews again at once, and access with it'
);
select tests.be_owner();
select results_eq(
  $$
    select cancel_at_period_end, canceled_at, cancellation_reason
    from billing.subscriptions
    where provider = 'manual'
  $$,
  $$ values (false, null::timestamptz, null) $$,
  'as if nothing had been said'
);
select is_empty($$ select * from tests.asked $$, 'and Stripe has no part in it');
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.undo_cancel() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'nothing is left to take back'
);
select tests.be_owner();
rollback to s;

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('plus_monthly')::uuid, 1, '2026-01-31');
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.undo_cancel() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'a gift for a fixed term is not made endless by who has it'
);
select billing.cancel_subscription();
select is(
  (select ends_at from billing.undo_cancel()), '2026-01-31 00:00+00'::timestamptz,
  'taking back the own cancellation leaves the term'
);
select tests.be_owner();
rollback to s;

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('plus_monthly')::uuid, 1, null);
select tests.sign_in('bob');
select billing.cancel_subscription(false);
select throws_ok(
  $$ select billing.undo_cancel() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'a manual subscription that has ended does not come back'
);
select tests.be_owner();

-- ---- a stranger, a visitor, the service -------------------------------------

select tests.sub('active', '{"cancel_at_period_end": true}');
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.undo_cancel(md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody can prolong the subscription of somebody else'
);
select throws_ok(
  $$ select billing.undo_cancel(md5('nobody')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: with the same answer for an account that does not exist'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.undo_cancel() $$,
  '42501', 'permission denied for function undo_cancel',
  'a visitor has to sign in first'
);
select tests.be_service();
select throws_ok(
  $$ select billing.undo_cancel() $$,
  'PT400', 'the request is not valid',
  'the service has to name the account'
);
select is(
  (select pending_command from billing.undo_cancel(md5('ann')::uuid)), 'undo_cancel',
  'and may then take any end back'
);

select * from finish();
rollback;
