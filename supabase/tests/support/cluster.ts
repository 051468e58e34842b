import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { projectRoot } from "../../../scripts/checks/index.ts";
import { prepareTemplate, startTestCluster } from "../../../scripts/checks/test-cluster.ts";
import { waitUntil } from "../../../scripts/lib/processes.ts";
import { stopPostgres } from "../../../scripts/postgres/index.ts";

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
  const cluster = await startTestCluster(clusterFolder(folder), { keepRunning: true });
  await prepareTemplate(cluster);
  const { url, adminUrl } = cluster;
  writeFileSync(`${ready}.new`, JSON.stringify({ url, adminUrl }));
  renameSync(`${ready}.new`, ready);
}

/** Names the folder of this run; nothing is started before a test asks for it. */
export function prepareRun(): void {
  const folder = join(projectRoot, ".local", `vitest-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  process.env[folderVariable] = folder;
}

export async function endRun(): Promise<void> {
  const folder = process.env[folderVariable];
  if (folder === undefined) return;
  if (existsSync(join(folder, "starting"))) {
    await stopPostgres(clusterFolder(folder), { deleteData: true });
  }
  rmSync(folder, { recursive: true, force: true });
}

function clusterFolder(folder: string): string {
  return join(folder, "postgres");
}
