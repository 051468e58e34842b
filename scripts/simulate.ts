import { createTestDatabase } from "../supabase/tests/support/database.ts";
import type { SharedCluster } from "../supabase/tests/support/cluster.ts";
import { prepareTemplate, startTestCluster, throwAwayFolder } from "./checks/test-cluster.ts";
import { readArguments } from "./lib/arguments.ts";
import {
  dim,
  done,
  failed,
  heading,
  note,
  progress,
  runScript,
  UserError,
} from "./lib/terminal.ts";
import { checkCases, type Case, type Failure } from "./simulate/convergence.ts";
import { openWorld } from "./simulate/world.ts";

const help = `
Tells random lives of Stripe customers to the database in every disorder, and compares.

Each case is one life (bought, tried, renewed, owed, changed, refunded, disputed, deleted …) whose events come
in some order, some twice, some never, in old and new API versions, over many connections at once, with
backends that are killed and with Stripe asked in between. What is stored has to be what an orderly delivery
stores, and to say how the life ended.

Usage: npm run simulate -- convergence [--cases 10000] [--seed <number>] [--connections 8]
       npm run simulate -- convergence --seed <number> --case <number> [--repeat 1]

Options:
  --cases        how many
  --seed         the same seed tells the same lives; a random one is chosen and printed
  --connections  how many deliver at the same time
  --case         this case of the seed alone
  --repeat       tell it so often, with other luck each time: when answers come, which connection is faster
`;

/** Cases that share a database. */
const chunk = 160;

/** Failures that are shown as soon as they are found; the others are counted. */
const shown = 10;

// Without this the process would end at once, and its Postgres would stay behind.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

runScript(help, async (args) => {
  const { values, positionals } = readArguments(
    args,
    {
      cases: { type: "string", default: "10000" },
      seed: { type: "string", default: String(Math.floor(Math.random() * 1_000_000)) },
      connections: { type: "string", default: "8" },
      case: { type: "string" },
      repeat: { type: "string", default: "1" },
    },
    { positionals: ["simulation"] },
  );
  if (positionals[0] !== "convergence") {
    throw new UserError(`There is no simulation ${positionals[0]}. See --help.`);
  }
  const seed = whole("--seed", values.seed, 0);
  const connections = whole("--connections", values.connections, 1);
  const chunks =
    values.case === undefined
      ? inChunks(seed, whole("--cases", values.cases, 1))
      : Array.from({ length: whole("--repeat", values.repeat, 1) }, (_, luck) => [
          { seed, number: whole("--case", values.case!, 0), luck },
        ]);

  note(`Seed ${seed}. Starting Postgres …`);
  const cluster = await startTestCluster(await throwAwayFolder("simulate"));
  try {
    await prepareTemplate(cluster);
    const failures = await runChunks(cluster, chunks, connections);
    report(failures, chunks.flat().length);
  } finally {
    await cluster.stop();
  }
});

function whole(option: string, given: string, least: number): number {
  const number = Number(given);
  if (Number.isSafeInteger(number) && number >= least) return number;
  throw new UserError(`${option} takes a whole number from ${least} on, not ${given}.`);
}

function inChunks(seed: number, cases: number): Case[][] {
  const all = Array.from({ length: cases }, (_, number) => ({ seed, number }));
  return Array.from({ length: Math.ceil(cases / chunk) }, (_, place) =>
    all.slice(place * chunk, (place + 1) * chunk),
  );
}

async function runChunks(
  cluster: SharedCluster,
  chunks: Case[][],
  connections: number,
): Promise<Failure[]> {
  const bar = progress("Cases", chunks.flat().length);
  const failures: Failure[] = [];
  let told = 0;
  bar.at(0);
  for (const cases of chunks) {
    const database = await createTestDatabase(cluster);
    try {
      const found = await checkCases(await openWorld(database, connections), cases);
      for (const failure of found.slice(0, Math.max(0, shown - failures.length))) show(failure);
      failures.push(...found);
    } finally {
      await database.drop();
    }
    told += cases.length;
    bar.at(told, failures.length === 0 ? "" : `${failures.length} failed`);
  }
  bar.end();
  return failures;
}

function show(failure: Failure): void {
  const { seed, number } = failure.case;
  heading(`Case ${number} of seed ${seed}: ${JSON.stringify(failure.disturbance)}`);
  for (const difference of failure.differences) console.log(difference);
  for (const line of failure.inbox) console.log(dim(line));
  note(`Again: npm run simulate -- convergence --seed ${seed} --case ${number} --repeat 20`);
}

function report(failures: Failure[], cases: number): void {
  if (failures.length === 0) {
    done(`${cases} cases ended in the rows of an orderly delivery.`);
    return;
  }
  failed(`${failures.length} of ${cases} cases ended in other rows than an orderly delivery.`);
  process.exitCode = 1;
}
