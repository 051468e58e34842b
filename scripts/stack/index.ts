/** Everything an application talks to, on this machine: Postgres, Data API, Auth, Studio, functions, Stripe. */

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { requirePort, type PortName } from "../lib/ports.ts";
import { done, note, UserError } from "../lib/terminal.ts";
import { migrate, seed, startPostgres, type Postgres } from "../postgres/index.ts";
import {
  createStripeSimulator,
  type StripeSimulator,
  type StripeSimulatorOptions,
} from "../stripe-simulator/index.ts";
import { publishCatalog, recallCatalog } from "./catalog.ts";
import {
  createClock,
  followClock,
  holdClock,
  readClock,
  releaseClock,
  type Clock,
} from "./clock.ts";
import { withClient } from "./database.ts";
import { startDoorbell, startHeartbeat, type Errand } from "./errands.ts";
import { startFunctions, type StripeAccess } from "./functions.ts";
import { startGateway } from "./gateway.ts";
import { keepKeys, type ApiKeys } from "./keys.ts";
import { startLite } from "./lite.ts";

export { createClock, holdClock, readClock, releaseClock, setClock, type Clock } from "./clock.ts";
export type { ApiKeys } from "./keys.ts";

export interface StackOptions {
  /** For the database, logs, keys and whatever the parts write. */
  directory: string;
  /** A port left out is the configured one of scripts/lib/ports.ts. */
  ports?: Partial<Record<PortName, number>>;
  /** A database to use as it is instead of making one. It gets the migrations, and its own clock back at the end. */
  databaseUrl?: string | undefined;
  /** Which Postgres to make; otherwise as startPostgres chooses. */
  kind?: "system" | "embedded" | undefined;
  /** Start with an empty database. */
  fresh?: boolean;
  /** For tests: no protection against a power failure, and faster for it. */
  quick?: boolean;
  /** Where the sample catalog comes from; null for none. It is loaded only where there are no plans yet. */
  seedFile?: string | null;
  /** Stripe itself, in test mode, instead of the simulator. */
  stripe?: StripeAccess | undefined;
  simulator?: Pick<StripeSimulatorOptions, "flows" | "rules" | "seed" | "log">;
  /** How often scheduled tasks run where pg_cron is missing; null for only when asked. Default a minute. */
  heartbeatMs?: number | null;
  /** How often waiting commands are looked for; null for only when asked. Default three seconds. */
  doorbellMs?: number | null;
  /** End everything on SIGINT and SIGTERM, then the program (default true). */
  signals?: boolean;
  /** Say what is being started (default true). */
  verbose?: boolean;
}

export interface Stack {
  urls: {
    /** Data API, Auth and functions, as a hosted project's one URL: what supabase-js is given. */
    api: string;
    studio: string;
    functions: string;
    /** The simulator's API and pages; null with Stripe itself. */
    stripe: string | null;
  };
  keys: ApiKeys;
  database: Postgres;
  simulator: StripeSimulator | null;
  clock: Clock;
  /** Runs due tasks; by itself only where pg_cron is missing. */
  heartbeat: Errand;
  /** Has waiting commands sent to Stripe. */
  doorbell: Errand;
  logFiles: string[];
  /** Ends everything that was started, last first. */
  stop(): Promise<void>;
}

/** What the Data API exposes, as in supabase/config.toml. */
export const exposedSchemas = ["public", "billing", "billing_admin"];

