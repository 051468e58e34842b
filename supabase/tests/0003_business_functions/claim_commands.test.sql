-- billing.claim_commands(): who gets which call to Stripe, in which order, for how long.
begin;
\ir ../helpers.psql
select plan(35);

select tests.catalog();
select tests.set_time('2026-01-10 08:00');
select billing_private.ensure_account(md5(name)::uuid)
from unnest(array['ann', 'bob', 'carol']) as name;

-- A call to Stripe that ann, bob or carol waits for; its id is made of its name.
create function tests.command(
  p_account text,
  p_name text,
  p_kind text default 'update_subscription',
  p_subject text default null
) returns void
language sql as $$
  insert into billing_private.commands (id, kind, account_id, subject_id, method, path, params)
  values (md5(p_name)::uuid, p_kind, md5(p_account)::uuid, md5(p_subject)::uuid, 'POST',
    '/v1/' || p_name, jsonb_build_object('name', p_name));
$$;

-- The names of what a worker is given, in order.
create function tests.claim(p_batch integer default 20, p_subject text default null) returns text[]
language sql as $$
  select coalesce(array_agg(params ->> 'name' order by params ->> 'name'), '{}')
  from billing.claim_commands(p_batch, md5(p_subject)::uuid);
$$;

create function tests.finish_command(p_name text, p_status text default 'succeeded') returns void
language sql as $$
  update billing_private.commands
  set status = p_status, lease = null, lease_expires_at = null
  where id = md5(p_name)::uuid;
$$;

create view tests.commands as
select params ->> 'name' as name, status, attempts, lease, lease_expires_at, next_attempt_at
from billing_private.commands;

grant usage on schema tests to service_role;
grant execute on all functions in schema tests to service_role;

savepoint s;

-- ---- the service: a claim ---------------------------------------------------

select is(tests.claim(), '{}', 'with nothing to do there is nothing to claim');

select tests.command('ann', 'a1');
select tests.be_service();
select results_eq(
  $$ select id, method, path, params from billing.claim_commands() $$,
  $$ values (md5('a1')::uuid, 'POST', '/v1/a1', '{"name": "a1"}'::jsonb) $$,
  'a worker is told which call to make; the id is its idempotency key'
);
select tests.be_owner();
select results_eq(
  $$ select status, attempts, lease is not null, lease_expires_at from tests.commands $$,
  $$ values ('leased', 1, true, '2026-01-10 08:07:10+00'::timestamptz) $$,
  'it is leased: half a minute, and twenty seconds for each call the worker may have to make'
);
select is(tests.claim(), '{}', 'what is leased is not given to another worker');
rollback to s;

select tests.command('ann', 'a1');
select tests.command('bob', 'b1');
create temporary table claimed as select * from billing.claim_commands();
select is(
  (select count(distinct lease) from claimed), 2::bigint,
  'each call has a lease of its own'
);
select is(
  (select count(*) from claimed join billing_private.commands using (id, lease)), 2::bigint,
  'which is the one the worker was told'
);
rollback to s;

-- ---- the service: one at a time per account, in order -----------------------

select tests.command('ann', 'a1');
select tests.command('ann', 'a2');
select tests.command('bob', 'b1');
select tests.command('ann', 'a3');
select is(tests.claim(), '{a1,b1}', 'one call of each account at a time, the oldest first');
select is(tests.claim(), '{}', 'the next of an account waits for the one before it');
select tests.finish_command('a1');
select is(tests.claim(), '{a2}', 'and follows when that is done');
select tests.finish_command('a2', 'dead');
select is(tests.claim(), '{a3}', 'a call that was given up holds up nothing');
rollback to s;

select tests.command('ann', 'a1');
select tests.command('ann', 'a2');
select tests.finish_command('a1', 'canceled');
select is(tests.claim(), '{a2}', 'nor does one that was canceled');
rollback to s;

select tests.command('ann', 'a1');
select tests.command('ann', 'a2');
select tests.command('bob', 'b1');
update billing_private.commands
set next_attempt_at = '2026-01-10 08:00:01'
where id = md5('a1')::uuid;
select is(tests.claim(), '{b1}', 'a call that waits for its next try holds up its account alone');
select tests.set_time('2026-01-10 08:00:01');
select is(tests.claim(), '{a1}', 'and is given out on the second it is due');
rollback to s;

