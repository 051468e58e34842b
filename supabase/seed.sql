-- Samples to start from: BookTalks, a platform for book clubs, with two book stores. First its catalog, then an
-- application which that catalog gates. Running it again changes nothing that is there.

-- =====================================================================================================================
-- 1  the catalog
--
-- Stripe hears of it by billing_admin.publish_catalog().
-- =====================================================================================================================

insert into billing.stores (key, name) values
  ('turning-pages', 'Turning Pages'),
  ('night-owl', 'Night Owl Books')
on conflict (key) do nothing;

insert into billing.features (key, name, description, kind) values
  ('book_clubs', 'Book clubs', 'Join book clubs; the limit is how many at a time.', 'limit'),
  ('premium_clubs', 'Premium clubs', 'See and join clubs led by authors.', 'boolean'),
  ('club_hosting', 'Host clubs', 'Found and lead clubs of one''s own; the limit is how many.', 'limit'),
  ('direct_messages', 'Direct messages', 'Write to other readers.', 'boolean'),
  ('store_discount', 'Store discount', 'The member price in the store.', 'boolean'),
  ('audio_hours', 'Audio books', 'Hours of audio books a month.', 'metered')
on conflict (key) do nothing;

insert into billing.plans
  (key, name, description, store_id, tier, tier_rank, past_due_grace, seat_policy)
select
  catalog.key, catalog.name, catalog.description, stores.id, catalog.tier, catalog.tier_rank,
  catalog.past_due_grace::interval, catalog.seat_policy
from (values
  ('member', 'Member', 'Join clubs and talk about books.',
    null, 'member', 10, '3 days', 'fixed'),
  ('privileged', 'Privileged', 'Premium clubs, direct messages, and a club of your own.',
    null, 'privileged', 20, '3 days', 'fixed'),
  ('privileged_plus', 'Privileged Plus', 'Everything, without limits.',
    null, 'privileged_plus', 30, '7 days', 'fixed'),
  ('turning_pages_privileged', 'Turning Pages Privileged', 'Privileged, with the store''s discount.',
    'turning-pages', 'privileged', 20, '3 days', 'fixed'),
  ('night_owl_privileged', 'Night Owl Privileged', 'Privileged, with audio books through the night.',
    'night-owl', 'privileged', 20, '3 days', 'fixed'),
  ('reading_circle', 'Reading Circle', 'For teams: premium clubs for every member, and clubs of their own.',
    null, 'privileged', 20, '7 days', 'members')
) as catalog
  (key, name, description, store_key, tier, tier_rank, past_due_grace, seat_policy)
left join billing.stores on stores.key = catalog.store_key
on conflict (key) do nothing;

insert into billing.plan_features (plan_id, feature_key, limit_value)
select plans.id, catalog.feature_key, catalog.limit_value
from (values
  ('member', 'book_clubs', 3),
  ('privileged', 'book_clubs', 10),
  ('privileged', 'premium_clubs', null),
  ('privileged', 'club_hosting', 1),
  ('privileged', 'direct_messages', null),
  ('privileged_plus', 'book_clubs', null),
  ('privileged_plus', 'premium_clubs', null),
  ('privileged_plus', 'club_hosting', 10),
  ('privileged_plus', 'direct_messages', null),
  ('privileged_plus', 'audio_hours', 20),
  ('turning_pages_privileged', 'book_clubs', 10),
  ('turning_pages_privileged', 'premium_clubs', null),
  ('turning_pages_privileged', 'store_discount', null),
  ('night_owl_privileged', 'book_clubs', 10),
  ('night_owl_privileged', 'premium_clubs', null),
  ('night_owl_privileged', 'audio_hours', 10),
  ('reading_circle', 'premium_clubs', null),
  ('reading_circle', 'club_hosting', 2)
) as catalog (plan_key, feature_key, limit_value)
join billing.plans on plans.key = catalog.plan_key
on conflict (plan_id, version, feature_key) do nothing;

insert into billing.prices (
  key, plan_id, currency, unit_amount_minor, unit_amount_decimal, billing_interval, trial_days
)
select
  catalog.key, plans.id, catalog.currency, catalog.amount, catalog.amount,
  catalog.billing_interval, catalog.trial_days
from (values
  ('member_monthly', 'member', 'usd', 400, 'month', null),
  ('member_yearly', 'member', 'usd', 4000, 'year', null),
  ('privileged_monthly', 'privileged', 'usd', 900, 'month', null),
  ('privileged_yearly', 'privileged', 'usd', 9000, 'year', null),
  ('privileged_monthly_eur', 'privileged', 'eur', 900, 'month', null),
  ('privileged_monthly_jpy', 'privileged', 'jpy', 1300, 'month', null),
  ('privileged_plus_monthly', 'privileged_plus', 'usd', 1900, 'month', 14),
  ('privileged_plus_yearly', 'privileged_plus', 'usd', 19000, 'year', null),
  ('turning_pages_privileged_monthly', 'turning_pages_privileged', 'usd', 1100, 'month', null),
  ('night_owl_privileged_monthly', 'night_owl_privileged', 'usd', 1200, 'month', null),
  ('reading_circle_monthly', 'reading_circle', 'usd', 600, 'month', null)
) as catalog (key, plan_key, currency, amount, billing_interval, trial_days)
join billing.plans on plans.key = catalog.plan_key
where not exists (select from billing.prices where prices.key = catalog.key);


-- =====================================================================================================================
-- 2  the application
--
-- Clubs that readers found and join. What a reader may see, found and join is decided by row level security and the
-- package alone. Leave this part out where only the catalog is wanted.
-- =====================================================================================================================

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
