-- billing.prepare_payment_method(): a page for another card, which is then charged where the old one was.
begin;
\ir ../helpers.psql
select plan(22);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);
select tests.subscribe('ann');

create view tests.asked as
select id, kind, method, path, params, subject_id
from billing_private.commands
order by position;

-- What comes of the newest page: Stripe's setup intent with its method.
create function tests.set_up(
  p_status text default 'succeeded',
  p_extra jsonb default '{}',
  p_event text default null
) returns text
language sql as $$
  select tests.deliver(
    coalesce(p_event, 'evt_' || md5(p_status || p_extra)), 'setup_intent.' || p_status,
    '2026-01-15 08:05',
    jsonb_build_object(
      'id', 'seti_1', 'object', 'setup_intent', 'status', p_status, 'customer', 'cus_ann',
      'payment_method', 'pm_new', 'created', 1768464000,
      'metadata', params #> '{setup_intent_data,metadata}') || p_extra)
  from billing_private.commands
  where kind = 'create_setup'
  order by position desc
  limit 1;
$$;

create view tests.set_default as
select method, path, params from tests.asked where kind = 'set_payment_method';

grant execute on all functions in schema tests to authenticated, service_role;
savepoint s;

-- ---- a member: the page -----------------------------------------------------

select tests.sign_in('ann');
create temporary table page as
select * from billing.prepare_payment_method('https://app.example/ok', 'https://app.example/no');
select tests.be_owner();
select results_eq(
  $$ select kind, method, path, params, subject_id from tests.asked $$,
  $$
    select 'create_setup', 'POST', '/v1/checkout/sessions', jsonb_build_object(
        'mode', 'setup', 'customer', 'cus_ann', 'client_reference_id', md5('ann')::uuid,
        'currency', 'usd', 'success_url', 'https://app.example/ok',
        'cancel_url', 'https://app.example/no', 'setup_intent_data', jsonb_build_object(
          'metadata', jsonb_build_object('account_id', md5('ann')::uuid, 'setup_id', subject_id))),
      subject_id
    from page
  $$,
  'E11: Stripe is asked for a page of the account''s own customer, to be recognised by the request'
);
select is((select id from tests.asked), (select subject_id from page),
  'whose address the member''s own function fetches');
select is_empty($$ select * from billing.claim_commands() $$, 'and nobody else');
savepoint asked;

-- ---- a member: what comes of it ---------------------------------------------

select is(tests.set_up(), 'applied', 'the member is through');
select results_eq(
  $$ select * from tests.set_default $$,
  $$
    values ('POST', '/v1/customers/cus_ann',
      '{"invoice_settings": {"default_payment_method": "pm_new"}}'::jsonb)
  $$,
  'what the customer is charged with is replaced at the customer'
);
select is(tests.set_up(p_event => 'evt_again'), 'applied', 'told again by Stripe');
select tests.set_up(p_extra => '{"description": "later"}');
select is((select count(*) from tests.set_default), 1::bigint, 'B2: it is done once');
select is(
  (select target_object_id from billing_private.commands where kind = 'set_payment_method'),
  'cus_ann', 'the answer is compared with what is known of the customer'
);
create temporary table calling as select * from billing.claim_commands();
select billing.complete_command(id, lease, 200,
  '{"id": "cus_ann", "object": "customer", "created": 1768000000, "livemode": false,
    "invoice_settings": {"default_payment_method": "pm_new"}}')
from calling;
select is(
  (select stripe_default_payment_method_id from billing.customers
    where stripe_customer_id = 'cus_ann'),
  'pm_new', 'and applied when it comes'
);
rollback to asked;

select tests.deliver('evt_own', 'customer.subscription.updated', '2026-01-15 08:01',
  tests.subscription('ann', 'past_due', '2026-01-10', p_extra =>
    '{"default_payment_method": "pm_old"}'));
select tests.set_up();
select results_eq(
  $$ select * from tests.set_default $$,
  $$ values ('POST', '/v1/subscriptions/sub_ann', '{"default_payment_method": "pm_new"}'::jsonb) $$,
  'a subscription with a method of its own is charged with that: it is replaced there'
);
create temporary table calling as select * from billing.claim_commands();
select billing.complete_command(id, lease, 200,
  tests.subscription('ann', 'past_due', '2026-01-10', p_extra =>
    '{"default_payment_method": "pm_new"}'))
from calling;
select is(
  (select stripe_default_payment_method_id from billing.subscriptions), 'pm_new',
  'and applied when the answer comes'
);
rollback to asked;

select tests.deliver('evt_over', 'customer.subscription.deleted', '2026-01-15 08:01',
  tests.subscription('ann', 'canceled', '2026-01-10', p_extra =>
    '{"default_payment_method": "pm_old", "ended_at": 1768464060}'));
select tests.set_up();
select is((select path from tests.set_default), '/v1/customers/cus_ann',
  'that of a subscription that is over is not of interest');
rollback to asked;

-- ---- what changes nothing ---------------------------------------------------

select tests.set_up('requires_payment_method');
select tests.set_up('canceled', '{"payment_method": null}');
select is_empty($$ select * from tests.set_default $$, 'a page left unfinished changes nothing');
rollback to asked;

select tests.set_up(p_extra => '{"customer": "cus_bob"}');
select is_empty($$ select * from tests.set_default $$,
  'E11: nor what is said about another customer');
rollback to asked;

select tests.set_up(p_extra => '{"metadata": {}}');
select tests.set_up(p_extra => jsonb_build_object(
  'id', 'seti_2', 'metadata', jsonb_build_object('setup_id', md5('ann'))));
select tests.set_up(p_extra => '{"id": "seti_3", "metadata": {"setup_id": "x"}}');
select is_empty($$ select * from tests.set_default $$,
  'nor a method that was put on file some other way');
rollback to s;

-- ---- who is refused ---------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.prepare_payment_method('app.example', 'https://app.example') $$,
  'PT400', 'the request is not valid',
  'what is no absolute address is refused'
);
select throws_ok(
  $$ select billing.prepare_payment_method('https://app.example', null) $$,
  'PT400', 'the request is not valid',
  'both are needed'
);
select tests.sign_in('bob');
select throws_ok(
  $$ select billing.prepare_payment_method('https://app.example', 'https://app.example') $$,
  'PT404', 'the account is not a customer yet',
  'who is no customer has nothing to be charged for'
);
select throws_ok(
  $$
    select billing.prepare_payment_method(
      'https://app.example', 'https://app.example', md5('ann')::uuid)
  $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody puts a card on file for somebody else'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.prepare_payment_method('https://app.example', 'https://app.example') $$,
  '42501', 'permission denied for function prepare_payment_method',
  'a visitor has to sign in first'
);
select tests.be_service();
select lives_ok(
  $$
    select billing.prepare_payment_method(
      'https://app.example', 'https://app.example', md5('ann')::uuid)
  $$,
  'the service may ask for any account'
);
select tests.be_owner();
select is(
  (select count(*) from tests.asked), 1::bigint,
  'no refusal has asked Stripe for anything'
);

select * from finish();
rollback;
