/** What Stripe would send, as the simulator writes it: one event per kind of object and stage of its life. */

import Stripe from "stripe";
import { createStripeSimulator } from "../stripe-simulator/index.ts";

export type Stage = "fresh" | "newer" | "stale";

export interface EventTemplate {
  /** 0, 1 or 2: customer, subscription, invoice. */
  kind: number;
  stage: Stage;
  /** The raw body; every id in it ends with `{n}`, so each number gives events of objects of its own. */
  payload: string;
}

/** A renewal's invoice, and the subscription before and after that renewal. */
const chosen = {
  fresh: [
    ["customer.created", "first"],
    ["customer.subscription.updated", "first"],
    ["invoice.created", "last"],
  ],
  newer: [
    ["customer.updated", "last"],
    ["customer.subscription.updated", "last"],
    ["invoice.paid", "last"],
  ],
} as const;

const day = 86_400;

/** A price of the sample catalog whose plan has four features. */
const price = "price_privileged_monthly";

/**
 * The life they are cut from: a customer subscribes and is renewed once. A stale event is a fresh one
 * that comes again under another id, a second older than what is stored.
 */
export async function eventTemplates(): Promise<EventTemplate[]> {
  const events = await simulatedLife();
  const find = ([type, which]: readonly [string, "first" | "last"]) => {
    const event = events.filter((each) => each.type === type).at(which === "first" ? 0 : -1);
    if (event === undefined) throw new Error(`The simulated life has no ${type}.`);
    return event;
  };
  const fresh = chosen.fresh.map(find);
  const newer = chosen.newer.map(find);
  const stale = fresh.map((event) => ({
    ...event,
    id: `${event.id}older`,
    created: event.created - 1,
  }));
  const templates = (stage: Stage, list: Stripe.Event[]) =>
    list.map((event, kind) => ({ kind, stage, payload: template(event) }));
  return [...templates("fresh", fresh), ...templates("newer", newer), ...templates("stale", stale)];
}

async function simulatedLife(): Promise<Stripe.Event[]> {
  // Begun so long ago that the period after the renewal is the current one.
  const startAt = Math.floor(Date.now() / 1_000) - 35 * day;
  const simulator = await createStripeSimulator({ seed: "bench", startAt });
  try {
    const { hostname, port } = new URL(simulator.url);
    const stripe = new Stripe(simulator.apiKey, { host: hostname, port, protocol: "http" });
    simulator.addProduct({ id: "prod_booktalks_privileged", name: "Privileged" });
    simulator.addPrice({
      id: price,
      product: "prod_booktalks_privileged",
      currency: "usd",
      unit_amount: 900,
      recurring: { interval: "month" },
    });
    const customer = await stripe.customers.create({
      email: "reader@example.com",
      name: "A Reader",
    });
    const card = await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id });
    await stripe.subscriptions.create({
      customer: customer.id,
      default_payment_method: card.id,
      items: [{ price }],
    });
    await simulator.clock.advanceBy(32 * day);
    await stripe.customers.update(customer.id, { name: "An Avid Reader" });
    return simulator.events();
  } finally {
    await simulator.stop();
  }
}

function template(event: Stripe.Event): string {
  return JSON.stringify(event).replace(
    /"((?:ch|cus|evt|il|in|pi|pm|req|si|sub)_[A-Za-z0-9]+)"/g,
    '"$1{n}"',
  );
}
