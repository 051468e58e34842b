-- =============================================================================
-- 0008  audit and incidents
--
-- Who changed what, when and why; and what looks wrong enough to wake somebody.
--
-- Reads      0001 to 0002 tables, 0006 task registry, 0007 admin helpers
-- Read by    administrators
--
-- Invariants
--   * Every change of a business table writes an audit row in the same transaction.
--   * Audit rows are only ever added, whoever asks.
--   * One fact is one alert, however often it is seen.
--
-- Contents
--   1  billing_private.audit_log
--   2  writing the audit
--   3  the audited tables
--   4  billing_private.incidents
--   5  billing_private.incident_events
--   6  billing_private.detection_rules
--   7  billing_private.alerts
--   8  detection
--   9  what admins see
--   10  what admins do
--   11  who may call what
-- =============================================================================


-- -----------------------------------------------------------------------------
-- 1  billing_private.audit_log
-- -----------------------------------------------------------------------------

create table billing_private.audit_log (
  id bigint generated always as identity,
  occurred_at timestamptz not null,
  table_name text not null,
  operation text not null,
  row_key text not null,
  account_id uuid,
  before jsonb,
  after jsonb,
  actor_id uuid,
  actor_role text not null,
  cause jsonb not null,
  request_id text,

  primary key (id),
  constraint audit_log_operation_is_known check (operation in ('insert', 'update', 'delete'))
);

comment on table billing_private.audit_log is
  'Every change of every business table. Rows are added, never changed or removed.';
comment on column billing_private.audit_log.before is
  'The columns an update changed, or the whole deleted row, as they were.';
comment on column billing_private.audit_log.after is
  'The columns an update changed, or the whole new row, as they became.';
comment on column billing_private.audit_log.actor_id is
  'The signed-in user; null for Stripe''s events, tasks and database sessions.';
comment on column billing_private.audit_log.cause is
  'kind (stripe_event, command, task, admin, user), reference (its id) and reason.';

-- Each change stands in one of the two: what belongs to an account is looked for under the account.
create index audit_log_account_id_idx on billing_private.audit_log (account_id, id desc)
  where account_id is not null;
create index audit_log_row_idx on billing_private.audit_log (table_name, row_key, id desc)
  where account_id is null;

alter table billing_private.audit_log enable row level security;
create policy select_nobody on billing_private.audit_log for select to public using (false);

revoke all on billing_private.audit_log from public, anon, authenticated, service_role;


create function billing_private.refuse_change()
returns trigger
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.fail('APPEND_ONLY', jsonb_build_object(
    'table', tg_table_name, 'operation', lower(tg_op)));
  return null;
end;
$$;

comment on function billing_private.refuse_change() is
  'Makes a table append-only for every role, the owner included (APPEND_ONLY, 403).';

create trigger t000_append_only
  before update or delete or truncate on billing_private.audit_log
  for each statement execute function billing_private.refuse_change();

create trigger t000_append_only
  before update or delete or truncate on billing_private.admin_actions
  for each statement execute function billing_private.refuse_change();


-- -----------------------------------------------------------------------------
-- 2  writing the audit
-- -----------------------------------------------------------------------------

create function billing_private.account_of_row(
  p_table_name text,
  p_row jsonb
)
returns uuid
language plpgsql
stable
set search_path = ''
as $$
begin
  return case p_table_name
    when 'accounts' then (p_row ->> 'id')::uuid
    when 'subscription_items' then (
      select account_id
      from billing.subscriptions
      where id = (p_row ->> 'subscription_id')::uuid
    )
    when 'invoice_lines' then (
      select account_id
      from billing.invoices
      where id = (p_row ->> 'invoice_id')::uuid
    )
    when 'contract_features' then (
      select account_id from billing.contracts where id = (p_row ->> 'contract_id')::uuid
    )
    when 'contract_prices' then (
      select account_id from billing.contracts where id = (p_row ->> 'contract_id')::uuid
    )
    else (p_row ->> 'account_id')::uuid
  end;
end;
$$;

comment on function billing_private.account_of_row(text, jsonb) is
  'The account a row of an audited table belongs to; null where it belongs to none, or to nobody '
  'yet.';


