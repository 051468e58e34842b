-- billing_admin.entitlement_drift and correct_entitlements(): what disagrees with its sources,
-- repaired.
begin;
\ir ../helpers.psql
select plan(20);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
select tests.subscribe('ann');
select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_basic_monthly');

-- ---- the normal state -------------------------------------------------------

select tests.sign_in('ada');
select is_empty(
  $$ select * from billing_admin.entitlement_drift $$,
  'untouched, nothing disagrees'
);
select is(
  billing_admin.correct_entitlements('to be sure'), 0::bigint,
  'where nothing disagrees there is nothing to correct'
);

-- ---- drift ------------------------------------------------------------------

select tests.be_owner();
delete from billing.entitlements where account_id = md5('ann')::uuid and feature_key = 'premium';
update billing.entitlements set limit_value = 1000 where account_id = md5('bob')::uuid;
insert into billing.entitlements
  (account_id, feature_key, source_kind, source_id, valid_from, valid_until)
values (md5('bob')::uuid, 'hosting', 'grant', md5('none')::uuid, '2026-01-10', 'infinity');

select tests.sign_in('ada');
select results_eq(
  $$
    select account_id, feature_key, source_kind, problem, stored ->> 'limit_value',
      computed ->> 'limit_value'
    from billing_admin.entitlement_drift
    order by problem
  $$,
  $$
    values
      (md5('bob')::uuid, 'clubs', 'subscription_item', 'different', '1000', '3'),
      (md5('ann')::uuid, 'premium', 'subscription_item', 'missing', null, null),
      (md5('bob')::uuid, 'hosting', 'grant', 'surplus', null, null)
  $$,
  'the view shows what disagrees: whose, which, what is stored and what should be'
);

-- ---- a rolled-back correction -----------------------------------------------

select tests.be_owner();
create temporary table before as
select
  (select count(*) from billing_private.audit_log) as audited,
  (select count(*) from billing_private.admin_actions) as actions;
grant select on before to public;
savepoint correction;
select tests.sign_in('ada');
select billing_admin.correct_entitlements('a try') > 0 as corrected;
rollback to correction;
select results_eq(
  $$
    select
      (select count(*) from billing_private.audit_log),
      (select count(*) from billing_private.admin_actions)
  $$,
  'select * from before',
  'a correction that is rolled back has happened nowhere, not even in the audit'
);
select is(
  (select count(*) from billing_private.entitlement_corrections), 0::bigint,
  'nor in the log of corrections'
);

-- ---- one account ------------------------------------------------------------

select tests.sign_in('ada');
select is(
  billing_admin.correct_entitlements('complaint 17', md5('ann')::uuid), 1::bigint,
  'one account is corrected by itself'
);
select is(
  (select count(*) from billing_admin.entitlement_drift), 2::bigint,
  'the others are as they were'
);

-- ---- all --------------------------------------------------------------------

select is(
  billing_admin.correct_entitlements('spring cleaning'), 2::bigint,
  'without an account all are corrected'
);
select is_empty(
  $$ select * from billing_admin.entitlement_drift $$,
  'then nothing disagrees any more'
);
select is(
  billing_admin.correct_entitlements('spring cleaning'), 0::bigint,
  'corrected twice is corrected once'
);
select tests.sign_in('ann');
select ok(billing.has_entitlement('premium'), 'the member has back what was missing');
select tests.sign_in('bob');
select ok(not billing.has_entitlement('hosting'), 'the member has lost what was surplus');

-- ---- errors -----------------------------------------------------------------

select throws_ok(
  $$ select billing_admin.correct_entitlements('my own', md5('bob')::uuid) $$,
  'PT403', 'this needs a billing administrator',
  'a member cannot correct, not even the own account'
);
select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.correct_entitlements(null) $$,
  'PT400', 'the request is not valid',
  'a correction needs a reason'
);
select throws_ok(
  $$ select billing_admin.correct_entitlements('a typo', md5('nobody')::uuid) $$,
  'PT404', 'there is no such account',
  'an account that does not exist cannot be corrected'
);

-- ---- log, history and audit -------------------------------------------------

select tests.be_owner();
select results_eq(
  $$
    select feature_key, problem, cause ->> 'kind', cause ->> 'reason'
    from billing_private.entitlement_corrections
    order by problem
  $$,
  $$
    values
      ('clubs', 'different', 'admin', 'spring cleaning'),
      ('premium', 'missing', 'admin', 'complaint 17'),
      ('hosting', 'surplus', 'admin', 'spring cleaning')
  $$,
  'each correction is logged with its reason'
);
select results_eq(
  $$
    select operation, before ->> 'limit_value', after ->> 'limit_value', actor_id
    from billing_private.audit_log
    where table_name = 'billing.entitlements' and cause ->> 'reason' = 'spring cleaning'
    order by operation desc
  $$,
  $$
    values
      ('update', '1000', '3', md5('ada')::uuid),
      ('delete', null, null, md5('ada')::uuid)
  $$,
  'the audit says what was corrected, by whom'
);
select is(
  (
    select array_agg(format('%s %s', reason, coalesce(subject, 'everybody')) order by id)
    from billing_private.admin_actions
  ),
  array[
    'to be sure everybody', format('complaint 17 %s', md5('ann')::uuid),
    'spring cleaning everybody', 'spring cleaning everybody'],
  'every correction is on record, also one that found nothing'
);

-- ---- the service, a visitor -------------------------------------------------

select tests.be_service();
select is(billing_admin.correct_entitlements('nightly'), 0::bigint, 'the service may correct');
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.correct_entitlements('hello') $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot'
);

select * from finish();
rollback;
