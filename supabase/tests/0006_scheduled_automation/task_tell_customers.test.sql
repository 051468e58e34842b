-- The task tell_customers: a new e-mail address or name of an account reaches Stripe, once, unless
-- somebody entered another one there.
begin;
\ir ../helpers.psql
select plan(17);

select tests.take_tasks();
select tests.set_time('2026-01-10 12:00');
insert into auth.users (id, email) values (md5('ann')::uuid, 'ann@example.com');
select tests.account('ann');

create function tests.tell() returns bigint
language sql as 'select billing_private.task_tell_customers()';
create view tests.calls as
select kind, method, path, params, account_id, target_object_id from billing_private.commands;
-- What Stripe has of her.
create function tests.at_stripe(p_email text, p_name text default null) returns void
language sql as $$
  update billing.customers set email = p_email, name = p_name where stripe_customer_id = 'cus_ann';
$$;
savepoint s;

-- ---- a customer that was never looked at ------------------------------------

select tests.at_stripe('ann@example.com');
select is(tests.tell(), 0::bigint, 'where Stripe has the account''s address there is nothing to tell');
select is((select told_email from billing.customers), 'ann@example.com', 'which is noted');
rollback to s;
select tests.at_stripe(null);
select is(tests.tell(), 1::bigint, 'where it has none it is told');
rollback to s;
select tests.at_stripe('invoices@example.com');
select is(tests.tell(), 0::bigint, 'an address somebody entered there stands');
rollback to s;

-- ---- a new address ----------------------------------------------------------

select tests.at_stripe('ann@example.com');
select tests.tell();
update auth.users set email = 'new@example.com' where id = md5('ann')::uuid;
savepoint changed;
select is(tests.tell(), 1::bigint, 'a new address is told');
select results_eq(
  'select * from tests.calls',
  $$
    values ('update_customer', 'POST', '/v1/customers/cus_ann',
      '{"email": "new@example.com"}'::jsonb, md5('ann')::uuid, 'cus_ann')
  $$,
  'in the account''s line'
);
select is(tests.tell(), 0::bigint, 'once');
select is(
  (
    select outcome.status
    from billing.claim_commands() as claimed
    cross join lateral billing.complete_command(claimed.id, claimed.lease, 200,
      '{"id": "cus_ann", "object": "customer", "email": "new@example.com", "livemode": false}')
      as outcome
  ),
  'succeeded', 'Stripe takes it'
);
select is((select email from billing.customers), 'new@example.com', 'and the mirror has it');
select is(tests.tell(), 0::bigint, 'after that there is nothing to tell');
rollback to changed;

select tests.at_stripe('invoices@example.com');
select is(
  tests.tell(), 0::bigint, 'whoever has entered an address for invoices at Stripe keeps it'
);
rollback to changed;

delete from auth.users where id = md5('ann')::uuid;
select is(tests.tell(), 0::bigint, 'a user who is gone changes nothing');
rollback to changed;

update billing.customers set deleted_at = now(), is_primary = false
where stripe_customer_id = 'cus_ann';
select is(tests.tell(), 0::bigint, 'a customer who is gone is told nothing');
rollback to changed;

-- ---- a new name -------------------------------------------------------------

update billing.accounts set name = 'Ann & Co' where id = md5('ann')::uuid;
select tests.tell();
select is(
  (select params from tests.calls), '{"email": "new@example.com", "name": "Ann & Co"}',
  'a name too, in the same call'
);
rollback to s;
update billing.accounts set name = 'Ann & Co' where id = md5('ann')::uuid;
select tests.at_stripe('ann@example.com', 'Annie');
select is(tests.tell(), 0::bigint, 'unless Stripe has one already');
rollback to s;

-- ---- the heartbeat ----------------------------------------------------------

select is(billing_private.run_task('tell_customers'), 'succeeded', 'the heartbeat runs it');
select is(
  (select resume_after from billing_private.tasks where key = 'tell_customers'), null,
  'at the end of the list it begins again'
);

select * from finish();
rollback;
