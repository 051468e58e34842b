// A team over supabase-js: made, joined, paid for by the seat, led, left and closed.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { withClient } from "../../../scripts/stack/database.ts";
import type { Client } from "../../../scripts/story/reader.ts";
import { startTestStack, subscribe, type TestStack } from "./stack.ts";

let stack: TestStack;
let ann: { client: Client; id: string };
let bob: { client: Client; id: string };
let carl: { client: Client; id: string };
let team: string;

beforeAll(async () => {
  stack = await startTestStack();
  [ann, bob, carl] = [await stack.user("ann"), await stack.user("bob"), await stack.user("carl")];
});
afterAll(() => stack?.stop());

describe("a team", () => {
  it("is made by anybody who has signed in", async () => {
    const { data, error } = await ann.client.rpc("create_organization", { name: "Acme" });
    expect(error).toBeNull();
    expect(data?.name).toBe("Acme");
    team = data?.id ?? "";
    expect((await bob.client.from("accounts").select("id").eq("id", team)).data).toEqual([]);
  });

  it("lets in whoever brings the token of an invitation", async () => {
    const invited = await ann.client.rpc("invite_member", {
      account_id: team,
      email: "bob@example.com",
    });
    expect(invited.error).toBeNull();
    const token = invited.data?.token ?? "";
    const joined = await bob.client.rpc("accept_invitation", { token });
    expect([joined.data?.role, joined.error]).toEqual(["member", null]);
    const late = await carl.client.rpc("accept_invitation", { token });
    expect([late.status, late.error?.message]).toEqual([
      422,
      "the invitation is not open any more",
    ]);
    const seen = await bob.client.from("memberships").select("user_id, role").order("role");
    expect(seen.data).toEqual([
      { user_id: bob.id, role: "member" },
      { user_id: ann.id, role: "owner" },
    ]);
  });

  it("pays for a seat for each member", async () => {
    await subscribe(stack, ann.client, "reading_circle_monthly", "4242", team);
    expect(await subscription(ann.client)).toMatchObject({ status: "active", quantity: 2 });
    expect(await has(bob.client)).toBe(true);
    expect(await has(carl.client)).toBe(false);
  });

  it("shows its invoices to those who may see them, and to nobody else", async () => {
    const invoices = async (client: Client) =>
      (await client.from("invoices").select("id").eq("account_id", team)).data?.length;
    expect(await invoices(ann.client)).toBe(1);
    expect(await invoices(bob.client)).toBe(0);
    const refused = await bob.client.rpc("cancel_subscription", { account_id: team });
    expect([refused.status, refused.error?.message]).toEqual([
      403,
      "your role in this account does not allow this",
    ]);
    expect(JSON.parse(refused.error?.details ?? "{}")).toMatchObject({
      code: "NOT_ALLOWED",
      permission: "manage_billing",
      role: "member",
    });
  });

  it("pays for one more when one more comes, once Stripe has been told", async () => {
    const { data } = await ann.client.rpc("invite_member", {
      account_id: team,
      email: "carl@example.com",
      role: "admin",
    });
    await carl.client.rpc("accept_invitation", { token: data?.token ?? "" });
    expect(await drift()).toEqual([{ wanted: 3, running: 2, asked: 3 }]);
    await minute();
    expect(await subscription(carl.client)).toMatchObject({ quantity: 3 });
    expect(await drift()).toEqual([]);
  });

  it("is no longer seen by whoever was removed, at once", async () => {
    const { error } = await carl.client.rpc("remove_member", {
      account_id: team,
      user_id: bob.id,
    });
    expect(error).toBeNull();
    expect(await has(bob.client)).toBe(false);
    expect((await bob.client.from("memberships").select("*")).data).toEqual([]);
    const { status } = await bob.client.rpc("my_subscription", { account_id: team });
    expect(status).toBe(403);
    await minute();
    expect(await subscription(ann.client)).toMatchObject({ quantity: 2 });
  });

  it("keeps an owner, changes hands, and is closed by whom it belongs to", async () => {
    const leave = () => ann.client.rpc("leave_organization", { account_id: team });
    expect((await leave()).error?.message).toBe("an organization keeps at least one owner");
    await ann.client.rpc("transfer_ownership", { account_id: team, user_id: carl.id });
    expect((await leave()).error).toBeNull();

    const closed = await carl.client.rpc("close_account", { account_id: team });
    expect(closed.data).toMatchObject({ id: team, name: null });
    await minute();
    const { status, invoices } = await withClient(stack.database.url, async (db) => {
      const { rows } = await db.query<{ status: string; invoices: string }>(
        `select status, (select count(*) from billing.invoices where account_id = $1) as invoices
        from billing.subscriptions where account_id = $1`,
        [team],
      );
      return rows[0]!;
    });
    expect(status).toBe("canceled");
    expect(Number(invoices)).toBeGreaterThan(0);
  });
});

/** What a host's minute is: tasks, the dispatcher, and the events that come of it. */
async function minute(): Promise<void> {
  await stack.clock.advanceBy(60);
  await stack.heartbeat.now();
  await stack.doorbell.now();
  await stack.simulator.delivery.idle();
}

async function subscription(client: Client) {
  const { data } = await client.rpc("my_subscription", { account_id: team });
  return data?.[0];
}

async function has(client: Client): Promise<boolean | null> {
  const { data } = await client.rpc("has_entitlement", {
    feature: "premium_clubs",
    account_id: team,
  });
  return data;
}

async function drift() {
  const { data } = await stack
    .service()
    .schema("billing_admin")
    .from("seat_drift")
    .select("wanted, running, asked");
  return data;
}
