-- Rules that tables, columns, policies, views and triggers keep.
-- Without helpers.psql, so that nothing but the shipped schema is looked at.
begin;
select plan(36);

create temporary view relations as
select
  pg_class.*,
  pg_class.oid::regclass::text as name,
  nspname as schema
from pg_class
join pg_namespace on pg_namespace.oid = relnamespace
where nspname in ('billing', 'billing_admin', 'billing_private');

create temporary view tables as
select * from relations where relkind in ('r', 'p');

create temporary view policies as
select
  tables.name as table_name,
  polname,
  case polcmd
    when 'r' then 'select'
    when 'a' then 'insert'
    when 'w' then 'update'
    when 'd' then 'delete'
    when '*' then 'all'
  end as command,
  polroles,
  pg_get_expr(polqual, polrelid) as condition
from pg_policy
join tables on tables.oid = polrelid;

create temporary view foreign_keys as
select
  tables.name as table_name,
  pg_constraint.*
from pg_constraint
join tables on tables.oid = conrelid
where contype = 'f';

create temporary view triggers as
select
  tables.name as table_name,
  tables.schema,
  pg_trigger.*
from pg_trigger
join tables on tables.oid = tgrelid
where not tgisinternal;

-- ---- what there is ----------------------------------------------------------

-- Lints 0016 and 0017: neither kind can have row level security.
select is_empty(
  $$ select name, relkind from relations where relkind in ('m', 'f') $$,
  'there is no materialized view and no foreign table'
);

select is_empty(
  $$
    select oid::regclass::text from pg_class where relnamespace = 'public'::regnamespace
    union all
    select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace
  $$,
  'nothing is created in schema public'
);

-- ---- rows -------------------------------------------------------------------

select is_empty(
  $$ select name from tables where not relrowsecurity $$,
  'every table has row level security, the private ones too'
);

select is_empty(
  $$ select name from tables where name not in (select table_name from policies) $$,
  'every table has a policy, if only one that lets nobody in'
);

select is_empty(
  $$ select table_name, polname, command from policies where command <> 'select' $$,
  'no policy lets anybody write: functions are the only way'
);

select is_empty(
  $$ select table_name, polname from policies where 0 = any (polroles) and condition <> 'false' $$,
  'a policy that lets somebody in names the roles it is for'
);

select is_empty(
  $$
    select table_name, polname
    from policies
    where table_name like 'billing\_private.%' and (condition <> 'false' or 0 <> all (polroles))
  $$,
  'every policy of a private table lets nobody in, whoever it is'
);

select is_empty(
  $$
    select table_name, polname
    from policies
    where polname !~ ('^' || command || '_(anyone|member|nobody)$')
  $$,
  'a policy is named after its command and its audience'
);

select set_eq(
  $$ select table_name from policies where polname = 'select_anyone' $$,
  array[
    'billing.access_policies',
    'billing.dunning_policies',
    'billing.dunning_stages',
    'billing.error_codes',
    'billing.features',
    'billing.plan_features',
    'billing.plan_versions',
    'billing.plans',
    'billing.prices',
    'billing.role_permissions',
    'billing.stores',
    'billing.subscription_transitions'
  ],
  'exactly the catalog is for anyone'
);

select is_empty(
  $$
    select table_name, polname
    from policies
    where polname = 'select_member'
      and (polroles <> array['authenticated'::regrole::oid]
        or condition !~ 'ANY \(ARRAY\( SELECT billing_private\.my_account_ids\(')
  $$,
  'membership is a list made once for each statement, never a look at each row'
);

select is_empty(
  $$ select table_name, polname from policies where condition ~ 'user_metadata' $$,
  'no policy believes what users can write into their own token'
);

select is_empty(
  $$ select table_name, count(*) from policies group by table_name having count(*) > 1 $$,
  'no table has two policies that would both have to be asked'
);

-- ---- views ------------------------------------------------------------------

select is_empty(
  $$
    select name
    from relations
    where relkind = 'v'
      and not coalesce(reloptions @> array['security_invoker=true'], false)
  $$,
  'every view runs with the rights of whoever reads it'
);

