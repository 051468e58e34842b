// A13: whatever the order in which the events of a life arrive, however often each, over however many
// connections at once: the same rows are stored as when each had come once and in order.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { createRandom } from "../support/random.ts";
import { tellHistory, withoutCopy, type History } from "../support/stripe-history.ts";
import type { StripeObject } from "../support/stripe-objects.ts";
import { readStoredRows, type StoredRow } from "../support/stripe-rows.ts";

const livesPerGroup = 20;
const groups = 10;
const connections = 6;
/** Another one tells other lives: PG_SUBSCRIPTIONS_SEED=7000 npx vitest run … */
const firstSeed = Number(process.env["PG_SUBSCRIPTIONS_SEED"] ?? 1);
const catalog = ["price_basic", "price_plus", "price_extra"] as const;

let database: TestDatabase;
let owner: Client;
let deliverers: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  deliverers = await Promise.all(
    Array.from({ length: connections }, () => database.connect("service_role")),
  );
  // In the middle of the lives: some have access, some had it.
  await owner.query(`
    create or replace function billing_private.now() returns timestamptz
    language sql stable set search_path = '' as $$ select '2026-03-15 12:00Z'::timestamptz $$`);
  await owner.query(`
    insert into billing.features (key, name) values ('reading', 'Reading'), ('writing', 'Writing')`);
  await owner.query(`
    insert into billing.plans (key, name, kind, tier, tier_rank, stripe_product_id)
    values
      ('basic', 'Basic', 'base', 'basic', 10, 'prod_of_price_basic'),
      ('plus', 'Plus', 'base', 'plus', 20, 'prod_of_price_plus'),
      ('extra', 'Extra', 'add_on', null, 0, 'prod_of_price_extra')`);
  await owner.query(`
    insert into billing.prices (plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id)
    select id, 'usd', 1000, 'month', 'price_' || key from billing.plans`);
  await owner.query(`
    insert into billing.plan_features (plan_id, feature_key, limit_value)
    select id, 'reading', tier_rank from billing.plans
    union all
    select id, 'writing', null from billing.plans where key = 'extra'`);
});

afterAll(() => database?.drop());

describe.each(Array.from({ length: groups }, (_, group) => firstSeed + group * livesPerGroup))(
  `lives from seed %i, ${livesPerGroup} at once`,
  (first) => {
    const seeds = Array.from({ length: livesPerGroup }, (_, index) => first + index);

    it("end in the rows of an orderly delivery, in any order and number", async () => {
      const orderly = seeds.map((seed) => tellHistory(seed, "A", catalog));
      const disorderly = seeds.map((seed) => tellHistory(seed, "B", catalog));
      for (const history of [...orderly, ...disorderly]) await prepare(history);

      await deliverInOrder(orderly);
      await deliverInDisorder(disorderly, first);
      expect(await troubles()).toEqual([]);

      const expected = await readStoredRows(owner, "A");
      const actual = await readStoredRows(owner, "B");
      for (const [index, seed] of seeds.entries()) {
        const inOrder = comparable(expected.get(seed), orderly[index]!);
        const inDisorder = comparable(actual.get(seed), disorderly[index]!);
        expect.soft(inDisorder, `seed ${seed}`).toEqual(inOrder);
        const lies = contradictions(orderly[index]!, expected.get(seed) ?? []);
        expect.soft(lies, `the truth of seed ${seed}`).toEqual([]);
      }
    }, 60_000);
  },
);

/** What is there before Stripe says anything: the account, plans that wait for their product, the checkout. */
async function prepare({ account, planKeys, checkout }: History): Promise<void> {
  await owner.query("insert into billing.accounts (id, name) values ($1, $2)", [
    account.id,
    account.name,
  ]);
  await owner.query(
    `with made as (
      insert into billing.plans (key, name, kind, tier, tier_rank)
      select key, key, case place when 3 then 'add_on' else 'base' end, 'tier ' || place, 10 * place
      from unnest($1::text[]) with ordinality as named (key, place)
      returning id, tier_rank
    )
    insert into billing.plan_features (plan_id, feature_key, limit_value)
    select id, 'reading', tier_rank from made`,
    [planKeys],
  );
  if (checkout === null) return;
  await owner.query(
    `insert into billing.checkout_sessions (id, account_id, price_id, success_url, cancel_url, status)
    select $1, $2, id, 'https://example.com', 'https://example.com', 'creating'
    from billing.prices where stripe_price_id = 'price_basic'`,
    [checkout.id, account.id],
  );
}

