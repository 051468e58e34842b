-- billing_admin.set_repeated_trial(): what becomes of somebody's second trial, by an admin's word.
begin;
\ir ../helpers.psql
select plan(8);

insert into billing_private.administrators (user_id, reason) values (md5('eve')::uuid, 'first');
create function tests.policy() returns text
language sql security definer as 'select repeated_trial from billing_private.settings';
grant execute on function tests.policy to authenticated;

select tests.sign_in('eve');
select is(tests.policy(), 'flag', 'as installed a second trial is only shown');
select billing_admin.set_repeated_trial('end_trial', 'too many');
select is(tests.policy(), 'end_trial', 'an admin can have it end');
select throws_ok(
  $$ select billing_admin.set_repeated_trial('forgive', 'why not') $$,
  'PT400', 'the request is not valid',
  'there are two policies'
);
select throws_ok(
  $$ select billing_admin.set_repeated_trial(null, 'why not') $$,
  'PT400', 'the request is not valid',
  'and one has to be named'
);
select throws_ok(
  $$ select billing_admin.set_repeated_trial('flag', ' ') $$,
  'PT400', 'the request is not valid',
  'with a reason'
);
select tests.sign_in('bob');
select throws_ok(
  $$ select billing_admin.set_repeated_trial('flag', 'mine') $$,
  'PT403', 'this needs a billing administrator',
  'nobody else can'
);
select tests.be_owner();
select is(tests.policy(), 'end_trial', 'no refusal has changed it');
select results_eq(
  $$ select action, subject, reason, actor_id from billing_private.admin_actions $$,
  $$ values ('set_repeated_trial', 'end_trial', 'too many', md5('eve')::uuid) $$,
  'who did it, and why, is on record'
);

select * from finish();
rollback;
