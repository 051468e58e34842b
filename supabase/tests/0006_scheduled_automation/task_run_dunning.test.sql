-- The task run_dunning: each stage of a policy once, on time, with what it says.
begin;
\ir ../helpers.psql
select tests.take_tasks();
\ir ../0003_business_functions/dunning.psql
select plan(35);

select tests.catalog();

create function pg_temp.answer(p_name text, p_status integer, p_response jsonb) returns text
language plpgsql as $$
begin
  update billing_private.commands
  set next_attempt_at = 'infinity'
  where coalesce(target_object_id, '') not like '%_' || p_name and status = 'pending';
  return (
    select (billing_private.complete_command(id, lease, p_status, p_response,
      null, to_char(billing_private.now() at time zone 'UTC', 'Dy, DD Mon YYYY HH24:MI:SS "GMT"'),
      0, false)).status
    from billing_private.claim_commands(1, null));
end;
$$;

-- ---- as shipped -------------------------------------------------------------

select tests.owing('ann', 'stolen_card');
select is(
  (tests.case_of('ann')).next_stage_at, '2026-02-10 01:00'::timestamptz,
  'the first reminder is due with the failure'
);
select tests.run('2026-02-10 01:00');
select tests.run('2026-02-10 01:01');
select results_eq(
  $$ select * from tests.done('ann') $$, array['02-10 01:00 notify'],
  'it is noted once, for whoever tells the customer'
);
select results_eq(
  $$ select stage, next_stage_at from tests.case_of('ann') $$,
  $$ values ('notify', '2026-02-13 01:00'::timestamptz) $$,
  'the case says where it is and what comes next'
);
select tests.run('2026-02-13 00:59:59');
select tests.run('2026-02-13 01:00');
select tests.run('2026-03-01');
select results_eq(
  $$ select * from tests.done('ann') $$,
  array['02-10 01:00 notify', '02-13 01:00 notify', '03-01 00:00 notify'],
  'each follows on its day, not before; a missed one is caught up'
);
select is_empty(
  $$ select * from tests.asked('ann') $$,
  'a stolen card is not charged, and nothing is ended that the owner has not written down'
);
select is(
  (tests.case_of('ann')).status, 'open', 'the case stays open: another card may come'
);

-- ---- what the owner may write -----------------------------------------------

insert into billing.dunning_policies (key, description, max_retries) values
  ('write_off', 'gives up', 0), ('end', 'ends', 0), ('all', 'everything at once', 0);
insert into billing.dunning_stages (policy_key, begins_after, action) values
  ('write_off', '5 days', 'mark_uncollectible'),
  ('end', '1 day', 'read_only'),
  ('end', '5 days', 'cancel'),
  ('all', '1 day', 'notify'),
  ('all', '2 days', 'suspend'),
  ('all', '3 days', 'mark_uncollectible');

