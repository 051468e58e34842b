-- Closing accounts and deleting users: what ends, what is kept, and what is forgotten.
begin;
\ir ../helpers.psql
select plan(54);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-20');
insert into auth.users (id, email)
select md5(name)::uuid, name || '@example.com'
from unnest(array['ann', 'bob', 'carl', 'dora', 'eve']) as name;

create function tests.live(p_name text) returns void
language plpgsql as $$
begin
  perform tests.account(p_name);
  perform tests.subscribe(p_name, p_extra => jsonb_build_object(
    'metadata', jsonb_build_object('nickname', p_name)));
  perform tests.deliver('evt_cus_' || p_name, 'customer.updated', '2026-01-11', jsonb_build_object(
    'id', 'cus_' || p_name, 'object', 'customer', 'email', p_name || '@example.com',
    'name', p_name, 'created', 1768000000));
  perform tests.deliver('evt_in_' || p_name, 'invoice.paid', '2026-01-10', jsonb_build_object(
    'id', 'in_' || p_name, 'object', 'invoice', 'status', 'paid', 'total', 1000,
    'customer', 'cus_' || p_name, 'currency', 'usd', 'created', 1768000000,
    'subscription', 'sub_' || p_name,
    'lines', jsonb_build_object('data', jsonb_build_array(
      jsonb_build_object('id', 'il_' || p_name, 'amount', 1000, 'currency', 'usd')))));
  perform billing_private.grant_entitlement(md5(p_name)::uuid, 'hosting', 'a gift', null, null);
end;
$$;
create function tests.asked(p_name text) returns table (kind text, method text, path text)
language sql as $$
  select kind, method, path from billing_private.commands
  where account_id = md5(p_name)::uuid and status = 'pending'
  order by position;
$$;
create function tests.told_of(p_name text) returns setof text
language sql as $$
  select name from billing.accounts where id = md5(p_name)::uuid and name is not null
  union all
  select concat(email, name, told_email, told_name) from billing.customers
  where account_id = md5(p_name)::uuid
    and coalesce(email, name, told_email, told_name) is not null
  union all
  select concat(metadata, cancellation_feedback) from billing.subscriptions
  where account_id = md5(p_name)::uuid
    and (metadata <> '{}' or cancellation_feedback is not null);
$$;
create function tests.hers() returns uuid
language sql as $$ select md5('ann')::uuid $$;
grant execute on all functions in schema tests to anon, authenticated, service_role;

select tests.live('ann');
select tests.live('bob');
select billing_private.tell_customers(array[md5('ann')::uuid]) is not null;
select results_eq(
  $$ select count(*) from tests.told_of('ann') $$, $$ values (2::bigint) $$,
  'of ann there are a name, an address and her own words'
);

-- ---- a user closes her account ----------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.close_account(tests.hers()) $$,
  'PT403', 'you are not a member of this account', 'nobody closes another''s account'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.close_account() $$,
  '42501', 'permission denied for function close_account', 'nor does a visitor'
);
select tests.sign_in('ann');
select results_eq(
  $$ select id, name, closed_at from billing.close_account() $$,
  $$ values (tests.hers(), null::text, timestamptz '2026-01-20') $$,
  'ann closes hers'
);
select results_eq(
  $$ select closed_at from billing.close_account() $$,
  $$ values (timestamptz '2026-01-20') $$, 'twice is no error'
);
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked('ann') where kind <> 'update_customer' $$,
  $$ values ('cancel_subscription', 'DELETE', '/v1/subscriptions/sub_ann') $$,
  'Stripe is asked once to end what it bills'
);
select is_empty($$ select * from tests.told_of('ann') $$, 'nothing tells who she was');
select results_eq(
  $$ select count(*), sum(total_minor) from billing.invoices where account_id = tests.hers() $$,
  $$ values (1::bigint, 1000::numeric) $$, 'what she paid is kept'
);
select results_eq(
  $$ select revoked_reason from billing.entitlement_grants where account_id = tests.hers() $$,
  $$ values ('the account was closed') $$, 'what she was given is taken back'
);
select is_empty(
  $$
    select feature_key from billing.entitlements
    where account_id = tests.hers() and source_kind = 'grant' and valid_until > '2026-01-20'
  $$,
  'at once'
);

-- ---- Stripe goes on telling -------------------------------------------------

