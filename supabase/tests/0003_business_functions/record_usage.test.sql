-- billing.record_usage() and record_usage_batch(): what counts, once, in which period, how.
begin;
\ir ../helpers.psql
select plan(40);

select tests.catalog();
insert into billing.features (key, name, kind, aggregation) values
  ('exports', 'Exports', 'metered', 'sum'),
  ('calls', 'Calls', 'metered', 'count'),
  ('peak', 'Peak', 'metered', 'max'),
  ('readers', 'Readers', 'metered', 'unique'),
  ('storage', 'Storage', 'metered', 'latest');
insert into billing.plan_features (plan_id, feature_key, limit_value)
select md5('plus')::uuid, key, 10
from billing.features
where kind = 'metered';
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann', 'active', '2026-01-10', p_extra => '{}');
select tests.account('bob');
update billing.accounts set created_at = '2025-12-31 18:00' where id = md5('bob')::uuid;
select tests.set_time('2026-01-20');

create function pg_temp.used(p_feature text, p_name text default 'ann') returns numeric
language sql as $$
  select used
  from billing.usage_totals
  where account_id = md5(p_name)::uuid
    and feature_key = p_feature
    and period_start <= current_setting('tests.now')::timestamptz
  order by period_start desc
  limit 1;
$$;
create function pg_temp.record(
  p_feature text,
  p_quantity numeric default 1,
  p_at timestamptz default null,
  p_unique text default null,
  p_key text default null,
  p_name text default 'ann'
) returns billing.recorded_usage
language plpgsql as $$
declare
  v_recorded billing.recorded_usage;
begin
  perform tests.be_service();
  select * into v_recorded
  from billing.record_usage(
    p_feature, p_quantity, md5(p_name)::uuid, p_key, p_at, p_unique);
  perform tests.be_owner();
  return v_recorded;
end;
$$;

-- ---- what counts ------------------------------------------------------------

select pg_temp.record('exports', 4), pg_temp.record('exports', 0.5);
select is(pg_temp.used('exports'), 4.5, 'sum: quantities are added');
select pg_temp.record('calls', 4), pg_temp.record('calls', 3);
select is(pg_temp.used('calls'), 2::numeric, 'count: each record is one');
select pg_temp.record('peak', 4), pg_temp.record('peak', 7), pg_temp.record('peak', 2);
select is(pg_temp.used('peak'), 7::numeric, 'max: the highest stays');
select pg_temp.record('readers', 1, p_unique => reader)
from unnest(array['dan', 'eve', 'dan', 'DAN']) as reader;
select is(pg_temp.used('readers'), 3::numeric, 'unique: each value is one');
select pg_temp.record('storage', 4, '2026-01-19'), pg_temp.record('storage', 9, '2026-01-18');
select is(pg_temp.used('storage'), 4::numeric, 'latest: the latest to happen, not to be heard of');
select pg_temp.record('storage', 3, '2026-01-19');
select is(pg_temp.used('storage'), 3::numeric, 'of two of one instant, the one heard of later');
select pg_temp.record('exports', 100);
select is(pg_temp.used('exports'), 104.5, 'what has happened counts, whatever the limit');

-- ---- in which period --------------------------------------------------------

select is(
  (pg_temp.record('calls', 1)).period_start, timestamptz '2026-01-10',
  'the period is the subscription''s'
);
select is(
  (pg_temp.record('calls', 1, '2026-01-10')).period_start, timestamptz '2026-01-10',
  'its beginning belongs to it'
);
select is(
  (pg_temp.record('calls', 1, '2026-01-09 23:59:59.999')).period_start,
  timestamptz '2025-12-10',
  'the instant before to the one before'
);
select is(
  (select used from billing.usage_totals
   where feature_key = 'calls' and period_start = '2025-12-10'),
  1::numeric,
  'what is heard of late counts in the period it happened in'
);
select is(
  (pg_temp.record('calls', 1, p_name => 'bob')).period_start, timestamptz '2025-12-31 18:00',
  'without a subscription periods are months since the account was made'
);
select tests.set_time('2026-03-01');
select is(
  (pg_temp.record('calls', 1, p_name => 'bob')).period_start, timestamptz '2026-02-28 18:00',
  'and month ends do not drift'
);
select tests.set_time('2026-01-20');

-- ---- once -------------------------------------------------------------------

select results_eq(
  $$ select (recorded).is_repeated, (recorded).quantity
     from pg_temp.record('exports', 5, p_key => 'e-1') as recorded $$,
  $$ values (false, 5::numeric) $$,
  'a key that is new is recorded'
);
select results_eq(
  $$ select (recorded).is_repeated, (recorded).quantity
     from pg_temp.record('exports', 6, p_key => 'e-1') as recorded $$,
  $$ values (true, 5::numeric) $$,
  'again, it is answered with what was recorded first'
);
select is(pg_temp.used('exports'), 109.5, 'and counts nothing');
select is(
  (pg_temp.record('exports', 5, p_key => 'e-1', p_at => '2026-01-01')).is_repeated, true,
  'whatever the time stamp says'
);
select is(
  (pg_temp.record('exports', 5, p_key => 'e-1', p_name => 'bob')).is_repeated, false,
  'another account''s keys are its own'
);
select tests.set_time('2026-02-28 23:59');
select is(
  (pg_temp.record('exports', 5, p_key => 'e-1')).is_repeated, true,
  'next month it is known'
);
select tests.set_time('2026-03-31 23:59');
select is(
  (pg_temp.record('exports', 5, p_key => 'e-1')).is_repeated, true,
  'and the month after'
);
select tests.set_time('2026-01-20');

