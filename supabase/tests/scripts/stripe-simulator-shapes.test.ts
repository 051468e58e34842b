// The Stripe simulator's objects beside Stripe's own samples: every field that is there, is here.
//
// The samples are `fixtures3.json` of Stripe's OpenAPI repository; STRIPE_FIXTURES names the file. Without it the
// comparison is skipped: the objects' types, which the compiler checks, say most of it.
import { readFileSync } from "node:fs";
import { afterEach, expect, test } from "vitest";
import { monthly, second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

let harness: Harness;
afterEach(() => harness.stop());

type Shape = { [key: string]: unknown };

const samplesFile = process.env["STRIPE_FIXTURES"];

/** Fields of the samples that a real object has not, and why. */
const absent: Record<string, string> = {
  "charge.refunds": "only when expanded, since 2022-11-15",
  "credit_note_line_item.invoice_line_item": "only on lines that credit an invoice's line",
  "invoice.subscription": "a left-over in the samples: it moved to `parent` in 2025-03-31.basil",
};

function samples(): Record<string, Shape> {
  const parsed: unknown = JSON.parse(readFileSync(samplesFile ?? "", "utf8"));
  return (parsed as { resources: Record<string, Shape> }).resources;
}

/** One object of every kind, from a life in which everything happens. */
async function everything(): Promise<Map<string, Shape>> {
  harness = await useSimulator({ startAt: second("2026-04-01T00:00:00Z") });
  const { stripe, simulator } = harness;
  const { id, item, customer } = await harness.subscribe();
  const { price } = await monthly(stripe, 500);
  await simulator.clock.advanceBy(86_400);
  await stripe.subscriptions.update(id, { items: [{ id: item, price: price.id }] });
  await stripe.subscriptionSchedules.create({ from_subscription: id });
  const [charge] = (await stripe.charges.list({ customer })).data;
  const [invoice] = (await stripe.invoices.list({ customer })).data;
  await stripe.refunds.create({ charge: charge!.id, amount: 100 });
  await simulator.disputeCharge(charge!.id);
  await simulator.warnOfFraud(charge!.id);
  await stripe.creditNotes.create({ invoice: invoice!.id, amount: 50 });
  await stripe.setupIntents.create({ customer, payment_method: "pm_card_visa", confirm: true });
  const coupon = await stripe.coupons.create({ percent_off: 10, duration: "forever" });
  await stripe.promotionCodes.create({ promotion: { type: "coupon", coupon: coupon.id } });
  const other = await harness.subscribe();
  await stripe.subscriptions.update(other.id, { discounts: [{ coupon: coupon.id }] });

  await stripe.customers.createTaxId(customer, { type: "eu_vat", value: "DE123456789" });
  await stripe.testHelpers.testClocks.create({ frozen_time: simulator.clock.now() });
  const meter = await stripe.billing.meters.create({
    display_name: "Calls",
    event_name: "calls",
    default_aggregation: { formula: "sum" },
  });
  const used = await stripe.billing.meterEvents.create({
    event_name: "calls",
    payload: { stripe_customer_id: customer, value: "1" },
    identifier: "row-1",
  });
  const feature = await stripe.entitlements.features.create({ lookup_key: "x", name: "X" });
  const attached = await stripe.products.createFeature(String(price.product), {
    entitlement_feature: feature.id,
  });

  const found = new Map<string, Shape>();
  const keep = (object: unknown) => {
    if (typeof object !== "object" || object === null) return;
    const shape = object as Shape;
    if (typeof shape["object"] === "string" && shape["deleted"] !== true) {
      if (!found.has(shape["object"])) found.set(shape["object"], shape);
    }
    for (const child of Object.values(shape)) keep(child);
  };
  for (const event of simulator.events()) keep(event.data.object);
  keep(await stripe.billingPortal.sessions.create({ customer }));
  keep([used, feature, attached]);
  keep(
    await stripe.billing.meterEventAdjustments.create({
      event_name: "calls",
      type: "cancel",
      cancel: { identifier: "row-1" },
    }),
  );
  keep(
    await stripe.billing.meters.listEventSummaries(meter.id, {
      customer,
      start_time: second("2026-04-01T00:00:00Z"),
      end_time: second("2026-04-02T00:00:00Z"),
    }),
  );
  keep(await stripe.entitlements.activeEntitlements.list({ customer }));
  keep(await stripe.invoicePayments.list());
  keep(await stripe.invoiceItems.list());
  found.delete("list");
  return found;
}

/** Paths that the sample has and our object has not, below values that both have. */
function missing(path: string, ours: Shape, sample: Shape): string[] {
  return Object.entries(sample).flatMap(([key, yours]) => {
    const mine = ours[key];
    if (!(key in ours)) return [`${path}.${key}`];
    if (key === "metadata" || !isShape(mine) || !isShape(yours)) return [];
    return mine["object"] === yours["object"] ? missing(`${path}.${key}`, mine, yours) : [];
  });
}

function isShape(value: unknown): value is Shape {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

test.skipIf(samplesFile === undefined)(
  "every object has the fields of Stripe's sample",
  async () => {
    const theirs = samples();
    const ours = await everything();
    expect([...ours.keys()].filter((object) => !(object in theirs))).toEqual([]);
    const gaps = [...ours].flatMap(([object, shape]) =>
      missing(object, shape, theirs[object] ?? {}),
    );
    expect(gaps.filter((path) => !(path in absent))).toEqual([]);
  },
);
