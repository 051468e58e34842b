/**
 * Stripe as lives need it: knows how every object was at every moment of a life, and is asked while the life's
 * events are on their way.
 */
import {
  copyMark,
  type Call,
  type History,
  type State,
} from "../../supabase/tests/support/history/index.ts";
import type { Random } from "../../supabase/tests/support/random.ts";
import { second, type StripeObject } from "../../supabase/tests/support/stripe-objects.ts";

/** A life that is being told. */
export interface Telling {
  history: History;
  /** How many of its events have happened by now, at least: those that were delivered are among them. */
  now: number;
  /** Our calls that have not reached Stripe yet, in order. */
  calls: Call[];
  /** Those that have: Stripe answers them again as it did. */
  made: Call[];
}

export interface ClaimedCommand {
  id: string;
  lease: string;
  method: string;
  path: string;
  params: { call?: number; subscription?: string; starting_after?: string };
}

export interface Answer {
  command: ClaimedCommand;
  status: number;
  body: unknown;
  /** The Date header. */
  date: string;
  elapsedSeconds: number;
}

export interface Stripe {
  /** Stripe does what a life says from now on: its calls are made by us, or by others. */
  live(history: History, calls?: Call[]): Telling;
  /** Answers a call that was claimed a moment ago: it came now or some events later. */
  answer(command: ClaimedCommand): Answer;
}

export function createStripe(random: Random): Stripe {
  const tellings = new Map<string, Telling>();

  function live(history: History, calls: Call[] = []): Telling {
    const telling = { history, now: 0, calls: [...calls], made: [] };
    tellings.set(`${history.seed}${copyMark}${history.copy}`, telling);
    return telling;
  }

  function answer(command: ClaimedCommand): Answer {
    const about = command.params.subscription ?? command.path;
    const telling = tellings.get(lifeIn(about));
    if (telling === undefined) {
      const nothing = { object: "list", data: [], has_more: false };
      return { command, status: 200, body: nothing, ...dated(second("2026-03-15")) };
    }
    const { history } = telling;
    const call = takeCall(telling, command);
    if (call !== undefined) {
      telling.now = Math.max(telling.now, call.since + 1);
      return { command, status: 200, body: call.answer, ...dated(call.at) };
    }
    const moment = aMomentFrom(telling);
    telling.now = moment;
    const kept = telling.made.find(({ number }) => isFor(command, number));
    if (kept !== undefined) {
      return { command, status: 200, body: kept.answer, ...dated(aSecondAt(history, moment)) };
    }
    return {
      command,
      ...answerTo(command, lookUp(history, idIn(about), moment)),
      ...dated(aSecondAt(history, moment)),
    };
  }

  function aMomentFrom({ history, now, calls }: Telling): number {
    const latest = calls[0]?.since ?? history.happenings.length;
    return random.chance(0.5) ? now : random.whole(now, latest);
  }

  function aSecondAt({ happenings }: History, moment: number): number {
    const last = happenings[moment - 1]?.at ?? 0;
    const next = Math.max(last, happenings[moment]?.at ?? last + 60);
    return random.chance(0.7) ? last : random.whole(last, next);
  }

  /** The answer is dated when it is ready, after that second, and takes its time. */
  function dated(at: number) {
    const elapsedSeconds = random.pick([0.1, 0.4, 1.5, 4]);
    const ready = at + random.whole(0, Math.floor(elapsedSeconds));
    return { date: new Date(ready * 1000).toUTCString(), elapsedSeconds };
  }

  return { live, answer };
}

function takeCall({ calls, made }: Telling, command: ClaimedCommand): Call | undefined {
  const [next] = calls;
  if (next === undefined || !isFor(command, next.number)) return undefined;
  made.push(next);
  return calls.shift();
}

function isFor({ method, params }: ClaimedCommand, number: number): boolean {
  return method === "POST" && params.call === number;
}

/** Which life an id or path is of: `seed~copy`. */
export function lifeIn(path: string): string {
  const [, seed, copy] = new RegExp(`_(\\d+)(?:_\\d+)?${copyMark}([A-Z]+)`).exec(path) ?? [];
  return `${seed}${copyMark}${copy}`;
}

function idIn(path: string): string {
  return path.split("/").find((part) => part.includes(copyMark)) ?? "";
}

/** How an object was when so many events had happened. */
function lookUp({ states }: History, id: string, moment: number): State | undefined {
  return states.get(id)?.findLast(({ since }) => since < moment);
}

function answerTo(
  { path, params }: ClaimedCommand,
  state: State | undefined,
): { status: number; body: unknown } {
  if (params.subscription !== undefined) return answerWithPage(state, "items", params);
  if (path.endsWith("/lines")) return answerWithPage(state, "lines", params);
  return answerWith(state?.object);
}

/** Pages are smaller than was asked for, so that there are several. */
function answerWithPage(
  state: State | undefined,
  name: string,
  { starting_after: after }: ClaimedCommand["params"],
): { status: number; body: unknown } {
  if (state === undefined) return answerWith(undefined);
  const { data } = state.whole[name] as unknown as { data: StripeObject[] };
  const first = after === undefined ? 0 : data.findIndex(({ id }) => id === after) + 1;
  if (after !== undefined && first === 0) return missing("starting_after");
  const page = data.slice(first, first + 5);
  const hasMore = first + page.length < data.length;
  return { status: 200, body: { object: "list", data: page, has_more: hasMore } };
}

function answerWith(object: StripeObject | undefined): { status: number; body: unknown } {
  const isThere = object?.["deleted"] !== true || object.object === "customer";
  if (object !== undefined && isThere) return { status: 200, body: object };
  return missing("id");
}

function missing(param: string): { status: number; body: unknown } {
  const error = {
    code: "resource_missing",
    message: "No such object.",
    param,
    type: "invalid_request_error",
  };
  return { status: 404, body: { error } };
}
