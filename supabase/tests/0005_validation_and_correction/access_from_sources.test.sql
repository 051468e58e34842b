-- Where access comes from: prices, items, several subscriptions, owners, and the catalog they
-- point to.
begin;
\ir ../helpers.psql
select plan(34);

select tests.catalog();
select tests.set_time('2026-01-10');

-- All somebody has now: feature, limit (∞ for none) and end.
create function pg_temp.has(p_name text) returns text[]
language sql as $$
  select coalesce(array_agg(
    format('%s %s %s', feature_key, coalesce(limit_value::text, '∞'), valid_until::timestamp)
    order by feature_key), '{}')
  from billing.my_entitlements(md5(p_name)::uuid);
$$;

-- A second subscription of somebody: its own id and item, the same customer.
create function pg_temp.second(p_name text, p_status text, p_price text, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    format('evt_second_%s_%s', p_name, p_status), 'customer.subscription.updated', '2026-01-10',
    tests.subscription(p_name || '_second', p_status, '2026-01-10', p_price,
      jsonb_build_object('customer', 'cus_' || p_name) || p_extra));
$$;

-- ---- one plan ---------------------------------------------------------------

select tests.account('ann');
select tests.subscribe('ann');

select is(
  pg_temp.has('ann'),
  array['clubs 10 2026-02-10 03:00:00', 'premium ∞ 2026-02-10 03:00:00'],
  'a subscriber has every feature of the plan, with the plan''s limits'
);
select is(pg_temp.has('bob'), '{}', 'whoever never subscribed has nothing');

-- ---- prices -----------------------------------------------------------------

select tests.account('mallory');
select is(
  tests.subscribe('mallory', 'active', '2026-01-10', 'price_of_nobody'), 'applied',
  'G20: a subscription to an unknown price is stored without an error'
);
select is(pg_temp.has('mallory'), '{}', 'G20: a subscription to an unknown price gives nothing');

select tests.deliver('evt_price', 'price.created', '2026-01-10', jsonb_build_object(
  'id', 'price_of_nobody', 'object', 'price', 'active', true, 'currency', 'usd',
  'unit_amount', 300, 'product', 'prod_basic', 'lookup_key', null,
  'recurring', jsonb_build_object('interval', 'month', 'interval_count', 1)));

select is(
  pg_temp.has('mallory'), array['clubs 3 2026-02-10 03:00:00'],
  'C1: once the price is known, its plan''s features are there in the same transaction'
);

select tests.deliver('evt_archived', 'price.updated', '2026-01-10 00:00:01', jsonb_build_object(
  'id', 'price_plus_monthly', 'object', 'price', 'active', false, 'currency', 'usd',
  'unit_amount', 1000, 'product', 'prod_plus', 'lookup_key', 'plus_monthly',
  'recurring', jsonb_build_object('interval', 'month', 'interval_count', 1)));
select tests.deliver('evt_archived_product', 'product.updated', '2026-01-10', jsonb_build_object(
  'id', 'prod_plus', 'object', 'product', 'active', false, 'name', 'Plus'));

select is(
  (
    select array[plans.is_active, prices.is_active]
    from billing.prices
    join billing.plans on plans.id = prices.plan_id
    where stripe_price_id = 'price_plus_monthly'
  ),
  array[false, false],
  'G21: price and plan are off the market'
);
select is(
  pg_temp.has('ann'),
  array['clubs 10 2026-02-10 03:00:00', 'premium ∞ 2026-02-10 03:00:00'],
  'G21: subscribers keep what an archived price of an archived plan gives'
);

-- ---- several items ----------------------------------------------------------

insert into billing.plans (id, key, name, kind, stripe_product_id)
values (md5('stage')::uuid, 'stage', 'Stage', 'add_on', 'prod_stage');
insert into billing.plan_features (plan_id, feature_key) values (md5('stage')::uuid, 'hosting');
insert into billing.prices
  (key, plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id)
values ('stage_monthly', md5('stage')::uuid, 'usd', 200, 'month', 'price_stage_monthly');

select tests.account('iris');
select tests.subscribe('iris', 'active', '2026-01-10', 'price_basic_monthly', jsonb_build_object(
  'items', jsonb_build_object('has_more', false, 'data', jsonb_build_array(
    jsonb_build_object(
      'id', 'si_iris', 'quantity', 1, 'price', jsonb_build_object('id', 'price_basic_monthly'),
      'current_period_start', extract(epoch from timestamptz '2026-01-10')::bigint,
      'current_period_end', extract(epoch from timestamptz '2026-02-10')::bigint),
    jsonb_build_object(
      'id', 'si_iris_stage', 'quantity', 1,
      'price', jsonb_build_object('id', 'price_stage_monthly'),
      'current_period_start', extract(epoch from timestamptz '2026-01-10')::bigint,
      'current_period_end', extract(epoch from timestamptz '2026-01-17')::bigint)))));

