-- The task registry as installed: what runs by itself, and how often.
begin;
\ir ../helpers.psql
select plan(6);

select results_eq(
  $$ select key, run_every, is_enabled from billing_private.tasks order by key $$,
  $$
    values
      ('apply_scheduled_changes', '1 minute'::interval, true),
      ('check_health', '5 minutes', true),
      ('check_money', '5 minutes', true),
      ('clean_up', '1 hour', true),
      ('expire_subscriptions', '1 minute', true),
      ('give_up_commands', '1 minute', true),
      ('keep_usage', '1 hour', true),
      ('migrate_plans', '1 minute', true),
      ('rebuild', '10 minutes', true),
      ('recount_metered_tables', '10 minutes', true),
      ('request_rereads', '5 minutes', true),
      ('retry_events', '1 minute', true),
      ('ring_dispatcher', '1 minute', true),
      ('run_dunning', '1 minute', true),
      ('scan_security', '1 minute', true),
      ('settle_accounts', '1 minute', true),
      ('settle_contracts', '1 minute', true),
      ('sweep_events', '1 hour', true),
      ('sweep_objects', '7 days', true),
      ('sync_seats', '5 minutes', true),
      ('tell_customers', '1 minute', true),
      ('tend_usage', '1 minute', true),
      ('validate_entitlements', '10 minutes', true)
  $$,
  'these tasks run by themselves'
);
select is_empty(
  $$ select key from billing_private.tasks where description = '' $$,
  'every task says what it does'
);
select is_empty(
  $$
    select key
    from billing_private.tasks
    left join pg_proc
      on proname = function_name
      and pronamespace = 'billing_private'::regnamespace
      and pronargs = 0
      and prorettype = 'bigint'::regtype
    where pg_proc.oid is null
  $$,
  'every task is a function without arguments that counts what it changed'
);
select is_empty(
  $$
    select proname
    from pg_proc
    where pronamespace = 'billing_private'::regnamespace
      and proname like 'task\_%'
      and proname not in (select function_name from billing_private.tasks)
  $$,
  'every task function is registered'
);
select throws_ok(
  $$
    insert into billing_private.tasks (key, description, function_name, run_every)
    values ('monthly', 'something', 'task_clean_up', '1 month')
  $$,
  '23514',
  'new row for relation "tasks" violates check constraint "tasks_run_every_has_no_months"',
  'a task cannot run every month: months have no grid'
);
select throws_ok(
  $$ update billing_private.tasks set run_every = '1 year' where key = 'clean_up' $$,
  '23514',
  'new row for relation "tasks" violates check constraint "tasks_run_every_has_no_months"',
  'a task cannot run every year'
);

select * from finish();
rollback;
