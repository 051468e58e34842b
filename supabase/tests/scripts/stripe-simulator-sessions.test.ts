// The Stripe simulator's pages: checkout in each of its modes, and the portal's flows.
import { afterEach, describe, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const success_url = "https://app.test/done?session={CHECKOUT_SESSION_ID}";

function submit(url: string, fields: Record<string, string>): Promise<Response> {
  return fetch(url, { method: "POST", body: new URLSearchParams(fields), redirect: "manual" });
}

describe("checkout in setup mode", () => {
  test("saves a card for the customer and charges nothing", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, received } = harness;
    const customer = await stripe.customers.create();
    const session = await stripe.checkout.sessions.create({
      mode: "setup",
      customer: customer.id,
      currency: "usd",
      success_url,
      setup_intent_data: { metadata: { purpose: "switch" } },
    });
    expect(session).toMatchObject({
      mode: "setup",
      amount_total: null,
      payment_status: "no_payment_required",
    });
    expect(await (await fetch(session.url!)).text()).toContain("Save a card");

    expect((await submit(session.url!, { card: "4000000000000002" })).status).toBe(200);
    expect((await stripe.checkout.sessions.retrieve(session.id)).status).toBe("open");
    const redirected = await submit(session.url!, { card: "4242424242424242" });
    expect(redirected.headers.get("location")).toBe(`https://app.test/done?session=${session.id}`);

    const done = await stripe.checkout.sessions.retrieve(session.id, { expand: ["setup_intent"] });
    expect(done).toMatchObject({
      status: "complete",
      setup_intent: {
        status: "succeeded",
        customer: customer.id,
        metadata: { purpose: "switch" },
        last_setup_error: null,
      },
    });
    const methods = await stripe.paymentMethods.list({ customer: customer.id });
    expect(methods.data.map(({ card }) => card?.last4)).toEqual(["4242"]);
    expect((await stripe.charges.list()).data).toEqual([]);
    expect(received.map(({ type }) => type)).toEqual([
      "customer.created",
      "setup_intent.created",
      "setup_intent.setup_failed",
      "payment_method.attached",
      "setup_intent.succeeded",
      "checkout.session.completed",
    ]);
  });
});

describe("checkout in payment mode", () => {
  test("takes one payment without an invoice, and a declined card may be replaced", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const session = await stripe.checkout.sessions.create({
      mode: "payment",
      success_url,
      customer_email: "ada@example.com",
      line_items: [
        {
          price_data: { currency: "usd", unit_amount: 250, product_data: { name: "Credits" } },
          quantity: 4,
        },
      ],
      payment_intent_data: { metadata: { order: "7" } },
    });
    expect(session).toMatchObject({ amount_total: 1_000, payment_status: "unpaid" });
    expect(await simulator.pay(session.id, { card: "9995" })).toEqual({
      complete: false,
      declineCode: "insufficient_funds",
    });
    await simulator.pay(session.id);
    const paid = await stripe.checkout.sessions.retrieve(session.id, {
      expand: ["payment_intent.latest_charge"],
    });
    expect(paid).toMatchObject({
      status: "complete",
      payment_status: "paid",
      invoice: null,
      subscription: null,
      customer: null,
      customer_details: { email: "ada@example.com" },
      payment_intent: {
        amount_received: 1_000,
        metadata: { order: "7" },
        latest_charge: { paid: true, amount: 1_000 },
      },
    });
    expect((await stripe.paymentIntents.list()).data).toHaveLength(1);
    expect((await stripe.invoices.list()).data).toEqual([]);
  });

  test("refuses recurring prices, and each mode the other modes' settings", async () => {
    harness = await useSimulator();
    const { stripe } = harness;
    const { price } = await monthly(stripe, 500);
    await expect(
      stripe.checkout.sessions.create({
        mode: "payment",
        success_url,
        line_items: [{ price: price.id, quantity: 1 }],
      }),
    ).rejects.toMatchObject({ param: "line_items[0][price]" });
    await expect(
      stripe.checkout.sessions.create({
        mode: "setup",
        success_url,
        line_items: [{ price: price.id, quantity: 1 }],
      }),
    ).rejects.toMatchObject({ param: "line_items" });
    await expect(
      stripe.checkout.sessions.create({
        mode: "subscription",
        success_url,
        line_items: [{ price: price.id, quantity: 1 }],
        setup_intent_data: { metadata: { purpose: "none" } },
      }),
    ).rejects.toMatchObject({ param: "setup_intent_data" });
    await expect(
      stripe.checkout.sessions.create({
        mode: "subscription",
        success_url,
        line_items: [{ price: "price_none", quantity: 1 }],
      }),
    ).rejects.toMatchObject({
      statusCode: 400,
      code: "resource_missing",
      param: "line_items[0][price]",
    });
  });
});

