import { warn } from "../lib/terminal.ts";
import type { StripeSimulator } from "../stripe-simulator/index.ts";
import { withClient } from "./database.ts";

export interface CatalogPlan {
  id: string;
  key: string;
  name: string;
  description: string | null;
  active: boolean;
}

export interface CatalogPrice {
  id: string;
  key: string | null;
  product: string;
  currency: string;
  amount: string | null;
  interval: "day" | "week" | "month" | "year" | null;
  interval_count: number;
  usage_type: "licensed" | "metered";
  tiered: boolean;
  trial_days: number | null;
  active: boolean;
}

/**
 * Gives the simulator the products and prices of the database's catalog, under the same ids, as if somebody had
 * made them in Stripe's dashboard. What is there already stays as it is. Prices in tiers are left out.
 */
export async function syncCatalog(
  databaseUrl: string,
  simulator: Pick<StripeSimulator, "addProduct" | "addPrice">,
): Promise<{ products: number; prices: number }> {
  const { plans, prices } = await readCatalog(databaseUrl);
  for (const plan of plans) {
    simulator.addProduct({
      id: plan.id,
      name: plan.name,
      active: plan.active,
      metadata: { plan_key: plan.key },
      ...(plan.description !== null && { description: plan.description }),
    });
  }

  const simple = prices.filter((price) => !price.tiered && price.amount !== null);
  for (const price of simple) simulator.addPrice(newPrice(price));
  if (simple.length < prices.length) {
    warn(`${prices.length - simple.length} prices in tiers are not known to the Stripe simulator.`);
  }
  return { products: plans.length, prices: simple.length };
}

function newPrice(price: CatalogPrice): Parameters<StripeSimulator["addPrice"]>[0] {
  return {
    id: price.id,
    product: price.product,
    currency: price.currency,
    unit_amount_decimal: price.amount ?? "0",
    active: price.active,
    ...(price.key !== null && { lookup_key: price.key }),
    ...(price.interval !== null && {
      recurring: {
        interval: price.interval,
        interval_count: price.interval_count,
        usage_type: price.usage_type,
        ...(price.usage_type === "metered" && { meter: `mtr_${price.id}` }),
        ...(price.trial_days !== null && { trial_period_days: price.trial_days }),
      },
    }),
  };
}

/** A plan or price without a Stripe id gets one here; the events that follow tell the database. */
export function readCatalog(
  databaseUrl: string,
): Promise<{ plans: CatalogPlan[]; prices: CatalogPrice[] }> {
  return withClient(databaseUrl, async (client) => {
    const plans = await client.query<CatalogPlan>(
      `select coalesce(stripe_product_id, 'prod_' || key) as id, key, name, description, is_active as active
       from billing.plans
       order by tier_rank, key`,
    );
    const prices = await client.query<CatalogPrice>(
      `select
         coalesce(prices.stripe_price_id, 'price_' || prices.key, 'price_' || prices.id) as id,
         prices.key,
         coalesce(plans.stripe_product_id, 'prod_' || plans.key) as product,
         prices.currency,
         coalesce(prices.unit_amount_decimal, prices.unit_amount_minor)::text as amount,
         prices.billing_interval as interval,
         prices.interval_count,
         prices.usage_type,
         prices.billing_scheme = 'tiered' as tiered,
         prices.trial_days,
         prices.is_active as active
       from billing.prices
       join billing.plans on plans.id = prices.plan_id
       order by plans.tier_rank, plans.key, prices.key`,
    );
    return { plans: plans.rows, prices: prices.rows };
  });
}
