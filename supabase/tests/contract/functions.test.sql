-- Rules that every function keeps: who may call it, what it resolves, what it raises.
-- Without helpers.psql, which puts a clock into billing_private.now() and billing.clock: this is the shipped schema.
begin;
select plan(27);

create temporary view functions as
select
  pg_proc.*,
  pg_proc.oid::regprocedure::text as name,
  nspname as schema,
  case prokind when 'f' then pg_get_functiondef(pg_proc.oid) end as definition
from pg_proc
join pg_namespace on pg_namespace.oid = pronamespace
where nspname in ('billing', 'billing_admin', 'billing_private');

-- ---- the clock --------------------------------------------------------------

select is(
  (select regexp_replace(prosrc, '\s+', ' ', 'g') from functions where proname = 'now'),
  ' begin return now(); end; ',
  'the clock, as shipped, is plain now()'
);

select is(
  billing_private.now(), now(),
  'the clock, as shipped, says what the transaction''s clock says'
);

select is(
  regexp_replace(pg_get_viewdef('billing.clock'::regclass), '\s+', ' ', 'g'), ' SELECT now() AS at;',
  'and so does the view that stands for it, as shipped'
);

select is_empty(
  $$
    select name, match[1]
    from functions
    cross join lateral regexp_matches(
      definition,
      '(?<!billing_private\.)\m(now\(\)|current_timestamp|statement_timestamp|transaction_timestamp'
        '|clock_timestamp|localtimestamp|current_date|timeofday)',
      'gi') as match
    where name <> 'billing_private.now()'
      -- How long a run takes is measured on the wall; pg_cron writes its log by its own clock.
      and (proname, match[1]) not in (
        ('run_task', 'clock_timestamp'),
        ('run_due_tasks', 'clock_timestamp'),
        ('task_clean_up', 'now()')
      )
  $$,
  'no function asks another clock than billing_private.now()'
);

-- ---- what a name resolves to ------------------------------------------------

select is_empty(
  $$
    select name
    from functions
    where not coalesce(proconfig @> array['search_path=""'], false)
  $$,
  'every function pins its search_path to nothing'
);

select is_empty(
  $$ select name from functions where prokind <> 'f' $$,
  'there are only plain functions: no procedure, aggregate or window function'
);

-- ---- who may call what ------------------------------------------------------

select set_eq(
  $$ select name from functions where has_function_privilege('anon', oid, 'execute') $$,
  array[
    'billing_private.price_amount(text,numeric)',
    'billing.access_level(text,uuid)',
    'billing.entitlement_limit(text,uuid,text)',
    'billing.has_entitlement(text,uuid,text)',
    'billing.list_plans(text,text)',
    'billing.membership_tier(uuid,text)',
    'billing.my_access(uuid)',
    'billing.price_amount(text,numeric)',
    'billing.my_entitlements(uuid)',
    'billing_private.has_own_entitlement(text)',
    'billing_private.membership_tier(uuid,text)',
    'billing_private.my_access(uuid)',
    'billing_private.now()',
    'billing_private.user_id()'
  ],
  'exactly these functions are callable by visitors'
);

