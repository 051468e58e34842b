-- A13: any order of delivery, with every event twice, ends in the rows of in-order delivery.
begin;
\ir ../helpers.psql
\ir convergence.psql
select plan(20);

select tests.catalog();
select tests.set_time('2026-02-15');
select tests.account('ann');

-- Subscription events of ann: one line each, in the order in which they happened.
create function tests.sub(
  p_id text,
  p_type text,
  p_at timestamptz,
  p_status text,
  p_extra jsonb default '{}',
  p_previous jsonb default null
) returns text
language sql as $$
  select tests.event(
    p_id, 'customer.subscription.' || p_type, p_at,
    tests.subscription('ann', p_status, '2026-01-10', 'price_plus_monthly', p_extra), p_previous);
$$;

create function tests.invoice(p_id text, p_type text, p_at timestamptz, p_extra jsonb) returns text
language sql as $$
  select tests.event(p_id, p_type, p_at, jsonb_build_object(
    'id', 'in_ann', 'object', 'invoice', 'customer', 'cus_ann', 'currency', 'usd', 'total', 1000,
    'subtotal', 1000, 'amount_due', 1000, 'created', 1768003200,
    'parent', '{"type": "subscription_details",
      "subscription_details": {"subscription": "sub_ann"}}'::jsonb,
    'lines', '{"has_more": false, "data": [
      {"id": "il_1", "amount": 1000, "period": {"start": 1768003200, "end": 1770681600}}]}'::jsonb
    ) || p_extra);
$$;

create function tests.items(p_item text, p_price text, p_start timestamptz) returns jsonb
language sql as $$
  select jsonb_build_object('items', jsonb_build_object('has_more', false, 'data',
    jsonb_build_array(jsonb_build_object(
      'id', p_item, 'quantity', 1, 'price', jsonb_build_object('id', p_price),
      'current_period_start', extract(epoch from p_start)::bigint,
      'current_period_end', extract(epoch from p_start + interval '1 month')::bigint))));
$$;

-- ---- the service: that the comparison sees a difference ---------------------

select isnt_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'customer.updated', '2026-01-10',
        '{"id": "cus_ann", "object": "customer", "email": "a@example.com"}'),
      tests.event('evt_1', 'customer.updated', '2026-01-10',
        '{"id": "cus_ann", "object": "customer", "email": "b@example.com"}')
    ])
  $$,
  'two events under one id are told apart by their order, and the comparison shows it'
);

