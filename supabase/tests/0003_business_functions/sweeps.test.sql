-- Sweeps: Stripe's lists are read page by page, compared with what is stored, and put right.
begin;
\ir ../helpers.psql
select plan(77);

select tests.catalog();
select tests.set_time('2026-01-20 08:00');
select tests.account('ann');
select tests.account('bob');

create function tests.sub(p_name text, p_status text, p_extra jsonb default '{}') returns jsonb
language sql as $$
  select tests.subscription(p_name, p_status, '2026-01-10', 'price_plus_monthly', p_extra);
$$;

-- The page that is asked for.
create view tests.question as
select method, path, params, status
from billing_private.commands
where kind = 'sweep_page'
  and status in ('pending', 'leased');

-- Claims what is due and answers it with a page; Stripe's clock says 08:00.
create function tests.show(
  p_members jsonb,
  p_has_more boolean default false,
  p_http_status integer default 200,
  p_response jsonb default null,
  p_stripe_date text default 'Tue, 20 Jan 2026 08:00:00 GMT'
) returns text
language plpgsql as $$
declare
  v_claimed billing_private.commands;
begin
  perform billing_private.claim_commands(100, null);
  select * into strict v_claimed
  from billing_private.commands
  where status = 'leased' and kind = 'sweep_page';
  return (billing.complete_command(
    v_claimed.id, v_claimed.lease, p_http_status,
    coalesce(p_response, jsonb_build_object(
      'object', 'list', 'has_more', p_has_more, 'data', p_members)),
    null, p_stripe_date, 0.4)).status;
end;
$$;

create function tests.begin_sweep(
  p_list_key text,
  p_is_backfill boolean default false,
  p_created_from timestamptz default null
) returns void
language plpgsql as $$
begin
  perform billing_private.request_sweep(p_list_key, p_is_backfill, p_created_from);
  perform billing_private.continue_sweeps();
end;
$$;

create function tests.sweep_state() returns text
language sql as $$
  select format('%s: %s pages, %s seen, %s changed, %s drifted, at %s',
    status, pages, members, changed, drifted, coalesce(cursor, '-'))
  from billing_private.sweeps
  order by position desc
  limit 1;
$$;

create function tests.status_of(p_name text) returns text
language sql as $$
  select status from billing.subscriptions where stripe_subscription_id = 'sub_' || p_name;
$$;

create function tests.shown_event(
  p_id text, p_created timestamptz, p_object jsonb,
  p_type text default 'customer.subscription.updated'
) returns jsonb
language sql as $$
  select tests.event(p_id, p_type, p_created, p_object)::jsonb;
$$;

create view tests.found as
select object_id, class, found_by, differences, repaired_at is not null as is_repaired
from billing_private.drifts
order by id;

select tests.subscribe('ann');
select tests.subscribe('bob');
savepoint s;

-- ---- the machine: asking, page by page --------------------------------------

select tests.begin_sweep('subscriptions');
select results_eq(
  $$ select * from tests.question $$,
  $$
    values ('GET', '/v1/subscriptions', '{"limit": 100, "status": "all"}'::jsonb, 'pending')
  $$,
  'H4: a list is asked for with what Stripe leaves out by itself'
);
select results_eq(
  $$ select account_id, subject_id from billing_private.commands where kind = 'sweep_page' $$,
  $$ select null::uuid, id from billing_private.sweeps $$,
  'a page stands in no account''s line'
);
select is(
  tests.show(jsonb_build_array(tests.sub('bob', 'active')), true), 'succeeded',
  'a page comes'
);
select is(
  tests.sweep_state(), 'running: 1 pages, 1 seen, 0 changed, 0 drifted, at sub_bob',
  'the sweep knows how far it is'
);
select results_eq(
  $$ select params, status from tests.question $$,
  $$
    values ('{"limit": 100, "status": "all", "starting_after": "sub_bob"}'::jsonb, 'pending')
  $$,
  'H6: the next page is asked for from there, in the same transaction'
);
select tests.show(jsonb_build_array(tests.sub('ann', 'active')), false);
select is(
  tests.sweep_state(), 'finished: 2 pages, 2 seen, 0 changed, 0 drifted, at sub_ann',
  'the last page ends it'
);
select is_empty($$ select * from tests.question $$, 'nothing more is asked');
select is_empty($$ select * from tests.found $$, 'what is as it was told is no drift');
select is_empty(
  $$ select * from billing_private.stripe_events where source = 'reread' $$,
  'what says nothing new does not fill the inbox'
);
rollback to s;

