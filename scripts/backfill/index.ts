/** Reads an existing Stripe account into the database: list by list, page by page, through the outbox. */
import type { Client } from "pg";
import { runCommand, type Command } from "../../supabase/functions/checkout/commands.ts";
import type { CallStripe } from "../../supabase/functions/checkout/stripe.ts";
import { dataApiOn } from "./database.ts";

export interface BackfillState {
  /** Lists read to their end, and lists in all. */
  finished: number;
  total: number;
  /** Members read so far, of all lists; what they changed here. */
  members: number;
  changed: number;
  /** The list being read, or null. */
  current: string | null;
  failures: { list: string; message: string }[];
}

export interface BackfillDeps {
  /** A connection as the owner. */
  database: Client;
  callStripe: CallStripe;
  reason: string;
  onProgress?: (state: BackfillState) => void;
  /** Asked before each page; true leaves the rest for the next call. */
  isStopped?: () => boolean;
  wait?: (milliseconds: number) => Promise<void>;
}

const callTimeoutMs = 20_000;
/** While Stripe asks to be left alone, or another dispatcher holds the page. */
const pauseMs = 1_000;

/**
 * Starts a back-fill or goes on with the one that was interrupted, and works the outbox off until it is done.
 *
 * Each page is a command whose answer is applied, and whose successor is written, in one transaction: stopping or
 * crashing anywhere loses nothing. Live events and other dispatchers may be at work beside it.
 */
export async function backfill(deps: BackfillDeps): Promise<BackfillState> {
  const { database, isStopped = () => false, wait = sleep, onProgress = () => {} } = deps;
  const first = await begin(database, deps.reason);
  for (;;) {
    const state = await stateOf(database, first);
    onProgress(state);
    if (isStopped()) return state;
    if (await runDue(deps)) continue;
    if (state.current === null && !(await isWaiting(database, first))) return state;
    await database.query("select billing_private.continue_sweeps()");
    await wait(pauseMs);
  }
}

/** The position of the first sweep that belongs to this back-fill. */
async function begin(database: Client, reason: string): Promise<string> {
  await database.query("select billing_admin.start_backfill($1)", [reason]);
  const { rows } = await database.query<{ first: string }>(
    `select min(position) as first
    from (
      select distinct on (list_key) position
      from billing_private.sweeps
      where is_backfill
      order by list_key, position desc
    ) as latest`,
  );
  return rows[0]?.first ?? "0";
}

/** Makes the calls that are due; false when there was none. */
async function runDue({ database, callStripe }: BackfillDeps): Promise<boolean> {
  const service = dataApiOn(database);
  const commands = await service.rpc<Command>("claim_commands", { batch: 4 });
  const deps = { service, callStripe, now: Date.now, log: () => {} };
  await Promise.all(commands.map((command) => runCommand(command, callTimeoutMs, deps)));
  return commands.length > 0;
}

async function isWaiting(database: Client, first: string): Promise<boolean> {
  const { rows } = await database.query(
    "select from billing_private.sweeps where position >= $1 and status in ('waiting', 'running')",
    [first],
  );
  return rows.length > 0;
}

async function stateOf(database: Client, first: string): Promise<BackfillState> {
  const { rows } = await database.query<BackfillState>(
    `select
      count(*) filter (where status in ('finished', 'failed'))::integer as finished,
      count(*)::integer as total,
      coalesce(sum(members), 0)::integer as members,
      coalesce(sum(changed), 0)::integer as changed,
      max(list_key) filter (where status = 'running') as current,
      coalesce(
        jsonb_agg(jsonb_build_object(
          'list', list_key,
          'message', coalesce(last_error #>> '{error,message}', last_error ->> 'http_status')))
          filter (where status = 'failed'),
        '[]') as failures
    from (
      select distinct on (list_key) *
      from billing_private.sweeps
      where position >= $1 and is_backfill
      order by list_key, position desc
    ) as latest`,
    [first],
  );
  return rows[0]!;
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
