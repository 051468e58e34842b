-- =============================================================================
-- 0002  monitoring tables
--
-- The machine's own tables: what came from Stripe (inbox), what has to go there
-- (outbox), what runs when (tasks), and what was found (health).
--
-- Reads      0001 schemas, billing_private.now()
-- Read by    0003 projection and commands, 0006 automation, 0007 admin views
--
-- Invariants
--   * An event is stored before anything is decided about it, and never twice.
--   * A call to Stripe is repeated under the key of its first try, or not before Stripe has been
--     asked whether it took effect (see command_kinds).
--   * What is stored of Stripe's object is a function of the set of its snapshots in the
--     inbox, not of the order in which they came (see stripe_objects).
--
-- Contents
--   1  billing_private.stripe_events
--   2  billing_private.stripe_objects
--   3  billing_private.event_handlers
--   4  billing_private.stripe_resources
--   5  billing_private.test_clocks
--   6  billing_private.meters
--   7  billing_private.meter_error_reports
--   8  billing_private.webhook_rejections
--   9  billing_private.commands
--   10  billing_private.tasks
--   11  billing_private.task_runs
--   12  billing_private.health_checks
--   13  billing_private.entitlement_corrections
--   14  billing_private.admin_actions
--   15  billing_private.doorbell_rings
--   16  billing_private.invoice_numbers
--   17  billing_private.command_kinds
--   18  billing_private.dispatcher
--   19  billing_private.stripe_lists
--   20  billing_private.mirrored_tables
--   21  billing_private.sweeps
--   22  billing_private.drift_policies
--   23  billing_private.drifts
--   24  billing_private.reread_rules
--   25  billing_private.money_violations
--   26  billing_private.metering_corrections
--   27  billing_private.plan_migrations
--   28  billing_private.plan_migration_steps
--   29  billing_private.deleted_users
-- =============================================================================


-- -----------------------------------------------------------------------------
-- 1  billing_private.stripe_events
-- -----------------------------------------------------------------------------

create sequence billing_private.stripe_events_sequence_seq;

revoke all on sequence billing_private.stripe_events_sequence_seq
from public, anon, authenticated, service_role;

-- The payload is text: jsonb refuses \u0000, and the exact characters are the evidence.
create table billing_private.stripe_events (
  event_id text not null,
  source text not null default 'webhook',
  sequence bigint not null default nextval('billing_private.stripe_events_sequence_seq'),
  builds_on text,
  type text not null,
  object_id text,
  object_type text,
  stripe_customer_id text,
  connected_account_id text,
  api_version text,
  livemode boolean not null,
  occurred_at timestamptz not null,
  payload text not null,
  status text not null default 'pending',
  status_reason text,
  attempts integer not null default 0,
  next_attempt_at timestamptz,
  last_error jsonb,
  request_id text,
  received_at timestamptz not null default billing_private.now(),
  finished_at timestamptz,

  primary key (event_id),
  constraint stripe_events_source_is_known check (
    source in ('webhook', 'command', 'reread')
  ),
  constraint stripe_events_status_is_known check (
    status in ('pending', 'applied', 'ignored', 'failed', 'dead', 'discarded')
  )
);

-- Where the server can: it costs a fifth of the default's time. A payload is written once, and read
-- again seldom.
do $$
begin
  alter table billing_private.stripe_events alter column payload set compression lz4;
exception when feature_not_supported then
  null;
end;
$$;

comment on table billing_private.stripe_events is
  'Inbox: every verified Stripe event, and every object Stripe returned to a command, as it came.';
comment on column billing_private.stripe_events.source is
  'webhook; command (Stripe''s answer to a change we asked for); reread (Stripe''s answer to a '
  'question).';
comment on column billing_private.stripe_events.sequence is
  'When it came, as a number; of a re-read, taken before the question was asked: it knows of all '
  'that has a lower one.';
comment on column billing_private.stripe_events.builds_on is
  'Of an answer: the snapshot that was projected when the command was claimed, before the call.';
comment on column billing_private.stripe_events.occurred_at is
  'Stripe''s created, in whole seconds: many events share one. Of an answer: Stripe''s clock when '
  'it was asked.';
comment on column billing_private.stripe_events.status is
  'pending (stored), applied, ignored (status_reason says why), failed (will be retried), dead '
  '(given up), discarded (by an admin; status_reason says why).';

alter table billing_private.stripe_events enable row level security;
create policy select_nobody on billing_private.stripe_events for select to public using (false);

revoke all on billing_private.stripe_events from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 2  billing_private.stripe_objects
-- -----------------------------------------------------------------------------

create table billing_private.stripe_objects (
  object_id text not null,
  object_type text not null,
  event_id text not null,
  occurred_at timestamptz not null,
  states bigint[],
  is_final boolean not null default false,
  is_ambiguous boolean not null default false,

  primary key (object_id),
  constraint stripe_objects_event_id_fkey foreign key (event_id)
    references billing_private.stripe_events (event_id) on delete restrict
);

comment on table billing_private.stripe_objects is
  'For each object of Stripe, the snapshot that is projected into the tables of billing.';
comment on column billing_private.stripe_objects.states is
  'billing_private.state_of() each state it came to in that second, as long as each event told of '
  'a change of the one before; null where they did not. From the second event on, with the state '
  'that was there before the first.';
comment on column billing_private.stripe_objects.is_final is
  'The snapshot is in a state nothing leads out of (canceled, paid, void, deleted, …): only '
  'another final one replaces it.';
comment on column billing_private.stripe_objects.is_ambiguous is
  'Snapshots of one second contradict each other: Stripe is being asked which is newer.';

create index stripe_objects_event_id_idx on billing_private.stripe_objects (event_id);

alter table billing_private.stripe_objects enable row level security;
create policy select_nobody on billing_private.stripe_objects for select to public using (false);

revoke all on billing_private.stripe_objects from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 3  billing_private.event_handlers
-- -----------------------------------------------------------------------------

create table billing_private.event_handlers (
  event_type text not null,
  projector text not null,

  primary key (event_type)
);

comment on table billing_private.event_handlers is
  'Which projector of billing_private applies which type of event. A type without a row is stored '
  'and ignored.';

