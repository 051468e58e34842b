-- billing_private.project_invoice(): one row and its lines, whatever the API version of the event.
begin;
\ir ../helpers.psql
\ir convergence.psql
select plan(37);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

create function tests.line(p_id text, p_extra jsonb default '{}') returns jsonb
language sql as $$
  select jsonb_build_object(
    'id', p_id, 'object', 'line_item', 'amount', 1000, 'currency', 'usd', 'quantity', 1,
    'description', '1 × Plus', 'period', '{"start": 1768003200, "end": 1770681600}'::jsonb,
    'parent', '{"type": "subscription_item_details", "subscription_item_details":
      {"subscription": "sub_ann", "subscription_item": "si_ann", "proration": false}}'::jsonb,
    'pricing', '{"type": "price_details", "unit_amount_decimal": "1000",
      "price_details": {"price": "price_plus_monthly", "product": "prod_plus"}}'::jsonb) || p_extra;
$$;

create function tests.lines(variadic p_lines jsonb[]) returns jsonb
language sql as $$
  select jsonb_build_object('lines', jsonb_build_object(
    'object', 'list', 'has_more', false, 'data', to_jsonb(p_lines)));
$$;

-- An invoice of the newest API version.
create function tests.invoice(p_extra jsonb default '{}') returns jsonb
language sql as $$
  select jsonb_build_object(
    'id', 'in_ann', 'object', 'invoice', 'status', 'open', 'number', 'A-0001', 'currency', 'usd',
    'customer', 'cus_ann', 'billing_reason', 'subscription_cycle', 'subtotal', 900, 'total', 1000,
    'amount_due', 1000, 'amount_paid', 200, 'amount_remaining', 800, 'attempt_count', 1,
    'created', 1768003200, 'next_payment_attempt', 1768262400, 'due_date', null,
    'period_start', 1765324800, 'period_end', 1768003200,
    'status_transitions', '{"finalized_at": 1768006800, "paid_at": null, "voided_at": null,
      "marked_uncollectible_at": null}'::jsonb,
    'hosted_invoice_url', 'https://invoice.stripe.com/i/1',
    'invoice_pdf', 'https://pay.stripe.com/1.pdf',
    'parent', '{"type": "subscription_details", "quote_details": null, "subscription_details":
      {"subscription": "sub_ann", "metadata": {}}}'::jsonb)
    || tests.lines(tests.line('il_1')) || p_extra;
$$;

