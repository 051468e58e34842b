// The Stripe simulator's pauses: of collection, and of the whole subscription.
import { afterEach, describe, expect, test } from "vitest";
import { second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const end = second("2026-05-01T00:00:00Z");
const day = 86_400;

async function subscribed(card = "4242") {
  harness = await useSimulator({ startAt: start });
  return harness.subscribe({ amount: 1_000, card });
}

describe("pause_collection", () => {
  test.each([
    ["keep_as_draft", "draft"],
    ["mark_uncollectible", "uncollectible"],
    ["void", "void"],
  ] as const)("%s leaves the renewal's invoice %s", async (behavior, status) => {
    const { id } = await subscribed();
    const { stripe, simulator } = harness;
    await stripe.subscriptions.update(id, { pause_collection: { behavior } });
    await simulator.clock.advanceTo(end + 3_600);
    const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription).toMatchObject({ status: "active", latest_invoice: { status } });
    expect(simulator.events().map(({ type }) => type)).not.toContain("invoice.upcoming");
  });

  test("is lifted by an empty value, and by itself at its date", async () => {
    const { id } = await subscribed();
    const { stripe, simulator } = harness;
    await stripe.subscriptions.update(id, { pause_collection: { behavior: "void" } });
    const lifted = await stripe.subscriptions.update(id, { pause_collection: "" });
    expect(lifted.pause_collection).toBeNull();

    const resumes_at = start + 10 * day;
    await stripe.subscriptions.update(id, { pause_collection: { behavior: "void", resumes_at } });
    await simulator.clock.advanceTo(resumes_at - 1);
    expect((await stripe.subscriptions.retrieve(id)).pause_collection).toEqual({
      behavior: "void",
      resumes_at,
    });
    await simulator.clock.advanceTo(resumes_at);
    expect((await stripe.subscriptions.retrieve(id)).pause_collection).toBeNull();
    await simulator.clock.advanceTo(end + 3_600);
    expect((await stripe.invoices.list({ subscription: id })).data[0]?.status).toBe("paid");
    await expect(
      stripe.subscriptions.update(id, { pause_collection: { behavior: "void", resumes_at } }),
    ).rejects.toMatchObject({ statusCode: 400 });
  });
});

describe("a paused subscription", () => {
  test("says why, credits what was not used, and bills nothing", async () => {
    const { id } = await subscribed();
    const { stripe, simulator, received } = harness;
    await simulator.clock.advanceTo(start + 15 * day);
    const paused = await stripe.subscriptions.pause(id);
    expect(paused).toMatchObject({
      status: "paused",
      status_details: { paused: { subscription: { type: "pause_requested" } } },
    });
    expect(
      (await stripe.invoiceItems.list({ pending: true })).data.map(({ amount }) => amount),
    ).toEqual([-500]);
    await simulator.clock.advanceTo(end + 10 * day);
    expect((await stripe.invoices.list({ subscription: id })).data).toHaveLength(1);
    expect(received.map(({ type }) => type)).toContain("customer.subscription.paused");
    await expect(stripe.subscriptions.pause(id)).rejects.toMatchObject({ statusCode: 400 });
  });

  test("begins a new cycle when resumed, and the credit pays towards it", async () => {
    const { id } = await subscribed();
    const { stripe, simulator, received } = harness;
    await simulator.clock.advanceTo(start + 15 * day);
    await stripe.subscriptions.pause(id);
    await simulator.clock.advanceTo(start + 20 * day);
    const resumed = await stripe.subscriptions.resume(id, { expand: ["latest_invoice"] });
    expect(resumed).toMatchObject({
      status: "active",
      billing_cycle_anchor: start + 20 * day,
      latest_invoice: { status: "paid", total: 500 },
    });
    expect(resumed.status_details).toBeUndefined();
    await simulator.delivery.idle();
    expect(received.map(({ type }) => type)).toContain("customer.subscription.resumed");
    await expect(stripe.subscriptions.resume(id)).rejects.toMatchObject({ statusCode: 400 });
  });

  test("goes on in its old cycle when that is asked for, owing what is left of it", async () => {
    const { id } = await subscribed();
    const { stripe, simulator } = harness;
    await simulator.clock.advanceTo(start + 15 * day);
    await stripe.subscriptions.pause(id);
    await simulator.clock.advanceTo(start + 21 * day);
    const resumed = await stripe.subscriptions.resume(id, {
      billing_cycle_anchor: { type: "unchanged" },
    });
    expect(resumed).toMatchObject({ status: "active", billing_cycle_anchor: start });
    const pending = (await stripe.invoiceItems.list({ pending: true })).data;
    expect(pending.map(({ amount }) => amount)).toEqual([300, -500]);
  });

  test("whose resumption is declined is past_due, and nobody retries", async () => {
    const { id } = await subscribed("0341");
    const { stripe, simulator } = harness;
    await simulator.clock.advanceBy(day);
    await stripe.subscriptions.pause(id, { bill_for: { unused_time_from: { type: "none" } } });
    const resumed = await stripe.subscriptions.resume(id, { expand: ["latest_invoice"] });
    expect(resumed).toMatchObject({
      status: "past_due",
      latest_invoice: { status: "open", next_payment_attempt: null },
    });
  });

  test("that resumes on success waits for the payment, 23 hours and no longer", async () => {
    const { id, customer } = await subscribed("0341");
    const { stripe, simulator } = harness;
    const resume = () =>
      stripe.subscriptions.resume(id, {
        payment_behavior: "resume_on_payment_success",
        expand: ["latest_invoice"],
      });
    await simulator.clock.advanceBy(day);
    await stripe.subscriptions.pause(id, { bill_for: { unused_time_from: { type: "none" } } });
    expect(await resume()).toMatchObject({ status: "paused", latest_invoice: { status: "open" } });
    await simulator.clock.advanceBy(23 * 3_600);
    expect(await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] })).toMatchObject({
      status: "paused",
      latest_invoice: { status: "void" },
    });

    const method = await stripe.paymentMethods.attach("pm_card_visa", { customer });
    await stripe.subscriptions.update(id, { default_payment_method: method.id });
    expect(await resume()).toMatchObject({ status: "active", latest_invoice: { status: "paid" } });
  });
});
