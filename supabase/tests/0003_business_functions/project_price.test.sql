-- billing_private.project_price(): what a plan costs, as Stripe says; names that move.
begin;
\ir ../helpers.psql
select plan(31);

select tests.catalog();
select tests.set_time('2026-01-15');

create function tests.price(
  p_id text,
  p_at timestamptz,
  p_extra jsonb,
  p_type text default 'price.updated'
) returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_id || p_at::text || p_extra || p_type), p_type, p_at,
    jsonb_build_object('id', p_id, 'object', 'price', 'product', 'prod_plus', 'currency', 'usd',
      'unit_amount', 700, 'unit_amount_decimal', '700', 'active', true, 'lookup_key', null,
      'billing_scheme', 'per_unit', 'type', 'recurring', 'recurring', jsonb_build_object(
        'interval', 'month', 'interval_count', 1, 'usage_type', 'licensed')) || p_extra);
$$;

create function tests.holder(p_key text) returns text
language sql as $$
  select string_agg(stripe_price_id, ', ') from billing.prices where key = p_key and is_active;
$$;

savepoint s;

-- ---- the service: what is kept ----------------------------------------------

select is(
  tests.price('price_1', '2026-01-02', '{"currency": "JPY", "lookup_key": "plus_3m",
    "unit_amount": 2500, "unit_amount_decimal": "2500",
    "recurring": {"interval": "month", "interval_count": 3, "usage_type": "licensed",
      "trial_period_days": 14}}'),
  'applied',
  'a price is applied'
);
select results_eq(
  $$
    select prices.key, plans.key, currency, unit_amount_minor, unit_amount_decimal,
      billing_interval, interval_count, usage_type, billing_scheme, trial_days,
      prices.is_active, prices.is_listed
    from billing.prices
    join billing.plans on plans.id = prices.plan_id
    where prices.stripe_price_id = 'price_1'
  $$,
  $$
    values ('plus_3m', 'plus', 'jpy', 2500::bigint, 2500::numeric, 'month', 3, 'licensed',
      'per_unit', 14, true, true)
  $$,
  'G1: amount, currency, interval and trial are kept as they are, in the smallest unit'
);
rollback to s;

select tests.price('price_1', '2026-01-02',
  '{"transform_quantity": {"divide_by": 5, "round": "down"}}');
select results_eq(
  $$ select package_size, package_rounding from billing.prices where stripe_price_id = 'price_1' $$,
  $$ values (5::bigint, 'down') $$,
  'packages are kept'
);
select tests.price('price_1', '2026-01-03', '{"transform_quantity": null}');
select results_eq(
  $$ select package_size, package_rounding from billing.prices where stripe_price_id = 'price_1' $$,
  $$ values (null::bigint, null::text) $$,
  'and gone where the newest snapshot shows none'
);
rollback to s;

select tests.price('price_1', '2026-01-02',
  '{"unit_amount": null, "unit_amount_decimal": "0.5"}');
select results_eq(
  $$
    select unit_amount_minor, unit_amount_decimal
    from billing.prices
    where stripe_price_id = 'price_1'
  $$,
  $$ values (null::bigint, 0.5) $$,
  'D17: half a cent is stored exactly, and as no whole amount'
);
rollback to s;

select tests.price('price_1', '2026-01-02', '{"unit_amount": null, "unit_amount_decimal": null,
  "billing_scheme": "tiered", "tiers_mode": "graduated"}');
select results_eq(
  $$
    select unit_amount_minor, unit_amount_decimal, billing_scheme
    from billing.prices
    where stripe_price_id = 'price_1'
  $$,
  $$ values (null::bigint, null::numeric, 'tiered') $$,
  'a tiered price has no single amount'
);
rollback to s;

select tests.price('price_1', '2026-01-02', '{"recurring": null, "type": "one_time"}');
select is(
  (select billing_interval from billing.prices where stripe_price_id = 'price_1'), null,
  'a one-time price has no interval'
);
select is_empty(
  $$
    select offers.*
    from billing.plan_offers as offers
    join billing.prices on prices.key = offers.price_key
    where prices.stripe_price_id = 'price_1'
  $$,
  'and is not on offer'
);
rollback to s;

