-- billing_admin.event_backlog, replay_event() and discard_event(): what an administrator does
-- with events.
begin;
\ir ../helpers.psql
select plan(40);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
select tests.account('bob');

create function pg_temp.event(p_id text) returns text
language sql security definer as $$
  select format('%s %s %s', status, attempts, coalesce(status_reason, '-'))
  from billing_private.stripe_events
  where event_id = p_id;
$$;

create function pg_temp.break(p_type text, p_projector text default 'project_nothing') returns void
language sql security definer as $$
  update billing_private.event_handlers set projector = p_projector where event_type = p_type;
$$;

create function pg_temp.fail_often(p_id text) returns void
language plpgsql security definer as $$
begin
  while (select status from billing_private.stripe_events where event_id = p_id) = 'failed' loop
    perform tests.set_time((
      select next_attempt_at from billing_private.stripe_events where event_id = p_id));
    perform billing_private.task_retry_events();
  end loop;
end;
$$;

-- ---- an empty backlog -------------------------------------------------------

select tests.subscribe('ann');
select tests.deliver('evt_odd', 'issuing_card.created', '2026-01-10',
  '{"id": "issfr_1", "object": "radar.early_fraud_warning"}');
select tests.sign_in('ada');
select is_empty(
  $$ select * from billing_admin.event_backlog $$,
  'applied and ignored events are no backlog'
);

-- ---- a failing event --------------------------------------------------------

select pg_temp.break('customer.subscription.created');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_basic_monthly');
select results_eq(
  $$
    select event_id, type, status, attempts, error, object_id, stripe_customer_id, occurred_at,
      received_at, next_attempt_at
    from billing_admin.event_backlog
  $$,
  $$
    values (
      'evt_bob_active_1768003200', 'customer.subscription.created', 'failed', 1,
      'function billing_private.project_nothing(jsonb, billing_private.stripe_events) '
        'does not exist',
      'sub_bob', 'cus_bob', '2026-01-10'::timestamptz, '2026-01-10'::timestamptz,
      '2026-01-10 00:01'::timestamptz)
  $$,
  'a failed event is listed with its error and its next try'
);
select tests.be_owner();
select pg_temp.fail_often('evt_bob_active_1768003200');
select tests.sign_in('ada');
select is(
  (select format('%s %s %s', status, attempts, next_attempt_at) from billing_admin.event_backlog),
  'dead 8 ',
  'D3: given up, it stays in the backlog and is tried no more'
);

-- ---- replay: still broken ---------------------------------------------------

select tests.set_time('2026-01-11');
select is(
  billing_admin.replay_event('evt_bob_active_1768003200', 'is it repaired?'), 'failed',
  'a replay that fails says so'
);
select is(
  (select format('%s %s %s', status, attempts, next_attempt_at::timestamp)
    from billing_admin.event_backlog),
  'failed 1 2026-01-11 00:01:00',
  'a replay begins with fresh retries'
);

-- ---- replay: repaired -------------------------------------------------------

select pg_temp.break('customer.subscription.created', 'project_subscription');
select is(
  billing_admin.replay_event('evt_bob_active_1768003200', 'the projector is repaired'), 'applied',
  'a replay applies the event at once'
);
select is_empty($$ select * from billing_admin.event_backlog $$, 'the backlog is empty');
select tests.sign_in('bob');
select ok(billing.has_entitlement('clubs'), 'its effect is there');

-- ---- replay: twice ----------------------------------------------------------

select tests.be_owner();
create function pg_temp.rows() returns text
language sql security definer as $$
  select md5(string_agg(content, ';' order by content))
  from (
    select to_jsonb(subscriptions)::text from billing.subscriptions
    union all
    select to_jsonb(subscription_items)::text from billing.subscription_items
    union all
    select to_jsonb(entitlements)::text from billing.entitlements
    union all
    select to_jsonb(subscription_changes)::text from billing.subscription_changes
  ) as contents (content);
