// G4: however many accounts a person opens a checkout with at once, one of them begins with a trial. G17: however
// many wishes come at once, Stripe is asked for the last one.
import type { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { addCatalog, addReader, idOf } from "../support/readers.ts";

let database: TestDatabase;
let owner: Client;
let tabs: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  tabs = await Promise.all(Array.from({ length: 8 }, () => database.connect("authenticated")));
  await addCatalog(owner);
  await owner.query("update billing.prices set trial_days = 14");
});

afterAll(() => database?.drop());

describe("one person with many accounts", () => {
  it.each([1, 2, 3, 4])("gets one trial from eight checkouts at once (round %i)", async (round) => {
    const email = `reader${round}@gmail.com`;
    const offered = await Promise.all(
      tabs.map(async (tab, place) => {
        await signIn(tab, `round ${round} account ${place}`, spelled(email, place));
        const { rows } = await tab.query<{ trial_days: number }>(
          `select trial_days from billing.prepare_checkout(
            'plus_monthly', 'https://example.com/done', 'https://example.com/back')`,
        );
        return rows[0]?.trial_days;
      }),
    );
    expect(offered.filter((days) => days === 14)).toHaveLength(1);
    expect(offered.filter((days) => days === 0)).toHaveLength(7);
  });

  it("keeps strangers at the same moment out of it", async () => {
    const offered = await Promise.all(
      tabs.map(async (tab, place) => {
        await signIn(tab, `stranger ${place}`, `stranger${place}@gmail.com`);
        const { rows } = await tab.query<{ trial_days: number }>(
          `select trial_days from billing.prepare_checkout(
            'plus_monthly', 'https://example.com/done', 'https://example.com/back')`,
        );
        return rows[0]?.trial_days;
      }),
    );
    expect(offered).toEqual(tabs.map(() => 14));
  });
});

describe("many tabs of one subscriber", () => {
  it("leave one wish for Stripe, whichever came last", async () => {
    const name = "undecided";
    await addReader(owner, name);
    await owner.query(
      `insert into billing.subscriptions (
        account_id, provider, status, price_id, quantity, currency, current_period_start,
        current_period_end, stripe_subscription_id, stripe_customer_id)
      values ($1, 'stripe', 'active', md5('price plus')::uuid, 1, 'usd', now(),
        now() + interval '1 month', 'sub_undecided', 'cus_undecided')`,
      [idOf(name)],
    );
    await owner.query(
      `insert into billing.subscription_items (
        subscription_id, price_id, quantity, stripe_subscription_item_id, stripe_price_id)
      select id, price_id, quantity, 'si_undecided', 'price_plus'
      from billing.subscriptions
      where stripe_subscription_id = 'sub_undecided'`,
    );
    await Promise.all(
      tabs.map(async (tab, place) => {
        await signIn(tab, name, "undecided@example.com");
        await tab.query("select billing.change_plan(null, quantity => $1)", [place + 2]);
      }),
    );

    const { rows } = await owner.query<{ quantity: string; wished: string }>(
      `select params #>> '{items,0,quantity}' as quantity, wish ->> 'quantity' as wished
      from billing_private.commands
      where account_id = $1 and status = 'pending'`,
      [idOf(name)],
    );
    expect(rows).toHaveLength(1);
    expect(rows[0]?.quantity).toBe(rows[0]?.wished);
  });
});

async function signIn(tab: Client, name: string, email: string): Promise<void> {
  await tab.query("select set_config('request.jwt.claims', $1, false)", [
    JSON.stringify({ sub: idOf(name), role: "authenticated", email }),
  ]);
}

/** The same mailbox, as often as there are ways to write it. */
function spelled(email: string, place: number): string {
  const [local = "", domain = ""] = email.split("@");
  return `${local.slice(0, place)}.${local.slice(place)}+${place}@${domain}`.replace(/^\./, "");
}
