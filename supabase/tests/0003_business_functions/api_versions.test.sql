-- Reading objects of every API version: one question each, asked of what 2020-03-02, acacia
-- (2025-02-24), basil (2025-03-31) and endive (2026-10-28) say of the same thing.
begin;
\ir ../helpers.psql
select plan(50);

select tests.catalog();
select tests.set_time('2026-01-15');

-- ---- the owner: a price -----------------------------------------------------

select is(
  billing_private.price_of(item), 'price_1', 'D2: the price of an item ' || version
)
from (values
  ('in 2020', '{"plan": {"id": "price_1", "object": "plan", "product": "prod_1"}}'::jsonb),
  ('of acacia', '{"price": {"id": "price_1"}, "plan": {"id": "price_1"}}'),
  ('of acacia, given as id', '{"price": "price_1", "plan": null}'),
  ('of a line of acacia', '{"price": {"id": "price_1"}, "pricing": null}'),
  ('of a line since basil',
    '{"pricing": {"type": "price_details", "price_details": {
      "price": "price_1", "product": "prod_1"}}}'),
  ('of a line that is expanded', '{"pricing": {"price_details": {"price": {"id": "price_1"}}}}')
) as items (version, item);
select is(
  billing_private.price_of('{"pricing": null, "price": null, "plan": null}'), null,
  'D4: no price is none'
);
select is(billing_private.price_of('{}'), null, 'D4: nor is nothing at all');

-- ---- the owner: an invoice --------------------------------------------------

select is(
  billing_private.subscription_of(invoice), expected, 'D4: the subscription of an invoice '
    || version
)
from (values
  ('of acacia', '{"subscription": "sub_1"}'::jsonb, 'sub_1'),
  ('of acacia, expanded', '{"subscription": {"id": "sub_1", "object": "subscription"}}', 'sub_1'),
  ('since basil',
    '{"parent": {"type": "subscription_details", "subscription_details": {
      "subscription": "sub_1"}}}', 'sub_1'),
  ('since basil, expanded',
    '{"parent": {"subscription_details": {"subscription": {"id": "sub_1"}}}}', 'sub_1'),
  ('that is a one-off', '{"parent": null}', null),
  ('made of a quote', '{"parent": {"type": "quote_details", "subscription_details": null}}', null),
  ('that names none', '{"subscription": null, "parent": null}', null)
) as invoices (version, invoice, expected);

select is(
  billing_private.subscription_metadata_of(invoice) ->> 'account_id', expected,
  'D4: whose account an invoice says it is for, ' || version
)
from (values
  ('of acacia', '{"subscription_details": {"metadata": {"account_id": "a"}}}'::jsonb, 'a'),
  ('since basil',
    '{"parent": {"subscription_details": {"metadata": {"account_id": "a"}}}}', 'a'),
  ('where nobody says', '{"parent": {"subscription_details": {"metadata": null}}}', null),
  ('that is a one-off', '{"parent": null, "subscription_details": null}', null)
) as invoices (version, invoice, expected);

select is(billing_private.tax_of(invoice), expected, 'D2: the tax on an invoice ' || version)
from (values
  ('of acacia', '{"tax": 190, "total_tax_amounts": [{"amount": 190}]}'::jsonb, 190::bigint),
  ('since basil', '{"total_taxes": [{"amount": 150}, {"amount": 40}]}', 190),
  ('without tax, of acacia', '{"tax": null}', 0),
  ('without tax, since basil', '{"total_taxes": []}', 0),
  ('that does not say', '{"total_taxes": null}', 0),
  ('that is large', '{"total_taxes": [{"amount": 3000000000}, {"amount": "x"}]}', 3000000000)
) as invoices (version, invoice, expected);

-- ---- the owner: a line ------------------------------------------------------

select is(billing_private.item_of(line), expected, 'D2: the item of a line ' || version)
from (values
  ('of acacia', '{"type": "subscription", "subscription_item": "si_1"}'::jsonb, 'si_1'),
  ('since basil',
    '{"parent": {"type": "subscription_item_details", "subscription_item_details": {
      "subscription_item": "si_1"}}}', 'si_1'),
  ('of something else', '{"parent": {"type": "invoice_item_details", "invoice_item_details": {}}}',
    null)
) as lines (version, line, expected);

