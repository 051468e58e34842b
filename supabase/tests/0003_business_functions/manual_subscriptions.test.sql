-- Subscriptions that live without Stripe: they start, renew, change and end by the same rules.
begin;
\ir ../helpers.psql
select plan(61);

select tests.catalog();
select tests.set_time('2026-01-31 10:00');
select billing_private.ensure_account(md5(name)::uuid)
from unnest(array['ann', 'bob', 'carol']) as name;

insert into billing.prices
  (id, key, plan_id, currency, unit_amount_minor, billing_interval, interval_count)
values
  (md5('plus_weekly')::uuid, 'plus_weekly', md5('plus')::uuid, 'usd', 300, 'week', 1),
  (md5('plus_quarterly')::uuid, 'plus_quarterly', md5('plus')::uuid, 'usd', 2500, 'month', 3),
  (md5('once')::uuid, 'once', md5('plus')::uuid, 'usd', 2500, null, 1);

create function tests.start(
  p_name text,
  p_price text default 'plus_monthly',
  p_ends_at timestamptz default null,
  p_quantity bigint default 1
) returns uuid
language sql as $$
  select billing_private.start_manual_subscription(
    md5(p_name)::uuid, md5(p_price)::uuid, p_quantity, p_ends_at);
$$;

create view tests.sub as
select
  subscriptions.*, prices.key as price_key, pending_prices.key as pending_price_key,
  substr(accounts.id::text, 1, 4) as owner
from billing.subscriptions
join billing.accounts on accounts.id = subscriptions.account_id
join billing.prices on prices.id = subscriptions.price_id
left join billing.prices as pending_prices on pending_prices.id = subscriptions.pending_price_id;

-- Items that disagree with their subscription.
create view tests.odd_items as
select items.*
from billing.subscription_items as items
join billing.subscriptions on subscriptions.id = items.subscription_id
where (items.price_id, items.quantity, items.current_period_start, items.current_period_end)
  is distinct from (subscriptions.price_id, subscriptions.quantity,
    subscriptions.current_period_start, subscriptions.current_period_end);

create function tests.is_member_of(p_name text) returns boolean
language sql as $$
  select exists (
    select
    from billing.entitlements
    where account_id = md5(p_name)::uuid
      and feature_key = 'premium'
      and billing_private.now() >= valid_from
      and billing_private.now() < valid_until
  );
$$;

savepoint s;

-- ---- the owner: the start ---------------------------------------------------

select tests.start('ann', 'plus_monthly', null, 3);
select results_eq(
  $$
    select provider, status, price_key, quantity, currency, started_at, billing_anchor,
      current_period_start, current_period_end, cancel_at, stripe_subscription_id
    from tests.sub
  $$,
  $$
    values ('manual', 'active', 'plus_monthly', 3::bigint, 'usd',
      '2026-01-31 10:00+00'::timestamptz, '2026-01-31 10:00+00'::timestamptz,
      '2026-01-31 10:00+00'::timestamptz, '2026-02-28 10:00+00'::timestamptz,
      null::timestamptz, null)
  $$,
  'it begins now; a month from 31 January is 28 February'
);
select is_empty($$ select * from tests.odd_items $$, 'its one item says the same');
select is((select count(*) from billing.subscription_items), 1::bigint, 'and there is one');
select ok(tests.is_member_of('ann'), 'access begins with it');
select is_empty(
  $$ select * from billing_private.commands $$, 'Stripe hears nothing of it'
);
select throws_ok(
  $$ select tests.start('ann', 'basic_monthly') $$,
  'PT409', 'the account already has a subscription',
  'C6: a second one beside it is refused'
);
select throws_ok(
  $$
    insert into billing.subscriptions (account_id, provider, manual_kind, status, price_id)
    values (md5('ann')::uuid, 'manual', 'gifted', 'active', md5('plus_monthly')::uuid)
  $$,
  '23505',
  'duplicate key value violates unique constraint "subscriptions_one_manual_idx"',
  'C6: and cannot be written either'
);
rollback to s;

select tests.account('dora');
select tests.subscribe('dora', 'past_due');
select throws_ok(
  $$ select tests.start('dora') $$,
  'PT402', 'an unpaid invoice has to be settled first',
  'who owes at Stripe is not given one beside it'
);
select tests.deliver('evt_end', 'customer.subscription.deleted', '2026-01-20',
  tests.subscription('dora', 'canceled', '2026-01-10'));
