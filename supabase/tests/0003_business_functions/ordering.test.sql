-- Which snapshot of an object wins: any order of delivery, equal seconds, final states.
begin;
\ir ../helpers.psql
select plan(60);

select tests.catalog();
select tests.set_time('2026-02-01');
select tests.account('ann');

-- An event about ann's subscription: status, second, and what it says was before.
create function tests.sub_event(
  p_event_id text,
  p_type text,
  p_at timestamptz,
  p_status text,
  p_previous jsonb default null,
  p_extra jsonb default '{}'
) returns text
language sql as $$
  select tests.deliver(
    p_event_id, 'customer.subscription.' || p_type, p_at,
    tests.subscription('ann', p_status, '2026-01-10', 'price_plus_monthly', p_extra), p_previous);
$$;

create function tests.status() returns text
language sql as $$
  select status from billing.subscriptions where stripe_subscription_id = 'sub_ann';
$$;

create function tests.is_ambiguous(p_object_id text) returns boolean
language sql as $$
  select is_ambiguous
  from billing_private.stripe_objects
  where object_id = p_object_id;
$$;

create function tests.object_event(
  p_event_id text,
  p_type text,
  p_at timestamptz,
  p_object jsonb
) returns text
language sql as $$
  select tests.deliver(
    p_event_id, p_type, p_at, '{"currency": "usd", "customer": "cus_ann"}' || p_object);
$$;

create function tests.invoice_status(p_first text, p_second text) returns text
language plpgsql as $$
declare
  v_status text;
begin
  perform tests.object_event('evt_' || p_first, 'invoice.updated', '2026-01-12',
    jsonb_build_object('id', 'in_1', 'object', 'invoice', 'status', p_first));
  perform tests.object_event('evt_' || p_second, 'invoice.updated', '2026-01-12',
    jsonb_build_object('id', 'in_1', 'object', 'invoice', 'status', p_second));
  select status into v_status from billing.invoices;
  raise exception using errcode = 'TS001', message = v_status;
exception when sqlstate 'TS001' then
  return sqlerrm;
end;
$$;

-- ---- the service: older and newer -------------------------------------------

-- Each story starts from here.
savepoint s;

-- Back and forth in lists that two API versions write differently: what one version says was there
-- before fits what came last, and not what came before it.
create function tests.rated(
  p_event_id text, p_rates jsonb, p_is_ending boolean, p_previous jsonb, p_version text
) returns void
language sql as $$
  select billing_private.ingest_stripe_event(tests.event(
    p_event_id, 'customer.subscription.updated', '2026-01-11',
    tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly', jsonb_build_object(
      'default_tax_rates', p_rates, 'cancel_at_period_end', p_is_ending)),
    p_previous, jsonb_build_object('api_version', p_version)));
$$;
select tests.rated('evt_2', '[{"id": "txr_2"}]', true, '{"cancel_at_period_end": false}',
  '2025-02-24.acacia');
select tests.rated('evt_1', '["txr_2"]', false, '{"default_tax_rates": ["txr_1"]}',
  '2026-10-28.endive');
select tests.rated('evt_3', '["txr_1"]', true, '{"default_tax_rates": ["txr_2"]}',
  '2026-10-28.endive');
select ok(
  tests.is_ambiguous('sub_ann'),
  'A1, D7: ends of chains in two API versions are a question to Stripe'
);
rollback to s;

select is(
  tests.sub_event('evt_b', 'updated', '2026-01-10 00:00:05', 'active'), 'applied',
  'A4: an update is applied before the creation it follows has come'
);
select is(
  tests.sub_event('evt_a', 'created', '2026-01-10 00:00:00', 'incomplete'), 'applied',
  'A4: and so is the creation that comes after it'
);
select is(tests.status(), 'active', 'A4: the newer state stays');
select is(
  (select count(*) from billing.subscriptions), 1::bigint,
  'A4, B7: there is one subscription'
);
select is(
  (select status_reason from billing_private.stripe_events where event_id = 'evt_a'), 'superseded',
  'A4: the inbox says that the older event was superseded'
);
rollback to s;

