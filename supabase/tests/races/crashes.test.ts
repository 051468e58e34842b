// A backend that dies in the middle of its work leaves nothing half-written, and who comes again succeeds.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { pidOf, waitsOrEnds } from "../support/overlapping.ts";
import {
  addCatalog,
  addReader,
  driftOf,
  failuresOf,
  featuresOf,
  idOf,
  ingest,
  setClock,
} from "../support/readers.ts";
import {
  second,
  subscription,
  subscriptionItem,
  type EventFields,
} from "../support/stripe-objects.ts";

const start = second("2026-01-10");

let database: TestDatabase;
let owner: Client;
let service: Client;
let keeper: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  service = await database.connect("service_role");
  keeper = await database.connect();
  await addCatalog(owner);
  await setClock(owner, "2026-01-20 00:00Z");
});

afterAll(() => database?.drop());

afterEach(async () => {
  expect(await failuresOf(owner)).toEqual([]);
  expect(await driftOf(owner)).toEqual([]);
});

describe("a delivery that is killed", () => {
  it("B4: before it could apply the event leaves nothing, and is delivered again", async () => {
    const account = await addReader(owner, "ann");
    const event = bought("ann");
    await killWhileWaiting(
      () => keeper.query("select billing_private.lock_customer('cus_ann')"),
      (victim) => ingest(victim, event),
    );
    expect(await rowsOf("ann")).toEqual({ events: 0, snapshots: 0, subscriptions: 0, items: 0 });

    expect(await ingest(service, event)).toMatchObject({ status: "applied", duplicate: false });
    expect(await featuresOf(owner, account)).toEqual(["clubs", "reading"]);
  });

  it("C6: between the subscription and what it gives leaves neither", async () => {
    const account = await addReader(owner, "ben");
    const event = bought("ben");
    // Access is computed last, under a lock on the account's row.
    await killWhileWaiting(
      () => keeper.query("select from billing.accounts where id = $1 for no key update", [account]),
      (victim) => ingest(victim, event),
    );
    expect(await rowsOf("ben")).toEqual({ events: 0, snapshots: 0, subscriptions: 0, items: 0 });
    expect(await featuresOf(owner, account)).toEqual([]);

    expect(await ingest(service, event)).toMatchObject({ status: "applied", duplicate: false });
    expect(await rowsOf("ben")).toEqual({ events: 1, snapshots: 1, subscriptions: 1, items: 1 });
    expect(await featuresOf(owner, account)).toEqual(["clubs", "reading"]);
  });

  it("B1: lets the same event on another connection go on", async () => {
    await addReader(owner, "cat");
    const event = bought("cat");
    const second = await database.connect("service_role");
    const pid = await pidOf(second);
    let answer: Promise<unknown> | undefined;
    await killWhileWaiting(
      () => keeper.query("select billing_private.lock_customer('cus_cat')"),
      (victim) => ingest(victim, event),
      async () => {
        answer = ingest(second, event);
        await waitsOrEnds(owner, pid, answer);
      },
    );
    expect(await answer).toMatchObject({ status: "applied", duplicate: false });
  });

  it("lets go of the customer: whoever waits for it goes on", async () => {
    await addReader(owner, "dan");
    const victim = await mortal();
    await victim.query("begin");
    await ingest(victim, bought("dan", start));
    const pid = await pidOf(service);
    const waiting = ingest(service, bought("dan", start + 1));
    expect(await waitsOrEnds(owner, pid, waiting)).toBe("waits");
    await kill(await pidOfMortal(victim));

    expect(await waiting).toMatchObject({ status: "applied" });
    expect(await rowsOf("dan")).toMatchObject({ events: 1, subscriptions: 1 });
  });
});

describe("a worker that is killed", () => {
  it("while it reports Stripe's answer leaves the command leased, for the next worker", async () => {
    const account = await addReader(owner, "eve");
    await ingest(service, bought("eve"));
    await owner.query("select billing.cancel_subscription(true, null, $1)", [account]);
    const command = await claim();
    const answer = {
      ...bought("eve").object,
      cancel_at_period_end: true,
      canceled_at: start + 60,
    };
    await killWhileWaiting(
      () => keeper.query("select from billing.accounts where id = $1 for no key update", [account]),
      (victim) => complete(victim, command, answer),
    );
    const state = `select commands.status, cancel_at_period_end,
        (select count(*)::integer from billing_private.stripe_events
          where event_id = 'command:' || commands.id) as answers
      from billing_private.commands
      join billing.subscriptions on subscriptions.id = commands.subscription_id
      where commands.account_id = $1`;
    expect((await owner.query(state, [account])).rows).toEqual([
      { status: "leased", cancel_at_period_end: false, answers: 0 },
    ]);

    await owner.query(
      "update billing_private.commands set lease_expires_at = billing_private.now()",
    );
    const again = await claim();
    expect(again.id).toBe(command.id);
    expect(await complete(service, again, answer)).toBe("succeeded");
    expect((await owner.query(state, [account])).rows).toEqual([
      { status: "succeeded", cancel_at_period_end: true, answers: 1 },
    ]);
  });
});

