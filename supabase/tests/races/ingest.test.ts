// Deliveries at the same time: each event counts once, nobody waits in a circle, and what belongs together is
// bound however the transactions overlap.
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
  idOf,
  ingest,
  ingestMany,
  setClock,
  type IngestAnswer,
} from "../support/readers.ts";
import {
  charge,
  customer,
  invoice,
  listOf,
  paymentIntent,
  price,
  product,
  refund,
  second,
  subscription,
  subscriptionItem,
  type EventFields,
  type JsonObject,
} from "../support/stripe-objects.ts";

const start = second("2026-01-10");

let database: TestDatabase;
let owner: Client;
let services: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  services = await Promise.all(Array.from({ length: 8 }, () => database.connect("service_role")));
  await addCatalog(owner);
  await setClock(owner, "2026-01-20 00:00Z");
});

afterAll(() => database?.drop());

// A deadlock would be kept as a failed event.
afterEach(async () => expect(await failuresOf(owner)).toEqual([]));

describe("one event on eight connections", () => {
  it("B1: is stored and applied once, and everybody gets an answer", async () => {
    const account = await addReader(owner, "ann");
    const event = subscriptionEvent("ann", "created", start);
    const answers = await Promise.all(services.map((service) => ingest(service, event)));

    expect(answers.map(({ event_id, status }) => ({ event_id, status }))).toEqual(
      Array<unknown>(8).fill({ event_id: event.id, status: "applied" }),
    );
    expect(answers.filter(({ duplicate }) => !duplicate)).toHaveLength(1);
    expect(await count("billing_private.stripe_events where event_id = $1", event.id)).toBe(1);
    expect(await count("billing.subscriptions where account_id = $1", account)).toBe(1);
    expect(await count("billing.subscription_changes where account_id = $1", account)).toBe(1);
    expect(await featuresOf(owner, account)).toEqual(["clubs", "reading"]);
  });

  it("B1: is applied once on each of fifty occasions", async () => {
    await addReader(owner, "ben");
    const firsts: IngestAnswer[] = [];
    for (let number = 0; number < 50; number += 1) {
      const event = subscriptionEvent("ben", "updated", start + number, {
        id: `evt_ben_${number}`,
      });
      const answers = await Promise.all(services.map((service) => ingest(service, event)));
      firsts.push(...answers.filter(({ duplicate }) => !duplicate));
    }
    expect(firsts).toHaveLength(50);
  });

  it("B7: whose subscription is new to all of them makes one row", async () => {
    const account = await addReader(owner, "cat");
    await Promise.all(
      services.map((service, number) =>
        ingest(service, subscriptionEvent("cat", "updated", start, { id: `evt_cat_${number}` })),
      ),
    );
    expect(await count("billing.subscriptions where account_id = $1", account)).toBe(1);
  });

  it("of which two first ones differ in naming the customer, makes one row", async () => {
    await addReader(owner, "dan");
    const told = (id: string, payer: string | null, created: number): EventFields => ({
      id,
      type: "payment_intent.created",
      created,
      object: paymentIntent("pi_dan", payer),
    });
    await overlap(
      owner,
      delivery(0, told("evt_dan_1", null, start)),
      delivery(1, told("evt_dan_2", "cus_dan", start + 1)),
    );
    expect(
      await values("stripe_customer_id from billing.payments where stripe_payment_key = 'pi_dan'"),
    ).toEqual(["cus_dan"]);
  });
});

