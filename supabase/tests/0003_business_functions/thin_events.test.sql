-- Thin events (v2.core.event): they name an object, and Stripe is asked how it is.
begin;
\ir ../helpers.psql
select plan(36);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

-- As Stripe sends it since 2026-08-26.dahlia: without a version, without the object.
create function tests.thin(
  p_id text,
  p_type text,
  p_related text default null,
  p_extra jsonb default '{}'
) returns billing.ingest_result
language sql as $$
  select billing.ingest_stripe_event((jsonb_build_object(
    'id', p_id, 'object', 'v2.core.event', 'type', p_type, 'livemode', false,
    'created', '2026-01-12T10:00:00.123Z', 'context', null, 'reason', null)
    || case
      when p_related is null then '{"related_object": null}'
      else jsonb_build_object('related_object', jsonb_build_object(
        'id', reverse(split_part(reverse(p_related), '/', 1)), 'type', 'thing', 'url', p_related))
    end
    || p_extra)::text);
$$;

create view tests.questions as
select kind, method, path, account_id, target_object_id, status
from billing_private.commands
where status = 'pending'
order by position;

create function tests.answer(p_response jsonb, p_http_status integer default 200) returns text
language plpgsql as $$
declare
  v_claimed billing.claimed_command;
begin
  select * into strict v_claimed from billing_private.claim_commands(1, null);
  return (
    select status
    from billing.complete_command(
      v_claimed.id, v_claimed.lease, p_http_status, p_response, null,
      'Mon, 12 Jan 2026 10:00:05 GMT', 1)
  );
end;
$$;

create function tests.outcome(p_id text) returns text
language sql as $$
  select concat_ws(' ', status, status_reason)
  from billing_private.stripe_events
  where event_id = p_id;
$$;

savepoint s;

-- ---- the service: an object that is mirrored --------------------------------

select tests.be_service();
select results_eq(
  $$
    select event_id, status, duplicate
    from tests.thin('evt_t', 'v1.customer.subscription.past_due', '/v1/subscriptions/sub_ann')
  $$,
  $$ values ('evt_t', 'applied', false) $$,
  'D18: a thin event is taken in like any other'
);
select tests.be_owner();
select is(tests.outcome('evt_t'), 'applied thin', 'and is marked as one that shows nothing');
select results_eq(
  $$ select kind, method, path, account_id, target_object_id from tests.questions $$,
  $$ values ('reread', 'GET', '/v1/subscriptions/sub_ann', null::uuid, 'sub_ann') $$,
  'Stripe is asked how its object is'
);
select is(
  (select occurred_at from billing_private.stripe_events),
  '2026-01-12 10:00:00.123+00'::timestamptz,
  'its time is written as text'
);
select tests.thin('evt_t2', 'v1.customer.subscription.updated', '/v1/subscriptions/sub_ann');
select is(
  (select count(*) from tests.questions), 1::bigint, 'two of them before the answer ask once');
select results_eq(
  $$
    select status, duplicate
    from tests.thin('evt_t', 'v1.customer.subscription.past_due', '/v1/subscriptions/sub_ann')
  $$,
  $$ values ('applied', true) $$,
  'B1: the same one twice is one'
);
select is(
  tests.answer(tests.subscription('ann', 'past_due', '2026-01-10')), 'succeeded',
  'Stripe answers'
);
select results_eq(
  $$ select stripe_subscription_id, account_id, status from billing.subscriptions $$,
  $$ values ('sub_ann', md5('ann')::uuid, 'past_due') $$,
  'and what it says is what is stored'
);
rollback to s;

select tests.subscribe('ann', 'active', '2026-01-12 10:00:00');
select tests.thin('evt_t', 'v1.customer.subscription.updated', '/v1/subscriptions/sub_ann');
select tests.deliver('evt_s', 'customer.subscription.updated', '2026-01-12 10:00:00',
  tests.subscription('ann', 'past_due', '2026-01-12 10:00:00'), '{"status": "active"}');
select is(
  (select status from billing.subscriptions), 'past_due',
  'what is told in the second of a thin event has nothing to do with it'
);
rollback to s;

-- ---- the service: one that comes beside the event that shows it -------------

select tests.subscribe('ann');
select tests.thin('evt_t', 'v1.customer.subscription.created', '/v1/subscriptions/sub_ann',
  jsonb_build_object('snapshot_event', (select event_id from billing_private.stripe_events)));
