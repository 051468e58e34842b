// The heartbeat against everything else: each due task runs once, and nobody waits in a circle.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap } from "../support/overlapping.ts";
import { createRandom } from "../support/random.ts";
import {
  addCatalog,
  addReader,
  driftOf,
  failuresOf,
  featuresOf,
  idOf,
  ingest,
  setClock,
} from "../support/readers.ts";
import {
  month,
  price,
  second,
  subscription,
  subscriptionItem,
  type EventFields,
  type JsonObject,
} from "../support/stripe-objects.ts";

const start = second("2026-01-10");

let database: TestDatabase;
let owner: Client;
let hearts: [Client, Client];
let services: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  hearts = [await database.connect(), await database.connect()];
  services = await Promise.all(Array.from({ length: 5 }, () => database.connect("service_role")));
  await addCatalog(owner);
  await owner.query("insert into billing.features (key, name) values ('gift', 'Gift')");
});

afterAll(() => database?.drop());

beforeEach(() => setClock(owner, "2026-01-20 00:00Z"));

afterEach(async () => {
  expect(await failuresOf(owner)).toEqual([]);
  expect(await driftOf(owner)).toEqual([]);
});

describe("two heartbeats at once", () => {
  it("run each due task once", async () => {
    const { rows: tasks } = await owner.query(
      "select key from billing_private.tasks where is_enabled",
    );
    for (let round = 0; round < 5; round += 1) {
      await makeAllDue();
      await owner.query("delete from billing_private.task_runs");
      const ran = await Promise.all(hearts.map(beat));

      expect(ran[0]! + ran[1]!).toBe(tasks.length);
      const { rows } = await owner.query(
        "select task_key, count(*)::integer as runs from billing_private.task_runs group by task_key",
      );
      expect(rows.map(({ task_key, runs }) => [task_key, runs]).sort()).toEqual(
        tasks.map(({ key }) => [key, 1]).sort(),
      );
    }
  });

  it("run nothing twice when one begins while the other is not committed", async () => {
    await makeAllDue();
    await owner.query("delete from billing_private.task_runs");
    const ran: number[] = [];
    const beating = (client: Client) => ({
      client,
      work: async () => void ran.push(await beat(client)),
    });
    await overlap(owner, beating(hearts[0]), beating(hearts[1]));

    expect(ran[1]).toBe(0);
    expect(await beat(hearts[1])).toBe(0);
  });
});

describe("a heartbeat and a delivery", () => {
  const orders = ["the heartbeat", "the delivery"] as const;

  it.each(orders)(
    "end and renew the same subscription: it goes on, with %s first",
    async (which) => {
      const name = `renewed_${orders.indexOf(which)}`;
      const account = await addReader(owner, name);
      await ingest(services[0]!, bought(name, start));
      await setClock(owner, "2026-02-10 00:00Z");
      expect(await featuresOf(owner, account)).toEqual([]);

      await makeAllDue();
      const steps = [
        { client: hearts[0], work: () => beat(hearts[0]) },
        { client: services[0]!, work: () => ingest(services[0]!, bought(name, start + month)) },
      ];
      const [first, last] = which === "the delivery" ? steps.reverse() : steps;
      await overlap(owner, first!, last!);

      expect(await featuresOf(owner, account)).toEqual(["clubs", "reading"]);
    },
  );

  it.each(orders)(
    "try a failed event and deliver a newer one: the newer stays, %s first",
    async (which) => {
      const name = `retried_${orders.indexOf(which)}`;
      const account = await addReader(owner, name);
      await failToApply([bought(name, start)]);
      await makeAllDue();
      const ended = bought(name, start + 60, { status: "canceled", ended_at: start + 60 });
      const steps = [
        { client: hearts[0], work: () => beat(hearts[0]) },
        { client: services[0]!, work: () => ingest(services[0]!, ended) },
      ];
      const [first, last] = which === "the delivery" ? steps.reverse() : steps;
      await overlap(owner, first!, last!);
      // Where the customer was busy, the next heartbeat tries again.
      await makeAllDue();
      await beat(hearts[0]);

      expect(await statusOf(name)).toBe("canceled");
      expect(await featuresOf(owner, account)).toEqual([]);
      const { rows } = await owner.query(
        "select status from billing_private.stripe_events where stripe_customer_id = $1",
        [`cus_${name}`],
      );
      expect(rows).toEqual([{ status: "applied" }, { status: "applied" }]);
    },
  );

  it("leave a customer alone who is busy: the heartbeat does not wait", async () => {
    await addReader(owner, "busy");
    await failToApply([bought("busy", start)]);
    await makeAllDue();
    await owner.query("begin");
    await owner.query("select billing_private.lock_customer('cus_busy')");
    expect(await beat(hearts[0])).toBeGreaterThan(0);
    await owner.query("commit");

    expect(await statusOf("busy")).toBeUndefined();
    await makeAllDue();
    await beat(hearts[0]);
    expect(await statusOf("busy")).toBe("active");
  });

  it("leave the catalog alone while a subscription is written: the heartbeat does not wait", async () => {
    await addReader(owner, "early");
    await failToApply([
      {
        id: "evt_price_early",
        type: "price.created",
        created: start,
        object: price("price_early", "prod_plus"),
      },
    ]);
    await makeAllDue();
    await services[0]!.query("begin");
    await ingest(services[0]!, bought("early", start, {}, "price_early"));
    await beat(hearts[0]);
    await services[0]!.query("commit");
    await makeAllDue();
    await beat(hearts[0]);

    expect(await featuresOf(owner, idOf("early"))).toEqual(["clubs", "reading"]);
  });
});

