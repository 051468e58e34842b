/** A catalog, readers and a clock for tests with real connections. */
import { createHash } from "node:crypto";
import type { Client } from "pg";
import { clockAsksFunction } from "../../../scripts/stack/clock.ts";
import { eventBody, type EventFields } from "./stripe-objects.ts";

/** Ids from names, so that failures read the same every time. */
export function idOf(name: string): string {
  const hex = createHash("md5").update(name).digest("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Holds billing_private.now(); without an instant it runs again. */
export async function setClock(owner: Client, instant?: string): Promise<void> {
  await owner.query(`
    create or replace function billing_private.now() returns timestamptz
    language plpgsql stable parallel safe set search_path = '' as $$
    begin
      return ${instant === undefined ? "now()" : `'${instant}'::timestamptz`};
    end;
    $$;
    ${clockAsksFunction}`);
}

/** Plans basic (reading) and plus (reading, clubs), each with a monthly price that Stripe knows. */
export async function addCatalog(owner: Client): Promise<void> {
  await owner.query(`
    insert into billing.features (key, name) values ('reading', 'Reading'), ('clubs', 'Clubs')`);
  await owner.query(`
    insert into billing.plans (id, key, name, tier, tier_rank, stripe_product_id) values
      (md5('basic')::uuid, 'basic', 'Basic', 'basic', 10, 'prod_basic'),
      (md5('plus')::uuid, 'plus', 'Plus', 'plus', 20, 'prod_plus')`);
  await owner.query(`
    insert into billing.prices
      (id, key, plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id,
        stripe_product_id)
    select
      md5('price ' || key)::uuid, key || '_monthly', id, 'usd', 1000, 'month', 'price_' || key,
      'prod_' || key
    from billing.plans`);
  await owner.query(`
    insert into billing.plan_features (plan_id, feature_key) values
      (md5('basic')::uuid, 'reading'), (md5('plus')::uuid, 'reading'), (md5('plus')::uuid, 'clubs')`);
}

/** An account that is Stripe's customer cus_<name>. */
export async function addReader(owner: Client, name: string): Promise<string> {
  await owner.query("insert into billing.accounts (id, name) values ($1, $2)", [idOf(name), name]);
  await owner.query(
    "insert into billing.customers (account_id, is_primary, stripe_customer_id) values ($1, true, $2)",
    [idOf(name), `cus_${name}`],
  );
  return idOf(name);
}

export interface IngestAnswer {
  event_id: string;
  status: string;
  duplicate: boolean;
}

/** Delivers as the webhook function does; the connection is the service's. */
export async function ingest(service: Client, event: EventFields): Promise<IngestAnswer> {
  const { rows } = await service.query<IngestAnswer>(
    "select * from billing.ingest_stripe_event($1)",
    [eventBody(event)],
  );
  return rows[0]!;
}

/** Delivers many at once, as a back-fill does. */
export async function ingestMany(service: Client, events: EventFields[]): Promise<IngestAnswer[]> {
  const { rows } = await service.query<IngestAnswer>(
    "select * from billing.ingest_stripe_events($1)",
    [events.map(eventBody)],
  );
  return rows;
}

/** Keys of what the account has now. */
export async function featuresOf(owner: Client, accountId: string): Promise<string[]> {
  const { rows } = await owner.query<{ key: string }>(
    `select distinct feature_key as key
    from billing.current_entitlements where account_id = $1 order by feature_key`,
    [accountId],
  );
  return rows.map(({ key }) => key);
}

/** Stored entitlements that are not what their sources say, of everybody. */
export async function driftOf(owner: Client): Promise<unknown[]> {
  const { rows } = await owner.query(
    "select * from billing_private.validate_entitlements(array(select id from billing.accounts))",
  );
  return rows;
}

/** Events and tasks that did not succeed at once: a deadlock is among them, or nothing is. */
export async function failuresOf(owner: Client): Promise<unknown[]> {
  const { rows } = await owner.query(
    `select type as what, last_error as error
    from billing_private.stripe_events
    where status not in ('applied', 'ignored') or last_error is not null or attempts > 1
    union all
    select task_key, error from billing_private.task_runs where outcome = 'failed'`,
  );
  return rows;
}
