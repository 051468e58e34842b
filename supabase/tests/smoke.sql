-- A few truths about an installed and seeded database, for servers without pgTAP.
-- Each row says what is looked at and whether it is so; statements without rows only prepare.
begin;

select 'the catalog has offers' as description, count(*) > 0 as ok
from billing.list_plans();

select 'logic takes the transaction''s start as now' as description,
  billing_private.now() = now() as ok;

insert into billing.features (key, name) values ('smoke', 'Smoke');
insert into billing.accounts (id) values (md5('owner')::uuid);
insert into billing.entitlement_grants (account_id, feature_key, valid_from, valid_until, reason)
values
  (md5('owner')::uuid, 'smoke', now() - interval '1 day', now() + interval '1 day', 'smoke test');

select 'a grant gives its feature in the same transaction' as description,
  billing.has_entitlement('smoke', md5('owner')::uuid) as ok;

select 'a feature nobody gave is not there' as description,
  not billing.has_entitlement('nothing', md5('owner')::uuid) as ok;

select 'what is stored is what the sources say' as description, count(*) = 0 as ok
from billing_private.validate_entitlements(array[md5('owner')::uuid]);

select 'an event is stored once' as description,
  first.event_id = 'evt_smoke' and first.duplicate is false as ok
from billing.ingest_stripe_event(
  '{"id":"evt_smoke","object":"event","type":"radar.early_fraud_warning.created","created":1790000000,"livemode":false,"data":{"object":{"id":"issfr_smoke","object":"radar.early_fraud_warning"}}}'
) as first;

select 'a second delivery is known' as description, second.duplicate as ok
from billing.ingest_stripe_event(
  '{"id":"evt_smoke","object":"event","type":"radar.early_fraud_warning.created","created":1790000000,"livemode":false,"data":{"object":{"id":"issfr_smoke","object":"radar.early_fraud_warning"}}}'
) as second;

select set_config('request.jwt.claims', json_build_object('sub', md5('owner')::uuid)::text, true)
  <> '' as prepared;
set local role authenticated;

select 'a member sees the own entitlement' as description,
  billing.has_entitlement('smoke') and exists (select from billing.my_entitlements()) as ok;

select 'a member sees why' as description, bool_or(explanation.gives_access) as ok
from billing.explain_entitlement('smoke') as explanation;

select set_config('request.jwt.claims', json_build_object('sub', md5('stranger')::uuid)::text, true)
  <> '' as prepared;

select 'a stranger sees nothing of it' as description,
  not billing.has_entitlement('smoke', md5('owner')::uuid)
    and not exists (select from billing.entitlements)
    and not exists (select from billing.accounts) as ok;

reset role;

insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
values (md5('owner')::uuid, 'club_hosting', 5, now() - interval '1 day', 'smoke test');
insert into public.book_clubs (name, account_id)
select 'Smoke ' || n, md5('owner')::uuid from generate_series(1, 3) as n;
update public.book_clubs set account_id = null where name = 'Smoke 1';
delete from public.book_clubs where name = 'Smoke 2';

select 'rows of a metered table are counted, and released' as description, used = 1 as ok
from billing.usage_totals
where account_id = md5('owner')::uuid
  and feature_key = 'club_hosting';

rollback;