async function deliverInOrder(histories: History[]): Promise<void> {
  await deliverers[0]!.query(
    `select billing.ingest_stripe_event(body)
    from (
      select body from unnest($1::text[]) with ordinality as told (body, place) order by place
    ) as told`,
    [histories.flatMap(({ bodies }) => bodies)],
  );
}

/** All lives mixed; every fifth event twice. */
async function deliverInDisorder(histories: History[], seed: number): Promise<void> {
  const random = createRandom(seed);
  const bodies = histories.flatMap((history) => history.bodies);
  const waiting = random.shuffled([...bodies, ...bodies.filter(() => random.chance(0.2))]);
  await Promise.all(
    deliverers.map(async (deliverer) => {
      for (let body = waiting.pop(); body !== undefined; body = waiting.pop()) {
        await deliverer.query("select billing.ingest_stripe_event($1)", [body]);
      }
    }),
  );
}

async function troubles(): Promise<unknown[]> {
  const { rows } = await owner.query(
    `select event_id, type, last_error ->> 'message' as message, last_error ->> 'context' as context
    from billing_private.stripe_events
    where status not in ('applied', 'ignored')`,
  );
  return rows;
}

function comparable(rows: StoredRow[] | undefined, history: History): unknown {
  return JSON.parse(withoutCopy(JSON.stringify(rows ?? []), history));
}

/** Where the rows say something else than how the life ended, except where they ask to look again. */
function contradictions({ ends }: History, rows: StoredRow[]): string[] {
  const isSettled = new Map(
    rows
      .filter(({ of }) => of === "newest snapshots")
      .map(({ key, row }) => [key, row["is_ambiguous"] === false]),
  );
  return [...ends.values()]
    .filter(({ id }) => isSettled.get(id) === true)
    .flatMap((truth) => {
      const said = sayingOf(truth, rows);
      const isSo = JSON.stringify(said) === JSON.stringify(truthOf(truth));
      return isSo ? [] : [`${truth.id}: ${JSON.stringify(said)}`];
    });
}

/** What the last state of an object is, in the words of the rows. */
function truthOf(truth: StripeObject): unknown[] {
  switch (truth.object) {
    case "customer":
      return [truth["email"], truth["delinquent"], truth["deleted"] === true];
    case "subscription":
      return [
        truth["status"],
        truth["cancel_at_period_end"],
        truth["metadata"],
        truth["latest_invoice"],
        itemsOf(truth).map(({ id, quantity, price }) => [id, quantity, price.id]),
      ];
    case "invoice":
      return [truth["status"], truth["amount_paid"], truth["attempt_count"]];
    case "payment_intent":
      return [truth["status"], truth["amount_received"]];
    case "charge":
      return truth["status"] === "succeeded" ? [truth["amount_refunded"]] : [];
    case "refund":
      return [truth["status"]];
    default:
      return [];
  }
}

/** What the rows say of it. */
function sayingOf(truth: StripeObject, rows: StoredRow[]): unknown[] {
  const of = (table: string, column: string, value: unknown = truth.id) =>
    rows.filter((stored) => stored.of === table && stored.row[column] === value);
  const said = (stored: StoredRow | undefined, ...columns: string[]) =>
    columns.map((column) => stored?.row[column]);
  switch (truth.object) {
    case "customer": {
      const row = of("customers", "stripe_customer_id")[0];
      return [...said(row, "email", "is_delinquent"), row?.row["deleted_at"] !== null];
    }
    case "subscription":
      return [
        ...said(
          of("subscriptions", "stripe_subscription_id")[0],
          "status",
          "cancel_at_period_end",
          "metadata",
          "stripe_latest_invoice_id",
        ),
        of("subscription_items", "subscription").map((item) =>
          said(item, "stripe_subscription_item_id", "quantity", "stripe_price_id"),
        ),
      ];
    case "invoice":
      return said(
        of("invoices", "stripe_invoice_id")[0],
        "status",
        "amount_paid_minor",
        "attempt_count",
      );
    case "payment_intent":
      return said(of("payments", "stripe_payment_key")[0], "status", "amount_received_minor");
    case "charge":
      return truth["status"] === "succeeded"
        ? said(of("payments", "stripe_charge_id")[0], "amount_refunded_minor")
        : [];
    case "refund":
      return said(of("refunds", "stripe_refund_id")[0], "status");
    default:
      return [];
  }
}

function itemsOf(agreement: StripeObject) {
  const { data } = agreement["items"] as unknown as {
    data: { id: string; quantity: number; price: { id: string } }[];
  };
  return data.toSorted((one, other) => (one.id < other.id ? -1 : 1));
}
