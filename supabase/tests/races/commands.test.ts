// The outbox with many workers: each command is carried by one of them, and an account's one after the other.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { overlap } from "../support/overlapping.ts";
import { addReader, failuresOf, idOf } from "../support/readers.ts";

interface Claimed {
  id: string;
  lease: string;
}

let database: TestDatabase;
let owner: Client;
let workers: Client[];

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  workers = await Promise.all(Array.from({ length: 8 }, () => database.connect("service_role")));
});

afterAll(() => database?.drop());

beforeEach(async () => {
  await owner.query(
    "update billing_private.commands set status = 'canceled', lease = null, lease_expires_at = null",
  );
});

describe("eight workers", () => {
  it("take each of forty commands once", async () => {
    for (let number = 0; number < 40; number += 1) await enqueue(`forty ${number}`);

    const claims = await Promise.all(workers.map((worker) => claim(worker, 7)));
    claims.push(await claim(workers[0]!, 20));

    const ids = claims.flat().map(({ id }) => id);
    expect(ids).toHaveLength(40);
    expect(new Set(ids).size).toBe(40);
  });

  it("carry the commands of an account one at a time and in order", async () => {
    const accounts = ["ann", "ben", "cat", "dan", "eve"];
    const wanted = new Map<string, string[]>();
    for (let turn = 0; turn < 6; turn += 1) {
      for (const account of accounts) {
        wanted.set(account, [...(wanted.get(account) ?? []), await enqueue(account)]);
      }
    }
    const carried: string[] = [];
    const busy = new Set<string>();
    const ownerOf = new Map(accounts.flatMap((name) => wanted.get(name)!.map((id) => [id, name])));

    await Promise.all(
      workers.map(async (worker) => {
        while (carried.length < 30) {
          const claimed = await claim(worker, 3);
          for (const { id } of claimed) {
            expect(busy, "accounts with a command under way").not.toContain(ownerOf.get(id));
            busy.add(ownerOf.get(id)!);
            carried.push(id);
          }
          for (const command of claimed) {
            // Free from here on: the next may be claimed before this one's answer is back.
            busy.delete(ownerOf.get(command.id)!);
            expect(await complete(worker, command)).toBe("succeeded");
          }
        }
      }),
    );

    for (const account of accounts) {
      expect(carried.filter((id) => ownerOf.get(id) === account)).toEqual(wanted.get(account));
    }
    expect(await failuresOf(owner)).toEqual([]);
  });

  it("have one of them complete a command that all complete at once", async () => {
    await enqueue("fay");
    const [command] = await claim(workers[0]!, 1);
    const answers = await Promise.all(
      workers.map((worker) => complete(worker, command!).catch((error: unknown) => error)),
    );

    expect(answers.filter((answer) => answer === "succeeded")).toHaveLength(1);
    for (const refusal of answers.filter((answer) => answer !== "succeeded")) {
      expect(refusal).toMatchObject({
        code: "PT409",
        message: "the command is no longer leased to this worker",
      });
    }
  });
});

describe("a worker", () => {
  it("whose lease ran out loses it to one other, and its late answer changes nothing", async () => {
    await enqueue("gus");
    const [slow] = await claim(workers[0]!, 1);
    await owner.query(
      "update billing_private.commands set lease_expires_at = now() - interval '1 second' where id = $1",
      [slow!.id],
    );

    const claims = (await Promise.all(workers.map((worker) => claim(worker, 5)))).flat();
    expect(claims.map(({ id }) => id)).toEqual([slow!.id]);
    await expect(complete(workers[0]!, slow!)).rejects.toMatchObject({ code: "PT409" });
    expect(await complete(workers[1]!, claims[0]!)).toBe("succeeded");
  });

  it("gets no second command of an account, also when an earlier one is committed later", async () => {
    const name = "hal";
    await addReader(owner, name);
    const late = await database.connect();
    await late.query("begin");
    const earlier = await enqueue(name, late);
    const later = await enqueue(name);
    expect((await claim(workers[0]!, 5)).map(({ id }) => id)).toEqual([later]);
    await late.query("commit");

    expect(await claim(workers[1]!, 5)).toEqual([]);
    await owner.query(
      "update billing_private.commands set lease_expires_at = now() - interval '1 second' where id = $1",
      [later],
    );
    // Nobody holds one now: they go on in their order.
    expect((await claim(workers[1]!, 5)).map(({ id }) => id)).toEqual([earlier]);
  });

  it("meets a second one at the same command, and only one has it", async () => {
    await enqueue("ida");
    const claims: Claimed[][] = [];
    const claiming = (worker: Client) => ({
      client: worker,
      work: async () => void claims.push(await claim(worker, 5)),
    });
    await overlap(owner, claiming(workers[0]!), claiming(workers[1]!));

    expect(claims.map((claimed) => claimed.length)).toEqual([1, 0]);
  });
});

/** Asks Stripe to close a page nobody here knows: what the answer says changes nothing else. */
async function enqueue(name: string, client = owner): Promise<string> {
  await owner.query(
    "insert into billing.accounts (id, name) values ($1, $2) on conflict do nothing",
    [idOf(name), name],
  );
  const { rows } = await client.query<{ id: string }>(
    "select billing_private.enqueue_command('expire_checkout', $1, '/v1/checkout/sessions/x/expire') as id",
    [idOf(name)],
  );
  return rows[0]!.id;
}

async function claim(worker: Client, batch: number): Promise<Claimed[]> {
  const { rows } = await worker.query<Claimed>("select * from billing.claim_commands($1)", [batch]);
  return rows;
}

async function complete(worker: Client, { id, lease }: Claimed): Promise<string> {
  const response = {
    id: `cs_${id}`,
    object: "checkout.session",
    status: "expired",
    livemode: false,
  };
  const { rows } = await worker.query<{ status: string }>(
    "select * from billing.complete_command($1, $2, 200, $3)",
    [id, lease, JSON.stringify(response)],
  );
  return rows[0]!.status;
}
