/** What Stripe would send, as the simulator writes it: one subscriber's life, to be told of any number of them. */

import Stripe from "stripe";
import { createStripeSimulator, type StripeSimulator } from "../stripe-simulator/index.ts";

/**
 * Raw bodies in the order of their events. Every id of the subscriber's ends with `{n}`, so each number
 * gives a life of its own.
 */
export interface LifeTemplates {
  /** Subscribes, pays, and is renewed once. */
  life: string[];
  /** What the subscriber then does with the subscription, as its updates. */
  updates: string[];
  /** News of the product and price that all share; `"created":{t}` is later for each number. */
  catalog: string[];
  customerId: string;
}

const minute = 60;
const day = 86_400;

/** A price of the sample catalog whose plan has four features. */
const product = "prod_booktalks_privileged";
const price = "price_privileged_monthly";

/** Not told: what has no id to store it under, which not every mirror survives. */
const untold = ["invoice.upcoming"];

export async function lifeTemplates(): Promise<LifeTemplates> {
  // So that both the first period and the one after the renewal reach beyond now, and give access.
  const startAt = Math.floor(Date.now() / 1_000) - 28 * day;
  const simulator = await createStripeSimulator({ seed: "bench", startAt });
  try {
    const told = storyteller(simulator);
    const { customer, subscription, stripe } = await subscribe(simulator);
    const life = told();
    await stripe.products.update(product, { description: "For keen readers" });
    await stripe.prices.update(price, { nickname: "Monthly" });
    const catalog = told().filter(({ type }) => /^(product|price)\.updated$/.test(type));
    await simulator.clock.advanceBy(32 * day);
    await stripe.customers.update(customer, { name: "An Avid Reader" });
    life.push(...told());
    await changeOften(simulator, stripe, subscription);
    const updates = told().filter(({ type }) => type === "customer.subscription.updated");
    return {
      life: life.filter(({ type }) => !/^(product|price)\./.test(type)).map(template),
      updates: updates.map(template),
      catalog: catalog.map((event) =>
        template(event).replace(/"created":\d+,"data"/, '"created":{t},"data"'),
      ),
      customerId: `${customer}{n}`,
    };
  } finally {
    await simulator.stop();
  }
}

/** Returns what has happened since it was last asked. */
function storyteller(simulator: StripeSimulator) {
  let told = 0;
  return (): Stripe.Event[] => {
    const news = simulator.events().slice(told);
    told += news.length;
    return news.filter(({ type }) => !untold.includes(type));
  };
}

async function subscribe(simulator: StripeSimulator) {
  const { hostname, port } = new URL(simulator.url);
  const stripe = new Stripe(simulator.apiKey, { host: hostname, port, protocol: "http" });
  simulator.addProduct({ id: product, name: "Privileged" });
  simulator.addPrice({
    id: price,
    product,
    currency: "usd",
    unit_amount: 900,
    recurring: { interval: "month" },
  });
  const { id: customer } = await stripe.customers.create({
    email: "reader@example.com",
    name: "A Reader",
  });
  const card = await stripe.paymentMethods.attach("pm_card_visa", { customer });
  const { id: subscription } = await stripe.subscriptions.create({
    customer,
    default_payment_method: card.id,
    items: [{ price }],
  });
  return { stripe, customer, subscription };
}

/** Half of these changes move the end of access, half leave it where it is. */
async function changeOften(simulator: StripeSimulator, stripe: Stripe, subscription: string) {
  for (let turn = 1; turn <= 5; turn += 1) {
    const changes: Stripe.SubscriptionUpdateParams[] = [
      { cancel_at_period_end: true },
      { cancel_at_period_end: false },
      { metadata: { turn: String(turn) } },
    ];
    for (const change of changes) {
      await simulator.clock.advanceBy(minute);
      await stripe.subscriptions.update(subscription, change);
    }
  }
}

function template(event: Stripe.Event): string {
  return JSON.stringify(event).replace(
    /"((?:ch|cus|evt|il|in|inpay|pi|pm|req|si|sub)_[A-Za-z0-9]+)"/g,
    '"$1{n}"',
  );
}
