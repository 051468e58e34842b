/** What a host's pg_cron and pg_net do by themselves, for a local Postgres that lacks them. */

import { warn } from "../lib/terminal.ts";
import { withClient } from "./database.ts";

export interface Errand {
  /** Does it now, after a run that is under way; a failure is thrown. */
  now(): Promise<void>;
  stop(): Promise<void>;
}

export interface HeartbeatOptions {
  /** As role postgres, who runs pg_cron's jobs on a host. */
  databaseUrl: string;
  /** Null: only when asked. */
  everyMs?: number | null;
}

/**
 * Runs the scheduled tasks that are due, every minute, as pg_cron does on a host. Waits for a heartbeat that is at
 * work, such as pg_cron's: whoever asks for one wants it to see what is there now.
 */
export function startHeartbeat({ databaseUrl, everyMs = 60_000 }: HeartbeatOptions): Errand {
  return startErrand("The scheduled tasks", everyMs, () =>
    withClient(databaseUrl, async (client) => {
      // One message is one transaction, which holds the lock that run_due_tasks() tries to take.
      await client.query(
        "select pg_advisory_xact_lock(hashtextextended('billing.tasks', 0)); select billing_private.run_due_tasks()",
      );
    }),
  );
}

export interface DoorbellOptions {
  databaseUrl: string;
  apiUrl: string;
  secretKey: string;
  everyMs?: number | null;
}

/** Calls the dispatcher when calls to Stripe are waiting, as pg_net does on a host. */
export function startDoorbell({
  databaseUrl,
  apiUrl,
  secretKey,
  everyMs = 3_000,
}: DoorbellOptions): Errand {
  return startErrand("The dispatch of commands to Stripe", everyMs, async (signal) => {
    if (!(await hasDueCommands(databaseUrl))) return;
    const response = await fetch(`${apiUrl}/functions/v1/checkout/dispatch`, {
      method: "POST",
      headers: { apikey: secretKey, "content-type": "application/json" },
      body: "{}",
      signal: AbortSignal.any([signal, AbortSignal.timeout(120_000)]),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`${response.status} ${text}`);
  });
}

function hasDueCommands(databaseUrl: string): Promise<boolean> {
  return withClient(databaseUrl, async (client) => {
    const { rows } = await client.query<{ due: boolean }>(
      "select billing_private.has_due_commands() as due",
    );
    return rows[0]?.due ?? false;
  });
}

/** One run at a time. A failure is reported when it is a new one, and never ends the series. */
export function startErrand(
  what: string,
  everyMs: number | null,
  run: (signal: AbortSignal) => Promise<void>,
): Errand {
  const stopping = new AbortController();
  let line = Promise.resolve();
  let timer: NodeJS.Timeout | undefined;
  let reported = "";

  function runInTurn(): Promise<void> {
    const result = line.then(() => run(stopping.signal));
    line = result.catch(() => undefined);
    return result;
  }

  async function beat(): Promise<void> {
    try {
      await runInTurn();
      reported = "";
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (reason !== reported && !stopping.signal.aborted) warn(`${what} failed: ${reason}`);
      reported = reason;
    }
    schedule();
  }

  function schedule(): void {
    if (everyMs === null || stopping.signal.aborted) return;
    timer = setTimeout(() => void beat(), everyMs);
  }

  schedule();
  return {
    now: runInTurn,
    stop: async () => {
      stopping.abort();
      clearTimeout(timer);
      await line;
    },
  };
}