select tests.begin_sweep('subscriptions');
select tests.begin_sweep('subscriptions');
select tests.begin_sweep('customers');
select is(
  (select count(*) from tests.question), 1::bigint,
  'H6: two lists are never read side by side, and one not twice'
);
select tests.show('[]');
select results_eq(
  $$ select path from tests.question $$,
  $$ values ('/v1/customers') $$,
  'when one has ended the next begins'
);
select tests.begin_sweep('invoices');
select tests.begin_sweep('products');
select tests.show('[]');
select results_eq(
  $$ select path from tests.question $$,
  $$ values ('/v1/products') $$,
  'what others refer to comes first'
);
rollback to s;

update billing_private.stripe_lists set pause = '5 seconds' where key = 'subscriptions';
select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'active')), true);
select is(
  (select next_attempt_at from billing_private.commands
    where kind = 'sweep_page' and status = 'pending'),
  '2026-01-20 08:00:05+00'::timestamptz,
  'between two pages is the pause that the list''s row says'
);
rollback to s;

-- ---- the machine: objects that differ ---------------------------------------

select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(
  tests.sub('cat', 'active', '{"customer": "cus_ann", "created": 1767000000}'),
  tests.sub('bob', 'canceled', '{"ended_at": 1768500000}'),
  tests.sub('ann', 'active')));
select is(
  tests.sweep_state(), 'finished: 1 pages, 3 seen, 2 changed, 2 drifted, at sub_ann',
  'H5: what was changed or made and never told is counted'
);
select is(tests.status_of('bob'), 'canceled', 'H1: a change nobody told is brought in');
select is(tests.status_of('cat'), 'active', 'H1: so is an object nobody told of');
select results_eq(
  $$
    select object_id, class, found_by, is_repaired from tests.found
  $$,
  $$
    values ('sub_bob', 'stale', 'sweep', true), ('sub_cat', 'missing', 'sweep', true)
  $$,
  'H5: each is recorded with its class'
);
select is(
  (select differences from tests.found where object_id = 'sub_bob'),
  '[{"table": "billing.subscriptions", "key": "sub_bob",
    "before": {"status": "active", "ended_at": null},
    "after": {"status": "canceled", "ended_at": "2026-01-15T18:00:00+00:00"}}]',
  'H5: with the fields that differed, before and after'
);
select results_eq(
  $$
    select source, type, object_id, occurred_at
    from billing_private.stripe_events
    where source <> 'webhook'
    order by object_id
  $$,
  $$
    values
      ('reread', 'customer.subscription.updated', 'sub_bob',
        '2026-01-20 07:59:59+00'::timestamptz),
      ('reread', 'customer.subscription.updated', 'sub_cat', '2026-01-20 07:59:59+00')
  $$,
  'A7: it counts from when Stripe was asked, by Stripe''s clock'
);
select results_eq(
  $$
    select cause ->> 'kind' from billing.subscription_changes
    where subscription_id = (
        select id from billing.subscriptions where stripe_subscription_id = 'sub_bob'
      )
      and to_status = 'canceled'
  $$,
  $$ values ('command') $$,
  'the history says that it was read, not told'
);
rollback to s;

-- What it read is stale by the time it is applied.
select tests.begin_sweep('subscriptions');
select billing_private.claim_commands(1, null);
select tests.deliver('evt_late', 'customer.subscription.updated', '2026-01-20 08:00:01',
  tests.sub('bob', 'past_due'));
select tests.show(jsonb_build_array(tests.sub('bob', 'active', '{"metadata": {"a": "b"}}')));
select is(
  tests.status_of('bob'), 'past_due',
  'H3, A7: a page never overwrites an event that Stripe made after the page was asked for'
);
select is_empty($$ select * from tests.found $$, 'nor is that drift');
rollback to s;

-- Stripe's clock is behind what an event said: the page was asked for after it all the same.
select tests.deliver('evt_ahead', 'customer.subscription.updated', '2026-01-20 08:03',
  tests.sub('bob', 'past_due'));
