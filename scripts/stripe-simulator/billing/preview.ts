/** Invoices as they would be: nothing is kept, nothing announced. */
import type Stripe from "stripe";
import { recurrence } from "../objects/prices.ts";
import { StripeApiError } from "../errors.ts";
import type { Simulation } from "../simulation.ts";
import { plannedDiscounts, type Offer } from "./discounts.ts";
import { hasEnded } from "./ending.ts";
import { buildInvoice, itemLine, pendingItems, type NewLine } from "./invoicing.ts";
import { newSubscriptionObject, periodOf, type NewSubscription } from "./lifecycle.ts";
import { addIntervals } from "./periods.ts";
import { creditLine, planUpdate, type ItemEdit, type ItemsUpdate } from "./updates.ts";

export interface PreviewRequest {
  items: ItemEdit[];
  prorationBehavior: ItemsUpdate["prorationBehavior"];
  prorationDate: number;
  /** A new cycle begins now. */
  restart: boolean;
  /** The trial ends now. */
  endTrial: boolean;
  cancelNow: boolean;
  /** The subscription's planned end, as this request would leave it. */
  cancelAt: number | null;
  /** In place of the subscription's own. */
  discounts?: (Offer | Stripe.Discount)[] | undefined;
  /** Without prorations and pending items: what each later period costs. */
  recurringOnly: boolean;
}

/** The invoice an update would lead to: at once, or at the next renewal together with the coming period. */
export function previewUpdate(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  request: PreviewRequest,
): Stripe.Invoice {
  const { now } = simulation;
  if (hasEnded(subscription)) throw nothingUpcoming(subscription);
  if (request.cancelNow) return previewCancellation(simulation, subscription, request);

  const awake = { ...subscription };
  if (request.endTrial && subscription.status === "trialing") {
    awake.status = "active";
    awake.trial_end = now();
  }
  const startsNow = request.restart || request.endTrial || subscription.status === "paused";
  const plan = planUpdate(simulation, awake, {
    items: request.items,
    prorationBehavior: startsNow && !request.restart ? "none" : request.prorationBehavior,
    prorationDate: request.prorationDate,
    paymentBehavior: "allow_incomplete",
    restart: startsNow,
    discounts: request.discounts,
  });
  const prorations = request.recurringOnly ? [] : plan.prorations;
  const invoicedNow =
    !request.recurringOnly &&
    (request.prorationBehavior === "always_invoice" || plan.firstPeriods.length > 0);
  const nextEnd = Math.min(...plan.items.map((item) => item.current_period_end));
  const goesOn = request.cancelAt === null || request.cancelAt > nextEnd;
  const coming = goesOn ? comingLines(simulation, plan.items, nextEnd) : [];
  const lines = [...prorations, ...(invoicedNow ? plan.firstPeriods : coming)];
  const waiting = request.recurringOnly ? [] : pendingItems(simulation, subscription);
  if (lines.length + waiting.length === 0) throw nothingUpcoming(subscription);
  return preview(simulation, subscription, lines, {
    end: invoicedNow ? now() : nextEnd,
    reason: invoicedNow ? "subscription_update" : "upcoming",
    prorationDate: request.prorationDate,
    withPending: !request.recurringOnly,
    discounts: plan.discounts,
  });
}

/** The first invoice of a subscription that does not exist yet. */
export function previewCreation(simulation: Simulation, params: NewSubscription): Stripe.Invoice {
  const subscription = newSubscriptionObject(simulation, params);
  const discounts = plannedDiscounts(simulation, params.customer.id, params.offers);
  const trial = params.trialEnd !== null;
  return preview(
    simulation,
    subscription,
    subscription.items.data.map((item) => itemLine(simulation, item, periodOf(item), { trial })),
    { end: simulation.now(), reason: "subscription_create", withPending: false, discounts },
  );
}

function previewCancellation(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  { prorationBehavior, prorationDate }: PreviewRequest,
): Stripe.Invoice {
  const credited = prorationBehavior !== "none" && subscription.status !== "trialing";
  const lines = credited
    ? subscription.items.data.flatMap((item) => creditLine(simulation, item, prorationDate))
    : [];
  if (lines.length + pendingItems(simulation, subscription).length === 0) {
    throw nothingUpcoming(subscription);
  }
  return preview(simulation, subscription, lines, {
    end: simulation.now(),
    reason: "upcoming",
    prorationDate,
    withPending: true,
  });
}

function comingLines(
  simulation: Simulation,
  items: Stripe.SubscriptionItem[],
  nextEnd: number,
): NewLine[] {
  return items
    .filter((item) => item.current_period_end === nextEnd)
    .map((item) => {
      // Usage is billed when its period is over.
      if (recurrence(item.price).usage_type === "metered") {
        return itemLine(simulation, item, periodOf(item));
      }
      const end = addIntervals(nextEnd, recurrence(item.price), 1);
      return itemLine(simulation, item, { start: nextEnd, end });
    });
}

function preview(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  lines: NewLine[],
  options: {
    end: number;
    reason: Stripe.Invoice.BillingReason;
    prorationDate?: number;
    withPending: boolean;
    discounts?: Stripe.Discount[];
  },
): Stripe.Invoice {
  const invoice = buildInvoice(simulation, subscription, {
    reason: options.reason,
    lines,
    window: { start: simulation.now(), end: options.end },
    withPending: options.withPending,
    ...(options.discounts === undefined ? {} : { discounts: options.discounts }),
    ...(options.prorationDate === undefined ? {} : { prorationDate: options.prorationDate }),
  });
  return { ...invoice, id: `upcoming_${invoice.id}` };
}

function nothingUpcoming({ customer }: Stripe.Subscription): StripeApiError {
  const id = typeof customer === "string" ? customer : customer.id;
  return new StripeApiError(404, {
    type: "invalid_request_error",
    code: "invoice_upcoming_none",
    message: `No upcoming invoices for customer: '${id}'`,
  });
}