describe("the events of one subscriber on eight connections", () => {
  it("C4: end as in-order delivery does, in each of twenty orders, without a deadlock", async () => {
    const orderly = await addReader(owner, "orderly");
    for (const event of lifeOf("orderly")) await ingest(services[0]!, event);
    const expected = await stateOf("orderly", orderly);
    expect(expected).toMatchObject({ status: "active", features: ["clubs", "reading"] });

    const random = createRandom(4);
    for (let round = 0; round < 20; round += 1) {
      const name = `round${round}`;
      const account = await addReader(owner, name);
      const waiting = random.shuffled(lifeOf(name));
      await Promise.all(
        services.map(async (service) => {
          for (let event = waiting.pop(); event !== undefined; event = waiting.pop()) {
            await ingest(service, event);
          }
        }),
      );
      expect(await stateOf(name, account), `round ${round}`).toEqual(expected);
    }
    expect(await driftOf(owner)).toEqual([]);
  });
});

describe("the events of sixty customers on eight connections", () => {
  it("are all applied, also where two customers are one account's", async () => {
    const names = Array.from({ length: 60 }, (_, number) => `crowd${number}`);
    const events = names.flatMap((name, number): EventFields[] => {
      // Two customers in a row belong to one account.
      const metadata = { account_id: idOf(`pair${Math.floor(number / 2)}`) };
      return [
        {
          id: `evt_${name}_customer`,
          type: "customer.created",
          created: start,
          object: customer(`cus_${name}`, { metadata }),
        },
        ...lifeOf(name),
      ];
    });
    for (let pair = 0; pair < 30; pair += 1) {
      await owner.query("insert into billing.accounts (id) values ($1)", [idOf(`pair${pair}`)]);
    }
    const waiting = createRandom(60).shuffled(events);
    await Promise.all(
      services.map(async (service) => {
        for (let event = waiting.pop(); event !== undefined; event = waiting.pop()) {
          await ingest(service, event);
        }
      }),
    );

    const { rows } = await owner.query<{ customers: number; primaries: number }>(
      `select count(*)::integer as customers, count(*) filter (where is_primary)::integer as primaries
      from billing.customers
      where account_id = any ($1) group by account_id`,
      [Array.from({ length: 30 }, (_, pair) => idOf(`pair${pair}`))],
    );
    expect(rows).toEqual(Array<unknown>(30).fill({ customers: 2, primaries: 1 }));
    expect(await driftOf(owner)).toEqual([]);
  });

  it("find one account's first two customers at once, of which one is primary", async () => {
    await owner.query("insert into billing.accounts (id) values ($1)", [idOf("twins")]);
    const twin = (name: string): EventFields => ({
      id: `evt_twin_${name}`,
      type: "customer.created",
      created: start,
      object: customer(`cus_twin_${name}`, { metadata: { account_id: idOf("twins") } }),
    });
    await overlap(owner, delivery(0, twin("a")), delivery(1, twin("b")));

    expect(
      await values(`is_primary from billing.customers where account_id = '${idOf("twins")}'
        order by is_primary`),
    ).toEqual([false, true]);
  });
});

describe("batches of events on eight connections, beside single deliveries", () => {
  it("A13, B1, D5: end as in-order delivery does, and nobody waits in a circle", async () => {
    const orderly = await addReader(owner, "batch_orderly");
    for (const event of lifeOf("batch_orderly")) await ingest(services[0]!, event);
    const expected = await stateOf("batch_orderly", orderly);

    const names = Array.from({ length: 24 }, (_, number) => `batch${number}`);
    const accounts = await Promise.all(names.map((name) => addReader(owner, name)));
    const random = createRandom(24);
    const events = names.flatMap((name, number): EventFields[] => [
      ...lifeOf(name),
      // Each also has a second customer, of the next one's account.
      {
        id: `evt_${name}_second`,
        type: "customer.created",
        created: start,
        object: customer(`cus_${name}_second`, {
          metadata: { account_id: accounts[(number + 1) % accounts.length]! },
        }),
      },
      // A batch that writes the catalog holds it alone.
      ...(number % 8 === 0 ? [priceEvent(`price_${name}`, "prod_plus")] : []),
    ]);
    const waiting = random.shuffled([...events, ...events]);
    await Promise.all(
      services.map(async (service, number) => {
        while (waiting.length > 0) {
          const taken = waiting.splice(0, number < 6 ? 40 : 1);
          if (number < 6) await ingestMany(service, taken);
          else await ingest(service, taken[0]!);
        }
      }),
    );
    // Who gave way to others has its turn now.
    await owner.query(`update billing_private.stripe_events set next_attempt_at = billing_private.now()
      where status = 'failed' and last_error ->> 'message' = 'canceling statement due to lock timeout'`);
    await owner.query("select billing_private.task_retry_events()");

    for (const [number, name] of names.entries()) {
      expect(await stateOf(name, accounts[number]!), name).toEqual(expected);
    }
    expect(await driftOf(owner)).toEqual([]);
    await owner.query(
      `update billing_private.stripe_events set attempts = 1 where status = 'applied'`,
    );
  });
});

