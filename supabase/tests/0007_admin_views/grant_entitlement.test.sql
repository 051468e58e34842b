-- billing_admin.grant_entitlement() and revoke_entitlement(): a feature by hand, and back.
begin;
\ir ../helpers.psql
select plan(43);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
insert into auth.users (id, email) values (md5('newcomer')::uuid, 'newcomer@example.com');

create temporary table given (name text, id uuid);
grant all on given to public;

create function pg_temp.has(p_name text, p_feature text) returns boolean
language sql security definer as $$
  select exists (
    select
    from billing.current_entitlements
    where account_id = md5(p_name)::uuid and feature_key = p_feature
  );
$$;

-- ---- an administrator grants ------------------------------------------------

select tests.sign_in('ada');
select row_eq(
  $$
    select account_id, feature_key, limit_value, valid_from, valid_until, reason, granted_by,
      revoked_at
    from billing_admin.grant_entitlement(
      md5('ann')::uuid, 'premium', 'lost a week', '2026-01-17 12:00')
  $$,
  row(
    md5('ann')::uuid, 'premium'::text, null::bigint, '2026-01-10'::timestamptz,
    '2026-01-17 12:00'::timestamptz, 'lost a week'::text, md5('ada')::uuid, null::timestamptz),
  'a grant begins now and says who gave it, until when, and why'
);
select ok(pg_temp.has('ann', 'premium'), 'the feature is there in the same transaction');
select tests.set_time('2026-01-17 11:59:59');
select ok(pg_temp.has('ann', 'premium'), 'it lasts to its last second');
select tests.set_time('2026-01-17 12:00:00');
select ok(not pg_temp.has('ann', 'premium'), 'it ends by itself');

select tests.set_time('2026-01-20');
insert into given
select 'clubs', id
from billing_admin.grant_entitlement(
  md5('ann')::uuid, 'clubs', 'a fair', limit_value => 7);
select is(
  (
    select valid_until
    from billing_admin.grant_entitlement(md5('ann')::uuid, 'hosting', 'a founder')
  ),
  'infinity'::timestamptz,
  'a grant without an end lasts'
);
select tests.sign_in('ann');
select is(
  (select limit_value from billing.my_entitlements() where feature_key = 'clubs'), 7::bigint,
  'a grant may carry a limit'
);
select tests.sign_in('ada');

-- ---- twice ------------------------------------------------------------------

insert into given
select 'twice', id from billing_admin.grant_entitlement(md5('ann')::uuid, 'premium', 'once');
insert into given
select 'twice', id from billing_admin.grant_entitlement(md5('ann')::uuid, 'premium', 'and again');
select is(
  (select count(distinct id) from given where name = 'twice'), 2::bigint,
  'two grants are two grants, each to be revoked by itself'
);

-- ---- whom -------------------------------------------------------------------

select is(
  (
    select account_id
    from billing_admin.grant_entitlement(md5('newcomer')::uuid, 'premium', 'a welcome')
  ),
  md5('newcomer')::uuid,
  'a user who never came near billing gets an account with the first grant'
);
select ok(pg_temp.has('newcomer', 'premium'), 'and the feature');
select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('nobody')::uuid, 'premium', 'a gift') $$,
  'PT404', 'there is no such account',
  'somebody who is neither a user nor an account gets nothing'
);
select throws_ok(
  $$ select billing_admin.grant_entitlement(null, 'premium', 'a gift') $$,
  'PT404', 'there is no such account',
  'nobody gets nothing'
);

-- ---- what -------------------------------------------------------------------

select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('ann')::uuid, 'no_such_feature', 'a gift') $$,
  'PT404', 'there is no such feature',
  'an unknown feature cannot be granted'
);
select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('ann')::uuid, null, 'a gift') $$,
  'PT404', 'there is no such feature',
  'no feature cannot be granted'
);
select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('ann')::uuid, 'premium', 'a gift', '2026-01-20') $$,
  'PT400', 'the request is not valid',
  'a grant cannot end now'
);
select lives_ok(
  $$
    select billing_admin.grant_entitlement(
      md5('ann')::uuid, 'premium', 'a second', '2026-01-20 00:00:01')
  $$,
  'a grant may end in a second'
);
select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('ann')::uuid, 'clubs', 'a gift', null, -1) $$,
  'PT400', 'the request is not valid',
  'a limit cannot be negative'
);
select throws_ok(
  $$
    select billing_admin.grant_entitlement(
      md5('ann')::uuid, 'premium', 'a gift', kind => 'bribe')
  $$,
  'PT400', 'the request is not valid',
  'a grant is of a kind that is known'
);
select throws_ok(
  $$
    select billing_admin.grant_entitlement(
      md5('ann')::uuid, 'premium', 'a gift', valid_from => '2026-01-19 23:59:59')
  $$,
  'PT400', 'the request is not valid',
  'a grant does not rewrite the past'
);
select throws_ok(
  $$
    select billing_admin.grant_entitlement(
      md5('ann')::uuid, 'premium', 'a gift', '2026-02-01', valid_from => '2026-02-01')
  $$,
  'PT400', 'the request is not valid',
  'a grant does not end before it begins'
);
select is(
  (
    select kind
    from billing_admin.grant_entitlement(
      md5('newcomer')::uuid, 'hosting', 'two weeks more', '2026-02-14', null, 'trial_extension',
      '2026-01-31')
  ),
  'trial_extension',
  'a grant may begin later'
);
select ok(
  not billing.has_entitlement_at('hosting', '2026-01-30 23:59:59.999999', md5('newcomer')::uuid),
  'it gives nothing before its first instant'
);
select is(
  (
    select array_agg(reason)
    from billing.explain_entitlement('hosting', md5('newcomer')::uuid, '2026-01-31')
  ),
  array['trial_extension'],
  'from then on its kind is the reason'
);
select ok(
  not billing.has_entitlement_at('hosting', '2026-02-14', md5('newcomer')::uuid),
  'and it ends'
);
select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('ann')::uuid, 'premium', null) $$,
  'PT400', 'the request is not valid',
  'a grant needs a reason'
);

