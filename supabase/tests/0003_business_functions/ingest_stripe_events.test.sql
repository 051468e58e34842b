-- billing.ingest_stripe_events(): many events in one call, each for itself.
begin;
\ir ../helpers.psql
select plan(22);

select tests.catalog();
select tests.set_time('2026-01-20');
select tests.account('ann');
select tests.account('bob');
select tests.account('cat');

create function tests.subscription_event(
  p_id text, p_name text, p_type text, p_created timestamptz, p_status text
) returns text
language sql as $$
  select tests.event(
    p_id, 'customer.subscription.' || p_type, p_created,
    tests.subscription(p_name, p_status, '2026-01-10'));
$$;

create function tests.state(p_name text) returns text
language sql security definer as $$
  select status from billing.subscriptions where stripe_subscription_id = 'sub_' || p_name;
$$;

create function tests.event_status(p_event_id text) returns text
language sql security definer as $$
  select format('%s %s', status, coalesce(status_reason, '-'))
  from billing_private.stripe_events
  where event_id = p_event_id;
$$;

grant execute on all functions in schema tests to anon, authenticated, service_role;

-- ---- the service: one row for each, in the order given ----------------------

select tests.be_service();

select results_eq(
  $$
    select event_id, status, duplicate
    from billing.ingest_stripe_events(array[
      tests.subscription_event('evt_a3', 'ann', 'updated', '2026-01-12', 'past_due'),
      tests.subscription_event('evt_b1', 'bob', 'created', '2026-01-10', 'active'),
      tests.subscription_event('evt_a1', 'ann', 'created', '2026-01-10', 'trialing'),
      tests.event('evt_odd', 'unheard.of', '2026-01-10', '{"id": "odd_1"}'),
      tests.subscription_event('evt_a2', 'ann', 'updated', '2026-01-11', 'active')
    ])
  $$,
  $$
    values
      ('evt_a3', 'applied', false), ('evt_b1', 'applied', false), ('evt_a1', 'applied', false),
      ('evt_odd', 'ignored', false), ('evt_a2', 'applied', false)
  $$,
  'every event has its row, in the order they were given'
);

select is(tests.state('ann'), 'past_due', 'A13: the newest state is stored, wherever it stood');
select is(tests.state('bob'), 'active', 'the events of another customer are applied too');

select tests.be_owner();
select results_eq(
  $$
    select from_status, to_status
    from billing.subscription_changes
    where account_id = md5('ann')::uuid
    order by effective_at
  $$,
  $$ values (null, 'trialing'), ('trialing', 'active'), ('active', 'past_due') $$,
  'the history tells what happened in the order in which it happened'
);
select results_eq(
  $$
    select cause ->> 'reference'
    from billing.subscription_changes
    where account_id = md5('ann')::uuid
    order by effective_at
  $$,
  $$ values ('evt_a1'), ('evt_a2'), ('evt_a3') $$,
  'and names the event behind each step'
);
select is(
  (
    select payload
    from billing_private.stripe_events
    where event_id = 'evt_odd'
  ),
  tests.event('evt_odd', 'unheard.of', '2026-01-10', '{"id": "odd_1"}'),
  'the text of each is kept character by character'
);

-- ---- the service: never twice -----------------------------------------------

select tests.be_service();

select results_eq(
  $$
    select event_id, status, duplicate
    from billing.ingest_stripe_events(array[
      tests.subscription_event('evt_b1', 'bob', 'created', '2026-01-10', 'canceled'),
      tests.subscription_event('evt_b2', 'bob', 'updated', '2026-01-11', 'past_due'),
      tests.subscription_event('evt_b2', 'bob', 'updated', '2026-01-11', 'past_due')
    ])
  $$,
  $$
    values
      ('evt_b1', 'applied', true), ('evt_b2', 'applied', false), ('evt_b2', 'applied', true)
  $$,
  'B1: an event that was delivered before, or earlier in the same call, is a duplicate'
);
select is(tests.state('bob'), 'past_due', 'B1: a duplicate changes nothing, whatever it says');
select tests.be_owner();
select results_eq(
  $$
    select status, attempts
    from billing_private.stripe_events
    where event_id = 'evt_b2'
  $$,
  $$ values ('applied', 1) $$,
  'B1: the event that stood there twice was applied once'
);

