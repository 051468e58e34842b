-- billing_admin.money_invariants: each rule about amounts, kept and broken.
begin;
\ir ../helpers.psql
select tests.take_tasks();
select plan(34);

select tests.catalog();
select tests.set_time('2026-03-01');
select tests.account('ann');
select tests.account('bob');

create function pg_temp.found() returns setof text
language sql as $$
  select format('%s %s %s/%s', rule, object_id, expected, found)
  from billing_admin.money_invariants
  order by rule, object_id;
$$;

-- Each snapshot is a second newer than the last.
create temporary sequence seconds;
create function pg_temp.bill(
  p_id text, p_status text, p_extra jsonb default '{}', p_lines jsonb default null,
  p_name text default 'ann'
) returns text
language sql as $$
  select tests.deliver(
    format('evt_%s_%s', p_id, nextval('seconds')), 'invoice.updated',
    '2026-02-10'::timestamptz + currval('seconds') * interval '1 second',
    jsonb_build_object(
      'id', p_id, 'object', 'invoice', 'status', p_status, 'customer', 'cus_' || p_name,
      'currency', 'usd', 'subtotal', 1000, 'total', 1000, 'amount_due', 1000,
      'amount_paid', case p_status when 'paid' then 1000 else 0 end,
      'amount_remaining', case p_status when 'paid' then 0 else 1000 end,
      'status_transitions', jsonb_build_object('paid_at', case p_status when 'paid'
        then extract(epoch from timestamptz '2026-02-10')::bigint end),
      'lines', jsonb_build_object('data', coalesce(p_lines, jsonb_build_array(
        jsonb_build_object('id', 'il_' || p_id, 'amount', 1000))))) || p_extra);
$$;

create function pg_temp.line(
  p_id text, p_amount bigint, p_item text default 'si_ann', p_extra jsonb default '{}'
) returns jsonb
language sql as $$
  select jsonb_build_array(jsonb_build_object(
    'id', p_id, 'amount', p_amount, 'period', '{"start": 1770681600, "end": 1773100800}'::jsonb,
    'parent', jsonb_build_object('subscription_item_details', jsonb_build_object(
      'subscription_item', p_item, 'proration', false))) || p_extra);
$$;

create function pg_temp.payment(
  p_id text, p_invoice text, p_received bigint, p_refunded bigint default 0
) returns void
language sql as $$
  insert into billing.payments (
    account_id, stripe_payment_key, status, amount_minor, amount_received_minor,
    amount_refunded_minor, currency, stripe_invoice_id
  )
  values (
    md5('ann')::uuid, p_id, 'succeeded', p_received, p_received, p_refunded, 'usd', p_invoice
  );
$$;

-- ---- the owner: what adds up ------------------------------------------------

select is_empty($$ select * from pg_temp.found() $$, 'where there is nothing, it adds up');

select pg_temp.bill('in_open', 'open');
select pg_temp.bill('in_paid', 'paid');
select pg_temp.bill('in_off', 'uncollectible');
select pg_temp.bill('in_part', 'open', '{"amount_paid": 300, "amount_remaining": 700}');
select is_empty($$ select * from pg_temp.found() $$, 'open, paid, written off, paid in part');

select pg_temp.bill('in_credit', 'paid',
  '{"amount_due": 400, "amount_paid": 400}');
select pg_temp.bill('in_over', 'paid', '{"amount_paid": 1500}');
select pg_temp.bill('in_zero', 'paid', '{"amount_due": 0, "amount_paid": 0}');
select is_empty(
  $$ select * from pg_temp.found() $$,
  'G23: paid with credit, overpaid, and free of charge are in order too'
);

select pg_temp.bill('in_draft', 'draft', '{"amount_remaining": 5}');
select pg_temp.bill('in_void', 'void', '{"amount_remaining": 5}');
select is_empty(
  $$ select * from pg_temp.found() $$, 'drafts and voided invoices are nobody''s money'
);

-- ---- each rule --------------------------------------------------------------

select pg_temp.bill('in_lines', 'open', '{}', pg_temp.line('il_1', 400) || pg_temp.line('il_2', 599));
select results_eq(
  $$ select * from pg_temp.found() $$, array['lines_make_subtotal in_lines 1000/999'],
  'lines make the subtotal'
);
select pg_temp.bill('in_lines', 'open', '{"number": "2"}',
  pg_temp.line('il_1', 400) || pg_temp.line('il_2', 599)
    || pg_temp.line('il_3', -9) || pg_temp.line('il_4', 10));
select is_empty($$ select * from pg_temp.found() $$, 'also with amounts below zero among them');

select pg_temp.bill('in_due', 'open', '{"amount_paid": 1}');
select results_eq(
  $$ select * from pg_temp.found() $$, array['due_is_paid_and_remaining in_due 1000/1001'],
  'what is due is paid or remains'
);
select pg_temp.bill('in_due', 'open', '{"amount_paid": 1, "amount_remaining": 999}');
select is_empty($$ select * from pg_temp.found() $$, 'and once that is told, all is well');

select pg_temp.bill('in_left', 'paid', '{"amount_remaining": 1}');
select results_eq(
  $$ select * from pg_temp.found() $$, array['paid_leaves_nothing in_left 0/1'],
  'of what is paid nothing remains'
);
delete from billing.invoice_lines
where invoice_id = (select id from billing.invoices where stripe_invoice_id = 'in_left');
delete from billing.invoices where stripe_invoice_id = 'in_left';

