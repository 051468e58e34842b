// Overdue invoices, refunds and disputes while several things about them happen at the same time.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap } from "../support/overlapping.ts";
import { createRandom } from "../support/random.ts";
import {
  addCatalog,
  addReader,
  driftOf,
  failuresOf,
  featuresOf,
  ingest,
  setClock,
} from "../support/readers.ts";
import {
  charge,
  customer,
  day,
  invoice,
  paymentIntent,
  paymentMethod,
  refund,
  second,
  subscription,
  subscriptionItem,
  type EventFields,
  type JsonObject,
} from "../support/stripe-objects.ts";

const start = second("2026-01-10");
const failed = start + 3600;

let database: TestDatabase;
let owner: Client;
let hearts: [Client, Client];
let services: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  hearts = [await database.connect(), await database.connect()];
  services = await Promise.all(Array.from({ length: 6 }, () => database.connect("service_role")));
  await addCatalog(owner);
  await setClock(owner, "2026-01-12 00:00Z");
});

afterAll(() => database?.drop());

afterEach(async () => {
  expect(await failuresOf(owner)).toEqual([]);
  expect(await driftOf(owner)).toEqual([]);
});

const orders = ["the heartbeat", "Stripe"] as const;

describe("an overdue invoice", () => {
  it("is collected once by two heartbeats", async () => {
    await addOwing("twice");
    const running = (client: Client) => ({ client, work: () => run(client) });
    await overlap(owner, running(hearts[0]), running(hearts[1]));

    expect(await asked("twice")).toEqual(["pending"]);
  });

  it.each(orders)("G16: is paid while it is about to be collected, %s first", async (who) => {
    const name = `paid_${orders.indexOf(who)}`;
    const account = await addOwing(name);
    await inOrder(who, () => ingest(services[0]!, paid(name)));
    // Where the customer was busy, the next heartbeat comes by.
    await run(hearts[0]);

    expect(await asked(name)).not.toContain("pending");
    expect(await caseOf(name)).toBe("recovered");
    expect(await featuresOf(owner, account)).toEqual(["clubs", "reading"]);
  });

  it.each(orders)(
    "loses its subscription while it is about to be collected, %s first",
    async (who) => {
      const name = `ended_${orders.indexOf(who)}`;
      await addOwing(name);
      await inOrder(who, () =>
        ingest(
          services[0]!,
          bought(name, failed + 5, { status: "canceled", ended_at: failed + 5 }),
        ),
      );
      await run(hearts[0]);

      expect(await asked(name)).not.toContain("pending");
      expect(await caseOf(name)).toBe("closed");
    },
  );
});

describe("what a refund concerns", () => {
  const parts = {
    subscription: (name: string) => bought(name, start),
    invoice: (name: string) => billed(name),
    payment: (name: string) => received(name),
    link: (name: string) => linked(name),
    refund: (name: string) => refunded(name),
  };
  type Part = keyof typeof parts;
  const names = Object.keys(parts) as Part[];
  const pairs = names.flatMap((first) =>
    names.filter((last) => last !== first).map((last): [Part, Part] => [first, last]),
  );

  it.each(pairs)("arrives while the other is being written: %s, then %s", async (first, last) => {
    const name = `${first}_${last}`;
    const account = await addReader(owner, name);
    for (const part of names.filter((other) => other !== first && other !== last)) {
      await ingest(services[0]!, parts[part](name));
    }
    await overlap(
      owner,
      { client: services[1]!, work: () => ingest(services[1]!, parts[first](name)) },
      { client: services[2]!, work: () => ingest(services[2]!, parts[last](name)) },
    );

    expect(await featuresOf(owner, account)).toEqual([]);
  });
});

describe("everything at once", () => {
  it("C4: ends the same, without anybody waiting in a circle", async () => {
    const random = createRandom(7);
    for (let round = 0; round < 6; round += 1) {
      const people = Array.from({ length: 4 }, (_, number) => `all_${round}_${number}`);
      for (const name of people) await addReader(owner, name);
      const events = random.shuffled(people.flatMap(story));
      const beating = Promise.all(hearts.map((client) => run(client)));
      await Promise.all(
        services.map(async (service, lane) => {
          for (const event of events.filter((_, at) => at % services.length === lane)) {
            await ingest(service, event);
          }
        }),
      );
      await beating;
      await run(hearts[0]);

      const { rows } = await owner.query(
        `select status, opened_at = to_timestamp($2) as is_dated, count(*)::integer
        from billing.dunning_cases
        join billing.customers using (account_id)
        where stripe_customer_id = any ($1) group by 1, 2`,
        [people.map((name) => `cus_${name}`), failed],
      );
      expect(rows).toEqual([{ status: "recovered", is_dated: true, count: people.length }]);
      for (const name of people) expect(await asked(name)).not.toContain("pending");
      const { rows: limits } = await owner.query(
        `select cause, lifted_at, count(*)::integer
        from billing.access_restrictions
        join billing.customers using (account_id)
        where stripe_customer_id = any ($1) and lifted_at is null group by 1, 2`,
        [people.map((name) => `cus_${name}`)],
      );
      expect(limits).toEqual([{ cause: "full_refund", lifted_at: null, count: people.length }]);
    }
  });
});

