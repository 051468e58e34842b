/** Taking in Stripe's events, beside the mirror that Supabase publishes, on the same events in the same minute. */

import { UserError } from "../lib/terminal.ts";
import type { BenchDatabase } from "./database.ts";
import { contenderNames, type ContenderKey } from "./contenders.ts";
import type { LifeTemplates } from "./events.ts";
import type { Sample, Scenario } from "./scenarios.ts";

/** Customers of whom nothing has been told yet; each lives one life. */
const firstCustomer = 100_001;
const lastCustomer = 160_000;

const contenders = Object.keys(contenderNames) as ContenderKey[];

let next = firstCustomer;

interface Stream {
  key: string;
  title: string;
  /** What each contender is told of subscriber `n`; all of them are told the same. */
  events(templates: LifeTemplates, n: number): string[];
}

/** Each goes on where the one before it ended. */
const streams: Stream[] = [
  {
    key: "mixed",
    title: "Ingesting subscribers' lives: all kinds of events, in their order",
    events: ({ life, catalog }, n) => [
      ...life.map((event) => event.replaceAll("{n}", String(n))),
      // The catalog changes far less often than what is sold from it.
      ...(n % 10 === 0 ? catalog : []).map((event) => ofCatalog(event, n)),
    ],
  },
  {
    key: "updates",
    title: "Ingesting updates of their subscriptions",
    events: ({ updates }, n) => updates.map((event) => event.replaceAll("{n}", String(n))),
  },
  {
    key: "again",
    title: "The same updates delivered again",
    events: ({ updates }, n) => updates.map((event) => event.replaceAll("{n}", String(n))),
  },
];

function ofCatalog(event: string, n: number): string {
  const created = Math.floor(Date.now() / 1_000) - lastCustomer + n;
  return event.replaceAll("{n}", String(n)).replace("{t}", String(created));
}

export function ingest(seconds: number): Scenario {
  return {
    key: "ingest",
    title: "Ingesting Stripe's events",
    baseline: contenderNames.peer,
    async round(database) {
      const samples: Sample[] = [];
      for (const connections of [1, 4, 8]) {
        const lives = Math.max(8, Math.round(seconds * (connections === 1 ? 30 : 60)));
        // One by one and in batches, the same tables are written: others of the same kind for each.
        const numbers = customers(lives);
        const others = customers(lives);
        for (const stream of streams) {
          for (const contender of contenders) {
            const tell = (n: number) => stream.events(database.templates, n);
            const warmUp = customers(2 * connections).map((n) =>
              streams.flatMap(({ events }) => events(database.templates, n)),
            );
            const told = (contender === "batched" ? others : numbers).map(tell);
            samples.push(await measure(database, stream, contender, connections, warmUp, told));
          }
        }
        await database.withAdmin((client) => client.query("truncate bench.raw_events"));
      }
      return samples;
    },
  };
}

function customers(count: number): number[] {
  const first = next;
  next += count;
  if (next > lastCustomer) {
    throw new UserError("There are no customers left to tell of: ask for less.");
  }
  return Array.from({ length: count }, (_, index) => first + index);
}

async function measure(
  { workers, ownerUrl, serviceUrl, withAdmin }: BenchDatabase,
  stream: Stream,
  contender: ContenderKey,
  connections: number,
  warmUp: string[][],
  lives: string[][],
): Promise<Sample> {
  return withAdmin(async (client) => {
    const written = async () => {
      const { rows } = await client.query("select pg_current_wal_insert_lsn() - '0/0' as bytes");
      return Number(rows[0].bytes);
    };
    let before = NaN;
    const result = await workers.run({
      contender,
      ownerUrl,
      serviceUrl,
      connections,
      warmUp,
      lives,
      onStart: async () => {
        before = await written();
      },
    });
    return {
      group: stream.title,
      name: contenderNames[contender],
      connections,
      perSecond: result.perSecond,
      details: {
        "p99 ms": result.p99,
        "WAL bytes": ((await written()) - before) / result.events,
        "server ms": result.serverCpu,
        "client ms": result.clientCpu,
      },
    };
  });
}
