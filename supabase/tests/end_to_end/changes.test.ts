// What a subscriber asks of Stripe through the checkout function, over HTTP: seen before it is paid, asked once, and
// answered with the subscription as it is then.
import { FunctionsHttpError } from "@supabase/supabase-js";
import Stripe from "stripe";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
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

// Whoever is left over would be renewed again and again by the months of the next tests.
afterEach(async () => {
  for (const { id } of (await stripe.subscriptions.list({ limit: 100 })).data) {
    await stripe.subscriptions.cancel(id);
  }
  await stack.simulator.delivery.idle();
});

type Data = Record<string, unknown>;

async function ask(client: Client, route: string, body: Data = {}): Promise<Data> {
  const { data, error } = await client.functions.invoke<{ data: Data }>(`checkout/${route}`, {
    body,
  });
  if (error instanceof FunctionsHttpError) {
    throw new Error(await (error.context as Response).text());
  }
  if (error || !data) throw new Error(String(error));
  return data.data;
}

async function refusalOf(client: Client, route: string, body: Data = {}) {
  const { error } = await client.functions.invoke(`checkout/${route}`, { body });
  if (!(error instanceof FunctionsHttpError)) throw new Error(`not refused: ${String(error)}`);
  const response = error.context as Response;
  const { error: told } = (await response.json()) as { error: { code: string; details: Data } };
  return { status: response.status, code: told.code, details: told.details };
}

async function subscriptionOf(client: Client): Promise<Stripe.Subscription> {
  const { data } = await client.from("subscriptions").select("stripe_subscription_id").single();
  return stripe.subscriptions.retrieve(data?.stripe_subscription_id ?? "");
}

describe("an upgrade", () => {
  it("costs just what was shown, to the cent and the second", async () => {
    const { client } = await stack.user("thrifty");
    await subscribe(stack, client, "privileged_monthly");
    await stack.clock.advanceBy(10 * 86_400 + 12_345);

    const wish = { price_key: "privileged_plus_monthly" };
    const preview = await ask(client, "preview-change", wish);
    expect(preview).toMatchObject({ at_period_end: false, credit_minor: 0 });
    await stack.clock.advanceBy(600);
    const changed = await ask(client, "change-plan", {
      ...wish,
      proration_date: preview["proration_date"],
    });

    expect(changed).toMatchObject({ plan_key: "privileged_plus", pending_command: null });
    const { latest_invoice } = await subscriptionOf(client);
    const invoice = await stripe.invoices.retrieve(String(latest_invoice));
    expect(invoice.amount_paid).toBe(preview["due_now_minor"]);
    expect(invoice.lines.data.map(({ amount }) => amount).sort()).toEqual(
      (preview["lines"] as { amount_minor: number }[]).map((line) => line.amount_minor).sort(),
    );
  });

  it("D21, D22: of seats leaves one item, with the seats asked for", async () => {
    const { client } = await stack.user("growing");
    await subscribe(stack, client, "privileged_monthly");
    const changed = await ask(client, "change-plan", { quantity: 7 });
    expect(changed).toMatchObject({ price_key: "privileged_monthly", quantity: 7 });
    const { items } = await subscriptionOf(client);
    expect(items.data.map(({ quantity }) => quantity)).toEqual([7]);
  });

  it("G17: 5, 3 and 5 seats at once end in five", async () => {
    const { client } = await stack.user("nervous");
    await subscribe(stack, client, "privileged_monthly");
    await ask(client, "change-plan", { quantity: 5 });
    await client.rpc("change_plan", {
      price_key: "privileged_monthly",
      quantity: 3,
      at_period_end: false,
    });
    await client.rpc("change_plan", { price_key: "privileged_monthly", quantity: 5 });
    await stack.doorbell.now();
    const { items } = await subscriptionOf(client);
    expect(items.data[0]?.quantity).toBe(5);
  });
});

