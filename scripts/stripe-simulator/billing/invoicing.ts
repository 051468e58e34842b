/** Builds invoices and takes them from draft to open. Who pays them is `collection.ts`. */
import type Stripe from "stripe";
import { cancelPayment, createInvoicePayment } from "../objects/payments.ts";
import { productName } from "../objects/checkout_line_items.ts";
import { usageOf } from "../objects/meters.ts";
import { invalidRequest } from "../errors.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { discountAmounts, discountsOf, removeDiscounts } from "./discounts.ts";
import { amountFor, decimal } from "./amounts.ts";
import { days, type Period } from "./periods.ts";

export interface NewLine {
  amount: number;
  description: string;
  period: Period;
  /** Null for an amount that somebody named. */
  price: Stripe.Price | null;
  quantity: number;
  /** Null for what is not a subscription's. */
  subscriptionItem: string | null;
  proration: boolean;
  /** The pending invoice item a line comes from. */
  invoiceItem: string | null;
}

/** Whom an invoice is for: a subscription, or (without an id) a customer alone. */
export type Billed = Pick<
  Stripe.Subscription,
  | "collection_method"
  | "currency"
  | "customer"
  | "days_until_due"
  | "discounts"
  | "metadata"
  | "test_clock"
> & { id: string | null };

export interface NewInvoice {
  reason: Stripe.Invoice.BillingReason;
  lines: NewLine[];
  /** The window in which pending items were collected; not the period that is paid for. */
  window: Period;
  prorationDate?: number;
  /** In place of the subscription's own, for previews. */
  discounts?: Stripe.Discount[];
  /** Takes the prorations that wait for the next invoice; true unless said. */
  withPending?: boolean;
}

/** The line for one item and period; a metered item is billed for what its meter counted in it. */
export function itemLine(
  simulation: Simulation,
  item: Stripe.SubscriptionItem,
  period: Period,
  { trial = false } = {},
): NewLine {
  const { store } = simulation;
  const name = productName(store, item.price);
  const metered = item.price.recurring?.usage_type === "metered";
  const quantity = metered ? usageOf(simulation, item, period) : (item.quantity ?? 0);
  return {
    amount: trial ? 0 : amountFor(store, item.price, quantity),
    description: trial
      ? `Trial period for ${name}`
      : `${quantity} × ${name} (at ${money(item.price.unit_amount ?? 0, item.price.currency)} / ${item.price.recurring?.interval ?? ""})`,
    period,
    price: item.price,
    quantity,
    subscriptionItem: item.id,
    proration: false,
    invoiceItem: null,
  };
}

export function money(minor: number, currency: string): string {
  const format = new Intl.NumberFormat("en-US", { style: "currency", currency });
  return format.format(minor / 10 ** (format.resolvedOptions().maximumFractionDigits ?? 2));
}

/** Makes a draft that holds the given lines and all pending items; announcing it is the caller's. */
export function draftInvoice(
  simulation: Simulation,
  billed: Billed,
  params: NewInvoice,
): Stripe.Invoice {
  const { store } = simulation;
  const pending = params.withPending === false ? [] : pendingItems(simulation, billed);
  const invoice = store.invoices.add(buildInvoice(simulation, billed, params));
  for (const item of pending) item.invoice = invoice.id;
  for (const line of invoice.lines.data) {
    const details = line.parent?.subscription_item_details;
    if (!details || details.proration) continue;
    store.debited.set(details.subscription_item ?? "", netAmount(line));
  }
  return invoice;
}

/** A line's amount with its discounts taken off. */
function netAmount({ amount, discount_amounts }: Stripe.InvoiceLineItem): number {
  return (discount_amounts ?? []).reduce((sum, each) => sum - each.amount, amount);
}

/** Tells of a new draft. */
export function announceInvoice(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  invoice: Stripe.Invoice,
): void {
  simulation.emit("invoice.created", invoice);
  endSpentDiscounts(simulation, subscription, invoice);
}

