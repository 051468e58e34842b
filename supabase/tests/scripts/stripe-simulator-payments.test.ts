// The Stripe simulator's money: declines and retries, refunds, disputes, fraud warnings, credit notes.
import type Stripe from "stripe";
import { afterEach, describe, expect, test } from "vitest";
import { second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

const start = second("2026-04-01T00:00:00Z");
const end = second("2026-05-01T00:00:00Z");
const day = 86_400;

const types = () => harness.received.map(({ type }) => type);

async function paidCharge(card = "4242") {
  harness = await useSimulator({ startAt: start });
  const { id, customer } = await harness.subscribe({ card, amount: 1_000 });
  const [charge] = (await harness.stripe.charges.list({ customer })).data;
  const [invoice] = (await harness.stripe.invoices.list({ subscription: id })).data;
  return { id, customer, charge: charge!.id, invoice: invoice!.id };
}

describe("a failed renewal", () => {
  async function failing(decline = "generic_decline", times = 1) {
    harness = await useSimulator({ startAt: start });
    const { id, customer } = await harness.subscribe();
    harness.simulator.failNextPayments(times, decline);
    await harness.simulator.clock.advanceTo(end + 3_600);
    const [invoice] = (await harness.stripe.invoices.list({ subscription: id })).data;
    return { id, customer, invoice: invoice! };
  }

  test.each([
    ["insufficient_funds", "card_declined", "try_again_later", "51"],
    ["do_not_honor", "card_declined", "try_again_later", "05"],
    ["expired_card", "expired_card", "confirm_card_data", "54"],
    ["lost_card", "card_declined", "do_not_try_again", "41"],
    ["stolen_card", "card_declined", "do_not_try_again", "43"],
    ["authentication_required", "authentication_required", "confirm_card_data", "65"],
  ])("says why: %s", async (decline, code, advice_code, network_decline_code) => {
    const { customer, invoice } = await failing(decline);
    const [charge] = (await harness.stripe.charges.list({ customer })).data;
    expect(charge).toMatchObject({
      status: "failed",
      failure_code: code,
      outcome: { advice_code, network_decline_code, reason: decline },
    });
    const payment = await harness.stripe.invoices.retrieve(invoice.id, {
      expand: ["payments.data.payment.payment_intent"],
    });
    expect(payment.payments?.data[0]?.payment.payment_intent).toMatchObject({
      last_payment_error: { decline_code: decline, advice_code },
    });
  });

  test("is retried on the account's schedule, which a payment by request does not disturb", async () => {
    const { id, invoice } = await failing("insufficient_funds", 3);
    const { stripe, simulator } = harness;
    expect(invoice).toMatchObject({
      attempt_count: 1,
      next_payment_attempt: end + 3_600 + 3 * day,
    });
    await expect(stripe.invoices.pay(invoice.id)).rejects.toMatchObject({
      statusCode: 402,
      code: "card_declined",
      decline_code: "insufficient_funds",
    });
    expect(await stripe.invoices.retrieve(invoice.id)).toMatchObject({
      attempt_count: 1,
      next_payment_attempt: end + 3_600 + 3 * day,
    });
    await simulator.clock.advanceBy(3 * day);
    expect(await stripe.invoices.retrieve(invoice.id)).toMatchObject({ attempt_count: 2 });
    await simulator.clock.advanceBy(5 * day);
    expect(await stripe.subscriptions.retrieve(id)).toMatchObject({ status: "active" });
    expect(await stripe.invoices.retrieve(invoice.id)).toMatchObject({
      status: "paid",
      attempt_count: 3,
      next_payment_attempt: null,
    });
  });

  test.each([
    ["cancel", "canceled"],
    ["unpaid", "unpaid"],
    ["past_due", "past_due"],
    ["pause", "paused"],
  ] as const)("after the last retry, the account's setting: %s", async (afterLastRetry, status) => {
    harness = await useSimulator({ startAt: start });
    const { id } = await harness.subscribe();
    const { stripe, simulator } = harness;
    simulator.setRules({ afterLastRetry, retryAfter: [day] });
    simulator.failNextPayments(2);
    await simulator.clock.advanceTo(end + 3_600 + day);
    const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    expect(subscription).toMatchObject({
      status,
      latest_invoice: { status: "open", attempt_count: 2, next_payment_attempt: null },
    });
  });

  test("may have an invoice that cannot even be finalized: nothing is charged, the status stays", async () => {
    harness = await useSimulator({ startAt: start });
    const { id } = await harness.subscribe();
    const { stripe, simulator } = harness;
    simulator.failNextFinalizations(1);
    await simulator.clock.advanceTo(end + 2 * day);
    const subscription = await stripe.subscriptions.retrieve(id, { expand: ["latest_invoice"] });
    const invoice = subscription.latest_invoice as Stripe.Invoice;
    expect(subscription.status).toBe("active");
    expect(invoice).toMatchObject({
      status: "draft",
      last_finalization_error: { code: "customer_tax_location_invalid" },
    });
    expect(types()).toContain("invoice.finalization_failed");
    expect(await stripe.invoices.pay(invoice.id)).toMatchObject({
      status: "paid",
      last_finalization_error: null,
    });
  });

  test("only open and uncollectible invoices can be paid, and a paid one says so", async () => {
    const { invoice } = await failing();
    const { stripe } = harness;
    await stripe.invoices.markUncollectible(invoice.id);
    expect(await stripe.invoices.pay(invoice.id)).toMatchObject({ status: "paid" });
    await expect(stripe.invoices.pay(invoice.id)).rejects.toMatchObject({
      statusCode: 400,
      message: "Invoice is already paid",
    });
    await expect(stripe.invoices.voidInvoice(invoice.id)).rejects.toMatchObject({
      statusCode: 400,
    });
  });

  test("on a subscription that has ended can still be paid, and brings nothing back", async () => {
    const { id, invoice } = await failing();
    const { stripe } = harness;
    await stripe.subscriptions.cancel(id);
    expect(await stripe.invoices.retrieve(invoice.id)).toMatchObject({
      status: "open",
      auto_advance: false,
      next_payment_attempt: null,
    });
    expect(await stripe.invoices.pay(invoice.id)).toMatchObject({ status: "paid" });
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("canceled");
  });
});

describe("refunds", () => {
  test("in parts leave the rest refundable, and never exceed the charge", async () => {
    const { charge } = await paidCharge();
    const { stripe } = harness;
    await stripe.refunds.create({ charge, amount: 400 });
    expect(await stripe.charges.retrieve(charge)).toMatchObject({
      amount_refunded: 400,
      refunded: false,
    });
    await expect(stripe.refunds.create({ charge, amount: 601 })).rejects.toMatchObject({
      param: "amount",
    });
    await stripe.refunds.create({ charge });
    expect(await stripe.charges.retrieve(charge)).toMatchObject({
      amount_refunded: 1_000,
      refunded: true,
    });
    await expect(stripe.refunds.create({ charge })).rejects.toMatchObject({
      code: "charge_already_refunded",
    });
  });

  test("that succeeded may fail later, which gives the charge its money back", async () => {
    const { charge } = await paidCharge("5126");
    const { stripe, simulator } = harness;
    const { id, status } = await stripe.refunds.create({ charge });
    expect(status).toBe("succeeded");
    await simulator.clock.advanceBy(day);
    expect(await stripe.refunds.retrieve(id)).toMatchObject({
      status: "failed",
      failure_reason: "expired_or_canceled_card",
    });
    expect(await stripe.charges.retrieve(charge)).toMatchObject({
      amount_refunded: 0,
      refunded: false,
    });
    expect(types()).toEqual(expect.arrayContaining(["refund.updated", "refund.failed"]));
    await expect(simulator.failRefund(id)).rejects.toThrow("already failed");
  });

  test("of some cards take a day", async () => {
    const { charge } = await paidCharge("7726");
    const { stripe, simulator } = harness;
    const { id, status } = await stripe.refunds.create({ charge });
    expect(status).toBe("pending");
    await simulator.clock.advanceBy(day - 1);
    expect((await stripe.refunds.retrieve(id)).status).toBe("pending");
    await simulator.clock.advanceBy(1);
    expect((await stripe.refunds.retrieve(id)).status).toBe("succeeded");
  });
});

describe("disputes", () => {
  test("take the money, are answered, and give it back when won", async () => {
    const { charge } = await paidCharge("0259");
    const { stripe, simulator } = harness;
    const [dispute] = (await stripe.disputes.list({ charge })).data;
    expect(dispute).toMatchObject({
      status: "needs_response",
      amount: 1_000,
      reason: "fraudulent",
      evidence_details: { due_by: start + 14 * day, has_evidence: false },
    });
    expect(await stripe.charges.retrieve(charge)).toMatchObject({ disputed: true });
    const answered = await stripe.disputes.update(dispute!.id, {
      evidence: { customer_name: "Ada" },
    });
    expect(answered).toMatchObject({
      status: "under_review",
      evidence: { customer_name: "Ada" },
      evidence_details: { submission_count: 1 },
    });
    expect(await simulator.closeDispute(dispute!.id, "won")).toMatchObject({ status: "won" });
    expect(types().filter((type) => type.startsWith("charge.dispute."))).toEqual([
      "charge.dispute.created",
      "charge.dispute.funds_withdrawn",
      "charge.dispute.updated",
      "charge.dispute.updated",
      "charge.dispute.updated",
      "charge.dispute.funds_reinstated",
      "charge.dispute.closed",
    ]);
    const won = await stripe.disputes.retrieve(dispute!.id);
    expect(won.balance_transactions.map(({ net }) => net)).toEqual([-2_500, 1_000]);
  });

  test("are lost when accepted, when nobody answers in time, and by Stripe's losing sentence", async () => {
    const { charge } = await paidCharge();
    const { stripe, simulator } = harness;
    const { id } = await simulator.disputeCharge(charge);
    expect(await stripe.disputes.close(id)).toMatchObject({ status: "lost" });
    await expect(simulator.closeDispute(id, "won")).rejects.toThrow("already lost");

    await simulator.clock.advanceTo(end + 3_600);
    const [renewal] = (await stripe.charges.list()).data;
    const late = await simulator.disputeCharge(renewal!.id, { reason: "product_not_received" });
    await simulator.clock.advanceBy(14 * day - 1);
    expect((await stripe.disputes.retrieve(late.id)).status).toBe("needs_response");
    await simulator.clock.advanceBy(1);
    expect(await stripe.disputes.retrieve(late.id)).toMatchObject({
      status: "lost",
      evidence_details: { past_due: true },
    });

    await simulator.clock.advanceTo(second("2026-06-01T01:00:00Z"));
    const [next] = (await stripe.charges.list()).data;
    const last = await simulator.disputeCharge(next!.id);
    expect(
      await stripe.disputes.update(last.id, {
        evidence: { uncategorized_text: "losing_evidence" },
      }),
    ).toMatchObject({ status: "lost" });
  });

  test("may be mere inquiries, which move no money", async () => {
    const { charge } = await paidCharge("1976");
    const { stripe, simulator } = harness;
    const [inquiry] = (await stripe.disputes.list({ charge })).data;
    expect(inquiry).toMatchObject({
      status: "warning_needs_response",
      balance_transactions: [],
      is_charge_refundable: true,
    });
    await expect(simulator.closeDispute(inquiry!.id, "lost")).rejects.toThrow("warning_closed");
    await simulator.clock.advanceBy(14 * day);
    expect((await stripe.disputes.retrieve(inquiry!.id)).status).toBe("warning_closed");
    expect(types()).not.toContain("charge.dispute.funds_withdrawn");
  });

  test("may be announced by an early fraud warning", async () => {
    const { charge } = await paidCharge("5423");
    const { data } = await harness.stripe.radar.earlyFraudWarnings.list({ charge });
    expect(data).toMatchObject([{ actionable: true, fraud_type: "made_with_stolen_card" }]);
    await harness.simulator.delivery.idle();
    expect(types()).toContain("radar.early_fraud_warning.created");
  });
});

describe("credit notes", () => {
  test("lower what an open invoice asks for, and settle it when nothing is left", async () => {
    harness = await useSimulator({ startAt: start });
    const { id } = await harness.subscribe({ amount: 1_000 });
    const { stripe, simulator } = harness;
    simulator.failNextPayments(1);
    await simulator.clock.advanceTo(end + 3_600);
    const invoice = String((await stripe.subscriptions.retrieve(id)).latest_invoice);
    const note = await stripe.creditNotes.create({ invoice, amount: 300 });
    expect(note).toMatchObject({ type: "pre_payment", pre_payment_amount: 300, status: "issued" });
    expect(await stripe.invoices.retrieve(invoice)).toMatchObject({
      amount_due: 700,
      amount_remaining: 700,
      pre_payment_credit_notes_amount: 300,
    });
    await stripe.creditNotes.voidCreditNote(note.id);
    expect(await stripe.invoices.retrieve(invoice)).toMatchObject({ amount_due: 1_000 });
    await expect(stripe.creditNotes.create({ invoice, amount: 1_001 })).rejects.toMatchObject({
      param: "amount",
    });
    await stripe.creditNotes.create({ invoice, amount: 1_000 });
    expect(await stripe.invoices.retrieve(invoice)).toMatchObject({
      status: "paid",
      amount_due: 0,
    });
    expect((await stripe.subscriptions.retrieve(id)).status).toBe("active");
  });

  test("on a paid invoice become balance, a refund, or neither, as asked", async () => {
    const { invoice, customer, charge } = await paidCharge();
    const { stripe } = harness;
    const lines = (await stripe.invoices.listLineItems(invoice)).data;
    const note = await stripe.creditNotes.create({
      invoice,
      lines: [{ type: "invoice_line_item", invoice_line_item: lines[0]!.id, amount: 600 }],
      credit_amount: 100,
      refund_amount: 400,
      out_of_band_amount: 100,
      reason: "order_change",
    });
    expect(note).toMatchObject({
      type: "post_payment",
      post_payment_amount: 600,
      out_of_band_amount: 100,
      refunds: [{ amount_refunded: 400 }],
    });
    expect(await stripe.customers.retrieve(customer)).toMatchObject({ balance: -100 });
    expect(await stripe.charges.retrieve(charge)).toMatchObject({ amount_refunded: 400 });
    expect(await stripe.invoices.retrieve(invoice)).toMatchObject({
      status: "paid",
      post_payment_credit_notes_amount: 600,
    });
    await expect(
      stripe.creditNotes.create({ invoice, amount: 100, refund_amount: 50 }),
    ).rejects.toMatchObject({ statusCode: 400 });
    const listed: Stripe.CreditNote[] = (await stripe.creditNotes.list({ invoice })).data;
    expect(listed.map(({ id }) => id)).toEqual([note.id]);
  });
});

test("the control route plays the bank", async () => {
  const { charge } = await paidCharge();
  const { stripe, simulator } = harness;
  const control = async (path: string) =>
    (await fetch(`${simulator.url}/_control/${path}`, { method: "POST" })).json() as Promise<{
      id: string;
      status: string;
    }>;
  await control(`charges/${charge}/warn`);
  const dispute = await control(`charges/${charge}/dispute?reason=duplicate`);
  expect(await control(`disputes/${dispute.id}/close?outcome=lost`)).toMatchObject({
    status: "lost",
  });
  const refunded = await stripe.refunds.create({ charge, amount: 10 });
  expect(await control(`refunds/${refunded.id}/fail`)).toMatchObject({ status: "failed" });
  expect(await control("rules?afterLastRetry=unpaid&retryAfter=60,120")).toMatchObject({
    afterLastRetry: "unpaid",
    retryAfter: [60, 120],
  });
});
