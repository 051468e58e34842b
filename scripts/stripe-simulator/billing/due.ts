/** What time alone makes happen, and when. */
import type Stripe from "stripe";
import { advanceSchedule, startSchedule } from "../objects/subscription_schedules.ts";
import { isClosed, lapseDispute } from "../objects/disputes.ts";
import { defaultPayment } from "../objects/payments.ts";
import { refundDue } from "../objects/refunds.ts";
import { taxIdDue } from "../objects/tax_ids.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import {
  collect,
  expireIncomplete,
  expirePendingChange,
  expirePendingResume,
  settleDebit,
} from "./collection.ts";
import { expireSession } from "./checkout.ts";
import { discountsOf, removeDiscounts } from "./discounts.ts";
import { endSubscription, hasEnded } from "./ending.ts";
import { buildInvoice, itemLine, subscriptionOf } from "./invoicing.ts";
import { advanceInvoice, endTrial, nextPeriodEnd, periodOf, renew } from "./lifecycle.ts";
import { addIntervals, days } from "./periods.ts";
import { recurrence } from "../objects/prices.ts";

export interface DueWork {
  at: number;
  run: () => void;
}

/**
 * The earliest work due at or before `until`. Of works due at one moment the first listed wins: a cancellation comes
 * before the renewal it prevents, a new phase before the renewal it prices.
 */
export function nextDue(
  simulation: Simulation,
  until: number,
  mayFinalize: (invoice: Stripe.Invoice) => boolean,
): DueWork | undefined {
  const { store } = simulation;
  const subscriptions = store.subscriptions.unsettled(hasEnded);
  const schedules = store.schedules.unsettled(({ status }) =>
    ["canceled", "completed", "released"].includes(status),
  );
  const works = [
    ...subscriptions.flatMap((subscription) => endings(simulation, subscription)),
    ...schedules.flatMap((schedule) => phases(simulation, schedule)),
    ...subscriptions.flatMap((subscription) => cycles(simulation, subscription)),
    ...store.invoices
      .unsettled(({ status }) => status === "paid" || status === "void")
      .flatMap((invoice) => collections(simulation, invoice, mayFinalize)),
    ...debits(simulation),
    ...store.refunds
      .unsettled((refund) => refundDue(simulation, refund) === undefined)
      .flatMap((refund) => refundDue(simulation, refund) ?? []),
    ...store.taxIds
      .unsettled(({ verification }) => verification?.status !== "pending")
      .flatMap((taxId) => taxIdDue(simulation, taxId) ?? []),
    ...store.disputes.unsettled(isClosed).flatMap((dispute) => deadlines(simulation, dispute)),
    ...store.sessions
      .unsettled(({ status }) => status !== "open")
      .flatMap((session) => expirations(simulation, session)),
  ];
  let earliest: DueWork | undefined;
  for (const work of works) {
    if (work.at <= until && (earliest === undefined || work.at < earliest.at)) earliest = work;
  }
  return earliest;
}

function endings(simulation: Simulation, subscription: Stripe.Subscription): DueWork[] {
  if (hasEnded(subscription)) return [];
  const works: DueWork[] = [];
  if (subscription.status === "incomplete" && !isDebited(simulation, subscription)) {
    works.push({
      at: subscription.created + simulation.rules.incompleteFor,
      run: () => expireIncomplete(simulation, subscription),
    });
  }
  for (const discount of discountsOf(simulation, subscription)) {
    if (discount.end === null) continue;
    works.push({
      at: discount.end,
      run: () => removeDiscounts(simulation, subscription, [discount]),
    });
  }
  if (subscription.pending_update !== null) {
    works.push({
      at: subscription.pending_update.expires_at,
      run: () => expirePendingChange(simulation, subscription),
    });
  }
  const resume = simulation.store.pendingResumes.get(subscription.id);
  if (resume !== undefined) {
    works.push({
      at: resume.expiresAt,
      run: () => expirePendingResume(simulation, subscription),
    });
  }
  const canEnd = ["active", "past_due", "trialing", "unpaid", "paused"];
  if (subscription.cancel_at !== null && canEnd.includes(subscription.status)) {
    works.push({
      at: subscription.cancel_at,
      run: () => endSubscription(simulation, subscription),
    });
  }
  return works;
}

/** Whether the bank still has to answer about the subscription's latest invoice. */
function isDebited(simulation: Simulation, subscription: Stripe.Subscription): boolean {
  const { store } = simulation;
  const invoice = store.invoices.get(idOf(subscription.latest_invoice) ?? "");
  const intent = invoice && defaultPayment(simulation, invoice)?.intent;
  return intent !== undefined && store.debits.has(intent.id);
}

function debits(simulation: Simulation): DueWork[] {
  const { store } = simulation;
  return [...store.debits].map(([id, at]) => ({
    at,
    run: () => settleDebit(simulation, store.paymentIntents.require(id)),
  }));
}

function phases(simulation: Simulation, schedule: Stripe.SubscriptionSchedule): DueWork[] {
  const [first] = schedule.phases;
  if (schedule.status === "not_started" && first !== undefined) {
    return [{ at: first.start_date, run: () => startSchedule(simulation, schedule) }];
  }
  if (schedule.status !== "active" || schedule.current_phase === null) return [];
  const { end_date } = schedule.current_phase;
  const works = [{ at: end_date, run: () => advanceSchedule(simulation, schedule) }];
  if (schedule.phases.at(-1)?.end_date !== end_date) return works;
  return [
    ...once(simulation, `${schedule.id} expiring ${end_date}`, {
      at: Math.max(end_date - simulation.rules.upcomingBefore, schedule.created),
      run: () => simulation.emit("subscription_schedule.expiring", schedule),
    }),
    ...works,
  ];
}

