-- billing.dunning_cases: an invoice is overdue from its first failure until it is settled, whatever
-- order Stripe's events come in.
begin;
\ir ../helpers.psql
\ir convergence.psql
\ir dunning.psql
select plan(44);

select tests.catalog();

-- ---- opening ----------------------------------------------------------------

select tests.owing('ann');

select results_eq(
  $$
    select status, opened_at, runs_from, policy_key, retries,
      subscription_id = (select id from billing.subscriptions
        where stripe_subscription_id = 'sub_ann') as is_hers
    from tests.case_of('ann')
  $$,
  $$
    values ('open', '2026-02-10 01:00'::timestamptz, '2026-02-10 01:00'::timestamptz, 'standard',
      0, true)
  $$,
  'a renewal that fails opens a case, from when it failed'
);

select tests.hear(tests.bill('ann', 'invoice.payment_failed', '2026-02-13 01:00',
  '{"attempt_count": 2}'));
select is(
  (tests.case_of('ann')).opened_at, '2026-02-10 01:00'::timestamptz,
  'a second failure is the same case'
);
select is(
  (select count(*) from billing.dunning_cases), 1::bigint, 'there is one case for an invoice'
);

select tests.set_time('2026-02-10');
select tests.account('bob');
select tests.subscribe('bob', 'active', '2026-01-10');
select tests.hear(tests.bill('bob', 'invoice.updated', '2026-02-10 02:00'));
select is(
  (tests.case_of('bob')).id, null,
  'one attempt of which nobody says that it failed may be a bank debit on its way'
);
select tests.hear(tests.bill('bob', 'invoice.updated', '2026-02-12', jsonb_build_object(
  'next_payment_attempt', tests.seconds('2026-02-15'))));
select is(
  (tests.case_of('bob')).opened_at, '2026-02-10 01:00'::timestamptz,
  'one that Stripe is going to repeat has failed, when the invoice was finalized'
);
select tests.hear(tests.bill('bob', 'invoice.payment_failed', '2026-02-10 03:00'));
select is(
  (tests.case_of('bob')).opened_at, '2026-02-10 03:00'::timestamptz,
  'and when the event of the failure comes after all, that is when'
);

-- What only a failure leads to tells of it as well, in whatever order the two are read.
create function tests.overdue(p_name text, p_latest text default null) returns void
language sql as $$
  select tests.hear(tests.event('evt_overdue_' || p_name, 'customer.subscription.updated',
    '2026-02-11', tests.subscription(p_name, 'past_due', '2026-01-10', 'price_plus_monthly',
      jsonb_build_object('latest_invoice', coalesce(p_latest, 'in_' || p_name)))));
$$;
select tests.account(name) from unnest(array['carl', 'cora', 'cleo', 'chad']) as name;
select tests.subscribe(name, 'active', '2026-01-10')
from unnest(array['carl', 'cora', 'cleo', 'chad']) as name;
select tests.hear(tests.bill('carl', 'invoice.updated', '2026-02-10 02:00'));
select tests.overdue('carl');
select tests.overdue('cora');
select tests.hear(tests.bill('cora', 'invoice.updated', '2026-02-10 02:00'));
select results_eq(
  $$
    select (tests.case_of(name)).status, (tests.case_of(name)).opened_at
    from unnest(array['carl', 'cora']) as name
  $$,
  $$
    values ('open', '2026-02-10 01:00'::timestamptz), ('open', '2026-02-10 01:00'::timestamptz)
  $$,
  'H1: an attempted invoice of a past due subscription failed, though nobody told of it'
);
select tests.hear(tests.bill('cleo', 'invoice.updated', '2026-02-10 02:00'));
select tests.overdue('cleo', 'in_other');
select is(
  (tests.case_of('cleo')).id, null, 'not where it is another invoice that is past due'
);
select tests.hear(tests.bill('chad', 'invoice.finalized', '2026-02-10 02:00',
  '{"attempt_count": 0}'));
select tests.overdue('chad');
select is((tests.case_of('chad')).id, null, 'nor before anybody tried to collect it');
select tests.hear(tests.bill('chad', 'invoice.updated', '2026-02-11 02:00'));
select is((tests.case_of('chad')).status, 'open', 'but then it is');

