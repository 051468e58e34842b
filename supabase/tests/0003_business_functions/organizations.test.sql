-- Organizations: who may make them, come in, go, and decide about others.
begin;
\ir ../helpers.psql
select plan(86);

select tests.catalog();
select tests.set_time('2026-01-10 12:00');

-- What somebody is told, as code and message, or null; the token of an invitation.
create function tests.invite(p_by text, p_to text, p_role text default 'member') returns text
language plpgsql as $$
declare
  v_token text;
begin
  perform tests.sign_in(p_by);
  select token into v_token
  from billing.invite_member(
    (select id from billing.accounts where kind = 'organization'), p_to || '@example.com', p_role);
  return v_token;
end;
$$;
create function tests.join(p_who text, p_by text, p_role text default 'member') returns text
language plpgsql as $$
declare
  v_token text := tests.invite(p_by, p_who, p_role);
begin
  perform tests.sign_in(p_who);
  return (billing.accept_invitation(v_token)).role;
end;
$$;
create function tests.roles() returns table (name text, role text)
language sql security definer as $$
  select people.name, memberships.role
  from billing.memberships
  join unnest(array['ann', 'bob', 'carl', 'dora', 'eve', 'fred']) as people (name)
    on md5(people.name)::uuid = user_id
  order by 1;
$$;

-- ---- making one -------------------------------------------------------------

select tests.sign_in('ann');
select results_eq(
  $$ select kind, name, closed_at from billing.create_organization('  Acme  ') $$,
  $$ values ('organization', 'Acme', null::timestamptz) $$,
  'anybody who is signed in can make an organization'
);
select tests.be_owner();
select id as acme from billing.accounts where name = 'Acme' \gset
select set_config('tests.acme', :'acme', true);
create function tests.acme() returns uuid
language sql as $$ select current_setting('tests.acme')::uuid $$;
grant execute on all functions in schema tests to anon, authenticated, service_role;

select results_eq(
  'select * from tests.roles()', $$ values ('ann', 'owner') $$,
  'whoever makes it is its owner'
);
select results_eq(
  $$
    select actor_id, cause ->> 'reason'
    from billing_private.audit_log
    where table_name = 'billing.memberships'
  $$,
  $$ values (md5('ann')::uuid, 'create organization') $$,
  'who became what, by whom, is in the audit'
);

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.create_organization(' ') $$,
  'PT400', 'the request is not valid', 'an organization has a name'
);
select throws_ok(
  $$ select billing.create_organization(null) $$,
  'PT400', 'the request is not valid', 'null is no name'
);
select lives_ok(
  $$ select billing.rename_organization(tests.acme(), repeat('x', 200)) $$,
  'a name may have 200 characters'
);
select throws_ok(
  $$ select billing.rename_organization(tests.acme(), repeat('x', 201)) $$,
  'PT400', 'the request is not valid', 'but not 201'
);
select is(
  (billing.rename_organization(tests.acme(), 'Acme')).name, 'Acme', 'an owner renames it'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.create_organization('Acme') $$,
  '42501', 'permission denied for function create_organization', 'a visitor cannot make one'
);
select tests.be_service();
select throws_ok(
  $$ select billing.create_organization('Acme') $$,
  'PT401', 'sign in first', 'nor can a server, which nobody is behind'
);

-- ---- inviting ---------------------------------------------------------------

select tests.sign_in('ann');
select results_eq(
  $$
    select email, role, length(token), expires_at
    from billing.invite_member(tests.acme(), ' Bob@Example.com ', 'admin')
  $$,
  $$ values ('bob@example.com', 'admin', 64, timestamptz '2026-01-17 12:00') $$,
  'an owner invites an admin, and gets a token for a week'
);
select tests.be_owner();
select is_empty(
  $$
    select token_hash from billing_private.invitation_tokens
    where token_hash !~ '^[0-9a-f]{64}$'
      or token_hash in (select after ->> 'token' from billing_private.audit_log where after is not null)
  $$,
  'the token is kept nowhere, only its hash is'
);
select tests.sign_in('ann');
select results_eq(
  'select email, role, invited_by from billing.invitations',
  $$ values ('bob@example.com', 'admin', md5('ann')::uuid) $$,
  'whoever manages members sees who is invited'
);

