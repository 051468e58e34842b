import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { checkContents } from "./contents.ts";
import { checkDirection } from "./direction.ts";
import { checkErrors } from "./errors.ts";
import type { Finding, SourceFile } from "./sql.ts";
import { checkStyle } from "./style.ts";

export type { Finding, SourceFile } from "./sql.ts";

export const projectRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** What the checks read, as it stands in a folder. */
export interface Sources {
  migrations: SourceFile[];
  functions: SourceFile[];
  readme: SourceFile | undefined;
}

export function readSources(root = projectRoot): Sources {
  const read = (path: string): SourceFile => ({
    path: relative(root, path).replaceAll("\\", "/"),
    text: readFileSync(path, "utf8"),
  });
  const readme = join(root, "README.md");
  return {
    migrations: filesIn(join(root, "supabase/migrations"), ".sql").map(read),
    functions: filesIn(join(root, "supabase/functions"), ".ts")
      .filter((path) => !path.endsWith("error_codes.ts"))
      .map(read),
    readme: existsSync(readme) ? read(readme) : undefined,
  };
}

/** The files of a folder and its folders whose names end so, in order. */
export function filesIn(folder: string, ending: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(ending) && !path.includes("node_modules"))
    .sort()
    .map((path) => join(folder, path));
}

export interface SourceCheck {
  /** What it makes sure of, for --help. */
  about: string;
  check(sources: Sources): Finding[];
}

/** The checks that need no database, by the name they are asked for with. */
export const sourceChecks: Record<string, SourceCheck> = {
  contents: {
    about: "a migration's Contents are its section headings",
    check: ({ migrations }) => checkContents(migrations),
  },
  direction: {
    about: "migrations use only lower-numbered ones, and define each object once",
    check: ({ migrations }) => checkDirection(migrations),
  },
  errors: {
    about: "errors raised, the catalog, Errors lists and README agree",
    check: checkErrors,
  },
  style: {
    about: "what a machine can see of the SQL's style",
    check: ({ migrations }) => checkStyle(migrations),
  },
};

export function describeFinding({ path, line, message }: Finding): string {
  return `${path}:${line}  ${message}`;
}