function cycles(simulation: Simulation, subscription: Stripe.Subscription): DueWork[] {
  if (hasEnded(subscription)) return [];
  const { rules } = simulation;
  const works: DueWork[] = [];
  const resumesAt = subscription.pause_collection?.resumes_at ?? null;
  if (resumesAt !== null) {
    works.push({
      at: resumesAt,
      run: () =>
        change(simulation, subscription, () => {
          subscription.pause_collection = null;
        }),
    });
  }
  if (subscription.status === "trialing") {
    const end = subscription.trial_end ?? subscription.created;
    works.push(
      ...once(simulation, `${subscription.id} trial_will_end ${end}`, {
        // A trial shorter than the notice is announced when it begins.
        at: Math.max(end - rules.trialWillEndBefore, subscription.trial_start ?? 0),
        run: () => simulation.emit("customer.subscription.trial_will_end", subscription),
      }),
      { at: end, run: () => endTrial(simulation, subscription) },
    );
  }
  if (["active", "past_due", "unpaid"].includes(subscription.status)) {
    const end = nextPeriodEnd(subscription);
    const goesOn = subscription.cancel_at === null || subscription.cancel_at > end;
    if (goesOn && subscription.pause_collection === null && rules.upcomingBefore > 0) {
      const begun = Math.max(...subscription.items.data.map((item) => item.current_period_start));
      works.push(
        ...once(simulation, `${subscription.id} upcoming ${end}`, {
          at: Math.max(end - rules.upcomingBefore, begun + days(1)),
          run: () => announceUpcoming(simulation, subscription, end),
        }).filter(({ at }) => at < end),
      );
    }
    works.push({ at: end, run: () => renew(simulation, subscription) });
  }
  return works;
}

function once({ store }: Simulation, key: string, { at, run }: DueWork): DueWork[] {
  if (store.announced.has(key)) return [];
  return [
    {
      at,
      run() {
        store.announced.add(key);
        run();
      },
    },
  ];
}

/** Shows the invoice that is coming. It does not exist yet, so the object has no id. */
function announceUpcoming(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  end: number,
): void {
  const preview = buildInvoice(simulation, subscription, {
    reason: "upcoming",
    lines: subscription.items.data
      .filter((item) => item.current_period_end === end)
      .map((item) => {
        const next = addIntervals(end, recurrence(item.price), 1);
        return itemLine(simulation, item, { start: end, end: next });
      }),
    window: {
      start: Math.min(...subscription.items.data.map((item) => periodOf(item).start)),
      end,
    },
  });
  const { id: _id, ...shown } = preview;
  simulation.emit("invoice.upcoming", {
    ...shown,
    created: end,
    automatically_finalizes_at: null,
    next_payment_attempt: end + simulation.rules.finalizeAfter,
  });
}

function collections(
  simulation: Simulation,
  invoice: Stripe.Invoice,
  mayFinalize: (invoice: Stripe.Invoice) => boolean,
): DueWork[] {
  if (invoice.status === "draft" && invoice.automatically_finalizes_at !== null) {
    if (invoice.auto_advance !== true) return [];
    return [
      {
        at: invoice.automatically_finalizes_at,
        run() {
          if (mayFinalize(invoice)) advanceInvoice(simulation, invoice);
          else postpone(simulation, invoice);
        },
      },
    ];
  }
  if (invoice.status !== "open") return [];
  if (invoice.next_payment_attempt !== null && invoice.auto_advance === true) {
    return [
      {
        at: invoice.next_payment_attempt,
        run: () => {
          collect(simulation, invoice, { attempt: "automatic", customerPresent: false });
        },
      },
    ];
  }
  const subscription = subscriptionOf(simulation, invoice);
  if (invoice.due_date === null) return [];
  return once(simulation, `${invoice.id} overdue`, {
    at: invoice.due_date,
    run() {
      simulation.emit("invoice.overdue", invoice);
      const latest = idOf(subscription?.latest_invoice) === invoice.id;
      if (subscription?.status !== "active" || !latest) return;
      change(simulation, subscription, () => {
        subscription.status = "past_due";
      });
    },
  });
}

/** Stripe waits with a draft whose `invoice.created` no endpoint has accepted, at most three days. */
function postpone(simulation: Simulation, invoice: Stripe.Invoice): void {
  change(simulation, invoice, () => {
    invoice.automatically_finalizes_at = Math.min(
      simulation.now() + Math.max(simulation.rules.finalizeAfter, 3600),
      invoice.created + days(3),
    );
    invoice.next_payment_attempt = invoice.automatically_finalizes_at;
  });
}

function deadlines(simulation: Simulation, dispute: Stripe.Dispute): DueWork[] {
  const waits = ["needs_response", "warning_needs_response"].includes(dispute.status);
  const { due_by } = dispute.evidence_details;
  return waits && due_by !== null
    ? [{ at: due_by, run: () => lapseDispute(simulation, dispute) }]
    : [];
}

function expirations(simulation: Simulation, session: Stripe.Checkout.Session): DueWork[] {
  if (session.status !== "open") return [];
  return [{ at: session.expires_at, run: () => expireSession(simulation, session) }];
}
