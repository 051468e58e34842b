/**
 * What Supabase Lite's command loads: its own config format, from the environment, with the
 * driver tuned to answer as PostgREST does. Loaded by lite.ts alone.
 */

import { createPostgresConnection } from "@supabase/lite/postgres";

function required(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set.`);
  return value;
}

const schemas = required("LITE_SCHEMAS").split(",");

/** "2026-01-31 10:00:00.5+00" as PostgREST writes it: "2026-01-31T10:00:00.5+00:00". */
function isoTimestamp(text: string): string {
  return text.replace(" ", "T").replace(/([+-]\d\d)$/, "$1:00");
}

interface Relation {
  name: string;
  schema: string;
}

interface Exchange {
  req: { path: string };
  res: Response;
}

/**
 * Studio's table editor lists tables only and reads them through the Data API: this adds the views and leaves out
 * what is not exposed.
 */
async function showViewsInStudio(exchange: Exchange, next: () => Promise<void>): Promise<void> {
  await next();
  if (exchange.req.path !== "/_system/introspect") return;
  const answer = (await exchange.res.json()) as { tables: Relation[]; views: Relation[] };
  const tables = [
    ...answer.tables,
    ...answer.views.map(({ name, schema }) => ({ name, schema, type: "view" })),
  ].filter(({ schema }) => schemas.includes(schema));
  exchange.res = Response.json({ ...answer, tables });
}

/** Lite hands JSON over as text already, which its driver would quote once more. */
function jsonParameter(value: unknown): string {
  if (typeof value !== "string") return JSON.stringify(value);
  try {
    JSON.parse(value);
    return value;
  } catch {
    return JSON.stringify(value);
  }
}

const connection = createPostgresConnection({
  url: required("LITE_DATABASE_URL"),
  postgresOptions: {
    max: 8,
    onnotice: () => {},
    connection: {
      application_name: "postgrest",
      // A host's limit for signed-in users; Lite applies no role's own settings.
      statement_timeout: 8_000,
    },
    types: {
      json: { to: 114, from: [114], serialize: jsonParameter, parse: JSON.parse },
      jsonb: { to: 3802, from: [3802], serialize: jsonParameter, parse: JSON.parse },
      timestamp: { to: 1114, from: [1114], serialize: String, parse: isoTimestamp },
      timestamptz: { to: 1184, from: [1184], serialize: String, parse: isoTimestamp },
    },
  },
});

// Told that row level security is set up, Lite leaves out its grant of everything on every table to
// every API role: privileges are what the migrations say, as on a host.
Object.assign(connection, { rlsState: "active" });

export default {
  connection,
  api: { port: Number(required("LITE_PORT")), schemas },
  // There is no folder of migrations for Lite to keep account of.
  db: { migrations: { enabled: false } },
  auth: {
    enabled: true,
    jwt_secret: required("LITE_JWT_SECRET"),
    publishable_key: required("LITE_PUBLISHABLE_KEY"),
    secret_key: required("LITE_SECRET_KEY"),
    site_url: "http://127.0.0.1:3000",
    // Signing up gives a session at once: there is no mailbox to confirm with.
    email: { enable_signup: true, enable_confirmations: false },
  },
  studio: { enabled: true },
  options: { server: { middlewares: [showViewsInStudio] } },
};
