// Two accounts on one database, seen through the real Data API: nothing of one shows to the other.
import { Client as Postgres } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withClient } from "../../../scripts/stack/database.ts";
import type { Client } from "../../../scripts/story/reader.ts";
import { startTestStack, subscribe, type TestStack } from "./stack.ts";

let stack: TestStack;
let ann: { client: Client; id: string };
let bob: { client: Client; id: string };
let relations: { schema: "billing" | "billing_admin"; name: string }[];

beforeAll(async () => {
  stack = await startTestStack();
  ann = await stack.user("ann");
  bob = await stack.user("bob");
  await subscribe(stack, ann.client, "privileged_monthly");
  await subscribe(stack, bob.client, "privileged_plus_monthly");
  relations = await withClient(stack.database.url, async (db) => {
    const { rows } = await db.query<{ schema: "billing" | "billing_admin"; name: string }>(
      `select relnamespace::regnamespace::text as schema, relname as name
       from pg_class
       where relnamespace::regnamespace::text in ('billing', 'billing_admin')
         and relkind in ('r', 'v')
       order by 1, 2`,
    );
    return rows;
  });
});
afterAll(() => stack?.stop());

/** Everything a client can read, as text: a foreign id anywhere in it would be found. */
async function everythingSeenBy(client: Client): Promise<string> {
  const answers = await Promise.all(
    relations.map(async ({ schema, name }) => {
      const { data, error } = await client
        .schema(schema as "billing")
        .from(name as "accounts")
        .select("*");
      return JSON.stringify({ name, data, error });
    }),
  );
  return answers.join("\n");
}

/** What betrays an account: its id, and the Stripe ids that belong to it. */
async function marksOf(accountId: string): Promise<string[]> {
  return withClient(stack.database.url, async (db) => {
    const { rows } = await db.query<{ mark: string }>(
      `select account_id::text as mark from billing.customers where account_id = $1
       union select stripe_customer_id from billing.customers where account_id = $1
       union select stripe_subscription_id from billing.subscriptions where account_id = $1
       union select id::text from billing.subscriptions where account_id = $1
       union select stripe_invoice_id from billing.invoices where account_id = $1
       union select stripe_payment_method_id from billing.payment_methods where account_id = $1
       union select stripe_session_id from billing.checkout_sessions where account_id = $1`,
      [accountId],
    );
    return rows.map(({ mark }) => mark);
  });
}

async function nothingLeaks(): Promise<void> {
  const [annsMarks, bobsMarks] = await Promise.all([marksOf(ann.id), marksOf(bob.id)]);
  const [annSees, bobSees, visitorSees] = await Promise.all([
    everythingSeenBy(ann.client),
    everythingSeenBy(bob.client),
    everythingSeenBy(stack.visitor()),
  ]);

  expect(annsMarks.length).toBeGreaterThan(5);
  expect(annsMarks.filter((mark) => !annSees.includes(mark))).toEqual([]);
  expect(annsMarks.filter((mark) => bobSees.includes(mark))).toEqual([]);
  expect(bobsMarks.filter((mark) => annSees.includes(mark))).toEqual([]);
  expect([...annsMarks, ...bobsMarks].filter((mark) => visitorSees.includes(mark))).toEqual([]);
}

describe("two subscribers", () => {
  it("see their own rows and none of each other's, in any table or view", nothingLeaks);

  it("are told nothing by RPCs that take an account", async () => {
    const account_id = bob.id;
    const refused = await Promise.all([
      ann.client.rpc("my_subscription", { account_id }),
      ann.client.rpc("cancel_subscription", { account_id }),
      ann.client.rpc("undo_cancel", { account_id }),
      ann.client.rpc("change_plan", { account_id, price_key: "member_monthly" }),
      ann.client.rpc("explain_entitlement", { account_id, feature: "premium_clubs" }),
      ann.client.rpc("prepare_portal", { account_id, return_url: "https://app.example" }),
    ]);
    expect(refused.map(({ status, error }) => [status, error?.message])).toEqual(
      refused.map(() => [403, "you are not a member of this account"]),
    );

    const { data: has } = await ann.client.rpc("has_entitlement", {
      account_id,
      feature: "audio_hours",
    });
    expect(has).toBe(false);
    const { data: list } = await ann.client.rpc("my_entitlements", { account_id });
    expect(list).toEqual([]);
  });

  it("get no further with an account that does not exist than with each other's", async () => {
    const account_id = "00000000-0000-0000-0000-000000000001";
    const { status, error } = await ann.client.rpc("my_subscription", { account_id });
    expect([status, error?.message]).toEqual([403, "you are not a member of this account"]);
  });

  it("cannot write, whatever the table", async () => {
    const { error } = await ann.client
      .from("subscriptions")
      .update({ status: "active", current_period_end: "2099-01-01T00:00:00Z" })
      .eq("account_id", ann.id);
    expect(error?.code).toBe("42501");
  });

  it("are no administrators, and are told so", async () => {
    const { status, error } = await ann.client
      .schema("billing_admin")
      .from("system_health")
      .select("*");
    expect([status, error?.message]).toEqual([403, "this needs a billing administrator"]);
  });
});

describe("under the grants Supabase Lite gives by itself, which are all of them", () => {
  beforeAll(async () => {
    const admin = new Postgres({ connectionString: stack.database.adminUrl ?? "" });
    await admin.connect();
    for (const schema of ["billing", "billing_admin", "billing_private"]) {
      await admin.query(`
        grant all on all tables in schema ${schema} to anon, authenticated, service_role;
        grant all on all sequences in schema ${schema} to anon, authenticated, service_role`);
    }
    await admin.end();
  });

  it("row level security alone keeps two subscribers apart", nothingLeaks);

  it("row level security alone keeps them from writing", async () => {
    const changed = await ann.client
      .from("subscriptions")
      .update({ status: "paused" })
      .eq("account_id", ann.id)
      .select("*");
    expect(changed.data ?? []).toEqual([]);
    const granted = await ann.client.from("entitlement_grants").insert({
      account_id: ann.id,
      feature_key: "audio_hours",
      valid_from: "2026-01-01T00:00:00Z",
      reason: "I want it",
    });
    expect(granted.error?.code).toBe("42501");
    const { data } = await ann.client.rpc("has_entitlement", { feature: "audio_hours" });
    expect(data).toBe(false);
  });
});