select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'unpaid')));
select is(
  tests.status_of('bob'), 'unpaid',
  'H10: whatever the clocks say, what was asked for later than an event came is newer'
);
rollback to s;

select tests.deliver('evt_over', 'customer.subscription.deleted', '2026-01-15',
  tests.sub('bob', 'canceled', '{"ended_at": 1768435200}'));
select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'active')));
select is(tests.status_of('bob'), 'canceled', 'A6: what has ended does not come back by a list');
rollback to s;

select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('ann', 'active')));
select is(
  tests.status_of('bob'), 'active',
  'H4: what a list does not show is not taken for gone'
);
rollback to s;

-- The same state in another shape: another API version, say.
select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'active', '{"application": "ca_1"}')));
select is_empty($$ select * from tests.found $$, 'what no row depends on is no drift');
select is_empty(
  $$ select * from billing_private.stripe_events where source = 'reread' $$,
  'and leaves nothing in the inbox'
);
select is(
  (select count(*) from billing_private.stripe_objects where object_id = 'sub_bob'), 1::bigint,
  'the snapshot that was there is still the one that counts'
);
rollback to s;

select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(
  tests.sub('new', 'active', jsonb_build_object(
    'customer', 'cus_ann', 'created', extract(epoch from timestamptz '2026-01-20 07:55')::bigint))
));
select is(tests.status_of('new'), 'active', 'what was made minutes ago is taken in');
select is_empty($$ select * from tests.found $$, 'but its event may be on its way: no drift');
rollback to s;

-- ---- the machine: a poisonous object ----------------------------------------

alter table billing.subscriptions add constraint not_nine check (quantity <> 9);
select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(
  jsonb_set(tests.sub('bob', 'active'), '{items,data,0,quantity}', '9'),
  tests.sub('ann', 'past_due')));
select is(tests.status_of('ann'), 'past_due', 'B14: one that cannot be applied stops no other');
select results_eq(
  $$
    select object_id, status from billing_private.stripe_events
    where source = 'reread' and status <> 'applied'
  $$,
  $$ values ('sub_bob', 'failed') $$,
  'B14: it is kept and tried again like an event'
);
alter table billing.subscriptions drop constraint not_nine;
select tests.set_time('2026-01-20 08:02');
select billing_private.task_retry_events();
select is(
  (select quantity from billing.subscriptions where stripe_subscription_id = 'sub_bob'),
  9::bigint, 'when it can be applied, it is'
);
rollback to s;

-- ---- the machine: policy ----------------------------------------------------

update billing_private.drift_policies set repairs = false where class = 'stale';
select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'past_due')));
select is(
  tests.status_of('bob'), 'active',
  'a class that its policy does not repair is left as it is'
);
select results_eq(
  $$ select object_id, class, is_repaired from tests.found $$,
  $$ values ('sub_bob', 'stale', false) $$,
  'H5: and reported'
);
select is_empty(
  $$ select * from billing_private.stripe_events where source = 'reread' $$,
  'what was seen does not stay in the inbox'
);
select tests.set_time('2026-01-21');
select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'past_due')));
select results_eq(
  $$ select found_at::date, last_seen_at::date from billing_private.drifts $$,
  $$ values ('2026-01-20'::date, '2026-01-21'::date) $$,
  'found again, it is the same drift'
);
update billing_private.drift_policies set repairs = true where class = 'stale';
select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'past_due')));
select results_eq(
  $$ select class, is_repaired from tests.found $$,
  $$ values ('stale', true) $$,
  'when the policy changes, it is repaired'
);
select is(tests.status_of('bob'), 'past_due', 'H5: and stored as Stripe says');
rollback to s;

-- ---- the machine: back-fill -------------------------------------------------

select tests.begin_sweep('subscriptions', true);
select tests.show(jsonb_build_array(
  tests.sub('old', 'active', '{"customer": "cus_ann", "created": 1700000000}')));
select is(
  tests.sweep_state(), 'finished: 1 pages, 1 seen, 1 changed, 0 drifted, at sub_old',
  'a back-fill takes in what was there before'
);
select is_empty($$ select * from tests.found $$, 'which is no drift');
select tests.begin_sweep('subscriptions', true);
select tests.show(jsonb_build_array(
  tests.sub('old', 'active', '{"customer": "cus_ann", "created": 1700000000}')));
