/**
 * Random but lawful lives of Stripe customers, told as the events Stripe would send: what is bought, renewed,
 * owed, changed, canceled, refunded and deleted, with bursts of events inside one second.
 */
import { previousAttributes, snapshot } from "../../../scripts/stripe-simulator/snapshots.ts";
import { createRandom, type Random } from "./random.ts";
import { idOf } from "./readers.ts";
import {
  charge,
  customer,
  day,
  eventBody,
  invoice,
  listOf,
  month,
  paymentIntent,
  paymentMethod,
  price,
  product,
  refund,
  second,
  subscription,
  subscriptionItem,
  type JsonObject,
  type StripeObject,
} from "./stripe-objects.ts";

export interface History {
  /** The same seed and another copy: the same life, of another customer. */
  seed: number;
  copy: string;
  /** Bodies of webhook requests, in the order in which things happened. */
  bodies: string[];
  /** The reader's account, which exists before the first event. */
  account: { id: string; name: string };
  /** Keys of plans that are written here first and claimed by a product. */
  planKeys: string[];
  /** A checkout of ours that leads to the subscription. */
  checkout: { id: string; sessionId: string } | null;
  /** How each object ended, by its id. Deleted customers say so. */
  ends: Map<string, StripeObject>;
}

export const copyMark = "~";

/** All that tells the copies of a life apart, taken out of a text. */
export function withoutCopy(text: string, { account, checkout, copy }: History): string {
  const neutral = text.replaceAll(account.id, "account").replaceAll(`${copyMark}${copy}`, "");
  return checkout === null ? neutral : neutral.replaceAll(checkout.id, "checkout");
}

/** One life. Prices that are not the life's own are named in `catalog`. */
export function tellHistory(
  seed: number,
  copy: string,
  catalog: readonly [string, ...string[]],
): History {
  const stage = setStage(seed, copy);
  let cast = introduce(stage, catalog);
  const scenes = stage.random.whole(2, 7);
  subscribe(stage, cast);
  for (let scene = 0; scene < scenes; scene += 1) {
    stage.pass(stage.random.whole(0, 3 * day));
    if (!cast.isGone) playScene(stage, cast);
    else if (stage.random.chance(0.5)) cast = comeBack(stage, cast);
  }
  // What came last decides the rows: often it is a burst.
  if (cast.bought !== null && isRunning(cast.bought) && stage.random.chance(0.6)) {
    stage.pass(1);
    burst(stage, cast, cast.bought);
  }
  return stage.history;
}

// ---- the stage: time, names, and events ---------------------------------------

interface Stage {
  random: Random;
  history: History;
  now(): number;
  pass(seconds: number): void;
  /** Mostly nothing passes: Stripe's events have whole seconds, and much happens within one. */
  breathe(): void;
  id(prefix: string): string;
  announce(type: string, object: StripeObject, previous?: JsonObject): void;
  /** One change and its events, in any order: what is called updated tells what was there before. */
  change(object: StripeObject, changes: JsonObject, ...types: string[]): void;
}

