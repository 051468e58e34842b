-- billing.price_amount(): what a quantity costs, to the smallest unit, as Stripe reckons it.
begin;
\ir ../helpers.psql
select plan(58);

select tests.catalog();
insert into billing.prices
  (key, plan_id, currency, unit_amount_minor, unit_amount_decimal, billing_interval,
    billing_scheme, tiers_mode, tiers, package_size, package_rounding, is_active, is_listed)
select
  key, md5('plus')::uuid, currency, minor, fraction, 'month',
  case when mode is null then 'per_unit' else 'tiered' end, mode, tiers::jsonb, size, rounding,
  key <> 'gone', key <> 'private'
from (values
  -- Stripe's example: fonts at 7, 6.50 and 6 dollars.
  ('fonts_volume', 'usd', null, null::numeric, 'volume',
    '[{"up_to": 5, "unit_amount": 700}, {"up_to": 10, "unit_amount": 650},
      {"up_to": null, "unit_amount": 600}]', null, null),
  ('fonts_graduated', 'usd', null, null, 'graduated',
    '[{"up_to": 5, "unit_amount": 700, "unit_amount_decimal": "700", "flat_amount": null},
      {"up_to": 10, "unit_amount": 650, "unit_amount_decimal": "650", "flat_amount": null},
      {"up_to": null, "unit_amount": 600, "unit_amount_decimal": "600", "flat_amount": null}]',
    null, null),
  -- The same with flat amounts of 10, 20 and 30 dollars.
  ('flat_volume', 'usd', null, null, 'volume',
    '[{"up_to": 5, "unit_amount": 700, "flat_amount": 1000},
      {"up_to": 10, "unit_amount": 650, "flat_amount": 2000},
      {"up_to": null, "unit_amount": 600, "flat_amount_decimal": "3000"}]', null, null),
  ('flat_graduated', 'usd', null, null, 'graduated',
    '[{"up_to": 5, "unit_amount": 700, "flat_amount": 1000},
      {"up_to": 10, "unit_amount": 650, "flat_amount": 2000},
      {"up_to": null, "unit_amount": 600, "flat_amount_decimal": "3000"}]', null, null),
  -- Stripe's examples of packages: 10 dollars for every five users, and for every hour.
  ('users', 'usd', 1000, 1000, null, null, 5, 'up'),
  ('full_fives', 'usd', 1000, 1000, null, null, 5, 'down'),
  ('car', 'usd', 1000, 1000, null, null, 60, 'up'),
  ('calls', 'usd', null, 0.5, null, null, null, null),
  ('tiny', 'usd', null, 0.000000000001, null, null, null, null),
  ('tiny_tiers', 'usd', null, null, 'graduated',
    '[{"up_to": 1000, "unit_amount_decimal": "0.05"},
      {"up_to": null, "unit_amount_decimal": "0.0125"}]', null, null),
  ('yen', 'jpy', 1300, 1300, null, null, null, null),
  ('dinar', 'kwd', 1230, 1230, null, null, null, null),
  ('unread', 'usd', null, null, 'graduated', null, null, null),
  ('free', 'usd', 0, 0, null, null, null, null),
  ('gone', 'usd', 1, 1, null, null, null, null),
  ('private', 'usd', 1, 1, null, null, null, null)
) as catalog (key, currency, minor, fraction, mode, tiers, size, rounding);

select tests.sign_out();

-- ---- as Stripe publishes it -------------------------------------------------

-- https://docs.stripe.com/subscriptions/pricing-models/tiered-pricing
-- https://docs.stripe.com/billing/subscriptions/usage-based/transform-quantities
-- https://docs.stripe.com/billing/subscriptions/quantity-transformation
select is(
  (select amount_minor from billing.price_amount(price, quantity)), amount,
  format('%s of %s cost %s', quantity, price, amount)
)
from (values
  ('fonts_volume', 1, 700::bigint), ('fonts_volume', 5, 3500), ('fonts_volume', 6, 3900),
  ('fonts_volume', 20, 12000), ('fonts_volume', 25, 15000),
  ('fonts_graduated', 1, 700), ('fonts_graduated', 5, 3500), ('fonts_graduated', 6, 4150),
  ('fonts_graduated', 20, 12750), ('fonts_graduated', 25, 15750),
  ('car', 150, 3000),
  ('users', 1, 1000), ('users', 3, 1000), ('users', 5, 1000), ('users', 6, 2000),
  ('users', 7, 2000)
) as published (price, quantity, amount);

-- ---- at the edges -----------------------------------------------------------

select is(
  (select amount_minor from billing.price_amount(price, quantity)), amount,
  format('%s of %s cost %s', quantity, price, amount)
)
from (values
  ('fonts_volume', 0::numeric, 0::bigint), ('fonts_graduated', 0, 0),
  ('fonts_volume', 10, 6500), ('fonts_volume', 11, 6600),
  ('fonts_graduated', 10, 6750), ('fonts_graduated', 11, 7350),
  ('flat_volume', 0, 1000), ('flat_volume', 5, 4500), ('flat_volume', 6, 5900),
  ('flat_volume', 11, 9600),
  ('flat_graduated', 0, 1000), ('flat_graduated', 5, 4500), ('flat_graduated', 6, 7150),
  ('flat_graduated', 10, 9750), ('flat_graduated', 11, 13350),
  ('fonts_graduated', 5.5, 3825),
  ('users', 0, 0), ('full_fives', 4, 0), ('full_fives', 5, 1000), ('full_fives', 9, 1000),
  ('calls', 1, 1), ('calls', 2, 1), ('calls', 3, 2), ('calls', 1000001, 500001),
  ('tiny', 499999999999, 0), ('tiny', 500000000000, 1),
  ('tiny_tiers', 1000, 50), ('tiny_tiers', 1039, 50), ('tiny_tiers', 1040, 51),
  ('yen', 3, 3900), ('dinar', 3, 3690), ('free', 7, 0),
  ('unread', 1, null)
) as asked (price, quantity, amount);

select row_eq(
  $$ select * from billing.price_amount('yen', 2) $$,
  row('yen'::text, 2::numeric, 2600::bigint, 'jpy'::text, 'month'::text, 1),
  'the answer says in which currency, and how often'
);
select is(
  (select amount_minor from billing.price_amount('plus_monthly')), 1000::bigint,
  'one is meant where no quantity is named'
);

-- ---- refusals ---------------------------------------------------------------

select throws_ok(
  format('select billing.price_amount(%L, 1)', price),
  'PT404', 'there is no such price on offer', format('%s is not on offer', price)
)
from unnest(array['gone', 'private', 'nothing']) as price;
select throws_ok(
  $$ select billing.price_amount('yen', -1) $$,
  'PT400', 'the request is not valid', 'less than nothing cannot be bought'
);
select throws_ok(
  $$ select billing.price_amount('yen', null) $$,
  'PT400', 'the request is not valid', 'nor an unknown quantity'
);

-- ---- who reckons with it -----------------------------------------------------

select tests.be_owner();
select ok(
  billing_private.is_upgrade(
    row((select id from billing.prices where key = 'fonts_volume'), 20)::billing_private.terms,
    row((select id from billing.prices where key = 'fonts_graduated'), 20)::billing_private.terms),
  'of two prices in tiers the dearer one is the upgrade'
);
update billing.prices set stripe_price_id = 'price_tiered' where key = 'flat_volume';
select tests.account('ann');
select tests.subscribe('ann', p_price => 'price_tiered');
select is(
  (select amount_minor from billing.subscription_changes where kind = 'started'), 1700::bigint,
  'history says what tiers make of a subscription''s quantity'
);

select * from finish();
rollback;
