// C4: whoever works on the same customers at the same time waits in line, never in a circle.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { deliver, settle, type Traffic } from "../../../scripts/simulate/delivery.ts";
import { createStripe } from "../../../scripts/simulate/stripe.ts";
import {
  catalog,
  openWorld,
  prepare,
  troubles,
  type World,
} from "../../../scripts/simulate/world.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { tellHistory } from "../support/history/index.ts";
import { overlap, pidOf, waitsOrEnds } from "../support/overlapping.ts";
import { createRandom } from "../support/random.ts";
import { driftOf, idOf, ingest } from "../support/readers.ts";
import {
  customer,
  invoice,
  listOf,
  paymentIntent,
  paymentMethod,
  refund,
  second,
  subscription,
  type EventFields,
  type StripeObject,
} from "../support/stripe-objects.ts";

const start = second("2026-01-10");
const administrator = idOf("an administrator");

let database: TestDatabase;
let world: World;

beforeAll(async () => {
  database = await createTestDatabase();
  world = await openWorld(database, 8);
  await world.owner.query(
    "insert into billing_private.administrators (user_id, reason) values ($1, 'a test')",
    [administrator],
  );
});

afterAll(() => database?.drop());

describe("a card that is taken off by an event that names no customer", () => {
  it("does not wait in a circle with whoever binds that customer", async () => {
    const [keeper, binder, taker] = await Promise.all([
      database.connect(),
      database.connect("service_role"),
      database.connect("service_role"),
    ]);
    const pids = { binder: await pidOf(binder), taker: await pidOf(taker) };
    await world.owner.query("insert into billing.accounts (id) values ($1)", [idOf("ann")]);
    await ingest(binder, told("customer.updated", reader("pm_ann"), 1));
    await ingest(binder, told("payment_method.attached", paymentMethod("pm_ann", "cus_ann"), 2));
    await ingest(binder, told("invoice.created", invoice("in_ann", "cus_ann", null), 3));

    // The binding has the customer's row and waits for an invoice; then it wants the card's.
    await keeper.query("begin");
    await keeper.query(
      "select from billing.invoices where stripe_invoice_id = 'in_ann' for update",
    );
    const claim = { ...reader("pm_ann"), metadata: { account_id: idOf("ann") } };
    const binding = ingest(binder, told("customer.updated", claim, 4));
    expect(await waitsOrEnds(world.owner, pids.binder, binding)).toBe("waits");
    const taking = ingest(taker, told("payment_method.detached", paymentMethod("pm_ann", null), 5));
    expect(await waitsOrEnds(world.owner, pids.taker, taking)).toBe("waits");
    await keeper.query("commit");

    expect((await binding).status).toBe("applied");
    expect((await taking).status).toBe("applied");
    const { rows } = await world.owner.query(
      `select customers.account_id, stripe_default_payment_method_id, detached_at is null as is_on
      from billing.customers
      join billing.payment_methods using (stripe_customer_id)
      where stripe_customer_id = 'cus_ann'`,
    );
    expect(rows).toEqual([
      { account_id: idOf("ann"), stripe_default_payment_method_id: null, is_on: false },
    ]);
  });
});

describe("what an invoice was paid with, told by an event that names no customer", () => {
  it.each(["its customer", "its invoice", "its subscription"])(
    "does not wait in a circle with %s, which tells whose they are",
    async (by) => {
      const name = by.replace("its ", "bob_");
      const [keeper, binder, linker] = await Promise.all([
        database.connect(),
        database.connect("service_role"),
        database.connect("service_role"),
      ]);
      const pids = { binder: await pidOf(binder), linker: await pidOf(linker) };
      const claim = { account_id: idOf(name) };
      await world.owner.query("insert into billing.accounts (id) values ($1)", [claim.account_id]);
      const due = invoice(`in_${name}`, `cus_${name}`, `sub_${name}`, { status: "open" });
      const tell = (type: string, object: StripeObject, place: number): EventFields => ({
        id: `evt_${name}_${place}`,
        type,
        created: start + place,
        object,
      });
      const intent = paymentIntent(`pi_${name}`, `cus_${name}`);
      await ingest(binder, tell("payment_intent.created", intent, 1));
      await ingest(binder, tell("refund.created", refund(`re_${name}`, intent.id), 2));
      if (by !== "its invoice") await ingest(binder, tell("invoice.created", due, 3));

      // The binding has the payment's row and waits for its refund.
      await keeper.query("begin");
      await keeper.query("select from billing.refunds where stripe_payment_key = $1 for update", [
        intent.id,
      ]);
      const agreement = subscription(`sub_${name}`, `cus_${name}`, [], { metadata: claim });
      const parent = {
        type: "subscription_details",
        subscription_details: { metadata: claim, subscription: agreement.id },
      };
      const naming = {
        "its customer": tell("customer.updated", customer(`cus_${name}`, { metadata: claim }), 4),
        "its invoice": tell("invoice.updated", { ...due, parent }, 4),
        "its subscription": tell("customer.subscription.created", agreement, 4),
      }[by]!;
      const binding = ingest(binder, naming);
      expect(await waitsOrEnds(world.owner, pids.binder, binding)).toBe("waits");
      const link: StripeObject = {
        id: `inpay_${name}`,
        object: "invoice_payment",
        amount_requested: 1000,
        currency: "usd",
        invoice: due.id,
        payment: { type: "payment_intent", payment_intent: intent.id },
        status: "paid",
      };
      const linking = ingest(linker, tell("invoice_payment.paid", link, 5));
      await waitsOrEnds(world.owner, pids.linker, linking);
      await keeper.query("commit");

      expect((await binding).status).toBe("applied");
      expect((await linking).status).toBe("applied");
      const { rows } = await world.owner.query(
        "select account_id, stripe_invoice_id from billing.payments where stripe_payment_key = $1",
        [intent.id],
      );
      expect(rows).toEqual([{ account_id: claim.account_id, stripe_invoice_id: due.id }]);
    },
  );
});

