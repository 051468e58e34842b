// Who has access while several things about it change at the same time.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
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

let database: TestDatabase;
let owner: Client;
let admin: Client;
let services: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  admin = await database.connect();
  services = await Promise.all(Array.from({ length: 6 }, () => database.connect("service_role")));
  await addCatalog(owner);
  await owner.query("insert into billing.features (key, name) values ('gift', 'Gift')");
});

afterAll(() => database?.drop());

afterEach(async () => {
  expect(await failuresOf(owner)).toEqual([]);
  expect(await driftOf(owner)).toEqual([]);
});

const orders = ["the administrator", "Stripe"] as const;

describe("an administrator who works while Stripe delivers", () => {
  beforeAll(() => setClock(owner, "2026-01-20 00:00Z"));

  it.each(orders)("a feature given to a plan reaches who is subscribing, %s first", async (who) => {
    const name = `feature_${orders.indexOf(who)}`;
    const account = await addReader(owner, name);
    await owner.query("insert into billing.features (key, name) values ($1, 'New')", [name]);
    await inOrder(who, bought(name), () =>
      admin.query(
        "insert into billing.plan_features (plan_id, feature_key) values (md5('plus')::uuid, $1)",
        [name],
      ),
    );
    expect(await featuresOf(owner, account)).toContain(name);
  });

  it.each(orders)(
    "a feature taken from a plan leaves who is subscribing, %s first",
    async (who) => {
      const name = `feature_${orders.indexOf(who)}`;
      const account = await addReader(owner, `${name}_taken`);
      await inOrder(who, bought(`${name}_taken`), () =>
        admin.query("delete from billing.plan_features where feature_key = $1", [name]),
      );
      expect(await featuresOf(owner, account)).not.toContain(name);
    },
  );

  it.each(orders)("a longer grace reaches who falls behind, %s first", async (who) => {
    const days = 12 + orders.indexOf(who);
    const name = `grace_${days}`;
    const account = await addReader(owner, name);
    await ingest(services[0]!, bought(name));
    const owing = bought(name, { status: "past_due" }, start + 1);
    await inOrder(who, owing, () =>
      admin.query("update billing.plans set past_due_grace = make_interval(days => $1)", [days]),
    );
    const { rows } = await owner.query(
      `select extract(epoch from max(valid_until))::integer - $2 as lasts
      from billing.entitlements where account_id = $1`,
      [account, start + 1],
    );
    expect(rows).toEqual([{ lasts: days * 86_400 }]);
  });

  it.each(orders)("a gift and a subscription are both there, %s first", async (who) => {
    const name = `gifted_${orders.indexOf(who)}`;
    const account = await addReader(owner, name);
    await inOrder(who, bought(name), () => give(admin, account));

    expect(await featuresOf(owner, account)).toEqual(["clubs", "gift", "reading"]);
  });

  it("a gift can be given while the plan everybody has is changed", async () => {
    const account = await addReader(owner, "lucky");
    await ingest(services[0]!, bought("lucky"));
    const other = await database.connect();
    await overlap(
      owner,
      { client: admin, work: () => give(admin, account) },
      {
        client: other,
        work: () => other.query("update billing.plan_features set limit_value = 7"),
      },
    );
    await overlap(
      owner,
      {
        client: other,
        work: () => other.query("update billing.plan_features set limit_value = null"),
      },
      { client: admin, work: () => give(admin, account) },
    );
    expect(await featuresOf(owner, account)).toEqual(["clubs", "gift", "reading"]);
  });

  it("changes to the catalog and the events of its subscribers never wait in a circle", async () => {
    const names = Array.from({ length: 12 }, (_, number) => `busy${number}`);
    for (const name of names) await addReader(owner, name);
    const events = names.flatMap((name) =>
      Array.from({ length: 10 }, (_, number) =>
        bought(name, { metadata: { number: String(number) } }, start + number),
      ),
    );
    const waiting = createRandom(12).shuffled(events);
    const delivering = services.map(async (service) => {
      for (let event = waiting.pop(); event !== undefined; event = waiting.pop()) {
        await ingest(service, event);
      }
    });
    const changing = (async () => {
      for (let turn = 0; waiting.length > 0; turn += 1) {
        await admin.query("update billing.plans set tier_rank = tier_rank + $1", [
          (turn % 2) * 2 - 1,
        ]);
        await admin.query("update billing.plan_features set limit_value = $1", [turn]);
        await admin.query("update billing.prices set plan_id = plan_id");
      }
    })();
    await Promise.all([...delivering, changing]);
    await admin.query("update billing.plan_features set limit_value = null");

    for (const name of names) {
      expect(
        await values("status from billing.subscriptions where stripe_subscription_id = $1", [
          `sub_${name}`,
        ]),
      ).toEqual(["active"]);
    }
  });

  it("needs no more of the server's lock memory for a plan that many have than for another", async () => {
    await owner.query("insert into billing.features (key, name) values ('crowd', 'Crowd')");
    await owner.query(`
      with made as (
        insert into billing.accounts (id)
        select md5('crowd ' || number)::uuid from generate_series(1, 300) as number
        returning id
      ),
      subscribed as (
        insert into billing.subscriptions (
          account_id, provider, manual_kind, status, price_id, started_at
        )
        select id, 'manual', 'complimentary', 'active', md5('price basic')::uuid, '2026-01-10' from made
        returning id
      )
      insert into billing.subscription_items
        (subscription_id, price_id, current_period_start, current_period_end)
      select id, md5('price basic')::uuid, '2026-01-10', '2026-02-10' from subscribed`);
    await admin.query("begin");
    await admin.query(
      "insert into billing.plan_features (plan_id, feature_key) values (md5('basic')::uuid, 'crowd')",
    );
    const { rows } = await admin.query<{ locks: number }>(
      `select count(*)::integer as locks from pg_locks
      where pid = pg_backend_pid() and locktype = 'advisory'`,
    );
    await admin.query("commit");

    expect(
      await values("count(*)::integer from billing.entitlements where feature_key = 'crowd'"),
    ).toEqual([300]);
    expect(rows[0]!.locks).toBeLessThan(10);
  });
});

