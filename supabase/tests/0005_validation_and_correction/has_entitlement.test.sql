-- billing.has_entitlement(): true only while a source gives the feature, and only to its members.
begin;
\ir ../helpers.psql
select plan(8);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');

select ok(billing.has_entitlement('premium'), 'a subscriber has the plan''s feature');
select ok(not billing.has_entitlement('hosting'), 'a feature of no plan is nobody''s');
select ok(not billing.has_entitlement('no_such_feature'), 'an unknown feature is nobody''s');

select tests.set_time('2026-02-10 02:59:59');
select ok(billing.has_entitlement('premium'), 'access lasts to the last second of the renewal grace');

select tests.set_time('2026-02-10 03:00:00');
select ok(not billing.has_entitlement('premium'), 'access ends on the second, with no job run');

-- ---- a stranger -------------------------------------------------------------

select tests.set_time('2026-01-11');
select tests.sign_in('bob');

select ok(
  not billing.has_entitlement('premium', md5('ann')::uuid),
  'a stranger is told no about somebody else''s account'
);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();

select ok(not billing.has_entitlement('premium'), 'a visitor has nothing, and no error');

-- ---- the service ------------------------------------------------------------

select tests.be_service();

select ok(
  billing.has_entitlement('premium', md5('ann')::uuid),
  'the service may ask about any account'
);

select * from finish();
rollback;
