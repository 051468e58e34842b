/** A Postgres to run on, set up as a hosted Supabase project is. */

import { readdirSync, readFileSync, rmdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { run } from "../lib/processes.ts";
import { note, UserError, warn } from "../lib/terminal.ts";
import {
  clusterUrl,
  createCluster,
  deleteCluster,
  requireFree,
  runningCluster,
  startCluster,
  stopCluster,
  type Binaries,
  type ClusterOptions,
  type RunningCluster,
} from "./cluster.ts";
import { embeddedBinaries } from "./embedded.ts";
import { bestOf, findSystemPostgres, installWithApt } from "./system.ts";
import { reachableFolder, unprivilegedUser } from "./unprivileged.ts";

export { migrate, seed } from "./migrate.ts";

export type PostgresKind = "given" | "system" | "embedded";

export interface Postgres {
  kind: PostgresKind;
  /** Full version, such as "15.18". */
  version: string;
  port: number;
  /** As role postgres, which is not a superuser. */
  url: string;
  /** As the superuser supabase_admin; null for a given database. */
  adminUrl: string | null;
  hasCron: boolean;
  hasTap: boolean;
  /** Where initdb, pg_ctl and, for a system Postgres, psql and pg_dump are; null for a given database. */
  binDir: string | null;
  /** Ends a server this call started; one that was found running, or shall keep running, stays. */
  stop(): Promise<void>;
}

export interface PostgresOptions {
  /** Where the cluster lives; made if missing. */
  directory: string;
  port: number;
  /** Throw away what is there and start with an empty database. */
  fresh?: boolean;
  /** Leave the server running when this program ends. */
  keepRunning?: boolean;
  /** For tests: no protection against a power failure, and faster for it. */
  quick?: boolean;
  /** A database to use as it is instead of making one. */
  databaseUrl?: string | undefined;
  /** Only this kind; otherwise PG_SUBSCRIPTIONS_POSTGRES, otherwise whatever is there, system first. */
  kind?: "system" | "embedded" | undefined;
  /** Install pgTAP and pg_prove too where apt can, even if Postgres and pg_cron are there already. */
  testTools?: boolean;
  /** Say what was chosen (default true). */
  verbose?: boolean;
}

/** Where `npm run db:up` keeps its cluster. */
export const databaseFolder = fileURLToPath(new URL("../../.local/database", import.meta.url));

/**
 * Starts a Postgres, or finds it running: the given one, else the system's with pg_cron, else the one
 * from npm. All but a given one get a hosted project's roles and schemas. Calling it again with the
 * same folder gives the same cluster.
 */
export async function startPostgres(options: PostgresOptions): Promise<Postgres> {
  if (options.databaseUrl) return useGiven(options.databaseUrl, options);

  const { kind, binaries } = await chooseBinaries(options);
  const user = await unprivilegedUser();
  const folder = reachableFolder(options.directory, user);
  if (folder !== resolve(options.directory) && options.verbose !== false) {
    note(
      `Postgres runs as user ${user?.name}, who cannot enter the checkout; its data is in ${folder}.`,
    );
  }

  const cluster: ClusterOptions = {
    port: options.port,
    quick: options.quick ?? false,
    binaries,
    user,
  };
  const { pid, reused } = await runCluster(folder, cluster, options.fresh ?? false).catch(
    (error: NodeJS.ErrnoException) => {
      if (error.code !== "EACCES" && error.code !== "EPERM") throw error;
      throw new UserError(
        `${folder} belongs to another user. Choose another folder, or delete it.`,
      );
    },
  );

  const endWithProgram = () => {
    try {
      process.kill(pid, "SIGINT");
    } catch {
      // It has ended already.
    }
  };
  const owned = !reused && !options.keepRunning;
  if (owned) process.once("exit", endWithProgram);
  const stop = async () => {
    if (!owned) return;
    process.removeListener("exit", endWithProgram);
    await stopCluster(folder);
  };

  try {
    const adminUrl = clusterUrl("supabase_admin", options.port);
    const version = await bootstrap(adminUrl);
    const postgres: Postgres = {
      kind,
      version,
      port: options.port,
      url: clusterUrl("postgres", options.port),
      adminUrl,
      hasCron: binaries.has.cron,
      hasTap: binaries.has.tap,
      binDir: binaries.binDir,
      stop,
    };
    if (options.verbose !== false) describe(postgres);
    return postgres;
  } catch (error) {
    await stop();
    throw error;
  }
}

async function runCluster(
  folder: string,
  cluster: ClusterOptions,
  fresh: boolean,
): Promise<{ pid: number; reused: boolean }> {
  const found = runningCluster(folder);
  const suits = found?.port === cluster.port && found.program.startsWith(cluster.binaries.binDir);
  if (found !== null && suits && !fresh) return { pid: found.pid, reused: true };

  if (found?.port !== cluster.port) await requireFree(cluster.port);
  const major = dataMajor(folder);
  if (!fresh && major !== null && major !== cluster.binaries.major) {
    throw new UserError(
      `The data in ${folder} is of Postgres ${major}, and this is ${cluster.binaries.major}. Start over with an empty database, or choose another folder.`,
    );
  }
  await stopCluster(folder);
  if (fresh) deleteCluster(folder);
  await createCluster(folder, cluster);
  const { pid } = await startCluster(folder, cluster);
  return { pid, reused: false };
}

/** Ends the cluster in this folder, whoever started it. Returns whether one was running. */
export async function stopPostgres(
  directory: string,
  options: { deleteData?: boolean } = {},
): Promise<boolean> {
  const folder = reachableFolder(directory, await unprivilegedUser());
  const running = runningCluster(folder) !== null;
  await stopCluster(folder);
  if (options.deleteData) {
    deleteCluster(folder);
    if (readdirSync(folder).length === 0) rmdirSync(folder);
  }
  return running;
}

/** The server of the cluster in this folder, if it is running. */
export async function clusterAt(directory: string): Promise<RunningCluster | null> {
  return runningCluster(reachableFolder(directory, await unprivilegedUser()));
}

/** Gives a cluster a hosted project's roles, schemas and grants; returns the server's version. */
export async function bootstrap(adminUrl: string): Promise<string> {
  const sql = readFileSync(new URL("hosted-project.sql", import.meta.url), "utf8");
  const client = new pg.Client({ connectionString: adminUrl });
  await client.connect();
  try {
    await client.query(sql);
    return await serverVersion(client);
  } finally {
    await client.end();
  }
}

async function chooseBinaries(
  options: PostgresOptions,
): Promise<{ kind: "system" | "embedded"; binaries: Binaries }> {
  const wanted = options.kind ?? process.env["PG_SUBSCRIPTIONS_POSTGRES"];
  if (wanted !== undefined && wanted !== "system" && wanted !== "embedded") {
    throw new UserError(`PG_SUBSCRIPTIONS_POSTGRES is "${wanted}"; it may be system or embedded.`);
  }

  if (wanted !== "embedded") {
    let installed = await findSystemPostgres();
    let best = bestOf(installed);
    const lacking =
      !best?.has.cron || (options.testTools && !(best.has.tap && (await hasProgram("pg_prove"))));
    if (lacking && (await installWithApt(installed))) {
      installed = await findSystemPostgres();
      best = bestOf(installed);
    }
    if (best?.has.cron || (best && wanted === "system")) return { kind: "system", binaries: best };
    if (wanted === "system") {
      throw new UserError(
        "There is no system Postgres 15 or newer, and apt could not install one. Install it with pg_cron, or set DATABASE_URL.",
      );
    }
  }
  return { kind: "embedded", binaries: embeddedBinaries(await unprivilegedUser()) };
}

async function hasProgram(name: string): Promise<boolean> {
  return (await run(name, ["--version"])).code === 0;
}

function dataMajor(folder: string): number | null {
  try {
    return Number(readFileSync(join(folder, "data", "PG_VERSION"), "utf8"));
  } catch {
    return null;
  }
}

async function useGiven(url: string, options: PostgresOptions): Promise<Postgres> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 });
  try {
    await client.connect();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(`DATABASE_URL cannot be reached: ${reason}`);
  }
  try {
    const version = await serverVersion(client);
    if (Number.parseInt(version, 10) < 15) {
      throw new UserError(`DATABASE_URL is Postgres ${version}; 15 or newer is needed.`);
    }
    const extensions = await client.query<{ name: string; created: boolean }>(
      `select name, installed_version is not null as created
       from pg_available_extensions
       where name in ('pg_cron', 'pg_net', 'supabase_vault', 'pgtap')
       order by name`,
    );
    const created = extensions.rows.filter((row) => row.created).map(({ name }) => name);
    const postgres: Postgres = {
      kind: "given",
      version,
      port: client.port,
      url,
      adminUrl: null,
      hasCron: created.includes("pg_cron"),
      hasTap: extensions.rows.some(({ name }) => name === "pgtap"),
      binDir: null,
      stop: async () => {},
    };
    const role = await client.query<{ name: string; superuser: boolean; complete: boolean }>(
      `select
         current_user as name,
         (select rolsuper from pg_roles where rolname = current_user) as superuser,
         (select count(*) = 3 from pg_roles
          where rolname in ('anon', 'authenticated', 'service_role')) as complete`,
    );
    const { name, superuser, complete } = role.rows[0] ?? {};
    if (!complete) {
      throw new UserError(
        "DATABASE_URL has no roles anon, authenticated and service_role: it is not a Supabase database.",
      );
    }
    if (options.verbose !== false) {
      describe(postgres);
      note(`Of the optional extensions it has ${created.join(", ") || "none"}.`);
      if (superuser) warn(`Role ${name} is a superuser; on a hosted project it would not be.`);
    }
    return postgres;
  } finally {
    await client.end();
  }
}

async function serverVersion(client: pg.Client): Promise<string> {
  const { rows } = await client.query<{ server_version: string }>("show server_version");
  return (rows[0]?.server_version ?? "").split(" ")[0] ?? "";
}

function describe({ kind, version, hasCron, hasTap }: Postgres): void {
  const origin = {
    given: "the one DATABASE_URL names, used as it is",
    system: "the system's, in a private cluster",
    embedded: "from npm, in a private cluster",
  }[kind];
  const cron = hasCron
    ? "pg_cron runs the scheduled jobs, as on a host"
    : "it has no pg_cron, so scheduled jobs run only while npm start calls them";
  const tap = hasTap ? "" : "; it has no pgTAP, so the SQL tests cannot run on it";
  note(`Postgres ${version}: ${origin}; ${cron}${tap}.`);
}
