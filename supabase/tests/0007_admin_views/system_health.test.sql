-- billing_admin.system_health: every check as of now, with the overall verdict.
begin;
\ir ../helpers.psql
select plan(11);

select tests.take_tasks();
select tests.set_time('2026-01-10 12:00');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

-- The overall verdict, and how many checks are not healthy.
create function pg_temp.verdict() returns text
language sql as $$
  select format(
    '%s: all but %s', status, (select count(*) - 1 from billing_admin.system_health) - value)
  from billing_admin.system_health
  where check_key = 'overall';
$$;

-- ---- a healthy system -------------------------------------------------------

select billing_private.run_due_tasks();
select tests.sign_in('ada');
select is(pg_temp.verdict(), 'healthy: all but 0', 'a new system is healthy');
select is(
  (select array_agg(check_key order by check_key) from billing_admin.system_health),
  array[
    'commands', 'corrections', 'dead_commands', 'dead_events', 'doorbell', 'drift',
    'failed_events', 'heartbeat', 'meter_errors', 'money', 'other_livemode', 'overall',
    'reconciliation', 'tasks'],
  'every check is listed, and the verdict'
);
select is(
  (select check_key from billing_admin.system_health limit 1), 'overall',
  'the verdict comes first'
);
select is(
  (select since from billing_admin.system_health where check_key = 'dead_events'),
  '2026-01-10 12:00'::timestamptz,
  'a check says since when it has been so'
);

-- ---- a warning --------------------------------------------------------------

select tests.be_owner();
insert into billing_private.stripe_events
  (event_id, type, livemode, occurred_at, payload, status)
values ('evt_1', 'customer.created', false, '2026-01-10', '{}', 'failed');
select tests.sign_in('ada');
select is(
  pg_temp.verdict(), 'degraded: all but 1',
  'one warning degrades the whole, at once and without a job'
);
select results_eq(
  $$
    select status, value, summary, since
    from billing_admin.system_health
    where check_key = 'failed_events'
  $$,
  $$
    values ('degraded', 1::numeric, '1 events waiting to be tried again', null::timestamptz)
  $$,
  'a check says what it saw; since when is not known before it is recorded'
);

-- ---- a fault ----------------------------------------------------------------

select tests.be_owner();
update billing_private.stripe_events set status = 'dead' where event_id = 'evt_1';
select tests.set_time('2026-01-10 12:03');
select tests.sign_in('ada');
select is(
  pg_temp.verdict(), 'unhealthy: all but 2',
  'one fault makes the whole unhealthy, whatever else is only a warning'
);
select tests.be_owner();
select tests.set_time('2026-01-10 12:05');
select billing_private.run_due_tasks();
select tests.set_time('2026-01-10 12:06');
select tests.sign_in('ada');
select is(
  (select since from billing_admin.system_health where check_key = 'dead_events'),
  '2026-01-10 12:05'::timestamptz,
  'once recorded, a fault says since when'
);

-- ---- others -----------------------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  'select * from billing_admin.system_health',
  'PT403', 'this needs a billing administrator',
  'a user is refused'
);
select tests.sign_out();
select throws_ok(
  'select * from billing_admin.system_health',
  '42501', 'permission denied for schema billing_admin',
  'a visitor is refused'
);
select tests.be_service();
select isnt_empty('select * from billing_admin.system_health', 'the service may look');

select * from finish();
rollback;
