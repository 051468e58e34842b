/** Collects invoices, and moves their subscription to what the outcome means. */
import type Stripe from "stripe";
import { invalidRequest } from "../errors.ts";
import { hardDeclines } from "../objects/declines.ts";
import {
  cancelPayment,
  decline,
  defaultPayment,
  finishDebit,
  startDebit,
  succeed,
} from "../objects/payments.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { endSubscription } from "./ending.ts";
import { finalizeInvoice, stopCollecting, subscriptionOf, voidInvoice } from "./invoicing.ts";

export interface PaymentRequest {
  /** `automatic` counts towards the retries; `manual` is a request to pay now and changes no schedule. */
  attempt: "automatic" | "manual";
  /** The customer is there and can authenticate. */
  customerPresent: boolean;
  /** Overrides the defaults of subscription and customer. */
  paymentMethod?: string | undefined;
  /** A verdict already reached, so that one decision is not made twice. */
  verdict?: Verdict;
}

export type Verdict =
  | { paid: true; method: Stripe.PaymentMethod; later?: boolean }
  | { paid: false; method: Stripe.PaymentMethod | undefined; declineCode: string };

/** The payment method an automatic payment would use. */
export function paymentMethodFor(
  { store }: Simulation,
  subscription: Stripe.Subscription | undefined,
  customerId: string,
): Stripe.PaymentMethod | undefined {
  const customer = store.customers.get(customerId);
  const id =
    idOf(subscription?.default_payment_method) ??
    idOf(customer?.invoice_settings.default_payment_method);
  return id === null ? undefined : store.paymentMethods.get(id);
}

/** What the card network would answer. Each call is one charge as far as forced declines are concerned. */
export function judge(
  { store, forcedDeclines }: Simulation,
  method: Stripe.PaymentMethod | undefined,
  request: { customerPresent: boolean },
): Verdict {
  if (method === undefined) return { paid: false, method, declineCode: "no_payment_method" };
  const forced = forcedDeclines.shift();
  if (forced !== undefined) return { paid: false, method, declineCode: forced };

  const card = store.cards.get(method.id);
  if (card?.brand === "bank") return { paid: true, method, later: true };
  const accepted =
    card === undefined ||
    card.behaviour === "succeeds" ||
    (card.behaviour !== "declined" && request.customerPresent);
  return accepted ? { paid: true, method } : { paid: false, method, declineCode: card.declineCode };
}

/** Tries to take the money of an open invoice; a draft is finalized first. */
export function collect(
  simulation: Simulation,
  invoice: Stripe.Invoice,
  request: PaymentRequest,
): Verdict | undefined {
  if (invoice.status === "draft") finalizeInvoice(simulation, invoice);
  if (invoice.status === "draft") return undefined;
  if (invoice.amount_due === 0) {
    markPaid(simulation, invoice);
    return undefined;
  }
  const waiting = defaultPayment(simulation, invoice);
  if (waiting === undefined) return undefined;
  const subscription = subscriptionOf(simulation, invoice);
  const { intent } = waiting;
  if (intent.status === "processing") return undefined;

  const method =
    request.paymentMethod === undefined
      ? paymentMethodFor(simulation, subscription, idOf(invoice.customer) ?? "")
      : simulation.store.paymentMethods.require(request.paymentMethod, "payment_method");
  const last = intent.last_payment_error;
  const pointless =
    request.attempt === "automatic" &&
    last !== null &&
    last.payment_method?.id === method?.id &&
    hardDeclines.has(last.decline_code ?? "");

  // After a hard decline the schedule runs on, but the same card is not charged again.
  const verdict: Verdict = pointless
    ? { paid: false, method, declineCode: last.decline_code ?? "generic_decline" }
    : (request.verdict ?? judge(simulation, method, request));

  if (verdict.paid && verdict.later === true) {
    startDebit(simulation, intent, verdict.method);
    change(simulation, invoice, () => {
      invoice.attempted = true;
      invoice.next_payment_attempt = null;
    });
  } else if (verdict.paid) {
    succeed(simulation, intent, verdict.method);
    markPaid(simulation, invoice, { money: true, counts: request.attempt === "automatic" });
  } else {
    if (!pointless) decline(simulation, intent, verdict.method, verdict.declineCode);
    fail(simulation, invoice, request, verdict.declineCode);
  }
  return verdict;
}

