-- The tasks sweep_events and sweep_objects: what is read when, and what health says of it.
begin;
\ir ../helpers.psql
select plan(21);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10 08:30');
select tests.account('ann');

create view tests.line as
select list_key, is_backfill, created_from, status
from billing_private.sweeps
join billing_private.stripe_lists on key = list_key
order by stripe_lists.position, sweeps.position;

-- Ends what runs with an empty page, asked for as Stripe's clock says.
create function tests.end_all(p_stripe_date text) returns void
language plpgsql as $$
declare
  v_claimed record;
begin
  loop
    select * into v_claimed from billing_private.claim_commands(1, null);
    exit when not found;
    perform billing.complete_command(
      v_claimed.id, v_claimed.lease, 200, '{"object": "list", "has_more": false, "data": []}',
      null, p_stripe_date, 0);
  end loop;
end;
$$;

create function pg_temp.check(p_key text) returns text
language sql as $$
  select format('%s %s', status, value) from billing_private.health() where check_key = p_key;
$$;

-- ---- before Stripe ----------------------------------------------------------

delete from billing_private.stripe_objects where object_id is not null;
select is(billing_private.task_sweep_events(), 0::bigint, 'without Stripe there are no events');
select is(billing_private.task_sweep_objects(), 0::bigint, 'nor objects');
select is_empty($$ select * from tests.line $$, 'nothing is asked');
select is(pg_temp.check('reconciliation'), 'healthy 0', 'and nothing is missed');

-- ---- events -----------------------------------------------------------------

select tests.subscribe('ann');
select billing_private.task_sweep_events();
select results_eq(
  $$ select * from tests.line $$,
  $$ values ('events', true, null::timestamptz, 'running') $$,
  'the first time all events are read, and none of them is drift'
);
select billing_private.task_sweep_events();
select is((select count(*) from tests.line), 1::bigint, 'H9: a second run does not begin it twice');
select tests.set_time('2026-01-10 10:30');
select is(
  pg_temp.check('reconciliation'), 'healthy 2.0', 'a sweep that nobody carries to Stripe shows'
);
select tests.set_time('2026-01-10 11:30');
select is(pg_temp.check('reconciliation'), 'degraded 3.0', 'after three hours the system is degraded');
select tests.set_time('2026-01-11 08:30');
select is(pg_temp.check('reconciliation'), 'unhealthy 24.0', 'after a day it is unhealthy');

select tests.end_all('Sun, 11 Jan 2026 08:25:00 GMT');
select is(pg_temp.check('reconciliation'), 'healthy 0.0', 'a finished sweep is healthy');
select tests.set_time('2026-01-11 09:30');
select billing_private.task_sweep_events();
select results_eq(
  $$ select is_backfill, created_from from tests.line where status = 'running' $$,
  $$ values (false, '2026-01-11 07:25+00'::timestamptz) $$,
  'the next one begins an hour before the last did, by Stripe''s clock'
);
select tests.end_all('Sun, 11 Jan 2026 09:25:00 GMT');

-- ---- events that Stripe has forgotten ---------------------------------------

select tests.set_time('2026-02-10 09:25');
select billing_private.task_sweep_events();
select is(
  (select count(*) from tests.line where status <> 'finished'), 1::bigint,
  'H1: events of thirty days can be read'
);
select tests.end_all('Tue, 10 Feb 2026 09:25:00 GMT');
select tests.set_time('2026-03-12 09:25:01');
select billing_private.task_sweep_events();
select set_eq(
  $$ select list_key from tests.line where status <> 'finished' $$,
  $$ select key from billing_private.stripe_lists $$,
  'H2: after more than thirty days every list is read as well'
);
select is(
  (select count(*) from tests.line where status = 'running'), 1::bigint, 'one after the other'
);
select tests.end_all('Thu, 12 Mar 2026 09:25:00 GMT');
select is_empty($$ select * from tests.line where status <> 'finished' $$, 'to the end');

-- ---- objects ----------------------------------------------------------------

select billing_private.task_sweep_objects();
select set_eq(
  $$ select list_key, is_backfill, created_from from tests.line where status <> 'finished' $$,
  $$
    select key, false, null::timestamptz
    from billing_private.stripe_lists
    where object_type is not null
  $$,
  'H2: all lists are read from beginning to end'
);
select is_empty(
  $$
    select object_type
    from billing_private.stripe_resources
    where object_type not in (
        select object_type from billing_private.stripe_lists where object_type is not null
      )
      -- Stripe lists these only customer by customer; test clocks are no business of the mirror.
      and object_type not in ('payment_method', 'tax_id', 'test_helpers.test_clock')
  $$,
  'H2: there is a list for every kind of object that is mirrored'
);
select results_eq(
  $$ select key, params from billing_private.stripe_lists where params <> '{}' order by key $$,
  $$
    values
      ('archived_prices', '{"active": false, "expand": ["data.tiers"]}'::jsonb),
      ('prices', '{"active": true, "expand": ["data.tiers"]}'),
      ('subscriptions', '{"status": "all"}')
  $$,
  'H4: lists that are short by default are asked for whole'
);

select is_empty(
  $$
    select indrelid::regclass, attname
    from pg_index
    join pg_class on pg_class.oid = indrelid
    join pg_attribute on attrelid = indrelid and attnum = indkey[0]
    where relnamespace in ('billing'::regnamespace, 'billing_private'::regnamespace)
      and indisunique
      and attname like 'stripe\_%'
      -- A customer's entitlements have no object at Stripe: their list is read whole.
      and indrelid <> 'billing.stripe_entitlements'::regclass
      and not exists (
        select
        from billing_private.mirrored_tables
        where table_name::regclass = indrelid
          and key_column = attname
      )
  $$,
  'H5: every table that mirrors Stripe is compared'
);

-- ---- an interrupted line ----------------------------------------------------

delete from billing_private.commands where kind = 'sweep_page' and status = 'pending';
update billing_private.sweeps
set status = 'finished', finished_at = billing_private.now()
where status = 'running';
select billing_private.task_request_rereads();
select is(
  (select count(*) from tests.line where status = 'running'), 1::bigint,
  'H9: a sweep in line that nobody let begin begins'
);

-- ---- drift ------------------------------------------------------------------

insert into billing_private.drifts (object_type, object_id, class, found_by)
values ('subscription', 'sub_ann', 'stale', 'sweep');
select is(pg_temp.check('drift'), 'degraded 1', 'H5: what was found to differ shows for a day');

select * from finish();
rollback;