describe("a heartbeat that is killed", () => {
  it("leaves every task as due as it was, and the next one does the work once", async () => {
    const accounts = ["fay", "gus"].map(idOf);
    for (const name of ["fay", "gus"]) {
      await owner.query("insert into billing.accounts (id) values ($1)", [idOf(name)]);
      await owner.query(
        `select billing_private.start_manual_subscription(
          $1, md5('price plus')::uuid, 1, '2026-01-25 00:00Z')`,
        [idOf(name)],
      );
    }
    await setClock(owner, "2026-01-25 00:00Z");
    // Its first writes are done when it comes to the second account.
    await killWhileWaiting(
      () =>
        keeper.query("select from billing.accounts where id = $1 for no key update", [
          [...accounts].sort().at(-1),
        ]),
      (victim) => victim.query("select billing_private.run_due_tasks()"),
    );
    const statuses = "select status from billing.subscriptions where account_id = any ($1)";
    const runs = "select count(*)::integer as runs from billing_private.task_runs";
    expect((await owner.query(statuses, [accounts])).rows).toEqual([
      { status: "active" },
      { status: "active" },
    ]);
    expect((await owner.query(runs)).rows).toEqual([{ runs: 0 }]);
    // Access does not wait for any task.
    for (const account of accounts) expect(await featuresOf(owner, account)).toEqual([]);

    await owner.query("select billing_private.run_due_tasks()");
    expect((await owner.query(statuses, [accounts])).rows).toEqual([
      { status: "canceled" },
      { status: "canceled" },
    ]);
    const { rows } = await owner.query(
      `select count(*)::integer as ends from billing.subscription_changes
      where account_id = any ($1) and kind = 'status'`,
      [accounts],
    );
    expect(rows).toEqual([{ ends: 2 }]);
  });
});

/** Connections that are to be killed, with their backends' ids. */
const pids = new WeakMap<Client, number>();

async function mortal(): Promise<Client> {
  const victim = await database.connect("service_role");
  victim.on("error", () => undefined);
  await victim.query("set role none");
  pids.set(victim, await pidOf(victim));
  return victim;
}

async function pidOfMortal(victim: Client): Promise<number> {
  return pids.get(victim)!;
}

async function kill(pid: number): Promise<void> {
  await owner.query("select pg_terminate_backend($1, 5000)", [pid]);
}

/**
 * Lets work run into a lock that somebody else keeps, and kills its backend there. `meanwhile` happens while it
 * still waits.
 */
async function killWhileWaiting(
  keep: () => Promise<unknown>,
  work: (victim: Client) => Promise<unknown>,
  meanwhile: () => Promise<unknown> = async () => undefined,
): Promise<void> {
  const victim = await mortal();
  const pid = await pidOfMortal(victim);
  await keeper.query("begin");
  await keep();
  const dying = work(victim).catch((error: unknown) => error);
  expect(await waitsOrEnds(owner, pid, dying)).toBe("waits");
  await meanwhile();
  await kill(pid);
  expect(await dying).toBeInstanceOf(Error);
  await keeper.query("commit");
}

function bought(name: string, at = start): EventFields {
  const item = subscriptionItem(`si_${name}`, "price_plus", start);
  return {
    id: `evt_${name}_${at}`,
    type: "customer.subscription.updated",
    created: at,
    object: subscription(`sub_${name}`, `cus_${name}`, [item]),
  };
}

async function rowsOf(name: string): Promise<Record<string, number>> {
  const { rows } = await owner.query<Record<string, number>>(
    `select
      (select count(*)::integer from billing_private.stripe_events
        where stripe_customer_id = 'cus_' || $1) as events,
      (select count(*)::integer from billing_private.stripe_objects
        where object_id = 'sub_' || $1) as snapshots,
      (select count(*)::integer from billing.subscriptions
        where stripe_subscription_id = 'sub_' || $1) as subscriptions,
      (select count(*)::integer from billing.subscription_items
        where stripe_subscription_item_id = 'si_' || $1) as items`,
    [name],
  );
  return rows[0]!;
}

interface Claimed {
  id: string;
  lease: string;
}

async function claim(): Promise<Claimed> {
  const { rows } = await service.query<Claimed>("select * from billing.claim_commands()");
  expect(rows).toHaveLength(1);
  return rows[0]!;
}

async function complete(client: Client, command: Claimed, answer: object): Promise<string> {
  const { rows } = await client.query<{ status: string }>(
    "select * from billing.complete_command($1, $2, 200, $3)",
    [command.id, command.lease, JSON.stringify(answer)],
  );
  return rows[0]!.status;
}
