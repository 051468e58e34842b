// The catalog in a Stripe account: made once, found again, and its price ids known to the database.
import Stripe from "stripe";
import { afterAll, beforeAll, expect, it } from "vitest";
import { seed } from "../../../scripts/postgres/index.ts";
import { withClient } from "../../../scripts/stack/database.ts";
import { publishCatalog } from "../../../scripts/stack/stripe-account.ts";
import {
  createStripeSimulator,
  type StripeSimulator,
} from "../../../scripts/stripe-simulator/index.ts";
import { createTestDatabase } from "../support/database.ts";

let database: Awaited<ReturnType<typeof createTestDatabase>>;
let simulator: StripeSimulator;

beforeAll(async () => {
  database = await createTestDatabase();
  await seed(database.url);
  simulator = await createStripeSimulator();
});
afterAll(async () => {
  await simulator?.stop();
  await database?.drop();
});

it("makes every product and price once, and writes Stripe's ids into the catalog", async () => {
  const access = {
    apiKey: simulator.apiKey,
    apiBase: simulator.url,
    webhookSecret: simulator.webhookSecret,
  };
  const first = await publishCatalog(database.url, access);
  const again = await publishCatalog(database.url, access);

  expect(first).toEqual(again);
  expect(first).toEqual({ products: 5, prices: 10 });

  const { hostname, port } = new URL(simulator.url);
  const stripe = new Stripe(simulator.apiKey, { host: hostname, port, protocol: "http" });
  const prices = await stripe.prices.list({ limit: 100 });
  expect(prices.data).toHaveLength(10);
  const known = await withClient(database.url, (client) =>
    client.query<{ id: string; key: string }>(
      "select stripe_price_id as id, key from billing.prices order by key",
    ),
  );
  expect(known.rows.map(({ id }) => id).sort()).toEqual(prices.data.map(({ id }) => id).sort());
  expect(new Map(known.rows.map(({ id, key }) => [id, key]))).toEqual(
    new Map(prices.data.map(({ id, lookup_key }) => [id, lookup_key])),
  );
});
