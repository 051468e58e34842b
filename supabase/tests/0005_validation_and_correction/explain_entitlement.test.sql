-- billing.explain_entitlement(): why an account has, had or will have a feature, source by source.
begin;
\ir ../helpers.psql
select plan(46);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

-- The sources of a feature in short: whether each gives access, and why.
create function pg_temp.why(
  p_name text,
  p_at timestamptz default null,
  p_feature text default 'premium'
) returns text[]
language sql as $$
  select coalesce(
    array_agg(
      case when gives_access then 'yes ' else 'no ' end || reason
      order by gives_access desc, reason),
    '{}')
  from billing.explain_entitlement(p_feature, md5(p_name)::uuid, p_at);
$$;

create function pg_temp.given(p_name text, p_status text, p_extra jsonb default '{}') returns void
language sql as $$
  select tests.account(p_name);
  select tests.subscribe(p_name, p_status, '2026-01-10', 'price_plus_monthly', p_extra);
$$;

select pg_temp.given('active', 'active');
select pg_temp.given('trialing', 'trialing');
select pg_temp.given('ending', 'active', '{"cancel_at_period_end": true}');
select pg_temp.given('owing', 'past_due');
select pg_temp.given('owingending', 'past_due', '{"cancel_at_period_end": true}');
select pg_temp.given('paid', 'past_due', '{"latest_invoice": "in_paid"}');
select tests.deliver('evt_in_paid', 'invoice.paid', '2026-01-10', '{
  "id": "in_paid", "object": "invoice", "status": "paid", "customer": "cus_paid",
  "currency": "usd", "parent": {"subscription_details": {"subscription": "sub_paid"}}}');
select pg_temp.given('incomplete', 'incomplete');
select pg_temp.given('unpaid', 'unpaid');
select pg_temp.given('paused', 'paused');
select pg_temp.given('ended', 'canceled', '{"ended_at": 1768003200}');
select pg_temp.given('neverpaid', 'incomplete_expired');
select pg_temp.given('novel', 'hibernating');
select pg_temp.given('timeless', 'active', jsonb_build_object('items', jsonb_build_object(
  'data', '[{"id": "si_timeless", "price": {"id": "price_plus_monthly"}}]'::jsonb)));
select pg_temp.given('timelessowing', 'past_due', jsonb_build_object('items', jsonb_build_object(
  'data', '[{"id": "si_timelessowing", "price": {"id": "price_plus_monthly"}}]'::jsonb)));

-- ---- now: each reason -------------------------------------------------------

select is(pg_temp.why('active'), array['yes active'], 'an active subscription is a reason');
select is(pg_temp.why('trialing'), array['yes trialing'], 'a trial is a reason');
select is(pg_temp.why('ending'), array['yes ending'], 'a subscription that will end is a reason');
select is(
  pg_temp.why('owing'), array['yes past_due_grace'],
  'a failed payment within its grace is a reason'
);
select is(
  pg_temp.why('owingending'), array['yes past_due_grace'],
  'a failed payment within its grace is the reason also where an end is scheduled'
);
select is(
  pg_temp.why('paid'), array['yes paid'],
  'H4: a paid invoice is a reason though the subscription is still called past due'
);
select is(pg_temp.why('incomplete'), array['no incomplete'], 'an incomplete subscription is named');
select is(pg_temp.why('unpaid'), array['no unpaid'], 'an unpaid subscription is named');
select is(pg_temp.why('paused'), array['no paused'], 'a paused subscription is named');
select is(pg_temp.why('ended'), array['no ended'], 'an ended subscription is named');
select is(pg_temp.why('neverpaid'), array['no ended'], 'a subscription that never began is ended');
select is(
  pg_temp.why('novel'), array['no unknown_status'],
  'D10: a status nobody knows is named as the reason'
);
select is(
  pg_temp.why('timeless'), array['no period_unknown'],
  'D8: a missing period is named as the reason'
);
select is(
  pg_temp.why('timelessowing'), array['no period_unknown'],
  'D8: a missing period is named as the reason for no grace'
);
select is(pg_temp.why('active', null, 'hosting'), '{}', 'no row: no source ever named the feature');

insert into billing.entitlement_grants
  (id, account_id, feature_key, limit_value, valid_from, valid_until, reason)
