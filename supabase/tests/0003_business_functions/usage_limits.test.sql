-- What a period allows: hard and soft limits, leftovers, prepaid units, plans that change.
begin;
\ir usage.psql
select plan(48);

-- ---- periods ----------------------------------------------------------------

select ok(pg_temp.use(10), 'a period allows what the plan includes');
select ok(not pg_temp.use(1), 'and no more');
select tests.set_time('2026-02-09 23:59:59');
select ok(not pg_temp.use(1), 'until its last second');
select tests.set_time('2026-02-10');
select pg_temp.renewed(1);
select ok(pg_temp.use(10), 'the next one begins at the anchor');
select is(
  (pg_temp.total()).period_end, timestamptz '2026-03-10', 'and lasts until the next'
);
select results_eq(
  $$
    select * from billing_private.usage_period('2026-01-31', '1 month', '2026-03-30')
    union all
    select * from billing_private.usage_period('2026-01-31', '1 month', '2026-03-31')
  $$,
  $$
    values (timestamptz '2026-02-28', timestamptz '2026-03-31'),
      ('2026-03-31', '2026-04-30')
  $$,
  'G18: month ends do not drift'
);
select results_eq(
  $$
    select * from billing_private.usage_period('2026-03-31', '1 month', '2026-03-30 23:00')
    union all
    select * from billing_private.usage_period('2026-03-31', '1 month', '2026-02-27')
  $$,
  $$
    values (timestamptz '2026-02-28', timestamptz '2026-03-31'),
      ('2026-01-31', '2026-02-28')
  $$,
  'before the anchor, in a trial, periods are counted back from it'
);

-- ---- resets of their own ----------------------------------------------------

select pg_temp.terms($$ resets_every = '1 day' $$);
select tests.set_time('2026-02-12');
select ok(pg_temp.use(10) and not pg_temp.use(1), 'a feature may reset every day');
select tests.set_time('2026-02-13');
select ok(pg_temp.use(10), 'whatever the price''s interval is');
select pg_temp.terms('resets_every = null');

-- ---- soft limits ------------------------------------------------------------

select tests.set_time('2026-03-10');
select pg_temp.renewed(2);
select pg_temp.terms($$ overage = 'allow', overage_limit = 5 $$);
select ok(pg_temp.use(12), 'a soft limit lets pass what is beyond it');
select is((pg_temp.summary()).overage, 2::numeric, 'and counts it');
select ok(not pg_temp.use(4), 'up to its own limit');
select ok(pg_temp.use(3), 'which is included');
select pg_temp.terms('overage_limit = null');
select ok(pg_temp.use(1000), 'or without one');
select pg_temp.terms($$ overage = 'refuse' $$);

-- ---- leftovers --------------------------------------------------------------

select pg_temp.terms('rollover_cap = 6, rollover_floor = 2');
select tests.set_time('2026-04-10');
select pg_temp.renewed(3);
select is((pg_temp.summary()).rollover, 2::numeric, 'where nothing is left, the floor is');
select ok(pg_temp.use(8), 'in april eight are used');
select tests.set_time('2026-05-10');
select pg_temp.renewed(4);
select ok(pg_temp.use(1), 'in may one');
select is((pg_temp.total()).rollover, 4::numeric, 'what was left, rolls over');
select ok(
  (select closed_at is not null and included = 10
   from billing.usage_totals where period_start = '2026-04-10'),
  'which closes the period it came from'
);
select tests.set_time('2026-06-10');
select pg_temp.renewed(5);
select ok(pg_temp.use(16) and not pg_temp.use(1), 'up to the cap');
select is((pg_temp.total()).rollover, 6::numeric, 'which is six');
select tests.set_time('2026-07-10');
select pg_temp.renewed(6);
select tests.set_time('2026-08-10');
select pg_temp.renewed(7);
select tests.set_time('2026-09-10');
select pg_temp.renewed(8);
select is((pg_temp.summary()).rollover, 6::numeric, 'months without any use fill it up again');
select ok(pg_temp.use(16) and not pg_temp.use(1), 'and can be used');
select pg_temp.terms('rollover_cap = 0, rollover_floor = 0');

-- ---- prepaid units ----------------------------------------------------------

select tests.set_time('2026-10-10');
select pg_temp.renewed(9);
select pg_temp.grant('a', 5);
select pg_temp.grant('b', 5);
select pg_temp.grant('c', 5, 100, '2026-10-20');
select pg_temp.grant('d', 5, 50);
select ok(pg_temp.use(10), 'the period''s own units are used first');
select is(pg_temp.burnt(), 'a 0, b 0, c 0, d 0', 'and leave the prepaid ones alone');
select ok(pg_temp.use(6), 'then prepaid ones');
select is(pg_temp.burnt(), 'a 0, b 0, c 1, d 5', 'by priority, then by end');
select ok(pg_temp.use(5), 'then');
select is(pg_temp.burnt(), 'a 1, b 0, c 5, d 5', 'by age');
select ok(not pg_temp.use(9.5), 'more than all of them is refused');
select is(pg_temp.burnt(), 'a 1, b 0, c 5, d 5', 'and takes none');
select tests.set_time('2026-11-10');
select pg_temp.renewed(10);
select is((pg_temp.summary()).prepaid_left, 9::numeric, 'a reset takes no prepaid unit away');
select ok(pg_temp.use(19) and not pg_temp.use(1), 'they are there when they are needed');
select is(
  (select sum(quantity) from billing.usage_burns), 20::numeric,
  'which period they paid for is noted'
);