function setStage(seed: number, copy: string): Stage {
  const random = createRandom(seed);
  const name = `reader_${seed}${copyMark}${copy}`;
  const history: History = {
    seed,
    copy,
    bodies: [],
    account: { id: idOf(name), name },
    planKeys: [],
    checkout: null,
    ends: new Map(),
  };
  // An endpoint need not listen to everything.
  const unheard = random.pick<readonly string[]>([[], [], ["payment_intent."], ["charge."]]);
  const render = random.chance(0.25) ? asBeforeBasil : snapshot;
  const made: Record<string, number> = {};
  let clock = second("2026-01-01") + random.whole(0, 20 * day);

  function id(prefix: string): string {
    made[prefix] = (made[prefix] ?? 0) + 1;
    return `${prefix}_${seed}_${made[prefix]}${copyMark}${copy}`;
  }

  function announce(type: string, object: StripeObject, previous?: JsonObject): void {
    history.ends.set(object.id, snapshot(object) as StripeObject);
    // Ids of events say nothing about their order.
    const event = `evt_${seed}_${random.whole(1000, 9999)}${id("")}`;
    if (unheard.some((prefix) => type.startsWith(prefix))) return;
    const fields = { type, created: clock, object: render(object), previous };
    history.bodies.push(eventBody({ id: event, ...fields }));
    // B2: two events that say the same.
    if (random.chance(0.05)) history.bodies.push(eventBody({ id: `${event}_again`, ...fields }));
  }

  function change(object: StripeObject, changes: JsonObject, ...types: string[]): void {
    const before = render(object);
    Object.assign(object, structuredClone(changes));
    const previous = previousAttributes(before, render(object));
    for (const type of random.shuffled(types)) {
      announce(type, object, type.endsWith(".updated") ? previous : undefined);
    }
  }

  return {
    random,
    history,
    now: () => clock,
    pass: (seconds) => void (clock += seconds),
    breathe: () => void (clock += random.chance(0.7) ? 0 : random.whole(1, 3)),
    id,
    announce,
    change,
  };
}

/** As API versions before 2025-03-31 showed it: the period on the subscription, the invoice's links at its top. */
function asBeforeBasil(object: StripeObject): JsonObject {
  const shown = snapshot(object) as JsonObject;
  if (object.object === "subscription") {
    const { data } = shown["items"] as unknown as { data: JsonObject[] };
    const period = ["current_period_start", "current_period_end"];
    for (const key of period) shown[key] = data[0]![key]!;
    for (const item of data) for (const key of period) delete item[key];
  }
  if (object.object === "invoice") {
    const { parent, lines } = shown as unknown as {
      parent: { subscription_details: { subscription: string } };
      lines: { data: JsonObject[] };
    };
    shown["subscription"] = parent.subscription_details.subscription;
    delete shown["parent"];
    for (const line of lines.data) {
      const { subscription_item_details: details } = line["parent"] as Record<string, JsonObject>;
      Object.assign(line, details, { price: (line["pricing"] as JsonObject)["price_details"]! });
      line["price"] = { id: (line["price"] as JsonObject)["price"]!, object: "price" };
      delete line["parent"];
      delete line["pricing"];
    }
  }
  return shown;
}

// ---- the cast: a customer, what can be bought, what was bought --------------------

interface Bought {
  agreement: StripeObject;
  items: StripeObject[];
  /** Charges that were paid and not yet given back. */
  paid: { intent: string; charge: StripeObject }[];
}

interface Cast {
  reader: StripeObject;
  method: StripeObject;
  prices: { id: string; product: string }[];
  /** What our metadata say on the subscription. */
  claim: JsonObject;
  bought: Bought | null;
  isGone: boolean;
}

