/** `npm run db:seed`: puts the sample catalog into a database. */

import { readArguments } from "./lib/arguments.ts";
import { done, runScript } from "./lib/terminal.ts";
import { seed } from "./postgres/index.ts";

const help = `
Runs supabase/seed.sql, the sample catalog, in a migrated database. It is one transaction.

Usage: npm run db:seed -- <postgres-url>
`;

await runScript(help, async (args) => {
  const { positionals } = readArguments(args, {}, { positionals: ["database URL"] });
  await seed(positionals[0] ?? "");
  done("The sample catalog is there.");
});