/** The bank has answered about a debit: its invoice is paid or has failed, its checkout session told. */
export function settleDebit(simulation: Simulation, intent: Stripe.PaymentIntent): void {
  const { store, emit } = simulation;
  const declineCode = finishDebit(simulation, intent);
  const payment = store.invoicePayments
    .all()
    .find((each) => each.payment.payment_intent === intent.id);
  const invoice = store.invoices.get(idOf(payment?.invoice) ?? "");
  if (invoice !== undefined && declineCode === undefined) {
    markPaid(simulation, invoice, { money: true, counts: true });
  } else if (invoice !== undefined) {
    const request = { attempt: "automatic", customerPresent: false } as const;
    fail(simulation, invoice, request, declineCode ?? "generic_decline");
  }
  const session = store.sessions
    .all()
    .find(
      (each) =>
        each.payment_intent === intent.id || (invoice !== undefined && each.invoice === invoice.id),
    );
  if (session?.status !== "complete" || session.payment_status !== "unpaid") return;
  if (declineCode === undefined) session.payment_status = "paid";
  emit(
    declineCode === undefined
      ? "checkout.session.async_payment_succeeded"
      : "checkout.session.async_payment_failed",
    session,
  );
}

/** Open (or uncollectible) → paid, whether with money, with balance or outside Stripe. */
export function markPaid(
  simulation: Simulation,
  invoice: Stripe.Invoice,
  { money = false, counts = false, outOfBand = false } = {},
): void {
  const { store, now, emit } = simulation;
  const waiting = defaultPayment(simulation, invoice);
  if (money && waiting !== undefined) {
    waiting.payment.status = "paid";
    waiting.payment.amount_paid = invoice.amount_due;
    waiting.payment.status_transitions.paid_at = now();
    emit("invoice_payment.paid", waiting.payment);
  } else {
    cancelPayment(simulation, invoice);
  }
  change(
    simulation,
    invoice,
    () => {
      invoice.status = "paid";
      invoice.amount_paid = money || outOfBand ? invoice.amount_due : 0;
      if (outOfBand) invoice.amount_paid_off_stripe = invoice.amount_due;
      invoice.amount_remaining = 0;
      invoice.attempted = true;
      if (counts || (money && invoice.attempt_count === 0)) invoice.attempt_count += 1;
      invoice.auto_advance = false;
      invoice.next_payment_attempt = null;
      invoice.status_transitions.paid_at = now();
    },
    "invoice.paid",
    ...(money ? (["invoice.payment_succeeded"] as const) : []),
  );

  const customer = store.customers.get(idOf(invoice.customer) ?? "");
  if (customer !== undefined) {
    change(simulation, customer, () => {
      customer.delinquent = false;
    });
  }
  const subscription = subscriptionOf(simulation, invoice);
  if (subscription === undefined) return;
  restore(simulation, subscription, invoice);
  applyPendingChange(simulation, subscription, invoice);
  applyPendingResume(simulation, subscription, invoice);
}

export function markUncollectible(simulation: Simulation, invoice: Stripe.Invoice): void {
  change(
    simulation,
    invoice,
    () => {
      invoice.status = "uncollectible";
      invoice.auto_advance = false;
      invoice.next_payment_attempt = null;
      invoice.status_transitions.marked_uncollectible_at = simulation.now();
      invoice.status_details = { uncollectible: { reason: "user_forgiven" } };
    },
    "invoice.marked_uncollectible",
  );
  const subscription = subscriptionOf(simulation, invoice);
  if (subscription !== undefined) restore(simulation, subscription, invoice);
}

/** Voids an open invoice by request; an `incomplete` subscription has nothing left to wait for. */
export function voidByRequest(simulation: Simulation, invoice: Stripe.Invoice): void {
  voidInvoice(simulation, invoice);
  const subscription = subscriptionOf(simulation, invoice);
  if (subscription === undefined) return;
  if (subscription.status === "incomplete") expireIncomplete(simulation, subscription);
  else restore(simulation, subscription, invoice);
}

/** The latest invoice being settled is what returns a subscription to active, however old the debt before it. */
function restore(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  invoice: Stripe.Invoice,
): void {
  const waiting = ["incomplete", "past_due", "unpaid"].includes(subscription.status);
  if (!waiting || subscription.latest_invoice !== invoice.id) return;
  change(simulation, subscription, () => {
    subscription.status = "active";
  });
}

/** incomplete → incomplete_expired, for good; its invoice is voided. */
export function expireIncomplete(simulation: Simulation, subscription: Stripe.Subscription): void {
  const invoice = simulation.store.invoices.get(idOf(subscription.latest_invoice) ?? "");
  change(simulation, subscription, () => {
    subscription.status = "incomplete_expired";
    subscription.ended_at = simulation.now();
  });
  if (invoice?.status === "open") voidInvoice(simulation, invoice);
}

