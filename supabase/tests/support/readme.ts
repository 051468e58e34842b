/**
 * README's SQL as tests. A chapter (`## …`) runs in a database of its own: its unindented sql blocks, in order, each
 * statement a transaction of its own, as in the SQL editor.
 *
 *   ```sql
 *   -- as ann                                           a signed-in user, ann@example.com; also anon, service_role;
 *   select billing.has_entitlement('premium_clubs');    without such a line the owner, postgres
 *   -- → true                                           all rows of the statement before, a line each; columns
 *   insert into clubs (name) values ('Too many');       stand between bars, null is empty
 *   -- → ERROR LIMIT_REACHED                            it fails with this code of ours, or with this message
 *   ```
 */
import { DatabaseError, type Client } from "pg";
import { statementsOf, tokenize } from "../../../scripts/checks/sql.ts";
import type { ApiRole, TestDatabase } from "./database.ts";

export interface Chapter {
  title: string;
  blocks: Block[];
}

export interface Block {
  /** Who runs it. */
  actor: string;
  statements: Statement[];
}

export interface Statement {
  line: number;
  sql: string;
  /** What README says comes of it; empty where it only has to succeed. */
  expected: string[];
}

const fence = /^```(\w*)$/;
const actorLine = /^-- as (\w+)$/;
const arrow = /^-- → ?/;

export function chaptersOf(markdown: string): Chapter[] {
  const chapters: Chapter[] = [];
  let language: string | undefined;
  let start = 0;
  const lines = markdown.split("\n");
  lines.forEach((line, index) => {
    const [, opened] = fence.exec(line) ?? [];
    if (language === undefined && line.startsWith("## ")) {
      chapters.push({ title: line.slice(3).trim(), blocks: [] });
    } else if (language === undefined && opened !== undefined) {
      language = opened;
      start = index + 1;
    } else if (language !== undefined && line === "```") {
      const code = lines.slice(start, index).join("\n");
      if (language === "sql") chapters.at(-1)?.blocks.push(blockOf(code, start + 1));
      language = undefined;
    }
  });
  return chapters.filter(({ blocks }) => blocks.length > 0);
}

/** `firstLine` is the line of README that the code begins on. */
function blockOf(code: string, firstLine: number): Block {
  const lines = code.split("\n");
  const [, actor = "postgres"] = actorLine.exec(lines[0] ?? "") ?? [];
  const said = tokenize(code).filter(({ kind, text }) => kind === "comment" && arrow.test(text));
  const found = statementsOf(code);
  const statements = found.map((statement, index) => {
    const next = found[index + 1]?.line ?? Infinity;
    return {
      line: firstLine + statement.line - 1,
      sql: lines.slice(statement.line - 1, statement.lastLine).join("\n"),
      expected: said
        .filter(({ line }) => line >= statement.lastLine && line < next)
        .map(({ text }) => text.replace(arrow, "").trim()),
    };
  });
  return { actor, statements };
}

/** Runs a chapter and returns what came of it otherwise than README says, a text each. */
export async function contradictions(
  database: TestDatabase,
  { blocks }: Chapter,
): Promise<string[]> {
  const found: string[] = [];
  const clients = new Map<string, Client>();
  for (const { actor, statements } of blocks) {
    if (!clients.has(actor)) clients.set(actor, await connectAs(database, actor));
    for (const { line, sql, expected } of statements) {
      const came = await run(clients.get(actor)!, sql);
      const hasFailed = came[0]?.startsWith("ERROR ") ?? false;
      if (expected.length === 0 && !hasFailed) continue;
      if (expected.join("\n") === came.join("\n")) continue;
      found.push(
        `README.md:${line}, as ${actor}: ${sql}\n  expected ${expected.join("\n    ") || "success"}\n  came ${came.join("\n    ")}`,
      );
    }
  }
  return found;
}

const roles: Record<string, ApiRole> = { anon: "anon", service_role: "service_role" };

async function connectAs(database: TestDatabase, actor: string): Promise<Client> {
  if (actor === "postgres") return database.connect();
  const role = roles[actor];
  if (role) return database.connect(role);
  return database.connect("authenticated", { sub: await userNamed(database, actor) });
}

/** The id of a user who has signed up as `<name>@example.com`, which is done here if need be. */
async function userNamed(database: TestDatabase, name: string): Promise<string> {
  const owner = await database.connect();
  const email = `${name}@example.com`;
  const known = () =>
    owner.query<{ id: string }>("select id from auth.users where email = $1", [email]);
  if ((await known()).rows.length === 0) {
    await owner.query("insert into auth.users (id, email) values (gen_random_uuid(), $1)", [email]);
  }
  return (await known()).rows[0]!.id;
}

/** Everybody a chapter has speak, signed up before it begins: its first block may already name them. */
export async function signUpAll(database: TestDatabase, { blocks }: Chapter): Promise<void> {
  const users = blocks
    .map(({ actor }) => actor)
    .filter((actor) => actor !== "postgres" && roles[actor] === undefined);
  for (const user of new Set(users)) await userNamed(database, user);
}

const booleanType = 16;

/** The rows as text, or the error. */
async function run(client: Client, text: string): Promise<string[]> {
  try {
    const { rows } = await client.query<(string | null)[]>({
      text,
      rowMode: "array",
      types: { getTypeParser: (type: number) => (type === booleanType ? truth : asWritten) },
    });
    return rows.map((row) => row.map((value) => value ?? "").join(" | "));
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    return [`ERROR ${codeOf(error) ?? error.message}`];
  }
}

function asWritten(value: string): string {
  return value;
}

function truth(value: string): string {
  return value === "t" ? "true" : "false";
}

function codeOf({ code, detail }: DatabaseError): string | undefined {
  if (!code?.startsWith("PT") || detail === undefined) return undefined;
  return (JSON.parse(detail) as { code?: string }).code;
}