-- The same invoice as Stripe wrote it up to acacia.
create function tests.acacia(p_invoice jsonb) returns jsonb
language sql as $$
  select p_invoice - 'parent' || jsonb_build_object(
    'subscription', 'sub_ann', 'subscription_details', '{"metadata": {}}'::jsonb, 'paid', false,
    'payment_intent', 'pi_ann', 'charge', null, 'tax', null, 'discount', null,
    'lines', jsonb_build_object('has_more', false, 'data', jsonb_build_array(
      (p_invoice #> '{lines,data,0}') - '{parent,pricing}'::text[] || '{
        "type": "subscription", "proration": false, "subscription": "sub_ann",
        "subscription_item": "si_ann",
        "price": {"id": "price_plus_monthly", "object": "price", "product": "prod_plus"},
        "plan": {"id": "price_plus_monthly", "object": "plan"}}')));
$$;

create function tests.deliver_invoice(p_invoice jsonb, p_type text default 'invoice.updated')
returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_invoice::text || p_type), p_type, '2026-01-10', p_invoice);
$$;

create function tests.state_after(p_object jsonb) returns jsonb
language sql as $$
  select tests.play(array[tests.event('evt_1', 'invoice.updated', '2026-01-10', p_object)]);
$$;

savepoint s;

-- ---- the service: the newest shape ------------------------------------------

select is(tests.deliver_invoice(tests.invoice()), 'applied', 'an invoice is applied');
select results_eq(
  $$
    select account_id, number, status, billing_reason, currency, subtotal_minor, total_minor,
      amount_due_minor, amount_paid_minor, amount_remaining_minor, attempt_count
    from billing.invoices
  $$,
  $$
    values (md5('ann')::uuid, 'A-0001', 'open', 'subscription_cycle', 'usd', 900::bigint,
      1000::bigint, 1000::bigint, 200::bigint, 800::bigint, 1)
  $$,
  'number, reason and amounts are kept'
);
select results_eq(
  $$
    select issued_at, finalized_at, next_payment_attempt_at, due_at, paid_at, voided_at,
      marked_uncollectible_at, deleted_at
    from billing.invoices
  $$,
  $$
    values ('2026-01-10 00:00+00'::timestamptz, '2026-01-10 01:00+00'::timestamptz,
      '2026-01-13 00:00+00'::timestamptz, null::timestamptz, null::timestamptz,
      null::timestamptz, null::timestamptz, null::timestamptz)
  $$,
  'what happened when is kept, and what did not happen is null'
);
select results_eq(
  $$
    select hosted_invoice_url, invoice_pdf_url, stripe_customer_id, stripe_subscription_id
    from billing.invoices
  $$,
  $$
    values ('https://invoice.stripe.com/i/1', 'https://pay.stripe.com/1.pdf', 'cus_ann', 'sub_ann')
  $$,
  'D4: where it can be paid, whose it is, and which subscription it bills'
);
select results_eq(
  $$
    select description, amount_minor, currency, quantity, period_start, period_end, is_proration,
      stripe_line_id, stripe_price_id, stripe_subscription_item_id
    from billing.invoice_lines
  $$,
  $$
    values ('1 × Plus', 1000::bigint, 'usd', 1::bigint, '2026-01-10 00:00+00'::timestamptz,
      '2026-02-10 00:00+00'::timestamptz, false, 'il_1', 'price_plus_monthly', 'si_ann')
  $$,
  'D5: the service period is the line''s'
);
rollback to s;

select tests.subscribe('ann');
select tests.deliver_invoice(tests.invoice('{"period_end": 1893456000, "status": "paid"}'));
select is(
  (select max(valid_until) from billing.entitlements), '2026-02-10 03:00+00'::timestamptz,
  'D5: access does not end with the invoice''s own period, which is about something else'
);
rollback to s;

-- ---- the service: other API versions, other shapes --------------------------

select is(
  tests.state_after(tests.acacia(tests.invoice())), tests.state_after(tests.invoice()),
  'D4: an invoice as written up to acacia gives the same rows'
);

select is(
  tests.play(array[
    tests.event('evt_1', 'invoice.updated', '2026-01-10', tests.acacia(tests.invoice())),
    tests.event('evt_2', 'invoice.paid', '2026-01-11', tests.invoice('{"status": "paid"}'))]),
  tests.play(array[
    tests.event('evt_1', 'invoice.updated', '2026-01-10', tests.invoice()),
    tests.event('evt_2', 'invoice.paid', '2026-01-11',
      tests.acacia(tests.invoice('{"status": "paid"}')))]),
  'D7: endpoints of different API versions write the same rows'
);

select is_empty(
  $$
    select path, shape
    from unnest(array['{parent,subscription_details,subscription}', '{customer}',
      '{lines,data,0,pricing,price_details,price}',
      '{lines,data,0,parent,subscription_item_details,subscription_item}']::text[][])
      as path
    cross join unnest(array[
      '{"id": "x_1", "object": "y"}', '{"id": "x_1", "deleted": true}'
    ]::jsonb[]) as shape
    where tests.state_after(jsonb_set(tests.invoice(), path::text[], shape))
      <> tests.state_after(jsonb_set(tests.invoice(), path::text[], '"x_1"'))
  $$,
  'D11: subscription, customer, price and item may each be an id, an object or deleted'
);

select is_empty(
  $$
    select parent
    from unnest(array[
      'null',
      '{"type": "quote_details", "subscription_details": null, "quote_details": {"quote": "qt_1"}}',
      '{"type": "subscription_details", "subscription_details": {"subscription": null}}',
      '{}'
    ]::jsonb[]) as parent
    cross join lateral tests.state_after(tests.invoice(jsonb_build_object('parent', parent)))
      as state
    where state #> '{invoices,0,stripe_subscription_id}' <> 'null'
  $$,
  'D4: an invoice without parent, or of a quote, belongs to no subscription, and is no error'
);

select is(
  tests.state_after(tests.invoice() - 'parent') #>> '{invoices,0,stripe_subscription_id}', null,
  'D4: nor is one without the field'
);

select is(
  tests.deliver_invoice('{"id": "in_bare", "object": "invoice"}'), 'applied',
  'E7: an invoice that says next to nothing is applied'
);
select results_eq(
  $$ select status, currency, total_minor, account_id from billing.invoices $$,
  $$ values (null, 'xxx', 0::bigint, null::uuid) $$,
  'E7: with zero of no currency'
);
rollback to s;

select tests.deliver_invoice(tests.invoice(tests.lines(
  tests.line('il_1', '{"parent": {"type": "invoice_item_details", "invoice_item_details":
    {"proration": true, "invoice_item": "ii_1", "subscription": "sub_ann"}}, "amount": -523}'),
  tests.line('il_2', '{"parent": {"type": "subscription_item_details",
    "subscription_item_details": {"proration": true, "subscription_item": "si_ann"}}}'),
  tests.line('il_3', '{"parent": null, "proration": true}'),
  tests.line('il_4', '{"parent": null, "pricing": null, "quantity": null, "period": null}'),
  tests.line('il_5', '{"pricing": {"type": "price_details", "price_details": null}}'))));
