-- Discount codes: who can use which, at checkout and on our own invoices, to the smallest unit.
begin;
\ir ../helpers.psql
select plan(56);

select tests.catalog();
select tests.set_time('2026-01-31 10:00');
select tests.account(name) from unnest(array['ann', 'bob', 'cleo']) as name;
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'first');

insert into billing_private.discount_codes (
  code, percent_off, amount_off_minor, currency, periods, max_redemptions, max_per_account,
  first_time_only, minimum_amount_minor, plan_keys, price_keys, store_keys, expires_at,
  deactivated_at
) values
  ('WELCOME', 20, null, null, 1, null, 1, false, null, null, null, null, null, null),
  ('Last-One', 50, null, null, 3, 1, 1, false, null, null, null, null, null, null),
  ('MINUS3', null, 300, 'usd', null, null, 2, false, null, null, null, null, null, null),
  ('EURO', null, 300, 'eur', 1, null, 1, false, null, null, null, null, null, null),
  ('BIG', 10, null, 'usd', 1, null, 1, false, 3000, null, null, null, null, null),
  ('NEWCOMER', 10, null, null, 1, null, 1, true, null, null, null, null, null, null),
  ('BASICS', 10, null, null, 1, null, 1, false, null, '{basic}', null, null, null, null),
  ('YEARLY', 10, null, null, null, null, 1, false, null, null, '{plus_yearly}', null, null, null),
  ('OWLS', 10, null, null, 1, null, 1, false, null, null, null, '{night-owl}', null, null),
  ('OVER', 10, null, null, 1, null, 1, false, null, null, null, null, '2026-01-31 10:00', null),
  ('NEARLY', 10, null, null, 1, null, 1, false, null, null, null, null, '2026-01-31 10:00:01',
    null),
  ('STOPPED', 10, null, null, 1, null, 1, false, null, null, null, null, null, '2026-01-01'),
  ('TOOMUCH', null, 5000, 'usd', null, null, 1, false, null, null, null, null, null, null),
  ('THREE', 10, null, null, 3, null, 1, false, null, null, null, null, null, null);

create function tests.check_code(
  p_code text,
  p_price text default 'plus_monthly',
  p_quantity bigint default 1
) returns text
language sql as $$
  select coalesce(reason, format('%s - %s = %s', amount_minor, discount_minor, total_minor))
  from billing.check_code(p_code, p_price, p_quantity);
$$;

create function tests.checkout(p_code text, p_price text default 'plus_monthly') returns uuid
language sql as $$
  select id
  from billing.prepare_checkout(
    p_price, 'https://app.example/yes', 'https://app.example/no', discount_code => p_code);
$$;

create function tests.redemptions(p_code text) returns text
language sql security definer as $$
  select string_agg(status, ', ' order by discount_redemptions.created_at, status)
  from billing.discount_redemptions
  join billing_private.discount_codes on discount_codes.id = discount_code_id
  where code = p_code;
$$;

create function tests.calls(p_name text) returns table (kind text, params jsonb)
language sql security definer as $$
  select kind, params - 'metadata'
  from billing_private.commands
  where account_id = md5(p_name)::uuid
    and status = 'pending'
  order by position;
$$;
grant execute on all functions in schema tests to anon, authenticated, service_role;
savepoint s;

-- ---- a member: what would it take off? --------------------------------------

