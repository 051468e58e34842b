-- Whether and when we collect an overdue invoice again: only where Stripe does not, never a card
-- that was refused for good, never more often than the card networks allow.
begin;
\ir ../helpers.psql
\ir dunning.psql
select plan(62);

select tests.catalog();

create function pg_temp.next(p_name text) returns text
language sql as $$
  select coalesce(blocked_by, to_char(next_retry_at at time zone 'UTC', 'MM-DD HH24:MI'))
  from tests.case_of(p_name);
$$;

-- ---- the schedule -----------------------------------------------------------

select tests.owing('ann');
select is(pg_temp.next('ann'), '02-11 01:00', 'as shipped, the first retry is a day after');
select is(tests.run('2026-02-11 00:59:59') is null, false, 'the task runs before that');
select is_empty(
  $$ select * from tests.asked('ann') $$, 'and asks nothing of Stripe a second too early'
);
select tests.run('2026-02-11 01:00');
select results_eq(
  $$ select * from tests.asked('ann') $$, array['pending POST /v1/invoices/in_ann/pay'],
  'it asks to collect the invoice when the retry is due'
);
select is(pg_temp.next('ann'), 'in_progress', 'which is then under way');
select tests.run('2026-02-11 01:00');
select tests.run('2026-02-13');
select results_eq(
  $$ select * from tests.asked('ann') $$, array['pending POST /v1/invoices/in_ann/pay'],
  'G16: nothing is asked twice while Stripe has not answered'
);
select results_eq(
  $$ select retries, last_retry_at from tests.case_of('ann') $$,
  $$ values (1, '2026-02-11 01:00'::timestamptz) $$,
  'the case counts it'
);

-- What Stripe answers to the command of one account; those of others wait.
create function pg_temp.answer(p_name text, p_status integer, p_response jsonb) returns text
language plpgsql as $$
begin
  update billing_private.commands
  set next_attempt_at = 'infinity'
  where account_id is distinct from md5(p_name)::uuid and status = 'pending';
  return (
    select (billing_private.complete_command(id, lease, p_status, p_response, null, null, null,
      false)).status
    from billing_private.claim_commands(1, null));
end;
$$;