select tests.deliver('evt_ann_over', 'customer.subscription.deleted', '2026-01-21',
  tests.subscription('ann', 'canceled', '2026-01-10', p_extra => '{
    "ended_at": 1768953600, "metadata": {"nickname": "ann"},
    "cancellation_details": {"comment": "it is me, ann", "reason": "cancellation_requested"}}'));
select tests.deliver('evt_ann_again', 'customer.updated', '2026-01-22', '{
  "id": "cus_ann", "object": "customer", "email": "ann@example.com", "name": "Ann",
  "created": 1768000000}');
select is_empty(
  $$ select * from tests.told_of('ann') $$, 'what Stripe tells of her later is not kept either'
);
select results_eq(
  $$ select status from billing.subscriptions where account_id = tests.hers() $$,
  $$ values ('canceled') $$, 'but that her subscription has ended'
);
select is(
  billing_private.tell_customers(array[tests.hers()]), 0::bigint,
  'Stripe is told nothing new of her, though she can still sign in'
);
select is_empty($$ select * from tests.told_of('ann') $$, 'nor is that kept');

-- ---- and comes back ---------------------------------------------------------

select tests.set_time('2026-01-23');
select tests.sign_in('ann');
select is(billing.has_entitlement('premium'), false, 'ann has nothing any more');
select throws_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://a.example', 'https://a.example')
  $$,
  'PT422', 'the account was closed', 'and cannot subscribe by accident'
);
select throws_ok(
  $$ select billing.prepare_portal('https://a.example') $$,
  'PT422', 'the account was closed', 'nor see what was hers at Stripe'
);
select results_eq(
  'select stripe_invoice_id from billing.invoices', $$ values ('in_ann') $$,
  'but still sees her invoices'
);
select tests.be_owner();
select throws_ok(
  $$ select billing_admin.reopen_account(tests.hers(), '') $$,
  'PT400', 'the request is not valid', 'an administrator says why she may come back'
);
select is(
  (billing_admin.reopen_account(tests.hers(), 'she asked')).closed_at, null,
  'an administrator opens the account again'
);
select throws_ok(
  $$ select billing_admin.reopen_account(md5('none')::uuid, 'why not') $$,
  'PT404', 'there is no such account', 'one that exists'
);
select tests.sign_in('ann');
select is(billing.has_entitlement('premium'), false, 'then ann still has nothing');
select is(
  (billing.prepare_checkout('plus_monthly', 'https://a.example', 'https://a.example')).trial_days,
  0, 'but may subscribe'
);

-- ---- without Stripe, and by an administrator --------------------------------

select tests.be_owner();
select billing_admin.grant_subscription(md5('carl')::uuid, 'plus_monthly', 'a friend') is not null;
select throws_ok(
  $$ select billing_admin.close_account(md5('none')::uuid, 'why not') $$,
  'PT404', 'there is no such account', 'an account that is not there cannot be closed'
);
select isnt(
  (billing_admin.close_account(md5('carl')::uuid, 'he asked')).closed_at, null,
  'an administrator closes an account'
);
select results_eq(
  $$
    select status, cancellation_reason, ended_at
    from billing.subscriptions
    where account_id = md5('carl')::uuid
  $$,
  $$ values ('canceled', 'account_closed', timestamptz '2026-01-23') $$,
  'a subscription that lives here ends at once'
);
select results_eq(
  $$
    select cause ->> 'reason'
    from billing_private.audit_log
    where table_name = 'billing.accounts' and operation = 'update'
      and account_id is null and row_key = md5('carl')
  $$,
  $$ select null::text where false $$,
  'the audit finds it under his account'
);
select results_eq(
  $$
    select distinct cause ->> 'reason'
    from billing_private.audit_log
    where table_name = 'billing.accounts' and operation = 'update'
      and row_key = md5('carl')::uuid::text
  $$,
  $$ values ('he asked') $$, 'with the reason'
);

-- ---- an organization --------------------------------------------------------

select tests.sign_in('dora');
select id as team from billing.create_organization('Team') \gset
select set_config('tests.team', :'team', true);
select token from billing.invite_member(:'team', 'bob@example.com', 'admin') \gset
select billing.invite_member(:'team', 'zoe@example.com') is not null;
select tests.sign_in('bob');
select billing.accept_invitation(:'token') is not null;
select throws_ok(
  $$ select billing.close_account(current_setting('tests.team')::uuid) $$,
  'PT403', 'your role in this account does not allow this', 'an admin closes no organization'
);
select tests.sign_in('dora');
select isnt(
  (billing.close_account(:'team')).closed_at, null, 'an owner closes an organization'
);
select tests.be_owner();
select is_empty(
  $$ select * from billing.memberships where account_id = current_setting('tests.team')::uuid $$,
  'then it has no members'
);
select is_empty(
  $$
    select email from billing.invitations
    where account_id = current_setting('tests.team')::uuid
      and (email <> 'closed@invalid' or revoked_at is null and accepted_at is null)
  $$,
  'and nobody is invited, or known to have been'
);
select throws_ok(
  $$ select billing.invite_member(current_setting('tests.team')::uuid, 'x@example.com') $$,
  'PT422', 'the account was closed', 'nobody can be invited into it'
);
select tests.sign_in('bob');
select is(
  (select closed_at from billing.accounts where id = tests.hers()), null,
  'a member''s own account is another matter'
);
select ok(billing.has_entitlement('premium'), 'bob keeps his own');

-- ---- a user is deleted ------------------------------------------------------

select tests.be_owner();
insert into billing.external_identities (issuer, subject, user_id)
values ('https://clerk.example', 'user_bob', md5('bob')::uuid);
insert into billing_private.administrators (user_id, reason) values (md5('bob')::uuid, 'helps');
-- Alone in one organization, last owner of a second, member of a third.
insert into billing.accounts (id, kind, name)
select md5(name)::uuid, 'organization', name from unnest(array['alone', 'led', 'joined']) as name;
insert into billing.memberships (account_id, user_id, role) values
  (md5('alone')::uuid, md5('bob')::uuid, 'owner'),
  (md5('led')::uuid, md5('bob')::uuid, 'owner'),
  (md5('led')::uuid, md5('eve')::uuid, 'member'),
  (md5('joined')::uuid, md5('bob')::uuid, 'admin'),
  (md5('joined')::uuid, md5('eve')::uuid, 'owner');

