-- The audit of every business table: each insert, update and delete, under its key, with what
-- changed.
begin;
\ir ../helpers.psql
select plan(15);

select tests.set_time('2026-01-10');
insert into billing.features (key, name) values ('sleep', 'Sleep');
insert into billing.plans (id, key, name) values (md5('bed')::uuid, 'bed', 'Bed');
insert into billing.stores (id, key, name) values (md5('shop')::uuid, 'shop', 'Shop');
insert into billing.accounts (id) values (md5('ann')::uuid);
insert into billing.prices (id, key, plan_id, currency, billing_interval)
values (md5('bed_monthly')::uuid, 'bed_monthly', md5('bed')::uuid, 'usd', 'month');
insert into billing.subscriptions (id, account_id, provider, manual_kind, status, price_id)
values (md5('sub')::uuid, md5('ann')::uuid, 'manual', 'complimentary', 'active', md5('bed_monthly')::uuid);
insert into billing.invoices
  (id, account_id, currency, subtotal_minor, total_minor, amount_due_minor, amount_paid_minor,
    amount_remaining_minor, stripe_invoice_id)
values (md5('invoice')::uuid, md5('ann')::uuid, 'usd', 1, 1, 1, 0, 1, 'in_0');
insert into billing.invoices
  (id, account_id, currency, subtotal_minor, total_minor, amount_due_minor, amount_paid_minor,
    amount_remaining_minor, stripe_invoice_id)
values (md5('overdue')::uuid, md5('ann')::uuid, 'usd', 1, 1, 1, 0, 1, 'in_overdue');
insert into billing.dunning_cases (
  id, account_id, invoice_id, policy_key, status, opened_at, runs_from
)
values (
  md5('overdue')::uuid, md5('ann')::uuid, md5('overdue')::uuid, 'standard', 'open', '2026-01-10',
  '2026-01-10'
);

