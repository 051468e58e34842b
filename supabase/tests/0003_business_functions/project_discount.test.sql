-- billing_private.project_coupon(), project_promotion_code() and project_discount(): what comes off
-- a bill, and what the subscription that is billed says of it.
begin;
\ir ../helpers.psql
select plan(40);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

-- As of 2026-10-28.endive, like all that follow unless they say otherwise.
create function tests.coupon(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_coupon_' || md5(p_event || p_at::text || p_extra), 'coupon.' || p_event, p_at,
    '{"id": "SPRING", "object": "coupon", "amount_off": null, "created": 1768003200,
      "currency": null, "duration": "repeating", "duration_in_months": 3, "livemode": false,
      "max_redemptions": 100, "metadata": {}, "name": "Spring sale", "percent_off": 12.5,
      "redeem_by": 1775001600, "times_redeemed": 7, "valid": true}' || p_extra);
$$;

create function tests.code(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_code_' || md5(p_event || p_at::text || p_extra), 'promotion_code.' || p_event, p_at,
    '{"id": "promo_1", "object": "promotion_code", "active": true, "code": "Spring26",
      "created": 1768003200, "customer": null, "customer_account": null, "expires_at": 1775001600,
      "livemode": false, "max_redemptions": 50, "metadata": {}, "times_redeemed": 3,
      "promotion": {"type": "coupon", "coupon": "SPRING"},
      "restrictions": {"first_time_transaction": true, "minimum_amount": 2000,
        "minimum_amount_currency": "usd"}}' || p_extra);
$$;

create function tests.discount(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_discount_' || md5(p_event || p_at::text || p_extra), 'customer.discount.' || p_event, p_at,
    '{"id": "di_1", "object": "discount", "checkout_session": null, "customer": "cus_ann",
      "customer_account": null, "end": 1775779200, "invoice": null, "invoice_item": null,
      "promotion_code": "promo_1", "source": {"type": "coupon", "coupon": "SPRING"},
      "start": 1768003200, "subscription": "sub_ann", "subscription_item": null}' || p_extra);
$$;

-- What a snapshot of ann's subscription says of discounts.
create function tests.sub(p_at timestamptz, p_extra jsonb)
returns text
language sql as $$
  select tests.deliver(
    'evt_sub_' || md5(p_at::text || p_extra), 'customer.subscription.updated', p_at,
    tests.subscription('ann', 'active', '2026-01-10', p_extra => p_extra));
$$;

create view tests.listed as
select string_agg(stripe_discount_id, ',' order by stripe_discount_id) as ids
from billing.discounts
where is_listed;

savepoint s;

-- ---- the service: coupons ---------------------------------------------------

select is(tests.coupon('created', '2026-01-10'), 'applied', 'a coupon is applied');
select results_eq(
  $$
    select stripe_coupon_id, name, percent_off, amount_off_minor, currency, duration,
      duration_in_months, max_redemptions, times_redeemed, redeem_until, is_valid, deleted_at
    from billing.coupons
  $$,
  $$
    values ('SPRING', 'Spring sale', 12.5, null::bigint, null, 'repeating', 3::bigint, 100::bigint,
      7::bigint, '2026-04-01 00:00+00'::timestamptz, true, null::timestamptz)
  $$,
  'with what it takes off, for how long, and how often it may be used'
);
select tests.coupon('updated', '2026-01-11', '{
  "percent_off": null, "amount_off": 3000000000, "currency": "krw", "duration": "once",
  "duration_in_months": null, "redeem_by": null, "max_redemptions": null, "valid": false}');
select results_eq(
  $$
    select percent_off, amount_off_minor, currency, duration, duration_in_months, is_valid
    from billing.coupons
  $$,
  $$ values (null::numeric, 3000000000, 'krw', 'once', null::bigint, false) $$,
  'D15: another takes off an amount, which may be large'
);
select tests.coupon('deleted', '2026-01-12');
select results_eq(
  $$ select is_valid, deleted_at from billing.coupons $$,
  $$ values (false, '2026-01-12 00:00+00'::timestamptz) $$,
  'a deleted coupon is kept, and not valid any more'
);
select tests.coupon('updated', '2026-01-11 12:00', '{"name": "Told late"}');
select is(
  (select name from billing.coupons), 'Spring sale', 'E4: what was told late does not bring it back'
);
select tests.coupon('created', '2026-01-13', '{"name": "Next spring"}');
select results_eq(
  $$ select name, is_valid, deleted_at from billing.coupons $$,
  $$ values ('Next spring', true, null::timestamptz) $$,
  'but its id may be given to another coupon later'
);
rollback to s;

