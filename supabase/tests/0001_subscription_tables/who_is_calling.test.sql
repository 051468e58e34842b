-- Who is calling, as code that runs with its owner's rights finds out.
begin;
\ir ../helpers.psql
select plan(74);

-- These functions are called by definer code alone; so here.
create function tests.caller_role() returns text
language sql security definer as 'select billing_private.caller_role()';
create function tests.is_trusted() returns boolean
language sql security definer as 'select billing_private.is_trusted()';
create function tests.is_admin() returns boolean
language sql security definer as 'select billing_private.is_admin()';
create function tests.require_admin() returns void
language sql security definer as 'select billing_private.require_admin()';
create function tests.my_account_ids() returns setof uuid
language sql security definer as 'select billing_private.my_account_ids()';

insert into billing_private.administrators (user_id, reason)
values (md5('eve')::uuid, 'runs the shop');

-- ---- the owner --------------------------------------------------------------

select is(tests.caller_role(), session_user::text, 'the owner''s own session is who connected');
select ok(tests.is_trusted(), 'the owner is trusted');
select ok(tests.is_admin(), 'the owner is an administrator');
select lives_ok('select tests.require_admin()', 'the owner may use billing_admin');
select is_empty('select tests.my_account_ids()', 'the owner belongs to no account');

-- ---- the Edge Functions -----------------------------------------------------

select tests.be_service();

select is(tests.caller_role(), 'service_role', 'the Edge Functions are known by their role');
select ok(tests.is_trusted(), 'the Edge Functions are trusted');
select ok(tests.is_admin(), 'the Edge Functions are administrators');
select lives_ok('select tests.require_admin()', 'the Edge Functions may use billing_admin');
select is_empty('select tests.my_account_ids()', 'the Edge Functions belong to no account');

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('eve');

select is(tests.caller_role(), 'authenticated', 'a user is known by the role of users');
select ok(not tests.is_trusted(), 'an administrator is not trusted like the owner');
select ok(tests.is_admin(), 'a listed user is an administrator');
select lives_ok('select tests.require_admin()', 'a listed user may use billing_admin');
select results_eq(
  'select tests.my_account_ids()', array[md5('eve')::uuid],
  'an administrator belongs to her own account alone'
);

-- ---- a user -----------------------------------------------------------------

select tests.sign_in('ann');

select ok(not tests.is_trusted(), 'a user is not trusted');
select ok(not tests.is_admin(), 'a user is no administrator');
select throws_ok(
  'select tests.require_admin()',
  'PT403', 'this needs a billing administrator',
  'a user may not use billing_admin'
);
select results_eq(
  'select tests.my_account_ids()', array[md5('ann')::uuid],
  'a user belongs to their own account, before it exists'
);

-- The role in the token is PostgREST's to check; what it set is what counts.
select tests.sign_in('ann', '{"role": "service_role"}');
select ok(not tests.is_trusted(), 'what a token says of a role is not believed');

select tests.sign_in('ann', '{"user_metadata": {"admin": true}, "app_metadata": {"admin": true}}');
select ok(not tests.is_admin(), 'what a token says of administrators is not believed');

select tests.sign_in('ann', '{"sub": null}');
select is_empty('select tests.my_account_ids()', 'a token without a subject belongs to no account');
select ok(not tests.is_admin(), 'a token without a subject is no administrator''s');

select tests.be_owner();
delete from billing_private.administrators;
select tests.sign_in('eve');
select ok(not tests.is_admin(), 'who is taken off the list is no administrator any more');

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();

select is(tests.caller_role(), 'anon', 'a visitor is known by the role of visitors');
select ok(not tests.is_trusted(), 'a visitor is not trusted');
select ok(not tests.is_admin(), 'a visitor is no administrator');
select throws_ok(
  'select tests.require_admin()',
  'PT403', 'this needs a billing administrator',
  'a visitor may not use billing_admin'
);
select is_empty('select tests.my_account_ids()', 'a visitor belongs to no account');

-- ---- a member of an organization ---------------------------------------------

select tests.be_owner();
insert into billing.accounts (id, kind, name) values (md5('acme')::uuid, 'organization', 'Acme');
insert into billing.memberships (account_id, user_id, role) values
  (md5('acme')::uuid, md5('ann')::uuid, 'owner'),
  (md5('acme')::uuid, md5('bob')::uuid, 'admin'),
  (md5('acme')::uuid, md5('carl')::uuid, 'member');
