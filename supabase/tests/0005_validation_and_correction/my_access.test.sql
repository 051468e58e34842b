-- billing.my_access(): tier, features and limits in one call.
begin;
\ir ../helpers.psql
select plan(14);

select tests.catalog();
select tests.set_time('2026-01-10 00:00:00.25');
select tests.account('ann');
select tests.subscribe('ann');
insert into billing.entitlement_grants
  (account_id, feature_key, kind, limit_value, valid_from, reason)
values
  (md5('ann')::uuid, 'clubs', 'gift', 4, '2026-01-10', 'a gift'),
  (md5('ann')::uuid, 'hosting', 'gift', null, '2026-01-10', 'a gift');

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');

select is(
  (select array[membership_tier, tier_rank::text, access_until::text] from billing.my_access()),
  array['plus', '20', 'infinity'],
  'a member sees tier and end at once'
);
select is(
  (select array[features #>> '{clubs,access}', features #>> '{clubs,limit}',
    (features #>> '{clubs,until}')::timestamptz::text] from billing.my_access()),
  array['full', '10', null],
  'each feature has its best limit, and no end where one of its sources has none'
);
select is(
  (select features #>> '{premium,until}' from billing.my_access())::timestamptz,
  '2026-02-10 03:00'::timestamptz,
  'each feature has the end of its last source'
);
select is(
  (select features #> '{hosting,limit}' from billing.my_access()), 'null'::jsonb,
  'no limit is null'
);
select results_eq(
  $$ select * from billing.my_access(md5('ann')::uuid) $$,
  $$ select * from billing.my_access() $$,
  'naming the own account gives the same'
);
select is(
  (select version from billing.my_access()), 1768003200250,
  'the version is when access changed last'
);

-- ---- what is used -----------------------------------------------------------

select tests.be_owner();
insert into billing.features (key, name, kind) values ('exports', 'Exports', 'metered');
insert into billing.plan_features (plan_id, feature_key, limit_value)
values (md5('plus')::uuid, 'exports', 100);
insert into billing.usage_totals (account_id, feature_key, period_start, period_end, used) values
  (md5('ann')::uuid, 'clubs', '-infinity', 'infinity', 3),
  (md5('ann')::uuid, 'exports', '2025-12-10', '2026-01-10', 99),
  (md5('ann')::uuid, 'exports', '2026-01-10', '2026-02-10', 7);
select tests.sign_in('ann');
select is(
  (
    select array[
      features #>> '{clubs,used}', features #>> '{clubs,resets_at}', features #>> '{exports,used}',
      features #>> '{exports,resets_at}', features #>> '{exports,limit}',
      features #>> '{premium,used}']
    from billing.my_access()
  ),
  array['3', null, '7', '2026-02-10T00:00:00+00:00', '100', null],
  'of what is counted it says how much is used, and when that begins anew'
);
select tests.be_owner();
delete from billing.usage_totals where account_id = md5('ann')::uuid;
select is(
  (
    select array[features #>> '{exports,used}', features #>> '{exports,resets_at}']
    from billing.my_access(md5('ann')::uuid)
  ),
  array['0', '2026-02-10T00:00:00+00:00'],
  'before the first use nothing is used, of the same period'
);

-- ---- what changes it --------------------------------------------------------

select tests.be_owner();
select tests.set_time('2026-01-11');
update billing.entitlement_grants set revoked_at = billing_private.now(), revoked_reason = 'over'
where limit_value = 4;
select is(
  (select version from billing.my_access(md5('ann')::uuid)), 1768089600000,
  'the version grows also where neither tier nor features changed'
);
select is(
  (
    select array_agg(key order by key)
    from billing.my_access(md5('ann')::uuid)
    cross join jsonb_object_keys(features) as key
    where features #>> array[key, 'access'] = 'full'
  ),
  array['clubs', 'exports', 'hosting', 'premium'],
  'every feature is there'
);

select tests.set_time('2026-02-10 03:00:00');
select is(
  (
    select array[membership_tier, tier_rank::text, features::text]
    from billing.my_access(md5('ann')::uuid)
  ),
  array[null, '0', '{"hosting": {"limit": null, "until": null, "access": "full"}}'],
  'on the second the plan ends, its tier and features are gone, with no job run'
);

-- ---- a newcomer, a stranger, a visitor --------------------------------------

select tests.sign_in('newcomer');
select results_eq(
  $$ select * from billing.my_access() $$,
  $$
    values (
      md5('newcomer')::uuid, null::text, 0, null::timestamptz, '{}'::jsonb, 0::bigint)
  $$,
  'whoever never came near billing has a row that says so'
);
select is_empty(
  $$ select * from billing.my_access(md5('ann')::uuid) $$,
  'a stranger learns nothing'
);
select tests.sign_out();
select is_empty(
  $$ select * from billing.my_access() union all select * from billing.my_access(md5('ann')::uuid) $$,
  'a visitor is told nothing, and no error'
);

select * from finish();
rollback;