select tests.hear(tests.bill('chad', 'invoice.paid', '2026-02-12', tests.paid('2026-02-12')));
select is(
  (tests.case_of('chad')).status, 'recovered',
  'H4: and paying settles it, though nothing says any more that it failed'
);

-- All about the invoice comes before its subscription; that it failed is a guess by the next attempt.
select tests.account('chet');
select tests.hear(tests.bill('chet', 'invoice.updated', '2026-02-10 02:00',
  jsonb_build_object('next_payment_attempt', tests.seconds('2026-02-12'))));
select tests.hear(tests.bill('chet', 'invoice.paid', '2026-02-12', tests.paid('2026-02-12')));
select tests.subscribe('chet', 'active', '2026-01-10');
select results_eq(
  $$
    select settled.status, stripe_subscription_id
    from tests.case_of('chet') as settled
    left join billing.subscriptions on subscriptions.id = subscription_id
  $$,
  $$ values ('recovered', 'sub_chet') $$,
  'A5: a case that was settled before its subscription came is that subscription''s'
);

-- The same, told backwards.
select tests.account('chip');
select tests.subscribe('chip', 'active', '2026-01-10');
select tests.hear(tests.bill('chip', 'invoice.paid', '2026-02-12', tests.paid('2026-02-12')));
select is((tests.case_of('chip')).id, null, 'an invoice that was paid at once was never overdue');
select tests.hear(tests.bill('chip', 'invoice.updated', '2026-02-10 02:00',
  jsonb_build_object('next_payment_attempt', tests.seconds('2026-02-12'))));
select results_eq(
  $$ select status, opened_at, closed_at from tests.case_of('chip') $$,
  $$ values ('recovered', '2026-02-10 01:00'::timestamptz, '2026-02-12'::timestamptz) $$,
  'A1: that it was is noted when an older snapshot shows it'
);

select tests.account('first');
select tests.subscribe('first', 'incomplete', '2026-02-10');
select tests.hear(tests.bill('first', 'invoice.payment_failed', '2026-02-10',
  '{"billing_reason": "subscription_create"}'));
select is(
  (tests.case_of('first')).id, null,
  'whoever fails to pay the first invoice is still in the checkout'
);

select tests.account('draft');
select tests.hear(tests.bill('draft', 'invoice.created', '2026-02-10',
  '{"status": "draft", "attempt_count": 0}'));
select is((tests.case_of('draft')).id, null, 'a draft is not overdue');

-- ---- invoices that are sent -------------------------------------------------

select tests.account('sent');
select tests.hear(tests.bill('sent', 'invoice.sent', '2026-02-10', jsonb_build_object(
  'collection_method', 'send_invoice', 'attempt_count', 0,
  'due_date', tests.seconds('2026-02-24'))));
select tests.run('2026-02-23 23:59:59');
select is(
  (tests.case_of('sent')).id, null, 'an invoice that is sent is not overdue before its day'
);
select tests.run('2026-02-24');
select results_eq(
  $$ select status, opened_at, blocked_by from tests.case_of('sent') $$,
  $$ values ('open', '2026-02-24'::timestamptz, 'sent_invoice') $$,
  'on its day it is, by the clock alone; and it is the customer''s to pay'
);
select tests.hear(tests.bill('sent', 'invoice.paid', '2026-02-26',
  '{"collection_method": "send_invoice", "attempt_count": 0}'
  || jsonb_build_object('due_date', tests.seconds('2026-02-24')) || tests.paid('2026-02-26')));
select is((tests.case_of('sent')).status, 'recovered', 'paid late is paid');

select tests.account('punctual');
select tests.hear(tests.bill('punctual', 'invoice.paid', '2026-02-20',
  '{"collection_method": "send_invoice", "attempt_count": 0}'
  || jsonb_build_object('due_date', tests.seconds('2026-02-24')) || tests.paid('2026-02-20')));
select tests.run('2026-02-25');
select is(
  (tests.case_of('punctual')).id, null,
  'G23: one that is paid in time never is overdue'
);

