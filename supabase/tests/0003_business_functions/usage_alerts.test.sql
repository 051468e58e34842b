-- Thresholds, told once per period; reports to Stripe's meters, once per record.
begin;
\ir usage.psql
select plan(17);

create function pg_temp.alerts() returns text
language sql as $$
  select coalesce(string_agg(percent || ' at ' || trim_scale(used), ', ' order by percent), '')
  from billing.usage_alerts
  where period_start = (pg_temp.total()).period_start;
$$;

-- ---- thresholds -------------------------------------------------------------

select pg_temp.use(7.9);
select is(pg_temp.alerts(), '', 'below 80 percent nothing is told');
select pg_temp.use(0.1);
select is(pg_temp.alerts(), '80 at 8', 'at 80 percent it is');
select pg_temp.use(1);
select is(pg_temp.alerts(), '80 at 8', 'once');
select pg_temp.use(1);
select is(pg_temp.alerts(), '80 at 8, 100 at 10', 'and again when all is used');
select billing_private.apply_correction(md5('ann')::uuid, idempotency_key, 0, 'test')
from billing.usage_records where quantity = 7.9;
select pg_temp.use(6);
select is(pg_temp.alerts(), '80 at 8, 100 at 10', 'reached a second time it is not told again');
select tests.set_time('2026-02-10');
select pg_temp.renewed(1);
select pg_temp.use(10);
select is(pg_temp.alerts(), '80 at 10, 100 at 10', 'the next period begins anew; several at once are several');
update billing.features set alert_percents = '{50,120}' where key = 'exports';
select tests.set_time('2026-03-10');
select pg_temp.renewed(2);
select billing.record_usage('exports', 6, md5('ann')::uuid);
select is(pg_temp.alerts(), '50 at 6', 'thresholds are the feature''s; what is recorded reaches them, too');
select billing.record_usage('exports', 6, md5('ann')::uuid);
select is(pg_temp.alerts(), '50 at 6, 120 at 12', 'those beyond the limit included');

-- ---- Stripe's meters --------------------------------------------------------

update billing.features set stripe_event_name = 'exports_used' where key = 'exports';
select tests.set_time('2026-04-10');
select pg_temp.renewed(3);
create function pg_temp.reports() returns table (value text, at bigint, identifier text)
language sql as $$
  select
    params -> 'payload' ->> 'value', (params ->> 'timestamp')::bigint, params ->> 'identifier'
  from billing_private.commands
  where kind = 'meter_event'
  order by position;
$$;

select pg_temp.use(3);
select results_eq(
  $$ select value, at from pg_temp.reports() $$,
  $$ values ('3', extract(epoch from timestamptz '2026-04-10')::bigint) $$,
  'what is consumed is reported'
);
select is(
  (select identifier from pg_temp.reports()),
  (select id::text from billing.usage_records order by recorded_at desc limit 1),
  'under the record''s id'
);
select pg_temp.use(30);
select is((select count(*) from pg_temp.reports()), 1::bigint, 'what is refused is not');
select billing.record_usage('exports', 2, md5('ann')::uuid, 'r-1', '2026-04-09'),
  billing.record_usage('exports', 2, md5('ann')::uuid, 'r-1', '2026-04-09');
select is((select count(*) from pg_temp.reports()), 2::bigint, 'a key is reported once');
select is(
  (select at from pg_temp.reports() where value = '2'),
  extract(epoch from timestamptz '2026-04-09')::bigint,
  'of when it happened'
);
select billing.record_usage('exports', 5, md5('ann')::uuid, 'old', '2026-03-06 00:00');
select results_eq(
  $$
    select status, last_error -> 'error' ->> 'code'
    from billing_private.commands
    where params -> 'payload' ->> 'value' = '5'
  $$,
  $$ values ('pending', null::text) $$,
  'Stripe takes what is 35 days old'
);
select billing.record_usage('exports', 6, md5('ann')::uuid, 'older', '2026-03-05 23:59:59');
select results_eq(
  $$
    select status, last_error -> 'error' ->> 'code'
    from billing_private.commands
    where params -> 'payload' ->> 'value' = '6'
  $$,
  $$ values ('dead', 'timestamp_out_of_range') $$,
  'what is older stands in the backlog, not lost from sight'
);
insert into billing.accounts (id) values (md5('bob')::uuid);
select billing.record_usage('exports', 1, md5('bob')::uuid);
select is(
  (select used from billing.usage_totals where account_id = md5('bob')::uuid), 1::numeric,
  'whom Stripe does not know, uses all the same'
);
select is((select count(*) from pg_temp.reports()), 4::bigint, 'without a report');

select * from finish();
rollback;
