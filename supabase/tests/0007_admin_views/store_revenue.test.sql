-- billing_admin.store_revenue and store_statement(): what stores have sold, and their share of it,
-- exact to the smallest unit.
begin;
\ir ../helpers.psql
select plan(44);

select tests.catalog();
select tests.set_time('2025-12-01');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
insert into billing_private.store_admins (store_id, user_id, reason)
values (md5('night-owl')::uuid, md5('sam')::uuid, 'test');
insert into billing.stores (id, key, name) values (md5('lark')::uuid, 'lark', 'Lark');
update billing.plans set store_id = md5('night-owl')::uuid where key = 'plus';
update billing.plans set store_id = md5('lark')::uuid where key = 'basic';
insert into billing.accounts (id) values (md5('ann')::uuid), (md5('eve')::uuid);

-- p_lines: price and amount by turns; a price nobody knows is the platform's.
create function tests.paid(
  p_name text, p_at timestamptz, p_lines jsonb, p_paid bigint, p_tax bigint default 0,
  p_currency text default 'usd'
) returns void
language sql as $$
  insert into billing.invoices (
    id, account_id, status, currency, subtotal_minor, total_minor, tax_minor, amount_due_minor,
    amount_paid_minor, amount_remaining_minor, paid_at, stripe_invoice_id)
  values (md5(p_name)::uuid, md5('ann')::uuid, 'paid', p_currency, p_paid - p_tax, p_paid, p_tax,
    p_paid, p_paid, 0, p_at, 'in_' || p_name);
  insert into billing.invoice_lines (invoice_id, amount_minor, currency, stripe_price_id)
  select md5(p_name)::uuid, value::bigint, p_currency, 'price_' || key
  from jsonb_each_text(p_lines);
  insert into billing.payments
    (stripe_payment_key, status, amount_minor, currency, stripe_invoice_id)
  values ('pi_' || p_name, 'succeeded', p_paid, p_currency, 'in_' || p_name);
$$;
create function tests.refunded(
  p_name text, p_at timestamptz, p_amount bigint, p_status text default 'succeeded'
) returns void
language sql as $$
  insert into billing.refunds
    (stripe_payment_key, status, amount_minor, currency, refunded_at, stripe_refund_id)
  values ('pi_' || p_name, p_status, p_amount, 'usd', p_at, 're_' || p_name || p_at);
$$;
create function tests.disputed(p_name text, p_status text, p_amount bigint, p_lost_at timestamptz)
returns void
language sql as $$
  insert into billing.disputes
    (stripe_payment_key, status, amount_minor, currency, lost_at, stripe_dispute_id)
  values ('pi_' || p_name, p_status, p_amount, 'usd', p_lost_at, 'dp_' || p_name);
$$;
create function tests.told_dispute(p_event text, p_status text, p_at timestamptz) returns void
language sql as $$
  select tests.deliver('evt_dp_' || p_status, 'charge.dispute.' || p_event, p_at,
    jsonb_build_object('id', 'dp_first', 'object', 'dispute', 'status', p_status, 'amount', 600,
      'currency', 'usd', 'payment_intent', 'pi_first', 'charge', 'ch_first', 'livemode', false,
      'created', extract(epoch from timestamptz '2026-01-20')::bigint));
$$;
create function tests.told_refund(p_status text, p_at timestamptz) returns void
language sql as $$
  select tests.deliver('evt_re_' || p_status, 'refund.' || case p_status
      when 'failed' then 'failed' else 'created' end, p_at,
    jsonb_build_object('id', 're_first', 'object', 'refund', 'status', p_status, 'amount', 400,
      'currency', 'usd', 'payment_intent', 'pi_first', 'livemode', false,
      'created', extract(epoch from timestamptz '2026-02-10')::bigint));
$$;
create function tests.statement(p_store text, p_month timestamptz) returns text
language sql as $$
  select string_agg(format('%s: %s %s %s = %s; %s + %s', currency, payments_minor, refunds_minor,
    disputes_minor, net_minor, store_share_minor, platform_share_minor), ', ' order by currency)
  from billing_admin.store_statement(p_store, p_month);
$$;

-- ---- splitting --------------------------------------------------------------