-- ---- settling ---------------------------------------------------------------

select tests.set_time('2026-02-11');
select is(
  billing.access_level('premium', md5('ann')::uuid), 'full', 'the plan''s grace leaves access'
);
select tests.set_time('2026-02-14');
select is(
  billing.access_level('premium', md5('ann')::uuid), 'none', 'until it is over'
);
select tests.hear(tests.bill('ann', 'invoice.paid', '2026-02-14', tests.paid('2026-02-14')));
select results_eq(
  $$
    select status, closed_at, stage, next_stage_at, next_retry_at, blocked_by, due_at
    from tests.case_of('ann')
  $$,
  $$
    values ('recovered', '2026-02-14'::timestamptz, null::text, null::timestamptz,
      null::timestamptz, null::text, null::timestamptz)
  $$,
  'paying settles the case and clears what was to come'
);
select is(
  billing.access_level('premium', md5('ann')::uuid), 'full',
  'and gives access back, in the transaction that records the payment'
);

select tests.owing('coupon');
select tests.hear(tests.bill('coupon', 'invoice.paid', '2026-02-12',
  tests.paid('2026-02-12') || '{"amount_paid": 0, "amount_due": 0}'));
select is(
  (tests.case_of('coupon')).status, 'recovered',
  'G2, G23: paid is what the invoice says, also when no money came'
);

select tests.owing('void');
select tests.hear(tests.bill('void', 'invoice.voided', '2026-02-12', jsonb_build_object(
  'status', 'void',
  'status_transitions', jsonb_build_object('voided_at', tests.seconds('2026-02-12')))));
select results_eq(
  $$ select status, closed_at from tests.case_of('void') $$,
  $$ values ('closed', '2026-02-12'::timestamptz) $$,
  'a voided invoice closes its case'
);

select tests.owing('off');
select tests.hear(tests.bill('off', 'invoice.marked_uncollectible', '2026-02-12',
  jsonb_build_object('status', 'uncollectible', 'status_transitions',
    jsonb_build_object('marked_uncollectible_at', tests.seconds('2026-02-12')))));
select is((tests.case_of('off')).status, 'closed', 'so does one that is written off');
select tests.hear(tests.bill('off', 'invoice.paid', '2026-02-20', tests.paid('2026-02-20')));
select is(
  (tests.case_of('off')).status, 'recovered', 'which may be paid after all'
);

select tests.owing('gone');
select tests.deliver('evt_gone', 'customer.subscription.deleted', '2026-02-12',
  tests.subscription('gone', 'canceled', '2026-02-10', 'price_plus_monthly', jsonb_build_object(
    'ended_at', tests.seconds('2026-02-12'))));
select results_eq(
  $$ select status, closed_at, next_retry_at, due_at from tests.case_of('gone') $$,
  $$ values ('closed', '2026-02-12'::timestamptz, null::timestamptz, null::timestamptz) $$,
  'nothing more is done for a subscription that has ended'
);

-- ---- whose policy -----------------------------------------------------------

insert into billing.dunning_policies (key, description) values ('other', 'another');
update billing.plans set dunning_policy_key = 'other' where key = 'plus';
select tests.owing('other');
select is((tests.case_of('other')).policy_key, 'other', 'the plan names the policy');

select tests.set_time('2026-02-10');
select tests.account('oneoff');
select tests.hear(tests.bill('oneoff', 'invoice.payment_failed', '2026-02-10',
  '{"parent": null, "billing_reason": "manual"}'));
select results_eq(
  $$ select policy_key, subscription_id from tests.case_of('oneoff') $$,
  $$ values ('standard', null::uuid) $$,
  'an invoice without subscription has the standard one'
);
update billing.plans set dunning_policy_key = 'standard' where key = 'plus';

-- ---- heard of late ----------------------------------------------------------

select tests.set_time('2026-06-01');
select tests.account('late');
select tests.subscribe('late', 'active', '2026-01-10');
select billing_private.ingest_stripe_event(
  tests.bill('late', 'invoice.payment_failed', '2026-02-10'));