select tests.sign_in('ann');
select is(tests.check_code('welcome '), '1000 - 200 = 800', 'a code is taken in any case');
select is(tests.check_code('MINUS3'), '1000 - 300 = 700', 'an amount comes off');
select is(tests.check_code('TOOMUCH'), '1000 - 1000 = 0', 'never more than the price comes off');
select is(
  tests.check_code('no-such-code'), 'not_valid', 'a code nobody made cannot be used'
);
select is(tests.check_code('OVER'), 'not_valid', 'one whose end has come is as good as unknown');
select is(tests.check_code('NEARLY'), '1000 - 100 = 900', 'until then it is good');
select is(tests.check_code('STOPPED'), 'not_valid', 'one that was stopped is as good as unknown');
select is(tests.check_code('EURO'), 'not_for_this_price', 'an amount has its currency');
select is(tests.check_code('BIG', p_quantity => 2), 'below_minimum', 'a minimum is asked for');
select is(tests.check_code('BIG', p_quantity => 3), '3000 - 300 = 2700', 'and enough when reached');
select is(tests.check_code('BASICS'), 'not_for_this_price', 'a plan''s code is for that plan');
select is(tests.check_code('BASICS', 'basic_monthly'), '500 - 50 = 450', 'and for that it is good');
select is(tests.check_code('YEARLY'), 'not_for_this_price', 'a price''s code is for that price');
select is(
  tests.check_code('YEARLY', 'plus_yearly'), '10000 - 1000 = 9000', 'and for that it is good');
select is(tests.check_code('OWLS'), 'not_for_this_price', 'a store''s code is for its plans');
select is(tests.check_code('NEWCOMER'), '1000 - 100 = 900', 'who never bought is a newcomer');
select throws_ok(
  $$ select billing.check_code('WELCOME', 'plus_monthly', 0) $$,
  'PT400', 'the request is not valid', 'nothing cannot be bought'
);
select throws_ok(
  $$ select billing.check_code('WELCOME', 'no_such_price') $$,
  'PT404', 'there is no such price on offer', 'there has to be something to buy'
);
select throws_ok(
  $$ select billing.check_code('WELCOME', 'plus_monthly', account_id => md5('bob')::uuid) $$,
  'PT403', 'you are not a member of this account', 'for others nobody asks'
);
select throws_ok(
  $$ select * from billing_private.discount_codes $$, '42501', null, 'nobody can list the codes'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.check_code('WELCOME', 'plus_monthly') $$,
  '42501', null, 'visitors cannot try codes'
);

select tests.be_owner();
select tests.deliver('evt_in', 'invoice.paid', '2026-01-20',
  '{"id": "in_1", "object": "invoice", "status": "paid", "customer": "cus_ann", "total": 5}');
select tests.sign_in('ann');
select is(tests.check_code('NEWCOMER'), 'first_time_only', 'who was billed is no newcomer');
rollback to s;

-- ---- a code of Stripe's -----------------------------------------------------

select tests.deliver('evt_c', 'coupon.created', '2026-01-10',
  '{"id": "SUMMER", "object": "coupon", "percent_off": 25, "duration": "once", "valid": true}');
select tests.deliver('evt_p', 'promotion_code.created', '2026-01-10',
  '{"id": "promo_1", "object": "promotion_code", "code": "Summer25", "active": true,
    "promotion": {"type": "coupon", "coupon": "SUMMER"}}');
select tests.sign_in('ann');
select is(
  tests.check_code('summer25'), '1000 - 250 = 750', 'a promotion code of Stripe''s is told too');
rollback to s;

-- ---- a member: checkout -----------------------------------------------------

select tests.sign_in('ann');
select lives_ok($$ select tests.checkout('last-one') $$, 'a checkout takes a code along');
select is(tests.redemptions('Last-One'), 'reserved', 'and keeps it');
select results_eq(
  $$ select kind, params -> 'duration_in_months', params -> 'percent_off', params -> 'discounts'
    from tests.calls('ann') $$,
  $$ select 'create_coupon', to_jsonb(3), to_jsonb(50), null::jsonb
    union all
    select 'create_checkout', null, null, jsonb_build_array(jsonb_build_object('coupon',
      (select params ->> 'id' from tests.calls('ann') where kind = 'create_coupon'))) $$,
  'Stripe gets a coupon nobody can type, then the checkout with it'
);
select is(tests.check_code('last-one'), 'not_valid', 'the last one is taken');
select lives_ok($$ select tests.checkout('last-one') $$, 'the same click again is the same checkout');
select is(tests.redemptions('Last-One'), 'reserved', 'with one code');

select tests.sign_in('bob');
select throws_ok(
  $$ select tests.checkout('last-one') $$,
  'PT422', 'the discount code is not valid', 'nobody else gets it meanwhile'
);

