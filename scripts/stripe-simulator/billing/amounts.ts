import type Stripe from "stripe";
import type { Period } from "./periods.ts";

/** The API's JSON carries decimals as text; the SDK makes objects of them on arrival. */
export function decimal(value: number | string): Stripe.Decimal {
  return String(value) as unknown as Stripe.Decimal;
}

/** A price's amount for a quantity in minor units; a fraction of a unit is rounded half up. */
export function amountFor(price: Stripe.Price, quantity: number): number {
  const [whole = "0", fraction = ""] = String(price.unit_amount_decimal ?? "0").split(".");
  const scale = 10n ** BigInt(fraction.length);
  return Number(divideRounded(BigInt(whole + fraction) * BigInt(quantity), scale));
}

/** The part of `amount` for what is left of the period at `moment`, to the second, rounded half up. */
export function remainingShare(amount: number, period: Period, moment: number): number {
  const left = Math.max(0, Math.min(period.end - moment, period.end - period.start));
  return Number(divideRounded(BigInt(amount) * BigInt(left), BigInt(period.end - period.start)));
}

function divideRounded(dividend: bigint, divisor: bigint): bigint {
  return (2n * dividend + divisor) / (2n * divisor);
}
