-- billing_admin.meter_table(), unmeter_table(), recount_metered_table() and metered_tables: which tables can be
-- metered, from when on, until when, and what is done where triggers were off.
begin;
\ir ../helpers.psql
set local client_min_messages = warning;
select plan(70);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann', 'active', '2026-01-10', 'price_basic_monthly');
select tests.account('bob');
select tests.subscribe('bob');

create table public.clubs (id bigint generated always as identity, owner_id uuid, name text);
create view public.open_clubs as select * from public.clubs;
create table public.parted (owner_id uuid, name text, year integer not null)
  partition by range (year);
create table public.parted_2025 partition of public.parted
  for values from (2025) to (2026) partition by range (name);
create table public.parted_2025_a partition of public.parted_2025 for values from ('a') to ('b');
create table public.parted_2026 partition of public.parted for values from (2026) to (2027);
create table public.parent (owner_id uuid);
create table public.child () inherits (public.parent);
create temporary table passing (owner_id uuid);

create function tests.counted(p_feature_key text default 'clubs') returns bigint[]
language sql as $$
  select array[coalesce(sum(used) filter (where account_id = md5('ann')::uuid), 0)::bigint,
    coalesce(sum(used) filter (where account_id = md5('bob')::uuid), 0)::bigint]
  from billing.usage_totals
  where feature_key = p_feature_key;
$$;

create function tests.details(p_statement text) returns jsonb
language plpgsql as $$
declare
  v_detail text;
begin
  execute p_statement;
  return null;
exception when others then
  get stacked diagnostics v_detail = pg_exception_detail;
  return v_detail;
end;
$$;

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select billing_admin.meter_table('public.clubs', 'clubs', 'owner_id') $$,
  '42501', 'permission denied for function meter_table',
  'the Edge Functions make no triggers on the application''s tables'
);
select throws_ok(
  $$ select billing_admin.unmeter_table('public.clubs', 'clubs') $$,
  '42501', 'permission denied for function unmeter_table', 'nor take them away'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.meter_table('public.clubs', 'clubs', 'owner_id') $$,
  '42501', 'permission denied for function meter_table', 'no user does either'
);
select throws_ok(
  $$ select billing_admin.recount_metered_table('public.clubs', 'why not') $$,
  'PT403', 'this needs a billing administrator', 'who is no administrator recounts nothing'
);
select throws_ok(
  $$ select * from billing_admin.metered_tables $$,
  'PT403', 'this needs a billing administrator', 'and is not told what is metered'
);
select tests.be_owner();

-- ---- what cannot be metered -------------------------------------------------

create function tests.problem(
  p_table text,
  p_feature text default 'clubs',
  p_column text default 'owner_id'
)
returns text
language sql as $$
  select concat_ws(' ', detail ->> 'field', detail ->> 'problem')
  from tests.details(format(
    'select billing_admin.meter_table(%L, %L, %L)', p_table, p_feature, p_column)) as detail;
$$;