describe("what belongs together and comes at the same time", () => {
  const both: [string, (events: EventFields[]) => EventFields[]][] = [
    ["the first", (events) => events],
    ["the second", (events) => [...events].reverse()],
  ];

  it.each(both)("C1: a subscription and its price, %s earlier", async (which, ordered) => {
    const name = which.replace(" ", "_");
    const account = await addReader(owner, name);
    const bought = { price: `price_${name}`, product: "prod_plus" };
    const [first, last] = ordered([
      subscriptionEvent(name, "created", start, bought),
      priceEvent(bought.price, bought.product),
    ]);
    await overlap(owner, delivery(0, first!), delivery(1, last!));

    expect(await featuresOf(owner, account)).toEqual(["clubs", "reading"]);
  });

  it.each(both)("C3: a product and its price, %s earlier", async (which, ordered) => {
    const name = `plan_${which.replace(" ", "_")}`;
    const [first, last] = ordered([
      {
        id: `evt_${name}`,
        type: "product.created",
        created: start,
        object: product(`prod_${name}`),
      },
      priceEvent(`price_${name}`, `prod_${name}`),
    ]);
    await overlap(owner, delivery(0, first!), delivery(1, last!));

    expect(
      await values(`plans.stripe_product_id from billing.prices
        join billing.plans on plans.id = plan_id where stripe_price_id = 'price_${name}'`),
    ).toEqual([`prod_${name}`]);
  });

  it("two prices that claim one lookup key: the newer has it", async () => {
    const claim = (id: string, created: number): EventFields => ({
      id: `evt_${id}`,
      type: "price.created",
      created,
      object: price(id, "prod_plus", { lookup_key: "the_offer" }),
    });
    await overlap(
      owner,
      delivery(0, claim("price_newer", start + 1)),
      delivery(1, claim("price_older", start)),
    );
    expect(await values("stripe_price_id from billing.prices where key = 'the_offer'")).toEqual([
      "price_newer",
    ]);
  });

  it.each(both)("a payment and its refund, %s earlier", async (which, ordered) => {
    const name = `paid_${which.replace(" ", "_")}`;
    const account = await addReader(owner, name);
    const [first, last] = ordered([
      {
        id: `evt_${name}_1`,
        type: "payment_intent.succeeded",
        created: start,
        object: paymentIntent(`pi_${name}`, `cus_${name}`, { status: "succeeded" }),
      },
      {
        id: `evt_${name}_2`,
        type: "refund.created",
        created: start + 1,
        object: refund(`re_${name}`, `pi_${name}`),
      },
    ]);
    await overlap(owner, delivery(0, first!), delivery(1, last!));

    expect(
      await values(`account_id from billing.refunds where stripe_refund_id = 're_${name}'`),
    ).toEqual([account]);
  });

  it.each(both)(
    "a refund and the word whose customer it was, %s earlier",
    async (which, ordered) => {
      const name = `named_${which.replace(" ", "_")}`;
      await owner.query("insert into billing.accounts (id) values ($1)", [idOf(name)]);
      await ingest(services[0]!, {
        id: `evt_${name}_0`,
        type: "charge.succeeded",
        created: start,
        object: charge(`ch_${name}`, `cus_${name}`, `pi_${name}`),
      });
      const [first, last] = ordered([
        {
          id: `evt_${name}_1`,
          type: "customer.updated",
          created: start,
          object: customer(`cus_${name}`, { metadata: { account_id: idOf(name) } }),
        },
        {
          id: `evt_${name}_2`,
          type: "refund.created",
          created: start + 1,
          object: refund(`re_${name}`, `pi_${name}`),
        },
      ]);
      await overlap(owner, delivery(0, first!), delivery(1, last!));

      expect(
        await values(`account_id from billing.refunds where stripe_refund_id = 're_${name}'`),
      ).toEqual([idOf(name)]);
    },
  );
});

