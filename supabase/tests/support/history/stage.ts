/** The stage of a life: time, names, and events. */
import { previousAttributes, snapshot } from "../../../../scripts/stripe-simulator/snapshots.ts";
import { createRandom, type Random } from "../random.ts";
import { idOf } from "../readers.ts";
import { day, eventBody, second, type JsonObject, type StripeObject } from "../stripe-objects.ts";
import { asBeforeBasil } from "./shapes.ts";

export interface History {
  /** The same seed and another copy: the same life, of another customer. */
  seed: number;
  copy: string;
  shape: Shape;
  /** The events, in the order in which things happened. */
  happenings: Happening[];
  /** How each object looked from when on, by its id. */
  states: Map<string, State[]>;
  /** What we asked Stripe to change, in order. */
  calls: Call[];
  /** The reader's account, which exists before the first event. */
  account: { id: string; name: string };
  /** Keys of plans that are written here first and claimed by a product. */
  planKeys: string[];
  /** A checkout of ours that leads to the subscription. */
  checkout: { id: string; sessionId: string } | null;
  /** Some things are only told by events that do not show them. */
  isThin: boolean;
  /** Some lists are longer than what events show of them. */
  isCut: boolean;
}

export interface Happening {
  type: string;
  objectId: string;
  /** Seconds since 1970. */
  at: number;
  /** The body of the webhook request. */
  body: string;
  /** The same event as an endpoint of an older API version gets it. */
  twin: string;
}

/** A state of an object, as reading it shows it. */
export interface State {
  /** How many events there were before it; those that tell of it are not among them. */
  since: number;
  object: StripeObject;
  /** Without its lists cut short. */
  whole: StripeObject;
}

/** A change that one of our commands made at Stripe. */
export interface Call {
  number: number;
  kind: string;
  /** How many events there were before it, and when it was. */
  since: number;
  at: number;
  /** What Stripe returned. */
  answer: StripeObject;
}

/** What the endpoints of a life get: the newest shape, an old one, or both. */
export type Shape = "endive" | "acacia" | "both";

export const copyMark = "~";

export interface Stage {
  random: Random;
  history: History;
  now(): number;
  pass(seconds: number): void;
  /** Mostly nothing passes: Stripe's events have whole seconds, and much happens within one. */
  breathe(): void;
  id(prefix: string): string;
  announce(type: string, object: StripeObject, previous?: Previous): void;
  /** One change and its events, in any order: what is called updated tells what was there before. */
  change(object: StripeObject, changes: JsonObject, ...types: string[]): void;
  /** The same, and it may have been one of our commands that asked for it. */
  changeOnRequest(kind: string, object: StripeObject, changes: JsonObject, type: string): void;
  /** Notes a state of which no event tells. */
  become(object: StripeObject): void;
  /** How an object looks now. */
  end(id: string): StripeObject | undefined;
}

interface Previous {
  endive: JsonObject | undefined;
  acacia: JsonObject | undefined;
}

/** What is told by thin events, too: it can be read by its id. */
const thinTypes = new Set(["charge", "customer", "invoice", "payment_intent", "subscription"]);

/** What is not there any more when it is read. */
const forgetting = ["customer.deleted", "customer.tax_id.deleted"];

/** All that reading shows of a deleted customer; of others, there is nothing. */
function gone({ id, object }: StripeObject): StripeObject {
  return { id, object, deleted: true };
}

/** Whose a customer is cannot be read any more when it is deleted, so some event has to show it. */
function namesItsAccount({ object, metadata }: StripeObject): boolean {
  return (
    object === "customer" && (metadata as JsonObject | undefined)?.["account_id"] !== undefined
  );
}

/** Previous attributes that all versions write alike. */
export function inAllVersions(previous: JsonObject): Previous {
  return { endive: previous, acacia: previous };
}

