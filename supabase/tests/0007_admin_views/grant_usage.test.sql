-- billing_admin.grant_usage() and revoke_usage_grant(): prepaid units, by whose word, once.
begin;
\ir ../helpers.psql
select plan(13);

select tests.catalog();
insert into billing.features (key, name, kind) values ('exports', 'Exports', 'metered');
select tests.set_time('2026-01-10');
select tests.account('ann');
insert into billing_private.administrators (user_id, reason) values (md5('eve')::uuid, 'first');
select tests.sign_in('eve');

select results_eq(
  $$
    select quantity, burnt, priority, valid_until, granted_by
    from billing_admin.grant_usage(md5('ann')::uuid, 'exports', 100, 'a pack', reference => 'in_1')
  $$,
  $$ values (100::numeric, 0::numeric, 100, timestamptz 'infinity', md5('eve')::uuid) $$,
  'an administrator gives prepaid units'
);
select is(
  (select quantity
   from billing_admin.grant_usage(md5('ann')::uuid, 'exports', 50, 'a pack', reference => 'in_1')),
  100::numeric,
  'for what was given before she is answered what was given'
);
select throws_ok(
  $$ select billing_admin.grant_usage(md5('ann')::uuid, 'clubs', 1, 'a pack') $$,
  'PT400', 'the request is not valid',
  'what is held is not prepaid'
);
select throws_ok(
  $$ select billing_admin.grant_usage(md5('ann')::uuid, 'exports', 0, 'a pack') $$,
  'PT400', 'the request is not valid',
  'nothing is no pack'
);
select throws_ok(
  $$ select billing_admin.grant_usage(md5('ann')::uuid, 'exports', 1, 'a pack', '2026-01-10') $$,
  'PT400', 'the request is not valid',
  'nor one that has ended'
);
select throws_ok(
  $$ select billing_admin.grant_usage(md5('ann')::uuid, 'exports', 1, '') $$,
  'PT400', 'the request is not valid',
  'a reason is given'
);
select throws_ok(
  $$ select billing_admin.grant_usage(md5('ann')::uuid, 'exprots', 1, 'a pack') $$,
  'PT404', 'there is no such feature',
  'the feature exists'
);
select throws_ok(
  $$ select billing_admin.grant_usage(md5('nobody')::uuid, 'exports', 1, 'a pack') $$,
  'PT404', 'there is no such account',
  'and the account'
);

select tests.be_owner();
update billing.usage_grants set burnt = 30 where reference = 'in_1';
select tests.sign_in('eve');
select is(
  (select burnt from billing_admin.revoke_usage_grant(
    (select id from billing_admin.grant_usage(
      md5('ann')::uuid, 'exports', 1, 'a pack', reference => 'in_1')), 'refunded')),
  30::numeric,
  'what is left can be taken back'
);
select tests.be_owner();
select is(
  billing_private.prepaid_units(md5('ann')::uuid, 'exports'), 0::numeric, 'then it pays no more'
);
select results_eq(
  $$
    select action
    from billing_private.admin_actions
    where reason in ('a pack', 'refunded')
    group by action
    order by action
  $$,
  array['grant_usage', 'revoke_usage_grant'],
  'both are on record'
);

select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.grant_usage(md5('ann')::uuid, 'exports', 1000000, 'please') $$,
  'PT403', 'this needs a billing administrator',
  'nobody gives herself units'
);
select is(
  (select count(*) from billing.usage_grants), 1::bigint, 'a member sees what she has'
);

select * from finish();
rollback;
