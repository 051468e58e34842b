-- billing.complete_command(): done, tried again later, or given up; only by who holds the lease.
begin;
\ir ../helpers.psql
select plan(47);

select tests.catalog();
select tests.set_time('2026-01-10 08:00');
select billing_private.ensure_account(md5('ann')::uuid);

-- Ann's call to Stripe, leased for its p_attempts-th try.
create function tests.leased(p_attempts integer default 1) returns void
language sql as $$
  delete from billing_private.commands;
  insert into billing_private.commands
    (id, kind, account_id, path, status, attempts, lease, lease_expires_at)
  values (md5('a1')::uuid, 'create_portal', md5('ann')::uuid, '/v1/x', 'leased', p_attempts,
    md5('lease')::uuid, '2026-01-10 08:01');
$$;

create function tests.complete(
  p_http_status integer,
  p_response jsonb default '{}',
  p_retry_after integer default null
) returns text
language sql as $$
  select status
  from billing.complete_command(
    md5('a1')::uuid, md5('lease')::uuid, p_http_status, p_response, p_retry_after);
$$;

-- What becomes of ann's call after this answer to its p_attempts-th try; undone again.
create function tests.outcome(
  p_http_status integer,
  p_response jsonb default '{}',
  p_attempts integer default 1
) returns text
language plpgsql as $$
declare
  v_status text;
begin
  perform tests.leased(p_attempts);
  v_status := tests.complete(p_http_status, p_response);
  raise exception sqlstate 'TS001';
exception when sqlstate 'TS001' then
  return v_status;
end;
$$;

-- Seconds until the next try after this many tries.
create function tests.wait(p_attempts integer, p_retry_after integer default null) returns numeric
language plpgsql as $$
declare
  v_wait numeric;
begin
  perform tests.leased(p_attempts);
  select extract(epoch from retry_at - billing_private.now()) into v_wait
  from billing.complete_command(
    md5('a1')::uuid, md5('lease')::uuid, 503, '{}', p_retry_after);
  return v_wait;
end;
$$;

savepoint s;

-- ---- the service: success ---------------------------------------------------

select tests.leased();
select results_eq(
  $$
    select status, retry_at
    from billing.complete_command(
      md5('a1')::uuid, md5('lease')::uuid, 200, '{"id": "bps_1", "url": "https://x"}')
  $$,
  $$ values ('succeeded', null::timestamptz) $$,
  'a call that Stripe answered well has succeeded'
);
select results_eq(
  $$
    select status, result_id, lease, lease_expires_at, last_error, finished_at
    from billing_private.commands
  $$,
  $$
    values ('succeeded', 'bps_1', null::uuid, null::timestamptz, null::jsonb,
      '2026-01-10 08:00+00'::timestamptz)
  $$,
  'B10: the id Stripe gave is kept with it, and the lease is over'
);
select throws_ok(
  $$ select tests.complete(200, '{"id": "bps_1"}') $$,
  'PT409', 'the command is no longer leased to this worker',
  'reporting it twice is refused'
);
rollback to s;

select is(tests.outcome(201), 'succeeded', 'any 2xx is success');
select is(tests.outcome(299), 'succeeded', 'up to 299');
select is(tests.outcome(300), 'dead', 'a redirection is none');
select is(tests.outcome(199), 'dead', 'nor is anything below 200');
select is(tests.outcome(200, null), 'succeeded', 'an answer without a body may be a success');

-- ---- the service: what passes -----------------------------------------------

select is(
  tests.outcome(null, '{"error": {"message": "time-out"}}'), 'pending',
  'a call without an answer is tried again'
);
select is_empty(
  $$
    select status
    from unnest(array[401, 403, 408, 409, 429, 500, 502, 503, 504, 599]) as status
    where tests.outcome(status) <> 'pending'
  $$,
  'server errors, rate limits, requests in flight and keys that are not accepted are tried again'
);
select is(
  tests.outcome(400, '{"error": {"code": "lock_timeout"}}'), 'pending',
  'so is a call that met another one on the same object'
);
select is_empty(
  $$
    select status
    from unnest(array[400, 402, 404, 405, 410, 422, 424]) as status
    where tests.outcome(status, '{"error": {"code": "resource_missing"}}') <> 'dead'
  $$,
  'any other refusal would be refused again: the call is given up'
);
select is(
  tests.outcome(400, '{"error": {"type": "idempotency_error"}}'), 'dead',
  'B9: so is a key that was used for something else'
);

