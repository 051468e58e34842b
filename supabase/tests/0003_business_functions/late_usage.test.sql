-- Usage a contract bills that is heard of after its period was invoiced: billed once, with the next.
begin;
\ir ../helpers.psql
select plan(17);

select tests.catalog();
insert into billing.features (key, name, kind) values ('api_calls', 'API calls', 'metered');
insert into billing.prices (id, key, plan_id, currency, unit_amount_minor, billing_interval,
  usage_type, is_listed)
values (md5('calls')::uuid, 'calls', md5('plus')::uuid, 'usd', 1, 'month', 'metered', false);
select tests.set_time('2026-01-31 10:00');
select billing_private.ensure_account(md5('ann')::uuid);

-- The first hundred calls of a month are free, the others cost 2.
create function pg_temp.agree(
  p_minimum bigint default null,
  p_commitment bigint default null,
  p_ends_at timestamptz default '2026-04-30 10:00',
  p_term_months integer default null
) returns void
language plpgsql as $$
begin
  perform tests.be_service();
  perform billing_admin.activate_contract((billing_admin.create_contract(
    md5('ann')::uuid, p_ends_at, 'C-1', 'signed today', 'plus_monthly', 1, null,
    '{"api_calls": 100000}',
    '{"plus_monthly": 800, "calls": {"feature": "api_calls", "tiers_mode": "graduated",
      "tiers": [{"up_to": 100, "unit_amount": 0}, {"up_to": null, "unit_amount": 2}]}}',
    p_minimum, p_commitment, 30, p_term_months, 0)).id, 'countersigned');
  perform tests.be_owner();
end;
$$;
create function pg_temp.use(p_key text, p_calls numeric, p_at timestamptz) returns void
language sql as $$
  select billing.record_usage('api_calls', p_calls, md5('ann')::uuid, p_key, p_at);
$$;
create function pg_temp.work_at(p_at timestamptz) returns void
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  for v_round in 1 .. 4 loop
    perform billing_private.task_tend_usage();
    perform billing_private.task_apply_scheduled_changes();
    perform billing_private.task_settle_contracts();
  end loop;
end;
$$;
create view pg_temp.bills as
select
  billing_reason as reason, issued_at::date as issued_on, subtotal_minor as subtotal,
  (
    select string_agg(description || ' ' || amount_minor, ', ' order by description, amount_minor)
    from billing.invoice_lines
    where invoice_id = invoices.id and description <> 'Plus'
  ) as lines
from billing.invoices
order by number;
savepoint s;

-- ---- late, and once ---------------------------------------------------------

select pg_temp.agree(), tests.set_time('2026-02-10'), pg_temp.use('a', 350, '2026-02-10'),
  pg_temp.work_at('2026-02-28 10:00');
select is(
  (select lines from pg_temp.bills limit 1 offset 1), 'API calls: 350 500', 'a period is billed when it is over'
);
select tests.set_time('2026-03-01'), pg_temp.use('b', 50, '2026-02-20');
select pg_temp.work_at('2026-03-04'), pg_temp.use('c', 10, '2026-02-21');
select is(
  (select used || ' + ' || (select sum(quantity) from billing.usage_adjustments)
    from billing.usage_totals where period_start = '2026-01-31 10:00'),
  '400 + 10', 'some usage is heard of before the period is closed, some after'
);
select pg_temp.work_at('2026-03-31 10:00');
select is(
  (select lines from pg_temp.bills limit 1 offset 2),
  'API calls: +60 of 2026-01-31 to 2026-02-28 120, API calls: 0 0',
  'both are billed with the next invoice, at the tier they fall into, under the name of their period'
);
select results_eq(
  $$
    select period_start, period_end
    from billing.invoice_lines
    where description like 'API calls: +60%'
  $$,
  $$ values ('2026-01-31 10:00+00'::timestamptz, '2026-02-28 10:00+00'::timestamptz) $$,
  'which the line carries'
);
select is(
  (select lines from pg_temp.bills limit 1 offset 1), 'API calls: 350 500', 'the old invoice stays as it is'
);
select billing_private.apply_correction(md5('ann')::uuid, 'a', 340, 'counted twice');
select pg_temp.work_at('2026-04-30 10:00');
select is(
  (select lines from pg_temp.bills limit 1 offset 3),
  'API calls: -10 of 2026-01-31 to 2026-02-28 -20, API calls: 0 0',
  'what was too much is given back, once: with the last invoice, too'
);
select is(
  (select sum(subtotal) from pg_temp.bills), 3 * 800 + 600::numeric,
  'all in all what was used is billed'
);
rollback to s;