describe("the portal's flows", () => {
  async function open(
    type: "payment_method_update" | "subscription_cancel" | "subscription_update",
    after?: "hosted_confirmation" | "redirect",
  ) {
    harness = await useSimulator({ startAt: start });
    const { stripe } = harness;
    const { id, customer, item } = await harness.subscribe({ amount: 1_000 });
    const { price } = await monthly(stripe, 2_000);
    const session = await stripe.billingPortal.sessions.create({
      customer,
      return_url: "https://app.test/account",
      flow_data: {
        type,
        ...(type === "payment_method_update" ? {} : { [type]: { subscription: id } }),
        ...(after === undefined
          ? {}
          : {
              after_completion: {
                type: after,
                ...(after === "redirect"
                  ? { redirect: { return_url: "https://app.test/ok" } }
                  : {}),
              },
            }),
      },
    });
    return { id, customer, item, price, session };
  }

  test("update the payment method wherever it is the default, then lead back", async () => {
    const { id, customer, session } = await open("payment_method_update", "redirect");
    const { stripe } = harness;
    expect(session.flow).toMatchObject({
      type: "payment_method_update",
      after_completion: { type: "redirect", redirect: { return_url: "https://app.test/ok" } },
    });
    const page = await (await fetch(session.url)).text();
    expect(page).toContain("Card");
    expect(page).not.toContain("Invoices");
    const answer = await submit(session.url, { action: "card", card: "5555555555554444" });
    expect(answer.headers.get("location")).toBe("https://app.test/ok");
    const subscription = await stripe.subscriptions.retrieve(id, {
      expand: ["default_payment_method"],
    });
    expect(subscription.default_payment_method).toMatchObject({ card: { last4: "4444" } });
    expect(
      await stripe.customers.retrieve(customer, {
        expand: ["invoice_settings.default_payment_method"],
      }),
    ).toMatchObject({ invoice_settings: { default_payment_method: { card: { last4: "4444" } } } });
  });

  test("cancel by date at the period's end, and confirm", async () => {
    const { id, session } = await open("subscription_cancel", "hosted_confirmation");
    const answer = await submit(session.url, { action: "cancel", subscription: id });
    expect(answer.status).toBe(200);
    expect(await harness.stripe.subscriptions.retrieve(id)).toMatchObject({
      cancel_at: second("2026-05-01T00:00:00Z"),
      cancel_at_period_end: false,
    });
  });

  test("change the plan, paid for at once, and go home", async () => {
    const { id, price, session } = await open("subscription_update");
    const { stripe } = harness;
    expect(await (await fetch(session.url)).text()).toContain(price.id);
    const answer = await submit(session.url, {
      action: "update",
      subscription: id,
      price: price.id,
    });
    expect(answer.headers.get("location")).toBe(`${session.url}?home`);
    const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription).toMatchObject({ latest_invoice: { status: "paid", total: 1_000 } });
    expect(subscription.items.data[0]?.price.id).toBe(price.id);
  });

  test("confirm the change that was prepared", async () => {
    const { id, item, customer, price } = await open("subscription_update");
    const { stripe } = harness;
    const session = await stripe.billingPortal.sessions.create({
      customer,
      flow_data: {
        type: "subscription_update_confirm",
        subscription_update_confirm: {
          subscription: id,
          items: [{ id: item, price: price.id, quantity: 2 }],
        },
      },
    });
    await submit(session.url, { action: "confirm", subscription: id });
    expect((await stripe.subscriptions.retrieve(id)).items.data[0]).toMatchObject({
      quantity: 2,
      price: { id: price.id },
    });
  });

  test("are refused for another customer's subscription", async () => {
    const { id } = await open("subscription_cancel");
    const { stripe } = harness;
    const stranger = await stripe.customers.create();
    await expect(
      stripe.billingPortal.sessions.create({
        customer: stranger.id,
        flow_data: { type: "subscription_cancel", subscription_cancel: { subscription: id } },
      }),
    ).rejects.toMatchObject({ param: "flow_data[subscription_cancel][subscription]" });
  });
});
