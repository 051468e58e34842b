import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";

describe("a test file's own database", () => {
  let one: TestDatabase;
  let other: TestDatabase;

  beforeAll(async () => {
    [one, other] = await Promise.all([createTestDatabase(), createTestDatabase()]);
  });
  afterAll(async () => {
    await Promise.all([one, other].map((database) => database.drop()));
  });

  it("is migrated, belongs to postgres, and has no rows of others", async () => {
    const client = await one.connect();
    const { rows } = await client.query(
      `select current_user as role, current_database() <> 'postgres' as own,
         (select count(*)::int from billing.accounts) as accounts,
         (select rolsuper from pg_roles where rolname = current_user) as super`,
    );
    expect(rows).toEqual([{ role: "postgres", own: true, accounts: 0, super: false }]);
  });

  it("is not seen by another file's database", async () => {
    const [here, there] = await Promise.all([one.connect(), other.connect()]);
    await here.query("create table public.mine (id integer)");
    const { rows } = await there.query("select to_regclass('public.mine') as found");
    expect(rows).toEqual([{ found: null }]);
  });

  it("connects as the Data API would", async () => {
    const sub = "00000000-0000-4000-8000-000000000001";
    const client = await one.connect("authenticated", { sub });
    const { rows } = await client.query("select current_user as role, auth.uid() as id");
    expect(rows).toEqual([{ role: "authenticated", id: sub }]);
    await expect(client.query("select * from billing_private.settings")).rejects.toThrow(
      "permission denied",
    );
  });
});
