-- =============================================================================
-- 0007  admin views
--
-- What an administrator sees and may correct. Each view reads one function that checks
-- the caller, because the views run with the caller's rights and the tables are the
-- machine's own.
--
-- Reads      0001 to 0003 tables and lifecycle, 0005 access, 0006 runner and health
-- Read by    Studio, admin applications
--
-- Invariants
--   * Whoever is no administrator gets NOT_AN_ADMIN, never an empty result.
--   * Every correction needs a reason, which reaches the history and the audit.
--
-- Contents
--   1  system_health
--   2  critical_issues
--   3  subscription_overview and expiring_soon
--   4  problem_accounts
--   5  overdue_invoices and money_invariants
--   6  entitlement_drift
--   7  unbound_customers and bind_customer()
--   8  event_backlog and command_backlog
--   9  tasks and task_runs
--   10  administrators and settings
--   11  granting and revoking
--   12  correcting and replaying
--   13  drifts, sweeps, back-fill and rebuild
--   14  the catalog at Stripe
--   15  stores
--   16  plans, prices and features
--   17  contents of plans
--   18  giving money back
--   19  metering the application's tables
--   20  moving subscribers to other plans
--   21  revenue of stores
--   22  people and organizations
--   23  prepaid units and corrected usage
--   24  discount codes
--   25  contracts
--   26  hook events
--   27  who may call what
-- =============================================================================


-- -----------------------------------------------------------------------------
-- 1  system_health
-- -----------------------------------------------------------------------------

create function billing_private.admin_system_health()
returns table (
  check_key text,
  status text,
  summary text,
  value numeric,
  since timestamptz
)
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  with live as materialized (
    select health.*, health_checks.since as stored_since, health_checks.status as stored_status
    from billing_private.health() as health
    left join billing_private.health_checks using (check_key)
  )
  select
    'overall',
    case
      when bool_or(live.status = 'unhealthy') then 'unhealthy'
      when bool_or(live.status = 'degraded') then 'degraded'
      else 'healthy'
    end,
    format(
      '%s of %s checks are healthy',
      count(*) filter (where live.status = 'healthy'), count(*)),
    count(*) filter (where live.status = 'healthy')::numeric,
    null::timestamptz
  from live
  union all
  select
    live.check_key, live.status, live.summary, live.value,
    case when live.stored_status = live.status then live.stored_since end
  from live;
end;
$$;

create view billing_admin.system_health with (security_invoker = true) as
select * from billing_private.admin_system_health();

comment on view billing_admin.system_health is
  'Every health check as of now, the overall verdict first. since: how long it has been so, as far'
  ' as recorded.';


-- -----------------------------------------------------------------------------
-- 2  critical_issues
-- -----------------------------------------------------------------------------

create function billing_private.paid_after_end()
returns table (
  severity text,
  issue text,
  subject text,
  account_id uuid,
  details jsonb,
  since timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    'warning', 'paid_after_end', invoices.stripe_invoice_id, dunning_cases.account_id,
    jsonb_build_object(
      'subscription', invoices.stripe_subscription_id, 'currency', invoices.currency,
      'amount_paid_minor', invoices.amount_paid_minor,
      'ended_at', subscriptions.ended_at,
      'payment_id', (
        select payments.id
        from billing.payments
        where payments.account_id = dunning_cases.account_id
          and payments.stripe_invoice_id = invoices.stripe_invoice_id
          and payments.amount_received_minor > 0
        order by payments.created_at desc, payments.id
        limit 1
      )),
    dunning_cases.closed_at
  from billing.dunning_cases
  join billing.invoices on invoices.id = dunning_cases.invoice_id
  join billing.subscriptions on subscriptions.id = dunning_cases.subscription_id
  where dunning_cases.status = 'recovered'
    and dunning_cases.closed_at > subscriptions.ended_at
    and dunning_cases.closed_at > billing_private.now() - interval '90 days'
    and exists (
      select
      from billing.invoice_lines
      where invoice_lines.invoice_id = invoices.id
        and invoice_lines.period_end > subscriptions.ended_at
    )
    and invoices.amount_paid_minor > (
      select coalesce(sum(refunds.amount_minor), 0)
      from billing.payments
      join billing.refunds using (stripe_payment_key)
      where payments.account_id = dunning_cases.account_id
        and payments.stripe_invoice_id = invoices.stripe_invoice_id
        and refunds.status in ('succeeded', 'pending')
    );
end;
$$;

comment on function billing_private.paid_after_end() is
  'Invoices of the last 90 days that were paid when their subscription had ended before the period '
  'they are for was over: money for nothing, unless it is given back or access is granted.';



-- Its body is long because it is a list: one select for each kind of issue.
create function billing_private.charged_despite_pause()
returns table (
  severity text,
  issue text,
  subject text,
  account_id uuid,
  details jsonb,
  since timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select distinct
    'warning', 'charged_despite_pause', invoices.stripe_invoice_id, invoices.account_id,
    jsonb_build_object(
      'subscription', invoices.stripe_subscription_id, 'currency', invoices.currency,
      'amount_paid_minor', invoices.amount_paid_minor,
      'pause_at', commands.wish -> 'begins_at',
      'payment_id', payments.id),
    invoices.paid_at
  from billing_private.commands
  join billing.subscriptions on subscriptions.id = commands.subscription_id
  join billing.invoices
    on invoices.stripe_subscription_id = subscriptions.stripe_subscription_id
  join billing.payments on payments.stripe_invoice_id = invoices.stripe_invoice_id
    and payments.account_id = invoices.account_id
    and payments.amount_received_minor > 0
  where commands.kind = 'pause_collection'
    and commands.status = 'succeeded'
    and commands.wish is not null
    and commands.finished_at > billing_private.now() - interval '90 days'
    and invoices.billing_reason = 'subscription_cycle'
    and invoices.issued_at >= (commands.wish ->> 'begins_at')::timestamptz
    and invoices.issued_at <= commands.finished_at
    and invoices.status = 'paid'
    and billing_private.refundable_amount(payments) > 0;
end;
$$;

comment on function billing_private.charged_despite_pause() is
  'Invoices that were paid for a period for which their subscription was to be paused, because '
  'Stripe was told too late: money to give back, or to keep with the customer''s consent.';


create function billing_private.unbilled_usage()
returns table (
  severity text,
  issue text,
  subject text,
  account_id uuid,
  details jsonb,
  since timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    'warning', 'unbilled_usage', billed_usage.subscription_id::text, billed_usage.account_id,
    jsonb_build_object(
      'feature', billed_usage.feature_key, 'billed', billed_usage.quantity, 'used', usage.used,
      'period_start', billed_usage.period_start, 'period_end', billed_usage.period_end),
    subscriptions.ended_at
  from billing.subscriptions
  join billing_private.billed_usage on billed_usage.subscription_id = subscriptions.id
  cross join lateral billing_private.used_in(
    billed_usage.account_id, billed_usage.feature_key, billed_usage.period_start,
    billed_usage.period_end) as usage (used)
  where subscriptions.ended_at > billing_private.now() - interval '90 days'
    and usage.used <> billed_usage.quantity;
end;
$$;

comment on function billing_private.unbilled_usage() is
  'Usage under a contract that was heard of when no invoice was to follow any more, of '
  'subscriptions that ended in the last 90 days: to be billed, or given back, by hand.';


-- Long because it is a list: one select for each kind of issue.
create function billing_private.admin_critical_issues()
returns table (
  severity text,
  issue text,
  subject text,
  account_id uuid,
  details jsonb,
  since timestamptz
)
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select
    'critical', 'dead_event', stripe_events.event_id,
    billing_private.account_of_customer(stripe_events.stripe_customer_id),
    jsonb_build_object('type', stripe_events.type, 'error', stripe_events.last_error -> 'message'),
    stripe_events.received_at
  from billing_private.stripe_events
  where stripe_events.status = 'dead'
  union all
  select
    'critical', 'dead_command', commands.id::text, commands.account_id,
    jsonb_build_object('kind', commands.kind, 'error', commands.last_error),
    commands.finished_at
  from billing_private.commands
  where commands.status = 'dead'
    and commands.finished_at > billing_private.now() - interval '7 days'
  union all
  -- Never begun here: Stripe was told by somebody else, or a page was paid in the last instant.
  select
    'critical', 'two_subscriptions', min(subscriptions.id::text), subscriptions.account_id,
    jsonb_build_object('subscriptions', jsonb_agg(subscriptions.id)),
    max(subscriptions.started_at)
  from billing.subscriptions
  join billing.prices on prices.id = subscriptions.price_id
  join billing.plans on plans.id = prices.plan_id and plans.kind = 'base'
  where subscriptions.ended_at is null
    and subscriptions.account_id is not null
    and subscriptions.status not in ('canceled', 'incomplete_expired', 'incomplete')
  group by subscriptions.account_id
  having count(*) > 1
  union all
  -- Their last owner was deleted: billing_admin.appoint_owner().
  select
    'warning', 'ownerless_organization', memberships.account_id::text, memberships.account_id,
    jsonb_build_object('members', count(*)), max(memberships.updated_at)
  from billing.memberships
  group by memberships.account_id
  having not bool_or(memberships.role = 'owner')
  union all
  select
    'warning', 'unsettled_user', deleted_users.user_id::text, deleted_users.user_id,
    jsonb_build_object('problem', deleted_users.problem), deleted_users.failed_at
  from billing_private.deleted_users
  where deleted_users.settled_at is null
    and deleted_users.failed_at is not null
  union all
  select
    'warning', 'repeated_trial', repeated.subscription_id::text, repeated.account_id,
    jsonb_build_object('same', repeated.kind, 'first_account_id', repeated.first_account_id),
    repeated.trial_start
  from billing_private.repeated_trials() as repeated
  union all
  select
    'warning', 'unbound_customer', customers.stripe_customer_id, null,
    jsonb_build_object('email', customers.email), customers.created_at
  from billing.customers
  where customers.account_id is null
    and exists (
      select
      from billing.subscriptions
      where subscriptions.stripe_customer_id = customers.stripe_customer_id
        and subscriptions.ended_at is null
    )
  union all
  select
    'warning', 'unknown_price', subscription_items.stripe_price_id, subscriptions.account_id,
    jsonb_build_object('subscription', subscriptions.stripe_subscription_id),
    subscriptions.updated_at
  from billing.subscription_items
  join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
  where subscription_items.price_id is null
    and subscriptions.ended_at is null
  union all
  select
    'warning', 'unknown_status', subscriptions.status, subscriptions.account_id,
    jsonb_build_object('subscription', subscriptions.stripe_subscription_id),
    subscriptions.updated_at
  from billing.subscriptions
  where not exists (
    select
    from billing.subscription_transitions
    where subscriptions.status in (from_status, to_status)
  )
  union all
  select
    'warning', 'ambiguous_object', stripe_objects.object_id, null,
    jsonb_build_object('type', stripe_objects.object_type), stripe_objects.occurred_at
  from billing_private.stripe_objects
  where stripe_objects.is_ambiguous
  union all
  select
    'warning', 'drift', drifts.object_id, null,
    jsonb_build_object('class', drifts.class, 'differences', drifts.differences), drifts.found_at
  from billing_private.drifts
  where drifts.repaired_at is null
  union all
  select
    'warning', 'finalization_failed', invoices.stripe_invoice_id, invoices.account_id,
    invoices.finalization_error, coalesce(invoices.issued_at, invoices.created_at)
  from billing.invoices
  where invoices.finalization_error is not null
    and invoices.status = 'draft'
  union all
  select
    'warning', 'meter_errors', meter_error_reports.stripe_meter_id, null,
    jsonb_build_object(
      'event', meter_error_reports.event_id, 'errors', meter_error_reports.error_count,
      'summary', meter_error_reports.summary, 'types', meter_error_reports.error_types),
    meter_error_reports.reported_at
  from billing_private.meter_error_reports
  where meter_error_reports.reported_at > billing_private.now() - interval '7 days'
  union all
  select
    'critical', 'money_violation', money_violations.object_id, money_violations.account_id,
    jsonb_build_object(
      'rule', money_violations.rule, 'expected', money_violations.expected,
      'found', money_violations.found),
    money_violations.found_at
  from billing_private.money_violations
  union all
  select * from billing_private.paid_after_end()
  union all
  select * from billing_private.charged_despite_pause()
  union all
  select * from billing_private.unbilled_usage()
  union all
  select
    'critical', 'broken_metering', metered_tables.relation::text, null,
    jsonb_build_object(
      'feature', metered_tables.feature_key, 'owner_column', metered_tables.owner_column),
    null
  from billing_private.metered_tables() as metered_tables
  where metered_tables.is_broken
  union all
  select
    'warning', 'metering_corrected', metering_corrections.feature_key,
    metering_corrections.account_id,
    jsonb_build_object(
      'feature', metering_corrections.feature_key, 'counted', metering_corrections.counted,
      'held', metering_corrections.held, 'cause', metering_corrections.cause),
    metering_corrections.corrected_at
  from billing_private.metering_corrections
  where metering_corrections.corrected_at > billing_private.now() - interval '7 days'
  union all
  select
    'warning', 'failing_task', tasks.key, null,
    jsonb_build_object('failures', tasks.consecutive_failures), tasks.last_run_at
  from billing_private.tasks
  where tasks.consecutive_failures > 0
    and tasks.is_enabled;
end;
$$;

create view billing_admin.critical_issues with (security_invoker = true) as
select * from billing_private.admin_critical_issues();

comment on view billing_admin.critical_issues is
  'What needs somebody: dead events and commands, customers nobody claimed, two subscriptions of '
  'one account, trials that are somebody''s second, prices and statuses '
  'nobody knows, contradictions, drift that is not repaired, invoices that cannot be finalized, '
  'usage Stripe could not count, tables that are not wholly metered, totals that were not what '
  'their tables hold, failing tasks. No rows is the normal state.';


-- -----------------------------------------------------------------------------
-- 3  subscription_overview and expiring_soon
-- -----------------------------------------------------------------------------

create function billing_private.admin_subscription_overview()
returns table (
  subscription_id uuid,
  account_id uuid,
  provider text,
  status text,
  plan_key text,
  tier text,
  store_key text,
  price_key text,
  quantity bigint,
  unit_amount_minor bigint,
  currency text,
  current_period_end timestamptz,
  past_due_since timestamptz,
  ends_at timestamptz,
  access_until timestamptz,
  stripe_subscription_id text,
  stripe_customer_id text
)
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
declare
  v_scope uuid[] := billing_private.store_scope();
begin
  return query
  select
    subscriptions.id, subscriptions.account_id, subscriptions.provider, subscriptions.status,
    plans.key, plans.tier, stores.key, prices.key, subscriptions.quantity,
    prices.unit_amount_minor, prices.currency, subscriptions.current_period_end,
    subscriptions.past_due_since,
    coalesce(
      subscriptions.ended_at,
      subscriptions.cancel_at,
      case when subscriptions.cancel_at_period_end then subscriptions.current_period_end end),
    profiles.access_until,
    subscriptions.stripe_subscription_id, subscriptions.stripe_customer_id
  from billing.subscriptions
  left join billing.prices on prices.id = subscriptions.price_id
  left join billing.plans on plans.id = prices.plan_id
  left join billing.stores on stores.id = plans.store_id
  left join billing.profiles on profiles.account_id = subscriptions.account_id
  where v_scope is null or plans.store_id = any (v_scope)
  order by subscriptions.created_at desc, subscriptions.id;
end;
$$;

create view billing_admin.subscription_overview with (security_invoker = true) as
select * from billing_private.admin_subscription_overview();

comment on view billing_admin.subscription_overview is
  'Every subscription with its plan, price and end, newest first; to store admins those of their '
  'stores'' plans. access_until is the account''s, from all sources.';

create view billing_admin.expiring_soon with (security_invoker = true) as
select
  subscription_overview.*,
  expected.expires_at
from billing_admin.subscription_overview
cross join lateral (
  select least(ends_at, case when status = 'past_due' then access_until end) as expires_at
) as expected
where status not in ('canceled', 'incomplete_expired')
  and expected.expires_at
    between billing_private.now() and billing_private.now() + interval '14 days';

comment on view billing_admin.expiring_soon is
  'Subscriptions that end, or whose grace for a failed payment runs out, within 14 days.';


-- -----------------------------------------------------------------------------
-- 4  problem_accounts
-- -----------------------------------------------------------------------------

create function billing_private.admin_problem_accounts()
returns table (
  account_id uuid,
  problem text,
  subscription_id uuid,
  amount_minor bigint,
  currency text,
  since timestamptz
)
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select
    subscriptions.account_id, subscriptions.status, subscriptions.id,
    invoices.amount_remaining_minor, invoices.currency,
    coalesce(subscriptions.past_due_since, subscriptions.updated_at)
  from billing.subscriptions
  left join billing.invoices
    on invoices.stripe_invoice_id = subscriptions.stripe_latest_invoice_id
    and invoices.status = 'open'
  where subscriptions.status in ('past_due', 'unpaid', 'incomplete', 'paused')
  union all
  select
    invoices.account_id, 'nobody_retries', subscriptions.id, invoices.amount_remaining_minor,
    invoices.currency, invoices.issued_at
  from billing.invoices
  left join billing.subscriptions using (stripe_subscription_id)
  where invoices.status = 'open'
    and invoices.attempt_count > 0
    and invoices.next_payment_attempt_at is null
  union all
  select
    subscriptions.account_id, 'several_subscriptions', null, null, null,
    max(subscriptions.created_at)
  from billing.subscriptions
  join billing.prices on prices.id = subscriptions.price_id
  join billing.plans on plans.id = prices.plan_id
  where subscriptions.ended_at is null
    and subscriptions.account_id is not null
    and subscriptions.status not in ('canceled', 'incomplete_expired')
    and plans.kind = 'base'
  group by subscriptions.account_id
  having count(*) > 1;
end;
$$;

create view billing_admin.problem_accounts with (security_invoker = true) as
select * from billing_private.admin_problem_accounts();

comment on view billing_admin.problem_accounts is
  'Accounts that owe, stall or pay twice: past_due, unpaid, incomplete, paused, nobody_retries, '
  'several_subscriptions. Amounts in the smallest unit.';


-- -----------------------------------------------------------------------------
-- 5  overdue_invoices and money_invariants
-- -----------------------------------------------------------------------------

create function billing_private.admin_overdue_invoices()
returns table (
  case_id uuid,
  account_id uuid,
  subscription_id uuid,
  invoice_number text,
  amount_remaining_minor bigint,
  currency text,
  status text,
  opened_at timestamptz,
  stage text,
  next_stage_at timestamptz,
  retries integer,
  next_retry_at timestamptz,
  blocked_by text,
  last_decline text,
  policy_key text,
  hosted_invoice_url text,
  stripe_invoice_id text
)
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
declare
  v_scope uuid[] := billing_private.store_scope();
begin
  return query
  select
    dunning_cases.id, dunning_cases.account_id, dunning_cases.subscription_id, invoices.number,
    invoices.amount_remaining_minor, invoices.currency, dunning_cases.status,
    dunning_cases.opened_at, dunning_cases.stage, dunning_cases.next_stage_at,
    dunning_cases.retries, dunning_cases.next_retry_at, dunning_cases.blocked_by,
    (
      select declines.decline_code
      from billing_private.declines
      where declines.stripe_customer_id = invoices.stripe_customer_id
        and declines.declined_at >= dunning_cases.opened_at - interval '1 hour'
      order by declines.declined_at desc
      limit 1
    ),
    dunning_cases.policy_key, invoices.hosted_invoice_url, invoices.stripe_invoice_id
  from billing.dunning_cases
  join billing.invoices on invoices.id = dunning_cases.invoice_id
  where dunning_cases.status in ('open', 'exhausted')
    and (
      v_scope is null
      or exists (
        select
        from billing.subscriptions
        join billing.prices on prices.id = subscriptions.price_id
        join billing.plans on plans.id = prices.plan_id
        where subscriptions.id = dunning_cases.subscription_id
          and plans.store_id = any (v_scope)
      )
    )
  order by dunning_cases.opened_at;
end;
$$;

create view billing_admin.overdue_invoices with (security_invoker = true) as
select * from billing_private.admin_overdue_invoices();

comment on view billing_admin.overdue_invoices is
  'What is unpaid, longest first: what was done about it, what comes next, and why nothing does; '
  'to store admins that of their stores'' plans. Amounts in the smallest unit. last_decline is not '
  'for the customer''s eyes.';


create function billing_private.admin_money_invariants()
returns setof billing_private.money_violations
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select *
  from billing_private.money_violations_of(array(select id from billing.accounts));
end;
$$;

create view billing_admin.money_invariants with (security_invoker = true) as
select * from billing_private.admin_money_invariants();

comment on view billing_admin.money_invariants is
  'Where amounts do not add up, over all accounts, as of now: the rule, what it is about, what it '
  'asks and what is stored. No rows is the normal state.';


-- -----------------------------------------------------------------------------
-- 6  entitlement_drift
-- -----------------------------------------------------------------------------

create function billing_private.admin_entitlement_drift()
returns setof billing_private.entitlement_drift
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select *
  from billing_private.validate_entitlements(array(select id from billing.accounts));
end;
$$;

create view billing_admin.entitlement_drift with (security_invoker = true) as
select * from billing_private.admin_entitlement_drift();

comment on view billing_admin.entitlement_drift is
  'Stored entitlements that disagree with their sources, over all accounts. No rows is the normal '
  'state; billing_admin.correct_entitlements() repairs.';


-- -----------------------------------------------------------------------------
-- 7  unbound_customers and bind_customer()
-- -----------------------------------------------------------------------------

create function billing_private.admin_unbound_customers()
returns table (
  stripe_customer_id text,
  email text,
  name text,
  live_subscriptions bigint,
  invoices bigint,
  paid_payments bigint,
  since timestamptz
)
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select
    customers.stripe_customer_id, customers.email, customers.name,
    (
      select count(*)
      from billing.subscriptions
      where subscriptions.stripe_customer_id = customers.stripe_customer_id
        and subscriptions.ended_at is null
    ),
    (
      select count(*)
      from billing.invoices
      where invoices.stripe_customer_id = customers.stripe_customer_id
    ),
    (
      select count(*)
      from billing.payments
      where payments.stripe_customer_id = customers.stripe_customer_id
        and payments.paid_at is not null
    ),
    customers.created_at
  from billing.customers
  where customers.account_id is null
    and customers.deleted_at is null;
end;
$$;

create view billing_admin.unbound_customers with (security_invoker = true) as
select * from billing_private.admin_unbound_customers();

comment on view billing_admin.unbound_customers is
  'Stripe''s customers nobody knows the account of, and what has come in for each. An e-mail '
  'address proves nothing: billing_admin.bind_customer() takes somebody''s word.';


create function billing_private.admin_bind_customer(
  p_stripe_customer_id text,
  p_account_id uuid,
  p_reason text
)
returns billing.customers
language plpgsql
volatile
security definer -- users ask; only this may write
set search_path = ''
as $$
declare
  v_customer billing.customers;
begin
  perform billing_private.begin_admin_action(p_reason, 'bind_customer', p_stripe_customer_id);
  p_account_id := billing_private.require_account(p_account_id);
  perform billing_private.lock_catalog('customer');
  perform billing_private.lock_customer(p_stripe_customer_id);

  select * into v_customer
  from billing.customers
  where stripe_customer_id = p_stripe_customer_id;
  if not found then
    perform billing_private.fail('CUSTOMER_NOT_FOUND', jsonb_build_object(
      'stripe_customer_id', p_stripe_customer_id));
  elsif v_customer.account_id <> p_account_id then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'stripe_customer_id', 'problem', 'belongs to another account'));
  end if;

  perform billing_private.bind_customer(p_stripe_customer_id, p_account_id);
  select * into v_customer
  from billing.customers
  where stripe_customer_id = p_stripe_customer_id;
  return v_customer;
end;
$$;


create function billing_admin.bind_customer(
  stripe_customer_id text,
  account_id uuid,
  reason text
)
returns billing.customers
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_bind_customer(stripe_customer_id, account_id, reason);
end;

comment on function billing_admin.bind_customer(text, uuid, text) is
$$Says whose a Stripe customer is that nobody knows the account of; all that came in for it becomes
that account's. Twice changes nothing more.

stripe_customer_id: from billing_admin.unbound_customers. A customer is never taken away from an
account.

Errors
  VALIDATION_FAILED   400  no reason is given, or the customer belongs to another account
  NOT_AN_ADMIN        403  the caller is no billing administrator
  CUSTOMER_NOT_FOUND  404  Stripe has never told of such a customer
  ACCOUNT_NOT_FOUND   404  neither an account nor a user has this id$$;


-- -----------------------------------------------------------------------------
-- 8  event_backlog and command_backlog
-- -----------------------------------------------------------------------------

create function billing_private.admin_event_backlog()
returns table (
  event_id text,
  type text,
  status text,
  status_reason text,
  attempts integer,
  error text,
  object_id text,
  stripe_customer_id text,
  occurred_at timestamptz,
  received_at timestamptz,
  next_attempt_at timestamptz
)
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select
    stripe_events.event_id, stripe_events.type, stripe_events.status,
    stripe_events.status_reason, stripe_events.attempts, stripe_events.last_error ->> 'message',
    stripe_events.object_id, stripe_events.stripe_customer_id, stripe_events.occurred_at,
    stripe_events.received_at, stripe_events.next_attempt_at
  from billing_private.stripe_events
  where stripe_events.status in ('pending', 'failed', 'dead')
  order by stripe_events.received_at;
end;
$$;

create view billing_admin.event_backlog with (security_invoker = true) as
select * from billing_private.admin_event_backlog();

comment on view billing_admin.event_backlog is
  'Stripe events that are stored but not applied: failed ones will be tried again, dead ones wait '
  'for billing_admin.replay_event() or discard_event().';


create function billing_private.admin_command_backlog()
returns table (
  command_id uuid,
  kind text,
  status text,
  account_id uuid,
  attempts integer,
  error text,
  next_attempt_at timestamptz,
  lease_expires_at timestamptz,
  created_at timestamptz
)
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select
    commands.id, commands.kind, commands.status, commands.account_id, commands.attempts,
    coalesce(commands.last_error #>> '{error,message}', commands.last_error ->> 'http_status'),
    commands.next_attempt_at, commands.lease_expires_at, commands.created_at
  from billing_private.commands
  where commands.status in ('pending', 'leased', 'dead')
  order by commands.position;
end;
$$;

create view billing_admin.command_backlog with (security_invoker = true) as
select * from billing_private.admin_command_backlog();

comment on view billing_admin.command_backlog is
  'Calls to Stripe that are waiting, under way, or given up (dead; billing_admin.retry_command() '
  'takes them up again).';


-- -----------------------------------------------------------------------------
-- 9  tasks and task_runs
-- -----------------------------------------------------------------------------

create function billing_private.admin_tasks()
returns setof billing_private.tasks
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query select * from billing_private.tasks order by key;
end;
$$;

create view billing_admin.tasks with (security_invoker = true) as
select
  key, description, run_every, is_enabled, next_run_at, last_run_at, consecutive_failures
from billing_private.admin_tasks();

comment on view billing_admin.tasks is
  'What runs by itself, how often, and when next.';


create function billing_private.admin_task_runs()
returns setof billing_private.task_runs
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query select * from billing_private.task_runs order by id desc limit 1000;
end;
$$;

create view billing_admin.task_runs with (security_invoker = true) as
select * from billing_private.admin_task_runs();

comment on view billing_admin.task_runs is
  'The last 1,000 runs of all tasks, newest first, with rows changed and errors.';


-- -----------------------------------------------------------------------------
-- 10  administrators and settings
-- -----------------------------------------------------------------------------

create function billing_private.note_admin_action(
  p_reason text,
  p_action text,
  p_subject text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.set_cause(
    'admin', coalesce(billing_private.user_id()::text, billing_private.caller_role()), p_reason);
  insert into billing_private.admin_actions (
    action, subject, reason, actor_id, actor_role, request_id
  )
  values (
    p_action, p_subject, p_reason, billing_private.user_id(), billing_private.caller_role(),
    billing_private.request_id()
  );
end;
$$;

comment on function billing_private.note_admin_action(text, text, text) is
  'Notes what an admin does and why, and names it as the cause of what follows.';


create function billing_private.begin_admin_action(
  p_reason text,
  p_action text,
  p_subject text default null
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  perform billing_private.require_reason(p_reason);
  perform billing_private.note_admin_action(p_reason, p_action, p_subject);
end;
$$;

comment on function billing_private.begin_admin_action(text, text, text) is
  'Opens every manual correction: checks the caller and the reason, notes both, and names them as '
  'the cause of what follows.';


create function billing_private.add_administrator(
  p_user_id uuid,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- administrators is writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'add_administrator', p_user_id::text);
  if p_user_id is null then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'user_id', 'problem', 'is required'));
  end if;
  insert into billing_private.administrators (user_id, reason)
  values (p_user_id, p_reason)
  on conflict (user_id) do nothing;
end;
$$;


create function billing_admin.add_administrator(
  user_id uuid,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.add_administrator(user_id, reason);
end;

comment on function billing_admin.add_administrator(uuid, text) is
$$Lets a user of the application use billing_admin. Twice changes nothing.

Errors
  VALIDATION_FAILED  400  no user, or no reason
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.remove_administrator(
  p_user_id uuid,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- administrators is writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'remove_administrator', p_user_id::text);
  delete from billing_private.administrators where user_id = p_user_id;
end;
$$;


create function billing_admin.remove_administrator(
  user_id uuid,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.remove_administrator(user_id, reason);
end;

comment on function billing_admin.remove_administrator(uuid, text) is
$$Takes the use of billing_admin away from a user. Twice changes nothing.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.set_stripe_livemode(
  p_livemode boolean,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- settings are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'set_stripe_livemode', p_livemode::text);
  if p_livemode is null then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'livemode', 'problem', 'is required'));
  end if;
  update billing_private.settings set stripe_livemode = p_livemode where only_row;

  -- What came in for the new mode while it was off is not lost.
  update billing_private.stripe_events
  set status = 'failed',
      status_reason = null,
      attempts = 0,
      next_attempt_at = billing_private.now(),
      finished_at = null
  where status = 'ignored'
    and status_reason = 'other_livemode'
    and livemode = p_livemode;
end;
$$;


create function billing_admin.set_stripe_livemode(
  livemode boolean,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.set_stripe_livemode(livemode, reason);
end;

comment on function billing_admin.set_stripe_livemode(boolean, text) is
$$Says which Stripe mode this database belongs to: false (test, as installed) or true (live).

Events of the other mode are stored and not applied; those that came for the chosen mode before
are applied by the next heartbeat.

Errors
  VALIDATION_FAILED  400  no mode, or no reason
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.configure_doorbell(
  p_functions_url text,
  p_vault_secret_name text,
  p_reason text
)
returns text
language plpgsql
volatile
security definer -- settings are writable by nobody
set search_path = ''
as $$
declare
  v_url text := rtrim(p_functions_url, '/');
begin
  perform billing_private.begin_admin_action(p_reason, 'configure_doorbell', p_functions_url);
  -- A secret key travels with every ring: in clear text only within one machine or its network.
  if v_url !~ '^https://[^[:space:]/?#@]+(/[^[:space:]?#]*)?$'
    and v_url !~ (
      '^http://([a-z0-9_-]+|127\.0\.0\.1|host\.docker\.internal)'
      '(:\d+)?(/[^[:space:]?#]*)?$')
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'functions_url', 'problem', 'an https address without a query is needed'));
  elsif (v_url is null) <> (p_vault_secret_name is null) or p_vault_secret_name !~ '\S' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'vault_secret_name', 'problem', 'the name of a secret in the Vault is needed'));
  end if;

  update billing_private.settings
  set functions_url = v_url,
      functions_secret_name = p_vault_secret_name
  where only_row;
  return case
    when v_url is null then 'off'
    else coalesce(billing_private.doorbell_problem(p_vault_secret_name), 'ready')
  end;
