/** What is measured against what. Only ratios are of use: a machine's speed drifts, and differs from others. */

import { performance } from "node:perf_hooks";
import type { Client } from "pg";
import type { BenchDatabase } from "./database.ts";
import { dispatch } from "./dispatch.ts";
import { ingest } from "./ingest.ts";
import type { Load } from "./pgbench.ts";
import { usage } from "./usage.ts";

/** One figure of one round. */
export interface Sample {
  /** Samples are compared within their group; a scenario may have several, each a table. */
  group?: string;
  name: string;
  connections: number;
  perSecond: number;
  /** What else was measured. */
  details?: Record<string, number>;
}

/** Measurements whose figures are compared with one of them, the baseline, within each round. */
export interface Scenario {
  key: string;
  /** Scenarios of a topic can be asked for together. */
  topic?: string;
  title: string;
  /** What a ratio is the ratio to. */
  baseline: string;
  /** Measures all of it once, in turn. */
  round(database: BenchDatabase): Promise<Sample[]>;
}

/** Two accounts with a subscription, and the size of one call to refresh. */
const subscriber = "00000000-0000-0000-0000-0000000003e8";
const stranger = "00000000-0000-0000-0000-00000000ea60";
const refreshed = 10_000;

export function scenarios({ seconds }: { seconds: number }): Scenario[] {
  return [
    reads({
      key: "entitlement",
      topic: "access",
      title: "Asking for an entitlement",
      seconds,
      baseline: "look-up by primary key",
      statements: {
        "select 1": "select 1",
        "look-up by primary key": `select id from bench.plain_accounts where id = '${subscriber}'`,
        // The function behind it, by the operator that leads there.
        "the private check": "select operator(billing.?!) 'premium_clubs'",
        "has_entitlement()": "select billing.has_entitlement('premium_clubs')",
        "has_entitlement() by account": `select billing.has_entitlement('premium_clubs', '${subscriber}')`,
        "has_entitlement() about a stranger": `select billing.has_entitlement('premium_clubs', '${stranger}')`,
        "entitlement_limit()": "select billing.entitlement_limit('book_clubs')",
        "my_entitlements()": "select * from billing.my_entitlements()",
        "my_access()": "select * from billing.my_access()",
      },
    }),
    reads({
      key: "policy",
      topic: "access",
      title: "Ten rows of a table whose policy asks for an entitlement",
      seconds,
      baseline: "without row level security",
      statements: {
        "without row level security": "select * from bench.open_clubs where topic = 77",
        "with the policy": "select * from bench.member_clubs where topic = 77",
      },
    }),
    reads({
      key: "many-rows",
      topic: "access",
      title: "Ten thousand rows of a table whose policy asks for an entitlement",
      seconds,
      baseline: "without row level security",
      statements: {
        "without row level security": "select count(name) from bench.open_clubs where id <= 10000",
        "with the policy": "select count(name) from bench.member_clubs where id <= 10000",
      },
    }),
    // The first condition that an index does not answer costs more than the next one, which is the policy.
    reads({
      key: "filtered-rows",
      topic: "access",
      title: "Ten thousand rows that a where clause looks at too",
      seconds,
      baseline: "without row level security",
      statements: {
        "without row level security":
          "select count(name) from bench.open_clubs where id <= 10000 and topic >= 0",
        "with the policy":
          "select count(name) from bench.member_clubs where id <= 10000 and topic >= 0",
      },
    }),
    size(seconds),
    reads({
      key: "tenant",
      topic: "access",
      title: "An account's ten invoices",
      seconds,
      baseline: "without row level security",
      statements: {
        "without row level security": [
          "service_role",
          `select * from billing.invoices where account_id = '${subscriber}'`,
        ],
        "with the policy": "select * from billing.invoices",
        "with the policy, naming the account": `select * from billing.invoices where account_id = '${subscriber}'`,
      },
    }),
    reads({
      key: "rpc",
      title: "What pages show",
      seconds,
      baseline: "look-up by primary key",
      statements: {
        "look-up by primary key": `select id from bench.plain_accounts where id = '${subscriber}'`,
        "list_plans()": "select * from billing.list_plans()",
        "my_subscription()": "select * from billing.my_subscription()",
      },
    }),
    ingest(seconds),
    dispatch(seconds),
    refresh(),
    usage(seconds),
    planEdit(),
  ];
}