select is(
  tests.sweep_state(), 'finished: 1 pages, 1 seen, 0 changed, 0 drifted, at sub_old',
  'B15: a second one changes nothing'
);
rollback to s;

select tests.deliver('evt_pm', 'customer.subscription.updated', '2026-01-11',
  tests.sub('ann', 'active', '{"default_payment_method": "pm_1"}'));
select tests.begin_sweep('subscriptions', true);
select tests.show('[]');
select results_eq(
  $$ select path from billing_private.commands where kind = 'reread' $$,
  $$ values ('/v1/payment_methods/pm_1') $$,
  'payment methods that subscriptions are paid with, which Stripe does not list, are read singly'
);
rollback to s;

select tests.deliver('evt_ents', 'entitlements.active_entitlement_summary.updated', '2026-01-11',
  '{"object": "entitlements.active_entitlement_summary", "customer": "cus_ann", "livemode": false,
    "entitlements": {"object": "list", "has_more": false, "data": [
      {"id": "ent_old", "object": "entitlements.active_entitlement", "feature": "feat_1",
        "lookup_key": "old"}]}}');
select tests.begin_sweep('customers');
select tests.show('[]');
select is_empty(
  $$ select * from billing_private.commands where kind = 'list_entitlements' $$,
  'a sweep of another list asks for no entitlements'
);
select tests.begin_sweep('subscriptions');
select tests.show('[]');
select results_eq(
  $$
    select method, path, params, target_object_id from billing_private.commands
    where kind = 'list_entitlements'
  $$,
  $$
    values ('GET', '/v1/entitlements/active_entitlements',
      '{"customer": "cus_ann", "limit": 100}'::jsonb, 'entitlements:cus_ann')
  $$,
  'H2: entitlements, listed customer by customer, are read for those of whom they were told'
);
select tests.begin_sweep('subscriptions');
select tests.show('[]');
select is(
  (select count(*) from billing_private.commands where kind = 'list_entitlements'), 1::bigint,
  'not while they are being read'
);
select is(
  (
    select outcome.status
    from billing_private.commands
    cross join lateral billing.complete_command(
      commands.id, commands.lease, 200, '{"object": "list", "has_more": false, "data": [
        {"id": "ent_new", "object": "entitlements.active_entitlement", "feature": "feat_2",
          "lookup_key": "new", "livemode": false}]}') as outcome
    where kind = 'list_entitlements'
  ),
  'succeeded', 'Stripe''s list comes'
);
select results_eq(
  'select lookup_key from billing.stripe_entitlements', array['new'],
  'H2: whatever was never told of is put right'
);
rollback to s;

-- Of bob nobody told what he is entitled to; eve has what gives nothing.
select tests.account(name) from unnest('{eve, dan}'::text[]) as name;
select tests.deliver('evt_ents', 'entitlements.active_entitlement_summary.updated', '2026-01-11',
  '{"object": "entitlements.active_entitlement_summary", "customer": "cus_ann", "livemode": false,
    "entitlements": {"object": "list", "has_more": false, "data": [
      {"id": "ent_old", "object": "entitlements.active_entitlement", "feature": "feat_1",
        "lookup_key": "old"}]}}');
select tests.deliver('evt_sub_' || name, 'customer.subscription.updated', '2026-01-11',
  tests.subscription(name, status, '2026-01-10', price_id,
    jsonb_build_object('ended_at', case status when 'canceled' then 1768089600 end)))
from (values
  ('ann', 'active', 'price_plus_monthly'),
  ('bob', 'active', 'price_plus_monthly'),
  ('dan', 'canceled', 'price_plus_monthly'),
  ('eve', 'active', 'price_basic_monthly')) as life (name, status, price_id);
create function tests.read(p_kind text, p_target text, p_response jsonb) returns text
language sql as $$
  select outcome.status
  from billing_private.commands
  cross join lateral billing.complete_command(
    commands.id, commands.lease, 200, p_response || '{"object": "list"}', null,
    'Tue, 20 Jan 2026 08:00:00 GMT', 0) as outcome
  where kind = p_kind
    and target_object_id = p_target
    and commands.status = 'leased';
$$;
create view tests.reading as
select method, path, params
from billing_private.commands
where kind in ('find_features', 'read_entitlements')
  and status in ('pending', 'leased');
