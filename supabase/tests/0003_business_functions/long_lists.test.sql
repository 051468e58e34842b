-- Lists that snapshots show only the beginning of: Stripe is asked for the rest, page by page, for
-- that very snapshot, and nothing goes before the end has come.
begin;
\ir ../helpers.psql
select plan(37);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

create function tests.lines(p_from integer, p_to integer, p_has_more boolean) returns jsonb
language sql as $$
  select jsonb_build_object('object', 'list', 'has_more', p_has_more, 'data', coalesce(
    jsonb_agg(jsonb_build_object('id', 'il_' || n, 'amount', n, 'currency', 'usd') order by n),
    '[]'))
  from generate_series(p_from, p_to) as n;
$$;

create function tests.invoice(p_at timestamptz, p_lines jsonb, p_status text default 'open')
returns text
language sql as $$
  select tests.deliver('evt_in_' || md5(p_at::text || p_lines), 'invoice.updated', p_at,
    jsonb_build_object('id', 'in_1', 'object', 'invoice', 'status', p_status,
      'customer', 'cus_ann', 'currency', 'usd', 'lines', p_lines));
$$;

create function tests.items(p_from integer, p_to integer, p_has_more boolean) returns jsonb
language sql as $$
  select jsonb_build_object('object', 'list', 'has_more', p_has_more, 'data', jsonb_agg(
    jsonb_build_object('id', 'si_' || n, 'quantity', n,
      'current_period_start', 1768003200, 'current_period_end', 1770681600,
      'price', jsonb_build_object('id', 'price_addon_' || n)) order by n))
  from generate_series(p_from, p_to) as n;
$$;

create function tests.entitlements(p_from integer, p_to integer, p_has_more boolean) returns jsonb
language sql as $$
  select jsonb_build_object('object', 'list', 'has_more', p_has_more, 'data', coalesce(
    jsonb_agg(jsonb_build_object('id', 'ent_' || n, 'object', 'entitlements.active_entitlement',
      'lookup_key', 'key_' || n % 12, 'feature', 'feat_' || n) order by n), '[]'))
  from generate_series(p_from, p_to) as n;
$$;

create function tests.summary(p_at timestamptz, p_entitlements jsonb) returns text
language sql as $$
  select tests.deliver('evt_ent_' || md5(p_at::text || p_entitlements),
    'entitlements.active_entitlement_summary.updated', p_at,
    jsonb_build_object('object', 'entitlements.active_entitlement_summary',
      'customer', 'cus_ann', 'livemode', false, 'entitlements', p_entitlements));
$$;

create view tests.asked as
select kind, method, path, params
from billing_private.commands
where status = 'pending'
order by position;

create function tests.answer(p_response jsonb) returns text
language plpgsql as $$
declare
  v_claimed billing.claimed_command;
begin
  select * into strict v_claimed from billing_private.claim_commands(1, null);
  return (
    select status
    from billing.complete_command(v_claimed.id, v_claimed.lease, 200, p_response, null)
  );
end;
$$;

create function tests.stored(p_what text) returns text
language sql as $$
  select string_agg(id, ',' order by length(id), id)
  from (
    select 'lines', replace(stripe_line_id, 'il_', '') from billing.invoice_lines
    union all
    select 'items', replace(stripe_subscription_item_id, 'si_', '')
    from billing.subscription_items
    union all
    select 'entitlements', replace(stripe_entitlement_id, 'ent_', '')
    from billing.stripe_entitlements
  ) as stored (what, id)
  where what = p_what;
$$;

savepoint s;

-- ---- the service: an invoice ------------------------------------------------

select tests.invoice('2026-01-10', tests.lines(1, 10, false));
select is_empty($$ select * from tests.asked $$, 'a whole list leaves nothing to ask');
select tests.invoice('2026-01-11', tests.lines(3, 12, true));
select is(
  tests.stored('lines'), '1,2,3,4,5,6,7,8,9,10,11,12',
  'D12: a list that is cut short takes nothing away'
);
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('list_invoice_lines', 'GET', '/v1/invoices/in_1/lines', '{"limit": 100}'::jsonb)
  $$,
  'D12: Stripe is asked for all of it, from the beginning'
);
savepoint asked;

