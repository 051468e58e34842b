// B8: however often and at once somebody clicks, there is one checkout, one customer and one page.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { pidOf, waitsOrEnds } from "../support/overlapping.ts";
import { addCatalog, addReader, failuresOf, idOf } from "../support/readers.ts";
import { customer, eventBody, type JsonObject } from "../support/stripe-objects.ts";

interface Checkout {
  id: string;
  price_id: string;
  status: string;
}

let database: TestDatabase;
let owner: Client;
let service: Client;
let tabs: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  service = await database.connect("service_role");
  tabs = await Promise.all(Array.from({ length: 8 }, () => database.connect("authenticated")));
  await addCatalog(owner);
});

afterAll(() => database?.drop());

let reader = "";
let made = 0;

beforeEach(async () => {
  made += 1;
  reader = `reader ${made}`;
  for (const tab of tabs) await signIn(tab, reader);
});

describe("a visitor who became a user a moment ago", () => {
  it.each([2, 8])("gets one checkout and one customer from %i clicks at once", async (clicks) => {
    const answers = await Promise.all(tabs.slice(0, clicks).map((tab) => prepare(tab, "plus")));

    expect(new Set(answers.map(({ id }) => id)).size).toBe(1);
    expect(await checkoutsOf(reader)).toMatchObject([{ status: "creating" }]);
    expect(await commandsOf(reader)).toEqual([{ kind: "create_customer", status: "pending" }]);
  });

  it("has one open checkout after eight clicks on two prices at once", async () => {
    await Promise.all(tabs.map((tab, place) => prepare(tab, place % 2 === 0 ? "plus" : "basic")));

    const checkouts = await checkoutsOf(reader);
    expect(checkouts.filter(({ status }) => status === "creating")).toHaveLength(1);
    expect(checkouts.filter(({ status }) => !["creating", "expired"].includes(status))).toEqual([]);
    expect(await commandsOf(reader)).toEqual([{ kind: "create_customer", status: "pending" }]);
  });
});

describe("a customer", () => {
  beforeEach(() => addReader(owner, reader));

  it("has one page asked for by eight clicks at once", async () => {
    await Promise.all(tabs.map((tab) => prepare(tab, "plus")));

    expect(await commandsOf(reader)).toEqual([{ kind: "create_checkout", status: "pending" }]);
  });

  it("has one page asked for by eight clicks on two prices: that of the open checkout", async () => {
    await Promise.all(tabs.map((tab, place) => prepare(tab, place % 2 === 0 ? "plus" : "basic")));

    const open = (await checkoutsOf(reader)).filter(({ status }) => status === "creating");
    expect(open).toHaveLength(1);
    const { rows } = await owner.query(
      `select subject_id from billing_private.commands
      where account_id = $1 and status = 'pending'`,
      [idOf(reader)],
    );
    expect(rows).toEqual([{ subject_id: open[0]!.id }]);
  });

  it("is told to wait who wants another price while the worker takes the first to Stripe", async () => {
    await prepare(tabs[0]!, "plus");
    const pid = await pidOf(tabs[1]!);
    await service.query("begin");
    const [command] = await claimFor(reader);
    const other = prepare(tabs[1]!, "basic").catch((error: unknown) => error);
    await waitsOrEnds(owner, pid, other);
    await service.query("commit");

    expect(await other).toMatchObject({
      code: "PT409",
      message: "another checkout of this account is being prepared",
    });
    await complete(command!, { status: "open", url: "https://checkout.example.com/1" });
    expect(await checkoutsOf(reader)).toMatchObject([{ status: "open" }]);
  });

  it("gets the other price once the first page is open; that page is closed", async () => {
    await prepare(tabs[0]!, "plus");
    const [command] = await claimFor(reader);
    await complete(command!, { status: "open", url: "https://checkout.example.com/2" });
    await Promise.all(tabs.map((tab) => prepare(tab, "basic")));

    const checkouts = await checkoutsOf(reader);
    expect(checkouts.map(({ status }) => status).sort()).toEqual(["creating", "expired"]);
    expect(await commandsOf(reader)).toEqual([
      { kind: "create_checkout", status: "succeeded" },
      { kind: "expire_checkout", status: "pending" },
      { kind: "create_checkout", status: "pending" },
    ]);
  });

  it("cannot pay a page twice: one that opens after its checkout was closed is closed too", async () => {
    await prepare(tabs[0]!, "plus");
    const [command] = await claimFor(reader);
    // Closed while Stripe is being asked: by a checkout that another device has completed.
    await owner.query("select billing_private.retire_checkouts($1, null)", [idOf(reader)]);
    await complete(command!, { status: "open", url: "https://checkout.example.com/3" });

    expect(await checkoutsOf(reader)).toMatchObject([{ status: "expired" }]);
    expect(await commandsOf(reader)).toEqual([
      { kind: "create_checkout", status: "succeeded" },
      { kind: "expire_checkout", status: "pending" },
    ]);
  });
});

