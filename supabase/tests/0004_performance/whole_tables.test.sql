-- What happens all the time reads no large table from end to end, however many accounts there are.
begin;
\ir many_accounts.psql
select plan(14);

create table tests.frequent (who text, what text, statement text);

-- ---- each event -------------------------------------------------------------

create function tests.event_about(p_type text, p_object jsonb) returns text
language sql as $$
  select tests.deliver('evt_frequent', p_type, '2026-01-20',
    '{"created": 1768867200, "currency": "usd"}' || p_object);
$$;

insert into tests.frequent
select
  'stripe', type,
  format('select tests.event_about(%L, %L)', type, object::jsonb)
from (values
  ('customer.updated', '{"id": "cus_5", "object": "customer"}'),
  ('customer.deleted', '{"id": "cus_5", "object": "customer"}'),
  ('product.created', '{"id": "prod_new", "object": "product", "name": "New"}'),
  ('product.updated', '{"id": "prod_plus", "object": "product", "name": "Plus"}'),
  ('price.created', '{"id": "price_new", "object": "price", "product": "prod_plus",
    "unit_amount": 1, "recurring": {"interval": "month", "interval_count": 1}}'),
  ('price.updated', '{"id": "price_plus_monthly", "object": "price", "product": "prod_plus",
    "unit_amount": 1000, "recurring": {"interval": "month", "interval_count": 1},
    "lookup_key": "plus_monthly"}'),
  ('invoice.paid', '{"id": "in_101", "object": "invoice", "status": "paid",
    "customer": "cus_101", "subscription": "sub_101",
    "lines": {"data": [{"id": "il_101", "amount": 1}]}}'),
  ('payment_intent.succeeded', '{"id": "pi_5", "object": "payment_intent", "amount": 1,
    "status": "succeeded", "customer": "cus_5"}'),
  ('charge.succeeded', '{"id": "ch_5", "object": "charge", "payment_intent": "pi_5",
    "amount": 1, "status": "succeeded", "customer": "cus_5"}'),
  ('refund.updated', '{"id": "re_5", "object": "refund", "payment_intent": "pi_5",
    "amount": 1, "status": "succeeded"}'),
  ('invoice_payment.paid', '{"id": "inpay_5", "object": "invoice_payment",
    "invoice": "in_5", "payment": {"payment_intent": "pi_5"}}'),
  ('payment_method.attached', '{"id": "pm_5", "object": "payment_method", "type": "card",
    "customer": "cus_5"}'),
  ('payment_method.detached', '{"id": "pm_5", "object": "payment_method", "type": "card"}'),
  ('checkout.session.completed', '{"id": "cs_5", "object": "checkout.session",
    "status": "complete", "customer": "cus_5", "subscription": "sub_5"}')
) as objects (type, object);

insert into tests.frequent
select
  'stripe', type || ', ' || status,
  format('select tests.event_about(%L, tests.subscription(%L, %L, %L))',
    type, 5, status, '2026-01-10')
from (values
  ('customer.subscription.updated', 'active'),
  ('customer.subscription.updated', 'past_due'),
  ('customer.subscription.deleted', 'canceled')
) as subscriptions (type, status);

create function tests.result_of(p_statement text) returns text
language plpgsql as $$
declare
  v_result text;
begin
  execute p_statement into v_result;
  raise exception using errcode = 'UNDO1';
exception when sqlstate 'UNDO1' then
  return v_result;
end;
$$;

select is_empty(
  $$
    select what, tests.result_of(statement)
    from tests.frequent
    where tests.result_of(statement) <> 'applied'
  $$,
  'each of these events is applied'
);

select is_empty(
  $$ select what, tests.seq_scans(statement) from tests.frequent where who = 'stripe' $$,
  'no event makes anybody read a large table'
);

-- ---- each request of a user -------------------------------------------------

insert into billing.accounts (id) values (md5('newcomer')::uuid);
insert into tests.frequent values
  ('user', 'list_plans', 'select billing.list_plans()'),
  ('user', 'has_entitlement', $$ select billing.has_entitlement('clubs', tests.person(5)) $$),
  ('user', 'has_entitlement_at',
    $$ select billing.has_entitlement_at('premium', '2026-01-09', tests.person(5)) $$),
  ('user', 'my_entitlements', 'select billing.my_entitlements(tests.person(5))'),
  ('user', 'explain_entitlement',
    $$ select billing.explain_entitlement('premium', tests.person(5)) $$),
  ('user', 'my_subscription', 'select billing.my_subscription(tests.person(5))'),
  ('user', 'prepare_checkout',
    $$
      select billing.prepare_checkout('plus_monthly', 'https://app.example/',
        'https://app.example/', 1, md5('newcomer')::uuid)
    $$),
  ('user', 'prepare_portal',
    $$ select billing.prepare_portal('https://app.example/', tests.person(5)) $$),
  ('user', 'cancel_subscription',
    'select billing.cancel_subscription(account_id => tests.person(5))'),
  ('user', 'cancel_subscription, manual',
    'select billing.cancel_subscription(account_id => tests.person(50))'),
  ('user', 'undo_cancel, manual',
    $$
      select billing.cancel_subscription(account_id => tests.person(50)),
        billing.undo_cancel(tests.person(50))
    $$),
  ('user', 'change_plan',
    $$ select billing.change_plan('basic_monthly', false, tests.person(5)) $$),
  ('user', 'change_plan, manual',
    $$ select billing.change_plan('basic_monthly', false, tests.person(50)) $$);

