-- Managing plans, prices, features and stores: what can be changed, what cannot, and that Stripe
-- hears of it.
begin;
\ir ../helpers.psql
select plan(70);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

create function tests.asked() returns table (kind text, path text, params jsonb)
language sql security definer as $$
  select kind, path, params
  from billing_private.commands
  where kind like '%\_product' or kind like '%\_price'
  order by created_at, id;
$$;

-- ---- without Stripe ---------------------------------------------------------

select tests.sign_in('ada');
select row_eq(
  $$ select key, name, kind, description from billing_admin.create_feature(
    'exports', 'Exports', 'we export now', 'metered', 'Files a month') $$,
  row('exports'::text, 'Exports'::text, 'metered'::text, 'Files a month'::text),
  'a feature is added'
);
select row_eq(
  $$ select key, name, description, kind, store_id, tier, tier_rank, is_active, is_listed, version
    from billing_admin.create_plan(
      'gold', 'Gold', 'more to sell', 'night-owl', 'All of it', tier => 'gold', tier_rank => 30,
      features => '{"exports": 100, "premium": true}') $$,
  row('gold'::text, 'Gold'::text, 'All of it'::text, 'base'::text, md5('night-owl')::uuid,
    'gold'::text, 30, true, true, 1),
  'a plan is added'
);
select row_eq(
  $$ select key, currency, unit_amount_minor, unit_amount_decimal, billing_interval,
      interval_count, billing_scheme, usage_type, trial_days, is_active, is_listed
    from billing_admin.create_price(
      'gold', 'gold_quarterly', 'EUR', 'more to sell', 2700, 'quarter', trial_days => 7) $$,
  row('gold_quarterly'::text, 'eur'::text, 2700::bigint, 2700::numeric, 'month'::text, 3,
    'per_unit'::text, 'licensed'::text, 7, true, true),
  'a price is added; a quarter is three months'
);
select row_eq(
  $$ select plan_name, store_key, price_key, features from billing.list_plans('night-owl') $$,
  row('Gold'::text, 'night-owl'::text, 'gold_quarterly'::text,
    '{"exports": 100, "premium": true}'::jsonb),
  'and can be bought'
);
select row_eq(
  $$ select unit_amount_minor, unit_amount_decimal from billing_admin.create_price(
      'gold', 'gold_calls', 'usd', 'by the call', unit_amount_decimal => 0.5) $$,
  row(null::bigint, 0.5::numeric), 'an amount may have fractions of the smallest unit'
);
select row_eq(
  $$ select billing_scheme, tiers_mode, jsonb_array_length(tiers) from billing_admin.create_price(
      'gold', 'gold_tiers', 'usd', 'by the lot', tiers_mode => 'volume',
      tiers => '[{"up_to": 5, "unit_amount": 100}, {"up_to": null, "unit_amount_decimal": "99.5"}]'
    ) $$,
  row('tiered'::text, 'volume'::text, 2), 'or be in tiers'
);
select row_eq(
  $$ select package_size, package_rounding from billing_admin.create_price(
      'gold', 'gold_fives', 'usd', 'by the five', 100, package_size => 5, package_rounding => 'up')
  $$,
  row(5::bigint, 'up'::text), 'or be for packages'
);
select is_empty('select * from tests.asked()', 'where Stripe is not used it is told nothing');

-- ---- what cannot be ---------------------------------------------------------

