-- Whose rows anybody sees and nobody writes: every table and view of billing, by actor.
-- The relations come from the catalogs: a new one fails here by name until the example fills it.
begin;
\ir two_accounts.psql
select plan(26);

-- ---- the example ------------------------------------------------------------

select is_empty(
  $$
    select name
    from tests.relations('{billing,billing_private}')
    where name not in (select relation from tests.all_rows)
      -- One of several partitions, which are all alike.
      and name !~ '\.usage_records_\d'
  $$,
  'the example has a row in every table and view'
);

select is_empty(
  $$
    select name, person
    from tests.relations('{billing}')
    cross join unnest(array['ann', 'bob']) as person
    where not tests.is_catalog(name)
      and not exists (
        select from tests.all_rows where relation = name and account_id = md5(person)::uuid
      )
  $$,
  'ann and bob each own a row of every table and view that is no catalog'
);

-- ---- members ----------------------------------------------------------------

select is_empty(
  $$ select * from tests.wrongly_seen('ann', md5('ann')::uuid) $$,
  'ann sees all that is hers, and nothing of anybody else'
);

select is_empty(
  $$ select * from tests.wrongly_seen('bob', md5('bob')::uuid) $$,
  'bob sees all that is his, and nothing of anybody else'
);

-- ---- a stranger -------------------------------------------------------------

select is_empty(
  $$ select * from tests.wrongly_seen('carl', md5('carl')::uuid) $$,
  'whoever is signed in and has no account sees nothing of any'
);

select is_empty(
  $$ select * from tests.wrongly_seen('foreigner', null) $$,
  'whoever is nobody here sees nothing of any account, and no error'
);

-- ---- a plain member of ann's ------------------------------------------------

select set_eq(
  $$
    select distinct relation
    from tests.seen_by('ann''s friend')
    where not tests.is_catalog(relation)
      and tests.owner_of(relation, contents) = md5('ann')::uuid
  $$,
  $$
    select name
    from tests.relations('{billing}')
    where not tests.is_catalog(name)
      and name not in (
        'billing.checkout_sessions', 'billing.contract_features', 'billing.contract_prices',
        'billing.contract_settlements', 'billing.contracts', 'billing.coupons',
        'billing.credit_notes', 'billing.customers', 'billing.discount_redemptions',
        'billing.discounts', 'billing.disputes', 'billing.dunning_cases',
        'billing.dunning_events', 'billing.external_identities', 'billing.invitations',
        'billing.invoice_lines', 'billing.invoices', 'billing.payment_history',
        'billing.payment_methods', 'billing.payments', 'billing.refunds', 'billing.setup_intents',
        'billing.subscription_changes', 'billing.subscription_schedules', 'billing.tax_ids')
  $$,
  'a member sees what the account has and uses, but not what it pays, nor who is invited'
);

select is_empty(
  $$
    select relation, contents
    from tests.seen_by('ann''s friend')
    where not tests.is_catalog(relation)
      and tests.owner_of(relation, contents) is distinct from md5('ann')::uuid
  $$,
  'and nothing of anybody else'
);

-- ---- a visitor --------------------------------------------------------------

select is_empty(
  $$ select * from tests.wrongly_seen('visitor', null) $$,
  'a visitor sees nothing of any account'
);

select is_empty(
  $$
    select name, tests.outcome_as('visitor', format('select * from %s', name))
    from tests.relations('{billing}')
    where not tests.is_catalog(name)
      and name not in (
        'billing.entitlements', 'billing.current_sources', 'billing.current_entitlements',
        'billing.current_access')
      and tests.outcome_as('visitor', format('select * from %s', name)) <> '42501'
  $$,
  'a visitor is refused all but the catalog and what has_entitlement() reads, which is empty'
);

-- ---- the service ------------------------------------------------------------

select bag_eq(
  $$ select relation, contents from tests.seen_by('service') $$,
  $$ select relation, contents from tests.all_rows where relation like 'billing.%' $$,
  'the Edge Functions see every row of billing'
);

-- ---- the machine's own ------------------------------------------------------

select is_empty(
  $$
    select actor, name
    from unnest(array['ann', 'eve', 'carl', 'visitor', 'service']) as actor
    cross join tests.relations('{billing_private}')
    where tests.outcome_as(actor, format('select from %s', name)) <> '42501'
  $$,
  'nobody may look into the machine''s tables, administrators and the Edge Functions included'
);

