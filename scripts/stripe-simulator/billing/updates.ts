/** Changes of a running subscription: plan, quantity, items, with their prorations. */
import type Stripe from "stripe";
import { invalidRequest, noSuch } from "../errors.ts";
import { cardDeclined } from "../objects/declines.ts";
import { planOf, recurrence, subscribablePrice } from "../objects/prices.ts";
import { productName } from "../objects/checkout_line_items.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { amountFor, remainingShare } from "./amounts.ts";
import { collect, judge, paymentMethodFor, type Verdict } from "./collection.ts";
import {
  discountAmounts,
  discountsOf,
  plannedDiscounts,
  setDiscounts,
  type Offer,
} from "./discounts.ts";
import {
  addPendingItem,
  announceInvoice,
  draftInvoice,
  itemLine,
  type NewLine,
} from "./invoicing.ts";
import { newItem, periodOf } from "./lifecycle.ts";
import { addIntervals, sameInterval } from "./periods.ts";

export interface ItemEdit {
  id?: string | undefined;
  price?: string | undefined;
  quantity?: number | undefined;
  deleted?: boolean | undefined;
  metadata?: Stripe.Metadata | undefined;
}

export interface ItemsUpdate {
  items: ItemEdit[];
  prorationBehavior: "always_invoice" | "create_prorations" | "none";
  prorationDate: number;
  paymentBehavior:
    "allow_incomplete" | "default_incomplete" | "error_if_incomplete" | "pending_if_incomplete";
  /** Starts a new cycle now, whatever the change. */
  restart: boolean;
  /** The discounts from now on, when they change too. */
  discounts?: (Offer | Stripe.Discount)[] | undefined;
}

interface Plan {
  /** What each changed item's period is billed at from now on. */
  debits: Map<string, number>;
  items: Stripe.SubscriptionItem[];
  prorations: NewLine[];
  /** Full first periods of items that start a new cycle now. */
  firstPeriods: NewLine[];
  anchor: number;
  discounts: Stripe.Discount[];
}

/**
 * Applies edits to a subscription's items and charges or keeps their prorations.
 *
 * With `error_if_incomplete` a decline changes nothing and is thrown; with `pending_if_incomplete` the change waits in
 * `pending_update` until its invoice is paid.
 */
export function updateItems(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  update: ItemsUpdate,
): void {
  const plan = planUpdate(simulation, subscription, update);
  const lines = [...plan.prorations, ...plan.firstPeriods];
  const invoiceNow =
    plan.firstPeriods.length > 0 ||
    (update.prorationBehavior === "always_invoice" && plan.prorations.length > 0);
  const apply = () => {
    subscription.items.data = plan.items;
    subscription.billing_cycle_anchor = plan.anchor;
    for (const [item, amount] of plan.debits) simulation.store.debited.set(item, amount);
  };
  const redeemDiscounts = () => {
    if (update.discounts === undefined) return;
    const wanted = update.discounts;
    change(simulation, subscription, () => setDiscounts(simulation, subscription, wanted));
  };

  if (!invoiceNow) {
    redeemDiscounts();
    change(simulation, subscription, apply);
    for (const line of plan.prorations) addPendingItem(simulation, subscription, line);
    return;
  }

  const cautious =
    update.paymentBehavior === "error_if_incomplete" ||
    update.paymentBehavior === "pending_if_incomplete";
  const verdict = cautious ? judgeLines(simulation, subscription, lines) : undefined;
  if (verdict?.paid === false) {
    if (update.paymentBehavior === "error_if_incomplete") throw cardDeclined(verdict.declineCode);
    park(simulation, subscription, plan, apply, verdict);
    return;
  }

  redeemDiscounts();
  for (const line of plan.prorations) addPendingItem(simulation, subscription, line);
  const invoice = draftInvoice(simulation, subscription, {
    reason: "subscription_update",
    lines: plan.firstPeriods,
    window: { start: simulation.now(), end: simulation.now() },
    prorationDate: update.prorationDate,
  });
  change(simulation, subscription, () => {
    apply();
    subscription.latest_invoice = invoice.id;
  });
  announceInvoice(simulation, subscription, invoice);
  if (update.paymentBehavior !== "default_incomplete") {
    collect(simulation, invoice, { attempt: "automatic", customerPresent: false, verdict });
  }
}

/** What the card says to the sum of these lines; undefined when nothing is due. */
function judgeLines(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  lines: NewLine[],
): Verdict | undefined {
  const customer = simulation.store.customers.require(idOf(subscription.customer) ?? "");
  const total = lines.reduce((sum, { amount }) => sum + amount, 0) + customer.balance;
  if (total <= 0) return undefined;
  const method = paymentMethodFor(simulation, subscription, customer.id);
  return judge(simulation, method, { customerPresent: false });
}

