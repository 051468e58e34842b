-- billing.accounts: made when first needed; and which account a request is about.
begin;
\ir ../helpers.psql
select plan(36);

select tests.set_time('2026-01-10');

-- Called by definer code alone; so here.
create function tests.resolve_account(p_account_id uuid) returns uuid
language sql security definer as 'select billing_private.resolve_account(p_account_id)';
create function tests.details_of_resolving(p_account_id uuid) returns jsonb
language plpgsql as $$
declare
  v_detail text;
begin
  perform tests.resolve_account(p_account_id);
  return null;
exception when others then
  get stacked diagnostics v_detail = pg_exception_detail;
  return v_detail;
end;
$$;

-- ---- a personal account -----------------------------------------------------

select is(
  billing_private.ensure_account(md5('ann')::uuid), md5('ann')::uuid,
  'the personal account of a user has the user''s id'
);

select row_eq(
  $$
    select id, kind, name, created_at, closed_at
    from billing.accounts
    where id = md5('ann')::uuid
  $$,
  row(md5('ann')::uuid, 'personal'::text, null::text, '2026-01-10'::timestamptz,
    null::timestamptz),
  'it is personal, without a name, open, and made now'
);

select tests.set_time('2026-01-11');
select is(
  billing_private.ensure_account(md5('ann')::uuid), md5('ann')::uuid,
  'making it twice gives the same account'
);

select results_eq(
  'select created_at from billing.accounts', array['2026-01-10'::timestamptz],
  'and changes nothing'
);

insert into billing.accounts (id, kind, name) values (md5('acme')::uuid, 'organization', 'Acme');
select billing_private.ensure_account(md5('acme')::uuid);
select is(
  (select kind from billing.accounts where id = md5('acme')::uuid), 'organization',
  'an account that is there stays what it is'
);

-- ---- what an account can be -------------------------------------------------

select throws_ok(
  $$ insert into billing.accounts (kind) values ('team') $$,
  '23514', 'new row for relation "accounts" violates check constraint "accounts_kind_is_known"',
  'an account is personal or an organization'
);

select lives_ok(
  $$ insert into billing.accounts (id) values (md5('a user nobody knows')::uuid) $$,
  'an account outlives its user: no key leads to auth.users'
);

-- ---- a member: which account ------------------------------------------------

select tests.sign_in('ben');

select is(
  tests.resolve_account(null), md5('ben')::uuid,
  'who names no account means their own'
);

select results_eq(
  'select id, kind from billing.accounts',
  $$ values (md5('ben')::uuid, 'personal'::text) $$,
  'which is made by the first request that needs it'
);

select is(
  tests.resolve_account(md5('ben')::uuid), md5('ben')::uuid,
  'their own account may be named'
);

select throws_ok(
  $$ select tests.resolve_account(md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'somebody else''s account is refused'
);

select is(
  tests.details_of_resolving(md5('ann')::uuid),
  jsonb_build_object('code', 'NOT_A_MEMBER', 'account_id', md5('ann')::uuid),
  'with the account that was asked for'
);

select throws_ok(
  $$ select tests.resolve_account(md5('nobody')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'an account that does not exist is refused with the same answer'
);

select throws_ok(
  $$ select tests.resolve_account(md5('acme')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'so is an organization'
);

select tests.be_owner();
select is_empty(
  $$ select from billing.accounts where id = md5('nobody')::uuid $$,
  'asking for an account makes none'
);

select tests.sign_in('cid');
select is(
  tests.resolve_account(md5('cid')::uuid), md5('cid')::uuid,
  'naming their own account makes it, too'
);

select isnt_empty(
  $$ select from billing.accounts where id = md5('cid')::uuid $$,
  'and there it is'
);

-- ---- a visitor: which account -----------------------------------------------

select tests.sign_out();

select throws_ok(
  'select tests.resolve_account(null)', 'PT401', 'sign in first',
  'a visitor has to sign in'
);

select throws_ok(
  $$ select tests.resolve_account(md5('ann')::uuid) $$, 'PT401', 'sign in first',
  'also to ask about an account that exists'
);

select throws_ok(
  $$ select tests.resolve_account(md5('nobody')::uuid) $$, 'PT401', 'sign in first',
  'or about one that does not'
);

-- ---- the Edge Functions and the owner ---------------------------------------

select tests.be_service();

select is(
  tests.resolve_account(md5('ann')::uuid), md5('ann')::uuid,
  'the Edge Functions may act for any account'
);

select is(
  tests.resolve_account(md5('acme')::uuid), md5('acme')::uuid,
  'an organization''s included'
);

select throws_ok(
  'select tests.resolve_account(null)', 'PT400', 'the request is not valid',
  'they have to say which, having none of their own'
);

select is(
  tests.details_of_resolving(null) ->> 'field', 'account_id',
  'and are told that it is the account that is missing'
);

select throws_ok(
  $$ select tests.resolve_account(md5('nobody')::uuid) $$,
  'PT404', 'there is no such account',
  'they are told when an account does not exist'
);

select tests.be_owner();

select is_empty(
  $$ select from billing.accounts where id = md5('nobody')::uuid $$,
  'and make none by asking'
);

select is(
  tests.resolve_account(md5('ann')::uuid), md5('ann')::uuid,
  'the owner may act for any account'
);

select throws_ok(
  'select tests.resolve_account(null)', 'PT400', 'the request is not valid',
  'the owner, too, has to say which'
);

-- ---- deleting ---------------------------------------------------------------

select lives_ok(
  $$ delete from billing.accounts where id = md5('a user nobody knows')::uuid $$,
  'an account nothing hangs on may be deleted by the owner'
);

select tests.catalog();
select billing_private.grant_entitlement(md5('ann')::uuid, 'premium', 'a gift', null, null);
select throws_like(
  $$ delete from billing.accounts where id = md5('ann')::uuid $$,
  '%violates%foreign key constraint%on table %',
  'an account with a financial record is never deleted'
);

-- ---- settings and administrators --------------------------------------------

select results_eq(
  'select stripe_livemode from billing_private.settings', array[false],
  'a new installation belongs to Stripe''s test mode'
);

select throws_ok(
  'insert into billing_private.settings default values',
  '23505', 'duplicate key value violates unique constraint "settings_pkey"',
  'there is one row of settings'
);

select throws_ok(
  'insert into billing_private.settings (only_row) values (false)',
  '23514', 'new row for relation "settings" violates check constraint "settings_is_one_row"',
  'and no second one under another key'
);

select lives_ok(
  $$
    insert into billing_private.administrators (user_id, reason)
    values (md5('eve')::uuid, 'runs the shop')
  $$,
  'an administrator is listed with a reason'
);

select throws_ok(
  $$ insert into billing_private.administrators (user_id, reason) values (md5('mal')::uuid, '') $$,
  '23514', 'new row for relation "administrators" violates check constraint '
    '"administrators_reason_is_given"',
  'never without'
);

select throws_ok(
  $$
    insert into billing_private.administrators (user_id, reason)
    values (md5('eve')::uuid, 'once more')
  $$,
  '23505', 'duplicate key value violates unique constraint "administrators_pkey"',
  'and once'
);

select * from finish();
rollback;
