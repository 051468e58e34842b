-- Calls to Stripe whose outcome is not known, by kind: before one is made again under another key,
-- Stripe is asked whether it took effect.
begin;
\ir ../helpers.psql
select plan(81);

select tests.catalog();
select tests.set_time('2026-01-10 08:00');
select tests.account('ann');

-- Ann's call to Stripe, first made (or never) at some time; its id is made of its name.
create function tests.command(
  p_kind text,
  p_path text,
  p_params jsonb default '{}',
  p_first_attempt_at timestamptz default '2026-01-09 08:00',
  p_method text default 'POST',
  p_target text default null
) returns void
language sql as $$
  insert into billing_private.commands
    (id, kind, account_id, method, path, params, attempts, first_attempt_at, next_attempt_at,
      target_object_id, created_at)
  values (md5('call')::uuid, p_kind, md5('ann')::uuid, p_method, p_path, p_params,
    (p_first_attempt_at is not null)::integer, p_first_attempt_at, '2026-01-10 08:00', p_target,
    '2026-01-09 08:00');
$$;

-- What a worker is told to do, and under which key.
create function tests.claimed() returns text
language sql as $$
  select format(
    '%s %s %s, %s key', method, path, params,
    case idempotency_key when md5('call')::uuid then 'the first' else 'a fresh' end)
  from billing.claim_commands();
$$;

-- What becomes of the call when Stripe answers that to what was claimed.
create function tests.answer(
  p_http_status integer,
  p_response jsonb,
  p_is_replay boolean default false
) returns text
language sql as $$
  select outcome.status
  from billing_private.commands
  cross join lateral billing.complete_command(
    commands.id, commands.lease, p_http_status, p_response, null,
    'Sat, 10 Jan 2026 08:00:00 GMT', 0, p_is_replay) as outcome
  where commands.id = md5('call')::uuid;
$$;

create function tests.look_up(p_http_status integer, p_response jsonb) returns text
language plpgsql as $$
begin
  perform tests.claimed();
  return tests.answer(p_http_status, p_response);
end;
$$;

create function tests.list(variadic p_objects jsonb[] default '{}') returns jsonb
language sql as $$
  select jsonb_build_object(
    'object', 'list', 'has_more', false, 'data', to_jsonb(p_objects));
$$;

create function tests.error(p_code text default null) returns jsonb
language sql as $$
  select jsonb_build_object('error', jsonb_build_object('code', p_code, 'message', 'No.'));
$$;

create view tests.call as
select commands.*, last_error #>> '{error,code}' as error_code
from billing_private.commands
where id = md5('call')::uuid;

savepoint s;

-- ---- how old a key may be ---------------------------------------------------

select tests.command('create_customer', '/v1/customers', '{}', null);
select is(
  tests.claimed(), 'POST /v1/customers {}, the first key', 'a new call goes out under its own id'
);
select is(
  (select first_attempt_at from tests.call), '2026-01-10 08:00+00'::timestamptz,
  'when it first did is kept'
);
select is(tests.answer(503, '{}'), 'pending', 'Stripe is busy');
select tests.set_time('2026-01-11 06:59:59');
select is(
  tests.claimed(), 'POST /v1/customers {}, the first key',
  'B10: within 23 hours the same call goes out under the same key, which has one effect'
);
select is(
  (select first_attempt_at from tests.call), '2026-01-10 08:00+00'::timestamptz,
  'its age is that of the first try'
);
select tests.answer(503, '{}');
select tests.set_time('2026-01-11 07:40:00');
select matches(
  tests.claimed(), '^GET /v1/customers ',
  'B10: after 23 hours, before Stripe forgets the key, it is looked up instead'
);
select tests.set_time('2026-01-10 08:00');
rollback to s;

-- ---- create_customer --------------------------------------------------------

