import type { DataApi } from "../_shared/data_api.ts";
import { errorCodes, type ErrorCode } from "../_shared/error_codes.ts";
import { apiError, isObject } from "../_shared/errors.ts";
import { runUntil, type WaitingDeps } from "./waiting.ts";

/** A row of billing.subscription_summary, as far as it matters here. */
interface Summary extends Record<string, unknown> {
  id: string;
  account_id: string;
  pending_command: string | null;
  refusal: unknown;
}

/**
 * Has the database ask Stripe for a change of the user's subscription, and Stripe answer.
 *
 * The wish stands in the outbox before Stripe is called: where Stripe is slow the user is told so, and the change is
 * made later. Answers the subscription as it is then.
 */
export async function changeSubscription(
  wish: string,
  args: Record<string, unknown>,
  user: DataApi,
  deps: WaitingDeps,
): Promise<Summary> {
  const [asked] = await user.rpc<Summary>(wish, args);
  if (!asked) throw new Error(`${wish} returned nothing`);
  if (asked.pending_command === null) return asked;

  const { id, account_id } = asked;
  // The invoice of a change that could not be paid comes with an event of its own, a moment later.
  let looksForInvoice = 8;
  return runUntil(
    id,
    async () => {
      const [summary] = await user.rpc<Summary>("my_subscription", { account_id });
      if (!summary || summary.pending_command !== null) return undefined;
      if (!isObject(summary.refusal)) return summary;
      if (summary.refusal["open_invoice_url"] === null && looksForInvoice-- > 0) return undefined;
      throw refused(id, summary.refusal);
    },
    deps,
    { subscription_id: id, pending_command: asked.pending_command },
  );
}

/** The database says which error of the catalog it is. */
function refused(subscription_id: string, { code, ...details }: Record<string, unknown>) {
  return apiError(isErrorCode(code) ? code : "STRIPE_REQUEST_FAILED", {
    subscription_id,
    ...details,
  });
}

function isErrorCode(code: unknown): code is ErrorCode {
  return typeof code === "string" && Object.hasOwn(errorCodes, code);
}
