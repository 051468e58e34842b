-- Contracts: drafted, put in force, amended, ended; what they give, what they bill.
begin;
\ir ../helpers.psql
select plan(77);

select tests.catalog();
insert into billing.features (key, name, kind) values ('api_calls', 'API calls', 'metered');
insert into billing.prices (id, key, plan_id, currency, unit_amount_minor, billing_interval,
  usage_type, is_listed)
values (md5('calls')::uuid, 'calls', md5('plus')::uuid, 'usd', 1, 'month', 'metered', false),
  (md5('calls_eur')::uuid, 'calls_eur', md5('plus')::uuid, 'eur', 1, 'month', 'metered', false);
select tests.set_time('2026-01-31 10:00');
select billing_private.ensure_account(md5(name)::uuid) from unnest('{ann,bob}'::text[]) as name;
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'first');

create function tests.draft(
  p_name text default 'ann',
  p_price text default 'plus_monthly',
  p_starts_at timestamptz default null,
  p_ends_at timestamptz default '2026-04-30 10:00',
  p_features text default '{"clubs": 50, "hosting": true}',
  p_prices text default '{"plus_monthly": 800}',
  p_minimum bigint default null,
  p_commitment bigint default null,
  p_term_months integer default null,
  p_notice_days integer default 0,
  p_quantity bigint default 1
) returns uuid
language plpgsql as $$
declare
  v_role text := current_setting('role');
  v_id uuid;
begin
  perform tests.sign_in('ada');
  v_id := (billing_admin.create_contract(
    md5(p_name)::uuid, p_ends_at, 'drive/C-1.pdf', 'signed today', p_price, p_quantity,
    p_starts_at, p_features::jsonb, p_prices::jsonb, p_minimum, p_commitment, 30, p_term_months,
    p_notice_days)).id;
  return v_id;
end;
$$;

create function tests.agree(
  p_name text default 'ann',
  p_price text default 'plus_monthly',
  p_starts_at timestamptz default null,
  p_ends_at timestamptz default '2026-04-30 10:00',
  p_features text default '{"clubs": 50, "hosting": true}',
  p_prices text default '{"plus_monthly": 800}',
  p_minimum bigint default null,
  p_commitment bigint default null,
  p_term_months integer default null,
  p_notice_days integer default 0,
  p_quantity bigint default 1
) returns text
language plpgsql as $$
declare
  v_id uuid := tests.draft(p_name, p_price, p_starts_at, p_ends_at, p_features, p_prices,
    p_minimum, p_commitment, p_term_months, p_notice_days, p_quantity);
  v_status text := (billing_admin.activate_contract(v_id, 'countersigned')).status;
begin
  perform tests.be_owner();
  return v_status;
end;
$$;

create function tests.the_contract(p_status text default 'active') returns uuid
language sql security definer as $$
  select id from billing.contracts where status = p_status;
$$;
create function tests.clubs(p_at timestamptz default null) returns text
language sql security definer as $$
  select string_agg(
    format('%s %s', source_kind, coalesce(limit_value::text, 'unlimited')), ', '
    order by source_kind)
  from billing.explain_entitlement('clubs', md5('ann')::uuid, p_at)
  where gives_access;
$$;
create view tests.bills as
select
  billing_reason as reason, issued_at, subtotal_minor as subtotal,
  (select string_agg(description || ' ' || amount_minor, ', ' order by amount_minor desc)
    from billing.invoice_lines where invoice_id = invoices.id) as lines
from billing.invoices
order by number;
create function tests.work_at(p_at timestamptz) returns void
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  for v_round in 1 .. 4 loop
    perform billing_private.task_apply_scheduled_changes();
    perform billing_private.task_settle_contracts();
  end loop;
end;
$$;
grant execute on all functions in schema tests to anon, authenticated, service_role;
grant usage on schema billing_private to authenticated;
savepoint s;

-- ---- an admin: drafts -------------------------------------------------------

select tests.sign_in('ada');
select isnt(tests.draft(), null, 'a contract is drafted');
select is((select count(*) from billing_admin.contracts where status = 'draft'), 1::bigint,
  'and waits to be signed');