select results_eq(
  $$
    select stripe_line_id, amount_minor, is_proration, stripe_price_id,
      stripe_subscription_item_id
    from billing.invoice_lines
    order by stripe_line_id
  $$,
  $$
    values ('il_1', -523::bigint, true, 'price_plus_monthly', null),
      ('il_2', 1000::bigint, true, 'price_plus_monthly', 'si_ann'),
      ('il_3', 1000::bigint, true, 'price_plus_monthly', null),
      ('il_4', 1000::bigint, false, null, null),
      ('il_5', 1000::bigint, false, null, 'si_ann')
  $$,
  'prorations are told in every shape, credits are negative, and a line may say little'
);
rollback to s;

-- ---- the service: lists that are cut short ----------------------------------

select tests.deliver('evt_1', 'invoice.created', '2026-01-10 00:00',
  tests.invoice(tests.lines(tests.line('il_1'), tests.line('il_2'))));
select tests.deliver('evt_2', 'invoice.updated', '2026-01-10 00:01',
  tests.invoice('{"lines": {"has_more": true, "data": [{"id": "il_3", "amount": 5}]}}'));
select results_eq(
  $$ select stripe_line_id from billing.invoice_lines order by 1 $$,
  $$ values ('il_1'), ('il_2'), ('il_3') $$,
  'D12: a list of lines that is cut short removes nothing it does not show'
);
select tests.deliver('evt_3', 'invoice.updated', '2026-01-10 00:02',
  tests.invoice(tests.lines(tests.line('il_2', '{"amount": 7, "currency": "eur", "quantity": 9,
    "description": "9 × Basic", "period": {"start": 1768003201, "end": 1770681601},
    "pricing": {"price_details": {"price": "price_basic_monthly"}},
    "parent": {"subscription_item_details": {"subscription_item": "si_9", "proration": true}}}'))));
select results_eq(
  $$
    select stripe_line_id, amount_minor, currency, quantity, description, period_start,
      period_end, stripe_price_id, stripe_subscription_item_id, is_proration
    from billing.invoice_lines
  $$,
  $$
    values ('il_2', 7::bigint, 'eur', 9::bigint, '9 × Basic',
      '2026-01-10 00:00:01+00'::timestamptz, '2026-02-10 00:00:01+00'::timestamptz,
      'price_basic_monthly', 'si_9', true)
  $$,
  'a complete list removes what is no longer on the invoice, and changes what is'
);
select tests.deliver('evt_4', 'invoice.updated', '2026-01-10 00:03', tests.invoice() - 'lines');
select is(
  (select count(*) from billing.invoice_lines), 1::bigint,
  'an invoice without a list says nothing about its lines'
);
rollback to s;

-- ---- the service: from draft to the end -------------------------------------

select tests.deliver('evt_1', 'invoice.created', '2026-01-10',
  tests.invoice('{"status": "draft", "number": null, "hosted_invoice_url": null}'));
select results_eq(
  $$ select status, number, hosted_invoice_url from billing.invoices $$,
  $$ values ('draft', null, null) $$,
  'a draft has no number and no address yet'
);
select tests.deliver('evt_2', 'invoice.payment_failed', '2026-01-11',
  tests.invoice('{"attempt_count": 2, "next_payment_attempt": null}'));
select results_eq(
  $$ select status, attempt_count, next_payment_attempt_at from billing.invoices $$,
  $$ values ('open', 2, null::timestamptz) $$,
  'after a last failed attempt nobody will try again'
);
select tests.deliver('evt_3', 'invoice.marked_uncollectible', '2026-01-12',
  tests.invoice('{"status": "uncollectible",
    "status_transitions": {"marked_uncollectible_at": 1768176000}}'));
select results_eq(
  $$ select status, marked_uncollectible_at from billing.invoices $$,
  $$ values ('uncollectible', '2026-01-12 00:00+00'::timestamptz) $$,
  'an invoice that was written off says when'
);
select tests.deliver('evt_4', 'invoice.paid', '2026-01-13',
  tests.invoice('{"status": "paid", "amount_paid": 1000, "amount_remaining": 0,
    "status_transitions": {"paid_at": 1768262400}}'));
select results_eq(
  $$ select status, paid_at, amount_paid_minor, amount_remaining_minor from billing.invoices $$,
  $$ values ('paid', '2026-01-13 00:00+00'::timestamptz, 1000::bigint, 0::bigint) $$,
  'and may still be paid'
);
select tests.deliver('evt_5', 'invoice.updated', '2026-01-14', tests.invoice());
select is((select status from billing.invoices), 'paid', 'A3: paid wins for ever');
rollback to s;

select tests.deliver('evt_1', 'invoice.voided', '2026-01-12',
  tests.invoice('{"status": "void", "status_transitions": {"voided_at": 1768176000}}'));
select results_eq(
  $$ select status, voided_at from billing.invoices $$,
  $$ values ('void', '2026-01-12 00:00+00'::timestamptz) $$,
  'a voided invoice says when'
);
rollback to s;

select tests.deliver('evt_1', 'invoice.created', '2026-01-10',
  tests.invoice('{"status": "draft"}'));
select is(
  tests.deliver('evt_2', 'invoice.deleted', '2026-01-11',
    tests.invoice('{"status": "draft"}')),
  'applied',
  'the deletion of a draft is applied'
);
select is(
  (select deleted_at from billing.invoices), '2026-01-11 00:00+00'::timestamptz,
  'a deleted draft is kept, marked as deleted'
);
rollback to s;

select tests.deliver('evt_1', 'invoice.paid', '2026-01-10',
  tests.invoice('{"status": "paid", "total": 0, "amount_due": 0, "amount_paid": 0}'));
select results_eq(
  $$ select status, amount_paid_minor from billing.invoices $$,
  $$ values ('paid', 0::bigint) $$,
  'G2: an invoice of nothing is paid with nothing'
);
rollback to s;

select is(
  tests.deliver_invoice(tests.invoice('{"status": "disputed_by_nobody_yet"}')), 'applied',
  'D10: a status nobody knows is applied'
);
select is(
  (select status from billing.invoices), 'disputed_by_nobody_yet', 'D10: and stored as it is'
);
rollback to s;

-- ---- the service: whose it is -----------------------------------------------

select is(
  tests.deliver_invoice(tests.invoice('{"customer": "cus_nobody", "id": "in_n"}')), 'applied',
  'C2: an invoice of an unknown customer is applied'
);
select is(
  (select account_id from billing.invoices), null,
  'C2: and nobody''s until the customer is known'
);
rollback to s;

select tests.deliver_invoice(jsonb_set(
  tests.invoice('{"customer": "cus_meta"}'), '{parent,subscription_details,metadata}',
  jsonb_build_object('account_id', md5('ann')::uuid)));
select is(
  (select account_id from billing.invoices), md5('ann')::uuid,
  'A5: the metadata an invoice repeats of its subscription say whose it is'
);
rollback to s;

select tests.deliver_invoice(tests.acacia(tests.invoice('{"customer": "cus_meta"}'))
  || jsonb_build_object('subscription_details', jsonb_build_object(
    'metadata', jsonb_build_object('account_id', md5('ann')::uuid))));
select is(
  (select account_id from billing.invoices), md5('ann')::uuid,
  'A5: also where they stood up to acacia'
);
rollback to s;

-- ---- the service: which subscription's access it decides --------------------

select tests.subscribe('ann', 'past_due');
select tests.set_time('2026-01-20');
select is_empty(
  $$ select * from billing.entitlements where valid_until > billing_private.now() $$,
  'past the grace, an unpaid renewal gives nothing'
);
select tests.deliver('evt_1', 'invoice.paid', '2026-01-20', tests.invoice('{"status": "paid"}'));
select isnt_empty(
  $$ select * from billing.entitlements where valid_until > billing_private.now() $$,
  'A5: its payment gives access back, before the subscription''s own event comes'
);
rollback to s;

-- ---- a member, a stranger, a visitor ----------------------------------------

select tests.deliver_invoice(tests.invoice());
select tests.sign_in('ann');
select results_eq(
  $$
    select number, stripe_line_id
    from billing.invoices
    join billing.invoice_lines on invoice_lines.invoice_id = invoices.id
  $$,
  $$ values ('A-0001', 'il_1') $$,
  'a member sees the account''s invoices with their lines'
);
select tests.sign_in('bob');
select is_empty(
  $$ select id from billing.invoices union all select id from billing.invoice_lines $$,
  'a stranger sees none'
);
select tests.sign_out();
select throws_ok(
  $$ select * from billing.invoices $$,
  '42501', 'permission denied for table invoices',
  'a visitor cannot ask'
);

select * from finish();
rollback;
