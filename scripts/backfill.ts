/** `npm run backfill`: reads an existing Stripe account into the database. */

import type { Client } from "pg";
import { createStripeCaller } from "../supabase/functions/checkout/stripe.ts";
import { connect, messageOf } from "./backfill/database.ts";
import { backfill, type BackfillState } from "./backfill/index.ts";
import { readArguments } from "./lib/arguments.ts";
import { done, note, progress, runScript, UserError, warn } from "./lib/terminal.ts";

const help = `
Reads what a Stripe account holds into the database: the events of the last 30 days, products, prices, coupons,
customers, subscriptions, invoices, payments and the rest.

It is safe beside live events: whatever is newer in the database stays. It asks for one page of 100 at a time and waits
when Stripe asks it to. Stop it with Ctrl-C whenever you like; the same command goes on where it was. Run again after
its end, it compares everything once more and changes only what differs.

Usage: npm run backfill -- <postgres-url>

The URL is the database owner's (on a hosted project: role postgres). From the environment:
  STRIPE_SECRET_KEY  the secret key, or a restricted key that may read; of the mode the database is set to
  STRIPE_API_BASE    where Stripe's API is, if it is a simulator
`;

await runScript(help, async (args) => {
  const { positionals } = readArguments(args, {}, { positionals: ["database URL"] });
  const secretKey = process.env["STRIPE_SECRET_KEY"] ?? "";
  if (secretKey === "") {
    throw new UserError("Set STRIPE_SECRET_KEY to the secret key of the account. See --help.");
  }
  const callStripe = createStripeCaller({
    secretKey,
    apiBase: process.env["STRIPE_API_BASE"] ?? "https://api.stripe.com",
  });

  const database = await connect(positionals[0] ?? "");
  try {
    await requireMode(database, secretKey);
    await run(database, callStripe);
  } finally {
    await database.end();
  }
});

async function run(database: Client, callStripe: ReturnType<typeof createStripeCaller>) {
  let isStopped = false;
  process.once("SIGINT", () => {
    isStopped = true;
  });

  let bar: ReturnType<typeof progress> | undefined;
  const state = await backfill({
    database,
    callStripe,
    reason: "npm run backfill",
    isStopped: () => isStopped,
    onProgress: (at) => {
      bar ??= progress("Lists", at.total);
      bar.at(at.finished, described(at));
    },
  });
  bar?.end();
  await report(database, state, isStopped);
}

function described({ current, members, changed }: BackfillState): string {
  return `${current ?? "done"}, ${members} read, ${changed} new or changed`;
}

async function report(database: Client, state: BackfillState, isStopped: boolean) {
  for (const { list, message } of state.failures) warn(`${list}: ${message}`);
  if (isStopped && state.finished < state.total) {
    process.exitCode = 130;
    return note("Stopped. The same command goes on where it was.");
  }
  if (state.failures.length > 0) {
    throw new UserError("Not all lists could be read. The same command tries them again.");
  }
  done(`${state.members} objects and events read, ${state.changed} of them new or changed.`);

  const { rows } = await database.query<{ unbound: number }>(
    "select count(*)::integer as unbound from billing.customers where account_id is null",
  );
  const unbound = rows[0]?.unbound ?? 0;
  if (unbound > 0) {
    note(
      `${unbound} customers belong to no account yet: nothing at Stripe names one. What came for them waits.`,
    );
  }
}

/** A key of the other mode would fill the database with objects it must not know. */
async function requireMode(database: Client, secretKey: string): Promise<void> {
  const isLive = await databaseMode(database);
  const keyMode = /^[rs]k_(live|test)_/.exec(secretKey)?.[1];
  if (keyMode === undefined || (keyMode === "live") === isLive) return;
  throw new UserError(
    `STRIPE_SECRET_KEY is a ${keyMode} key and the database is of the ${isLive ? "live" : "test"} mode ` +
      "(billing_admin.set_stripe_livemode() changes that).",
  );
}

async function databaseMode(database: Client): Promise<boolean> {
  try {
    const { rows } = await database.query<{ stripe_livemode: boolean }>(
      "select stripe_livemode from billing_private.settings",
    );
    return rows[0]?.stripe_livemode ?? false;
  } catch (error) {
    throw new UserError(
      `The database has no pg-subscriptions that this role may administer: ${messageOf(error)}`,
    );
  }
}