export function setStage(seed: number, copy: string): Stage {
  const random = createRandom(seed);
  const name = `reader_${seed}${copyMark}${copy}`;
  const history: History = {
    seed,
    copy,
    shape: random.pick<Shape>(["endive", "endive", "endive", "acacia", "both"]),
    happenings: [],
    states: new Map(),
    calls: [],
    account: { id: idOf(name), name },
    planKeys: [],
    checkout: null,
    isThin: false,
    isCut: false,
  };
  // An endpoint need not listen to everything.
  const unheard = random.pick<readonly string[]>([[], [], ["payment_intent."], ["charge."]]);
  const thinness = random.pick([0, 0, 0, 0, 0.2]);
  const made: Record<string, number> = {};
  let clock = second("2026-01-01") + random.whole(0, 20 * day);

  function id(prefix: string): string {
    made[prefix] = (made[prefix] ?? 0) + 1;
    return `${prefix}_${seed}_${made[prefix]}${copyMark}${copy}`;
  }

  function become(object: StripeObject): void {
    const known = history.states.get(object.id) ?? [];
    if (JSON.stringify(known.at(-1)?.whole) === JSON.stringify(object)) return;
    const since = history.happenings.length;
    const shown = snapshot(object) as StripeObject;
    const whole = structuredClone(object);
    history.isCut ||= JSON.stringify(shown).includes('"has_more":true');
    history.states.set(object.id, [...known, { since, object: shown, whole }]);
  }

  function announce(type: string, object: StripeObject, previous?: Previous): void {
    become(forgetting.includes(type) ? gone(object) : object);
    // Ids of events say nothing about their order.
    const event = `evt_${seed}_${random.whole(1000, 9999)}${id("")}`;
    if (unheard.some((prefix) => type.startsWith(prefix))) return;
    if (thinTypes.has(object.object) && !type.endsWith(".deleted") && random.chance(thinness)) {
      history.isThin = true;
      const isShown = random.chance(0.5) || namesItsAccount(object);
      tellThinly(`${event}_thin`, type, object, isShown ? event : null);
      if (!isShown) return;
    }
    tell(event, type, object, previous);
    // B2: two events that say the same.
    if (random.chance(0.05)) tell(`${event}_again`, type, object, previous);
  }

  function tell(event: string, type: string, object: StripeObject, previous?: Previous): void {
    const endive = eventBody({
      id: event,
      type,
      created: clock,
      object: snapshot(object),
      previous: previous?.endive,
    });
    const acacia = eventBody({
      id: event,
      type,
      created: clock,
      object: asBeforeBasil(object),
      previous: previous?.acacia,
      version: "2025-02-24.acacia",
    });
    history.happenings.push({
      type,
      objectId: object.id,
      at: clock,
      body: history.shape === "acacia" ? acacia : endive,
      twin: history.shape === "endive" ? endive : acacia,
    });
  }

  function tellThinly(
    event: string,
    type: string,
    { id, object }: StripeObject,
    shownBy: string | null,
  ): void {
    const body = JSON.stringify({
      id: event,
      object: "v2.core.event",
      type: `v1.${type}`,
      livemode: false,
      created: new Date(clock * 1000).toISOString(),
      context: null,
      reason: null,
      related_object: { id, type: object, url: `/v1/${object}s/${id}` },
      ...(shownBy === null ? {} : { snapshot_event: shownBy }),
    });
    history.happenings.push({ type: `v1.${type}`, objectId: id, at: clock, body, twin: body });
  }

  function change(object: StripeObject, changes: JsonObject, ...types: string[]): void {
    const before = { endive: snapshot(object), acacia: asBeforeBasil(object) };
    Object.assign(object, structuredClone(changes));
    const previous = {
      endive: previousAttributes(before.endive, snapshot(object)),
      acacia: previousAttributes(before.acacia, asBeforeBasil(object)),
    };
    for (const type of random.shuffled(types)) {
      announce(type, object, type.endsWith(".updated") ? previous : undefined);
    }
  }

  function changeOnRequest(
    kind: string,
    object: StripeObject,
    changes: JsonObject,
    type: string,
  ): void {
    const since = history.happenings.length;
    change(object, changes, type);
    if (history.happenings.length === since || !random.chance(0.4)) return;
    const answer = snapshot(object) as StripeObject;
    history.calls.push({ number: history.calls.length, kind, since, at: clock, answer });
  }

  return {
    random,
    history,
    now: () => clock,
    pass: (seconds) => void (clock += seconds),
    breathe: () => void (clock += random.chance(0.7) ? 0 : random.whole(1, 3)),
    id,
    announce,
    change,
    changeOnRequest,
    become,
    end: (id) => structuredClone(history.states.get(id)?.at(-1)?.whole),
  };
}