select set_eq(
  $$
    select name
    from functions
    where schema <> 'billing_private'
      and has_function_privilege('authenticated', oid, 'execute')
  $$,
  array[
    'billing_admin.store_statement(text,timestamp with time zone)',
    'billing_admin.migrate_plan(text,text,text,integer,uuid[],text,text)',
    'billing_admin.preview_plan_migration(text,text,integer,uuid[],text)',
    'billing_admin.stop_plan_migration(uuid,text)',
    'billing.release(uuid,uuid)',
    'billing.reserve(text,numeric,uuid,interval,text)',
    'billing.settle(uuid,numeric,uuid)',
    'billing.usage_summary(uuid)',
    'billing_admin.correct_usage(uuid,text,numeric,text)',
    'billing_admin.next_hook_events(bigint,integer)',
    'billing_admin.grant_usage(uuid,text,numeric,text,timestamp with time zone,integer,text)',
    'billing_admin.revoke_usage_grant(uuid,text)',
    'billing_admin.add_store_admin(text,uuid,text)',
    'billing_admin.archive_plan(text,text)',
    'billing_admin.archive_price(text,text)',
    'billing_admin.create_feature(text,text,text,text,text)',
    'billing_admin.create_plan(text,text,text,text,text,text,text,integer,jsonb,boolean)',
    'billing_admin.create_price(text,text,text,text,bigint,text,integer,integer,numeric,'
      'text,jsonb,bigint,text,text,text,boolean)',
    'billing_admin.create_store(text,text,text)',
    'billing_admin.remove_store_admin(text,uuid,text)',
    'billing_admin.set_revenue_share(text,integer,text,timestamp with time zone)',
    'billing_admin.update_plan(text,text,text,text,text,integer,boolean,boolean,interval,'
      'interval)',
    'billing_admin.update_price(text,text,integer,boolean)',
    'billing_admin.update_store(text,text,text,boolean)',
    'billing.access_level(text,uuid)',
    'billing.cancel_subscription(boolean,text,uuid)',
    'billing.consume(text,numeric,uuid,text,jsonb)',
    'billing.accept_invitation(text)',
    'billing.change_role(uuid,uuid,text)',
    'billing.close_account(uuid)',
    'billing.create_organization(text)',
    'billing.invite_member(uuid,text,text,interval)',
    'billing.leave_organization(uuid)',
    'billing.remove_member(uuid,uuid)',
    'billing.rename_organization(uuid,text)',
    'billing.revoke_invitation(uuid,uuid)',
    'billing.transfer_ownership(uuid,uuid)',
    'billing.check_eligibility(text,uuid)',
    'billing.change_plan(text,boolean,uuid,bigint,timestamp with time zone)',
    'billing.explain_entitlement(text,uuid,timestamp with time zone)',
    'billing.check_code(text,text,bigint,uuid)',
    'billing.find_discount(text,uuid)',
    'billing.entitlement_limit(text,uuid,text)',
    'billing.has_entitlement(text,uuid,text)',
    'billing.membership_tier(uuid,text)',
    'billing.my_access(uuid)',
    'billing.has_entitlement_at(text,timestamp with time zone,uuid)',
    'billing.list_plans(text,text)',
    'billing.price_amount(text,numeric)',
    'billing.my_entitlements(uuid)',
    'billing.my_subscription(uuid)',
    'billing.pause_subscription(text,timestamp with time zone,boolean,uuid)',
    'billing.prepare_checkout(text,text,text,bigint,uuid,text)',
    'billing.prepare_payment_method(text,text,uuid)',
    'billing.prepare_portal(text,uuid,text)',
    'billing.preview_change(text,boolean,uuid,bigint)',
    'billing.resume_subscription(uuid)',
    'billing.undo_cancel(uuid)',
    'billing_admin.add_administrator(uuid,text)',
    'billing_admin.appoint_owner(uuid,uuid,text)',
    'billing_admin.close_account(uuid,text)',
    'billing_admin.link_identity(text,text,uuid,text)',
    'billing_admin.reopen_account(uuid,text)',
    'billing_admin.require_mfa_for_admins(boolean,text)',
    'billing_admin.unlink_identity(text,text,text)',
    'billing_admin.assign_incident(uuid,uuid,text)',
    'billing_admin.audit_of_account(uuid)',
    'billing_admin.bind_customer(text,uuid,text)',
    'billing_admin.change_price(text,bigint,text)',
    'billing_admin.create_coupon(text,text,numeric,bigint,text,bigint)',
    'billing_admin.publish_plan_version(text,jsonb,text)',
    'billing_admin.publish_catalog(text)',
    'billing_admin.publish_plan(text,text)',
    'billing_admin.refund_payment(uuid,text,text,bigint,text)',
    'billing_admin.configure_doorbell(text,text,text)',
    'billing_admin.correct_all_entitlements(text,uuid,integer)',
    'billing_admin.correct_entitlements(text,uuid)',
    'billing_admin.discard_event(text,text)',
    'billing_admin.discard_events(text,text,text,'
      'timestamp with time zone,timestamp with time zone,text,integer,boolean)',
    'billing_admin.grant_entitlement(uuid,text,text,timestamp with time zone,bigint,text,'
      'timestamp with time zone)',
    'billing_admin.activate_contract(uuid,text)',
    'billing_admin.amend_contract(uuid,text,text,text,bigint,timestamp with time zone,jsonb,jsonb,'
      'bigint,bigint,integer)',
    'billing_admin.apply_discount_code(uuid,text,text)',
    'billing_admin.create_contract(uuid,timestamp with time zone,text,text,text,bigint,'
      'timestamp with time zone,jsonb,jsonb,bigint,bigint,integer,integer,integer)',
    'billing_admin.create_discount_code(text,text,numeric,bigint,text,integer,bigint,bigint,boolean,'
      'bigint,text[],text[],text[],timestamp with time zone)',
    'billing_admin.deactivate_discount_code(text,text)',
    'billing_admin.end_contract(uuid,text,timestamp with time zone,boolean)',
    'billing_admin.grant_subscription(uuid,text,text,timestamp with time zone,bigint,text,'
      'timestamp with time zone,integer,text)',
    'billing_admin.note_incident(uuid,text)',
    'billing_admin.record_payment(uuid,bigint,text,text,text,timestamp with time zone)',
    'billing_admin.recount_metered_table(regclass,text)',
    'billing_admin.rebuild_all(text,text,integer,boolean)',
    'billing_admin.rebuild_subscription(uuid,text,boolean)',
    'billing_admin.remove_administrator(uuid,text)',
    'billing_admin.replay_event(text,text)',
    'billing_admin.replay_events(text,text,text,'
      'timestamp with time zone,timestamp with time zone,text,integer,boolean)',
    'billing_admin.resolve_alert(uuid,text)',
    'billing_admin.resolve_incident(uuid,text)',
    'billing_admin.retry_command(uuid,text)',
    'billing_admin.revoke_entitlement(uuid,text)',
    'billing_admin.run_task(text,text)',
    'billing_admin.set_drift_policy(text,boolean,text)',
    'billing_admin.start_backfill(text)',
    'billing_admin.set_repeated_trial(text,text)',
    'billing_admin.set_stripe_livemode(boolean,text)',
    'billing_admin.void_invoice(uuid,text)',
    'billing_admin.write_off_invoice(uuid,text)'
  ],
  'exactly these RPCs are callable by signed-in users'
);

