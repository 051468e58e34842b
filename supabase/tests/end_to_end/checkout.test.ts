// From a click to Stripe and back, over HTTP: supabase-js, both functions, signed webhooks.
import { FunctionsHttpError } from "@supabase/supabase-js";
import Stripe from "stripe";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withClient } from "../../../scripts/stack/database.ts";
import type { Client } from "../../../scripts/story/reader.ts";
import { startTestStack, subscribe, type TestStack } from "./stack.ts";

let stack: TestStack;
let stripe: Stripe;

beforeAll(async () => {
  stack = await startTestStack();
  const { hostname, port } = new URL(stack.simulator.url);
  stripe = new Stripe(stack.simulator.apiKey, { host: hostname, port, protocol: "http" });
});
afterAll(() => stack?.stop());

const addresses = {
  success_url: "https://app.example/welcome",
  cancel_url: "https://app.example/plans",
};

function openCheckout(client: Client, body: Record<string, unknown>, headers = {}) {
  return client.functions.invoke<{ data: { checkout_id: string; url: string } }>("checkout", {
    body: { ...addresses, ...body },
    headers,
  });
}

async function errorOf(error: unknown): Promise<{ status: number; code: string }> {
  if (!(error instanceof FunctionsHttpError)) throw new Error(`not refused: ${String(error)}`);
  const response = error.context as Response;
  const body = (await response.json()) as { success: boolean; error: { code: string } };
  expect(body.success).toBe(false);
  return { status: response.status, code: body.error.code };
}

async function summaryOf(client: Client) {
  const { data } = await client.rpc("my_subscription", {}).single();
  if (!data) throw new Error("there is no subscription");
  return data;
}

/** What the dispatcher does on a host every minute, and the events that come of it. */
async function ring(): Promise<void> {
  await stack.doorbell.now();
  await stack.simulator.delivery.idle();
}

describe("a double click", () => {
  it("B8: eight requests at once open one page for one customer", async () => {
    const { client, id } = await stack.user("double");

    const answers = await Promise.all(
      Array.from({ length: 8 }, () => openCheckout(client, { price_key: "privileged_monthly" })),
    );

    expect(answers.map(({ error }) => error)).toEqual(answers.map(() => null));
    expect(new Set(answers.map(({ data }) => data?.data.url)).size).toBe(1);
    const customers = await stripe.customers.list({ limit: 100 });
    expect(customers.data.filter(({ metadata }) => metadata["account_id"] === id)).toHaveLength(1);
    const customer = customers.data.find(({ metadata }) => metadata["account_id"] === id);
    const sessions = await stripe.checkout.sessions.list({ customer: customer?.id ?? "" });
    expect(sessions.data.filter(({ status }) => status === "open")).toHaveLength(1);
  });

  it("B9: another price closes the first page and opens its own", async () => {
    const { client } = await stack.user("undecided");
    const first = await openCheckout(client, { price_key: "member_monthly" });
    const second = await openCheckout(client, { price_key: "privileged_monthly" });

    expect(second.error).toBeNull();
    expect(second.data?.data.url).not.toBe(first.data?.data.url);
    const sessionId = new URL(first.data?.data.url ?? "").pathname.split("/").at(-1) ?? "";
    expect((await stripe.checkout.sessions.retrieve(sessionId)).status).toBe("expired");
  });
});

describe("who is refused, and how", () => {
  it("a visitor is asked to sign in", async () => {
    const { error } = await openCheckout(stack.visitor(), { price_key: "privileged_monthly" });
    expect(await errorOf(error)).toEqual({ status: 401, code: "UNAUTHENTICATED" });
  });

  it("an unknown price is not found", async () => {
    const { client } = await stack.user("confused");
    const { error } = await openCheckout(client, { price_key: "no_such_price" });
    expect(await errorOf(error)).toEqual({ status: 404, code: "PRICE_NOT_FOUND" });
  });

  it("E11: somebody else's account is refused like one that does not exist", async () => {
    const victim = await stack.user("victim");
    const { client } = await stack.user("intruder");
    for (const account_id of [victim.id, "00000000-0000-0000-0000-000000000001"]) {
      const { error } = await openCheckout(client, { price_key: "privileged_monthly", account_id });
      expect(await errorOf(error)).toEqual({ status: 403, code: "NOT_A_MEMBER" });
    }
  });

  it("a subscriber is not sold a second subscription", async () => {
    const { client } = await stack.user("loyal");
    await subscribe(stack, client, "privileged_monthly");
    const { error } = await openCheckout(client, { price_key: "member_monthly" });
    expect(await errorOf(error)).toEqual({ status: 409, code: "ALREADY_SUBSCRIBED" });
  });

  it("the dispatcher does not work for users", async () => {
    const { client } = await stack.user("curious");
    const { error } = await client.functions.invoke("checkout/dispatch", { body: {} });
    expect(await errorOf(error)).toEqual({ status: 401, code: "UNAUTHENTICATED" });
  });
});