describe("a downgrade", () => {
  it("is shown with what a period costs, waits, and comes with the next period", async () => {
    const { client } = await stack.user("modest");
    await subscribe(stack, client, "privileged_plus_monthly");
    const preview = await ask(client, "preview-change", { price_key: "member_monthly" });
    expect(preview).toMatchObject({ at_period_end: true, due_now_minor: 0, credit_minor: 0 });

    const waiting = await ask(client, "change-plan", { price_key: "member_monthly" });
    expect(waiting).toMatchObject({
      plan_key: "privileged_plus",
      pending_price_key: "member_monthly",
      pending_command: null,
    });
    expect(waiting["pending_change_at"]).toBe(waiting["current_period_end"]);
    expect(preview["effective_at"]).toBe(waiting["pending_change_at"]);

    await stack.clock.advanceTo(Date.parse(String(waiting["pending_change_at"])) / 1_000 + 7_200);
    const { data } = await client.rpc("my_subscription", {}).single();
    expect(data).toMatchObject({ plan_key: "member", pending_price_key: null });
    expect(preview["total_minor"]).toBe(data?.unit_amount_minor);
  });
});

describe("a change that waits", () => {
  async function waiting(name: string) {
    const { client } = await stack.user(name);
    await subscribe(stack, client, "privileged_monthly");
    await stack.clock.advanceBy(10 * 86_400);
    await ask(client, "change-plan", { price_key: "member_monthly" });
    expect((await subscriptionOf(client)).schedule).not.toBeNull();
    return client;
  }

  it("does not hide what another one costs at once, to the cent", async () => {
    const client = await waiting("undecided");
    const wish = { price_key: "privileged_plus_monthly", quantity: 2 };
    const preview = await ask(client, "preview-change", wish);
    expect(preview).toMatchObject({ at_period_end: false, credit_minor: 0 });
    expect((await subscriptionOf(client)).schedule).not.toBeNull();

    const { proration_date, due_now_minor } = preview;
    const changed = await ask(client, "change-plan", { ...wish, proration_date });
    expect(changed).toMatchObject({
      price_key: "privileged_plus_monthly",
      quantity: 2,
      pending_price_key: null,
    });
    const { latest_invoice, schedule } = await subscriptionOf(client);
    expect(schedule).toBeNull();
    const invoice = await stripe.invoices.retrieve(String(latest_invoice));
    expect([invoice.amount_paid, due_now_minor]).toEqual([due_now_minor, invoice.total]);
  });

  it("is not what another later one is shown to cost", async () => {
    const client = await waiting("wavering-later");
    const wish = { price_key: "member_monthly", quantity: 3 };
    const preview = await ask(client, "preview-change", { ...wish, at_period_end: true });
    expect(preview).toMatchObject({ at_period_end: true, due_now_minor: 0, total_minor: 1_200 });

    const changed = await ask(client, "change-plan", { ...wish, at_period_end: true });
    await stack.clock.advanceTo(Date.parse(String(changed["pending_change_at"])) / 1_000 + 7_200);
    const { latest_invoice } = await subscriptionOf(client);
    expect((await stripe.invoices.retrieve(String(latest_invoice))).total).toBe(1_200);
  });

  it("costs nothing to take back, and Stripe need not be asked", async () => {
    const client = await waiting("returning");
    const before = await questions();
    const preview = await ask(client, "preview-change", { price_key: "privileged_monthly" });
    expect(preview).toMatchObject({ total_minor: 0, due_now_minor: 0, credit_minor: 0, lines: [] });
    expect(await questions()).toBe(before);
    const back = await ask(client, "change-plan", { price_key: "privileged_monthly" });
    expect(back).toMatchObject({ price_key: "privileged_monthly", pending_price_key: null });
  });

  async function questions(): Promise<number> {
    const { rows } = await withClient(stack.database.url, (db) =>
      db.query<{ count: number }>(
        "select count(*)::integer from billing_private.commands where kind = 'preview_change'",
      ),
    );
    return rows[0]?.count ?? NaN;
  }
});