select lives_ok($$ select tests.start('dora') $$, 'who has left Stripe is');
rollback to s;

-- ---- the owner: a fixed term ------------------------------------------------

select tests.start('ann', 'plus_monthly', '2026-03-15');
select tests.set_time('2026-03-14 23:59:59');
select billing_private.renew_manual_subscriptions(10);
select ok(tests.is_member_of('ann'), 'a term lasts to its last second');
select is(
  billing_private.expire_manual_subscriptions(10), 0::bigint,
  'and is not ended before it'
);
select tests.set_time('2026-03-15');
select ok(not tests.is_member_of('ann'), 'access ends on the second, with no job run');
select is(
  billing_private.renew_manual_subscriptions(10), 0::bigint,
  'a term that is over is not renewed'
);
select is(
  billing_private.expire_manual_subscriptions(10), 1::bigint, 'the job ends it'
);
select results_eq(
  $$ select status, ended_at from tests.sub $$,
  $$ values ('canceled', '2026-03-15 00:00+00'::timestamptz) $$,
  'as of its last second'
);
select is(
  billing_private.expire_manual_subscriptions(10), 0::bigint, 'once'
);
rollback to s;

select tests.start('ann', 'plus_monthly', '2026-02-28 10:00');
select tests.set_time('2026-02-28 10:00');
select is(
  billing_private.renew_manual_subscriptions(10), 0::bigint,
  'a term that ends with a period begins no other, whichever job runs first'
);
select is(
  billing_private.expire_manual_subscriptions(10), 1::bigint, 'it ends'
);
rollback to s;

select tests.start('ann', 'plus_monthly', '2026-03-15');
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select tests.set_time('2026-04-01');
select billing_private.expire_manual_subscriptions(10);
select is(
  (select ended_at from tests.sub), '2026-02-28 10:00+00'::timestamptz,
  'of a term and a canceled period the earlier end counts'
);
rollback to s;

-- ---- the owner: a canceled one ----------------------------------------------

select tests.start('ann');
select tests.sign_in('ann');
select billing.cancel_subscription(true, 'enough');
select tests.be_owner();
select tests.set_time('2026-02-28 09:59:59');
select ok(tests.is_member_of('ann'), 'a canceled period is used to its last second');
select is(
  billing_private.expire_manual_subscriptions(10)
    + billing_private.apply_manual_changes(10)
    + billing_private.renew_manual_subscriptions(10),
  0::bigint,
  'and no job touches it before'
);
select tests.set_time('2026-02-28 10:00:00');
select ok(not tests.is_member_of('ann'), 'then access is over: no grace after a cancellation');
select is(
  billing_private.renew_manual_subscriptions(10), 0::bigint,
  'it is not renewed'
);
select tests.set_time('2026-03-05');
select billing_private.expire_manual_subscriptions(10);
select results_eq(
  $$ select status, ended_at, canceled_at, cancellation_reason from tests.sub $$,
  $$
    values ('canceled', '2026-02-28 10:00+00'::timestamptz, '2026-01-31 10:00+00'::timestamptz,
      'enough')
  $$,
  'a job that comes days later still ends it when it ended; when and why it was canceled stays'
);
select results_eq(
  $$
    select from_status, to_status, effective_at
    from billing.subscription_changes
    where kind = 'status'
  $$,
  $$ values ('active', 'canceled', '2026-02-28 10:00+00'::timestamptz) $$,
  'and the history says the same'
);
select is(
  billing_private.renew_manual_subscriptions(10), 0::bigint, 'what has ended is never renewed'
);
rollback to s;

-- ---- the owner: renewals ----------------------------------------------------

select tests.start('ann');
select tests.set_time('2026-02-28 09:59:59');
select is(billing_private.renew_manual_subscriptions(10), 0::bigint, 'no period is renewed early');
select tests.set_time('2026-02-28 10:00:00');
select ok(tests.is_member_of('ann'), 'the grace keeps access until the job has run');
select is(billing_private.renew_manual_subscriptions(10), 1::bigint, 'a period that is over is');
select results_eq(
  $$ select current_period_start, current_period_end from tests.sub $$,
  $$ values ('2026-02-28 10:00+00'::timestamptz, '2026-03-31 10:00+00'::timestamptz) $$,
  'from 28 February to 31 March: month ends do not drift'
);
select is_empty($$ select * from tests.odd_items $$, 'the item with it');
select is(billing_private.renew_manual_subscriptions(10), 0::bigint, 'once');
select is(
  (select count(*) from billing.subscription_changes where kind = 'renewed'), 1::bigint,
  'and the history tells of it once'
);