-- ---- a plan that changes: keep ----------------------------------------------

select tests.set_time('2026-12-10');
select pg_temp.renewed(11);
select ok(pg_temp.use(3), 'three of ten');
select tests.set_time('2026-12-25 12:00');
select pg_temp.renewed(11, 'price_basic_monthly');
select ok(pg_temp.use(7), 'keep: a smaller plan takes nothing from the running period');
select ok(not pg_temp.use(1), 'nor adds to it');
select tests.set_time('2027-01-10');
select pg_temp.renewed(12, 'price_basic_monthly');
select ok(pg_temp.use(4) and not pg_temp.use(1), 'the next one is the smaller plan''s');
select tests.set_time('2027-01-11');
select pg_temp.renewed(12, 'price_plus_monthly');
select ok(pg_temp.use(6) and not pg_temp.use(1), 'a bigger plan counts at once, and what was used stays');

-- ---- a plan that changes: scale ---------------------------------------------

select pg_temp.terms($$ on_plan_change = 'scale' $$);
select tests.set_time('2027-02-10');
select pg_temp.renewed(13, 'price_plus_monthly');
select tests.set_time('2027-02-24');
select pg_temp.renewed(13, 'price_basic_monthly');
select is((pg_temp.summary()).included, 7::numeric, 'scale: half of ten and half of four');
select ok(pg_temp.use(7) and not pg_temp.use(1), 'and not more');
select tests.set_time('2027-03-03');
select pg_temp.renewed(13, 'price_plus_monthly');
select is(
  (pg_temp.summary()).included, 9::numeric,
  'again bigger for the last quarter: five, one and two and a half, rounded up'
);
select ok(pg_temp.use(2) and not pg_temp.use(1), 'two more');

-- ---- gifts ------------------------------------------------------------------

select pg_temp.terms($$ on_plan_change = 'keep' $$);
insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
values (md5('ann')::uuid, 'exports', 50, '2027-03-03', 'sorry');
select ok(pg_temp.use(41) and not pg_temp.use(1), 'a gift raises the limit');
select is(
  (pg_temp.total()).period_start, timestamptz '2027-02-10', 'and leaves the period the subscription''s'
);

-- ---- terms of one and of many ------------------------------------------------

create function pg_temp.asked() returns table (
  account_id uuid, feature_key text, at timestamptz
)
language sql as $$
  select md5('ann')::uuid, features.key, at
  from billing.features
  cross join unnest(array[
    timestamptz '2026-01-01', '2026-02-09', '2027-02-09', '2027-03-03', '2029-01-01']) as at;
$$;

insert into billing.features (key, name, kind) values ('reads', 'Reads', 'metered');
select set_eq(
  $$
    select asked.feature_key, asked.at, to_jsonb(terms)
    from pg_temp.asked() as asked
    cross join lateral billing_private.usage_terms(
      asked.account_id, asked.feature_key, asked.at) as terms
  $$,
  $$
    select asked.feature_key, asked.at, to_jsonb(terms)
    from pg_temp.asked() as asked
    cross join lateral billing_private.usage_terms_of(
      array[asked.account_id], array[asked.feature_key], array[asked.at]) as terms
  $$,
  'the terms of one are what they are among many'
);

-- ---- before the first use of a period ---------------------------------------

select pg_temp.terms('rollover_cap = 20');
insert into billing.usage_grants (account_id, feature_key, quantity, valid_from, valid_until, reason)
values (md5('ann')::uuid, 'exports', 5, '2027-03-03', 'infinity', 'bought');
select tests.set_time('2027-04-10');
select pg_temp.renewed(15, 'price_plus_monthly');
create temporary table unused as select * from (select (pg_temp.summary()).*) as summary;
select pg_temp.use(1);
select results_eq(
  $$
    select
      period_start, period_end, included, rollover, prepaid_used, prepaid_left, remaining, overage
    from unused
  $$,
  $$
    select
      period_start, period_end, included, rollover, prepaid_used, prepaid_left, remaining + used,
      overage
    from (select (pg_temp.summary()).*) as summary
  $$,
  'what a period allows is told before its first use as after it'
);
select ok(
  (select rollover > 0 and prepaid_left > 0 from unused), 'leftovers and prepaid units are in it'
);

select * from finish();
rollback;
