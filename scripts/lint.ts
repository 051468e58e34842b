import { describeFinding, readSources, sourceChecks } from "./checks/index.ts";
import { done, failed, runScript, UserError } from "./lib/terminal.ts";

const help = `
Compares and lints what no compiler looks at.

Usage: npm run lint [-- <check> …]

Checks: ${Object.keys(sourceChecks).join(", ")}. All of them run where none is named.
`;

runScript(help, async (args) => {
  const unknown = args.filter((name) => !(name in sourceChecks));
  if (unknown.length > 0) throw new UserError(`There is no check "${unknown.join(", ")}".`);
  const sources = readSources();
  let total = 0;
  for (const [name, check] of Object.entries(sourceChecks)) {
    if (args.length > 0 && !args.includes(name)) continue;
    const findings = check(sources);
    total += findings.length;
    if (findings.length === 0) done(name);
    for (const finding of findings) failed(describeFinding(finding));
  }
  if (total > 0) throw new UserError(`${total} findings`);
});
