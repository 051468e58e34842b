-- billing_private.project_customer(): what is kept of Stripe's customers, and what their end means.
begin;
\ir ../helpers.psql
select plan(20);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

-- ---- the service ------------------------------------------------------------

select is(
  tests.deliver('evt_1', 'customer.updated', '2026-01-10', '{
    "id": "cus_ann", "object": "customer", "email": "ann@example.com", "name": "Ann Arbor",
    "currency": "eur", "delinquent": true, "default_source": "card_1",
    "invoice_settings": {"default_payment_method": {"id": "pm_1", "object": "payment_method"}}}'),
  'applied',
  'a customer is applied'
);
select results_eq(
  $$
    select account_id, is_primary, email, name, currency, is_delinquent,
      stripe_default_payment_method_id, deleted_at
    from billing.customers
    where stripe_customer_id = 'cus_ann'
  $$,
  $$
    values (md5('ann')::uuid, true, 'ann@example.com', 'Ann Arbor', 'eur', true, 'pm_1',
      null::timestamptz)
  $$,
  'e-mail, name, currency, debts and the default payment method are kept'
);

select tests.deliver('evt_2', 'customer.updated', '2026-01-11', '{
  "id": "cus_ann", "object": "customer", "email": null, "default_source": "card_1",
  "invoice_settings": {"default_payment_method": null}}');
select results_eq(
  $$
    select email, name, is_delinquent, stripe_default_payment_method_id
    from billing.customers
    where stripe_customer_id = 'cus_ann'
  $$,
  $$ values (null, null, false, 'card_1') $$,
  'what Stripe no longer says is no longer kept; an old-style source counts as the default'
);

select is(
  tests.deliver('evt_3', 'customer.updated', '2026-01-12',
    '{"id": "cus_ann", "object": "customer", "metadata": null, "invoice_settings": null}'),
  'applied',
  'E7: fields that are missing or null are no error'
);

-- ---- the service: a customer nobody knows -----------------------------------

select tests.deliver('evt_4', 'customer.created', '2026-01-10',
  '{"id": "cus_new", "object": "customer", "email": "ann@example.com"}');
select results_eq(
  $$
    select account_id, is_primary, email
    from billing.customers
    where stripe_customer_id = 'cus_new'
  $$,
  $$ values (null::uuid, false, 'ann@example.com') $$,
  'C8: a customer with the e-mail of somebody known is still nobody''s'
);

select tests.deliver('evt_5', 'customer.created', '2026-01-10', jsonb_build_object(
  'id', 'cus_odd', 'object', 'customer', 'metadata', jsonb_build_object('account_id', 'ann')));
select is(
  (select account_id from billing.customers where stripe_customer_id = 'cus_odd'), null,
  'metadata that name no account are no error'
);

select tests.deliver('evt_6', 'customer.created', '2026-01-10', jsonb_build_object(
  'id', 'cus_zoe', 'object', 'customer',
  'metadata', jsonb_build_object('account_id', md5('zoe')::uuid)));
select is(
  (select account_id from billing.customers where stripe_customer_id = 'cus_zoe'), null,
  'nor do metadata that name an account which does not exist'
);

-- ---- the service: deletion --------------------------------------------------

select tests.subscribe('ann');
select isnt_empty(
  $$ select * from billing.entitlements where account_id = md5('ann')::uuid $$,
  'a subscriber has access'
);

select is(
  tests.deliver('evt_7', 'customer.deleted', '2026-01-14', '{
    "id": "cus_ann", "object": "customer", "email": "ann@example.com", "name": "Ann Arbor"}'),
  'applied',
  'E2: the deletion of a customer is applied'
);
select results_eq(
  $$
    select account_id, is_primary, deleted_at
    from billing.customers
    where stripe_customer_id = 'cus_ann'
  $$,
  $$ values (md5('ann')::uuid, false, '2026-01-14 00:00+00'::timestamptz) $$,
  'E1: a deleted customer stays the account''s, but new checkouts do not use it'
);
select results_eq(
  $$ select status, ended_at, canceled_at from billing.subscriptions $$,
  $$
    values ('canceled', '2026-01-14 00:00+00'::timestamptz, '2026-01-14 00:00+00'::timestamptz)
  $$,
  'E2: all its subscriptions are canceled, though no event about them came'
);
select is_empty(
  $$ select * from billing.entitlements where account_id = md5('ann')::uuid $$,
  'E2: and access ends'
);

