-- billing_admin.incidents, alerts and their RPCs: from the alert to the resolution, each step
-- on record.
begin;
\ir ../helpers.psql
select plan(46);

select tests.take_tasks();
select tests.set_time('2026-01-10 12:00');
insert into billing_private.administrators (user_id, reason) values
  (md5('ada')::uuid, 'test'), (md5('gil')::uuid, 'test');

create function pg_temp.dead(p_id text) returns void
language sql as $$
  insert into billing_private.stripe_events
    (event_id, type, livemode, occurred_at, payload, status, finished_at)
  values (p_id, 'invoice.paid', false, '2026-01-10', '{}', 'dead', billing_private.now());
  select billing_private.task_scan_security();
$$;

select pg_temp.dead('evt_1');
select tests.set_time('2026-01-10 12:01');
select pg_temp.dead('evt_2');

create temporary table ours as
select
  (select id from billing_private.incidents) as incident_id,
  (select id from billing_private.alerts where fingerprint = 'evt_1') as first_id,
  (select id from billing_private.alerts where fingerprint = 'evt_2') as second_id;
grant select on ours to public;

create function pg_temp.incident() returns text
language sql as $$
  select format(
    '%s to %s, %s', status, coalesce(assigned_to::text, 'nobody'),
    coalesce(resolution, 'unresolved'))
  from billing_admin.incidents
  where id = (select incident_id from ours);
$$;

-- ---- what an administrator sees ---------------------------------------------

select tests.sign_in('ada');
select results_eq(
  $$ select id, rule_key, severity, title, opened_at, resolved_at from billing_admin.incidents $$,
  $$
    select incident_id, 'dead_letter', 'high', 'an event or command was given up',
      '2026-01-10 12:00'::timestamptz, null::timestamptz
    from ours
  $$,
  'an open incident is listed'
);
select is(pg_temp.incident(), 'open to nobody, unresolved', 'nobody looks into it yet');
select set_eq(
  $$ select fingerprint, status, incident_id from billing_admin.alerts $$,
  $$
    select fingerprint, 'open', incident_id
    from ours
    cross join (values ('evt_1'), ('evt_2')) as alerts (fingerprint)
  $$,
  'its alerts are listed'
);
select is(
  (select array_agg(kind) from billing_admin.incident_timeline),
  array['alert', 'alert', 'opened'],
  'its timeline is listed, newest first'
);

-- ---- assigned ---------------------------------------------------------------

select tests.set_time('2026-01-10 12:05');
select throws_ok(
  $$ select billing_admin.assign_incident((select incident_id from ours), null, 'whoever') $$,
  'PT400', 'the request is not valid',
  'an incident is given to somebody'
);
select throws_ok(
  $$
    select billing_admin.assign_incident((select incident_id from ours), md5('gil')::uuid, ' ')
  $$,
  'PT400', 'the request is not valid',
  'for a reason'
);
select throws_ok(
  $$
    select billing_admin.assign_incident(md5('none')::uuid, md5('gil')::uuid, 'on duty')
  $$,
  'PT404', 'there is no such incident',
  'an incident that does not exist cannot be given to anybody'
);
select is(pg_temp.incident(), 'open to nobody, unresolved', 'what was refused changed nothing');
select lives_ok(
  $$
    select billing_admin.assign_incident(
      (select incident_id from ours), md5('gil')::uuid, 'on duty')
  $$,
  'an administrator gives the incident to another one'
);
select is(
  pg_temp.incident(), format('investigating to %s, unresolved', md5('gil')::uuid),
  'who investigates it from then on'
);
select billing_admin.assign_incident((select incident_id from ours), md5('ada')::uuid, 'mine');
select is(
  pg_temp.incident(), format('investigating to %s, unresolved', md5('ada')::uuid),
  'it may be given on'
);

-- ---- noted ------------------------------------------------------------------