-- ---- the catalog ------------------------------------------------------------

select set_eq(
  $$ select contents ->> 'key' from tests.seen_by('visitor') where relation = 'billing.stores' $$,
  array['night-owl'],
  'a visitor sees the stores that are open'
);

select set_eq(
  $$ select contents ->> 'key' from tests.seen_by('visitor') where relation = 'billing.plans' $$,
  array['basic', 'plus', 'archived', 'closed_plan'],
  'a visitor sees the plans that are listed'
);

select set_eq(
  $$ select contents ->> 'key' from tests.seen_by('visitor') where relation = 'billing.prices' $$,
  array[
    'basic_monthly', 'plus_monthly', 'plus_yearly', 'plus_old', 'archived_monthly', 'closed_monthly'
  ],
  'a visitor sees the listed prices of listed plans'
);

select set_eq(
  $$
    select contents ->> 'plan_id' as plan_id, contents ->> 'feature_key' as feature_key
    from tests.seen_by('visitor')
    where relation = 'billing.plan_features'
  $$,
  $$
    values
      (md5('basic')::uuid::text, 'clubs'),
      (md5('plus')::uuid::text, 'clubs'),
      (md5('plus')::uuid::text, 'premium'),
      (md5('archived')::uuid::text, 'premium')
  $$,
  'a visitor sees the features of listed plans'
);

select set_eq(
  $$
    select contents ->> 'price_key'
    from tests.seen_by('visitor')
    where relation = 'billing.plan_offers'
  $$,
  array['basic_monthly', 'plus_monthly', 'plus_yearly'],
  'on offer is what is listed and active, of a store that is open'
);

select bag_eq(
  $$
    select relation, contents
    from tests.seen_by('visitor')
    where relation in (
      'billing.error_codes', 'billing.features', 'billing.subscription_transitions')
  $$,
  $$
    select relation, contents
    from tests.all_rows
    where relation in (
      'billing.error_codes', 'billing.features', 'billing.subscription_transitions')
  $$,
  'a visitor sees all error codes, features and legal transitions'
);

select bag_eq(
  $$
    select relation, contents
    from tests.seen_by('ann')
    where tests.is_catalog(relation) and relation <> 'billing.caller'
  $$,
  $$
    select relation, contents
    from tests.seen_by('visitor')
    where tests.is_catalog(relation) and relation <> 'billing.caller'
  $$,
  'whoever is signed in sees the same catalog as a visitor'
);

-- ---- writing ----------------------------------------------------------------

select is_empty(
  $$
    select *
    from tests.writing_as('ann', '{billing,billing_admin,billing_private}')
    where outcome <> '42501'
  $$,
  'a member may not insert, update or delete a row of any table, not even her own'
);

select is_empty(
  $$
    select *
    from tests.writing_as('eve', '{billing,billing_admin,billing_private}')
    where outcome <> '42501'
  $$,
  'nor may an administrator, whose corrections are RPCs'
);

select is_empty(
  $$
    select *
    from tests.writing_as('visitor', '{billing,billing_admin,billing_private}')
    where outcome <> '42501'
  $$,
  'nor may a visitor'
);

select is_empty(
  $$
    select *
    from tests.writing_as('service', '{billing,billing_admin,billing_private}')
    where outcome <> '42501'
  $$,
  'nor may the Edge Functions'
);

-- ---- the administrators' views ----------------------------------------------

select is_empty(
  $$
    select name, person
    from tests.relations('{billing_admin}')
    cross join unnest(array['ann', 'carl']) as person
    where tests.outcome_as(person, format('select * from %s', name)) <> 'PT403'
  $$,
  'whoever is no administrator is refused every view of billing_admin, not shown an empty one'
);

select is_empty(
  $$
    select name
    from tests.relations('{billing_admin}')
    where tests.outcome_as('visitor', format('select * from %s', name)) <> '42501'
  $$,
  'a visitor is refused every view of billing_admin'
);

select is_empty(
  $$
    select name, actor, tests.outcome_as(actor, format('select * from %s', name))
    from tests.relations('{billing_admin}')
    cross join unnest(array['eve', 'service', 'owner']) as actor
    where tests.outcome_as(actor, format('select * from %s', name)) not like '% rows'
  $$,
  'administrators, the Edge Functions and the owner may read every view of billing_admin'
);

select * from finish();
rollback;
