-- billing.subscriptions, their items, changes and legal transitions: what can be stored of them.
begin;
\ir ../helpers.psql
select plan(47);

select tests.catalog();
select billing_private.ensure_account(md5('ann')::uuid);
select billing_private.ensure_account(md5('bob')::uuid);

-- ---- whose it is ------------------------------------------------------------

select lives_ok(
  $$
    insert into billing.subscriptions (status, stripe_subscription_id)
    values ('active', 'sub_early')
  $$,
  'a subscription of Stripe''s is stored before anybody knows whose it is, and for what'
);

select row_eq(
  $$
    select account_id, provider, price_id, cancel_at_period_end, metadata
    from billing.subscriptions
    where stripe_subscription_id = 'sub_early'
  $$,
  row(null::uuid, 'stripe'::text, null::uuid, false, '{}'::jsonb),
  'a subscription is Stripe''s, and renews, unless it says otherwise'
);

select throws_ok(
  $$ insert into billing.subscriptions (status) values ('active') $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_stripe_has_an_id"',
  'a subscription of Stripe''s has Stripe''s id'
);

select throws_ok(
  $$
    insert into billing.subscriptions (status, stripe_subscription_id)
    values ('active', 'sub_early')
  $$,
  '23505', 'duplicate key value violates unique constraint '
    '"subscriptions_stripe_subscription_id_key"',
  'a subscription of Stripe''s is stored once'
);

prepare add_manual(text, text, text, timestamptz) as
insert into billing.subscriptions (provider, manual_kind, account_id, price_id, status, ended_at)
values ('manual', 'complimentary', md5($1)::uuid, md5($2)::uuid, $3, $4);

select lives_ok(
  $$ execute add_manual('ann', 'plus_monthly', 'active', null) $$,
  'a manual subscription has an account and a price'
);

select throws_ok(
  $$ execute add_manual(null, 'plus_monthly', 'active', null) $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_manual_has_an_owner"',
  'a manual subscription is some account''s'
);

select throws_ok(
  $$ execute add_manual('bob', null, 'active', null) $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_manual_has_an_owner"',
  'a manual subscription is for something'
);

select throws_ok(
  $$ update billing.subscriptions set stripe_subscription_id = 'sub_x' where provider = 'manual' $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_stripe_has_an_id"',
  'a manual subscription is unknown to Stripe'
);

select throws_ok(
  $$
    insert into billing.subscriptions (provider, account_id, price_id, status)
    values ('paddle', md5('bob')::uuid, md5('plus_monthly')::uuid, 'active')
  $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_provider_is_known"',
  'there is no third kind'
);

-- ---- how many ---------------------------------------------------------------

select throws_ok(
  $$ execute add_manual('ann', 'basic_monthly', 'active', null) $$,
  '23505', 'duplicate key value violates unique constraint "subscriptions_one_manual_idx"',
  'C6: an account has one running manual subscription'
);

select lives_ok(
  $$ execute add_manual('ann', 'basic_monthly', 'canceled', '2026-01-10') $$,
  'ended ones take no place'
);

select lives_ok(
  $$ execute add_manual('bob', 'plus_monthly', 'active', null) $$,
  'another account has its own'
);

select lives_ok(
  $$
    insert into billing.subscriptions (account_id, status, stripe_subscription_id)
    values
      (md5('ann')::uuid, 'active', 'sub_one'),
      (md5('ann')::uuid, 'active', 'sub_two')
  $$,
  'what Stripe says is stored, even that an account has two'
);

-- ---- status -----------------------------------------------------------------

select lives_ok(
  $$ update billing.subscriptions set status = 'hibernating' where provider = 'stripe' $$,
  'a status nobody knows is stored: Stripe''s vocabulary is open'
);

select throws_ok(
  $$ update billing.subscriptions set status = '' where provider = 'stripe' $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_status_is_given"',
  'an empty status is none'
);

-- ---- periods ----------------------------------------------------------------

prepare set_period(timestamptz, timestamptz) as
update billing.subscriptions
set current_period_start = $1, current_period_end = $2
where provider = 'manual';

select lives_ok($$ execute set_period('2026-01-10', '2026-02-10') $$, 'a period has two ends');
select lives_ok($$ execute set_period('2026-01-10', '2026-01-10') $$, 'it may be empty');
select lives_ok($$ execute set_period(null, '2026-01-10') $$, 'or have no beginning');
select lives_ok($$ execute set_period(null, null) $$, 'or be unknown');

select throws_ok(
  $$ execute set_period('2026-01-10 00:00:01', '2026-01-10') $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_period_is_ordered"',
  'it does not end before it begins'
);

-- ---- a change that waits ----------------------------------------------------

prepare set_pending(text, timestamptz) as
update billing.subscriptions
set pending_price_id = md5($1)::uuid, pending_change_at = $2
where account_id = md5('bob')::uuid;

select lives_ok(
  $$ execute set_pending('basic_monthly', '2026-02-10') $$,
  'a change that waits has a price and a date'
);

select throws_ok(
  $$ execute set_pending('basic_monthly', null) $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_pending_change_has_a_date"',
  'a price alone is none'
);

select throws_ok(
  $$ execute set_pending(null, '2026-02-10') $$,
  '23514', 'new row for relation "subscriptions" violates check constraint '
    '"subscriptions_pending_change_has_a_date"',
  'nor is a date'
);

select lives_ok($$ execute set_pending(null, null) $$, 'it can be taken back');

-- ---- items ------------------------------------------------------------------

insert into billing.subscription_items
  (subscription_id, price_id, quantity, stripe_subscription_item_id)
