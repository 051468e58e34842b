-- billing_private.project_subscription_schedule(): what a subscription waits for follows from its
-- schedule, whoever made that and whatever is told first.
begin;
\ir ../helpers.psql
select plan(39);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

-- As of 2026-10-28.endive: from plus to basic on February 10.
create function tests.schedule(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_sched_' || md5(p_event || p_at::text || p_extra), 'subscription_schedule.' || p_event,
    p_at,
    '{"id": "sub_sched_1", "object": "subscription_schedule", "status": "active",
      "billing_mode": {"type": "flexible"}, "canceled_at": null, "completed_at": null,
      "released_at": null, "created": 1768003200, "customer": "cus_ann", "livemode": false,
      "current_phase": {"start_date": 1768003200, "end_date": 1770681600},
      "end_behavior": "release", "metadata": {}, "released_subscription": null,
      "subscription": "sub_ann",
      "phases": [
        {"start_date": 1768003200, "end_date": 1770681600, "proration_behavior": "none",
          "items": [{"price": "price_plus_monthly", "quantity": 1}]},
        {"start_date": 1770681600, "end_date": 1773100800, "proration_behavior": "none",
          "items": [{"price": "price_basic_monthly", "quantity": 1}]}]}' || p_extra);
$$;

create function tests.sub(p_at timestamptz, p_extra jsonb default '{}', p_price text default null)
returns text
language sql as $$
  select tests.deliver('evt_sub_' || md5(p_at::text || p_extra), 'customer.subscription.updated',
    p_at, tests.subscription('ann', 'active', '2026-01-10',
      coalesce(p_price, 'price_plus_monthly'), p_extra));
$$;

create view tests.waiting as
select prices.key, pending_quantity, pending_change_at, stripe_schedule_id
from billing.subscriptions
left join billing.prices on prices.id = subscriptions.pending_price_id;

-- What waits, in one word; p_what is for the failing line.
create function tests.waits_for() returns text
language sql as $$
  select coalesce(key, 'nothing') || ' by ' || coalesce(stripe_schedule_id, 'nothing')
  from tests.waiting;
$$;

savepoint s;

-- ---- the service: the mirror ------------------------------------------------

select is(tests.schedule('created', '2026-01-12'), 'applied', 'a schedule is applied');
select results_eq(
  $$
    select account_id, status, end_behavior, next_change_at, released_at, stripe_subscription_id,
      stripe_customer_id, updated_at
    from billing.subscription_schedules
  $$,
  $$
    values (md5('ann')::uuid, 'active', 'release', '2026-02-10 00:00+00'::timestamptz,
      null::timestamptz, 'sub_ann', 'cus_ann', '2026-01-12 00:00+00'::timestamptz)
  $$,
  'with whose subscription it changes, and when'
);
select is(
  (select phases from billing.subscription_schedules),
  '[{"starts_at": "2026-01-10T00:00:00+00:00", "ends_at": "2026-02-10T00:00:00+00:00",
      "items": [{"stripe_price_id": "price_plus_monthly", "quantity": 1}]},
    {"starts_at": "2026-02-10T00:00:00+00:00", "ends_at": "2026-03-10T00:00:00+00:00",
      "items": [{"stripe_price_id": "price_basic_monthly", "quantity": 1}]}]',
  'and its phases'
);
select tests.schedule('released', '2026-01-13', '{"status": "released", "current_phase": null,
  "released_at": 1768262400, "subscription": null, "released_subscription": "sub_ann"}');
select results_eq(
  $$
    select status, released_at, next_change_at, next_items, stripe_subscription_id
    from billing.subscription_schedules
  $$,
  $$
    values ('released', '2026-01-13 00:00+00'::timestamptz, null::timestamptz, null::jsonb,
      'sub_ann')
  $$,
  'one that was let go leads nowhere'
);
select tests.schedule('updated', '2026-01-14');
select is(
  (select status from billing.subscription_schedules), 'released',
  'A6: and is not taken up again'
);
rollback to s;

-- ---- the service: what the subscription waits for ---------------------------

select tests.sub('2026-01-11');
select tests.schedule('created', '2026-01-12');
select results_eq(
  $$ select * from tests.waiting $$,
  $$
    values ('basic_monthly', null::bigint, '2026-02-10 00:00+00'::timestamptz, 'sub_sched_1')
  $$,
  'a schedule made in the dashboard or the portal waits like one of ours'
);
select is(
  (select array_agg(kind order by kind) from billing.subscription_changes),
  '{change_scheduled,started}',
  'and is in the history'
);
select is(
  (select effective_at from billing.subscription_changes where kind = 'change_scheduled'),
  '2026-01-15 00:00+00'::timestamptz,
  'as of when it was learned'
);
select tests.sub('2026-01-12', '{"schedule": "sub_sched_1"}');
select is(tests.waits_for(), 'basic_monthly by sub_sched_1', 'the subscription names it later');
savepoint waiting;

