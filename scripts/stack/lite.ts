import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join, relative } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { withClient } from "./database.ts";
import type { ApiKeys } from "./keys.ts";
import { answers, startChild } from "./service.ts";

export interface LiteOptions {
  /** As role postgres, which may act as anon, authenticated and service_role. */
  databaseUrl: string;
  port: number;
  /** What the Data API exposes. */
  schemas: string[];
  /** For its log and whatever it writes. */
  directory: string;
  keys: ApiKeys;
}

export interface Lite {
  /** Data API, Auth and Studio. A request without a key is the service role here, as Studio needs it. */
  url: string;
  logFile: string;
  stop(): Promise<void>;
}

// The package exports its library, not its command.
const command = fileURLToPath(
  new URL("../../node_modules/@supabase/lite/dist/cli/index.js", import.meta.url),
);
const typeScriptLoader = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href;

/**
 * Starts Supabase Lite: Data API, Auth and Studio on one port. Start it after the migrations, because it
 * reads the schema once. It changes no privilege and no function of the database; see lite.config.ts.
 */
export async function startLite(options: LiteOptions): Promise<Lite> {
  const { databaseUrl, port, schemas, directory, keys } = options;
  // Lite itself would try for half a minute.
  await withClient(databaseUrl, (client) => client.query("select"));
  mkdirSync(directory, { recursive: true });
  const config = fileURLToPath(new URL("lite.config.ts", import.meta.url));

  const url = `http://127.0.0.1:${port}`;
  const logFile = join(directory, "lite.log");

  const service = await startChild({
    name: "Supabase Lite",
    command: process.execPath,
    args: [
      "--disable-warning=ExperimentalWarning",
      ...["--import", typeScriptLoader],
      // The command joins this path to its working directory.
      ...[command, "start", "--config", relative(directory, config)],
    ],
    env: {
      PATH: process.env["PATH"],
      // It keeps a folder there.
      HOME: directory,
      DO_NOT_TRACK: "1",
      LITE_TELEMETRY: "0",
      LITE_DATABASE_URL: databaseUrl,
      LITE_PORT: String(port),
      LITE_SCHEMAS: schemas.join(","),
      LITE_JWT_SECRET: keys.jwtSecret,
      LITE_PUBLISHABLE_KEY: keys.publishable,
      LITE_SECRET_KEY: keys.secret,
    },
    cwd: directory,
    logFile,
    ready: () => answers(`${url}/_system/ping`),
  });
  return { url, logFile, stop: service.stop };
}
