-- Who may do what with schemas, tables, views and sequences: RPCs are the only way to write.
-- Without helpers.psql, so that nothing but the shipped schema is looked at.
begin;
select plan(12);

create temporary view relations as
select
  pg_class.*,
  pg_class.oid::regclass::text as name,
  nspname as schema
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace
where nspname in ('billing', 'billing_admin', 'billing_private')
  and relkind not in ('i', 'I', 'c', 't');

create temporary view api_roles as
select rolname as role
from pg_roles
where rolname in ('anon', 'authenticated', 'service_role');

-- ---- schemas ----------------------------------------------------------------

-- billing_private is behind no role: a grant that somebody adds to one of its tables by mistake
-- still leads nowhere.
select set_eq(
  $$
    select role || ' ' || nspname
    from api_roles
    cross join pg_namespace
    where nspname in ('billing', 'billing_admin', 'billing_private')
      and has_schema_privilege(role, pg_namespace.oid, 'usage')
  $$,
  array[
    'anon billing',
    'authenticated billing',
    'authenticated billing_admin',
    'service_role billing',
    'service_role billing_admin'
  ],
  'visitors see billing, users and Edge Functions also billing_admin, and nobody billing_private'
);

select is_empty(
  $$
    select nspname, coalesce(nullif(grantee, 0)::regrole::text, 'public'), privilege_type
    from pg_namespace
    cross join lateral aclexplode(coalesce(nspacl, acldefault('n', nspowner)))
    where nspname in ('billing', 'billing_admin', 'billing_private')
      and grantee <> nspowner
      and (privilege_type <> 'USAGE'
        or coalesce(nullif(grantee, 0)::regrole::text, 'public')
          not in (select role from api_roles))
      and (nspname, privilege_type, grantee::regrole::text)
        <> ('billing', 'USAGE', 'supabase_auth_admin')
  $$,
  'nobody but the owner may create in our schemas, and no other role but Auth may use them'
);

select is_empty(
  $$
    select defaclnamespace::regnamespace, defaclobjtype, defaclacl
    from pg_default_acl
    where defaclnamespace::regnamespace::text in ('billing', 'billing_admin', 'billing_private')
  $$,
  'what is created in our schemas later is granted to nobody by itself'
);

-- ---- reading ----------------------------------------------------------------

select set_eq(
  $$ select name from relations where has_table_privilege('anon', oid, 'select') $$,
  array[
    'billing.access_policies',
    'billing.caller',
    'billing.clock',
    'billing.current_access',
    'billing.current_entitlements',
    'billing.current_sources',
    'billing.dunning_policies',
    'billing.dunning_stages',
    'billing.entitlements',
    'billing.error_codes',
    'billing.features',
    'billing.plan_features',
    'billing.plan_versions',
    'billing.plan_offers',
    'billing.plans',
    'billing.prices',
    'billing.role_permissions',
    'billing.stores',
    'billing.subscription_transitions'
  ],
  'exactly the catalog, and what has_entitlement() looks at, is readable by visitors'
);

