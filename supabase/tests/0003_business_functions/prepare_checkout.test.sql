-- billing.prepare_checkout(): who may subscribe to what; twice or at once, one checkout.
begin;
\ir ../helpers.psql
select plan(71);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');

-- A checkout by whoever is signed in; the id of the row.
create function tests.checkout(
  p_price text default 'plus_monthly',
  p_quantity bigint default 1,
  p_success text default 'https://app.example/ok',
  p_cancel text default 'https://app.example/no'
) returns uuid
language sql as $$
  select id from billing.prepare_checkout(p_price, p_success, p_cancel, p_quantity);
$$;

-- What a refusal says beside its message.
create function tests.details(p_statement text) returns jsonb
language plpgsql as $$
declare
  v_details text;
begin
  execute p_statement;
  return null;
exception when others then
  get stacked diagnostics v_details = pg_exception_detail;
  return v_details;
end;
$$;

create function tests.sub(p_status text, p_extra jsonb default '{}') returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_status || p_extra), 'customer.subscription.updated',
    '2026-01-10', tests.subscription('ann', p_status, '2026-01-10', 'price_plus_monthly', p_extra));
$$;

-- Stripe's page of ann's checkout is open since 8:00, for a day.
create function tests.open_page() returns void
language sql security definer as $$
  update billing_private.commands
  set status = 'succeeded', lease = null, lease_expires_at = null
  where kind = 'create_checkout' and status in ('pending', 'leased');
  update billing.checkout_sessions
  set status = 'open', stripe_session_id = 'cs_' || left(id::text, 4),
    url = 'https://checkout.stripe.com/c/1', expires_at = '2026-01-16 08:00'
  where status = 'creating';
$$;

-- The SQLSTATE of ann's checkout with a subscription of this status, or after this statement of the
-- owner's; null when she may. All of it is undone again.
create function tests.refusal(p_status text, p_statement text default 'select 1') returns text
language plpgsql as $$
begin
  execute p_statement;
  if p_status is not null then
    perform tests.sub(p_status);
  end if;
  perform tests.sign_in('ann');
  perform tests.checkout();
  raise exception sqlstate 'TS001';
exception when others then
  return nullif(sqlstate, 'TS001');
end;
$$;

create view tests.commands as
select kind, path, params, status, subject_id, actor_id, cause
from billing_private.commands
order by position;

grant execute on all functions in schema tests to authenticated, anon, service_role;
savepoint s;

-- ---- a member: a checkout ---------------------------------------------------

select tests.sign_in('ann');
select results_eq(
  $$
    select account_id, price_id, quantity, status, success_url, cancel_url, url, expires_at,
      failure, stripe_session_id
    from billing.prepare_checkout(
      'plus_monthly', 'https://app.example/ok?id={CHECKOUT_SESSION_ID}', 'http://localhost:3000', 3)
  $$,
  $$
    values (md5('ann')::uuid, md5('plus_monthly')::uuid, 3::bigint, 'creating',
      'https://app.example/ok?id={CHECKOUT_SESSION_ID}', 'http://localhost:3000', null,
      null::timestamptz, null::jsonb, null)
  $$,
  'a member gets a checkout of the own account, which is being opened'
);
select tests.be_owner();
select results_eq(
  $$ select kind, path, params, status, subject_id, actor_id, cause from tests.commands $$,
  $$
    select 'create_checkout', '/v1/checkout/sessions', jsonb_build_object(
        'mode', 'subscription', 'customer', 'cus_ann',
        'client_reference_id', md5('ann')::uuid,
        'line_items', '[{"price": "price_plus_monthly", "quantity": 3}]'::jsonb,
        'success_url', 'https://app.example/ok?id={CHECKOUT_SESSION_ID}',
        'cancel_url', 'http://localhost:3000',
        'metadata', jsonb_build_object('account_id', md5('ann')::uuid, 'checkout_id', id),
        'subscription_data', jsonb_build_object('metadata',
          jsonb_build_object('account_id', md5('ann')::uuid, 'checkout_id', id))),
      'pending', id, md5('ann')::uuid,
      jsonb_build_object('kind', 'user', 'reference', md5('ann')::uuid, 'reason', 'checkout')
    from billing.checkout_sessions
  $$,
  'Stripe is asked for its page: for this customer, price and number of seats'
);
select is(
  (select count(*) from billing.customers), 1::bigint,
  'B8: an account that has a customer gets no other'
);
rollback to s;