select tests.schedule('released', '2026-01-13', '{"status": "released", "current_phase": null,
  "subscription": null, "released_subscription": "sub_ann"}');
select is(tests.waits_for(), 'nothing by nothing', 'let go, nothing waits');
select tests.sub('2026-01-12 12:00', '{"schedule": "sub_sched_1", "metadata": {"a": "b"}}');
select is(
  tests.waits_for(), 'nothing by nothing',
  'A6: also where the subscription, told late, still names it'
);
rollback to waiting;

select tests.schedule('canceled', '2026-01-13', '{"status": "canceled", "current_phase": null}');
select is(tests.waits_for(), 'nothing by nothing', 'a schedule that was canceled leads nowhere');
rollback to waiting;
select tests.schedule('aborted', '2026-01-13', '{"status": "canceled", "current_phase": null}');
select is(tests.waits_for(), 'nothing by nothing', 'nor does one that Stripe gave up');
rollback to waiting;
select tests.schedule('completed', '2026-02-10', '{"status": "completed", "current_phase": null}');
select is(tests.waits_for(), 'nothing by nothing', 'nor one that is over');
rollback to waiting;

select tests.sub('2026-01-13', '{"schedule": null}');
select is(
  tests.waits_for(), 'nothing by nothing',
  'a subscription that names no schedule any more waits for none, also where nobody said more'
);
select tests.schedule('updated', '2026-01-14');
select is(tests.waits_for(), 'basic_monthly by sub_sched_1', 'until that is told anew');
rollback to waiting;

select tests.sub('2026-02-10', '{"schedule": "sub_sched_1"}', 'price_basic_monthly');
select results_eq(
  $$ select * from tests.waiting $$,
  $$ values (null, null::bigint, null::timestamptz, 'sub_sched_1') $$,
  'what has come into force does not wait any more'
);
select tests.schedule('updated', '2026-02-10', '{
  "current_phase": {"start_date": 1770681600, "end_date": 1773100800}}');
select is(tests.waits_for(), 'nothing by sub_sched_1', 'the last phase leads to nothing');
rollback to waiting;

select tests.schedule('updated', '2026-02-10', '{
  "current_phase": {"start_date": 1770681600, "end_date": 1773100800}}');
select is(
  tests.waits_for(), 'nothing by sub_sched_1', 'also where the schedule is the first to say so');
rollback to waiting;

select tests.deliver('evt_end', 'customer.subscription.deleted', '2026-01-20',
  tests.subscription('ann', 'canceled', '2026-01-10', p_extra => '{"ended_at": 1768867200}'));
select is(
  tests.waits_for(), 'nothing by nothing', 'a subscription that has ended waits for nothing');
select tests.schedule('updated', '2026-01-21');
select is(tests.waits_for(), 'nothing by nothing', 'whatever its schedule says');
rollback to waiting;

select tests.schedule('updated', '2026-01-13', '{"phases": [
  {"start_date": 1768003200, "end_date": 1770681600, "items": [
    {"price": "price_plus_monthly", "quantity": 1}]},
  {"start_date": 1770681600, "end_date": 1773100800, "items": [
    {"price": {"id": "price_plus_yearly", "object": "price"}, "plan": "price_plus_yearly",
      "quantity": 5}]}]}');
select results_eq(
  $$ select * from tests.waiting $$,
  $$
    values ('plus_yearly', 5::bigint, '2026-02-10 00:00+00'::timestamptz, 'sub_sched_1')
  $$,
  'D11: another phase takes its place, with other seats; its price may be an object'
);
select tests.schedule('updated', '2026-01-12 12:00', '{"metadata": {"told": "late"}}');
select is(
  tests.waits_for(), 'plus_yearly by sub_sched_1', 'A6: what was told late changes nothing');
rollback to waiting;

select tests.schedule('updated', '2026-01-13', '{"phases": [
  {"start_date": 1768003200, "end_date": 1770681600, "plans": [{"plan": "price_plus_monthly"}]},
  {"start_date": 1770681600, "end_date": 1773100800, "plans": [
    {"plan": "price_plus_yearly", "price": null, "quantity": 1}]}]}');
select is(
  tests.waits_for(), 'plus_yearly by sub_sched_1', 'D2: in 2020 the items were called plans');
rollback to waiting;

select tests.schedule('updated', '2026-01-13', '{"phases": [
  {"start_date": 1768003200, "end_date": 1770681600, "items": []},
  {"start_date": 1770681600, "end_date": 1773100800, "items": [
    {"price": "price_addon", "quantity": 9}, {"price": "price_basic_monthly", "quantity": 2},
    {"price": "price_plus_yearly", "quantity": 1}]}]}');
