import { apiError, type Details } from "../_shared/errors.ts";
import {
  claimCommands,
  runCommand,
  type Command,
  type CommandDeps,
  type CommandResult,
} from "./commands.ts";

export interface WaitingDeps extends CommandDeps {
  sleep: (ms: number) => Promise<void>;
}

/** How long a user is kept waiting for Stripe, and how long one call may take. */
const patienceMs = 20_000;
/** A call that starts late still gets this long; its answer is worth more than punctuality. */
const shortestCallMs = 5_000;
const pauseMs = 250;

/**
 * Runs the commands a waiting user is behind, until `finished` has what the user is waiting for.
 *
 * Another worker may run some of them: then this one only watches. `finished` is asked after each command, with
 * its result, and after each pause.
 */
export async function runUntil<T>(
  subjectId: string,
  finished: (command?: Command, result?: CommandResult) => Promise<T | undefined>,
  deps: WaitingDeps,
  details: Details,
): Promise<T> {
  const deadline = deps.now() + patienceMs;
  for (;;) {
    const [command] = await claimCommands(deps.service, 1, subjectId);
    const remaining = deadline - deps.now();
    const result =
      command && (await runCommand(command, Math.max(remaining, shortestCallMs), deps));
    const found = await finished(command, result);
    if (found !== undefined) return found;
    if (deps.now() >= deadline) {
      throw apiError("STRIPE_TIMEOUT", { ...details, retry_after_seconds: 5 });
    }
    if (!command) await deps.sleep(pauseMs);
  }
}

/** What a user is told of Stripe's refusal. */
export function refusedByStripe(details: Details, failure: { code?: unknown; message?: unknown }) {
  return apiError("STRIPE_REQUEST_FAILED", {
    ...details,
    stripe_code: failure.code ?? null,
    stripe_message: failure.message ?? null,
  });
}
