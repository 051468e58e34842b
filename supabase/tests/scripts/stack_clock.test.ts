// scripts/stack/clock: a database's clock that can be held, and nothing else about the database changed.

import type { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import {
  createClock,
  followClock,
  holdClock,
  readClock,
  releaseClock,
  setClock,
} from "../../../scripts/stack/clock.ts";
import { createStripeSimulator } from "../../../scripts/stripe-simulator/index.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";

let database: TestDatabase;
let client: Client;

const day = 86_400;
const realNow = () => Date.now() / 1000;

beforeAll(async () => {
  database = await createTestDatabase();
  client = await database.connect();
});

afterAll(async () => {
  await database.drop();
});

async function properties() {
  const { rows } = await client.query(
    `select
       proowner::regrole::text as owner,
       proacl::text as grants,
       provolatile as volatility,
       proparallel as parallel,
       proconfig as settings,
       obj_description(oid) as comment
     from pg_proc
     where oid = 'billing_private.now()'::regprocedure`,
  );
  return rows[0];
}

async function definition(): Promise<string> {
  const { rows } = await client.query<{ text: string }>(
    "select pg_get_functiondef('billing_private.now()'::regprocedure) as text",
  );
  return rows[0]?.text ?? "";
}

test("a held clock shows the real time until it is set, and flows from there", async () => {
  const before = await properties();
  const shipped = await definition();
  await holdClock(database.url);
  expect(await properties()).toEqual(before);
  expect(await definition()).not.toBe(shipped);
  expect(Math.abs((await readClock(database.url)) - realNow())).toBeLessThan(5);

  const target = Math.floor(realNow()) + 400 * day;
  await setClock(database.url, target);
  const first = await readClock(database.url);
  expect(first).toBeGreaterThanOrEqual(target);
  expect(first).toBeLessThan(target + 10);
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(await readClock(database.url)).toBeGreaterThan(first);
});

test("holding it again does not set it back", async () => {
  await setClock(database.url, realNow() + 30 * day);
  await holdClock(database.url);
  expect(await readClock(database.url)).toBeGreaterThan(realNow() + 29 * day);
});

test("it stands still within a transaction", async () => {
  await client.query("begin");
  const read = async () => (await client.query("select billing_private.now()::text as at")).rows[0];
  const first = await read();
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(await read()).toEqual(first);
  await client.query("rollback");
});

test("every API role reads the time, none the table behind it", async () => {
  for (const role of ["anon", "authenticated", "service_role"] as const) {
    const visitor = await database.connect(role);
    // No one reaches the private schema by name; what they call resolves it for them.
    await expect(visitor.query("select * from local_stack.clock")).rejects.toMatchObject({
      code: "42501",
    });
  }
  const { rows } = await client.query(
    `select bool_and(has_function_privilege(role, 'billing_private.now()', 'execute')) as all
     from unnest(array['anon', 'authenticated', 'service_role']) as role`,
  );
  expect(rows).toEqual([{ all: true }]);
});

test("following never turns it back", async () => {
  const start = Math.floor(await readClock(database.url));
  await followClock(database.url, start - day);
  expect(await readClock(database.url)).toBeGreaterThanOrEqual(start);
  await followClock(database.url, start + day);
  expect(await readClock(database.url)).toBeGreaterThanOrEqual(start + day);
});

test("the joint clock moves the simulator and, at each of its moments, the database first", async () => {
  const start = Math.floor(await readClock(database.url));
  const behind: number[] = [];
  const simulator = await createStripeSimulator({
    startAt: start,
    onTick: async (moment) => {
      await followClock(database.url, moment);
      behind.push(moment - (await readClock(database.url)));
    },
  });
  try {
    const clock = createClock({ databaseUrl: database.url, simulator: simulator.clock });
    await clock.advanceBy(40 * day);
    expect(simulator.clock.now()).toBeGreaterThanOrEqual(start + 40 * day);
    expect(await clock.now()).toBeGreaterThanOrEqual(simulator.clock.now());
    expect(behind.length).toBeGreaterThan(0);
    expect(Math.max(...behind)).toBeLessThanOrEqual(0);

    // A moment Stripe has passed already is no error.
    await clock.advanceTo(start + day);
    expect(await clock.now()).toBeGreaterThanOrEqual(start + 40 * day);
  } finally {
    await simulator.stop();
  }
});

test("without a simulator the joint clock moves the database alone", async () => {
  const clock = createClock({ databaseUrl: database.url });
  const target = (await clock.now()) + 3 * day;
  await clock.advanceTo(target);
  expect(await clock.now()).toBeGreaterThanOrEqual(target);
});

test("whoever reads the clock is told the same as who asks for it", async () => {
  await setClock(database.url, realNow() + 30 * day);
  const { rows } = await client.query(
    "select at = billing_private.now() as agree, at > now() + interval '29 days' as held from billing.clock",
  );
  expect(rows).toEqual([{ agree: true, held: true }]);
});

test("released, the clock is the shipped one again and nothing is left", async () => {
  const other = await createTestDatabase();
  const pristine = await other.connect();
  const read = async () =>
    (
      await pristine.query(
        `select pg_get_functiondef('billing_private.now()'::regprocedure) as text,
           pg_get_viewdef('billing.clock'::regclass) as view,
           (select reloptions from pg_class where oid = 'billing.clock'::regclass) as options,
           to_regnamespace('local_stack') as schema`,
      )
    ).rows;
  try {
    const before = await read();
    await holdClock(other.url);
    await releaseClock(other.url);
    expect(await read()).toEqual(before);
  } finally {
    await other.drop();
  }
});
