import { changedFiles, generatedFiles, writeFiles } from "./checks/generated.ts";
import {
  inDatabase,
  prepareTemplate,
  startTestCluster,
  templateName,
  throwAwayFolder,
} from "./checks/test-cluster.ts";
import { done, note, runScript, UserError } from "./lib/terminal.ts";

const help = `
Writes what is generated from the database: types/database.ts, the functions' error codes, and the
tables in README.md that stand between <!-- begin … --> and <!-- end … -->.

Usage: npm run types [-- --check] [-- <postgres-url>]

  <postgres-url>  a migrated database to read; without it, a throw-away one is made
  --check         write nothing; fail if a file would change
`;

runScript(help, async (args) => {
  const unknown = args.filter((arg) => arg.startsWith("-") && arg !== "--check");
  if (unknown.length > 0) throw new UserError(`There is no option ${unknown.join(", ")}.`);
  const [url] = args.filter((arg) => !arg.startsWith("-"));
  const files = url ? await generatedFiles(url) : await generatedFromThrowAway();
  const changed = changedFiles(files);
  if (changed.length === 0) {
    done("Everything generated is up to date.");
  } else if (args.includes("--check")) {
    const names = changed.map(({ path }) => path).join(", ");
    throw new UserError(`Out of date: ${names}. Run \`npm run types\`.`);
  } else {
    writeFiles(changed);
    for (const { path } of changed) done(`wrote ${path}`);
  }
});

async function generatedFromThrowAway() {
  note("Making a throw-away database …");
  const cluster = await startTestCluster(await throwAwayFolder("types"));
  try {
    await prepareTemplate(cluster);
    return await generatedFiles(inDatabase(cluster.url, templateName));
  } finally {
    await cluster.stop();
  }
}