select is(
  pg_temp.answer('ann', 402, '{"error": {"type": "card_error", "code": "card_declined",
    "decline_code": "insufficient_funds", "charge": "ch_ann_2", "advice_code": "try_again_later",
    "payment_intent": {"id": "pi_ann"},
    "payment_method": {"id": "pm_ann", "type": "card", "card": {"fingerprint": "fp_ann"}}}}'),
  'declined',
  'a card that is declined is an answer'
);
select is_empty(
  $$ select * from billing_admin.critical_issues where issue = 'dead_command' $$,
  'and no fault that somebody has to look at'
);
select results_eq(
  $$
    select decline_code, advice_code, stripe_payment_key
    from billing_private.declines
    where stripe_charge_id = 'ch_ann_2'
  $$,
  $$ values ('insufficient_funds', 'try_again_later', 'pi_ann') $$,
  'it is remembered at once, whenever its event comes'
);
select tests.declined('ann', 'ch_ann_2', 'fp_ann', '2026-02-13 00:00:05', 'insufficient_funds');
select is(
  (select count(*) from billing_private.declines where stripe_charge_id = 'ch_ann_2'), 1::bigint,
  'and is the same decline then'
);
select is(
  pg_temp.next('ann'), '02-14 00:00',
  'the second retry is two days after the failure, and never less than a day after an attempt'
);
select tests.run('2026-02-14 00:00:05');
select is(
  pg_temp.answer('ann', 200, (tests.bill('ann', 'invoice.paid', '2026-02-14',
    tests.paid('2026-02-14'))::jsonb) #> '{data,object}'),
  'succeeded',
  'one that goes well'
);
select is((tests.case_of('ann')).status, 'recovered', 'settles the case with Stripe''s answer');

-- ---- collecting and being paid cross ----------------------------------------

select tests.owing('crossed');
select tests.run('2026-02-11 01:00');
select tests.hear(tests.bill('crossed', 'invoice.paid', '2026-02-11 02:00',
  tests.paid('2026-02-11 02:00')));
select results_eq(
  $$ select * from tests.asked('crossed') $$, array['canceled POST /v1/invoices/in_crossed/pay'],
  'paid between the decision and the call: the call is not made'
);

select tests.owing('racing');
select tests.run('2026-02-11 01:00');
create temporary table racing as select * from billing_private.claim_commands(1, null);
select tests.hear(tests.bill('racing', 'invoice.paid', '2026-02-11 01:00:01',
  tests.paid('2026-02-11 01:00:01')));
select is(
  (
    select (billing_private.complete_command(id, lease, 400, '{"error":
      {"type": "invalid_request_error", "message": "Invoice is already paid"}}', null, null, null,
      false)).status
    from racing
  ),
  'pending',
  'G15, G16: paid while the call is under way: its refusal is looked into'
);
select is(
  pg_temp.answer('racing', 200, (tests.bill('racing', 'invoice.paid', '2026-02-11 01:00:01',
    tests.paid('2026-02-11 01:00:01'))::jsonb) #> '{data,object}'),
  'succeeded',
  'G15, G16: and is success: one charge, no error shown'
);
select is((tests.case_of('racing')).status, 'recovered', 'the case is settled once');

-- ---- whose turn it is -------------------------------------------------------

select tests.owing('smart', 'insufficient_funds', jsonb_build_object(
  'next_payment_attempt', tests.seconds('2026-02-13')));
select is(pg_temp.next('smart'), 'stripe_retries', 'what Stripe is going to retry is left to it');
select tests.run('2026-02-20');
select is_empty($$ select * from tests.asked('smart') $$, 'whatever the clock says');
select tests.declined('smart', 'ch_smart_2', 'fp_smart', '2026-02-20', 'insufficient_funds');
select tests.hear(tests.bill('smart', 'invoice.payment_failed', '2026-02-20',
  '{"attempt_count": 2}'));
select is(
  pg_temp.next('smart'), '02-21 00:00',
  'when it gives up it is our turn, a day after its last attempt'
);

select tests.owing('sent', 'insufficient_funds', jsonb_build_object(
  'collection_method', 'send_invoice', 'due_date', tests.seconds('2026-02-10')));
select is(pg_temp.next('sent'), 'sent_invoice', 'an invoice that was sent is the customer''s to pay');

select tests.owing('two');
select tests.hear(tests.bill('two', 'invoice.payment_failed', '2026-03-10', jsonb_build_object(
  'id', 'in_two_later', 'created', tests.seconds('2026-03-10'))));
select is(
  pg_temp.next('two'), 'later_invoice', 'of two overdue invoices the latest goes first'
);
select isnt(
  pg_temp.next('two_later'), 'later_invoice',
  'which is what makes the subscription active again'
);
select tests.hear(tests.bill('two', 'invoice.paid', '2026-03-11',
  tests.paid('2026-03-11') || '{"id": "in_two_later"}'
    || jsonb_build_object('created', tests.seconds('2026-03-10'))));
select tests.run('2026-03-12 01:00');
select isnt(
  pg_temp.next('two'), 'later_invoice', 'then it is the turn of the one before'
);

-- One overdue subscription is no reason to touch another.
select tests.owing('other');
select tests.run('2026-02-11 01:00');
select is_empty(
  $$ select * from tests.asked('other') where asked like '%in_ann/pay' $$,
  'each account is asked about its own'
);

-- ---- refused for good -------------------------------------------------------

create temporary table hard (code text, outcome jsonb);
insert into hard values
  ('incorrect_number', '{}'), ('lost_card', '{}'), ('pickup_card', '{}'), ('stolen_card', '{}'),
  ('revocation_of_authorization', '{}'), ('revocation_of_all_authorizations', '{}'),
  ('highest_risk_level', '{}'), ('transaction_not_allowed', '{}'),
  ('generic_decline', '{"advice_code": "do_not_try_again"}'),
  ('generic_decline_2', '{"advice_code": "confirm_card_data"}'),
  ('generic_decline_3', '{"network_advice_code": "03"}'),
  ('generic_decline_4', '{"network_advice_code": "21"}'),
  ('generic_decline_5', '{"network_decline_code": "43"}');
select tests.owing('hard_' || code, code, '{}', outcome) from hard;
select is_empty(
  $$ select code, pg_temp.next('hard_' || code) from hard
    where pg_temp.next('hard_' || code) <> 'hard_decline' $$,
  'each of the codes Stripe does not retry, and each advice of bank or network, ends our retries'
);
select tests.run('2026-03-05');
select is_empty(
  $$ select asked from hard cross join lateral tests.asked('hard_' || code) as asked $$,
  'however long nobody changes the card'
);
select tests.owing('soft', 'generic_decline', '{}', '{"advice_code": "try_again_later"}');
select is(pg_temp.next('soft'), '02-11 01:00', 'a soft decline is tried again');

select tests.owing('late');
select is(pg_temp.next('late'), '02-11 01:00', 'the next retry is planned by what is known;');
select tests.declined('late', 'ch_late_2', 'fp_late', '2026-02-10 02:00', 'stolen_card');
select is(
  pg_temp.next('late'), 'hard_decline', 'an attempt that is heard of late changes it at once'
);

select tests.owing('sca', 'authentication_required');
select is(
  pg_temp.next('sca'), 'customer_action',
  'H3: a bank that wants a confirmation is a matter for the customer, not for a retry'
);
select tests.owing('action', 'insufficient_funds');
select tests.hear(tests.bill('action', 'invoice.payment_action_required', '2026-02-10 01:00:02',
  '{"hosted_invoice_url": "https://invoice.stripe.example/action"}'));
select is(
  pg_temp.next('action'), 'customer_action', 'H3: also where only the invoice says so'
);
select tests.run('2026-02-20');
select is_empty($$ select * from tests.asked('action') $$, 'H3: it is never retried');
select is(
  (
    select hosted_invoice_url
    from billing.invoices
    where id = (tests.case_of('action')).invoice_id
  ),
  'https://invoice.stripe.example/action',
  'H3: and where to confirm is on the invoice'
);

-- A card that is told of late, as by a back-fill, was there when the bank asked.
select tests.set_time('2026-01-10');
select tests.account('told');
select tests.subscribe('told', 'active', '2026-01-10');
select tests.hear(tests.bill('told', 'invoice.payment_action_required', '2026-02-10 01:00'));
select tests.hear(tests.event('evt_pm_told', 'payment_method.attached', '2026-02-12',
  jsonb_build_object('id', 'pm_told', 'object', 'payment_method', 'type', 'card',
    'customer', 'cus_told', 'created', tests.seconds('2026-01-10'),
    'card', '{"fingerprint": "fp_told"}'::jsonb)));
select tests.pays_with('told', 'pm_told', '2026-02-12');
select is(
  pg_temp.next('told'), 'customer_action', 'H3: nor because its card is heard of only now'
);

-- ---- another card -----------------------------------------------------------

select tests.card('hard_stolen_card', 'pm_same', 'fp_hard_stolen_card', '2026-02-12');
select tests.pays_with('hard_stolen_card', 'pm_same', '2026-02-12');
select is(
  pg_temp.next('hard_stolen_card'), 'hard_decline',
  'the same card added again is the same card'
);
select tests.card('hard_stolen_card', 'pm_new', 'fp_new', '2026-02-12 00:01');
select is(
  pg_temp.next('hard_stolen_card'), 'hard_decline',
  'a new card that is not the one that is charged changes nothing'
);
select tests.pays_with('hard_stolen_card', 'pm_new', '2026-02-12 00:02');
select is(
  pg_temp.next('hard_stolen_card'), '02-12 00:02',
  'when it becomes the default it is tried at once'
);
select tests.run('2026-02-12 00:02');
select results_eq(
  $$ select * from tests.asked('hard_stolen_card') $$,
  array['pending POST /v1/invoices/in_hard_stolen_card/pay'],
  'by the next heartbeat'
);

select tests.owing('level', 'stolen_card');
select tests.deliver('evt_level', 'customer.subscription.updated', '2026-02-11',
  tests.subscription('level', 'past_due', '2026-02-10', 'price_plus_monthly',
    '{"default_payment_method": "pm_level"}'));
select tests.card('level', 'pm_level_new', 'fp_level_new', '2026-02-12');
select tests.pays_with('level', 'pm_level_new', '2026-02-12');
select is(
  pg_temp.next('level'), 'hard_decline',
  'a new card for the customer does not help where the subscription has its own'
);
select tests.deliver('evt_level_2', 'customer.subscription.updated', '2026-02-13',
  tests.subscription('level', 'past_due', '2026-02-10', 'price_plus_monthly',
    '{"default_payment_method": "pm_level_new"}'));
select tests.set_time('2026-02-13');
select isnt(
  pg_temp.next('level'), 'hard_decline', 'set at the level that failed, it does'
);

select tests.owing('none');
select tests.hear(tests.event('evt_none', 'customer.updated', '2026-02-11',
  '{"id": "cus_none", "object": "customer", "invoice_settings": {}}'));
select tests.run('2026-02-11 01:00');
select is(pg_temp.next('none'), 'no_payment_method', 'nobody is charged without a card');
select is_empty($$ select * from tests.asked('none') $$, 'or asked to be');

select tests.owing('detached');
select tests.hear(tests.event('evt_detached', 'payment_method.detached', '2026-02-11',
  '{"id": "pm_detached", "object": "payment_method", "type": "card", "customer": null}'));
select is(
  pg_temp.next('detached'), 'no_payment_method', 'E10: a card that was taken off is none'
);

select tests.owing('unknown');
select tests.pays_with('unknown', 'pm_unheard', '2026-02-10 02:00');
select tests.run('2026-02-12');
select is(
  pg_temp.next('unknown'), 'unknown_method', 'a card of which nothing is known might be the same'
);
select results_eq(
  $$
    select path from billing_private.commands where target_object_id = 'pm_unheard'
  $$,
  array['/v1/payment_methods/pm_unheard'],
  'Stripe is asked about it'
);

select tests.owing('healed', 'transaction_not_allowed');
select tests.hear(tests.event('evt_pi_healed', 'payment_intent.succeeded', '2026-02-11',
  jsonb_build_object('id', 'pi_healed_2', 'object', 'payment_intent', 'status', 'succeeded',
    'amount', 500, 'amount_received', 500, 'currency', 'usd', 'customer', 'cus_healed',
    'payment_method', 'pm_healed', 'created', tests.seconds('2026-02-11'))));
select tests.hear(tests.event('evt_ch_healed_2', 'charge.succeeded', '2026-02-11',
  jsonb_build_object('id', 'ch_healed_2', 'object', 'charge', 'status', 'succeeded',
    'amount', 500, 'currency', 'usd', 'customer', 'cus_healed', 'payment_intent', 'pi_healed_2',
    'payment_method', 'pm_healed', 'created', tests.seconds('2026-02-11'))));
select tests.run('2026-02-12');
select isnt(
  pg_temp.next('healed'), 'hard_decline', 'a card that has paid since is good again'
);

-- ---- the policy -------------------------------------------------------------

insert into billing.dunning_policies (key, description, max_retries, retry_offsets, retry_window)
values
  ('never', 'none', 0, null, '30 days'),
  ('twice', 'by its own days', 5, '{2 days,5 days}', '30 days'),
  ('short', 'for three days', 9, null, '3 days');

update billing.plans set dunning_policy_key = 'never' where key = 'plus';
select tests.owing('never');
select is(pg_temp.next('never'), 'retries_used', 'a policy may do without retries');

update billing.plans set dunning_policy_key = 'twice' where key = 'plus';
select tests.owing('twice');
select is(pg_temp.next('twice'), '02-12 01:00', 'or name its own days');
select tests.run('2026-02-12 01:00');
select pg_temp.answer('twice', 402, '{"error": {"charge": "ch_twice_2", "code": "card_declined",
  "payment_method": {"id": "pm_twice", "type": "card", "card": {"fingerprint": "fp_twice"}}}}');