select throws_ok(
  $$ select billing_admin.meter_table('public.clubs', 'yachts', 'owner_id') $$,
  'PT404', 'there is no such feature', 'a feature that is not there is refused'
);
select throws_ok(
  $$ select billing_admin.unmeter_table('public.clubs', 'yachts') $$,
  'PT404', 'there is no such feature', 'for the end of metering, too'
);
select throws_ok(
  $$ select billing_admin.meter_table('public.nothing', 'clubs', 'owner_id') $$,
  '42P01', 'relation "public.nothing" does not exist', 'a table that is not there is refused'
);
select throws_ok(
  $$ select billing_admin.meter_table(null, 'clubs', 'owner_id') $$,
  'PT400', 'the request is not valid', 'a table has to be named'
);
select is(
  tests.problem('public.open_clubs'),
  'table_name is no table: what is behind it can be metered', 'views are refused'
);
select is(
  tests.problem('public.parted_2026'),
  'table_name is a partition: the table it belongs to can be metered', 'partitions are refused'
);
select is(
  tests.problem('public.parent'),
  'table_name inherits or is inherited from: its rows would be counted twice, or not at all',
  'tables that others inherit from are refused'
);
select is(
  tests.problem('public.child'),
  'table_name inherits or is inherited from: its rows would be counted twice, or not at all',
  'as are those that inherit'
);
select is(
  tests.problem('pg_temp.passing'), 'table_name is temporary', 'temporary tables are refused'
);
select is(
  tests.problem('billing.accounts', 'clubs', 'id'),
  'table_name is not one of the application''s', 'our own tables are refused'
);
select is(
  tests.problem('auth.users', 'clubs', 'id'),
  'table_name belongs to supabase_auth_admin, and only its owner can',
  'tables of somebody else are refused'
);
select is(
  tests.problem('public.clubs', 'premium'),
  'feature must be a limit, or metered as a sum', 'a feature that counts nothing is refused'
);
insert into billing.features (key, name, kind, aggregation)
values ('readers', 'Readers', 'metered', 'unique');
select is(
  tests.problem('public.clubs', 'readers'),
  'feature must be a limit, or metered as a sum', 'as is one whose total is no sum'
);
select is(
  tests.problem('public.clubs', 'clubs', 'owner'),
  'owner_column is no column of the table', 'a column that is not there is refused'
);
select is(
  tests.problem('public.clubs', 'clubs', 'ctid'),
  'owner_column is no column of the table', 'as are the system''s own'
);
select is(
  tests.problem('public.clubs', 'clubs', 'name'),
  'owner_column must be a uuid: the id of a user or an account', 'a column without ids is refused'
);
select is_empty(
  $$ select * from billing_admin.metered_tables $$, 'what is refused leaves nothing behind'
);

-- ---- from when on -----------------------------------------------------------

insert into auth.users (id, email) values (md5('newcomer')::uuid, 'newcomer@example.com');
insert into public.clubs (owner_id)
select owner_id
from unnest(array[md5('ann'), md5('newcomer'), md5('nobody'), null]::uuid[]) as owner_id
cross join generate_series(1, 5);
select is(
  billing_admin.meter_table('public.clubs', 'clubs', 'owner_id'), 15::bigint,
  'rows that are there and have an owner are counted'
);
select is(tests.counted(), '{5,0}', 'even beyond the limit');
select is(
  (select used from billing.usage_totals where account_id = md5('newcomer')::uuid), 5::numeric,
  'and for users who had never come near billing'
);
select throws_ok(
  $$ insert into public.clubs (owner_id) values (md5('ann')::uuid) $$,
  'PT402', 'the limit of this feature is reached',
  'who holds more than the limit can add nothing'
);
delete from public.clubs
where id in (select id from public.clubs where owner_id = md5('ann')::uuid limit 2);
select throws_ok(
  $$ insert into public.clubs (owner_id) values (md5('ann')::uuid) $$,
  'PT402', 'the limit of this feature is reached', 'nor with just the limit'
);
delete from public.clubs
where id in (select id from public.clubs where owner_id = md5('ann')::uuid limit 1);
select lives_ok(
  $$ insert into public.clubs (owner_id) values (md5('ann')::uuid) $$, 'but with less'
);
select is(tests.counted(), '{3,0}', 'and that is counted');

-- ---- twice ------------------------------------------------------------------

select is(
  billing_admin.meter_table('public.clubs', 'clubs', 'owner_id'), 13::bigint,
  'metering what is metered counts the same rows'
);
select is(tests.counted(), '{3,0}', 'and none of them twice');
delete from public.clubs where owner_id = md5('ann')::uuid;
insert into public.clubs (owner_id) values (md5('ann')::uuid);
select is(tests.counted(), '{1,0}', 'nor what comes after');
select results_eq(
  $$ select * from billing_admin.metered_tables $$,
  $$ values ('public.clubs', 'clubs', 'owner_id', false) $$,
  'administrators see what is metered'
);

