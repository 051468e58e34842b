-- =============================================================================
-- What the benchmark measures on: a million accounts. 100,000 of them have four entitlements each by a
-- subscription; of 60,000 customers more events will tell; the others have a gift each. And plain tables
-- beside them.
--
-- Run by a superuser after the migrations and the sample catalog, when bench.names is filled. Triggers
-- are off while rows are made; what they would derive is derived at the end.
-- =============================================================================

set session_replication_role = replica;

-- The ids by which the events call them.
update billing.plans
set stripe_product_id = 'prod_booktalks_privileged'
where key = 'privileged';

update billing.prices
set stripe_price_id = 'price_privileged_monthly',
    stripe_product_id = 'prod_booktalks_privileged'
where key = 'privileged_monthly';


-- ---- accounts and what they have ------------------------------------------------

-- The number of an account is its id.
create function bench.account(p_n bigint)
returns uuid
language sql
immutable
as $$
  select lpad(to_hex(p_n), 32, '0')::uuid
$$;

insert into billing.accounts (id)
select bench.account(n) from generate_series(1, 1000000) as n;

insert into billing.customers (account_id, is_primary, stripe_customer_id, email)
select
  bench.account(n), true,
  replace(names.customer_id, '{n}', n::text),
  'reader' || n || '@example.com'
from generate_series(1, 160000) as n
cross join bench.names;

insert into billing.subscriptions (
  id, account_id, status, price_id, quantity, currency, started_at, billing_anchor,
  current_period_start, current_period_end, stripe_subscription_id, stripe_latest_invoice_id
)
select
  bench.account(n), bench.account(n), 'active', prices.id, 1, 'usd', period.start, period.start,
  period.start, period.start + interval '30 days', 'sub_stored' || n, 'in_stored' || n || '_1'
from generate_series(1, 100000) as n
cross join lateral (select now() - interval '1 minute' * (n % 40000) as start) as period
join billing.prices on prices.key = 'privileged_monthly';

insert into billing.subscription_items (
  subscription_id, price_id, quantity, current_period_start, current_period_end,
  stripe_subscription_item_id, stripe_price_id
)
select
  id, price_id, 1, current_period_start, current_period_end, 'si_stored' || account_id,
  'price_privileged_monthly'
from billing.subscriptions;

insert into billing.invoices (
  account_id, status, currency, subtotal_minor, total_minor, amount_due_minor, amount_paid_minor,
  amount_remaining_minor, issued_at, stripe_invoice_id, stripe_subscription_id
)
select
  bench.account(n), 'paid', 'usd', 900, 900, 900, 900, 0, now() - month * interval '30 days',
  'in_stored' || n || '_' || month, 'sub_stored' || n
from generate_series(1, 20000) as n
cross join generate_series(1, 10) as month;

select billing_private.refresh_entitlements(array_agg(bench.account(n)))
from generate_series(1, 100000) as n;

-- The others are there to make tables and indexes large: without grants behind what they have.
insert into billing.entitlements (
  account_id, feature_key, source_kind, source_id, valid_from, valid_until
)
select
  bench.account(n), 'book_clubs', 'grant', bench.account(n), now() - interval '1 day', 'infinity'
from generate_series(160001, 1000000) as n;


-- ---- the same facts without row level security ----------------------------------

create table bench.plain_entitlements (like billing.entitlements including indexes);
insert into bench.plain_entitlements table billing.entitlements;

create table bench.plain_accounts as table billing.accounts;
alter table bench.plain_accounts add primary key (id);


-- ---- a table of the application -------------------------------------------------

create table bench.open_clubs as
select n as id, n % 10000 as topic, 'Club ' || n as name
from generate_series(1, 100000) as n;
alter table bench.open_clubs add primary key (id);
create index on bench.open_clubs (topic);

create table bench.member_clubs as table bench.open_clubs;
alter table bench.member_clubs add primary key (id);
create index on bench.member_clubs (topic);
alter table bench.member_clubs enable row level security;
create policy select_entitled on bench.member_clubs
  for select
  to authenticated
  using ((select billing.has_entitlement('premium_clubs')));


-- ---- events ---------------------------------------------------------------------

-- One row as an inbox would keep it: a key, an index, the text.
create table bench.raw_events (
  id bigint generated always as identity,
  payload text not null,
  received_at timestamptz not null default now(),
  primary key (id)
);
create index on bench.raw_events (received_at);

-- The least a queue has to keep.
create table bench.raw_commands (
  id bigint generated always as identity,
  path text not null,
  status text not null default 'pending',
  lease uuid,
  primary key (id)
);
create index on bench.raw_commands (id) where status = 'pending';

grant usage on schema bench to authenticated, service_role;
grant select, insert, update on all tables in schema bench to authenticated, service_role;
