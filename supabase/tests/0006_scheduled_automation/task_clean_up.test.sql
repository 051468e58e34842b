-- The task clean_up: removes what is old, keeps what is young.
begin;
\ir ../helpers.psql
select plan(25);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10 12:00');
select tests.account('ann');

-- ---- nothing to do ----------------------------------------------------------

delete from billing_private.webhook_rejections where reason <> '';
select billing_private.task_clean_up(); -- what pg_cron may have left behind
select is(billing_private.task_clean_up(), 0::bigint, 'where nothing is old, nothing is removed');

-- ---- run logs ---------------------------------------------------------------

insert into billing_private.task_runs (task_key, started_at, duration, outcome)
select 'clean_up', started_at, '1 second', 'succeeded'
from (values
  ('2025-12-11 11:59:59'::timestamptz), ('2025-12-11 12:00:00'), ('2026-01-10 11:59:00')
) as runs (started_at);
select is(billing_private.task_clean_up(), 1::bigint, 'a run older than 30 days is removed');
select is(
  (select array_agg(started_at order by started_at) from billing_private.task_runs),
  array['2025-12-11 12:00:00', '2026-01-10 11:59:00']::timestamptz[],
  'a run of 30 days and younger is kept'
);

-- ---- refused webhooks -------------------------------------------------------

insert into billing_private.webhook_rejections (reason, minute, count) values
  ('SIGNATURE_INVALID', '2025-12-11 11:59', 1000),
  ('SIGNATURE_INVALID', '2025-12-11 12:00', 2),
  ('SIGNATURE_EXPIRED', '2026-01-10 11:59', 3);
select is(billing_private.task_clean_up(), 1::bigint, 'a count older than 30 days is removed');
select is(
  (select sum(count) from billing_private.webhook_rejections), 5::bigint,
  'a count of 30 days and younger is kept'
);

-- ---- hook events ------------------------------------------------------------

insert into billing.hook_events (account_id, type, fact, data, occurred_at)
select md5('ann')::uuid, 'usage.threshold_reached', occurred_at::text, '{}', occurred_at
from (values
  ('2025-10-12 11:59:59'::timestamptz), ('2025-10-12 12:00:00'), ('2026-01-10 11:59:00')
) as told (occurred_at);
select is(billing_private.task_clean_up(), 1::bigint, 'an event older than 90 days is removed');
select is(
  (select min(occurred_at) from billing.hook_events), '2025-10-12 12:00:00'::timestamptz,
  'one of 90 days and younger is kept'
);

-- ---- portal requests --------------------------------------------------------

create function pg_temp.command(
  p_name text,
  p_kind text,
  p_status text,
  p_created_at timestamptz
) returns void
language sql as $$
  insert into billing_private.commands
    (id, kind, account_id, path, status, created_at, lease, lease_expires_at)
  select
    md5(p_name)::uuid, p_kind, md5('ann')::uuid, '/v1', p_status, p_created_at, lease,
    p_created_at + interval '1 minute'
  from (select case p_status when 'leased' then md5('lease')::uuid end as lease) as leased;
$$;

select pg_temp.command('old', 'create_portal', 'pending', '2026-01-10 11:49:59');
select pg_temp.command('stuck', 'create_portal', 'leased', '2026-01-10 11:49:59');
select pg_temp.command('young', 'create_portal', 'pending', '2026-01-10 11:50:00');
select pg_temp.command('done', 'create_portal', 'succeeded', '2026-01-10 11:00:00');
select pg_temp.command('customer', 'create_customer', 'pending', '2026-01-10 09:00:00');
select is(
  billing_private.task_clean_up(), 2::bigint,
  'a portal request that is older than ten minutes is canceled, also while it is leased'
);
select set_eq(
  $$
    select id, status
    from billing_private.commands
    where account_id = md5('ann')::uuid
  $$,
  $$
    values
      (md5('old')::uuid, 'canceled'), (md5('stuck')::uuid, 'canceled'),
      (md5('young')::uuid, 'pending'), (md5('done')::uuid, 'succeeded'),
      (md5('customer')::uuid, 'pending')
  $$,
  'a younger one still waits for its user; any other command waits for Stripe'
);
select is_empty(
  $$ select * from billing_private.commands where status = 'canceled' and finished_at is null $$,
  'a canceled request says when'
);

-- ---- calls to Stripe --------------------------------------------------------

insert into billing_private.commands (kind, account_id, path, status, finished_at)
select 'undo_cancel', md5('ann')::uuid, '/v1/' || status || ' ' || finished_at::date, status,
  finished_at
from unnest(array['succeeded', 'canceled', 'dead']) as status
cross join unnest(array['2025-10-12 11:59:59', '2025-10-12 12:00:00']::timestamptz[]) as finished_at;
select is(
  billing_private.task_clean_up(), 2::bigint,
  'calls that were made, or were not wanted any more, are kept for 90 days'
);
select is(
  (
    select count(*) from billing_private.commands
    where finished_at < '2025-11-01' and status <> 'dead'
  ),
  2::bigint,
  'to the second'
);
select is(
  (select count(*) from billing_private.commands where status = 'dead'), 2::bigint,
  'those that were given up stay'
);
delete from billing_private.commands where finished_at < '2025-11-01';

