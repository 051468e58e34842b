/** Transactions that overlap in a known way: one waits for a lock, another holds it, one is killed. */
import type { Client } from "pg";
import { waitUntil } from "../../../scripts/lib/processes.ts";

export async function pidOf(client: Client): Promise<number> {
  const { rows } = await client.query<{ pid: number }>("select pg_backend_pid() as pid");
  return rows[0]!.pid;
}

/** Resolves as soon as the connection with this pid waits for a lock, or its work has ended. */
export async function waitsOrEnds(
  observer: Client,
  pid: number,
  work: Promise<unknown>,
): Promise<"waits" | "ends"> {
  let hasEnded = false;
  const noteEnd = () => {
    hasEnded = true;
  };
  work.then(noteEnd, noteEnd);
  let isWaiting = false;
  await waitUntil(
    "the work to wait or end",
    async () => {
      const { rows } = await observer.query<{ waits: boolean }>(
        `select coalesce(bool_or(wait_event_type = 'Lock'), false) as waits
        from pg_stat_activity where pid = $1`,
        [pid],
      );
      isWaiting = rows[0]!.waits;
      return isWaiting || hasEnded;
    },
    10_000,
  );
  return hasEnded ? "ends" : "waits";
}

/**
 * Lets `second` begin when `first` has done its work and not yet committed, and commits `first` when `second` waits
 * or has ended. Each works on its own connection.
 */
export async function overlap(
  observer: Client,
  first: { client: Client; work: () => Promise<unknown> },
  second: { client: Client; work: () => Promise<unknown> },
): Promise<"waits" | "ends"> {
  const pid = await pidOf(second.client);
  await first.client.query("begin");
  await first.work();
  const working = second.work();
  const met = await waitsOrEnds(observer, pid, working);
  await first.client.query("commit");
  await working;
  return met;
}