end;
$$;


create function billing_admin.configure_doorbell(
  functions_url text,
  vault_secret_name text,
  reason text
)
returns text
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.configure_doorbell(functions_url, vault_secret_name, reason);
end;

comment on function billing_admin.configure_doorbell(text, text, text) is
$$Has the heartbeat ring the dispatcher through pg_net when calls to Stripe are due. Returns ready,
off, or what is still missing (the settings are kept, and it rings once that is there).

functions_url: https://<project>.supabase.co/functions/v1; null switches the doorbell off.
vault_secret_name: the secret in the Vault that holds one of the project's secret keys.

Errors
  VALIDATION_FAILED  400  no reason, no https address, an address without a secret's name
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.set_repeated_trial(
  p_policy text,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- settings are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'set_repeated_trial', p_policy);
  if p_policy is null or p_policy not in ('flag', 'end_trial') then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'policy', 'problem', 'must be flag or end_trial'));
  end if;
  update billing_private.settings set repeated_trial = p_policy where only_row;
end;
$$;


create function billing_admin.set_repeated_trial(
  policy text,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.set_repeated_trial(policy, reason);
end;

comment on function billing_admin.set_repeated_trial(text, text) is
$$What becomes of a trial that was begun with a card or an address that has had one: flag (as
installed) lists it among the critical issues, end_trial begins to collect at once.

Trials that run already are judged when Stripe next tells of them.

Errors
  VALIDATION_FAILED  400  no such policy, or no reason
  NOT_AN_ADMIN       403  the caller is no administrator$$;


-- -----------------------------------------------------------------------------
-- 11  granting and revoking
-- -----------------------------------------------------------------------------

create function billing_private.require_account(p_account_id uuid)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.known_account(p_account_id);
begin
  if v_account_id is null then
    perform billing_private.fail('ACCOUNT_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  end if;
  return v_account_id;
end;
$$;

comment on function billing_private.require_account(uuid) is
  'The account an admin names, made if it is a user''s that has none yet (ACCOUNT_NOT_FOUND, 404).';


create function billing_private.grant_entitlement(
  p_account_id uuid,
  p_feature text,
  p_reason text,
  p_valid_until timestamptz,
  p_limit_value bigint,
  p_kind text default 'support',
  p_valid_from timestamptz default null
)
returns billing.entitlement_grants
language plpgsql
volatile
security definer -- grants are writable by nobody
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_valid_from timestamptz := coalesce(p_valid_from, v_now);
  v_account_id uuid;
  v_grant billing.entitlement_grants;
begin
  perform billing_private.begin_admin_action(p_reason, 'grant_entitlement', p_account_id::text);
  v_account_id := billing_private.require_account(p_account_id);
  if not exists (select from billing.features where key = p_feature) then
    perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object('feature', p_feature));
  elsif v_valid_from < v_now then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'valid_from', 'problem', 'must not be in the past'));
  elsif p_valid_until <= v_now then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'valid_until', 'problem', 'must be in the future'));
  elsif p_valid_until <= v_valid_from then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'valid_until', 'problem', 'must be after valid_from'));
  elsif p_limit_value < 0 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'limit_value', 'problem', 'must not be negative'));
  elsif p_kind is null
    or p_kind not in ('gift', 'support', 'promotion', 'trial_extension')
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'kind', 'problem', 'must be gift, support, promotion or trial_extension'));
  end if;

  insert into billing.entitlement_grants (
    account_id, feature_key, kind, limit_value, valid_from, valid_until, reason, granted_by
  )
  values (
    v_account_id, p_feature, p_kind, p_limit_value, v_valid_from,
    coalesce(p_valid_until, 'infinity'), p_reason, billing_private.user_id()
  )
  returning * into v_grant;
  return v_grant;
end;
$$;


create function billing_admin.grant_entitlement(
  account_id uuid,
  feature text,
  reason text,
  valid_until timestamptz default null,
  limit_value bigint default null,
  kind text default 'support',
  valid_from timestamptz default null
)
returns billing.entitlement_grants
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.grant_entitlement(
    account_id, feature, reason, valid_until, limit_value, kind, valid_from);
end;

comment on function billing_admin.grant_entitlement(
  uuid, text, text, timestamptz, bigint, text, timestamptz
) is
$$Gives an account a feature, beside what it pays for.

valid_until: end, exclusive; null for no end. limit_value: units of a limit or metered feature;
null for unlimited. kind: gift, support, promotion or trial_extension. valid_from: null for now.

Errors
  VALIDATION_FAILED  400  no reason, an unknown kind, a beginning in the past, an end that is not
                          after it, a negative limit
  NOT_AN_ADMIN       403  the caller is no administrator
  ACCOUNT_NOT_FOUND  404  neither an account nor a user has this id
  FEATURE_NOT_FOUND  404  there is no such feature$$;


create function billing_private.revoke_entitlement(
  p_grant_id uuid,
  p_reason text
)
returns billing.entitlement_grants
language plpgsql
volatile
security definer -- grants are writable by nobody
set search_path = ''
as $$
declare
  v_grant billing.entitlement_grants;
begin
  perform billing_private.begin_admin_action(p_reason, 'revoke_entitlement', p_grant_id::text);
  update billing.entitlement_grants
  set revoked_at = coalesce(revoked_at, billing_private.now()),
      revoked_reason = coalesce(revoked_reason, p_reason)
  where id = p_grant_id
  returning * into v_grant;
  if not found then
    perform billing_private.fail('GRANT_NOT_FOUND', jsonb_build_object('grant_id', p_grant_id));
  end if;
  return v_grant;
end;
$$;


create function billing_admin.revoke_entitlement(
  grant_id uuid,
  reason text
)
returns billing.entitlement_grants
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.revoke_entitlement(grant_id, reason);
end;

comment on function billing_admin.revoke_entitlement(uuid, text) is
$$Takes a grant back, at once. Twice changes nothing more.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  GRANT_NOT_FOUND    404  there is no such grant$$;


create function billing_private.grant_subscription(
  p_account_id uuid,
  p_price_key text,
  p_reason text,
  p_ends_at timestamptz,
  p_quantity bigint,
  p_kind text,
  p_starts_at timestamptz,
  p_payment_terms_days integer,
  p_discount_code text
)
returns setof billing.subscription_summary
language plpgsql
volatile
security definer -- subscriptions are writable by nobody
set search_path = ''
as $$
declare
  v_account_id uuid;
  v_price billing.prices;
  v_subscription_id uuid;
begin
  perform billing_private.begin_admin_action(p_reason, 'grant_subscription', p_account_id::text);
  v_account_id := billing_private.require_account(p_account_id);
  perform billing_private.require_grant_terms(
    p_ends_at, p_quantity, p_kind, p_starts_at, p_payment_terms_days);
  v_price := billing_private.offered_price(p_price_key);

  -- A statement of its own: within one, the summary would not see what was just started.
  v_subscription_id := billing_private.start_manual_subscription(
    v_account_id, v_price.id, p_quantity, p_ends_at, p_kind, p_starts_at, p_payment_terms_days,
    p_discount_code);
  return query select * from billing_private.summarize_subscription(v_subscription_id);
end;
$$;


create function billing_private.require_grant_terms(
  p_ends_at timestamptz,
  p_quantity bigint,
  p_kind text,
  p_starts_at timestamptz,
  p_payment_terms_days integer
)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_refused record;
begin
  select field, problem into v_refused
  from (values
    ('manual_kind', 'must be complimentary, invoiced or gifted',
      coalesce(p_kind not in ('complimentary', 'invoiced', 'gifted'), true)),
    ('quantity', 'must be at least 1', coalesce(p_quantity < 1, true)),
    ('ends_at', 'must be in the future', p_ends_at <= v_now),
    ('ends_at', 'must be after the start', p_ends_at <= p_starts_at),
    ('ends_at', 'a gift has an end', p_kind = 'gifted' and p_ends_at is null),
    ('starts_at', 'must lie within a year of now',
      p_starts_at not between v_now - interval '1 year' and v_now + interval '1 year'),
    ('payment_terms_days', 'must be from 0 to 365', p_payment_terms_days not between 0 and 365),
    ('payment_terms_days', 'are for invoiced subscriptions',
      p_payment_terms_days is not null and p_kind <> 'invoiced')
  ) as rules (field, problem, is_broken)
  where is_broken
  limit 1;
  if found then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', v_refused.field, 'problem', v_refused.problem));
  end if;
end;
$$;

comment on function billing_private.require_grant_terms(
  timestamptz, bigint, text, timestamptz, integer
) is
  'Refuses terms a manual subscription cannot have (VALIDATION_FAILED, 400).';


create function billing_admin.grant_subscription(
  account_id uuid,
  price_key text,
  reason text,
  ends_at timestamptz default null,
  quantity bigint default 1,
  manual_kind text default 'complimentary',
  starts_at timestamptz default null,
  payment_terms_days integer default null,
  discount_code text default null
)
returns setof billing.subscription_summary
language sql
volatile
set search_path = ''
begin atomic
  select *
  from billing_private.grant_subscription(
    account_id, price_key, reason, ends_at, quantity, manual_kind, starts_at,
    payment_terms_days, discount_code);
end;

comment on function billing_admin.grant_subscription(
  uuid, text, text, timestamptz, bigint, text, timestamptz, integer, text
) is
$$Starts a subscription that lives without Stripe.

manual_kind: complimentary (free), gifted (free, for a term) or invoiced (an invoice for each
period, which is paid with billing_admin.record_payment()).
ends_at: when it ends; null to renew until canceled. starts_at: null for now, at most a year away;
one that began in the past owes for what it has had. payment_terms_days: until an invoice is due,
counted from the start of its period; 14 unless said. discount_code: taken off an invoiced one.
The account cancels it and takes less of it with the usual RPCs; more of it is given by an admin or
the service, with billing.change_plan().

Errors
  VALIDATION_FAILED   400  no reason, or terms that cannot be
  PAYMENT_REQUIRED    402  the account owes an invoice
  NOT_AN_ADMIN        403  the caller is no administrator
  ACCOUNT_NOT_FOUND   404  neither an account nor a user has this id
  PRICE_NOT_FOUND     404  the price is not on offer
  ALREADY_SUBSCRIBED  409  the account has a running subscription
  DISCOUNT_NOT_VALID  422  details name the reason$$;


create function billing_private.admin_record_payment(
  p_invoice_id uuid,
  p_amount_minor bigint,
  p_reason text,
  p_reference text,
  p_method text,
  p_paid_at timestamptz
)
returns billing.invoices
language plpgsql
volatile
security definer -- invoices are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'record_payment', p_invoice_id::text);
  if coalesce(btrim(p_reference), '') = '' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'reference', 'problem', 'is needed: it tells this payment from another'));
  elsif p_paid_at > billing_private.now() then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'paid_at', 'problem', 'must not be in the future'));
  end if;
  return billing_private.record_payment(
    p_invoice_id, p_amount_minor, p_method, btrim(p_reference), p_paid_at);
end;
$$;


create function billing_admin.record_payment(
  invoice_id uuid,
  amount_minor bigint,
  reason text,
  reference text,
  method text default 'bank_transfer',
  paid_at timestamptz default null
)
returns billing.invoices
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_record_payment(
    invoice_id, amount_minor, reason, reference, method, paid_at);
end;

comment on function billing_admin.record_payment(uuid, bigint, text, text, text, timestamptz) is
$$Books a payment that came outside Stripe on the invoice of a manual subscription. Paying what was
overdue restores access in the same transaction.

amount_minor: in the invoice's currency, at most what remains. reference: what tells it from other
payments; the same one twice is booked once. paid_at: null for now.

Errors
  VALIDATION_FAILED  400  no reason or reference, an amount that is not owed, a time in the future
  NOT_AN_ADMIN       403  the caller is no administrator
  INVOICE_NOT_FOUND  404  no manual subscription has this invoice
  INVOICE_CLOSED     422  it is paid or void$$;


create function billing_private.admin_close_invoice(
  p_invoice_id uuid,
  p_reason text,
  p_action text,
  p_status text
)
returns billing.invoices
language plpgsql
volatile
security definer -- invoices are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, p_action, p_invoice_id::text);
  return billing_private.close_invoice(p_invoice_id, p_status);
end;
$$;


create function billing_admin.void_invoice(
  invoice_id uuid,
  reason text
)
returns billing.invoices
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_close_invoice(invoice_id, reason, 'void_invoice', 'void');
end;

comment on function billing_admin.void_invoice(uuid, text) is
$$Declares the invoice of a manual subscription void: it was never owed.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  INVOICE_NOT_FOUND  404  no manual subscription has this invoice
  INVOICE_CLOSED     422  it is paid, or a part of it$$;


create function billing_admin.write_off_invoice(
  invoice_id uuid,
  reason text
)
returns billing.invoices
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_close_invoice(
    invoice_id, reason, 'write_off_invoice', 'uncollectible');
end;

comment on function billing_admin.write_off_invoice(uuid, text) is
$$Gives the invoice of a manual subscription up as uncollectible; it may still be paid.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  INVOICE_NOT_FOUND  404  no manual subscription has this invoice
  INVOICE_CLOSED     422  it is paid or void$$;


-- -----------------------------------------------------------------------------
-- 12  correcting and replaying
-- -----------------------------------------------------------------------------

create function billing_private.admin_correct_entitlements(
  p_reason text,
  p_account_id uuid
)
returns bigint
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'correct_entitlements', p_account_id::text);
  if p_account_id is not null
    and not exists (select from billing.accounts where id = p_account_id)
  then
    perform billing_private.fail('ACCOUNT_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  end if;
  return billing_private.correct_entitlements(array(
    select id from billing.accounts where p_account_id is null or id = p_account_id));
end;
$$;


create function billing_admin.correct_entitlements(
  reason text,
  account_id uuid default null
)
returns bigint
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_correct_entitlements(reason, account_id);
end;

comment on function billing_admin.correct_entitlements(text, uuid) is
$$Repairs what billing_admin.entitlement_drift shows, and logs each row. Returns how many were
corrected.

account_id: null for all accounts, where they are so few that one call may look at each; else
correct_all_entitlements() goes through them in batches, and a task does so all the time.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  ACCOUNT_NOT_FOUND  404  there is no such account$$;


create type billing_admin.correction_batch as (
  checked integer,
  corrected bigint,
  resume_after uuid
);

comment on type billing_admin.correction_batch is
  'How many accounts a batch looked at, how many entitlements and profiles it corrected, and after '
  'which account the next batch begins; null after the last.';


create function billing_private.correct_all_entitlements(
  p_reason text,
  p_after uuid,
  p_at_most integer
)
returns billing_admin.correction_batch
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
  v_batch billing_admin.correction_batch;
begin
  perform billing_private.begin_admin_action(p_reason, 'correct_all_entitlements', p_after::text);
  if coalesce(p_at_most not between 1 and 10000, true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'at_most', 'problem', 'must be from 1 to 10000'));
  end if;

  v_account_ids := array(
    select id
    from billing.accounts
    where p_after is null or id > p_after
    order by id
    limit p_at_most
  );
  v_batch.checked := cardinality(v_account_ids);
  v_batch.corrected := billing_private.correct_entitlements(v_account_ids);
  v_batch.resume_after := case
    when v_batch.checked = p_at_most then v_account_ids[v_batch.checked]
  end;
  return v_batch;
end;
$$;


create function billing_admin.correct_all_entitlements(
  reason text,
  after_account uuid default null,
  at_most integer default 2000
)
returns billing_admin.correction_batch
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.correct_all_entitlements(reason, after_account, at_most);
end;

comment on function billing_admin.correct_all_entitlements(text, uuid, integer) is
$$Repairs what billing_admin.entitlement_drift shows, batch by batch, and logs each row.

after_account: resume_after of the batch before; null for the first. at_most: up to 10000 accounts
a batch.

Errors
  VALIDATION_FAILED  400  no reason, or at_most out of bounds
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.replay_event(
  p_event_id text,
  p_reason text
)
returns text
language plpgsql
volatile
security definer -- the inbox is writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'replay_event', p_event_id);
  update billing_private.stripe_events
  set attempts = 0
  where event_id = p_event_id
    and source = 'webhook';
  if not found then
    perform billing_private.fail('EVENT_NOT_FOUND', jsonb_build_object('event_id', p_event_id));
  end if;
  return billing_private.apply_event(p_event_id);
end;
$$;


create function billing_admin.replay_event(
  event_id text,
  reason text
)
returns text
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.replay_event(event_id, reason);
end;

comment on function billing_admin.replay_event(text, text) is
$$Applies a stored Stripe event again, with fresh retries. Returns its new status. Safe for an event
that was applied: newer state stays.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  EVENT_NOT_FOUND    404  there is no such event$$;


create function billing_private.discard_event(
  p_event_id text,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- the inbox is writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'discard_event', p_event_id);
  update billing_private.stripe_events
  set status = 'discarded',
      status_reason = p_reason,
      next_attempt_at = null,
      finished_at = billing_private.now()
  where event_id = p_event_id
    and status in ('pending', 'failed', 'dead', 'discarded');
  if not found then
    perform billing_private.fail('EVENT_NOT_FOUND', jsonb_build_object('event_id', p_event_id));
  end if;
end;
$$;