select tests.sign_in('bob');
select lives_ok($$ select tests.checkout() $$, 'a user who has never come near billing can begin');
select tests.be_owner();
select results_eq(
  $$
    select kind, account_id, is_primary, stripe_customer_id
    from billing.accounts
    join billing.customers on customers.account_id = accounts.id
    where accounts.id = md5('bob')::uuid
  $$,
  $$ values ('personal', md5('bob')::uuid, true, null) $$,
  'B8: the account is made, and its customer claimed'
);
select results_eq(
  $$ select kind, path, params from tests.commands $$,
  $$
    values ('create_customer', '/v1/customers', jsonb_build_object('email', 'bob@example.com',
      'metadata', jsonb_build_object('account_id', md5('bob')::uuid)))
  $$,
  'B8: Stripe is asked for the customer first'
);
rollback to s;

-- ---- a member: twice --------------------------------------------------------

select tests.sign_in('ann');
select is(tests.checkout(), tests.checkout(), 'B8: two clicks are one checkout');
select tests.be_owner();
select is((select count(*) from tests.commands), 1::bigint, 'B8: and one call to Stripe');

update billing_private.commands
set status = 'leased', lease = gen_random_uuid(), lease_expires_at = '2026-01-15 09:00';
select tests.sign_in('ann');
select is(
  tests.checkout(), (select id from billing.checkout_sessions),
  'B8: a click while Stripe is being asked is the same checkout'
);
select throws_ok(
  $$ select tests.checkout('basic_monthly') $$,
  'PT409', 'another checkout of this account is being prepared',
  'B9: one for something else has to wait: nobody could close the page that is being opened'
);
select is(
  tests.details($$ select tests.checkout('basic_monthly') $$) ->> 'code', 'CHECKOUT_IN_PROGRESS',
  'B9: the refusal has a code'
);
select tests.be_owner();
select tests.open_page();
select tests.sign_in('ann');
select results_eq(
  $$
    select id, status, url
    from billing.prepare_checkout('plus_monthly', 'https://app.example/ok',
      'https://app.example/no')
  $$,
  $$ select id, 'open', 'https://checkout.stripe.com/c/1' from billing.checkout_sessions $$,
  'B8: a click after that is the page that is open'
);
select tests.be_owner();
savepoint opened;

select tests.set_time('2026-01-16 07:59:59');
select tests.sign_in('ann');
select is(
  tests.checkout(), (select id from billing.checkout_sessions),
  'a page is used again to its last second'
);
select tests.set_time('2026-01-16 08:00:00');
select isnt(
  tests.checkout(), (select id from billing.checkout_sessions where status = 'expired'),
  'and not after'
);
select results_eq(
  $$ select status from billing.checkout_sessions order by status $$,
  $$ values ('creating'), ('expired') $$,
  'the page that ran out is expired here, whether or not Stripe has said so'
);
select tests.be_owner();
select is_empty(
  $$ select * from tests.commands where kind = 'expire_checkout' $$,
  'Stripe is not asked to expire what has expired'
);
rollback to opened;

-- ---- a member: something else -----------------------------------------------

insert into billing.checkout_sessions
  (account_id, price_id, success_url, cancel_url, status, completed_at)
values
  (md5('ann')::uuid, md5('plus_yearly')::uuid, 'https://a.example', 'https://a.example',
    'complete', '2025-01-01'),
  (md5('ann')::uuid, md5('plus_yearly')::uuid, 'https://a.example', 'https://a.example',
    'failed', null);
select tests.sign_in('ann');
select isnt(
  tests.checkout('basic_monthly'),
  (select id from billing.checkout_sessions where status = 'open'),
  'B9: another price is another checkout'
);
select results_eq(
  $$
    select prices.key, status, url
    from billing.checkout_sessions
    join billing.prices on prices.id = price_id
    order by prices.key, status
  $$,
  $$
    values ('basic_monthly', 'creating', null), ('plus_monthly', 'expired', null),
      ('plus_yearly', 'complete', null), ('plus_yearly', 'failed', null)
  $$,
  'B9: the one before is closed, so that only one can be paid; those that are over stay as they are'
);
select tests.be_owner();
select results_eq(
  $$ select kind, path from tests.commands where status = 'pending' $$,
  $$
    select kind, path
    from billing.checkout_sessions
    cross join lateral (values
      (1, 'expire_checkout', format('/v1/checkout/sessions/%s/expire', stripe_session_id)),
      (2, 'create_checkout', '/v1/checkout/sessions')
    ) as expected (place, kind, path)
    where stripe_session_id is not null
    order by place
  $$,
  'B9: at Stripe too, before the new page is opened'
);
rollback to opened;

