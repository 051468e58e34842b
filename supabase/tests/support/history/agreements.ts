/** What may happen beside the subscription itself: discounts, schedules, paused collection, tax ids, cards. */
import { type JsonObject, type StripeObject } from "../stripe-objects.ts";
import type { Bought, Cast } from "./cast.ts";
import type { Stage } from "./stage.ts";
import { inAnyOrder, periodEnd } from "./steps.ts";

type Scene = (stage: Stage, cast: Cast, bought: Bought) => void;

/** Bought for less, or for the full price again. */
export const discountOrNot: Scene = (stage, cast, bought) => {
  const type = "customer.subscription.updated";
  if (bought.discount !== null) {
    const { discount } = bought;
    bought.discount = null;
    inAnyOrder(stage, [
      () => stage.announce("customer.discount.deleted", discount),
      () => stage.change(bought.agreement, { discounts: [] }, type),
    ]);
    return;
  }
  const off: StripeObject = {
    id: stage.id("co"),
    object: "coupon",
    amount_off: null,
    created: stage.now(),
    currency: null,
    duration: "forever",
    duration_in_months: null,
    livemode: false,
    metadata: {},
    name: "Less",
    percent_off: 25,
    times_redeemed: 0,
    valid: true,
  };
  stage.announce("coupon.created", off);
  const discount: StripeObject = {
    id: stage.id("di"),
    object: "discount",
    checkout_session: null,
    customer: cast.reader.id,
    end: null,
    promotion_code: null,
    source: { type: "coupon", coupon: off.id },
    start: stage.now(),
    subscription: bought.agreement.id,
    subscription_item: null,
  };
  bought.discount = discount;
  inAnyOrder(stage, [
    () => stage.announce("customer.discount.created", discount),
    () => stage.change(bought.agreement, { discounts: [discount.id] }, type),
    () => stage.change(off, { times_redeemed: 1 }, "coupon.updated"),
  ]);
};

/** Another price from the next period on, by a schedule; or not after all. */
export const scheduleChange: Scene = (stage, cast, bought) => {
  if (bought.schedule !== null) {
    release(stage, bought, bought.schedule);
    return;
  }
  const end = periodEnd(bought);
  const [base] = bought.items;
  const now = { start_date: Number(base!["current_period_start"]), end_date: end };
  const next = stage.random.pick([cast.prices[0]!, cast.prices[1]!]);
  const phases: JsonObject[] = [
    { ...now, items: [{ price: (base!["price"] as JsonObject)["id"]!, quantity: 1 }] },
  ];
  const schedule: StripeObject = {
    id: stage.id("sub_sched"),
    object: "subscription_schedule",
    canceled_at: null,
    completed_at: null,
    created: stage.now(),
    current_phase: now,
    customer: cast.reader.id,
    end_behavior: "release",
    livemode: false,
    metadata: {},
    phases,
    released_at: null,
    released_subscription: null,
    status: "active",
    subscription: bought.agreement.id,
  };
  bought.schedule = schedule;
  bought.nextPrice = next;
  inAnyOrder(stage, [
    () => stage.announce("subscription_schedule.created", schedule),
    () =>
      stage.change(bought.agreement, { schedule: schedule.id }, "customer.subscription.updated"),
  ]);
  const later = {
    start_date: end,
    end_date: end + 30 * 86_400,
    items: [{ price: next.id, quantity: 1 }],
  };
  stage.change(schedule, { phases: [...phases, later] }, "subscription_schedule.updated");
};

/** The schedule lets the subscription go. */
export function release(stage: Stage, bought: Bought, schedule: StripeObject): void {
  bought.schedule = null;
  inAnyOrder(stage, [
    () =>
      stage.change(
        schedule,
        {
          current_phase: null,
          released_at: stage.now(),
          released_subscription: bought.agreement.id,
          status: "released",
          subscription: null,
        },
        "subscription_schedule.released",
        "subscription_schedule.updated",
      ),
    () => stage.change(bought.agreement, { schedule: null }, "customer.subscription.updated"),
  ]);
}

/** Nothing is collected for a while, whatever the status says. */
export const pauseCollection: Scene = (stage, _cast, bought) => {
  const isPaused = bought.agreement["pause_collection"] !== null;
  const pause = {
    behavior: stage.random.pick(["keep_as_draft", "mark_uncollectible", "void"]),
    resumes_at: null,
  };
  stage.change(
    bought.agreement,
    { pause_collection: isPaused ? null : pause },
    "customer.subscription.updated",
  );
};

export const tellTaxId: Scene = (stage, cast) => {
  const taxId: StripeObject = {
    id: stage.id("txi"),
    object: "tax_id",
    country: "DE",
    created: stage.now(),
    customer: cast.reader.id,
    livemode: false,
    type: "eu_vat",
    value: "DE123456789",
    verification: { status: "pending", verified_address: null, verified_name: null },
  };
  stage.announce("customer.tax_id.created", taxId);
  stage.breathe();
  const verification = { status: "verified", verified_address: null, verified_name: "A Reader" };
  stage.change(taxId, { verification }, "customer.tax_id.updated");
  if (stage.random.chance(0.3)) stage.announce("customer.tax_id.deleted", taxId);
};

export const setUpCard: Scene = (stage, cast) => {
  const intent: StripeObject = {
    id: stage.id("seti"),
    object: "setup_intent",
    cancellation_reason: null,
    created: stage.now(),
    customer: cast.reader.id,
    last_setup_error: null,
    livemode: false,
    metadata: {},
    payment_method: null,
    status: "requires_payment_method",
    usage: "off_session",
  };
  stage.announce("setup_intent.created", intent);
  stage.breathe();
  const succeeds = stage.random.chance(0.7);
  stage.change(
    intent,
    succeeds
      ? { payment_method: cast.method.id, status: "succeeded" }
      : { last_setup_error: { code: "card_declined", message: "No." } },
    succeeds ? "setup_intent.succeeded" : "setup_intent.setup_failed",
  );
};
