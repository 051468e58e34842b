-- Asking Stripe about what should have changed by now: which objects, when, and how often.
begin;
\ir ../helpers.psql
select plan(28);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.account('bob');
update billing_private.reread_rules
set margin = '2 hours', repeat_after = '6 hours'
where key <> 'incomplete';

create function tests.asked() returns text[]
language sql as $$
  select array_agg(format('%s %s', path, cause ->> 'reason') order by position)
  from billing_private.commands
  where kind = 'reread';
$$;

-- What would be asked at a moment, which stays to be asked.
create function tests.asked_at(p_at timestamptz) returns text[]
language sql as $$
  select array_agg(format('%s %s', object_id, rule_key) order by object_id, rule_key)
  from billing_private.overdue_objects(p_at);
$$;

-- Claims the question and answers it.
create function tests.answer(p_response jsonb, p_stripe_date text) returns void
language plpgsql as $$
declare
  v_claimed billing_private.commands;
begin
  perform billing_private.claim_commands(1, null);
  select * into strict v_claimed from billing_private.commands where status = 'leased';
  perform billing.complete_command(
    v_claimed.id, v_claimed.lease, 200, p_response, null, p_stripe_date, 0.4);
end;
$$;

savepoint s;

-- ---- the machine: a period that ended ---------------------------------------

select tests.subscribe('ann');
select is(tests.asked_at('2026-02-10 02:00'), null, 'a renewal has time to come');
select is(
  tests.asked_at('2026-02-10 02:00:01'), array['sub_ann period_ended'],
  'a period that ended without news is asked about'
);
select tests.set_time('2026-02-10 02:00:01');
select is(billing_private.task_request_rereads(), 1::bigint, 'by a task');
select is(
  tests.asked(), array['/v1/subscriptions/sub_ann period_ended'],
  'which names the rule'
);
select is(billing_private.task_request_rereads(), 0::bigint, 'what is being asked is asked once');
select tests.answer(
  tests.subscription('ann', 'active', '2026-01-10', p_extra => '{"latest_invoice": "in_ann"}'),
  'Tue, 10 Feb 2026 02:00:01 GMT');
select is_empty(
  $$ select * from billing_private.drifts $$,
  'an answer that tells what is stored is no drift'
);
select tests.set_time('2026-02-10 08:00:00');
select is(billing_private.task_request_rereads(), 0::bigint, 'six hours it is let be');
select tests.set_time('2026-02-10 08:00:01');
select is(billing_private.task_request_rereads(), 1::bigint, 'then it is asked about again');
select tests.answer(
  tests.subscription('ann', 'active', '2026-02-10'), 'Tue, 10 Feb 2026 08:00:01 GMT');
select is(
  (select current_period_end from billing.subscriptions), '2026-03-10 00:00+00'::timestamptz,
  'H1: a renewal nobody told of is brought in'
);
select results_eq(
  $$
    select object_id, class, found_by, difference ->> 'table', difference #>> '{before,quantity}'
    from billing_private.drifts
    cross join lateral jsonb_array_elements(differences) as difference
    order by 4
  $$,
  $$
    values
      ('sub_ann', 'stale', 'period_ended', 'billing.subscription_items', null),
      ('sub_ann', 'stale', 'period_ended', 'billing.subscriptions', null)
  $$,
  'H5: and recorded with the rule that found it'
);
select is(tests.asked_at('2026-02-11'), null, 'nothing is overdue any more');
rollback to s;

-- ---- the machine: whatever else is overdue ----------------------------------

select tests.subscribe('ann', 'trialing', p_extra =>
  '{"trial_start": 1768003200, "trial_end": 1770681600}');
select is(
  tests.asked_at('2026-02-10 02:00:01'), array['sub_ann trial_ended'],
  'a trial that ended without news is asked about'
);
rollback to s;

select tests.subscribe('ann', 'incomplete');
select is(tests.asked_at('2026-01-10 23:00'), null, 'a first payment has 23 hours');
select is(
  tests.asked_at('2026-01-10 23:00:01'), array['sub_ann incomplete'],
  'after that Stripe has given it up, and is asked'
);
rollback to s;

