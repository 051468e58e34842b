// The catalog that was written here is made at Stripe by commands, over HTTP: once, whatever Stripe knows already.
import Stripe from "stripe";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withClient } from "../../../scripts/stack/database.ts";
import { startTestStack, type TestStack } from "./stack.ts";

let stack: TestStack;
let stripe: Stripe;

beforeAll(async () => {
  stack = await startTestStack();
  const { hostname, port } = new URL(stack.simulator.url);
  stripe = new Stripe(stack.simulator.apiKey, { host: hostname, port, protocol: "http" });
});
afterAll(() => stack?.stop());

function admin() {
  return stack.service().schema("billing_admin");
}

/** A plan with a monthly price, as an administrator writes it. */
async function write(key: string, unitAmount = 700): Promise<void> {
  await withClient(stack.database.url, (db) =>
    db.query(
      `with plan as (insert into billing.plans (key, name, tier_rank) values ($1, $1, 40) returning id)
       insert into billing.prices (key, plan_id, currency, unit_amount_minor, billing_interval)
       select $1 || '_monthly', id, 'usd', $2, 'month' from plan`,
      [key, unitAmount],
    ),
  );
}

async function publish(key: string): Promise<number> {
  const { data, error } = await admin().rpc("publish_plan", { plan_key: key, reason: "a test" });
  if (error) throw new Error(error.message);
  await stack.doorbell.now();
  await stack.simulator.delivery.idle();
  return data;
}

async function idsOf(key: string) {
  const { rows } = await withClient(stack.database.url, (db) =>
    db.query<{ product: string; price: string }>(
      `select plans.stripe_product_id as product, prices.stripe_price_id as price
       from billing.prices
       join billing.plans on plans.id = prices.plan_id
       where prices.key = $1 || '_monthly'`,
      [key],
    ),
  );
  return rows;
}

async function pricesOf(product: string) {
  const { data } = await stripe.prices.list({ product });
  return data.map(({ id, lookup_key, active, unit_amount }) => ({
    id,
    lookup_key,
    active,
    unit_amount,
  }));
}

describe("a plan", () => {
  it("A4: becomes a product with its price, and asking again makes nothing more", async () => {
    await write("gold");
    expect(await publish("gold")).toBe(1);
    const [ids] = await idsOf("gold");
    expect(await stripe.products.retrieve("prod_gold")).toMatchObject({
      name: "gold",
      metadata: { plan_key: "gold" },
    });
    expect(await pricesOf("prod_gold")).toEqual([
      { id: ids?.price, lookup_key: "gold_monthly", active: true, unit_amount: 700 },
    ]);

    expect(await publish("gold")).toBe(0);
    expect(await pricesOf("prod_gold")).toHaveLength(1);
  });

  it("A4: takes over the product and price an earlier database made, unheard of here", async () => {
    stack.simulator.delivery.configure({ dropNext: 2 });
    await stripe.products.create({
      id: "prod_silver",
      name: "Old silver",
      metadata: { plan_key: "silver" },
    });
    const price = await stripe.prices.create({
      product: "prod_silver",
      currency: "usd",
      unit_amount: 700,
      recurring: { interval: "month" },
      lookup_key: "silver_monthly",
    });
    await stack.simulator.delivery.idle();
    expect(stack.simulator.delivery.dropped()).toHaveLength(2);

    await write("silver");
    await publish("silver");
    expect(await idsOf("silver")).toEqual([{ product: "prod_silver", price: price.id }]);
    expect(await pricesOf("prod_silver")).toHaveLength(1);
  });

  it("A4: takes over the product and price that were told of before it was written", async () => {
    const product = await stripe.products.create({
      name: "Early",
      metadata: { plan_key: "early" },
    });
    const price = await stripe.prices.create({
      product: product.id,
      currency: "usd",
      unit_amount: 700,
      recurring: { interval: "month" },
      lookup_key: "early_monthly",
    });
    await stack.simulator.delivery.idle();

    await withClient(stack.database.url, (db) =>
      db.query("insert into billing.plans (key, name, tier_rank) values ('early', 'Early', 40)"),
    );
    expect(await idsOf("early")).toEqual([{ product: product.id, price: price.id }]);
    expect(await publish("early")).toBe(0);
    await expect(stripe.products.retrieve("prod_early")).rejects.toMatchObject({ statusCode: 404 });
  });

  it("whose key somebody else's product has is refused, and shown", async () => {
    stack.simulator.delivery.configure({ dropNext: 1 });
    await stripe.products.create({ id: "prod_bronze", name: "Not ours" });
    await stack.simulator.delivery.idle();

    await write("bronze");
    await publish("bronze");
    expect(await idsOf("bronze")).toEqual([{ product: null, price: null }]);
    const { data } = await admin()
      .from("command_backlog")
      .select("kind,status")
      .eq("kind", "create_product");
    expect(data).toEqual([{ kind: "create_product", status: "dead" }]);
    expect((await stripe.products.retrieve("prod_bronze")).name).toBe("Not ours");
  });

  it("that is renamed and taken off sale is so at Stripe", async () => {
    await write("pewter");
    await publish("pewter");
    await withClient(stack.database.url, (db) =>
      db.query("update billing.plans set name = 'Pewter!', is_active = false where key = 'pewter'"),
    );
    await publish("pewter");
    expect(await stripe.products.retrieve("prod_pewter")).toMatchObject({
      name: "Pewter!",
      active: false,
    });
  });
});

describe("a price", () => {
  it("that is changed becomes another one, which takes the key with it", async () => {
    await write("copper");
    await publish("copper");
    const [old] = await idsOf("copper");
    const { error } = await admin().rpc("change_price", {
      price_key: "copper_monthly",
      unit_amount_minor: 800,
      reason: "a test",
    });
    expect(error).toBeNull();
    await stack.doorbell.now();
    await stack.simulator.delivery.idle();

    const [now] = await idsOf("copper");
    expect(now?.price).not.toBe(old?.price);
    const prices = await pricesOf("prod_copper");
    expect(prices).toHaveLength(2);
    expect(prices).toEqual(
      expect.arrayContaining([
        { id: now?.price, lookup_key: "copper_monthly", active: true, unit_amount: 800 },
        { id: old?.price, lookup_key: null, active: false, unit_amount: 700 },
      ]),
    );
  });

  it("that Stripe refuses leaves its plan, and is made when it is right", async () => {
    await write("tin");
    stack.simulator.api.fail({ path: "/v1/prices", when: "before", status: 400, code: "no" });
    await publish("tin");
    expect(await idsOf("tin")).toEqual([{ product: "prod_tin", price: null }]);

    expect(await publish("tin")).toBe(1);
    const [ids] = await idsOf("tin");
    expect(await pricesOf("prod_tin")).toMatchObject([{ id: ids?.price }]);
  });
});