-- They cannot be named for want of usage on the schema; the wrappers lead to them.
select set_eq(
  $$
    select name
    from functions
    where schema = 'billing_private'
      and has_function_privilege('authenticated', oid, 'execute')
  $$,
  array[
    'billing_private.admin_store_revenue(timestamp with time zone,'
      'timestamp with time zone,text)',
    'billing_private.store_statement(text,timestamp with time zone)',
    'billing_private.admin_plan_migrations()',
    'billing_private.migrate_plan(text,text,integer,uuid[],text,text,text)',
    'billing_private.preview_plan_migration(text,text,integer,uuid[],text)',
    'billing_private.stop_plan_migration(uuid,text)',
    'billing_private.correct_usage(uuid,text,numeric,text)',
    'billing_private.next_hook_events(bigint,integer)',
    'billing_private.grant_usage(uuid,text,numeric,text,timestamp with time zone,integer,text)',
    'billing_private.release(uuid,uuid)',
    'billing_private.reserve(text,numeric,uuid,interval,text)',
    'billing_private.revoke_usage_grant(uuid,text)',
    'billing_private.settle(uuid,numeric,uuid)',
    'billing_private.usage_summary(uuid)',
    'billing_private.add_store_admin(text,uuid,text)',
    'billing_private.admin_stores()',
    'billing_private.archive_price(text,text)',
    'billing_private.create_feature(text,text,text,text,text)',
    'billing_private.create_plan(text,text,text,text,text,text,integer,jsonb,boolean,'
      'text)',
    'billing_private.create_price(text,billing.prices,text)',
    'billing_private.create_store(text,text,text)',
    'billing_private.remove_store_admin(text,uuid,text)',
    'billing_private.set_revenue_share(text,integer,timestamp with time zone,text)',
    'billing_private.update_plan(text,jsonb,text)',
    'billing_private.update_price(text,integer,boolean,text)',
    'billing_private.update_store(text,text,boolean,text)',
    'billing_private.price_amount(text,numeric)',
    'billing_private.add_administrator(uuid,text)',
    'billing_private.admin_seat_drift()',
    'billing_private.admin_close_account(uuid,text)',
    'billing_private.close_my_account(uuid)',
    'billing_private.appoint_owner(uuid,uuid,text)',
    'billing_private.link_identity(text,text,uuid,text)',
    'billing_private.reopen_account(uuid,text)',
    'billing_private.require_mfa_for_admins(boolean,text)',
    'billing_private.unlink_identity(text,text,text)',
    'billing_private.admin_alerts()',
    'billing_private.admin_audit_log()',
    'billing_private.admin_audit_of_account(uuid)',
    'billing_private.admin_command_backlog()',
    'billing_private.admin_close_invoice(uuid,text,text,text)',
    'billing_private.admin_correct_entitlements(text,uuid)',
    'billing_private.correct_all_entitlements(text,uuid,integer)',
    'billing_private.admin_critical_issues()',
    'billing_private.admin_drifts()',
    'billing_private.admin_entitlement_drift()',
    'billing_private.admin_metered_tables()',
    'billing_private.admin_money_invariants()',
    'billing_private.admin_recount_metered_table(regclass,text)',
    'billing_private.admin_overdue_invoices()',
    'billing_private.admin_event_backlog()',
    'billing_private.admin_incident_timeline()',
    'billing_private.admin_incidents()',
    'billing_private.admin_problem_accounts()',
    'billing_private.admin_record_payment(uuid,bigint,text,text,text,timestamp with time zone)',
    'billing_private.admin_run_task(text,text)',
    'billing_private.admin_subscription_overview()',
    'billing_private.admin_sweeps()',
    'billing_private.admin_system_health()',
    'billing_private.admin_task_runs()',
    'billing_private.admin_tasks()',
    'billing_private.cancel_subscription(boolean,text,uuid)',
    'billing_private.accept_invitation(text)',
    'billing_private.change_role(uuid,uuid,text)',
    'billing_private.create_organization(text)',
    'billing_private.invite_member(uuid,text,text,interval)',
    'billing_private.leave_organization(uuid)',
    'billing_private.remove_member(uuid,uuid)',
    'billing_private.rename_organization(uuid,text)',
    'billing_private.revoke_invitation(uuid,uuid)',
    'billing_private.transfer_ownership(uuid,uuid)',
    'billing_private.admin_change_price(text,bigint,text)',
    'billing_private.admin_create_coupon(text,numeric,bigint,text,bigint,text)',
    'billing_private.publish_plan_version(text,jsonb,text)',
    'billing_private.admin_publish_catalog(text)',
    'billing_private.admin_publish_plan(text,text)',
    'billing_private.admin_refund_payment(uuid,text,text,bigint,text)',
    'billing_private.configure_doorbell(text,text,text)',
    'billing_private.check_eligibility(text,uuid)',
    'billing_private.consume(text,numeric,uuid,text,jsonb)',
    'billing_private.change_plan(text,boolean,uuid,bigint,timestamp with time zone)',
    'billing_private.discard_event(text,text)',
    'billing_private.discard_events(text,text,text,'
      'timestamp with time zone,timestamp with time zone,text,integer,boolean)',
    'billing_private.explain_entitlement(text,uuid,timestamp with time zone)',
    'billing_private.find_discount(text,uuid)',
    'billing_private.grant_entitlement(uuid,text,text,timestamp with time zone,bigint,text,'
      'timestamp with time zone)',
    'billing_private.admin_activate_contract(uuid,text)',
    'billing_private.admin_amend_contract(uuid,billing.contracts,text,jsonb,jsonb)',
    'billing_private.admin_apply_discount_code(uuid,text,text)',
    'billing_private.admin_contracts()',
    'billing_private.admin_create_contract(billing.contracts,text,jsonb,jsonb)',
    'billing_private.admin_create_discount_code(billing_private.discount_codes,text)',
    'billing_private.admin_deactivate_discount_code(text,text)',
    'billing_private.admin_discount_codes(uuid)',
    'billing_private.admin_end_contract(uuid,text,timestamp with time zone,boolean)',
    'billing_private.check_code(text,text,bigint,uuid)',
    'billing_private.grant_subscription(uuid,text,text,timestamp with time zone,bigint,text,'
      'timestamp with time zone,integer,text)',
    'billing_private.has_own_entitlement(text)',
    'billing_private.membership_tier(uuid,text)',
    'billing_private.my_access(uuid)',
    'billing_private.my_account_ids()',
    'billing_private.my_account_ids(text)',
    'billing_private.my_subscription(uuid)',
    'billing_private.now()',
    'billing_private.pause_subscription(text,timestamp with time zone,boolean,uuid)',
    'billing_private.prepare_checkout(text,text,text,bigint,uuid,text)',
    'billing_private.prepare_payment_method(text,text,uuid)',
    'billing_private.prepare_portal(text,uuid,text)',
    'billing_private.rebuild_all(text,text,integer,boolean)',
    'billing_private.rebuild_subscription(uuid,text,boolean)',
    'billing_private.remove_administrator(uuid,text)',
    'billing_private.admin_bind_customer(text,uuid,text)',
    'billing_private.admin_unbound_customers()',
    'billing_private.replay_event(text,text)',
    'billing_private.replay_events(text,text,text,'
      'timestamp with time zone,timestamp with time zone,text,integer,boolean)',
    'billing_private.resolve_alert(uuid,text)',
    'billing_private.retry_command(uuid,text)',
    'billing_private.revoke_entitlement(uuid,text)',
    'billing_private.set_drift_policy(text,boolean,text)',
    'billing_private.start_backfill(text)',
    'billing_private.set_repeated_trial(text,text)',
    'billing_private.set_stripe_livemode(boolean,text)',
    'billing_private.preview_change(text,boolean,uuid,bigint)',
    'billing_private.resume_subscription(uuid)',
    'billing_private.undo_cancel(uuid)',
    'billing_private.user_id()',
    'billing_private.work_on_incident(uuid,text,text,uuid)'
  ],
  'exactly these private functions work behind what signed-in users may touch'
);

