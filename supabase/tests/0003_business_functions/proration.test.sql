-- Proration to the second, and anchors that never drift.
begin;
\ir ../helpers.psql
select plan(17);

-- ---- the arithmetic ---------------------------------------------------------

create function tests.prorate(p_amount bigint, p_at timestamptz) returns bigint
language sql as $$
  select billing_private.prorate(p_amount, '2026-04-01', '2026-05-01', p_at);
$$;

select is(tests.prorate(1000, '2026-04-16'), 500::bigint,
  'half of a month of 10.00 is 5.00 (Stripe''s example of a change from 10 to 20)');
select is(tests.prorate(2000, '2026-04-16'), 1000::bigint, 'and half of 20.00 is 10.00');
select results_eq(
  $$
    select
      -billing_private.prorate(1000, start, start + interval '2592000 seconds', at),
      billing_private.prorate(2000, start, start + interval '2592000 seconds', at)
    from (select timestamptz '2026-04-01' as start) as periods
    cross join lateral (
      select start + interval '1 second' * (2592000 - 1357432) as at
    ) as change
  $$,
  $$ values (-524::bigint, 1047::bigint) $$,
  'with 0.5237010030864198 of 30 days left, credit and debit are rounded each for itself'
);
select is(tests.prorate(1000, '2026-04-01'), 1000::bigint, 'at its start a period is whole');
select is(tests.prorate(1000, '2026-05-01'), 0::bigint, 'at its end nothing is left of it');
select is(tests.prorate(1000, '2026-03-31'), 1000::bigint, 'before it there is no more of it');
select is(tests.prorate(1000, '2026-05-02'), 0::bigint, 'and after it no less');
select is(tests.prorate(2592000, '2026-04-30 23:59:59'), 1::bigint, 'the last second counts');
select is(tests.prorate(0, '2026-04-16'), 0::bigint, 'nothing is nothing');
select is(
  tests.prorate(9000000000000000, '2026-04-16'), 4500000000000000::bigint,
  'D15: large amounts stay exact'
);
select is(
  billing_private.prorate(3100, '2026-03-01 05:00+00', '2026-04-01 04:00+00',
    '2026-03-31 04:00+00'),
  round(3100 * 24.0 / (31 * 24 - 1))::bigint,
  'G18: a month with a short day is as long as it is'
);
select is_empty(
  $$
    select at
    from (
      select at, tests.prorate(999, at) as part, lag(tests.prorate(999, at)) over (order by at) as before
      from generate_series(timestamptz '2026-04-01', '2026-05-01', '7 hours 13 minutes') as at
    ) as parts
    where part > before
  $$,
  'less time is never more money'
);

-- ---- anchors ----------------------------------------------------------------

-- Every day of the month, 29 February and the ends of days, for four years of each interval.
create table tests.anchors as
select anchor
from generate_series(timestamp '2023-12-31 23:59:59', '2024-03-31', '1 day') as anchor
union
select '2024-02-29 00:00:00'
union
select '2024-03-31 02:30:00';

create function tests.drifting(p_interval interval, p_periods integer) returns bigint
language sql stable as $$
  select count(*)
  from tests.anchors
  cross join generate_series(0, p_periods - 1) as number
  cross join lateral (
    select
      (anchor + number * p_interval) at time zone 'UTC' as wanted_start,
      (anchor + (number + 1) * p_interval) at time zone 'UTC' as wanted_end
  ) as wanted
  cross join lateral (values (wanted_start), (wanted_end - interval '1 second')) as instants (at)
  cross join lateral billing_private.period_at(anchor at time zone 'UTC', p_interval, at) as period
  where (period.period_start, period.period_end) is distinct from (wanted_start, wanted_end);
$$;

create function tests.drifting_anywhere() returns bigint
language plpgsql as $$
declare
  v_zone text;
  v_sum bigint := 0;
begin
  foreach v_zone in array array[
    'UTC', 'America/New_York', 'Europe/Berlin', 'Asia/Kolkata', 'Pacific/Apia', 'Australia/Lord_Howe',
    'America/St_Johns', 'Pacific/Kiritimati'
  ] loop
    perform set_config('timezone', v_zone, true);
    v_sum := v_sum + tests.drifting('1 month', 48) + tests.drifting('3 months', 16)
      + tests.drifting('1 year', 8) + tests.drifting('1 week', 60) + tests.drifting('1 day', 60);
  end loop;
  perform set_config('timezone', 'UTC', true);
  return v_sum;
end;
$$;

select is(
  tests.drifting_anywhere(), 0::bigint,
  'G18: from every day of a month, period n is the anchor and n intervals, in every time zone'
);
select results_eq(
  $$
    select (billing_private.period_at('2024-01-31 12:00+00', '1 month',
      timestamptz '2024-01-31 12:00+00' + number * interval '31 days')).period_start
    from generate_series(0, 5) as number
  $$,
  $$
    values ('2024-01-31 12:00+00'::timestamptz), ('2024-02-29 12:00+00'), ('2024-03-31 12:00+00'),
      ('2024-04-30 12:00+00'), ('2024-05-31 12:00+00'), ('2024-06-30 12:00+00')
  $$,
  'G18: 31 January leads to 29 February and back to 31 March'
);
select is(
  (billing_private.period_at('2024-02-29 00:00+00', '1 year', '2028-02-29 00:00+00')).period_start,
  '2028-02-29 00:00+00'::timestamptz, 'G18: 29 February comes back every four years'
);
select is(
  (billing_private.period_at('2024-02-29 00:00+00', '1 year', '2025-02-28 00:00+00')).period_start,
  '2025-02-28 00:00+00'::timestamptz, 'G18: and is 28 February in between'
);
select is(
  (billing_private.period_at('2024-01-31 00:00+00', '1 month', '2023-01-01 00:00+00')).period_start,
  '2024-01-31 00:00+00'::timestamptz, 'before the anchor there is no period but the first'
);

select * from finish();
rollback;
