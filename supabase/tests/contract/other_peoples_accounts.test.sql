-- Whoever asks an RPC about somebody else's account learns and changes nothing.
-- The RPCs come from the catalogs: a new one that takes an account is asked too, and one with an
-- argument nobody thought of fails here by name.
begin;
\ir two_accounts.psql
select plan(16);

-- Acceptable values, so that nothing but the caller is wrong.
create table tests.arguments as
select *
from (values
  ('account_id', md5('ann')),
  ('month', '2026-01-01'),
  ('from', '2026-01-01'),
  ('accounts', array[md5('ann')::uuid]::text),
  ('from_plan', 'basic'),
  ('migration_id', md5('a migration')),
  ('proration', 'none'),
  ('to_plan', 'plus'),
  ('to_version', '1'),
  ('billing_interval', 'month'),
  ('changes', '{}'),
  ('description', 'A description'),
  ('effective_from', '2027-01-01'),
  ('interval_count', '1'),
  ('is_active', 'true'),
  ('is_listed', 'true'),
  ('name', 'A name'),
  ('package_rounding', 'up'),
  ('package_size', '5'),
  ('past_due_grace', '1 day'),
  ('price', jsonb_populate_record(null::billing.prices, '{"key": "extra_monthly"}')::text),
  ('renewal_grace', '1 hour'),
  ('share_basis_points', '7000'),
  ('stripe_meter_id', 'mtr_1'),
  ('tier', 'gold'),
  ('tier_rank', '1'),
  ('tiers', '[]'),
  ('tiers_mode', 'volume'),
  ('trial_days', '7'),
  ('unit_amount_decimal', '0.5'),
  ('usage_type', 'licensed'),
  ('action', 'void_invoice'),
  ('after', null),
  ('after_account', null),
  ('agreed', (select contracts::text from billing.contracts limit 1)),
  ('alert_id', (select id::text from billing_private.alerts limit 1)),
  ('amount_off_minor', '100'),
  ('assigned_to', md5('eve')),
  ('amount_minor', '1'),
  ('at', '2026-01-10'),
  ('at_most', '10'),
  ('at_period_end', 'true'),
  ('cancel_url', 'https://app.example/no'),
  ('class', 'stale'),
  ('code', 'SPRING'),
  ('code_id', (select id::text from billing_private.discount_codes limit 1)),
  ('commitment_minor', '1000'),
  ('contract', (select contracts::text from billing.contracts limit 1)),
  ('contract_id', (select id::text from billing.contracts limit 1)),
  ('command_id', (select id::text from billing_private.commands limit 1)),
  ('coupon_key', 'spring'),
  ('currency', 'usd'),
  ('dry_run', 'true'),
  ('duration_in_months', '0'),
  ('ends_at', '2027-01-01'),
  ('email', 'guest@example.com'),
  ('error_like', '%'),
  ('event_id', 'evt_in_nobody'),
  ('features', '{"clubs": 4}'),
  ('expires_at', '2027-01-01'),
  ('expires_in', '7 days'),
  ('feature', 'premium'),
  ('feature_key', 'premium'),
  ('functions_url', 'https://project.example/functions/v1'),
  ('grant_id', (select id::text from billing.entitlement_grants limit 1)),
  ('idempotency_key', 'k-1'),
  ('incident_id', (select id::text from billing_private.incidents limit 1)),
  ('invitation_id', md5('guest of ann')),
  ('invoice_id', (select id::text from billing.invoices limit 1)),
  ('kind', 'note'),
  ('issuer', 'https://clerk.example'),
  ('limit_value', '1'),
  ('livemode', 'false'),
  ('manual_kind', 'invoiced'),
  ('max_per_account', '1'),
  ('max_redemptions', '1'),
  ('method', 'cash'),
  ('minimum_amount_minor', '1'),
  ('minimum_minor', '1'),
  ('note', 'because'),
  ('notice_days', '30'),
  ('paid_at', '2026-01-10'),
  ('payment_id', (select id::text from billing.payments limit 1)),
  ('payment_terms_days', '30'),
  ('percent_off', '10'),
  ('periods', '3'),
  ('plan_key', 'basic'),
  ('plan_keys', '{basic}'),
  ('price_key', 'basic_monthly'),
  ('priority', '100'),
  ('price_keys', '{basic_monthly}'),
  ('prices', '{"basic_monthly": 400}'),
  ('properties', '{}'),
  ('proration_date', '2026-01-10'),
  ('behavior', 'void'),
  ('policy', 'flag'),
  ('discount_code', 'SPRING'),
  ('first_time_only', 'false'),
  ('flow', 'payment_method_update'),
  ('reservation_id',
    (select id::text from billing.usage_reservations where account_id = md5('ann')::uuid)),
  ('resumes_at', '2027-01-01'),
  ('quantity', '1'),
  ('reason', 'because'),
  ('reference', '1'),
  ('refund_reason', 'duplicate'),
  ('relation', 'auth.users'),
  ('repair', 'false'),
  ('repairs', 'true'),
  ('required', 'false'),
  ('resolution', 'because'),
  ('role', 'member'),
  ('return_url', 'https://app.example/'),
  ('since', '2026-01-01'),
  ('starts_at', '2026-01-10'),
  ('status', 'dead'),
  ('store', null),
  ('store_key', null),
  ('store_keys', '{night-owl}'),
  ('subject', 'user_1'),
  ('subscription_id', (select id::text from billing.subscriptions limit 1)),
  ('success_url', 'https://app.example/yes'),
  ('token', 'for ann'),
  ('table_name', 'auth.users'),
  ('task', 'check_health'),
  ('stripe_customer_id', 'cus_nobody'),
  ('task_key', 'check_health'),
  ('term_months', '12'),
  ('terms', (
    select discount_codes::text from billing_private.discount_codes limit 1)),
  ('type', 'invoice.created'),
  ('until', '2027-01-01'),
  ('unit_amount_minor', '100'),
  ('user_id', md5('carl')),
  ('valid_from', '2026-02-01'),
  ('valid_until', '2027-01-01'),
  ('vault_secret_name', 'billing_secret_key'),
  ('waives_commitment', 'false')
) as arguments (name, value);

