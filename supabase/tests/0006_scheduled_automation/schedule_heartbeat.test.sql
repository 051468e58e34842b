-- billing_private.schedule_heartbeat(): one pg_cron job of ours, however often it is asked for.
begin;
\ir ../helpers.psql
select plan(8);

-- cron.job is read in dynamic SQL: it is not there where pg_cron is not.
create function pg_temp.jobs(p_name text default 'pg-subscriptions heartbeat') returns text[]
language plpgsql as $$
declare
  v_jobs text[];
begin
  execute $cron$
    select array_agg(format('%s %s as %s in %s', schedule, command, username, database))
    from cron.job
    where jobname = $1 and active
  $cron$
  into v_jobs
  using p_name;
  return v_jobs;
end;
$$;

create function pg_temp.with_cron() returns setof text
language plpgsql as $$
begin
  if not exists (select from pg_extension where extname = 'pg_cron') then
    return next is(
      billing_private.schedule_heartbeat(), false,
      'without pg_cron nothing is scheduled, and the answer says so');
    return query select * from skip('pg_cron is not installed', 5);
    return;
  end if;

  return next is(
    pg_temp.jobs(),
    array[format(
      '* * * * * select billing_private.run_due_tasks() as postgres in %s', current_database())],
    'installing has scheduled one job: every minute, as postgres, in this database');
  return next is_empty(
    $cron$
      select * from cron.job
      where command like '%billing%' and jobname <> 'pg-subscriptions heartbeat'
    $cron$,
    'installing has scheduled no other job');

  execute $cron$ select cron.schedule('somebody else''s', '0 0 * * *', 'select 1') $cron$;
  return next is(
    billing_private.schedule_heartbeat(), true,
    'scheduling again says that it is scheduled'
  );
  return next is(
    cardinality(pg_temp.jobs()), 1, 'scheduling again keeps one job, owned by postgres');

  execute $cron$ select cron.unschedule('pg-subscriptions heartbeat') $cron$;
  perform billing_private.schedule_heartbeat();
  return next is(
    cardinality(pg_temp.jobs()), 1, 'a job somebody removed is scheduled anew');
  return next is(
    cardinality(pg_temp.jobs('somebody else''s')), 1, 'nobody else''s job is touched');
end;
$$;
select * from pg_temp.with_cron();

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select billing_private.schedule_heartbeat() $$,
  '42501', 'permission denied for schema billing_private',
  'the service cannot schedule anything'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing_private.schedule_heartbeat() $$,
  '42501', 'permission denied for schema billing_private',
  'a user cannot schedule anything'
);

select * from finish();
rollback;
