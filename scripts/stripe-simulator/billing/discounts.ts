/** What coupons take off: who has which discount, for how long, and how much it is line by line. */
import type Stripe from "stripe";
import { invalidRequest } from "../errors.ts";
import { hash, list, text, unsettable, type Params } from "../http/params.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { addIntervals } from "./periods.ts";

/** One entry of a `discounts` parameter; `discount` keeps one that is there already. */
const discountRequest = { coupon: text, promotion_code: text, discount: text };
export const discountsParam = unsettable(list(hash(discountRequest)));
export type DiscountRequest = Partial<Params<typeof discountRequest>>;

/** A coupon that was found good, and the promotion code that led to it. */
export interface Offer {
  coupon: Stripe.Coupon;
  promotionCode: Stripe.PromotionCode | null;
}

/** What is being bought, as far as a promotion code's restrictions look at it. */
export interface Purchase {
  customer: string | null;
  currency: string;
  amount: number;
}

/** The offer a request names, or Stripe's refusal of one that has run out or is not for this purchase. */
export function offerOf(
  simulation: Simulation,
  { coupon, promotion_code }: DiscountRequest,
  purchase: Purchase,
  param: string,
): Offer {
  const { store, now } = simulation;
  if ((coupon === undefined) === (promotion_code === undefined)) {
    throw invalidRequest("You must pass exactly one of `coupon` and `promotion_code`.", { param });
  }
  const promotionCode =
    promotion_code === undefined
      ? null
      : store.promotionCodes.require(promotion_code, `${param}[promotion_code]`);
  if (promotionCode !== null) refuseForeignCode(simulation, promotionCode, purchase, param);
  const found = store.coupons.require(
    coupon ?? idOf(promotionCode?.promotion.coupon) ?? "",
    `${param}[coupon]`,
  );
  if (!isRedeemable(found, now())) {
    throw invalidRequest(`Coupon ${found.id} is expired or was redeemed as often as it may be.`, {
      code: "coupon_expired",
      param: `${param}[coupon]`,
    });
  }
  if (found.amount_off !== null && found.currency !== purchase.currency) {
    throw invalidRequest(
      `The coupon's currency (${String(found.currency)}) is not that of the purchase (${purchase.currency}).`,
      { param: `${param}[coupon]` },
    );
  }
  return { coupon: found, promotionCode };
}

export function isRedeemable(coupon: Stripe.Coupon, now: number): boolean {
  const used = coupon.max_redemptions !== null && coupon.times_redeemed >= coupon.max_redemptions;
  return !used && (coupon.redeem_by === null || coupon.redeem_by > now);
}

export function isCodeRedeemable(code: Stripe.PromotionCode, now: number): boolean {
  const used = code.max_redemptions !== null && code.times_redeemed >= code.max_redemptions;
  return code.active && !used && (code.expires_at === null || code.expires_at > now);
}

function refuseForeignCode(
  { store, now }: Simulation,
  code: Stripe.PromotionCode,
  { customer, currency, amount }: Purchase,
  param: string,
): void {
  const { first_time_transaction, minimum_amount, minimum_amount_currency } = code.restrictions;
  const bought = (id: string) =>
    store.charges.all().some((charge) => charge.customer === id && charge.paid);
  const reason = !isCodeRedeemable(code, now())
    ? "is not active any more"
    : code.customer !== null && code.customer !== customer
      ? "is for another customer"
      : first_time_transaction && customer !== null && bought(customer)
        ? "is for a customer's first purchase"
        : minimum_amount !== null && minimum_amount_currency === currency && amount < minimum_amount
          ? "needs a larger purchase"
          : undefined;
  if (reason === undefined) return;
  throw invalidRequest(`The promotion code ${code.code} cannot be redeemed: it ${reason}.`, {
    param: `${param}[promotion_code]`,
  });
}

export interface DiscountTarget {
  customer: string | null;
  subscription?: string;
  session?: string | null;
}

/** Redeems an offer: a discount that begins now. */
export function redeem(
  simulation: Simulation,
  { coupon, promotionCode }: Offer,
  { customer, subscription, session }: DiscountTarget,
): Stripe.Discount {
  const { store, newId, now, emit } = simulation;
  coupon.times_redeemed += 1;
  coupon.valid = isRedeemable(coupon, now());
  if (promotionCode !== null) {
    promotionCode.times_redeemed += 1;
    promotionCode.active = isCodeRedeemable(promotionCode, now());
  }
  const discount = store.discounts.add({
    ...newDiscount(simulation, newId("di"), { coupon, promotionCode }, customer),
    checkout_session: session ?? null,
    subscription: subscription ?? null,
  });
  emit("customer.discount.created", discount);
  return discount;
}

/** A discount that nobody keeps, for previews. */
export function newDiscount(
  { now }: Simulation,
  id: string,
  { coupon, promotionCode }: Offer,
  customer: string | null,
): Stripe.Discount {
  return {
    id,
    object: "discount",
    checkout_session: null,
    customer,
    customer_account: null,
    end:
      coupon.duration === "repeating"
        ? addIntervals(
            now(),
            { interval: "month", interval_count: 1 },
            coupon.duration_in_months ?? 1,
          )
        : null,
    invoice: null,
    invoice_item: null,
    promotion_code: promotionCode?.id ?? null,
    source: { type: "coupon", coupon: coupon.id },
    start: now(),
    subscription: null,
    subscription_item: null,
  };
}

