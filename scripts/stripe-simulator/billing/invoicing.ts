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
  price: Stripe.Price;
  quantity: number;
  subscriptionItem: string;
  proration: boolean;
  /** The pending invoice item a proration comes from. */
  invoiceItem: string | null;
}

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
  subscription: Stripe.Subscription,
  params: NewInvoice,
): Stripe.Invoice {
  const { store } = simulation;
  const pending = pendingItems(simulation, subscription);
  const invoice = store.invoices.add(buildInvoice(simulation, subscription, params));
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

/** Prorations that wait for the subscription's next invoice. */
export function pendingItems(
  { store }: Simulation,
  subscription: Stripe.Subscription,
): Stripe.InvoiceItem[] {
  return store.invoiceItems
    .all()
    .filter(
      (item) =>
        item.invoice === null &&
        item.parent?.subscription_details?.subscription === subscription.id,
    );
}

/** The invoice as it would be, changing nothing. */
export function buildInvoice(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  {
    reason,
    lines,
    window,
    prorationDate,
    discounts = discountsOf(simulation, subscription),
    withPending = true,
  }: NewInvoice,
): Stripe.Invoice {
  const { store, newId, now, rules } = simulation;
  const customer = store.customers.require(idOf(subscription.customer) ?? "");
  const id = newId("in");
  const pending = withPending ? pendingItems(simulation, subscription) : [];
  const newLines = [...pending.map((item) => pendingLine(simulation, item)), ...lines];
  const taken = discountAmounts(
    simulation,
    discounts,
    newLines.map(({ amount, price, proration }) => ({
      amount,
      product: idOf(price.product),
      discountable: !proration,
    })),
  );
  const allLines = newLines.map((line, index) =>
    invoiceLine(simulation, subscription, id, line, taken[index] ?? []),
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
  const automatic = subscription.collection_method === "charge_automatically";
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
    collection_method: subscription.collection_method,
    created: now(),
    currency: subscription.currency,
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
    due_date: automatic ? null : now() + days(subscription.days_until_due ?? 30),
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
    parent: {
      type: "subscription_details",
      quote_details: null,
      subscription_details: {
        metadata: { ...subscription.metadata },
        subscription: subscription.id,
        ...(prorationDate === undefined ? {} : { subscription_proration_date: prorationDate }),
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
    test_clock: idOf(subscription.test_clock),
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

/** Keeps a proration for the subscription's next invoice. */
export function addPendingItem(
  { store, newId, now }: Simulation,
  subscription: Stripe.Subscription,
  line: NewLine,
): void {
  store.invoiceItems.add({
    id: newId("ii"),
    object: "invoiceitem",
    amount: line.amount,
    currency: subscription.currency,
    customer: idOf(subscription.customer) ?? "",
    customer_account: null,
    date: now(),
    description: line.description,
    discountable: false,
    discounts: [],
    invoice: null,
    livemode: false,
    metadata: {},
    net_amount: line.amount,
    parent: {
      type: "subscription_details",
      subscription_details: {
        subscription: subscription.id,
        subscription_item: line.subscriptionItem,
      },
    },
    period: line.period,
    pricing: {
      type: "price_details",
      price_details: { price: line.price.id, product: idOf(line.price.product) ?? "" },
      unit_amount_decimal: line.price.unit_amount_decimal,
    },
    proration: true,
    quantity: line.quantity,
    quantity_decimal: decimal(line.quantity),
    tax_rates: [],
    test_clock: null,
  });
}

function pendingLine({ store }: Simulation, item: Stripe.InvoiceItem): NewLine {
  return {
    amount: item.amount,
    description: item.description ?? "",
    period: item.period,
    price: store.prices.require(idOf(item.pricing?.price_details?.price) ?? ""),
    quantity: item.quantity,
    subscriptionItem: item.parent?.subscription_details?.subscription_item ?? "",
    proration: true,
    invoiceItem: item.id,
  };
}

function invoiceLine(
  { newId }: Simulation,
  subscription: Stripe.Subscription,
  invoice: string,
  line: NewLine,
  discountAmounts: Stripe.InvoiceLineItem.DiscountAmount[],
): Stripe.InvoiceLineItem {
  const { proration } = line;
  return {
    id: newId("il"),
    object: "line_item",
    amount: line.amount,
    currency: subscription.currency,
    description: line.description,
    discount_amounts: discountAmounts,
    discountable: !proration,
    discounts: [],
    invoice,
    livemode: false,
    metadata: { ...subscription.metadata },
    parent: {
      type: "subscription_item_details",
      invoice_item_details: null,
      subscription_item_details: {
        invoice_item: line.invoiceItem,
        proration,
        proration_details: { credited_items: null },
        subscription: subscription.id,
        subscription_item: line.subscriptionItem,
      },
    },
    period: line.period,
    pretax_credit_amounts: discountAmounts.map((each) => ({ ...each, type: "discount" as const })),
    pricing: {
      type: "price_details",
      price_details: { price: line.price.id, product: idOf(line.price.product) ?? "" },
      unit_amount_decimal: line.price.unit_amount_decimal,
    },
    quantity: line.quantity,
    quantity_decimal: decimal(line.quantity),
    subscription: subscription.id,
    subtotal: line.amount,
    taxes: [],
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
