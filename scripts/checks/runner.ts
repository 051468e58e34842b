import { dim, done, failed, note, UserError, warn } from "../lib/terminal.ts";
import type { Outcome } from "./outcome.ts";
import { startMigratedCluster, type Step } from "./steps.ts";
import type { TestCluster } from "./test-cluster.ts";

export interface Selected {
  step: Step;
  files: string[];
}

/**
 * Runs the steps that the filters select, goes on after a failing one, and returns the sum. A filter
 * is a step's name or part of a test file's path.
 */
export async function runSteps(steps: Step[], filters: string[]): Promise<Outcome> {
  const selected = selectSteps(steps, filters);
  let starting: Promise<TestCluster> | undefined;
  const cluster = () => (starting ??= startMigratedCluster());
  // It starts while the first steps, which do not need it, run; whoever awaits it meets its failure.
  const ahead = filters.length === 0 && selected.some(({ step }) => step.needsDatabase);
  if (ahead) cluster().catch(() => {});

  const total: Outcome = { passed: 0, failed: 0, skipped: 0, problems: [] };
  try {
    for (const { step, files } of selected) {
      const outcome = await timed(step, files, cluster);
      total.passed += outcome.passed;
      total.failed += outcome.failed;
      total.skipped += outcome.skipped;
      total.problems.push(...outcome.problems);
    }
  } finally {
    await (await starting?.catch(() => undefined))?.stop();
  }
  return total;
}

/** How the steps can be asked for, for --help. */
export function describeSteps(steps: Step[]): string {
  return steps.map(({ name, about }) => `  ${name.padEnd(12)}${about}`).join("\n");
}

export function selectSteps(steps: Step[], filters: string[]): Selected[] {
  const selected = steps.flatMap((step): Selected[] => {
    const { name, files = [] } = step;
    if (filters.length === 0 || filters.includes(name)) {
      return step.files && files.length === 0 ? [] : [{ step, files }];
    }
    const asked = files.filter((file) => filters.some((filter) => file.includes(filter)));
    return asked.length > 0 ? [{ step, files: asked }] : [];
  });
  for (const filter of filters) {
    const found = selected.some(
      ({ step, files }) => step.name === filter || files.some((file) => file.includes(filter)),
    );
    if (!found)
      throw new UserError(`No step is called, and no test file's path contains, "${filter}".`);
  }
  return selected;
}

async function timed(
  step: Step,
  files: string[],
  cluster: () => Promise<TestCluster>,
): Promise<Outcome> {
  const begun = Date.now();
  if (files.length > 0) note(`${step.name}: ${files.length} files …`);
  const outcome = await step.run(cluster, files).catch((error: unknown): Outcome => ({
    passed: 0,
    failed: 1,
    skipped: 0,
    problems: [error instanceof Error ? error.message : String(error)],
  }));
  report(step.name, outcome, (Date.now() - begun) / 1000);
  return outcome;
}

function report(name: string, outcome: Outcome, seconds: number): void {
  const { passed, skipped, problems, remark } = outcome;
  const counts = [
    `${passed} passed`,
    ...(outcome.failed > 0 ? [`${outcome.failed} failed`] : []),
    ...(skipped > 0 ? [`${skipped} skipped`] : []),
    ...(remark === undefined ? [] : [remark]),
  ];
  const line = `${name.padEnd(12)}${counts.join(", ")} ${dim(`${seconds.toFixed(1)} s`)}`;
  if (outcome.failed > 0) {
    failed(line);
    for (const problem of problems) console.error(`    ${problem.replaceAll("\n", "\n    ")}`);
  } else if (passed === 0) {
    warn(line);
  } else {
    done(line);
  }
}