describe("cancelling", () => {
  it("and thinking again are answered when Stripe has done them", async () => {
    const { client } = await stack.user("wavering");
    await subscribe(stack, client, "privileged_monthly");
    const ending = await ask(client, "cancel", { reason: "too little time" });
    expect(ending["ends_at"]).toBe(ending["current_period_end"]);
    const { cancel_at_period_end, cancellation_details } = await subscriptionOf(client);
    expect(cancel_at_period_end).toBe(true);
    expect(cancellation_details?.comment).toBe("too little time");

    expect(await ask(client, "undo-cancel")).toMatchObject({ ends_at: null });
    expect((await subscriptionOf(client)).cancel_at_period_end).toBe(false);

    expect(await ask(client, "cancel", { at_period_end: false })).toMatchObject({
      status: "canceled",
    });
    expect(await refusalOf(client, "cancel")).toMatchObject({
      status: 422,
      code: "INVALID_TRANSITION",
      details: { from: "canceled", to: "canceled" },
    });
  });
});

describe("a pause", () => {
  it("G5: at once and until resumed, is Stripe's, and ends with an empty value", async () => {
    const { client } = await stack.user("resting");
    await subscribe(stack, client, "privileged_monthly");
    const paused = await ask(client, "pause", { at_period_end: false });
    expect(paused).toMatchObject({ status: "active", is_paused: true });
    expect((await subscriptionOf(client)).pause_collection).toMatchObject({ behavior: "void" });

    // In the same second: which of two of Stripe's words is the last has to be asked.
    expect(await ask(client, "resume")).toMatchObject({ is_paused: false });
    expect((await subscriptionOf(client)).pause_collection).toBeNull();
    await stack.simulator.delivery.idle();
    await stack.doorbell.now();
    const { data } = await client.rpc("my_subscription");
    expect(data).toMatchObject([{ is_paused: false }]);
    expect(await ask(client, "pause", { at_period_end: false })).toMatchObject({ is_paused: true });
  });

  it("from the period's end begins before its invoice, which is void", async () => {
    const { client } = await stack.user("leaving-for-a-while");
    await subscribe(stack, client, "privileged_monthly");
    const waiting = await ask(client, "pause");
    expect(waiting["pause_at"]).toBe(waiting["current_period_end"]);

    const end = Date.parse(String(waiting["current_period_end"])) / 1_000;
    await stack.clock.advanceTo(end - 300);
    await stack.heartbeat.now();
    await stack.doorbell.now();
    expect((await subscriptionOf(client)).pause_collection).toMatchObject({ behavior: "void" });
    await stack.clock.advanceTo(end + 7_200);
    const { latest_invoice } = await subscriptionOf(client);
    expect((await stripe.invoices.retrieve(String(latest_invoice))).status).toBe("void");
  });
});

describe("a pause from the period's end that nobody carries in time", () => {
  /** Asked for by the heartbeat, but not carried until so long after the period's end. */
  async function carriedLate(name: string, seconds: number) {
    const { client, id } = await stack.user(name);
    await subscribe(stack, client, "privileged_monthly");
    const { pause_at } = await ask(client, "pause");
    const end = Date.parse(String(pause_at)) / 1_000;
    await stack.clock.advanceTo(end - 300);
    await stack.heartbeat.now();
    await stack.clock.advanceTo(end + seconds);
    await stack.doorbell.now();
    await stack.simulator.delivery.idle();
    const { pause_collection, latest_invoice } = await subscriptionOf(client);
    expect(pause_collection).toMatchObject({ behavior: "void" });
    return { client, account: id, invoice: String(latest_invoice) };
  }

  const issues = (account: string) =>
    stack
      .service()
      .schema("billing_admin")
      .from("critical_issues")
      .select("details")
      .eq("issue", "charged_despite_pause")
      .eq("account_id", account);

  it("takes back the draft that Stripe made meanwhile, and nothing is paid", async () => {
    const { client, account, invoice } = await carriedLate("unheard", 1_200);
    expect(await stripe.invoices.retrieve(invoice)).toMatchObject({
      status: "void",
      amount_paid: 0,
    });
    await stack.clock.advanceBy(4 * 86_400);
    const { data } = await client.from("payments").select("id").gt("amount_received_minor", 0);
    expect(data).toHaveLength(1);
    const access = await client.rpc("access_level", { feature: "premium_clubs" });
    expect(access.data).not.toBe("full");
    expect((await issues(account)).data).toEqual([]);
  });

  it("leaves what was paid by then to an administrator, who is told", async () => {
    const { client, account, invoice } = await carriedLate("charged", 7_200);
    expect((await stripe.invoices.retrieve(invoice)).status).toBe("paid");
    const access = await client.rpc("access_level", { feature: "premium_clubs" });
    expect(access.data).toBe("full");

    const [issue] = (await issues(account)).data ?? [];
    expect(issue?.details).toMatchObject({ amount_paid_minor: 900 });
    const { payment_id } = (issue?.details ?? {}) as { payment_id?: string };
    const refund = await stack
      .service()
      .schema("billing_admin")
      .rpc("refund_payment", {
        payment_id: payment_id ?? "",
        reason: "was to be paused",
        reference: "pause",
      });
    expect(refund.error).toBeNull();
    await stack.doorbell.now();
    await stack.simulator.delivery.idle();
    expect((await issues(account)).data).toEqual([]);
  });
});

