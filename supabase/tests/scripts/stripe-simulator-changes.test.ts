// The Stripe simulator's changes of plan: prorations, new cycles, waiting changes, schedules.
import { afterEach, describe, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const end = second("2026-05-01T00:00:00Z");
const day = 86_400;

async function amounts(invoice: string): Promise<number[]> {
  const lines = await harness.stripe.invoices.listLineItems(invoice);
  return lines.data.map(({ amount }) => amount);
}

describe("prorations", () => {
  test("half a period of 10 to 20 dollars is a credit of 5 and a debit of 10, billed at the renewal", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, item } = await harness.subscribe({ amount: 1_000 });
    const { price } = await monthly(stripe, 2_000);
    await simulator.clock.advanceTo(start + 15 * day);
    const subscription = await stripe.subscriptions.update(id, {
      items: [{ id: item, price: price.id, quantity: 1 }],
    });
    expect(subscription.items.data).toHaveLength(1);
    const pending = await stripe.invoiceItems.list({ pending: true });
    expect(pending.data.map(({ amount }) => amount).sort()).toEqual([-500, 1_000].sort());

    await simulator.clock.advanceTo(end);
    const [renewal] = (await stripe.invoices.list({ subscription: id })).data;
    expect(await amounts(renewal!.id)).toEqual([-500, 1_000, 2_000]);
    expect(renewal).toMatchObject({ total: 2_500, amount_due: 2_500 });
    expect(renewal!.lines.data[0]).toMatchObject({
      period: { start: start + 15 * day, end },
      parent: { subscription_item_details: { proration: true, subscription_item: item } },
    });
  });

  test("each line is rounded by itself, and the preview says the same for the same date", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, item } = await harness.subscribe({ amount: 1_000 });
    const { price } = await monthly(stripe, 2_000);
    const moment = end - 1_357_433;
    await simulator.clock.advanceTo(moment);
    const items = [{ id: item, price: price.id, quantity: 1 }];
    const preview = await stripe.invoices.createPreview({
      subscription: id,
      subscription_details: { items, proration_behavior: "always_invoice", proration_date: moment },
    });
    expect(preview.id).toMatch(/^upcoming_in_/);
    expect(preview.lines.data.map(({ amount }) => amount)).toEqual([-524, 1_047]);

    await stripe.subscriptions.update(id, {
      items,
      proration_behavior: "always_invoice",
      proration_date: moment,
    });
    const [invoice] = (await stripe.invoices.list({ subscription: id })).data;
    expect(invoice).toMatchObject({
      status: "paid",
      billing_reason: "subscription_update",
      amount_paid: 523,
      parent: { subscription_details: { subscription_proration_date: moment } },
    });
    expect(await amounts(invoice!.id)).toEqual([-524, 1_047]);
  });

  test("a downgrade invoiced at once becomes balance, which pays the next renewal", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, item, customer } = await harness.subscribe({ amount: 3_000 });
    const { price } = await monthly(stripe, 1_000);
    await simulator.clock.advanceTo(start + 15 * day);
    await stripe.subscriptions.update(id, {
      items: [{ id: item, price: price.id }],
      proration_behavior: "always_invoice",
    });
    expect(await stripe.customers.retrieve(customer)).toMatchObject({ balance: -1_000 });
    await simulator.clock.advanceTo(end + 3_600);
    const [renewal] = (await stripe.invoices.list({ subscription: id })).data;
    expect(renewal).toMatchObject({ status: "paid", total: 1_000, amount_due: 0, amount_paid: 0 });
    expect(await stripe.customers.retrieve(customer)).toMatchObject({ balance: 0 });
  });

  test("without proration nothing is owed until the renewal; without quantity a new price means one", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, item } = await harness.subscribe({ amount: 1_000 });
    const { price } = await monthly(stripe, 2_000);
    await stripe.subscriptions.update(id, {
      items: [{ id: item, quantity: 5 }],
      proration_behavior: "none",
    });
    const changed = await stripe.subscriptions.update(id, {
      items: [{ id: item, price: price.id }],
      proration_behavior: "none",
    });
    expect(changed.items.data[0]?.quantity).toBe(1);
    expect((await stripe.invoiceItems.list()).data).toEqual([]);
    await simulator.clock.advanceTo(end);
    const [renewal] = (await stripe.invoices.list({ subscription: id })).data;
    expect(await amounts(renewal!.id)).toEqual([2_000]);
  });

  test("items without an id are added, items can be deleted, and the last one cannot", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, item } = await harness.subscribe({ amount: 1_000 });
    const { price } = await monthly(stripe, 600);
    await simulator.clock.advanceTo(start + 15 * day);
    const added = await stripe.subscriptionItems.create({ subscription: id, price: price.id });
    expect(added).toMatchObject({ current_period_start: start, current_period_end: end });
    expect((await stripe.subscriptionItems.list({ subscription: id })).data).toHaveLength(2);
    await stripe.subscriptionItems.del(added.id);
    expect(
      (await stripe.invoiceItems.list({ pending: true })).data.map(({ amount }) => amount),
    ).toEqual([-300, 300]);
    await expect(stripe.subscriptionItems.del(item)).rejects.toMatchObject({ statusCode: 400 });
  });

  test("another interval starts a new cycle now and is charged at once", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, item } = await harness.subscribe({ amount: 1_000 });
    const { product } = await monthly(stripe, 1_000);
    const yearly = await stripe.prices.create({
      product: product.id,
      currency: "usd",
      unit_amount: 10_000,
      recurring: { interval: "year" },
    });
    const moment = start + 15 * day;
    await simulator.clock.advanceTo(moment);
    const changed = await stripe.subscriptions.update(id, {
      items: [{ id: item, price: yearly.id }],
      expand: ["latest_invoice"],
    });
    expect(changed).toMatchObject({
      billing_cycle_anchor: moment,
      latest_invoice: { status: "paid", amount_paid: 9_500 },
    });
    expect(changed.items.data[0]).toMatchObject({
      current_period_start: moment,
      current_period_end: second("2027-04-16T00:00:00Z"),
    });
  });

  test("cancelling at once with proration gives balance, not money", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, customer } = await harness.subscribe({ amount: 1_000 });
    await simulator.clock.advanceTo(start + 15 * day);
    await stripe.subscriptions.cancel(id, { prorate: true, invoice_now: true });
    expect(await stripe.customers.retrieve(customer)).toMatchObject({ balance: -500 });
    await expect(stripe.subscriptions.cancel(id)).rejects.toMatchObject({
      code: "resource_missing",
    });
    await expect(
      stripe.subscriptions.update(id, { cancel_at_period_end: true }),
    ).rejects.toMatchObject({ statusCode: 400 });
  });
});

