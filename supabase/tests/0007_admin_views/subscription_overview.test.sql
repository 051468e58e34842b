-- billing_admin.subscription_overview and expiring_soon: every subscription, and those that are
-- about to end.
begin;
\ir ../helpers.psql
select plan(23);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
update billing.plans set store_id = md5('night-owl')::uuid where key = 'plus';

create function pg_temp.overview(p_name text) returns text
language sql as $$
  select format(
    '%s %s %s ends %s, access until %s', provider, status, coalesce(price_key, '?'),
    coalesce(ends_at::timestamp::text, 'never'), coalesce(access_until::timestamp::text, 'none'))
  from billing_admin.subscription_overview
  where account_id = md5(p_name)::uuid;
$$;

create function pg_temp.expiring() returns text[]
language sql as $$
  select coalesce(
    array_agg(format('%s %s', stripe_subscription_id, expires_at::timestamp)
      order by expires_at, stripe_subscription_id),
    '{}')
  from billing_admin.expiring_soon;
$$;

-- ---- the overview -----------------------------------------------------------

select tests.account('ann');
select tests.subscribe('ann', 'active', '2026-01-10', 'price_plus_monthly', jsonb_build_object(
  'items', tests.subscription('ann', 'active', '2026-01-10') -> 'items'));
select tests.sign_in('ada');
select row_eq(
  $$
    select account_id, provider, status, plan_key, tier, store_key, price_key, quantity,
      unit_amount_minor, currency, current_period_end, past_due_since, ends_at, access_until,
      stripe_subscription_id, stripe_customer_id
    from billing_admin.subscription_overview
  $$,
  row(
    md5('ann')::uuid, 'stripe'::text, 'active'::text, 'plus'::text, 'plus'::text,
    'night-owl'::text, 'plus_monthly'::text, 1::bigint, 1000::bigint, 'usd'::text,
    '2026-02-10'::timestamptz, null::timestamptz, null::timestamptz,
    '2026-02-10 03:00'::timestamptz, 'sub_ann'::text, 'cus_ann'::text),
  'a subscription is shown with its plan, store, price, period and access'
);

select tests.be_owner();
select tests.account('leaving');
select tests.subscribe(
  'leaving', 'active', '2026-01-10', 'price_basic_monthly', '{"cancel_at_period_end": true}');
select tests.account('dated');
select tests.subscribe('dated', 'active', '2026-01-10', 'price_basic_monthly', jsonb_build_object(
  'cancel_at', extract(epoch from timestamptz '2026-01-20')::bigint));
select tests.account('ended');
select tests.subscribe('ended', 'canceled', '2026-01-10', 'price_basic_monthly',
  '{"ended_at": 1768003200}');
select tests.account('strange');
select tests.subscribe('strange', 'active', '2026-01-10', 'price_of_nobody');
select tests.subscribe('unclaimed');
select billing_private.ensure_account(md5('gifted')::uuid);
select billing_private.start_manual_subscription(
  md5('gifted')::uuid, md5('basic_monthly')::uuid, 1, '2026-01-15');

select tests.sign_in('ada');
select is(
  pg_temp.overview('leaving'),
  'stripe active basic_monthly ends 2026-02-10 00:00:00, access until 2026-02-10 00:00:00',
  'a cancellation at period end shows when it ends'
);
select is(
  pg_temp.overview('dated'),
  'stripe active basic_monthly ends 2026-01-20 00:00:00, access until 2026-01-20 00:00:00',
  'G7: a cancellation at a date shows when it ends'
);
select is(
  pg_temp.overview('ended'),
  'stripe canceled basic_monthly ends 2026-01-10 00:00:00, access until none',
  'an ended subscription is shown too'
);
select is(
  pg_temp.overview('strange'), 'stripe active ? ends never, access until none',
  'G20: a subscription to an unknown price is shown, without a plan'
);
select is(
  pg_temp.overview('gifted'),
  'manual active basic_monthly ends 2026-01-15 00:00:00, access until 2026-01-15 00:00:00',
  'a manual subscription is shown too'
);
select is(
  (
    select format('%s %s', status, account_id is null)
    from billing_admin.subscription_overview
    where stripe_customer_id = 'cus_unclaimed'
  ),
  'active t',
  'A5: a subscription nobody has claimed is shown, without an account'
);
select is(
  (select count(*) from billing_admin.subscription_overview), 7::bigint,
  'each subscription is shown once'
);