create function billing_admin.discard_event(
  event_id text,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.discard_event(event_id, reason);
end;

comment on function billing_admin.discard_event(text, text) is
$$Gives up on an event of the backlog for good; its text stays.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  EVENT_NOT_FOUND    404  the backlog holds no such event$$;


create type billing_admin.event_outcome as (
  event_id text,
  type text,
  object_id text,
  received_at timestamptz,
  status_before text,
  status text,
  error text
);

comment on type billing_admin.event_outcome is
  'What became of an event that a bulk correction chose; in a dry run, what it is.';


create function billing_private.choose_events(
  p_status text,
  p_type text,
  p_since timestamptz,
  p_until timestamptz,
  p_error_like text,
  p_at_most integer
)
returns setof billing_private.stripe_events
language plpgsql
volatile
set search_path = ''
as $$
begin
  if p_at_most not between 1 and 1000 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'at_most', 'problem', 'must be from 1 to 1000'));
  end if;

  -- Those that somebody is at work on are left to them.
  return query
  select *
  from billing_private.stripe_events
  where source = 'webhook'
    and status = any (case when p_status is null
      then array['pending', 'failed', 'dead'] else array[p_status] end)
    and (p_type is null or type = p_type)
    and (p_since is null or received_at >= p_since)
    and (p_until is null or received_at < p_until)
    and (p_error_like is null or last_error ->> 'message' like p_error_like)
  order by received_at, event_id
  limit coalesce(p_at_most, 100)
  for update skip locked;
end;
$$;

comment on function billing_private.choose_events(
  text, text, timestamptz, timestamptz, text, integer
) is
  'The events a bulk correction is about, oldest first, locked; by default those of the backlog.';


create function billing_private.replay_events(
  p_reason text,
  p_status text,
  p_type text,
  p_since timestamptz,
  p_until timestamptz,
  p_error_like text,
  p_at_most integer,
  p_dry_run boolean
)
returns setof billing_admin.event_outcome
language plpgsql
volatile
security definer -- the inbox is writable by nobody
set search_path = ''
as $$
declare
  v_events billing_private.stripe_events[];
begin
  perform billing_private.require_admin();
  perform billing_private.require_reason(p_reason);
  if p_status not in ('pending', 'failed', 'dead', 'applied', 'ignored', 'discarded') then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'status', 'problem', 'is not a status of events'));
  end if;
  v_events := array(
    select events
    from billing_private.choose_events(
      p_status, p_type, p_since, p_until, p_error_like, p_at_most) as events
  );

  if not coalesce(p_dry_run, false) then
    perform billing_private.begin_admin_action(p_reason, 'replay_events', event_id)
    from unnest(v_events);
    update billing_private.stripe_events
    set attempts = 0
    where event_id = any (array(select event_id from unnest(v_events)));
    perform billing_private.lock_for_events(v_events);
    perform billing_private.apply_events(array(
      select event_id from unnest(v_events) order by occurred_at, event_id
    ));
  end if;
  return query select * from billing_private.outcomes_of(v_events);
end;
$$;


create function billing_private.outcomes_of(p_events billing_private.stripe_events[])
returns setof billing_admin.event_outcome
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    before.event_id, before.type, before.object_id, before.received_at, before.status,
    stripe_events.status, stripe_events.last_error ->> 'message'
  from unnest(p_events) as before
  join billing_private.stripe_events using (event_id)
  order by before.received_at, before.event_id;
end;
$$;

comment on function billing_private.outcomes_of(billing_private.stripe_events[]) is
  'What events were when they were chosen, and what they are now.';


create function billing_admin.replay_events(
  reason text,
  status text default null,
  type text default null,
  since timestamptz default null,
  until timestamptz default null,
  error_like text default null,
  at_most integer default 100,
  dry_run boolean default false
)
returns setof billing_admin.event_outcome
language sql
volatile
set search_path = ''
begin atomic
  select *
  from billing_private.replay_events(
    reason, status, type, since, until, error_like, at_most, dry_run);
end;

comment on function billing_admin.replay_events(
  text, text, text, timestamptz, timestamptz, text, integer, boolean
) is
$$Applies stored Stripe events again, with fresh retries, each for itself: one that fails stops no
other. Returns each with its status before and after, oldest first.

status: null for all of the backlog (pending, failed, dead). type: an event type. since, until: when
they were received, until exclusive. error_like: a pattern for LIKE that the error must match.
at_most: up to 1000. dry_run: only shows which they are.
Newer state stays, so events that were applied may be replayed as well.

Errors
  VALIDATION_FAILED  400  no reason, no such status, or at_most out of bounds
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.discard_events(
  p_reason text,
  p_status text,
  p_type text,
  p_since timestamptz,
  p_until timestamptz,
  p_error_like text,
  p_at_most integer,
  p_dry_run boolean
)
returns setof billing_admin.event_outcome
language plpgsql
volatile
security definer -- the inbox is writable by nobody
set search_path = ''
as $$
declare
  v_events billing_private.stripe_events[];
begin
  perform billing_private.require_admin();
  perform billing_private.require_reason(p_reason);
  if p_status not in ('pending', 'failed', 'dead') then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'status', 'problem', 'is not a status of the backlog'));
  end if;
  v_events := array(
    select events
    from billing_private.choose_events(
      p_status, p_type, p_since, p_until, p_error_like, p_at_most) as events
  );

  if not coalesce(p_dry_run, false) then
    perform billing_private.discard_event(event_id, p_reason) from unnest(v_events);
  end if;
  return query select * from billing_private.outcomes_of(v_events);
end;
$$;


create function billing_admin.discard_events(
  reason text,
  status text default null,
  type text default null,
  since timestamptz default null,
  until timestamptz default null,
  error_like text default null,
  at_most integer default 100,
  dry_run boolean default false
)
returns setof billing_admin.event_outcome
language sql
volatile
set search_path = ''
begin atomic
  select *
  from billing_private.discard_events(
    reason, status, type, since, until, error_like, at_most, dry_run);
end;

comment on function billing_admin.discard_events(
  text, text, text, timestamptz, timestamptz, text, integer, boolean
) is
$$Gives up on events of the backlog for good; their text stays. Returns each with its status before
and after, oldest first.

Which ones: as for billing_admin.replay_events(), among pending, failed and dead ones.

Errors
  VALIDATION_FAILED  400  no reason, no status of the backlog, or at_most out of bounds
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.retry_command(
  p_command_id uuid,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- the outbox is writable by nobody
set search_path = ''
as $$
declare
  v_command billing_private.commands;
  v_when_old text;
  v_was_refused boolean;
begin
  perform billing_private.begin_admin_action(p_reason, 'retry_command', p_command_id::text);
  select * into v_command
  from billing_private.commands
  where id = p_command_id
    and status in ('pending', 'dead')
  for update;
  if not found then
    perform billing_private.fail('COMMAND_NOT_FOUND', jsonb_build_object(
      'command_id', p_command_id));
  end if;

  -- What Stripe refused it has not done, and would refuse again under the same key.
  v_was_refused := coalesce(
    not billing_private.may_pass(
      (v_command.last_error ->> 'http_status')::integer, v_command.last_error),
    false);
  select when_old into v_when_old
  from billing_private.command_kinds
  where kind = v_command.kind;
  if not v_was_refused
    and v_command.first_attempt_at <= billing_private.old_since()
    and coalesce(v_when_old, 'drop') = 'drop'
  then
    perform billing_private.fail('COMMAND_EXPIRED', jsonb_build_object(
      'command_id', p_command_id, 'first_attempt_at', v_command.first_attempt_at));
  end if;

  update billing_private.commands
  set status = 'pending',
      attempts = 0,
      next_attempt_at = billing_private.now(),
      idempotency_key = case when v_was_refused then gen_random_uuid() else idempotency_key end,
      first_attempt_at = case when not v_was_refused then first_attempt_at end,
      finished_at = null
  where id = p_command_id;
end;
$$;


create function billing_admin.retry_command(
  command_id uuid,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.retry_command(command_id, reason);
end;

comment on function billing_admin.retry_command(uuid, text) is
$$Puts a command that was given up, or waits for its next try, at the head of the line, with fresh
retries.

One that Stripe refused is made under a fresh idempotency key. One whose outcome is not known keeps
its key, and after 23 hours is made again only if a look at Stripe shows that it took no effect.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  COMMAND_NOT_FOUND  404  the backlog holds no such command
  COMMAND_EXPIRED    422  it is too old, and of a kind that is not made again$$;


create function billing_private.admin_run_task(
  p_task_key text,
  p_reason text
)
returns text
language plpgsql
volatile
security definer -- runs as the owner, like the heartbeat
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'run_task', p_task_key);
  if not exists (select from billing_private.tasks where key = p_task_key) then
    perform billing_private.fail('TASK_NOT_FOUND', jsonb_build_object('task', p_task_key));
  end if;
  return billing_private.run_task(p_task_key);
end;
$$;


create function billing_admin.run_task(
  task text,
  reason text
)
returns text
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_run_task(task, reason);
end;

comment on function billing_admin.run_task(text, text) is
$$Runs a task now, whether or not it is due: succeeded, failed (see billing_admin.task_runs), or
running when the heartbeat or somebody else is running tasks.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  TASK_NOT_FOUND     404  there is no such task$$;


-- -----------------------------------------------------------------------------
-- 13  drifts, sweeps, back-fill and rebuild
-- -----------------------------------------------------------------------------

create function billing_private.admin_drifts()
returns setof billing_private.drifts
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query select * from billing_private.drifts order by id desc limit 1000;
end;
$$;

create view billing_admin.drifts with (security_invoker = true) as
select
  object_type, object_id, class, event_id, differences, found_by, found_at, last_seen_at,
  repaired_at
from billing_private.admin_drifts();

comment on view billing_admin.drifts is
  'The last 1,000 times something stored was found to differ from what Stripe says, newest first: '
  'which fields, before and after, and when it was repaired.';


create function billing_private.admin_sweeps()
returns setof billing_private.sweeps
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query select * from billing_private.sweeps order by position desc limit 1000;
end;
$$;

create view billing_admin.sweeps with (security_invoker = true) as
select
  list_key, status, is_backfill, created_from, pages, members, changed, drifted, failures,
  last_error, asked_at, requested_at, started_at, finished_at
from billing_private.admin_sweeps();

comment on view billing_admin.sweeps is
  'The last 1,000 readings of Stripe''s lists, newest first: how far each is and what it found.';


create function billing_private.start_backfill(p_reason text)
returns bigint
language plpgsql
volatile
security definer -- the sweeps are writable by nobody
set search_path = ''
as $$
declare
  v_count bigint;
begin
  perform billing_private.begin_admin_action(p_reason, 'start_backfill');
  perform billing_private.request_sweep(key, true, null)
  from billing_private.stripe_lists
  order by position;
  get diagnostics v_count = row_count;
  perform billing_private.continue_sweeps();
  return v_count;
end;
$$;


create function billing_admin.start_backfill(reason text)
returns bigint
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.start_backfill(reason);
end;

comment on function billing_admin.start_backfill(text) is
$$Has all that a Stripe account holds read in: events of the last 30 days, catalog, customers,
subscriptions, money. Returns how many lists are in line; billing_admin.sweeps shows how far it is.

Whoever carries commands to Stripe carries this too, page by page, beside live events: what is newer
here stays. Called again it goes on where it was interrupted, or begins again after the end.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.set_drift_policy(
  p_class text,
  p_repairs boolean,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- the policies are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'set_drift_policy', p_class);
  update billing_private.drift_policies
  set repairs = p_repairs
  where class = p_class
    and p_repairs is not null;
  if not found then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'class', 'problem', 'must be a class of billing_admin.drifts, repairs true or false'
    ));
  end if;
end;
$$;


create function billing_admin.set_drift_policy(
  class text,
  repairs boolean,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.set_drift_policy(class, repairs, reason);
end;

comment on function billing_admin.set_drift_policy(text, boolean, text) is
$$Says whether a class of differences from Stripe is repaired at once (as installed) or only shown
in billing_admin.drifts.

class: missing, stale, different, surplus, event_missed or gone.

Errors
  VALIDATION_FAILED  400  no reason, or no such class
  NOT_AN_ADMIN       403  the caller is no administrator$$;


-- -----------------------------------------------------------------------------
-- 14  the catalog at Stripe
-- -----------------------------------------------------------------------------

create function billing_private.admin_publish_catalog(p_reason text)
returns bigint
language plpgsql
volatile
security definer -- the outbox is writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'publish_catalog');
  return billing_private.publish_plans(array(select id from billing.plans));
end;
$$;


create function billing_admin.publish_catalog(reason text)
returns bigint
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_publish_catalog(reason);
end;

comment on function billing_admin.publish_catalog(text) is
$$Makes every plan a product and every active price a price at Stripe, and brings those that are
there in step: name, description, activity, key. Returns how many calls that takes now; prices
follow their product. Asking again changes nothing more.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.admin_publish_plan(
  p_plan_key text,
  p_reason text
)
returns bigint
language plpgsql
volatile
security definer -- the outbox is writable by nobody
set search_path = ''
as $$
declare
  v_plan billing.plans := billing_private.begin_plan_action(p_plan_key, 'publish_plan', p_reason);
begin
  return billing_private.publish_plans(array[v_plan.id]);
end;
$$;


create function billing_admin.publish_plan(
  plan_key text,
  reason text
)
returns bigint
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_publish_plan(plan_key, reason);
end;

comment on function billing_admin.publish_plan(text, text) is
$$publish_catalog() for one plan with its prices: after adding it or a price, after renaming it,
after taking it off sale.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the plan is not of the caller's stores
  PLAN_NOT_FOUND     404  there is no such plan$$;


create function billing_private.admin_change_price(
  p_price_key text,
  p_unit_amount_minor bigint,
  p_reason text
)
returns billing.prices
language plpgsql
volatile
security definer -- prices are writable by nobody
set search_path = ''
as $$
declare
  v_price billing.prices;
  v_waiting billing.prices;
begin
  perform billing_private.begin_price_action(p_price_key, 'change_price', p_reason);
  perform billing_private.lock_catalog('price');
  select * into v_price from billing.prices where key = p_price_key and is_active for update;
  if not found then
    perform billing_private.fail('PRICE_NOT_FOUND', jsonb_build_object('price_key', p_price_key));
  elsif coalesce(p_unit_amount_minor < 0, true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'unit_amount_minor', 'problem', 'a whole number of at least 0 is needed'));
  elsif v_price.billing_scheme = 'tiered' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'price_key', 'problem', 'a price in tiers has no single amount'));
  elsif p_unit_amount_minor % billing_private.smallest_charge(v_price.currency) <> 0 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'unit_amount_minor',
      'problem', 'Stripe charges no such part of a unit in this currency'));
  elsif billing_private.is_being_published(v_price.id) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'price_key', 'problem', 'it is just being made at Stripe'));
  elsif v_price.unit_amount_minor = p_unit_amount_minor and v_price.replaced_by is null then
    return v_price;
  end if;

  select * into v_waiting from billing.prices where id = v_price.replaced_by;
  if billing_private.is_being_published(v_waiting.id) then
    if v_waiting.unit_amount_minor = p_unit_amount_minor then
      return v_waiting; -- twice changes nothing more
    end if;
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'price_key', 'problem', 'its last change is on the way to Stripe'));
  end if;
  return billing_private.replace_price(v_price, p_unit_amount_minor);
end;
$$;


create function billing_admin.change_price(
  price_key text,
  unit_amount_minor bigint,
  reason text
)
returns billing.prices
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_change_price(price_key, unit_amount_minor, reason);
end;

comment on function billing_admin.change_price(text, bigint, text) is
$$Sells at another amount under the same key from now on, for prices at Stripe as soon as Stripe has
it. Existing subscribers keep the price they bought. Returns the new price.

unit_amount_minor: in the smallest unit of the price's currency.

Errors
  VALIDATION_FAILED  400  no reason, a negative amount, a price in tiers, a change still under way
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the price is not of the caller's stores
  PRICE_NOT_FOUND    404  there is no active price of this key$$;


create function billing_private.admin_create_coupon(
  p_coupon_key text,
  p_percent_off numeric,
  p_amount_off_minor bigint,
  p_currency text,
  p_duration_in_months bigint,
  p_reason text
)
returns uuid
language plpgsql
volatile
security definer -- the outbox is writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'create_coupon', p_coupon_key);
  if coalesce(p_coupon_key !~ '^[A-Za-z0-9_-]{1,200}$', true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'coupon_key', 'problem', 'letters, digits, _ and - are needed'));
  elsif coalesce(p_percent_off not between 0.01 and 100, p_percent_off is not null)
    or (p_percent_off is null) = (p_amount_off_minor is null)
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'percent_off', 'problem', 'a percentage of at most 100, or an amount, is needed'));
  elsif p_amount_off_minor < 1 or (p_amount_off_minor is null) <> (p_currency is null)
    or p_currency !~ '^[a-z]{3}$'
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'amount_off_minor', 'problem', 'an amount above 0 with its currency is needed'));
  elsif p_duration_in_months < 0 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'duration_in_months', 'problem', 'must not be negative'));
  end if;

  return billing_private.enqueue_command(
    'create_coupon', null, '/v1/coupons',
    jsonb_strip_nulls(jsonb_build_object(
      'id', p_coupon_key,
      'percent_off', p_percent_off,
      'amount_off', p_amount_off_minor,
      'currency', p_currency,
      'duration', case
        when p_duration_in_months is null then 'forever'
        when p_duration_in_months = 0 then 'once'
        else 'repeating'
      end,
      'duration_in_months', nullif(p_duration_in_months, 0))));
end;
$$;


create function billing_admin.create_coupon(
  coupon_key text,
  reason text,
  percent_off numeric default null,
  amount_off_minor bigint default null,
  currency text default null,
  duration_in_months bigint default 0
)
returns uuid
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_create_coupon(
    coupon_key, percent_off, amount_off_minor, currency, duration_in_months, reason);
end;

comment on function billing_admin.create_coupon(text, text, numeric, bigint, text, bigint) is
$$Has Stripe make a coupon; it stands in billing.coupons once Stripe has answered. Returns the id of
the command.

coupon_key: the coupon's id at Stripe. Either percent_off, or amount_off_minor (smallest unit) with
its currency. duration_in_months: 0 for the first invoice alone, null for ever.

Errors
  VALIDATION_FAILED  400  no reason, a key Stripe would not take, not exactly one discount
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.rebuild_subscription(
  p_subscription_id uuid,
  p_reason text,
  p_repair boolean
)
returns setof billing.rebuilt_object
language plpgsql
volatile
security definer -- reads the inbox and writes what it tells, after checking the caller
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions;
begin
  perform billing_private.begin_admin_action(
    p_reason, 'rebuild_subscription', p_subscription_id::text);
  select * into v_subscription from billing.subscriptions where id = p_subscription_id;
  if v_subscription.stripe_subscription_id is null then
    perform billing_private.fail('SUBSCRIPTION_NOT_FOUND', jsonb_build_object(
      'subscription_id', p_subscription_id));
  end if;

  -- What others hang on comes first.
  return query
  select *
  from billing_private.rebuild(
    array[v_subscription.stripe_customer_id, v_subscription.stripe_subscription_id]
      || array(
        select stripe_invoice_id
        from billing.invoices
        where stripe_subscription_id = v_subscription.stripe_subscription_id
        order by stripe_invoice_id
      ),
    coalesce(p_repair, false));
end;
$$;


create function billing_admin.rebuild_subscription(
  subscription_id uuid,
  reason text,
  repair boolean default false
)
returns setof billing.rebuilt_object
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.rebuild_subscription(subscription_id, reason, repair);
end;

comment on function billing_admin.rebuild_subscription(uuid, text, boolean) is
$$Rebuilds a Stripe subscription, its customer and its invoices from the stored events and answers,
and returns what is stored otherwise: nothing where all is as it should be.

repair: keeps what was rebuilt, and records the drift; else nothing changes.

Errors
  VALIDATION_FAILED       400  no reason
  NOT_AN_ADMIN            403  the caller is no administrator
  SUBSCRIPTION_NOT_FOUND  404  there is no such subscription, or it is not Stripe's$$;


create type billing_admin.rebuild_batch as (
  rebuilt integer,
  resume_after text,
  found billing.rebuilt_object[]
);

comment on type billing_admin.rebuild_batch is
  'How many objects a batch rebuilt, which are stored otherwise, and after which object the '
  'next batch begins; null after the last.';


create function billing_private.rebuild_all(
  p_reason text,
  p_after text,
  p_at_most integer,
  p_repair boolean
)
returns billing_admin.rebuild_batch
language plpgsql
volatile
security definer -- reads the inbox and writes what it tells, after checking the caller
set search_path = ''
as $$
declare
  v_object_ids text[];
  v_batch billing_admin.rebuild_batch;
begin
  perform billing_private.begin_admin_action(p_reason, 'rebuild_all', p_after);
  if p_at_most not between 1 and 5000 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'at_most', 'problem', 'must be from 1 to 5000'));
  end if;

  v_object_ids := array(
    select object_id
    from billing_private.stripe_objects
    where object_id > coalesce(p_after, '')
    order by object_id
    limit coalesce(p_at_most, 1000)
  );
  v_batch.rebuilt := cardinality(v_object_ids);
  v_batch.resume_after := case
    when v_batch.rebuilt = coalesce(p_at_most, 1000) then v_object_ids[v_batch.rebuilt]
  end;
  v_batch.found := array(
    select objects
    from billing_private.rebuild(v_object_ids, coalesce(p_repair, false)) as objects
  );
  return v_batch;
end;
$$;


create function billing_admin.rebuild_all(
  reason text,
  after text default null,
  at_most integer default 1000,
  repair boolean default false
)
returns billing_admin.rebuild_batch
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.rebuild_all(reason, after, at_most, repair);
end;

comment on function billing_admin.rebuild_all(text, text, integer, boolean) is
$$Rebuilds all that is mirrored from Stripe from the stored events and answers, batch by batch, and
returns what is stored otherwise.

after: resume_after of the batch before; null for the first. at_most: up to 5000 objects a batch.
repair: keeps what was rebuilt, and records the drift; else nothing changes.

Errors
  VALIDATION_FAILED  400  no reason, or at_most out of bounds
  NOT_AN_ADMIN       403  the caller is no administrator$$;


-- -----------------------------------------------------------------------------
-- 15  stores
-- -----------------------------------------------------------------------------

create function billing_private.begin_store_action(
  p_store text,
  p_action text,
  p_reason text,
  p_subject text default null
)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_store_id uuid;
begin
  perform billing_private.store_scope();
  perform billing_private.require_reason(p_reason);
  if p_store is not null then
    select id into v_store_id from billing.stores where key = p_store;
    if not found then
      perform billing_private.fail('STORE_NOT_FOUND', jsonb_build_object('store', p_store));
    end if;
  end if;
  perform billing_private.require_store(v_store_id);
  perform billing_private.note_admin_action(p_reason, p_action, coalesce(p_subject, p_store));
  return v_store_id;
end;
$$;

comment on function billing_private.begin_store_action(text, text, text, text) is
  'begin_admin_action() about a store, for administrators and those of the store; without a store '
  'for administrators alone. Returns the store''s id.';


create function billing_private.create_store(
  p_store text,
  p_name text,
  p_reason text
)
returns billing.stores
language plpgsql
volatile
security definer -- stores are writable by nobody
set search_path = ''
as $$
declare
  v_store billing.stores;
begin
  perform billing_private.begin_admin_action(p_reason, 'create_store', p_store);
  perform billing_private.require_name(coalesce(p_name, ''));
  perform billing_private.require_free_key(
    'store', p_store, exists (select from billing.stores where key = p_store));
  insert into billing.stores (key, name)
  values (p_store, p_name)
  returning * into v_store;
  return v_store;
end;
$$;


create function billing_admin.create_store(
  store text,
  name text,
  reason text
)
returns billing.stores
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.create_store(store, name, reason);
end;

comment on function billing_admin.create_store(text, text, text) is
$$Adds a store. Its admins are named by add_store_admin(), its part of the revenue by
set_revenue_share().

Errors
  VALIDATION_FAILED  400  no reason, no name, a key that is none or is taken
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.update_store(
  p_store text,
  p_name text,
  p_is_active boolean,
  p_reason text
)
returns billing.stores
language plpgsql
volatile
security definer -- stores are writable by nobody
set search_path = ''
as $$
declare
  v_store_id uuid := billing_private.begin_store_action(p_store, 'update_store', p_reason);
  v_store billing.stores;
begin
  perform billing_private.require_name(p_name);
  update billing.stores
  set name = coalesce(p_name, name),
      is_active = coalesce(p_is_active, is_active)
  where id = v_store_id
  returning * into v_store;
  return v_store;
end;
$$;


create function billing_admin.update_store(
  store text,
  reason text,
  name text default null,
  is_active boolean default null
)
returns billing.stores
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.update_store(store, name, is_active, reason);
end;

comment on function billing_admin.update_store(text, text, text, boolean) is
$$Renames a store, closes or opens it: what a closed one sells is not on offer. Null leaves a thing
as it is; whoever subscribes keeps what they have.

Errors
  VALIDATION_FAILED  400  no reason, an empty name
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the caller administers another store
  STORE_NOT_FOUND    404  there is no such store$$;


create function billing_private.add_store_admin(
  p_store text,
  p_user_id uuid,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- store_admins is writable by nobody
set search_path = ''
as $$
declare
  v_store_id uuid := billing_private.begin_store_action(
    p_store, 'add_store_admin', p_reason, concat_ws(' ', p_store, p_user_id));
begin
  if p_user_id is null or v_store_id is null then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', case when p_user_id is null then 'user_id' else 'store' end,
      'problem', 'is required'));
  end if;
  insert into billing_private.store_admins (store_id, user_id, reason)
  values (v_store_id, p_user_id, p_reason)
  on conflict (store_id, user_id) do nothing;