describe("two connections that refresh one account", () => {
  it("agree, and the second sees what the first has found", async () => {
    const account = await addReader(owner, "twice");
    await ingest(services[0]!, bought("twice"));
    await owner.query("delete from billing.entitlements where account_id = $1", [account]);
    const refresh = (client: Client) => ({
      client,
      work: () =>
        client.query("select billing_private.refresh_entitlements(array[$1::uuid])", [account]),
    });
    await overlap(owner, refresh(owner), refresh(admin)).catch(() => undefined);

    expect(await featuresOf(owner, account)).toEqual(["clubs", "reading"]);
  });

  it("in opposite orders never wait in a circle", async () => {
    const accounts = [await addReader(owner, "left"), await addReader(owner, "right")];
    const other = await database.connect();
    for (let round = 0; round < 20; round += 1) {
      await Promise.all(
        [admin, other].map((client, place) =>
          client.query("select billing_private.refresh_entitlements($1::uuid[])", [
            place === 0 ? accounts : [...accounts].reverse(),
          ]),
        ),
      );
    }
  });
});

describe("the clock", () => {
  beforeAll(() => setClock(owner));

  it("passes an end inside an open transaction, which keeps the instant it began at", async () => {
    const account = await addReader(owner, "late");
    await owner.query(
      `insert into billing.entitlement_grants (account_id, feature_key, valid_from, valid_until, reason)
      values ($1, 'gift', now() - interval '1 day', now() + interval '700 milliseconds', 'a test')`,
      [account],
    );
    const open = await database.connect("authenticated", { sub: account });
    const has = async (client: Client) => {
      const { rows } = await client.query<{ has: boolean }>(
        "select billing.has_entitlement('gift', $1) as has",
        [account],
      );
      return rows[0]!.has;
    };
    await open.query("begin");
    expect(await has(open)).toBe(true);
    await owner.query("select pg_sleep(0.8)");

    expect(await has(open)).toBe(true);
    expect(await has(owner)).toBe(false);
    await open.query("commit");
    expect(await has(open)).toBe(false);
  });

  it("passes an end while its subscription is being written: it ends all the same", async () => {
    const account = await addReader(owner, "brief");
    const now = Math.floor(Date.now() / 1000);
    const ending = bought("brief", { cancel_at: now + 1, cancel_at_period_end: true }, now);
    const item = subscriptionItem("si_brief", "price_plus", now - 60, {
      current_period_end: now + 1,
    });
    const event = { ...ending, object: { ...ending.object, items: { data: [item] } } };
    const service = services[0]!;
    await service.query("begin");
    await ingest(service, event);
    await owner.query("select pg_sleep(1.1)");
    await service.query("commit");

    expect(await featuresOf(owner, account)).toEqual([]);
    // The stored row waits for the clock's task.
    await owner.query("select billing_private.refresh_elapsed(10)");
  });
});

function bought(name: string, changes: JsonObject = {}, created = start): EventFields {
  const item = subscriptionItem(`si_${name}`, "price_plus", start);
  return {
    id: `evt_${name}_${created}`,
    type: "customer.subscription.updated",
    created,
    object: subscription(`sub_${name}`, `cus_${name}`, [item], changes),
  };
}

/** The administrator's work and a delivery, overlapping; who begins commits first. */
async function inOrder(
  who: (typeof orders)[number],
  event: EventFields,
  work: () => Promise<unknown>,
): Promise<void> {
  const steps = [
    { client: admin, work },
    { client: services[0]!, work: () => ingest(services[0]!, event) },
  ];
  const [first, last] = who === "Stripe" ? steps.reverse() : steps;
  await overlap(owner, first!, last!);
}

function give(client: Client, account: string): Promise<unknown> {
  return client.query(
    `insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
    values ($1, 'gift', '2026-01-01', 'a test')`,
    [account],
  );
}

async function values(query: string, parameters: unknown[] = []): Promise<unknown[]> {
  const { rows } = await owner.query<unknown[]>({
    text: `select ${query}`,
    values: parameters,
    rowMode: "array",
  });
  return rows.map(([value]) => value);
}
