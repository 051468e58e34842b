-- billing.pause_subscription() and resume_subscription(): from when, until when, on whose account.
begin;
\ir ../helpers.psql
select plan(79);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);
select tests.subscribe('ann');

create function tests.sub(p_status text, p_extra jsonb default '{}') returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_status || p_extra), 'customer.subscription.updated',
    '2026-01-11', tests.subscription('ann', p_status, '2026-01-10', 'price_plus_monthly', p_extra));
$$;

create function tests.details(p_statement text) returns jsonb
language plpgsql as $$
declare
  v_details text;
begin
  execute p_statement;
  return null;
exception when others then
  get stacked diagnostics v_details = pg_exception_detail;
  return v_details;
end;
$$;

create view tests.asked as
select kind, method, path, params
from billing_private.commands
where status in ('pending', 'leased')
order by position;

-- Stripe answers the oldest call with ann's subscription as it is then.
create function tests.answer(p_extra jsonb default '{}', p_status text default 'active') returns text
language plpgsql as $$
declare
  v_claimed billing.claimed_command;
begin
  select * into strict v_claimed from billing_private.claim_commands(1, null);
  perform billing.complete_command(v_claimed.id, v_claimed.lease, 200,
    tests.subscription('ann', p_status, '2026-01-10', p_extra => p_extra));
  return (select kind from billing_private.commands where id = v_claimed.id);
end;
$$;

-- Ann asks for it, and is herself again.
create function tests.pause(
  p_at_period_end boolean default false,
  p_resumes_at timestamptz default null
) returns void
language plpgsql as $$
begin
  perform tests.sign_in('ann');
  perform billing.pause_subscription(
    resumes_at => p_resumes_at, at_period_end => p_at_period_end);
  perform tests.be_owner();
end;
$$;

create function tests.resume() returns void
language plpgsql as $$
begin
  perform tests.sign_in('ann');
  perform billing.resume_subscription();
  perform tests.be_owner();
end;
$$;

-- The SQLSTATE of ann's pause with a subscription in this status, or null; undone again.
create function tests.refusal(p_status text) returns text
language plpgsql as $$
begin
  update billing.subscriptions set status = p_status;
  perform tests.pause();
  raise exception sqlstate 'TS001';
exception when others then
  return nullif(sqlstate, 'TS001');
end;
$$;

grant execute on all functions in schema tests to authenticated, service_role;
savepoint s;

-- ---- a member: now ----------------------------------------------------------

select tests.sign_in('ann');
select results_eq(
  $$
    select status, is_paused, pause_at, pending_command
    from billing.pause_subscription(at_period_end => false)
  $$,
  $$ values ('active', false, null::timestamptz, 'pause_collection') $$,
  'a member pauses; until Stripe has answered, nothing has changed'
);
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('pause_collection', 'POST', '/v1/subscriptions/sub_ann',
      '{"pause_collection": {"behavior": "void"}}'::jsonb)
  $$,
  'Stripe is asked to void the invoices from now on'
);
select tests.pause();
select is((select count(*) from tests.asked), 1::bigint, 'a double click is one command');
select tests.pause(false, '2026-03-01');
select is(
  (select array_agg(params -> 'pause_collection') from tests.asked),
  array['{"behavior": "void", "resumes_at": 1772323200}'::jsonb],
  'other terms replace those Stripe was not told'
);
select is(
  tests.answer('{"pause_collection": {"behavior": "void", "resumes_at": 1772323200}}'),
  'pause_collection', 'Stripe answers'
);
select tests.sign_in('ann');
select results_eq(
  $$ select status, is_paused, resumes_at, pending_command from billing.my_subscription() $$,
  $$ values ('active', true, '2026-03-01 00:00+00'::timestamptz, null) $$,
  'G5: paused is shown beside the status, which stays, and until when'
);
select tests.be_owner();
savepoint paused;

select tests.pause(false, '2026-03-01');
select is_empty($$ select * from tests.asked $$, 'the same pause again changes nothing');
select tests.pause();
select is(
  (select params -> 'pause_collection' from tests.asked), '{"behavior": "void"}',
  'another one is asked for'
);
rollback to paused;

