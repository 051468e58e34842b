-- The inbox: billing_private.stripe_events, stripe_objects, event_handlers and webhook_rejections.
begin;
\ir ../helpers.psql
select plan(29);

select tests.set_time('2026-01-10 12:30:15');

-- ---- events -----------------------------------------------------------------

prepare add_event(text, text, text) as
insert into billing_private.stripe_events
  (event_id, type, livemode, occurred_at, payload, source, status)
values ($1, 'invoice.paid', false, '2026-01-10', '{}', $2, $3);

insert into billing_private.stripe_events (event_id, type, livemode, occurred_at, payload)
values ('evt_1', 'invoice.paid', false, '2026-01-10', '{"a":  1, "a": 2}');

select row_eq(
  $$
    select source, status, attempts, received_at, finished_at
    from billing_private.stripe_events
    where event_id = 'evt_1'
  $$,
  row('webhook'::text, 'pending'::text, 0, '2026-01-10 12:30:15'::timestamptz, null::timestamptz),
  'an event comes from a webhook, now, and waits to be applied'
);

select is(
  (select payload from billing_private.stripe_events where event_id = 'evt_1'),
  '{"a":  1, "a": 2}',
  'D1: its text is kept to the letter, as it was signed'
);

select throws_ok(
  $$ execute add_event('evt_1', 'webhook', 'pending') $$,
  '23505', 'duplicate key value violates unique constraint "stripe_events_pkey"',
  'an event is stored once'
);

select throws_ok(
  $$ execute add_event(null, 'webhook', 'pending') $$,
  '23502', 'null value in column "event_id" of relation "stripe_events" violates not-null '
    'constraint',
  'an event has an id'
);

select lives_ok(
  format('execute add_event(%L, %L, %L)', 'evt_' || status, 'webhook', status),
  format('an event may be %s', status)
)
from unnest(array['pending', 'applied', 'ignored', 'failed', 'dead', 'discarded']) as status;

select throws_ok(
  $$ execute add_event('evt_2', 'webhook', 'lost') $$,
  '23514', 'new row for relation "stripe_events" violates check constraint '
    '"stripe_events_status_is_known"',
  'and is in no other state'
);

select lives_ok(
  $$ execute add_event('command:1', 'command', 'applied') $$,
  'what Stripe answered to a command is kept beside the events'
);

select throws_ok(
  $$ execute add_event('evt_2', 'rumour', 'pending') $$,
  '23514', 'new row for relation "stripe_events" violates check constraint '
    '"stripe_events_source_is_known"',
  'there is no third source'
);

-- ---- objects ----------------------------------------------------------------

prepare add_object(text, text) as
insert into billing_private.stripe_objects (object_id, object_type, event_id, occurred_at)
values ($1, 'invoice', $2, '2026-01-10');

select lives_ok($$ execute add_object('in_1', 'evt_1') $$, 'an object is shown by an event');
select lives_ok($$ execute add_object('in_2', 'evt_1') $$, 'which may show several');

select throws_ok(
  $$ execute add_object('in_1', 'evt_failed') $$,
  '23505', 'duplicate key value violates unique constraint "stripe_objects_pkey"',
  'one snapshot of an object is the one that holds'
);

select throws_ok(
  $$ execute add_object('in_3', 'evt_unheard_of') $$,
  '23503', 'insert or update on table "stripe_objects" violates foreign key constraint '
    '"stripe_objects_event_id_fkey"',
  'it is one that was stored'
);

select throws_like(
  $$ delete from billing_private.stripe_events where event_id = 'evt_1' $$,
  '%"stripe_objects_event_id_fkey"%',
  'an event that something rests on is not deleted'
);

select lives_ok(
  $$ delete from billing_private.stripe_events where event_id = 'evt_ignored' $$,
  'another one may be, by the owner'
);

select row_eq(
  $$
    select is_final, is_ambiguous
    from billing_private.stripe_objects
    where object_id = 'in_1'
  $$,
  row(false, false),
  'a snapshot is neither final nor in doubt unless it says so'
);

-- ---- handlers ---------------------------------------------------------------

select is_empty(
  $$
    select event_type
    from billing_private.event_handlers
    where event_type !~ '^(v1\.)?[a-z_]+(\.[a-z_]+)+$'
  $$,
  'handlers are for types as Stripe writes them'
);