select is(tests.outcome('evt_t'), 'applied thin', 'where the other has come');
select is_empty($$ select * from tests.questions $$, 'nothing is left to ask');
select tests.thin('evt_t2', 'v1.customer.subscription.updated', '/v1/subscriptions/sub_ann',
  '{"snapshot_event": "evt_later"}');
select is((select count(*) from tests.questions), 1::bigint, 'where it has not, Stripe is asked');
rollback to s;

-- ---- the service: every kind of object --------------------------------------

select is_empty(
  $$
    select object_type
    from billing_private.stripe_resources
    cross join lateral tests.thin(
      'evt_' || object_type, 'v1.thing.updated',
      replace(retrieve_path, '{id}', object_type)) as told
    where told.status <> 'applied'
  $$,
  'all that is mirrored is found by its address'
);
select is(
  (select count(*) from tests.questions),
  (select count(*) from billing_private.stripe_resources),
  'and asked for'
);
rollback to s;

select tests.thin('evt_t', 'v1.customer.tax_id.updated', '/v1/customers/cus_ann/tax_ids/txi_1',
  '{"related_object": {"id": "txi_1", "type": "tax_id",
    "url": "/v1/customers/cus_ann/tax_ids/txi_1"}}');
select is(
  (select path from tests.questions), '/v1/tax_ids/txi_1',
  'or by its kind, where it lives at another address'
);
rollback to s;

-- ---- the service: Stripe's clock --------------------------------------------

select tests.subscribe('ann', 'active', '2026-01-12 09:00:00');
select tests.thin('evt_t', 'v1.customer.subscription.past_due', '/v1/subscriptions/sub_ann');
select billing.complete_command(
  claimed.id, claimed.lease, 200, tests.subscription('ann', 'past_due', '2026-01-12 09:00:00'),
  null, 'Mon, 12 Jan 2026 10:00:00 GMT', 2)
from billing.claim_commands(1) as claimed;
select tests.deliver('evt_s', 'customer.subscription.updated', '2026-01-12 09:59:59',
  tests.subscription('ann', 'active', '2026-01-12 09:00:00'), '{"metadata": {"a": "1"}}');
select is(
  (select status from billing.subscriptions), 'past_due',
  'A7, D18: an answer is no older than the thin event it was asked because of'
);
rollback to s;

-- ---- the service: in a batch ------------------------------------------------

select results_eq(
  $$
    select event_id, status
    from billing.ingest_stripe_events(array[
      tests.event('evt_1', 'customer.updated', '2026-01-12 10:00',
        '{"id": "cus_ann", "object": "customer", "email": "one@example.com"}'),
      tests.event('evt_2', 'customer.updated', '2026-01-12 10:00',
        '{"id": "cus_ann", "object": "customer", "email": "two@example.com"}',
        '{"email": "one@example.com"}'),
      jsonb_build_object(
        'id', 'evt_3', 'object', 'v2.core.event', 'type', 'v1.customer.updated', 'livemode', false,
        'created', '2026-01-12T10:00:00Z', 'context', null,
        'related_object', '{"id": "cus_ann", "type": "customer", "url": "/v1/customers/cus_ann"}'::jsonb
      )::text])
  $$,
  $$ values ('evt_1', 'applied'), ('evt_2', 'applied'), ('evt_3', 'applied') $$,
  'D18: beside events of the same second that show the object, it is not one of them'
);
select is(
  (select email from billing.customers where stripe_customer_id = 'cus_ann'), 'two@example.com',
  'D18: and the newest of those counts'
);
rollback to s;

-- ---- the service: what is gone ----------------------------------------------

select tests.thin('evt_t', 'v1.customer.deleted', '/v1/customers/cus_ann');
select tests.answer('{"id": "cus_ann", "object": "customer", "deleted": true}');
select isnt(
  (select deleted_at from billing.customers), null, 'E1: a deleted customer says that it is'
);
rollback to s;

select tests.thin('evt_t', 'v1.product.deleted', '/v1/products/prod_none');
select is(
  tests.answer('{"error": {"code": "resource_missing", "message": "No such product"}}', 404),
  'succeeded',
  'E3: what was gone before anybody told of it needs nothing more'
);
select is_empty(
  $$ select * from billing_private.stripe_objects where object_id = 'prod_none' $$,
  'E3: and leaves nothing'
);
rollback to s;