select tests.resume();
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('resume_collection', 'POST', '/v1/subscriptions/sub_ann',
      '{"pause_collection": ""}'::jsonb)
  $$,
  'G5: resuming sends an empty text, which is how Stripe takes it away'
);
select tests.resume();
select is((select count(*) from tests.asked), 1::bigint, 'once');
savepoint resuming;
select tests.pause(false, '2026-03-01');
select is_empty($$ select * from tests.asked $$,
  'who stays paused after all leaves nothing to ask');
rollback to resuming;
create temporary table calling as select * from billing.claim_commands();
select tests.pause(false, '2026-03-01');
select is(
  (select array_agg(kind) from tests.asked), '{resume_collection,pause_collection}',
  'what Stripe may have done already is done again the other way'
);
rollback to resuming;
select tests.answer();
select tests.sign_in('ann');
select results_eq(
  $$ select is_paused, resumes_at from billing.my_subscription() $$,
  $$ values (false, null::timestamptz) $$,
  'and it goes on'
);
select throws_ok(
  $$ select billing.resume_subscription() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'what is not paused cannot be resumed'
);
select is(
  tests.details($$ select billing.resume_subscription() $$) - 'subscription_id',
  '{"code": "INVALID_TRANSITION", "from": "active", "to": "active", "problem": "it is not paused"}',
  'the refusal names both states'
);
select tests.be_owner();
rollback to s;

select tests.pause();
select tests.resume();
select is_empty($$ select * from tests.asked $$,
  'a pause taken back before Stripe was told leaves nothing');
rollback to s;

-- ---- a member: at the end of the paid period --------------------------------

select tests.sign_in('ann');
select results_eq(
  $$ select is_paused, pause_at, pending_command from billing.pause_subscription() $$,
  $$ values (false, '2026-02-10 00:00+00'::timestamptz, null) $$,
  'left to itself a pause begins when what is paid for ends'
);
select tests.be_owner();
select is_empty($$ select * from tests.asked $$, 'Stripe is not asked yet: it knows no such thing');
savepoint waiting;

select tests.set_time('2026-02-09 23:49:59');
select is(billing_private.begin_scheduled_pauses(100), 0::bigint, 'nor ten minutes and a second before');
select tests.set_time('2026-02-09 23:50');
select is(billing_private.task_apply_scheduled_changes(), 1::bigint, 'but ten minutes before');
select is((select params from tests.asked), '{"pause_collection": {"behavior": "void"}}',
  'so that the invoice of the next period falls under it');
select is(billing_private.begin_scheduled_pauses(100), 0::bigint, 'once');
select is((select pause_at from billing.subscriptions), null, 'nothing waits any more');
rollback to waiting;

select tests.resume();
select is((select pause_at from billing.subscriptions), null, 'resuming takes back what waits');
select is_empty($$ select * from tests.asked $$, 'without asking Stripe');
rollback to waiting;

select tests.pause();
select is((select pause_at from billing.subscriptions), null,
  'a pause at once takes the place of one that waits');
rollback to waiting;

select tests.pause(true, '2026-04-10');
select is(
  (select pause_terms from billing.subscriptions),
  '{"behavior": "void", "resumes_at": 1775779200}', 'other terms replace those that wait');
rollback to waiting;

select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is((select pause_at from billing.subscriptions), null,
  'who cancels has no pause to come');
rollback to waiting;

select tests.sub('canceled', '{"ended_at": 1768500000}');
select tests.set_time('2026-02-10');
select is(billing_private.begin_scheduled_pauses(100), 1::bigint, 'what has ended meanwhile');
select is_empty($$ select * from tests.asked $$, 'is not paused');
select is(billing_private.begin_scheduled_pauses(100), 0::bigint, 'and forgotten');
rollback to s;

-- ---- a member: at the end of the paid period, and Stripe hears of it late -----

create function tests.renewal(p_status text, p_extra jsonb default '{}') returns text
language sql as $$
  select tests.deliver('evt_in_' || md5(p_status || p_extra), 'invoice.updated',
    '2026-02-10 00:00:01', jsonb_build_object(
      'id', 'in_next', 'object', 'invoice', 'customer', 'cus_ann', 'status', p_status,
      'billing_reason', 'subscription_cycle', 'currency', 'usd', 'total', 1000,
      'created', extract(epoch from timestamptz '2026-02-10')::bigint,
      'parent', jsonb_build_object('type', 'subscription_details', 'subscription_details',
        jsonb_build_object('subscription', 'sub_ann'))) || p_extra);
