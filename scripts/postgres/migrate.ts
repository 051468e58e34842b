/** The migrations and the sample catalog, applied to any Postgres that has Supabase's roles. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runner } from "node-pg-migrate";
import pg from "pg";
import { UserError } from "../lib/terminal.ts";

const project = fileURLToPath(new URL("../../supabase/", import.meta.url));

/**
 * Applies what is pending of `supabase/migrations`, all or none, and returns the names of what it
 * applied. Which ones are applied is kept in `pg_subscriptions_migrations.history`: no schema the Data
 * API exposes.
 */
export async function migrate(
  url: string,
  directory: string = join(project, "migrations"),
): Promise<string[]> {
  return withClient(url, async (client) => {
    const applied = await runner({
      dbClient: client,
      dir: directory,
      direction: "up",
      migrationsSchema: "pg_subscriptions_migrations",
      createMigrationsSchema: true,
      migrationsTable: "history",
      checkOrder: true,
      singleTransaction: true,
      logger: { debug() {}, info() {}, warn: console.warn, error() {} },
    });
    return applied.map(({ name }) => name);
  });
}

/** Runs `supabase/seed.sql` in one transaction. */
export async function seed(url: string, file: string = join(project, "seed.sql")): Promise<void> {
  if (!existsSync(file)) throw new UserError(`There is no ${file}.`);
  await withClient(url, (client) => client.query(readFileSync(file, "utf8")));
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  try {
    await client.connect();
  } catch (error) {
    throw new UserError(`The database cannot be reached: ${messageOf(error)}`);
  }
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message || error.name : String(error);
}
