// A call whose answer is lost, and whose key Stripe has forgotten a day later: whether it took effect is looked up,
// over HTTP, before it is made again.
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

// Nothing of one test is left to be carried in the next.
afterEach(async () => {
  for (const { id } of (await stripe.subscriptions.list({ limit: 100 })).data) {
    await stripe.subscriptions.cancel(id);
  }
  await stack.simulator.delivery.idle();
  await stack.doorbell.now();
});

function admin() {
  return stack.service().schema("billing_admin");
}

/** Has calls to a path carried out, every answer lost, and a day go by in which nobody calls Stripe. */
async function loseAnswer(path: string): Promise<void> {
  loseNow(path);
  await stack.doorbell.now();
  await aDayLater();
}

/** Time stands still until it is moved: also what is tried again meanwhile has no answer. */
function loseNow(path: string, when: "after" | "before" = "after"): void {
  stack.simulator.api.fail({ path, when, status: 503, until: stack.simulator.clock.now() + 1 });
}

async function aDayLater(): Promise<void> {
  await stack.clock.advanceBy(day + 60);
  await stack.doorbell.now();
  await stack.simulator.delivery.idle();
}

/** The commands of a kind, with whether each was seen to have taken effect instead of being made again. */
async function outcomesOf(kind: string) {
  const { rows } = await withClient(stack.database.url, (db) =>
    db.query<{ status: string; fresh_key: boolean; read: boolean }>(
      `select commands.status, idempotency_key is not null as fresh_key,
         coalesce(source = 'reread', false) as read
       from billing_private.commands
       left join billing_private.stripe_events on event_id = 'command:' || id
       where kind = $1
       order by position`,
      [kind],
    ),
  );
  return rows;
}

const found = { status: "succeeded", fresh_key: false, read: true };
const madeAgain = { status: "succeeded", fresh_key: true, read: false };

async function claimCheckout(client: Client): Promise<void> {
  const { error } = await client.rpc("prepare_checkout", {
    price_key: "privileged_monthly",
    success_url: "https://app.example/welcome",
    cancel_url: "https://app.example/plans",
  });
  expect(error).toBeNull();
}

async function customersOf(account: string): Promise<string[]> {
  const { data } = await stripe.customers.list({ limit: 100 });
  return data.filter(({ metadata }) => metadata["account_id"] === account).map(({ id }) => id);
}

async function subscriber(name: string, price = "privileged_monthly") {
  const { client } = await stack.user(name);
  await subscribe(stack, client, price);
  const { data } = await client.from("subscriptions").select("stripe_subscription_id").single();
  return { client, id: data?.stripe_subscription_id ?? "" };
}

/** Asks without waiting, so that the dispatcher carries it. */
async function wish(asked: PromiseLike<{ error: unknown }>): Promise<void> {
  expect((await asked).error).toBeNull();
}

describe("a customer", () => {
  it("B10: that was made is found by the account it was made for", async () => {
    const { client, id } = await stack.user("twice");
    // Nothing is told of it either: the answer was all there was.
    stack.simulator.delivery.configure({ dropTypes: ["customer.created"] });
    await claimCheckout(client);
    await loseAnswer("/v1/customers");
    stack.simulator.delivery.configure({ dropTypes: [] });

    expect(await outcomesOf("create_customer")).toEqual([found]);
    const made = await customersOf(id);
    expect(made).toHaveLength(1);
    const { data } = await client.from("customers").select("stripe_customer_id").single();
    expect(data).toEqual({ stripe_customer_id: made[0] });
  });

  it("B10: that was not made is made, once", async () => {
    const { client, id } = await stack.user("never");
    await claimCheckout(client);
    loseNow("/v1/customers", "before");
    await stack.doorbell.now();
    await aDayLater();

    expect((await outcomesOf("create_customer")).at(-1)).toEqual(madeAgain);
    expect(await customersOf(id)).toHaveLength(1);
  });
});

describe("the catalog", () => {
  it("B10: has one product and one price, though both answers were lost", async () => {
    stack.simulator.delivery.configure({ dropTypes: ["product.created", "price.created"] });
    await withClient(stack.database.url, (db) =>
      db.query(
        `with plan as (
           insert into billing.plans (key, name, tier_rank) values ('late', 'Late', 40) returning id
         )
         insert into billing.prices (key, plan_id, currency, unit_amount_minor, billing_interval)
         select 'late_monthly', id, 'usd', 700, 'month' from plan`,
      ),
    );
    await wish(admin().rpc("publish_plan", { plan_key: "late", reason: "a test" }));
    loseNow("/v1/products");
    await stack.doorbell.now();
    await stack.clock.advanceBy(day + 60);
    await loseAnswer("/v1/prices");
    stack.simulator.delivery.configure({ dropTypes: [] });

    expect((await outcomesOf("create_product")).at(-1)).toEqual(found);
    expect((await outcomesOf("create_price")).at(-1)).toEqual(found);
    const { data } = await stripe.prices.list({ product: "prod_late" });
    const { rows } = await withClient(stack.database.url, (db) =>
      db.query("select stripe_price_id from billing.prices where key = 'late_monthly'"),
    );
    expect(rows).toEqual(data.map(({ id }) => ({ stripe_price_id: id })));
    expect(rows).toHaveLength(1);
  });

  it("B10: has one coupon", async () => {
    await wish(
      admin().rpc("create_coupon", { coupon_key: "spring", reason: "a test", percent_off: 10 }),
    );
    await loseAnswer("/v1/coupons");
    expect(await outcomesOf("create_coupon")).toEqual([found]);
    expect((await stripe.coupons.list()).data.map(({ id }) => id)).toEqual(["spring"]);
  });
});

