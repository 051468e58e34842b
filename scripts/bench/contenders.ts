/** Who takes the same events in: each a way to hand one over, from Node through the same driver. */

import { createRequire } from "node:module";
import type { StripeSync as StripeSyncClass } from "@supabase/stripe-sync-engine";
import pg from "pg";
import type Stripe from "stripe";

export const contenderNames = {
  raw: "one raw row",
  peer: "stripe-sync-engine",
  preparedPeer: "  its statements prepared",
  ours: "ingest_stripe_event()",
  batched: "ingest_stripe_events(), 100 a call",
} as const;

/** Each of the two peers has tables of its own: the second would find nothing left to do. */
export const peerSchemas = ["stripe", "stripe_prepared"] as const;

export type ContenderKey = keyof typeof contenderNames;

export interface Contender {
  /** Events it takes in one call. */
  batch: number;
  take(payloads: string[]): Promise<void>;
  stop(): Promise<void>;
}

export interface ContenderOptions {
  /** As postgres, whose tables the peer's are. */
  ownerUrl: string;
  /** As authenticator in the role service_role, as the webhook comes. */
  serviceUrl: string;
  connections: number;
}

export async function createContender(
  key: ContenderKey,
  options: ContenderOptions,
): Promise<Contender> {
  if (key === "peer" || key === "preparedPeer") {
    return createPeer(options, { prepared: key === "preparedPeer" });
  }
  const pool = new pg.Pool({ connectionString: options.serviceUrl, max: options.connections });
  const call = calls[key];
  await warmUp(pool, options.connections);
  return {
    batch: call.batch,
    async take(payloads) {
      const values = call.values(payloads);
      const { rows } = await pool.query({ name: key, text: call.text, values });
      const failed = rows.find(({ status }) => status === "failed");
      if (failed !== undefined) throw new Error(`${failed.event_id} could not be applied.`);
    },
    stop: () => pool.end(),
  };
}

interface Call {
  batch: number;
  text: string;
  values(payloads: string[]): unknown[];
}

const calls: Record<Exclude<ContenderKey, "peer" | "preparedPeer">, Call> = {
  raw: {
    batch: 1,
    text: "insert into bench.raw_events (payload) values ($1)",
    values: (payloads) => payloads,
  },
  ours: {
    batch: 1,
    text: "select * from billing.ingest_stripe_event($1)",
    values: (payloads) => payloads,
  },
  batched: {
    batch: 100,
    text: "select * from billing.ingest_stripe_events($1)",
    values: (payloads) => [payloads],
  },
};

/** No calls to Stripe: it takes what the event says, as it does unless told to fetch. */
async function createPeer(
  { ownerUrl, connections }: ContenderOptions,
  { prepared }: { prepared: boolean },
): Promise<Contender> {
  const { StripeSync } = peerPackage();
  const engine = new StripeSync({
    schema: peerSchemas[prepared ? 1 : 0],
    stripeSecretKey: "sk_test_unused",
    stripeWebhookSecret: "whsec_unused",
    poolConfig: { connectionString: ownerUrl, max: connections },
    autoExpandLists: false,
    backfillRelatedEntities: false,
  });
  const { pool } = engine.postgresClient;
  if (prepared) nameStatements(pool);
  await warmUp(pool, connections);
  return {
    batch: 1,
    async take(payloads) {
      // Parsed here, because what proves a webhook's signature hands it over parsed.
      for (const payload of payloads)
        await engine.processEvent(JSON.parse(payload) as Stripe.Event);
    },
    stop: () => pool.end(),
  };
}

/** Its build for import cannot find its own migrations; the one for require can. */
export function peerPackage() {
  return createRequire(import.meta.url)("@supabase/stripe-sync-engine") as {
    StripeSync: typeof StripeSyncClass;
    runMigrations(config: { databaseUrl: string; schema: string; logger: object }): Promise<void>;
  };
}

/** It sends statements without names, which the server plans at each call. */
function nameStatements(pool: pg.Pool): void {
  const names = new Map<string, string>();
  const query = pool.query.bind(pool) as (config: pg.QueryConfig) => Promise<pg.QueryResult>;
  pool.query = ((text: string, values?: unknown[]) => {
    const name = names.get(text) ?? `s${names.size}`;
    names.set(text, name);
    return query({ name, text, values });
  }) as typeof pool.query;
}

async function warmUp(pool: pg.Pool, connections: number): Promise<void> {
  const clients = await Promise.all(Array.from({ length: connections }, () => pool.connect()));
  for (const client of clients) client.release();
}
