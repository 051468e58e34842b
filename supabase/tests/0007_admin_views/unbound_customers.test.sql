-- billing_admin.unbound_customers and bind_customer(): whose a customer is, on somebody's word.
begin;
\ir ../helpers.psql
select plan(14);

select tests.catalog();
select tests.set_time('2026-01-15');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select billing_private.ensure_account(md5('ann')::uuid);
select tests.account('bob');
select tests.subscribe('new');
select tests.deliver('evt_cus', 'customer.created', '2026-01-10', '{
  "id": "cus_new", "object": "customer", "email": "ann@example.com", "name": "Ann"}');
select tests.deliver('evt_in', 'invoice.paid', '2026-01-10', '{
  "id": "in_new", "object": "invoice", "status": "paid", "customer": "cus_new",
  "currency": "usd"}');
select tests.deliver('evt_ch', 'charge.succeeded', '2026-01-10', '{
  "id": "ch_new", "object": "charge", "status": "succeeded", "customer": "cus_new",
  "amount": 1000, "currency": "usd", "created": 1768003200}');
select tests.deliver('evt_gone', 'customer.deleted', '2026-01-10', '{
  "id": "cus_gone", "object": "customer"}');

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');
select results_eq(
  $$
    select stripe_customer_id, email, name, live_subscriptions, invoices, paid_payments
    from billing_admin.unbound_customers
  $$,
  $$ values ('cus_new', 'ann@example.com', 'Ann', 1::bigint, 1::bigint, 1::bigint) $$,
  'C8: a customer nobody claimed waits with all that came in, also where an address is known'
);
select throws_ok(
  $$ select billing_admin.bind_customer('cus_none', md5('ann')::uuid, 'she called') $$,
  'PT404', 'the account is not a customer yet',
  'a customer Stripe never told of is bound to nobody'
);
select throws_ok(
  $$ select billing_admin.bind_customer('cus_new', md5('nobody')::uuid, 'she called') $$,
  'PT404', 'there is no such account',
  'nor is one to an account that does not exist'
);
select throws_ok(
  $$ select billing_admin.bind_customer('cus_bob', md5('ann')::uuid, 'she called') $$,
  'PT400', 'the request is not valid',
  'E11: nobody''s customer is taken away'
);
select throws_ok(
  $$ select billing_admin.bind_customer('cus_new', md5('ann')::uuid, '') $$,
  'PT400', 'the request is not valid',
  'a reason is needed'
);
select results_eq(
  $$
    select account_id, is_primary
    from billing_admin.bind_customer('cus_new', md5('ann')::uuid, 'she called')
  $$,
  $$ values (md5('ann')::uuid, true) $$,
  'with a reason it becomes the account''s'
);
select is_empty($$ select * from billing_admin.unbound_customers $$, 'and waits no more');
select lives_ok(
  $$ select billing_admin.bind_customer('cus_new', md5('ann')::uuid, 'she called again') $$,
  'twice changes nothing more'
);

select tests.be_owner();
select is(
  billing.has_entitlement('premium', md5('ann')::uuid), true, 'what was bought is given at once');
select is(
  (select account_id from billing.invoices), md5('ann')::uuid, 'and its invoices are the account''s'
);
select results_eq(
  $$
    select subject, reason
    from billing_private.admin_actions
    where action = 'bind_customer'
    order by id
  $$,
  $$ values ('cus_new', 'she called'), ('cus_new', 'she called again') $$,
  'who said so, and why, is noted'
);

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing_admin.unbound_customers $$,
  'PT403', 'this needs a billing administrator',
  'a member may not look'
);
select throws_ok(
  $$ select billing_admin.bind_customer('cus_bob', md5('ann')::uuid, 'mine') $$,
  'PT403', 'this needs a billing administrator',
  'E11: nor claim a customer'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.bind_customer('cus_bob', md5('ann')::uuid, 'mine') $$,
  '42501', 'permission denied for schema billing_admin',
  'nor may a visitor'
);

select * from finish();
rollback;