select is(tests.answer(tests.lines(3, 22, true)), 'succeeded', 'it answers with a page');
select is(
  tests.stored('lines'), '1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22',
  'which is stored, and still takes nothing away'
);
select is(
  (select params from tests.asked), '{"limit": 100, "starting_after": "il_22"}',
  'and the next one is asked for'
);
select tests.answer(tests.lines(23, 25, false));
select is(
  tests.stored('lines'), '3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25',
  'D12: at its end the list is what there is'
);
select is(
  (select amount_minor from billing.invoice_lines where stripe_line_id = 'il_25'), 25::bigint,
  'with what each line says'
);
select is_empty($$ select * from tests.asked $$, 'and nothing more is asked');

-- What changed beyond what is shown looks the same, before and after the event that came first.
create function tests.repeat(p_event_id text) returns text
language sql as $$
  select tests.deliver(p_event_id, 'invoice.updated', '2026-01-11', jsonb_build_object(
    'id', 'in_1', 'object', 'invoice', 'status', 'open', 'customer', 'cus_ann',
    'currency', 'usd', 'lines', tests.lines(3, 12, true)));
$$;
savepoint heard;
select tests.repeat('evt_a');
select is(
  (select count(*) from tests.asked), 1::bigint,
  'D12, A1: another snapshot of that second that shows the same is a reason to ask again'
);
select tests.answer(tests.lines(3, 26, false));
select is(
  tests.stored('lines'), '3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26',
  'D12: and the answer counts'
);
rollback to heard;
select tests.repeat('evt_z');
select tests.answer(tests.lines(3, 26, false));
select is(
  tests.stored('lines'), '3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26',
  'D12, A1: whichever of the two is taken for the newest'
);
rollback to asked;

select tests.answer(tests.lines(3, 22, true));
select tests.answer(tests.lines(1, 0, true));
select is(
  tests.stored('lines'), '3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22',
  'a page that is empty is the end, whatever it says'
);
rollback to asked;

select tests.invoice('2026-01-12', tests.lines(1, 1, false), 'paid');
select tests.answer(tests.lines(3, 12, false));
select is(
  tests.stored('lines'), '1',
  'A9: a page for an older snapshot neither adds to a newer one nor takes from it'
);
rollback to asked;

select tests.invoice('2026-01-12', tests.lines(4, 13, true));
select is(
  (select count(*) from tests.asked), 1::bigint, 'two snapshots before the answer ask once');
select tests.answer(tests.lines(4, 14, false));
select is(
  tests.stored('lines'), '4,5,6,7,8,9,10,11,12,13,14', 'and the answer is for the newer one');
rollback to asked;

select tests.answer(tests.lines(3, 22, true));
select tests.invoice('2026-01-12', tests.lines(4, 13, true));
select is(
  (select count(*) from tests.asked), 2::bigint,
  'a newer one between two pages is asked for from the beginning'
);
select tests.answer(tests.lines(23, 25, false));
select is(
  tests.stored('lines'), '1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22',
  'what was under way for the older one comes to nothing'
);
select tests.answer(tests.lines(4, 14, false));
select is(tests.stored('lines'), '4,5,6,7,8,9,10,11,12,13,14', 'and the newer one counts');
rollback to asked;

-- ---- the service: a subscription --------------------------------------------

rollback to s;
select tests.deliver('evt_sub', 'customer.subscription.updated', '2026-01-10',
  tests.subscription('ann', 'active', '2026-01-10',
    p_extra => jsonb_build_object('items', tests.items(1, 2, true))));
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('list_subscription_items', 'GET', '/v1/subscription_items',
      '{"limit": 100, "subscription": "sub_ann"}'::jsonb)
  $$,
  'D12: of a subscription with many items Stripe is asked for all'
);
select tests.answer(
  jsonb_set(tests.items(2, 4, false), '{data,2,price,id}', '"price_plus_monthly"'));
