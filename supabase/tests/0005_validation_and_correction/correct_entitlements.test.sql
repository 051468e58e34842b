-- billing_private.correct_entitlements(): repairs what disagrees with its sources, and logs
-- each row.
begin;
\ir ../helpers.psql
select plan(18);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');
select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_basic_monthly');
create temporary table sound as
select
  account_id, feature_key, source_kind, source_id, plan_id, limit_value, valid_from, valid_until
from billing.entitlements;

create function pg_temp.both() returns uuid[]
language sql as $$
  select array[md5('ann')::uuid, md5('bob')::uuid];
$$;

-- ---- nothing to do ----------------------------------------------------------

select is(
  billing_private.correct_entitlements(pg_temp.both()), 0::bigint,
  'where nothing disagrees, nothing is corrected'
);
select is_empty(
  $$ select * from billing_private.entitlement_corrections $$,
  'where nothing disagrees, nothing is logged'
);
select is(
  billing_private.correct_entitlements('{}'), 0::bigint,
  'no accounts, no corrections'
);

-- ---- three kinds of drift ---------------------------------------------------

select tests.set_time('2026-01-12');
delete from billing.entitlements where account_id = md5('ann')::uuid and feature_key = 'premium';
update billing.entitlements set limit_value = 1000
where account_id = md5('ann')::uuid and feature_key = 'clubs';
insert into billing.entitlements
  (account_id, feature_key, source_kind, source_id, valid_from, valid_until)
values (md5('bob')::uuid, 'hosting', 'grant', md5('none')::uuid, '2026-01-10', 'infinity');
update billing.profiles set features = '{hosting}', tier_rank = 7
where account_id = md5('bob')::uuid;

select billing_private.set_cause('admin', 'ada', 'complaint 17');
select is(
  billing_private.correct_entitlements(array[md5('ann')::uuid]), 2::bigint,
  'it corrects the accounts it is asked for, and says how many rows'
);
select ok(
  billing.has_entitlement('hosting', md5('bob')::uuid),
  'it leaves other accounts as they are'
);
select is(
  billing_private.correct_entitlements(pg_temp.both()), 2::bigint,
  'asked for both, it corrects what is left'
);
select results_eq(
  $$
    select account_id, feature_key, source_kind, source_id, plan_id, limit_value, valid_from,
      valid_until
    from billing.entitlements
    order by account_id, feature_key
  $$,
  $$ select * from sound order by account_id, feature_key $$,
  'what is stored is again what the sources say'
);
select is(
  (
    select format('%s %s %s', membership_tier, tier_rank, features)
    from billing.profiles
    where account_id = md5('bob')::uuid
  ),
  'basic 10 {clubs}',
  'the profile is in step too'
);

-- ---- the log ----------------------------------------------------------------

select results_eq(
  $$
    select account_id, feature_key, problem, before ->> 'limit_value', after ->> 'limit_value'
    from billing_private.entitlement_corrections
    order by problem, feature_key
  $$,
  $$
    values
      (md5('ann')::uuid, 'clubs', 'different', '1000', '10'),
      (md5('bob')::uuid, null, 'different', null, null),
      (md5('ann')::uuid, 'premium', 'missing', null, null),
      (md5('bob')::uuid, 'hosting', 'surplus', null, null)
  $$,
  'each correction is logged: whose, which feature, what was wrong'
);
select results_eq(
  $$
    select problem, before ->> 'valid_until', after ->> 'valid_until'
    from billing_private.entitlement_corrections
    where feature_key is not null
    order by problem
  $$,
  $$
    values
      ('different', '2026-02-10T03:00:00+00:00', '2026-02-10T03:00:00+00:00'),
      ('missing', null, '2026-02-10T03:00:00+00:00'),
      ('surplus', 'infinity', null)
  $$,
  'each correction is logged with what was stored before and what after'
);
select results_eq(
  $$
    select before ->> 'features', after ->> 'features'
    from billing_private.entitlement_corrections
    where feature_key is null
  $$,
  $$ values ('["hosting"]', '["clubs"]') $$,
  'so is the profile'
);
select is(
  (select array_agg(distinct corrected_at) from billing_private.entitlement_corrections),
  array['2026-01-12'::timestamptz],
  'each correction is logged with its time'
);
select is(
  (select array_agg(distinct cause ->> 'reason') from billing_private.entitlement_corrections),
  array['complaint 17'],
  'each correction is logged with its reason'
);
select is(
  (
    select array_agg(feature_key order by feature_key)
    from billing_private.entitlement_history
    where replaced_at = '2026-01-12'
  ),
  array['clubs', 'hosting'],
  'wrong access was access: the history remembers it'
);

-- ---- twice ------------------------------------------------------------------

select is(
  billing_private.correct_entitlements(pg_temp.both()), 0::bigint,
  'corrected twice is corrected once'
);
select is(
  (select count(*) from billing_private.entitlement_corrections), 4::bigint,
  'corrected twice is logged once'
);

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select billing_private.correct_entitlements(array[md5('ann')::uuid]) $$,
  '42501', 'permission denied for schema billing_private',
  'the service corrects through the RPC, with a reason'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing_private.correct_entitlements(array[md5('ann')::uuid]) $$,
  '42501', 'permission denied for schema billing_private',
  'a member cannot'
);

select * from finish();
rollback;
