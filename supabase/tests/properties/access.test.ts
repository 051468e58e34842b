// Whatever happens to what access depends on, in whatever order: at every instant, to the microsecond, the
// answers are those of a reference that looks at the sources alone, with nothing run in between; and what
// was answered once is what is told of that instant later.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { clockAsksFunction } from "../../../scripts/stack/clock.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { createRandom, type Random } from "../support/random.ts";
import { idOf } from "../support/readers.ts";
import { changes } from "./changes.ts";
import { answerAt, tierAt, type Instant } from "./reference.ts";
import { accounts, addWorld, features, instantsOf, isoOf, readWorld, store } from "./world.ts";

/** Another one makes other changes: PG_SUBSCRIPTIONS_SEED=7000 npx vitest run … */
const seed = Number(process.env["PG_SUBSCRIPTIONS_SEED"] ?? 1);
const schedules = 2;
const steps = 50;

let database: TestDatabase;
let owner: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  await owner.query(`
    create or replace function billing_private.now() returns timestamptz
    language plpgsql stable parallel safe set search_path = '' as $$
    begin
      return current_setting('tests.now')::timestamptz;
    end;
    $$;
    ${clockAsksFunction}`);
});

afterAll(() => database?.drop());

afterEach(() => owner.query("rollback"));

describe.each(Array.from({ length: schedules }, (_, number) => seed + number))(
  `${steps} changes of seed %i`,
  (schedule) => {
    it("are answered as the sources say, at every instant", async () => {
      const random = createRandom(schedule);
      const remembered: Remembered[] = [];
      let now = BigInt(Date.UTC(2026, 0, 10)) * 1000n;
      await owner.query("begin");
      await owner.query("set local timezone = 'UTC'");
      await setClock(now);
      await addWorld(owner);

      for (let step = 0; step < steps; step += 1) {
        now += random.chance(0.2) ? 1n : BigInt(random.whole(1, 4 * 86_400_000)) * 1000n;
        await setClock(now);
        const change = random.pick(changes);
        await change(owner, random, now);
        const done = `step ${step}, ${change.name}`;

        const world = await readWorld(owner);
        for (const at of [now, ...someOf(random, instantsOf(world), now)]) {
          await setClock(at);
          const answers = await answersNow(random);
          await setClock(now);
          const foreseen = random.chance(0.3) ? await foreseenAt(at) : undefined;
          const expected = world.map(({ id, account }) => ({
            id,
            tier: tierAt(account, at),
            features: features.map((feature) => {
              const { level, limit } = answerAt(account, feature, at);
              const ofStore = answerAt(account, feature, at, store);
              return [
                ...[feature, level, level === "full", limit?.toString() ?? null],
                ...[ofStore.level === "full", ofStore.limit?.toString() ?? null],
              ];
            }),
          }));
          expect(answers, `${done}, at ${isoOf(at)}`).toEqual(expected);
          if (foreseen !== undefined) {
            expect(foreseen, `${done}, foreseen at ${isoOf(at)}`).toEqual(
              expected.map(({ features }) => features.map(([, , has]) => has)),
            );
          }
          if (at !== now) continue;
          for (const { id, features } of expected) {
            for (const [feature, , has] of features) {
              remembered.push({ id, feature: String(feature), at, has: has === true });
            }
          }
        }
        expect(await drift(), done).toEqual([]);
      }

      now += 1n;
      await setClock(now);
      expect(await toldOf(remembered)).toEqual(remembered.map(({ has }) => has));
    }, 120_000);
  },
);

interface Remembered {
  id: string;
  feature: string;
  at: Instant;
  has: boolean;
}

async function setClock(at: Instant): Promise<void> {
  await owner.query("select set_config('tests.now', $1, false)", [isoOf(at)]);
}

/** Instants at which something ends or begins, the microseconds before, and some in between. */
function someOf(random: Random, instants: Instant[], now: Instant): Instant[] {
  const ahead = random.shuffled(instants.filter((instant) => instant > now + 1n)).slice(0, 3);
  const between = now + BigInt(random.whole(1, 60 * 86_400_000)) * 1000n;
  return [...ahead, ...ahead.map((instant) => instant - 1n), between];
}

/** By what policies and clients ask. One of the accounts also asks for itself. */
async function answersNow(random: Random): Promise<unknown[]> {
  const own = random.pick(accounts);
  await owner.query("select set_config('request.jwt.claims', $1, false)", [
    JSON.stringify({ sub: idOf(own) }),
  ]);
  const { rows } = await owner.query<{ answer: unknown }>(
    `select jsonb_build_object(
      'id', accounts.id,
      'tier', billing.membership_tier(accounts.id),
      'features', jsonb_agg(
        jsonb_build_array(
          feature, billing.access_level(feature, accounts.id),
          billing.has_entitlement(feature, case when accounts.id <> $2 then accounts.id end),
          billing.entitlement_limit(feature, accounts.id)::text,
          billing.has_entitlement(feature, accounts.id, $3),
          billing.entitlement_limit(feature, accounts.id, $3)::text)
        order by place)) as answer
    from billing.accounts
    cross join unnest($1::text[]) with ordinality as asked (feature, place)
    group by accounts.id
    order by accounts.id`,
    [features, idOf(own), store],
  );
  await owner.query("select set_config('request.jwt.claims', '', false)");
  return rows.map(({ answer }) => answer);
}

async function foreseenAt(at: Instant): Promise<boolean[][]> {
  const { rows } = await owner.query<{ has: boolean[] }>(
    `select array_agg(billing.has_entitlement_at(feature, $2, accounts.id) order by place) as has
    from billing.accounts
    cross join unnest($1::text[]) with ordinality as asked (feature, place)
    group by accounts.id
    order by accounts.id`,
    [features, isoOf(at)],
  );
  return rows.map(({ has }) => has);
}

async function toldOf(remembered: Remembered[]): Promise<boolean[]> {
  const { rows } = await owner.query<{ has: boolean }>(
    `select billing.has_entitlement_at(feature, at, id) as has
    from unnest($1::uuid[], $2::text[], $3::timestamptz[]) with ordinality as asked (id, feature, at, place)
    order by place`,
    [
      remembered.map(({ id }) => id),
      remembered.map(({ feature }) => feature),
      remembered.map(({ at }) => isoOf(at)),
    ],
  );
  return rows.map(({ has }) => has);
}

async function drift(): Promise<unknown[]> {
  const { rows } = await owner.query(
    "select * from billing_private.validate_entitlements(array(select id from billing.accounts))",
  );
  return rows;
}
