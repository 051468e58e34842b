// The Stripe simulator, driven by Stripe's own SDK: a subscription's life, and what time does to it.
import Stripe from "stripe";
import { afterEach, describe, expect, test } from "vitest";
import { useSimulator, monthly, second, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-01-31T10:00:00Z");
const day = 86_400;
const hour = 3_600;

describe("a subscriber's life", () => {
  test("checkout, payment, renewal, failure, retry and recovery", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const { price } = await monthly(stripe, 1_000);
    const customer = await stripe.customers.create({ email: "ada@example.com" });
    const session = await stripe.checkout.sessions.create({
      mode: "subscription",
      customer: customer.id,
      client_reference_id: "account-1",
      line_items: [{ price: price.id, quantity: 2 }],
      subscription_data: { metadata: { account: "account-1" } },
      success_url: "https://app.test/welcome?id={CHECKOUT_SESSION_ID}",
      cancel_url: "https://app.test/plans",
    });
    expect(session).toMatchObject({
      status: "open",
      payment_status: "unpaid",
      amount_total: 2_000,
    });

    const outcome = await simulator.pay(session.id, { card: "0341" });
    expect(outcome).toEqual({
      complete: true,
      redirectTo: `https://app.test/welcome?id=${session.id}`,
    });
    const paid = await stripe.checkout.sessions.retrieve(session.id);
    expect(paid).toMatchObject({ status: "complete", payment_status: "paid", url: null });
    const id = String(paid.subscription);
    expect(await stripe.subscriptions.retrieve(id)).toMatchObject({
      status: "active",
      metadata: { account: "account-1" },
      billing_mode: { type: "flexible" },
    });
    // Both states of one second: created as incomplete, then updated to active.
    expect(
      received
        .filter(({ type }) => type.startsWith("customer.subscription."))
        .map((event) => [
          event.type,
          (event.data.object as Stripe.Subscription).status,
          event.created,
        ]),
    ).toEqual([
      ["customer.subscription.created", "incomplete", start],
      ["customer.subscription.updated", "active", start],
    ]);
    expect(received.at(-1)?.type).toBe("checkout.session.completed");

    // The renewal: a draft at the period's end, charged an hour later, and declined.
    received.length = 0;
    const renewal = second("2026-02-28T10:00:00Z");
    await simulator.clock.advanceTo(renewal);
    let subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription.status).toBe("active");
    expect(subscription.latest_invoice).toMatchObject({
      status: "draft",
      billing_reason: "subscription_cycle",
      period_start: start,
      period_end: renewal,
    });
    await simulator.clock.advanceBy(hour);
    subscription = await stripe.subscriptions.retrieve(id);
    expect(subscription.status).toBe("past_due");
    const invoiceId = String(subscription.latest_invoice);
    expect(await stripe.invoices.retrieve(invoiceId)).toMatchObject({
      status: "open",
      attempt_count: 1,
      amount_due: 2_000,
      next_payment_attempt: renewal + hour + 3 * day,
    });
    expect(received.map(({ type }) => type)).toEqual([
      "invoice.upcoming",
      "customer.subscription.updated",
      "invoice.created",
      "payment_intent.created",
      "invoice.updated",
      "invoice.finalized",
      "charge.failed",
      "payment_intent.payment_failed",
      "invoice.updated",
      "invoice.payment_failed",
      "customer.updated",
      "customer.subscription.updated",
    ]);
    expect(received[0]?.data.object).not.toHaveProperty("id");

    // A new card, attached where the old one failed; the next retry succeeds.
    const method = await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id });
    await stripe.subscriptions.update(id, { default_payment_method: method.id });
    await simulator.clock.advanceBy(3 * day);
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("active");
    const invoice = await stripe.invoices.retrieve(invoiceId, {
      expand: ["payments.data.payment.payment_intent"],
    });
    expect(invoice).toMatchObject({ status: "paid", attempt_count: 2, amount_paid: 2_000 });
    expect(invoice.payments?.data[0]).toMatchObject({
      status: "paid",
      payment: { payment_intent: { status: "succeeded", amount_received: 2_000 } },
    });
  });

  test("when every retry fails the subscription is canceled, and its invoice is left open", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const { id } = await harness.subscribe({ card: "0341" });
    await simulator.clock.advanceTo(second("2026-03-20T00:00:00Z"));

    const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription).toMatchObject({
      status: "canceled",
      ended_at: second("2026-02-28T11:00:00Z") + 15 * day,
      cancellation_details: { reason: "payment_failed" },
      latest_invoice: {
        status: "open",
        attempt_count: 4,
        next_payment_attempt: null,
        auto_advance: false,
      },
    });
    expect(received.filter(({ type }) => type === "invoice.payment_failed")).toHaveLength(4);
    expect(received.filter(({ type }) => type === "customer.subscription.deleted")).toHaveLength(1);
  });

  test("the account may leave the subscription unpaid instead; paying the latest invoice restores it", async () => {
    harness = await useSimulator({
      startAt: start,
      rules: { afterLastRetry: "unpaid", retryAfter: [day] },
    });
    const { stripe, simulator } = harness;
    const { id, customer } = await harness.subscribe({ card: "0341" });
    await simulator.clock.advanceTo(second("2026-04-01T00:00:00Z"));
    let subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription).toMatchObject({ status: "unpaid", latest_invoice: { status: "draft" } });

    const latest = subscription.latest_invoice as Stripe.Invoice;
    const method = await stripe.paymentMethods.attach("pm_card_visa", { customer });
    await stripe.invoices.pay(latest.id, { payment_method: method.id });
    subscription = await stripe.subscriptions.retrieve(id);
    expect(subscription.status).toBe("active");
  });

  test("a cancellation at the period's end can be undone, and otherwise happens then", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const { id } = await harness.subscribe();
    const end = second("2026-02-28T10:00:00Z");

    await simulator.clock.advanceBy(day);
    let subscription = await stripe.subscriptions.update(id, { cancel_at_period_end: true });
    expect(subscription).toMatchObject({
      cancel_at: end,
      canceled_at: start + day,
      cancellation_details: { reason: "cancellation_requested" },
    });
    await simulator.delivery.idle();
    expect(received.at(-1)?.data.previous_attributes).toEqual({
      cancel_at: null,
      cancel_at_period_end: false,
      canceled_at: null,
      cancellation_details: { reason: null },
    });
    subscription = await stripe.subscriptions.update(id, { cancel_at_period_end: false });
    expect(subscription).toMatchObject({
      cancel_at: null,
      canceled_at: null,
      cancel_at_period_end: false,
    });

    await stripe.subscriptions.update(id, { cancel_at: "min_period_end" });
    await simulator.clock.advanceTo(end - 1);
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("active");
    await simulator.clock.advanceTo(end);
    expect(await stripe.subscriptions.retrieve(id)).toMatchObject({
      status: "canceled",
      ended_at: end,
    });
    expect((await stripe.invoices.list({ subscription: id })).data).toHaveLength(1);
    expect((await stripe.subscriptions.list()).data).toHaveLength(0);
    expect((await stripe.subscriptions.list({ status: "all" })).data).toHaveLength(1);
  });

  test("a trial is announced, ends, and is charged an hour later", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const { id } = await harness.subscribe({ trialDays: 14 });
    expect(await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] })).toMatchObject({
      status: "trialing",
      trial_end: start + 14 * day,
      latest_invoice: { status: "paid", amount_due: 0, amount_paid: 0 },
    });
    await simulator.clock.advanceTo(start + 14 * day);
    const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription).toMatchObject({
      status: "active",
      billing_cycle_anchor: start + 14 * day,
      latest_invoice: { status: "draft", amount_due: 1_000 },
    });
    const announced = received.find(({ type }) => type === "customer.subscription.trial_will_end");
    expect(announced?.created).toBe(start + 11 * day);
    await simulator.clock.advanceBy(hour);
    expect((await stripe.invoices.list({ subscription: id })).data[0]).toMatchObject({
      status: "paid",
      amount_paid: 1_000,
    });
  });

  test("a trial without a card ends as its settings say, and a paused one can be resumed", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const { price } = await monthly(stripe, 1_000);
    const customer = await stripe.customers.create();
    const create = (missing_payment_method: "cancel" | "pause") =>
      stripe.subscriptions.create({
        customer: customer.id,
        items: [{ price: price.id }],
        trial_period_days: 2,
        trial_settings: { end_behavior: { missing_payment_method } },
      });
    const canceled = await create("cancel");
    const paused = await create("pause");
    await simulator.clock.advanceBy(2 * day);
    expect((await stripe.subscriptions.retrieve(canceled.id)).status).toBe("canceled");
    expect(await stripe.subscriptions.retrieve(paused.id)).toMatchObject({
      status: "paused",
      status_details: {
        paused: { subscription: { type: "trial_end_without_payment_method" } },
      },
    });
    expect(received.some(({ type }) => type === "customer.subscription.paused")).toBe(true);

    await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id }).then((method) =>
      stripe.customers.update(customer.id, {
        invoice_settings: { default_payment_method: method.id },
      }),
    );
    const resumed = await stripe.subscriptions.resume(paused.id, { expand: ["latest_invoice"] });
    expect(resumed).toMatchObject({
      status: "active",
      billing_cycle_anchor: start + 2 * day,
      latest_invoice: { status: "paid", amount_paid: 1_000 },
    });
  });

  test("a declined first payment leaves an incomplete subscription, which another card or 23 hours end", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const first = await harness.checkout();
    expect(await simulator.pay(first.id, { card: "9995" })).toEqual({
      complete: false,
      declineCode: "insufficient_funds",
    });
    expect((await stripe.checkout.sessions.retrieve(first.id)).status).toBe("open");
    const [incomplete] = (await stripe.subscriptions.list({ status: "incomplete" })).data;
    expect(await simulator.pay(first.id, { card: "4242" })).toMatchObject({ complete: true });
    expect((await stripe.subscriptions.retrieve(incomplete!.id)).status).toBe("active");

    const second = await harness.checkout();
    await simulator.pay(second.id, { card: "0002" });
    const [left] = (await stripe.subscriptions.list({ status: "incomplete" })).data;
    received.length = 0;
    await simulator.clock.advanceBy(23 * hour - 1);
    expect((await stripe.subscriptions.retrieve(left!.id)).status).toBe("incomplete");
    await simulator.clock.advanceBy(1);
    const expired = await stripe.subscriptions.retrieve(left!.id, { expand: ["latest_invoice"] });
    expect(expired).toMatchObject({
      status: "incomplete_expired",
      latest_invoice: { status: "void" },
    });
    expect(received.map(({ type }) => type)).toEqual([
      "customer.subscription.updated",
      "payment_intent.canceled",
      "invoice.updated",
      "invoice.voided",
    ]);
    await simulator.clock.advanceBy(hour);
    expect((await stripe.checkout.sessions.retrieve(second.id)).status).toBe("expired");
    expect(received.at(-1)?.type).toBe("checkout.session.expired");
  });

  test("deleting a customer ends its subscriptions; the customer answers as deleted", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, received } = harness;
    const { id, customer } = await harness.subscribe();
    expect(await stripe.customers.del(customer)).toEqual({
      id: customer,
      object: "customer",
      deleted: true,
    });
    expect(await stripe.customers.retrieve(customer)).toMatchObject({ deleted: true });
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("canceled");
    await harness.simulator.delivery.idle();
    expect(received.slice(-2).map(({ type }) => type)).toEqual([
      "customer.subscription.deleted",
      "customer.deleted",
    ]);
  });

  test("a refund is announced on the charge", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    await harness.subscribe();
    const [charge] = (await stripe.charges.list()).data;
    await stripe.refunds.create({ charge: charge!.id, amount: 400 });
    await stripe.refunds.create({ payment_intent: String(charge!.payment_intent) });
    expect(await stripe.charges.retrieve(charge!.id)).toMatchObject({
      amount_refunded: 1_000,
      refunded: true,
    });
    await expect(stripe.refunds.create({ charge: charge!.id })).rejects.toMatchObject({
      code: "charge_already_refunded",
    });
    await simulator.delivery.idle();
    expect(received.slice(-4).map(({ type }) => type)).toEqual([
      "refund.created",
      "charge.refunded",
      "refund.created",
      "charge.refunded",
    ]);
  });
});