values
  (md5('later')::uuid, md5('unpaid')::uuid, 'premium', null, '2026-01-20', '2026-01-25', 'a fair'),
  (md5('now')::uuid, md5('unpaid')::uuid, 'premium', 7, '2026-01-10', 'infinity', 'support');

select results_eq(
  $$
    select * from billing.explain_entitlement('premium', md5('unpaid')::uuid)
  $$,
  $$
    values
      (true, 'support', 'grant', md5('now')::uuid, 'full', null, null, 7::bigint,
        '2026-01-10'::timestamptz, 'infinity'::timestamptz, true, true),
      (false, 'not_begun', 'grant', md5('later')::uuid, 'full', null, null, null,
        '2026-01-20', '2026-01-25', false, false),
      (
        false, 'unpaid', 'subscription_item',
        (select id from billing.subscription_items where stripe_subscription_item_id = 'si_unpaid'),
        'full', 'plus', 'unpaid', null, '2026-01-10', null, false, false
      )
  $$,
  'every source is listed with what it says, those that give access first'
);

update billing.entitlement_grants
set revoked_at = billing_private.now(), revoked_reason = 'a mistake'
where id = md5('now')::uuid;

select is(
  pg_temp.why('unpaid'), array['no not_begun', 'no revoked', 'no unpaid'],
  'a revoked grant is named as the reason'
);

-- ---- the future: as things stand --------------------------------------------

select is(
  pg_temp.why('active', '2026-01-10'), array['yes active'],
  'the instant of asking is now, not the past'
);

select is(
  pg_temp.why('active', '2026-02-10 02:59:59'), array['yes active'],
  'to the last second of the grace the subscription will be the reason'
);
select is(
  pg_temp.why('active', '2026-02-10 03:00:00'), array['no expired'],
  'beyond what is paid for, access will have expired'
);
select is(
  pg_temp.why('ending', '2026-02-10'), array['no expired'],
  'after a scheduled end, access will have expired'
);
select is(
  pg_temp.why('owing', '2026-01-13'), array['no expired'],
  'after the grace for failed payments, access will have expired'
);
select is(
  pg_temp.why('unpaid', '2026-01-20'), array['yes support', 'no revoked', 'no unpaid'],
  'a grant that will have begun will be a reason'
);

-- ---- which of several decides ------------------------------------------------

select tests.account('rich');
select tests.subscribe('rich');
insert into billing.entitlement_grants
  (id, account_id, feature_key, kind, limit_value, valid_from, valid_until, reason)
values
  (md5('most')::uuid, md5('rich')::uuid, 'clubs', 'promotion', 20, '2026-01-10', '2026-01-12', 'a'),
  (md5('longest')::uuid, md5('rich')::uuid, 'clubs', 'gift', 1, '2026-01-10', '2027-01-10', 'b'),
  (md5('revoked')::uuid, md5('rich')::uuid, 'clubs', 'support', 99, '2026-01-10', 'infinity', 'c');
update billing.entitlement_grants
set revoked_at = billing_private.now(), revoked_reason = 'a mistake'
where id = md5('revoked')::uuid;

create function pg_temp.deciding(p_at timestamptz default null) returns text[]
language sql as $$
  select array[
    string_agg(reason, ' ') filter (where decides_limit),
    string_agg(reason, ' ') filter (where decides_end)]
  from billing.explain_entitlement('clubs', md5('rich')::uuid, p_at);
$$;

select is(
  pg_temp.deciding(), array['promotion', 'gift'],
  'of several sources one decides the limit and one the end'
);
select is(
  pg_temp.deciding('2026-01-12'), array['active', 'gift'],
  'when the best has ended, the next one decides'
);
select is(
  pg_temp.deciding('2028-01-01'), array[null, null]::text[],
  'where nothing gives access, nothing decides'
);
insert into billing.entitlement_grants
  (account_id, feature_key, kind, limit_value, valid_from, valid_until, reason)
values
  (md5('rich')::uuid, 'clubs', 'trial_extension', null, '2026-01-10', '2026-01-11', 'd');
select is(
  pg_temp.deciding(), array['trial_extension', 'gift'],
  'no limit is the best limit'
);
select is(
  (
    select array[limit_value, (select limit_value from billing.my_entitlements(md5('rich')::uuid)
      where feature_key = 'clubs')]
    from billing.explain_entitlement('clubs', md5('rich')::uuid, '2026-01-11')
    where decides_limit
  ),
  array[20, null]::bigint[],
  'the limit that is named is the limit that holds at the instant asked about'
);