end;
$$;


create function billing_admin.add_store_admin(
  store text,
  user_id uuid,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.add_store_admin(store, user_id, reason);
end;

comment on function billing_admin.add_store_admin(text, uuid, text) is
$$Lets a user of the application use billing_admin for what belongs to a store: its plans, prices,
subscriptions and revenue. Twice changes nothing.

Errors
  VALIDATION_FAILED  400  no user, no store, or no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the caller administers another store
  STORE_NOT_FOUND    404  there is no such store$$;


create function billing_private.remove_store_admin(
  p_store text,
  p_user_id uuid,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- store_admins is writable by nobody
set search_path = ''
as $$
declare
  v_store_id uuid := billing_private.begin_store_action(
    p_store, 'remove_store_admin', p_reason, concat_ws(' ', p_store, p_user_id));
begin
  delete from billing_private.store_admins
  where store_id = v_store_id
    and user_id = p_user_id;
end;
$$;


create function billing_admin.remove_store_admin(
  store text,
  user_id uuid,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.remove_store_admin(store, user_id, reason);
end;

comment on function billing_admin.remove_store_admin(text, uuid, text) is
$$Takes billing_admin for a store from a user. Twice changes nothing; whoever administers everything
goes on doing so.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the caller administers another store
  STORE_NOT_FOUND    404  there is no such store$$;


create function billing_private.set_revenue_share(
  p_store text,
  p_share_basis_points integer,
  p_effective_from timestamptz,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- shares are writable by nobody
set search_path = ''
as $$
declare
  v_from timestamptz := coalesce(p_effective_from, billing_private.now());
  v_store_id uuid;
begin
  -- Not by the store's own admins: it is the platform's money.
  perform billing_private.begin_admin_action(p_reason, 'set_revenue_share', p_store);
  select id into v_store_id from billing.stores where key = p_store;
  if not found then
    perform billing_private.fail('STORE_NOT_FOUND', jsonb_build_object('store', p_store));
  elsif coalesce(p_share_basis_points not between 0 and 10000, true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'share_basis_points', 'problem', 'must be between 0 and 10000'));
  elsif v_from < billing_private.now() then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'effective_from', 'problem', 'what was earned stays as it was'));
  end if;
  insert into billing_private.store_revenue_shares
    (store_id, effective_from, share_basis_points, reason)
  values (v_store_id, v_from, p_share_basis_points, p_reason)
  on conflict (store_id, effective_from) do update
  set share_basis_points = excluded.share_basis_points,
      reason = excluded.reason;
end;
$$;


create function billing_admin.set_revenue_share(
  store text,
  share_basis_points integer,
  reason text,
  effective_from timestamptz default null
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.set_revenue_share(store, share_basis_points, effective_from, reason);
end;

comment on function billing_admin.set_revenue_share(text, integer, text, timestamptz) is
$$Sets which part of its revenue a store gets from an instant on. What was paid before is shared as
it was.

share_basis_points: hundredths of a percent, 7000 for 70 %. effective_from: null for now.

Errors
  VALIDATION_FAILED  400  no reason, no part of the whole, an instant in the past
  NOT_AN_ADMIN       403  the caller is no administrator
  STORE_NOT_FOUND    404  there is no such store$$;


create function billing_private.admin_stores()
returns table (
  store_key text,
  store_name text,
  is_active boolean,
  plans_on_sale bigint,
  running_subscriptions bigint,
  share_basis_points integer,
  admins uuid[]
)
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
declare
  v_scope uuid[] := billing_private.store_scope();
begin
  return query
  select
    stores.key, stores.name, stores.is_active,
    (
      select count(*)
      from billing.plans
      where plans.store_id = stores.id and plans.is_active
    ),
    (
      select count(*)
      from billing.subscriptions
      join billing.prices on prices.id = subscriptions.price_id
      join billing.plans on plans.id = prices.plan_id
      where plans.store_id = stores.id
        and subscriptions.ended_at is null
        and subscriptions.status not in ('canceled', 'incomplete', 'incomplete_expired')
    ),
    coalesce(
      (
        select shares.share_basis_points
        from billing_private.store_revenue_shares as shares
        where shares.store_id = stores.id
          and shares.effective_from <= billing_private.now()
        order by shares.effective_from desc
        limit 1
      ),
      0),
    array(
      select user_id
      from billing_private.store_admins
      where store_admins.store_id = stores.id
      order by user_id
    )
  from billing.stores
  where v_scope is null or stores.id = any (v_scope)
  order by stores.key;
end;
$$;

create view billing_admin.stores with (security_invoker = true) as
select * from billing_private.admin_stores();

comment on view billing_admin.stores is
  'The stores the caller administers: plans on sale, subscriptions that run, the part of the '
  'revenue that the store gets now, and its admins.';


-- -----------------------------------------------------------------------------
-- 16  plans, prices and features
-- -----------------------------------------------------------------------------

-- What a price costs is never changed: change_price() replaces it.

create function billing_private.begin_plan_action(
  p_plan_key text,
  p_action text,
  p_reason text
)
returns billing.plans
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_plan billing.plans;
begin
  perform billing_private.store_scope();
  perform billing_private.require_reason(p_reason);
  v_plan := billing_private.require_plan(p_plan_key);
  perform billing_private.require_store(v_plan.store_id);
  perform billing_private.note_admin_action(p_reason, p_action, p_plan_key);
  return v_plan;
end;
$$;

comment on function billing_private.begin_plan_action(text, text, text) is
  'begin_admin_action() about a plan, for administrators and those of its store.';


create function billing_private.begin_price_action(
  p_price_key text,
  p_action text,
  p_reason text
)
returns billing.prices
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_price billing.prices;
begin
  perform billing_private.store_scope();
  perform billing_private.require_reason(p_reason);
  select * into v_price from billing.prices where key = p_price_key and is_active;
  if not found then
    perform billing_private.fail('PRICE_NOT_FOUND', jsonb_build_object('price_key', p_price_key));
  end if;
  perform billing_private.require_store(
    (select store_id from billing.plans where id = v_price.plan_id));
  perform billing_private.note_admin_action(p_reason, p_action, p_price_key);
  return v_price;
end;
$$;

comment on function billing_private.begin_price_action(text, text, text) is
  'begin_admin_action() about an active price, for administrators and those of its plan''s store.';


create function billing_private.follow_at_stripe(p_plan_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if billing_private.uses_stripe()
    or (select stripe_product_id from billing.plans where id = p_plan_id) is not null
  then
    perform billing_private.publish_plans(array[p_plan_id]);
  end if;
end;
$$;

comment on function billing_private.follow_at_stripe(uuid) is
  'Has Stripe follow a change of a plan, where Stripe is used at all.';


create function billing_private.require_free_key(
  p_field text,
  p_key text,
  p_is_taken boolean
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if coalesce(p_key !~ '^[a-z0-9][a-z0-9_-]{0,199}$', true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', p_field, 'problem', 'lower-case letters, digits, _ and - are needed'));
  elsif p_is_taken then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', p_field, 'problem', 'is taken'));
  end if;
end;
$$;

comment on function billing_private.require_free_key(text, text, boolean) is
  'Refuses a key that is none, or that something else has.';


create function billing_private.require_name(p_name text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_name !~ '\S' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'name', 'problem', 'must not be empty'));
  end if;
end;
$$;

comment on function billing_private.require_name(text) is
  'Refuses a name without any letter; null passes, where it means that nothing changes.';


create function billing_private.create_feature(
  p_feature text,
  p_name text,
  p_kind text,
  p_description text,
  p_reason text
)
returns billing.features
language plpgsql
volatile
security definer -- the catalog is writable by nobody
set search_path = ''
as $$
declare
  v_feature billing.features;
begin
  perform billing_private.begin_admin_action(p_reason, 'create_feature', p_feature);
  perform billing_private.require_free_key(
    'feature', p_feature, exists (select from billing.features where key = p_feature));
  perform billing_private.require_name(coalesce(p_name, ''));
  if coalesce(p_kind not in ('boolean', 'limit', 'metered'), true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'kind', 'problem', 'must be boolean, limit or metered'));
  end if;
  insert into billing.features (key, name, kind, description)
  values (p_feature, p_name, p_kind, p_description)
  returning * into v_feature;
  return v_feature;
end;
$$;


create function billing_admin.create_feature(
  feature text,
  name text,
  reason text,
  kind text default 'boolean',
  description text default null
)
returns billing.features
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.create_feature(feature, name, kind, description, reason);
end;

comment on function billing_admin.create_feature(text, text, text, text, text) is
$$Adds a feature, which plans can give from then on.

kind: boolean, limit (up to n at a time) or metered (n per period).

Errors
  VALIDATION_FAILED  400  no reason, no name, a key that is none or is taken, no such kind
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.create_plan(
  p_plan_key text,
  p_name text,
  p_store text,
  p_description text,
  p_kind text,
  p_tier text,
  p_tier_rank integer,
  p_features jsonb,
  p_is_listed boolean,
  p_reason text
)
returns billing.plans
language plpgsql
volatile
security definer -- the catalog is writable by nobody
set search_path = ''
as $$
declare
  v_store_id uuid;
  v_plan billing.plans;
begin
  v_store_id := billing_private.begin_store_action(p_store, 'create_plan', p_reason, p_plan_key);
  perform billing_private.require_name(coalesce(p_name, ''));
  perform billing_private.require_contents(p_features);
  if coalesce(p_kind not in ('base', 'add_on'), true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'kind', 'problem', 'must be base or add_on'));
  end if;
  perform billing_private.lock_catalog('product');
  perform billing_private.require_free_key(
    'plan_key', p_plan_key, exists (select from billing.plans where key = p_plan_key));

  insert into billing.plans (
    key, name, description, kind, store_id, tier, tier_rank, is_listed
  )
  values (
    p_plan_key, p_name, p_description, p_kind, v_store_id, p_tier, coalesce(p_tier_rank, 0),
    coalesce(p_is_listed, true)
  )
  returning * into v_plan;
  perform billing_private.write_contents(v_plan.id, p_features, 1);
  perform billing_private.follow_at_stripe(v_plan.id);
  return v_plan;
end;
$$;


create function billing_admin.create_plan(
  plan_key text,
  name text,
  reason text,
  store text default null,
  description text default null,
  kind text default 'base',
  tier text default null,
  tier_rank integer default 0,
  features jsonb default '{}',
  is_listed boolean default true
)
returns billing.plans
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.create_plan(
    plan_key, name, store, description, kind, tier, tier_rank, features, is_listed, reason);
end;

comment on function billing_admin.create_plan(
  text, text, text, text, text, text, text, integer, jsonb, boolean
) is
$$Adds a plan, at Stripe too where Stripe is used. It can be bought once it has a price.

store: the key of the store that sells it; null for the platform, which takes an administrator.
kind: base, or add_on. features: as billing.plan_offers shows them.

Errors
  VALIDATION_FAILED  400  no reason, no name, a key that is none or is taken, no such kind
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the caller administers another store
  STORE_NOT_FOUND    404  there is no such store
  FEATURE_NOT_FOUND  404  there is no such feature$$;


create function billing_private.update_plan(
  p_plan_key text,
  p_changes jsonb,
  p_reason text
)
returns billing.plans
language plpgsql
volatile
security definer -- the catalog is writable by nobody
set search_path = ''
as $$
declare
  v_plan billing.plans;
begin
  v_plan := billing_private.begin_plan_action(p_plan_key, 'update_plan', p_reason);
  perform billing_private.require_name(p_changes ->> 'name');
  if (p_changes ->> 'renewal_grace')::interval < interval '0'
    or (p_changes ->> 'past_due_grace')::interval < interval '0'
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'renewal_grace', 'problem', 'a grace must not be negative'));
  end if;

  perform billing_private.lock_catalog('product');
  update billing.plans
  set name = coalesce(p_changes ->> 'name', plans.name),
      description = case
        when p_changes ? 'description' then nullif(p_changes ->> 'description', '')
        else plans.description
      end,
      tier = coalesce(p_changes ->> 'tier', plans.tier),
      tier_rank = coalesce((p_changes ->> 'tier_rank')::integer, plans.tier_rank),
      is_listed = coalesce((p_changes ->> 'is_listed')::boolean, plans.is_listed),
      is_active = coalesce((p_changes ->> 'is_active')::boolean, plans.is_active),
      renewal_grace = coalesce((p_changes ->> 'renewal_grace')::interval, plans.renewal_grace),
      past_due_grace = coalesce((p_changes ->> 'past_due_grace')::interval, plans.past_due_grace)
  where id = v_plan.id
  returning * into v_plan;
  perform billing_private.follow_at_stripe(v_plan.id);
  return v_plan;
end;
$$;


create function billing_admin.update_plan(
  plan_key text,
  reason text,
  name text default null,
  description text default null,
  tier text default null,
  tier_rank integer default null,
  is_listed boolean default null,
  is_active boolean default null,
  renewal_grace interval default null,
  past_due_grace interval default null
)
returns billing.plans
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.update_plan(
    plan_key,
    jsonb_strip_nulls(jsonb_build_object(
      'name', name, 'description', description, 'tier', tier, 'tier_rank', tier_rank,
      'is_listed', is_listed, 'is_active', is_active, 'renewal_grace', renewal_grace,
      'past_due_grace', past_due_grace)),
    reason);
end;

comment on function billing_admin.update_plan(
  text, text, text, text, text, integer, boolean, boolean, interval, interval
) is
$$Changes what is said of a plan, its rank, graces, and whether it is shown and sold; at Stripe too.
Null leaves a thing as it is. Its key, kind and store stay; what it gives is changed by
publish_plan_version(), what it costs by change_price().

description: '' for none.

Errors
  VALIDATION_FAILED  400  no reason, an empty name, a negative grace
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the plan is not of the caller's stores
  PLAN_NOT_FOUND     404  there is no such plan$$;


create function billing_admin.archive_plan(
  plan_key text,
  reason text
)
returns billing.plans
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.update_plan(plan_key, '{"is_active": false}', reason);
end;

comment on function billing_admin.archive_plan(text, text) is
$$Takes a plan off sale, at Stripe too. Whoever has it keeps it; update_plan() puts it back on sale.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the plan is not of the caller's stores
  PLAN_NOT_FOUND     404  there is no such plan$$;


create function billing_private.problem_of_tiers(p_tiers jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  if coalesce(jsonb_typeof(p_tiers) <> 'array' or p_tiers = '[]', true) then
    return 'a list of tiers is needed';
  end if;
  return (
    with tiers as (
      select
        place,
        jsonb_typeof(tier) = 'object' as is_object,
        tier -> 'up_to' as given,
        billing_private.stripe_integer(tier -> 'up_to') as up_to,
        lag(billing_private.stripe_integer(tier -> 'up_to'), 1, 0::bigint)
          over (order by place) as below,
        place = count(*) over () as is_last,
        coalesce(
          billing_private.stripe_decimal(tier -> 'unit_amount_decimal'),
          billing_private.stripe_decimal(tier -> 'unit_amount')) as unit_amount,
        coalesce(
          billing_private.stripe_decimal(tier -> 'flat_amount_decimal'),
          billing_private.stripe_decimal(tier -> 'flat_amount')) as flat_amount
      from jsonb_array_elements(p_tiers) with ordinality as listed (tier, place)
    )
    select min(case
      when not is_object then 'each tier is an object'
      when is_last and coalesce(given, 'null') <> 'null' then 'the last one goes up to null'
      when not is_last and up_to > below is not true then 'up_to must rise from tier to tier'
      when coalesce(unit_amount, flat_amount) is null
        or unit_amount < 0 or flat_amount < 0 or flat_amount <> trunc(flat_amount)
        then 'each tier needs amounts, which must not be negative, and flat ones whole'
    end)
    from tiers
  );
end;
$$;

comment on function billing_private.problem_of_tiers(jsonb) is
  'What is wrong with tiers somebody wants to sell by; null when nothing is.';


create function billing_private.smallest_charge(p_currency text)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case
    when p_currency in ('bhd', 'jod', 'kwd', 'omr', 'tnd') then 10
    when p_currency in ('isk', 'ugx') then 100
    else 1
  end;
end;
$$;

comment on function billing_private.smallest_charge(text) is
  'Every amount in a currency is a multiple of this: https://docs.stripe.com/currencies, on '
  'three-decimal currencies and special cases.';


-- Long because it is one list of rules, one after the other.
create function billing_private.require_sellable(p_price billing.prices)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_field text;
  v_problem text;
begin
  select field, problem into v_field, v_problem
  from (values
    (1, 'currency', 'an ISO 4217 code in lower case is needed',
      coalesce(p_price.currency !~ '^[a-z]{3}$', true)),
    (2, 'unit_amount_minor', 'one is needed of unit_amount_minor, unit_amount_decimal and tiers',
      num_nonnulls(p_price.unit_amount_minor, p_price.unit_amount_decimal, p_price.tiers) <> 1),
    (3, 'unit_amount_minor', 'must not be negative',
      coalesce(p_price.unit_amount_minor, p_price.unit_amount_decimal) < 0),
    (4, 'unit_amount_decimal', 'at most 12 decimal places',
      scale(trim_scale(p_price.unit_amount_decimal)) > 12),
    (5, 'unit_amount_minor', 'Stripe charges no such part of a unit in this currency',
      p_price.unit_amount_minor % billing_private.smallest_charge(p_price.currency) <> 0),
    (7, 'tiers_mode', 'must be graduated or volume where there are tiers, and only there',
      case
        when p_price.tiers is null then p_price.tiers_mode is not null
        else coalesce(p_price.tiers_mode not in ('graduated', 'volume'), true)
      end),
    (8, 'tiers', billing_private.problem_of_tiers(p_price.tiers),
      p_price.tiers is not null
        and billing_private.problem_of_tiers(p_price.tiers) is not null),
    (9, 'package_size', 'must be above 0, with package_rounding up or down, and without tiers',
      num_nonnulls(p_price.package_size, p_price.package_rounding) > 0
        and not coalesce(
          p_price.package_size > 0
          and p_price.package_rounding in ('up', 'down')
          and p_price.tiers is null, false)),
    -- Three years at most: https://docs.stripe.com/api/prices/create
    (10, 'billing_interval', 'day, week, month, quarter or year is needed, three years at most',
      coalesce(
        p_price.interval_count not between 1 and case p_price.billing_interval
          when 'day' then 1095
          when 'week' then 156
          when 'month' then 36
          when 'year' then 3
        end, true)),
    (11, 'usage_type', 'must be licensed or metered',
      coalesce(p_price.usage_type not in ('licensed', 'metered'), true)),
    (12, 'stripe_meter_id', 'a metered price at Stripe needs a meter, and no other price one',
      (p_price.usage_type = 'metered' and billing_private.uses_stripe())
        and p_price.stripe_meter_id is null
        or p_price.usage_type <> 'metered' and p_price.stripe_meter_id is not null),
    (13, 'trial_days', 'must not be negative', p_price.trial_days < 0)
  ) as rules (place, field, problem, is_broken)
  where is_broken
  order by place
  limit 1;

  if found then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', v_field, 'problem', v_problem));
  end if;
end;
$$;

comment on function billing_private.require_sellable(billing.prices) is
  'Refuses a price that cannot be sold, here or at Stripe (VALIDATION_FAILED, 400).';


create function billing_private.create_price(
  p_plan_key text,
  p_price billing.prices,
  p_reason text
)
returns billing.prices
language plpgsql
volatile
security definer -- the catalog is writable by nobody
set search_path = ''
as $$
declare
  v_price billing.prices := p_price;
begin
  v_price.plan_id := (
    billing_private.begin_plan_action(p_plan_key, 'create_price', p_reason)
  ).id;
  if v_price.billing_interval = 'quarter' then
    v_price.billing_interval := 'month';
    v_price.interval_count := 3 * v_price.interval_count;
  end if;
  perform billing_private.require_sellable(v_price);
  perform billing_private.lock_catalog('price');
  perform billing_private.require_free_key(
    'price_key', v_price.key,
    exists (select from billing.prices where key = v_price.key and is_active));

  v_price.id := gen_random_uuid();
  v_price.unit_amount_decimal := coalesce(v_price.unit_amount_decimal, v_price.unit_amount_minor);
  if v_price.unit_amount_decimal = trunc(v_price.unit_amount_decimal) then
    v_price.unit_amount_minor := v_price.unit_amount_decimal;
  end if;
  v_price.billing_scheme := case when v_price.tiers is null then 'per_unit' else 'tiered' end;
  v_price.is_active := true;
  v_price.is_listed := coalesce(v_price.is_listed, true);
  v_price.created_at := billing_private.now();
  insert into billing.prices select v_price.* returning * into v_price;
  perform billing_private.follow_at_stripe(v_price.plan_id);
  return v_price;
end;
$$;


create function billing_admin.create_price(
  plan_key text,
  price_key text,
  currency text,
  reason text,
  unit_amount_minor bigint default null,
  billing_interval text default 'month',
  interval_count integer default 1,
  trial_days integer default null,
  unit_amount_decimal numeric default null,
  tiers_mode text default null,
  tiers jsonb default null,
  package_size bigint default null,
  package_rounding text default null,
  usage_type text default 'licensed',
  stripe_meter_id text default null,
  is_listed boolean default true
)
returns billing.prices
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.create_price(
    plan_key,
    jsonb_populate_record(null::billing.prices, jsonb_build_object(
      'key', price_key, 'currency', lower(currency), 'unit_amount_minor', unit_amount_minor,
      'unit_amount_decimal', unit_amount_decimal, 'billing_interval', billing_interval,
      'interval_count', interval_count, 'trial_days', trial_days, 'tiers_mode', tiers_mode,
      'tiers', tiers, 'package_size', package_size, 'package_rounding', package_rounding,
      'usage_type', usage_type, 'stripe_meter_id', stripe_meter_id, 'is_listed', is_listed)),
    reason);
end;

comment on function billing_admin.create_price(
  text, text, text, text, bigint, text, integer, integer, numeric, text, jsonb, bigint, text, text,
  text, boolean
) is
$$Sells a plan at one more price, at Stripe too where Stripe is used.

unit_amount_minor: in the currency's smallest unit; or unit_amount_decimal, with fractions of it; or
tiers with their mode. billing_interval: day, week, month, quarter or year. tiers: as in
billing.prices. package_size, package_rounding: units that are sold together, up or down.

Errors
  VALIDATION_FAILED  400  no reason, a key that is none or is taken, what cannot be sold like that
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the plan is not of the caller's stores
  PLAN_NOT_FOUND     404  there is no such plan$$;


create function billing_private.update_price(
  p_price_key text,
  p_trial_days integer,
  p_is_listed boolean,
  p_reason text
)
returns billing.prices
language plpgsql
volatile
security definer -- the catalog is writable by nobody
set search_path = ''
as $$
declare
  v_price billing.prices;
begin
  v_price := billing_private.begin_price_action(p_price_key, 'update_price', p_reason);
  if p_trial_days < 0 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'trial_days', 'problem', 'must not be negative'));
  end if;
  update billing.prices
  set trial_days = coalesce(p_trial_days, trial_days),
      is_listed = coalesce(p_is_listed, is_listed)
  where id = v_price.id
  returning * into v_price;
  return v_price;
end;
$$;


create function billing_admin.update_price(
  price_key text,
  reason text,
  trial_days integer default null,
  is_listed boolean default null
)
returns billing.prices
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.update_price(price_key, trial_days, is_listed, reason);
end;

comment on function billing_admin.update_price(text, text, integer, boolean) is
$$Changes with how long a trial a price is sold, and whether it is shown. Null leaves a thing as it
is. What it costs never changes: change_price() replaces it.

trial_days: 0 for no trial.

Errors
  VALIDATION_FAILED  400  no reason, a negative trial
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the price is not of the caller's stores
  PRICE_NOT_FOUND    404  there is no active price of this key$$;


create function billing_private.archive_price(
  p_price_key text,
  p_reason text
)
returns billing.prices
language plpgsql
volatile
security definer -- the catalog is writable by nobody
set search_path = ''
as $$
declare
  v_price billing.prices;
  v_product_id text;
begin
  v_price := billing_private.begin_price_action(p_price_key, 'archive_price', p_reason);
  v_product_id := (select stripe_product_id from billing.plans where id = v_price.plan_id);
  perform billing_private.lock_catalog('price');
  if v_price.replaced_by is not null or billing_private.is_being_published(v_price.id) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'price_key', 'problem', 'a change of it is on the way to Stripe'));
  elsif v_price.stripe_price_id = billing_private.stripe_id(
    billing_private.newest_snapshot(v_product_id) -> 'default_price')
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'price_key',
      'problem', 'Stripe keeps the default price of a product on sale: choose another one there'));
  end if;

  update billing.prices
  set is_active = false
  where id = v_price.id
  returning * into v_price;
  if v_price.stripe_price_id is not null then
    perform billing_private.follow_at_stripe(v_price.plan_id);
  end if;
  return v_price;
