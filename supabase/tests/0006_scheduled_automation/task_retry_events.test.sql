-- The task retry_events: failed events are applied again, less and less often, and then given up.
begin;
\ir ../helpers.psql
select plan(25);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10 12:00');

create function pg_temp.event(p_id text) returns text
language sql as $$
  select format('%s %s %s', status, attempts, coalesce(
    round(extract(epoch from next_attempt_at - billing_private.now()) / 60, 1)::text, 'never'))
  from billing_private.stripe_events
  where event_id = p_id;
$$;

-- Customers cannot be projected for the time being.
update billing_private.event_handlers set projector = 'project_nothing'
where event_type = 'customer.updated';
select is(
  tests.deliver('evt_poison', 'customer.updated', '2026-01-10 12:00',
    '{"id": "cus_ann", "object": "customer", "email": "ann@example.com"}'),
  'failed',
  'B5: an event that cannot be applied is kept as failed'
);
select is(pg_temp.event('evt_poison'), 'failed 1 1.0', 'it is tried again after a minute');

-- ---- when it is due ---------------------------------------------------------

select tests.set_time('2026-01-10 12:00:59');
select is(billing_private.task_retry_events(), 0::bigint, 'before its time it is left alone');
select tests.set_time('2026-01-10 12:01:00');
select is(
  billing_private.task_retry_events(), 1::bigint,
  'in the second it is due it is tried again'
);
select is(
  pg_temp.event('evt_poison'), 'failed 2 2.0',
  'after a second failure it waits twice as long'
);
select is(
  (
    select last_error ->> 'message'
    from billing_private.stripe_events
    where event_id = 'evt_poison'
  ),
  'function billing_private.project_nothing(jsonb, billing_private.stripe_events) does not exist',
  'the error is kept'
);

-- ---- it holds up nobody -----------------------------------------------------

select tests.account('bob');
select tests.subscribe('bob');
select is(
  (select status from billing_private.stripe_events where object_id = 'sub_bob'), 'applied',
  'B14: a poison event holds up no other'
);
select tests.set_time('2026-01-10 12:03:00');
insert into billing_private.stripe_events
  (event_id, type, object_id, livemode, occurred_at, payload, status, next_attempt_at)
select
  'evt_next', 'customer.created', 'cus_next', false, '2026-01-10',
  tests.event('evt_next', 'customer.created', '2026-01-10',
    '{"id": "cus_next", "object": "customer"}'),
  'failed', '2026-01-10 12:03:00';
select is(billing_private.task_retry_events(), 2::bigint, 'both events that are due are tried');
select is(
  pg_temp.event('evt_next'), 'applied 1 never',
  'B14: the one after the poison event is applied'
);
select is(pg_temp.event('evt_poison'), 'failed 3 4.0', 'the poison event waits again');

-- ---- a second chance --------------------------------------------------------

savepoint before_repair;
update billing_private.event_handlers set projector = 'project_customer'
where event_type = 'customer.updated';
select tests.set_time('2026-01-10 12:07');
select is(billing_private.task_retry_events(), 1::bigint, 'after the repair it is tried again');
select is(pg_temp.event('evt_poison'), 'applied 4 never', 'B4: and it is applied');
select is(
  (select email from billing.customers where stripe_customer_id = 'cus_ann'), 'ann@example.com',
  'its effect is there'
);
select is(
  (select last_error from billing_private.stripe_events where event_id = 'evt_poison'), null,
  'its error is gone'
);
select tests.set_time('2026-01-10 13:00');
select is(billing_private.task_retry_events(), 0::bigint, 'an applied event is not tried again');
rollback to before_repair;

-- ---- given up ---------------------------------------------------------------

create function pg_temp.waits(p_tries integer) returns numeric[]
language plpgsql as $$
declare
  v_waits numeric[] := '{}';
  v_next timestamptz;
begin
  for v_try in 1..p_tries loop
    select next_attempt_at into v_next
    from billing_private.stripe_events
    where event_id = 'evt_poison';
    v_waits := v_waits || round(extract(epoch from v_next - billing_private.now()) / 60, 1);
    perform tests.set_time(v_next);
    perform billing_private.task_retry_events();
  end loop;
  return v_waits;
end;
$$;

select is(
  pg_temp.waits(5), array[4, 8, 16, 32, 64]::numeric[],
  'each wait is twice as long as the one before'
);
select is(pg_temp.event('evt_poison'), 'dead 8 never', 'B14: after eight tries it is given up');
select tests.set_time('2026-02-10');
select is(billing_private.task_retry_events(), 0::bigint, 'what was given up is not tried again');

-- ---- events that name nobody ------------------------------------------------

insert into billing_private.stripe_events
  (event_id, type, livemode, occurred_at, payload, status, next_attempt_at)
select
  'evt_nameless', 'balance.available', false, '2026-01-10',
  tests.event('evt_nameless', 'balance.available', '2026-01-10', '{"object": "balance"}'),
  'failed', '2026-02-10';
select is(
  billing_private.task_retry_events(), 1::bigint,
  'an event that names neither a customer nor an object is tried too'
);
select is(pg_temp.event('evt_nameless'), 'ignored 1 never', 'and it is settled');

-- ---- many at once -----------------------------------------------------------

insert into billing_private.stripe_events
  (event_id, type, object_id, livemode, occurred_at, payload, status, next_attempt_at)
select
  'evt_' || n, 'customer.created', 'cus_' || n, false, '2026-01-10',
  tests.event('evt_' || n, 'customer.created', '2026-01-10',
    jsonb_build_object('id', 'cus_' || n, 'object', 'customer')),
  'failed', '2026-02-10'
from generate_series(1, 201) as n;
select is(
  billing_private.task_retry_events(), 200::bigint,
  'one run applies no more than 200 events'
);
select is(billing_private.task_retry_events(), 1::bigint, 'the next one goes on');
select is(
  (select count(*) from billing.customers where stripe_customer_id ~ '^cus_\d+$'), 201::bigint,
  'none is left out'
);

-- ---- run by the heartbeat ---------------------------------------------------

update billing_private.stripe_events set status = 'failed', next_attempt_at = '2026-02-10'
where event_id = 'evt_1';
select is(billing_private.run_task('retry_events'), 'succeeded', 'the heartbeat runs it');
select is(
  pg_temp.event('evt_1'), 'applied 2 never',
  'B6: with the next heartbeat the event is applied'
);

select * from finish();
rollback;
