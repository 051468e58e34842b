-- =============================================================================
-- 0001  subscription tables
--
-- The nouns: who pays (accounts, customers), for what (catalog), on which terms
-- (subscriptions), with what money (invoices, payments), and what it gives them
-- (entitlements). What happens to them is decided in 0003 and 0005.
--
-- Reads      nothing
-- Read by    everything
--
-- Invariants
--   * Every object is revoked from everyone and then granted by name.
--   * Rows mirrored from Stripe link to each other by Stripe's ids, without foreign
--     keys: they arrive in any order. `account_id` is null until the owner is known.
--   * All logic that needs "now" calls billing_private.now().
--   * One database serves one Stripe mode (live or test), named in settings.
--
-- Contents
--   1  schemas
--   2  billing.error_codes
--   3  billing_private.fail()
--   4  billing_private.now()
--   5  billing_private.settings
--   6  billing_private.administrators
--   7  who is calling
--   8  billing_private.set_cause()
--   9  billing.accounts
--   10  billing.profiles
--   11  billing.stores
--   12  billing_private.store_admins
--   13  billing_private.store_revenue_shares
--   14  billing.features
--   15  billing.access_policies
--   16  billing.dunning_policies
--   17  billing.dunning_stages
--   18  billing.plans
--   19  billing.plan_versions
--   20  billing.plan_features
--   21  billing.prices
--   22  billing.customers
--   23  billing.subscriptions
--   24  billing.subscription_items
--   25  billing.discounts
--   26  billing.coupons
--   27  billing_private.promotion_codes
--   28  billing_private.discount_codes
--   29  billing.subscription_schedules
--   30  billing.subscription_transitions
--   31  billing.subscription_changes
--   32  billing.invoices
--   33  billing.invoice_lines
--   34  billing.payments
--   35  billing.refunds
--   36  billing.disputes
--   37  billing_private.early_fraud_warnings
--   38  billing.credit_notes
--   39  billing.payment_methods
--   40  billing.setup_intents
--   41  billing.tax_ids
--   42  billing_private.declines
--   43  billing.stripe_entitlements
--   44  billing.checkout_sessions
--   45  billing.discount_redemptions
--   46  billing_private.trial_claims
--   47  billing.entitlement_grants
--   48  billing.entitlements
--   49  billing_private.entitlement_history
--   50  billing.access_restrictions
--   51  billing.dunning_cases
--   52  billing.dunning_events
--   53  billing.external_identities
--   54  billing.role_permissions
--   55  billing.memberships
--   56  billing.usage_totals
--   57  billing.usage_records
--   58  billing_private.usage_unique_values
--   59  billing.usage_grants
--   60  billing.usage_burns
--   61  billing.usage_reservations
--   62  billing.usage_adjustments
--   63  billing.usage_alerts
--   64  billing.invitations
--   65  billing_private.invitation_tokens
--   66  billing.contracts
--   67  billing.contract_features
--   68  billing.contract_prices
--   69  billing.contract_settlements
--   70  billing.hook_events
--   71  billing_private.billed_usage
--   72  billing_private.code_guesses
-- =============================================================================


-- -----------------------------------------------------------------------------
-- 1  schemas
-- -----------------------------------------------------------------------------

create schema billing;
create schema billing_admin;
create schema billing_private;

comment on schema billing is
  'What an application''s users may touch: tables under row level security, views, thin RPCs.';
comment on schema billing_admin is
  'What admins may touch: dashboard views and admin RPCs. Every object checks its caller.';
comment on schema billing_private is
  'The machine: inbox, outbox, tasks, rules, audit, and all security definer code. Never exposed.';

revoke all on schema billing, billing_admin, billing_private
  from public, anon, authenticated, service_role;

-- The API roles get no usage on billing_private: the wrappers in billing resolve its names when
-- they are created, so a grant somebody adds to a private table still leads nowhere.
grant usage on schema billing to anon, authenticated, service_role;
grant usage on schema billing_admin to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 2  billing.error_codes
-- -----------------------------------------------------------------------------

create table billing.error_codes (
  code text not null,
  status integer not null,
  message text not null,
  hint text not null,

  primary key (code),
  constraint error_codes_code_is_upper_snake check (code ~ '^[A-Z][A-Z0-9_]*$'),
  constraint error_codes_status_is_http_error check (status between 400 and 599)
);

comment on table billing.error_codes is
  'Every error this package raises: its code, HTTP status, constant message and what to do about '
  'it.';
comment on column billing.error_codes.status is
  'HTTP status. RPCs raise it as SQLSTATE PT<status>, which PostgREST turns into the response '
  'status.';

insert into billing.error_codes (code, status, message, hint) values
  ('ACCOUNT_CLOSED', 422, 'the account was closed',
    'Use another account, or ask an administrator.'),
  ('ACCOUNT_NOT_FOUND', 404, 'there is no such account',
    'Check the account id.'),
  ('ALERT_NOT_FOUND', 404, 'there is no such alert',
    'List billing_admin.alerts for the ids that exist.'),
  ('ALREADY_A_MEMBER', 409, 'this person is a member already',
    'Change their role instead.'),
  ('ALREADY_ON_THIS_PRICE', 422, 'the subscription is already on this price',
    'Choose another price.'),
  ('ALREADY_SUBSCRIBED', 409, 'the account already has a subscription',
    'Change or resume the running subscription instead of starting a second one.'),
  ('APPEND_ONLY', 403, 'this table only takes new rows',
    'Audit rows are never changed or removed; add a correcting row instead.'),
  ('CHECKOUT_IN_PROGRESS', 409, 'another checkout of this account is being prepared',
    'Wait a few seconds and try again.'),
  ('COMMAND_EXPIRED', 422, 'the command is too old to be made',
    'Nobody waits for it any more, or making it again could take effect twice: start anew.'),
  ('COMMAND_NOT_FOUND', 404, 'there is no such command',
    'List billing_admin.command_backlog for the ids that exist.'),
  ('CONTRACT_IN_FORCE', 409, 'a contract binds this',
    'Amend or end the contract with billing_admin.amend_contract() or end_contract().'),
  ('CONTRACT_NOT_FOUND', 404, 'there is no such contract',
    'List billing_admin.contracts for the ids that exist.'),
  ('CUSTOMER_NOT_FOUND', 404, 'the account is not a customer yet',
    'Start a checkout first; it creates the customer.'),
  ('DISCOUNT_NOT_VALID', 422, 'the discount code is not valid',
    'Ask for another code, or go on without one.'),
  ('DISCOUNT_CODE_NOT_FOUND', 404, 'there is no such discount code',
    'List billing_admin.discount_codes for the codes that exist.'),
  ('EVENT_INVALID', 400, 'the payload is not a stripe event',
    'Send the raw body of a Stripe webhook request.'),
  ('EVENT_NOT_FOUND', 404, 'there is no such event',
    'List billing_admin.event_backlog for the ids that exist.'),
  ('FEATURE_NOT_FOUND', 404, 'there is no such feature',
    'List billing.features for the keys that exist.'),
  ('FEATURE_NOT_INCLUDED', 402, 'no plan of the account includes this feature',
    'Offer a plan that does; billing.list_plans() shows which.'),
  ('GRANT_NOT_FOUND', 404, 'there is no such grant',
    'List billing.entitlement_grants for the ids that exist.'),
  ('INCIDENT_NOT_FOUND', 404, 'there is no such incident',
    'List billing_admin.incidents for the ids that exist.'),
  ('INTERNAL_ERROR', 500, 'something went wrong on our side',
    'Try again; if it stays, report the request id.'),
  ('INVITATION_CLOSED', 422, 'the invitation is not open any more',
    'Details say whether it was used, withdrawn or is too old; ask for a new one.'),
  ('INVITATION_NOT_FOUND', 404, 'there is no such invitation',
    'Check that the whole token was passed on.'),
  ('INVALID_TOKEN', 401, 'the access token is not valid or has expired',
    'Sign in again or refresh the session.'),
  ('INVOICE_NOT_FOUND', 404, 'there is no such invoice',
    'Name an invoice of a manual subscription; Stripe''s are paid and voided at Stripe.'),
  ('INVOICE_CLOSED', 422, 'the invoice cannot go from its state to the one asked for',
    'Read its status: paid and void invoices are final.'),
  ('INVALID_TRANSITION', 422, 'the subscription cannot go from its state to the one asked for',
    'Details name both states; billing.subscription_transitions lists what is allowed.'),
  ('LAST_OWNER', 422, 'an organization keeps at least one owner',
    'Make somebody else an owner first, or close the organization.'),
  ('LEASE_LOST', 409, 'the command is no longer leased to this worker',
    'Drop the result; whoever holds the lease now completes the command.'),
  ('LIMIT_REACHED', 402, 'the limit of this feature is reached',
    'Details say what is allowed and used; offer more, or wait for the next period.'),
  ('MEMBER_NOT_FOUND', 404, 'there is no such member',
    'List billing.memberships for who belongs to the organization.'),
  ('METHOD_NOT_ALLOWED', 405, 'this method is not allowed here',
    'See the Allow header.'),
  ('MFA_REQUIRED', 403, 'administrators confirm a second factor first',
    'Verify a second factor, so that the session is aal2, and try again.'),
  ('NOT_ALLOWED', 403, 'your role in this account does not allow this',
    'Details name the permission; ask an owner, or see billing.role_permissions.'),
  ('NOT_A_MEMBER', 403, 'you are not a member of this account',
    'Use one of your own accounts.'),
  ('NOT_AN_ORGANIZATION', 422, 'a personal account has no members',
    'Make an organization with billing.create_organization().'),
  ('NOT_AN_ADMIN', 403, 'this needs a billing administrator',
    'Ask an administrator to add you with billing_admin.add_administrator().'),
  ('NOT_A_STORE_ADMIN', 403, 'this needs an administrator of the store',
    'Ask an administrator to add you with billing_admin.add_store_admin().'),
  ('PAYLOAD_TOO_LARGE', 413, 'the request body is too large',
    'Stripe events are far smaller than the limit; check what is being sent.'),
  ('PAYMENT_DECLINED', 402, 'the payment was declined',
    'Ask for another payment method; details carry Stripe''s reason.'),
  ('PAYMENT_NOT_FOUND', 404, 'there is no such payment',
    'Read the id from billing.payments; what was recorded by hand is given back by hand.'),
  ('PAYMENT_REQUIRED', 402, 'an unpaid invoice has to be settled first',
    'Send the customer to the billing portal to pay the open invoice.'),
  ('PLAN_NOT_FOUND', 404, 'there is no such plan',
    'List billing.plans for the keys that exist.'),
  ('PRICE_NOT_FOUND', 404, 'there is no such price on offer',
    'List the offers with billing.list_plans().'),
  ('RATE_LIMITED', 429, 'too many tries',
    'Wait as many seconds as details.retry_after says.'),
  ('REFUND_TOO_HIGH', 422, 'more than is left of the payment cannot be given back',
    'Details name what is left; refunds on the way count as given back.'),
  ('RESERVATION_NOT_FOUND', 404, 'the account has no such reservation',
    'Keep the id that billing.reserve() answered.'),
  ('RESERVATION_RELEASED', 422, 'the reservation was released',
    'What was used all the same is counted by billing.consume().'),
  ('RESERVATION_SETTLED', 422, 'the reservation was settled',
    'What it used is counted; correct it with billing_admin.correct_usage().'),
  ('ROUTE_NOT_FOUND', 404, 'there is no such route',
    'See the README for the routes of this function.'),
  ('SERVER_ONLY', 403, 'only the server may do this',
    'Call it with a secret key, or through a function of your own that decides who may.'),
  ('SEAT_LIMIT_REACHED', 402, 'all seats of the plan are taken',
    'Change to a plan with more seats, remove a member or withdraw an invitation.'),
  ('SIGNATURE_EXPIRED', 400, 'the signature is outside the time tolerance',
    'Stripe signs each retry anew; check this machine''s clock if it happens often.'),
  ('SIGNATURE_INVALID', 400, 'the signature does not match',
    'Check that STRIPE_WEBHOOK_SECRET is this endpoint''s secret, in the right mode.'),
  ('SIGNATURE_MISSING', 400, 'the signature header is missing',
    'Only Stripe may call this endpoint.'),
  ('STRIPE_REQUEST_FAILED', 502, 'stripe refused the request',
    'Details carry Stripe''s code and message.'),
  ('STRIPE_TIMEOUT', 504, 'stripe did not answer in time',
    'Try again; nothing is done twice.'),
  ('STORE_NOT_FOUND', 404, 'there is no such store',
    'List billing.stores for the keys that exist.'),
  ('SUBSCRIPTION_NOT_FOUND', 404, 'the account has no such subscription',
    'Read billing.my_subscription() first.'),
  ('TASK_NOT_FOUND', 404, 'there is no such task',
    'List billing_admin.tasks for the keys that exist.'),
  ('UNAUTHENTICATED', 401, 'sign in first',
    'Send the user''s access token as Authorization: Bearer.'),
  ('UPSTREAM_UNAVAILABLE', 503, 'the database did not answer in time',
    'Try again; nothing is done twice.'),
  ('USAGE_NOT_FOUND', 404, 'the account has no usage with this key',
    'Give the idempotency key it was recorded with; records are kept for some months.'),
  ('VALIDATION_FAILED', 400, 'the request is not valid',
    'Details name the field and what is wrong with it.'),
  ('WEBHOOK_NOT_CONFIGURED', 500, 'no webhook secret is configured',
    'Set STRIPE_WEBHOOK_SECRET for the stripe-webhook function.');

alter table billing.error_codes enable row level security;

create policy select_anyone on billing.error_codes
  for select
  to anon, authenticated
  using (true);

revoke all on billing.error_codes from public, anon, authenticated, service_role;
grant select on billing.error_codes to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 3  billing_private.fail()
-- -----------------------------------------------------------------------------

create function billing_private.fail(
  p_code text,
  p_details jsonb default '{}'
)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_error billing.error_codes;
begin
  select * into strict v_error
  from billing.error_codes
  where code = p_code;

  raise exception using
    errcode = 'PT' || v_error.status,
    message = v_error.message,
    detail = (p_details || jsonb_build_object('code', v_error.code))::text,
    hint = v_error.hint;
end;
$$;

comment on function billing_private.fail(text, jsonb) is
$$Raises an error of the catalog; the only way errors for callers are raised.

