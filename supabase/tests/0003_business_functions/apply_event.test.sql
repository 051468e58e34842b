-- billing_private.apply_event(): what cannot be applied is kept, retried with back-off, given up.
begin;
\ir ../helpers.psql
select plan(27);

select tests.catalog();
select tests.set_time('2026-01-10 08:00:00');
select tests.account('ann');
select tests.account('bob');

create function tests.invoice(p_id text, p_customer text) returns jsonb
language sql as $$
  select jsonb_build_object(
    'id', p_id, 'object', 'invoice', 'status', 'open', 'currency', 'usd', 'customer', p_customer,
    'total', 500, 'lines', jsonb_build_object('has_more', false, 'data', jsonb_build_array(
      jsonb_build_object('id', 'il_' || p_id, 'amount', 500, 'currency', 'usd'))));
$$;

create view tests.inbox as
select event_id, status, status_reason, attempts, next_attempt_at, last_error, finished_at
from billing_private.stripe_events;

-- ---- the service: an event whose projector fails ----------------------------

alter table billing.invoice_lines add constraint no_line_of_500 check (amount_minor <> 500);

select is(
  tests.deliver('evt_1', 'invoice.created', '2026-01-10', tests.invoice('in_1', 'cus_ann')),
  'failed',
  'B5: an event that cannot be applied is accepted as failed, not refused'
);

select results_eq(
  $$ select status, attempts, next_attempt_at, finished_at from tests.inbox $$,
  $$
    values ('failed', 1, '2026-01-10 08:01:00+00'::timestamptz, null::timestamptz)
  $$,
  'B5: it waits a minute for its second try'
);

select ok(
  (select last_error ->> 'message' from tests.inbox) like '%no_line_of_500%',
  'B5: the error is kept with it'
);

select ok(
  (select last_error ->> 'context' from tests.inbox) like '%project_invoice_lines%',
  'B5: and where it happened'
);

select is_empty(
  $$ select * from billing.invoices $$,
  'C6: of an invoice whose lines fail nothing is visible'
);

select is_empty(
  $$ select * from billing_private.stripe_objects where object_id = 'in_1' $$,
  'B4: a snapshot that was not applied does not count as known'
);

select is(
  tests.deliver('evt_1', 'invoice.created', '2026-01-10', tests.invoice('in_1', 'cus_ann')),
  'failed',
  'a failed event delivered again is a duplicate that still waits'
);

select is(
  (select attempts from tests.inbox), 1,
  'a duplicate of a failed event is no try'
);

-- ---- the service: the others meanwhile --------------------------------------

select is(
  tests.subscribe('bob'), 'applied',
  'B14: an event that fails holds up no event of anybody else'
);

select is(
  tests.deliver('evt_2', 'customer.updated', '2026-01-10',
    '{"id": "cus_ann", "object": "customer", "email": "ann@example.com"}'),
  'applied',
  'B14: nor another object of the same customer'
);

-- ---- the owner: trying again ------------------------------------------------

select results_eq(
  $$ select billing_private.apply_event('evt_1') from generate_series(2, 4) $$,
  $$ values ('failed'), ('failed'), ('failed') $$,
  'B14: each try fails as long as the cause is there'
);

select results_eq(
  $$ select attempts, next_attempt_at from tests.inbox where event_id = 'evt_1' $$,
  $$ values (4, '2026-01-10 08:08:00+00'::timestamptz) $$,
  'B14: each wait is twice as long: after the fourth try eight minutes'
);

select tests.set_time('2026-01-10 09:00:00');
alter table billing.invoice_lines drop constraint no_line_of_500;

select is(
  billing_private.apply_event('evt_1'), 'applied',
  'B4: once the cause is gone, the next try applies the event'
);

