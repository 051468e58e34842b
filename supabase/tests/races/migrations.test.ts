// Subscribers are moved to another plan while they change, cancel and buy: each is moved once, or left alone.
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap, pidOf, waitsOrEnds } from "../support/overlapping.ts";
import { addCatalog, addReader, driftOf, idOf, ingest } from "../support/readers.ts";
import { second, subscription, subscriptionItem } from "../support/stripe-objects.ts";

let database: TestDatabase;
let owner: Client;
let other: Client;
let observer: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  [owner, other, observer] = await Promise.all([
    database.connect(),
    database.connect(),
    database.connect(),
  ]);
  await addCatalog(owner);
  await owner.query(`
    insert into billing.plans (id, key, name, tier, tier_rank, stripe_product_id)
    values (md5('pro')::uuid, 'pro', 'Pro', 'pro', 30, 'prod_pro');
    insert into billing.prices
      (id, key, plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id,
        stripe_product_id)
    values (md5('price pro')::uuid, 'pro_monthly', md5('pro')::uuid, 'usd', 3000, 'month',
      'price_pro', 'prod_pro')`);
});

afterAll(() => database?.drop());

afterEach(async () => {
  expect(await driftOf(owner)).toEqual([]);
  const { rows } = await owner.query(
    "select * from billing_private.plan_migration_steps where status = 'pending'",
  );
  expect(rows).toEqual([]);
});

async function subscribeAtStripe(name: string): Promise<void> {
  await addReader(owner, name);
  const service = await database.connect("service_role");
  await ingest(service, bought(name));
  await service.end();
}

function bought(name: string) {
  const created = second(new Date(Date.now() - 86_400_000).toISOString());
  const item = subscriptionItem(`si_${name}`, "price_plus", Math.floor(created));
  return {
    id: `evt_${name}`,
    type: "customer.subscription.created",
    created: Math.floor(created),
    object: subscription(`sub_${name}`, `cus_${name}`, [item], { status: "active" }),
  };
}

async function subscribeByHand(names: string[]): Promise<void> {
  for (const name of names) {
    await owner.query("insert into billing.accounts (id) values ($1)", [idOf(name)]);
    await owner.query(
      "select billing_admin.grant_subscription($1, 'plus_monthly', 'a wish', manual_kind => 'invoiced')",
      [idOf(name)],
    );
  }
}

/** Writes the steps of a migration without taking any. */
async function plan(reason: string, names: string[], to = "basic"): Promise<void> {
  await owner.query(
    `with migration as (
      insert into billing_private.plan_migrations
        (from_plan_id, to_plan_id, to_version, proration, reason)
      values (md5('plus')::uuid, md5($1)::uuid, 1, 'none', $2)
      returning id
    )
    insert into billing_private.plan_migration_steps
      (migration_id, subscription_item_id, subscription_id, account_id)
    select migration.id, subscription_items.id, subscriptions.id, account_id
    from migration, billing.subscriptions
    join billing.subscription_items on subscription_id = subscriptions.id
    where account_id = any ($3)`,
    [to, reason, names.map(idOf)],
  );
}

async function work(client: Client): Promise<number> {
  const { rows } = await client.query<{ count: string }>(
    "select billing_private.task_migrate_plans() as count",
  );
  return Number(rows[0]!.count);
}

async function stepsOf(reason: string): Promise<Record<string, number>> {
  const { rows } = await owner.query<{ outcome: string; count: number }>(
    `select concat_ws(' ', status, problem) as outcome, count(*)::integer
    from billing_private.plan_migration_steps
    join billing_private.plan_migrations on plan_migrations.id = migration_id
    where reason = $1 group by 1`,
    [reason],
  );
  return Object.fromEntries(rows.map(({ outcome, count }) => [outcome, count]));
}

/** What Stripe is still going to be asked about somebody, in order. */
async function askedOf(name: string): Promise<string[]> {
  const { rows } = await owner.query<{ asked: string }>(
    `select concat_ws(' ', kind, params #>> '{items,0,price}') as asked
    from billing_private.commands
    where account_id = $1 and status in ('pending', 'leased') order by position`,
    [idOf(name)],
  );
  return rows.map(({ asked }) => asked);
}