SQLSTATE is PT<status>, which PostgREST turns into that HTTP status
(https://docs.postgrest.org, "Raise errors with HTTP status codes"). `detail` is JSON with the
code and the values.$$;

revoke all on function billing_private.fail(text, jsonb)
  from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 4  billing_private.now()
-- -----------------------------------------------------------------------------

-- The test harness and the local stack replace this function and the view below with a clock they
-- can hold. Production has no back door: a test proves that both are shipped as this.
create function billing_private.now()
returns timestamptz
language plpgsql
stable
parallel safe
set search_path = ''
as $$
begin
  return now();
end;
$$;

comment on function billing_private.now() is
  'The instant all billing logic takes as now: the start of the current transaction.';

revoke all on function billing_private.now() from public, anon, authenticated, service_role;
-- Called by security invoker code that decides access.
grant execute on function billing_private.now() to anon, authenticated, service_role;


-- Postgres sees through a view but calls a function, once for each comparison with each row.
create view billing.clock with (security_invoker = true) as
select now() as at;

comment on view billing.clock is
  'The instant all billing logic takes as now: one row.';

revoke all on billing.clock from public, anon, authenticated, service_role;
grant select on billing.clock to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 5  billing_private.settings
-- -----------------------------------------------------------------------------

create table billing_private.settings (
  only_row boolean not null default true,
  stripe_livemode boolean not null default false,
  functions_url text,
  functions_secret_name text,
  hash_salt uuid not null default gen_random_uuid(),
  repeated_trial text not null default 'flag',
  usage_records_kept interval not null default '3 months',
  usage_closes_after interval not null default '3 days',
  require_mfa_for_admins boolean not null default false,

  primary key (only_row),
  constraint settings_is_one_row check (only_row),
  constraint settings_repeated_trial_is_known check (repeated_trial in ('flag', 'end_trial')),
  constraint settings_doorbell_is_whole check (
    (functions_url is null) = (functions_secret_name is null)
  )
);

comment on table billing_private.settings is
  'Installation-wide settings: exactly one row.';
comment on column billing_private.settings.stripe_livemode is
  'Which Stripe mode this database belongs to. Events of the other mode are stored, never applied.';
comment on column billing_private.settings.hash_salt is
  'Goes into every hash of something personal, so that hashes mean nothing outside this database.';

comment on column billing_private.settings.functions_url is
  'Where the Edge Functions are, for the doorbell; null where another scheduler calls the '
  'dispatcher.';
comment on column billing_private.settings.repeated_trial is
  'What becomes of a trial that was begun with a card or an address that has had one: flag shows it'
  ' among the critical issues, end_trial begins to collect at once.';
comment on column billing_private.settings.require_mfa_for_admins is
  'Administrators may use billing_admin only in a session with a second factor (aal2).';
comment on column billing_private.settings.usage_records_kept is
  'How long single usage records are kept, in whole months; at least this month and the two before.'
  ' Totals are kept for ever.';
comment on column billing_private.settings.usage_closes_after is
  'How long after its end a period of usage is closed: what is heard of it later is an adjustment.';
comment on column billing_private.settings.functions_secret_name is
  'Name in the Vault of a secret key of the project, which opens the dispatcher.';

insert into billing_private.settings default values;

alter table billing_private.settings enable row level security;
create policy select_nobody on billing_private.settings for select to public using (false);

revoke all on billing_private.settings from public, anon, authenticated, service_role;


create function billing_private.salted_hash(p_value text)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return encode(
    sha256(convert_to((select hash_salt from billing_private.settings) || p_value, 'UTF8')), 'hex');
end;
$$;

comment on function billing_private.salted_hash(text) is
  'Tells whether two values are the same (a card, an address) without keeping the value.';

revoke all on function billing_private.salted_hash(text)
  from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 6  billing_private.administrators
-- -----------------------------------------------------------------------------

create table billing_private.administrators (
  user_id uuid not null,
  added_at timestamptz not null default billing_private.now(),
  reason text not null,

  primary key (user_id),
  constraint administrators_reason_is_given check (reason <> '')
);

comment on table billing_private.administrators is
  'Users of the application who may use billing_admin. The database owner and service_role may '
  'always.';

alter table billing_private.administrators enable row level security;
create policy select_nobody on billing_private.administrators for select to public using (false);

revoke all on billing_private.administrators from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 7  who is calling
-- -----------------------------------------------------------------------------

-- Not current_user: inside security definer code that is always the owner.
create function billing_private.caller_role()
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(nullif(current_setting('role', true), 'none'), session_user);
end;
$$;

comment on function billing_private.caller_role() is
  'The database role the request runs as: the role that was set, else the one that connected.';

revoke all on function billing_private.caller_role()
  from public, anon, authenticated, service_role;


create function billing_private.is_trusted()
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Most calls from servers: found without a look at the catalog.
  if current_setting('role', true) = 'service_role' then
    return true;
  end if;
  return exists (
    select
    from pg_catalog.pg_roles
    where rolname = billing_private.caller_role()
      and (
        rolsuper
        or rolname = 'service_role'
        or oid = (select nspowner from pg_catalog.pg_namespace where nspname = 'billing_private')
      )
  );
end;
$$;

comment on function billing_private.is_trusted() is
  'True for the owner of this package, superusers and service_role: callers that bypass row level '
  'security anyway.';

revoke all on function billing_private.is_trusted()
  from public, anon, authenticated, service_role;


-- Every policy and RPC asks this first, so it never raises: a token of another issuer may name its
-- user as it likes. No exception block, which would keep queries from running in parallel.
create function billing_private.user_id()
returns uuid
language plpgsql
stable
parallel safe
security definer -- external_identities shows a user only their own rows, which depend on this
set search_path = ''
as $$
declare
  v_claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_subject text := v_claims ->> 'sub';
  v_issuer text := v_claims ->> 'iss';
  v_user_id uuid;
begin
  -- Supabase Auth's own tokens are not looked up, and their subjects are uuids: to prove it takes
  -- longer than all the rest.
  if v_issuer like '%/auth/v1' then
    if v_subject like '________-____-____-____-____________' then
      return v_subject::uuid;
    end if;
  elsif v_issuer is not null then
    select external_identities.user_id into v_user_id
    from billing.external_identities
    where issuer = v_issuer
      and subject = v_subject;
    if found then
      return v_user_id;
    end if;
  end if;

  if v_subject ~ '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$' then
    return v_subject::uuid;
  end if;
  return null;
end;
$$;

comment on function billing_private.user_id() is
  'The signed-in user: whom an administrator linked the token''s subject to, else the subject where'
  ' it is a uuid; null for visitors and for subjects nobody has linked.';

revoke all on function billing_private.user_id()
  from public, anon, authenticated, service_role;
-- Called by security invoker code that decides access.
grant execute on function billing_private.user_id() to anon, authenticated, service_role;


-- Invoker code that is kept quick by plpgsql cannot name billing_private; a view can.
create view billing.caller with (security_invoker = true) as
select billing_private.user_id() as user_id;

comment on view billing.caller is
  'Who is asking, as this package knows them: one row, with null for visitors.';

revoke all on billing.caller from public, anon, authenticated, service_role;
grant select on billing.caller to anon, authenticated, service_role;


create function billing_private.is_listed_admin()
returns boolean
language plpgsql
stable
security definer -- administrators is readable by nobody
set search_path = ''
as $$
begin
  return exists (
    select from billing_private.administrators where user_id = (select billing_private.user_id())
  );
end;
$$;

comment on function billing_private.is_listed_admin() is
  'True when the signed-in user is listed as administrator, whatever the session.';

revoke all on function billing_private.is_listed_admin()
  from public, anon, authenticated, service_role;


create function billing_private.is_admin()
returns boolean
language plpgsql
stable
security definer -- administrators and settings are readable by nobody
set search_path = ''
as $$
begin
  return billing_private.is_trusted()
    or (
      billing_private.is_listed_admin()
      and (
        auth.jwt() ->> 'aal' is not distinct from 'aal2'
        or not (select require_mfa_for_admins from billing_private.settings)
      )
    );
end;
$$;

comment on function billing_private.is_admin() is
  'True when the caller may use billing_admin: a trusted role, or a user listed as administrator, '
  'with a second factor where the settings require one.';

revoke all on function billing_private.is_admin()
  from public, anon, authenticated, service_role;


create function billing_private.require_admin()
returns void
language plpgsql
stable
security definer -- administrators is readable by nobody
set search_path = ''
as $$
begin
  if billing_private.is_admin() then
    return;
  elsif billing_private.is_listed_admin() then
    perform billing_private.fail('MFA_REQUIRED');
  end if;
  perform billing_private.fail('NOT_AN_ADMIN');
end;
$$;

comment on function billing_private.require_admin() is
  'Refuses a caller who may not use billing_admin (NOT_AN_ADMIN, 403; MFA_REQUIRED, 403, for an '
  'administrator whose session lacks the second factor).';

revoke all on function billing_private.require_admin()
  from public, anon, authenticated, service_role;


create function billing_private.require_reason(p_reason text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if coalesce(p_reason !~ '\S', true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'reason', 'problem', 'a reason is required'));
  end if;
end;
$$;

comment on function billing_private.require_reason(text) is
  'Refuses an empty reason (VALIDATION_FAILED, 400): every manual correction says why.';

revoke all on function billing_private.require_reason(text)
  from public, anon, authenticated, service_role;


create function billing_private.my_account_ids()
returns setof uuid
language plpgsql
stable
rows 3
security definer -- called from policies, one of them that of memberships itself
set search_path = ''
as $$
declare
  v_user_id uuid := billing_private.user_id();
begin
  if v_user_id is null then
    return;
  end if;
  return next v_user_id;
  return query
  select account_id
  from billing.memberships
  where user_id = v_user_id;
end;
$$;

comment on function billing_private.my_account_ids() is
  'The accounts the signed-in user belongs to: their personal account, whose id is the user id, and'
  ' the organizations they are a member of.';

revoke all on function billing_private.my_account_ids()
  from public, anon, authenticated, service_role;
-- Policies call it as the user.
grant execute on function billing_private.my_account_ids() to authenticated;


create function billing_private.my_account_ids(p_permission text)
returns setof uuid
language plpgsql
stable
rows 3
security definer -- called from policies, as the user
set search_path = ''
as $$
declare
  v_user_id uuid := billing_private.user_id();
begin
  if v_user_id is null then
    return;
  end if;
  return next v_user_id;
  return query
  select account_id
  from billing.memberships
  join billing.role_permissions using (role)
  where user_id = v_user_id
    and permission = p_permission;
end;
$$;

comment on function billing_private.my_account_ids(text) is
  'The accounts in which the signed-in user has a permission: all in their personal account, and '
  'what their role gives them in organizations.';

revoke all on function billing_private.my_account_ids(text)
  from public, anon, authenticated, service_role;
-- Policies call it as the user.
grant execute on function billing_private.my_account_ids(text) to authenticated;


create function billing_private.require_permission(
  p_account_id uuid,
  p_permission text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_user_id uuid := billing_private.user_id();
  v_role text;
begin
  if v_user_id = p_account_id or billing_private.is_trusted() then
    return;
  elsif v_user_id is null then
    perform billing_private.fail('UNAUTHENTICATED');
  end if;

  select role into v_role
  from billing.memberships
  where account_id = p_account_id
    and user_id = v_user_id;
  -- The same answer for a foreign account and for none: nobody learns which accounts exist.
  if not found then
    perform billing_private.fail('NOT_A_MEMBER', jsonb_build_object('account_id', p_account_id));
  elsif not exists (
    select
    from billing.role_permissions
    where role = v_role
      and permission = p_permission
  ) then
    perform billing_private.fail('NOT_ALLOWED', jsonb_build_object(
      'account_id', p_account_id, 'role', v_role, 'permission', p_permission));
  end if;
end;
$$;

comment on function billing_private.require_permission(uuid, text) is
$$Refuses a caller who may not do this in the account. Everybody may do all in their personal one,
and trusted callers everywhere.

Errors
  UNAUTHENTICATED  401  nobody is signed in
  NOT_A_MEMBER     403  the account is not one of the caller's
  NOT_ALLOWED      403  the caller's role lacks the permission$$;

revoke all on function billing_private.require_permission(uuid, text)
  from public, anon, authenticated, service_role;


create function billing_private.request_id()
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return left(
    nullif(current_setting('request.headers', true), '')::jsonb ->> 'x-request-id', 200
  );
exception when invalid_text_representation or untranslatable_character then
  return null;
end;
$$;

comment on function billing_private.request_id() is
  'The x-request-id header of the Data API request, or null outside of one.';

revoke all on function billing_private.request_id()
  from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 8  billing_private.set_cause()
-- -----------------------------------------------------------------------------

-- A transaction-local setting, so a write's history row knows its cause without every function
-- passing it along. The acting user is always read from the token, never from here.
create function billing_private.set_cause(
  p_kind text,
  p_reference text,
  p_reason text default null
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform set_config(
    'billing.cause',
    jsonb_build_object('kind', p_kind, 'reference', p_reference, 'reason', p_reason)::text,
    true
  );
end;
$$;

comment on function billing_private.set_cause(text, text, text) is
  'Names what causes the writes that follow in this transaction: stripe_event, command, task, '
  'admin or user; which one; and why.';

revoke all on function billing_private.set_cause(text, text, text)
  from public, anon, authenticated, service_role;


create function billing_private.cause()
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(nullif(current_setting('billing.cause', true), '')::jsonb, '{}');
end;
$$;

comment on function billing_private.cause() is
  'What was named last by set_cause() in this transaction; {} when nothing was.';

revoke all on function billing_private.cause() from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 9  billing.accounts
-- -----------------------------------------------------------------------------

-- No foreign key to auth.users: deleting a user must never take the financial record along.
create table billing.accounts (
  id uuid not null default gen_random_uuid(),
  kind text not null default 'personal',
  name text,
  is_auth_user boolean not null default false,
  created_at timestamptz not null default billing_private.now(),
  closed_at timestamptz,

  primary key (id),
  constraint accounts_kind_is_known check (kind in ('personal', 'organization'))
);

comment on table billing.accounts is
  'Who subscribes. A personal account has its user''s id and is made when it is first needed.';
comment on column billing.accounts.is_auth_user is
  'Its user was one of Supabase Auth when it was made; users of other issuers are in no table.';
comment on column billing.accounts.closed_at is
  'Since then it has nothing and pays for nothing; what was paid is kept.';

alter table billing.accounts enable row level security;

create policy select_member on billing.accounts
  for select
  to authenticated
  using (id = any (array(select billing_private.my_account_ids())));

revoke all on billing.accounts from public, anon, authenticated, service_role;
grant select on billing.accounts to authenticated, service_role;


create function billing_private.ensure_account(p_user_id uuid)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not exists (select from billing.accounts where id = p_user_id) then
    insert into billing.accounts (id, kind, is_auth_user)
    values (
      p_user_id, 'personal', exists (select from auth.users where users.id = p_user_id)
    )
    on conflict (id) do nothing;
  end if;
  return p_user_id;
end;
$$;

comment on function billing_private.ensure_account(uuid) is
  'Makes the personal account of a user unless it exists, and returns its id. Twice or at once: '
  'one account.';

revoke all on function billing_private.ensure_account(uuid)
  from public, anon, authenticated, service_role;


create function billing_private.known_account(p_id uuid)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
begin
  if exists (select from billing.accounts where id = p_id) then
    return p_id;
  end if;
  -- A user who has never come near billing has no account yet.
  if exists (select from auth.users where id = p_id) then
    return billing_private.ensure_account(p_id);
  end if;
  return null;
end;
$$;

comment on function billing_private.known_account(uuid) is
  'The account with an id somebody else names: it exists, or is made because a user has the id; '
  'null when neither.';

revoke all on function billing_private.known_account(uuid)
  from public, anon, authenticated, service_role;


create function billing_private.resolve_account(
  p_account_id uuid,
  p_permission text default 'use_features'
)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_user_id uuid := billing_private.user_id();
  v_account_id uuid := coalesce(p_account_id, v_user_id);
begin
  if billing_private.is_trusted() then
    if p_account_id is null then
      perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
        'field', 'account_id', 'problem', 'without a signed-in user the account must be named'));
    elsif not exists (select from billing.accounts where id = p_account_id) then
      perform billing_private.fail('ACCOUNT_NOT_FOUND', jsonb_build_object(
        'account_id', p_account_id));
    end if;
  elsif v_user_id is null then
    perform billing_private.fail('UNAUTHENTICATED');
  elsif v_account_id = v_user_id then
    perform billing_private.ensure_account(v_user_id);
  else
    perform billing_private.require_permission(v_account_id, p_permission);
  end if;

  if p_permission = 'manage_billing' and exists (
    select
    from billing.accounts
    where id = v_account_id
      and closed_at is not null
  ) then
    perform billing_private.fail('ACCOUNT_CLOSED', jsonb_build_object(
      'account_id', v_account_id));
  end if;
  return v_account_id;
end;
$$;

comment on function billing_private.resolve_account(uuid, text) is
$$The account a request is about: the one named if the caller may do this in it, else the caller's
own.

Errors
  VALIDATION_FAILED  400  a trusted caller named no account
  UNAUTHENTICATED    401  nobody is signed in
  NOT_A_MEMBER       403  the account is not one of the caller's
  NOT_ALLOWED        403  the caller's role in it lacks the permission
  ACCOUNT_NOT_FOUND  404  a trusted caller named an account that does not exist
  ACCOUNT_CLOSED     422  it was closed, and what is asked for is about its billing$$;

revoke all on function billing_private.resolve_account(uuid, text)
  from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 10  billing.profiles
-- -----------------------------------------------------------------------------

create table billing.profiles (
  account_id uuid not null references billing.accounts (id) on delete restrict,
  membership_tier text,
  tier_rank integer not null default 0,
  features text[] not null default '{}',
  access_until timestamptz,
  updated_at timestamptz not null default billing_private.now(),

  primary key (account_id)
);

comment on table billing.profiles is
  'Each account''s membership at a glance, kept in step by billing_private.refresh_entitlements().'
  ' Decide access with billing.has_entitlement(), which also looks at the clock.';
comment on column billing.profiles.membership_tier is
  'Tier of the highest-ranking plan that gives access; null without one.';
comment on column billing.profiles.features is
  'Keys of the features the account has, sorted.';
comment on column billing.profiles.access_until is
  'When the last entitlement ends, exclusive; infinity for an unlimited grant; null without any.';

alter table billing.profiles enable row level security;

create policy select_member on billing.profiles
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.profiles from public, anon, authenticated, service_role;
grant select on billing.profiles to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 11  billing.stores
-- -----------------------------------------------------------------------------

create table billing.stores (
  id uuid not null default gen_random_uuid(),
  key text not null,
  name text not null,
  is_active boolean not null default true,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (key),
  constraint stores_key_is_a_slug check (key ~ '^[a-z0-9][a-z0-9_-]*$')
);

comment on table billing.stores is
  'Sellers within the platform. A plan belongs to one store, or to the platform itself.';

alter table billing.stores enable row level security;

create policy select_anyone on billing.stores
  for select
  to anon, authenticated
  using (is_active);

revoke all on billing.stores from public, anon, authenticated, service_role;
grant select on billing.stores to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 12  billing_private.store_admins
-- -----------------------------------------------------------------------------

create table billing_private.store_admins (
  store_id uuid not null references billing.stores (id) on delete restrict,
  user_id uuid not null,
  added_at timestamptz not null default billing_private.now(),
  reason text not null,

  primary key (user_id, store_id),
  constraint store_admins_reason_is_given check (reason <> '')
);

comment on table billing_private.store_admins is
  'Users of the application who may use billing_admin for what belongs to a store.';

create index store_admins_store_id_idx on billing_private.store_admins (store_id);

alter table billing_private.store_admins enable row level security;
create policy select_nobody on billing_private.store_admins for select to public using (false);

revoke all on billing_private.store_admins from public, anon, authenticated, service_role;


create function billing_private.store_scope()
returns uuid[]
language plpgsql
stable
security definer -- store_admins and settings are readable by nobody
set search_path = ''
as $$
declare
  v_store_ids uuid[];
begin
  if billing_private.is_admin() then
    return null;
  end if;

  v_store_ids := array(
    select store_id from billing_private.store_admins where user_id = billing_private.user_id());
  if v_store_ids = '{}' or billing_private.is_listed_admin() then
    perform billing_private.require_admin(); -- which says why not
  elsif auth.jwt() ->> 'aal' is distinct from 'aal2'
    and (select require_mfa_for_admins from billing_private.settings)
  then
    perform billing_private.fail('MFA_REQUIRED');
  end if;
  return v_store_ids;
end;
$$;

comment on function billing_private.store_scope() is
  'The stores the caller may use billing_admin for: null for all, which is for administrators. '
  'Refuses whoever administers nothing.';

revoke all on function billing_private.store_scope()
  from public, anon, authenticated, service_role;


create function billing_private.require_store(p_store_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_scope uuid[] := billing_private.store_scope();
begin
  if v_scope is not null and not coalesce(p_store_id = any (v_scope), false) then
    perform billing_private.fail('NOT_A_STORE_ADMIN');
  end if;
end;
$$;

comment on function billing_private.require_store(uuid) is
  'Refuses a caller who may not use billing_admin for a store (NOT_AN_ADMIN or NOT_A_STORE_ADMIN, '
  '403). What belongs to no store is for administrators.';

revoke all on function billing_private.require_store(uuid)
  from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 13  billing_private.store_revenue_shares
-- -----------------------------------------------------------------------------

create table billing_private.store_revenue_shares (
  id uuid not null default gen_random_uuid(),
  store_id uuid not null references billing.stores (id) on delete restrict,
  effective_from timestamptz not null,
  share_basis_points integer not null,
  reason text not null,

  primary key (id),
  unique (store_id, effective_from),
  constraint store_revenue_shares_is_a_part check (share_basis_points between 0 and 10000),
  constraint store_revenue_shares_reason_is_given check (reason <> '')
);

comment on table billing_private.store_revenue_shares is
  'The part of its revenue that a store gets, from an instant on; nothing before the first row. '
  'Rows are only added, so what was earned stays as it was.';
comment on column billing_private.store_revenue_shares.share_basis_points is
  'Hundredths of a percent: 7000 for 70 %.';

alter table billing_private.store_revenue_shares enable row level security;
create policy select_nobody on billing_private.store_revenue_shares
  for select to public using (false);

revoke all on billing_private.store_revenue_shares from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 14  billing.features
-- -----------------------------------------------------------------------------

create table billing.features (
  key text not null,
  name text not null,
  description text,
  kind text not null default 'boolean',
  aggregation text not null default 'sum',
  alert_percents integer[] not null default '{80,100}',
  clients_may_consume boolean not null default false,
  stripe_event_name text,
  counts_rows boolean not null default false,
  created_at timestamptz not null default billing_private.now(),

  primary key (key),
  constraint features_key_is_a_slug check (key ~ '^[a-z0-9][a-z0-9_-]*$'),
  constraint features_kind_is_known check (kind in ('boolean', 'limit', 'metered')),
  constraint features_aggregation_is_known check (
    aggregation in ('sum', 'count', 'max', 'unique', 'latest')
  ),
  constraint features_held_is_a_sum check (kind <> 'limit' or aggregation = 'sum'),
  constraint features_alert_percents_are_positive check (0 < all (alert_percents)),
  constraint features_stripe_knows_the_aggregation check (
    stripe_event_name is null
    or (kind = 'metered' and aggregation in ('sum', 'count', 'latest'))
  )
);

comment on table billing.features is
  'What can be given: boolean (on or off), limit (up to n at a time) or metered (n per period).';
comment on column billing.features.aggregation is
  'How records of a metered feature make its total: their sum, their count, the highest, the '
  'number of unique values, or the latest.';
comment on column billing.features.alert_percents is
  'At which shares of the allowance billing.usage_alerts is told, once per period.';
comment on column billing.features.clients_may_consume is
  'Whether members may count units themselves; otherwise only the server does: service_role, '
  'triggers and functions of the application.';
comment on column billing.features.stripe_event_name is
  'The meter of Stripe''s that each record is reported to; null for none.';
comment on column billing.features.counts_rows is
  'Whether rows of the application''s tables are what is counted; kept by '
  'billing_admin.meter_table().';

alter table billing.features enable row level security;

create policy select_anyone on billing.features
  for select
  to anon, authenticated
  using (true);

revoke all on billing.features from public, anon, authenticated, service_role;
grant select on billing.features to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 15  billing.access_policies
-- -----------------------------------------------------------------------------

create table billing.access_policies (
  key text not null,
  description text not null,
  paused text not null default 'none',
  full_refund text not null default 'none',
  partial_refund text not null default 'full',
  dispute_opened text not null default 'read_only',
  dispute_lost text not null default 'none',
  dispute_won text not null default 'full',

  primary key (key),
  constraint access_policies_key_is_a_slug check (key ~ '^[a-z0-9][a-z0-9_-]*$'),
  constraint access_policies_paused_is_known check (paused in ('full', 'read_only', 'none')),
  constraint access_policies_refunds_are_known check (
    full_refund in ('full', 'read_only', 'none') and partial_refund in ('full', 'read_only', 'none')
  ),
  constraint access_policies_disputes_are_known check (
    dispute_opened in ('full', 'read_only', 'none')
    and dispute_lost in ('full', 'read_only', 'none')
    and dispute_won in ('full', 'read_only', 'none')
  )
);

comment on table billing.access_policies is
  'What a subscription still gives while it is not simply paid: full, read_only or none. A plan '
  'names its policy; what holds while payment is overdue is in its dunning policy.';
comment on column billing.access_policies.paused is
  'While status is paused, or collection is paused by voiding invoices: then nobody pays for the '
  'period. Invoices that are kept as drafts or written off mean that the service goes on.';
comment on column billing.access_policies.full_refund is
  'Of the period a payment was for, once all of it was given back.';
comment on column billing.access_policies.partial_refund is
  'Of the period a payment was for, once a part of it was given back.';
comment on column billing.access_policies.dispute_opened is
  'While the bank decides about a disputed payment.';
comment on column billing.access_policies.dispute_lost is
  'Until the period that is running then is over.';

insert into billing.access_policies (key, description) values
  ('standard', 'a pause or refund in full ends access, a dispute leaves reading until it is lost');

alter table billing.access_policies enable row level security;

create policy select_anyone on billing.access_policies
  for select
  to anon, authenticated
  using (true);

revoke all on billing.access_policies from public, anon, authenticated, service_role;
grant select on billing.access_policies to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 16  billing.dunning_policies
-- -----------------------------------------------------------------------------

create table billing.dunning_policies (
  key text not null,
  description text not null,
  max_retries integer not null default 4,
  retry_offsets interval[],
  retry_window interval not null default '30 days',

  primary key (key),
  constraint dunning_policies_key_is_a_slug check (key ~ '^[a-z0-9][a-z0-9_-]*$'),
  constraint dunning_policies_retries_are_not_negative check (max_retries >= 0),
  constraint dunning_policies_offsets_are_not_negative check (interval '0' <= all (retry_offsets)),
  constraint dunning_policies_window_is_not_negative check (retry_window >= interval '0')
);

comment on table billing.dunning_policies is
  'How an overdue invoice is treated. A plan names its policy; billing.dunning_stages says what '
  'happens when.';
comment on column billing.dunning_policies.max_retries is
  'How often we try to collect where Stripe does not try again itself; zero for never. The limits '
  'of the card networks hold whatever is written here.';
comment on column billing.dunning_policies.retry_offsets is
  'When each retry is due, counted from the first failure; null for 1, 2, 4, 8, … days.';
comment on column billing.dunning_policies.retry_window is
  'How long after the first failure an invoice is still retried.';

insert into billing.dunning_policies (key, description) values
  ('standard', 'remind on day 0, 3 and 7; whether anything ends is left to Stripe''s settings');

alter table billing.dunning_policies enable row level security;

create policy select_anyone on billing.dunning_policies
  for select
  to anon, authenticated
  using (true);

revoke all on billing.dunning_policies from public, anon, authenticated, service_role;
grant select on billing.dunning_policies to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 17  billing.dunning_stages
-- -----------------------------------------------------------------------------

create table billing.dunning_stages (
  id uuid not null default gen_random_uuid(),
  policy_key text not null references billing.dunning_policies (key) on delete cascade,
  begins_after interval not null,
  action text not null,

  primary key (id),
  unique (policy_key, action, begins_after),
  constraint dunning_stages_begin_is_not_negative check (begins_after >= interval '0'),
  constraint dunning_stages_action_is_known check (
    action in ('notify', 'read_only', 'suspend', 'mark_uncollectible', 'cancel')
  )
);

comment on table billing.dunning_stages is
  'What happens to an overdue invoice and its subscription, and how long after the first failure.';
comment on column billing.dunning_stages.action is
  'notify: tell the customer; read_only, suspend: what the subscription gives from then on; '
  'mark_uncollectible: write the invoice off; cancel: end the subscription.';

insert into billing.dunning_stages (policy_key, begins_after, action) values
  ('standard', '0', 'notify'),
  ('standard', '3 days', 'notify'),
  ('standard', '7 days', 'notify');

alter table billing.dunning_stages enable row level security;

create policy select_anyone on billing.dunning_stages
  for select
  to anon, authenticated
  using (true);

revoke all on billing.dunning_stages from public, anon, authenticated, service_role;
grant select on billing.dunning_stages to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 18  billing.plans
-- -----------------------------------------------------------------------------

create table billing.plans (
  id uuid not null default gen_random_uuid(),
  key text not null,
  name text not null,
  description text,
  kind text not null default 'base',
  store_id uuid references billing.stores (id) on delete restrict,
  tier text,
  tier_rank integer not null default 0,
  is_active boolean not null default true,
  is_listed boolean not null default true,
  version integer not null default 1,
  seat_policy text not null default 'fixed',
  renewal_grace interval not null default '3 hours',
  past_due_grace interval not null default '3 days',
  access_policy_key text not null default 'standard'
    references billing.access_policies (key) on delete restrict,
  dunning_policy_key text not null default 'standard'
    references billing.dunning_policies (key) on delete restrict,
  stripe_product_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (key),
  unique (stripe_product_id),
  constraint plans_kind_is_known check (kind in ('base', 'add_on')),
  constraint plans_seat_policy_is_known check (
    seat_policy in ('fixed', 'members', 'members_and_invitations')
  ),
  constraint plans_graces_are_not_negative check (
    renewal_grace >= interval '0' and past_due_grace >= interval '0'
  )
);

comment on table billing.plans is
  'What can be subscribed to: a Stripe product with the features it gives.';
comment on column billing.plans.kind is
  'base: an account has one at a time; add_on: next to a base plan.';
comment on column billing.plans.store_id is
  'The store that sells it; null for the platform.';
comment on column billing.plans.tier is
  'Membership tier, shown in profiles; plans of several stores may share one.';
comment on column billing.plans.tier_rank is
  'Higher is more: moving up is an upgrade (now), moving down a downgrade (at period end).';
comment on column billing.plans.is_listed is
  'Shown to everyone. Plans made from unknown Stripe products wait unlisted for an admin.';
comment on column billing.plans.version is
  'The contents on sale: billing.plan_features of this version. Whoever bought an earlier one '
  'keeps it.';
comment on column billing.plans.seat_policy is
  'Where the quantity of an organization''s subscription comes from: fixed (from whoever buys), '
  'members, or members_and_invitations (an open invitation holds a seat).';
comment on column billing.plans.renewal_grace is
  'How long access outlives a period end, so a late webhook locks nobody out. None once a '
  'cancellation is scheduled.';
comment on column billing.plans.past_due_grace is
  'How long access outlives the first failed payment; zero for none. Where the dunning policy has '
  'stages of access (read_only, suspend), these decide instead.';

create index plans_store_id_idx on billing.plans (store_id);
create index plans_access_policy_key_idx on billing.plans (access_policy_key);
create index plans_dunning_policy_key_idx on billing.plans (dunning_policy_key);

alter table billing.plans enable row level security;

create policy select_anyone on billing.plans
  for select
  to anon, authenticated
  using (is_listed);

revoke all on billing.plans from public, anon, authenticated, service_role;
grant select on billing.plans to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 19  billing.plan_versions
-- -----------------------------------------------------------------------------

create table billing.plan_versions (
  plan_id uuid not null references billing.plans (id) on delete cascade,
  version integer not null,
  published_at timestamptz not null default billing_private.now(),
  reason text,

  primary key (plan_id, version),
  constraint plan_versions_version_is_positive check (version > 0)
);

comment on table billing.plan_versions is
  'When each version of a plan''s contents went on sale. A subscription item names the version '
  'that was bought with it.';
comment on column billing.plan_versions.reason is
  'Why it was published; null for the first.';

alter table billing.plan_versions enable row level security;

create policy select_anyone on billing.plan_versions
  for select
  to anon, authenticated
  using (plan_id = any (array(select id from billing.plans where is_listed)));

revoke all on billing.plan_versions from public, anon, authenticated, service_role;
grant select on billing.plan_versions to anon, authenticated, service_role;


create function billing_private.add_first_versions()
returns trigger
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing.plan_versions (plan_id, version)
  select id, 1 from rows_after;
  return null;
end;
$$;

comment on function billing_private.add_first_versions() is
  'Gives each new plan the first version of its contents.';

revoke all on function billing_private.add_first_versions()
  from public, anon, authenticated, service_role;

create trigger t040_first_version
  after insert on billing.plans
  referencing new table as rows_after
  for each statement execute function billing_private.add_first_versions();


-- -----------------------------------------------------------------------------
-- 20  billing.plan_features
-- -----------------------------------------------------------------------------

create table billing.plan_features (
  plan_id uuid not null references billing.plans (id) on delete cascade,
  version integer not null default 1,
  feature_key text not null references billing.features (key) on delete restrict,
  limit_value bigint,
  resets_every interval,
  overage text not null default 'refuse',
  overage_limit bigint,
  rollover_floor bigint not null default 0,
  rollover_cap bigint not null default 0,
  on_plan_change text not null default 'keep',

  primary key (plan_id, version, feature_key),
  foreign key (plan_id, version)
    references billing.plan_versions (plan_id, version) on delete cascade,
  constraint plan_features_limit_is_not_negative check (limit_value >= 0),
  constraint plan_features_reset_is_at_least_an_hour check (resets_every >= interval '1 hour'),
  constraint plan_features_overage_is_known check (overage in ('refuse', 'allow')),
  constraint plan_features_overage_is_not_negative check (overage_limit >= 0),
  constraint plan_features_rollover_is_ordered check (
    0 <= rollover_floor and rollover_floor <= rollover_cap
  ),
  constraint plan_features_plan_change_is_known check (on_plan_change in ('keep', 'scale'))
);

comment on table billing.plan_features is
  'Which features a version of a plan gives, and how much of each. What is written to a version '
  'reaches all who have it: corrections are made so, changes by '
  'billing_admin.publish_plan_version().';
comment on column billing.plan_features.limit_value is
  'Units of a limit or metered feature; null for unlimited, and for boolean features.';
comment on column billing.plan_features.resets_every is
  'Length of a period of a metered feature, from the subscription''s anchor; null for the price''s '
  'own interval.';
comment on column billing.plan_features.overage is
  'Beyond the limit: refuse, or allow and count (a soft limit).';
comment on column billing.plan_features.overage_limit is
  'How far beyond a soft limit; null for any distance.';
comment on column billing.plan_features.rollover_cap is
  'How many unused units of a period are added to the next, at most; 0 for none.';
comment on column billing.plan_features.rollover_floor is
  'How many units are added to the next period at least, even where none were left.';
comment on column billing.plan_features.on_plan_change is
  'What a period allows whose plan changes under way: keep, the better limit it has had; or scale, '
  'each limit''s share of the time. Prepaid units and leftovers stay in any case.';

create index plan_features_feature_key_idx on billing.plan_features (feature_key);

alter table billing.plan_features enable row level security;

create policy select_anyone on billing.plan_features
  for select
  to anon, authenticated
  using (plan_id = any (array(select id from billing.plans where is_listed)));

revoke all on billing.plan_features from public, anon, authenticated, service_role;
grant select on billing.plan_features to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 21  billing.prices
-- -----------------------------------------------------------------------------

create table billing.prices (
  id uuid not null default gen_random_uuid(),
  key text,
  plan_id uuid references billing.plans (id) on delete restrict,
  currency text not null,
  unit_amount_minor bigint,
  unit_amount_decimal numeric,
  billing_interval text,
  interval_count integer not null default 1,
  usage_type text not null default 'licensed',
  billing_scheme text not null default 'per_unit',
  tiers_mode text,
  tiers jsonb,
  package_size bigint,
  package_rounding text,
  trial_days integer,
  is_active boolean not null default true,
  is_listed boolean not null default true,
  replaced_by uuid references billing.prices (id) on delete restrict,
  stripe_price_id text,
  stripe_product_id text,
  stripe_meter_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_price_id),
  constraint prices_currency_is_iso_4217 check (currency ~ '^[a-z]{3}$'),
  constraint prices_tiers_are_a_list check (jsonb_typeof(tiers) = 'array'),
  constraint prices_package_is_positive check (package_size > 0),
  constraint prices_package_is_whole check (
    (package_size is null) = (package_rounding is null)
  ),
  constraint prices_interval_count_is_positive check (interval_count > 0),
  constraint prices_trial_is_not_negative check (trial_days >= 0)
);

comment on table billing.prices is
  'What a plan costs, how often, in one currency. A price never changes what it costs: a new one '
  'replaces it.';
comment on column billing.prices.key is
  'Name used by applications; Stripe calls it lookup_key.';
comment on column billing.prices.unit_amount_minor is
  'Per interval, in the currency''s smallest unit; null when it is fractional or tiered.';
comment on column billing.prices.unit_amount_decimal is
  'The exact unit amount in the smallest unit, with fractions.';
comment on column billing.prices.billing_interval is
  'day, week, month or year; null for a one-time price.';
comment on column billing.prices.tiers_mode is
  'graduated (each unit costs what its tier says) or volume (all cost what the last one''s says); '
  'null without tiers.';
comment on column billing.prices.tiers is
  'As Stripe writes them: up_to (null for the rest), unit_amount and flat_amount or their '
  '_decimal.';
comment on column billing.prices.package_size is
  'Units sold together for the unit amount; Stripe calls it transform_quantity.divide_by.';
comment on column billing.prices.package_rounding is
  'up or down: whether a package that is begun costs a whole one, or nothing.';
comment on column billing.prices.replaced_by is
  'The price that takes its key over, at another amount; whoever has this one keeps it.';
comment on column billing.prices.stripe_meter_id is
  'The meter of Stripe''s that counts what a metered price bills.';
comment on column billing.prices.stripe_product_id is
  'Stripe''s product; plan_id is bound to the plan of that product once it is known.';

-- Not a constraint on all rows: Stripe moves a lookup key from price to price, and the events come
-- in any order.
create unique index prices_key_idx on billing.prices (key) where is_active;
create index prices_plan_id_idx on billing.prices (plan_id);
create index prices_replaced_by_idx on billing.prices (replaced_by);

alter table billing.prices enable row level security;

create policy select_anyone on billing.prices
  for select
  to anon, authenticated
  using (is_listed and plan_id = any (array(select id from billing.plans where is_listed)));

revoke all on billing.prices from public, anon, authenticated, service_role;
grant select on billing.prices to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 22  billing.customers
-- -----------------------------------------------------------------------------

create table billing.customers (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  is_primary boolean not null default false,
  stripe_customer_id text,
  email text,
  name text,
  currency text,
  is_delinquent boolean not null default false,
  told_email text,
  told_name text,
  stripe_default_payment_method_id text,
  deleted_at timestamptz,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_customer_id),
  constraint customers_is_known_to_somebody check (
    account_id is not null or stripe_customer_id is not null
  ),
  constraint customers_primary_has_an_account check (not is_primary or account_id is not null)
);

