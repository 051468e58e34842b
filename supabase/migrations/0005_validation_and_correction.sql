-- =============================================================================
-- 0005  validation and correction
--
-- Decides access, explains it, and repairs what disagrees with its sources.
-- Who pays for what is decided in 0003, not here.
--
-- Reads      0001 tables, 0002 corrections, inbox and tasks, 0003 helpers and projectors
-- Read by    0006 automation, 0007 admin
--
-- Invariants
--   * refresh_entitlements() is the only writer of billing.entitlements and billing.profiles.
--   * has_entitlement() is true only while a stored interval contains now; nothing has to run
--     for access to end.
--   * Status and date decide together; a status nobody knows gives nothing.
--
-- Contents
--   1  what the sources say
--   2  billing_private.refresh_entitlements()
--   3  in step with the sources
--   4  what is in force at this instant
--   5  billing.has_entitlement(), access_level() and entitlement_limit()
--   6  billing.my_entitlements() and membership_tier()
--   7  billing.my_access()
--   8  claims for access tokens
--   9  billing.explain_entitlement() and has_entitlement_at()
--   10  validate and correct
--   11  whether the money adds up
--   12  rebuild from the inbox
--   13  who may call what
-- =============================================================================


-- -----------------------------------------------------------------------------
-- 1  what the sources say
-- -----------------------------------------------------------------------------

create type billing_private.access_terms as (
  latest_invoice_status text,
  paused text,
  read_only_after interval,
  suspend_after interval,
  limited_from timestamptz,
  ended_from timestamptz,
  limited_because text
);

comment on type billing_private.access_terms is
  'What beside a subscription decides what it gives: its latest invoice, the policies of its plan '
  'and the restrictions on its running period.';


-- Full access comes first, reading after it: no state leads from reading back to full access by
-- the clock alone. Its body is long because it is a table of cases: what each state gives.
create function billing_private.access_of_item(
  p_subscription billing.subscriptions,
  p_item billing.subscription_items,
  p_plan billing.plans,
  p_terms billing_private.access_terms,
  out valid_from timestamptz,
  out valid_until timestamptz,
  out read_only_until timestamptz,
  out reason text
)
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_scheduled_end timestamptz := least(
    p_subscription.cancel_at,
    case when p_subscription.cancel_at_period_end then p_item.current_period_end end);
