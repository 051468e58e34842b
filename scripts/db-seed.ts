/** `npm run db:seed`: puts the samples into a database. */

import { readArguments } from "./lib/arguments.ts";
import { done, runScript } from "./lib/terminal.ts";
import { seed } from "./postgres/index.ts";

const help = `
Runs supabase/seed.sql, the sample catalog and an application it gates, in a migrated database, in one
transaction.

Usage: npm run db:seed -- <postgres-url>
`;

await runScript(help, async (args) => {
  const { positionals } = readArguments(args, {}, { positionals: ["database URL"] });
  await seed(positionals[0] ?? "");
  done("The sample catalog and application are there.");
});