select pg_temp.bill('in_undated', 'paid', '{"status_transitions": {}}');
select results_eq(
  $$ select * from pg_temp.found() $$, array['paid_has_a_date in_undated /'],
  'what is paid was paid at some time'
);
select pg_temp.bill('in_undated', 'paid', '{"number": "3"}');

select pg_temp.payment('pi_1', null, 1000, 1000);
select is_empty($$ select * from pg_temp.found() $$, 'all of a payment may be refunded');
insert into billing.refunds (stripe_payment_key, status, amount_minor, currency, stripe_refund_id)
values ('pi_1', 'succeeded', 600, 'usd', 're_1'), ('pi_1', 'pending', 401, 'usd', 're_2');
select results_eq(
  $$ select * from pg_temp.found() $$, array['refunds_within_payment pi_1 1000/1001'],
  'but no more than was paid'
);
update billing.refunds set status = 'failed' where stripe_refund_id = 're_2';
select is_empty($$ select * from pg_temp.found() $$, 'a refund that failed gave nothing back');

select pg_temp.payment('pi_2', 'in_paid', 1000);
select is_empty($$ select * from pg_temp.found() $$, 'an invoice is charged');
select pg_temp.payment('pi_3', 'in_paid', 1000);
select results_eq(
  $$ select * from pg_temp.found() $$, array['charged_once in_paid 1000/2000'],
  'G16: once: a second charge is seen'
);
update billing.payments set status = 'canceled' where stripe_payment_key = 'pi_3';
select is_empty($$ select * from pg_temp.found() $$, 'a payment that was given up is none');

-- ---- a period is billed once ------------------------------------------------

select pg_temp.bill('in_feb', 'paid', '{}', pg_temp.line('il_a', 1000));
select is_empty($$ select * from pg_temp.found() $$, 'a period is billed');
select pg_temp.bill('in_feb_again', 'paid', '{}', pg_temp.line('il_b', 1000));
select results_eq(
  $$ select * from pg_temp.found() $$,
  array['period_billed_once si_ann 2026-02-10 00:00:00+00 1/2'],
  'once: a second invoice for the same item and period is seen'
);
select pg_temp.bill('in_feb_again', 'paid', '{"billing_reason": "subscription_threshold"}',
  pg_temp.line('il_b', 1000));
select is_empty($$ select * from pg_temp.found() $$, 'usage that is billed within the period is not');
select pg_temp.bill('in_feb_again', 'paid', '{"number": "5"}', pg_temp.line('il_b', 1000, 'si_ann',
  '{"parent": {"subscription_item_details": {"subscription_item": "si_ann", "proration": true}}}'));
select is_empty($$ select * from pg_temp.found() $$, 'nor is a proration');
select pg_temp.bill('in_feb_again', 'paid', '{"number": "6"}',
  pg_temp.line('il_b', 1000, 'si_other'));
select is_empty($$ select * from pg_temp.found() $$, 'nor another item');
select pg_temp.bill('in_tiers', 'paid', '{}',
  pg_temp.line('il_c', 400, 'si_tiers') || pg_temp.line('il_d', 600, 'si_tiers'));
select is_empty(
  $$ select * from pg_temp.found() $$, 'nor two tiers of one invoice'
);
select pg_temp.bill('in_feb_open', 'open', '{}', pg_temp.line('il_e', 1000));
select is_empty($$ select * from pg_temp.found() $$, 'nor what nobody has paid');
select pg_temp.bill('in_feb_bob', 'paid', '{}', pg_temp.line('il_f', 1000, 'si_bob'), 'bob');
select is_empty($$ select * from pg_temp.found() $$, 'nor another account''s');

-- ---- the task ---------------------------------------------------------------

select pg_temp.bill('in_feb_again', 'paid', '{"number": "7"}', pg_temp.line('il_b', 1000));
select is(billing_private.task_check_money(), 1::bigint, 'the task finds what the view shows');
select is(billing_private.task_check_money(), 1::bigint, 'twice the same');
select results_eq(
  $$ select rule, account_id, found_at from billing_private.money_violations $$,
  $$ values ('period_billed_once', md5('ann')::uuid, '2026-03-01'::timestamptz) $$,
  'and notes it once'
);
select is(
  (select status from billing_private.health() where check_key = 'money'), 'unhealthy',
  'the health check reads what was noted'
);
select results_eq(
  $$
    select severity, subject, account_id
    from billing_admin.critical_issues
    where issue = 'money_violation'
  $$,
  $$
    values ('critical', 'si_ann 2026-02-10 00:00:00+00', md5('ann')::uuid)
  $$,
  'so does the list of issues'
);
update billing.invoices set status = 'void' where stripe_invoice_id = 'in_feb_again';
select is(billing_private.task_check_money(), 0::bigint, 'what adds up again');
select is_empty($$ select * from billing_private.money_violations $$, 'is forgotten');
select is(
  (select status from billing_private.health() where check_key = 'money'), 'healthy',
  'and the system is well'
);

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  'select * from billing_admin.money_invariants', 'PT403', 'this needs a billing administrator',
  'a member may not look'
);
select throws_ok(
  'select * from billing_admin.overdue_invoices', 'PT403', 'this needs a billing administrator',
  'nor at what others owe'
);

select * from finish();
rollback;
