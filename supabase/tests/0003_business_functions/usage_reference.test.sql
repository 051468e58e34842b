-- Totals are what a slow, obvious reference makes of the same records: late ones, repeated ones,
-- corrected ones, before and after their periods are closed.
begin;
\ir ../helpers.psql
select plan(5);

insert into billing.features (key, name, kind, aggregation)
select aggregation || '_feature', aggregation, 'metered', aggregation
from unnest(array['sum', 'count', 'max', 'unique', 'latest']) as aggregation;
select tests.set_time('2026-01-01');
insert into billing.accounts (id) values (md5('ann')::uuid);

-- What was told, in the order it was told in.
create temporary table told (
  place integer,
  feature_key text,
  key text,
  quantity numeric,
  unique_value text,
  occurred_at timestamptz,
  corrects text
);

create function pg_temp.live(p_steps integer) returns void
language plpgsql as $$
declare
  v_at timestamptz;
  v_feature text;
  v_key text;
  v_first told;
begin
  for v_step in 1..p_steps loop
    perform tests.set_time(timestamptz '2026-03-01' + v_step * interval '3 hours 7 minutes');
    v_feature := (array['sum', 'count', 'max', 'unique', 'latest'])[1 + floor(random() * 5)]
      || '_feature';
    if random() < 0.2 then
      select * into v_first
      from told
      where corrects is null and feature_key = v_feature
      order by random()
      limit 1;
      continue when not found;
      insert into told
      values (v_step, v_feature, null, floor(random() * 4), null, null, v_first.key)
      returning * into v_first;
      perform billing_private.apply_correction(
        md5('ann')::uuid, v_first.corrects, v_first.quantity, 'test');
    elsif random() < 0.1 then
      -- Told again, and wrong: the first time counts.
      select key into v_key from told where corrects is null order by random() limit 1;
      continue when not found;
      perform billing.record_usage(v_feature, 99, md5('ann')::uuid, v_key, null, 'again');
    else
      v_at := billing_private.now() - random() * random() * interval '60 days';
      insert into told
      values (
        v_step, v_feature, 'k' || v_step, floor(random() * 6), 'v' || floor(random() * 9), v_at, null
      );
      perform billing.record_usage(
        v_feature, quantity, md5('ann')::uuid, key, occurred_at, unique_value)
      from told
      where place = v_step;
    end if;
    if random() < 0.05 then
      perform billing_private.task_tend_usage();
    end if;
  end loop;
end;
$$;

-- As a person would count: record by record, each as it was told last.
create function pg_temp.expected(p_feature text, p_month timestamptz) returns numeric
language plpgsql as $$
declare
  v_told told;
  v_quantity numeric;
  v_sum numeric := 0;
  v_count numeric := 0;
  v_max numeric := 0;
  v_latest numeric := 0;
  v_latest_at timestamptz := '-infinity';
  v_seen text[] := '{}';
begin
  for v_told in
    select *
    from told
    where feature_key = p_feature
      and occurred_at >= p_month
      and occurred_at < p_month + interval '1 month'
    order by place
  loop
    v_quantity := coalesce(
      (select quantity from told where corrects = v_told.key order by place desc limit 1),
      v_told.quantity);
    v_sum := v_sum + v_quantity;
    if v_quantity > 0 then
      v_count := v_count + 1;
      if not v_told.unique_value = any (v_seen) then
        v_seen := v_seen || v_told.unique_value;
      end if;
    end if;
    if v_quantity > v_max then
      v_max := v_quantity;
    end if;
    if v_told.occurred_at >= v_latest_at then
      v_latest := v_quantity;
      v_latest_at := v_told.occurred_at;
    end if;
  end loop;
  return case p_feature
    when 'sum_feature' then v_sum
    when 'count_feature' then v_count
    when 'max_feature' then v_max
    when 'unique_feature' then cardinality(v_seen)
    else v_latest
  end;
end;
$$;

create function pg_temp.differences() returns table (
  feature_key text, period_start timestamptz, counted numeric, expected numeric
)
language sql as $$
  select totals.feature_key, totals.period_start, totals.counted, reference.units
  from (
    select
      usage_totals.feature_key, usage_totals.period_start,
      used + coalesce(
        (select sum(quantity)
         from billing.usage_adjustments
         where usage_adjustments.feature_key = usage_totals.feature_key
           and usage_adjustments.period_start = usage_totals.period_start),
        0) as counted
    from billing.usage_totals
  ) as totals
  cross join lateral (
    select pg_temp.expected(totals.feature_key, totals.period_start) as units
  ) as reference
  where totals.counted <> reference.units;
$$;

select setseed(0.26);
select pg_temp.live(600);

select is_empty(
  $$ select * from pg_temp.differences() $$,
  'after six hundred records and corrections every total is what the reference says'
);
select ok(
  (select count(*) from billing.usage_totals where closed_at is not null) > 5
    and (select count(*) from billing.usage_adjustments) > 20
    and (select count(distinct feature_key) from billing.usage_adjustments) = 5,
  'some of it was heard of after its period was closed, of every kind'
);
select results_eq(
  $$ select feature_key, count(*) > 1 from billing.usage_totals group by feature_key order by 1 $$,
  $$
    values ('count_feature', true), ('latest_feature', true), ('max_feature', true),
      ('sum_feature', true), ('unique_feature', true)
  $$,
  'and it was about several periods of every kind'
);
select is(
  (select count(*) from billing.usage_records where corrects_key is null),
  (select count(*) from told where corrects is null),
  'each key is one record'
);

-- Whether this test can see it.
update billing.usage_totals set used = used + 1 where feature_key = 'max_feature';
select isnt_empty(
  $$ select * from pg_temp.differences() $$,
  'one unit more would be seen'
);

select * from finish();
rollback;