select set_eq(
  $$ select name from relations where has_table_privilege('authenticated', oid, 'select') $$,
  array[
    'billing.access_policies',
    'billing.access_restrictions',
    'billing.accounts',
    'billing.caller',
    'billing.clock',
    'billing.checkout_sessions',
    'billing.coupons',
    'billing.credit_notes',
    'billing.current_access',
    'billing.current_entitlements',
    'billing.current_sources',
    'billing.customers',
    'billing.discounts',
    'billing.disputes',
    'billing.dunning_cases',
    'billing.dunning_events',
    'billing.dunning_policies',
    'billing.dunning_stages',
    'billing.entitlement_grants',
    'billing.entitlements',
    'billing.error_codes',
    'billing.external_identities',
    'billing.features',
    'billing.hook_events',
    'billing.invoice_lines',
    'billing.invitations',
    'billing.invoices',
    'billing.memberships',
    'billing.payment_history',
    'billing.payment_methods',
    'billing.payments',
    'billing.plan_features',
    'billing.plan_versions',
    'billing.plan_offers',
    'billing.plans',
    'billing.prices',
    'billing.profiles',
    'billing.refunds',
    'billing.role_permissions',
    'billing.setup_intents',
    'billing.stores',
    'billing.stripe_entitlements',
    'billing.subscription_changes',
    'billing.subscription_items',
    'billing.subscription_schedules',
    'billing.subscription_transitions',
    'billing.subscriptions',
    'billing.tax_ids',
    'billing.usage_adjustments',
    'billing.usage_alerts',
    'billing.usage_burns',
    'billing.usage_grants',
    'billing.usage_records',
    'billing.usage_reservations',
    'billing.usage_totals',
    'billing.contract_features',
    'billing.contract_prices',
    'billing.contract_settlements',
    'billing.contracts',
    'billing.discount_redemptions',
    'billing_admin.alerts',
    'billing_admin.contracts',
    'billing_admin.discount_codes',
    'billing_admin.audit_log',
    'billing_admin.command_backlog',
    'billing_admin.critical_issues',
    'billing_admin.drifts',
    'billing_admin.entitlement_drift',
    'billing_admin.money_invariants',
    'billing_admin.metered_tables',
    'billing_admin.overdue_invoices',
    'billing_admin.event_backlog',
    'billing_admin.expiring_soon',
    'billing_admin.incident_timeline',
    'billing_admin.incidents',
    'billing_admin.problem_accounts',
    'billing_admin.plan_migrations',
    'billing_admin.store_revenue',
    'billing_admin.stores',
    'billing_admin.seat_drift',
    'billing_admin.subscription_overview',
    'billing_admin.sweeps',
    'billing_admin.system_health',
    'billing_admin.task_runs',
    'billing_admin.tasks',
    'billing_admin.unbound_customers'
  ],
  'exactly these tables and views are readable by signed-in users'
);

select set_eq(
  $$ select name from relations where has_table_privilege('service_role', oid, 'select') $$,
  $$ select name from relations where has_table_privilege('authenticated', oid, 'select') $$,
  'the Edge Functions may read the same tables and views'
);

-- Lints 0026 and 0027, which `supabase db advisors` leaves out and which look only where pg_graphql
-- is installed, ask that such a list be meant: the two above are it.
select set_eq(
  $$
    select name
    from relations
    where has_any_column_privilege('authenticated', oid, 'select')
      or has_any_column_privilege('anon', oid, 'select')
      or has_any_column_privilege('service_role', oid, 'select')
  $$,
  $$ select name from relations where schema <> 'billing_private' $$,
  'no single column is granted beside them, and nothing private'
);

-- ---- writing ----------------------------------------------------------------

select is_empty(
  $$
    select role, name, privilege
    from relations
    cross join api_roles
    cross join unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger'])
      as privilege
    where relkind <> 'S'
      and has_table_privilege(role, oid, privilege)
  $$,
  'no API role may insert, update, delete or truncate anything'
);

select is_empty(
  $$
    select role, name, privilege
    from relations
    cross join api_roles
    cross join unnest(array['insert', 'update', 'references']) as privilege
    where relkind <> 'S'
      and has_any_column_privilege(role, oid, privilege)
  $$,
  'nor write any single column'
);

select is_empty(
  $$
    select role, name, privilege
    from relations
    cross join api_roles
    cross join unnest(array['usage', 'select', 'update']) as privilege
    where relkind = 'S'
      and has_sequence_privilege(role, oid, privilege)
  $$,
  'no API role may draw from, read or set a sequence'
);

-- ---- everybody else ---------------------------------------------------------

select is_empty(
  $$
    select name, coalesce(nullif(grantee, 0)::regrole::text, 'public'), privilege_type
    from relations
    cross join lateral aclexplode(relacl)
    where grantee <> relowner
      and coalesce(nullif(grantee, 0)::regrole::text, 'public') not in (select role from api_roles)
  $$,
  'nothing is granted to public, or to any other role'
);

select is_empty(
  $$
    select name, relowner::regrole
    from relations
    where relowner <> (select nspowner from pg_namespace where nspname = 'billing_private')
  $$,
  'all tables and views have one owner, who owns the schemas'
);

select * from finish();
rollback;