select tests.command('create_customer', '/v1/customers', jsonb_build_object(
  'email', 'ann@example.com', 'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
delete from billing.customers where account_id = md5('ann')::uuid;
savepoint customer;

select is(
  tests.claimed(),
  'GET /v1/customers {"email": "ann@example.com", "limit": 100, "created[gte]": 1767942000}, '
    'the first key',
  'B10: a customer is looked for among those of that address made since an hour before'
);
select is(
  tests.answer(200, tests.list(
    jsonb_build_object('id', 'cus_other', 'object', 'customer', 'metadata', '{}'::jsonb),
    jsonb_build_object('id', 'cus_ann', 'object', 'customer', 'email', 'ann@example.com',
      'livemode', false, 'created', 1767942100,
      'metadata', jsonb_build_object('account_id', md5('ann')::uuid)))),
  'succeeded',
  'B10: one with the account''s mark is what the call made'
);
select results_eq(
  'select status, result_id, looking_up, last_error from tests.call',
  $$ values ('succeeded', 'cus_ann', null, null::jsonb) $$,
  'B10: the call is done, with that result'
);
select results_eq(
  $$ select stripe_customer_id, email from billing.customers where account_id = md5('ann')::uuid $$,
  $$ values ('cus_ann', 'ann@example.com') $$,
  'B10: the customer is the account''s, as if the call itself had answered'
);
select is(
  (select source from billing_private.stripe_events where object_id = 'cus_ann'), 'reread',
  'and what was seen of it is what was read, not what a call did'
);
select is(tests.claimed(), null, 'B10: nothing is made twice');
rollback to customer;

select is(
  tests.look_up(200, tests.list(jsonb_build_object(
    'id', 'cus_bob', 'object', 'customer',
    'metadata', jsonb_build_object('account_id', md5('bob')::uuid)))),
  'pending',
  'B10: somebody else''s is not'
);
select is(
  tests.claimed(),
  format('POST /v1/customers %s, a fresh key', (select params from tests.call)),
  'B10: what did not take effect is made, under a fresh key'
);
select is(
  (select first_attempt_at from tests.call), '2026-01-10 08:00+00'::timestamptz,
  'whose age begins anew'
);
select is(tests.answer(null, '{}'), 'pending', 'without an answer');
select tests.set_time('2026-01-10 09:00');
create temporary table fresh as select idempotency_key from tests.call;
select matches(
  tests.claimed(), '^POST /v1/customers .* a fresh key$', 'it goes out again'
);
select is(
  (select idempotency_key from tests.call), (select idempotency_key from fresh),
  'under that same fresh key'
);
select tests.set_time('2026-01-10 08:00');
rollback to customer;

select is(
  tests.look_up(200, '{"object": "list", "has_more": true, "data": [{"id": "cus_7"}]}'), 'pending',
  'a list that goes on'
);
select matches(
  tests.claimed(), '^GET /v1/customers .*"starting_after": "cus_7"',
  'is read on where it was left'
);
select is(tests.answer(503, '{}'), 'pending', 'also when Stripe is busy in between');
select tests.set_time('2026-01-10 09:00');
select matches(tests.claimed(), '"starting_after": "cus_7"', 'the place is kept');
select is(tests.answer(200, tests.list()), 'pending', 'to its end');
select matches(tests.claimed(), '^POST', 'only then it counts as not found');
select tests.set_time('2026-01-10 08:00');
rollback to customer;

select is(tests.look_up(503, '{}'), 'pending', 'a look-up that fails');
select results_eq(
  'select looking_up, idempotency_key from tests.call', $$ values ('old', null::uuid) $$,
  'decides nothing'
);
update billing_private.commands set attempts = 11 where id = md5('call')::uuid;
update billing_private.commands set next_attempt_at = '2026-01-10 08:00'
where id = md5('call')::uuid;
select is(tests.look_up(503, '{}'), 'dead', 'and is given up like any call');
rollback to customer;

select is(
  tests.look_up(400, tests.error('parameter_unknown')), 'dead',
  'a look-up that is refused leaves the matter to a person'
);
rollback to s;

-- ---- change_plan ------------------------------------------------------------

select tests.command('change_plan', '/v1/subscriptions/sub_ann',
  '{"items": [{"id": "si_ann", "price": "price_plus_yearly", "quantity": 3}],
    "proration_behavior": "always_invoice"}');
savepoint change;

select is(
  tests.claimed(), 'GET /v1/subscriptions/sub_ann {}, the first key',
  'whether a plan was changed is seen from the subscription'
);
select is(
  tests.answer(200, jsonb_set(
    tests.subscription('ann', 'active', '2026-01-10', 'price_plus_yearly'),
    '{items,data,0,quantity}', '3')),
  'succeeded',
  'one with that price and quantity has been changed: nothing is invoiced twice'
);
select results_eq(
  $$ select status, quantity from billing.subscriptions $$, $$ values ('active', 3::bigint) $$,
  'and is stored as it was seen'
);
rollback to change;
select is(
  tests.look_up(200, tests.subscription('ann', 'active', '2026-01-10', 'price_plus_yearly')),
  'pending',
  'one with that price and another quantity has not'
);
rollback to change;
select is(
  tests.look_up(200, tests.subscription('ann', 'active', '2026-01-10')), 'pending',
  'nor has one with another price'
);
select matches(tests.claimed(), '^POST .* a fresh key$', 'the change is made');
rollback to change;
select is(
  tests.look_up(200, tests.subscription('ann', 'active', '2026-01-10', p_extra =>
    '{"pending_update": {"subscription_items": [
      {"id": "si_ann", "price": {"id": "price_plus_yearly"}}]}}')),
  'succeeded',
  'one that waits for its payment is under way: it is not asked for twice'
);
rollback to s;

select tests.command('change_plan', '/v1/subscriptions/sub_ann',
  '{"items": [{"id": "si_ann", "price": "price_metered"}]}');
select is(
  tests.look_up(200, tests.subscription('ann', 'active', '2026-01-10', 'price_metered')),
  'succeeded',
  'where no quantity was asked for, any will do'
);
rollback to s;

-- ---- create_schedule --------------------------------------------------------

select tests.subscribe('ann');
select tests.sign_in('ann');
select billing.change_plan('basic_monthly');
select tests.be_owner();
update billing_private.commands
set id = md5('call')::uuid,
    first_attempt_at = '2026-01-09 07:00'
where kind = 'create_schedule';
savepoint schedule;
select is(
  tests.claimed(), 'GET /v1/subscriptions/sub_ann {"expand": ["schedule"]}, the first key',
  'whether a schedule was made is seen from its subscription'
);
select is(
  tests.answer(200, tests.subscription('ann', 'active', '2026-01-10', p_extra =>
    '{"schedule": {"id": "sub_sched_1", "object": "subscription_schedule", "status": "active",
      "phases": [{"start_date": 1768003200, "end_date": 1770681600, "items": [
        {"price": "price_plus_monthly", "quantity": 1}]}]}}')),
  'succeeded',
  'one that is there was'
);
select is(
  (select path from billing_private.commands where kind = 'update_schedule'),
  '/v1/subscription_schedules/sub_sched_1',
  'and gets its phases, as if the call itself had answered'
);
rollback to schedule;
select is(
  tests.look_up(200, tests.subscription('ann', 'active', '2026-01-10')), 'pending',
  'without one it is made'
);
rollback to s;

-- ---- kinds that are repeated ------------------------------------------------

create function tests.repeated(p_kind text, p_path text, p_method text default 'POST') returns text
language plpgsql as $$
declare
  v_claimed text;
begin
  perform tests.command(p_kind, p_path, '{}', '2026-01-09 08:00', p_method);
  v_claimed := tests.claimed();
  raise exception sqlstate 'TS001';
exception when sqlstate 'TS001' then
  return v_claimed;
end;
$$;

select is_empty(
  $$
    select kind, method, tests.repeated(kind, '/v1/x', method)
    from billing_private.command_kinds
    cross join lateral (select case kind
      when 'cancel_subscription' then 'DELETE' when 'reread' then 'GET' else 'POST' end as method
    ) as made_by
    where when_old = 'repeat'
      and tests.repeated(kind, '/v1/x', method)
        is distinct from format('%s /v1/x {}, a fresh key', method)
  $$,
  'what twice does no more than once is repeated under a fresh key, without a look'
);
select tests.command('undo_cancel', '/v1/subscriptions/sub_ann');
select tests.claimed();
select is(
  (select first_attempt_at from tests.call), '2026-01-10 08:00+00'::timestamptz,
  'whose age begins anew'
);
rollback to s;

-- ---- kinds that are given up ------------------------------------------------

insert into billing.checkout_sessions (id, account_id, price_id, success_url, cancel_url)
values (md5('checkout')::uuid, md5('ann')::uuid, md5('plus_monthly')::uuid, 'https://a', 'https://a');
select tests.command('create_checkout', '/v1/checkout/sessions', '{}', '2026-01-09 09:00:01');
update billing_private.commands set subject_id = md5('checkout')::uuid
where id = md5('call')::uuid;
savepoint page;
select is(billing_private.give_up_old_commands(10), 0::bigint, 'nothing is given up early');
select tests.set_time('2026-01-10 08:00:01');
select is(tests.claimed(), null, 'after 23 hours nobody waits for a page any more');
select is(billing_private.give_up_old_commands(10), 1::bigint, 'it is given up');
select results_eq(
  'select status, error_code, finished_at from tests.call',
  $$ values ('dead', 'too_old', '2026-01-10 08:00:01+00'::timestamptz) $$,
  'with the reason'
);
select results_eq(
  $$ select status, failure ->> 'code' from billing.checkout_sessions $$,
  $$ values ('failed', 'too_old') $$,
  'the checkout is over, and the next one free'
);
select is(billing_private.give_up_old_commands(10), 0::bigint, 'once');
rollback to page;

select tests.claimed();
select tests.set_time('2026-01-10 08:00:01');
select is(
  billing_private.give_up_old_commands(10), 0::bigint, 'a call that is under way is let be'
);
select tests.set_time('2026-01-10 08:07:10');
select is(billing_private.give_up_old_commands(10), 1::bigint, 'until its lease has run out');
select is((select lease from tests.call), null, 'which is over with it');
select tests.set_time('2026-01-10 08:00');
rollback to page;

select tests.set_time('2026-01-10 12:00');
insert into billing_private.commands (kind, account_id, path)
values ('undo_cancel', md5('ann')::uuid, '/v1/next');
select is(tests.claimed(), null, 'what stands behind it waits');
select is(billing_private.run_task('give_up_commands'), 'succeeded', 'for the next heartbeat');
select matches(tests.claimed(), '^POST /v1/next', 'and then goes on');
select tests.set_time('2026-01-10 08:00');
rollback to s;

select tests.command('somebody_elses', '/v1/x');
select is(tests.claimed(), null, 'a call of a kind nobody knows is not repeated either');
select is(billing_private.give_up_old_commands(10), 1::bigint, 'but given up');
rollback to s;

select tests.command('create_checkout', '/v1/x', '{}', null);
select tests.set_time('2036-01-10');
select matches(
  tests.claimed(), '^POST /v1/x {}, the first key', 'a call that was never made is never too old'
);
select tests.set_time('2026-01-10 08:00');
rollback to s;

-- ---- pay_invoice ------------------------------------------------------------

select tests.command('pay_invoice', '/v1/invoices/in_ann/pay', '{}', null);
savepoint pay;
select tests.claimed();
select is(
  tests.answer(400, '{"error": {"message": "Invoice is already paid"}}'), 'pending',
  'G15: an invoice that cannot be paid may be paid already'
);
select is(
  tests.claimed(), 'GET /v1/invoices/in_ann {}, the first key', 'G15: which Stripe is asked at once'
);
savepoint asked;
select is(
  tests.answer(200, '{"id": "in_ann", "object": "invoice", "status": "paid", "livemode": false}'),
  'succeeded', 'G16: paid by somebody else is paid'
);
select results_eq(
  'select status, last_error from tests.call', $$ values ('succeeded', null::jsonb) $$,
  'G16: and no error'
);
rollback to asked;
select is(
  tests.answer(200, '{"id": "in_ann", "object": "invoice", "status": "void", "livemode": false}'),
  'dead', 'G15: if it is not, the refusal stands'
);
select results_eq(
  $$ select last_error #>> '{error,message}', last_error ->> 'http_status' from tests.call $$,
  $$ values ('Invoice is already paid', '400') $$,
  'G15: as Stripe put it'
);
rollback to asked;
select is(tests.answer(503, '{}'), 'pending', 'while Stripe is busy');
select is(
  (select last_error #>> '{error,message}' from tests.call), 'Invoice is already paid',
  'the refusal is kept'
);
rollback to asked;
select is(
  tests.answer(404, tests.error('resource_missing')), 'dead', 'what is gone cannot be paid'
);
rollback to pay;

select tests.claimed();
select is(
  tests.answer(402, tests.error('card_declined')), 'declined',
  'a declined card is a clear answer: nothing is looked up'
);
rollback to pay;

update billing_private.commands
set first_attempt_at = '2026-01-09 08:00', attempts = 1
where id = md5('call')::uuid;
select is(
  tests.look_up(200, '{"id": "in_ann", "object": "invoice", "status": "open", "livemode": false}'),
  'dead',
  'a payment first tried yesterday is not tried again by itself: nobody expects it now'
);
select is((select error_code from tests.call), 'too_old', 'which is said');
rollback to s;

-- ---- refusals that mean: nothing left to do ---------------------------------

create function tests.after_refusal(
  p_kind text,
  p_path text,
  p_found jsonb,
  p_method text default 'POST'
) returns text
language plpgsql as $$
declare
  v_request text;
  v_status text;
begin
  perform tests.command(p_kind, p_path, '{}', null, p_method);
  perform tests.claimed();
  perform tests.answer(400, tests.error());
  v_request := tests.claimed();
  v_status := tests.answer(200, p_found || '{"livemode": false}');
  raise exception sqlstate 'TS001';
exception when sqlstate 'TS001' then
  return split_part(v_request, ' {', 1) || ': ' || v_status;
end;
$$;

select is(
  tests.after_refusal('cancel_subscription', '/v1/subscriptions/sub_ann',
    tests.subscription('ann', 'canceled', '2026-01-10', p_extra => '{"ended_at": 1768003200}'),
    'DELETE'),
  'GET /v1/subscriptions/sub_ann: succeeded',
  'a subscription that is canceled already is canceled'
);
select is(
  tests.after_refusal('cancel_subscription', '/v1/subscriptions/sub_ann',
    tests.subscription('ann', 'active', '2026-01-10'), 'DELETE'),
  'GET /v1/subscriptions/sub_ann: dead',
  'one that runs is not'
);
select is(
  tests.after_refusal('expire_checkout', '/v1/checkout/sessions/cs_1/expire',
    '{"id": "cs_1", "object": "checkout.session", "status": "complete"}'),
  'GET /v1/checkout/sessions/cs_1: succeeded',
  'a page that was paid meanwhile needs no closing'
);
select is(
  tests.after_refusal('release_schedule', '/v1/subscription_schedules/sub_sched_1/release',
    '{"id": "sub_sched_1", "object": "subscription_schedule", "status": "released"}'),
  'GET /v1/subscription_schedules/sub_sched_1: succeeded',
  'a schedule that was let go needs no letting go'
);

-- ---- server errors that Stripe repeats --------------------------------------

select tests.command('create_customer', '/v1/customers', '{}', null);
select tests.claimed();
select is(tests.answer(500, '{}', true), 'pending', 'a server error Stripe has kept for the key');
select tests.set_time('2026-01-10 08:01');
select matches(
  tests.claimed(), '^GET /v1/customers ', 'would never pass: whether it took effect is looked up'
);
select tests.answer(200, tests.list());
select is(
  tests.claimed(), 'POST /v1/customers {}, a fresh key', 'and if not, it is made under a fresh key'
);
select tests.set_time('2026-01-10 08:00');
rollback to s;

select tests.command('undo_cancel', '/v1/x', '{}', null);
select tests.claimed();
select tests.answer(500, '{}', true);
select tests.set_time('2026-01-10 08:01');
select is(
  tests.claimed(), 'POST /v1/x {}, a fresh key', 'what may be repeated is, without a look'
);
select tests.set_time('2026-01-10 08:00');
rollback to s;

select tests.command('create_checkout', '/v1/x', '{}', null);
select tests.claimed();
select is(
  tests.answer(500, '{}', true), 'dead', 'who waits for a page is told at once, and may try again'
);
rollback to s;

select tests.command('create_customer', '/v1/customers', '{}', null);
select tests.claimed();
select tests.answer(500, '{}', false);
select tests.set_time('2026-01-10 08:01');
select is(
  tests.claimed(), 'POST /v1/customers {}, the first key',
  'a server error that is new may have kept nothing: the key stays'
);
select tests.set_time('2026-01-10 08:00');
rollback to s;

select tests.command('create_customer', '/v1/customers', '{}', null);
select tests.claimed();
select tests.answer(429, '{"error": {"code": "lock_timeout"}}', true);
select tests.set_time('2026-01-10 08:01');
select is(
  tests.claimed(), 'POST /v1/customers {}, the first key',
  'H7: nor does a lock time-out use it up'
);
select tests.set_time('2026-01-10 08:00');
rollback to s;

-- ---- the kinds --------------------------------------------------------------

select is_empty(
  $$ select kind from billing_private.command_kinds where description = '' $$,
  'every kind says what it is for'
);

select * from finish();
rollback;