$$;
create temporary table before as select pg_temp.rows() as rows;
grant select on before to public;

select tests.sign_in('ada');
select is(
  billing_admin.replay_event('evt_bob_active_1768003200', 'twice'), 'applied',
  'an applied event may be replayed'
);
select is(
  pg_temp.rows(), (select rows from before),
  'replaying an applied event changes nothing'
);

-- ---- replay: newer state stays ----------------------------------------------

select tests.deliver(
  'evt_bob_ended', 'customer.subscription.deleted', '2026-01-12',
  tests.subscription('bob', 'canceled', '2026-01-10', 'price_basic_monthly',
    '{"ended_at": 1768176000}'));
select is(
  billing_admin.replay_event('evt_bob_active_1768003200', 'a slip'), 'applied',
  'an event that something newer followed may be replayed'
);
select is(
  pg_temp.event('evt_bob_active_1768003200'), 'applied 1 superseded',
  'A6: it is superseded'
);
select tests.sign_in('bob');
select is(
  (select status from billing.my_subscription()), 'canceled',
  'A6: the newer state stays'
);
select ok(not billing.has_entitlement('clubs'), 'A6: and no access comes back');

-- ---- replay: ignored --------------------------------------------------------

select tests.sign_in('ada');
select is(
  billing_admin.replay_event('evt_odd', 'curious'), 'ignored',
  'an event nobody handles stays ignored'
);
select tests.deliver('evt_live', 'customer.created', '2026-01-12',
  '{"id": "cus_live", "object": "customer"}', null, '{"livemode": true}');
select is(
  billing_admin.replay_event('evt_live', 'curious'), 'ignored',
  'E5: an event of the other mode stays ignored'
);

-- ---- discard ----------------------------------------------------------------

select pg_temp.break('customer.updated');
select tests.deliver('evt_hopeless', 'customer.updated', '2026-01-12',
  '{"id": "cus_ann", "object": "customer", "email": "broken"}');
select is(
  (select count(*) from billing_admin.event_backlog), 1::bigint,
  'an event fails'
);
select lives_ok(
  $$ select billing_admin.discard_event('evt_hopeless', 'sent by mistake') $$,
  'an administrator gives up on it'
);
select is_empty($$ select * from billing_admin.event_backlog $$, 'it has left the backlog');
select is(
  pg_temp.event('evt_hopeless'), 'discarded 1 sent by mistake',
  'it is kept, and says why it was discarded'
);
select tests.be_owner();
select is(
  (select payload::jsonb #>> '{data,object,email}'
    from billing_private.stripe_events where event_id = 'evt_hopeless'),
  'broken',
  'its text stays'
);
select tests.set_time('2026-01-13');
select is(billing_private.task_retry_events(), 0::bigint, 'it is not tried again');
select tests.sign_in('ada');
select lives_ok(
  $$ select billing_admin.discard_event('evt_hopeless', 'again') $$,
  'discarding twice is no error'
);
select pg_temp.break('customer.updated', 'project_customer');
select is(
  billing_admin.replay_event('evt_hopeless', 'it was no mistake'), 'applied',
  'a discarded event can still be replayed'
);
select throws_ok(
  $$ select billing_admin.discard_event('evt_hopeless', 'after all') $$,
  'PT404', 'there is no such event',
  'an applied event cannot be discarded: its effect is there'
);

-- A discarded snapshot is no longer one of the snapshots that decide.
select tests.be_owner();
select pg_temp.break('customer.updated');
select tests.deliver('evt_poison', 'customer.updated', '2026-01-13',
  '{"id": "cus_ann", "object": "customer", "email": "poison"}');
select tests.sign_in('ada');
select billing_admin.discard_event('evt_poison', 'nonsense');
select pg_temp.break('customer.updated', 'project_customer');
select tests.deliver('evt_good', 'customer.updated', '2026-01-13',
  '{"id": "cus_ann", "object": "customer", "email": "good"}');
