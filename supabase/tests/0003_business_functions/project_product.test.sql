-- billing_private.project_product(): plans follow their Stripe products; unknown ones wait.
begin;
\ir ../helpers.psql
select plan(29);

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

-- ---- the service: a plan that is written after its product was told of --------

select tests.deliver('evt_i1', 'price.created', '2026-01-02', '{
  "id": "price_iron", "object": "price", "product": "prod_iron", "currency": "usd",
  "unit_amount": 100, "active": true, "lookup_key": "iron_monthly",
  "recurring": {"interval": "month", "interval_count": 1}}');
select tests.deliver('evt_i2', 'product.created', '2026-01-02', '{"id": "prod_iron",
  "object": "product", "name": "Iron", "active": true, "created": 1767312000,
  "metadata": {"plan_key": "iron"}}');
select tests.deliver('evt_i3', 'product.created', '2026-01-02', '{"id": "prod_a_later_iron",
  "object": "product", "name": "Iron again", "active": true, "created": 1767312001,
  "metadata": {"plan_key": "iron"}}');
select tests.account('bob');
select tests.deliver('evt_i4', 'customer.subscription.created', '2026-01-02',
  tests.subscription('bob', 'active', '2026-01-10', 'price_iron'));
savepoint told;

create function tests.iron() returns text
language sql as $$
  select format('%s, %s, %s', string_agg(
      plans.key || ' ' || coalesce(plans.stripe_product_id, 'without a product'), ', '
      order by plans.key),
    (
      select plans.key
      from billing.prices
      join billing.plans on plans.id = prices.plan_id
      where stripe_price_id = 'price_iron'
    ),
    (select count(*) from billing.entitlements where account_id = md5('bob')::uuid))
  from billing.plans
  where key like '%iron';
$$;
create function tests.write_iron() returns void
language sql as $$
  insert into billing.plans (id, key, name) values (md5('iron')::uuid, 'iron', 'Iron!');
  insert into billing.features (key, name) values ('iron', 'Iron');
  insert into billing.plan_features (plan_id, feature_key) values (md5('iron')::uuid, 'iron');
$$;
savepoint written_after;

select is(
  tests.iron(),
  'prod_a_later_iron prod_a_later_iron, prod_iron prod_iron, prod_iron, 0',
  'A4: products that name a plan nobody has written wait'
);
select tests.write_iron();
select is(
  tests.iron(), 'iron prod_iron, prod_a_later_iron prod_a_later_iron, iron, 1',
  'A4: the plan, when it is written, has the first of them with its prices and who bought it'
);
select is(
  (select name from billing.plans where key = 'iron'), 'Iron',
  'A4: and its name, as if it had been there before'
);
select is(
  (
    select billing_private.publish_plans(array_agg(id))
    from billing.plans
    where key = 'iron'
  ),
  0::bigint,
  'A4: so there is nothing to tell Stripe'
);
rollback to written_after;

select tests.deliver('evt_i9', 'product.deleted', '2026-01-04', '{"id": "prod_iron",
  "object": "product", "name": "Iron", "active": false, "created": 1767312000,
  "metadata": {"plan_key": "iron"}}');
select tests.write_iron();
select is(
  tests.iron(), 'iron prod_a_later_iron, prod_iron prod_iron, prod_iron, 0',
  'E4: a product that was deleted is no plan''s'
);
rollback to written_after;

insert into billing.plan_features (plan_id, feature_key)
select id, 'premium' from billing.plans where key = 'prod_iron';
select tests.write_iron();
select is(
  tests.iron(), 'iron prod_a_later_iron, prod_iron prod_iron, prod_iron, 1',
  'a product that somebody has made a plan of stays with it'
);
rollback to written_after;

-- The metadata is set in the dashboard when both are there.
select tests.deliver('evt_t1', 'product.created', '2026-01-02', '{"id": "prod_tin",
  "object": "product", "name": "Tin", "active": true}');
insert into billing.plans (key, name) values ('tin', 'Tin!');
select tests.deliver('evt_t2', 'product.updated', '2026-01-03', '{"id": "prod_tin",
  "object": "product", "name": "Tin", "active": true, "metadata": {"plan_key": "tin"}}',
  '{"metadata": {"plan_key": null}}');
select results_eq(
  $$ select key, stripe_product_id from billing.plans where name like 'Tin%' $$,
  $$ values ('tin', 'prod_tin') $$,
  'A4: a product that is given a plan''s key later becomes that plan''s'
);
rollback to told;

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();
select results_eq(
  $$ select key from billing.plans order by key $$,
  $$ values ('basic'), ('gold'), ('plus') $$,
  'a visitor does not see plans that wait to be looked at'
);

select * from finish();
rollback;
