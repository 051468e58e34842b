-- billing_admin.replay_events() and discard_events(): what an administrator does with many events.
begin;
\ir ../helpers.psql
select plan(33);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
select tests.account('bob');
select tests.account('cat');

create function pg_temp.break(p_type text, p_projector text default 'project_nothing') returns void
language sql security definer as $$
  update billing_private.event_handlers set projector = p_projector where event_type = p_type;
$$;

create function pg_temp.customer_event(p_id text, p_name text) returns text
language sql as $$
  select tests.deliver(p_id, 'customer.updated', billing_private.now(), jsonb_build_object(
    'id', 'cus_' || p_name, 'object', 'customer', 'email', p_name || '@example.com'));
$$;

create function pg_temp.give_up(p_id text) returns void
language sql security definer as $$
  update billing_private.stripe_events
  set status = 'dead', attempts = 8, next_attempt_at = null
  where event_id = p_id;
$$;

create function pg_temp.emails() returns text[]
language sql security definer as $$
  select array_agg(email order by stripe_customer_id) from billing.customers;
$$;

-- ---- a backlog --------------------------------------------------------------

select pg_temp.break('customer.updated');
select pg_temp.break('invoice.created', 'project_else');
select pg_temp.customer_event('evt_ann', 'ann');
select pg_temp.give_up('evt_ann');
select tests.set_time('2026-01-11');
select pg_temp.customer_event('evt_bob', 'bob');
select pg_temp.give_up('evt_bob');
select tests.deliver('evt_invoice', 'invoice.created', '2026-01-11',
  '{"id": "in_1", "object": "invoice", "customer": "cus_ann", "currency": "usd"}');
select tests.set_time('2026-01-12');
select pg_temp.customer_event('evt_cat', 'cat');

select tests.sign_in('ada');

-- ---- choosing, in a dry run -------------------------------------------------

create function pg_temp.chosen(
  p_status text default null,
  p_type text default null,
  p_since timestamptz default null,
  p_until timestamptz default null,
  p_error_like text default null,
  p_at_most integer default 100
) returns text[]
language sql as $$
  select array_agg(event_id)
  from billing_admin.replay_events(
    'looking', p_status, p_type, p_since, p_until, p_error_like, p_at_most, dry_run => true);
$$;

select is(
  pg_temp.chosen(), array['evt_ann', 'evt_bob', 'evt_invoice', 'evt_cat'],
  'without a filter the whole backlog is chosen, oldest first'
);
select is(pg_temp.chosen('dead'), array['evt_ann', 'evt_bob'], 'events are chosen by status');
select is(
  pg_temp.chosen(p_type => 'invoice.created'), array['evt_invoice'], 'by type'
);
select is(
  pg_temp.chosen(p_since => '2026-01-11', p_until => '2026-01-12'),
  array['evt_bob', 'evt_invoice'],
  'by when they were received: from since on, before until'
);
select is(
  pg_temp.chosen(p_error_like => '%project_else%'), array['evt_invoice'], 'by their error'
);
select is(
  pg_temp.chosen('dead', 'customer.updated', '2026-01-11'), array['evt_bob'],
  'filters narrow each other'
);
select is(pg_temp.chosen(p_at_most => 2), array['evt_ann', 'evt_bob'], 'at most so many');
select is(pg_temp.chosen('applied'), null, 'none may be there');
select results_eq(
  $$
    select event_id, type, object_id, received_at, status_before, status, error
    from billing_admin.replay_events('looking', 'dead', at_most => 1, dry_run => true)
  $$,
  $$
    values (
      'evt_ann', 'customer.updated', 'cus_ann', '2026-01-10'::timestamptz, 'dead', 'dead',
      'function billing_private.project_nothing(jsonb, billing_private.stripe_events) '
        'does not exist')
  $$,
  'each is shown with its object, status and error'
);
select tests.be_owner();
select is(
  (select array_agg(attempts order by received_at, event_id) from billing_private.stripe_events),
  array[8, 8, 1, 1],
  'a dry run tries nothing'
);
select is_empty(
  $$ select * from billing_private.admin_actions $$,
  'a dry run is no correction'
);

-- ---- replay -----------------------------------------------------------------