describe("another card", () => {
  it("is charged from then on, by the level that was charged before", async () => {
    const { client } = await stack.user("careful");
    await subscribe(stack, client, "privileged_monthly");
    const before = await subscriptionOf(client);
    const { url } = await ask(client, "payment-method", {
      success_url: "https://app.example/account",
      cancel_url: "https://app.example/account",
    });
    const sessionId = new URL(String(url)).pathname.split("/").at(-1) ?? "";
    await stack.simulator.pay(sessionId, { card: "4444" });
    await stack.simulator.delivery.idle();
    await stack.doorbell.now();

    const after = await subscriptionOf(client);
    const customer = await stripe.customers.retrieve(String(after.customer));
    if (customer.deleted) throw new Error("the customer is gone");
    const charged =
      before.default_payment_method === null
        ? customer.invoice_settings.default_payment_method
        : after.default_payment_method;
    expect(charged).not.toBe(before.default_payment_method);
    expect((await stripe.paymentMethods.retrieve(String(charged))).card?.last4).toBe("4444");
  });
});

describe("an upgrade that is not paid", () => {
  it("is not made, and the user is led to its invoice", async () => {
    const { client } = await stack.user("broke");
    await subscribe(stack, client, "privileged_monthly", "0341");
    expect(
      await refusalOf(client, "change-plan", { price_key: "privileged_plus_monthly" }),
    ).toMatchObject({
      status: 402,
      code: "PAYMENT_REQUIRED",
      details: {
        price_keys: ["privileged_plus_monthly"],
        open_invoice_url: expect.stringContaining("http") as string,
      },
    });
    const { data } = await client.rpc("my_subscription", {}).single();
    expect(data).toMatchObject({ plan_key: "privileged", status: "active" });
  });
});

describe("one trial per person", () => {
  it("G4: a second account of the same address begins without", async () => {
    const first = await stack.user("eager");
    await withClient(stack.database.url, (db) =>
      db.query("update billing.prices set trial_days = 14 where key = 'member_monthly'"),
    );
    const eligible = await first.client.rpc("check_eligibility", { price_key: "member_monthly" });
    expect(eligible.data).toMatchObject({ eligible: true, trial_days: 14 });
    await subscribe(stack, first.client, "member_monthly");
    const { data } = await first.client.rpc("my_subscription", {}).single();
    expect(data?.status).toBe("trialing");

    const again = await stack.user("eager+again");
    await subscribe(stack, again.client, "member_monthly");
    const second = await again.client.rpc("my_subscription", {}).single();
    expect(second.data?.status).toBe("active");
  });
});

describe("the portal", () => {
  it("E11: leads to the account's own subscription", async () => {
    const { client } = await stack.user("clicking");
    await subscribe(stack, client, "privileged_monthly");
    const { url } = await ask(client, "portal", {
      return_url: "https://app.example/account",
      flow: "subscription_cancel",
    });
    expect(String(url)).toContain("http");
    const stranger = await stack.user("stranger");
    expect(
      await refusalOf(stranger.client, "portal", { return_url: "https://app.example/account" }),
    ).toMatchObject({ status: 404, code: "CUSTOMER_NOT_FOUND" });
  });
});