comment on table billing.customers is
  'Stripe''s customers and whose they are. A row without Stripe id is the claim taken before the '
  'customer is created; a row without account waits to be bound.';
comment on column billing.customers.told_email is
  'The account''s own address when it was last looked at, as told_name is its name; email and name '
  'are what Stripe has.';
comment on column billing.customers.is_primary is
  'The account''s oldest customer that is not deleted, which new checkouts use.';
comment on column billing.customers.created_at is
  'When the customer was made at Stripe, as far as Stripe has said; else when it was heard of.';
comment on column billing.customers.deleted_at is
  'When the customer was deleted at Stripe; its subscriptions ended then.';

-- The claim: two checkouts at once cannot create two customers.
create unique index customers_account_id_primary_idx on billing.customers (account_id)
  where is_primary and deleted_at is null;
create index customers_account_id_idx on billing.customers (account_id);

alter table billing.customers enable row level security;

create policy select_member on billing.customers
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.customers from public, anon, authenticated, service_role;
grant select on billing.customers to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 23  billing.subscriptions
-- -----------------------------------------------------------------------------

create table billing.subscriptions (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  provider text not null default 'stripe',
  status text not null,
  price_id uuid references billing.prices (id) on delete restrict,
  quantity bigint,
  currency text,
  started_at timestamptz,
  billing_anchor timestamptz,
  current_period_start timestamptz,
  current_period_end timestamptz,
  trial_start timestamptz,
  trial_end timestamptz,
  past_due_since timestamptz,
  cancel_at timestamptz,
  cancel_at_period_end boolean not null default false,
  canceled_at timestamptz,
  cancellation_reason text,
  cancellation_feedback jsonb,
  ended_at timestamptz,
  collection_method text,
  pause_collection jsonb,
  pending_update jsonb,
  manual_kind text,
  payment_terms_days integer,
  credit_minor bigint not null default 0,
  pending_price_id uuid references billing.prices (id) on delete restrict,
  pending_quantity bigint,
  pending_change_at timestamptz,
  pause_at timestamptz,
  pause_terms jsonb,
  stripe_subscription_id text,
  stripe_customer_id text,
  stripe_latest_invoice_id text,
  stripe_default_payment_method_id text,
  stripe_schedule_id text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default billing_private.now(),
  updated_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_subscription_id),
  constraint subscriptions_provider_is_known check (provider in ('stripe', 'manual')),
  constraint subscriptions_status_is_given check (status <> ''),
  constraint subscriptions_period_is_ordered check (current_period_start <= current_period_end),
  constraint subscriptions_stripe_has_an_id check (
    (provider = 'stripe') = (stripe_subscription_id is not null)
  ),
  constraint subscriptions_manual_has_an_owner check (
    provider = 'stripe' or (account_id is not null and price_id is not null)
  ),
  constraint subscriptions_manual_kind_is_known check (
    manual_kind in ('complimentary', 'invoiced', 'gifted')
  ),
  constraint subscriptions_manual_has_a_kind check (
    (provider = 'manual') = (manual_kind is not null)
  ),
  constraint subscriptions_terms_are_for_invoices check (
    (payment_terms_days >= 0 and manual_kind = 'invoiced')
    or (payment_terms_days is null and manual_kind is distinct from 'invoiced')
  ),
  constraint subscriptions_credit_is_not_negative check (credit_minor >= 0),
  constraint subscriptions_pending_change_has_a_date check (
    (pending_price_id is null) = (pending_change_at is null)
  ),
  constraint subscriptions_pause_to_come_has_terms check (
    (pause_at is null) = (pause_terms is null)
  ),
  constraint subscriptions_pending_quantity_is_of_a_change check (
    pending_quantity is null or pending_price_id is not null
  )
);

