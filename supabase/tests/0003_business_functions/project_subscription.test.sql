-- billing_private.project_subscription(): one row whatever the API version and shape of the event.
begin;
\ir ../helpers.psql
\ir convergence.psql
select plan(48);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

create function tests.sub(p_extra jsonb, p_status text default 'active') returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_extra::text || p_status), 'customer.subscription.updated',
    '2026-01-10', tests.subscription('ann', p_status, '2026-01-10') || p_extra);
$$;

-- The state after this one event about ann's subscription, which is undone again.
create function tests.state_after(p_object jsonb) returns jsonb
language sql as $$
  select tests.play(array[
    tests.event('evt_1', 'customer.subscription.updated', '2026-01-10', p_object)]);
$$;

create function tests.acacia(p_object jsonb) returns jsonb
language sql as $$
  select p_object || jsonb_build_object(
    'current_period_start', p_object #> '{items,data,0,current_period_start}',
    'current_period_end', p_object #> '{items,data,0,current_period_end}',
    'discount', null,
    'items', jsonb_build_object('has_more', false, 'data', jsonb_build_array(
      (p_object #> '{items,data,0}') - '{current_period_start,current_period_end}'::text[]
        || '{"plan": {"id": "price_plus_monthly", "object": "plan", "product": "prod_plus"}}')));
$$;

create function tests.two_items(p_first text, p_second text) returns jsonb
language sql as $$
  select jsonb_build_object('items', jsonb_build_object('has_more', false, 'data',
    jsonb_build_array(
      jsonb_build_object('id', 'si_1', 'quantity', 4, 'price', jsonb_build_object('id', p_first),
        'current_period_start', 1768003200, 'current_period_end', 1768608000),
      jsonb_build_object('id', 'si_2', 'quantity', 2, 'price', jsonb_build_object('id', p_second),
        'current_period_start', 1768003200, 'current_period_end', 1770681600))));
$$;

-- Each story starts from here.
-- A schedule that leads ann to basic on February 10.
create function tests.wait() returns text
language sql as $$
  select tests.deliver('evt_waits', 'subscription_schedule.updated', '2026-01-12', '{
    "id": "sub_sched_7", "object": "subscription_schedule", "status": "active",
    "customer": "cus_ann", "subscription": "sub_ann",
    "current_phase": {"start_date": 1768003200, "end_date": 1770681600}, "phases": [
      {"start_date": 1768003200, "end_date": 1770681600,
        "items": [{"price": "price_plus_monthly", "quantity": 1}]},
      {"start_date": 1770681600, "end_date": 1773100800,
        "items": [{"price": "price_basic_monthly", "quantity": 1}]}]}');
$$;

savepoint s;

-- ---- the service: the newest shape ------------------------------------------

select is(
  tests.sub('{
    "billing_cycle_anchor": 1767916800, "start_date": 1767830400, "latest_invoice": "in_7",
    "default_payment_method": "pm_7", "schedule": "sub_sched_7",
    "collection_method": "send_invoice", "metadata": {"campaign": "winter"},
    "cancellation_details": {"reason": "payment_failed", "comment": null}}', 'past_due'),
  'applied',
  'a subscription of the newest API version is applied'
);

select results_eq(
  $$
    select account_id, provider, status, currency, started_at, billing_anchor,
      stripe_customer_id, stripe_latest_invoice_id, stripe_default_payment_method_id,
      stripe_schedule_id, collection_method, metadata, cancellation_reason, past_due_since,
      updated_at
    from billing.subscriptions
    where stripe_subscription_id = 'sub_ann'
  $$,
  $$
    values (md5('ann')::uuid, 'stripe', 'past_due', 'usd', '2026-01-08 00:00+00'::timestamptz,
      '2026-01-09 00:00+00'::timestamptz, 'cus_ann', 'in_7', 'pm_7', 'sub_sched_7',
      'send_invoice', '{"campaign": "winter"}'::jsonb, 'payment_failed',
      '2026-01-10 00:00+00'::timestamptz, '2026-01-10 00:00+00'::timestamptz)
  $$,
  'who, since when, on which terms: each from its own field'
);
rollback to s;

select tests.sub('{}');
select results_eq(
  $$
    select prices.key, subscriptions.quantity, current_period_start, current_period_end
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
  $$,
  $$
    values ('plus_monthly', 1::bigint, '2026-01-10 00:00+00'::timestamptz,
      '2026-02-10 00:00+00'::timestamptz)
  $$,
  'D1: period, price and quantity are those of the item'
);
select results_eq(
  $$
    select stripe_subscription_item_id, items.stripe_price_id, items.stripe_product_id, prices.key,
      quantity, current_period_start, current_period_end
    from billing.subscription_items as items
    join billing.prices on prices.id = items.price_id
  $$,
  $$
    values ('si_ann', 'price_plus_monthly', 'prod_plus', 'plus_monthly', 1::bigint,
      '2026-01-10 00:00+00'::timestamptz, '2026-02-10 00:00+00'::timestamptz)
  $$,
  'D1: the item is stored with price, product and its own period'
);
rollback to s;

-- ---- the service: other API versions ----------------------------------------

select is(
  tests.state_after(tests.acacia(tests.subscription('ann', 'active', '2026-01-10'))),
  tests.state_after(tests.subscription('ann', 'active', '2026-01-10')),
  'D2: the period at the top of the object, as up to acacia, gives the same rows'
);

select is(
  tests.play(array[
    tests.event('evt_1', 'customer.subscription.updated', '2026-01-10',
      tests.acacia(tests.subscription('ann', 'trialing', '2026-01-10')), null,
      '{"api_version": "2025-02-24.acacia"}'),
    tests.event('evt_2', 'customer.subscription.updated', '2026-01-11',
      tests.subscription('ann', 'active', '2026-01-10'))]),
  tests.play(array[
    tests.event('evt_1', 'customer.subscription.updated', '2026-01-10',
      tests.subscription('ann', 'trialing', '2026-01-10')),
    tests.event('evt_2', 'customer.subscription.updated', '2026-01-11',
      tests.acacia(tests.subscription('ann', 'active', '2026-01-10')), null,
      '{"api_version": "2025-02-24.acacia"}')]),
  'D7: endpoints of different API versions write the same rows'
);

select is(
  tests.state_after(jsonb_set(
    tests.acacia(tests.subscription('ann', 'active', '2026-01-10')), '{items,data,0,price}',
    'null')),
  tests.state_after(tests.subscription('ann', 'active', '2026-01-10')),
  'an item of 2020, with a plan and no price, gives the same rows'
);

select is(
  tests.state_after(
    tests.subscription('ann', 'active', '2026-01-10')
      - '{cancel_at,cancel_at_period_end,canceled_at,ended_at,trial_start,trial_end,metadata,
        pause_collection,schedule}'::text[]),
  tests.state_after(tests.subscription('ann', 'active', '2026-01-10')),
  'D20: a field that is left out is as good as null'
);

select is(
  tests.sub('{"items": {"data": [{"id": "si_ann", "price": {"id": "price_plus_monthly"}}]}}'),
  'applied',
  'D8: a subscription without any period is applied'
);
select results_eq(
  $$ select current_period_start, current_period_end from billing.subscriptions $$,
  $$ values (null::timestamptz, null::timestamptz) $$,
  'D1, D8: its period is unknown, not 1970'
);
select is_empty(
  $$ select * from billing.entitlements $$,
  'D8: and gives nothing, because nobody can say until when'
);
rollback to s;

-- ---- the service: ids, objects, deleted objects, null ------------------------

select is_empty(
  $$
    select field, shape
    from unnest(array['customer', 'latest_invoice', 'default_payment_method', 'schedule'])
      as field
    cross join lateral (values
      (jsonb_build_object('id', field || '_1', 'object', 'x', 'email', 'ann@example.com')),
      (jsonb_build_object('id', field || '_1', 'deleted', true))
    ) as shapes (shape)
    where tests.state_after(
        tests.subscription('ann', 'active', '2026-01-10') || jsonb_build_object(field, shape))
      <> tests.state_after(
        tests.subscription('ann', 'active', '2026-01-10')
          || jsonb_build_object(field, field || '_1'))
  $$,
  'D11: customer, invoice, payment method and schedule may each be an id, an object or deleted'
);

select is_empty(
  $$
    select field
    from unnest(array['customer', 'latest_invoice', 'default_payment_method', 'schedule'])
      as field
    where tests.state_after(
        tests.subscription('ann', 'active', '2026-01-10') || jsonb_build_object(field, null))
      #> '{not applied}' <> 'null'
  $$,
  'D11: and each may be null'
);

select is_empty(
  $$
    select shape
    from unnest(array[
      '"price_plus_monthly"',
      '{"id": "price_plus_monthly", "product": {"id": "prod_plus", "object": "product"}}',
      '{"id": "price_plus_monthly", "product": {"id": "prod_plus", "deleted": true}}'
    ]::jsonb[]) as shape
    where tests.state_after(jsonb_set(
          tests.subscription('ann', 'active', '2026-01-10'), '{items,data,0,price}', shape))
        #> '{subscriptions,0}'
      <> tests.state_after(tests.subscription('ann', 'active', '2026-01-10'))
        #> '{subscriptions,0}'
  $$,
  'D11: the price may be an id, and its product an object or deleted'
);

select is(
  tests.state_after(
    tests.subscription('ann', 'active', '2026-01-10') || '{"discounts": null}'),
  tests.state_after(
    tests.subscription('ann', 'active', '2026-01-10') || '{"discounts": ["di_1", {"id": "di_2"}]}')
    || '{"discounts": null}',
  'D12: discounts in any shape, null too, are no error'
);

select is(
  tests.sub('{"metadata": null}'), 'applied',
  'metadata may be null'
);
select is(
  (select metadata from billing.subscriptions), '{}',
  'and is then empty'
);
rollback to s;

-- ---- the service: several items ---------------------------------------------

insert into billing.plans (id, key, name, kind, tier_rank, stripe_product_id)
values (md5('extra')::uuid, 'extra', 'Extra', 'add_on', 99, 'prod_extra');
insert into billing.plan_features (plan_id, feature_key) values (md5('extra')::uuid, 'hosting');
insert into billing.prices
  (key, plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id, stripe_product_id)
values ('extra_weekly', md5('extra')::uuid, 'usd', 100, 'week', 'price_extra', 'prod_extra');

savepoint items;
select tests.sub(tests.two_items('price_extra', 'price_plus_monthly'));
select results_eq(
  $$
    select prices.key, subscriptions.quantity, subscriptions.current_period_end
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
  $$,
  $$ values ('plus_monthly', 2::bigint, '2026-02-10 00:00+00'::timestamptz) $$,
  'D3: with an add-on first, the subscription is still named after its base plan'
);
select results_eq(
  $$
    select feature_key, valid_until
    from billing.entitlements
    order by feature_key
  $$,
  $$
    values ('clubs', '2026-02-10 03:00+00'::timestamptz),
      ('hosting', '2026-01-17 03:00+00'::timestamptz),
      ('premium', '2026-02-10 03:00+00'::timestamptz)
  $$,
  'D3: and each feature lasts as long as the item that gives it'
);
rollback to items;

select tests.sub(tests.two_items('price_basic_monthly', 'price_plus_monthly'));
select is(
  (
    select prices.key
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
  ),
  'plus_monthly',
  'D3: of two base plans the higher tier names the subscription'
);

select tests.deliver('evt_2', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('ann', 'active', '2026-01-10')
    || jsonb_build_object('items', jsonb_build_object(
    'has_more', true, 'data',
    tests.two_items('price_basic_monthly', 'price_plus_monthly') #> '{items,data}' #- '{1}')));
select is(
  (select count(*) from billing.subscription_items), 2::bigint,
  'D12: a list that is cut short removes nothing it does not show'
);

select tests.deliver('evt_3', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('ann', 'active', '2026-01-10')
    || jsonb_build_object('items', jsonb_build_object(
    'has_more', false, 'data',
    tests.two_items('price_basic_monthly', 'price_plus_monthly') #> '{items,data}' #- '{1}')));
select results_eq(
  $$ select stripe_subscription_item_id from billing.subscription_items $$,
  $$ values ('si_1') $$,
  'a complete list removes what is no longer in it'
);
select is(
  (
    select prices.key
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
  ),
  'basic_monthly',
  'and the subscription follows the item that is left'
);

select tests.deliver('evt_4', 'customer.subscription.updated', '2026-01-13',
  tests.subscription('ann', 'active', '2026-01-10') - 'items');
select is(
  (select count(*) from billing.subscription_items), 1::bigint,
  'an object without a list of items says nothing about them'
);
rollback to s;

select tests.sub('{"items": {"data": [{"id": "si_m", "price": {"id": "price_plus_monthly"},
  "current_period_start": 1768003200, "current_period_end": 1770681600}]}}');
select is(
  (select quantity from billing.subscription_items), null,
  'a metered item has no quantity'
);
rollback to s;

-- ---- the service: prices nobody knows yet -----------------------------------

select tests.sub('{"items": {"data": [{"id": "si_u", "quantity": 3, "price": {"id": "price_late",
  "product": "prod_plus"}, "current_period_start": 1768003200,
  "current_period_end": 1770681600}]}}');