-- ---- differences from Stripe ------------------------------------------------

insert into billing_private.drifts
  (object_type, object_id, class, found_by, found_at, last_seen_at, repaired_at)
values
  ('invoice', 'in_repaired', 'stale', 'sweep', '2025-10-12', '2025-10-12 11:59:59', '2025-10-12'),
  ('invoice', 'in_gone', 'stale', 'sweep', '2025-06-01', '2025-10-12 11:59:59', null),
  ('invoice', 'in_young', 'stale', 'sweep', '2025-06-01', '2025-10-12 12:00:00', '2025-10-12'),
  ('invoice', 'in_seen_again', 'stale', 'sweep', '2025-06-01', '2026-01-09', null);
select is(
  billing_private.task_clean_up(), 2::bigint,
  'differences that nobody has seen for more than 90 days are removed, repaired or not'
);
select results_eq(
  $$ select object_id from billing_private.drifts order by 1 $$,
  array['in_seen_again', 'in_young'],
  'those that are seen again and again stay'
);
delete from billing_private.drifts where object_type = 'invoice';

-- ---- what stays -------------------------------------------------------------

select tests.subscribe('ann');
insert into billing_private.entitlement_corrections (account_id, feature_key, problem)
values (md5('ann')::uuid, 'premium', 'missing');
create temporary table before as
select
  (select count(*) from billing_private.stripe_events) as events,
  (select count(*) from billing_private.commands where kind = 'create_customer') as commands,
  (select count(*) from billing_private.entitlement_corrections) as corrections,
  (select count(*) from billing_private.audit_log) as audited,
  (select count(*) from billing.subscription_changes) as changes;
select tests.set_time('2036-01-10');
select billing_private.task_clean_up();
select results_eq(
  $$
    select
      (select count(*) from billing_private.stripe_events),
      (select count(*) from billing_private.commands where kind = 'create_customer'),
      (select count(*) from billing_private.entitlement_corrections),
      (select count(*) from billing_private.audit_log),
      (select count(*) from billing.subscription_changes)
  $$,
  'select * from before',
  'events, waiting commands, corrections, history and audit stay, however old'
);
select is_empty(
  $$ select * from billing_private.task_runs $$,
  'after ten years no old run is left'
);
select tests.set_time('2026-01-10 12:00');

-- ---- pg_cron's log ----------------------------------------------------------

create function pg_temp.cron_log() returns setof text
language plpgsql as $$
declare
  v_job_id bigint;
  v_removed bigint;
begin
  if not exists (select from pg_extension where extname = 'pg_cron') then
    return query select * from skip('pg_cron is not installed', 3);
    return;
  end if;
  execute $cron$ select cron.schedule('pg-subscriptions heartbeat', '* * * * *', 'select 1') $cron$
  into v_job_id;
  execute $cron$
    insert into cron.job_run_details (jobid, runid, username, command, status, end_time)
    values
      ($1, -1, current_user, 'ours, old', 'succeeded', now() - interval '7 days 1 second'),
      ($1, -2, current_user, 'ours, young', 'succeeded', now() - interval '6 days 23 hours'),
      (-1, -3, current_user, 'somebody else''s', 'succeeded', now() - interval '70 days')
  $cron$
  using v_job_id;
  v_removed := billing_private.task_clean_up();
  return next is(v_removed, 1::bigint, 'of pg_cron''s log our rows older than a week are removed');
  return query execute $cron$
    select is(
      (select array_agg(command order by runid) from cron.job_run_details where runid = -2),
      array['ours, young'],
      'our younger rows are kept')
    union all
    select is(
      (select array_agg(command order by runid) from cron.job_run_details where runid = -3),
      array['somebody else''s'],
      'nobody else''s rows are touched')
  $cron$;
end;
$$;
select * from pg_temp.cron_log();

-- ---- run by the heartbeat ---------------------------------------------------

select is(billing_private.run_task('clean_up'), 'succeeded', 'the heartbeat runs it');
select isnt_empty(
  $$ select * from billing_private.task_runs where task_key = 'clean_up' $$,
  'its own run is young'
);
select is(
  (select rows_affected from billing_private.task_runs where task_key = 'clean_up'), 0::bigint,
  'a second run finds nothing left'
);

-- ---- who may ----------------------------------------------------------------

select tests.be_service();
select throws_ok(
  $$ select billing_private.task_clean_up() $$,
  '42501', 'permission denied for schema billing_private',
  'the service cannot call it'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing_private.task_clean_up() $$,
  '42501', 'permission denied for schema billing_private',
  'a user cannot call it'
);

select * from finish();
rollback;
