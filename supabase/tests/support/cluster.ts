import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  prepareTemplate,
  removeCluster,
  startTestCluster,
  throwAwayFolder,
  withAdmin,
} from "../../../scripts/checks/test-cluster.ts";
import { waitUntil } from "../../../scripts/lib/processes.ts";

export interface SharedCluster {
  url: string;
  adminUrl: string;
}

const folderVariable = "PG_SUBSCRIPTIONS_TEST_RUN";

/**
 * The cluster all test files share. `npm test` names its own in the environment; when vitest is run by
 * hand, the first test file that asks starts one, and the end of the run removes it.
 */
export async function sharedCluster(): Promise<SharedCluster> {
  const url = process.env["PG_SUBSCRIPTIONS_TEST_DATABASE_URL"];
  const adminUrl = process.env["PG_SUBSCRIPTIONS_TEST_ADMIN_URL"];
  if (url && adminUrl) return { url, adminUrl };

  const folder = process.env[folderVariable];
  if (folder === undefined) throw new Error("vitest.config.ts does not name global-setup.ts.");
  const ready = join(folder, "ready.json");
  if (isFirst(folder)) await startFor(folder, ready);
  await waitUntil("the tests' Postgres", async () => existsSync(ready), 80_000);
  return JSON.parse(readFileSync(ready, "utf8")) as SharedCluster;
}

/** Test files run in processes of their own; making a folder is something only one of them can do. */
function isFirst(folder: string): boolean {
  try {
    mkdirSync(join(folder, "starting"));
    return true;
  } catch {
    return false;
  }
}

async function startFor(folder: string, ready: string): Promise<void> {
  const cluster = await startTestCluster(folder, { keepRunning: true });
  await prepareTemplate(cluster);
  const { url, adminUrl } = cluster;
  const pid = await withAdmin(adminUrl, async (client) => {
    const { rows } = await client.query<{ pid: number }>(
      "select split_part(pg_read_file('postmaster.pid'), e'\\n', 1)::integer as pid",
    );
    return rows[0]?.pid;
  });
  writeFileSync(`${ready}.new`, JSON.stringify({ url, adminUrl, pid }));
  renameSync(`${ready}.new`, ready);
}

/** Names the folder of this run. Nothing is started before a test asks for it. */
export async function prepareRun(): Promise<void> {
  const folder = await throwAwayFolder("vitest");
  mkdirSync(folder, { recursive: true });
  process.env[folderVariable] = folder;
  // An interrupted run gets no teardown, only this.
  process.once("exit", () => endServer(join(folder, "ready.json")));
}

function endServer(ready: string): void {
  if (!existsSync(ready)) return;
  const { pid } = JSON.parse(readFileSync(ready, "utf8")) as { pid: number };
  try {
    process.kill(pid, "SIGINT");
  } catch {
    // It has ended already.
  }
}

export async function endRun(): Promise<void> {
  const folder = process.env[folderVariable];
  if (folder !== undefined) await removeCluster(folder);
}
