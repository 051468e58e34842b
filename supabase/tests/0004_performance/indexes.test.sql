-- Every index that is there for a query serves it: among twenty thousand accounts, the function it
-- was made for looks into it.
begin;
\ir many_accounts.psql
select plan(5);

create table tests.served (index text, reader text, statement text);

insert into tests.served values
  -- who is who
  ('billing.memberships_user_id_idx', 'my_account_ids',
    $$
      with me as materialized (
        select set_config(
          'request.jwt.claims', jsonb_build_object('sub', tests.person(6))::text, true)
      )
      select my.* from me cross join lateral billing_private.my_account_ids() as my
    $$),
  ('billing.external_identities_user_id_idx', 'the policy of external_identities',
    $$ select * from billing.external_identities where user_id = tests.person(5) $$),

  ('billing_private.deleted_users_unsettled_idx', 'settle_accounts',
    $$ select billing_private.task_settle_accounts() $$),

  -- the inbox
  ('billing_private.stripe_events_object_id_idx', 'past_due_since',
    $$ select billing_private.past_due_since('sub_5', '2026-01-20') $$),
  ('billing_private.stripe_events_object_id_idx', 'newest_of_second',
    $$ select billing_private.newest_of_second('sub_5', '2026-01-10') $$),
  ('billing_private.stripe_events_due_idx', 'retry_events',
    $$ select billing_private.task_retry_events() $$),
  ('billing_private.stripe_events_unsettled_idx', 'event_backlog',
    $$ select * from billing_admin.event_backlog $$),
  ('billing_private.stripe_events_unsettled_idx', 'critical_issues',
    $$ select * from billing_admin.critical_issues $$),
  ('billing_private.stripe_events_unsettled_idx', 'check_health',
    $$ select billing_private.task_check_health() $$),
  ('billing_private.stripe_events_unsettled_idx', 'scan_security',
    $$ select billing_private.task_scan_security() $$),
  ('billing_private.stripe_events_other_livemode_idx', 'check_health',
    $$ select billing_private.task_check_health() $$),
  ('billing_private.stripe_events_other_livemode_idx', 'set_stripe_livemode',
    $$ select billing_admin.set_stripe_livemode(true, 'going live') $$),
  ('billing_private.stripe_objects_ambiguous_idx', 'critical_issues',
    $$ select * from billing_admin.critical_issues $$),
  ('billing_private.commands_reread_idx', 'request_reread',
    $$ select billing_private.request_reread('subscription', 'sub_5', 'test') $$),
  ('billing_private.drifts_last_seen_at_idx', 'check_health',
    $$ select billing_private.task_check_health() $$),
  ('billing_private.webhook_rejections_minute_idx', 'scan_security',
    $$ select billing_private.task_scan_security() $$),
  ('billing_private.webhook_rejections_minute_idx', 'clean_up',
    $$ select billing_private.task_clean_up() $$),

  -- the outbox
  -- Sorting the few that wait here is as cheap; where many wait it is not.
  ('billing_private.commands_line_idx', 'claim_commands',
    $$
      with many as materialized (select set_config('enable_sort', 'off', true))
      select billing.claim_commands() from many
    $$),
  ('billing_private.commands_finished_idx', 'clean_up',
    $$ select billing_private.task_clean_up() $$),
  ('billing_private.commands_unfinished_idx', 'claim_commands',
    $$ select billing.claim_commands() $$),
  ('billing_private.commands_subject_id_idx', 'claim_commands for whoever waits',
    $$ select billing.claim_commands(20, md5('checkout 4')::uuid) $$),
  ('billing_private.commands_dead_idx', 'check_health',
    $$ select billing_private.task_check_health() $$),
  ('billing_private.commands_dead_idx', 'scan_security',
    $$ select billing_private.task_scan_security() $$),
  ('billing_private.commands_dead_idx', 'critical_issues',
    $$ select * from billing_admin.critical_issues $$),

  -- subscriptions and access
  ('billing.entitlements_valid_until_idx', 'expire_subscriptions',
    $$ select billing_private.task_expire_subscriptions() $$),
  ('billing.entitlements_upcoming_idx', 'expire_subscriptions',
    $$ select billing_private.task_expire_subscriptions() $$),
  ('billing.subscriptions_manual_period_idx', 'expire_subscriptions',
    $$ select billing_private.task_expire_subscriptions() $$),
  ('billing.subscriptions_manual_period_idx', 'apply_scheduled_changes',
    $$ select billing_private.renew_manual_subscriptions(1000) $$),
  ('billing_private.commands_pauses_idx', 'apply_scheduled_changes',
    $$ select billing_private.withdraw_invoices() $$),
  ('billing_private.commands_pauses_idx', 'critical_issues',
    $$ select * from billing_admin.critical_issues $$),
  ('billing_private.plan_migration_steps_asked_idx', 'project_subscription',
    $$ select billing_private.version_migrated_to('si_5', 'price_plus_monthly', '2026-01-10') $$),
  ('billing.subscriptions_pause_at_idx', 'apply_scheduled_changes',
    $$ select billing_private.begin_scheduled_pauses(1000) $$),
  ('billing.subscriptions_pending_change_idx', 'apply_scheduled_changes',
    $$ select billing_private.task_apply_scheduled_changes() $$),

  ('billing.subscriptions_overdue_idx', 'request_rereads',
    $$ select billing_private.task_request_rereads() $$),
  ('billing.subscriptions_incomplete_idx', 'request_rereads',
    $$ select billing_private.task_request_rereads() $$),

  -- money
  ('billing.invoices_open_idx', 'problem_accounts',
    $$ select * from billing_admin.problem_accounts $$),
  ('billing.invoices_paid_at_idx', 'store_statement',
    $$ select count(*) from billing_private.revenue_movements('2026-01-01', '2026-01-05') $$),
  ('billing.refunds_refunded_at_idx', 'store_statement',
    $$ select count(*) from billing_private.revenue_movements('2026-01-01', '2026-01-05') $$),
  ('billing.refunds_returned_at_idx', 'store_statement',
    $$ select count(*) from billing_private.revenue_movements('2026-01-01', '2026-01-05') $$),
  ('billing.disputes_lost_at_idx', 'store_statement',
    $$ select count(*) from billing_private.revenue_movements('2026-01-01', '2026-01-05') $$),
  ('billing.invoices_due_at_idx', 'run_dunning', $$ select billing_private.task_run_dunning() $$),
  ('billing.dunning_cases_due_at_idx', 'run_dunning',
    $$ select billing_private.task_run_dunning() $$),
  ('billing_private.declines_method_hash_idx', 'run_dunning',
    $$ select billing_private.task_run_dunning() $$),
  ('billing_private.declines_stripe_customer_id_idx', 'run_dunning',
    $$ select billing_private.task_run_dunning() $$),
  ('billing.invoices_stripe_subscription_id_idx', 'whoever looks for the bills of a subscription',
    $$ select * from billing.invoices where stripe_subscription_id = 'sub_5' $$),
  ('billing.contracts_ends_at_idx', 'settle_contracts',
    $$ select billing_private.task_settle_contracts() $$),
  ('billing.refunds_stripe_payment_key_idx', 'project_charge',
    $$ select billing_private.bind_payment_rows('pi_5') $$),
  ('billing.disputes_stripe_payment_key_idx', 'project_charge',
    $$ select billing_private.bind_payment_rows('pi_5') $$),
  ('billing_private.early_fraud_warnings_stripe_payment_key_idx', 'project_charge',
    $$ select billing_private.bind_payment_rows('pi_5') $$),
  ('billing.discounts_stripe_subscription_id_idx', 'whoever looks for what comes off a bill',
    $$ select * from billing.discounts where stripe_subscription_id = 'sub_5' $$),
  ('billing.credit_notes_stripe_invoice_id_idx', 'whoever looks for what was taken off a bill',
    $$ select * from billing.credit_notes where stripe_invoice_id = 'in_5' $$),
  ('billing.customers_default_payment_method_idx', 'project_payment_method',
    $$
      select tests.deliver('evt_detached', 'payment_method.detached', '2026-01-20',
        '{"id": "pm_5", "object": "payment_method", "type": "card"}')
    $$),

  -- binding what came early
  ('billing.invoices_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.payments_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.payments_stripe_customer_id_idx', 'project_invoice',
    $$ select billing_private.lock_payments_of('in_5', 'cus_5') $$),
  ('billing.payment_methods_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.discounts_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.discounts_stripe_customer_id_idx', 'project_subscription',
    $$
      select billing_private.list_discounts(
        '{"id": "sub_5", "object": "subscription", "customer": "cus_5"}', tests.person(5))
    $$),
  ('billing.subscription_schedules_next_items_idx', 'project_price',
    $$ select billing_private.bind_price('price_unheard_of') $$),
  ('billing.subscription_schedules_stripe_subscription_id_idx', 'project_subscription',
    $$
      select billing_private.scheduled_change('sub_5', null, '2026-01-20', null)
    $$),
  ('billing.subscription_schedules_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.setup_intents_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.stripe_entitlements_stripe_customer_id_idx', 'project_entitlement_summary',
    $$ select billing_private.keep_entitlements('cus_5', '{}') $$),
  ('billing.stripe_entitlements_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.tax_ids_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.credit_notes_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.subscriptions_stripe_customer_id_idx', 'bind_customer',
    $$ select billing_private.bind_customer('cus_unbound_1', tests.person(5)) $$),
  ('billing.subscription_items_unbound_idx', 'project_price',
    $$ select billing_private.bind_price('price_unheard_of') $$),
  ('billing.prices_unbound_idx', 'project_product',
    $$
      select tests.deliver('evt_product', 'product.created', '2026-01-20',
        '{"id": "prod_100", "object": "product", "name": "Late"}')
    $$),
  ('billing.customers_unbound_idx', 'critical_issues',
    $$ select * from billing_admin.critical_issues $$),

  -- usage
  ('billing.usage_reservations_due_idx', 'tend_usage',
    $$ select billing_private.task_tend_usage() $$),
  ('billing.usage_totals_unclosed_idx', 'tend_usage',
    $$ select billing_private.task_tend_usage() $$),
  ('billing_private.usage_records_default_account_id_feature_key_occurred_at_idx',
    'whoever looks for usage by day',
    $$
      select occurred_at::date, sum(quantity)
      from billing.usage_records
      where account_id = tests.person(5) and feature_key = 'clubs' and occurred_at > '2026-01-05'
      group by 1
    $$),

  ('billing.hook_events_position_idx', 'next_hook_events',
    $$ select billing_admin.next_hook_events(19000) $$),
  ('billing.hook_events_occurred_at_idx', 'clean_up',
    $$ select billing_private.task_clean_up() $$),

  -- logs
  ('billing_private.task_runs_started_at_idx', 'clean_up',
    $$ select billing_private.task_clean_up() $$),
  ('billing_private.audit_log_account_id_idx', 'audit_of_account',
    $$ select * from billing_admin.audit_of_account(tests.person(5)) $$),
  ('billing_private.audit_log_account_id_idx', 'whoever looks for the history of a row',
    $$
      select *
      from billing_private.audit_log
      where account_id = tests.person(5)
        and table_name = 'billing.subscriptions'
        and row_key = tests.person(5)::text
      order by id desc
    $$),
  ('billing_private.audit_log_row_idx', 'whoever looks for the history of a row of no account',
    $$
      select *
      from billing_private.audit_log
      where account_id is null
        and table_name = 'billing.plans'
        and row_key = tests.person(5)::text
      order by id desc
    $$);