select tests.subscribe('ann', p_extra => '{"cancel_at": 1768089600}');
select is(
  tests.asked_at('2026-01-11 02:00:01'), array['sub_ann end_passed'],
  'a subscription that was to end by now is asked about'
);
select tests.deliver('evt_over', 'customer.subscription.deleted', '2026-01-11',
  tests.subscription('ann', 'canceled', '2026-01-10', p_extra => '{"ended_at": 1768089600}'));
select is(tests.asked_at('2027-01-01'), null, 'what is over is never asked about');
rollback to s;

select tests.subscribe('ann', 'paused');
select is(tests.asked_at('2026-06-01'), null, 'of a paused one nothing is expected');
rollback to s;

select tests.deliver('evt_open', 'invoice.payment_failed', '2026-01-10', '{
  "id": "in_1", "object": "invoice", "status": "open", "currency": "usd", "customer": "cus_ann",
  "attempt_count": 1, "next_payment_attempt": 1768089600}');
select is(
  tests.asked_at('2026-01-11 02:00:01'), array['in_1 attempt_passed'],
  'an invoice that was to be charged by now is asked about'
);
rollback to s;

insert into billing.checkout_sessions
  (account_id, price_id, status, success_url, cancel_url, stripe_session_id, expires_at)
values
  (md5('ann')::uuid, md5('plus_monthly')::uuid, 'open', 'https://a.example', 'https://a.example',
    'cs_1', '2026-01-11'),
  (md5('bob')::uuid, md5('plus_monthly')::uuid, 'complete', 'https://a.example',
    'https://a.example', 'cs_2', '2026-01-11');
select is(
  tests.asked_at('2026-01-11 02:00:01'), array['cs_1 session_expired'],
  'an open checkout past its end is asked about'
);
rollback to s;

select tests.subscribe('ann', p_price => 'price_unheard_of');
select is(
  tests.asked_at('2026-01-10 02:00:01'), array['price_unheard_of unknown_price'],
  'C1: a price that a subscription is on and that never came is asked about'
);
rollback to s;

-- ---- the machine: rules are rows --------------------------------------------

select tests.subscribe('ann');
select tests.subscribe('bob');
update billing_private.reread_rules set is_enabled = false where key = 'period_ended';
select is(tests.asked_at('2026-03-01'), null, 'a rule can be switched off');
update billing_private.reread_rules
set is_enabled = true, margin = '1 month'
where key = 'period_ended';
select is(
  cardinality(tests.asked_at('2026-03-10 00:00:01')), 2, 'its margin is in its row'
);
select is(
  billing_private.request_rereads('2026-04-01', 1), 1::bigint,
  'so many are asked at a time'
);
select is(
  tests.asked(), array['/v1/subscriptions/sub_ann period_ended'], 'the others follow'
);
select is(billing_private.request_rereads('2026-04-01', 10), 1::bigint, 'in the next run');
rollback to s;

-- ---- the machine: gone ------------------------------------------------------

select tests.deliver('evt_price', 'price.created', '2026-01-10', '{
  "id": "price_x", "object": "price", "product": "prod_plus", "currency": "usd",
  "unit_amount": 700, "active": true, "recurring": {"interval": "month", "interval_count": 1}}');
select billing_private.request_reread('price', 'price_x', 'unknown_price');
select billing_private.claim_commands(1, null);
select billing.complete_command(
  id, lease, 404, '{"error": {"code": "resource_missing"}}', null,
  'Sat, 10 Jan 2026 00:00:00 GMT', 0.4)
from billing_private.commands
where status = 'leased';
select results_eq(
  $$ select class, object_id from billing_private.drifts $$,
  $$ values ('gone', 'price_x') $$,
  'E3: what Stripe does not know any more is recorded as gone'
);
select is(
  (select is_active from billing.prices where stripe_price_id = 'price_x'), false,
  'E3: and no longer on offer'
);
select is_empty(
  $$ select * from billing_private.commands where status = 'dead' $$,
  'E3: the question is answered, not failed'
);

select * from finish();
rollback;
