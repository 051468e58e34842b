/** `npm run db:up`: a local Postgres with a hosted project's roles and no migrations, left running. */

import { readArguments } from "./lib/arguments.ts";
import { defaultPorts, freePort, requirePort } from "./lib/ports.ts";
import { runScript, UserError } from "./lib/terminal.ts";
import { clusterAt, databaseFolder, startPostgres } from "./postgres/index.ts";

const help = `
Prepares a local Postgres as a hosted Supabase project has it (roles, schemas, extensions), without
this project's migrations, and leaves it running. Its last two lines are the URLs to connect with.
A second call finds the same database again. End it with: npm run db:down

Usage: npm run db:up -- [--fresh] [--port <port>] [--directory <folder>]

  --fresh      throw away the database that is there
  --port       listen here (default ${defaultPorts.dbUp.port}, or ${defaultPorts.dbUp.variable}, or a free one)
  --directory  keep the data here (default .local/database)

PG_SUBSCRIPTIONS_POSTGRES=system|embedded chooses where the server comes from. DATABASE_URL is not
looked at: this is always a local cluster.
`;

await runScript(help, async (args) => {
  const { values } = readArguments(args, {
    fresh: { type: "boolean" },
    port: { type: "string" },
    directory: { type: "string" },
  });
  const directory = values.directory ?? databaseFolder;
  const running = await clusterAt(directory);
  const port = await choosePort(values.port, running?.port);

  const postgres = await startPostgres({
    directory,
    port,
    fresh: values.fresh ?? false,
    keepRunning: true,
    testTools: true,
  });
  console.log(`postgres:       ${postgres.url}`);
  console.log(`supabase_admin: ${postgres.adminUrl}`);
});

/** A port that was asked for must be free; otherwise the one used last time, the usual one, or any. */
async function choosePort(wanted: string | undefined, last: number | undefined): Promise<number> {
  const explicit = wanted ?? process.env[defaultPorts.dbUp.variable];
  if (explicit !== undefined) {
    const port = Number(explicit);
    if (!Number.isInteger(port) || port < 1 || port > 65_535) {
      throw new UserError(`"${explicit}" is not a port.`);
    }
    return port;
  }
  if (last !== undefined) return last;
  return requirePort("dbUp").catch(() => freePort());
}
