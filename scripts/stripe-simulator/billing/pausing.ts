/** Pausing a subscription altogether, and waking it: status `paused`, which bills nothing. */
import type Stripe from "stripe";
import { invalidRequest } from "../errors.ts";
import { change, type Simulation } from "../simulation.ts";
import { collect } from "./collection.ts";
import { addPendingItem, announceInvoice, draftInvoice, pendingItems } from "./invoicing.ts";
import { bill, restartPeriods, startPeriods } from "./lifecycle.ts";
import { creditRemainder, remainderLines } from "./updates.ts";

export interface PauseRequest {
  /** What is left of the running periods is credited. */
  credits: boolean;
  /** The credit is invoiced at once, instead of with the next invoice. */
  invoiceNow: boolean;
}

/** active, trialing or past_due → paused. */
export function pauseSubscription(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  { credits, invoiceNow }: PauseRequest,
): void {
  const { store, now } = simulation;
  if (!["active", "past_due", "trialing"].includes(subscription.status)) {
    throw invalidRequest(`A subscription that is \`${subscription.status}\` cannot be paused.`);
  }
  if (subscription.schedule !== null) {
    throw invalidRequest("A subscription that is managed by a schedule cannot be paused.");
  }
  const inTrial = subscription.status === "trialing";
  if (credits && !inTrial) {
    store.creditedPauses.add(subscription.id);
    creditRemainder(simulation, subscription);
  }
  change(
    simulation,
    subscription,
    () => {
      subscription.status = "paused";
      subscription.status_details = {
        paused: {
          type: "subscription",
          transitioned_at: now(),
          subscription: { type: "pause_requested" },
        },
      };
    },
    "customer.subscription.paused",
  );
  if (!invoiceNow || pendingItems(simulation, subscription).length === 0) return;
  const invoice = draftInvoice(simulation, subscription, {
    reason: "subscription_update",
    lines: [],
    window: { start: now(), end: now() },
  });
  change(simulation, subscription, () => {
    subscription.latest_invoice = invoice.id;
  });
  announceInvoice(simulation, subscription, invoice);
  collect(simulation, invoice, { attempt: "automatic", customerPresent: false });
}

export interface ResumeRequest {
  /** A new cycle begins now, or the old one goes on. */
  anchor: "now" | "unchanged";
  /** Wake only when the invoice is paid, within the time an incomplete subscription has. */
  onSuccess: boolean;
  prorationBehavior: "always_invoice" | "create_prorations" | "none";
  prorationDate: number;
}

/**
 * paused → active. Whatever is due is invoiced at once; a decline leaves the subscription past_due without retries, or
 * paused while the invoice waits.
 */
export function resumeSubscription(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  { anchor, onSuccess, prorationBehavior, prorationDate }: ResumeRequest,
): void {
  const { store, now } = simulation;
  if (subscription.status !== "paused") {
    throw invalidRequest("Only paused subscriptions can be resumed.");
  }
  if (store.pendingResumes.has(subscription.id)) {
    throw invalidRequest("This subscription already waits for a payment to be resumed.");
  }
  const running = subscription.items.data.every((item) => item.current_period_end > now());
  const wake = () => {
    subscription.status = "active";
    delete subscription.status_details;
    store.creditedPauses.delete(subscription.id);
  };

  if (anchor === "unchanged" && running) {
    const owed = store.creditedPauses.has(subscription.id) && prorationBehavior !== "none";
    const lines = owed ? remainderLines(simulation, subscription, prorationDate) : [];
    change(simulation, subscription, wake, "customer.subscription.resumed");
    for (const line of lines) addPendingItem(simulation, subscription, line);
    if (prorationBehavior !== "always_invoice" || lines.length === 0) return;
    bill(simulation, subscription, {
      window: { start: now(), end: now() },
      reason: "subscription_update",
      immediately: true,
      advance: () => undefined,
    });
    return;
  }

  const begin = () => {
    if (anchor === "now") restartPeriods(simulation, subscription);
    else startPeriods(simulation, subscription, subscription.items.data);
  };
  const invoice = bill(simulation, subscription, {
    window: { start: now(), end: now() },
    reason: "subscription_update",
    immediately: !onSuccess,
    announce: onSuccess ? [] : ["customer.subscription.resumed"],
    advance() {
      if (!onSuccess) wake();
      begin();
    },
  });
  if (onSuccess) {
    store.pendingResumes.set(subscription.id, {
      invoice: invoice.id,
      expiresAt: now() + simulation.rules.incompleteFor,
      apply: wake,
    });
    collect(simulation, invoice, { attempt: "manual", customerPresent: false });
  } else if (invoice.status === "open") {
    change(simulation, invoice, () => {
      invoice.next_payment_attempt = null;
    });
  }
}
