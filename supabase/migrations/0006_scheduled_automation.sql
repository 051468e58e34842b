-- =============================================================================
-- 0006  scheduled automation
--
-- What happens by itself. One heartbeat runs whatever is due, so a missed minute is
-- caught up and the host's pg_cron holds a single job of ours.
--
-- Reads      0002 tasks, 0003 lifecycle and events, 0005 access
-- Read by    0007 admin, 0008 security
--
-- Invariants
--   * A task is a function of billing_private without arguments that returns how many rows it
--     changed, works in bounded batches, and may run twice.
--   * One task never fails another: each runs in its own subtransaction.
--   * Access never waits for a task (0005); tasks bring stored state in step.
--
-- Contents
--   1  the runner
--   2  task: expire_subscriptions
--   3  task: apply_scheduled_changes
--   4  task: settle_contracts
--   5  task: validate_entitlements
--   6  task: retry_events
--   7  tasks: ring_dispatcher, give_up_commands, tell_customers
--   8  task: run_dunning
--   9  task: check_money
--   10  task: check_health
--   11  task: clean_up
--   12  tasks: request_rereads, sweep_events, sweep_objects, rebuild
--   13  task: recount_metered_tables
--   14  task: migrate_plans
--   15  tasks: tend_usage, keep_usage
--   16  the registry
--   17  the heartbeat in pg_cron
--   18  tasks: sync_seats, settle_accounts
--   19  who may call what
-- =============================================================================


-- -----------------------------------------------------------------------------
-- 1  the runner
-- -----------------------------------------------------------------------------

-- One lock for all tasks: each keeps the accounts it has touched until the heartbeat's transaction
-- ends, so two heartbeats side by side could wait for each other.
create function billing_private.try_task_lock()
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  return pg_try_advisory_xact_lock(hashtextextended('billing.tasks', 0));
end;
$$;

comment on function billing_private.try_task_lock() is
  'True when no other backend is running tasks. Gone with the transaction or its backend, so '
  'nothing is ever stuck.';


create function billing_private.run_task(p_task_key text)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_task billing_private.tasks;
  v_now timestamptz := billing_private.now();
  v_began timestamptz := clock_timestamp();
  v_rows bigint;
  v_message text;
  v_context text;
begin
  if not billing_private.try_task_lock() then
    return 'running';
  end if;
  select * into strict v_task from billing_private.tasks where key = p_task_key;

  begin
    perform billing_private.set_cause('task', p_task_key);
    execute format('select billing_private.%I()', v_task.function_name) into v_rows;
  exception when others then
    get stacked diagnostics v_message = message_text, v_context = pg_exception_context;
  end;

  insert into billing_private.task_runs (
    task_key, started_at, duration, outcome, rows_affected, error
  )
  values (
    p_task_key, v_now, clock_timestamp() - v_began,
    case when v_message is null then 'succeeded' else 'failed' end, v_rows,
    case when v_message is not null
      then jsonb_build_object('message', v_message, 'context', v_context) end
  );

  update billing_private.tasks
  set last_run_at = v_now,
      consecutive_failures = case when v_message is null then 0 else consecutive_failures + 1 end,
      next_run_at = case
        when v_message is null then billing_private.next_run(v_task, v_now)
        -- Failing, it is tried less and less often, at least once an hour or as often as planned.
        else v_now + greatest(
          run_every,
          least(run_every * (2 ^ least(consecutive_failures, 10)), interval '1 hour'))
      end
  where key = p_task_key;
  return case when v_message is null then 'succeeded' else 'failed' end;
end;
$$;

comment on function billing_private.run_task(text) is
  'Runs one task now and records the run: succeeded, failed, or running when another backend is'
  ' running tasks.';


create function billing_private.next_run(
  p_task billing_private.tasks,
  p_after timestamptz
)
returns timestamptz
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- On a fixed grid, so runs do not drift; missed ones are one catch-up run.
  return date_bin(p_task.run_every, p_after, '2000-01-01 00:00:00Z') + p_task.run_every;
end;
$$;

comment on function billing_private.next_run(billing_private.tasks, timestamptz) is
  'The next planned instant of a task after a given one: whole multiples of run_every since '
  '2000-01-01 UTC.';


create function billing_private.run_due_tasks()
returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_deadline timestamptz := clock_timestamp() + interval '50 seconds';
  v_task_key text;
  v_count integer := 0;
begin
  if not billing_private.try_task_lock() then
    return 0;
  end if;

  for v_task_key in
    select key
    from billing_private.tasks
    where is_enabled
      and (next_run_at is null or next_run_at <= billing_private.now())
    order by next_run_at nulls first, key
  loop
    exit when clock_timestamp() > v_deadline;
    perform billing_private.run_task(v_task_key);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.run_due_tasks() is
$$The heartbeat: runs every task that is due, oldest first, and returns how many ran; none while
another heartbeat is at work. Call it once a minute.

pg_cron does where it is installed; any scheduler that can run SQL as the owner will do. Stops
starting tasks after 50 seconds, below the two minutes a hosted project gives a statement; the next
heartbeat goes on.$$;


-- -----------------------------------------------------------------------------
-- 2  task: expire_subscriptions
-- -----------------------------------------------------------------------------

