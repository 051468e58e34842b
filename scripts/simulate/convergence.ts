/**
 * The convergence theorem: whatever the order in which the events of a life arrive, however often each, over
 * however many connections, with backends that die, with events that never come, and with Stripe asked in
 * between: the same rows are stored as when each had come once and in order, and they say how the life ended.
 */
import { copyMark, tellHistory, withoutCopy } from "../../supabase/tests/support/history/index.ts";
import { createRandom } from "../../supabase/tests/support/random.ts";
import { readStoredRows, type StoredRow } from "../../supabase/tests/support/stored-rows.ts";
import { deliver, settle, type Journey, type Traffic } from "./delivery.ts";
import {
  arrange,
  chooseDisturbance,
  isTheSameSet,
  isWhole,
  toLines,
  type Delivery,
  type Disturbance,
} from "./disturbance.ts";
import { createStripe, type Stripe, type Telling } from "./stripe.ts";
import { differencesOf, isLasting, restrictedLonger, settled, type Certainty } from "./rows.ts";
import { contradictions } from "./truth.ts";
import { catalog, inboxOf, prepare, readableTypes, troubles, type World } from "./world.ts";

/** Case n of a seed. Several disturbances of one life are compared with one orderly delivery. */
export interface Case {
  seed: number;
  number: number;
  /** When Stripe is asked in between, and how it answers, differs from one to another. */
  luck?: number;
}

export interface Failure {
  case: Case;
  disturbance: Disturbance;
  /** What the orderly delivery stored, and what the disturbed. */
  differences: string[];
  /** What had come in for the objects that differ, in the order in which it came. */
  inbox: string[];
}

/** How many cases share a life. */
const casesPerLife = 4;

/** Tells the lives of these cases, orderly and disturbed, and compares what is stored. */
export async function checkCases(world: World, cases: Case[]): Promise<Failure[]> {
  const { seed, number, luck = 0 } = cases[0]!;
  const random = createRandom(seed + number + Math.imul(luck, 0x85ebca6b));
  const stripe = createStripe(random);
  const disturbed = cases.map((which) => disturb(which, stripe));
  const orderly = new Map(
    disturbed.map(({ telling: { history } }) => [
      history.seed,
      stripe.live(tellHistory(history.seed, "A", catalog)),
    ]),
  );
  await prepare(world, [...orderly.values(), ...disturbed.map(({ telling }) => telling)]);
  const traffic: Traffic = { world, stripe, random, isDispatching: false, answers: [] };

  // First what has to be the same before anybody asks Stripe.
  const pure = disturbed.filter(({ disturbance }) => isTheSameSet(disturbance));
  await deliver(traffic, [...orderly.values()].map(asTold));
  await deliver(traffic, pure.map(journeyOf));
  const unasked = await readLives(world);
  traffic.isDispatching = true;
  await deliver(
    traffic,
    disturbed.filter(({ disturbance }) => !isTheSameSet(disturbance)).map(journeyOf),
  );
  await sweep(traffic, disturbed);
  await settle(traffic);
  const asked = await readLives(world);

  const trouble = await troubles(world);
  const failures = disturbed.flatMap((one) => {
    const { telling, disturbance } = one;
    const first = orderly.get(telling.history.seed)!;
    const { shape, isCut, isThin } = telling.history;
    const certainty = certaintyOf(disturbance, isThin);
    const differences = [
      ...(isTheSameSet(disturbance) && shape !== "both" && !isCut
        ? differencesOf(unasked(first), unasked(telling))
        : []),
      ...differencesOf(settled(asked(first), certainty), settled(asked(telling), certainty)),
      ...restrictedLonger(asked(first), asked(telling)),
      ...contradictions(telling.history, asked(telling)),
      ...trouble.filter((line) => isOf(telling, line)),
    ];
    return differences.length === 0
      ? []
      : [{ case: one.case, copy: telling.history.copy, disturbance, differences }];
  });
  return withInboxes(world, failures);
}

