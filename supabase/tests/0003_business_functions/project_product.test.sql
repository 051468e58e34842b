-- billing_private.project_product(): plans follow their Stripe products; unknown ones wait.
begin;
\ir ../helpers.psql
select plan(22);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

create function tests.product(p_at timestamptz, p_extra jsonb,
  p_type text default 'product.updated')
returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_at::text || p_extra || p_type), p_type, p_at,
    '{"id": "prod_plus", "object": "product", "name": "Plus", "active": true, "description": null}'
      || p_extra);
$$;

-- ---- the service: a product of the catalog ----------------------------------

select is(
  tests.product('2026-01-02', '{"name": "Plus!", "description": "More of it"}'), 'applied',
  'a product is applied'
);
select results_eq(
  $$
    select name, description, is_active, is_listed, tier, tier_rank
    from billing.plans
    where key = 'plus'
  $$,
  $$ values ('Plus!', 'More of it', true, true, 'plus', 20) $$,
  'its plan takes name and description, and keeps what only the catalog knows'
);
select tests.product('2026-01-03', '{}');
select is(
  (select description from billing.plans where key = 'plus'), null,
  'a description that was removed is removed'
);
select tests.product('2026-01-04', '{"active": false}');
select ok(
  not (select is_active from billing.plans where key = 'plus'),
  'a product that was archived is not on offer'
);
select is_empty(
  $$ select * from billing.list_plans() where plan_key = 'plus' $$,
  'and leaves the list of plans'
);
select tests.product('2026-01-05', '{}');
select isnt_empty(
  $$ select * from billing.list_plans() where plan_key = 'plus' $$,
  'and comes back with it'
);
update billing.plans set is_listed = false where key = 'plus';
select tests.product('2026-01-06', '{}');
select ok(
  not (select is_listed from billing.plans where key = 'plus'),
  'a plan an admin took off the list stays off'
);
update billing.plans set is_listed = true where key = 'plus';

select tests.subscribe('ann');
select is(
  tests.product('2026-01-07', '{"active": false}', 'product.deleted'), 'applied',
  'E4: a deletion is applied'
);
select ok(
  not (select is_active from billing.plans where key = 'plus'),
  'E4: a deleted product is not on offer'
);
select isnt_empty(
  $$ select * from billing.entitlements where account_id = md5('ann')::uuid $$,
  'and who has bought it keeps it'
);

-- ---- the service: a plan that was written here first ------------------------

insert into billing.plans (id, key, name, tier_rank) values (md5('gold')::uuid, 'gold', 'Gold', 30);
select tests.deliver('evt_g', 'product.created', '2026-01-02', '{"id": "prod_gold",
  "object": "product", "name": "Gold", "active": true, "metadata": {"plan_key": "gold"}}');
select results_eq(
  $$ select id, stripe_product_id, is_listed from billing.plans where key = 'gold' $$,
  $$ values (md5('gold')::uuid, 'prod_gold', true) $$,
  'a product that names a plan by its key is that plan''s'
);
select is(
  (select count(*) from billing.plans), 3::bigint,
  'and makes no other'
);
select tests.deliver('evt_g2', 'product.created', '2026-01-03', '{"id": "prod_thief",
  "object": "product", "name": "Thief", "active": true, "metadata": {"plan_key": "gold"}}');
select is(
  (select stripe_product_id from billing.plans where key = 'gold'), 'prod_gold',
  'a plan that has its product does not change to another'
);

-- ---- the service: a product nobody knows ------------------------------------

select results_eq(
  $$ select key, name, kind, is_listed from billing.plans where stripe_product_id = 'prod_thief' $$,
  $$ values ('prod_thief', 'Thief', 'base', false) $$,
  'a product nobody knows becomes a plan that waits unlisted'
);
select tests.deliver('evt_n', 'product.created', '2026-01-03', '{"id": "prod_bare",
  "object": "product", "active": true}');
select is(
  (select name from billing.plans where stripe_product_id = 'prod_bare'), 'prod_bare',
  'a product without a name is called by its id'
);
select is(
  tests.deliver('evt_d', 'product.deleted', '2026-01-03',
    '{"id": "prod_never", "object": "product", "deleted": true}'),
  'applied',
  'D11: the deletion of a product never heard of, told in three fields, is applied'
);
select ok(
  not (select is_active from billing.plans where stripe_product_id = 'prod_never'),
  'D11: and such a plan is not on offer'
);

-- ---- the service: prices that came first ------------------------------------

select tests.deliver('evt_p', 'price.created', '2026-01-03', '{
  "id": "price_silver", "object": "price", "product": "prod_silver", "currency": "usd",
  "unit_amount": 700, "active": true, "lookup_key": "silver_monthly",
  "recurring": {"interval": "month", "interval_count": 1}}');
select is(
  (select plan_id from billing.prices where stripe_price_id = 'price_silver'), null,
  'C3: a price whose product is unknown is stored without a plan'
);
select is_empty(
  $$ select * from billing.plan_offers where price_key = 'silver_monthly' $$,
  'C3: and is not on offer'
);
select tests.deliver('evt_p2', 'price.created', '2026-01-03', '{
  "id": "price_bronze", "object": "price", "product": "prod_bronze", "currency": "usd",
  "unit_amount": 300, "active": true, "recurring": {"interval": "month", "interval_count": 1}}');
select tests.deliver('evt_s', 'product.created', '2026-01-03',
  '{"id": "prod_silver", "object": "product", "name": "Silver", "active": true}');
select is(
  (
    select plans.name
    from billing.prices
    join billing.plans on plans.id = prices.plan_id
    where prices.stripe_price_id = 'price_silver'
  ),
  'Silver',
  'C3: the product, when it comes, takes its prices'
);
select is(
  (select plan_id from billing.prices where stripe_price_id = 'price_bronze'), null,
  'C3: and nobody else''s'
);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();
select results_eq(
  $$ select key from billing.plans order by key $$,
  $$ values ('basic'), ('gold'), ('plus') $$,
  'a visitor does not see plans that wait to be looked at'
);

select * from finish();
rollback;