-- ---- the service: leases that run out ---------------------------------------

select tests.command('ann', 'a1');
select tests.command('ann', 'a2');
select is(tests.claim(1), '{a1}', 'a worker claims a call and is never heard of again');
select is(
  (select lease_expires_at from tests.commands where name = 'a1'),
  '2026-01-10 08:00:50+00'::timestamptz,
  'a lease for one call lasts fifty seconds'
);
create temporary table first_lease as select lease from tests.commands where name = 'a1';
select tests.set_time('2026-01-10 08:00:49');
select is(tests.claim(), '{}', 'until its lease has run out nobody else gets it');
select tests.set_time('2026-01-10 08:00:50');
select is(tests.claim(1), '{a1}', 'on that second it is given to the next worker');
select results_eq(
  $$
    select attempts, commands.lease <> first_lease.lease
    from tests.commands, first_lease
    where name = 'a1'
  $$,
  $$ values (2, true) $$,
  'as its second try, under a new lease'
);
rollback to s;

-- ---- the service: how many --------------------------------------------------

insert into billing.accounts (id) select md5('n' || n)::uuid from generate_series(1, 130) as n;
insert into billing_private.commands (kind, account_id, path, params)
select 'update_subscription', md5('n' || n)::uuid, '/v1/x', jsonb_build_object('name', n)
from generate_series(1, 130) as n
order by n;
savepoint many;

select is(cardinality(tests.claim()), 20, 'without a number a worker gets twenty');
rollback to many;
select is(cardinality(tests.claim(null)), 20, 'the same without any');
select is(
  (select max(name::integer) from tests.commands where status = 'leased'), 20,
  'the oldest of all accounts'
);
rollback to many;
select is(tests.claim(3), '{1,2,3}', 'or as many as it asks for');
rollback to many;
select is(cardinality(tests.claim(1000000)), 100, 'but never more than a hundred');
select is(
  (select max(lease_expires_at) from tests.commands), '2026-01-10 08:33:50+00'::timestamptz,
  'and not for longer than a hundred calls can take'
);
rollback to many;
select is(cardinality(tests.claim(0)), 1, 'and never less than one');
rollback to many;
select is(cardinality(tests.claim(-5)), 1, 'whatever it asks for');
select is(
  (select max(lease_expires_at) from tests.commands), '2026-01-10 08:00:50+00'::timestamptz,
  'for as long as one call takes'
);
rollback to s;

-- ---- the service: behind a user who waits -----------------------------------

insert into billing.checkout_sessions (id, account_id, price_id, success_url, cancel_url)
values (md5('checkout')::uuid, md5('ann')::uuid, md5('plus_monthly')::uuid,
  'https://a.example', 'https://a.example');
select tests.command('bob', 'b1');
select tests.command('ann', 'a1', 'create_customer');
select tests.command('ann', 'a2', 'create_checkout', 'checkout');
select is(
  tests.claim(20, 'checkout'), '{a1}',
  'behind a checkout only its account''s calls are made, what stands before it first'
);
select tests.finish_command('a1');
select is(tests.claim(20, 'checkout'), '{a2}', 'then its own');
select is(tests.claim(20, 'checkout'), '{}', 'and nobody else''s');
rollback to s;

select tests.command('ann', 'a1');
select tests.command('ann', 'portal', 'create_portal', 'portal');
select tests.command('ann', 'other_portal', 'create_portal', 'other_portal');
select tests.command('ann', 'a2');
select is(
  tests.claim(), '{a1}',
  'the address of a portal is of use only to who waits for it: no worker opens it'
);
select is(
  tests.claim(20, 'portal'), '{portal}',
  'its user''s own function does, at once, and no other user''s'
);
select tests.finish_command('a1');
select is(tests.claim(), '{a2}', 'nor does it hold up the line');
rollback to s;

-- ---- a member, a visitor ----------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing.claim_commands() $$,
  '42501', 'permission denied for function claim_commands',
  'a member cannot claim calls to Stripe'
);
select tests.sign_out();
select throws_ok(
  $$ select * from billing.claim_commands() $$,
  '42501', 'permission denied for function claim_commands',
  'a visitor cannot either'
);

select * from finish();
rollback;