-- ---- many -------------------------------------------------------------------

select tests.be_service();
select results_eq(
  $$
    select feature_key, idempotency_key, quantity, is_repeated
    from billing.record_usage_batch(jsonb_build_array(
      jsonb_build_object('account_id', md5('ann')::uuid, 'feature', 'exports', 'quantity', 2,
        'idempotency_key', 'b-1'),
      jsonb_build_object('account_id', md5('ann')::uuid, 'feature', 'calls',
        'idempotency_key', 'b-2'),
      jsonb_build_object('account_id', md5('ann')::uuid, 'feature', 'exports', 'quantity', 3,
        'idempotency_key', 'b-1'),
      jsonb_build_object('account_id', md5('ann')::uuid, 'feature', 'exports', 'quantity', 7,
        'idempotency_key', 'e-1')))
  $$,
  $$
    values ('exports', 'b-1', 2::numeric, false), ('calls', 'b-2', 1, false),
      ('exports', 'b-1', 2, true), ('exports', 'e-1', 5, true)
  $$,
  'a batch answers each record in its place, repeated ones as the first time'
);
select is(
  (select count(*) from billing.record_usage_batch((
    select jsonb_agg(jsonb_build_object('account_id', md5('bob')::uuid, 'feature', 'exports'))
    from generate_series(1, 1000)))),
  1000::bigint,
  'a thousand without keys are a thousand'
);
select is(pg_temp.used('exports', 'bob'), 1005::numeric, 'and count as many');
select throws_ok(
  $$
    select billing.record_usage_batch(jsonb_build_array(
      jsonb_build_object('account_id', md5('ann')::uuid, 'feature', 'exports'),
      jsonb_build_object('account_id', md5('ann')::uuid, 'feature', 'exprots')))
  $$,
  'PT404', 'there is no such feature',
  'one that cannot be recorded'
);
select is(pg_temp.used('exports'), 111.5, 'stops all of its batch');
select throws_ok(
  $$ select billing.record_usage_batch('{}') $$,
  'PT400', 'the request is not valid',
  'a batch is a list'
);
select is_empty(
  $$ select billing.record_usage_batch('[]') $$,
  'which may be empty'
);
create function pg_temp.refused_record(p_records jsonb)
returns text
language plpgsql
as $$
declare
  v_details text;
begin
  perform billing.record_usage_batch(p_records);
  return null;
exception when sqlstate 'PT400' then
  get stacked diagnostics v_details = pg_exception_detail;
  return (v_details::jsonb ->> 'record') || ' ' || (v_details::jsonb ->> 'problem');
end;
$$;
select is(
  pg_temp.refused_record('[{"feature": "exports"}, 2]'), '2 must be an object',
  'of objects'
);
select is(
  pg_temp.refused_record('[{}, {"quantity": "many"}]'),
  '2 invalid input syntax for type numeric: "many"', 'whose quantities are numbers,'
);
select is(
  pg_temp.refused_record('[{"account_id": "ann"}]'),
  '1 invalid input syntax for type uuid: "ann"', 'whose accounts are ids,'
);
select is(
  pg_temp.refused_record('[{"at": "noon-ish"}]'),
  '1 invalid input syntax for type timestamp with time zone: "noon-ish"', 'and whose times are times'
);

-- ---- what is refused --------------------------------------------------------

select throws_ok(
  $$ select billing.record_usage('exports', -1, md5('ann')::uuid) $$,
  'PT400', 'the request is not valid',
  'less than nothing is not used'
);
select throws_ok(
  $$ select billing.record_usage('exports', 1, md5('ann')::uuid, at => '2026-01-20 00:05:01') $$,
  'PT400', 'the request is not valid',
  'nothing is used in more than five minutes'
);
select throws_ok(
  $$ select billing.record_usage('exports', 1, md5('ann')::uuid, at => '-infinity') $$,
  'PT400', 'the request is not valid',
  'nor was anything since ever'
);
select throws_ok(
  $$ select billing.record_usage('readers', 1, md5('ann')::uuid) $$,
  'PT400', 'the request is not valid',
  'where unique values count, one is given'
);
select throws_ok(
  $$ select billing.record_usage('clubs', 1, md5('ann')::uuid) $$,
  'PT400', 'the request is not valid',
  'what is held is consumed and released, not recorded'
);
select throws_ok(
  $$ select billing.record_usage('exports', 1, md5('nobody')::uuid) $$,
  'PT404', 'there is no such account',
  'the account exists'
);
select throws_ok(
  $$ select billing.record_usage('exports', 1) $$,
  'PT400', 'the request is not valid',
  'and is named'
);

-- ---- who may ----------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.record_usage('exports', 1) $$,
  '42501', 'permission denied for function record_usage',
  'members report nothing, neither less nor more'
);
select throws_ok(
  $$ select billing.record_usage_batch('[]') $$,
  '42501', 'permission denied for function record_usage_batch',
  'nor in batches'
);

select * from finish();
rollback;
