// The Stripe simulator's invoices made by hand: items, drafts, and what becomes of them.
import { afterEach, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const end = second("2026-05-01T00:00:00Z");
const day = 86_400;

async function customerWithCard() {
  harness = await useSimulator({ startAt: start });
  const { stripe } = harness;
  const customer = await stripe.customers.create({ payment_method: "pm_card_visa" });
  const [method] = (await stripe.paymentMethods.list({ customer: customer.id })).data;
  await stripe.customers.update(customer.id, {
    invoice_settings: { default_payment_method: method!.id },
  });
  return customer.id;
}

test("D4: a one-off invoice has no parent, and its lines no subscription", async () => {
  const customer = await customerWithCard();
  const { stripe, received, simulator } = harness;
  const { product } = await monthly(stripe, 1_000);
  const hour = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 150,
  });
  await stripe.invoiceItems.create({ customer, amount: 700, description: "Set-up" });
  const draft = await stripe.invoices.create({
    customer,
    pending_invoice_items_behavior: "include",
  });
  await stripe.invoiceItems.create({
    customer,
    invoice: draft.id,
    pricing: { price: hour.id },
    quantity: 2,
  });
  const paid = await stripe.invoices.pay(draft.id);
  expect(paid).toMatchObject({
    status: "paid",
    billing_reason: "manual",
    parent: null,
    subtotal: 1_000,
    amount_paid: 1_000,
  });
  expect(paid.lines.data).toMatchObject([
    {
      amount: 700,
      subscription: null,
      parent: { type: "invoice_item_details", subscription_item_details: null },
    },
    { amount: 300, quantity: 2, pricing: { price_details: { price: hour.id } } },
  ]);
  expect(String(paid.lines.data[0]?.pricing?.unit_amount_decimal)).toBe("700");
  await simulator.delivery.idle();
  expect(received.map(({ type }) => type)).toEqual(
    expect.arrayContaining(["invoiceitem.created", "invoice.created", "invoice.paid"]),
  );
});

test("what waits for a customer goes onto its subscription's next invoice", async () => {
  harness = await useSimulator({ startAt: start });
  const { stripe, simulator } = harness;
  const { id, customer } = await harness.subscribe({ amount: 1_000 });
  await stripe.invoiceItems.create({ customer, amount: 250 });
  await stripe.invoiceItems.create({ customer, amount: 125, subscription: id });
  const credit = await stripe.invoiceItems.create({ customer, amount: -50 });
  await stripe.invoiceItems.del(credit.id);
  await simulator.clock.advanceTo(end + 3_600);
  const [renewal] = (await stripe.invoices.list({ subscription: id })).data;
  expect(renewal).toMatchObject({ status: "paid", total: 1_375 });
});

test("a draft waits unless it may go on by itself, and can be deleted until it is final", async () => {
  const customer = await customerWithCard();
  const { stripe, simulator, received } = harness;
  await stripe.invoiceItems.create({ customer, amount: 500 });
  const pending_invoice_items_behavior = "include";
  const waiting = await stripe.invoices.create({ customer, pending_invoice_items_behavior });
  await simulator.clock.advanceBy(day);
  expect((await stripe.invoices.retrieve(waiting.id)).status).toBe("draft");
  await stripe.invoices.del(waiting.id);
  await expect(stripe.invoices.retrieve(waiting.id)).rejects.toMatchObject({ statusCode: 404 });
  await simulator.delivery.idle();
  expect(received.at(-1)?.type).toBe("invoice.deleted");

  await stripe.invoiceItems.create({ customer, amount: 800 });
  const going = await stripe.invoices.create({
    customer,
    pending_invoice_items_behavior,
    auto_advance: true,
  });
  await simulator.clock.advanceBy(3_600);
  expect(await stripe.invoices.retrieve(going.id)).toMatchObject({
    status: "paid",
    amount_paid: 800,
  });
  await expect(stripe.invoices.del(going.id)).rejects.toMatchObject({ statusCode: 400 });
});

test("an invoice that is sent falls overdue without a subscription, too", async () => {
  const customer = await customerWithCard();
  const { stripe, simulator, received } = harness;
  await stripe.invoiceItems.create({ customer, amount: 500 });
  const invoice = await stripe.invoices.create({
    customer,
    collection_method: "send_invoice",
    days_until_due: 10,
    pending_invoice_items_behavior: "include",
  });
  expect(await stripe.invoices.sendInvoice(invoice.id)).toMatchObject({ status: "open" });
  await simulator.clock.advanceBy(10 * day);
  expect(received.at(-1)?.type).toBe("invoice.overdue");
  await stripe.invoices.pay(invoice.id, { paid_out_of_band: true });
  expect((await stripe.invoices.retrieve(invoice.id)).status).toBe("paid");
});