alter table public.clubs add column "Leader's" uuid;
update public.clubs set "Leader's" = md5('bob')::uuid where owner_id = md5('newcomer')::uuid;
select billing_admin.meter_table('public.clubs', 'clubs', 'Leader''s');
select is(tests.counted(), '{0,5}', 'with another column its owners count, and only they');
delete from public.clubs where owner_id = md5('newcomer')::uuid;
select is(tests.counted(), '{0,0}', 'from then on');
alter table public.clubs rename to "Clubs of the Süd";
select results_eq(
  $$ select * from billing_admin.metered_tables $$,
  $$ values ('public."Clubs of the Süd"', 'clubs', 'Leader''s', false) $$,
  'a table that is renamed stays metered'
);
alter table public."Clubs of the Süd" rename column "Leader's" to "Führung";
select is(
  (select is_broken from billing_admin.metered_tables), true,
  'where the column has been renamed it says so'
);
select throws_ok(
  $$ insert into public."Clubs of the Süd" ("Führung") values (md5('bob')::uuid) $$,
  '42703', null, 'and nothing is written uncounted'
);
select billing_admin.meter_table('public."Clubs of the Süd"', 'clubs', 'Führung');
insert into public."Clubs of the Süd" ("Führung") values (md5('bob')::uuid);
select is(tests.counted(), '{0,1}', 'until it is metered by its new name');
select is(
  (select owner_column from billing_admin.metered_tables where not is_broken), 'Führung',
  'which may be any'
);
alter table public."Clubs of the Süd" rename to clubs;

-- ---- until when -------------------------------------------------------------

insert into public.clubs ("Führung") select md5('bob')::uuid from generate_series(1, 3);
select is(
  billing_admin.unmeter_table('public.clubs', 'clubs'), 4::bigint,
  'the end of metering says how many rows were counted'
);
select is(tests.counted(), '{0,0}', 'and gives them back');
insert into public.clubs ("Führung") select md5('bob')::uuid from generate_series(1, 20);
select is(tests.counted(), '{0,0}', 'from then on nothing is counted');
select is(
  billing_admin.unmeter_table('public.clubs', 'clubs'), 0::bigint,
  'what is not metered can be ended again'
);
select is_empty(
  $$ select tgname from pg_trigger where tgrelid = 'public.clubs'::regclass $$,
  'nothing of it stays on the table'
);
truncate public.clubs;

-- ---- partitions -------------------------------------------------------------

insert into public.parted values (md5('bob')::uuid, 'a', 2025);
select is(
  billing_admin.meter_table('public.parted', 'clubs', 'owner_id'), 1::bigint,
  'a partitioned table is metered as one'
);
insert into public.parted values (md5('bob')::uuid, 'a', 2025), (md5('ann')::uuid, 'a', 2026);
select is(tests.counted(), '{1,2}', 'rows that come through it are counted once');
insert into public.parted_2025 values (md5('bob')::uuid, 'aa', 2025);
insert into public.parted_2025_a values (md5('bob')::uuid, 'ab', 2025);
insert into public.parted_2026 values (md5('ann')::uuid, 'b', 2026);
select is(tests.counted(), '{2,4}', 'as are rows written straight into a partition, on any level');
update public.parted set year = 2026 where name in ('aa', 'ab');
select is(tests.counted(), '{2,4}', 'a row that moves to another partition stays counted');
update public.parted
set year = 2026, owner_id = md5('ann')::uuid
where ctid = (select min(ctid) from public.parted_2025_a where name = 'a') and year = 2025;
select is(tests.counted(), '{3,3}', 'one that also finds another owner counts for that one');
delete from public.parted_2026 where owner_id = md5('ann')::uuid;
select is(tests.counted(), '{0,3}', 'rows deleted from a partition are released');
truncate public.parted_2025;
select is(tests.counted(), '{0,2}', 'emptying a partition releases its rows');

create table public.parted_2027 partition of public.parted for values from (2027) to (2028);
select is(
  (select is_broken from billing_admin.metered_tables), true,
  'a partition that comes later is seen to lack triggers'
);
insert into public.parted values (md5('bob')::uuid, 'a', 2027);
select is(tests.counted(), '{0,3}', 'although rows that come through the table are counted');
select billing_admin.meter_table('public.parted', 'clubs', 'owner_id');
insert into public.parted_2027 values (md5('bob')::uuid, 'a', 2027);
select is(tests.counted(), '{0,4}', 'metering again includes it');
truncate public.parted;
select is(tests.counted(), '{0,0}', 'emptying the whole table releases everything');
select billing_admin.unmeter_table('public.parted', 'clubs');
select is_empty(
  $$
    select tgname
    from pg_trigger
    where tgrelid in ('public.parted'::regclass, 'public.parted_2027'::regclass)
  $$,
  'the end of metering leaves nothing on partitions'
);

