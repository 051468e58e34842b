-- Who may use billing_admin: every view and every RPC, asked by everybody.
begin;
\ir ../helpers.psql
select plan(22);

select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

-- Every view as a query, every RPC as a call with nulls and no reason. Two are for the owner of the
-- application's tables, in a migration, and for no API role: see meter_table.test.sql.
create temporary table uses as
select
  relname::text as name, 'view' as kind, format('select * from billing_admin.%I', relname) as query
from pg_class
where relnamespace = 'billing_admin'::regnamespace and relkind = 'v'
union all
select proname, 'rpc', format(
  'select * from billing_admin.%I(%s)', proname,
  (
    select string_agg(format('null::%s', argument::regtype), ', ')
    from unnest(proargtypes) as argument
  ))
from pg_proc
where pronamespace = 'billing_admin'::regnamespace
  and proname not in ('meter_table', 'unmeter_table');
grant select on uses to public;

-- What comes of it: ok, or the SQLSTATE with the code of the catalog.
create function pg_temp.outcome(p_query text) returns text
language plpgsql as $$
declare
  v_details text;
begin
  execute p_query;
  return 'ok';
exception when others then
  get stacked diagnostics v_details = pg_exception_detail;
  return case sqlstate
    when '42501' then '42501'
    else sqlstate || ' ' || (v_details::jsonb ->> 'code')
  end;
end;
$$;

create function pg_temp.outcomes(p_kind text) returns text[]
language sql as $$
  select array_agg(distinct pg_temp.outcome(query)) from uses where kind = p_kind;
$$;

select cmp_ok(
  (select count(*) from uses where kind = 'view'), '>=', 14::bigint,
  'there are views to ask for'
);
select cmp_ok(
  (select count(*) from uses where kind = 'rpc'), '>=', 16::bigint,
  'there are RPCs to call'
);

-- ---- a visitor --------------------------------------------------------------

select tests.sign_out();
select is(pg_temp.outcomes('view'), array['42501'], 'a visitor may not look at any view');
select is(pg_temp.outcomes('rpc'), array['42501'], 'a visitor may not call any RPC');
select throws_ok(
  $$ select * from billing_admin.system_health $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor does not get into the schema'
);

-- ---- a signed-in user -------------------------------------------------------

select tests.sign_in('bob');
select is(
  pg_temp.outcomes('view'), array['PT403 NOT_AN_ADMIN'],
  'a user is refused by every view, and never told that it is empty'
);
select is(
  pg_temp.outcomes('rpc'), array['PT403 NOT_AN_ADMIN'],
  'a user is refused by every RPC, before anything else is looked at'
);
select throws_ok(
  $$ select count(*) from billing_admin.subscription_overview $$,
  'PT403', 'this needs a billing administrator',
  'counting the rows of a view is no way around it'
);
select throws_ok(
  $$ select * from billing_admin.subscription_overview where account_id = md5('bob')::uuid $$,
  'PT403', 'this needs a billing administrator',
  'asking for the own rows of a view is none either'
);
select throws_ok(
  $$ select * from billing_private.admin_subscription_overview() $$,
  '42501', 'permission denied for schema billing_private',
  'the function behind a view cannot be called'
);

-- A claim of the token's own makes nobody an administrator.
select tests.sign_in('bob', '{
  "app_metadata": {"role": "admin"}, "user_metadata": {"role": "admin"}, "user_role": "admin"}');
select is(
  pg_temp.outcomes('view') || pg_temp.outcomes('rpc'),
  array['PT403 NOT_AN_ADMIN', 'PT403 NOT_AN_ADMIN'],
  'what a token says of roles makes nobody an administrator'
);

-- ---- a user without a name --------------------------------------------------

select set_config('request.jwt.claims', '{"role": "authenticated"}', true);
select is(
  pg_temp.outcomes('view') || pg_temp.outcomes('rpc'),
  array['PT403 NOT_AN_ADMIN', 'PT403 NOT_AN_ADMIN'],
  'a token without a user is refused'
);

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');
select is(pg_temp.outcomes('view'), array['ok'], 'an administrator may look at every view');
select is_empty(
  $$
    select name, pg_temp.outcome(query)
    from uses
    where kind = 'rpc'
      and pg_temp.outcome(query) <> case
        when name in ('audit_of_account', 'next_hook_events') then 'ok'
        -- The plan comes first: whose it is decides who may.
        when name in ('migrate_plan', 'preview_plan_migration') then 'PT404 PLAN_NOT_FOUND'
        when name = 'store_statement' then 'PT404 STORE_NOT_FOUND'
        else 'PT400 VALIDATION_FAILED'
      end
  $$,
  'an administrator may call every RPC, and has to give a reason'
);
select throws_ok(
  $$ select billing_admin.run_task('check_health', '') $$,
  'PT400', 'the request is not valid',
  'no words are no reason'
);
select throws_ok(
  $$ select billing_admin.run_task('check_health', E' \t\n ') $$,
  'PT400', 'the request is not valid',
  'white space is no reason'
);
select throws_ok(
  $$ select * from billing_private.audit_log $$,
  '42501', 'permission denied for schema billing_private',
  'an administrator uses the views, not the machine''s tables'
);
select throws_ok(
  $$ delete from billing_admin.system_health $$,
  '55000', 'cannot delete from view "system_health"',
  'an administrator writes through RPCs, not through views'
);

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select is(pg_temp.outcomes('view'), array['ok'], 'the service may look at every view');
select is(
  pg_temp.outcomes('rpc'),
  array['PT400 VALIDATION_FAILED', 'PT404 PLAN_NOT_FOUND', 'PT404 STORE_NOT_FOUND', 'ok'],
  'the service may call every RPC, and has to give a reason too'
);

-- ---- the owner --------------------------------------------------------------

select tests.be_owner();
select is(pg_temp.outcomes('view'), array['ok'], 'the owner may look at every view, as in Studio');
select is(
  pg_temp.outcomes('rpc'),
  array['PT400 VALIDATION_FAILED', 'PT404 PLAN_NOT_FOUND', 'PT404 STORE_NOT_FOUND', 'ok'],
  'the owner may call every RPC, and has to give a reason too'
);

select * from finish();
rollback;