end;
$$;


create function billing_admin.archive_price(
  price_key text,
  reason text
)
returns billing.prices
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.archive_price(price_key, reason);
end;

comment on function billing_admin.archive_price(text, text) is
$$Takes a price off sale, at Stripe too. Whoever has it keeps it. Its key is free then.

Errors
  VALIDATION_FAILED  400  no reason, a change of it under way, the default price of its product
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the price is not of the caller's stores
  PRICE_NOT_FOUND    404  there is no active price of this key$$;


-- -----------------------------------------------------------------------------
-- 17  contents of plans
-- -----------------------------------------------------------------------------

create function billing_private.plan_contents(
  p_plan_id uuid,
  p_version integer
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_object_agg(feature_key, coalesce(to_jsonb(limit_value), 'true')), '{}')
    from billing.plan_features
    where plan_id = p_plan_id
      and version = p_version
  );
end;
$$;

comment on function billing_private.plan_contents(uuid, integer) is
  'The features of a version of a plan with their limits, as in billing.plan_offers.';


create function billing_private.contents_told(
  p_plan_id uuid,
  p_features jsonb,
  p_version integer
)
returns setof billing.plan_features
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    p_plan_id,
    p_version,
    told.key,
    billing_private.stripe_integer(told.terms -> 'limit'),
    (told.terms ->> 'resets_every')::interval,
    coalesce(told.terms ->> 'overage', 'refuse'),
    (told.terms ->> 'overage_limit')::bigint,
    coalesce((told.terms ->> 'rollover_floor')::bigint, 0),
    coalesce((told.terms ->> 'rollover_cap')::bigint, 0),
    coalesce(told.terms ->> 'on_plan_change', 'keep')
  from (
    select
      given.key,
      -- What is not said of a feature that the plan has stays as it is.
      coalesce(to_jsonb(before) - array['plan_id', 'version', 'feature_key', 'limit_value'], '{}')
        || case jsonb_typeof(given.value)
          when 'object' then given.value
          else jsonb_build_object('limit', given.value)
        end as terms
    from jsonb_each(p_features) as given
    left join billing.plans on plans.id = p_plan_id
    left join billing.plan_features as before
      on before.plan_id = plans.id
      and before.version = plans.version
      and before.feature_key = given.key
  ) as told;
end;
$$;

comment on function billing_private.contents_told(uuid, jsonb, integer) is
  'The rows of billing.plan_features that contents come to, as somebody writes them.';


create function billing_private.require_contents(p_features jsonb)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_key text;
  v_value jsonb;
begin
  if jsonb_typeof(p_features) is distinct from 'object' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'features', 'problem', 'feature keys with their limits are needed'));
  end if;
  for v_key, v_value in select * from jsonb_each(p_features) loop
    if not exists (select from billing.features where key = v_key) then
      perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object('feature', v_key));
    end if;
    if jsonb_typeof(v_value) = 'object' then
      if exists (
        select
        from jsonb_object_keys(v_value) as term
        where term not in (
          'limit', 'resets_every', 'overage', 'overage_limit', 'rollover_floor', 'rollover_cap',
          'on_plan_change'
        )
      ) then
        perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
          'field', 'features', 'feature', v_key, 'problem', 'has terms nobody knows'));
      end if;
      v_value := v_value -> 'limit';
    end if;
    if coalesce(v_value, 'null') <> 'true'
      and billing_private.stripe_integer(v_value) >= 0 is not true
    then
      perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
        'field', 'features', 'feature', v_key,
        'problem', 'a whole number of at least 0, or true for no limit, is needed'));
    end if;
  end loop;
end;
$$;

comment on function billing_private.require_contents(jsonb) is
  'Refuses what cannot be the contents of a plan.';


create function billing_private.write_contents(
  p_plan_id uuid,
  p_features jsonb,
  p_version integer
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing.plan_features
  select * from billing_private.contents_told(p_plan_id, p_features, p_version);
exception when check_violation or data_exception then
  perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
    'field', 'features', 'problem', sqlerrm));
end;
$$;

comment on function billing_private.write_contents(uuid, jsonb, integer) is
  'Writes the contents of a version (VALIDATION_FAILED, 400, for terms that cannot be).';


create function billing_private.require_plan(p_plan_key text)
returns billing.plans
language plpgsql
stable
set search_path = ''
as $$
declare
  v_plan billing.plans;
begin
  select * into v_plan from billing.plans where key = p_plan_key;
  if not found then
    perform billing_private.fail('PLAN_NOT_FOUND', jsonb_build_object('plan_key', p_plan_key));
  end if;
  return v_plan;
end;
$$;

comment on function billing_private.require_plan(text) is
  'The plan of a key. Refuses a key no plan has (PLAN_NOT_FOUND, 404).';


create function billing_private.contents_agree(
  p_plan_id uuid,
  p_version integer,
  p_other_version integer
)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return not exists (
    select
    from billing.plan_features as one
    full join billing.plan_features as other
      on other.plan_id = p_plan_id
      and other.version = p_other_version
      and other.feature_key = one.feature_key
    where (one.plan_id = p_plan_id and one.version = p_version or one.plan_id is null)
      and (other.plan_id = p_plan_id and other.version = p_other_version or other.plan_id is null)
      and (to_jsonb(one) - 'version') is distinct from (to_jsonb(other) - 'version')
  );
end;
$$;

comment on function billing_private.contents_agree(uuid, integer, integer) is
  'True when two versions of a plan give the same.';


create function billing_private.publish_plan_version(
  p_plan_key text,
  p_features jsonb,
  p_reason text
)
returns billing.plan_versions
language plpgsql
volatile
security definer -- the catalog is writable by nobody
set search_path = ''
as $$
declare
  v_plan billing.plans;
  v_version billing.plan_versions;
begin
  perform billing_private.begin_plan_action(p_plan_key, 'publish_plan_version', p_reason);
  perform billing_private.require_contents(p_features);
  perform billing_private.lock_catalog('product');
  v_plan := billing_private.require_plan(p_plan_key);

  insert into billing.plan_versions (plan_id, version, published_at, reason)
  values (v_plan.id, v_plan.version + 1, billing_private.now(), p_reason)
  returning * into v_version;
  perform billing_private.write_contents(v_plan.id, p_features, v_version.version);

  if billing_private.contents_agree(v_plan.id, v_plan.version, v_version.version) then
    -- Twice changes nothing more.
    delete from billing.plan_versions
    where plan_id = v_plan.id
      and version = v_version.version;
    select * into strict v_version
    from billing.plan_versions
    where plan_id = v_plan.id
      and version = v_plan.version;
    return v_version;
  end if;
  update billing.plans set version = v_version.version where id = v_plan.id;
  return v_version;
end;
$$;


create function billing_admin.publish_plan_version(
  plan_key text,
  features jsonb,
  reason text
)
returns billing.plan_versions
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.publish_plan_version(plan_key, features, reason);
end;

comment on function billing_admin.publish_plan_version(text, jsonb, text) is
$$Sells a plan with other contents from now on. Existing subscribers keep what they bought until
billing_admin.migrate_plan() moves them. The same contents again change nothing.

features: all that the plan gives then, as billing.plan_offers shows it: feature keys with their
limit, true where there is none; or with {"limit": …} and what else is said of usage in
billing.plan_features (resets_every, overage, …), which otherwise stays as it is.

Errors
  VALIDATION_FAILED  400  no reason, or no contents
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the plan is not of the caller's stores
  PLAN_NOT_FOUND     404  there is no such plan
  FEATURE_NOT_FOUND  404  there is no such feature$$;


-- -----------------------------------------------------------------------------
-- 18  giving money back
-- -----------------------------------------------------------------------------

create function billing_private.refundable_amount(p_payment billing.payments)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  return p_payment.amount_received_minor
    -- The charge and its refunds are told of one by one: whichever knows of more is ahead.
    - greatest(
      p_payment.amount_refunded_minor,
      (
        select coalesce(sum(amount_minor), 0)
        from billing.refunds
        where stripe_payment_key = p_payment.stripe_payment_key
          and coalesce(status not in ('failed', 'canceled'), true)
      ))
    - (
      select coalesce(sum((params ->> 'amount')::bigint), 0)
      from billing_private.commands
      where subject_id = p_payment.id
        and kind = 'refund_charge'
        and status in ('pending', 'leased', 'succeeded')
        and not exists (
          select from billing.refunds where stripe_refund_id = commands.result_id
        )
    );
end;
$$;

comment on function billing_private.refundable_amount(billing.payments) is
  'What is left of a payment: received, not given back, and not on the way back. In the smallest '
  'unit of its currency.';


-- Long for its refusals.
create function billing_private.admin_refund_payment(
  p_payment_id uuid,
  p_reason text,
  p_reference text,
  p_amount_minor bigint,
  p_refund_reason text
)
returns uuid
language plpgsql
volatile
security definer -- the outbox is writable by nobody
set search_path = ''
as $$
declare
  v_payment billing.payments;
  v_asked billing_private.commands;
  v_left bigint;
begin
  perform billing_private.begin_admin_action(p_reason, 'refund_payment', p_payment_id::text);
  if coalesce(btrim(p_reference) !~ '^.{1,200}$', true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'reference', 'problem', 'is needed: it tells this refund from another'));
  elsif p_refund_reason not in ('duplicate', 'fraudulent', 'requested_by_customer') then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'refund_reason',
      'problem', 'must be duplicate, fraudulent or requested_by_customer'));
  end if;

  -- Two at once would each find all of it.
  perform billing_private.lock_payment(
    (select stripe_payment_key from billing.payments where id = p_payment_id));
  select * into v_payment
  from billing.payments
  where id = p_payment_id
    and stripe_payment_key is not null;
  if not found then
    perform billing_private.fail('PAYMENT_NOT_FOUND', jsonb_build_object(
      'payment_id', p_payment_id));
  end if;

  select * into v_asked
  from billing_private.commands
  where subject_id = p_payment_id
    and kind = 'refund_charge'
    and params #>> '{metadata,reference}' = btrim(p_reference);
  if found and coalesce((v_asked.params ->> 'amount')::bigint = p_amount_minor, true) then
    return v_asked.id; -- twice changes nothing more
  elsif found then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'reference', 'problem', 'names a refund of another amount',
      'amount_minor', (v_asked.params ->> 'amount')::bigint));
  end if;

  v_left := billing_private.refundable_amount(v_payment);
  if p_amount_minor < 1 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'amount_minor', 'problem', 'must be above 0'));
  elsif v_left < greatest(p_amount_minor, 1) then
    perform billing_private.fail('REFUND_TOO_HIGH', jsonb_build_object(
      'payment_id', p_payment_id, 'left_minor', v_left, 'currency', v_payment.currency));
  end if;
  return billing_private.enqueue_command(
    'refund_charge', v_payment.account_id, '/v1/refunds',
    jsonb_strip_nulls(jsonb_build_object(
      case when v_payment.stripe_payment_key like 'pi\_%' then 'payment_intent' else 'charge' end,
      v_payment.stripe_payment_key,
      'amount', coalesce(p_amount_minor, v_left),
      'reason', p_refund_reason,
      'metadata', jsonb_build_object('reference', btrim(p_reference)))),
    'POST', v_payment.id);
end;
$$;


create function billing_admin.refund_payment(
  payment_id uuid,
  reason text,
  reference text,
  amount_minor bigint default null,
  refund_reason text default null
)
returns uuid
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_refund_payment(
    payment_id, reason, reference, amount_minor, refund_reason);
end;

comment on function billing_admin.refund_payment(uuid, text, text, bigint, text) is
$$Has Stripe give back what is left of a payment, or a part of it. Returns the command's id.

The refund stands in billing.refunds once Stripe has answered, and the plan's access policy follows
it; what Stripe refuses stands in billing_admin.command_backlog.
reference: what tells it from other refunds of the payment; the same one twice is one refund.
amount_minor: in the payment's currency; null for what is left when it is asked for. refund_reason:
what Stripe is told: duplicate, fraudulent (Stripe blocks the card) or requested_by_customer.

Errors
  VALIDATION_FAILED  400  no reason or reference, no amount, a reason Stripe does not know
  NOT_AN_ADMIN       403  the caller is no administrator
  PAYMENT_NOT_FOUND  404  Stripe has no such payment
  REFUND_TOO_HIGH    422  more than is left, also of what is on the way back$$;


-- -----------------------------------------------------------------------------
-- 19  metering the application's tables
-- -----------------------------------------------------------------------------

-- Not granted to any API role, whoever it is: whoever makes triggers on the application's tables
-- writes migrations.
create function billing_admin.meter_table(table_name regclass, feature text, owner_column name)
returns bigint
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.meter_table(table_name, feature, owner_column::text);
end;

comment on function billing_admin.meter_table(regclass, text, name) is
$$Has the rows of a table counted against a feature, and returns how many there are. For the table's
owner, in a migration. Called again it changes nothing; with another column, that one counts.

owner_column: a uuid, the id of a user or of an account. A row without an owner counts for nobody.
Of a limit feature each row is a unit its owner holds: inserting takes it, deleting gives it back,
another owner takes it over. Several tables may share a feature; nothing else may count it then. Of
a metered feature each new row is a unit used in the running period, which nothing gives back.
What there is no room for is refused, the whole statement. Rows that are there already count even
beyond the limit. Policies, grants and other triggers of the table stay as they are.

Errors (of statements on the table)
  FEATURE_NOT_INCLUDED  402  no source gives the owner this feature
  LIMIT_REACHED         402  the limit leaves less than the statement adds
Errors
  VALIDATION_FAILED     400  not a table, column or feature that can be counted; details say why
  FEATURE_NOT_FOUND     404  there is no such feature$$;


create function billing_admin.unmeter_table(table_name regclass, feature text)
returns bigint
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.unmeter_table(table_name, feature);
end;

comment on function billing_admin.unmeter_table(regclass, text) is
$$Ends what billing_admin.meter_table() began and gives back what the table's rows held; returns how
many rows they were. Nothing happens where the table is not metered. For the table's owner.

Errors
  FEATURE_NOT_FOUND  404  there is no such feature$$;


create function billing_private.admin_metered_tables()
returns table (table_name text, feature_key text, owner_column text, is_broken boolean)
language plpgsql
stable
security definer -- reads which triggers there are after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select
    metered_tables.relation::text, metered_tables.feature_key, metered_tables.owner_column,
    metered_tables.is_broken
  from billing_private.metered_tables() as metered_tables;
end;
$$;

create view billing_admin.metered_tables with (security_invoker = true) as
select * from billing_private.admin_metered_tables();

comment on view billing_admin.metered_tables is
  'Tables whose rows are counted. is_broken: not all are, because a trigger is switched off or gone'
  ' or a partition has come without; billing_admin.meter_table() sets it right.';


create function billing_private.admin_recount_metered_table(p_relation regclass, p_reason text)
returns bigint
language plpgsql
volatile
security definer -- totals are writable by nobody
set search_path = ''
as $$
declare
  v_feature_key text;
  v_count bigint := 0;
begin
  perform billing_private.begin_admin_action(
    p_reason, 'recount_metered_table', p_relation::text);
  for v_feature_key in
    select metered_tables.feature_key
    from billing_private.metered_tables() as metered_tables
    where metered_tables.relation = p_relation
  loop
    v_count := v_count + billing_private.repair_metering(v_feature_key, null);
  end loop;
  return v_count;
end;
$$;


create function billing_admin.recount_metered_table(table_name regclass, reason text)
returns bigint
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_recount_metered_table(table_name, reason);
end;

comment on function billing_admin.recount_metered_table(regclass, text) is
$$Compares the totals of the features a table is metered for with the rows there are, and repairs
them; returns how many were wrong. A task does so by itself. Accounts counted at the moment are left
out.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator$$;


-- -----------------------------------------------------------------------------
-- 20  moving subscribers to other plans
-- -----------------------------------------------------------------------------

create function billing_private.plan_for_migration(p_plan_key text)
returns billing.plans
language plpgsql
stable
set search_path = ''
as $$
declare
  v_plan billing.plans;
begin
  perform billing_private.store_scope();
  v_plan := billing_private.require_plan(p_plan_key);
  perform billing_private.require_store(v_plan.store_id);
  return v_plan;
end;
$$;

comment on function billing_private.plan_for_migration(text) is
  'A plan from or to which the caller may move subscribers: of the own store, or any.';


create function billing_private.version_for_migration(
  p_from billing.plans,
  p_to billing.plans,
  p_to_version integer
)
returns integer
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_from.kind <> p_to.kind then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'to_plan', 'problem', 'a base plan does not become an add-on, nor an add-on one'));
  elsif p_to_version is not null and (p_from.id <> p_to.id or not exists (
    select from billing.plan_versions where plan_id = p_to.id and version = p_to_version
  )) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'to_version', 'problem', 'a version of the plan is needed, and only within it'));
  end if;
  return coalesce(p_to_version, p_to.version);
end;
$$;

comment on function billing_private.version_for_migration(
  billing.plans, billing.plans, integer
) is
  'The version a migration leads to: the one named, else the one on sale (VALIDATION_FAILED, 400, '
  'for a migration that cannot be).';


create function billing_private.gains_over(
  p_contents jsonb,
  p_others jsonb
)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return (
    select coalesce(jsonb_object_agg(key, value), '{}')
    from jsonb_each(p_contents)
    where not p_others ? key
      or p_others -> key <> 'true'
        and (value = 'true' or (value #>> '{}')::numeric > (p_others ->> key)::numeric)
  );
end;
$$;

comment on function billing_private.gains_over(jsonb, jsonb) is
  'What the first contents give beyond the second: features the others lack, and higher limits.';


create type billing_admin.migration_preview as (
  from_version integer,
  currency text,
  accounts bigint,
  subscriptions bigint,
  mrr_before_minor bigint,
  mrr_after_minor bigint,
  gained jsonb,
  lost jsonb,
  skipped bigint,
  problems jsonb
);

comment on type billing_admin.migration_preview is
  'What a migration would do to the subscribers of one version in one currency. Monthly recurring '
  'revenue in the smallest unit, before discounts. gained: features with their new limit; lost: '
  'features with the limit they had. skipped: how many would stay, and for which problems.';


create function billing_private.preview_plan_migration(
  p_from_plan text,
  p_to_plan text,
  p_to_version integer,
  p_accounts uuid[],
  p_price_key text
)
returns setof billing_admin.migration_preview
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
declare
  v_from billing.plans := billing_private.plan_for_migration(p_from_plan);
  v_to billing.plans := billing_private.plan_for_migration(p_to_plan);
  v_version integer := billing_private.version_for_migration(v_from, v_to, p_to_version);
  v_contents jsonb := billing_private.plan_contents(v_to.id, v_version);
begin
  return query
  with candidates as materialized (
    select *
    from billing_private.migration_candidates(
      v_from.id, v_to.id, v_version, p_accounts, p_price_key)
  ),
  totals as (
    select
      candidates.from_version,
      candidates.currency,
      count(distinct account_id) filter (where problem is null) as accounts,
      count(distinct subscription_id) filter (where problem is null) as subscriptions,
      coalesce(sum(monthly_before) filter (where problem is null), 0) as monthly_before,
      coalesce(sum(monthly_after) filter (where problem is null), 0) as monthly_after,
      count(problem) as skipped
    from candidates
    group by candidates.from_version, candidates.currency
  )
  select
    totals.from_version, totals.currency, totals.accounts, totals.subscriptions,
    totals.monthly_before::bigint, totals.monthly_after::bigint,
    billing_private.gains_over(v_contents, before.contents),
    billing_private.gains_over(before.contents, v_contents),
    totals.skipped,
    (
      select coalesce(jsonb_object_agg(counted.problem, counted.times), '{}')
      from (
        select candidates.problem, count(*) as times
        from candidates
        where candidates.from_version = totals.from_version
          and candidates.currency = totals.currency
          and candidates.problem is not null
        group by candidates.problem
      ) as counted
    )
  from totals
  cross join lateral (
    select billing_private.plan_contents(v_from.id, totals.from_version) as contents
  ) as before
  order by totals.from_version, totals.currency;
end;
$$;


create function billing_admin.preview_plan_migration(
  from_plan text,
  to_plan text,
  to_version integer default null,
  accounts uuid[] default null,
  price_key text default null
)
returns setof billing_admin.migration_preview
language sql
stable
set search_path = ''
begin atomic
  select * from billing_private.preview_plan_migration(
    from_plan, to_plan, to_version, accounts, price_key);
end;

comment on function billing_admin.preview_plan_migration(text, text, integer, uuid[], text) is
$$What migrate_plan() would change in revenue and access, without changing anything: a row for each
version that is left and each currency. No rows where nobody would be moved.

Errors
  VALIDATION_FAILED  400  no such version, or plans of two kinds
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  a plan is not of the caller's stores
  PLAN_NOT_FOUND     404  there is no such plan$$;


create function billing_private.admin_plan_migrations()
returns table (
  migration_id uuid,
  from_plan text,
  to_plan text,
  to_version integer,
  proration text,
  reason text,
  created_at timestamptz,
  steps bigint,
  pending bigint,
  asked bigint,
  moved bigint,
  skipped bigint,
  problems jsonb
)
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
declare
  v_scope uuid[] := billing_private.store_scope();
begin
  return query
  with steps as (
    select
      plan_migration_steps.migration_id,
      -- What Stripe was asked is known from its answer.
      case
        when plan_migration_steps.status <> 'asked' then plan_migration_steps.status
        when commands.status in ('pending', 'leased') then 'asked'
        when commands.status in ('declined', 'dead', 'canceled') then 'skipped'
        else 'moved'
      end as status,
      coalesce(
        plan_migration_steps.problem,
        case when commands.status in ('declined', 'dead', 'canceled')
          then commands.status || '_at_stripe' end) as problem
    from billing_private.plan_migration_steps
    left join billing_private.commands on commands.id = plan_migration_steps.command_id
  ),
  counted as (
    select steps.migration_id, steps.status, steps.problem, count(*) as times
    from steps
    group by steps.migration_id, steps.status, steps.problem
  ),
  progress as (
    select
      counted.migration_id,
      sum(times)::bigint as steps,
      coalesce(sum(times) filter (where status = 'pending'), 0)::bigint as pending,
      coalesce(sum(times) filter (where status = 'asked'), 0)::bigint as asked,
      coalesce(sum(times) filter (where status = 'moved'), 0)::bigint as moved,
      coalesce(sum(times) filter (where status = 'skipped'), 0)::bigint as skipped,
      coalesce(
        jsonb_object_agg(problem, times) filter (where problem is not null), '{}') as problems
    from counted
    group by counted.migration_id
  )
  select
    plan_migrations.id, from_plans.key, to_plans.key, plan_migrations.to_version,
    plan_migrations.proration, plan_migrations.reason, plan_migrations.created_at,
    coalesce(progress.steps, 0), coalesce(progress.pending, 0), coalesce(progress.asked, 0),
    coalesce(progress.moved, 0), coalesce(progress.skipped, 0),
    coalesce(progress.problems, '{}')
  from billing_private.plan_migrations
  join billing.plans as from_plans on from_plans.id = plan_migrations.from_plan_id
  join billing.plans as to_plans on to_plans.id = plan_migrations.to_plan_id
  left join progress on progress.migration_id = plan_migrations.id
  where v_scope is null
    or from_plans.store_id = any (v_scope) and to_plans.store_id = any (v_scope)
  order by plan_migrations.created_at desc, plan_migrations.id;
end;
$$;

create view billing_admin.plan_migrations with (security_invoker = true) as
select * from billing_private.admin_plan_migrations();

comment on view billing_admin.plan_migrations is
  'How far migrations of subscribers have come: steps that are pending, that Stripe is asked for, '
  'that are moved, and that were skipped, for which problems.';


create function billing_private.migrate_plan(
  p_from_plan text,
  p_to_plan text,
  p_to_version integer,
  p_accounts uuid[],
  p_price_key text,
  p_proration text,
  p_reason text
)
returns setof billing_admin.plan_migrations
language plpgsql
volatile
security definer -- migrations are writable by nobody
set search_path = ''
as $$
declare
  v_from billing.plans := billing_private.plan_for_migration(p_from_plan);
  v_to billing.plans := billing_private.plan_for_migration(p_to_plan);
  v_version integer;
  v_id uuid := gen_random_uuid();
begin
  perform billing_private.require_reason(p_reason);
  v_version := billing_private.version_for_migration(v_from, v_to, p_to_version);
  if coalesce(p_proration not in ('none', 'create_prorations', 'always_invoice'), true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'proration', 'problem', 'must be none, create_prorations or always_invoice'));
  end if;
  perform billing_private.note_admin_action(
    p_reason, 'migrate_plan', concat_ws(' ', p_from_plan, p_to_plan, v_version));
  -- Alone: two at once would each take the same steps.
  perform pg_advisory_xact_lock(hashtextextended('billing.plan_migrations', 0));

  insert into billing_private.plan_migrations (
    id, from_plan_id, to_plan_id, to_version, proration, reason, created_by
  )
  values (v_id, v_from.id, v_to.id, v_version, p_proration, p_reason, billing_private.user_id());
  insert into billing_private.plan_migration_steps (
    migration_id, subscription_item_id, subscription_id, account_id
  )
  select v_id, subscription_item_id, subscription_id, account_id
  from billing_private.migration_candidates(
    v_from.id, v_to.id, v_version, p_accounts, p_price_key)
  on conflict (subscription_item_id) where status = 'pending' do nothing;

  perform billing_private.run_plan_migrations(100);
  return query select * from billing_admin.plan_migrations where migration_id = v_id;
end;
$$;


create function billing_admin.migrate_plan(
  from_plan text,
  to_plan text,
  reason text,
  to_version integer default null,
  accounts uuid[] default null,
  price_key text default null,
  proration text default 'none'
)
returns setof billing_admin.plan_migrations
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.migrate_plan(
    from_plan, to_plan, to_version, accounts, price_key, proration, reason);
end;

comment on function billing_admin.migrate_plan(
  text, text, text, integer, uuid[], text, text
) is
$$Moves the subscribers of a plan to other contents of it (from_plan = to_plan), or to another plan
at its price for the same currency and interval: the first hundred at once, the rest by a task;
Stripe's through the outbox. See billing_admin.plan_migrations. Whoever changes plan meanwhile is
left alone; what waits for another migration, or was moved, is not moved twice.

to_version: null for the contents on sale. accounts, price_key: only these. proration, of another
plan: none, create_prorations or always_invoice.

Errors
  VALIDATION_FAILED  400  no reason, no such version or proration, or plans of two kinds
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  a plan is not of the caller's stores
  PLAN_NOT_FOUND     404  there is no such plan$$;


create function billing_private.stop_plan_migration(
  p_migration_id uuid,
  p_reason text
)
returns setof billing_admin.plan_migrations
language plpgsql
volatile
security definer -- migrations are writable by nobody
set search_path = ''
as $$
declare
  v_migration billing_private.plan_migrations;
begin
  perform billing_private.store_scope();
  perform billing_private.require_reason(p_reason);
  select * into v_migration from billing_private.plan_migrations where id = p_migration_id;
  if not found then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'migration_id', 'problem', 'there is no such migration'));
  end if;
  perform billing_private.require_store(store_id)
  from billing.plans
  where id in (v_migration.from_plan_id, v_migration.to_plan_id);
  perform billing_private.note_admin_action(
    p_reason, 'stop_plan_migration', p_migration_id::text);

  update billing_private.plan_migration_steps
  set status = 'skipped',
      problem = 'stopped',
      finished_at = billing_private.now()
  where migration_id = p_migration_id
    and status = 'pending';
  return query
  select * from billing_admin.plan_migrations where migration_id = p_migration_id;