create function billing_private.log_change(
  p_table_name text,
  p_operation text,
  p_row_key text,
  p_account_id uuid,
  p_before jsonb,
  p_after jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing_private.audit_log (
    occurred_at, table_name, operation, row_key, account_id, before, after, actor_id, actor_role,
    cause, request_id
  )
  values (
    billing_private.now(), p_table_name, p_operation, p_row_key, p_account_id, p_before, p_after,
    billing_private.user_id(), billing_private.caller_role(), billing_private.cause(),
    billing_private.request_id()
  );
end;
$$;

comment on function billing_private.log_change(text, text, text, uuid, jsonb, jsonb) is
  'Writes one change into the audit log: what the arguments say, by whom and why the session does.';


create function billing_private.write_audit()
returns trigger
language plpgsql
volatile
security definer -- the log is writable by nobody
set search_path = ''
as $$
declare
  v_table_name constant text := tg_table_schema || '.' || tg_table_name;
  v_operation constant text := lower(tg_op);
  v_before jsonb := to_jsonb(old);
  v_after jsonb := to_jsonb(new);
  v_former_key text := v_before ->> tg_argv[0];
  v_key text := v_after ->> tg_argv[0];
  v_account_id uuid := coalesce(v_after, v_before) ->> 'account_id';
begin
  for v_i in 1 .. tg_nargs - 1 loop
    v_former_key := v_former_key || ':' || (v_before ->> tg_argv[v_i]);
    v_key := v_key || ':' || (v_after ->> tg_argv[v_i]);
  end loop;
  if v_account_id is null then
    v_account_id := billing_private.account_of_row(tg_table_name, coalesce(v_after, v_before));
  end if;

  if v_former_key = v_key then
    -- Compared as text, which takes half the time.
    select jsonb_object_agg(key, v_before -> key), jsonb_object_agg(key, v_after -> key)
    into v_before, v_after
    from jsonb_each_text(v_after)
    where value is distinct from v_before ->> key;
  elsif tg_op = 'UPDATE' then
    perform billing_private.log_change(
      v_table_name, v_operation, v_former_key,
      coalesce(
        (v_before ->> 'account_id')::uuid,
        billing_private.account_of_row(tg_table_name, v_before)),
      v_before, null);
    v_before := null;
  end if;

  perform billing_private.log_change(
    v_table_name, v_operation, coalesce(v_key, v_former_key), v_account_id, v_before, v_after);
  return null;
end;
$$;

comment on function billing_private.write_audit() is
  'Writes what became of a row into the audit log; one whose key changed is one that went and one '
  'that came. Its arguments are the table''s key columns.';


-- Changed by the hundred thousand when a plan is: so by statement, and column by column.
create function billing_private.write_audit_of_entitlements()
returns trigger
language plpgsql
volatile
security definer -- the log is writable by nobody
set search_path = ''
as $$
declare
  v_now constant timestamptz := billing_private.now();
  v_actor_id constant uuid := billing_private.user_id();
  v_actor_role constant text := billing_private.caller_role();
  v_cause constant jsonb := billing_private.cause();
  v_request_id constant text := billing_private.request_id();
begin
  if tg_op = 'UPDATE' then
    insert into billing_private.audit_log (
      occurred_at, table_name, operation, row_key, account_id, before, after, actor_id,
      actor_role, cause, request_id
    )
    select
      v_now, 'billing.entitlements', 'update',
      concat_ws(
        ':', account_id, feature_key, source_kind, source_id, access_level,
        to_jsonb(valid_from) #>> '{}'),
      account_id,
      case when rows_after is null then to_jsonb(rows_before) else changes.before end,
      case when rows_before is null then to_jsonb(rows_after) else changes.after end,
      v_actor_id, v_actor_role, v_cause, v_request_id
    from rows_before
    full join rows_after
      using (account_id, feature_key, source_kind, source_id, access_level, valid_from)
    cross join lateral (
      select jsonb_object_agg(key, before) as before, jsonb_object_agg(key, after) as after
      from (
        values
          ('plan_id', to_jsonb(rows_before.plan_id), to_jsonb(rows_after.plan_id)),
          ('store_key', to_jsonb(rows_before.store_key), to_jsonb(rows_after.store_key)),
          ('limit_value', to_jsonb(rows_before.limit_value), to_jsonb(rows_after.limit_value)),
          ('valid_until', to_jsonb(rows_before.valid_until), to_jsonb(rows_after.valid_until)),
          ('recorded_at', to_jsonb(rows_before.recorded_at), to_jsonb(rows_after.recorded_at))
      ) as columns (key, before, after)
      where columns.before is distinct from columns.after
    ) as changes
    where rows_before is distinct from rows_after;
  else
    insert into billing_private.audit_log (
      occurred_at, table_name, operation, row_key, account_id, before, after, actor_id,
      actor_role, cause, request_id
    )
    select
      v_now, 'billing.entitlements', lower(tg_op),
      concat_ws(
        ':', account_id, feature_key, source_kind, source_id, access_level,
        to_jsonb(valid_from) #>> '{}'),
      account_id,
      case when tg_op = 'DELETE' then to_jsonb(changed_rows) end,
      case when tg_op = 'INSERT' then to_jsonb(changed_rows) end,
      v_actor_id, v_actor_role, v_cause, v_request_id
    from changed_rows;
  end if;
  return null;
end;
$$;

comment on function billing_private.write_audit_of_entitlements() is
  'Writes what a statement did to entitlements into the audit log, as write_audit() would.';


-- -----------------------------------------------------------------------------
-- 3  the audited tables
-- -----------------------------------------------------------------------------

-- By row, unlike all other triggers: a row is what the log tells of, most statements write one, and
-- those that change nothing (an upsert is an insert and an update, of which one does nothing) cost
-- nothing. Entitlements are written by the statement.
-- Left out: error_codes and subscription_transitions, which only a migration changes, and
-- subscription_changes and hook_events, which are histories themselves. So is usage, but for what
-- is granted: records, burns, adjustments and alerts are only added, reservations carry their
-- times, and totals follow from them; to write each of millions of records twice would tell
-- nothing more.
do $$
declare
  v_audited record;
begin
  for v_audited in
    select *
    from (values
      ('billing.accounts', '{id}'::text[]),
      ('billing.profiles', '{account_id}'),
      ('billing.stores', '{id}'),
      ('billing.features', '{key}'),
      ('billing.access_policies', '{key}'),
      ('billing.dunning_policies', '{key}'),
      ('billing.dunning_stages', '{id}'),
      ('billing.plans', '{id}'),
      ('billing.plan_versions', '{plan_id,version}'),
      ('billing.plan_features', '{plan_id,version,feature_key}'),
      ('billing.prices', '{id}'),
      ('billing.customers', '{id}'),
      ('billing.subscriptions', '{id}'),
      ('billing.subscription_items', '{id}'),
      ('billing.coupons', '{id}'),
      ('billing.discounts', '{id}'),
      ('billing_private.discount_codes', '{id}'),
      ('billing.discount_redemptions', '{id}'),
      ('billing.invoices', '{id}'),
      ('billing.invoice_lines', '{id}'),
      ('billing.payments', '{id}'),
      ('billing.refunds', '{id}'),
      ('billing.disputes', '{id}'),
      ('billing.credit_notes', '{id}'),
      ('billing.payment_methods', '{id}'),
      ('billing.subscription_schedules', '{id}'),
      ('billing.setup_intents', '{id}'),
      ('billing.stripe_entitlements', '{id}'),
      ('billing.tax_ids', '{id}'),
      ('billing.checkout_sessions', '{id}'),
      ('billing.entitlement_grants', '{id}'),
      ('billing.usage_grants', '{id}'),
      ('billing.access_restrictions', '{id}'),
      ('billing.dunning_cases', '{id}'),
      ('billing.dunning_events', '{id}'),
      ('billing.external_identities', '{issuer,subject}'),
      ('billing.role_permissions', '{role,permission}'),
      ('billing.memberships', '{account_id,user_id}'),
      ('billing.contracts', '{id}'),
      ('billing.contract_features', '{contract_id,feature_key}'),
      ('billing.contract_prices', '{contract_id,price_id}'),
      ('billing.contract_settlements', '{contract_id,term_starts_at}'),
      ('billing.invitations', '{id}'),
      ('billing_private.admin_actions', '{id}'),
      ('billing_private.administrators', '{user_id}'),
      ('billing_private.store_admins', '{user_id,store_id}'),
      ('billing_private.store_revenue_shares', '{id}'),
      ('billing_private.settings', '{only_row}')
    ) as audited (table_name, key_columns)
  loop
    execute format(
      'create trigger t900_audit_of_inserts after insert on %1$s
        for each row execute function billing_private.write_audit(%2$s)',
      v_audited.table_name, array_to_string(v_audited.key_columns, ','));
    execute format(
      'create trigger t900_audit_of_updates after update on %1$s
        for each row when (old.* is distinct from new.*)
        execute function billing_private.write_audit(%2$s)',
      v_audited.table_name, array_to_string(v_audited.key_columns, ','));
    execute format(
      'create trigger t900_audit_of_deletes after delete on %1$s
        for each row execute function billing_private.write_audit(%2$s)',
      v_audited.table_name, array_to_string(v_audited.key_columns, ','));
  end loop;
end;
$$;

create trigger t900_audit_of_inserts
  after insert on billing.entitlements
  referencing new table as changed_rows
  for each statement execute function billing_private.write_audit_of_entitlements();

create trigger t900_audit_of_updates
  after update on billing.entitlements
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.write_audit_of_entitlements();

create trigger t900_audit_of_deletes
  after delete on billing.entitlements
  referencing old table as changed_rows
  for each statement execute function billing_private.write_audit_of_entitlements();


-- -----------------------------------------------------------------------------
-- 4  billing_private.incidents
-- -----------------------------------------------------------------------------

create table billing_private.incidents (
  id uuid not null default gen_random_uuid(),
  rule_key text not null,
  severity text not null,
  title text not null,
  status text not null default 'open',
  assigned_to uuid,
  opened_at timestamptz not null default billing_private.now(),
  resolved_at timestamptz,
  resolution text,

  primary key (id),
  constraint incidents_severity_is_known check (severity in ('low', 'medium', 'high', 'critical')),
  constraint incidents_status_is_known check (status in ('open', 'investigating', 'resolved')),
  constraint incidents_resolved_say_how check ((status = 'resolved') = (resolution is not null))
);

comment on table billing_private.incidents is
  'What somebody has to look into: opened by alerts of a rule, one at a time per rule, closed by a'
  ' person.';

create unique index incidents_one_open_idx on billing_private.incidents (rule_key)
  where status <> 'resolved';

alter table billing_private.incidents enable row level security;
create policy select_nobody on billing_private.incidents for select to public using (false);

revoke all on billing_private.incidents from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 5  billing_private.incident_events
-- -----------------------------------------------------------------------------

create table billing_private.incident_events (
  id bigint generated always as identity,
  incident_id uuid not null references billing_private.incidents (id) on delete restrict,
  occurred_at timestamptz not null default billing_private.now(),
  kind text not null,
  note text not null,
  actor_id uuid,

  primary key (id),
  constraint incident_events_kind_is_known check (
    kind in ('opened', 'alert', 'alert_resolved', 'assigned', 'note', 'resolved')
  )
);

comment on table billing_private.incident_events is
  'The timeline of each incident. Rows are added, never changed or removed.';

create index incident_events_incident_id_idx on billing_private.incident_events (incident_id, id);

alter table billing_private.incident_events enable row level security;
create policy select_nobody on billing_private.incident_events for select to public using (false);

revoke all on billing_private.incident_events from public, anon, authenticated, service_role;

create trigger t000_append_only
  before update or delete or truncate on billing_private.incident_events
  for each statement execute function billing_private.refuse_change();


-- -----------------------------------------------------------------------------
-- 6  billing_private.detection_rules
-- -----------------------------------------------------------------------------

create table billing_private.detection_rules (
  key text not null,
  title text not null,
  severity text not null,
  function_name text not null,
  look_back interval not null,
  threshold integer not null,
  cool_down interval not null,
  opens_incident boolean not null default true,
  is_enabled boolean not null default true,

  primary key (key),
  constraint detection_rules_severity_is_known check (
    severity in ('low', 'medium', 'high', 'critical')
  ),
  constraint detection_rules_threshold_is_positive check (threshold > 0)
);

comment on table billing_private.detection_rules is
  'What counts as suspicious or broken: a query over the last interval, and what to make of its '
  'findings.';
comment on column billing_private.detection_rules.function_name is
  'A function of billing_private taking (since timestamptz, threshold integer) and returning '
  'billing_private.finding rows.';
comment on column billing_private.detection_rules.cool_down is
  'How long after an alert was resolved the same fact raises no new one.';

insert into billing_private.detection_rules
  (key, title, severity, function_name, look_back, threshold, cool_down)
values
  ('signature_burst', 'many webhook requests with a bad signature', 'high',
    'detect_signature_burst', '10 minutes', 20, '30 minutes'),
  ('dead_letter', 'an event or command was given up', 'high',
    'detect_dead_letters', '1 day', 1, '1 day');

alter table billing_private.detection_rules enable row level security;
create policy select_nobody on billing_private.detection_rules for select to public using (false);

revoke all on billing_private.detection_rules from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 7  billing_private.alerts
-- -----------------------------------------------------------------------------

create table billing_private.alerts (
  id uuid not null default gen_random_uuid(),
  rule_key text not null references billing_private.detection_rules (key) on delete restrict,
  incident_id uuid references billing_private.incidents (id) on delete restrict,
  fingerprint text not null,
  severity text not null,
  title text not null,
  details jsonb not null default '{}',
  status text not null default 'open',
  first_seen_at timestamptz not null,
  last_seen_at timestamptz not null,
  sightings integer not null default 1,
  resolved_at timestamptz,
  resolved_reason text,

  primary key (id),
  constraint alerts_status_is_known check (status in ('open', 'resolved'))
);

comment on table billing_private.alerts is
  'Findings of the detection rules, one per fact.';
comment on column billing_private.alerts.fingerprint is
  'Names the fact within its rule: seen again, it is the same alert.';

create unique index alerts_one_open_idx on billing_private.alerts (rule_key, fingerprint)
  where status = 'open';
create index alerts_rule_key_idx on billing_private.alerts (rule_key, fingerprint, resolved_at);
create index alerts_incident_id_idx on billing_private.alerts (incident_id);

alter table billing_private.alerts enable row level security;
create policy select_nobody on billing_private.alerts for select to public using (false);

revoke all on billing_private.alerts from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 8  detection
-- -----------------------------------------------------------------------------

create type billing_private.finding as (
  fingerprint text,
  title text,
  details jsonb
);

create function billing_private.detect_signature_burst(
  p_since timestamptz,
  p_threshold integer
)
returns setof billing_private.finding
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    'signatures',
    format('%s webhook requests were refused for their signature', sum(count)),
    jsonb_object_agg(reason, count)
  from (
    select reason, sum(webhook_rejections.count) as count
    from billing_private.webhook_rejections
    where minute >= p_since
      and reason like 'SIGNATURE%'
    group by reason
  ) as rejections
  having sum(count) >= p_threshold;
end;
$$;

comment on function billing_private.detect_signature_burst(timestamptz, integer) is
  'Somebody guesses at the webhook, or its secret was changed on one side only.';


create function billing_private.detect_dead_letters(
  p_since timestamptz,
  p_threshold integer
)
returns setof billing_private.finding
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  with dead as (
    select
      event_id as fingerprint,
      format('event %s was given up', type) as title,
      jsonb_build_object(
        'event_id', event_id, 'type', type, 'error', last_error -> 'message') as details
    from billing_private.stripe_events
    where status = 'dead'
      and finished_at >= p_since
    union all
    select
      id::text,
      format('command %s was given up', kind),
      jsonb_build_object('command_id', id, 'kind', kind, 'account_id', account_id)
    from billing_private.commands
    where status = 'dead'
      and finished_at >= p_since
  )
  select dead.fingerprint, dead.title, dead.details
  from dead
  where (select count(*) from dead) >= p_threshold;
end;
$$;

comment on function billing_private.detect_dead_letters(timestamptz, integer) is
  'Something Stripe told us, or we wanted to tell Stripe, is stuck until a person looks at it.';


create function billing_private.raise_alert(
  p_rule billing_private.detection_rules,
  p_finding billing_private.finding
)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_incident_id uuid;
begin
  update billing_private.alerts
  set last_seen_at = v_now,
      sightings = sightings + 1,
      title = p_finding.title,
      details = p_finding.details
  where rule_key = p_rule.key
    and fingerprint = p_finding.fingerprint
    and status = 'open';
  if found or exists (
    select
    from billing_private.alerts
    where rule_key = p_rule.key
      and fingerprint = p_finding.fingerprint
      and resolved_at > v_now - p_rule.cool_down
  ) then
    return false;
  end if;

  if p_rule.opens_incident then
    v_incident_id := billing_private.open_incident(p_rule);
    insert into billing_private.incident_events (incident_id, kind, note)
    values (v_incident_id, 'alert', p_finding.title);
  end if;
  insert into billing_private.alerts (
    rule_key, incident_id, fingerprint, severity, title, details, first_seen_at, last_seen_at
  )
  values (
    p_rule.key, v_incident_id, p_finding.fingerprint, p_rule.severity, p_finding.title,
    p_finding.details, v_now, v_now
  );
  return true;
end;
$$;

comment on function billing_private.raise_alert(
  billing_private.detection_rules, billing_private.finding
) is
  'Makes a finding an alert, unless it is one already or was resolved lately. True when it is new.';


create function billing_private.open_incident(p_rule billing_private.detection_rules)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id uuid := (
    select id from billing_private.incidents where rule_key = p_rule.key and status <> 'resolved'
  );
begin
  if v_id is null then
    insert into billing_private.incidents (rule_key, severity, title)
    values (p_rule.key, p_rule.severity, p_rule.title)
    returning id into v_id;
    insert into billing_private.incident_events (incident_id, kind, note)
    values (v_id, 'opened', format('opened by rule %s', p_rule.key));
  end if;
  return v_id;
end;
$$;

comment on function billing_private.open_incident(billing_private.detection_rules) is
  'The open incident of a rule, opened now if there is none.';


create function billing_private.task_scan_security()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_rule billing_private.detection_rules;
  v_findings billing_private.finding[];
  v_finding billing_private.finding;
  v_count bigint := 0;
begin
  for v_rule in
    select * from billing_private.detection_rules where is_enabled order by key
  loop
    execute format(
      'select array_agg(finding) from billing_private.%I($1, $2) as finding', v_rule.function_name
    )
    into v_findings
    using billing_private.now() - v_rule.look_back, v_rule.threshold;

    foreach v_finding in array coalesce(v_findings, '{}') loop
      if billing_private.raise_alert(v_rule, v_finding) then
        v_count := v_count + 1;
      end if;
    end loop;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.task_scan_security() is
  'Runs every detection rule. Returns how many new alerts there are.';

insert into billing_private.tasks (key, description, function_name, run_every) values
  ('scan_security', 'run the detection rules and raise alerts', 'task_scan_security', '1 minute');


-- -----------------------------------------------------------------------------
-- 9  what admins see
-- -----------------------------------------------------------------------------

create function billing_private.admin_audit_log()
returns setof billing_private.audit_log
language plpgsql
stable
security definer -- reads the log after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query select * from billing_private.audit_log order by id desc limit 10000;
end;
$$;

create view billing_admin.audit_log with (security_invoker = true) as
select * from billing_private.admin_audit_log();

comment on view billing_admin.audit_log is
  'The last 10,000 changes of business tables, newest first: who, what, when, why, by which event,'
  ' command, task or admin. One account''s whole history: billing_admin.audit_of_account().';


create function billing_private.admin_audit_of_account(p_account_id uuid)
returns setof billing_private.audit_log
language plpgsql
stable
security definer -- reads the log after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select * from billing_private.audit_log where account_id = p_account_id order by id desc;
end;
$$;


create function billing_admin.audit_of_account(account_id uuid)
returns setof billing_admin.audit_log
language sql
stable
set search_path = ''
begin atomic
  select
    id, occurred_at, table_name, operation, row_key, audited.account_id, before, after, actor_id,
    actor_role, cause, request_id
  from billing_private.admin_audit_of_account(audit_of_account.account_id) as audited;
end;

comment on function billing_admin.audit_of_account(uuid) is
$$Every recorded change of one account's rows, newest first. Times in UTC.

Errors
  NOT_AN_ADMIN  403  the caller is no administrator$$;


create function billing_private.admin_alerts()
returns setof billing_private.alerts
language plpgsql
stable
security definer -- reads the alerts after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select * from billing_private.alerts order by status, last_seen_at desc;
end;
$$;

create view billing_admin.alerts with (security_invoker = true) as
select * from billing_private.admin_alerts();

comment on view billing_admin.alerts is
  'Findings of the detection rules, open ones first.';


create function billing_private.admin_incidents()
returns setof billing_private.incidents
language plpgsql
stable
security definer -- reads the incidents after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query
  select * from billing_private.incidents order by resolved_at desc nulls first, opened_at desc;
end;
$$;

create view billing_admin.incidents with (security_invoker = true) as
select * from billing_private.admin_incidents();

comment on view billing_admin.incidents is
  'What somebody has to look into, unresolved first.';


create function billing_private.admin_incident_timeline()
returns setof billing_private.incident_events
language plpgsql
stable
security definer -- reads the incidents after checking the caller
set search_path = ''
as $$
begin
  perform billing_private.require_admin();
  return query select * from billing_private.incident_events order by id desc;
end;
$$;

create view billing_admin.incident_timeline with (security_invoker = true) as
select * from billing_private.admin_incident_timeline();

comment on view billing_admin.incident_timeline is
  'Every step of every incident, newest first.';


-- -----------------------------------------------------------------------------
-- 10  what admins do
-- -----------------------------------------------------------------------------

create function billing_private.resolve_alert(
  p_alert_id uuid,
  p_reason text
)
returns void
language plpgsql
volatile
security definer -- alerts are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(p_reason, 'resolve_alert', p_alert_id::text);
  if not exists (select from billing_private.alerts where id = p_alert_id) then
    perform billing_private.fail('ALERT_NOT_FOUND', jsonb_build_object('alert_id', p_alert_id));
  end if;

  with resolved as (
    update billing_private.alerts
    set status = 'resolved',
        resolved_at = billing_private.now(),
        resolved_reason = p_reason
    where id = p_alert_id
      and status = 'open'
    returning incident_id, title
  )
  insert into billing_private.incident_events (incident_id, kind, note, actor_id)
  select incident_id, 'alert_resolved', title || ': ' || p_reason, billing_private.user_id()
  from resolved
  where incident_id is not null;
end;
$$;


create function billing_admin.resolve_alert(
  alert_id uuid,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.resolve_alert(alert_id, reason);
end;

comment on function billing_admin.resolve_alert(uuid, text) is
$$Closes an alert; the same fact raises no new one during the rule's cool-down. Twice changes
nothing more.

Errors
  VALIDATION_FAILED  400  no reason
  NOT_AN_ADMIN       403  the caller is no administrator
  ALERT_NOT_FOUND    404  there is no such alert$$;


create function billing_private.work_on_incident(
  p_incident_id uuid,
  p_kind text,
  p_note text,
  p_assigned_to uuid default null
)
returns void
language plpgsql
volatile
security definer -- incidents are writable by nobody
set search_path = ''
as $$
begin
  perform billing_private.begin_admin_action(
    p_note,
    case p_kind
      when 'assigned' then 'assign_incident'
      when 'note' then 'note_incident'
      when 'resolved' then 'resolve_incident'
    end,
    p_incident_id::text);
  if p_kind = 'assigned' and p_assigned_to is null then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'assigned_to', 'problem', 'is required'));
  end if;

  update billing_private.incidents
  set status = case p_kind
        when 'resolved' then 'resolved'
        when 'assigned' then 'investigating'
        else status
      end,
      assigned_to = coalesce(p_assigned_to, assigned_to),
      resolved_at = case when p_kind = 'resolved' then billing_private.now() end,
      resolution = case when p_kind = 'resolved' then p_note end
  where id = p_incident_id
    and status <> 'resolved';
  if not found then
    perform billing_private.fail('INCIDENT_NOT_FOUND', jsonb_build_object(
      'incident_id', p_incident_id));
  end if;
  insert into billing_private.incident_events (incident_id, kind, note, actor_id)
  values (p_incident_id, p_kind, p_note, billing_private.user_id());

  -- An alert left open would swallow the next occurrence, and nobody would be woken.
  update billing_private.alerts
  set status = 'resolved',
      resolved_at = billing_private.now(),
      resolved_reason = p_note
  where incident_id = p_incident_id
    and status = 'open'
    and p_kind = 'resolved';
end;
$$;

comment on function billing_private.work_on_incident(uuid, text, text, uuid) is
  'One step of an open incident (assigned, note, resolved), with its place in the timeline.';


create function billing_admin.assign_incident(
  incident_id uuid,
  assigned_to uuid,
  reason text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.work_on_incident(incident_id, 'assigned', reason, assigned_to);
end;

comment on function billing_admin.assign_incident(uuid, uuid, text) is
$$Gives an open incident to a user, who investigates it.

Errors
  VALIDATION_FAILED   400  no user, or no reason
  NOT_AN_ADMIN        403  the caller is no administrator
  INCIDENT_NOT_FOUND  404  there is no such open incident$$;


create function billing_admin.note_incident(
  incident_id uuid,
  note text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.work_on_incident(incident_id, 'note', note);
end;

comment on function billing_admin.note_incident(uuid, text) is
$$Adds a note to the timeline of an open incident.

Errors
  VALIDATION_FAILED   400  no note
  NOT_AN_ADMIN        403  the caller is no administrator
  INCIDENT_NOT_FOUND  404  there is no such open incident$$;


create function billing_admin.resolve_incident(
  incident_id uuid,
  resolution text
)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.work_on_incident(incident_id, 'resolved', resolution);
end;

comment on function billing_admin.resolve_incident(uuid, text) is
$$Closes an incident and its open alerts, saying how it was resolved. The same fact opens a new one
after the rule's cool-down, another fact at once.

Errors
  VALIDATION_FAILED   400  no resolution
  NOT_AN_ADMIN        403  the caller is no administrator
  INCIDENT_NOT_FOUND  404  there is no such open incident$$;


-- -----------------------------------------------------------------------------
-- 11  who may call what
-- -----------------------------------------------------------------------------

revoke all on function
  billing_private.refuse_change,
  billing_private.account_of_row,
  billing_private.log_change,
  billing_private.write_audit,
  billing_private.write_audit_of_entitlements,
  billing_private.detect_signature_burst,
  billing_private.detect_dead_letters,
  billing_private.raise_alert,
  billing_private.open_incident,
  billing_private.task_scan_security,
  billing_private.admin_audit_log,
  billing_private.admin_audit_of_account,
  billing_admin.audit_of_account,
  billing_private.admin_alerts,
  billing_private.admin_incidents,
  billing_private.admin_incident_timeline,
  billing_private.resolve_alert,
  billing_admin.resolve_alert,
  billing_private.work_on_incident,
  billing_admin.assign_incident,
  billing_admin.note_incident,
  billing_admin.resolve_incident
from public, anon, authenticated, service_role;

revoke all on
  billing_admin.audit_log,
  billing_admin.alerts,
  billing_admin.incidents,
  billing_admin.incident_timeline
from public, anon, authenticated, service_role;

-- Anyone signed in may ask; the functions behind decide who is an administrator.
grant select on
  billing_admin.audit_log,
  billing_admin.alerts,
  billing_admin.incidents,
  billing_admin.incident_timeline
to authenticated, service_role;

grant execute on function
  billing_private.admin_audit_log,
  billing_private.admin_audit_of_account,
  billing_private.admin_alerts,
  billing_private.admin_incidents,
  billing_private.admin_incident_timeline,
  billing_private.resolve_alert,
  billing_private.work_on_incident,
  billing_admin.audit_of_account,
  billing_admin.resolve_alert,
  billing_admin.assign_incident,
  billing_admin.note_incident,
  billing_admin.resolve_incident
to authenticated, service_role;
