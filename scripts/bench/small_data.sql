-- =============================================================================
-- A database of ten thousand accounts with four entitlements each, beside the large one.
-- =============================================================================

set session_replication_role = replica;

insert into billing.accounts (id)
select lpad(to_hex(n), 32, '0')::uuid from generate_series(1, 10000) as n;

insert into billing.entitlements (
  account_id, feature_key, source_kind, source_id, valid_from, valid_until
)
select accounts.id, feature_key, 'grant', accounts.id, now() - interval '1 day', 'infinity'
from billing.accounts
cross join unnest(array['book_clubs', 'premium_clubs', 'club_hosting', 'direct_messages'])
  as feature_key;
