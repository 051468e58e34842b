// scripts/stack: everything starts together, works together, and ends together.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { createClient } from "@supabase/supabase-js";
import Stripe from "stripe";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import ws from "ws";
import { freePort, isFree } from "../../../scripts/lib/ports.ts";
import { waitUntil } from "../../../scripts/lib/processes.ts";
import { UserError } from "../../../scripts/lib/terminal.ts";
import { stopPostgres } from "../../../scripts/postgres/index.ts";
import { withClient } from "../../../scripts/stack/database.ts";
import { startStack, stripeFromEnvironment, type Stack } from "../../../scripts/stack/index.ts";

const directory = mkdtempSync(join(tmpdir(), "pg-subscriptions-stack-"));
chmodSync(directory, 0o755);
const seedFile = join(directory, "seed.sql");
const day = 86_400;

const catalog = `
  insert into billing.plans (key, name, tier_rank) values
    ('member', 'Member', 1),
    ('plus', 'Plus', 2);
  insert into billing.prices (key, plan_id, currency, unit_amount_minor, billing_interval)
  select 'member_monthly', id, 'eur', 900, 'month' from billing.plans where key = 'member'
  union all
  select 'plus_yearly', id, 'eur', 19000, 'year' from billing.plans where key = 'plus';
`;

async function choosePorts() {
  return {
    api: await freePort(),
    lite: await freePort(),
    database: await freePort(),
    stripe: await freePort(),
  };
}

beforeAll(() => {
  writeFileSync(seedFile, catalog);
});

afterAll(async () => {
  await stopPostgres(join(directory, "database"), { deleteData: true });
  rmSync(directory, { recursive: true, force: true });
});

const quiet = { directory, seedFile, quick: true, verbose: false, signals: false } as const;

describe("a running stack", () => {
  let stack: Stack;
  let ports: Awaited<ReturnType<typeof choosePorts>>;

  beforeAll(async () => {
    ports = await choosePorts();
    stack = await startStack({
      ...quiet,
      ports,
      fresh: true,
      simulator: { flows: false },
      heartbeatMs: null,
      doorbellMs: null,
    });
  });

  afterAll(async () => {
    await stack.stop();
  });

  /** The catalog's ids as the database has them, and as Stripe does. */
  async function readCatalog() {
    const { rows: here } = await withClient(stack.database.url, (client) =>
      client.query<{ key: string; price: string; product: string }>(
        `select prices.key, prices.stripe_price_id as price, plans.stripe_product_id as product
         from billing.prices
         join billing.plans on plans.id = prices.plan_id
         order by prices.key`,
      ),
    );
    const { hostname, port } = new URL(stack.urls.stripe ?? "");
    const apiKey = stack.simulator?.apiKey ?? "";
    const stripe = new Stripe(apiKey, { host: hostname, port, protocol: "http" });
    const { data } = await stripe.prices.list();
    const atStripe = data
      .map(({ id, lookup_key, product }) => ({ key: lookup_key, price: id, product }))
      .sort((one, other) => String(one.key).localeCompare(String(other.key)));
    return { here, atStripe };
  }

  async function readCommands() {
    const { rows } = await withClient(stack.database.url, (client) =>
      client.query(
        `select kind, status, count(*)::integer
         from billing_private.commands
         where subject_id in (select id from billing.plans union select id from billing.prices)
         group by 1, 2
         order by 1`,
      ),
    );
    return rows;
  }

  const published = [
    { kind: "create_price", status: "succeeded", count: 2 },
    { kind: "create_product", status: "succeeded", count: 2 },
  ];

  test("has had the catalog made at Stripe by its own commands, once", async () => {
    const { here, atStripe } = await readCatalog();
    expect(here.map(({ key, product }) => [key, product])).toEqual([
      ["member_monthly", "prod_member"],
      ["plus_yearly", "prod_plus"],
    ]);
    expect(atStripe).toEqual(here);
    expect(await readCommands()).toEqual(published);
  });

  test("takes a reader from sign-up over checkout and payment to the first renewal", async () => {
    const client = createClient(stack.urls.api, stack.keys.publishable, {
      auth: { persistSession: false },
      db: { schema: "billing" },
      realtime: { transport: ws as never },
    });
    const { data: signedUp } = await client.auth.signUp({
      email: "reader@example.com",
      password: "long-enough-1",
    });
    expect(signedUp.session).not.toBeNull();

    const checkout = await client.functions.invoke("checkout", {
      body: {
        price_key: "member_monthly",
        success_url: "https://books.example/thanks",
        cancel_url: "https://books.example/plans",
      },
    });
    expect(checkout.error).toBeNull();
    const sessionId = /cs_test_\w+/.exec(String(checkout.data.data.url))?.[0] ?? "";
    await stack.simulator?.pay(sessionId);

    const mine = async () => (await client.rpc("my_subscription")).data as Record<string, string>[];
    const [first] = await mine();
    expect(first).toMatchObject({ status: "active", price_key: "member_monthly" });

    await stack.clock.advanceBy(32 * day);
    await stack.heartbeat.now();
    await stack.doorbell.now();
    const [second] = await mine();
    expect(second).toMatchObject({
      status: "active",
      current_period_start: first?.["current_period_end"],
    });
    expect(stack.simulator?.delivery.attempts().filter(({ ok }) => !ok)).toEqual([]);
  });

  test("has nothing listening once it is stopped, and may be stopped twice", async () => {
    await stack.stop();
    await stack.stop();
    for (const port of Object.values(ports))
      expect([port, await isFree(port)]).toEqual([port, true]);
  });

  test("goes on where it was when it is started again", async () => {
    const { keys } = stack;
    stack = await startStack({ ...quiet, ports, simulator: { flows: false }, heartbeatMs: null });
    expect(stack.keys).toEqual(keys);
    // Time has not gone back, for Stripe either.
    expect(await stack.clock.now()).toBeGreaterThan(Date.now() / 1000 + 31 * day);
    expect(stack.simulator?.clock.now()).toBeGreaterThan(Date.now() / 1000 + 31 * day);
    const { rows } = await withClient(stack.database.url, (client) =>
      client.query("select count(*)::integer as subscriptions from billing.subscriptions"),
    );
    expect(rows).toEqual([{ subscriptions: 1 }]);
    // The simulator forgets when it ends: it has the catalog under the ids by which the database knows it.
    const { here, atStripe } = await readCatalog();
    expect(atStripe).toEqual(here);
    expect(await readCommands()).toEqual(published);
  });
});