/** The discounts a request leaves a subscription with: those it names, made now unless they are there already. */
export function wantedDiscounts(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  requests: DiscountRequest[] | null,
): (Offer | Stripe.Discount)[] {
  const current = discountsOf(simulation, subscription);
  const amount = subscription.items.data.reduce(
    (sum, { price, quantity }) => sum + (price.unit_amount ?? 0) * (quantity ?? 0),
    0,
  );
  return (requests ?? []).map((request, index) => {
    const param = `discounts[${index}]`;
    const kept = current.find(
      ({ id, source, promotion_code }) =>
        id === request.discount ||
        (request.coupon !== undefined && source.coupon === request.coupon) ||
        (request.promotion_code !== undefined && promotion_code === request.promotion_code),
    );
    if (kept !== undefined) return kept;
    return offerOf(
      simulation,
      request,
      { customer: idOf(subscription.customer), currency: subscription.currency, amount },
      param,
    );
  });
}

/** What these wishes would be as discounts, nothing redeemed. */
export function plannedDiscounts(
  simulation: Simulation,
  customer: string | null,
  wanted: (Offer | Stripe.Discount)[],
): Stripe.Discount[] {
  return wanted.map((each, index) =>
    "object" in each ? each : newDiscount(simulation, `di_planned_${index}`, each, customer),
  );
}

/** Gives a subscription exactly these discounts; the caller announces the subscription's change. */
export function setDiscounts(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  wanted: (Offer | Stripe.Discount)[],
): void {
  const customer = idOf(subscription.customer);
  const discounts = wanted.map((each) =>
    "object" in each ? each : redeem(simulation, each, { customer, subscription: subscription.id }),
  );
  const kept = new Set(discounts.map(({ id }) => id));
  for (const old of discountsOf(simulation, subscription)) {
    if (!kept.has(old.id)) simulation.emit("customer.discount.deleted", old);
  }
  subscription.discounts = discounts.map(({ id }) => id);
}

/** Takes discounts away whose time is over or that were for one invoice. */
export function removeDiscounts(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  gone: Stripe.Discount[],
): void {
  if (gone.length === 0) return;
  const ids = new Set(gone.map(({ id }) => id));
  change(simulation, subscription, () => {
    subscription.discounts = subscription.discounts.filter((each) => !ids.has(idOf(each) ?? ""));
  });
  for (const discount of gone) simulation.emit("customer.discount.deleted", discount);
}

export function discountsOf(
  { store }: Simulation,
  { discounts }: Pick<Stripe.Subscription, "discounts">,
): Stripe.Discount[] {
  return discounts.flatMap((each) => {
    if (typeof each !== "string") return [each];
    return store.discounts.get(each) ?? [];
  });
}

export interface DiscountableLine {
  amount: number;
  product: string | null;
  discountable: boolean;
}

/** What each discount takes off each line, in the discounts' order; later ones see what earlier ones left. */
export function discountAmounts(
  { store }: Simulation,
  discounts: Stripe.Discount[],
  lines: DiscountableLine[],
): Stripe.InvoiceLineItem.DiscountAmount[][] {
  const left = lines.map(({ amount, discountable }) => (discountable ? Math.max(0, amount) : 0));
  const taken: Stripe.InvoiceLineItem.DiscountAmount[][] = lines.map(() => []);
  for (const discount of discounts) {
    const coupon = store.couponOf(idOf(discount.source.coupon) ?? "");
    if (coupon === undefined) continue;
    const products = coupon.applies_to?.products;
    const bases = left.map((amount, index) =>
      products === undefined || products.includes(lines[index]?.product ?? "") ? amount : 0,
    );
    for (const [index, amount] of sharesOf(coupon, bases).entries()) {
      if (amount === 0) continue;
      left[index] = (left[index] ?? 0) - amount;
      taken[index]?.push({ amount, discount: discount.id });
    }
  }
  return taken;
}

function sharesOf(coupon: Stripe.Coupon, bases: number[]): number[] {
  if (coupon.percent_off !== null) {
    const hundredths = BigInt(Math.round(coupon.percent_off * 100));
    return bases.map((base) => Number((2n * BigInt(base) * hundredths + 10_000n) / 20_000n));
  }
  const total = bases.reduce((sum, base) => sum + base, 0);
  return largestRemainder(Math.min(coupon.amount_off ?? 0, total), bases, total);
}

/** Splits an amount in proportion to the bases, to the last minor unit. */
function largestRemainder(amount: number, bases: number[], total: number): number[] {
  if (total === 0) return bases.map(() => 0);
  const exact = bases.map((base) => BigInt(amount) * BigInt(base));
  const shares = exact.map((share) => Number(share / BigInt(total)));
  const byRemainder = [...exact.keys()].sort(
    (a, b) => Number((exact[b] ?? 0n) % BigInt(total)) - Number((exact[a] ?? 0n) % BigInt(total)),
  );
  const short = amount - shares.reduce((sum, share) => sum + share, 0);
  for (const index of byRemainder.slice(0, short)) shares[index] = (shares[index] ?? 0) + 1;
  return shares;
}