select tests.sub_event('evt_a', 'created', '2026-01-10 00:00:00', 'active');
select tests.sub_event('evt_c', 'deleted', '2026-01-20', 'canceled', null,
  '{"ended_at": 1768867200}');
select tests.sub_event('evt_b', 'updated', '2026-01-15', 'active');
select is(tests.status(), 'canceled', 'A6: an update delivered after the end changes nothing');
select tests.sub_event('evt_d', 'updated', '2026-01-25', 'active');
select is(
  tests.status(), 'canceled',
  'A6: canceled is final, even against an event that claims to be newer'
);
select is(
  (select ended_at from billing.subscriptions), '2026-01-20 00:00:00+00'::timestamptz,
  'A6: the end stays what it was'
);
select is_empty(
  $$ select * from billing.entitlements where account_id = md5('ann')::uuid $$,
  'A6: there is no access after the end'
);
rollback to s;

select tests.sub_event('evt_b', 'updated', '2026-01-11 23:00:00', 'incomplete_expired');
select tests.sub_event('evt_c', 'updated', '2026-01-12', 'active');
select is(tests.status(), 'incomplete_expired', 'A6: incomplete_expired is final too');
rollback to s;

-- ---- the service: two events of one second ----------------------------------

select tests.sub_event('evt_1', 'updated', '2026-01-10', 'incomplete');
select tests.sub_event('evt_2', 'updated', '2026-01-10', 'active');
select is(
  tests.status(), 'active',
  'A1: of incomplete and active in one second, active is the later'
);
rollback to s;

select tests.sub_event('evt_2', 'updated', '2026-01-10', 'active');
select tests.sub_event('evt_1', 'updated', '2026-01-10', 'incomplete');
select is(
  tests.status(), 'active',
  'A2: also when they arrive the other way round'
);
select ok(not tests.is_ambiguous('sub_ann'), 'A2: and nobody has to ask Stripe');
rollback to s;

select tests.sub_event('evt_2', 'created', '2026-01-10', 'active');
select tests.sub_event('evt_1', 'updated', '2026-01-10', 'past_due');
select is(tests.status(), 'past_due', 'the creation is the first event of its second');
rollback to s;

select tests.sub_event('evt_2', 'updated', '2026-01-10', 'past_due');
select tests.sub_event('evt_1', 'created', '2026-01-10', 'active');
select is(tests.status(), 'past_due', 'the creation is the first of its second even if it is late');
rollback to s;

select tests.sub_event('evt_1', 'updated', '2026-01-10', 'trialing');
select tests.sub_event('evt_2', 'updated', '2026-01-10', 'incomplete');
select is(
  tests.status(), 'trialing',
  'of incomplete and trialing in one second, trialing is later'
);
rollback to s;

select tests.sub_event('evt_1', 'updated', '2026-01-12', 'past_due', '{"status": "active"}');
select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active', '{"status": "past_due"}',
  '{"latest_invoice": "in_2"}');
select tests.sub_event('evt_0', 'created', '2026-01-10', 'active');
select ok(
  tests.is_ambiguous('sub_ann'),
  'A12: a circle of changes within one second is marked to be read again from Stripe'
);
rollback to s;

select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active', '{"status": "past_due"}');
select tests.sub_event('evt_1', 'updated', '2026-01-12', 'past_due', '{"latest_invoice": "in_0"}');
select is(
  tests.status(), 'active',
  'A12: an event that says what was before it comes after the snapshot that says the same'
);
select ok(not tests.is_ambiguous('sub_ann'), 'A12: such a pair is no puzzle');
rollback to s;

select tests.sub_event('evt_1', 'updated', '2026-01-12', 'past_due', '{"latest_invoice": "in_0"}');
select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active', '{"status": "past_due"}');
select is(tests.status(), 'active', 'A12: in either order');
rollback to s;

select tests.sub_event('evt_1', 'updated', '2026-01-12', 'active', '{"status": "incomplete"}');
select is(
  tests.status(), 'active',
  'A12: what was before is never applied: the snapshot alone is stored'
);
rollback to s;