describe("a subscriber's wish", () => {
  it("B10: to change the plan is charged once", async () => {
    const { client, id } = await subscriber("changing");
    await wish(client.rpc("change_plan", { price_key: "privileged_plus_monthly" }));
    await loseAnswer("/v1/subscriptions/");

    expect(await outcomesOf("change_plan")).toEqual([found]);
    const invoices = await stripe.invoices.list({ subscription: id });
    expect(invoices.data.map(({ billing_reason }) => billing_reason)).toEqual([
      "subscription_update",
      "subscription_create",
    ]);
  });

  it("B10: to change at the period's end makes one schedule, which says what is to come", async () => {
    const { client, id } = await subscriber("planning", "privileged_plus_monthly");
    await wish(client.rpc("change_plan", { price_key: "member_monthly" }));
    await loseAnswer("/v1/subscription_schedules");

    expect(await outcomesOf("create_schedule")).toEqual([found]);
    const { schedule } = await stripe.subscriptions.retrieve(id, { expand: ["schedule"] });
    expect(schedule).toMatchObject({ phases: [{}, {}] });
    const { data } = await client.rpc("my_subscription", {}).single();
    expect(data?.pending_price_key).toBe("member_monthly");
  });

  it("B10: to stay after all is done, although Stripe refuses to let go again", async () => {
    const { client, id } = await subscriber("staying", "privileged_plus_monthly");
    await wish(client.rpc("change_plan", { price_key: "member_monthly" }));
    await stack.doorbell.now();
    expect((await stripe.subscriptions.retrieve(id)).schedule).not.toBeNull();
    const unheard = ["subscription_schedule.released", "customer.subscription.updated"];
    stack.simulator.delivery.configure({ dropTypes: unheard });
    await wish(client.rpc("change_plan", { price_key: "privileged_plus_monthly" }));
    await loseAnswer("/v1/subscription_schedules/");
    await stack.doorbell.now();
    stack.simulator.delivery.configure({ dropTypes: [] });

    expect(await outcomesOf("release_schedule")).toMatchObject([
      { status: "succeeded", read: true },
    ]);
    const { data } = await client.rpc("my_subscription", {}).single();
    expect(data).toMatchObject({ pending_price_key: null, pending_command: null });
  });

  it("B10: to go on after Stripe's own pause starts one period", async () => {
    const { client, id: account } = await stack.user("woken");
    const { id: customer } = await stripe.customers.create({
      email: "woken@example.com",
      metadata: { account_id: account },
    });
    const prices = await stripe.prices.list({ lookup_keys: ["privileged_monthly"] });
    const { id } = await stripe.subscriptions.create({
      customer,
      items: [{ price: prices.data[0]?.id ?? "" }],
      trial_period_days: 1,
      trial_settings: { end_behavior: { missing_payment_method: "pause" } },
    });
    await stack.clock.advanceBy(day + 7_200);
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("paused");
    const card = await stripe.paymentMethods.attach("pm_card_visa", { customer });
    await stripe.subscriptions.update(id, { default_payment_method: card.id });
    await stack.simulator.delivery.idle();

    await wish(client.rpc("resume_subscription", {}));
    await loseAnswer(`/v1/subscriptions/${id}/resume`);
    expect(await outcomesOf("resume_subscription")).toEqual([found]);
    const invoices = await stripe.invoices.list({ subscription: id });
    expect(invoices.data.filter(({ amount_paid }) => amount_paid > 0)).toHaveLength(1);
  });

  it("B10: to end at once is done, although Stripe refuses to end it again", async () => {
    const { client, id } = await subscriber("leaving");
    stack.simulator.delivery.configure({ dropTypes: ["customer.subscription.deleted"] });
    await wish(client.rpc("cancel_subscription", { at_period_end: false }));
    await loseAnswer("/v1/subscriptions/");
    await stack.doorbell.now();
    stack.simulator.delivery.configure({ dropTypes: [] });

    expect(await outcomesOf("cancel_subscription")).toMatchObject([
      { status: "succeeded", read: true },
    ]);
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("canceled");
    const { data } = await client.from("subscriptions").select("status").single();
    expect(data).toEqual({ status: "canceled" });
  });
});

