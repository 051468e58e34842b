// The Stripe simulator's API: what Stripe's SDK sees of keys, errors, lists, and how it can be made to fail.
import Stripe from "stripe";
import { afterEach, describe, expect, test } from "vitest";
import { monthly, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

async function call(path: string, init: RequestInit = {}) {
  const response = await fetch(`${harness.simulator.url}${path}`, {
    ...init,
    headers: { authorization: `Bearer ${harness.simulator.apiKey}`, ...init.headers },
  });
  return { response, body: (await response.json()) as Record<string, unknown> };
}

describe("idempotency keys", () => {
  test("the same key and parameters replay the first answer, errors included", async () => {
    harness = await useSimulator();
    const { stripe } = harness;
    const first = await stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" });
    const again = await stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" });
    expect(again.id).toBe(first.id);
    expect((await stripe.customers.list()).data).toHaveLength(1);

    const send = () =>
      call("/v1/customers", {
        method: "POST",
        body: "name=Ada",
        headers: { "idempotency-key": "k1" },
      });
    const { response } = await send();
    expect(response.headers.get("idempotent-replayed")).toBe("true");
    expect(response.headers.get("original-request")).toBe(first.lastResponse.requestId);

    const session = () =>
      stripe.invoices
        .pay("in_unknown", {}, { idempotencyKey: "k2" })
        .catch((error: Error) => error);
    expect(await session()).toMatchObject({ statusCode: 404 });
    expect(await session()).toMatchObject({ headers: { "idempotent-replayed": "true" } });
  });

  test("the same key with other parameters, or at another endpoint, is an idempotency error", async () => {
    harness = await useSimulator();
    const { stripe } = harness;
    await stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" });
    await expect(
      stripe.customers.create({ name: "Grace" }, { idempotencyKey: "k1" }),
    ).rejects.toBeInstanceOf(Stripe.errors.StripeIdempotencyError);
    await expect(
      stripe.products.create({ name: "Ada" }, { idempotencyKey: "k1" }),
    ).rejects.toMatchObject({ statusCode: 400 });
  });

  test("a key whose first request still runs answers 409", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    simulator.api.delay(50);
    const results = await Promise.allSettled([
      stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" }),
      stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" }),
    ]);
    const refused = results.find(({ status }) => status === "rejected");
    expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    expect(refused).toMatchObject({
      reason: { statusCode: 409, code: "idempotency_key_in_use" },
    });
  });

  test("a request that failed validation binds no key, and a key is forgotten after a day", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    const invalid = { name: 1, unknown: "x" } as unknown as Stripe.CustomerCreateParams;
    await expect(stripe.customers.create(invalid, { idempotencyKey: "k1" })).rejects.toMatchObject({
      code: "parameter_unknown",
      param: "unknown",
    });
    const first = await stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" });
    await simulator.clock.advanceBy(86_400);
    const second = await stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" });
    expect(second.id).not.toBe(first.id);
  });

  test("a key finds what was done although the answer was lost", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    simulator.api.fail({ when: "after", times: 2 });
    await expect(
      stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" }),
    ).rejects.toBeInstanceOf(Stripe.errors.StripeConnectionError);
    const again = await stripe.customers.create({ name: "Ada" }, { idempotencyKey: "k1" });
    expect((await stripe.customers.list()).data.map(({ id }) => id)).toEqual([again.id]);
  });
});

