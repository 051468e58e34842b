// scripts/stack/errands: what pg_cron and pg_net do on a host, done by the stack.

import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import type { Client } from "pg";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { waitUntil } from "../../../scripts/lib/processes.ts";
import { startDoorbell, startErrand, startHeartbeat } from "../../../scripts/stack/errands.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";

let database: TestDatabase;
let client: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  client = await database.connect();
});

afterAll(async () => {
  await database.drop();
});

afterEach(() => {
  vi.restoreAllMocks();
});

async function taskRuns(): Promise<number> {
  const { rows } = await client.query(
    "select count(*)::integer as n from billing_private.task_runs",
  );
  return rows[0].n;
}

test("the heartbeat runs due tasks by itself, until it is stopped", async () => {
  const heartbeat = startHeartbeat({ databaseUrl: database.url, everyMs: 20 });
  await waitUntil("a task run", async () => (await taskRuns()) > 0, 10_000);
  await heartbeat.stop();

  await client.query("truncate billing_private.task_runs");
  await client.query("update billing_private.tasks set next_run_at = billing_private.now()");
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(await taskRuns()).toBe(0);
});

test("a heartbeat without an interval beats when asked", async () => {
  const heartbeat = startHeartbeat({ databaseUrl: database.url, everyMs: null });
  await client.query("truncate billing_private.task_runs");
  await client.query("update billing_private.tasks set next_run_at = billing_private.now()");
  await heartbeat.now();
  expect(await taskRuns()).toBeGreaterThan(0);
  await heartbeat.stop();
});

test("a heartbeat that is asked for waits for one that is at work, and then runs what is due", async () => {
  const heartbeat = startHeartbeat({ databaseUrl: database.url, everyMs: null });
  await client.query("truncate billing_private.task_runs");
  await client.query("update billing_private.tasks set next_run_at = billing_private.now()");
  await client.query("begin");
  await client.query("select billing_private.try_task_lock()");
  const asked = heartbeat.now();
  await waitUntil(
    "somebody who waits",
    async () => {
      const { rowCount } = await client.query(
        "select from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())",
      );
      return rowCount === 1;
    },
    10_000,
  );
  expect(await taskRuns()).toBe(0);
  await client.query("commit");
  await asked;
  expect(await taskRuns()).toBeGreaterThan(0);
  await heartbeat.stop();
});

test("the doorbell rings the dispatcher with the secret key, and only when a command is due", async () => {
  const calls: { url: string | undefined; headers: IncomingHttpHeaders }[] = [];
  let status = 200;
  const dispatcher = createServer((request, response) => {
    calls.push({ url: request.url, headers: request.headers });
    response.writeHead(status).end("{}");
  });
  await new Promise<void>((resolve) => dispatcher.listen(0, "127.0.0.1", resolve));
  const doorbell = startDoorbell({
    databaseUrl: database.url,
    apiUrl: `http://127.0.0.1:${(dispatcher.address() as AddressInfo).port}`,
    secretKey: "sb_secret_x",
    everyMs: null,
  });

  try {
    await doorbell.now();
    expect(calls).toHaveLength(0);

    const account = "10000000-0000-0000-0000-000000000001";
    await client.query("insert into billing.accounts (id) values ($1)", [account]);
    await client.query(
      `insert into billing_private.commands (kind, account_id, path, next_attempt_at)
       values ('create_customer', $1, '/v1/customers', billing_private.now() + interval '1 hour')`,
      [account],
    );
    await doorbell.now();
    expect(calls).toHaveLength(0);

    await client.query(
      "update billing_private.commands set next_attempt_at = billing_private.now()",
    );
    await doorbell.now();
    expect(calls).toHaveLength(1);
    expect(calls[0]).toMatchObject({
      url: "/functions/v1/checkout/dispatch",
      headers: { apikey: "sb_secret_x" },
    });

    status = 500;
    await expect(doorbell.now()).rejects.toThrow("500");
  } finally {
    await doorbell.stop();
    dispatcher.close();
  }
});

test("a failing errand goes on, and says the same thing once", async () => {
  const said = vi.spyOn(console, "log").mockImplementation(() => undefined);
  let runs = 0;
  const errand = startErrand("The errand", 5, async () => {
    runs += 1;
    if (runs < 4) throw new Error("no luck");
  });
  await waitUntil("five runs", async () => runs >= 5, 5_000);
  await errand.stop();
  expect(said.mock.calls.map(([line]) => String(line))).toEqual([
    expect.stringContaining("The errand failed: no luck"),
  ]);
});

test("an errand asked for while it runs, runs again afterwards; a stop waits for both", async () => {
  const steps: string[] = [];
  const errand = startErrand("The errand", null, async () => {
    steps.push("start");
    await new Promise((resolve) => setTimeout(resolve, 20));
    steps.push("end");
  });
  void errand.now();
  void errand.now();
  await new Promise((resolve) => setTimeout(resolve, 5));
  await errand.stop();
  expect(steps).toEqual(["start", "end", "start", "end"]);
});

test("a stop does not wait for an answer that never comes", async () => {
  const errand = startErrand(
    "The errand",
    null,
    (signal) =>
      new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason))),
  );
  const run = errand.now();
  await new Promise((resolve) => setTimeout(resolve, 5));
  await errand.stop();
  await expect(run).rejects.toMatchObject({ name: "AbortError" });
});
