-- Stores, features, plans, plan features and prices: what the catalog may hold.
begin;
\ir ../helpers.psql
select plan(46);

select tests.catalog();

-- ---- keys -------------------------------------------------------------------

select lives_ok(
  $$ insert into billing.stores (key, name) values ('a', 'A'), ('0-1_z', 'B') $$,
  'a store''s key is made of small letters, digits, hyphens and underscores'
);

select throws_ok(
  $$ insert into billing.stores (key, name) values ('Night', 'Night') $$,
  '23514', 'new row for relation "stores" violates check constraint "stores_key_is_a_slug"',
  'a store''s key has no capitals'
);

select throws_ok(
  $$ insert into billing.stores (key, name) values ('-night', 'Night') $$,
  '23514', 'new row for relation "stores" violates check constraint "stores_key_is_a_slug"',
  'a store''s key begins with a letter or digit'
);

select throws_ok(
  $$ insert into billing.stores (key, name) values ('', 'Night') $$,
  '23514', 'new row for relation "stores" violates check constraint "stores_key_is_a_slug"',
  'a store''s key is not empty'
);

select throws_ok(
  $$ insert into billing.stores (key, name) values ('night-owl', 'Another') $$,
  '23505', 'duplicate key value violates unique constraint "stores_key_key"',
  'no two stores have one key'
);

select lives_ok(
  $$ insert into billing.features (key, name) values ('a', 'A'), ('0-1_z', 'B') $$,
  'a feature''s key is made of small letters, digits, hyphens and underscores'
);

select throws_ok(
  $$ insert into billing.features (key, name) values ('a b', 'A') $$,
  '23514', 'new row for relation "features" violates check constraint "features_key_is_a_slug"',
  'a feature''s key has no blanks'
);

select throws_ok(
  $$ insert into billing.features (key, name) values ('_a', 'A') $$,
  '23514', 'new row for relation "features" violates check constraint "features_key_is_a_slug"',
  'a feature''s key begins with a letter or digit'
);

select throws_ok(
  $$ insert into billing.features (key, name) values ('premium', 'Again') $$,
  '23505', 'duplicate key value violates unique constraint "features_pkey"',
  'no two features have one key'
);

-- ---- features ---------------------------------------------------------------

select is(
  (select kind from billing.features where key = 'a'), 'boolean',
  'a feature is on or off unless it says more'
);

select lives_ok(
  $$
    insert into billing.features (key, name, kind)
    values ('seats', 'Seats', 'limit'), ('calls', 'Calls', 'metered')
  $$,
  'a feature may be limited or metered'
);

select throws_ok(
  $$ insert into billing.features (key, name, kind) values ('b', 'B', 'quota') $$,
  '23514', 'new row for relation "features" violates check constraint "features_kind_is_known"',
  'a feature is of no other kind'
);

select throws_like(
  $$ delete from billing.features where key = 'premium' $$,
  '%"plan_features_feature_key_fkey"%',
  'a feature that a plan gives is not deleted'
);

select lives_ok(
  $$ delete from billing.features where key = 'seats' $$,
  'a feature nobody refers to may be'
);

-- ---- plans ------------------------------------------------------------------

insert into billing.plans (id, key, name) values (md5('bare')::uuid, 'bare', 'Bare');

select row_eq(
  $$
    select kind, tier, tier_rank, is_active, is_listed, renewal_grace, past_due_grace
    from billing.plans
    where key = 'bare'
  $$,
  row('base'::text, null::text, 0, true, true, '3 hours'::interval, '3 days'::interval),
  'a plan is a base plan of no tier, on offer, with a short grace for late webhooks and failures'
);

select lives_ok(
  $$ insert into billing.plans (key, name, kind) values ('more', 'More', 'add_on') $$,
  'a plan may be an add-on'
);

select throws_ok(
  $$ insert into billing.plans (key, name, kind) values ('other', 'Other', 'bundle') $$,
  '23514', 'new row for relation "plans" violates check constraint "plans_kind_is_known"',
  'a plan is of no other kind'
);

select lives_ok(
  $$ update billing.plans set renewal_grace = '0', past_due_grace = '0' where key = 'bare' $$,
  'a plan may give no grace at all'
);

select throws_ok(
  $$ update billing.plans set renewal_grace = '-1 second' where key = 'bare' $$,
  '23514', 'new row for relation "plans" violates check constraint "plans_graces_are_not_negative"',
  'access does not end before the period does'
);

select throws_ok(
  $$ update billing.plans set past_due_grace = '-1 second' where key = 'bare' $$,
  '23514', 'new row for relation "plans" violates check constraint "plans_graces_are_not_negative"',
  'nor before the payment failed'
);

select throws_ok(
  $$ insert into billing.plans (key, name) values ('plus', 'Another') $$,
  '23505', 'duplicate key value violates unique constraint "plans_key_key"',
  'no two plans have one key'
);

select throws_ok(
  $$
    insert into billing.plans (key, name, stripe_product_id)
    values ('other', 'Other', 'prod_plus')
  $$,
  '23505', 'duplicate key value violates unique constraint "plans_stripe_product_id_key"',
  'no two plans are one product of Stripe'
);

select throws_like(
  $$ delete from billing.plans where key = 'plus' $$,
  '%"prices_plan_id_fkey"%',
  'a plan with prices is not deleted'
);

