/**
 * Events as endpoints of an older API version get them: the fields that 2025-03-31.basil and later versions moved are
 * put back where they were, so that one history can be had in both shapes.
 */
import type Stripe from "stripe";
import { idOf } from "./ids.ts";
import { previousAttributes, snapshot, type Json, type JsonHash } from "./snapshots.ts";
import type { Store } from "./store.ts";

/** The version everything here is written in. */
export const apiVersion = "2026-10-28.endive";

/** The last version before the fields moved. */
export const oldApiVersion = "2025-02-24.acacia";

/** Versions an endpoint may be pinned to; any before basil has acacia's shapes here. */
export function isOldVersion(version: string): boolean {
  return version < "2025-03-31";
}

/** The event as an endpoint pinned to `version` would have got it: the same id, in that version's shape. */
export function eventAs(store: Store, event: Stripe.Event, version: string): Stripe.Event {
  if (event.api_version === version) return event;
  if (!isOldVersion(version)) return { ...event, api_version: version };
  const object = snapshot(event.data.object);
  const previous = event.data.previous_attributes as JsonHash | undefined;
  const context: Context = { store, at: event.created };
  const shown = oldShape(context, object);
  const changed =
    previous === undefined
      ? undefined
      : previousAttributes(oldShape(context, overlaid(object, previous)), shown);
  return {
    ...event,
    api_version: version,
    data: {
      object: shown,
      ...(changed === undefined ? {} : { previous_attributes: changed }),
    },
  } as unknown as Stripe.Event;
}

/** The object as it was before its update. */
function overlaid(object: JsonHash, previous: JsonHash): JsonHash {
  const before = { ...object };
  for (const [key, value] of Object.entries(previous)) {
    const current = before[key];
    before[key] = isHash(current) && isHash(value) ? overlaid(current, value) : value;
  }
  return before;
}

interface Context {
  store: Store;
  /** The event's moment: what came into being later is not seen yet. */
  at: number;
}

type Reshape = (context: Context, object: JsonHash) => JsonHash;

const reshapers: Record<string, Reshape> = {
  subscription: oldSubscription,
  subscription_item: oldItem,
  invoice: oldInvoice,
  line_item: oldLine,
  invoiceitem: oldInvoiceItem,
  charge: oldCharge,
  payment_intent: oldPaymentIntent,
  discount: oldDiscount,
  promotion_code: oldPromotionCode,
  price: oldPrice,
  "checkout.session": oldSession,
};

/** Fields that no object had before basil. */
const newFields = new Set([
  "allowed_payment_method_types",
  "billing_mode",
  "billing_schedules",
  "current_trial",
  "customer_account",
  "integration_identifier",
  "managed_payments",
  "origin_context",
  "pause_schedules",
  "payment_record",
  "pretax_credit_amounts",
  "quantity_decimal",
  "status_details",
  "total_pretax_credit_amounts",
]);

function oldShape(context: Context, object: JsonHash): JsonHash {
  const kept = Object.entries(object).filter(([key]) => !newFields.has(key));
  const reshape = reshapers[String(object["object"])];
  const own =
    reshape === undefined ? Object.fromEntries(kept) : reshape(context, Object.fromEntries(kept));
  return Object.fromEntries(
    Object.entries(own).map(([key, value]) => [key, oldValue(context, value)]),
  );
}

function oldValue(context: Context, value: Json): Json {
  if (Array.isArray(value)) return value.map((member) => oldValue(context, member));
  return isHash(value) ? oldShape(context, value) : value;
}

function oldSubscription({ store }: Context, subscription: JsonHash): JsonHash {
  const items = listOf(subscription["items"]);
  const [first] = items;
  const [discount] = arrayOf(subscription["discounts"]);
  const ends = items.map((item) => Number(item["current_period_end"]));
  return {
    ...subscription,
    current_period_start: first?.["current_period_start"] ?? null,
    current_period_end: ends.length === 0 ? null : Math.min(...ends),
    discount: discount === undefined ? null : found(store, discount),
    plan: items.length === 1 ? (first?.["plan"] ?? null) : null,
    quantity: items.length === 1 ? (first?.["quantity"] ?? null) : null,
  };
}

function oldItem(_context: Context, item: JsonHash): JsonHash {
  const { current_period_start: _start, current_period_end: _end, ...rest } = item;
  return rest;
}

function oldInvoice(context: Context, invoice: JsonHash): JsonHash {
  const { parent, total_taxes: _taxes, amount_overpaid: _overpaid, ...rest } = invoice;
  const details = hashOf(hashOf(parent)["subscription_details"]);
  const payment = paymentOf(context, invoice);
  const [discount] = arrayOf(invoice["discounts"]);
  return {
    ...rest,
    charge: payment.charge,
    discount: discount === undefined ? null : found(context.store, discount),
    paid: invoice["status"] === "paid",
    paid_out_of_band: Number(invoice["amount_paid_off_stripe"] ?? 0) > 0,
    payment_intent: payment.intent,
    quote: null,
    subscription: details["subscription"] ?? null,
    subscription_details: { metadata: details["metadata"] ?? null },
    ...(details["subscription_proration_date"] === undefined
      ? {}
      : { subscription_proration_date: details["subscription_proration_date"] }),
    tax: null,
    total_tax_amounts: [],
  };
}