select tests.sign_in('ann');
select is_empty(
  $$
    select change
    from (values
      ('quantity', 2, 'https://app.example/ok', 'https://app.example/no'),
      ('success_url', 1, 'https://app.example/thanks', 'https://app.example/no'),
      ('cancel_url', 1, 'https://app.example/ok', 'https://app.example/')
    ) as changes (change, quantity, success_url, cancel_url)
    cross join lateral (select id from billing.checkout_sessions where status = 'open') as open
    where tests.checkout('plus_monthly', quantity, success_url, cancel_url) = open.id
  $$,
  'B9: other seats, or another way back, are another checkout'
);
select tests.be_owner();
rollback to s;

select tests.sign_in('ann');
select tests.checkout();
select tests.checkout('basic_monthly');
select tests.be_owner();
select results_eq(
  $$ select params #>> '{line_items,0,price}', status from tests.commands $$,
  $$ values ('price_plus_monthly', 'canceled'), ('price_basic_monthly', 'pending') $$,
  'B9: a page nobody has asked Stripe for yet is not asked for any more'
);
rollback to s;

-- ---- a member: who cannot ---------------------------------------------------

select is_empty(
  $$
    select wanted.status
    from (values ('active', 'PT409'), ('trialing', 'PT409'), ('paused', 'PT409'),
      ('past_due', 'PT402'), ('unpaid', 'PT402'), ('incomplete', 'PT402'), ('hibernating', 'PT409'),
      ('canceled', null), ('incomplete_expired', null)) as wanted (status, sqlstate)
    where tests.refusal(wanted.status) is distinct from wanted.sqlstate
  $$,
  'who has a subscription is refused a second, who owes is sent to pay, and whose has ended may'
);

select tests.sub('active');
select tests.sign_in('ann');
select throws_ok(
  $$ select tests.checkout() $$,
  'PT409', 'the account already has a subscription',
  'a subscriber is refused a second subscription'
);
select is(
  tests.details($$ select tests.checkout() $$) - 'subscription_id',
  '{"code": "ALREADY_SUBSCRIBED", "status": "active", "is_ending": false}',
  'and told that it runs'
);
select tests.be_owner();
select is_empty($$ select * from billing.checkout_sessions $$, 'no checkout is left behind');
select is_empty($$ select * from tests.commands $$, 'nor a call to Stripe');
rollback to s;

select tests.sub('active', '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select is(
  tests.details($$ select tests.checkout() $$) ->> 'is_ending', 'true',
  'B13: whose subscription is ending is told so: undoing that is the way'
);
select tests.be_owner();
rollback to s;

select tests.sub('active', '{"cancel_at": 1770681600}');
select tests.sign_in('ann');
select is(
  tests.details($$ select tests.checkout() $$) ->> 'is_ending', 'true',
  'B13, G7: also where the portal has set the end'
);
select tests.be_owner();
rollback to s;

select tests.sub('past_due');
select tests.sign_in('ann');
select throws_ok(
  $$ select tests.checkout() $$,
  'PT402', 'an unpaid invoice has to be settled first',
  'B12: who owes is not sold a second subscription'
);
select is(
  tests.details($$ select tests.checkout() $$) ->> 'code', 'PAYMENT_REQUIRED',
  'B12: but sent to pay'
);
select tests.be_owner();
rollback to s;

select billing_private.start_manual_subscription(
  md5('ann')::uuid, md5('basic_monthly')::uuid, 1, null);
select tests.sign_in('ann');
select throws_ok(
  $$ select tests.checkout() $$,
  'PT409', 'the account already has a subscription',
  'a manual subscription counts as well'
);
select tests.be_owner();
rollback to s;

select tests.deliver('evt_c', 'customer.deleted', '2026-01-12',
  '{"id": "cus_ann", "object": "customer", "deleted": true}');
select billing_private.enqueue_command(
  'expire_checkout', md5('ann')::uuid, '/v1/checkout/sessions/cs_0/expire');