select set_eq(
  $$
    select name
    from functions
    where has_function_privilege('service_role', oid, 'execute')
      and not has_function_privilege('authenticated', oid, 'execute')
  $$,
  array[
    'billing.record_usage(text,numeric,uuid,text,timestamp with time zone,text,jsonb)',
    'billing.record_usage_batch(jsonb)',
    'billing_private.record_lines(billing_private.usage_line[])',
    'billing_private.record_usage_batch(jsonb)',
    'billing.claim_commands(integer,uuid)',
    'billing.complete_command(uuid,uuid,integer,jsonb,integer,text,numeric,boolean)',
    'billing.ingest_stripe_event(text)',
    'billing.ingest_stripe_events(text[])',
    'billing.report_rejected_webhook(text)',
    'billing_private.claim_commands(integer,uuid)',
    'billing_private.complete_command(uuid,uuid,integer,jsonb,integer,text,numeric,boolean)',
    'billing_private.ingest_stripe_event(text)',
    'billing_private.ingest_stripe_events(text[])',
    'billing_private.report_rejected_webhook(text)'
  ],
  'exactly these functions are for the Edge Functions alone'
);

select set_eq(
  $$
    select name
    from functions
    where has_function_privilege('authenticated', oid, 'execute')
      and not has_function_privilege('service_role', oid, 'execute')
  $$,
  array['billing_private.my_account_ids()', 'billing_private.my_account_ids(text)'],
  'the Edge Functions may call whatever users may, but have no accounts of their own'
);