select tests.invite('ann', 'bob', 'admin') as first_token \gset
select tests.invite('ann', 'bob', 'admin') as token \gset
select isnt(:'first_token'::text, :'token', 'each invitation has a token of its own');
select tests.sign_in('bob');
select is_empty('select * from billing.invitations', 'whoever is invited does not see it');
select throws_ok(
  format('select billing.accept_invitation(%L)', :'first_token'),
  'PT422', 'the invitation is not open any more',
  'an invitation that a newer one replaced lets nobody in'
);
select throws_ok(
  $$ select billing.accept_invitation('guess') $$,
  'PT404', 'there is no such invitation', 'a token nobody was given lets nobody in'
);
select throws_ok(
  $$ select billing.accept_invitation(null) $$,
  'PT404', 'there is no such invitation', 'nor does none'
);
select results_eq(
  format('select account_id, user_id, role from billing.accept_invitation(%L)', :'token'),
  $$ values (tests.acme(), md5('bob')::uuid, 'admin') $$,
  'whoever brings the token is in, as what they were invited'
);
select is(
  (billing.accept_invitation(:'token')).role, 'admin',
  'a double click is no error'
);
select tests.sign_in('carl');
select throws_ok(
  format('select billing.accept_invitation(%L)', :'token'),
  'PT422', 'the invitation is not open any more',
  'a token lets one person in, once'
);
select tests.sign_in('nobody', '{"iss": "https://other.example", "sub": "user_1"}');
select throws_ok(
  format('select billing.accept_invitation(%L)', :'token'),
  'PT401', 'sign in first', 'whoever is nobody here has to sign in first'
);

select tests.sign_in('bob');
select throws_ok(
  $$ select tests.invite('bob', 'dora', 'owner') $$,
  'PT403', 'your role in this account does not allow this', 'an admin invites no owners'
);
select is(tests.join('carl', 'bob'), 'member', 'an admin invites members');
select throws_ok(
  $$ select tests.invite('carl', 'dora') $$,
  'PT403', 'your role in this account does not allow this', 'a member invites nobody'
);
select tests.sign_in('carl');
select is_empty('select * from billing.invitations', 'nor sees who is invited');
select throws_ok(
  $$ select tests.invite('dora', 'eve') $$,
  'PT403', 'you are not a member of this account', 'a stranger invites nobody'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.invite_member(tests.acme(), 'dora') $$,
  'PT400', 'the request is not valid', 'an address is needed'
);
select throws_ok(
  $$ select billing.invite_member(tests.acme(), 'dora@example.com', 'king') $$,
  'PT400', 'the request is not valid', 'and a role that exists'
);
select throws_ok(
  $$ select billing.invite_member(tests.acme(), 'dora@example.com', 'member', '91 days') $$,
  'PT400', 'the request is not valid', 'and a time that is not too long'
);
select throws_ok(
  $$ select billing.invite_member(md5('ann')::uuid, 'dora@example.com') $$,
  'PT422', 'a personal account has no members', 'a personal account has no members'
);

-- An address that signed up: whoever has it and is in already is not invited again.
select tests.be_owner();
insert into auth.users (id, email) values (md5('bob')::uuid, 'Bob@example.com');
select throws_ok(
  $$ select tests.invite('ann', 'bob') $$,
  'PT409', 'this person is a member already', 'a member is not invited again'
);
select tests.invite('ann', 'bobs.other.address') as token \gset
select tests.sign_in('bob');
select throws_ok(
  format('select billing.accept_invitation(%L)', :'token'),
  'PT409', 'this person is a member already', 'nor can they come in twice'
);

-- ---- too late, and withdrawn ------------------------------------------------

select tests.invite('ann', 'dora') as token \gset
select tests.set_time('2026-01-17 12:00');
select tests.sign_in('dora');
select throws_ok(
  format('select billing.accept_invitation(%L)', :'token'),
  'PT422', 'the invitation is not open any more', 'at the end of its time it is too late'
);
select tests.set_time('2026-01-17 11:59:59.999');
select is((billing.accept_invitation(:'token')).role, 'member', 'just before it is not');

select tests.invite('ann', 'eve') as token \gset
select tests.be_owner();
select id as invitation from billing.invitations where email = 'eve@example.com' \gset
select tests.sign_in('carl');
select throws_ok(
  format('select billing.revoke_invitation(tests.acme(), %L)', :'invitation'),
  'PT403', 'your role in this account does not allow this', 'a member withdraws no invitation'
);
select tests.sign_in('bob');
select isnt(
  (billing.revoke_invitation(tests.acme(), :'invitation')).revoked_at, null,
  'an admin withdraws it'
);
select isnt(
  (billing.revoke_invitation(tests.acme(), :'invitation')).revoked_at, null,
  'twice is no error'
);
select throws_ok(
  $$ select billing.revoke_invitation(tests.acme(), md5('none')::uuid) $$,
  'PT404', 'there is no such invitation', 'one that never was cannot be withdrawn'
);
select tests.sign_in('ann');
select billing.create_organization('Other') is not null;
select throws_ok(
  format(
    'select billing.revoke_invitation(%L, %L)',
    (select id from billing.accounts where name = 'Other'), :'invitation'),
  'PT404', 'there is no such invitation', 'nor one of another organization'
);
select tests.sign_in('eve');
select throws_ok(
  format('select billing.accept_invitation(%L)', :'token'),
  'PT422', 'the invitation is not open any more', 'then it lets nobody in'
);
select tests.be_owner();
delete from billing.memberships using billing.accounts
where accounts.id = account_id and accounts.name = 'Other';
delete from billing.accounts where name = 'Other';
select id as invitation from billing.invitations where email = 'dora@example.com' \gset
select tests.sign_in('ann');
select throws_ok(
  format('select billing.revoke_invitation(tests.acme(), %L)', :'invitation'),
  'PT422', 'the invitation is not open any more', 'one that was used cannot be withdrawn'
);