select tests.sign_in('ann');
select lives_ok($$ select tests.checkout(null) $$, 'who goes on without it');
select is(tests.redemptions('Last-One'), 'released', 'gives it back');
select lives_ok($$ select tests.checkout('LAST-ONE') $$, 'and may come back for it');
select is(tests.redemptions('Last-One'), 'released, reserved', 'as long as it is there');

select tests.be_owner();
create function tests.session(p_status text) returns text
language sql as $$
  select tests.deliver('evt_cs_' || p_status,
    'checkout.session.' || case p_status when 'complete' then 'completed' else p_status end,
    '2026-01-31 11:00',
    jsonb_build_object(
      'id', 'cs_1', 'object', 'checkout.session', 'status', p_status, 'customer', 'cus_ann',
      'metadata', jsonb_build_object('checkout_id', (
        select id from billing.checkout_sessions where status = 'creating'))));
$$;
savepoint reserved;
select tests.session('expired');
select is(
  tests.redemptions('Last-One'), 'released, released', 'a page that expires gives it back');
select tests.sign_in('bob');
select lives_ok($$ select tests.checkout('last-one') $$, 'for somebody else to use');
rollback to reserved;
select tests.session('complete');
select is(
  tests.redemptions('Last-One'), 'confirmed, released', 'a page that is completed uses it');
select tests.sign_in('bob');
select throws_ok(
  $$ select tests.checkout('last-one') $$,
  'PT422', 'the discount code is not valid', 'and that was the last'
);
rollback to s;

-- ---- one coupon for each length ---------------------------------------------

select is(
  billing_private.coupon_months(discount_codes, prices),
  case prices.key when 'plus_yearly' then 36 else 3 end,
  format('three periods of %s are so many months', prices.key)
)
from billing_private.discount_codes
cross join billing.prices
where code = 'THREE' and prices.key in ('plus_monthly', 'plus_yearly')
order by prices.key;
update billing.prices set billing_interval = 'week' where key = 'plus_yearly';
select tests.sign_in('ann');
select is(
  tests.check_code('THREE', 'plus_yearly'), 'not_for_this_price',
  'Stripe cannot count weeks, so a code for several is not for a weekly price'
);
rollback to s;

-- ---- the machine: our own invoices ------------------------------------------

create function tests.invoice_to(
  p_code text,
  p_price text default 'plus_monthly',
  p_quantity bigint default 1,
  p_name text default 'ann'
) returns uuid
language sql as $$
  select billing_private.start_manual_subscription(
    md5(p_name)::uuid, md5(p_price)::uuid, p_quantity, null, 'invoiced', null, 14, p_code);
$$;
create view tests.bills as
select
  billing_reason as reason, subtotal_minor as subtotal, discount_minor as discount,
  total_minor as total, amount_due_minor as due,
  (select sum(amount_minor) from billing.invoice_lines where invoice_id = invoices.id) as lines,
  (select sum(invoice_lines.discount_minor) from billing.invoice_lines
    where invoice_id = invoices.id) as off
from billing.invoices
order by number;
create function tests.renew_at(p_at timestamptz) returns bigint
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  return billing_private.renew_manual_subscriptions(10);
end;
$$;
savepoint manual;

select tests.invoice_to('last-one');
select tests.renew_at('2026-06-01');
select results_eq(
  $$ select discount, total, off from tests.bills $$,
  $$ values (500::bigint, 500::bigint, 500::numeric), (500, 500, 500), (500, 500, 500),
    (0, 1000, 0), (0, 1000, 0) $$,
  'a code for three periods comes off three invoices, also where they are late'
);
select results_eq(
  $$ select periods_used, ended_at is not null from billing.discount_redemptions $$,
  $$ values (3, true) $$,
  'and has ended then'
);
rollback to manual;

select tests.invoice_to('toomuch');
select results_eq(
  $$ select total, due, status from tests.bills cross join billing.invoices $$,
  $$ values (0::bigint, 0::bigint, 'paid') $$,
  'a code worth more than the price leaves nothing to pay, and no credit'
);
select billing_private.set_manual_terms(
  subscriptions.id, md5('basic_monthly')::uuid, null, '2026-02-14 10:00')