-- ---- the past: as it was ----------------------------------------------------

select tests.set_time('2026-01-15');
select tests.deliver(
  'evt_ended', 'customer.subscription.deleted', '2026-01-15',
  tests.subscription('active', 'canceled', '2026-01-10', 'price_plus_monthly',
    '{"ended_at": 1768435200}'));
select tests.set_time('2026-01-16');

select is(pg_temp.why('active'), array['no ended'], 'today the subscription has ended');
select results_eq(
  $$
    select gives_access, reason, source_kind, plan_key, limit_value, valid_from, valid_until
    from billing.explain_entitlement('clubs', md5('active')::uuid, '2026-01-14 23:59:59')
  $$,
  $$
    values (
      true, 'recorded', 'subscription_item', 'plus', 10::bigint, '2026-01-10'::timestamptz,
      '2026-02-10 03:00'::timestamptz)
  $$,
  'yesterday is explained by what was recorded then, with the plan and limit of then'
);
select is(
  pg_temp.why('active', '2026-01-15 00:00:00'), '{}',
  'from the second of the end, nothing was recorded'
);
select is(
  pg_temp.why('active', '2026-01-10 00:00:00'), array['yes recorded'],
  'the first second of a subscription is recorded'
);
select is(
  pg_temp.why('active', '2026-01-09 23:59:59'), '{}',
  'before the first second nothing was recorded'
);

-- A subscription that began on 5 January, and of which we hear today.
select tests.account('late');
select tests.subscribe('late', 'active', '2026-01-05');

select is(pg_temp.why('late'), array['yes active'], 'a late event gives access from now on');
select is(
  pg_temp.why('late', '2026-01-15 23:59:59'), '{}',
  'a late event does not rewrite the past: nobody had access before we knew'
);

-- Nor does an interval that has run out, once the clock's task has taken the row away.
select tests.set_time('2026-01-14');
select tests.account('short');
insert into billing.entitlement_grants
  (account_id, feature_key, valid_from, valid_until, reason)
values (md5('short')::uuid, 'premium', '2026-01-14', '2026-01-15', 'a day');
select tests.set_time('2026-01-18');

select is(
  pg_temp.why('short', '2026-01-14 23:59:59') || pg_temp.why('short', '2026-01-15'),
  array['yes recorded'],
  'what ran out by the clock was access to its last second'
);
select isnt(billing_private.refresh_elapsed(100), 0::bigint, 'the clock''s task takes it away');
select is(
  pg_temp.why('short', '2026-01-14 23:59:59') || pg_temp.why('short', '2026-01-15'),
  array['yes recorded'],
  'it is remembered as it was'
);

-- ---- a member ---------------------------------------------------------------

select tests.set_time('2026-01-16');
select tests.sign_in('trialing');

select is(
  (select array_agg(reason) from billing.explain_entitlement('premium')), array['trialing'],
  'a member asks about the own account without naming it'
);
select throws_ok(
  $$ select * from billing.explain_entitlement('no_such_feature') $$,
  'PT404', 'there is no such feature',
  'an unknown feature is an error: a typo must not look like a no'
);
select throws_ok(
  $$ select * from billing.explain_entitlement(null) $$,
  'PT404', 'there is no such feature',
  'so is none'
);

-- ---- a stranger -------------------------------------------------------------

select throws_ok(
  $$ select * from billing.explain_entitlement('premium', md5('active')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'a stranger is refused'
);
select throws_ok(
  $$ select * from billing.explain_entitlement('premium', md5('nobody')::uuid, '2026-01-12') $$,
  'PT403', 'you are not a member of this account',
  'an account that does not exist is refused in the same words'
);

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');
select is(
  pg_temp.why('trialing') || pg_temp.why('active', '2026-01-14'),
  array['yes trialing', 'yes recorded'],
  'an administrator may ask about any account, now and then'
);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();
select throws_ok(
  $$ select * from billing.explain_entitlement('premium') $$,
  '42501', 'permission denied for function explain_entitlement',
  'a visitor is refused'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select * from billing.explain_entitlement('premium') $$,
  'PT401', 'sign in first',
  'the service has to name an account'
);

select * from finish();
rollback;