select tests.set_time('2026-09-01');
select is(billing_private.renew_manual_subscriptions(10), 1::bigint,
  'missed periods are caught up');
select results_eq(
  $$ select current_period_start, current_period_end from tests.sub $$,
  $$ values ('2026-08-31 10:00+00'::timestamptz, '2026-09-30 10:00+00'::timestamptz) $$,
  'in one step, into the period that runs'
);
select ok(tests.is_member_of('ann'), 'and access is there');
rollback to s;

select tests.start('ann', 'plus_weekly');
select tests.set_time('2026-03-01');
select billing_private.renew_manual_subscriptions(10);
select results_eq(
  $$ select current_period_start, current_period_end from tests.sub $$,
  $$ values ('2026-02-28 10:00+00'::timestamptz, '2026-03-07 10:00+00'::timestamptz) $$,
  'weeks are seven days each'
);
rollback to s;

select tests.start('ann', 'plus_quarterly');
select tests.set_time('2026-05-01');
select billing_private.renew_manual_subscriptions(10);
select results_eq(
  $$ select current_period_start, current_period_end from tests.sub $$,
  $$ values ('2026-04-30 10:00+00'::timestamptz, '2026-07-31 10:00+00'::timestamptz) $$,
  'quarters are three months of the anchor each'
);
rollback to s;

select tests.set_time('2024-02-29 12:00');
select tests.start('ann', 'plus_yearly');
select tests.set_time('2025-02-28 12:00');
select billing_private.renew_manual_subscriptions(10);
select is(
  (select current_period_end from tests.sub), '2026-02-28 12:00+00'::timestamptz,
  'a year from a leap day ends on 28 February'
);
select tests.set_time('2027-03-01');
select billing_private.renew_manual_subscriptions(10);
select is(
  (select current_period_end from tests.sub), '2028-02-29 12:00+00'::timestamptz,
  'and on the leap day where there is one'
);
rollback to s;

-- ---- the owner: changes at period end ---------------------------------------

select tests.start('ann', 'plus_monthly', null, 2);
select tests.sign_in('ann');
select billing.change_plan('basic_monthly');
select tests.be_owner();
select tests.set_time('2026-02-28 09:59:59');
select is(billing_private.apply_manual_changes(10), 0::bigint, 'a change waits for its time');
select tests.set_time('2026-02-28 10:00:00');
select is(
  billing_private.renew_manual_subscriptions(10), 0::bigint,
  'the period is not renewed at the old price'
);
select is(billing_private.apply_manual_changes(10), 1::bigint, 'on the second it is due');
select results_eq(
  $$
    select price_key, pending_price_key, pending_change_at, quantity, billing_anchor,
      current_period_start, current_period_end
    from tests.sub
  $$,
  $$
    values ('basic_monthly', null, null::timestamptz, 2::bigint,
      '2026-01-31 10:00+00'::timestamptz, '2026-02-28 10:00+00'::timestamptz,
      '2026-03-31 10:00+00'::timestamptz)
  $$,
  'the new price takes over with the new period; the anchor and the seats stay'
);
select is_empty($$ select * from tests.odd_items $$, 'the item with it');
select ok(not tests.is_member_of('ann'), 'and access is the new plan''s');
select is(billing_private.apply_manual_changes(10), 0::bigint, 'once');
select results_eq(
  $$ select kind from billing.subscription_changes order by kind $$,
  $$ values ('change_scheduled'), ('price'), ('renewed'), ('started') $$,
  'the history tells what happened: nothing was taken back'
);
rollback to s;

select tests.start('ann', 'plus_yearly');
select tests.sign_in('ann');
select billing.change_plan('plus_monthly');
select tests.be_owner();
select tests.set_time('2027-06-15');
select billing_private.apply_manual_changes(10);
select billing_private.renew_manual_subscriptions(10);
select results_eq(
  $$ select price_key, billing_anchor, current_period_start, current_period_end from tests.sub $$,
  $$
    values ('plus_monthly', '2027-01-31 10:00+00'::timestamptz,
      '2027-05-31 10:00+00'::timestamptz, '2027-06-30 10:00+00'::timestamptz)
  $$,
  'a change that was missed for months is caught up: periods of the new length from its own day on'
);
select is_empty($$ select * from tests.odd_items $$, 'the item with it');
rollback to s;