function applyPendingChange(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  invoice: Stripe.Invoice,
): void {
  const pending = simulation.store.pendingChanges.get(subscription.id);
  if (pending === undefined || pending.invoice !== invoice.id) return;
  simulation.store.pendingChanges.delete(subscription.id);
  change(
    simulation,
    subscription,
    () => {
      subscription.pending_update = null;
      pending.apply();
    },
    "customer.subscription.pending_update_applied",
  );
}

function applyPendingResume(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  invoice: Stripe.Invoice,
): void {
  const pending = simulation.store.pendingResumes.get(subscription.id);
  if (pending === undefined || pending.invoice !== invoice.id) return;
  simulation.store.pendingResumes.delete(subscription.id);
  change(simulation, subscription, pending.apply, "customer.subscription.resumed");
}

/** A resumption whose payment did not come in time: the invoice is voided, the subscription stays paused. */
export function expirePendingResume(
  simulation: Simulation,
  subscription: Stripe.Subscription,
): void {
  const { store } = simulation;
  const invoice = store.invoices.get(store.pendingResumes.get(subscription.id)?.invoice ?? "");
  store.pendingResumes.delete(subscription.id);
  if (invoice?.status === "open") voidInvoice(simulation, invoice);
}

/** A change whose payment did not come in time is dropped, and its invoice voided. */
export function expirePendingChange(
  simulation: Simulation,
  subscription: Stripe.Subscription,
): void {
  const pending = simulation.store.pendingChanges.get(subscription.id);
  simulation.store.pendingChanges.delete(subscription.id);
  const invoice = simulation.store.invoices.get(pending?.invoice ?? "");
  if (invoice?.status === "open") voidInvoice(simulation, invoice);
  change(
    simulation,
    subscription,
    () => {
      subscription.pending_update = null;
    },
    "customer.subscription.pending_update_expired",
  );
}

function fail(
  simulation: Simulation,
  invoice: Stripe.Invoice,
  { attempt }: PaymentRequest,
  declineCode: string,
): void {
  const { store, rules, now } = simulation;
  const subscription = subscriptionOf(simulation, invoice);
  const counts = attempt === "automatic" || invoice.attempt_count === 0;
  const scheduled =
    counts &&
    subscription !== undefined &&
    subscription.status !== "incomplete" &&
    subscription.status !== "paused" &&
    !store.pendingChanges.has(subscription.id) &&
    invoice.auto_advance === true;
  const wait = scheduled ? rules.retryAfter[invoice.attempt_count] : undefined;

  change(
    simulation,
    invoice,
    () => {
      invoice.attempted = true;
      if (!counts) return;
      invoice.attempt_count += 1;
      invoice.next_payment_attempt = wait === undefined ? null : now() + wait;
    },
    "invoice.payment_failed",
    ...(declineCode === "authentication_required"
      ? (["invoice.payment_action_required"] as const)
      : []),
  );

  const customer = store.customers.get(idOf(invoice.customer) ?? "");
  if (customer !== undefined) {
    change(simulation, customer, () => {
      customer.delinquent = true;
    });
  }
  if (!scheduled) return;
  if (subscription.status === "active") {
    change(simulation, subscription, () => {
      subscription.status = "past_due";
    });
  }
  if (wait === undefined) giveUp(simulation, subscription, invoice);
}

/** What the account's rules make of a subscription whose retries are used up. */
function giveUp(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  invoice: Stripe.Invoice,
): void {
  if (subscription.status !== "past_due") return;
  if (simulation.rules.afterLastRetry === "cancel") {
    endSubscription(simulation, subscription, { reason: "payment_failed" });
  }
  if (simulation.rules.afterLastRetry === "pause") {
    stopCollecting(simulation, invoice);
    change(
      simulation,
      subscription,
      () => {
        subscription.status = "paused";
        subscription.status_details = {
          paused: {
            type: "subscription",
            transitioned_at: simulation.now(),
            subscription: { type: "final_payment_failure" },
          },
        };
      },
      "customer.subscription.paused",
    );
  }
  if (simulation.rules.afterLastRetry === "unpaid") {
    stopCollecting(simulation, invoice);
    change(simulation, subscription, () => {
      subscription.status = "unpaid";
    });
  }
}

/** Pays by request: 402 with the state already changed when the card says no. */
export function assertPayable(invoice: Stripe.Invoice): void {
  if (invoice.status === "paid") throw invalidRequest("Invoice is already paid");
  if (invoice.status === "void")
    throw invalidRequest("Invoice is voided and can no longer be paid");
}
