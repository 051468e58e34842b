-- Detection: what counts as suspicious or broken, from which threshold on, and what becomes of it.
begin;
\ir ../helpers.psql
select plan(43);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10 12:00');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
delete from billing_private.webhook_rejections where reason <> '';
select tests.account('ann');

create function pg_temp.reject(p_reason text, p_times integer) returns void
language plpgsql as $$
begin
  perform tests.be_service();
  for v_time in 1..p_times loop
    perform billing.report_rejected_webhook(p_reason);
  end loop;
  perform tests.be_owner();
end;
$$;

create function pg_temp.alerts() returns text[]
language sql as $$
  select coalesce(array_agg(
    format('%s %s %s×%s', rule_key, fingerprint, status, sightings)
    order by first_seen_at, rule_key, fingerprint), '{}')
  from billing_private.alerts;
$$;

create function pg_temp.incidents() returns text[]
language sql as $$
  select coalesce(array_agg(format('%s %s', rule_key, status) order by opened_at, rule_key), '{}')
  from billing_private.incidents;
$$;

-- ---- the rules --------------------------------------------------------------

select results_eq(
  $$
    select key, severity, look_back, threshold, cool_down, opens_incident, is_enabled
    from billing_private.detection_rules
    order by key
  $$,
  $$
    values
      ('dead_letter', 'high', '1 day'::interval, 1, '1 day'::interval, true, true),
      ('signature_burst', 'high', '10 minutes', 20, '30 minutes', true, true)
  $$,
  'these rules are installed'
);

-- ---- bad signatures: below the threshold ------------------------------------

select is(
  billing_private.task_scan_security(), 0::bigint,
  'where nothing happens there is no alert'
);
select pg_temp.reject('SIGNATURE_INVALID', 19);
select pg_temp.reject('PAYLOAD_TOO_LARGE', 500);
select is(
  billing_private.task_scan_security(), 0::bigint,
  'nineteen bad signatures are none, nor is any number of other refusals'
);
select is(pg_temp.alerts(), '{}', 'below the threshold nothing is written');

-- ---- bad signatures: at the threshold ---------------------------------------

select tests.set_time('2026-01-10 12:05:30');
select pg_temp.reject('SIGNATURE_EXPIRED', 1);
select is(
  billing_private.task_scan_security(), 1::bigint,
  'the twentieth within ten minutes is one'
);
select results_eq(
  $$
    select rule_key, fingerprint, severity, title, details, status, first_seen_at, last_seen_at,
      sightings
    from billing_private.alerts
  $$,
  $$
    values (
      'signature_burst', 'signatures', 'high',
      '20 webhook requests were refused for their signature',
      '{"SIGNATURE_INVALID": 19, "SIGNATURE_EXPIRED": 1}'::jsonb, 'open',
      '2026-01-10 12:05:30'::timestamptz, '2026-01-10 12:05:30'::timestamptz, 1)
  $$,
  'the alert says how many of which kind'
);
select results_eq(
  $$
    select rule_key, severity, title, status, opened_at, assigned_to
    from billing_private.incidents
  $$,
  $$
    values (
      'signature_burst', 'high', 'many webhook requests with a bad signature', 'open',
      '2026-01-10 12:05:30'::timestamptz, null::uuid)
  $$,
  'an incident is opened for somebody to look into'
);
select is(
  (select incident_id from billing_private.alerts), (select id from billing_private.incidents),
  'the alert belongs to the incident'
);
select results_eq(
  $$ select kind, note, actor_id, occurred_at from billing_private.incident_events order by id $$,
  $$
    values
      ('opened', 'opened by rule signature_burst', null::uuid, '2026-01-10 12:05:30'::timestamptz),
      ('alert', '20 webhook requests were refused for their signature', null,
        '2026-01-10 12:05:30')
  $$,
  'its timeline begins'
);

-- ---- seen again -------------------------------------------------------------

