import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { Client } from "pg";
import { format, resolveConfig, type BuiltInParserName } from "prettier";
import { projectRoot, readSources } from "./index.ts";
import { renderReadme } from "./readme.ts";
import { supabase } from "./supabase-cli.ts";

export interface GeneratedFile {
  /** Relative to the project's root. */
  path: string;
  text: string;
}

const exposedSchemas = ["billing", "billing_admin"];

/** Everything in the project that is written from a migrated database rather than by hand. */
export async function generatedFiles(url: string): Promise<GeneratedFile[]> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    const { migrations, readme } = readSources();
    return [
      { path: "types/database.ts", text: await databaseTypes(url) },
      { path: "supabase/functions/_shared/error_codes.ts", text: await errorCodes(client) },
      ...(readme
        ? [{ path: readme.path, text: await renderReadme(client, migrations, readme) }]
        : []),
    ];
  } finally {
    await client.end();
  }
}

async function databaseTypes(url: string): Promise<string> {
  const { code, stdout, stderr } = await supabase([
    ...["gen", "types", `--remote=${url}`, "--schema", exposedSchemas.join()],
  ]);
  if (code !== 0 || !stdout.includes("export type Database")) {
    throw new Error(`supabase gen types failed: ${(stderr || stdout).trim()}`);
  }
  return formatted(
    "types/database.ts",
    `// Written by \`npm run types\` from the migrated database.\n${stdout}`,
  );
}

async function errorCodes(client: Client): Promise<string> {
  const { rows } = await client.query<{ code: string; status: number; message: string }>(
    'select code, status, message from billing.error_codes order by code collate "C"',
  );
  const entries = rows.map(
    ({ code, status, message }) =>
      `${code}: { status: ${status}, message: ${JSON.stringify(message)} },`,
  );
  return formatted(
    "supabase/functions/_shared/error_codes.ts",
    `// Written by \`npm run types\` from billing.error_codes.

export const errorCodes = {
${entries.join("\n")}
} as const;

export type ErrorCode = keyof typeof errorCodes;
`,
  );
}

async function formatted(path: string, text: string): Promise<string> {
  const parser: BuiltInParserName = "typescript";
  return format(text, { ...(await resolveConfig(join(projectRoot, path))), parser });
}

/** The files among these that differ from what stands in the project. */
export function changedFiles(files: GeneratedFile[]): GeneratedFile[] {
  return files.filter(({ path, text }) => {
    const file = join(projectRoot, path);
    return !existsSync(file) || readFileSync(file, "utf8") !== text;
  });
}

export function writeFiles(files: GeneratedFile[]): void {
  for (const { path, text } of files) {
    const file = join(projectRoot, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, text);
  }
}
