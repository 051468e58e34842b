-- billing_private.project_dispute() and project_early_fraud_warning(): what a payment's bank says
-- later, whose account is that of the payment.
begin;
\ir ../helpers.psql
select plan(27);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

-- As of 2026-10-28.endive; p_event is what comes after charge.dispute.
create function tests.dispute(
  p_event text,
  p_status text,
  p_at timestamptz,
  p_extra jsonb default '{}',
  p_previous jsonb default null
)
returns text
language sql as $$
  select tests.deliver(
    'evt_' || md5(p_event || p_status || p_at::text || p_extra), 'charge.dispute.' || p_event, p_at,
    jsonb_build_object(
      'id', 'dp_1', 'object', 'dispute', 'status', p_status, 'amount', 1000, 'currency', 'usd',
      'reason', 'fraudulent', 'network_reason_code', '10.4', 'payment_intent', 'pi_1',
      'charge', 'ch_1', 'created', 1768176000, 'is_charge_refundable', false, 'livemode', false,
      'balance_transactions', '[]'::jsonb, 'metadata', '{}'::jsonb,
      'evidence_details', jsonb_build_object('due_by', 1768867200, 'has_evidence', false,
        'past_due', false, 'submission_count', 0))
      || p_extra,
    p_previous);
$$;

create function tests.intent() returns text
language sql as $$
  select tests.deliver('evt_pi', 'payment_intent.succeeded', '2026-01-10', '{
    "id": "pi_1", "object": "payment_intent", "status": "succeeded", "amount": 1000,
    "currency": "usd", "customer": "cus_ann", "created": 1768003200}');
$$;

create function tests.warning(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_' || md5(p_event || p_at::text || p_extra), 'radar.early_fraud_warning.' || p_event, p_at,
    '{"id": "issfr_1", "object": "radar.early_fraud_warning", "actionable": true,
      "charge": "ch_1", "payment_intent": "pi_1", "created": 1768176000, "livemode": false,
      "fraud_type": "made_with_stolen_card"}' || p_extra);
$$;

savepoint s;

-- ---- the service: disputes --------------------------------------------------

select tests.intent();
select is(
  tests.dispute('created', 'needs_response', '2026-01-12'), 'applied', 'a dispute is applied');
select results_eq(
  $$
    select account_id, stripe_payment_key, stripe_charge_id, status, reason, network_reason_code,
      amount_minor, currency, is_withdrawn, is_refundable, has_evidence
    from billing.disputes
  $$,
  $$
    values (md5('ann')::uuid, 'pi_1', 'ch_1', 'needs_response', 'fraudulent', '10.4', 1000::bigint,
      'usd', false, false, false)
  $$,
  'it is the account''s whose payment it wants back'
);
select results_eq(
  $$ select disputed_at, evidence_due_at, updated_at from billing.disputes $$,
  $$
    values ('2026-01-12 00:00+00'::timestamptz, '2026-01-20 00:00+00'::timestamptz,
      '2026-01-12 00:00+00'::timestamptz)
  $$,
  'with its beginning, until when evidence is taken, and as of when this is'
);

select tests.dispute('funds_withdrawn', 'needs_response', '2026-01-12 00:01', '{
  "balance_transactions": [{"id": "txn_1", "amount": -1000, "fee": 1500, "net": -2500}]}');
select is((select is_withdrawn from billing.disputes), true, 'the bank takes the money first');

select tests.dispute('updated', 'under_review', '2026-01-13', '{
  "balance_transactions": [{"id": "txn_1", "amount": -1000}],
  "evidence_details": {"due_by": 1768867200, "has_evidence": true}}');
select results_eq(
  $$ select status, has_evidence, updated_at from billing.disputes $$,
  $$ values ('under_review', true, '2026-01-13 00:00+00'::timestamptz) $$,
  'evidence is handed in'
);

select tests.dispute('closed', 'won', '2026-01-14', '{
  "balance_transactions": [{"id": "txn_1", "amount": -1000}]}');
select tests.dispute('funds_reinstated', 'won', '2026-01-14 00:01', '{
  "balance_transactions": [{"id": "txn_1", "amount": -1000}, {"id": "txn_2", "amount": 1000}]}');
select results_eq(
  $$ select status, is_withdrawn from billing.disputes $$,
  $$ values ('won', false) $$,
  'a dispute that is won brings the money back'
);
rollback to s;

