/** The catalog in a Stripe account: what a person would otherwise enter in Stripe's dashboard. */

import Stripe from "stripe";
import { readCatalog, type CatalogPlan, type CatalogPrice } from "./catalog.ts";
import { withClient } from "./database.ts";
import type { StripeAccess } from "./functions.ts";

/**
 * Makes sure a Stripe account has the products and prices of the database's catalog, and writes Stripe's price ids
 * into it. Products are found by their id, prices by their lookup key: running it again makes nothing twice.
 */
export async function publishCatalog(
  databaseUrl: string,
  access: StripeAccess,
): Promise<{ products: number; prices: number }> {
  const stripe = connectTo(access);
  const { plans, prices } = await readCatalog(databaseUrl);
  for (const plan of plans) await ensureProduct(stripe, plan);

  const named = prices.filter(({ key, amount, tiered }) => key !== null && amount && !tiered);
  for (const price of named) {
    const id = await ensurePrice(stripe, price);
    await withClient(databaseUrl, (client) =>
      client.query(
        "update billing.prices set stripe_price_id = $1, stripe_product_id = $2 where key = $3 and is_active",
        [id, price.product, price.key],
      ),
    );
  }
  return { products: plans.length, prices: named.length };
}

function connectTo({ apiKey, apiBase }: StripeAccess): Stripe {
  if (apiBase === undefined) return new Stripe(apiKey);
  const { hostname, port, protocol } = new URL(apiBase);
  return new Stripe(apiKey, {
    host: hostname,
    port,
    protocol: protocol === "http:" ? "http" : "https",
  });
}

async function ensureProduct(stripe: Stripe, plan: CatalogPlan): Promise<void> {
  const found = await stripe.products.retrieve(plan.id).catch((error: unknown) => {
    if (error instanceof Stripe.errors.StripeError && error.code === "resource_missing") {
      return null;
    }
    throw error;
  });
  if (found !== null) return;
  await stripe.products.create({
    id: plan.id,
    name: plan.name,
    metadata: { plan_key: plan.key },
    ...(plan.description !== null && { description: plan.description }),
  });
}

async function ensurePrice(stripe: Stripe, price: CatalogPrice): Promise<string> {
  const lookupKey = price.key ?? "";
  const { data } = await stripe.prices.list({ lookup_keys: [lookupKey], limit: 1 });
  if (data[0]) return data[0].id;
  const created = await stripe.prices.create({
    product: price.product,
    currency: price.currency,
    unit_amount: Number(price.amount),
    lookup_key: lookupKey,
    ...(price.interval !== null && {
      recurring: { interval: price.interval, interval_count: price.interval_count },
    }),
  });
  return created.id;
}
