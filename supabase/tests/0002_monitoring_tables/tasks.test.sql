-- What runs by itself and what was found: tasks, task_runs, health_checks, entitlement_corrections.
begin;
\ir ../helpers.psql
select plan(23);

select tests.set_time('2026-01-10');

-- ---- tasks ------------------------------------------------------------------

prepare add_task(text, interval) as
insert into billing_private.tasks (key, description, function_name, run_every)
values ($1, 'do something', 'task_something', $2);

select lives_ok($$ execute add_task('often', '1 microsecond') $$, 'a task may run very often');

select throws_ok(
  $$ execute add_task('always', '0') $$,
  '23514', 'new row for relation "tasks" violates check constraint "tasks_run_every_is_positive"',
  'but not without a pause'
);

select throws_ok(
  $$ execute add_task('before', '-1 minute') $$,
  '23514', 'new row for relation "tasks" violates check constraint "tasks_run_every_is_positive"',
  'and not backwards'
);

select lives_ok($$ execute add_task('rarely', '400 days') $$, 'or hardly ever');

select throws_ok(
  $$ execute add_task('monthly', '1 month') $$,
  '23514', 'new row for relation "tasks" violates check constraint "tasks_run_every_has_no_months"',
  'but not by months, which differ in length'
);

select throws_ok(
  $$ execute add_task('yearly', '1 year') $$,
  '23514', 'new row for relation "tasks" violates check constraint "tasks_run_every_has_no_months"',
  'or years'
);

select throws_ok(
  $$ execute add_task('often', '1 hour') $$,
  '23505', 'duplicate key value violates unique constraint "tasks_pkey"',
  'a task is registered once'
);

select row_eq(
  $$
    select is_enabled, next_run_at, last_run_at, consecutive_failures, resume_after
    from billing_private.tasks
    where key = 'often'
  $$,
  row(true, null::timestamptz, null::timestamptz, 0, null::text),
  'a new task is on, due at the next heartbeat, and has never failed'
);

-- ---- runs -------------------------------------------------------------------

prepare add_run(text, text) as
insert into billing_private.task_runs (task_key, started_at, duration, outcome)
values ($1, '2026-01-10', '1 second', $2);

select lives_ok($$ execute add_run('often', 'succeeded') $$, 'a run may succeed');
select lives_ok($$ execute add_run('often', 'failed') $$, 'or fail');

select throws_ok(
  $$ execute add_run('often', 'skipped') $$,
  '23514', 'new row for relation "task_runs" violates check constraint '
    '"task_runs_outcome_is_known"',
  'what did not run is no run'
);

select throws_ok(
  $$ execute add_run('never_heard_of', 'succeeded') $$,
  '23503', 'insert or update on table "task_runs" violates foreign key constraint '
    '"task_runs_task_key_fkey"',
  'a run is of some task'
);

delete from billing_private.tasks where key = 'often';
select is_empty(
  $$ select from billing_private.task_runs where task_key = 'often' $$,
  'the log of a task goes with it'
);

-- ---- health -----------------------------------------------------------------

prepare add_check(text, text) as
insert into billing_private.health_checks (check_key, status, summary, checked_at, since)
values ($1, $2, 'as it is', '2026-01-10', '2026-01-10');

select lives_ok(
  format('execute add_check(%L, %L)', 'example of ' || status, status),
  format('what is checked may be %s', status)
)
from unnest(array['healthy', 'degraded', 'unhealthy']) as status;

select throws_ok(
  $$ execute add_check('example', 'fine') $$,
  '23514', 'new row for relation "health_checks" violates check constraint '
    '"health_checks_status_is_known"',
  'and nothing else'
);

select throws_ok(
  $$ execute add_check('example of healthy', 'unhealthy') $$,
  '23505', 'duplicate key value violates unique constraint "health_checks_pkey"',
  'a check has one latest result'
);

-- ---- corrections ------------------------------------------------------------

select billing_private.ensure_account(md5('ann')::uuid);

prepare add_correction(text, text) as
insert into billing_private.entitlement_corrections (account_id, feature_key, problem)
values (md5($1)::uuid, 'premium', $2);

select lives_ok(
  format('execute add_correction(%L, %L)', 'ann', problem),
  format('an entitlement may have been %s', problem)
)
from unnest(array['missing', 'surplus', 'different']) as problem;

select throws_ok(
  $$ execute add_correction('ann', 'odd') $$,
  '23514', 'new row for relation "entitlement_corrections" violates check constraint '
    '"entitlement_corrections_problem_is_known"',
  'and nothing else'
);

select throws_ok(
  $$ execute add_correction('nobody', 'missing') $$,
  '23503', 'insert or update on table "entitlement_corrections" violates foreign key constraint '
    '"entitlement_corrections_account_id_fkey"',
  'a correction is about some account'
);

select * from finish();
rollback;
