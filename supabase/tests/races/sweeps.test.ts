// Reading Stripe's lists beside everything else that happens: nothing newer is lost, nothing is done twice, and whoever
// dies half-way is followed by somebody who goes on.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap, pidOf, waitsOrEnds } from "../support/overlapping.ts";
import {
  addCatalog,
  addReader,
  driftOf,
  failuresOf,
  ingest,
  setClock,
} from "../support/readers.ts";
import {
  second,
  subscription,
  subscriptionItem,
  type EventFields,
  type JsonObject,
} from "../support/stripe-objects.ts";

const start = second("2026-01-10");
let readers: string[];
let made = 0;

let database: TestDatabase;
let owner: Client;
let service: Client;
let other: Client;
let keeper: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  service = await database.connect("service_role");
  other = await database.connect("service_role");
  keeper = await database.connect();
  await addCatalog(owner);
});

afterAll(() => database?.drop());

beforeEach(async () => {
  await setClock(owner, "2026-01-20 08:00Z");
  await owner.query("delete from billing_private.sweeps where id is not null");
  await owner.query("delete from billing_private.commands where id is not null");
  made += 1;
  readers = ["ann", "bob", "cat"].map((name) => `${name}${made}`);
  for (const name of readers) {
    await addReader(owner, name);
    await ingest(service, told(name, `evt_${name}`, start, "active"));
  }
});

afterEach(async () => {
  expect(await failuresOf(owner)).toEqual([]);
  expect(await driftOf(owner)).toEqual([]);
});

describe("a page of subscriptions and a newer event of one of them", () => {
  it("H3: the event that waits for the page stands", async () => {
    const page = await claimPage();
    const event = told(readers[0]!, "evt_during_1", second("2026-01-20T08:00:01Z"), "unpaid");
    const met = await overlap(
      owner,
      { client: service, work: () => complete(service, page, shown("past_due")) },
      { client: other, work: () => ingest(other, event) },
    );
    expect(met).toBe("waits");
    expect(await statuses()).toEqual(["unpaid", "past_due", "past_due"]);
  });

  it("H3: the page that waits for the event leaves it, and brings the others", async () => {
    const page = await claimPage();
    const event = told(readers[1]!, "evt_during_2", second("2026-01-20T08:00:02Z"), "canceled");
    const met = await overlap(
      owner,
      { client: other, work: () => ingest(other, event) },
      { client: service, work: () => complete(service, page, shown("unpaid")) },
    );
    expect(met).toBe("waits");
    expect(await statuses()).toEqual(["unpaid", "canceled", "unpaid"]);
  });
});

describe("a worker that dies in the middle of a page", () => {
  it("H6: leaves nothing of it, and the next one reads the page again", async () => {
    const page = await claimPage();
    // The owner's, who may end it; not one of the test database's, which closes its own at the end.
    const victim = new Client({ connectionString: database.url });
    victim.on("error", () => {});
    await victim.connect();
    const pid = await pidOf(victim);
    await keeper.query("begin");
    await keeper.query("select billing_private.lock_customer($1)", [`cus_${readers[2]}`]);
    const dying = complete(victim, page, shown("past_due")).catch((error: unknown) => error);
    expect(await waitsOrEnds(owner, pid, dying)).toBe("waits");
    await keeper.query("select pg_terminate_backend($1)", [pid]);
    expect(await dying).toBeInstanceOf(Error);
    await keeper.query("rollback");
    expect(await statuses()).toEqual(["active", "active", "active"]);

    await setClock(owner, "2026-01-20 08:05Z");
    const { rows } = await service.query<Page>("select id, lease from billing.claim_commands(1)");
    expect(rows[0]).toMatchObject({ id: page.id });
    await complete(service, rows[0]!, shown("past_due"));
    expect(await statuses()).toEqual(["past_due", "past_due", "past_due"]);
    await expect(complete(service, page, shown("unpaid"))).rejects.toMatchObject({ code: "PT409" });
    expect(await statuses()).toEqual(["past_due", "past_due", "past_due"]);
  });
});

describe("two heartbeats", () => {
  it("H9: that begin a sweep at once begin it once", async () => {
    const begin = (client: Client) => ({
      client,
      work: () => client.query("select billing_private.task_sweep_events()"),
    });
    await overlap(owner, begin(keeper), begin(await database.connect()));
    const { rows } = await owner.query(
      `select count(*)::integer as sweeps,
        (select count(*)::integer from billing_private.commands
          where kind = 'sweep_page' and status = 'pending') as pages
      from billing_private.sweeps where status in ('waiting', 'running')`,
    );
    expect(rows).toEqual([{ sweeps: 1, pages: 1 }]);
  });
});

interface Page {
  id: string;
  lease: string;
}

async function claimPage(): Promise<Page> {
  await owner.query("select billing_private.request_sweep('subscriptions', false, null)");
  await owner.query("select billing_private.continue_sweeps()");
  const { rows } = await service.query<Page>("select id, lease from billing.claim_commands(1)");
  return rows[0]!;
}

function complete(client: Client, { id, lease }: Page, objects: JsonObject[]): Promise<unknown> {
  return client.query("select * from billing.complete_command($1, $2, 200, $3, null, $4, 0.5)", [
    id,
    lease,
    JSON.stringify({ object: "list", has_more: false, data: objects }),
    "Tue, 20 Jan 2026 08:00:00 GMT",
  ]);
}

function shown(status: string): JsonObject[] {
  return readers.map((name) => told(name, "", start, status).object).reverse();
}

function told(name: string, id: string, created: number, status: string): EventFields {
  const item = subscriptionItem(`si_${name}`, "price_plus", start, {
    price: {
      id: "price_plus",
      object: "price",
      active: true,
      currency: "usd",
      product: "prod_plus",
    },
  });
  return {
    id,
    type: "customer.subscription.updated",
    created,
    object: subscription(`sub_${name}`, `cus_${name}`, [item], { status }),
  };
}

async function statuses(): Promise<string[]> {
  const { rows } = await owner.query<{ status: string }>(
    `select status from billing.subscriptions
    where stripe_subscription_id = any ($1) order by stripe_subscription_id`,
    [readers.map((name) => `sub_${name}`)],
  );
  return rows.map(({ status }) => status);
}