insert into billing_private.event_handlers (event_type, projector) values
  ('billing.meter.created', 'project_meter'),
  ('billing.meter.deactivated', 'project_meter'),
  ('billing.meter.reactivated', 'project_meter'),
  ('billing.meter.updated', 'project_meter'),
  ('charge.captured', 'project_charge'),
  ('charge.dispute.closed', 'project_dispute'),
  ('charge.dispute.created', 'project_dispute'),
  ('charge.dispute.funds_reinstated', 'project_dispute'),
  ('charge.dispute.funds_withdrawn', 'project_dispute'),
  ('charge.dispute.updated', 'project_dispute'),
  ('charge.expired', 'project_charge'),
  ('charge.failed', 'project_charge'),
  ('charge.pending', 'project_charge'),
  ('charge.refund.updated', 'project_refund'),
  ('charge.refunded', 'project_charge'),
  ('charge.succeeded', 'project_charge'),
  ('charge.updated', 'project_charge'),
  ('checkout.session.async_payment_failed', 'project_checkout_session'),
  ('checkout.session.async_payment_succeeded', 'project_checkout_session'),
  ('checkout.session.completed', 'project_checkout_session'),
  ('checkout.session.expired', 'project_checkout_session'),
  ('coupon.created', 'project_coupon'),
  ('coupon.deleted', 'project_coupon'),
  ('coupon.updated', 'project_coupon'),
  ('credit_note.created', 'project_credit_note'),
  ('credit_note.updated', 'project_credit_note'),
  ('credit_note.voided', 'project_credit_note'),
  ('customer.created', 'project_customer'),
  ('customer.deleted', 'project_customer'),
  ('customer.discount.created', 'project_discount'),
  ('customer.discount.deleted', 'project_discount'),
  ('customer.discount.updated', 'project_discount'),
  ('customer.subscription.created', 'project_subscription'),
  ('customer.subscription.deleted', 'project_subscription'),
  ('customer.subscription.paused', 'project_subscription'),
  ('customer.subscription.pending_update_applied', 'project_subscription'),
  ('customer.subscription.pending_update_expired', 'project_subscription'),
  ('customer.subscription.resumed', 'project_subscription'),
  ('customer.subscription.trial_will_end', 'project_subscription'),
  ('customer.subscription.updated', 'project_subscription'),
  ('customer.tax_id.created', 'project_tax_id'),
  ('customer.tax_id.deleted', 'project_tax_id'),
  ('customer.tax_id.updated', 'project_tax_id'),
  ('customer.updated', 'project_customer'),
  ('entitlements.active_entitlement_summary.updated', 'project_entitlement_summary'),
  ('invoice.created', 'project_invoice'),
  ('invoice.deleted', 'project_invoice'),
  ('invoice.finalization_failed', 'project_invoice'),
  ('invoice.finalized', 'project_invoice'),
  ('invoice.marked_uncollectible', 'project_invoice'),
  ('invoice.overdue', 'project_invoice'),
  ('invoice.overpaid', 'project_invoice'),
  ('invoice.paid', 'project_invoice'),
  ('invoice.payment_action_required', 'project_invoice'),
  ('invoice.payment_attempt_required', 'project_invoice'),
  ('invoice.payment_failed', 'project_invoice'),
  ('invoice.payment_succeeded', 'project_invoice'),
  ('invoice.sent', 'project_invoice'),
  ('invoice.updated', 'project_invoice'),
  ('invoice.voided', 'project_invoice'),
  ('invoice.will_be_due', 'project_invoice'),
  ('invoice_payment.paid', 'project_invoice_payment'),
  ('payment_intent.amount_capturable_updated', 'project_payment_intent'),
  ('payment_intent.canceled', 'project_payment_intent'),
  ('payment_intent.created', 'project_payment_intent'),
  ('payment_intent.partially_funded', 'project_payment_intent'),
  ('payment_intent.payment_failed', 'project_payment_intent'),
  ('payment_intent.processing', 'project_payment_intent'),
  ('payment_intent.requires_action', 'project_payment_intent'),
  ('payment_intent.succeeded', 'project_payment_intent'),
  ('payment_method.attached', 'project_payment_method'),
  ('payment_method.automatically_updated', 'project_payment_method'),
  ('payment_method.detached', 'project_payment_method'),
  ('payment_method.updated', 'project_payment_method'),
  ('price.created', 'project_price'),
  ('price.deleted', 'project_price'),
  ('price.updated', 'project_price'),
  ('product.created', 'project_product'),
  ('product.deleted', 'project_product'),
  ('product.updated', 'project_product'),
  ('promotion_code.created', 'project_promotion_code'),
  ('promotion_code.updated', 'project_promotion_code'),
  ('radar.early_fraud_warning.created', 'project_early_fraud_warning'),
  ('radar.early_fraud_warning.updated', 'project_early_fraud_warning'),
  ('refund.created', 'project_refund'),
  ('refund.failed', 'project_refund'),
  ('refund.updated', 'project_refund'),
  ('setup_intent.canceled', 'project_setup_intent'),
  ('setup_intent.created', 'project_setup_intent'),
  ('setup_intent.requires_action', 'project_setup_intent'),
  ('setup_intent.setup_failed', 'project_setup_intent'),
  ('setup_intent.succeeded', 'project_setup_intent'),
  ('subscription_schedule.aborted', 'project_subscription_schedule'),
  ('subscription_schedule.canceled', 'project_subscription_schedule'),
  ('subscription_schedule.completed', 'project_subscription_schedule'),
  ('subscription_schedule.created', 'project_subscription_schedule'),
  ('subscription_schedule.expiring', 'project_subscription_schedule'),
  ('subscription_schedule.released', 'project_subscription_schedule'),
  ('subscription_schedule.updated', 'project_subscription_schedule'),
  ('test_helpers.test_clock.advancing', 'project_test_clock'),
  ('test_helpers.test_clock.created', 'project_test_clock'),
  ('test_helpers.test_clock.deleted', 'project_test_clock'),
  ('test_helpers.test_clock.internal_failure', 'project_test_clock'),
  ('test_helpers.test_clock.ready', 'project_test_clock'),
  ('v1.billing.meter.error_report_triggered', 'project_meter_error_report'),
  ('v1.billing.meter.no_meter_found', 'project_meter_error_report');

alter table billing_private.event_handlers enable row level security;
create policy select_nobody on billing_private.event_handlers for select to public using (false);

revoke all on billing_private.event_handlers from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 4  billing_private.stripe_resources
-- -----------------------------------------------------------------------------

create table billing_private.stripe_resources (
  object_type text not null,
  retrieve_path text not null,
  params jsonb not null default '{}',
  snapshot_type text not null,
  deletion_type text,

  primary key (object_type),
  constraint stripe_resources_retrieve_path_has_an_id check (retrieve_path like '%{id}%')
);

comment on table billing_private.stripe_resources is
  'How each kind of object is read at Stripe.';
comment on column billing_private.stripe_resources.params is
  'Of the request: what Stripe leaves out unless it is asked to expand it.';
comment on column billing_private.stripe_resources.snapshot_type is
  'The event type under which what was read enters the inbox.';
comment on column billing_private.stripe_resources.deletion_type is
  'The same where Stripe says that there is no such object any more; null for what it never '
  'forgets.';

