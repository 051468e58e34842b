// The catalog on its way to Stripe with many hands at it: each plan and price is asked for once.
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";

let database: TestDatabase;
let owner: Client;
let workers: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  workers = await Promise.all(Array.from({ length: 6 }, () => database.connect("service_role")));
  await owner.query(`
    insert into billing.plans (key, name) values ('basic', 'Basic'), ('plus', 'Plus');
    insert into billing.prices (key, plan_id, currency, unit_amount_minor, billing_interval)
    select plans.key || '_' || billing_interval, plans.id, 'usd', 900, billing_interval
    from billing.plans
    cross join unnest(array['month', 'year']) as billing_interval`);
});

afterAll(() => database?.drop());

it("six administrators publish it at once, and six workers carry it: nothing is made twice", async () => {
  const counts = await Promise.all(workers.map((worker) => publish(worker)));
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(2);

  await Promise.all(workers.map((worker) => carryUntilDone(worker)));
  await Promise.all(workers.map((worker) => publish(worker)));

  const { rows } = await owner.query<{ kind: string; count: string }>(
    "select kind, count(*) from billing_private.commands where status = 'succeeded' group by kind order by kind",
  );
  expect(rows).toEqual([
    { kind: "create_price", count: "4" },
    { kind: "create_product", count: "2" },
  ]);
  const { rows: open } = await owner.query(
    "select kind, status from billing_private.commands where status <> 'succeeded'",
  );
  expect(open).toEqual([]);
  const { rows: catalog } = await owner.query(
    `select count(*)::integer as prices, count(stripe_price_id)::integer as bound
     from billing.prices`,
  );
  expect(catalog).toEqual([{ prices: 4, bound: 4 }]);
});

async function publish(worker: Client): Promise<number> {
  const { rows } = await worker.query<{ publish_catalog: string }>(
    "select billing_admin.publish_catalog('a race')",
  );
  return Number(rows[0]?.publish_catalog);
}

/** Answers calls as Stripe does, until there are none; one made under another worker's lease comes back later. */
async function carryUntilDone(worker: Client): Promise<void> {
  for (let idle = 0; idle < 5;) {
    const { rows } = await worker.query<{
      id: string;
      lease: string;
      path: string;
      params: Record<string, unknown>;
    }>("select id, lease, path, params from billing.claim_commands(1)");
    idle = rows.length === 0 ? idle + 1 : 0;
    for (const { id, lease, path, params } of rows) {
      const made =
        path === "/v1/products"
          ? { object: "product", ...params }
          : { object: "price", id: `price_${String(params["lookup_key"])}`, ...params };
      await worker.query("select billing.complete_command($1, $2, 200, $3)", [
        id,
        lease,
        JSON.stringify({ livemode: false, active: true, created: 1768046400, ...made }),
      ]);
    }
  }
}