select results_eq(
  $$ select opened_at, runs_from from tests.case_of('late') $$,
  $$ values ('2026-02-10'::timestamptz, '2026-05-31'::timestamptz) $$,
  'a case that is months old when it is heard of begins its stages now, not all at once'
);
select is(
  (tests.case_of('late')).next_retry_at, null,
  'and nobody is charged for what failed so long ago'
);

-- ---- an owner who is known later --------------------------------------------

select tests.set_time('2026-02-10');
select tests.hear(tests.bill('stray', 'invoice.payment_failed', '2026-02-10'));
select results_eq(
  $$ select account_id, blocked_by, due_at from tests.case_of('stray') $$,
  $$ values (null::uuid, 'no_customer', null::timestamptz) $$,
  'a case of a customer nobody knows waits'
);
select billing_private.ensure_account(md5('stray')::uuid);
select billing_private.bind_customer('cus_stray', md5('stray')::uuid);
select results_eq(
  $$ select account_id, blocked_by from tests.case_of('stray') $$,
  $$ values (md5('stray')::uuid, 'no_payment_method') $$,
  'and is its account''s when that is known'
);

-- ---- who sees it ------------------------------------------------------------

select tests.sign_in('ann');
select results_eq(
  'select status from billing.dunning_cases', array['recovered'],
  'a member sees her own cases alone'
);
select tests.be_owner();

-- ---- the service: in every order --------------------------------------------

select tests.set_time('2026-02-20');
select tests.account('eve');

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_eve', 'customer.subscription.created', '2026-01-10',
        tests.subscription('eve', 'active', '2026-01-10')),
      tests.bill('eve', 'invoice.payment_failed', '2026-02-10 01:00'),
      tests.bill('eve', 'invoice.updated', '2026-02-10 01:00', jsonb_build_object(
        'next_payment_attempt', tests.seconds('2026-02-13'))),
      tests.bill('eve', 'invoice.paid', '2026-02-13',
        tests.paid('2026-02-13') || '{"attempt_count": 2}')
    ])
  $$,
  'A3, A13: a failed renewal and its recovery end in the same case in every order'
);
select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.bill('eve', 'invoice.payment_action_required', '2026-02-10 01:00'),
      tests.bill('eve', 'invoice.payment_failed', '2026-02-10 01:00'),
      tests.bill('eve', 'invoice.payment_failed', '2026-02-12', '{"attempt_count": 2}'),
      tests.event('evt_eve', 'customer.subscription.deleted', '2026-02-14',
        tests.subscription('eve', 'canceled', '2026-01-10',
          p_extra => jsonb_build_object('ended_at', tests.seconds('2026-02-14'))))
    ])
  $$,
  'A13: so do two failures and the end of the subscription'
);

select tests.hear(tests.bill('eve', 'invoice.payment_failed', '2026-02-10 01:00'));
select isnt_empty(
  $$ select * from jsonb_array_elements(tests.state() -> 'dunning') $$,
  'the comparison looks at the cases'
);

-- ---- what failed last -------------------------------------------------------

select tests.account('sca');
select tests.hear(tests.bill('sca', 'invoice.payment_failed', '2026-02-20 01:00'));
select is(
  (select action_required_at from billing.invoices where stripe_invoice_id = 'in_sca'), null,
  'a declined card asks for nothing'
);
select tests.hear(tests.bill('sca', 'invoice.payment_action_required', '2026-02-20 01:00'));
select is(
  (select action_required_at from billing.invoices where stripe_invoice_id = 'in_sca'),
  '2026-02-20 01:00'::timestamptz,
  'both events of one second mean that the bank asked'
);
select tests.hear(tests.bill('sca', 'invoice.payment_failed', '2026-02-21',
  '{"attempt_count": 2}'));
select is(
  (select action_required_at from billing.invoices where stripe_invoice_id = 'in_sca'), null,
  'until a later attempt fails otherwise'
);

-- ---- deleting ---------------------------------------------------------------

select throws_ok(
  $$ delete from billing.dunning_policies where key = 'other' $$, '23503', null,
  'a policy that cases go by stays'
);
select lives_ok(
  $$ delete from billing.dunning_stages where policy_key = 'standard' $$,
  'stages may go'
);

select * from finish();
rollback;