describe("a dispute of a payment that only its invoice is known of", () => {
  const told = (name: string): EventFields[] => [
    {
      id: `evt_${name}_1`,
      type: "customer.updated",
      created: start,
      object: customer(`cus_${name}`, { metadata: { account_id: idOf(name) } }),
    },
    {
      id: `evt_${name}_2`,
      type: "charge.dispute.created",
      created: start + 1,
      object: {
        id: `du_${name}`,
        object: "dispute",
        amount: 1000,
        charge: `ch_${name}`,
        created: start,
        currency: "usd",
        payment_intent: `pi_${name}`,
        status: "needs_response",
      },
    },
    {
      id: `evt_${name}_3`,
      type: "invoice.created",
      created: start,
      object: invoice(`in_${name}`, `cus_${name}`, `sub_${name}`),
    },
  ];

  it.each([
    [0, 1],
    [1, 0],
    [2, 1],
    [1, 2],
  ])("G9: restricts the account it turns out to be of, %i before %i", async (...places) => {
    const name = `claimed_${places.join("_")}`;
    await owner.query("insert into billing.accounts (id) values ($1)", [idOf(name)]);
    await ingest(services[0]!, subscriptionEvent(name, "created", start));
    await ingest(services[0]!, {
      id: `evt_${name}_0`,
      type: "invoice_payment.paid",
      created: start,
      object: {
        id: `inpay_${name}`,
        object: "invoice_payment",
        amount_requested: 1000,
        currency: "usd",
        invoice: `in_${name}`,
        payment: { type: "payment_intent", payment_intent: `pi_${name}` },
        status: "paid",
      },
    });
    const events = told(name);
    const [other] = [0, 1, 2].filter((place) => !places.includes(place));
    await ingest(services[0]!, events[other!]!);
    const [first, last] = places.map((place) => events[place]!);
    await overlap(owner, delivery(0, first!), delivery(1, last!));

    expect(
      await values(`account_id from billing.access_restrictions where reference = 'du_${name}'`),
    ).toEqual([idOf(name)]);
  });
});

interface SubscriptionFields {
  id?: string;
  price?: string;
  product?: string;
  changes?: JsonObject;
}

function subscriptionEvent(
  name: string,
  kind: string,
  created: number,
  { id, price = "price_plus", product = "prod_plus", changes = {} }: SubscriptionFields = {},
): EventFields {
  const item = subscriptionItem(`si_${name}`, price, start, {
    price: { id: price, object: "price", active: true, currency: "usd", product },
  });
  return {
    id: id ?? `evt_${name}_${kind}_${created}`,
    type: `customer.subscription.${kind}`,
    created,
    object: subscription(`sub_${name}`, `cus_${name}`, [item], changes),
  };
}

function priceEvent(id: string, product: string): EventFields {
  return {
    id: `evt_${id}`,
    type: "price.created",
    created: start,
    object: price(id, product),
  };
}

