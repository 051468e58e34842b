/** `npm run stripe:endpoint`: has Stripe deliver to your project what the database handles. */

import { Client } from "pg";
import Stripe from "stripe";
import { readArguments } from "./lib/arguments.ts";
import { done, note, runScript, UserError, warn } from "./lib/terminal.ts";
import { apiVersion, ensureEndpoint, snapshotEvents } from "./stripe/endpoint.ts";

const help = `
Makes the webhook endpoint at Stripe, pinned to API version ${apiVersion} and to the events the
database handles; or brings the endpoint that is there up to date. Run it again after an upgrade.

Usage: npm run stripe:endpoint -- <webhook-url> <postgres-url>

  <webhook-url>   https://<project>.supabase.co/functions/v1/stripe-webhook
  <postgres-url>  the project's database, migrated

STRIPE_SECRET_KEY   of the mode (test or live) the endpoint is for
STRIPE_API_BASE     another Stripe, such as a simulator
`;

await runScript(help, async (args) => {
  const { positionals } = readArguments(args, {}, { positionals: ["webhook URL", "database URL"] });
  const [url = "", databaseUrl = ""] = positionals;
  const key = process.env["STRIPE_SECRET_KEY"];
  if (!key) throw new UserError("STRIPE_SECRET_KEY is not set.");
  if (!URL.canParse(url) || !/^https?:/.test(url)) throw new UserError(`${url} is no address.`);

  const events = snapshotEvents(await handledEvents(databaseUrl));
  const endpoint = await ensureEndpoint(connect(key), url, events);
  done(`${endpoint.id} delivers ${endpoint.events} types of events in ${apiVersion}.`);
  if (endpoint.secret === null) {
    note("Its secret is the one it was made with.");
  } else {
    warn("Stripe shows this once. Set it as the functions' secret:");
    console.log(`  supabase secrets set STRIPE_WEBHOOK_SECRET=${endpoint.secret}`);
  }
});

async function handledEvents(databaseUrl: string): Promise<string[]> {
  const client = new Client({ connectionString: databaseUrl });
  try {
    await client.connect();
    const { rows } = await client.query<{ event_type: string }>(
      "select event_type from billing_private.event_handlers",
    );
    return rows.map(({ event_type }) => event_type);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(`The database cannot be read: ${reason}`);
  } finally {
    await client.end();
  }
}

function connect(key: string): Stripe {
  const base = process.env["STRIPE_API_BASE"];
  if (base === undefined) return new Stripe(key, { apiVersion });
  const { hostname, port, protocol } = new URL(base);
  return new Stripe(key, {
    apiVersion,
    host: hostname,
    port,
    protocol: protocol === "http:" ? "http" : "https",
  });
}
