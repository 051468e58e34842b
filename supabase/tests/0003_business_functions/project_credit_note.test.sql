-- billing_private.project_credit_note(): what was taken off an invoice after it was finalized.
begin;
\ir ../helpers.psql
select plan(12);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

-- As of 2026-10-28.endive.
create function tests.note(p_event text, p_at timestamptz, p_extra jsonb default '{}')
returns text
language sql as $$
  select tests.deliver(
    'evt_' || md5(p_event || p_at::text || p_extra), 'credit_note.' || p_event, p_at,
    '{"id": "cn_1", "object": "credit_note", "status": "issued", "type": "mixed",
      "number": "ABC-0001-CN-01", "reason": "duplicate", "memo": "Sorry", "currency": "usd",
      "amount": 1000, "subtotal": 900, "total": 1000, "pre_payment_amount": 400,
      "post_payment_amount": 600, "out_of_band_amount": 100, "invoice": "in_1",
      "customer": "cus_ann", "customer_balance_transaction": null, "created": 1768176000,
      "effective_at": 1768089600, "voided_at": null, "pdf": "https://pay.example/cn_1.pdf",
      "livemode": false, "metadata": {},
      "refunds": [{"refund": "re_2", "amount_refunded": 300, "type": "refund"},
        {"refund": {"id": "re_1", "object": "refund"}, "amount_refunded": 200, "type": "refund"},
        {"refund": null, "type": "payment_record_refund"}]}' || p_extra);
$$;

savepoint s;

-- ---- the service ------------------------------------------------------------

select is(tests.note('created', '2026-01-12'), 'applied', 'a credit note is applied');
select results_eq(
  $$
    select account_id, number, status, reason, memo, currency, amount_minor, before_payment_minor,
      after_payment_minor, out_of_band_minor, issued_at, effective_at, voided_at, pdf_url,
      stripe_invoice_id, stripe_customer_id
    from billing.credit_notes
  $$,
  $$
    values (md5('ann')::uuid, 'ABC-0001-CN-01', 'issued', 'duplicate', 'Sorry', 'usd', 1000::bigint,
      400::bigint, 600::bigint, 100::bigint, '2026-01-12 00:00+00'::timestamptz,
      '2026-01-11 00:00+00'::timestamptz, null::timestamptz, 'https://pay.example/cn_1.pdf', 'in_1',
      'cus_ann')
  $$,
  'with what it takes off, and off which invoice'
);
select is(
  (select stripe_refund_ids from billing.credit_notes), '{re_1,re_2}',
  'D11: and the refunds it stands for, given as ids or as objects'
);
select tests.note('voided', '2026-01-13', '{"status": "void", "voided_at": 1768262400}');
select tests.note('updated', '2026-01-14', '{"memo": "Told late"}');
select results_eq(
  $$ select status, voided_at, memo from billing.credit_notes $$,
  $$ values ('void', '2026-01-13 00:00+00'::timestamptz, 'Sorry') $$,
  'A6: what is void stays void'
);
rollback to s;

-- Up to acacia: one refund, and a type that says which part it is of.
select tests.note('created', '2026-01-12', '{
  "type": "post_payment", "pre_payment_amount": null, "post_payment_amount": null,
  "refunds": null, "refund": "re_1"}');
select results_eq(
  $$
    select amount_minor, before_payment_minor, after_payment_minor, stripe_refund_ids
    from billing.credit_notes
  $$,
  $$ values (1000::bigint, 0::bigint, 1000::bigint, '{re_1}'::text[]) $$,
  'D2: an older note that gives back is all refund'
);
rollback to s;

select tests.note('created', '2026-01-12', '{
  "type": "pre_payment", "pre_payment_amount": null, "post_payment_amount": null,
  "refunds": null, "refund": null, "out_of_band_amount": null}');
select results_eq(
  $$
    select before_payment_minor, after_payment_minor, out_of_band_minor, stripe_refund_ids
    from billing.credit_notes
  $$,
  $$ values (1000::bigint, 0::bigint, 0::bigint, '{}'::text[]) $$,
  'D2: an older note on an open invoice makes it smaller'
);
rollback to s;

select is(
  tests.note('created', '2026-01-12', '{"customer": "cus_new", "status": "framed"}'), 'applied',
  'C2, D10: a note of an unknown customer, of an unknown status, is stored'
);
select is((select account_id from billing.credit_notes), null, 'and nobody''s yet');
select tests.deliver('evt_cus', 'customer.updated', '2026-01-12', jsonb_build_object(
  'id', 'cus_new', 'object', 'customer',
  'metadata', jsonb_build_object('account_id', md5('ann')::uuid)));
select is(
  (select account_id from billing.credit_notes), md5('ann')::uuid,
  'until its customer is bound'
);
select tests.note('updated', '2026-01-13', '{"customer": "cus_new"}');
select is(
  (select account_id from billing.credit_notes), md5('ann')::uuid, 'and remains the account''s');

-- ---- a member, a stranger ---------------------------------------------------

select tests.sign_in('ann');
select is(
  (select count(*) from billing.credit_notes), 1::bigint,
  'a member sees the account''s credit notes'
);
select tests.sign_in('bob');
select is_empty($$ select * from billing.credit_notes $$, 'a stranger sees none');

select * from finish();
rollback;
