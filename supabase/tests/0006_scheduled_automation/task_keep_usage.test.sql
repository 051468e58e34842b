-- keep_usage: partitions of usage_records are there before they are needed, and go when they are not.
begin;
\ir ../helpers.psql
select plan(13);

select tests.take_tasks();
insert into billing.features (key, name, kind) values ('exports', 'Exports', 'metered');
select tests.set_time('2030-01-31 23:59');
insert into billing.accounts (id) values (md5('ann')::uuid);

create function pg_temp.partitions() returns setof text
language sql as $$
  select relname::text
  from pg_inherits
  join pg_class on pg_class.oid = inhrelid
  where inhparent = 'billing.usage_records'::regclass
    and relname like 'usage\_records\_203%'
  order by relname;
$$;
create function pg_temp.record(p_key text) returns void
language sql as $$
  select billing.record_usage('exports', 1, md5('ann')::uuid, p_key);
$$;

-- ---- none is lost -----------------------------------------------------------

select pg_temp.record('early');
select is(
  (select tableoid::regclass::text from billing.usage_records), 'billing_private.usage_records_default',
  'a record whose month has no partition is kept'
);

-- ---- made ahead -------------------------------------------------------------

select is(billing_private.run_task('keep_usage'), 'succeeded', 'the task runs');
select results_eq(
  $$ select * from pg_temp.partitions() $$,
  array['usage_records_2030_01', 'usage_records_2030_02', 'usage_records_2030_03'],
  'this month and the next two have partitions'
);
select is(
  (select tableoid::regclass::text from billing.usage_records),
  'billing_private.usage_records_2030_01',
  'what was waiting is moved into its own'
);
select pg_temp.record('early');
select is((select count(*) from billing.usage_records), 1::bigint, 'where its key is known');
select is(billing_private.add_usage_partitions(), 0::bigint, 'twice: once');
select tests.set_time('2030-02-01');
select pg_temp.record('next');
select is(
  (select tableoid::regclass::text from billing.usage_records where idempotency_key = 'next'),
  'billing_private.usage_records_2030_02',
  'a record goes where it belongs'
);
select is_empty(
  $$
    select relname
    from pg_class
    where relname like 'usage\_records\_203%'
      and relkind = 'r'
      and (
        not relrowsecurity
        or has_table_privilege('service_role', oid, 'select')
        or obj_description(oid) is null
      )
  $$,
  'nobody gets at a partition past its table''s policy'
);

-- ---- pruned -----------------------------------------------------------------

select tests.set_time('2030-04-30 23:59');
select billing_private.run_task('keep_usage');
select ok(
  'usage_records_2030_01' in (select * from pg_temp.partitions()),
  'records are kept for three months'
);
select tests.set_time('2030-05-01');
select billing_private.run_task('keep_usage');
select is(
  (select min(partition) from pg_temp.partitions() as partition), 'usage_records_2030_02',
  'then their partition goes'
);
select is(
  (select sum(used) from billing.usage_totals), 2::numeric,
  'totals stay'
);
update billing_private.settings set usage_records_kept = '1 day' where only_row;
select billing_private.run_task('keep_usage');
select is(
  (select min(partition) from pg_temp.partitions() as partition), 'usage_records_2030_03',
  'a shorter retention'
);
select is(
  (select max(partition) from pg_temp.partitions() as partition), 'usage_records_2030_07',
  'leaves the months in which keys are looked for'
);

select * from finish();
rollback;
