-- billing_admin.refund_payment(): money goes back once, never more than is left.
begin;
\ir ../helpers.psql
select plan(44);

select tests.catalog();
select tests.set_time('2026-01-10 12:00');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');

create function tests.payment(p_key text, p_received bigint) returns uuid
language sql as $$
  insert into billing.payments
    (id, account_id, stripe_payment_key, status, amount_minor, amount_received_minor, currency,
      stripe_customer_id, created_at)
  values (md5(p_key)::uuid, md5('ann')::uuid, p_key, 'succeeded', 1000, p_received, 'usd',
    'cus_ann', '2026-01-09')
  returning id;
$$;
select tests.payment('pi_ann', 1000);
select tests.payment('ch_old', 1000);
select tests.payment('pi_declined', 0);

create function tests.refund(
  p_reference text, p_amount bigint default null, p_key text default 'pi_ann'
) returns uuid
language sql as $$
  select billing_admin.refund_payment(md5(p_key)::uuid, 'a complaint', p_reference, p_amount);
$$;
create function tests.left_of(p_key text default 'pi_ann') returns bigint
language sql security definer as $$
  select billing_private.refundable_amount(payments)
  from billing.payments where stripe_payment_key = p_key;
$$;
create view tests.calls as
select id, method, path, params, subject_id, account_id, status, actor_id, cause, last_error
from billing_private.commands
where kind = 'refund_charge';

-- Stripe answers what is due: with a refund of these properties, or with an error.
create function tests.answer(p_id text, p_extra jsonb default '{}', p_http_status integer default 200)
returns text
language sql security definer as $$
  select outcome.status
  from billing.claim_commands() as claimed
  cross join lateral billing.complete_command(
    claimed.id, claimed.lease, p_http_status,
    case when p_http_status = 200 then jsonb_build_object(
      'id', p_id, 'object', 'refund', 'status', 'succeeded', 'currency', 'usd',
      'created', 1768046400) || claimed.params || p_extra else p_extra end,
    null, 'Sat, 10 Jan 2026 12:00:00 GMT', 0) as outcome;
$$;
grant select on tests.calls to public;
grant execute on all functions in schema tests to authenticated;

-- ---- an administrator: all of it --------------------------------------------

select tests.sign_in('ada');
create temporary table asked as select tests.refund(' ticket 7 ') as id;
select tests.be_owner();
select results_eq(
  $$ select method, path, params, subject_id, account_id, actor_id from tests.calls $$,
  $$
    values ('POST', '/v1/refunds',
      '{"payment_intent": "pi_ann", "amount": 1000, "metadata": {"reference": "ticket 7"}}'::jsonb,
      md5('pi_ann')::uuid, md5('ann')::uuid, md5('ada')::uuid)
  $$,
  'without an amount all that is left is given back'
);
select results_eq(
  'select id from asked', 'select id from tests.calls', 'the administrator is told the command'
);
select results_eq(
  $$ select action, subject, reason from billing_private.admin_actions $$,
  $$ values ('refund_payment', md5('pi_ann')::uuid::text, 'a complaint') $$,
  'M3: who did it, and why, is noted'
);
select is(tests.left_of(), 0::bigint, 'what is on the way back is not left');

