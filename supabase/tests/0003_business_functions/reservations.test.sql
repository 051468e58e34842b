-- billing.reserve(), settle() and release(): what is held, for how long, and what is counted.
begin;
\ir usage.psql
select plan(33);

create temporary table held as select null::text as name, null::uuid as id where false;
create function pg_temp.reserve(p_name text, p_units numeric, p_key text default null)
returns numeric
language plpgsql as $$
declare
  v_reservation billing.usage_reservations;
begin
  select * into v_reservation
  from billing_private.reserve(
    'exports', p_units, md5('ann')::uuid, '10 minutes', p_key);
  insert into held values (p_name, v_reservation.id);
  return v_reservation.quantity;
end;
$$;
create function pg_temp.settle(p_name text, p_units numeric default null)
returns billing.usage_reservations
language sql as $$
  select billing_private.settle((select id from held where name = p_name), p_units, md5('ann')::uuid);
$$;
create function pg_temp.release(p_name text) returns billing.usage_reservations
language sql as $$
  select billing_private.release((select id from held where name = p_name), md5('ann')::uuid);
$$;

-- ---- held -------------------------------------------------------------------

select is(pg_temp.reserve('a', 6), 6::numeric, 'units are set aside');
select is((pg_temp.summary()).remaining, 4::numeric, 'nobody else has them');
select ok(not pg_temp.use(5), 'to use them');
select throws_ok(
  $$ select pg_temp.reserve('b', 5) $$,
  'PT402', 'the limit of this feature is reached',
  'or to reserve them'
);
select ok(pg_temp.use(4), 'the others are free');

-- ---- settled ----------------------------------------------------------------

select is((pg_temp.settle('a', 2)).status, 'settled', 'what was used is counted');
select is((pg_temp.total()).used, 6::numeric, 'two');
select is((pg_temp.total()).reserved, 0::numeric, 'and the rest given back');
select is((pg_temp.settle('a', 5)).settled_quantity, 2::numeric, 'twice: the first answer');
select is((pg_temp.total()).used, 6::numeric, 'which counts nothing more');
select throws_ok(
  $$ select pg_temp.release('a') $$,
  'PT422', 'the reservation was settled',
  'what is settled cannot be released'
);
select is(
  (select count(*) from billing.usage_records where idempotency_key like 'reservation %'), 1::bigint,
  'it is in the records'
);
select pg_temp.reserve('c', 1);
select is((pg_temp.settle('c', 3)).settled_quantity, 3::numeric, 'more than was reserved is counted');
select pg_temp.reserve('d', 1);
select throws_ok(
  $$ select pg_temp.settle('d', 3) $$,
  'PT402', 'the limit of this feature is reached',
  'if there is room'
);
select is((pg_temp.total()).reserved, 1::numeric, 'if not, it is still held');
select is((pg_temp.settle('d')).settled_quantity, 1::numeric, 'without a quantity, all of it');
select is((pg_temp.total()).used, 10::numeric, 'so ten are used');

-- ---- released ---------------------------------------------------------------

update billing.usage_totals set used = 0 where feature_key = 'exports';
select pg_temp.reserve('e', 10);
select is((pg_temp.release('e')).status, 'released', 'a reservation can be given back');
select is((pg_temp.release('e')).status, 'released', 'twice: once');
select is((pg_temp.total()).reserved, 0::numeric, 'then nothing is held');
select throws_ok(
  $$ select pg_temp.settle('e') $$,
  'PT422', 'the reservation was released',
  'nor can it be settled'
);

-- ---- expired ----------------------------------------------------------------

select pg_temp.reserve('f', 10);
select tests.set_time('2026-01-10 00:09:59');
select ok(not pg_temp.use(1), 'until it expires it holds');
select tests.set_time('2026-01-10 00:10');
select is((pg_temp.summary()).remaining, 10::numeric, 'at that instant it does not');
select ok(pg_temp.use(9), 'whether a task has run or not');
select is(
  (select status from billing.usage_reservations join held using (id) where name = 'f'), 'expired',
  'which is noted by the first to ask'
);
select throws_ok(
  $$ select pg_temp.settle('f', 2) $$,
  'PT402', 'the limit of this feature is reached',
  'what it was for is counted if there is room'
);
select is((pg_temp.settle('f', 1)).status, 'settled', 'and else not');
select is((pg_temp.total()).used, 10::numeric, 'so nothing is lost');

update billing.usage_totals set used = 0 where feature_key = 'exports';
select pg_temp.reserve('g', 10);
select tests.set_time('2026-01-10 00:20');
select billing_private.task_tend_usage();
select is((pg_temp.total()).reserved, 0::numeric, 'the task clears what nobody asked about');

select tests.set_time('2026-02-09 23:59');
select pg_temp.reserve('h', 1);
select is(
  (select expires_at from billing.usage_reservations join held using (id) where name = 'h'),
  timestamptz '2026-02-10',
  'none outlives its period'
);

-- ---- once -------------------------------------------------------------------

select pg_temp.release('h');
select tests.set_time('2026-01-12');
select pg_temp.reserve('i', 3, 'job-1');
select is(pg_temp.reserve('j', 4, 'job-1'), 3::numeric, 'a key reserves once');
select is((pg_temp.total()).reserved, 3::numeric, 'and holds once');
select throws_ok(
  $$ select billing_private.settle(md5('nothing')::uuid, 1, md5('ann')::uuid) $$,
  'PT404', 'the account has no such reservation',
  'what was never reserved cannot be settled'
);

select * from finish();
rollback;