comment on table billing.subscriptions is
  'Agreements to pay for a plan. Stripe''s are mirrored; manual ones (complimentary, invoiced, '
  'gifted) live here alone.';
comment on column billing.subscriptions.status is
  'Stripe''s vocabulary, which is open: a value nobody knows is stored and gives no access.';
comment on column billing.subscriptions.price_id is
  'Price of the base item; null while that price is not in the catalog.';
comment on column billing.subscriptions.billing_anchor is
  'Period n starts at anchor + n intervals (UTC), never at the previous end + 1, so month ends do '
  'not drift.';
comment on column billing.subscriptions.current_period_end is
  'End of the base item''s period, exclusive.';
comment on column billing.subscriptions.past_due_since is
  'When the running series of failed payments began; null unless past_due.';
comment on column billing.subscriptions.canceled_at is
  'When cancellation was asked for; the end is ended_at.';
comment on column billing.subscriptions.pending_update is
  'A change that waits for its invoice to be paid, as Stripe shows it; dropped at its expires_at.';
comment on column billing.subscriptions.cancellation_feedback is
  'What the customer said about it: feedback (one of Stripe''s words) and comment.';
comment on column billing.subscriptions.pending_price_id is
  'The price that takes over at pending_change_at; the running one where only the seats change.';
comment on column billing.subscriptions.pending_quantity is
  'The seats from then on; null for as many as there are.';
comment on column billing.subscriptions.pause_at is
  'When a pause is to begin, with pause_terms as pause_collection: Stripe knows no pause to come, '
  'so it is asked for at that time.';

create index subscriptions_account_id_idx on billing.subscriptions (account_id);
create index subscriptions_price_id_idx on billing.subscriptions (price_id);
create index subscriptions_pending_price_id_idx on billing.subscriptions (pending_price_id);
create index subscriptions_stripe_customer_id_idx on billing.subscriptions (stripe_customer_id);

-- Stripe's side is guarded by the checkout claim: a mirror must store whatever it is told.
comment on column billing.subscriptions.manual_kind is
  'Of a subscription without Stripe: complimentary (free, until further notice), gifted (free, for '
  'a term) or invoiced (an invoice for each period, paid outside Stripe).';
comment on column billing.subscriptions.payment_terms_days is
  'Days from the start of a period until its invoice is due.';
comment on column billing.subscriptions.credit_minor is
  'What changes of an invoiced subscription left to its account''s good: taken off its next '
  'invoices.';

create unique index subscriptions_one_manual_idx on billing.subscriptions (account_id)
  where provider = 'manual' and ended_at is null;

alter table billing.subscriptions enable row level security;

create policy select_member on billing.subscriptions
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.subscriptions from public, anon, authenticated, service_role;
grant select on billing.subscriptions to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 24  billing.subscription_items
-- -----------------------------------------------------------------------------

create table billing.subscription_items (
  id uuid not null default gen_random_uuid(),
  subscription_id uuid not null references billing.subscriptions (id) on delete cascade,
  price_id uuid references billing.prices (id) on delete restrict,
  plan_version integer not null default 1,
  version_moved_at timestamptz,
  quantity bigint,
  current_period_start timestamptz,
  current_period_end timestamptz,
  stripe_subscription_item_id text,
  stripe_price_id text,
  stripe_product_id text,

  primary key (id),
  unique (stripe_subscription_item_id)
);

comment on table billing.subscription_items is
  'What a subscription consists of: base plan, add-ons, metered prices, each with its own period. '
  'Access follows each item.';
comment on column billing.subscription_items.quantity is
  'Null for metered prices.';
comment on column billing.subscription_items.plan_version is
  'The version of the plan''s contents that was bought with this price.';
comment on column billing.subscription_items.version_moved_at is
  'When billing_admin.migrate_plan() put it on another version than the one bought; null if never.';
comment on column billing.subscription_items.price_id is
  'Null while Stripe''s price is not in the catalog; such an item gives nothing.';

create index subscription_items_subscription_id_idx
  on billing.subscription_items (subscription_id);
create index subscription_items_price_id_idx on billing.subscription_items (price_id);

alter table billing.subscription_items enable row level security;

create policy select_member on billing.subscription_items
  for select
  to authenticated
  using (
    subscription_id = any (array(
      select subscriptions.id
      from billing.subscriptions
      where account_id = any (array(select billing_private.my_account_ids()))
    ))
  );

revoke all on billing.subscription_items from public, anon, authenticated, service_role;
grant select on billing.subscription_items to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 25  billing.discounts
-- -----------------------------------------------------------------------------

create table billing.discounts (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  is_listed boolean not null default false,
  starts_at timestamptz,
  ends_at timestamptz,
  removed_at timestamptz,
  stripe_discount_id text not null,
  stripe_coupon_id text,
  stripe_promotion_code_id text,
  stripe_customer_id text,
  stripe_subscription_id text,
  stripe_subscription_item_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_discount_id)
);

comment on table billing.discounts is
  'Coupons in use: on a subscription, on one of its items, or on all a customer buys.';
comment on column billing.discounts.is_listed is
  'The subscription, or the customer, names it: it comes off the next invoice until ends_at.';
comment on column billing.discounts.ends_at is
  'Null for one that does not end, or ends with the next invoice.';
comment on column billing.discounts.removed_at is
  'When Stripe said that it is gone.';
comment on column billing.discounts.stripe_subscription_id is
  'Null for a discount of the customer, on all it buys.';

create index discounts_account_id_idx on billing.discounts (account_id);
create index discounts_stripe_customer_id_idx on billing.discounts (stripe_customer_id);
create index discounts_stripe_subscription_id_idx on billing.discounts (stripe_subscription_id);

alter table billing.discounts enable row level security;

create policy select_member on billing.discounts
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.discounts from public, anon, authenticated, service_role;
grant select on billing.discounts to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 26  billing.coupons
-- -----------------------------------------------------------------------------

create table billing.coupons (
  id uuid not null default gen_random_uuid(),
  name text,
  percent_off numeric,
  amount_off_minor bigint,
  currency text,
  duration text,
  duration_in_months bigint,
  max_redemptions bigint,
  times_redeemed bigint not null default 0,
  redeem_until timestamptz,
  is_valid boolean not null default true,
  deleted_at timestamptz,
  stripe_coupon_id text not null,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_coupon_id)
);

comment on table billing.coupons is
  'What Stripe''s coupons take off. Members see those they have a discount by.';
comment on column billing.coupons.percent_off is
  'Percent, with fractions; null where an amount is taken off.';
comment on column billing.coupons.amount_off_minor is
  'In the smallest unit of currency; null where a percentage is taken off.';
comment on column billing.coupons.duration is
  'once, repeating (for duration_in_months) or forever; open vocabulary.';
comment on column billing.coupons.is_valid is
  'Stripe still takes it for new discounts.';
comment on column billing.coupons.deleted_at is
  'When it was deleted at Stripe; discounts it gave live on. Its id may be used again.';

alter table billing.coupons enable row level security;

create policy select_member on billing.coupons
  for select
  to authenticated
  using (
    stripe_coupon_id = any (array(
      select discounts.stripe_coupon_id
      from billing.discounts
      where account_id = any (array(select billing_private.my_account_ids('view_billing')))
    ))
  );

revoke all on billing.coupons from public, anon, authenticated, service_role;
grant select on billing.coupons to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 27  billing_private.promotion_codes
-- -----------------------------------------------------------------------------

-- Private: whoever reads a code can use it.
create table billing_private.promotion_codes (
  id uuid not null default gen_random_uuid(),
  code text not null,
  is_active boolean not null,
  expires_at timestamptz,
  max_redemptions bigint,
  times_redeemed bigint not null default 0,
  first_time_only boolean not null default false,
  minimum_amount_minor bigint,
  minimum_currency text,
  stripe_promotion_code_id text not null,
  stripe_coupon_id text,
  stripe_customer_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_promotion_code_id)
);

comment on table billing_private.promotion_codes is
  'What users can type to get a coupon. Several may have had one code: at most one of them is '
  'active.';
comment on column billing_private.promotion_codes.code is
  'As Stripe writes it; Stripe takes it in any case.';
comment on column billing_private.promotion_codes.first_time_only is
  'Only for customers without a payment or invoice so far.';
comment on column billing_private.promotion_codes.stripe_customer_id is
  'The only customer who may use it; null for anyone.';

alter table billing_private.promotion_codes enable row level security;
create policy select_nobody on billing_private.promotion_codes for select to public using (false);

revoke all on billing_private.promotion_codes from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 28  billing_private.discount_codes
-- -----------------------------------------------------------------------------

-- Private: whoever reads a code can use it. Stripe's own promotion codes stay beside it as the
-- mirror they are; limits of these are kept here alone, and Stripe gets a coupon nobody can type.
create table billing_private.discount_codes (
  id uuid not null default gen_random_uuid(),
  code text not null,
  percent_off numeric,
  amount_off_minor bigint,
  currency text,
  periods integer,
  max_redemptions bigint,
  max_per_account bigint not null default 1,
  first_time_only boolean not null default false,
  minimum_amount_minor bigint,
  plan_keys text[],
  price_keys text[],
  store_keys text[],
  expires_at timestamptz,
  deactivated_at timestamptz,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  constraint discount_codes_code_is_typeable check (code ~ '^[A-Za-z0-9_-]{3,64}$'),
  constraint discount_codes_percent_is_within check (percent_off > 0 and percent_off <= 100),
  constraint discount_codes_amount_is_positive check (amount_off_minor > 0),
  constraint discount_codes_take_one_thing_off check (
    num_nonnulls(percent_off, amount_off_minor) = 1
  ),
  constraint discount_codes_currency_is_iso_4217 check (currency ~ '^[a-z]{3}$'),
  constraint discount_codes_amounts_have_a_currency check (
    currency is not null or num_nonnulls(amount_off_minor, minimum_amount_minor) = 0
  ),
  constraint discount_codes_periods_are_positive check (periods > 0),
  constraint discount_codes_max_redemptions_is_positive check (max_redemptions > 0),
  constraint discount_codes_max_per_account_is_positive check (max_per_account > 0),
  constraint discount_codes_minimum_is_not_negative check (minimum_amount_minor >= 0)
);

comment on table billing_private.discount_codes is
  'Codes people can type to pay less. What a code gives never changes: another code gives '
  'something else.';
comment on column billing_private.discount_codes.code is
  'As an admin wrote it; taken in any case. Never given to another code.';
comment on column billing_private.discount_codes.amount_off_minor is
  'Off each period, in the smallest unit of currency; null where a percentage is taken off.';
comment on column billing_private.discount_codes.periods is
  'How many billing periods it is taken off: 1 for the first alone, null for all.';
comment on column billing_private.discount_codes.max_redemptions is
  'How often it can be used in all, checkouts under way included; null for any number.';
comment on column billing_private.discount_codes.first_time_only is
  'Only for accounts that were never billed.';
comment on column billing_private.discount_codes.minimum_amount_minor is
  'What a period has to cost without it, in the smallest unit of currency.';
comment on column billing_private.discount_codes.price_keys is
  'The prices it is for. Of plan_keys, price_keys and store_keys each narrows it down; null does '
  'not.';
comment on column billing_private.discount_codes.expires_at is
  'From when on nobody can redeem it, exclusive; what it gives those who did goes on.';

create unique index discount_codes_code_key on billing_private.discount_codes (lower(code));

alter table billing_private.discount_codes enable row level security;
create policy select_nobody on billing_private.discount_codes for select to public using (false);

revoke all on billing_private.discount_codes from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 29  billing.subscription_schedules
-- -----------------------------------------------------------------------------

create table billing.subscription_schedules (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  status text,
  end_behavior text,
  phases jsonb not null default '[]',
  next_change_at timestamptz,
  next_items jsonb,
  canceled_at timestamptz,
  completed_at timestamptz,
  released_at timestamptz,
  stripe_schedule_id text not null,
  stripe_subscription_id text,
  stripe_customer_id text,
  created_at timestamptz not null default billing_private.now(),
  updated_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_schedule_id),
  constraint subscription_schedules_next_change_has_items check (
    (next_change_at is null) = (next_items is null)
  )
);