select tests.sign_in('ada');
select results_eq(
  $$ select tests.refund('ticket 7') $$, 'select id from asked',
  'the same reference again is the same refund'
);
select throws_ok(
  $$ select tests.refund('ticket 8', 1) $$,
  'PT422', 'more than is left of the payment cannot be given back',
  'another one finds nothing left'
);
select throws_ok(
  $$ select tests.refund('ticket 8') $$,
  'PT422', 'more than is left of the payment cannot be given back',
  'nor does one of all that is left'
);
select tests.be_owner();
select is(tests.answer('re_1'), 'succeeded', 'Stripe gives it back');
select results_eq(
  $$
    select stripe_payment_key, account_id, status, amount_minor, stripe_refund_id
    from billing.refunds
  $$,
  $$ values ('pi_ann', md5('ann')::uuid, 'succeeded', 1000::bigint, 're_1') $$,
  'H8: the refund is mirrored from Stripe''s answer'
);
select is(tests.left_of(), 0::bigint, 'it counts once, not as call and as refund');
select tests.sign_in('ada');
select results_eq(
  $$ select tests.refund('ticket 7') $$, 'select id from asked',
  'the same reference is the same refund when it is done, too'
);
select tests.be_owner();
select is((select count(*) from tests.calls), 1::bigint, 'Stripe was asked once');
select tests.deliver('evt_1', 'refund.created', '2026-01-10 12:00', jsonb_build_object(
  'id', 're_1', 'object', 'refund', 'status', 'succeeded', 'currency', 'usd', 'amount', 1000,
  'payment_intent', 'pi_ann', 'created', 1768046400,
  'metadata', jsonb_build_object('reference', 'ticket 7')));
select tests.deliver('evt_2', 'refund.failed', '2026-01-12', jsonb_build_object(
  'id', 're_1', 'object', 'refund', 'status', 'failed', 'currency', 'usd', 'amount', 1000,
  'payment_intent', 'pi_ann', 'created', 1768046400,
  'metadata', jsonb_build_object('reference', 'ticket 7')));
select is(tests.left_of(), 1000::bigint, 'G10: one that fails later leaves it all again');

-- ---- an administrator: a part -----------------------------------------------

select tests.sign_in('ada');
select throws_ok(
  $$ select tests.refund('part', 1001) $$,
  'PT422', 'more than is left of the payment cannot be given back',
  'more than was paid is refused'
);
select tests.refund('part', 999) is not null as asked;
select throws_ok(
  $$ select tests.refund('part', 998) $$,
  'PT400', 'the request is not valid',
  'the same reference for another amount is refused'
);
select isnt(tests.refund('part'), null, 'without an amount the reference says which is meant');
select throws_ok(
  $$ select tests.refund('rest', 2) $$,
  'PT422', 'more than is left of the payment cannot be given back',
  'one more than is left is refused, while the first is under way'
);
select isnt(tests.refund('rest', 1), null, 'what is left is not');
select tests.be_owner();
select is(tests.answer('re_2'), 'succeeded', 'Stripe gives the first part back');
select is(tests.left_of(), 0::bigint, 'the second is still on its way');
select is(
  tests.answer('', '{"error": {"code": "charge_disputed", "message": "It is disputed"}}', 400),
  'pending', 'a refusal of Stripe''s is looked into'
);
select results_eq(
  $$
    select claimed.method, claimed.path, claimed.params, outcome.status
    from billing.claim_commands() as claimed
    cross join lateral billing.complete_command(
      claimed.id, claimed.lease, 200, '{"object": "list", "has_more": false, "data": [
        {"id": "re_2", "object": "refund", "metadata": {"reference": "part"}}]}', null,
      'Sat, 10 Jan 2026 12:00:00 GMT', 0) as outcome
  $$,
  $$
    values ('GET', '/v1/refunds', '{"payment_intent": "pi_ann", "limit": 100}'::jsonb, 'dead')
  $$,
  'and counts when there is no refund of this reference'
);
select is(
  (select last_error #>> '{error,message}' from tests.calls where status = 'dead'),
  'It is disputed', 'why, an administrator reads in the backlog'
);
select is(tests.left_of(), 1::bigint, 'what Stripe refused is left');

-- ---- an administrator: an answer that was lost ------------------------------

select tests.sign_in('ada');
select isnt(tests.refund('lost', 100, 'ch_old'), null, 'a payment without intent goes by its charge');
select tests.be_owner();
select is(
  (select params ->> 'charge' from tests.calls order by params ->> 'charge' limit 1), 'ch_old',
  'as Stripe knows it'
);
create temporary table first_try as select * from billing.claim_commands();
select is(
  (select outcome.status from first_try cross join lateral billing.complete_command(
    first_try.id, first_try.lease, null, '{}') as outcome),
  'pending', 'Stripe does not answer'
);
select tests.set_time('2026-01-11 11:00:01');
select results_eq(
  $$
    select claimed.method, claimed.path, claimed.params, outcome.status
    from billing.claim_commands() as claimed
    cross join lateral billing.complete_command(
      claimed.id, claimed.lease, 200, '{"object": "list", "has_more": false, "data": [
        {"id": "re_x", "object": "refund", "metadata": {}},
        {"id": "re_3", "object": "refund", "status": "succeeded", "amount": 100,
          "currency": "usd", "charge": "ch_old", "created": 1768046400,
          "metadata": {"reference": "lost"}}]}', null,
      'Sun, 11 Jan 2026 11:00:00 GMT', 0) as outcome
  $$,
  $$ values ('GET', '/v1/refunds', '{"charge": "ch_old", "limit": 100}'::jsonb, 'succeeded') $$,
  'B10: a day later it is looked for, and found'
);
select is(
  (select amount_minor from billing.refunds where stripe_refund_id = 're_3'), 100::bigint,
  'and mirrored'
);
select is(tests.left_of('ch_old'), 900::bigint, 'the rest is left');
update billing.payments set amount_refunded_minor = 400 where stripe_payment_key = 'ch_old';
select is(
  tests.left_of('ch_old'), 600::bigint,
  'a charge that knows of more refunds than came is believed'
);

