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
 * applied. Which ones are applied is kept in `node_pg_migrate.pgmigrations`, in a schema the Data API
 * does not expose. A statement that fails is named by file and line.
 */
export async function migrate(
  url: string,
  directory: string = join(project, "migrations"),
): Promise<string[]> {
  if (!existsSync(directory)) throw new UserError(`There is no folder ${directory}.`);
  let current: string | undefined;
  const attend = (line: string) => {
    current = /^### MIGRATION (\S+)/.exec(line)?.[1] ?? current;
  };
  return withClient(url, async (client) => {
    try {
      const applied = await runner({
        dbClient: client,
        dir: directory,
        direction: "up",
        migrationsSchema: "node_pg_migrate",
        createMigrationsSchema: true,
        migrationsTable: "pgmigrations",
        checkOrder: true,
        singleTransaction: true,
        logger: { info: attend, warn() {}, error() {} },
      });
      return applied.map(({ name }) => name);
    } catch (error) {
      if (current === undefined || !(error instanceof pg.DatabaseError))
        throw new UserError(messageOf(error));
      throw failure(error, join(directory, `${current}.sql`));
    }
  });
}

/** The sample catalog, and an application that is gated by it. */
const sampleFiles = [join(project, "seed.sql")];

/** Runs each of these files in one transaction; the samples unless others are named. */
export async function seed(url: string, files: string[] = sampleFiles): Promise<void> {
  await withClient(url, async (client) => {
    for (const file of files) {
      if (!existsSync(file)) throw new UserError(`There is no ${file}.`);
      try {
        await client.query(readFileSync(file, "utf8"));
      } catch (error) {
        throw error instanceof pg.DatabaseError ? failure(error, file) : error;
      }
    }
  });
}

/** What psql would show: where, what, and what Postgres adds to it. Nothing has been applied. */
function failure(error: pg.DatabaseError, file: string): UserError {
  const position = Number(error.position);
  const line =
    position > 0 && existsSync(file)
      ? `:${readFileSync(file, "utf8").slice(0, position).split("\n").length}`
      : "";
  return new UserError(
    [
      `${file}${line}: ${error.message} (${error.code})`,
      error.detail && `  detail: ${error.detail}`,
      error.hint && `  hint: ${error.hint}`,
      error.where && `  where: ${error.where}`,
    ]
      .filter(Boolean)
      .join("\n"),
  );
}

async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  if (!/^postgres(ql)?:\/\//.test(url)) {
    throw new UserError(`"${url}" is no database URL; it begins with postgresql://`);
  }
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
  if (error instanceof AggregateError) return error.errors.map(messageOf).join("; ");
  return error instanceof Error ? error.message : String(error);
}
