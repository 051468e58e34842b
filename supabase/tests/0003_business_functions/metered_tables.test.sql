-- Tables whose rows are counted: what each kind of statement consumes, releases, and is refused.
begin;
\ir ../helpers.psql
set local client_min_messages = warning;
select plan(45);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann', 'active', '2026-01-10', 'price_basic_monthly');
select tests.account('bob');
select tests.subscribe('bob');
select tests.account('eve');

create table public.clubs (
  id bigint generated always as identity primary key,
  name text unique,
  owner_id uuid default auth.uid()
);
create table public.rooms (
  club_id bigint not null references public.clubs (id) on delete cascade,
  owner_id uuid
);
alter table public.clubs enable row level security;
create policy select_all on public.clubs for select to authenticated using (true);
create policy insert_own on public.clubs
  for insert to authenticated with check (owner_id = (select auth.uid()));
create policy update_own on public.clubs
  for update to authenticated using (owner_id = (select auth.uid())) with check (true);
create policy delete_own on public.clubs
  for delete to authenticated using (owner_id = (select auth.uid()));
grant all on public.clubs to authenticated, service_role;

-- Of ann and bob: their limits are 3 and 10.
create function tests.counted(p_feature_key text default 'clubs') returns bigint[]
language sql as $$
  select array[coalesce(sum(used) filter (where account_id = md5('ann')::uuid), 0)::bigint,
    coalesce(sum(used) filter (where account_id = md5('bob')::uuid), 0)::bigint]
  from billing.usage_totals
  where feature_key = p_feature_key;
$$;

create function tests.refusal(p_statement text) returns jsonb
language plpgsql as $$
declare
  v_detail text;
begin
  execute p_statement;
  return null;
exception when others then
  get stacked diagnostics v_detail = pg_exception_detail;
  return v_detail;
end;
$$;
select is(
  billing_admin.meter_table('public.clubs', 'clubs', 'owner_id'), 0::bigint,
  'an empty table has nothing to count'
);

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');

insert into public.clubs (name) values ('one');
select is(tests.counted(), '{1,0}', 'a row is one unit of its owner''s');

insert into public.clubs (name) values ('two'), ('three');
select is(tests.counted(), '{3,0}', 'the last units can be taken');

savepoint at_the_limit;
select throws_ok(
  $$ insert into public.clubs (name) values ('four') $$,
  'PT402', 'the limit of this feature is reached',
  'a row beyond the limit is refused'
);
select is(
  (select count(*) from public.clubs), 3::bigint, 'a refused row is not there'
);
select is(tests.counted(), '{3,0}', 'a refused row is not counted');

select is(
  tests.refusal($$ insert into public.clubs (name) values ('four'), ('five') $$)
    - '{period_end}'::text[],
  '{"code": "LIMIT_REACHED", "feature": "clubs", "requested": 2, "used": 3, "allowed": 3}'::jsonb,
  'the refusal says what was asked for, used and allowed'
);

delete from public.clubs where name in ('two', 'three');
select is(tests.counted(), '{1,0}', 'rows that go give back their units');

select throws_ok(
  $$ insert into public.clubs (name) values ('two'), ('three'), ('four') $$,
  'PT402', 'the limit of this feature is reached',
  'a statement is counted as a whole: one row too many refuses all of it'
);
select is(tests.counted(), '{1,0}', 'and nothing of it is counted');

savepoint before;
insert into public.clubs (name) values ('two');
rollback to before;
select is(tests.counted(), '{1,0}', 'what is rolled back was never counted');

insert into public.clubs (name) values ('one') on conflict (name) do nothing;
select is(tests.counted(), '{1,0}', 'a row that on conflict leaves out does not count');

insert into public.clubs (name) values ('one'), ('two')
on conflict (name) do update set name = excluded.name;
select is(
  tests.counted(), '{2,0}', 'of rows that on conflict updates only the new ones count'
);

update public.clubs set name = name || '!' where name in ('one', 'two');
select is(tests.counted(), '{2,0}', 'an update that leaves the owner alone counts nothing');

select throws_ok(
  $$ insert into public.clubs (name, owner_id) values ('not mine', md5('bob')::uuid) $$,
  '42501', 'new row violates row-level security policy for table "clubs"',
  'the table''s own policies stay in force'
);
select is(tests.counted(), '{2,0}', 'and what they refuse is not counted');

delete from public.clubs where owner_id <> (select auth.uid());
select is(tests.counted(), '{2,0}', 'a delete that matches nothing gives nothing back');

-- ---- moving -----------------------------------------------------------------

select lives_ok(
  $$ update public.clubs set owner_id = md5('bob')::uuid where name = 'one!' $$,
  'a row can be given away'
);
select tests.be_owner();
select is(tests.counted(), '{1,1}', 'a row with another owner counts for that one');

update public.clubs set owner_id = null where owner_id = md5('bob')::uuid;
select is(tests.counted(), '{1,0}', 'a row without an owner counts for nobody');

update public.clubs set owner_id = md5('ann')::uuid where owner_id is null;
select is(tests.counted(), '{2,0}', 'a row that finds an owner counts from then on');

insert into public.clubs (name, owner_id)
select 'bob''s ' || n, md5('bob')::uuid from generate_series(1, 10) as n;
select throws_ok(
  $$ update public.clubs set owner_id = md5('ann')::uuid where name in ('bob''s 1', 'bob''s 2') $$,
  'PT402', 'the limit of this feature is reached',
  'a move is refused where the new owner has no room'
);
select is(tests.counted(), '{2,10}', 'a refused move counts nothing on either side');