create function tests.my_account_ids(p_permission text) returns setof uuid
language sql security definer as 'select billing_private.my_account_ids(p_permission)';
create function tests.require_permission(p_account_id uuid, p_permission text) returns void
language sql security definer
as 'select billing_private.require_permission(p_account_id, p_permission)';

select tests.sign_in('carl');
select set_eq(
  'select tests.my_account_ids()', array[md5('carl')::uuid, md5('acme')::uuid],
  'a member belongs to the organization, and still to their own account'
);
select set_eq(
  $$ select tests.my_account_ids('use_features') $$, array[md5('carl')::uuid, md5('acme')::uuid],
  'a member may use what the organization has'
);
select set_eq(
  $$ select tests.my_account_ids('view_billing') $$, array[md5('carl')::uuid],
  'a member sees only their own billing'
);
select lives_ok(
  $$ select tests.require_permission(md5('carl')::uuid, 'own_account') $$,
  'everybody may do everything in their personal account'
);
select lives_ok(
  $$ select tests.require_permission(md5('acme')::uuid, 'use_features') $$,
  'what a role allows is allowed'
);
select throws_ok(
  $$ select tests.require_permission(md5('acme')::uuid, 'manage_billing') $$,
  'PT403', 'your role in this account does not allow this',
  'what a role does not allow is refused'
);

select tests.sign_in('bob');
select set_eq(
  $$ select tests.my_account_ids('manage_members') $$, array[md5('bob')::uuid, md5('acme')::uuid],
  'an admin manages members'
);
select set_eq(
  $$ select tests.my_account_ids('own_account') $$, array[md5('bob')::uuid],
  'an admin does not own the organization'
);
select is_empty(
  $$
    select *
    from tests.my_account_ids('no such permission') as id
    where id <> md5('bob')::uuid
  $$,
  'a permission nobody has heard of is nobody''s in an organization'
);

select tests.sign_in('ann');
select set_eq(
  $$ select tests.my_account_ids('own_account') $$, array[md5('ann')::uuid, md5('acme')::uuid],
  'an owner owns it'
);

select tests.sign_in('dora');
select throws_ok(
  $$ select tests.require_permission(md5('acme')::uuid, 'use_features') $$,
  'PT403', 'you are not a member of this account',
  'a stranger is no member'
);
select throws_ok(
  $$ select tests.require_permission(md5('no such account')::uuid, 'use_features') $$,
  'PT403', 'you are not a member of this account',
  'and learns nothing of which accounts exist'
);

select tests.sign_out();
select throws_ok(
  $$ select tests.require_permission(md5('acme')::uuid, 'use_features') $$,
  'PT401', 'sign in first',
  'a visitor has to sign in first'
);
select is_empty($$ select tests.my_account_ids('use_features') $$, 'and belongs to no account');

select tests.be_service();
select lives_ok(
  $$ select tests.require_permission(md5('acme')::uuid, 'own_account') $$,
  'the Edge Functions may act for any account'
);

-- ---- a token of another issuer ----------------------------------------------

select tests.be_owner();
insert into billing.external_identities (issuer, subject, user_id) values
  ('https://clerk.example', 'user_2abc', md5('ann')::uuid),
  ('https://stack.example', md5('stack user')::uuid::text, md5('bob')::uuid),
  ('https://project.example/auth/v1', md5('carl')::uuid::text, md5('ann')::uuid);

select tests.sign_in('nobody', '{"iss": "https://clerk.example", "sub": "user_2abc"}');
select results_eq(
  'select user_id from billing.caller', array[md5('ann')::uuid],
  'a subject that is no uuid is whom it was linked to'
);
select set_eq(
  'select tests.my_account_ids()', array[md5('ann')::uuid, md5('acme')::uuid],
  'with all that is theirs'
);

select tests.sign_in('stack user', '{"iss": "https://stack.example"}');
select results_eq(
  'select user_id from billing.caller', array[md5('bob')::uuid],
  'so is one that is a uuid'
);