-- For each table: a row to add, its key and account, a column to change, from what to what.
create temporary table rows (
  table_name text,
  columns text,
  content text,
  row_key text,
  account_name text,
  changed text,
  old_value text,
  new_value text,
  can_change boolean default true
);
insert into rows values
  ('billing.accounts', 'id, name', $$md5('bob')::uuid, 'Bob'$$,
    md5('bob')::uuid, 'bob', 'name', 'Bob', 'Robert'),
  ('billing.profiles', 'account_id, tier_rank', $$md5('bob')::uuid, 1$$,
    md5('bob')::uuid, 'bob', 'tier_rank', '1', '2'),
  ('billing.stores', 'id, key, name', $$md5('store')::uuid, 'store', 'Store'$$,
    md5('store')::uuid, null, 'name', 'Store', 'Shop'),
  ('billing.features', 'key, name', $$'dreams', 'Dreams'$$,
    'dreams', null, 'name', 'Dreams', 'Nightmares'),
  ('billing.access_policies', 'key, description, paused', $$'kind', 'kind', 'full'$$,
    'kind', null, 'paused', 'full', 'read_only'),
  ('billing.dunning_policies', 'key, description, max_retries', $$'kind', 'kind', 1$$,
    'kind', null, 'max_retries', '1', '2'),
  ('billing.dunning_stages', 'id, policy_key, begins_after, action',
    $$md5('stage')::uuid, 'standard', '9 days', 'notify'$$,
    md5('stage')::uuid, null, 'action', 'notify', 'suspend'),
  ('billing.plans', 'id, key, name', $$md5('sofa')::uuid, 'sofa', 'Sofa'$$,
    md5('sofa')::uuid, null, 'name', 'Sofa', 'Couch'),
  ('billing.plan_features', 'plan_id, feature_key, limit_value', $$md5('bed')::uuid, 'sleep', 8$$,
    md5('bed')::uuid || ':1:sleep', null, 'limit_value', '8', '9'),
  ('billing_private.store_admins', 'store_id, user_id, reason',
    $$md5('shop')::uuid, md5('sam')::uuid, 'his'$$,
    md5('sam')::uuid || ':' || md5('shop')::uuid, null, 'reason', 'his', 'hers'),
  ('billing_private.store_revenue_shares',
    'id, store_id, effective_from, share_basis_points, reason',
    $$md5('share')::uuid, md5('shop')::uuid, '2026-01-01', 7000, 'agreed'$$,
    md5('share')::uuid, null, 'share_basis_points', '7000', '6000'),
  ('billing.plan_versions', 'plan_id, version, reason', $$md5('bed')::uuid, 2, 'more'$$,
    md5('bed')::uuid || ':2', null, 'reason', 'more', 'less'),
  ('billing.prices', 'id, plan_id, currency, trial_days', $$md5('price')::uuid, null, 'eur', 7$$,
    md5('price')::uuid, null, 'trial_days', '7', '14'),
  ('billing.customers', 'id, account_id, email', $$md5('cus')::uuid, md5('ann')::uuid, 'a@b.c'$$,
    md5('cus')::uuid, 'ann', 'email', 'a@b.c', 'd@e.f'),
  ('billing.subscriptions', 'id, account_id, status, stripe_subscription_id',
    $$md5('sub_1')::uuid, md5('ann')::uuid, 'active', 'sub_1'$$,
    md5('sub_1')::uuid, 'ann', 'status', 'active', 'paused'),
  ('billing.subscription_items', 'id, subscription_id, quantity',
    $$md5('si')::uuid, md5('sub')::uuid, 1$$,
    md5('si')::uuid, 'ann', 'quantity', '1', '2'),
  ('billing.coupons', 'id, stripe_coupon_id, name', $$md5('coupon')::uuid, 'NAP', 'A nap'$$,
    md5('coupon')::uuid, null, 'name', 'A nap', 'Two naps'),
  ('billing.discounts', 'id, account_id, stripe_discount_id, stripe_coupon_id',
    $$md5('di')::uuid, md5('ann')::uuid, 'di_1', 'NAP'$$,
    md5('di')::uuid, 'ann', 'stripe_coupon_id', 'NAP', 'SIESTA'),
  ('billing.invoices', 'id, account_id, number, currency, subtotal_minor, total_minor, '
    'amount_due_minor, amount_paid_minor, amount_remaining_minor, stripe_invoice_id',
    $$md5('in_1')::uuid, md5('ann')::uuid, '1', 'usd', 1, 1, 1, 0, 1, 'in_1'$$,
    md5('in_1')::uuid, 'ann', 'number', '1', '2'),
  ('billing.invoice_lines', 'id, invoice_id, description, amount_minor, currency',
    $$md5('il')::uuid, md5('invoice')::uuid, 'a bed', 1, 'usd'$$,
    md5('il')::uuid, 'ann', 'description', 'a bed', 'a sofa'),
  ('billing.payments', 'id, account_id, stripe_payment_key, status, amount_minor, currency',
    $$md5('pi')::uuid, md5('ann')::uuid, 'pi_1', 'processing', 1, 'usd'$$,
    md5('pi')::uuid, 'ann', 'status', 'processing', 'succeeded'),
  ('billing.refunds', 'id, account_id, stripe_refund_id, status, amount_minor, currency',
    $$md5('re')::uuid, md5('ann')::uuid, 're_1', 'pending', 1, 'usd'$$,
    md5('re')::uuid, 'ann', 'status', 'pending', 'failed'),
  ('billing.disputes', 'id, account_id, stripe_dispute_id, status, amount_minor, currency',
    $$md5('dp')::uuid, md5('ann')::uuid, 'dp_1', 'needs_response', 1, 'usd'$$,
    md5('dp')::uuid, 'ann', 'status', 'needs_response', 'lost'),
  ('billing.credit_notes', 'id, account_id, stripe_credit_note_id, status, amount_minor, currency',
    $$md5('cn')::uuid, md5('ann')::uuid, 'cn_1', 'issued', 1, 'usd'$$,
    md5('cn')::uuid, 'ann', 'status', 'issued', 'void'),
  ('billing.payment_methods', 'id, account_id, type, card_last4, stripe_payment_method_id',
    $$md5('pm')::uuid, md5('ann')::uuid, 'card', '4242', 'pm_1'$$,
    md5('pm')::uuid, 'ann', 'card_last4', '4242', '0341'),
  ('billing.subscription_schedules', 'id, account_id, status, stripe_schedule_id',
    $$md5('sched')::uuid, md5('ann')::uuid, 'active', 'sub_sched_1'$$,
    md5('sched')::uuid, 'ann', 'status', 'active', 'released'),
  ('billing.setup_intents', 'id, account_id, status, stripe_setup_intent_id',
    $$md5('seti')::uuid, md5('ann')::uuid, 'processing', 'seti_1'$$,
    md5('seti')::uuid, 'ann', 'status', 'processing', 'succeeded'),
  ('billing.stripe_entitlements', 'id, account_id, lookup_key, stripe_entitlement_id',
    $$md5('ent')::uuid, md5('ann')::uuid, 'sleep', 'ent_1'$$,
    md5('ent')::uuid, 'ann', 'lookup_key', 'sleep', 'dreams'),
  ('billing.tax_ids', 'id, account_id, value, stripe_tax_id',
    $$md5('txi')::uuid, md5('ann')::uuid, 'DE123456789', 'txi_1'$$,
    md5('txi')::uuid, 'ann', 'value', 'DE123456789', 'DE987654321'),
  ('billing.checkout_sessions', 'id, account_id, price_id, status, success_url, cancel_url',
    $$md5('cs')::uuid, md5('ann')::uuid, md5('bed_monthly')::uuid, 'complete', 's',
      'c'$$,
    md5('cs')::uuid, 'ann', 'status', 'complete', 'expired'),
  ('billing.access_restrictions', 'id, account_id, subscription_id, cause, reference, access_level, '
    'begins_at, periods_before',
    $$md5('limit')::uuid, md5('ann')::uuid, md5('sub')::uuid, 'dispute_opened', 'dp_1', 'none',
      '2026-01-10', 'infinity'$$,
    md5('limit')::uuid, 'ann', 'access_level', 'none', 'read_only'),
  ('billing.dunning_cases', 'id, account_id, invoice_id, policy_key, status, opened_at, runs_from',
    $$md5('case')::uuid, md5('ann')::uuid, md5('invoice')::uuid, 'standard', 'open', '2026-01-10',
      '2026-01-10'$$,
    md5('case')::uuid, 'ann', 'status', 'open', 'closed'),
  ('billing.dunning_events', 'id, account_id, case_id, action, planned_at',
    $$md5('event')::uuid, md5('ann')::uuid, md5('overdue')::uuid, 'notify', '2026-01-10'$$,
    md5('event')::uuid, 'ann', 'action', 'notify', 'retry'),
  ('billing.external_identities', 'issuer, subject, user_id',
    $$'https://clerk.example', 'user_1', md5('ann')::uuid$$,
    'https://clerk.example:user_1', null, 'user_id', md5('ann')::uuid::text, md5('bob')::uuid::text),
  ('billing.memberships', 'account_id, user_id, role', $$md5('ann')::uuid, md5('bob')::uuid, 'member'$$,
    md5('ann')::uuid || ':' || md5('bob')::uuid, 'ann', 'role', 'member', 'admin'),
  ('billing_private.discount_codes', 'id, code, percent_off',
    $$md5('code')::uuid, 'FRIEND', 10$$,
    md5('code')::uuid, null, 'code', 'FRIEND', 'FRIENDS'),
  ('billing.discount_redemptions', 'id, discount_code_id, account_id, subscription_id, status',
    $$md5('use')::uuid, md5('code')::uuid, md5('ann')::uuid, md5('sub')::uuid, 'confirmed'$$,
    md5('use')::uuid, 'ann', 'periods_used', '0', '1'),
  ('billing.contracts', 'id, account_id, starts_at, ends_at, first_ends_at, term_starts_at, '
    'reference, reason',
    $$md5('contract')::uuid, md5('ann')::uuid, '2026-01-10', '2027-01-10', '2027-01-10',
      '2026-01-10', 'C-1', 'signed'$$,
    md5('contract')::uuid, 'ann', 'reference', 'C-1', 'C-2'),
  ('billing.contract_features', 'contract_id, feature_key, limit_value',
    $$md5('contract')::uuid, 'sleep', 8$$,
    md5('contract')::uuid || ':sleep', 'ann', 'limit_value', '8', '9'),
  ('billing.contract_prices', 'contract_id, price_id, unit_amount_minor',
    $$md5('contract')::uuid, md5('bed_monthly')::uuid, 8$$,
    md5('contract')::uuid || ':' || md5('bed_monthly')::uuid, 'ann', 'unit_amount_minor', '8', '9'),
  ('billing.contract_settlements', 'contract_id, account_id, term_starts_at, term_ends_at, '
    'committed_minor, charged_minor, shortfall_minor',
    $$md5('contract')::uuid, md5('ann')::uuid, '2026-01-10', '2027-01-10', 8, 8, 0$$,
    md5('contract')::uuid || ':2026-01-10T00:00:00+00:00', 'ann', 'is_waived',
    'false', 'true'),
  ('billing.invitations', 'id, account_id, email, role, expires_at',
    $$md5('invitation')::uuid, md5('ann')::uuid, 'bob@example.com', 'member', '2027-01-01'$$,
    md5('invitation')::uuid, 'ann', 'role', 'member', 'admin'),
  ('billing.entitlement_grants', 'id, account_id, feature_key, valid_from, reason',
    $$md5('grant')::uuid, md5('ann')::uuid, 'sleep', '2026-01-10', 'a gift'$$,
    md5('grant')::uuid, 'ann', 'reason', 'a gift', 'a present'),
  ('billing.usage_grants', 'id, account_id, feature_key, quantity, valid_from, reason',
    $$md5('prepaid')::uuid, md5('ann')::uuid, 'sleep', 8, '2026-01-10', 'a gift'$$,
    md5('prepaid')::uuid, 'ann', 'burnt', '0', '2'),
  ('billing.entitlements',
    'account_id, feature_key, source_kind, source_id, limit_value, valid_from, valid_until',
    $$md5('bob')::uuid, 'sleep', 'grant', md5('none')::uuid, 1, '2026-01-10', '2026-01-11'$$,
    md5('bob')::uuid || ':sleep:grant:' || md5('none')::uuid || ':full:2026-01-10T00:00:00+00:00', 'bob',
    'limit_value', '1', '2'),
  ('billing_private.administrators', 'user_id, reason', $$md5('ada')::uuid, 'founder'$$,
    md5('ada')::uuid, null, 'reason', 'founder', 'owner');
