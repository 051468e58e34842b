-- billing.my_subscription(): the one subscription that counts, as a client shows it.
begin;
\ir ../helpers.psql
select plan(32);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);

-- Another subscription of ann's, under a name of its own.
create function tests.sub(
  p_name text,
  p_status text,
  p_start timestamptz default '2026-01-10',
  p_price text default 'price_plus_monthly',
  p_extra jsonb default '{}'
) returns text
language sql as $$
  select tests.deliver('evt_' || p_name || p_status || p_start, 'customer.subscription.updated',
    p_start, tests.subscription(p_name, p_status, p_start, p_price,
      '{"customer": "cus_ann"}' || p_extra));
$$;

-- The name of the subscription ann is shown.
create function tests.shown() returns text
language plpgsql as $$
declare
  v_name text;
begin
  perform tests.sign_in('ann');
  select id::text into v_name from billing.my_subscription();
  perform tests.be_owner();
  return (
    select substr(stripe_subscription_id, 5) from billing.subscriptions where id = v_name::uuid
  );
end;
$$;

-- What ann is shown after these events, which are undone again.
create function tests.play_shown(p_events text[]) returns text
language plpgsql as $$
declare
  v_event text;
  v_shown text;
begin
  foreach v_event in array p_events loop
    perform billing_private.ingest_stripe_event(v_event);
  end loop;
  v_shown := tests.shown();
  raise exception sqlstate 'TS001';
exception when sqlstate 'TS001' then
  return v_shown;
end;
$$;

savepoint s;

-- ---- a member: what is shown ------------------------------------------------

select tests.sign_in('ann');
select is_empty(
  $$ select * from billing.my_subscription() $$,
  'who never subscribed is shown nothing'
);

select tests.be_owner();
select tests.sub('ann', 'active', '2026-01-10', 'price_plus_monthly', '{}');
select tests.sign_in('ann');
select results_eq(
  $$
    select account_id, provider, status, plan_key, plan_name, tier, price_key, quantity,
      unit_amount_minor, currency, billing_interval, interval_count
    from billing.my_subscription()
  $$,
  $$
    values (md5('ann')::uuid, 'stripe', 'active', 'plus', 'Plus', 'plus', 'plus_monthly',
      1::bigint, 1000::bigint, 'usd', 'month', 1)
  $$,
  'a member is shown plan, price and seats'
);
select results_eq(
  $$
    select current_period_start, current_period_end, ends_at, access_until, trial_end,
      past_due_since, pending_price_key, pending_change_at, pending_command, open_invoice_url
    from billing.my_subscription()
  $$,
  $$
    values ('2026-01-10 00:00+00'::timestamptz, '2026-02-10 00:00+00'::timestamptz,
      null::timestamptz, '2026-02-10 03:00+00'::timestamptz, null::timestamptz,
      null::timestamptz, null, null::timestamptz, null, null)
  $$,
  'a subscription that renews has a period and access, and no end'
);
select is(
  (select id from billing.my_subscription(md5('ann')::uuid)),
  (select id from billing.my_subscription()),
  'naming the own account is the same as naming none'
);
select tests.be_owner();
rollback to s;

select tests.sub('ann', 'active', '2026-01-10', 'price_plus_monthly',
  '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select is(
  (select ends_at from billing.my_subscription()), '2026-02-10 00:00+00'::timestamptz,
  'with a cancellation scheduled, it ends with the period'
);
select is(
  (select access_until from billing.my_subscription()), '2026-02-10 00:00+00'::timestamptz,
  'and access with it, to the second'
);
select tests.be_owner();
rollback to s;

select tests.sub('ann', 'active', '2026-01-10', 'price_plus_monthly', '{"cancel_at": 1769904000}');
select tests.sign_in('ann');
select is(
  (select ends_at from billing.my_subscription()), '2026-02-01 00:00+00'::timestamptz,
  'G7: an end at a date, as the portal sets it, is shown as the end'
);
select tests.be_owner();
rollback to s;

