// The Stripe simulator's discounts: coupons and promotion codes, what they take off and for how long.
import type Stripe from "stripe";
import { afterEach, describe, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const end = second("2026-05-01T00:00:00Z");
const day = 86_400;
const success_url = "https://app.test/";

async function setUp(coupon: Stripe.CouponCreateParams, amount = 1_000) {
  harness = await useSimulator({ startAt: start });
  const { stripe } = harness;
  const customer = await stripe.customers.create({
    payment_method: "pm_card_visa",
  });
  const [method] = (await stripe.paymentMethods.list({ customer: customer.id })).data;
  await stripe.customers.update(customer.id, {
    invoice_settings: { default_payment_method: method!.id },
  });
  const { price, product } = await monthly(stripe, amount);
  return { customer, price, product, coupon: await stripe.coupons.create(coupon) };
}

async function subscribe(coupon: Stripe.CouponCreateParams, amount = 1_000) {
  const made = await setUp(coupon, amount);
  const subscription = await harness.stripe.subscriptions.create({
    customer: made.customer.id,
    items: [{ price: made.price.id }],
    discounts: [{ coupon: made.coupon.id }],
    expand: ["discounts", "latest_invoice"],
  });
  return { ...made, subscription, id: subscription.id };
}

/** Paid amounts of the subscription's invoices, oldest first. */
async function paid(id: string): Promise<number[]> {
  const { data } = await harness.stripe.invoices.list({ subscription: id, limit: 100 });
  return data.map(({ amount_paid }) => amount_paid).reverse();
}

describe("durations", () => {
  test("once takes off the first invoice alone, and is gone", async () => {
    const { id, subscription, coupon } = await subscribe({ percent_off: 25 });
    const { stripe, simulator, received } = harness;
    expect(subscription.latest_invoice).toMatchObject({
      subtotal: 1_000,
      total: 750,
      amount_paid: 750,
      total_discount_amounts: [{ amount: 250 }],
    });
    expect((await stripe.subscriptions.retrieve(id)).discounts).toEqual([]);
    await simulator.clock.advanceTo(end + 3_600);
    expect(await paid(id)).toEqual([750, 1_000]);
    expect(await stripe.coupons.retrieve(coupon.id)).toMatchObject({ times_redeemed: 1 });
    expect(received.map(({ type }) => type)).toEqual(
      expect.arrayContaining(["customer.discount.created", "customer.discount.deleted"]),
    );
  });

  test("repeating lasts its months and ends before the renewal it no longer covers", async () => {
    const { id, subscription } = await subscribe({
      percent_off: 50,
      duration: "repeating",
      duration_in_months: 2,
    });
    expect(subscription.discounts).toMatchObject([
      { object: "discount", start, end: second("2026-06-01T00:00:00Z"), subscription: id },
    ]);
    await harness.simulator.clock.advanceTo(second("2026-06-02T00:00:00Z"));
    expect(await paid(id)).toEqual([500, 500, 1_000]);
    expect((await harness.stripe.subscriptions.retrieve(id)).discounts).toEqual([]);
  });

  test("forever lasts, even when its coupon is deleted", async () => {
    const { id, coupon } = await subscribe({ percent_off: 10, duration: "forever" });
    const { stripe, simulator } = harness;
    await stripe.coupons.del(coupon.id);
    await expect(stripe.coupons.retrieve(coupon.id)).rejects.toMatchObject({ statusCode: 404 });
    await simulator.clock.advanceTo(end + 3_600);
    expect(await paid(id)).toEqual([900, 900]);
    expect((await stripe.subscriptions.retrieve(id)).discounts).toHaveLength(1);
  });
});

describe("amounts", () => {
  test("a fixed amount never takes more than there is, and a free first invoice needs no payment", async () => {
    const { subscription } = await subscribe({ amount_off: 5_000, currency: "usd" }, 1_000);
    expect(subscription).toMatchObject({
      status: "active",
      latest_invoice: { status: "paid", total: 0, amount_paid: 0 },
    });
    expect((await harness.stripe.charges.list()).data).toEqual([]);
  });

  test("a fixed amount is shared among the lines to the last cent", async () => {
    const { customer, price, coupon } = await setUp({ amount_off: 100, currency: "usd" }, 999);
    const { stripe } = harness;
    const others = [await monthly(stripe, 333), await monthly(stripe, 333)];
    const subscription = await stripe.subscriptions.create({
      customer: customer.id,
      items: [{ price: price.id }, ...others.map((other) => ({ price: other.price.id }))],
      discounts: [{ coupon: coupon.id }],
      expand: ["latest_invoice"],
    });
    const invoice = subscription.latest_invoice as Stripe.Invoice;
    expect(invoice.total).toBe(1_565);
    expect(invoice.lines.data.map((line) => line.discount_amounts?.[0]?.amount)).toEqual([
      60, 20, 20,
    ]);
  });

  test("a coupon for one product leaves the others alone", async () => {
    const { customer, price, product } = await setUp({ percent_off: 1 });
    const { stripe } = harness;
    const other = await monthly(stripe, 500);
    const coupon = await stripe.coupons.create({
      percent_off: 50,
      applies_to: { products: [product.id] },
    });
    const subscription = await stripe.subscriptions.create({
      customer: customer.id,
      items: [{ price: price.id }, { price: other.price.id }],
      discounts: [{ coupon: coupon.id }],
      expand: ["latest_invoice"],
    });
    expect(subscription.latest_invoice).toMatchObject({ subtotal: 1_500, total: 1_000 });
  });

  test("an upgrade credits what was billed and charges what will be, discounts taken off", async () => {
    const { id, subscription } = await subscribe({ percent_off: 20, duration: "forever" });
    const { stripe, simulator } = harness;
    const { price } = await monthly(stripe, 2_000);
    await simulator.clock.advanceTo(start + 15 * day);
    const items = [{ id: subscription.items.data[0]!.id, price: price.id }];
    const preview = await stripe.invoices.createPreview({
      subscription: id,
      subscription_details: { items, proration_behavior: "always_invoice" },
    });
    expect(preview.lines.data.map(({ amount }) => amount)).toEqual([-400, 800]);
    const changed = await stripe.subscriptions.update(id, {
      items,
      proration_behavior: "always_invoice",
      expand: ["latest_invoice"],
    });
    expect(changed.latest_invoice).toMatchObject({ total: 400 });
  });
});

describe("promotion codes", () => {
  test("are typed in at checkout, and take their amount off what is due", async () => {
    const { coupon, price } = await setUp({ percent_off: 40, duration: "forever" });
    const { stripe, simulator } = harness;
    const code = await stripe.promotionCodes.create({
      promotion: { type: "coupon", coupon: coupon.id },
      code: "SPRING",
    });
    const session = await stripe.checkout.sessions.create({
      mode: "subscription",
      allow_promotion_codes: true,
      line_items: [{ price: price.id, quantity: 1 }],
      success_url,
    });
    await expect(simulator.pay(session.id, { promotionCode: "WINTER" })).rejects.toThrow("invalid");
    await simulator.pay(session.id, { promotionCode: "spring" });
    const done = await stripe.checkout.sessions.retrieve(session.id, {
      expand: ["subscription.discounts", "invoice"],
    });
    expect(done).toMatchObject({
      amount_subtotal: 1_000,
      amount_total: 600,
      total_details: { amount_discount: 400 },
      discounts: [{ coupon: coupon.id, promotion_code: code.id }],
      invoice: { amount_paid: 600 },
      subscription: {
        discounts: [
          {
            promotion_code: code.id,
            source: { type: "coupon", coupon: coupon.id },
            checkout_session: session.id,
          },
        ],
      },
    });
  });

  test("are passed with the session, and make a first period free when they take it all", async () => {
    const { coupon, price } = await setUp({ percent_off: 100 });
    const { stripe, simulator } = harness;
    const code = await stripe.promotionCodes.create({
      promotion: { type: "coupon", coupon: coupon.id },
    });
    const session = await stripe.checkout.sessions.create({
      mode: "subscription",
      discounts: [{ promotion_code: code.id }],
      line_items: [{ price: price.id, quantity: 1 }],
      success_url,
    });
    expect(session).toMatchObject({ amount_total: 0, payment_status: "no_payment_required" });
    await simulator.pay(session.id);
    const { data } = await stripe.subscriptions.list();
    expect(data[0]).toMatchObject({ status: "active", discounts: [] });
    await simulator.clock.advanceTo(end + 3_600);
    expect(await paid(data[0]!.id)).toEqual([0, 1_000]);
  });

  test("are refused when used up, expired, for another customer, too small or not the first purchase", async () => {
    const { coupon, customer, price } = await setUp({ percent_off: 10 });
    const { stripe, simulator } = harness;
    const stranger = await stripe.customers.create();
    const create = (params: Partial<Stripe.PromotionCodeCreateParams>) =>
      stripe.promotionCodes.create({ promotion: { type: "coupon", coupon: coupon.id }, ...params });
    const subscribeWith = (promotion_code: string) =>
      stripe.subscriptions.create({
        customer: customer.id,
        items: [{ price: price.id }],
        discounts: [{ promotion_code }],
      });
    const once = await create({ max_redemptions: 1 });
    const brief = await create({ expires_at: start + 10 });
    const theirs = await create({ customer: stranger.id });
    const large = await create({
      restrictions: { minimum_amount: 1_001, minimum_amount_currency: "usd" },
    });
    const first = await create({ restrictions: { first_time_transaction: true } });
    await subscribeWith(once.id);
    await simulator.clock.advanceBy(10);
    for (const { id } of [once, brief, theirs, large, first]) {
      await expect(subscribeWith(id), id).rejects.toMatchObject({
        statusCode: 400,
        param: "discounts[0][promotion_code]",
      });
    }
    const active = await stripe.promotionCodes.list({ active: true });
    expect(active.data.map(({ id }) => id)).not.toContain(once.id);
    expect((await stripe.promotionCodes.list({ code: once.code })).data).toHaveLength(1);
  });

  test("a code is active once at a time, whatever its case", async () => {
    const { coupon } = await setUp({ percent_off: 10 });
    const { stripe } = harness;
    const promotion = { type: "coupon", coupon: coupon.id } as const;
    const { id } = await stripe.promotionCodes.create({ promotion, code: "Spring" });
    const again = () => stripe.promotionCodes.create({ promotion, code: "SPRING" });
    await expect(again()).rejects.toMatchObject({ param: "code" });
    await stripe.promotionCodes.update(id, { active: false });
    expect(await again()).toMatchObject({ active: true });
  });
});

test("a running subscription is given a discount, keeps it, and loses it", async () => {
  const { id, coupon } = await subscribe({ percent_off: 10, duration: "forever" });
  const { stripe, simulator } = harness;
  const other = await stripe.coupons.create({
    amount_off: 100,
    currency: "usd",
    duration: "forever",
  });
  const [kept] = (await stripe.subscriptions.retrieve(id)).discounts;
  const both = await stripe.subscriptions.update(id, {
    discounts: [{ coupon: coupon.id }, { coupon: other.id }],
  });
  expect(both.discounts).toHaveLength(2);
  expect(both.discounts[0]).toBe(kept);
  const preview = await stripe.invoices.createPreview({ subscription: id });
  expect(preview.total).toBe(800);
  await stripe.subscriptions.deleteDiscount(id);
  expect((await stripe.subscriptions.retrieve(id)).discounts).toEqual([]);
  await simulator.clock.advanceTo(end + 3_600);
  expect(await paid(id)).toEqual([900, 1_000]);
});