select is_empty(
  $$
    select type
    from unnest(array[
      'customer.created', 'customer.updated', 'customer.deleted',
      'product.created', 'product.updated', 'product.deleted',
      'price.created', 'price.updated', 'price.deleted',
      'customer.subscription.created', 'customer.subscription.updated',
      'customer.subscription.deleted', 'customer.subscription.paused',
      'customer.subscription.resumed', 'customer.subscription.trial_will_end',
      'invoice.created', 'invoice.finalized', 'invoice.paid', 'invoice.payment_failed',
      'invoice.payment_action_required', 'invoice.voided', 'invoice.marked_uncollectible',
      'invoice.updated', 'invoice.deleted', 'invoice_payment.paid',
      'payment_intent.succeeded', 'payment_intent.payment_failed', 'payment_intent.canceled',
      'charge.succeeded', 'charge.failed', 'charge.refunded', 'charge.updated',
      'refund.created', 'refund.updated', 'refund.failed',
      'payment_method.attached', 'payment_method.updated', 'payment_method.detached',
      'payment_method.automatically_updated',
      'checkout.session.completed', 'checkout.session.expired',
      'checkout.session.async_payment_succeeded', 'checkout.session.async_payment_failed',
      'charge.dispute.created', 'charge.dispute.updated', 'charge.dispute.closed',
      'charge.dispute.funds_withdrawn', 'charge.dispute.funds_reinstated',
      'radar.early_fraud_warning.created', 'radar.early_fraud_warning.updated',
      'credit_note.created', 'credit_note.updated', 'credit_note.voided',
      'coupon.created', 'coupon.updated', 'coupon.deleted',
      'promotion_code.created', 'promotion_code.updated',
      'customer.discount.created', 'customer.discount.updated', 'customer.discount.deleted',
      'customer.tax_id.created', 'customer.tax_id.updated', 'customer.tax_id.deleted',
      'setup_intent.created', 'setup_intent.succeeded', 'setup_intent.canceled',
      'setup_intent.requires_action', 'setup_intent.setup_failed',
      'subscription_schedule.created', 'subscription_schedule.updated',
      'subscription_schedule.released', 'subscription_schedule.canceled',
      'subscription_schedule.completed', 'subscription_schedule.aborted',
      'subscription_schedule.expiring', 'billing.meter.created', 'billing.meter.updated',
      'billing.meter.deactivated', 'billing.meter.reactivated',
      'v1.billing.meter.error_report_triggered', 'v1.billing.meter.no_meter_found',
      'test_helpers.test_clock.created', 'test_helpers.test_clock.advancing',
      'test_helpers.test_clock.ready', 'test_helpers.test_clock.deleted'
    ]) as type
    where type not in (select event_type from billing_private.event_handlers)
  $$,
  'whatever Stripe says of what we mirror has a handler'
);

select throws_ok(
  $$ insert into billing_private.event_handlers values ('invoice.paid', 'project_customer') $$,
  '23505', 'duplicate key value violates unique constraint "event_handlers_pkey"',
  'a type has one handler'
);

-- ---- refused requests -------------------------------------------------------

prepare add_rejection(timestamptz) as
insert into billing_private.webhook_rejections (reason, minute) values ('SIGNATURE_INVALID', $1);

select lives_ok($$ execute add_rejection('2026-01-10 12:30') $$, 'refusals are counted by minute');

select is(
  (select count from billing_private.webhook_rejections), 1,
  'the first one counts'
);

select throws_ok(
  $$ execute add_rejection('2026-01-10 12:30') $$,
  '23505', 'duplicate key value violates unique constraint "webhook_rejections_pkey"',
  'a minute has one count of a reason'
);

select throws_ok(
  $$ execute add_rejection('2026-01-10 12:30:01') $$,
  '23514', 'new row for relation "webhook_rejections" violates check constraint '
    '"webhook_rejections_minute_is_whole"',
  'no count begins within a minute'
);

set local timezone = 'Asia/Kathmandu';
select lives_ok(
  $$ execute add_rejection('2026-01-10 12:31Z') $$,
  'minutes are the same in every time zone'
);
set local timezone = 'UTC';

-- ---- everybody else ---------------------------------------------------------

select tests.be_service();

select throws_ok(
  $$ execute add_event('evt_forged', 'webhook', 'applied') $$,
  '42501', 'permission denied for schema billing_private',
  'the Edge Functions put nothing into the inbox but by ingest_stripe_event()'
);

select * from finish();
rollback;
