/** `npm run db:down`: ends the Postgres that `npm run db:up` left running. */

import { readArguments } from "./lib/arguments.ts";
import { done, note, runScript } from "./lib/terminal.ts";
import { databaseFolder, stopPostgres } from "./postgres/index.ts";

const help = `
Ends the local Postgres that npm run db:up left running. Its data stays for the next time.

Usage: npm run db:down -- [--delete] [--directory <folder>]

  --delete     throw the data away too
  --directory  the folder given to db:up (default .local/database)
`;

await runScript(help, async (args) => {
  const { values } = readArguments(args, {
    delete: { type: "boolean" },
    directory: { type: "string" },
  });
  const wasRunning = await stopPostgres(values.directory ?? databaseFolder, {
    deleteData: values.delete ?? false,
  });
  if (wasRunning) done("Postgres has ended.");
  else note("No Postgres was running.");
  if (values.delete) done("Its data is deleted.");
});