describe("heartbeats, deliveries, gifts and a changing catalog, all at once", () => {
  it("end in the right rows, and nobody was shot to break a circle", async () => {
    const names = Array.from({ length: 24 }, (_, number) => `crowd${number}`);
    for (const name of names) await addReader(owner, name);
    // Half of the lives were told while nothing could be applied.
    await failToApply(
      names.filter((_, number) => number % 2 === 0).map((name) => bought(name, start)),
    );
    await giveUntil(names, "2026-02-05");
    await sellByHand(names.map((name) => `manual ${name}`));
    await setClock(owner, "2026-02-10 00:00Z");

    const events = names.flatMap((name) => [
      bought(name, start),
      bought(name, start + 60, { status: "past_due" }),
      bought(name, start + 120, { status: "active" }),
      bought(name, start + month, { metadata: { renewed: "yes" } }),
    ]);
    const waiting = createRandom(24).shuffled(events);
    const delivering = services.map(async (service) => {
      for (let event = waiting.pop(); event !== undefined; event = waiting.pop()) {
        await ingest(service, event);
      }
    });
    const beating = hearts.map(async (heart) => {
      while (waiting.length > 0) {
        await makeAllDue(heart);
        await beat(heart);
      }
    });
    const admin = await database.connect();
    const administering = (async () => {
      for (let turn = 0; waiting.length > 0; turn += 1) {
        await admin.query("update billing.plan_features set limit_value = $1", [turn]);
        await giveUntil([names[turn % names.length]!], "2026-02-20", admin);
      }
    })();
    await Promise.all([...delivering, ...beating, administering]);
    await makeAllDue();
    await beat(hearts[0]);

    for (const name of names) {
      expect(await statusOf(name), name).toBe("active");
      expect(await featuresOf(owner, idOf(name)), name).toEqual(
        expect.arrayContaining(["clubs", "reading"]),
      );
      expect(await featuresOf(owner, idOf(`manual ${name}`)), name).toEqual(["clubs", "reading"]);
    }
    const { rows } = await owner.query(
      "select count(*)::integer as left from billing_private.stripe_events where status = 'failed'",
    );
    expect(rows).toEqual([{ left: 0 }]);
  }, 60_000);
});

function bought(
  name: string,
  at: number,
  changes: JsonObject = {},
  priceId = "price_plus",
): EventFields {
  const period = at >= start + month ? start + month : start;
  const item = subscriptionItem(`si_${name}`, priceId, period, {
    price: { id: priceId, object: "price", active: true, currency: "usd", product: "prod_plus" },
  });
  return {
    id: `evt_${name}_${at}`,
    type: "customer.subscription.updated",
    created: at,
    object: subscription(`sub_${name}`, `cus_${name}`, [item], { start_date: start, ...changes }),
  };
}

/** Delivers while no projector can be found, and makes the next try due. */
async function failToApply(events: EventFields[]): Promise<void> {
  await owner.query(
    "update billing_private.event_handlers set projector = 'missing_' || projector",
  );
  for (const event of events) {
    expect((await ingest(services[0]!, event)).status).toBe("failed");
  }
  await owner.query(`
    update billing_private.event_handlers set projector = replace(projector, 'missing_', '')`);
  await owner.query(`
    update billing_private.stripe_events
    set next_attempt_at = billing_private.now(), last_error = null, attempts = 0
    where status = 'failed'`);
}

/** All that nobody is just running. */
async function makeAllDue(client = owner): Promise<void> {
  await client.query(`
    update billing_private.tasks set next_run_at = null
    where key in (select key from billing_private.tasks for update skip locked)`);
}

async function beat(client: Client): Promise<number> {
  const { rows } = await client.query<{ ran: number }>(
    "select billing_private.run_due_tasks() as ran",
  );
  return rows[0]!.ran;
}

async function giveUntil(names: string[], until: string, client = owner): Promise<void> {
  await client.query(
    `insert into billing.entitlement_grants (account_id, feature_key, valid_from, valid_until, reason)
    select id, 'gift', '2026-01-01', $2, 'a test' from unnest($1::uuid[]) as id`,
    [names.map(idOf), until],
  );
}

async function sellByHand(names: string[]): Promise<void> {
  for (const name of names) {
    await owner.query("insert into billing.accounts (id, name) values ($1, $2)", [
      idOf(name),
      name,
    ]);
    await owner.query(
      "select billing_private.start_manual_subscription($1, md5('price plus')::uuid, 1, null)",
      [idOf(name)],
    );
  }
}

async function statusOf(name: string): Promise<string | undefined> {
  const { rows } = await owner.query<{ status: string }>(
    "select status from billing.subscriptions where stripe_subscription_id = $1",
    [`sub_${name}`],
  );
  return rows[0]?.status;
}
