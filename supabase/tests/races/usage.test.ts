// G1: however many ask for the last units at once, they are given as often as there are some, and a key counts once.
import type { Client } from "pg";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { pidOf, waitsOrEnds } from "../support/overlapping.ts";
import { createRandom } from "../support/random.ts";

const clients = 100;
const limit = 10;

let database: TestDatabase;
let owner: Client;
let servers: Client[];
let made = 0;
let account: string;

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  servers = await inTurn(clients, () => database.connect("service_role"));
  await owner.query(
    "insert into billing.features (key, name, kind) values ('exports', 'Exports', 'metered')",
  );
}, 60_000);

afterAll(() => database?.drop());

beforeEach(async () => {
  made += 1;
  const { rows } = await owner.query<{ id: string }>(
    "insert into billing.accounts (id) values (md5($1)::uuid) returning id",
    [`account ${made}`],
  );
  account = rows[0]!.id;
  await owner.query(
    `insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
    values ($1, 'exports', $2, now() - interval '1 hour', 'test')`,
    [account, limit],
  );
});

describe("a hundred clients at once", () => {
  it("get the last ten units ten times", async () => {
    const answers = await Promise.all(servers.map((server) => attempt(() => consume(server, 1))));
    expect(answers.filter((answer) => answer === "taken")).toHaveLength(limit);
    expect(answers.filter((answer) => answer === "PT402")).toHaveLength(clients - limit);
    expect(await total()).toEqual({ used: 10, reserved: 0, records: 10 });
  });

  it("count a key once, all with the same answer", async () => {
    const answers = await Promise.all(servers.map((server) => consume(server, 4, "order")));
    expect(new Set(answers.map((row) => `${row.used} of ${row.allowance}`))).toEqual(
      new Set(["4 of 10"]),
    );
    expect(answers.filter((row) => !row.is_repeated)).toHaveLength(1);
    expect(await total()).toEqual({ used: 4, reserved: 0, records: 1 });
  });

  it("are all told of a key that took the last units", async () => {
    const answers = await Promise.all(servers.map((server) => consume(server, limit, "all")));
    expect(answers.every((row) => row.used === "10")).toBe(true);
    expect(await total()).toEqual({ used: 10, reserved: 0, records: 1 });
  });

  it("reserve what there is, and settle each reservation once", async () => {
    const held = await Promise.all(
      servers.map((server) =>
        attempt(async () => {
          const { rows } = await server.query<{ id: string }>(
            "select id from billing.reserve('exports', 2, $1)",
            [account],
          );
          return rows[0]!.id;
        }),
      ),
    );
    const ids = held.filter((answer) => answer !== "PT402");
    expect(ids).toHaveLength(5);

    const settled = await Promise.all(
      servers.map((server, place) =>
        server.query("select settled_quantity from billing.settle($1, 1, $2)", [
          ids[place % ids.length],
          account,
        ]),
      ),
    );
    expect(settled.every(({ rows }) => rows[0].settled_quantity === "1")).toBe(true);
    expect(await total()).toEqual({ used: 5, reserved: 0, records: 5 });
  });

  it("settle or release a reservation, never both", async () => {
    const { rows } = await owner.query<{ id: string }>(
      "select id from billing.reserve('exports', 3, $1)",
      [account],
    );
    const answers = await Promise.all(
      servers.map((server, place) =>
        attempt(async () => {
          const call =
            place % 2 === 0 ? "billing.settle($1, account_id => $2)" : "billing.release($1, $2)";
          return (await server.query(`select status from ${call}`, [rows[0]!.id, account])).rows[0]
            .status as string;
        }),
      ),
    );
    const outcomes = new Set(answers);
    expect(outcomes.has("settled") !== outcomes.has("released")).toBe(true);
    expect((await total()).used).toBe(outcomes.has("settled") ? 3 : 0);
  });

  it("burn prepaid units once each", async () => {
    await owner.query(
      `select billing_admin.grant_usage($1, 'exports', 3, 'gift'),
        billing_admin.grant_usage($1, 'exports', 4, 'gift')`,
      [account],
    );
    const answers = await Promise.all(servers.map((server) => attempt(() => consume(server, 1))));
    expect(answers.filter((answer) => answer === "taken")).toHaveLength(limit + 7);
    const { rows } = await owner.query<{ burnt: number }>(
      "select sum(burnt)::integer as burnt from billing.usage_grants where account_id = $1",
      [account],
    );
    expect(rows[0]).toEqual({ burnt: 7 });
  });

  it("grant what was bought once", async () => {
    await Promise.all(
      servers.map((server) =>
        server.query(
          "select billing_admin.grant_usage($1, 'exports', 5, 'bought', reference => 'in_1')",
          [account],
        ),
      ),
    );
    const { rows } = await owner.query(
      "select quantity::integer from billing.usage_grants where account_id = $1",
      [account],
    );
    expect(rows).toEqual([{ quantity: 5 }]);
  });

  it("count a key once, whether it comes alone or in a batch", async () => {
    for (const round of [1, 2, 3, 4, 5]) {
      const keys = Array.from({ length: 20 }, (_, number) => `${round}: key ${number}`);
      await Promise.all(
        servers.slice(0, 40).map((server, place) =>
          place % 2 === 0
            ? attempt(() => consume(server, 0.001, keys[place / 2]))
            : server.query("select billing.record_usage_batch($1)", [
                JSON.stringify(
                  keys.map((key) => ({
                    account_id: account,
                    feature: "exports",
                    quantity: 0.001,
                    idempotency_key: key,
                  })),
                ),
              ]),
        ),
      ).then((answers) => expect(answers).not.toContain("40P01"));
    }
    const { rows } = await owner.query(
      `select sum(quantity)::text as recorded, count(*)::integer as records,
        (select used::text from billing.usage_totals where account_id = $1) as used
      from billing.usage_records where account_id = $1`,
      [account],
    );
    expect(rows).toEqual([{ recorded: "0.100", records: 100, used: "0.100" }]);
  });

  it("never wait crosswise for a key that comes alone and in a batch", async () => {
    const [alone, batch] = servers as [Client, Client];
    const [alonePid, batchPid] = [await pidOf(alone), await pidOf(batch)];
    const holder = await database.connect();
    await consume(holder, 1);
    await holder.query("begin");
    await holder.query("select from billing.usage_totals where account_id = $1 for update", [
      account,
    ]);

    const first = attempt(() => consume(alone, 1, "shared"));
    await waitsOrEnds(owner, alonePid, first);
    const second = attempt(() =>
      batch.query("select billing.record_usage_batch($1)", [
        JSON.stringify([{ account_id: account, feature: "exports", idempotency_key: "shared" }]),
      ]),
    );
    await waitsOrEnds(owner, batchPid, second);
    await holder.query("commit");
    expect(await Promise.all([first, second])).toEqual(["taken", "taken"]);
    expect(await total()).toEqual({ used: 2, reserved: 0, records: 2 });
  });

  it("record overlapping batches once for each key", async () => {
    const random = createRandom(7);
    const keys = Array.from({ length: 200 }, (_, number) => `key ${number}`);
    await Promise.all(
      servers.slice(0, 20).map((server) =>
        server.query("select billing.record_usage_batch($1)", [
          JSON.stringify(
            random
              .shuffled(keys)
              .slice(0, 150)
              .map((key) => ({ account_id: account, feature: "exports", idempotency_key: key })),
          ),
        ]),
      ),
    );
    const { used, records } = await total();
    expect(used).toBe(records);
    const { rows } = await owner.query<{ keys: number }>(
      "select count(distinct idempotency_key)::integer as keys from billing.usage_records where account_id = $1",
      [account],
    );
    expect(rows[0]!.keys).toBe(records);
  });
});