-- ---- roles ------------------------------------------------------------------

select results_eq(
  'select * from tests.roles()',
  $$ values ('ann', 'owner'), ('bob', 'admin'), ('carl', 'member'), ('dora', 'member') $$,
  'so far there are an owner, an admin and two members'
);
select tests.sign_in('carl');
select set_eq(
  'select user_id, role from billing.memberships',
  $$
    select md5(name)::uuid, role
    from (values ('ann', 'owner'), ('bob', 'admin'), ('carl', 'member'), ('dora', 'member'))
      as people (name, role)
  $$,
  'members see who belongs to their organization'
);
select throws_ok(
  $$ select billing.change_role(tests.acme(), md5('dora')::uuid, 'admin') $$,
  'PT403', 'your role in this account does not allow this', 'a member changes nobody''s role'
);
select throws_ok(
  $$ select billing.change_role(tests.acme(), md5('carl')::uuid, 'owner') $$,
  'PT403', 'your role in this account does not allow this', 'their own least of all'
);
select tests.sign_in('bob');
select is(
  (billing.change_role(tests.acme(), md5('dora')::uuid, 'admin')).role, 'admin',
  'an admin makes an admin'
);
select is(
  (billing.change_role(tests.acme(), md5('dora')::uuid, 'admin')).role, 'admin',
  'twice is no error'
);
select throws_ok(
  $$ select billing.change_role(tests.acme(), md5('bob')::uuid, 'owner') $$,
  'PT403', 'your role in this account does not allow this', 'an admin makes no owner'
);
select throws_ok(
  $$ select billing.change_role(tests.acme(), md5('ann')::uuid, 'member') $$,
  'PT403', 'your role in this account does not allow this', 'and unmakes none'
);
select throws_ok(
  $$ select billing.remove_member(tests.acme(), md5('ann')::uuid) $$,
  'PT403', 'your role in this account does not allow this', 'and removes none'
);
select throws_ok(
  $$ select billing.change_role(tests.acme(), md5('eve')::uuid, 'admin') $$,
  'PT404', 'there is no such member', 'who is no member has no role'
);
select throws_ok(
  $$ select billing.change_role(tests.acme(), md5('dora')::uuid, 'king') $$,
  'PT400', 'the request is not valid', 'a role that does not exist is nobody''s'
);

-- ---- owners -----------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.change_role(tests.acme(), md5('ann')::uuid, 'admin') $$,
  'PT422', 'an organization keeps at least one owner', 'the last owner stays one'
);
select throws_ok(
  $$ select billing.leave_organization(tests.acme()) $$,
  'PT422', 'an organization keeps at least one owner', 'and cannot leave'
);
select throws_ok(
  $$ select billing.remove_member(tests.acme(), md5('ann')::uuid) $$,
  'PT422', 'an organization keeps at least one owner', 'nor remove herself'
);
select throws_ok(
  $$ select billing.transfer_ownership(tests.acme(), md5('eve')::uuid) $$,
  'PT404', 'there is no such member', 'nor hand it to whoever is not in'
);
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.transfer_ownership(tests.acme(), md5('bob')::uuid) $$,
  'PT403', 'your role in this account does not allow this', 'an admin takes nothing over'
);
select tests.sign_in('ann');
select is(
  (billing.transfer_ownership(tests.acme(), md5('ann')::uuid)).role, 'owner',
  'to hand it to oneself changes nothing'
);
select is(
  (billing.transfer_ownership(tests.acme(), md5('dora')::uuid)).role, 'owner',
  'an owner hands the organization over'
);
select results_eq(
  'select * from tests.roles()',
  $$ values ('ann', 'admin'), ('bob', 'admin'), ('carl', 'member'), ('dora', 'owner') $$,
  'and is an admin then'
);
select throws_ok(
  $$ select billing.transfer_ownership(tests.acme(), md5('bob')::uuid) $$,
  'PT403', 'your role in this account does not allow this', 'who cannot do it again'
);
select tests.sign_in('dora');
select is(
  (billing.change_role(tests.acme(), md5('ann')::uuid, 'owner')).role, 'owner',
  'an owner makes another owner'
);
select is(
  (billing.change_role(tests.acme(), md5('dora')::uuid, 'member')).role, 'member',
  'and may then step down'
);
select tests.be_service();
select is(
  (billing.transfer_ownership(tests.acme(), md5('dora')::uuid)).role, 'owner',
  'a server makes an owner too'
);
select results_eq(
  'select * from tests.roles()',
  $$ values ('ann', 'owner'), ('bob', 'admin'), ('carl', 'member'), ('dora', 'owner') $$,
  'who was owner stays owner then'
);
select throws_ok(
  $$ select billing.invite_member(md5('none')::uuid, 'x@example.com') $$,
  'PT404', 'there is no such account', 'a server is told of an account that does not exist'
);

