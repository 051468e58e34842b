-- billing.customers and billing.checkout_sessions: claims that keep two clicks from paying twice.
begin;
\ir ../helpers.psql
select plan(27);

select tests.catalog();
select billing_private.ensure_account(md5('ann')::uuid);
select billing_private.ensure_account(md5('bob')::uuid);

-- ---- customers --------------------------------------------------------------

select lives_ok(
  $$ insert into billing.customers (stripe_customer_id) values ('cus_unclaimed') $$,
  'a customer of Stripe''s may wait for its account'
);

select lives_ok(
  $$ insert into billing.customers (account_id, is_primary) values (md5('ann')::uuid, true) $$,
  'an account may claim its customer before Stripe has made it'
);

select throws_ok(
  $$ insert into billing.customers (email) values ('ann@example.com') $$,
  '23514', 'new row for relation "customers" violates check constraint '
    '"customers_is_known_to_somebody"',
  'a customer that neither Stripe nor an account knows is none'
);

select throws_ok(
  $$ insert into billing.customers (stripe_customer_id, is_primary) values ('cus_x', true) $$,
  '23514', 'new row for relation "customers" violates check constraint '
    '"customers_primary_has_an_account"',
  'the primary customer is some account''s'
);

-- Two tabs, two clicks: the second claim finds the first.
select throws_ok(
  $$ insert into billing.customers (account_id, is_primary) values (md5('ann')::uuid, true) $$,
  '23505', 'duplicate key value violates unique constraint "customers_account_id_primary_idx"',
  'E3: an account has one primary customer, so that two checkouts never create two'
);

select lives_ok(
  $$
    insert into billing.customers (account_id, stripe_customer_id)
    values (md5('ann')::uuid, 'cus_imported')
  $$,
  'an account may have other customers beside it'
);

select lives_ok(
  $$ insert into billing.customers (account_id, is_primary) values (md5('bob')::uuid, true) $$,
  'another account has its own'
);

select throws_ok(
  $$
    insert into billing.customers (account_id, stripe_customer_id)
    values (md5('bob')::uuid, 'cus_imported')
  $$,
  '23505', 'duplicate key value violates unique constraint "customers_stripe_customer_id_key"',
  'a customer of Stripe''s belongs to one account'
);

update billing.customers set deleted_at = '2026-01-10' where account_id = md5('ann')::uuid;
select lives_ok(
  $$ insert into billing.customers (account_id, is_primary) values (md5('ann')::uuid, true) $$,
  'when the primary customer was deleted at Stripe, a new one may take its place'
);

select throws_like(
  $$ delete from billing.accounts where id = md5('ann')::uuid $$,
  '%"customers_account_id_fkey"%',
  'an account with customers is not deleted'
);

-- ---- checkout sessions ------------------------------------------------------

prepare add_checkout(text, text, bigint) as
insert into billing.checkout_sessions
  (account_id, price_id, status, quantity, success_url, cancel_url)
values (
  md5($1)::uuid, md5('plus_monthly')::uuid, $2, $3, 'https://app.example/yes',
  'https://app.example/no');

select lives_ok($$ execute add_checkout('ann', 'creating', 1) $$, 'a checkout may sell one');

select throws_ok(
  $$ execute add_checkout('ann', 'creating', 1) $$,
  '23505', 'duplicate key value violates unique constraint "checkout_sessions_one_open_idx"',
  'E3: an account has one checkout that is being opened'
);

select throws_ok(
  $$ execute add_checkout('ann', 'open', 1) $$,
  '23505', 'duplicate key value violates unique constraint "checkout_sessions_one_open_idx"',
  'and none open beside it'
);

select lives_ok(
  $$ execute add_checkout('bob', 'open', 1) $$,
  'another account may have one at the same time'
);

select throws_ok(
  $$ execute add_checkout('bob', 'creating', 1) $$,
  '23505', 'duplicate key value violates unique constraint "checkout_sessions_one_open_idx"',
  'and opens no other while it is open'
);

select lives_ok($$ execute add_checkout('ann', 'complete', 1) $$, 'complete ones take no place');
select lives_ok($$ execute add_checkout('ann', 'expired', 1) $$, 'nor do expired ones');
select lives_ok($$ execute add_checkout('ann', 'failed', 1) $$, 'nor do failed ones');

select throws_ok(
  $$ execute add_checkout('ann', 'paid', 1) $$,
  '23514', 'new row for relation "checkout_sessions" violates check constraint '
    '"checkout_sessions_status_is_known"',
  'a checkout is in no other state: whether it was paid, the subscription says'
);

select throws_ok(
  $$ execute add_checkout('ann', 'failed', 0) $$,
  '23514', 'new row for relation "checkout_sessions" violates check constraint '
    '"checkout_sessions_quantity_is_positive"',
  'a checkout sells at least one'
);

select throws_ok(
  $$ execute add_checkout('carl', 'creating', 1) $$,
  '23503', 'insert or update on table "checkout_sessions" violates foreign key constraint '
    '"checkout_sessions_account_id_fkey"',
  'a checkout is some account''s'
);

update billing.checkout_sessions set stripe_session_id = 'cs_1' where status = 'failed';
select throws_ok(
  $$ update billing.checkout_sessions set stripe_session_id = 'cs_1' where status = 'expired' $$,
  '23505', 'duplicate key value violates unique constraint '
    '"checkout_sessions_stripe_session_id_key"',
  'no two checkouts are one session of Stripe'
);

select throws_like(
  $$ delete from billing.prices where key = 'plus_monthly' $$,
  '%"checkout_sessions_price_id_fkey"%',
  'a price that was sold is not deleted'
);

-- ---- defaults ---------------------------------------------------------------

insert into billing.customers (id, account_id) values (md5('another')::uuid, md5('bob')::uuid);
select row_eq(
  $$
    select is_primary, is_delinquent, stripe_customer_id, deleted_at
    from billing.customers
    where id = md5('another')::uuid
  $$,
  row(false, false, null::text, null::timestamptz),
  'a customer is not the primary one, and owes nothing, unless it says so'
);

delete from billing.checkout_sessions where account_id = md5('bob')::uuid;
insert into billing.checkout_sessions (account_id, price_id, success_url, cancel_url)
values (
  md5('bob')::uuid, md5('plus_monthly')::uuid, 'https://app.example/yes',
  'https://app.example/no');

select row_eq(
  $$
    select status, quantity, url, stripe_session_id
    from billing.checkout_sessions
    where account_id = md5('bob')::uuid
  $$,
  row('creating'::text, 1::bigint, null::text, null::text),
  'a checkout begins as a claim for one, that Stripe knows nothing of yet'
);

-- ---- members ----------------------------------------------------------------

select tests.sign_in('bob');

select throws_ok(
  $$ insert into billing.customers (account_id) values (md5('bob')::uuid) $$,
  '42501', 'permission denied for table customers',
  'a member makes no customer by hand'
);

select throws_ok(
  $$ update billing.checkout_sessions set status = 'complete' $$,
  '42501', 'permission denied for table checkout_sessions',
  'a member completes no checkout by hand'
);

select * from finish();
rollback;