select pg_temp.break('customer.updated', 'project_customer');
select tests.set_time('2026-01-13');
select tests.sign_in('ada');
select results_eq(
  $$
    select event_id, status_before, status, error
    from billing_admin.replay_events('the projector of customers is repaired')
  $$,
  $$
    values
      ('evt_ann', 'dead', 'applied', null),
      ('evt_bob', 'dead', 'applied', null),
      ('evt_invoice', 'failed', 'failed',
        'function billing_private.project_else(jsonb, billing_private.stripe_events) '
          'does not exist'),
      ('evt_cat', 'failed', 'applied', null)
  $$,
  'B14: one that still fails stops no other'
);
select is(
  pg_temp.emails(),
  array['ann@example.com', 'bob@example.com', 'cat@example.com'],
  'what the others say is stored'
);
select is(
  (select format('%s %s', attempts, next_attempt_at::timestamp) from billing_admin.event_backlog),
  '1 2026-01-13 00:01:00',
  'who failed again begins with fresh retries'
);
select is(
  (select count(*) from billing_admin.replay_events('twice', 'applied')), 3::bigint,
  'events that were applied may be replayed'
);
select is(
  pg_temp.emails(),
  array['ann@example.com', 'bob@example.com', 'cat@example.com'],
  'B15: and change nothing by it'
);

-- ---- replay: newer state stays ----------------------------------------------

select tests.deliver('evt_ann_newer', 'customer.updated', '2026-01-13',
  '{"id": "cus_ann", "object": "customer", "email": "new@example.com"}');
select tests.sign_in('ada');
select count(*) from billing_admin.replay_events('a slip', 'applied', until => '2026-01-13');
select is(
  (pg_temp.emails())[1], 'new@example.com',
  'A6: the newer state stays'
);

-- ---- discard ----------------------------------------------------------------

select results_eq(
  $$
    select event_id, status_before, status
    from billing_admin.discard_events('nonsense', dry_run => true)
  $$,
  $$ values ('evt_invoice', 'failed', 'failed') $$,
  'a dry run shows what would be discarded'
);
select is(
  (select count(*) from billing_admin.event_backlog), 1::bigint, 'and discards nothing'
);
select is_empty(
  $$ select * from billing_admin.discard_events('nonsense', 'dead') $$,
  'what is not chosen stays'
);
select results_eq(
  $$
    select event_id, status_before, status
    from billing_admin.discard_events('nonsense', 'failed', 'invoice.created')
  $$,
  $$ values ('evt_invoice', 'failed', 'discarded') $$,
  'what is chosen is discarded'
);
select is_empty($$ select * from billing_admin.event_backlog $$, 'the backlog is empty');

-- ---- errors -----------------------------------------------------------------

select throws_ok(
  $$ select * from billing_admin.replay_events('') $$,
  'PT400', 'the request is not valid',
  'a replay needs a reason, ...'
);
select throws_ok(
  $$ select * from billing_admin.replay_events(null, dry_run => true) $$,
  'PT400', 'the request is not valid',
  '... a dry run too'
);
select throws_ok(
  $$ select * from billing_admin.discard_events(null) $$,
  'PT400', 'the request is not valid',
  'discarding needs a reason'
);
select throws_ok(
  $$ select * from billing_admin.replay_events('a typo', 'died') $$,
  'PT400', 'the request is not valid',
  'a status that does not exist is refused'
);
select throws_ok(
  $$ select * from billing_admin.discard_events('too much', 'applied') $$,
  'PT400', 'the request is not valid',
  'applied events cannot be discarded: their effect is there'
);
select throws_ok(
  $$ select * from billing_admin.replay_events('many', at_most => 1001) $$,
  'PT400', 'the request is not valid',
  'more than a thousand at a time are refused'
);
select throws_ok(
  $$ select * from billing_admin.replay_events('none', at_most => 0) $$,
  'PT400', 'the request is not valid',
  'fewer than one too'
);
select lives_ok(
  $$ select * from billing_admin.replay_events('many', at_most => 1000) $$,
  'a thousand are not'
);

-- ---- a user -----------------------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select * from billing_admin.replay_events('my access back', dry_run => true) $$,
  'PT403', 'this needs a billing administrator',
  'a user may not even look'
);
select throws_ok(
  $$ select * from billing_admin.discard_events('my debts', dry_run => true) $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot discard events'
);

-- ---- audit ------------------------------------------------------------------

select tests.be_owner();
select results_eq(
  $$
    select action, subject, reason
    from billing_private.admin_actions
    where reason in ('the projector of customers is repaired', 'nonsense')
    order by id
  $$,
  $$
    values
      ('replay_events', 'evt_ann', 'the projector of customers is repaired'),
      ('replay_events', 'evt_bob', 'the projector of customers is repaired'),
      ('replay_events', 'evt_invoice', 'the projector of customers is repaired'),
      ('replay_events', 'evt_cat', 'the projector of customers is repaired'),
      ('discard_event', 'evt_invoice', 'nonsense')
  $$,
  'the audit says of each event who replayed or discarded it, and why'
);

select * from finish();
rollback;
