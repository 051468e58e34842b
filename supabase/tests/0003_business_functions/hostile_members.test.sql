-- Members who turn against their organization, guests who come too late, and everybody who tries what
-- only owners may: none of them gets further than their role.
begin;
\ir ../helpers.psql
select plan(24);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into auth.users (id, email)
select md5(name)::uuid, name || '@example.com'
from unnest(array['ann', 'bob', 'cem', 'dee', 'eve', 'mallory']) as name;
create function tests.team() returns uuid
language sql as $$ select md5('team')::uuid $$;
create table tests.tokens (guest text, token text);
grant all on tests.tokens to authenticated, service_role;
create function tests.invite(p_guest text, p_role text default 'member') returns void
language sql as $$
  insert into tests.tokens
  select p_guest, token
  from billing.invite_member(tests.team(), p_guest || '@example.com', p_role);
$$;
create function tests.accept(p_guest text) returns text
language sql as $$
  select role from billing.accept_invitation(
    (select token from tests.tokens where guest = p_guest));
$$;
create function tests.still_invited() returns text
language sql security definer as $$
  select string_agg(split_part(email, '@', 1), ', ' order by email)
  from billing.invitations
  where account_id = tests.team() and accepted_at is null and revoked_at is null;
$$;
grant execute on all functions in schema tests to anon, authenticated, service_role;

insert into billing.accounts (id, kind, name) values (tests.team(), 'organization', 'Team');
insert into billing.memberships (account_id, user_id, role) values
  (tests.team(), md5('ann')::uuid, 'owner'),
  (tests.team(), md5('bob')::uuid, 'admin'),
  (tests.team(), md5('cem')::uuid, 'member');

-- ---- an admin who keeps a key for later -------------------------------------

select tests.sign_in('bob');
select tests.invite('back');
select tests.invite('door', 'admin');
select tests.sign_in('ann');
select tests.invite('dee');
savepoint s;

select billing.remove_member(tests.team(), md5('bob')::uuid) is not null;
select is(
  tests.still_invited(), 'dee',
  'whoever is removed takes along the invitations they made, and nobody else''s'
);
select tests.sign_in('bob');
select throws_ok(
  $$ select tests.accept('door') $$,
  'PT422', 'the invitation is not open any more', 'and cannot come back with the token they kept'
);
select tests.sign_in('dee');
select is(tests.accept('dee'), 'member', 'whom others invited comes in');
rollback to s;

select tests.sign_in('bob');
select billing.leave_organization(tests.team()) is not null;
select is(tests.still_invited(), 'dee', 'so does whoever leaves');
rollback to s;

select billing.change_role(tests.team(), md5('bob')::uuid, 'member') is not null;
select is(tests.still_invited(), 'dee', 'and whoever may invite nobody any more');
rollback to s;

select billing.change_role(tests.team(), md5('bob')::uuid, 'owner') is not null;
select is(tests.still_invited(), 'back, dee, door', 'but not whoever may do more than before');
rollback to s;

select tests.be_owner();
insert into billing_private.deleted_users (user_id) values (md5('bob')::uuid);
select billing_private.settle_deleted_user(md5('bob')::uuid);
select is(tests.still_invited(), 'dee', 'and who has been deleted');
rollback to s;

-- ---- an owner who was ------------------------------------------------------

select tests.sign_in('ann');
select tests.invite('heir', 'owner');
select billing.transfer_ownership(tests.team(), md5('bob')::uuid) is not null;
select is(
  tests.still_invited(), 'back, dee, door',
  'who hands an organization over keeps the invitations of an admin, not those of an owner'
);
select throws_ok(
  $$ select tests.accept('heir') $$,
  'PT422', 'the invitation is not open any more', 'and does not become owner again by a token'
);
select throws_ok(
  $$ select tests.invite('heir', 'owner') $$,
  'PT403', 'your role in this account does not allow this', 'nor by a new one'
);
rollback to s;

