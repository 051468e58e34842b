// A discount code at checkout, over HTTP: known by its event, or else looked up at Stripe.
import { FunctionsHttpError } from "@supabase/supabase-js";
import Stripe from "stripe";
import { afterAll, beforeAll, expect, it } from "vitest";
import { withClient } from "../../../scripts/stack/database.ts";
import type { Client } from "../../../scripts/story/reader.ts";
import { startTestStack, type TestStack } from "./stack.ts";

let stack: TestStack;
let stripe: Stripe;

beforeAll(async () => {
  stack = await startTestStack();
  const { hostname, port } = new URL(stack.simulator.url);
  stripe = new Stripe(stack.simulator.apiKey, { host: hostname, port, protocol: "http" });
});
afterAll(() => stack?.stop());

/** A code made in Stripe's dashboard, of which no event comes through. */
async function makeUnheard(code: string, more: Partial<Stripe.PromotionCodeCreateParams> = {}) {
  stack.simulator.delivery.configure({ dropTypes: ["coupon.created", "promotion_code.created"] });
  const { id: coupon } = await stripe.coupons.create({ percent_off: 50, duration: "once" });
  const made = await stripe.promotionCodes.create({
    promotion: { type: "coupon", coupon },
    code,
    ...more,
  });
  await stack.simulator.delivery.idle();
  stack.simulator.delivery.configure({ dropTypes: [] });
  return made;
}

async function checkOut(client: Client, discountCode?: string): Promise<string> {
  const { data, error } = await client.functions.invoke<{ data: { url: string } }>("checkout", {
    body: {
      price_key: "privileged_monthly",
      success_url: "https://app.example/welcome",
      cancel_url: "https://app.example/plans",
      ...(discountCode === undefined ? {} : { discount_code: discountCode }),
    },
  });
  if (error instanceof FunctionsHttpError) {
    throw new Error(await (error.context as Response).text());
  }
  return new URL(data?.data.url ?? "").pathname.split("/").at(-1) ?? "";
}

async function questions(): Promise<number> {
  const { rows } = await withClient(stack.database.url, (db) =>
    db.query<{ count: number }>(
      "select count(*)::integer from billing_private.commands where kind = 'find_promotion_code'",
    ),
  );
  return rows[0]?.count ?? NaN;
}

it("a code whose event was lost is found, taken off, and known from then on", async () => {
  const made = await makeUnheard("UNHEARD");
  const { client } = await stack.user("saver");
  const session = await checkOut(client, "unheard");
  const { discounts, amount_total } = await stripe.checkout.sessions.retrieve(session);
  expect(discounts).toMatchObject([{ promotion_code: made.id }]);
  expect(amount_total).toBe(450);
  expect(await questions()).toBe(1);

  await stack.simulator.pay(session);
  const { data } = await client.from("payments").select("amount_received_minor").single();
  expect(data).toEqual({ amount_received_minor: 450 });

  const { client: another } = await stack.user("follower");
  await checkOut(another, "UNHEARD");
  expect(await questions()).toBe(1);
});

it("a code of our own is a coupon at Stripe, and used up by who pays first", async () => {
  await withClient(stack.database.url, (db) =>
    db.query(
      `select billing_admin.create_discount_code('OurOwn', 'a test', percent_off => 50,
        periods => 3, max_redemptions => 1)`,
    ),
  );
  const { client } = await stack.user("thrifty");
  const session = await checkOut(client, "ourown");
  const { discounts, amount_total } = await stripe.checkout.sessions.retrieve(session);
  expect(amount_total).toBe(450);
  expect(await stripe.coupons.retrieve(String(discounts?.[0]?.coupon))).toMatchObject({
    percent_off: 50,
    duration: "repeating",
    duration_in_months: 3,
  });

  const { client: late } = await stack.user("late");
  await expect(checkOut(late, "OUROWN")).rejects.toThrow("DISCOUNT_NOT_VALID");
  await stack.simulator.pay(session);
  const { data } = await client.from("discount_redemptions").select("status").single();
  expect(data).toEqual({ status: "confirmed" });
});

it("a code of our own comes off a subscription that runs, once Stripe has taken it", async () => {
  const { client, id } = await stack.user("stayer");
  await stack.simulator.pay(await checkOut(client));
  const apply = () =>
    withClient(stack.database.url, (db) =>
      db.query<{ status: string }>(
        `select applied.status
        from billing.subscriptions
        cross join lateral billing_admin.apply_discount_code(
          subscriptions.id, 'stay', 'to keep them') as applied
        where subscriptions.account_id = $1`,
        [id],
      ),
    );
  await withClient(stack.database.url, (db) =>
    db.query(
      "select billing_admin.create_discount_code('Stay', 'a test', percent_off => 25, periods => 2)",
    ),
  );
  expect((await apply()).rows).toEqual([{ status: "reserved" }]);
  await stack.doorbell.now();
  await stack.simulator.delivery.idle();

  const { data } = await client.from("discount_redemptions").select("status").single();
  expect(data).toEqual({ status: "confirmed" });
  const { data: subscription } = await client
    .from("subscriptions")
    .select("stripe_subscription_id")
    .single();
  const { discounts } = await stripe.subscriptions.retrieve(
    String(subscription?.stripe_subscription_id),
    { expand: ["discounts.source.coupon"] },
  );
  expect(discounts).toMatchObject([
    { source: { coupon: { percent_off: 25, duration_in_months: 2 } } },
  ]);
  await expect(apply()).rejects.toThrow("the discount code is not valid");
});

it("B8: six tabs with the same unheard code open one page", async () => {
  await makeUnheard("SIXFOLD");
  const { client } = await stack.user("hasty-saver");
  const pages = await Promise.all(Array.from({ length: 6 }, () => checkOut(client, "SIXFOLD")));
  expect(new Set(pages).size).toBe(1);
  const { data } = await stripe.checkout.sessions.list({ limit: 100 });
  expect(data.filter(({ id }) => pages.includes(id))).toHaveLength(1);
  const { rows } = await withClient(stack.database.url, (db) =>
    db.query("select is_active from billing_private.promotion_codes where code = 'SIXFOLD'"),
  );
  expect(rows).toEqual([{ is_active: true }]);
});

it("a code that Stripe does not have is refused, and so is one given to somebody else", async () => {
  const { client } = await stack.user("hopeful");
  await expect(checkOut(client, "NO-SUCH-CODE")).rejects.toThrow("DISCOUNT_NOT_VALID");

  const { id: customer } = await stripe.customers.create({ email: "else@example.com" });
  await makeUnheard("PERSONAL", { customer });
  await expect(checkOut(client, "PERSONAL")).rejects.toThrow("DISCOUNT_NOT_VALID");
  const { data } = await client.from("checkout_sessions").select("id");
  expect(data).toEqual([]);
});

it("while Stripe cannot be asked, the user is told so, and nothing is claimed", async () => {
  await makeUnheard("PATIENCE");
  const { client } = await stack.user("patient");
  stack.simulator.api.fail({ path: "/v1/promotion_codes", when: "before", status: 400 });
  await expect(checkOut(client, "PATIENCE")).rejects.toThrow("STRIPE_REQUEST_FAILED");
  const { data } = await client.from("checkout_sessions").select("id");
  expect(data).toEqual([]);
  expect(await checkOut(client, "PATIENCE")).toMatch(/^cs_/);
});
