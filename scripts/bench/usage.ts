/** Counting usage, beside plain statements on tables as large: a million rows, the same indexes. */

import type { Load } from "./pgbench.ts";
import type { Sample, Scenario } from "./scenarios.ts";

/** Accounts in no order that a page or a cache could follow. */
const someone = "bench.account((:n::bigint * 7919) % 1000000 + 1)";
const hot = "'00000000-0000-0000-0000-0000000003e8'";
const batch = 1_000;

interface Compared {
  group: string;
  connections: number[];
  /** The first is what the others are compared with. */
  statements: [name: string, statement: string][];
  /** What one statement counts as. */
  rows?: number;
}

const plainUpdate = (account: string) => `
  update bench.plain_totals set used = used + 1
  where account_id = ${account} and feature_key = 'bench_exports'
    and period_start = '2020-01-01Z'`;

const given = (key: string) => `
  replace(records, 'KEY', ${key})::jsonb from bench.batches where n = :n::bigint % 100`;

const compared: Compared[] = [
  {
    group: "Counting a unit, of many accounts",
    connections: [1, 8],
    statements: [
      ["plain statement", plainUpdate(someone)],
      ["consume()", `select billing.consume('bench_exports', 1, ${someone})`],
      [
        "consume() with a key",
        `select billing.consume('bench_exports', 1, ${someone}, 'k' || :n::bigint || clock_timestamp())`,
      ],
      ["consume() of what is held", `select billing.consume('bench_seats', 1, ${someone})`],
    ],
  },
  {
    group: "Counting a unit, of one account",
    connections: [8],
    statements: [
      ["plain statement", plainUpdate(hot)],
      ["consume()", `select billing.consume('bench_exports', 1, ${hot})`],
      ["consume() of what is held", `select billing.consume('bench_seats', 1, ${hot})`],
    ],
  },
  {
    group: "Recording a thousand at a time (rows/s)",
    connections: [1, 4],
    rows: batch,
    statements: [
      [
        "plain statement",
        `insert into bench.plain_records (account_id, idempotency_key, recorded_month, feature_key,
          quantity, occurred_at, recorded_at, period_start)
        select bench.account((i * 7919 + :n::bigint * 104729) % 1000000 + 1),
          gen_random_uuid()::text, date_trunc('month', now()), 'bench_exports', 1, now(), now(),
          '2020-01-01Z'
        from generate_series(1, ${batch}) as i`,
      ],
      [
        "plain statement, from the same JSON",
        `insert into bench.plain_records (account_id, idempotency_key, recorded_month, feature_key,
          quantity, occurred_at, recorded_at, period_start)
        select account_id, idempotency_key, date_trunc('month', now()), feature, 1, now(), now(),
          '2020-01-01Z'
        from jsonb_to_recordset((select ${given("gen_random_uuid()::text")}))
          as listed (account_id uuid, idempotency_key text, feature text)`,
      ],
      [
        "record_usage_batch()",
        `select count(*) from billing.record_usage_batch((select ${given("gen_random_uuid()::text")}))`,
      ],
      [
        "record_usage_batch(), told again",
        `select count(*) from billing.record_usage_batch((select ${given("'again'")}))`,
      ],
    ],
  },
];

export function usage(seconds: number): Scenario {
  return {
    key: "usage",
    title: "Usage",
    baseline: "plain statement",
    async round({ pgbench }) {
      const samples: Sample[] = [];
      for (const { group, connections, statements, rows = 1 } of compared) {
        for (const count of connections) {
          for (const [name, statement] of statements) {
            const load: Load = {
              statement: statement.replaceAll(/\s+/g, " ").trim(),
              role: "service_role",
              connections: count,
              length: { seconds },
            };
            const perSecond = rows * (await pgbench.run(load));
            samples.push({ group, name, connections: count, perSecond });
          }
        }
      }
      return samples;
    },
  };
}