-- ---- the service: promotion codes -------------------------------------------

select is(tests.code('created', '2026-01-10'), 'applied', 'a promotion code is applied');
select results_eq(
  $$
    select stripe_promotion_code_id, code, is_active, stripe_coupon_id, expires_at,
      max_redemptions, times_redeemed, first_time_only, minimum_amount_minor, minimum_currency,
      stripe_customer_id, created_at
    from billing_private.promotion_codes
  $$,
  $$
    values ('promo_1', 'Spring26', true, 'SPRING', '2026-04-01 00:00+00'::timestamptz, 50::bigint,
      3::bigint, true, 2000::bigint, 'usd', null, '2026-01-10 00:00+00'::timestamptz)
  $$,
  'with its coupon and who may use it'
);
select tests.code('updated', '2026-01-11', '{"active": false, "customer": {"id": "cus_ann"},
  "restrictions": null, "max_redemptions": null, "expires_at": null}');
select results_eq(
  $$
    select is_active, stripe_customer_id, first_time_only, minimum_amount_minor
    from billing_private.promotion_codes
  $$,
  $$ values (false, 'cus_ann', false, null::bigint) $$,
  'D11: it may be for one customer, and be switched off'
);
rollback to s;

select tests.code('created', '2026-01-10',
  '{"promotion": null, "coupon": {"id": "SPRING", "object": "coupon", "percent_off": 12.5}}');
select is(
  (select stripe_coupon_id from billing_private.promotion_codes), 'SPRING',
  'D2: before clover the coupon was the code''s own'
);
rollback to s;

-- ---- the service: discounts -------------------------------------------------

select tests.sub('2026-01-10', '{"discounts": []}');
savepoint subscribed;

select is(tests.discount('created', '2026-01-11'), 'applied', 'a discount is applied');
select results_eq(
  $$
    select account_id, is_listed, starts_at, ends_at, removed_at, stripe_coupon_id,
      stripe_promotion_code_id, stripe_customer_id, stripe_subscription_id,
      stripe_subscription_item_id
    from billing.discounts
  $$,
  $$
    values (md5('ann')::uuid, false, '2026-01-10 00:00+00'::timestamptz,
      '2026-04-10 00:00+00'::timestamptz, null::timestamptz, 'SPRING', 'promo_1', 'cus_ann',
      'sub_ann', null)
  $$,
  'it waits for its subscription to name it'
);
select tests.sub('2026-01-11', '{"discounts": ["di_1"]}');
select results_eq(
  $$ select is_listed, ends_at, stripe_coupon_id from billing.discounts $$,
  $$ values (true, '2026-04-10 00:00+00'::timestamptz, 'SPRING') $$,
  'and is in use then, on its own terms'
);
select tests.discount('updated', '2026-01-12', '{"end": null}');
select results_eq(
  $$ select is_listed, ends_at from billing.discounts $$,
  $$ values (true, null::timestamptz) $$,
  'it may be changed'
);
select tests.discount('deleted', '2026-01-13');
select tests.sub('2026-01-13', '{"discounts": null}');
select results_eq(
  $$ select is_listed, removed_at from billing.discounts $$,
  $$ values (false, '2026-01-13 00:00+00'::timestamptz) $$,
  'D12: and taken away; null instead of a list names none'
);
select tests.discount('updated', '2026-01-12 12:00');
select is(
  (select removed_at from billing.discounts), '2026-01-13 00:00+00'::timestamptz,
  'A6: what was told late does not bring it back'
);
rollback to subscribed;

select tests.discount('created', '2026-01-11',
  '{"source": null, "coupon": {"id": "SPRING", "object": "coupon"}, "customer": {"id": "cus_ann"},
    "promotion_code": {"id": "promo_1", "object": "promotion_code"}}');
