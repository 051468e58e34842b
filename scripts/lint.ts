import { describeSteps, runSteps } from "./checks/runner.ts";
import { lintSteps } from "./checks/steps.ts";
import { runScript, UserError } from "./lib/terminal.ts";

const help = `
Looks at what no test does: format, types, what must agree, and what Supabase's linters say.

Usage: npm run lint [-- <step> …]

Steps:
${describeSteps(lintSteps)}
`;

for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

runScript(help, async (names) => {
  const { failed } = await runSteps(lintSteps, names);
  if (failed > 0) throw new UserError(`${failed} of these did not pass.`);
});