-- ---- the service: what is not for us ----------------------------------------

select tests.thin('evt_1', 'v1.account.updated', '/v1/accounts/acct_1');
select is(
  tests.outcome('evt_1'), 'ignored unhandled_type', 'D9: of other objects it is only stored');
select tests.thin('evt_2', 'v2.core.health.event_generation_failure.resolved');
select is(
  tests.outcome('evt_2'), 'ignored no_related_object', 'D9: as where there is no object');
select tests.thin('evt_3', 'v1.customer.updated', '/v1/customers/cus_1', '{"livemode": true}');
select is(tests.outcome('evt_3'), 'ignored other_livemode', 'E5: or of the other mode');
select tests.thin(
  'evt_4', 'v1.customer.updated', '/v1/customers/cus_1', '{"context": "acct_other"}');
select is(
  tests.outcome('evt_4'), 'ignored connected_account', 'E9: or of somebody else''s account');
select is_empty($$ select * from tests.questions $$, 'and Stripe is asked nothing');
rollback to s;

-- ---- the service: usage Stripe could not count ------------------------------

select tests.thin(
  'evt_m', 'v1.billing.meter.error_report_triggered', '/v1/billing/meters/mtr_1');
select results_eq(
  $$ select event_id, stripe_meter_id, error_count from billing_private.meter_error_reports $$,
  $$ values ('evt_m', 'mtr_1', null::bigint) $$,
  'a report of errors is noted at once'
);
select results_eq(
  $$ select kind, method, path from tests.questions $$,
  $$ values ('read_event', 'GET', '/v2/core/events/evt_m') $$,
  'and Stripe asked what it says'
);
select is(
  tests.answer('{"id": "evt_m", "object": "v2.core.event", "livemode": false,
    "type": "v1.billing.meter.error_report_triggered", "created": "2026-01-12T10:00:00.123Z",
    "data": {"developer_message_summary": "There are 12 invalid events",
      "reason": {"error_count": 12, "error_types": [
        {"code": "meter_event_customer_not_found", "error_count": 12, "sample_errors": []}]},
      "validation_start": "2026-01-12T09:00:00Z", "validation_end": "2026-01-12T10:00:00Z"}}'),
  'succeeded',
  'it answers'
);
select results_eq(
  $$
    select error_count, summary, validation_start, validation_end, error_types #>> '{0,code}'
    from billing_private.meter_error_reports
  $$,
  $$
    values (12::bigint, 'There are 12 invalid events', '2026-01-12 09:00+00'::timestamptz,
      '2026-01-12 10:00+00'::timestamptz, 'meter_event_customer_not_found')
  $$,
  'and how many there were, of which kind, is stored'
);
select tests.thin('evt_n', 'v1.billing.meter.no_meter_found', null, '{"data": {
  "developer_message_summary": "No such meter", "reason": {"error_count": 1, "error_types": []},
  "validation_start": null, "validation_end": null}}');
select results_eq(
  $$
    select stripe_meter_id, error_count, summary
    from billing_private.meter_error_reports
    where event_id = 'evt_n'
  $$,
  $$ values (null, 1::bigint, 'No such meter') $$,
  'reports for a meter that is not there name none; what is told at once is not asked for'
);
select is_empty($$ select * from tests.questions $$, 'so nothing is');
select tests.set_time('2026-01-12 12:00');
select results_eq(
  $$ select status, value from billing_private.health() where check_key = 'meter_errors' $$,
  $$ values ('degraded', 2::numeric) $$,
  'for a day that is no state to be in'
);
select results_eq(
  $$
    select subject, details -> 'errors'
    from billing_admin.critical_issues
    where issue = 'meter_errors'
    order by subject
  $$,
  $$ values ('mtr_1', '12'::jsonb), (null, '1') $$,
  'and for a week an administrator sees it'
);
select tests.set_time('2026-01-13 10:00:00.123');
select is(
  (select status from billing_private.health() where check_key = 'meter_errors'), 'healthy',
  'then it is forgotten'
);
select tests.set_time('2026-01-19 10:00:00.123');
select is_empty(
  $$ select * from billing_admin.critical_issues where issue = 'meter_errors' $$,
  'and after the week, too'
);

select * from finish();
rollback;