-- ---- the service: subscriptions ---------------------------------------------

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.sub('evt_1', 'created', '2026-01-10 00:00:00', 'incomplete'),
      tests.sub('evt_2', 'updated', '2026-01-10 00:00:00', 'active', '{}',
        '{"status": "incomplete"}'),
      tests.sub('evt_3', 'updated', '2026-02-10 00:00:00', 'active',
        tests.items('si_ann', 'price_plus_monthly', '2026-02-10')),
      tests.sub('evt_4', 'deleted', '2026-02-12 00:00:00', 'canceled',
        '{"ended_at": 1770854400, "canceled_at": 1770854400}')
    ])
  $$,
  'A1, A2, A4, A6, A13: a life from the first payment to the end'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.sub('evt_1', 'created', '2026-01-10', 'active'),
      tests.sub('evt_2', 'updated', '2026-02-10', 'past_due', '{}', '{"status": "active"}'),
      tests.sub('evt_3', 'updated', '2026-02-11', 'past_due'),
      tests.sub('evt_4', 'updated', '2026-02-12', 'active', '{}', '{"status": "past_due"}'),
      tests.sub('evt_5', 'updated', '2026-02-13', 'past_due', '{}', '{"status": "active"}')
    ])
  $$,
  'A13: two series of failed payments, of which the second counts'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.sub('evt_1', 'created', '2026-01-10', 'trialing', '{"trial_end": 1768608000}'),
      tests.sub('evt_2', 'trial_will_end', '2026-01-17', 'trialing', '{"trial_end": 1768608000}'),
      tests.sub('evt_3', 'updated', '2026-01-17', 'active', '{"trial_end": 1768608000}',
        '{"status": "trialing"}'),
      tests.sub('evt_4', 'updated', '2026-01-17', 'past_due', '{"trial_end": 1768608000}',
        '{"status": "active"}')
    ])
  $$,
  'A11, A12, A13: the end of a trial, three events in one second'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.sub('evt_1', 'created', '2026-01-10', 'active'),
      tests.sub('evt_2', 'updated', '2026-01-11', 'active',
        tests.items('si_new', 'price_plus_yearly', '2026-01-11')),
      tests.sub('evt_3', 'updated', '2026-01-12', 'active',
        tests.items('si_new', 'price_basic_monthly', '2026-01-12')),
      tests.sub('evt_4', 'updated', '2026-01-12', 'active',
        tests.items('si_new', 'price_basic_monthly', '2026-01-12')
          || '{"cancel_at_period_end": true}', '{"cancel_at_period_end": false}')
    ])
  $$,
  'A9, A13: an item is replaced, its price changes, and a cancellation is scheduled'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.sub('evt_1', 'updated', '2026-01-11', 'active', '{"metadata": {"n": "1"}}'),
      tests.sub('evt_2', 'updated', '2026-01-11', 'active', '{"metadata": {"n": "2"}}'),
      tests.sub('evt_3', 'updated', '2026-01-11', 'past_due', '{"metadata": {"n": "3"}}'),
      tests.sub('evt_4', 'updated', '2026-01-11', 'unpaid', '{"metadata": {"n": "4"}}')
    ])
  $$,
  'A13: four snapshots of one second that nothing tells apart: always the same one stands'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.sub('evt_1', 'created', '2026-01-10', 'active'),
      tests.sub('evt_2', 'updated', '2026-01-11', 'active', '{"metadata": {"n": "2"}}'),
      tests.event('evt_3', 'customer.updated', '2026-01-12',
        '{"id": "cus_ann", "object": "customer", "email": "ann@example.com"}'),
      tests.event('evt_4', 'customer.deleted', '2026-01-13',
        '{"id": "cus_ann", "object": "customer", "email": "ann@example.com", "name": "Ann"}')
    ])
  $$,
  'E2, A13: a customer is deleted while subscribed, and Stripe never says that the rest ended'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.sub('evt_1', 'created', '2026-01-10', 'active'),
      tests.sub('evt_2', 'deleted', '2026-01-13', 'canceled',
        '{"ended_at": 1768262400, "canceled_at": 1768262400}'),
      tests.event('evt_3', 'customer.deleted', '2026-01-13',
        '{"id": "cus_ann", "object": "customer", "email": "ann@example.com", "name": "Ann"}'),
      tests.event('evt_4', 'customer.created', '2026-01-09',
        '{"id": "cus_ann", "object": "customer", "email": "ann@example.com", "name": "Ann"}')
    ])
  $$,
  'E2, A13: a customer is deleted, and Stripe says that the subscription ended'
);