select is(
  billing_admin.replay_event('evt_good', 'to be sure'), 'applied',
  'an event of the same second is applied'
);
select tests.be_owner();
select is(
  (select email from billing.customers where stripe_customer_id = 'cus_ann'), 'good',
  'what was discarded does not come back with it'
);

-- ---- errors -----------------------------------------------------------------

select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.replay_event('evt_nobody', 'a typo') $$,
  'PT404', 'there is no such event',
  'an event that does not exist cannot be replayed'
);
select throws_ok(
  $$ select billing_admin.replay_event(null, 'a typo') $$,
  'PT404', 'there is no such event',
  'no event cannot be replayed'
);
select throws_ok(
  $$ select billing_admin.replay_event('evt_hopeless', null) $$,
  'PT400', 'the request is not valid',
  'a replay needs a reason'
);
select throws_ok(
  $$ select billing_admin.discard_event('evt_nobody', 'a typo') $$,
  'PT404', 'there is no such event',
  'an event that does not exist cannot be discarded'
);
select throws_ok(
  $$ select billing_admin.discard_event('evt_hopeless', '') $$,
  'PT400', 'the request is not valid',
  'discarding needs a reason'
);

-- What Stripe answered to a command is in the inbox too, but was never an event.
select tests.be_owner();
insert into billing_private.stripe_events
  (event_id, source, type, object_id, livemode, occurred_at, payload, status)
values (
  'command:1', 'command', 'customer.created', 'cus_1', false, '2026-01-10',
  '{"data": {"object": {"id": "cus_1", "object": "customer"}}}', 'applied');
select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.replay_event('command:1', 'curious') $$,
  'PT404', 'there is no such event',
  'an answer to a command cannot be replayed'
);

-- ---- a user, the service, a visitor -----------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing_admin.replay_event('evt_bob_active_1768003200', 'my access back') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot replay an event'
);
select throws_ok(
  $$ select billing_admin.discard_event('evt_bob_ended', 'my access back') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot discard one'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.replay_event('evt_bob_active_1768003200', 'hello') $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot replay an event'
);
select tests.be_service();
select is(
  billing_admin.replay_event('evt_good', 'a script'), 'applied',
  'the service may replay an event'
);

-- ---- history and audit ------------------------------------------------------

select tests.be_owner();
select results_eq(
  $$
    select cause ->> 'kind', cause ->> 'reference', actor_id
    from billing.subscription_changes
    where account_id = md5('bob')::uuid and kind = 'started'
  $$,
  $$ values ('stripe_event', 'evt_bob_active_1768003200', md5('ada')::uuid) $$,
  'the history names the event, and who replayed it'
);
select results_eq(
  $$
    select after ->> 'action', after ->> 'subject', after ->> 'reason', actor_id, actor_role
    from billing_private.audit_log
    where table_name = 'billing_private.admin_actions'
      and after ->> 'subject' in ('evt_bob_active_1768003200', 'evt_good')
    order by id
  $$,
  $$
    values
      ('replay_event', 'evt_bob_active_1768003200', 'is it repaired?', md5('ada')::uuid,
        'authenticated'),
      ('replay_event', 'evt_bob_active_1768003200', 'the projector is repaired', md5('ada')::uuid,
        'authenticated'),
      ('replay_event', 'evt_bob_active_1768003200', 'twice', md5('ada')::uuid, 'authenticated'),
      ('replay_event', 'evt_bob_active_1768003200', 'a slip', md5('ada')::uuid, 'authenticated'),
      ('replay_event', 'evt_good', 'to be sure', md5('ada')::uuid, 'authenticated'),
      ('replay_event', 'evt_good', 'a script', null, 'service_role')
  $$,
  'the audit says who replayed what, and why'
);
select is(
  (
    select array_agg(reason order by id)
    from billing_private.admin_actions
    where action = 'discard_event'
  ),
  array['sent by mistake', 'again', 'nonsense'],
  'and who discarded what, and why'
);

select * from finish();
rollback;
