-- billing_private.refresh_elapsed(): brings stored state in step where the clock alone changed
-- access.
begin;
\ir ../helpers.psql
select plan(13);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');
select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_basic_monthly');
select tests.account('iris');
insert into billing.entitlement_grants (account_id, feature_key, valid_from, valid_until, reason)
values (md5('iris')::uuid, 'premium', '2026-01-20', '2026-04-01', 'a fair');

-- ---- before anything runs out -----------------------------------------------

select tests.set_time('2026-01-19 23:59:59');
select is(
  billing_private.refresh_elapsed(100), 0::bigint,
  'while nothing has begun or ended there is nothing to do'
);

-- ---- what begins ------------------------------------------------------------

select tests.set_time('2026-01-20 00:00:00');
select ok(
  billing.has_entitlement('premium', md5('iris')::uuid),
  'access begins by itself'
);
select is(billing_private.refresh_elapsed(100), 1::bigint, 'what began is found in its second');
select is(
  (select features from billing.profiles where account_id = md5('iris')::uuid),
  array['premium'],
  'the profile shows what began'
);
select is(billing_private.refresh_elapsed(100), 0::bigint, 'a second run finds nothing left');

-- ---- what ends --------------------------------------------------------------

select tests.set_time('2026-02-10 02:59:59');
select is(
  billing_private.refresh_elapsed(100), 0::bigint,
  'a row stays to its last second'
);

select tests.set_time('2026-02-10 03:00:00');
select is(
  billing_private.refresh_elapsed(1), 1::bigint,
  'no more accounts than asked for are done at a time'
);
select is(billing_private.refresh_elapsed(100), 1::bigint, 'the next run goes on with the rest');
select is(billing_private.refresh_elapsed(100), 0::bigint, 'then there is nothing left');
select is(
  (select array_agg(distinct account_id) from billing.entitlements), array[md5('iris')::uuid],
  'what ran out is gone, what did not is there'
);
select is(
  (
    select array_agg(features::text)
    from billing.profiles
    where account_id in (md5('ann')::uuid, md5('bob')::uuid)
  ),
  array['{}', '{}'],
  'the profiles show that it is gone'
);
select is(
  (
    select count(*)
    from billing_private.entitlement_history
    where replaced_at = '2026-02-10 03:00:00'
  ),
  3::bigint,
  'what ran out is remembered'
);

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select billing_private.refresh_elapsed(100) $$,
  '42501', 'permission denied for schema billing_private',
  'the service leaves it to the heartbeat'
);

select * from finish();
rollback;
