-- The task recount_metered_tables: works through all accounts in batches and sets totals to what tables hold.
begin;
\ir ../helpers.psql
select plan(27);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');

-- 2,001 accounts, the first and the last of which may have clubs.
insert into billing.accounts (id)
select lpad(to_hex(n), 32, '0')::uuid from generate_series(1, 2001) as n;
insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
select lpad(to_hex(n), 32, '0')::uuid, 'clubs', '2026-01-10', 'a gift'
from (values (1), (2001)) as gifted (n);
create table public.clubs (owner_id uuid);

create function pg_temp.resumes_after() returns text
language sql as $$
  select resume_after from billing_private.tasks where key = 'recount_metered_tables';
$$;
create function pg_temp.counted() returns bigint[]
language sql as $$
  select array[coalesce(sum(used) filter (where account_id < lpad('2', 32, '0')::uuid), 0)::bigint,
    coalesce(sum(used) filter (where account_id > lpad('2', 32, '0')::uuid), 0)::bigint]
  from billing.usage_totals;
$$;

select is(
  billing_private.task_recount_metered_tables(), 0::bigint,
  'where no table is metered there is nothing to do'
);
select is(pg_temp.resumes_after(), null, 'and no list to go through');

select billing_admin.meter_table('public.clubs', 'clubs', 'owner_id');
insert into public.clubs select lpad(to_hex(n), 32, '0')::uuid from (values (1), (2001)) as owner (n);
select is(
  billing_private.task_recount_metered_tables(), 0::bigint,
  'where totals are what tables hold it changes nothing'
);
select is(
  pg_temp.resumes_after(), lpad(to_hex(2000), 32, '0')::uuid::text,
  'a run looks at 2,000 accounts and remembers how far it came'
);
select billing_private.task_recount_metered_tables();
select is(pg_temp.resumes_after(), null, 'at the end of the list it begins again');

alter table public.clubs disable trigger user;
insert into public.clubs select lpad(to_hex(n), 32, '0')::uuid from (values (1), (2001)) as owner (n);
alter table public.clubs enable trigger user;
select is(
  billing_private.task_recount_metered_tables(), 1::bigint,
  'the first run repairs what is in its batch'
);
select is(pg_temp.counted(), '{2,1}', 'the first account''s total is right, the last''s still waits');
select is(
  billing_private.run_task('recount_metered_tables'), 'succeeded', 'the second run, by the heartbeat'
);
select is(pg_temp.counted(), '{2,2}', 'leaves nobody out');
select results_eq(
  $$
    select account_id, feature_key, counted, held, cause ->> 'reference'
    from billing_private.metering_corrections
    order by id
  $$,
  $$ values
    (lpad('1', 32, '0')::uuid, 'clubs', 1::numeric, 2::bigint, null),
    (lpad('7d1', 32, '0')::uuid, 'clubs', 1, 2, 'recount_metered_tables') $$,
  'each correction is kept, with what was counted, what is there, and what corrected it'
);

-- ---- tables that change beneath it -------------------------------------------

insert into billing.features (key, name, kind) values ('rooms', 'Rooms', 'limit');
create table public.rooms (owner_id uuid);
insert into public.rooms select lpad('1', 32, '0')::uuid from generate_series(1, 3);
select billing_admin.meter_table('public.rooms', 'rooms', 'owner_id');
alter table public.clubs rename column owner_id to founder_id;
alter table public.rooms disable trigger user;
delete from public.rooms where owner_id is not null;
select is(
  billing_private.task_recount_metered_tables(), 1::bigint,
  'a table that cannot be counted keeps none of the others from it'
);
select is(pg_temp.counted(), '{2,2}', 'its own totals stay as they are');
alter table public.clubs rename column founder_id to owner_id;

insert into public.rooms select lpad('7d1', 32, '0')::uuid from generate_series(1, 4);
select billing_admin.meter_table('public.rooms', 'rooms', 'owner_id');
select is(pg_temp.counted(), '{2,6}', 'before it is dropped a table counts');
drop table public.rooms;
select is(
  billing_private.task_recount_metered_tables(), 1::bigint, 'what a dropped table held is given back'
);
select is(pg_temp.counted(), '{2,2}', 'to everybody at once');
select is(
  (select counts_rows from billing.features where key = 'rooms'), false,
  'and from then on the feature may be counted otherwise'
);
select is(
  (select counts_rows from billing.features where key = 'clubs'), true,
  'which is not said of one whose table is there'
);

-- A table of which only metered features count has no totals to compare.
select billing_admin.unmeter_table('public.clubs', 'clubs');
select is(
  (select counts_rows from billing.features where key = 'clubs'), false,
  'unless its metering has ended'
);
insert into billing.features (key, name, kind) values ('posts', 'Posts', 'metered');
select billing_admin.meter_table('public.clubs', 'posts', 'owner_id');
select is(
  billing_private.task_recount_metered_tables(), 0::bigint,
  'what metered features have used is never recounted'
);

select billing_admin.unmeter_table('public.clubs', 'posts');
drop table public.clubs;

-- ---- partitions that come later ---------------------------------------------

insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
values (lpad('1', 32, '0')::uuid, 'posts', '2026-01-10', 'a gift');
create table public.halls (owner_id uuid, year integer) partition by range (year);
create table public.halls_2025 partition of public.halls for values from (2025) to (2026);
select billing_admin.meter_table('public.halls', 'clubs', 'owner_id'),
  billing_admin.meter_table('public.halls', 'posts', 'owner_id');
create table public.halls_2026 partition of public.halls
  for values from (2026) to (2028) partition by range (year);
create table public.halls_2026_a partition of public.halls_2026 for values from (2026) to (2027);
insert into public.halls_2026_a values (lpad('1', 32, '0')::uuid, 2026);
select is(pg_temp.counted(), '{0,0}', 'rows written straight into a partition that is new are missed');
update billing_private.tasks set resume_after = null where key = 'recount_metered_tables';
select is(
  billing_private.task_recount_metered_tables(), 5::bigint,
  'until the next run, which takes it up for each feature, on any level, and corrects a total'
);
select is(pg_temp.counted(), '{1,0}', 'by what was missed');
insert into public.halls_2026_a values (lpad('1', 32, '0')::uuid, 2026);
select is(pg_temp.counted(), '{3,0}', 'from then on such rows count at once, for both features');
select is_empty(
  $$ select * from billing_private.metered_tables() where is_broken $$, 'and nothing is broken'
);
alter table public.halls_2026_a disable trigger user;
update billing_private.tasks set resume_after = null where key = 'recount_metered_tables';
select is(
  billing_private.task_recount_metered_tables(), 0::bigint,
  'triggers that somebody switched off stay off'
);
select is(
  (select count(*) from billing_admin.critical_issues where issue = 'broken_metering'), 2::bigint,
  'and are told'
);
alter table public.halls_2026_a enable trigger user;
delete from public.halls where year = 2026;
select is(pg_temp.counted(), '{1,0}', 'deleted through the table they release what is held, once');

select * from finish();
rollback;
