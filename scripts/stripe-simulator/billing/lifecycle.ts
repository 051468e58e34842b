/** A subscription's life in time: creation, renewal, the end of its trial. */
import type Stripe from "stripe";
import { planOf, recurrence } from "../objects/prices.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { collect, markPaid, paymentMethodFor, type Verdict } from "./collection.ts";
import { redeem, type Offer } from "./discounts.ts";
import { endSubscription } from "./ending.ts";
import {
  announceInvoice,
  draftInvoice,
  finalizeInvoice,
  itemLine,
  voidInvoice,
  stopCollecting,
} from "./invoicing.ts";
import { addIntervals, periodAt } from "./periods.ts";

export interface NewItem {
  price: Stripe.Price;
  quantity?: number | undefined;
  metadata?: Stripe.Metadata;
}

export interface NewSubscription {
  customer: Stripe.Customer;
  items: NewItem[];
  metadata: Stripe.Metadata;
  description: string | null;
  trialEnd: number | null;
  missingPaymentMethod: "cancel" | "create_invoice" | "pause" | null;
  defaultPaymentMethod: string | null;
  collectionMethod: "charge_automatically" | "send_invoice";
  daysUntilDue: number | null;
  /** Redeemed with the subscription's first invoice. */
  offers: Offer[];
  /** The checkout session that subscribes. */
  session?: string;
  /** The schedule whose first phase this is. */
  schedule?: string;
}

/** `wait` leaves the first invoice for the customer to pay; `verdict` is the answer a charge already got. */
export interface FirstPayment {
  how: "charge" | "wait";
  customerPresent: boolean;
  verdict?: Verdict;
}

/** A subscription as it begins; it is nowhere kept yet. */
export function newSubscriptionObject(
  simulation: Simulation,
  params: NewSubscription,
): Stripe.Subscription {
  const { newId, now } = simulation;
  const { customer, trialEnd } = params;
  const id = newId("sub");
  const anchor = trialEnd ?? now();
  return {
    id,
    object: "subscription",
    application: null,
    application_fee_percent: null,
    automatic_tax: { disabled_reason: null, enabled: false, liability: null },
    billing_cycle_anchor: anchor,
    billing_cycle_anchor_config: null,
    billing_mode: { type: "flexible", flexible: { proration_discounts: "included" } },
    billing_schedules: [],
    billing_thresholds: null,
    cancel_at: null,
    cancel_at_period_end: false,
    canceled_at: null,
    cancellation_details: { comment: null, feedback: null, feedback_option: null, reason: null },
    collection_method: params.collectionMethod,
    created: now(),
    currency: params.items[0]?.price.currency ?? "usd",
    customer: customer.id,
    customer_account: null,
    days_until_due: params.daysUntilDue,
    default_payment_method: params.defaultPaymentMethod,
    default_source: null,
    default_tax_rates: [],
    description: params.description,
    discounts: [],
    ended_at: null,
    invoice_settings: {
      account_tax_ids: null,
      custom_fields: null,
      description: null,
      footer: null,
      issuer: { type: "self" },
    },
    items: {
      object: "list",
      data: params.items.map((item) =>
        newItem(simulation, { id, billing_cycle_anchor: anchor, trial_end: trialEnd }, item),
      ),
      has_more: false,
      url: `/v1/subscription_items?subscription=${id}`,
    },
    latest_invoice: null,
    livemode: false,
    managed_payments: { enabled: false },
    metadata: params.metadata,
    next_pending_invoice_item_invoice: null,
    on_behalf_of: null,
    pause_collection: null,
    payment_settings: {
      payment_method_options: null,
      payment_method_types: null,
      save_default_payment_method: "off",
    },
    pending_invoice_item_interval: null,
    pending_setup_intent: null,
    pending_update: null,
    schedule: params.schedule ?? null,
    start_date: now(),
    status: trialEnd !== null ? "trialing" : "incomplete",
    test_clock: idOf(customer.test_clock),
    transfer_data: null,
    trial_end: trialEnd,
    trial_settings: {
      end_behavior: {
        billing_cycle_anchor: null,
        missing_payment_method: params.missingPaymentMethod ?? "create_invoice",
      },
    },
    trial_start: trialEnd === null ? null : now(),
  };
}