select is(
  billing_private.split_amount(amount, weights), parts,
  format('%s by %s is %s', amount, weights, parts)
)
from (values
  (100::bigint, '{1,1,1}'::bigint[], '{34,33,33}'::bigint[]),
  (1, '{1,1}', '{1,0}'),
  (0, '{5,7}', '{0,0}'),
  (1000, '{1500,-500}', '{1500,-500}'),
  (7, '{0,3}', '{0,7}'),
  (10, '{0,0,0}', '{4,3,3}'),
  (9007199254740993, '{1,2}', '{3002399751580331,6004799503160662}')
) as splits (amount, weights, parts);
select is_empty(
  $$
    select amount, weights
    from generate_series(1, 97) as amount
    cross join (values
      ('{3,5,7}'::bigint[]), ('{1,1,1,1,1,1}'), ('{1000,1}'), ('{9,-2,4}')) as cases (weights)
    where (select sum(part) from unnest(billing_private.split_amount(amount, weights)) as part)
      <> amount
  $$,
  'the parts always add up'
);

-- ---- shares -----------------------------------------------------------------

select tests.sign_in('ada');
select lives_ok(
  $$ select billing_admin.set_revenue_share('night-owl', 7000, 'as agreed', '2026-01-01') $$,
  'a share is agreed on'
);
select lives_ok(
  $$ select billing_admin.set_revenue_share('night-owl', 6000, 'a new one', '2026-02-01') $$,
  'and another one from a later day'
);
select is(
  (select share_basis_points from billing_admin.stores where store_key = 'night-owl'), 0,
  'it is none before the first'
);

-- ---- payments ---------------------------------------------------------------

select tests.be_owner();
select tests.paid('before', '2025-12-31 23:59:59+00', '{"plus_monthly": 1000}', 1000);
select tests.paid('first', '2026-01-01 00:00:00+00', '{"plus_monthly": 1000}', 1000);
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2025-12-15'), 'usd: 1000 0 0 = 1000; 0 + 1000',
  'what was paid before a share was agreed on is the platform''s'
);
select is(
  tests.statement('night-owl', '2026-01-31'), 'usd: 1000 0 0 = 1000; 700 + 300',
  'what is paid from then on is shared; months are those of UTC'
);
select is(tests.statement('night-owl', '2026-02-01'), null, 'a month without payments has no rows');

savepoint s;
select tests.be_owner();
select tests.paid('odd', '2026-01-05', '{"plus_monthly": 1001}', 1001);
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2026-01-01'), 'usd: 2001 0 0 = 2001; 1401 + 600',
  'each payment is shared by itself, and the shares add up'
);
rollback to s;

select tests.be_owner();
select tests.paid('taxed', '2026-01-05', '{"plus_monthly": 1000}', 1190, 190);
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2026-01-01'), 'usd: 2000 0 0 = 2000; 1400 + 600',
  'taxes are nobody''s revenue'
);
rollback to s;

select tests.be_owner();
select tests.paid('mixed', '2026-01-05',
  '{"plus_monthly": 1000, "basic_monthly": 500, "unknown": 100}', 1000);
select tests.sign_in('ada');
select results_eq(
  $$ select store_key, net_minor, store_share_minor, platform_share_minor
    from billing_admin.store_revenue where month = '2026-01-01' $$,
  $$
    values
      (null, 63::bigint, 0::bigint, 63::bigint),
      ('lark', 312, 0, 312),
      ('night-owl', 1625, 1138, 487)
  $$,
  'an invoice of several stores is split by its lines, what a discount left of it'
);
rollback to s;

select tests.be_owner();
select tests.paid('yen', '2026-01-05', '{"plus_monthly": 1300}', 1300, p_currency => 'jpy');
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2026-01-01'),
  'jpy: 1300 0 0 = 1300; 910 + 390, usd: 1000 0 0 = 1000; 700 + 300',
  'currencies are never added'
);
rollback to s;

select tests.be_owner();
update billing.invoices set status = 'open' where stripe_invoice_id = 'in_first';
select tests.sign_in('ada');
select is(tests.statement('night-owl', '2026-01-01'), null, 'what is not paid is no revenue');
rollback to s;

-- ---- refunds ----------------------------------------------------------------

