// The Stripe simulator's webhooks, pages and remote control: what reaches the app, and how a person steers it.
import Stripe from "stripe";
import { afterEach, describe, expect, test } from "vitest";
import { shuffled } from "../../../scripts/stripe-simulator/delivery.ts";
import { second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const types = () => harness.received.map(({ type }) => type);

async function createProducts(...names: string[]) {
  for (const name of names) await harness.stripe.products.create({ name });
}

const namesReceived = () =>
  harness.received.map(({ data }) => (data.object as Stripe.Product).name);

describe("delivery", () => {
  test("held events are kept until released, in order or shuffled the same way each time", async () => {
    harness = await useSimulator();
    const { delivery } = harness.simulator;
    delivery.hold();
    await createProducts("a", "b", "c", "d", "e");
    await delivery.idle();
    expect(namesReceived()).toEqual([]);
    expect(delivery.held()).toHaveLength(5);
    await delivery.release({ seed: 7 });
    const order = shuffled(["a", "b", "c", "d", "e"], 7);
    expect(order).not.toEqual(["a", "b", "c", "d", "e"]);
    expect(namesReceived()).toEqual(order);
    expect(delivery.held()).toHaveLength(0);

    await createProducts("f");
    await delivery.idle();
    expect(namesReceived().at(-1)).toBe("f");
  });

  test("events are duplicated, delayed, dropped and sent again on request", async () => {
    harness = await useSimulator();
    const { delivery } = harness.simulator;
    delivery.configure({ duplicates: 2 });
    await createProducts("twice more");
    await delivery.idle();
    expect(namesReceived()).toEqual(["twice more", "twice more", "twice more"]);
    expect(new Set(harness.received.map(({ id }) => id)).size).toBe(1);

    delivery.configure({ duplicates: 0, dropNext: 1 });
    await createProducts("lost", "found");
    await delivery.idle();
    expect(namesReceived().slice(3)).toEqual(["found"]);
    const [lost] = delivery.dropped();
    await delivery.resend(lost!.id);
    expect(namesReceived().slice(3)).toEqual(["found", "lost"]);

    delivery.configure({ delayMs: 1_500 });
    await createProducts("late");
    delivery.configure({ delayMs: 0 });
    await createProducts("early");
    await delivery.idle();
    expect(namesReceived().slice(5)).toEqual(["early", "late"]);

    delivery.configure({ dropTypes: ["product.created"] });
    await createProducts("never");
    await delivery.idle();
    expect(namesReceived()).not.toContain("never");
  });

  test("B2: one change may be told by two events of different ids", async () => {
    harness = await useSimulator();
    const { stripe, simulator, received } = harness;
    simulator.doubleNextEvents(1);
    const customer = await stripe.customers.create();
    await stripe.customers.update(customer.id, { name: "Ada" });
    await simulator.delivery.idle();
    expect(received.map(({ type }) => type)).toEqual([
      "customer.created",
      "customer.created",
      "customer.updated",
    ]);
    expect(new Set(received.map(({ id }) => id)).size).toBe(3);
    expect(received[0]?.data).toEqual(received[1]?.data);
  });

  test("anything but a 2xx is tried again, and given up in the end", async () => {
    harness = await useSimulator();
    const { delivery } = harness.simulator;
    let refusals = 2;
    harness.answer = () => (refusals-- > 0 ? 500 : 200);
    await createProducts("a");
    await delivery.idle();
    expect(delivery.attempts().map(({ status }) => status)).toEqual([500, 500, 200]);
    harness.answer = () => 302;
    await createProducts("b");
    await delivery.idle();
    expect(namesReceived()).toEqual(["a"]);
    expect(delivery.attempts().slice(3)).toHaveLength(3);
    expect((await harness.stripe.events.list({ delivery_success: false })).data).toHaveLength(1);
  });

  test("a draft whose invoice.created nobody accepted is not finalized for up to three days", async () => {
    harness = await useSimulator({ startAt: start, retryDelaysMs: [] });
    const { stripe, simulator } = harness;
    const { id } = await harness.subscribe();
    const renewal = second("2026-05-01T00:00:00Z");
    harness.answer = ({ type }) => (type === "invoice.created" ? 500 : 200);
    await simulator.clock.advanceTo(renewal + 71 * 3_600);
    let [invoice] = (await stripe.invoices.list({ subscription: id })).data;
    expect(invoice?.status).toBe("draft");
    await simulator.clock.advanceTo(renewal + 72 * 3_600);
    [invoice] = (await stripe.invoices.list({ subscription: id })).data;
    expect(invoice?.status).toBe("paid");
  });

  test("webhooks show what Stripe's show: embedded lists of ten, no payments in an invoice", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, item } = await harness.subscribe();
    for (let quantity = 2; quantity <= 8; quantity += 1) {
      await simulator.clock.advanceBy(3_600);
      await stripe.subscriptions.update(id, { items: [{ id: item, quantity }] });
    }
    await simulator.clock.advanceTo(second("2026-05-01T00:00:00Z"));
    const event = harness.received.findLast(({ type }) => type === "invoice.created");
    const invoice = event!.data.object as Stripe.Invoice;
    expect(invoice.lines.data).toHaveLength(10);
    expect(invoice.lines.has_more).toBe(true);
    expect(invoice).not.toHaveProperty("payments");
    const all = await stripe.invoices.listLineItems(invoice.id).autoPagingToArray({ limit: 100 });
    expect(all).toHaveLength(15);
    expect(all.reduce((sum, { amount }) => sum + amount, 0)).toBe(invoice.total);
    // Decimals are plain text in a webhook, whatever the types say.
    expect(invoice.lines.data[0]?.pricing?.unit_amount_decimal).toBe("1000");
  });

  test("declines on request strike the next charges only", async () => {
    harness = await useSimulator();
    const { simulator } = harness;
    simulator.failNextPayments(1, "insufficient_funds");
    const session = await harness.checkout();
    expect(await simulator.pay(session.id)).toMatchObject({ complete: false });
    expect(await simulator.pay(session.id)).toMatchObject({ complete: true });
    expect(types()).toContain("charge.failed");
    await expect(simulator.pay(session.id)).rejects.toThrow("complete");
  });

  test("after a hard decline the schedule runs on without charging the same card", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    await harness.subscribe();
    simulator.failNextPayments(1, "stolen_card");
    await simulator.clock.advanceTo(second("2026-05-05T00:00:00Z"));
    const [invoice] = (await stripe.invoices.list()).data;
    expect(invoice).toMatchObject({ status: "open", attempt_count: 2 });
    const failed = (await stripe.charges.list()).data.filter(({ paid }) => !paid);
    expect(failed).toHaveLength(1);
    expect(failed[0]?.outcome).toMatchObject({
      advice_code: "do_not_try_again",
      reason: "stolen_card",
    });
  });

  test("a card that must be authenticated asks for the customer at renewal", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    await harness.subscribe({ card: "3184" });
    await simulator.clock.advanceTo(second("2026-05-01T02:00:00Z"));
    expect(types()).toContain("invoice.payment_action_required");
    const [invoice] = (await stripe.invoices.list({}, {})).data;
    const open = await stripe.invoices.retrieve(invoice!.id, {
      expand: ["confirmation_secret", "payments.data.payment.payment_intent"],
    });
    const intent = open.payments?.data[0]?.payment.payment_intent as Stripe.PaymentIntent;
    expect(intent.status).toBe("requires_action");
    expect(open.confirmation_secret?.client_secret).toBe(intent.client_secret);
    const method = (await stripe.paymentMethods.list({ customer: String(open.customer) })).data[0];
    await stripe.paymentIntents.confirm(intent.id, { payment_method: method!.id });
    expect((await stripe.invoices.retrieve(invoice!.id)).status).toBe("paid");
  });
});