-- Handed to somebody who is just going.
select tests.sign_in('cem');
select billing.leave_organization(tests.team()) is not null;
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.transfer_ownership(tests.team(), md5('cem')::uuid) $$,
  'PT404', 'there is no such member', 'an organization cannot be handed to somebody who has left'
);
select is(
  (select role from billing.memberships
    where account_id = tests.team() and user_id = md5('ann')::uuid),
  'owner', 'and its owner stays'
);
rollback to s;

-- ---- guests who come too late ----------------------------------------------

select tests.sign_in('ann');
select billing.revoke_invitation(tests.team(), id) is not null
from billing.invitations where email = 'dee@example.com';
select tests.sign_in('dee');
select throws_ok(
  $$ select tests.accept('dee') $$,
  'PT422', 'the invitation is not open any more', 'a guest comes after the invitation was withdrawn'
);
rollback to s;

select tests.sign_in('dee');
select is(tests.accept('dee'), 'member', 'a guest comes in');
select tests.sign_in('ann');
select billing.remove_member(tests.team(), md5('dee')::uuid) is not null;
select tests.sign_in('dee');
select throws_ok(
  $$ select tests.accept('dee') $$,
  'PT422', 'the invitation is not open any more',
  'who was removed does not come in again with the invitation of then'
);
rollback to s;

select tests.sign_in('ann');
select billing.close_account(tests.team()) is not null;
select tests.sign_in('dee');
select throws_ok(
  $$ select tests.accept('dee') $$,
  'PT422', 'the invitation is not open any more', 'nobody comes into what was closed'
);
rollback to s;

select tests.sign_in('mallory');
select is(
  tests.accept('dee'), 'member',
  'the token is the proof: who brings it is in, whichever address they have'
);
select tests.sign_in('dee');
select throws_ok(
  $$ select tests.accept('dee') $$,
  'PT422', 'the invitation is not open any more', 'and it lets nobody in after them'
);
rollback to s;

-- ---- what only owners may ---------------------------------------------------

select tests.be_owner();
create function tests.outcome(p_statement text) returns text
language plpgsql as $$
begin
  execute p_statement;
  return 'done';
exception when others then
  return sqlerrm;
end;
$$;
create table tests.owners_alone (statement text);
insert into tests.owners_alone values
  ('select billing.close_account(tests.team())'),
  ('select billing.transfer_ownership(tests.team(), md5(''cem'')::uuid)'),
  ('select billing.change_role(tests.team(), md5(''cem'')::uuid, ''owner'')'),
  ('select billing.remove_member(tests.team(), md5(''ann'')::uuid)'),
  ('select billing.invite_member(tests.team(), ''x@example.com'', ''owner'')');
grant select on tests.owners_alone to anon, authenticated, service_role;

select tests.sign_in('bob');
select results_eq(
  'select distinct tests.outcome(statement) from tests.owners_alone',
  array['your role in this account does not allow this'], 'are refused to an admin'
);
select tests.sign_in('cem');
select results_eq(
  'select distinct tests.outcome(statement) from tests.owners_alone',
  array['your role in this account does not allow this'], 'and to a member'
);
select tests.sign_in('mallory');
select results_eq(
  'select distinct tests.outcome(statement) from tests.owners_alone',
  array['you are not a member of this account'], 'and to somebody of elsewhere'
);
select tests.sign_out();
select is_empty(
  $$ select statement from tests.owners_alone
    where tests.outcome(statement) !~ '^permission denied for function ' $$,
  'a visitor does not even get that far'
);
select tests.be_service();
select is_empty(
  $$ select statement from tests.owners_alone
    where tests.outcome(statement) <> 'an organization keeps at least one owner'
      and statement ~ 'remove_member' $$,
  'not even a server leaves an organization without an owner'
);
select tests.be_owner();
select results_eq(
  $$ select user_id, role from billing.memberships where account_id = tests.team()
    and role = 'owner' $$,
  $$ values (md5('ann')::uuid, 'owner') $$, 'whatever they tried, the owner is the owner'
);

select * from finish();
rollback;
