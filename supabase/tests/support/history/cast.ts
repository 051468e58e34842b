/** The cast of a life: a customer, what can be bought, what was bought. */
import { idOf } from "../readers.ts";
import {
  customer,
  day,
  paymentMethod,
  price,
  product,
  subscriptionItem,
  type JsonObject,
  type StripeObject,
} from "../stripe-objects.ts";
import { subscribe } from "./beginning.ts";
import type { Stage } from "./stage.ts";

export interface Bought {
  agreement: StripeObject;
  items: StripeObject[];
  /** Charges that were paid and not yet given back. */
  paid: { intent: string; charge: StripeObject }[];
  discount: StripeObject | null;
  schedule: StripeObject | null;
  /** What the schedule changes to. */
  nextPrice: Cast["prices"][number] | null;
}

export interface Cast {
  reader: StripeObject;
  method: StripeObject;
  prices: { id: string; product: string }[];
  /** What our metadata say on the subscription. */
  claim: JsonObject;
  bought: Bought | null;
  isGone: boolean;
}

export function introduce(stage: Stage, catalog: readonly [string, ...string[]]): Cast {
  const { random, history } = stage;
  const prices = random.chance(0.4)
    ? ownCatalog(stage)
    : catalog.map((id) => ({ id, product: `prod_of_${id}` }));
  const claim: JsonObject = { account_id: history.account.id };
  const whoseBy = random.pick(["customer", "subscription", "both", "later", "checkout", "nothing"]);

  const reader = customer(stage.id("cus"), {
    created: stage.now(),
    metadata: whoseBy === "customer" || whoseBy === "both" ? claim : {},
  });
  stage.announce("customer.created", reader);
  stage.breathe();
  const method = attachMethod(stage, reader);
  if (whoseBy === "later") {
    stage.pass(random.whole(0, day));
    stage.change(reader, { metadata: claim }, "customer.updated");
  }
  if (whoseBy === "checkout") {
    const id = idOf(`checkout of ${history.account.name}`);
    history.checkout = { id, sessionId: stage.id("cs") };
  }
  const isNamed = whoseBy === "subscription" || whoseBy === "both";
  return { reader, method, prices, claim: isNamed ? claim : {}, bought: null, isGone: false };
}

/** Forgotten at Stripe or not, the reader becomes another customer of the same account. */
export function comeBack(stage: Stage, before: Cast): Cast {
  const reader = customer(stage.id("cus"), {
    created: stage.now(),
    metadata: { account_id: stage.history.account.id },
  });
  stage.announce("customer.created", reader);
  stage.breathe();
  const cast = { ...before, reader, method: attachMethod(stage, reader), isGone: false };
  subscribe(stage, cast);
  return cast;
}

/** Products and prices of the life's own, which arrive like everything else: in any order. */
function ownCatalog(stage: Stage): Cast["prices"] {
  const { random } = stage;
  return Array.from({ length: 3 }, () => {
    const plan = product(stage.id("prod"), { created: stage.now() });
    const cost = price(stage.id("price"), plan.id, { created: stage.now() });
    const planKey = stage.id("plan");
    if (random.chance(0.8)) {
      stage.history.planKeys.push(planKey);
      plan["metadata"] = { plan_key: planKey };
    }
    if (random.chance(0.5)) cost["lookup_key"] = stage.id("key");
    stage.announce("product.created", plan);
    stage.announce("price.created", cost);
    stage.breathe();
    if (random.chance(0.3)) stage.change(plan, { name: "A better plan" }, "product.updated");
    if (random.chance(0.2)) stage.change(cost, { lookup_key: stage.id("key") }, "price.updated");
    if (random.chance(0.1)) stage.change(cost, { lookup_key: null }, "price.updated");
    return { id: cost.id, product: plan.id };
  });
}

export function attachMethod(stage: Stage, reader: StripeObject): StripeObject {
  const method = paymentMethod(stage.id("pm"), reader.id, { created: stage.now() });
  stage.announce("payment_method.attached", method);
  stage.breathe();
  stage.change(
    reader,
    { invoice_settings: { default_payment_method: method.id } },
    "customer.updated",
  );
  return method;
}

export function itemOf(stage: Stage, { id, product }: Cast["prices"][number]): StripeObject {
  return subscriptionItem(stage.id("si"), id, stage.now(), {
    price: { id, object: "price", active: true, currency: "usd", product },
  });
}