insert into billing_private.stripe_resources (
  object_type, retrieve_path, params, snapshot_type, deletion_type
) values
  ('billing.meter', '/v1/billing/meters/{id}', '{}', 'billing.meter.updated', null),
  ('charge', '/v1/charges/{id}', '{}', 'charge.updated', null),
  ('checkout.session', '/v1/checkout/sessions/{id}', '{}', 'checkout.session.completed', null),
  ('coupon', '/v1/coupons/{id}', '{}', 'coupon.updated', 'coupon.deleted'),
  ('credit_note', '/v1/credit_notes/{id}', '{}', 'credit_note.updated', null),
  ('customer', '/v1/customers/{id}', '{}', 'customer.updated', 'customer.deleted'),
  ('dispute', '/v1/disputes/{id}', '{}', 'charge.dispute.updated', null),
  ('invoice', '/v1/invoices/{id}', '{}', 'invoice.updated', 'invoice.deleted'),
  ('invoice_payment', '/v1/invoice_payments/{id}', '{}', 'invoice_payment.paid', null),
  ('payment_intent', '/v1/payment_intents/{id}', '{}', 'payment_intent.processing', null),
  ('payment_method', '/v1/payment_methods/{id}', '{}', 'payment_method.updated', null),
  ('price', '/v1/prices/{id}', '{"expand": ["tiers"]}', 'price.updated', 'price.deleted'),
  ('product', '/v1/products/{id}', '{}', 'product.updated', 'product.deleted'),
  ('promotion_code', '/v1/promotion_codes/{id}', '{}', 'promotion_code.updated', null),
  ('radar.early_fraud_warning', '/v1/radar/early_fraud_warnings/{id}', '{}',
    'radar.early_fraud_warning.updated', null),
  ('refund', '/v1/refunds/{id}', '{}', 'refund.updated', null),
  ('setup_intent', '/v1/setup_intents/{id}', '{}', 'setup_intent.requires_action', null),
  ('subscription', '/v1/subscriptions/{id}', '{}', 'customer.subscription.updated', null),
  ('subscription_schedule', '/v1/subscription_schedules/{id}', '{}',
    'subscription_schedule.updated', null),
  ('tax_id', '/v1/tax_ids/{id}', '{}', 'customer.tax_id.updated', 'customer.tax_id.deleted'),
  ('test_helpers.test_clock', '/v1/test_helpers/test_clocks/{id}', '{}',
    'test_helpers.test_clock.ready', 'test_helpers.test_clock.deleted');

alter table billing_private.stripe_resources enable row level security;
create policy select_nobody on billing_private.stripe_resources
  for select to public using (false);

revoke all on billing_private.stripe_resources from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 5  billing_private.test_clocks
-- -----------------------------------------------------------------------------

create table billing_private.test_clocks (
  stripe_test_clock_id text not null,
  name text,
  status text,
  frozen_at timestamptz,
  deletes_after timestamptz,
  deleted_at timestamptz,

  primary key (stripe_test_clock_id)
);

comment on table billing_private.test_clocks is
  'Clocks of Stripe''s test mode: the customers on one live in its time.';
comment on column billing_private.test_clocks.status is
  'advancing (its customers'' events are still coming), ready or internal_failure; open '
  'vocabulary.';
comment on column billing_private.test_clocks.frozen_at is
  'What it says now.';
comment on column billing_private.test_clocks.deleted_at is
  'When it was deleted, and its customers with it.';

alter table billing_private.test_clocks enable row level security;
create policy select_nobody on billing_private.test_clocks for select to public using (false);

revoke all on billing_private.test_clocks from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 6  billing_private.meters
-- -----------------------------------------------------------------------------

create table billing_private.meters (
  stripe_meter_id text not null,
  event_name text,
  display_name text,
  status text,
  formula text,
  customer_key text,
  value_key text,

  primary key (stripe_meter_id)
);

comment on table billing_private.meters is
  'Stripe''s meters: what usage is reported to.';
comment on column billing_private.meters.event_name is
  'What reports are sent under.';
comment on column billing_private.meters.status is
  'active or inactive; open vocabulary.';
comment on column billing_private.meters.formula is
  'How reports add up to a bill: sum, count or last; open vocabulary.';
comment on column billing_private.meters.customer_key is
  'Key of a report''s payload that names the customer; value_key is the one of the quantity.';

alter table billing_private.meters enable row level security;
create policy select_nobody on billing_private.meters for select to public using (false);

revoke all on billing_private.meters from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 7  billing_private.meter_error_reports
-- -----------------------------------------------------------------------------

create table billing_private.meter_error_reports (
  event_id text not null,
  stripe_meter_id text,
  reported_at timestamptz not null,
  validation_start timestamptz,
  validation_end timestamptz,
  error_count bigint,
  summary text,
  error_types jsonb,

  primary key (event_id),
  constraint meter_error_reports_event_id_fkey foreign key (event_id)
    references billing_private.stripe_events (event_id) on delete cascade
);

comment on table billing_private.meter_error_reports is
  'Usage we reported that Stripe could not count: it says so only here, some time afterwards.';
comment on column billing_private.meter_error_reports.stripe_meter_id is
  'Null where no meter takes reports of that name.';
comment on column billing_private.meter_error_reports.error_count is
  'How many reports of the window failed; null until Stripe has told the details.';
comment on column billing_private.meter_error_reports.error_types is
  'Per code how many, with samples: [{"code", "error_count", "sample_errors": […]}].';

alter table billing_private.meter_error_reports enable row level security;
create policy select_nobody on billing_private.meter_error_reports
  for select to public using (false);

revoke all on billing_private.meter_error_reports from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 8  billing_private.webhook_rejections
-- -----------------------------------------------------------------------------

-- Counted, not listed: whoever can reach the endpoint can cause these rows.
create table billing_private.webhook_rejections (
  reason text not null,
  minute timestamptz not null,
  count integer not null default 1,

  primary key (reason, minute),
  constraint webhook_rejections_minute_is_whole check (
    minute = date_trunc('minute', minute, 'UTC')
  )
);

comment on table billing_private.webhook_rejections is
  'How many webhook requests were refused, by minute and reason (an error code).';

alter table billing_private.webhook_rejections enable row level security;
create policy select_nobody on billing_private.webhook_rejections
  for select to public using (false);

revoke all on billing_private.webhook_rejections from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 9  billing_private.commands
-- -----------------------------------------------------------------------------

create table billing_private.commands (
  id uuid not null default gen_random_uuid(),
  position bigint generated always as identity,
  kind text not null,
  is_awaited boolean not null generated always as (
    kind in ('create_portal', 'create_setup', 'preview_change', 'find_promotion_code')
  ) stored,
  account_id uuid references billing.accounts (id) on delete restrict,
  subscription_id uuid references billing.subscriptions (id) on delete restrict,
  subject_id uuid,
  method text not null default 'POST',
  path text not null,
  params jsonb not null default '{}',
  target_object_id text,
  target_event_id text,
  sequence bigint,
  wish jsonb,
  status text not null default 'pending',
  attempts integer not null default 0,
  next_attempt_at timestamptz not null default billing_private.now(),
  lease uuid,
  lease_expires_at timestamptz,
  result_id text,
  last_error jsonb,
  idempotency_key uuid,
  first_attempt_at timestamptz,
  looking_up text,
  looked_up_to text,
  actor_id uuid,
  cause jsonb not null default '{}',
  request_id text,
  created_at timestamptz not null default billing_private.now(),
  finished_at timestamptz,

  primary key (id),
  constraint commands_looking_up_is_known check (looking_up in ('old', 'spent', 'refused')),
  constraint commands_status_is_known check (
    status in ('pending', 'leased', 'succeeded', 'declined', 'dead', 'canceled')
  ),
  constraint commands_lease_has_an_end check (
    (status = 'leased') = (lease is not null and lease_expires_at is not null)
  )
);

comment on table billing_private.commands is
  'Outbox: calls to Stripe, written in the transaction that wants them.';
comment on column billing_private.commands.account_id is
  'Null for what the machine asks for itself: that stands in no account''s line.';
comment on column billing_private.commands.status is
  'pending, leased, succeeded; declined: the card was, which is an answer and no fault; dead: '
  'given up; canceled: not wanted any more.';
comment on column billing_private.commands.position is
  'Commands of one account run one at a time, in this order.';