describe("a transaction that is undone", () => {
  it("gives back what it took, to whoever waits for it", async () => {
    const [first, second] = servers as [Client, Client];
    await first.query("begin");
    await consume(first, limit);
    const waiting = attempt(() => consume(second, 1));
    await first.query("rollback");
    expect(await waiting).toBe("taken");
    expect(await total()).toEqual({ used: 1, reserved: 0, records: 1 });
  });
});

describe("events of thresholds", () => {
  it("are all read in order, though one that came first is committed last", async () => {
    const [slow, ...readers] = servers;
    const start = (await events(owner, 0)).at(-1)?.position ?? "0";
    await slow!.query("begin");
    await consume(slow!, 8);
    const other = await owner.query<{ id: string }>(
      "insert into billing.accounts (id) values (gen_random_uuid()) returning id",
    );
    await owner.query(
      `insert into billing.hook_events (account_id, type, fact, data)
      values ($1, 'usage.threshold_reached', 'other', '{}')`,
      [other.rows[0]!.id],
    );
    const before = await Promise.all(
      readers.slice(0, 10).map((reader) => events(reader, Number(start))),
    );
    expect(new Set(before.map((read) => read.map(({ fact }) => fact).join()))).toEqual(
      new Set(["other"]),
    );
    await slow!.query("commit");
    const last = Number(before[0]![0]!.position);
    const after = await Promise.all(readers.slice(0, 10).map((reader) => events(reader, last)));
    expect(new Set(after.map((read) => read.map(({ fact }) => fact.split(":")[0]).join()))).toEqual(
      new Set(["exports"]),
    );
  });
});

interface Decision {
  used: string;
  allowance: string;
  is_repeated: boolean;
}

async function consume(client: Client, quantity: number, key?: string): Promise<Decision> {
  const { rows } = await client.query<Decision>(
    "select used, allowance, is_repeated from billing.consume('exports', $1, $2, $3)",
    [quantity, account, key ?? null],
  );
  return rows[0]!;
}

async function events(
  client: Client,
  after: number,
): Promise<{ position: string; fact: string }[]> {
  const { rows } = await client.query<{ position: string; fact: string }>(
    "select position, fact from billing_admin.next_hook_events($1)",
    [after],
  );
  return rows;
}

/** What a call answers if that is text, "taken" if it answers something else, or its SQLSTATE. */
async function attempt(call: () => Promise<unknown>): Promise<string> {
  try {
    const answer = await call();
    return typeof answer === "string" ? answer : "taken";
  } catch (error) {
    return (error as { code: string }).code;
  }
}

async function total(): Promise<{ used: number; reserved: number; records: number }> {
  const { rows } = await owner.query<{ used: number; reserved: number; records: number }>(
    `select
      coalesce(sum(used), 0)::integer as used,
      coalesce(sum(reserved), 0)::integer as reserved,
      (select count(*) from billing.usage_records where account_id = $1)::integer as records
    from billing.usage_totals where account_id = $1`,
    [account],
  );
  return rows[0]!;
}

async function inTurn<T>(count: number, make: () => Promise<T>): Promise<T[]> {
  const all: T[] = [];
  while (all.length < count) all.push(await make());
  return all;
}