select tests.be_owner();
select tests.refunded('first', '2026-02-10', 1000);
select tests.refunded('first', '2026-02-11', 1000, 'failed');
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2026-01-01'), 'usd: 1000 0 0 = 1000; 700 + 300',
  'a refund leaves the month of the payment as it was'
);
select is(
  tests.statement('night-owl', '2026-02-01'), 'usd: 0 -1000 0 = -1000; -700 + -300',
  'it counts when it was made, shared as the payment was; one that failed does not'
);
rollback to s;

select tests.be_owner();
select tests.paid('thirds', '2026-01-05',
  '{"plus_monthly": 1000, "basic_monthly": 1000, "unknown": 1000}', 1190, 190);
select tests.refunded('thirds', '2026-01-10', 7);
select tests.refunded('thirds', '2026-01-11', 1000);
select tests.refunded('thirds', '2026-01-12', 183);
select tests.sign_in('ada');
select results_eq(
  $$ select store_key, net_minor, store_share_minor from billing_admin.store_revenue
    where month = '2026-01-01' $$,
  $$ values (null, 0::bigint, 0::bigint), ('lark', 0, 0), ('night-owl', 1000, 700) $$,
  'what is given back bit by bit comes to nothing in the end, for everybody'
);
rollback to s;

-- What goes back twice or comes back is as exact.
select tests.be_owner();
select tests.paid('thirds', '2026-01-05',
  '{"plus_monthly": 1000, "basic_monthly": 1000, "unknown": 1000}', 1190, 190);
select tests.refunded('thirds', '2026-01-10', 7);
select tests.disputed('thirds', 'lost', 1183, '2026-01-12');
select tests.sign_in('ada');
select results_eq(
  $$ select store_key, net_minor, store_share_minor from billing_admin.store_revenue
    where month = '2026-01-01' $$,
  $$ values (null, 0::bigint, 0::bigint), ('lark', 0, 0), ('night-owl', 1000, 700) $$,
  'what a lost dispute takes of the rest comes to nothing too'
);
select tests.be_owner();
update billing.refunds set status = 'failed', returned_at = '2026-01-20' where amount_minor = 7;
update billing.disputes set status = 'won', returned_at = '2026-01-21' where amount_minor = 1183;
select tests.sign_in('ada');
select results_eq(
  $$ select store_key, net_minor, store_share_minor from billing_admin.store_revenue
    where month = '2026-01-01' $$,
  $$ values (null, 334::bigint, 0::bigint), ('lark', 333, 0), ('night-owl', 1333, 933) $$,
  'and when all of it comes back everybody has what they had'
);
rollback to s;

-- ---- disputes ---------------------------------------------------------------

select tests.be_owner();
select tests.told_dispute('created', 'needs_response', '2026-01-20');
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2026-01-01'), 'usd: 1000 0 0 = 1000; 700 + 300',
  'a dispute that is open takes nothing'
);
select tests.told_dispute('closed', 'lost', '2026-02-10');
select results_eq(
  $$ select tests.statement('night-owl', month::timestamptz)
    from unnest(array['2026-01-01', '2026-02-01']) as month $$,
  array['usd: 1000 0 0 = 1000; 700 + 300', 'usd: 0 0 -600 = -600; -420 + -180'],
  'one that is lost takes what it is about, in the month it is lost, shared as the payment was'
);
select tests.told_dispute('updated', 'appeal_under_review', '2026-03-05');
select is(
  tests.statement('night-owl', '2026-02-01'), 'usd: 0 0 -600 = -600; -420 + -180',
  'an appeal changes nothing yet'
);
select tests.told_dispute('closed', 'won', '2026-03-20');
select results_eq(
  $$ select tests.statement('night-owl', month::timestamptz)
    from unnest(array['2026-01-01', '2026-02-01', '2026-03-01', '2026-04-01']) as month $$,
  array['usd: 1000 0 0 = 1000; 700 + 300', 'usd: 0 0 -600 = -600; -420 + -180',
    'usd: 0 0 600 = 600; 420 + 180', null],
  'when it is won it comes back in that month; the one that is over stays as it was'
);
select tests.be_owner();
create temporary table dispute_then as select to_jsonb(disputes) as row from billing.disputes;
select billing_private.rebuild(array['dp_first'], true);
select is(
  (select to_jsonb(disputes) from billing.disputes), (select row from dispute_then),
  'rebuilding says the same'
);
rollback to s;

