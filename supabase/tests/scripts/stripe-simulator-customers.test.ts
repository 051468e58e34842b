// What else the Stripe simulator keeps about customers: entitlements, tax ids, test clocks.
import type Stripe from "stripe";
import { afterEach, describe, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");

describe("entitlements", () => {
  const summaries = () =>
    harness.received
      .filter(({ type }) => type === "entitlements.active_entitlement_summary.updated")
      .map(({ data }) => data.object as unknown as Stripe.Entitlements.ActiveEntitlementSummary);

  async function featured(count: number) {
    harness = await useSimulator({ startAt: start });
    const { stripe } = harness;
    const { product, price } = await monthly(stripe, 1_000);
    for (let index = 0; index < count; index += 1) {
      const feature = await stripe.entitlements.features.create({
        lookup_key: `feature_${index}`,
        name: `Feature ${index}`,
      });
      await stripe.products.createFeature(product.id, { entitlement_feature: feature.id });
    }
    const customer = await stripe.customers.create({ payment_method: "pm_card_visa" });
    const [method] = (await stripe.paymentMethods.list({ customer: customer.id })).data;
    const subscription = await stripe.subscriptions.create({
      customer: customer.id,
      items: [{ price: price.id }],
      default_payment_method: method!.id,
    });
    await harness.simulator.delivery.idle();
    return { customer: customer.id, subscription: subscription.id, product: product.id };
  }

  test("follow the subscription, each change in one summary that has no id", async () => {
    const { customer, subscription } = await featured(2);
    const { stripe, simulator } = harness;
    const [gained] = summaries();
    expect(gained).toMatchObject({
      object: "entitlements.active_entitlement_summary",
      customer,
      entitlements: { has_more: false, data: [{ lookup_key: "feature_0" }, {}] },
    });
    expect(gained).not.toHaveProperty("id");
    await stripe.subscriptions.cancel(subscription);
    await simulator.delivery.idle();
    expect(summaries().map(({ entitlements }) => entitlements.data.length)).toEqual([2, 0]);
    expect((await stripe.entitlements.activeEntitlements.list({ customer })).data).toEqual([]);
  });

  test("D13: beyond ten are cut in the event and read page by page", async () => {
    const { customer } = await featured(12);
    const [summary] = summaries();
    expect(summary!.entitlements).toMatchObject({ has_more: true });
    expect(summary!.entitlements.data).toHaveLength(10);
    const all = await harness.stripe.entitlements.activeEntitlements
      .list({ customer, limit: 5 })
      .autoPagingToArray({ limit: 100 });
    expect(all.map(({ lookup_key }) => lookup_key)).toEqual(
      Array.from({ length: 12 }, (_, index) => `feature_${index}`),
    );
  });

  test("come and go with the features of a product", async () => {
    const { customer, product } = await featured(1);
    const { stripe } = harness;
    const { data } = await stripe.products.listFeatures(product);
    await stripe.products.deleteFeature(product, data[0]!.id);
    expect((await stripe.entitlements.activeEntitlements.list({ customer })).data).toEqual([]);
  });
});

test("tax ids are checked, listed and deleted, each with its event", async () => {
  harness = await useSimulator({ startAt: start });
  const { stripe, simulator, received } = harness;
  const customer = await stripe.customers.create();
  const good = await stripe.customers.createTaxId(customer.id, {
    type: "eu_vat",
    value: "DE123456789",
  });
  expect(good).toMatchObject({ country: "DE", verification: { status: "pending" } });
  const bad = await stripe.customers.createTaxId(customer.id, {
    type: "eu_vat",
    value: "DE111111111",
  });
  await simulator.clock.advanceBy(60);
  expect(await stripe.customers.retrieveTaxId(customer.id, good.id)).toMatchObject({
    verification: { status: "verified" },
  });
  expect(await stripe.customers.retrieveTaxId(customer.id, bad.id)).toMatchObject({
    verification: { status: "unverified" },
  });
  await stripe.customers.deleteTaxId(customer.id, bad.id);
  expect((await stripe.customers.listTaxIds(customer.id)).data).toMatchObject([{ id: good.id }]);
  await simulator.delivery.idle();
  expect(received.map(({ type }) => type)).toEqual([
    "customer.created",
    "customer.tax_id.created",
    "customer.tax_id.created",
    "customer.tax_id.updated",
    "customer.tax_id.updated",
    "customer.tax_id.deleted",
  ]);
});

describe("test clocks", () => {
  test("advance the simulator's own time and are ready when all has happened", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const clock = await stripe.testHelpers.testClocks.create({ frozen_time: start });
    const customer = await stripe.customers.create({ test_clock: clock.id });
    expect(customer.test_clock).toBe(clock.id);
    const { id } = await harness.subscribe();
    const target = second("2026-05-01T01:00:00Z");
    expect(
      await stripe.testHelpers.testClocks.advance(clock.id, { frozen_time: target }),
    ).toMatchObject({
      status: "advancing",
      status_details: { advancing: { target_frozen_time: target } },
    });
    await simulator.clock.advanceTo(target);
    await simulator.delivery.idle();
    expect(await stripe.testHelpers.testClocks.retrieve(clock.id)).toMatchObject({
      status: "ready",
      frozen_time: target,
    });
    expect((await stripe.invoices.list({ subscription: id })).data).toHaveLength(2);
    expect(
      received.map(({ type }) => type).filter((type) => type.startsWith("test_helpers.")),
    ).toEqual([
      "test_helpers.test_clock.created",
      "test_helpers.test_clock.advancing",
      "test_helpers.test_clock.ready",
    ]);
  });

  test("cannot go back, as there is one clock for all", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe } = harness;
    await expect(
      stripe.testHelpers.testClocks.create({ frozen_time: start - 1 }),
    ).rejects.toMatchObject({ param: "frozen_time" });
    const clock = await stripe.testHelpers.testClocks.create({ frozen_time: start });
    await expect(
      stripe.testHelpers.testClocks.advance(clock.id, { frozen_time: start }),
    ).rejects.toMatchObject({ param: "frozen_time" });
    await stripe.testHelpers.testClocks.del(clock.id);
    await expect(stripe.testHelpers.testClocks.retrieve(clock.id)).rejects.toMatchObject({
      statusCode: 404,
    });
  });
});
