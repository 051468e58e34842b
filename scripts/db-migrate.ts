/** `npm run db:migrate`: applies the pending migrations to a database. */

import { readArguments } from "./lib/arguments.ts";
import { done, note, runScript } from "./lib/terminal.ts";
import { migrate } from "./postgres/index.ts";

const help = `
Applies what is pending of supabase/migrations, all or none, to any Postgres that has Supabase's roles.
On a hosted project use the Supabase CLI instead (supabase db push), which keeps its own history.

Usage: npm run db:migrate -- <postgres-url>
`;

await runScript(help, async (args) => {
  const { positionals } = readArguments(args, {}, { positionals: ["database URL"] });
  const applied = await migrate(positionals[0] ?? "");
  for (const name of applied) done(name);
  note(applied.length === 0 ? "Nothing was pending." : `${applied.length} migrations applied.`);
});
