/** Invoices that somebody makes by hand, and the items they are made of. */
import type Stripe from "stripe";
import {
  addPendingItem,
  draftInvoice,
  finalizeInvoice,
  invoiceLine,
  pendingLine,
  type Billed,
} from "../billing/invoicing.ts";
import { amountFor } from "../billing/amounts.ts";
import { invalidRequest } from "../errors.ts";
import {
  flag,
  hash,
  integer,
  metadata,
  natural,
  oneOf,
  required,
  text,
  type Params,
} from "../http/params.ts";
import { changedMetadata, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";

const newItem = {
  customer: required(text),
  amount: integer,
  currency: text,
  description: text,
  invoice: text,
  subscription: text,
  quantity: natural,
  pricing: hash({ price: required(text) }),
  period: hash({ start: required(natural), end: required(natural) }),
  metadata,
};

/** The customer, or one of its subscriptions, as whom an invoice is made for. */
function billedOf(
  { store }: Simulation,
  customerId: string,
  subscriptionId: string | undefined,
  currency: string,
): Billed {
  const customer = store.customers.require(customerId, "customer");
  if (subscriptionId !== undefined) {
    const subscription = store.subscriptions.require(subscriptionId, "subscription");
    if (subscription.customer === customer.id) return subscription;
    throw invalidRequest("The subscription does not belong to the customer.", {
      param: "subscription",
    });
  }
  return {
    id: null,
    collection_method: "charge_automatically",
    currency,
    customer: customer.id,
    days_until_due: null,
    discounts: [],
    metadata: {},
    test_clock: idOf(customer.test_clock),
  };
}

function createItem(simulation: Simulation, params: Params<typeof newItem>): Stripe.InvoiceItem {
  const { store, now, emit } = simulation;
  const price =
    params.pricing === undefined
      ? null
      : store.prices.require(params.pricing.price, "pricing[price]");
  if ((price === null) === (params.amount === undefined)) {
    throw invalidRequest("You must pass exactly one of `amount` and `pricing`.");
  }
  const quantity = params.quantity ?? 1;
  const currency = price?.currency ?? params.currency?.toLowerCase() ?? "usd";
  const billed = billedOf(simulation, params.customer, params.subscription, currency);
  const item = addPendingItem(simulation, billed, {
    amount: price === null ? (params.amount ?? 0) : amountFor(store, price, quantity),
    description: params.description ?? "",
    period: params.period ?? { start: now(), end: now() },
    price,
    quantity,
    subscriptionItem: null,
    proration: false,
  });
  item.metadata = changedMetadata({}, params.metadata);
  emit("invoiceitem.created", item);
  if (params.invoice !== undefined) {
    putOnDraft(simulation, item, store.invoices.require(params.invoice, "invoice"), billed);
  }
  return item;
}

/** Adds an item to a draft that is there already. */
function putOnDraft(
  simulation: Simulation,
  item: Stripe.InvoiceItem,
  invoice: Stripe.Invoice,
  billed: Billed,
): void {
  if (invoice.status !== "draft" || invoice.customer !== item.customer) {
    throw invalidRequest("Items can be added to drafts of the same customer only.", {
      param: "invoice",
    });
  }
  item.invoice = invoice.id;
  change(simulation, invoice, () => {
    const line = pendingLine(simulation, item);
    invoice.lines.data.push(invoiceLine(simulation, billed, invoice.id, line, []));
    invoice.subtotal += item.amount;
    invoice.subtotal_excluding_tax = invoice.subtotal;
    invoice.total += item.amount;
    invoice.total_excluding_tax = invoice.total;
    invoice.amount_due = Math.max(0, invoice.total + invoice.starting_balance);
    invoice.amount_remaining = invoice.amount_due;
  });
}

const newInvoice = {
  customer: required(text),
  subscription: text,
  currency: text,
  collection_method: oneOf("charge_automatically", "send_invoice"),
  days_until_due: natural,
  auto_advance: flag,
  description: text,
  metadata,
  pending_invoice_items_behavior: oneOf("exclude", "include"),
};

function createInvoice(simulation: Simulation, params: Params<typeof newInvoice>): Stripe.Invoice {
  const { now, emit } = simulation;
  const currency = params.currency?.toLowerCase() ?? "usd";
  const billed = {
    ...billedOf(simulation, params.customer, params.subscription, currency),
    collection_method: params.collection_method ?? "charge_automatically",
    days_until_due: params.days_until_due ?? null,
  };
  const invoice = draftInvoice(simulation, billed, {
    reason: "manual",
    lines: [],
    window: { start: now(), end: now() },
    withPending:
      params.pending_invoice_items_behavior === "include" || params.subscription !== undefined,
  });
  invoice.auto_advance = params.auto_advance ?? false;
  if (!invoice.auto_advance) {
    invoice.automatically_finalizes_at = null;
    invoice.next_payment_attempt = null;
  }
  invoice.description = params.description ?? null;
  invoice.metadata = changedMetadata({}, params.metadata);
  emit("invoice.created", invoice);
  return invoice;
}

export const oneOffInvoiceRoutes = [
  route("POST /v1/invoiceitems", newItem, createItem),

  route("DELETE /v1/invoiceitems/:id", {}, ({ store, emit }, _params, id) => {
    const item = store.invoiceItems.require(id);
    if (item.invoice !== null) {
      throw invalidRequest("This invoice item is on an invoice already and cannot be deleted.");
    }
    emit("invoiceitem.deleted", item);
    return store.invoiceItems.remove(item);
  }),

  route("POST /v1/invoices", newInvoice, createInvoice),

  route("DELETE /v1/invoices/:id", {}, ({ store, emit }, _params, id) => {
    const invoice = store.invoices.require(id);
    if (invoice.status !== "draft" || invoice.parent !== null) {
      throw invalidRequest("You can only delete draft invoices that no subscription made.");
    }
    for (const item of store.invoiceItems.all())
      if (item.invoice === id) store.invoiceItems.remove(item);
    emit("invoice.deleted", invoice);
    return store.invoices.remove(invoice);
  }),

  route("POST /v1/invoices/:id/send", {}, (simulation, _params, id) => {
    const invoice = simulation.store.invoices.require(id);
    if (invoice.status === "draft") finalizeInvoice(simulation, invoice);
    simulation.emit("invoice.sent", invoice);
    return invoice;
  }),
];
