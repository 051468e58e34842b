-- Invoices, lines, payments, refunds and payment methods: mirrors that store what Stripe says.
begin;
\ir ../helpers.psql
select plan(24);

select tests.catalog();
select billing_private.ensure_account(md5('ann')::uuid);

-- ---- invoices ---------------------------------------------------------------

prepare add_invoice(text, bigint) as
insert into billing.invoices (
  stripe_invoice_id, currency, subtotal_minor, total_minor, amount_due_minor, amount_paid_minor,
  amount_remaining_minor
)
values ($1, 'usd', $2, $2, $2, 0, $2);

select lives_ok(
  $$ execute add_invoice('in_early', 1000) $$,
  'an invoice is stored before anybody knows whose it is'
);

select lives_ok($$ execute add_invoice('in_credit', -500) $$, 'an invoice may give money back');
select lives_ok($$ execute add_invoice('in_nothing', 0) $$, 'or be about nothing');

select lives_ok(
  $$ execute add_invoice('in_large', 9223372036854775807) $$,
  'amounts have room for any currency'
);

select throws_ok(
  $$ execute add_invoice('in_early', 1000) $$,
  '23505', 'duplicate key value violates unique constraint "invoices_stripe_invoice_id_key"',
  'an invoice of Stripe''s is stored once'
);

select lives_ok(
  $$ update billing.invoices set status = 'evaporated' where stripe_invoice_id = 'in_early' $$,
  'a status nobody knows is stored: Stripe''s vocabulary is open'
);

select lives_ok(
  $$
    update billing.invoices
    set stripe_customer_id = 'cus_unknown', stripe_subscription_id = 'sub_unknown'
    where stripe_invoice_id = 'in_early'
  $$,
  'an invoice may name a customer and a subscription that have not come yet'
);

update billing.invoices set account_id = md5('ann')::uuid where stripe_invoice_id = 'in_early';
select throws_like(
  $$ delete from billing.accounts where id = md5('ann')::uuid $$,
  '%"invoices_account_id_fkey"%',
  'B5: an account with an invoice is not deleted'
);

-- ---- lines ------------------------------------------------------------------

prepare add_line(text, text, bigint) as
insert into billing.invoice_lines (invoice_id, stripe_line_id, amount_minor, currency)
select id, $2, $3, 'usd' from billing.invoices where stripe_invoice_id = $1;

select lives_ok($$ execute add_line('in_early', 'il_1', 1000) $$, 'an invoice has lines');
select lives_ok($$ execute add_line('in_early', 'il_2', -200) $$, 'a line may give money back');
select lives_ok(
  $$ execute add_line('in_credit', 'il_1', 1000) $$,
  'a line of another invoice may have the same id'
);

select throws_ok(
  $$ execute add_line('in_early', 'il_1', 1000) $$,
  '23505', 'duplicate key value violates unique constraint '
    '"invoice_lines_invoice_id_stripe_line_id_key"',
  'a line is stored once for each invoice'
);

select is(
  (select is_proration from billing.invoice_lines where stripe_line_id = 'il_2'), false,
  'a line is no proration unless it says so'
);

select throws_ok(
  $$
    insert into billing.invoice_lines (invoice_id, amount_minor, currency)
    values (md5('none')::uuid, 1, 'usd')
  $$,
  '23503', 'insert or update on table "invoice_lines" violates foreign key constraint '
    '"invoice_lines_invoice_id_fkey"',
  'a line is part of an invoice'
);

delete from billing.invoices where stripe_invoice_id = 'in_credit';
select results_eq(
  'select count(*) from billing.invoice_lines', 'select 2::bigint',
  'lines go with their invoice'
);

-- ---- payments ---------------------------------------------------------------

prepare add_payment(text, text) as
insert into billing.payments (stripe_payment_key, status, amount_minor, currency)
values ($1, $2, 1000, 'usd');

select lives_ok(
  $$ execute add_payment('pi_1', null) $$,
  'a payment may be known by its amount before its status'
);

select lives_ok(
  $$ execute add_payment('ch_1', 'vaporized') $$,
  'a charge without an intent is a payment, whatever its status'
);

select row_eq(
  $$
    select amount_received_minor, amount_refunded_minor, is_disputed, paid_at
    from billing.payments
    where stripe_payment_key = 'pi_1'
  $$,
  row(0::bigint, 0::bigint, false, null::timestamptz),
  'nothing is received, refunded or disputed before Stripe says so'
);

select throws_ok(
  $$ execute add_payment('pi_1', 'succeeded') $$,
  '23505', 'duplicate key value violates unique constraint "payments_stripe_payment_key_key"',
  'an intent and its charges are one payment'
);

-- ---- refunds ----------------------------------------------------------------

prepare add_refund(text, text) as
insert into billing.refunds (stripe_refund_id, stripe_payment_key, amount_minor, currency)
values ($1, $2, 100, 'usd');

select lives_ok(
  $$ execute add_refund('re_1', 'pi_not_here_yet') $$,
  'a refund may come before its payment'
);

select lives_ok(
  $$ execute add_refund('re_2', 'pi_not_here_yet') $$,
  'a payment may be refunded in parts'
);

select throws_ok(
  $$ execute add_refund('re_1', 'pi_1') $$,
  '23505', 'duplicate key value violates unique constraint "refunds_stripe_refund_id_key"',
  'a refund is stored once'
);

-- ---- payment methods --------------------------------------------------------

prepare add_method(text, text) as
insert into billing.payment_methods (stripe_payment_method_id, type) values ($1, $2);

select lives_ok(
  $$ execute add_method('pm_1', 'carrier_pigeon') $$,
  'a payment method may be of any kind'
);

select throws_ok(
  $$ execute add_method('pm_1', 'card') $$,
  '23505', 'duplicate key value violates unique constraint '
    '"payment_methods_stripe_payment_method_id_key"',
  'a payment method is stored once'
);

select * from finish();
rollback;