comment on table billing.subscription_schedules is
  'Changes of Stripe''s subscriptions that wait for a date, whoever arranged them: our users, the '
  'portal, the dashboard. What waits next is in the subscription''s own row, too.';
comment on column billing.subscription_schedules.status is
  'not_started, active, completed, released (the subscription lives on without it) or canceled; '
  'open vocabulary.';
comment on column billing.subscription_schedules.end_behavior is
  'What becomes of the subscription after the last phase: release or cancel; open vocabulary.';
comment on column billing.subscription_schedules.phases is
  'In order: [{"starts_at", "ends_at", "items": [{"stripe_price_id", "quantity"}]}].';
comment on column billing.subscription_schedules.next_change_at is
  'When the phase after the running one begins; null when there is none, or it is over.';
comment on column billing.subscription_schedules.next_items is
  'The items of that phase.';
comment on column billing.subscription_schedules.updated_at is
  'When Stripe said what the row says.';

create index subscription_schedules_account_id_idx on billing.subscription_schedules (account_id);
create index subscription_schedules_stripe_customer_id_idx
  on billing.subscription_schedules (stripe_customer_id);
create index subscription_schedules_stripe_subscription_id_idx
  on billing.subscription_schedules (stripe_subscription_id);
-- A price that is told after the schedule that leads to it.
create index subscription_schedules_next_items_idx
  on billing.subscription_schedules using gin (next_items jsonb_path_ops)
  where next_items is not null;

alter table billing.subscription_schedules enable row level security;

create policy select_member on billing.subscription_schedules
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.subscription_schedules from public, anon, authenticated, service_role;
grant select on billing.subscription_schedules to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 30  billing.subscription_transitions
-- -----------------------------------------------------------------------------

create table billing.subscription_transitions (
  from_status text not null,
  to_status text not null,
  description text not null,

  primary key (from_status, to_status)
);

comment on table billing.subscription_transitions is
  'Every legal change of a subscription''s status. canceled and incomplete_expired are final: '
  'nothing leads out of them.';

insert into billing.subscription_transitions (from_status, to_status, description) values
  ('incomplete', 'active', 'the first invoice was paid within 23 hours'),
  ('incomplete', 'trialing', 'set-up was completed before a trial'),
  ('incomplete', 'past_due', 'paid first, then a later invoice failed before we heard of it'),
  ('incomplete', 'incomplete_expired', 'the first invoice was not paid within 23 hours'),
  ('incomplete', 'canceled', 'canceled before the first payment'),
  ('trialing', 'active', 'the trial is over'),
  ('trialing', 'past_due', 'the first invoice after the trial failed'),
  ('trialing', 'unpaid', 'retries after the trial are exhausted'),
  ('trialing', 'paused', 'the trial ended without a payment method'),
  ('trialing', 'canceled', 'canceled during or at the end of the trial'),
  ('active', 'trialing', 'a trial was added'),
  ('active', 'past_due', 'a renewal failed or waits for the customer'),
  ('active', 'unpaid', 'retries are exhausted'),
  ('active', 'paused', 'paused on request'),
  ('active', 'canceled', 'canceled at once or at period end'),
  ('past_due', 'active', 'the latest invoice was paid or written off'),
  ('past_due', 'trialing', 'a trial was added'),
  ('past_due', 'unpaid', 'retries are exhausted'),
  ('past_due', 'paused', 'paused after failed payments'),
  ('past_due', 'canceled', 'retries are exhausted, or canceled'),
  ('unpaid', 'active', 'the latest invoice was paid'),
  ('unpaid', 'past_due', 'collection was taken up again'),
  ('unpaid', 'paused', 'paused while unpaid'),
  ('unpaid', 'canceled', 'canceled while unpaid'),
  ('paused', 'active', 'resumed'),
  ('paused', 'trialing', 'resumed into a trial'),
  ('paused', 'past_due', 'resumed, and the payment failed'),
  ('paused', 'unpaid', 'resumed, and retries are exhausted'),
  ('paused', 'canceled', 'canceled while paused');

alter table billing.subscription_transitions enable row level security;

create policy select_anyone on billing.subscription_transitions
  for select
  to anon, authenticated
  using (true);

revoke all on billing.subscription_transitions from public, anon, authenticated, service_role;
grant select on billing.subscription_transitions to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 31  billing.subscription_changes
-- -----------------------------------------------------------------------------

create table billing.subscription_changes (
  id uuid not null default gen_random_uuid(),
  subscription_id uuid not null references billing.subscriptions (id) on delete restrict,
  account_id uuid references billing.accounts (id) on delete restrict,
  kind text not null,
  from_status text,
  to_status text,
  from_price_id uuid references billing.prices (id) on delete restrict,
  to_price_id uuid references billing.prices (id) on delete restrict,
  from_quantity bigint,
  to_quantity bigint,
  amount_minor bigint,
  currency text,
  effective_at timestamptz not null,
  actor_id uuid,
  cause jsonb not null default '{}',
  created_at timestamptz not null default billing_private.now(),

  primary key (id)
);

comment on table billing.subscription_changes is
  'What happened to each subscription: from and to, how much, who, why, and which event or command'
  ' caused it.';
comment on column billing.subscription_changes.kind is
  'started, status, price, quantity, cancel_scheduled, cancel_undone, renewed, change_scheduled or'
  ' change_undone.';
comment on column billing.subscription_changes.amount_minor is
  'Unit amount × quantity per interval after the change, in the smallest unit; null where no flat '
  'amount exists.';
comment on column billing.subscription_changes.effective_at is
  'When it took effect by the source''s clock; created_at is when we heard of it.';
comment on column billing.subscription_changes.cause is
  'kind (stripe_event, command, task, admin, user), reference (its id) and reason.';

create index subscription_changes_subscription_id_idx
  on billing.subscription_changes (subscription_id, effective_at);
create index subscription_changes_account_id_idx on billing.subscription_changes (account_id);
create index subscription_changes_from_price_id_idx on billing.subscription_changes (from_price_id);
create index subscription_changes_to_price_id_idx on billing.subscription_changes (to_price_id);

alter table billing.subscription_changes enable row level security;

create policy select_member on billing.subscription_changes
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.subscription_changes from public, anon, authenticated, service_role;
grant select on billing.subscription_changes to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 32  billing.invoices
-- -----------------------------------------------------------------------------

create table billing.invoices (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  subscription_id uuid references billing.subscriptions (id) on delete restrict,
  number text,
  status text,
  billing_reason text,
  currency text not null,
  subtotal_minor bigint not null,
  total_minor bigint not null,
  amount_due_minor bigint not null,
  amount_paid_minor bigint not null,
  amount_remaining_minor bigint not null,
  amount_overpaid_minor bigint not null default 0,
  tax_minor bigint not null default 0,
  discount_minor bigint not null default 0,
  collection_method text,
  attempt_count integer not null default 0,
  next_payment_attempt_at timestamptz,
  payment_failed_at timestamptz,
  action_required_at timestamptz,
  issued_at timestamptz,
  due_at timestamptz,
  finalized_at timestamptz,
  paid_at timestamptz,
  voided_at timestamptz,
  marked_uncollectible_at timestamptz,
  uncollectible_reason text,
  finalization_error jsonb,
  deleted_at timestamptz,
  hosted_invoice_url text,
  invoice_pdf_url text,
  stripe_invoice_id text,
  stripe_customer_id text,
  stripe_subscription_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_invoice_id),
  constraint invoices_are_of_stripe_or_ours check (
    (stripe_invoice_id is null) = (subscription_id is not null)
  )
);

comment on table billing.invoices is
  'Invoices mirrored from Stripe, and those of manual subscriptions. Amounts in the currency''s '
  'smallest unit.';
comment on column billing.invoices.subscription_id is
  'Of an invoice we wrote. Stripe''s name their subscription in stripe_subscription_id.';
comment on column billing.invoices.status is
  'draft, open, paid, void or uncollectible; open vocabulary. paid says nothing about money: '
  'compare amount_paid_minor.';
comment on column billing.invoices.currency is
  'ISO 4217, in lower case. xxx, its code for no currency, where Stripe named none: so it is with '
  'all amounts that are mirrored.';
comment on column billing.invoices.amount_overpaid_minor is
  'Paid beyond what was due; it is credit for later invoices.';
comment on column billing.invoices.tax_minor is
  'Of the total, whether on top of the prices or within them.';
comment on column billing.invoices.discount_minor is
  'What discounts took off.';
comment on column billing.invoices.uncollectible_reason is
  'Why it was given up (max_payment_attempts, subscription_canceled, …); open vocabulary.';
comment on column billing.invoices.finalization_error is
  'Why Stripe could not finalize it, as {"code", "message"}: nothing is collected until that is '
  'put right.';
comment on column billing.invoices.next_payment_attempt_at is
  'When Stripe tries again by itself; null on an open invoice means nobody will.';
comment on column billing.invoices.collection_method is
  'charge_automatically, or send_invoice: then the customer pays by due_at.';
comment on column billing.invoices.payment_failed_at is
  'When collecting it failed first, whatever became of it later.';
comment on column billing.invoices.action_required_at is
  'When the bank last asked for the customer''s confirmation, at hosted_invoice_url; null when the '
  'last attempt failed otherwise.';
comment on column billing.invoices.attempt_count is
  'Payment attempts so far; after the first, Stripe counts only automatic ones.';

create index invoices_account_id_idx on billing.invoices (account_id, issued_at desc);
create index invoices_subscription_id_idx on billing.invoices (subscription_id);
create index invoices_stripe_customer_id_idx on billing.invoices (stripe_customer_id);
create index invoices_stripe_subscription_id_idx on billing.invoices (stripe_subscription_id);

alter table billing.invoices enable row level security;

create policy select_member on billing.invoices
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.invoices from public, anon, authenticated, service_role;
grant select on billing.invoices to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 33  billing.invoice_lines
-- -----------------------------------------------------------------------------

create table billing.invoice_lines (
  id uuid not null default gen_random_uuid(),
  invoice_id uuid not null references billing.invoices (id) on delete cascade,
  description text,
  amount_minor bigint not null,
  currency text not null,
  quantity bigint,
  period_start timestamptz,
  period_end timestamptz,
  is_proration boolean not null default false,
  discount_minor bigint not null default 0,
  stripe_line_id text,
  stripe_price_id text,
  stripe_subscription_item_id text,

  primary key (id),
  unique (invoice_id, stripe_line_id)
);

comment on table billing.invoice_lines is
  'What each invoice charges for. The service period is here, not on the invoice.';
comment on column billing.invoice_lines.amount_minor is
  'Before discounts.';
comment on column billing.invoice_lines.discount_minor is
  'What of the invoice''s discount falls on it; known of our own invoices alone.';

alter table billing.invoice_lines enable row level security;

create policy select_member on billing.invoice_lines
  for select
  to authenticated
  using (
    invoice_id = any (array(
      select invoices.id
      from billing.invoices
      where account_id = any (array(select billing_private.my_account_ids('view_billing')))
    ))
  );

revoke all on billing.invoice_lines from public, anon, authenticated, service_role;
grant select on billing.invoice_lines to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 34  billing.payments
-- -----------------------------------------------------------------------------

-- One row for a payment intent and its latest charge: each writes its own columns, so the two may
-- arrive in any order.
create table billing.payments (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  invoice_id uuid references billing.invoices (id) on delete restrict,
  method text,
  reference text,
  stripe_payment_key text,
  status text,
  amount_minor bigint not null,
  amount_received_minor bigint not null default 0,
  amount_refunded_minor bigint not null default 0,
  currency text not null,
  failure_code text,
  decline_code text,
  failure_message text,
  is_disputed boolean not null default false,
  paid_at timestamptz,
  stripe_charge_id text,
  stripe_invoice_id text,
  stripe_customer_id text,
  stripe_payment_method_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_payment_key),
  unique (invoice_id, reference),
  constraint payments_are_of_stripe_or_ours check (
    (stripe_payment_key is null) = (invoice_id is not null)
  )
);

comment on table billing.payments is
  'Attempts to collect money and what came of them. Amounts in the currency''s smallest unit.';
comment on column billing.payments.invoice_id is
  'Of a payment an admin recorded. Stripe''s name their invoice in stripe_invoice_id.';
comment on column billing.payments.reference is
  'What tells a recorded payment from another: the bank''s reference, a cheque''s number.';
comment on column billing.payments.stripe_payment_key is
  'Id of the payment intent, or of the charge where there is none.';
comment on column billing.payments.status is
  'The payment intent''s status (succeeded, requires_payment_method, …); open vocabulary.';
comment on column billing.payments.decline_code is
  'The issuer''s reason. Show lost, stolen and fraud to the customer as a plain decline.';

create index payments_account_id_idx on billing.payments (account_id, created_at desc);
create index payments_stripe_customer_id_idx
on billing.payments (stripe_customer_id, stripe_invoice_id);

alter table billing.payments enable row level security;

create policy select_member on billing.payments
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.payments from public, anon, authenticated, service_role;
grant select on billing.payments to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 35  billing.refunds
-- -----------------------------------------------------------------------------

create table billing.refunds (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  stripe_payment_key text,
  status text,
  amount_minor bigint not null,
  currency text not null,
  reason text,
  failure_reason text,
  refunded_at timestamptz,
  returned_at timestamptz,
  stripe_refund_id text not null,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_refund_id)
);

comment on table billing.refunds is
  'Money given back. A succeeded refund may still fail later.';
comment on column billing.refunds.returned_at is
  'When Stripe told that one that had succeeded failed after all: its money is back; else null.';

create index refunds_account_id_idx on billing.refunds (account_id);
create index refunds_stripe_payment_key_idx on billing.refunds (stripe_payment_key);

alter table billing.refunds enable row level security;

create policy select_member on billing.refunds
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.refunds from public, anon, authenticated, service_role;
grant select on billing.refunds to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 36  billing.disputes
-- -----------------------------------------------------------------------------

create table billing.disputes (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  stripe_payment_key text,
  status text,
  reason text,
  network_reason_code text,
  amount_minor bigint not null,
  currency text not null,
  is_withdrawn boolean not null default false,
  is_refundable boolean not null default false,
  evidence_due_at timestamptz,
  has_evidence boolean not null default false,
  disputed_at timestamptz,
  decided_at timestamptz,
  lost_at timestamptz,
  returned_at timestamptz,
  stripe_dispute_id text not null,
  stripe_charge_id text,
  created_at timestamptz not null default billing_private.now(),
  updated_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_dispute_id)
);

comment on table billing.disputes is
  'Payments whose payer asked the bank for the money back. Amounts in the currency''s smallest '
  'unit.';
comment on column billing.disputes.status is
  'warning_needs_response, warning_under_review, warning_closed (inquiries, no money moves), '
  'needs_response, under_review, lost, won, appeal_needs_response, appeal_under_review, prevented; '
  'open vocabulary. A lost dispute may be appealed.';
comment on column billing.disputes.is_withdrawn is
  'The money is out of our Stripe balance; back to false once it was reinstated.';
comment on column billing.disputes.is_refundable is
  'The payment may still be refunded, which ends an inquiry.';
comment on column billing.disputes.evidence_due_at is
  'Until when the bank accepts evidence.';
comment on column billing.disputes.decided_at is
  'When Stripe told that it is won or lost; null while it is neither, and where only a later '
  're-read showed it.';
comment on column billing.disputes.lost_at is
  'When it was first told to be lost: the money is gone. It stays when an appeal is won.';
comment on column billing.disputes.returned_at is
  'When one that had been lost was told to be won after all: the money is back; else null.';
comment on column billing.disputes.updated_at is
  'When Stripe said what the row says.';

create index disputes_account_id_idx on billing.disputes (account_id);
create index disputes_stripe_payment_key_idx on billing.disputes (stripe_payment_key);

alter table billing.disputes enable row level security;

create policy select_member on billing.disputes
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.disputes from public, anon, authenticated, service_role;
grant select on billing.disputes to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 37  billing_private.early_fraud_warnings
-- -----------------------------------------------------------------------------

-- Private: whoever is suspected is not told.
create table billing_private.early_fraud_warnings (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  stripe_payment_key text,
  fraud_type text,
  is_actionable boolean not null default false,
  warned_at timestamptz,
  stripe_early_fraud_warning_id text not null,
  stripe_charge_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_early_fraud_warning_id)
);

comment on table billing_private.early_fraud_warnings is
  'Payments an issuer suspects. Most become disputes; a refund before that prevents it.';
comment on column billing_private.early_fraud_warnings.fraud_type is
  'What the issuer suspects (made_with_stolen_card, …); open vocabulary.';
comment on column billing_private.early_fraud_warnings.is_actionable is
  'The payment is neither refunded nor disputed yet.';

create index early_fraud_warnings_account_id_idx
  on billing_private.early_fraud_warnings (account_id);
create index early_fraud_warnings_stripe_payment_key_idx
  on billing_private.early_fraud_warnings (stripe_payment_key);

alter table billing_private.early_fraud_warnings enable row level security;

create policy select_nobody on billing_private.early_fraud_warnings
  for select to public using (false);

revoke all on billing_private.early_fraud_warnings from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 38  billing.credit_notes
-- -----------------------------------------------------------------------------

create table billing.credit_notes (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  number text,
  status text,
  reason text,
  memo text,
  currency text not null,
  amount_minor bigint not null,
  before_payment_minor bigint not null default 0,
  after_payment_minor bigint not null default 0,
  out_of_band_minor bigint not null default 0,
  issued_at timestamptz,
  effective_at timestamptz,
  voided_at timestamptz,
  pdf_url text,
  stripe_credit_note_id text not null,
  stripe_invoice_id text,
  stripe_customer_id text,
  stripe_refund_ids text[] not null default '{}',
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_credit_note_id)
);