select is_empty(
  $$ select index, reader from tests.served where tests.index_scans(index, statement) = 0 $$,
  'every index is looked into by those it was made for'
);

-- Keys, unique rules and foreign keys have indexes whether anybody reads them or not.
select set_eq(
  $$ select distinct index from tests.served $$,
  $$
    select indexrelid::regclass::text
    from pg_index
    join pg_class on pg_class.oid = indexrelid
    where relnamespace in ('billing'::regnamespace, 'billing_private'::regnamespace)
      and not indisunique
      -- A partitioned index is nothing to look into: its partitions' are.
      and relkind = 'i'
      and not exists (
        select
        from pg_constraint
        where contype = 'f'
          and conrelid = indrelid
          and indpred is null
          and (indkey::smallint[])[0:cardinality(conkey) - 1] @> conkey
      )
  $$,
  'there is no index without a reader here'
);

select is(
  tests.index_scans(
    'billing.entitlements_pkey',
    $$ select billing.has_entitlement('premium', tests.person(5)) $$
  ),
  1::bigint,
  'has_entitlement() is one look into the primary key'
);

select cmp_ok(
  tests.index_scans(
    'billing_private.entitlement_history_pkey',
    $$ select billing.has_entitlement_at('premium', '2026-01-05', tests.person(5)) $$
  ),
  '>', 0::bigint,
  'has_entitlement_at() looks into the primary key of what was before'
);

select matches(
  pg_get_indexdef('billing.entitlements_pkey'::regclass),
  '\(account_id, feature_key, ',
  'which begins with what it asks for'
);

select * from finish();
rollback;
