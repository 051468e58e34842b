-- billing.find_discount(): a code nobody here knows is looked up at Stripe, for whoever waits with it.
begin;
\ir ../helpers.psql
select plan(28);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');
select tests.account('bob');
insert into billing_private.promotion_codes
  (code, is_active, stripe_promotion_code_id, stripe_coupon_id, expires_at, stripe_customer_id,
    created_at)
values
  ('SPRING', true, 'promo_spring', 'half', null, null, '2026-01-10'),
  ('OVER', true, 'promo_over', 'half', '2026-01-12', null, '2026-01-10'),
  ('OLD', false, 'promo_old', 'half', null, null, '2026-01-10'),
  ('BOB', true, 'promo_bob', 'half', null, 'cus_bob', '2026-01-10');

create function tests.asks(p_code text) returns boolean
language sql as $$
  select subject_id is not null from billing.find_discount(p_code);
$$;

-- What becomes of the question when Stripe answers with these codes.
create function tests.answer(p_codes jsonb, p_http_status integer default 200) returns text
language sql security definer as $$
  with claimed as (
    update billing_private.commands
    set status = 'leased', lease = md5('lease')::uuid, lease_expires_at = '2026-01-16',
      sequence = nextval('billing_private.stripe_events_sequence_seq')
    where id = (
        select id from billing_private.commands
        where kind = 'find_promotion_code' and status = 'pending'
        order by position desc limit 1)
    returning id
  )
  select status from (select id from claimed) as asked
  cross join lateral billing.complete_command(
    asked.id, md5('lease')::uuid, p_http_status,
    jsonb_build_object('object', 'list', 'has_more', false, 'data', p_codes), null,
    'Thu, 15 Jan 2026 08:00:00 GMT', 0) as outcome;
$$;
create function tests.code(p_id text, p_code text, p_extra jsonb default '{}') returns jsonb
language sql as $$
  select jsonb_build_object(
    'id', p_id, 'object', 'promotion_code', 'code', p_code, 'active', true, 'livemode', false,
    'created', 1768464000, 'customer', null, 'expires_at', null, 'max_redemptions', null,
    'times_redeemed', 0, 'restrictions', jsonb_build_object('first_time_transaction', false),
    'promotion', jsonb_build_object('type', 'coupon', 'coupon', 'half')) || p_extra;
$$;
create function tests.checkout(p_code text) returns text
language sql as $$
  select stripe_promotion_code_id
  from billing.prepare_checkout('plus_monthly', 'https://app.example/a', 'https://app.example/b',
    discount_code => p_code);
$$;
grant execute on all functions in schema tests to authenticated;

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');
select is(tests.asks('spring '), false, 'a code that is known needs no question');
select is(tests.asks('over'), false, 'nor does one that is known to be over: its answer is known');
select is(tests.asks(null), false, 'nor no code at all');
select is(tests.asks('  '), false, 'nor an empty one');
select is(tests.asks('two words'), false, 'nor what is no code');
select is(tests.asks(repeat('x', 501)), false, 'nor what is longer than Stripe takes');
select tests.be_owner();
select is_empty('select from billing_private.commands', 'for none of these is Stripe asked');

select tests.sign_in('ann');
create temporary table asked as select * from billing.find_discount(' New-10 ');
select tests.be_owner();
select results_eq(
  $$
    select kind, account_id, method, path, params, subject_id, is_awaited, actor_id,
      cause ->> 'reason'
    from billing_private.commands
  $$,
  $$
    select 'find_promotion_code', md5('ann')::uuid, 'GET', '/v1/promotion_codes',
      '{"code": "New-10", "active": true, "limit": 100}'::jsonb, subject_id, true,
      md5('ann')::uuid, 'discount code'
    from asked
  $$,
  'an unknown code is asked for, for the user who waits'
);
select is(
  (select array_agg(path) from billing.claim_commands()), null,
  'only by that user''s own function'
);
select throws_ok(
  format('%s', $$ select tests.sign_in('ann'); select tests.checkout('new-10') $$),
  'PT422', 'the discount code is not valid',
  'meanwhile it is refused'
);

