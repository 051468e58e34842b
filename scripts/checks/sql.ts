/**
 * Just enough SQL for the checks: a tokenizer that knows comments, quotes and dollar quotes, and
 * what can be said from tokens alone. It is not a parser; Postgres is.
 */

export interface SourceFile {
  /** Relative to the project's root, with forward slashes. */
  path: string;
  text: string;
}

export interface Finding {
  path: string;
  line: number;
  message: string;
}

export type TokenKind = "comment" | "string" | "dollar" | "quoted" | "word" | "number" | "symbol";

export interface Token {
  kind: TokenKind;
  /** As written. */
  text: string;
  /** What a string, a dollar quote or a quoted name holds; else the same as `text`. */
  value: string;
  line: number;
}

export interface Statement {
  line: number;
  lastLine: number;
  /** Without comments. */
  tokens: Token[];
  /** The comments inside the statement and between it and the one before. */
  comments: Token[];
}

const patterns: [TokenKind, RegExp][] = [
  ["comment", /--[^\n]*/y],
  // Literals on successive lines are one literal.
  ["string", /[eE]'(?:[^'\\]|\\[\s\S]|'')*'|[bBxXnN]?'(?:[^']|''|'[ \t]*\n\s*')*'/y],
  ["dollar", /\$([A-Za-z_]\w*)?\$[\s\S]*?\$\1\$/y],
  ["quoted", /"(?:[^"]|"")*"/y],
  ["word", /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y],
  ["number", /\d+(?:\.\d+)?|\$\d+/y],
];

export function tokenize(text: string, firstLine = 1): Token[] {
  const tokens: Token[] = [];
  let line = firstLine;
  let at = 0;
  const take = (kind: TokenKind, raw: string) => {
    tokens.push({ kind, text: raw, value: contentOf(kind, raw), line });
    line += countLines(raw);
    at += raw.length;
  };
  while (at < text.length) {
    const char = text.charAt(at);
    if (/\s/.test(char)) {
      if (char === "\n") line += 1;
      at += 1;
      continue;
    }
    if (text.startsWith("/*", at)) {
      take("comment", blockComment(text, at));
      continue;
    }
    const match = firstMatch(text, at);
    if (match) take(...match);
    else take("symbol", char);
  }
  return tokens;
}

function firstMatch(text: string, at: number): [TokenKind, string] | undefined {
  for (const [kind, pattern] of patterns) {
    pattern.lastIndex = at;
    const match = pattern.exec(text);
    if (match) return [kind, match[0]];
  }
  return undefined;
}

/** Block comments nest in Postgres. */
function blockComment(text: string, start: number): string {
  let depth = 0;
  for (let at = start; at < text.length; at += 1) {
    if (text.startsWith("/*", at)) depth += 1;
    else if (text.startsWith("*/", at)) depth -= 1;
    else continue;
    at += 1;
    if (depth === 0) return text.slice(start, at + 1);
  }
  return text.slice(start);
}

function contentOf(kind: TokenKind, raw: string): string {
  if (kind === "string") {
    const inside = raw.slice(raw.indexOf("'") + 1, -1);
    return inside.replaceAll(/'([ \t]*\n\s*)?'/g, (_, gap) => (gap === undefined ? "'" : ""));
  }
  if (kind === "quoted") return raw.slice(1, -1).replaceAll('""', '"');
  if (kind !== "dollar") return raw;
  const tag = raw.indexOf("$", 1) + 1;
  return raw.slice(tag, -tag);
}

function countLines(text: string): number {
  return text.split("\n").length - 1;
}

/** The statements of a file, split at the semicolons that stand outside `begin atomic … end`. */
export function statementsOf(text: string): Statement[] {
  const found: Statement[] = [];
  let tokens: Token[] = [];
  let comments: Token[] = [];
  let depth = 0;
  const finish = () => {
    const [first] = tokens;
    const last = tokens.at(-1);
    if (first && last) {
      const lastLine = last.line + countLines(last.text);
      found.push({ line: first.line, lastLine, tokens, comments });
      tokens = [];
      comments = [];
    }
    depth = 0;
  };
  for (const token of tokenize(text)) {
    if (token.kind === "comment") {
      comments.push(token);
      continue;
    }
    if (isWord(token, "atomic") && isWord(tokens.at(-1), "begin")) depth = 1;
    else if (depth > 0 && isWord(token, "case")) depth += 1;
    else if (depth > 0 && isWord(token, "end")) depth -= 1;
    if (token.text === ";" && depth === 0) finish();
    else tokens.push(token);
  }
  finish();
  return found;
}

