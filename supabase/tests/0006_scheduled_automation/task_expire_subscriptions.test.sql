-- The task expire_subscriptions: ends manual subscriptions whose end has passed, takes elapsed
-- access away.
begin;
\ir ../helpers.psql
select plan(15);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');

create function pg_temp.manual(p_name text, p_ends_at timestamptz default null) returns void
language plpgsql as $$
begin
  perform billing_private.ensure_account(md5(p_name)::uuid);
  perform billing_private.start_manual_subscription(
    md5(p_name)::uuid, md5('plus_monthly')::uuid, 1, p_ends_at);
end;
$$;

create function pg_temp.state(p_name text) returns text
language sql as $$
  select format('%s %s', status, coalesce(ended_at::timestamp::text, 'runs'))
  from billing.subscriptions
  where account_id = md5(p_name)::uuid;
$$;

select pg_temp.manual('gift', '2026-01-20 12:00');
select pg_temp.manual('leaving');
select billing.cancel_subscription(account_id => md5('leaving')::uuid);
select pg_temp.manual('staying');
select tests.account('stripe');
select tests.subscribe('stripe', 'active', '2026-01-10', 'price_plus_monthly', jsonb_build_object(
  'cancel_at', extract(epoch from timestamptz '2026-01-20 12:00')::bigint));

-- ---- not before the end -----------------------------------------------------

select tests.set_time('2026-01-20 11:59:59');
select is(
  billing_private.task_expire_subscriptions(), 0::bigint,
  'before the end there is nothing to do'
);
select is(pg_temp.state('gift'), 'active runs', 'to its last second a subscription runs');

-- ---- at the end -------------------------------------------------------------

select tests.set_time('2026-01-20 12:00:00');
select ok(
  not billing.has_entitlement('premium', md5('gift')::uuid),
  'access has ended by itself before the task comes'
);
select is(
  billing_private.task_expire_subscriptions(), 2::bigint,
  'the task ends the subscription, and takes the access of the one at Stripe that ran out away'
);
select is(
  pg_temp.state('gift'), 'canceled 2026-01-20 12:00:00',
  'the subscription is canceled as of its end'
);
select is(
  pg_temp.state('stripe'), 'active runs',
  'what lives at Stripe is ended by Stripe alone'
);
select is_empty(
  $$
    select *
    from billing.entitlements
    where account_id in (md5('gift')::uuid, md5('stripe')::uuid)
  $$,
  'what is stored says that access is over'
);
select is(
  (
    select array_agg(features::text)
    from billing.profiles
    where account_id in (md5('gift')::uuid, md5('stripe')::uuid)
  ),
  array['{}', '{}'],
  'the profiles say it too'
);
select is(
  billing_private.task_expire_subscriptions(), 0::bigint,
  'a second run finds nothing left'
);

-- ---- late -------------------------------------------------------------------

select tests.set_time('2026-02-12 08:00');
select is(
  billing_private.task_expire_subscriptions(), 1::bigint,
  'a late run ends what was canceled at period end, and takes nobody else''s access away'
);
select is(
  pg_temp.state('leaving'), 'canceled 2026-02-10 00:00:00',
  'however late the run, the subscription ended when it ended'
);
select is(pg_temp.state('staying'), 'active runs', 'nobody else is ended');
select results_eq(
  $$
    select kind, from_status, to_status, effective_at
    from billing.subscription_changes
    where account_id = md5('leaving')::uuid and to_status = 'canceled'
  $$,
  $$ values ('status', 'active', 'canceled', '2026-02-10'::timestamptz) $$,
  'the history says that it ended when it ended'
);

-- ---- run by the heartbeat ---------------------------------------------------

select pg_temp.manual('second', '2026-02-12 09:00');
select tests.set_time('2026-02-12 09:00');
select is(
  billing_private.run_task('expire_subscriptions'), 'succeeded',
  'the heartbeat runs it'
);
select is(
  (
    select cause ->> 'reference'
    from billing.subscription_changes
    where account_id = md5('second')::uuid and to_status = 'canceled'
  ),
  'expire_subscriptions',
  'the history says that the task did it'
);

select * from finish();
rollback;
