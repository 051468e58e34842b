-- billing_admin.add_administrator() and remove_administrator(): who may use billing_admin.
begin;
\ir ../helpers.psql
select plan(20);

select tests.set_time('2026-01-10');

create function pg_temp.administrators() returns text[]
language sql security definer as $$
  select coalesce(array_agg(format('%s %s', user_id, reason) order by added_at, reason), '{}')
  from billing_private.administrators;
$$;

-- ---- the first one ----------------------------------------------------------

select tests.be_service();
select lives_ok(
  $$ select billing_admin.add_administrator(md5('ada')::uuid, 'founder') $$,
  'the service makes the first administrator'
);
select is(
  pg_temp.administrators(), array[format('%s founder', md5('ada')::uuid)],
  'the administrator is listed with the reason'
);

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');
select lives_ok(
  $$ select * from billing_admin.tasks $$,
  'whoever was added may use billing_admin at once'
);
select lives_ok(
  $$ select billing_admin.add_administrator(md5('gil')::uuid, 'holiday cover') $$,
  'an administrator makes another one'
);
select lives_ok(
  $$ select billing_admin.add_administrator(md5('gil')::uuid, 'again') $$,
  'adding somebody twice is no error'
);
select is(
  pg_temp.administrators(),
  array[format('%s founder', md5('ada')::uuid), format('%s holiday cover', md5('gil')::uuid)],
  'adding somebody twice changes nothing'
);
select throws_ok(
  $$ select billing_admin.add_administrator(null, 'nobody') $$,
  'PT400', 'the request is not valid',
  'somebody has to be named'
);
select throws_ok(
  $$ select billing_admin.add_administrator(md5('eve')::uuid, null) $$,
  'PT400', 'the request is not valid',
  'a reason has to be given'
);
select is(
  cardinality(pg_temp.administrators()), 2, 'whoever was not added is not listed');

-- ---- a user -----------------------------------------------------------------

select tests.sign_in('eve');
select throws_ok(
  $$ select billing_admin.add_administrator(md5('eve')::uuid, 'because I can') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot make themself one'
);
select throws_ok(
  $$ select billing_admin.remove_administrator(md5('ada')::uuid, 'because I can') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot remove one'
);

-- ---- removing ---------------------------------------------------------------

select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.remove_administrator(md5('gil')::uuid, '  ') $$,
  'PT400', 'the request is not valid',
  'removing somebody needs a reason'
);
select lives_ok(
  $$ select billing_admin.remove_administrator(md5('gil')::uuid, 'back from holiday') $$,
  'an administrator removes another one'
);
select lives_ok(
  $$ select billing_admin.remove_administrator(md5('gil')::uuid, 'again') $$,
  'removing somebody twice is no error'
);
select is(
  pg_temp.administrators(), array[format('%s founder', md5('ada')::uuid)],
  'whoever was removed is not listed'
);
select tests.sign_in('gil');
select throws_ok(
  $$ select * from billing_admin.tasks $$,
  'PT403', 'this needs a billing administrator',
  'whoever was removed may use nothing of billing_admin from then on'
);

-- The last one may go: the service can always name a new one.
select tests.sign_in('ada');
select lives_ok(
  $$ select billing_admin.remove_administrator(md5('ada')::uuid, 'sold the shop') $$,
  'the last administrator may go'
);

-- ---- the audit --------------------------------------------------------------

select tests.be_service();
select results_eq(
  $$
    select operation, row_key, actor_id, actor_role, cause ->> 'kind', cause ->> 'reason'
    from billing_admin.audit_log
    where table_name = 'billing_private.administrators'
    order by id
  $$,
  $$
    values
      ('insert', md5('ada')::uuid::text, null::uuid, 'service_role', 'admin', 'founder'),
      ('insert', md5('gil')::uuid::text, md5('ada')::uuid, 'authenticated', 'admin',
        'holiday cover'),
      ('delete', md5('gil')::uuid::text, md5('ada')::uuid, 'authenticated', 'admin',
        'back from holiday'),
      ('delete', md5('ada')::uuid::text, md5('ada')::uuid, 'authenticated', 'admin',
        'sold the shop')
  $$,
  'the audit says who made whom an administrator, and why'
);
select results_eq(
  $$
    select after ->> 'action', after ->> 'subject', after ->> 'reason'
    from billing_admin.audit_log
    where table_name = 'billing_private.admin_actions'
    order by id
    limit 2
  $$,
  $$
    values
      ('add_administrator', md5('ada')::uuid::text, 'founder'),
      ('add_administrator', md5('gil')::uuid::text, 'holiday cover')
  $$,
  'the audit names the action itself'
);
select is(
  (
    select count(*)
    from billing_admin.audit_log
    where table_name = 'billing_private.admin_actions'
  ),
  6::bigint,
  'an action that changed nothing is in the audit, one that was refused is not'
);

select * from finish();
rollback;