-- ---- the service: trying again ----------------------------------------------

select tests.leased();
select is(
  tests.complete(503, '{"error": {"message": "busy"}}'), 'pending',
  'a call that will be tried again is pending'
);
select results_eq(
  $$
    select status, attempts, lease, lease_expires_at, last_error, finished_at
    from billing_private.commands
  $$,
  $$
    values ('pending', 1, null::uuid, null::timestamptz,
      '{"http_status": 503, "error": {"message": "busy"}}'::jsonb, null::timestamptz)
  $$,
  'its lease is over, and what went wrong is kept'
);
select tests.leased();
select tests.complete(null, '{"error": {"message": "no route"}}');
select is(
  (select last_error from billing_private.commands),
  '{"http_status": null, "error": {"message": "no route"}}',
  'also where there was no answer'
);
select tests.leased();
select is(tests.complete(503, '["not", "an", "object"]'), 'pending', 'in whatever shape it came');
select tests.leased();
create temporary table told as
select retry_at from billing.complete_command(md5('a1')::uuid, md5('lease')::uuid, 503, '{}');
select results_eq(
  $$ select next_attempt_at from billing_private.commands $$,
  $$ select retry_at from told $$,
  'the worker is told when'
);

select is_empty(
  $$
    select attempts, waited
    from generate_series(1, 11) as attempts
    cross join generate_series(1, 20)
    cross join lateral tests.wait(attempts) as waited
    where waited not between
      least(2.5 * 2 ^ attempts, 1800) * 0.75 and least(2.5 * 2 ^ attempts, 1800) * 1.25
  $$,
  'the wait doubles from five seconds to half an hour, give or take a quarter'
);
select ok(
  (select count(distinct tests.wait(n / n)) > 1 from generate_series(1, 20) as n),
  'no two waits are the same: workers that failed together do not come back together'
);
select cmp_ok(tests.wait(1, 60), '=', 60::numeric, 'never before Stripe''s Retry-After');
select cmp_ok(
  tests.wait(11, 60), '>=', 1800 * 0.75, 'which shortens no wait'
);
select cmp_ok(
  tests.wait(1, 1000000), '=', 3600::numeric, 'nor prolongs one beyond an hour'
);
select ok(
  tests.wait(1, -5) between 3.75 and 6.25 and tests.wait(1, 0) between 3.75 and 6.25,
  'and counts for nothing when it is nothing'
);
rollback to s;

-- ---- the service: giving up -------------------------------------------------

select is(tests.outcome(503, '{}', 11), 'pending', 'after the eleventh try there is another');
select is(tests.outcome(503, '{}', 12), 'dead', 'after the twelfth there is none');
select is(tests.outcome(null, '{}', 12), 'dead', 'also where no answer came');
select is(tests.outcome(200, '{}', 12), 'succeeded', 'a success is one at the last try too');

select tests.leased();
select is(
  tests.complete(402, '{"error": {"code": "card_declined", "message": "No."}}'), 'dead',
  'a refusal is final'
);
select results_eq(
  $$
    select status, lease, last_error #>> '{error,code}', last_error ->> 'http_status',
      result_id, finished_at
    from billing_private.commands
  $$,
  $$
    values ('dead', null::uuid, 'card_declined', '402', null, '2026-01-10 08:00+00'::timestamptz)
  $$,
  'and kept with Stripe''s reason'
);
select throws_ok(
  $$ select tests.complete(200) $$,
  'PT409', 'the command is no longer leased to this worker',
  'nobody can report on it any more'
);
rollback to s;

-- ---- the service: whose lease -----------------------------------------------