update billing.plans set dunning_policy_key = 'write_off' where key = 'plus';
select tests.owing('bob');
select is((tests.case_of('bob')).status, 'open', 'a case with a stage to come is not exhausted');
select tests.run('2026-02-15 00:59:59');
select is_empty($$ select * from tests.asked('bob') $$, 'a second early nothing is written off');
select tests.run('2026-02-15 01:00');
select tests.run('2026-02-15 01:01');
select results_eq(
  $$ select * from tests.asked('bob') $$,
  array['pending POST /v1/invoices/in_bob/mark_uncollectible'],
  'writing off is asked of Stripe, once'
);
select results_eq(
  $$
    select command_id = commands.id
    from billing.dunning_events
    join billing_private.commands on commands.id = command_id
    where case_id = (tests.case_of('bob')).id
  $$,
  array[true],
  'the event names the call it led to'
);
select is((tests.case_of('bob')).status, 'exhausted', 'then nothing is left to be done');
select is(
  pg_temp.answer('bob', 200, (tests.bill('bob', 'invoice.updated', '2026-02-15 01:02',
    jsonb_build_object('status', 'uncollectible', 'status_transitions', jsonb_build_object(
      'marked_uncollectible_at', tests.seconds('2026-02-15 01:02'))))::jsonb) #> '{data,object}'),
  'succeeded', 'Stripe answers with the invoice'
);
select results_eq(
  $$ select status, closed_at from tests.case_of('bob') $$,
  $$ values ('closed', '2026-02-15 01:02'::timestamptz) $$,
  'which closes the case'
);

select tests.owing('saved');
select tests.run('2026-02-15 01:00');
select tests.hear(tests.bill('saved', 'invoice.paid', '2026-02-15 01:00:30',
  tests.paid('2026-02-15 01:00:30')));
select results_eq(
  $$ select * from tests.asked('saved') $$,
  array['canceled POST /v1/invoices/in_saved/mark_uncollectible'],
  'paid at the last moment: what nobody has told Stripe yet is taken back'
);

update billing.plans set dunning_policy_key = 'end' where key = 'plus';
select tests.owing('eve');
select tests.run('2026-02-11 01:00');
select is(
  (tests.case_of('eve')).stage || ' ' || billing.access_level('premium', md5('eve')::uuid),
  'read_only read_only',
  'a stage of access is noted when it begins, and holds by itself'
);
select tests.run('2026-02-15 01:00');
select results_eq(
  $$
    select status, method, path from billing_private.commands where target_object_id = 'in_eve'
  $$,
  $$ values ('pending', 'GET', '/v1/invoices/in_eve') $$,
  'before a subscription is ended Stripe is asked whether the invoice is still unpaid'
);
select is_empty(
  $$ select * from tests.asked('eve') where asked like '%DELETE%' $$, 'and until then it goes on'
);
select tests.run('2026-02-15 01:05');
select is(
  (select count(*) from billing_private.commands where target_object_id = 'in_eve'), 1::bigint,
  'the question is asked once'
);
select pg_temp.answer('eve', 200, (tests.bill('eve', 'invoice.updated', '2026-02-15 01:05')::jsonb)
  #> '{data,object}');
select tests.run('2026-02-15 01:06');
select results_eq(
  $$ select * from tests.asked('eve') $$, array['pending DELETE /v1/subscriptions/sub_eve'],
  'when it is, Stripe is asked to end it'
);
select tests.run('2026-02-15 01:07');
select is(
  (select count(*) from tests.asked('eve')), 1::bigint, 'once'
);

select tests.owing('lucky');
select tests.run('2026-02-15 01:00');
select pg_temp.answer('lucky', 200, (tests.bill('lucky', 'invoice.updated', '2026-02-14',
  tests.paid('2026-02-14'))::jsonb) #> '{data,object}');
select tests.run('2026-02-15 01:06');
select is_empty(
  $$ select * from tests.asked('lucky') $$,
  'whoever paid while nobody told us keeps the subscription'
);
select is((tests.case_of('lucky')).status, 'recovered', 'and the case is settled');

-- ---- several stages at once -------------------------------------------------

update billing.plans set dunning_policy_key = 'all' where key = 'plus';
select tests.owing('slept');
select tests.run('2026-02-13 01:00');
select results_eq(
  $$
    select action, planned_at
    from billing.dunning_events
    where case_id = (tests.case_of('slept')).id
    order by planned_at
  $$,
  $$
    values
      ('notify', '2026-02-11 01:00'::timestamptz), ('suspend', '2026-02-12 01:00'),
      ('mark_uncollectible', '2026-02-13 01:00')
  $$,
  'after an outage all stages that are due run in their order, each with its own day'
);

-- ---- a policy that changes on the way ---------------------------------------

select tests.owing('moved');
select tests.run('2026-02-11 01:00');
update billing.dunning_stages set begins_after = '36 hours'
where policy_key = 'all' and action = 'notify';
select tests.run('2026-02-11 13:00');
select results_eq(
  $$ select * from tests.done('moved') $$, array['02-11 01:00 notify'],
  'a stage that was run is not run again when it is moved'
);

-- ---- subscriptions without Stripe -------------------------------------------

select tests.set_time('2026-03-01');
insert into billing.dunning_policies (key, description, max_retries) values ('manual', 'ours', 0);
insert into billing.dunning_stages (policy_key, begins_after, action) values
  ('manual', '7 days', 'cancel');
update billing.plans set dunning_policy_key = 'manual' where key = 'basic';
select billing_private.ensure_account(md5('firm')::uuid);
insert into billing.subscriptions (
  id, account_id, provider, manual_kind, status, price_id, quantity, currency, started_at,
  billing_anchor, current_period_start, current_period_end, updated_at
)
values (
  md5('firm')::uuid, md5('firm')::uuid, 'manual', 'invoiced', 'active',
  md5('basic_monthly')::uuid, 1, 'usd', '2026-03-01', '2026-03-01', '2026-03-01', '2026-04-01',
  '2026-03-01'
);
insert into billing.invoices (
  id, account_id, subscription_id, number, status, currency, subtotal_minor, total_minor,
  amount_due_minor, amount_paid_minor, amount_remaining_minor, issued_at, due_at
)
values (
  md5('firm')::uuid, md5('firm')::uuid, md5('firm')::uuid, 'X-1', 'open', 'usd', 500, 500, 500, 0,
  500, '2026-03-01', '2026-03-15'
);
create function pg_temp.of_firm() returns billing.dunning_cases
language sql as $$ select * from billing.dunning_cases where invoice_id = md5('firm')::uuid; $$;

select tests.run('2026-03-14 23:59:59');
select is((pg_temp.of_firm()).id, null, 'an invoice of ours is not overdue before its day');
select tests.run('2026-03-15');
select results_eq(
  $$ select status, blocked_by from pg_temp.of_firm() $$, $$ values ('open', 'sent_invoice') $$,
  'on its day it is'
);
select tests.run('2026-03-21 23:59:59');
select is(
  (select ended_at from billing.subscriptions where id = md5('firm')::uuid), null,
  'a manual subscription goes on to the last second before its stage'
);
select tests.run('2026-03-22');
select results_eq(
  $$ select status, ended_at from billing.subscriptions where id = md5('firm')::uuid $$,
  $$ values ('canceled', '2026-03-22'::timestamptz) $$,
  'and ends with it, here, without Stripe'
);
select is((pg_temp.of_firm()).status, 'closed', 'which closes the case');
select is_empty(
  $$ select * from billing_private.commands where account_id = md5('firm')::uuid $$,
  'nothing of it is Stripe''s business'
);

-- ---- who is in the way ------------------------------------------------------

update billing.plans set dunning_policy_key = 'standard' where key = 'plus';
select is(
  (select run_every from billing_private.tasks where key = 'run_dunning'), interval '1 minute',
  'the heartbeat runs it every minute'
);
select is(tests.run('2026-03-22 00:01'), tests.run('2026-03-22 00:01'), 'twice finds as much');
select is(tests.run('2026-03-22 00:02'), 0::bigint, 'and where nothing is due, nothing');

select tests.owing('busy');
select tests.owing('quick');
select is(
  tests.run('2026-02-10 01:00'), 2::bigint, 'one run works on all that is due'
);
select tests.owing('caused');
select tests.set_time('2026-02-11 01:00');
select billing_private.run_task('run_dunning');
select results_eq(
  $$ select cause ->> 'reference' from billing_private.commands
    where target_object_id = 'in_caused' $$,
  array['run_dunning'],
  'the heartbeat''s is named'
);

select * from finish();
rollback;