interface Reads {
  key: string;
  topic?: string;
  title: string;
  seconds: number;
  baseline: string;
  /** As a signed-in user, unless another role is named. */
  statements: Record<string, string | [role: Load["role"], statement: string]>;
}

function reads({ key, topic, title, seconds, baseline, statements }: Reads): Scenario {
  return {
    key,
    ...(topic !== undefined && { topic }),
    title,
    baseline,
    async round({ pgbench }) {
      const samples: Sample[] = [];
      for (const connections of [1, 4]) {
        for (const [name, given] of Object.entries(statements)) {
          const [role, statement] =
            typeof given === "string" ? ["authenticated" as const, given] : given;
          const length = { seconds };
          const perSecond = await pgbench.run({
            statement,
            role,
            user: subscriber,
            connections,
            length,
          });
          samples.push({ name, connections, perSecond });
        }
      }
      return samples;
    },
  };
}

/** The same question where there are few accounts. */
function size(seconds: number): Scenario {
  const statement = "select billing.has_entitlement('premium_clubs')";
  return {
    key: "size",
    topic: "access",
    title: "has_entitlement() among more accounts",
    baseline: "among 10,000 accounts",
    async round({ pgbench, smallPgbench }) {
      const samples: Sample[] = [];
      for (const connections of [1, 4]) {
        for (const [name, database] of [
          ["among 10,000 accounts", smallPgbench],
          ["among 1,000,000 accounts", pgbench],
        ] as const) {
          const load = { statement, role: "authenticated", user: subscriber, connections } as const;
          const perSecond = await database.run({ ...load, length: { seconds } });
          samples.push({ name, connections, perSecond });
        }
      }
      return samples;
    },
  };
}

/** What an administrator's word costs: a limit of a plan with 100,000 subscribers. */
function planEdit(): Scenario {
  const raw = "raw update of the 100,000 rows";
  const steps: [name: string, statement: string][] = [
    [
      raw,
      `update bench.plain_entitlements
       set limit_value = limit_value + 1, recorded_at = now()
       where feature_key = 'book_clubs' and plan_id is not null`,
    ],
    [
      "edit of the plan, with history and audit",
      `update billing.plan_features
       set limit_value = limit_value + 1
       where feature_key = 'book_clubs'
         and plan_id = (select id from billing.plans where key = 'privileged')`,
    ],
  ];
  return {
    key: "plan-edit",
    topic: "access",
    title: "Another limit for 100,000 subscribers",
    baseline: raw,
    round: ({ withAdmin }) => withAdmin((client) => inTurn(client, steps)),
  };
}

async function inTurn(
  client: Client,
  steps: [name: string, statement: string][],
): Promise<Sample[]> {
  const samples: Sample[] = [];
  for (const [name, statement] of steps) {
    const begun = performance.now();
    await client.query(statement);
    const perSecond = 1_000 / (performance.now() - begun);
    if (name !== "") samples.push({ name, connections: 1, perSecond });
  }
  return samples;
}

/** A plan whose features change touches many accounts in one statement. */
function refresh(): Scenario {
  const accounts = `array(select id from billing.accounts order by id limit ${refreshed})`;
  const disagree = `
    set session_replication_role = replica;
    update billing.entitlements
    set limit_value = coalesce(limit_value, 0) + 1
    where account_id = any (${accounts});
    set session_replication_role = origin`;
  const steps: [name: string, statement: string][] = [
    [
      "raw update of their 40,000 rows",
      `update bench.plain_entitlements
       set limit_value = coalesce(limit_value, 0) + 1
       where account_id = any (${accounts})`,
    ],
    ["refresh, nothing differs", `select billing_private.refresh_entitlements(${accounts})`],
    ["", disagree],
    ["refresh, all rows differ", `select billing_private.refresh_entitlements(${accounts})`],
  ];
  return {
    key: "refresh",
    topic: "access",
    title: "Refreshing 10,000 accounts in one call",
    baseline: "raw update of their 40,000 rows",
    round: ({ withAdmin }) => withAdmin((client) => inTurn(client, steps)),
  };
}