comment on column billing_private.commands.is_awaited is
  'Its answer is for the user who waits and of no use to anybody else: it stands in no line, and '
  'only that user''s own function makes it.';
comment on column billing_private.commands.subject_id is
  'The checkout or portal request a waiting user is behind; lets its own function run it at once.';
comment on column billing_private.commands.wish is
  'The price_id and quantity that a change of plan leads to, for the calls that follow and for the'
  ' next wish; null when it was taken back. Of a pause: when it was to begin.';
comment on column billing_private.commands.target_object_id is
  'The Stripe object it changes or reads; target_event_id is its snapshot when the command was '
  'claimed, before the call.';
comment on column billing_private.commands.sequence is
  'Taken when it was claimed: the place of what it reads among the snapshots of the inbox.';

comment on column billing_private.commands.idempotency_key is
  'Under which Stripe knows the call; null for the id. A fresh one when the last is used up.';
comment on column billing_private.commands.first_attempt_at is
  'When the call was first handed out under this key.';
comment on column billing_private.commands.looking_up is
  'Why Stripe is asked whether the call took effect, before anything else: its key is old (Stripe '
  'may have forgotten it) or spent (Stripe repeats a server error for it), or the call was refused '
  '(perhaps because there is nothing left to do).';
comment on column billing_private.commands.looked_up_to is
  'The last object of a list that was looked through so far.';

create index commands_account_id_idx on billing_private.commands (account_id, position);
create index commands_subscription_id_idx on billing_private.commands (subscription_id);

alter table billing_private.commands enable row level security;
create policy select_nobody on billing_private.commands for select to public using (false);

revoke all on billing_private.commands from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 10  billing_private.tasks
-- -----------------------------------------------------------------------------

create table billing_private.tasks (
  key text not null,
  description text not null,
  function_name text not null,
  run_every interval not null,
  is_enabled boolean not null default true,
  next_run_at timestamptz,
  last_run_at timestamptz,
  consecutive_failures integer not null default 0,
  resume_after text,

  primary key (key),
  constraint tasks_run_every_is_positive check (run_every > interval '0'),
  -- A month has no fixed length, so there is no grid of months to run on.
  constraint tasks_run_every_has_no_months check (
    extract(year from run_every) = 0 and extract(month from run_every) = 0
  )
);

comment on table billing_private.tasks is
  'What runs when. A missed run is caught up by the next heartbeat; 0006 fills in the rows.';
comment on column billing_private.tasks.next_run_at is
  'Null until it has run once: due at the next heartbeat.';
comment on column billing_private.tasks.resume_after is
  'Where a task that works through everything in batches goes on; null at the beginning.';
comment on column billing_private.tasks.function_name is
  'A function of billing_private taking no argument and returning how many rows it changed.';

alter table billing_private.tasks enable row level security;
create policy select_nobody on billing_private.tasks for select to public using (false);

revoke all on billing_private.tasks from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 11  billing_private.task_runs
-- -----------------------------------------------------------------------------

create table billing_private.task_runs (
  id bigint generated always as identity,
  task_key text not null references billing_private.tasks (key) on delete cascade,
  started_at timestamptz not null,
  duration interval not null,
  outcome text not null,
  rows_affected bigint,
  error jsonb,

  primary key (id),
  constraint task_runs_outcome_is_known check (outcome in ('succeeded', 'failed'))
);

comment on table billing_private.task_runs is
  'Every run of every task and what came of it.';
comment on column billing_private.task_runs.duration is
  'Wall-clock time spent.';

create index task_runs_task_key_idx on billing_private.task_runs (task_key, id desc);

alter table billing_private.task_runs enable row level security;
create policy select_nobody on billing_private.task_runs for select to public using (false);

revoke all on billing_private.task_runs from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 12  billing_private.health_checks
-- -----------------------------------------------------------------------------

create table billing_private.health_checks (
  check_key text not null,
  status text not null,
  summary text not null,
  value numeric,
  checked_at timestamptz not null,
  since timestamptz not null,

  primary key (check_key),
  constraint health_checks_status_is_known check (status in ('healthy', 'degraded', 'unhealthy'))
);

comment on table billing_private.health_checks is
  'The latest result of each health check.';
comment on column billing_private.health_checks.since is
  'Since when the check has had its status.';

alter table billing_private.health_checks enable row level security;
create policy select_nobody on billing_private.health_checks for select to public using (false);

revoke all on billing_private.health_checks from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 13  billing_private.entitlement_corrections
-- -----------------------------------------------------------------------------

create table billing_private.entitlement_corrections (
  id bigint generated always as identity,
  account_id uuid not null references billing.accounts (id) on delete restrict,
  feature_key text,
  problem text not null,
  before jsonb,
  after jsonb,
  cause jsonb not null default '{}',
  corrected_at timestamptz not null default billing_private.now(),

  primary key (id),
  constraint entitlement_corrections_problem_is_known check (
    problem in ('missing', 'surplus', 'different')
  )
);

comment on table billing_private.entitlement_corrections is
  'Each stored entitlement that disagreed with its sources: what it said, and what it was '
  'corrected to.';
comment on column billing_private.entitlement_corrections.feature_key is
  'Null where it was the account''s profile.';

create index entitlement_corrections_account_id_idx
  on billing_private.entitlement_corrections (account_id);

alter table billing_private.entitlement_corrections enable row level security;
create policy select_nobody on billing_private.entitlement_corrections
  for select to public using (false);

revoke all on billing_private.entitlement_corrections
from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 14  billing_private.admin_actions
-- -----------------------------------------------------------------------------

-- Some corrections change no business table (a replay, a retry), so what the audit says of the
-- changes alone would not say who asked for them, and why.
create table billing_private.admin_actions (
  id bigint generated always as identity,
  action text not null,
  subject text,
  reason text not null,
  actor_id uuid,
  actor_role text not null,
  request_id text,
  acted_at timestamptz not null default billing_private.now(),

  primary key (id)
);

comment on table billing_private.admin_actions is
  'Every correction an administrator made: who, what, to what, and why.';
comment on column billing_private.admin_actions.action is
  'The RPC of billing_admin that was called.';
comment on column billing_private.admin_actions.subject is
  'Id of what it was about; null when it was about everything.';

alter table billing_private.admin_actions enable row level security;
create policy select_nobody on billing_private.admin_actions for select to public using (false);

revoke all on billing_private.admin_actions from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 15  billing_private.doorbell_rings
-- -----------------------------------------------------------------------------

create table billing_private.doorbell_rings (
  id bigint generated always as identity,
  request_id bigint,
  rung_at timestamptz not null default billing_private.now(),
  answered_at timestamptz,
  http_status integer,
  error text,

  primary key (id),
  constraint doorbell_rings_asked_or_failed check (request_id is not null or error is not null)
);

comment on table billing_private.doorbell_rings is
  'Every time the database asked the dispatcher to carry commands to Stripe, and what came of it.';
comment on column billing_private.doorbell_rings.request_id is
  'The request''s number in pg_net; null where it could not even be made (error says why).';
comment on column billing_private.doorbell_rings.answered_at is
  'When the answer, or its absence, was noted; null while the request is under way.';

alter table billing_private.doorbell_rings enable row level security;
create policy select_nobody on billing_private.doorbell_rings for select to public using (false);

