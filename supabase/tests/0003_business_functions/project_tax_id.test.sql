-- billing_private.project_tax_id(), project_test_clock() and project_meter(): small mirrors.
begin;
\ir ../helpers.psql
select plan(16);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

-- As of 2026-10-28.endive, as all that follow.
create function tests.tax_id(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_txi_' || md5(p_event || p_at::text || p_extra), 'customer.tax_id.' || p_event, p_at,
    '{"id": "txi_1", "object": "tax_id", "country": "DE", "created": 1768003200,
      "customer": "cus_ann", "customer_account": null, "livemode": false, "type": "eu_vat",
      "owner": {"type": "customer", "customer": "cus_ann", "customer_account": null},
      "value": "DE123456789", "verification": {"status": "pending", "verified_name": null}}'
      || p_extra);
$$;

create function tests.clock(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_clock_' || md5(p_event || p_at::text || p_extra), 'test_helpers.test_clock.' || p_event,
    p_at,
    '{"id": "clock_1", "object": "test_helpers.test_clock", "created": 1768003200,
      "deletes_after": 1770595200, "frozen_time": 1768003200, "livemode": false,
      "name": "A year", "status": "ready", "status_details": {}}' || p_extra);
$$;

create function tests.meter(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_mtr_' || md5(p_event || p_at::text || p_extra), 'billing.meter.' || p_event, p_at,
    '{"id": "mtr_1", "object": "billing.meter", "created": 1768003200, "display_name": "Exports",
      "event_name": "exports", "event_time_window": null, "livemode": false, "status": "active",
      "customer_mapping": {"event_payload_key": "customer", "type": "by_id"},
      "default_aggregation": {"formula": "sum"}, "updated": 1768003200,
      "status_transitions": {"deactivated_at": null},
      "value_settings": {"event_payload_key": "count"}}' || p_extra);
$$;

savepoint s;

-- ---- the service: tax numbers -----------------------------------------------

select is(tests.tax_id('created', '2026-01-10'), 'applied', 'a tax number is applied');
select results_eq(
  $$
    select account_id, type, value, country, verification_status, deleted_at, stripe_customer_id
    from billing.tax_ids
  $$,
  $$
    values (md5('ann')::uuid, 'eu_vat', 'DE123456789', 'DE', 'pending', null::timestamptz,
      'cus_ann')
  $$,
  'with whose it is and whether it was looked up'
);
select tests.tax_id('updated', '2026-01-11', '{"verification": {"status": "verified"}}');
select is((select verification_status from billing.tax_ids), 'verified', 'later it is');
select tests.tax_id('deleted', '2026-01-12');
select tests.tax_id('updated', '2026-01-13');
select is(
  (select deleted_at from billing.tax_ids), '2026-01-12 00:00+00'::timestamptz,
  'E4: what was deleted stays so'
);
rollback to s;

select tests.tax_id('created', '2026-01-10', '{"customer": null, "verification": null}');
select results_eq(
  $$ select account_id, verification_status from billing.tax_ids $$,
  $$ values (md5('ann')::uuid, null) $$,
  'D2: newer versions name the customer as owner'
);
select tests.tax_id('created', '2026-01-11', '{
  "customer": null, "owner": {"type": "self"}, "id": "txi_self", "type": "mars_vat"}');
select is(
  (select account_id from billing.tax_ids where type = 'mars_vat'), null,
  'D10: one of our own, of an unknown type, is nobody''s'
);
select tests.sign_in('ann');
select is((select count(*) from billing.tax_ids), 1::bigint, 'a member sees the account''s own');
select tests.sign_in('bob');
select is_empty($$ select * from billing.tax_ids $$, 'a stranger sees none');
rollback to s;

-- ---- the service: test clocks -----------------------------------------------

select is(tests.clock('created', '2026-01-10'), 'applied', 'a test clock is applied');
select tests.clock('advancing', '2026-01-11', '{"status": "advancing"}');
select tests.clock('ready', '2026-01-12', '{"frozen_time": 1799539200}');
select results_eq(
  $$ select name, status, frozen_at, deletes_after, deleted_at from billing_private.test_clocks $$,
  $$
    values ('A year', 'ready', '2027-01-10 00:00+00'::timestamptz,
      '2026-02-09 00:00+00'::timestamptz, null::timestamptz)
  $$,
  'with what it says'
);
select tests.clock('deleted', '2026-01-13');
select is(
  (select deleted_at from billing_private.test_clocks), '2026-01-13 00:00+00'::timestamptz,
  'and goes one day'
);
rollback to s;

-- ---- the service: meters ----------------------------------------------------

select is(tests.meter('created', '2026-01-10'), 'applied', 'a meter is applied');
select results_eq(
  $$
    select stripe_meter_id, event_name, display_name, status, formula, customer_key, value_key
    from billing_private.meters
  $$,
  $$ values ('mtr_1', 'exports', 'Exports', 'active', 'sum', 'customer', 'count') $$,
  'with what reports to it look like'
);
select tests.meter('deactivated', '2026-01-12', '{"status": "inactive"}');
select tests.meter('updated', '2026-01-11', '{"display_name": "Told late"}');
select results_eq(
  $$ select status, display_name from billing_private.meters $$,
  $$ values ('inactive', 'Exports') $$,
  'A6: it may be switched off, and what was told before changes nothing'
);
select tests.meter('reactivated', '2026-01-13');
select is((select status from billing_private.meters), 'active', 'and on again');

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing_private.meters $$,
  '42501', 'permission denied for schema billing_private',
  'a member does not see the machine''s meters'
);

select * from finish();
rollback;
