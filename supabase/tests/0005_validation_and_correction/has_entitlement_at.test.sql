-- billing.has_entitlement_at(): whether an account had, or as things stand will have, a feature.
begin;
\ir ../helpers.psql
select plan(17);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
select tests.subscribe('ann');
select tests.set_time('2026-01-20');
select tests.deliver(
  'evt_ended', 'customer.subscription.deleted', '2026-01-20',
  tests.subscription('ann', 'canceled', '2026-01-10', 'price_plus_monthly',
    '{"ended_at": 1768867200}'));
select tests.set_time('2026-01-25');
select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-25');

-- ---- a member: the past -----------------------------------------------------

select tests.sign_in('ann');

select ok(not billing.has_entitlement('premium'), 'the member has no access now');
select ok(
  not billing.has_entitlement_at('premium', '2026-01-09 23:59:59'),
  'the member had none before the first second'
);
select ok(
  billing.has_entitlement_at('premium', '2026-01-10 00:00:00'),
  'the member had it in the first second'
);
select ok(
  billing.has_entitlement_at('premium', '2026-01-19 23:59:59'),
  'the member had it to the last second'
);
select ok(
  not billing.has_entitlement_at('premium', '2026-01-20 00:00:00'),
  'the member had none from the end on'
);
select ok(
  not billing.has_entitlement_at('hosting', '2026-01-15'),
  'the member never had what the plan does not give'
);

-- ---- a member: the future ---------------------------------------------------

select tests.sign_in('bob');

select ok(
  billing.has_entitlement_at('premium', '2026-01-25'),
  'now is answered as has_entitlement() does'
);
select ok(
  billing.has_entitlement_at('premium', '2026-02-25 02:59:59'),
  'the member will have it to the last second that is paid for, and the grace'
);
select ok(
  not billing.has_entitlement_at('premium', '2026-02-25 03:00:00'),
  'what is not paid for yet is not promised'
);
select ok(
  billing.has_entitlement_at('premium', null),
  'no instant means now'
);
select throws_ok(
  $$ select billing.has_entitlement_at('no_such_feature', '2026-01-25') $$,
  'PT404', 'there is no such feature',
  'an unknown feature is an error'
);

-- ---- a stranger -------------------------------------------------------------

select throws_ok(
  $$ select billing.has_entitlement_at('premium', '2026-01-15', md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'a stranger learns nothing of the past'
);
select throws_ok(
  $$ select billing.has_entitlement_at('premium', '2026-03-15', md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'a stranger learns nothing of the future'
);

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');
select ok(
  billing.has_entitlement_at('premium', '2026-01-15', md5('ann')::uuid),
  'an administrator may ask about any account'
);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();
select throws_ok(
  $$ select billing.has_entitlement_at('premium', '2026-01-15') $$,
  '42501', 'permission denied for function has_entitlement_at',
  'a visitor is refused'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select ok(
  billing.has_entitlement_at('premium', '2026-01-15', md5('ann')::uuid),
  'the service may ask about any account'
);
select throws_ok(
  $$ select billing.has_entitlement_at('premium', '2026-01-15') $$,
  'PT401', 'sign in first',
  'the service has to name an account'
);

select * from finish();
rollback;
