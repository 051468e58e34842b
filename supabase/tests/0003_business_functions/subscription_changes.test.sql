-- The history of subscriptions: what happened, from what to what, for how much, who and why.
begin;
\ir ../helpers.psql
select plan(35);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);

create function tests.sub(
  p_at timestamptz,
  p_status text,
  p_extra jsonb default '{}',
  p_price text default 'price_plus_monthly',
  p_start timestamptz default '2026-01-10'
) returns text
language sql as $$
  select tests.deliver(
    'evt_' || extract(epoch from p_at)::bigint, 'customer.subscription.updated', p_at,
    tests.subscription('ann', p_status, p_start, p_price, p_extra));
$$;

-- Ann's subscription with this quantity, or without any.
create function tests.items(p_quantity integer, p_price text default 'price_plus_monthly')
returns jsonb
language sql as $$
  select jsonb_build_object('items', jsonb_build_object('has_more', false, 'data',
    jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
      'id', 'si_ann', 'quantity', p_quantity, 'price', jsonb_build_object('id', p_price),
      'current_period_start', 1768003200, 'current_period_end', 1770681600)))));
$$;

-- What has been written since the last look.
create table tests.seen (id uuid primary key);
create function tests.new_kinds() returns text[]
language sql as $$
  with fresh as (
    insert into tests.seen
    select id from billing.subscription_changes on conflict do nothing
    returning id
  )
  select coalesce(array_agg(kind order by kind), '{}')
  from billing.subscription_changes
  join fresh using (id);
$$;

savepoint s;

-- ---- the service: the start -------------------------------------------------

select tests.sub('2026-01-10 00:00:05', 'incomplete', tests.items(3));
select results_eq(
  $$
    select account_id, kind, from_status, to_status, prices.key, to_quantity, amount_minor,
      changes.currency, effective_at, actor_id
    from billing.subscription_changes as changes
    join billing.prices on prices.id = changes.to_price_id
  $$,
  $$
    values (md5('ann')::uuid, 'started', null, 'incomplete', 'plus_monthly', 3::bigint,
      3000::bigint, 'usd', '2026-01-10 00:00+00'::timestamptz, null::uuid)
  $$,
  'a subscription starts with its status, price, seats and amount, at the time Stripe says'
);
select is(
  (select cause from billing.subscription_changes),
  '{"kind": "stripe_event", "reference": "evt_1768003205",
    "reason": "customer.subscription.updated"}',
  'and names the event that told of it'
);
rollback to s;

select tests.sub('2026-01-10', 'active', tests.items(2, 'price_late'));
select results_eq(
  $$ select kind, to_price_id, amount_minor from billing.subscription_changes $$,
  $$ values ('started', null::uuid, null::bigint) $$,
  'C1: with a price nobody knows, the start has no amount'
);
select tests.sub('2026-01-11', 'past_due', tests.items(2, 'price_late'));
select tests.deliver('evt_p', 'price.created', '2026-01-01', '{
  "id": "price_late", "object": "price", "product": "prod_plus", "currency": "usd",
  "unit_amount": 1200, "active": true, "recurring": {"interval": "month", "interval_count": 1}}');
select results_eq(
  $$
    select kind, prices.stripe_price_id, to_quantity, amount_minor
    from billing.subscription_changes as changes
    left join billing.prices on prices.id = changes.to_price_id
    order by kind
  $$,
  $$
    values ('started', 'price_late', 2::bigint, 2400::bigint),
      ('status', null, 2::bigint, null::bigint)
  $$,
  'C1: learning the price completes the start, and is no change of price'
);
rollback to s;

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('basic_monthly')::uuid, 1, null);
select tests.sub('2026-01-10', 'active');
select results_eq(
  $$
    select account_id, prices.key, amount_minor
    from billing.subscription_changes as changes
    join billing.prices on prices.id = changes.to_price_id
    order by amount_minor
  $$,
  $$
    values (md5('bob')::uuid, 'basic_monthly', 500::bigint),
      (md5('ann')::uuid, 'plus_monthly', 1000::bigint)
  $$,
  'each start tells of its own subscription'
);
rollback to s;

select tests.sub('2026-01-10', 'active', tests.items(null));
select results_eq(
  $$ select to_quantity, amount_minor from billing.subscription_changes $$,
  $$ values (null::bigint, null::bigint) $$,
  'a metered subscription has no flat amount'
);
rollback to s;

-- ---- the service: one kind each ---------------------------------------------

select tests.sub('2026-01-10', 'active');
select is(tests.new_kinds(), '{started}', 'a start is one entry');

savepoint started;

select tests.sub('2026-01-11', 'past_due');
select is(tests.new_kinds(), '{status}', 'another status is one entry');
select results_eq(
  $$
    select from_status, to_status, effective_at, amount_minor
    from billing.subscription_changes
    where kind = 'status'
  $$,
  $$ values ('active', 'past_due', '2026-01-11 00:00+00'::timestamptz, 1000::bigint) $$,
  'with both statuses, the amount, and the time Stripe says'
);
rollback to started;

select tests.sub('2026-01-11', 'active', '{}', 'price_plus_yearly');
select is(tests.new_kinds(), '{price}', 'another price is one entry');
select results_eq(
  $$
    select before.key, after.key, changes.amount_minor
    from billing.subscription_changes as changes
    join billing.prices as before on before.id = from_price_id
    join billing.prices as after on after.id = to_price_id
    where changes.kind = 'price'
  $$,
  $$ values ('plus_monthly', 'plus_yearly', 10000::bigint) $$,
  'with both prices, and what it costs from now on'
);
rollback to started;

