-- billing_private.health() and the task check_health: every check, healthy and otherwise, on
-- both sides.
begin;
\ir ../helpers.psql
select plan(48);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10 12:00');
select tests.account('ann');
update billing_private.tasks set last_run_at = billing_private.now() where key is not null;

create function pg_temp.check(p_key text) returns text
language sql as $$
  select format('%s %s', status, value) from billing_private.health() where check_key = p_key;
$$;

-- ---- a healthy system -------------------------------------------------------

select results_eq(
  $$ select check_key, status from billing_private.health() order by check_key $$,
  $$
    values
      ('commands', 'healthy'), ('corrections', 'healthy'), ('dead_commands', 'healthy'),
      ('dead_events', 'healthy'), ('doorbell', 'healthy'), ('drift', 'healthy'),
      ('failed_events', 'healthy'), ('heartbeat', 'healthy'), ('meter_errors', 'healthy'),
      ('money', 'healthy'), ('other_livemode', 'healthy'),
      ('reconciliation', 'healthy'), ('tasks', 'healthy')
  $$,
  'these checks are made, and a new system passes them'
);
select is_empty(
  $$ select * from billing_private.health() where coalesce(summary, '') = '' or value is null $$,
  'every check says in words and in a figure what it saw'
);

-- ---- heartbeat --------------------------------------------------------------

select tests.set_time('2026-01-10 12:02:54');
select is(pg_temp.check('heartbeat'), 'healthy 2.9', 'a heartbeat may be two minutes late');
select tests.set_time('2026-01-10 12:03:00');
select is(pg_temp.check('heartbeat'), 'degraded 3.0', 'three minutes without a task are too many');
select tests.set_time('2026-01-10 12:09:54');
select is(pg_temp.check('heartbeat'), 'degraded 9.9', 'to ten minutes it is a delay');
select tests.set_time('2026-01-10 12:10:00');
select is(
  pg_temp.check('heartbeat'), 'unhealthy 10.0',
  'after ten minutes nobody calls the heartbeat'
);
update billing_private.tasks set last_run_at = null where key is not null;
select is(pg_temp.check('heartbeat'), 'unhealthy ', 'a heart that never beat is not well');
select is(
  (select summary from billing_private.health() where check_key = 'heartbeat'),
  'no task has run yet: nobody calls the heartbeat',
  'it says what to do about it'
);
update billing_private.tasks set last_run_at = billing_private.now() where key = 'clean_up';
select is(
  pg_temp.check('heartbeat'), 'healthy 0.0',
  'one task that ran shows that the heart beats'
);

-- ---- tasks ------------------------------------------------------------------

select is(pg_temp.check('tasks'), 'healthy 0', 'no task fails');
update billing_private.tasks set consecutive_failures = 1 where key = 'clean_up';
select is(pg_temp.check('tasks'), 'degraded 1', 'a task that failed once is a warning');
update billing_private.tasks set consecutive_failures = 2 where key = 'clean_up';
select is(pg_temp.check('tasks'), 'degraded 2', 'twice still is');
update billing_private.tasks set consecutive_failures = 3 where key = 'clean_up';
select is(pg_temp.check('tasks'), 'unhealthy 3', 'three times in a row is a fault');
update billing_private.tasks set is_enabled = false where key = 'clean_up';
select is(pg_temp.check('tasks'), 'healthy 0', 'a task somebody switched off is nobody''s fault');

-- ---- failed and dead events -------------------------------------------------

create function pg_temp.events(p_status text, p_from integer, p_to integer) returns void
language sql as $$
  insert into billing_private.stripe_events
    (event_id, type, livemode, occurred_at, payload, status)
  select 'evt_' || n, 'customer.created', false, '2026-01-10', '{}', p_status
  from generate_series(p_from, p_to) as n;
$$;

select is(pg_temp.check('failed_events'), 'healthy 0', 'no event waits to be tried again');
select pg_temp.events('failed', 1, 1);
select is(pg_temp.check('failed_events'), 'degraded 1', 'one event that waits is a warning');
select pg_temp.events('failed', 2, 98);
select pg_temp.events('pending', 99, 99);
select is(
  pg_temp.check('failed_events'), 'degraded 99',
  'to a hundred still; one that was never tried counts as well'
);
select pg_temp.events('failed', 100, 100);
select is(pg_temp.check('failed_events'), 'unhealthy 100', 'a hundred are a fault');
update billing_private.stripe_events set status = 'applied' where event_id <> '';
select pg_temp.events('discarded', 101, 101);
select is(
  pg_temp.check('failed_events') || ', ' || pg_temp.check('dead_events'), 'healthy 0, healthy 0',
  'applied and discarded events are settled'
);
select pg_temp.events('dead', 102, 102);
select is(pg_temp.check('dead_events'), 'unhealthy 1', 'one event that was given up is a fault');

-- ---- commands ---------------------------------------------------------------

create function pg_temp.command(p_name text, p_kind text default 'create_customer') returns void
language sql as $$
  insert into billing_private.commands (id, kind, account_id, path, next_attempt_at)
  values (md5(p_name)::uuid, p_kind, md5('ann')::uuid, '/v1/customers', billing_private.now());
$$;

