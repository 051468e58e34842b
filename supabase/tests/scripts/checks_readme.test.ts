import type { Client } from "pg";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readSources, type SourceFile } from "../../../scripts/checks/index.ts";
import { checkReadme, renderReadme } from "../../../scripts/checks/readme.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";

const { migrations } = readSources();
const blank = `# Title

${["rpcs", "views", "errors", "definers", "triggers", "events"]
  .map((name) => `<!-- begin ${name} -->\n<!-- end ${name} -->`)
  .join("\n\n")}
`;
const readme = (text: string): SourceFile => ({ path: "README.md", text });

describe("README's tables", () => {
  let database: TestDatabase;
  let client: Client;
  let written: string;

  beforeAll(async () => {
    database = await createTestDatabase();
    client = await database.connect();
    written = await renderReadme(client, migrations, readme(blank));
  });
  afterAll(() => database.drop());

  /** The first row that starts with this cell, without the padding. */
  function row(cell: string): string[] | undefined {
    const line = written.split("\n").find((content) => content.startsWith(`| \`${cell}\` `));
    return line?.split("|").map((part) => part.trim());
  }

  it("list each RPC with its arguments, and who may call it", () => {
    expect(row("billing.ingest_stripe_event(payload)")?.[3]).toBe("service role");
    expect(row("billing.list_plans([store], [currency])")?.[3]).toBe("anyone");
    expect(row("billing.prepare_portal(return_url, [account_id], [flow])")?.[3]).toBe(
      "signed-in users",
    );
  });

  it("list views, errors, and the reason of each definer", () => {
    expect(row("billing.plan_offers")?.[2]).not.toBe("");
    expect(row("ACCOUNT_NOT_FOUND")?.slice(2, 4)).toEqual(["404", "there is no such account"]);
    expect(row("billing_private.prepare_checkout()")?.[2]).not.toBe("");
  });

  it("list the events to enable at Stripe", () => {
    expect(row("invoice_payment")?.[2]).toBe("paid");
  });

  it("are left alone when they are true, and found when they are not", async () => {
    const check = (text: string) => checkReadme(client, migrations, readme(text));
    expect(await check(written)).toEqual([]);
    const changed = written.replace("there is no such account", "who are you");
    const line = changed.split("\n").findIndex((content) => content.includes("who are you")) + 1;
    expect(await check(changed)).toEqual([
      { path: "README.md", line, message: expect.stringContaining("differs") },
    ]);
    expect(await check(written.replace("<!-- begin views -->", ""))).toContainEqual({
      path: "README.md",
      line: 1,
      message: "there is no <!-- begin views -->",
    });
  });
});
