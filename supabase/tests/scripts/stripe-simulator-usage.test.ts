// The Stripe simulator's usage: meters, their events and errors, and the prices that bill them.
import Stripe from "stripe";
import { afterEach, describe, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const end = second("2026-05-01T00:00:00Z");
const day = 86_400;

async function metered(
  formula: "count" | "last" | "sum" = "sum",
  price: Partial<Stripe.PriceCreateParams> = { unit_amount: 7 },
) {
  harness = await useSimulator({ startAt: start });
  const { stripe } = harness;
  const meter = await stripe.billing.meters.create({
    display_name: "Calls",
    event_name: "calls",
    default_aggregation: { formula },
  });
  const customer = await stripe.customers.create({ payment_method: "pm_card_visa" });
  const [method] = (await stripe.paymentMethods.list({ customer: customer.id })).data;
  const product = await stripe.products.create({ name: "Calls" });
  const created = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    recurring: { interval: "month", usage_type: "metered", meter: meter.id },
    ...price,
  });
  const subscription = await stripe.subscriptions.create({
    customer: customer.id,
    items: [{ price: created.id }],
    default_payment_method: method!.id,
  });
  const use = (value: number, options: Partial<Stripe.Billing.MeterEventCreateParams> = {}) =>
    stripe.billing.meterEvents.create({
      event_name: "calls",
      payload: { stripe_customer_id: customer.id, value: String(value) },
      ...options,
    });
  return { meter, customer: customer.id, price: created.id, subscription, use };
}

async function usedInApril(meter: string, customer: string): Promise<number | undefined> {
  const { data } = await harness.stripe.billing.meters.listEventSummaries(meter, {
    customer,
    start_time: start,
    end_time: end,
  });
  return data[0]?.aggregated_value;
}

describe("meter events", () => {
  test.each([
    ["sum", 12],
    ["count", 3],
    ["last", 4],
  ] as const)("are aggregated as the meter says: %s", async (formula, expected) => {
    const { meter, customer, use } = await metered(formula);
    await use(3);
    await use(4, { timestamp: start + 200 });
    await use(5, { timestamp: start - 1 });
    await use(5, { timestamp: start + 100 });
    expect(await usedInApril(meter.id, customer)).toBe(expected);
  });

  test("may be below zero, as corrections of a sum are", async () => {
    const { meter, customer, use } = await metered();
    await use(8);
    await use(-3);
    expect(await usedInApril(meter.id, customer)).toBe(5);
  });

  test("count once by identifier, and can be taken back for a day", async () => {
    const { meter, customer, use } = await metered();
    const { stripe, simulator } = harness;
    await use(3, { identifier: "row-1" });
    await expect(use(3, { identifier: "row-1" })).rejects.toMatchObject({
      statusCode: 400,
      param: "identifier",
    });
    await use(4, { identifier: "row-2" });
    expect(await usedInApril(meter.id, customer)).toBe(7);
    const cancel = (identifier: string) =>
      stripe.billing.meterEventAdjustments.create({
        event_name: "calls",
        type: "cancel",
        cancel: { identifier },
      });
    await cancel("row-1");
    expect(await usedInApril(meter.id, customer)).toBe(4);
    await simulator.clock.advanceBy(day);
    await expect(cancel("row-2")).rejects.toMatchObject({ statusCode: 400 });
    // The identifier is forgotten after a day: sent again it would count again.
    await use(4, { identifier: "row-2" });
    expect(await usedInApril(meter.id, customer)).toBe(8);
  });

  test("are taken 35 days back and 5 minutes ahead", async () => {
    const { use } = await metered();
    for (const timestamp of [start - 35 * day, start + 300]) await use(1, { timestamp });
    for (const timestamp of [start - 35 * day - 1, start + 301]) {
      await expect(use(1, { timestamp })).rejects.toMatchObject({ param: "timestamp" });
    }
  });

  test("that no meter can use are accepted, dropped and reported in thin events", async () => {
    const { meter, customer, use } = await metered();
    const { stripe, simulator } = harness;
    const notifications: Stripe.V2.Core.EventNotification[] = [];
    harness.onThin = (notification) => notifications.push(notification);
    await use(1, { payload: { stripe_customer_id: "cus_none", value: "1" } });
    await use(1, { payload: { stripe_customer_id: customer, value: "many" } });
    await use(1, { event_name: "unheard_of", identifier: "lost" });
    await stripe.billing.meters.deactivate(meter.id);
    await use(1);
    await simulator.delivery.idle();
    expect(await usedInApril(meter.id, customer)).toBe(0);
    expect(notifications.map(({ type }) => type)).toEqual([
      "v1.billing.meter.error_report_triggered",
      "v1.billing.meter.error_report_triggered",
      "v1.billing.meter.no_meter_found",
      "v1.billing.meter.error_report_triggered",
    ]);
    expect(notifications[0]).toMatchObject({
      object: "v2.core.event",
      created: "2026-04-01T00:00:00.000Z",
      related_object: { id: meter.id, type: "billing.meter" },
    });
    expect(notifications[0]).not.toHaveProperty("data");
    const whole = await stripe.v2.core.events.retrieve(notifications[2]!.id);
    expect(whole).toMatchObject({
      data: {
        reason: {
          error_types: [{ code: "no_meter", sample_errors: [{ request: { identifier: "lost" } }] }],
        },
      },
    });
  });

  test("come through the second API as well", async () => {
    const { meter, customer } = await metered();
    const event = await harness.stripe.v2.billing.meterEvents.create({
      event_name: "calls",
      payload: { stripe_customer_id: customer, value: "9" },
      identifier: "v2-1",
      timestamp: "2026-04-01T00:00:00Z",
    });
    expect(event).toMatchObject({ object: "v2.billing.meter_event", identifier: "v2-1" });
    expect(await usedInApril(meter.id, customer)).toBe(9);
  });
});