select results_eq(
  $$ select account_id, stripe_coupon_id, stripe_promotion_code_id from billing.discounts $$,
  $$ values (md5('ann')::uuid, 'SPRING', 'promo_1') $$,
  'D2, D11: before clover the coupon was the discount''s own; ids may be objects'
);
rollback to subscribed;

-- ---- the service: what a subscription names ---------------------------------

select tests.sub('2026-01-11', '{"discounts": ["di_1", "di_2"]}');
select results_eq(
  $$
    select stripe_discount_id, account_id, is_listed, stripe_subscription_id, stripe_coupon_id
    from billing.discounts
    order by 1
  $$,
  $$
    values ('di_1', md5('ann')::uuid, true, 'sub_ann', null),
      ('di_2', md5('ann')::uuid, true, 'sub_ann', null)
  $$,
  'a subscription may name discounts nobody has told of'
);
select tests.discount('created', '2026-01-10 12:00');
select is(
  (select stripe_coupon_id from billing.discounts where stripe_discount_id = 'di_1'), 'SPRING',
  'which get their terms when they are told'
);
select tests.sub('2026-01-12', '{"discounts": ["di_2"]}');
select is((select ids from tests.listed), 'di_2', 'one goes, the other stays');
select tests.sub('2026-01-13', '{"discounts": []}');
select results_eq(
  $$ select stripe_discount_id, is_listed from billing.discounts $$,
  $$ values ('di_1', false) $$,
  'what was only ever named goes with its name'
);
rollback to subscribed;

select tests.sub('2026-01-11', '{"discounts": [
  {"id": "di_1", "object": "discount", "start": 1768003200, "end": null,
    "source": {"type": "coupon", "coupon": {"id": "SPRING", "object": "coupon"}}},
  null]}');
select results_eq(
  $$ select stripe_discount_id, is_listed, starts_at, stripe_coupon_id from billing.discounts $$,
  $$ values ('di_1', true, '2026-01-10 00:00+00'::timestamptz, 'SPRING') $$,
  'D11: an expanded discount brings its terms'
);
select tests.sub('2026-01-12', '{"discounts": ["di_1"]}');
select is(
  (select stripe_coupon_id from billing.discounts), null,
  'which are what the newest snapshot says, whatever was told before'
);
rollback to subscribed;

-- acacia and before: one object, beside the list of ids or alone.
select tests.sub('2026-01-11', '{
  "discount": {"id": "di_1", "object": "discount", "coupon": {"id": "SPRING"}, "start": 1768003200,
    "end": 1775779200, "promotion_code": "promo_1", "subscription": "sub_ann"},
  "discounts": ["di_1"]}');
select results_eq(
  $$
    select stripe_discount_id, is_listed, ends_at, stripe_coupon_id, stripe_promotion_code_id
    from billing.discounts
  $$,
  $$ values ('di_1', true, '2026-04-10 00:00+00'::timestamptz, 'SPRING', 'promo_1') $$,
  'D2: the one discount of older versions, told twice, is one'
);
select tests.sub('2026-01-12', '{"discount": null}');
select is_empty($$ select ids from tests.listed where ids is not null $$,
  'D2: and null when there is none');
rollback to subscribed;

select tests.sub('2026-01-11', '{
  "discount": {"object": "discount", "coupon": {"id": "SPRING", "object": "coupon"},
    "customer": "cus_ann", "start": 1768003200, "end": null, "subscription": "sub_ann"}}');
select results_eq(
  $$ select stripe_discount_id, is_listed, stripe_coupon_id from billing.discounts $$,
  $$ values ('discount:sub_ann', true, 'SPRING') $$,
  'D2: in 2020 a discount had no id, and was the only one of its subscription'
);
rollback to subscribed;

select tests.sub('2026-01-11', '{"discounts": ["di_1"]}');
select tests.sub('2026-01-12', '{"quantity": 2}');
select is(
  (select ids from tests.listed), 'di_1',
  'a snapshot that does not speak of discounts takes none away'
);
rollback to subscribed;

