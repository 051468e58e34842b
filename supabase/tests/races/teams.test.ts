// Teams at the same moment: the last owner stays, a token lets one in, the last seat is taken once.
import type { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap } from "../support/overlapping.ts";
import { addCatalog, idOf } from "../support/readers.ts";

let database: TestDatabase;
let owner: Client;
let people: { name: string; client: Client }[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  people = await Promise.all(
    Array.from({ length: 8 }, async (_, place) => {
      const name = `person ${place}`;
      return { name, client: await database.connect("authenticated", { sub: idOf(name) }) };
    }),
  );
  await addCatalog(owner);
});

afterAll(() => database?.drop());

describe("an organization", () => {
  it.each([1, 2, 3])("keeps one owner when two leave at once (round %i)", async (round) => {
    const team = await addTeam(`left ${round}`, { "person 0": "owner", "person 1": "owner" });
    expect(await leaveAtOnce(team, 2)).toEqual(["an organization keeps at least one owner", "ok"]);
    expect(await rolesIn(team)).toEqual(["owner"]);
  });

  it("keeps one owner when eight leave at once", async () => {
    const owners = Object.fromEntries(people.map(({ name }) => [name, "owner"]));
    const team = await addTeam("left by eight", owners);
    const answers = await leaveAtOnce(team, 8);
    expect(answers.filter((answer) => answer === "ok")).toHaveLength(7);
    expect(await rolesIn(team)).toEqual(["owner"]);
  });

  it("keeps one owner when two demote each other", async () => {
    const team = await addTeam("demoted", { "person 0": "owner", "person 1": "owner" });
    const answers = await Promise.all([
      tell(0, "select billing.change_role($1, $2, 'member')", [team, idOf("person 1")]),
      tell(1, "select billing.change_role($1, $2, 'member')", [team, idOf("person 0")]),
    ]);
    expect(answers.filter((answer) => answer === "ok")).toHaveLength(1);
    expect(await rolesIn(team)).toEqual(["member", "owner"]);
  });

  it("makes whoever leaves second wait for whoever leaves first", async () => {
    const team = await addTeam("waiting", { "person 0": "owner", "person 1": "owner" });
    let second = "";
    const met = await overlap(
      owner,
      {
        client: people[0]!.client,
        work: () => people[0]!.client.query("select billing.leave_organization($1)", [team]),
      },
      {
        client: people[1]!.client,
        work: async () => {
          second = await tell(1, "select billing.leave_organization($1)", [team]);
        },
      },
    );
    expect([met, second]).toEqual(["waits", "an organization keeps at least one owner"]);
  });

  it("does not let a removed admin invite in the same moment", async () => {
    const team = await addTeam("removed", { "person 0": "owner", "person 1": "admin" });
    let second = "";
    await overlap(
      owner,
      {
        client: people[0]!.client,
        work: () =>
          people[0]!.client.query("select billing.remove_member($1, $2)", [team, idOf("person 1")]),
      },
      {
        client: people[1]!.client,
        work: async () => {
          second = await tell(1, "select billing.invite_member($1, 'friend@example.com')", [team]);
        },
      },
    );
    expect(second).toBe("you are not a member of this account");
  });
});

describe("one token", () => {
  it.each([1, 2, 3])("lets one of eight in (round %i)", async (round) => {
    const team = await addTeam(`token ${round}`, { host: "owner" });
    const token = await invitationTo(team, "guest@example.com");
    const answers = await Promise.all(
      people.map((_, place) => tell(place, "select billing.accept_invitation($1)", [token])),
    );
    expect(answers.filter((answer) => answer === "ok")).toHaveLength(1);
    expect(await rolesIn(team)).toEqual(["member", "owner"]);
  });

  it("brought twice at once by one person makes one membership, and no error", async () => {
    const team = await addTeam("double click", { host: "owner" });
    const token = await invitationTo(team, "guest@example.com");
    const secondTab = await database.connect("authenticated", { sub: idOf("person 0") });
    const accept = "select billing.accept_invitation($1)";
    const answers = await Promise.all([
      tell(0, accept, [token]),
      secondTab.query(accept, [token]).then(() => "ok"),
    ]);
    expect(answers).toEqual(["ok", "ok"]);
    expect(await rolesIn(team)).toEqual(["member", "owner"]);
  });
});

describe("the last seat", () => {
  it("is promised to one of eight guests whom eight admins invite at once", async () => {
    const admins = Object.fromEntries(people.map(({ name }) => [name, "admin"]));
    const team = await addTeam("full", { host: "owner", ...admins });
    await limitSeats(team, 10);
    const answers = await Promise.all(
      people.map((_, place) =>
        tell(place, "select billing.invite_member($1, $2)", [team, `guest${place}@example.com`]),
      ),
    );
    expect(answers.filter((answer) => answer === "ok")).toHaveLength(1);
    expect(answers.filter((answer) => answer === "all seats of the plan are taken")).toHaveLength(
      7,
    );
  });

  it("is the guest's who was invited to it, whoever is invited meanwhile", async () => {
    const team = await addTeam("kept", { host: "owner", "person 0": "admin" });
    const token = await invitationTo(team, "guest@example.com");
    await limitSeats(team, 3);
    const answers = await Promise.all([
      tell(0, "select billing.invite_member($1, 'other@example.com')", [team]),
      tell(1, "select billing.accept_invitation($1)", [token]),
    ]);
    expect(answers).toEqual(["all seats of the plan are taken", "ok"]);
  });
});

/** What a person is told: ok, or the error's message. */
async function tell(place: number, sql: string, values: unknown[]): Promise<string> {
  try {
    await people[place]!.client.query(sql, values);
    return "ok";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

async function leaveAtOnce(team: string, count: number): Promise<string[]> {
  const answers = await Promise.all(
    people
      .slice(0, count)
      .map((_, place) => tell(place, "select billing.leave_organization($1)", [team])),
  );
  return answers.sort();
}

async function addTeam(name: string, roles: Record<string, string>): Promise<string> {
  await owner.query(
    "insert into billing.accounts (id, kind, name) values ($1, 'organization', $2)",
    [idOf(name), name],
  );
  for (const [person, role] of Object.entries(roles)) {
    await owner.query(
      "insert into billing.memberships (account_id, user_id, role) values ($1, $2, $3)",
      [idOf(name), idOf(person), role],
    );
  }
  return idOf(name);
}

async function invitationTo(team: string, email: string): Promise<string> {
  const { rows } = await owner.query<{ token: string }>(
    "select token from billing.invite_member($1, $2)",
    [team, email],
  );
  return rows[0]!.token;
}

async function rolesIn(team: string): Promise<string[]> {
  const { rows } = await owner.query<{ role: string }>(
    "select role from billing.memberships where account_id = $1 order by role",
    [team],
  );
  return rows.map(({ role }) => role);
}

async function limitSeats(team: string, seats: number): Promise<void> {
  await owner.query(
    `insert into billing.features (key, name, kind) values ('seats', 'Seats', 'limit')
    on conflict do nothing`,
  );
  await owner.query(
    "update billing.entitlement_grants set revoked_at = now() where account_id = $1",
    [team],
  );
  await owner.query(
    "insert into billing.entitlement_grants (account_id, feature_key, valid_from, limit_value, reason) values ($1, 'seats', now() - interval '1 minute', $2, 'a plan')",
    [team, seats],
  );
}
