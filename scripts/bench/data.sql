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


-- ---- usage ----------------------------------------------------------------------

-- Of subscribers by their plan, of the others by what stands for a gift; all with a running period.
insert into billing.features (key, name, kind, alert_percents) values
  ('bench_exports', 'Exports', 'metered', '{80,100}'),
  ('bench_seats', 'Seats', 'limit', '{80,100}');
insert into billing.plan_features (plan_id, version, feature_key, limit_value)
select plans.id, plans.version, features.key, 1000000000
from billing.plans
cross join billing.features
where plans.key = 'privileged'
  and features.key in ('bench_exports', 'bench_seats');

insert into billing.accounts (id)
select bench.account(n) from generate_series(1, 1000000) as n
on conflict do nothing;
insert into billing.entitlements (
  account_id, feature_key, source_kind, source_id, plan_id, limit_value, valid_from, valid_until
)
select
  bench.account(n), feature_key,
  case when item.id is not null then 'subscription_item' else 'grant' end,
  coalesce(item.id, bench.account(n)), plans.id, 1000000000, now() - interval '1 year', 'infinity'
from generate_series(1, 1000000) as n
cross join unnest(array['bench_exports', 'bench_seats']) as feature_key
left join lateral (
  select id from billing.subscription_items where subscription_id = bench.account(n)
) as item on n <= 100000
left join billing.plans on plans.key = 'privileged' and item.id is not null;

insert into billing.usage_totals (account_id, feature_key, period_start, period_end)
select
  accounts.id, 'bench_exports', period.start, period.start + interval '1 month'
from billing.accounts
left join billing.subscriptions on subscriptions.id = accounts.id
cross join lateral (
  select coalesce(subscriptions.billing_anchor, accounts.created_at) as start
) as period
where accounts.id <= bench.account(1000000);
insert into billing.usage_totals (account_id, feature_key, period_start, period_end)
select bench.account(n), 'bench_seats', '-infinity', 'infinity' from generate_series(1, 1000000) as n;

create table bench.plain_totals (
  account_id uuid not null,
  feature_key text not null,
  period_start timestamptz not null,
  period_end timestamptz not null,
  used numeric not null default 0,
  primary key (account_id, feature_key, period_start)
) with (fillfactor = 50);
insert into bench.plain_totals (account_id, feature_key, period_start, period_end)
select bench.account(n), 'bench_exports', '2020-01-01Z', '2030-01-01Z'
from generate_series(1, 1000000) as n;

create table bench.plain_records (
  account_id uuid not null,
  idempotency_key text not null,
  recorded_month timestamptz not null,
  id uuid not null default gen_random_uuid(),
  feature_key text not null,
  quantity numeric not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null,
  period_start timestamptz not null,
  primary key (account_id, idempotency_key, recorded_month)
);
create index on bench.plain_records (account_id, feature_key, occurred_at);

create table bench.batches as
select
  n,
  (
    select jsonb_agg(jsonb_build_object(
      'account_id', bench.account((i * 7919 + n * 104729) % 1000000 + 1),
      'feature', 'bench_exports', 'idempotency_key', 'KEY-' || i))::text
    from generate_series(1, 1000) as i
  ) as records
from generate_series(0, 99) as n;
alter table bench.batches add primary key (n);


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