select tests.sub_event('evt_1', 'updated', '2026-01-12', 'active', null,
  '{"metadata": {"a": "1"}}');
select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active', null,
  '{"metadata": {"a": "2"}}');
select ok(
  tests.is_ambiguous('sub_ann'),
  'two different snapshots of one second that nothing tells apart are marked to be read again'
);
select is(
  (select metadata ->> 'a' from billing.subscriptions), '2',
  'until then one of them stands'
);
select tests.sub_event('evt_3', 'updated', '2026-01-13', 'active', null,
  '{"metadata": {"a": "3"}}');
select ok(not tests.is_ambiguous('sub_ann'), 'a newer event settles it');
rollback to s;

select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active', null,
  '{"metadata": {"a": "2"}}');
select tests.sub_event('evt_1', 'updated', '2026-01-12', 'active', null,
  '{"metadata": {"a": "1"}}');
select is(
  (select metadata ->> 'a' from billing.subscriptions), '2',
  'it is the same one in either order'
);
rollback to s;

select tests.sub_event('evt_1', 'trial_will_end', '2026-01-12', 'trialing');
select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active', '{"status": "trialing"}');
select is(
  tests.status(), 'active',
  'A11: the end of the trial is not held up by its announcement in the same second'
);
select is(
  (select count(*) from billing_private.stripe_events where status = 'applied'), 2::bigint,
  'A11: and both events are stored'
);
rollback to s;

select tests.sub_event('evt_2', 'updated', '2026-01-12', 'canceled', null,
  '{"ended_at": 1768176000}');
select tests.sub_event('evt_1', 'updated', '2026-01-12', 'active', '{"status": "trialing"}');
select is(tests.status(), 'canceled', 'within one second the final state is the last');
rollback to s;

select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active', '{"status": "trialing"}');
select tests.sub_event('evt_1', 'deleted', '2026-01-12', 'canceled', null,
  '{"ended_at": 1768176000}');
select tests.sub_event('evt_0', 'updated', '2026-01-12', 'canceled', null,
  '{"ended_at": 1768176000, "metadata": {"a": "b"}}');
select is(
  tests.status(), 'canceled',
  'however many events that second has'
);
rollback to s;

select tests.sub_event('evt_1', 'deleted', '2026-01-12', 'canceled', null,
  '{"ended_at": 1768176000}');
select tests.sub_event('evt_2', 'updated', '2026-01-13', 'canceled', null,
  '{"ended_at": 1768176000, "metadata": {"note": "kept"}}');
select is(
  (select metadata ->> 'note' from billing.subscriptions), 'kept',
  'a final state may still be annotated: the newer of two final snapshots wins'
);
rollback to s;

-- ---- the service: items of a stale snapshot ---------------------------------

select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active', null, jsonb_build_object(
  'items', '{"has_more": false, "data": [
    {"id": "si_new", "quantity": 1, "current_period_start": 1768003200,
      "current_period_end": 1770681600, "price": {"id": "price_plus_yearly"}}]}'::jsonb));
select tests.sub_event('evt_1', 'updated', '2026-01-11', 'active', null, jsonb_build_object(
  'items', '{"has_more": false, "data": [
    {"id": "si_old", "quantity": 1, "current_period_start": 1768003200,
      "current_period_end": 1770681600, "price": {"id": "price_plus_monthly"}}]}'::jsonb));
select results_eq(
  $$ select stripe_subscription_item_id from billing.subscription_items $$,
  $$ values ('si_new') $$,
  'A9: an older list of items neither adds its own nor removes newer ones'
);
rollback to s;

-- ---- the service: invoices, payments, refunds, sessions ---------------------

select is_empty(
  $$
    select earlier, later
    from unnest(array['draft', 'open', 'uncollectible', 'void']) with ordinality as a (earlier, x)
    cross join unnest(array['draft', 'open', 'uncollectible', 'void']) with ordinality
      as b (later, y)
    where x < y
      and (
        tests.invoice_status(earlier, later) <> later
        or tests.invoice_status(later, earlier) <> later
      )
  $$,
  'A3: of two invoice events in one second the one further in the invoice''s life wins'
);