begin
  valid_from := coalesce(p_subscription.started_at, p_item.current_period_start);

  if p_subscription.ended_at is not null
    or p_subscription.status in ('canceled', 'incomplete_expired')
  then
    reason := 'ended';
  elsif p_subscription.status = 'paused'
    -- Voiding is how a service that is not given is not billed; drafts and write-offs are for one
    -- that goes on (https://docs.stripe.com/billing/subscriptions/pause-payment).
    or (p_subscription.pause_collection ->> 'behavior' = 'void'
      and p_terms.latest_invoice_status = 'void')
  then
    valid_until := case p_terms.paused when 'full' then coalesce(v_scheduled_end, 'infinity') end;
    read_only_until := case p_terms.paused
      when 'read_only' then coalesce(v_scheduled_end, 'infinity')
    end;
    reason := 'paused';
  -- Of Stripe's two events about a payment either may come first: the money decides.
  elsif p_subscription.status in ('incomplete', 'unpaid')
    and p_terms.latest_invoice_status is distinct from 'paid'
  then
    reason := p_subscription.status;
  elsif p_subscription.status not in (
    'active', 'trialing', 'past_due', 'incomplete', 'unpaid'
  ) then
    reason := 'unknown_status';
  elsif p_item.current_period_end is null then
    reason := 'period_unknown';
  elsif p_subscription.status = 'past_due'
    and p_terms.latest_invoice_status is distinct from 'paid'
  then
    valid_until := least(
      v_scheduled_end,
      p_subscription.past_due_since + coalesce(
        least(p_terms.read_only_after, p_terms.suspend_after), p_plan.past_due_grace));
    read_only_until := case
      when p_terms.read_only_after is not null then least(
        v_scheduled_end,
        coalesce(p_subscription.past_due_since + p_terms.suspend_after, 'infinity'))
    end;
    reason := 'past_due_grace';
  else
    -- A late renewal event locks nobody out; where an end is scheduled there is none to wait for.
    -- A manual subscription hears from nobody: it lasts until it is ended.
    valid_until := least(v_scheduled_end, case
      when p_subscription.provider = 'stripe'
        then p_item.current_period_end + p_plan.renewal_grace
      else 'infinity'
    end);
    reason := case
      when v_scheduled_end is not null then 'ending'
      when p_subscription.status in ('past_due', 'incomplete', 'unpaid') then 'paid'
      else p_subscription.status
    end;
  end if;

  if p_terms.limited_from < valid_until then
    read_only_until := least(greatest(valid_until, read_only_until), p_terms.ended_from);
    valid_until := p_terms.limited_from;
    reason := p_terms.limited_because;
  elsif p_terms.ended_from < read_only_until then
    read_only_until := p_terms.ended_from;
    reason := p_terms.limited_because;
  end if;
end;
$$;

comment on function billing_private.access_of_item(
  billing.subscriptions, billing.subscription_items, billing.plans, billing_private.access_terms
) is
$$From when until when a subscription item gives its plan's features, and why: in full until
valid_until, for reading from then until read_only_until. Each is null when it gives no such access.

Statuses are Stripe's
(https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses); the graces and
policies are the plan's.$$;


create type billing_private.entitlement_source as (
  account_id uuid,
  feature_key text,
  source_kind text,
  source_id uuid,
  access_level text,
  plan_id uuid,
  store_key text,
  subscription_status text,
  limit_value bigint,
  valid_from timestamptz,
  valid_until timestamptz,
  reason text
);

-- Long because it is one query: what bears on an item, level by level.
create function billing_private.sources_beside_contracts(
  p_account_ids uuid[],
  p_features text[] default null
)
returns setof billing_private.entitlement_source
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  -- Once for each item, not for each feature of its plan.
  with items as materialized (
    select
      subscriptions.account_id, subscriptions.status, subscription_items.id, plans.id as plan_id,
      stores.key as store_key, subscription_items.plan_version,
      levels.access_level, levels.valid_from, levels.valid_until, access.reason
    from billing.subscriptions
    join billing.subscription_items on subscription_items.subscription_id = subscriptions.id
    join billing.prices on prices.id = subscription_items.price_id
    join billing.plans on plans.id = prices.plan_id
    join billing.access_policies on access_policies.key = plans.access_policy_key
    left join billing.stores on stores.id = plans.store_id
    left join billing.invoices
      on invoices.stripe_invoice_id = subscriptions.stripe_latest_invoice_id
    left join lateral (
      select
        min(begins_after) filter (where action = 'read_only') as read_only_after,
        min(begins_after) filter (where action = 'suspend') as suspend_after
      from billing.dunning_stages
      where policy_key = plans.dunning_policy_key
        and subscriptions.status = 'past_due'
    ) as stages on true
    left join lateral (
      select
        min(begins_at) as limited_from,
        min(begins_at) filter (where access_level = 'none') as ended_from,
        (array_agg(cause order by begins_at, cause))[1] as limited_because
      from billing.access_restrictions
      where access_restrictions.subscription_id = subscriptions.id
        and lifted_at is null
        and access_level <> 'full'
        -- What was refunded or disputed is a period; the next one is paid for anew.
        and coalesce(subscription_items.current_period_start < periods_before, true)
    ) as restrictions on true
    cross join lateral billing_private.access_of_item(
      subscriptions, subscription_items, plans,
      row(
        invoices.status, access_policies.paused, stages.read_only_after, stages.suspend_after,
        restrictions.limited_from, restrictions.ended_from, restrictions.limited_because
      )::billing_private.access_terms
    ) as access
    cross join lateral (
      values
        ('full', access.valid_from, access.valid_until),
        ('read_only', greatest(access.valid_from, access.valid_until), access.read_only_until)
    ) as levels (access_level, valid_from, valid_until)
    where subscriptions.account_id = any (p_account_ids)
      -- A source that gives nothing at all still says why.
      and (levels.access_level = 'full' or levels.valid_from < levels.valid_until)
  )
  select
    items.account_id, plan_features.feature_key, 'subscription_item', items.id,
    items.access_level, items.plan_id, items.store_key, items.status, plan_features.limit_value,
    items.valid_from, items.valid_until, items.reason
  from items
  join billing.plan_features
    on plan_features.plan_id = items.plan_id
    and plan_features.version = items.plan_version
  where p_features is null or plan_features.feature_key = any (p_features)
  union all
  select
    account_id, feature_key, 'grant', id, 'full', null, null, null, limit_value, valid_from,
    case when revoked_at is null then valid_until end,
    case when revoked_at is null then kind else 'revoked' end
  from billing.entitlement_grants
  where account_id = any (p_account_ids)
    and (p_features is null or entitlement_grants.feature_key = any (p_features));
end;
$$;

comment on function billing_private.sources_beside_contracts(uuid[], text[]) is
  'Every subscription item and grant of these accounts with what it gives, of these features or of '
  'all, and why; also those that give nothing (valid_until is null).';


create function billing_private.contract_sources(p_account_ids uuid[])
returns setof billing_private.entitlement_source
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    contracts.account_id, contract_features.feature_key, 'contract', contracts.id, 'full',
    null::uuid, null, null, contract_features.limit_value, contracts.starts_at,
    contracts.in_force_until, 'contract'
  from billing.contracts
  join billing.contract_features on contract_features.contract_id = contracts.id
  where contracts.account_id = any (p_account_ids)
    and contracts.status <> 'draft';
end;
$$;

comment on function billing_private.contract_sources(uuid[]) is
  'What the contracts of these accounts give, for as long as each is in force.';


-- A contract is what was agreed: also where it is less than the plan, its limit is the plan's. An
-- item is cut where a contract that names its feature begins or ends, so that each piece has one
-- limit. Grants are given beside what was agreed, and stay as they are.
create function billing_private.entitlement_sources(p_account_ids uuid[])
returns setof billing_private.entitlement_source
language plpgsql
stable
set search_path = ''
as $$
begin
  if not billing_private.are_contracted(p_account_ids) then
    return query select * from billing_private.sources_beside_contracts(p_account_ids);
    return;
  end if;

  return query
  with agreed as materialized (
    select
      account_id, feature_key, limit_value, tstzrange(valid_from, valid_until) as span
    from billing_private.contract_sources(p_account_ids)
    where valid_from < valid_until
  )
  select
    sources.account_id, sources.feature_key, sources.source_kind, sources.source_id,
    sources.access_level, sources.plan_id, sources.store_key, sources.subscription_status,
    pieces.limit_value, coalesce(lower(pieces.span), sources.valid_from),
    coalesce(upper(pieces.span), sources.valid_until), sources.reason
  from billing_private.sources_beside_contracts(p_account_ids) as sources
  cross join lateral (
    select case
      when sources.source_kind = 'subscription_item' and sources.access_level = 'full'
        and sources.valid_from < sources.valid_until
        then tstzrange(sources.valid_from, sources.valid_until)
    end as span
  ) as whole
  cross join lateral (
    select agreed.limit_value, whole.span * agreed.span as span
    from agreed
    where agreed.account_id = sources.account_id
      and agreed.feature_key = sources.feature_key
      and agreed.span && whole.span
    union all
    select sources.limit_value, rest.span
    from unnest(
      tstzmultirange(whole.span) - coalesce(
        (
          select range_agg(agreed.span)
          from agreed
          where agreed.account_id = sources.account_id
            and agreed.feature_key = sources.feature_key
        ),
        '{}')
    ) as rest (span)
    union all
    select sources.limit_value, null
    where whole.span is null
  ) as pieces
  union all
  select * from billing_private.contract_sources(p_account_ids);
end;
$$;

comment on function billing_private.entitlement_sources(uuid[]) is
  'Every source of these accounts with what it gives and why, piece by piece where a contract '
  'overrides the limit of a plan; also those that give nothing (valid_until is null).';


create function billing_private.are_contracted(p_account_ids uuid[])
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return exists (
    select
    from billing.contracts
    where account_id = any (p_account_ids)
      and status <> 'draft'
  );
end;
$$;

comment on function billing_private.are_contracted(uuid[]) is
  'Whether any of these accounts has, or had, a contract.';


create function billing_private.computed_entitlements(
  p_account_ids uuid[],
  p_features text[] default null
)
returns setof billing_private.entitlement_source
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now constant timestamptz := billing_private.now();
begin
  if not billing_private.are_contracted(p_account_ids) then
    return query
    select *
    from billing_private.sources_beside_contracts(p_account_ids, p_features) as sources
    where sources.valid_from < sources.valid_until
      and sources.valid_until > v_now;
    return;
  end if;

  return query
  select *
  from billing_private.entitlement_sources(p_account_ids) as sources
  where (p_features is null or sources.feature_key = any (p_features))
    and sources.valid_from < sources.valid_until
    and sources.valid_until > v_now;
end;
$$;

comment on function billing_private.computed_entitlements(uuid[], text[]) is
  'What billing.entitlements has to say about these accounts now, of these features or of all.';


-- -----------------------------------------------------------------------------
-- 2  billing_private.refresh_entitlements()
-- -----------------------------------------------------------------------------

create type billing_private.entitlement_difference as (
  stored billing.entitlements,
  computed billing_private.entitlement_source
);

create function billing_private.refresh_entitlements(
  p_account_ids uuid[],
  p_features text[] default null
)
returns void
language plpgsql
volatile
security definer -- called by triggers of whoever changed a source
set search_path = ''
-- A plan may have a hundred thousand subscribers, who are compared at once.
set work_mem = '64MB'
set jit = off
as $$
declare
  v_differences billing_private.entitlement_difference[];
begin
  perform billing_private.begin_refresh(p_account_ids);

  select
    array_agg(row(stored.whole, computed)::billing_private.entitlement_difference)
  into v_differences
  from (
    select entitlements as whole, entitlements.*
    from billing.entitlements
    where account_id = any (p_account_ids)
      and (p_features is null or feature_key = any (p_features))
  ) as stored
  full join billing_private.computed_entitlements(p_account_ids, p_features) as computed
    using (account_id, feature_key, source_kind, source_id, access_level, valid_from)
  where (stored.plan_id, stored.store_key, stored.limit_value, stored.valid_until)
    is distinct from
    (computed.plan_id, computed.store_key, computed.limit_value, computed.valid_until);

  if v_differences is not null then
    perform billing_private.write_entitlements(v_differences);
  end if;
  perform billing_private.finish_refresh(p_account_ids, v_differences);
end;
$$;

comment on function billing_private.refresh_entitlements(uuid[], text[]) is
  'Brings entitlements, of these features or of all, and profiles of these accounts in step with '
  'their sources; writes only differences, keeps what it replaces, and tells whoever listens.';


create function billing_private.finish_refresh(
  p_account_ids uuid[],
  p_differences billing_private.entitlement_difference[]
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_changed uuid[];
  v_only_limits uuid[];
  v_profiles uuid[];
begin
  if p_differences is not null then
    select array_agg(account_id), array_agg(account_id) filter (where is_limit)
    into v_changed, v_only_limits
    from (
      select
        coalesce((stored).account_id, (computed).account_id) as account_id,
        bool_and(
          ((stored).account_id, (stored).plan_id, (stored).valid_from, (stored).valid_until)
            is not distinct from
            ((computed).account_id, (computed).plan_id, (computed).valid_from,
              (computed).valid_until)
        ) as is_limit
      from unnest(p_differences)
      group by 1
    ) as accounts;
  end if;

  -- Profiles know of no limits.
  if v_only_limits is null then
    v_profiles := billing_private.refresh_profiles(p_account_ids);
  else
    v_profiles := billing_private.refresh_profiles(
      array(select unnest(p_account_ids) except select unnest(v_only_limits)));
  end if;

  -- Realtime is optional, and can be enabled at any time.
  if coalesce(v_changed, v_profiles) is not null
    and to_regprocedure('realtime.send(jsonb, text, text, boolean)') is not null
  then
    perform billing_private.broadcast_access(
      array(select unnest(v_changed) union select unnest(v_profiles)));
  end if;
end;
$$;

comment on function billing_private.finish_refresh(
  uuid[], billing_private.entitlement_difference[]
) is
  'What follows from what was written: profiles, and the broadcast; part of '
  'refresh_entitlements().';


-- Long because it is one row, column by column, written in three ways.
create function billing_private.write_entitlements(
  p_differences billing_private.entitlement_difference[]
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_has_surplus boolean;
  v_has_missing boolean;
  v_has_different boolean;
begin
  select
    bool_or((computed).account_id is null),
    bool_or((stored).account_id is null),
    bool_or((stored).account_id = (computed).account_id)
  into v_has_surplus, v_has_missing, v_has_different
  from unnest(p_differences);

  insert into billing_private.entitlement_history (
    account_id, feature_key, source_kind, source_id, access_level, plan_id, store_key,
    limit_value, valid_from, valid_until, recorded_at, replaced_at
  )
  select
    (stored).account_id, (stored).feature_key, (stored).source_kind, (stored).source_id,
    (stored).access_level, (stored).plan_id, (stored).store_key, (stored).limit_value,
    (stored).valid_from, (stored).valid_until, (stored).recorded_at, v_now
  from unnest(p_differences)
  where (stored).account_id is not null;

  -- A statement that changes nothing has its triggers run all the same.
  if v_has_surplus then
    delete from billing.entitlements
    using unnest(p_differences) as difference
    where (difference.computed).account_id is null
      and entitlements.account_id = (difference.stored).account_id
      and entitlements.feature_key = (difference.stored).feature_key
      and entitlements.source_kind = (difference.stored).source_kind
      and entitlements.source_id = (difference.stored).source_id
      and entitlements.access_level = (difference.stored).access_level
      and entitlements.valid_from = (difference.stored).valid_from;
  end if;
  if v_has_different then
    update billing.entitlements
    set plan_id = (difference.computed).plan_id,
        store_key = (difference.computed).store_key,
        limit_value = (difference.computed).limit_value,
        valid_until = (difference.computed).valid_until,
        recorded_at = v_now
    from unnest(p_differences) as difference
    where (difference.stored).account_id is not null
      and entitlements.account_id = (difference.computed).account_id
      and entitlements.feature_key = (difference.computed).feature_key
      and entitlements.source_kind = (difference.computed).source_kind
      and entitlements.source_id = (difference.computed).source_id
      and entitlements.access_level = (difference.computed).access_level
      and entitlements.valid_from = (difference.computed).valid_from;
  end if;
  if v_has_missing then
    insert into billing.entitlements (
      account_id, feature_key, source_kind, source_id, access_level, plan_id, store_key,
      limit_value, valid_from, valid_until, recorded_at
    )
    select
      (computed).account_id, (computed).feature_key, (computed).source_kind,
      (computed).source_id, (computed).access_level, (computed).plan_id, (computed).store_key,
      (computed).limit_value, (computed).valid_from, (computed).valid_until, v_now
    from unnest(p_differences)
    where (stored).account_id is null;
  end if;
end;
$$;

comment on function billing_private.write_entitlements(billing_private.entitlement_difference[]) is
  'Writes what entitlements should say, and keeps what they said; part of refresh_entitlements().';


create function billing_private.begin_refresh(p_account_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.lock_catalog('account');
  -- In one order, so that two callers never wait for each other; by row, because a plan may have
  -- more subscribers than the server has room for locks.
  perform
  from billing.accounts
  where id = any (p_account_ids)
  order by id
  for no key update;
end;
$$;

comment on function billing_private.begin_refresh(uuid[]) is
  'Keeps others from refreshing these accounts, or changing the catalog, until the transaction '
  'ends: each would miss what the other has not committed.';


create function billing_private.computed_profiles(
  p_account_ids uuid[],
  p_by_sources boolean
)
returns setof billing.profiles
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  return query
  select
    accounts.id,
    (array_agg(plans.tier order by plans.tier_rank desc, plans.key)
      filter (where plans.tier is not null))[1],
    coalesce(max(plans.tier_rank), 0),
    coalesce(
      array_agg(distinct given.feature_key) filter (where given.feature_key is not null),
      '{}'),
    max(given.valid_until),
    v_now
  from billing.accounts
  left join (
    select account_id, feature_key, access_level, plan_id, valid_from, valid_until
    from billing.entitlements
    where account_id = any (p_account_ids)
      and not p_by_sources
    union all
    select account_id, feature_key, access_level, plan_id, valid_from, valid_until
    from billing_private.computed_entitlements(p_account_ids)
    where p_by_sources
  ) as given
    on given.account_id = accounts.id
    and given.access_level = 'full'
    and given.valid_from <= v_now
    and given.valid_until > v_now
  left join billing.plans on plans.id = given.plan_id
  where accounts.id = any (p_account_ids)
  group by accounts.id;
end;
$$;

comment on function billing_private.computed_profiles(uuid[], boolean) is
  'What billing.profiles has to say about these accounts now: by their stored entitlements, or by '
  'the sources of these.';


create function billing_private.refresh_profiles(p_account_ids uuid[])
returns uuid[]
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_profiles billing.profiles[];
begin
  select array_agg(computed) into v_profiles
  from billing_private.computed_profiles(p_account_ids, false) as computed
  left join (
    select * from billing.profiles where account_id = any (p_account_ids)
  ) as stored using (account_id)
  where stored.account_id is null
    or (stored.membership_tier, stored.tier_rank, stored.features, stored.access_until)
      is distinct from
      (computed.membership_tier, computed.tier_rank, computed.features, computed.access_until);

  -- A statement that changes nothing has its triggers run all the same.
  if v_profiles is null then
    return null;
  end if;

  insert into billing.profiles
  select * from unnest(v_profiles)
  on conflict (account_id) do update
  set membership_tier = excluded.membership_tier,
      tier_rank = excluded.tier_rank,
      features = excluded.features,
      access_until = excluded.access_until,
      updated_at = excluded.updated_at;

  return array(select account_id from unnest(v_profiles));
end;
$$;

comment on function billing_private.refresh_profiles(uuid[]) is
  'Brings the profiles of these accounts in step with their entitlements; part of '
  'refresh_entitlements(). Returns whose profiles were written; null for nobody''s.';


-- Its messages are rows, sent when the transaction has committed. What Realtime fails at is not for
-- billing to fail at.
create function billing_private.broadcast_access(p_account_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_most constant integer := 1000;
begin
  execute format($realtime$
    select %s(told.payload, 'access_changed', told.topic, true)
    from (
      select
        jsonb_build_object(
          'account_id', account_id,
          'membership_tier', membership_tier,
          'version', billing_private.access_version(account_id)) as payload,
        'billing:account:' || account_id as topic
      from billing.profiles
      where account_id = any ($1)
        and cardinality($1) <= $2
      union all
      select jsonb_build_object('accounts', cardinality($1)), 'billing:accounts'
      where cardinality($1) > $2
    ) as told
    order by told.topic
  $realtime$, 'realtime.send')
  using p_account_ids, v_most;
exception when others then
  raise warning 'billing could not broadcast a change of access: %', sqlerrm;
end;
$$;

comment on function billing_private.broadcast_access(uuid[]) is
$$Tells the subscribers of these accounts, where Realtime is installed, that access changed: event
access_changed on the private topic billing:account:<id>, or once on billing:accounts where more
than 1,000 accounts are concerned.$$;


create function billing_private.access_version(p_account_id uuid)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(
    (
      extract(epoch from greatest(
        (select updated_at from billing.profiles where account_id = p_account_id),
        (select max(recorded_at) from billing.entitlements where account_id = p_account_id),
        (
          select max(replaced_at)
          from billing_private.entitlement_history
          where account_id = p_account_id
        )
      )) * 1000
    )::bigint,
    0);
end;
$$;

comment on function billing_private.access_version(uuid) is
  'When an account''s access changed last, in milliseconds since 1970: what tells two states of it '
  'apart, wherever it is told.';


-- -----------------------------------------------------------------------------
-- 3  in step with the sources
-- -----------------------------------------------------------------------------

-- Statement-level, and only where a column changed that access depends on: an event that
-- changes nothing of it costs a look at its own rows.

create function billing_private.refresh_after_subscriptions()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  select array_agg(distinct affected.id) into v_account_ids
  from rows_after as after
  join rows_before as before using (id)
  cross join lateral unnest(array[before.account_id, after.account_id]) as affected (id)
  where affected.id is not null
    -- The latest invoice decides only while payment is overdue or paused; every renewal names
    -- another.
    and (before.account_id, before.status, before.started_at, before.past_due_since,
        before.cancel_at, before.cancel_at_period_end, before.ended_at,
        before.pause_collection ->> 'behavior',
        case
          when before.status in ('past_due', 'incomplete', 'unpaid')
            or before.pause_collection is not null
            then before.stripe_latest_invoice_id
        end)
      is distinct from
      (after.account_id, after.status, after.started_at, after.past_due_since,
        after.cancel_at, after.cancel_at_period_end, after.ended_at,
        after.pause_collection ->> 'behavior',
        case
          when after.status in ('past_due', 'incomplete', 'unpaid')
            or after.pause_collection is not null
            then after.stripe_latest_invoice_id
        end);

  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_subscriptions() is
  'Refreshes the accounts whose subscriptions changed in a way access depends on. A new one gives '
  'nothing before it has items.';


create function billing_private.refresh_after_items()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  select array_agg(distinct subscriptions.account_id) into v_account_ids
  from changed_rows
  join billing.subscriptions on subscriptions.id = changed_rows.subscription_id
  where subscriptions.account_id is not null;

  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_items() is
  'Refreshes the accounts whose subscription items came or went.';


create function billing_private.refresh_after_item_updates()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  select array_agg(distinct subscriptions.account_id) into v_account_ids
  from rows_after as after
  join rows_before as before using (id)
  join billing.subscriptions on subscriptions.id = after.subscription_id
  where subscriptions.account_id is not null
    and (before.price_id, before.plan_version, before.current_period_start,
        before.current_period_end)
      is distinct from
      (after.price_id, after.plan_version, after.current_period_start,
        after.current_period_end);

  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_item_updates() is
  'Refreshes the accounts whose subscription items changed price, version or period.';


create function billing_private.refresh_after_grants()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  select array_agg(distinct account_id) into v_account_ids from changed_rows;
  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_grants() is
  'Refreshes the accounts whose grants were made or revoked.';


create function billing_private.refresh_after_invoices()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  -- Paying restores access in the transaction that records the payment.
  select array_agg(distinct subscriptions.account_id) into v_account_ids
  from changed_rows
  join billing.subscriptions
    on subscriptions.stripe_subscription_id = changed_rows.stripe_subscription_id
    and subscriptions.stripe_latest_invoice_id = changed_rows.stripe_invoice_id
  where subscriptions.account_id is not null
    and (
      changed_rows.status = 'paid' and subscriptions.status in ('past_due', 'incomplete', 'unpaid')
      or changed_rows.status = 'void' and subscriptions.pause_collection is not null
    );

  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_invoices() is
  'Refreshes the accounts whose overdue invoice was paid, or voided because collection is paused.';


-- Long because each table of the catalog has its own columns that access depends on.
create function billing_private.refresh_after_catalog()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_price_ids uuid[];
  v_account_ids uuid[];
  v_features text[];
begin
  if tg_op <> 'UPDATE' then
    v_features := array(select feature_key from changed_rows);
    -- A version that is not on sale yet is nobody's.
    v_price_ids := array(
      select prices.id
      from billing.prices
      where plan_id in (
        select changed_rows.plan_id
        from changed_rows
        join billing.plans on plans.id = changed_rows.plan_id
        where changed_rows.version <= plans.version
      ));
  elsif tg_table_name = 'plan_features' then
    v_features := array(
      select feature_key from rows_before
      union
      select feature_key from rows_after);
    v_price_ids := array(
      select prices.id
      from billing.prices
      where plan_id in (
        select plan_id from (table rows_before except table rows_after) as gone
        union all
        select plan_id from (table rows_after except table rows_before) as come
      ));
  elsif tg_table_name = 'plans' then
    v_price_ids := array(
      select prices.id
      from rows_after as after
      join rows_before as before using (id)
      join billing.prices on prices.plan_id = after.id
      where (before.tier, before.tier_rank, before.renewal_grace, before.past_due_grace,
          before.access_policy_key, before.dunning_policy_key, before.store_id)
        is distinct from
        (after.tier, after.tier_rank, after.renewal_grace, after.past_due_grace,
          after.access_policy_key, after.dunning_policy_key, after.store_id));
  elsif tg_table_name = 'stores' then
    v_price_ids := array(
      select prices.id
      from rows_after as after
      join rows_before as before using (id)
      join billing.plans on plans.store_id = after.id
      join billing.prices on prices.plan_id = plans.id
      where before.key <> after.key);
  else
    v_price_ids := array(
      select after.id
      from rows_after as after
      join rows_before as before using (id)
      where before.plan_id is distinct from after.plan_id);
  end if;

  -- Most changes of the catalog change nobody's access; looking for subscribers reads them all.
  if v_price_ids = '{}' then
    return null;
  end if;

  select array_agg(distinct subscriptions.account_id) into v_account_ids
  from billing.subscription_items
  join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
  where subscription_items.price_id = any (v_price_ids)
    and subscriptions.account_id is not null
    and subscriptions.ended_at is null;

  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids, v_features);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_catalog() is
  'Refreshes the subscribers of plans whose features, graces, tier, store or prices changed.';


create function billing_private.refresh_after_policies()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  -- What a refund or a dispute led to is recorded with it; of the policy only pauses are read anew.
  select array_agg(distinct subscriptions.account_id) into v_account_ids
  from billing.plans
  join billing.prices on prices.plan_id = plans.id
  join billing.subscription_items on subscription_items.price_id = prices.id
  join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
  where case tg_table_name
      when 'access_policies' then
        plans.access_policy_key in (select to_jsonb(changed_rows) ->> 'key' from changed_rows)
        and (subscriptions.status = 'paused' or subscriptions.pause_collection is not null)
      else
        plans.dunning_policy_key in (
          select to_jsonb(changed_rows) ->> 'policy_key' from changed_rows
        )
        and subscriptions.status = 'past_due'
    end
    and subscriptions.account_id is not null
    and subscriptions.ended_at is null;

  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_policies() is
  'Refreshes the accounts a changed policy applies to now: the paused ones, or those past due.';


create function billing_private.refresh_after_restrictions()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  select array_agg(distinct subscriptions.account_id) into v_account_ids
  from changed_rows
  join billing.subscriptions on subscriptions.id = changed_rows.subscription_id
  where subscriptions.account_id is not null;

  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_restrictions() is
  'Refreshes the accounts whose refunds or disputes restrict a subscription, or no longer do.';


create function billing_private.refresh_after_contracts()
returns trigger
language plpgsql
volatile
security definer -- entitlements are writable by nobody
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  if tg_table_name = 'contracts' then
    select array_agg(distinct account_id) into v_account_ids
    from rows_after
    where status <> 'draft';
  else
    select array_agg(distinct contracts.account_id) into v_account_ids
    from rows_after
    join billing.contracts on contracts.id = (to_jsonb(rows_after) ->> 'contract_id')::uuid
    where contracts.status <> 'draft';
  end if;

  if v_account_ids is not null then
    perform billing_private.refresh_entitlements(v_account_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_after_contracts() is
  'Refreshes the accounts whose contracts came into force, changed or ended.';


create function billing_private.wait_for_subscribers()
returns trigger
language plpgsql
volatile
security definer -- whoever changes the catalog need not reach this schema
set search_path = ''
as $$
begin
  perform billing_private.lock_catalog('product');
  return null;
end;
$$;

comment on function billing_private.wait_for_subscribers() is
  'Lets a change of the catalog wait until those who are just being subscribed can be seen.';

create trigger t000_catalog
  before insert or update or delete on billing.plan_features
  for each statement execute function billing_private.wait_for_subscribers();

create trigger t000_catalog
  before update on billing.stores
  for each statement execute function billing_private.wait_for_subscribers();

create trigger t000_catalog
  before update on billing.plans
  for each statement execute function billing_private.wait_for_subscribers();

create trigger t000_catalog
  before update on billing.prices
  for each statement execute function billing_private.wait_for_subscribers();

create trigger t100_access_of_updates
  after update on billing.subscriptions
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.refresh_after_subscriptions();

create trigger t100_access_of_inserts
  after insert on billing.subscription_items
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_items();

create trigger t100_access_of_updates
  after update on billing.subscription_items
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.refresh_after_item_updates();

create trigger t100_access_of_deletes
  after delete on billing.subscription_items
  referencing old table as changed_rows
  for each statement execute function billing_private.refresh_after_items();

create trigger t100_access_of_inserts
  after insert on billing.entitlement_grants
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_grants();

create trigger t100_access_of_updates
  after update on billing.entitlement_grants
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_grants();

create trigger t100_access_of_inserts
  after insert on billing.invoices
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_invoices();

create trigger t100_access_of_updates
  after update on billing.invoices
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_invoices();

create trigger t100_access_of_inserts
  after insert on billing.plan_features
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_catalog();

create trigger t100_access_of_updates
  after update on billing.plan_features
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.refresh_after_catalog();

create trigger t100_access_of_deletes
  after delete on billing.plan_features
  referencing old table as changed_rows
  for each statement execute function billing_private.refresh_after_catalog();

create trigger t100_access_of_updates
  after update on billing.stores
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.refresh_after_catalog();

create trigger t100_access_of_updates
  after update on billing.plans
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.refresh_after_catalog();

create trigger t100_access_of_updates
  after update on billing.prices
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.refresh_after_catalog();

create trigger t000_catalog
  before update on billing.access_policies
  for each statement execute function billing_private.wait_for_subscribers();

create trigger t000_catalog
  before insert or update or delete on billing.dunning_stages
  for each statement execute function billing_private.wait_for_subscribers();

create trigger t100_access_of_updates
  after update on billing.access_policies
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_policies();

create trigger t100_access_of_inserts
  after insert on billing.dunning_stages
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_policies();

create trigger t100_access_of_updates
  after update on billing.dunning_stages
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_policies();

create trigger t100_access_of_deletes
  after delete on billing.dunning_stages
  referencing old table as changed_rows
  for each statement execute function billing_private.refresh_after_policies();

create trigger t100_access_of_inserts
  after insert on billing.contracts
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_after_contracts();

create trigger t100_access_of_updates
  after update on billing.contracts
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_after_contracts();

create trigger t100_access_of_inserts
  after insert on billing.contract_features
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_after_contracts();

create trigger t100_access_of_updates
  after update on billing.contract_features
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_after_contracts();

create trigger t100_access_of_deletes
  after delete on billing.contract_features
  referencing old table as rows_after
  for each statement execute function billing_private.refresh_after_contracts();

create trigger t100_access_of_inserts
  after insert on billing.access_restrictions
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_restrictions();

create trigger t100_access_of_updates
  after update on billing.access_restrictions
  referencing new table as changed_rows
  for each statement execute function billing_private.refresh_after_restrictions();


-- -----------------------------------------------------------------------------
-- 4  what is in force at this instant
-- -----------------------------------------------------------------------------

create view billing.current_sources with (security_invoker = true) as
select
  entitlements.account_id,
  entitlements.feature_key,
  entitlements.access_level,
  entitlements.source_kind,
  entitlements.source_id,
  entitlements.plan_id,
  entitlements.store_key,
  entitlements.limit_value,
  entitlements.valid_from,
  entitlements.valid_until
from billing.entitlements
cross join billing.clock
where entitlements.valid_from <= clock.at
  and entitlements.valid_until > clock.at;

comment on view billing.current_sources is
  'What each account has at this instant, source by source. billing.current_entitlements puts the '
  'sources of a feature together.';


create view billing.current_entitlements with (security_invoker = true) as
select
  current_sources.account_id,
  current_sources.feature_key,
  case
    when count(*) = count(current_sources.limit_value) then max(current_sources.limit_value)
  end as limit_value,
  min(current_sources.valid_from) as valid_from,
  max(current_sources.valid_until) as valid_until
from billing.current_sources
where current_sources.access_level = 'full'
group by current_sources.account_id, current_sources.feature_key;

comment on view billing.current_entitlements is
  'What each account has at this instant, in full. Several sources of one feature: the best limit, '
  'the latest end. What may still be read is in billing.current_access.';
comment on column billing.current_entitlements.limit_value is
  'The highest limit of all sources; null for unlimited, and for boolean features.';


create view billing.current_access with (security_invoker = true) as
select
  current_sources.account_id,
  current_sources.feature_key,
  -- Alphabetical order happens to be the order of rank.
  min(current_sources.access_level) as access_level
from billing.current_sources
group by current_sources.account_id, current_sources.feature_key;

comment on view billing.current_access is
  'How far each account may use a feature at this instant: full, or read_only. No row is none.';


-- -----------------------------------------------------------------------------
-- 5  billing.has_entitlement(), access_level() and entitlement_limit()
-- -----------------------------------------------------------------------------

-- About the own account there is no row of others to keep from the caller, so the look-up goes past
-- row level security: that halves what the question costs.
create function billing_private.has_own_entitlement(p_feature text)
returns boolean
language plpgsql
stable
parallel safe
security definer -- row level security would cost as much again, and finds the same
set search_path = ''
as $$
declare
  v_claims jsonb := nullif(current_setting('request.jwt.claims', true), '')::jsonb;
  v_account_id uuid;
begin
  -- What user_id() says of Supabase Auth's tokens, said again: every call takes its time.
  if v_claims ->> 'iss' like '%/auth/v1'
    and v_claims ->> 'sub' like '________-____-____-____-____________'
  then
    v_account_id := (v_claims ->> 'sub')::uuid;
  else
    v_account_id := billing_private.user_id();
  end if;

  perform
  from billing.entitlements
  cross join billing.clock
  where account_id = v_account_id
    and feature_key = p_feature
    and access_level = 'full'
    and valid_from <= clock.at
    and valid_until > clock.at;
  return found;
end;
$$;

comment on function billing_private.has_own_entitlement(text) is
  'Whether the caller''s own account has the feature in full, at this instant; false for visitors.';


-- An operator resolves its function when it is created. plpgsql resolves names when it runs, for
-- which callers would need usage on billing_private; and a function in SQL is planned anew at each
-- call.
create operator billing.?! (
  function = billing_private.has_own_entitlement,
  rightarg = text
);

comment on operator billing.?! (none, text) is
  'How has_entitlement() reaches billing_private. Call billing.has_entitlement().';


-- What another account has is for row level security to show, or not. One plan for all accounts:
-- Postgres would otherwise plan for the one that is named at each call, which takes several times
-- as long as the answer.
create function billing.has_entitlement(
  feature text,
  account_id uuid default null,
  store text default null
)
returns boolean
language plpgsql
stable
parallel safe
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  if has_entitlement.account_id is null and has_entitlement.store is null then
    return operator(billing.?!) has_entitlement.feature;
  end if;

  if has_entitlement.store is null then
    return exists (
      select
      from billing.current_sources
      where current_sources.account_id = has_entitlement.account_id
        and current_sources.feature_key = has_entitlement.feature
        and current_sources.access_level = 'full'
    );
  end if;

  return exists (
    select
    from billing.current_sources
    where current_sources.account_id = coalesce(
        has_entitlement.account_id, (select user_id from billing.caller))
      and current_sources.feature_key = has_entitlement.feature
      and current_sources.access_level = 'full'
      and current_sources.store_key = has_entitlement.store
  );
end;
$$;

comment on function billing.has_entitlement(text, uuid, text) is
$$True while the account has the feature in full, at this instant. In a policy write (select
billing.has_entitlement('feature')).

account_id: null for the caller's own account; a team's where the caller is a member. store: the
key of a store, to count only what that store's plans give; null for whatever gives it. False for
an unknown feature or store, for another's account and for visitors: whoever asks about a stranger
learns nothing.$$;


create function billing.access_level(
  feature text,
  account_id uuid default null
)
returns text
language plpgsql
stable
parallel safe
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return coalesce(
    (
      select current_access.access_level
      from billing.current_access
      where current_access.account_id = coalesce(
          access_level.account_id, (select user_id from billing.caller))
        and current_access.feature_key = access_level.feature
    ),
    'none');
end;
$$;

comment on function billing.access_level(text, uuid) is
$$How far the account may use a feature at this instant: full, read_only or none.

read_only is what a plan's policies leave while it is overdue, paused or disputed: let people see
and export what is theirs, in a policy for select. has_entitlement() is true for full access alone.
account_id: null for the caller's own account. none for an unknown feature, for another's account
and for visitors.$$;


create function billing.entitlement_limit(
  feature text,
  account_id uuid default null,
  store text default null
)
returns bigint
language plpgsql
stable
parallel safe
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  -- Without sources there is nothing to have; one without a limit has none.
  return (
    select case
      when count(*) = count(current_sources.limit_value)
        then coalesce(max(current_sources.limit_value), 0)
    end
    from billing.current_sources
    where current_sources.account_id = coalesce(
      entitlement_limit.account_id, (select user_id from billing.caller))
      and current_sources.feature_key = entitlement_limit.feature
      and current_sources.access_level = 'full'
      and (
        entitlement_limit.store is null or current_sources.store_key = entitlement_limit.store
      )
  );
end;
$$;

comment on function billing.entitlement_limit(text, uuid, text) is
$$How much of a feature the account has at this instant: the best limit of all its sources. 0
without access, null for no limit.

In a policy, where the number in use is counted beside it: coalesce(used < (select
billing.entitlement_limit('clubs')), true). account_id and store: as for has_entitlement().$$;


-- -----------------------------------------------------------------------------
-- 6  billing.my_entitlements() and membership_tier()
-- -----------------------------------------------------------------------------

create function billing.my_entitlements(account_id uuid default null)
returns setof billing.current_entitlements
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return query
  select current_entitlements.*
  from billing.current_entitlements
  where current_entitlements.account_id = coalesce(
    my_entitlements.account_id, (select user_id from billing.caller))
  order by current_entitlements.feature_key;
end;
$$;

comment on function billing.my_entitlements(uuid) is
$$All the account has at this instant: one row per feature, with its best limit and its end (UTC,
exclusive).

account_id: null for the caller's own account. No rows for another's.$$;


create function billing_private.readable_account(p_account_id uuid)
returns uuid
language plpgsql
stable
set search_path = ''
as $$
declare
  v_own uuid := billing_private.user_id();
begin
  if p_account_id is null or p_account_id = v_own then
    return v_own;
  elsif p_account_id = any (array(select billing_private.my_account_ids()))
    or billing_private.is_trusted()
  then
    return p_account_id;
  end if;
  return null;
end;
$$;

comment on function billing_private.readable_account(uuid) is
  'The account asked about, or the caller''s own; null where the caller may not know of it.';


create function billing_private.tier_plan(
  p_account_id uuid,
  p_store_key text
)
returns billing.plans
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_plan billing.plans;
begin
  select plans.* into v_plan
  from billing.entitlements
  join billing.plans on plans.id = entitlements.plan_id
  where entitlements.account_id = p_account_id
    and entitlements.access_level = 'full'
    and entitlements.valid_from <= v_now
    and entitlements.valid_until > v_now
    and plans.tier is not null
    and (p_store_key is null or entitlements.store_key = p_store_key)
  order by plans.tier_rank desc, plans.key
  limit 1;
  return v_plan;
end;
$$;

comment on function billing_private.tier_plan(uuid, text) is
  'The highest-ranking plan with a tier that gives the account access at this instant.';


create function billing_private.membership_tier(
  p_account_id uuid,
  p_store_key text
)
returns text
language plpgsql
stable
security definer -- plans that are not listed have members too
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.readable_account(p_account_id);
begin
  return (billing_private.tier_plan(v_account_id, p_store_key)).tier;
end;
$$;


create function billing.membership_tier(
  account_id uuid default null,
  store text default null
)
returns text
language sql
stable
set search_path = ''
begin atomic
  select billing_private.membership_tier(membership_tier.account_id, membership_tier.store);
end;

comment on function billing.membership_tier(uuid, text) is
$$Tier of the highest-ranking plan that gives the account access at this instant; null without one.

account_id: null for the caller's own account. store: the key of a store, to count only its plans.
Null for another's account and for visitors.$$;


-- -----------------------------------------------------------------------------
-- 7  billing.my_access()
-- -----------------------------------------------------------------------------

create type billing.access_summary as (
  account_id uuid,
  membership_tier text,
  tier_rank integer,
  access_until timestamptz,
  features jsonb,
  version bigint
);

comment on type billing.access_summary is
  'All an account may do at this instant, for a client that shows it.';
comment on column billing.access_summary.membership_tier is
  'Tier of the highest-ranking plan that gives access; null without one.';
comment on column billing.access_summary.access_until is
  'When the last full access ends, exclusive; infinity for no end; null without any.';
comment on column billing.access_summary.features is
  'By key: access (full or read_only), limit (0 for nothing, null for no limit) and until (null '
  'for no end); of limit and metered features also used, and resets_at (null for never, and before '
  'the first use).';
comment on column billing.access_summary.version is
  'Grows whenever access changes; the same number is in broadcasts and in claims.';


-- Its body is long because it is one answer.
create function billing_private.my_access(p_account_id uuid)
returns setof billing.access_summary
language plpgsql
stable
security definer -- plans that are not listed have members too
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.readable_account(p_account_id);
  v_now timestamptz := billing_private.now();
  v_plan billing.plans;
begin
  if v_account_id is null then
    return;
  end if;
  v_plan := billing_private.tier_plan(v_account_id, null);

  return query
  with running as materialized (
    select entitlements.*, access_level = 'full' as is_full
    from billing.entitlements
    where account_id = v_account_id
      and valid_from <= v_now
      and valid_until > v_now
  ),
  given as (
    select
      feature_key,
      jsonb_build_object(
        'access', min(access_level),
        'limit', case
          when count(*) filter (where is_full) = count(limit_value) filter (where is_full)
            then coalesce(max(limit_value) filter (where is_full), 0)
        end,
        'until', nullif(
          coalesce(max(valid_until) filter (where is_full), max(valid_until)), 'infinity')
      ) as facts
    from running
    group by feature_key
  )
  select
    v_account_id, v_plan.tier, coalesce(v_plan.tier_rank, 0),
    (select max(valid_until) from running where is_full),
    (
      select coalesce(
        jsonb_object_agg(
          given.feature_key,
          given.facts || case
            when features.kind = 'boolean' then '{}'
            else jsonb_build_object(
              'used', coalesce(used.units, 0), 'resets_at', nullif(used.period_end, 'infinity'))
          end),
        '{}')
      from given
      join billing.features on features.key = given.feature_key
      left join lateral (
        -- Before the first use a period has no row. One of a plan that ended may have.
        select
          terms.period_end,
          (
            select usage_totals.used
            from billing.usage_totals
            where account_id = v_account_id
              and feature_key = given.feature_key
              and (period_start = terms.period_start or not terms.is_included)
              and period_start <= v_now
              and period_end > v_now
            order by period_start desc
            limit 1
          ) as units
        from billing_private.usage_terms(v_account_id, given.feature_key, v_now) as terms
        where features.kind <> 'boolean'
      ) as used on true
    ),
    billing_private.access_version(v_account_id);
end;
$$;


create function billing.my_access(account_id uuid default null)
returns setof billing.access_summary
language sql
stable
set search_path = ''
begin atomic
  select * from billing_private.my_access(my_access.account_id);
end;

comment on function billing.my_access(uuid) is
$$Tier, features, limits and what is used of them in one call, which a client can make by GET.

account_id: null for the caller's own account, who has a row also without ever having come near
billing. No row for another's account and for visitors.$$;


-- -----------------------------------------------------------------------------
-- 8  claims for access tokens
-- -----------------------------------------------------------------------------

-- A project has one hook for its tokens, and it is not ours to take: the project's own calls this.
-- Tokens travel with every request and live in cookies of 4,096 bytes, so the claims are small.
create function billing_private.claims_of(p_account_id uuid)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_most_bytes constant integer := 600;
  v_now timestamptz := billing_private.now();
  v_claims jsonb;
begin
  with given as (
    select feature_key, max(valid_until) as valid_until
    from billing.entitlements
    where account_id = p_account_id
      and access_level = 'full'
      and valid_from <= v_now
      and valid_until > v_now
    group by feature_key
  ),
  counted as (
    select
      *,
      sum(octet_length(feature_key) + 3) over (order by feature_key) <= v_most_bytes as fits
    from given
  )
  select jsonb_strip_nulls(jsonb_build_object(
    'tier', (billing_private.tier_plan(p_account_id, null)).tier,
    'features', coalesce(jsonb_agg(feature_key order by feature_key) filter (where fits), '[]'),
    'more', case when not bool_and(fits) then true end,
    'exp', extract(epoch from nullif(min(valid_until), 'infinity'))::bigint,
    'v', billing_private.access_version(p_account_id)))
  into v_claims
  from counted;
  return v_claims;
end;
$$;

comment on function billing_private.claims_of(uuid) is
  'What add_claims() adds: at most 600 bytes of feature keys, whatever a plan gives.';


create function billing_private.add_claims(
  p_claims jsonb,
  p_user_id uuid
)
returns jsonb
language plpgsql
volatile
security definer -- called by Supabase Auth, who sees no entitlements
set search_path = ''
set lock_timeout = '200ms'
as $$
begin
  if jsonb_typeof(p_claims) = 'object' and p_user_id is not null then
    return p_claims || jsonb_build_object('billing', billing_private.claims_of(p_user_id));
  end if;
  return p_claims;
exception when others then
  -- Nobody is kept from signing in by billing.
  raise warning 'billing could not add claims: %', sqlerrm;
  return p_claims;
end;
$$;

comment on function billing_private.add_claims(jsonb, uuid) is
  'Adds claims_of() to the claims of a token; whatever fails leaves them as they were.';


create function billing.add_claims(
  claims jsonb,
  user_id uuid
)
returns jsonb
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.add_claims(add_claims.claims, add_claims.user_id);
end;

comment on function billing.add_claims(jsonb, uuid) is
$$Adds what the user's own account has to the claims of an access token, for the project's custom
access token hook to call.

Under the key billing: tier, features (keys in order, as many as 600 bytes hold; more is true where
there are others), exp (when the first of them ends; seconds since 1970, none for no end) and v (the
version in broadcasts and my_access(): a higher one there means that the token is out of date). Show
things by claims; decide by has_entitlement(). Never fails: without billing, claims are as they
were.$$;


-- -----------------------------------------------------------------------------
-- 9  billing.explain_entitlement() and has_entitlement_at()
-- -----------------------------------------------------------------------------

create type billing.entitlement_explanation as (
  gives_access boolean,
  reason text,
  source_kind text,
  source_id uuid,
  access_level text,
  plan_key text,
  subscription_status text,
  limit_value bigint,
  valid_from timestamptz,
  valid_until timestamptz,
  decides_limit boolean,
  decides_end boolean
);

comment on type billing.entitlement_explanation is
  'One source of a feature: whether it gave access at the instant asked about, how far, and why or '
  'why not. reason: active, trialing, ending, paid (past due, but the latest invoice is paid), '
  'past_due_grace, contract, recorded, or a grant''s kind (gift, support, promotion, '
  'trial_extension); else '
  'ended, revoked, incomplete, unpaid, paused, full_refund, partial_refund, dispute_opened, '
  'dispute_lost, dispute_won, unknown_status, period_unknown, expired, not_begun.';
comment on column billing.entitlement_explanation.decides_limit is
  'Of several sources the one with the best limit: what entitlement_limit() says.';
comment on column billing.entitlement_explanation.decides_end is
  'Of several sources the one that ends last.';


create function billing_private.explain_entitlement(
  p_feature text,
  p_account_id uuid,
  p_at timestamptz
)
returns setof billing.entitlement_explanation
language plpgsql
stable
security definer -- history is readable by nobody
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_account_id uuid := coalesce(p_account_id, billing_private.user_id());
begin
  if v_account_id is null then
    perform billing_private.fail('UNAUTHENTICATED');
  elsif not billing_private.is_admin()
    and not (v_account_id = any (array(select billing_private.my_account_ids())))
  then
    perform billing_private.fail('NOT_A_MEMBER', jsonb_build_object('account_id', v_account_id));
  elsif not exists (select from billing.features where key = p_feature) then
    perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object('feature', p_feature));
  end if;

  return query
  select
    gives_access, reason, source_kind, source_id, access_level, plan_key, subscription_status,
    limit_value, valid_from, valid_until,
    -- Several sources: the best limit, the latest end. Of equals one is named, always the same.
    counts and 1 = row_number() over (
      partition by counts
      order by limit_value desc nulls first, valid_until desc, source_kind, source_id),
    counts and 1 = row_number() over (
      partition by counts
      order by valid_until desc, source_kind, source_id)
  from (
    select *, gives_access and access_level = 'full' as counts
    from billing_private.recorded_entitlement(p_feature, v_account_id, p_at)
    where p_at < v_now
    union all
    select *, gives_access and access_level = 'full'
    from billing_private.foreseen_entitlement(p_feature, v_account_id, coalesce(p_at, v_now))
    where not coalesce(p_at < v_now, false)
  ) as explained
  order by
    gives_access desc, access_level, valid_until desc nulls last, source_kind, source_id;
end;
$$;


create function billing_private.foreseen_entitlement(
  p_feature text,
  p_account_id uuid,
  p_at timestamptz
)
returns setof billing.entitlement_explanation
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    judged.gives_access,
    case
      when judged.gives_access or sources.valid_until is null then sources.reason
      when sources.valid_from > p_at then 'not_begun'
      when sources.reason ~ '^(full_refund|partial_refund|dispute_)' then sources.reason
      else 'expired'
    end,
    sources.source_kind, sources.source_id, sources.access_level, plans.key,
    sources.subscription_status, sources.limit_value, sources.valid_from, sources.valid_until,
    null::boolean, null::boolean
  from billing_private.entitlement_sources(array[p_account_id]) as sources
  cross join lateral (
    select coalesce(sources.valid_from <= p_at and p_at < sources.valid_until, false)
      as gives_access
  ) as judged
  left join billing.plans on plans.id = sources.plan_id
  where sources.feature_key = p_feature;
end;
$$;

comment on function billing_private.foreseen_entitlement(text, uuid, timestamptz) is
  'What the sources of a feature, as they are, give an account now or at an instant to come.';


create function billing_private.recorded_entitlement(
  p_feature text,
  p_account_id uuid,
  p_at timestamptz
)
returns setof billing.entitlement_explanation
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    true, 'recorded', recorded.source_kind, recorded.source_id, recorded.access_level, plans.key,
    null::text, recorded.limit_value, recorded.valid_from, recorded.valid_until,
    null::boolean, null::boolean
  from (
    select
      source_kind, source_id, access_level, plan_id, limit_value, valid_from, valid_until,
      recorded_at, 'infinity'::timestamptz as replaced_at
    from billing.entitlements
    where account_id = p_account_id
      and feature_key = p_feature
    union all
    select
      source_kind, source_id, access_level, plan_id, limit_value, valid_from, valid_until,
      recorded_at, replaced_at
    from billing_private.entitlement_history
    where account_id = p_account_id
      and feature_key = p_feature
  ) as recorded
  left join billing.plans on plans.id = recorded.plan_id
  where recorded.recorded_at <= p_at
    and p_at < recorded.replaced_at
    and recorded.valid_from <= p_at
    and p_at < recorded.valid_until;
end;
$$;

comment on function billing_private.recorded_entitlement(text, uuid, timestamptz) is
  'The stored rows that gave an account a feature at a past instant, as they were then.';


create function billing.explain_entitlement(
  feature text,
  account_id uuid default null,
  at timestamptz default null
)
returns setof billing.entitlement_explanation
language sql
stable
set search_path = ''
begin atomic
  select *
  from billing_private.explain_entitlement(
    explain_entitlement.feature, explain_entitlement.account_id, explain_entitlement.at);
end;

comment on function billing.explain_entitlement(text, uuid, timestamptz) is
$$Why an account has, had or will have a feature: one row per source, those that give access first.
decides_limit and decides_end name the one whose limit, and the one whose end, the account has.

account_id: null for the caller's own account; admins may ask about any. at: null for now; a
future instant is
answered from the sources, a past one from what was recorded then. No row: no source ever named
the feature.

Errors
  UNAUTHENTICATED    401  nobody is signed in
  NOT_A_MEMBER       403  the account is not one of the caller's
  FEATURE_NOT_FOUND  404  there is no such feature$$;


create function billing.has_entitlement_at(
  feature text,
  at timestamptz,
  account_id uuid default null
)
returns boolean
language sql
stable
set search_path = ''
begin atomic
  select exists (
    select
    from billing_private.explain_entitlement(
      has_entitlement_at.feature, has_entitlement_at.account_id, has_entitlement_at.at)
      as explanation
    where explanation.gives_access
      and explanation.access_level = 'full'
  );
end;

comment on function billing.has_entitlement_at(text, timestamptz, uuid) is
$$Whether the account had or, as things stand, will have the feature in full at an instant (UTC).

account_id: null for the caller's own account; admins may ask about any.

Errors
  UNAUTHENTICATED    401  nobody is signed in
  NOT_A_MEMBER       403  the account is not one of the caller's
  FEATURE_NOT_FOUND  404  there is no such feature$$;


-- -----------------------------------------------------------------------------
-- 10  validate and correct
-- -----------------------------------------------------------------------------

create type billing_private.entitlement_drift as (
  account_id uuid,
  feature_key text,
  source_kind text,
  source_id uuid,
  problem text,
  stored jsonb,
  computed jsonb
);

create function billing_private.validate_entitlements(p_account_ids uuid[])
returns setof billing_private.entitlement_drift
language plpgsql
stable
set search_path = ''
as $$
begin
  -- A stored row whose end has passed gives nothing: it waits for the clock's task, it is no drift.
  return query
  with stored as (
    select
      account_id, feature_key, source_kind, source_id, access_level, valid_from,
      jsonb_build_object(
        'plan_id', plan_id, 'store_key', store_key, 'limit_value', limit_value,
        'valid_from', valid_from, 'valid_until', valid_until) as facts
    from billing.entitlements
    where account_id = any (p_account_ids)
      and valid_until > billing_private.now()
  ),
  computed as (
    select
      account_id, feature_key, source_kind, source_id, access_level, valid_from,
      jsonb_build_object(
        'plan_id', plan_id, 'store_key', store_key, 'limit_value', limit_value,
        'valid_from', valid_from, 'valid_until', valid_until) as facts
    from billing_private.computed_entitlements(p_account_ids)
  )
  select
    account_id, feature_key, source_kind, source_id,
    case
      when stored.facts is null then 'missing'
      when computed.facts is null then 'surplus'
      else 'different'
    end,
    stored.facts,
    computed.facts
  from stored
  full join computed
    using (account_id, feature_key, source_kind, source_id, access_level, valid_from)
  where stored.facts is distinct from computed.facts
  union all
  select * from billing_private.validate_profiles(p_account_ids);
end;
$$;

comment on function billing_private.validate_entitlements(uuid[]) is
  'Where stored entitlements and profiles of these accounts disagree with their sources: missing, '
  'surplus or different. No rows is the normal state.';


create function billing_private.validate_profiles(p_account_ids uuid[])
returns setof billing_private.entitlement_drift
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    account_id, null::text, 'profile', account_id,
    case when stored.account_id is null then 'missing' else 'different' end,
    to_jsonb(stored) - '{account_id,updated_at}'::text[],
    to_jsonb(computed) - '{account_id,updated_at}'::text[]
  from billing_private.computed_profiles(p_account_ids, true) as computed
  left join (
    select * from billing.profiles where account_id = any (p_account_ids)
  ) as stored using (account_id)
  where (
      stored.membership_tier, coalesce(stored.tier_rank, 0), coalesce(stored.features, '{}'),
      stored.access_until
    )
    is distinct from (
      computed.membership_tier, computed.tier_rank, computed.features, computed.access_until
    )
    -- What ended or began by the clock alone waits for the clock's task; it is no drift.
    and not exists (
      select
      from billing.entitlements
      where entitlements.account_id = computed.account_id
        and (
          entitlements.valid_until <= computed.updated_at
          or entitlements.valid_from <= computed.updated_at
            and billing_private.begins_unnoticed(entitlements, stored)
        )
    );
end;
$$;

comment on function billing_private.validate_profiles(uuid[]) is
  'Where stored profiles of these accounts disagree with what the sources give. An account that '
  'has nothing needs none.';


create function billing_private.begins_unnoticed(
  p_entitlement billing.entitlements,
  p_profile billing.profiles
)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  return p_entitlement.access_level = 'full'
    and p_entitlement.valid_from > p_profile.updated_at
    and (
      not p_entitlement.feature_key = any (p_profile.features)
      or p_entitlement.valid_until > p_profile.access_until
    );
end;
$$;

comment on function billing_private.begins_unnoticed(billing.entitlements, billing.profiles) is
  'Whether an entitlement has begun since the profile was written, and adds to it.';


create function billing_private.correct_entitlements(p_account_ids uuid[])
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_drifted uuid[];
  v_count bigint;
begin
  with corrected as (
    insert into billing_private.entitlement_corrections (
      account_id, feature_key, problem, before, after, cause
    )
    select account_id, feature_key, problem, stored, computed, billing_private.cause()
    from billing_private.validate_entitlements(p_account_ids)
    returning account_id
  )
  select array_agg(distinct account_id), count(*) into v_drifted, v_count from corrected;

  if v_count > 0 then
    perform billing_private.refresh_entitlements(v_drifted);
  end if;
  return v_count;
end;
$$;

comment on function billing_private.correct_entitlements(uuid[]) is
  'Repairs stored entitlements and profiles of these accounts that disagree with their sources, '
  'and logs each. Returns how many.';


create function billing_private.refresh_elapsed(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_account_ids uuid[];
begin
  select array_agg(account_id) into v_account_ids
  from (
    select account_id
    from billing.entitlements
    where valid_until <= v_now
    union
    -- What was recorded before it began is little, and has an index of its own: one look at each.
    select entitlements.account_id
    from billing.entitlements
    cross join lateral (
      select
      from billing.profiles
      where profiles.account_id = entitlements.account_id
        and billing_private.begins_unnoticed(entitlements, profiles)
      limit 1
    ) as outdated
    where entitlements.valid_from <= v_now
      and entitlements.valid_from > entitlements.recorded_at
    limit p_limit
  ) as elapsed;

  if v_account_ids is null then
    return 0;
  end if;
  perform billing_private.refresh_entitlements(v_account_ids);
  return cardinality(v_account_ids);
end;
$$;

comment on function billing_private.refresh_elapsed(integer) is
  'Brings stored state in step where an interval has ended or begun by the clock alone. Returns '
  'how many accounts.';


-- -----------------------------------------------------------------------------
-- 11  whether the money adds up
-- -----------------------------------------------------------------------------

-- Its body is long because it is a list: one select for each rule.
create function billing_private.money_violations_of(p_account_ids uuid[])
returns setof billing_private.money_violations
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  with bills as materialized (
    select
      invoices.*,
      coalesce(stripe_invoice_id, id::text) as object_id
    from billing.invoices
    where account_id = any (p_account_ids)
      and deleted_at is null
      and status in ('open', 'paid', 'uncollectible')
  ),
  broken (rule, object_id, account_id, expected, found) as (
    select
      'lines_make_subtotal', bills.object_id, bills.account_id, bills.subtotal_minor,
      sum(invoice_lines.amount_minor)
    from bills
    join billing.invoice_lines on invoice_lines.invoice_id = bills.id
    group by bills.object_id, bills.account_id, bills.subtotal_minor
    having sum(invoice_lines.amount_minor) <> bills.subtotal_minor
    union all
    select
      'due_is_paid_and_remaining', bills.object_id, bills.account_id, amount_due_minor,
      amount_paid_minor + amount_remaining_minor
    from bills
    where status <> 'paid'
      and amount_due_minor <> amount_paid_minor + amount_remaining_minor
    union all
    -- More may be paid than is due, outside Stripe or twice over: that becomes credit.
    select 'paid_leaves_nothing', bills.object_id, bills.account_id, 0, amount_remaining_minor
    from bills
    where status = 'paid'
      and amount_remaining_minor <> 0
    union all
    select 'paid_has_a_date', bills.object_id, bills.account_id, null, null
    from bills
    where status = 'paid'
      and paid_at is null
    union all
    select
      'refunds_within_payment', coalesce(payments.stripe_payment_key, payments.id::text),
      payments.account_id, payments.amount_received_minor, refunded.amount_minor
    from billing.payments
    cross join lateral (
      select greatest(
        payments.amount_refunded_minor, coalesce(sum(refunds.amount_minor), 0)) as amount_minor
      from billing.refunds
      where refunds.stripe_payment_key = payments.stripe_payment_key
        and refunds.status in ('succeeded', 'pending')
    ) as refunded
    where payments.account_id = any (p_account_ids)
      and payments.status is not null
      and refunded.amount_minor > payments.amount_received_minor
    union all
    select
      'charged_once', bills.object_id, bills.account_id,
      greatest(bills.amount_due_minor, bills.amount_paid_minor),
      sum(payments.amount_received_minor)
    from bills
    join billing.payments
      on payments.account_id = bills.account_id
      and (payments.stripe_invoice_id = bills.stripe_invoice_id or payments.invoice_id = bills.id)
      and payments.status = 'succeeded'
    group by
      bills.object_id, bills.account_id, bills.amount_due_minor, bills.amount_paid_minor
    having sum(payments.amount_received_minor)
      > greatest(bills.amount_due_minor, bills.amount_paid_minor)
    union all
    -- The bound Kill Bill keeps to
    -- (https://docs.killbill.io/latest/invoice_subsystem, safety bounds): a period is billed once.
    -- Tiers are several lines of one invoice; a threshold bills usage within the period.
    select
      'period_billed_once', format('%s %s', billed.item, invoice_lines.period_start),
      bills.account_id, 1, count(distinct bills.id)
    from bills
    join billing.invoice_lines on invoice_lines.invoice_id = bills.id
    cross join lateral coalesce(
      invoice_lines.stripe_subscription_item_id, bills.subscription_id::text) as billed (item)
    where bills.status = 'paid'
      and bills.amount_paid_minor > 0
      and bills.billing_reason is distinct from 'subscription_threshold'
      and billed.item is not null
      and not invoice_lines.is_proration
      and invoice_lines.amount_minor > 0
      and invoice_lines.period_start < invoice_lines.period_end
    group by
      bills.account_id, billed.item, invoice_lines.period_start, invoice_lines.period_end
    having count(distinct bills.id) > 1
  )
  select
    broken.rule, broken.object_id, broken.account_id, broken.expected, broken.found::bigint,
    billing_private.now()
  from broken;
end;
$$;

comment on function billing_private.money_violations_of(uuid[]) is
  'Where amounts stored of these accounts do not add up. No rows is the normal state.';


create function billing_private.check_money(p_account_ids uuid[])
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_count bigint;
begin
  with found as materialized (
    select * from billing_private.money_violations_of(p_account_ids)
  ),
  settled as (
    delete from billing_private.money_violations
    where account_id = any (p_account_ids)
      and not exists (
        select
        from found
        where (found.rule, found.object_id)
          = (money_violations.rule, money_violations.object_id)
      )
  ),
  noted as (
    insert into billing_private.money_violations as stored
    select * from found
    on conflict (rule, object_id) do update
    set expected = excluded.expected,
        found = excluded.found
  )
  select count(*) into v_count from found;
  return v_count;
end;
$$;

comment on function billing_private.check_money(uuid[]) is
  'Notes where amounts of these accounts do not add up, and forgets what does again. Returns how '
  'many do not.';


-- -----------------------------------------------------------------------------
-- 12  rebuild from the inbox
-- -----------------------------------------------------------------------------

-- The shadow into which an object is rebuilt is a subtransaction that is rolled back: it has every
-- trigger and rule of the real thing, and leaves nothing, not even a lock.

create type billing.rebuilt_object as (
  object_type text,
  object_id text,
  class text,
  differences jsonb,
  problem text,
  is_repaired boolean
);

comment on type billing.rebuilt_object is
  'An object of Stripe that is stored otherwise than the inbox tells: class and differences as in '
  'billing_admin.drifts, or the problem that kept it from being rebuilt.';


create function billing_private.newest_of_all(p_object_id text)
returns billing_private.stripe_objects
language plpgsql
stable
set search_path = ''
as $$
declare
  v_newest billing_private.stripe_objects;
begin
  select
    p_object_id, stripe_events.object_type, stripe_events.event_id, stripe_events.occurred_at,
    read.is_final
  into
    v_newest.object_id, v_newest.object_type, v_newest.event_id, v_newest.occurred_at,
    v_newest.is_final
  from billing_private.stripe_events
  cross join lateral (
    select billing_private.parse_json(stripe_events.payload) #> '{data,object}' as object
  ) as parsed
  cross join lateral (
    select billing_private.is_final_snapshot(stripe_events.type, parsed.object) as is_final
  ) as read
  where stripe_events.object_id = p_object_id
    and coalesce(stripe_events.status_reason, 'superseded') = 'superseded'
    and parsed.object is not null
  order by read.is_final desc, stripe_events.occurred_at desc
  limit 1;

  v_newest.is_ambiguous := false;
  if v_newest.event_id is not null then
    select newest.event_id, newest.is_ambiguous into v_newest.event_id, v_newest.is_ambiguous
    from billing_private.newest_of_second(p_object_id, v_newest.occurred_at) as newest;
  end if;
  return v_newest;
end;
$$;

comment on function billing_private.newest_of_all(text) is
  'The snapshot that counts among all the inbox holds of an object, found without what is noted in '
  'billing_private.stripe_objects.';


create function billing_private.project_again(p_newest billing_private.stripe_objects)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_event billing_private.stripe_events;
begin
  select * into strict v_event
  from billing_private.stripe_events
  where event_id = p_newest.event_id;

  update billing_private.stripe_objects
  set event_id = p_newest.event_id,
      occurred_at = p_newest.occurred_at,
      states = null,
      is_final = p_newest.is_final,
      is_ambiguous = p_newest.is_ambiguous
  where object_id = p_newest.object_id;

  execute format(
    'select billing_private.%I($1, $2)',
    (select projector from billing_private.event_handlers where event_type = v_event.type)
  )
  using billing_private.parse_json(v_event.payload) #> '{data,object}', v_event;

  -- What older snapshots add to it.
  perform billing_private.date_back(stripe_events)
  from billing_private.stripe_events
  where stripe_events.object_id = p_newest.object_id
    and stripe_events.event_id <> p_newest.event_id
    and coalesce(stripe_events.status_reason, 'superseded') = 'superseded';
end;
$$;

comment on function billing_private.project_again(billing_private.stripe_objects) is
  'Writes the rows of an object anew from the snapshot that counts.';


create function billing_private.rebuild_object(
  p_object_id text,
  p_repairs boolean
)
returns billing.rebuilt_object
language plpgsql
volatile
set search_path = ''
set lock_timeout = '200ms'
as $$
declare
  v_newest billing_private.stripe_objects := billing_private.newest_of_all(p_object_id);
  v_event billing_private.stripe_events;
  v_object jsonb;
  v_before billing_private.mirrored_row[];
  v_result billing.rebuilt_object;
  v_is_undone boolean := false;
begin
  if v_newest.event_id is null then
    return null;
  end if;
  select * into v_event from billing_private.stripe_events where event_id = v_newest.event_id;
  v_object := billing_private.parse_json(v_event.payload) #> '{data,object}';
  v_result.object_type := v_newest.object_type;
  v_result.object_id := p_object_id;
  v_result.is_repaired := false;

  begin
    -- In here: taken back with the rest, so whoever rebuilds many holds up nobody.
    if not billing_private.try_lock_catalog(v_event.object_type)
      or not pg_try_advisory_xact_lock(hashtextextended(
        'billing.customer:' || coalesce(v_event.stripe_customer_id, p_object_id), 0))
    then
      v_result.problem := 'somebody is at work on it';
      return v_result;
    end if;
    v_before := array(select rows from billing_private.mirrored_rows(v_object) as rows);
    perform billing_private.project_again(v_newest);
    v_result.differences := billing_private.row_differences(
      v_before, array(select rows from billing_private.mirrored_rows(v_object) as rows));
    v_result.class := billing_private.class_of_differences(v_result.differences);
    v_result.is_repaired := v_result.class is not null and coalesce(
      p_repairs,
      (select repairs from billing_private.drift_policies where class = v_result.class));
    if not v_result.is_repaired then
      v_is_undone := true;
      perform billing_private.fail('INTERNAL_ERROR');
    end if;
  exception when others then
    if not v_is_undone then
      v_result.problem := sqlerrm;
      v_result.is_repaired := false;
    end if;
  end;
  return v_result;
end;
$$;

comment on function billing_private.rebuild_object(text, boolean) is
$$How an object's rows differ from what the inbox tells: class null when they do not.

p_repairs: true leaves the rebuilt rows, false never, null as the policy of the class says.$$;


create function billing_private.class_of_differences(p_differences jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case
    when p_differences = '[]' then null
    when not jsonb_path_exists(p_differences, '$[*] ? (@.before != null)') then 'missing'
    when not jsonb_path_exists(p_differences, '$[*] ? (@.after != null)') then 'surplus'
    else 'different'
  end;
end;
$$;

comment on function billing_private.class_of_differences(jsonb) is
  'The class of drift that stored rows which disagree with their snapshot are of; null for none.';


create function billing_private.rebuild(
  p_object_ids text[],
  p_repairs boolean
)
returns setof billing.rebuilt_object
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_object_id text;
  v_rebuilt billing.rebuilt_object;
  v_drift billing_private.drifts;
begin
  foreach v_object_id in array coalesce(
    p_object_ids, array(select object_id from billing_private.stripe_objects order by object_id))
  loop
    v_rebuilt := billing_private.rebuild_object(v_object_id, p_repairs);
    continue when v_rebuilt.class is null and v_rebuilt.problem is null;
    return next v_rebuilt;

    if v_rebuilt.is_repaired or p_repairs is null and v_rebuilt.problem is null then
      v_drift.object_type := v_rebuilt.object_type;
      v_drift.object_id := v_rebuilt.object_id;
      v_drift.class := v_rebuilt.class;
      v_drift.differences := v_rebuilt.differences;
      v_drift.found_by := 'rebuild';
      v_drift.repaired_at := case when v_rebuilt.is_repaired then billing_private.now() end;
      perform billing_private.note_drift(v_drift);
    end if;
  end loop;
end;
$$;

comment on function billing_private.rebuild(text[], boolean) is
$$Rebuilds objects of Stripe from the inbox and returns those that are stored otherwise.

p_object_ids: null for all. p_repairs: as in rebuild_object(); where it is not false, what was found
is recorded as drift.$$;


-- -----------------------------------------------------------------------------
-- 13  who may call what
-- -----------------------------------------------------------------------------

revoke all on function
  billing_private.access_of_item,
  billing_private.sources_beside_contracts,
  billing_private.contract_sources,
  billing_private.are_contracted,
  billing_private.entitlement_sources,
  billing_private.computed_entitlements,
  billing_private.refresh_entitlements,
  billing_private.begin_refresh,
  billing_private.write_entitlements,
  billing_private.computed_profiles,
  billing_private.finish_refresh,
  billing_private.refresh_profiles,
  billing_private.broadcast_access,
  billing_private.access_version,
  billing_private.refresh_after_subscriptions,
  billing_private.refresh_after_items,
  billing_private.refresh_after_item_updates,
  billing_private.refresh_after_grants,
  billing_private.refresh_after_invoices,
  billing_private.refresh_after_catalog,
  billing_private.refresh_after_policies,
  billing_private.refresh_after_restrictions,
  billing_private.refresh_after_contracts,
  billing_private.wait_for_subscribers,
  billing_private.has_own_entitlement,
  billing.has_entitlement,
  billing.access_level,
  billing.entitlement_limit,
  billing.my_entitlements,
  billing_private.readable_account,
  billing_private.membership_tier,
  billing.membership_tier,
  billing_private.tier_plan,
  billing_private.my_access,
  billing.my_access,
  billing_private.claims_of,
  billing_private.add_claims,
  billing.add_claims,
  billing_private.explain_entitlement,
  billing_private.foreseen_entitlement,
  billing_private.recorded_entitlement,
  billing.explain_entitlement,
  billing.has_entitlement_at,
  billing_private.validate_entitlements,
  billing_private.validate_profiles,
  billing_private.begins_unnoticed,
  billing_private.correct_entitlements,
  billing_private.refresh_elapsed,
  billing_private.money_violations_of,
  billing_private.check_money,
  billing_private.newest_of_all,
  billing_private.project_again,
  billing_private.rebuild_object,
  billing_private.class_of_differences,
  billing_private.rebuild
from public, anon, authenticated, service_role;

revoke all on billing.current_sources from public, anon, authenticated, service_role;
grant select on billing.current_sources to anon, authenticated, service_role;
revoke all on billing.current_entitlements from public, anon, authenticated, service_role;
grant select on billing.current_entitlements to anon, authenticated, service_role;
revoke all on billing.current_access from public, anon, authenticated, service_role;
grant select on billing.current_access to anon, authenticated, service_role;

-- Visitors may ask, and are told no: a policy that asks must not fail for them.
grant select on billing.entitlements to anon;
grant execute on function
  billing_private.has_own_entitlement,
  billing.has_entitlement,
  billing.access_level,
  billing.entitlement_limit,
  billing.my_entitlements,
  billing_private.membership_tier,
  billing.membership_tier,
  billing_private.my_access,
  billing.my_access
to anon, authenticated, service_role;

grant execute on function
  billing.explain_entitlement,
  billing.has_entitlement_at,
  billing_private.explain_entitlement
to authenticated, service_role;

-- Supabase Auth calls the project's hook as this role, which a Postgres of another kind lacks.
do $$
begin
  if to_regrole('supabase_auth_admin') is not null then
    grant usage on schema billing to supabase_auth_admin;
    grant execute on function billing.add_claims(jsonb, uuid) to supabase_auth_admin;
    grant execute on function billing_private.add_claims(jsonb, uuid) to supabase_auth_admin;
  end if;
end;
$$;
