-- billing_private.project_checkout_session(): a checkout is followed; it gives no access by itself.
begin;
\ir ../helpers.psql
select plan(32);

select tests.catalog();
select tests.set_time('2026-01-10 08:00');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);

create function tests.session(
  p_type text,
  p_at timestamptz,
  p_status text,
  p_extra jsonb default '{}'
) returns text
language sql as $$
  select tests.deliver(
    'evt_' || md5(p_type || p_at::text || p_extra), 'checkout.session.' || p_type, p_at,
    jsonb_build_object(
      'id', 'cs_1', 'object', 'checkout.session', 'status', p_status, 'mode', 'subscription',
      'payment_status', 'paid', 'customer', 'cus_ann', 'subscription', null,
      'client_reference_id', md5('ann')::uuid, 'created', 1768032000, 'expires_at', 1768118400,
      'url', case when p_status = 'open' then 'https://checkout.stripe.com/c/1' end,
      'metadata', jsonb_build_object(
        'account_id', md5('ann')::uuid, 'checkout_id', md5('checkout')::uuid)) || p_extra);
$$;

insert into billing.checkout_sessions (id, account_id, price_id, success_url, cancel_url)
values (md5('checkout')::uuid, md5('ann')::uuid, md5('plus_monthly')::uuid,
  'https://app.example/ok', 'https://app.example/no');

create view tests.checkout as
select * from billing.checkout_sessions where id = md5('checkout')::uuid;

savepoint s;

-- ---- the service: our session -----------------------------------------------

select is(
  tests.session('completed', '2026-01-10 08:05', 'complete', '{"subscription": "sub_ann"}'),
  'applied',
  'the completion of a checkout is applied'
);
select results_eq(
  $$
    select status, url, expires_at, completed_at, stripe_session_id, stripe_subscription_id
    from tests.checkout
  $$,
  $$
    values ('complete', null, '2026-01-11 08:00+00'::timestamptz,
      '2026-01-10 08:05+00'::timestamptz, 'cs_1', 'sub_ann')
  $$,
  'G14: the checkout is complete, and says which subscription came of it'
);
select is_empty(
  $$ select * from billing.entitlements $$,
  'G13: a complete checkout gives no access: that is the subscription''s to give'
);
rollback to s;

select tests.session('completed', '2026-01-10 08:05', 'complete',
  '{"subscription": "sub_ann", "payment_status": "unpaid"}');
select tests.subscribe('ann', 'incomplete');
select is_empty(
  $$ select * from billing.entitlements $$,
  'G13: completed by bank debit and not paid yet, there is no access'
);
select tests.session('async_payment_succeeded', '2026-01-12 08:05', 'complete',
  '{"subscription": "sub_ann"}');
select is_empty(
  $$ select * from billing.entitlements $$,
  'G13: nor does the session''s word on the payment give any'
);
select is(
  (select completed_at from tests.checkout), '2026-01-10 08:05+00'::timestamptz,
  'G13: the checkout was completed when the user was done with it'
);
select tests.deliver('evt_active', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('ann', 'active', '2026-01-10'));
select isnt_empty(
  $$ select * from billing.entitlements $$,
  'G13: the subscription that becomes active does'
);
rollback to s;

select tests.session('completed', '2026-01-10 08:05', 'complete',
  '{"subscription": "sub_ann", "payment_status": "unpaid"}');
select is(
  tests.session('async_payment_failed', '2026-01-12', 'complete',
    '{"subscription": "sub_ann", "payment_status": "unpaid"}'),
  'applied',
  'G13: a bank debit that fails is applied'
);
select is(
  (select status from tests.checkout), 'complete',
  'G13: and leaves the checkout complete: the subscription tells the rest'
);
rollback to s;

