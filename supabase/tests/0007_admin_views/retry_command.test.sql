-- billing_admin.command_backlog and retry_command(): calls to Stripe that wait, or were given up.
begin;
\ir ../helpers.psql
select plan(30);

select tests.catalog();
select tests.set_time('2026-01-10 12:00');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select billing_private.ensure_account(md5('ann')::uuid);

-- ---- the backlog ------------------------------------------------------------

select tests.sign_in('ada');
select is_empty(
  $$ select * from billing_admin.command_backlog $$,
  'there is nothing to tell Stripe'
);

select tests.sign_in('ann');
select billing.prepare_checkout('plus_monthly', 'https://example.com/s', 'https://example.com/c')
  is not null as prepared;
select tests.be_owner();
create temporary table ours as select id from billing_private.commands;
grant select on ours to public;
select tests.sign_in('ada');
select results_eq(
  $$
    select command_id, kind, status, account_id, attempts, error, next_attempt_at, lease_expires_at,
      created_at
    from billing_admin.command_backlog
  $$,
  $$
    select id, 'create_customer', 'pending', md5('ann')::uuid, 0, null::text,
      '2026-01-10 12:00'::timestamptz, null::timestamptz, '2026-01-10 12:00'::timestamptz
    from ours
  $$,
  'a command that waits is listed'
);

-- ---- under way --------------------------------------------------------------

select tests.be_service();
create temporary table claimed as select * from billing.claim_commands();
select tests.sign_in('ada');
select is(
  (select format('%s %s %s', status, attempts, lease_expires_at > '2026-01-10 12:00')
    from billing_admin.command_backlog),
  'leased 1 t',
  'a command that is under way is listed, with the end of its lease'
);
select throws_ok(
  $$ select billing_admin.retry_command((select id from ours), 'hurry') $$,
  'PT404', 'there is no such command',
  'what is under way cannot be retried'
);

-- ---- waiting for its next try -----------------------------------------------

select tests.be_service();
select is(
  (
    select outcome.status
    from claimed
    cross join lateral billing.complete_command(
      claimed.id, claimed.lease, 500, '{"error": {"message": "Stripe is down"}}') as outcome
  ),
  'pending',
  'Stripe has trouble'
);
select tests.sign_in('ada');
select is(
  (select format('%s %s %s', status, error, next_attempt_at > '2026-01-10 12:00')
    from billing_admin.command_backlog),
  'pending Stripe is down t',
  'a command that waits for its next try says why'
);
select lives_ok(
  $$ select billing_admin.retry_command((select id from ours), 'Stripe is back') $$,
  'it can be put at the head of the line'
);
select is(
  (select format('%s %s %s', status, attempts, next_attempt_at::timestamp)
    from billing_admin.command_backlog),
  'pending 0 2026-01-10 12:00:00',
  'it is due now, with fresh retries'
);

-- ---- given up ---------------------------------------------------------------

select tests.be_service();
delete from claimed;
insert into claimed select * from billing.claim_commands();
select is(
  (
    select outcome.status
    from claimed
    cross join lateral billing.complete_command(
      claimed.id, claimed.lease, 400, '{"error": {"message": "No such email"}}') as outcome
  ),
  'dead',
  'Stripe refuses for good'
);
select tests.sign_in('ada');
select is(
  (select format('%s %s %s', status, attempts, error) from billing_admin.command_backlog),
  'dead 1 No such email',
  'D3: a command that was given up stays in the backlog, with Stripe''s words'
);
select tests.be_service();
select is_empty($$ select * from billing.claim_commands() $$, 'nobody carries it any more');

select tests.set_time('2026-01-10 18:00');
select tests.sign_in('ada');
select lives_ok(
  $$ select billing_admin.retry_command((select id from ours), 'the email is right now') $$,
  'it can be taken up again'
);
select lives_ok(
  $$ select billing_admin.retry_command((select id from ours), 'to be sure') $$,
  'twice is no error'
);
select tests.be_service();
delete from claimed;
insert into claimed select * from billing.claim_commands();
select results_eq(
  'select id, idempotency_key <> id from claimed', 'select id, true from ours',
  'E2: it is carried again, under a fresh key: Stripe would repeat its refusal under the old one'
);
select is(
  (
    select outcome.status
    from claimed
    cross join lateral billing.complete_command(
      claimed.id, claimed.lease, 200,
      '{"id": "cus_ann", "object": "customer", "created": 1768003200, "livemode": false}'
    ) as outcome
  ),
  'succeeded',
  'and succeeds'
);
select tests.sign_in('ada');
select is_empty(
  $$ select * from billing_admin.command_backlog where command_id = (select id from ours) $$,
  'then it has left the backlog'
);