select is(billing_private.is_proration(line), expected, 'D2: a line ' || version)
from (values
  ('of acacia that prorates', '{"proration": true}'::jsonb, true),
  ('of acacia that does not', '{"proration": false}', false),
  ('since basil that prorates',
    '{"parent": {"subscription_item_details": {"proration": true}}}', true),
  ('since basil of an invoice item that prorates',
    '{"parent": {"subscription_item_details": null, "invoice_item_details": {"proration": true}}}',
    true),
  ('since basil that does not',
    '{"parent": {"subscription_item_details": {"proration": false}}}', false),
  ('without a parent', '{"parent": null}', false)
) as lines (version, line, expected);

-- ---- the owner: a period ----------------------------------------------------

select is(
  period_of::text, expected, 'D1, D2: the period of an item ' || version
)
from (values
  ('of acacia', '{}'::jsonb,
    '{"current_period_start": 1768003200, "current_period_end": 1770681600}'::jsonb,
    '("2026-01-10 00:00:00+00","2026-02-10 00:00:00+00")'),
  ('since basil', '{"current_period_start": 1768003200, "current_period_end": 1770681600}', '{}',
    '("2026-01-10 00:00:00+00","2026-02-10 00:00:00+00")'),
  ('whose subscription says otherwise',
    '{"current_period_start": 1768003200, "current_period_end": 1770681600}',
    '{"current_period_start": 1, "current_period_end": 2}',
    '("2026-01-10 00:00:00+00","2026-02-10 00:00:00+00")'),
  ('with nulls, of acacia', '{"current_period_start": null, "current_period_end": null}',
    '{"current_period_start": 1768003200, "current_period_end": 1770681600}',
    '("2026-01-10 00:00:00+00","2026-02-10 00:00:00+00")'),
  ('that is nowhere', '{}', '{"current_period_start": null}', '(,)')
) as items (version, item, subscription, expected)
cross join lateral billing_private.period_of(item, subscription);

-- ---- the owner: a discount --------------------------------------------------

select is(billing_private.coupon_of(object), 'C', 'D2: the coupon of a ' || version)
from (values
  ('discount of acacia', '{"coupon": {"id": "C", "object": "coupon"}}'::jsonb),
  ('discount since clover', '{"source": {"type": "coupon", "coupon": "C"}}'),
  ('discount since clover, expanded', '{"source": {"coupon": {"id": "C"}}}'),
  ('promotion code of acacia', '{"code": "X", "coupon": {"id": "C"}}'),
  ('promotion code since clover', '{"code": "X", "promotion": {"type": "coupon", "coupon": "C"}}')
) as objects (version, object);
select is(billing_private.coupon_of('{"source": null, "coupon": null}'), null, 'no coupon is none');

-- ---- the owner: a decimal ---------------------------------------------------

select is(billing_private.stripe_decimal('"0.5"'), 0.5, 'D17: half a cent is read from a text');
select is(billing_private.stripe_decimal('12.5'), 12.5, 'D17: and from a number');
select is_empty(
  $$
    select value
    from unnest(array['null', '"x"', '""', '{}', '"1e5"']::jsonb[]) as value
    where billing_private.stripe_decimal(value) is not null
  $$,
  'anything else is unknown, and no error'
);

-- ---- the service: whole objects ---------------------------------------------