select is(
  pg_temp.has('iris'),
  array['clubs 3 2026-02-10 03:00:00', 'hosting ∞ 2026-01-17 03:00:00'],
  'D3: an add-on gives its own features, for its own period'
);

select tests.deliver(
  'evt_iris_without', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('iris', 'active', '2026-01-10', 'price_basic_monthly'));

select is(
  pg_temp.has('iris'), array['clubs 3 2026-02-10 03:00:00'],
  'an item that is taken off takes its features along'
);

-- ---- a period that is prolonged ---------------------------------------------

select tests.deliver(
  'evt_iris_longer', 'customer.subscription.updated', '2026-01-11 00:00:01',
  jsonb_set(
    tests.subscription('iris', 'active', '2026-01-10', 'price_basic_monthly'),
    '{items,data,0,current_period_end}',
    to_jsonb(extract(epoch from timestamptz '2026-02-20')::bigint)));

select is(
  pg_temp.has('iris'), array['clubs 3 2026-02-20 03:00:00'],
  'a later end of the running period reaches access in the same transaction'
);

-- ---- a plan change ----------------------------------------------------------

select tests.deliver(
  'evt_iris_up', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('iris', 'active', '2026-01-10', 'price_plus_monthly'));

select is(
  pg_temp.has('iris'),
  array['clubs 10 2026-02-10 03:00:00', 'premium ∞ 2026-02-10 03:00:00'],
  'an upgrade gives the new plan''s features in the same transaction'
);

select tests.deliver(
  'evt_iris_down', 'customer.subscription.updated', '2026-01-13',
  tests.subscription('iris', 'active', '2026-01-10', 'price_basic_monthly'));

select is(
  pg_temp.has('iris'), array['clubs 3 2026-02-10 03:00:00'],
  'a downgrade takes the old plan''s features away in the same transaction'
);

-- ---- several subscriptions --------------------------------------------------

select tests.account('gil');
select tests.subscribe('gil', 'active', '2026-01-10', 'price_plus_monthly');
select pg_temp.second('gil', 'active', 'price_basic_monthly', jsonb_build_object(
  'items',
  tests.subscription('gil_second', 'active', '2026-02-01', 'price_basic_monthly') -> 'items'));

select is(
  pg_temp.has('gil'),
  array['clubs 10 2026-03-01 03:00:00', 'premium ∞ 2026-02-10 03:00:00'],
  'G22: two subscriptions give the union of their features, the best limit, the latest end'
);

select tests.set_time('2026-02-15');

select is(
  pg_temp.has('gil'), array['clubs 3 2026-03-01 03:00:00'],
  'G22: when one subscription runs out, the limit of the other is left'
);

select tests.set_time('2026-01-10');
select tests.deliver(
  'evt_gil_ended', 'customer.subscription.deleted', '2026-01-20',
  tests.subscription('gil', 'canceled', '2026-01-10', 'price_plus_monthly', jsonb_build_object(
    'ended_at', extract(epoch from timestamptz '2026-01-20')::bigint)));

select is(
  pg_temp.has('gil'), array['clubs 3 2026-03-01 03:00:00'],
  'G6: when an old subscription ends, access of the newer one stays'
);

-- Both limits null and number, in either order of the rows.
insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
values
  (md5('iris')::uuid, 'clubs', null, '2026-01-10', 'a gift without limit'),
  (md5('iris')::uuid, 'clubs', 99, '2026-01-10', 'a gift with one');

select is(
  pg_temp.has('iris'), array['clubs ∞ infinity'],
  'unlimited beats any number, whatever its size'
);

update billing.entitlement_grants
set revoked_at = '2026-01-10', revoked_reason = 'a mistake'
where account_id = md5('iris')::uuid and limit_value is null;

select is(
  pg_temp.has('iris'), array['clubs 99 infinity'],
  'the highest number counts, whoever gives it'
);

update billing.entitlement_grants
set limit_value = 0
where account_id = md5('iris')::uuid and limit_value = 99;

select is(
  pg_temp.has('iris'), array['clubs 3 infinity'],
  'a limit of zero takes nothing away from what others give'
);

-- ---- owners -----------------------------------------------------------------

select is(
  tests.subscribe('unclaimed'), 'applied',
  'A5: a subscription of a customer nobody knows is stored'
);
select is_empty(
  $$
    select *
    from billing.entitlements
    where account_id not in (md5('ann')::uuid, md5('mallory')::uuid, md5('iris')::uuid,
      md5('gil')::uuid)
  $$,
  'A5: a customer nobody knows gives nobody anything'
);
select is(pg_temp.has('unclaimed'), '{}', 'A5: whoever it may be has nothing yet');