select tests.set_time('2026-01-10 13:00');
select is(pg_temp.check('commands'), 'healthy 0', 'no command waits');
select pg_temp.command('portal', 'create_portal');
select pg_temp.command('customer');
select tests.set_time('2026-01-10 13:04:54');
select is(pg_temp.check('commands'), 'healthy 4.9', 'a command may wait a while');
select tests.set_time('2026-01-10 13:05:00');
select is(pg_temp.check('commands'), 'degraded 5.0', 'five minutes are too long');
select tests.set_time('2026-01-10 13:29:54');
select is(pg_temp.check('commands'), 'degraded 29.9', 'to half an hour it is a delay');
select tests.set_time('2026-01-10 13:30:00');
select is(pg_temp.check('commands'), 'unhealthy 30.0', 'after half an hour nobody carries them');
update billing_private.commands set next_attempt_at = '2026-01-10 14:00'
where id = md5('customer')::uuid;
select is(
  pg_temp.check('commands'), 'healthy 0',
  'a command that is put off does not wait, nor does a portal nobody opened'
);

update billing_private.commands set status = 'dead', finished_at = billing_private.now()
where id = md5('customer')::uuid;
select is(
  pg_temp.check('dead_commands'), 'unhealthy 1',
  'one command that was given up is a fault'
);
select tests.set_time('2026-01-17 13:29:59');
select is(pg_temp.check('dead_commands'), 'unhealthy 1', 'it stays one for a week');
select tests.set_time('2026-01-17 13:30:00');
select is(pg_temp.check('dead_commands'), 'healthy 0', 'after a week it is history');

-- ---- corrections ------------------------------------------------------------

create function pg_temp.corrections(p_count integer) returns void
language sql as $$
  insert into billing_private.entitlement_corrections (account_id, feature_key, problem)
  select md5('ann')::uuid, 'premium', 'missing'
  from generate_series(1, p_count);
$$;

select is(pg_temp.check('corrections'), 'healthy 0', 'nothing was corrected');
select pg_temp.corrections(1);
select is(
  pg_temp.check('corrections'), 'degraded 1',
  'one entitlement that was wrong is a warning'
);
select pg_temp.corrections(98);
select is(pg_temp.check('corrections'), 'degraded 99', 'to a hundred still');
select pg_temp.corrections(1);
select is(pg_temp.check('corrections'), 'unhealthy 100', 'a hundred in a day are a fault');
select tests.set_time('2026-01-18 13:29:59');
select is(pg_temp.check('corrections'), 'unhealthy 100', 'for a day');
select tests.set_time('2026-01-18 13:30:00');
select is(pg_temp.check('corrections'), 'healthy 0', 'after a day they are history');

-- ---- the other mode ---------------------------------------------------------

select tests.deliver(
  'evt_live', 'customer.created', '2026-01-18', '{"id": "cus_live", "object": "customer"}', null,
  '{"livemode": true}');
select is(
  pg_temp.check('other_livemode'), 'unhealthy 1',
  'E5: an event of the other Stripe mode means that somebody mixed up their keys'
);
select tests.set_time('2026-01-19 13:29:59');
select is(pg_temp.check('other_livemode'), 'unhealthy 1', 'E5: for a day');
select tests.set_time('2026-01-19 13:30:00');
select is(pg_temp.check('other_livemode'), 'healthy 0', 'E5: after a day it is history');

-- ---- the task ---------------------------------------------------------------

create function pg_temp.stored(p_key text) returns text
language sql as $$
  select format(
    '%s %s since %s, checked %s', status, value, since::timestamp, checked_at::timestamp)
  from billing_private.health_checks
  where check_key = p_key;
$$;

delete from billing_private.stripe_events where event_id <> '';
select tests.set_time('2026-01-20 12:00');
select is(
  billing_private.task_check_health(), (select count(*) from billing_private.health()),
  'the task stores every check'
);
select is(
  pg_temp.stored('failed_events'),
  'healthy 0 since 2026-01-20 12:00:00, checked 2026-01-20 12:00:00',
  'a first result is new'
);
select tests.set_time('2026-01-20 12:05');
select billing_private.task_check_health();
select is(
  pg_temp.stored('failed_events'),
  'healthy 0 since 2026-01-20 12:00:00, checked 2026-01-20 12:05:00',
  'as long as it stays so, it says since when'
);
select pg_temp.events('failed', 1, 1);
select tests.set_time('2026-01-20 12:10');
select billing_private.task_check_health();
select is(
  pg_temp.stored('failed_events'),
  'degraded 1 since 2026-01-20 12:10:00, checked 2026-01-20 12:10:00',
  'a change begins anew'
);
select pg_temp.events('failed', 2, 5);
select tests.set_time('2026-01-20 12:15');
select billing_private.task_check_health();
select is(
  pg_temp.stored('failed_events'),
  'degraded 5 since 2026-01-20 12:10:00, checked 2026-01-20 12:15:00',
  'another figure of the same verdict is no change'
);
select is(
  (select count(*) from billing_private.health_checks),
  (select count(*) from billing_private.health()),
  'each check is stored once'
);
select is(billing_private.run_task('check_health'), 'succeeded', 'the heartbeat runs it');

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select * from billing_private.health() $$,
  '42501', 'permission denied for schema billing_private',
  'the service asks billing_admin.system_health'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing_private.health() $$,
  '42501', 'permission denied for schema billing_private',
  'a user is refused'
);
select tests.sign_out();
select throws_ok(
  $$ select * from billing_private.health() $$,
  '42501', 'permission denied for schema billing_private',
  'a visitor is refused'
);

select * from finish();
rollback;
