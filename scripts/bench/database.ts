/** The throw-away database that is measured: durable as a real one, and filled with data. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { Client } from "pg";
import {
  createDatabase,
  inDatabase,
  removeCluster,
  throwAwayFolder,
  withAdmin,
} from "../checks/test-cluster.ts";
import { freePort } from "../lib/ports.ts";
import { UserError } from "../lib/terminal.ts";
import { migrate, seed, startPostgres } from "../postgres/index.ts";
import { runningCluster } from "../postgres/cluster.ts";
import { peerPackage, peerSchemas } from "./contenders.ts";
import type { LifeTemplates } from "./events.ts";
import { createPgbench, type Pgbench } from "./pgbench.ts";
import { startWorkers, type Workers } from "./workers.ts";

export interface BenchDatabase {
  version: string;
  pgbench: Pgbench;
  /** In another database, of ten thousand accounts. */
  smallPgbench: Pgbench;
  workers: Workers;
  templates: LifeTemplates;
  /** As postgres, and as authenticator in the role service_role. */
  ownerUrl: string;
  serviceUrl: string;
  /** As the superuser. */
  withAdmin<T>(work: (client: Client) => Promise<T>): Promise<T>;
  stop(): Promise<void>;
}

/** Not `postgres`, in which pg_cron would run the scheduled jobs in between. */
const name = "bench";
const smallName = "bench_small";

export async function createBenchDatabase(templates: LifeTemplates): Promise<BenchDatabase> {
  const folder = await throwAwayFolder("bench");
  const port = await freePort();
  const postgres = await startPostgres({
    directory: folder,
    kind: "system",
    port,
    fresh: true,
    verbose: false,
  });
  const stop = async () => {
    await postgres.stop();
    await removeCluster(folder);
  };

  try {
    const { adminUrl, binDir } = postgres;
    if (adminUrl === null || binDir === null) {
      throw new UserError("The benchmark needs a Postgres of its own.");
    }
    const pgbenchIn = (database: string) =>
      createPgbench({ binDir, port, database, folder: join(folder, "pgbench") });
    const pgbench = await pgbenchIn(name);
    await createDatabase({ ...postgres, adminUrl, binDir }, name);
    await migrate(inDatabase(postgres.url, name));
    await seed(inDatabase(postgres.url, name));
    const asAdmin = <T>(work: (client: Client) => Promise<T>) =>
      withAdmin(inDatabase(adminUrl, name), work);
    const ownerUrl = inDatabase(postgres.url, name);
    await withAdmin(adminUrl, (client) =>
      client.query(`create database ${smallName} template ${name} owner postgres`),
    );
    await withAdmin(inDatabase(adminUrl, smallName), (client) => run(client, "small_data.sql"));
    await installPeer(ownerUrl);
    await asAdmin((client) => fill(client, templates));
    const workers = startWorkers({ serverPid: runningCluster(folder)?.pid ?? NaN });
    return {
      version: postgres.version,
      pgbench,
      smallPgbench: await pgbenchIn(smallName),
      workers,
      templates,
      ownerUrl,
      serviceUrl: serviceUrl(ownerUrl),
      withAdmin: asAdmin,
      stop: async () => {
        workers.stop();
        await stop();
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

function serviceUrl(ownerUrl: string): string {
  const url = new URL(ownerUrl);
  url.username = "authenticator";
  url.searchParams.set("options", "-c role=service_role -c statement_timeout=0");
  return url.toString();
}

/** Its migrations work under one name of the schema alone: the second set of tables is a copy. */
async function installPeer(databaseUrl: string): Promise<void> {
  const logger = { info: () => {}, error: (error: unknown) => console.error(error) };
  const [schema, copy] = peerSchemas;
  await peerPackage().runMigrations({ databaseUrl, schema, logger });
  await withAdmin(databaseUrl, async (client) => {
    await client.query(`create schema ${copy} authorization postgres`);
    const { rows } = await client.query<{ name: string }>(
      "select tablename as name from pg_tables where schemaname = $1",
      [schema],
    );
    await client.query("set role postgres");
    for (const { name } of rows) {
      await client.query(`create table ${copy}.${name} (like ${schema}.${name} including all)`);
    }
  });
}

async function fill(client: Client, { customerId }: LifeTemplates): Promise<void> {
  await client.query(`
    create schema bench;
    create table bench.names (customer_id text);
    insert into bench.names values ('${customerId}');
  `);
  await run(client, "data.sql");
}

async function run(client: Client, file: string): Promise<void> {
  await client.query(readFileSync(new URL(file, import.meta.url), "utf8"));
  await client.query("vacuum analyze");
  await client.query("checkpoint");
}