select tests.sub('ann', 'canceled', '2026-01-10', 'price_plus_monthly',
  '{"ended_at": 1768348800, "cancel_at_period_end": true}');
select tests.sign_in('ann');
select results_eq(
  $$ select status, ends_at, access_until from billing.my_subscription() $$,
  $$ values ('canceled', '2026-01-14 00:00+00'::timestamptz, null::timestamptz) $$,
  'the last subscription is shown after its end, with the time it really ended'
);
select tests.be_owner();
rollback to s;

select tests.sub('ann', 'trialing', '2026-01-10', 'price_plus_monthly',
  '{"trial_end": 1769212800}');
select tests.sign_in('ann');
select is(
  (select trial_end from billing.my_subscription()), '2026-01-24 00:00+00'::timestamptz,
  'a trial says when it is over'
);
select tests.be_owner();
rollback to s;

select tests.sub('ann', 'past_due');
select tests.deliver('evt_in', 'invoice.payment_failed', '2026-01-10', '{"id": "in_ann",
  "object": "invoice", "status": "open", "currency": "usd", "customer": "cus_ann",
  "hosted_invoice_url": "https://invoice.stripe.com/i/1"}');
select tests.sign_in('ann');
select results_eq(
  $$ select past_due_since, open_invoice_url from billing.my_subscription() $$,
  $$ values ('2026-01-10 00:00+00'::timestamptz, 'https://invoice.stripe.com/i/1') $$,
  'who owes is shown since when, and where to pay'
);
select tests.be_owner();
select tests.deliver('evt_in2', 'invoice.paid', '2026-01-11', '{"id": "in_ann",
  "object": "invoice", "status": "paid", "currency": "usd", "customer": "cus_ann",
  "hosted_invoice_url": "https://invoice.stripe.com/i/1"}');
select tests.sign_in('ann');
select is(
  (select open_invoice_url from billing.my_subscription()), null,
  'a paid invoice is not shown as one to pay'
);
select tests.be_owner();
rollback to s;

select tests.sub('ann', 'active');
select tests.sign_in('ann');
select billing.cancel_subscription();
select is(
  (select pending_command from billing.my_subscription()), 'update_subscription',
  'what Stripe was asked and has not answered is shown'
);
select billing.cancel_subscription(false);
select is(
  (select pending_command from billing.my_subscription()), 'cancel_subscription',
  'of several wishes the last'
);
select tests.be_owner();
update billing_private.commands set status = 'succeeded';
select tests.sign_in('ann');
select is(
  (select pending_command from billing.my_subscription()), null,
  'and no longer once it has answered'
);
select tests.be_owner();
rollback to s;

select tests.sub('ann', 'active');
update billing.subscriptions
set pending_price_id = md5('basic_monthly')::uuid,
    pending_change_at = '2026-02-10';
select tests.sign_in('ann');
select results_eq(
  $$ select pending_price_key, pending_change_at from billing.my_subscription() $$,
  $$ values ('basic_monthly', '2026-02-10 00:00+00'::timestamptz) $$,
  'a change that waits is shown with its date'
);
select tests.be_owner();
update billing.plans set is_listed = false;
select tests.sign_in('ann');
select is(
  (select plan_name from billing.my_subscription()), 'Plus',
  'a plan that is no longer on offer is still shown to who has it'
);
select tests.be_owner();
rollback to s;

select tests.sub('ann', 'active', '2026-01-10', 'price_unheard_of');
select tests.sign_in('ann');
select results_eq(
  $$ select status, plan_key, unit_amount_minor, access_until from billing.my_subscription() $$,
  $$ values ('active', null, null::bigint, null::timestamptz) $$,
  'C1: a subscription with a price nobody knows is shown, without plan and access'
);
select tests.be_owner();
rollback to s;

-- ---- a member: which of several ---------------------------------------------

select tests.sub('old', 'active', '2025-06-01', 'price_basic_monthly');
select tests.sub('new', 'active', '2026-01-01', 'price_plus_monthly');
select tests.sub('old', 'canceled', '2026-01-12', 'price_basic_monthly',
  '{"ended_at": 1768176000}');