end;
$$;


create function billing_admin.stop_plan_migration(
  migration_id uuid,
  reason text
)
returns setof billing_admin.plan_migrations
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.stop_plan_migration(migration_id, reason);
end;

comment on function billing_admin.stop_plan_migration(uuid, text) is
$$Leaves the steps of a migration that are pending undone. What was moved stays moved.

Errors
  VALIDATION_FAILED  400  no reason, or no such migration
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  a plan of it is not of the caller's stores$$;


-- -----------------------------------------------------------------------------
-- 21  revenue of stores
-- -----------------------------------------------------------------------------

-- Money that came in, less what went back, without taxes, is split among the stores whose plans the
-- invoice's lines are of. Each refund and lost dispute takes what those of its invoice take up to
-- it, less what those before it took: all of them together take exactly what came in.

create function billing_private.split_amount(
  p_amount bigint,
  p_weights bigint[]
)
returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
begin
  if cardinality(p_weights) = 1 then
    return array[p_amount]; -- as most are, and there are many
  end if;
  return (
    with weighed as (
      select place, weight, sum(weight) over () as total, count(*) over () as parts
      from unnest(p_weights) with ordinality as listed (weight, place)
    ),
    shared as (
      select
        place,
        case when total > 0 then p_amount * weight::numeric / total
          -- Nothing to weigh by.
          else p_amount::numeric / parts end as exact
      from weighed
    ),
    rounded as (
      select
        place,
        floor(exact) as part,
        p_amount - sum(floor(exact)) over () as missing,
        row_number() over (order by exact - floor(exact) desc, place) as turn
      from shared
    )
    select array_agg((part + (turn <= missing)::integer)::bigint order by place)
    from rounded
  );
end;
$$;

comment on function billing_private.split_amount(bigint, bigint[]) is
  'Splits an amount by weights so that the parts add up to it: largest remainder, the first of '
  'equals.';


create type billing_private.revenue_movement as (
  kind text,
  occurred_at timestamptz,
  invoice_id uuid,
  up_to bigint,
  before bigint
);

comment on type billing_private.revenue_movement is
  'Money that came with an invoice, or (refund, dispute) that went back of it: how much in all, up '
  'to this movement and before it.';


create function billing_private.revenue_movements(
  p_from timestamptz,
  p_until timestamptz
)
returns setof billing_private.revenue_movement
language plpgsql
stable
rows 10000
set search_path = ''
as $$
begin
  return query
  select
    'payment', invoices.paid_at, invoices.id, invoices.amount_paid_minor, 0::bigint
  from billing.invoices
  where invoices.status = 'paid'
    and invoices.amount_paid_minor > 0
    and invoices.paid_at >= p_from
    and invoices.paid_at < p_until;

  return query
  with touched as (
    select stripe_payment_key from billing.refunds
    where refunded_at >= p_from and refunded_at < p_until
    union
    select stripe_payment_key from billing.refunds
    where returned_at >= p_from and returned_at < p_until
    union
    select stripe_payment_key from billing.disputes
    where lost_at >= p_from and lost_at < p_until
    union
    select stripe_payment_key from billing.disputes
    where lost_at is not null and returned_at >= p_from and returned_at < p_until
  ),
  concerned as (
    select distinct invoices.id, invoices.stripe_invoice_id
    from touched
    join billing.payments using (stripe_payment_key)
    join billing.invoices using (stripe_invoice_id)
    where invoices.status = 'paid'
      and invoices.amount_paid_minor > 0
  ),
  went_back as (
    select
      reversals.kind,
      reversals.at,
      concerned.id,
      reversals.amount_minor,
      sum(reversals.amount_minor) over (
        partition by concerned.id order by reversals.at, reversals.kind, reversals.reference
      )::bigint as up_to
    from concerned
    join billing.payments using (stripe_invoice_id)
    cross join lateral billing_private.reversals_of(payments.stripe_payment_key) as reversals
  )
  select went_back.kind, went_back.at, went_back.id, went_back.up_to,
    went_back.up_to - went_back.amount_minor
  from went_back
  where went_back.at >= p_from
    and went_back.at < p_until;
end;
$$;

comment on function billing_private.revenue_movements(timestamptz, timestamptz) is
  'What moved money of invoices in a half-open interval, taxes included: payments, refunds and '
  'lost disputes, and what came back of those.';


create function billing_private.reversals_of(
  p_stripe_payment_key text,
  out kind text,
  out at timestamptz,
  out amount_minor bigint,
  out reference text
)
returns setof record
language plpgsql
stable
set search_path = ''
as $$
begin
  -- What came back later leaves what was taken where it stands: in a month that is over.
  return query
  select 'refund', moved.at, moved.sign * refunds.amount_minor, refunds.stripe_refund_id
  from billing.refunds
  cross join lateral (values (1, refunded_at), (-1, refunds.returned_at)) as moved (sign, at)
  where stripe_payment_key = p_stripe_payment_key
    and (status = 'succeeded' or refunds.returned_at is not null)
    and moved.at is not null
  union all
  select 'dispute', moved.at, moved.sign * disputes.amount_minor, disputes.stripe_dispute_id
  from billing.disputes
  cross join lateral (values (1, lost_at), (-1, disputes.returned_at)) as moved (sign, at)
  where stripe_payment_key = p_stripe_payment_key
    and lost_at is not null
    and moved.at is not null;
end;
$$;

comment on function billing_private.reversals_of(text) is
  'What went back of a payment, refund by refund and dispute by dispute, and (below 0) came back '
  'because a refund failed after all or an appeal was won.';


create type billing_private.revenue_entry as (
  store_id uuid,
  kind text,
  occurred_at timestamptz,
  invoice_id uuid,
  account_id uuid,
  currency text,
  net_minor bigint,
  share_basis_points integer,
  store_share_minor bigint
);

comment on type billing_private.revenue_entry is
  'What a payment brought a store, or a refund or lost dispute took from it (below 0), without '
  'taxes, and the store''s share of it. Without a store it is the platform''s.';


-- Long because it is one query: movements, untaxed, split and shared.
create function billing_private.revenue_entries(
  p_from timestamptz,
  p_until timestamptz,
  p_store_ids uuid[] default null
)
returns setof billing_private.revenue_entry
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  with untaxed as materialized (
    select
      movements.*, invoices.account_id, invoices.currency, invoices.paid_at,
      invoices.subscription_id, invoices.issued_at,
      movements.up_to
        - round(movements.up_to * tax_minor::numeric / greatest(total_minor, 1))::bigint
        as net_up_to,
      movements.before
        - round(movements.before * tax_minor::numeric / greatest(total_minor, 1))::bigint
        as net_before
    from billing_private.revenue_movements(p_from, p_until) as movements
    join billing.invoices on invoices.id = movements.invoice_id
    -- Few of a month's invoices are of one store, and all that follows is done for each.
    where p_store_ids is null
      or exists (
        select
        from billing.invoice_lines
        left join billing.prices using (stripe_price_id)
        left join billing.plans on plans.id = prices.plan_id
        where invoice_lines.invoice_id = movements.invoice_id
          and (invoice_lines.stripe_price_id is null or plans.store_id = any (p_store_ids))
      )
  ),
  by_store as (
    select invoices.invoice_id, plans.store_id, sum(invoice_lines.amount_minor)::bigint as weight
    from (
      select distinct invoice_id, subscription_id, issued_at from untaxed
    ) as invoices
    join billing.invoice_lines using (invoice_id)
    left join billing.subscriptions on subscriptions.id = invoices.subscription_id
    -- A manual subscription's lines name no price: it was on the one its history tells.
    left join lateral (
      select subscription_changes.to_price_id
      from billing.subscription_changes
      where invoice_lines.stripe_price_id is null
        and subscription_changes.subscription_id = invoices.subscription_id
        and subscription_changes.effective_at <= invoices.issued_at
      order by subscription_changes.effective_at desc, subscription_changes.created_at desc
      limit 1
    ) as history on true
    left join billing.prices as named
      on named.stripe_price_id = invoice_lines.stripe_price_id
    left join billing.prices as manual
      on invoice_lines.stripe_price_id is null
      and manual.id = coalesce(history.to_price_id, subscriptions.price_id)
    left join billing.plans on plans.id = coalesce(named.plan_id, manual.plan_id)
    group by invoices.invoice_id, plans.store_id
  ),
  split as (
    select
      by_store.invoice_id,
      array_agg(by_store.store_id order by by_store.store_id nulls first) as store_ids,
      array_agg(by_store.weight order by by_store.store_id nulls first) as weights
    from by_store
    group by by_store.invoice_id
  )
  select
    parts.store_id,
    untaxed.kind,
    untaxed.occurred_at,
    untaxed.invoice_id,
    untaxed.account_id,
    untaxed.currency,
    signed.sign * (parts.up_to - parts.before),
    shares.basis_points,
    -- What is left of a part is the platform's.
    signed.sign * (
      round(parts.up_to * shares.basis_points / 10000.0)
        - round(parts.before * shares.basis_points / 10000.0))::bigint
  from untaxed
  left join split using (invoice_id)
  cross join lateral (
    select case untaxed.kind when 'payment' then 1 else -1 end as sign
  ) as signed
  cross join lateral unnest(
    coalesce(split.store_ids, array[null]::uuid[]),
    billing_private.split_amount(untaxed.net_up_to, coalesce(split.weights, '{1}')),
    billing_private.split_amount(untaxed.net_before, coalesce(split.weights, '{1}'))
  ) as parts (store_id, up_to, before)
  left join lateral (
    select share_basis_points
    from billing_private.store_revenue_shares
    where store_revenue_shares.store_id = parts.store_id
      -- Also of what is given back later.
      and store_revenue_shares.effective_from <= untaxed.paid_at
    order by effective_from desc
    limit 1
  ) as agreed on true
  cross join lateral (select coalesce(agreed.share_basis_points, 0) as basis_points) as shares
  where p_store_ids is null or parts.store_id = any (p_store_ids);
end;
$$;

comment on function billing_private.revenue_entries(timestamptz, timestamptz, uuid[]) is
  'What payments, refunds and lost disputes of a half-open interval come to, store by store, '
  'exactly. Of some stores alone, or (null) of all and of the platform.';


create function billing_private.admin_store_revenue(
  p_from timestamptz,
  p_until timestamptz,
  p_store text default null
)
returns table (
  store_key text,
  month timestamptz,
  currency text,
  payments_minor bigint,
  refunds_minor bigint,
  disputes_minor bigint,
  net_minor bigint,
  store_share_minor bigint,
  platform_share_minor bigint
)
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
declare
  v_scope uuid[] := billing_private.store_scope();
  v_store_ids uuid[] := v_scope;
begin
  if p_store is not null then
    v_store_ids := array(
      select id
      from billing.stores
      where key = p_store
        and (v_scope is null or id = any (v_scope)));
  end if;
  return query
  select
    stores.key,
    date_trunc('month', entries.occurred_at, 'UTC'),
    entries.currency,
    coalesce(sum(entries.net_minor) filter (where entries.kind = 'payment'), 0)::bigint,
    coalesce(sum(entries.net_minor) filter (where entries.kind = 'refund'), 0)::bigint,
    coalesce(sum(entries.net_minor) filter (where entries.kind = 'dispute'), 0)::bigint,
    sum(entries.net_minor)::bigint,
    sum(entries.store_share_minor)::bigint,
    sum(entries.net_minor - entries.store_share_minor)::bigint
  from billing_private.revenue_entries(p_from, p_until, v_store_ids) as entries
  left join billing.stores on stores.id = entries.store_id
  group by 1, 2, 3
  order by 2 desc, 1 nulls first, 3;
end;
$$;

create view billing_admin.store_revenue with (security_invoker = true) as
select * from billing_private.admin_store_revenue('-infinity', 'infinity');

comment on view billing_admin.store_revenue is
  'Revenue by store, month (UTC) and currency, without taxes, in the smallest unit: payments, '
  'refunds and lost disputes (below 0), what is left, and how store and platform share it. What '
  'Stripe charges, for disputes too, is the platform''s. Without a store it is the platform''s own;'
  ' store admins see their stores'' alone.';


create function billing_private.store_statement(
  p_store text,
  p_month timestamptz
)
returns setof billing_admin.store_revenue
language plpgsql
stable
security definer -- reads everybody's rows after checking the caller
set search_path = ''
as $$
declare
  v_from timestamp := date_trunc('month', p_month at time zone 'UTC');
  v_store_id uuid;
begin
  perform billing_private.store_scope();
  select id into v_store_id from billing.stores where key = p_store;
  if not found then
    perform billing_private.fail('STORE_NOT_FOUND', jsonb_build_object('store', p_store));
  end if;
  perform billing_private.require_store(v_store_id);
  if coalesce(p_month not between '0001-01-01Z' and '9999-12-31Z', true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'month', 'problem', 'must be a time of a month from year 1 to 9999'));
  end if;
  return query
  select *
  from billing_private.admin_store_revenue(
    v_from at time zone 'UTC', (v_from + interval '1 month') at time zone 'UTC', p_store);
end;
$$;


create function billing_admin.store_statement(
  store text,
  month timestamptz
)
returns setof billing_admin.store_revenue
language sql
stable
set search_path = ''
begin atomic
  select * from billing_private.store_statement(store, month);
end;

comment on function billing_admin.store_statement(text, timestamptz) is
$$A store's revenue of one month (UTC), a row for each currency, in the smallest unit, without
taxes.
A refund counts in the month it was made, a dispute in the month it was lost, shared as its payment
was; what comes back of either (an appeal that is won, a refund that failed after all) in the month
it does. Nothing of it changes once the month is over, unless Stripe tells of something late.

month: any instant of it.

Errors
  VALIDATION_FAILED  400  no month
  NOT_AN_ADMIN       403  the caller is no administrator
  NOT_A_STORE_ADMIN  403  the caller administers another store
  STORE_NOT_FOUND    404  there is no such store$$;


-- -----------------------------------------------------------------------------
-- 22  people and organizations
-- -----------------------------------------------------------------------------

create function billing_private.admin_seat_drift()
returns setof billing_private.seat_state
language plpgsql
stable
security definer -- reads the machine's tables after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select *
  from billing_private.seat_states(array(select billing_private.counted_subscriptions()))
  where wanted is distinct from running;
end;
$$;


create view billing_admin.seat_drift with (security_invoker = true) as
select * from billing_private.admin_seat_drift();

comment on view billing_admin.seat_drift is
  'Subscriptions whose quantity is not what their organization''s members come to: wanted, running '
  'at present, asked of Stripe, and what stands in the way of asking (a status, unpaid_change, or '
  'refused within the last day). The task sync_seats repairs what it can.';


create function billing_private.appoint_owner(
  p_account_id uuid,
  p_user_id uuid,
  p_reason text
)
returns billing.memberships
language plpgsql
volatile
security definer -- memberships are writable by nobody
set search_path = ''
as $$
declare
  v_membership billing.memberships;
begin
  perform billing_private.begin_admin_action(p_reason, 'appoint_owner', p_account_id::text);
  perform billing_private.lock_account(p_account_id);
  if not exists (select from billing.accounts where id = p_account_id) then
    perform billing_private.fail('ACCOUNT_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  end if;
  perform billing_private.membership(p_account_id, p_user_id);
  update billing.memberships
  set role = 'owner',
      updated_at = billing_private.now()
  where account_id = p_account_id
    and user_id = p_user_id
  returning * into v_membership;
  return v_membership;
end;
$$;


create function billing_admin.appoint_owner(
  account_id uuid,
  user_id uuid,
  reason text
)
returns billing.memberships
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.appoint_owner(account_id, user_id, reason);
end;

comment on function billing_admin.appoint_owner(uuid, uuid, text) is
$$Makes a member an owner of their organization: for one whose last owner was deleted. Twice changes
nothing more.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  ACCOUNT_NOT_FOUND  404  there is no such account
  MEMBER_NOT_FOUND   404  the user does not belong to it$$;


create function billing_private.admin_close_account(
  p_account_id uuid,
  p_reason text
)
returns billing.accounts
language plpgsql
volatile
security definer -- accounts are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'close_account', p_account_id::text);
  if billing_private.known_account(p_account_id) is null then
    perform billing_private.fail('ACCOUNT_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  end if;
  return billing_private.close_account(p_account_id);
end;
$$;


create function billing_admin.close_account(
  account_id uuid,
  reason text
)
returns billing.accounts
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.admin_close_account(account_id, reason);
end;

comment on function billing_admin.close_account(uuid, text) is
$$Closes an account for its owner, as billing.close_account() does. Twice changes nothing more.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  ACCOUNT_NOT_FOUND  404  there is no such account$$;


create function billing_private.reopen_account(
  p_account_id uuid,
  p_reason text
)
returns billing.accounts
language plpgsql
volatile
security definer -- accounts are writable by nobody
set search_path = ''
as $$
declare
  v_account billing.accounts;
begin
  perform billing_private.begin_admin_action(p_reason, 'reopen_account', p_account_id::text);
  perform billing_private.lock_account(p_account_id);
  update billing.accounts
  set closed_at = null
  where id = p_account_id
  returning * into v_account;
  if not found then
    perform billing_private.fail('ACCOUNT_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  end if;
  return v_account;
end;
$$;


create function billing_admin.reopen_account(
  account_id uuid,
  reason text
)
returns billing.accounts
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.reopen_account(account_id, reason);
end;

comment on function billing_admin.reopen_account(uuid, text) is
$$Lets a closed account subscribe again. What it had does not come back, nor do an organization's
members: appoint them anew. Twice changes nothing more.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  ACCOUNT_NOT_FOUND  404  there is no such account$$;


create function billing_private.link_identity(
  p_issuer text,
  p_subject text,
  p_user_id uuid,
  p_reason text
)
returns billing.external_identities
language plpgsql
volatile
security definer -- external_identities is writable by nobody
set search_path = ''
as $$
declare
  v_identity billing.external_identities;
begin
  perform billing_private.begin_admin_action(
    p_reason, 'link_identity', p_issuer || ' ' || p_subject);
  if p_issuer like '%/auth/v1' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'issuer', 'problem', 'the users of Supabase Auth are known already'));
  elsif coalesce(p_issuer !~ '\S' or p_subject !~ '\S', true) or p_user_id is null then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', case
        when coalesce(p_issuer !~ '\S', true) then 'issuer'
        when coalesce(p_subject !~ '\S', true) then 'subject'
        else 'user_id'
      end,
      'problem', 'is required'));
  end if;

  insert into billing.external_identities (issuer, subject, user_id)
  values (p_issuer, p_subject, p_user_id)
  on conflict (issuer, subject) do update
  set user_id = excluded.user_id
  returning * into v_identity;
  return v_identity;
end;
$$;


create function billing_admin.link_identity(
  issuer text,
  subject text,
  user_id uuid,
  reason text
)
returns billing.external_identities
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.link_identity(issuer, subject, user_id, reason);
end;

comment on function billing_admin.link_identity(text, text, uuid, text) is
$$Says who a user of another issuer of tokens (Clerk, STACK …) is here. Once linked, their tokens
are taken for that user's. Linked again: to the user named last.

issuer, subject: the iss and sub claims as they stand in the tokens. user_id: any uuid, which
becomes the id of their personal account; one of Supabase Auth's to let both tokens lead to one
account.

Errors
  VALIDATION_FAILED  400  an issuer, subject, user or reason is missing, or the issuer is this
                          project's own
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.unlink_identity(
  p_issuer text,
  p_subject text,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- external_identities is writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(
    p_reason, 'unlink_identity', p_issuer || ' ' || p_subject);
  delete from billing.external_identities
  where issuer = p_issuer
    and subject = p_subject;
end;
$$;


create function billing_admin.unlink_identity(
  issuer text,
  subject text,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.unlink_identity(issuer, subject, reason);
end;

comment on function billing_admin.unlink_identity(text, text, text) is
$$Forgets who a user of another issuer is here: their tokens are nobody's from then on. What belongs
to the user they were taken for stays. Twice changes nothing more.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.require_mfa_for_admins(
  p_required boolean,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- settings are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(
    p_reason, 'require_mfa_for_admins', p_required::text);
  if p_required is null then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'required', 'problem', 'is required'));
  elsif p_required and not billing_private.is_trusted()
    and auth.jwt() ->> 'aal' is distinct from 'aal2'
  then
    -- Whoever could not do it themselves would lock everybody out.
    perform billing_private.fail('MFA_REQUIRED');
  end if;
  update billing_private.settings set require_mfa_for_admins = p_required where only_row;
end;
$$;


create function billing_admin.require_mfa_for_admins(
  required boolean,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.require_mfa_for_admins(required, reason);
end;

comment on function billing_admin.require_mfa_for_admins(boolean, text) is
$$Says whether administrators need a second factor (a session of level aal2) for billing_admin, as
they should. The database owner and service_role never do.

Errors
  VALIDATION_FAILED  400  no answer, or no reason
  MFA_REQUIRED       403  the caller's own session has no second factor
  NOT_AN_ADMIN       403  the caller is no administrator$$;


-- -----------------------------------------------------------------------------
-- 23  prepaid units and corrected usage
-- -----------------------------------------------------------------------------

create function billing_private.grant_usage(
  p_account_id uuid,
  p_feature text,
  p_quantity numeric,
  p_reason text,
  p_valid_until timestamptz,
  p_priority integer,
  p_reference text
)
returns billing.usage_grants
language plpgsql
volatile
security definer -- grants are writable by nobody
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_account_id uuid;
  v_grant billing.usage_grants;
begin
  perform billing_private.begin_admin_action(p_reason, 'grant_usage', p_account_id::text);
  v_account_id := billing_private.require_account(p_account_id);
  if not exists (select from billing.features where key = p_feature) then
    perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object('feature', p_feature));
  elsif not exists (select from billing.features where key = p_feature and kind = 'metered') then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'feature', 'problem', 'only a metered feature is prepaid'));
  elsif p_valid_until <= v_now then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'valid_until', 'problem', 'must be in the future'));
  end if;
  perform billing_private.require_quantity(p_quantity, 'quantity');

  insert into billing.usage_grants (
    account_id, feature_key, quantity, priority, valid_from, valid_until, reason, reference,
    granted_by
  )
  values (
    v_account_id, p_feature, p_quantity, coalesce(p_priority, 100), v_now,
    coalesce(p_valid_until, 'infinity'), p_reason, p_reference, billing_private.user_id()
  )
  on conflict (account_id, reference) do nothing
  returning * into v_grant;
  if not found then
    select * into strict v_grant
    from billing.usage_grants
    where account_id = v_account_id and reference = p_reference;
  end if;
  return v_grant;