describe("pages", () => {
  const post = (url: string, fields: Record<string, string>) =>
    fetch(url, { method: "POST", body: new URLSearchParams(fields), redirect: "manual" });

  test("the checkout page shows the plan, says when a card is declined, and redirects when paid", async () => {
    harness = await useSimulator();
    const session = await harness.checkout();
    const url = session.url!;
    const shown = await (await fetch(url)).text();
    expect(shown).toContain("Premium");
    expect(shown).toContain("$10.00 / month");
    const declined = await post(url, { card: "4000000000000002" });
    expect(declined.status).toBe(200);
    expect(await declined.text()).toContain("Your card was declined.");
    const paid = await post(url, { card: "4242424242424242" });
    expect(paid.status).toBe(303);
    expect(paid.headers.get("location")).toBe("https://app.test/");
    // As on Stripe's page, the webhook has been answered before the browser moves on.
    expect(types().at(-1)).toBe("checkout.session.completed");
    expect(await (await fetch(url)).text()).toContain("has been paid");
    expect((await fetch(`${harness.simulator.url}/c/pay/cs_none`)).status).toBe(404);
  });

  test("a name with markup is shown as text", async () => {
    harness = await useSimulator();
    const { stripe } = harness;
    const product = await stripe.products.create({ name: "<script>alert(1)</script>" });
    const price = await stripe.prices.create({
      product: product.id,
      currency: "jpy",
      unit_amount: 500,
      recurring: { interval: "month" },
    });
    const session = await stripe.checkout.sessions.create({
      mode: "subscription",
      line_items: [{ price: price.id, quantity: 1 }],
      success_url: "https://app.test/",
    });
    const shown = await (await fetch(session.url!)).text();
    expect(shown).toContain("&lt;script&gt;");
    expect(shown).not.toContain("<script>");
    expect(shown).toContain("¥500");
  });

  test("the portal cancels by date, undoes it, and switches the card", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id, customer } = await harness.subscribe({ card: "0341" });
    const portal = await stripe.billingPortal.sessions.create({ customer });
    expect(await (await fetch(portal.url)).text()).toContain("renews 2026-05-01");

    await post(portal.url, { action: "cancel", subscription: id });
    expect(await stripe.subscriptions.retrieve(id)).toMatchObject({
      cancel_at: second("2026-05-01T00:00:00Z"),
      cancel_at_period_end: false,
    });
    expect(await (await fetch(portal.url)).text()).toContain("ends 2026-05-01");
    await post(portal.url, { action: "keep", subscription: id });
    expect((await stripe.subscriptions.retrieve(id)).cancel_at).toBeNull();

    await post(portal.url, { action: "card", card: "4242424242424242" });
    await simulator.clock.advanceTo(second("2026-05-01T02:00:00Z"));
    const [renewal] = (await stripe.invoices.list({ subscription: id })).data;
    expect(renewal?.status).toBe("paid");
  });

  test("an open invoice is paid on its own page", async () => {
    harness = await useSimulator({ startAt: start });
    const { stripe, simulator } = harness;
    const { id } = await harness.subscribe({ card: "0341" });
    await simulator.clock.advanceTo(second("2026-05-01T02:00:00Z"));
    const [invoice] = (await stripe.invoices.list({ subscription: id })).data;
    const page = invoice!.hosted_invoice_url!;
    expect(await (await fetch(page)).text()).toContain("Pay with 4242");
    expect((await post(page, { card: "4242424242424242" })).status).toBe(303);
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("active");
  });
});

