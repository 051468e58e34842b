import { describeSteps, runSteps } from "./checks/runner.ts";
import { testSteps } from "./checks/steps.ts";
import { note, runScript } from "./lib/terminal.ts";

const help = `
Runs everything that can be proven on this machine, in a throw-away Postgres of its own.

Usage: npm test [-- <filter> …]

A filter is the name of a step, or part of the path of a test file; only what matches runs:

  npm test -- pgtap
  npm test -- 0003_business_functions/consume races

Steps:
${describeSteps(testSteps)}

The last line is the sum: each pgTAP and vitest test counts as one, and so does every other step.
`;

// Without this the process would end at once, and its Postgres would stay behind.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

runScript(help, async (filters) => {
  const { passed, failed, skipped } = await runSteps(testSteps, filters);
  if (failed > 0) process.exitCode = 1;
  if (skipped > 0) note(`${skipped} skipped: what they need is not on this machine.`);
  console.log(`\n${passed} passed, ${failed} failed`);
});
