import type Stripe from "stripe";
import type { NewId } from "./ids.ts";
import { apiVersion, eventAs } from "./versions.ts";
import { previousAttributes, snapshot } from "./snapshots.ts";
import type { Deliverable } from "./delivery.ts";
import { emitThin, thinTwin } from "./thin.ts";
import { createStore, type Store } from "./store.ts";

export { idOf } from "./ids.ts";
export { apiVersion } from "./versions.ts";

/** How Stripe's billing is set up for the account; durations are in seconds of the simulator's clock. */
export interface BillingRules {
  /** A renewal's invoice stays a draft this long. */
  finalizeAfter: number;
  /** Waits between one failed automatic payment and the next; their number is the number of retries. */
  retryAfter: number[];
  /** What becomes of a subscription whose last retry failed. */
  afterLastRetry: "cancel" | "past_due" | "pause" | "unpaid";
  /** `invoice.upcoming` is sent this long before a renewal. */
  upcomingBefore: number;
  /** `customer.subscription.trial_will_end` is sent this long before a trial's end. */
  trialWillEndBefore: number;
  /** An `incomplete` subscription, or an update that waits for its payment, expires after this long. */
  incompleteFor: number;
}

/** The API request that makes something happen; null members when time does. */
export interface Cause {
  id: string | null;
  idempotency_key: string | null;
}

/** Everything the simulated account is. Handlers change it synchronously, so each request is atomic. */
export interface Simulation {
  store: Store;
  rules: BillingRules;
  newId: NewId;
  now(): number;
  /** Where the simulator's pages are, such as `http://127.0.0.1:55325`. */
  baseUrl(): string;
  cause: Cause;
  /** The next charges that are declined whatever the card. */
  forcedDeclines: string[];
  /** How many of the next finalizations fail. */
  failingFinalizations: number;
  /** How many of the next events are made twice, each with an id of its own. */
  doubledEvents: number;
  /** The API version of the webhook endpoint, in whose shape events are made. */
  endpointVersion: string;
  /** Walks the clock to a moment; resolves when everything due on the way has happened. */
  walkTo(seconds: number): Promise<void>;
  /** Snapshot events of these types are told thinly as well; `*` means all. */
  thinTypes: Set<string>;
  deliver(event: Deliverable): void;
  /** Records an event and hands it to delivery. `object` is copied as webhooks show it. */
  emit(type: Stripe.Event.Type, object: object, previous?: object): void;
}

export const noCause: Cause = { id: null, idempotency_key: null };

export interface SimulationDeps {
  rules: BillingRules;
  newId: NewId;
  now: () => number;
  baseUrl: () => string;
  deliver: (event: Deliverable) => void;
  walkTo: (seconds: number) => Promise<void>;
}

export function createSimulation({
  rules,
  newId,
  now,
  baseUrl,
  deliver,
  walkTo,
}: SimulationDeps): Simulation {
  const store = createStore();

  function record(type: Stripe.Event.Type, object: object, previous?: object): void {
    const event = {
      id: newId("evt"),
      object: "event",
      api_version: apiVersion,
      created: now(),
      data: {
        object: snapshot(object),
        ...(previous === undefined ? {} : { previous_attributes: previous }),
      },
      livemode: false,
      pending_webhooks: 1,
      request: { ...simulation.cause },
      type,
    } as unknown as Stripe.Event;
    const shown = eventAs(store, event, simulation.endpointVersion);
    store.events.add(shown);
    if (type === "invoice.created" && "id" in object) {
      store.creationEvents.set(String(object.id), shown);
    }
    deliver(shown);
    const thin = simulation.thinTypes.has("*") || simulation.thinTypes.has(type);
    const twin = thin ? thinTwin(event) : undefined;
    if (twin !== undefined) emitThin(simulation, twin);
  }

  const simulation: Simulation = {
    store,
    rules,
    newId,
    now,
    baseUrl,
    cause: noCause,
    forcedDeclines: [],
    failingFinalizations: 0,
    doubledEvents: 0,
    endpointVersion: apiVersion,
    thinTypes: new Set(),
    walkTo,
    deliver,
    emit(type, object, previous) {
      const twice = simulation.doubledEvents > 0;
      if (twice) simulation.doubledEvents -= 1;
      for (let copy = 0; copy < (twice ? 2 : 1); copy += 1) record(type, object, previous);
    },
  };
  return simulation;
}

/** Objects whose every change Stripe announces, and the event's type. */
const updateEvents: Record<string, Stripe.Event.Type> = {
  customer: "customer.updated",
  product: "product.updated",
  price: "price.updated",
  coupon: "coupon.updated",
  "billing.meter": "billing.meter.updated",
  promotion_code: "promotion_code.updated",
  payment_method: "payment_method.updated",
  subscription: "customer.subscription.updated",
  subscription_schedule: "subscription_schedule.updated",
  invoice: "invoice.updated",
  charge: "charge.updated",
  refund: "refund.updated",
  tax_id: "customer.tax_id.updated",
  dispute: "charge.dispute.updated",
  credit_note: "credit_note.updated",
};

/**
 * Changes an object and announces it: an `*.updated` event with the previous values when something did change,
 * then the events named, which Stripe sends for what the change means.
 */
export function change<T extends { object: string }>(
  simulation: Simulation,
  object: T,
  mutate: (object: T) => void,
  ...meaning: Stripe.Event.Type[]
): void {
  const before = snapshot(object);
  mutate(object);
  const previous = previousAttributes(before, snapshot(object));
  const updateEvent = updateEvents[object.object];
  if (previous !== undefined && updateEvent !== undefined) {
    simulation.emit(updateEvent, object, previous);
  }
  for (const type of meaning) simulation.emit(type, object);
}
