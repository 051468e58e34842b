-- billing.ingest_stripe_event(): what is stored, what is applied, what is refused; never twice.
begin;
\ir ../helpers.psql
select plan(44);

select tests.catalog();
select tests.set_time('2026-01-10 08:00:00');
select tests.account('ann');

create function tests.inbox(p_event_id text) returns billing_private.stripe_events
language sql security definer as $$
  select * from billing_private.stripe_events where event_id = p_event_id;
$$;

create function tests.customer_email(p_id text) returns text
language sql security definer as $$
  select email from billing.customers where stripe_customer_id = p_id;
$$;

-- The bodies that were not refused as the payload of no event.
create function tests.not_refused(p_bodies text[]) returns setof text
language plpgsql as $$
declare
  v_body text;
begin
  foreach v_body in array p_bodies loop
    begin
      perform billing.ingest_stripe_event(v_body);
      return next v_body;
    exception when sqlstate 'PT400' then
      null;
    end;
  end loop;
end;
$$;

grant execute on all functions in schema tests to service_role;

-- ---- the service: what an event leaves behind -------------------------------

select tests.be_service();
select set_config('request.headers', '{"x-request-id": "req-42"}', true);

select results_eq(
  $$
    select event_id, status, duplicate
    from billing.ingest_stripe_event(tests.event(
      'evt_1', 'customer.updated', '2026-01-10 07:59:58', '{"id": "cus_ann", "object": "customer",
      "email": "ann@example.com"}'))
  $$,
  $$ values ('evt_1', 'applied', false) $$,
  'a new event is applied, and the answer says so'
);

select is(
  tests.customer_email('cus_ann'), 'ann@example.com',
  'what the event says is there when the call returns'
);

select tests.be_owner();

select results_eq(
  $$
    select source, type, object_id, object_type, stripe_customer_id, api_version, livemode,
      occurred_at, status, status_reason, attempts, received_at, finished_at
    from billing_private.stripe_events
    where event_id = 'evt_1'
  $$,
  $$
    values ('webhook', 'customer.updated', 'cus_ann', 'customer', 'cus_ann',
      '2026-10-28.endive', false, '2026-01-10 07:59:58'::timestamptz, 'applied', null::text, 1,
      '2026-01-10 08:00:00'::timestamptz, '2026-01-10 08:00:00'::timestamptz)
  $$,
  'the inbox keeps the envelope beside the text: type, object, customer, version, mode and times'
);

select is(
  (tests.inbox('evt_1')).request_id, 'req-42',
  'the request id of the call reaches the inbox'
);

select set_config('request.headers', '', true);

select is(
  (tests.inbox('evt_1')).payload,
  tests.event(
    'evt_1', 'customer.updated', '2026-01-10 07:59:58', '{"id": "cus_ann", "object": "customer",
      "email": "ann@example.com"}'),
  'the payload is kept character by character'
);

select tests.deliver('evt_inv', 'invoice.created', '2026-01-10', '{
  "id": "in_1", "object": "invoice", "currency": "usd", "status": "draft",
  "customer": {"id": "cus_ann", "object": "customer"}}');

select is(
  (tests.inbox('evt_inv')).stripe_customer_id, 'cus_ann',
  'the customer of an event is found whether given as id or as object'
);

-- ---- the service: the same event again --------------------------------------

select tests.be_service();

select results_eq(
  $$
    select event_id, status, duplicate
    from billing.ingest_stripe_event(tests.event(
      'evt_1', 'customer.updated', '2026-01-10 07:59:58', '{"id": "cus_ann", "object": "customer",
      "email": "other@example.com"}'))
  $$,
  $$ values ('evt_1', 'applied', true) $$,
  'B1, B3: an event id that was seen is answered as a duplicate, with what became of it'
);

select is(
  tests.customer_email('cus_ann'), 'ann@example.com',
  'B1, B3: a duplicate changes nothing, whatever it says'
);

select tests.be_owner();

select is(
  (tests.inbox('evt_1')).attempts, 1,
  'B1: a duplicate is no second attempt'
);

select tests.deliver('evt_paid_1', 'invoice.paid', '2026-01-10 01:00', '{
  "id": "in_1", "object": "invoice", "currency": "usd", "status": "paid", "customer": "cus_ann"}');
select tests.deliver('evt_paid_2', 'invoice.paid', '2026-01-10 01:00', '{
  "id": "in_1", "object": "invoice", "currency": "usd", "status": "paid", "customer": "cus_ann"}');

select results_eq(
  $$ select status, count(*) from billing.invoices group by status $$,
  $$ values ('paid', 1::bigint) $$,
  'B2: two events about one fact leave one row'
);

select results_eq(
  $$
    select event_id, status, status_reason
    from billing_private.stripe_events
    where event_id like 'evt_paid%'
    order by event_id
  $$,
  $$ values ('evt_paid_1', 'applied', null), ('evt_paid_2', 'applied', null) $$,
  'B2: both events about one fact are stored'
);

select is(
  (select is_ambiguous from billing_private.stripe_objects where object_id = 'in_1'), false,
  'B2: two events that say the same leave nothing to ask Stripe about'
);

-- ---- the service: what is stored and set aside ------------------------------

select is(
  tests.deliver('evt_other', 'issuing_card.created', '2026-01-10',
    '{"id": "ic_1", "object": "issuing.card"}'),
  'ignored',
  'D9: an event of a type nobody handles is accepted'
);

select is(
  (tests.inbox('evt_other')).status_reason, 'unhandled_type',
  'D9: and stored with the reason it was set aside'
);

select is(
  tests.deliver('evt_upcoming', 'invoice.upcoming', '2026-01-10',
    '{"object": "invoice", "customer": "cus_ann", "currency": "usd"}'),
  'ignored',
  'D19: an invoice that does not exist yet, without an id, is accepted'
);

select is(
  tests.deliver('evt_no_id', 'invoice.created', '2026-01-10',
    '{"object": "invoice", "customer": "cus_ann", "currency": "usd"}'),
  'ignored',
  'D19: an object without an id makes no row, whatever its event is called'
);

select is(
  (tests.inbox('evt_no_id')).status_reason, 'object_without_id',
  'D19: and the inbox says that the object had no id'
);

select is_empty(
  $$ select * from billing.invoices where stripe_invoice_id is null $$,
  'D19: no invoice without an id is stored'
);

select is(
  tests.deliver('evt_live', 'customer.updated', '2026-01-10 09:00',
    '{"id": "cus_ann", "object": "customer", "email": "live@example.com"}', null,
    '{"livemode": true}'),
  'ignored',
  'E5: an event of the other Stripe mode is accepted'
);

select is(
  (tests.inbox('evt_live')).status_reason, 'other_livemode',
  'E5: and stored with the mode as the reason'
);

select is(
  tests.customer_email('cus_ann'), 'ann@example.com',
  'E5: an event of the other Stripe mode changes nothing'
);

update billing_private.settings set stripe_livemode = true;

select is(
  tests.deliver('evt_live_2', 'customer.updated', '2026-01-10 09:00',
    '{"id": "cus_ann", "object": "customer", "email": "live@example.com"}', null,
    '{"livemode": true}'),
  'applied',
  'E5: a database of the live mode applies live events'
);

select is(
  tests.deliver('evt_test', 'customer.updated', '2026-01-10 10:00',
    '{"id": "cus_ann", "object": "customer", "email": "test@example.com"}'),
  'ignored',
  'E5: a database of the live mode sets test events aside'
);

select tests.deliver('evt_test_same_second', 'customer.updated', '2026-01-10 09:00',
  '{"id": "cus_ann", "object": "customer", "email": "test@example.com"}');
select tests.deliver('evt_live_same_second', 'customer.updated', '2026-01-10 09:00',
  '{"id": "cus_ann", "object": "customer", "email": "live@example.com"}', null,
  '{"livemode": true}');

select is(
  tests.customer_email('cus_ann'), 'live@example.com',
  'E5: an event that was set aside does not count among those of its second'
);

update billing_private.settings set stripe_livemode = false;

select is(
  tests.deliver('evt_connect', 'customer.updated', '2026-01-10 11:00',
    '{"id": "cus_ann", "object": "customer", "email": "connect@example.com"}', null,
    '{"account": "acct_1"}'),
  'ignored',
  'E9: an event of a connected account is accepted'
);

select is(
  (tests.inbox('evt_connect')).status_reason, 'connected_account',
  'E9: and stored with that as the reason'
);

select is(
  tests.customer_email('cus_ann'), 'live@example.com',
  'E9: an event of a connected account changes none of the platform''s own rows'
);

select results_eq(
  $$
    select status, duplicate
    from billing.ingest_stripe_event('{
      "id": "evt_thin", "object": "v2.core.event", "type": "v1.billing.meter.no_meter_found",
      "created": "2026-01-10T07:00:00.123Z", "livemode": false,
      "related_object": {"id": "mtr_1", "type": "billing.meter", "url": "/v1/billing/meters/mtr_1"}
    }')
  $$,
  $$ values ('applied', false) $$,
  'D18: a thin event is accepted'
);

select results_eq(
  $$
    select object_id, object_type, occurred_at
    from billing_private.stripe_events
    where event_id = 'evt_thin'
  $$,
  $$ values ('mtr_1', 'billing.meter', '2026-01-10 07:00:00.123+00'::timestamptz) $$,
  'D18: a thin event is stored with the object it names and its own time'
);

select is(
  tests.deliver('evt_future', 'customer.updated', '2026-01-11',
    '{"id": "cus_ann", "object": "customer", "email": "ann@example.org",
      "unheard_of": {"nested": [1, 2]}}', null, '{"api_version": "2031-01-01.zinnia"}'),
  'applied',
  'D20: an event of an API version nobody knows yet is applied as far as it is understood'
);

select results_eq(
  $$
    select api_version, payload::jsonb #> '{data,object,unheard_of,nested}'
    from billing_private.stripe_events
    where event_id = 'evt_future'
  $$,
  $$ values ('2031-01-01.zinnia', '[1, 2]'::jsonb) $$,
  'D20: its version and all it said are kept'
);

-- ---- the service: what JSON can hold ----------------------------------------

select is(
  tests.deliver('evt_huge', 'invoice.created', '2026-01-10', '{
    "id": "in_huge", "object": "invoice", "currency": "idr", "customer": "cus_ann",
    "status": "open", "total": 3000000000, "amount_due": 999999999999, "due_date": 2147483648}'),
  'applied',
  'D15: amounts and times beyond 32 bits are applied'
);

select results_eq(
  $$
    select total_minor, amount_due_minor, due_at
    from billing.invoices
    where stripe_invoice_id = 'in_huge'
  $$,
  $$ values (3000000000, 999999999999, '2038-01-19 03:14:08+00'::timestamptz) $$,
  'D15: and stored exactly'
);

select is(
  (
    select status
    from billing.ingest_stripe_event(replace(
      tests.event('evt_nul', 'customer.updated', '2026-01-12',
        '{"id": "cus_ann", "object": "customer", "email": "ann@example.org", "name": "A_nn 😀"}'),
      'A_nn', 'A\u0000nn'))
  ),
  'applied',
  'D16: a NUL character in a text loses no event'
);

select is(
  (select name from billing.customers where stripe_customer_id = 'cus_ann'), 'Ann 😀',
  'D16: the NUL is dropped, and an emoji stays'
);

select ok(
  strpos((tests.inbox('evt_nul')).payload, 'A\u0000nn') > 0,
  'D16: the raw text still has the NUL as it was written'
);

select is(
  (
    select status
    from billing.ingest_stripe_event(replace(
      tests.event('evt_surrogate', 'customer.updated', '2026-01-13',
        '{"id": "cus_ann", "object": "customer", "email": "ann@example.org", "name": "A_nn"}'),
      'A_nn', 'A\ud83d nn'))
  ),
  'applied',
  'D16: half of a surrogate pair loses no event'
);

-- ---- the service: what is no event ------------------------------------------

select tests.be_service();

select throws_ok(
  $$ select billing.ingest_stripe_event('{"id": "evt_cut", "object": "event", "type": "x') $$,
  'PT400', 'the payload is not a stripe event',
  'a body that is not JSON is refused'
);

select throws_ok(
  $$ select billing.ingest_stripe_event('') $$,
  'PT400', 'the payload is not a stripe event',
  'an empty body is refused'
);

select throws_ok(
  $$ select billing.ingest_stripe_event(null) $$,
  'PT400', 'the payload is not a stripe event',
  'no body at all is refused'
);

select is_empty(
  $$
    select tests.not_refused(array[
      '[]', 'null', '"evt_1"', '42', '{}',
      '{"object": "event", "type": "customer.created"}',
      '{"id": "", "object": "event", "type": "customer.created"}',
      '{"id": "evt_x", "object": "event"}',
      '{"id": "evt_x", "object": "event", "type": ""}',
      '{"id": "evt_x", "type": "customer.created"}',
      '{"id": "cus_1", "object": "customer", "type": "customer.created"}'
    ])
  $$,
  'JSON that is not an event is refused'
);

select lives_ok(
  $$ select billing.ingest_stripe_event('{
    "id": "evt_y", "object": "event", "type": "x", "created": "2026-02-31T00:00:00Z", "data": []}')
  $$,
  'an event whose time and object make no sense is still kept'
);

-- ---- a member, a visitor ----------------------------------------------------

select tests.sign_in('ann');

select throws_ok(
  $$ select billing.ingest_stripe_event('{}') $$,
  '42501', 'permission denied for function ingest_stripe_event',
  'a member cannot deliver events'
);

select tests.sign_out();

select throws_ok(
  $$ select billing.ingest_stripe_event('{}') $$,
  '42501', 'permission denied for function ingest_stripe_event',
  'a visitor cannot deliver events'
);

select * from finish();
rollback;
