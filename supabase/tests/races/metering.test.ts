// Metered tables while several write them, while metering begins, and while totals are recounted.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap, pidOf, waitsOrEnds } from "../support/overlapping.ts";
import { idOf } from "../support/readers.ts";

const people = ["ann", "bob", "cleo", "dan"];

let database: TestDatabase;
let owner: Client;
let observer: Client;
let writers: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  observer = await database.connect();
  writers = await Promise.all(Array.from({ length: 20 }, () => database.connect()));
  await owner.query(
    "insert into billing.features (key, name, kind) values ('clubs', 'Clubs', 'limit')",
  );
  await owner.query("insert into billing.accounts (id) select unnest($1::uuid[])", [
    people.map(idOf),
  ]);
});

afterAll(() => database?.drop());

beforeEach(async () => {
  await owner.query(`
    create table clubs (owner_id uuid, name text);
    create table rooms (owner_id uuid)`);
});

afterEach(async () => {
  expect(await driftOf()).toEqual([]);
  await owner.query("drop table clubs, rooms");
  await owner.query("update billing.usage_totals set used = 0 where used <> 0");
});

/** What everybody may hold. */
async function allow(limit: number): Promise<void> {
  await owner.query("delete from billing.entitlement_grants where feature_key = 'clubs'");
  await owner.query(
    `insert into billing.entitlement_grants (account_id, feature_key, limit_value, valid_from, reason)
    select unnest($1::uuid[]), 'clubs', $2, '2026-01-01', 'a gift'`,
    [people.map(idOf), limit],
  );
}

const meter = (client: Client, table = "clubs") =>
  client.query("select billing_admin.meter_table($1, 'clubs', 'owner_id')", [table]);

const found = (client: Client, ...names: string[]) =>
  client.query("insert into clubs (owner_id) select unnest($1::uuid[])", [names.map(idOf)]);

/** Everybody's total, by name. */
async function counted(): Promise<Record<string, number>> {
  const { rows } = await owner.query<{ account_id: string; used: number }>(
    "select account_id, used::integer from billing.usage_totals where used > 0",
  );
  const used = new Map(rows.map((row) => [row.account_id, row.used]));
  return Object.fromEntries(
    people.flatMap((name) => (used.has(idOf(name)) ? [[name, used.get(idOf(name))!]] : [])),
  );
}

async function driftOf(): Promise<unknown[]> {
  const { rows } = await owner.query("select * from billing_private.metering_drift('clubs')");
  return rows;
}

describe("a limit with ten units left", () => {
  beforeEach(async () => {
    await allow(15);
    await meter(owner);
    await found(owner, ...Array<string>(5).fill("ann"));
  });

  it("lets exactly ten of a hundred clients in", async () => {
    const outcomes = await Promise.all(
      Array.from({ length: 100 }, (_, number) =>
        found(writers[number % writers.length]!, "ann").then(
          () => "in",
          (error: Error) => error.message,
        ),
      ),
    );
    expect(outcomes.filter((outcome) => outcome === "in").length).toBe(10);
    expect(new Set(outcomes)).toEqual(new Set(["in", "the limit of this feature is reached"]));
    const { rows } = await owner.query("select count(*)::integer as clubs from clubs");
    expect(rows).toEqual([{ clubs: 15 }]);
    expect(await counted()).toEqual({ ann: 15 });
  });

  it("goes to who waited when the one before takes nothing after all", async () => {
    const [first, second] = writers as [Client, Client];
    const pid = await pidOf(second);
    await first.query("begin");
    await found(first, ...Array<string>(10).fill("ann"));
    const waiting = found(second, "ann");
    expect(await waitsOrEnds(observer, pid, waiting)).toBe("waits");
    await first.query("rollback");
    await waiting;
    expect(await counted()).toEqual({ ann: 6 });
  });

  it("is as before where a client dies half-way", async () => {
    const doomed = await database.connect();
    doomed.on("error", () => undefined);
    await doomed.query("begin");
    await found(doomed, "ann", "bob");
    await observer.query("select pg_terminate_backend($1)", [await pidOf(doomed)]);
    await expect(doomed.query("commit")).rejects.toThrow();
    expect(await counted()).toEqual({ ann: 5 });
  });
});