revoke all on billing_private.doorbell_rings from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 16  billing_private.invoice_numbers
-- -----------------------------------------------------------------------------

-- A row, not a sequence: that leaves a gap wherever a transaction fails, and tax law wants none.
create table billing_private.invoice_numbers (
  year integer not null,
  last_number integer not null,

  primary key (year)
);

comment on table billing_private.invoice_numbers is
  'The last number given to an invoice of a manual subscription, by year (UTC).';

alter table billing_private.invoice_numbers enable row level security;
create policy select_nobody on billing_private.invoice_numbers for select to public using (false);

revoke all on billing_private.invoice_numbers from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 17  billing_private.command_kinds
-- -----------------------------------------------------------------------------

-- Stripe keeps an idempotency key for 24 hours. After that the same call is a new one, so whether
-- the first took effect has to be seen from what there is.
create table billing_private.command_kinds (
  kind text not null,
  description text not null,
  max_attempts integer not null default 12,
  when_old text not null,
  look_up_path text,
  look_up_params jsonb not null default '{}',
  effect jsonpath,
  verify_refusals boolean not null default false,

  primary key (kind),
  constraint command_kinds_max_attempts_is_positive check (max_attempts > 0),
  constraint command_kinds_when_old_is_known check (
    when_old in ('repeat', 'find_or_repeat', 'find_or_drop', 'drop')
  ),
  constraint command_kinds_look_up_tells_an_effect check (
    (look_up_path is null) = (effect is null)
  ),
  constraint command_kinds_look_up_where_needed check (
    look_up_path is not null or not (when_old like 'find%' or verify_refusals)
  )
);

comment on table billing_private.command_kinds is
  'What each kind of call to Stripe is, how often it is tried, and how to see whether one that may '
  'have been made took effect.';
comment on column billing_private.command_kinds.max_attempts is
  'After so many tries without a clear answer it is given up.';
comment on column billing_private.command_kinds.when_old is
  'What becomes of a call first tried 23 hours ago: repeated (twice does no more than once), '
  'looked for and repeated if not found, looked for and given up if not found, or given up.';
comment on column billing_private.command_kinds.look_up_path is
  'Where Stripe shows what the call leaves behind. {3} is the third part of the call''s own path, '
  '{id} the id among its parameters, {target} its target_object_id.';
comment on column billing_private.command_kinds.look_up_params is
  'Of the look-up. A text that begins with $ is a path into the command; $.since is an hour before '
  'its first try, in Unix seconds.';
comment on column billing_private.command_kinds.effect is
  'Finds in Stripe''s answer the object the call would have returned; variables are the command''s '
  'columns.';
comment on column billing_private.command_kinds.verify_refusals is
  'A refusal may mean that there is nothing left to do: Stripe is asked before it counts.';

insert into billing_private.command_kinds (
  kind, description, when_old, look_up_path, look_up_params, effect, verify_refusals
) values
  -- A coupon for one invoice may be used up by now: asked for again it would come off twice.
  ('apply_discount', 'take a discount code off a running subscription', 'find_or_drop',
    '/v1/subscriptions/{3}', '{"expand": ["discounts"]}',
    '$ ? (exists (@.discounts[*] ? (@.coupon.id == $params.discounts[0].coupon
      || @.source.coupon == $params.discounts[0].coupon)))', false),
  ('cancel_meter_event', 'take back usage a meter was told of', 'drop', null, '{}', null, false),
  ('cancel_subscription', 'end a subscription now', 'repeat',
    '/v1/subscriptions/{3}', '{}',
    '$ ? (@.status == "canceled" || @.status == "incomplete_expired")', true),
  ('change_plan', 'move a subscription to another price, with proration', 'find_or_repeat',
    '/v1/subscriptions/{3}', '{}',
    '$ ? (
      exists (@.items.data[*] ? (@.id == $params.items[0].id
        && @.price.id == $params.items[0].price
        && (!exists ($params.items[0].quantity) || @.quantity == $params.items[0].quantity)))
      || exists (@.pending_update.subscription_items[*] ? (
        @.price.id == $params.items[0].price)))', false),
  ('create_checkout', 'open a checkout page somebody waits for', 'drop',
    null, '{}', null, false),
  ('create_coupon', 'make a coupon', 'find_or_repeat',
    '/v1/coupons/{id}', '{}', '$ ? (@.object == "coupon" && !exists (@.deleted))', true),
  ('create_customer', 'make an account known', 'find_or_repeat',
    '/v1/customers', '{"email": "$.params.email", "created[gte]": "$.since", "limit": 100}',
    '$.data[*] ? (@.metadata.account_id == $account_id)', false),
  ('create_portal', 'open a portal page somebody waits for', 'drop',
    null, '{}', null, false),
  ('create_price', 'put a price of the catalog on sale', 'find_or_repeat',
    '/v1/prices', '{"product": "$.params.product", "limit": 100}',
    '$.data[*] ? (@.metadata.price_id == $params.metadata.price_id
      || @.lookup_key == $params.lookup_key && @.currency == $params.currency
        && @.unit_amount == $params.unit_amount)', true),
  ('create_product', 'put a plan of the catalog on sale', 'find_or_repeat',
    '/v1/products/{id}', '{}',
    '$ ? (@.metadata.plan_key == $params.metadata.plan_key && !exists (@.deleted))', true),
  ('create_schedule', 'prepare a change at period end', 'find_or_repeat',
    '/v1/subscriptions/{target}', '{"expand": ["schedule"]}',
    '$.schedule ? (@.object == "subscription_schedule")', false),
  ('create_setup', 'open a page for a payment method somebody waits for', 'drop',
    null, '{}', null, false),
  ('end_trial', 'collect at once from who has had a trial', 'repeat',
    null, '{}', null, false),
  ('expire_checkout', 'close a checkout page', 'repeat',
    '/v1/checkout/sessions/{4}', '{}',
    '$ ? (@.status == "expired" || @.status == "complete")', true),
  ('find_features', 'ask whether a product gives features', 'repeat', null, '{}', null, false),
  ('find_promotion_code', 'look for a discount code somebody typed', 'drop',
    null, '{}', null, false),
  ('finalize_invoice', 'close a draft that is to be taken back', 'repeat',
    '/v1/invoices/{3}', '{}', '$ ? (@.status != "draft")', true),
  ('hold_invoice', 'leave an invoice uncollected', 'repeat', null, '{}', null, false),
  ('list_entitlements', 'read what else a customer is entitled to', 'repeat',
    null, '{}', null, false),
  ('list_invoice_lines', 'read the lines of a long invoice', 'repeat', null, '{}', null, false),
  ('list_subscription_items', 'read the items of a long subscription', 'repeat',
    null, '{}', null, false),
  ('mark_uncollectible', 'give up on an invoice', 'repeat',
    '/v1/invoices/{3}', '{}',
    '$ ? (@.status == "uncollectible" || @.status == "paid" || @.status == "void")', true),
  ('meter_event', 'report usage to a meter', 'drop', null, '{}', null, false),
  ('pause_collection', 'stop collecting for a while', 'repeat', null, '{}', null, false),
  ('pay_invoice', 'try to collect an invoice', 'find_or_drop',
    '/v1/invoices/{3}', '{}', '$ ? (@.status == "paid")', true),
  ('read_entitlements', 'read what a customer is entitled to who was never told of', 'repeat',
    null, '{}', null, false),
  ('read_event', 'ask what an event says in full', 'repeat', null, '{}', null, false),
  ('refund_charge', 'give money back', 'find_or_repeat',
    '/v1/refunds',
    '{"payment_intent": "$.params.payment_intent", "charge": "$.params.charge", "limit": 100}',
    '$.data[*] ? (@.metadata.reference == $params.metadata.reference)', true),
  ('release_schedule', 'take back a change at period end', 'repeat',
    '/v1/subscription_schedules/{3}', '{}',
    '$ ? (@.status == "released" || @.status == "canceled" || @.status == "completed")', true),
  ('preview_change', 'say what a change somebody thinks about would cost', 'drop',
    null, '{}', null, false),
  ('reread', 'ask how an object is', 'repeat', null, '{}', null, false),
  ('resume_collection', 'collect again', 'repeat', null, '{}', null, false),
  ('resume_subscription', 'take up what Stripe paused', 'find_or_repeat',
    '/v1/subscriptions/{3}', '{}', '$ ? (@.status != "paused")', true),
  ('sweep_page', 'read a page of one of Stripe''s lists', 'repeat', null, '{}', null, false),
  ('set_payment_method', 'charge another payment method from now on', 'repeat',
    null, '{}', null, false),
  ('undo_cancel', 'go on after all', 'repeat', null, '{}', null, false),
  ('update_customer', 'keep a customer''s address and name in step', 'repeat',
    null, '{}', null, false),
  ('update_price', 'keep a price in step with the catalog', 'repeat', null, '{}', null, false),
  ('update_product', 'keep a product in step with the catalog', 'repeat', null, '{}', null, false),
  ('update_schedule', 'set what comes at period end', 'repeat', null, '{}', null, false),
  ('update_subscription', 'end a subscription with its period', 'repeat',
    null, '{}', null, false),
  ('void_invoice', 'take an invoice back', 'repeat',
    '/v1/invoices/{3}', '{}', '$ ? (@.status == "void" || @.status == "paid")', true);