/**
 * Starts the whole stack; whatever has been started is ended again when a later part fails. With a held clock in
 * the database, which follows the simulator's.
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const { directory } = options;
  mkdirSync(directory, { recursive: true });
  const undo: (() => Promise<void>)[] = [];
  const stop = once(async () => {
    const failures: unknown[] = [];
    for (const end of undo.splice(0).reverse()) {
      await end().catch((error: unknown) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  });
  if (options.signals !== false) undo.push(endOnSignals(stop));

  try {
    return { ...(await startParts(options, undo)), stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function startParts(
  options: StackOptions,
  undo: (() => Promise<void>)[],
): Promise<Omit<Stack, "stop">> {
  const { directory, verbose = true } = options;
  const say = verbose ? note : () => undefined;
  const ports = await choosePorts(options);
  const keys = keepKeys(directory);

  const database = await startPostgres({
    directory: join(directory, "database"),
    port: ports.database,
    fresh: options.fresh ?? false,
    quick: options.quick ?? false,
    databaseUrl: options.databaseUrl,
    kind: options.kind,
    verbose,
  });
  undo.push(database.stop);
  await prepareDatabase(database, options, undo);

  const lite = await startLite({
    databaseUrl: database.url,
    port: ports.lite,
    schemas: exposedSchemas,
    directory: join(directory, "lite"),
    keys,
  });
  undo.push(lite.stop);
  say(`Data API, Auth and Studio: Supabase Lite. ${lite.logFile}`);

  const apiUrl = `http://127.0.0.1:${ports.api}`;
  const simulator = await startSimulator(options, database.url, ports.stripe, apiUrl);
  if (simulator !== null) undo.push(simulator.stop);
  const stripe = options.stripe ?? accessTo(simulator);

  const functions = await startFunctions({
    apiUrl,
    keys,
    stripe,
    directory: join(directory, "functions"),
  });
  undo.push(functions.stop);
  say(`Functions: ${Object.keys(functions.urls).join(", ")}, under Deno.`);

  const gateway = await startGateway({
    port: ports.api,
    apiUrl: lite.url,
    functions: functions.urls,
    studioUrl: lite.url,
  });
  undo.push(gateway.stop);

  if (database.hasCron) await announceHeartbeat(database.url);
  const heartbeat = startHeartbeat({
    databaseUrl: database.url,
    everyMs: database.hasCron ? null : options.heartbeatMs,
  });
  undo.push(heartbeat.stop);
  const doorbell = startDoorbell({
    databaseUrl: database.url,
    apiUrl,
    secretKey: keys.secret,
    everyMs: options.doorbellMs,
  });
  undo.push(doorbell.stop);

  if (simulator !== null) {
    await recallCatalog(database.url, simulator);
    await simulator.delivery.idle();
  }
  const { products, prices } = await publishCatalog(database.url, doorbell);
  await simulator?.delivery.idle();
  const account = simulator === null ? "your test account" : "the simulator";
  say(`Stripe: ${account}, with ${products} products and ${prices} prices of the catalog.`);
  if (simulator === null) {
    say(
      `Its events need a way here: stripe listen --forward-to ${apiUrl}/functions/v1/stripe-webhook`,
    );
  }
  if (verbose) done(`The stack is up: ${apiUrl}`);

  return {
    urls: {
      api: apiUrl,
      studio: lite.url,
      functions: `${apiUrl}/functions/v1`,
      stripe: simulator?.url ?? null,
    },
    keys,
    database,
    simulator,
    clock: createClock({ databaseUrl: database.url, simulator: simulator?.clock }),
    heartbeat,
    doorbell,
    logFiles: [lite.logFile, ...functions.logFiles],
  };
}

async function choosePorts({
  ports = {},
  databaseUrl,
  stripe,
}: StackOptions): Promise<Record<"api" | "database" | "lite" | "stripe", number>> {
  const choose = async (name: PortName) => ports[name] ?? (await requirePort(name));
  return {
    api: await choose("api"),
    lite: await choose("lite"),
    // A given database and Stripe itself need none here.
    database: databaseUrl ? 0 : await choose("database"),
    stripe: stripe ? 0 : await choose("stripe"),
  };
}

async function prepareDatabase(
  database: Postgres,
  { seedFile, verbose = true }: StackOptions,
  undo: (() => Promise<void>)[],
): Promise<void> {
  const applied = await migrate(database.url);
  if (verbose && applied.length > 0) note(`Applied ${applied.length} migrations.`);
  if (seedFile !== null && (await hasNoPlans(database.url))) {
    await seed(database.url, seedFile === undefined ? undefined : [seedFile]);
  }
  await holdClock(database.url);
  if (database.kind === "given") undo.push(() => releaseClock(database.url));
}

/**
 * pg_cron can miss a job that is scheduled in the moment it first reads its list, and then never looks again
 * (citusdata/pg_cron#362). Scheduling it once more, now that the database has been up for a while, is harmless.
 */
function announceHeartbeat(databaseUrl: string): Promise<void> {
  return withClient(databaseUrl, async (client) => {
    await client.query("select billing_private.schedule_heartbeat()");
  });
}

function hasNoPlans(databaseUrl: string): Promise<boolean> {
  return withClient(databaseUrl, async (client) => {
    const { rowCount } = await client.query("select from billing.plans limit 1");
    return rowCount === 0;
  });
}

async function startSimulator(
  { stripe, simulator }: StackOptions,
  databaseUrl: string,
  port: number,
  apiUrl: string,
): Promise<StripeSimulator | null> {
  if (stripe !== undefined) return null;
  return createStripeSimulator({
    flows: true,
    ...simulator,
    port,
    // A database that was advanced by an earlier run is where Stripe goes on.
    startAt: Math.floor(await readClock(databaseUrl)),
    webhook: { url: `${apiUrl}/functions/v1/stripe-webhook`, secret: "whsec_local_stack" },
    onTick: (seconds) => followClock(databaseUrl, seconds),
  });
}

function accessTo(simulator: StripeSimulator | null): StripeAccess {
  if (simulator === null) throw new Error("There is neither Stripe nor a simulator.");
  const { apiKey, url, webhookSecret } = simulator;
  return { apiKey, apiBase: url, webhookSecret };
}

/** Stripe's own test mode, when the environment names its keys. Live keys are refused: this is a place to play. */
export function stripeFromEnvironment(
  env: Record<string, string | undefined>,
): StripeAccess | undefined {
  const apiKey = env["STRIPE_SECRET_KEY"]?.trim();
  if (!apiKey) return undefined;
  if (!/^[rs]k_test_/.test(apiKey)) {
    throw new UserError("STRIPE_SECRET_KEY is not a test key (sk_test_…); nothing was started.");
  }
  const webhookSecret = env["STRIPE_WEBHOOK_SECRET"]?.trim();
  if (!webhookSecret) {
    throw new UserError(
      "STRIPE_SECRET_KEY is set, so STRIPE_WEBHOOK_SECRET is needed too: `stripe listen --print-secret` shows the one for this machine.",
    );
  }
  return { apiKey, webhookSecret };
}

function endOnSignals(stop: () => Promise<void>): () => Promise<void> {
  const exitCodes = { SIGINT: 130, SIGTERM: 143 } as const;
  const end = (signal: keyof typeof exitCodes) => {
    void stop().finally(() => process.exit(exitCodes[signal]));
  };
  const signals = Object.keys(exitCodes) as (keyof typeof exitCodes)[];
  for (const signal of signals) process.on(signal, end);
  return async () => {
    for (const signal of signals) process.removeListener(signal, end);
  };
}

function once(work: () => Promise<void>): () => Promise<void> {
  let result: Promise<void> | undefined;
  return () => (result ??= work());
}
