import { mkdtempSync, readFileSync, rmSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { run } from "../lib/processes.ts";
import { projectRoot } from "./index.ts";
import type { Outcome } from "./outcome.ts";

/** The part of vitest's JSON report that is read here. */
export interface VitestReport {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  testResults: {
    name: string;
    status: string;
    message: string;
    assertionResults: { fullName: string; status: string; failureMessages: string[] }[];
  }[];
}

/** Runs vitest over these files, with what the tests need to know in the environment. */
export async function runVitest(
  files: string[],
  environment: Record<string, string>,
): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), "pg-subscriptions-vitest-"));
  try {
    const report = join(folder, "report.json");
    const script = join(projectRoot, "node_modules/vitest/vitest.mjs");
    const { code, stdout, stderr } = await run(
      process.execPath,
      [script, "run", ...files, "--reporter=json", `--outputFile=${report}`],
      { cwd: projectRoot, env: { ...process.env, ...environment, NO_COLOR: "1" } },
    );
    const said = `${stdout}\n${stderr}`.trim();
    if (!existsSync(report)) throw new Error(`vitest gave no report:\n${said}`);
    return readReport(JSON.parse(readFileSync(report, "utf8")) as VitestReport, code, said);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A file that could not be loaded counts as one failed test; so does an error outside all tests. */
export function readReport(report: VitestReport, code: number, said: string): Outcome {
  const files = report.testResults;
  const broken = files.filter(
    ({ status, assertionResults }) =>
      status === "failed" && assertionResults.every((test) => test.status !== "failed"),
  );
  const failed = report.numFailedTests + broken.length;
  const unexplained = code !== 0 && failed === 0;
  return {
    passed: report.numPassedTests,
    failed: unexplained ? 1 : failed,
    skipped: report.numPendingTests + report.numTodoTests,
    problems: [
      ...files.flatMap(failuresIn),
      ...broken.map(({ name, message }) => `${inProject(name)}: ${message}`),
      ...(unexplained ? [said] : []),
    ],
    remark: `${files.length} files`,
  };
}

function failuresIn({ name, assertionResults }: VitestReport["testResults"][number]): string[] {
  return assertionResults
    .filter(({ status }) => status === "failed")
    .map(
      ({ fullName, failureMessages }) =>
        `${inProject(name)}: ${fullName.trim()}\n    ${failureMessages.join("\n").replaceAll("\n", "\n    ")}`,
    );
}

function inProject(path: string): string {
  return relative(projectRoot, path);
}