select is_empty(
  $$
    select name, coalesce(nullif(grantee, 0)::regrole::text, 'public'), privilege_type
    from functions
    cross join lateral aclexplode(coalesce(proacl, acldefault('f', proowner)))
    where grantee <> proowner
      and coalesce(nullif(grantee, 0)::regrole::text, 'public')
        not in ('anon', 'authenticated', 'service_role')
      and (proname, grantee::regrole::text) <> ('add_claims', 'supabase_auth_admin')
  $$,
  'no function is callable by public, or by anybody but its owner and the API roles; but for Auth, '
    'which adds claims'
);

-- ---- whose rights it runs with ----------------------------------------------

-- Lints 0028 and 0029, which `supabase db advisors` leaves out, are this rule: a definer function
-- in an exposed schema would hand the owner's rights to whoever guesses an argument.
select is_empty(
  $$ select name from functions where prosecdef and schema <> 'billing_private' $$,
  'no function of an exposed schema runs with its owner''s rights'
);

select set_eq(
  $$ select name from functions where prosecdef $$,
  array[
    'billing_private.admin_store_revenue(timestamp with time zone,'
      'timestamp with time zone,text)',
    'billing_private.store_statement(text,timestamp with time zone)',
    'billing_private.admin_plan_migrations()',
    'billing_private.migrate_plan(text,text,integer,uuid[],text,text,text)',
    'billing_private.preview_plan_migration(text,text,integer,uuid[],text)',
    'billing_private.stop_plan_migration(uuid,text)',
    'billing_private.correct_usage(uuid,text,numeric,text)',
    'billing_private.next_hook_events(bigint,integer)',
    'billing_private.grant_usage(uuid,text,numeric,text,timestamp with time zone,integer,text)',
    'billing_private.release(uuid,uuid)',
    'billing_private.reserve(text,numeric,uuid,interval,text)',
    'billing_private.revoke_usage_grant(uuid,text)',
    'billing_private.settle(uuid,numeric,uuid)',
    'billing_private.usage_summary(uuid)',
    'billing_private.record_lines(billing_private.usage_line[])',
    'billing_private.record_usage_batch(jsonb)',
    'billing_private.add_claims(jsonb,uuid)',
    'billing_private.add_store_admin(text,uuid,text)',
    'billing_private.admin_stores()',
    'billing_private.archive_price(text,text)',
    'billing_private.create_feature(text,text,text,text,text)',
    'billing_private.create_plan(text,text,text,text,text,text,integer,jsonb,boolean,'
      'text)',
    'billing_private.create_price(text,billing.prices,text)',
    'billing_private.create_store(text,text,text)',
    'billing_private.remove_store_admin(text,uuid,text)',
    'billing_private.set_revenue_share(text,integer,timestamp with time zone,text)',
    'billing_private.update_plan(text,jsonb,text)',
    'billing_private.update_price(text,integer,boolean,text)',
    'billing_private.update_store(text,text,boolean,text)',
    'billing_private.store_scope()',
    'billing_private.price_amount(text,numeric)',
    'billing_private.add_administrator(uuid,text)',
    'billing_private.admin_seat_drift()',
    'billing_private.admin_close_account(uuid,text)',
    'billing_private.close_my_account(uuid)',
    'billing_private.appoint_owner(uuid,uuid,text)',
    'billing_private.link_identity(text,text,uuid,text)',
    'billing_private.reopen_account(uuid,text)',
    'billing_private.require_mfa_for_admins(boolean,text)',
    'billing_private.unlink_identity(text,text,text)',
    'billing_private.note_deleted_user()',
    'billing_private.admin_alerts()',
    'billing_private.admin_audit_log()',
    'billing_private.admin_audit_of_account(uuid)',
    'billing_private.admin_command_backlog()',
    'billing_private.admin_close_invoice(uuid,text,text,text)',
    'billing_private.admin_correct_entitlements(text,uuid)',
    'billing_private.correct_all_entitlements(text,uuid,integer)',
    'billing_private.admin_critical_issues()',
    'billing_private.admin_drifts()',
    'billing_private.admin_entitlement_drift()',
    'billing_private.admin_metered_tables()',
    'billing_private.admin_money_invariants()',
    'billing_private.admin_recount_metered_table(regclass,text)',
    'billing_private.count_rows()',
    'billing_private.admin_overdue_invoices()',
    'billing_private.admin_event_backlog()',
    'billing_private.admin_incident_timeline()',
    'billing_private.admin_incidents()',
    'billing_private.admin_problem_accounts()',
    'billing_private.admin_record_payment(uuid,bigint,text,text,text,timestamp with time zone)',
    'billing_private.admin_run_task(text,text)',
    'billing_private.admin_subscription_overview()',
    'billing_private.admin_sweeps()',
    'billing_private.admin_system_health()',
    'billing_private.admin_task_runs()',
    'billing_private.admin_tasks()',
    'billing_private.cancel_subscription(boolean,text,uuid)',
    'billing_private.accept_invitation(text)',
    'billing_private.change_role(uuid,uuid,text)',
    'billing_private.create_organization(text)',
    'billing_private.invite_member(uuid,text,text,interval)',
    'billing_private.leave_organization(uuid)',
    'billing_private.remove_member(uuid,uuid)',
    'billing_private.rename_organization(uuid,text)',
    'billing_private.revoke_invitation(uuid,uuid)',
    'billing_private.transfer_ownership(uuid,uuid)',
    'billing_private.check_eligibility(text,uuid)',
    'billing_private.consume(text,numeric,uuid,text,jsonb)',
    'billing_private.change_plan(text,boolean,uuid,bigint,timestamp with time zone)',
    'billing_private.claim_commands(integer,uuid)',
    'billing_private.complete_command(uuid,uuid,integer,jsonb,integer,text,numeric,boolean)',
    'billing_private.admin_change_price(text,bigint,text)',
    'billing_private.admin_create_coupon(text,numeric,bigint,text,bigint,text)',
    'billing_private.publish_plan_version(text,jsonb,text)',
    'billing_private.admin_publish_catalog(text)',
    'billing_private.admin_publish_plan(text,text)',
    'billing_private.admin_refund_payment(uuid,text,text,bigint,text)',
    'billing_private.configure_doorbell(text,text,text)',
    'billing_private.discard_event(text,text)',
    'billing_private.discard_events(text,text,text,'
      'timestamp with time zone,timestamp with time zone,text,integer,boolean)',
    'billing_private.explain_entitlement(text,uuid,timestamp with time zone)',
    'billing_private.find_discount(text,uuid)',
    'billing_private.grant_entitlement(uuid,text,text,timestamp with time zone,bigint,text,'
      'timestamp with time zone)',
    'billing_private.admin_activate_contract(uuid,text)',
    'billing_private.admin_amend_contract(uuid,billing.contracts,text,jsonb,jsonb)',
    'billing_private.admin_apply_discount_code(uuid,text,text)',
    'billing_private.admin_contracts()',
    'billing_private.admin_create_contract(billing.contracts,text,jsonb,jsonb)',
    'billing_private.admin_create_discount_code(billing_private.discount_codes,text)',
    'billing_private.admin_deactivate_discount_code(text,text)',
    'billing_private.admin_discount_codes(uuid)',
    'billing_private.admin_end_contract(uuid,text,timestamp with time zone,boolean)',
    'billing_private.check_code(text,text,bigint,uuid)',
    'billing_private.refresh_after_contracts()',
    'billing_private.grant_subscription(uuid,text,text,timestamp with time zone,bigint,text,'
      'timestamp with time zone,integer,text)',
    'billing_private.ingest_stripe_event(text)',
    'billing_private.ingest_stripe_events(text[])',
    'billing_private.is_admin()',
    'billing_private.is_listed_admin()',
    'billing_private.has_own_entitlement(text)',
    'billing_private.membership_tier(uuid,text)',
    'billing_private.my_access(uuid)',
    'billing_private.my_account_ids()',
    'billing_private.my_account_ids(text)',
    'billing_private.my_subscription(uuid)',
    'billing_private.pause_subscription(text,timestamp with time zone,boolean,uuid)',
    'billing_private.prepare_checkout(text,text,text,bigint,uuid,text)',
    'billing_private.prepare_payment_method(text,text,uuid)',
    'billing_private.prepare_portal(text,uuid,text)',
    'billing_private.record_subscription_changes()',
    'billing_private.record_subscription_starts()',
    'billing_private.refuse_second_base()',
    'billing_private.refresh_after_catalog()',
    'billing_private.refresh_after_grants()',
    'billing_private.refresh_after_invoices()',
    'billing_private.refresh_after_item_updates()',
    'billing_private.refresh_after_items()',
    'billing_private.refresh_after_policies()',
    'billing_private.refresh_after_restrictions()',
    'billing_private.refresh_after_subscriptions()',
    'billing_private.refresh_entitlements(uuid[],text[])',
    'billing_private.rebuild_all(text,text,integer,boolean)',
    'billing_private.rebuild_subscription(uuid,text,boolean)',
    'billing_private.remove_administrator(uuid,text)',
    'billing_private.admin_bind_customer(text,uuid,text)',
    'billing_private.admin_unbound_customers()',
    'billing_private.replay_event(text,text)',
    'billing_private.replay_events(text,text,text,'
      'timestamp with time zone,timestamp with time zone,text,integer,boolean)',
    'billing_private.report_rejected_webhook(text)',
    'billing_private.require_admin()',
    'billing_private.resolve_alert(uuid,text)',
    'billing_private.retry_command(uuid,text)',
    'billing_private.revoke_entitlement(uuid,text)',
    'billing_private.set_drift_policy(text,boolean,text)',
    'billing_private.start_backfill(text)',
    'billing_private.set_repeated_trial(text,text)',
    'billing_private.set_stripe_livemode(boolean,text)',
    'billing_private.preview_change(text,boolean,uuid,bigint)',
    'billing_private.resume_subscription(uuid)',
    'billing_private.undo_cancel(uuid)',
    'billing_private.user_id()',
    'billing_private.wait_for_subscribers()',
    'billing_private.work_on_incident(uuid,text,text,uuid)',
    'billing_private.write_audit()',
    'billing_private.write_audit_of_entitlements()'
  ],
  'exactly these functions run with their owner''s rights'
);