alter table billing_private.command_kinds enable row level security;
create policy select_nobody on billing_private.command_kinds for select to public using (false);

revoke all on billing_private.command_kinds from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 18  billing_private.dispatcher
-- -----------------------------------------------------------------------------

create table billing_private.dispatcher (
  only_row boolean not null default true,
  last_claim_at timestamptz,

  primary key (only_row),
  constraint dispatcher_is_one_row check (only_row)
);

comment on table billing_private.dispatcher is
  'When somebody last asked for commands to carry, to within a few seconds. Exactly one row.';

insert into billing_private.dispatcher default values;

alter table billing_private.dispatcher enable row level security;
create policy select_nobody on billing_private.dispatcher for select to public using (false);

revoke all on billing_private.dispatcher from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 19  billing_private.stripe_lists
-- -----------------------------------------------------------------------------

create table billing_private.stripe_lists (
  key text not null,
  position integer not null,
  object_type text references billing_private.stripe_resources (object_type) on delete restrict,
  path text not null,
  params jsonb not null default '{}',
  pause interval not null default '0',

  primary key (key),
  constraint stripe_lists_position_key unique (position)
);

-- Not here: tax ids, which Stripe lists customer by customer (/v1/tax_ids alone lists those of the
-- account itself), and test clocks, which live mode does not list. Both are read one by one where
-- events contradict each other. Payment methods and entitlements, listed customer by customer as
-- well, are asked for at the end of a sweep of the subscriptions.
comment on table billing_private.stripe_lists is
  'The lists of Stripe that are swept, in this order: what others refer to comes first.';
comment on column billing_private.stripe_lists.object_type is
  'Null for the list of events.';
comment on column billing_private.stripe_lists.params is
  'What makes the list complete: Stripe leaves out canceled subscriptions and archived prices '
  'unless it is asked for them.';
comment on column billing_private.stripe_lists.pause is
  'At least this long between two pages. A sweep never asks for two at a time.';

create index stripe_lists_object_type_idx on billing_private.stripe_lists (object_type);

insert into billing_private.stripe_lists (key, position, object_type, path, params) values
  ('events', 10, null, '/v1/events', '{}'),
  ('products', 20, 'product', '/v1/products', '{}'),
  ('prices', 30, 'price', '/v1/prices', '{"active": true, "expand": ["data.tiers"]}'),
  ('archived_prices', 31, 'price', '/v1/prices', '{"active": false, "expand": ["data.tiers"]}'),
  ('coupons', 32, 'coupon', '/v1/coupons', '{}'),
  ('promotion_codes', 33, 'promotion_code', '/v1/promotion_codes', '{}'),
  ('meters', 34, 'billing.meter', '/v1/billing/meters', '{}'),
  ('customers', 40, 'customer', '/v1/customers', '{}'),
  ('subscriptions', 50, 'subscription', '/v1/subscriptions', '{"status": "all"}'),
  ('subscription_schedules', 55, 'subscription_schedule', '/v1/subscription_schedules', '{}'),
  ('invoices', 60, 'invoice', '/v1/invoices', '{}'),
  ('payment_intents', 70, 'payment_intent', '/v1/payment_intents', '{}'),
  ('charges', 80, 'charge', '/v1/charges', '{}'),
  ('invoice_payments', 90, 'invoice_payment', '/v1/invoice_payments', '{}'),
  ('refunds', 100, 'refund', '/v1/refunds', '{}'),
  ('disputes', 101, 'dispute', '/v1/disputes', '{}'),
  ('early_fraud_warnings', 102, 'radar.early_fraud_warning', '/v1/radar/early_fraud_warnings',
    '{}'),
  ('credit_notes', 103, 'credit_note', '/v1/credit_notes', '{}'),
  ('setup_intents', 104, 'setup_intent', '/v1/setup_intents', '{}'),
  ('checkout_sessions', 110, 'checkout.session', '/v1/checkout/sessions', '{}');

alter table billing_private.stripe_lists enable row level security;
create policy select_nobody on billing_private.stripe_lists for select to public using (false);

revoke all on billing_private.stripe_lists from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 20  billing_private.mirrored_tables
-- -----------------------------------------------------------------------------

create table billing_private.mirrored_tables (
  object_type text not null,
  table_name text not null,
  key_column text not null,
  match_column text not null,
  owner_table text,
  owner_key_column text,

  primary key (object_type, table_name),
  constraint mirrored_tables_owner_is_whole check (
    (owner_table is null) = (owner_key_column is null)
  )
);

comment on table billing_private.mirrored_tables is
  'Which rows mirror which kind of object of Stripe, so that they can be compared with it.';
comment on column billing_private.mirrored_tables.key_column is
  'Stripe''s id of the row.';
comment on column billing_private.mirrored_tables.match_column is
  'Holds Stripe''s id of the object; or of the row the table''s rows are parts of, whose Stripe id '
  'is in owner_key_column of owner_table.';

insert into billing_private.mirrored_tables
  (object_type, table_name, key_column, match_column)