select tests.price('price_1', '2026-01-02',
  '{"product": {"id": "prod_plus", "object": "product", "name": "Plus"}}');
select tests.price('price_2', '2026-01-02', '{"product": {"id": "prod_plus", "deleted": true}}');
select results_eq(
  $$
    select distinct plans.key, stripe_price_id
    from billing.prices
    join billing.plans on plans.id = prices.plan_id
    where stripe_price_id in ('price_1', 'price_2')
  $$,
  $$ values ('plus', 'price_1'), ('plus', 'price_2') $$,
  'D11: the product of a price may be an object, or deleted'
);
select ok(
  not (select is_listed from billing.prices where stripe_price_id = 'price_1'),
  'a price without a lookup key is nobody''s offer: it may be one customer''s'
);
rollback to s;

-- ---- the service: archived and deleted --------------------------------------

select tests.price('price_plus_yearly', '2026-01-02',
  '{"active": false, "lookup_key": "plus_yearly", "unit_amount": 10000}');
select is_empty(
  $$ select * from billing.plan_offers where price_key = 'plus_yearly' $$,
  'an archived price is no longer on offer'
);
select is(
  tests.price('price_plus_yearly', '2026-01-03', '{"lookup_key": "plus_yearly"}',
    'price.deleted'),
  'applied',
  'a deleted price is applied'
);
select ok(
  not (select is_active from billing.prices where stripe_price_id = 'price_plus_yearly'),
  'E4: and is not active, though its last snapshot says so'
);
rollback to s;

-- ---- the service: prices that were written here first -----------------------

insert into billing.prices (id, key, plan_id, currency, unit_amount_minor, billing_interval,
  trial_days)
values (md5('plus_weekly')::uuid, 'plus_weekly', md5('plus')::uuid, 'eur', 300, 'week', 7);

select tests.price('price_w', '2026-01-02', '{"lookup_key": "plus_weekly", "unit_amount": 310,
  "unit_amount_decimal": "310.5", "billing_scheme": "tiered",
  "recurring": {"interval": "day", "interval_count": 10, "usage_type": "metered"}}');
select results_eq(
  $$ select id, stripe_price_id from billing.prices where key = 'plus_weekly' $$,
  $$ values (md5('plus_weekly')::uuid, 'price_w') $$,
  'a price of the catalog is claimed by its lookup key'
);
select results_eq(
  $$
    select currency, unit_amount_minor, unit_amount_decimal, billing_interval, interval_count,
      usage_type, billing_scheme, trial_days, is_listed
    from billing.prices
    where key = 'plus_weekly'
  $$,
  $$ values ('usd', 310::bigint, 310.5, 'day', 10, 'metered', 'tiered', 7, true) $$,
  'and costs from then on what Stripe charges; its trial is the catalog''s'
);
rollback to s;

insert into billing.prices (id, key, plan_id, currency, unit_amount_minor, billing_interval)
values (md5('plus_weekly')::uuid, 'plus_weekly', md5('plus')::uuid, 'usd', 300, 'week');
select tests.deliver('evt_pr', 'product.created', '2026-01-01',
  '{"id": "prod_unnamed", "object": "product", "name": "Unnamed", "active": true}');
select tests.price('price_w', '2026-01-02',
  '{"lookup_key": "plus_weekly", "product": "prod_unnamed"}');
select is(
  (select plan_id from billing.prices where key = 'plus_weekly'), md5('plus')::uuid,
  'a price of the catalog stays with its plan, whatever its product is called'
);
rollback to s;

insert into billing.prices (id, key, currency, unit_amount_minor, billing_interval)
values (md5('plus_weekly')::uuid, 'plus_weekly', 'usd', 300, 'week');
select tests.price('price_w', '2026-01-02', '{"lookup_key": "plus_weekly",
  "recurring": {"interval": "week", "trial_period_days": 30}}');
select results_eq(
  $$ select plan_id, trial_days from billing.prices where key = 'plus_weekly' $$,
  $$ values (md5('plus')::uuid, 30) $$,
  'a price of the catalog that has no plan and no trial gets Stripe''s'
);
rollback to s;