/** A discount for one invoice ends with the first one it takes something off. */
function endSpentDiscounts(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  invoice: Stripe.Invoice,
): void {
  const spent = discountsOf(simulation, subscription).filter(({ id, source }) => {
    const coupon = simulation.store.couponOf(idOf(source.coupon) ?? "");
    const used = invoice.total_discount_amounts?.some(
      ({ discount, amount }) => discount === id && amount > 0,
    );
    return coupon?.duration === "once" && used === true;
  });
  removeDiscounts(simulation, subscription, spent);
}

/** What waits for the next invoice: the subscription's own, and its customer's. */
export function pendingItems({ store }: Simulation, billed: Billed): Stripe.InvoiceItem[] {
  const customer = idOf(billed.customer);
  return store.invoiceItems.all().filter((item) => {
    const owner = item.parent?.subscription_details?.subscription ?? null;
    return (
      item.invoice === null &&
      item.customer === customer &&
      item.currency === billed.currency &&
      (owner === null || owner === billed.id)
    );
  });
}

/** The invoice as it would be, changing nothing. */
export function buildInvoice(
  simulation: Simulation,
  billed: Billed,
  {
    reason,
    lines,
    window,
    prorationDate,
    discounts = discountsOf(simulation, billed),
    withPending = true,
  }: NewInvoice,
): Stripe.Invoice {
  const { store, newId, now, rules } = simulation;
  const customer = store.customers.require(idOf(billed.customer) ?? "");
  const id = newId("in");
  const pending = withPending ? pendingItems(simulation, billed) : [];
  const newLines = [...pending.map((item) => pendingLine(simulation, item)), ...lines];
  const taken = discountAmounts(
    simulation,
    discounts,
    newLines.map(({ amount, price, proration }) => ({
      amount,
      product: idOf(price?.product),
      discountable: !proration,
    })),
  );
  const allLines = newLines.map((line, index) =>
    invoiceLine(simulation, billed, id, line, taken[index] ?? []),
  );

  const subtotal = allLines.reduce((sum, { amount }) => sum + amount, 0);
  const totalDiscounts = discounts.map(({ id: discount }) => ({
    discount,
    amount: taken
      .flat()
      .filter((each) => each.discount === discount)
      .reduce((sum, { amount }) => sum + amount, 0),
  }));
  const total = totalDiscounts.reduce((sum, { amount }) => sum - amount, subtotal);
  const due = Math.max(0, total + customer.balance);
  const automatic = billed.collection_method === "charge_automatically";
  return {
    id,
    object: "invoice",
    account_country: "US",
    account_name: "Stripe simulator",
    account_tax_ids: null,
    amount_due: due,
    amount_overpaid: 0,
    amount_paid: 0,
    amount_remaining: due,
    amount_shipping: 0,
    application: null,
    attempt_count: 0,
    attempted: false,
    auto_advance: true,
    automatic_tax: {
      disabled_reason: null,
      enabled: false,
      liability: null,
      provider: null,
      status: null,
    },
    automatically_finalizes_at: now() + rules.finalizeAfter,
    billing_reason: reason,
    collection_method: billed.collection_method,
    created: now(),
    currency: billed.currency,
    custom_fields: null,
    customer: customer.id,
    customer_account: null,
    customer_address: customer.address ?? null,
    customer_email: customer.email,
    customer_name: customer.name ?? null,
    customer_phone: customer.phone ?? null,
    customer_shipping: null,
    customer_tax_exempt: "none",
    customer_tax_ids: [],
    default_payment_method: null,
    default_source: null,
    default_tax_rates: [],
    description: null,
    discounts: discounts.map((discount) => discount.id),
    due_date: automatic ? null : now() + days(billed.days_until_due ?? 30),
    effective_at: null,
    ending_balance: null,
    footer: null,
    from_invoice: null,
    hosted_invoice_url: null,
    invoice_pdf: null,
    issuer: { type: "self" },
    last_finalization_error: null,
    latest_revision: null,
    lines: {
      object: "list",
      data: allLines,
      has_more: false,
      url: `/v1/invoices/${id}/lines`,
    },
    livemode: false,
    metadata: {},
    next_payment_attempt: automatic ? now() + rules.finalizeAfter : null,
    number: null,
    on_behalf_of: null,
    parent:
      billed.id === null
        ? null
        : {
            type: "subscription_details",
            quote_details: null,
            subscription_details: {
              metadata: { ...billed.metadata },
              subscription: billed.id,
              ...(prorationDate === undefined
                ? {}
                : { subscription_proration_date: prorationDate }),
            },
          },
    payment_settings: {
      default_mandate: null,
      payment_method_options: null,
      payment_method_types: null,
    },
    period_end: window.end,
    period_start: window.start,
    post_payment_credit_notes_amount: 0,
    pre_payment_credit_notes_amount: 0,
    receipt_number: null,
    rendering: null,
    shipping_cost: null,
    shipping_details: null,
    starting_balance: customer.balance,
    statement_descriptor: null,
    status: "draft",
    status_transitions: {
      finalized_at: null,
      marked_uncollectible_at: null,
      paid_at: null,
      voided_at: null,
    },
    subtotal,
    subtotal_excluding_tax: subtotal,
    test_clock: idOf(billed.test_clock),
    total,
    total_discount_amounts: totalDiscounts,
    total_excluding_tax: total,
    total_pretax_credit_amounts: totalDiscounts.map((each) => ({
      ...each,
      type: "discount" as const,
    })),
    total_taxes: [],
    webhooks_delivered_at: null,
  };
}