select is_empty(
  $$
    select distinct relations.name, refobjid::regclass
    from relations
    join pg_rewrite on ev_class = relations.oid
    join pg_depend on classid = 'pg_rewrite'::regclass and objid = pg_rewrite.oid
    join pg_class as source on refclassid = 'pg_class'::regclass and source.oid = refobjid
    where source.relnamespace = 'auth'::regnamespace
  $$,
  'no view shows anything of auth'
);

select is_empty(
  $$ select name from relations where relkind = 'v' and schema = 'billing_private' $$,
  'there is no private view, which nobody could look at'
);

-- ---- words ------------------------------------------------------------------

select is_empty(
  $$
    select nspname
    from pg_namespace
    where nspname in ('billing', 'billing_admin', 'billing_private')
      and obj_description(oid, 'pg_namespace') is null
  $$,
  'every schema says what it is for'
);

select is_empty(
  $$
    select name
    from relations
    where relkind in ('r', 'p', 'v') and obj_description(oid, 'pg_class') is null
  $$,
  'every table and every view says what it holds'
);

select is_empty(
  $$
    select oid::regprocedure
    from pg_proc
    where pronamespace in ('billing'::regnamespace, 'billing_admin'::regnamespace)
      and obj_description(oid, 'pg_proc') is null
  $$,
  'every RPC says what it does'
);

-- What stands behind an RPC, or behind a view of billing_admin, is described there.
select is_empty(
  $$
    select oid::regprocedure
    from pg_proc
    where pronamespace = 'billing_private'::regnamespace
      and obj_description(oid, 'pg_proc') is null
      and not has_function_privilege('service_role', oid, 'execute')
  $$,
  'every private function that is not behind an RPC or a view says what it does'
);

select is_empty(
  $$
    select pg_type.oid::regtype
    from pg_type
    left join pg_class on pg_class.oid = typrelid
    where typnamespace in ('billing'::regnamespace, 'billing_admin'::regnamespace)
      and (typtype in ('e', 'd', 'r') or (typtype = 'c' and relkind = 'c'))
      and obj_description(pg_type.oid, 'pg_type') is null
      and obj_description(typrelid, 'pg_class') is null
  $$,
  'every type an RPC returns says what it is'
);

-- ---- columns ----------------------------------------------------------------

create temporary view columns as
select
  relations.name as table_name,
  attname,
  atttypid::regtype::text as type
from pg_attribute
join relations on relations.oid = attrelid
where relkind in ('r', 'p', 'v', 'c') and attnum > 0 and not attisdropped;

select is_empty(
  $$ select * from columns where attname like '%\_minor' and type <> 'bigint' $$,
  'money is in whole smallest units'
);

select is_empty(
  $$ select * from columns where type in ('real', 'double precision', 'money') $$,
  'nothing is counted in floating point'
);

select is_empty(
  $$
    select *
    from columns
    where attname like '%\_at' and type <> 'timestamp with time zone'
      or type in ('timestamp without time zone', 'time without time zone', 'date')
  $$,
  'every moment is an instant, with its time zone'
);

select is_empty(
  $$
    select relations.name, attname, pg_get_expr(adbin, adrelid)
    from pg_attrdef
    join relations on relations.oid = adrelid
    join pg_attribute on attrelid = adrelid and attnum = adnum
    where pg_get_expr(adbin, adrelid) ~* '\m(now\(\)|current_|clock_timestamp)'
      and pg_get_expr(adbin, adrelid) <> 'billing_private.now()'
  $$,
  'what is stored with a moment takes it from the one clock'
);

select is_empty(
  $$ select * from columns where attname like 'stripe\_%\_id' and type <> 'text' $$,
  'Stripe''s ids are text'
);

-- Lint 0018: such a column would block an upgrade of the server.
select is_empty(
  $$ select * from columns where type ~ '^reg' $$,
  'no column refers to an object of the catalogs by its number'
);

-- ---- keys and constraints ---------------------------------------------------

select is_empty(
  $$
    select name
    from tables
    where not exists (select from pg_constraint where conrelid = tables.oid and contype = 'p')
  $$,
  'every table has a primary key'
);

select is_empty(
  $$ select table_name, conname from foreign_keys where confdeltype = 'a' $$,
  'every foreign key states what happens on delete'
);