select tests.be_owner();
select is(
  tests.answer(jsonb_build_array(tests.code('promo_new', 'NEW-10'))), 'succeeded',
  'Stripe answers with the code'
);
select results_eq(
  $$
    select code, is_active, stripe_coupon_id from billing_private.promotion_codes
    where stripe_promotion_code_id = 'promo_new'
  $$,
  $$ values ('NEW-10', true, 'half') $$,
  'which is mirrored'
);
select results_eq(
  $$
    select source, status, object_type from billing_private.stripe_events
    where object_id = 'promo_new'
  $$,
  $$ values ('reread', 'applied', 'promotion_code') $$,
  'as what Stripe showed when it was asked'
);
select tests.sign_in('ann');
select is(tests.asks('new-10'), false, 'and known from now on');
select is(tests.checkout('new-10'), 'promo_new', 'so that the checkout has it');
select tests.be_owner();
select is(
  tests.deliver('evt_created', 'promotion_code.created', '2026-01-15 08:00',
    tests.code('promo_new', 'NEW-10')),
  'applied', 'A7: its event comes late, and says nothing else'
);
select tests.deliver('evt_off', 'promotion_code.updated', '2026-01-15 08:01',
  tests.code('promo_new', 'NEW-10', '{"active": false}'), '{"active": true}');
select is(
  (select is_active from billing_private.promotion_codes where code = 'NEW-10'), false,
  'what Stripe tells afterwards is newer than its answer'
);

-- ---- what Stripe may answer -------------------------------------------------

select tests.sign_in('ann');
select is(tests.asks('old'), true, 'a code that was taken back may have been given out again');
select is(tests.asks('bob'), true, 'one that is another''s may be one''s own as well');
select tests.be_owner();
select is(
  tests.answer(jsonb_build_array(
    tests.code('promo_live', 'BOB', '{"livemode": true}'),
    tests.code('promo_zed', 'BOB', '{"customer": "cus_zed"}'),
    tests.code('promo_bob', 'BOB', '{"customer": "cus_bob"}'))),
  'succeeded', 'several customers may have the same one'
);
select set_eq(
  $$
    select stripe_promotion_code_id from billing_private.promotion_codes where code = 'BOB'
  $$,
  array['promo_bob', 'promo_zed'],
  'E5: of Stripe''s other mode is none of them'
);
select throws_ok(
  $$ select tests.sign_in('ann'); select tests.checkout('bob') $$,
  'PT422', 'the discount code is not valid',
  'E11: what is only another''s is refused'
);
select tests.be_owner();
select is(tests.answer('[]'), 'succeeded', 'nothing found is an answer too');

-- ---- somebody who guesses, a stranger, a visitor ----------------------------

select tests.sign_in('ann');
select is(
  (select count(*) from generate_series(1, 20) as n where tests.asks('GUESS' || n)), 7::bigint,
  'after ten unknown codes within an hour Stripe is not asked any more'
);
select tests.set_time('2026-01-15 09:00:00.000001');
select is(tests.asks('GUESS'), true, 'an hour later it is');
select throws_ok(
  $$ select billing.find_discount('NEW', md5('bob')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'nobody asks for another''s account'
);
select tests.be_owner();
insert into billing.accounts (id, kind, name) values (md5('acme')::uuid, 'organization', 'Acme');
insert into billing.memberships (account_id, user_id, role)
values (md5('acme')::uuid, md5('ann')::uuid, 'member');
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.find_discount('NEW', md5('acme')::uuid) $$,
  'PT403', 'your role in this account does not allow this',
  'nor does a member for an organization whose payments others see to'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.find_discount('NEW') $$,
  '42501', null,
  'a visitor cannot ask'
);

select * from finish();
rollback;
