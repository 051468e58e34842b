-- =============================================================================
-- 0004  performance
--
-- The indexes that reads and jobs need beyond keys and foreign keys, each with the
-- query it serves. has_entitlement() needs none: the primary key of billing.entitlements
-- begins with what it asks for.
--
-- Reads      0001 and 0002 tables, 0003 helpers
-- Read by    the planner, 0006 automation
--
-- Invariants
--   * Partial wherever the question is about the few rows still to be worked on.
--
-- Contents
--   1  inbox and outbox
--   2  subscriptions and access
--   3  money
--   4  binding
--   5  clean-up
--   6  partitions of usage_records
--   7  who may call what
-- =============================================================================


-- -----------------------------------------------------------------------------
-- 1  inbox and outbox
-- -----------------------------------------------------------------------------

-- newest_of_second(), past_due_since(): all snapshots of one object, in time.
create index stripe_events_object_id_idx
  on billing_private.stripe_events (object_id, occurred_at);

-- retry_events: failed events that are due.
create index stripe_events_due_idx
  on billing_private.stripe_events (next_attempt_at)
  where status = 'failed';

-- event_backlog, critical_issues: what was not applied and still should be looked at.
create index stripe_events_unsettled_idx
  on billing_private.stripe_events (received_at)
  where status in ('pending', 'failed', 'dead');

-- check_health, set_stripe_livemode(): events of the other Stripe mode.
create index stripe_events_other_livemode_idx
  on billing_private.stripe_events (received_at)
  where status_reason = 'other_livemode';

-- claim_commands(): the line of unfinished commands, and whether one stands before another.
create index commands_unfinished_idx
  on billing_private.commands (account_id, position)
  where status in ('pending', 'leased');

-- claim_commands(): who is next, without sorting all that wait.
create index commands_line_idx
  on billing_private.commands ((account_id is null), position)
  where status in ('pending', 'leased');

-- clean_up: calls whose retention has ended.
create index commands_finished_idx
  on billing_private.commands (finished_at)
  where status in ('succeeded', 'canceled');

-- claim_commands(subject_id): the command a user waits behind.
create index commands_subject_id_idx
  on billing_private.commands (subject_id)
  where subject_id is not null;

-- check_health, scan_security, critical_issues: calls that were given up.
create index commands_dead_idx
  on billing_private.commands (finished_at)
  where status = 'dead';

-- critical_issues: contradictions that only Stripe can settle.
create index stripe_objects_ambiguous_idx
  on billing_private.stripe_objects (occurred_at)
  where is_ambiguous;

-- request_reread(), request_rereads: whether and when Stripe was asked about an object.
create index commands_reread_idx
  on billing_private.commands (target_object_id, created_at)
  where kind = 'reread';

-- check_health: what was found to differ from Stripe.
create index drifts_last_seen_at_idx
  on billing_private.drifts (last_seen_at);


-- -----------------------------------------------------------------------------
-- 2  subscriptions and access
-- -----------------------------------------------------------------------------

-- expire_subscriptions: stored entitlements whose interval has run out.
create index entitlements_valid_until_idx
  on billing.entitlements (valid_until);

-- expire_subscriptions: stored entitlements whose interval begins after they were stored.
create index entitlements_upcoming_idx
  on billing.entitlements (valid_from)
  where valid_from > recorded_at;

-- renew_manual_subscriptions(), expire_manual_subscriptions().
create index subscriptions_manual_period_idx
  on billing.subscriptions (current_period_end)
  where provider = 'manual' and ended_at is null;

-- withdraw_invoices(), critical_issues: pauses that were to begin at a period's end.
create index commands_pauses_idx
  on billing_private.commands (finished_at)
  where kind = 'pause_collection' and status = 'succeeded' and wish is not null;

-- begin_scheduled_pauses().
create index subscriptions_pause_at_idx
  on billing.subscriptions (pause_at)
  where pause_at is not null;

-- apply_manual_changes().
create index subscriptions_pending_change_idx
  on billing.subscriptions (pending_change_at)
  where pending_change_at is not null;

-- request_rereads: subscriptions whose period or end has passed without news.
create index subscriptions_overdue_idx
  on billing.subscriptions (least(current_period_end, cancel_at))
  where provider = 'stripe' and ended_at is null;

-- request_rereads: first payments that are due for too long.
create index subscriptions_incomplete_idx
  on billing.subscriptions (started_at)
  where status = 'incomplete';

-- version_migrated_to(): what a migration put an item on, whenever it is looked at again.
create index plan_migration_steps_asked_idx
  on billing_private.plan_migration_steps (subscription_item_id)
  where status = 'asked';


-- -----------------------------------------------------------------------------
-- 3  money
-- -----------------------------------------------------------------------------

-- store_statement, store_revenue: what came in during a month.
create index invoices_paid_at_idx
  on billing.invoices (paid_at)
  where status = 'paid';

-- store_statement, store_revenue: what went back during a month, and what of it came back.
create index refunds_refunded_at_idx
  on billing.refunds (refunded_at);
create index refunds_returned_at_idx
  on billing.refunds (returned_at)
  where returned_at is not null;
create index disputes_lost_at_idx
  on billing.disputes (lost_at)
  where lost_at is not null;

-- problem_accounts: invoices somebody still has to pay.
create index invoices_open_idx
  on billing.invoices (account_id)
  where status = 'open';

-- run_dunning: sent invoices whose day has come.
create index invoices_due_at_idx
  on billing.invoices (due_at)
  where status = 'open' and due_at is not null;

-- run_dunning: cases something is to be done about.
create index dunning_cases_due_at_idx
  on billing.dunning_cases (due_at)
  where status = 'open';

