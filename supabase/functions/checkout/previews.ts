import type { DataApi } from "../_shared/data_api.ts";
import { isObject } from "../_shared/errors.ts";
import { awaitAnswer } from "./pages.ts";
import type { WaitingDeps } from "./waiting.ts";

/** A row of billing.change_preview, as far as it matters here. */
interface Preview extends Record<string, unknown> {
  subject_id: string | null;
  at_period_end: boolean;
}

interface PreviewLine {
  description: string | null;
  amount_minor: number;
  quantity: number | null;
  period_start: string | null;
  period_end: string | null;
  is_proration: boolean;
}

/**
 * What a change of plan would cost, in the words of whoever will charge it: Stripe, or for subscriptions without
 * Stripe the database.
 */
export async function previewChange(
  args: Record<string, unknown>,
  user: DataApi,
  deps: WaitingDeps,
): Promise<Record<string, unknown>> {
  const [row] = await user.rpc<Preview>("preview_change", args);
  if (!row) throw new Error("preview_change returned nothing");
  const { subject_id, ...preview } = row;
  if (subject_id === null) return preview;

  return awaitAnswer(subject_id, deps, (invoice) =>
    invoice["object"] === "invoice"
      ? { ...preview, ...amountsOf(invoice, preview.at_period_end) }
      : undefined,
  );
}

/** Of a change for later nothing is due now: the invoice is what a period costs from then on. */
function amountsOf(invoice: Record<string, unknown>, atPeriodEnd: boolean) {
  const total = numberOf(invoice["total"]);
  return {
    currency: invoice["currency"],
    lines: listOf(invoice["lines"]).map(lineOf),
    tax_minor: arrayOf(invoice["total_taxes"]).reduce(
      (sum, tax) => sum + numberOf(tax["amount"]),
      0,
    ),
    total_minor: total,
    due_now_minor: atPeriodEnd ? 0 : numberOf(invoice["amount_due"]),
    credit_minor: atPeriodEnd ? 0 : Math.max(-total, 0),
  };
}

function lineOf(line: Record<string, unknown>): PreviewLine {
  const period = isObject(line["period"]) ? line["period"] : {};
  const parent = isObject(line["parent"]) ? line["parent"] : {};
  const details = parent["subscription_item_details"] ?? parent["invoice_item_details"];
  return {
    description: typeof line["description"] === "string" ? line["description"] : null,
    amount_minor: numberOf(line["amount"]),
    quantity: typeof line["quantity"] === "number" ? line["quantity"] : null,
    period_start: timeOf(period["start"]),
    period_end: timeOf(period["end"]),
    is_proration: isObject(details) && details["proration"] === true,
  };
}

function listOf(list: unknown): Record<string, unknown>[] {
  return arrayOf(isObject(list) ? list["data"] : undefined);
}

function arrayOf(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}

function numberOf(value: unknown): number {
  return typeof value === "number" ? value : 0;
}

function timeOf(seconds: unknown): string | null {
  return typeof seconds === "number" ? new Date(seconds * 1_000).toISOString() : null;
}
