import type { DataApi } from "../_shared/data_api.ts";
import { isObject } from "../_shared/errors.ts";
import { given } from "./session.ts";
import { refusedByStripe, runUntil, type WaitingDeps } from "./waiting.ts";

/**
 * Opens Stripe's billing portal for the user.
 *
 * The address goes from Stripe's answer to the user and is stored nowhere: whoever has it acts as the customer.
 */
export async function openPortal(
  body: Record<string, unknown>,
  user: DataApi,
  deps: WaitingDeps,
): Promise<{ url: string }> {
  const { return_url = null, account_id } = body;
  const [request] = await user.rpc<{ subject_id: string }>("prepare_portal", {
    return_url,
    ...given({ account_id }),
  });
  if (!request) throw new Error("prepare_portal returned nothing");

  return runUntil(
    request.subject_id,
    async (command, result) => {
      // Commands that stood before it in the account's line come by here too.
      if (command?.id !== request.subject_id || !result) return undefined;
      const { response, http_status } = result.answer;
      if (http_status === 200 && typeof response["url"] === "string") {
        return { url: response["url"] };
      }
      if (result.status !== "dead") return undefined;
      const error = isObject(response["error"]) ? response["error"] : {};
      throw refusedByStripe(
        {},
        { code: error["code"] ?? error["type"], message: error["message"] },
      );
    },
    deps,
    {},
  );
}