/** Paid late: twenty events that touch the subscription, its invoice and the payment. */
function lifeOf(name: string): EventFields[] {
  const due = (fields: JsonObject) =>
    invoice(`in_${name}`, `cus_${name}`, `sub_${name}`, {
      ...fields,
      lines: listOf([{ id: `il_${name}`, object: "line_item", amount: 1000, currency: "usd" }]),
    });
  const intent = (fields: JsonObject) => paymentIntent(`pi_${name}`, `cus_${name}`, fields);
  const latest = { latest_invoice: `in_${name}` };
  const objects: [string, JsonObject][] = [
    ["customer.subscription.created", { status: "incomplete", ...latest }],
    ["invoice.created", due({ status: "draft" })],
    ["invoice.finalized", due({ status: "open" })],
    ["payment_intent.created", intent({})],
    ["payment_intent.payment_failed", intent({})],
    ["invoice.payment_failed", due({ status: "open", attempt_count: 1 })],
    ["customer.subscription.updated", { status: "past_due", ...latest }],
    ["customer.subscription.updated", { status: "past_due", ...latest, metadata: { try: "2" } }],
    ["payment_intent.succeeded", intent({ status: "succeeded", amount_received: 1000 })],
    ["charge.succeeded", charge(`ch_${name}`, `cus_${name}`, `pi_${name}`)],
    ["invoice.paid", due({ status: "paid", amount_paid: 1000, attempt_count: 2 })],
    ["invoice.payment_succeeded", due({ status: "paid", amount_paid: 1000, attempt_count: 2 })],
    ["customer.subscription.updated", { status: "active", ...latest }],
    [
      "customer.subscription.updated",
      { status: "active", ...latest, cancel_at: start + 9_000_000 },
    ],
    ["customer.subscription.updated", { status: "active", ...latest, metadata: { kept: "yes" } }],
    ["customer.updated", customer(`cus_${name}`, { email: "a@example.com" })],
    ["customer.updated", customer(`cus_${name}`, { email: "b@example.com" })],
    ["refund.created", refund(`re_${name}`, `pi_${name}`, { status: "pending" })],
    ["refund.updated", refund(`re_${name}`, `pi_${name}`, { status: "succeeded" })],
    [
      "charge.refunded",
      charge(`ch_${name}`, `cus_${name}`, `pi_${name}`, { amount_refunded: 500 }),
    ],
  ];
  return objects.map(([type, object], number) => {
    const created = start + number;
    const event = { id: `evt_${name}_${number}`, type, created };
    return "object" in object
      ? { ...event, object }
      : { ...event, object: subscriptionEvent(name, "", created, { changes: object }).object };
  });
}

async function stateOf(name: string, account: string): Promise<Record<string, unknown>> {
  const { rows } = await owner.query<Record<string, unknown>>(
    `select
      subscriptions.status, past_due_since, cancel_at, metadata, subscriptions.updated_at,
      invoices.status as invoice, attempt_count, payments.status as payment, amount_refunded_minor,
      refunds.status as refund, refunds.account_id = payments.account_id as has_owner, email,
      (select count(*)::integer from billing.invoice_lines where invoice_id = invoices.id) as lines
    from billing.subscriptions
    join billing.invoices on stripe_invoice_id = stripe_latest_invoice_id
    join billing.payments on stripe_payment_key = 'pi_' || $1
    join billing.refunds on stripe_refund_id = 're_' || $1
    join billing.customers on customers.stripe_customer_id = 'cus_' || $1
    where subscriptions.stripe_subscription_id = 'sub_' || $1`,
    [name],
  );
  return { ...rows[0], features: await featuresOf(owner, account) };
}

function delivery(place: number, event: EventFields) {
  const client = services[place]!;
  return { client, work: () => ingest(client, event) };
}

async function count(what: string, value: string): Promise<number> {
  const { rows } = await owner.query<{ count: string }>(`select count(*) from ${what}`, [value]);
  return Number(rows[0]!.count);
}

async function values(query: string): Promise<unknown[]> {
  const { rows } = await owner.query<unknown[]>({ text: `select ${query}`, rowMode: "array" });
  return rows.map(([value]) => value);
}
