-- The task ring_dispatcher: rings the Edge Function that carries commands, when there are any, and
-- notes what it answers; and the health check that tells of both.
begin;
\ir ../helpers.psql
\ir doorbell.psql
\if :has_pg_net
select plan(1);
select skip('pg_net is installed: there is no place for a stand-in');
\else
select plan(43);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10 12:00');
select tests.account('ann');

create function pg_temp.command(p_kind text default 'update_customer') returns void
language sql as $$
  insert into billing_private.commands (kind, account_id, path)
  values (p_kind, md5('ann')::uuid, '/v1/customers/cus_ann');
$$;

create function pg_temp.ring() returns bigint
language sql as 'select billing_private.task_ring_dispatcher()';

create function pg_temp.health() returns text
language sql as $$
  select format('%s %s: %s', status, value, summary)
  from billing_private.health()
  where check_key = 'doorbell';
$$;

create view pg_temp.rings as
select request_id is not null as was_made, answered_at, http_status, error
from billing_private.doorbell_rings
order by id;

savepoint installed;

-- ---- where nobody configured it ---------------------------------------------

select pg_temp.command();
select is(pg_temp.ring(), 0::bigint, 'as installed, the doorbell does not ring');
select is_empty('select * from tests.requests', 'nobody is asked for anything');
select is_empty('select * from pg_temp.rings', 'and nothing is noted');
select is(
  pg_temp.health(), 'healthy 0: not configured: another scheduler calls the dispatcher',
  'which is no fault: another scheduler may call'
);
rollback to installed;

-- ---- a ring -----------------------------------------------------------------

insert into vault.secrets values
  ('billing_secret_key', ' sb_secret_1 '), ('another', 'x'), ('empty', '  ');
update billing_private.settings
set functions_url = 'https://project.supabase.co/functions/v1',
    functions_secret_name = 'billing_secret_key'
where only_row;
savepoint configured;

select is(pg_temp.ring(), 0::bigint, 'with nothing to carry the doorbell does not ring');
select is(pg_temp.health(), 'healthy 0: 0 rings in a row that the dispatcher did not answer well',
  'and is well');
select pg_temp.command('create_portal');
select is(
  pg_temp.ring(), 0::bigint,
  'nor for a portal, which only the user who waits for it can open'
);
rollback to configured;

select pg_temp.command();
update billing_private.commands
set next_attempt_at = '2026-01-10 12:00:01'
where status = 'pending';
select is(pg_temp.ring(), 0::bigint, 'nor for a command that waits for its next try');
select tests.set_time('2026-01-10 12:00:01');
select is(pg_temp.ring(), 1::bigint, 'but on the second that one is due');
select tests.set_time('2026-01-10 12:00');
rollback to configured;

select pg_temp.command();
select billing_private.claim_commands(1, null);
select is(pg_temp.ring(), 0::bigint, 'nor for a command that a worker holds');
select tests.set_time('2026-01-10 12:00:50');
select is(pg_temp.ring(), 1::bigint, 'but when its lease has run out');
select tests.set_time('2026-01-10 12:00');
rollback to configured;

select pg_temp.command();
select pg_temp.command();
select is(pg_temp.ring(), 1::bigint, 'one ring is enough for any number of commands');
select results_eq(
  'select url, body, params, headers, timeout_milliseconds from tests.requests',
  $$
    values ('https://project.supabase.co/functions/v1/checkout/dispatch',
      '{"wait": false}'::jsonb, '{}'::jsonb,
      '{"Content-Type": "application/json", "apikey": "sb_secret_1"}'::jsonb, 10000)
  $$,
  'it posts to the dispatcher, with the secret key out of the Vault, and asks not to be kept waiting'
);
select results_eq(
  'select * from pg_temp.rings',
  'values (true, null::timestamptz, null::integer, null)',
  'the ring is noted, and that its answer is still to come'
);
select is_empty(
  $$
    select row_to_json(doorbell_rings)
    from billing_private.doorbell_rings
    where doorbell_rings::text like '%sb_secret%'
  $$,
  'without the key'
);
savepoint rung;

-- ---- the answer -------------------------------------------------------------

select tests.answer(200, '{"success": true}');
select tests.set_time('2026-01-10 12:01');
select is(pg_temp.ring(), 1::bigint, 'a minute later it rings again, as there still is something due');
select results_eq(
  'select * from pg_temp.rings',
  $$
    values (true, '2026-01-10 12:01+00'::timestamptz, 200, null),
      (true, null, null, null)
  $$,
  'and has noted the answer to the first ring'
);
select is(
  pg_temp.health(), 'healthy 0: 0 rings in a row that the dispatcher did not answer well',
  'a doorbell that is heard is well'
);
select tests.set_time('2026-01-10 12:00');
rollback to rung;