select tests.sign_in('ann');
select lives_ok(
  $$ select tests.checkout() $$,
  'E1: who was deleted as a customer can begin again'
);
select tests.be_owner();
select results_eq(
  $$ select kind from tests.commands $$,
  $$ values ('expire_checkout'), ('create_customer') $$,
  'E1: as a new customer, whatever else Stripe is still being asked'
);
select results_eq(
  $$
    select stripe_customer_id, is_primary
    from billing.customers
    where account_id = md5('ann')::uuid
    order by is_primary
  $$,
  $$ values ('cus_ann', false), (null, true) $$,
  'E1: the deleted one is not used again'
);
rollback to s;

-- ---- a member: trials -------------------------------------------------------

update billing.prices set trial_days = 14 where key = 'plus_monthly';
savepoint trials;
select tests.sign_in('ann');
select tests.checkout();
select tests.be_owner();
select is(
  (select params #> '{subscription_data,trial_period_days}' from tests.commands), '14',
  'a price with a trial begins with it'
);
rollback to trials;

select tests.sub('canceled', '{"trial_start": 1766000000, "trial_end": 1767000000,
  "ended_at": 1767000000}');
select tests.sign_in('ann');
select tests.checkout();
select tests.be_owner();
select is(
  (select params #> '{subscription_data,trial_period_days}' from tests.commands), null,
  'G4: but not for who has had a trial'
);
rollback to trials;

select tests.sub('canceled', '{"trial_start": null, "trial_end": null, "ended_at": 1767000000}');
select tests.sign_in('ann');
select tests.checkout();
select tests.be_owner();
select is(
  (select params #> '{subscription_data,trial_period_days}' from tests.commands), '14',
  'G4: who has subscribed before without one may still have it'
);
rollback to trials;

update billing.prices set trial_days = 0 where key = 'plus_monthly';
select tests.sign_in('ann');
select tests.checkout();
select tests.be_owner();
select is(
  (select params #> '{subscription_data,trial_period_days}' from tests.commands), null,
  'a trial of no days is none: Stripe would refuse it'
);
rollback to s;

update billing.prices set usage_type = 'metered' where key = 'plus_monthly';
select tests.sign_in('ann');
select tests.checkout();
select tests.be_owner();
select is(
  (select params -> 'line_items' from tests.commands), '[{"price": "price_plus_monthly"}]',
  'a metered price has no seats: Stripe would refuse them'
);
rollback to s;

-- ---- a member: discounts ----------------------------------------------------

insert into billing.coupons (stripe_coupon_id, percent_off) values ('half', 50), ('gone', 10);
update billing.coupons set is_valid = false where stripe_coupon_id = 'gone';
insert into billing_private.promotion_codes
  (code, is_active, stripe_promotion_code_id, stripe_coupon_id, expires_at, max_redemptions,
    times_redeemed, stripe_customer_id)
values
  ('SPRING', true, 'promo_spring', 'half', '2026-01-15 08:00:01', 5, 4, null),
  ('OLD', false, 'promo_old', 'half', null, null, 0, null),
  ('OVER', true, 'promo_over', 'half', '2026-01-15 08:00', null, 0, null),
  ('TAKEN', true, 'promo_taken', 'half', null, 5, 5, null),
  ('GONE', true, 'promo_gone', 'gone', null, null, 0, null),
  ('ANN', true, 'promo_ann', 'unheard_of', null, null, 0, 'cus_ann'),
  ('BOB', true, 'promo_bob', 'half', null, null, 0, 'cus_bob');
savepoint codes;

create function tests.discounted(p_code text) returns jsonb
language plpgsql as $$
begin
  perform billing.prepare_checkout(
    'plus_monthly', 'https://a.example', 'https://a.example', discount_code => p_code);
  raise exception sqlstate 'TS001';
exception
  when sqlstate 'TS001' then return '"accepted"';
  when others then
    declare
      v_detail text;
    begin
      get stacked diagnostics v_detail = pg_exception_detail;
      return v_detail::jsonb -> 'code';
    end;
end;
$$;
grant execute on function tests.discounted to authenticated;

select tests.sign_in('ann');
select is_empty(
  $$
    select code
    from (values ('SPRING', true), (' spring ', true), ('ANN', true), (null, true), ('OLD', false),
      ('OVER', false), ('TAKEN', false), ('GONE', false), ('BOB', false), ('NEVER', false),
      ('', false), ('%', false)) as codes (code, accepted)
    where tests.discounted(code)
      <> case when accepted then '"accepted"'::jsonb else '"DISCOUNT_NOT_VALID"' end
  $$,
  'a code is taken in any case, until it is over or used up, and by whom it is for'
);
select billing.prepare_checkout('plus_monthly', 'https://app.example/ok', 'https://app.example/no',
  discount_code => 'spring');
select tests.be_owner();
select results_eq(
  $$ select params -> 'discounts', params ? 'allow_promotion_codes' from tests.commands $$,
  $$ values ('[{"promotion_code": "promo_spring"}]'::jsonb, false) $$,
  'Stripe gets the code that was named, and asks for no other'
);
select tests.sign_in('ann');
select is(
  (select stripe_promotion_code_id from billing.prepare_checkout('plus_monthly',
    'https://app.example/ok', 'https://app.example/no', discount_code => 'SPRING')),
  'promo_spring', 'a second click is the same checkout'
);
select is((select count(*) from billing.checkout_sessions), 1::bigint, 'and no other');
select billing.prepare_checkout('plus_monthly', 'https://app.example/ok', 'https://app.example/no');
select is((select count(*) from billing.checkout_sessions where status = 'expired'), 1::bigint,
  'without the code it is another');
select tests.be_owner();
rollback to codes;

select tests.sign_in('ann');
select tests.checkout();
select tests.be_owner();
select is((select params -> 'allow_promotion_codes' from tests.commands), 'true',
  'who names none is asked for one on the page');
rollback to codes;
update billing_private.promotion_codes set is_active = false where code <> '';
select tests.sign_in('ann');
select tests.checkout();
select tests.be_owner();
select is((select params ? 'allow_promotion_codes' or params ? 'discounts' from tests.commands), false,
  'but not where there is none to have');
rollback to s;

-- ---- a member: what is not acceptable ---------------------------------------

select tests.sign_in('ann');
select is_empty(
  $$
    select url
    from unnest(array[null, '', 'app.example/ok', '/ok', 'javascript:alert(1)', 'ftp://app.example',
      'https://', 'https:///ok', 'https:// app.example', 'https://app.example/a b',
      'https://app.example/' || chr(10) || 'x', ' https://app.example',
      'https://app.example/' || repeat('x', 1981)]) as url
    cross join lateral (values
      (tests.details(format('select tests.checkout(p_success => %L)', url)), 'success_url'),
      (tests.details(format('select tests.checkout(p_cancel => %L)', url)), 'cancel_url')
    ) as refusals (details, field)
    where (details ->> 'code', details ->> 'field') is distinct from ('VALIDATION_FAILED', field)
  $$,
  'what is no absolute http(s) address of at most 2000 characters is refused, by its field'
);
select lives_ok(
  $$
    select tests.checkout(p_success => 'https://app.example/' || repeat('x', 1980),
      p_cancel => 'http://127.0.0.1:3000/?a=1#b')
  $$,
  'exactly 2000 characters are accepted, and an address of this machine'
);
select throws_ok(
  $$ select tests.checkout(p_success => 'nowhere') $$,
  'PT400', 'the request is not valid',
  'with the constant message of the catalog'
);
select throws_ok(
  $$ select tests.checkout('plus_monthly', 0) $$,
  'PT400', 'the request is not valid',
  'no seats are refused'
);
select is_empty(
  $$
    select quantity
    from unnest(array[-1, 0, 1000000, null]) as quantity
    cross join lateral tests.details(
      format('select tests.checkout(%L, %L)', 'plus_monthly', quantity)) as details
    where (details ->> 'code', details ->> 'field')
      is distinct from ('VALIDATION_FAILED', 'quantity')
  $$,
  'so are fewer, a million, and an unknown number'
);
select lives_ok($$ select tests.checkout('plus_monthly', 999999) $$, '999999 seats are accepted');
select tests.be_owner();
rollback to s;

select tests.sign_in('ann');
select throws_ok(
  $$ select tests.checkout('gold_monthly') $$,
  'PT404', 'there is no such price on offer',
  'a price nobody offers is refused'
);
select throws_ok(
  $$ select tests.checkout(null) $$,
  'PT404', 'there is no such price on offer',
  'so is none at all'
);
select tests.be_owner();

select is_empty(
  $$
    select change
    from unnest(array[
      'update billing.plans set is_active = false',
      'update billing.plans set is_listed = false',
      'update billing.prices set is_active = false',
      'update billing.prices set is_listed = false',
      'update billing.prices set billing_interval = null',
      'update billing.prices set stripe_price_id = null'
    ]) as change
    where tests.refusal(null, change) is distinct from 'PT404'
  $$,
  'a price that is archived, off the list, one-time or unknown to Stripe cannot be bought'
);

update billing.prices set stripe_price_id = null;
select tests.sign_in('ann');
select is(
  tests.details($$ select tests.checkout() $$),
  '{"code": "PRICE_NOT_FOUND", "price_key": "plus_monthly",
    "problem": "the price does not exist at Stripe yet"}',
  'of a price Stripe does not know yet the details say so'
);
select tests.be_owner();
select is_empty($$ select * from billing.checkout_sessions $$,
  'no refusal leaves a checkout behind');
rollback to s;

insert into billing.prices (key, plan_id, currency, unit_amount_minor, billing_interval, is_active,
  stripe_price_id)
values ('plus_monthly', md5('plus')::uuid, 'usd', 1, 'month', false, 'price_ancient');
select tests.sign_in('ann');
select is(
  (select price_id from billing.prepare_checkout(
    'plus_monthly', 'https://app.example', 'https://app.example')),
  md5('plus_monthly')::uuid,
  'of two prices of one name the one that is active is bought'
);
select tests.be_owner();
rollback to s;

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example', 1,
      md5('ann')::uuid)
  $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody can begin a checkout for somebody else'
);
select throws_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example', 1,
      md5('nobody')::uuid)
  $$,
  'PT403', 'you are not a member of this account',
  'E11: with the same answer for an account that does not exist'
);
select lives_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example', 1,
      md5('bob')::uuid)
  $$,
  'naming the own account is allowed'
);
select tests.be_owner();
select is_empty(
  $$ select * from billing.checkout_sessions where account_id = md5('ann')::uuid $$,
  'E11: nothing of it reaches the other account'
);
select is_empty(
  $$ select * from tests.commands where params::text like '%cus_ann%' $$,
  'E11: nor its customer'
);
rollback to s;

