import type Stripe from "stripe";
import type { Store } from "../store.ts";
import type { Period } from "./periods.ts";

/** The API's JSON carries decimals as text; the SDK makes objects of them on arrival. */
export function decimal(value: number | string): Stripe.Decimal {
  return String(value) as unknown as Stripe.Decimal;
}

/** A price's amount for a quantity in minor units; a fraction of a unit is rounded half up. */
export function amountFor({ tiers }: Store, price: Stripe.Price, quantity: number): number {
  const units = packagesOf(price, quantity);
  const steps = tiers.get(price.id);
  const exact =
    steps === undefined
      ? times(price.unit_amount_decimal, units)
      : price.tiers_mode === "volume"
        ? volumeAmount(steps, units)
        : graduatedAmount(steps, units);
  return Number(divideRounded(exact, scale));
}

/** Amounts are reckoned in parts of 10⁻¹² of a minor unit, the finest a price can name. */
const scale = 10n ** 12n;

function times(unitAmount: Stripe.Decimal | null, units: bigint): bigint {
  const [whole = "0", fraction = ""] = String(unitAmount ?? "0").split(".");
  return BigInt(whole + fraction.padEnd(12, "0")) * units;
}

/** What counts as one unit may be a package of several. */
function packagesOf({ transform_quantity }: Stripe.Price, quantity: number): bigint {
  if (transform_quantity === null) return BigInt(quantity);
  const { divide_by, round } = transform_quantity;
  const packages = quantity / divide_by;
  return BigInt(round === "up" ? Math.ceil(packages) : Math.floor(packages));
}

/** All units at the price of the tier the last one falls into. */
function volumeAmount(tiers: Stripe.Price.Tier[], units: bigint): bigint {
  const tier = tiers.find(({ up_to }) => up_to === null || units <= BigInt(up_to));
  if (tier === undefined) return 0n;
  return times(tier.flat_amount_decimal, 1n) + times(tier.unit_amount_decimal, units);
}

/** Each unit at its own tier's price; a tier's flat amount is due once it is reached, the first one's always. */
function graduatedAmount(tiers: Stripe.Price.Tier[], units: bigint): bigint {
  let amount = 0n;
  let below = 0n;
  for (const [index, tier] of tiers.entries()) {
    if (index > 0 && units <= below) break;
    const top = tier.up_to === null || units < BigInt(tier.up_to) ? units : BigInt(tier.up_to);
    amount += times(tier.flat_amount_decimal, 1n) + times(tier.unit_amount_decimal, top - below);
    below = top;
    if (tier.up_to === null) break;
  }
  return amount;
}

/** The part of `amount` for what is left of the period at `moment`, to the second, rounded half up. */
export function remainingShare(amount: number, period: Period, moment: number): number {
  const left = Math.max(0, Math.min(period.end - moment, period.end - period.start));
  return Number(divideRounded(BigInt(amount) * BigInt(left), BigInt(period.end - period.start)));
}

function divideRounded(dividend: bigint, divisor: bigint): bigint {
  return (2n * dividend + divisor) / (2n * divisor);
}