async function planOf(name: string): Promise<string | undefined> {
  const { rows } = await owner.query<{ key: string }>(
    `select plans.key from billing.subscriptions
    join billing.subscription_items on subscription_id = subscriptions.id
    join billing.prices on prices.id = subscription_items.price_id
    join billing.plans on plans.id = prices.plan_id
    where account_id = $1`,
    [idOf(name)],
  );
  return rows[0]?.key;
}

function asReader(name: string): Promise<Client> {
  return database.connect("authenticated", { sub: idOf(name), email: `${name}@example.com` });
}

const change = (reader: Client) => reader.query("select billing.change_plan('pro_monthly')");

it("who is just changing plan is left alone, and asked for once", async () => {
  await subscribeAtStripe("ann");
  await plan("ann changes first", ["ann"]);
  const reader = await asReader("ann");

  const met = await overlap(
    observer,
    { client: reader, work: () => change(reader) },
    { client: owner, work: async () => expect(await work(owner)).toBe(0) },
  );
  expect(met).toBe("ends");
  expect(await work(owner)).toBe(1);
  expect(await stepsOf("ann changes first")).toEqual({ "skipped change_pending": 1 });
  expect(await askedOf("ann")).toEqual(["change_plan price_pro"]);
});

it("who changes plan while being moved goes where they want", async () => {
  await subscribeAtStripe("ben");
  await plan("ben changes later", ["ben"]);
  const reader = await asReader("ben");

  const met = await overlap(
    observer,
    { client: owner, work: () => work(owner) },
    { client: reader, work: () => change(reader) },
  );
  expect(met).toBe("waits");
  expect(await askedOf("ben")).toEqual(["change_plan price_pro"]);
  const { rows } = await owner.query(
    "select moved, skipped, problems from billing_admin.plan_migrations where reason = $1",
    ["ben changes later"],
  );
  expect(rows).toEqual([{ moved: "0", skipped: "1", problems: { canceled_at_stripe: 1 } }]);
});

it("a subscription without Stripe follows both, one after the other", async () => {
  await subscribeByHand(["cat", "dan"]);
  await plan("cat and dan", ["cat", "dan"], "pro");
  const change = (reader: Client) => reader.query("select billing.change_plan('basic_monthly')");
  const [cat, dan] = await Promise.all([asReader("cat"), asReader("dan")]);

  await overlap(
    observer,
    { client: cat, work: () => change(cat) },
    { client: owner, work: async () => expect(await work(owner)).toBe(1) },
  );
  expect(await work(owner)).toBe(1);
  await change(dan);
  expect(await stepsOf("cat and dan")).toEqual({ moved: 1, "skipped change_pending": 1 });
  expect([await planOf("cat"), await planOf("dan")]).toEqual(["plus", "pro"]);
  const { rows } = await owner.query(
    `select pending_price_id = md5('price basic')::uuid as goes_on
    from billing.subscriptions where account_id = any ($1)`,
    [["cat", "dan"].map(idOf)],
  );
  expect(rows).toEqual([{ goes_on: true }, { goes_on: true }]);
});

it.each([
  { who: "eve", isFirst: true, left: ["cancel_subscription"], steps: "skipped change_pending" },
  { who: "fay", isFirst: false, left: ["cancel_subscription"], steps: "asked" },
])("of one who cancels meanwhile the cancellation is the last word ($who)", async (round) => {
  await subscribeAtStripe(round.who);
  await plan(`${round.who} cancels`, [round.who]);
  const reader = await asReader(round.who);
  const canceling = {
    client: reader,
    work: () => reader.query("select billing.cancel_subscription(false, 'too much')"),
  };
  const moving = { client: owner, work: () => work(owner) };

  if (round.isFirst) await overlap(observer, canceling, moving);
  else await overlap(observer, moving, canceling);
  await work(owner);
  expect((await askedOf(round.who)).slice(-1)).toEqual(round.left);
  expect(await stepsOf(`${round.who} cancels`)).toEqual({ [round.steps]: 1 });
});