-- An endpoint pinned to the old version, and a new one, tell of twins.
create function tests.old_and_new(p_suffix text, p_old boolean) returns text
language plpgsql as $$
begin
  perform billing_private.ensure_account(md5(p_suffix)::uuid);
  perform tests.deliver(
    'evt_sub_' || p_suffix, 'customer.subscription.updated', '2026-01-10',
    jsonb_build_object('id', 'sub_' || p_suffix, 'object', 'subscription',
      'status', 'active', 'customer', 'cus_' || p_suffix, 'currency', 'usd', 'start_date',
      1768003200, 'billing_cycle_anchor', 1768003200, 'metadata', '{}'::jsonb)
    || case
      when p_old then jsonb_build_object(
        'current_period_start', 1768003200, 'current_period_end', 1770681600,
        'discount', jsonb_build_object('id', 'di_' || p_suffix, 'object', 'discount',
          'coupon', jsonb_build_object('id', 'C'), 'start', 1768003200, 'end', null),
        'items', jsonb_build_object('data', jsonb_build_array(jsonb_build_object(
          'id', 'si_' || p_suffix, 'quantity', 2,
          'plan', jsonb_build_object('id', 'price_plus_monthly', 'product', 'prod_plus')))))
      else jsonb_build_object(
        'customer_account', null, 'billing_mode', jsonb_build_object('type', 'flexible'),
        'discounts', jsonb_build_array(jsonb_build_object(
          'id', 'di_' || p_suffix, 'object', 'discount', 'start', 1768003200, 'end', null,
          'source', jsonb_build_object('type', 'coupon', 'coupon', 'C'))),
        'items', jsonb_build_object('has_more', false, 'data', jsonb_build_array(
          jsonb_build_object('id', 'si_' || p_suffix, 'quantity', 2, 'current_trial', null,
          'current_period_start', 1768003200, 'current_period_end', 1770681600,
          'price', jsonb_build_object('id', 'price_plus_monthly', 'product', 'prod_plus')))))
    end,
    null,
    jsonb_build_object(
      'api_version', case when p_old then '2020-03-02' else '2026-10-28.endive' end));
  return tests.deliver(
    'evt_in_' || p_suffix, 'invoice.paid', '2026-01-10',
    jsonb_build_object('id', 'in_' || p_suffix, 'object', 'invoice', 'status', 'paid',
      'customer', 'cus_' || p_suffix, 'currency', 'usd', 'subtotal', 2000, 'total', 2190,
      'amount_due', 2190, 'amount_paid', 2190, 'amount_remaining', 0, 'created', 1768003200)
    || case
      when p_old then jsonb_build_object(
        'subscription', 'sub_' || p_suffix, 'tax', 190,
        'subscription_details', jsonb_build_object('metadata', jsonb_build_object(
          'account_id', md5(p_suffix)::uuid)),
        'lines', jsonb_build_object('data', jsonb_build_array(jsonb_build_object(
          'id', 'il_' || p_suffix, 'amount', 2000, 'currency', 'usd', 'quantity', 2,
          'proration', false, 'subscription_item', 'si_' || p_suffix,
          'plan', jsonb_build_object('id', 'price_plus_monthly'),
          'period', jsonb_build_object('start', 1768003200, 'end', 1770681600)))))
      else jsonb_build_object(
        'total_taxes', jsonb_build_array(jsonb_build_object('amount', 190)),
        'parent', jsonb_build_object('type', 'subscription_details', 'subscription_details',
          jsonb_build_object('subscription', 'sub_' || p_suffix, 'metadata', jsonb_build_object(
            'account_id', md5(p_suffix)::uuid))),
        'lines', jsonb_build_object('has_more', false, 'data', jsonb_build_array(
          jsonb_build_object('id', 'il_' || p_suffix, 'amount', 2000, 'currency', 'usd',
            'quantity', 2, 'pricing', jsonb_build_object('type', 'price_details',
              'price_details', jsonb_build_object('price', 'price_plus_monthly')),
            'parent', jsonb_build_object('type', 'subscription_item_details',
              'subscription_item_details', jsonb_build_object(
                'subscription_item', 'si_' || p_suffix, 'proration', false)),
            'period', jsonb_build_object('start', 1768003200, 'end', 1770681600)))))
    end,
    null,
    jsonb_build_object(
      'api_version', case when p_old then '2020-03-02' else '2026-10-28.endive' end));
end;
$$;

create function tests.rows_of(p_suffix text) returns setof text
language sql as $$
  select replace(replace(contents::text, '_' || p_suffix, ''), md5(p_suffix)::uuid::text, 'x')
  from (
    select to_jsonb(subscriptions) - 'id'
    from billing.subscriptions
    where stripe_subscription_id = 'sub_' || p_suffix
    union all
    select to_jsonb(subscription_items) - 'id' - 'subscription_id'
    from billing.subscription_items
    where stripe_subscription_item_id = 'si_' || p_suffix
    union all
    select to_jsonb(discounts) - 'id'
    from billing.discounts
    where stripe_discount_id = 'di_' || p_suffix
    union all
    select to_jsonb(invoices) - 'id'
    from billing.invoices
    where stripe_invoice_id = 'in_' || p_suffix
    union all
    select to_jsonb(invoice_lines) - 'id' - 'invoice_id'
    from billing.invoice_lines
    where stripe_line_id = 'il_' || p_suffix
    union all
    select to_jsonb(entitlements) - 'source_id'
    from billing.entitlements
    where account_id = md5(p_suffix)::uuid
  ) as stored (contents);
$$;

select tests.old_and_new('old', true);
select tests.old_and_new('new', false);
select is(
  (select count(*) from tests.rows_of('new')), 7::bigint,
  'a subscription, its item, discount, invoice and line, and what they give'
);
select set_eq(
  $$ select * from tests.rows_of('old') $$, $$ select * from tests.rows_of('new') $$,
  'D2, D7: are the same, whichever version tells of them'
);

select * from finish();
rollback;