describe("an event whose list goes on beyond what it shows", () => {
  it("does not wait for whoever carries the question for that list", async () => {
    const [carrier, teller] = await Promise.all([
      database.connect("service_role"),
      database.connect("service_role"),
    ]);
    const long = (place: number): EventFields => {
      const line = { id: `il_cas_${place}`, object: "line_item", amount: 1000, currency: "usd" };
      const lines = listOf([line], { has_more: true });
      return {
        id: `evt_cas_${place}`,
        type: "invoice.updated",
        created: start + place,
        object: invoice("in_cas", "cus_cas", null, { lines, status: "open" }),
      };
    };
    await ingest(teller, long(1));
    const met = await overlap(
      world.owner,
      { client: carrier, work: () => carrier.query("select billing.claim_commands(100)") },
      { client: teller, work: () => ingest(teller, long(2)) },
    );
    expect(met).toBe("ends");

    const { rows } = await world.owner.query(
      `select status, wish ->> 'event_id' as event
      from billing_private.commands where target_object_id = 'in_cas' order by position`,
    );
    expect(rows).toEqual([
      { status: "leased", event: "evt_cas_1" },
      { status: "pending", event: "evt_cas_2" },
    ]);
  });
});

describe("eight connections, our commands, the heartbeat and administrators", () => {
  it("work on the same few customers without a deadlock", async () => {
    const random = createRandom(7);
    const stripe = createStripe(random);
    const tellings = Array.from({ length: 6 }, (_, place) =>
      stripe.live(tellHistory(900 + place, "A", catalog)),
    );
    await prepare(world, tellings);
    const traffic: Traffic = { world, stripe, random, isDispatching: true, answers: [] };
    const others = await Promise.all([
      database.connect(),
      database.connect("authenticated", { sub: administrator }),
    ]);

    let isOver = false;
    const failures: unknown[] = [];
    const unrest = others.map(async (client, place) => {
      while (!isOver) {
        const work = place === 0 ? beat(client) : administer(client, random.pick(deeds));
        await work.catch((error: { code?: string; message: string }) => {
          // A refusal is an answer; anything else is none.
          if (!error.code?.startsWith("PT")) failures.push([error.code, error.message]);
        });
      }
    });
    await deliver(
      traffic,
      tellings.map((telling) => {
        const events = telling.history.happenings.map(
          ({ body }, place) => ({ kind: "event", place, body, isKilled: false }) as const,
        );
        return [random.shuffled(events).map((event) => ({ telling, deliveries: [event] }))];
      }),
    );
    isOver = true;
    await Promise.all(unrest);
    await settle(traffic);

    expect(failures).toEqual([]);
    expect(await troubles(world)).toEqual([]);
    expect(await failedTasks()).toEqual([]);
    expect(await driftOf(world.owner)).toEqual([]);
  }, 120_000);
});

const deeds = [
  `select billing_admin.correct_entitlements('a test')`,
  `select billing_admin.grant_entitlement(
    (select id from billing.accounts order by random() limit 1), 'writing', 'a test')`,
  `select billing_admin.replay_events('a test', status => 'dead')`,
  `select billing_admin.run_task('validate_entitlements', 'a test')`,
] as const;

async function administer(client: Client, deed: string): Promise<void> {
  await client.query(deed);
}

async function beat(client: Client): Promise<void> {
  await client.query(`
    update billing_private.tasks set next_run_at = null
    where key in (select key from billing_private.tasks for update skip locked)`);
  await client.query("select billing_private.run_due_tasks()");
}

async function failedTasks(): Promise<unknown[]> {
  const { rows } = await world.owner.query(
    "select task_key, error from billing_private.task_runs where outcome = 'failed'",
  );
  return rows;
}

function reader(method: string): StripeObject {
  return customer("cus_ann", { invoice_settings: { default_payment_method: method } });
}

function told(type: string, object: StripeObject, place: number): EventFields {
  return { id: `evt_ann_${place}`, type, created: start + place, object };
}
