import {
  closingParenthesis,
  codeOf,
  definedObject,
  endOfSection,
  isWord,
  readName,
  startsWith,
  statementsOf,
  type DefinedObject,
  type Finding,
  type SourceFile,
  type Statement,
  type Token,
} from "./sql.ts";

interface Problem {
  line: number;
  message: string;
}

/** What a machine can see of the style that migrations are written in. */
export function checkStyle(files: SourceFile[]): Finding[] {
  return files.flatMap(({ path, text }) => {
    const statements = statementsOf(text);
    return [
      ...lineProblems(text),
      ...statements.flatMap((statement) => [
        ...forbiddenStatements(statement),
        ...upperCaseWords(statement),
        ...functionHeader(statement),
        ...longBody(statement),
        ...foreignKeysWithoutOnDelete(statement),
        ...writesWithoutWhere(statement),
        ...openObjects(text, statement, statements),
      ]),
    ]
      .sort((one, other) => one.line - other.line)
      .map((problem) => ({ path, ...problem }));
  });
}

function lineProblems(text: string): Problem[] {
  return text.split("\n").flatMap((content, index) => {
    const problems: string[] = [];
    const width = [...content].length;
    if (width > 100) problems.push(`the line has ${width} columns; 100 is the limit`);
    if (content.includes("\t")) problems.push("the line has a tab");
    if (/[ \r]$/.test(content)) problems.push("the line ends in white space");
    if (/^\s*--[\s-]*(up|down)\s+migration/i.test(content)) {
      problems.push("node-pg-migrate would split the file at this comment");
    }
    if (content.startsWith("\\")) problems.push("a psql command is no SQL");
    return problems.map((message) => ({ line: index + 1, message }));
  });
}

const transactionWords = [
  "begin",
  "commit",
  "end",
  "rollback",
  "abort",
  "savepoint",
  "release",
  "lock",
  "start",
  "vacuum",
  "prepare",
];

/** Both migration runners wrap a file in their own transaction. */
function forbiddenStatements(statement: Statement): Problem[] {
  const { line, tokens } = statement;
  const [first, second] = tokens;
  const problems: Problem[] = [];
  if (isWord(first, ...transactionWords)) {
    problems.push({ line, message: `${first?.text} has no place in a migration` });
  }
  if (isWord(first, "set") && isWord(second, "local")) {
    problems.push({
      line,
      message: "set local needs a transaction the runner may not have opened",
    });
  }
  const concurrently = tokens.find((token) => isWord(token, "concurrently"));
  if (concurrently) {
    problems.push({ line: concurrently.line, message: "concurrently cannot run in a transaction" });
  }
  return problems;
}

function upperCaseWords(statement: Statement): Problem[] {
  return codeOf(statement)
    .filter(({ kind, text }) => kind === "word" && /[A-Z]/.test(text))
    .map(({ line, text }) => ({ line, message: `${text} is not lower case` }));
}

interface Clause {
  name: string;
  token: Token;
}

/** All are stated, but for `security`: silence is Postgres's own default, the invoker. */
const headerOrder = ["returns", "language", "volatility", "security", "set search_path", "as"];

/** A function's header is a column of facts, each on its own line, always in one order. */
function functionHeader(statement: Statement): Problem[] {
  const object = functionOf(statement);
  if (!object) return [];
  const { line } = statement;
  const clauses = headerClauses(statement, object);
  const names = clauses.map(({ name }) => name);
  const optional = ["security", ...(hasOutArguments(statement, object) ? ["returns"] : [])];
  const missing = headerOrder
    .filter((name) => !optional.includes(name) && !names.includes(name))
    .map((name) => ({ line, message: `${object.name}: the header does not state ${name}` }));
  const wanted = headerOrder.filter((name) => names.includes(name));
  const order =
    missing.length > 0 || names.join() === wanted.join()
      ? []
      : [{ line, message: `${object.name}: the header's order is not ${headerOrder.join(", ")}` }];
  return [
    ...missing,
    ...order,
    ...sharedLines(statement, clauses),
    ...searchPath(statement, object, clauses),
    ...unexplainedDefiner(statement, object, clauses),
  ];
}

function functionOf(statement: Statement): DefinedObject | undefined {
  const object = definedObject(statement);
  const isFunction =
    object?.kind === "function" && statement.tokens.some((each) => isWord(each, "function"));
  return isFunction ? object : undefined;
}