describe("a subscriber's wishes reach Stripe", () => {
  it("the portal opens for the account's own customer", async () => {
    const { client } = await stack.user("portal");
    await subscribe(stack, client, "privileged_monthly");

    const { data, error } = await client.functions.invoke<{ data: { url: string } }>(
      "checkout/portal",
      { body: { return_url: "https://app.example/account" } },
    );

    expect(error).toBeNull();
    expect((await fetch(data?.data.url ?? "")).status).toBe(200);
  });

  it("cancel at period end, think again, and cancel now", async () => {
    const { client } = await stack.user("leaver");
    await subscribe(stack, client, "privileged_monthly");

    const asked = await client.rpc("cancel_subscription", {}).single();
    expect(asked.data?.pending_command).toBe("update_subscription");
    await ring();
    const ending = await summaryOf(client);
    expect(ending.pending_command).toBeNull();
    expect(ending.ends_at).toBe(ending.current_period_end);
    expect(ending.access_until).toBe(ending.current_period_end);

    await client.rpc("undo_cancel", {});
    await ring();
    expect((await summaryOf(client)).ends_at).toBeNull();

    await client.rpc("cancel_subscription", { at_period_end: false });
    await ring();
    expect((await summaryOf(client)).status).toBe("canceled");
    const { data: has } = await client.rpc("has_entitlement", { feature: "premium_clubs" });
    expect(has).toBe(false);
  });

  it("an upgrade takes effect now, a downgrade waits for the period's end", async () => {
    const { client } = await stack.user("climber");
    await subscribe(stack, client, "privileged_monthly");

    await client.rpc("change_plan", { price_key: "privileged_plus_monthly" });
    await ring();
    expect((await summaryOf(client)).plan_key).toBe("privileged_plus");

    await client.rpc("change_plan", { price_key: "member_monthly" });
    await ring();
    await ring();
    const waiting = await summaryOf(client);
    expect(waiting.plan_key).toBe("privileged_plus");
    expect(waiting.pending_price_key).toBe("member_monthly");
    expect(waiting.pending_change_at).toBe(waiting.current_period_end);

    await stack.clock.advanceTo(Date.parse(waiting.current_period_end ?? "") / 1_000 + 7_200);
    const changed = await summaryOf(client);
    expect(changed.plan_key).toBe("member");
    expect(changed.pending_price_key).toBeNull();
  });

  it("a change that waits can be taken back", async () => {
    const { client } = await stack.user("hesitant");
    await subscribe(stack, client, "privileged_monthly");
    await client.rpc("change_plan", { price_key: "member_monthly" });
    await ring();
    await ring();
    expect((await summaryOf(client)).pending_price_key).toBe("member_monthly");

    await client.rpc("change_plan", { price_key: "privileged_monthly" });
    await ring();
    expect((await summaryOf(client)).pending_price_key).toBeNull();
  });
});

describe("deliveries that go wrong", () => {
  it("doubled and reordered events end in the same subscription", async () => {
    const { client } = await stack.user("shuffled");
    stack.simulator.delivery.configure({ duplicates: 2 });
    stack.simulator.delivery.hold();
    await subscribe(stack, client, "privileged_monthly").catch(() => undefined);
    await stack.simulator.delivery.release({ seed: 7 });
    stack.simulator.delivery.configure({ duplicates: 0 });

    expect((await summaryOf(client)).status).toBe("active");
    const { data: has } = await client.rpc("has_entitlement", { feature: "premium_clubs" });
    expect(has).toBe(true);
  });

  it("a forged event is refused, stored nowhere, and counted", async () => {
    const response = await fetch(`${stack.urls.functions}/stripe-webhook`, {
      method: "POST",
      headers: { "stripe-signature": `t=${Math.floor(Date.now() / 1_000)},v1=00` },
      body: JSON.stringify({ id: "evt_forged", object: "event", type: "customer.created" }),
    });
    expect(response.status).toBe(400);

    await withClient(stack.database.url, async (db) => {
      const stored = await db.query(
        "select from billing_private.stripe_events where event_id = 'evt_forged'",
      );
      expect(stored.rowCount).toBe(0);
      const counted = await db.query(
        "select from billing_private.webhook_rejections where reason = 'SIGNATURE_INVALID'",
      );
      expect(counted.rowCount).toBe(1);
    });
  });

  it("a request id given to the function stands in the audit", async () => {
    const { client, id } = await stack.user("traced");
    await openCheckout(
      client,
      { price_key: "privileged_monthly" },
      { "x-request-id": "trace-me-42" },
    );

    const { data } = await stack
      .service()
      .schema("billing_admin")
      .rpc("audit_of_account", { account_id: id });
    expect(data?.some(({ request_id }) => request_id === "trace-me-42")).toBe(true);
  });
});
