// The last code goes to one of all who want it at once; of two contracts signed at once one binds.
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap } from "../support/overlapping.ts";
import { addCatalog, addReader, idOf } from "../support/readers.ts";

let database: TestDatabase;
let owner: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  await addCatalog(owner);
  await owner.query(`
    insert into billing_private.discount_codes (code, percent_off, max_redemptions) values
      ('LAST', 50, 1), ('TEN', 10, 10), ('TWICE', 10, 1)`);
});

afterAll(() => database?.drop());

function asReader(name: string): Promise<Client> {
  return database.connect("authenticated", { sub: idOf(name), email: `${name}@example.com` });
}

function checkOut(reader: Client, code: string | null) {
  return reader.query(
    `select id from billing.prepare_checkout('plus_monthly', 'https://app.example/yes',
      'https://app.example/no', discount_code => $1)`,
    [code],
  );
}

async function redemptionsOf(code: string): Promise<Record<string, number>> {
  const { rows } = await owner.query<{ status: string; count: number }>(
    `select discount_redemptions.status, count(*)::integer
    from billing.discount_redemptions
    join billing_private.discount_codes on discount_codes.id = discount_code_id
    where code = $1
    group by 1`,
    [code],
  );
  return Object.fromEntries(rows.map(({ status, count }) => [status, count]));
}

it.each([
  { code: "LAST", limit: 1 },
  { code: "TEN", limit: 10 },
])("of fifty who redeem $code at once, $limit get it", async ({ code, limit }) => {
  const names = Array.from({ length: 50 }, (_, number) => `${code} ${number}`);
  for (const name of names) await addReader(owner, name);
  const readers = await Promise.all(names.map(asReader));

  const answers = await Promise.allSettled(readers.map((reader) => checkOut(reader, code)));
  await Promise.all(readers.map((reader) => reader.end()));

  expect(answers.filter(({ status }) => status === "fulfilled")).toHaveLength(limit);
  for (const answer of answers) {
    if (answer.status === "rejected") {
      expect(answer.reason).toMatchObject({
        code: "PT422",
        message: "the discount code is not valid",
      });
    }
  }
  expect(await redemptionsOf(code)).toEqual({ reserved: limit });
  const { rows } = await owner.query(
    `select count(*)::integer as checkouts from billing.checkout_sessions
    join billing_private.discount_codes on discount_codes.id = discount_code_id where code = $1`,
    [code],
  );
  expect(rows).toEqual([{ checkouts: limit }]);
});

it("the last code is there again for others once its holder goes on without it", async () => {
  for (const name of ["holder", "waiter"]) await addReader(owner, name);
  const holder = await asReader("holder");
  const waiter = await asReader("waiter");
  await checkOut(holder, "TWICE");

  const refused = await checkOut(waiter, "TWICE").catch((error: unknown) => error);
  expect(refused).toMatchObject({ code: "PT422" });
  await overlap(
    owner,
    { client: holder, work: () => checkOut(holder, null) },
    { client: waiter, work: () => checkOut(waiter, null) },
  );
  await checkOut(waiter, "TWICE");
  expect(await redemptionsOf("TWICE")).toEqual({ released: 1, reserved: 1 });
});

it("two contracts of one account activated at once: one binds, the other is refused", async () => {
  const account = await addReader(owner, "company");
  const other = await database.connect();
  const { rows: drafts } = await owner.query<{ id: string }>(
    `select (billing_admin.create_contract($1, now() + interval '1 year', 'C-' || number, 'signed',
      prices => '{}')).id from generate_series(1, 2) as number`,
    [account],
  );
  const activate = (client: Client, place: number) =>
    client
      .query("select billing_admin.activate_contract($1, 'signed')", [drafts[place]!.id])
      .catch((error: unknown) => error);

  let refused: unknown;
  await overlap(
    await database.connect(),
    { client: owner, work: () => activate(owner, 0) },
    {
      client: other,
      work: async () => {
        refused = await activate(other, 1);
      },
    },
  );
  expect(refused).toMatchObject({ code: "PT409", message: "a contract binds this" });
  const { rows } = await owner.query(
    "select status from billing.contracts where account_id = $1 order by reference",
    [account],
  );
  expect(rows).toEqual([{ status: "active" }, { status: "draft" }]);
});

it("a term that two heartbeats settle at once is settled once", async () => {
  const account = await addReader(owner, "client");
  const { rows } = await owner.query<{ id: string }>(
    `select (billing_admin.create_contract($1, now() + interval '1 month', 'C-3', 'signed',
      price_key => 'plus_monthly', starts_at => now() - interval '2 months',
      commitment_minor => 9000)).id`,
    [account],
  );
  const contract = rows[0]!.id;
  await owner.query("select billing_admin.activate_contract($1, 'signed')", [contract]);
  await owner.query("select billing_admin.end_contract($1, 'done', now() + interval '1 second')", [
    contract,
  ]);
  await owner.query(
    `update billing.subscriptions set status = 'canceled', ended_at = now() where account_id = $1`,
    [account],
  );
  await owner.query(
    "update billing.contracts set ends_at = now() - interval '1 second' where id = $1",
    [contract],
  );

  const heartbeats = await Promise.all(Array.from({ length: 8 }, () => database.connect()));
  await Promise.all(
    heartbeats.map((heartbeat) => heartbeat.query("select billing_private.settle_contracts(10)")),
  );
  const { rows: settled } = await owner.query(
    `select count(*)::integer as settlements, (
      select count(*)::integer from billing.invoices
      where account_id = $1 and billing_reason = 'contract_settlement') as invoices
    from billing.contract_settlements where account_id = $1`,
    [account],
  );
  expect(settled).toEqual([{ settlements: 1, invoices: 1 }]);
});
