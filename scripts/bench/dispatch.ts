/** Carrying commands to Stripe, without Stripe: claiming them, and telling what came of them. */

import { performance } from "node:perf_hooks";
import pg from "pg";
import type { BenchDatabase } from "./database.ts";
import type { Sample, Scenario } from "./scenarios.ts";

/** Customers with an account, each of which has one command waiting. */
const firstCustomer = 20_001;
const perClaim = 20;

const names = {
  raw: "one raw row leased and finished, 20 a claim",
  ours: "claim_commands() and complete_command()",
};

let next = firstCustomer;

export function dispatch(seconds: number): Scenario {
  return {
    key: "dispatch",
    title: "Commands carried",
    baseline: names.raw,
    async round(database) {
      const samples: Sample[] = [];
      for (const connections of [1, 4, 8]) {
        const commands = Math.round(seconds * 500);
        await fill(database, commands);
        for (const [key, carry] of Object.entries({ raw: carryRaw, ours: carryOurs(database) })) {
          const perSecond = await measure(database.serviceUrl, connections, commands, carry);
          samples.push({ name: names[key as keyof typeof names], connections, perSecond });
        }
      }
      return samples;
    },
  };
}

async function fill({ withAdmin }: BenchDatabase, commands: number): Promise<void> {
  const first = next;
  next += commands;
  await withAdmin(async (client) => {
    await client.query("truncate bench.raw_commands");
    await client.query(
      "insert into bench.raw_commands (path) select '/v1/customers' from generate_series(1, $1)",
      [commands],
    );
    await client.query(
      `select billing_private.enqueue_command(
         'update_customer', account_id, '/v1/customers/' || stripe_customer_id, '{"name": "A Reader"}')
       from billing.customers
       where account_id in (select bench.account(n) from generate_series($1::bigint, $2) as n)`,
      [first, next - 1],
    );
    await client.query("analyze billing_private.commands, bench.raw_commands");
  });
}

/** Carries a batch and says how many they were. */
type Carry = (client: pg.Client) => Promise<number>;

const carryRaw: Carry = async (client) => {
  const { rows } = await client.query<{ id: string }>({
    name: "lease",
    text: `
      update bench.raw_commands set status = 'leased', lease = gen_random_uuid()
      where id in (
        select id from bench.raw_commands where status = 'pending' order by id limit ${perClaim}
        for update skip locked)
      returning id`,
  });
  for (const { id } of rows) {
    const text = "update bench.raw_commands set status = 'done' where id = $1";
    await client.query({ name: "finish", text, values: [id] });
  }
  return rows.length;
};

/** Stripe's answer is the customer, whose snapshot is applied. */
function carryOurs({ templates }: BenchDatabase): Carry {
  const event = JSON.parse(templates.life[0] ?? "{}") as { data: { object: object } };
  const customer = event.data.object;
  return async (client) => {
    const { rows } = await client.query<{ id: string; lease: string; path: string }>({
      name: "claim",
      text: `select * from billing.claim_commands(${perClaim})`,
    });
    for (const { id, lease, path } of rows) {
      await client.query({
        name: "complete",
        text: "select billing.complete_command($1, $2, 200, $3, null, $4, 0.1)",
        values: [
          id,
          lease,
          JSON.stringify({ ...customer, id: path.slice("/v1/customers/".length) }),
          new Date().toUTCString(),
        ],
      });
    }
    return rows.length;
  };
}

async function measure(url: string, connections: number, commands: number, carry: Carry) {
  const clients = Array.from({ length: connections }, () => new pg.Client(url));
  await Promise.all(clients.map((client) => client.connect()));
  const begun = performance.now();
  const carried = await Promise.all(
    clients.map(async (client) => {
      let count = 0;
      for (let batch = await carry(client); batch > 0; batch = await carry(client)) count += batch;
      return count;
    }),
  );
  const elapsed = performance.now() - begun;
  await Promise.all(clients.map((client) => client.end()));
  const total = carried.reduce((sum, count) => sum + count, 0);
  if (total < commands) throw new Error(`${total} of ${commands} commands were carried.`);
  return (total * 1_000) / elapsed;
}