select pg_temp.agree(p_ends_at => '2026-07-30 10:00', p_term_months => 3), pg_temp.work_at('2026-02-28 10:00'),
  pg_temp.use('a', 50, '2026-02-20'), pg_temp.work_at('2026-06-15');
select is(
  (select string_agg(lines, '; ' order by issued_on) from pg_temp.bills where lines like '%of 2026%'),
  'API calls: +50 of 2026-01-31 to 2026-02-28 0, API calls: 0 0',
  'what costs nothing is told, and told once'
);
rollback to s;

select pg_temp.agree(), pg_temp.work_at('2026-04-30 10:00');
select is_empty(
  $$ select * from billing_admin.critical_issues where issue = 'unbilled_usage' $$,
  'when the last invoice is written nothing is left to bill'
);
select pg_temp.use('a', 200, '2026-04-20');
update billing.subscriptions set ended_at = '2026-04-30 10:00', status = 'canceled'
where account_id = md5('ann')::uuid;
select results_eq(
  $$
    select details ->> 'feature', details ->> 'billed', details ->> 'used'
    from billing_admin.critical_issues
    where issue = 'unbilled_usage'
  $$,
  $$ values ('api_calls', '0', '200') $$,
  'what is heard of after that is shown to admins'
);
rollback to s;

-- ---- a minimum --------------------------------------------------------------

select pg_temp.agree(p_minimum => 1000), pg_temp.work_at('2026-02-28 10:00');
select is(
  (select lines from pg_temp.bills limit 1 offset 1),
  'API calls: 0 0, Up to the minimum of contract C-1 200', 'an invoice was brought up to the minimum'
);
select pg_temp.use('a', 200, '2026-02-20'), pg_temp.work_at('2026-03-31 10:00');
select is(
  (select lines from pg_temp.bills limit 1 offset 2),
  'API calls: +200 of 2026-01-31 to 2026-02-28 200, API calls: 0 0, '
    'Up to the minimum of contract C-1 200, Within the minimum of contract C-1 -200',
  'what that covered is not charged again, and fills no other period''s minimum'
);
select pg_temp.use('b', 50, '2026-02-20'), pg_temp.work_at('2026-04-30 10:00');
select is(
  (select lines from pg_temp.bills limit 1 offset 3),
  'API calls: +50 of 2026-01-31 to 2026-02-28 100, API calls: 0 0', 'what goes beyond it is'
);
rollback to s;

select pg_temp.agree(p_minimum => 1000), pg_temp.use('a', 300, '2026-01-31 10:00'),
  pg_temp.work_at('2026-02-28 10:00'),
  billing_private.apply_correction(md5('ann')::uuid, 'a', 0, 'not theirs'),
  pg_temp.work_at('2026-03-31 10:00');
select is(
  (select lines from pg_temp.bills limit 1 offset 2),
  'API calls: -300 of 2026-01-31 to 2026-02-28 -400, API calls: 0 0, '
    'Up to the minimum of contract C-1 200, Within the minimum of contract C-1 200',
  'nothing is given back below it'
);
rollback to s;

-- ---- a commitment -----------------------------------------------------------

select pg_temp.agree(p_commitment => 3000, p_term_months => 3), pg_temp.work_at('2026-04-30 10:00');
select is(
  (select shortfall_minor from billing.contract_settlements), 600::bigint,
  'what was missing of the commitment was billed'
);
select pg_temp.use('a', 200, '2026-04-20'), pg_temp.work_at('2026-05-31 10:00');
select is(
  (select lines from pg_temp.bills where issued_on = '2026-05-31'),
  'API calls: +200 of 2026-03-31 to 2026-04-30 200, API calls: 0 0, '
    'Within the commitment of contract C-1 -200',
  'late usage draws on that first'
);
select pg_temp.use('b', 300, '2026-05-01'), pg_temp.use('c', 250, '2026-04-20'), pg_temp.work_at('2026-06-30 10:00');
select results_eq(
  $$
    select description, amount_minor
    from billing.invoice_lines
    where description ~ '\+250' or description ~ 'Within' and amount_minor <> -200
    order by amount_minor
  $$,
  $$ values
    ('Within the commitment of contract C-1', -400::bigint),
    ('API calls: +250 of 2026-03-31 to 2026-04-30', 500) $$,
  'until it is used up'
);

select * from finish();
rollback;