select tests.be_owner();
select tests.told_dispute('closed', 'won', '2026-03-20');
select is(
  (select row(lost_at, returned_at)::text from billing.disputes), '(,)',
  'what was won and never lost moves nothing'
);
select tests.told_dispute('closed', 'lost', '2026-02-10');
select tests.sign_in('ada');
select results_eq(
  $$ select tests.statement('night-owl', month::timestamptz)
    from unnest(array['2026-02-01', '2026-03-01']) as month $$,
  array['usd: 0 0 -600 = -600; -420 + -180', 'usd: 0 0 600 = 600; 420 + 180'],
  'in whichever order Stripe tells it'
);
rollback to s;

-- ---- refunds that fail after all --------------------------------------------

select tests.be_owner();
select tests.told_refund('succeeded', '2026-02-10');
select tests.told_refund('failed', '2026-03-02');
select tests.sign_in('ada');
select results_eq(
  $$ select tests.statement('night-owl', month::timestamptz)
    from unnest(array['2026-02-01', '2026-03-01']) as month $$,
  array['usd: 0 -400 0 = -400; -280 + -120', 'usd: 0 400 0 = 400; 280 + 120'],
  'a refund that fails after all comes back when it fails'
);
rollback to s;
select tests.be_owner();
select tests.told_refund('failed', '2026-03-02');
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2026-03-01'), null, 'one that never succeeded took nothing'
);
select tests.told_refund('succeeded', '2026-02-10');
select is(
  tests.statement('night-owl', '2026-03-01'), 'usd: 0 400 0 = 400; 280 + 120',
  'until an older event tells that it had'
);
rollback to s;

-- ---- manual subscriptions ---------------------------------------------------

select tests.be_owner();
select tests.set_time('2026-01-10');
select tests.sign_in('ada');
select is(
  (select status from billing_admin.grant_subscription(
    md5('eve')::uuid, 'plus_monthly', 'a customer', manual_kind => 'invoiced')),
  'active', 'an invoiced subscription'
);
select tests.be_owner();
update billing.invoices
set status = 'paid', amount_paid_minor = 1000, amount_remaining_minor = 0, paid_at = '2026-01-12'
where account_id = md5('eve')::uuid;
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2026-01-01'), 'usd: 2000 0 0 = 2000; 1400 + 600',
  'belongs to the store of its plan'
);
select tests.be_owner();
select tests.set_time('2026-01-20');
select billing_private.set_manual_terms(
  (select id from billing.subscriptions where account_id = md5('eve')::uuid),
  md5('basic_monthly')::uuid, null, '2026-01-20');
select tests.sign_in('ada');
select is(
  tests.statement('night-owl', '2026-01-01'), 'usd: 2000 0 0 = 2000; 1400 + 600',
  'also once it has changed to another store''s'
);
rollback to s;

-- ---- who may look -----------------------------------------------------------

select tests.be_owner();
select tests.paid('lark', '2026-01-05', '{"basic_monthly": 500}', 500);
select tests.sign_in('sam');
select results_eq(
  $$ select store_key, month, currency, net_minor from billing_admin.store_revenue $$,
  $$
    values
      ('night-owl', '2026-01-01'::timestamptz, 'usd', 1000::bigint),
      ('night-owl', '2025-12-01', 'usd', 1000)
  $$,
  'a store admin sees the revenue of the own store'
);
select throws_ok(
  $$ select * from billing_admin.store_statement('lark', '2026-01-01') $$,
  'PT403', 'this needs an administrator of the store', 'and nobody else''s statement'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing_admin.store_statement('lark', '2026-01-01') $$,
  'PT403', 'this needs a billing administrator', 'a member sees none'
);
select tests.sign_in('ada');
select throws_ok(
  $$ select * from billing_admin.store_statement('none', '2026-01-01') $$,
  'PT404', 'there is no such store', 'the store must exist'
);
select throws_ok(
  $$ select * from billing_admin.store_statement('lark', null) $$,
  'PT400', 'the request is not valid', 'and the month be named'
);
select throws_ok(
  $$ select * from billing_admin.store_statement('lark', '294276-12-31') $$,
  'PT400', 'the request is not valid', 'as one of a calendar'
);
select tests.be_owner();
select is(
  (select sum(store_share_minor + platform_share_minor) from billing_admin.store_revenue),
  (select sum(amount_paid_minor)::numeric from billing.invoices),
  'all shares together are what was paid'
);

select * from finish();
rollback;
