-- =============================================================================
-- A hosted Supabase project's roles, schemas and grants, for a local cluster.
--
-- Run by the superuser supabase_admin in database postgres, on Postgres 15 to 18.
-- It may run again at any time and ends in the same state.
--
-- What only a host can have is left out: supautils (which lets postgres create
-- privileged extensions; here they are created beforehand), safeupdate (which
-- refuses update and delete without where), pg_net, Vault, Realtime and Storage.
--
-- Contents
--   1  roles
--   2  memberships
--   3  database and schema public
--   4  schema extensions
--   5  schema auth
--   6  pg_cron
-- =============================================================================

set client_min_messages = warning;


-- -----------------------------------------------------------------------------
-- 1  roles
-- -----------------------------------------------------------------------------

-- The passwords are those everyone knows from `supabase start`: the cluster listens on the
-- loopback interface only and holds nothing but sample data.
do $$
declare
  v_role record;
begin
  for v_role in
    select *
    from (values
      ('postgres', 'login createrole createdb replication bypassrls'),
      ('anon', 'nologin'),
      ('authenticated', 'nologin'),
      ('service_role', 'nologin bypassrls'),
      ('authenticator', 'login noinherit'),
      ('supabase_auth_admin', 'login noinherit createrole')
    ) as wanted (name, attributes)
  loop
    if to_regrole(v_role.name) is null then
      execute format('create role %I', v_role.name);
    end if;
    execute format('alter role %I with nosuperuser %s', v_role.name, v_role.attributes);
    if v_role.attributes ~ '\mlogin' then
      execute format('alter role %I with password %L', v_role.name, 'postgres');
    end if;
  end loop;
end;
$$;

alter role supabase_admin set search_path = "$user", public, auth, extensions;
alter role supabase_auth_admin set search_path = auth;
alter role supabase_auth_admin set idle_in_transaction_session_timeout = 60000;
alter role postgres set search_path = "$user", public, extensions;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';


-- -----------------------------------------------------------------------------
-- 2  memberships
-- -----------------------------------------------------------------------------

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, authenticator to postgres with admin option;
grant pg_monitor, pg_read_all_data, pg_signal_backend to postgres with admin option;

-- Since 16 a membership says itself whether it inherits; before, the member's attribute did.
do $$
begin
  if current_setting('server_version_num')::integer >= 160000 then
    execute 'grant anon, authenticated, service_role to authenticator with inherit false';
    execute 'grant anon, authenticated, service_role, authenticator to postgres with inherit true';
    execute 'grant pg_create_subscription to postgres with inherit true';
  end if;
end;
$$;

-- Since April 2025 postgres is no longer a member of supabase_auth_admin.


-- -----------------------------------------------------------------------------
-- 3  database and schema public
-- -----------------------------------------------------------------------------

alter database postgres owner to postgres;

grant usage on schema public to postgres, anon, authenticated, service_role;

alter default privileges for role postgres in schema public
  grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on sequences to postgres, anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
  grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
  grant all on sequences to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
  grant all on functions to postgres, anon, authenticated, service_role;

do $$
begin
  if not exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
  alter publication supabase_realtime owner to postgres;
end;
$$;


-- -----------------------------------------------------------------------------
-- 4  schema extensions
-- -----------------------------------------------------------------------------

create schema if not exists extensions authorization postgres;

grant usage on schema extensions to anon, authenticated, service_role;

-- The first three are in every project. The other two are what test and lint commands create on
-- demand, which a host's supautils would allow and a plain server refuses.
do $$
declare
  v_extension text;
begin
  for v_extension in
    select name
    from pg_catalog.pg_available_extensions
    where name in ('pgcrypto', 'uuid-ossp', 'pg_stat_statements', 'pgtap', 'plpgsql_check')
  loop
    execute format('create extension if not exists %I with schema extensions', v_extension);
  end loop;
end;
$$;

grant all on all routines in schema extensions to postgres with grant option;


-- -----------------------------------------------------------------------------
-- 5  schema auth
-- -----------------------------------------------------------------------------

create schema if not exists auth authorization supabase_auth_admin;

grant usage on schema auth to postgres, anon, authenticated, service_role;
revoke create on schema auth from postgres;

set role supabase_auth_admin;

