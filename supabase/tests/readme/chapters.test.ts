// README's SQL, chapter by chapter, copied and run: it does what README says it does.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { seed } from "../../../scripts/postgres/index.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { chaptersOf, contradictions, signUpAll, type Chapter } from "../support/readme.ts";

const chapters = chaptersOf(readFileSync("README.md", "utf8"));

describe.each(chapters)("chapter $title", (chapter) => {
  let database: TestDatabase;

  beforeAll(async () => {
    database = await prepare(chapter);
  });
  afterAll(() => database?.drop());

  it("runs as it stands", async () => {
    expect(await contradictions(database, chapter)).toEqual([]);
  });
});

/** A project with the samples, in which everybody of the chapter has signed up. */
async function prepare(chapter: Chapter): Promise<TestDatabase> {
  const database = await createTestDatabase();
  await seed(database.url, ["supabase/seed.sql"]);
  await signUpAll(database, chapter);
  return database;
}

describe("what reads README", () => {
  let database: TestDatabase;
  beforeAll(async () => {
    database = await createTestDatabase();
  });
  afterAll(() => database?.drop());

  const chapterOf = (...lines: string[]): Chapter =>
    chaptersOf(["## Chapter", "```sql", ...lines, "```"].join("\n"))[0]!;

  it("knows chapters that have SQL, and lets indented examples be", () => {
    const text =
      "## One\n\n  ```sql\n  select 1;\n  ```\n\n## Two\n\n```sql\nselect 2;\n```\n\n## Three\n```sh\n## no\n```\n";
    expect(chaptersOf(text)).toEqual([
      {
        title: "Two",
        blocks: [{ actor: "postgres", statements: [{ line: 10, sql: "select 2;", expected: [] }] }],
      },
    ]);
  });

  it("agrees with rows and errors that are as said", async () => {
    const chapter = chapterOf(
      "select 1, null, true union all select 2, 'b', false order by 1;",
      "-- → 1 |  | true",
      "-- → 2 | b | false",
      "select 1 / 0;  -- → ERROR division by zero",
      "select billing_private.fail('UNAUTHENTICATED');",
      "-- → ERROR UNAUTHENTICATED",
    );
    expect(await contradictions(database, chapter)).toEqual([]);
  });

  it("objects to other rows, to failure and to success that are not as said", async () => {
    const chapter = chapterOf(
      "select 1;  -- → 2",
      "select nothing;",
      "select 1;  -- → ERROR no way",
      "select 2;",
    );
    expect(await contradictions(database, chapter)).toEqual([
      "README.md:3, as postgres: select 1;  -- → 2\n  expected 2\n  came 1",
      'README.md:4, as postgres: select nothing;\n  expected success\n  came ERROR column "nothing" does not exist',
      "README.md:5, as postgres: select 1;  -- → ERROR no way\n  expected ERROR no way\n  came 1",
    ]);
  });

  it("runs a block as the one its first line names", async () => {
    const chapter = chapterOf(
      "-- as ann",
      "select current_user, (select auth.uid()) is not null;",
      "-- → authenticated | true",
    );
    await signUpAll(database, chapter);
    expect(await contradictions(database, chapter)).toEqual([]);
    const visitor = chapterOf("-- as anon", "select current_user;  -- → anon");
    expect(await contradictions(database, visitor)).toEqual([]);
  });
});
