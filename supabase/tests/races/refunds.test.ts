// Money that goes back with many hands at it: never more than is left, and an invoice is taken back once.
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap } from "../support/overlapping.ts";
import { addCatalog, addReader, idOf, ingest, setClock } from "../support/readers.ts";
import { refund, second } from "../support/stripe-objects.ts";

const tooHigh = "more than is left of the payment cannot be given back";

let database: TestDatabase;
let owner: Client;
let admins: [Client, Client];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  admins = [await database.connect("service_role"), await database.connect("service_role")];
  await addCatalog(owner);
  await setClock(owner, "2026-01-20 00:00Z");
});

afterAll(() => database?.drop());

/** A payment of 1000, named as its reader. */
async function addPayment(name: string): Promise<void> {
  await addReader(owner, name);
  await owner.query(
    `insert into billing.payments
       (id, account_id, stripe_payment_key, status, amount_minor, amount_received_minor, currency,
         stripe_customer_id)
     values ($1, $2, $3, 'succeeded', 1000, 1000, 'usd', $4)`,
    [idOf(`payment ${name}`), idOf(name), `pi_${name}`, `cus_${name}`],
  );
}

/** Asks for a refund; what is answered, an id or an error's message, is added to `answers`. */
function asking(client: Client, name: string, reference: string, answers: string[]) {
  return {
    client,
    work: async () => {
      try {
        const { rows } = await client.query<{ id: string }>(
          "select billing_admin.refund_payment($1, 'a race', $2, 600) as id",
          [idOf(`payment ${name}`), reference],
        );
        answers.push(rows[0]?.id ?? "");
      } catch (error) {
        answers.push(error instanceof Error ? error.message : String(error));
      }
    },
  };
}

it("two administrators at once: who comes second finds what the first has asked for", async () => {
  await addPayment("ann");
  const answers: string[] = [];
  const met = await overlap(
    owner,
    asking(admins[0], "ann", "one", answers),
    asking(admins[1], "ann", "two", answers),
  );
  expect(met).toBe("waits");
  expect(answers[1]).toBe(tooHigh);
});

it("E2: twice under one reference at once is one refund", async () => {
  await addPayment("ben");
  const answers: string[] = [];
  await overlap(
    owner,
    asking(admins[0], "ben", "same", answers),
    asking(admins[1], "ben", "same", answers),
  );
  expect(answers[1]).toBe(answers[0]);
  const { rows } = await owner.query(
    "select count(*)::integer from billing_private.commands where subject_id = $1",
    [idOf("payment ben")],
  );
  expect(rows).toEqual([{ count: 1 }]);
});

it("G10: a refund that Stripe tells of in the same moment is counted", async () => {
  await addPayment("cat");
  const answers: string[] = [];
  const event = {
    id: "evt_cat",
    type: "refund.created",
    created: second("2026-01-20"),
    object: refund("re_cat", "pi_cat", { amount: 600 }),
  };
  const met = await overlap(
    owner,
    { client: admins[0], work: () => ingest(admins[0], event) },
    asking(admins[1], "cat", "late", answers),
  );
  expect(met).toBe("waits");
  expect(answers).toEqual([tooHigh]);
});

it("an invoice under a late pause is taken back once, by whoever sees it first", async () => {
  const account = await addReader(owner, "dan");
  await owner.query(
    `with subscription as (
       insert into billing.subscriptions
         (account_id, status, price_id, stripe_subscription_id, stripe_customer_id, pause_collection)
       select $1, 'active', id, 'sub_dan', 'cus_dan', '{"behavior": "void"}'
       from billing.prices
       where key = 'plus_monthly'
       returning id
     ),
     invoice as (
       insert into billing.invoices
         (account_id, status, billing_reason, currency, subtotal_minor, total_minor,
           amount_due_minor, amount_paid_minor, amount_remaining_minor, issued_at,
           stripe_invoice_id, stripe_subscription_id)
       values ($1, 'draft', 'subscription_cycle', 'usd', 1000, 1000, 1000, 0, 1000,
         '2026-01-19 23:00Z', 'in_dan', 'sub_dan')
     )
     insert into billing_private.commands
       (kind, account_id, subscription_id, path, status, finished_at, wish)
     select 'pause_collection', $1, id, '/v1/subscriptions/sub_dan', 'succeeded',
       '2026-01-19 23:30Z', '{"begins_at": "2026-01-19T23:00:00Z"}'
     from subscription`,
    [account],
  );
  const heartbeats = [await database.connect(), await database.connect()] as const;
  const withdrawing = (client: Client) => ({
    client,
    work: () => client.query("select billing_private.withdraw_invoices()"),
  });
  const met = await overlap(owner, withdrawing(heartbeats[0]), withdrawing(heartbeats[1]));
  expect(met).toBe("waits");
  const { rows } = await owner.query(
    "select kind from billing_private.commands where kind <> 'pause_collection' and account_id = $1",
    [account],
  );
  expect(rows).toEqual([{ kind: "finalize_invoice" }]);
});
