-- What Stripe's meters are told when usage is corrected, and what happens to what they do not take.
begin;
\ir usage.psql
select plan(20);

update billing.features set stripe_event_name = 'exports' where key = 'exports';
insert into billing.features (key, name, kind, aggregation, stripe_event_name) values
  ('calls', 'Calls', 'metered', 'count', 'calls'),
  ('seats', 'Seats', 'metered', 'sum', 'seats');
insert into billing_private.meters (stripe_meter_id, event_name, formula) values
  ('mtr_1', 'exports', 'sum'),
  ('mtr_2', 'calls', 'count'),
  ('mtr_3', 'seats', 'last');

create function pg_temp.correct(p_key text, p_quantity numeric) returns boolean
language sql as $$
  select is_repeated from billing_admin.correct_usage(md5('ann')::uuid, p_key, p_quantity, 'a typo');
$$;
create function pg_temp.told() returns table (kind text, status text, said text, problem text)
language sql as $$
  select
    kind, status, coalesce(params #>> '{payload,value}', params #>> '{cancel,identifier}'),
    last_error #>> '{error,code}'
  from billing_private.commands
  where kind in ('meter_event', 'cancel_meter_event')
  order by position;
$$;
create function pg_temp.record(p_feature text, p_key text, p_quantity numeric) returns void
language sql as $$
  select billing.record_usage(p_feature, p_quantity, md5('ann')::uuid, p_key);
$$;
create function pg_temp.id_of(p_key text) returns text
language sql as $$ select id::text from billing.usage_records where idempotency_key = p_key; $$;
create function pg_temp.carried(p_http_status integer default 200) returns bigint
language sql as $$
  select count(*)
  from billing.claim_commands() as claimed
  cross join lateral billing.complete_command(
    claimed.id, claimed.lease, p_http_status,
    case p_http_status when 200 then '{"object": "billing.meter_event", "livemode": false}'::jsonb
      else '{"error": {"code": "refused", "message": "No."}}' end);
$$;
savepoint s;

-- ---- a sum ------------------------------------------------------------------

select pg_temp.record('exports', 'e', 8), pg_temp.carried();
select pg_temp.correct('e', 5);
select results_eq(
  'select * from pg_temp.told() offset 1',
  $$ values ('meter_event', 'pending', '-3', null::text) $$,
  'G3: a sum is told of less by a number below zero, as Stripe has it'
);
select is(
  (select params ->> 'timestamp' from billing_private.commands where params #>> '{payload,value}' = '-3'),
  extract(epoch from timestamptz '2026-01-10')::bigint::text,
  'of when the usage happened'
);
select pg_temp.correct('e', 5);
select is((select count(*) from pg_temp.told()), 2::bigint, 'twice: once');
select pg_temp.correct('e', 9);
select is((select said from pg_temp.told() offset 2), '4', 'and of more by one above');
rollback to s;

select pg_temp.record('exports', 'e', 8), pg_temp.carried();
select tests.set_time('2026-02-10 00:59:59');
select pg_temp.correct('e', 5);
select is(
  (select status from pg_temp.told() offset 1), 'pending',
  'until an hour after the period an invoice takes it in'
);
rollback to s;
select pg_temp.record('exports', 'e', 8), pg_temp.carried();
select tests.set_time('2026-02-10 01:00:00');
select pg_temp.correct('e', 5);
select results_eq(
  'select * from pg_temp.told() offset 1',
  $$ values ('meter_event', 'dead', '-3', 'period_already_invoiced') $$,
  'after that Stripe would forget it: it is not sent, and stands in the backlog'
);
select isnt_empty(
  $$
    select * from billing_admin.critical_issues
    where issue = 'dead_command' and details #>> '{error,error,code}' = 'period_already_invoiced'
  $$,
  'where admins find it'
);
rollback to s;

select pg_temp.record('exports', 'e', 8), pg_temp.carried(400);
select pg_temp.correct('e', 5);
select results_eq(
  'select status, problem from pg_temp.told() offset 1',
  $$ values ('dead', 'usage_not_reported') $$,
  'what Stripe has refused is not taken back from others'
);
rollback to s;

update billing.customers set is_primary = false where account_id = md5('ann')::uuid;
select pg_temp.record('exports', 'e', 8);
update billing.customers set is_primary = true where account_id = md5('ann')::uuid;
select pg_temp.correct('e', 5);
select is_empty('select * from pg_temp.told()', 'nor what it was never told of');
rollback to s;

-- ---- a count ----------------------------------------------------------------

select pg_temp.record('calls', 'c', 1), pg_temp.carried();
select pg_temp.correct('c', 0);
select results_eq(
  'select * from pg_temp.told() offset 1',
  format($$ values ('cancel_meter_event', 'pending', %L, null::text) $$, pg_temp.id_of('c')),
  'G3: of a count the event is canceled: minus one would count one more'
);
select is(
  (
    select path || ' ' || (params ->> 'type') || ' ' || (params ->> 'event_name')
    from billing_private.commands
    where kind = 'cancel_meter_event'
  ),
  '/v1/billing/meter_event_adjustments cancel calls', 'by an adjustment'
);
select pg_temp.carried(), pg_temp.correct('c', 1), pg_temp.correct('c', 0);
select results_eq(
  'select kind, status, said from pg_temp.told() offset 2',
  $$ select 'meter_event', 'canceled', '1' $$,
  'counted again and taken back before it went out, it stays here'
);
select is((select count(*) from pg_temp.told()), 3::bigint, 'and nothing is canceled at Stripe twice');
rollback to s;

select pg_temp.record('calls', 'c', 1), pg_temp.correct('c', 0);
select results_eq(
  'select kind, status from pg_temp.told()', $$ values ('meter_event', 'canceled') $$,
  'one that nobody has carried yet is not sent at all'
);
select is(pg_temp.carried(), 0::bigint, 'by nobody');
rollback to s;

select pg_temp.record('calls', 'c', 1), pg_temp.carried();
select tests.set_time('2026-01-10 22:59:59');
select pg_temp.correct('c', 0);
select is((select status from pg_temp.told() offset 1), 'pending', 'within 23 hours Stripe is asked');
rollback to s;
select pg_temp.record('calls', 'c', 1), pg_temp.carried();
select tests.set_time('2026-01-10 23:00:00');
select pg_temp.correct('c', 0);
select results_eq(
  'select * from pg_temp.told() offset 1',
  format($$ values ('cancel_meter_event', 'dead', %L, 'too_old_to_cancel') $$, pg_temp.id_of('c')),
  'after that it takes nothing back, which stands in the backlog'
);
rollback to s;

-- ---- the last ---------------------------------------------------------------

select pg_temp.record('seats', 'l', 8), pg_temp.carried();
select pg_temp.correct('l', 5);
select results_eq(
  'select status, problem from pg_temp.told() offset 1',
  $$ values ('dead', 'meter_is_not_a_sum') $$,
  'a meter that shows the last is told of no difference'
);
rollback to s;

-- ---- a retry ----------------------------------------------------------------

select pg_temp.record('calls', 'c', 1), pg_temp.carried(), pg_temp.correct('c', 0), pg_temp.carried(400);
select is((select status from pg_temp.told() offset 1), 'dead', 'what Stripe refuses to cancel is given up');
select isnt_empty(
  $$ select * from billing_admin.command_backlog where kind = 'cancel_meter_event' $$, 'in sight of admins'
);

select * from finish();
rollback;
