-- billing_private.enqueue_meter_event(): usage becomes a report to a meter of Stripe's, once.
begin;
\ir ../helpers.psql
select plan(23);

select tests.set_time('2026-03-10 12:00');
select tests.account('ann');

create function tests.report(
  p_name text default 'r1',
  p_occurred_at timestamptz default '2026-03-10 11:59:30',
  p_value numeric default 3
) returns void
language sql as $$
  select billing_private.enqueue_meter_event(
    md5(p_name)::uuid, md5('ann')::uuid, 'pages', p_value, p_occurred_at);
$$;
create view tests.reports as
select id, status, method, path, params, account_id, last_error #>> '{error,code}' as error_code,
  attempts, idempotency_key
from billing_private.commands
where kind = 'meter_event';
create function tests.answer(p_http_status integer, p_response jsonb) returns text
language sql as $$
  select outcome.status
  from billing.claim_commands() as claimed
  cross join lateral billing.complete_command(
    claimed.id, claimed.lease, p_http_status, p_response) as outcome;
$$;
savepoint s;

-- ---- a report ---------------------------------------------------------------

select tests.report();
select results_eq(
  'select id, status, method, path, params, account_id from tests.reports',
  format($$
    values (md5('r1')::uuid, 'pending', 'POST', '/v1/billing/meter_events', '{
      "event_name": "pages", "identifier": "%s", "timestamp": 1773143970,
      "payload": {"stripe_customer_id": "cus_ann", "value": "3"}}'::jsonb, null::uuid)
  $$, md5('r1')::uuid),
  'G3: usage is reported under its own id, with its time, in texts, and in nobody''s line'
);
select tests.report();
select is((select count(*) from tests.reports), 1::bigint, 'G3: the same id is reported once');
select tests.be_service();
select results_eq(
  'select id, idempotency_key, method, path from billing.claim_commands()',
  $$ values (md5('r1')::uuid, md5('r1')::uuid, 'POST', '/v1/billing/meter_events') $$,
  'the dispatcher is given it'
);
select tests.be_owner();
rollback to s;

select tests.report();
select is(
  tests.answer(200, '{"object": "billing.meter_event", "identifier": "x", "livemode": false}'),
  'succeeded', 'Stripe takes it'
);
select is_empty(
  $$ select * from billing_private.stripe_events where source <> 'webhook' $$,
  'and tells nothing that would have to be stored'
);
select tests.report();
select is((select status from tests.reports), 'succeeded', 'it is not reported again after that');
rollback to s;

select billing_private.enqueue_command('undo_cancel', md5('ann')::uuid, '/v1/subscriptions/x') is not null as asked;
select tests.report('r1');
select tests.report('r2');
select is(
  (select count(*) from billing.claim_commands()), 3::bigint,
  'reports of an account go out side by side, and hold up nothing its user waits for'
);
rollback to s;

insert into billing_private.meters (stripe_meter_id, event_name, customer_key, value_key)
values ('mtr_1', 'pages', 'customer', 'count');
select tests.report(p_value => 0.25);
select is(
  (select params -> 'payload' from tests.reports), '{"customer": "cus_ann", "count": "0.25"}',
  'a meter''s own keys are used'
);
rollback to s;

-- ---- times Stripe takes -----------------------------------------------------

select tests.report('r1', '2026-02-03 12:00:00');
select is((select status from tests.reports), 'pending', 'usage of 35 days ago is reported');
rollback to s;
select tests.report('r1', '2026-02-03 11:59:59');
select results_eq(
  'select status, error_code from tests.reports', $$ values ('dead', 'timestamp_out_of_range') $$,
  'usage older than that is not, and stands in the backlog with the reason'
);
select isnt_empty(
  $$ select * from billing_admin.critical_issues where issue = 'dead_command' $$,
  'where admins find it'
);
select is_empty('select * from billing.claim_commands()', 'nobody carries it');
rollback to s;
select tests.report('r1', '2026-03-10 12:05:00');
select is((select status from tests.reports), 'pending', 'clocks may differ by five minutes');
rollback to s;
select tests.report('r1', '2026-03-10 12:05:01');
select is((select status from tests.reports), 'dead', 'not by more');
rollback to s;

-- ---- sending again ----------------------------------------------------------

select tests.report();
select is(tests.answer(503, '{}'), 'pending', 'when Stripe is busy');
select tests.set_time('2026-03-11 10:59:59');
select is(
  (select params ->> 'identifier' from billing.claim_commands()), md5('r1')::uuid::text,
  'G3: within 23 hours it is sent again: Stripe knows the identifier for 24'
);
rollback to s;
select tests.report();
select tests.answer(503, '{}');
select tests.set_time('2026-03-11 11:00:00');
select is_empty(
  'select * from billing.claim_commands()',
  'G3: after that Stripe could count it twice: it is not sent again'
);
select billing_private.give_up_old_commands(10);
select results_eq(
  'select status, error_code from tests.reports', $$ values ('dead', 'too_old') $$,
  'but given up, with the reason'
);
select throws_ok(
  $$ select billing_admin.retry_command(md5('r1')::uuid, 'a try') $$,
  'PT422', 'the command is too old to be made', 'nor can anybody have it sent again'
);
rollback to s;

select tests.report();
select is(
  tests.answer(400, '{"error": {"code": "no_meter_found", "message": "No meter"}}'), 'dead',
  'a report Stripe refuses is given up'
);
select lives_ok(
  $$ select billing_admin.retry_command(md5('r1')::uuid, 'the meter is there now') $$,
  'until somebody has mended the cause'
);
select tests.set_time('2026-03-10 12:01');
select is(
  (select params ->> 'identifier' from billing.claim_commands()), md5('r1')::uuid::text,
  'it then goes out with the same identifier'
);
rollback to s;

-- ---- an account Stripe does not know ----------------------------------------

select throws_ok(
  $$
    select billing_private.enqueue_meter_event(
      md5('r1')::uuid, md5('bob')::uuid, 'pages', 1, '2026-03-10')
  $$,
  'PT404', 'the account is not a customer yet',
  'there is nobody to report about'
);

select * from finish();
rollback;