select tests.set_time('2026-01-10 12:06');
select pg_temp.reject('SIGNATURE_INVALID', 5);
select is(billing_private.task_scan_security(), 0::bigint, 'seen again, it is no new alert');
select is(
  pg_temp.alerts(), array['signature_burst signatures open×2'],
  'it is the same alert, seen twice'
);
select is(
  (select format('%s, first %s, last %s', title, first_seen_at::time, last_seen_at::time)
    from billing_private.alerts),
  '25 webhook requests were refused for their signature, first 12:05:30, last 12:06:00',
  'it says what it has grown to'
);
select is(pg_temp.incidents(), array['signature_burst open'], 'and the same incident');

-- ---- out of sight -----------------------------------------------------------

select tests.set_time('2026-01-10 12:10:00');
select billing_private.task_scan_security();
select is(
  pg_temp.alerts(), array['signature_burst signatures open×3'],
  'for ten minutes what happened is seen'
);
select tests.set_time('2026-01-10 12:10:01');
select is(
  billing_private.task_scan_security(), 0::bigint,
  'a second later the first of it is too long ago'
);
select is(
  pg_temp.alerts(), array['signature_burst signatures open×3'],
  'the alert stays open until somebody resolves it'
);

-- ---- the cool-down ----------------------------------------------------------

select tests.set_time('2026-01-10 12:12');
select tests.sign_in('ada');
select billing_admin.resolve_alert(id, 'our own load test') from billing_admin.alerts;
select tests.be_owner();
select pg_temp.reject('SIGNATURE_INVALID', 20);
select is(
  billing_private.task_scan_security(), 0::bigint,
  'after it was resolved, the same fact raises no alert for a while'
);
select is(
  pg_temp.alerts(), array['signature_burst signatures resolved×3'],
  'nor does the resolved one open again'
);
select tests.set_time('2026-01-10 12:41:59');
select pg_temp.reject('SIGNATURE_INVALID', 20);
select is(
  billing_private.task_scan_security(), 0::bigint,
  'to the last second of half an hour'
);
select tests.set_time('2026-01-10 12:42:00');
select is(billing_private.task_scan_security(), 1::bigint, 'after the cool-down it does again');
select is(
  pg_temp.alerts(),
  array['signature_burst signatures resolved×3', 'signature_burst signatures open×1'],
  'as a new alert'
);
select is(
  pg_temp.incidents(), array['signature_burst open'],
  'in the incident that is still open'
);

-- ---- after the incident -----------------------------------------------------

select tests.sign_in('ada');
select billing_admin.resolve_incident(id, 'the secret is changed') from billing_admin.incidents;
select tests.be_owner();
select is(
  (select array_agg(distinct status) from billing_private.alerts), array['resolved'],
  'with an incident, its alerts are resolved'
);
select tests.set_time('2026-01-10 13:12:00');
select pg_temp.reject('SIGNATURE_INVALID', 20);
select is(
  billing_private.task_scan_security(), 1::bigint,
  'if it begins again, somebody is woken again'
);
select is(
  pg_temp.incidents(), array['signature_burst resolved', 'signature_burst open'],
  'with a new incident'
);

-- ---- dead letters -----------------------------------------------------------

select tests.set_time('2026-02-10 12:00');
delete from billing_private.alerts where rule_key <> '';
insert into billing_private.stripe_events
  (event_id, type, livemode, occurred_at, payload, status, finished_at, last_error)
values
  ('evt_failed', 'invoice.paid', false, '2026-02-10', '{}', 'failed', null, null),
  ('evt_old', 'invoice.paid', false, '2026-02-01', '{}', 'dead', '2026-02-09 11:59:59', null),
  ('evt_dead', 'invoice.paid', false, '2026-02-09', '{}', 'dead', '2026-02-09 12:00:00',
    '{"message": "no such column", "context": "a long story"}');
select is(
  billing_private.task_scan_security(), 1::bigint,
  'an event given up within a day is an alert, an older one and one that is retried are none'
);
select results_eq(
  $$ select fingerprint, severity, title, details from billing_private.alerts $$,
  $$
    values (
      'evt_dead', 'high', 'event invoice.paid was given up',
      '{"event_id": "evt_dead", "type": "invoice.paid", "error": "no such column"}'::jsonb)
  $$,
  'the alert names the event and its error'
);

