import { warn } from "../lib/terminal.ts";
import type { StripeSimulator } from "../stripe-simulator/index.ts";
import { withClient } from "./database.ts";
import type { Errand } from "./errands.ts";

interface KnownProduct {
  id: string;
  key: string;
  name: string;
  description: string | null;
  active: boolean;
}

interface KnownPrice {
  id: string;
  key: string | null;
  product: string;
  currency: string;
  amount: string;
  interval: "day" | "week" | "month" | "year" | null;
  interval_count: number;
  usage_type: "licensed" | "metered";
  meter: string | null;
  trial_days: number | null;
  active: boolean;
}

/**
 * Has the database's catalog made at Stripe, as an administrator has it: by commands, which the checkout function
 * carries. What is there already stays as it is. Resolves when Stripe has answered.
 */
export async function publishCatalog(
  databaseUrl: string,
  doorbell: Pick<Errand, "now">,
): Promise<{ products: number; prices: number }> {
  const { rows: begun } = await withClient(databaseUrl, (client) =>
    client.query<{ at: Date }>(
      "select billing_private.now() as at, billing_admin.publish_catalog('the stack is being started')",
    ),
  );
  await doorbell.now();
  return withClient(databaseUrl, async (client) => {
    const { rows: refused } = await client.query<{ problem: string }>(
      `select path || ': ' || coalesce(last_error #>> '{error,message}', 'no answer') as problem
       from billing_private.commands
       where kind in ('create_product', 'update_product', 'create_price', 'update_price')
         and status <> 'succeeded'
         and created_at >= $1
       order by position`,
      [begun[0]?.at],
    );
    for (const { problem } of refused) warn(`Not published: ${problem}`);
    const { rows } = await client.query<{ products: number; prices: number }>(
      `select
         (select count(*)::integer from billing.plans where stripe_product_id is not null) as products,
         (select count(*)::integer from billing.prices where stripe_price_id is not null) as prices`,
    );
    return rows[0] ?? { products: 0, prices: 0 };
  });
}

/**
 * Gives the simulator the products and prices that a database had from an earlier one, under the same ids: it forgets
 * when it ends. Prices in tiers are left out.
 */
export async function recallCatalog(
  databaseUrl: string,
  simulator: Pick<StripeSimulator, "addProduct" | "addPrice">,
): Promise<void> {
  const { products, prices } = await readKnown(databaseUrl);
  for (const { key, description, ...product } of products) {
    simulator.addProduct({
      ...product,
      metadata: { plan_key: key },
      ...(description !== null && { description }),
    });
  }
  for (const price of prices) simulator.addPrice(recalled(price));
}

function recalled(price: KnownPrice): Parameters<StripeSimulator["addPrice"]>[0] {
  const { id, product, currency, active, amount, key, interval, usage_type, trial_days } = price;
  return {
    id,
    product,
    currency,
    active,
    unit_amount_decimal: amount,
    ...(key !== null && { lookup_key: key }),
    ...(interval !== null && {
      recurring: {
        interval,
        interval_count: price.interval_count,
        usage_type,
        ...(usage_type === "metered" && { meter: price.meter ?? `mtr_${id}` }),
        ...(trial_days !== null && { trial_period_days: trial_days }),
      },
    }),
  };
}

function readKnown(
  databaseUrl: string,
): Promise<{ products: KnownProduct[]; prices: KnownPrice[] }> {
  return withClient(databaseUrl, async (client) => {
    const products = await client.query<KnownProduct>(
      `select stripe_product_id as id, key, name, description, is_active as active
       from billing.plans
       where stripe_product_id is not null
       order by tier_rank, key`,
    );
    const prices = await client.query<KnownPrice>(
      `select
         prices.stripe_price_id as id,
         prices.key,
         plans.stripe_product_id as product,
         prices.currency,
         coalesce(prices.unit_amount_decimal, prices.unit_amount_minor)::text as amount,
         prices.billing_interval as interval,
         prices.interval_count,
         prices.usage_type,
         prices.stripe_meter_id as meter,
         prices.trial_days,
         prices.is_active as active
       from billing.prices
       join billing.plans on plans.id = prices.plan_id
       where prices.stripe_price_id is not null
         and plans.stripe_product_id is not null
         and prices.billing_scheme <> 'tiered'
         and coalesce(prices.unit_amount_decimal, prices.unit_amount_minor) is not null
       order by plans.tier_rank, plans.key, prices.key`,
    );
    return { products: products.rows, prices: prices.rows };
  });
}
