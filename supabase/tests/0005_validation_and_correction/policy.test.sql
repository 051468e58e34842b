-- billing.has_entitlement() in a policy of an application's own table: rows appear and
-- disappear by the
-- clock alone.
begin;
\ir ../helpers.psql
select plan(14);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');

create table public.chapters (id integer primary key, feature text not null);
alter table public.chapters enable row level security;
revoke all on public.chapters from public, anon, authenticated, service_role;
grant select, insert on public.chapters to anon, authenticated, service_role;
insert into public.chapters select n, 'premium' from generate_series(1, 500) as n;
insert into public.chapters values (501, 'hosting');

create policy select_entitled on public.chapters
  for select
  to anon, authenticated
  using (feature = 'premium' and (select billing.has_entitlement('premium')));

create policy insert_entitled on public.chapters
  for insert
  to authenticated
  with check ((select billing.has_entitlement('premium')));

-- ---- a subscriber -----------------------------------------------------------

select tests.sign_in('ann');

select is(
  (select count(*) from public.chapters), 500::bigint,
  'a subscriber sees the rows the feature opens, and no others'
);
select lives_ok(
  $$ insert into public.chapters values (600, 'premium') $$,
  'a subscriber may write where the feature allows it'
);

select tests.set_time('2026-02-10 02:59:59');
select isnt_empty(
  $$ select * from public.chapters $$,
  'the rows stay to the last second'
);

select tests.set_time('2026-02-10 03:00:00');
select is_empty(
  $$ select * from public.chapters $$,
  'the rows are gone on the second the access ends, with no job run'
);
select throws_ok(
  $$ insert into public.chapters values (601, 'premium') $$,
  '42501', 'new row violates row-level security policy for table "chapters"',
  'from that second on nothing can be written either'
);

-- ---- a stranger, a visitor --------------------------------------------------

select tests.set_time('2026-01-11');

select tests.sign_in('bob');
select is_empty($$ select * from public.chapters $$, 'a stranger sees none of the rows');

select tests.sign_out();
select is_empty(
  $$ select * from public.chapters $$,
  'a visitor sees none of the rows, and no error'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select is(
  (select count(*) from public.chapters), 502::bigint,
  'the service bypasses the policy'
);

-- ---- a renewal --------------------------------------------------------------

select tests.set_time('2026-02-10');
select tests.deliver(
  'evt_renewed', 'customer.subscription.updated', '2026-02-10',
  tests.subscription('ann', 'active', '2026-02-10'));
select tests.sign_in('ann');
select tests.set_time('2026-02-10 03:00:00');

select isnt_empty($$ select * from public.chapters $$, 'a renewal keeps the rows where they are');

-- ---- what it costs ----------------------------------------------------------

create function pg_temp.plan_of(p_query text) returns text
language plpgsql as $$
declare
  v_line text;
  v_plan text := '';
begin
  for v_line in execute 'explain (analyze, costs off, timing off, summary off) ' || p_query loop
    v_plan := v_plan || v_line || E'\n';
  end loop;
  return v_plan;
end;
$$;

select matches(
  pg_temp.plan_of('select * from public.chapters'),
  'InitPlan 1.*\n\s+->  Result \(actual rows=1(\.00)? loops=1\)',
  'the question is put once for each statement, not once for each row'
);
select unalike(
  pg_temp.plan_of('select * from public.chapters'), '%SubPlan%',
  'nothing is asked row by row'
);

select tests.be_owner();

-- ---- tables of teams --------------------------------------------------------

create table public.notes (account_id uuid not null, note text not null);
create index notes_account_id_idx on public.notes (account_id);
insert into public.notes select md5('other ' || n)::uuid, 'hers' from generate_series(1, 20000) as n;
insert into public.notes values (md5('ann')::uuid, 'mine'), (md5('team')::uuid, 'ours');
alter table public.notes enable row level security;
grant select on public.notes to authenticated;
create policy select_entitled on public.notes
  for select
  to authenticated
  using (
    account_id = any (array(
      select account_id from billing.current_access where feature_key = 'premium'))
  );
analyze public.notes;

insert into billing.accounts (id, kind) values (md5('team')::uuid, 'organization');
insert into billing.memberships (account_id, user_id, role)
values (md5('team')::uuid, md5('ann')::uuid, 'member');
insert into billing.accounts (id) values (md5('other 7')::uuid);
insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
values (md5('team')::uuid, 'premium', '2026-01-10', 'a gift'),
  (md5('other 7')::uuid, 'premium', '2026-01-10', 'a gift');

select tests.sign_in('ann');
select results_eq(
  $$ select note from public.notes order by note $$,
  array['mine', 'ours'],
  'a member sees the rows of all own accounts that have the feature'
);
select matches(
  pg_temp.plan_of('select * from public.notes'),
  'notes_account_id_idx', 'without any condition of its own a query finds them by their index'
);
select unalike(
  pg_temp.plan_of('select * from public.notes'), '%Seq Scan on notes%',
  'and does not read the whole table'
);

select * from finish();
rollback;
