// What happens when nobody pays, and when money goes back: Stripe's events in, our calls out, over HTTP.
import Stripe from "stripe";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Client } from "../../../scripts/story/reader.ts";
import { startTestStack, subscribe, type TestStack } from "./stack.ts";

const day = 86_400;

let stack: TestStack;
let stripe: Stripe;

beforeAll(async () => {
  stack = await startTestStack();
  const { hostname, port } = new URL(stack.simulator.url);
  stripe = new Stripe(stack.simulator.apiKey, { host: hostname, port, protocol: "http" });
  // The account does without Smart Retries: collecting again is left to us.
  stack.simulator.setRules({ retryAfter: [], afterLastRetry: "past_due" });
});
afterAll(() => stack?.stop());

// Whoever is left over would renew, and fail, in the next test.
afterEach(async () => {
  for (const { id } of (await stripe.subscriptions.list({ limit: 100 })).data) {
    await stripe.subscriptions.cancel(id);
  }
  await stack.simulator.delivery.idle();
});

/** What a host's minute is: tasks, the dispatcher, and the events that come of it. */
async function minute(): Promise<void> {
  await stack.clock.advanceBy(60);
  await stack.heartbeat.now();
  await stack.doorbell.now();
  await stack.simulator.delivery.idle();
}

async function oneOf<T>(rows: PromiseLike<{ data: T[] | null }>): Promise<T> {
  const { data } = await rows;
  if (data?.length !== 1) throw new Error(`not one row: ${JSON.stringify(data)}`);
  return data[0]!;
}

function caseOf(client: Client) {
  return oneOf(
    client.from("dunning_cases").select("status,blocked_by,retries,next_retry_at,stage"),
  );
}

async function levelOf(client: Client): Promise<string | null> {
  return (await client.rpc("access_level", { feature: "premium_clubs" })).data;
}

/** Someone whose first renewal is declined for a reason. */
async function fallBehind(name: string, declineCode: string) {
  const { client } = await stack.user(name);
  await subscribe(stack, client, "privileged_monthly");
  const { current_period_end, stripe_subscription_id } = await oneOf(
    client.from("subscriptions").select("current_period_end,stripe_subscription_id"),
  );
  stack.simulator.failNextPayments(1, declineCode);
  await stack.clock.advanceTo(Date.parse(current_period_end ?? "") / 1_000 + 7_200);
  const subscription = await stripe.subscriptions.retrieve(stripe_subscription_id ?? "");
  expect(subscription.status).toBe("past_due");
  return { client, subscription };
}

async function chargesOf({ customer }: Stripe.Subscription): Promise<string[]> {
  const charges = await stripe.charges.list({ customer: String(customer) });
  return charges.data.map(({ status }) => status);
}

describe("a renewal that fails", () => {
  it("H2, H4: is collected again a day later, and access stays", async () => {
    const { client, subscription } = await fallBehind("short", "insufficient_funds");
    expect(await caseOf(client)).toMatchObject({ status: "open", blocked_by: null, retries: 0 });
    expect(await levelOf(client)).toBe("full");

    await minute();
    expect(await chargesOf(subscription)).toEqual(["failed", "succeeded"]);
    await stack.clock.advanceBy(day);
    await minute();

    expect(await chargesOf(subscription)).toEqual(["succeeded", "failed", "succeeded"]);
    expect(await caseOf(client)).toMatchObject({ status: "recovered", retries: 1, stage: null });
    expect(await levelOf(client)).toBe("full");
    expect((await stripe.subscriptions.retrieve(subscription.id)).status).toBe("active");
  });

  it("H2: is never collected from a card that was stolen, but at once from another", async () => {
    const { client, subscription } = await fallBehind("robbed", "stolen_card");
    expect(await caseOf(client)).toMatchObject({ status: "open", blocked_by: "hard_decline" });
    for (let passed = 0; passed < 4; passed += 1) {
      await stack.clock.advanceBy(day);
      await minute();
    }
    expect(await chargesOf(subscription)).toEqual(["failed", "succeeded"]);
    expect(await levelOf(client)).toBe("none");

    const method = await stripe.paymentMethods.attach("pm_card_mastercard", {
      customer: String(subscription.customer),
    });
    await stripe.subscriptions.update(subscription.id, { default_payment_method: method.id });
    await stack.simulator.delivery.idle();
    await minute();

    expect(await chargesOf(subscription)).toEqual(["succeeded", "failed", "succeeded"]);
    expect(await caseOf(client)).toMatchObject({ status: "recovered", retries: 1 });
    expect(await levelOf(client)).toBe("full");
  });

  it("G16: a retry and the customer's own payment are one charge", async () => {
    const { client, subscription } = await fallBehind("both", "insufficient_funds");
    await stack.clock.advanceBy(day);
    await stack.heartbeat.now();
    await stripe.invoices.pay(String(subscription.latest_invoice));
    await stack.doorbell.now();
    await stack.simulator.delivery.idle();

    expect(await chargesOf(subscription)).toEqual(["succeeded", "failed", "succeeded"]);
    expect(await caseOf(client)).toMatchObject({ status: "recovered" });
  });
});

describe("money that goes back", () => {
  async function paying(name: string) {
    const { client } = await stack.user(name);
    await subscribe(stack, client, "privileged_monthly");
    await stack.simulator.delivery.idle();
    const payment = await oneOf(client.from("payments").select("stripe_charge_id,amount_minor"));
    expect(await levelOf(client)).toBe("full");
    return { client, charge: payment.stripe_charge_id ?? "", amount: payment.amount_minor };
  }

  it("G9: a refund in part leaves access, one in full ends it", async () => {
    const { client, charge, amount } = await paying("regretful");
    await stripe.refunds.create({ charge, amount: 1 });
    await stack.simulator.delivery.idle();
    expect(await levelOf(client)).toBe("full");

    await stripe.refunds.create({ charge, amount: amount - 1 });
    await stack.simulator.delivery.idle();
    expect(await levelOf(client)).toBe("none");
    const { data } = await client.from("payment_history").select("kind").eq("kind", "refund");
    expect(data).toHaveLength(2);
  });

  it("G9: a dispute leaves reading, and winning it everything", async () => {
    const { client, charge } = await paying("doubtful");
    const dispute = await stack.simulator.disputeCharge(charge);
    expect(await levelOf(client)).toBe("read_only");

    await stack.simulator.closeDispute(dispute.id, "won");
    expect(await levelOf(client)).toBe("full");
  });
});
