-- A contract cuts what a subscription gives into pieces: access goes on from one to the next by the
-- clock alone.
begin;
\ir ../helpers.psql
select plan(7);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann', 'active', '2026-01-10', 'price_plus_monthly', '{"cancel_at": 1774000000}');
insert into billing.contracts
  (id, account_id, status, starts_at, ends_at, first_ends_at, term_starts_at, reference, reason)
values
  (md5('contract')::uuid, md5('ann')::uuid, 'active', '2026-01-15', '2026-01-20', '2026-01-20',
    '2026-01-15', 'C-1', 'a test');
insert into billing.contract_features (contract_id, feature_key, limit_value)
values (md5('contract')::uuid, 'clubs', 4);

create function pg_temp.clubs(p_at timestamptz) returns text
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  return billing.has_entitlement('clubs', md5('ann')::uuid) || ' '
    || billing.entitlement_limit('clubs', md5('ann')::uuid);
end;
$$;

select is(pg_temp.clubs('2026-01-14 23:59:59.999999'), 'true 10', 'before it the plan counts');
select is(pg_temp.clubs('2026-01-15'), 'true 4', 'from its first instant the contract counts');
select is(pg_temp.clubs('2026-01-19 23:59:59.999999'), 'true 4', 'to its last');
select is(
  pg_temp.clubs('2026-01-20'), 'true 10',
  'when it ends the plan counts again on the second, with no job run'
);
select tests.set_time('2026-01-10');
select is(
  array(
    select limit_value
    from unnest(array['2026-01-14', '2026-01-15', '2026-01-20']::timestamptz[]) as at
    cross join lateral billing.explain_entitlement('clubs', md5('ann')::uuid, at)
    where decides_limit
    order by at),
  array[10, 4, 10]::bigint[],
  'as was to be foreseen'
);

select tests.set_time('2026-01-21');
select billing_private.refresh_elapsed(10);
select is(pg_temp.clubs('2026-01-21'), 'true 10', 'what has passed is taken away, what holds stays');
select is_empty(
  $$ select * from billing_private.validate_entitlements(array[md5('ann')::uuid]) $$,
  'and what is stored is what the sources say'
);

select * from finish();
rollback;