describe("the calendar", () => {
  test("a subscription of the 31st renews on each month's last day and returns to the 31st", async () => {
    harness = await useSimulator({ startAt: start, rules: { upcomingBefore: 0 } });
    const { stripe, simulator } = harness;
    const { id } = await harness.subscribe();
    const ends: string[] = [];
    for (let month = 0; month < 6; month += 1) {
      const [item] = (await stripe.subscriptions.retrieve(id)).items.data;
      ends.push(new Date(item!.current_period_end * 1000).toISOString());
      await simulator.clock.advanceTo(item!.current_period_end);
    }
    expect(ends).toEqual(
      ["02-28", "03-31", "04-30", "05-31", "06-30", "07-31"].map(
        (date) => `2026-${date}T10:00:00.000Z`,
      ),
    );
  });

  test("the clock walks through due moments in order and tells of each before anything happens", async () => {
    const ticks: number[] = [];
    harness = await useSimulator({
      startAt: start,
      onTick: (now) => {
        ticks.push(now);
        return Promise.resolve();
      },
    });
    const { simulator, received } = harness;
    await harness.subscribe();
    received.length = 0;
    const renewal = second("2026-02-28T10:00:00Z");
    await simulator.clock.advanceTo(renewal + day);
    expect(ticks).toEqual([renewal - 7 * day, renewal, renewal + hour, renewal + day]);
    expect([...new Set(received.map(({ created }) => created))]).toEqual(ticks.slice(0, 3));
    expect(simulator.clock.now()).toBe(renewal + day);
    await expect(simulator.clock.advanceTo(renewal)).rejects.toThrow("cannot go back");
  });

  test("an app may call the API from a webhook while the clock walks", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id } = await harness.subscribe();
    harness.onEvent = async (event) => {
      if (event.type !== "invoice.upcoming") return;
      await stripe.subscriptions.update(id, { cancel_at_period_end: true });
    };
    await simulator.clock.advanceBy(60 * day);
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("canceled");
    expect((await stripe.invoices.list({ subscription: id })).data).toHaveLength(1);
  });
});

