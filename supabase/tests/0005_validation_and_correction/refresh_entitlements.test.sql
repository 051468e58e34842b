-- billing_private.refresh_entitlements(): the only writer of entitlements; writes differences
-- alone.
begin;
\ir ../helpers.psql
select plan(20);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');
select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_basic_monthly');

-- Where each row stands: a row that is written again stands elsewhere, even with the same content.
create function pg_temp.places() returns text[]
language sql as $$
  select array_agg(place order by place)
  from (
    select 'entitlement ' || ctid::text from billing.entitlements
    union all
    select 'profile ' || ctid::text from billing.profiles
  ) as places (place);
$$;

create function pg_temp.history_of(p_name text) returns text[]
language sql as $$
  select coalesce(array_agg(
    format(
      '%s %s %s-%s', feature_key, coalesce(limit_value::text, '∞'), recorded_at::date,
      replaced_at::date)
    order by recorded_at, feature_key), '{}')
  from billing_private.entitlement_history
  where account_id = md5(p_name)::uuid;
$$;

-- ---- what it does not write -------------------------------------------------

create temporary table before as select pg_temp.places() as places;
select tests.set_time('2026-01-11');
select billing_private.refresh_entitlements(array[md5('ann')::uuid, md5('bob')::uuid]);

select is(
  pg_temp.places(), (select places from before),
  'what is in step is not written again'
);
select is(pg_temp.history_of('ann'), '{}', 'nothing changed, nothing is remembered');
select is(
  (select distinct recorded_at from billing.entitlements), '2026-01-10'::timestamptz,
  'each row says since when it has been so'
);

select tests.deliver(
  'evt_same', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
    '{"metadata": {"a": "b"}}'));

select is(
  pg_temp.places(), (select places from before),
  'an event that changes nothing of access writes nothing'
);

-- ---- what it writes ---------------------------------------------------------

update billing.plan_features set limit_value = 20
where plan_id = md5('plus')::uuid and feature_key = 'clubs';

select is(
  (
    select array_agg(format('%s %s', feature_key, recorded_at::date) order by feature_key)
    from billing.entitlements
    where account_id = md5('ann')::uuid
  ),
  array['clubs 2026-01-11', 'premium 2026-01-10'],
  'only the row that differs is written'
);
select is(
  pg_temp.history_of('ann'), array['clubs 10 2026-01-10-2026-01-11'],
  'what it said before is remembered, from when until when'
);
select is(pg_temp.history_of('bob'), '{}', 'nothing of anybody else is written');

select tests.set_time('2026-01-12');
select tests.deliver(
  'evt_down', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('ann', 'active', '2026-01-10', 'price_basic_monthly'));

select is(
  (
    select array_agg(
      format('%s %s %s', feature_key, limit_value, plan_id = md5('basic')::uuid)
      order by feature_key)
    from billing.entitlements
    where account_id = md5('ann')::uuid
  ),
  array['clubs 3 t'],
  'a row whose source gives it no more is removed, one that says something new is replaced'
);
select is(
  pg_temp.history_of('ann'),
  array[
    'clubs 10 2026-01-10-2026-01-11', 'premium ∞ 2026-01-10-2026-01-12',
    'clubs 20 2026-01-11-2026-01-12'],
  'removed and replaced rows are remembered'
);

-- ---- elapsed rows -----------------------------------------------------------

select tests.set_time('2026-03-01');
select billing_private.refresh_entitlements(array[md5('bob')::uuid]);

select is_empty(
  $$ select * from billing.entitlements where account_id = md5('bob')::uuid $$,
  'a row whose end has passed is removed'
);
select is(
  pg_temp.history_of('bob'), array['clubs 3 2026-01-10-2026-03-01'],
  'it is remembered as it was'
);

-- ---- of some features -------------------------------------------------------

select tests.account('eve');
select tests.subscribe('eve', 'active', '2026-03-01');
update billing.entitlements set limit_value = 77 where account_id = md5('eve')::uuid;
create temporary table disagreeing as
select feature_key from billing.entitlements where account_id = md5('eve')::uuid;
select billing_private.refresh_entitlements(array[md5('eve')::uuid], '{clubs}');
select set_eq(
  $$
    select feature_key from billing.entitlements
    where account_id = md5('eve')::uuid and limit_value = 77
  $$,
  $$ select feature_key from disagreeing where feature_key <> 'clubs' $$,
  'only the features it is asked for are brought in step'
);
select cmp_ok(
  (select count(*) from disagreeing), '>', 1::bigint, 'of those there are some'
);
select billing_private.refresh_entitlements(array[md5('eve')::uuid]);
select is_empty(
  $$
    select * from billing.entitlements
    where account_id = md5('eve')::uuid and limit_value = 77
  $$,
  'all are where it is asked for none'
);

-- ---- odd arguments ----------------------------------------------------------

select lives_ok(
  $$ select billing_private.refresh_entitlements('{}') $$,
  'no account at all is no error'
);
select lives_ok(
  $$
    select billing_private.refresh_entitlements(array[md5('nobody')::uuid, md5('nobody')::uuid])
  $$,
  'an account that does not exist, twice, is no error'
);

-- ---- who may ----------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing_private.refresh_entitlements(array[md5('ann')::uuid]) $$,
  '42501', 'permission denied for schema billing_private',
  'a member cannot call it'
);
select throws_ok(
  $$ update billing.entitlements set valid_until = 'infinity' $$,
  '42501', 'permission denied for table entitlements',
  'a member cannot write an entitlement'
);

select tests.be_service();
select throws_ok(
  $$ select billing_private.refresh_entitlements(array[md5('ann')::uuid]) $$,
  '42501', 'permission denied for schema billing_private',
  'the service cannot call it'
);
select throws_ok(
  $$ insert into billing.entitlements select * from billing.entitlements $$,
  '42501', 'permission denied for table entitlements',
  'the service cannot write an entitlement'
);

select * from finish();
rollback;
