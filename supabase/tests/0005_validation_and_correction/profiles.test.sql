-- billing.profiles: an account's membership at a glance, in step with its access.
begin;
\ir ../helpers.psql
select plan(21);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');

create function pg_temp.profile(p_name text) returns text
language sql as $$
  select format(
    '%s %s %s until %s', coalesce(membership_tier, 'none'), tier_rank, features,
    access_until::timestamp)
  from billing.profiles
  where account_id = md5(p_name)::uuid;
$$;

-- ---- in the same transaction ------------------------------------------------

select tests.subscribe('ann', 'active', '2026-01-10', 'price_basic_monthly');
select is(
  pg_temp.profile('ann'), 'basic 10 {clubs} until 2026-02-10 03:00:00',
  'subscribing makes the profile'
);

select tests.deliver(
  'evt_up', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('ann', 'active', '2026-01-10'));
select is(
  pg_temp.profile('ann'), 'plus 20 {clubs,premium} until 2026-02-10 03:00:00',
  'an upgrade raises the tier'
);

insert into billing.entitlement_grants (id, account_id, feature_key, valid_from, reason)
values (md5('gift')::uuid, md5('ann')::uuid, 'hosting', '2026-01-10', 'a gift');
select is(
  pg_temp.profile('ann'), 'plus 20 {clubs,hosting,premium} until infinity',
  'a grant adds its feature, in order; its end is the last one'
);

update billing.plans set tier = 'gold', tier_rank = 90 where key = 'plus';
select is(
  pg_temp.profile('ann'), 'gold 90 {clubs,hosting,premium} until infinity',
  'a plan''s new tier reaches its subscribers'
);

select tests.deliver(
  'evt_ended', 'customer.subscription.deleted', '2026-01-12',
  tests.subscription('ann', 'canceled', '2026-01-10', 'price_plus_monthly',
    '{"ended_at": 1768176000}'));
select is(
  pg_temp.profile('ann'), 'none 0 {hosting} until infinity',
  'without a subscription there is no tier; the grant stays'
);

update billing.entitlement_grants
set revoked_at = '2026-01-12', revoked_reason = 'a mistake'
where id = md5('gift')::uuid;
select is(
  pg_temp.profile('ann'), 'none 0 {} until ',
  'without any source nothing is left'
);

-- ---- several subscriptions --------------------------------------------------

select tests.account('gil');
select tests.subscribe('gil', 'active', '2026-01-10', 'price_basic_monthly');
select tests.deliver(
  'evt_gil_second', 'customer.subscription.created', '2026-01-10',
  tests.subscription('gil_second', 'active', '2026-01-20', 'price_plus_monthly',
    '{"customer": "cus_gil", "start_date": 1768003200}'));
select is(
  pg_temp.profile('gil'), 'gold 90 {clubs,premium} until 2026-02-20 03:00:00',
  'G22: of several plans the highest tier is shown, and the last end'
);

-- ---- by the clock alone -----------------------------------------------------

select tests.account('iris');
insert into billing.entitlement_grants
  (account_id, feature_key, valid_from, valid_until, reason)
values
  (md5('iris')::uuid, 'premium', '2026-01-20', '2026-01-25', 'a fair'),
  (md5('iris')::uuid, 'clubs', '2026-01-10', '2026-01-22', 'a try');
select is(
  pg_temp.profile('iris'), 'none 0 {clubs} until 2026-01-22 00:00:00',
  'what has not begun is not shown'
);

select tests.set_time('2026-01-20');
select is(billing_private.refresh_elapsed(100), 1::bigint, 'the clock''s task finds the account');
select is(
  pg_temp.profile('iris'), 'none 0 {clubs,premium} until 2026-01-25 00:00:00',
  'the clock''s task shows what has begun'
);

select tests.set_time('2026-01-22');
select is(billing_private.refresh_elapsed(100), 1::bigint, 'the clock''s task finds it again');
select is(
  pg_temp.profile('iris'), 'none 0 {premium} until 2026-01-25 00:00:00',
  'the clock''s task takes away what has run out'
);

-- Another source of a feature the account has already.
select tests.account('ken');
insert into billing.entitlement_grants
  (account_id, feature_key, valid_from, valid_until, reason)
values
  (md5('ken')::uuid, 'premium', '2026-01-22', '2026-02-01', 'a fair'),
  (md5('ken')::uuid, 'premium', '2026-01-25', '2026-03-01', 'another');
select tests.set_time('2026-01-25');
select billing_private.refresh_elapsed(100);
select is(
  pg_temp.profile('ken'), 'none 0 {premium} until 2026-03-01 00:00:00',
  'a second source that begins prolongs what is shown'
);
select is(
  billing_private.refresh_elapsed(100), 0::bigint,
  'after the clock''s task there is nothing left to do for it'
);

-- ---- since when -------------------------------------------------------------

select is(
  (select updated_at from billing.profiles where account_id = md5('gil')::uuid),
  '2026-01-10'::timestamptz,
  'a profile says since when it has said so'
);

-- ---- who sees it ------------------------------------------------------------

select tests.sign_in('gil');
select is(
  (select array_agg(account_id) from billing.profiles), array[md5('gil')::uuid],
  'a member sees the own profile, and no other'
);
select throws_ok(
  $$ update billing.profiles set tier_rank = 1000 $$,
  '42501', 'permission denied for table profiles',
  'a member cannot write it'
);

select tests.sign_in('stranger');
select is_empty($$ select * from billing.profiles $$, 'a stranger sees none');

select tests.sign_out();
select throws_ok(
  $$ select * from billing.profiles $$,
  '42501', 'permission denied for table profiles',
  'a visitor is refused'
);

select tests.be_service();
select is((select count(*) from billing.profiles), 4::bigint, 'the service sees all');
select throws_ok(
  $$ update billing.profiles set tier_rank = 1000 $$,
  '42501', 'permission denied for table profiles',
  'the service cannot write one'
);

select * from finish();
rollback;
