-- The task apply_scheduled_changes: changes of manual subscriptions come into force, periods roll.
begin;
\ir ../helpers.psql
select plan(22);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-31 10:00');

create function pg_temp.manual(p_name text, p_price text, p_ends_at timestamptz default null)
returns void
language plpgsql as $$
begin
  perform billing_private.ensure_account(md5(p_name)::uuid);
  perform billing_private.start_manual_subscription(
    md5(p_name)::uuid, md5(p_price)::uuid, 1, p_ends_at);
end;
$$;

create function pg_temp.state(p_name text) returns text
language sql as $$
  select format(
    '%s %s %s/%s', subscriptions.status, prices.key, current_period_start::timestamp,
    current_period_end::timestamp)
  from billing.subscriptions
  join billing.prices on prices.id = subscriptions.price_id
  where subscriptions.account_id = md5(p_name)::uuid;
$$;

select pg_temp.manual('ann', 'plus_monthly');
select pg_temp.manual('bob', 'plus_monthly');
select billing.change_plan('basic_monthly', null, md5('bob')::uuid);
select pg_temp.manual('gil', 'plus_monthly');
select billing.cancel_subscription(account_id => md5('gil')::uuid);
select pg_temp.manual('iris', 'plus_monthly', '2026-02-28 10:00');
select tests.account('stripe');
select tests.subscribe('stripe', 'active', '2026-01-31 10:00');

-- ---- not before the period end ----------------------------------------------

select tests.set_time('2026-02-28 09:59:59');
select is(
  billing_private.task_apply_scheduled_changes(), 0::bigint,
  'before the period end there is nothing to do'
);
select is(
  pg_temp.state('bob'), 'active plus_monthly 2026-01-31 10:00:00/2026-02-28 10:00:00',
  'a downgrade waits for the period end'
);

-- ---- at the period end ------------------------------------------------------

select tests.set_time('2026-02-28 10:00:00');
select is(
  billing_private.task_apply_scheduled_changes(), 4::bigint,
  'at the period end each subscription has its turn'
);
select is(
  pg_temp.state('ann'), 'active plus_monthly 2026-02-28 10:00:00/2026-03-31 10:00:00',
  'C4: a subscription renews; the 31st comes back after February'
);
select is(
  pg_temp.state('bob'), 'active basic_monthly 2026-02-28 10:00:00/2026-03-31 10:00:00',
  'a downgrade comes into force with the new period'
);
select is(
  (select pending_price_id from billing.subscriptions where account_id = md5('bob')::uuid), null,
  'a change that is in force waits no more'
);
select is(
  pg_temp.state('gil'), 'canceled plus_monthly 2026-01-31 10:00:00/2026-02-28 10:00:00',
  'what ends at the period end is not renewed first'
);
select is(
  pg_temp.state('iris'), 'canceled plus_monthly 2026-01-31 10:00:00/2026-02-28 10:00:00',
  'what ends on the day of the renewal is not renewed first'
);
select is(
  pg_temp.state('stripe'), 'active plus_monthly 2026-01-31 10:00:00/2026-02-28 10:00:00',
  'what lives at Stripe is renewed by Stripe alone'
);
select is(
  billing_private.task_apply_scheduled_changes(), 0::bigint,
  'a second run finds nothing left'
);

-- ---- access follows ---------------------------------------------------------

select is(
  (
    select valid_until
    from billing.entitlements
    where account_id = md5('ann')::uuid and feature_key = 'premium'
  ),
  'infinity',
  'access waits for no renewal: it lasts until the subscription is ended'
);
select is(
  (
    select array_agg(feature_key || ' ' || limit_value)
    from billing.entitlements
    where account_id = md5('bob')::uuid
  ),
  array['clubs 3'],
  'a downgrade takes access away in the same transaction'
);
select is_empty(
  $$
    select *
    from billing.entitlements
    where account_id in (md5('gil')::uuid, md5('iris')::uuid)
  $$,
  'an end takes access away in the same transaction'
);
select is_empty(
  $$ select * from billing_private.validate_entitlements(array(select id from billing.accounts)) $$,
  'what is stored is what the sources say'
);

-- ---- several missed periods -------------------------------------------------

select billing.change_plan('plus_monthly', true, md5('bob')::uuid);
select tests.set_time('2026-06-15');
select is(
  billing_private.task_apply_scheduled_changes(), 3::bigint,
  'after a long pause renewals and changes are caught up'
);
select is(
  pg_temp.state('ann'), 'active plus_monthly 2026-05-31 10:00:00/2026-06-30 10:00:00',
  'C4: over several missed periods the month ends do not drift'
);
select is(
  pg_temp.state('bob'), 'active plus_monthly 2026-05-31 10:00:00/2026-06-30 10:00:00',
  'a change that was missed comes into force, and its period is the one of now'
);

-- ---- the history ------------------------------------------------------------

select results_eq(
  $$
    select kind, effective_at
    from billing.subscription_changes
    where account_id = md5('bob')::uuid and kind in ('price', 'change_scheduled')
    order by effective_at
  $$,
  $$
    values
      ('change_scheduled', '2026-01-31 10:00'::timestamptz),
      ('price', '2026-02-28 10:00'),
      ('change_scheduled', '2026-02-28 10:00'),
      ('price', '2026-03-31 10:00')
  $$,
  'a change took effect when it was due, not when somebody came to do it'
);
select is_empty(
  $$
    select *
    from billing.subscription_changes
    where account_id = md5('bob')::uuid and kind = 'change_undone'
  $$,
  'a change that came into force was not undone'
);

-- ---- a change of interval ---------------------------------------------------

select billing.change_plan('plus_yearly', true, md5('ann')::uuid);
select tests.set_time('2026-06-30 10:00');
select billing_private.task_apply_scheduled_changes();
select is(
  pg_temp.state('ann'), 'active plus_yearly 2026-06-30 10:00:00/2027-06-30 10:00:00',
  'another period length begins a new period with the change'
);

-- ---- run by the heartbeat ---------------------------------------------------

select tests.set_time('2026-07-31 10:00');
select is(
  billing_private.run_task('apply_scheduled_changes'), 'succeeded',
  'the heartbeat runs it'
);
select is(
  (
    select cause ->> 'reference'
    from billing.subscription_changes
    where account_id = md5('bob')::uuid and kind = 'renewed'
    order by created_at desc
    limit 1
  ),
  'apply_scheduled_changes',
  'the history says that the task did it'
);

select * from finish();
rollback;