-- ---- the service: rows before their parents ---------------------------------

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'customer.created', '2026-01-09', jsonb_build_object(
        'id', 'cus_bob', 'object', 'customer', 'email', 'bob@example.com',
        'metadata', jsonb_build_object('account_id', md5('ann')::uuid))),
      tests.event('evt_2', 'customer.subscription.created', '2026-01-10',
        tests.subscription('bob', 'active', '2026-01-10')),
      tests.event('evt_3', 'invoice.paid', '2026-01-10', '{
        "id": "in_bob", "object": "invoice", "customer": "cus_bob", "currency": "usd",
        "status": "paid", "amount_paid": 1000, "lines": {"data": [{"id": "il_1",
          "amount": 1000}]}}'),
      tests.event('evt_4', 'payment_intent.succeeded', '2026-01-10', '{
        "id": "pi_bob", "object": "payment_intent", "customer": "cus_bob", "currency": "usd",
        "status": "succeeded", "amount": 1000, "created": 1768003200}'),
      tests.event('evt_5', 'refund.created', '2026-01-11', '{
        "id": "re_bob", "object": "refund", "payment_intent": "pi_bob", "currency": "usd",
        "status": "succeeded", "amount": 300, "created": 1768089600}')
    ])
  $$,
  'A5, C2, A13: what a customer buys is hers whether it comes before or after she does'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'product.created', '2026-01-01',
        '{"id": "prod_new", "object": "product", "name": "New", "active": true}'),
      tests.event('evt_2', 'price.created', '2026-01-02', '{
        "id": "price_new", "object": "price", "product": "prod_new", "currency": "usd",
        "unit_amount": 700, "active": true, "lookup_key": "new_monthly",
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_3', 'customer.subscription.created', '2026-01-10', tests.subscription(
        'ann', 'active', '2026-01-10', 'price_new')),
      tests.event('evt_4', 'product.updated', '2026-01-12', '{
        "id": "prod_new", "object": "product", "name": "Newer", "active": true,
        "description": "with words"}'),
      tests.event('evt_5', 'product.updated', '2026-01-13', '{
        "id": "prod_new", "object": "product", "name": "Newer", "active": true,
        "description": null}')
    ])
  $$,
  'C1, C3, A13: a subscription, its price and its product, each of which may come first'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'product.created', '2026-01-01', '{"id": "prod_extra",
        "object": "product", "name": "Extra", "active": true, "metadata": {"plan_key": "extra"}}'),
      tests.event('evt_2', 'price.created', '2026-01-02', '{
        "id": "price_extra", "object": "price", "product": "prod_extra", "currency": "usd",
        "unit_amount": 100, "active": true, "lookup_key": "extra_monthly",
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_3', 'price.created', '2026-01-03', '{
        "id": "price_late", "object": "price", "product": "prod_basic", "currency": "usd",
        "unit_amount": 600, "active": true, "lookup_key": "basic_late",
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_4', 'customer.subscription.created', '2026-01-10', tests.subscription(
        'ann', 'active', '2026-01-10', 'x', '{"items": {"has_more": false, "data": [
          {"id": "si_1", "quantity": 3, "price": {"id": "price_extra"},
            "current_period_start": 1768003200, "current_period_end": 1768608000},
          {"id": "si_2", "quantity": 1, "price": {"id": "price_late"},
            "current_period_start": 1768003200, "current_period_end": 1770681600}]}}'))
    ])
  $$,
  'C1, A13: a base plan and an add-on whose prices arrive late: the base plan is the base'
);

insert into billing.plans (key, name, tier_rank) values ('gold', 'Gold', 30);
select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'product.created', '2026-01-01', '{"id": "prod_gold",
        "object": "product", "name": "Gold", "active": true, "metadata": {"plan_key": "gold"}}'),
      tests.event('evt_2', 'price.created', '2026-01-02', '{
        "id": "price_gold", "object": "price", "product": "prod_gold", "currency": "usd",
        "unit_amount": 2000, "active": true, "lookup_key": "gold_monthly",
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_3', 'customer.subscription.created', '2026-01-10', tests.subscription(
        'ann', 'active', '2026-01-10', 'x', '{"items": {"has_more": false, "data": [
          {"id": "si_1", "quantity": 3, "price": {"id": "price_basic_monthly"},
            "current_period_start": 1768003200, "current_period_end": 1768608000},
          {"id": "si_2", "quantity": 1, "price": {"id": "price_gold", "product": "prod_gold"},
            "current_period_start": 1768003200, "current_period_end": 1770681600}]}}'))
    ])
  $$,
  'C1, C3, A13: two plans, of which the higher one is heard of late: it names the subscription'
);

