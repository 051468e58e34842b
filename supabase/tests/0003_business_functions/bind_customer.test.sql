-- billing_private.bind_customer(): whose a Stripe customer is, and all that came in for it before.
begin;
\ir ../helpers.psql
select plan(31);

select tests.catalog();
select tests.set_time('2026-01-15');
select billing_private.ensure_account(md5('ann')::uuid);
select billing_private.ensure_account(md5('bob')::uuid);

create function tests.owner_of(p_customer text) returns text
language sql as $$
  select case account_id when md5('ann')::uuid then 'ann' when md5('bob')::uuid then 'bob' end
  from billing.customers
  where stripe_customer_id = p_customer;
$$;

-- ---- the service: everything before its owner is known ----------------------

select tests.subscribe('new');
select tests.deliver('evt_in', 'invoice.paid', '2026-01-10', '{
  "id": "in_new", "object": "invoice", "status": "paid", "customer": "cus_new", "currency": "usd",
  "amount_paid": 1000, "parent": {"subscription_details": {"subscription": "sub_new"}},
  "lines": {"data": [{"id": "il_1", "amount": 1000}]}}');
select tests.deliver('evt_re', 'refund.created', '2026-01-11', '{
  "id": "re_new", "object": "refund", "payment_intent": "pi_new", "currency": "usd",
  "status": "succeeded", "amount": 300}');
select tests.deliver('evt_pi', 'payment_intent.succeeded', '2026-01-10', '{
  "id": "pi_new", "object": "payment_intent", "status": "succeeded", "customer": "cus_new",
  "currency": "usd", "amount": 1000}');
select tests.deliver('evt_pm', 'payment_method.attached', '2026-01-10', '{
  "id": "pm_new", "object": "payment_method", "type": "card", "customer": "cus_new"}');
select tests.deliver('evt_dp', 'charge.dispute.created', '2026-01-11', '{
  "id": "dp_new", "object": "dispute", "payment_intent": "pi_new", "currency": "usd",
  "status": "needs_response", "amount": 1000}');
select tests.deliver('evt_issfr', 'radar.early_fraud_warning.created', '2026-01-11', '{
  "id": "issfr_new", "object": "radar.early_fraud_warning", "payment_intent": "pi_new"}');
select tests.deliver('evt_di', 'customer.discount.created', '2026-01-11', '{
  "id": "di_new", "object": "discount", "customer": "cus_new", "subscription": "sub_new"}');
select tests.deliver('evt_sched', 'subscription_schedule.created', '2026-01-11', '{
  "id": "sub_sched_new", "object": "subscription_schedule", "customer": "cus_new"}');
select tests.deliver('evt_ent', 'entitlements.active_entitlement_summary.updated', '2026-01-11', '{
  "object": "entitlements.active_entitlement_summary", "customer": "cus_new",
  "entitlements": {"data": [{"id": "ent_new", "lookup_key": "premium"}]}}');
select tests.deliver('evt_seti', 'setup_intent.succeeded', '2026-01-11', '{
  "id": "seti_new", "object": "setup_intent", "customer": "cus_new", "status": "succeeded"}');
select tests.deliver('evt_txi', 'customer.tax_id.created', '2026-01-11', '{
  "id": "txi_new", "object": "tax_id", "owner": {"type": "customer", "customer": "cus_new"}}');
select tests.deliver('evt_cn', 'credit_note.created', '2026-01-11', '{
  "id": "cn_new", "object": "credit_note", "customer": "cus_new", "currency": "usd",
  "amount": 100}');

create view tests.unowned as
select 'invoices' as name from billing.invoices where account_id is null
union all select 'payments' from billing.payments where account_id is null
union all select 'refunds' from billing.refunds where account_id is null
union all select 'disputes' from billing.disputes where account_id is null
union all select 'warnings' from billing_private.early_fraud_warnings where account_id is null
union all select 'discounts' from billing.discounts where account_id is null
union all select 'schedules' from billing.subscription_schedules where account_id is null
union all select 'entitlements' from billing.stripe_entitlements where account_id is null
union all select 'setup_intents' from billing.setup_intents where account_id is null
union all select 'tax_ids' from billing.tax_ids where account_id is null
union all select 'credit_notes' from billing.credit_notes where account_id is null
union all select 'payment_methods' from billing.payment_methods where account_id is null
union all select 'subscriptions' from billing.subscriptions where account_id is null
union all select 'history' from billing.subscription_changes where account_id is null
union all select 'customers' from billing.customers where account_id is null;

create view tests.owned as
select 'invoices' as name, account_id from billing.invoices
union all select 'payments', account_id from billing.payments
union all select 'refunds', account_id from billing.refunds
union all select 'disputes', account_id from billing.disputes
union all select 'warnings', account_id from billing_private.early_fraud_warnings
union all select 'discounts', account_id from billing.discounts
union all select 'schedules', account_id from billing.subscription_schedules
union all select 'entitlements', account_id from billing.stripe_entitlements
union all select 'setup_intents', account_id from billing.setup_intents
union all select 'tax_ids', account_id from billing.tax_ids
union all select 'credit_notes', account_id from billing.credit_notes
union all select 'payment_methods', account_id from billing.payment_methods
union all select 'subscriptions', account_id from billing.subscriptions
union all select 'history', account_id from billing.subscription_changes
union all select 'customers', account_id from billing.customers;