describe("errors", () => {
  test("have Stripe's statuses, types and codes", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    const stranger = new Stripe("sk_test_other", {
      host: "127.0.0.1",
      port: new URL(simulator.url).port,
      protocol: "http",
    });
    await expect(stranger.customers.list()).rejects.toBeInstanceOf(
      Stripe.errors.StripeAuthenticationError,
    );
    await expect(stripe.customers.retrieve("cus_none")).rejects.toMatchObject({
      statusCode: 404,
      code: "resource_missing",
      message: "No such customer: 'cus_none'",
    });
    await expect(stripe.rawRequest("GET", "/v1/unheard_of")).rejects.toMatchObject({
      statusCode: 404,
      message: expect.stringContaining("Unrecognized request URL (GET: /v1/unheard_of)"),
    });
    await expect(stripe.rawRequest("POST", "/v1/prices", {})).rejects.toMatchObject({
      code: "parameter_missing",
      param: "currency",
    });
    await expect(stripe.rawRequest("POST", "/v1/prices", { currency: "" })).rejects.toMatchObject({
      code: "parameter_invalid_empty",
    });
    // Removed from the API in this version; it must not pass unnoticed.
    await expect(
      stripe.rawRequest("POST", "/v1/checkout/sessions", {
        mode: "subscription",
        payment_method_types: ["card"],
      }),
    ).rejects.toMatchObject({ code: "parameter_unknown", param: "payment_method_types" });
  });

  test("a declined manual payment is a card error, and the attempt stays recorded", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    const { id } = await harness.subscribe({ card: "0341" });
    await simulator.clock.advanceBy(32 * 86_400);
    const subscription = await stripe.subscriptions.retrieve(id);
    const invoice = String(subscription.latest_invoice);
    const before = await stripe.invoices.retrieve(invoice);
    await expect(stripe.invoices.pay(invoice)).rejects.toMatchObject({
      statusCode: 402,
      type: "StripeCardError",
      code: "card_declined",
      decline_code: "generic_decline",
      payment_intent: { status: "requires_payment_method" },
    });
    const after = await stripe.invoices.retrieve(invoice);
    expect(after.attempt_count).toBe(before.attempt_count);
    expect(after.next_payment_attempt).toBe(before.next_payment_attempt);
    expect((await stripe.charges.list()).data.filter(({ paid }) => !paid)).toHaveLength(2);
    await stripe.invoices.pay(invoice, { paid_out_of_band: true });
    await expect(stripe.invoices.pay(invoice)).rejects.toMatchObject({
      statusCode: 400,
      message: "Invoice is already paid",
    });
  });

  test("can be asked for: a refusal before anything happens, with a time to wait", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    simulator.api.fail({
      when: "before",
      status: 429,
      code: "lock_timeout",
      retryAfterSeconds: 7,
      path: "/v1/customers",
    });
    await stripe.products.list();
    await expect(stripe.customers.create()).rejects.toMatchObject({
      statusCode: 429,
      code: "lock_timeout",
      headers: { "retry-after": "7" },
    });
    await stripe.customers.create();
    expect((await stripe.customers.list()).data).toHaveLength(1);
  });

  test("a 500 is kept for its key and replayed, though nothing happened", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    simulator.api.fail({ when: "saved", status: 500, path: "/v1/customers" });
    const create = (idempotencyKey: string) => stripe.customers.create({}, { idempotencyKey });
    await expect(create("k1")).rejects.toMatchObject({ statusCode: 500 });
    await expect(create("k1")).rejects.toMatchObject({
      statusCode: 500,
      headers: { "idempotent-replayed": "true" },
    });
    expect((await stripe.customers.list()).data).toEqual([]);
    await create("k2");
    expect((await stripe.customers.list()).data).toHaveLength(1);
  });

  test("one object can be locked while the others are free", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    const [locked, free] = [await stripe.customers.create(), await stripe.customers.create()];
    const lock = { when: "before", status: 429, code: "lock_timeout", object: locked.id } as const;
    simulator.api.fail({ ...lock, times: 2 });
    await stripe.customers.update(free.id, { name: "Ada" });
    const refused = { statusCode: 429, code: "lock_timeout" };
    await expect(stripe.customers.update(locked.id, { name: "Ada" })).rejects.toMatchObject(
      refused,
    );
    await expect(stripe.setupIntents.create({ customer: locked.id })).rejects.toMatchObject(
      refused,
    );
    await stripe.customers.update(locked.id, { name: "Ada" });
  });

  test("a rate limit counts by the simulator's seconds", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    simulator.api.limit(2);
    await stripe.customers.create();
    await stripe.customers.create();
    await expect(stripe.customers.create()).rejects.toMatchObject({
      statusCode: 429,
      code: "rate_limit",
      headers: { "retry-after": "1" },
    });
    await simulator.clock.advanceBy(1);
    await stripe.customers.create();
    simulator.api.limit(null);
    expect((await stripe.customers.list()).data).toHaveLength(3);
  });
});

