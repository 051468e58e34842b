-- billing_admin.tasks, task_runs and run_task(): what runs by itself, and running it by hand.
begin;
\ir ../helpers.psql
select plan(23);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10 12:00:30');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
select tests.subscribe('ann');

create function billing_private.task_breaks() returns bigint
language plpgsql as $$
begin
  raise exception 'the disk is full';
end;
$$;
insert into billing_private.tasks (key, description, function_name, run_every)
values ('breaks', 'breaks', 'task_breaks', '1 minute');
update billing_private.tasks set is_enabled = false where key = 'check_health';
create temporary table registered as select count(*) from billing_private.tasks;
grant select on registered to public;

-- ---- the views --------------------------------------------------------------

select tests.sign_in('ada');
select results_eq(
  $$
    select key, run_every, is_enabled, next_run_at, last_run_at, consecutive_failures
    from billing_admin.tasks
    where key in ('check_health', 'clean_up')
  $$,
  $$
    values
      ('check_health', '5 minutes'::interval, false, null::timestamptz, null::timestamptz, 0),
      ('clean_up', '1 hour', true, null, null, 0)
  $$,
  'the view shows what runs how often, and what is switched off'
);
select is(
  (select count(*) from billing_admin.tasks), (select count from registered),
  'the view shows every task'
);
select is_empty($$ select * from billing_admin.task_runs $$, 'nothing has run yet');

-- ---- by hand ----------------------------------------------------------------

select is(
  billing_admin.run_task('clean_up', 'the disk is full'), 'succeeded',
  'an administrator runs a task'
);
select results_eq(
  $$
    select task_key, started_at, outcome, rows_affected, error
    from billing_admin.task_runs
  $$,
  $$
    values ('clean_up', '2026-01-10 12:00:30'::timestamptz, 'succeeded', 0::bigint, null::jsonb)
  $$,
  'the run is on record like any other'
);
select is(
  (select format('%s %s', last_run_at::timestamp, next_run_at::timestamp)
    from billing_admin.tasks where key = 'clean_up'),
  '2026-01-10 12:00:30 2026-01-10 13:00:00',
  'the task knows that it ran, and goes on as planned'
);
select is(
  billing_admin.run_task('clean_up', 'again'), 'succeeded',
  'it may be run twice, due or not'
);
select is(
  billing_admin.run_task('check_health', 'just this once'), 'succeeded',
  'a task that is switched off may be run by hand'
);
select is(
  (select is_enabled from billing_admin.tasks where key = 'check_health'), false,
  'and stays switched off'
);
select is(
  billing_admin.run_task('breaks', 'is it repaired?'), 'failed',
  'a task that fails says so, and is no error of the call'
);
select is(
  (select format('%s %s', task_key, error ->> 'message') from billing_admin.task_runs limit 1),
  'breaks the disk is full',
  'the newest run comes first, with its error'
);
select is(
  (select consecutive_failures from billing_admin.tasks where key = 'breaks'), 1,
  'its failures are counted'
);

-- ---- with the owner's rights ------------------------------------------------

select tests.set_time('2026-02-10 03:00');
select is(
  billing_admin.run_task('expire_subscriptions', 'the heartbeat is down'), 'succeeded',
  'a task runs with the rights of the heartbeat, whoever runs it'
);
select is(
  (select rows_affected from billing_admin.task_runs limit 1), 1::bigint,
  'it does what the heartbeat would have done'
);

-- ---- errors -----------------------------------------------------------------

select throws_ok(
  $$ select billing_admin.run_task('no_such_task', 'a typo') $$,
  'PT404', 'there is no such task',
  'a task that does not exist cannot be run'
);
select throws_ok(
  $$ select billing_admin.run_task(null, 'a typo') $$,
  'PT404', 'there is no such task',
  'no task cannot be run'
);
select throws_ok(
  $$ select billing_admin.run_task('clean_up', null) $$,
  'PT400', 'the request is not valid',
  'running a task needs a reason'
);

-- ---- a user, the service, a visitor -----------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.run_task('clean_up', 'curious') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot run a task'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.run_task('clean_up', 'curious') $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot run a task'
);
select tests.be_service();
select is(
  billing_admin.run_task('clean_up', 'a script'), 'succeeded',
  'the service may run a task'
);

-- ---- the audit --------------------------------------------------------------

select tests.be_owner();
select results_eq(
  $$
    select actor_id, cause ->> 'kind', cause ->> 'reference'
    from billing_private.audit_log
    where table_name = 'billing.entitlements' and operation = 'delete'
    limit 1
  $$,
  $$ values (md5('ada')::uuid, 'task', 'expire_subscriptions') $$,
  'the audit names the task, and who ran it'
);
select results_eq(
  $$
    select after ->> 'subject', after ->> 'reason', actor_role
    from billing_private.audit_log
    where table_name = 'billing_private.admin_actions'
    order by id
  $$,
  $$
    values
      ('clean_up', 'the disk is full', 'authenticated'),
      ('clean_up', 'again', 'authenticated'),
      ('check_health', 'just this once', 'authenticated'),
      ('breaks', 'is it repaired?', 'authenticated'),
      ('expire_subscriptions', 'the heartbeat is down', 'authenticated'),
      ('clean_up', 'a script', 'service_role')
  $$,
  'the audit says who ran what, and why'
);

-- ---- only the newest --------------------------------------------------------

insert into billing_private.task_runs (task_key, started_at, duration, outcome)
select 'clean_up', '2026-01-10', '1 second', 'succeeded' from generate_series(1, 1000);
select is(
  (select count(*) from billing_admin.task_runs), 1000::bigint,
  'the view shows the last thousand runs'
);

select * from finish();
rollback;