-- Columns as in Supabase Auth, except two of refresh_tokens: Supabase Lite, which serves Auth
-- locally, uses uuids as their ids. At each start Lite tries to create these objects itself, and goes
-- on where it may not: as postgres it finds them here and cannot replace them.
create table if not exists auth.users (
  instance_id uuid,
  id uuid not null primary key,
  aud varchar(255),
  role varchar(255),
  email varchar(255),
  encrypted_password varchar(255),
  email_confirmed_at timestamptz,
  invited_at timestamptz,
  confirmation_token varchar(255),
  confirmation_sent_at timestamptz,
  recovery_token varchar(255),
  recovery_sent_at timestamptz,
  email_change_token_new varchar(255),
  email_change varchar(255),
  email_change_sent_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb,
  raw_user_meta_data jsonb,
  is_super_admin boolean,
  created_at timestamptz,
  updated_at timestamptz,
  phone text default null unique,
  phone_confirmed_at timestamptz,
  phone_change text default '',
  phone_change_token varchar(255) default '',
  phone_change_sent_at timestamptz,
  confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
  email_change_token_current varchar(255) default '',
  email_change_confirm_status smallint default 0
    check (email_change_confirm_status between 0 and 2),
  banned_until timestamptz,
  reauthentication_token varchar(255) default '',
  reauthentication_sent_at timestamptz,
  is_sso_user boolean not null default false,
  deleted_at timestamptz,
  is_anonymous boolean not null default false
);

create unique index if not exists users_email_partial_key
  on auth.users (email)
  where is_sso_user = false;
create index if not exists users_is_anonymous_idx on auth.users (is_anonymous);

create table if not exists auth.sessions (
  id uuid not null primary key,
  user_id uuid not null references auth.users (id) on delete cascade,
  created_at timestamptz,
  updated_at timestamptz,
  factor_id uuid,
  aal text check (aal in ('aal1', 'aal2', 'aal3')),
  not_after timestamptz,
  refreshed_at timestamp without time zone,
  user_agent text,
  ip inet,
  tag text,
  oauth_client_id uuid,
  refresh_token_hmac_key text,
  refresh_token_counter bigint,
  scopes text
);

create index if not exists sessions_user_id_idx on auth.sessions (user_id);

create table if not exists auth.refresh_tokens (
  instance_id uuid,
  id text not null primary key,
  token varchar(255),
  user_id varchar(255),
  revoked boolean,
  created_at timestamptz,
  updated_at timestamptz,
  parent varchar(255),
  session_id uuid references auth.sessions (id) on delete cascade
);

create index if not exists refresh_tokens_token_idx on auth.refresh_tokens (token);

create table if not exists auth.identities (
  provider_id text not null,
  user_id uuid not null references auth.users (id) on delete cascade,
  identity_data jsonb not null,
  provider text not null,
  last_sign_in_at timestamptz,
  created_at timestamptz,
  updated_at timestamptz,
  email text generated always as (lower(identity_data ->> 'email')) stored,
  id uuid not null default gen_random_uuid() primary key,
  unique (provider_id, provider)
);

create index if not exists identities_user_id_idx on auth.identities (user_id);

create table if not exists auth.flow_state (
  id uuid not null primary key,
  user_id uuid,
  auth_code text,
  authentication_method text not null,
  code_challenge_method text,
  code_challenge text,
  provider_type text not null,
  provider_access_token text,
  provider_refresh_token text,
  auth_code_issued_at timestamptz,
  invite_token text,
  referrer text,
  oauth_client_state_id uuid,
  linking_target_id uuid,
  email_optional boolean not null default false,
  created_at timestamptz,
  updated_at timestamptz
);

create table if not exists auth.audit_log_entries (
  instance_id uuid,
  id uuid not null primary key,
  payload json,
  created_at timestamptz,
  ip_address varchar(64) not null default ''
);

create or replace function auth.uid()
returns uuid
language sql
stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.sub', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')
  )::uuid
$$;

create or replace function auth.role()
returns text
language sql
stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.role', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'role')
  )::text
$$;

create or replace function auth.email()
returns text
language sql
stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim.email', true), ''),
    (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'email')
  )::text
$$;

create or replace function auth.jwt()
returns jsonb
language sql
stable
as $$
  select coalesce(
    nullif(current_setting('request.jwt.claim', true), ''),
    nullif(current_setting('request.jwt.claims', true), '')
  )::jsonb
$$;

alter table auth.users enable row level security;
alter table auth.sessions enable row level security;
alter table auth.refresh_tokens enable row level security;
alter table auth.identities enable row level security;
alter table auth.flow_state enable row level security;
alter table auth.audit_log_entries enable row level security;

grant all on all tables in schema auth to postgres;
grant select on all tables in schema auth to postgres with grant option;
grant execute on function auth.uid(), auth.role(), auth.email(), auth.jwt() to postgres;

reset role;


-- -----------------------------------------------------------------------------
-- 6  pg_cron
-- -----------------------------------------------------------------------------

do $$
begin
  -- It lives in one database of a cluster; this setting is there only where its library is loaded.
  if current_database() is distinct from current_setting('cron.database_name', true) then
    return;
  end if;

  create extension if not exists pg_cron with schema pg_catalog;

  grant usage on schema cron to postgres with grant option;
  grant all on all tables in schema cron to postgres with grant option;
  revoke all on cron.job from postgres;
  grant select on cron.job to postgres with grant option;
  revoke trigger on cron.job_run_details from postgres;
  grant execute on all functions in schema cron to postgres with grant option;
end;
$$;