-- project_payment_method(): whose default a detached payment method was.
create index customers_default_payment_method_idx
  on billing.customers (stripe_default_payment_method_id)
  where stripe_default_payment_method_id is not null;

-- settle_contracts(): terms that have ended.
create index contracts_ends_at_idx on billing.contracts (ends_at)
  where status = 'active';


-- -----------------------------------------------------------------------------
-- 4  binding
-- -----------------------------------------------------------------------------

-- bind_price(): items that came before their price.
create index subscription_items_unbound_idx
  on billing.subscription_items (stripe_price_id)
  where price_id is null;

-- project_product(): prices that came before their product.
create index prices_unbound_idx
  on billing.prices (stripe_product_id)
  where plan_id is null;

-- critical_issues: customers nobody has claimed.
create index customers_unbound_idx
  on billing.customers (created_at)
  where account_id is null;


-- -----------------------------------------------------------------------------
-- 5  clean-up
-- -----------------------------------------------------------------------------

-- tend_usage: reservations whose time has run out.
create index usage_reservations_due_idx
  on billing.usage_reservations (expires_at)
  where status = 'open';

-- tend_usage: periods that are over. Of what counting changes nothing is in it.
create index usage_totals_unclosed_idx
  on billing.usage_totals (period_end)
  where closed_at is null and period_end < 'infinity';

-- clean_up: runs older than the retention.
create index task_runs_started_at_idx
  on billing_private.task_runs (started_at);

-- clean_up and the detection of bursts: refusals by time.
create index webhook_rejections_minute_idx
  on billing_private.webhook_rejections (minute);

-- -----------------------------------------------------------------------------
-- 6  partitions of usage_records
-- -----------------------------------------------------------------------------

-- In billing_private, where nobody can reach a partition past the policy of its parent.
create table billing_private.usage_records_default
  partition of billing.usage_records default;

comment on table billing_private.usage_records_default is
  'Usage records of months that have no partition yet, so that none is ever refused.';

alter table billing_private.usage_records_default enable row level security;
create policy select_nobody on billing_private.usage_records_default
  for select to public using (false);

revoke all on billing_private.usage_records_default from public, anon, authenticated, service_role;


create function billing_private.add_usage_partition(p_at timestamptz)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_from timestamptz := billing_private.usage_month(p_at);
  v_until timestamptz := billing_private.usage_month(v_from + interval '40 days');
  v_name text := 'usage_records_' || to_char(v_from at time zone 'UTC', 'YYYY_MM');
begin
  if to_regclass('billing_private.' || v_name) is not null then
    return false;
  end if;
  execute format(
    'create table billing_private.%I (like billing.usage_records including all)', v_name);
  execute format(
    'comment on table billing_private.%I is %L', v_name,
    'Usage records of ' || to_char(v_from at time zone 'UTC', 'FMMonth YYYY') || ' (UTC).');
  execute format('alter table billing_private.%I enable row level security', v_name);
  execute format(
    'create policy select_nobody on billing_private.%I for select to public using (false)', v_name);
  execute format(
    'revoke all on billing_private.%I from public, anon, authenticated, service_role', v_name);

  -- What came before its partition was made is waiting in the default one.
  execute format(
    $move$
      with moved as (
        delete from billing_private.usage_records_default
        where recorded_month = %2$L
        returning *
      )
      insert into billing_private.%1$I select * from moved
    $move$, v_name, v_from);
  execute format(
    'alter table billing.usage_records attach partition billing_private.%I
      for values from (%L) to (%L)',
    v_name, v_from, v_until);
  return true;
end;
$$;

comment on function billing_private.add_usage_partition(timestamptz) is
  'Makes the partition of usage_records for an instant''s month (UTC), and takes what is waiting '
  'for it; false where there is one.';


create function billing_private.add_usage_partitions()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_at timestamptz := billing_private.usage_month(billing_private.now());
  v_count bigint := 0;
begin
  for v_month in 0..2 loop
    if billing_private.add_usage_partition(v_at) then
      v_count := v_count + 1;
    end if;
    v_at := billing_private.usage_month(v_at + interval '40 days');
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.add_usage_partitions() is
  'Makes the partitions of usage_records for this month and the next two, and returns how many were'
  ' missing.';


create function billing_private.drop_usage_partitions()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  -- Of what is younger, idempotency keys are still looked for.
  v_keep_from timestamptz := least(
    billing_private.usage_month(
      v_now - (select usage_records_kept from billing_private.settings)),
    billing_private.usage_month(v_now - interval '2 months'));
  v_name text;
  v_count bigint := 0;
  v_rows bigint;
begin
  for v_name in
    select relname
    from pg_catalog.pg_inherits
    join pg_catalog.pg_class on pg_class.oid = inhrelid
    where inhparent = 'billing.usage_records'::regclass
      and relname ~ '^usage_records_\d{4}_\d{2}$'
      and relname < 'usage_records_' || to_char(v_keep_from at time zone 'UTC', 'YYYY_MM')
    order by relname
  loop
    execute format('drop table billing_private.%I', v_name);
    v_count := v_count + 1;
  end loop;

  delete from billing_private.usage_records_default where recorded_month < v_keep_from;
  get diagnostics v_rows = row_count;
  return v_count + v_rows;
end;
$$;

comment on function billing_private.drop_usage_partitions() is
  'Drops the partitions of usage_records whose retention (settings.usage_records_kept, whole '
  'months) is over. Totals stay.';

select billing_private.add_usage_partitions();


-- -----------------------------------------------------------------------------
-- 7  who may call what
-- -----------------------------------------------------------------------------

revoke all on function
  billing_private.add_usage_partition,
  billing_private.add_usage_partitions,
  billing_private.drop_usage_partitions
from public, anon, authenticated, service_role;