values
  ('billing.meter', 'billing_private.meters', 'stripe_meter_id', 'stripe_meter_id'),
  ('charge', 'billing.payments', 'stripe_payment_key', 'stripe_payment_key'),
  ('charge', 'billing_private.declines', 'stripe_charge_id', 'stripe_charge_id'),
  ('checkout.session', 'billing.checkout_sessions', 'stripe_session_id', 'stripe_session_id'),
  ('coupon', 'billing.coupons', 'stripe_coupon_id', 'stripe_coupon_id'),
  ('credit_note', 'billing.credit_notes', 'stripe_credit_note_id', 'stripe_credit_note_id'),
  ('customer', 'billing.customers', 'stripe_customer_id', 'stripe_customer_id'),
  ('dispute', 'billing.disputes', 'stripe_dispute_id', 'stripe_dispute_id'),
  ('invoice', 'billing.invoices', 'stripe_invoice_id', 'stripe_invoice_id'),
  ('invoice_payment', 'billing.payments', 'stripe_payment_key', 'stripe_payment_key'),
  ('payment_intent', 'billing.payments', 'stripe_payment_key', 'stripe_payment_key'),
  ('payment_method', 'billing.payment_methods', 'stripe_payment_method_id',
    'stripe_payment_method_id'),
  ('price', 'billing.prices', 'stripe_price_id', 'stripe_price_id'),
  ('product', 'billing.plans', 'stripe_product_id', 'stripe_product_id'),
  ('promotion_code', 'billing_private.promotion_codes', 'stripe_promotion_code_id',
    'stripe_promotion_code_id'),
  ('radar.early_fraud_warning', 'billing_private.early_fraud_warnings',
    'stripe_early_fraud_warning_id', 'stripe_early_fraud_warning_id'),
  ('refund', 'billing.refunds', 'stripe_refund_id', 'stripe_refund_id'),
  ('setup_intent', 'billing.setup_intents', 'stripe_setup_intent_id', 'stripe_setup_intent_id'),
  ('subscription', 'billing.subscriptions', 'stripe_subscription_id', 'stripe_subscription_id'),
  ('subscription', 'billing.discounts', 'stripe_discount_id', 'stripe_subscription_id'),
  ('subscription_schedule', 'billing.subscription_schedules', 'stripe_schedule_id',
    'stripe_schedule_id'),
  ('tax_id', 'billing.tax_ids', 'stripe_tax_id', 'stripe_tax_id'),
  ('test_helpers.test_clock', 'billing_private.test_clocks', 'stripe_test_clock_id',
    'stripe_test_clock_id');

insert into billing_private.mirrored_tables values
  ('invoice', 'billing.invoice_lines', 'stripe_line_id', 'invoice_id',
    'billing.invoices', 'stripe_invoice_id'),
  ('subscription', 'billing.subscription_items', 'stripe_subscription_item_id', 'subscription_id',
    'billing.subscriptions', 'stripe_subscription_id');

alter table billing_private.mirrored_tables enable row level security;
create policy select_nobody on billing_private.mirrored_tables for select to public using (false);

revoke all on billing_private.mirrored_tables from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 21  billing_private.sweeps
-- -----------------------------------------------------------------------------

create table billing_private.sweeps (
  id uuid not null default gen_random_uuid(),
  position bigint generated always as identity,
  list_key text not null references billing_private.stripe_lists (key) on delete restrict,
  is_backfill boolean not null default false,
  created_from timestamptz,
  status text not null default 'waiting',
  cursor text,
  pages integer not null default 0,
  members bigint not null default 0,
  changed bigint not null default 0,
  drifted bigint not null default 0,
  failures integer not null default 0,
  last_error jsonb,
  asked_at timestamptz,
  requested_at timestamptz not null default billing_private.now(),
  started_at timestamptz,
  finished_at timestamptz,

  primary key (id),
  constraint sweeps_status_is_known check (
    status in ('waiting', 'running', 'finished', 'failed')
  )
);

comment on table billing_private.sweeps is
  'Each reading of one of Stripe''s lists from its newest member to its end, page by page.';
comment on column billing_private.sweeps.is_backfill is
  'Reads in what was there before this database: what is new by it is no drift.';
comment on column billing_private.sweeps.created_from is
  'Only what Stripe made at this time or later; null for all there is.';
comment on column billing_private.sweeps.cursor is
  'The last member that was read; null at the beginning. An interrupted sweep goes on after it.';
comment on column billing_private.sweeps.members is
  'How many were read; changed: said something new; drifted: should have been told before.';
comment on column billing_private.sweeps.asked_at is
  'Stripe''s clock when the first page was asked for: whatever came later is for the next sweep.';

create index sweeps_list_key_idx on billing_private.sweeps (list_key, position);

-- One page at a time, whatever is asked for: well inside Stripe's rate limits.
create unique index sweeps_one_runs_idx on billing_private.sweeps (status)
  where status = 'running';
create unique index sweeps_one_per_list_idx on billing_private.sweeps (list_key)
  where status in ('waiting', 'running');

alter table billing_private.sweeps enable row level security;
create policy select_nobody on billing_private.sweeps for select to public using (false);

revoke all on billing_private.sweeps from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 22  billing_private.drift_policies
-- -----------------------------------------------------------------------------

create table billing_private.drift_policies (
  class text not null,
  repairs boolean not null default true,
  description text not null,

  primary key (class)
);

comment on table billing_private.drift_policies is
  'The ways in which what is stored can differ from what Stripe says, and whether that is repaired '
  'at once or only reported.';

insert into billing_private.drift_policies (class, description) values
  ('missing', 'Stripe has an object that nothing here ever told of'),
  ('stale', 'Stripe changed an object and no event of it came'),
  ('different', 'a stored row is not what the newest snapshot says'),
  ('surplus', 'a row is stored that the newest snapshot does not have'),
  ('event_missed', 'an event was made that was never delivered'),
  ('gone', 'Stripe no longer has an object that is stored here');

alter table billing_private.drift_policies enable row level security;
create policy select_nobody on billing_private.drift_policies for select to public using (false);

revoke all on billing_private.drift_policies from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 23  billing_private.drifts
-- -----------------------------------------------------------------------------

create table billing_private.drifts (
  id bigint generated always as identity,
  object_type text not null,
  object_id text not null,
  class text not null references billing_private.drift_policies (class) on delete restrict,
  event_id text,
  differences jsonb not null default '[]',
  found_by text not null,
  found_at timestamptz not null default billing_private.now(),
  last_seen_at timestamptz not null default billing_private.now(),
  repaired_at timestamptz,

  primary key (id)
);

comment on table billing_private.drifts is
  'Each time something stored was found to differ from what Stripe says: what, where, and when it '
  'was put right.';
comment on column billing_private.drifts.event_id is
  'Of an event that was missed: its id.';
comment on column billing_private.drifts.differences is
  'A list of {table, key, before, after}: of each row only the columns that differ; before is null '
  'for a row that was not there, after for one that goes.';
comment on column billing_private.drifts.found_by is
  'sweep, rebuild, or the key of the rule by which the object was read again.';
comment on column billing_private.drifts.repaired_at is
  'Null while it is only reported: the policy of its class does not repair it, or could not yet.';

create index drifts_class_idx on billing_private.drifts (class);
create unique index drifts_one_open_idx
  on billing_private.drifts (object_id, class, coalesce(event_id, ''))
  where repaired_at is null;

alter table billing_private.drifts enable row level security;
create policy select_nobody on billing_private.drifts for select to public using (false);