-- Every function of a schema that signed-in users may call, with those values; p_account stands for
-- the account that is named.
create function tests.calls(p_schema text, p_account uuid default md5('ann')::uuid)
returns table (name text, takes_account boolean, missing text[], statement text)
language sql as $$
  select
    pg_proc.oid::regprocedure::text,
    coalesce(bool_or(given.name = 'account_id'), false),
    array_agg(given.name) filter (where given.name is not null and arguments.name is null),
    format(
      'select * from %I.%I(%s)', nspname, proname,
      string_agg(
        format('%I => %L', given.written,
          case given.name when 'account_id' then p_account::text else arguments.value end),
        ', ') filter (where given.name is not null))
  from pg_proc
  join pg_namespace on pg_namespace.oid = pronamespace
  left join lateral (
    select argument as written, regexp_replace(argument, '^p_', '') as name
    from unnest(proargnames) with ordinality as listed (argument, place)
    where place <= pronargs
  ) as given on true
  left join tests.arguments on arguments.name = given.name
  where nspname = p_schema
    and has_function_privilege('authenticated', pg_proc.oid, 'execute')
    and proname not in ('now', 'user_id', 'my_account_ids', 'has_own_entitlement')
    -- About no account that is there: whoever is signed in may make one, and be let into one.
    and proname not in ('create_organization', 'accept_invitation')
  group by pg_proc.oid, nspname, proname;
$$;

-- What the call came to: its rows as JSON, or the whole error.
create function tests.answer_of(p_statement text) returns text
language plpgsql as $$
declare
  v_answer text;
  v_detail text;
begin
  execute format('select coalesce(jsonb_agg(answer), ''[]'') from (%s) as answer', p_statement)
  into v_answer;
  return v_answer;
exception when others then
  get stacked diagnostics v_detail = pg_exception_detail;
  return sqlstate || ' ' || sqlerrm || ' ' || v_detail;
end;
$$;

create function tests.answers(
  p_actor text,
  p_schema text,
  p_account uuid default md5('ann')::uuid
)
returns table (name text, takes_account boolean, answer text)
language plpgsql as $$
declare
  v_call record;
  v_calls jsonb := (select jsonb_agg(calls) from tests.calls(p_schema, p_account) as calls);
begin
  perform tests.act_as(p_actor);
  for v_call in
    select * from jsonb_to_recordset(v_calls) as (name text, takes_account boolean, statement text)
  loop
    name := v_call.name;
    takes_account := v_call.takes_account;
    answer := tests.answer_of(v_call.statement);
    return next;
  end loop;
  perform tests.be_owner();
end;
$$;

create function tests.says_nothing(p_answer text) returns boolean
language sql as $$
  select p_answer = '[]'
    or p_answer ~ '^\[\{"\w+": (false|"none"|0|null)\}\]$'
    or p_answer ~ '^PT403 you are not a member of this account '
    or p_answer ~ '^PT403 this needs a billing administrator ';
$$;

-- ---- the questions ----------------------------------------------------------

select is_empty(
  $$
    select name, missing
    from unnest(array['billing', 'billing_admin', 'billing_private']) as schema
    cross join lateral tests.calls(schema)
    where missing is not null
  $$,
  'there is a good value for every argument of every RPC'
);

-- ---- a member of another account, a stranger --------------------------------

select is_empty(
  $$
    select name, answer
    from tests.answers('bob', 'billing')
    where takes_account and not tests.says_nothing(answer)
  $$,
  'bob, who has an account, learns nothing of ann''s'
);

