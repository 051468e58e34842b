-- Whatever is tampered with in what is stored of access is found, repaired and logged; by the task
-- and by an administrator, batch by batch.
begin;
\ir ../helpers.psql
select plan(17);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');
update billing.plans set store_id = md5('night-owl')::uuid where key = 'basic';
update billing.access_policies set paused = 'read_only' where key = 'standard';
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

-- Each kind of drift has an account of its own: a subscriber with a gift, or one who is paused.
create temporary table kinds (kind text primary key, problems text[], statement text);
insert into kinds values
  ('missing', '{missing}',
    'delete from billing.entitlements where account_id = $1 and source_kind = ''grant'''),
  ('surplus', '{surplus}',
    'insert into billing.entitlements
      (account_id, feature_key, source_kind, source_id, valid_from, valid_until)
    values ($1, ''hosting'', ''grant'', gen_random_uuid(), ''2026-01-01'', ''infinity'')'),
  ('surplus_contract', '{surplus}',
    'insert into billing.entitlements
      (account_id, feature_key, source_kind, source_id, valid_from, valid_until)
    values ($1, ''clubs'', ''contract'', gen_random_uuid(), ''2026-01-01'', ''2026-01-11'')'),
  ('limit', '{different}',
    'update billing.entitlements set limit_value = 1000
    where account_id = $1 and feature_key = ''clubs'''),
  ('no_limit', '{different}',
    'update billing.entitlements set limit_value = null
    where account_id = $1 and feature_key = ''clubs'''),
  ('plan', '{different}',
    'update billing.entitlements set plan_id = md5(''plus'')::uuid
    where account_id = $1 and plan_id is not null'),
  ('store', '{different}',
    'update billing.entitlements set store_key = null where account_id = $1 and plan_id is not null'),
  ('beginning', '{missing,surplus}',
    'update billing.entitlements set valid_from = ''2020-01-01''
    where account_id = $1 and source_kind = ''grant'''),
  ('end', '{different}',
    'update billing.entitlements set valid_until = valid_until + interval ''1 microsecond''
    where account_id = $1 and plan_id is not null'),
  ('end_without_end', '{different}',
    'update billing.entitlements set valid_until = ''infinity''
    where account_id = $1 and plan_id is not null'),
  ('other_source', '{missing,surplus}',
    'update billing.entitlements set source_id = gen_random_uuid()
    where account_id = $1 and source_kind = ''grant'''),
  ('other_feature', '{missing,surplus}',
    'update billing.entitlements set feature_key = ''hosting''
    where account_id = $1 and source_kind = ''grant'''),
  ('paused_level', '{missing,surplus}',
    'update billing.entitlements set access_level = ''full'' where account_id = $1'),
  ('profile_missing', '{missing}', 'delete from billing.profiles where account_id = $1'),
  ('profile_tier', '{different}',
    'update billing.profiles set membership_tier = ''plus'' where account_id = $1'),
  ('profile_rank', '{different}',
    'update billing.profiles set tier_rank = 99 where account_id = $1'),
  ('profile_features', '{different}',
    'update billing.profiles set features = ''{clubs,hosting,premium}'' where account_id = $1'),
  ('profile_end', '{different}',
    'update billing.profiles set access_until = null where account_id = $1');

select tests.account(kind) from kinds;
select tests.subscribe(kind, case when kind like 'paused%' then 'paused' else 'active' end,
  '2026-01-10', 'price_basic_monthly') from kinds;
insert into billing.entitlement_grants (account_id, feature_key, kind, valid_from, reason)
select md5(kind)::uuid, 'premium', 'gift', '2026-01-10', 'a gift'
from kinds where kind not like 'paused%';

create temporary table sound_entitlements as
select
  account_id, feature_key, source_kind, source_id, access_level, plan_id, store_key, limit_value,
  valid_from, valid_until
from billing.entitlements;
create temporary table sound_profiles as
select account_id, membership_tier, tier_rank, features, access_until from billing.profiles;

create function pg_temp.tamper() returns void
language plpgsql as $$
declare
  v_kind kinds;
begin
  for v_kind in select * from kinds loop
    execute v_kind.statement using md5(v_kind.kind)::uuid;
  end loop;
end;
$$;

-- ---- found ------------------------------------------------------------------

select is_empty(
  $$ select * from billing_private.validate_entitlements(array(select id from billing.accounts)) $$,
  'untouched, nothing disagrees'
);
select pg_temp.tamper();
select results_eq(
  $$
    select kind, array(
      select distinct problem
      from billing_private.validate_entitlements(array[md5(kind)::uuid])
      order by problem)
    from kinds
    order by kind
  $$,
  $$ select kind, problems from kinds order by kind $$,
  'each kind of drift is found for what it is'
);
select results_eq(
  $$
    select kind
    from kinds
    where exists (
      select
      from billing_private.validate_entitlements(array[md5(kind)::uuid])
      where source_kind = 'profile')
    order by kind
  $$,
  $$ select kind from kinds where kind like 'profile%' order by kind $$,
  'a profile that says what the sources give is right, whatever became of the entitlements'
);
select is(
  (
    select array[stored ->> 'limit_value', computed ->> 'limit_value']
    from billing_private.validate_entitlements(array[md5('limit')::uuid])
  ),
  array['1000', '3'],
  'what is stored and what should be stand side by side'
);

-- ---- repaired by the task ---------------------------------------------------

savepoint tampered;
select cmp_ok(
  billing_private.task_validate_entitlements(), '>=', (select count(*) from kinds),
  'the task repairs all of it'
);
select bag_eq(
  $$
    select
      account_id, feature_key, source_kind, source_id, access_level, plan_id, store_key,
      limit_value, valid_from, valid_until
    from billing.entitlements
  $$,
  $$ select * from sound_entitlements $$,
  'entitlements are what they were'
);
select bag_eq(
  $$ select account_id, membership_tier, tier_rank, features, access_until from billing.profiles $$,
  $$ select * from sound_profiles $$,
  'and so are profiles'
);
select results_eq(
  $$
    select kind, array(
      select distinct problem
      from billing_private.entitlement_corrections
      where account_id = md5(kind)::uuid
      order by problem)
    from kinds
    order by kind
  $$,
  $$ select kind, problems from kinds order by kind $$,
  'each kind is logged for what it was'
);
select is_empty(
  $$
    select * from billing_private.entitlement_corrections
    where before is null and problem <> 'missing' or after is null and problem <> 'surplus'
  $$,
  'with what was there before and what is there after'
);
select is(
  billing_private.task_validate_entitlements(), 0::bigint, 'a second round finds nothing'
);
rollback to tampered;

-- ---- repaired by an administrator, batch by batch ---------------------------

select tests.sign_in('ada');
create temporary table batches as
with recursive batches as (
  select 1 as number, batch.*
  from billing_admin.correct_all_entitlements('a doubt', null, 7) as batch
  union all
  select number + 1, batch.*
  from batches
  cross join lateral billing_admin.correct_all_entitlements('a doubt', batches.resume_after, 7)
    as batch
  where batches.resume_after is not null
    and number < 10
)
select * from batches;
select tests.be_owner();

select is(
  (select array_agg(checked order by number) from batches), array[7, 7, 4],
  'an administrator goes through all accounts in batches'
);
select bag_eq(
  $$
    select
      account_id, feature_key, source_kind, source_id, access_level, plan_id, store_key,
      limit_value, valid_from, valid_until
    from billing.entitlements
  $$,
  $$ select * from sound_entitlements $$,
  'and all is as it was'
);
select is(
  (select array_agg(distinct cause ->> 'reason') from billing_private.entitlement_corrections),
  array['a doubt'],
  'each correction says why'
);

select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.correct_all_entitlements('too many', null, 10001) $$,
  'PT400', 'the request is not valid', 'a batch is bounded'
);
select throws_ok(
  $$ select billing_admin.correct_all_entitlements('none', null, 0) $$,
  'PT400', 'the request is not valid', 'and holds at least one'
);
select throws_ok(
  $$ select billing_admin.correct_all_entitlements(' ') $$,
  'PT400', 'the request is not valid', 'it needs a reason'
);
select tests.sign_in('limit');
select throws_ok(
  $$ select billing_admin.correct_all_entitlements('my own') $$,
  'PT403', 'this needs a billing administrator', 'a member is refused'
);

select * from finish();
rollback;