select is_empty(
  $$ select what, tests.seq_scans(statement) from tests.frequent where who = 'user' $$,
  'no request of a user reads a large table'
);

-- ---- each call of the Edge Functions ----------------------------------------

insert into tests.frequent values
  ('function', 'claim_commands', 'select billing.claim_commands()'),
  ('function', 'claim_commands for whoever waits',
    $$ select billing.claim_commands(20, md5('checkout 4')::uuid) $$),
  ('function', 'complete_command',
    $$
      select billing.complete_command(id, lease, 200,
        '{"id": "cs_new", "object": "checkout.session", "status": "open", "customer": "cus_4"}')
      from billing.claim_commands()
    $$),
  ('function', 'complete_command, refused',
    $$
      select billing.complete_command(id, lease, 400, '{"error": {"message": "no"}}')
      from billing.claim_commands()
    $$),
  ('function', 'report_rejected_webhook',
    $$ select billing.report_rejected_webhook('SIGNATURE_INVALID') $$);

select is_empty(
  $$ select what, tests.seq_scans(statement) from tests.frequent where who = 'function' $$,
  'no call of the Edge Functions reads a large table'
);

-- ---- each minute ------------------------------------------------------------

-- validate_entitlements and check_money are left out: they read all there is of the next thousands
-- of accounts, which here are a tenth of all. keep_usage reads the partition of usage_records for
-- months that have none, which is empty elsewhere, and here is the only one.
insert into tests.frequent
select 'task', key, format('select billing_private.%I()', function_name)
from billing_private.tasks
where key not in ('check_money', 'keep_usage', 'validate_entitlements');

select is_empty(
  $$ select what, tests.seq_scans(statement) from tests.frequent where who = 'task' $$,
  'no task of the heartbeat reads a large table'
);

-- ---- whether this test can see it -------------------------------------------

select results_eq(
  $$ select tests.seq_scans('select count(*) from billing.payments where amount_minor = 7') $$,
  array['billing.payments'],
  'a table that is read from end to end is named'
);

select is(
  (select count(*) from billing_private.stripe_events where event_id = 'evt_frequent'), 0::bigint,
  'nothing of all this is left'
);

-- ---- a member who reads a table ---------------------------------------------

create function tests.plan_of(p_statement text) returns text
language plpgsql as $$
declare
  v_line text;
  v_plan text := '';
begin
  for v_line in execute 'explain ' || p_statement loop
    v_plan := v_plan || v_line || E'\n';
  end loop;
  return v_plan;
end;
$$;

-- The tables that belong to accounts; profiles and the like are included without being named.
create table tests.account_tables as
select pg_class.oid::regclass::text as name, relname
from pg_class
join pg_policy on polrelid = pg_class.oid
where relnamespace = 'billing'::regnamespace
  and polname = 'select_member';
grant select on tests.account_tables to authenticated;

select set_config('role', 'authenticated', true);
select set_config(
  'request.jwt.claims', jsonb_build_object('sub', md5('account 5')::uuid)::text, true);

select set_has(
  $$ select name from tests.account_tables $$,
  $$
    values ('billing.subscriptions'), ('billing.subscription_items'), ('billing.invoices'),
      ('billing.invoice_lines'), ('billing.payments'), ('billing.entitlements')
  $$,
  'the tables with most rows are looked at'
);

select is_empty(
  $$
    select name, tests.plan_of('select * from ' || name)
    from tests.account_tables
    where tests.plan_of('select * from ' || name) ~ 'Seq Scan'
  $$,
  'a member who reads a whole table is led to her own rows'
);

select is_empty(
  $$
    select name, tests.plan_of('select count(*) from ' || name)
    from tests.account_tables
    where tests.plan_of('select count(*) from ' || name) ~ 'Seq Scan'
  $$,
  'also when she counts them'
);

select is_empty(
  $$
    select name
    from tests.account_tables
    where tests.plan_of('select * from ' || name) !~ 'InitPlan'
  $$,
  'and her accounts are found once, not for each row'
);

select ok(
  tests.plan_of('select * from billing.current_entitlements') !~ 'Seq Scan',
  'so it is for what she has at this instant'
);

select ok(
  tests.plan_of(
    $$ select * from billing.subscriptions where (select billing.has_entitlement('premium')) $$
  ) ~ 'One-Time Filter',
  'has_entitlement(), written with a select in a policy, is asked once for a statement'
);

select results_eq(
  'select id from billing.subscriptions',
  array[md5('account 5')::uuid],
  'what she gets is hers'
);

select * from finish();
rollback;
