-- billing_private.period_at(): period n is anchor + n intervals, so month ends never drift.
begin;
\ir ../helpers.psql
select plan(21);

create function tests.period(p_anchor timestamptz, p_interval interval, p_at timestamptz)
returns text
language sql as $$
  select period_start || ' to ' || period_end
  from billing_private.period_at(p_anchor, p_interval, p_at);
$$;

-- ---- the owner: the ends of months ------------------------------------------

select is(
  tests.period('2026-01-31', '1 month', '2026-02-01'),
  '2026-01-31 00:00:00+00 to 2026-02-28 00:00:00+00',
  '31 January leads to 28 February'
);
select is(
  tests.period('2026-01-31', '1 month', '2026-03-01'),
  '2026-02-28 00:00:00+00 to 2026-03-31 00:00:00+00',
  'and from there to 31 March'
);
select is(
  tests.period('2026-01-31', '1 month', '2026-04-15'),
  '2026-03-31 00:00:00+00 to 2026-04-30 00:00:00+00',
  'and to 30 April'
);
select is(
  tests.period('2024-01-31', '1 month', '2024-02-15'),
  '2024-01-31 00:00:00+00 to 2024-02-29 00:00:00+00',
  'in a leap year 31 January leads to 29 February'
);
select is(
  tests.period('2024-01-30', '1 month', '2024-03-15'),
  '2024-02-29 00:00:00+00 to 2024-03-30 00:00:00+00',
  '30 January leads to 29 February and 30 March'
);
select is(
  tests.period('2024-02-29', '1 year', '2025-06-01'),
  '2025-02-28 00:00:00+00 to 2026-02-28 00:00:00+00',
  'a leap day leads to 28 February'
);
select is(
  tests.period('2024-02-29', '1 year', '2028-02-28'),
  '2027-02-28 00:00:00+00 to 2028-02-29 00:00:00+00',
  'and back to the leap day'
);

-- ---- the owner: bounds ------------------------------------------------------

select is(
  tests.period('2026-01-31', '1 month', '2026-01-31'),
  '2026-01-31 00:00:00+00 to 2026-02-28 00:00:00+00',
  'the anchor is in the first period'
);
select is(
  tests.period('2026-01-31', '1 month', '2026-02-27 23:59:59.999999'),
  '2026-01-31 00:00:00+00 to 2026-02-28 00:00:00+00',
  'a period lasts to its last microsecond'
);
select is(
  tests.period('2026-01-31', '1 month', '2026-02-28'),
  '2026-02-28 00:00:00+00 to 2026-03-31 00:00:00+00',
  'its end belongs to the next'
);
select is(
  tests.period('2026-01-31', '1 month', '2025-06-01'),
  '2026-01-31 00:00:00+00 to 2026-02-28 00:00:00+00',
  'before the anchor there is no period: the first is still to come'
);

-- ---- the owner: other lengths -----------------------------------------------

select is(
  tests.period('2026-01-01 12:00', '1 day', '2026-03-10 13:00'),
  '2026-03-10 12:00:00+00 to 2026-03-11 12:00:00+00',
  'days'
);
select is(
  tests.period('2026-01-01', '14 days', '2026-01-20'),
  '2026-01-15 00:00:00+00 to 2026-01-29 00:00:00+00',
  'a fortnight'
);
select is(
  tests.period('2025-11-30', '3 months', '2026-03-01'),
  '2026-02-28 00:00:00+00 to 2026-05-30 00:00:00+00',
  'quarters'
);
select is(
  tests.period('2000-01-01', '1 day', '2026-01-15 12:00'),
  '2026-01-15 00:00:00+00 to 2026-01-16 00:00:00+00',
  'a quarter of a century of days'
);

-- ---- the owner: every day, four years of months -----------------------------

select is_empty(
  $$
    select anchor, n
    from generate_series('2023-01-01'::timestamptz, '2024-12-31', '1 day') as anchor
    cross join generate_series(0, 48) as n
    cross join lateral (
      select anchor + make_interval(months => n), anchor + make_interval(months => n + 1)
    ) as expected (period_start, period_end)
    cross join lateral billing_private.period_at(
      anchor, '1 month', expected.period_start) as first
    cross join lateral billing_private.period_at(
      anchor, '1 month', expected.period_end - interval '1 microsecond') as last
    where (first.period_start, first.period_end) <> (expected.period_start, expected.period_end)
      or (last.period_start, last.period_end) <> (expected.period_start, expected.period_end)
  $$,
  'from every day of two years, period n is anchor + n months, for four years'
);
select is_empty(
  $$
    select anchor, length, n
    from generate_series('2023-12-29'::timestamptz, '2024-03-02', '1 day') as anchor
    cross join unnest(array['1 day', '1 week', '3 months', '6 months', '1 year']::interval[])
      as length
    cross join generate_series(0, 60) as n
    cross join lateral billing_private.period_at(anchor, length, anchor + n * length) as period
    where (period.period_start, period.period_end)
      <> (anchor + n * length, anchor + (n + 1) * length)
  $$,
  'the same for days, weeks, quarters, half years and years'
);

-- ---- the owner: time zones --------------------------------------------------

set local timezone = 'America/New_York';
select is(
  (
    select period_end
    from billing_private.period_at('2026-01-31 02:00+00', '1 month', '2026-02-01 00:00+00')
  ),
  '2026-02-28 02:00+00'::timestamptz,
  'months are counted in UTC, whatever the time zone of the session'
);
set local timezone = 'Europe/Berlin';
select is(
  (
    select period_end
    from billing_private.period_at('2026-03-15 12:00+00', '1 month', '2026-03-20 00:00+00')
  ),
  '2026-04-15 12:00+00'::timestamptz,
  'and no clock is put forward or back'
);
set local timezone = 'UTC';

-- ---- the owner: a price's period --------------------------------------------

select results_eq(
  $$
    select billing_private.interval_of(unit, 3)
    from unnest(array['day', 'week', 'month', 'year', 'fortnight', null]) as unit
  $$,
  $$
    values ('3 days'::interval), ('21 days'), ('3 months'), ('3 years'), (null), (null)
  $$,
  'the period of a price; none where there is no such unit'
);

select is(
  tests.period('2026-01-31', null, '2026-03-01'), null,
  'a price without a period has none'
);

select * from finish();
rollback;
