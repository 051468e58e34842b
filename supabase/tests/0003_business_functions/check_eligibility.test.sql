-- billing.check_eligibility(): may this account subscribe, and if not, why; what checkout would say.
begin;
\ir ../helpers.psql
select plan(29);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');

create function tests.sub(p_status text, p_extra jsonb default '{}') returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_status || p_extra), 'customer.subscription.updated',
    '2026-01-10', tests.subscription('ann', p_status, '2026-01-10', 'price_plus_monthly', p_extra));
$$;

create function tests.invoice(p_status text, p_remaining bigint default 1000) returns text
language sql as $$
  select tests.deliver('evt_in_' || p_status || p_remaining, 'invoice.updated', '2026-01-12',
    jsonb_build_object('id', 'in_1', 'object', 'invoice', 'status', p_status, 'customer', 'cus_ann',
      'currency', 'usd', 'total', 1000, 'amount_due', 1000, 'amount_remaining', p_remaining,
      'hosted_invoice_url', 'https://pay.example/1'));
$$;

-- What a checkout of the signed-in user comes to; undone again.
create function tests.checkout_says(p_price text default 'plus_monthly') returns text
language plpgsql as $$
begin
  perform billing.prepare_checkout(p_price, 'https://a.example', 'https://a.example');
  raise exception sqlstate 'TS001';
exception
  when sqlstate 'TS001' then return null;
  when others then
    declare
      v_details text;
    begin
      get stacked diagnostics v_details = pg_exception_detail;
      return v_details::jsonb ->> 'code';
    end;
end;
$$;

grant execute on all functions in schema tests to authenticated, service_role;
savepoint s;

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');
select results_eq(
  $$ select * from billing.check_eligibility('plus_monthly') $$,
  $$ values (true, '{}'::text[], '{}'::text[], '{}'::jsonb, 0) $$,
  'who has nothing and owes nothing may'
);
select tests.sign_in('carol');
select is((select eligible from billing.check_eligibility('plus_monthly')), true,
  'so may who has never come near billing');
select tests.be_owner();
select is_empty($$ select from billing.accounts where id = md5('carol')::uuid $$,
  'for whom asking makes no account');
rollback to s;

create function tests.reasons_for(p_status text) returns text[]
language plpgsql as $$
declare
  v_reasons text[];
begin
  perform tests.sub(p_status);
  perform tests.sign_in('ann');
  v_reasons := (select reasons from billing.check_eligibility('plus_monthly'));
  if v_reasons[1] is distinct from tests.checkout_says() then
    v_reasons := '{"the checkout says something else"}';
  end if;
  raise exception sqlstate 'TS001' using detail = v_reasons::text;
exception when sqlstate 'TS001' then
  declare
    v_detail text;
  begin
    get stacked diagnostics v_detail = pg_exception_detail;
    return v_detail::text[];
  end;
end;
$$;
select results_eq(
  $$
    select status, tests.reasons_for(status)
    from unnest(array['active', 'trialing', 'paused', 'past_due', 'unpaid', 'incomplete',
      'hibernating', 'canceled', 'incomplete_expired']) as status
  $$,
  $$
    values ('active', '{ALREADY_SUBSCRIBED}'::text[]), ('trialing', '{ALREADY_SUBSCRIBED}'),
      ('paused', '{ALREADY_SUBSCRIBED}'), ('past_due', '{PAYMENT_REQUIRED}'),
      ('unpaid', '{PAYMENT_REQUIRED}'), ('incomplete', '{PAYMENT_REQUIRED}'),
      ('hibernating', '{ALREADY_SUBSCRIBED}'), ('canceled', '{}'), ('incomplete_expired', '{}')
  $$,
  'B12: each status has its reason, and the checkout says the same'
);

