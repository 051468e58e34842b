/** The system's own Postgres, with pg_cron: found, or installed where apt may. */

import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../lib/processes.ts";
import { note, warn } from "../lib/terminal.ts";
import { extensionsIn, type Binaries } from "./cluster.ts";

const oldestMajor = 15;

/** Every Postgres the usual packages install, newest first. */
export async function findSystemPostgres(): Promise<Binaries[]> {
  const found = new Map<string, Binaries>();
  for (const binDir of await binaryFolders()) {
    if (!existsSync(join(binDir, "initdb")) || !existsSync(join(binDir, "pg_ctl"))) continue;
    const version = (await run(join(binDir, "postgres"), ["--version"])).stdout;
    const major = Number(/(\d+)/.exec(version)?.[1]);
    if (!(major >= oldestMajor)) continue;
    found.set(binDir, { binDir, major, has: await extensionsOf(binDir, major) });
  }
  return [...found.values()].sort((one, other) => other.major - one.major);
}

async function binaryFolders(): Promise<string[]> {
  const below = (parent: string, pattern: RegExp) =>
    existsSync(parent)
      ? readdirSync(parent)
          .filter((name) => pattern.test(name))
          .map((name) => join(parent, name, "bin"))
      : [];
  const onPath = (await run("pg_config", ["--bindir"])).stdout.trim();
  return [
    ...below("/usr/lib/postgresql", /^\d+$/),
    ...below("/usr", /^pgsql-\d+$/),
    ...below("/opt/homebrew/opt", /^postgresql(@\d+)?$/),
    ...below("/usr/local/opt", /^postgresql(@\d+)?$/),
    ...(onPath === "" ? [] : [onPath]),
  ];
}

async function extensionsOf(binDir: string, major: number): Promise<Binaries["has"]> {
  const shared = (await run(join(binDir, "pg_config"), ["--sharedir"])).stdout.trim();
  return extensionsIn([shared, `/usr/share/postgresql/${major}`, join(binDir, "..", "share")]);
}

/** What decides among several: pg_cron first, then pgTAP, then the newest. */
export function bestOf(candidates: Binaries[]): Binaries | null {
  const score = ({ has }: Binaries) => (has.cron ? 2 : 0) + (has.tap ? 1 : 0);
  return [...candidates].sort((one, other) => score(other) - score(one))[0] ?? null;
}

/**
 * Installs Postgres with pg_cron, and what the tests want, from the distribution's packages.
 * Returns false, having said why, when that is not possible: there are other ways to go on.
 */
export async function installWithApt(installed: Binaries[]): Promise<boolean> {
  if (process.getuid?.() !== 0 || (await run("apt-get", ["--version"])).code !== 0) return false;

  note("Installing Postgres with pg_cron by apt (once; about a minute) …");
  const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" };
  const apt = (...args: string[]) => run("apt-get", ["-q", "-y", ...args], { env });

  const updated = await apt("update");
  if (updated.code !== 0) return refused("apt-get update failed", updated.stderr);

  const known = async (name: string) =>
    /^\s+Candidate: (?!\(none\))/m.test((await run("apt-cache", ["policy", name], { env })).stdout);
  const depends = (await run("apt-cache", ["depends", "postgresql"], { env })).stdout;
  const standard = Number(/postgresql-(\d+)/.exec(depends)?.[1]);
  const majors = [...installed.map(({ major }) => major), standard];
  let major: number | undefined;
  for (const candidate of majors) {
    if (candidate >= oldestMajor && (await known(`postgresql-${candidate}-cron`))) {
      major = candidate;
      break;
    }
  }
  if (major === undefined) {
    return refused(`the package sources have no pg_cron for Postgres ${oldestMajor} or newer`);
  }

  const optional = [
    `postgresql-${major}-pgtap`,
    `postgresql-${major}-plpgsql-check`,
    "libtap-parser-sourcehandler-pgtap-perl",
  ];
  const wanted = [`postgresql-${major}`, `postgresql-${major}-cron`];
  for (const name of optional) if (await known(name)) wanted.push(name);

  const result = await withoutDefaultCluster(() =>
    apt("install", "--no-upgrade", "--no-install-recommends", ...wanted),
  );
  return result.code === 0 || refused("apt-get install failed", result.stderr);
}

function refused(what: string, output = ""): false {
  const reason = output.trim().split("\n").at(-1) ?? "";
  warn(`Postgres could not be installed by apt: ${what}${reason && ` (${reason})`}.`);
  return false;
}

/** Debian's package makes and starts a cluster of its own on port 5432, which nobody asked for. */
async function withoutDefaultCluster<T>(install: () => Promise<T>): Promise<T> {
  const folder = "/etc/postgresql-common/createcluster.d";
  const file = join(folder, "pg-subscriptions.conf");
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, "create_main_cluster = off\n");
  try {
    return await install();
  } finally {
    rmSync(file, { force: true });
  }
}