select is_empty(
  $$
    select table_name, conname
    from foreign_keys
    where not exists (
      select
      from pg_index
      where indrelid = conrelid
        and indisvalid
        and indpred is null
        and (indkey::smallint[])[0:cardinality(conkey) - 1] @> conkey
    )
  $$,
  'every foreign key has an index that begins with its columns'
);

-- Lint 0021 is about keys to unique columns of auth. We have none to auth at all: deleting a user
-- takes no financial record along.
select is_empty(
  $$
    select table_name, conname
    from foreign_keys
    join pg_class as target on target.oid = confrelid
    join pg_namespace on pg_namespace.oid = target.relnamespace
    where nspname not in ('billing', 'billing_private')
  $$,
  'no foreign key leaves our schemas'
);

select is_empty(
  $$
    select tables.name, conname
    from pg_constraint
    join tables on tables.oid = conrelid
    where contype = 'c'
      and (conname not like relname || '\_%' or conname ~ '_check[0-9]*$')
  $$,
  'every check has a name that says what it demands'
);

-- ---- triggers ---------------------------------------------------------------

select is_empty(
  $$ select table_name, tgname from triggers where tgname !~ '^t[0-9]{3}_[a-z_]+$' $$,
  'every trigger carries its order in its name'
);

select is_empty(
  $$
    select table_name, tgname
    from triggers
    where tgenabled <> 'O'
      or (tgtype & 1) <> 0 and tgfoid <> 'billing_private.write_audit()'::regprocedure
      or (tgtype & 2) <> 0 and tgname not like 't000%'
  $$,
  'every trigger is on, all but the audit''s act once for each statement, and only t000 acts before'
);

-- error_codes and subscription_transitions change with migrations alone, subscription_changes is a
-- history itself; so is usage: each unit is a record, a reservation with its times, a burn, an
-- adjustment. To write each of millions of records twice would be all that changes.
select set_eq(
  $$
    select table_name, tgname, string_to_array(
      rtrim(replace(encode(tgargs, 'escape'), '\000', ','), ','), ',')
    from triggers
    where tgfoid = 'billing_private.write_audit()'::regprocedure
  $$,
  $$
    select
      tables.name,
      trigger_name::name,
      array(
        select attname::text
        from unnest(conkey) with ordinality as keys (number, place)
        join pg_attribute on attrelid = tables.oid and attnum = number
        order by place
      )
    from tables
    join pg_constraint on conrelid = tables.oid and contype = 'p'
    cross join unnest(
      array['t900_audit_of_inserts', 't900_audit_of_updates', 't900_audit_of_deletes']
    ) as trigger_name
    where schema = 'billing'
        and relname not in (
          'entitlements', 'error_codes', 'subscription_transitions', 'subscription_changes', 'usage_adjustments',
          'usage_alerts', 'usage_burns', 'usage_records', 'usage_reservations', 'usage_totals',
          'hook_events')
      or tables.name in (
        'billing_private.admin_actions', 'billing_private.administrators',
        'billing_private.discount_codes',
        'billing_private.settings', 'billing_private.store_admins',
        'billing_private.store_revenue_shares')
  $$,
  'every insert, update and delete of a business table is audited, under its primary key'
);
select set_eq(
  $$
    select table_name, tgname
    from triggers
    where tgfoid = 'billing_private.write_audit_of_entitlements()'::regprocedure
  $$,
  $$
    values
      ('billing.entitlements', 't900_audit_of_inserts'::name),
      ('billing.entitlements', 't900_audit_of_updates'),
      ('billing.entitlements', 't900_audit_of_deletes')
  $$,
  'so are those of entitlements, statement by statement'
);

-- Lint 0020 estimates bloat, which a schema made a moment ago cannot have; lint 0025 is about
-- storage buckets, and there are none.

select is_empty(
  $$
    select conname
    from pg_constraint
    where contype = 'f'
      and connamespace in ('billing'::regnamespace, 'billing_private'::regnamespace)
      and confrelid in (select oid from pg_class where relnamespace = 'auth'::regnamespace)
  $$,
  'C7: no row hangs on a user of the application: whoever deletes one keeps the history, and events '
  'go on being stored'
);

select * from finish();
rollback;