-- ---- the service: lookup keys -----------------------------------------------

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'price.created', '2026-01-01', '{
        "id": "price_a", "object": "price", "product": "prod_plus", "currency": "usd",
        "unit_amount": 700, "active": true, "lookup_key": "moving",
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_2', 'price.created', '2026-01-05', '{
        "id": "price_b", "object": "price", "product": "prod_plus", "currency": "usd",
        "unit_amount": 800, "active": true, "lookup_key": "moving",
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_3', 'price.updated', '2026-01-05', '{
        "id": "price_a", "object": "price", "product": "prod_plus", "currency": "usd",
        "unit_amount": 700, "active": true, "lookup_key": null,
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_4', 'price.updated', '2026-01-06', '{
        "id": "price_a", "object": "price", "product": "prod_plus", "currency": "usd",
        "unit_amount": 700, "active": false, "lookup_key": null,
        "recurring": {"interval": "month", "interval_count": 1}}')
    ])
  $$,
  'A13: a lookup key moves from one price to its successor'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'price.created', '2026-01-01', '{
        "id": "price_a", "object": "price", "product": "prod_plus", "currency": "usd",
        "unit_amount": 700, "active": true, "lookup_key": null,
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_2', 'price.updated', '2026-01-02', '{
        "id": "price_a", "object": "price", "product": "prod_plus", "currency": "usd",
        "unit_amount": 700, "active": true, "lookup_key": "named",
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_3', 'price.updated', '2026-01-03', '{
        "id": "price_a", "object": "price", "product": "prod_plus", "currency": "usd",
        "unit_amount": 700, "active": true, "lookup_key": "renamed",
        "recurring": {"interval": "month", "interval_count": 1}}')
    ])
  $$,
  'A13: a price gets its lookup key after it was made'
);