select set_eq(
  $$ select name from tests.unowned $$,
  array['invoices', 'payments', 'refunds', 'disputes', 'warnings', 'discounts', 'setup_intents',
    'tax_ids', 'schedules', 'entitlements', 'credit_notes',
    'payment_methods', 'subscriptions', 'history', 'customers'],
  'A5, C2: what comes in for an unknown customer is stored, and nobody''s'
);
select is_empty(
  $$ select * from billing.entitlements $$,
  'A5: it gives access to nobody'
);

savepoint s;

select tests.deliver('evt_cus', 'customer.updated', '2026-01-12', jsonb_build_object(
  'id', 'cus_new', 'object', 'customer',
  'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
select is_empty(
  $$ select * from tests.unowned $$,
  'A5, C2: once the customer''s account is known, nothing stays without owner'
);
select is_empty(
  $$ select * from tests.owned where account_id <> md5('ann')::uuid $$,
  'A5, C2: and all of it is that account''s'
);
select set_eq(
  $$ select feature_key from billing.entitlements where account_id = md5('ann')::uuid $$,
  array['clubs', 'premium'],
  'A5: access is granted in that moment'
);
select ok(
  (select is_primary from billing.customers where stripe_customer_id = 'cus_new'),
  'the first customer of an account is the one new checkouts use'
);
select is(
  (select count(*) from billing.subscription_changes where kind = 'started'), 1::bigint,
  'the history is not told twice'
);
rollback to s;

select tests.deliver('evt_sub', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('new', 'active', '2026-01-10') || jsonb_build_object(
    'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
select is(
  tests.owner_of('cus_new'), 'ann',
  'a subscription whose metadata name the account binds its customer'
);
select is_empty($$ select * from tests.unowned $$, 'and everything else of that customer');
rollback to s;

-- ---- the service: never by e-mail -------------------------------------------

update billing.customers set email = 'ann@example.com' where stripe_customer_id = 'cus_new';
select tests.deliver('evt_c', 'customer.created', '2026-01-12', jsonb_build_object(
  'id', 'cus_ann', 'object', 'customer', 'email', 'ann@example.com',
  'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
select is(
  tests.owner_of('cus_new'), null,
  'C8: a customer with the same e-mail as an account''s customer stays nobody''s'
);
select tests.deliver('evt_c2', 'customer.updated', '2026-01-13',
  '{"id": "cus_ann", "object": "customer", "email": "other@example.com"}');
select is(
  tests.owner_of('cus_ann'), 'ann',
  'C8: an account keeps its customer when the e-mail changes and the metadata are gone'
);

-- ---- the service: never away from another account ---------------------------

select tests.deliver('evt_c3', 'customer.updated', '2026-01-14', jsonb_build_object(
  'id', 'cus_ann', 'object', 'customer',
  'metadata', jsonb_build_object('account_id', md5('bob')::uuid)));
select is(
  tests.owner_of('cus_ann'), 'ann',
  'E11: a customer is never taken from its account, whatever metadata say'
);
insert into billing.customers (account_id, is_primary) values (md5('bob')::uuid, true);
select billing_private.bind_customer('cus_ann', md5('bob')::uuid);
select is(tests.owner_of('cus_ann'), 'ann', 'E11: nor by any other way');
select results_eq(
  $$ select stripe_customer_id from billing.customers where account_id = md5('bob')::uuid $$,
  $$ values (null) $$,
  'E11: and the other account gets nothing, and keeps its own claim'
);

-- ---- the service: a second customer -----------------------------------------

select tests.deliver('evt_c4', 'customer.created', '2026-01-14', jsonb_build_object(
  'id', 'cus_ann_2', 'object', 'customer',
  'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
select results_eq(
  $$
    select stripe_customer_id, is_primary
    from billing.customers
    where account_id = md5('ann')::uuid
    order by stripe_customer_id
  $$,
  $$ values ('cus_ann', true), ('cus_ann_2', false) $$,
  'a second customer of an account is bound, but new checkouts keep using the first'
);
select tests.deliver('evt_s2', 'customer.subscription.created', '2026-01-14',
  tests.subscription('ann_2', 'active', '2026-01-14'));
select is(
  (select account_id from billing.subscriptions where stripe_subscription_id = 'sub_ann_2'),
  md5('ann')::uuid,
  'what the second customer buys is the account''s too'
);
rollback to s;

create function tests.meet(p_name text, p_created timestamptz) returns text
language sql as $$
  select tests.deliver('evt_' || p_name, 'customer.created', p_created, jsonb_build_object(
    'id', 'cus_' || p_name, 'object', 'customer', 'created', extract(epoch from p_created)::bigint,
    'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
$$;
create view tests.primaries as
select stripe_customer_id
from billing.customers
where account_id = md5('ann')::uuid
  and is_primary;
savepoint two;

select tests.meet('first', '2026-01-12');
select tests.meet('second', '2026-01-13');
select results_eq(
  'table tests.primaries', $$ values ('cus_first') $$,
  'A13: of two customers the one Stripe made first is the primary'
);
rollback to two;
select tests.meet('second', '2026-01-13');
select tests.meet('first', '2026-01-12');
select results_eq(
  'table tests.primaries', $$ values ('cus_first') $$,
  'A13: also where it is heard of last'
);
select tests.deliver('evt_gone', 'customer.deleted', '2026-01-14',
  '{"id": "cus_first", "object": "customer"}');
select results_eq(
  'table tests.primaries', $$ values ('cus_second') $$,
  'E1: and the other one is when it is deleted'
);
rollback to two;
select tests.meet('b', '2026-01-13');
select tests.meet('a', '2026-01-13');
select results_eq(
  'table tests.primaries', $$ values ('cus_a') $$,
  'A13: of two that were made in one second it is the one whose id comes first'
);
rollback to s;

-- ---- the service: the claim -------------------------------------------------

insert into billing.customers (account_id, is_primary) values (md5('ann')::uuid, true);
savepoint claim;

select billing_private.bind_customer('cus_fresh', md5('ann')::uuid);
select results_eq(
  $$
    select stripe_customer_id, is_primary
    from billing.customers
    where account_id = md5('ann')::uuid
  $$,
  $$ values ('cus_fresh', true) $$,
  'the claim taken before the customer was made becomes that customer'
);
select billing_private.bind_customer('cus_fresh', md5('ann')::uuid);
select is(
  (select count(*) from billing.customers where account_id = md5('ann')::uuid), 1::bigint,
  'binding twice is binding once'
);
rollback to claim;

select billing_private.bind_customer('cus_new', md5('ann')::uuid);
select results_eq(
  $$
    select stripe_customer_id, is_primary
    from billing.customers
    where account_id = md5('ann')::uuid
  $$,
  $$ values ('cus_new', true) $$,
  'a customer whose event came before the answer takes the place of the claim'
);
select is_empty($$ select * from tests.unowned $$, 'and brings what came in for it');
rollback to claim;

select tests.deliver('evt_del', 'customer.deleted', '2026-01-12',
  '{"id": "cus_new", "object": "customer"}');
select billing_private.bind_customer('cus_new', md5('bob')::uuid);
select results_eq(
  $$
    select is_primary, deleted_at is not null
    from billing.customers
    where stripe_customer_id = 'cus_new'
  $$,
  $$ values (false, true) $$,
  'E1: a deleted customer is bound, but never the one checkouts use'
);
select is(
  tests.owner_of('cus_new'), 'bob',
  'and its past is its account''s'
);
rollback to claim;

-- ---- the owner: what binds nothing ------------------------------------------

select billing_private.bind_customer(null, md5('ann')::uuid);
select billing_private.bind_customer('cus_x', null);
select billing_private.bind_customer('cus_x', md5('nobody')::uuid);
select is_empty(
  $$
    select *
    from billing.customers
    where stripe_customer_id = 'cus_x'
      or (account_id = md5('ann')::uuid and stripe_customer_id is not null)
  $$,
  'no customer, no account, or an account that does not exist: nothing is bound'
);

-- ---- the service: objects that only mention a customer ----------------------

select tests.deliver('evt_i', 'invoice.created', '2026-01-10', '{
  "id": "in_x", "object": "invoice", "status": "draft", "customer": "cus_x", "currency": "usd"}');
select results_eq(
  $$
    select account_id, email from billing.customers where stripe_customer_id = 'cus_x'
  $$,
  $$ values (null::uuid, null::text) $$,
  'C2: a customer that is only mentioned has a row that waits'
);
select is(
  tests.deliver('evt_j', 'invoice.created', '2026-01-10', '{
    "id": "in_y", "object": "invoice", "status": "draft", "customer": null, "currency": "usd"}'),
  'applied',
  'C2: an invoice without a customer is applied'
);
select is(
  tests.deliver('evt_k', 'payment_intent.created', '2026-01-10', '{
    "id": "pi_y", "object": "payment_intent", "status": "processing", "customer": null,
    "currency": "usd", "amount": 1}'),
  'applied',
  'C2: and so is a guest''s payment'
);

-- ---- a member ---------------------------------------------------------------

select billing_private.bind_customer('cus_new', md5('ann')::uuid);
select tests.sign_in('bob');
select is_empty(
  $$
    select 1 from billing.customers union all
    select 1 from billing.subscriptions union all
    select 1 from billing.invoices union all
    select 1 from billing.payments union all
    select 1 from billing.refunds union all
    select 1 from billing.payment_methods
  $$,
  'nobody else sees a row of it, bound or not'
);

select * from finish();
rollback;
