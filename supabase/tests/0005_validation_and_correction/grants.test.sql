-- billing.entitlement_grants: features given by hand, from when until when, with which limit,
-- taken back.
begin;
\ir ../helpers.psql
select plan(22);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');

create function pg_temp.has(p_feature text, p_at timestamptz) returns boolean
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  return billing.has_entitlement(p_feature, md5('ann')::uuid);
end;
$$;

create function pg_temp.clubs() returns bigint
language sql as $$
  select limit_value
  from billing.my_entitlements(md5('ann')::uuid)
  where feature_key = 'clubs';
$$;

-- ---- start and end ----------------------------------------------------------

insert into billing.entitlement_grants
  (id, account_id, feature_key, valid_from, valid_until, reason)
values (
  md5('gift')::uuid, md5('ann')::uuid, 'premium', '2026-01-12 08:00', '2026-01-20 20:00', 'a gift');

select ok(
  not pg_temp.has('premium', '2026-01-12 07:59:59'),
  'a grant gives nothing before it begins'
);
select ok(
  pg_temp.has('premium', '2026-01-12 08:00:00'),
  'a grant begins on its second, with no job run'
);
select ok(
  pg_temp.has('premium', '2026-01-20 19:59:59'),
  'a grant lasts to the last second before its end'
);
select ok(
  not pg_temp.has('premium', '2026-01-20 20:00:00'),
  'a grant ends on its second, without grace'
);

select tests.set_time('2026-01-10');
insert into billing.entitlement_grants (id, account_id, feature_key, valid_from, reason)
values (md5('for ever')::uuid, md5('ann')::uuid, 'hosting', '2026-01-10', 'a founder');

select ok(pg_temp.has('hosting', '2126-01-10'), 'a grant without an end lasts');

-- ---- taken back -------------------------------------------------------------

select tests.set_time('2026-01-15');
select ok(pg_temp.has('premium', '2026-01-15'), 'a grant gives its feature before it is revoked');

update billing.entitlement_grants
set revoked_at = billing_private.now(), revoked_reason = 'sent to the wrong Ann'
where id = md5('gift')::uuid;

select ok(
  not pg_temp.has('premium', '2026-01-15'),
  'a revoked grant gives nothing from the transaction that revokes it'
);
select ok(pg_temp.has('hosting', '2026-01-15'), 'revoking one grant leaves the others');

-- ---- limits -----------------------------------------------------------------

insert into billing.entitlement_grants
  (id, account_id, feature_key, limit_value, valid_from, reason)
values (md5('five')::uuid, md5('ann')::uuid, 'clubs', 5, '2026-01-10', 'support');

select is(pg_temp.clubs(), 5::bigint, 'a grant gives a limited feature up to its limit');

select tests.subscribe('ann', 'active', '2026-01-10', 'price_basic_monthly');
select is(pg_temp.clubs(), 5::bigint, 'a grant beside a plan: the better limit counts');

update billing.entitlement_grants set limit_value = 2 where id = md5('five')::uuid;
select is(pg_temp.clubs(), 3::bigint, 'a grant below the plan''s limit takes nothing away');

insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
values (md5('ann')::uuid, 'clubs', '2026-01-10', 'unlimited for the fair');
select is(pg_temp.clubs(), null, 'a grant without a limit makes the feature unlimited');

select is(
  (
    select array_agg(limit_value order by limit_value)
    from billing.entitlements
    where account_id = md5('ann')::uuid and feature_key = 'clubs'
  ),
  array[2, 3, null]::bigint[],
  'each source stays a row of its own'
);

-- ---- what a grant cannot be -------------------------------------------------

select throws_ok(
  $$
    insert into billing.entitlement_grants
      (account_id, feature_key, valid_from, valid_until, reason)
    values (md5('ann')::uuid, 'premium', '2026-01-10', '2026-01-10', 'nothing at all')
  $$,
  '23514',
  'new row for relation "entitlement_grants" violates check constraint '
    '"entitlement_grants_interval_is_ordered"',
  'a grant cannot end when it begins'
);
select throws_ok(
  $$
    insert into billing.entitlement_grants
      (account_id, feature_key, limit_value, valid_from, reason)
    values (md5('ann')::uuid, 'clubs', -1, '2026-01-10', 'less than nothing')
  $$,
  '23514',
  'new row for relation "entitlement_grants" violates check constraint '
    '"entitlement_grants_limit_is_not_negative"',
  'a grant cannot have a negative limit'
);
select throws_ok(
  $$
    insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
    values (md5('ann')::uuid, 'premium', '2026-01-10', '')
  $$,
  '23514',
  'new row for relation "entitlement_grants" violates check constraint '
    '"entitlement_grants_reason_is_given"',
  'a grant cannot be without a reason'
);

-- ---- who sees and writes them -----------------------------------------------

select tests.sign_in('ann');
select is(
  (select count(*) from billing.entitlement_grants), 4::bigint,
  'a member sees the account''s grants, the revoked one too'
);
select throws_ok(
  $$
    insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
    values (md5('ann')::uuid, 'premium', '2026-01-10', 'to myself')
  $$,
  '42501', 'permission denied for table entitlement_grants',
  'a member cannot grant anything'
);
select throws_ok(
  $$ update billing.entitlement_grants set revoked_at = null $$,
  '42501', 'permission denied for table entitlement_grants',
  'a member cannot take a revocation back'
);

select tests.sign_in('bob');
select is_empty($$ select * from billing.entitlement_grants $$, 'a stranger sees no grants');

select tests.sign_out();
select throws_ok(
  $$ select * from billing.entitlement_grants $$,
  '42501', 'permission denied for table entitlement_grants',
  'a visitor is refused'
);

select tests.be_service();
select throws_ok(
  $$
    insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
    values (md5('ann')::uuid, 'premium', '2026-01-10', 'past the RPC')
  $$,
  '42501', 'permission denied for table entitlement_grants',
  'the service grants through the RPC, with a reason in the audit, and not past it'
);

select * from finish();
rollback;