select tests.sub('active', '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select is(
  (select details #> '{ALREADY_SUBSCRIBED,is_ending}' from billing.check_eligibility('plus_monthly')),
  'true', 'B13: whose subscription is ending learns that undoing it is the way'
);
select tests.be_owner();
rollback to s;

select tests.sub('canceled', '{"ended_at": 1768300000}');
select tests.invoice('open');
select tests.sign_in('ann');
select results_eq(
  $$ select eligible, reasons, details -> 'PAYMENT_REQUIRED' ->> 'hosted_invoice_url'
    from billing.check_eligibility('plus_monthly') $$,
  $$ values (false, '{PAYMENT_REQUIRED}'::text[], 'https://pay.example/1') $$,
  'who left an invoice unpaid is led to it'
);
select is(tests.checkout_says(), 'PAYMENT_REQUIRED', 'by the checkout too');
select tests.be_owner();
savepoint owing;
select tests.invoice('uncollectible');
select tests.sign_in('ann');
select is((select eligible from billing.check_eligibility('plus_monthly')), true,
  'until an admin writes it off');
select tests.be_owner();
rollback to owing;
select tests.invoice('paid', 0);
select tests.sign_in('ann');
select is((select eligible from billing.check_eligibility('plus_monthly')), true, 'or it is paid');
select tests.be_owner();
rollback to s;

insert into billing.checkout_sessions
  (account_id, price_id, success_url, cancel_url, status, completed_at, stripe_subscription_id)
values (md5('ann')::uuid, md5('plus_monthly')::uuid, 'https://a.example', 'https://a.example',
  'complete', '2026-01-15 07:00:01', 'sub_coming');
select tests.sign_in('ann');
select is((select reasons from billing.check_eligibility('plus_monthly')), '{ALREADY_SUBSCRIBED}',
  'whose subscription is just coming has one');
select tests.be_owner();
select tests.set_time('2026-01-15 08:00:01');
select tests.sign_in('ann');
select is((select reasons from billing.check_eligibility('plus_monthly')), '{}',
  'for an hour: then it is missed, not late');
select tests.be_owner();
rollback to s;

select tests.sign_in('ann');
select billing.prepare_checkout('basic_monthly', 'https://a.example', 'https://a.example');
select results_eq(
  $$ select eligible, notes from billing.check_eligibility('plus_monthly') $$,
  $$ values (true, '{CHECKOUT_OPEN}'::text[]) $$,
  'an open checkout is noted, and stands in nobody''s way'
);
select tests.be_owner();
rollback to s;

-- ---- a member: the price ----------------------------------------------------

create function tests.problem_after(p_statement text, p_price text default 'plus_monthly') returns text
language plpgsql as $$
declare
  v_result billing.eligibility;
begin
  execute p_statement;
  perform tests.sign_in('ann');
  v_result := billing.check_eligibility(p_price);
  raise exception sqlstate 'TS001'
    using detail = coalesce(v_result.details #>> '{PRICE_NOT_FOUND,problem}', 'none')
      || case when tests.checkout_says(p_price) is distinct from v_result.reasons[1]
        then ' (the checkout disagrees)' else '' end;
exception when sqlstate 'TS001' then
  declare
    v_detail text;
  begin
    get stacked diagnostics v_detail = pg_exception_detail;
    return v_detail;
  end;
end;
$$;
select results_eq(
  $$
    select statement, tests.problem_after(statement)
    from unnest(array[
      'select 1',
      'update billing.prices set is_active = false',
      'update billing.prices set is_listed = false',
      'update billing.prices set billing_interval = null',
      'update billing.plans set is_active = false',
      'update billing.plans set is_listed = false',
      'update billing.prices set plan_id = null',
      'update billing.prices set stripe_price_id = null',
      'update billing.plans set store_id = md5(''night-owl'')::uuid',
      'with closed as (update billing.stores set is_active = false returning id)
        update billing.plans set store_id = closed.id from closed'
    ]) as statement
  $$,
  $$
    values
      ('select 1', 'none'),
      ('update billing.prices set is_active = false', 'it is not on offer'),
      ('update billing.prices set is_listed = false', 'it is not on offer'),
      ('update billing.prices set billing_interval = null', 'it is not on offer'),
      ('update billing.plans set is_active = false', 'it is not on offer'),
      ('update billing.plans set is_listed = false', 'it is not on offer'),
      ('update billing.prices set plan_id = null', 'there is no such price'),
      ('update billing.prices set stripe_price_id = null',
        'the price does not exist at Stripe yet'),
      ('update billing.plans set store_id = md5(''night-owl'')::uuid', 'none'),
      ('with closed as (update billing.stores set is_active = false returning id)
        update billing.plans set store_id = closed.id from closed', 'its store is closed')
  $$,
  'why a price cannot be bought is told, and the checkout agrees'
);
select tests.be_owner();
select is(tests.problem_after('select 1', 'gold'), 'there is no such price', 'one nobody offers');
select tests.be_owner();
rollback to s;

-- ---- one base subscription, whoever writes ----------------------------------

select tests.sub('active');
select throws_ok(
  $$
    insert into billing.checkout_sessions (account_id, price_id, success_url, cancel_url)
    values (md5('ann')::uuid, md5('plus_monthly')::uuid, 'x', 'x')
  $$,
  'PT409', 'the account already has a subscription',
  'C6: no checkout can be written for who has a subscription'
);
select throws_ok(
  $$
    insert into billing.subscriptions (account_id, provider, status, price_id, manual_kind)
    values (md5('ann')::uuid, 'manual', 'active', md5('plus_monthly')::uuid, 'complimentary')
  $$,
  'PT409', 'the account already has a subscription',
  'C6: nor a manual subscription beside one of Stripe''s'
);
select lives_ok(
  $$
    insert into billing.checkout_sessions (account_id, price_id, success_url, cancel_url, status)
    values (md5('ann')::uuid, md5('plus_monthly')::uuid, 'x', 'x', 'expired')
  $$,
  'what is over is not in the way'
);
select is(
  tests.deliver('evt_second', 'customer.subscription.created', '2026-01-12',
    tests.subscription('ann', 'active', '2026-01-12', 'price_basic_monthly', '{"id": "sub_second",
      "items": {"data": [{"id": "si_second", "quantity": 1,
        "price": {"id": "price_basic_monthly"}, "current_period_start": 1768176000,
        "current_period_end": 1770854400}]}}')),
  'applied', 'G22: where Stripe has two, both are mirrored'
);
select is((select count(*) from billing.subscriptions where ended_at is null), 2::bigint, 'both');
select results_eq(
  $$ select feature_key, max(limit_value) from billing.entitlements
    where account_id = md5('ann')::uuid group by 1 order by 1 $$,
  $$ values ('clubs', 10::bigint), ('premium', null) $$,
  'G22: access is the union'
);
select results_eq(
  $$ select severity, account_id, jsonb_array_length(details -> 'subscriptions')
    from billing_admin.critical_issues where issue = 'two_subscriptions' $$,
  $$ values ('critical', md5('ann')::uuid, 2) $$,
  'and admins are told'
);
select tests.deliver('evt_second_over', 'customer.subscription.deleted', '2026-01-13',
  tests.subscription('ann', 'canceled', '2026-01-12', 'price_basic_monthly',
    '{"id": "sub_second", "ended_at": 1768262400}'));
select is_empty(
  $$ select * from billing_admin.critical_issues where issue = 'two_subscriptions' $$,
  'until one of them is over'
);
rollback to s;

select tests.sign_in('ann');
select billing.prepare_checkout('plus_monthly', 'https://a.example', 'https://a.example');
select tests.be_owner();
select throws_ok(
  $$
    insert into billing.subscriptions (account_id, provider, status, price_id, manual_kind)
    values (md5('ann')::uuid, 'manual', 'active', md5('plus_monthly')::uuid, 'complimentary')
  $$,
  'PT409', 'another checkout of this account is being prepared',
  'C6: nor while a page is open that could be paid'
);
select lives_ok(
  $$ select billing_private.start_manual_subscription(
    md5('ann')::uuid, md5('plus_monthly')::uuid, 1, null) $$,
  'who is given a subscription'
);
select is((select status from billing.checkout_sessions), 'expired',
  'has the page closed first');
rollback to s;

-- ---- a stranger, a visitor, the service -------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.check_eligibility('plus_monthly', md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody learns of somebody else'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.check_eligibility('plus_monthly') $$,
  '42501', 'permission denied for function check_eligibility',
  'a visitor has to sign in first'
);
select tests.be_owner();
select set_config('role', 'authenticated', true), set_config('request.jwt.claims', '', true);
select throws_ok(
  $$ select billing.check_eligibility('plus_monthly') $$,
  'PT401', 'sign in first',
  'a token that names no user is told so'
);
select tests.be_service();
select is((select eligible from billing.check_eligibility('plus_monthly', md5('ann')::uuid)), true,
  'the service may ask for any account');
select tests.be_owner();

select * from finish();
rollback;