describe("a customer who has paid", () => {
  it("C6: cannot check out again while the subscription is on its way", async () => {
    await addReader(owner, reader);
    await prepare(tabs[0]!, "plus");
    const [command] = await claimFor(reader);
    await complete(command!, { status: "open", url: "https://checkout.example.com/4" });
    const paid = { ...sessionOf(command!), status: "complete", subscription: "sub_on_its_way" };
    await owner.query("select billing.ingest_stripe_event($1)", [
      eventBody({
        id: `evt_${command!.id}`,
        type: "checkout.session.completed",
        created: Math.floor(Date.now() / 1000),
        object: paid,
      }),
    ]);

    const answers = await Promise.all(
      tabs.map((tab) => prepare(tab, "plus").catch((error: unknown) => error)),
    );
    for (const answer of answers) {
      expect(answer).toMatchObject({
        code: "PT409",
        message: "the account already has a subscription",
      });
    }
    // An hour later it is not late, it was missed: nobody is locked out of buying.
    await owner.query(
      `update billing.checkout_sessions set completed_at = now() - interval '61 minutes'
      where account_id = $1`,
      [idOf(reader)],
    );
    expect(await prepare(tabs[0]!, "plus")).toMatchObject({ status: "creating" });
  });
});

describe("a new customer whose creation Stripe tells and answers at the same time", () => {
  it("is one customer and the account's own, whichever is first", async () => {
    for (const name of ["first told", "first answered"]) {
      const tab = tabs[0]!;
      await signIn(tab, name);
      await prepare(tab, "plus");
      const [command] = await claimFor(name);
      const told = customer(`cus_${idOf(name)}`, { metadata: { account_id: idOf(name) } });
      const event = eventBody({
        id: `evt_${idOf(name)}`,
        type: "customer.created",
        created: 1767225600,
        object: told,
      });
      const telling = () => owner.query("select billing.ingest_stripe_event($1)", [event]);
      const answering = () => completeWith(command!, told);
      await Promise.all(
        name === "first told" ? [telling(), answering()] : [answering(), telling()],
      );

      const { rows } = await owner.query(
        "select stripe_customer_id, is_primary from billing.customers where account_id = $1",
        [idOf(name)],
      );
      expect(rows).toEqual([{ stripe_customer_id: told.id, is_primary: true }]);
      expect(await commandsOf(name)).toEqual([
        { kind: "create_customer", status: "succeeded" },
        { kind: "create_checkout", status: "pending" },
      ]);
    }
    expect(await failuresOf(owner)).toEqual([]);
  });
});

interface Claimed {
  id: string;
  lease: string;
  params: { metadata: Record<string, string>; customer: string };
}

async function signIn(tab: Client, name: string): Promise<void> {
  await tab.query("select set_config('request.jwt.claims', $1, false)", [
    JSON.stringify({ sub: idOf(name), role: "authenticated" }),
  ]);
}

async function prepare(tab: Client, plan: string): Promise<Checkout> {
  const { rows } = await tab.query<Checkout>(
    `select * from billing.prepare_checkout(
      $1, 'https://example.com/done', 'https://example.com/back')`,
    [`${plan}_monthly`],
  );
  return rows[0]!;
}

async function claimFor(name: string): Promise<Claimed[]> {
  const { rows } = await service.query<Claimed>(
    `select * from billing.claim_commands(20, (
      select id from billing.checkout_sessions
      where account_id = $1 and status = 'creating'))`,
    [idOf(name)],
  );
  return rows;
}

/** Stripe's answer to the creation of a page. */
async function complete(command: Claimed, fields: JsonObject): Promise<void> {
  await completeWith(command, { ...sessionOf(command), ...fields });
}

function sessionOf({ id, params }: Claimed): JsonObject {
  return {
    id: `cs_${id}`,
    object: "checkout.session",
    created: 1767225600,
    customer: params.customer,
    expires_at: 4102444800,
    livemode: false,
    metadata: params.metadata,
    subscription: null,
  };
}

async function completeWith(command: Claimed, response: object): Promise<void> {
  const { rows } = await service.query<{ status: string }>(
    "select * from billing.complete_command($1, $2, 200, $3)",
    [command.id, command.lease, JSON.stringify(response)],
  );
  expect(rows[0]!.status).toBe("succeeded");
}

async function checkoutsOf(name: string): Promise<Checkout[]> {
  const { rows } = await owner.query<Checkout>(
    "select * from billing.checkout_sessions where account_id = $1 order by created_at, id",
    [idOf(name)],
  );
  return rows;
}

async function commandsOf(name: string): Promise<{ kind: string; status: string }[]> {
  const { rows } = await owner.query<{ kind: string; status: string }>(
    `select kind, status from billing_private.commands
    where account_id = $1 and status <> 'canceled' order by position`,
    [idOf(name)],
  );
  return rows;
}