update public.clubs
set owner_id = case owner_id when md5('ann')::uuid then md5('bob')::uuid else md5('ann')::uuid end
where name in ('one!', 'bob''s 1');
select is(
  tests.counted(), '{2,10}', 'an exchange in one statement needs no room on either side'
);

-- ---- those without ----------------------------------------------------------

select throws_ok(
  $$ insert into public.clubs (name, owner_id) values ('eve''s', md5('eve')::uuid) $$,
  'PT402', 'no plan of the account includes this feature',
  'who does not have the feature cannot add a row'
);
select throws_ok(
  $$ insert into public.clubs (name, owner_id) values ('nobody''s', md5('nobody')::uuid) $$,
  'PT402', 'no plan of the account includes this feature',
  'an id that is no account has no feature'
);
select lives_ok(
  $$ insert into public.clubs (name, owner_id) values ('the house''s', null) $$,
  'a row without an owner is not metered'
);

-- ---- in bulk ----------------------------------------------------------------

insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
values
  (md5('ann')::uuid, 'clubs', 6000, '2026-01-10', 'a gift'),
  (md5('bob')::uuid, 'clubs', 5010, '2026-01-10', 'a gift');
insert into public.clubs (name, owner_id)
select 'bulk ' || n, case when n % 2 = 0 then md5('ann') else md5('bob') end::uuid
from generate_series(1, 10000) as n;
select is(
  tests.counted(), '{5002,5010}', 'ten thousand rows of two owners are counted in one statement'
);
select throws_ok(
  $$ insert into public.clubs (name, owner_id)
    select 'more ' || n, case n when 2 then md5('bob') else md5('ann') end::uuid
    from generate_series(1, 3) as n $$,
  'PT402', 'the limit of this feature is reached',
  'one owner without room refuses the statement of several'
);
select is(tests.counted(), '{5002,5010}', 'for all of them');

with gone as (
  delete from public.clubs where name like 'bulk %' and owner_id = md5('bob')::uuid returning name
)
insert into public.clubs (name, owner_id)
select name || ' again', md5('ann')::uuid from gone where name in ('bulk 1', 'bulk 3');
select is(
  tests.counted(), '{5004,10}', 'a statement that deletes and inserts is counted on both sides'
);

copy public.clubs (name, owner_id) from stdin;
copied 1	7e0d7f8a-5d96-c24f-fcc8-40f31bce72b2
copied 2	7e0d7f8a-5d96-c24f-fcc8-40f31bce72b2
\.
select is(tests.counted(), '{5006,10}', 'copied rows are counted');

merge into public.clubs
using (values ('copied 1'), ('merged')) as source (name) on clubs.name = source.name
when matched then delete
when not matched then insert (name, owner_id) values (source.name, md5('bob')::uuid);
select is(tests.counted(), '{5005,11}', 'what merge inserts and deletes is counted');

-- ---- cascades ---------------------------------------------------------------

insert into billing.features (key, name, kind) values ('rooms', 'Rooms', 'limit');
insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
select md5(name)::uuid, 'rooms', 100, '2026-01-10', 'a gift'
from unnest(array['ann', 'bob']) as name;
insert into public.rooms
select id, case when name in ('merged', 'bob''s 2') then md5('bob')::uuid else md5('ann')::uuid end
from public.clubs
cross join generate_series(1, 2)
where name in ('merged', 'bob''s 2', 'copied 2');
select is(
  billing_admin.meter_table('public.rooms', 'rooms', 'owner_id'), 6::bigint,
  'rows that are there when metering begins are counted'
);
select is(tests.counted('rooms'), '{2,4}', 'each for its owner');
delete from public.clubs where name in ('merged', 'copied 2');
select is(tests.counted('rooms'), '{0,2}', 'rows that go with the row they belong to are released');
select is(tests.counted(), '{5004,10}', 'and that row itself');

-- ---- truncate ---------------------------------------------------------------

truncate public.clubs cascade;
select is(tests.counted(), '{0,0}', 'truncate releases everything');
select is(tests.counted('rooms'), '{0,0}', 'in every table it empties');

-- ---- two features, two tables -----------------------------------------------

select billing_admin.meter_table('public.rooms', 'clubs', 'owner_id');
insert into public.clubs (name, owner_id) values ('last', md5('ann')::uuid);
insert into public.rooms select id, owner_id from public.clubs cross join generate_series(1, 3);
select is(
  array[tests.counted(), tests.counted('rooms')], '{{4,0},{3,0}}',
  'two tables can share a feature, and a table can count for two'
);
truncate public.rooms;
select is(
  array[tests.counted(), tests.counted('rooms')], '{{1,0},{0,0}}',
  'emptying one of them leaves what the other holds'
);

-- ---- metered features -------------------------------------------------------

insert into billing.features (key, name, kind) values ('posts', 'Posts', 'metered');
insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
values (md5('ann')::uuid, 'posts', 5, '2026-01-10', 'a gift');
create table public.posts (owner_id uuid);
insert into public.posts values (md5('ann')::uuid);
select is(
  billing_admin.meter_table('public.posts', 'posts', 'owner_id'), 0::bigint,
  'a metered feature counts from now on'
);
insert into public.posts select md5('ann')::uuid from generate_series(1, 5);
select is(tests.counted('posts'), '{5,0}', 'rows use units of the running period');
delete from public.posts;
select throws_ok(
  $$ insert into public.posts values (md5('ann')::uuid) $$,
  'PT402', 'the limit of this feature is reached',
  'what was used is used up: deleting gives nothing back'
);
select tests.set_time('2026-02-10');
select lives_ok(
  $$ insert into public.posts values (md5('ann')::uuid) $$,
  'the next period allows rows again'
);

select * from finish();
rollback;
