import { readFileSync } from "node:fs";
import { join } from "node:path";
import { migrate, seed } from "../postgres/index.ts";
import { projectRoot } from "./index.ts";
import type { Outcome } from "./outcome.ts";
import { startTestCluster, throwAwayFolder, withAdmin } from "./test-cluster.ts";

/**
 * The newest Postgres there is, from npm and without pg_cron or pgTAP: the migrations and the seed
 * install, and what `supabase/tests/smoke.sql` states is true.
 */
export async function runEmbeddedSmoke(): Promise<Outcome> {
  const cluster = await startTestCluster(await throwAwayFolder("embedded"), { kind: "embedded" });
  try {
    await migrate(cluster.url);
    await seed(cluster.url);
    const sql = readFileSync(join(projectRoot, "supabase/tests/smoke.sql"), "utf8");
    const statements = await withAdmin(cluster.url, async (client) => {
      const results = await client.query<{ description?: string; ok?: boolean }>(sql);
      return [results].flat().flatMap(({ rows }) => rows);
    });
    const stated = statements.filter(({ ok }) => ok !== undefined);
    const untrue = stated.filter(({ ok }) => ok !== true);
    if (stated.length === 0) throw new Error("smoke.sql states nothing.");
    return {
      passed: stated.length - untrue.length,
      failed: untrue.length,
      skipped: 0,
      problems: untrue.map(({ description }) => `not so: ${description}`),
      remark: `Postgres ${cluster.version}`,
    };
  } finally {
    await cluster.stop();
  }
}
