-- billing_private.run_due_tasks(): the heartbeat runs what is due, once, and one failure stops
-- nothing else.
begin;
\ir ../helpers.psql
select plan(38);

select tests.take_tasks();
-- Seven to look at, whatever else is registered.
delete from billing_private.tasks
where key not in (
  'apply_scheduled_changes', 'check_health', 'clean_up', 'expire_subscriptions', 'retry_events',
  'scan_security', 'validate_entitlements');

create function pg_temp.next_runs() returns text[]
language sql as $$
  select array_agg(format('%s %s', key, next_run_at::timestamp) order by key)
  from billing_private.tasks;
$$;

create function pg_temp.runs() returns text[]
language sql as $$
  select coalesce(array_agg(format('%s %s', task_key, outcome) order by task_key), '{}')
  from billing_private.task_runs
  where started_at = billing_private.now();
$$;

-- ---- the first heartbeat ----------------------------------------------------

select tests.set_time('2026-01-10 12:00:30');
select is(billing_private.run_due_tasks(), 7, 'the first heartbeat runs every task');
select is(
  pg_temp.runs(),
  array[
    'apply_scheduled_changes succeeded', 'check_health succeeded', 'clean_up succeeded',
    'expire_subscriptions succeeded', 'retry_events succeeded', 'scan_security succeeded',
    'validate_entitlements succeeded'],
  'every run is recorded with what came of it'
);
select is_empty(
  $$
    select *
    from billing_private.task_runs
    where rows_affected is null or duration < interval '0' or error is not null
  $$,
  'every run is recorded with the rows it changed and the time it took'
);
select is(
  pg_temp.next_runs(),
  array[
    'apply_scheduled_changes 2026-01-10 12:01:00', 'check_health 2026-01-10 12:05:00',
    'clean_up 2026-01-10 13:00:00', 'expire_subscriptions 2026-01-10 12:01:00',
    'retry_events 2026-01-10 12:01:00', 'scan_security 2026-01-10 12:01:00',
    'validate_entitlements 2026-01-10 12:10:00'],
  'the next run of each is on the grid of its period, so that runs do not drift'
);
select is_empty(
  $$
    select *
    from billing_private.tasks
    where last_run_at is distinct from billing_private.now()
  $$,
  'each task knows when it ran last'
);

-- ---- not before it is due ---------------------------------------------------

select is(billing_private.run_due_tasks(), 0, 'a second heartbeat at once runs nothing');
select tests.set_time('2026-01-10 12:00:59');
select is(billing_private.run_due_tasks(), 0, 'a task does not run before its time');
select tests.set_time('2026-01-10 12:01:00');
select is(billing_private.run_due_tasks(), 4, 'a task runs in the second it is due');
select is(
  pg_temp.runs(),
  array[
    'apply_scheduled_changes succeeded', 'expire_subscriptions succeeded',
    'retry_events succeeded', 'scan_security succeeded'],
  'only those run that are due'
);
select is(
  (select next_run_at from billing_private.tasks where key = 'retry_events'),
  '2026-01-10 12:02:00'::timestamptz,
  'a run in the second it is due plans the one after'
);

-- ---- a long pause -----------------------------------------------------------

select tests.set_time('2026-01-12 09:07:13');
select is(billing_private.run_due_tasks(), 7, 'after a long pause every task catches up');
select is(
  (select array_agg(distinct count) from (
    select count(*)
    from billing_private.task_runs
    where started_at = billing_private.now()
    group by task_key) as runs),
  array[1::bigint],
  'however many runs were missed, one makes up for all'
);
select is(
  (select array_agg(distinct next_run_at::timestamp order by next_run_at::timestamp)
    from billing_private.tasks),
  array['2026-01-12 09:08', '2026-01-12 09:10', '2026-01-12 10:00']::timestamp[],
  'after the pause the grid goes on'
);

-- ---- disabled tasks ---------------------------------------------------------

update billing_private.tasks set is_enabled = false where key = 'retry_events';
select tests.set_time('2026-01-12 09:08');
select is(billing_private.run_due_tasks(), 3, 'a disabled task does not run');
select is(
  (select last_run_at from billing_private.tasks where key = 'retry_events'),
  '2026-01-12 09:07:13'::timestamptz,
  'a disabled task stays as it was'
);
update billing_private.tasks set is_enabled = true where key = 'retry_events';
select is(billing_private.run_due_tasks(), 1, 'an enabled task catches up with the next heartbeat');

-- ---- failing tasks ----------------------------------------------------------

create function billing_private.task_breaks() returns bigint
language plpgsql as $$
begin
  insert into billing.features (key, name) values ('half-done', 'Half done');
  raise exception 'the disk is full';
end;
$$;
create function billing_private.task_counts() returns bigint
language plpgsql as $$
begin
  return 3;
end;
$$;
insert into billing_private.tasks (key, description, function_name, run_every) values
  ('a_breaks', 'breaks', 'task_breaks', '1 minute'),
  ('b_missing', 'has no function', 'task_nobody_wrote', '1 minute'),
  ('c_counts', 'counts to three', 'task_counts', '1 minute');

