-- billing_admin.grant_subscription(): a subscription that lives without Stripe.
begin;
\ir ../helpers.psql
select plan(31);

select tests.catalog();
select tests.set_time('2026-01-31 10:00');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
insert into auth.users (id, email) values (md5('newcomer')::uuid, 'newcomer@example.com');

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');
select row_eq(
  $$
    select account_id, provider, status, plan_key, tier, price_key, quantity, current_period_start,
      current_period_end, ends_at, access_until
    from billing_admin.grant_subscription(md5('ann')::uuid, 'plus_monthly', 'a reviewer')
  $$,
  row(
    md5('ann')::uuid, 'manual'::text, 'active'::text, 'plus'::text, 'plus'::text,
    'plus_monthly'::text, 1::bigint, '2026-01-31 10:00'::timestamptz,
    '2026-02-28 10:00'::timestamptz, null::timestamptz, null::timestamptz),
  'a granted subscription begins now, and renews until it is canceled'
);
select ok(
  billing.has_entitlement_at('premium', '2026-02-28 12:59:59', md5('ann')::uuid),
  'an administrator may ask about it'
);

select tests.sign_in('ann');
select ok(
  billing.has_entitlement('premium'),
  'the plan''s features are there in the same transaction'
);
select is(
  (select format('%s %s', membership_tier, features) from billing.profiles),
  'plus {clubs,premium}',
  'the profile shows the plan''s tier'
);
select is(
  (select format('%s %s', provider, status) from billing.my_subscription()), 'manual active',
  'the member sees it like any subscription'
);

-- ---- whom -------------------------------------------------------------------

select tests.sign_in('ada');
select row_eq(
  $$
    select account_id, plan_key, quantity, ends_at, access_until
    from billing_admin.grant_subscription(
      md5('newcomer')::uuid, 'basic_monthly', 'a welcome', '2026-02-07', 3)
  $$,
  row(
    md5('newcomer')::uuid, 'basic'::text, 3::bigint, '2026-02-07'::timestamptz,
    '2026-02-07'::timestamptz),
  'a user who never came near billing gets an account with the subscription; it may end on a day'
);
select tests.be_owner();
select results_eq(
  $$ select kind, closed_at from billing.accounts where id = md5('newcomer')::uuid $$,
  $$ values ('personal', null::timestamptz) $$,
  'the account is the user''s personal one'
);
select tests.sign_in('newcomer');
select is(
  (select array_agg(feature_key) from billing.my_entitlements()), array['clubs'],
  'the newcomer has what was given'
);
select tests.set_time('2026-02-06 23:59:59');
select ok(billing.has_entitlement('clubs'), 'to the last second before the end');
select tests.set_time('2026-02-07 00:00:00');
select ok(not billing.has_entitlement('clubs'), 'and no longer');
select tests.set_time('2026-01-31 10:00');

-- ---- errors -----------------------------------------------------------------

select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('ann')::uuid, 'basic_monthly', 'a second') $$,
  'PT409', 'the account already has a subscription',
  'C6: twice is refused: an account has one subscription at a time'
);
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('nobody')::uuid, 'plus_monthly', 'a gift') $$,
  'PT404', 'there is no such account',
  'somebody who is neither a user nor an account gets nothing'
);
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('bob')::uuid, 'plus_monthly', '') $$,
  'PT400', 'the request is not valid',
  'a reason has to be given'
);

select tests.be_owner();
select tests.account('bob');
select tests.account('owing');
select tests.subscribe('owing', 'past_due');
select tests.account('paying');
select tests.subscribe('paying', 'active', '2026-01-31');
select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('bob')::uuid, 'no_such_price', 'a gift') $$,
  'PT404', 'there is no such price on offer',
  'an unknown price cannot be given'
);
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('bob')::uuid, null, 'a gift') $$,
  'PT404', 'there is no such price on offer',
  'no price cannot be given'
);
select throws_ok(
  $$
    select billing_admin.grant_subscription(
      md5('bob')::uuid, 'plus_monthly', 'a gift', '2026-01-31 10:00')
  $$,
  'PT400', 'the request is not valid',
  'it cannot end now'
);
select throws_ok(
  $$
    select billing_admin.grant_subscription(
      md5('bob')::uuid, 'plus_monthly', 'a gift', '2026-03-01', 0)
  $$,
  'PT400', 'the request is not valid',
  'none is no quantity'
);
select throws_ok(
  $$
    select billing_admin.grant_subscription(
      md5('bob')::uuid, 'plus_monthly', 'a gift', quantity => null)
  $$,
  'PT400', 'the request is not valid',
  'a quantity has to be given'
);
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('owing')::uuid, 'plus_monthly', 'a gift') $$,
  'PT402', 'an unpaid invoice has to be settled first',
  'whoever owes an invoice settles it first'
);
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('paying')::uuid, 'plus_monthly', 'a gift') $$,
  'PT409', 'the account already has a subscription',
  'whoever pays at Stripe already has a subscription'
);
select tests.be_owner();
select is_empty(
  $$ select * from billing.subscriptions where account_id = md5('bob')::uuid $$,
  'what was refused left nothing behind'
);

-- ---- a price that is off the market -----------------------------------------

update billing.prices set is_active = false where key = 'plus_yearly';
select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('bob')::uuid, 'plus_yearly', 'a gift') $$,
  'PT404', 'there is no such price on offer',
  'an archived price cannot be given'
);

-- ---- the member goes on by themself -----------------------------------------

select tests.sign_in('ann');
select is(
  (select ends_at from billing.cancel_subscription()), '2026-02-28 10:00'::timestamptz,
  'the member cancels it like any subscription'
);
select is(
  (select ends_at from billing.undo_cancel()), null,
  'and takes that back'
);
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('ann')::uuid, 'plus_monthly', 'I deserve it') $$,
  'PT403', 'this needs a billing administrator',
  'the member cannot give one'
);

-- ---- the service, a visitor -------------------------------------------------

select tests.be_service();
select is(
  (
    select status
    from billing_admin.grant_subscription(md5('bob')::uuid, 'basic_monthly', 'a script')
  ),
  'active',
  'the service gives one too'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.grant_subscription(md5('ann')::uuid, 'plus_monthly', 'hello') $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor cannot'
);

-- ---- history and audit ------------------------------------------------------

select tests.be_owner();
select results_eq(
  $$
    select kind, actor_id, cause ->> 'kind', cause ->> 'reason'
    from billing.subscription_changes
    where account_id = md5('ann')::uuid
    order by created_at, kind
    limit 1
  $$,
  $$ values ('cancel_scheduled', md5('ann')::uuid, 'user', null) $$,
  'the history says what the member did'
);
select results_eq(
  $$
    select actor_id, cause ->> 'kind', cause ->> 'reason', to_price_id
    from billing.subscription_changes
    where account_id = md5('ann')::uuid and kind = 'started'
  $$,
  $$ values (md5('ada')::uuid, 'admin', 'a reviewer', md5('plus_monthly')::uuid) $$,
  'the history says who gave it, and why'
);
select is(
  (
    select array_agg(distinct cause ->> 'reason')
    from billing_private.audit_log
    where account_id = md5('newcomer')::uuid
      and table_name in (
        'billing.accounts', 'billing.subscriptions', 'billing.subscription_items',
        'billing.entitlements', 'billing.profiles')
  ),
  array['a welcome'],
  'the audit says why each row of it is there'
);
select is(
  (
    select count(distinct table_name)
    from billing_private.audit_log
    where account_id = md5('newcomer')::uuid
  ),
  5::bigint,
  'the audit leaves no row of it out'
);

select * from finish();
rollback;