select tests.sub('2026-01-11', 'active', tests.items(5));
select is(tests.new_kinds(), '{quantity}', 'another number of seats is one entry');
select results_eq(
  $$
    select from_quantity, to_quantity, amount_minor
    from billing.subscription_changes
    where kind = 'quantity'
  $$,
  $$ values (1::bigint, 5::bigint, 5000::bigint) $$,
  'with both numbers, and what it costs from now on'
);
rollback to started;

select tests.sub('2026-02-10', 'active', '{}', 'price_plus_monthly', '2026-02-10');
select is(tests.new_kinds(), '{renewed}', 'a new period is one entry');
rollback to started;

select tests.sub('2026-01-11', 'active', '{"cancel_at_period_end": true}');
select is(tests.new_kinds(), '{cancel_scheduled}', 'a scheduled end is one entry');
select tests.sub('2026-01-12', 'active',
  '{"cancel_at_period_end": true, "cancellation_details": {"feedback": "too_expensive"}}');
select is(tests.new_kinds(), '{}', 'G8: the customer''s feedback on it is not another');
select is((select cancellation_feedback from billing.subscriptions), '{"feedback": "too_expensive"}',
  'G8: but it is kept');
select tests.sub('2026-01-13', 'active', '{"cancel_at_period_end": false}');
select is(tests.new_kinds(), '{cancel_undone}', 'taking it back is one entry');
rollback to started;

select tests.sub('2026-01-11', 'active', '{"cancel_at": 1770681600}');
select is(tests.new_kinds(), '{cancel_scheduled}', 'G7: an end at a date is a scheduled end');
select tests.sub('2026-01-12', 'active', '{"cancel_at": 1770681600, "cancel_at_period_end": true}');
select is(tests.new_kinds(), '{}', 'G7: saying it in the other form too is not another');
select tests.sub('2026-01-13', 'active');
select is(tests.new_kinds(), '{cancel_undone}', 'G7: clearing it takes it back');
rollback to started;

select tests.sub('2026-01-11', 'active', '{"cancel_at_period_end": true}');
select tests.sub('2026-02-10', 'canceled', '{"ended_at": 1770681600}');
select is(
  tests.new_kinds(), '{cancel_scheduled,status}',
  'the end that was scheduled is a change of status, and takes nothing back'
);
rollback to started;

update billing.subscriptions
set pending_price_id = md5('basic_monthly')::uuid,
    pending_change_at = '2026-02-10';
select is(tests.new_kinds(), '{change_scheduled}', 'a change that will come is one entry');
savepoint pending;
update billing.subscriptions
set pending_price_id = null,
    pending_change_at = null;
select is(tests.new_kinds(), '{change_undone}', 'taking it back is one entry');
rollback to pending;
select tests.sub('2026-02-10', 'active', '{}', 'price_basic_monthly', '2026-02-10');
select is(
  tests.new_kinds(), '{price,renewed}',
  'when it comes, that is a change of price and a new period, and takes nothing back'
);
rollback to started;

-- ---- the service: several at once, or nothing -------------------------------

select tests.sub('2026-02-10', 'past_due', tests.items(2, 'price_plus_yearly')
  || '{"cancel_at_period_end": true}');
select is(
  tests.new_kinds(), '{cancel_scheduled,price,quantity,status}',
  'one event that changes four things makes four entries'
);
rollback to started;

select tests.sub('2026-01-11', 'active', '{"metadata": {"a": "b"}}');
select is(tests.new_kinds(), '{}', 'an event that changes nothing of it makes none');
select tests.sub('2026-01-09', 'past_due');
select is(tests.new_kinds(), '{}', 'A6: nor does one that is out of date');
rollback to s;

-- ---- a member: who and why --------------------------------------------------

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('plus_monthly')::uuid, 4, null);
select results_eq(
  $$ select kind, to_quantity, amount_minor, currency from billing.subscription_changes $$,
  $$ values ('started', 4::bigint, 4000::bigint, 'usd') $$,
  'a manual subscription starts with its amount'
);
select tests.set_time('2026-01-15');
select tests.sign_in('bob');
select billing.cancel_subscription(true, 'moving away');
select results_eq(
  $$
    select kind, actor_id, cause ->> 'kind', cause ->> 'reason', effective_at, created_at
    from billing.subscription_changes
    where kind <> 'started'
  $$,
  $$
    values ('cancel_scheduled', md5('bob')::uuid, 'user', 'moving away',
      '2026-01-15 00:00+00'::timestamptz, '2026-01-15 00:00+00'::timestamptz)
  $$,
  'what a member asks for carries who asked, and why'
);
select throws_ok(
  $$ update billing.subscription_changes set kind = 'price' $$,
  '42501', 'permission denied for table subscription_changes',
  'a member cannot rewrite history'
);

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('ann');
select is_empty(
  $$ select * from billing.subscription_changes $$,
  'a stranger sees no history of others'
);
select tests.sign_out();
select throws_ok(
  $$ select * from billing.subscription_changes $$,
  '42501', 'permission denied for table subscription_changes',
  'a visitor cannot ask'
);

-- ---- the owner --------------------------------------------------------------

select tests.be_owner();
select is_empty(
  $$
    select from_status, to_status
    from billing.subscription_transitions
    where from_status in ('canceled', 'incomplete_expired')
  $$,
  'nothing leads out of a final status'
);
select is_empty(
  $$
    select statuses.status
    from unnest(array['incomplete', 'trialing', 'active', 'past_due', 'unpaid', 'paused'])
      as statuses (status)
    where not exists (
      select
      from billing.subscription_transitions
      where from_status = statuses.status and to_status = 'canceled'
    )
  $$,
  'every other status can be canceled'
);

select * from finish();
rollback;