-- ---- an administrator revokes -----------------------------------------------

select tests.set_time('2026-01-21');
select row_eq(
  $$
    select revoked_at, revoked_reason, reason
    from billing_admin.revoke_entitlement(
      (select id from given where name = 'clubs'), 'the fair was called off')
  $$,
  row('2026-01-21'::timestamptz, 'the fair was called off'::text, 'a fair'::text),
  'a revoked grant says when and why, and why it was given'
);
select ok(not pg_temp.has('ann', 'clubs'), 'the feature is gone in the same transaction');
select ok(pg_temp.has('ann', 'hosting'), 'other grants stay');

select tests.set_time('2026-01-22');
select row_eq(
  $$
    select revoked_at, revoked_reason
    from billing_admin.revoke_entitlement((select id from given where name = 'clubs'), 'once more')
  $$,
  row('2026-01-21'::timestamptz, 'the fair was called off'::text),
  'revoking twice changes nothing more'
);
select lives_ok(
  $$
    select billing_admin.revoke_entitlement(
      (select id from given where name = 'twice' order by id limit 1), 'one is enough')
  $$,
  'one of two grants of a feature is revoked'
);
select ok(pg_temp.has('ann', 'premium'), 'the other still gives it');

select throws_ok(
  $$ select billing_admin.revoke_entitlement(md5('no such grant')::uuid, 'a mistake') $$,
  'PT404', 'there is no such grant',
  'a grant that does not exist cannot be revoked'
);
select throws_ok(
  $$ select billing_admin.revoke_entitlement(null, 'a mistake') $$,
  'PT404', 'there is no such grant',
  'no grant cannot be revoked'
);
select throws_ok(
  $$ select billing_admin.revoke_entitlement((select id from given limit 1), '') $$,
  'PT400', 'the request is not valid',
  'revoking needs a reason'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select is(
  (select granted_by from billing_admin.grant_entitlement(md5('ann')::uuid, 'clubs', 'a script')),
  null,
  'the service grants too, in nobody''s name'
);

-- ---- the member -------------------------------------------------------------

select tests.sign_in('ann');
select ok(billing.has_entitlement('premium'), 'the member has what was granted');
select is(
  (
    select array_agg(distinct reason)
    from billing.explain_entitlement('premium')
    where gives_access
  ),
  array['support'],
  'the member is told that it was granted'
);
select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('ann')::uuid, 'premium', 'I deserve it') $$,
  'PT403', 'this needs a billing administrator',
  'the member cannot grant'
);
select throws_ok(
  $$ select billing_admin.revoke_entitlement(md5('no such grant')::uuid, 'who knows') $$,
  'PT403', 'this needs a billing administrator',
  'the member cannot revoke, nor learn which grants exist'
);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();
select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('ann')::uuid, 'premium', 'hello') $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot grant'
);

-- ---- the audit --------------------------------------------------------------

select tests.be_owner();
select results_eq(
  $$
    select operation, actor_id, actor_role, cause
    from billing_private.audit_log
    where table_name = 'billing.entitlement_grants'
      and row_key = (select id::text from given where name = 'clubs')
    order by id
  $$,
  $$
    values
      ('insert', md5('ada')::uuid, 'authenticated', jsonb_build_object(
        'kind', 'admin', 'reference', md5('ada')::uuid, 'reason', 'a fair')),
      ('update', md5('ada')::uuid, 'authenticated', jsonb_build_object(
        'kind', 'admin', 'reference', md5('ada')::uuid, 'reason', 'the fair was called off'))
  $$,
  'the audit says who granted and revoked, and why; revoking twice is one change'
);
select results_eq(
  $$
    select operation, cause ->> 'reason'
    from billing_private.audit_log
    where table_name = 'billing.entitlements'
      and row_key like '%' || (select id::text from given where name = 'clubs') || ':full:%'
    order by id
  $$,
  $$ values ('insert', 'a fair'), ('delete', 'the fair was called off') $$,
  'the audit says why access came and went'
);
select is(
  (
    select array_agg(distinct format('%s %s', action, actor_role))
    from billing_private.admin_actions
  ),
  array[
    'grant_entitlement authenticated', 'grant_entitlement service_role',
    'revoke_entitlement authenticated'],
  'every action is on record with the role it was done in'
);
select is(
  (
    select cause ->> 'reference'
    from billing_private.audit_log
    where table_name = 'billing.entitlement_grants' and actor_role = 'service_role'
  ),
  'service_role',
  'what the service did is under its own name'
);

select * from finish();
rollback;
