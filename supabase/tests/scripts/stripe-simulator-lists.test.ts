// The Stripe simulator's lists: every kind of object can be read page by page, by time and by its own clock.
import type Stripe from "stripe";
import { afterEach, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");

interface Page {
  data: { id: string; object: string; created?: number }[];
  has_more: boolean;
}
interface Filters {
  limit?: number;
  starting_after?: string;
  ending_before?: string;
  created?: { gte?: number; lte?: number; gt?: number };
}

/** Every list an account's whole history is read from, by the object it lists. */
function lists(stripe: Stripe): Record<string, (filters: Filters) => Promise<Page>> {
  return {
    customer: (filters) => stripe.customers.list(filters),
    product: (filters) => stripe.products.list(filters),
    price: (filters) => stripe.prices.list(filters),
    coupon: (filters) => stripe.coupons.list(filters),
    promotion_code: (filters) => stripe.promotionCodes.list(filters),
    subscription: (filters) => stripe.subscriptions.list({ status: "all", ...filters }),
    subscription_schedule: (filters) => stripe.subscriptionSchedules.list(filters),
    "checkout.session": (filters) => stripe.checkout.sessions.list(filters),
    invoice: (filters) => stripe.invoices.list(filters),
    invoiceitem: (filters) => stripe.invoiceItems.list(filters),
    invoice_payment: (filters) => stripe.invoicePayments.list(filters),
    payment_intent: (filters) => stripe.paymentIntents.list(filters),
    charge: (filters) => stripe.charges.list(filters),
    refund: (filters) => stripe.refunds.list(filters),
    dispute: (filters) => stripe.disputes.list(filters),
    "radar.early_fraud_warning": (filters) => stripe.radar.earlyFraudWarnings.list(filters),
    credit_note: (filters) => stripe.creditNotes.list(filters),
    setup_intent: (filters) => stripe.setupIntents.list(filters),
    event: (filters) => stripe.events.list(filters),
  };
}

async function twoOfEverything(): Promise<void> {
  const { stripe, simulator } = harness;
  for (let round = 0; round < 2; round += 1) {
    const { id, item, customer } = await harness.subscribe();
    const coupon = await stripe.coupons.create({ percent_off: 10 });
    await stripe.promotionCodes.create({ promotion: { type: "coupon", coupon: coupon.id } });
    const { price } = await monthly(stripe, 500);
    await simulator.clock.advanceBy(86_400);
    await stripe.subscriptions.update(id, { items: [{ id: item, price: price.id }] });
    await stripe.subscriptionSchedules.create({ from_subscription: id });
    const [charge] = (await stripe.charges.list({ customer })).data;
    await stripe.refunds.create({ charge: charge!.id, amount: 100 });
    await simulator.warnOfFraud(charge!.id);
    await simulator.disputeCharge(charge!.id);
    const [invoice] = (await stripe.invoices.list({ subscription: id })).data;
    await stripe.creditNotes.create({ invoice: invoice!.id, amount: 50 });
    await stripe.setupIntents.create({ customer, payment_method: "pm_card_visa", confirm: true });
  }
}

test("every list pages forwards and backwards without losing or repeating anything", async () => {
  harness = await useSimulator({ startAt: start });
  await twoOfEverything();
  for (const [object, list] of Object.entries(lists(harness.stripe))) {
    const all = (await list({ limit: 100 })).data;
    expect(all.length, object).toBeGreaterThanOrEqual(2);
    expect(new Set(all.map((member) => member.object))).toEqual(new Set([object]));
    const [first, last] = [all[0]!, all.at(-1)!];
    expect(await list({ limit: 1 }), object).toMatchObject({ data: [first], has_more: true });
    expect(await list({ starting_after: last.id }), object).toMatchObject({
      data: [],
      has_more: false,
    });
    const before = await list({ limit: 1, ending_before: last.id });
    expect(before.data, object).toEqual([all.at(-2)]);
    const after = await list({ limit: 100, starting_after: first.id });
    expect(after.data, object).toEqual(all.slice(1));
  }
});

test("every list takes a window of creation", async () => {
  harness = await useSimulator({ startAt: start });
  await twoOfEverything();
  for (const [object, list] of Object.entries(lists(harness.stripe))) {
    const all = (await list({ limit: 100 })).data;
    const ids = (page: Page) => page.data.map(({ id }) => id);
    expect(ids(await list({ limit: 100, created: { gte: start } })), object).toEqual(
      all.map(({ id }) => id),
    );
    expect(ids(await list({ limit: 100, created: { lte: start - 1 } })), object).toEqual([]);
    expect(ids(await list({ limit: 100, created: { gt: start + 100 * 86_400 } })), object).toEqual(
      [],
    );
  }
});

test("an unknown cursor and a limit outside 1 to 100 are refused", async () => {
  harness = await useSimulator();
  const { stripe } = harness;
  await expect(stripe.customers.list({ starting_after: "cus_none" })).rejects.toMatchObject({
    statusCode: 400,
    param: "starting_after",
  });
  await expect(stripe.customers.list({ limit: 101 })).rejects.toMatchObject({ param: "limit" });
});

test("without a status the list of subscriptions leaves out what was canceled", async () => {
  harness = await useSimulator();
  const { stripe } = harness;
  const { id } = await harness.subscribe();
  await stripe.subscriptions.cancel(id);
  expect((await stripe.subscriptions.list()).data).toEqual([]);
  for (const status of ["all", "ended", "canceled"] as const) {
    expect((await stripe.subscriptions.list({ status })).data).toMatchObject([{ id }]);
  }
});

test("answers carry the simulator's own time, refusals too", async () => {
  harness = await useSimulator({ startAt: start });
  const { stripe, simulator } = harness;
  await simulator.clock.advanceBy(90);
  const customer = await stripe.customers.create();
  expect(customer.lastResponse.headers["date"]).toBe("Wed, 01 Apr 2026 00:01:30 GMT");
  await expect(stripe.customers.retrieve("cus_none")).rejects.toMatchObject({
    statusCode: 404,
    code: "resource_missing",
    headers: { date: "Wed, 01 Apr 2026 00:01:30 GMT" },
  });
});

test("what was deleted answers as deleted, what never was is missing", async () => {
  harness = await useSimulator();
  const { stripe } = harness;
  const customer = await stripe.customers.create();
  const product = await stripe.products.create({ name: "Short-lived" });
  await stripe.customers.del(customer.id);
  await stripe.products.del(product.id);
  expect(await stripe.customers.retrieve(customer.id)).toMatchObject({ deleted: true });
  await expect(stripe.products.retrieve(product.id)).rejects.toMatchObject({ statusCode: 404 });
  await expect(stripe.customers.update(customer.id, { name: "Ada" })).rejects.toMatchObject({
    code: "resource_missing",
  });
});