select tests.dispute('closed', 'lost', '2026-01-14');
select is(
  (select account_id from billing.disputes), null,
  'a dispute that comes before its payment is nobody''s yet'
);
select is(
  tests.dispute('created', 'needs_response', '2026-01-12'), 'applied',
  'the beginning may come after the end'
);
select is((select status from billing.disputes), 'lost', 'and changes nothing of it');
select tests.intent();
select is(
  (select account_id from billing.disputes), md5('ann')::uuid,
  'it finds its account with its payment'
);
select tests.dispute('updated', 'appeal_under_review', '2026-01-15');
select is(
  (select status from billing.disputes), 'appeal_under_review',
  'lost is not final: it may be appealed'
);
rollback to s;

select tests.dispute('closed', 'lost', '2026-01-12');
select tests.dispute('created', 'needs_response', '2026-01-12');
select is(
  (select status from billing.disputes), 'lost',
  'A2: in one second, too, the end stands, although its beginning comes second'
);
rollback to s;

select tests.dispute('updated', 'under_review', '2026-01-12');
select tests.dispute('updated', 'warning_closed', '2026-01-12');
select is(
  (select status from billing.disputes), 'under_review',
  'A2: an inquiry comes before the dispute it became'
);
rollback to s;

select tests.dispute('created', 'warning_needs_response', '2026-01-12', '{
  "is_charge_refundable": true, "evidence_details": {"due_by": null}, "reason": "general"}');
select results_eq(
  $$ select status, is_refundable, evidence_due_at from billing.disputes $$,
  $$ values ('warning_needs_response', true, null::timestamptz) $$,
  'an inquiry can be settled by a refund'
);
rollback to s;

select is(
  tests.dispute('created', 'arbitration', '2026-01-12', '{
    "charge": {"id": "ch_1", "object": "charge"}, "payment_intent": null,
    "balance_transactions": null, "evidence_details": null, "network_reason_code": null,
    "amount": 3000000000}'),
  'applied',
  'D10, D11: an unknown status, an expanded charge and nulls are no obstacle'
);
select results_eq(
  $$ select status, stripe_payment_key, stripe_charge_id, is_withdrawn, amount_minor
     from billing.disputes $$,
  $$ values ('arbitration', 'ch_1', 'ch_1', false, 3000000000) $$,
  'D15: a charge without intent is its own payment; amounts may be large'
);
select tests.deliver('evt_ch', 'charge.succeeded', '2026-01-10', '{
  "id": "ch_1", "object": "charge", "status": "succeeded", "payment_intent": null,
  "customer": "cus_ann", "amount": 1000, "currency": "usd", "created": 1768003200}');
select is(
  (select account_id from billing.disputes), md5('ann')::uuid,
  'and its dispute is found by the charge'
);
rollback to s;

-- ---- the service: early fraud warnings --------------------------------------

select is(tests.warning('created', '2026-01-12'), 'applied', 'a warning of fraud is applied');
select is(
  (select account_id from billing_private.early_fraud_warnings), null,
  'one that comes before its payment is nobody''s yet'
);
select tests.intent();
select results_eq(
  $$
    select account_id, stripe_payment_key, stripe_charge_id, fraud_type, is_actionable, warned_at
    from billing_private.early_fraud_warnings
  $$,
  $$
    values (md5('ann')::uuid, 'pi_1', 'ch_1', 'made_with_stolen_card', true,
      '2026-01-12 00:00+00'::timestamptz)
  $$,
  'and finds its account with its payment'
);
select tests.warning('updated', '2026-01-13', '{"actionable": false}');
select is(
  (select is_actionable from billing_private.early_fraud_warnings), false,
  'once the payment is refunded or disputed, nothing is left to do'
);
select tests.warning('created', '2026-01-12', '{"fraud_type": "misc"}');
select results_eq(
  $$ select is_actionable, fraud_type from billing_private.early_fraud_warnings $$,
  $$ values (false, 'made_with_stolen_card') $$,
  'A6: an older one changes nothing'
);
rollback to s;

select tests.warning('updated', '2026-01-12', '{"actionable": false}');
select tests.warning('updated', '2026-01-12');
select is(
  (select is_actionable from billing_private.early_fraud_warnings), false,
  'A2: in one second, what is settled is not taken up again'
);
rollback to s;

-- ---- a member, a stranger ---------------------------------------------------

select tests.intent();
select tests.dispute('created', 'needs_response', '2026-01-12');
select tests.warning('created', '2026-01-12');
select tests.sign_in('ann');
select is(
  (select count(*) from billing.disputes), 1::bigint, 'a member sees the account''s disputes');
select throws_ok(
  $$ select * from billing_private.early_fraud_warnings $$,
  '42501', 'permission denied for schema billing_private',
  'and does not learn that an issuer suspects them'
);
select tests.sign_in('bob');
select is_empty($$ select * from billing.disputes $$, 'a stranger sees none');

select tests.be_owner();
select is(
  (select count(*) from billing_private.early_fraud_warnings), 1::bigint, 'the owner sees both');

select * from finish();
rollback;
