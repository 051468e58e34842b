-- Who is calling, as code that runs with its owner's rights finds out.
begin;
\ir ../helpers.psql
select plan(44);

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