select billing_private.ensure_account(md5('unclaimed')::uuid);
select tests.deliver('evt_bind', 'customer.updated', '2026-01-11', jsonb_build_object(
  'id', 'cus_unclaimed', 'object', 'customer', 'email', 'unclaimed@example.com',
  'metadata', jsonb_build_object('account_id', md5('unclaimed')::uuid)));

select is(
  pg_temp.has('unclaimed'),
  array['clubs 10 2026-02-10 03:00:00', 'premium ∞ 2026-02-10 03:00:00'],
  'A5: once the customer is claimed, access is there in the same transaction'
);

select tests.deliver('evt_bind_away', 'customer.updated', '2026-01-12', jsonb_build_object(
  'id', 'cus_unclaimed', 'object', 'customer', 'email', 'ann@example.com',
  'metadata', jsonb_build_object('account_id', md5('mallory')::uuid)));

select is(
  pg_temp.has('mallory'), array['clubs 3 2026-02-10 03:00:00'],
  'C8: a customer that is claimed moves to nobody else'
);

-- ---- the catalog ------------------------------------------------------------

insert into billing.plan_features (plan_id, feature_key) values (md5('plus')::uuid, 'hosting');

select is(
  pg_temp.has('ann'),
  array[
    'clubs 10 2026-02-10 03:00:00', 'hosting ∞ 2026-02-10 03:00:00',
    'premium ∞ 2026-02-10 03:00:00'],
  'a feature added to a plan reaches its subscribers in the same transaction'
);
select is(
  pg_temp.has('mallory'), array['clubs 3 2026-02-10 03:00:00'],
  'a feature added to a plan reaches no subscriber of another'
);

update billing.plan_features
set limit_value = 25
where plan_id = md5('plus')::uuid and feature_key = 'clubs';

select is(
  (pg_temp.has('ann'))[1], 'clubs 25 2026-02-10 03:00:00',
  'a limit changed in a plan reaches its subscribers in the same transaction'
);

delete from billing.plan_features
where plan_id = md5('plus')::uuid and feature_key in ('hosting', 'premium');

select is(
  pg_temp.has('ann'), array['clubs 25 2026-02-10 03:00:00'],
  'a feature taken off a plan leaves its subscribers in the same transaction'
);

update billing.plan_features
set plan_id = md5('stage')::uuid
where plan_id = md5('plus')::uuid and feature_key = 'clubs';

select is(
  pg_temp.has('ann'), '{}',
  'a feature that moves to another plan leaves the subscribers of the first'
);

insert into billing.plan_features (plan_id, feature_key) values (md5('plus')::uuid, 'premium');
update billing.plans set renewal_grace = '1 day' where key = 'plus';

select is(
  pg_temp.has('ann'), array['premium ∞ 2026-02-11 00:00:00'],
  'a plan''s grace reaches its subscribers in the same transaction'
);

update billing.prices
set plan_id = md5('basic')::uuid
where stripe_price_id = 'price_plus_monthly';

select is(
  pg_temp.has('ann'), array['clubs 3 2026-02-10 03:00:00'],
  'a price that moves to another plan takes its subscribers along'
);

update billing.prices set plan_id = null where stripe_price_id = 'price_plus_monthly';

select is(
  pg_temp.has('ann'), '{}',
  'a price that belongs to no plan any more gives nothing'
);

-- ---- everybody, in the end --------------------------------------------------

select is_empty(
  $$
    select *
    from billing_private.validate_entitlements(array(select id from billing.accounts))
  $$,
  'after all of this, what is stored is what the sources say'
);

-- ---- what costs nothing -----------------------------------------------------

-- A tampered row that stays shows that nobody looked at this account again.
delete from billing.entitlements where account_id = md5('mallory')::uuid;
update billing.plans set name = 'Basic, renamed', description = 'cheap' where key = 'basic';
update billing.prices set is_active = false, trial_days = 3 where key = 'basic_monthly';
update billing.plan_features set limit_value = 3 where plan_id = md5('basic')::uuid;
update billing.subscriptions set metadata = '{"a": "b"}', updated_at = billing_private.now()
where account_id = md5('mallory')::uuid;
update billing.subscription_items set quantity = 2;

select is(
  pg_temp.has('mallory'), '{}',
  'a change that access does not depend on looks at nobody''s access'
);

update billing.plan_features set limit_value = 4 where plan_id = md5('basic')::uuid;

select is(
  pg_temp.has('mallory'), array['clubs 4 2026-02-10 03:00:00'],
  'a change that access depends on does'
);

select * from finish();
rollback;
