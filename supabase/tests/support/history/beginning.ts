/** How it begins: a subscription that is paid, tried or never paid, through a checkout of ours or not. */
import { day, subscription, type StripeObject } from "../stripe-objects.ts";
import { itemOf, type Bought, type Cast } from "./cast.ts";
import type { Stage } from "./stage.ts";
import { bill, collect, draftInvoice, end, finalize, inAnyOrder, transitions } from "./steps.ts";

export function subscribe(stage: Stage, cast: Cast): void {
  const { random, history } = stage;
  const items = [itemOf(stage, random.pick([cast.prices[0]!, cast.prices[1]!]))];
  // Events show ten of a list.
  const extras = random.chance(0.3) ? (random.chance(0.2) ? random.whole(9, 12) : 1) : 0;
  for (let extra = 0; extra < extras; extra += 1) items.push(itemOf(stage, cast.prices[2]!));
  const agreement = subscription(stage.id("sub"), cast.reader.id, items, { metadata: cast.claim });
  const bought: Bought = {
    agreement,
    items,
    paid: [],
    discount: null,
    schedule: null,
    nextPrice: null,
  };
  cast.bought = bought;

  const beginning = random.pick(["paid", "paid", "trial", "trial", "never paid"]);
  if (beginning === "trial") {
    const end = stage.now() + 14 * day;
    for (const item of items) item["current_period_end"] = end;
    Object.assign(agreement, { status: "trialing", trial_start: stage.now(), trial_end: end });
    stage.announce("customer.subscription.created", agreement);
    bill(stage, cast, bought, "subscription_create", 0);
  } else {
    agreement["status"] = "incomplete";
    const due = draftInvoice(stage, bought, "subscription_create", 1000);
    agreement["latest_invoice"] = due.id;
    stage.announce("customer.subscription.created", agreement);
    stage.announce("invoice.created", due);
    stage.breathe();
    finalize(stage, due);
    if (beginning === "paid") {
      inAnyOrder(stage, [
        () => collect(stage, cast, bought, due, true),
        () => stage.change(agreement, { status: "active" }, "customer.subscription.updated"),
      ]);
    } else {
      collect(stage, cast, bought, due, false);
      stage.pass(23 * 3600);
      inAnyOrder(stage, [
        () => end(stage, cast, "incomplete_expired", "customer.subscription.updated"),
        () =>
          stage.change(
            due,
            { status: "void", status_transitions: transitions(due, "voided_at", stage.now()) },
            "invoice.voided",
            "invoice.updated",
          ),
      ]);
    }
  }

  if (history.checkout !== null && stage.end(history.checkout.sessionId) === undefined) {
    const session: StripeObject = {
      id: history.checkout.sessionId,
      object: "checkout.session",
      created: stage.now(),
      customer: cast.reader.id,
      expires_at: stage.now() + day,
      metadata: { checkout_id: history.checkout.id },
      mode: "subscription",
      payment_status: "unpaid",
      status: "complete",
      subscription: agreement.id,
      url: null,
    };
    stage.announce("checkout.session.completed", session);
    if (random.chance(0.5)) {
      stage.pass(random.whole(0, 2 * day));
      session["payment_status"] = "paid";
      stage.announce("checkout.session.async_payment_succeeded", session);
    }
  }
}