select is(pg_temp.next('twice'), '02-15 01:00', 'each counted from the first failure');
select tests.run('2026-02-15 01:00');
select pg_temp.answer('twice', 402, '{"error": {"charge": "ch_twice_3", "code": "card_declined",
  "payment_method": {"id": "pm_twice", "type": "card", "card": {"fingerprint": "fp_twice"}}}}');
select is(pg_temp.next('twice'), 'retries_used', 'and after the last day there is none');
select is((tests.case_of('twice')).status, 'exhausted', 'the case is exhausted then');
select tests.hear(tests.bill('twice', 'invoice.paid', '2026-02-20', tests.paid('2026-02-20')));
select is((tests.case_of('twice')).status, 'recovered', 'until somebody pays after all');

update billing.plans set dunning_policy_key = 'short' where key = 'plus';
select tests.owing('short');
select tests.set_time('2026-02-13 01:00');
select billing_private.plan_dunning(array[(tests.case_of('short')).invoice_id]);
select is(pg_temp.next('short'), '02-13 01:00', 'a window is open to its last instant');
select tests.set_time('2026-02-13 01:00:01');
select billing_private.plan_dunning(array[(tests.case_of('short')).invoice_id]);
select is(pg_temp.next('short'), 'retries_used', 'and closed after it');