select tests.start('ann');
select tests.sign_in('ann');
select billing.change_plan('basic_monthly');
select billing.cancel_subscription();
select tests.be_owner();
select tests.set_time('2026-03-01');
select is(
  billing_private.apply_manual_changes(10), 0::bigint,
  'what was canceled after all is not changed'
);
select is(billing_private.expire_manual_subscriptions(10), 1::bigint, 'it ends');
select is((select price_key from tests.sub), 'plus_monthly', 'as what it was');
rollback to s;

select tests.start('ann', 'plus_monthly', '2026-03-15');
select tests.sign_in('ann');
select billing.change_plan('basic_monthly');
select tests.be_owner();
select tests.set_time('2026-04-01');
select billing_private.expire_manual_subscriptions(10);
select results_eq(
  $$ select status, price_key, pending_price_key, pending_change_at from tests.sub $$,
  $$ values ('canceled', 'plus_monthly', null, null::timestamptz) $$,
  'a change that was missed until the term was over is not waited for any more'
);
rollback to s;

select tests.start('ann', 'plus_monthly');
select tests.set_time('2026-02-10');
select billing.change_plan('plus_quarterly', false, md5('ann')::uuid);
select results_eq(
  $$ select billing_anchor, current_period_start, current_period_end from tests.sub $$,
  $$
    values ('2026-02-10 00:00+00'::timestamptz, '2026-02-10 00:00+00'::timestamptz,
      '2026-05-10 00:00+00'::timestamptz)
  $$,
  'another number of months is another period: it begins with the change'
);
rollback to s;

-- ---- the owner: one does not touch another ----------------------------------

select tests.start('ann', 'plus_monthly', null, 2);
select tests.start('bob', 'plus_yearly', null, 3);
select tests.account('dora');
select tests.subscribe('dora');
select billing.change_plan('basic_monthly', false, md5('ann')::uuid);
select tests.set_time('2026-03-01');
select billing_private.renew_manual_subscriptions(10);
select is_empty(
  $$ select * from tests.odd_items $$,
  'what happens to one subscription happens to its own item alone'
);
select is(
  (select count(distinct price_id) from billing.subscription_items), 3::bigint,
  'and the others keep their prices'
);
rollback to s;

-- ---- the owner: batches -----------------------------------------------------

select tests.start(name) from unnest(array['ann', 'bob', 'carol']) as name;
select tests.set_time('2026-03-01');
select is(
  array[
    billing_private.renew_manual_subscriptions(2),
    billing_private.renew_manual_subscriptions(2),
    billing_private.renew_manual_subscriptions(2)
  ],
  '{2,1,0}',
  'renewals are worked off in batches'
);
update billing.subscriptions set cancel_at_period_end = true;
select tests.set_time('2026-04-01');
select is(
  array[
    billing_private.expire_manual_subscriptions(2),
    billing_private.expire_manual_subscriptions(2),
    billing_private.expire_manual_subscriptions(2)
  ],
  '{2,1,0}',
  'and so are ends'
);
rollback to s;

select tests.start(name) from unnest(array['ann', 'bob', 'carol']) as name;
update billing.subscriptions
set pending_price_id = md5('basic_monthly')::uuid, pending_change_at = current_period_end;
select tests.set_time('2026-03-01');
select is(
  array[
    billing_private.apply_manual_changes(2),
    billing_private.apply_manual_changes(2),
    billing_private.apply_manual_changes(2)
  ],
  '{2,1,0}',
  'and changes'
);
rollback to s;

-- ---- the owner: Stripe's subscriptions --------------------------------------

select tests.account('dora');
select tests.subscribe('dora', 'active', '2026-01-10', 'price_plus_monthly',
  '{"cancel_at_period_end": true}');
update billing.subscriptions
set pending_price_id = md5('basic_monthly')::uuid, pending_change_at = current_period_end;
select tests.set_time('2026-06-01');
select is(
  billing_private.expire_manual_subscriptions(10)
    + billing_private.apply_manual_changes(10)
    + billing_private.renew_manual_subscriptions(10),
  0::bigint,
  'what lives at Stripe is Stripe''s to renew, change and end'
);

select * from finish();
rollback;