select is(tests.clubs(), null, 'a draft gives nothing');
select throws_ok(
  $$ select billing_admin.activate_contract(tests.the_contract('draft'), '') $$,
  'PT400', 'the request is not valid', 'whoever activates it says why'
);
select throws_ok(
  $$ select billing_admin.activate_contract(md5('none')::uuid, 'signed') $$,
  'PT404', 'there is no such contract', 'there has to be one'
);
select throws_ok(
  format('select tests.draft(%s)', arguments),
  code, null, format('a contract cannot be with %s', arguments)
)
from (values
  ('p_ends_at => ''2026-01-31 10:00''', 'PT400'),
  ('p_starts_at => ''2028-01-01''', 'PT400'),
  ('p_quantity => 0', 'PT400'),
  ('p_minimum => -1', 'PT400'),
  ('p_price => null, p_prices => ''{}'', p_commitment => 5', 'PT400'),
  ('p_term_months => 0', 'PT400'),
  ('p_price => ''no_such_price''', 'PT404'),
  ('p_features => ''{"no_such_feature": 5}''', 'PT404'),
  ('p_features => ''{"clubs": -5}''', 'PT400'),
  ('p_prices => ''{"plus_monthly": -5}''', 'PT400'),
  ('p_prices => ''{"plus_yearly": 5}''', 'PT400'),
  ('p_prices => ''{"calls": 5}''', 'PT400'),
  ('p_prices => ''{"calls_eur": {"feature": "clubs", "unit_amount_minor": 5}}''', 'PT400'),
  ('p_prices => ''{"calls": {"feature": "nothing", "unit_amount_minor": 5}}''', 'PT404'),
  ('p_prices => ''{"plus_monthly": {"tiers": [{"up_to": 9}], "tiers_mode": "volume"}}''', 'PT400'),
  ('p_prices => ''{"plus_monthly": {"tiers": [{"up_to": null, "unit_amount": 5}]}}''', 'PT400')
) as impossible (arguments, code);
rollback to s;

-- ---- in force ---------------------------------------------------------------

select is(tests.agree(), 'active', 'a contract comes into force');
select is(tests.clubs(), 'contract 50, subscription_item 50',
  'its limit takes the place of the plan''s, which is 10');
select is(tests.clubs('2026-04-30 09:59:59'), 'contract 50, subscription_item 50', 'to its end');
select is(tests.clubs('2026-04-30 10:00'), null, 'and not beyond it');
select results_eq(
  $$ select reason, issued_at, subtotal, lines from tests.bills $$,
  $$ values ('subscription_cycle', '2026-01-31 10:00+00'::timestamptz, 800::bigint, 'Plus 800') $$,
  'it is billed at its own price'
);
select tests.work_at('2026-03-15');
select results_eq(
  $$ select issued_at, subtotal from tests.bills $$,
  $$ values ('2026-01-31 10:00+00'::timestamptz, 800::bigint), ('2026-02-28 10:00+00', 800) $$,
  'period by period'
);
select tests.work_at('2026-05-15');
select results_eq(
  $$ select contracts.status, subscriptions.status, subscriptions.ended_at::date
    from billing.contracts
    join billing.subscriptions on subscriptions.id = contracts.subscription_id $$,
  $$ values ('ended', 'canceled', '2026-04-30'::date) $$,
  'and ends with its term, as does what bills it'
);
rollback to s;

-- Less than the plan, and a gift beside it.
select tests.agree(p_features => '{"clubs": 2}');
select is(tests.clubs(), 'contract 2, subscription_item 2', 'what was agreed may be less');
select tests.sign_in('ann');
select is(billing.entitlement_limit('clubs'), 2::bigint, 'then less is what there is');
select tests.sign_in('ada');
select billing_admin.grant_entitlement(
  md5('ann')::uuid, 'clubs', 'a good customer', limit_value => 7);
select tests.sign_in('ann');
select is(billing.entitlement_limit('clubs'), 7::bigint, 'a gift is given beside it');
select ok(billing.has_entitlement('premium'), 'what it does not name is the plan''s');
select is((select reference from billing.contracts), 'drive/C-1.pdf', 'its member reads it');
select is((select unit_amount_minor from billing.contract_prices), 800::bigint, 'and its prices');
select throws_ok(
  $$ select billing.cancel_subscription() $$,
  'PT409', 'a contract binds this', 'whoever is bound does not cancel by a click'
);
select throws_ok(
  $$ select billing.change_plan('basic_monthly') $$,
  'PT409', 'a contract binds this', 'nor take less'
);
select throws_ok(
  $$ select * from billing_admin.contracts $$,
  'PT403', 'this needs a billing administrator', 'other people''s are for administrators'
);
select throws_ok(
  $$ select billing_admin.end_contract(tests.the_contract(), 'I want out') $$,
  'PT403', 'this needs a billing administrator', 'and ending it, too'
);
rollback to s;

-- ---- one at a time ----------------------------------------------------------

select tests.agree(p_price => null, p_prices => '{}');
select is(tests.clubs(), 'contract 50', 'a contract need not be billed here');
select is((select count(*) from billing.subscriptions), 0::bigint, 'then nothing is');
select tests.draft(p_price => null, p_prices => '{}', p_starts_at => '2026-04-30 09:59:59',
  p_ends_at => '2027-01-01');