-- ---- going ------------------------------------------------------------------

select tests.sign_in('carl');
select is(
  (billing.leave_organization(tests.acme())).user_id, md5('carl')::uuid, 'a member leaves'
);
select throws_ok(
  $$ select billing.leave_organization(tests.acme()) $$,
  'PT403', 'you are not a member of this account', 'and has left'
);
select throws_ok(
  $$ select billing.leave_organization(md5('carl')::uuid) $$,
  'PT422', 'a personal account has no members', 'nobody leaves their own account'
);
select tests.sign_in('ann');
select is(
  (billing.remove_member(tests.acme(), md5('dora')::uuid)).role, 'owner',
  'an owner removes another owner'
);
select tests.sign_in('bob');
select is(
  (billing.remove_member(tests.acme(), md5('bob')::uuid)).role, 'admin',
  'an admin may remove themselves'
);
select results_eq(
  'select * from tests.roles()', $$ values ('ann', 'owner') $$, 'in the end one owner is left'
);
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.rename_organization(tests.acme(), 'Mine') $$,
  'PT403', 'you are not a member of this account', 'whoever went decides nothing any more'
);

-- ---- what members see -------------------------------------------------------

select tests.be_owner();
insert into billing.customers (account_id, is_primary, stripe_customer_id)
values (tests.acme(), true, 'cus_acme');
select tests.subscribe('acme');
select tests.deliver('evt_in_acme', 'invoice.paid', '2026-01-10', '{
  "id": "in_acme", "object": "invoice", "status": "paid", "customer": "cus_acme",
  "currency": "usd", "created": 1768000000, "total": 1000, "subscription": "sub_acme",
  "lines": {"data": [{"id": "il_acme", "amount": 1000, "currency": "usd"}]}}');
select tests.join('carl', 'ann');
select tests.join('bob', 'ann', 'admin');

select tests.sign_in('carl');
select ok(
  billing.has_entitlement('premium', tests.acme()), 'a member has what the organization has'
);
select is(
  billing.has_entitlement('premium'), false, 'but not by themselves'
);
select results_eq(
  'select membership_tier from billing.profiles', $$ values ('plus') $$,
  'a member sees the organization''s tier'
);
select results_eq(
  $$ select status from billing.my_subscription(tests.acme()) $$, $$ values ('active') $$,
  'and its subscription'
);
select is_empty(
  $$
    select 'invoice' from billing.invoices
    union all
    select 'line' from billing.invoice_lines
    union all
    select 'customer' from billing.customers
    union all
    select 'payment' from billing.payment_history
    union all
    select 'change' from billing.subscription_changes
  $$,
  'but not its invoices, nor what it pays'
);
select tests.be_owner();
update billing.invoices
set status = 'open', hosted_invoice_url = 'https://invoice.stripe.com/i/1'
where stripe_invoice_id = 'in_acme';
select tests.sign_in('carl');
select is(
  (select open_invoice_url from billing.my_subscription(tests.acme())), null,
  'nor is led to an unpaid one'
);
select throws_ok(
  $$ select billing.cancel_subscription(account_id => tests.acme()) $$,
  'PT403', 'your role in this account does not allow this', 'and cannot cancel'
);
select tests.sign_in('bob');
select results_eq(
  'select stripe_invoice_id from billing.invoices', $$ values ('in_acme') $$,
  'an admin sees its invoices'
);
select is(
  (select open_invoice_url from billing.my_subscription(tests.acme())),
  'https://invoice.stripe.com/i/1', 'and is led to the unpaid one'
);
select ok(
  (select pending_command is not null
   from billing.cancel_subscription(account_id => tests.acme())),
  'and may cancel'
);
select tests.sign_in('ann');
select billing.remove_member(tests.acme(), md5('carl')::uuid) is not null;
select tests.sign_in('carl');
select is(
  billing.has_entitlement('premium', tests.acme()), false,
  'whoever is removed has nothing of it any more, at once'
);
select is_empty(
  'select id from billing.accounts where id = tests.acme()', 'and sees nothing of it'
);

select * from finish();
rollback;
