// npm run backfill: an account that lived at Stripe before the database did is read in, whatever happens on the way.
import type { Client } from "pg";
import type Stripe from "stripe";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  backfill,
  type BackfillDeps,
  type BackfillState,
} from "../../../scripts/backfill/index.ts";
import { run } from "../../../scripts/lib/processes.ts";
import { createStripeCaller } from "../../functions/checkout/stripe.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { driftOf, idOf, setClock } from "../support/readers.ts";
import { second, useSimulator, type Harness } from "./stripe-simulator-harness.ts";

const today = "2026-01-20T08:00:00Z";

let harness: Harness;
let canceled: { id: string; customer: string };
let renewing: { id: string; customer: string };
let archived: Stripe.Price;
let account: string;

// A life at Stripe of which nothing was delivered: two subscribers, one of whom left, and many who only look.
beforeAll(async () => {
  harness = await useSimulator({ startAt: second("2025-11-01T08:00:00Z") });
  const { stripe, simulator } = harness;
  renewing = await harness.subscribe();
  canceled = await harness.subscribe();
  await stripe.subscriptions.cancel(canceled.id);
  account = idOf("ann");
  await stripe.customers.update(renewing.customer, { metadata: { account_id: account } });
  // Long before the events that Stripe still lists.
  const { items } = await stripe.subscriptions.retrieve(renewing.id);
  for (let number = 0; number < 103; number += 1) {
    const name = `feature_${number}`;
    const feature = await stripe.entitlements.features.create({ name, lookup_key: name });
    await stripe.products.createFeature(String(items.data[0]?.price.product), {
      entitlement_feature: feature.id,
    });
  }
  const product = await stripe.products.create({ name: "Old" });
  archived = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: 900,
    recurring: { interval: "month" },
  });
  await stripe.prices.update(archived.id, { active: false });
  for (let number = 0; number < 230; number += 1) {
    await stripe.customers.create({ email: `reader${number}@example.com` });
  }
  await simulator.clock.advanceTo(second(today));
});

afterAll(() => harness?.stop());

let database: TestDatabase;
let owner: Client;

beforeEach(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  await owner.query("insert into billing.accounts (id) values ($1)", [account]);
  await setClock(owner, today);
});

afterEach(async () => {
  expect(await driftOf(owner)).toEqual([]);
  await database?.drop();
});

describe("a back-fill", () => {
  it("H2, H4: reads all there is, what is canceled and archived too", async () => {
    const state = await fill();

    expect(state).toMatchObject({ failures: [], current: null });
    expect(state.finished).toBe(state.total);
    expect(await rows("count(*)::integer as n from billing.customers")).toEqual([{ n: 232 }]);
    expect(
      await rows(
        "stripe_subscription_id as id, status, account_id from billing.subscriptions order by status",
      ),
    ).toEqual([
      { id: renewing.id, status: "active", account_id: account },
      { id: canceled.id, status: "canceled", account_id: null },
    ]);
    // Renewed twice since November: three bills, each paid.
    expect(
      await rows(`status, count(*)::integer as n from billing.invoices
        where stripe_subscription_id = '${renewing.id}' group by status`),
    ).toEqual([{ status: "paid", n: 3 }]);
    expect(
      await rows(`is_active from billing.prices where stripe_price_id = '${archived.id}'`),
    ).toEqual([{ is_active: false }]);
    expect(await failures()).toEqual([]);
    // P2: the inbox holds all that is needed to store it once more.
    expect(await rows("* from billing_private.rebuild(null, false)")).toEqual([]);
  });

  it("D13, H2: reads the entitlements of whom no summary was ever told, page by page", async () => {
    await fill();
    expect(
      await rows(`stripe_customer_id as customer, account_id, count(*)::integer as n
        from billing.stripe_entitlements group by 1, 2`),
    ).toEqual([{ customer: renewing.customer, account_id: account, n: 103 }]);
    const asked = `count(*)::integer as n from billing_private.commands
      where kind in ('find_features', 'read_entitlements', 'list_entitlements')`;
    // One product that somebody has, one customer, and the pages of a list of more than a hundred.
    expect(await rows(asked)).toEqual([{ n: 4 }]);
  });

  it("H5: finds no drift: what was there before the database was never told", async () => {
    await fill();
    expect(await rows("* from billing_private.drifts")).toEqual([]);
  });

  it("B15: run again, changes nothing", async () => {
    await fill();
    const before = await mirrored();
    const again = await fill();
    expect(again.changed).toBe(0);
    expect(again.members).toBeGreaterThan(232);
    expect(await mirrored()).toEqual(before);
  });

  it("goes on after the page where it was stopped", async () => {
    const whole = await mirroredAfter(() => fill());
    let pages = 0;
    const first = await fill({ isStopped: () => (pages += 1) > 4 });
    expect(first.finished).toBeLessThan(first.total);

    const second = await fill();
    expect(second.finished).toBe(second.total);
    expect(await mirrored()).toEqual(whole);
    expect(
      await rows("count(*)::integer as n from billing_private.sweeps where list_key = 'customers'"),
    ).toEqual([{ n: 1 }]);
  });

  it("H6: waits where Stripe limits it, and resumes at its cursor", async () => {
    harness.simulator.api.fail({
      when: "before",
      path: "/v1/customers",
      status: 429,
      type: "rate_limit_error",
      times: 2,
    });
    let minutes = 0;
    const state = await fill({
      wait: () => {
        minutes += 1;
        return setClock(owner, `2026-01-20T08:${String(minutes).padStart(2, "0")}:00Z`);
      },
    });
    expect(minutes).toBeGreaterThan(0);
    expect(state.failures).toEqual([]);
    expect(await rows("count(*)::integer as n from billing.customers")).toEqual([{ n: 232 }]);
    expect(
      await rows(
        `pages, members::integer from billing_private.sweeps where list_key = 'customers'`,
      ),
    ).toEqual([{ pages: 3, members: 232 }]);
  });

  it("names the list that Stripe refuses, and reads the others", async () => {
    harness.simulator.api.fail({
      when: "before",
      path: "/v1/invoices",
      status: 400,
      type: "invalid_request_error",
      message: "not with this key",
    });
    const state = await fill();
    expect(state.failures).toEqual([{ list: "invoices", message: "not with this key" }]);
    expect(await rows("count(*)::integer as n from billing.customers")).toEqual([{ n: 232 }]);

    const again = await fill();
    expect(again.failures).toEqual([]);
    expect(await rows("count(*)::integer > 0 as some from billing.invoices")).toEqual([
      { some: true },
    ]);
  });
});

