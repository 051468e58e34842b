/** A private cluster in a folder of its own: made, started, found again after a crash, and ended by its process id. */

import { createConnection } from "node:net";
import {
  chownSync,
  existsSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { run, waitUntil } from "../lib/processes.ts";
import { UserError } from "../lib/terminal.ts";
import { asUser, makePrivateFolder, type Unprivileged } from "./unprivileged.ts";

export interface Binaries {
  binDir: string;
  /** Major version. */
  major: number;
  /** Which of the extensions that matter here are among its files. */
  has: { cron: boolean; tap: boolean; statements: boolean };
}

export interface ClusterOptions {
  port: number;
  binaries: Binaries;
  user: Unprivileged | null;
  /** For tests: trades every guarantee against a power failure for speed. */
  quick: boolean;
}

export interface RunningCluster {
  pid: number;
  port: number;
  /** The program that runs it. */
  program: string;
}

const superuser = "supabase_admin";
const password = "postgres";

export function clusterUrl(role: string, port: number, database = "postgres"): string {
  return `postgresql://${role}:${password}@127.0.0.1:${port}/${database}`;
}

/** The server whose data is in this folder, if one is running. A file left by a crash is not a server. */
export function runningCluster(folder: string): RunningCluster | null {
  const file = join(folder, "data", "postmaster.pid");
  if (!existsSync(file)) return null;
  const lines = readFileSync(file, "utf8").split("\n");
  const pid = Number(lines[0]);
  const port = Number(lines[3]);
  if (!isServerOf(pid, join(folder, "data"))) return null;
  const command = readFileSync(join(folder, "data", "postmaster.opts"), "utf8");
  return { pid, port, program: command.slice(0, command.indexOf(' "-D"')).trim() };
}

function isServerOf(pid: number, data: string): boolean {
  if (!Number.isInteger(pid) || pid < 2 || !isAlive(pid)) return false;
  try {
    // Process ids are reused. A server works in its data folder, and Linux tells.
    return readlinkSync(`/proc/${pid}/cwd`) === realpathSync(data);
  } catch {
    return !existsSync("/proc/self");
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** Looks for the extensions' control files in each of these folders. */
export function extensionsIn(folders: string[]): Binaries["has"] {
  const has = (name: string) =>
    folders.some((folder) => existsSync(join(folder, "extension", `${name}.control`)));
  return { cron: has("pg_cron"), tap: has("pgtap"), statements: has("pg_stat_statements") };
}

/** Deletes the cluster's data and nothing else. It must not be running. */
export function deleteCluster(folder: string): void {
  const data = join(folder, "data");
  if (existsSync(join(data, "PG_VERSION"))) rmSync(data, { recursive: true });
}

/** Makes the cluster where there is none. Its superuser is the one hosted projects have. */
export async function createCluster(folder: string, options: ClusterOptions): Promise<void> {
  const finished = join(folder, "data");
  if (existsSync(join(finished, "PG_VERSION"))) return;
  if (existsSync(finished))
    throw new UserError(`${finished} is there, but is no Postgres cluster.`);

  // Under another name until it is whole, so that an interruption leaves nothing half made.
  const data = join(folder, "unfinished-data");
  rmSync(data, { recursive: true, force: true });
  makePrivateFolder(data, options.user);

  const passwordFile = join(folder, "password");
  writeFileSync(passwordFile, password, { mode: 0o600 });
  if (options.user !== null) chownSync(passwordFile, options.user.uid, options.user.gid);
  // Collation must not depend on the machine: byte order, with Unicode character classes where there are any.
  const locale =
    options.binaries.major >= 17
      ? ["--locale-provider=builtin", "--locale=C.UTF-8", "--lc-collate=C", "--lc-ctype=C"]
      : [process.platform === "linux" ? "--locale=C.UTF-8" : "--locale=C"];
  const made = await program(options, "initdb", [
    ...[`--pgdata=${data}`, `--username=${superuser}`, `--pwfile=${passwordFile}`],
    ...["--encoding=UTF8", ...locale, "--auth=scram-sha-256", "--no-instructions"],
    ...(options.quick ? ["--no-sync"] : []),
  ]);
  rmSync(passwordFile);
  if (made.code !== 0) {
    throw new UserError(`initdb failed: ${made.stderr.trim() || made.stdout.trim()}`);
  }
  renameSync(data, finished);
}

/** Starts the server and returns when it answers. */
export async function startCluster(
  folder: string,
  options: ClusterOptions,
): Promise<RunningCluster> {
  const data = join(folder, "data");
  forgetForeignProcess(data);

  const log = join(data, "server.log");
  const started = await program(options, "pg_ctl", [
    ...["start", "--pgdata", data, "--log", log, "--wait", "--timeout", "60"],
    ...["--options", settings(options)],
  ]);
  const running = runningCluster(folder);
  if (started.code !== 0 || running === null) {
    const said = existsSync(log) ? readFileSync(log, "utf8").trim().split("\n").slice(-5) : [];
    throw new UserError(["Postgres did not start.", ...said].join("\n"));
  }
  return running;
}

/**
 * After a crash Postgres judges the file left behind by itself, and must, to notice survivors. Only
 * when another program has that process id by now would it wait for the wrong one for ever.
 */
function forgetForeignProcess(data: string): void {
  const file = join(data, "postmaster.pid");
  if (!existsSync(file)) return;
  const pid = Number(readFileSync(file, "utf8").split("\n")[0]);
  if (isAlive(pid) && !isServerOf(pid, data)) rmSync(file);
}

function settings({ port, binaries: { has }, quick }: ClusterOptions): string {
  const preload = [has.cron && "pg_cron", has.statements && "pg_stat_statements"].filter(Boolean);
  const values: Record<string, string | number> = {
    port,
    listen_addresses: "127.0.0.1",
    // Their paths may be 107 characters at most, which a checkout's folder can exceed.
    unix_socket_directories: "",
    timezone: "UTC",
    log_timezone: "UTC",
    wal_level: "logical",
    max_worker_processes: 20,
    ...(preload.length > 0 && { shared_preload_libraries: preload.join(",") }),
    ...(has.cron && {
      "cron.database_name": "postgres",
      // A host's jobs connect with passwords it keeps; here they start without one.
      "cron.use_background_workers": "on",
    }),
    // Races have a hundred clients at once, beside those of other tests.
    ...(quick && { max_connections: 250 }),
    ...(quick && { fsync: "off", synchronous_commit: "off", full_page_writes: "off" }),
  };
  return Object.entries(values)
    .map(([name, value]) => `-c ${name}=${value}`)
    .join(" ");
}

/** Ends the server: clients are disconnected, committed work is kept. */
export async function stopCluster(folder: string): Promise<void> {
  const running = runningCluster(folder);
  if (running === null) return;
  process.kill(running.pid, "SIGINT");
  const gone = async () => runningCluster(folder) === null && !isAlive(running.pid);
  await waitUntil("Postgres to end", gone, 20_000).catch(async () => {
    process.kill(running.pid, "SIGQUIT");
    await waitUntil("Postgres to end at once", gone, 5_000);
  });
}

function program({ binaries, user }: ClusterOptions, name: string, args: string[]) {
  const options = asUser(user);
  return run(join(binaries.binDir, name), args, {
    ...options,
    env: { PATH: process.env["PATH"], HOME: options.cwd, LC_ALL: "C" },
  });
}

/** Fails when another program listens on this port. */
export async function requireFree(port: number): Promise<void> {
  const busy = await new Promise<boolean>((resolve) => {
    const socket = createConnection({ port, host: "127.0.0.1" });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
  if (busy) throw new UserError(`Port ${port} is in use by another program; Postgres needs it.`);
}
