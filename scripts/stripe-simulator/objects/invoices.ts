import type Stripe from "stripe";
import {
  assertPayable,
  collect,
  markPaid,
  markUncollectible,
  voidByRequest,
} from "../billing/collection.ts";
import { amountFor } from "../billing/amounts.ts";
import { discountsParam, offerOf, wantedDiscounts } from "../billing/discounts.ts";
import { finalizeInvoice } from "../billing/invoicing.ts";
import { invalidRequest, notSimulated, StripeApiError } from "../errors.ts";
import {
  flag,
  hash,
  list,
  metadata,
  momentOr,
  natural,
  oneOf,
  range,
  required,
  text,
  unsettable,
  type Params,
} from "../http/params.ts";
import { previewCreation, previewUpdate } from "../billing/preview.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { cardDeclined } from "./declines.ts";
import { usablePaymentMethod } from "./payment_methods.ts";
import { defaultPayment } from "./payments.ts";
import { subscribablePrice } from "./prices.ts";
import { scheduleEnd, trialEndOf } from "./subscriptions.ts";

const prorationBehavior = oneOf("always_invoice", "create_prorations", "none");

export interface PayNow {
  paymentMethod?: string | undefined;
  customerPresent: boolean;
  outOfBand?: boolean;
}

/** Pays an invoice by request. A decline is thrown as Stripe's 402, after the state and its events are written. */
export function payInvoice(
  simulation: Simulation,
  invoice: Stripe.Invoice,
  { paymentMethod, customerPresent, outOfBand = false }: PayNow,
): void {
  assertPayable(invoice);
  if (paymentMethod !== undefined) {
    usablePaymentMethod(simulation, paymentMethod, idOf(invoice.customer) ?? "");
  }
  if (outOfBand) {
    if (invoice.status === "draft") finalizeInvoice(simulation, invoice);
    markPaid(simulation, invoice, { outOfBand: true });
    return;
  }
  const verdict = collect(simulation, invoice, {
    attempt: "manual",
    customerPresent,
    paymentMethod,
  });
  if (verdict === undefined || verdict.paid) return;
  if (verdict.method === undefined) {
    throw invalidRequest(
      "There is no `default_payment_method` set on this Customer or Invoice. Please set one, or pass a `payment_method`.",
    );
  }
  const intent = defaultPayment(simulation, invoice)?.intent;
  throw cardDeclined(verdict.declineCode, {
    charge: idOf(intent?.latest_charge) ?? undefined,
    advice_code: intent?.last_payment_error?.advice_code,
    payment_intent: intent,
    payment_method: verdict.method,
  });
}

const previewSpec = {
  customer: text,
  subscription: text,
  preview_mode: oneOf("next", "recurring"),
  discounts: discountsParam,
  subscription_details: hash({
    items: list(
      hash({
        id: text,
        price: text,
        quantity: natural,
        deleted: flag,
        clear_usage: flag,
        metadata,
      }),
    ),
    proration_behavior: prorationBehavior,
    proration_date: natural,
    billing_cycle_anchor: hash({ type: required(oneOf("now", "unchanged")) }),
    billing_mode: hash({ type: required(oneOf("flexible")) }),
    cancel_at: unsettable(momentOr("min_period_end", "max_period_end")),
    cancel_at_period_end: flag,
    cancel_now: flag,
    metadata,
    resume_at: oneOf("now"),
    trial_end: momentOr("now"),
  }),
};

function createPreview(simulation: Simulation, params: Params<typeof previewSpec>): Stripe.Invoice {
  const { store, now } = simulation;
  const details: Partial<NonNullable<typeof params.subscription_details>> =
    params.subscription_details ?? {};
  if (params.subscription === undefined) return previewNew(simulation, params, details);

  const subscription = store.subscriptions.require(params.subscription, "subscription");
  if (params.customer !== undefined && params.customer !== subscription.customer) {
    throw invalidRequest("The subscription does not belong to the customer.", {
      param: "subscription",
    });
  }
  if (typeof details.trial_end === "number") {
    throw notSimulated("previews that move a trial's end", "subscription_details[trial_end]");
  }
  const planned = structuredClone(subscription);
  scheduleEnd(planned, details, now());
  return previewUpdate(simulation, subscription, {
    items: (details.items ?? []).map(({ metadata: _metadata, ...edit }) => edit),
    prorationBehavior: details.proration_behavior ?? "create_prorations",
    prorationDate: details.proration_date ?? now(),
    restart: details.billing_cycle_anchor?.type === "now",
    endTrial: details.trial_end === "now",
    cancelNow: details.cancel_now === true,
    cancelAt: planned.cancel_at,
    recurringOnly: params.preview_mode === "recurring",
    discounts:
      params.discounts === undefined
        ? undefined
        : wantedDiscounts(simulation, subscription, params.discounts),
  });
}

/** A preview of a subscription that is only being thought of. */
function previewNew(
  simulation: Simulation,
  { customer, discounts }: Params<typeof previewSpec>,
  details: Partial<NonNullable<Params<typeof previewSpec>["subscription_details"]>>,
): Stripe.Invoice {
  if (customer === undefined) {
    throw invalidRequest("You must pass `customer` or `subscription` to preview an invoice.", {
      code: "parameter_missing",
      param: "customer",
    });
  }
  const items = (details.items ?? []).map(({ price, quantity }, index) => ({
    price: subscribablePrice(
      simulation,
      price ?? "",
      `subscription_details[items][${index}][price]`,
    ),
    quantity,
  }));
  if (items.length === 0) {
    throw new StripeApiError(404, {
      type: "invalid_request_error",
      code: "invoice_upcoming_none",
      message: `No upcoming invoices for customer: '${customer}'`,
    });
  }
  return previewCreation(simulation, {
    customer: simulation.store.customers.require(customer, "customer"),
    items,
    metadata: {},
    description: null,
    trialEnd: trialEndOf(simulation, { trial_end: details.trial_end }),
    missingPaymentMethod: null,
    defaultPaymentMethod: null,
    collectionMethod: "charge_automatically",
    daysUntilDue: null,
    offers: (discounts ?? []).map((request, index) =>
      offerOf(
        simulation,
        request,
        {
          customer,
          currency: items[0]?.price.currency ?? "usd",
          amount: items.reduce(
            (sum, { price, quantity }) => sum + amountFor(simulation.store, price, quantity ?? 1),
            0,
          ),
        },
        `discounts[${index}]`,
      ),
    ),
  });
}