describe("statements of several owners at once", () => {
  beforeEach(async () => {
    await allow(100_000);
    await meter(owner);
  });

  it("never wait for each other crosswise, whatever the order of their rows", async () => {
    const rounds = 15;
    await Promise.all(
      writers.slice(0, 8).map(async (client, number) => {
        const order = number % 2 === 0 ? people : people.toReversed();
        const rows = order.flatMap((name) => Array<string>(250).fill(name));
        for (let round = 0; round < rounds; round += 1) await found(client, ...rows);
      }),
    );
    expect(await counted()).toEqual(
      Object.fromEntries(people.map((name) => [name, 8 * rounds * 250])),
    );
  });

  it("neither do moves that cross", async () => {
    await found(owner, ...people.flatMap((name) => Array<string>(20).fill(name)));
    const move = (client: Client, from: string, to: string) =>
      client.query(
        `update clubs set owner_id = $2
        where ctid in (select ctid from clubs where owner_id = $1 for update skip locked limit 3)`,
        [idOf(from), idOf(to)],
      );
    await Promise.all(
      writers.slice(0, 8).map(async (client, number) => {
        for (let round = 0; round < 10; round += 1) {
          const from = people[(number + round) % people.length]!;
          await move(client, from, people[(number * 3 + round + 1) % people.length]!);
        }
      }),
    );
    const total = Object.values(await counted()).reduce((sum, used) => sum + used, 0);
    expect(total).toBe(80);
  });

  it("single rows go between the bulk's, each counted once", async () => {
    const bulk = Array<string>(2_000).fill("ann");
    await Promise.all([
      found(writers[0]!, ...bulk),
      found(writers[1]!, ...bulk),
      ...writers.slice(2).map(async (client) => {
        for (let row = 0; row < 10; row += 1) await found(client, "ann");
      }),
    ]);
    expect(await counted()).toEqual({ ann: 4_000 + 10 * (writers.length - 2) });
  });
});

describe("metering that begins", () => {
  beforeEach(() => allow(100));

  it("waits for who is writing, and counts those rows", async () => {
    const [first, second] = writers as [Client, Client];
    const met = await overlap(
      observer,
      { client: first, work: () => found(first, "ann", "ann") },
      { client: second, work: () => meter(second) },
    );
    expect(met).toBe("waits");
    expect(await counted()).toEqual({ ann: 2 });
  });

  it("is waited for by who writes then, and those rows are counted", async () => {
    const [first, second] = writers as [Client, Client];
    await found(owner, "ann");
    const met = await overlap(
      observer,
      { client: first, work: () => meter(first) },
      { client: second, work: () => found(second, "ann", "bob") },
    );
    expect(met).toBe("waits");
    expect(await counted()).toEqual({ ann: 2, bob: 1 });
  });

  it("for two tables of one feature at once counts both", async () => {
    const [first, second] = writers as [Client, Client];
    await found(owner, "ann");
    await owner.query("insert into rooms select $1 from generate_series(1, 2)", [idOf("ann")]);
    const met = await overlap(
      observer,
      { client: first, work: () => meter(first) },
      { client: second, work: () => meter(second, "rooms") },
    );
    expect(met).toBe("waits");
    expect(await counted()).toEqual({ ann: 3 });
  });

  it("and ends with somebody writing leaves nothing of it", async () => {
    const [first, second] = writers as [Client, Client];
    await meter(owner);
    const met = await overlap(
      observer,
      { client: first, work: () => found(first, "ann") },
      {
        client: second,
        work: () => second.query("select billing_admin.unmeter_table('clubs', 'clubs')"),
      },
    );
    expect(met).toBe("waits");
    expect(await counted()).toEqual({});
    await owner.query("truncate clubs");
  });
});

describe("recounting", () => {
  const recount = (client: Client) =>
    client.query<{ repaired: string }>(
      "select billing_private.repair_metering('clubs', null) as repaired",
    );

  beforeEach(async () => {
    await allow(100);
    await meter(owner);
    await owner.query("alter table clubs disable trigger user");
    await found(owner, "ann", "bob");
    await owner.query("alter table clubs enable trigger user");
  });

  it("leaves out who is counted at the moment, and repairs them the next time", async () => {
    const [first, second] = writers as [Client, Client];
    await found(owner, "ann");
    await first.query("begin");
    await found(first, "ann");
    expect((await recount(second)).rows).toEqual([{ repaired: "1" }]);
    await first.query("commit");
    expect(await counted()).toEqual({ ann: 2, bob: 1 });
    expect((await recount(second)).rows).toEqual([{ repaired: "1" }]);
    expect(await counted()).toEqual({ ann: 3, bob: 1 });
  });

  it("at the same time as many who write ends in what the table holds", async () => {
    await Promise.all(
      writers.map(async (client, number) => {
        for (let round = 0; round < 8; round += 1) {
          if (number < 2) await recount(client);
          else if (number % 2 === 0) await found(client, ...people);
          else await client.query("delete from clubs where ctid = (select min(ctid) from clubs)");
        }
      }),
    );
    await recount(owner);
    expect(await driftOf()).toEqual([]);
  });
});