describe("less common turns", () => {
  test("default_incomplete leaves the first payment to the customer's browser", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe } = harness;
    const { price } = await monthly(stripe, 1_000);
    const customer = await stripe.customers.create();
    const subscription = await stripe.subscriptions.create({
      customer: customer.id,
      items: [{ price: price.id }],
      payment_behavior: "default_incomplete",
      expand: ["latest_invoice.payments"],
    });
    expect(subscription.status).toBe("incomplete");
    await expect(
      stripe.subscriptions.update(subscription.id, { cancel_at_period_end: true }),
    ).rejects.toMatchObject({ statusCode: 400 });

    const invoice = subscription.latest_invoice as Stripe.Invoice;
    expect(invoice).toMatchObject({ status: "open", attempted: false, attempt_count: 0 });
    const method = await stripe.paymentMethods.attach("pm_card_visa", { customer: customer.id });
    const intent = String(invoice.payments?.data[0]?.payment.payment_intent);
    await stripe.paymentIntents.confirm(intent, { payment_method: method.id });
    expect((await stripe.subscriptions.retrieve(subscription.id)).status).toBe("active");
  });

  test("without a payment method a subscription is refused, and a declined one stays incomplete", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe } = harness;
    const { price } = await monthly(stripe, 1_000);
    const customer = await stripe.customers.create();
    const create = (payment_behavior?: "error_if_incomplete") =>
      stripe.subscriptions.create({
        customer: customer.id,
        items: [{ price: price.id }],
        ...(payment_behavior === undefined ? {} : { payment_behavior }),
      });
    await expect(create()).rejects.toMatchObject({ statusCode: 400 });
    const method = await stripe.paymentMethods.attach("pm_card_chargeCustomerFail", {
      customer: customer.id,
    });
    await stripe.customers.update(customer.id, {
      invoice_settings: { default_payment_method: method.id },
    });
    await expect(create("error_if_incomplete")).rejects.toMatchObject({ statusCode: 402 });
    expect((await stripe.subscriptions.list({ status: "all" })).data).toHaveLength(0);

    const incomplete = await create();
    expect(incomplete.status).toBe("incomplete");
    await stripe.invoices.voidInvoice(String(incomplete.latest_invoice));
    expect((await stripe.subscriptions.retrieve(incomplete.id)).status).toBe("incomplete_expired");
  });

  test("forgiving the latest invoice returns a past_due subscription to active", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const { id } = await harness.subscribe({ card: "0341" });
    await simulator.clock.advanceTo(second("2026-03-01T00:00:00Z"));
    const pastDue = await stripe.subscriptions.retrieve(id);
    expect(pastDue.status).toBe("past_due");
    await stripe.invoices.markUncollectible(String(pastDue.latest_invoice));
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("active");
    await simulator.delivery.idle();
    expect(received.slice(-2).map(({ type }) => type)).toEqual([
      "invoice.marked_uncollectible",
      "customer.subscription.updated",
    ]);
  });

  test("paused collection leaves the status alone and does to invoices what it says", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id } = await harness.subscribe();
    const renewals = [
      ["void", "2026-02-28T12:00:00Z", "void"],
      ["mark_uncollectible", "2026-03-31T12:00:00Z", "uncollectible"],
      ["keep_as_draft", "2026-04-30T12:00:00Z", "draft"],
    ] as const;
    for (const [behavior, moment, status] of renewals) {
      await stripe.subscriptions.update(id, { pause_collection: { behavior } });
      await simulator.clock.advanceTo(second(moment));
      const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
      expect(subscription).toMatchObject({ status: "active", latest_invoice: { status } });
    }
    const resumes_at = second("2026-05-15T00:00:00Z");
    await stripe.subscriptions.update(id, { pause_collection: { behavior: "void", resumes_at } });
    await simulator.clock.advanceTo(second("2026-05-31T12:00:00Z"));
    const resumed = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(resumed).toMatchObject({ pause_collection: null, latest_invoice: { status: "paid" } });
  });

  test("an invoice that is sent becomes overdue, and paying it elsewhere settles it", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const { price } = await monthly(stripe, 1_000);
    const customer = await stripe.customers.create();
    const { id } = await stripe.subscriptions.create({
      customer: customer.id,
      items: [{ price: price.id }],
      collection_method: "send_invoice",
      days_until_due: 14,
    });
    await simulator.clock.advanceBy(hour);
    const [invoice] = (await stripe.invoices.list({ subscription: id })).data;
    expect(invoice).toMatchObject({ status: "open", next_payment_attempt: null });
    await simulator.clock.advanceBy(14 * day);
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("past_due");
    expect(received.map(({ type }) => type)).toEqual(
      expect.arrayContaining(["invoice.sent", "invoice.overdue"]),
    );
    await stripe.invoices.pay(invoice!.id, { paid_out_of_band: true });
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("active");
    await simulator.delivery.idle();
    expect(received.some(({ type }) => type === "invoice.payment_succeeded")).toBe(false);
  });

  test("a detached card is forgotten wherever it was the default", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator, received } = harness;
    const { id } = await harness.subscribe();
    const method = String((await stripe.subscriptions.retrieve(id)).default_payment_method);
    await stripe.paymentMethods.detach(method);
    expect((await stripe.subscriptions.retrieve(id)).default_payment_method).toBeNull();
    await simulator.delivery.idle();
    expect(received.at(-1)).toMatchObject({
      type: "payment_method.detached",
      data: { object: { customer: null } },
    });
    await simulator.clock.advanceTo(second("2026-02-28T12:00:00Z"));
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("past_due");
    expect((await stripe.charges.list()).data).toHaveLength(1);
  });

  test("a trial can be ended early, and a free plan that is paid for starts a new cycle", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const trial = await harness.subscribe({ trialDays: 14 });
    await simulator.clock.advanceBy(day);
    const ended = await stripe.subscriptions.update(trial.id, {
      trial_end: "now",
      expand: ["latest_invoice"],
    });
    expect(ended).toMatchObject({
      status: "active",
      trial_end: start + day,
      latest_invoice: { status: "paid", amount_paid: 1_000 },
    });

    const free = await harness.subscribe({ amount: 0 });
    expect((await stripe.subscriptions.retrieve(free.id)).status).toBe("active");
    await simulator.clock.advanceBy(day);
    const { price } = await monthly(stripe, 700);
    const paid = await stripe.subscriptions.update(free.id, {
      items: [{ id: free.item, price: price.id }],
      expand: ["latest_invoice"],
    });
    expect(paid).toMatchObject({
      billing_cycle_anchor: start + 2 * day,
      latest_invoice: { status: "paid", amount_paid: 700 },
    });
  });
});