select throws_ok(
  format('select billing_admin.create_price(%s, reason => %L)', arguments, 'a reason'),
  'PT400', 'the request is not valid', format('no price with %s: %s', arguments, because)
)
from (values
  ($$'gold', 'Gold!', 'usd', unit_amount_minor => 1$$, 'the key is none'),
  ($$'gold', null, 'usd', unit_amount_minor => 1$$, 'nor is nothing'),
  ($$'gold', 'plus_monthly', 'usd', unit_amount_minor => 1$$, 'the key is taken'),
  ($$'gold', 'x', 'dollars', unit_amount_minor => 1$$, 'no currency'),
  ($$'gold', 'x', null, unit_amount_minor => 1$$, 'no currency at all'),
  ($$'gold', 'x', 'usd'$$, 'no amount'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, unit_amount_decimal => 1$$, 'two amounts'),
  ($$'gold', 'x', 'usd', unit_amount_minor => -1$$, 'below nothing'),
  ($$'gold', 'x', 'usd', unit_amount_decimal => 0.0000000000001$$, 'finer than Stripe reckons'),
  ($$'gold', 'x', 'kwd', unit_amount_minor => 1005$$, 'the last digit is always 0'),
  ($$'gold', 'x', 'isk', unit_amount_minor => 110$$, 'the last two are'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, billing_interval => 'decade'$$, 'no interval'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, billing_interval => null$$, 'none at all'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, interval_count => 0$$, 'no time'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, interval_count => 37$$, 'more than three years'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, interval_count => 13,
    billing_interval => 'quarter'$$, 'more than three years'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, tiers_mode => 'volume'$$, 'no tiers'),
  ($$'gold', 'x', 'usd', tiers => '[{"up_to": null, "unit_amount": 1}]'$$, 'no mode'),
  ($$'gold', 'x', 'usd', tiers_mode => 'volume', tiers => '[]'$$, 'no tier'),
  ($$'gold', 'x', 'usd', tiers_mode => 'volume', tiers => '{}'$$, 'no list'),
  ($$'gold', 'x', 'usd', tiers_mode => 'volume', tiers => '[1]'$$, 'no tiers in it'),
  ($$'gold', 'x', 'usd', tiers_mode => 'volume', tiers => '[{"up_to": 1, "unit_amount": 1}]'$$,
    'an end'),
  ($$'gold', 'x', 'usd', tiers_mode => 'volume',
    tiers => '[{"up_to": 2, "unit_amount": 1}, {"up_to": 2, "unit_amount": 1},
      {"up_to": null, "unit_amount": 1}]'$$, 'a tier of no units'),
  ($$'gold', 'x', 'usd', tiers_mode => 'volume', tiers => '[{"up_to": null}]'$$, 'no amount'),
  ($$'gold', 'x', 'usd', tiers_mode => 'volume',
    tiers => '[{"up_to": null, "unit_amount": -1}]'$$, 'below nothing'),
  ($$'gold', 'x', 'usd', tiers_mode => 'volume',
    tiers => '[{"up_to": null, "flat_amount_decimal": "1.5"}]'$$, 'half a cent at once'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, package_size => 5$$, 'no rounding'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, package_size => 0, package_rounding => 'up'$$,
    'packages of nothing'),
  ($$'gold', 'x', 'usd', package_size => 5, package_rounding => 'up', tiers_mode => 'volume',
    tiers => '[{"up_to": null, "unit_amount": 1}]'$$, 'packages in tiers'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, usage_type => 'stolen'$$, 'no usage type'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, stripe_meter_id => 'mtr_1'$$, 'nothing to meter'),
  ($$'gold', 'x', 'usd', unit_amount_minor => 1, trial_days => -1$$, 'a trial of less than nothing')
) as prices (arguments, because);

select throws_ok(
  call, expected, null, format('refused: %s', call)
)
from (values
  ($$ select billing_admin.create_price('none', 'x', 'usd', 'a reason', 1) $$, 'PT404'),
  ($$ select billing_admin.create_plan('gold', 'Gold', 'a reason') $$, 'PT400'),
  ($$ select billing_admin.create_plan('GOLD', 'Gold', 'a reason') $$, 'PT400'),
  ($$ select billing_admin.create_plan('more', ' ', 'a reason') $$, 'PT400'),
  ($$ select billing_admin.create_plan('more', 'More', 'a reason', 'none') $$, 'PT404'),
  ($$ select billing_admin.create_plan('more', 'More', 'a reason', kind => 'bundle') $$, 'PT400'),
  ($$ select billing_admin.create_plan('more', 'More', '', kind => 'base') $$, 'PT400'),
  ($$ select billing_admin.create_plan(
    'more', 'More', 'a reason', features => '{"wings": true}') $$, 'PT404'),
  ($$ select billing_admin.update_plan('gold', 'a reason', name => '') $$, 'PT400'),
  ($$ select billing_admin.update_plan('gold', 'a reason', renewal_grace => '-1 s') $$, 'PT400'),
  ($$ select billing_admin.create_feature('exports', 'Exports', 'a reason') $$, 'PT400'),
  ($$ select billing_admin.create_feature('wings', 'Wings', 'a reason', 'rented') $$, 'PT400'),
  ($$ select billing_admin.create_store('night-owl', 'Owl', 'a reason') $$, 'PT400'),
  ($$ select billing_admin.update_price('plus_monthly', 'a reason', -1) $$, 'PT400'),
  ($$ select billing_admin.archive_price('none', 'a reason') $$, 'PT404'),
  ($$ select billing_admin.set_revenue_share('night-owl', 10001, 'a reason') $$, 'PT400'),
  ($$ select billing_admin.set_revenue_share('none', 1, 'a reason') $$, 'PT404'),
  ($$ select billing_admin.set_revenue_share('night-owl', 1, 'a reason', '2026-01-09') $$, 'PT400')
) as calls (call, expected);