select tests.sign_in('gil');
select lives_ok(
  $$ select billing_admin.note_incident((select incident_id from ours), 'a column is missing') $$,
  'an administrator notes what was found'
);
select is(
  pg_temp.incident(), format('investigating to %s, unresolved', md5('ada')::uuid),
  'a note changes neither the status nor who is on it'
);
select throws_ok(
  $$ select billing_admin.note_incident((select incident_id from ours), null) $$,
  'PT400', 'the request is not valid',
  'a note says something'
);
select throws_ok(
  $$ select billing_admin.note_incident(null, 'hello') $$,
  'PT404', 'there is no such incident',
  'a note is about an incident'
);

-- ---- an alert resolved ------------------------------------------------------

select tests.set_time('2026-01-10 12:10');
select lives_ok(
  $$ select billing_admin.resolve_alert((select first_id from ours), 'replayed') $$,
  'an administrator resolves an alert'
);
select results_eq(
  $$
    select status, resolved_at, resolved_reason
    from billing_admin.alerts
    where id = (select first_id from ours)
  $$,
  $$ values ('resolved', '2026-01-10 12:10'::timestamptz, 'replayed') $$,
  'it says when and why'
);
select tests.set_time('2026-01-10 12:11');
select lives_ok(
  $$ select billing_admin.resolve_alert((select first_id from ours), 'again') $$,
  'twice is no error'
);
select is(
  (
    select format('%s %s', resolved_at::time, resolved_reason)
    from billing_admin.alerts
    where id = (select first_id from ours)
  ),
  '12:10:00 replayed',
  'twice changes nothing more'
);
select is(
  (select array_agg(status) from billing_admin.alerts), array['open', 'resolved'],
  'open alerts are listed first'
);
select throws_ok(
  $$ select billing_admin.resolve_alert(md5('none')::uuid, 'a typo') $$,
  'PT404', 'there is no such alert',
  'an alert that does not exist cannot be resolved'
);
select throws_ok(
  $$ select billing_admin.resolve_alert((select second_id from ours), '') $$,
  'PT400', 'the request is not valid',
  'an alert is resolved for a reason'
);
select is(
  pg_temp.incident(), format('investigating to %s, unresolved', md5('ada')::uuid),
  'resolving an alert resolves no incident'
);

-- ---- resolved ---------------------------------------------------------------

select tests.set_time('2026-01-10 12:20');
select throws_ok(
  $$ select billing_admin.resolve_incident((select incident_id from ours), '') $$,
  'PT400', 'the request is not valid',
  'an incident is resolved somehow'
);
select throws_ok(
  $$ select billing_admin.resolve_incident(md5('none')::uuid, 'a typo') $$,
  'PT404', 'there is no such incident',
  'an incident that does not exist cannot be resolved'
);
select lives_ok(
  $$
    select billing_admin.resolve_incident((select incident_id from ours), 'the column is there')
  $$,
  'an administrator resolves the incident'
);
select is(
  pg_temp.incident(), format('resolved to %s, the column is there', md5('ada')::uuid),
  'it says how, and who was on it'
);
select is(
  (select resolved_at from billing_admin.incidents), '2026-01-10 12:20'::timestamptz,
  'and when'
);
select is(
  (
    select format('%s %s %s', status, resolved_at::time, resolved_reason)
    from billing_admin.alerts
    where id = (select second_id from ours)
  ),
  'resolved 12:20:00 the column is there',
  'the alert that was still open is resolved with it'
);
select is(
  (
    select resolved_reason
    from billing_admin.alerts
    where id = (select first_id from ours)
  ),
  'replayed',
  'the one that was resolved before keeps its own reason'
);

-- ---- over -------------------------------------------------------------------

select throws_ok(
  $$ select billing_admin.resolve_incident((select incident_id from ours), 'again') $$,
  'PT404', 'there is no such incident',
  'a resolved incident cannot be resolved again'
);
select throws_ok(
  $$ select billing_admin.note_incident((select incident_id from ours), 'by the way') $$,
  'PT404', 'there is no such incident',
  'nothing can be noted any more'
);
select throws_ok(
  $$
    select billing_admin.assign_incident((select incident_id from ours), md5('gil')::uuid, 'late')
  $$,
  'PT404', 'there is no such incident',
  'nor can it be given to anybody'
);