$$;
-- Stripe answers the oldest call with its invoice.
create function tests.answer_invoice(p_status text) returns text
language plpgsql as $$
declare
  v_claimed billing.claimed_command;
begin
  select * into strict v_claimed from billing_private.claim_commands(1, null);
  perform billing.complete_command(v_claimed.id, v_claimed.lease, 200, jsonb_build_object(
    'id', 'in_next', 'object', 'invoice', 'customer', 'cus_ann', 'status', p_status,
    'billing_reason', 'subscription_cycle', 'currency', 'usd', 'total', 1000, 'livemode', false,
    'created', extract(epoch from timestamptz '2026-02-10')::bigint,
    'parent', jsonb_build_object('type', 'subscription_details', 'subscription_details',
      jsonb_build_object('subscription', 'sub_ann'))), null, 'Tue, 10 Feb 2026 00:30:00 GMT', 0);
  return v_claimed.path;
end;
$$;
-- The dispatcher comes back at a time and carries the pause.
create function tests.carry_late(p_at timestamptz, p_behavior text default 'void') returns void
language plpgsql as $$
begin
  perform billing_private.begin_scheduled_pauses(100);
  perform tests.set_time(p_at);
  perform tests.answer(jsonb_build_object(
    'pause_collection', jsonb_build_object('behavior', p_behavior, 'resumes_at', null)));
end;
$$;

select tests.pause(true);
select tests.set_time('2026-02-09 23:55');
savepoint late;

select tests.carry_late('2026-02-09 23:59:59');
select tests.renewal('draft');
select tests.set_time('2026-02-10 00:05');
select is(
  billing_private.withdraw_invoices(), 0::bigint,
  'what Stripe makes after it has heard of the pause is void without us'
);
rollback to late;

select tests.renewal('draft');
select tests.carry_late('2026-02-10 00:30');
select results_eq(
  $$ select kind, path, params from tests.asked $$,
  $$ values ('finalize_invoice', '/v1/invoices/in_next/finalize', '{"auto_advance": false}'::jsonb) $$,
  'the draft of the next period that Stripe made meanwhile is taken back: closed first, uncollected'
);
select is(billing_private.withdraw_invoices(), 0::bigint, 'which is asked once');
select is(tests.answer_invoice('open'), '/v1/invoices/in_next/finalize', 'and then,');
select results_eq(
  $$ select kind, path, params from tests.asked $$,
  $$ values ('void_invoice', '/v1/invoices/in_next/void', '{}'::jsonb) $$,
  'with Stripe''s answer, voided'
);
select is(tests.answer_invoice('void'), '/v1/invoices/in_next/void', 'once');
select is((select status from billing.invoices), 'void', 'so it is here as well');
select is(billing_private.withdraw_invoices(), 0::bigint, 'and nothing is left to do');
rollback to late;

select tests.carry_late('2026-02-10 00:30');
select is_empty($$ select * from tests.asked $$, 'an invoice nobody has heard of is not taken back');
select tests.renewal('open');
select is(
  billing_private.task_apply_scheduled_changes(), 1::bigint,
  'A5: as soon as it is heard of, the heartbeat sees to it'
);
select is((select kind from tests.asked), 'void_invoice', 'as far as it is');
rollback to late;

select tests.renewal('draft');
update billing.subscriptions set pause_terms = '{"behavior": "keep_as_draft"}';
select tests.carry_late('2026-02-10 00:30', 'keep_as_draft');
select results_eq(
  $$ select kind, path, params from tests.asked $$,
  $$ values ('hold_invoice', '/v1/invoices/in_next', '{"auto_advance": false}'::jsonb) $$,
  'where drafts are to be kept, it is kept'
);
rollback to late;

select tests.renewal('open');
update billing.subscriptions set pause_terms = '{"behavior": "mark_uncollectible"}';
select tests.carry_late('2026-02-10 00:30', 'mark_uncollectible');
select is((select kind from tests.asked), 'mark_uncollectible',
  'where they are to be written off, it is written off');
rollback to late;

