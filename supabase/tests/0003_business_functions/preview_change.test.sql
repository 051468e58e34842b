-- billing.preview_change(): what a change would cost; Stripe's own amounts are asked for, not made up.
begin;
\ir ../helpers.psql
select plan(19);

select tests.catalog();
select tests.set_time('2026-01-25 12:00:00.7');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);
select tests.subscribe('ann');

create view tests.asked as
select kind, method, path, params, subject_id, id
from billing_private.commands
order by position;

savepoint s;

-- ---- a member: at once ------------------------------------------------------

select tests.sign_in('ann');
create temporary table preview as select * from billing.preview_change('plus_yearly');
select results_eq(
  $$
    select provider, price_key, quantity, at_period_end, effective_at, proration_date, currency,
      lines, total_minor
    from preview
  $$,
  $$
    values ('stripe', 'plus_yearly', 1::bigint, false, '2026-01-25 12:00+00'::timestamptz,
      '2026-01-25 12:00+00'::timestamptz, 'usd', null::billing.preview_line[], null::bigint)
  $$,
  'a member is told when a change would take effect; what it costs is Stripe''s to say'
);
select tests.be_owner();
select results_eq(
  $$ select kind, method, path, params, subject_id from tests.asked $$,
  $$
    select 'preview_change', 'POST', '/v1/invoices/create_preview', '{
      "subscription": "sub_ann",
      "subscription_details": {
        "items": [{"id": "si_ann", "price": "price_plus_yearly", "quantity": 1}],
        "proration_behavior": "always_invoice", "proration_date": 1769342400}}'::jsonb,
      subject_id
    from preview
  $$,
  'Stripe is asked about the very change it would be asked to make'
);
select is((select id from tests.asked), (select subject_id from preview),
  'and the member''s own function fetches the answer');
select is_empty($$ select * from billing.claim_commands() $$, 'nobody else does');
select tests.sign_in('ann');
select billing.change_plan('plus_yearly', proration_date => (select proration_date from preview));
select tests.be_owner();
select is(
  (select array_agg(params -> 'proration_date') from tests.asked where kind = 'change_plan'),
  array['1769342400'::jsonb],
  'the change itself is made as of the same second'
);
select is((select count(*) from billing.claim_commands()), 1::bigint,
  'a preview nobody fetches holds up no change');
rollback to s;

select tests.sign_in('ann');
select billing.preview_change(null, quantity => 4);
select tests.be_owner();
select is(
  (select params #> '{subscription_details,items}' from tests.asked),
  '[{"id": "si_ann", "price": "price_plus_monthly", "quantity": 4}]',
  'D21, D22: of seats as well, by item, and of no other item'
);
rollback to s;

-- ---- a member: at period end ------------------------------------------------

select tests.sign_in('ann');
select results_eq(
  $$ select at_period_end, effective_at, proration_date
    from billing.preview_change('basic_monthly') $$,
  $$ values (true, '2026-02-10 00:00+00'::timestamptz, null::timestamptz) $$,
  'what waits for the period''s end takes nothing now'
);
select tests.be_owner();
select is(
  (select params from tests.asked),
  '{"subscription": "sub_ann", "preview_mode": "recurring", "subscription_details": {
    "items": [{"id": "si_ann", "price": "price_basic_monthly", "quantity": 1}],
    "proration_behavior": "none"}}',
  'Stripe is asked what a period costs from then on'
);
rollback to s;

-- ---- a member: nothing to ask -----------------------------------------------

select tests.sign_in('ann');
select billing.change_plan('basic_monthly');
select results_eq(
  $$ select subject_id, lines, total_minor, due_now_minor, credit_minor
    from billing.preview_change('plus_monthly') $$,
  $$ values (null::uuid, '{}'::billing.preview_line[], 0::bigint, 0::bigint, 0::bigint) $$,
  'taking back a change that waits costs nothing'
);
select tests.be_owner();
rollback to s;

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.preview_change('plus_monthly') $$,
  'PT422', 'the subscription is already on this price',
  'what cannot be changed has no preview either'
);
select throws_ok(
  $$ select billing.preview_change('gold') $$,
  'PT404', 'there is no such price on offer',
  'nor has what nobody offers'
);
select tests.be_owner();
update billing.subscriptions set status = 'past_due';
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.preview_change('plus_yearly') $$,
  'PT402', 'an unpaid invoice has to be settled first',
  'who owes is sent to pay'
);
select tests.be_owner();
select is_empty($$ select * from tests.asked $$, 'no refusal has asked Stripe anything');
rollback to s;

-- ---- a member: without Stripe -----------------------------------------------

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('plus_monthly')::uuid, 1, null);
update billing.subscriptions
set manual_kind = 'invoiced',
    current_period_start = '2026-01-10',
    current_period_end = '2026-02-09',
    billing_anchor = '2026-01-10'
where account_id = md5('bob')::uuid;
select tests.set_time('2026-01-25');
select tests.sign_in('bob');
select results_eq(
  $$
    select amount_minor, is_proration, total_minor, due_now_minor, credit_minor, subject_id
    from billing.preview_change('basic_monthly', false)
    cross join lateral unnest(lines)
  $$,
  $$
    values (-500::bigint, true, -250::bigint, 0::bigint, 250::bigint, null::uuid),
      (250::bigint, true, -250::bigint, 0::bigint, 250::bigint, null)
  $$,
  'G11: what is given back for half a period is kept as credit, and not paid out'
);
select results_eq(
  $$
    select amount_minor, due_now_minor, period_start, is_proration
    from billing.preview_change('basic_monthly')
    cross join lateral unnest(lines)
  $$,
  $$ values (500::bigint, 0::bigint, '2026-02-09 00:00+00'::timestamptz, false) $$,
  'at period end it costs what the new period costs, then'
);
select tests.be_owner();
select is_empty($$ select * from tests.asked $$, 'Stripe has no part in it');

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.preview_change('plus_yearly', account_id => md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody sees what somebody else would pay'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.preview_change('plus_yearly') $$,
  '42501', 'permission denied for function preview_change',
  'a visitor has to sign in first'
);

select tests.be_owner();
select * from finish();
rollback;