-- ---- expiring soon ----------------------------------------------------------

select is(
  pg_temp.expiring(), array[' 2026-01-15 00:00:00', 'sub_dated 2026-01-20 00:00:00'],
  'what ends within 14 days is listed with its end, soonest first by it; what renews is not'
);
select tests.set_time('2026-01-26 23:59:59');
select is(
  pg_temp.expiring(), '{}',
  'what ends a second later than 14 days is not listed, nor what has ended'
);
select tests.set_time('2026-01-27 00:00:00');
select is(
  pg_temp.expiring(), array['sub_leaving 2026-02-10 00:00:00'],
  'what ends in 14 days is'
);
select tests.set_time('2026-02-10 00:00:00');
select is(
  pg_temp.expiring(), array['sub_leaving 2026-02-10 00:00:00'],
  'it is listed until it has ended'
);
select tests.set_time('2026-02-10 00:00:01');
select is(pg_temp.expiring(), '{}', 'and not after');

-- ---- failed payments --------------------------------------------------------

select tests.be_owner();
select tests.set_time('2026-02-10');
select tests.deliver(
  'evt_ann_owes', 'customer.subscription.updated', '2026-02-10',
  tests.subscription('ann', 'past_due', '2026-02-10'));
select tests.sign_in('ada');
select is(
  pg_temp.expiring(),
  array['sub_leaving 2026-02-10 00:00:00', 'sub_ann 2026-02-13 00:00:00'],
  'a failed payment is listed with the end of its grace'
);

select tests.be_owner();
select tests.deliver(
  'evt_ann_leaves', 'customer.subscription.updated', '2026-02-11',
  tests.subscription('ann', 'past_due', '2026-02-10', 'price_plus_monthly',
    '{"cancel_at_period_end": true}'));
select tests.set_time('2026-02-11');
select tests.sign_in('ada');
select is(
  pg_temp.expiring(), array['sub_ann 2026-02-13 00:00:00'],
  'where an end is scheduled as well, whichever comes first counts'
);

select tests.be_owner();
select tests.deliver(
  'evt_ann_leaves_soon', 'customer.subscription.updated', '2026-02-11 00:00:01',
  tests.subscription('ann', 'past_due', '2026-02-10', 'price_plus_monthly', jsonb_build_object(
    'cancel_at', extract(epoch from timestamptz '2026-02-12')::bigint)));
select tests.sign_in('ada');
select is(
  pg_temp.expiring(), array['sub_ann 2026-02-12 00:00:00'],
  'also when it is the scheduled end'
);
select is(
  (
    select past_due_since
    from billing_admin.subscription_overview
    where stripe_subscription_id = 'sub_ann'
  ),
  '2026-02-10'::timestamptz,
  'the overview says since when the payment has been failing'
);

select tests.be_owner();
select tests.deliver(
  'evt_ann_ended', 'customer.subscription.deleted', '2026-02-11 00:00:02',
  tests.subscription('ann', 'canceled', '2026-02-10', 'price_plus_monthly',
    '{"ended_at": 1770768000, "cancel_at_period_end": true}'));
select tests.sign_in('ada');
select is(pg_temp.expiring(), '{}', 'what has ended is not about to');

-- ---- others -----------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  'select * from billing_admin.subscription_overview',
  'PT403', 'this needs a billing administrator',
  'a user is refused the overview'
);
select throws_ok(
  'select * from billing_admin.expiring_soon',
  'PT403', 'this needs a billing administrator',
  'a user is refused what is expiring'
);
select tests.sign_out();
select throws_ok(
  'select * from billing_admin.subscription_overview',
  '42501', 'permission denied for schema billing_admin',
  'a visitor is refused the overview'
);
select tests.be_service();
select is(
  (select count(*) from billing_admin.subscription_overview), 7::bigint,
  'the service may look'
);
select is_empty('select * from billing_admin.expiring_soon', 'at both');

select * from finish();
rollback;
