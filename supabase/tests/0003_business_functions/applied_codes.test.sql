-- billing_admin.apply_discount_code() on a subscription that runs at Stripe.
begin;
\ir ../helpers.psql
select plan(23);

select tests.catalog();
select tests.set_time('2026-01-31 10:00');
select tests.account(name) from unnest(array['ann', 'bob']) as name;
select tests.subscribe('ann', 'active', '2026-01-10'), tests.subscribe('bob', 'active', '2026-01-10');
insert into billing_private.discount_codes (id, code, percent_off, periods, max_redemptions, plan_keys)
values
  (md5('STAY')::uuid, 'STAY', 20, 3, 1, null),
  (md5('OTHER')::uuid, 'OTHER', 10, 1, null, null),
  (md5('BASICS')::uuid, 'BASICS', 10, 1, null, '{basic}');

create function tests.apply(p_code text, p_name text default 'ann') returns text
language sql as $$
  select status
  from billing_admin.apply_discount_code(
    (select id from billing.subscriptions where stripe_subscription_id = 'sub_' || p_name),
    p_code, 'to keep them');
$$;
create function tests.calls() returns table (kind text, path text, params jsonb)
language sql as $$
  select kind, path, params - 'name'
  from billing_private.commands
  where account_id = md5('ann')::uuid
  order by position;
$$;
create function tests.redemptions() returns text
language sql as $$
  select string_agg(status || case when ended_at is null then ' (open)' else '' end, ', '
    order by created_at, status)
  from billing.discount_redemptions
  where account_id = md5('ann')::uuid;
$$;
-- The next command of the line, answered.
create function tests.answer(p_http_status integer, p_response jsonb) returns text
language sql as $$
  select
    (select commands.kind from billing_private.commands where commands.id = claimed.id)
      || ' ' || outcome.status
  from billing.claim_commands() as claimed
  cross join lateral billing.complete_command(
    claimed.id, claimed.lease, p_http_status, p_response, null,
    'Sat, 31 Jan 2026 10:00:00 GMT', 0) as outcome;
$$;
create function tests.coupon() returns text
language sql as $$
  select 'code_' || replace(md5('STAY')::uuid::text, '-', '') || '_3m';
$$;
create function tests.answer_coupon() returns text
language sql as $$
  select tests.answer(200, jsonb_build_object(
    'id', tests.coupon(), 'object', 'coupon', 'percent_off', 20, 'duration', 'repeating',
    'duration_in_months', 3, 'valid', true, 'livemode', false, 'created', 1769853600));
$$;
create function tests.answer_taken() returns text
language sql as $$
  select tests.answer(200, tests.subscription('ann', 'active', '2026-01-10', p_extra =>
    jsonb_build_object('discounts', jsonb_build_array('di_ann'))));
$$;
savepoint s;

-- ---- asked ------------------------------------------------------------------

select is(tests.apply('stay'), 'reserved', 'a code is kept for a running subscription');
select results_eq(
  'select * from tests.calls()',
  format($$
    values
      ('create_coupon', '/v1/coupons', '{
        "id": "%1$s", "percent_off": 20, "duration": "repeating", "duration_in_months": 3}'::jsonb),
      ('apply_discount', '/v1/subscriptions/sub_ann', '{"discounts": [{"coupon": "%1$s"}]}')
  $$, tests.coupon()),
  'and Stripe is asked: for the coupon first, then to take it off'
);
select throws_ok(
  $$ select tests.apply('other') $$, 'PT422', 'the discount code is not valid',
  'one at a time'
);
select throws_ok(
  $$ select tests.apply('stay', 'bob') $$, 'PT422', 'the discount code is not valid',
  'a code for one is not given twice while Stripe is being asked'
);

-- ---- taken ------------------------------------------------------------------