describe("changes that must be paid first", () => {
  async function declinedUpgrade(
    payment_behavior: "error_if_incomplete" | "pending_if_incomplete",
    moment = start + 15 * day,
  ) {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, item, customer } = await harness.subscribe({ card: "0341", amount: 1_000 });
    const { price } = await monthly(stripe, 2_000);
    await simulator.clock.advanceTo(moment);
    const change = stripe.subscriptions.update(id, {
      items: [{ id: item, price: price.id, quantity: 1 }],
      proration_behavior: "always_invoice",
      payment_behavior,
    });
    return { id, customer, price, change };
  }

  test("error_if_incomplete: a decline changes nothing at all", async () => {
    const { id, change } = await declinedUpgrade("error_if_incomplete");
    await expect(change).rejects.toMatchObject({ statusCode: 402, code: "card_declined" });
    const subscription = await harness.stripe.subscriptions.retrieve(id);
    expect(subscription.items.data[0]?.price.unit_amount).toBe(1_000);
    expect((await harness.stripe.invoices.list()).data).toHaveLength(1);
    expect((await harness.stripe.invoiceItems.list()).data).toHaveLength(0);
  });

  test("pending_if_incomplete: the change waits and comes into force when its invoice is paid", async () => {
    const { id, customer, price, change } = await declinedUpgrade("pending_if_incomplete");
    const { stripe, simulator, received } = harness;
    const waiting = await change;
    expect(waiting).toMatchObject({
      status: "active",
      pending_update: { expires_at: start + 15 * day + 23 * 3_600 },
    });
    expect(waiting.items.data[0]?.price.unit_amount).toBe(1_000);
    const method = await stripe.paymentMethods.attach("pm_card_visa", { customer });
    await stripe.invoices.pay(String(waiting.latest_invoice), { payment_method: method.id });
    const changed = await stripe.subscriptions.retrieve(id);
    expect(changed.pending_update).toBeNull();
    expect(changed.items.data[0]?.price.id).toBe(price.id);
    await simulator.delivery.idle();
    expect(received.at(-1)?.type).toBe("customer.subscription.pending_update_applied");
  });

  test("pending_if_incomplete: a paid change is in force at once, and only what can wait may be asked", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe } = harness;
    const { id, item } = await harness.subscribe({ amount: 1_000 });
    const { price } = await monthly(stripe, 2_000);
    const items = [{ id: item, price: price.id, quantity: 1 }];
    const payment_behavior = "pending_if_incomplete";
    await expect(
      stripe.subscriptions.update(id, { items, payment_behavior, cancel_at_period_end: true }),
    ).rejects.toMatchObject({ param: "cancel_at_period_end" });
    const changed = await stripe.subscriptions.update(id, {
      items,
      payment_behavior,
      proration_behavior: "always_invoice",
      expand: ["latest_invoice"],
    });
    expect(changed).toMatchObject({
      pending_update: null,
      latest_invoice: { status: "paid", amount_paid: 1_000 },
    });
    expect(changed.items.data[0]?.price.id).toBe(price.id);
  });

  test("pending_if_incomplete: a renewal that comes while the change waits is not undone by it", async () => {
    const { id, customer, change } = await declinedUpgrade("pending_if_incomplete", end - 3_600);
    const { stripe, simulator } = harness;
    const waiting = await change;
    await simulator.clock.advanceTo(end);
    const method = await stripe.paymentMethods.attach("pm_card_visa", { customer });
    await stripe.invoices.pay(String(waiting.latest_invoice), { payment_method: method.id });
    expect((await stripe.subscriptions.retrieve(id)).items.data[0]).toMatchObject({
      price: { unit_amount: 2_000 },
      current_period_start: end,
    });
  });

  test("pending_if_incomplete: unpaid, the change is dropped and its invoice voided", async () => {
    const { id, change } = await declinedUpgrade("pending_if_incomplete");
    await change;
    await harness.simulator.clock.advanceBy(23 * 3_600);
    const subscription = await harness.stripe.subscriptions.retrieve(id, {
      expand: ["latest_invoice"],
    });
    expect(subscription).toMatchObject({
      status: "active",
      pending_update: null,
      latest_invoice: { status: "void" },
    });
  });
});