insert into billing.plan_features (plan_id, feature_key) values (md5('bare')::uuid, 'premium');
delete from billing.plans where key = 'bare';
select is_empty(
  $$ select from billing.plan_features where plan_id = md5('bare')::uuid $$,
  'what a plan gave goes with it'
);

update billing.plans set store_id = md5('night-owl')::uuid where key = 'plus';
select throws_like(
  $$ delete from billing.stores where key = 'night-owl' $$,
  '%"plans_store_id_fkey"%',
  'a store with plans is not deleted'
);

-- ---- what a plan gives ------------------------------------------------------

select lives_ok(
  $$ update billing.plan_features set limit_value = 0 where feature_key = 'clubs' $$,
  'a plan may give none of a limited feature'
);

select throws_ok(
  $$ update billing.plan_features set limit_value = -1 where feature_key = 'clubs' $$,
  '23514', 'new row for relation "plan_features" violates check constraint '
    '"plan_features_limit_is_not_negative"',
  'but not less than none'
);

select lives_ok(
  $$ update billing.plan_features set limit_value = null where feature_key = 'clubs' $$,
  'no limit is unlimited'
);

select throws_ok(
  $$
    insert into billing.plan_features (plan_id, feature_key)
    values (md5('plus')::uuid, 'clubs')
  $$,
  '23505', 'duplicate key value violates unique constraint "plan_features_pkey"',
  'a plan gives a feature once'
);

select throws_ok(
  $$
    insert into billing.plan_features (plan_id, feature_key)
    values (md5('plus')::uuid, 'no_such_feature')
  $$,
  '23503', 'insert or update on table "plan_features" violates foreign key constraint '
    '"plan_features_feature_key_fkey"',
  'a plan gives what there is'
);

-- ---- prices -----------------------------------------------------------------

prepare add_price(text, text, integer, integer) as
insert into billing.prices (key, currency, interval_count, trial_days, plan_id)
values ($1, $2, $3, $4, md5('plus')::uuid);

select lives_ok($$ execute add_price('p1', 'jpy', 1, 0) $$, 'a price may have a trial of no days');
select lives_ok($$ execute add_price('p2', 'kwd', 12, null) $$, 'or say nothing of one');

select throws_ok(
  $$ execute add_price('p3', 'USD', 1, null) $$,
  '23514', 'new row for relation "prices" violates check constraint "prices_currency_is_iso_4217"',
  'currencies are in small letters, as Stripe writes them'
);

select throws_ok(
  $$ execute add_price('p3', 'us', 1, null) $$,
  '23514', 'new row for relation "prices" violates check constraint "prices_currency_is_iso_4217"',
  'and three letters long'
);

select throws_ok(
  $$ execute add_price('p3', 'usdt', 1, null) $$,
  '23514', 'new row for relation "prices" violates check constraint "prices_currency_is_iso_4217"',
  'neither less nor more'
);

select throws_ok(
  $$ execute add_price('p3', 'usd', 0, null) $$,
  '23514', 'new row for relation "prices" violates check constraint '
    '"prices_interval_count_is_positive"',
  'a period is at least one interval long'
);

select throws_ok(
  $$ execute add_price('p3', 'usd', 1, -1) $$,
  '23514', 'new row for relation "prices" violates check constraint "prices_trial_is_not_negative"',
  'a trial does not end before it begins'
);

select throws_ok(
  $$ execute add_price('plus_monthly', 'usd', 1, null) $$,
  '23505', 'duplicate key value violates unique constraint "prices_key_idx"',
  'a key leads to one price'
);

update billing.prices set is_active = false where key = 'plus_monthly';
select lives_ok(
  $$ execute add_price('plus_monthly', 'usd', 1, null) $$,
  'a new price takes over the key of one that is no longer sold'
);

select throws_ok(
  $$
    update billing.prices
    set is_active = true
    where key = 'plus_monthly' and stripe_price_id is not null
  $$,
  '23505', 'duplicate key value violates unique constraint "prices_key_idx"',
  'which cannot be sold again under that key'
);

select lives_ok($$ execute add_price(null, 'usd', 1, null) $$, 'a price may have no key');
select lives_ok($$ execute add_price(null, 'usd', 1, null) $$, 'and so may several');

select throws_ok(
  $$
    insert into billing.prices (currency, stripe_price_id)
    values ('usd', 'price_plus_monthly')
  $$,
  '23505', 'duplicate key value violates unique constraint "prices_stripe_price_id_key"',
  'no two prices are one price of Stripe'
);

select lives_ok(
  $$
    insert into billing.prices (currency, stripe_price_id, stripe_product_id)
    values ('usd', 'price_early', 'prod_not_yet_here')
  $$,
  'a price may come before its plan'
);

select lives_ok(
  $$
    insert into billing.prices (currency, unit_amount_minor, unit_amount_decimal)
    values ('usd', null, 0.0125)
  $$,
  'a price may be a fraction of the smallest unit'
);

select row_eq(
  $$
    select is_active, is_listed, interval_count, usage_type, billing_scheme
    from billing.prices
    where key = 'p1'
  $$,
  row(true, true, 1, 'licensed'::text, 'per_unit'::text),
  'a price is on offer, per interval and unit, unless it says otherwise'
);

select * from finish();
rollback;
