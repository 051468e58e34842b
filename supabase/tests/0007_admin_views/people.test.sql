-- What administrators do about people: link those of other issuers, demand a second factor.
begin;
\ir ../helpers.psql
select plan(24);

select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('eve')::uuid, 'first');
create function tests.who(p_issuer text, p_subject text) returns uuid
language plpgsql as $$
declare
  v_id uuid;
begin
  perform tests.sign_in('nobody', jsonb_build_object('iss', p_issuer, 'sub', p_subject));
  select user_id into v_id from billing.caller;
  perform tests.sign_in('eve');
  return v_id;
end;
$$;
grant execute on all functions in schema tests to authenticated;

-- ---- links ------------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.link_identity('https://clerk.example', 'user_1', md5('ann')::uuid, 'me') $$,
  'PT403', 'this needs a billing administrator', 'nobody links themselves'
);
select throws_ok(
  $$ select billing_admin.unlink_identity('https://clerk.example', 'user_1', 'me') $$,
  'PT403', 'this needs a billing administrator', 'nor unlinks anybody'
);

select tests.sign_in('eve');
select is(
  tests.who('https://clerk.example', 'user_1'), null, 'a subject nobody has linked is nobody'
);
select results_eq(
  $$
    select issuer, subject, user_id
    from billing_admin.link_identity(
      'https://clerk.example', 'user_1', md5('ann')::uuid, 'moved from Clerk')
  $$,
  $$ values ('https://clerk.example', 'user_1', md5('ann')::uuid) $$,
  'an administrator says who it is'
);
select is(
  tests.who('https://clerk.example', 'user_1'), md5('ann')::uuid, 'then it is'
);
select is(
  (billing_admin.link_identity(
    'https://clerk.example', 'user_1', md5('bob')::uuid, 'the other')).user_id,
  md5('bob')::uuid, 'who is linked again is somebody else'
);
select is(tests.who('https://clerk.example', 'user_1'), md5('bob')::uuid, 'from then on');
select throws_ok(
  $$ select billing_admin.link_identity('https://x.example/auth/v1', 'a', md5('ann')::uuid, 'r') $$,
  'PT400', 'the request is not valid', 'users of Supabase Auth cannot be taken for others'
);
select throws_ok(
  $$ select billing_admin.link_identity('', 'user_1', md5('ann')::uuid, 'r') $$,
  'PT400', 'the request is not valid', 'an issuer is needed'
);
select throws_ok(
  $$ select billing_admin.link_identity('https://clerk.example', ' ', md5('ann')::uuid, 'r') $$,
  'PT400', 'the request is not valid', 'and a subject'
);
select throws_ok(
  $$ select billing_admin.link_identity('https://clerk.example', 'user_1', null, 'r') $$,
  'PT400', 'the request is not valid', 'and a user'
);
select throws_ok(
  $$ select billing_admin.link_identity('https://clerk.example', 'user_1', md5('ann')::uuid, '') $$,
  'PT400', 'the request is not valid', 'and a reason'
);
select lives_ok(
  $$ select billing_admin.unlink_identity('https://clerk.example', 'user_1', 'left') $$,
  'an administrator takes a link away'
);
select is(tests.who('https://clerk.example', 'user_1'), null, 'then it is nobody again');
select lives_ok(
  $$ select billing_admin.unlink_identity('https://clerk.example', 'user_1', 'left') $$,
  'twice is no error'
);
select tests.be_owner();
select results_eq(
  $$
    select action, subject, reason, actor_id
    from billing_private.admin_actions
    where action in ('link_identity', 'unlink_identity')
    order by id
    limit 1
  $$,
  $$
    values ('link_identity', 'https://clerk.example user_1', 'moved from Clerk', md5('eve')::uuid)
  $$,
  'what administrators did, and why, is recorded'
);

-- ---- a second factor --------------------------------------------------------

select tests.sign_in('eve');
select throws_ok(
  $$ select billing_admin.require_mfa_for_admins(true, 'policy') $$,
  'PT403', 'administrators confirm a second factor first',
  'who has no second factor cannot demand one, and so locks nobody out'
);
select throws_ok(
  $$ select billing_admin.require_mfa_for_admins(null, 'policy') $$,
  'PT400', 'the request is not valid', 'yes or no is needed'
);
select tests.sign_in('eve', '{"aal": "aal2"}');
select lives_ok(
  $$ select billing_admin.require_mfa_for_admins(true, 'policy') $$,
  'who has one can'
);
select tests.sign_in('eve');
select throws_ok(
  'select * from billing_admin.system_health',
  'PT403', 'administrators confirm a second factor first',
  'then nothing of billing_admin is seen without it'
);
select throws_ok(
  $$ select billing_admin.require_mfa_for_admins(false, 'no more') $$,
  'PT403', 'administrators confirm a second factor first', 'nor switched off'
);
select tests.sign_in('ann', '{"aal": "aal2"}');
select throws_ok(
  'select * from billing_admin.system_health',
  'PT403', 'this needs a billing administrator', 'and a second factor makes nobody administrator'
);
select tests.be_service();
select lives_ok(
  'select * from billing_admin.system_health', 'a server with the secret key needs none'
);
select tests.sign_in('eve', '{"aal": "aal2"}');
select lives_ok(
  $$ select billing_admin.require_mfa_for_admins(false, 'no more') $$,
  'an administrator with a second factor switches it off'
);

select * from finish();
rollback;
