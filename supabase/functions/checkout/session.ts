import type { DataApi } from "../_shared/data_api.ts";
import { isObject } from "../_shared/errors.ts";
import { awaitAnswer } from "./pages.ts";
import { refusedByStripe, runUntil, type WaitingDeps } from "./waiting.ts";

interface CheckoutRow {
  id: string;
  status: string;
  url: string | null;
  expires_at: string | null;
  failure: unknown;
}

export interface CheckoutAnswer {
  checkout_id: string;
  url: string;
  expires_at: string | null;
}

/**
 * Opens a checkout page for the user, or finds the one that is open.
 *
 * The database takes the claim and says what Stripe is to be asked, so two clicks lead to one page.
 */
export async function openCheckout(
  body: Record<string, unknown>,
  user: DataApi,
  deps: WaitingDeps,
): Promise<CheckoutAnswer> {
  await findDiscount(body, user, deps);
  const [claim] = await user.rpc<CheckoutRow>("prepare_checkout", checkoutArguments(body));
  if (!claim) throw new Error("prepare_checkout returned nothing");

  const ready = whenReady(claim);
  if (ready) return ready;
  return runUntil(
    claim.id,
    async () => {
      const columns = "id,status,url,expires_at,failure";
      const row = await user.find<CheckoutRow>("checkout_sessions", columns, claim.id);
      return row && whenReady(row);
    },
    deps,
    { checkout_id: claim.id },
  );
}

/** Has Stripe asked for a code the database does not know. Whether it is valid is decided with the claim. */
async function findDiscount(
  { discount_code, account_id }: Record<string, unknown>,
  user: DataApi,
  deps: WaitingDeps,
): Promise<void> {
  const wanted = given({ discount_code });
  if (Object.keys(wanted).length === 0) return;
  const args = { ...wanted, ...given({ account_id }) };
  const [request] = await user.rpc<{ subject_id: string | null }>("find_discount", args);
  if (request?.subject_id) await awaitAnswer(request.subject_id, deps, () => true);
}

function whenReady(checkout: CheckoutRow): CheckoutAnswer | undefined {
  const { id, status, url, expires_at } = checkout;
  if (status === "creating") return undefined;
  if (status === "open" && url !== null) return { checkout_id: id, url, expires_at };
  const failure = isObject(checkout.failure) ? checkout.failure : {};
  throw refusedByStripe({ checkout_id: id, status }, failure);
}

/** Arguments without a default are always sent: the database says what is wrong with null. */
function checkoutArguments(body: Record<string, unknown>): Record<string, unknown> {
  const { price_key = null, success_url = null, cancel_url = null } = body;
  const { quantity, account_id, discount_code } = body;
  const optional = given({ quantity, account_id, discount_code });
  return { price_key, success_url, cancel_url, ...optional };
}

/** The fields that have a value; the database's defaults stand for the others. */
export function given(fields: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null),
  );
}