select results_eq(
  $$
    select status, attempts, next_attempt_at, last_error, finished_at
    from tests.inbox
    where event_id = 'evt_1'
  $$,
  $$
    values ('applied', 5, null::timestamptz, null::jsonb, '2026-01-10 09:00:00+00'::timestamptz)
  $$,
  'B4: and nothing of the failure stays but the count'
);

select results_eq(
  $$
    select invoices.stripe_invoice_id, count(*)
    from billing.invoices
    join billing.invoice_lines on invoice_lines.invoice_id = invoices.id
    group by 1
  $$,
  $$ values ('in_1', 1::bigint) $$,
  'B4: the invoice is there with its line, once'
);

select is(
  billing_private.apply_event('evt_1'), 'applied',
  'an applied event can be applied again'
);

select is(
  (select count(*) from billing.invoice_lines), 1::bigint,
  'B15: and changes nothing'
);

-- ---- the owner: giving up ---------------------------------------------------

update billing_private.event_handlers
set projector = 'project_nothing'
where event_type = 'invoice.finalized';

select is(
  tests.deliver('evt_3', 'invoice.finalized', '2026-01-11', tests.invoice('in_2', 'cus_ann')),
  'failed',
  'B14: a handler that does not exist fails its events like any other error'
);

update billing_private.stripe_events set attempts = 6 where event_id = 'evt_3';

select is(
  billing_private.apply_event('evt_3'), 'failed',
  'B14: the seventh try still leaves another'
);

select is(
  (select next_attempt_at from tests.inbox where event_id = 'evt_3'),
  '2026-01-10 10:04:00+00'::timestamptz,
  'B14: an hour later'
);

select is(
  billing_private.apply_event('evt_3'), 'dead',
  'B14: after the eighth try the event is given up'
);

select results_eq(
  $$
    select status, attempts, next_attempt_at, finished_at,
      left(last_error ->> 'message', 40)
    from tests.inbox
    where event_id = 'evt_3'
  $$,
  $$
    values ('dead', 8, null::timestamptz, '2026-01-10 09:00:00+00'::timestamptz,
      'function billing_private.project_nothing')
  $$,
  'B14: and stays with its last error'
);

select tests.deliver('evt_4', 'invoice.updated', '2026-01-12', tests.invoice('in_2', 'cus_ann'));

select is(
  (select count(*) from billing.invoices where stripe_invoice_id = 'in_2'), 1::bigint,
  'B14: the next event of the same object brings it in'
);

-- ---- the service: a database that is briefly busy ---------------------------

create function billing_private.project_busy(jsonb, billing_private.stripe_events) returns void
language plpgsql as $$
begin
  raise exception using errcode = current_setting('tests.busy'), message = 'busy';
end;
$$;
update billing_private.event_handlers
set projector = 'project_busy'
where event_type = 'invoice.sent';

create function tests.meet(p_sqlstate text) returns text
language plpgsql as $$
begin
  perform set_config('tests.busy', p_sqlstate, true);
  return billing_private.apply_event('evt_5');
end;
$$;

select set_config('tests.busy', '40P01', true);
select is(
  tests.deliver('evt_5', 'invoice.sent', '2026-01-13', tests.invoice('in_2', 'cus_ann')),
  'failed',
  'C5: an event that met a deadlock stays and will be tried again'
);
update billing_private.stripe_events set attempts = 7 where event_id = 'evt_5';
select results_eq(
  $$ select tests.meet(state) from unnest(array['40P01', '40001', '55P03']) as state $$,
  $$ values ('failed'), ('failed'), ('failed') $$,
  'C5: a deadlock, a serialization failure or a lock time-out is never the last try, ...'
);
select results_eq(
  $$
    select attempts, next_attempt_at - billing_private.now()
    from tests.inbox
    where event_id = 'evt_5'
  $$,
  $$ values (7, '1 minute'::interval) $$,
  'C5: ... counts for none, and the next one comes soon'
);
select is(tests.meet('23514'), 'dead', 'C5: any other failure does');

select * from finish();
rollback;