select tests.sign_out();
select throws_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example')
  $$,
  '42501', 'permission denied for function prepare_checkout',
  'a visitor has to sign in first'
);
select tests.be_owner();
select set_config('role', 'authenticated', true), set_config('request.jwt.claims', '', true);
select throws_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example')
  $$,
  'PT401', 'sign in first',
  'a token that names no user is told so'
);
select tests.be_owner();

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select lives_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example', 1,
      md5('ann')::uuid)
  $$,
  'the service may begin a checkout for any account'
);
select throws_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example')
  $$,
  'PT400', 'the request is not valid',
  'and has to name it'
);
select throws_ok(
  $$
    select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example', 1,
      md5('nobody')::uuid)
  $$,
  'PT404', 'there is no such account',
  'and is told when it does not exist'
);
select tests.be_owner();
rollback to s;

select billing_private.ensure_account(md5('carol')::uuid);
select tests.be_service();
select billing.prepare_checkout('plus_monthly', 'https://app.example', 'https://app.example', 1,
  md5('carol')::uuid);
select tests.be_owner();
select is(
  (select params from tests.commands),
  jsonb_build_object('metadata', jsonb_build_object('account_id', md5('carol')::uuid)),
  'a customer made for an account by the service has no e-mail of the service''s'
);

-- ---- the owner: what the table holds ----------------------------------------

select throws_ok(
  $$
    insert into billing.checkout_sessions (account_id, price_id, success_url, cancel_url)
    values (md5('carol')::uuid, md5('plus_monthly')::uuid, 'x', 'x')
  $$,
  '23505',
  'duplicate key value violates unique constraint "checkout_sessions_one_open_idx"',
  'B8: two open checkouts of one account cannot be, whatever is written'
);
select throws_ok(
  $$
    insert into billing.customers (account_id, is_primary) values (md5('carol')::uuid, true)
  $$,
  '23505',
  'duplicate key value violates unique constraint "customers_account_id_primary_idx"',
  'B8: nor two claims of a customer'
);

select * from finish();
rollback;
