/** Steps that scenes are made of: items, invoices, payments. */
import {
  charge,
  day,
  invoice,
  listOf,
  month,
  paymentIntent,
  type JsonObject,
  type StripeObject,
} from "../stripe-objects.ts";
import type { Bought, Cast } from "./cast.ts";
import type { Stage } from "./stage.ts";

export function end(stage: Stage, cast: Cast, status: string, type: string): void {
  const at = stage.now();
  const changes = { status, canceled_at: at, ended_at: at };
  stage.changeOnRequest("cancel_subscription", cast.bought!.agreement, changes, type);
}

export function setItems(stage: Stage, bought: Bought, items: StripeObject[]): void {
  bought.items = items;
  const changes = { items: listOf(items) };
  const type = "customer.subscription.updated";
  stage.changeOnRequest("change_plan", bought.agreement, changes, type);
}

/** The items in their next period. */
export function rolled(bought: Bought, start: number): JsonObject {
  bought.items = bought.items.map((item) => ({
    ...item,
    current_period_start: start,
    current_period_end: start + month,
  }));
  return listOf(bought.items);
}

export function draftInvoice(
  stage: Stage,
  bought: Bought,
  reason: string,
  amount: number,
): StripeObject {
  const lines = bought.items.map((item) => ({
    id: stage.id("il"),
    object: "line_item",
    amount,
    currency: "usd",
    description: "A period",
    parent: {
      type: "subscription_item_details",
      invoice_item_details: null,
      subscription_item_details: { proration: false, subscription_item: item.id },
    },
    period: { start: item["current_period_start"]!, end: item["current_period_end"]! },
    pricing: { price_details: { price: (item["price"] as JsonObject)["id"]!, product: null } },
    quantity: item["quantity"]!,
  }));
  return invoice(stage.id("in"), String(bought.agreement["customer"]), bought.agreement.id, {
    amount_due: amount,
    amount_remaining: amount,
    billing_reason: reason,
    created: stage.now(),
    lines: listOf(lines),
    subtotal: amount,
    total: amount,
  });
}

export function finalize(stage: Stage, due: StripeObject): void {
  stage.change(
    due,
    {
      hosted_invoice_url: `https://invoice.example.com/${due.id}`,
      number: `N-${due.id}`,
      status: "open",
      status_transitions: transitions(due, "finalized_at", stage.now()),
    },
    "invoice.finalized",
    "invoice.updated",
  );
  stage.breathe();
}

export function bill(
  stage: Stage,
  cast: Cast,
  bought: Bought,
  reason: string,
  amount: number,
): void {
  const due = draftInvoice(stage, bought, reason, amount);
  inAnyOrder(stage, [
    () => stage.announce("invoice.created", due),
    () =>
      stage.change(bought.agreement, { latest_invoice: due.id }, "customer.subscription.updated"),
  ]);
  stage.pass(reason === "subscription_cycle" ? 3600 : 0);
  finalize(stage, due);
  collect(stage, cast, bought, due, true);
}

/** One attempt to collect an invoice. Nothing to collect is paid at once, without a payment. */
export function collect(
  stage: Stage,
  cast: Cast,
  bought: Bought,
  due: StripeObject,
  succeeds: boolean,
): void {
  const at = stage.now();
  const amount = Number(due["amount_due"]);
  const settled = {
    amount_paid: amount,
    amount_remaining: 0,
    next_payment_attempt: null,
    status: "paid",
    status_transitions: transitions(due, "paid_at", at),
  };
  if (amount === 0) {
    stage.change(due, settled, "invoice.paid", "invoice.payment_succeeded", "invoice.updated");
    return;
  }

  const intent = intentOf(stage, cast, due);
  stage.breathe();
  const attempt = charge(stage.id("ch"), cast.reader.id, intent.id, {
    created: stage.now(),
    payment_method: cast.method.id,
    ...(succeeds ? {} : { amount_captured: 0, failure_code: "card_declined", status: "failed" }),
  });
  if (succeeds) {
    bought.paid.push({ intent: intent.id, charge: attempt });
    inAnyOrder(stage, [
      () => stage.announce("charge.succeeded", attempt),
      () =>
        stage.change(
          intent,
          { amount_received: amount, latest_charge: attempt.id, status: "succeeded" },
          "payment_intent.succeeded",
        ),
      () => stage.change(due, settled, "invoice.paid", "invoice.payment_succeeded"),
      () =>
        stage.announce("invoice_payment.paid", {
          id: stage.id("inpay"),
          object: "invoice_payment",
          amount_paid: amount,
          amount_requested: amount,
          created: stage.now(),
          currency: "usd",
          invoice: due.id,
          payment: { type: "payment_intent", payment_intent: intent.id },
          status: "paid",
        }),
    ]);
    return;
  }
  const refusal = { code: "card_declined", decline_code: "insufficient_funds", message: "No." };
  stage.announce("charge.failed", attempt);
  stage.change(
    intent,
    { last_payment_error: refusal, latest_charge: attempt.id, status: "requires_payment_method" },
    "payment_intent.payment_failed",
  );
  stage.change(
    due,
    {
      attempt_count: Number(due["attempt_count"]) + 1,
      next_payment_attempt: stage.now() + 3 * day,
    },
    "invoice.payment_failed",
    "invoice.updated",
  );
}

/** An invoice has one payment intent, however often it is tried. */
function intentOf(stage: Stage, cast: Cast, due: StripeObject): StripeObject {
  const id = due.id.replace("in_", "pi_");
  const known = stage.end(id);
  if (known !== undefined) return known;
  const intent = paymentIntent(id, cast.reader.id, {
    created: stage.now(),
    payment_method: cast.method.id,
  });
  stage.announce("payment_intent.created", intent);
  return intent;
}

export function latestInvoice(stage: Stage, bought: Bought): StripeObject {
  return stage.end(String(bought.agreement["latest_invoice"]))!;
}

export function transitions(due: StripeObject, key: string, at: number): JsonObject {
  return { ...(due["status_transitions"] as JsonObject), [key]: at };
}

export function periodEnd(bought: Bought): number {
  return Number(bought.items[0]!["current_period_end"]);
}

/**
 * The rest of the running period; a renewal may be due that has not come yet. In old versions all items share
 * the subscription's.
 */
export function periodFromNow(stage: Stage, bought: Bought): JsonObject {
  const end = periodEnd(bought);
  if (stage.history.shape !== "endive") {
    return {
      current_period_start: bought.items[0]!["current_period_start"]!,
      current_period_end: end,
    };
  }
  return { current_period_start: Math.min(stage.now(), end), current_period_end: end };
}

export function isRunning({ agreement }: Bought): boolean {
  return agreement["ended_at"] === null;
}

export function isEnding(bought: Bought): boolean {
  return bought.agreement["cancel_at"] !== null;
}

/** Metadata with another note; now and then it is all they say, and whose it is can only be remembered. */
export function note(stage: Stage, { agreement }: Bought): JsonObject {
  const kept = stage.random.chance(0.1) ? {} : (agreement["metadata"] as JsonObject);
  return { ...kept, note: String(stage.random.whole(1, 9)) };
}

/** Things that happen at the same time, whose events come in any order. */
export function inAnyOrder(stage: Stage, steps: (() => unknown)[]): void {
  for (const step of stage.random.shuffled(steps)) {
    step();
    stage.breathe();
  }
}