comment on table billing.credit_notes is
  'What was taken off an invoice after it was finalized. Amounts in the currency''s smallest unit.';
comment on column billing.credit_notes.status is
  'issued or void; open vocabulary.';
comment on column billing.credit_notes.amount_minor is
  'The whole, with tax: what was credited before and after payment together.';
comment on column billing.credit_notes.before_payment_minor is
  'The part that made an open invoice smaller.';
comment on column billing.credit_notes.after_payment_minor is
  'The part given back of what was paid: as refund, as balance, or out of band.';
comment on column billing.credit_notes.out_of_band_minor is
  'The part of after_payment_minor that was given back outside Stripe.';

create index credit_notes_account_id_idx on billing.credit_notes (account_id);
create index credit_notes_stripe_invoice_id_idx on billing.credit_notes (stripe_invoice_id);
create index credit_notes_stripe_customer_id_idx on billing.credit_notes (stripe_customer_id);

alter table billing.credit_notes enable row level security;

create policy select_member on billing.credit_notes
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.credit_notes from public, anon, authenticated, service_role;
grant select on billing.credit_notes to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 39  billing.payment_methods
-- -----------------------------------------------------------------------------

create table billing.payment_methods (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  type text not null,
  card_brand text,
  card_last4 text,
  card_exp_month integer,
  card_exp_year integer,
  detached_at timestamptz,
  fingerprint_hash text,
  stripe_payment_method_id text not null,
  stripe_customer_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_payment_method_id)
);

comment on table billing.payment_methods is
  'How accounts pay: what Stripe shows of a card, never the card.';
comment on column billing.payment_methods.fingerprint_hash is
  'The same for the same card or bank account, also when it is added again; says nothing else.';
comment on column billing.payment_methods.detached_at is
  'When it was taken off the customer; it cannot be charged since.';
comment on column billing.payment_methods.stripe_customer_id is
  'The customer it is or last was attached to.';

create index payment_methods_account_id_idx on billing.payment_methods (account_id);
create index payment_methods_stripe_customer_id_idx on billing.payment_methods (stripe_customer_id);

alter table billing.payment_methods enable row level security;

create policy select_member on billing.payment_methods
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.payment_methods from public, anon, authenticated, service_role;
grant select on billing.payment_methods to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 40  billing.setup_intents
-- -----------------------------------------------------------------------------

create table billing.setup_intents (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  status text,
  usage text,
  failure_code text,
  decline_code text,
  failure_message text,
  cancellation_reason text,
  stripe_setup_intent_id text not null,
  stripe_customer_id text,
  stripe_payment_method_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_setup_intent_id)
);

comment on table billing.setup_intents is
  'Attempts to put a payment method on file without paying.';
comment on column billing.setup_intents.status is
  'requires_payment_method, requires_confirmation, requires_action, processing, succeeded or '
  'canceled; open vocabulary.';
comment on column billing.setup_intents.usage is
  'off_session for renewals, on_session where the customer will be there.';
comment on column billing.setup_intents.decline_code is
  'The issuer''s reason. Show lost, stolen and fraud to the customer as a plain decline.';

create index setup_intents_account_id_idx on billing.setup_intents (account_id);
create index setup_intents_stripe_customer_id_idx on billing.setup_intents (stripe_customer_id);

alter table billing.setup_intents enable row level security;

create policy select_member on billing.setup_intents
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.setup_intents from public, anon, authenticated, service_role;
grant select on billing.setup_intents to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 41  billing.tax_ids
-- -----------------------------------------------------------------------------

create table billing.tax_ids (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  type text,
  value text,
  country text,
  verification_status text,
  deleted_at timestamptz,
  stripe_tax_id text not null,
  stripe_customer_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_tax_id)
);

comment on table billing.tax_ids is
  'Tax numbers of customers, as they stand on their invoices.';
comment on column billing.tax_ids.type is
  'Kind of number (eu_vat, gb_vat, …); open vocabulary.';
comment on column billing.tax_ids.verification_status is
  'pending, verified, unverified or unavailable; open vocabulary. Stripe asks the authority after '
  'the number was given.';
comment on column billing.tax_ids.deleted_at is
  'When it was taken off the customer.';

create index tax_ids_account_id_idx on billing.tax_ids (account_id);
create index tax_ids_stripe_customer_id_idx on billing.tax_ids (stripe_customer_id);

alter table billing.tax_ids enable row level security;

create policy select_member on billing.tax_ids
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.tax_ids from public, anon, authenticated, service_role;
grant select on billing.tax_ids to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 42  billing_private.declines
-- -----------------------------------------------------------------------------

-- Private: whoever is told that a card is reported stolen should not be.
create table billing_private.declines (
  stripe_charge_id text not null,
  stripe_payment_key text not null,
  stripe_customer_id text,
  stripe_payment_method_id text,
  method_hash text,
  decline_code text,
  advice_code text,
  network_advice_code text,
  network_decline_code text,
  declined_at timestamptz not null,

  primary key (stripe_charge_id)
);

comment on table billing_private.declines is
  'Each charge that failed: when, on which card, what bank and network said about trying again.';
comment on column billing_private.declines.method_hash is
  'Of the card''s fingerprint; billing.payment_methods.fingerprint_hash is of the same kind.';
comment on column billing_private.declines.advice_code is
  'Stripe''s: try_again_later, confirm_card_data or do_not_try_again.';
comment on column billing_private.declines.network_advice_code is
  'The card network''s: two digits, such as Mastercard''s 03 (never again).';

create index declines_method_hash_idx on billing_private.declines (method_hash, declined_at);
create index declines_stripe_customer_id_idx on billing_private.declines (stripe_customer_id);

alter table billing_private.declines enable row level security;
create policy select_nobody on billing_private.declines for select to public using (false);

revoke all on billing_private.declines from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 43  billing.stripe_entitlements
-- -----------------------------------------------------------------------------

create table billing.stripe_entitlements (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  lookup_key text,
  stripe_entitlement_id text not null,
  stripe_feature_id text,
  stripe_customer_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_entitlement_id)
);

comment on table billing.stripe_entitlements is
  'What Stripe Entitlements says each customer has. A mirror for comparison: access is what '
  'billing.entitlements says.';
comment on column billing.stripe_entitlements.lookup_key is
  'Name of the feature at Stripe; several features may have had one name.';

create index stripe_entitlements_account_id_idx on billing.stripe_entitlements (account_id);
create index stripe_entitlements_stripe_customer_id_idx
  on billing.stripe_entitlements (stripe_customer_id);

alter table billing.stripe_entitlements enable row level security;

create policy select_member on billing.stripe_entitlements
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.stripe_entitlements from public, anon, authenticated, service_role;
grant select on billing.stripe_entitlements to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 44  billing.checkout_sessions
-- -----------------------------------------------------------------------------

create table billing.checkout_sessions (
  id uuid not null default gen_random_uuid(),
  account_id uuid not null references billing.accounts (id) on delete restrict,
  price_id uuid not null references billing.prices (id) on delete restrict,
  quantity bigint not null default 1,
  status text not null default 'creating',
  success_url text not null,
  cancel_url text not null,
  url text,
  expires_at timestamptz,
  completed_at timestamptz,
  failure jsonb,
  trial_days integer not null default 0,
  discount_code_id uuid
    references billing_private.discount_codes (id) on delete restrict,
  stripe_promotion_code_id text,
  stripe_session_id text,
  stripe_subscription_id text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (stripe_session_id),
  constraint checkout_sessions_status_is_known check (
    status in ('creating', 'open', 'complete', 'expired', 'failed')
  ),
  constraint checkout_sessions_quantity_is_positive check (quantity > 0)
);

comment on table billing.checkout_sessions is
  'Checkouts our users started. The row is the claim: it is taken before Stripe is called, so two '
  'clicks cannot open two sessions.';
comment on column billing.checkout_sessions.url is
  'Where the user pays; only while open.';
comment on column billing.checkout_sessions.trial_days is
  'The trial it begins with; 0 where there is none, or where the person has had one.';
comment on column billing.checkout_sessions.discount_code_id is
  'The discount its user named, of our own codes; null where none was.';
comment on column billing.checkout_sessions.stripe_promotion_code_id is
  'The discount its user named, of Stripe''s codes; null where none was.';
comment on column billing.checkout_sessions.failure is
  'Stripe''s refusal as {"code", "message"}; only when failed.';

create unique index checkout_sessions_one_open_idx on billing.checkout_sessions (account_id)
  where status in ('creating', 'open');
create index checkout_sessions_account_id_idx on billing.checkout_sessions (account_id);
create index checkout_sessions_price_id_idx on billing.checkout_sessions (price_id);
create index checkout_sessions_discount_code_id_idx
  on billing.checkout_sessions (discount_code_id);

alter table billing.checkout_sessions enable row level security;

create policy select_member on billing.checkout_sessions
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.checkout_sessions from public, anon, authenticated, service_role;
grant select on billing.checkout_sessions to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 45  billing.discount_redemptions
-- -----------------------------------------------------------------------------

create table billing.discount_redemptions (
  id uuid not null default gen_random_uuid(),
  discount_code_id uuid not null
    references billing_private.discount_codes (id) on delete restrict,
  account_id uuid not null references billing.accounts (id) on delete restrict,
  checkout_id uuid references billing.checkout_sessions (id) on delete restrict,
  subscription_id uuid references billing.subscriptions (id) on delete restrict,
  status text not null,
  periods_used integer not null default 0,
  period_base_minor bigint not null default 0,
  period_off_minor bigint not null default 0,
  ended_at timestamptz,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (checkout_id),
  constraint discount_redemptions_status_is_known check (
    status in ('reserved', 'confirmed', 'released')
  ),
  constraint discount_redemptions_is_of_one_purchase check (
    num_nonnulls(checkout_id, subscription_id) = 1
  ),
  constraint discount_redemptions_periods_used_is_not_negative check (periods_used >= 0),
  constraint discount_redemptions_off_is_within check (
    period_off_minor between 0 and period_base_minor
  )
);

comment on table billing.discount_redemptions is
  'Who used which discount code: for a checkout at Stripe, for a running subscription there, or '
  'for a manual one, whose invoices it is taken off here.';
comment on column billing.discount_redemptions.status is
  'reserved while its checkout is open or Stripe is being asked, confirmed once that is complete, '
  'released where it is not going to be.';
comment on column billing.discount_redemptions.periods_used is
  'Of a manual subscription: periods invoiced with it.';
comment on column billing.discount_redemptions.period_off_minor is
  'Of a manual subscription: what the running period''s invoice took off period_base_minor; what a '
  'change gives back of the period is lessened as much.';
comment on column billing.discount_redemptions.ended_at is
  'When a period of a manual subscription began without it; of one at Stripe, when Stripe had '
  'answered: how long it comes off is counted there.';

create index discount_redemptions_discount_code_id_idx
  on billing.discount_redemptions (discount_code_id, account_id);
create index discount_redemptions_account_id_idx on billing.discount_redemptions (account_id);
create index discount_redemptions_subscription_id_idx
  on billing.discount_redemptions (subscription_id);
create unique index discount_redemptions_one_running_idx
  on billing.discount_redemptions (subscription_id)
  where ended_at is null;

alter table billing.discount_redemptions enable row level security;

create policy select_member on billing.discount_redemptions
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.discount_redemptions from public, anon, authenticated, service_role;
grant select on billing.discount_redemptions to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 46  billing_private.trial_claims
-- -----------------------------------------------------------------------------

create table billing_private.trial_claims (
  kind text not null,
  identity_hash text not null,
  account_id uuid not null references billing.accounts (id) on delete restrict,
  claimed_at timestamptz not null default billing_private.now(),
  started_at timestamptz,

  primary key (kind, identity_hash),
  constraint trial_claims_kind_is_known check (kind in ('account', 'email', 'card'))
);

comment on table billing_private.trial_claims is
  'Who has had a trial, so that each person has one: by account, by address and by card. Addresses '
  'and cards as salted hashes, never as they are.';
comment on column billing_private.trial_claims.account_id is
  'Whose trial it is: the first to have one, else whoever is at a checkout that offers one.';
comment on column billing_private.trial_claims.started_at is
  'When the trial began; null while it is only offered, which ends with the checkout.';

create index trial_claims_account_id_idx on billing_private.trial_claims (account_id);

alter table billing_private.trial_claims enable row level security;
create policy select_nobody on billing_private.trial_claims for select to public using (false);

revoke all on billing_private.trial_claims from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 47  billing.entitlement_grants
-- -----------------------------------------------------------------------------

create table billing.entitlement_grants (
  id uuid not null default gen_random_uuid(),
  account_id uuid not null references billing.accounts (id) on delete restrict,
  feature_key text not null references billing.features (key) on delete restrict,
  kind text not null default 'support',
  limit_value bigint,
  valid_from timestamptz not null,
  valid_until timestamptz not null default 'infinity',
  reason text not null,
  granted_by uuid,
  revoked_at timestamptz,
  revoked_reason text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  constraint entitlement_grants_kind_is_known check (
    kind in ('gift', 'support', 'promotion', 'trial_extension')
  ),
  constraint entitlement_grants_interval_is_ordered check (valid_from < valid_until),
  constraint entitlement_grants_limit_is_not_negative check (limit_value >= 0),
  constraint entitlement_grants_reason_is_given check (reason <> '')
);

comment on table billing.entitlement_grants is
  'Features given by hand, for [valid_from, valid_until), each with a reason. Revoked, never '
  'deleted.';
comment on column billing.entitlement_grants.kind is
  'gift, support, promotion or trial_extension: what explain_entitlement() names as the reason.';

create index entitlement_grants_account_id_idx on billing.entitlement_grants (account_id);
create index entitlement_grants_feature_key_idx on billing.entitlement_grants (feature_key);

alter table billing.entitlement_grants enable row level security;

create policy select_member on billing.entitlement_grants
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.entitlement_grants from public, anon, authenticated, service_role;
grant select on billing.entitlement_grants to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 48  billing.entitlements
-- -----------------------------------------------------------------------------

create table billing.entitlements (
  account_id uuid not null references billing.accounts (id) on delete restrict,
  feature_key text not null references billing.features (key) on delete restrict,
  source_kind text not null,
  source_id uuid not null,
  access_level text not null default 'full',
  plan_id uuid references billing.plans (id) on delete restrict,
  store_key text,
  limit_value bigint,
  valid_from timestamptz not null,
  valid_until timestamptz not null,
  recorded_at timestamptz not null default billing_private.now(),

  -- With valid_from: a contract can cut what an item gives into pieces with a limit each.
  primary key (account_id, feature_key, source_kind, source_id, access_level, valid_from),
  constraint entitlements_source_is_known check (
    source_kind in ('subscription_item', 'grant', 'contract')
  ),
  constraint entitlements_level_is_known check (access_level in ('full', 'read_only')),
  constraint entitlements_interval_is_ordered check (valid_from < valid_until)
);

comment on table billing.entitlements is
  'What each account has, from which source, for exactly how long. Derived: written only by '
  'billing_private.refresh_entitlements().';
comment on column billing.entitlements.source_id is
  'The subscription item, the grant or the contract.';
comment on column billing.entitlements.store_key is
  'The store whose plan it is; null for the platform''s plans, and for what is no plan''s.';
comment on column billing.entitlements.access_level is
  'full, or read_only: what a plan''s policies leave while it is overdue, paused, refunded or '
  'disputed. One source may give full access first and reading after.';
comment on column billing.entitlements.limit_value is
  'Units of a limit or metered feature; null for unlimited, and for boolean features.';
comment on column billing.entitlements.valid_until is
  'End, exclusive; infinity for an unlimited grant. Nothing has to run for access to end here.';
comment on column billing.entitlements.recorded_at is
  'Since when the row has said what it says.';

create index entitlements_feature_key_idx on billing.entitlements (feature_key);
create index entitlements_plan_id_idx on billing.entitlements (plan_id);

alter table billing.entitlements enable row level security;

create policy select_member on billing.entitlements
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.entitlements from public, anon, authenticated, service_role;
grant select on billing.entitlements to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 49  billing_private.entitlement_history
-- -----------------------------------------------------------------------------

create table billing_private.entitlement_history (
  id bigint generated always as identity,
  account_id uuid not null,
  feature_key text not null,
  source_kind text not null,
  source_id uuid not null,
  access_level text not null,
  plan_id uuid,
  store_key text,
  limit_value bigint,
  valid_from timestamptz not null,
  valid_until timestamptz not null,
  recorded_at timestamptz not null,
  replaced_at timestamptz not null,

  -- In the order in which it is asked: a plan's change adds a row for each of its subscribers.
  primary key (account_id, feature_key, replaced_at, id)
);

comment on table billing_private.entitlement_history is
  'What billing.entitlements said before it was changed, so that past access can be explained as '
  'it was.';
comment on column billing_private.entitlement_history.replaced_at is
  'Until when the row said what it says, exclusive.';

alter table billing_private.entitlement_history enable row level security;
create policy select_nobody on billing_private.entitlement_history
  for select to public using (false);

revoke all on billing_private.entitlement_history from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 50  billing.access_restrictions
-- -----------------------------------------------------------------------------

create table billing.access_restrictions (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  subscription_id uuid not null references billing.subscriptions (id) on delete restrict,
  cause text not null,
  reference text not null,
  access_level text not null,
  begins_at timestamptz not null,
  periods_before timestamptz not null,
  lifted_at timestamptz,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (subscription_id, cause, reference),
  constraint access_restrictions_cause_is_known check (
    cause in (
      'full_refund', 'partial_refund', 'dispute_opened', 'dispute_lost', 'dispute_won'
    )
  ),
  constraint access_restrictions_level_is_known check (
    access_level in ('full', 'read_only', 'none')
  )
);