select is(tests.stored('items'), '2,3,4', 'D12: and they are what there is');
select results_eq(
  $$
    select prices.key, quantity, current_period_end
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
  $$,
  $$ values ('plus_monthly', 4::bigint, '2026-02-10 00:00+00'::timestamptz) $$,
  'D3: the subscription follows its base plan, wherever in the list that stands'
);
select is(
  billing.has_entitlement('premium', md5('ann')::uuid), true, 'and what it gives, is given');
rollback to s;

-- ---- the service: entitlements at Stripe ------------------------------------

select is(
  tests.summary('2026-01-10', tests.entitlements(1, 2, false)), 'applied',
  'D19: a summary has no id, and is applied'
);
select results_eq(
  $$
    select account_id, lookup_key, stripe_entitlement_id, stripe_feature_id, stripe_customer_id
    from billing.stripe_entitlements
    order by stripe_entitlement_id
  $$,
  $$
    values (md5('ann')::uuid, 'key_1', 'ent_1', 'feat_1', 'cus_ann'),
      (md5('ann')::uuid, 'key_2', 'ent_2', 'feat_2', 'cus_ann')
  $$,
  'with each feature the customer has'
);
select is_empty(
  $$ select * from billing.entitlements $$, 'which is a mirror: what gives access is elsewhere');
select tests.summary('2026-01-12', tests.entitlements(2, 3, false));
select tests.summary('2026-01-11', tests.entitlements(1, 1, false));
select is(
  tests.stored('entitlements'), '2,3', 'A10: a summary that was told late takes nothing away');
rollback to s;

select tests.summary('2026-01-10', tests.entitlements(1, 10, true));
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('list_entitlements', 'GET', '/v1/entitlements/active_entitlements',
      '{"limit": 100, "customer": "cus_ann"}'::jsonb)
  $$,
  'D13: of more than ten entitlements Stripe is asked for all'
);
select tests.answer(tests.entitlements(1, 14, false));
select is(
  tests.stored('entitlements'), '1,2,3,4,5,6,7,8,9,10,11,12,13,14', 'D13: and all are kept');
select is(
  (select count(*) from billing.stripe_entitlements where lookup_key = 'key_1'), 2::bigint,
  'D14: two features may have one name'
);
select tests.summary('2026-01-12', tests.entitlements(1, 0, false));
select is(tests.stored('entitlements'), null, 'and none are none');
rollback to s;

select tests.summary('2026-01-10', tests.entitlements(1, 2, false));
select tests.summary('2026-01-10', tests.entitlements(2, 3, false));
select is(
  (select kind from tests.asked), 'list_entitlements',
  'A1: of two summaries of one second nobody knows which is the last: Stripe is asked'
);
select tests.answer(tests.entitlements(3, 4, false));
select is(tests.stored('entitlements'), '3,4', 'A1: and what it says counts');
select is_empty(
  $$ select * from billing_private.stripe_objects where is_ambiguous $$, 'A1: nothing is in doubt');
rollback to s;

-- ---- a member, a stranger ---------------------------------------------------

select tests.summary('2026-01-10', tests.entitlements(1, 2, false));
select tests.sign_in('ann');
select is(
  (select count(*) from billing.stripe_entitlements), 2::bigint,
  'a member sees the account''s own'
);
select tests.sign_in('bob');
select is_empty($$ select * from billing.stripe_entitlements $$, 'a stranger sees none');
select tests.sign_out();
select throws_ok(
  $$ select * from billing.stripe_entitlements $$,
  '42501', 'permission denied for table stripe_entitlements',
  'a visitor may not look'
);

select * from finish();
rollback;