select is_empty(
  $$
    select earlier
    from unnest(array['draft', 'open', 'uncollectible']) as earlier
    where tests.invoice_status(earlier, 'paid') <> 'paid'
      or tests.invoice_status('paid', earlier) <> 'paid'
  $$,
  'A3: a paid invoice is paid, whichever event of its second comes last'
);

select tests.object_event('evt_1', 'invoice.paid', '2026-01-12',
  '{"id": "in_1", "object": "invoice", "status": "paid"}');
select tests.object_event('evt_2', 'invoice.updated', '2026-01-13',
  '{"id": "in_1", "object": "invoice", "status": "open"}');
select is((select status from billing.invoices), 'paid', 'A3: paid wins for ever');
rollback to s;

select tests.object_event('evt_1', 'invoice.marked_uncollectible', '2026-01-12',
  '{"id": "in_1", "object": "invoice", "status": "uncollectible"}');
select tests.object_event('evt_2', 'invoice.paid', '2026-01-13',
  '{"id": "in_1", "object": "invoice", "status": "paid"}');
select is(
  (select status from billing.invoices), 'paid',
  'an invoice that was written off can still be paid'
);
rollback to s;

select tests.object_event('evt_1', 'payment_intent.succeeded', '2026-01-12',
  '{"id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 500}');
select tests.object_event('evt_2', 'payment_intent.payment_failed', '2026-01-13',
  '{"id": "pi_1", "object": "payment_intent", "status": "requires_payment_method", "amount": 500}');
select is((select status from billing.payments), 'succeeded', 'a payment that succeeded stays so');
rollback to s;

select tests.object_event('evt_1', 'payment_intent.payment_failed', '2026-01-12',
  '{"id": "pi_1", "object": "payment_intent", "status": "requires_payment_method", "amount": 500}');
select tests.object_event('evt_2', 'payment_intent.created', '2026-01-12',
  '{"id": "pi_1", "object": "payment_intent", "status": "requires_payment_method", "amount": 400}');
select is(
  (select amount_minor from billing.payments), 500::bigint,
  'a payment''s creation is the first event of its second'
);
rollback to s;

select tests.object_event('evt_1', 'refund.updated', '2026-01-12',
  '{"id": "re_1", "object": "refund", "status": "succeeded", "amount": 500}');
select tests.object_event('evt_2', 'refund.failed', '2026-01-13',
  '{"id": "re_1", "object": "refund", "status": "failed", "amount": 500}');
select is((select status from billing.refunds), 'failed', 'a refund that succeeded may still fail');
select tests.object_event('evt_3', 'refund.updated', '2026-01-14',
  '{"id": "re_1", "object": "refund", "status": "succeeded", "amount": 500}');
select is((select status from billing.refunds), 'failed', 'and then it has failed for good');
rollback to s;

select tests.object_event('evt_1', 'charge.succeeded', '2026-01-12', '{
  "id": "ch_1", "object": "charge", "status": "succeeded", "amount": 500, "amount_refunded": 0,
  "payment_intent": null, "created": 1768176000}');
select tests.object_event('evt_2', 'charge.refunded', '2026-01-20', '{
  "id": "ch_1", "object": "charge", "status": "succeeded", "amount": 500, "amount_refunded": 500,
  "payment_intent": null, "created": 1768176000}');
select is(
  (select amount_refunded_minor from billing.payments), 500::bigint,
  'G10: a charge that succeeded is not final: its refund is seen'
);
rollback to s;

-- ---- the service: deleted things --------------------------------------------

select tests.object_event('evt_2', 'product.deleted', '2026-01-12',
  '{"id": "prod_plus", "object": "product", "name": "Plus", "active": false}');
select tests.object_event('evt_1', 'product.updated', '2026-01-11',
  '{"id": "prod_plus", "object": "product", "name": "Plus", "active": true}');
