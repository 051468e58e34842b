-- Who is gone is forgotten: every column that could hold a name or an address holds one, the user is
-- deleted, and it is nowhere but where README says so.
begin;
\ir ../contract/two_accounts.psql
select plan(9);

insert into auth.users (id, email) values (md5('ann')::uuid, 'ann@example.com')
on conflict (id) do nothing;
insert into billing_private.store_admins (store_id, user_id, reason)
values (md5('night-owl')::uuid, md5('ann')::uuid, 'it is hers');
insert into billing.accounts (id, kind) values (md5('team')::uuid, 'organization');
insert into billing.invitations (account_id, email, role, expires_at, accepted_at, accepted_by)
values (md5('team')::uuid, 'ann@example.com', 'member', '2027-01-01', '2026-01-10',
  md5('ann')::uuid);
update billing.subscription_changes
set cause = '{"kind": "user", "reason": "it is me"}'
where account_id = md5('ann')::uuid;
update billing_private.commands set status = 'succeeded', lease = null, lease_expires_at = null,
  finished_at = '2026-01-10'
where account_id = md5('ann')::uuid;

-- Ids, keys, vocabularies and what is built from them: no place for a name.
create function tests.is_no_place(p_table text, p_column text) returns boolean
language sql as $$
  select p_column ~ ('^(stripe_.*|.*_ids?|.*_keys?|keys?|status|.*_status|kind|type|types|currency|'
      || 'role|operation|method|path|provider|manual_kind|stage|action|cause|class|card_brand|'
      || 'card_last4|.*_hash|fingerprint|blocked_by|access_level|membership_tier|features|country|'
      || 'overage|severity|decline_code|failure_code|.*_reason_code|issuer|subject|fact|payload|'
      || 'billing_reason|uncollectible_reason|collection_method|tiers.*|position|outcome|usage|'
      || 'fraud_type|number|source|states|rule|rule_key|object_type|table_name|row_key|duration|'
      || '.*_kind|end_behavior|found_by|wish|phases|pending_update|pause_collection)$')
    -- Reasons that are Stripe's words for why, out of a list of its own.
    or (p_table, p_column) in (
      ('billing.subscriptions', 'cancellation_reason'), ('billing.disputes', 'reason'),
      ('billing.refunds', 'reason'), ('billing.refunds', 'failure_reason'),
      ('billing.setup_intents', 'cancellation_reason'), ('billing.credit_notes', 'reason'),
      -- Of the catalog, and what is written here, of ids and numbers.
      ('billing.coupons', 'name'), ('billing.access_restrictions', 'reference'),
      ('billing.hook_events', 'data'), ('billing_private.entitlement_corrections', 'before'),
      ('billing_private.entitlement_corrections', 'after'));
$$;

create table tests.filled (place text);
do $$
declare
  v_column record;
  v_condition text;
  v_rows bigint;
begin
  for v_column in
    select attrelid::regclass::text as name, attname, atttypid
    from pg_attribute
    join pg_class on pg_class.oid = attrelid
    where relnamespace in ('billing'::regnamespace, 'billing_private'::regnamespace)
      and relkind in ('r', 'p')
      and not relispartition
      and attnum > 0
      and not attisdropped
      and attgenerated = ''
      and atttypid in ('text'::regtype, 'jsonb'::regtype)
      and not tests.is_no_place(attrelid::regclass::text, attname)
      -- Appended to alone: the audit.
      and attrelid not in (
        'billing_private.audit_log'::regclass, 'billing_private.admin_actions'::regclass)
  loop
    v_condition := format(
      'tests.owner_of(%L, to_jsonb(%I)) = md5(''ann'')::uuid', v_column.name,
      split_part(v_column.name, '.', 2));
    if v_column.name in ('billing_private.drifts') then
      v_condition := 'object_id = ''sub_ann''';
    end if;
    begin
      execute format('alter table %s disable trigger user', v_column.name);
      execute format('update %s set %I = %s where %s', v_column.name, v_column.attname,
        case v_column.atttypid
          when 'text'::regtype then quote_literal('https://marker.example')
          else quote_literal('{"told": "https://marker.example"}') end,
        v_condition);
      get diagnostics v_rows = row_count;
    exception when check_violation or foreign_key_violation or unique_violation then
      v_rows := 0; -- what may stand there is a rule of the table
    end;
    execute format('alter table %s enable trigger user', v_column.name);
    if v_rows > 0 then
      insert into tests.filled values (v_column.name || '.' || v_column.attname);
    end if;
  end loop;
