/**
 * A clock one can hold, for a local database. All billing logic asks billing_private.now(), or reads
 * billing.clock; this replaces the function by one that adds an offset, lets the view ask it, and
 * leaves everything else as shipped.
 */

import { withClient } from "./database.ts";

/** Moments are unix seconds. */
export interface Clock {
  now(): Promise<number>;
  advanceTo(seconds: number): Promise<void>;
  advanceBy(seconds: number): Promise<void>;
}

/** The part of the Stripe simulator the clock needs. */
export interface SimulatorClock {
  now(): number;
  advanceTo(seconds: number): Promise<void>;
}

/** For whoever replaces billing_private.now(): the view, which says now() as shipped, asks it. */
export const clockAsksFunction = `
  create or replace view billing.clock with (security_invoker = true) as
  select billing_private.now() as at;
`;

// Security definer, because the shipped function is called by every role and needs no privilege, while nobody
// may read the table. `create or replace` keeps owner and grants.
const heldNow = `
  create schema if not exists local_stack;
  revoke all on schema local_stack from public;

  create table if not exists local_stack.clock (
    is_only_row boolean primary key default true check (is_only_row),
    shift interval not null,
    shipped_function text not null,
    shipped_view text not null
  );
  revoke all on local_stack.clock from public, anon, authenticated, service_role;
  alter table local_stack.clock enable row level security;
  insert into local_stack.clock (shift, shipped_function, shipped_view)
  values (
    '0',
    pg_get_functiondef('billing_private.now()'::regprocedure),
    format(
      'create or replace view billing.clock with (security_invoker = true) as %s',
      pg_get_viewdef('billing.clock'::regclass))
  )
  on conflict do nothing;

  create or replace function billing_private.now()
  returns timestamptz
  language plpgsql
  stable
  parallel safe
  security definer
  set search_path = ''
  as $$
  begin
    return now() + (select clock.shift from local_stack.clock);
  end;
  $$;

  ${clockAsksFunction}
`;

/** Puts the held clock in place of the shipped one; it shows the real time until it is set. Needs the migrations. */
export function holdClock(url: string): Promise<void> {
  return withClient(url, async (client) => {
    await client.query(heldNow);
  });
}

/** Puts the shipped clock back. */
export function releaseClock(url: string): Promise<void> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ shipped: string }>(
      "select unnest(array[shipped_function, shipped_view]) as shipped from local_stack.clock",
    );
    for (const { shipped } of rows) await client.query(shipped);
    await client.query("drop schema local_stack cascade");
  });
}

/** Sets the held clock; time flows on from there. */
export function setClock(url: string, seconds: number): Promise<void> {
  return withClient(url, async (client) => {
    await client.query("update local_stack.clock set shift = to_timestamp($1) - now()", [seconds]);
  });
}

export function readClock(url: string): Promise<number> {
  return withClient(url, async (client) => {
    const { rows } = await client.query<{ seconds: number }>(
      "select extract(epoch from billing_private.now())::double precision as seconds",
    );
    return rows[0]?.seconds ?? NaN;
  });
}

/**
 * Follows the simulator: give this to its `onTick`. Never turns the clock back, so that rows written
 * a moment ago do not come to lie in the future.
 */
export function followClock(url: string, seconds: number): Promise<void> {
  return withClient(url, async (client) => {
    await client.query(
      `update local_stack.clock
       set shift = to_timestamp($1) - now()
       where to_timestamp($1) > now() + clock.shift`,
      [seconds],
    );
  });
}

/**
 * One clock for Stripe and the database. Moving it lets everything due at Stripe happen in order, each event
 * delivered and answered at its own moment; the database is never behind.
 */
export function createClock({
  databaseUrl,
  simulator,
}: {
  databaseUrl: string;
  simulator?: SimulatorClock | undefined;
}): Clock {
  const now = () => readClock(databaseUrl);

  async function advanceTo(seconds: number): Promise<void> {
    if (simulator !== undefined && seconds > simulator.now()) await simulator.advanceTo(seconds);
    await followClock(databaseUrl, seconds);
  }

  return {
    now,
    advanceTo,
    advanceBy: async (seconds) => advanceTo(Math.floor(await now()) + seconds),
  };
}
