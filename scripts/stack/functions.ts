import { existsSync, mkdirSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort } from "../lib/ports.ts";
import type { Service } from "../lib/processes.ts";
import type { ApiKeys } from "./keys.ts";
import { answers, startChild } from "./service.ts";

export interface FunctionsOptions {
  /** The one URL under which REST and functions are, such as a project's `https://<ref>.supabase.co`. */
  apiUrl: string;
  keys: ApiKeys;
  stripe: StripeAccess;
  /** For the logs and Deno's own files. */
  directory: string;
}

export interface StripeAccess {
  apiKey: string;
  /** Where Stripe's API is; left out for Stripe itself. */
  apiBase?: string;
  webhookSecret: string;
}

export interface Functions {
  /** Where each function's process listens, by function name. */
  urls: Record<string, string>;
  logFiles: string[];
  stop(): Promise<void>;
}

const root = fileURLToPath(new URL("../../supabase/functions/", import.meta.url));

/**
 * Serves every folder of `supabase/functions` that has an index.ts, each in a Deno of its own, as the hosted
 * runtime isolates them. Nothing is downloaded: npm has installed what the functions import.
 */
export async function startFunctions(options: FunctionsOptions): Promise<Functions> {
  mkdirSync(options.directory, { recursive: true });
  const names = readdirSync(root).filter((name) => existsSync(join(root, name, "index.ts")));
  const deno = denoExecutable();
  const urls: Record<string, string> = {};
  for (const name of names) urls[name] = `http://127.0.0.1:${await freePort()}`;

  const started = await Promise.allSettled(
    Object.entries(urls).map(([name, url]) => startFunction(deno, name, url, options)),
  );
  const services = started.flatMap((result) =>
    result.status === "fulfilled" ? [result.value] : [],
  );
  const stop = async () => {
    await Promise.all(services.map((service) => service.stop()));
  };
  const failure = started.find((result) => result.status === "rejected");
  if (failure !== undefined) {
    await stop();
    throw failure.reason;
  }
  return { urls, logFiles: services.map((service) => service.logFile), stop };
}

function startFunction(
  deno: string,
  name: string,
  url: string,
  { apiUrl, keys, stripe, directory }: FunctionsOptions,
): Promise<Service> {
  return startChild({
    name: `function ${name}`,
    command: deno,
    args: [
      ...["run", "--no-prompt", "--quiet", "--no-lock", "--cached-only"],
      ...["--node-modules-dir=manual", "--allow-env", "--allow-net", "--allow-read"],
      join(root, name, "index.ts"),
    ],
    env: {
      PATH: process.env["PATH"],
      HOME: directory,
      DENO_DIR: join(directory, "deno"),
      DENO_NO_UPDATE_CHECK: "1",
      NO_COLOR: "1",
      PORT: new URL(url).port,
      SUPABASE_URL: apiUrl,
      SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: keys.publishable }),
      SUPABASE_SECRET_KEYS: JSON.stringify({ default: keys.secret }),
      STRIPE_SECRET_KEY: stripe.apiKey,
      STRIPE_API_BASE: stripe.apiBase,
      STRIPE_WEBHOOK_SECRET: stripe.webhookSecret,
    },
    cwd: root,
    logFile: join(directory, `${name}.log`),
    ready: () => answers(url),
    timeoutMs: 60_000,
  });
}

/** The package's install step, which npm may have been told to skip, puts the binary in its place. */
function denoExecutable(): string {
  const { runInstall } = createRequire(import.meta.url)("deno/install_api.cjs") as {
    runInstall: () => string;
  };
  return runInstall();
}
