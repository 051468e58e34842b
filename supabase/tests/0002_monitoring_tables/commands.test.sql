-- The outbox: billing_private.commands, calls to Stripe that are written down before they are made.
begin;
\ir ../helpers.psql
select plan(20);

select tests.set_time('2026-01-10');
select billing_private.ensure_account(md5('ann')::uuid);

-- ---- a new command ----------------------------------------------------------

insert into billing_private.commands (id, kind, account_id, path)
values (md5('one')::uuid, 'create_customer', md5('ann')::uuid, '/v1/customers');

select row_eq(
  $$
    select method, params, status, attempts, next_attempt_at, created_at, lease, cause
    from billing_private.commands
  $$,
  row('POST'::text, '{}'::jsonb, 'pending'::text, 0, '2026-01-10'::timestamptz,
    '2026-01-10'::timestamptz, null::uuid, '{}'::jsonb),
  'a command is a POST that is due now and that nobody has taken'
);

insert into billing_private.commands (id, kind, account_id, path)
select md5(name)::uuid, 'create_customer', md5('ann')::uuid, '/v1/customers'
from unnest(array['two', 'three']) as name;

select results_eq(
  'select id from billing_private.commands order by position',
  array[md5('one')::uuid, md5('two')::uuid, md5('three')::uuid],
  'commands stand in the line they came in'
);

select throws_ok(
  $$
    insert into billing_private.commands (kind, account_id, path, position)
    values ('create_customer', md5('ann')::uuid, '/v1/customers', 0)
  $$,
  '428C9', 'cannot insert a non-DEFAULT value into column "position"',
  'nobody chooses a place in it'
);

select throws_ok(
  $$
    insert into billing_private.commands (id, kind, account_id, path)
    values (md5('one')::uuid, 'create_customer', md5('ann')::uuid, '/v1/customers')
  $$,
  '23505', 'duplicate key value violates unique constraint "commands_pkey"',
  'E2: no two commands have one idempotency key'
);

-- ---- whose it is ------------------------------------------------------------

select lives_ok(
  $$ insert into billing_private.commands (kind, path) values ('reread', '/v1/prices/price_1') $$,
  'what the machine asks for itself is for no account'
);

select throws_ok(
  $$
    insert into billing_private.commands (kind, account_id, path)
    values ('create_customer', md5('nobody')::uuid, '/v1/customers')
  $$,
  '23503', 'insert or update on table "commands" violates foreign key constraint '
    '"commands_account_id_fkey"',
  'for one there is'
);

select throws_like(
  $$ delete from billing.accounts where id = md5('ann')::uuid $$,
  '%"commands_account_id_fkey"%',
  'an account that has asked Stripe for something is not deleted'
);

select throws_ok(
  $$ update billing_private.commands set subscription_id = md5('nothing')::uuid $$,
  '23503', 'insert or update on table "commands" violates foreign key constraint '
    '"commands_subscription_id_fkey"',
  'a command about a subscription is about one there is'
);

-- ---- its life ---------------------------------------------------------------

prepare set_status(text, text, timestamptz) as
update billing_private.commands
set status = $1, lease = md5($2)::uuid, lease_expires_at = $3
where id = md5('one')::uuid;

select lives_ok(
  $$ execute set_status('leased', 'worker', '2026-01-10 00:01') $$,
  'a leased command has a worker and an end'
);

select throws_ok(
  $$ execute set_status('leased', null, '2026-01-10 00:01') $$,
  '23514', 'new row for relation "commands" violates check constraint '
    '"commands_lease_has_an_end"',
  'never no worker'
);

select throws_ok(
  $$ execute set_status('leased', 'worker', null) $$,
  '23514', 'new row for relation "commands" violates check constraint '
    '"commands_lease_has_an_end"',
  'and never no end: a worker that dies would keep it'
);

select throws_ok(
  $$ execute set_status('pending', 'worker', '2026-01-10 00:01') $$,
  '23514', 'new row for relation "commands" violates check constraint '
    '"commands_lease_has_an_end"',
  'a command that waits is nobody''s'
);

select throws_ok(
  $$ execute set_status('succeeded', 'worker', '2026-01-10 00:01') $$,
  '23514', 'new row for relation "commands" violates check constraint '
    '"commands_lease_has_an_end"',
  'nor is one that is done'
);

select lives_ok(
  format('execute set_status(%L, null, null)', status),
  format('a command may be %s', status)
)
from unnest(array['pending', 'succeeded', 'dead', 'canceled']) as status;

select throws_ok(
  $$ execute set_status('lost', null, null) $$,
  '23514', 'new row for relation "commands" violates check constraint "commands_status_is_known"',
  'and is in no other state'
);

-- ---- everybody else ---------------------------------------------------------

select tests.be_service();

select throws_ok(
  'select from billing_private.commands',
  '42501', 'permission denied for schema billing_private',
  'the Edge Functions see commands only by claiming them'
);

select tests.sign_in('ann');

select throws_ok(
  'select from billing_private.commands',
  '42501', 'permission denied for schema billing_private',
  'a member sees what was asked of Stripe only as pending_command of her subscription'
);

select * from finish();
rollback;
