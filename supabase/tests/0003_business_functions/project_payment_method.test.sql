-- billing_private.project_payment_method(): what Stripe shows of a card, and when it was taken off.
begin;
\ir ../helpers.psql
select plan(15);

select tests.catalog();
select tests.set_time('2026-01-15');
select tests.account('ann');

create function tests.method(p_type text, p_at timestamptz, p_extra jsonb,
  p_previous jsonb default null)
returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_type || p_at::text || p_extra), 'payment_method.' || p_type,
    p_at, '{"id": "pm_1", "object": "payment_method", "type": "card", "customer": "cus_ann",
      "card": {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2030,
        "fingerprint": "f"}}' || p_extra, p_previous);
$$;

savepoint s;

-- ---- the service ------------------------------------------------------------

select is(tests.method('attached', '2026-01-10', '{}'), 'applied', 'a payment method is applied');
select results_eq(
  $$
    select account_id, type, card_brand, card_last4, card_exp_month, card_exp_year, detached_at,
      stripe_customer_id
    from billing.payment_methods
  $$,
  $$
    values (md5('ann')::uuid, 'card', 'visa', '4242', 12, 2030, null::timestamptz, 'cus_ann')
  $$,
  'of a card its brand, last four digits and expiry are kept'
);
select tests.method('automatically_updated', '2026-01-11',
  '{"card": {"brand": "amex", "last4": "1881", "exp_month": 1, "exp_year": 2034}}');
select results_eq(
  $$ select card_brand, card_last4, card_exp_month, card_exp_year from billing.payment_methods $$,
  $$ values ('amex', '1881', 1, 2034) $$,
  'a card its bank has replaced is followed'
);
select is(
  tests.method('detached', '2026-01-12', '{"customer": null}', '{"customer": "cus_ann"}'),
  'applied',
  'E10: taking a card off is applied'
);
select results_eq(
  $$ select account_id, detached_at, stripe_customer_id from billing.payment_methods $$,
  $$ values (md5('ann')::uuid, '2026-01-12 00:00+00'::timestamptz, 'cus_ann') $$,
  'E10: the row stays, with the customer it was attached to'
);
rollback to s;

select tests.method('detached', '2026-01-12', '{"customer": null}', '{"customer": "cus_ann"}');
select is(
  (select account_id from billing.payment_methods), md5('ann')::uuid,
  'E10: a card first heard of when it is taken off is its last customer''s'
);
rollback to s;

select tests.method('attached', '2026-01-10', '{}');
update billing.customers
set stripe_default_payment_method_id = 'pm_1'
where stripe_customer_id = 'cus_ann';
select tests.method('updated', '2026-01-11', '{}');
select is(
  (select stripe_default_payment_method_id from billing.customers), 'pm_1',
  'a default card that is edited stays the default'
);
select tests.method('detached', '2026-01-12', '{"customer": null}');
select is(
  (select stripe_default_payment_method_id from billing.customers), null,
  'E10: a card that was taken off is nobody''s default'
);
rollback to s;

select tests.method('attached', '2026-01-10', '{}');
select tests.method('updated', '2026-01-12', '{"customer": null}');
select results_eq(
  $$
    select stripe_customer_id, detached_at from billing.payment_methods
  $$,
  $$ values ('cus_ann', '2026-01-12 00:00+00'::timestamptz) $$,
  'E10: a card that is found to be nobody''s any more was taken off, though its event was missed'
);
rollback to s;

select is(
  tests.method('attached', '2026-01-10', '{"type": "sepa_debit", "card": null,
    "sepa_debit": {"last4": "3000"}, "customer": {"id": "cus_ann", "object": "customer"}}'),
  'applied',
  'D11: a payment method that is no card, with its customer as an object, is applied'
);
select results_eq(
  $$ select account_id, type, card_brand from billing.payment_methods $$,
  $$ values (md5('ann')::uuid, 'sepa_debit', null) $$,
  'and has no card'
);
rollback to s;

select tests.method('attached', '2026-01-10', '{"customer": "cus_nobody"}');
select is(
  (select account_id from billing.payment_methods), null,
  'a card of an unknown customer is nobody''s yet'
);
rollback to s;

-- ---- a member, a stranger ---------------------------------------------------

select tests.method('attached', '2026-01-10', '{}');
select hasnt_column(
  'billing', 'payment_methods', 'card_fingerprint', 'what identifies a card is not kept'
);
select tests.sign_in('ann');
select is((select count(*) from billing.payment_methods), 1::bigint, 'a member sees the own cards');
select tests.sign_in('bob');
select is_empty($$ select * from billing.payment_methods $$, 'a stranger sees none');

select * from finish();
rollback;
