import { mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { Client } from "pg";
import { freePort } from "../lib/ports.ts";
import {
  bootstrap,
  migrate,
  startPostgres,
  stopPostgres,
  type Postgres,
} from "../postgres/index.ts";
import { projectRoot } from "./index.ts";

/** A throw-away cluster, of which everything may be asked; stopping it deletes it. */
export interface TestCluster extends Postgres {
  adminUrl: string;
  binDir: string;
}

/** What tests copy: a migrated database, without seed and without pg_cron. */
export const templateName = "pg_subscriptions_template";

/**
 * A folder for a cluster of this process alone, so that several may run at once; what processes that
 * were killed left behind under the same name is removed, their servers included.
 */
export async function throwAwayFolder(name: string): Promise<string> {
  const parent = join(projectRoot, ".local");
  mkdirSync(parent, { recursive: true });
  for (const entry of readdirSync(parent)) {
    const pid = Number(entry.startsWith(`${name}-`) && entry.slice(name.length + 1));
    if (pid > 0 && !isAlive(pid)) await removeCluster(join(parent, entry));
  }
  return join(parent, `${name}-${process.pid}`);
}

export async function removeCluster(folder: string): Promise<void> {
  await stopPostgres(folder, { deleteData: true });
  rmSync(folder, { recursive: true, force: true });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

export interface TestClusterOptions {
  kind?: "system" | "embedded";
  /** Outlive this program; somebody else ends it. */
  keepRunning?: boolean;
}

/** Starts a new, empty cluster for tests on a free port; one left in the folder is thrown away. */
export async function startTestCluster(
  directory: string,
  { kind, keepRunning = false }: TestClusterOptions = {},
): Promise<TestCluster> {
  const postgres = await startPostgres({
    directory,
    kind,
    keepRunning,
    port: await freePort(),
    fresh: true,
    quick: true,
    testTools: kind !== "embedded",
    verbose: false,
  });
  const { adminUrl, binDir } = postgres;
  if (adminUrl === null || binDir === null) throw new Error("Tests need a cluster of their own.");
  const stop = async () => {
    await postgres.stop();
    await removeCluster(directory);
  };
  return { ...postgres, adminUrl, binDir, stop };
}

/** The same server and role, another database. */
export function inDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.toString();
}

export async function withAdmin<T>(url: string, work: (client: Client) => Promise<T>): Promise<T> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** Makes another database of the cluster, set up as a hosted project and without migrations. */
export async function createDatabase({ adminUrl }: TestCluster, name: string): Promise<void> {
  await withAdmin(adminUrl, (client) => client.query(`create database ${name} owner postgres`));
  await bootstrap(inDatabase(adminUrl, name));
}

/** Makes the migrated database that tests copy. */
export async function prepareTemplate(cluster: TestCluster): Promise<void> {
  await createDatabase(cluster, templateName);
  await migrate(inDatabase(cluster.url, templateName));
}

/** Installs an extension that only tests use; false where the server does not have it. */
export function addTestExtension({ adminUrl }: TestCluster, name: string): Promise<boolean> {
  return withAdmin(adminUrl, async (client) => {
    const { rowCount } = await client.query("select from pg_available_extensions where name = $1", [
      name,
    ]);
    if (rowCount === 0) return false;
    await client.query(`create extension if not exists ${name} with schema extensions`);
    return true;
  });
}