select is_empty(
  $$
    select name
    from functions
    where schema = 'billing_private'
      and not prosecdef
      and prorettype <> 'trigger'::regtype
      and (has_function_privilege('authenticated', oid, 'execute')
        or has_function_privilege('service_role', oid, 'execute'))
      and proname <> 'now'
  $$,
  'a private function that an RPC leads to runs with its owner''s rights, or could do nothing'
);

-- ---- what the Data API makes of it ------------------------------------------

-- PostgREST calls a stable function by GET, in a read-only transaction that a replica can serve.
select set_eq(
  $$ select proname from functions where schema <> 'billing_private' and provolatile <> 'v' $$,
  array[
    'access_level', 'audit_of_account', 'check_eligibility', 'entitlement_limit',
    'explain_entitlement', 'has_entitlement', 'has_entitlement_at', 'list_plans',
    'membership_tier', 'my_access', 'my_entitlements', 'my_subscription',
    'price_amount',
    'preview_plan_migration',
    'store_statement'
  ]::name[],
  'exactly these RPCs only read, and answer to GET'
);

select is_empty(
  $$
    select name, prorettype::regtype
    from functions
    where schema <> 'billing_private'
      and prorettype in ('json'::regtype, 'jsonb'::regtype, 'record'::regtype)
      -- Not an RPC: it is for the hook of Supabase Auth, whose claims are JSON.
      and proname <> 'add_claims'
  $$,
  'every RPC returns a named type, so that generated types say something'
);