describe("a back-fill beside live events", () => {
  it("H3: never overwrites what Stripe told after a page was asked for", async () => {
    const service = await database.connect("service_role");
    const newer = eventOf({ ...(await harness.stripe.subscriptions.retrieve(renewing.id)) });
    let isDelivered = false;
    const callStripe = caller();
    await fill({
      callStripe: async (request, timeoutMs) => {
        const answer = await callStripe(request, timeoutMs);
        // Delivered between the page and its being applied.
        if (request.path === "/v1/subscriptions" && !isDelivered) {
          isDelivered = true;
          await service.query("select billing.ingest_stripe_event($1)", [newer]);
        }
        return answer;
      },
    });
    expect(isDelivered).toBe(true);
    expect(
      await rows(
        `status from billing.subscriptions where stripe_subscription_id = '${renewing.id}'`,
      ),
    ).toEqual([{ status: "past_due" }]);
  });

  function eventOf(subscription: object): string {
    return JSON.stringify({
      id: "evt_newer",
      object: "event",
      type: "customer.subscription.updated",
      created: second(today) + 60,
      livemode: false,
      data: { object: { ...subscription, status: "past_due" } },
    });
  }
});

describe("the command", () => {
  const backfillCommand = (args: string[], env: Record<string, string> = {}) =>
    run(process.execPath, ["--import", "tsx", "scripts/backfill.ts", ...args], {
      env: { ...process.env, NO_COLOR: "1", STRIPE_SECRET_KEY: "", ...env },
    });

  it("says what it needs", async () => {
    const key = { STRIPE_SECRET_KEY: "sk_test_1" };
    expect(await backfillCommand(["--help"])).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("Usage: npm run backfill -- <postgres-url>") as string,
    });
    expect(await backfillCommand([], key)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("The database URL is missing") as string,
    });
    expect(await backfillCommand([database.url])).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("Set STRIPE_SECRET_KEY") as string,
    });
    expect(await backfillCommand([database.url], { STRIPE_SECRET_KEY: "sk_live_1" })).toMatchObject(
      {
        code: 1,
        stderr: expect.stringContaining(
          "is a live key and the database is of the test mode",
        ) as string,
      },
    );
    expect(await backfillCommand(["postgresql://127.0.0.1:1/x"], key)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("The database cannot be reached") as string,
    });
  });

  it("shows how far it is, and what is left to do", async () => {
    const { code, stdout, stderr } = await backfillCommand([database.url], {
      STRIPE_SECRET_KEY: harness.simulator.apiKey,
      STRIPE_API_BASE: harness.simulator.url,
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
    expect(stdout).toContain("Lists");
    expect(stdout).toMatch(/✓ \d+ objects and events read, \d+ of them new or changed\./);
    expect(stdout).toContain("231 customers belong to no account yet");
  });
});

function caller() {
  const { apiKey, url } = harness.simulator;
  return createStripeCaller({ secretKey: apiKey, apiBase: url });
}

function fill(deps: Partial<BackfillDeps> = {}): Promise<BackfillState> {
  return backfill({ database: owner, callStripe: caller(), reason: "test", ...deps });
}

async function rows(query: string): Promise<unknown[]> {
  return (await owner.query(`select ${query}`)).rows;
}

function failures(): Promise<unknown[]> {
  return rows(
    "type, last_error from billing_private.stripe_events where status not in ('applied', 'ignored')",
  );
}

/** What is stored of Stripe, without our own ids and times. */
async function mirrored(): Promise<unknown> {
  const tables = ["customers", "subscriptions", "invoices", "payments", "prices", "plans"];
  const contents = tables.map(
    (
      table,
    ) => `(select jsonb_agg(mirrored - array['id', 'created_at', 'updated_at', 'plan_id', 'price_id']
      order by mirrored::text collate "C") from (
        select to_jsonb(${table}) - array['id', 'created_at', 'updated_at', 'plan_id', 'price_id'] as mirrored
        from billing.${table}) as rows) as ${table}`,
  );
  const [content] = await rows(contents.join(", "));
  return content;
}

/** What a database of its own would hold. */
async function mirroredAfter(work: () => Promise<unknown>): Promise<unknown> {
  const mine = { database, owner };
  database = await createTestDatabase();
  owner = await database.connect();
  await owner.query("insert into billing.accounts (id) values ($1)", [account]);
  await setClock(owner, today);
  await work();
  const content = await mirrored();
  await database.drop();
  ({ database, owner } = mine);
  return content;
}