insert into rows values
  ('billing.role_permissions', 'role, permission', $$'member', 'view_billing'$$,
    'member:view_billing', null, 'permission', 'view_billing', null, false),
  ('billing_private.admin_actions', 'action, reason, actor_role',
    $$'nod', 'politeness', 'postgres'$$,
    null, null, 'reason', 'politeness', null, false);

create function pg_temp.keys(p_row jsonb) returns text[]
language sql as $$
  select array_agg(key order by key) from jsonb_object_keys(p_row) as key;
$$;

create function pg_temp.columns_of(p_table_name text) returns text[]
language sql as $$
  select array_agg(attname::text order by attname::text)
  from pg_attribute
  where attrelid = p_table_name::regclass and attnum > 0 and not attisdropped;
$$;

-- Changes the row under its key; p_change is what comes before and after the where clause.
create function pg_temp.touch(p_row rows, p_statement text) returns void
language plpgsql as $$
declare
  v_key text := (
    select string_agg(
      format('(to_jsonb(%I) #>> ''{}'')', attname), ' || '':'' || ' order by place)
    from pg_constraint
    cross join unnest(conkey) with ordinality as keys (number, place)
    join pg_attribute on attrelid = conrelid and attnum = number
    where conrelid = p_row.table_name::regclass and contype = 'p'
  );