-- ---- the service: invoices and money ----------------------------------------

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.invoice('evt_1', 'invoice.created', '2026-01-10', '{"status": "draft"}'),
      tests.invoice('evt_2', 'invoice.finalized', '2026-01-10',
        '{"status": "open", "number": "A-1", "amount_remaining": 1000}'),
      tests.invoice('evt_3', 'invoice.payment_failed', '2026-01-10', '{"status": "open",
        "number": "A-1", "amount_remaining": 1000, "attempt_count": 1}'),
      tests.invoice('evt_4', 'invoice.paid', '2026-01-10', '{"status": "paid", "number": "A-1",
        "amount_paid": 1000, "amount_remaining": 0, "attempt_count": 1,
        "status_transitions": {"paid_at": 1768003200}}')
    ])
  $$,
  'A3, A13: an invoice from draft to paid within one second'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'payment_intent.payment_failed', '2026-01-10', '{
        "id": "pi_1", "object": "payment_intent", "customer": "cus_ann", "currency": "usd",
        "status": "requires_payment_method", "amount": 1000, "created": 1768003200,
        "last_payment_error": {"code": "card_declined", "decline_code": "insufficient_funds"}}'),
      tests.event('evt_2', 'charge.succeeded', '2026-01-11', '{
        "id": "ch_1", "object": "charge", "payment_intent": "pi_1", "customer": "cus_ann",
        "currency": "usd", "status": "succeeded", "amount": 1000, "created": 1768089600}'),
      tests.event('evt_3', 'payment_intent.succeeded', '2026-01-11', '{
        "id": "pi_1", "object": "payment_intent", "customer": "cus_ann", "currency": "usd",
        "status": "succeeded", "amount": 1000, "amount_received": 1000, "created": 1768003200,
        "payment_method": "pm_1"}'),
      tests.event('evt_4', 'invoice_payment.paid', '2026-01-11', '{
        "id": "inpay_1", "object": "invoice_payment", "invoice": "in_ann", "currency": "usd",
        "amount_requested": 1000, "payment": {"type": "payment_intent",
          "payment_intent": "pi_1"}}'),
      tests.event('evt_5', 'charge.refunded', '2026-01-12', '{
        "id": "ch_1", "object": "charge", "payment_intent": "pi_1", "customer": "cus_ann",
        "currency": "usd", "status": "succeeded", "amount": 1000, "amount_refunded": 300,
        "created": 1768089600}')
    ])
  $$,
  'A13: a payment, told by its intent, its charge and its invoice'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'charge.succeeded', '2026-01-11', '{
        "id": "ch_1", "object": "charge", "payment_intent": "pi_1", "customer": "cus_ann",
        "currency": "usd", "status": "succeeded", "amount": 1000, "created": 1768089600,
        "payment_method": "pm_1"}'),
      tests.event('evt_2', 'invoice_payment.paid', '2026-01-11', '{
        "id": "inpay_1", "object": "invoice_payment", "invoice": "in_ann", "currency": "usd",
        "amount_requested": 900, "payment": {"type": "payment_intent", "payment_intent": "pi_1"}}'),
      tests.event('evt_3', 'refund.created', '2026-01-12', '{
        "id": "re_1", "object": "refund", "payment_intent": "pi_1", "charge": "ch_1",
        "currency": "usd", "status": "succeeded", "amount": 300, "created": 1768176000}')
    ])
  $$,
  'A13: a payment whose intent is never told'
);

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_1', 'payment_method.attached', '2026-01-10', '{"id": "pm_1",
        "object": "payment_method", "type": "card", "customer": "cus_ann",
        "card": {"brand": "visa", "last4": "4242", "exp_month": 1, "exp_year": 2030}}'),
      tests.event('evt_2', 'customer.updated', '2026-01-10', '{"id": "cus_ann",
        "object": "customer", "invoice_settings": {"default_payment_method": "pm_1"}}'),
      tests.event('evt_3', 'payment_method.automatically_updated', '2026-01-11', '{"id": "pm_1",
        "object": "payment_method", "type": "card", "customer": "cus_ann",
        "card": {"brand": "visa", "last4": "4242", "exp_month": 1, "exp_year": 2034}}'),
      tests.event('evt_4', 'payment_method.detached', '2026-01-12', '{"id": "pm_1",
        "object": "payment_method", "type": "card", "customer": null,
        "card": {"brand": "visa", "last4": "4242", "exp_month": 1, "exp_year": 2034}}',
        '{"customer": "cus_ann"}')
    ])
  $$,
  'E10, A13: a card is attached, made the default, renewed by its bank, and taken off'
);

-- ---- the service: checkout, and a whole life --------------------------------

insert into billing.checkout_sessions (id, account_id, price_id, success_url, cancel_url)
values (md5('checkout')::uuid, md5('ann')::uuid, md5('plus_monthly')::uuid,
  'https://example.com/ok', 'https://example.com/no');

create function tests.session(p_id text, p_type text, p_at timestamptz, p_extra jsonb) returns text
language sql as $$
  select tests.event(p_id, 'checkout.session.' || p_type, p_at, jsonb_build_object(
    'id', 'cs_1', 'object', 'checkout.session', 'customer', 'cus_new', 'expires_at', 1768089600,
    'metadata', jsonb_build_object('checkout_id', md5('checkout')::uuid)) || p_extra);
$$;

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.session('evt_1', 'completed', '2026-01-10 00:00:00', '{"status": "complete",
        "payment_status": "unpaid", "subscription": "sub_new"}'),
      tests.session('evt_2', 'async_payment_succeeded', '2026-01-12 00:00:00',
        '{"status": "complete", "payment_status": "paid", "subscription": "sub_new"}'),
      tests.event('evt_3', 'customer.subscription.created', '2026-01-10',
        tests.subscription('new', 'incomplete', '2026-01-10')),
      tests.event('evt_4', 'customer.subscription.updated', '2026-01-12',
        tests.subscription('new', 'active', '2026-01-10'))
    ])
  $$,
  'G13, A13: a checkout paid by bank debit, two days later'
);