function introduce(stage: Stage, catalog: readonly [string, ...string[]]): Cast {
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

/** Forgotten at Stripe, the reader becomes another customer of the same account. */
function comeBack(stage: Stage, before: Cast): Cast {
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

function attachMethod(stage: Stage, reader: StripeObject): StripeObject {
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

function itemOf(stage: Stage, { id, product }: Cast["prices"][number]): StripeObject {
  return subscriptionItem(stage.id("si"), id, stage.now(), {
    price: { id, object: "price", active: true, currency: "usd", product },
  });
}

// ---- how it begins ------------------------------------------------------------

function subscribe(stage: Stage, cast: Cast): void {
  const { random, history } = stage;
  const items = [itemOf(stage, random.pick([cast.prices[0]!, cast.prices[1]!]))];
  if (random.chance(0.3)) items.push(itemOf(stage, cast.prices[2]!));
  const agreement = subscription(stage.id("sub"), cast.reader.id, items, { metadata: cast.claim });
  const bought: Bought = { agreement, items, paid: [] };
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

  if (history.checkout !== null && !history.ends.has(history.checkout.sessionId)) {
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

// ---- what may happen then --------------------------------------------------------

type Scene = (stage: Stage, cast: Cast, bought: Bought) => void;

function playScene(stage: Stage, cast: Cast): void {
  const { random } = stage;
  const { bought } = cast;
  const status = bought?.agreement["status"];
  if (bought === null || status === "canceled" || status === "incomplete_expired") {
    random.pick([moveHouse, moveHouse, changeCard, giveBack, forgetCustomer, buyAgain])(
      stage,
      cast,
      bought!,
    );
    return;
  }
  const scenes: readonly [Scene, ...Scene[]] =
    status === "past_due"
      ? [recover, recover, writeOff, stopTrying, giveUp, changeCard]
      : status === "unpaid"
        ? [recover, giveUp, moveHouse]
        : status === "paused"
          ? [resume, resume, giveUp, changeItems]
          : status === "trialing"
            ? [endTrial, endTrial, endTrial, changeItems, scheduleEnd, giveUp, changeCard]
            : [
                renew,
                renew,
                renew,
                failToRenew,
                failToRenew,
                changeItems,
                changeItems,
                replaceItems,
                addOrRemoveItem,
                scheduleEnd,
                burst,
                burst,
                giveBack,
                pause,
                giveUp,
                moveHouse,
                changeCard,
                forgetCustomer,
              ];
  random.pick(scenes)(stage, cast, bought);
}

const endTrial: Scene = (stage, cast, bought) => {
  const end = Number(bought.agreement["trial_end"]);
  stage.pass(Math.max(0, end - stage.now() - (stage.random.chance(0.5) ? 3 * day : 0)));
  stage.announce("customer.subscription.trial_will_end", bought.agreement);
  stage.pass(Math.max(0, end - stage.now()));
  if (stage.random.chance(0.8)) {
    stage.change(
      bought.agreement,
      { status: "active", items: rolled(bought, end) },
      "customer.subscription.updated",
    );
    bill(stage, cast, bought, "subscription_cycle", 1000);
  } else {
    const types = ["customer.subscription.paused", "customer.subscription.updated"];
    stage.change(bought.agreement, { status: "paused" }, ...types);
  }
};

const renew: Scene = (stage, cast, bought) => {
  const end = periodEnd(bought);
  stage.pass(Math.max(0, end - stage.now()));
  if (isEnding(bought)) {
    giveUp(stage, cast, bought);
    return;
  }
  stage.change(bought.agreement, { items: rolled(bought, end) }, "customer.subscription.updated");
  bill(stage, cast, bought, "subscription_cycle", 1000);
};

const failToRenew: Scene = (stage, cast, bought) => {
  const end = periodEnd(bought);
  stage.pass(Math.max(0, end - stage.now()));
  const due = draftInvoice(stage, bought, "subscription_cycle", 1000);
  stage.announce("invoice.created", due);
  stage.change(
    bought.agreement,
    { items: rolled(bought, end), latest_invoice: due.id },
    "customer.subscription.updated",
  );
  stage.pass(3600);
  finalize(stage, due);
  inAnyOrder(stage, [
    () => collect(stage, cast, bought, due, false),
    () => stage.change(bought.agreement, { status: "past_due" }, "customer.subscription.updated"),
  ]);
  if (stage.random.chance(0.5)) {
    stage.pass(3 * day);
    collect(stage, cast, bought, due, false);
    // An update that is still past_due does not begin a new series.
    stage.change(bought.agreement, { metadata: note(stage) }, "customer.subscription.updated");
  }
};

const recover: Scene = (stage, cast, bought) => {
  const due = latestInvoice(stage, bought);
  inAnyOrder(stage, [
    () => collect(stage, cast, bought, due, true),
    () => stage.change(bought.agreement, { status: "active" }, "customer.subscription.updated"),
  ]);
};

const writeOff: Scene = (stage, _cast, bought) => {
  const due = latestInvoice(stage, bought);
  stage.change(
    due,
    {
      status: "uncollectible",
      status_transitions: transitions(due, "marked_uncollectible_at", stage.now()),
    },
    "invoice.marked_uncollectible",
    "invoice.updated",
  );
  stage.breathe();
  stage.change(bought.agreement, { status: "active" }, "customer.subscription.updated");
};

const stopTrying: Scene = (stage, _cast, bought) => {
  stage.change(bought.agreement, { status: "unpaid" }, "customer.subscription.updated");
};

const giveUp: Scene = (stage, cast) =>
  end(stage, cast, "canceled", "customer.subscription.deleted");

const scheduleEnd: Scene = (stage, _cast, bought) => {
  if (isEnding(bought)) {
    stage.change(
      bought.agreement,
      { cancel_at: null, cancel_at_period_end: false, canceled_at: null },
      "customer.subscription.updated",
    );
    return;
  }
  // The API sets the flag, the portal only the date.
  stage.change(
    bought.agreement,
    {
      cancel_at: periodEnd(bought),
      cancel_at_period_end: stage.random.chance(0.5),
      canceled_at: stage.now(),
    },
    "customer.subscription.updated",
  );
  if (stage.random.chance(0.4)) {
    stage.breathe();
    scheduleEnd(stage, _cast, bought);
  }
};

const changeItems: Scene = (stage, cast, bought) => {
  const next = stage.random.pick([cast.prices[0]!, cast.prices[1]!]);
  const [base, ...others] = bought.items;
  setItems(stage, bought, [
    {
      ...base!,
      price: { ...(base!["price"] as JsonObject), id: next.id, product: next.product },
      quantity: stage.random.whole(1, 4),
    },
    ...others,
  ]);
};

const replaceItems: Scene = (stage, cast, bought) => {
  const next = itemOf(stage, stage.random.pick([cast.prices[0]!, cast.prices[1]!]));
  setItems(stage, bought, [{ ...next, ...periodFromNow(stage, bought) }]);
};

const addOrRemoveItem: Scene = (stage, cast, bought) => {
  const extra = { ...itemOf(stage, cast.prices[2]!), ...periodFromNow(stage, bought) };
  setItems(stage, bought, bought.items.length > 1 ? [bought.items[0]!] : [...bought.items, extra]);
};

/** Several changes within one second: only what each says was there before tells their order. */
const burst: Scene = (stage, cast, bought) => {
  const changes = stage.random.whole(2, 4);
  for (let count = 0; count < changes; count += 1) {
    stage.random.pick<Scene>([
      changeItems,
      scheduleEnd,
      addOrRemoveItem,
      () =>
        stage.change(bought.agreement, { metadata: note(stage) }, "customer.subscription.updated"),
    ])(stage, cast, bought);
  }
};

const pause: Scene = (stage, _cast, bought) => {
  const types = ["customer.subscription.paused", "customer.subscription.updated"];
  stage.change(bought.agreement, { status: "paused" }, ...types);
};

const resume: Scene = (stage, _cast, bought) => {
  const types = ["customer.subscription.resumed", "customer.subscription.updated"];
  stage.change(bought.agreement, { status: "active" }, ...types);
};

const giveBack: Scene = (stage, _cast, bought) => {
  const paid = bought?.paid.pop();
  if (paid === undefined) return;
  const amount = stage.random.pick([400, 1000]);
  const back = refund(stage.id("re"), paid.intent, {
    amount,
    charge: paid.charge.id,
    created: stage.now(),
    status: stage.random.pick(["pending", "succeeded"]),
  });
  const isWhole = amount === 1000;
  inAnyOrder(stage, [
    () => stage.announce("refund.created", back),
    () =>
      stage.change(
        paid.charge,
        { amount_refunded: amount, refunded: isWhole },
        "charge.refunded",
        "charge.updated",
      ),
  ]);
  if (back["status"] === "pending" && stage.random.chance(0.7)) {
    stage.breathe();
    stage.change(back, { status: "succeeded" }, "refund.updated", "charge.refund.updated");
  }
  if (stage.random.chance(0.2)) {
    stage.pass(day);
    stage.change(back, { status: "failed", failure_reason: "declined" }, "refund.failed");
  }
};

const moveHouse: Scene = (stage, cast) => {
  stage.change(
    cast.reader,
    { email: `${stage.random.whole(1, 999)}@example.com`, delinquent: stage.random.chance(0.5) },
    "customer.updated",
  );
};

const changeCard: Scene = (stage, cast) => {
  const old = cast.method;
  // Without another one, the customer's last snapshot goes on naming it.
  if (old["customer"] === null || stage.random.chance(0.7))
    cast.method = attachMethod(stage, cast.reader);
  if (old["customer"] === null) return;
  stage.breathe();
  const detached = Object.assign(old, { customer: null });
  const isNamed = stage.random.chance(0.5);
  stage.announce(
    "payment_method.detached",
    detached,
    isNamed ? { customer: cast.reader.id } : undefined,
  );
};

const forgetCustomer: Scene = (stage, cast) => {
  const hadSome = cast.bought !== null && isRunning(cast.bought);
  inAnyOrder(stage, [
    () => stage.announce("customer.deleted", cast.reader),
    () => hadSome && end(stage, cast, "canceled", "customer.subscription.deleted"),
  ]);
  stage.history.ends.set(cast.reader.id, { ...cast.reader, deleted: true });
  cast.isGone = true;
};

const buyAgain: Scene = (stage, cast) => {
  if (!cast.isGone) subscribe(stage, cast);
};

// ---- steps of scenes -----------------------------------------------------------

function end(stage: Stage, cast: Cast, status: string, type: string): void {
  const at = stage.now();
  stage.change(cast.bought!.agreement, { status, canceled_at: at, ended_at: at }, type);
}

function setItems(stage: Stage, bought: Bought, items: StripeObject[]): void {
  bought.items = items;
  stage.change(bought.agreement, { items: listOf(items) }, "customer.subscription.updated");
}

/** The items in their next period. */
function rolled(bought: Bought, start: number): JsonObject {
  bought.items = bought.items.map((item) => ({
    ...item,
    current_period_start: start,
    current_period_end: start + month,
  }));
  return listOf(bought.items);
}

function draftInvoice(stage: Stage, bought: Bought, reason: string, amount: number): StripeObject {
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

function finalize(stage: Stage, due: StripeObject): void {
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

function bill(stage: Stage, cast: Cast, bought: Bought, reason: string, amount: number): void {
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
function collect(
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
  const known = stage.history.ends.get(id);
  if (known !== undefined) return known;
  const intent = paymentIntent(id, cast.reader.id, {
    created: stage.now(),
    payment_method: cast.method.id,
  });
  stage.announce("payment_intent.created", intent);
  return intent;
}

function latestInvoice(stage: Stage, bought: Bought): StripeObject {
  return stage.history.ends.get(String(bought.agreement["latest_invoice"]))!;
}

function transitions(due: StripeObject, key: string, at: number): JsonObject {
  return { ...(due["status_transitions"] as JsonObject), [key]: at };
}

function periodEnd(bought: Bought): number {
  return Number(bought.items[0]!["current_period_end"]);
}

/** The rest of the running period; a renewal may be due that has not come yet. */
function periodFromNow(stage: Stage, bought: Bought): JsonObject {
  const end = periodEnd(bought);
  return { current_period_start: Math.min(stage.now(), end), current_period_end: end };
}

function isRunning({ agreement }: Bought): boolean {
  return agreement["ended_at"] === null;
}

function isEnding(bought: Bought): boolean {
  return bought.agreement["cancel_at"] !== null;
}

function note(stage: Stage): JsonObject {
  return { note: String(stage.random.whole(1, 9)) };
}

/** Things that happen at the same time, whose events come in any order. */
function inAnyOrder(stage: Stage, steps: (() => unknown)[]): void {
  for (const step of stage.random.shuffled(steps)) {
    step();
    stage.breathe();
  }
}
