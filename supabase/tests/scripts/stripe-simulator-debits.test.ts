// The Stripe simulator's bank debits: a checkout that completes unpaid, and hears from the bank days later.
import { afterEach, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const day = 86_400;

async function checkedOut(card: string, mode: "payment" | "subscription" = "subscription") {
  harness = await useSimulator({ startAt: start });
  const { stripe, simulator } = harness;
  const { price, product } = await monthly(stripe, 1_000);
  const once = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 700,
  });
  const session = await stripe.checkout.sessions.create({
    mode,
    success_url: "https://app.test/",
    line_items: [{ price: mode === "payment" ? once.id : price.id, quantity: 1 }],
  });
  expect(await simulator.pay(session.id, { card })).toMatchObject({ complete: true });
  return session.id;
}

const types = () => harness.received.map(({ type }) => type);

test("G13: a checkout is complete but unpaid until the bank has answered, then its subscription is active", async () => {
  const session = await checkedOut("000123456789");
  const { stripe, simulator } = harness;
  const read = () =>
    stripe.checkout.sessions.retrieve(session, { expand: ["subscription", "invoice"] });
  expect(await read()).toMatchObject({
    status: "complete",
    payment_status: "unpaid",
    subscription: { status: "incomplete" },
    invoice: { status: "open", next_payment_attempt: null },
  });
  const [intent] = (await stripe.paymentIntents.list({})).data;
  expect(intent).toMatchObject({ status: "processing", amount_received: 0 });
  expect((await stripe.charges.list()).data[0]).toMatchObject({
    status: "pending",
    paid: false,
    payment_method_details: { type: "us_bank_account" },
  });

  await simulator.clock.advanceBy(4 * day - 1);
  expect(await read()).toMatchObject({ subscription: { status: "incomplete" } });
  await simulator.clock.advanceBy(1);
  expect(await read()).toMatchObject({
    payment_status: "paid",
    subscription: { status: "active" },
    invoice: { status: "paid", amount_paid: 1_000 },
  });
  expect(types()).toEqual(
    expect.arrayContaining([
      "charge.pending",
      "payment_intent.processing",
      "checkout.session.completed",
      "charge.succeeded",
      "invoice.paid",
      "checkout.session.async_payment_succeeded",
    ]),
  );
});

test("a debit that bounces fails the session's payment and ends the incomplete subscription", async () => {
  const session = await checkedOut("000111111116");
  const { stripe, simulator } = harness;
  await simulator.clock.advanceBy(4 * day);
  expect(
    await stripe.checkout.sessions.retrieve(session, { expand: ["subscription", "invoice"] }),
  ).toMatchObject({
    payment_status: "unpaid",
    subscription: { status: "incomplete_expired" },
    invoice: { status: "void" },
  });
  expect(types()).toEqual(
    expect.arrayContaining([
      "charge.failed",
      "payment_intent.payment_failed",
      "invoice.payment_failed",
      "checkout.session.async_payment_failed",
    ]),
  );
});

test("a single payment takes as long", async () => {
  const session = await checkedOut("000123456789", "payment");
  const { stripe, simulator } = harness;
  expect((await stripe.checkout.sessions.retrieve(session)).payment_status).toBe("unpaid");
  await simulator.clock.advanceBy(4 * day);
  expect((await stripe.checkout.sessions.retrieve(session)).payment_status).toBe("paid");
});

test("a renewal by debit leaves the subscription active while the bank takes its time", async () => {
  const session = await checkedOut("000123456789");
  const { stripe, simulator } = harness;
  await simulator.clock.advanceTo(second("2026-05-01T02:00:00Z"));
  const read = () =>
    stripe.checkout.sessions.retrieve(session, { expand: ["subscription.latest_invoice"] });
  expect(await read()).toMatchObject({
    subscription: { status: "active", latest_invoice: { status: "open" } },
  });
  await simulator.clock.advanceBy(4 * day);
  expect(await read()).toMatchObject({
    subscription: { status: "active", latest_invoice: { status: "paid" } },
  });
});