create function tests.claim_all() returns void
language sql as $$
  select billing.claim_commands(100);
$$;
select tests.begin_sweep('subscriptions');
select tests.show('[]');
select bag_eq(
  'select * from tests.reading',
  $$
    values ('GET', '/v1/products/prod_basic/features', '{"limit": 1}'::jsonb),
      ('GET', '/v1/products/prod_plus/features', '{"limit": 1}')
  $$,
  'H2: of the products somebody has, Stripe is asked whether they give features'
);
select tests.begin_sweep('subscriptions');
select tests.show('[]');
select is((select count(*) from tests.reading), 2::bigint, 'and not asked twice at a time');
select tests.claim_all();
select tests.read('find_features', 'prod_basic', '{"has_more": false, "data": []}');
select is(
  (select count(*) from tests.reading), 1::bigint,
  'where one gives none, nobody who has it is asked about'
);
select tests.read('find_features', 'prod_plus', '{"has_more": true, "data": [{"id": "prodft_1"}]}');
select results_eq(
  'select * from tests.reading',
  $$
    values ('GET', '/v1/entitlements/active_entitlements',
      '{"customer": "cus_bob", "limit": 100}'::jsonb)
  $$,
  'H2: where one does, those who have it and of whom no summary came are'
);
select tests.claim_all();
savepoint asked;
select is(
  tests.read('read_entitlements', 'entitlements:cus_bob', '{"has_more": true, "data": [
    {"id": "ent_bob", "object": "entitlements.active_entitlement", "feature": "feat_2",
      "lookup_key": "new", "livemode": false}]}'),
  'succeeded', 'Stripe''s list comes'
);
select results_eq(
  $$
    select account_id, lookup_key from billing.stripe_entitlements
    where stripe_customer_id = 'cus_bob'
  $$,
  $$ values (md5('bob')::uuid, 'new') $$,
  'H2: what was told by nobody is mirrored, for the account whose customer it is'
);
select is(
  (
    select count(*) from billing_private.commands
    where kind = 'list_entitlements' and target_object_id = 'entitlements:cus_bob'
      and status = 'pending'
  ),
  1::bigint, 'D13: and a long list is read to its end'
);
select tests.deliver('evt_late', 'entitlements.active_entitlement_summary.updated', '2026-01-12',
  '{"object": "entitlements.active_entitlement_summary", "customer": "cus_bob", "livemode": false,
    "entitlements": {"object": "list", "has_more": false, "data": []}}');
select is(
  (select count(*) from billing.stripe_entitlements where stripe_customer_id = 'cus_bob'),
  1::bigint, 'A10: a summary from before that changes nothing'
);
rollback to asked;

select tests.read('read_entitlements', 'entitlements:cus_bob', '{"has_more": false, "data": []}');
select is_empty(
  $$
    select object_id from billing_private.stripe_objects where object_id = 'entitlements:cus_bob'
    union all select kind from billing_private.commands
    where target_object_id = 'entitlements:cus_bob' and status = 'pending'
  $$,
  'of whom there is nothing, nothing is kept'
);
rollback to s;

-- ---- the machine: events ----------------------------------------------------

select tests.begin_sweep('events', false, '2026-01-19 07:00');
select results_eq(
  $$ select path, params from tests.question $$,
  $$ values ('/v1/events', '{"limit": 100, "created": {"gte": 1768806000}}'::jsonb) $$,
  'H1: events are asked for from a moment on'
);
select tests.show(jsonb_build_array(
  tests.shown_event('evt_b2', '2026-01-20 07:59', tests.sub('ann', 'unpaid')),
  tests.shown_event('evt_b1', '2026-01-19 12:00', tests.sub('ann', 'past_due')),
  tests.shown_event('evt_odd', '2026-01-19 12:00', '{"id": "x"}', 'unheard.of'),
  tests.shown_event('evt_bob_active_1768003200', '2026-01-10', tests.sub('bob', 'unpaid'))));