select tests.renewal('draft', '{"created": 1770681599}');
select tests.renewal('draft', '{"id": "in_other", "billing_reason": "subscription_update"}');
select tests.carry_late('2026-02-10 00:30');
select is_empty($$ select * from tests.asked $$,
  'nothing is taken back that was owed before the period''s end, or for a change');
rollback to late;

select tests.renewal('paid', '{"amount_paid": 1000}');
select tests.carry_late('2026-02-10 02:00');
select is_empty($$ select * from tests.asked $$, 'nor what was paid by then');
insert into billing.payments (account_id, stripe_payment_key, status, amount_minor,
  amount_received_minor, currency, stripe_invoice_id, stripe_customer_id)
values (md5('ann')::uuid, 'pi_next', 'succeeded', 1000, 1000, 'usd', 'in_next', 'cus_ann');
select results_eq(
  $$
    select subject, account_id, details ->> 'amount_paid_minor',
      (details ->> 'payment_id')::uuid = (select id from billing.payments)
    from billing_admin.critical_issues
    where issue = 'charged_despite_pause'
  $$,
  $$ values ('in_next', md5('ann')::uuid, '1000', true) $$,
  'of which an administrator is told'
);
select tests.deliver('evt_re', 'refund.created', '2026-02-11', '{"id": "re_next",
  "object": "refund", "status": "succeeded", "amount": 1000, "currency": "usd",
  "payment_intent": "pi_next", "created": 1770768000}');
select is_empty(
  $$ select * from billing_admin.critical_issues where issue = 'charged_despite_pause' $$,
  'until it is given back'
);
rollback to s;

-- ---- a member: what Stripe paused -------------------------------------------

select tests.sub('paused', '{"trial_end": 1768400000}');
select tests.sign_in('ann');
select is((select is_paused from billing.my_subscription()), true,
  'G5: the status paused is a pause as well');
select throws_ok(
  $$ select billing.pause_subscription() $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'it cannot be paused again'
);
select is(
  tests.details($$ select billing.pause_subscription() $$) - 'subscription_id',
  '{"code": "INVALID_TRANSITION", "from": "paused", "to": "paused"}',
  'and the refusal names both states'
);
select billing.resume_subscription();
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('resume_subscription', 'POST', '/v1/subscriptions/sub_ann/resume', '{}'::jsonb)
  $$,
  'it is resumed where Stripe paused it'
);
select tests.resume();
select is((select count(*) from tests.asked), 1::bigint, 'once');
select tests.answer();
select is((select status from billing.subscriptions), 'active', 'and is active by the answer');
rollback to s;

-- ---- a member: what is refused ----------------------------------------------

select is_empty(
  $$
    select wanted.status
    from (values ('active', null), ('trialing', null), ('past_due', 'PT402'), ('unpaid', 'PT402'),
      ('incomplete', 'PT422'), ('paused', 'PT422'), ('canceled', 'PT422'), ('hibernating', 'PT422'),
      ('incomplete_expired', 'PT422')) as wanted (status, sqlstate)
    where tests.refusal(wanted.status) is distinct from wanted.sqlstate
  $$,
  'who owes is sent to pay; what never began, is over or unknown cannot be paused'
);

select tests.sub('active', '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select is(
  tests.details($$ select billing.pause_subscription() $$) ->> 'problem',
  'it ends with the period: undo the cancellation first',
  'after an end there is nothing to pause'
);
select tests.be_owner();
rollback to s;

select tests.sign_in('ann');
select is_empty(
  $$
    select arguments, field
    from (values
      ('behavior => null', 'behavior'), ('behavior => ''later''', 'behavior'),
      ('at_period_end => false, resumes_at => ''2026-01-15 08:00''', 'resumes_at'),
      ('resumes_at => ''2026-02-10''', 'resumes_at')) as calls (arguments, field)
    cross join lateral tests.details(
      format('select billing.pause_subscription(%s)', arguments)) as details
    where (details ->> 'code', details ->> 'field') is distinct from ('VALIDATION_FAILED', field)
  $$,
  'unknown behaviors and pauses that end before they begin are refused, by their field'
);
select lives_ok(
  $$ select billing.pause_subscription(resumes_at => '2026-02-10 00:00:01') $$,
  'a second is long enough'
);
select throws_ok(
  $$ select billing.pause_subscription('mark_uncollectible') $$,
  'PT403', 'this needs a billing administrator',
  'nobody gives themselves service for nothing'
);
select throws_ok(
  $$ select billing.pause_subscription('keep_as_draft', at_period_end => false) $$,
  'PT403', 'this needs a billing administrator',
  'nor on credit'
);
select tests.be_service();
select lives_ok(
  $$ select billing.pause_subscription('mark_uncollectible', null, false, md5('ann')::uuid) $$,
  'the service may'
);
select tests.be_owner();
rollback to s;