export function createSubscription(
  simulation: Simulation,
  params: NewSubscription,
  firstPayment: FirstPayment,
): Stripe.Subscription {
  const { store, now, emit } = simulation;
  const { trialEnd } = params;
  const sent = params.collectionMethod === "send_invoice";
  const subscription = store.subscriptions.add(newSubscriptionObject(simulation, params));
  subscription.discounts = params.offers.map(
    (offer) =>
      redeem(simulation, offer, {
        customer: params.customer.id,
        subscription: subscription.id,
        session: params.session ?? null,
      }).id,
  );
  const invoice = draftInvoice(simulation, subscription, {
    reason: "subscription_create",
    lines: subscription.items.data.map((item) =>
      itemLine(simulation, item, periodOf(item), { trial: trialEnd !== null }),
    ),
    window: { start: now(), end: now() },
  });
  subscription.latest_invoice = invoice.id;
  if (trialEnd === null && (sent || invoice.amount_due === 0)) subscription.status = "active";
  emit("customer.subscription.created", subscription);
  announceInvoice(simulation, subscription, invoice);
  if (sent && invoice.amount_due > 0) return subscription;

  finalizeInvoice(simulation, invoice);
  if (invoice.amount_due === 0) markPaid(simulation, invoice);
  else if (firstPayment.how === "charge") {
    collect(simulation, invoice, { attempt: "automatic", ...firstPayment });
  } else {
    change(simulation, invoice, () => {
      invoice.next_payment_attempt = null;
    });
  }
  return subscription;
}

/** An item in the period its subscription is in; a metered item has no quantity. */
export function newItem(
  { newId, now }: Simulation,
  subscription: Pick<Stripe.Subscription, "id" | "billing_cycle_anchor" | "trial_end">,
  { price, quantity, metadata = {} }: NewItem,
): Stripe.SubscriptionItem {
  const inTrial = subscription.trial_end !== null && subscription.trial_end > now();
  const period = inTrial
    ? { start: now(), end: subscription.trial_end ?? now() }
    : periodAt(subscription.billing_cycle_anchor, recurrence(price), now());
  return {
    id: newId("si"),
    object: "subscription_item",
    billing_thresholds: null,
    created: now(),
    current_period_end: period.end,
    current_period_start: period.start,
    current_trial: null,
    discounts: [],
    metadata,
    plan: planOf(price),
    price,
    ...(recurrence(price).usage_type === "metered" ? {} : { quantity: quantity ?? 1 }),
    subscription: subscription.id,
    tax_rates: [],
  };
}

export function periodOf(item: Stripe.SubscriptionItem) {
  return { start: item.current_period_start, end: item.current_period_end };
}

/** The earliest end of any item's period: the next renewal. */
export function nextPeriodEnd(subscription: Stripe.Subscription): number {
  return Math.min(...subscription.items.data.map((item) => item.current_period_end));
}

/** Moves every item whose period is over into the period that holds now, and bills it. */
export function renew(simulation: Simulation, subscription: Stripe.Subscription): void {
  const { now } = simulation;
  const due = subscription.items.data.filter((item) => item.current_period_end <= now());
  const window = {
    start: Math.min(...due.map((item) => item.current_period_start)),
    end: now(),
  };
  bill(simulation, subscription, {
    window,
    advance: () => startPeriods(simulation, subscription, due),
  });
}

/** Puts items into the periods, counted from the anchor, that hold now. */
export function startPeriods(
  { now }: Simulation,
  subscription: Stripe.Subscription,
  items: Stripe.SubscriptionItem[],
): void {
  for (const item of items) {
    const period = periodAt(subscription.billing_cycle_anchor, recurrence(item.price), now());
    item.current_period_start = period.start;
    item.current_period_end = period.end;
  }
}

interface Billing {
  window: { start: number; end: number };
  /** Changes the subscription to what is being billed. */
  advance: () => void;
  reason?: Stripe.Invoice.BillingReason;
  /** Bill and charge now instead of leaving a draft for the usual while. */
  immediately?: boolean;
  announce?: Stripe.Event.Type[];
}