describe("objects", () => {
  test("lists page newest first, and expand replaces ids", async () => {
    harness = await useSimulator();
    const { stripe } = harness;
    const names = ["a", "b", "c", "d", "e"];
    for (const name of names) await stripe.customers.create({ name });
    const firstPage = await stripe.customers.list({ limit: 2 });
    expect(firstPage.data.map(({ name }) => name)).toEqual(["e", "d"]);
    expect(firstPage.has_more).toBe(true);
    const all = await stripe.customers.list({ limit: 2 }).autoPagingToArray({ limit: 100 });
    expect(all.map(({ name }) => name)).toEqual(["e", "d", "c", "b", "a"]);

    const { id } = await harness.subscribe();
    const subscription = await stripe.subscriptions.retrieve(id, {
      expand: ["customer", "latest_invoice.payments", "items.data.price.product"],
    });
    expect(subscription.customer).toMatchObject({ object: "customer" });
    expect((subscription.latest_invoice as Stripe.Invoice).payments?.data).toHaveLength(1);
    expect(subscription.items.data[0]?.price.product).toMatchObject({ name: "Premium" });
    await expect(
      stripe.subscriptions.retrieve(id, { expand: ["nothing_like_that"] }),
    ).rejects.toMatchObject({ statusCode: 400, param: "expand" });
  });

  test("an empty value unsets, and metadata keys are set and deleted one by one", async () => {
    harness = await useSimulator();
    const { stripe } = harness;
    const customer = await stripe.customers.create({
      name: "Ada",
      metadata: { a: "1", b: "2" },
    });
    const updated = await stripe.customers.update(customer.id, {
      name: "",
      metadata: { a: "", c: "3" },
    });
    expect(updated).toMatchObject({ name: null, metadata: { b: "2", c: "3" } });
    expect((await stripe.customers.update(customer.id, { metadata: "" })).metadata).toEqual({});
  });

  test("a lookup key belongs to one price and moves only when told to", async () => {
    harness = await useSimulator();
    const { stripe } = harness;
    const { product } = await monthly(stripe, 500);
    const create = (transfer_lookup_key: boolean) =>
      stripe.prices.create({
        product: product.id,
        currency: "usd",
        unit_amount: 700,
        recurring: { interval: "month" },
        lookup_key: "premium_monthly",
        transfer_lookup_key,
      });
    await create(false);
    await expect(create(false)).rejects.toMatchObject({ param: "lookup_key" });
    const mover = await create(true);
    const found = await stripe.prices.list({ lookup_keys: ["premium_monthly"] });
    expect(found.data.map(({ id }) => id)).toEqual([mover.id]);
  });

  test("a local catalog brings its own ids, once", async () => {
    harness = await useSimulator();
    const { stripe, simulator } = harness;
    for (let round = 0; round < 2; round += 1) {
      simulator.addProduct({ id: "prod_local", name: "Member" });
      simulator.addPrice({
        id: "price_local",
        product: "prod_local",
        currency: "usd",
        unit_amount: 500,
        recurring: { interval: "year" },
      });
    }
    expect(await stripe.prices.retrieve("price_local", { expand: ["product"] })).toMatchObject({
      unit_amount: 500,
      recurring: { interval: "year", interval_count: 1 },
      product: { id: "prod_local", name: "Member" },
    });
    expect(simulator.events().map(({ type }) => type)).toEqual([
      "product.created",
      "price.created",
    ]);
  });

  test("events name the request that caused them and can be listed by type and time", async () => {
    harness = await useSimulator({ startAt: 1_800_000_000 });
    const { stripe, simulator } = harness;
    const customer = await stripe.customers.create({}, { idempotencyKey: "k1" });
    await simulator.clock.advanceBy(10);
    await stripe.customers.update(customer.id, { name: "Ada" });
    const { data } = await stripe.events.list({ type: "customer.created" });
    expect(data).toHaveLength(1);
    expect(data[0]).toMatchObject({
      api_version: "2026-10-28.endive",
      created: 1_800_000_000,
      livemode: false,
      request: { id: customer.lastResponse.requestId, idempotency_key: "k1" },
    });
    const later = await stripe.events.list({
      types: ["customer.created", "customer.updated"],
      created: { gt: 1_800_000_000 },
    });
    expect(later.data.map(({ type }) => type)).toEqual(["customer.updated"]);
    await simulator.clock.advanceBy(30 * 86_400);
    expect((await stripe.events.list()).data).toHaveLength(0);
  });

  test("the same seed gives the same ids", async () => {
    const idsOf = async () => {
      harness = await useSimulator({ seed: "story", startAt: 1_800_000_000 });
      await harness.subscribe();
      const ids = harness.simulator.events().map(({ id }) => id);
      await harness.stop();
      return ids;
    };
    const first = await idsOf();
    expect(first.length).toBeGreaterThan(5);
    expect(await idsOf()).toEqual(first);
    harness = await useSimulator();
  });
});