describe("metered prices", () => {
  test("bill what was used when its period is over, and a preview tells it so far", async () => {
    const { subscription, use } = await metered();
    const { stripe, simulator } = harness;
    await use(100);
    const preview = await stripe.invoices.createPreview({ subscription: subscription.id });
    expect(preview).toMatchObject({ total: 700, lines: { data: [{ quantity: 100 }] } });
    await simulator.clock.advanceTo(end + 3_600);
    const [invoice] = (await stripe.invoices.list({ subscription: subscription.id })).data;
    expect(invoice).toMatchObject({ status: "paid", amount_paid: 700 });
    expect(invoice!.lines.data[0]).toMatchObject({ quantity: 100, period: { start, end } });
  });

  test.each([
    [
      "graduated",
      [
        [0, 500],
        [10, 500],
        [11, 1_270],
        [30, 2_600],
      ],
    ],
    [
      "volume",
      [
        [0, 500],
        [10, 500],
        [11, 970],
        [30, 2_300],
      ],
    ],
  ] as const)("%s tiers", async (tiers_mode, examples) => {
    const { price } = await metered("sum", {
      billing_scheme: "tiered",
      tiers_mode,
      tiers: [
        { up_to: 10, flat_amount: 500 },
        { up_to: "inf", unit_amount: 70, flat_amount: tiers_mode === "volume" ? 200 : 700 },
      ],
    });
    const { stripe } = harness;
    const shown = await stripe.prices.retrieve(price);
    expect(shown).toMatchObject({ billing_scheme: "tiered", unit_amount: null, tiers_mode });
    expect(shown.tiers).toBeUndefined();
    const expanded = await stripe.prices.retrieve(price, { expand: ["tiers"] });
    expect(expanded.tiers).toMatchObject([{ up_to: 10, flat_amount: 500 }, { up_to: null }]);

    const licensed = await stripe.prices.create({
      product: String(shown.product),
      currency: "usd",
      recurring: { interval: "month" },
      billing_scheme: "tiered",
      tiers_mode,
      tiers: expanded.tiers!.map(({ up_to, unit_amount, flat_amount }) => ({
        up_to: up_to ?? "inf",
        ...(unit_amount === null ? {} : { unit_amount }),
        ...(flat_amount === null ? {} : { flat_amount }),
      })),
    });
    const customer = await stripe.customers.create();
    for (const [quantity, amount] of examples) {
      const preview = await stripe.invoices.createPreview({
        customer: customer.id,
        subscription_details: { items: [{ price: licensed.id, quantity }] },
      });
      expect(preview.total, `${quantity} units`).toBe(amount);
    }
  });

  test("packages are counted whole, and fractions of a cent are rounded once", async () => {
    harness = await useSimulator();
    const { stripe } = harness;
    const { product } = await monthly(stripe, 1);
    const customer = await stripe.customers.create();
    const total = async (price: Stripe.PriceCreateParams, quantity: number) => {
      const { id } = await stripe.prices.create(price);
      const preview = await stripe.invoices.createPreview({
        customer: customer.id,
        subscription_details: { items: [{ price: id, quantity }] },
      });
      return preview.total;
    };
    const base = {
      product: product.id,
      currency: "usd",
      recurring: { interval: "month" },
    } as const;
    const packages = { divide_by: 100, round: "up" } as const;
    expect(await total({ ...base, unit_amount: 900, transform_quantity: packages }, 101)).toBe(
      1_800,
    );
    const fraction = Stripe.Decimal.from("0.5");
    expect(await total({ ...base, unit_amount_decimal: fraction }, 3)).toBe(2);
  });
});

test("tiers can be asked for of any price, in lists too; most have none", async () => {
  const { price } = await metered();
  const { stripe } = harness;
  const product = String((await stripe.prices.retrieve(price)).product);
  const tiered = await stripe.prices.create({
    product,
    currency: "usd",
    recurring: { interval: "month" },
    billing_scheme: "tiered",
    tiers_mode: "volume",
    tiers: [{ up_to: "inf", unit_amount: 3 }],
  });
  const { data } = await stripe.prices.list({ expand: ["data.tiers"] });
  expect(Object.fromEntries(data.map(({ id, tiers }) => [id, tiers?.length ?? 0]))).toEqual({
    [price]: 0,
    [tiered.id]: 1,
  });
  expect((await stripe.prices.retrieve(price, { expand: ["tiers"] })).tiers).toBeNull();
});

test("snapshot events can be told thinly as well, naming their object and their snapshot", async () => {
  harness = await useSimulator();
  const { stripe, simulator, received } = harness;
  const notifications: Stripe.V2.Core.EventNotification[] = [];
  harness.onThin = (notification) => notifications.push(notification);
  simulator.tellThinly(["customer.created"]);
  const customer = await stripe.customers.create();
  await stripe.products.create({ name: "Unannounced" });
  await simulator.delivery.idle();
  expect(notifications).toMatchObject([
    {
      type: "v1.customer.created",
      related_object: {
        id: customer.id,
        type: "customer",
        url: `/v1/customers/${customer.id}`,
      },
      snapshot_event: received[0]!.id,
    },
  ]);
});
