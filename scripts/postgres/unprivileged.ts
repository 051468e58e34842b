/** Postgres servers refuse to run as root; this finds who runs them instead, and where that user may keep files. */

import { createHash } from "node:crypto";
import { chmodSync, chownSync, existsSync, lstatSync, mkdirSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { run } from "../lib/processes.ts";
import { UserError } from "../lib/terminal.ts";

export interface Unprivileged {
  name: string;
  uid: number;
  gid: number;
}

/** Spawn options that make a child run as this user; none when the script itself may run servers. */
export function asUser(user: Unprivileged | null): { uid?: number; gid?: number; cwd: string } {
  return user === null ? { cwd: tmpdir() } : { uid: user.uid, gid: user.gid, cwd: "/" };
}

/** Null unless this is root: then the system's postgres user, or nobody. */
export async function unprivilegedUser(): Promise<Unprivileged | null> {
  if (process.getuid?.() !== 0) return null;
  for (const name of ["postgres", "nobody"]) {
    const uid = Number((await run("id", ["-u", name])).stdout.trim() || NaN);
    const gid = Number((await run("id", ["-g", name])).stdout.trim() || NaN);
    if (uid > 0 && gid > 0) return { name, uid, gid };
  }
  throw new UserError(
    "Postgres does not run as root, and there is no user postgres or nobody to run it as. Run this as an ordinary user.",
  );
}

/** Whether `user` may pass through every folder on the way to `path`, judged by the folders' modes. */
export function canReach(path: string, user: Unprivileged | null): boolean {
  if (user === null) return true;
  for (let folder = resolve(path); ; folder = dirname(folder)) {
    if (existsSync(folder)) {
      const { mode, uid, gid } = statSync(folder);
      const shift = uid === user.uid ? 6 : gid === user.gid ? 3 : 0;
      if (((mode >> shift) & 1) === 0) return false;
    }
    if (folder === dirname(folder)) return true;
  }
}

/**
 * The wanted folder, made, or the same one under a folder of temporary files that outlives a restart
 * where `user` cannot get to it, such as below /root. The same wish always leads to the same folder.
 */
export function reachableFolder(wanted: string, user: Unprivileged | null): string {
  const path = resolve(wanted);
  if (canReach(dirname(path), user)) {
    makeOpenFolder(path);
    if (canReach(path, user)) return path;
  }
  const base = existsSync("/var/tmp") ? "/var/tmp" : tmpdir();
  const key = createHash("sha256").update(path).digest("hex").slice(0, 12);
  const substitute = join(base, `pg-subscriptions-${key}-${basename(path)}`);
  makeOpenFolder(substitute);
  // Everyone may write to the base folder: someone else could have been there first.
  const { uid } = lstatSync(substitute);
  if (uid !== process.getuid?.() || !lstatSync(substitute).isDirectory()) {
    throw new UserError(`${substitute} belongs to someone else. Remove it and try again.`);
  }
  chmodSync(substitute, 0o755);
  return substitute;
}

/** A strict umask, common for root, would shut out the very user the folder is for. */
function makeOpenFolder(path: string): void {
  const umask = process.umask(0o022);
  mkdirSync(path, { recursive: true });
  process.umask(umask);
}

/** Makes `path` a private folder of the user who runs the server. */
export function makePrivateFolder(path: string, user: Unprivileged | null): void {
  mkdirSync(path, { recursive: true, mode: 0o700 });
  chmodSync(path, 0o700);
  if (user !== null) chownSync(path, user.uid, user.gid);
}