create function billing_private.task_expire_subscriptions()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  return billing_private.expire_manual_subscriptions(1000)
    + billing_private.refresh_elapsed(5000);
end;
$$;

comment on function billing_private.task_expire_subscriptions() is
  'Ends manual subscriptions whose end has passed, and takes elapsed entitlements out of the '
  'stored state.';


-- -----------------------------------------------------------------------------
-- 3  task: apply_scheduled_changes
-- -----------------------------------------------------------------------------

create function billing_private.task_apply_scheduled_changes()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- In this order: what ends or changes at a period end must not be renewed first.
  return billing_private.expire_manual_subscriptions(1000)
    + billing_private.begin_scheduled_pauses(1000)
    + billing_private.withdraw_invoices()
    + billing_private.resume_manual_subscriptions(1000)
    + billing_private.apply_manual_changes(1000)
    + billing_private.renew_manual_subscriptions(1000)
    + billing_private.note_overdue_invoices(1000);
end;
$$;

comment on function billing_private.task_apply_scheduled_changes() is
  'Brings changes of manual subscriptions that were scheduled into force, rolls and invoices '
  'periods, and notes what is overdue. At Stripe, Stripe does all this, but for pauses to come.';


-- -----------------------------------------------------------------------------
-- 4  task: settle_contracts
-- -----------------------------------------------------------------------------

create function billing_private.task_settle_contracts()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  return billing_private.settle_contracts(200);
end;
$$;

comment on function billing_private.task_settle_contracts() is
  'Settles terms of contracts that have ended: bills what is missing of commitments, and begins '
  'the next terms.';


-- -----------------------------------------------------------------------------
-- 5  task: validate_entitlements
-- -----------------------------------------------------------------------------

create function billing_private.task_validate_entitlements()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_batch constant integer := 2000;
  v_account_ids uuid[];
begin
  select array_agg(id order by id) into v_account_ids
  from (
    select id
    from billing.accounts
    where id > coalesce(
      (select resume_after::uuid from billing_private.tasks where key = 'validate_entitlements'),
      '00000000-0000-0000-0000-000000000000')
    order by id
    limit v_batch
  ) as next;

  -- The end of the list begins it again with the next run.
  update billing_private.tasks
  set resume_after = case
    when cardinality(v_account_ids) = v_batch then v_account_ids[v_batch]::text
  end
  where key = 'validate_entitlements';

  return billing_private.correct_entitlements(coalesce(v_account_ids, '{}'));
end;
$$;

comment on function billing_private.task_validate_entitlements() is
  'Compares the stored entitlements of the next 2,000 accounts with their sources and repairs what'
  ' disagrees.';


-- -----------------------------------------------------------------------------
-- 6  task: retry_events
-- -----------------------------------------------------------------------------

create function billing_private.task_retry_events()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_event record;
  v_count bigint := 0;
begin
  for v_event in
    select
      event_id, object_type, coalesce(stripe_customer_id, object_id, event_id) as lock_key
    from billing_private.stripe_events
    where status = 'failed'
      and next_attempt_at <= billing_private.now()
    order by next_attempt_at
    limit 200
    for update skip locked
  loop
    -- A customer somebody is busy with is left for the next run: nobody waits with locks in hand.
    if billing_private.try_lock_catalog(v_event.object_type)
      and pg_try_advisory_xact_lock(hashtextextended('billing.customer:' || v_event.lock_key, 0))
    then
      perform billing_private.apply_event(v_event.event_id);
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.task_retry_events() is
  'Applies failed events again that are due, up to 200. One that keeps failing holds up no other.';


-- -----------------------------------------------------------------------------
-- 7  tasks: ring_dispatcher, give_up_commands, tell_customers
-- -----------------------------------------------------------------------------

-- pg_net forgets its requests when the server crashes, and cannot speak to Stripe itself: it rings
-- the function that does. What is to be done stands in the outbox, so a ring that is lost costs a
-- minute.

create function billing_private.has_due_commands()
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return exists (
    select
    from billing_private.commands
    where status in ('pending', 'leased')
      and case status when 'pending' then next_attempt_at else lease_expires_at end
        <= billing_private.now()
      and not is_awaited
  );
end;
$$;

comment on function billing_private.has_due_commands() is
  'True when the dispatcher has something to do; what a user waits for is made by that user''s own '
  'function.';


create function billing_private.doorbell_problem(p_secret_name text)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return case
    when to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null
      then 'pg_net is not installed'
    when to_regclass('vault.decrypted_secrets') is null
      then 'the Vault is not installed'
    when billing_private.vault_secret(p_secret_name) is null
      then format('the Vault has no secret named %s', p_secret_name)
  end;
end;
$$;

comment on function billing_private.doorbell_problem(text) is
  'Why the doorbell cannot ring, or null when it can.';