select throws_ok(
  $$ select billing_admin.activate_contract(tests.the_contract('draft'), 'signed') $$,
  'PT409', 'a contract binds this', 'none overlaps another, not by a second'
);
rollback to s;
select tests.agree(p_price => null, p_prices => '{}');
select is(
  tests.agree(p_price => null, p_prices => '{}', p_starts_at => '2026-04-30 10:00',
    p_ends_at => '2027-01-01', p_features => '{"clubs": 60}'),
  'active', 'one may follow at the instant the other ends'
);
select is(tests.clubs('2026-04-30 09:59:59'), 'contract 50', 'until then the first counts');
select is(tests.clubs('2026-04-30 10:00'), 'contract 60', 'from then on the second');
rollback to s;

-- ---- tiers, minimum, usage --------------------------------------------------

select tests.agree(p_quantity => 12, p_prices =>
  '{"plus_monthly": {"tiers_mode": "volume", "tiers": [
    {"up_to": 10, "unit_amount": 900}, {"up_to": null, "unit_amount": 700}]}}');
select is((select subtotal from tests.bills), 8400::bigint,
  'volume tiers: all twelve cost what the twelfth does');
rollback to s;

select tests.agree(p_minimum => 2000);
select is((select lines from tests.bills),
  'Up to the minimum of contract drive/C-1.pdf 1200, Plus 800',
  'a period''s invoice is brought up to the minimum');
rollback to s;
select tests.agree(p_minimum => 800);
select is((select lines from tests.bills), 'Plus 800', 'and left alone where it comes to that');
rollback to s;

select tests.agree(
  p_features => '{"api_calls": 100000}', p_minimum => 1000,
  p_prices => '{"plus_monthly": 800, "calls": {"feature": "api_calls", "tiers_mode": "graduated",
    "tiers": [{"up_to": 100, "unit_amount": 0}, {"up_to": null, "unit_amount": 2}]}}');
insert into billing.usage_totals (account_id, feature_key, period_start, period_end, used)
values
  (md5('ann')::uuid, 'api_calls', '2026-01-31 10:00', '2026-02-28 10:00', 350),
  (md5('ann')::uuid, 'api_calls', '2026-03-31 10:00', '2026-04-30 10:00', 1000);
select is(
  (select period_start from billing_private.usage_terms(md5('ann')::uuid, 'api_calls',
    '2026-03-05')),
  '2026-02-28 10:00+00'::timestamptz, 'usage is counted in the contract''s own periods');
select tests.work_at('2026-05-15');
select results_eq(
  $$ select reason, lines from tests.bills $$,
  $$ values
    ('subscription_cycle', 'Plus 800, Up to the minimum of contract drive/C-1.pdf 200'),
    ('subscription_cycle', 'Plus 800, API calls: 350 500'),
    ('subscription_cycle',
      'Plus 800, Up to the minimum of contract drive/C-1.pdf 200, API calls: 0 0'),
    ('contract_settlement', 'API calls: 1000 1800') $$,
  'usage is billed by its tiers after each period, the last one when the contract ends'
);
rollback to s;

-- ---- commitments ------------------------------------------------------------

select tests.agree(p_commitment => 3000, p_term_months => 3, p_notice_days => 30);
select tests.sign_in('ada');
select results_eq(
  $$ select charged_minor, commitment_left_minor, notice_until from billing_admin.contracts $$,
  $$ values (800::bigint, 2200::bigint, '2026-03-31 10:00+00'::timestamptz) $$,
  'what is drawn of a commitment is seen'
);
select tests.be_owner();
select is(tests.clubs('2030-01-01'), 'contract 50, subscription_item 50',
  'one that renews gives without an end');
select tests.work_at('2026-05-15');
select results_eq(
  $$ select reason, subtotal, issued_at from tests.bills where issued_at > '2026-04-01' $$,
  $$ values ('subscription_cycle', 800::bigint, '2026-04-30 10:00+00'::timestamptz),
    ('contract_settlement', 600, '2026-04-30 10:00+00') $$,
  'what is missing of it is billed when the term ends'
);
select results_eq(
  $$ select committed_minor, charged_minor, shortfall_minor, invoice_id is not null
    from billing.contract_settlements $$,
  $$ values (3000::bigint, 2400::bigint, 600::bigint, true) $$,
  'and noted'
);
select results_eq(
  $$ select status, term_starts_at, ends_at from billing.contracts $$,
  $$ values ('active', '2026-04-30 10:00+00'::timestamptz, '2026-07-30 10:00+00'::timestamptz) $$,
  'the next term has begun'
);
select tests.work_at('2026-08-15');
select is((select count(*) from billing.contract_settlements), 2::bigint, 'each term once');

