-- billing_private.validate_entitlements(): where stored entitlements disagree with their sources.
begin;
\ir ../helpers.psql
select plan(15);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');
select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_basic_monthly');
insert into billing.entitlement_grants
  (id, account_id, feature_key, limit_value, valid_from, reason)
values (md5('gift')::uuid, md5('ann')::uuid, 'clubs', 30, '2026-01-10', 'a gift');

create function pg_temp.drift() returns text[]
language sql as $$
  select coalesce(array_agg(format('%s %s %s', problem, feature_key, source_kind)
    order by feature_key, source_kind), '{}')
  from billing_private.validate_entitlements(array[md5('ann')::uuid, md5('bob')::uuid]);
$$;

-- ---- the normal state -------------------------------------------------------

select is(pg_temp.drift(), '{}', 'untouched, what is stored is what the sources say');

-- ---- tampered by the owner --------------------------------------------------

savepoint untouched;
delete from billing.entitlements where account_id = md5('ann')::uuid and feature_key = 'premium';
select is(
  pg_temp.drift(), array['missing premium subscription_item'],
  'a row that was deleted is missing'
);
select results_eq(
  $$
    select account_id, stored, computed ->> 'valid_until'
    from billing_private.validate_entitlements(array[md5('ann')::uuid])
  $$,
  $$ values (md5('ann')::uuid, null::jsonb, '2026-02-10T03:00:00+00:00') $$,
  'of a missing row it says what should be there'
);
rollback to untouched;

insert into billing.entitlements
  (account_id, feature_key, source_kind, source_id, valid_from, valid_until)
values (md5('bob')::uuid, 'premium', 'grant', md5('none')::uuid, '2026-01-10', 'infinity');
select is(
  pg_temp.drift(), array['surplus premium grant'],
  'a row without a source is surplus'
);
select ok(
  billing.has_entitlement('premium', md5('bob')::uuid),
  'as long as nobody corrects it, it gives access'
);
select is_empty(
  $$ select * from billing_private.validate_entitlements(array[md5('ann')::uuid]) $$,
  'only the accounts that are asked about are looked at'
);
select is_empty(
  $$ select * from billing_private.validate_entitlements('{}') $$,
  'no accounts, no drift'
);
rollback to untouched;

update billing.entitlements set valid_until = '2027-01-10'
where account_id = md5('bob')::uuid;
select is(pg_temp.drift(), array['different clubs subscription_item'], 'another end is different');
rollback to untouched;

update billing.entitlements set valid_from = '2026-01-09'
where account_id = md5('bob')::uuid;
select is(
  pg_temp.drift(),
  array['missing clubs subscription_item', 'surplus clubs subscription_item'],
  'another beginning is another row');
rollback to untouched;

update billing.entitlements set limit_value = null where source_id = md5('gift')::uuid;
select results_eq(
  $$
    select problem, stored ->> 'limit_value', computed ->> 'limit_value'
    from billing_private.validate_entitlements(array[md5('ann')::uuid])
  $$,
  $$ values ('different', null::text, '30') $$,
  'another limit is different; it says what is stored and what should be'
);
rollback to untouched;

update billing.entitlements set plan_id = md5('plus')::uuid where account_id = md5('bob')::uuid;
select is(pg_temp.drift(), array['different clubs subscription_item'], 'another plan is different');
rollback to untouched;

-- ---- what the clock does is no drift ----------------------------------------

select tests.set_time('2026-02-10 02:59:59');
update billing.entitlements set limit_value = 99
where account_id = md5('bob')::uuid;
select is(
  pg_temp.drift(), array['different clubs subscription_item'],
  'to its last second a row is compared'
);
select tests.set_time('2026-02-10 03:00:00');
select is(
  pg_temp.drift(), '{}',
  'a row that has run out gives nothing: it waits to be taken away, and is no drift'
);

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select * from billing_private.validate_entitlements(array[md5('ann')::uuid]) $$,
  '42501', 'permission denied for schema billing_private',
  'the service asks billing_admin.entitlement_drift'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing_private.validate_entitlements(array[md5('ann')::uuid]) $$,
  '42501', 'permission denied for schema billing_private',
  'a member cannot ask'
);

select * from finish();
rollback;