select is_empty(
  $$
    select schema, proname, count(*)
    from functions
    where schema <> 'billing_private'
    group by schema, proname
    having count(*) > 1
  $$,
  'no RPC has two signatures: PostgREST could not tell which one a JSON body means'
);

select is_empty(
  $$
    select name
    from functions
    where schema <> 'billing_private'
      and pronargs > 0
      and coalesce('' = any (proargnames), true)
  $$,
  'every argument of every RPC has a name'
);

-- ---- what it raises ---------------------------------------------------------

select is_empty(
  $$
    select name
    from functions
    where definition ~* '\mraise\s+(exception|sqlstate|using)'
      and name <> 'billing_private.fail(text,jsonb)'
  $$,
  'errors are raised by billing_private.fail() alone'
);

select is_empty(
  $$
    select name
    from functions
    where definition ~ 'billing_private\.fail\s*\(\s*[^''[:space:]]'
      and name <> 'billing_private.fail(text,jsonb)'
  $$,
  'every error is raised by the name of its code, not by one that is computed'
);

select is_empty(
  $$
    select name, match[1] as code
    from functions
    cross join lateral regexp_matches(definition, '\.fail\s*\(\s*''([^'']*)''', 'g') as match
    where match[1] not in (select code from billing.error_codes)
  $$,
  'every error that is raised is in the catalog'
);