end;
$$;


create function billing_admin.grant_usage(
  account_id uuid,
  feature text,
  quantity numeric,
  reason text,
  valid_until timestamptz default null,
  priority integer default 100,
  reference text default null
)
returns billing.usage_grants
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.grant_usage(
    account_id, feature, quantity, reason, valid_until, priority, reference);
end;

comment on function billing_admin.grant_usage(
  uuid, text, numeric, text, timestamptz, integer, text
) is
$$Gives an account prepaid units of a metered feature, used when a period's own are used up: by
priority (lowest number first), then by end, then by age.

valid_until: end, exclusive; null for no end. reference: what it is for (an order, an invoice), once
per account; again, it answers the grant that is there.

Errors
  VALIDATION_FAILED  400  no reason, no quantity, an end that has passed, a feature not metered
  NOT_AN_ADMIN       403  the caller is no administrator
  ACCOUNT_NOT_FOUND  404  neither an account nor a user has this id
  FEATURE_NOT_FOUND  404  there is no such feature$$;


create function billing_private.revoke_usage_grant(p_grant_id uuid, p_reason text)
returns billing.usage_grants
language plpgsql
volatile
security definer -- grants are writable by nobody
set search_path = ''
as $$
declare
  v_grant billing.usage_grants;
begin
  perform billing_private.begin_admin_action(p_reason, 'revoke_usage_grant', p_grant_id::text);
  update billing.usage_grants
  set revoked_at = coalesce(revoked_at, billing_private.now()),
      revoked_reason = coalesce(revoked_reason, p_reason)
  where id = p_grant_id
  returning * into v_grant;
  if not found then
    perform billing_private.fail('GRANT_NOT_FOUND', jsonb_build_object('grant_id', p_grant_id));
  end if;
  return v_grant;
end;
$$;


create function billing_admin.revoke_usage_grant(grant_id uuid, reason text)
returns billing.usage_grants
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.revoke_usage_grant(grant_id, reason);
end;

comment on function billing_admin.revoke_usage_grant(uuid, text) is
$$Takes back what is left of prepaid units. What they have paid for stays paid. Twice
changes nothing more.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  GRANT_NOT_FOUND    404  there is no such grant$$;


create function billing_private.correct_usage(
  p_account_id uuid,
  p_idempotency_key text,
  p_quantity numeric,
  p_reason text
)
returns billing.recorded_usage
language plpgsql
volatile
security definer -- usage is writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(
    p_reason, 'correct_usage', p_account_id || ':' || p_idempotency_key);
  return billing_private.apply_correction(
    p_account_id, p_idempotency_key, p_quantity, p_reason);
end;
$$;


create function billing_admin.correct_usage(
  account_id uuid,
  idempotency_key text,
  quantity numeric,
  reason text
)
returns billing.recorded_usage
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.correct_usage(account_id, idempotency_key, quantity, reason);
end;

comment on function billing_admin.correct_usage(uuid, text, numeric, text) is
$$Has a usage record count as another quantity; 0 takes it back. The record stays: a second one
holds the difference. Prepaid units that turn out not to have been needed go back to their grants. A
period that is closed is not rewritten: billing.usage_adjustments says what it would be.

idempotency_key: of the record; where none was given, its id.

Errors
  VALIDATION_FAILED  400  no reason, or a quantity that is none
  NOT_AN_ADMIN       403  the caller is no administrator
  USAGE_NOT_FOUND    404  the account has no record with this key$$;


-- -----------------------------------------------------------------------------
-- 24  discount codes
-- -----------------------------------------------------------------------------

create type billing_admin.discount_code as (
  id uuid,
  code text,
  percent_off numeric,
  amount_off_minor bigint,
  currency text,
  periods integer,
  max_redemptions bigint,
  max_per_account bigint,
  first_time_only boolean,
  minimum_amount_minor bigint,
  plan_keys text[],
  price_keys text[],
  store_keys text[],
  expires_at timestamptz,
  deactivated_at timestamptz,
  created_at timestamptz,
  reserved bigint,
  confirmed bigint,
  stripe_coupon_ids text[]
);

comment on type billing_admin.discount_code is
  'A discount code with how often it was used: reserved by checkouts under way, confirmed by '
  'purchases. stripe_coupon_ids: the coupons that stand for it at Stripe.';


create function billing_private.admin_discount_codes(p_code_id uuid default null)
returns setof billing_admin.discount_code
language plpgsql
stable
security definer -- the codes are readable by nobody
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select
    discount_codes.id, code, percent_off, amount_off_minor, currency, periods, max_redemptions,
    max_per_account, first_time_only, minimum_amount_minor, plan_keys, price_keys, store_keys,
    expires_at, deactivated_at, created_at, uses.reserved, uses.confirmed,
    array(
      select stripe_coupon_id
      from billing.coupons
      where starts_with(stripe_coupon_id, 'code_' || replace(discount_codes.id::text, '-', ''))
      order by stripe_coupon_id
    )
  from billing_private.discount_codes
  cross join lateral (
    select
      count(*) filter (where status = 'reserved') as reserved,
      count(*) filter (where status = 'confirmed') as confirmed
    from billing.discount_redemptions
    where discount_code_id = discount_codes.id
  ) as uses
  where coalesce(discount_codes.id = p_code_id, true)
  order by created_at desc, lower(code);
end;
$$;

comment on function billing_private.admin_discount_codes(uuid) is
  'Behind billing_admin.discount_codes, for administrators only; null for all codes.';


create view billing_admin.discount_codes with (security_invoker = true) as
select * from billing_private.admin_discount_codes();

comment on view billing_admin.discount_codes is
  'Our own discount codes, newest first, with how often each was used. Stripe''s promotion codes '
  'are Stripe''s.';


create function billing_private.require_code_terms(p_code billing_private.discount_codes)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_refused record;
begin
  select field, problem into v_refused
  from (values
    ('discount_code', 'must be 3 to 64 letters, digits, _ or -',
      coalesce(p_code.code !~ '^[A-Za-z0-9_-]{3,64}$', true)),
    ('discount_code', 'there is, or was, such a code',
      exists (
        select from billing_private.discount_codes where lower(code) = lower(p_code.code))),
    ('percent_off', 'a percentage of at most 100 with two decimals, or an amount, is needed',
      num_nonnulls(p_code.percent_off, p_code.amount_off_minor) <> 1
      or coalesce(p_code.percent_off not between 0.01 and 100, false)
      or coalesce(p_code.percent_off <> round(p_code.percent_off, 2), false)),
    ('amount_off_minor', 'must be above 0', coalesce(p_code.amount_off_minor < 1, false)),
    ('currency', 'amounts need a currency (ISO 4217, in lower case)',
      coalesce(p_code.currency !~ '^[a-z]{3}$',
        num_nonnulls(p_code.amount_off_minor, p_code.minimum_amount_minor) > 0)),
    ('periods', 'must be at least 1; null for all', p_code.periods < 1),
    ('max_redemptions', 'must be at least 1; null for any number', p_code.max_redemptions < 1),
    ('max_per_account', 'must be at least 1', coalesce(p_code.max_per_account < 1, true)),
    ('minimum_amount_minor', 'must not be negative', p_code.minimum_amount_minor < 0),
    ('expires_at', 'must be in the future', p_code.expires_at <= billing_private.now())
  ) as rules (field, problem, is_broken)
  where is_broken
  limit 1;
  if found then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', v_refused.field, 'problem', v_refused.problem));
  end if;
end;
$$;

comment on function billing_private.require_code_terms(billing_private.discount_codes) is
  'Refuses terms a discount code cannot have (VALIDATION_FAILED, 400).';


create function billing_private.require_scopes(p_code billing_private.discount_codes)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_unknown record;
begin
  select field, key into v_unknown
  from (
    select 'plan_keys' as field, key, not exists (
      select from billing.plans where plans.key = listed.key) as is_unknown
    from unnest(p_code.plan_keys) as listed (key)
    union all
    select 'price_keys', key, not exists (
      select from billing.prices where prices.key = listed.key)
    from unnest(p_code.price_keys) as listed (key)
    union all
    select 'store_keys', key, not exists (
      select from billing.stores where stores.key = listed.key)
    from unnest(p_code.store_keys) as listed (key)
  ) as scopes
  where is_unknown
  limit 1;
  if found then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', v_unknown.field, 'problem', 'there is none of this key', 'key', v_unknown.key));
  end if;
end;
$$;

comment on function billing_private.require_scopes(billing_private.discount_codes) is
  'Refuses keys of plans, prices or stores there are none of (VALIDATION_FAILED, 400).';


create function billing_private.admin_create_discount_code(
  p_terms billing_private.discount_codes,
  p_reason text
)
returns setof billing_admin.discount_code
language plpgsql
volatile
security definer -- the codes are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'create_discount_code', p_terms.code);
  perform billing_private.require_code_terms(p_terms);
  perform billing_private.require_scopes(p_terms);
  p_terms.id := gen_random_uuid();
  p_terms.created_at := billing_private.now();
  insert into billing_private.discount_codes select p_terms.*;
  return query select * from billing_private.admin_discount_codes(p_terms.id);
end;
$$;


create function billing_admin.create_discount_code(
  discount_code text,
  reason text,
  percent_off numeric default null,
  amount_off_minor bigint default null,
  currency text default null,
  periods integer default 1,
  max_redemptions bigint default null,
  max_per_account bigint default 1,
  first_time_only boolean default false,
  minimum_amount_minor bigint default null,
  plan_keys text[] default null,
  price_keys text[] default null,
  store_keys text[] default null,
  expires_at timestamptz default null
)
returns setof billing_admin.discount_code
language sql
volatile
set search_path = ''
begin atomic
  select *
  from billing_private.admin_create_discount_code(
    row(
      null, discount_code, percent_off, amount_off_minor, currency, periods, max_redemptions,
      max_per_account, first_time_only, minimum_amount_minor, plan_keys, price_keys, store_keys,
      expires_at, null, null
    )::billing_private.discount_codes,
    reason);
end;

comment on function billing_admin.create_discount_code(
  text, text, numeric, bigint, text, integer, bigint, bigint, boolean, bigint, text[], text[],
  text[], timestamptz
) is
$$Makes a code people can type to pay less. What it gives never changes; its limits are kept here,
and Stripe gets a coupon for it with the first checkout that uses it.

Either percent_off, or amount_off_minor (smallest unit, off each period) with its currency. periods:
billing periods it is taken off; null for all. max_redemptions: in all, checkouts under way
included. minimum_amount_minor: what a period has to cost without it. plan_keys, price_keys,
store_keys: what it is for; null for everything. expires_at: exclusive; who redeemed it before keeps
it.

Errors
  VALIDATION_FAILED  400  no reason, or terms that cannot be
  NOT_AN_ADMIN       403  the caller is no administrator$$;


create function billing_private.admin_deactivate_discount_code(
  p_code text,
  p_reason text
)
returns setof billing_admin.discount_code
language plpgsql
volatile
security definer -- the codes are writable by nobody
set search_path = ''
as $$
declare
  v_id uuid;
begin
  perform billing_private.begin_admin_action(p_reason, 'deactivate_discount_code', p_code);
  update billing_private.discount_codes
  set deactivated_at = coalesce(deactivated_at, billing_private.now())
  where id = (billing_private.discount_code(p_code)).id
  returning id into v_id;
  if not found then
    perform billing_private.fail('DISCOUNT_CODE_NOT_FOUND', jsonb_build_object(
      'discount_code', p_code));
  end if;
  return query select * from billing_private.admin_discount_codes(v_id);
end;
$$;


create function billing_admin.deactivate_discount_code(
  discount_code text,
  reason text
)
returns setof billing_admin.discount_code
language sql
volatile
set search_path = ''
begin atomic
  select *
  from billing_private.admin_deactivate_discount_code(
    deactivate_discount_code.discount_code, deactivate_discount_code.reason);
end;

comment on function billing_admin.deactivate_discount_code(text, text) is
$$Nobody can redeem the code from now on. Who has redeemed it keeps it, and a checkout that has it
reserved may still be completed. Twice changes nothing more.

Errors
  VALIDATION_FAILED        400  no reason
  NOT_AN_ADMIN             403  the caller is no administrator
  DISCOUNT_CODE_NOT_FOUND  404  there is no such code$$;


create function billing_private.admin_apply_discount_code(
  p_subscription_id uuid,
  p_code text,
  p_reason text
)
returns setof billing.discount_redemptions
language plpgsql
volatile
security definer -- redemptions are writable by nobody
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions;
begin
  perform billing_private.begin_admin_action(
    p_reason, 'apply_discount_code', p_subscription_id::text);
  perform billing_private.lock_account(
    (select account_id from billing.subscriptions where id = p_subscription_id));
  select * into v_subscription
  from billing.subscriptions
  where id = p_subscription_id
    and account_id is not null
    and price_id is not null
    and ended_at is null;
  if not found then
    perform billing_private.fail('SUBSCRIPTION_NOT_FOUND', jsonb_build_object(
      'subscription_id', p_subscription_id));
  elsif v_subscription.provider = 'stripe' then
    return next billing_private.apply_code_at_stripe(coalesce(p_code, ''), v_subscription);
    return;
  end if;
  perform billing_private.redeem_code(coalesce(p_code, ''), v_subscription);
  return query
  select *
  from billing.discount_redemptions
  where subscription_id = p_subscription_id
    and ended_at is null;
end;
$$;


create function billing_admin.apply_discount_code(
  subscription_id uuid,
  discount_code text,
  reason text
)
returns setof billing.discount_redemptions
language sql
volatile
set search_path = ''
begin atomic
  select *
  from billing_private.admin_apply_discount_code(
    apply_discount_code.subscription_id, apply_discount_code.discount_code,
    apply_discount_code.reason);
end;

comment on function billing_admin.apply_discount_code(uuid, text, text) is
$$Has a code taken off the invoices of a running subscription, from its next period on. Of one of
Stripe's it is reserved until Stripe has answered; where Stripe refuses, it is given back. New ones
take it in billing_admin.grant_subscription() or at a checkout.

Errors
  VALIDATION_FAILED       400  no reason
  NOT_AN_ADMIN            403  the caller is no administrator
  SUBSCRIPTION_NOT_FOUND  404  there is no such subscription, or it has ended
  DISCOUNT_NOT_VALID      422  details name the reason; one code at a time, none under a contract$$;


-- -----------------------------------------------------------------------------
-- 25  contracts
-- -----------------------------------------------------------------------------

create function billing_private.admin_contracts()
returns table (
  contract_id uuid,
  account_id uuid,
  account_name text,
  status text,
  is_in_force boolean,
  price_key text,
  quantity bigint,
  currency text,
  starts_at timestamptz,
  term_starts_at timestamptz,
  ends_at timestamptz,
  in_force_until timestamptz,
  notice_until timestamptz,
  payment_terms_days integer,
  minimum_minor bigint,
  commitment_minor bigint,
  charged_minor bigint,
  commitment_left_minor bigint,
  features jsonb,
  supersedes uuid,
  subscription_id uuid,
  reference text,
  reason text
)
language plpgsql
stable
security definer -- admins see all accounts
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select
    contracts.id, contracts.account_id, accounts.name, contracts.status,
    contracts.status = 'active'
      and contracts.starts_at <= billing_private.now()
      and contracts.in_force_until > billing_private.now(),
    prices.key, contracts.quantity, prices.currency, contracts.starts_at,
    contracts.term_starts_at, contracts.ends_at, contracts.in_force_until,
    case when contracts.term_months is not null and contracts.notice_at is null
      then contracts.ends_at - make_interval(days => contracts.notice_days) end,
    contracts.payment_terms_days, contracts.minimum_minor, contracts.commitment_minor,
    charged.amount_minor, greatest(contracts.commitment_minor - charged.amount_minor, 0),
    (
      select coalesce(jsonb_object_agg(
        feature_key, coalesce(to_jsonb(limit_value), 'true')), '{}')
      from billing.contract_features
      where contract_features.contract_id = contracts.id
    ),
    contracts.supersedes, contracts.subscription_id, contracts.reference, contracts.reason
  from billing.contracts
  join billing.accounts on accounts.id = contracts.account_id
  left join billing.prices on prices.id = contracts.price_id
  cross join lateral billing_private.charged_in_term(contracts) as charged (amount_minor)
  order by contracts.starts_at desc, contracts.id;
end;
$$;

comment on function billing_private.admin_contracts() is
  'Behind billing_admin.contracts, for administrators only.';


create view billing_admin.contracts with (security_invoker = true) as
select * from billing_private.admin_contracts();

comment on view billing_admin.contracts is
  'All contracts and their amendments, newest first, with what their running term was charged and '
  'what is left of the commitment. notice_until: when notice has to be given, or it renews.';


create function billing_private.require_contract_terms(p_contract billing.contracts)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_refused record;
begin
  select field, problem into v_refused
  from (values
    ('reference', 'is needed: where the signed document is',
      coalesce(btrim(p_contract.reference) = '', true)),
    ('starts_at', 'must lie within a year of now', coalesce(
      p_contract.starts_at not between billing_private.now() - interval '1 year'
        and billing_private.now() + interval '1 year', true)),
    ('ends_at', 'must be after the start, and in the future', coalesce(
      p_contract.ends_at <= greatest(p_contract.starts_at, billing_private.now()), true)),
    ('quantity', 'must be at least 1', coalesce(p_contract.quantity < 1, true)),
    ('term_months', 'must be at least 1; null where it does not renew',
      p_contract.term_months < 1),
    ('notice_days', 'must not be negative', coalesce(p_contract.notice_days < 0, true)),
    ('payment_terms_days', 'must be from 0 to 365',
      coalesce(p_contract.payment_terms_days not between 0 and 365, true)),
    ('minimum_minor', 'must not be negative, and needs a price',
      p_contract.minimum_minor < 0
      or p_contract.minimum_minor is not null and p_contract.price_id is null),
    ('commitment_minor', 'must not be negative, and needs a price',
      p_contract.commitment_minor < 0
      or p_contract.commitment_minor is not null and p_contract.price_id is null)
  ) as rules (field, problem, is_broken)
  where is_broken
  limit 1;
  if found then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', v_refused.field, 'problem', v_refused.problem));
  end if;
end;
$$;

comment on function billing_private.require_contract_terms(billing.contracts) is
  'Refuses terms a contract cannot have (VALIDATION_FAILED, 400).';


create function billing_private.contract_price_of(p_price_key text)
returns billing.prices
language plpgsql
stable
set search_path = ''
as $$
declare
  v_price billing.prices;
begin
  select * into v_price from billing.prices where key = p_price_key and is_active;
  if not found then
    perform billing_private.fail('PRICE_NOT_FOUND', jsonb_build_object('price_key', p_price_key));
  end if;
  return v_price;
end;
$$;

comment on function billing_private.contract_price_of(text) is
  'The active price of a key, offered to everybody or not (PRICE_NOT_FOUND, 404).';


create function billing_private.write_contract_prices(
  p_contract billing.contracts,
  p_prices jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_key text;
  v_terms jsonb;
  v_price billing.prices;
  v_currency text := (select currency from billing.prices where id = p_contract.price_id);
begin
  if jsonb_typeof(p_prices) <> 'object' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'prices', 'problem', 'price keys with their terms are needed'));
  end if;
  for v_key, v_terms in select * from jsonb_each(p_prices) loop
    v_price := billing_private.contract_price_of(v_key);
    if jsonb_typeof(v_terms) = 'number' then
      v_terms := jsonb_build_object('unit_amount_minor', v_terms);
    end if;
    if not exists (select from billing.features where key = v_terms ->> 'feature')
      and v_terms ? 'feature'
    then
      perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object(
        'feature', v_terms ->> 'feature'));
    elsif jsonb_typeof(v_terms) is distinct from 'object'
      or v_price.currency <> v_currency
      or not (v_terms ? 'feature' or v_price.id = p_contract.price_id)
      or (v_terms ? 'feature' and v_price.id = p_contract.price_id)
      or (v_terms ? 'tiers') = (v_terms ? 'unit_amount_minor')
      or v_terms ? 'unit_amount_minor'
        and billing_private.stripe_integer(v_terms -> 'unit_amount_minor') >= 0 is not true
      or v_terms ? 'tiers' and (
        coalesce(v_terms ->> 'tiers_mode' not in ('graduated', 'volume'), true)
        or billing_private.tiered_amount(
          case jsonb_typeof(v_terms -> 'tiers') when 'array' then v_terms -> 'tiers' else '[]' end,
          v_terms ->> 'tiers_mode', 1e15) is null)
    then
      perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
        'field', 'prices', 'price_key', v_key,
        'problem', 'an amount, or tiers with their mode, in the contract''s currency is needed, '
          'of the contract''s price, or for the usage of a feature'));
    end if;
    insert into billing.contract_prices (
      contract_id, price_id, feature_key, unit_amount_minor, tiers_mode, tiers
    )
    values (
      p_contract.id, v_price.id, v_terms ->> 'feature',
      billing_private.stripe_integer(v_terms -> 'unit_amount_minor'), v_terms ->> 'tiers_mode',
      v_terms -> 'tiers'
    )
    on conflict (contract_id, price_id) do update
    set feature_key = excluded.feature_key,
        unit_amount_minor = excluded.unit_amount_minor,
        tiers_mode = excluded.tiers_mode,
        tiers = excluded.tiers;
  end loop;
end;
$$;

comment on function billing_private.write_contract_prices(billing.contracts, jsonb) is
  'Writes what prices cost under a contract that is not in force yet.';