select results_eq(
  $$ select key, pending_quantity from tests.waiting $$,
  $$ values ('plus_yearly', null::bigint) $$,
  'of several items it is the one of the highest tier'
);
rollback to waiting;

select tests.schedule('updated', '2026-01-13', '{"phases": null, "current_phase": null,
  "status": "dreaming", "end_behavior": null, "metadata": null}');
select is(
  tests.waits_for(), 'nothing by nothing', 'D10: of an unknown status nobody knows where it leads');
select is(
  (select phases from billing.subscription_schedules), '[]', 'D12: a list may be missing');
rollback to waiting;

-- ---- the service: in another order ------------------------------------------

rollback to s;
select tests.schedule('created', '2026-01-12');
select tests.sub('2026-01-12', '{"schedule": "sub_sched_1"}');
select is(
  tests.waits_for(), 'basic_monthly by sub_sched_1',
  'A5: the schedule may come before its subscription'
);
rollback to s;

select tests.sub('2026-01-12', '{"schedule": "sub_sched_1"}');
select is(
  tests.waits_for(), 'nothing by sub_sched_1', 'a schedule that is only named leads nowhere yet');
select tests.schedule('created', '2026-01-11');
select is(
  tests.waits_for(), 'basic_monthly by sub_sched_1', 'and may be older than what names it');
rollback to s;

select tests.sub('2026-01-13', '{"schedule": null}');
select tests.schedule('created', '2026-01-12');
select is(
  tests.waits_for(), 'nothing by nothing',
  'A5: one that came late, and that the subscription names no more, leads nowhere'
);
rollback to s;

select tests.sub('2026-01-12', '{"schedule": "sub_sched_1"}');
select tests.schedule('created', '2026-01-12', '{"phases": [
  {"start_date": 1768003200, "end_date": 1770681600, "items": []},
  {"start_date": 1770681600, "end_date": 1773100800, "items": [
    {"price": "price_new", "quantity": 1}]}]}');
select is(
  tests.waits_for(), 'nothing by sub_sched_1', 'C1: a price nobody knows is nothing to wait for');
select tests.deliver('evt_price', 'price.created', '2026-01-14', '{"id": "price_new",
  "object": "price", "active": true, "currency": "usd", "unit_amount": 700, "lookup_key": "new",
  "product": "prod_new", "recurring": {"interval": "month", "interval_count": 1}}');
select is(tests.waits_for(), 'new by sub_sched_1', 'C1: until it is known');
rollback to s;

select tests.sub('2026-01-12', '{"schedule": "sub_sched_1"}');
select tests.deliver('evt_price', 'price.created', '2026-01-12', '{"id": "price_new",
  "object": "price", "active": true, "currency": "usd", "unit_amount": 700, "lookup_key": "new",
  "product": "prod_new", "recurring": {"interval": "month", "interval_count": 1}}');
select tests.schedule('created', '2026-01-12', '{"phases": [
  {"start_date": 1770681600, "end_date": 1773100800, "items": [
    {"price": "price_new", "quantity": 1}, {"price": "price_basic_monthly", "quantity": 1}]}]}');
select is(tests.waits_for(), 'basic_monthly by sub_sched_1', 'C3: a price of no plan comes last');
select tests.deliver('evt_product', 'product.created', '2026-01-14', '{"id": "prod_new",
  "object": "product", "active": true, "name": "New", "metadata": {"plan_key": "fresh"}}');
update billing.plans set tier_rank = 5 where stripe_product_id = 'prod_new';
select is(
  tests.waits_for(), 'basic_monthly by sub_sched_1', 'C3: and one of a lower tier stays behind');
rollback to s;

-- ---- a member, a stranger ---------------------------------------------------

select tests.sub('2026-01-12');
select tests.schedule('created', '2026-01-12');
select tests.sign_in('ann');
select results_eq(
  $$ select pending_price_key, pending_change_at from billing.my_subscription() $$,
  $$ values ('basic_monthly', '2026-02-10 00:00+00'::timestamptz) $$,
  'a member sees what waits'
);
select is(
  (select count(*) from billing.subscription_schedules), 1::bigint, 'and the whole schedule');
select tests.sign_in('bob');
select is_empty($$ select * from billing.subscription_schedules $$, 'a stranger sees none');

-- ---- the history ------------------------------------------------------------

select tests.be_owner();
select tests.schedule('released', '2026-01-13', '{"status": "released", "subscription": null,
  "released_subscription": "sub_ann"}');
select is(
  (select count(*) from billing.subscription_changes where kind = 'change_undone'), 1::bigint,
  'taking it back is in the history, too'
);

select * from finish();
rollback;
