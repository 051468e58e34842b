import { describe, expect, it } from "vitest";
import { checkContents } from "../../../scripts/checks/contents.ts";
import { checkDirection } from "../../../scripts/checks/direction.ts";
import { checkErrors } from "../../../scripts/checks/errors.ts";
import { statementsOf, tokenize, type Finding } from "../../../scripts/checks/sql.ts";
import { checkStyle } from "../../../scripts/checks/style.ts";

function short(findings: Finding[]): string[] {
  return findings.map(({ path, line, message }) => `${path.split("/").at(-1)}:${line} ${message}`);
}

describe("the SQL tokenizer", () => {
  it("keeps a semicolon inside quotes, dollar quotes and comments", () => {
    const text = `select ';', $$;$$, $a$ $$;$$ $a$, "a;b" -- ;\n/* ; /* ; */ ; */ from x; select e'\\';';`;
    expect(statementsOf(text).map(({ tokens }) => tokens.length)).toEqual([10, 2]);
  });

  it("keeps the statements of begin atomic … end together", () => {
    const text =
      "create function f() begin atomic select case when a then b end; select 2; end;\nselect 3;";
    expect(statementsOf(text).map(({ line }) => line)).toEqual([1, 2]);
  });

  it("knows the line of a token that follows text of many lines", () => {
    const tokens = tokenize("select 'a\nb',\n$x$\n\n$x$, last");
    expect(tokens.at(-1)).toMatchObject({ value: "last", line: 5 });
  });

  it("reads literals on successive lines as one, as Postgres does", () => {
    const tokens = tokenize("'it''s one'\n  ' text', 'two', '',\n'three'\n'four'");
    expect(tokens.filter(({ kind }) => kind === "string").map(({ value }) => value)).toEqual([
      "it's one text",
      "two",
      "",
      "threefour",
    ]);
  });

  it("reads doubled quotes and the content of dollar quotes", () => {
    expect(tokenize("'it''s' $tag$body$tag$").map(({ value }) => value)).toEqual(["it's", "body"]);
  });
});

const frame = (contents: string) => `-- =============================================
-- 0001  first things
--
-- Contents
${contents}
-- =============================================
`;

const heading = (name: string) => `
-- ---------------------------------------------
-- ${name}
-- ---------------------------------------------
`;

describe("contents", () => {
  const check = (text: string) =>
    short(checkContents([{ path: "supabase/migrations/0001_first_things.sql", text }]));

  it("accepts a list that equals the headings", () => {
    const text =
      frame("--   1  billing.accounts   who pays\n--      and more about it\n--   2  clock") +
      heading("1  billing.accounts") +
      heading("2  clock");
    expect(check(text)).toEqual([]);
  });

  it("names the first heading that differs", () => {
    const text = frame("--   1  one\n--   2  two\n--   3  three") + heading("1  one");
    expect(check(text + heading("2  zwei") + heading("3  three"))).toEqual([
      '0001_first_things.sql:15 heading "2  zwei" is listed in Contents as "2  two"',
    ]);
  });

  it("names an entry without a section and a section without an entry", () => {
    expect(check(frame("--   1  one\n--   2  two") + heading("1  one"))).toEqual([
      '0001_first_things.sql:6 Contents lists "2  two", which has no section',
    ]);
    expect(check(frame("--   1  one") + heading("1  one") + heading("2  two"))).toEqual([
      '0001_first_things.sql:13 heading "2  two" is listed in Contents as nothing',
    ]);
  });

  it("wants the frame, with the file's own title", () => {
    expect(check("select 1;")).toEqual([
      "0001_first_things.sql:1 the file does not open with its frame (-- =====)",
    ]);
    expect(check(frame("").replace("first things", "second things"))).toEqual([
      `0001_first_things.sql:2 the frame's title is not "-- 0001  first things"`,
    ]);
  });
});