insert into billing_private.commands (id, kind, account_id, path, status, finished_at)
values (md5('dead')::uuid, 'update_subscription', md5('ann')::uuid, '/v1', 'dead', '2026-02-10');
select is(
  billing_private.task_scan_security(), 1::bigint,
  'a command given up is an alert of its own'
);
select results_eq(
  $$
    select title, details
    from billing_private.alerts
    where fingerprint = md5('dead')::uuid::text
  $$,
  $$
    values (
      'command update_subscription was given up',
      jsonb_build_object('command_id', md5('dead')::uuid, 'kind', 'update_subscription',
        'account_id', md5('ann')::uuid))
  $$,
  'the alert names the command and whose it is'
);
select is(
  (
    select array_agg(kind order by incident_events.id)
    from billing_private.incident_events
    join billing_private.incidents on incidents.id = incident_id
    where rule_key = 'dead_letter'
  ),
  array['opened', 'alert', 'alert'],
  'several alerts of a rule are one incident'
);
select is(
  (select count(distinct incident_id) from billing_private.alerts), 1::bigint,
  'which they belong to'
);

select tests.sign_in('ada');
select billing_admin.resolve_alert(id, 'looked at it')
from billing_admin.alerts
where fingerprint = 'evt_dead';
select tests.be_owner();
select is(billing_private.task_scan_security(), 0::bigint, 'what was resolved is not raised again');
select is(
  (select status from billing_private.alerts where fingerprint = md5('dead')::uuid::text), 'open',
  'resolving one alert leaves the others'
);
select tests.set_time('2026-02-11 12:00');
select is(
  billing_private.task_scan_security(), 0::bigint,
  'the next day it is out of sight, though its cool-down is over'
);

-- ---- rules as data ----------------------------------------------------------

update billing_private.detection_rules set threshold = 3, cool_down = '0' where key = 'dead_letter';
delete from billing_private.alerts where rule_key <> '';
insert into billing_private.stripe_events
  (event_id, type, livemode, occurred_at, payload, status, finished_at)
select 'evt_' || n, 'invoice.paid', false, '2026-02-11', '{}', 'dead', '2026-02-11 12:00'
from generate_series(1, 2) as n;
select is(
  billing_private.task_scan_security(), 0::bigint,
  'below a higher threshold there is no alert'
);
update billing_private.detection_rules set threshold = 2 where key = 'dead_letter';
select is(
  billing_private.task_scan_security(), 2::bigint,
  'at the threshold there is one for each'
);
delete from billing_private.alerts where rule_key <> '';
update billing_private.detection_rules set is_enabled = false where key = 'dead_letter';
select is(
  billing_private.task_scan_security(), 0::bigint,
  'a rule that is switched off finds nothing'
);
update billing_private.detection_rules
set is_enabled = true, opens_incident = false, severity = 'low'
where key = 'dead_letter';
select billing_private.task_scan_security();
select results_eq(
  $$ select distinct severity, incident_id from billing_private.alerts $$,
  $$ values ('low', null::uuid) $$,
  'a rule may raise alerts without an incident, and of any severity'
);
select throws_ok(
  $$ update billing_private.detection_rules set threshold = 0 where key = 'dead_letter' $$,
  '23514',
  'new row for relation "detection_rules" violates check constraint '
    '"detection_rules_threshold_is_positive"',
  'a threshold of nothing would always be reached'
);

-- ---- run by the heartbeat ---------------------------------------------------

select is(billing_private.run_task('scan_security'), 'succeeded', 'the heartbeat runs it');

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  'select billing_private.task_scan_security()',
  '42501', 'permission denied for schema billing_private',
  'the service cannot call it'
);
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.report_rejected_webhook('SIGNATURE_INVALID') $$,
  '42501', 'permission denied for function report_rejected_webhook',
  'a user cannot raise an alarm by reporting what did not happen'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.report_rejected_webhook('SIGNATURE_INVALID') $$,
  '42501', 'permission denied for function report_rejected_webhook',
  'nor can a visitor'
);

select * from finish();
rollback;
