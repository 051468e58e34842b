/** What may go wrong on the way from Stripe: order, number, versions, connections, answers that come late. */
import type { Happening, History } from "../../supabase/tests/support/history/index.ts";
import type { Random } from "../../supabase/tests/support/random.ts";
import type {
  Json,
  JsonObject,
  StripeObject,
} from "../../supabase/tests/support/stripe-objects.ts";

const orders = ["as told", "nearly", "shuffled", "shuffled", "reversed", "by object"] as const;

export interface Disturbance {
  order: (typeof orders)[number];
  /** The share of events that are told once more. */
  again: number;
  /** The share of events that never come; their objects are read at the end. */
  lost: number;
  /** The share of events during whose delivery the backend is killed. */
  killed: number;
  /** Objects are read, and our own commands are answered, in between. */
  isAnswered: boolean;
  /** All that happens to the life over all connections at once, or one after the other. */
  isParallel: boolean;
  /** What was lost is found in Stripe's list of events, not by reading its objects. */
  isFound: boolean;
}

/** Something that comes in or goes out. */
export type Delivery =
  | { kind: "event"; place: number; body: string; isKilled: boolean }
  | { kind: "question"; objectId: string }
  | { kind: "call"; number: number };

export function chooseDisturbance(random: Random): Disturbance {
  return {
    order: random.pick(orders),
    again: random.pick([0, 0.2, 0.5]),
    lost: random.pick([0, 0, 0, 0.1, 0.4]),
    killed: random.pick([0, 0, 0, 0.03]),
    isAnswered: random.chance(0.4),
    isParallel: random.chance(0.4),
    isFound: random.chance(0.3),
  };
}

/** True where all events of a life are told in the end. */
export function isWhole({ lost, isFound }: Disturbance): boolean {
  return lost === 0 || isFound;
}

/** True where nothing but its events is told of a life, and all of them at once. */
export function isTheSameSet({ lost, isAnswered }: Disturbance): boolean {
  return lost === 0 && !isAnswered;
}

/**
 * How a life arrives: what comes before it can come later is in one line, lines are worked off one after the
 * other.
 */
export function arrange(
  history: History,
  disturbance: Disturbance,
  random: Random,
): { deliveries: Delivery[]; lost: Set<number> } {
  const lost = new Set<number>();
  for (const [place, happening] of history.happenings.entries()) {
    if (!random.chance(disturbance.lost)) continue;
    if (disturbance.isFound || canBeLost(history, happening)) lost.add(place);
  }
  const events = inOrder(history.happenings, disturbance.order, random)
    .map((happening) => toldOf(history, happening, disturbance, random))
    .filter(({ place }) => !lost.has(place));
  const told = withRepetitions(events, disturbance, random);
  if (!disturbance.isAnswered) return { deliveries: told, lost };
  return { deliveries: withCalls(withQuestions(told, history, random), history), lost };
}

/** Reading tells of what is deleted only that it is, and nothing of whose it once was. */
function canBeLost({ states }: History, { type, objectId }: Happening): boolean {
  if (type.endsWith(".deleted")) return true;
  const known = states.get(objectId) ?? [];
  const claims = known.map(({ object }) => claimOf(object));
  const isForgotten = claims.some((claim) => claim !== undefined && claim !== claims.at(-1));
  return known.at(-1)?.object["deleted"] !== true && !isForgotten;
}

function claimOf({ metadata }: StripeObject): Json | undefined {
  return (metadata as JsonObject | undefined)?.["account_id"];
}

type Event = Extract<Delivery, { kind: "event" }>;

function toldOf(
  { happenings }: History,
  happening: Happening,
  { killed }: Disturbance,
  random: Random,
): Event {
  return {
    kind: "event",
    place: happenings.indexOf(happening),
    // Of two endpoints with one event, the faster tells it.
    body: random.chance(0.5) ? happening.body : happening.twin,
    isKilled: random.chance(killed),
  };
}

function withRepetitions(events: Event[], { again }: Disturbance, random: Random): Event[] {
  const all = [...events];
  for (const event of events) {
    if (!random.chance(again)) continue;
    all.splice(random.whole(all.indexOf(event), all.length), 0, { ...event, isKilled: false });
  }
  return all;
}

function withQuestions(deliveries: Delivery[], { happenings }: History, random: Random) {
  const all = [...deliveries];
  for (const { objectId } of random.shuffled(happenings).slice(0, random.whole(0, 6))) {
    all.splice(random.whole(0, all.length), 0, { kind: "question", objectId });
  }
  return all;
}

/** What a call of ours causes can only be told after it. */
function withCalls(deliveries: Delivery[], { calls }: History): Delivery[] {
  const all = [...deliveries];
  for (const { number, since } of calls) {
    const first = all.findIndex((other) => other.kind === "event" && other.place >= since);
    all.splice(first < 0 ? all.length : first, 0, { kind: "call", number });
  }
  return all;
}

/** Between calls of ours, everything may come at once. */
export function toLines(deliveries: Delivery[], { isParallel }: Disturbance): Delivery[][][] {
  if (!isParallel) return [[deliveries]];
  const stretches: Delivery[][][] = [[]];
  for (const delivery of deliveries) {
    if (delivery.kind === "call") stretches.push([[delivery]], []);
    else stretches.at(-1)!.push([delivery]);
  }
  return stretches;
}

function inOrder(told: Happening[], order: Disturbance["order"], random: Random): Happening[] {
  switch (order) {
    case "as told":
      return [...told];
    case "nearly":
      return sortedBy(told, (_, place) => place + random.whole(0, 4));
    case "shuffled":
      return random.shuffled(told);
    case "reversed":
      return told.toReversed();
    case "by object": {
      const objects = random.shuffled([...new Set(told.map(({ objectId }) => objectId))]);
      return sortedBy(told, ({ objectId }) => objects.indexOf(objectId));
    }
  }
}

function sortedBy<T>(items: readonly T[], place: (item: T, index: number) => number): T[] {
  return items
    .map((item, index) => ({ item, place: place(item, index) }))
    .toSorted((one, other) => one.place - other.place)
    .map(({ item }) => item);
}