select tests.sub('2026-01-11', '{"discounts": ["di_1"], "items": {"has_more": false, "data": [
  {"id": "si_ann", "price": {"id": "price_plus_monthly"}, "discounts": ["di_item"]}]}}');
select results_eq(
  $$
    select stripe_discount_id, stripe_subscription_item_id
    from billing.discounts
    where is_listed
    order by 1
  $$,
  $$ values ('di_1', null), ('di_item', 'si_ann') $$,
  'items have discounts of their own'
);
select tests.sub('2026-01-12', '{"discounts": [], "items": {"has_more": true, "data": []}}');
select is(
  (select ids from tests.listed), 'di_item',
  'D12: a list of items that is cut short takes no item''s discount away'
);
rollback to subscribed;

select tests.sub('2026-01-12', '{"discounts": ["di_2"]}');
select tests.sub('2026-01-11', '{"discounts": ["di_1"]}');
select is((select ids from tests.listed), 'di_2', 'A9: an older snapshot names nothing');
rollback to subscribed;

-- ---- the service: what a customer has on all it buys ------------------------

create function tests.customer(p_at timestamptz, p_extra jsonb) returns text
language sql as $$
  select tests.deliver('evt_cus_' || md5(p_at::text || p_extra), 'customer.updated', p_at,
    '{"id": "cus_ann", "object": "customer", "metadata": {}}' || p_extra);
$$;

select tests.sub('2026-01-11', '{"discounts": ["di_1"]}');
select tests.customer('2026-01-11', '{"discount": {
  "id": "di_all", "object": "discount", "customer": "cus_ann", "subscription": null,
  "source": {"type": "coupon", "coupon": "SPRING"}, "start": 1768003200, "end": null}}');
select results_eq(
  $$
    select stripe_discount_id, account_id, stripe_customer_id, stripe_subscription_id,
      stripe_coupon_id
    from billing.discounts
    where is_listed
    order by 1
  $$,
  $$
    values ('di_1', md5('ann')::uuid, 'cus_ann', 'sub_ann', null),
      ('di_all', md5('ann')::uuid, 'cus_ann', null, 'SPRING')
  $$,
  'a customer may have a discount on all it buys'
);
select tests.customer('2026-01-12', '{"discount": null}');
select is((select ids from tests.listed), 'di_1', 'without it, those of its subscriptions stay');
rollback to subscribed;

select tests.deliver('evt_new', 'customer.created', '2026-01-11', jsonb_build_object(
  'id', 'cus_new', 'object', 'customer',
  'metadata', jsonb_build_object('account_id', md5('ann')::uuid),
  'discount', '{"id": "di_new", "object": "discount", "coupon": {"id": "SPRING"}}'::jsonb));
select is(
  (select account_id from billing.discounts), md5('ann')::uuid,
  'one it comes with is its account''s at once'
);
rollback to subscribed;

-- ---- a member, a stranger, a visitor ----------------------------------------

select tests.coupon('created', '2026-01-10');
select tests.coupon('created', '2026-01-10', '{"id": "OTHERS"}');
select tests.discount('created', '2026-01-10');
select tests.code('created', '2026-01-10');
select tests.sign_in('ann');
select is(
  (select count(*) from billing.discounts), 1::bigint, 'a member sees the discounts there are');
select results_eq(
  $$ select stripe_coupon_id from billing.coupons $$, $$ values ('SPRING') $$,
  'and their coupons, not those of others'
);
select throws_ok(
  $$ select * from billing_private.promotion_codes $$,
  '42501', 'permission denied for schema billing_private',
  'nor the codes one could type'
);
select tests.sign_in('bob');
select is_empty($$ select * from billing.discounts $$, 'a stranger sees no discounts');
select is_empty($$ select * from billing.coupons $$, 'and no coupons');
select tests.sign_out();
select throws_ok(
  $$ select * from billing.coupons $$,
  '42501', 'permission denied for table coupons',
  'a visitor may not look at coupons'
);
select throws_ok(
  $$ select * from billing.discounts $$,
  '42501', 'permission denied for table discounts',
  'nor at discounts'
);

select * from finish();
rollback;
