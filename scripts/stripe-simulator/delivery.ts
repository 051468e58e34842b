/**
 * Sends events to a webhook endpoint as Stripe does — signed, one body per event, retried — or as badly as a test
 * wants: held, shuffled, duplicated, delayed, dropped.
 */
import Stripe from "stripe";
import type { ThinEvent } from "./thin.ts";

/** A snapshot event, or the notification of a thin one. */
export type Deliverable = Stripe.Event | ThinEvent;

export interface WebhookEndpoint {
  url: string;
  secret: string;
}

export interface DeliverySettings {
  /** Keep events back until `release`. */
  hold: boolean;
  /** How many times more each event is sent. */
  duplicates: number;
  /** Real milliseconds each delivery waits before it is sent; others overtake it. */
  delayMs: number;
  /** The next so many events are lost. */
  dropNext: number;
  /** Events of these types are lost. */
  dropTypes: string[];
}

export interface Attempt {
  event: string;
  type: string;
  /** The endpoint's HTTP status; null when it did not answer. */
  status: number | null;
  ok: boolean;
  /** Wall-clock time, ISO 8601. */
  at: string;
}

export interface Delivery {
  settings(): DeliverySettings;
  configure(settings: Partial<DeliverySettings>): void;
  hold(): void;
  /** Sends what was held, shuffled when a seed is given, and holds no more. Resolves when all is delivered. */
  release(options?: { seed?: number }): Promise<void>;
  /** Sends an event again, whatever the settings. Resolves when it is delivered or given up. */
  resend(eventId: string): Promise<void>;
  /** Resolves when nothing is under way; held events do not count. */
  idle(): Promise<void>;
  /** Events that are held, oldest first. */
  held(): Deliverable[];
  dropped(): Deliverable[];
  attempts(): Attempt[];
  pointAt(endpoint: WebhookEndpoint | undefined): void;
}

export interface DeliveryDeps {
  endpoint: WebhookEndpoint | undefined;
  /** Real milliseconds before each retry; their number is the number of retries. */
  retryDelaysMs: number[];
  timeoutMs: number;
  findEvent: (id: string) => Deliverable;
  log: (line: string) => void;
}

export interface DeliveryQueue extends Delivery {
  enqueue(event: Deliverable): void;
  /** Whether every attempt for an event was refused. */
  wasRefused(event: Deliverable): boolean;
  /** Sends nothing any more. */
  close(): void;
}

export function createDelivery({
  endpoint: firstEndpoint,
  retryDelaysMs,
  timeoutMs,
  findEvent,
  log,
}: DeliveryDeps): DeliveryQueue {
  let endpoint = firstEndpoint;
  let settings: DeliverySettings = {
    hold: false,
    duplicates: 0,
    delayMs: 0,
    dropNext: 0,
    dropTypes: [],
  };
  const held: Deliverable[] = [];
  const dropped: Deliverable[] = [];
  const attempts: Attempt[] = [];
  const refused = new Set<string>();
  const underWay = new Set<Promise<void>>();
  const closing = new AbortController();
  let line = Promise.resolve();

  /** First attempts go one after the other, so that without mischief events arrive in order. */
  function send(event: Deliverable): Promise<void> {
    const waits = settings.delayMs > 0 ? pause(settings.delayMs) : undefined;
    let first: Promise<boolean>;
    if (waits === undefined) {
      first = line.then(() => attempt(event));
      line = first.then(() => undefined);
    } else {
      first = waits.then(() => attempt(event));
    }
    const whole = first.then((accepted) => (accepted ? undefined : retry(event)));
    track(whole);
    return whole;
  }

  function track(work: Promise<void>): void {
    underWay.add(work);
    void work.finally(() => underWay.delete(work));
  }

  async function retry(event: Deliverable): Promise<void> {
    for (const delay of retryDelaysMs) {
      await pause(delay);
      if (closing.signal.aborted || (await attempt(event))) return;
    }
    if (closing.signal.aborted) return;
    refused.add(event.id);
    log(`gave up delivering ${event.type} (${event.id})`);
  }

  async function attempt(event: Deliverable): Promise<boolean> {
    const target = endpoint;
    if (target === undefined || closing.signal.aborted) return true;
    const status = await post(target, event);
    const ok = status !== null && status >= 200 && status < 300;
    attempts.push({
      event: event.id,
      type: event.type,
      status,
      ok,
      at: new Date().toISOString(),
    });
    log(`${event.type} → ${status ?? "no answer"}`);
    if (ok) {
      accept(event);
      refused.delete(event.id);
    }
    return ok;
  }

  async function post({ url, secret }: WebhookEndpoint, event: Deliverable) {
    const payload = JSON.stringify(event, null, 2);
    try {
      const signature = await Stripe.webhooks.generateTestHeaderStringAsync({ payload, secret });
      const response = await fetch(url, {
        method: "POST",
        headers: {
          "content-type": "application/json; charset=utf-8",
          "stripe-signature": signature,
          "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        },
        body: payload,
        redirect: "manual",
        signal: AbortSignal.any([AbortSignal.timeout(timeoutMs), closing.signal]),
      });
      await response.arrayBuffer();
      return response.status;
    } catch {
      return null;
    }
  }

  /** Ends early when the simulator stops, so that nothing keeps the process alive. */
  function pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      closing.signal.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  async function idle(): Promise<void> {
    while (underWay.size > 0) await Promise.all(underWay);
  }

  return {
    enqueue(event) {
      if (endpoint === undefined) {
        accept(event);
        return;
      }
      const counted = settings.dropNext > 0;
      if (counted) settings.dropNext -= 1;
      if (counted || settings.dropTypes.includes(event.type)) {
        dropped.push(event);
        return;
      }
      const copies = Array.from({ length: 1 + settings.duplicates }, () => event);
      if (settings.hold) held.push(...copies);
      else for (const copy of copies) void send(copy);
    },
    settings: () => ({ ...settings }),
    configure(changes) {
      settings = { ...settings, ...changes };
    },
    hold() {
      settings.hold = true;
    },
    async release({ seed } = {}) {
      settings.hold = false;
      const events = held.splice(0);
      for (const event of seed === undefined ? events : shuffled(events, seed)) void send(event);
      await idle();
    },
    async resend(eventId) {
      await send(findEvent(eventId));
    },
    idle,
    held: () => [...held],
    dropped: () => [...dropped],
    attempts: () => [...attempts],
    pointAt(target) {
      endpoint = target;
    },
    wasRefused: (event) => refused.has(event.id),
    close: () => closing.abort(),
  };
}

/** Notes on a snapshot event that nobody waits for it any more. */
function accept(event: Deliverable): void {
  if ("pending_webhooks" in event) event.pending_webhooks = 0;
}

/** A permutation that is the same for the same seed. */
export function shuffled<T>(values: readonly T[], seed: number): T[] {
  const result = [...values];
  let state = seed >>> 0;
  for (let last = result.length - 1; last > 0; last -= 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const chosen = Math.floor((state / 2 ** 32) * (last + 1));
    [result[last], result[chosen]] = [result[chosen] as T, result[last] as T];
  }
  return result;
}