-- ---- the limits of the networks ---------------------------------------------

create function pg_temp.instant(p_attempts timestamptz[], p_now timestamptz) returns timestamptz
language sql as $$
  select billing_private.retry_instant(
    row('p', 'p', 99, null, '10 years')::billing.dunning_policies,
    '2026-01-01', 0, p_attempts, true, p_now);
$$;

select is(
  pg_temp.instant('{2026-02-01}', '2026-02-01 12:00'), '2026-02-02'::timestamptz,
  'a day lies between two attempts'
);
select is(
  pg_temp.instant(array(select generate_series('2026-02-01'::timestamptz, '2026-02-08', '1 day')),
    '2026-02-09'),
  '2026-02-15'::timestamptz,
  'the ninth attempt waits until the first is fourteen days old'
);
select is(
  pg_temp.instant(array(select generate_series('2026-02-01'::timestamptz, '2026-02-07', '1 day')),
    '2026-02-08'),
  '2026-02-08'::timestamptz,
  'the eighth does not'
);
select is(
  pg_temp.instant(
    array(select generate_series('2026-02-01'::timestamptz, '2026-02-15', '1 day')),
    '2026-02-22 12:00'),
  '2026-03-03'::timestamptz,
  'the sixteenth waits until the first is thirty days old'
);