revoke all on billing_private.drifts from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 24  billing_private.reread_rules
-- -----------------------------------------------------------------------------

create table billing_private.reread_rules (
  key text not null,
  description text not null,
  margin interval not null,
  repeat_after interval not null,
  is_enabled boolean not null default true,

  primary key (key)
);

comment on table billing_private.reread_rules is
  'When an object is read again at Stripe although nobody said that it changed; what each rule '
  'looks for is in billing_private.overdue_objects().';
comment on column billing_private.reread_rules.margin is
  'How long after the moment at which Stripe should have told something.';
comment on column billing_private.reread_rules.repeat_after is
  'The same object is not read again sooner than this.';

insert into billing_private.reread_rules (key, description, margin, repeat_after) values
  ('period_ended', 'a subscription''s period has ended and no renewal came', '2 hours', '6 hours'),
  ('trial_ended', 'a trial has ended and nothing came of it', '2 hours', '6 hours'),
  ('incomplete', 'a first payment is due for longer than Stripe waits for it', '23 hours',
    '6 hours'),
  ('end_passed', 'a subscription was to be canceled by now', '2 hours', '6 hours'),
  ('session_expired', 'an open checkout is past its end', '1 hour', '6 hours'),
  ('attempt_passed', 'an invoice was to be charged by now', '6 hours', '12 hours'),
  ('unknown_price', 'a live subscription is on a price that never came', '15 minutes', '1 day');

alter table billing_private.reread_rules enable row level security;
create policy select_nobody on billing_private.reread_rules for select to public using (false);

revoke all on billing_private.reread_rules from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 25  billing_private.money_violations
-- -----------------------------------------------------------------------------

create table billing_private.money_violations (
  rule text not null,
  object_id text not null,
  account_id uuid references billing.accounts (id) on delete restrict,
  expected bigint,
  found bigint,
  found_at timestamptz not null default billing_private.now(),

  primary key (rule, object_id)
);

comment on table billing_private.money_violations is
  'Amounts that do not add up, as check_money found them last. No rows is the normal state.';
comment on column billing_private.money_violations.rule is
  'lines_make_subtotal, due_is_paid_and_remaining, paid_leaves_nothing, paid_has_a_date, '
  'refunds_within_payment, charged_once or period_billed_once.';
comment on column billing_private.money_violations.object_id is
  'The invoice, payment, or item and period it is about.';

create index money_violations_account_id_idx on billing_private.money_violations (account_id);

alter table billing_private.money_violations enable row level security;
create policy select_nobody on billing_private.money_violations
  for select to public using (false);

revoke all on billing_private.money_violations from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 26  billing_private.metering_corrections
-- -----------------------------------------------------------------------------

create table billing_private.metering_corrections (
  id bigint generated always as identity,
  account_id uuid not null references billing.accounts (id) on delete restrict,
  feature_key text not null,
  counted numeric not null,
  held bigint not null,
  cause jsonb not null default '{}',
  corrected_at timestamptz not null default billing_private.now(),

  primary key (id)
);

comment on table billing_private.metering_corrections is
  'Each total that was not what the application''s tables hold, which is what it was set to.';
comment on column billing_private.metering_corrections.counted is
  'What the total said.';
comment on column billing_private.metering_corrections.held is
  'How many rows there are.';

create index metering_corrections_account_id_idx
  on billing_private.metering_corrections (account_id);

alter table billing_private.metering_corrections enable row level security;
create policy select_nobody on billing_private.metering_corrections
  for select to public using (false);

revoke all on billing_private.metering_corrections from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 27  billing_private.plan_migrations
-- -----------------------------------------------------------------------------

create table billing_private.plan_migrations (
  id uuid not null default gen_random_uuid(),
  from_plan_id uuid not null references billing.plans (id) on delete restrict,
  to_plan_id uuid not null references billing.plans (id) on delete restrict,
  to_version integer not null,
  proration text not null,
  reason text not null,
  created_by uuid,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  constraint plan_migrations_proration_is_known check (
    proration in ('none', 'create_prorations', 'always_invoice')
  ),
  constraint plan_migrations_reason_is_given check (reason <> '')
);

comment on table billing_private.plan_migrations is
  'Moves of subscribers to other contents of their plan, or to another plan, as an administrator '
  'asked for them.';
comment on column billing_private.plan_migrations.proration is
  'Of another plan: none (it costs more or less from the next period on), create_prorations (the '
  'difference goes on the next invoice) or always_invoice (it is invoiced at once).';

create index plan_migrations_from_plan_id_idx on billing_private.plan_migrations (from_plan_id);
create index plan_migrations_to_plan_id_idx on billing_private.plan_migrations (to_plan_id);

alter table billing_private.plan_migrations enable row level security;
create policy select_nobody on billing_private.plan_migrations for select to public using (false);

revoke all on billing_private.plan_migrations from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 28  billing_private.plan_migration_steps
-- -----------------------------------------------------------------------------

create table billing_private.plan_migration_steps (
  migration_id uuid not null
    references billing_private.plan_migrations (id) on delete restrict,
  subscription_item_id uuid not null,
  subscription_id uuid not null,
  account_id uuid not null,
  status text not null default 'pending',
  problem text,
  command_id uuid,
  to_price_id uuid,
  finished_at timestamptz,

  primary key (migration_id, subscription_item_id),
  constraint plan_migration_steps_status_is_known check (
    status in ('pending', 'moved', 'asked', 'skipped')
  ),
  constraint plan_migration_steps_skips_say_why check (
    (status = 'skipped') = (problem is not null)
  )
);

comment on table billing_private.plan_migration_steps is
  'What is to be moved by a migration, one row for each subscription item, and what became of it.';
comment on column billing_private.plan_migration_steps.status is
  'pending; moved: it is done; asked: Stripe is asked, by command_id; skipped, for the problem.';
comment on column billing_private.plan_migration_steps.to_price_id is
  'The price Stripe was asked for; null for what Stripe was not asked.';

-- Two migrations cannot both be about to move the same item. Also finds what is pending.
create unique index plan_migration_steps_pending_idx
  on billing_private.plan_migration_steps (subscription_item_id)
  where status = 'pending';

alter table billing_private.plan_migration_steps enable row level security;
create policy select_nobody on billing_private.plan_migration_steps
  for select to public using (false);

revoke all on billing_private.plan_migration_steps
  from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 29  billing_private.deleted_users
-- -----------------------------------------------------------------------------

create table billing_private.deleted_users (
  user_id uuid not null,
  deleted_at timestamptz not null default billing_private.now(),
  settled_at timestamptz,
  failed_at timestamptz,
  problem text,

  primary key (user_id)
);

comment on table billing_private.deleted_users is
  'Users of Supabase Auth that are gone, and whether the task settle_accounts has done what '
  'follows from it.';

comment on column billing_private.deleted_users.failed_at is
  'When settling failed last, for the reason in problem; those who wait since earlier come first.';

-- settle_accounts: those still to be settled.
create index deleted_users_unsettled_idx
  on billing_private.deleted_users (failed_at nulls first, deleted_at)
  where settled_at is null;

alter table billing_private.deleted_users enable row level security;
create policy select_nobody on billing_private.deleted_users for select to public using (false);

revoke all on billing_private.deleted_users from public, anon, authenticated, service_role;
