import { isCatalog } from "./errors.ts";
import {
  closingParenthesis,
  codeOf,
  definedObject,
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

const schemas = ["billing", "billing_admin", "billing_private"];

interface Definition extends DefinedObject {
  path: string;
  line: number;
  /** For a function, with its arguments as written, so that overloads differ. */
  signature: string;
}

/**
 * A migration uses only what lower-numbered ones created, function bodies and the text of dynamic
 * SQL included, and every object has one definition.
 */
export function checkDirection(files: SourceFile[]): Finding[] {
  const inOrder = [...files].sort((one, other) => (one.path < other.path ? -1 : 1));
  const parsed = inOrder.map((file) => ({ ...file, statements: statementsOf(file.text) }));
  const definitions = parsed.flatMap(({ path, statements }) => definitionsIn(path, statements));
  const firstDefinedIn = new Map<string, string>();
  for (const { name, path } of definitions) {
    if (!firstDefinedIn.has(name)) firstDefinedIn.set(name, path);
  }
  return [
    ...secondDefinitions(definitions),
    ...parsed.flatMap(({ path, statements }) => [
      ...statements.flatMap((statement) => upwardReferences(path, statement, firstDefinedIn)),
      ...statements.flatMap((statement) => redefinitions(path, statement)),
      ...statements.flatMap((statement) => foreignColumns(path, statement, firstDefinedIn)),
    ]),
  ];
}

function definitionsIn(path: string, statements: Statement[]): Definition[] {
  return statements.flatMap((statement) => {
    const object = definedObject(statement);
    if (!object) return [];
    const signature = `${object.kind} ${object.name}${argumentsOf(statement, object)}`;
    return [{ ...object, path, line: statement.line, signature }];
  });
}

/** Argument names and types as one text; defaults are no part of a signature. */
function argumentsOf({ tokens }: Statement, { kind, next }: DefinedObject): string {
  if (kind !== "function") return "";
  const end = closingParenthesis(tokens, next);
  let inDefault = false;
  let depth = 0;
  const kept = tokens.slice(next + 1, end).filter((token) => {
    if (token.text === "(") depth += 1;
    if (token.text === ")") depth -= 1;
    if (isWord(token, "default")) inDefault = true;
    if (token.text === "," && depth === 0) inDefault = false;
    return !inDefault;
  });
  return `(${kept.map(({ text }) => text).join(" ")})`;
}

function secondDefinitions(definitions: Definition[]): Finding[] {
  const seen = new Map<string, Definition>();
  return definitions.flatMap((definition) => {
    const { path, line, signature } = definition;
    const first = seen.get(signature);
    seen.set(signature, first ?? definition);
    if (!first) return [];
    return [
      { path, line, message: `${signature} is already defined at ${first.path}:${first.line}` },
    ];
  });
}

function upwardReferences(
  path: string,
  statement: Statement,
  firstDefinedIn: Map<string, string>,
): Finding[] {
  // Words for people may look up: "written only by billing_private.add_usage()", or an error's hint.
  if (startsWith(statement, "comment", "on") || isCatalog(statement)) return [];
  const reported = new Set<string>();
  return references(codeOf(statement, { deep: true })).flatMap(({ name, line }) => {
    const home = firstDefinedIn.get(name);
    if (home === undefined || home <= path || reported.has(name)) return [];
    reported.add(name);
    return [{ path, line, message: `${name} is created later, in ${home}` }];
  });
}

function references(tokens: Token[]): { name: string; line: number }[] {
  return tokens.flatMap((token, index) => {
    if (token.kind === "string" || token.kind === "dollar") return namesInText(token);
    if (!isWord(token, ...schemas) || tokens[index - 1]?.text === ".") return [];
    return tokens[index + 1]?.text === "."
      ? [{ name: readName(tokens, index).name, line: token.line }]
      : [];
  });
}

function namesInText({ value, line }: Token): { name: string; line: number }[] {
  return [...value.matchAll(/\bbilling(?:_admin|_private)?\.\w+/g)].map((match) => ({
    name: match[0],
    line: line + value.slice(0, match.index).split("\n").length - 1,
  }));
}

function redefinitions(path: string, statement: Statement): Finding[] {
  const { line } = statement;
  const object = definedObject(statement);
  if (object?.replaces || startsWith(statement, "create", "or", "replace")) {
    return [
      { path, line, message: "create or replace hides a second definition; use plain create" },
    ];
  }
  if (startsWith(statement, "alter", "function") || startsWith(statement, "alter", "procedure")) {
    return [{ path, line, message: "alter function: say it in the function's one definition" }];
  }
  const [, what] = statement.tokens;
  if (startsWith(statement, "drop") && isWord(what, "function", "table", "view", "type")) {
    return [{ path, line, message: `drop ${what?.value}: edit its one definition instead` }];
  }
  return [];
}

/** A later layer may watch a table, never change its columns. */
function foreignColumns(
  path: string,
  statement: Statement,
  firstDefinedIn: Map<string, string>,
): Finding[] {
  if (!startsWith(statement, "alter", "table")) return [];
  const { name } = readName(statement.tokens, 2);
  const home = firstDefinedIn.get(name);
  if (home === undefined || home === path) return [];
  const { tokens } = statement;
  const changes = tokens.some(
    (token, index) =>
      isWord(token, "add", "drop", "alter", "rename") && isWord(tokens[index + 1], "column"),
  );
  if (!changes) return [];
  return [
    { path, line: statement.line, message: `changes the columns of ${name}, which is ${home}'s` },
  ];
}