describe("remote control", () => {
  const control = async (method: string, path: string) => {
    const response = await fetch(`${harness.simulator.url}/_control${path}`, { method });
    return { status: response.status, body: (await response.json()) as Record<string, unknown> };
  };

  test("tells its commands, moves the clock, pays and steers delivery", async () => {
    harness = await useSimulator({ startAt: start });
    const { simulator } = harness;
    const help = await control("GET", "");
    expect(JSON.stringify(help.body)).toContain("/_control/clock");

    const session = await harness.checkout();
    await control("POST", "/payments/fail?times=1&code=lost_card");
    expect((await control("POST", `/checkout/${session.id}/pay`)).body).toMatchObject({
      complete: false,
    });
    expect((await control("POST", `/checkout/${session.id}/pay?card=4242`)).body).toMatchObject({
      complete: true,
    });
    expect((await control("POST", "/clock?months=1&hours=1")).body).toMatchObject({
      iso: "2026-05-01T01:00:00.000Z",
    });
    expect(simulator.clock.now()).toBe(second("2026-05-01T01:00:00Z"));
    const paid = await control("GET", "/events?type=invoice.paid");
    expect(paid.body).toHaveLength(2);

    await control("POST", "/delivery?hold=true");
    await createProducts("a");
    const held = await control("GET", "/delivery");
    expect(held.body).toMatchObject({ hold: true, held: [{ type: "product.created" }] });
    expect((await control("POST", "/delivery/release?seed=1")).body).toEqual({ released: 1 });
    const event = harness.received.at(-1)!;
    await control("POST", `/events/${event.id}/resend`);
    expect(harness.received.slice(-2).map(({ id }) => id)).toEqual([event.id, event.id]);
    await control("POST", "/api/fail?when=before&status=503");
    await expect(harness.stripe.customers.list()).rejects.toMatchObject({ statusCode: 503 });

    expect(await control("POST", "/clock?to=2020-01-01")).toMatchObject({
      status: 400,
      body: { error: "The simulator's clock cannot go back." },
    });
    expect((await control("POST", "/nothing")).status).toBe(404);
  });

  test("a flowing clock moves by itself, and what falls due happens", async () => {
    harness = await useSimulator({ startAt: start, flows: true });
    const { stripe, simulator } = harness;
    const session = await harness.checkout();
    await simulator.clock.advanceTo(session.expires_at - 1);
    const deadline = Date.now() + 5_000;
    while (!types().includes("checkout.session.expired") && Date.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(types()).toContain("checkout.session.expired");
    expect((await stripe.checkout.sessions.retrieve(session.id)).status).toBe("expired");
  });
});