select tests.session('expired', '2026-01-11 08:00', 'expired');
select results_eq(
  $$ select status, url, completed_at, stripe_session_id from tests.checkout $$,
  $$ values ('expired', null, null::timestamptz, 'cs_1') $$,
  'a checkout nobody finished expires'
);
select tests.session('completed', '2026-01-10 09:00', 'open');
select is(
  (select status from tests.checkout), 'expired',
  'and stays so when something older arrives'
);
rollback to s;

select tests.session('updated', '2026-01-10 08:01', 'open');
select is_empty(
  $$ select * from tests.checkout where status <> 'creating' $$,
  'an event of a type nobody handles does not touch the checkout'
);
rollback to s;

select tests.session('completed', '2026-01-10 08:05', 'complete',
  '{"subscription": {"id": "sub_ann", "object": "subscription"},
    "customer": {"id": "cus_ann", "object": "customer"}}');
select is(
  (select stripe_subscription_id from tests.checkout), 'sub_ann',
  'D11: subscription and customer may be objects'
);
rollback to s;

-- ---- the service: whose customer --------------------------------------------

insert into billing.checkout_sessions (id, account_id, price_id, success_url, cancel_url)
values (md5('bob''s')::uuid, md5('bob')::uuid, md5('plus_monthly')::uuid,
  'https://app.example/ok', 'https://app.example/no');
select tests.session('completed', '2026-01-10 08:05', 'complete', jsonb_build_object(
  'id', 'cs_2', 'customer', 'cus_made_at_checkout', 'client_reference_id', null,
  'metadata', jsonb_build_object('checkout_id', md5('bob''s')::uuid)));
select is(
  (select account_id from billing.customers where stripe_customer_id = 'cus_made_at_checkout'),
  md5('bob')::uuid,
  'the customer of a session is the account''s whose checkout it was'
);
rollback to s;

select tests.session('completed', '2026-01-10 08:05', 'complete', jsonb_build_object(
  'client_reference_id', md5('bob')::uuid,
  'customer', 'cus_fresh',
  'metadata', jsonb_build_object(
    'checkout_id', md5('checkout')::uuid, 'account_id', md5('bob')::uuid)));
select is(
  (select account_id from billing.customers where stripe_customer_id = 'cus_fresh'),
  md5('ann')::uuid,
  'E11: our own row decides whose it is, whatever the session says'
);
rollback to s;

select tests.session('completed', '2026-01-10 08:05', 'complete', jsonb_build_object(
  'customer', 'cus_ann', 'client_reference_id', md5('bob')::uuid, 'metadata', '{}'::jsonb));
select is(
  (select account_id from billing.customers where stripe_customer_id = 'cus_ann'),
  md5('ann')::uuid,
  'E11: a session cannot take a customer from its account'
);
rollback to s;

-- ---- the service: sessions others made --------------------------------------

select is(
  tests.session('completed', '2026-01-10 08:05', 'complete', jsonb_build_object(
    'id', 'cs_link', 'customer', 'cus_link', 'client_reference_id', md5('bob')::uuid,
    'metadata', '{}'::jsonb)),
  'applied',
  'the session of a payment link is applied'
);
select is(
  (select count(*) from billing.checkout_sessions), 1::bigint,
  'and makes no checkout of ours'
);
select is(
  (select account_id from billing.customers where stripe_customer_id = 'cus_link'),
  md5('bob')::uuid,
  'but its reference says whose the customer is'
);
rollback to s;

insert into auth.users (id, email) values (md5('dan')::uuid, 'dan@example.com');
select tests.session('completed', '2026-01-10 08:05', 'complete', jsonb_build_object(
  'id', 'cs_link', 'customer', 'cus_link', 'client_reference_id', md5('dan')::uuid,
  'metadata', '{}'::jsonb));
select is(
  (select account_id from billing.customers where stripe_customer_id = 'cus_link'),
  md5('dan')::uuid,
  'also if that user has never come near billing'
);
rollback to s;