-- ---- the timeline -----------------------------------------------------------

select results_eq(
  $$
    select kind, note, actor_id, occurred_at::time
    from billing_admin.incident_timeline
    where incident_id = (select incident_id from ours)
    order by id
  $$,
  $$
    values
      ('opened', 'opened by rule dead_letter', null::uuid, '12:00'::time),
      ('alert', 'event invoice.paid was given up', null, '12:00'),
      ('alert', 'event invoice.paid was given up', null, '12:01'),
      ('assigned', 'on duty', md5('ada')::uuid, '12:05'),
      ('assigned', 'mine', md5('ada')::uuid, '12:05'),
      ('note', 'a column is missing', md5('gil')::uuid, '12:05'),
      ('alert_resolved', 'event invoice.paid was given up: replayed', md5('gil')::uuid, '12:10'),
      ('resolved', 'the column is there', md5('gil')::uuid, '12:20')
  $$,
  'each step is on record: what, by whom, when'
);

-- ---- the next one -----------------------------------------------------------

select tests.be_owner();
select tests.set_time('2026-01-10 13:00');
select pg_temp.dead('evt_3');
select tests.sign_in('ada');
select results_eq(
  $$ select status, opened_at from billing_admin.incidents $$,
  $$
    values
      ('open', '2026-01-10 13:00'::timestamptz),
      ('resolved', '2026-01-10 12:00'::timestamptz)
  $$,
  'the next alert opens a new incident; unresolved ones are listed first'
);
select is(
  (
    select array_agg(fingerprint)
    from billing_admin.alerts
    where incident_id <> (select incident_id from ours)
  ),
  array['evt_3'],
  'the new alert belongs to the new incident'
);
select tests.be_owner();
insert into billing_private.alerts
  (rule_key, fingerprint, severity, title, status, first_seen_at, last_seen_at, resolved_at)
values
  ('dead_letter', 'evt_0', 'high', 'resolved, but seen last', 'resolved', '2026-01-10 14:00',
    '2026-01-10 14:00', '2026-01-10 14:00');
select is(
  (select array_agg(status) from billing_admin.alerts),
  array['open', 'resolved', 'resolved', 'resolved'],
  'open alerts are listed first, whenever the others were seen'
);
select throws_ok(
  $$
    insert into billing_private.incidents (rule_key, severity, title)
    values ('dead_letter', 'high', 'a second')
  $$,
  '23505', 'duplicate key value violates unique constraint "incidents_one_open_idx"',
  'a rule has one open incident at a time'
);

-- ---- the record -------------------------------------------------------------

select is(
  (
    select array_agg(format('%s %s', action, reason) order by id)
    from billing_private.admin_actions
  ),
  array[
    'assign_incident on duty', 'assign_incident mine', 'note_incident a column is missing',
    'resolve_alert replayed', 'resolve_alert again', 'resolve_incident the column is there'],
  'what administrators did is on record; what was refused is not'
);

-- ---- others -----------------------------------------------------------------

select tests.be_service();
select lives_ok(
  $$
    select billing_admin.note_incident(id, 'seen by the pager')
    from billing_admin.incidents
    where status = 'open'
  $$,
  'the service may note something'
);
select is(
  (select actor_id from billing_admin.incident_timeline limit 1), null,
  'in nobody''s name'
);

select tests.sign_in('bob');
select throws_ok(
  $$ select billing_admin.resolve_alert((select first_id from ours), 'nothing to see') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot resolve an alert'
);
select throws_ok(
  $$ select billing_admin.resolve_incident((select incident_id from ours), 'nothing to see') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot resolve an incident, nor learn whether it exists'
);
select throws_ok(
  'select * from billing_admin.incident_timeline',
  'PT403', 'this needs a billing administrator',
  'a user cannot read the timeline'
);
select tests.sign_out();
select throws_ok(
  'select * from billing_admin.alerts',
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot read the alerts'
);
select throws_ok(
  $$ select billing_admin.resolve_alert((select first_id from ours), 'nothing to see') $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot resolve an alert'
);

select * from finish();
rollback;