-- Somebody who retries whenever that is allowed, beside a Stripe that does as it likes: a thousand
-- schedules, each over two months, and how often a card was tried in any window.
create function pg_temp.attempts(p_seed integer) returns timestamptz[]
language plpgsql as $$
declare
  v_policy billing.dunning_policies;
  v_now timestamptz := '2026-01-01';
  v_next timestamptz;
  v_ours timestamptz[] := '{}';
  v_all timestamptz[] := array[v_now];
begin
  perform setseed(p_seed / 1000.0);
  v_policy := row(
    'p', 'p', 60,
    case when p_seed % 2 = 0 then array(
      select interval '1 hour' * floor(random() * 100) from generate_series(1, 60)) end,
    '60 days')::billing.dunning_policies;
  while v_now < '2026-03-02' loop
    v_next := billing_private.retry_instant(
      v_policy, '2026-01-01', cardinality(v_ours), v_all, random() < 0.1, v_now);
    exit when v_next is null;
    if v_next <= v_now then
      v_ours := v_ours || v_now;
      v_all := v_all || v_now;
    end if;
    v_now := v_now + interval '1 hour' * (1 + floor(random() * 30));
  end loop;
  return v_all;
end;
$$;

create temporary table tried as
select seed, attempt
from generate_series(1, 300) as seed
cross join lateral unnest(pg_temp.attempts(seed)) as attempt;

select is_empty(
  $$
    select seed, tried.attempt, span, count(*)
    from tried
    join (
      values ('24 hours'::interval, 1), ('14 days', 8), ('30 days', 15)
    ) as caps (span, most) on true
    join tried as within using (seed)
    where within.attempt >= tried.attempt
      and within.attempt < tried.attempt + span
    group by seed, tried.attempt, span, most
    having count(*) > most
  $$,
  'whatever the policy: at most one attempt in a day, 8 in 14 days, 15 in 30 days'
);
select ok(
  (select max(count) >= 15 from (select count(*) from tried group by seed) as counts (count)),
  'and some of those schedules come up to the limit'
);

select * from finish();
rollback;