select is_empty(
  $$
    select name, answer
    from tests.answers('carl', 'billing')
    where takes_account and not tests.says_nothing(answer)
  $$,
  'carl, who has none, learns nothing of ann''s'
);

select is_empty(
  $$
    select *
    from tests.answers('carl', 'billing') as hers
    join tests.answers('carl', 'billing', md5('no such account')::uuid) as nobodys using (name)
    where hers.takes_account
      and replace(hers.answer, md5('ann')::uuid::text, 'it')
        is distinct from replace(nobodys.answer, md5('no such account')::uuid::text, 'it')
  $$,
  'the answer is the same for an account that does not exist: nobody learns which do'
);

select is_empty(
  $$
    select name, answer
    from tests.answers('bob', 'billing_admin')
    where answer not like 'PT403 this needs a billing administrator %'
  $$,
  'every RPC of billing_admin refuses whoever is no administrator'
);

-- ---- whoever is nobody here -------------------------------------------------

select is_empty(
  $$
    select name, answer
    from tests.answers('foreigner', 'billing')
    where not tests.says_nothing(answer)
      and answer not like 'PT401 sign in first %'
      -- What things cost, anybody may know.
      and name !~ '^billing\.(list_plans|price_amount)\('
  $$,
  'a token whose subject is no user of ours is told to sign in, or nothing, and breaks nothing'
);

-- ---- a visitor --------------------------------------------------------------

select is_empty(
  $$
    select name, answer
    from tests.answers('visitor', 'billing')
    where name not in (
        'billing.list_plans(text,text)',
        'billing.price_amount(text,numeric)',
        'billing.access_level(text,uuid)',
        'billing.entitlement_limit(text,uuid,text)',
        'billing.has_entitlement(text,uuid,text)',
        'billing.membership_tier(uuid,text)',
        'billing.my_access(uuid)',
        'billing.my_entitlements(uuid)')
      and answer not like '42501 permission denied for function %'
  $$,
  'a visitor is refused all but the offers and what policies ask'
);

select is_empty(
  $$
    select name, answer
    from tests.answers('visitor', 'billing')
    where name in (
        'billing.access_level(text,uuid)',
        'billing.entitlement_limit(text,uuid,text)',
        'billing.has_entitlement(text,uuid,text)',
        'billing.membership_tier(uuid,text)',
        'billing.my_access(uuid)',
        'billing.my_entitlements(uuid)')
      and not tests.says_nothing(answer)
  $$,
  'a visitor who asks about ann is told no'
);

select is_empty(
  $$
    select name, answer
    from tests.answers('visitor', 'billing_admin')
    where answer not like '42501 permission denied for schema billing_admin %'
  $$,
  'a visitor is refused every RPC of billing_admin'
);

-- ---- whoever gets past the schema -------------------------------------------

grant usage on schema billing_private to anon, authenticated, service_role;

select is_empty(
  $$
    select name, answer
    from tests.answers('bob', 'billing_private')
    where not tests.says_nothing(answer)
      -- Offers are for anyone.
      and name <> 'billing_private.price_amount(text,numeric)'
  $$,
  'the functions behind the RPCs ask the same questions of whoever calls them directly'
);

select is_empty(
  $$
    select name, answer
    from tests.answers('visitor', 'billing_private')
    where answer not like '42501 permission denied for function %'
      and (
        name not in ('billing_private.membership_tier(uuid,text)', 'billing_private.my_access(uuid)')
        or not tests.says_nothing(answer)
      )
      and name <> 'billing_private.price_amount(text,numeric)'
  $$,
  'a visitor is refused all of them, or told no'
);

select throws_ok(
  $$
    set local role authenticated;
    select billing_private.refresh_entitlements('{}')
  $$,
  '42501', 'permission denied for function refresh_entitlements',
  'the machine''s own functions stay closed to users'
);

select throws_ok(
  $$
    set local role service_role;
    select billing_private.apply_event('evt_in_ann')
  $$,
  '42501', 'permission denied for function apply_event',
  'and to the Edge Functions'
);

-- ---- what is left of it -----------------------------------------------------

select is_empty(
  $$
    (table tests.all_rows
     except all
     select relation, contents, tests.owner_of(relation, contents)
     from tests.seen_by('owner', '{billing,billing_private}'))
  $$,
  'after all these questions not one row is gone or different'
);

select is_empty(
  $$
    select relation, contents
    from tests.seen_by('owner', '{billing,billing_private}')
    except all
    select relation, contents from tests.all_rows
  $$,
  'and none is new'
);

-- ---- the member herself -----------------------------------------------------

-- Last, because she changes what she asks about.
select is_empty(
  $$
    select name, answer
    from tests.answers('ann', 'billing')
    where answer !~ '^(\[\{|PT403 only the server|PT409 the account already has|PT422 )'
      or answer ~ '^\[\{"\w+": false\}\]$'
  $$,
  'they were good questions: ann is answered, or told what her subscription does not allow'
);

select * from finish();
rollback;