export function isWord(token: Token | undefined, ...words: string[]): boolean {
  return token?.kind === "word" && words.includes(token.value.toLowerCase());
}

/** Whether the statement begins with these words, e.g. `startsWith(s, "create", "table")`. */
export function startsWith(statement: Statement, ...words: string[]): boolean {
  return words.every((word, index) => isWord(statement.tokens[index], word));
}

/**
 * The statement's tokens with the code inside its dollar quotes opened: the body of a function or
 * of a `do` block. `deep` also opens the quotes inside those, which is where dynamic SQL stands.
 */
export function codeOf(statement: Statement, { deep = false } = {}): Token[] {
  if (definedObject(statement)?.kind !== "function" && !startsWith(statement, "do")) {
    return statement.tokens;
  }
  return openDollars(statement.tokens, deep);
}

function openDollars(tokens: Token[], deep: boolean): Token[] {
  return tokens.flatMap((token) => {
    if (token.kind !== "dollar") return [token];
    const inner = tokenize(token.value, token.line).filter(({ kind }) => kind !== "comment");
    return deep ? openDollars(inner, deep) : inner;
  });
}

export type ObjectKind = "table" | "view" | "function" | "type" | "sequence";

export interface DefinedObject {
  kind: ObjectKind;
  /** `schema.name`, or `name` where no schema is written. */
  name: string;
  /** Index of the first token after the name. */
  next: number;
  replaces: boolean;
}

const kinds: Record<string, ObjectKind> = {
  table: "table",
  view: "view",
  function: "function",
  procedure: "function",
  type: "type",
  domain: "type",
  sequence: "sequence",
};

/** What a `create` statement defines, if it is one of the kinds that other code can name. */
export function definedObject({ tokens }: Statement): DefinedObject | undefined {
  if (!isWord(tokens[0], "create")) return undefined;
  let at = 1;
  const replaces = isWord(tokens[1], "or") && isWord(tokens[2], "replace");
  if (replaces) at = 3;
  while (isWord(tokens[at], "unlogged", "materialized", "recursive", "temporary", "temp")) at += 1;
  const kind = kinds[tokens[at]?.value.toLowerCase() ?? ""];
  if (!kind) return undefined;
  at += 1;
  if (isWord(tokens[at], "if")) at += 3;
  const { name, next } = readName(tokens, at);
  return { kind, name, next, replaces };
}

/** Reads `a` or `a.b` at a position. */
export function readName(tokens: Token[], at: number): { name: string; next: number } {
  const first = tokens[at]?.value ?? "";
  if (tokens[at + 1]?.text !== ".") return { name: first, next: at + 1 };
  return { name: `${first}.${tokens[at + 2]?.value ?? ""}`, next: at + 3 };
}

/** The index of the parenthesis that closes the one at `open`. */
export function closingParenthesis(tokens: Token[], open: number): number {
  let depth = 0;
  for (let at = open; at < tokens.length; at += 1) {
    if (tokens[at]?.text === "(") depth += 1;
    else if (tokens[at]?.text === ")") depth -= 1;
    if (depth === 0) return at;
  }
  return tokens.length;
}

export interface Section {
  line: number;
  number: string;
  name: string;
}

const headingLine = /^-- (\d+(?:\.\d+)*) {2}(\S.*?)\s*$/;
const rule = /^-- -{10,}$/;

/** The section headings of a migration: a numbered line between two rules. */
export function sectionsOf(text: string): Section[] {
  const lines = text.split("\n");
  return lines.flatMap((line, index) => {
    const match = headingLine.exec(line);
    if (!match || !rule.test(lines[index - 1] ?? "") || !rule.test(lines[index + 1] ?? "")) {
      return [];
    }
    return [{ line: index + 1, number: match[1] ?? "", name: match[2] ?? "" }];
  });
}

/** The last line of the section that a line stands in. */
export function endOfSection(text: string, line: number): number {
  const next = sectionsOf(text).find((section) => section.line > line);
  return next ? next.line - 1 : text.split("\n").length;
}
