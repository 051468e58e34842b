-- billing.has_entitlement(): true only while a source gives the feature, and only to its members.
begin;
\ir ../helpers.psql
select plan(22);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');

select ok(billing.has_entitlement('premium'), 'a subscriber has the plan''s feature');
select ok(
  billing.has_entitlement('premium', md5('ann')::uuid),
  'a subscriber may name the own account'
);
select ok(not billing.has_entitlement('hosting'), 'a feature of no plan is nobody''s');
select ok(not billing.has_entitlement('no_such_feature'), 'an unknown feature is nobody''s');
select is(billing.has_entitlement(null), false, 'no feature is nobody''s');

select tests.set_time('2026-02-10 02:59:59');
select ok(
  billing.has_entitlement('premium'),
  'access lasts to the last second of the renewal grace'
);

select tests.set_time('2026-02-10 03:00:00');
select ok(not billing.has_entitlement('premium'), 'access ends on the second, with no job run');

-- ---- a stranger -------------------------------------------------------------

select tests.set_time('2026-01-11');
select tests.sign_in('bob');

select is(
  billing.has_entitlement('premium'), false,
  'a user who never came near billing has nothing, and no error'
);
select ok(
  not billing.has_entitlement('premium', md5('ann')::uuid),
  'a stranger is told no about somebody else''s account'
);
select ok(
  not billing.has_entitlement('premium', md5('nobody')::uuid),
  'a stranger is told the same about an account that does not exist'
);

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');

select ok(
  not billing.has_entitlement('premium', md5('ann')::uuid),
  'an administrator is no member of everybody''s account: policies let nobody in by office'
);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();

select is(
  billing.has_entitlement('premium'), false,
  'a visitor has nothing, and no error'
);
select ok(
  not billing.has_entitlement('premium', md5('ann')::uuid),
  'a visitor is told no about anybody''s account'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();

select ok(
  billing.has_entitlement('premium', md5('ann')::uuid),
  'the service may ask about any account'
);
select is(
  billing.has_entitlement('premium'), false,
  'the service has no account of its own'
);

-- ---- the owner --------------------------------------------------------------

select tests.be_owner();

select ok(
  billing.has_entitlement('premium', md5('ann')::uuid),
  'the owner may ask about any account'
);

-- ---- every kind of token -----------------------------------------------------

-- has_entitlement() reads Supabase Auth's tokens itself.
insert into billing.external_identities (issuer, subject, user_id) values
  ('https://clerk.example', 'user_2abc', md5('ann')::uuid),
  ('https://clerk.example', md5('bob')::uuid::text, md5('ann')::uuid),
  ('https://clerk.example', md5('ann')::uuid::text, md5('bob')::uuid),
  ('https://project.example/auth/v1', 'user_2abc', md5('eve')::uuid),
  ('https://project.example/auth/v1', md5('ann')::uuid::text, md5('eve')::uuid),
  ('https://project.example/auth/v2', md5('ann')::uuid::text, md5('eve')::uuid);

create function pg_temp.answer_to(
  p_claims text,
  out whose uuid,
  out is_entitled boolean
)
language plpgsql as $$
begin
  perform set_config('request.jwt.claims', p_claims, true);
  select user_id into whose from billing.caller;
  is_entitled := billing.has_entitlement('premium');
end;
$$;

create temporary table answers as
select tokens.issuer, tokens.claims, answer.*
from (
  select
    issuer,
    jsonb_strip_nulls(jsonb_build_object('iss', issuer, 'sub', subject))::text as claims
  from unnest(array[
    null, 'https://project.example/auth/v1', 'https://project.example/auth/v2',
    'https://clerk.example'
  ]) as issuer
  cross join unnest(array[
    null, '', 'user_2abc', md5('ann')::uuid::text, upper(md5('ann')::uuid::text), md5('ann'),
    '{' || md5('ann')::uuid || '}', md5('bob')::uuid::text
  ]) as subject
  union all
  select null, unnest(array[null, '', 'null', '["a list"]', '"ann"', '{"iss": {}, "sub": []}'])
) as tokens
cross join lateral pg_temp.answer_to(tokens.claims) as answer;

select is_empty(
  $$ select * from answers where is_entitled <> (whose is not distinct from md5('ann')::uuid) $$,
  'whatever the token says, the answer is about whom the rest of billing takes it for'
);
select bag_eq(
  $$ select issuer from answers where is_entitled $$,
  $$
    values
      (null), (null), ('https://project.example/auth/v1'), ('https://project.example/auth/v1'),
      ('https://project.example/auth/v2'),
      ('https://clerk.example'), ('https://clerk.example'), ('https://clerk.example')
  $$,
  'and that is so in either spelling of a uuid, by every issuer, and by a link'
);
select set_eq(
  $$ select whose from answers where issuer = 'https://project.example/auth/v1' $$,
  array[null, md5('ann')::uuid, md5('bob')::uuid],
  'the tokens of Supabase Auth are never looked up'
);
select tests.be_owner();

-- ---- the way to the answer --------------------------------------------------

insert into billing.accounts (id) select md5(n::text)::uuid from generate_series(1, 3000) as n;
insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
select md5(n::text)::uuid, feature_key, '2026-01-10', 'a crowd'
from generate_series(1, 3000) as n
cross join (values ('premium'), ('hosting')) as given (feature_key);
analyze billing.entitlements;

create function pg_temp.plan_of(p_query text) returns text
language plpgsql as $$
declare
  v_line text;
  v_plan text := '';
begin
  for v_line in execute 'explain (costs off) ' || p_query loop
    v_plan := v_plan || v_line || E'\n';
  end loop;
  return v_plan;
end;
$$;

-- The question as the function puts it, with the caller's policy.
select tests.sign_in('ann');
select matches(
  pg_temp.plan_of(
    $$
      select
      from billing.current_entitlements
      where account_id = coalesce(null, auth.uid()) and feature_key = 'premium'
    $$),
  'Index (Only )?Scan (using|on) entitlements_pkey',
  'among many accounts the answer is one look into the key'
);
select unalike(
  pg_temp.plan_of(
    $$
      select
      from billing.current_entitlements
      where account_id = coalesce(null, auth.uid()) and feature_key = 'premium'
    $$),
  '%Seq Scan%',
  'nothing is read from end to end for it'
);
select ok(billing.has_entitlement('premium'), 'among many accounts the answer is the same');

select * from finish();
rollback;