end;
$$;

create function tests.marked() returns setof text
language plpgsql as $$
declare
  v_table text;
begin
  for v_table in
    select pg_class.oid::regclass::text
    from pg_class
    where relnamespace in ('billing'::regnamespace, 'billing_private'::regnamespace)
      and relkind in ('r', 'p')
      and not relispartition
  loop
    return query execute format(
      'select distinct %L || ''.'' || field.key
      from %s as whole_row, jsonb_each_text(to_jsonb(whole_row)) as field
      where field.value like ''%%marker.example%%''', v_table, v_table);
  end loop;
end;
$$;

select set_eq(
  'select * from tests.marked()', 'select place from tests.filled',
  'a marker stands wherever a name, an address or a remark could'
);
select ok(
  (select count(*) > 25 from tests.filled), 'which are many places'
);

delete from auth.users where id = md5('ann')::uuid;
select tests.be_owner();
select is(
  (select settled_at from billing_private.deleted_users where user_id = md5('ann')::uuid), null,
  'a user is deleted'
);
select billing_private.task_settle_accounts();
select isnt(
  (select closed_at from billing.accounts where id = md5('ann')::uuid), null,
  'and settled'
);

-- README lists them; what Stripe sent is in the inbox besides.
select set_eq(
  'select * from tests.marked()',
  array[
    -- the bill, as Stripe wrote it
    'billing.credit_notes.memo', 'billing.credit_notes.pdf_url',
    'billing.invoice_lines.description', 'billing.invoices.finalization_error',
    'billing.invoices.hosted_invoice_url', 'billing.invoices.invoice_pdf_url',
    'billing.payments.failure_message', 'billing.setup_intents.failure_message',
    -- what administrators wrote
    'billing.contracts.reason', 'billing.contracts.reference', 'billing.entitlement_grants.reason',
    'billing.payments.reference', 'billing.usage_adjustments.reason', 'billing.usage_grants.reason',
    'billing.usage_grants.reference', 'billing.usage_grants.revoked_reason',
    -- the audit, which is sealed
    'billing_private.audit_log.before'
  ],
  'then it stands only in the bill, in what administrators wrote and in the audit'
);
select is_empty(
  $$
    select reason from billing_private.store_admins where user_id = md5('ann')::uuid
    union all
    select email from billing.invitations where accepted_by = md5('ann')::uuid
      and email <> 'closed@invalid'
    union all
    select cause ->> 'reason' from billing.subscription_changes
    where account_id = md5('ann')::uuid and cause ? 'reason'
  $$,
  'nor is she an administrator of a store, known as a guest, or remembered by her own words'
);

-- ---- what comes later -------------------------------------------------------

select tests.deliver('evt_txi_late', 'customer.tax_id.updated', '2026-01-12', '{
  "id": "txi_ann", "object": "tax_id", "type": "eu_vat", "value": "https://marker.example",
  "customer": "cus_ann"}');
select is(
  (select value from billing.tax_ids where stripe_tax_id = 'txi_ann'), null,
  'Stripe''s later word on her tax number is not kept'
);
insert into billing_private.commands (kind, account_id, path, params)
values ('cancel_subscription', md5('ann')::uuid, '/v1/late', '{"comment": "marker.example"}');
-- Behind the calls that end her subscription.
do $$
begin
  for turn in 1 .. 5 loop
    perform billing.complete_command(id, lease, 200, '{}')
    from billing.claim_commands(20);
  end loop;
end;
$$;
select results_eq(
  $$ select status, params from billing_private.commands where path = '/v1/late' $$,
  $$ values ('succeeded', '{}'::jsonb) $$,
  'what Stripe is told of her is forgotten when it is told'
);
select is_empty(
  $$ select * from billing_private.rebuild(array['cus_ann', 'txi_ann'], false)
    where class is not null $$,
  'and rebuilding from the inbox does not bring it back'
);

select * from finish();
rollback;