/** Keeps a declined change until its invoice is paid; meanwhile the subscription goes on as it was. */
function park(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  plan: Plan,
  apply: () => void,
  verdict: Verdict,
): void {
  const { store, now, rules } = simulation;
  for (const line of plan.prorations) addPendingItem(simulation, subscription, line);
  const invoice = draftInvoice(simulation, subscription, {
    reason: "subscription_update",
    lines: plan.firstPeriods,
    window: { start: now(), end: now() },
  });
  store.pendingChanges.set(subscription.id, {
    invoice: invoice.id,
    apply() {
      const running = new Map(subscription.items.data.map((item) => [item.id, periodOf(item)]));
      apply();
      // A renewal may have come while the change waited: its period stays.
      for (const item of subscription.items.data) {
        const period = running.get(item.id);
        if (period === undefined || period.end <= item.current_period_end) continue;
        item.current_period_start = period.start;
        item.current_period_end = period.end;
      }
    },
  });
  change(simulation, subscription, () => {
    subscription.latest_invoice = invoice.id;
    subscription.pending_update = {
      billing_cycle_anchor: null,
      cancel_at_period_end: null,
      discount: null,
      discounts: null,
      expires_at: now() + rules.incompleteFor,
      metadata: null,
      subscription_items: structuredClone(plan.items),
      trial_end: null,
      trial_from_plan: null,
    };
  });
  announceInvoice(simulation, subscription, invoice);
  collect(simulation, invoice, { attempt: "automatic", customerPresent: false, verdict });
}

/** What an update would make of the items, changing nothing. */
export function planUpdate(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  { items: edits, prorationBehavior, prorationDate, restart, discounts: wanted }: ItemsUpdate,
): Plan {
  const { now } = simulation;
  refuseDateOutsidePeriod(subscription, prorationDate);
  const inTrial = subscription.status === "trialing";
  const prorate = prorationBehavior !== "none" && !inTrial;
  let anchor = subscription.billing_cycle_anchor;
  const items = [...subscription.items.data];
  // Reckoned when all items are known, as a discount may be shared among them.
  const prorations: (() => NewLine[])[] = [];
  const firstPeriods: NewLine[] = [];
  const debits = new Map<string, number>();
  const credit = (item: Stripe.SubscriptionItem) => {
    if (prorate) prorations.push(() => creditLine(simulation, item, prorationDate));
  };
  const debit = (item: Stripe.SubscriptionItem) => {
    debits.set(item.id, 0);
    if (!prorate) return;
    prorations.push(() => remainderLine(simulation, item, prorationDate, debits.get(item.id) ?? 0));
  };

  for (const [index, edit] of edits.entries()) {
    const param = `items[${index}]`;
    if (edit.id === undefined) {
      if (edit.price === undefined) {
        throw invalidRequest("Missing required param: items[0][price].", { param });
      }
      const price = subscribablePrice(simulation, edit.price, `${param}[price]`);
      const added = newItem(simulation, subscription, { ...edit, price });
      items.push(added);
      debit(added);
      continue;
    }

    const position = items.findIndex(({ id }) => id === edit.id);
    const current = items[position];
    if (current === undefined) throw noSuch("subscription item", edit.id, `${param}[id]`);
    if (edit.deleted === true) {
      items.splice(position, 1);
      credit(current);
      continue;
    }

    const edited = editedItem(simulation, current, edit, `${param}[price]`);
    items[position] = edited;
    const startsOver =
      !inTrial &&
      (!sameInterval(recurrence(current.price), recurrence(edited.price)) ||
        (itemAmount(simulation, current) === 0 && itemAmount(simulation, edited) > 0));
    if (startsOver) {
      credit(current);
      edited.current_period_start = now();
      edited.current_period_end = addIntervals(now(), recurrence(edited.price), 1);
      firstPeriods.push(itemLine(simulation, edited, periodOf(edited)));
      // Items on other intervals keep their cycle, so the subscription's anchor moves only with its last item.
      if (items.length === 1) anchor = now();
    } else if (
      itemAmount(simulation, current) !== itemAmount(simulation, edited) ||
      current.price.id !== edited.price.id
    ) {
      credit(current);
      debit(edited);
    }
  }
  if (items.length === 0) {
    throw invalidRequest("A subscription must have at least one active plan.", { param: "items" });
  }
  if (items.length > 20) {
    throw invalidRequest("A subscription has at most 20 items.", { param: "items" });
  }
  if (restart && !inTrial) {
    anchor = now();
    for (const [position, item] of items.entries()) {
      credit(item);
      const restarted = {
        ...item,
        current_period_start: now(),
        current_period_end: addIntervals(now(), recurrence(item.price), 1),
      };
      items[position] = restarted;
      firstPeriods.push(itemLine(simulation, restarted, periodOf(restarted)));
    }
  }
  const discounts =
    wanted === undefined
      ? discountsOf(simulation, subscription)
      : plannedDiscounts(simulation, idOf(subscription.customer), wanted);
  const net = netAmounts(simulation, items, discounts);
  for (const id of debits.keys()) debits.set(id, net.get(id) ?? 0);
  return {
    items,
    prorations: prorations.flatMap((line) => line()),
    firstPeriods,
    anchor,
    debits,
    discounts,
  };
}

