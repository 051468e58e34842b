// Many webhooks at once, through the real function and the Data API's few connections: each is stored once.
import Stripe from "stripe";
import { Client } from "pg";
import { afterAll, beforeAll, expect, it } from "vitest";
import { withClient } from "../../../scripts/stack/database.ts";
import { createRandom } from "../support/random.ts";
import {
  customer,
  eventBody,
  second,
  subscription,
  subscriptionItem,
} from "../support/stripe-objects.ts";
import { startTestStack, type TestStack } from "./stack.ts";

/** What the local Data API has; see scripts/stack/lite.config.ts. */
const poolSize = 8;
const start = second("2026-01-10");

let stack: TestStack;

beforeAll(async () => {
  stack = await startTestStack();
});
afterAll(() => stack?.stop());

/** Thirty customers, each with an own subscription that changes three times: 150 events. */
function eventsOfTheBurst() {
  return Array.from({ length: 30 }, (_, number) => {
    const payer = customer(`cus_burst_${number}`);
    const item = subscriptionItem(`si_burst_${number}`, "price_of_nobody", start);
    const changes = ["incomplete", "active", "past_due", "active"].map((status, nth) => ({
      id: `evt_burst_${number}_${nth}`,
      type: `customer.subscription.${nth === 0 ? "created" : "updated"}`,
      created: start + nth * 60,
      object: subscription(`sub_burst_${number}`, payer.id, [item], { status }),
    }));
    return [
      { id: `evt_burst_${number}`, type: "customer.created", created: start, object: payer },
      ...changes,
    ];
  }).flat();
}

/** A delivery as Stripe makes it: again after anything but a 2xx, each time with its own signature. */
async function deliver(body: string): Promise<number[]> {
  const statuses: number[] = [];
  for (let attempt = 0; attempt < 5; attempt += 1) {
    const signature = await Stripe.webhooks.generateTestHeaderStringAsync({
      payload: body,
      secret: stack.simulator.webhookSecret,
    });
    const response = await fetch(`${stack.urls.functions}/stripe-webhook`, {
      method: "POST",
      headers: { "stripe-signature": signature, "content-type": "application/json" },
      body,
    });
    await response.arrayBuffer();
    statuses.push(response.status);
    if (response.ok) break;
  }
  return statuses;
}

/** Does a list of work, so many at a time. */
async function atOnce<T, R>(width: number, items: T[], work: (item: T) => Promise<R>) {
  const waiting = [...items];
  const results: R[] = [];
  const worker = async () => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) {
      results.push(await work(item));
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  return results;
}

/** Looks again and again how many connections the Data API has, until `work` is done; the most it saw. */
async function mostConnectionsWhile(work: Promise<unknown>): Promise<number> {
  let done = false;
  void work.finally(() => (done = true));
  const client = new Client({ connectionString: stack.database.url });
  await client.connect();
  let most = 0;
  while (!done) {
    const { rows } = await client.query<{ count: number }>(
      "select count(*)::integer from pg_stat_activity where application_name = 'postgrest'",
    );
    most = Math.max(most, rows[0]?.count ?? 0);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  await client.end();
  return most;
}

it("F12: 300 deliveries, 30 at a time, are each accepted, and 150 events stored once", async () => {
  const bodies = eventsOfTheBurst().map(eventBody);
  expect(bodies).toHaveLength(150);
  const deliveries = createRandom(12).shuffled([...bodies, ...bodies]);

  const burst = atOnce(30, deliveries, deliver);
  const mostConnections = await mostConnectionsWhile(burst);
  const statuses = await burst;

  expect(statuses).toHaveLength(300);
  expect(statuses.map((attempts) => attempts.at(-1))).toEqual(Array<number>(300).fill(200));
  // A refusal is one that Stripe makes good: never a 4xx, which would be counted as an attack.
  expect(statuses.flat().filter((status) => status !== 200 && status < 500)).toEqual([]);
  expect(mostConnections).toBeGreaterThan(1);
  expect(mostConnections).toBeLessThanOrEqual(poolSize);

  const { stored, states } = await withClient(stack.database.url, async (client) => {
    const events = await client.query(
      `select count(*)::integer, count(distinct event_id)::integer as once,
         count(*) filter (where status not in ('applied', 'ignored'))::integer as unapplied
       from billing_private.stripe_events
       where event_id like 'evt\\_burst\\_%'`,
    );
    const subscriptions = await client.query(
      `select status, count(*)::integer
       from billing.subscriptions
       where stripe_subscription_id like 'sub\\_burst\\_%'
       group by status`,
    );
    return { stored: events.rows, states: subscriptions.rows };
  });
  expect(stored).toEqual([{ count: 150, once: 150, unapplied: 0 }]);
  expect(states).toEqual([{ status: "active", count: 30 }]);
});
