-- billing.my_entitlements() and the view behind it: all an account has at this instant.
begin;
\ir ../helpers.psql
select plan(15);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');
insert into billing.entitlement_grants
  (account_id, feature_key, limit_value, valid_from, valid_until, reason)
values
  (md5('ann')::uuid, 'clubs', 40, '2026-01-20', '2026-01-25', 'a fair'),
  (md5('ann')::uuid, 'hosting', null, '2026-01-10', '2026-01-15', 'a try');
select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_basic_monthly');

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');

select results_eq(
  $$ select feature_key, limit_value, valid_from, valid_until from billing.my_entitlements() $$,
  $$
    values
      ('clubs', 10::bigint, '2026-01-10'::timestamptz, '2026-02-10 03:00'::timestamptz),
      ('hosting', null, '2026-01-10', '2026-01-15'),
      ('premium', null, '2026-01-10', '2026-02-10 03:00')
  $$,
  'a member sees each feature once, with its limit and its end, in the order of the keys'
);
select results_eq(
  $$ select * from billing.my_entitlements(md5('ann')::uuid) $$,
  $$ select * from billing.my_entitlements() $$,
  'naming the own account gives the same'
);
select is_empty(
  $$ select * from billing.my_entitlements(md5('bob')::uuid) $$,
  'a member sees nothing of another''s account'
);
select is_empty(
  $$ select * from billing.current_entitlements where account_id <> md5('ann')::uuid $$,
  'the view shows a member nothing of another''s account'
);

select tests.set_time('2026-01-14 23:59:59');
select ok(
  exists (select from billing.my_entitlements() where feature_key = 'hosting'),
  'a feature is listed to its last second'
);
select tests.set_time('2026-01-15 00:00:00');
select ok(
  not exists (select from billing.my_entitlements() where feature_key = 'hosting'),
  'a feature that has run out is not listed, though no job has run'
);

select tests.set_time('2026-01-19 23:59:59');
select is(
  (select limit_value from billing.my_entitlements() where feature_key = 'clubs'), 10::bigint,
  'a limit that has not begun does not count'
);
select tests.set_time('2026-01-20 00:00:00');
select results_eq(
  $$
    select limit_value, valid_from, valid_until
    from billing.my_entitlements()
    where feature_key = 'clubs'
  $$,
  $$ values (40::bigint, '2026-01-10'::timestamptz, '2026-02-10 03:00'::timestamptz) $$,
  'several sources of a feature: the best limit, from the first beginning to the last end'
);
select tests.set_time('2026-01-25 00:00:00');
select is(
  (select limit_value from billing.my_entitlements() where feature_key = 'clubs'), 10::bigint,
  'a better limit that has run out is gone on the second'
);

-- ---- a user without an account ----------------------------------------------

select tests.sign_in('stranger');
select is_empty(
  $$ select * from billing.my_entitlements() $$,
  'a user who never came near billing has nothing, and no error'
);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();
select is_empty(
  $$ select * from billing.my_entitlements() $$,
  'a visitor has nothing, and no error'
);
select is_empty(
  $$ select * from billing.my_entitlements(md5('ann')::uuid) $$,
  'a visitor sees nothing of anybody''s account'
);
select is_empty(
  $$ select * from billing.current_entitlements $$,
  'the view shows a visitor nothing'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select is(
  (select count(*) from billing.my_entitlements(md5('ann')::uuid)), 2::bigint,
  'the service may ask about any account'
);
select is_empty(
  $$ select * from billing.my_entitlements() $$,
  'the service has no account of its own'
);

select * from finish();
rollback;