describe("direction", () => {
  const check = (first: string, second: string) =>
    short(
      checkDirection([
        { path: "0001_a.sql", text: first },
        { path: "0002_b.sql", text: second },
      ]),
    );
  const table = "create table billing.things (id uuid);";
  const later = "create function billing_private.later() returns void as $$ $$;";

  it("accepts a look down, and a comment or an error's hint that looks up", () => {
    const first = `${table} -- read by billing_private.later()
      insert into billing.error_codes (hint) values ('See billing_private.later().');
      comment on table billing.things is 'Written by billing_private.later().';`;
    expect(check(first, later + "create view billing.v as select * from billing.things;")).toEqual(
      [],
    );
  });

  it("finds a look up in code, in a function's body and in dynamic SQL", () => {
    const up = "0001_a.sql:2 billing_private.later is created later, in 0002_b.sql";
    expect(check("select 1;\nselect billing_private.later();", later)).toEqual([up]);
    expect(check("do $$ begin\nperform billing_private.later(); end $$;", later)).toEqual([up]);
    expect(
      check("create function f() as $$\nexecute 'select billing_private.later()' $$;", later),
    ).toEqual([up]);
    expect(
      check("create function f() as $$\nexecute $q$ select billing_private.later() $q$ $$;", later),
    ).toEqual([up]);
  });

  it("does not read comments inside a body as code", () => {
    const body = "create function f() as $$ -- billing_private.later() follows\n select 1 $$;";
    expect(check(body, later)).toEqual([]);
  });

  it("finds a second definition, but not an overload", () => {
    expect(check(table, "select 1;\n" + table)).toEqual([
      "0002_b.sql:2 table billing.things is already defined at 0001_a.sql:1",
    ]);
    const one = "create function billing.f(a text default g(1, 2), b uuid) as $$ $$;";
    expect(check(one, "create function billing.f(a uuid) as $$ $$;")).toEqual([]);
    expect(check(one, "create function billing.f(a text, b uuid) as $$ $$;")).toEqual([
      "0002_b.sql:1 function billing.f(a text , b uuid) is already defined at 0001_a.sql:1",
    ]);
  });

  it("finds what would hide a second definition", () => {
    expect(check("create or replace view billing.v as select 1;", "")).toEqual([
      "0001_a.sql:1 create or replace hides a second definition; use plain create",
    ]);
    expect(check("alter function billing.f() stable;", "drop function billing.f();")).toEqual([
      "0001_a.sql:1 alter function: say it in the function's one definition",
      "0002_b.sql:1 drop function: edit its one definition instead",
    ]);
  });

  it("finds a later layer that changes an earlier one's columns", () => {
    expect(check(table, "alter table billing.things add column more text;")).toEqual([
      "0002_b.sql:1 changes the columns of billing.things, which is 0001_a.sql's",
    ]);
    expect(check(table, "alter table billing.things enable row level security;")).toEqual([]);
  });
});

describe("errors", () => {
  const catalog = `insert into billing.error_codes (code, status, message, hint) values
  ('GONE', 404, 'it is gone', null),
  ('TWICE', 409, 'that''s twice', 'Once will do.');\n`;
  const raise = "do $$ begin perform billing_private.fail('GONE', '{}'); end $$;\n";
  const readme = `# Errors

| Code    | Status | Message      |
| ------- | ------ | ------------ |
| \`GONE\`  | 404    | it is gone   |
| \`TWICE\` | 409    | that's twice |
`;
  const twice = { path: "checkout.ts", text: 'failure("TWICE")' };
  const check = (sql: string, { functions = [twice], text = readme } = {}) =>
    short(
      checkErrors({
        migrations: [{ path: "0001_a.sql", text: catalog + sql }],
        functions,
        readme: { path: "README.md", text },
      }),
    );

  it("accepts a catalog whose codes are raised in SQL or in a function", () => {
    expect(check(raise)).toEqual([]);
  });

  it("finds a code that is raised but unknown, and one never raised", () => {
    expect(check(raise + "select billing_private.fail('LOST');")).toEqual([
      "0001_a.sql:5 LOST is not in the catalog",
    ]);
    expect(check(raise, { functions: [] })).toEqual(["0001_a.sql:3 TWICE is never raised"]);
  });

  it("accepts a code chosen first and raised later", () => {
    const chosen = "do $$ begin v_code := case when a then 'TWICE' end; end $$;";
    expect(check(raise + chosen, { functions: [] })).toEqual([]);
  });

  it("compares the Errors list of a function's comment with the catalog", () => {
    const comment = `comment on function billing.f() is
$$Does it.

Errors
  GONE   410  no longer there
  LOST   404  nowhere$$;`;
    expect(check(raise + comment)).toEqual([
      "0001_a.sql:9 Errors: GONE is 404, not 410",
      "0001_a.sql:10 Errors: LOST is not in the catalog",
    ]);
  });

  it("compares README's table with the catalog", () => {
    expect(check(raise, { text: readme.replace("it is gone", "gone") })).toEqual([
      'README.md:5 GONE is 404 "it is gone" in the catalog',
    ]);
    expect(
      check(raise, { text: readme.replace(/.*TWICE.*\n/, "| `THRICE` | 409 | no |\n") }),
    ).toEqual([
      "README.md:3 the error table lacks TWICE",
      "README.md:6 THRICE is not in the catalog",
    ]);
    expect(check(raise, { text: "" })).toEqual([
      "README.md:1 there is no table with the header Code | Status | Message",
    ]);
  });
});