/** What a full period of each item costs with the discounts taken off. */
function netAmounts(
  simulation: Simulation,
  items: Stripe.SubscriptionItem[],
  discounts: Stripe.Discount[],
): Map<string, number> {
  const taken = discountAmounts(
    simulation,
    discounts,
    items.map((item) => ({
      amount: itemAmount(simulation, item),
      product: idOf(item.price.product),
      discountable: true,
    })),
  );
  return new Map(
    items.map((item, index) => [
      item.id,
      (taken[index] ?? []).reduce((sum, { amount }) => sum - amount, itemAmount(simulation, item)),
    ]),
  );
}

function refuseDateOutsidePeriod(subscription: Stripe.Subscription, date: number): void {
  const periods = subscription.items.data.map(periodOf);
  if (periods.some(({ start, end }) => date >= start && date <= end)) return;
  throw invalidRequest(
    "Cannot specify a `proration_date` outside of the subscription's current billing period.",
    { param: "proration_date" },
  );
}

/** A new price resets the quantity to 1 unless one is passed, as Stripe does. */
function editedItem(
  simulation: Simulation,
  current: Stripe.SubscriptionItem,
  edit: ItemEdit,
  param: string,
): Stripe.SubscriptionItem {
  const edited = structuredClone(current);
  if (edit.price !== undefined && edit.price !== current.price.id) {
    edited.price = subscribablePrice(simulation, edit.price, param);
    edited.plan = planOf(edited.price);
    edited.quantity = 1;
  }
  if (edit.quantity !== undefined) edited.quantity = edit.quantity;
  if (edit.metadata !== undefined) edited.metadata = edit.metadata;
  return edited;
}

function itemAmount({ store }: Simulation, item: Stripe.SubscriptionItem): number {
  return amountFor(store, item.price, item.quantity ?? 0);
}

/** The credit for what is left of an item's period, at what that period was billed at. */
export function creditLine(
  simulation: Simulation,
  item: Stripe.SubscriptionItem,
  date: number,
): NewLine[] {
  const billed = simulation.store.debited.get(item.id) ?? itemAmount(simulation, item);
  return prorationLine(simulation, item, { date, kind: "Unused", amount: billed });
}

function remainderLine(
  simulation: Simulation,
  item: Stripe.SubscriptionItem,
  date: number,
  amount: number,
): NewLine[] {
  return prorationLine(simulation, item, { date, kind: "Remaining", amount });
}

/** The part of a full period's amount for what is left of it; metered items have none. */
function prorationLine(
  simulation: Simulation,
  item: Stripe.SubscriptionItem,
  { date, kind, amount }: { date: number; kind: "Unused" | "Remaining"; amount: number },
): NewLine[] {
  if (item.price.recurring?.usage_type === "metered") return [];
  const period = periodOf(item);
  const share = remainingShare(amount, period, date);
  if (share === 0) return [];
  const day = new Date(date * 1000).toISOString().slice(0, 10);
  return [
    {
      amount: kind === "Unused" ? -share : share,
      description: `${kind} time on ${productName(simulation.store, item.price)} after ${day}`,
      period: { start: date, end: period.end },
      price: item.price,
      quantity: item.quantity ?? 0,
      subscriptionItem: item.id,
      proration: true,
      invoiceItem: null,
    },
  ];
}

/** What is left of every item's period, charged for. */
export function remainderLines(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  date: number,
): NewLine[] {
  const discounts = discountsOf(simulation, subscription);
  const net = netAmounts(simulation, subscription.items.data, discounts);
  return subscription.items.data.flatMap((item) =>
    remainderLine(simulation, item, date, net.get(item.id) ?? 0),
  );
}

/** Credits what is left of every item, for a cancellation with `prorate` and for a pause. */
export function creditRemainder(simulation: Simulation, subscription: Stripe.Subscription): void {
  for (const item of subscription.items.data) {
    for (const line of creditLine(simulation, item, simulation.now())) {
      addPendingItem(simulation, subscription, line);
    }
  }
}

/** Edits that turn the subscription's items into those a schedule's phase asks for. */
export function editsTowards(
  subscription: Stripe.Subscription,
  wanted: { price: string; quantity?: number | undefined }[],
): ItemEdit[] {
  const items = subscription.items.data;
  return [
    ...wanted.map((item, position) => ({ ...item, id: items[position]?.id })),
    ...items.slice(wanted.length).map(({ id }) => ({ id, deleted: true })),
  ];
}