-- ---- triggers that were off -------------------------------------------------

select billing_admin.meter_table('public.clubs', 'clubs', 'owner_id');
insert into public.clubs (owner_id) values (md5('ann')::uuid);
alter table public.clubs disable trigger user;
insert into public.clubs (owner_id) select md5('bob')::uuid from generate_series(1, 12);
delete from public.clubs where owner_id = md5('ann')::uuid;
select is(
  (select is_broken from billing_admin.metered_tables), true, 'triggers that are off are seen'
);
select results_eq(
  $$
    select severity, issue, subject
    from billing_admin.critical_issues
    where issue = 'broken_metering'
  $$,
  $$ values ('critical', 'broken_metering', 'public.clubs') $$,
  'and are an issue'
);
alter table public.clubs enable trigger user;
select is(tests.counted(), '{1,0}', 'what was written meanwhile is not counted');
select is(
  billing_admin.recount_metered_table('public.clubs', 'triggers were off'), 2::bigint,
  'recounting repairs each account'
);
select is(tests.counted(), '{0,12}', 'as the rows say, even beyond the limit');
select results_eq(
  $$
    select account_id, details - 'cause'
    from billing_admin.critical_issues
    where issue = 'metering_corrected'
    order by account_id
  $$,
  $$ values
    (md5('ann')::uuid, '{"held": 0, "counted": 1, "feature": "clubs"}'::jsonb),
    (md5('bob')::uuid, '{"held": 12, "counted": 0, "feature": "clubs"}'::jsonb) $$,
  'each correction is an issue for a week'
);
select is(
  billing_admin.recount_metered_table('public.clubs', 'once more'), 0::bigint,
  'recounting what is right changes nothing'
);

alter table public.clubs disable trigger user;
delete from public.clubs where owner_id = md5('bob')::uuid;
select is(
  billing_admin.meter_table('public.clubs', 'clubs', 'owner_id'), 0::bigint,
  'metering again counts what was written meanwhile'
);
select is(
  (select is_broken from billing_admin.metered_tables), false, 'and switches the triggers on'
);
select billing_admin.unmeter_table('public.clubs', 'clubs');

-- ---- names, types and kinds -------------------------------------------------

create domain public.user_id as uuid;
create table public."a ""table""" (n integer, owner_id public.user_id);
insert into billing.features (key, name, kind)
values (repeat('long-', 20), 'Long', 'limit'), (repeat('long-', 20) || '2', 'Long', 'limit');
insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
select md5('ann')::uuid, key, 2, '2026-01-10', 'a gift' from billing.features where name = 'Long';
select billing_admin.meter_table('public."a ""table"""', repeat('long-', 20), 'owner_id');
select billing_admin.meter_table('public."a ""table"""', repeat('long-', 20) || '2', 'owner_id');
insert into public."a ""table""" values (1, md5('ann')::uuid), (2, md5('ann')::uuid);
select is(
  tests.counted(repeat('long-', 20)) || tests.counted(repeat('long-', 20) || '2'), '{2,0,2,0}',
  'two features whose keys are longer than a name both count, and the column may be of a domain'
);
select throws_ok(
  $$ insert into public."a ""table""" values (3, md5('ann')::uuid) $$,
  'PT402', 'the limit of this feature is reached', 'and both refuse'
);

insert into billing.features (key, name, kind) values ('changing', 'Changing', 'metered');
select billing_admin.meter_table('public.clubs', 'changing', 'owner_id');
update billing.features set kind = 'limit' where key = 'changing';
select is(
  (select is_broken from billing_admin.metered_tables where feature_key = 'changing'), true,
  'where the feature becomes another kind, triggers are seen to lack'
);
select billing_admin.meter_table('public.clubs', 'changing', 'owner_id');
update billing.features set kind = 'metered' where key = 'changing';
select billing_admin.meter_table('public.clubs', 'changing', 'owner_id');
select is(
  (
    select array_agg(tgname::text order by tgname)
    from pg_trigger
    where tgrelid = 'public.clubs'::regclass
  ),
  array['billing_meter_changing_insert', 'billing_meter_changing_update'],
  'metering again leaves those its kind needs'
);

select * from finish();
rollback;