select is(
  tests.session('completed', '2026-01-10 08:05', 'complete', '{"id": "cs_link",
    "customer": "cus_link", "client_reference_id": "cart 42", "metadata": {"checkout_id": "7"}}'),
  'applied',
  'references that mean something to somebody else are no error'
);
select is_empty(
  $$ select * from billing.customers where stripe_customer_id = 'cus_link' $$,
  'and bind nobody'
);
select is(
  tests.session('completed', '2026-01-10 08:06', 'complete',
    '{"id": "cs_guest", "customer": null, "metadata": null, "client_reference_id": null}'),
  'applied',
  'a guest''s session is applied'
);
rollback to s;

select tests.session('completed', '2026-01-10 08:05', 'complete');
select tests.session('expired', '2026-01-11 08:05', 'expired', '{"id": "cs_copy"}');
select results_eq(
  $$ select status, stripe_session_id from tests.checkout $$,
  $$ values ('complete', 'cs_1') $$,
  'a second session under the same reference does not replace the first'
);
rollback to s;

-- ---- the service: what completion closes ------------------------------------

update billing.checkout_sessions set status = 'expired' where id = md5('checkout')::uuid;
insert into billing.checkout_sessions
  (id, account_id, price_id, success_url, cancel_url, status, stripe_session_id, url, expires_at)
values (md5('other')::uuid, md5('ann')::uuid, md5('basic_monthly')::uuid, 'https://a.example',
  'https://a.example', 'open', 'cs_other', 'https://checkout.stripe.com/c/2', '2026-01-11');
select tests.session('completed', '2026-01-10 08:05', 'complete');
select results_eq(
  $$ select status, url from billing.checkout_sessions order by status $$,
  $$ values ('complete', null), ('expired', null) $$,
  'a session paid after we had given it up is complete, and the open one is closed'
);
select results_eq(
  $$ select kind, method, path, params, status from billing_private.commands $$,
  $$
    values ('expire_checkout', 'POST', '/v1/checkout/sessions/cs_other/expire', '{}'::jsonb,
      'pending')
  $$,
  'at Stripe too, so that it cannot be paid as well'
);
rollback to s;

insert into billing.checkout_sessions
  (id, account_id, price_id, success_url, cancel_url, status, stripe_session_id, url, expires_at)
values (md5('bob''s')::uuid, md5('bob')::uuid, md5('basic_monthly')::uuid, 'https://a.example',
  'https://a.example', 'open', 'cs_bob', 'https://checkout.stripe.com/c/2', '2026-01-11');
select tests.session('completed', '2026-01-10 08:05', 'complete');
select is(
  (select status from billing.checkout_sessions where id = md5('bob''s')::uuid), 'open',
  'somebody else''s open checkout stays open'
);
rollback to s;

update billing.checkout_sessions
set status = 'failed', failure = '{"code": "x"}'
where id = md5('checkout')::uuid;
select tests.session('completed', '2026-01-10 08:05', 'complete');
select results_eq(
  $$ select status, failure from tests.checkout $$,
  $$ values ('complete', null::jsonb) $$,
  'a checkout taken for failed that was paid after all is complete'
);
rollback to s;

-- ---- a member, a stranger, a visitor ----------------------------------------

select tests.session('completed', '2026-01-10 08:05', 'complete');
select tests.sign_in('ann');
select results_eq(
  $$ select status from billing.checkout_sessions $$,
  $$ values ('complete') $$,
  'G14: a member can ask what became of the checkout'
);
select throws_ok(
  $$ update billing.checkout_sessions set status = 'open' $$,
  '42501', 'permission denied for table checkout_sessions',
  'and cannot change it'
);
select tests.sign_in('bob');
select is_empty($$ select * from billing.checkout_sessions $$, 'a stranger sees nothing of it');
select tests.sign_out();
select throws_ok(
  $$ select * from billing.checkout_sessions $$,
  '42501', 'permission denied for table checkout_sessions',
  'a visitor cannot ask'
);

select * from finish();
rollback;