describe("a checkout", () => {
  it("B10: that is to be closed is, although Stripe has closed it since", async () => {
    const { client } = await stack.user("choosy");
    await claimCheckout(client);
    await stack.doorbell.now();
    const { error } = await client.rpc("prepare_checkout", {
      price_key: "member_monthly",
      success_url: "https://app.example/welcome",
      cancel_url: "https://app.example/plans",
    });
    expect(error).toBeNull();
    await loseAnswer("/v1/checkout/sessions/");
    await stack.doorbell.now();

    expect(await outcomesOf("expire_checkout")).toMatchObject([
      { status: "succeeded", read: true },
    ]);
    const { data } = await client.from("checkout_sessions").select("status").order("created_at");
    expect(data).toEqual([{ status: "expired" }, { status: "open" }]);
  });
});

describe("an invoice under a late pause", () => {
  it("B10: is closed once and taken back, and nobody pays it meanwhile", async () => {
    const { client, id } = await subscriber("late-pauser");
    await wish(client.rpc("pause_subscription", {}));
    const { data } = await client.from("subscriptions").select("current_period_end").single();
    await stack.clock.advanceTo(Date.parse(data?.current_period_end ?? "") / 1_000 + 1_200);
    await stack.heartbeat.now();
    await loseAnswer("/v1/invoices/");
    await stack.doorbell.now();

    expect(await outcomesOf("finalize_invoice")).toMatchObject([
      { status: "succeeded", read: true },
    ]);
    const { latest_invoice } = await stripe.subscriptions.retrieve(id);
    expect(await stripe.invoices.retrieve(String(latest_invoice))).toMatchObject({
      status: "void",
      amount_paid: 0,
    });
  });

  /** Paused too late, as an administrator may; the draft Stripe made is to be closed, and then treated so. */
  async function paysLate(name: string, behavior: string) {
    const { client, id } = await subscriber(name);
    const { data } = await client.from("subscriptions").select("account_id").single();
    const account_id = data?.account_id ?? "";
    await wish(stack.service().rpc("pause_subscription", { account_id, behavior }));
    const { data: paid } = await client.from("subscriptions").select("current_period_end").single();
    await stack.clock.advanceTo(Date.parse(paid?.current_period_end ?? "") / 1_000 + 1_200);
    await stack.heartbeat.now();
    const { latest_invoice } = await stripe.subscriptions.retrieve(id);
    return { client, invoice: String(latest_invoice) };
  }

  const treatments = [
    { kind: "void_invoice", behavior: "void", path: "void", status: "void" },
    {
      kind: "mark_uncollectible",
      behavior: "mark_uncollectible",
      path: "mark_uncollectible",
      status: "uncollectible",
    },
  ];
  it.each(treatments)(
    "B10, G15: $kind is seen to be done, although Stripe refuses to do it again",
    async ({ kind, behavior, path, status }) => {
      const { client, invoice } = await paysLate(`late-${kind.replace("_", "-")}`, behavior);
      const unheard = ["invoice.voided", "invoice.marked_uncollectible", "invoice.updated"];
      stack.simulator.delivery.configure({ dropTypes: unheard });
      await loseAnswer(`/v1/invoices/${invoice}/${path}`);
      expect((await stripe.invoices.retrieve(invoice)).status).toBe(status);
      await stack.doorbell.now();
      stack.simulator.delivery.configure({ dropTypes: [] });

      expect((await outcomesOf(kind)).at(-1)).toEqual({
        status: "succeeded",
        fresh_key: true,
        read: true,
      });
      const { data } = await client
        .from("invoices")
        .select("status")
        .eq("stripe_invoice_id", invoice);
      expect(data).toEqual([{ status }]);
    },
  );
});

describe("a payment", () => {
  it("G16: that was collected is not collected again", async () => {
    const { client, id } = await subscriber("paying");
    const { data } = await client.from("subscriptions").select("current_period_end").single();
    stack.simulator.failNextPayments(1, "insufficient_funds");
    await stack.clock.advanceTo(Date.parse(data?.current_period_end ?? "") / 1_000 + 7_200);
    await stack.clock.advanceBy(day);
    await stack.heartbeat.now();
    stack.simulator.delivery.configure({
      dropTypes: ["invoice.paid", "invoice.payment_succeeded"],
    });
    await loseAnswer("/v1/invoices/");
    stack.simulator.delivery.configure({ dropTypes: [] });

    expect(await outcomesOf("pay_invoice")).toEqual([found]);
    const { customer } = await stripe.subscriptions.retrieve(id);
    const charges = await stripe.charges.list({ customer: String(customer) });
    expect(charges.data.map(({ status }) => status)).toEqual(["succeeded", "failed", "succeeded"]);
    const { data: cases } = await client.from("dunning_cases").select("status");
    expect(cases).toEqual([{ status: "recovered" }]);
  });
});
