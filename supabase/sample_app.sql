-- An application beside the package: clubs that readers found and join. What a reader may see, found and join is
-- decided by row level security and the package alone. Running it again changes nothing that is there.

create table if not exists public.book_clubs (
  id bigint generated always as identity primary key,
  name text not null unique,
  is_premium boolean not null default false,
  -- Who founded it, a reader or an organization; null for BookTalks' own clubs.
  account_id uuid default auth.uid()
);

create table if not exists public.club_members (
  club_id bigint not null references public.book_clubs (id) on delete cascade,
  user_id uuid not null default auth.uid(),
  joined_at timestamptz not null default now(),
  primary key (club_id, user_id)
);

create index if not exists club_members_user_id_idx on public.club_members (user_id);
create index if not exists book_clubs_account_id_idx on public.book_clubs (account_id);

alter table public.book_clubs enable row level security;
alter table public.club_members enable row level security;

drop policy if exists select_open on public.book_clubs;
create policy select_open on public.book_clubs
  for select
  to anon
  using (not is_premium);

-- Premium clubs are for those whose plan, or whose team's plan, has them, and for their founders.
drop policy if exists select_entitled on public.book_clubs;
create policy select_entitled on public.book_clubs
  for select
  to authenticated
  using (
    not is_premium
    or account_id = (select auth.uid())
    or (select billing.has_entitlement('premium_clubs'))
    or (
      select coalesce(bool_or(billing.has_entitlement('premium_clubs', memberships.account_id)), false)
      from billing.memberships
      where memberships.user_id = (select auth.uid())
    )
  );

drop policy if exists insert_founder on public.book_clubs;
create policy insert_founder on public.book_clubs
  for insert
  to authenticated
  with check (
    account_id = (select auth.uid())
    or account_id in (
      select memberships.account_id
      from billing.memberships
      where memberships.user_id = (select auth.uid())
    )
  );

drop policy if exists delete_founder on public.book_clubs;
create policy delete_founder on public.book_clubs
  for delete
  to authenticated
  using (
    account_id = (select auth.uid())
    or account_id in (
      select memberships.account_id
      from billing.memberships
      where memberships.user_id = (select auth.uid())
    )
  );

-- Who is in a club is seen by those who see the club.
drop policy if exists select_club on public.club_members;
create policy select_club on public.club_members
  for select
  to authenticated
  using (club_id in (select id from public.book_clubs));

drop policy if exists insert_self on public.club_members;
create policy insert_self on public.club_members
  for insert
  to authenticated
  with check (
    user_id = (select auth.uid())
    and club_id in (select id from public.book_clubs)
  );

drop policy if exists delete_self on public.club_members;
create policy delete_self on public.club_members
  for delete
  to authenticated
  using (user_id = (select auth.uid()));

revoke all on public.book_clubs, public.club_members from public, anon, authenticated, service_role;
grant select on public.book_clubs to anon;
grant select, insert, delete on public.book_clubs, public.club_members to authenticated;
grant all on public.book_clubs, public.club_members to service_role;

insert into public.book_clubs (name, is_premium) values
  ('Sunday Classics', false),
  ('Crime After Dark', false),
  ('An Evening with the Author', true)
on conflict (name) do nothing;

-- How many clubs somebody may found, and be in, is counted by the database; neither policies nor code know limits.
select billing_admin.meter_table('public.book_clubs', 'club_hosting', 'account_id');
select billing_admin.meter_table('public.club_members', 'book_clubs', 'user_id');
