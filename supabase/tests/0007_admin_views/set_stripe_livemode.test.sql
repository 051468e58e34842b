-- billing_admin.set_stripe_livemode(): which Stripe mode the database belongs to.
begin;
\ir ../helpers.psql
select plan(21);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');

create function pg_temp.event(p_id text) returns text
language sql security definer as $$
  select format('%s %s', status, coalesce(status_reason, '-'))
  from billing_private.stripe_events
  where event_id = p_id;
$$;

-- ---- as installed: test mode ------------------------------------------------

select is(
  (select stripe_livemode from billing_private.settings), false,
  'as installed, the database belongs to the test mode'
);
select tests.deliver('evt_test', 'customer.updated', '2026-01-10',
  '{"id": "cus_test", "object": "customer", "email": "test@example.com"}');
select tests.deliver('evt_live', 'customer.updated', '2026-01-10',
  '{"id": "cus_live", "object": "customer", "email": "live@example.com"}', null,
  '{"livemode": true}');
select tests.deliver('evt_live_sub', 'customer.subscription.created', '2026-01-10',
  tests.subscription('live', 'active', '2026-01-10', 'price_plus_monthly',
    '{"customer": "cus_ann"}'), null, '{"livemode": true}');
select tests.deliver('evt_live_nameless', 'balance.available', '2026-01-10',
  '{"object": "balance"}', null, '{"livemode": true}');

select is(pg_temp.event('evt_test'), 'applied -', 'a test event is applied');
select is(
  pg_temp.event('evt_live'), 'ignored other_livemode',
  'E5: a live event is stored and not applied'
);
select is(
  (select array_agg(stripe_customer_id order by stripe_customer_id) from billing.customers),
  array['cus_ann', 'cus_test'],
  'E5: nothing of a live event is there'
);
select ok(
  not billing.has_entitlement('premium', md5('ann')::uuid),
  'E5: no event of the other mode gives access'
);

-- ---- errors -----------------------------------------------------------------

select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.set_stripe_livemode(null, 'a try') $$,
  'PT400', 'the request is not valid',
  'a mode has to be named'
);
select throws_ok(
  $$ select billing_admin.set_stripe_livemode(true, ' ') $$,
  'PT400', 'the request is not valid',
  'a reason has to be given'
);

-- ---- going live -------------------------------------------------------------

select lives_ok(
  $$ select billing_admin.set_stripe_livemode(true, 'opening day') $$,
  'an administrator goes live'
);
select tests.be_owner();
select is(
  (select stripe_livemode from billing_private.settings), true,
  'the database belongs to the live mode'
);
select is(pg_temp.event('evt_live'), 'failed -', 'what came for the live mode waits to be applied');
select is(pg_temp.event('evt_test'), 'applied -', 'what came for the test mode stays as it was');
select billing_private.run_due_tasks();
select is(
  array[pg_temp.event('evt_live'), pg_temp.event('evt_live_sub')],
  array['applied -', 'applied -'],
  'the next heartbeat applies it'
);
select is(
  pg_temp.event('evt_live_nameless'), 'ignored unhandled_type',
  'what would not have been applied anyway is settled as ever'
);
select ok(
  billing.has_entitlement('premium', md5('ann')::uuid),
  'a subscriber whose events came before the switch has access'
);

select tests.deliver('evt_test_late', 'customer.updated', '2026-01-11',
  '{"id": "cus_test_late", "object": "customer"}');
select is(
  pg_temp.event('evt_test_late'), 'ignored other_livemode',
  'E5: from now on it is test events that are not applied'
);

-- ---- twice, and back --------------------------------------------------------

select tests.sign_in('ada');
select lives_ok(
  $$ select billing_admin.set_stripe_livemode(true, 'to be sure') $$,
  'going live twice is no error'
);
select is(
  array[pg_temp.event('evt_live'), pg_temp.event('evt_test_late')],
  array['applied -', 'ignored other_livemode'],
  'going live twice takes nothing up twice, and nothing of the test mode'
);
select billing_admin.set_stripe_livemode(false, 'too early');
select tests.be_owner();
select is(
  array[pg_temp.event('evt_test_late'), pg_temp.event('evt_live')],
  array['failed -', 'applied -'],
  'back in test mode, the test events in between are taken up'
);

-- ---- the audit --------------------------------------------------------------

select results_eq(
  $$
    select before ->> 'stripe_livemode', after ->> 'stripe_livemode', actor_id, cause ->> 'reason'
    from billing_private.audit_log
    where table_name = 'billing_private.settings'
    order by id
  $$,
  $$
    values
      ('false', 'true', md5('ada')::uuid, 'opening day'),
      ('true', 'false', md5('ada')::uuid, 'too early')
  $$,
  'the audit says who switched, and why'
);

-- ---- a user -----------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.set_stripe_livemode(false, 'free access for all') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot switch the mode'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.set_stripe_livemode(false, 'free access for all') $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot switch the mode'
);

select * from finish();
rollback;
