// The sample application over supabase-js: who sees, founds and joins clubs is decided by the database alone.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bookClubs, type BookClubs, type Refusal } from "../../../scripts/story/book_clubs.ts";
import { expectData, type Client } from "../../../scripts/story/reader.ts";
import { startTestStack, subscribe, type TestStack } from "./stack.ts";

const open = ["Crime After Dark", "Sunday Classics"];
const premium = "An Evening with the Author";

interface Person {
  client: Client;
  id: string;
  clubs: BookClubs;
}

let stack: TestStack;

beforeAll(async () => {
  stack = await startTestStack();
});
afterAll(() => stack?.stop());

async function personNamed(name: string): Promise<Person> {
  const user = await stack.user(name);
  return { ...user, clubs: bookClubs(user.client) };
}

function whatIsSaid(refusal: Refusal | null) {
  if (refusal === null) return null;
  const { code, used, allowed } = JSON.parse(refusal.details) as Record<string, unknown>;
  return { sqlstate: refusal.code, code, used, allowed };
}

const limitReached = (allowed: number) => ({
  sqlstate: "PT402",
  code: "LIMIT_REACHED",
  used: allowed,
  allowed,
});
const notIncluded = {
  sqlstate: "PT402",
  code: "FEATURE_NOT_INCLUDED",
  used: null,
  allowed: null,
};

async function countedOf(client: Client, feature: string): Promise<number[]> {
  const answer = await client.from("usage_totals").select("used").eq("feature_key", feature);
  return expectData("totals", answer).map(({ used }) => Number(used));
}

describe("a visitor", () => {
  it("sees the open clubs and founds none", async () => {
    const clubs = bookClubs(stack.visitor());
    expect(await clubs.names()).toEqual(open);
    expect((await clubs.found("Anonymous Readers"))?.code).toBe("42501");
  });
});

describe("a reader without a plan", () => {
  it("sees the open clubs, and can neither found nor join one", async () => {
    const { clubs } = await personNamed("newcomer");
    expect(await clubs.names()).toEqual(open);
    expect(whatIsSaid(await clubs.found("Mine"))).toEqual(notIncluded);
    expect(whatIsSaid(await clubs.join("Sunday Classics"))).toEqual(notIncluded);
    expect(await clubs.names()).toEqual(open);
  });
});

describe("a member", () => {
  it("joins clubs, leaves them, and founds none", async () => {
    const { client, clubs } = await personNamed("member");
    await subscribe(stack, client, "member_monthly");
    expect(await clubs.names()).toEqual(open);
    expect(await clubs.join("Sunday Classics")).toBeNull();
    expect(await clubs.join("Crime After Dark")).toBeNull();
    expect(await countedOf(client, "book_clubs")).toEqual([2]);
    await clubs.leave("Crime After Dark");
    expect(await countedOf(client, "book_clubs")).toEqual([1]);
    expect(whatIsSaid(await clubs.found("Mine"))).toEqual(notIncluded);
  });
});

describe("a privileged reader", () => {
  let reader: Person;

  beforeAll(async () => {
    reader = await personNamed("privileged");
    await subscribe(stack, reader.client, "privileged_monthly");
  });

  it("sees premium clubs", async () => {
    expect(await reader.clubs.names()).toEqual([premium, ...open]);
  });

  it("founds one club, and another only where the first has gone", async () => {
    expect(await reader.clubs.found("Night Readers")).toBeNull();
    expect(whatIsSaid(await reader.clubs.found("Day Readers"))).toEqual(limitReached(1));
    expect(await reader.clubs.names()).not.toContain("Day Readers");
    await reader.clubs.close("Night Readers");
    expect(await reader.clubs.found("Day Readers")).toBeNull();
    expect(await countedOf(reader.client, "club_hosting")).toEqual([1]);
  });

  it("founds none for somebody else, nor closes theirs", async () => {
    const other = await personNamed("other");
    expect((await reader.clubs.found("For You", other.id))?.code).toBe("42501");
    await other.clubs.close("Day Readers");
    expect(await reader.clubs.names()).toContain("Day Readers");
    expect(await countedOf(reader.client, "club_hosting")).toEqual([1]);
  });
});

describe("a team", () => {
  let owner: Person;
  let colleague: Person;
  let teamId: string;

  beforeAll(async () => {
    [owner, colleague] = [await personNamed("owner"), await personNamed("colleague")];
    const team = expectData(
      "create organization",
      await owner.client.rpc("create_organization", { name: "The Reading Circle" }),
    );
    teamId = team.id;
    const invitation = expectData(
      "invite",
      await owner.client.rpc("invite_member", {
        account_id: teamId,
        email: "colleague@example.com",
        role: "member",
      }),
    );
    await colleague.client.rpc("accept_invitation", { token: invitation.token! });
    await subscribe(stack, owner.client, "reading_circle_monthly", "4242", teamId);
  });

  it("shows every member the premium clubs, and nobody else", async () => {
    expect(await colleague.clubs.names()).toContain(premium);
    expect(await (await personNamed("outsider")).clubs.names()).not.toContain(premium);
  });

  it("shares its limit: whoever founds the last club, the next is refused to all", async () => {
    expect(await owner.clubs.found("Circle One", teamId)).toBeNull();
    expect(await colleague.clubs.found("Circle Two", teamId)).toBeNull();
    expect(whatIsSaid(await owner.clubs.found("Circle Three", teamId))).toEqual(limitReached(2));
    expect(whatIsSaid(await colleague.clubs.found("Circle Three", teamId))).toEqual(
      limitReached(2),
    );
  });

  it("is explained to its members", async () => {
    const reasons = expectData(
      "explain",
      await owner.client.rpc("explain_entitlement", {
        feature: "club_hosting",
        account_id: teamId,
      }),
    );
    expect(reasons).toMatchObject([
      { gives_access: true, plan_key: "reading_circle", limit_value: 2, decides_limit: true },
    ]);
  });

  it("lets nobody found for it who does not belong to it", async () => {
    const outsider = await personNamed("stranger");
    expect((await outsider.clubs.found("Infiltrators", teamId))?.code).toBe("42501");
    const gone = await owner.client.rpc("remove_member", {
      account_id: teamId,
      user_id: colleague.id,
    });
    expect(gone.error).toBeNull();
    expect((await colleague.clubs.found("Circle Three", teamId))?.code).toBe("42501");
    expect(await colleague.clubs.names()).not.toContain(premium);
  });
});
