import { describeError } from "../_shared/log.ts";
import { claimCommands, runCommand, type Command, type CommandDeps } from "./commands.ts";

export interface DispatchCounts {
  claimed: number;
  succeeded: number;
  retrying: number;
  failed: number;
}

/** A round ends with its slowest call, after at most half a minute; the host allows 150 seconds in all. */
const budgetMs = 100_000;
const callTimeoutMs = 20_000;
/** Few enough at a time for the 25 requests a second of a Stripe sandbox. */
const batch = 8;

/**
 * Makes the calls to Stripe that are due, round by round, until none is or the time is up.
 *
 * A round is claimed when it can start at once, so no lease runs while its command waits. The database never hands
 * out two commands of one account together, which lets those of a round run side by side.
 */
export async function dispatchCommands(deps: CommandDeps): Promise<DispatchCounts> {
  const counts = { claimed: 0, succeeded: 0, retrying: 0, failed: 0 };
  const startedAt = deps.now();
  while (deps.now() - startedAt < budgetMs) {
    const commands = await claimCommands(deps.service, batch);
    if (commands.length === 0) break;
    counts.claimed += commands.length;
    for (const outcome of await Promise.all(commands.map((command) => runOne(command, deps)))) {
      counts[outcome] += 1;
    }
  }
  return counts;
}

/** One command that cannot be completed does not stop the others: its lease runs out, and it is claimed again. */
async function runOne(
  command: Command,
  deps: CommandDeps,
): Promise<"succeeded" | "retrying" | "failed"> {
  try {
    const { status } = await runCommand(command, callTimeoutMs, deps);
    if (status === "succeeded") return "succeeded";
    return status === "dead" ? "failed" : "retrying";
  } catch (error) {
    const context = { command_id: command.id, ...describeError(error) };
    deps.log("error", "command not completed", context);
    return "retrying";
  }
}