select results_eq(
  $$
    select items.price_id, items.stripe_price_id, subscriptions.price_id, subscriptions.quantity
    from billing.subscription_items as items
    join billing.subscriptions on subscriptions.id = items.subscription_id
  $$,
  $$ values (null::uuid, 'price_late', null::uuid, 3::bigint) $$,
  'C1: an item whose price is unknown is stored all the same'
);
select is_empty($$ select * from billing.entitlements $$, 'C1: and gives nothing yet');

select tests.deliver('evt_p', 'price.created', '2026-01-01', '{
  "id": "price_late", "object": "price", "product": "prod_plus", "currency": "usd",
  "unit_amount": 1200, "active": true, "recurring": {"interval": "month", "interval_count": 1}}');
select results_eq(
  $$
    select prices.stripe_price_id, subscriptions.price_id = subscription_items.price_id
    from billing.subscription_items
    join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
    join billing.prices on prices.id = subscription_items.price_id
  $$,
  $$ values ('price_late', true) $$,
  'C1: the price, when it comes, is bound to item and subscription'
);
select isnt_empty(
  $$ select * from billing.entitlements where feature_key = 'premium' $$,
  'C1: and access begins in that moment'
);
rollback to s;

-- ---- the service: statuses --------------------------------------------------

select is(
  tests.sub('{}', 'hibernating'), 'applied',
  'D10: a status nobody knows is applied'
);
select is(
  (select status from billing.subscriptions), 'hibernating',
  'D10: and stored as it is'
);
select is_empty($$ select * from billing.entitlements $$, 'D10: and gives nothing');
rollback to s;