select id, md5('plus_monthly')::uuid, 1, 'si_' || stripe_subscription_id
from billing.subscriptions
where provider = 'stripe';

select throws_ok(
  $$ update billing.subscription_items set stripe_subscription_item_id = 'si_sub_one' $$,
  '23505', 'duplicate key value violates unique constraint '
    '"subscription_items_stripe_subscription_item_id_key"',
  'an item of Stripe''s is stored once'
);

select lives_ok(
  $$ update billing.subscription_items set price_id = null, quantity = null $$,
  'an item''s price may be unknown to the catalog, and metered ones have no quantity'
);

select throws_ok(
  $$ insert into billing.subscription_items (subscription_id) values (md5('none')::uuid) $$,
  '23503', 'insert or update on table "subscription_items" violates foreign key constraint '
    '"subscription_items_subscription_id_fkey"',
  'an item is part of a subscription'
);

-- ---- history ----------------------------------------------------------------

select results_eq(
  $$
    select distinct kind, to_status
    from billing.subscription_changes
    join billing.subscriptions on subscriptions.id = subscription_id
    where provider = 'manual' and subscriptions.account_id = md5('bob')::uuid and kind = 'started'
  $$,
  $$ values ('started'::text, 'active'::text) $$,
  'every subscription has a history from its start'
);

select throws_like(
  $$ delete from billing.subscriptions where stripe_subscription_id = 'sub_one' $$,
  '%"subscription_changes_subscription_id_fkey"%',
  'a subscription that has a history is not deleted'
);

delete from billing.subscription_changes;
delete from billing.subscriptions where stripe_subscription_id = 'sub_one';
select is_empty(
  $$ select from billing.subscription_items where stripe_subscription_item_id = 'si_sub_one' $$,
  'its items go with it'
);

select throws_like(
  $$ delete from billing.prices where key = 'plus_monthly' $$,
  '%"subscriptions_price_id_fkey"%',
  'a price that somebody pays is not deleted'
);

select throws_like(
  $$ delete from billing.accounts where id = md5('bob')::uuid $$,
  '%"subscriptions_account_id_fkey"%',
  'nor an account with a subscription'
);

-- ---- which status may follow which ------------------------------------------

select set_eq(
  $$
    select from_status from billing.subscription_transitions
    union
    select to_status from billing.subscription_transitions
  $$,
  array[
    'incomplete', 'incomplete_expired', 'trialing', 'active', 'past_due', 'unpaid', 'paused',
    'canceled'
  ],
  'the transitions are about Stripe''s eight statuses'
);

select set_eq(
  $$
    select to_status from billing.subscription_transitions
    except
    select from_status from billing.subscription_transitions
  $$,
  array['canceled', 'incomplete_expired'],
  'C3: exactly canceled and incomplete_expired are final'
);

select set_eq(
  $$
    select from_status from billing.subscription_transitions
    except
    select to_status from billing.subscription_transitions
  $$,
  array['incomplete'],
  'nothing leads back to an unpaid beginning'
);

select set_eq(
  $$ select from_status from billing.subscription_transitions where to_status = 'canceled' $$,
  array['incomplete', 'trialing', 'active', 'past_due', 'unpaid', 'paused'],
  'whatever runs can be canceled'
);

select set_eq(
  $$
    select from_status
    from billing.subscription_transitions
    where to_status = 'incomplete_expired'
  $$,
  array['incomplete'],
  'only a beginning that was never paid expires'
);

select is_empty(
  'select * from billing.subscription_transitions where from_status = to_status',
  'staying the same is no change'
);

select is_empty(
  $$ select * from billing.subscription_transitions where description !~ '^[a-z].*[a-z0-9]$' $$,
  'every transition says when it happens'
);

create function tests.try_transition(p_from text, p_to text) returns text
language plpgsql as $$
declare
  v_subscription billing.subscriptions;
  v_detail text;
begin
  v_subscription.status := p_from;
  perform billing_private.require_transition(v_subscription, p_to);
  return 'allowed';
exception when sqlstate 'PT422' then
  get stacked diagnostics v_detail = pg_exception_detail;
  return (v_detail::jsonb ->> 'from') || ' to ' || (v_detail::jsonb ->> 'to');
end;
$$;

select is(tests.try_transition('active', 'canceled'), 'allowed', 'what is listed is allowed');

select is(
  tests.try_transition('canceled', 'active'), 'canceled to active',
  'C3: what is not listed is refused with the names of both states'
);

select is(
  tests.try_transition('hibernating', 'active'), 'hibernating to active',
  'nothing leads out of a status nobody knows'
);

select throws_ok(
  $$
    insert into billing.subscription_transitions (from_status, to_status, description)
    values ('active', 'canceled', 'again')
  $$,
  '23505', 'duplicate key value violates unique constraint "subscription_transitions_pkey"',
  'a transition is listed once'
);

-- ---- members ----------------------------------------------------------------

select tests.sign_in('bob');

select throws_ok(
  $$ update billing.subscriptions set current_period_end = '2099-01-01' $$,
  '42501', 'permission denied for table subscriptions',
  'a member extends no subscription by hand'
);

select throws_ok(
  $$ delete from billing.subscription_changes $$,
  '42501', 'permission denied for table subscription_changes',
  'a member rewrites no history'
);

select results_eq(
  'select count(*) from billing.subscription_transitions',
  'select 29::bigint',
  'a member may read which transitions are legal'
);

select tests.sign_out();

select results_eq(
  'select count(*) from billing.subscription_transitions',
  'select 29::bigint',
  'and so may a visitor'
);

select * from finish();
rollback;