select tests.object_event('evt_3', 'product.updated', '2026-01-12',
  '{"id": "prod_plus", "object": "product", "name": "Plus", "active": true}');
select ok(
  not (select is_active from billing.plans where key = 'plus'),
  'E4: a product that was deleted stays deleted'
);
rollback to s;

select tests.object_event('evt_2', 'price.deleted', '2026-01-12', '{
  "id": "price_plus_yearly", "object": "price", "active": false, "lookup_key": "plus_yearly",
  "product": "prod_plus"}');
select tests.object_event('evt_1', 'price.updated', '2026-01-13', '{
  "id": "price_plus_yearly", "object": "price", "active": true, "lookup_key": "plus_yearly",
  "product": "prod_plus"}');
select ok(
  not (select is_active from billing.prices where stripe_price_id = 'price_plus_yearly'),
  'E4: a price that was deleted stays deleted'
);
rollback to s;

select tests.deliver('evt_2', 'customer.deleted', '2026-01-12',
  '{"id": "cus_ann", "object": "customer", "email": "ann@example.com"}');
select tests.deliver('evt_1', 'customer.updated', '2026-01-13',
  '{"id": "cus_ann", "object": "customer", "email": "ann@example.org"}');
select is(
  (select deleted_at from billing.customers where stripe_customer_id = 'cus_ann'),
  '2026-01-12 00:00:00+00'::timestamptz,
  'A6: a customer who was deleted stays deleted'
);
rollback to s;

select tests.deliver('evt_2', 'payment_method.detached', '2026-01-12',
  '{"id": "pm_1", "object": "payment_method", "type": "card", "customer": null}',
  '{"customer": "cus_ann"}');
select tests.deliver('evt_1', 'payment_method.attached', '2026-01-11',
  '{"id": "pm_1", "object": "payment_method", "type": "card", "customer": "cus_ann"}');
select is(
  (select detached_at from billing.payment_methods), '2026-01-12 00:00:00+00'::timestamptz,
  'E10: a payment method that was detached stays so'
);
select tests.deliver('evt_3', 'payment_method.updated', '2026-01-13',
  '{"id": "pm_1", "object": "payment_method", "type": "card", "customer": "cus_ann",
    "metadata": {"a": "1"}}');
select results_eq(
  $$ select detached_at, tests.is_ambiguous('pm_1') from billing.payment_methods $$,
  $$ values ('2026-01-12 00:00:00+00'::timestamptz, false) $$,
  'E10: whatever is told of it afterwards: nothing leads back'
);
rollback to s;

-- ---- the service: the beginning of a series of failed payments --------------

select tests.sub_event('evt_4', 'updated', '2026-01-14', 'past_due');
select is(
  (select past_due_since from billing.subscriptions), '2026-01-14 00:00:00+00'::timestamptz,
  'past due begins with the first snapshot that says so'
);
select tests.sub_event('evt_3', 'updated', '2026-01-13', 'past_due');
select is(
  (select past_due_since from billing.subscriptions), '2026-01-13 00:00:00+00'::timestamptz,
  'an older one that arrives later moves the beginning back'
);
select tests.sub_event('evt_1', 'updated', '2026-01-11', 'past_due');
select tests.sub_event('evt_2', 'updated', '2026-01-12', 'active');
select is(
  (select past_due_since from billing.subscriptions), '2026-01-13 00:00:00+00'::timestamptz,
  'a series that was settled does not count'
);
select tests.sub_event('evt_5', 'updated', '2026-01-15', 'past_due');
select is(
  (select past_due_since from billing.subscriptions), '2026-01-13 00:00:00+00'::timestamptz,
  'further failures do not restart the series'
);
select tests.sub_event('evt_6', 'updated', '2026-01-16', 'active');
select is(
  (select past_due_since from billing.subscriptions), null,
  'paying ends it'
);
rollback to s;

