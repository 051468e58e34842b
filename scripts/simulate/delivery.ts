/** Delivers lives as Stripe does: again and again until each event is answered; and carries our calls to it. */
import type { Random } from "../../supabase/tests/support/random.ts";
import type { Delivery } from "./disturbance.ts";
import { lifeIn, type Answer, type ClaimedCommand, type Stripe, type Telling } from "./stripe.ts";
import type { Deliverer, World } from "./world.ts";

/** Deliveries of one life that come one after the other. */
export interface Line {
  telling: Telling;
  deliveries: Delivery[];
}

/** Stretches of a life: the lines of one may run at the same time, the next begins when all have ended. */
export type Journey = Line[][];

export interface Traffic {
  world: World;
  stripe: Stripe;
  random: Random;
  /** Whether commands are carried while events come, or wait. */
  isDispatching: boolean;
  /** On the way back from Stripe. */
  answers: Answer[];
}

/** Works off all journeys over all connections. */
export async function deliver(traffic: Traffic, journeys: Journey[]): Promise<void> {
  const free = [...traffic.world.deliverers];
  const waiting: (() => void)[] = [];
  const take = async (): Promise<Deliverer> => {
    const deliverer = free.pop();
    if (deliverer !== undefined) return deliverer;
    await new Promise<void>((resolve) => waiting.push(resolve));
    return take();
  };
  const give = (deliverer: Deliverer): void => {
    free.push(deliverer);
    waiting.shift()?.();
  };

  async function run({ telling, deliveries }: Line): Promise<void> {
    for (const delivery of deliveries) {
      const deliverer = await take();
      try {
        await deliverOne(traffic, deliverer, telling, delivery);
        await carry(traffic, deliverer);
      } finally {
        give(deliverer);
      }
    }
  }

  await Promise.all(
    journeys.map(async (journey) => {
      for (const lines of journey) await Promise.all(lines.map(run));
    }),
  );
}

/** Answers all that is asked, until nothing is asked any more. */
export async function settle(traffic: Traffic): Promise<void> {
  const deliverer = traffic.world.deliverers[0]!;
  for (let round = 0; round < 100; round += 1) {
    await claim(traffic, deliverer);
    if (traffic.answers.length === 0) return;
    for (const answer of traffic.answers.splice(0)) await complete(deliverer, answer);
  }
  throw new Error("Stripe is asked again and again.");
}

async function deliverOne(
  traffic: Traffic,
  deliverer: Deliverer,
  telling: Telling,
  delivery: Delivery,
): Promise<void> {
  switch (delivery.kind) {
    case "event":
      telling.now = Math.max(telling.now, delivery.place + 1);
      if (delivery.isKilled) await dieOver(deliverer, () => ingest(deliverer, delivery));
      return ingest(deliverer, delivery);
    case "question":
      await deliverer.keeper.query(
        `select billing_private.request_reread(object_type, object_id, 'simulated')
        from billing_private.stripe_objects where object_id = $1`,
        [delivery.objectId],
      );
      return;
    case "call":
      return call(traffic, deliverer, telling, delivery.number);
  }
}

async function ingest({ client }: Deliverer, { body }: { body: string }): Promise<void> {
  await client.query({
    name: "ingest",
    text: "select billing.ingest_stripe_event($1)",
    values: [body],
  });
}

/** The backend dies in the middle of the work, or a moment before or after. */
async function dieOver(deliverer: Deliverer, work: () => Promise<void>): Promise<void> {
  const { rows } = await deliverer.client.query<{ pid: number }>("select pg_backend_pid() as pid");
  const death = deliverer.keeper.query(
    "select pg_terminate_backend($1) from pg_sleep(0.004 * random())",
    [rows[0]!.pid],
  );
  await work().catch(() => {});
  await death;
  await deliverer.renew();
}

/** Writes one of our commands and carries it to Stripe; its answer comes later. */
async function call(
  traffic: Traffic,
  deliverer: Deliverer,
  { history, calls }: Telling,
  number: number,
): Promise<void> {
  const { kind, answer } = history.calls[number]!;
  await deliverer.keeper.query(
    `insert into billing_private.commands
      (kind, account_id, method, path, params, target_object_id)
    values ($1, $2, 'POST', '/v1/subscriptions/' || $3, jsonb_build_object('call', $4::integer), $3)`,
    [kind, history.account.id, answer.id, number],
  );
  // The account's line lets it go when what stands before it has been answered.
  while (calls.some((other) => other.number === number)) {
    await claim(traffic, deliverer);
    const before = traffic.answers.findIndex(
      ({ command }) => command.method === "POST" && lifeIn(command.path) === lifeIn(answer.id),
    );
    for (const waiting of before < 0 ? [] : traffic.answers.splice(before, 1)) {
      if (!calls.some((other) => other.number === number)) traffic.answers.push(waiting);
      else await complete(deliverer, waiting);
    }
  }
}

/** Now and then, between events, questions go out and answers come in. */
async function carry(traffic: Traffic, deliverer: Deliverer): Promise<void> {
  const { isDispatching, random, answers } = traffic;
  if (!isDispatching) return;
  if (random.chance(0.15)) await claim(traffic, deliverer);
  if (answers.length === 0 || !random.chance(0.3)) return;
  const [answer] = answers.splice(random.whole(0, answers.length - 1), 1);
  if (random.chance(0.1)) return lose(deliverer, answer!);
  if (!random.chance(0.03)) return complete(deliverer, answer!);
  await dieOver(deliverer, () => complete(deliverer, answer!));
  await complete(deliverer, answer!).catch((error: Error) => {
    // It died after it had handed the answer in.
    if (!error.message.includes("no longer leased")) throw error;
  });
}

/** The worker is gone before it hands the answer in; its lease runs out, and another one calls again. */
async function lose({ keeper }: Deliverer, { command }: Answer): Promise<void> {
  await keeper.query(
    `update billing_private.commands
    set lease_expires_at = billing_private.now() - interval '1 second'
    where id = $1`,
    [command.id],
  );
}

async function claim({ stripe, answers }: Traffic, { client }: Deliverer): Promise<void> {
  const { rows } = await client.query<ClaimedCommand>("select * from billing.claim_commands(100)");
  answers.push(...rows.map(stripe.answer));
}

async function complete({ client }: Deliverer, answer: Answer): Promise<void> {
  const { command, status, body, date, elapsedSeconds } = answer;
  await client.query({
    name: "complete",
    text: "select billing.complete_command($1, $2, $3, $4, null, $5, $6)",
    values: [command.id, command.lease, status, JSON.stringify(body), date, elapsedSeconds],
  });
}