function hasOutArguments({ tokens }: Statement, { next }: DefinedObject): boolean {
  return tokens
    .slice(next, closingParenthesis(tokens, next))
    .some(
      (token, index, all) =>
        isWord(token, "out", "inout") && /^[(,]$/.test(all[index - 1]?.text ?? ""),
    );
}

function headerClauses({ tokens }: Statement, { next }: DefinedObject): Clause[] {
  const clauses: Clause[] = [];
  for (let at = closingParenthesis(tokens, next) + 1; at < tokens.length; at += 1) {
    const token = tokens[at];
    if (!token) break;
    if (token.text === "(") at = closingParenthesis(tokens, at);
    else if (isWord(token, "returns", "language", "security")) clauses.push(clause(token));
    else if (isWord(token, "immutable", "stable", "volatile")) {
      clauses.push({ name: "volatility", token });
    } else if (isWord(token, "set") && isWord(tokens[at + 1], "search_path")) {
      clauses.push({ name: "set search_path", token });
    } else if (
      isWord(token, "as", "return") ||
      (isWord(token, "begin") && isWord(tokens[at + 1], "atomic"))
    ) {
      clauses.push({ name: "as", token });
      break;
    }
  }
  return clauses;
}

function clause(token: Token): Clause {
  return { name: token.value.toLowerCase(), token };
}

function sharedLines({ tokens }: Statement, clauses: Clause[]): Problem[] {
  return clauses
    .filter(({ token }) => {
      const before = tokens[tokens.indexOf(token) - 1];
      return before?.line === token.line && before.text !== ")";
    })
    .map(({ name, token }) => ({ line: token.line, message: `${name} does not begin its line` }));
}

function searchPath({ tokens }: Statement, { name }: DefinedObject, clauses: Clause[]): Problem[] {
  const pinned = clauses.find((each) => each.name === "set search_path")?.token;
  if (!pinned) return [];
  const value = tokens[tokens.indexOf(pinned) + 3];
  if (value?.kind === "string" && value.value === "") return [];
  return [{ line: pinned.line, message: `${name}: search_path is not pinned to ''` }];
}

function unexplainedDefiner(
  { tokens, comments }: Statement,
  { name }: DefinedObject,
  clauses: Clause[],
): Problem[] {
  const security = clauses.find((each) => each.name === "security")?.token;
  if (!security || !isWord(tokens[tokens.indexOf(security) + 1], "definer")) return [];
  if (comments.some(({ line }) => line === security.line)) return [];
  return [{ line: security.line, message: `${name}: a definer says why on the same line (--)` }];
}

const longestBody = 60;

/** A longer body says why in a comment at its head that has the word "long". */
function longBody(statement: Statement): Problem[] {
  const object = functionOf(statement);
  const body = statement.tokens.find(({ kind }) => kind === "dollar");
  if (!object || !body) return [];
  const lines = body.value.trim().split("\n").length;
  const explained = statement.comments.some(({ value }) => /\blong\b/i.test(value));
  if (lines <= longestBody || explained) return [];
  const message =
    `${object.name}: the body has ${lines} lines; split it, ` +
    `or say at its head why it is long (-- Long because …)`;
  return [{ line: statement.line, message }];
}

function foreignKeysWithoutOnDelete(statement: Statement): Problem[] {
  const isTable = startsWith(statement, "create") && definedObject(statement)?.kind === "table";
  if (!isTable && !startsWith(statement, "alter", "table")) return [];
  const { tokens } = statement;
  return tokens.flatMap((token, index) => {
    if (!isWord(token, "references")) return [];
    const { name, next } = readName(tokens, index + 1);
    for (let at = next; at < tokens.length; at += 1) {
      if (tokens[at]?.text === "(") at = closingParenthesis(tokens, at);
      else if (tokens[at]?.text === "," || tokens[at]?.text === ")") break;
      else if (isWord(tokens[at], "on") && isWord(tokens[at + 1], "delete")) return [];
    }
    return [{ line: token.line, message: `the foreign key to ${name} does not state on delete` }];
  });
}

/** Hosted projects refuse these (safeupdate); where every row is meant, `where true` says so. */
function writesWithoutWhere(statement: Statement): Problem[] {
  if (startsWith(statement, "comment", "on")) return [];
  const tokens = codeOf(statement);
  return tokens.flatMap((token, index) => {
    const start = startOfWrite(tokens, index);
    if (start === undefined || hasWhere(tokens, start)) return [];
    return [{ line: token.line, message: `${token.text} without where` }];
  });
}

/** The index after the table of `delete from table` or `update table [as alias] set`. */
function startOfWrite(tokens: Token[], index: number): number | undefined {
  if (isWord(tokens[index], "delete") && isWord(tokens[index + 1], "from")) {
    return readName(tokens, index + 2).next;
  }
  if (!isWord(tokens[index], "update") || tokens[index + 1]?.kind === "symbol") return undefined;
  if (isWord(tokens[index + 1], "set", "of", "on", "or", "to")) return undefined;
  const { next } = readName(tokens, index + 1);
  return [next, next + 1, next + 2].find((at) => isWord(tokens[at], "set"));
}

function hasWhere(tokens: Token[], start: number): boolean {
  for (let at = start; at < tokens.length; at += 1) {
    const token = tokens[at];
    if (token?.text === "(") at = closingParenthesis(tokens, at);
    else if (token?.text === ")" || token?.text === ";") return false;
    else if (isWord(token, "where")) return true;
  }
  return false;
}

/**
 * Nothing stays open by default: a table's section enables its row security and revokes it, and the
 * file revokes each of its views and functions, there or in one list.
 */
function openObjects(text: string, statement: Statement, statements: Statement[]): Problem[] {
  const object = definedObject(statement);
  if (!object || object.kind === "type" || object.kind === "sequence") return [];
  const { name, kind } = object;
  const { line } = statement;
  const later = statements.filter((each) => each.line >= line);
  const lastLine = endOfSection(text, line);
  const section = later.filter((each) => each.line <= lastLine);
  const revokes = (each: Statement) => startsWith(each, "revoke") && names(each, name);
  if (kind !== "table") {
    if (later.some(revokes)) return [];
    return [{ line, message: `${kind} ${name}: nothing revokes it` }];
  }
  const problems: Problem[] = [];
  if (!section.some(revokes)) {
    problems.push({ line, message: `table ${name}: its section has no revoke for it` });
  }
  if (!section.some((each) => enablesRowSecurity(each, name))) {
    problems.push({
      line,
      message: `table ${name}: its section does not enable row level security`,
    });
  }
  return problems;
}

function names({ tokens }: Statement, name: string): boolean {
  return tokens.some((_, index) => {
    const startsName = tokens[index - 1]?.text !== ".";
    return startsName && readName(tokens, index).name === name;
  });
}

function enablesRowSecurity(statement: Statement, name: string): boolean {
  if (!startsWith(statement, "alter", "table")) return false;
  const { name: table, next } = readName(statement.tokens, 2);
  const words = statement.tokens.slice(next, next + 4).map(({ value }) => value.toLowerCase());
  return table === name && words.join(" ") === "enable row level security";
}
