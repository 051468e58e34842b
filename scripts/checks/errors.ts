import {
  closingParenthesis,
  codeOf,
  isWord,
  readName,
  startsWith,
  statementsOf,
  type Finding,
  type SourceFile,
  type Statement,
  type Token,
} from "./sql.ts";
import { tableWithHeader } from "./markdown.ts";

interface Entry {
  path: string;
  line: number;
  code: string;
  status: number;
  message: string;
}

interface Use {
  path: string;
  line: number;
  code: string;
}

export interface ErrorSources {
  migrations: SourceFile[];
  /** TypeScript of the Edge Functions, without the generated catalog. */
  functions: SourceFile[];
  readme: SourceFile | undefined;
}

/**
 * The error catalog is the one list: every code raised is in it, every code in it is raised, and the
 * README and the functions' `Errors` lists repeat it truly.
 */
export function checkErrors({ migrations, functions, readme }: ErrorSources): Finding[] {
  const parsed = migrations.map(({ path, text }) => ({ path, statements: statementsOf(text) }));
  const everywhere = <T>(read: (path: string, statement: Statement) => T[]) =>
    parsed.flatMap(({ path, statements }) => statements.flatMap((each) => read(path, each)));

  const catalog = everywhere(catalogRows);
  const raised = everywhere(raisedCodes);
  const known = new Map(catalog.map((entry) => [entry.code, entry]));
  const named = new Set([...everywhere(namedCodes), ...functions.flatMap(quotedCodes)]);

  return [
    ...raised
      .filter(({ code }) => !known.has(code))
      .map(({ path, line, code }) => ({ path, line, message: `${code} is not in the catalog` })),
    ...catalog
      .filter(({ code }) => !named.has(code))
      .map(({ path, line, code }) => ({ path, line, message: `${code} is never raised` })),
    ...everywhere((path, statement) => checkErrorsList(path, statement, known)),
    ...(catalog.length > 0 ? checkReadme(catalog, readme) : []),
  ];
}

/** The rows of `insert into billing.error_codes (…) values (…), (…)`. */
function catalogRows(path: string, statement: Statement): Entry[] {
  if (!isCatalog(statement)) return [];
  const { tokens } = statement;
  const columns = namesUntil(tokens, 5);
  const values = tokens.findIndex((token) => isWord(token, "values"));
  const rows: Entry[] = [];
  for (let at = values + 1; at > 0 && tokens[at]?.text === "("; at += 2) {
    const open = at;
    at = closingParenthesis(tokens, open);
    const cells = tokens
      .slice(open + 1, at)
      .filter(({ kind }) => kind === "string" || kind === "number" || kind === "word");
    const cell = (...names: string[]) =>
      cells[columns.findIndex((column) => names.includes(column))]?.value ?? "";
    rows.push({
      path,
      line: tokens[open]?.line ?? statement.line,
      code: cell("code"),
      status: Number(cell("status", "http_status")),
      message: cell("message"),
    });
  }
  return rows;
}

export function isCatalog(statement: Statement): boolean {
  return (
    startsWith(statement, "insert", "into") &&
    readName(statement.tokens, 2).name === "billing.error_codes"
  );
}

function namesUntil(tokens: Token[], open: number): string[] {
  return tokens
    .slice(open, closingParenthesis(tokens, open))
    .filter(({ kind }) => kind === "word" || kind === "quoted")
    .map(({ value }) => value);
}

/** The codes of `billing_private.fail('CODE', …)`. */
function raisedCodes(path: string, statement: Statement): Use[] {
  const tokens = codeOf(statement, { deep: true });
  return tokens.flatMap((token, index) => {
    if (!isWord(token, "billing_private")) return [];
    const { name, next } = readName(tokens, index);
    const code = tokens[next + 1];
    if (name !== "billing_private.fail" || tokens[next]?.text !== "(" || code?.kind !== "string") {
      return [];
    }
    return [{ path, line: code.line, code: code.value }];
  });
}

/** Every text in the code that could be a code, because some are chosen first and raised later. */
function namedCodes(_path: string, statement: Statement): string[] {
  if (isCatalog(statement) || startsWith(statement, "comment", "on")) return [];
  return codeOf(statement, { deep: true })
    .filter(({ kind, value }) => kind === "string" && /^[A-Z][A-Z0-9_]+$/.test(value))
    .map(({ value }) => value);
}

function quotedCodes({ text }: SourceFile): string[] {
  return [...text.matchAll(/["']([A-Z][A-Z0-9_]+)["']/g)].map((match) => match[1] ?? "");
}

/** `comment on function … is '… Errors\n  CODE  404  when'`. */
function checkErrorsList(path: string, statement: Statement, known: Map<string, Entry>): Finding[] {
  if (!startsWith(statement, "comment", "on", "function")) return [];
  const text = statement.tokens.at(-1);
  if (!text) return [];
  const lines = text.value.split("\n");
  const start = lines.findIndex((line) => /^Errors\b/.test(line.trim()));
  if (start === -1) return [];
  return lines.slice(start + 1).flatMap((content, index) => {
    const line = text.line + start + 1 + index;
    const [, code = "", status] = /^\s+([A-Z][A-Z0-9_]+)\s+(\d{3})\b/.exec(content) ?? [];
    if (code === "") return [];
    const entry = known.get(code);
    if (!entry) return [{ path, line, message: `Errors: ${code} is not in the catalog` }];
    if (entry.status === Number(status)) return [];
    return [{ path, line, message: `Errors: ${code} is ${entry.status}, not ${status}` }];
  });
}

/** README's table with the header Code | Status | Message equals the catalog. */
function checkReadme(catalog: Entry[], readme: SourceFile | undefined): Finding[] {
  const table = readme && tableWithHeader(readme.text, ["Code", "Status", "Message"]);
  if (!readme || !table) {
    const path = readme?.path ?? "README.md";
    return [
      { path, line: 1, message: "there is no table with the header Code | Status | Message" },
    ];
  }
  const rows = new Map(table.rows.map((row) => [row.cells[0] ?? "", row]));
  const missing = catalog.flatMap(({ code, status, message }) => {
    const row = rows.get(code);
    if (!row) {
      return [{ path: readme.path, line: table.line, message: `the error table lacks ${code}` }];
    }
    if (row.cells[1] === String(status) && row.cells[2] === message) return [];
    return [
      {
        path: readme.path,
        line: row.line,
        message: `${code} is ${status} "${message}" in the catalog`,
      },
    ];
  });
  const codes = new Set(catalog.map(({ code }) => code));
  const invented = [...rows]
    .filter(([code]) => !codes.has(code))
    .map(([code, { line }]) => ({
      path: readme.path,
      line,
      message: `${code} is not in the catalog`,
    }));
  return [...missing, ...invented];
}
