/** How a life ended, in the words of the stored rows. */
import { withoutCopy, type History } from "../../supabase/tests/support/history/index.ts";
import type { StoredRow } from "../../supabase/tests/support/stored-rows.ts";
import type { StripeObject } from "../../supabase/tests/support/stripe-objects.ts";

/** Where the rows say something else than how the life ended. */
export function contradictions(history: History, rows: StoredRow[]): string[] {
  const told = new Set(history.happenings.map(({ objectId }) => objectId));
  return [...history.states.values()]
    .map((known) => known.at(-1)!.whole)
    .filter(({ id }) => told.has(id))
    .map((truth) => JSON.parse(withoutCopy(JSON.stringify(truth), history)) as StripeObject)
    .flatMap((truth) => {
      const said = JSON.stringify(sayingOf(truth, rows));
      const so = JSON.stringify(truthOf(truth));
      return said === so ? [] : [`${truth.id} is ${so}, but stored as ${said}`];
    });
}

/** What the last state of an object is, in the words of the rows. */
function truthOf(truth: StripeObject): unknown[] {
  switch (truth.object) {
    case "customer":
      return truth["deleted"] === true ? [true] : [false, truth["email"], truth["delinquent"]];
    case "subscription":
      return [
        truth["status"],
        truth["cancel_at_period_end"],
        sorted(truth["metadata"]),
        truth["latest_invoice"],
        itemsOf(truth).map(({ id, quantity, price }) => [id, quantity, price.id]),
      ];
    case "invoice":
      return [truth["status"], truth["amount_paid"], truth["attempt_count"]];
    case "payment_intent":
      return [truth["status"], truth["amount_received"]];
    case "charge":
      return truth["status"] === "succeeded" ? [truth["amount_refunded"]] : [];
    case "refund":
      return [truth["status"]];
    default:
      return [];
  }
}

/** What the rows say of it. */
function sayingOf(truth: StripeObject, rows: StoredRow[]): unknown[] {
  const of = (table: string, column: string, value: unknown = truth.id) =>
    rows.filter((stored) => stored.of === table && stored.row[column] === value);
  const said = (stored: StoredRow | undefined, ...columns: string[]) =>
    columns.map((column) => stored?.row[column]);
  switch (truth.object) {
    case "customer": {
      const row = of("customers", "stripe_customer_id")[0];
      const isDeleted = row?.row["deleted_at"] !== null;
      return isDeleted ? [true] : [false, ...said(row, "email", "is_delinquent")];
    }
    case "subscription": {
      const agreement = of("subscriptions", "stripe_subscription_id")[0];
      return [
        ...said(agreement, "status", "cancel_at_period_end"),
        sorted(agreement?.row["metadata"]),
        ...said(agreement, "stripe_latest_invoice_id"),
        of("subscription_items", "subscription_id")
          .map((item) => said(item, "stripe_subscription_item_id", "quantity", "stripe_price_id"))
          .toSorted(),
      ];
    }
    case "invoice":
      return said(
        of("invoices", "stripe_invoice_id")[0],
        "status",
        "amount_paid_minor",
        "attempt_count",
      );
    case "payment_intent":
      return said(of("payments", "stripe_payment_key")[0], "status", "amount_received_minor");
    case "charge":
      return truth["status"] === "succeeded"
        ? said(of("payments", "stripe_charge_id")[0], "amount_refunded_minor")
        : [];
    case "refund":
      return said(of("refunds", "stripe_refund_id")[0], "status");
    default:
      return [];
  }
}

function itemsOf(agreement: StripeObject) {
  const { data } = agreement["items"] as unknown as {
    data: { id: string; quantity: number; price: { id: string } }[];
  };
  return data.toSorted((one, other) => (one.id < other.id ? -1 : 1));
}

/** Postgres keeps the keys of a hash in an order of its own. */
function sorted(hash: unknown): [string, unknown][] {
  return Object.entries(hash ?? {}).toSorted(([one], [other]) => (one < other ? -1 : 1));
}