select tests.leased();
select throws_ok(
  $$ select billing.complete_command(md5('a1')::uuid, md5('stolen')::uuid, 200, '{}') $$,
  'PT409', 'the command is no longer leased to this worker',
  'a lease that is not the one in force is refused'
);
select throws_ok(
  $$ select billing.complete_command(md5('a1')::uuid, null, 200, '{}') $$,
  'PT409', 'the command is no longer leased to this worker',
  'so is none at all'
);
select is(
  (select status from billing_private.commands), 'leased',
  'and who has it keeps it'
);
select tests.set_time('2026-01-10 09:00');
select is(
  tests.complete(200), 'succeeded',
  'an answer that comes after the lease ran out counts as long as nobody else has the call'
);
rollback to s;

select tests.leased();
select tests.set_time('2026-01-10 09:00');
update billing_private.commands set kind = 'expire_checkout';
select tests.be_service();
select is(
  (select count(*) from billing.claim_commands()), 1::bigint,
  'a lease that ran out is given to the next worker'
);
select throws_ok(
  $$ select billing.complete_command(md5('a1')::uuid, md5('lease')::uuid, 200, '{}') $$,
  'PT409', 'the command is no longer leased to this worker',
  'and the first one''s answer is refused'
);
select tests.be_owner();
rollback to s;

update billing_private.commands set status = 'canceled';
select tests.leased();
update billing_private.commands
set status = 'pending', lease = null, lease_expires_at = null;
select throws_ok(
  $$ select tests.complete(200) $$,
  'PT409', 'the command is no longer leased to this worker',
  'a call nobody has claimed cannot be reported on'
);
select tests.be_service();
select throws_ok(
  $$ select billing.complete_command(md5('no such')::uuid, md5('lease')::uuid, 200, '{}') $$,
  'PT404', 'there is no such command',
  'nor can one that does not exist'
);
select throws_ok(
  $$ select billing.complete_command(null, null, 200, '{}') $$,
  'PT404', 'there is no such command',
  'or that is not named'
);
select tests.be_owner();

-- ---- a member, a visitor ----------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.complete_command(md5('a1')::uuid, md5('lease')::uuid, 200, '{}') $$,
  '42501', 'permission denied for function complete_command',
  'a member cannot answer for Stripe'
);
select throws_ok(
  $$ select * from billing_private.commands $$,
  '42501', 'permission denied for schema billing_private',
  'nor see what Stripe is asked'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.complete_command(md5('a1')::uuid, md5('lease')::uuid, 200, '{}') $$,
  '42501', 'permission denied for function complete_command',
  'a visitor cannot either'
);

-- ---- the owner: what is written down ----------------------------------------

select tests.be_owner();
select set_config('request.headers', '{"x-request-id": "req-7"}', true);
select set_config('request.jwt.claims', jsonb_build_object('sub', md5('ann')::uuid)::text, true);
select billing_private.set_cause('user', md5('ann')::uuid::text, 'test');
select lives_ok(
  $$
    select billing_private.enqueue_command(
      'create_portal', md5('ann')::uuid, '/v1/y', '{"a": 1}', 'POST', md5('subject')::uuid)
  $$,
  'a command is written by whoever wants it'
);
select results_eq(
  $$
    select kind, method, path, params, subject_id, status, attempts, actor_id, cause, request_id,
      next_attempt_at
    from billing_private.commands
    where path = '/v1/y'
  $$,
  $$
    values ('create_portal', 'POST', '/v1/y', '{"a": 1}'::jsonb, md5('subject')::uuid, 'pending',
      0, md5('ann')::uuid,
      jsonb_build_object('kind', 'user', 'reference', md5('ann')::uuid, 'reason', 'test'), 'req-7',
      '2026-01-10 08:00+00'::timestamptz)
  $$,
  'with who wanted it, why, and in which request'
);
select throws_ok(
  $$ update billing_private.commands set status = 'leased' where path = '/v1/y' $$,
  '23514',
  'new row for relation "commands" violates check constraint "commands_lease_has_an_end"',
  'a lease without an end cannot be'
);
select throws_ok(
  $$
    insert into billing_private.commands (kind, account_id, path)
    values ('create_portal', md5('nobody')::uuid, '/v1/z')
  $$,
  '23503', 'insert or update on table "commands" violates foreign key constraint'
    ' "commands_account_id_fkey"',
  'nor a command of nobody''s'
);

select * from finish();
rollback;
