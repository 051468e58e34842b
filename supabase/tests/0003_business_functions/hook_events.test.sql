-- billing.hook_events: what happened, once per fact, for applications to read in order.
begin;
\ir usage.psql
select plan(16);

create function pg_temp.told() returns table (type text, percent text, used text)
language sql as $$
  select type, data ->> 'percent', data ->> 'used'
  from billing.hook_events
  order by occurred_at, (data ->> 'percent')::integer;
$$;

-- ---- thresholds -------------------------------------------------------------

select pg_temp.use(7.9);
select is_empty('select * from pg_temp.told()', 'below a threshold nothing is told');
select pg_temp.use(0.1);
select results_eq(
  'select * from pg_temp.told()',
  $$ values ('usage.threshold_reached', '80', '8.0') $$,
  'at a threshold an event is'
);
select is(
  (select data - 'used' from billing.hook_events),
  '{
    "feature": "exports", "percent": 80, "allowance": 10,
    "period_start": "2026-01-10T00:00:00+00:00", "period_end": "2026-02-10T00:00:00+00:00"}',
  'with its feature, its period and what that allows'
);
select pg_temp.use(1);
select billing_private.apply_correction(md5('ann')::uuid, idempotency_key, 0, 'test')
from billing.usage_records where quantity = 7.9;
select pg_temp.use(7);
select is((select count(*) from pg_temp.told()), 1::bigint, 'once in a period, however often it is reached');

select tests.set_time('2026-02-10');
select pg_temp.renewed(1);
select billing.record_usage('exports', 10, md5('ann')::uuid);
select results_eq(
  $$ select percent from pg_temp.told() offset 1 $$, $$ values ('80'), ('100') $$,
  'the next period tells anew, of several at once each'
);

savepoint s;
delete from billing.usage_alerts where percent = 100;
insert into billing.usage_alerts (
  account_id, feature_key, period_start, percent, used, allowance
)
values (md5('ann')::uuid, 'exports', '2026-02-10', 100, 10, 10);
select is((select count(*) from pg_temp.told()), 3::bigint, 'the same fact is told once, whoever notes it again');
rollback to s;

-- ---- reading them in order --------------------------------------------------

select tests.be_service();
select is(
  (select count(distinct position) from billing_admin.next_hook_events()), 3::bigint,
  'the server reads all of them, each with its position'
);
select is(
  (select count(*) from billing_admin.next_hook_events(0, 2)), 2::bigint, 'or so many at a time'
);
select results_eq(
  $$
    select data ->> 'period_start'
    from billing_admin.next_hook_events((select min(position) from billing.hook_events), 1)
  $$,
  $$ values ('2026-02-10T00:00:00+00:00') $$,
  'and goes on after a position, the oldest first'
);
select is_empty(
  $$ select * from billing_admin.next_hook_events((select max(position) from billing.hook_events)) $$,
  'after the last there is nothing'
);
select tests.be_owner();
-- One that happened before, and was committed after the others were read.
insert into billing.hook_events (account_id, type, fact, data, occurred_at)
values (md5('ann')::uuid, 'usage.threshold_reached', 'late', '{}', '2026-01-01');
select tests.be_service();
select results_eq(
  $$
    select fact
    from billing_admin.next_hook_events((select max(position) from billing.hook_events))
  $$,
  $$ values ('late') $$,
  'until another is there: what comes late is read last, and is not passed by'
);
select tests.be_owner();

-- ---- who may ----------------------------------------------------------------

select tests.sign_in('ann');
select is((select count(*) from billing.hook_events), 4::bigint, 'a member sees those of the account');
select throws_ok(
  $$ select billing_admin.next_hook_events() $$,
  'PT403', 'this needs a billing administrator',
  'reading all of them is for administrators and servers'
);
select throws_ok(
  $$ delete from billing.hook_events where fact = 'late' $$,
  '42501', 'permission denied for table hook_events',
  'nobody can take one back'
);
select tests.sign_in('bob');
select is_empty('select * from billing.hook_events', 'others see none');
select tests.be_owner();

-- ---- what never happened -----------------------------------------------------

select tests.set_time('2026-03-10');
select pg_temp.renewed(2);
savepoint refused;
select pg_temp.use(9);
rollback to refused;
select is((select count(*) from billing.hook_events), 4::bigint, 'what was rolled back is not told');

select * from finish();
rollback;
