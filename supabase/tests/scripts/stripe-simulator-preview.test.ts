// The Stripe simulator's previews: the invoice a change would lead to, to the second and without a trace.
import type Stripe from "stripe";
import { afterEach, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const end = second("2026-05-01T00:00:00Z");
const day = 86_400;

const amounts = (invoice: Stripe.Invoice) => invoice.lines.data.map(({ amount }) => amount);

async function halfway(options: { trialDays?: number } = {}) {
  harness = await useSimulator({ startAt: start });
  const { id, item, customer } = await harness.subscribe({ amount: 1_000, ...options });
  const { price } = await monthly(harness.stripe, 2_000);
  await harness.simulator.clock.advanceTo(start + 15 * day);
  return { id, item, customer, price };
}

test("an upgrade invoiced now shows a credit and a debit and the date they were reckoned for", async () => {
  const { id, item, price } = await halfway();
  const preview = await harness.stripe.invoices.createPreview({
    subscription: id,
    subscription_details: {
      items: [{ id: item, price: price.id, quantity: 1 }],
      proration_behavior: "always_invoice",
    },
  });
  expect(amounts(preview)).toEqual([-500, 1_000]);
  expect(preview).toMatchObject({
    billing_reason: "subscription_update",
    amount_due: 500,
    status: "draft",
    parent: { subscription_details: { subscription_proration_date: start + 15 * day } },
  });
  expect(
    preview.lines.data.map(({ parent }) => parent?.subscription_item_details?.proration),
  ).toEqual([true, true]);
});

test("a change billed at the renewal shows the prorations and the coming period together", async () => {
  const { id, item, price } = await halfway();
  const { stripe } = harness;
  const subscription_details = { items: [{ id: item, price: price.id, quantity: 1 }] };
  const preview = await stripe.invoices.createPreview({ subscription: id, subscription_details });
  expect(amounts(preview)).toEqual([-500, 1_000, 2_000]);
  expect(preview.period_end).toBe(end);
  const recurring = await stripe.invoices.createPreview({
    subscription: id,
    subscription_details,
    preview_mode: "recurring",
  });
  expect(amounts(recurring)).toEqual([2_000]);
});

test("seats are prorated like plans, whatever the number", async () => {
  const { id, item } = await halfway();
  const preview = await harness.stripe.invoices.createPreview({
    subscription: id,
    subscription_details: {
      items: [{ id: item, quantity: 4 }],
      proration_behavior: "always_invoice",
    },
  });
  expect(amounts(preview)).toEqual([-500, 2_000]);
});

test("the update with the preview's date costs what the preview said, however much later it comes", async () => {
  const { id, item, price } = await halfway();
  const { stripe, simulator } = harness;
  const items = [{ id: item, price: price.id, quantity: 1 }];
  const preview = await stripe.invoices.createPreview({
    subscription: id,
    subscription_details: { items, proration_behavior: "always_invoice" },
  });
  const date = preview.parent?.subscription_details?.subscription_proration_date;
  await simulator.clock.advanceBy(7_321);
  const later = await stripe.invoices.createPreview({
    subscription: id,
    subscription_details: { items, proration_behavior: "always_invoice" },
  });
  expect(later.total).not.toBe(preview.total);
  const changed = await stripe.subscriptions.update(id, {
    items,
    proration_behavior: "always_invoice",
    proration_date: date!,
    expand: ["latest_invoice"],
  });
  expect(changed.latest_invoice).toMatchObject({ total: preview.total, status: "paid" });
});

test("a preview leaves no invoice, no pending item, no change and no event behind", async () => {
  const { id, item, price } = await halfway();
  const { stripe, simulator } = harness;
  const state = async () => ({
    subscription: await stripe.subscriptions.retrieve(id),
    invoices: (await stripe.invoices.list()).data,
    items: (await stripe.invoiceItems.list()).data,
    events: simulator.events().length,
  });
  const before = JSON.stringify(await state());
  for (const proration_behavior of ["always_invoice", "create_prorations", "none"] as const) {
    await stripe.invoices.createPreview({
      subscription: id,
      subscription_details: { items: [{ id: item, price: price.id }], proration_behavior },
    });
  }
  await stripe.invoices.createPreview({
    subscription: id,
    subscription_details: { cancel_now: true },
  });
  expect(JSON.stringify(await state())).toBe(before);
});

test("cancelling now would credit what is left; a planned end leaves nothing to come", async () => {
  const { id } = await halfway();
  const { stripe } = harness;
  const now = await stripe.invoices.createPreview({
    subscription: id,
    subscription_details: { cancel_now: true, proration_behavior: "always_invoice" },
  });
  expect(amounts(now)).toEqual([-500]);
  expect(now.amount_due).toBe(0);
  const upcomingNone = { statusCode: 404, code: "invoice_upcoming_none" };
  await expect(
    stripe.invoices.createPreview({
      subscription: id,
      subscription_details: { cancel_at_period_end: true },
    }),
  ).rejects.toMatchObject(upcomingNone);
  await stripe.subscriptions.update(id, { cancel_at_period_end: true });
  await expect(stripe.invoices.createPreview({ subscription: id })).rejects.toMatchObject(
    upcomingNone,
  );
  expect(
    amounts(
      await stripe.invoices.createPreview({
        subscription: id,
        subscription_details: { cancel_at_period_end: false },
      }),
    ),
  ).toEqual([1_000]);
});

test("ending the trial now would bill a whole period", async () => {
  const { id } = await halfway({ trialDays: 30 });
  const { stripe } = harness;
  const preview = await stripe.invoices.createPreview({
    subscription: id,
    subscription_details: { trial_end: "now" },
  });
  expect(amounts(preview)).toEqual([1_000]);
  expect(preview.lines.data[0]?.period).toEqual({
    start: start + 15 * day,
    end: second("2026-05-16T00:00:00Z"),
  });
});

test("a subscription that is only being thought of can be previewed for a customer", async () => {
  harness = await useSimulator({ startAt: start });
  const { stripe } = harness;
  const customer = await stripe.customers.create();
  const { price } = await monthly(stripe, 1_500);
  const preview = await stripe.invoices.createPreview({
    customer: customer.id,
    subscription_details: { items: [{ price: price.id, quantity: 3 }] },
  });
  expect(preview).toMatchObject({ amount_due: 4_500, billing_reason: "subscription_create" });
  expect((await stripe.subscriptions.list({ status: "all" })).data).toEqual([]);
});

test("a date outside the running period is refused", async () => {
  const { id, item, price } = await halfway();
  for (const proration_date of [start - 1, end + 1]) {
    await expect(
      harness.stripe.invoices.createPreview({
        subscription: id,
        subscription_details: { items: [{ id: item, price: price.id }], proration_date },
      }),
    ).rejects.toMatchObject({ statusCode: 400, param: "proration_date" });
  }
});
