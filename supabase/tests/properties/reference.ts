/**
 * Who has what at an instant, told in the slowest and plainest way: every source is asked by itself about
 * that instant. It knows nothing of intervals that were computed before, and shares no code with what it
 * is compared with.
 */

/** Microseconds since 1970, as exact as Postgres's own. */
export type Instant = bigint;

export interface Plan {
  features: Map<string, bigint | null>;
  store: string | null;
  tier: string;
  rank: number;
  renewalGrace: Instant;
  pastDueGrace: Instant;
  paused: Level;
  /** Of its dunning policy; null where that has no such stage. */
  readOnlyAfter: Instant | null;
  suspendAfter: Instant | null;
}

export type Level = "full" | "read_only" | "none";

export interface Subscription {
  provider: string;
  status: string;
  startedAt: Instant | null;
  endedAt: Instant | null;
  cancelAt: Instant | null;
  cancelAtPeriodEnd: boolean;
  pastDueSince: Instant | null;
  pauseBehavior: string | null;
  latestInvoice: string | null;
  restrictions: { level: Level; begins: Instant; periodsBefore: Instant | "infinity" }[];
  items: { plan: Plan | null; periodStart: Instant | null; periodEnd: Instant | null }[];
}

export interface Grant {
  feature: string;
  limit: bigint | null;
  from: Instant;
  until: Instant | "infinity";
}

/** While it is in force, what it says of a feature is also what a plan gives of it. */
export interface Contract {
  features: Map<string, bigint | null>;
  from: Instant;
  until: Instant | "infinity";
}

export interface Account {
  subscriptions: Subscription[];
  contracts: Contract[];
  /** Those that were not revoked. */
  grants: Grant[];
}

export interface Answer {
  level: Level;
  /** Best of all that is given in full: null for no limit, 0 for nothing. */
  limit: bigint | null;
}

export function answerAt(
  { subscriptions, contracts, grants }: Account,
  feature: string,
  at: Instant,
  store?: string,
): Answer {
  const limits: (bigint | null)[] = [];
  let mayRead = false;

  const agreed: (bigint | null)[] = [];
  for (const contract of contracts) {
    const limit = contract.features.get(feature);
    if (limit === undefined || at < contract.from || !isBefore(at, contract.until)) continue;
    agreed.push(limit);
  }
  if (store === undefined) limits.push(...agreed);

  for (const subscription of subscriptions) {
    for (const item of subscription.items) {
      const given = item.plan?.features.get(feature);
      if (item.plan === null || given === undefined) continue;
      if (store !== undefined && item.plan.store !== store) continue;
      const level = levelAt(subscription, item, item.plan, at);
      if (level === "full") limits.push(...(agreed.length > 0 ? agreed : [given]));
      if (level === "read_only") mayRead = true;
    }
  }
  for (const grant of grants) {
    if (grant.feature !== feature || store !== undefined) continue;
    if (at >= grant.from && isBefore(at, grant.until)) limits.push(grant.limit);
  }

  if (limits.length === 0) return { level: mayRead ? "read_only" : "none", limit: 0n };
  const bounded = limits.filter((limit) => limit !== null);
  if (bounded.length < limits.length) return { level: "full", limit: null };
  return { level: "full", limit: bounded.reduce((best, limit) => (limit > best ? limit : best)) };
}

/** Tier of the highest-ranking plan that gives something in full. */
export function tierAt({ subscriptions }: Account, at: Instant): string | null {
  let best: Plan | null = null;
  for (const subscription of subscriptions) {
    for (const item of subscription.items) {
      if (item.plan === null || item.plan.features.size === 0) continue;
      if (levelAt(subscription, item, item.plan, at) !== "full") continue;
      if (best === null || item.plan.rank > best.rank) best = item.plan;
    }
  }
  return best?.tier ?? null;
}

function levelAt(
  subscription: Subscription,
  item: Subscription["items"][number],
  plan: Plan,
  at: Instant,
): Level {
  const begins = subscription.startedAt ?? item.periodStart;
  if (begins === null || at < begins) return "none";

  const unrestricted = levelByStatus(subscription, item, plan, at);
  const begun = subscription.restrictions
    .filter(({ level }) => level !== "full")
    .filter(
      ({ periodsBefore }) => item.periodStart === null || isBefore(item.periodStart, periodsBefore),
    )
    .filter((restriction) => at >= restriction.begins);
  if (begun.some(({ level }) => level === "none")) return "none";
  return begun.length > 0 && unrestricted === "full" ? "read_only" : unrestricted;
}

function levelByStatus(
  subscription: Subscription,
  item: Subscription["items"][number],
  plan: Plan,
  at: Instant,
): Level {
  const { status, pastDueSince } = subscription;
  const isPaid = subscription.latestInvoice === "paid";
  const isPaused =
    status === "paused" ||
    (subscription.pauseBehavior === "void" && subscription.latestInvoice === "void");

  if (subscription.endedAt !== null) return "none";
  if (status === "canceled" || status === "incomplete_expired") return "none";
  if (subscription.cancelAt !== null && at >= subscription.cancelAt) return "none";
  if (subscription.cancelAtPeriodEnd && item.periodEnd !== null && at >= item.periodEnd) {
    return "none";
  }
  if (isPaused) return plan.paused;
  if (!["active", "trialing", "past_due", "incomplete", "unpaid"].includes(status)) return "none";
  if ((status === "incomplete" || status === "unpaid") && !isPaid) return "none";
  if (item.periodEnd === null) return "none";

  if (status === "past_due" && !isPaid && pastDueSince !== null) {
    const owing = at - pastDueSince;
    if (plan.readOnlyAfter === null && plan.suspendAfter === null) {
      return owing < plan.pastDueGrace ? "full" : "none";
    }
    if (plan.suspendAfter !== null && owing >= plan.suspendAfter) return "none";
    return plan.readOnlyAfter !== null && owing >= plan.readOnlyAfter ? "read_only" : "full";
  }
  if (subscription.provider === "manual") return "full";
  return at < item.periodEnd + plan.renewalGrace ? "full" : "none";
}

function isBefore(at: Instant, end: Instant | "infinity"): boolean {
  return end === "infinity" || at < end;
}
