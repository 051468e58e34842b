import { join } from "node:path";
import { run } from "../lib/processes.ts";
import { projectRoot } from "./index.ts";
import type { Outcome } from "./outcome.ts";
import type { TestCluster } from "./test-cluster.ts";

/** Runs pgTAP files, each in one transaction that it rolls back, against the migrated database. */
export async function runPgTap({ url, binDir }: TestCluster, files: string[]): Promise<Outcome> {
  const { hostname, port, username, password, pathname } = new URL(url);
  const { code, stdout, stderr } = await run(
    "pg_prove",
    ["--norc", "--verbose", "--psql-bin", join(binDir, "psql"), ...files],
    {
      cwd: projectRoot,
      env: {
        ...process.env,
        PGHOST: hostname,
        PGPORT: port,
        PGUSER: username,
        PGPASSWORD: password,
        PGDATABASE: pathname.slice(1),
      },
    },
  );
  if (code === 127)
    throw new Error("pg_prove is not installed; Debian has it in pgtap's packages.");
  return readTap(stdout, stderr, code);
}

interface TapFile {
  path: string;
  planned: number;
  passed: number;
  failed: number;
  skipped: number;
  problems: string[];
  /** What the harness says of a file that did not end well. */
  verdict: string;
}

/** Counts what `pg_prove --verbose` printed. A planned test that never ran has failed. */
export function readTap(stdout: string, stderr: string, code: number): Outcome {
  const files: TapFile[] = [];
  for (const line of stdout.split("\n")) {
    if (line.startsWith("Test Summary Report")) break;
    const [, path] = /^(\S+\.sql) \.+ *$/.exec(line) ?? [];
    if (path !== undefined) {
      files.push({ path, planned: 0, passed: 0, failed: 0, skipped: 0, problems: [], verdict: "" });
    }
    const file = files.at(-1);
    if (file) readLine(file, line);
  }
  const problems = files.flatMap((file) => problemsOf(file, stderr));
  const total = (read: (file: TapFile) => number) =>
    files.reduce((sum, file) => sum + read(file), 0);
  const failed = total((file) => file.failed + lost(file));
  // Nothing but the exit status tells of some failures, such as a file that could not be read.
  const unexplained = code !== 0 && failed === 0;
  return {
    passed: total((file) => file.passed),
    failed: unexplained ? 1 : failed,
    skipped: total((file) => file.skipped),
    problems: unexplained ? [...problems, `${stdout}\n${stderr}`.trim()] : problems,
    remark: `${files.length} files`,
  };
}

function readLine(file: TapFile, line: string): void {
  const plan = /^1\.\.(\d+)/.exec(line);
  const test = /^(not )?ok \d+(.*)$/.exec(line);
  const diagnosis = /^# {2,}(.*)$/.exec(line);
  if (plan) file.planned = Number(plan[1]);
  else if (test && /# SKIP\b/i.test(line)) file.skipped += 1;
  else if (test && (test[1] === undefined || /# TODO\b/i.test(line))) file.passed += 1;
  else if (test) {
    file.failed += 1;
    file.problems.push(`${file.path}:${test[2]?.replace(/^ - /, " ")}`);
  } else if (diagnosis?.[1] !== undefined && file.problems.length > 0) {
    file.problems.push(`    ${diagnosis[1].trimEnd()}`);
  } else if (/^(Dubious|No subtests run|Parse errors)/.test(line)) {
    file.verdict = line;
  }
}

function lost({ planned, passed, failed, skipped, verdict }: TapFile): number {
  const missing = Math.max(0, planned - passed - failed - skipped);
  return missing === 0 && failed === 0 && verdict !== "" ? 1 : missing;
}

/** The problems of a file, with what psql said of it when it broke off. */
function problemsOf(file: TapFile, stderr: string): string[] {
  const count = lost(file);
  if (count === 0) return file.problems;
  const said = stderr.split("\n");
  const start = said.findIndex((line) => line.startsWith(`psql:`) && line.includes(file.path));
  const words = start === -1 ? file.verdict : said.slice(start, start + 6).join("\n    ");
  return [...file.problems, `${file.path}: broke off, ${count} tests lost\n    ${words}`];
}