select tests.sub('{"status": null}');
select is(
  (select status from billing.subscriptions), 'unknown',
  'D10: a subscription without a status is of unknown status'
);
rollback to s;

select tests.sub('{"trial_start": 1767398400, "trial_end": 1768608000}', 'trialing');
select results_eq(
  $$ select trial_start, trial_end, current_period_end from billing.subscriptions $$,
  $$
    values ('2026-01-03 00:00+00'::timestamptz, '2026-01-17 00:00+00'::timestamptz,
      '2026-02-10 00:00+00'::timestamptz)
  $$,
  'D6: a trial is read next to the item''s period'
);
rollback to s;

select tests.sub('{"pause_collection": {"behavior": "void", "resumes_at": 1770681600}}');
select results_eq(
  $$ select status, pause_collection ->> 'behavior' from billing.subscriptions $$,
  $$ values ('active', 'void') $$,
  'G5: paused collection is stored beside the status, which it does not change'
);
select tests.deliver('evt_r', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('ann', 'active', '2026-01-10'));
select is(
  (select pause_collection from billing.subscriptions), null,
  'G5: and is gone when Stripe says null'
);
rollback to s;

select tests.sub('{"cancel_at": 1770681600, "cancel_at_period_end": false,
  "canceled_at": 1768089600}');