/** Advances the subscription and drafts the invoice of the periods that begin. */
export function bill(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  { window, advance, reason = "subscription_cycle", immediately = false, announce = [] }: Billing,
): Stripe.Invoice {
  const ended = new Map(subscription.items.data.map((item) => [item.id, periodOf(item)]));
  let invoice: Stripe.Invoice | undefined;
  change(
    simulation,
    subscription,
    () => {
      advance();
      const begun = subscription.items.data.filter(
        (item) => item.current_period_start !== ended.get(item.id)?.start,
      );
      invoice = draftInvoice(simulation, subscription, {
        reason,
        lines: begun.map((item) => {
          const metered = item.price.recurring?.usage_type === "metered";
          const past = ended.get(item.id);
          return itemLine(simulation, item, metered && past ? past : periodOf(item));
        }),
        window,
      });
      subscription.latest_invoice = invoice.id;
    },
    ...announce,
  );
  if (invoice === undefined) throw new Error("bill() made no invoice");
  announceInvoice(simulation, subscription, invoice);

  const pause = subscription.pause_collection?.behavior;
  if (subscription.status === "unpaid" || pause === "keep_as_draft") {
    stopCollecting(simulation, invoice);
  } else if (pause === "void") {
    finalizeInvoice(simulation, invoice);
    voidInvoice(simulation, invoice);
  } else if (pause === "mark_uncollectible") {
    finalizeInvoice(simulation, invoice);
    const paused = invoice;
    change(
      simulation,
      paused,
      () => {
        paused.status = "uncollectible";
        paused.auto_advance = false;
        paused.next_payment_attempt = null;
        paused.status_transitions.marked_uncollectible_at = simulation.now();
        paused.status_details = { uncollectible: { reason: "subscription_paused" } };
      },
      "invoice.marked_uncollectible",
    );
  } else if (immediately) {
    collect(simulation, invoice, { attempt: "automatic", customerPresent: false });
  }
  return invoice;
}

/** The hour after a renewal is over: the draft becomes final and is charged, or sent. */
export function advanceInvoice(simulation: Simulation, invoice: Stripe.Invoice): void {
  if (invoice.collection_method === "charge_automatically") {
    collect(simulation, invoice, { attempt: "automatic", customerPresent: false });
    return;
  }
  finalizeInvoice(simulation, invoice);
  if (invoice.amount_due === 0) markPaid(simulation, invoice);
  else simulation.emit("invoice.sent", invoice);
}

/** trialing → active with the first paid period, or what the trial settings say when no card was left. */
export function endTrial(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  { immediately = false } = {},
): void {
  const { now } = simulation;
  const behaviour = subscription.trial_settings?.end_behavior.missing_payment_method;
  const method = paymentMethodFor(simulation, subscription, idOf(subscription.customer) ?? "");
  if (method === undefined && behaviour === "cancel") {
    endSubscription(simulation, subscription);
    return;
  }
  if (method === undefined && behaviour === "pause") {
    change(
      simulation,
      subscription,
      () => {
        subscription.status = "paused";
        subscription.trial_end = now();
        subscription.status_details = {
          paused: {
            type: "subscription",
            transitioned_at: now(),
            subscription: { type: "trial_end_without_payment_method" },
          },
        };
      },
      "customer.subscription.paused",
    );
    return;
  }
  bill(simulation, subscription, {
    window: { start: subscription.trial_start ?? now(), end: now() },
    immediately,
    advance() {
      subscription.status = "active";
      subscription.trial_end = now();
      restartPeriods(simulation, subscription);
    },
  });
}

/** Begins a new cycle now: the anchor and every item's period move. */
export function restartPeriods({ now }: Simulation, subscription: Stripe.Subscription): void {
  subscription.billing_cycle_anchor = now();
  for (const item of subscription.items.data) {
    item.current_period_start = now();
    item.current_period_end = addIntervals(now(), recurrence(item.price), 1);
  }
}