select is(
  tests.shown(), 'new',
  'G6: when an old subscription ends after the new one began, the new one is shown'
);
select isnt_empty(
  $$ select * from billing.entitlements where account_id = md5('ann')::uuid $$,
  'G6: and access stays'
);
rollback to s;

select tests.sub('a_plus', 'active', '2025-06-01', 'price_plus_monthly');
select tests.sub('b_basic', 'active', '2026-01-01', 'price_basic_monthly');
select is(tests.shown(), 'a_plus', 'of two that run the higher tier is shown, though older');
rollback to s;

select tests.sub('a', 'active', '2025-06-01');
select tests.sub('b', 'active', '2026-01-01');
select is(tests.shown(), 'b', 'of two of one tier the newer is shown');
rollback to s;

select is_empty(
  $$
    select running, stalled
    from unnest(array['active', 'trialing', 'past_due']) as running
    cross join unnest(array['incomplete', 'unpaid', 'paused', 'hibernating', 'canceled',
      'incomplete_expired']) as stalled
    where (
      select tests.play_shown(array[
        tests.event('evt_1', 'customer.subscription.updated', '2025-06-01', tests.subscription(
          'running', running, '2025-06-01', 'price_basic_monthly', '{"customer": "cus_ann"}')),
        tests.event('evt_2', 'customer.subscription.updated', '2026-01-01', tests.subscription(
          'stalled', stalled, '2026-01-01', 'price_plus_monthly', '{"customer": "cus_ann"}'))])
    ) is distinct from 'running'
  $$,
  'D10: one that runs is shown before one that does not, whatever its tier: unknown ones too'
);

select is_empty(
  $$
    select stalled, ended
    from unnest(array['incomplete', 'unpaid', 'paused', 'hibernating']) as stalled
    cross join unnest(array['canceled', 'incomplete_expired']) as ended
    where (
      select tests.play_shown(array[
        tests.event('evt_1', 'customer.subscription.updated', '2025-06-01', tests.subscription(
          'stalled', stalled, '2025-06-01', 'price_basic_monthly', '{"customer": "cus_ann"}')),
        tests.event('evt_2', 'customer.subscription.updated', '2026-01-01', tests.subscription(
          'ended', ended, '2026-01-01', 'price_plus_monthly', '{"customer": "cus_ann"}'))])
    ) is distinct from 'stalled'
  $$,
  'one that may go on is shown before one that has ended'
);

select tests.sub('a', 'canceled', '2025-06-01', 'price_plus_monthly', '{"ended_at": 1750000000}');
select tests.sub('b', 'canceled', '2025-09-01', 'price_plus_monthly', '{"ended_at": 1760000000}');
select is(tests.shown(), 'b', 'of those that have ended the last is shown');
rollback to s;

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sub('ann', 'active');
select tests.sign_in('bob');
select is_empty(
  $$ select * from billing.my_subscription() $$,
  'a stranger is shown nothing of others'
);
select throws_ok(
  $$ select * from billing.my_subscription(md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'and may not ask'
);
select throws_ok(
  $$ select * from billing.my_subscription(md5('nobody')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'with the same answer for an account that does not exist'
);
select tests.sign_out();
select throws_ok(
  $$ select * from billing.my_subscription() $$,
  '42501', 'permission denied for function my_subscription',
  'a visitor has none to ask for'
);
select tests.be_owner();
select set_config('role', 'authenticated', true), set_config('request.jwt.claims', '', true);
select throws_ok(
  $$ select * from billing.my_subscription() $$,
  'PT401', 'sign in first',
  'a token that names no user is told to sign in'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select is(
  (select status from billing.my_subscription(md5('ann')::uuid)), 'active',
  'the service may ask for any account'
);
select is_empty(
  $$ select * from billing.my_subscription(md5('bob')::uuid) $$,
  'and is told nothing of one without a subscription'
);
select throws_ok(
  $$ select * from billing.my_subscription() $$,
  'PT401', 'sign in first',
  'but has none of its own'
);

select * from finish();
rollback;