select results_eq(
  $$ select cancel_at, cancel_at_period_end, canceled_at, ended_at from billing.subscriptions $$,
  $$
    values ('2026-02-10 00:00+00'::timestamptz, false, '2026-01-11 00:00+00'::timestamptz,
      null::timestamptz)
  $$,
  'G7: an end at a date, as the portal sets it, is kept apart from the flag and from the end'
);
select tests.deliver('evt_u', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('ann', 'active', '2026-01-10'));
select results_eq(
  $$ select cancel_at, cancel_at_period_end, canceled_at from billing.subscriptions $$,
  $$ values (null::timestamptz, false, null::timestamptz) $$,
  'G7: and is cleared when it is undone'
);
rollback to s;

select tests.sub('{"cancel_at": 4102444800000}');
select is(
  (select cancel_at from billing.subscriptions), null,
  'a time beyond all calendars is taken for none'
);
rollback to s;

-- ---- the service: a change that waits ---------------------------------------

select tests.sub('{}');
select tests.wait();
select tests.deliver('evt_w', 'customer.subscription.updated', '2026-01-20',
  tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
    '{"metadata": {"a": "b"}, "schedule": "sub_sched_7"}'));
select isnt(
  (select pending_price_id from billing.subscriptions), null,
  'a change that waits stays while the running price goes on'
);
select tests.deliver('evt_x', 'customer.subscription.updated', '2026-02-10',
  tests.subscription('ann', 'active', '2026-02-10', 'price_basic_monthly',
    '{"schedule": "sub_sched_7"}'));