-- ---- one whose outcome is not known -----------------------------------------

select tests.be_owner();
create function pg_temp.dead(p_kind text, p_http_status integer) returns void
language sql as $$
  delete from billing_private.commands where id = md5('dead')::uuid;
  insert into billing_private.commands
    (id, kind, account_id, path, params, status, attempts, first_attempt_at, last_error, finished_at)
  values (md5('dead')::uuid, p_kind, md5('ann')::uuid, '/v1/customers', '{"email": "a@b.c"}', 'dead',
    12, '2026-01-10 12:00', jsonb_build_object('http_status', p_http_status), '2026-01-10 14:00');
$$;

-- What is carried after the retry: method, and whether under the first key.
create function pg_temp.retried() returns text
language plpgsql as $$
declare
  v_claimed text;
begin
  perform billing_admin.retry_command(md5('dead')::uuid, 'a try');
  select format('%s %s', method, idempotency_key = id)
  into v_claimed
  from billing.claim_commands();
  return v_claimed;
end;
$$;

select pg_temp.dead('create_customer', 503);
select is(pg_temp.retried(), 'POST t', 'the same day it is made again under its first key');
select pg_temp.dead('create_customer', null);
select tests.set_time('2026-01-11 10:59:59');
select is(pg_temp.retried(), 'POST t', 'also where no answer came, until 23 hours have passed');
select pg_temp.dead('create_customer', null);
select tests.set_time('2026-01-11 11:00:00');
select is(pg_temp.retried(), 'GET t', 'B10: from then on Stripe is asked first whether it took effect');
select pg_temp.dead('undo_cancel', null);
select is(pg_temp.retried(), 'POST f', 'or it goes out under a fresh key, if twice does no harm');
select pg_temp.dead('create_checkout', null);
select throws_ok(
  'select pg_temp.retried()',
  'PT422', 'the command is too old to be made',
  'a page nobody waits for is not opened'
);
select is(
  (select status from billing_private.commands where id = md5('dead')::uuid), 'dead',
  'it stays as it was'
);
select pg_temp.dead('create_checkout', 400);
select is(pg_temp.retried(), 'POST f', 'one that was refused took no effect, however long ago');
select pg_temp.dead('create_customer', 429);
select is(pg_temp.retried(), 'GET t', 'a rate limit is no refusal');
delete from billing_private.commands where id = md5('dead')::uuid;
select tests.set_time('2026-01-10 18:00');

-- ---- errors -----------------------------------------------------------------

select tests.sign_in('ada');

select throws_ok(
  $$ select billing_admin.retry_command((select id from ours), 'once more') $$,
  'PT404', 'there is no such command',
  'what succeeded cannot be retried'
);
select throws_ok(
  $$ select billing_admin.retry_command(md5('no such command')::uuid, 'a typo') $$,
  'PT404', 'there is no such command',
  'a command that does not exist cannot be retried'
);
select throws_ok(
  $$ select billing_admin.retry_command((select id from ours), '') $$,
  'PT400', 'the request is not valid',
  'a retry needs a reason'
);

-- ---- a user, a visitor ------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.retry_command((select id from ours), 'hurry') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot retry a command, not even the own'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.retry_command(md5('no such command')::uuid, 'hello') $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot'
);

-- ---- the audit --------------------------------------------------------------

select tests.be_owner();
select results_eq(
  $$
    select after ->> 'action', after ->> 'reason', actor_id
    from billing_private.audit_log
    where table_name = 'billing_private.admin_actions'
      and after ->> 'subject' = (select id::text from ours)
    order by id
  $$,
  $$
    values
      ('retry_command', 'Stripe is back', md5('ada')::uuid),
      ('retry_command', 'the email is right now', md5('ada')::uuid),
      ('retry_command', 'to be sure', md5('ada')::uuid)
  $$,
  'the audit says who retried what, and why'
);

select * from finish();
rollback;
