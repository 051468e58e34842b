-- billing.list_plans() and billing.plan_offers: what is on offer, to anyone, and nothing else.
begin;
\ir ../helpers.psql
select plan(24);

select tests.catalog();
select tests.set_time('2026-01-10');

-- Next to the platform's three offers: one of a store, and one in euro.
insert into billing.plans (id, key, name, store_id, tier, tier_rank, kind)
values
  (md5('owl')::uuid, 'owl', 'Owl', md5('night-owl')::uuid, 'plus', 20, 'base'),
  (md5('audio')::uuid, 'audio', 'Audio', null, null, 0, 'add_on');
insert into billing.plan_features (plan_id, feature_key, limit_value) values
  (md5('owl')::uuid, 'clubs', 0);
insert into billing.prices (key, plan_id, currency, unit_amount_minor, billing_interval, trial_days)
values
  ('owl_monthly', md5('owl')::uuid, 'usd', 1100, 'month', 14),
  ('plus_monthly_eur', md5('plus')::uuid, 'eur', 900, 'month', null),
  ('audio_weekly', md5('audio')::uuid, 'jpy', 300, 'week', null);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();

select results_eq(
  $$ select price_key from billing.list_plans() $$,
  $$
    values ('audio_weekly'), ('basic_monthly'), ('plus_monthly_eur'), ('plus_monthly'),
      ('plus_yearly'), ('owl_monthly')
  $$,
  'a visitor sees every offer: the platform''s before the stores'', cheapest tier first'
);
select results_eq(
  $$
    select plan_key, plan_name, kind, store_key, store_name, tier, tier_rank, price_key, currency,
      unit_amount_minor, billing_interval, interval_count, trial_days
    from billing.list_plans('night-owl')
  $$,
  $$
    values ('owl', 'Owl', 'base', 'night-owl', 'Night Owl', 'plus', 20, 'owl_monthly', 'usd',
      1100::bigint, 'month', 1, 14)
  $$,
  'with a store, the offers of that store, told in full'
);
select results_eq(
  $$ select price_key, unit_amount_minor from billing.list_plans(currency => 'eur') $$,
  $$ values ('plus_monthly_eur', 900::bigint) $$,
  'with a currency, the offers in it'
);
select results_eq(
  $$ select price_key from billing.list_plans(currency => 'EUR') $$,
  $$ values ('plus_monthly_eur') $$,
  'however the currency is written'
);
select results_eq(
  $$ select price_key, unit_amount_minor from billing.list_plans(currency => 'jpy') $$,
  $$ values ('audio_weekly', 300::bigint) $$,
  'G1: 300 yen are 300: a currency without cents has none'
);
select is_empty(
  $$ select * from billing.list_plans('night-owl', 'eur') $$,
  'store and currency both have to fit'
);
select is_empty(
  $$ select * from billing.list_plans('no-such-store') $$,
  'a store nobody knows offers nothing'
);
select results_eq(
  $$
    select distinct plan_key, features
    from billing.list_plans()
    where plan_key in ('basic', 'plus', 'owl', 'audio')
    order by plan_key
  $$,
  $$
    values ('audio', '{}'::jsonb), ('basic', '{"clubs": 3}'), ('owl', '{"clubs": 0}'),
      ('plus', '{"clubs": 10, "premium": true}')
  $$,
  'the features are told with their limits: true where there is none, zero where it is zero'
);

-- ---- a visitor: what is not on offer ----------------------------------------

select tests.be_owner();

-- The offers a visitor sees after this statement of the owner's, which is undone again.
create function tests.offers_after(p_statement text) returns text[]
language plpgsql as $$
declare
  v_keys text[];
begin
  execute p_statement;
  perform tests.sign_out();
  select array_agg(price_key order by price_key) into v_keys from billing.list_plans();
  raise exception sqlstate 'TS001';
exception when sqlstate 'TS001' then
  return v_keys;
end;
$$;

create function tests.hidden_by(p_statement text) returns text[]
language sql as $$
  select array(
    select unnest(tests.offers_after('select 1'))
    except
    select unnest(tests.offers_after(p_statement))
    order by 1);
$$;

select is(
  tests.hidden_by($$ update billing.plans set is_active = false where key = 'owl' $$),
  '{owl_monthly}',
  'an archived plan is not on offer'
);
select is(
  tests.hidden_by($$ update billing.plans set is_listed = false where key = 'plus' $$),
  '{plus_monthly,plus_monthly_eur,plus_yearly}',
  'a plan off the list is not on offer'
);
select is(
  tests.hidden_by($$ update billing.prices set is_active = false where key = 'plus_yearly' $$),
  '{plus_yearly}',
  'an archived price is not on offer'
);
select is(
  tests.hidden_by($$ update billing.prices set is_listed = false where key = 'plus_yearly' $$),
  '{plus_yearly}',
  'a price off the list is not on offer'
);
select is(
  tests.hidden_by($$ update billing.prices set key = null where key = 'plus_yearly' $$),
  '{plus_yearly}',
  'a price without a name is not on offer'
);
select is(
  tests.hidden_by($$
    update billing.prices set billing_interval = null where key = 'plus_yearly'
  $$),
  '{plus_yearly}',
  'a one-time price is not on offer'
);
select is(
  tests.hidden_by($$ update billing.prices set plan_id = null where key = 'plus_yearly' $$),
  '{plus_yearly}',
  'a price without a plan is not on offer'
);
select is(
  tests.hidden_by($$ update billing.stores set is_active = false $$),
  '{owl_monthly}',
  'a closed store offers nothing; the platform goes on'
);
select is(
  tests.hidden_by($$ update billing.prices set stripe_price_id = null where key = 'plus_yearly' $$),
  '{}',
  'a price Stripe does not know yet is on offer'
);
select is(
  tests.hidden_by($$ delete from billing.plan_features $$),
  '{}',
  'a plan without features is on offer'
);

-- ---- a member, the service --------------------------------------------------

select tests.sign_in('ann');
select is(
  (select count(*) from billing.list_plans()), 6::bigint,
  'a member sees the same offers'
);
select is(
  (select count(*) from billing.plan_offers), 6::bigint,
  'also in the view'
);
select throws_ok(
  $$ update billing.prices set unit_amount_minor = 1 $$,
  '42501', 'permission denied for table prices',
  'and cannot change what they cost'
);

select tests.be_service();
select is(
  (select count(*) from billing.list_plans()), 6::bigint,
  'the service is offered the same'
);

select tests.be_owner();
update billing.plans set is_listed = false where key = 'plus';
select tests.be_service();
select is(
  (select count(*) from billing.list_plans()), 3::bigint,
  'and no more, though it may read more'
);

-- ---- everybody --------------------------------------------------------------

select tests.be_owner();
select is(
  (
    select provolatile::text
    from pg_proc
    where oid = 'billing.list_plans(text, text)'::regprocedure
  ),
  's',
  'it only reads, so that a GET request may call it and a cache may answer'
);

select * from finish();
rollback;
