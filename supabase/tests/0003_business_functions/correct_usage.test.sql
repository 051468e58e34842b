-- Corrections, late records, closed periods: totals follow, what is closed is not rewritten.
begin;
\ir usage.psql
select plan(26);

insert into billing.features (key, name, kind, aggregation) values
  ('calls', 'Calls', 'metered', 'count'),
  ('peak', 'Peak', 'metered', 'max'),
  ('readers', 'Readers', 'metered', 'unique'),
  ('storage', 'Storage', 'metered', 'latest');

create function pg_temp.record(
  p_feature text,
  p_key text,
  p_quantity numeric,
  p_unique text default null,
  p_at timestamptz default null
) returns void
language plpgsql as $$
begin
  perform tests.be_service();
  perform billing.record_usage(p_feature, p_quantity, md5('ann')::uuid, p_key, p_at, p_unique);
  perform tests.be_owner();
end;
$$;
create function pg_temp.correct(p_key text, p_quantity numeric) returns boolean
language sql as $$
  select is_repeated from billing_admin.correct_usage(md5('ann')::uuid, p_key, p_quantity, 'a typo');
$$;
create function pg_temp.used(p_feature text) returns numeric
language sql as $$
  select used from billing.usage_totals where feature_key = p_feature order by period_start desc limit 1;
$$;

-- ---- a running period -------------------------------------------------------

select pg_temp.record('exports', 'e-1', 8), pg_temp.record('exports', 'e-2', 1);
select is(pg_temp.correct('e-1', 5), false, 'a record may count as less');
select is(pg_temp.used('exports'), 6::numeric, 'sum: the total follows');
select is(pg_temp.correct('e-1', 5), true, 'twice: once');
select is(pg_temp.used('exports'), 6::numeric, 'and counts once');
select pg_temp.correct('e-1', 0);
select is(pg_temp.used('exports'), 1::numeric, 'none at all takes it back');
select pg_temp.correct('e-1', 8);
select is(pg_temp.used('exports'), 9::numeric, 'and it may come back');
select is(
  (select quantity from billing.usage_records where idempotency_key = 'e-1'), 8::numeric,
  'the record itself is never touched'
);
select is(
  (select sum(quantity) from billing.usage_records where feature_key = 'exports'), 9::numeric,
  'all records together are the total'
);
select pg_temp.record('calls', 'c-1', 1), pg_temp.record('calls', 'c-2', 1), pg_temp.correct('c-1', 0);
select is(pg_temp.used('calls'), 1::numeric, 'count: one less');
select pg_temp.record('peak', 'p-1', 9), pg_temp.record('peak', 'p-2', 4), pg_temp.correct('p-1', 2);
select is(pg_temp.used('peak'), 4::numeric, 'max: the next highest');
select pg_temp.record('readers', 'r-1', 1, 'dan'), pg_temp.record('readers', 'r-2', 1, 'dan'),
  pg_temp.record('readers', 'r-3', 1, 'eve'), pg_temp.correct('r-1', 0);
select is(pg_temp.used('readers'), 2::numeric, 'unique: the value was seen twice');
select pg_temp.correct('r-2', 0);
select is(pg_temp.used('readers'), 1::numeric, 'until neither counts');
select pg_temp.record('storage', 's-1', 5), pg_temp.record('storage', 's-2', 7, null, '2026-01-10 00:01'),
  pg_temp.correct('s-2', 6);
select is(pg_temp.used('storage'), 6::numeric, 'latest: as corrected');

-- ---- prepaid units ----------------------------------------------------------

select pg_temp.grant('a', 5), pg_temp.grant('b', 5, 200);
select pg_temp.record('exports', 'e-3', 8);
select is(pg_temp.burnt(), 'a 5, b 2', 'what is recorded beyond the limit, prepaid units pay for');
select pg_temp.correct('e-3', 4);
select is(pg_temp.burnt(), 'a 3, b 0', 'those not needed go back, the last taken first');
select is((pg_temp.total()).prepaid, 3::numeric, 'and the period knows');

-- ---- a closed period --------------------------------------------------------

select tests.set_time('2026-02-12 23:59');
select billing_private.close_usage_periods(100);
select is((select count(*) from billing.usage_totals where closed_at is not null), 0::bigint,
  'a period stays open for three days after its end');
select pg_temp.record('exports', 'late-1', 2, p_at => '2026-02-09');
select is(
  (select used from billing.usage_totals where feature_key = 'exports' and period_start = '2026-01-10'),
  15::numeric,
  'what is heard of in that time is counted in it'
);
select tests.set_time('2026-02-13');
select billing_private.task_tend_usage();
select is((select count(*) from billing.usage_totals where closed_at is null), 0::bigint,
  'then it is closed');
select pg_temp.record('exports', 'late-2', 4, p_at => '2026-02-09');
select pg_temp.correct('e-1', 7);
select is(
  (select used from billing.usage_totals where feature_key = 'exports' and period_start = '2026-01-10'),
  15::numeric,
  'and never rewritten'
);
select results_eq(
  $$ select kind, quantity, idempotency_key, reason from billing.usage_adjustments order by kind desc $$,
  $$ values ('late', 4::numeric, 'late-2', null), ('correction', -1, 'e-1', 'a typo') $$,
  'what is heard of later are adjustments'
);
select pg_temp.record('exports', 'late-2', 4, p_at => '2026-02-09');
select is((select count(*) from billing.usage_adjustments), 2::bigint, 'twice: once');

-- ---- who may ----------------------------------------------------------------

select throws_ok(
  $$ select pg_temp.correct('never', 1) $$,
  'PT404', 'the account has no usage with this key',
  'what was never recorded is not corrected'
);
select throws_ok(
  $$ select pg_temp.correct('e-1', -1) $$,
  'PT400', 'the request is not valid',
  'nor to less than nothing'
);
select throws_ok(
  $$ select billing_admin.correct_usage(md5('ann')::uuid, 'e-1', 1, ' ') $$,
  'PT400', 'the request is not valid',
  'nor without a reason'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.correct_usage(md5('ann')::uuid, 'e-1', 1, 'cheap') $$,
  'PT403', 'this needs a billing administrator',
  'nor by a member'
);

select * from finish();
rollback;
