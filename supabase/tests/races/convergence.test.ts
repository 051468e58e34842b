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
  const asked = new Set(
    rows
      .filter(({ of, row }) => of === "newest snapshots" && row["is_ambiguous"] === true)
      .map(({ key }) => key),
  );
  return rows.flatMap(({ of, key, row }) => {
    const truth = ends.get(key);
    if (truth === undefined || asked.has(key)) return [];
    return Object.entries(statements(of, truth))
      .filter(([column, value]) => JSON.stringify(row[column]) !== JSON.stringify(value))
      .map(([column, value]) => `${key}: ${column} is not ${JSON.stringify(value)}`);
  });
}

/** What the row of an object has to say, from its last state. */
function statements(table: string, truth: StripeObject): Record<string, unknown> {
  switch (table) {
    case "customers":
      return { email: truth["email"], is_delinquent: truth["delinquent"] };
    case "subscriptions":
      return {
        status: truth["status"],
        cancel_at_period_end: truth["cancel_at_period_end"],
        stripe_latest_invoice_id: truth["latest_invoice"],
        metadata: truth["metadata"],
      };
    case "invoices":
      return {
        status: truth["status"],
        amount_paid_minor: truth["amount_paid"],
        attempt_count: truth["attempt_count"],
      };
    case "refunds":
      return { status: truth["status"] };
    default:
      return {};
  }
}
