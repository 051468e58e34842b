/** What may happen in a life. */
import { day, refund, type JsonObject } from "../stripe-objects.ts";
import {
  discountOrNot,
  pauseCollection,
  release,
  scheduleChange,
  setUpCard,
  tellTaxId,
} from "./agreements.ts";
import { subscribe } from "./beginning.ts";
import { attachMethod, itemOf, type Bought, type Cast } from "./cast.ts";
import { inAllVersions, type Stage } from "./stage.ts";
import {
  bill,
  collect,
  draftInvoice,
  end,
  finalize,
  inAnyOrder,
  isEnding,
  isRunning,
  latestInvoice,
  note,
  periodEnd,
  periodFromNow,
  rolled,
  setItems,
  transitions,
} from "./steps.ts";
import { credit, dispute, warnOfFraud } from "./trouble.ts";

export type Scene = (stage: Stage, cast: Cast, bought: Bought) => void;

export function playScene(stage: Stage, cast: Cast): void {
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
                dispute,
                warnOfFraud,
                credit,
                discountOrNot,
                scheduleChange,
                scheduleChange,
                pauseCollection,
                tellTaxId,
                setUpCard,
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
  if (bought.schedule !== null) follow(bought);
  stage.change(bought.agreement, { items: rolled(bought, end) }, "customer.subscription.updated");
  if (bought.schedule !== null) release(stage, bought, bought.schedule);
  bill(stage, cast, bought, "subscription_cycle", 1000);
};

/** The schedule's next phase. */
function follow(bought: Bought): void {
  const { id, product } = bought.nextPrice!;
  const [base] = bought.items;
  bought.items = [
    { ...base!, price: { ...(base!["price"] as JsonObject), id, product }, quantity: 1 },
  ];
}

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
    stage.change(
      bought.agreement,
      { metadata: note(stage, bought) },
      "customer.subscription.updated",
    );
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
  const due = latestInvoice(stage, bought);
  inAnyOrder(stage, [
    () => stage.change(due, { next_payment_attempt: null }, "invoice.updated"),
    () => stage.change(bought.agreement, { status: "unpaid" }, "customer.subscription.updated"),
  ]);
};

const giveUp: Scene = (stage, cast) =>
  end(stage, cast, "canceled", "customer.subscription.deleted");

const scheduleEnd: Scene = (stage, _cast, bought) => {
  if (isEnding(bought)) {
    stage.changeOnRequest(
      "undo_cancel",
      bought.agreement,
      { cancel_at: null, cancel_at_period_end: false, canceled_at: null },
      "customer.subscription.updated",
    );
    return;
  }
  // The API sets the flag, the portal only the date.
  stage.changeOnRequest(
    "cancel_subscription",
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
  const [base, ...others] = bought.items;
  const isMany = others.length > 5 && stage.random.chance(0.8);
  const fewer = isMany ? [base!, ...others.slice(0, -1)] : [base!];
  const isMore = others.length === 0 || (isMany && stage.random.chance(0.5));
  setItems(stage, bought, isMore ? [...bought.items, extra] : fewer);
};

/** Several changes within one second: only what each says was there before tells their order. */
export const burst: Scene = (stage, cast, bought) => {
  const changes = stage.random.whole(2, 4);
  for (let count = 0; count < changes; count += 1) {
    stage.random.pick<Scene>([
      changeItems,
      scheduleEnd,
      addOrRemoveItem,
      () =>
        stage.change(
          bought.agreement,
          { metadata: note(stage, bought) },
          "customer.subscription.updated",
        ),
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
    isNamed ? inAllVersions({ customer: cast.reader.id }) : undefined,
  );
};

const forgetCustomer: Scene = (stage, cast) => {
  const hadSome = cast.bought !== null && isRunning(cast.bought);
  inAnyOrder(stage, [
    () => stage.announce("customer.deleted", cast.reader),
    () => hadSome && end(stage, cast, "canceled", "customer.subscription.deleted"),
  ]);
  cast.isGone = true;
};

const buyAgain: Scene = (stage, cast) => {
  if (!cast.isGone) subscribe(stage, cast);
};