begin
  execute format('%s where %s = %L', p_statement, v_key, p_row.row_key);
end;
$$;

create function pg_temp.audited(p_operation text) returns setof text
language sql as $$
  select rows.table_name
  from rows
  join billing_private.audit_log
    on audit_log.table_name = rows.table_name
    and audit_log.row_key = rows.row_key
    and audit_log.account_id is not distinct from md5(rows.account_name)::uuid
  where operation = p_operation
    and case p_operation
      when 'insert' then
        before is null
          and after ->> changed = old_value
          and pg_temp.keys(after) = pg_temp.columns_of(rows.table_name)
      when 'update' then
        before ->> changed = old_value
          and after ->> changed = new_value
          and pg_temp.keys(before) = array[changed]
          and pg_temp.keys(after) = array[changed]
      when 'delete' then
        after is null
          and before ->> changed = new_value
          and pg_temp.keys(before) = pg_temp.columns_of(rows.table_name)
    end
  order by rows.table_name;
$$;

-- ---- all of them ------------------------------------------------------------

select set_eq(
  $$
    select tgrelid::regclass::text from pg_trigger where tgname = 't900_audit_of_updates'
  $$,
  $$ select table_name from rows union all select 'billing_private.settings' $$,
  'this file has a row for every audited table'
);

-- ---- insert and update ------------------------------------------------------

do $$
declare
  v_row rows;