/** What the invoice was being paid with at that moment; a draft waits for nothing yet. */
function paymentOf(
  { store, at }: Context,
  invoice: JsonHash,
): { intent: string | null; charge: string | null } {
  if (invoice["status"] === "draft") return { intent: null, charge: null };
  const payment = store.invoicePayments.all().find((each) => each.invoice === invoice["id"]);
  const intent = idOf(payment?.payment.payment_intent);
  const charge =
    intent === null || invoice["attempted"] !== true
      ? undefined
      : store.charges
          .all()
          .findLast((each) => each.payment_intent === intent && each.created <= at);
  return { intent, charge: charge?.id ?? null };
}

function oldLine({ store }: Context, line: JsonHash): JsonHash {
  const { parent, pricing, taxes: _taxes, subtotal: _subtotal, ...rest } = line;
  const details = hashOf(hashOf(parent)["subscription_item_details"]);
  return {
    ...rest,
    amount_excluding_tax: line["amount"] ?? null,
    ...(details["invoice_item"] ? { invoice_item: details["invoice_item"] } : {}),
    ...priceOf(store, pricing),
    proration: details["proration"] ?? false,
    proration_details: details["proration_details"] ?? { credited_items: null },
    subscription: details["subscription"] ?? null,
    subscription_item: details["subscription_item"] ?? null,
    tax_amounts: [],
    tax_rates: [],
    type: details["invoice_item"] ? "invoiceitem" : "subscription",
    unit_amount_excluding_tax: hashOf(pricing)["unit_amount_decimal"] ?? null,
  };
}

function oldInvoiceItem({ store }: Context, item: JsonHash): JsonHash {
  const { parent, pricing, net_amount: _net, ...rest } = item;
  const details = hashOf(hashOf(parent)["subscription_details"]);
  return {
    ...rest,
    ...priceOf(store, pricing),
    subscription: details["subscription"] ?? null,
    subscription_item: details["subscription_item"] ?? null,
    unit_amount: null,
    unit_amount_decimal: hashOf(pricing)["unit_amount_decimal"] ?? null,
  };
}

/** The whole price and its twin, the plan, where newer versions name an id. */
function priceOf(store: Store, pricing: Json | undefined): JsonHash {
  const id = hashOf(hashOf(pricing)["price_details"])["price"];
  const price = typeof id === "string" ? store.prices.get(id) : undefined;
  if (price === undefined) return { price: null, plan: null };
  const shown = snapshot(price);
  const recurring = hashOf(shown["recurring"]);
  return {
    price: shown,
    plan:
      shown["recurring"] === null
        ? null
        : {
            id: price.id,
            object: "plan",
            active: price.active,
            aggregate_usage: null,
            amount: price.unit_amount,
            amount_decimal: shown["unit_amount_decimal"] ?? null,
            billing_scheme: price.billing_scheme,
            created: price.created,
            currency: price.currency,
            interval: recurring["interval"] ?? null,
            interval_count: recurring["interval_count"] ?? null,
            livemode: false,
            metadata: shown["metadata"] ?? {},
            nickname: price.nickname,
            product: idOf(price.product),
            usage_type: recurring["usage_type"] ?? null,
          },
  };
}

function oldCharge(context: Context, charge: JsonHash): JsonHash {
  return { ...charge, invoice: invoiceOf(context, charge["payment_intent"]) };
}

function oldPaymentIntent(context: Context, intent: JsonHash): JsonHash {
  return { ...intent, invoice: invoiceOf(context, intent["id"]) };
}

function invoiceOf({ store }: Context, intent: Json | undefined): string | null {
  const payment = store.invoicePayments
    .all()
    .find((each) => each.payment.payment_intent === intent);
  return idOf(payment?.invoice);
}

function oldDiscount({ store }: Context, discount: JsonHash): JsonHash {
  const { source, subscription_item: _item, ...rest } = discount;
  return { ...rest, coupon: found(store, hashOf(source)["coupon"] ?? null) };
}

function oldPromotionCode({ store }: Context, code: JsonHash): JsonHash {
  const { promotion, ...rest } = code;
  return { ...rest, coupon: found(store, hashOf(promotion)["coupon"] ?? null) };
}

function oldPrice(_context: Context, price: JsonHash): JsonHash {
  return isHash(price["recurring"] ?? null)
    ? { ...price, recurring: { ...hashOf(price["recurring"]), aggregate_usage: null } }
    : price;
}

function oldSession(_context: Context, session: JsonHash): JsonHash {
  return { ...session, ui_mode: "hosted" };
}

/** The object an id stands for, as these versions showed it whole. */
function found(store: Store, reference: Json): Json {
  if (typeof reference !== "string") return reference;
  const object = store.couponOf(reference) ?? store.find(reference);
  return object === undefined ? reference : snapshot(object);
}

function listOf(list: Json | undefined): JsonHash[] {
  return arrayOf(hashOf(list)["data"]).filter(isHash);
}

function arrayOf(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : [];
}

function hashOf(value: Json | undefined): JsonHash {
  return isHash(value) ? value : {};
}

function isHash(value: Json | undefined): value is JsonHash {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
