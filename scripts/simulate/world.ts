/** A database in which many lives are told at once: its catalog, and what is there before Stripe says anything. */
import type { Client } from "pg";
import { clockAsksFunction } from "../stack/clock.ts";
import type { TestDatabase } from "../../supabase/tests/support/database.ts";
import type { Telling } from "./stripe.ts";

export interface World {
  owner: Client;
  deliverers: Deliverer[];
}

/** A connection of the webhook function's; after it was killed there is another one. */
export interface Deliverer {
  client: Client;
  /** Beside it, as the owner: writes commands, and kills. */
  keeper: Client;
  renew(): Promise<void>;
}

export const catalog = ["price_basic", "price_plus", "price_extra"] as const;

export async function openWorld(database: TestDatabase, connections: number): Promise<World> {
  const owner = await database.connect();
  // In the middle of the lives: some have access, some had it.
  await owner.query(`
    create or replace function billing_private.now() returns timestamptz
    language sql stable set search_path = '' as $$ select '2026-03-15 12:00Z'::timestamptz $$;
    ${clockAsksFunction}`);
  await owner.query(`
    insert into billing.features (key, name) values ('reading', 'Reading'), ('writing', 'Writing')`);
  await owner.query(`
    insert into billing.plans (key, name, kind, tier, tier_rank, stripe_product_id)
    values
      ('basic', 'Basic', 'base', 'basic', 10, 'prod_of_price_basic'),
      ('plus', 'Plus', 'base', 'plus', 20, 'prod_of_price_plus'),
      ('extra', 'Extra', 'add_on', null, 0, 'prod_of_price_extra')`);
  await owner.query(`
    insert into billing.prices (plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id)
    select id, 'usd', 1000, 'month', 'price_' || key from billing.plans`);
  await owner.query(`
    insert into billing.plan_features (plan_id, feature_key, limit_value)
    select id, 'reading', tier_rank from billing.plans
    union all
    select id, 'writing', null from billing.plans where key = 'extra'`);
  const deliverers = await Promise.all(
    Array.from({ length: connections }, () => createDeliverer(database)),
  );
  return { owner, deliverers };
}

async function createDeliverer(database: TestDatabase): Promise<Deliverer> {
  const connect = async () => {
    const client = await database.connect("service_role");
    client.on("error", () => {}); // it was killed; whoever uses it is told by the query
    return client;
  };
  const deliverer: Deliverer = {
    client: await connect(),
    keeper: await database.connect(),
    renew: async () => {
      deliverer.client = await connect();
    },
  };
  return deliverer;
}

/** The accounts, plans that wait for their product, and the checkouts of lives. */
export async function prepare({ owner }: World, tellings: Telling[]): Promise<void> {
  const values = tellings.map(({ history: { account, planKeys, checkout } }) => ({
    id: account.id,
    name: account.name,
    plan_keys: planKeys,
    checkout_id: checkout?.id ?? null,
  }));
  await owner.query(
    `with lives as (
      select *
      from jsonb_to_recordset($1) as lives (id uuid, name text, plan_keys text[], checkout_id uuid)
    ),
    accounts as (
      insert into billing.accounts (id, name) select id, name from lives
    )
    insert into billing.plans (key, name, kind, tier, tier_rank)
    select key, key, case place when 3 then 'add_on' else 'base' end, 'tier ' || place, 10 * place
    from lives
    cross join lateral unnest(plan_keys) with ordinality as named (key, place)`,
    [JSON.stringify(values)],
  );
  await owner.query(
    `insert into billing.plan_features (plan_id, feature_key, limit_value)
    select plans.id, 'reading', plans.tier_rank
    from jsonb_to_recordset($1) as lives (plan_keys text[])
    join billing.plans on plans.key = any (lives.plan_keys)`,
    [JSON.stringify(values)],
  );
  await owner.query(
    `insert into billing.checkout_sessions (id, account_id, price_id, success_url, cancel_url, status)
    select
      lives.checkout_id, lives.id, prices.id, 'https://example.com', 'https://example.com',
      'creating'
    from jsonb_to_recordset($1) as lives (id uuid, checkout_id uuid)
    join billing.prices on stripe_price_id = 'price_basic'
    where lives.checkout_id is not null`,
    [JSON.stringify(values)],
  );
}

/** Events that were not applied at once: a deadlock would be among them. */
export async function troubles({ owner }: World): Promise<string[]> {
  const { rows } = await owner.query<{ trouble: string }>(
    `select concat_ws(' ', event_id, type, status, last_error) as trouble
    from billing_private.stripe_events
    where status not in ('applied', 'ignored') or last_error is not null or attempts > 1`,
  );
  return rows.map(({ trouble }) => trouble);
}

/** The kinds of objects that can be read at Stripe. */
export async function readableTypes({ owner }: World): Promise<Set<string>> {
  const { rows } = await owner.query<{ object_type: string }>(
    "select object_type from billing_private.stripe_resources",
  );
  return new Set(rows.map(({ object_type }) => object_type));
}

/** What came in for these objects. */
export async function inboxOf({ owner }: World, objectIds: string[]): Promise<string[]> {
  const { rows } = await owner.query<{ line: string }>(
    `select concat_ws(' ',
      sequence, to_char(occurred_at, 'YYYY-MM-DD HH24:MI:SS'), event_id, type, status, status_reason,
      'builds on ' || builds_on,
      payload::jsonb #> '{data,previous_attributes}', md5(jsonb_strip_nulls(payload::jsonb #> '{data,object}')::text)) as line
    from billing_private.stripe_events
    where object_id = any ($1)
    order by object_id, sequence`,
    [objectIds],
  );
  return rows.map(({ line }) => line);
}