select results_eq(
  $$
    select prices.key, pending_price_id, pending_change_at
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
  $$,
  $$ values ('basic_monthly', null::uuid, null::timestamptz) $$,
  'and is over when its price is in force'
);
rollback to s;

select tests.sub('{}');
select tests.wait();
select tests.deliver('evt_y', 'customer.subscription.deleted', '2026-01-20',
  tests.subscription('ann', 'canceled', '2026-01-10', 'price_plus_monthly',
    '{"ended_at": 1768867200}'));
select results_eq(
  $$ select pending_price_id, pending_change_at from billing.subscriptions $$,
  $$ values (null::uuid, null::timestamptz) $$,
  'a subscription that has ended waits for nothing'
);
rollback to s;

-- ---- the service: the customer is gone --------------------------------------

select tests.account('bob');
select tests.subscribe('bob');
select tests.sub('{}', 'past_due');
select tests.deliver('evt_old', 'customer.subscription.deleted', '2026-01-01',
  tests.subscription('ann', 'canceled', '2025-01-01', 'price_plus_monthly',
    '{"id": "sub_before", "ended_at": 1767225600, "canceled_at": 1767225600}'));
update billing.subscriptions
set pending_price_id = md5('basic_monthly')::uuid,
    pending_change_at = '2026-02-10'
where stripe_subscription_id = 'sub_ann';
select is(
  tests.deliver('evt_d', 'customer.deleted', '2026-01-12',
    '{"id": "cus_ann", "object": "customer"}'),
  'applied',
  'E2: the deletion of a customer is applied'
);
select results_eq(
  $$
    select stripe_subscription_id, status, ended_at, canceled_at, past_due_since,
      pending_price_id
    from billing.subscriptions
    order by 1
  $$,
  $$
    values
      ('sub_ann', 'canceled', '2026-01-12 00:00+00'::timestamptz,
        '2026-01-12 00:00+00'::timestamptz, null::timestamptz, null::uuid),
      ('sub_before', 'canceled', '2026-01-01 00:00+00', '2026-01-01 00:00+00', null, null),
      ('sub_bob', 'active', null, null, null, null)
  $$,
  'E2: it ends what she still has, with what that waited for, and nobody else''s'
);
select is_empty(
  $$ select * from billing.entitlements where account_id = md5('ann')::uuid $$,
  'E2: and her access'
);

select tests.deliver('evt_l', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('ann', 'past_due', '2026-01-10'));
select results_eq(
  $$
    select status, ended_at, past_due_since
    from billing.subscriptions
    where stripe_subscription_id = 'sub_ann'
  $$,
  $$ values ('canceled', '2026-01-12 00:00+00'::timestamptz, null::timestamptz) $$,
  'E2: a late event about such a subscription does not bring it back'
);
select is_empty(
  $$ select * from billing.subscription_changes where from_status = 'canceled' $$,
  'E2: not even for a moment'
);

select tests.deliver('evt_n', 'customer.subscription.created', '2026-01-09',
  tests.subscription('ann', 'active', '2026-01-09', 'price_plus_monthly', '{"id": "sub_other"}'));
select is(
  (select status from billing.subscriptions where stripe_subscription_id = 'sub_other'), 'canceled',
  'E2: a subscription first heard of after its customer''s deletion has ended'
);

select * from finish();
rollback;