comment on table billing.access_restrictions is
  'What refunds and disputes left of a subscription''s access, and from when: each by a row of its '
  'own, lifted when its cause is gone, never removed.';
comment on column billing.access_restrictions.reference is
  'Stripe''s id of the payment that was refunded, or of the dispute.';
comment on column billing.access_restrictions.access_level is
  'By the plan''s access policy when the row was written.';
comment on column billing.access_restrictions.periods_before is
  'Only periods that began before this are concerned; infinity for all until it is lifted.';

create index access_restrictions_account_id_idx on billing.access_restrictions (account_id);

alter table billing.access_restrictions enable row level security;

create policy select_member on billing.access_restrictions
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.access_restrictions from public, anon, authenticated, service_role;
grant select on billing.access_restrictions to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 51  billing.dunning_cases
-- -----------------------------------------------------------------------------

create table billing.dunning_cases (
  id uuid not null default gen_random_uuid(),
  account_id uuid references billing.accounts (id) on delete restrict,
  invoice_id uuid not null references billing.invoices (id) on delete restrict,
  subscription_id uuid references billing.subscriptions (id) on delete restrict,
  policy_key text not null references billing.dunning_policies (key) on delete restrict,
  status text not null,
  opened_at timestamptz not null,
  closed_at timestamptz,
  runs_from timestamptz not null,
  stage text,
  next_stage_at timestamptz,
  retries integer not null default 0,
  last_retry_at timestamptz,
  next_retry_at timestamptz,
  blocked_by text,
  due_at timestamptz,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (invoice_id),
  constraint dunning_cases_status_is_known check (
    status in ('open', 'recovered', 'exhausted', 'closed')
  ),
  constraint dunning_cases_retries_are_not_negative check (retries >= 0)
);

comment on table billing.dunning_cases is
  'Invoices that are overdue or were: what is done about each by its dunning policy.';
comment on column billing.dunning_cases.status is
  'open; recovered: paid; exhausted: nothing is left to be done, and still unpaid; closed: voided, '
  'written off, or its subscription has ended.';
comment on column billing.dunning_cases.opened_at is
  'When collecting failed first, or when an invoice that was sent was due.';
comment on column billing.dunning_cases.runs_from is
  'Stages count from here: opened_at, unless the failure was only heard of more than a day later.';
comment on column billing.dunning_cases.stage is
  'Action of the stage it is in; null before the first, and once it is over.';
comment on column billing.dunning_cases.retries is
  'How often we tried to collect; Stripe counts its own in billing.invoices.attempt_count.';
comment on column billing.dunning_cases.next_retry_at is
  'When we try to collect; null while something else has to happen first, see blocked_by.';
comment on column billing.dunning_cases.blocked_by is
  'Why we do not try: stripe_retries (it tries itself), sent_invoice (the customer pays), '
  'in_progress, later_invoice (the latest first), customer_action (the bank wants a confirmation '
  'at hosted_invoice_url), hard_decline (until another card pays), no_payment_method, '
  'unknown_method, retries_used, given_up or no_customer.';
comment on column billing.dunning_cases.due_at is
  'When run_dunning looks at it next.';

create index dunning_cases_account_id_idx on billing.dunning_cases (account_id);
create index dunning_cases_subscription_id_idx on billing.dunning_cases (subscription_id);
create index dunning_cases_policy_key_idx on billing.dunning_cases (policy_key);

alter table billing.dunning_cases enable row level security;

create policy select_member on billing.dunning_cases
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.dunning_cases from public, anon, authenticated, service_role;
grant select on billing.dunning_cases to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 52  billing.dunning_events
-- -----------------------------------------------------------------------------

create table billing.dunning_events (
  id uuid not null default gen_random_uuid(),
  case_id uuid not null references billing.dunning_cases (id) on delete restrict,
  account_id uuid references billing.accounts (id) on delete restrict,
  stage_id uuid references billing.dunning_stages (id) on delete set null,
  action text not null,
  planned_at timestamptz not null,
  occurred_at timestamptz not null default billing_private.now(),
  command_id uuid,

  primary key (id),
  unique (case_id, stage_id)
);

comment on table billing.dunning_events is
  'What was done about overdue invoices: each stage of a policy once per case, and each retry.';
comment on column billing.dunning_events.action is
  'The action of the stage, or retry.';
comment on column billing.dunning_events.planned_at is
  'When it was due by the policy.';
comment on column billing.dunning_events.command_id is
  'The call to Stripe it led to.';

create index dunning_events_account_id_idx on billing.dunning_events (account_id);
create index dunning_events_stage_id_idx on billing.dunning_events (stage_id);

alter table billing.dunning_events enable row level security;

create policy select_member on billing.dunning_events
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.dunning_events from public, anon, authenticated, service_role;
grant select on billing.dunning_events to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 53  billing.external_identities
-- -----------------------------------------------------------------------------

create table billing.external_identities (
  issuer text not null,
  subject text not null,
  user_id uuid not null,
  created_at timestamptz not null default billing_private.now(),

  primary key (issuer, subject),
  constraint external_identities_issuer_is_given check (issuer <> ''),
  constraint external_identities_subject_is_given check (subject <> '')
);

comment on table billing.external_identities is
  'Who the users of another issuer of tokens (Clerk, STACK …) are here. Written only by '
  'billing_admin.link_identity() and unlink_identity().';
comment on column billing.external_identities.issuer is
  'The iss claim, as it stands in their tokens.';
comment on column billing.external_identities.subject is
  'The sub claim, which need not be a uuid.';
comment on column billing.external_identities.user_id is
  'Whom this package takes them for: the id of their personal account.';

create index external_identities_user_id_idx on billing.external_identities (user_id);

alter table billing.external_identities enable row level security;

-- A personal account has its user's id.
create policy select_member on billing.external_identities
  for select
  to authenticated
  using (user_id = any (array(select billing_private.my_account_ids('own_account'))));

revoke all on billing.external_identities from public, anon, authenticated, service_role;
grant select on billing.external_identities to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 54  billing.role_permissions
-- -----------------------------------------------------------------------------

create table billing.role_permissions (
  role text not null,
  permission text not null,

  primary key (role, permission),
  constraint role_permissions_role_is_known check (role in ('owner', 'admin', 'member')),
  constraint role_permissions_permission_is_known check (
    permission in (
      'use_features', 'view_billing', 'manage_billing', 'manage_members', 'manage_account',
      'own_account'
    )
  )
);

comment on table billing.role_permissions is
  'What each role may do in an organization.';
comment on column billing.role_permissions.permission is
  'use_features: what the plan gives; view_billing: read invoices, payments and payment methods; '
  'manage_billing: subscribe, change and cancel; manage_members: invite, remove and change the '
  'roles of others than owners; manage_account: rename it; own_account: make and unmake owners, '
  'and close it.';

insert into billing.role_permissions (role, permission) values
  ('owner', 'use_features'),
  ('owner', 'view_billing'),
  ('owner', 'manage_billing'),
  ('owner', 'manage_members'),
  ('owner', 'manage_account'),
  ('owner', 'own_account'),
  ('admin', 'use_features'),
  ('admin', 'view_billing'),
  ('admin', 'manage_billing'),
  ('admin', 'manage_members'),
  ('admin', 'manage_account'),
  ('member', 'use_features');

alter table billing.role_permissions enable row level security;

create policy select_anyone on billing.role_permissions
  for select
  to anon, authenticated
  using (true);

revoke all on billing.role_permissions from public, anon, authenticated, service_role;
grant select on billing.role_permissions to anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 55  billing.memberships
-- -----------------------------------------------------------------------------

-- No foreign key to auth.users: nothing here may keep a user from being deleted.
create table billing.memberships (
  account_id uuid not null references billing.accounts (id) on delete restrict,
  user_id uuid not null,
  role text not null,
  created_at timestamptz not null default billing_private.now(),
  updated_at timestamptz not null default billing_private.now(),

  primary key (account_id, user_id),
  constraint memberships_role_is_known check (role in ('owner', 'admin', 'member')),
  constraint memberships_are_of_organizations check (account_id <> user_id)
);

comment on table billing.memberships is
  'Who belongs to which organization, as what. A personal account has no rows: it is its user''s.';
comment on column billing.memberships.role is
  'owner, admin or member; billing.role_permissions says what each may do.';

-- my_account_ids(): asked by every policy.
create index memberships_user_id_idx on billing.memberships (user_id) include (account_id, role);

alter table billing.memberships enable row level security;

create policy select_member on billing.memberships
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.memberships from public, anon, authenticated, service_role;
grant select on billing.memberships to authenticated, service_role;

-- -----------------------------------------------------------------------------
-- 56  billing.usage_totals
-- -----------------------------------------------------------------------------

-- One row decides and counts, so it is made to be updated in place: room in each page, and no
-- index on anything that changes.
create table billing.usage_totals (
  account_id uuid not null references billing.accounts (id) on delete restrict,
  feature_key text not null references billing.features (key) on delete restrict,
  period_start timestamptz not null,
  period_end timestamptz not null,
  used numeric not null default 0,
  reserved numeric not null default 0,
  rollover numeric not null default 0,
  prepaid numeric not null default 0,
  included numeric,
  latest_at timestamptz,
  alerted_percent integer not null default 0,
  closed_at timestamptz,

  primary key (account_id, feature_key, period_start),
  constraint usage_totals_period_is_ordered check (period_start < period_end),
  constraint usage_totals_reserved_is_not_negative check (reserved >= 0),
  constraint usage_totals_rollover_is_not_negative check (rollover >= 0),
  constraint usage_totals_prepaid_is_not_negative check (prepaid >= 0)
) with (fillfactor = 50);

comment on table billing.usage_totals is
  'What each account has used of each feature in each period; of a limit feature, what it holds, in'
  ' one period without an end. Not audited: each unit stands in billing.usage_records, or is a row '
  'of the application''s own.';
comment on column billing.usage_totals.period_start is
  'By the subscription''s own anchor; without a subscription, months since the account was made '
  '(UTC).';
comment on column billing.usage_totals.used is
  'By the feature''s aggregation. What came after closed_at stands in billing.usage_adjustments.';
comment on column billing.usage_totals.reserved is
  'Held by open reservations, those included that have expired and nobody has asked about since.';
comment on column billing.usage_totals.rollover is
  'Units left over from the period before.';
comment on column billing.usage_totals.prepaid is
  'Units of this period that prepaid grants paid for.';
comment on column billing.usage_totals.included is
  'Units the period included when it was closed, leftovers aside; null while it runs, and for '
  'unlimited.';
comment on column billing.usage_totals.latest_at is
  'When the record was made that used shows, where the latest counts.';
comment on column billing.usage_totals.alerted_percent is
  'The highest threshold that was told in this period.';
comment on column billing.usage_totals.closed_at is
  'Since when the period is told to nobody otherwise: what comes later are adjustments.';

create index usage_totals_feature_key_idx on billing.usage_totals (feature_key);

alter table billing.usage_totals enable row level security;

create policy select_member on billing.usage_totals
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.usage_totals from public, anon, authenticated, service_role;
grant select on billing.usage_totals to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 57  billing.usage_records
-- -----------------------------------------------------------------------------

-- No foreign keys: each would lock its row in accounts for every record of a busy account. The
-- total a record is counted in has them.
create table billing.usage_records (
  account_id uuid not null,
  idempotency_key text not null,
  recorded_month timestamptz not null,
  id uuid not null default gen_random_uuid(),
  feature_key text not null,
  quantity numeric not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null,
  period_start timestamptz not null,
  unique_value text,
  corrects_key text,
  used_after numeric,
  allowance numeric,
  properties jsonb,

  primary key (account_id, idempotency_key, recorded_month)
) partition by range (recorded_month);

comment on table billing.usage_records is
  'What was used, one row each, only ever added to: partitioned by the month it was heard of, not '
  'by the month it happened in, so that a key is known again whatever its time stamp says.';
comment on column billing.usage_records.idempotency_key is
  'Counts once per account; the id where the caller gave none.';
comment on column billing.usage_records.recorded_month is
  'Beginning of the month (UTC) it was heard of in: its partition.';
comment on column billing.usage_records.id is
  'Also Stripe''s identifier of the report.';
comment on column billing.usage_records.period_start is
  'Of the period in billing.usage_totals it was counted in.';
comment on column billing.usage_records.unique_value is
  'What is counted once in a period, where unique values count.';
comment on column billing.usage_records.corrects_key is
  'The record that this one corrects; its quantity is the difference.';
comment on column billing.usage_records.used_after is
  'What consume() answered: units used with this record; null for usage that was only recorded.';
comment on column billing.usage_records.allowance is
  'What consume() answered: units allowed; null for unlimited.';

-- usage by day, and what correct_usage() counts again.
create index usage_records_account_id_feature_key_occurred_at_idx
  on billing.usage_records (account_id, feature_key, occurred_at);

alter table billing.usage_records enable row level security;

create policy select_member on billing.usage_records
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.usage_records from public, anon, authenticated, service_role;
grant select on billing.usage_records to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 58  billing_private.usage_unique_values
-- -----------------------------------------------------------------------------

-- No foreign keys, as of usage_records: values are noted before their total is.
create table billing_private.usage_unique_values (
  account_id uuid not null,
  feature_key text not null,
  period_start timestamptz not null,
  value text not null,
  recorded_at timestamptz not null default billing_private.now(),

  primary key (account_id, feature_key, period_start, value)
);

comment on table billing_private.usage_unique_values is
  'Which values have been counted in a period, where unique values count.';

alter table billing_private.usage_unique_values enable row level security;
create policy select_nobody on billing_private.usage_unique_values
  for select to public using (false);

revoke all on billing_private.usage_unique_values from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 59  billing.usage_grants
-- -----------------------------------------------------------------------------

create table billing.usage_grants (
  id uuid not null default gen_random_uuid(),
  account_id uuid not null references billing.accounts (id) on delete restrict,
  feature_key text not null references billing.features (key) on delete restrict,
  quantity numeric not null,
  burnt numeric not null default 0,
  priority integer not null default 100,
  valid_from timestamptz not null,
  valid_until timestamptz not null default 'infinity',
  reason text not null,
  reference text,
  granted_by uuid,
  revoked_at timestamptz,
  revoked_reason text,
  created_at timestamptz not null default billing_private.now(),

  primary key (id),
  unique (account_id, reference),
  constraint usage_grants_quantity_is_positive check (quantity > 0),
  constraint usage_grants_burnt_is_within check (burnt between 0 and quantity),
  constraint usage_grants_interval_is_ordered check (valid_from < valid_until),
  constraint usage_grants_reason_is_given check (reason <> '')
);

comment on table billing.usage_grants is
  'Prepaid units of a metered feature, used when the period''s own are used up: by priority '
  '(lowest number first), then by end, then by age. No reset and no plan change takes them away.';
comment on column billing.usage_grants.reference is
  'What it was granted for, at most once per account: an order, an invoice; null for a gift.';

create index usage_grants_account_id_feature_key_idx
  on billing.usage_grants (account_id, feature_key);
create index usage_grants_feature_key_idx on billing.usage_grants (feature_key);

alter table billing.usage_grants enable row level security;

create policy select_member on billing.usage_grants
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.usage_grants from public, anon, authenticated, service_role;
grant select on billing.usage_grants to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 60  billing.usage_burns
-- -----------------------------------------------------------------------------

create table billing.usage_burns (
  account_id uuid not null,
  feature_key text not null,
  period_start timestamptz not null,
  grant_id uuid not null references billing.usage_grants (id) on delete restrict,
  quantity numeric not null,

  primary key (account_id, feature_key, period_start, grant_id),
  foreign key (account_id, feature_key, period_start)
    references billing.usage_totals (account_id, feature_key, period_start) on delete restrict,
  constraint usage_burns_quantity_is_not_negative check (quantity >= 0)
);

comment on table billing.usage_burns is
  'Which grant paid for how many units of which period.';

create index usage_burns_grant_id_idx on billing.usage_burns (grant_id);

alter table billing.usage_burns enable row level security;

create policy select_member on billing.usage_burns
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.usage_burns from public, anon, authenticated, service_role;
grant select on billing.usage_burns to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 61  billing.usage_reservations
-- -----------------------------------------------------------------------------

create table billing.usage_reservations (
  account_id uuid not null,
  id uuid not null default gen_random_uuid(),
  feature_key text not null,
  period_start timestamptz not null,
  idempotency_key text,
  quantity numeric not null,
  status text not null default 'open',
  expires_at timestamptz not null,
  settled_quantity numeric,
  created_at timestamptz not null default billing_private.now(),
  finished_at timestamptz,

  primary key (account_id, id),
  unique (account_id, idempotency_key),
  foreign key (account_id, feature_key, period_start)
    references billing.usage_totals (account_id, feature_key, period_start) on delete restrict,
  constraint usage_reservations_quantity_is_positive check (quantity > 0),
  constraint usage_reservations_status_is_known check (
    status in ('open', 'settled', 'released', 'expired')
  ),
  constraint usage_reservations_settled_has_a_quantity check (
    (status = 'settled') = (settled_quantity is not null)
  )
);

comment on table billing.usage_reservations is
  'Units set aside for work that is going on. Nothing has to run for one to stop counting at '
  'expires_at.';
comment on column billing.usage_reservations.expires_at is
  'At the latest the end of the period whose units it holds.';
comment on column billing.usage_reservations.settled_quantity is
  'What was used in the end.';

