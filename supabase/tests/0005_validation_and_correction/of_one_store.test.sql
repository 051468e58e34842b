-- What one store's plans give: has_entitlement(), entitlement_limit() and membership_tier() of it.
begin;
\ir ../helpers.psql
select plan(21);

select tests.catalog();
insert into billing.stores (id, key, name) values (md5('early-bird')::uuid, 'early-bird', 'Early Bird');
-- Plus is the Night Owl's; basic is the platform's own.
update billing.plans set store_id = md5('night-owl')::uuid where key = 'plus';
select tests.set_time('2026-01-10');

create function pg_temp.second(p_name text, p_price text) returns text
language sql as $$
  select tests.deliver(
    'evt_second_' || p_name, 'customer.subscription.updated', '2026-01-10',
    tests.subscription(p_name || '_second', 'active', '2026-01-10', p_price,
      jsonb_build_object('customer', 'cus_' || p_name)));
$$;

select tests.account('ann');
select tests.subscribe('ann', 'active', '2026-01-10', 'price_basic_monthly');
select pg_temp.second('ann', 'price_plus_monthly');
insert into billing.entitlement_grants
  (account_id, feature_key, kind, limit_value, valid_from, reason)
values (md5('ann')::uuid, 'clubs', 'gift', 50, '2026-01-10', 'a gift of the platform');

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');

select ok(billing.has_entitlement('premium'), 'whatever gives it, gives it');
select ok(billing.has_entitlement('premium', store => 'night-owl'), 'the store''s plan gives it');
select ok(
  billing.has_entitlement('premium', md5('ann')::uuid, 'night-owl'),
  'so it does where the account is named'
);
select ok(
  not billing.has_entitlement('premium', store => 'early-bird'),
  'another store''s plans do not'
);
select ok(
  not billing.has_entitlement('premium', store => 'no-such-store'),
  'a store that does not exist gives nothing'
);
select is(billing.entitlement_limit('clubs'), 50::bigint, 'of all sources the best limit counts');
select is(
  billing.entitlement_limit('clubs', store => 'night-owl'), 10::bigint,
  'of one store, that of its plan: neither the platform''s plan nor its gift'
);
select is(
  billing.entitlement_limit('clubs', store => 'early-bird'), 0::bigint,
  'of another store there is none'
);
select is(billing.membership_tier(), 'plus', 'the highest tier of all plans counts');
select is(billing.membership_tier(store => 'night-owl'), 'plus', 'a store has its own tier');
select is(billing.membership_tier(store => 'early-bird'), null, 'without its plans there is none');

-- ---- on the second ----------------------------------------------------------

select tests.set_time('2026-02-10 02:59:59.999999');
select ok(
  billing.has_entitlement('premium', store => 'night-owl')
    and billing.membership_tier(store => 'night-owl') = 'plus',
  'a store''s access lasts to its last instant'
);
select tests.set_time('2026-02-10 03:00:00');
select ok(
  not billing.has_entitlement('premium', store => 'night-owl')
    and billing.membership_tier(store => 'night-owl') is null,
  'and no longer'
);

-- ---- a stranger, a visitor --------------------------------------------------

select tests.set_time('2026-01-11');
select tests.sign_in('bob');
select is(
  array[
    billing.has_entitlement('premium', md5('ann')::uuid, 'night-owl')::text,
    billing.entitlement_limit('clubs', md5('ann')::uuid, 'night-owl')::text,
    billing.membership_tier(md5('ann')::uuid, 'night-owl')
  ],
  array['false', '0', null],
  'a stranger learns nothing'
);
select tests.sign_out();
select is(
  array[
    billing.has_entitlement('premium', store => 'night-owl')::text,
    billing.entitlement_limit('clubs', store => 'night-owl')::text,
    billing.membership_tier(store => 'night-owl')
  ],
  array['false', '0', null],
  'a visitor is told no, and no error'
);

-- ---- the catalog changes ----------------------------------------------------

select tests.be_owner();

update billing.stores set is_active = false where key = 'night-owl';
update billing.plans set is_listed = false where key = 'plus';
select ok(
  billing.has_entitlement('premium', md5('ann')::uuid, 'night-owl'),
  'a store off the market still gives its subscribers what they pay for'
);
select tests.sign_in('ann');
select is(billing.membership_tier(), 'plus', 'a plan that is not listed has members with its tier');
select tests.be_owner();

update billing.stores set key = 'barn-owl' where key = 'night-owl';
select is(
  array[
    billing.has_entitlement('premium', md5('ann')::uuid, 'night-owl'),
    billing.has_entitlement('premium', md5('ann')::uuid, 'barn-owl')
  ],
  array[false, true],
  'a store under a new key gives what it gave'
);

update billing.plans set store_id = md5('early-bird')::uuid where key = 'plus';
select is(
  array[
    billing.has_entitlement('premium', md5('ann')::uuid, 'barn-owl'),
    billing.has_entitlement('premium', md5('ann')::uuid, 'early-bird')
  ],
  array[false, true],
  'a plan that moves to another store takes its subscribers along'
);

update billing.plans set store_id = null where key = 'plus';
select ok(
  not billing.has_entitlement('premium', md5('ann')::uuid, 'early-bird')
    and billing.has_entitlement('premium', md5('ann')::uuid),
  'a plan that becomes the platform''s is no store''s any more'
);
select is_empty(
  $$ select * from billing_private.validate_entitlements(array[md5('ann')::uuid]) $$,
  'after all of this, what is stored is what the sources say'
);

select * from finish();
rollback;
