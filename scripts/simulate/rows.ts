/** Compares what two deliveries of one life have stored. */
import type { StoredRow } from "../../supabase/tests/support/stored-rows.ts";

/**
 * What is certain of a life: all that its events say, where nothing else was heard; or that, but for the moments
 * that a reading may say otherwise; or how it ended.
 */
export type Certainty = "all" | "events" | "ends";

/**
 * Moments that no object of Stripe's tells, only the event of that moment: where the object was read before or
 * after it came, the moment is that of the reading.
 */
const read: Record<string, readonly string[]> = {
  checkout_sessions: ["completed_at"],
  customers: ["deleted_at"],
  discounts: ["removed_at"],
  dunning_cases: ["closed_at"],
  payment_methods: ["detached_at"],
  tax_ids: ["deleted_at"],
};

/** And those that stay unknown where the event was lost. */
const lost: Record<string, readonly string[]> = {
  ...read,
  access_restrictions: ["begins_at", "periods_before"],
  dunning_cases: [
    "closed_at",
    "due_at",
    "next_retry_at",
    "next_stage_at",
    "opened_at",
    "runs_from",
  ],
  subscriptions: ["past_due_since"],
};

/** What only events tell. */
const told: Record<string, readonly string[]> = {
  disputes: ["decided_at", "lost_at", "returned_at"],
  invoices: ["action_required_at", "payment_failed_at"],
  refunds: ["returned_at"],
};

/** What Stripe does not say any more of what is gone. */
const forgotten: Record<string, { since: string; columns: readonly string[] }> = {
  customers: {
    since: "deleted_at",
    columns: [
      "created_at",
      "currency",
      "email",
      "is_delinquent",
      "name",
      "stripe_default_payment_method_id",
    ],
  },
  payment_methods: { since: "detached_at", columns: ["account_id", "stripe_customer_id"] },
  tax_ids: { since: "deleted_at", columns: ["verification_status"] },
};

/** How rows compare when Stripe has answered all questions. Answers have ids of their own. */
export function settled(rows: StoredRow[], certainty: Certainty): StoredRow[] {
  // Grace, and what a refund or dispute takes away, count from the moment that was heard of.
  const isUncertain =
    certainty === "ends" &&
    rows.some(({ of, row }) => of === "access_restrictions" || row["past_due_since"]);
  const left = ["newest snapshots", ...(isUncertain ? ["entitlements", "profiles"] : [])];
  return rows
    .filter(({ of }) => !left.includes(of))
    .filter((stored) => certainty !== "ends" || !isPast(stored))
    .map(({ of, row }) => {
      const known = { ...row };
      // The age of the newest snapshot, whether an event or an answer brought it.
      delete known["updated_at"];
      if (certainty === "all") return { of, row: known };
      const moments = certainty === "events" ? read : lost;
      for (const column of moments[of] ?? []) known[column] = known[column] !== null;
      if (certainty === "ends") for (const column of told[of] ?? []) delete known[column];
      const { since, columns } = forgotten[of] ?? { since: "", columns: [] };
      for (const column of row[since] ? columns : []) delete known[column];
      return { of, row: known };
    });
}

/** That an invoice was overdue once cannot be read any more when it is paid. */
function isPast({ of, row }: StoredRow): boolean {
  return of === "dunning_cases" && ["closed", "recovered"].includes(String(row["status"]));
}

/** What was heard of late must not take away what was bought since. */
export function restrictedLonger(expected: StoredRow[], actual: StoredRow[]): string[] {
  const restrictionsIn = (rows: StoredRow[]) =>
    rows.filter(({ of }) => of === "access_restrictions").map(({ row }) => row);
  const known = restrictionsIn(expected);
  return restrictionsIn(actual).flatMap((row) => {
    const told = known.find((other) =>
      ["subscription_id", "cause", "reference"].every((column) => other[column] === row[column]),
    );
    if (told === undefined) return [];
    const [was, is] = [String(told["periods_before"]), String(row["periods_before"])];
    return is > was
      ? [`access_restrictions ${String(row["reference"])} lasts until ${is}, not ${was}`]
      : [];
  });
}

/** False for what is over before somebody who was told late could see it. */
export function isLasting({ of, row }: StoredRow): boolean {
  return of !== "access_restrictions" || row["lifted_at"] === null;
}

/** What differs, column by column where a row is on both sides. */
export function differencesOf(expected: StoredRow[], actual: StoredRow[]): string[] {
  const missing = without(expected, actual);
  const surplus = without(actual, expected);
  return [
    ...missing.flatMap((row) => {
      const twin = surplus.findIndex((other) => nameOf(other) === nameOf(row));
      return twin < 0
        ? [`${row.of}: missing ${JSON.stringify(row.row)}`]
        : columnsOf(row, surplus.splice(twin, 1)[0]!);
    }),
    ...surplus.map(({ of, row }) => `${of}: surplus ${JSON.stringify(row)}`),
  ];
}

function columnsOf(expected: StoredRow, actual: StoredRow): string[] {
  return Object.keys(expected.row)
    .map((column) => ({
      column,
      was: JSON.stringify(expected.row[column]),
      is: JSON.stringify(actual.row[column]),
    }))
    .filter(({ was, is }) => was !== is)
    .map(({ column, was, is }) => `${nameOf(expected)} ${column}: expected ${was}, found ${is}`);
}

/** What a row is called by Stripe, or else by us. */
function nameOf({ of, row }: StoredRow): string {
  const names = Object.entries(row)
    .filter(([column]) => /^(stripe_.*_(id|key)|object|id|feature_key)$/.test(column))
    .map(([, value]) => value);
  return `${of} ${names[0] ?? ""} ${row["feature_key"] ?? ""}`.trim();
}

function without(rows: StoredRow[], others: StoredRow[]): StoredRow[] {
  const left = new Map<string, number>();
  for (const other of others) left.set(textOf(other), (left.get(textOf(other)) ?? 0) + 1);
  return rows.filter((row) => {
    const count = left.get(textOf(row)) ?? 0;
    left.set(textOf(row), count - 1);
    return count <= 0;
  });
}

function textOf({ of, row }: StoredRow): string {
  return `${of} ${JSON.stringify(row)}`;
}