-- ---- a member: a subscription without Stripe --------------------------------

create function tests.manual() returns text
language sql security definer as $$
  select concat_ws(', ', status, to_char(current_period_start, 'MM-DD HH24:MI'),
    to_char(current_period_end, 'MM-DD HH24:MI'), 'pauses ' || to_char(pause_at, 'MM-DD HH24:MI'))
  from billing.subscriptions
  where account_id = md5('bob')::uuid;
$$;
grant execute on function tests.manual() to authenticated;

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('plus_monthly')::uuid, 1, null, 'invoiced', null, 365);
select tests.sign_in('bob');
savepoint manual;

select tests.set_time('2026-01-25 08:00');
select billing.pause_subscription(at_period_end => false);
select is(tests.manual(), 'paused, 01-15 08:00, 02-15 08:00', 'it pauses at once');
select ok(not billing.has_entitlement('premium'), 'G5: and gives what the policy of its plan says');
select tests.set_time('2026-03-25 08:00');
select tests.be_owner();
select billing_private.task_apply_scheduled_changes();
select is((select count(*) from billing.invoices), 1::bigint, 'no period begins meanwhile');
select tests.sign_in('bob');
select billing.resume_subscription();
select is(
  tests.manual(), 'active, 03-15 08:00, 04-15 08:00',
  'resumed, it has as much of its period left as when it was paused'
);
select ok(billing.has_entitlement('premium'), 'with access from that second on');
select tests.set_time('2026-04-15 08:00');
select tests.be_owner();
select billing_private.task_apply_scheduled_changes();
select is(tests.manual(), 'active, 04-15 08:00, 05-15 08:00', 'the next periods count from there');
select is((select count(*) from billing.invoices), 2::bigint, 'and are invoiced');
rollback to manual;

select billing.pause_subscription('void', '2026-03-01 00:00');
select is(
  tests.manual(), 'active, 01-15 08:00, 02-15 08:00, pauses 02-15 08:00',
  'or it pauses when its period ends'
);
select tests.be_owner();
select tests.set_time('2026-02-15 07:59:59');
select billing_private.task_apply_scheduled_changes();
select is(
  tests.manual(), 'active, 01-15 08:00, 02-15 08:00, pauses 02-15 08:00', 'not a second before'
);
select tests.set_time('2026-02-15 09:00');
select billing_private.task_apply_scheduled_changes();
select is(tests.manual(), 'paused, 01-15 08:00, 02-15 08:00', 'and not later, however late the run');
select tests.set_time('2026-03-01 02:00');
select billing_private.task_apply_scheduled_changes();
select is(
  tests.manual(), 'active, 03-01 00:00, 04-01 00:00', 'on its date it goes on, with a new period'
);
rollback to manual;

select billing.pause_subscription();
select billing.resume_subscription();
select is(tests.manual(), 'active, 01-15 08:00, 02-15 08:00', 'a pause that waits is taken back');
select is(
  tests.details($$ select billing.resume_subscription() $$) ->> 'problem', 'it is not paused',
  'once'
);
select tests.be_owner();
rollback to s;

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.pause_subscription(account_id => md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody can pause for somebody else'
);
select throws_ok(
  $$ select billing.resume_subscription(md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: nor resume'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.pause_subscription() $$,
  '42501', 'permission denied for function pause_subscription',
  'a visitor has to sign in first'
);
select throws_ok(
  $$ select billing.resume_subscription() $$,
  '42501', 'permission denied for function resume_subscription',
  'for both'
);
select tests.be_owner();
select is_empty($$ select * from tests.asked $$, 'no refusal has asked Stripe for anything');

select * from finish();
rollback;