select tests.sub_event('evt_1', 'updated', '2026-01-12', 'active');
select tests.sub_event('evt_2', 'updated', '2026-01-12', 'past_due', '{"status": "active"}');
select tests.sub_event('evt_3', 'updated', '2026-01-15', 'past_due');
select is(
  (select past_due_since from billing.subscriptions), '2026-01-12 00:00+00'::timestamptz,
  'a series may begin in the very second in which the subscription was active'
);
rollback to s;

select tests.deliver('evt_live', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('ann', 'past_due', '2026-01-10'), null, '{"livemode": true}');
select tests.sub_event('evt_1', 'updated', '2026-01-13', 'past_due');
select is(
  (select past_due_since from billing.subscriptions), '2026-01-13 00:00+00'::timestamptz,
  'E5: what was set aside does not begin a series'
);
rollback to s;

-- ---- the owner: one after the other within one second -------------------------

create function tests.known_states() returns integer
language sql as $$
  select cardinality(states) from billing_private.stripe_objects where object_id = 'sub_ann';
$$;

select tests.sub_event('evt_1', 'updated', '2026-01-12', 'active');
select tests.sub_event('evt_2', 'updated', '2026-01-12', 'past_due', '{"status": "active"}');
select ok(
  tests.status() = 'past_due' and tests.known_states() = 3,
  'what follows from the stored state is newer, without a look at the rest of its second'
);

create temporary table written as select ctid as place from billing.subscriptions;
select tests.sub_event('evt_3', 'trial_will_end', '2026-01-12', 'past_due');
select ok(
  (select ctid from billing.subscriptions) = (select place from written)
    and (select status = 'applied' and status_reason is null
      from billing_private.stripe_events where event_id = 'evt_3'),
  'what says what is stored is applied, and writes nothing again'
);
drop table written;

select tests.sub_event('evt_4', 'updated', '2026-01-12', 'active', '{"status": "past_due"}');
select ok(
  tests.known_states() is null and tests.is_ambiguous('sub_ann'),
  'what leads back to where the second began is judged among all of its second'
);
rollback to s;

select tests.sub_event('evt_2', 'updated', '2026-01-12', 'past_due', '{"status": "active"}');
select tests.sub_event('evt_1', 'updated', '2026-01-12', 'active', '{"status": "past_due"}');
select ok(
  tests.is_ambiguous('sub_ann'),
  'and so is what leads back to where the first event of the second set out'
);
rollback to s;

-- ---- the owner: the statuses that are final ---------------------------------

select results_eq(
  $$
    select object, status
    from (values
      ('subscription', array['incomplete', 'trialing', 'active', 'past_due', 'unpaid', 'paused',
        'canceled', 'incomplete_expired', 'unheard_of']),
      ('invoice', array['draft', 'open', 'uncollectible', 'void', 'paid']),
      ('checkout.session', array['open', 'complete', 'expired']),
      ('payment_intent', array['requires_payment_method', 'requires_confirmation',
        'requires_action', 'processing', 'requires_capture', 'canceled', 'succeeded']),
      ('charge', array['pending', 'failed', 'succeeded']),
      ('refund', array['pending', 'requires_action', 'succeeded', 'failed', 'canceled'])
    ) as objects (object, statuses)
    cross join unnest(statuses) as status
    where billing_private.is_final_snapshot(
      'x.updated', jsonb_build_object('object', object, 'status', status))
    order by object, status
  $$,
  $$
    values ('checkout.session', 'complete'), ('checkout.session', 'expired'),
      ('invoice', 'paid'), ('invoice', 'void'),
      ('payment_intent', 'canceled'), ('payment_intent', 'succeeded'),
      ('refund', 'canceled'), ('refund', 'failed'),
      ('subscription', 'canceled'), ('subscription', 'incomplete_expired')
  $$,
  'exactly these statuses are final'
);

select ok(
  not billing_private.is_final_snapshot('x.updated', '{"object": "subscription"}')
    and not billing_private.is_final_snapshot('x.updated', '{"id": "x"}'),
  'an object without status is not final'
);

select ok(
  billing_private.is_final_snapshot('customer.updated', '{"id": "cus_1", "deleted": true}'),
  'an object that says it is deleted is final'
);

select * from finish();
rollback;