-- ---- with Stripe ------------------------------------------------------------

select tests.be_owner();
select tests.deliver('evt_product', 'product.updated', '2026-01-10', '{"id": "prod_plus",
  "object": "product", "name": "Plus", "active": true, "default_price": "price_plus_yearly"}');
select tests.deliver('evt_price', 'price.updated', '2026-01-10', '{"id": "price_plus_monthly",
  "object": "price", "product": "prod_plus", "currency": "usd", "unit_amount": 1000,
  "active": true, "lookup_key": "plus_monthly", "recurring": {"interval": "month",
  "interval_count": 1, "usage_type": "licensed"}}');
select tests.deliver('evt_yearly', 'price.updated', '2026-01-10', '{"id": "price_plus_yearly",
  "object": "price", "product": "prod_plus", "currency": "usd", "unit_amount": 10000,
  "active": true, "lookup_key": "plus_yearly", "recurring": {"interval": "year",
  "interval_count": 1, "usage_type": "licensed"}}');

select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.create_price(
    'plus', 'plus_calls', 'usd', 'by use', 1, usage_type => 'metered') $$,
  'PT400', 'the request is not valid', 'Stripe bills usage by a meter alone'
);
savepoint s;
select billing_admin.create_price(
  'plus', 'plus_fives', 'usd', 'by the five', 100, package_size => 5, package_rounding => 'up');
select results_eq(
  $$ select kind, params #>> '{product}', params -> 'unit_amount', params -> 'transform_quantity',
      params ->> 'lookup_key' from tests.asked() $$,
  $$ values ('create_price', 'prod_plus', '100'::jsonb, '{"divide_by": 5, "round": "up"}'::jsonb,
    'plus_fives') $$,
  'a new price is made at Stripe'
);
rollback to s;

select billing_admin.create_plan('silver', 'Silver', 'something cheaper');
select results_eq(
  $$ select kind, path, params ->> 'name' from tests.asked() $$,
  $$ values ('create_product', '/v1/products', 'Silver') $$,
  'a new plan is made a product'
);
rollback to s;

select billing_admin.update_plan('plus', 'a better name', name => 'Plus!', is_listed => false);
select results_eq(
  $$ select kind, path, params ->> 'name' from tests.asked() $$,
  $$ values ('update_product', '/v1/products/prod_plus', 'Plus!') $$,
  'another name is told'
);
rollback to s;

select is(
  (select is_active from billing_admin.archive_plan('plus', 'no longer')), false,
  'an archived plan is off sale'
);
select results_eq(
  $$ select kind, params -> 'active' from tests.asked() where kind = 'update_product' $$,
  $$ values ('update_product', 'false'::jsonb) $$,
  'at Stripe too'
);
select is_empty($$ select * from billing.list_plans() where plan_key = 'plus' $$, 'and not offered');
rollback to s;

select is(
  (select is_active from billing_admin.archive_price('plus_monthly', 'no longer')), false,
  'an archived price is off sale'
);
select results_eq(
  $$ select kind, path, params from tests.asked() $$,
  $$ values ('update_price', '/v1/prices/price_plus_monthly', '{"active": false}'::jsonb) $$,
  'at Stripe too'
);
select throws_ok(
  $$ select billing_admin.archive_price('plus_monthly', 'no longer') $$,
  'PT404', 'there is no such price on offer', 'twice changes nothing more'
);
rollback to s;
select throws_ok(
  $$ select billing_admin.archive_price('plus_yearly', 'no longer') $$,
  'PT400', 'the request is not valid', 'Stripe keeps the default price of a product on sale'
);
rollback to s;

-- ---- prices never change ----------------------------------------------------

select tests.be_owner();
select tests.account('ann');
select tests.subscribe('ann', 'active', '2026-01-10', 'price_plus_monthly');
select tests.sign_in('ada');
select billing_admin.change_price('plus_monthly', 1500, 'all is dearer');
select billing_admin.update_price('plus_monthly', 'try it', 7);
select tests.be_owner();
select results_eq(
  $$ select unit_amount_minor, prices.id from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id $$,
  $$ values (1000::bigint, md5('plus_monthly')::uuid) $$,
  'whoever subscribes keeps the amount they bought at'
);

select * from finish();
rollback;
