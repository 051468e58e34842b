-- billing.prepare_portal(): a session of Stripe's portal, for the account's own customer only.
begin;
\ir ../helpers.psql
select plan(25);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select billing_private.ensure_account(md5('ann')::uuid);
insert into billing.customers (account_id, stripe_customer_id)
values (md5('ann')::uuid, 'cus_not_the_one');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);

create function tests.flow_data() returns jsonb
language sql security definer as $$
  select params -> 'flow_data' from billing_private.commands order by position desc limit 1;
$$;

create function tests.refusal(p_flow text) returns text
language plpgsql as $$
begin
  perform billing.prepare_portal('https://app.example', flow => p_flow);
  return null;
exception when others then
  return sqlstate;
end;
$$;

grant execute on all functions in schema tests to authenticated;

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');
create temporary table asked as select * from billing.prepare_portal('https://app.example/account');
select isnt(
  (select subject_id from asked), null,
  'a member gets a request to wait for'
);
select tests.be_owner();
select results_eq(
  $$
    select kind, account_id, method, path, params, subject_id, status, actor_id, cause ->> 'reason'
    from billing_private.commands
  $$,
  $$
    select 'create_portal', md5('ann')::uuid, 'POST', '/v1/billing_portal/sessions',
      '{"customer": "cus_ann", "return_url": "https://app.example/account"}'::jsonb,
      subject_id, 'pending', md5('ann')::uuid, 'portal'
    from asked
  $$,
  'Stripe is asked for a session of the account''s own customer'
);
select tests.sign_in('ann');
select isnt(
  (select subject_id from billing.prepare_portal('https://app.example/account')),
  (select subject_id from asked),
  'each request gets a session of its own: an address works once'
);
select throws_ok(
  $$ select billing.prepare_portal('app.example') $$,
  'PT400', 'the request is not valid',
  'what is no absolute address is refused'
);
select throws_ok(
  $$ select billing.prepare_portal(null) $$,
  'PT400', 'the request is not valid',
  'so is none'
);

-- ---- a member: straight to one thing ----------------------------------------

select billing.prepare_portal('https://app.example/account', flow => 'payment_method_update');
select is(
  tests.flow_data(),
  '{"type": "payment_method_update", "after_completion": {"type": "redirect",
    "redirect": {"return_url": "https://app.example/account"}}}',
  'a member is led straight to the payment method, and back'
);
select is(tests.refusal('subscription_cancel'), 'PT404',
  'a flow about a subscription needs one');
select is(tests.refusal('money_back'), 'PT400', 'an unknown flow is refused');

select tests.be_owner();
savepoint flows;
select billing_private.start_manual_subscription(
  md5('ann')::uuid, md5('plus_monthly')::uuid, 1, null);
select tests.sign_in('ann');
select is(tests.refusal('subscription_update'), 'PT404', 'and one at Stripe');
select tests.be_owner();
rollback to flows;

select tests.subscribe('ann');
select tests.sign_in('ann');
select billing.prepare_portal('https://app.example/account', flow => 'subscription_cancel');
select is(
  tests.flow_data() - 'after_completion',
  '{"type": "subscription_cancel", "subscription_cancel": {"subscription": "sub_ann"}}',
  'E11: the subscription is the account''s own, whatever anybody says'
);
select billing.prepare_portal('https://app.example/account', flow => 'subscription_update');
select is(
  tests.flow_data() - 'after_completion',
  '{"type": "subscription_update", "subscription_update": {"subscription": "sub_ann"}}',
  'for changing it as well'
);
select tests.be_owner();
update billing.subscriptions set stripe_customer_id = 'cus_not_the_one';
select tests.sign_in('ann');
select billing.prepare_portal('https://app.example/account');
select tests.be_owner();
select is(
  (select params ->> 'customer' from billing_private.commands order by position desc limit 1),
  'cus_not_the_one',
  'of several customers the one who pays for the subscription is meant'
);
rollback to flows;

select tests.subscribe('ann', 'canceled', p_extra => '{"ended_at": 1768400000}');
select tests.sign_in('ann');
select is(tests.refusal('subscription_cancel'), 'PT422', 'what has ended cannot be canceled');
select is(tests.refusal(null), null, 'but its invoices can be looked at');
select tests.be_owner();
rollback to flows;

-- ---- a member without a customer --------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.prepare_portal('https://app.example') $$,
  'PT404', 'the account is not a customer yet',
  'who has never bought anything has nothing to manage'
);
select tests.sign_in('carol');
select throws_ok(
  $$ select billing.prepare_portal('https://app.example') $$,
  'PT404', 'the account is not a customer yet',
  'nor has who has never come near billing'
);

select tests.be_owner();
insert into billing.customers (account_id, is_primary) values (md5('bob')::uuid, true);
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.prepare_portal('https://app.example') $$,
  'PT404', 'the account is not a customer yet',
  'nor whose customer is still being made'
);

select tests.be_owner();
select tests.account('dora');
update billing.customers
set deleted_at = '2026-01-14', is_primary = false
where stripe_customer_id = 'cus_dora';
select tests.sign_in('dora');
select throws_ok(
  $$ select billing.prepare_portal('https://app.example') $$,
  'PT404', 'the account is not a customer yet',
  'E1: nor whose customer was deleted'
);

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.prepare_portal('https://app.example', md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody gets into the portal of somebody else'
);
select throws_ok(
  $$ select billing.prepare_portal('https://app.example', md5('nobody')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: with the same answer for an account that does not exist'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.prepare_portal('https://app.example') $$,
  '42501', 'permission denied for function prepare_portal',
  'a visitor has to sign in first'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select lives_ok(
  $$ select billing.prepare_portal('https://app.example', md5('ann')::uuid) $$,
  'the service may ask for any account'
);
select throws_ok(
  $$ select billing.prepare_portal('https://app.example') $$,
  'PT400', 'the request is not valid',
  'and has to name it'
);
select throws_ok(
  $$ select billing.prepare_portal('https://app.example', md5('nobody')::uuid) $$,
  'PT404', 'there is no such account',
  'and is told when it does not exist'
);

-- ---- the owner --------------------------------------------------------------

select tests.be_owner();
select is_empty(
  $$ select * from billing_private.commands where params ->> 'customer' <> 'cus_ann' $$,
  'E11: no refusal has asked Stripe for anything'
);

select * from finish();
rollback;