begin
  for v_row in select * from rows order by ctid loop
    execute format(
      'insert into %s (%s) values (%s)', v_row.table_name, v_row.columns, v_row.content);
    if v_row.can_change then
      perform pg_temp.touch(
        v_row,
        format('update %s set %I = %L', v_row.table_name, v_row.changed, v_row.new_value));
    end if;
  end loop;
  update rows
  set row_key = (select max(id)::text from billing_private.admin_actions)
  where table_name = 'billing_private.admin_actions';
end;
$$;

select results_eq(
  $$ select * from pg_temp.audited('insert') $$,
  $$ select table_name from rows order by table_name $$,
  'an insert is recorded with the whole row, under its key and its account'
);
select results_eq(
  $$ select * from pg_temp.audited('update') $$,
  $$ select table_name from rows where can_change order by table_name $$,
  'an update is recorded with the one column that changed, as it was and as it is'
);

-- ---- an update that changes nothing -----------------------------------------

create temporary table before as select count(*) as audited from billing_private.audit_log;
do $$
declare
  v_row rows;
begin
  for v_row in select * from rows where can_change loop
    perform pg_temp.touch(
      v_row,
      format('update %1$s set %2$I = %2$I', v_row.table_name, v_row.changed));
  end loop;
end;
$$;
select is(
  (select count(*) from billing_private.audit_log), (select audited from before),
  'an update that changes nothing is not recorded'
);

-- ---- delete -----------------------------------------------------------------

do $$
declare
  v_row rows;
begin
  delete from billing.subscription_changes where subscription_id = md5('sub_1')::uuid;
  for v_row in select * from rows where can_change order by ctid desc loop
    perform pg_temp.touch(v_row, format('delete from %s', v_row.table_name));
  end loop;
end;
$$;
select results_eq(
  $$ select * from pg_temp.audited('delete') $$,
  $$ select table_name from rows where can_change order by table_name $$,
  'a delete is recorded with the whole row as it was last'
);

-- ---- settings ---------------------------------------------------------------

update billing_private.settings set stripe_livemode = true where only_row;
delete from billing_private.settings where only_row;
insert into billing_private.settings default values;
select results_eq(
  $$
    select
      operation, row_key, account_id, jsonb_strip_nulls(before - 'hash_salt'),
      jsonb_strip_nulls(after - 'hash_salt')
    from billing_private.audit_log
    where table_name = 'billing_private.settings'
    order by id
  $$,
  $$
    values
      ('update', 'true', null::uuid, '{"stripe_livemode": false}'::jsonb,
        '{"stripe_livemode": true}'::jsonb),
      ('delete', 'true', null,
        '{"only_row": true, "stripe_livemode": true, "repeated_trial": "flag",
          "usage_closes_after": "3 days", "usage_records_kept": "3 mons",
          "require_mfa_for_admins": false}', null),
      ('insert', 'true', null, null,
        '{"only_row": true, "stripe_livemode": false, "repeated_trial": "flag",
          "usage_closes_after": "3 days", "usage_records_kept": "3 mons",
          "require_mfa_for_admins": false}')
  $$,
  'the settings are recorded too'
);

-- ---- rows that go with others -----------------------------------------------

insert into billing.invoice_lines (id, invoice_id, amount_minor, currency)
values (md5('il_2')::uuid, md5('invoice')::uuid, 1, 'usd');
delete from billing.invoices where id = md5('invoice')::uuid;
select results_eq(
  $$
    select operation, after is null
    from billing_private.audit_log
    where table_name = 'billing.invoice_lines' and row_key = md5('il_2')::uuid::text
    order by id
  $$,
  $$ values ('insert', false), ('delete', true) $$,
  'a row that goes with its parent is recorded'
);

-- ---- a key that changes -----------------------------------------------------

update billing.features set key = 'rest' where key = 'sleep';
select results_eq(
  $$
    select operation, row_key, before ->> 'key', after ->> 'key', after ->> 'name'
    from billing_private.audit_log
    where table_name = 'billing.features' and row_key in ('sleep', 'rest')
    order by row_key desc, id
  $$,
  $$
    values
      ('insert', 'sleep', null, 'sleep', 'Sleep'),
      ('update', 'sleep', 'sleep', null, null),
      ('update', 'rest', null, 'rest', 'Sleep')
  $$,
  'a row whose key changes is recorded under both: as one that went and one that came'
);

