-- billing.entitlement_grants, entitlements and profiles: what can be stored of access.
begin;
\ir ../helpers.psql
select plan(26);

select tests.catalog();
select tests.set_time('2026-01-10');
select billing_private.ensure_account(md5('ann')::uuid);

-- ---- grants -----------------------------------------------------------------

prepare add_grant(text, bigint, timestamptz, timestamptz, text) as
insert into billing.entitlement_grants
  (account_id, feature_key, limit_value, valid_from, valid_until, reason)
values (md5('ann')::uuid, $1, $2, $3, $4, $5);

select lives_ok(
  $$ execute add_grant('clubs', 5, '2026-01-10', '2026-01-10 00:00:01', 'a second of clubs') $$,
  'a grant may last a second'
);

select throws_ok(
  $$ execute add_grant('clubs', 5, '2026-01-10', '2026-01-10', 'nothing') $$,
  '23514', 'new row for relation "entitlement_grants" violates check constraint '
    '"entitlement_grants_interval_is_ordered"',
  'but not no time at all'
);

select throws_ok(
  $$ execute add_grant('clubs', 5, '2026-01-10', '2026-01-09', 'backwards') $$,
  '23514', 'new row for relation "entitlement_grants" violates check constraint '
    '"entitlement_grants_interval_is_ordered"',
  'a grant does not end before it begins'
);

select lives_ok(
  $$ execute add_grant('clubs', 0, '2026-01-10', '2026-02-10', 'none of it') $$,
  'a grant may be for none of a limited feature'
);

select throws_ok(
  $$ execute add_grant('clubs', -1, '2026-01-10', '2026-02-10', 'less') $$,
  '23514', 'new row for relation "entitlement_grants" violates check constraint '
    '"entitlement_grants_limit_is_not_negative"',
  'but not for less than none'
);

select lives_ok(
  $$ execute add_grant('premium', null, '2026-01-10', 'infinity', 'for good') $$,
  'a grant may be unlimited, and never end'
);

select throws_ok(
  $$ execute add_grant('premium', null, '2026-01-10', 'infinity', '') $$,
  '23514', 'new row for relation "entitlement_grants" violates check constraint '
    '"entitlement_grants_reason_is_given"',
  'a grant has a reason'
);

select throws_ok(
  $$ execute add_grant('yachts', null, '2026-01-10', 'infinity', 'why not') $$,
  '23503', 'insert or update on table "entitlement_grants" violates foreign key constraint '
    '"entitlement_grants_feature_key_fkey"',
  'a grant is of something there is'
);

insert into billing.entitlement_grants (id, account_id, feature_key, valid_from, reason)
values (md5('gift')::uuid, md5('ann')::uuid, 'hosting', '2026-01-10', 'a gift');
select row_eq(
  $$
    select limit_value, valid_until, revoked_at, created_at
    from billing.entitlement_grants
    where id = md5('gift')::uuid
  $$,
  row(null::bigint, 'infinity'::timestamptz, null::timestamptz, '2026-01-10'::timestamptz),
  'a grant is unlimited, for good, and made now, unless it says otherwise'
);

select throws_like(
  $$ delete from billing.features where key = 'hosting' $$,
  '%_feature_key_fkey"%',
  'a feature that was given is not deleted'
);

select throws_like(
  $$ delete from billing.accounts where id = md5('ann')::uuid $$,
  '%violates%foreign key constraint%',
  'nor an account that was given something'
);

-- ---- entitlements -----------------------------------------------------------

delete from billing.entitlements;

prepare add_entitlement(text, text, timestamptz, timestamptz) as
insert into billing.entitlements
  (account_id, feature_key, source_kind, source_id, valid_from, valid_until)
values (md5('ann')::uuid, 'premium', $1, md5($2)::uuid, $3, $4);

select lives_ok(
  $$ execute add_entitlement('grant', 'one', '2026-01-10', '2026-02-10') $$,
  'a grant gives a feature for an interval'
);

select lives_ok(
  $$ execute add_entitlement('subscription_item', 'one', '2026-01-10', 'infinity') $$,
  'so does an item of a subscription'
);

select lives_ok(
  $$ execute add_entitlement('grant', 'two', '2026-01-10', '2026-02-10') $$,
  'several sources may give one feature'
);

select throws_ok(
  $$ execute add_entitlement('grant', 'one', '2026-01-10', '2026-04-10') $$,
  '23505', 'duplicate key value violates unique constraint "entitlements_pkey"',
  'each source once'
);

select throws_ok(
  $$ execute add_entitlement('rumour', 'one', '2026-01-10', '2026-02-10') $$,
  '23514', 'new row for relation "entitlements" violates check constraint '
    '"entitlements_source_is_known"',
  'nothing else gives access'
);

select throws_ok(
  $$ execute add_entitlement('grant', 'three', '2026-01-10', '2026-01-10') $$,
  '23514', 'new row for relation "entitlements" violates check constraint '
    '"entitlements_interval_is_ordered"',
  'an entitlement of no time is none'
);

select throws_ok(
  $$ execute add_entitlement('grant', 'three', '2026-01-10', null) $$,
  '23502', 'null value in column "valid_until" of relation "entitlements" violates not-null '
    'constraint',
  'every entitlement has an end, if only infinity'
);

select is(
  (select max(recorded_at) from billing.entitlements), '2026-01-10'::timestamptz,
  'an entitlement says since when it is there'
);

-- ---- profiles ---------------------------------------------------------------

insert into billing.accounts (id) values (md5('new')::uuid);
insert into billing.profiles (account_id) values (md5('new')::uuid);
select row_eq(
  $$
    select membership_tier, tier_rank, features, access_until
    from billing.profiles
    where account_id = md5('new')::uuid
  $$,
  row(null::text, 0, '{}'::text[], null::timestamptz),
  'a profile begins without tier, features and access'
);

select throws_ok(
  $$ insert into billing.profiles (account_id) values (md5('new')::uuid) $$,
  '23505', 'duplicate key value violates unique constraint "profiles_pkey"',
  'an account has one profile'
);

select throws_ok(
  $$ insert into billing.profiles (account_id) values (md5('nobody')::uuid) $$,
  '23503', 'insert or update on table "profiles" violates foreign key constraint '
    '"profiles_account_id_fkey"',
  'a profile is some account''s'
);

-- ---- members ----------------------------------------------------------------

select tests.sign_in('ann');

select throws_ok(
  $$ execute add_entitlement('grant', 'self', '2026-01-10', 'infinity') $$,
  '42501', 'permission denied for table entitlements',
  'a member gives themselves nothing'
);

select throws_ok(
  $$ execute add_grant('premium', null, '2026-01-10', 'infinity', 'because I can') $$,
  '42501', 'permission denied for table entitlement_grants',
  'neither directly nor by a grant'
);

select throws_ok(
  $$ update billing.profiles set features = '{premium}' $$,
  '42501', 'permission denied for table profiles',
  'nor on their profile'
);

select throws_ok(
  'select from billing_private.entitlement_history',
  '42501', 'permission denied for schema billing_private',
  'what access was before is for explain_entitlement() to tell'
);

select * from finish();
rollback;
