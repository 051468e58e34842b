/** A few accounts, a catalog, and what is stored of them as the reference wants to know it. */
import type { Client } from "pg";
import { idOf } from "../support/readers.ts";
import type { Account, Instant, Plan } from "./reference.ts";

export const accounts = ["ann", "bob", "cid", "dan"] as const;
export const features = ["clubs", "premium", "hosting", "exports"] as const;
export const plans = ["basic", "plus", "owls", "stage"] as const;
export const store = "night-owl";

/** As Postgres reads it, to the microsecond. */
export function isoOf(instant: Instant): string {
  const seconds = new Date(Number(instant / 1_000_000n) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${String(instant % 1_000_000n).padStart(6, "0")}Z`;
}

export async function addWorld(owner: Client): Promise<void> {
  await owner.query(
    "insert into billing.stores (id, key, name) values (md5($1)::uuid, $1, 'Night Owl')",
    [store],
  );
  await owner.query(
    `insert into billing.features (key, name, kind)
    select key, key, case key when 'clubs' then 'limit' when 'exports' then 'metered' else 'boolean' end
    from unnest($1::text[]) as key`,
    [features],
  );
  await owner.query(`
    insert into billing.access_policies (key, description, paused) values
      ('reading', 'reads', 'read_only'), ('lenient', 'goes on', 'full')`);
  await owner.query(`
    insert into billing.dunning_policies (key, description) values
      ('firm', 'reading, then nothing'), ('short', 'nothing')`);
  await owner.query(`
    insert into billing.dunning_stages (policy_key, begins_after, action) values
      ('firm', '2 days', 'read_only'), ('firm', '5 days', 'suspend'), ('short', '1 day', 'suspend')`);
  await owner.query(
    `insert into billing.plans
      (id, key, name, kind, tier, tier_rank, store_id, stripe_product_id, access_policy_key,
        dunning_policy_key)
    select
      md5(key)::uuid, key, key, case key when 'stage' then 'add_on' else 'base' end, key, place * 10,
      case key when 'owls' then md5($2)::uuid end, 'prod_' || key,
      case key when 'plus' then 'reading' when 'owls' then 'lenient' else 'standard' end,
      case key when 'plus' then 'firm' when 'stage' then 'short' else 'standard' end
    from unnest($1::text[]) with ordinality as plans (key, place)`,
    [plans, store],
  );
  await owner.query(`
    insert into billing.plan_features (plan_id, feature_key, limit_value) values
      (md5('basic')::uuid, 'clubs', 3), (md5('plus')::uuid, 'clubs', 10),
      (md5('plus')::uuid, 'premium', null), (md5('owls')::uuid, 'clubs', 5),
      (md5('owls')::uuid, 'exports', 100), (md5('stage')::uuid, 'hosting', null)`);
  await owner.query(
    `insert into billing.prices
      (id, key, plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id,
        stripe_product_id)
    select
      md5('price ' || key)::uuid, key || '_monthly', md5(key)::uuid, 'usd', 500, 'month',
      'price_' || key, 'prod_' || key
    from unnest($1::text[]) as key`,
    [plans],
  );
  await owner.query(
    "insert into billing.accounts (id, name) select id, name from unnest($1::uuid[], $2::text[]) as new (id, name)",
    [accounts.map(idOf), accounts],
  );
}

/** Numbers of microseconds are too large for JSON's own, so all of them come as text. */
interface Row {
  id: string;
  contracts: {
    features: { key: string; limit: string | null }[];
    from: string;
    until: string | null;
  }[];
  subscriptions: RowOfSubscription[];
  grants: { feature: string; limit: string | null; from: string; until: string | null }[];
}

interface RowOfSubscription {
  provider: string;
  status: string;
  started_at: string | null;
  ended_at: string | null;
  cancel_at: string | null;
  cancel_at_period_end: boolean;
  past_due_since: string | null;
  pause_behavior: string | null;
  latest_invoice: string | null;
  restrictions: {
    level: "full" | "read_only" | "none";
    begins: string;
    periods_before: string | null;
  }[];
  items: { plan: string | null; period_start: string | null; period_end: string | null }[];
}

interface RowOfPlan {
  key: string;
  store: string | null;
  rank: number;
  renewal_grace: string;
  past_due_grace: string;
  paused: "full" | "read_only" | "none";
  read_only_after: string | null;
  suspend_after: string | null;
  features: { key: string; limit: string | null }[];
}

export async function readWorld(owner: Client): Promise<{ id: string; account: Account }[]> {
  const catalog = await readPlans(owner);
  const { rows } = await owner.query<Row>(`
    select
      accounts.id,
      coalesce((
        select jsonb_agg(jsonb_build_object(
          'provider', provider, 'status', status, 'started_at', ${micro("started_at")},
          'ended_at', ${micro("ended_at")}, 'cancel_at', ${micro("cancel_at")},
          'cancel_at_period_end', cancel_at_period_end,
          'past_due_since', ${micro("past_due_since")},
          'pause_behavior', pause_collection ->> 'behavior',
          'latest_invoice', (
            select invoices.status from billing.invoices
            where stripe_invoice_id = stripe_latest_invoice_id),
          'restrictions', coalesce((
            select jsonb_agg(jsonb_build_object(
              'level', access_level, 'begins', ${micro("begins_at")},
              'periods_before', ${micro("nullif(periods_before, 'infinity')")}))
            from billing.access_restrictions
            where subscription_id = subscriptions.id and lifted_at is null), '[]'),
          'items', coalesce((
            select jsonb_agg(jsonb_build_object(
              'plan', (
                select plans.key from billing.plans
                join billing.prices on prices.plan_id = plans.id
                where prices.id = subscription_items.price_id),
              'period_start', ${micro("subscription_items.current_period_start")},
              'period_end', ${micro("subscription_items.current_period_end")}))
            from billing.subscription_items
            where subscription_id = subscriptions.id), '[]')))
        from billing.subscriptions
        where account_id = accounts.id), '[]') as subscriptions,
      coalesce((
        select jsonb_agg(jsonb_build_object(
          'from', ${micro("starts_at")},
          'until', ${micro("coalesce(ended_at, ends_at)")},
          'features', (
            select coalesce(
              jsonb_agg(jsonb_build_object('key', feature_key, 'limit', limit_value::text)), '[]')
            from billing.contract_features
            where contract_id = contracts.id)))
        from billing.contracts
        where account_id = accounts.id), '[]') as contracts,
      coalesce((
        select jsonb_agg(jsonb_build_object(
          'feature', feature_key, 'limit', limit_value::text, 'from', ${micro("valid_from")},
          'until', ${micro("nullif(valid_until, 'infinity')")}))
        from billing.entitlement_grants
        where account_id = accounts.id and revoked_at is null), '[]') as grants
    from billing.accounts
    order by accounts.id`);
  return rows.map((row) => ({ id: row.id, account: accountOf(row, catalog) }));
}

async function readPlans(owner: Client): Promise<Map<string, Plan>> {
  const { rows } = await owner.query<RowOfPlan>(`
    select
      plans.key, stores.key as store, tier_rank as rank,
      ${micro("renewal_grace")} as renewal_grace, ${micro("past_due_grace")} as past_due_grace,
      access_policies.paused,
      ${micro("(select min(begins_after) from billing.dunning_stages where policy_key = dunning_policy_key and action = 'read_only')")}
        as read_only_after,
      ${micro("(select min(begins_after) from billing.dunning_stages where policy_key = dunning_policy_key and action = 'suspend')")}
        as suspend_after,
      coalesce((
        select jsonb_agg(jsonb_build_object('key', feature_key, 'limit', limit_value::text))
        from billing.plan_features
        where plan_id = plans.id and version = 1), '[]') as features
    from billing.plans
    join billing.access_policies on access_policies.key = access_policy_key
    left join billing.stores on stores.id = store_id`);
  return new Map(rows.map((row) => [row.key, planOf(row)]));
}

function planOf(row: RowOfPlan): Plan {
  return {
    features: new Map(row.features.map(({ key, limit }) => [key, whole(limit)])),
    store: row.store,
    tier: row.key,
    rank: row.rank,
    renewalGrace: BigInt(row.renewal_grace),
    pastDueGrace: BigInt(row.past_due_grace),
    paused: row.paused,
    readOnlyAfter: whole(row.read_only_after),
    suspendAfter: whole(row.suspend_after),
  };
}

function accountOf(row: Row, catalog: Map<string, Plan>): Account {
  return {
    subscriptions: row.subscriptions.map((subscription) => ({
      provider: subscription.provider,
      status: subscription.status,
      startedAt: whole(subscription.started_at),
      endedAt: whole(subscription.ended_at),
      cancelAt: whole(subscription.cancel_at),
      cancelAtPeriodEnd: subscription.cancel_at_period_end,
      pastDueSince: whole(subscription.past_due_since),
      pauseBehavior: subscription.pause_behavior,
      latestInvoice: subscription.latest_invoice,
      restrictions: subscription.restrictions.map(({ level, begins, periods_before }) => ({
        level,
        begins: BigInt(begins),
        periodsBefore: whole(periods_before) ?? "infinity",
      })),
      items: subscription.items.map(({ plan, period_start, period_end }) => ({
        plan: catalog.get(plan ?? "") ?? null,
        periodStart: whole(period_start),
        periodEnd: whole(period_end),
      })),
    })),
    contracts: row.contracts.map(({ features, from, until }) => ({
      features: new Map(features.map(({ key, limit }) => [key, whole(limit)])),
      from: BigInt(from),
      until: whole(until) ?? "infinity",
    })),
    grants: row.grants.map(({ feature, limit, from, until }) => ({
      feature,
      limit: whole(limit),
      from: BigInt(from),
      until: whole(until) ?? "infinity",
    })),
  };
}

/** Every instant at which an answer may change. */
export function instantsOf(world: { account: Account }[]): Instant[] {
  const instants = new Set<Instant>();
  const note = (instant: Instant | "infinity" | null) => {
    if (typeof instant === "bigint") instants.add(instant);
  };
  for (const { account } of world) {
    for (const { from, until } of [...account.grants, ...account.contracts]) {
      [from, until].forEach(note);
    }
    for (const subscription of account.subscriptions) {
      [subscription.startedAt, subscription.cancelAt].forEach(note);
      for (const { begins } of subscription.restrictions) note(begins);
      for (const { plan, periodStart, periodEnd } of subscription.items) {
        [periodStart, periodEnd].forEach(note);
        if (plan === null) continue;
        if (periodEnd !== null) note(periodEnd + plan.renewalGrace);
        for (const after of [plan.pastDueGrace, plan.readOnlyAfter, plan.suspendAfter]) {
          if (subscription.pastDueSince !== null && after !== null) {
            note(subscription.pastDueSince + after);
          }
        }
      }
    }
  }
  return [...instants];
}

function micro(expression: string): string {
  return `(extract(epoch from ${expression}) * 1000000)::bigint::text`;
}

function whole(text: string | null): bigint | null {
  return text === null ? null : BigInt(text);
}