select tests.answer(401, '{"success": false, "error": {"code": "UNAUTHENTICATED"}}');
select billing_private.note_ring_answers();
select results_eq(
  'select http_status, error from pg_temp.rings',
  $$ values (401, '{"success": false, "error": {"code": "UNAUTHENTICATED"}}') $$,
  'a refusal is noted with what it says'
);
select is(
  pg_temp.health(),
  'degraded 1: 1 rings in a row that the dispatcher did not answer well: '
    '{"success": false, "error": {"code": "UNAUTHENTICATED"}}',
  'one ring that was not heard is a warning, and says why'
);
select pg_temp.ring();
select tests.answer(null, null, null, true);
select pg_temp.ring();
select is(
  (select error from pg_temp.rings where http_status is null and answered_at is not null),
  'timed out', 'so is a time-out'
);
select matches(pg_temp.health(), '^degraded 2: ', 'two rings that were not heard still are');
select tests.answer(null, null, 'Couldn''t resolve host name');
select pg_temp.ring();
select matches(
  pg_temp.health(), '^unhealthy 3: .*Couldn''t resolve host name$',
  'three in a row are a fault'
);
select tests.answer(500, null);
select billing_private.note_ring_answers();
select is(
  (select error from pg_temp.rings where http_status = 500), 'no answer',
  'an error that says nothing is one too'
);
select pg_temp.ring();
select tests.answer(204);
select billing_private.note_ring_answers();
select matches(pg_temp.health(), '^healthy 0: ', 'one that is heard mends all');
rollback to rung;

select tests.answer(302, repeat('x', 1000));
select billing_private.note_ring_answers();
select results_eq(
  'select http_status, length(error) from pg_temp.rings', 'values (302, 500)',
  'a redirection is no answer; of a long one the beginning is kept'
);
rollback to rung;

-- ---- no answer --------------------------------------------------------------

select is(pg_temp.ring(), 1::bigint, 'a second request may be under way');
select is(pg_temp.ring(), 1::bigint, 'and a third');
select is(pg_temp.ring(), 0::bigint, 'but never a fourth');
select tests.answer(200);
select is(pg_temp.ring(), 1::bigint, 'until one is answered');
select tests.set_time('2026-01-10 12:04:59');
select is(pg_temp.ring(), 0::bigint, 'an answer is waited for');
select tests.set_time('2026-01-10 12:05:00');
select is(pg_temp.ring(), 1::bigint, 'for five minutes: then pg_net must have lost it');
select is(
  (select count(*) from pg_temp.rings where error = 'no answer was recorded'), 3::bigint,
  'which is noted'
);
select tests.set_time('2026-01-10 12:00');
rollback to rung;

drop table net._http_response;
select lives_ok('select pg_temp.ring()', 'where pg_net keeps no answers, rings go out all the same');
rollback to configured;

-- ---- what is missing --------------------------------------------------------

select pg_temp.command();
update billing_private.settings set functions_secret_name = 'nobody' where only_row;
select is(pg_temp.ring(), 0::bigint, 'without its secret the doorbell cannot ring');
select results_eq(
  'select * from pg_temp.rings',
  $$
    values (false, '2026-01-10 12:00+00'::timestamptz, null::integer,
      'the Vault has no secret named nobody')
  $$,
  'which is noted'
);
select is(
  pg_temp.health(), 'unhealthy 1: the Vault has no secret named nobody',
  'and a fault'
);
update billing_private.settings set functions_secret_name = 'empty' where only_row;
select matches(
  pg_temp.health(), 'the Vault has no secret named empty$', 'an empty secret opens nothing'
);
drop schema vault cascade;
select is(
  pg_temp.health(), 'unhealthy 1: the Vault is not installed',
  'nor does it ring without the Vault'
);
drop schema net cascade;
select is(
  pg_temp.health(), 'unhealthy 1: pg_net is not installed',
  'or without pg_net'
);
select is(
  billing_private.run_task('ring_dispatcher'), 'succeeded',
  'the heartbeat goes on'
);
rollback to configured;

-- ---- old rings --------------------------------------------------------------

insert into billing_private.doorbell_rings (request_id, rung_at, answered_at) values
  (1, '2026-01-03 11:59:59', '2026-01-03 12:00'), (2, '2026-01-03 12:00', '2026-01-03 12:01');
select billing_private.task_clean_up();
select results_eq(
  'select request_id from billing_private.doorbell_rings', 'values (2::bigint)',
  'rings older than a week are removed'
);

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select billing_private.vault_secret('billing_secret_key') $$,
  '42501', 'permission denied for schema billing_private',
  'nobody reads a secret through it'
);
\endif

select * from finish();
rollback;