it("who is just buying keeps what they bought until somebody asks again", async () => {
  await addReader(owner, "gus");
  const service = await database.connect("service_role");
  const migrate = (reason: string) =>
    other.query(
      "select steps from billing_admin.migrate_plan('plus', 'basic', $1, accounts => $2)",
      [reason, [idOf("gus")]],
    );
  await overlap(
    observer,
    { client: service, work: () => ingest(service, bought("gus")) },
    {
      client: other,
      work: async () => expect((await migrate("too early")).rows).toEqual([{ steps: "0" }]),
    },
  );
  expect(await askedOf("gus")).toEqual([]);
  expect((await migrate("in time")).rows).toEqual([{ steps: "1" }]);
  expect(await askedOf("gus")).toEqual(["change_plan price_basic"]);
});

it("of two migrations at once to different plans one moves each subscriber", async () => {
  const names = Array.from({ length: 12 }, (_, number) => `torn ${number}`);
  await subscribeByHand(names);
  const migrate = (client: Client, to: string) =>
    client.query("select from billing_admin.migrate_plan('plus', $1, $2, accounts => $3)", [
      to,
      `torn to ${to}`,
      names.map(idOf),
    ]);

  await overlap(
    observer,
    { client: owner, work: () => migrate(owner, "basic") },
    { client: other, work: () => migrate(other, "pro") },
  );
  expect(await stepsOf("torn to basic")).toEqual({ moved: 12 });
  const { rows } = await owner.query(
    `select count(*)::integer as changes from billing.subscription_changes
    where account_id = any ($1) and from_price_id <> to_price_id`,
    [names.map(idOf)],
  );
  expect(rows).toEqual([{ changes: 12 }]);
  expect(await planOf("torn 0")).toBe("basic");
});

it("several heartbeats take each step once", async () => {
  const names = Array.from({ length: 40 }, (_, number) => `shared ${number}`);
  await subscribeByHand(names);
  await plan("shared", names);
  const heartbeats = await Promise.all(Array.from({ length: 6 }, () => database.connect()));
  const counts = await Promise.all(heartbeats.map((heartbeat) => work(heartbeat)));
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(40);
  expect(await stepsOf("shared")).toEqual({ moved: 40 });
});

it("what was killed half-way is whole: nobody is moved by it, and the next heartbeat moves all", async () => {
  const names = Array.from({ length: 8 }, (_, number) => `killed ${number}`);
  await subscribeByHand(names);
  await plan("killed", names);
  const victim = await database.connect();
  victim.on("error", () => {});
  const pid = await pidOf(victim);

  await other.query("begin");
  await other.query(
    `select from billing.accounts where id = (
      select account_id from billing_private.plan_migration_steps
      where status = 'pending' order by subscription_item_id desc limit 1
    ) for update`,
  );
  const working = work(victim).catch((error: unknown) => error);
  expect(await waitsOrEnds(observer, pid, working)).toBe("waits");
  await observer.query("select pg_terminate_backend($1)", [pid]);
  expect(await working).toBeInstanceOf(Error);
  await other.query("rollback");

  expect(await stepsOf("killed")).toEqual({ pending: 8 });
  expect(await planOf("killed 0")).toBe("plus");
  expect(await work(owner)).toBe(8);
  expect(await stepsOf("killed")).toEqual({ moved: 8 });
});

it("who is in somebody's way is left for another time, not left out", async () => {
  await subscribeByHand(["hal", "ivy"]);
  await plan("in the way", ["hal", "ivy"]);
  await other.query("begin");
  await other.query("select from billing.accounts where id = $1 for update", [idOf("hal")]);
  await owner.query("set lock_timeout = '100ms'");
  expect(await work(owner)).toBe(1);
  await owner.query("reset lock_timeout");
  await other.query("rollback");

  expect(await stepsOf("in the way")).toEqual({ moved: 1, pending: 1 });
  expect(await work(owner)).toBe(1);
  expect(await stepsOf("in the way")).toEqual({ moved: 2 });
});