test("when a late part cannot start, what was started is ended", async () => {
  const ports = await choosePorts();
  const intruder = createServer();
  await new Promise<void>((resolve) => intruder.listen(ports.api, "127.0.0.1", resolve));
  try {
    await expect(startStack({ ...quiet, ports, fresh: true })).rejects.toThrow("EADDRINUSE");
  } finally {
    await new Promise((resolve) => intruder.close(resolve));
  }
  for (const port of Object.values(ports)) expect([port, await isFree(port)]).toEqual([port, true]);
});

describe("a program that starts the stack and is told to end", () => {
  const program = join(directory, "program.mts");
  const module = pathToFileURL(join(process.cwd(), "scripts/stack/index.ts")).href;

  async function startProgram(ports: Record<string, number>) {
    writeFileSync(
      program,
      `import { startStack } from ${JSON.stringify(module)};
       await startStack(${JSON.stringify({ ...quiet, ports, signals: true, verbose: true })});`,
    );
    const loader = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;
    const child = spawn(process.execPath, ["--import", loader, program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let said = "";
    child.stdout.on("data", (chunk) => (said += chunk));
    const exit = once(child, "exit");
    return {
      child,
      exit,
      untilSaid: (text: string) => waitUntil(text, async () => said.includes(text), 50_000),
    };
  }

  test.each([
    ["when all is up", "The stack is up", "SIGTERM", 143],
    ["halfway through the start", "Data API", "SIGINT", 130],
  ] as const)("leaves no process behind, %s", async (_, moment, signal, code) => {
    const ports = await choosePorts();
    const { child, exit, untilSaid } = await startProgram(ports);
    await untilSaid(moment);
    child.kill(signal);
    expect(await exit).toEqual([code, null]);
    for (const port of Object.values(ports)) {
      await waitUntil(`port ${port} to be free`, () => isFree(port), 5_000);
    }
  });
});

describe("Stripe itself", () => {
  test("is used when the environment has its test key and a webhook secret", () => {
    expect(stripeFromEnvironment({})).toBeUndefined();
    expect(stripeFromEnvironment({ STRIPE_SECRET_KEY: " " })).toBeUndefined();
    expect(
      stripeFromEnvironment({
        STRIPE_SECRET_KEY: "sk_test_1 ",
        STRIPE_WEBHOOK_SECRET: "whsec_1\n",
      }),
    ).toEqual({ apiKey: "sk_test_1", webhookSecret: "whsec_1" });
  });

  test("is never used with a live key, or without a way to hear from it", () => {
    for (const env of [
      { STRIPE_SECRET_KEY: "sk_live_1", STRIPE_WEBHOOK_SECRET: "whsec_1" },
      { STRIPE_SECRET_KEY: "sk_test_1" },
    ]) {
      expect(() => stripeFromEnvironment(env)).toThrow(UserError);
    }
  });
});