select tests.sign_in('ada');
select tests.set_time('2026-10-15');
select throws_ok(
  $$ select billing_admin.end_contract(tests.the_contract(), 'they leave') $$,
  'PT400', 'the request is not valid', 'notice comes in time, or an end is named'
);
select tests.set_time('2026-09-15');
select is(
  (billing_admin.end_contract(tests.the_contract(), 'they leave')).in_force_until,
  '2026-10-30 10:00+00'::timestamptz, 'in time it ends with its term'
);
select is(
  (billing_admin.end_contract(tests.the_contract(), 'twice')).in_force_until,
  '2026-10-30 10:00+00'::timestamptz, 'twice changes nothing more'
);
select tests.be_owner();
select tests.work_at('2026-11-15');
select results_eq(
  $$ select status, (select count(*) from billing.contract_settlements) from billing.contracts $$,
  $$ values ('ended', 3::bigint) $$,
  'and the last term is settled, too'
);
rollback to s;

select tests.agree(p_commitment => 3000);
select tests.set_time('2026-02-10');
select tests.sign_in('ada');
select is(
  (billing_admin.end_contract(
    tests.the_contract(), 'bankrupt', '2026-02-10', waives_commitment => true)).status,
  'ended', 'an admin ends it at once'
);
select tests.be_owner();
select results_eq(
  $$ select shortfall_minor, is_waived, invoice_id from billing.contract_settlements $$,
  $$ values (2200::bigint, true, null::uuid) $$,
  'and lets them off what is missing'
);
select is(tests.clubs(), null, 'what it gave is gone');
rollback to s;

-- ---- amendments -------------------------------------------------------------

select tests.agree(p_quantity => 2);
select tests.set_time('2026-02-14 10:00');
select tests.sign_in('ada');
select is(
  (billing_admin.amend_contract(tests.the_contract(), 'drive/C-1-A.pdf', 'they grow',
    features => '{"clubs": 80}', prices => '{"plus_monthly": 700}', quantity => 4)).status,
  'active', 'an amendment is in force at once'
);
select tests.be_owner();
select results_eq(
  $$ select reference, status, in_force_until from billing.contracts order by starts_at $$,
  $$ values ('drive/C-1.pdf', 'amended', '2026-02-14 10:00+00'::timestamptz),
    ('drive/C-1-A.pdf', 'active', '2026-04-30 10:00+00') $$,
  'what it supersedes stays as it was signed'
);
select is(tests.clubs(), 'contract 80, subscription_item 80', 'its limits count from then on');
select is((select lines from tests.bills where reason = 'subscription_update'),
  'Remaining time on Plus 1400, Unused time on Plus -800',
  'what it changes of the period is billed, half of 2800 for half of 1600');
select tests.work_at('2026-03-01');
select is((select lines from tests.bills order by issued_at desc limit 1), 'Plus 2800',
  'and the next period at the new price');
rollback to s;

select tests.agree(p_starts_at => '2026-02-10');
select is((select count(*) from billing.invoices where status = 'open'), 1::bigint,
  'one that is to begin has an invoice for its first period');
select tests.sign_in('ada');
select is((billing_admin.end_contract(tests.the_contract(), 'never mind')).status, 'ended',
  'and can be withdrawn');
select tests.be_owner();
select is((select count(*) from billing.invoices where status = 'open'), 0::bigint,
  'then nothing is owed');
select is(tests.clubs('2026-02-11'), null, 'nor given');

rollback to s;

-- ---- who goes, and plans that change ----------------------------------------

select tests.agree(p_commitment => 3000);
select tests.agree(p_name => 'bob', p_starts_at => '2026-03-01');
select tests.set_time('2026-02-10');
select billing_private.close_account(md5(name)::uuid) from unnest('{ann,bob}'::text[]) as name;
select results_eq(
  $$ select account_id = md5('ann')::uuid, status, in_force_until from billing.contracts
    order by in_force_until $$,
  $$ values (true, 'ended', '2026-02-10 00:00+00'::timestamptz),
    (false, 'ended', '2026-03-01 00:00+00') $$,
  'a contract ends with its account'
);
select results_eq(
  $$ select shortfall_minor, invoices.amount_due_minor, invoices.status
    from billing.contract_settlements
    join billing.invoices on invoices.id = invoice_id $$,
  $$ values (2200::bigint, 2200::bigint, 'open') $$,
  'what is missing of its commitment stays owed'
);
select is((select count(*) from billing.invoices where account_id = md5('bob')::uuid
    and status = 'open'), 0::bigint, 'by one that never began nothing is owed');
rollback to s;

select tests.agree();
select is(
  (select problem from billing_private.migration_candidates(
    md5('plus')::uuid, md5('basic')::uuid, 1)),
  'contract', 'nobody is moved to another plan who has a contract'
);
select is_empty(
  $$ select * from billing_private.money_violations_of(array[md5('ann')::uuid]) $$,
  'the amounts of a contract''s invoices add up'
);
select tests.sign_in('bob');
select is_empty($$ select * from billing.contracts $$, 'others know nothing of it');

select * from finish();
rollback;
