-- billing_admin.critical_issues: what needs somebody, and nothing else.
begin;
\ir ../helpers.psql
select plan(24);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10 12:00');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

create function pg_temp.issues(p_issue text default null) returns text[]
language sql as $$
  select coalesce(
    array_agg(format('%s %s %s', severity, issue, subject) order by issue, subject), '{}')
  from billing_admin.critical_issues
  where p_issue is null or issue = p_issue;
$$;

-- ---- the normal state -------------------------------------------------------

select tests.account('ann');
select tests.subscribe('ann');
select is(pg_temp.issues(), '{}', 'a sound system has no issues');

-- ---- events -----------------------------------------------------------------

insert into billing_private.stripe_events
  (event_id, type, stripe_customer_id, livemode, occurred_at, payload, status, last_error)
values
  ('evt_failed', 'customer.created', null, false, '2026-01-10', '{}', 'failed', null),
  ('evt_discarded', 'customer.created', null, false, '2026-01-10', '{}', 'discarded', null),
  ('evt_dead', 'customer.updated', 'cus_ann', false, '2026-01-10', '{}', 'dead',
    '{"message": "no such column", "context": "a long story"}');
select is(
  pg_temp.issues(), array['critical dead_event evt_dead'],
  'D3: an event that was given up is an issue; one that will be retried, or was discarded, is none'
);
select results_eq(
  $$ select account_id, details, since from billing_admin.critical_issues $$,
  $$
    values (
      md5('ann')::uuid, '{"type": "customer.updated", "error": "no such column"}'::jsonb,
      '2026-01-10 12:00'::timestamptz)
  $$,
  'it says whose event it is, of which type, with which error, and since when'
);
delete from billing_private.stripe_events where event_id like 'evt\_d%' or event_id = 'evt_failed';

-- ---- commands ---------------------------------------------------------------

insert into billing_private.commands (id, kind, account_id, path, status, finished_at, last_error)
values
  (md5('dead')::uuid, 'update_subscription', md5('ann')::uuid, '/v1', 'dead',
    billing_private.now(), '{"http_status": 400}'),
  (md5('pending')::uuid, 'update_subscription', md5('ann')::uuid, '/v1', 'pending', null, null);
select is(
  pg_temp.issues(), array[format('critical dead_command %s', md5('dead')::uuid)],
  'a command that was given up is an issue; one that waits is none'
);
select is(
  (select details from billing_admin.critical_issues),
  '{"kind": "update_subscription", "error": {"http_status": 400}}'::jsonb,
  'it says what was to be done, and with which error'
);
select tests.set_time('2026-01-17 11:59:59');
select isnt(pg_temp.issues('dead_command'), '{}', 'it is an issue for a week');
select tests.set_time('2026-01-17 12:00:00');
select is(pg_temp.issues('dead_command'), '{}', 'after a week it is history');
select tests.set_time('2026-01-10 12:00');
delete from billing_private.commands where account_id = md5('ann')::uuid;

-- ---- customers --------------------------------------------------------------

select tests.deliver('evt_window_shopper', 'customer.created', '2026-01-10',
  '{"id": "cus_window", "object": "customer", "email": "window@example.com"}');
select is(pg_temp.issues(), '{}', 'a customer without a subscription may stay unclaimed');
select tests.subscribe('unclaimed');
select is(
  pg_temp.issues(), array['warning unbound_customer cus_unclaimed'],
  'A5: a customer who subscribes and whom nobody claims is an issue'
);
select tests.deliver(
  'evt_unclaimed_ended', 'customer.subscription.deleted', '2026-01-11',
  tests.subscription('unclaimed', 'canceled', '2026-01-10', 'price_plus_monthly',
    '{"ended_at": 1768089600}'));
select is(pg_temp.issues(), '{}', 'once the subscription has ended it is none');

-- ---- prices -----------------------------------------------------------------

select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_of_nobody');
select is(
  pg_temp.issues(), array['warning unknown_price price_of_nobody'],
  'G20: a subscription to a price nobody knows is an issue'
);
select results_eq(
  $$ select account_id, details from billing_admin.critical_issues $$,
  $$ values (md5('bob')::uuid, '{"subscription": "sub_bob"}'::jsonb) $$,
  'G20: it says whose subscription it is'
);
select tests.deliver(
  'evt_bob_ended', 'customer.subscription.deleted', '2026-01-11',
  tests.subscription('bob', 'canceled', '2026-01-10', 'price_of_nobody',
    '{"ended_at": 1768089600}'));
select is(pg_temp.issues(), '{}', 'G20: once the subscription has ended it is none');

-- ---- statuses ---------------------------------------------------------------

select tests.account('gil');
select tests.subscribe('gil', 'hibernating');
select is(
  pg_temp.issues(), array['warning unknown_status hibernating'],
  'D10: a status nobody knows is an issue'
);
select tests.deliver(
  'evt_gil_active', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('gil', 'active', '2026-01-10'));
select is(pg_temp.issues(), '{}', 'D10: once the status is known it is none');

-- ---- contradictions ---------------------------------------------------------

select tests.deliver(
  'evt_tie_1', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('gil', 'active', '2026-01-10', 'price_plus_monthly',
    '{"metadata": {"n": "1"}}'));
select tests.deliver(
  'evt_tie_2', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('gil', 'active', '2026-01-10', 'price_plus_monthly',
    '{"metadata": {"n": "2"}}'));
select is(
  pg_temp.issues(), array['warning ambiguous_object sub_gil'],
  'A1: two reports of one second that contradict each other are an issue'
);
select tests.deliver(
  'evt_tie_3', 'customer.subscription.updated', '2026-01-12 00:00:01',
  tests.subscription('gil', 'active', '2026-01-10', 'price_plus_monthly',
    '{"metadata": {"n": "3"}}'));
select is(pg_temp.issues(), '{}', 'A1: a later report settles it');

-- ---- tasks ------------------------------------------------------------------

update billing_private.tasks
set consecutive_failures = 2, last_run_at = '2026-01-10 11:59'
where key = 'clean_up';
select is(
  pg_temp.issues(), array['warning failing_task clean_up'],
  'a task that fails is an issue'
);
select results_eq(
  $$ select details, since from billing_admin.critical_issues $$,
  $$ values ('{"failures": 2}'::jsonb, '2026-01-10 11:59'::timestamptz) $$,
  'it says how often in a row, and when last'
);
update billing_private.tasks set is_enabled = false where key = 'clean_up';
select is(pg_temp.issues(), '{}', 'a task somebody switched off is none');

-- ---- others -----------------------------------------------------------------

select tests.sign_in('ada');
select is_empty('select * from billing_admin.critical_issues', 'an administrator may look');
select tests.sign_in('bob');
select throws_ok(
  'select * from billing_admin.critical_issues',
  'PT403', 'this needs a billing administrator',
  'a user is refused'
);
select tests.sign_out();
select throws_ok(
  'select * from billing_admin.critical_issues',
  '42501', 'permission denied for schema billing_admin',
  'a visitor is refused'
);
select tests.be_service();
select is_empty('select * from billing_admin.critical_issues', 'the service may look');

select * from finish();
rollback;