-- ---- what cannot be ---------------------------------------------------------

select tests.sign_in('ada');
select throws_ok(
  $$ select tests.refund('all', null, 'pi_declined') $$,
  'PT422', 'more than is left of the payment cannot be given back',
  'of a payment that never came nothing is given back'
);
select throws_ok(
  $$ select tests.refund('all', 0, 'ch_old') $$, 'PT400', 'the request is not valid',
  'nothing is no amount'
);
select throws_ok(
  $$ select tests.refund('all', -1, 'ch_old') $$, 'PT400', 'the request is not valid',
  'nor is less'
);
select throws_ok(
  $$ select tests.refund(' ', 1, 'ch_old') $$, 'PT400', 'the request is not valid',
  'a reference is needed'
);
select throws_ok(
  $$ select tests.refund(null, 1, 'ch_old') $$, 'PT400', 'the request is not valid',
  'none is none'
);
select throws_ok(
  $$ select tests.refund(repeat('x', 201), 1, 'ch_old') $$, 'PT400', 'the request is not valid',
  'it is kept in Stripe''s metadata, which are short'
);
select throws_ok(
  $$ select billing_admin.refund_payment(md5('ch_old')::uuid, '', 'r', 1) $$,
  'PT400', 'the request is not valid',
  'M3: a reason is needed'
);
select throws_ok(
  $$ select billing_admin.refund_payment(md5('ch_old')::uuid, 'why', 'r', 1, 'because') $$,
  'PT400', 'the request is not valid',
  'what Stripe is told is one of its own reasons'
);
select throws_ok(
  $$ select tests.refund('all', null, 'pi_nobody') $$,
  'PT404', 'there is no such payment',
  'an unknown payment is not found'
);
select isnt(
  billing_admin.refund_payment(md5('ch_old')::uuid, 'why', 'r', 600, 'requested_by_customer'), null,
  'all that is left is given back, to the last unit'
);
select tests.be_owner();
select is(
  (select params ->> 'reason' from tests.calls where params #>> '{metadata,reference}' = 'r'),
  'requested_by_customer', 'with the reason Stripe is told'
);

-- ---- others -----------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select tests.refund('mine', 1) $$, 'PT403', 'this needs a billing administrator',
  'a member does not refund herself'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.refund_payment(md5('pi_ann')::uuid, 'why', 'r') $$, '42501', null,
  'a visitor cannot ask'
);

select * from finish();
rollback;