-- ---- entitlements, which are audited column by column ------------------------

insert into billing.entitlements (
  account_id, feature_key, source_kind, source_id, valid_from, valid_until
)
select md5('ann')::uuid, 'rest', 'grant', md5('grant ' || n)::uuid, '2026-01-10', 'infinity'
from generate_series(1, 3) as n;

create function pg_temp.changes_of_grant(p_number integer)
returns table (operation text, row_key text, before jsonb, after jsonb)
language sql as $$
  select operation, row_key, before, after
  from billing_private.audit_log
  where table_name = 'billing.entitlements'
    and row_key like md5('ann')::uuid || ':rest:grant:' || md5('grant ' || p_number)::uuid || ':%'
  order by id;
$$;

select is_empty(
  $$
    select attname
    from pg_attribute
    where attrelid = 'billing.entitlements'::regclass
      and attnum > 0
      and not attisdropped
      and attnum <> all ((
        select conkey
        from pg_constraint
        where conrelid = 'billing.entitlements'::regclass and contype = 'p'
      )::smallint[])
      and attname not in ('plan_id', 'store_key', 'limit_value', 'valid_until', 'recorded_at')
  $$,
  'these columns of an entitlement can change'
);
update billing.entitlements
set plan_id = md5('bed')::uuid,
    store_key = 'shop',
    limit_value = 1,
    valid_until = '2026-02-10',
    recorded_at = '2026-01-11'
where source_id = md5('grant 1')::uuid;
update billing.entitlements
set store_key = null
where source_id in (md5('grant 1')::uuid, md5('grant 2')::uuid);
select results_eq(
  $$ select before, after from pg_temp.changes_of_grant(1) where operation = 'update' $$,
  $$
    select was, becomes
    from (values
      (1,
        '{"plan_id": null, "store_key": null, "limit_value": null, "valid_until": "infinity",
          "recorded_at": "2026-01-10T00:00:00+00:00"}'::jsonb,
        jsonb_build_object(
          'plan_id', md5('bed')::uuid, 'store_key', 'shop', 'limit_value', 1,
          'valid_until', timestamptz '2026-02-10', 'recorded_at', timestamptz '2026-01-11')),
      (2, '{"store_key": "shop"}', '{"store_key": null}')
    ) as changes (place, was, becomes)
    order by place
  $$,
  'each of them is recorded when it does, and only then'
);
select is_empty(
  $$ select * from pg_temp.changes_of_grant(2) where operation = 'update' $$,
  'a row that the statement left as it was is not recorded beside one that it changed'
);
update billing.entitlements
set access_level = 'read_only', limit_value = 5
where source_id = md5('grant 3')::uuid;
select results_eq(
  $$
    select
      operation, split_part(row_key, ':', 5), before ->> 'access_level', after ->> 'access_level',
      after ->> 'limit_value'
    from pg_temp.changes_of_grant(3)
    order by operation, 2
  $$,
  $$
    values
      ('insert', 'full', null, 'full', null),
      ('update', 'full', 'full', null, null),
      ('update', 'read_only', null, 'read_only', '5')
  $$,
  'one whose key changes is one that went and one that came'
);

-- ---- many at once -----------------------------------------------------------

insert into billing.features (key, name)
select 'feature-' || n, 'Feature ' || n from generate_series(1, 1000) as n;
update billing.features set name = 'Odd' where key ~ '^feature-\d*[13579]$';
delete from billing.features where key ~ '^feature-';
select results_eq(
  $$
    select operation, count(*)
    from billing_private.audit_log
    where table_name = 'billing.features' and row_key ~ '^feature-'
    group by operation
    order by operation
  $$,
  $$ values ('delete', 1000::bigint), ('insert', 1000), ('update', 500) $$,
  'of a statement that changes many rows, each row is recorded'
);
select is(
  (
    select before ->> 'name' || ' > ' || (after ->> 'name')
    from billing_private.audit_log
    where row_key = 'feature-77' and operation = 'update'
  ),
  'Feature 77 > Odd',
  'each with its own change'
);

-- ---- rolled back ------------------------------------------------------------

savepoint change;
insert into billing.features (key, name) values ('never', 'Never');
rollback to change;
select is_empty(
  $$ select * from billing_private.audit_log where row_key = 'never' $$,
  'a change that is rolled back has never been'
);

select * from finish();
rollback;
