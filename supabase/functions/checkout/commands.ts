import type { DataApi } from "../_shared/data_api.ts";
import { ApiError } from "../_shared/errors.ts";
import type { Log } from "../_shared/log.ts";
import type { CallStripe, StripeAnswer, StripeRequest } from "./stripe.ts";

/** A call to Stripe that this worker holds; the lease proves it when the answer is handed in. */
export interface Command extends StripeRequest {
  lease: string;
}

export interface CommandDeps {
  service: DataApi;
  callStripe: CallStripe;
  now: () => number;
  log: Log;
}

export interface CommandResult {
  answer: StripeAnswer;
  /** What the database made of it; `lost` when another worker holds the command by now. */
  status: "succeeded" | "pending" | "dead" | "lost";
}

/** Leases commands that are due: any, or only those that a waiting user is behind. */
export function claimCommands(
  service: DataApi,
  batch: number,
  subjectId?: string,
): Promise<Command[]> {
  const subject = subjectId === undefined ? {} : { subject_id: subjectId };
  return service.rpc<Command>("claim_commands", { batch, ...subject });
}

/**
 * Makes one claimed call to Stripe and hands the answer in.
 *
 * If this stops half-way, the lease runs out and the call is made again under the same idempotency key.
 */
export async function runCommand(
  command: Command,
  timeoutMs: number,
  { service, callStripe, now, log }: CommandDeps,
): Promise<CommandResult> {
  const startedAt = now();
  const answer = await callStripe(command, timeoutMs);
  const elapsedMs = now() - startedAt;
  const status = await complete(command, answer, elapsedMs, service);
  log(status === "succeeded" ? "info" : "warn", "stripe called", {
    command_id: command.id,
    method: command.method,
    path: command.path,
    http_status: answer.http_status,
    stripe_request_id: answer.stripe_request_id,
    duration_ms: elapsedMs,
    command_status: status,
  });
  return { answer, status };
}

async function complete(
  { id, lease }: Command,
  { http_status, response, retry_after_seconds, stripe_date, is_replay }: StripeAnswer,
  elapsedMs: number,
  service: DataApi,
): Promise<CommandResult["status"]> {
  try {
    const [outcome] = await service.rpc<{ status: "succeeded" | "pending" | "dead" }>(
      "complete_command",
      {
        command_id: id,
        lease,
        http_status,
        response,
        retry_after_seconds,
        stripe_date,
        elapsed_seconds: elapsedMs / 1000,
        is_replay,
      },
    );
    if (!outcome) throw new Error("complete_command returned nothing");
    return outcome.status;
  } catch (error) {
    if (error instanceof ApiError && error.code === "LEASE_LOST") return "lost";
    throw error;
  }
}