from billing.subscriptions;
select is(
  (select credit_minor from billing.subscriptions), 0::bigint,
  'what was not paid for is not given back'
);
rollback to manual;

select tests.invoice_to('minus3');
select billing_private.set_manual_terms(
  subscriptions.id, md5('plus_monthly')::uuid, 2, '2026-02-14 10:00')
from billing.subscriptions;
select results_eq(
  $$ select reason, subtotal, discount, total from tests.bills $$,
  $$ values ('subscription_cycle', 1000::bigint, 300::bigint, 700::bigint),
    ('subscription_update', 500, 0, 500) $$,
  'an amount is neither given twice nor lost when more is bought within the period'
);
rollback to manual;

select tests.invoice_to('last-one');
select billing_private.set_manual_terms(
  subscriptions.id, md5('plus_monthly')::uuid, 2, '2026-02-14 10:00')
from billing.subscriptions;
select results_eq(
  $$ select reason, subtotal, discount, total from tests.bills $$,
  $$ values ('subscription_cycle', 1000::bigint, 500::bigint, 500::bigint),
    ('subscription_update', 500, 250, 250) $$,
  'a percentage holds for what a change gives back and for what it charges'
);
select is(
  (select periods_used from billing.discount_redemptions), 1, 'which uses no period up');
rollback to manual;

select throws_ok(
  $$ select tests.invoice_to('no-such-code') $$,
  'PT422', 'the discount code is not valid', 'an unknown code starts nothing'
);
select throws_ok(
  $$ select billing_private.start_manual_subscription(
      md5('ann')::uuid, md5('plus_monthly')::uuid, 1, null, 'complimentary', null, null,
      'welcome') $$,
  'PT422', 'the discount code is not valid', 'what is free needs no code'
);

select tests.invoice_to('last-one');
select tests.set_time('2026-02-14 10:00');
create function tests.preview(p_price text) returns text
language sql as $$
  select format('%s: %s', total_minor, (
    select string_agg(description || ' ' || amount_minor, ', ') from unnest(lines)))
  from billing.preview_change(p_price, account_id => md5('ann')::uuid, quantity => 2);
$$;
select is(
  tests.preview('plus_monthly'),
  '250: Unused time on Plus -500, Remaining time on Plus 1000, Discount -250',
  'a preview says what a code takes off'
);
select billing_private.set_manual_terms(
  subscriptions.id, md5('plus_monthly')::uuid, 2, '2026-02-14 10:00')
from billing.subscriptions;
select is((select total from tests.bills where reason = 'subscription_update'), 250::bigint,
  'and so it comes');
rollback to manual;

-- ---- largest remainder ------------------------------------------------------

select is(
  billing_private.spread(100, '{1,1,1}'), '{34,33,33}'::bigint[], 'what rounding leaves goes on');
select is(
  billing_private.spread(2, '{5,0,3,7}'), '{1,0,0,1}'::bigint[], 'to those it took most from');
select is(billing_private.spread(0, '{0,0}'), '{0,0}'::bigint[], 'nothing is cut into nothing');
select is_empty(
  $$
    select setseed(0.42), shares, amount, parts
    from (
      select
        array(
          select (random() * 1000)::bigint + number % 2
          from generate_series(1, 1 + number % 7)) as shares,
        number * 37 % 900 as amount
      from generate_series(1, 500) as number
    ) as cases
    cross join lateral billing_private.spread(amount, shares) as parts
    where (select sum(share) from unnest(shares) as share) > 0
      and (
        (select sum(part) from unnest(parts) as part) <> amount
        or exists (
          select
          from unnest(parts, shares) as cut (part, share)
          where abs(part - amount * share::numeric
            / (select sum(whole) from unnest(shares) as whole)) >= 1
        )
      )
  $$,
  'five hundred amounts are cut to the last unit, each part within one of its share'
);

select * from finish();
rollback;