select is(
  tests.sweep_state(),
  'finished: 1 pages, 4 seen, 2 changed, 1 drifted, at evt_bob_active_1768003200',
  'H1: those that were never delivered are'
);
select is(tests.status_of('ann'), 'unpaid', 'H1: and lead to the state Stripe has');
select is(tests.status_of('bob'), 'active', 'B15: those that were are not applied again');
select results_eq(
  $$
    select drifts.event_id, class, found_by, drifts.object_id, repaired_at is not null
    from billing_private.drifts
  $$,
  $$ values ('evt_b1', 'event_missed', 'sweep', 'sub_ann', true) $$,
  'H5: one that should have come by now is drift; one of a minute ago may be on its way'
);
select is_empty(
  $$ select * from billing_private.stripe_events where event_id = 'evt_odd' $$,
  'events nobody handles are left where they are'
);
select tests.begin_sweep('events');
select tests.show(jsonb_build_array(
  tests.shown_event('evt_b1', '2026-01-19 12:00', tests.sub('ann', 'past_due'))));
select is((select count(*) from tests.found), 1::bigint, 'B15: read again, nothing is found');
rollback to s;

select tests.begin_sweep('events');
select tests.show(jsonb_build_array(
  tests.shown_event('evt_a0', '2026-01-09', tests.sub('ann', 'incomplete'))));
select is(tests.status_of('ann'), 'active', 'A1: an older event is stored and changes nothing');
select is_empty($$ select * from tests.found $$, 'what newer events had told was no loss');
rollback to s;

update billing_private.drift_policies set repairs = false where class = 'event_missed';
select tests.begin_sweep('events');
select tests.show(jsonb_build_array(
  tests.shown_event('evt_b1', '2026-01-19 12:00', tests.sub('ann', 'past_due'))));
select is(
  tests.status_of('ann'), 'active', 'missed events are only reported if the policy says so'
);
select results_eq(
  $$ select class, is_repaired from tests.found $$,
  $$ values ('event_missed', false) $$,
  'H5: they are'
);
rollback to s;

-- ---- the machine: what goes wrong -------------------------------------------

select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'active')), true);
select is(
  tests.show(null, p_http_status => 429, p_response => '{"error": {"type": "rate_limit"}}'),
  'pending', 'H6: a rate limit is waited out'
);
select is(
  tests.sweep_state(), 'running: 1 pages, 1 seen, 0 changed, 0 drifted, at sub_bob',
  'H6: the sweep stays where it is'
);
select tests.set_time('2026-01-20 08:01');
select tests.show(jsonb_build_array(tests.sub('ann', 'active')));
select is(
  tests.sweep_state(), 'finished: 2 pages, 2 seen, 0 changed, 0 drifted, at sub_ann',
  'H6: and goes on from there'
);
rollback to s;

select tests.begin_sweep('subscriptions');
select tests.begin_sweep('invoices');
select tests.show(jsonb_build_array(tests.sub('bob', 'active')), true);
select tests.show(null, p_http_status => 400, p_response => '{"error": {"message": "no"}}');
select results_eq(
  $$
    select list_key, status, last_error -> 'error'
    from billing_private.sweeps
    order by position
  $$,
  $$
    values
      ('subscriptions', 'failed', '{"message": "no"}'::jsonb),
      ('invoices', 'running', null)
  $$,
  'a list that Stripe refuses does not hold up the next'
);
select tests.show('[]');
select tests.begin_sweep('subscriptions');
select is(
  (select params ->> 'starting_after' from tests.question), 'sub_bob',
  'asked for again, it goes on where it was'
);
rollback to s;

select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'active')), true);
select tests.show(null, p_http_status => 404, p_response =>
  '{"error": {"code": "resource_missing", "param": "starting_after"}}');
select is(
  (select params from tests.question), '{"limit": 100, "status": "all"}',
  'where the member it was to go on after is gone, it begins again'
);
rollback to s;

select tests.begin_sweep('subscriptions');
select tests.show(jsonb_build_array(tests.sub('bob', 'past_due', '{"livemode": true}')));
select is(
  (select format('%s %s', status, last_error #>> '{error,code}') from billing_private.sweeps),
  'failed other_livemode', 'E5: objects of the other mode end the sweep'
);
select is(tests.status_of('bob'), 'active', 'E5: and change nothing');
rollback to s;

select tests.begin_sweep('subscriptions');
select tests.show(null, p_response => '{"unexpected": true}');
select is(
  tests.sweep_state(), 'finished: 1 pages, 0 seen, 0 changed, 0 drifted, at -',
  'an answer without members ends the sweep'
);

select * from finish();
rollback;
