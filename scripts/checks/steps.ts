import { existsSync } from "node:fs";
import { join, relative } from "node:path";
import { Client } from "pg";
import { run } from "../lib/processes.ts";
import { migrate } from "../postgres/index.ts";
import { advisorFindings, lintFindings } from "./advisors.ts";
import { changedFiles, generatedFiles } from "./generated.ts";
import { describeFinding, filesIn, projectRoot, readSources, sourceChecks } from "./index.ts";
import { checkOutcome, skippedOutcome, type Outcome } from "./outcome.ts";
import { runPgTap } from "./pgtap.ts";
import { checkReadme } from "./readme.ts";
import { dumpSchemas, firstDifference, pushMigrations } from "./schema-dump.ts";
import { runEmbeddedSmoke } from "./smoke.ts";
import {
  addTestExtension,
  createDatabase,
  inDatabase,
  prepareTemplate,
  startTestCluster,
  templateName,
  throwAwayFolder,
  type TestCluster,
} from "./test-cluster.ts";
import { runVitest } from "./vitest-run.ts";

export interface Step {
  name: string;
  /** What it makes sure of, for --help. */
  about: string;
  /** Needs the migrated cluster, which can be started ahead. */
  needsDatabase?: boolean;
  /** Its test files, which can be asked for one by one. */
  files?: string[];
  run(cluster: () => Promise<TestCluster>, files: string[]): Promise<Outcome>;
}

const pgTapFiles = projectFiles("supabase/tests", ".test.sql");
const vitestFiles = projectFiles("supabase/tests", ".test.ts");

function projectFiles(folder: string, ending: string): string[] {
  return filesIn(join(projectRoot, folder), ending).map((path) => relative(projectRoot, path));
}

/** A program of node_modules that is content when it exits with 0. */
function program(script: string, ...args: string[]): Step["run"] {
  return async () => {
    const { code, stdout, stderr } = await run(
      process.execPath,
      [join(projectRoot, "node_modules", script), ...args],
      { cwd: projectRoot },
    );
    return checkOutcome(code === 0 ? [] : [`${stdout}\n${stderr}`.trim()]);
  };
}

export const lintSteps: Step[] = [
  {
    name: "prettier",
    about: "every file is formatted",
    run: program("prettier/bin/prettier.cjs", "--check", "--log-level", "warn", "."),
  },
  { name: "tsc", about: "types agree", run: program("typescript/bin/tsc") },
  ...Object.entries(sourceChecks).map(([name, { about, check }]) => ({
    name,
    about,
    run: async () => checkOutcome(check(readSources()).map(describeFinding)),
  })),
  {
    name: "readme",
    about: "README's tables are what the database says",
    needsDatabase: true,
    run: async (cluster) => {
      const client = new Client({ connectionString: (await cluster()).url });
      await client.connect();
      try {
        const { migrations, readme } = readSources();
        return checkOutcome((await checkReadme(client, migrations, readme)).map(describeFinding));
      } finally {
        await client.end();
      }
    },
  },
  {
    name: "db-lint",
    about: "plpgsql_check has nothing to say (supabase db lint)",
    needsDatabase: true,
    run: async (cluster) => {
      const started = await cluster();
      if (!(await addTestExtension(started, "plpgsql_check"))) {
        return skippedOutcome(1, "this Postgres has no plpgsql_check");
      }
      return checkOutcome(await lintFindings(started.url));
    },
  },
  {
    name: "advisors",
    about: "Supabase's advisors have nothing to say (supabase db advisors)",
    needsDatabase: true,
    run: async (cluster) => checkOutcome(await advisorFindings((await cluster()).url)),
  },
];

export const testSteps: Step[] = [
  ...lintSteps,
  {
    name: "generated",
    about: "types and error codes are what the database says (npm run types)",
    needsDatabase: true,
    run: async (cluster) => {
      const changed = changedFiles(await generatedFiles((await cluster()).url));
      return checkOutcome(
        changed.map(({ path }) => `${path} is out of date; \`npm run types\` writes it anew`),
      );
    },
  },
  {
    name: "dump",
    about: "supabase db push and node-pg-migrate make the same schemas",
    needsDatabase: true,
    run: async (cluster) => {
      const started = await cluster();
      if (!existsSync(join(started.binDir, "pg_dump"))) {
        return skippedOutcome(1, "this Postgres comes without pg_dump");
      }
      return checkOutcome(await compareInstallations(started));
    },
  },
  {
    name: "pgtap",
    about: "the database's own tests (pg_prove)",
    needsDatabase: true,
    files: pgTapFiles,
    run: async (cluster, files) => {
      const started = await cluster();
      if (!started.hasTap || !(await addTestExtension(started, "pgtap"))) {
        return skippedOutcome(files.length, `this Postgres has no pgTAP for ${files.length} files`);
      }
      return runPgTap(started, files);
    },
  },
  {
    name: "embedded",
    about: "migrations, seed and a smoke test on the newest Postgres, from npm",
    run: runEmbeddedSmoke,
  },
  {
    name: "vitest",
    about: "functions, scripts, simulator, races and the whole, end to end",
    needsDatabase: true,
    files: vitestFiles,
    run: async (cluster, files) => {
      // A few files, picked to be fast, may not need a database; one that does starts it.
      if (files.length < vitestFiles.length) return runVitest(files, {});
      const { url, adminUrl } = await cluster();
      return runVitest(files, {
        PG_SUBSCRIPTIONS_TEST_DATABASE_URL: url,
        PG_SUBSCRIPTIONS_TEST_ADMIN_URL: adminUrl,
      });
    },
  },
];

async function compareInstallations(cluster: TestCluster): Promise<string[]> {
  const name = "pg_subscriptions_pushed";
  await createDatabase(cluster, name);
  await pushMigrations(inDatabase(cluster.url, name));
  const dump = (database: string) =>
    dumpSchemas(inDatabase(cluster.adminUrl, database), cluster.binDir);
  const difference = firstDifference(await dump(templateName), await dump(name));
  return difference === undefined ? [] : [`the schema dumps differ at ${difference}`];
}

/** Starts a cluster whose database `postgres` and whose template are migrated. */
export async function startMigratedCluster(): Promise<TestCluster> {
  const cluster = await startTestCluster(await throwAwayFolder("test"));
  try {
    await migrate(cluster.url);
    await prepareTemplate(cluster);
    return cluster;
  } catch (error) {
    await cluster.stop();
    throw error;
  }
}
