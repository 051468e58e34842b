import { mkdirSync, mkdtempSync, rmSync, cpSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { run } from "../lib/processes.ts";
import { projectRoot } from "./index.ts";
import { supabase } from "./supabase-cli.ts";

/** The definitions of the three schemas as `pg_dump` writes them. */
export async function dumpSchemas(url: string, binDir: string): Promise<string> {
  const { code, stdout, stderr } = await run(join(binDir, "pg_dump"), [
    ...["--schema-only", `--dbname=${url}`],
    ...["billing", "billing_admin", "billing_private"].map((schema) => `--schema=${schema}`),
  ]);
  if (code !== 0) throw new Error(`pg_dump failed: ${stderr.trim()}`);
  if (!stdout.includes("CREATE TABLE billing.")) throw new Error("pg_dump found no tables.");
  // Newer versions guard a dump with a random key.
  return stdout.replaceAll(/^\\(un)?restrict .*\n/gm, "");
}

/** Applies the migrations as a user of the Supabase CLI does, in a project that has only them. */
export async function pushMigrations(url: string): Promise<void> {
  const project = mkdtempSync(join(tmpdir(), "pg-subscriptions-push-"));
  try {
    mkdirSync(join(project, "supabase"));
    for (const part of ["config.toml", "migrations"]) {
      cpSync(join(projectRoot, "supabase", part), join(project, "supabase", part), {
        recursive: true,
      });
    }
    const { code, stdout, stderr } = await supabase(
      ["db", "push", `--remote=${url}`, "--yes"],
      project,
    );
    if (code !== 0) throw new Error(`supabase db push failed: ${(stderr || stdout).trim()}`);
  } finally {
    rmSync(project, { recursive: true, force: true });
  }
}

/** The first line in which two dumps differ, with both versions of it; none when they are equal. */
export function firstDifference(one: string, other: string): string | undefined {
  const lines = one.split("\n");
  const others = other.split("\n");
  const at = lines.findIndex((line, index) => line !== others[index]);
  if (at === -1 && lines.length === others.length) return undefined;
  const line = at === -1 ? lines.length : at;
  return `line ${line + 1}: "${lines[line] ?? ""}" against "${others[line] ?? ""}"`;
}
