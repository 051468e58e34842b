import type { DataApi } from "../_shared/data_api.ts";
import { isObject } from "../_shared/errors.ts";
import type { CommandResult } from "./commands.ts";
import { refusedByStripe, runUntil, type WaitingDeps } from "./waiting.ts";

/**
 * Opens a page of Stripe's for the user: the billing portal, or the one that takes a payment method.
 *
 * Its address goes from Stripe's answer to the user and is stored nowhere: whoever has it acts as the customer.
 */
export async function openPage(
  rpc: string,
  args: Record<string, unknown>,
  user: DataApi,
  deps: WaitingDeps,
): Promise<{ url: string }> {
  const [request] = await user.rpc<{ subject_id: string }>(rpc, args);
  if (!request) throw new Error(`${rpc} returned nothing`);
  return awaitAnswer(request.subject_id, deps, ({ url }) =>
    typeof url === "string" ? { url } : undefined,
  );
}

/** Makes one request to Stripe for the user who waits, and answers what `read` makes of Stripe's answer. */
export async function awaitAnswer<T>(
  subjectId: string,
  deps: WaitingDeps,
  read: (response: Record<string, unknown>) => T | undefined,
): Promise<T> {
  return runUntil(
    subjectId,
    async (command, result) => {
      // Commands that stood before it in the account's line come by here too.
      if (command?.id !== subjectId || !result) return undefined;
      const { response, http_status } = result.answer;
      const found = http_status === 200 ? read(response) : undefined;
      if (found === undefined && result.status === "dead") throw refusal(result);
      return found;
    },
    deps,
    {},
  );
}

function refusal({ answer }: CommandResult) {
  const { error } = answer.response;
  const { code, type, message } = isObject(error) ? error : {};
  return refusedByStripe({}, { code: code ?? type, message });
}
