/** What is stored of Stripe's customers, in a form in which two copies of one life can be compared. */
import type { Client } from "pg";
import { copyMark } from "./stripe-history.ts";

export interface StoredRow {
  /** The table, or what is asked of it. */
  of: string;
  /** Stripe's id where there is one. */
  key: string;
  row: Record<string, unknown>;
}

// Our own ids and the moments of recording are left out: they differ by nature.
const storedRows = `
  select 'customers' as of, stripe_customer_id as key,
    to_jsonb(customers) - '{id,created_at}'::text[] as row
  from billing.customers
  union all
  select 'payment_methods', stripe_payment_method_id,
    to_jsonb(payment_methods) - '{id,created_at,fingerprint_hash}'::text[]
  from billing.payment_methods
  union all
  select 'subscriptions', stripe_subscription_id,
    to_jsonb(subscriptions) - '{id,created_at,price_id}'::text[]
      || jsonb_build_object('price', prices.stripe_price_id)
  from billing.subscriptions
  left join billing.prices on prices.id = subscriptions.price_id
  union all
  select 'subscription_items', stripe_subscription_item_id,
    to_jsonb(subscription_items) - '{id,subscription_id,price_id}'::text[]
      || jsonb_build_object(
        'subscription', stripe_subscription_id, 'price', prices.stripe_price_id)
  from billing.subscription_items
  join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
  left join billing.prices on prices.id = subscription_items.price_id
  union all
  select 'invoices', stripe_invoice_id, to_jsonb(invoices) - '{id,created_at}'::text[]
  from billing.invoices
  union all
  select 'invoice_lines', stripe_line_id,
    to_jsonb(invoice_lines) - '{id,invoice_id}'::text[]
      || jsonb_build_object('invoice', stripe_invoice_id)
  from billing.invoice_lines
  join billing.invoices on invoices.id = invoice_lines.invoice_id
  union all
  select 'payments', stripe_payment_key, to_jsonb(payments) - 'id'
  from billing.payments
  union all
  select 'refunds', stripe_refund_id, to_jsonb(refunds) - '{id,created_at}'::text[]
  from billing.refunds
  union all
  select 'coupons', stripe_coupon_id, to_jsonb(coupons) - '{id,created_at}'::text[]
  from billing.coupons
  union all
  select 'promotion_codes', stripe_promotion_code_id,
    to_jsonb(promotion_codes) - '{id,created_at}'::text[]
  from billing_private.promotion_codes
  union all
  select 'discounts', stripe_discount_id, to_jsonb(discounts) - '{id,created_at}'::text[]
  from billing.discounts
  union all
  select 'disputes', stripe_dispute_id, to_jsonb(disputes) - '{id,created_at}'::text[]
  from billing.disputes
  union all
  select 'early_fraud_warnings', stripe_early_fraud_warning_id,
    to_jsonb(early_fraud_warnings) - '{id,created_at}'::text[]
  from billing_private.early_fraud_warnings
  union all
  select 'credit_notes', stripe_credit_note_id, to_jsonb(credit_notes) - '{id,created_at}'::text[]
  from billing.credit_notes
  union all
  select 'subscription_schedules', stripe_schedule_id,
    to_jsonb(subscription_schedules) - '{id,created_at}'::text[]
  from billing.subscription_schedules
  union all
  select 'setup_intents', stripe_setup_intent_id,
    to_jsonb(setup_intents) - '{id,created_at}'::text[]
  from billing.setup_intents
  union all
  select 'tax_ids', stripe_tax_id, to_jsonb(tax_ids) - '{id,created_at}'::text[]
  from billing.tax_ids
  union all
  select 'checkout_sessions', stripe_session_id,
    to_jsonb(checkout_sessions) - '{price_id,created_at}'::text[]
  from billing.checkout_sessions
  union all
  select 'plans', stripe_product_id, to_jsonb(plans) - '{id,created_at}'::text[]
  from billing.plans
  union all
  select 'prices', stripe_price_id,
    to_jsonb(prices) - '{id,created_at,plan_id}'::text[] || jsonb_build_object('plan', plans.key)
  from billing.prices
  left join billing.plans on plans.id = prices.plan_id
  union all
  select 'entitlements',
    entitlements.feature_key || ' of ' || stripe_subscription_item_id,
    to_jsonb(entitlements) - '{source_id,plan_id,recorded_at}'::text[]
      || jsonb_build_object('plan', plans.key)
  from billing.entitlements
  join billing.subscription_items on subscription_items.id = entitlements.source_id
  join billing.plans on plans.id = entitlements.plan_id
  union all
  select 'profiles', accounts.name, to_jsonb(profiles) - 'updated_at'
  from billing.profiles
  join billing.accounts on accounts.id = profiles.account_id
  union all
  select 'newest snapshots', object_id,
    jsonb_build_object(
      'event', event_id, 'is_final', is_final, 'is_ambiguous', is_ambiguous)
  from billing_private.stripe_objects`;

/** All rows of copies of lives, by seed; within one life by table and key. */
export async function readStoredRows(
  client: Client,
  copy: string,
): Promise<Map<number, StoredRow[]>> {
  const { rows } = await client.query<StoredRow>(
    `select * from (${storedRows}) as stored
    where key like '%' || $1
    order by of, key`,
    [`${copyMark}${copy}`],
  );
  const bySeed = new Map<number, StoredRow[]>();
  for (const row of rows) {
    const seed = Number(/_(\d+)(?:_\d+)?~/.exec(row.key)?.[1]);
    bySeed.set(seed, [...(bySeed.get(seed) ?? []), row]);
  }
  return bySeed;
}