select lives_ok(
  format('delete from auth.users where id = %L', md5('bob')::uuid),
  'Supabase Auth deletes a user'
);
select tests.be_owner();
select results_eq(
  'select user_id, settled_at from billing_private.deleted_users',
  $$ values (md5('bob')::uuid, null::timestamptz) $$, 'which is only noted'
);
select is(billing_private.task_settle_accounts(), 1::bigint, 'the rest is done by a task');
select is(billing_private.task_settle_accounts(), 0::bigint, 'once');
select results_eq(
  $$ select name from tests.asked('bob') as asked (name) $$,
  $$ values ('cancel_subscription') $$, 'Stripe is asked to end what it bills'
);
select results_eq(
  $$
    select names.name, accounts.closed_at is not null
    from unnest(array['alone', 'bob', 'joined', 'led']) as names (name)
    join billing.accounts on accounts.id = md5(names.name)::uuid
    order by names.name
  $$,
  $$ values ('alone', true), ('bob', true), ('joined', false), ('led', false) $$,
  'the account and the organization nobody else is in are closed'
);
select is_empty(
  $$
    select 'member' from billing.memberships where user_id = md5('bob')::uuid
    union all
    select 'link' from billing.external_identities where user_id = md5('bob')::uuid
    union all
    select 'administrator' from billing_private.administrators where user_id = md5('bob')::uuid
  $$,
  'no right of theirs is left'
);
select is_empty($$ select * from tests.told_of('bob') $$, 'and nothing tells who it was');
select results_eq(
  $$ select account_id from billing_admin.critical_issues where issue = 'ownerless_organization' $$,
  $$ values (md5('led')::uuid) $$,
  'an organization that has lost its last owner is shown to administrators'
);
select is(
  (billing_admin.appoint_owner(md5('led')::uuid, md5('eve')::uuid, 'next in line')).role,
  'owner', 'who appoint another'
);
select throws_ok(
  $$ select billing_admin.appoint_owner(md5('led')::uuid, md5('dora')::uuid, 'why not') $$,
  'PT404', 'there is no such member', 'a member'
);

-- ---- nothing can block it, and nothing is missed ----------------------------

alter table billing_private.deleted_users add constraint deleted_users_break check (false) not valid;
select lives_ok(
  format('delete from auth.users where id = %L', md5('ann')::uuid),
  'a user can be deleted even if noting it fails'
);
select tests.be_owner();
alter table billing_private.deleted_users drop constraint deleted_users_break;
insert into billing.accounts (id, kind) values (md5('user of clerk')::uuid, 'personal');
select billing_private.task_settle_accounts() is not null;
select isnt(
  (select closed_at from billing.accounts where id = tests.hers()), null,
  'whose end was not noted is found'
);
select is(
  (select closed_at from billing.accounts where id = md5('user of clerk')::uuid), null,
  'who never was a user of Supabase Auth is left alone'
);

-- ---- one who cannot be settled ------------------------------------------------

insert into billing_private.deleted_users (user_id, deleted_at) values
  (md5('stuck')::uuid, '2026-01-01'), (md5('waiting')::uuid, '2026-01-02');
insert into billing.accounts (id, kind, name, is_auth_user) values
  (md5('stuck')::uuid, 'personal', 'stuck', true),
  (md5('waiting')::uuid, 'personal', 'waiting', true);
alter table billing.accounts
  add constraint accounts_break check (closed_at is null or id <> md5('stuck')::uuid) not valid;

select is(
  billing_private.task_settle_accounts(), 1::bigint,
  'one who cannot be settled keeps nobody else waiting'
);
select ok(
  (select problem like '%accounts_break%' and failed_at is not null and settled_at is null
    from billing_private.deleted_users where user_id = md5('stuck')::uuid),
  'why is kept'
);
select ok(
  exists (
    select from billing_admin.critical_issues
    where issue = 'unsettled_user' and subject = md5('stuck')::uuid::text),
  'and shown to administrators'
);
alter table billing.accounts drop constraint accounts_break;
select is(
  billing_private.task_settle_accounts(), 1::bigint, 'once nothing is in the way it is done'
);

-- ---- paid in the last instant -----------------------------------------------

select tests.deliver('evt_late', 'customer.subscription.created', '2026-01-23',
  tests.subscription('ann', 'active', '2026-01-23', p_extra => '{"id": "sub_ann_late"}'));
select billing_private.task_settle_accounts() is not null;
select results_eq(
  $$ select path from tests.asked('ann') where kind = 'cancel_subscription' and path ~ 'late' $$,
  $$ values ('/v1/subscriptions/sub_ann_late') $$,
  'a subscription that comes after its account was closed ends too'
);

select * from finish();
rollback;