/** One reader's failed renewal, its recovery and its refund. */
function story(name: string): EventFields[] {
  return [
    card(name),
    defaulted(name),
    bought(name, start),
    declined(name),
    unpaid(name),
    bought(name, failed, { status: "past_due" }),
    billed(name),
    received(name),
    linked(name),
    bought(name, failed + day),
    refunded(name),
  ];
}

/** A reader whose renewal failed a day and more ago, which Stripe will not repeat. */
async function addOwing(name: string): Promise<string> {
  const account = await addReader(owner, name);
  const events = [card(name), defaulted(name), declined(name), unpaid(name)];
  for (const event of [bought(name, start), ...events]) await ingest(services[0]!, event);
  await ingest(services[0]!, bought(name, failed, { status: "past_due" }));
  return account;
}

async function inOrder(
  who: (typeof orders)[number],
  deliver: () => Promise<unknown>,
): Promise<void> {
  const steps = [
    { client: hearts[0], work: () => run(hearts[0]) },
    { client: services[0]!, work: deliver },
  ];
  const [first, last] = who === "Stripe" ? steps.reverse() : steps;
  await overlap(owner, first!, last!);
}

async function run(client: Client): Promise<void> {
  await client.query("select billing_private.run_task('run_dunning')");
}

async function asked(name: string): Promise<string[]> {
  const { rows } = await owner.query<{ status: string }>(
    `select status from billing_private.commands
    where kind = 'pay_invoice' and target_object_id = $1 order by position`,
    [`in_${name}`],
  );
  return rows.map(({ status }) => status);
}

async function caseOf(name: string): Promise<string | undefined> {
  const { rows } = await owner.query<{ status: string }>(
    `select dunning_cases.status
    from billing.dunning_cases
    join billing.invoices on invoices.id = invoice_id where stripe_invoice_id = $1`,
    [`in_${name}`],
  );
  return rows[0]?.status;
}

function event(type: string, created: number, object: JsonObject): EventFields {
  return { id: `evt_${object["id"]}_${type}_${created}`, type, created, object };
}

function card(name: string): EventFields {
  const method = paymentMethod(`pm_${name}`, `cus_${name}`, {
    card: {
      brand: "visa",
      exp_month: 12,
      exp_year: 2030,
      fingerprint: `fp_${name}`,
      last4: "4242",
    },
  });
  return event("payment_method.attached", start - 10, method);
}

function defaulted(name: string): EventFields {
  const settings = { default_payment_method: `pm_${name}` };
  return event(
    "customer.updated",
    start - 5,
    customer(`cus_${name}`, { invoice_settings: settings }),
  );
}

function bought(name: string, at: number, fields: JsonObject = {}): EventFields {
  const item = subscriptionItem(`si_${name}`, "price_plus", start);
  const bill = { latest_invoice: `in_${name}` };
  return event(
    "customer.subscription.updated",
    at,
    subscription(`sub_${name}`, `cus_${name}`, [item], { ...bill, ...fields }),
  );
}

function billOf(name: string, fields: JsonObject): JsonObject {
  return invoice(`in_${name}`, `cus_${name}`, `sub_${name}`, {
    collection_method: "charge_automatically",
    attempt_count: 1,
    created: start,
    lines: {
      object: "list",
      has_more: false,
      data: [
        {
          id: `il_${name}`,
          object: "line_item",
          amount: 1000,
          currency: "usd",
          period: { start, end: start + 30 * day },
        },
      ],
    },
    ...fields,
  });
}

function unpaid(name: string): EventFields {
  return event("invoice.payment_failed", failed, billOf(name, { status: "open" }));
}

function billed(name: string): EventFields {
  const amounts = { amount_paid: 1000, amount_remaining: 0 };
  const at = { finalized_at: start, marked_uncollectible_at: null, paid_at: failed + day };
  return event(
    "invoice.paid",
    failed + day,
    billOf(name, { ...amounts, status: "paid", status_transitions: { ...at, voided_at: null } }),
  );
}

const paid = billed;

function declined(name: string): EventFields {
  const why = { reason: "insufficient_funds", type: "issuer_declined" };
  const details = { type: "card", card: { fingerprint: `fp_${name}` } };
  return event(
    "charge.failed",
    failed,
    charge(`ch_${name}`, `cus_${name}`, `pi_${name}`, {
      status: "failed",
      created: failed,
      outcome: why,
      payment_method: `pm_${name}`,
      payment_method_details: details,
    }),
  );
}

function received(name: string): EventFields {
  const fields = { status: "succeeded", amount_received: 1000, payment_method: `pm_${name}` };
  return event(
    "payment_intent.succeeded",
    failed + day,
    paymentIntent(`pi_${name}`, `cus_${name}`, fields),
  );
}

function linked(name: string): EventFields {
  return event("invoice_payment.paid", failed + day, {
    id: `inpay_${name}`,
    object: "invoice_payment",
    amount_requested: 1000,
    currency: "usd",
    invoice: `in_${name}`,
    payment: { type: "payment_intent", payment_intent: `pi_${name}` },
    status: "paid",
  });
}

function refunded(name: string): EventFields {
  const at = failed + day + 60;
  return event(
    "refund.created",
    at,
    refund(`re_${name}`, `pi_${name}`, { amount: 1000, created: at }),
  );
}
