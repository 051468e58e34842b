/** Stripe's objects and events as its webhooks show them in 2026-10-28.endive, cut to what is of use here. */

export type Json = string | number | boolean | null | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

/** An object of Stripe: whatever else it says, it has an id. */
export type StripeObject = JsonObject & { id: string; object: string };

export interface EventFields {
  id: string;
  type: string;
  /** Seconds since 1970. */
  created: number;
  object: JsonObject;
  previous?: JsonObject;
  /** The API version of the endpoint; the newest where none is named. */
  version?: string;
}

/** The raw body of a webhook request. */
export function eventBody(event: EventFields): string {
  const { id, type, created, object, previous, version = "2026-10-28.endive" } = event;
  return JSON.stringify({
    id,
    object: "event",
    api_version: version,
    created,
    type,
    livemode: false,
    pending_webhooks: 1,
    request: { id: null, idempotency_key: null },
    data: { object, ...(previous === undefined ? {} : { previous_attributes: previous }) },
  });
}

/** Seconds since 1970 of an ISO date or instant in UTC. */
export function second(moment: string): number {
  return Date.parse(moment.length === 10 ? `${moment}T00:00:00Z` : moment) / 1000;
}

export const day = 86_400;
export const month = 30 * day;

/** Fills in what most tests do not care about; `fields` overrides it. */
export function customer(id: string, fields: JsonObject = {}): StripeObject {
  return {
    id,
    object: "customer",
    balance: 0,
    created: second("2026-01-01"),
    currency: null,
    default_source: null,
    delinquent: false,
    email: `${id}@example.com`,
    invoice_settings: { default_payment_method: null },
    livemode: false,
    metadata: {},
    name: "A Reader",
    ...fields,
  };
}

export function subscriptionItem(
  id: string,
  price: string,
  start: number,
  fields: JsonObject = {},
): StripeObject {
  return {
    id,
    object: "subscription_item",
    created: start,
    current_period_start: start,
    current_period_end: start + month,
    discounts: [],
    metadata: {},
    price: {
      id: price,
      object: "price",
      active: true,
      currency: "usd",
      product: `prod_of_${price}`,
    },
    quantity: 1,
    ...fields,
  };
}

export function subscription(
  id: string,
  owner: string,
  items: StripeObject[],
  fields: JsonObject = {},
): StripeObject {
  const created = Number(items[0]?.["current_period_start"] ?? second("2026-01-01"));
  return {
    id,
    object: "subscription",
    billing_cycle_anchor: created,
    billing_mode: { type: "flexible", flexible: { proration_discounts: "included" } },
    cancel_at: null,
    cancel_at_period_end: false,
    canceled_at: null,
    cancellation_details: { comment: null, feedback: null, reason: null },
    collection_method: "charge_automatically",
    created,
    currency: "usd",
    customer: owner,
    default_payment_method: null,
    discounts: [],
    ended_at: null,
    items: listOf(items),
    latest_invoice: null,
    livemode: false,
    metadata: {},
    pause_collection: null,
    pending_update: null,
    schedule: null,
    start_date: created,
    status: "active",
    trial_end: null,
    trial_start: null,
    ...fields,
  };
}

export function invoice(
  id: string,
  owner: string | null,
  paidFor: string | null,
  fields: JsonObject = {},
): StripeObject {
  return {
    id,
    object: "invoice",
    amount_due: 1000,
    amount_paid: 0,
    amount_remaining: 1000,
    attempt_count: 0,
    billing_reason: "subscription_cycle",
    created: second("2026-01-01"),
    currency: "usd",
    customer: owner,
    due_date: null,
    hosted_invoice_url: null,
    invoice_pdf: null,
    lines: listOf([]),
    livemode: false,
    next_payment_attempt: null,
    number: null,
    parent:
      paidFor === null
        ? null
        : {
            type: "subscription_details",
            quote_details: null,
            subscription_details: { metadata: {}, subscription: paidFor },
          },
    status: "draft",
    status_transitions: {
      finalized_at: null,
      marked_uncollectible_at: null,
      paid_at: null,
      voided_at: null,
    },
    subtotal: 1000,
    total: 1000,
    ...fields,
  };
}

export function price(id: string, product: string, fields: JsonObject = {}): StripeObject {
  return {
    id,
    object: "price",
    active: true,
    billing_scheme: "per_unit",
    created: second("2026-01-01"),
    currency: "usd",
    livemode: false,
    lookup_key: null,
    metadata: {},
    product,
    recurring: {
      interval: "month",
      interval_count: 1,
      meter: null,
      trial_period_days: null,
      usage_type: "licensed",
    },
    type: "recurring",
    unit_amount: 1000,
    unit_amount_decimal: "1000",
    ...fields,
  };
}

export function product(id: string, fields: JsonObject = {}): StripeObject {
  return {
    id,
    object: "product",
    active: true,
    created: second("2026-01-01"),
    description: null,
    livemode: false,
    metadata: {},
    name: "A plan",
    ...fields,
  };
}

export function paymentIntent(
  id: string,
  owner: string | null,
  fields: JsonObject = {},
): StripeObject {
  return {
    id,
    object: "payment_intent",
    amount: 1000,
    amount_received: 0,
    created: second("2026-01-01"),
    currency: "usd",
    customer: owner,
    last_payment_error: null,
    latest_charge: null,
    livemode: false,
    metadata: {},
    payment_method: null,
    status: "requires_payment_method",
    ...fields,
  };
}

export function charge(
  id: string,
  owner: string | null,
  intent: string | null,
  fields: JsonObject = {},
): StripeObject {
  return {
    id,
    object: "charge",
    amount: 1000,
    amount_captured: 1000,
    amount_refunded: 0,
    created: second("2026-01-01"),
    currency: "usd",
    customer: owner,
    disputed: false,
    failure_code: null,
    failure_message: null,
    livemode: false,
    outcome: { reason: null, type: "authorized" },
    payment_intent: intent,
    payment_method: null,
    refunded: false,
    status: "succeeded",
    ...fields,
  };
}

export function refund(id: string, intent: string, fields: JsonObject = {}): StripeObject {
  return {
    id,
    object: "refund",
    amount: 500,
    charge: null,
    created: second("2026-01-01"),
    currency: "usd",
    failure_reason: null,
    payment_intent: intent,
    reason: "requested_by_customer",
    status: "succeeded",
    ...fields,
  };
}

export function paymentMethod(
  id: string,
  owner: string | null,
  fields: JsonObject = {},
): StripeObject {
  return {
    id,
    object: "payment_method",
    card: { brand: "visa", exp_month: 12, exp_year: 2030, fingerprint: "print", last4: "4242" },
    created: second("2026-01-01"),
    customer: owner,
    livemode: false,
    metadata: {},
    type: "card",
    ...fields,
  };
}

export function listOf(data: StripeObject[], fields: JsonObject = {}): JsonObject {
  return { object: "list", data, has_more: false, total_count: data.length, ...fields };
}