create index usage_reservations_period_idx
  on billing.usage_reservations (account_id, feature_key, period_start);

alter table billing.usage_reservations enable row level security;

create policy select_member on billing.usage_reservations
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.usage_reservations from public, anon, authenticated, service_role;
grant select on billing.usage_reservations to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 62  billing.usage_adjustments
-- -----------------------------------------------------------------------------

create table billing.usage_adjustments (
  account_id uuid not null,
  id uuid not null default gen_random_uuid(),
  feature_key text not null,
  period_start timestamptz not null,
  quantity numeric not null,
  kind text not null,
  idempotency_key text not null,
  reason text,
  created_at timestamptz not null default billing_private.now(),

  primary key (account_id, id),
  foreign key (account_id, feature_key, period_start)
    references billing.usage_totals (account_id, feature_key, period_start) on delete restrict,
  constraint usage_adjustments_kind_is_known check (kind in ('late', 'correction'))
);

comment on table billing.usage_adjustments is
  'What was heard of a period after it was closed: by how much its total would be another.';
comment on column billing.usage_adjustments.idempotency_key is
  'Of the record that came late or corrects one.';

create index usage_adjustments_period_idx
  on billing.usage_adjustments (account_id, feature_key, period_start);

alter table billing.usage_adjustments enable row level security;

create policy select_member on billing.usage_adjustments
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.usage_adjustments from public, anon, authenticated, service_role;
grant select on billing.usage_adjustments to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 63  billing.usage_alerts
-- -----------------------------------------------------------------------------

create table billing.usage_alerts (
  account_id uuid not null,
  feature_key text not null,
  period_start timestamptz not null,
  percent integer not null,
  used numeric not null,
  allowance numeric not null,
  created_at timestamptz not null default billing_private.now(),

  primary key (account_id, feature_key, period_start, percent),
  foreign key (account_id, feature_key, period_start)
    references billing.usage_totals (account_id, feature_key, period_start) on delete restrict
);

comment on table billing.usage_alerts is
  'That an account reached a share of what a period allows: once for each share and period, however'
  ' often it is reached.';

alter table billing.usage_alerts enable row level security;

create policy select_member on billing.usage_alerts
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.usage_alerts from public, anon, authenticated, service_role;
grant select on billing.usage_alerts to authenticated, service_role;

-- -----------------------------------------------------------------------------
-- 64  billing.invitations
-- -----------------------------------------------------------------------------

create table billing.invitations (
  id uuid not null default gen_random_uuid(),
  account_id uuid not null references billing.accounts (id) on delete restrict,
  email text not null,
  role text not null,
  invited_by uuid,
  created_at timestamptz not null default billing_private.now(),
  expires_at timestamptz not null,
  accepted_at timestamptz,
  accepted_by uuid,
  revoked_at timestamptz,

  primary key (id),
  constraint invitations_email_is_an_address check (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
  constraint invitations_role_is_known check (role in ('owner', 'admin', 'member')),
  constraint invitations_expire_after_creation check (created_at < expires_at),
  constraint invitations_end_once check (accepted_at is null or revoked_at is null),
  constraint invitations_are_accepted_by_somebody check (
    (accepted_at is null) = (accepted_by is null)
  )
);

comment on table billing.invitations is
  'Who was invited into an organization, as what. Whoever brings the token, which only its hash is '
  'kept of, is let in once.';
comment on column billing.invitations.email is
  'Where the token is sent, in lower case; whoever accepts may sign in with another address.';
comment on column billing.invitations.invited_by is
  'The user; null where a server did it.';
comment on column billing.invitations.expires_at is
  'Exclusive: at this instant it is too late.';
comment on column billing.invitations.revoked_at is
  'When it was withdrawn, or a newer one to the same address took its place.';

-- One open invitation per address.
create unique index invitations_account_id_email_open_idx on billing.invitations (account_id, email)
  where accepted_at is null and revoked_at is null;
create index invitations_account_id_idx on billing.invitations (account_id);

alter table billing.invitations enable row level security;

create policy select_member on billing.invitations
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('manage_members'))));

revoke all on billing.invitations from public, anon, authenticated, service_role;
grant select on billing.invitations to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 65  billing_private.invitation_tokens
-- -----------------------------------------------------------------------------

-- Apart from the invitations, which those who manage members may read.
create table billing_private.invitation_tokens (
  token_hash text not null,
  invitation_id uuid not null references billing.invitations (id) on delete cascade,

  primary key (token_hash),
  unique (invitation_id)
);

comment on table billing_private.invitation_tokens is
  'The SHA-256 of each invitation''s token, in hex. The token itself is shown once and never kept.';

alter table billing_private.invitation_tokens enable row level security;
create policy select_nobody on billing_private.invitation_tokens
  for select to public using (false);

revoke all on billing_private.invitation_tokens from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 66  billing.contracts
-- -----------------------------------------------------------------------------

create table billing.contracts (
  id uuid not null default gen_random_uuid(),
  account_id uuid not null references billing.accounts (id) on delete restrict,
  status text not null default 'draft',
  supersedes uuid references billing.contracts (id) on delete restrict,
  price_id uuid references billing.prices (id) on delete restrict,
  quantity bigint not null default 1,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  first_ends_at timestamptz not null,
  term_starts_at timestamptz not null,
  term_months integer,
  notice_days integer not null default 0,
  notice_at timestamptz,
  payment_terms_days integer not null default 30,
  minimum_minor bigint,
  commitment_minor bigint,
  subscription_id uuid references billing.subscriptions (id) on delete restrict,
  reference text not null,
  reason text not null,
  is_commitment_waived boolean not null default false,
  ended_at timestamptz,
  end_reason text,
  created_at timestamptz not null default billing_private.now(),
  in_force_until timestamptz not null generated always as (
    coalesce(
      ended_at,
      case when term_months is null or notice_at is not null then ends_at else 'infinity' end)
  ) stored,

  primary key (id),
  unique (supersedes),
  constraint contracts_status_is_known check (status in ('draft', 'active', 'amended', 'ended')),
  constraint contracts_end_after_they_start check (starts_at < ends_at),
  constraint contracts_are_in_force_in_order check (starts_at <= ended_at),
  constraint contracts_quantity_is_positive check (quantity > 0),
  constraint contracts_term_months_is_positive check (term_months > 0),
  constraint contracts_notice_is_not_negative check (notice_days >= 0),
  constraint contracts_terms_are_within_a_year check (payment_terms_days between 0 and 365),
  constraint contracts_minimum_is_not_negative check (minimum_minor >= 0),
  constraint contracts_commitment_is_not_negative check (commitment_minor >= 0),
  constraint contracts_amounts_need_a_price check (
    price_id is not null or num_nonnulls(minimum_minor, commitment_minor) = 0
  ),
  constraint contracts_reference_is_given check (reference <> ''),
  constraint contracts_reason_is_given check (reason <> '')
);

comment on table billing.contracts is
  'What was agreed with an account beside the catalog: its prices, limits and obligations, for '
  '[starts_at, in_force_until). Never edited: an amendment is a new row that supersedes this one.';
comment on column billing.contracts.status is
  'draft (binds nobody), active, amended (another one took its place) or ended.';
comment on column billing.contracts.price_id is
  'The price billed each period, by a manual subscription with invoices; null where nothing is '
  'billed here.';
comment on column billing.contracts.ends_at is
  'End of the running term, exclusive.';
comment on column billing.contracts.first_ends_at is
  'End of the first term; later terms are counted from it.';
comment on column billing.contracts.term_starts_at is
  'Beginning of the running term, which amendments do not interrupt.';
comment on column billing.contracts.term_months is
  'It renews by so many months unless notice is given; null for a contract that ends by itself.';
comment on column billing.contracts.notice_days is
  'Notice is to be given so many days before ends_at.';
comment on column billing.contracts.notice_at is
  'When notice was given: it ends with the running term.';
comment on column billing.contracts.payment_terms_days is
  'Days until an invoice is due.';
comment on column billing.contracts.minimum_minor is
  'What the invoice of each period comes to at least.';
comment on column billing.contracts.commitment_minor is
  'What all periods of a term come to at least; the rest is billed at its end.';
comment on column billing.contracts.is_commitment_waived is
  'What is missing of the commitment when it ends is not billed.';
comment on column billing.contracts.reference is
  'Where the signed document is to be found.';
comment on column billing.contracts.in_force_until is
  'End, exclusive, as things stand; infinity while it renews.';

create index contracts_account_id_idx on billing.contracts (account_id);
create index contracts_price_id_idx on billing.contracts (price_id);
create index contracts_subscription_id_idx on billing.contracts (subscription_id);

alter table billing.contracts enable row level security;

create policy select_member on billing.contracts
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.contracts from public, anon, authenticated, service_role;
grant select on billing.contracts to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 67  billing.contract_features
-- -----------------------------------------------------------------------------

create table billing.contract_features (
  contract_id uuid not null references billing.contracts (id) on delete cascade,
  feature_key text not null references billing.features (key) on delete restrict,
  limit_value bigint,

  primary key (contract_id, feature_key),
  constraint contract_features_limit_is_not_negative check (limit_value >= 0)
);

comment on table billing.contract_features is
  'What a contract gives. While it is in force its limit takes the place of the plans'', be it '
  'higher or lower; grants still count beside it.';
comment on column billing.contract_features.limit_value is
  'Units of a limit or metered feature; null for unlimited, and for boolean features.';

create index contract_features_feature_key_idx on billing.contract_features (feature_key);

alter table billing.contract_features enable row level security;

create policy select_member on billing.contract_features
  for select
  to authenticated
  using (
    contract_id = any (array(
      select contracts.id
      from billing.contracts
      where account_id = any (array(select billing_private.my_account_ids('view_billing')))
    ))
  );

revoke all on billing.contract_features from public, anon, authenticated, service_role;
grant select on billing.contract_features to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 68  billing.contract_prices
-- -----------------------------------------------------------------------------

create table billing.contract_prices (
  contract_id uuid not null references billing.contracts (id) on delete cascade,
  price_id uuid not null references billing.prices (id) on delete restrict,
  feature_key text references billing.features (key) on delete restrict,
  unit_amount_minor bigint,
  tiers_mode text,
  tiers jsonb,

  primary key (contract_id, price_id),
  constraint contract_prices_amount_is_not_negative check (unit_amount_minor >= 0),
  constraint contract_prices_cost_one_thing check (
    num_nonnulls(unit_amount_minor, tiers) = 1
  ),
  constraint contract_prices_tiers_are_a_list check (jsonb_typeof(tiers) = 'array'),
  constraint contract_prices_tiers_have_a_mode check (
    (tiers is null) = (tiers_mode is null)
  ),
  constraint contract_prices_tiers_mode_is_known check (tiers_mode in ('graduated', 'volume'))
);

comment on table billing.contract_prices is
  'What prices of the catalog cost under a contract.';
comment on column billing.contract_prices.feature_key is
  'The feature whose usage is billed at this price, after each period; null for what is billed by '
  'quantity.';
comment on column billing.contract_prices.tiers is
  'As in billing.prices.tiers, in place of a unit amount.';

create index contract_prices_price_id_idx on billing.contract_prices (price_id);
create index contract_prices_feature_key_idx on billing.contract_prices (feature_key);

alter table billing.contract_prices enable row level security;

create policy select_member on billing.contract_prices
  for select
  to authenticated
  using (
    contract_id = any (array(
      select contracts.id
      from billing.contracts
      where account_id = any (array(select billing_private.my_account_ids('view_billing')))
    ))
  );

revoke all on billing.contract_prices from public, anon, authenticated, service_role;
grant select on billing.contract_prices to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 69  billing.contract_settlements
-- -----------------------------------------------------------------------------

create table billing.contract_settlements (
  contract_id uuid not null references billing.contracts (id) on delete restrict,
  account_id uuid not null references billing.accounts (id) on delete restrict,
  term_starts_at timestamptz not null,
  term_ends_at timestamptz not null,
  committed_minor bigint not null,
  charged_minor bigint not null,
  shortfall_minor bigint not null,
  late_minor bigint not null default 0,
  is_waived boolean not null default false,
  invoice_id uuid references billing.invoices (id) on delete restrict,
  created_at timestamptz not null default billing_private.now(),

  primary key (contract_id, term_starts_at),
  constraint contract_settlements_term_is_ordered check (term_starts_at < term_ends_at),
  constraint contract_settlements_shortfall_is_the_rest check (
    shortfall_minor = greatest(committed_minor - charged_minor, 0)
  )
);

comment on table billing.contract_settlements is
  'What each term of a contract came to when it ended, and what was missing of its commitment.';
comment on column billing.contract_settlements.late_minor is
  'What usage of the term that was heard of later came to: it draws on what was missing first.';
comment on column billing.contract_settlements.is_waived is
  'An admin let the account off what was missing.';
comment on column billing.contract_settlements.invoice_id is
  'The invoice of what was missing; null where nothing was, or it was waived.';

create index contract_settlements_account_id_idx on billing.contract_settlements (account_id);
create index contract_settlements_invoice_id_idx on billing.contract_settlements (invoice_id);

alter table billing.contract_settlements enable row level security;

create policy select_member on billing.contract_settlements
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids('view_billing'))));

revoke all on billing.contract_settlements from public, anon, authenticated, service_role;
grant select on billing.contract_settlements to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 70  billing.hook_events
-- -----------------------------------------------------------------------------

create sequence billing_private.hook_events_position_seq;

revoke all on sequence billing_private.hook_events_position_seq
from public, anon, authenticated, service_role;

create table billing.hook_events (
  account_id uuid not null references billing.accounts (id) on delete restrict,
  id uuid not null default gen_random_uuid(),
  type text not null,
  fact text not null,
  data jsonb not null,
  occurred_at timestamptz not null default billing_private.now(),
  position bigint,

  primary key (account_id, id),
  unique (account_id, type, fact),
  constraint hook_events_type_is_dotted check (type ~ '^[a-z_]+(\.[a-z_]+)+$'),
  constraint hook_events_data_is_an_object check (jsonb_typeof(data) = 'object')
);

comment on table billing.hook_events is
  'What happened that an application or a workflow may want to act on, once per fact. Read in '
  'order by billing_admin.next_hook_events(); kept for 90 days.';
comment on column billing.hook_events.type is
  'usage.threshold_reached: data says of which feature and period, at which percent.';
comment on column billing.hook_events.fact is
  'What it tells of, in words of its own: the same is never told twice.';
-- A number given when the row is written would let a reader pass by one that is committed later.
comment on column billing.hook_events.position is
  'Its place in the order it is read in; null until it is read first.';

create index hook_events_position_idx on billing.hook_events (position);
create index hook_events_occurred_at_idx on billing.hook_events (occurred_at);

alter table billing.hook_events enable row level security;

create policy select_member on billing.hook_events
  for select
  to authenticated
  using (account_id = any (array(select billing_private.my_account_ids())));

revoke all on billing.hook_events from public, anon, authenticated, service_role;
grant select on billing.hook_events to authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 71  billing_private.billed_usage
-- -----------------------------------------------------------------------------

create table billing_private.billed_usage (
  account_id uuid not null references billing.accounts (id) on delete restrict,
  subscription_id uuid not null references billing.subscriptions (id) on delete restrict,
  contract_id uuid not null references billing.contracts (id) on delete restrict,
  price_id uuid not null references billing.prices (id) on delete restrict,
  feature_key text not null references billing.features (key) on delete restrict,
  period_start timestamptz not null,
  period_end timestamptz not null,
  quantity numeric not null,
  amount_minor bigint not null,
  first_amount_minor bigint not null,
  invoice_minor bigint not null,
  minimum_minor bigint,

  primary key (account_id, subscription_id, contract_id, price_id, period_start),
  constraint billed_usage_period_is_ordered check (period_start < period_end)
);

comment on table billing_private.billed_usage is
  'What a contract has billed for the usage of each period so far. What is heard of later is '
  'billed with the next invoice, as the difference.';
comment on column billing_private.billed_usage.first_amount_minor is
  'What the period''s own invoice billed; amount_minor with what later ones added or gave back.';
comment on column billing_private.billed_usage.invoice_minor is
  'What all of that invoice came to before it was brought up to minimum_minor, if there was one.';

create index billed_usage_subscription_id_idx on billing_private.billed_usage (subscription_id);
create index billed_usage_contract_id_idx on billing_private.billed_usage (contract_id);
create index billed_usage_price_id_idx on billing_private.billed_usage (price_id);
create index billed_usage_feature_key_idx on billing_private.billed_usage (feature_key);

alter table billing_private.billed_usage enable row level security;
create policy select_nobody on billing_private.billed_usage for select to public using (false);

revoke all on billing_private.billed_usage from public, anon, authenticated, service_role;


-- -----------------------------------------------------------------------------
-- 72  billing_private.code_guesses
-- -----------------------------------------------------------------------------

create table billing_private.code_guesses (
  hour timestamptz not null,
  subject_hash text not null,
  count integer not null default 1,

  primary key (hour, subject_hash),
  constraint code_guesses_hour_is_whole check (
    extract(epoch from hour) % 3600 = 0
  )
);

comment on table billing_private.code_guesses is
  'How often a user, or an address, asked for a discount code nobody has made, by hour. Kept for a '
  'day.';
comment on column billing_private.code_guesses.subject_hash is
  'billing_private.salted_hash() of who asked: neither users nor addresses are kept.';

alter table billing_private.code_guesses enable row level security;
create policy select_nobody on billing_private.code_guesses for select to public using (false);

revoke all on billing_private.code_guesses from public, anon, authenticated, service_role;
