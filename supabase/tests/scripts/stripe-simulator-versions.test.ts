// The Stripe simulator's events in two shapes: the newest, and the one before the fields moved in 2025-03-31.basil.
import type Stripe from "stripe";
import { afterEach, expect, test } from "vitest";
import { apiVersion, oldApiVersion } from "../../../scripts/stripe-simulator/index.ts";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const end = second("2026-05-01T00:00:00Z");

type Shape = Record<string, unknown>;
const shapeOf = (event: Stripe.Event) => event.data.object as unknown as Shape;

async function renewed(version?: string) {
  harness = await useSimulator({ startAt: start, seed: "versions" });
  const { stripe, simulator } = harness;
  if (version !== undefined) simulator.setEndpointVersion(version);
  const { id, item } = await harness.subscribe();
  const coupon = await stripe.coupons.create({ percent_off: 50, duration: "forever" });
  await stripe.subscriptions.update(id, { discounts: [{ coupon: coupon.id }] });
  const { price } = await monthly(stripe, 2_000);
  await simulator.clock.advanceTo(start + 86_400);
  await stripe.subscriptions.update(id, {
    items: [{ id: item, price: price.id, quantity: 2 }],
    proration_behavior: "always_invoice",
  });
  await simulator.clock.advanceTo(end + 3_600);
  return { id, coupon, price };
}

function last(type: string): Stripe.Event {
  return harness.simulator.events().findLast((event) => event.type === type)!;
}

test("a subscription shows its period, plan, quantity and discount itself, its items do not", async () => {
  const { coupon, price } = await renewed();
  const old = harness.simulator.eventAs(last("customer.subscription.updated"), oldApiVersion);
  expect(old.api_version).toBe("2025-02-24.acacia");
  const subscription = shapeOf(old);
  expect(subscription).toMatchObject({
    current_period_start: end,
    quantity: 2,
    plan: { id: price.id, amount: 2_000 },
    discount: { object: "discount", coupon: { id: coupon.id, percent_off: 50 } },
  });
  const [item] = (subscription["items"] as { data: Shape[] }).data;
  expect(item).not.toHaveProperty("current_period_end");
  expect(subscription).not.toHaveProperty("billing_mode");
  expect(subscription).not.toHaveProperty("status_details");
});

test("an update's previous attributes are those of the old shape", async () => {
  await renewed();
  const renewal = harness.simulator
    .events()
    .findLast(
      ({ type, data }) =>
        type === "customer.subscription.updated" &&
        "latest_invoice" in (data.previous_attributes ?? {}),
    )!;
  const old = harness.simulator.eventAs(renewal, oldApiVersion);
  expect(old.data.previous_attributes).toMatchObject({
    current_period_start: start,
    current_period_end: end,
  });
  expect(renewal.data.previous_attributes).not.toHaveProperty("current_period_end");
});

test("an invoice shows its subscription, payment and lines' prices where they used to be", async () => {
  const { id, price } = await renewed();
  const paid = last("invoice.paid");
  const invoice = shapeOf(harness.simulator.eventAs(paid, oldApiVersion));
  expect(invoice).toMatchObject({ subscription: id, paid: true, total_tax_amounts: [], tax: null });
  expect(invoice["payment_intent"]).toMatch(/^pi_/);
  expect(invoice["charge"]).toMatch(/^ch_/);
  for (const moved of ["parent", "total_taxes", "customer_account"]) {
    expect(invoice).not.toHaveProperty(moved);
  }
  const [line] = (invoice["lines"] as { data: Shape[] }).data;
  expect(line).toMatchObject({
    type: "subscription",
    proration: false,
    subscription: id,
    price: { id: price.id, object: "price" },
    plan: { id: price.id, object: "plan" },
  });
  expect(line).not.toHaveProperty("parent");

  const draft = shapeOf(harness.simulator.eventAs(last("invoice.created"), oldApiVersion));
  expect(draft).toMatchObject({ status: "draft", payment_intent: null, charge: null, paid: false });
  const charge = shapeOf(harness.simulator.eventAs(last("charge.succeeded"), oldApiVersion));
  expect(charge["invoice"]).toBe(invoice["id"]);
});

test("an endpoint pinned to the old version gets the same story in the old shape", async () => {
  await renewed();
  const twins = harness.simulator
    .events()
    .map((event) => harness.simulator.eventAs(event, oldApiVersion));
  const story = twins.map(({ id, type }) => ({ id, type }));
  await harness.stop();

  await renewed(oldApiVersion);
  const { received, simulator } = harness;
  expect(received.map(({ id, type }) => ({ id, type }))).toEqual(story);
  expect(new Set(received.map(({ api_version }) => api_version))).toEqual(new Set([oldApiVersion]));
  const told = (event: Stripe.Event) =>
    JSON.stringify(event.data).replaceAll(/127\.0\.0\.1:\d+/g, "simulator");
  for (const [index, event] of received.entries()) {
    expect(told(event), event.type).toEqual(told(twins[index]!));
  }
  const listed = await harness.stripe.events.list({ limit: 1 });
  expect(listed.data[0]?.api_version).toBe(oldApiVersion);
  simulator.setEndpointVersion(apiVersion);
});

test("the control route pins the endpoint, also to a version nobody knows yet", async () => {
  harness = await useSimulator();
  const { simulator, stripe, received } = harness;
  await fetch(`${simulator.url}/_control/delivery?apiVersion=2027-12-31.future`, {
    method: "POST",
  });
  await stripe.customers.create();
  await simulator.delivery.idle();
  expect(received[0]?.api_version).toBe("2027-12-31.future");
});