/** Keeps a line for the next invoice. */
export function addPendingItem(
  simulation: Simulation,
  billed: Billed,
  line: Omit<NewLine, "invoiceItem">,
): Stripe.InvoiceItem {
  const { store, newId, now } = simulation;
  return store.invoiceItems.add({
    id: newId("ii"),
    object: "invoiceitem",
    amount: line.amount,
    currency: billed.currency,
    customer: idOf(billed.customer) ?? "",
    customer_account: null,
    date: now(),
    description: line.description,
    discountable: !line.proration,
    discounts: [],
    invoice: null,
    livemode: false,
    metadata: {},
    net_amount: line.amount,
    parent:
      billed.id === null
        ? null
        : {
            type: "subscription_details",
            subscription_details: {
              subscription: billed.id,
              ...(line.subscriptionItem === null
                ? {}
                : { subscription_item: line.subscriptionItem }),
            },
          },
    period: line.period,
    pricing: pricingOf(line),
    proration: line.proration,
    quantity: line.quantity,
    quantity_decimal: decimal(line.quantity),
    tax_rates: [],
    test_clock: idOf(billed.test_clock),
  });
}

function pricingOf({ price, amount, quantity }: Pick<NewLine, "amount" | "price" | "quantity">) {
  if (price !== null) {
    return {
      type: "price_details" as const,
      price_details: { price: price.id, product: idOf(price.product) ?? "" },
      unit_amount_decimal: price.unit_amount_decimal,
    };
  }
  return {
    type: "price_details" as const,
    unit_amount_decimal: decimal(quantity === 0 ? amount : amount / quantity),
  };
}

export function pendingLine({ store }: Simulation, item: Stripe.InvoiceItem): NewLine {
  return {
    amount: item.amount,
    description: item.description ?? "",
    period: item.period,
    price: store.prices.get(idOf(item.pricing?.price_details?.price) ?? "") ?? null,
    quantity: item.quantity,
    subscriptionItem: item.parent?.subscription_details?.subscription_item ?? null,
    proration: item.proration,
    invoiceItem: item.id,
  };
}

export function invoiceLine(
  { newId }: Simulation,
  billed: Billed,
  invoice: string,
  line: NewLine,
  discountAmounts: Stripe.InvoiceLineItem.DiscountAmount[],
): Stripe.InvoiceLineItem {
  const { proration } = line;
  return {
    id: newId("il"),
    object: "line_item",
    amount: line.amount,
    currency: billed.currency,
    description: line.description,
    discount_amounts: discountAmounts,
    discountable: !proration,
    discounts: [],
    invoice,
    livemode: false,
    metadata: { ...billed.metadata },
    parent: parentOf(billed, line),
    period: line.period,
    pretax_credit_amounts: discountAmounts.map((each) => ({ ...each, type: "discount" as const })),
    pricing: pricingOf(line),
    quantity: line.quantity,
    quantity_decimal: decimal(line.quantity),
    subscription: billed.id,
    subtotal: line.amount,
    taxes: [],
  };
}

