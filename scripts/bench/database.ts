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
import type { EventTemplate } from "./events.ts";
import { createPgbench, type Pgbench } from "./pgbench.ts";

export interface BenchDatabase {
  version: string;
  pgbench: Pgbench;
  /** As the superuser. */
  withAdmin<T>(work: (client: Client) => Promise<T>): Promise<T>;
  stop(): Promise<void>;
}

/** Not `postgres`, in which pg_cron would run the scheduled jobs in between. */
const name = "bench";

export async function createBenchDatabase(templates: EventTemplate[]): Promise<BenchDatabase> {
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
    const pgbench = await createPgbench({
      binDir,
      port,
      database: name,
      folder: join(folder, "pgbench"),
    });
    await createDatabase({ ...postgres, adminUrl, binDir }, name);
    await migrate(inDatabase(postgres.url, name));
    await seed(inDatabase(postgres.url, name));
    const asAdmin = <T>(work: (client: Client) => Promise<T>) =>
      withAdmin(inDatabase(adminUrl, name), work);
    await asAdmin((client) => fill(client, templates));
    return { version: postgres.version, pgbench, withAdmin: asAdmin, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function fill(client: Client, templates: EventTemplate[]): Promise<void> {
  await client.query(`
    create schema bench;
    create table bench.templates (kind integer, stage text, payload text);
  `);
  for (const { kind, stage, payload } of templates) {
    await client.query("insert into bench.templates values ($1, $2, $3)", [kind, stage, payload]);
  }
  await client.query(readFileSync(new URL("data.sql", import.meta.url), "utf8"));
  await client.query("vacuum analyze");
  await client.query("checkpoint");
}