create function billing_private.vault_secret(p_name text)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_secret text;
begin
  -- Put together, because the Vault is optional and its absence no mistake.
  execute format(
    'select nullif(trim(decrypted_secret), '''') from %s where name = $1',
    'vault.decrypted_secrets')
  into v_secret
  using p_name;
  return v_secret;
end;
$$;

comment on function billing_private.vault_secret(text) is
  'A secret of the Vault, which has to be installed; null when there is none of that name.';


create function billing_private.note_ring_answers()
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if to_regclass('net._http_response') is not null then
    execute format($net$
      update billing_private.doorbell_rings
      set answered_at = billing_private.now(),
          http_status = responses.status_code,
          error = case
            when responses.status_code between 200 and 299 then null
            else left(coalesce(
              responses.error_msg, case when responses.timed_out then 'timed out' end,
              responses.content, 'no answer'), 500)
          end
      from %s as responses
      where responses.id = doorbell_rings.request_id
        and doorbell_rings.answered_at is null
    $net$, 'net._http_response');
  end if;

  -- A crash took the request, or its answer, along.
  update billing_private.doorbell_rings
  set answered_at = billing_private.now(),
      error = 'no answer was recorded'
  where answered_at is null
    and rung_at <= billing_private.now() - interval '5 minutes';
end;
$$;

comment on function billing_private.note_ring_answers() is
  'Notes what the dispatcher answered to the rings under way; after five minutes, that it did not.';


create function billing_private.ring_dispatcher()
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_most_under_way constant integer := 3;
  v_settings billing_private.settings;
  v_problem text;
  v_request_id bigint;
begin
  select * into v_settings from billing_private.settings;
  if v_settings.functions_url is null
    or not billing_private.has_due_commands()
    or (select count(*) from billing_private.doorbell_rings where answered_at is null)
      >= v_most_under_way
  then
    return false;
  end if;

  v_problem := billing_private.doorbell_problem(v_settings.functions_secret_name);
  if v_problem is null then
    -- By name and with a time limit: pg_net's defaults have changed. It makes its requests in
    -- batches, each as slow as its slowest, so this one asks not to be kept waiting.
    execute format($net$
      select %s(
        url := $1,
        body := '{"wait": false}',
        headers := jsonb_build_object('Content-Type', 'application/json', 'apikey', $2::text),
        timeout_milliseconds := 10000)
    $net$, 'net.http_post')
    into v_request_id
    using
      v_settings.functions_url || '/checkout/dispatch',
      billing_private.vault_secret(v_settings.functions_secret_name);
  end if;

  insert into billing_private.doorbell_rings (request_id, answered_at, error)
  values (
    v_request_id, case when v_problem is not null then billing_private.now() end, v_problem);
  return v_problem is null;
end;
$$;

comment on function billing_private.ring_dispatcher() is
  'Asks the dispatcher, through pg_net, to carry the commands that are due; at most three requests '
  'are under way at a time. False when there was nothing to ask for, or no way to ask.';


create function billing_private.task_tell_customers()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_batch constant integer := 200;
  v_account_ids uuid[];
begin
  select array_agg(account_id order by account_id) into v_account_ids
  from (
    select account_id
    from billing.customers
    where account_id > coalesce(
      (select resume_after::uuid from billing_private.tasks where key = 'tell_customers'),
      '00000000-0000-0000-0000-000000000000')
      and is_primary
      and deleted_at is null
    order by account_id
    limit v_batch
  ) as next;

  -- The end of the list begins it again with the next run.
  update billing_private.tasks
  set resume_after = case
    when cardinality(v_account_ids) = v_batch then v_account_ids[v_batch]::text
  end
  where key = 'tell_customers';

  return billing_private.tell_customers(coalesce(v_account_ids, '{}'));
end;
$$;

comment on function billing_private.task_tell_customers() is
  'Tells Stripe of new e-mail addresses and names among the next 200 customers.';


create function billing_private.task_give_up_commands()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  return billing_private.give_up_old_commands(200);
end;
$$;

comment on function billing_private.task_give_up_commands() is
  'Gives up commands too old to be made, up to 200: they would hold up what stands behind them.';


create function billing_private.task_ring_dispatcher()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.note_ring_answers();
  return billing_private.ring_dispatcher()::integer;
end;
$$;

comment on function billing_private.task_ring_dispatcher() is
  'Rings the dispatcher when commands are due, where the doorbell is configured.';


-- -----------------------------------------------------------------------------
-- 8  task: run_dunning
-- -----------------------------------------------------------------------------

create function billing_private.task_run_dunning()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_case record;
  v_count bigint := billing_private.open_due_cases(500);
begin
  for v_case in
    select
      dunning_cases.id, dunning_cases.account_id,
      coalesce(invoices.stripe_customer_id, 'none') as lock_key
    from billing.dunning_cases
    join billing.invoices on invoices.id = dunning_cases.invoice_id
    where dunning_cases.status = 'open'
      and dunning_cases.due_at <= billing_private.now()
    order by dunning_cases.due_at
    limit 200
    for update of dunning_cases skip locked
  loop
    -- Whoever is being told something of by Stripe is left for the next run: nobody waits with
    -- locks in hand.
    if billing_private.try_lock_catalog('invoice')
      and pg_try_advisory_xact_lock(hashtextextended('billing.customer:' || v_case.lock_key, 0))
      and coalesce(
        pg_try_advisory_xact_lock(hashtextextended('billing.account:' || v_case.account_id, 0)),
        true)
    then
      perform billing_private.run_dunning_case(v_case.id);
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.task_run_dunning() is
  'Does what dunning policies say about overdue invoices: opens cases, runs stages, asks Stripe to '
  'collect again. Up to 200 cases.';


-- -----------------------------------------------------------------------------
-- 9  task: check_money
-- -----------------------------------------------------------------------------

create function billing_private.task_check_money()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_batch constant integer := 1000;
  v_account_ids uuid[];
begin
  select array_agg(id order by id) into v_account_ids
  from (
    select id
    from billing.accounts
    where id > coalesce(
      (select resume_after::uuid from billing_private.tasks where key = 'check_money'),
      '00000000-0000-0000-0000-000000000000')
    order by id
    limit v_batch
  ) as next;

  -- The end of the list begins it again with the next run.
  update billing_private.tasks
  set resume_after = case
    when cardinality(v_account_ids) = v_batch then v_account_ids[v_batch]::text
  end
  where key = 'check_money';

  return billing_private.check_money(coalesce(v_account_ids, '{}'));
end;
$$;

comment on function billing_private.task_check_money() is
  'Looks whether the money of the next 1,000 accounts adds up.';


-- -----------------------------------------------------------------------------
-- 10  task: check_health
-- -----------------------------------------------------------------------------

create type billing_private.health_result as (
  check_key text,
  status text,
  summary text,
  value numeric
);

create function billing_private.graded(
  p_check_key text,
  p_value numeric,
  p_degraded_from numeric,
  p_unhealthy_from numeric,
  p_unit text
)
returns billing_private.health_result
language plpgsql
immutable
set search_path = ''
as $$
begin
  return row(
    p_check_key,
    case
      when p_value >= p_unhealthy_from then 'unhealthy'
      when p_value >= p_degraded_from then 'degraded'
      else 'healthy'
    end,
    format('%s %s', p_value, p_unit),
    p_value
  );
end;
$$;

comment on function billing_private.graded(text, numeric, numeric, numeric, text) is
  'A health result by two thresholds.';


create function billing_private.doorbell_health()
returns billing_private.health_result
language plpgsql
stable
set search_path = ''
as $$
declare
  v_settings billing_private.settings;
  v_problem text;
  v_failures bigint;
  v_error text;
begin
  select * into v_settings from billing_private.settings;
  if v_settings.functions_url is null then
    return row(
      'doorbell', 'healthy', 'not configured: another scheduler calls the dispatcher', 0
    )::billing_private.health_result;
  end if;

  select count(*), (array_agg(error order by id desc))[1]
  into v_failures, v_error
  from billing_private.doorbell_rings
  where answered_at is not null
    and id > coalesce(
      (
        select max(id)
        from billing_private.doorbell_rings
        where http_status between 200 and 299
      ),
      0);

  v_problem := billing_private.doorbell_problem(v_settings.functions_secret_name);
  if v_problem is not null then
    return row('doorbell', 'unhealthy', v_problem, v_failures)::billing_private.health_result;
  end if;
  return billing_private.graded(
    'doorbell', v_failures, 1, 3,
    concat_ws(': ', 'rings in a row that the dispatcher did not answer well', v_error));
end;
$$;

comment on function billing_private.doorbell_health() is
  'Whether the doorbell rings, and is heard.';


create function billing_private.reconciliation_health()
returns setof billing_private.health_result
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  return query
  select (billing_private.graded(
    'drift', count(*), 1, 100, 'differences from Stripe found in 24 hours')).*
  from billing_private.drifts
  where last_seen_at > v_now - interval '24 hours'
  union all
  select (billing_private.graded(
    'reconciliation',
    case
      when billing_private.uses_stripe() then coalesce(
        round(extract(epoch from v_now - coalesce(
          max(finished_at) filter (where status = 'finished'), min(requested_at))) / 3600, 1),
        0)
      else 0
    end,
    3, 24, 'hours since the list of Stripe''s events was last compared')).*
  from billing_private.sweeps
  where list_key = 'events';
end;
$$;

comment on function billing_private.reconciliation_health() is
  'Health checks: what was found to differ from Stripe, and whether anybody looks.';


-- Long because it is a list: one select for each check.
create function billing_private.health()
returns setof billing_private.health_result
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  return query
  select (results.result).*
  from (
    select case
      when max(last_run_at) is null then row(
        'heartbeat', 'unhealthy', 'no task has run yet: nobody calls the heartbeat', null
      )::billing_private.health_result
      else billing_private.graded(
        'heartbeat', round(extract(epoch from v_now - max(last_run_at)) / 60, 1), 3, 10,
        'minutes since a task last ran')
    end
    from billing_private.tasks
    union all
    select billing_private.graded(
      'tasks', coalesce(max(consecutive_failures), 0), 1, 3,
      'failures in a row of the worst task')
    from billing_private.tasks
    where is_enabled
    union all
    select billing_private.graded(
      'failed_events', count(*), 1, 100, 'events waiting to be tried again')
    from billing_private.stripe_events
    where status in ('pending', 'failed')
    union all
    select billing_private.graded('dead_events', count(*), 1, 1, 'events given up')
    from billing_private.stripe_events
    where status = 'dead'
    union all
    select billing_private.graded(
      'commands',
      greatest(round(extract(epoch from v_now - min(next_attempt_at)) / 60, 1), 0),
      5, 30,
      format(
        'minutes the oldest due command has waited; the dispatcher last came %s',
        coalesce(
          (select to_char(last_claim_at, 'YYYY-MM-DD HH24:MI:SS TZ')
          from billing_private.dispatcher),
          'never')))
    from billing_private.commands
    where status in ('pending', 'leased')
      and not is_awaited
    union all
    select billing_private.doorbell_health()
    union all
    select billing_private.graded('dead_commands', count(*), 1, 1, 'commands given up this week')
    from billing_private.commands
    where status = 'dead'
      and finished_at > v_now - interval '7 days'
    union all
    select billing_private.graded(
      'corrections', count(*), 1, 100, 'entitlements corrected in 24 hours')
    from billing_private.entitlement_corrections
    where corrected_at > v_now - interval '24 hours'
    union all
    select billing_private.graded(
      'meter_errors', count(*), 1, 100, 'reports of usage Stripe could not count in 24 hours')
    from billing_private.meter_error_reports
    where reported_at > v_now - interval '24 hours'
    union all
    select checks from billing_private.reconciliation_health() as checks
    union all
    select billing_private.graded('money', count(*), 1, 1, 'amounts that do not add up')
    from billing_private.money_violations
    union all
    select billing_private.graded(
      'other_livemode', count(*), 1, 1, 'events of the other Stripe mode in 24 hours')
    from billing_private.stripe_events
    where status_reason = 'other_livemode'
      and received_at > v_now - interval '24 hours'
  ) as results (result);
end;
$$;

comment on function billing_private.health() is
  'Every health check as of now: healthy, degraded or unhealthy, with the figure it was judged by.';


create function billing_private.task_check_health()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_count bigint;
begin
  insert into billing_private.health_checks as stored (
    check_key, status, summary, value, checked_at, since
  )
  select check_key, status, summary, value, billing_private.now(), billing_private.now()
  from billing_private.health()
  on conflict (check_key) do update
  set status = excluded.status,
      summary = excluded.summary,
      value = excluded.value,
      checked_at = excluded.checked_at,
      since = case when stored.status = excluded.status then stored.since else excluded.since end;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function billing_private.task_check_health() is
  'Stores the result of every health check and since when it has been so.';


-- -----------------------------------------------------------------------------
-- 11  task: clean_up
-- -----------------------------------------------------------------------------

-- Long because it is a list: what is kept, and for how long.
create function billing_private.task_clean_up()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_rows bigint;
  v_count bigint := 0;
begin
  delete from billing_private.task_runs where started_at < v_now - interval '30 days';
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  delete from billing_private.webhook_rejections where minute < v_now - interval '30 days';
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  delete from billing_private.doorbell_rings where rung_at < v_now - interval '7 days';
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  delete from billing_private.sweeps
  where finished_at < v_now - interval '90 days'
    and position not in (
      select max(position) from billing_private.sweeps group by list_key, status
    );
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  -- One that is still there has been seen again since: lists are compared every week.
  delete from billing_private.drifts
  where id = any (array(
    select id
    from billing_private.drifts
    where last_seen_at < v_now - interval '90 days'
    order by last_seen_at
    limit 1000
  ));
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  -- What Stripe has done stands in the mirror and in the history; a call that was given up is kept
  -- until somebody has seen to it.
  delete from billing_private.commands
  where id in (
    select id
    from billing_private.commands
    where status in ('succeeded', 'canceled')
      and finished_at < v_now - interval '90 days'
      -- What came of a migration is known from its calls.
      and not exists (
        select
        from billing_private.plan_migration_steps
        where plan_migration_steps.command_id = commands.id
      )
    order by finished_at
    limit 10000
  );
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  delete from billing_private.code_guesses where hour < v_now - interval '1 day';
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  delete from billing.hook_events
  where (account_id, id) in (
    select account_id, id
    from billing.hook_events
    where occurred_at < v_now - interval '90 days'
    order by occurred_at
    limit 10000
  );
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  -- Pages and previews whose user has long gone elsewhere.
  update billing_private.commands
  set status = 'canceled',
      lease = null,
      lease_expires_at = null,
      finished_at = v_now
  where is_awaited
    and status in ('pending', 'leased')
    and created_at < v_now - interval '10 minutes';
  get diagnostics v_rows = row_count;
  v_count := v_count + v_rows;

  -- pg_cron never cleans its own log; only the rows of our job are ours to remove.
  if exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    execute $cron$
      delete from cron.job_run_details
      where end_time < now() - interval '7 days'
        and jobid in (select jobid from cron.job where jobname = 'pg-subscriptions heartbeat')
    $cron$;
    get diagnostics v_rows = row_count;
    v_count := v_count + v_rows;
  end if;
  return v_count;
end;
$$;

comment on function billing_private.task_clean_up() is
  'Removes run logs and refusal counts older than 30 days, rings of the doorbell and our job''s '
  'pg_cron log older than 7, and sweeps, differences from Stripe, finished calls to it and hook '
  'events older than 90.';


-- -----------------------------------------------------------------------------
-- 12  tasks: request_rereads, sweep_events, sweep_objects, rebuild
-- -----------------------------------------------------------------------------

create function billing_private.uses_stripe()
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Not exists(): that would read the table from its beginning, dead rows and all.
  return (
    select object_id from billing_private.stripe_objects order by object_id limit 1
  ) is not null;
end;
$$;

comment on function billing_private.uses_stripe() is
  'True once anything of Stripe is stored: before, there is nothing to compare.';


create function billing_private.task_request_rereads()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- A sweep in line that nobody let begin, because two came at once.
  perform billing_private.continue_sweeps();
  return billing_private.request_rereads(billing_private.now(), 200);
end;
$$;

comment on function billing_private.task_request_rereads() is
  'Asks Stripe about objects that should have changed by now, by billing_private.reread_rules.';


create function billing_private.task_sweep_events()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_overlap constant interval := interval '1 hour';
  v_retention constant interval := interval '30 days';
  v_last timestamptz := (
    select max(asked_at)
    from billing_private.sweeps
    where list_key = 'events'
      and status = 'finished'
  );
begin
  if not billing_private.uses_stripe() then
    return 0;
  end if;
  -- Stripe forgets events after that; what they told of can still be read.
  if v_last < billing_private.now() - v_retention then
    perform billing_private.task_sweep_objects();
  end if;
  perform billing_private.request_sweep('events', v_last is null, v_last - v_overlap);
  perform billing_private.continue_sweeps();
  return 1;
end;
$$;

comment on function billing_private.task_sweep_events() is
  'Has Stripe''s list of events read, from an hour before the last reading began, for those that '
  'were never delivered.';


create function billing_private.task_sweep_objects()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not billing_private.uses_stripe() then
    return 0;
  end if;
  perform billing_private.request_sweep(
    key,
    not exists (
      select
      from billing_private.sweeps
      where list_key = stripe_lists.key
        and status = 'finished'
    ),
    null)
  from billing_private.stripe_lists
  where object_type is not null
  order by position;
  perform billing_private.continue_sweeps();
  return 1;
end;
$$;

comment on function billing_private.task_sweep_objects() is
  'Has all of Stripe''s lists read and compared with what is stored. The first time, what is new '
  'is no drift.';


create function billing_private.task_rebuild()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_batch constant integer := 500;
  v_object_ids text[];
begin
  select array_agg(object_id order by object_id) into v_object_ids
  from (
    select object_id
    from billing_private.stripe_objects
    where object_id > coalesce(
      (select resume_after from billing_private.tasks where key = 'rebuild'), '')
    order by object_id
    limit v_batch
  ) as next;

  -- The end of the list begins it again with the next run.
  update billing_private.tasks
  set resume_after = case
    when cardinality(v_object_ids) = v_batch then v_object_ids[v_batch]
  end
  where key = 'rebuild';

  return (
    select count(*)
    from billing_private.rebuild(coalesce(v_object_ids, '{}'), null)
    where class is not null
  );
end;
$$;

comment on function billing_private.task_rebuild() is
  'Rebuilds the next 500 objects from the inbox, compares them with what is stored, and repairs '
  'what differs as the policies say.';


-- -----------------------------------------------------------------------------
-- 13  task: recount_metered_tables
-- -----------------------------------------------------------------------------

create function billing_private.task_recount_metered_tables()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_batch constant integer := 2000;
  v_feature_keys text[];
  v_account_ids uuid[];
  v_feature_key text;
  v_count bigint := billing_private.release_dropped_tables()
    + billing_private.follow_partitions();
begin
  v_feature_keys := array(
    select key from billing.features where counts_rows and kind = 'limit' order by key
  );
  if v_feature_keys = '{}' then
    return v_count;
  end if;

  v_account_ids := array(
    select id
    from billing.accounts
    where id > coalesce(
      (select resume_after::uuid from billing_private.tasks where key = 'recount_metered_tables'),
      '00000000-0000-0000-0000-000000000000')
    order by id
    limit v_batch
  );
  foreach v_feature_key in array v_feature_keys loop
    begin
      v_count := v_count + billing_private.repair_metering(v_feature_key, v_account_ids);
    exception when undefined_column then
      -- A table's owner column has another name now: one of the critical issues.
      continue;
    end;
  end loop;

  -- The end of the list begins it again with the next run.
  update billing_private.tasks
  set resume_after = case
    when cardinality(v_account_ids) = v_batch then v_account_ids[v_batch]::text
  end
  where key = 'recount_metered_tables';
  return v_count;
end;
$$;

comment on function billing_private.task_recount_metered_tables() is
  'Counts the rows the next 2,000 accounts have in metered tables and repairs totals that say '
  'otherwise: somebody wrote while triggers were off, attached a partition with rows, or dropped '
  'a table.';


-- -----------------------------------------------------------------------------
-- 14  task: migrate_plans
-- -----------------------------------------------------------------------------

create function billing_private.task_migrate_plans()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  return billing_private.run_plan_migrations(1000);
end;
$$;

comment on function billing_private.task_migrate_plans() is
  'Takes the next 1,000 steps of the migrations administrators have asked for.';


-- -----------------------------------------------------------------------------
-- 15  tasks: tend_usage, keep_usage
-- -----------------------------------------------------------------------------

create function billing_private.task_tend_usage()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
begin
  return billing_private.expire_due_reservations(10000)
    + billing_private.close_usage_periods(5000);
end;
$$;

comment on function billing_private.task_tend_usage() is
  'Ends reservations whose time has run out and closes periods that have been over for some days; '
  'nobody''s allowance waits for it.';


create function billing_private.task_keep_usage()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_count bigint;
begin
  -- Both need the table for themselves for a moment: better later than holding up who uses it.
  perform set_config('lock_timeout', '2s', true);
  v_count := billing_private.add_usage_partitions() + billing_private.drop_usage_partitions();
  delete from billing_private.usage_unique_values
  where ctid = any (array(
    select unique_values.ctid
    from billing_private.usage_unique_values as unique_values
    join billing.usage_totals using (account_id, feature_key, period_start)
    where usage_totals.closed_at < billing_private.now() - interval '3 months'
    limit 50000
  ));
  perform set_config('lock_timeout', '0', true);
  return v_count;
end;
$$;

comment on function billing_private.task_keep_usage() is
  'Makes next months'' partitions of usage_records and drops those whose retention is over, with '
  'the unique values of periods closed for three months.';


-- -----------------------------------------------------------------------------
-- 16  the registry
-- -----------------------------------------------------------------------------

insert into billing_private.tasks (key, description, function_name, run_every) values
  ('expire_subscriptions', 'end what has ended; access already has',
    'task_expire_subscriptions', '1 minute'),
  ('apply_scheduled_changes', 'bring scheduled changes into force and roll manual periods',
    'task_apply_scheduled_changes', '1 minute'),
  ('settle_contracts', 'settle terms of contracts that have ended, and begin the next',
    'task_settle_contracts', '1 minute'),
  ('migrate_plans', 'move subscribers to other plans, as administrators have asked',
    'task_migrate_plans', '1 minute'),
  ('retry_events', 'apply failed events again',
    'task_retry_events', '1 minute'),
  ('tell_customers', 'tell Stripe of new e-mail addresses and names of its customers',
    'task_tell_customers', '1 minute'),
  ('give_up_commands', 'give up commands too old to be made',
    'task_give_up_commands', '1 minute'),
  ('ring_dispatcher', 'have commands that are due carried to Stripe',
    'task_ring_dispatcher', '1 minute'),
  ('check_money', 'see whether all amounts add up',
    'task_check_money', '5 minutes'),
  ('run_dunning', 'do what is due about overdue invoices',
    'task_run_dunning', '1 minute'),
  ('sync_seats', 'bring the seats that are paid for in step with members',
    'task_sync_seats', '5 minutes'),
  ('settle_accounts', 'do what follows from deleted users and closed accounts',
    'task_settle_accounts', '1 minute'),
  ('check_health', 'judge the state of the system',
    'task_check_health', '5 minutes'),
  ('validate_entitlements', 'compare entitlements with their sources and correct them',
    'task_validate_entitlements', '10 minutes'),
  ('recount_metered_tables', 'count the rows of metered tables and correct their totals',
    'task_recount_metered_tables', '10 minutes'),
  ('request_rereads', 'ask Stripe about what should have changed by now',
    'task_request_rereads', '5 minutes'),
  ('sweep_events', 'look for events that were never delivered',
    'task_sweep_events', '1 hour'),
  ('sweep_objects', 'compare all that is stored with Stripe',
    'task_sweep_objects', '7 days'),
  ('rebuild', 'compare what is stored with what the inbox tells',
    'task_rebuild', '10 minutes'),
  ('tend_usage', 'end reservations and close periods that are over',
    'task_tend_usage', '1 minute'),
  ('keep_usage', 'make and drop partitions of usage records',
    'task_keep_usage', '1 hour'),
  ('clean_up', 'remove old run logs and abandoned portal requests',
    'task_clean_up', '1 hour');


-- -----------------------------------------------------------------------------
-- 17  the heartbeat in pg_cron
-- -----------------------------------------------------------------------------

create function billing_private.schedule_heartbeat()
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not exists (select from pg_catalog.pg_extension where extname = 'pg_cron') then
    return false;
  end if;
  -- Scheduling under the same name again replaces the job.
  execute $cron$
    select cron.schedule(
      'pg-subscriptions heartbeat', '* * * * *', 'select billing_private.run_due_tasks()')
  $cron$;
  return true;
end;
$$;

comment on function billing_private.schedule_heartbeat() is
  'Has pg_cron call the heartbeat every minute; false where pg_cron is not installed. Run it again'
  ' after enabling pg_cron.';

select billing_private.schedule_heartbeat();


-- -----------------------------------------------------------------------------
-- 18  tasks: sync_seats, settle_accounts
-- -----------------------------------------------------------------------------

create function billing_private.try_lock_account(p_account_id uuid)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  return pg_try_advisory_xact_lock(hashtextextended('billing.account:' || p_account_id, 0));
end;
$$;

comment on function billing_private.try_lock_account(uuid) is
  'Takes an account''s lock if nobody has it: tasks wait for nobody with locks in hand.';


create function billing_private.task_sync_seats()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_account_id uuid;
  v_count bigint := 0;
begin
  for v_account_id in
    select distinct account_id
    from billing_private.seat_states(
      array(select billing_private.counted_subscriptions()))
    where coalesce(asked, running) is distinct from wanted
      and blocked_by is null
    order by account_id
    limit 200
  loop
    if billing_private.try_lock_account(v_account_id) then
      v_count := v_count + billing_private.sync_seats(v_account_id);
    end if;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.task_sync_seats() is
  'Brings quantities in step with members where they differ: an invitation ran out, a change was '
  'refused, somebody changed the quantity at Stripe. Up to 200 organizations.';


create function billing_private.next_accounts(
  p_task_key text,
  p_limit integer
)
returns uuid[]
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  select array_agg(id order by id) into v_account_ids
  from (
    select id
    from billing.accounts
    where id > coalesce(
      (select resume_after::uuid from billing_private.tasks where key = p_task_key),
      '00000000-0000-0000-0000-000000000000')
    order by id
    limit p_limit
  ) as next;

  -- The end of the list begins it again with the next run.
  update billing_private.tasks
  set resume_after = case
    when cardinality(v_account_ids) = p_limit then v_account_ids[p_limit]::text
  end
  where key = p_task_key;
  return coalesce(v_account_ids, '{}');
end;
$$;

comment on function billing_private.next_accounts(text, integer) is
  'The accounts a task that goes through all of them looks at in this run.';


create function billing_private.settle_deleted_users(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_user_id uuid;
  v_count bigint := 0;
begin
  for v_user_id in
    select user_id
    from billing_private.deleted_users
    where settled_at is null
    order by failed_at nulls first, deleted_at
    limit p_limit
  loop
    continue when not billing_private.try_lock_account(v_user_id);
    begin
      perform billing_private.settle_deleted_user(v_user_id);
      v_count := v_count + 1;
    -- One who cannot be settled keeps nobody else waiting.
    exception when others then
      update billing_private.deleted_users
      set failed_at = billing_private.now(),
          problem = sqlerrm
      where user_id = v_user_id;
    end;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.settle_deleted_users(integer) is
  'Does what follows from users that are gone, the first first.';


create function billing_private.task_settle_accounts()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_account_ids uuid[] := billing_private.next_accounts('settle_accounts', 500);
begin
  -- Whose end was not noted: only accounts that once had a user of Supabase Auth can miss one.
  insert into billing_private.deleted_users (user_id)
  select looked_at.id
  from unnest(v_account_ids) as looked_at (id)
  where exists (
      select
      from billing.accounts
      where accounts.id = looked_at.id
        and is_auth_user
        and closed_at is null
      offset 0
    )
    and not exists (select from auth.users where users.id = looked_at.id offset 0)
  on conflict (user_id) do nothing;

  -- What was paid in the last instant before its account was closed ends too.
  return billing_private.settle_deleted_users(100) + coalesce((
    select sum(billing_private.end_subscriptions(looked_at.id))
    from unnest(v_account_ids) as looked_at (id)
    cross join lateral (
      select closed_at from billing.accounts where accounts.id = looked_at.id limit 1
    ) as account
    where closed_at is not null
      and exists (
        select
        from billing.subscriptions
        where subscriptions.account_id = looked_at.id
          and subscriptions.status not in ('canceled', 'incomplete_expired')
          and (billing_private.last_asked(subscriptions.id, '{cancel_subscription}')).id is null
        offset 0
      )
      and billing_private.try_lock_account(looked_at.id)
  ), 0);
end;
$$;

comment on function billing_private.task_settle_accounts() is
  'Does what follows from deleted users, up to 100 at a time, and looks among the next 500 accounts'
  ' for users whose end was not noted and for closed accounts that something still bills.';


-- -----------------------------------------------------------------------------
-- 19  who may call what
-- -----------------------------------------------------------------------------

revoke all on function
  billing_private.try_task_lock,
  billing_private.run_task,
  billing_private.next_run,
  billing_private.run_due_tasks,
  billing_private.task_expire_subscriptions,
  billing_private.task_apply_scheduled_changes,
  billing_private.task_settle_contracts,
  billing_private.task_migrate_plans,
  billing_private.task_validate_entitlements,
  billing_private.task_retry_events,
  billing_private.has_due_commands,
  billing_private.doorbell_problem,
  billing_private.vault_secret,
  billing_private.note_ring_answers,
  billing_private.ring_dispatcher,
  billing_private.task_give_up_commands,
  billing_private.task_tell_customers,
  billing_private.task_ring_dispatcher,
  billing_private.task_check_money,
  billing_private.task_run_dunning,
  billing_private.try_lock_account,
  billing_private.task_sync_seats,
  billing_private.next_accounts,
  billing_private.settle_deleted_users,
  billing_private.task_settle_accounts,
  billing_private.graded,
  billing_private.doorbell_health,
  billing_private.reconciliation_health,
  billing_private.health,
  billing_private.task_check_health,
  billing_private.task_clean_up,
  billing_private.uses_stripe,
  billing_private.task_request_rereads,
  billing_private.task_sweep_events,
  billing_private.task_sweep_objects,
  billing_private.task_rebuild,
  billing_private.schedule_heartbeat,
  billing_private.task_recount_metered_tables,
  billing_private.task_tend_usage,
  billing_private.task_keep_usage
from public, anon, authenticated, service_role;