describe("style", () => {
  const check = (text: string) => short(checkStyle([{ path: "0001_a.sql", text }]));
  const good = `create table billing.things (
  id uuid primary key,
  account_id uuid not null references billing.accounts (id) on delete restrict
);
alter table billing.things enable row level security;
revoke all on billing.things from public, anon, authenticated, service_role;

create function billing_private.touch(p_id uuid, p_at timestamptz default now())
returns trigger
language plpgsql
volatile
security definer -- members may not write
set search_path = ''
as $$
begin
  update billing.things as thing set id = p_id where thing.id = p_id;
  insert into billing.things (id) values (p_id) on conflict (id) do update set id = p_id;
  delete from billing.things where id in (select id from billing.things for update of things);
  return new;
end;
$$;
revoke all on function billing_private.touch(uuid, timestamptz) from public;
create trigger t100_touch after insert or update or delete on billing.things
  for each row execute function billing_private.touch();
`;

  it("accepts the house's own style", () => {
    expect(check(good)).toEqual([]);
  });

  it.each([
    ["id uuid primary", "id UUID primary", "0001_a.sql:2 UUID is not lower case"],
    ["  return new", "\treturn new", "0001_a.sql:19 the line has a tab"],
    ["return new;", "return new; ", "0001_a.sql:19 the line ends in white space"],
    ["return new;", `return new; -- ${"x".repeat(100)}`, "0001_a.sql:19 the line has 117 columns"],
    [
      "create table",
      "-- Down migration\ncreate table",
      "0001_a.sql:1 node-pg-migrate would split the file at this comment",
    ],
    ["create table", "\\set x 1\ncreate table", "0001_a.sql:1 a psql command is no SQL"],
    ["create table", "begin;\ncreate table", "0001_a.sql:1 begin has no place in a migration"],
    ["create table", "savepoint a;\ncreate table", "0001_a.sql:1 savepoint has no place in a mig"],
    [
      "create table",
      "lock table a;\ncreate table",
      "0001_a.sql:1 lock has no place in a migration",
    ],
    [
      "create table",
      "set local a = 1;\ncreate table",
      "0001_a.sql:1 set local needs a transaction",
    ],
    [
      "create table",
      "create index concurrently on a (b);\ncreate table",
      "0001_a.sql:1 concurrently cannot run in a transaction",
    ],
    [" on delete restrict", "", "0001_a.sql:3 the foreign key to billing.accounts does not state"],
    [" on delete restrict", " on update restrict", "0001_a.sql:3 the foreign key to billing.acc"],
    ["alter table billing.things enable", "alter table billing.other enable", "does not enable"],
    ["revoke all on billing.things from", "revoke all on billing.other from", "has no revoke for"],
    [
      "revoke all on function billing_private.touch",
      "revoke all on function f",
      "nothing revokes it",
    ],
    ["\nvolatile", "", "0001_a.sql:8 billing_private.touch: the header does not state volatility"],
    ["\nset search_path = ''", "", "0001_a.sql:8 billing_private.touch: the header does not state"],
    [
      "search_path = ''",
      "search_path = public",
      "0001_a.sql:13 billing_private.touch: search_path",
    ],
    [" -- members may not write", "", "0001_a.sql:12 billing_private.touch: a definer says why"],
    [
      "language plpgsql\nvolatile",
      "volatile\nlanguage plpgsql",
      "0001_a.sql:8 billing_private.touch: the header's order is not",
    ],
    ["plpgsql\nvolatile", "plpgsql volatile", "0001_a.sql:10 volatility does not begin its line"],
    [" where thing.id = p_id", "", "0001_a.sql:16 update without where"],
    [" where id in (", " using (", "0001_a.sql:18 delete without where"],
  ])("finds %j written as %j", (right, wrong, message) => {
    const findings = check(good.replace(right, wrong));
    expect(findings).toHaveLength(1);
    expect(findings[0]).toContain(message);
  });

  it("wants a reason for a body over 60 lines", () => {
    const long = good.replace("return new;", "return new;\n".repeat(60));
    expect(check(long)).toEqual([
      "0001_a.sql:8 billing_private.touch: the body has 66 lines; split it, " +
        "or say at its head why it is long (-- Long because …)",
    ]);
    expect(
      check(long.replace("create function", "-- Long because it is.\ncreate function")),
    ).toEqual([]);
  });

  it("wants no returns where there are out arguments", () => {
    const out = good.replace("returns trigger\n", "");
    expect(check(out)).toEqual([
      "0001_a.sql:8 billing_private.touch: the header does not state returns",
    ]);
    expect(check(out.replace("p_id uuid,", "out id uuid,"))).toEqual([]);
  });

  it("looks for a table's revoke in its own section, for a function's in the file", () => {
    const list = good.replace("revoke all on function", `${heading("2  grants")}$&`);
    expect(check(list)).toEqual([]);
    const apart = good.replace("revoke all on billing.things", `${heading("2  else")}$&`);
    expect(check(apart)).toEqual([
      "0001_a.sql:1 table billing.things: its section has no revoke for it",
    ]);
  });
});