select is_empty(
  $$
    select name, match[1] as code, match[2] as status
    from functions
    cross join lateral regexp_matches(
      obj_description(oid, 'pg_proc'), '^ {2}([A-Z][A-Z0-9_]+) +([0-9]{3}) {2}', 'gn') as match
    where not exists (
      select from billing.error_codes where code = match[1] and status = match[2]::integer
    )
  $$,
  'every error that a function''s comment lists is in the catalog with that status'
);

-- ---- what the registries name -----------------------------------------------

-- Kinds that are given as a word; how often each is tried and how it is looked up is data.
select is_empty(
  $$
    select name, match[1]
    from functions
    cross join lateral regexp_matches(
      definition,
      '(?:enqueue_command|enqueue_wish|ask_once)\(\s*(?:[a-z_.]+,\s*)?''([a-z_]+)''', 'g') as match
    where match[1] not in (select kind from billing_private.command_kinds)
  $$,
  'every kind of call that is written into the outbox is described in command_kinds'
);

select set_eq(
  $$ select 'billing_private.' || function_name || '()' from billing_private.tasks $$,
  $$
    select name
    from functions
    where schema = 'billing_private'
      and proname like 'task\_%'
      and pronargs = 0
      and prorettype = 'bigint'::regtype
      and not proretset
  $$,
  'every task is a function without arguments that says how many rows it changed, and none is idle'
);

select set_eq(
  $$
    select format('billing_private.%s(jsonb,billing_private.stripe_events)', projector)
    from billing_private.event_handlers
  $$,
  $$
    select name
    from functions
    where schema = 'billing_private'
      and proargtypes = array['jsonb'::regtype, 'billing_private.stripe_events'::regtype]::oidvector
      and prorettype = 'void'::regtype
  $$,
  'every event handler is a projector of an object and its event, and none is idle'
);

select set_eq(
  $$
    select format('billing_private.%s(timestamp with time zone,integer)', function_name)
    from billing_private.detection_rules
  $$,
  $$
    select name
    from functions
    where schema = 'billing_private'
      and proname like 'detect\_%'
      and proretset
      and prorettype = 'billing_private.finding'::regtype
  $$,
  'every detection rule is a query for findings since an instant, and none is idle'
);

select * from finish();
rollback;