select is(tests.answer_coupon(), 'create_coupon succeeded', 'Stripe makes the coupon');
select is(tests.answer_taken(), 'apply_discount succeeded', 'and takes it off');
select is(tests.redemptions(), 'confirmed', 'the code is used');
select throws_ok(
  $$ select tests.apply('stay', 'bob') $$, 'PT422', 'the discount code is not valid', 'up'
);
insert into billing.discounts (
  account_id, is_listed, stripe_discount_id, stripe_coupon_id, stripe_subscription_id, ends_at
)
values (md5('ann')::uuid, true, 'di_0', 'c', 'sub_ann', '2026-04-30 10:00')
on conflict do nothing;
select throws_ok(
  $$ select tests.apply('other') $$, 'PT422', 'the discount code is not valid',
  'none is put in the place of one that still comes off'
);
select tests.set_time('2026-04-30 10:00');
update billing.discounts set is_listed = false where stripe_discount_id <> 'di_0';
select is(tests.apply('other'), 'reserved', 'when that is over another may follow');
rollback to s;

-- ---- refused ----------------------------------------------------------------

select tests.apply('stay'), tests.answer_coupon();
select is(
  tests.answer(400, '{"error": {"type": "invalid_request_error", "message": "No."}}'),
  'apply_discount dead', 'where Stripe refuses for good'
);
select is(tests.redemptions(), 'released', 'the code is given back');
select is(tests.apply('stay', 'bob'), 'reserved', 'and free for others');
rollback to s;

select tests.apply('stay'), tests.answer_coupon();
select is(tests.answer(503, '{}'), 'apply_discount pending', 'where it is only busy');
select is(tests.redemptions(), 'reserved (open)', 'the code stays kept');
select tests.set_time('2026-01-31 10:30');
select is(tests.answer_taken(), 'apply_discount succeeded', 'until it goes through');
rollback to s;

-- An answer that was lost, a day ago: Stripe is asked what comes off before anything else.
select tests.apply('stay'), tests.answer_coupon();
select is(tests.answer(503, '{}'), 'apply_discount pending', 'where nobody knows whether it went through');
select tests.set_time('2026-02-01 10:00');
create function tests.look(p_discounts jsonb) returns text
language sql as $$
  select claimed.method || ' ' || claimed.path || ' ' || outcome.status
  from billing.claim_commands() as claimed
  cross join lateral billing.complete_command(
    claimed.id, claimed.lease, 200,
    tests.subscription('ann', 'active', '2026-01-10', p_extra =>
      jsonb_build_object('discounts', p_discounts)), null,
    'Sun, 01 Feb 2026 10:00:00 GMT', 0) as outcome;
$$;
savepoint lost;
select is(
  tests.look(jsonb_build_array(jsonb_build_object(
    'id', 'di_ann', 'object', 'discount', 'subscription', 'sub_ann', 'source',
    jsonb_build_object('type', 'coupon', 'coupon', tests.coupon())))),
  'GET /v1/subscriptions/sub_ann succeeded', 'Stripe is asked first: it did'
);
rollback to lost;
select tests.look('[]');
select is(
  tests.redemptions(), 'released', 'it did not: it is not done again, and the code is given back'
);
rollback to s;

-- ---- who may not ------------------------------------------------------------

select throws_ok(
  $$ select tests.apply('basics') $$, 'PT422', 'the discount code is not valid',
  'a code of another plan is not asked for'
);
select is_empty(
  $$ select * from tests.calls() $$, 'nothing of what was refused here reaches Stripe'
);
select tests.deliver('evt_end', 'customer.subscription.deleted', '2026-01-31 10:00',
  tests.subscription('ann', 'canceled', '2026-01-10', p_extra => '{"ended_at": 1769853600}'));
select throws_ok(
  $$ select tests.apply('stay') $$, 'PT404', 'the account has no such subscription',
  'one that has ended takes none'
);
rollback to s;
select tests.sign_in('ann');
select throws_ok(
  $$
    select billing_admin.apply_discount_code(md5('any')::uuid, 'stay', 'for me')
  $$,
  'PT403', 'this needs a billing administrator', 'users take codes at their checkout'
);

select * from finish();
rollback;
