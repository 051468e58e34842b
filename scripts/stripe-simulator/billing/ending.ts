/** Ends subscriptions: at once, for good. */
import type Stripe from "stripe";
import { change, idOf, type Simulation } from "../simulation.ts";
import { stopCollecting, subscriptionOf } from "./invoicing.ts";

export function hasEnded({ status }: Stripe.Subscription): boolean {
  return status === "canceled" || status === "incomplete_expired";
}

export interface EndingDetails {
  reason?: Stripe.Subscription.CancellationDetails.Reason;
  comment?: string | null;
  feedback?: string | null;
}

/** Any live status → canceled. Open invoices stay open, but nobody collects them any more. */
export function endSubscription(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  { reason = "cancellation_requested", comment, feedback }: EndingDetails = {},
): void {
  if (hasEnded(subscription)) return;
  const { now, store, emit } = simulation;
  const schedule = store.schedules.get(idOf(subscription.schedule) ?? "");

  const details = subscription.cancellation_details;
  subscription.status = "canceled";
  subscription.ended_at = now();
  subscription.canceled_at ??= now();
  subscription.schedule = null;
  subscription.pending_update = null;
  subscription.cancellation_details = {
    comment: comment ?? details?.comment ?? null,
    feedback: feedback ?? details?.feedback ?? null,
    feedback_option: null,
    reason,
  };
  store.pendingChanges.delete(subscription.id);
  store.pendingResumes.delete(subscription.id);
  emit("customer.subscription.deleted", subscription);

  for (const invoice of store.invoices.all()) {
    const collecting = invoice.status === "open" || invoice.status === "draft";
    if (collecting && subscriptionOf(simulation, invoice) === subscription) {
      stopCollecting(simulation, invoice);
    }
  }
  if (schedule !== undefined) {
    const aborted = reason === "payment_failed";
    change(
      simulation,
      schedule,
      () => {
        schedule.status = "canceled";
        schedule.canceled_at = now();
        schedule.current_phase = null;
      },
      aborted ? "subscription_schedule.aborted" : "subscription_schedule.canceled",
    );
  }
}
