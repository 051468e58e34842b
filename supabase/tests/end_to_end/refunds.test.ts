// Money an administrator gives back, over HTTP: asked of Stripe once, never more than is left, and access follows it.
import Stripe from "stripe";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { withClient } from "../../../scripts/stack/database.ts";
import type { Client } from "../../../scripts/story/reader.ts";
import { startTestStack, subscribe, type TestStack } from "./stack.ts";

const day = 86_400;

let stack: TestStack;
let stripe: Stripe;

beforeAll(async () => {
  stack = await startTestStack();
  const { hostname, port } = new URL(stack.simulator.url);
  stripe = new Stripe(stack.simulator.apiKey, { host: hostname, port, protocol: "http" });
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

function admin() {
  return stack.service().schema("billing_admin");
}

async function payer(name: string) {
  const { client, id: account } = await stack.user(name);
  await subscribe(stack, client, "privileged_monthly");
  await stack.simulator.delivery.idle();
  const { data } = await client.from("payments").select("id,stripe_charge_id").single();
  return { client, account, payment: data?.id ?? "", charge: data?.stripe_charge_id ?? "" };
}

async function refund(payment: string, reference: string, amount?: number) {
  return admin().rpc("refund_payment", {
    payment_id: payment,
    reason: "a complaint",
    reference,
    ...(amount !== undefined && { amount_minor: amount }),
  });
}

async function refundsOf(charge: string): Promise<number[]> {
  const { data } = await stripe.refunds.list({ charge });
  return data.map(({ amount }) => amount);
}

async function levelOf(client: Client): Promise<string | null> {
  return (await client.rpc("access_level", { feature: "premium_clubs" })).data;
}

/** Has waiting calls carried, and what Stripe then tells delivered. */
async function carry(): Promise<void> {
  await stack.doorbell.now();
  await stack.simulator.delivery.idle();
}

describe("a refund", () => {
  it("H8: in part leaves access, in full ends it, though Stripe's events are lost", async () => {
    const { client, payment, charge } = await payer("regretful");
    stack.simulator.delivery.configure({ dropTypes: ["refund.created", "charge.refunded"] });
    expect((await refund(payment, "some", 100)).error).toBeNull();
    await carry();
    expect(await levelOf(client)).toBe("full");
    const some = await client.from("refunds").select("amount_minor,status");
    expect(some.data).toEqual([{ amount_minor: 100, status: "succeeded" }]);

    expect((await refund(payment, "the rest")).error).toBeNull();
    await carry();
    stack.simulator.delivery.configure({ dropTypes: [] });
    expect(await refundsOf(charge)).toEqual([800, 100]);
    expect(await levelOf(client)).toBe("none");
    const { data } = await client.from("payment_history").select("kind").eq("kind", "refund");
    expect(data).toHaveLength(2);
  });

  it("asked for by two administrators at once is never more than was paid", async () => {
    const { payment, charge } = await payer("doubly-regretful");
    const answers = await Promise.all(
      ["one", "two", "three", "four"].map((reference) => refund(payment, reference, 500)),
    );
    expect(answers.map(({ error }) => error?.message ?? "taken").sort()).toEqual([
      ...Array<string>(3).fill("more than is left of the payment cannot be given back"),
      "taken",
    ]);
    await carry();
    expect(await refundsOf(charge)).toEqual([500]);
  });

  it("E2: under one reference is one, however often and at once it is asked for", async () => {
    const { payment, charge } = await payer("impatient");
    const answers = await Promise.all(
      Array.from({ length: 4 }, () => refund(payment, "ticket 7", 300)),
    );
    expect(new Set(answers.map(({ data }) => data)).size).toBe(1);
    await carry();
    expect((await refund(payment, "ticket 7", 300)).data).toBe(answers[0]?.data);
    await carry();
    expect(await refundsOf(charge)).toEqual([300]);
  });

  it("B10: whose answer is lost for a day is found, not made again", async () => {
    const { client, payment, charge } = await payer("unlucky");
    stack.simulator.delivery.configure({ dropTypes: ["refund.created", "charge.refunded"] });
    await refund(payment, "lost", 300);
    const until = stack.simulator.clock.now() + 1;
    stack.simulator.api.fail({ path: "/v1/refunds", when: "after", until });
    await carry();
    await stack.clock.advanceBy(day + 60);
    await carry();
    stack.simulator.delivery.configure({ dropTypes: [] });

    expect(await refundsOf(charge)).toEqual([300]);
    const { data } = await client.from("refunds").select("amount_minor");
    expect(data).toEqual([{ amount_minor: 300 }]);
  });

  it("that somebody was quicker with, of whom nothing was heard, is Stripe's to refuse", async () => {
    const { payment, charge } = await payer("popular");
    stack.simulator.delivery.configure({ dropTypes: ["refund.created", "charge.refunded"] });
    await stripe.refunds.create({ charge, amount: 800 });
    await stack.simulator.delivery.idle();
    stack.simulator.delivery.configure({ dropTypes: [] });

    const { data: command } = await refund(payment, "too late", 200);
    await carry();
    await carry();
    expect(await refundsOf(charge)).toEqual([800]);
    const { data } = await admin()
      .from("command_backlog")
      .select("status,error")
      .eq("command_id", command ?? "");
    expect(data).toMatchObject([{ status: "dead", error: expect.stringContaining("greater") }]);
  });
});

it("G12: what is paid for a subscription that has ended is shown, and given back from there", async () => {
  const { client, account } = await payer("departed");
  const { data: subscription } = await client
    .from("subscriptions")
    .select("stripe_subscription_id,current_period_end")
    .single();
  stack.simulator.failNextPayments(1, "insufficient_funds");
  await stack.clock.advanceTo(Date.parse(subscription?.current_period_end ?? "") / 1_000 + 7_200);
  const { latest_invoice } = await stripe.subscriptions.cancel(
    subscription?.stripe_subscription_id ?? "",
  );
  await stack.simulator.delivery.idle();
  await stack.clock.advanceBy(day);
  await stripe.invoices.pay(String(latest_invoice));
  await stack.simulator.delivery.idle();

  const issues = () =>
    admin()
      .from("critical_issues")
      .select("details")
      .eq("issue", "paid_after_end")
      .eq("account_id", account);
  const [issue] = (await issues()).data ?? [];
  const { payment_id } = (issue?.details ?? {}) as { payment_id?: string };
  expect(payment_id).toBeDefined();
  expect(await levelOf(client)).toBe("none");

  expect((await refund(payment_id ?? "", "given back")).error).toBeNull();
  await carry();
  expect((await issues()).data).toEqual([]);
  const { rows } = await withClient(stack.database.url, (db) =>
    db.query(
      `select refunds.amount_minor::integer, payments.amount_received_minor::integer
       from billing.refunds
       join billing.payments using (stripe_payment_key)
       where payments.id = $1`,
      [payment_id],
    ),
  );
  expect(rows).toEqual([{ amount_minor: 900, amount_received_minor: 900 }]);
});