select tests.deliver('evt_8', 'customer.subscription.deleted', '2026-01-14',
  tests.subscription('ann', 'canceled', '2026-01-10', 'price_plus_monthly',
    '{"ended_at": 1768348805, "canceled_at": 1768348805}'));
select is(
  (select ended_at from billing.subscriptions), '2026-01-14 00:00:05+00'::timestamptz,
  'E2: what Stripe says about the end, when it comes, is exact'
);

select tests.account('dora');
insert into billing.customers (account_id, stripe_customer_id)
values (md5('dora')::uuid, 'cus_dora_2');
select tests.deliver('evt_dora', 'customer.deleted', '2026-01-14',
  '{"id": "cus_dora", "object": "customer"}');
select is(
  (select stripe_customer_id from billing.customers
    where account_id = md5('dora')::uuid and is_primary),
  'cus_dora_2',
  'E1: of an account with two customers the other one takes the place of the deleted one'
);

select tests.deliver('evt_9', 'customer.created', '2026-01-14', jsonb_build_object(
  'id', 'cus_ann_2', 'object', 'customer',
  'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
select results_eq(
  $$
    select account_id, is_primary
    from billing.customers
    where stripe_customer_id = 'cus_ann_2'
  $$,
  $$ values (md5('ann')::uuid, true) $$,
  'E1: the customer made after it is the account''s new one'
);

select tests.deliver('evt_10', 'customer.updated', '2026-01-15',
  '{"id": "cus_gone", "object": "customer", "deleted": true}');
select results_eq(
  $$ select email, deleted_at from billing.customers where stripe_customer_id = 'cus_gone' $$,
  $$ values (null, '2026-01-15 00:00+00'::timestamptz) $$,
  'E1: an object that says it is deleted is a deleted customer, under any event''s name'
);

-- ---- the service: a default card that was taken off -------------------------

select tests.account('bob');
select tests.deliver('evt_11', 'customer.updated', '2026-01-10', '{"id": "cus_bob",
  "object": "customer", "invoice_settings": {"default_payment_method": "pm_b"}}');
select tests.deliver('evt_12', 'payment_method.detached', '2026-01-11',
  '{"id": "pm_b", "object": "payment_method", "type": "card", "customer": null}',
  '{"customer": "cus_bob"}');
select is(
  (select stripe_default_payment_method_id from billing.customers
    where stripe_customer_id = 'cus_bob'),
  null,
  'E10: a card that was taken off is nobody''s default'
);

select tests.deliver('evt_13', 'payment_method.attached', '2026-01-10',
  '{"id": "pm_c", "object": "payment_method", "type": "card", "customer": "cus_bob"}');
select tests.deliver('evt_14', 'customer.updated', '2026-01-12', '{"id": "cus_bob",
  "object": "customer", "invoice_settings": {"default_payment_method": "pm_c"}}');
select is(
  (select stripe_default_payment_method_id from billing.customers
    where stripe_customer_id = 'cus_bob'),
  'pm_c',
  'a card that is attached can be'
);

-- ---- a member, a stranger ---------------------------------------------------

select tests.sign_in('bob');
select results_eq(
  $$ select stripe_customer_id from billing.customers $$,
  $$ values ('cus_bob') $$,
  'a member sees the customers of the own account only'
);

select tests.sign_in('carol');
select is_empty($$ select * from billing.customers $$, 'a stranger sees none');

select * from finish();
rollback;