describe("schedules", () => {
  async function schedule(interval: "month" | "year") {
    harness = await useSimulator({ startAt: start });
    const { stripe } = harness;
    const { id } = await harness.subscribe({ amount: 3_000 });
    const { product } = await monthly(stripe, 1_000);
    const price = await stripe.prices.create({
      product: product.id,
      currency: "usd",
      unit_amount: 1_200,
      recurring: { interval },
    });
    const created = await stripe.subscriptionSchedules.create({ from_subscription: id });
    const [phase] = created.phases;
    expect(phase).toMatchObject({ start_date: start, end_date: end });
    await stripe.subscriptionSchedules.update(created.id, {
      phases: [
        {
          items: [{ price: String(phase!.items[0]!.price), quantity: 1 }],
          start_date: phase!.start_date,
          end_date: phase!.end_date,
        },
        { items: [{ price: price.id, quantity: 1 }] },
      ],
    });
    return { id, scheduleId: created.id, price };
  }

  test("a downgrade waits for the period's end and is what the renewal bills", async () => {
    const { id, scheduleId, price } = await schedule("month");
    const { stripe, simulator, received } = harness;
    expect((await stripe.subscriptions.retrieve(id)).schedule).toBe(scheduleId);
    await simulator.clock.advanceTo(end - 1);
    expect((await stripe.subscriptions.retrieve(id)).items.data[0]?.price.unit_amount).toBe(3_000);
    await simulator.clock.advanceTo(end);
    const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription.items.data[0]).toMatchObject({
      price: { id: price.id },
      current_period_start: end,
    });
    expect(subscription.latest_invoice).toMatchObject({ status: "draft", total: 1_200 });

    // The last phase lasts one interval; then the schedule lets go.
    await simulator.clock.advanceTo(second("2026-06-01T00:00:00Z"));
    expect((await stripe.subscriptionSchedules.retrieve(scheduleId)).status).toBe("released");
    expect(await stripe.subscriptions.retrieve(id)).toMatchObject({
      status: "active",
      schedule: null,
    });
    expect(received.map(({ type }) => type)).toEqual(
      expect.arrayContaining([
        "subscription_schedule.created",
        "subscription_schedule.updated",
        "subscription_schedule.expiring",
        "subscription_schedule.released",
      ]),
    );
  });

  test("while a schedule is attached, a cancellation goes through it", async () => {
    const { id, scheduleId } = await schedule("month");
    const { stripe } = harness;
    const cancel = () => stripe.subscriptions.update(id, { cancel_at_period_end: true });
    await expect(cancel()).rejects.toMatchObject({ statusCode: 400 });
    await stripe.subscriptionSchedules.release(scheduleId);
    expect(await cancel()).toMatchObject({ cancel_at: end });
  });

  test("a phase with another interval begins a new cycle at its start", async () => {
    const { id } = await schedule("year");
    const { stripe, simulator } = harness;
    await simulator.clock.advanceTo(end + 3_600);
    const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription.items.data[0]).toMatchObject({
      current_period_start: end,
      current_period_end: second("2027-05-01T00:00:00Z"),
    });
    expect(subscription.latest_invoice).toMatchObject({ status: "paid", total: 1_200 });
    expect((await stripe.invoices.list({ subscription: id })).data).toHaveLength(2);
  });

  test("released, the subscription stays as it is; canceled with its subscription, the schedule ends", async () => {
    const { id, scheduleId } = await schedule("month");
    const { stripe, simulator } = harness;
    await stripe.subscriptionSchedules.release(scheduleId);
    await simulator.clock.advanceTo(end);
    expect((await stripe.subscriptions.retrieve(id)).items.data[0]?.price.unit_amount).toBe(3_000);

    const again = await stripe.subscriptionSchedules.create({ from_subscription: id });
    await stripe.subscriptions.cancel(id);
    expect((await stripe.subscriptionSchedules.retrieve(again.id)).status).toBe("canceled");
  });

  async function fromScratch(start_date: number | "now", end_behavior: "cancel" | "release") {
    harness = await useSimulator({ startAt: start });
    const { stripe } = harness;
    const customer = await stripe.customers.create({ payment_method: "pm_card_visa" });
    const [method] = (await stripe.paymentMethods.list({ customer: customer.id })).data;
    const { price } = await monthly(stripe, 1_000);
    const dearer = await monthly(stripe, 1_500);
    const schedule = await stripe.subscriptionSchedules.create({
      customer: customer.id,
      start_date,
      end_behavior,
      default_settings: { default_payment_method: method!.id },
      phases: [
        { items: [{ price: price.id, quantity: 2 }], duration: { interval: "month" } },
        { items: [{ price: dearer.price.id }], duration: { interval: "month" } },
      ],
    });
    return { schedule, customer: customer.id };
  }

  test("a subscription yet to begin goes through its phases and ends with the last", async () => {
    const { schedule, customer } = await fromScratch(start + day, "cancel");
    const { stripe, simulator } = harness;
    expect(schedule).toMatchObject({ status: "not_started", subscription: null });
    await simulator.clock.advanceTo(start + day);
    const begun = await stripe.subscriptionSchedules.retrieve(schedule.id, {
      expand: ["subscription.latest_invoice"],
    });
    expect(begun).toMatchObject({
      status: "active",
      current_phase: { start_date: start + day, end_date: end + day },
      subscription: {
        status: "active",
        schedule: schedule.id,
        latest_invoice: { status: "paid", total: 2_000 },
      },
    });
    await simulator.clock.advanceTo(end + day + 3_600);
    const [second_phase] = (await stripe.invoices.list({ customer })).data;
    expect(second_phase).toMatchObject({ status: "paid", total: 1_500 });
    await simulator.clock.advanceTo(second("2026-06-02T00:00:00Z"));
    expect(await stripe.subscriptionSchedules.retrieve(schedule.id)).toMatchObject({
      status: "completed",
    });
    expect((await stripe.subscriptions.list({ customer, status: "all" })).data).toMatchObject([
      { status: "canceled" },
    ]);
  });

  test("one that starts now begins at once; one that never began is merely canceled", async () => {
    const now = await fromScratch("now", "release");
    expect((await harness.stripe.subscriptions.list({ customer: now.customer })).data).toHaveLength(
      1,
    );
    await harness.stop();
    const later = await fromScratch(start + day, "release");
    const { stripe, simulator } = harness;
    await stripe.subscriptionSchedules.cancel(later.schedule.id);
    await simulator.clock.advanceTo(start + 2 * day);
    expect((await stripe.subscriptions.list({ customer: later.customer })).data).toEqual([]);
    await expect(stripe.subscriptionSchedules.release(later.schedule.id)).rejects.toMatchObject({
      statusCode: 400,
    });
  });
});
