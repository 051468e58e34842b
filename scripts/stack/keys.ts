import { randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** What clients of the local API identify themselves with. */
export interface ApiKeys {
  /** Role anon, or authenticated together with a user's access token. */
  publishable: string;
  /** Role service_role. */
  secret: string;
  /** Signs access tokens, HS256. */
  jwtSecret: string;
}

/** The keys kept in this folder, made on first use: an application can keep its settings from one start to the next. */
export function keepKeys(directory: string): ApiKeys {
  const file = join(directory, "keys.json");
  try {
    return JSON.parse(readFileSync(file, "utf8")) as ApiKeys;
  } catch {
    const keys = createKeys();
    mkdirSync(directory, { recursive: true });
    writeFileSync(file, `${JSON.stringify(keys, null, 2)}\n`, { mode: 0o600 });
    return keys;
  }
}

export function createKeys(): ApiKeys {
  return {
    publishable: `sb_publishable_${random(22)}_${random(8)}`,
    secret: `sb_secret_${random(22)}_${random(8)}`,
    jwtSecret: random(48),
  };
}

function random(length: number): string {
  return randomBytes(length).toString("base64url").slice(0, length);
}