export const invoiceRoutes = [
  route(
    "GET /v1/invoices",
    {
      ...pagination,
      customer: text,
      subscription: text,
      status: oneOf("draft", "open", "paid", "uncollectible", "void"),
      created: range,
      due_date: range,
      collection_method: oneOf("charge_automatically", "send_invoice"),
    },
    ({ store }, params) =>
      page(
        "/v1/invoices",
        store.invoices
          .all()
          .filter(
            (invoice) =>
              (params.customer === undefined || invoice.customer === params.customer) &&
              (params.subscription === undefined ||
                invoice.parent?.subscription_details?.subscription === params.subscription) &&
              (params.status === undefined || invoice.status === params.status) &&
              (params.created === undefined || params.created(invoice.created)) &&
              (params.due_date === undefined ||
                (invoice.due_date !== null && params.due_date(invoice.due_date))) &&
              (params.collection_method === undefined ||
                invoice.collection_method === params.collection_method),
          ),
        params,
      ),
  ),

  route(
    "POST /v1/invoices/create_preview",
    {
      ...previewSpec,
    },
    createPreview,
  ),

  route("GET /v1/invoices/:id", {}, ({ store }, _params, id) => store.invoices.require(id)),

  route(
    "POST /v1/invoices/:id",
    { auto_advance: flag, description: unsettable(text), metadata },
    (simulation, params, id) => {
      const invoice = simulation.store.invoices.require(id);
      change(simulation, invoice, () => {
        if (params.auto_advance !== undefined) invoice.auto_advance = params.auto_advance;
        if (params.description !== undefined) invoice.description = params.description;
        invoice.metadata = changedMetadata(invoice.metadata, params.metadata);
      });
      return invoice;
    },
  ),

  route("GET /v1/invoices/:id/lines", pagination, ({ store }, params, id) =>
    // Lines are listed in the order they have on the invoice, not newest first.
    page(`/v1/invoices/${id}/lines`, store.invoices.require(id).lines.data.toReversed(), params),
  ),

  route("POST /v1/invoices/:id/finalize", { auto_advance: flag }, (simulation, params, id) => {
    const invoice = simulation.store.invoices.require(id);
    finalizeInvoice(simulation, invoice);
    if (params.auto_advance !== undefined) {
      change(simulation, invoice, () => {
        invoice.auto_advance = params.auto_advance;
      });
    }
    if (invoice.amount_due === 0) markPaid(simulation, invoice);
    return invoice;
  }),

  route(
    "POST /v1/invoices/:id/pay",
    { paid_out_of_band: flag, payment_method: text, off_session: flag, forgive: flag },
    (simulation, params, id) => {
      const invoice = simulation.store.invoices.require(id);
      payInvoice(simulation, invoice, {
        paymentMethod: params.payment_method,
        customerPresent: params.off_session === false,
        outOfBand: params.paid_out_of_band === true,
      });
      return invoice;
    },
  ),

  route("POST /v1/invoices/:id/void", {}, (simulation, _params, id) => {
    const invoice = simulation.store.invoices.require(id);
    if (invoice.status !== "open" && invoice.status !== "uncollectible") {
      throw invalidRequest("You can only void an open or uncollectible invoice.");
    }
    voidByRequest(simulation, invoice);
    return invoice;
  }),

  route("POST /v1/invoices/:id/mark_uncollectible", {}, (simulation, _params, id) => {
    const invoice = simulation.store.invoices.require(id);
    if (invoice.status !== "open") {
      throw invalidRequest("You can only mark an open invoice as uncollectible.");
    }
    markUncollectible(simulation, invoice);
    return invoice;
  }),

  // What the customer's browser does with an intent's client secret.
  route(
    "POST /v1/payment_intents/:id/confirm",
    { payment_method: text, return_url: text, off_session: flag },
    (simulation, params, id) => {
      const { store } = simulation;
      const intent = store.paymentIntents.require(id, "intent");
      const payment = store.invoicePayments
        .all()
        .find((candidate) => candidate.payment.payment_intent === id);
      payInvoice(simulation, store.invoices.require(idOf(payment?.invoice) ?? ""), {
        paymentMethod: params.payment_method,
        customerPresent: params.off_session !== true,
      });
      return intent;
    },
  ),

  route(
    "GET /v1/invoiceitems",
    { ...pagination, customer: text, invoice: text, pending: flag, created: range },
    ({ store }, params) =>
      page(
        "/v1/invoiceitems",
        store.invoiceItems
          .all()
          .filter(
            ({ customer, invoice, date }) =>
              (params.created === undefined || params.created(date)) &&
              (params.customer === undefined || customer === params.customer) &&
              (params.invoice === undefined || invoice === params.invoice) &&
              (params.pending === undefined || params.pending === (invoice === null)),
          ),
        params,
      ),
  ),

  route("GET /v1/invoiceitems/:id", {}, ({ store }, _params, id) => store.invoiceItems.require(id)),
];