async function withInboxes(
  world: World,
  failures: (Omit<Failure, "inbox"> & { copy: string })[],
): Promise<Failure[]> {
  const told: Failure[] = [];
  for (const { copy, ...failure } of failures) {
    const inbox = await inboxOf(world, objectsIn(failure.differences, copy));
    told.push({ ...failure, inbox });
  }
  return told;
}

function isOf({ history: { seed, copy } }: Telling, line: string): boolean {
  return new RegExp(`_${seed}_.*${copyMark}${copy}`).test(line);
}

function objectsIn(differences: string[], copy: string): string[] {
  const ids = differences.flatMap((line) => line.match(/\b[a-z]+_\d+_\d+\b/g) ?? []);
  return [...new Set(ids)].map((id) => `${id}${copyMark}${copy}`);
}

interface Disturbed {
  case: Case;
  telling: Telling;
  disturbance: Disturbance;
  deliveries: Delivery[];
  lost: Set<number>;
}

function disturb({ seed, number }: Case, stripe: Stripe): Disturbed {
  const life = seed + Math.floor(number / casesPerLife);
  const copy = String.fromCharCode("B".charCodeAt(0) + (number % casesPerLife));
  const history = tellHistory(life, copy, catalog);
  const random = createRandom(Math.imul(seed, 0x9e3779b1) + number);
  const disturbance = chooseDisturbance(random);
  return {
    case: { seed, number },
    telling: stripe.live(history, disturbance.isAnswered ? history.calls : []),
    disturbance,
    ...arrange(history, disturbance, random),
  };
}

function asTold(telling: Telling): Journey {
  const deliveries = telling.history.happenings.map(({ body }, place): Delivery => ({
    kind: "event",
    place,
    body,
    isKilled: false,
  }));
  return [[{ telling, deliveries }]];
}

function journeyOf({ telling, deliveries, disturbance }: Disturbed): Journey {
  return toLines(deliveries, disturbance).map((lines) =>
    lines.map((line) => ({ telling, deliveries: line })),
  );
}

function certaintyOf(disturbance: Disturbance, isThin: boolean): Certainty {
  if (isThin || !isWhole(disturbance)) return "ends";
  return isTheSameSet(disturbance) ? "all" : "events";
}

/**
 * Reads every object of which an event was lost, or finds the events in Stripe's list of them. What cannot be read
 * is told after all.
 */
async function sweep(traffic: Traffic, disturbed: Disturbed[]): Promise<void> {
  const isReadable = await readableTypes(traffic.world);
  for (const { telling, lost, disturbance } of disturbed) {
    const { happenings, states } = telling.history;
    telling.now = happenings.length;
    if (disturbance.isFound) {
      await traffic.world.owner.query("select billing_private.ingest_stripe_events($1)", [
        [...lost].map((place) => happenings[place]!.body),
      ]);
      continue;
    }
    for (const place of lost) {
      const { objectId, body } = happenings[place]!;
      const type = states.get(objectId)?.at(-1)?.object.object ?? "";
      if (isReadable.has(type)) {
        await traffic.world.owner.query("select billing_private.request_reread($1, $2, 'swept')", [
          type,
          objectId,
        ]);
      } else {
        const deliveries: Delivery[] = [{ kind: "event", place, body, isKilled: false }];
        await deliver(traffic, [[[{ telling, deliveries }]]]);
      }
    }
  }
}

type Lives = (telling: Telling) => StoredRow[];

async function readLives({ owner }: World): Promise<Lives> {
  const stored = await readStoredRows(owner);
  return ({ history }) =>
    (stored.get(`${history.seed}${copyMark}${history.copy}`) ?? [])
      .filter(isLasting)
      .map(({ of, row }) => ({
        of,
        row: JSON.parse(withoutCopy(JSON.stringify(row), history)) as StoredRow["row"],
      }));
}