-- Longer than can be played in every order: so many in orders drawn by lot, the same each time.
create temporary table life as
select *
from (values
  (1, tests.event('evt_01', 'customer.created', '2026-01-09 12:00:00',
    '{"id": "cus_new", "object": "customer", "email": "ann@example.com"}')),
  (2, tests.event('evt_02', 'customer.subscription.created', '2026-01-10 00:00:00',
    tests.subscription('new', 'incomplete', '2026-01-10'))),
  (3, tests.event('evt_03', 'invoice.finalized', '2026-01-10 00:00:00', '{
    "id": "in_new", "object": "invoice", "status": "open", "customer": "cus_new",
    "currency": "usd", "total": 1000, "subscription": "sub_new",
    "lines": {"data": [{"id": "il_1", "amount": 1000}]}}')),
  (4, tests.event('evt_04', 'payment_intent.created', '2026-01-10 00:00:00', '{
    "id": "pi_new", "object": "payment_intent", "status": "requires_confirmation",
    "amount": 1000, "currency": "usd", "customer": "cus_new", "created": 1768003200}')),
  (5, tests.event('evt_05', 'payment_intent.succeeded', '2026-01-10 00:00:01', '{
    "id": "pi_new", "object": "payment_intent", "status": "succeeded",
    "amount": 1000, "amount_received": 1000, "currency": "usd", "customer": "cus_new",
    "created": 1768003200}')),
  (6, tests.event('evt_06', 'charge.succeeded', '2026-01-10 00:00:01', '{
    "id": "ch_new", "object": "charge", "status": "succeeded", "payment_intent": "pi_new",
    "amount": 1000, "currency": "usd", "customer": "cus_new", "created": 1768003200}')),
  (7, tests.event('evt_07', 'invoice.paid', '2026-01-10 00:00:01', '{
    "id": "in_new", "object": "invoice", "status": "paid", "customer": "cus_new",
    "currency": "usd", "total": 1000, "amount_paid": 1000, "subscription": "sub_new",
    "lines": {"data": [{"id": "il_1", "amount": 1000}]}}')),
  (8, tests.event('evt_08', 'customer.subscription.updated', '2026-01-10 00:00:01',
    tests.subscription('new', 'active', '2026-01-10'), '{"status": "incomplete"}')),
  (9, tests.session('evt_09', 'completed', '2026-01-10 00:00:01',
    '{"status": "complete", "payment_status": "paid", "subscription": "sub_new"}')),
  (10, tests.event('evt_10', 'customer.subscription.updated', '2026-02-10 00:00:00',
    tests.subscription('new', 'past_due', '2026-02-10'), '{"status": "active"}')),
  (11, tests.event('evt_11', 'customer.subscription.updated', '2026-02-12 00:00:00',
    tests.subscription('new', 'past_due', '2026-02-10', 'price_plus_monthly',
      '{"cancel_at_period_end": true}'), '{"cancel_at_period_end": false}')),
  (12, tests.event('evt_12', 'refund.created', '2026-02-12 00:00:00', '{
    "id": "re_new", "object": "refund", "status": "pending", "payment_intent": "pi_new",
    "amount": 200, "currency": "usd", "created": 1770854400}')),
  (13, tests.event('evt_13', 'refund.updated', '2026-02-12 00:00:00', '{
    "id": "re_new", "object": "refund", "status": "succeeded", "payment_intent": "pi_new",
    "amount": 200, "currency": "usd", "created": 1770854400}', '{"status": "pending"}'))
) as happened (place, event);

select is_empty(
  $$
    select seed, tables.key, tests.only_in(found -> tables.key, tables.value)
    from tests.play(array(select event from life order by place)) as expected
    cross join generate_series(1, 150) as seed
    cross join lateral tests.play(
      array(select event from life order by md5(seed || event)), seed % 2 = 0) as found
    cross join lateral jsonb_each(expected) as tables
    where tables.value <> found -> tables.key
  $$,
  'A5, A13: a subscriber''s first month, thirteen events in 150 orders drawn by lot'
);

select * from finish();
rollback;