select tests.sign_in('nobody', '{"iss": "https://other.example", "sub": "user_2abc"}');
select results_eq(
  'select user_id from billing.caller', array[null::uuid],
  'the same subject of another issuer is somebody else'
);
select is_empty('select tests.my_account_ids()', 'a subject nobody linked belongs to no account');
select ok(not tests.is_admin(), 'and is no administrator');
select is(
  billing.has_entitlement('premium'), false, 'and is entitled to nothing, without an error'
);
select is_empty('select * from billing.subscriptions', 'and sees no rows, without an error');
select throws_ok(
  'select * from billing.my_subscription()', 'PT401', 'sign in first',
  'an RPC takes them for nobody'
);

select tests.sign_in('nobody', '{"sub": "user_2abc"}');
select results_eq(
  'select user_id from billing.caller', array[null::uuid],
  'without an issuer nobody was linked'
);

select tests.sign_in('nobody', '{"iss": "https://other.example"}');
select results_eq(
  'select user_id from billing.caller', array[md5('nobody')::uuid],
  'a uuid that was not linked is the user''s own'
);

select tests.sign_in('carl', '{"iss": "https://project.example/auth/v1"}');
select results_eq(
  'select user_id from billing.caller', array[md5('carl')::uuid],
  'the tokens of Supabase Auth are believed as they are'
);

select tests.be_owner();
select set_config('request.jwt.claims', '["a list"]', true);
select results_eq(
  'select user_id from billing.caller', array[null::uuid],
  'claims that are no object name nobody'
);

-- ---- a second factor --------------------------------------------------------

update billing_private.settings set require_mfa_for_admins = true where only_row;
insert into billing_private.administrators (user_id, reason) values (md5('eve')::uuid, 'back');

select tests.sign_in('eve');
select throws_ok(
  'select tests.require_admin()',
  'PT403', 'administrators confirm a second factor first',
  'where the settings require it, an administrator without a second factor is refused'
);
select tests.sign_in('eve', '{"aal": "aal2"}');
select lives_ok('select tests.require_admin()', 'and with one is let in');

-- ---- whoever connects for others --------------------------------------------

select tests.be_owner();
grant usage on schema tests to authenticator;
select set_config('role', 'authenticator', true);
select tests.is_trusted() as was_trusted \gset
select tests.be_owner();

select ok(
  not :'was_trusted'::boolean,
  'the role the Data API connects with is trusted with nothing before it took another'
);

-- ---- a reason ---------------------------------------------------------------

select lives_ok(
  $$ select billing_private.require_reason('x') $$,
  'a reason may be as short as one letter'
);

select throws_ok(
  $$ select billing_private.require_reason('') $$,
  'PT400', 'the request is not valid',
  'an empty reason is none'
);

select throws_ok(
  $$ select billing_private.require_reason('  ') $$,
  'PT400', 'the request is not valid',
  'blanks are no reason'
);

select throws_ok(
  $$ select billing_private.require_reason(E'\t\n') $$,
  'PT400', 'the request is not valid',
  'nor is other white space'
);

select throws_ok(
  $$ select billing_private.require_reason(null) $$,
  'PT400', 'the request is not valid',
  'no reason is none'
);

-- ---- which request ----------------------------------------------------------

create function tests.request_id_with(p_headers text) returns text
language plpgsql as $$
begin
  perform set_config('request.headers', p_headers, true);
  return billing_private.request_id();
end;
$$;

select is(billing_private.request_id(), null, 'outside of a request there is no request id');
select is(
  tests.request_id_with('{"x-request-id": "req-1", "host": "example.com"}'), 'req-1',
  'the request id is the header''s'
);
select is(tests.request_id_with('{"host": "example.com"}'), null, 'a request may have none');
select is(tests.request_id_with(''), null, 'headers may be empty');
select is(tests.request_id_with('not json'), null, 'headers nobody can read are no error');
select is(tests.request_id_with('["x-request-id"]'), null, 'nor are headers that are no object');
select is(
  length(tests.request_id_with(format('{"x-request-id": "%s"}', repeat('x', 200)))), 200,
  'a request id may have 200 characters'
);
select is(
  length(tests.request_id_with(format('{"x-request-id": "%s"}', repeat('x', 201)))), 200,
  'what is longer is cut: it is kept with every row that follows'
);
select is(
  tests.request_id_with('{"x-request-id": "a\u0000b"}'), null,
  'a character no text can hold is no error either'
);

select * from finish();
rollback;