insert into billing.prices (key, plan_id, currency, unit_amount_minor, billing_interval, is_active)
values
  ('plus_weekly', md5('plus')::uuid, 'usd', 200, 'week', false),
  ('plus_weekly', md5('plus')::uuid, 'usd', 300, 'week', true);
select is(
  tests.price('price_w', '2026-01-02', '{"lookup_key": "plus_weekly"}'), 'applied',
  'an older price of the same name is no obstacle'
);
select results_eq(
  $$
    select is_active, stripe_price_id
    from billing.prices
    where key = 'plus_weekly'
    order by is_active
  $$,
  $$ values (false, null), (true, 'price_w') $$,
  'the running one is claimed'
);
rollback to s;

-- ---- the service: a name that moves -----------------------------------------

select tests.price('price_a', '2026-01-02', '{"lookup_key": "moving"}');
select tests.price('price_b', '2026-01-05', '{"lookup_key": "moving"}', 'price.created');
select is(
  tests.holder('moving'), 'price_b',
  'a lookup key that moves is the newer price''s before the older one is heard of again'
);
select tests.price('price_a', '2026-01-05', '{"lookup_key": null}');
select is(tests.holder('moving'), 'price_b', 'and after');
select ok(
  not (select is_listed from billing.prices where stripe_price_id = 'price_a'),
  'the price that lost its name is not on offer'
);
rollback to s;

select tests.price('price_b', '2026-01-05', '{"lookup_key": "moving"}', 'price.created');
select tests.price('price_a', '2026-01-02', '{"lookup_key": "moving"}');
select is(
  tests.holder('moving'), 'price_b',
  'the same if the older price is heard of last'
);
select results_eq(
  $$ select key, is_active from billing.prices where stripe_price_id = 'price_a' $$,
  $$ values (null, true) $$,
  'the older price is stored without the name'
);
rollback to s;

select tests.price('price_a', '2026-01-02', '{"lookup_key": "moving"}');
select tests.price('price_a', '2026-01-04', '{"lookup_key": "moving", "active": false}');
select tests.price('price_b', '2026-01-05', '{"lookup_key": "moving"}');
select results_eq(
  $$
    select stripe_price_id, is_active from billing.prices where key = 'moving' order by 1
  $$,
  $$ values ('price_a', false), ('price_b', true) $$,
  'an archived price may keep the name its successor has'
);
rollback to s;

select tests.price('price_new_plus', '2026-01-05', '{"lookup_key": "plus_monthly"}');
select results_eq(
  $$ select stripe_price_id, key from billing.prices
    where stripe_price_id in ('price_plus_monthly', 'price_new_plus') order by 1 $$,
  $$ values ('price_new_plus', 'plus_monthly'), ('price_plus_monthly', null) $$,
  'a seeded price that Stripe never sent yields its name to the one Stripe sends'
);
rollback to s;

-- ---- the service: listed or not ---------------------------------------------

select tests.price('price_1', '2026-01-02', '{}');
select tests.price('price_1', '2026-01-03', '{"lookup_key": "late_name"}');
select isnt_empty(
  $$ select * from billing.plan_offers where price_key = 'late_name' $$,
  'a price that gets its lookup key later is on offer from then on'
);
update billing.prices set is_listed = false where stripe_price_id = 'price_1';
select tests.price('price_1', '2026-01-04', '{"lookup_key": "late_name", "nickname": "x"}');
select is_empty(
  $$ select * from billing.plan_offers where price_key = 'late_name' $$,
  'a price an admin took off the list stays off'
);
rollback to s;

-- ---- the service: what cannot be sold ---------------------------------------

select tests.price('price_1', '2026-01-02', '{"currency": "dollars", "lookup_key": "odd"}');
select results_eq(
  $$ select currency, is_listed from billing.prices where stripe_price_id = 'price_1' $$,
  $$ values ('xxx', false) $$,
  'a price in a currency that does not exist is mirrored as of none, and not on offer'
);

-- ---- a visitor --------------------------------------------------------------

select tests.price('price_private', '2026-01-02', '{}');
select tests.sign_out();
select is_empty(
  $$ select * from billing.prices where stripe_price_id = 'price_private' $$,
  'a visitor does not see a price without a name'
);
select is(
  (select count(*) from billing.prices), 3::bigint,
  'and sees those of the list'
);

select * from finish();
rollback;