function parentOf(billed: Billed, line: NewLine): Stripe.InvoiceLineItem.Parent {
  const { proration, subscriptionItem, invoiceItem } = line;
  return subscriptionItem === null || billed.id === null
    ? {
        type: "invoice_item_details",
        invoice_item_details: {
          invoice_item: invoiceItem ?? "",
          proration,
          proration_details: { credited_items: null },
          subscription: billed.id,
        },
        subscription_item_details: null,
      }
    : {
        type: "subscription_item_details",
        invoice_item_details: null,
        subscription_item_details: {
          invoice_item: invoiceItem,
          proration,
          proration_details: { credited_items: null },
          subscription: billed.id,
          subscription_item: subscriptionItem,
        },
      };
}

/** Draft → open: the number, the customer's balance and the payment intent are settled here. */
export function finalizeInvoice(simulation: Simulation, invoice: Stripe.Invoice): void {
  const { store, now, baseUrl } = simulation;
  if (invoice.status !== "draft") {
    throw invalidRequest(
      "This invoice is already finalized, you can't re-finalize a non-draft invoice.",
      {
        code: "invoice_not_editable",
      },
    );
  }
  if (simulation.failingFinalizations > 0) {
    simulation.failingFinalizations -= 1;
    refuseFinalization(simulation, invoice);
    return;
  }
  const customer = store.customers.get(idOf(invoice.customer) ?? "");
  const balance = customer?.balance ?? 0;
  const sequence = customer?.next_invoice_sequence ?? 1;
  const endingBalance = Math.min(0, invoice.total + balance);

  change(
    simulation,
    invoice,
    () => {
      invoice.status = "open";
      invoice.number = `${customer?.invoice_prefix ?? "NONE"}-${String(sequence).padStart(4, "0")}`;
      invoice.starting_balance = balance;
      invoice.ending_balance = endingBalance;
      invoice.amount_due = Math.max(0, invoice.total + balance);
      invoice.amount_remaining = invoice.amount_due;
      invoice.automatically_finalizes_at = null;
      invoice.last_finalization_error = null;
      invoice.effective_at = now();
      invoice.status_transitions.finalized_at = now();
      invoice.hosted_invoice_url = `${baseUrl()}/i/${invoice.id}`;
      invoice.invoice_pdf = `${baseUrl()}/i/${invoice.id}?pdf`;
      if (invoice.amount_due > 0) createInvoicePayment(simulation, invoice);
    },
    "invoice.finalized",
  );
  if (customer !== undefined) {
    customer.next_invoice_sequence = sequence + 1;
    change(simulation, customer, () => {
      customer.balance = endingBalance;
      customer.currency ??= invoice.currency;
    });
  }
}

/** As when the customer's address does not do for its taxes: the invoice stays a draft, and nobody collects it. */
function refuseFinalization(simulation: Simulation, invoice: Stripe.Invoice): void {
  change(
    simulation,
    invoice,
    () => {
      invoice.last_finalization_error = {
        type: "invalid_request_error",
        code: "customer_tax_location_invalid",
        message: "The customer's location isn't recognized.",
      };
      invoice.automatically_finalizes_at = null;
      invoice.next_payment_attempt = null;
    },
    "invoice.finalization_failed",
  );
}

/** Stops automatic collection, as when the subscription ends or its retries are used up. */
export function stopCollecting(simulation: Simulation, invoice: Stripe.Invoice): void {
  change(simulation, invoice, () => {
    invoice.auto_advance = false;
    invoice.next_payment_attempt = null;
    invoice.automatically_finalizes_at = null;
  });
}

export function voidInvoice(simulation: Simulation, invoice: Stripe.Invoice): void {
  cancelPayment(simulation, invoice);
  change(
    simulation,
    invoice,
    () => {
      invoice.status = "void";
      invoice.auto_advance = false;
      invoice.next_payment_attempt = null;
      invoice.status_transitions.voided_at = simulation.now();
    },
    "invoice.voided",
  );
}

export function subscriptionOf(
  { store }: Simulation,
  invoice: Stripe.Invoice,
): Stripe.Subscription | undefined {
  return store.subscriptions.get(idOf(invoice.parent?.subscription_details?.subscription) ?? "");
}
