-- billing.entitlement_limit(): how much of a feature an account has at this instant.
begin;
\ir ../helpers.psql
select plan(15);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann', 'active', '2026-01-10', 'price_basic_monthly');

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');

select is(billing.entitlement_limit('clubs'), 3::bigint, 'a subscriber has the plan''s limit');
select is(
  billing.entitlement_limit('clubs', md5('ann')::uuid), 3::bigint,
  'a subscriber may name the own account'
);
select is(billing.entitlement_limit('premium'), 0::bigint, 'without access there is none of it');
select is(billing.entitlement_limit('no_such'), 0::bigint, 'of an unknown feature there is none');
select is(billing.entitlement_limit(null), 0::bigint, 'of no feature there is none');

select tests.be_owner();
insert into billing.entitlement_grants
  (id, account_id, feature_key, kind, limit_value, valid_from, valid_until, reason)
values
  (md5('less')::uuid, md5('ann')::uuid, 'clubs', 'gift', 2, '2026-01-10', 'infinity', 'less'),
  (md5('more')::uuid, md5('ann')::uuid, 'clubs', 'gift', 8, '2026-01-12', '2026-01-14', 'more'),
  (md5('all')::uuid, md5('ann')::uuid, 'clubs', 'promotion', null, '2026-01-13', '2026-01-15',
    'without limit');
select tests.sign_in('ann');

select is(billing.entitlement_limit('clubs'), 3::bigint, 'of several limits the best counts');
select tests.set_time('2026-01-11 23:59:59.999999');
select is(billing.entitlement_limit('clubs'), 3::bigint, 'what has not begun does not count');
select tests.set_time('2026-01-12');
select is(billing.entitlement_limit('clubs'), 8::bigint, 'it counts from the instant it begins');
select tests.set_time('2026-01-13');
select is(billing.entitlement_limit('clubs'), null, 'one source without a limit lifts it');
select tests.set_time('2026-01-15');
select is(billing.entitlement_limit('clubs'), 3::bigint, 'and no more from the instant it ends');

select tests.set_time('2026-02-10 03:00:00');
select is(
  billing.entitlement_limit('clubs'), 2::bigint,
  'when the plan is over, what is left is left'
);

-- ---- reading only -----------------------------------------------------------

select tests.be_owner();
select tests.set_time('2026-01-10');
update billing.access_policies set paused = 'read_only' where key = 'standard';
select tests.account('ria');
select tests.subscribe('ria', 'paused');
select tests.sign_in('ria');
select is(
  billing.access_level('clubs') || ' ' || billing.entitlement_limit('clubs'), 'read_only 0',
  'whoever may only read may have no more of it'
);

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('bob');
select is(
  billing.entitlement_limit('clubs', md5('ann')::uuid), 0::bigint,
  'a stranger is told none about somebody else''s account'
);
select tests.sign_out();
select is(
  array[billing.entitlement_limit('clubs'), billing.entitlement_limit('clubs', md5('ann')::uuid)],
  array[0, 0]::bigint[],
  'so is a visitor, and no error'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select is(
  billing.entitlement_limit('clubs', md5('ann')::uuid), 3::bigint,
  'the service may ask about any account'
);

select * from finish();
rollback;