create temporary table before as
select to_jsonb(subscription_changes) as change from billing.subscription_changes;
select tests.be_service();
select results_eq(
  $$
    select distinct duplicate
    from billing.ingest_stripe_events(array[
      tests.subscription_event('evt_a2', 'ann', 'updated', '2026-01-11', 'active'),
      tests.subscription_event('evt_a1', 'ann', 'created', '2026-01-10', 'trialing'),
      tests.subscription_event('evt_a3', 'ann', 'updated', '2026-01-12', 'past_due')
    ])
  $$,
  $$ values (true) $$,
  'B15: events that come again a month later are duplicates'
);
select tests.be_owner();
select set_eq(
  $$ select to_jsonb(subscription_changes) from billing.subscription_changes $$,
  $$ select change from before $$,
  'B15: nothing is counted a second time'
);

-- ---- the service: poison ----------------------------------------------------

update billing_private.event_handlers
set projector = 'project_nothing'
where event_type = 'invoice.created';
select tests.be_service();

select results_eq(
  $$
    select event_id, status
    from billing.ingest_stripe_events(array[
      'not JSON',
      tests.event('evt_poison', 'invoice.created', '2026-01-10',
        '{"id": "in_1", "object": "invoice", "customer": "cus_cat"}'),
      null,
      tests.subscription_event('evt_c1', 'cat', 'created', '2026-01-10', 'active'),
      '{"id": "cus_1", "object": "customer"}'
    ])
  $$,
  $$
    values
      (null, 'invalid'), ('evt_poison', 'failed'), (null, 'invalid'), ('evt_c1', 'applied'),
      (null, 'invalid')
  $$,
  'B14: what is no event, and an event that cannot be applied, say so and stop no other'
);
select is(tests.state('cat'), 'active', 'B14: what comes after them is applied');

select tests.be_owner();
update billing_private.event_handlers
set projector = 'project_invoice'
where event_type = 'invoice.created';
select tests.set_time('2026-01-21');
select billing_private.task_retry_events();
select is(tests.event_status('evt_poison'), 'applied -', 'the failed event is tried again');

-- ---- the service: the same as one by one ------------------------------------

select tests.be_service();
select results_eq(
  $$
    select event_id, status
    from billing.ingest_stripe_events(array[
      tests.event('evt_item', 'customer.subscription.updated', '2026-01-13',
        tests.subscription('cat', 'active', '2026-01-10', 'price_new')),
      tests.event('evt_price', 'price.created', '2026-01-13', '{
        "id": "price_new", "object": "price", "product": "prod_plus", "currency": "usd",
        "unit_amount": 700, "active": true, "type": "recurring",
        "recurring": {"interval": "month", "interval_count": 1}}'),
      tests.event('evt_live', 'customer.updated', '2026-01-13',
        '{"id": "cus_cat", "object": "customer", "email": "live"}', null, '{"livemode": true}')
    ])
  $$,
  $$ values ('evt_item', 'applied'), ('evt_price', 'applied'), ('evt_live', 'ignored') $$,
  'catalog and customers may come in one call'
);
select tests.be_owner();
select is(
  (
    select prices.stripe_price_id
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
    where stripe_subscription_id = 'sub_cat'
  ),
  'price_new',
  'a price that comes after what refers to it is bound to it'
);

-- ---- limits -----------------------------------------------------------------

select tests.be_service();
select is_empty(
  $$ select * from billing.ingest_stripe_events('{}') $$,
  'no events, no rows'
);
select is_empty(
  $$ select * from billing.ingest_stripe_events(null) $$,
  'nothing at all, no rows'
);
select is(
  (select count(*) from billing.ingest_stripe_events(array_fill(''::text, array[1000]))),
  1000::bigint,
  'a thousand events are taken'
);
select throws_ok(
  $$ select * from billing.ingest_stripe_events(array_fill(''::text, array[1001])) $$,
  'PT400', 'the request is not valid',
  'more than a thousand are refused'
);

-- ---- a member, a visitor ----------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing.ingest_stripe_events('{}') $$,
  '42501', 'permission denied for function ingest_stripe_events',
  'a member cannot deliver events'
);
select tests.sign_out();
select throws_ok(
  $$ select * from billing.ingest_stripe_events('{}') $$,
  '42501', 'permission denied for function ingest_stripe_events',
  'a visitor cannot deliver events'
);

select * from finish();
rollback;
