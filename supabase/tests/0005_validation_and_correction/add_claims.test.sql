-- billing.add_claims(): what a project's own hook adds to the tokens of its users.
begin;
\ir ../helpers.psql
select plan(16);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');

-- A hook as a project would write it, called as Supabase Auth calls it.
create function public.custom_access_token_hook(event jsonb) returns jsonb
language plpgsql as $$
begin
  return jsonb_set(event, '{claims}',
    billing.add_claims(event -> 'claims', (event ->> 'user_id')::uuid));
end;
$$;

create function pg_temp.claims(p_name text, p_claims jsonb default '{"role": "authenticated"}')
returns jsonb
language sql as $$
  select public.custom_access_token_hook(jsonb_build_object(
    'user_id', md5(p_name)::uuid, 'claims', p_claims,
    'authentication_method', 'token_refresh')) -> 'claims';
$$;

-- ---- a subscriber -----------------------------------------------------------

select is(
  pg_temp.claims('ann'),
  '{
    "role": "authenticated",
    "billing": {
      "tier": "plus", "features": ["clubs", "premium"], "v": 1768003200000, "exp": 1770692400
    }
  }'::jsonb,
  'a token says tier, features, version and until when'
);
select is(
  pg_temp.claims('ann', '{"role": "authenticated", "billing": {"tier": "forged"}}')
    #>> '{billing,tier}',
  'plus', 'what was under our key is replaced'
);

select tests.set_time('2026-02-10 02:59:59.999999');
select is(
  pg_temp.claims('ann') #>> '{billing,tier}', 'plus', 'access is in tokens to its last instant'
);
select tests.set_time('2026-02-10 03:00:00');
select is(
  pg_temp.claims('ann') -> 'billing', '{"features": [], "v": 1768003200000}'::jsonb,
  'from the second it ends, new tokens say so'
);

-- ---- others -----------------------------------------------------------------

select tests.set_time('2026-01-11');
select is(
  pg_temp.claims('newcomer') -> 'billing', '{"features": [], "v": 0}'::jsonb,
  'whoever never came near billing has nothing'
);
insert into billing.accounts (id) values (md5('gifted')::uuid);
insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
values (md5('gifted')::uuid, 'premium', '2026-01-10', 'a gift');
select is(
  pg_temp.claims('gifted') -> 'billing', '{"features": ["premium"], "v": 1768089600000}'::jsonb,
  'without an end there is none in the token'
);

-- ---- small ------------------------------------------------------------------

insert into billing.accounts (id) values (md5('rich')::uuid);
insert into billing.features (key, name)
select 'feature_' || lpad(n::text, 4, '0'), 'Feature' from generate_series(1, 300) as n;
insert into billing.features (key, name) values (repeat('long', 200), 'Of a long name');
insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
select md5('rich')::uuid, key, '2026-01-10', 'everything'
from billing.features where key like 'feature%' or key like 'long%';

select cmp_ok(
  octet_length((pg_temp.claims('rich') -> 'billing')::text), '<=', 800,
  'however much an account has, its claims are small'
);
select is(
  pg_temp.claims('rich') #> '{billing,more}', 'true'::jsonb,
  'they say that there is more'
);
select is(
  pg_temp.claims('rich') #>> '{billing,features,0}', 'feature_0001',
  'features are in the order of their keys'
);

-- ---- whatever fails ---------------------------------------------------------

select is(
  billing.add_claims(null, md5('ann')::uuid), null, 'no claims stay no claims'
);
select is(
  billing.add_claims('[1]', md5('ann')::uuid), '[1]'::jsonb,
  'what are no claims stays as it is'
);
select is(
  billing.add_claims('{"role": "anon"}', null), '{"role": "anon"}'::jsonb,
  'of nobody there is nothing to add'
);

savepoint sound;
alter table billing.entitlements rename to broken;
set local client_min_messages = error;
select is(
  pg_temp.claims('ann'), '{"role": "authenticated"}'::jsonb,
  'where billing is broken, people sign in with the claims they had'
);
rollback to sound;

-- ---- who may call it --------------------------------------------------------

select is(
  array[
    has_schema_privilege('supabase_auth_admin', 'billing', 'usage'),
    has_function_privilege('supabase_auth_admin', 'billing.add_claims(jsonb, uuid)', 'execute'),
    has_function_privilege(
      'supabase_auth_admin', 'billing_private.add_claims(jsonb, uuid)', 'execute'),
    has_schema_privilege('supabase_auth_admin', 'billing_private', 'usage'),
    has_table_privilege('supabase_auth_admin', 'billing.entitlements', 'select')
  ],
  array[true, true, true, false, false],
  'Supabase Auth may call it, and reach nothing else'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.add_claims('{}', md5('ann')::uuid) $$,
  '42501', 'permission denied for function add_claims',
  'users do not make claims'
);
select tests.be_service();
select throws_ok(
  $$ select billing.add_claims('{}', md5('ann')::uuid) $$,
  '42501', 'permission denied for function add_claims',
  'nor do Edge Functions'
);

select * from finish();
rollback;