select tests.set_time('2026-01-12 09:09');
select is(billing_private.run_due_tasks(), 7, 'a task that fails stops no other');
select is(
  pg_temp.runs(),
  array[
    'a_breaks failed', 'apply_scheduled_changes succeeded', 'b_missing failed',
    'c_counts succeeded', 'expire_subscriptions succeeded', 'retry_events succeeded',
    'scan_security succeeded'],
  'what failed and what succeeded is recorded'
);
select is(
  (select error ->> 'message' from billing_private.task_runs where task_key = 'a_breaks'),
  'the disk is full',
  'a failure is recorded with its message'
);
select matches(
  (select error ->> 'context' from billing_private.task_runs where task_key = 'a_breaks'),
  'task_breaks\(\) line 4 at RAISE',
  'a failure is recorded with its place'
);
select is(
  (select error ->> 'message' from billing_private.task_runs where task_key = 'b_missing'),
  'function billing_private.task_nobody_wrote() does not exist',
  'a task without a function is a failure like any other'
);
select is_empty(
  $$ select * from billing.features where key = 'half-done' $$,
  'nothing of what a failed task did remains'
);
select is(
  (select rows_affected from billing_private.task_runs where task_key = 'c_counts'),
  3::bigint,
  'the rows a task changed are recorded'
);
select is_empty(
  $$
    select *
    from billing_private.task_runs
    where outcome = 'failed' and rows_affected is not null
  $$,
  'a failed run changed no rows'
);

-- ---- backing off ------------------------------------------------------------

-- How long each of eleven failures in a row puts the next try off, in minutes.
create function pg_temp.waits(p_key text, p_tries integer) returns numeric[]
language plpgsql as $$
declare
  v_waits numeric[] := '{}';
  v_next timestamptz;
begin
  for v_try in 1..p_tries loop
    select next_run_at into v_next from billing_private.tasks where key = p_key;
    v_waits := v_waits || round(extract(epoch from v_next - billing_private.now()) / 60, 1);
    perform tests.set_time(v_next);
    perform billing_private.run_due_tasks();
  end loop;
  return v_waits;
end;
$$;

select is(
  pg_temp.waits('a_breaks', 11),
  array[1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]::numeric[],
  'a failing task is tried less and less often, at least once an hour'
);
select is(
  (select consecutive_failures from billing_private.tasks where key = 'a_breaks'), 12,
  'its failures in a row are counted'
);
select is(
  (select count(*) from billing_private.task_runs where task_key = 'a_breaks'), 12::bigint,
  'it is tried no more often than that'
);

create or replace function billing_private.task_breaks() returns bigint
language plpgsql as $$
begin
  return 0;
end;
$$;
select tests.set_time((select next_run_at + interval '7 seconds'
  from billing_private.tasks where key = 'a_breaks'));
select billing_private.run_due_tasks();
select results_eq(
  $$
    select consecutive_failures, next_run_at - billing_private.now()
    from billing_private.tasks
    where key = 'a_breaks'
  $$,
  $$ values (0, '53 seconds'::interval) $$,
  'once it succeeds it is back on its grid, as if nothing had been'
);

insert into billing_private.tasks (key, description, function_name, run_every)
values ('d_daily', 'breaks each day', 'task_nobody_wrote', '1 day');
select billing_private.run_due_tasks();
select is(
  pg_temp.waits('d_daily', 3), array[1440, 1440, 1440]::numeric[],
  'a rare task that fails is tried as often as planned'
);

-- ---- in order ---------------------------------------------------------------

update billing_private.tasks set is_enabled = key in ('a_breaks', 'c_counts', 'retry_events')
where key is not null;
update billing_private.tasks
set next_run_at = billing_private.now() - case key
  when 'c_counts' then interval '3 minutes'
  when 'a_breaks' then interval '2 minutes'
  else interval '1 minute'
end
where key is not null;
insert into billing_private.tasks (key, description, function_name, run_every)
values ('e_new', 'new', 'task_counts', '1 minute');
delete from billing_private.task_runs where id is not null;
select is(billing_private.run_due_tasks(), 4, 'four tasks are due');
select is(
  (select array_agg(task_key order by id) from billing_private.task_runs),
  array['e_new', 'c_counts', 'a_breaks', 'retry_events'],
  'a new task runs first, then those that are due longest'
);

-- ---- the cause --------------------------------------------------------------

create or replace function billing_private.task_counts() returns bigint
language plpgsql as $$
begin
  insert into billing.stores (key, name) values ('made-by-a-task', 'x');
  return 1;
end;
$$;
select is(billing_private.run_task('c_counts'), 'succeeded', 'a task can be run by name');
select results_eq(
  $$
    select cause ->> 'kind', cause ->> 'reference', actor_id, actor_role
    from billing_private.audit_log
    where table_name = 'billing.stores' and after ->> 'key' = 'made-by-a-task'
  $$,
  $$ values ('task', 'c_counts', null::uuid, 'postgres'::text) $$,
  'what a task changes is caused by the task'
);
select is(
  billing_private.run_task('c_counts'), 'failed',
  'running a task by name says that it failed'
);
select throws_ok(
  $$ select billing_private.run_task('no_such_task') $$,
  'P0002', 'query returned no rows',
  'a task that is not registered cannot be run'
);

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select billing_private.run_due_tasks() $$,
  '42501', 'permission denied for schema billing_private',
  'the service is no scheduler'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing_private.run_due_tasks() $$,
  '42501', 'permission denied for schema billing_private',
  'a user cannot make the heart beat'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_private.run_due_tasks() $$,
  '42501', 'permission denied for schema billing_private',
  'a visitor cannot make the heart beat'
);

select * from finish();
rollback;