create function billing_private.write_contract_features(
  p_contract_id uuid,
  p_features jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.require_contents(p_features);
  delete from billing.contract_features where contract_id = p_contract_id;
  insert into billing.contract_features (contract_id, feature_key, limit_value)
  select p_contract_id, key, case when value <> 'true' then value::bigint end
  from jsonb_each(p_features);
end;
$$;

comment on function billing_private.write_contract_features(uuid, jsonb) is
  'Writes what a contract gives that is not in force yet.';


create function billing_private.admin_create_contract(
  p_contract billing.contracts,
  p_price_key text,
  p_features jsonb,
  p_prices jsonb
)
returns billing.contracts
language plpgsql
volatile
security definer -- contracts are writable by nobody
set search_path = ''
as $$
declare
  v_contract billing.contracts := p_contract;
begin
  perform billing_private.begin_admin_action(
    p_contract.reason, 'create_contract', p_contract.account_id::text);
  v_contract.account_id := billing_private.require_account(p_contract.account_id);
  v_contract.starts_at := coalesce(p_contract.starts_at, billing_private.now());
  if p_price_key is not null then
    v_contract.price_id := (billing_private.contract_price_of(p_price_key)).id;
  end if;
  perform billing_private.require_contract_terms(v_contract);

  insert into billing.contracts (
    account_id, price_id, quantity, starts_at, ends_at, first_ends_at, term_starts_at,
    term_months, notice_days, payment_terms_days, minimum_minor, commitment_minor, reference,
    reason
  )
  values (
    v_contract.account_id, v_contract.price_id, v_contract.quantity, v_contract.starts_at,
    v_contract.ends_at, v_contract.ends_at, v_contract.starts_at, v_contract.term_months,
    v_contract.notice_days, v_contract.payment_terms_days, v_contract.minimum_minor,
    v_contract.commitment_minor, btrim(v_contract.reference), v_contract.reason
  )
  returning * into v_contract;
  perform billing_private.write_contract_features(v_contract.id, coalesce(p_features, '{}'));
  perform billing_private.write_contract_prices(v_contract, coalesce(p_prices, '{}'));
  return v_contract;
end;
$$;


create function billing_admin.create_contract(
  account_id uuid,
  ends_at timestamptz,
  reference text,
  reason text,
  price_key text default null,
  quantity bigint default 1,
  starts_at timestamptz default null,
  features jsonb default '{}',
  prices jsonb default '{}',
  minimum_minor bigint default null,
  commitment_minor bigint default null,
  payment_terms_days integer default 30,
  term_months integer default null,
  notice_days integer default 0
)
returns billing.contracts
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_create_contract(
    row(
      null, create_contract.account_id, null, null, null, create_contract.quantity,
      create_contract.starts_at, create_contract.ends_at, null, null,
      create_contract.term_months, create_contract.notice_days, null,
      create_contract.payment_terms_days, create_contract.minimum_minor,
      create_contract.commitment_minor, null, create_contract.reference,
      create_contract.reason, null, null, null, null, null
    )::billing.contracts,
    create_contract.price_key, create_contract.features, create_contract.prices);
end;

comment on function billing_admin.create_contract(
  uuid, timestamptz, text, text, text, bigint, timestamptz, jsonb, jsonb, bigint, bigint, integer,
  integer, integer
) is
$$Drafts a contract: nothing is in force before billing_admin.activate_contract().

ends_at: end of the first term, exclusive. reference: where the signed document is. price_key: what
is billed each period; null where nothing is billed here. starts_at: null for now, at most a year
away. features: {"clubs": 50, "premium": true}, in place of the plan's limits. prices: what prices
cost, in the smallest unit: {"plus_monthly": 800} for the contract's own,
{"calls": {"feature": "api_calls", "tiers_mode": "volume", "tiers": […]}} for the usage of a
feature, billed after each period. minimum_minor: what each period's invoice comes to at least;
commitment_minor: what a term comes to at least. term_months: it renews by so many unless notice is
given notice_days before its end.

Errors
  VALIDATION_FAILED  400  no reason, or terms that cannot be
  NOT_AN_ADMIN       403  the caller is no administrator
  ACCOUNT_NOT_FOUND  404  neither an account nor a user has this id
  FEATURE_NOT_FOUND  404  there is no such feature
  PRICE_NOT_FOUND    404  there is no active price of this key$$;


create function billing_private.admin_activate_contract(
  p_contract_id uuid,
  p_reason text
)
returns billing.contracts
language plpgsql
volatile
security definer -- contracts are writable by nobody
set search_path = ''
as $$
declare
  v_contract billing.contracts;
begin
  perform billing_private.begin_admin_action(
    p_reason, 'activate_contract', p_contract_id::text);
  v_contract := billing_private.lock_contract(p_contract_id);
  if v_contract.status = 'active' then
    return v_contract; -- twice changes nothing more
  end if;
  perform billing_private.require_status(v_contract, 'draft');
  perform billing_private.require_contract_terms(v_contract);
  return billing_private.activate_contract(v_contract);
end;
$$;


create function billing_admin.activate_contract(
  contract_id uuid,
  reason text
)
returns billing.contracts
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_activate_contract(contract_id, reason);
end;

comment on function billing_admin.activate_contract(uuid, text) is
$$Brings a contract into force, from its start on, and starts the subscription that bills it. Twice
changes nothing more.

Errors
  VALIDATION_FAILED   400  no reason, no draft, or it would have ended by now
  PAYMENT_REQUIRED    402  the account owes an invoice
  NOT_AN_ADMIN        403  the caller is no administrator
  CONTRACT_NOT_FOUND  404  there is no such contract
  ALREADY_SUBSCRIBED  409  the account has a running subscription: end it first
  CONTRACT_IN_FORCE   409  another contract is in force in some of its time$$;


create function billing_private.admin_amend_contract(
  p_contract_id uuid,
  p_agreed billing.contracts,
  p_price_key text,
  p_features jsonb,
  p_prices jsonb
)
returns billing.contracts
language plpgsql
volatile
security definer -- contracts are writable by nobody
set search_path = ''
as $$
declare
  v_contract billing.contracts;
  v_wanted billing.contracts;
  v_new billing.contracts;
begin
  perform billing_private.begin_admin_action(
    p_agreed.reason, 'amend_contract', p_contract_id::text);
  v_contract := billing_private.lock_contract(p_contract_id);
  perform billing_private.require_status(v_contract, 'active');
  if v_contract.starts_at >= billing_private.now()
    or v_contract.ends_at <= billing_private.now()
    or exists (
      select
      from billing.subscriptions
      where id = v_contract.subscription_id
        and current_period_end <= billing_private.now()
    )
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'contract_id', 'problem', 'has not begun, or its period or term is just ending'));
  end if;

  v_wanted := v_contract;
  v_wanted.reference := coalesce(btrim(p_agreed.reference), '');
  v_wanted.reason := p_agreed.reason;
  v_wanted.quantity := coalesce(p_agreed.quantity, v_contract.quantity);
  v_wanted.ends_at := coalesce(p_agreed.ends_at, v_contract.ends_at);
  v_wanted.minimum_minor := coalesce(p_agreed.minimum_minor, v_contract.minimum_minor);
  v_wanted.commitment_minor := coalesce(p_agreed.commitment_minor, v_contract.commitment_minor);
  v_wanted.payment_terms_days := coalesce(
    p_agreed.payment_terms_days, v_contract.payment_terms_days);
  if p_price_key is not null then
    v_wanted.price_id := (billing_private.contract_price_of(p_price_key)).id;
  end if;
  v_wanted.starts_at := billing_private.now();
  perform billing_private.require_contract_terms(v_wanted);
  perform billing_private.require_same_billing(v_contract, v_wanted);

  v_new := billing_private.replace_contract(v_contract, v_wanted);
  if p_features is not null then
    perform billing_private.write_contract_features(v_new.id, p_features);
  end if;
  if p_prices is not null then
    delete from billing.contract_prices where contract_id = v_new.id;
    perform billing_private.write_contract_prices(v_new, p_prices);
  end if;
  return billing_private.put_in_force(v_contract, v_new);
end;
$$;


create function billing_private.require_same_billing(
  p_old billing.contracts,
  p_new billing.contracts
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_old.price_id is distinct from p_new.price_id and not exists (
    select
    from billing.prices as old
    join billing.prices as new
      on (new.currency, new.billing_interval, new.interval_count)
        = (old.currency, old.billing_interval, old.interval_count)
    where old.id = p_old.price_id
      and new.id = p_new.price_id
  ) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'price_key',
      'problem', 'must be of the same currency and interval: make another contract'));
  end if;
end;
$$;

comment on function billing_private.require_same_billing(billing.contracts, billing.contracts) is
  'Refuses an amendment that would begin billing anew (VALIDATION_FAILED, 400).';


create function billing_admin.amend_contract(
  contract_id uuid,
  reference text,
  reason text,
  price_key text default null,
  quantity bigint default null,
  ends_at timestamptz default null,
  features jsonb default null,
  prices jsonb default null,
  minimum_minor bigint default null,
  commitment_minor bigint default null,
  payment_terms_days integer default null
)
returns billing.contracts
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_amend_contract(
    amend_contract.contract_id,
    row(
      null, null, null, null, null, amend_contract.quantity, null, amend_contract.ends_at, null,
      null, null, null, null, amend_contract.payment_terms_days, amend_contract.minimum_minor,
      amend_contract.commitment_minor, null, amend_contract.reference, amend_contract.reason,
      null, null, null, null, null
    )::billing.contracts,
    amend_contract.price_key, amend_contract.features, amend_contract.prices);
end;

comment on function billing_admin.amend_contract(
  uuid, text, text, text, bigint, timestamptz, jsonb, jsonb, bigint, bigint, integer
) is
$$Puts another version of a contract in force from now on, which supersedes this one; what that
changes of the running period is invoiced, to the second. Returns the new version.

reference: where the signed amendment is. All else as in billing_admin.create_contract(); null for
what stays as it is. features and prices are replaced as a whole.

Errors
  VALIDATION_FAILED   400  no reason, terms that cannot be, or it has not begun
  NOT_AN_ADMIN        403  the caller is no administrator
  CONTRACT_NOT_FOUND  404  there is no such contract
  FEATURE_NOT_FOUND   404  there is no such feature
  PRICE_NOT_FOUND     404  there is no active price of this key$$;


create function billing_private.admin_end_contract(
  p_contract_id uuid,
  p_reason text,
  p_ends_at timestamptz,
  p_waives_commitment boolean
)
returns billing.contracts
language plpgsql
volatile
security definer -- contracts are writable by nobody
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_contract billing.contracts;
begin
  perform billing_private.begin_admin_action(p_reason, 'end_contract', p_contract_id::text);
  v_contract := billing_private.lock_contract(p_contract_id);
  if v_contract.status = 'ended' then
    return v_contract; -- twice changes nothing more
  elsif v_contract.status = 'draft'
    or v_contract.status = 'active' and v_contract.starts_at >= v_now
  then
    return billing_private.withdraw_contract(v_contract, p_reason);
  end if;
  perform billing_private.require_status(v_contract, 'active');

  if p_ends_at is null and v_contract.term_months is not null and v_contract.notice_at is null
    and v_contract.ends_at - make_interval(days => v_contract.notice_days) < v_now
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'ends_at', 'problem', 'notice is too late for this term: name an end',
      'ends_at', v_contract.ends_at));
  elsif p_ends_at > v_contract.in_force_until then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'ends_at', 'problem', 'it ends before that; amend it to make it longer'));
  end if;
  return billing_private.terminate_contract(
    v_contract, greatest(coalesce(p_ends_at, v_contract.ends_at), v_now),
    coalesce(p_waives_commitment, false), p_reason);
end;
$$;


create function billing_admin.end_contract(
  contract_id uuid,
  reason text,
  ends_at timestamptz default null,
  waives_commitment boolean default false
)
returns billing.contracts
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.admin_end_contract(
    end_contract.contract_id, end_contract.reason, end_contract.ends_at,
    end_contract.waives_commitment);
end;

comment on function billing_admin.end_contract(uuid, text, timestamptz, boolean) is
$$Gives notice: a contract ends with its running term, or at the instant named, and with it the
subscription that bills it. One that has not begun is withdrawn, its invoices voided. Twice changes
nothing more.

ends_at: a past one is now. waives_commitment: what is missing of the commitment is not billed.

Errors
  VALIDATION_FAILED   400  no reason, it was superseded, or notice is too late for the term
  NOT_AN_ADMIN        403  the caller is no administrator
  CONTRACT_NOT_FOUND  404  there is no such contract$$;


-- -----------------------------------------------------------------------------
-- 26  hook events
-- -----------------------------------------------------------------------------

create function billing_private.next_hook_events(p_after bigint, p_at_most integer)
returns setof billing.hook_events
language plpgsql
volatile
security definer -- events are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.require_admin();

  -- Numbers are given here, by one reader at a time: what is committed later comes later.
  if exists (select from billing.hook_events where position is null) then
    perform pg_advisory_xact_lock(hashtextextended('billing.hook_events', 0));
    update billing.hook_events
    set position = numbered.position
    from (
      select account_id, id, nextval('billing_private.hook_events_position_seq') as position
      from (
        select account_id, id
        from billing.hook_events
        where position is null
        order by occurred_at, id
        limit 10000
      ) as unread
    ) as numbered
    where hook_events.account_id = numbered.account_id
      and hook_events.id = numbered.id;
  end if;

  return query
  select *
  from billing.hook_events
  where position > coalesce(p_after, 0)
  order by position
  limit least(greatest(coalesce(p_at_most, 100), 1), 1000);
end;
$$;


create function billing_admin.next_hook_events(
  after bigint default 0,
  at_most integer default 100
)
returns setof billing.hook_events
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.next_hook_events(after, at_most);
end;

comment on function billing_admin.next_hook_events(bigint, integer) is
$$What happened that an application may want to act on, in an order that stays: call it again with
the last position you have dealt with, as often as you like. Nothing is passed by, however many
write and read at once. Events are kept for 90 days.

after: a position; 0 for the first. at_most: 1 to 1000.

Errors
  NOT_AN_ADMIN  403  the caller is no administrator$$;


-- -----------------------------------------------------------------------------
-- 27  who may call what
-- -----------------------------------------------------------------------------

revoke all on function
  billing_private.split_amount,
  billing_private.revenue_movements,
  billing_private.reversals_of,
  billing_private.revenue_entries,
  billing_private.admin_store_revenue,
  billing_private.store_statement,
  billing_admin.store_statement,
  billing_private.contents_told,
  billing_private.write_contents,
  billing_private.contents_agree,
  billing_private.plan_for_migration,
  billing_private.version_for_migration,
  billing_private.gains_over,
  billing_private.preview_plan_migration,
  billing_private.admin_plan_migrations,
  billing_private.migrate_plan,
  billing_private.stop_plan_migration,
  billing_admin.preview_plan_migration,
  billing_admin.migrate_plan,
  billing_admin.stop_plan_migration,
  billing_private.begin_store_action,
  billing_private.create_store,
  billing_private.update_store,
  billing_private.add_store_admin,
  billing_private.remove_store_admin,
  billing_private.set_revenue_share,
  billing_private.admin_stores,
  billing_private.begin_plan_action,
  billing_private.begin_price_action,
  billing_private.follow_at_stripe,
  billing_private.require_free_key,
  billing_private.require_name,
  billing_private.create_feature,
  billing_private.create_plan,
  billing_private.update_plan,
  billing_private.problem_of_tiers,
  billing_private.smallest_charge,
  billing_private.require_sellable,
  billing_private.create_price,
  billing_private.update_price,
  billing_private.archive_price,
  billing_private.note_admin_action,
  billing_admin.create_store,
  billing_admin.update_store,
  billing_admin.add_store_admin,
  billing_admin.remove_store_admin,
  billing_admin.set_revenue_share,
  billing_admin.create_feature,
  billing_admin.create_plan,
  billing_admin.update_plan,
  billing_admin.archive_plan,
  billing_admin.create_price,
  billing_admin.update_price,
  billing_admin.archive_price,
  billing_private.refundable_amount,
  billing_private.admin_refund_payment,
  billing_admin.refund_payment,
  billing_private.admin_discount_codes,
  billing_private.require_code_terms,
  billing_private.require_scopes,
  billing_private.admin_create_discount_code,
  billing_admin.create_discount_code,
  billing_private.admin_deactivate_discount_code,
  billing_admin.deactivate_discount_code,
  billing_private.admin_apply_discount_code,
  billing_admin.apply_discount_code,
  billing_private.admin_contracts,
  billing_private.require_contract_terms,
  billing_private.contract_price_of,
  billing_private.write_contract_prices,
  billing_private.write_contract_features,
  billing_private.admin_create_contract,
  billing_admin.create_contract,
  billing_private.admin_activate_contract,
  billing_admin.activate_contract,
  billing_private.admin_amend_contract,
  billing_private.require_same_billing,
  billing_admin.amend_contract,
  billing_private.admin_end_contract,
  billing_admin.end_contract,
  billing_private.admin_publish_catalog,
  billing_admin.publish_catalog,
  billing_private.admin_publish_plan,
  billing_admin.publish_plan,
  billing_private.admin_change_price,
  billing_admin.change_price,
  billing_private.admin_create_coupon,
  billing_admin.create_coupon,
  billing_private.plan_contents,
  billing_private.require_contents,
  billing_private.require_plan,
  billing_private.publish_plan_version,
  billing_admin.publish_plan_version,
  billing_private.admin_system_health,
  billing_private.admin_critical_issues,
  billing_private.admin_subscription_overview,
  billing_private.admin_problem_accounts,
  billing_private.paid_after_end,
  billing_private.charged_despite_pause,
  billing_private.unbilled_usage,
  billing_private.admin_overdue_invoices,
  billing_private.admin_money_invariants,
  billing_private.admin_entitlement_drift,
  billing_private.admin_unbound_customers,
  billing_private.admin_bind_customer,
  billing_admin.bind_customer,
  billing_private.admin_event_backlog,
  billing_private.admin_command_backlog,
  billing_private.admin_tasks,
  billing_private.admin_task_runs,
  billing_private.begin_admin_action,
  billing_private.add_administrator,
  billing_admin.add_administrator,
  billing_private.remove_administrator,
  billing_admin.remove_administrator,
  billing_private.set_stripe_livemode,
  billing_admin.set_stripe_livemode,
  billing_private.set_repeated_trial,
  billing_admin.set_repeated_trial,
  billing_private.configure_doorbell,
  billing_admin.configure_doorbell,
  billing_private.require_account,
  billing_private.grant_entitlement,
  billing_admin.grant_entitlement,
  billing_private.revoke_entitlement,
  billing_private.admin_seat_drift,
  billing_private.appoint_owner,
  billing_admin.appoint_owner,
  billing_private.admin_close_account,
  billing_admin.close_account,
  billing_private.reopen_account,
  billing_admin.reopen_account,
  billing_private.link_identity,
  billing_admin.link_identity,
  billing_private.unlink_identity,
  billing_admin.unlink_identity,
  billing_private.require_mfa_for_admins,
  billing_admin.require_mfa_for_admins,
  billing_admin.revoke_entitlement,
  billing_private.grant_subscription,
  billing_private.require_grant_terms,
  billing_admin.grant_subscription,
  billing_private.admin_record_payment,
  billing_admin.record_payment,
  billing_private.admin_close_invoice,
  billing_admin.void_invoice,
  billing_admin.write_off_invoice,
  billing_private.admin_correct_entitlements,
  billing_admin.correct_entitlements,
  billing_private.correct_all_entitlements,
  billing_admin.correct_all_entitlements,
  billing_private.replay_event,
  billing_admin.replay_event,
  billing_private.discard_event,
  billing_admin.discard_event,
  billing_private.choose_events,
  billing_private.outcomes_of,
  billing_private.replay_events,
  billing_admin.replay_events,
  billing_private.discard_events,
  billing_admin.discard_events,
  billing_private.retry_command,
  billing_admin.retry_command,
  billing_private.admin_run_task,
  billing_admin.run_task,
  billing_private.admin_drifts,
  billing_private.admin_sweeps,
  billing_private.start_backfill,
  billing_admin.start_backfill,
  billing_private.set_drift_policy,
  billing_admin.set_drift_policy,
  billing_private.rebuild_subscription,
  billing_admin.rebuild_subscription,
  billing_private.rebuild_all,
  billing_admin.rebuild_all,
  billing_admin.meter_table,
  billing_admin.unmeter_table,
  billing_private.admin_metered_tables,
  billing_private.admin_recount_metered_table,
  billing_admin.recount_metered_table,
  billing_private.grant_usage,
  billing_admin.grant_usage,
  billing_private.revoke_usage_grant,
  billing_admin.revoke_usage_grant,
  billing_private.correct_usage,
  billing_admin.correct_usage,
  billing_private.next_hook_events,
  billing_admin.next_hook_events
from public, anon, authenticated, service_role;

revoke all on
  billing_admin.discount_codes,
  billing_admin.contracts,
  billing_admin.plan_migrations,
  billing_admin.store_revenue,
  billing_admin.stores,
  billing_admin.system_health,
  billing_admin.critical_issues,
  billing_admin.subscription_overview,
  billing_admin.expiring_soon,
  billing_admin.problem_accounts,
  billing_admin.overdue_invoices,
  billing_admin.money_invariants,
  billing_admin.entitlement_drift,
  billing_admin.unbound_customers,
  billing_admin.event_backlog,
  billing_admin.command_backlog,
  billing_admin.tasks,
  billing_admin.task_runs,
  billing_admin.drifts,
  billing_admin.seat_drift,
  billing_admin.sweeps,
  billing_admin.metered_tables
from public, anon, authenticated, service_role;

-- Anyone signed in may ask; the functions behind decide who is an administrator.
grant select on
  billing_admin.discount_codes,
  billing_admin.contracts,
  billing_admin.plan_migrations,
  billing_admin.store_revenue,
  billing_admin.stores,
  billing_admin.system_health,
  billing_admin.critical_issues,
  billing_admin.subscription_overview,
  billing_admin.expiring_soon,
  billing_admin.problem_accounts,
  billing_admin.overdue_invoices,
  billing_admin.money_invariants,
  billing_admin.entitlement_drift,
  billing_admin.unbound_customers,
  billing_admin.event_backlog,
  billing_admin.command_backlog,
  billing_admin.tasks,
  billing_admin.task_runs,
  billing_admin.drifts,
  billing_admin.seat_drift,
  billing_admin.sweeps,
  billing_admin.metered_tables
to authenticated, service_role;

grant execute on function
  billing_private.admin_store_revenue,
  billing_private.store_statement,
  billing_admin.store_statement,
  billing_private.admin_plan_migrations,
  billing_private.migrate_plan,
  billing_private.preview_plan_migration,
  billing_private.stop_plan_migration,
  billing_admin.preview_plan_migration,
  billing_admin.migrate_plan,
  billing_admin.stop_plan_migration,
  billing_private.add_store_admin,
  billing_private.admin_stores,
  billing_private.archive_price,
  billing_private.create_feature,
  billing_private.create_plan,
  billing_private.create_price,
  billing_private.create_store,
  billing_private.remove_store_admin,
  billing_private.set_revenue_share,
  billing_private.update_plan,
  billing_private.update_price,
  billing_private.update_store,
  billing_admin.create_store,
  billing_admin.update_store,
  billing_admin.add_store_admin,
  billing_admin.remove_store_admin,
  billing_admin.set_revenue_share,
  billing_admin.create_feature,
  billing_admin.create_plan,
  billing_admin.update_plan,
  billing_admin.archive_plan,
  billing_admin.create_price,
  billing_admin.update_price,
  billing_admin.archive_price,
  billing_private.admin_publish_catalog,
  billing_admin.publish_catalog,
  billing_private.admin_publish_plan,
  billing_admin.publish_plan,
  billing_private.admin_change_price,
  billing_admin.change_price,
  billing_private.admin_refund_payment,
  billing_admin.refund_payment,
  billing_private.admin_discount_codes,
  billing_private.admin_create_discount_code,
  billing_admin.create_discount_code,
  billing_private.admin_deactivate_discount_code,
  billing_admin.deactivate_discount_code,
  billing_private.admin_apply_discount_code,
  billing_admin.apply_discount_code,
  billing_private.admin_contracts,
  billing_private.admin_create_contract,
  billing_admin.create_contract,
  billing_private.admin_activate_contract,
  billing_admin.activate_contract,
  billing_private.admin_amend_contract,
  billing_admin.amend_contract,
  billing_private.admin_end_contract,
  billing_admin.end_contract,
  billing_private.admin_create_coupon,
  billing_admin.create_coupon,
  billing_private.publish_plan_version,
  billing_admin.publish_plan_version,
  billing_private.admin_system_health,
  billing_private.admin_critical_issues,
  billing_private.admin_subscription_overview,
  billing_private.admin_problem_accounts,
  billing_private.admin_overdue_invoices,
  billing_private.admin_money_invariants,
  billing_private.admin_entitlement_drift,
  billing_private.admin_seat_drift,
  billing_private.admin_unbound_customers,
  billing_private.admin_bind_customer,
  billing_admin.bind_customer,
  billing_private.admin_event_backlog,
  billing_private.admin_command_backlog,
  billing_private.admin_tasks,
  billing_private.admin_task_runs,
  billing_private.add_administrator,
  billing_private.remove_administrator,
  billing_private.set_stripe_livemode,
  billing_private.configure_doorbell,
  billing_private.grant_entitlement,
  billing_private.revoke_entitlement,
  billing_admin.appoint_owner,
  billing_private.appoint_owner,
  billing_admin.close_account,
  billing_private.admin_close_account,
  billing_admin.reopen_account,
  billing_private.reopen_account,
  billing_admin.link_identity,
  billing_private.link_identity,
  billing_admin.unlink_identity,
  billing_private.unlink_identity,
  billing_admin.require_mfa_for_admins,
  billing_private.require_mfa_for_admins,
  billing_private.grant_subscription,
  billing_private.correct_all_entitlements,
  billing_private.admin_correct_entitlements,
  billing_private.replay_event,
  billing_private.discard_event,
  billing_private.replay_events,
  billing_private.discard_events,
  billing_private.retry_command,
  billing_private.admin_run_task,
  billing_admin.add_administrator,
  billing_admin.remove_administrator,
  billing_admin.set_stripe_livemode,
  billing_private.set_repeated_trial,
  billing_admin.set_repeated_trial,
  billing_admin.configure_doorbell,
  billing_admin.grant_entitlement,
  billing_admin.revoke_entitlement,
  billing_admin.grant_subscription,
  billing_private.admin_record_payment,
  billing_admin.record_payment,
  billing_private.admin_close_invoice,
  billing_admin.void_invoice,
  billing_admin.write_off_invoice,
  billing_admin.correct_all_entitlements,
  billing_admin.correct_entitlements,
  billing_admin.replay_event,
  billing_admin.discard_event,
  billing_admin.replay_events,
  billing_admin.discard_events,
  billing_admin.retry_command,
  billing_admin.run_task,
  billing_private.admin_drifts,
  billing_private.admin_sweeps,
  billing_private.start_backfill,
  billing_admin.start_backfill,
  billing_private.set_drift_policy,
  billing_admin.set_drift_policy,
  billing_private.rebuild_subscription,
  billing_admin.rebuild_subscription,
  billing_private.rebuild_all,
  billing_admin.rebuild_all,
  billing_private.admin_metered_tables,
  billing_private.admin_recount_metered_table,
  billing_admin.recount_metered_table,
  billing_private.grant_usage,
  billing_admin.grant_usage,
  billing_private.revoke_usage_grant,
  billing_admin.revoke_usage_grant,
  billing_private.correct_usage,
  billing_admin.correct_usage,
  billing_private.next_hook_events,
  billing_admin.next_hook_events
to authenticated, service_role;
