/**
 * A stand-in for api.stripe.com for development and tests: stateful, driven by a clock one can hold and advance.
 *
 * It speaks API version 2026-10-28.endive and simulates what a subscription's life needs. It never proves anything
 * about Stripe's own servers.
 */
import { randomBytes } from "node:crypto";
import type Stripe from "stripe";
import { invalidRequest } from "./errors.ts";
import { days } from "./billing/periods.ts";
import { nextDue } from "./billing/due.ts";
import { createHeldClock } from "./clock.ts";
import { createControl } from "./control.ts";
import { createDelivery, type Delivery, type WebhookEndpoint } from "./delivery.ts";
import { createApi, type ApiControl } from "./http/api.ts";
import { startServer } from "./http/server.ts";
import { createIds } from "./ids.ts";
import { enterPromotionCode, payCheckout, type CheckoutOutcome } from "./billing/checkout.ts";
import { createPrice, type NewPrice } from "./objects/prices.ts";
import { createProduct, type ProductEdit } from "./objects/products.ts";
import {
  closeDispute,
  disputeCharge,
  warnOfFraud,
  type DisputeKind,
  type DisputeOutcome,
} from "./objects/disputes.ts";
import { failRefund } from "./objects/refunds.ts";
import { refreshEntitlements } from "./objects/entitlements.ts";
import { findTestCard } from "./objects/test_cards.ts";
import { createPages } from "./pages.ts";
import type { ThinEvent } from "./thin.ts";
import { eventAs } from "./versions.ts";
import { createSimulation, type BillingRules } from "./simulation.ts";

export type { Attempt, Delivery, DeliverySettings, WebhookEndpoint } from "./delivery.ts";
export type { ApiControl, Fault } from "./http/api.ts";
export type { BillingRules } from "./simulation.ts";
export type { CheckoutOutcome } from "./billing/checkout.ts";
export { apiVersion, oldApiVersion } from "./versions.ts";
export { testCards } from "./objects/test_cards.ts";

export interface StripeSimulatorOptions {
  /** A free one unless given. */
  port?: number;
  apiKey?: string;
  webhook?: WebhookEndpoint;
  /** Unix seconds; the present unless given. */
  startAt?: number;
  /**
   * False: time stands still between advances, and tests are deterministic. True: it flows on from wherever it was set,
   * and what falls due happens by itself.
   */
  flows?: boolean;
  /**
   * Awaited whenever an advance has moved the clock, before anything due at that moment happens. Another clock that
   * must never be behind Stripe's is moved here.
   */
  onTick?: (nowSeconds: number) => Promise<void>;
  rules?: Partial<BillingRules>;
  /** Real milliseconds before each retry of a webhook. */
  retryDelaysMs?: number[];
  webhookTimeoutMs?: number;
  /** The same seed gives the same ids in the same order. */
  seed?: string;
  log?: (line: string) => void;
}

export interface StripeSimulator {
  /** Such as `http://127.0.0.1:55325`. */
  url: string;
  apiKey: string;
  webhookSecret: string;
  clock: {
    now(): number;
    /**
     * Walks to a moment through everything that falls due on the way, in order. Resolves when the webhooks of it all
     * are delivered or given up.
     */
    advanceTo(seconds: number): Promise<void>;
    advanceBy(seconds: number): Promise<void>;
  };
  delivery: Delivery;
  api: ApiControl;
  /**
   * The API version of the webhook endpoint: events from now on have its shape. Everything before 2025-03-31.basil is
   * shaped as 2025-02-24.acacia.
   */
  setEndpointVersion(version: string): void;
  /** An event as an endpoint of another API version would have got it: the same id in the other shape. */
  eventAs(event: Stripe.Event, version: string): Stripe.Event;
  /** Events of these types (`*` for all) are told as thin events too, each with its snapshot. */
  tellThinly(types: string[]): void;
  thinEvents(): ThinEvent[];
  /** Every event so far, oldest first; Stripe's API itself shows those of the last 30 days. */
  events(): Stripe.Event[];
  /**
   * Pays a checkout session as its customer would, with a test card (number, last four digits or `pm_card_…`), and
   * waits for the webhooks as Stripe's page does before it redirects. A promotion code is typed in first.
   */
  pay(
    sessionId: string,
    options?: { card?: string; promotionCode?: string },
  ): Promise<CheckoutOutcome>;
  /**
   * The next charges are declined, whatever the card; decline code `generic_decline` unless said. Zero lets those
   * succeed that would still fail.
   */
  failNextPayments(count: number, declineCode?: string): void;
  /** What the customer's bank does to a charge; resolves when its webhooks are delivered. */
  disputeCharge(
    charge: string,
    options?: { reason?: string; kind?: DisputeKind },
  ): Promise<Stripe.Dispute>;
  closeDispute(dispute: string, outcome: DisputeOutcome): Promise<Stripe.Dispute>;
  warnOfFraud(charge: string): Promise<Stripe.Radar.EarlyFraudWarning>;
  /** A refund that seemed to have gone through fails. */
  failRefund(refund: string): Promise<Stripe.Refund>;
  /** How the account's billing is set up from now on. */
  setRules(rules: Partial<BillingRules>): BillingRules;
  /** The next invoices cannot be finalized; they stay drafts, and their subscription as it is. */
  failNextFinalizations(count: number): void;
  /** The next events are made twice, with two ids, as Stripe does now and then. */
  doubleNextEvents(count: number): void;
  /** Adds a product or price under an id of the caller's choosing; one that is there already stays as it is. */
  addProduct(product: ProductEdit & { id: string; name: string }): Stripe.Product;
  addPrice(price: NewPrice & { id: string }): Stripe.Price;
  stop(): Promise<void>;
}

/** Stripe's page waits this long for the webhook's answer before it redirects. */
const redirectPatienceMs = 10_000;

export async function createStripeSimulator({
  port = 0,
  apiKey = "sk_test_simulator",
  webhook,
  startAt = Math.floor(Date.now() / 1000),
  flows = false,
  onTick,
  rules,
  retryDelaysMs = [100, 400, 1_600],
  webhookTimeoutMs = 10_000,
  seed,
  log = () => undefined,
}: StripeSimulatorOptions = {}): Promise<StripeSimulator> {
  const webhookSecret = webhook?.secret ?? `whsec_${randomBytes(24).toString("hex")}`;
  const clock = createHeldClock({ startAt, flows });
  let url = "";

  const delivery = createDelivery({
    endpoint: webhook,
    retryDelaysMs,
    timeoutMs: webhookTimeoutMs,
    findEvent: (id) => simulation.store.thinEvents.get(id) ?? simulation.store.events.require(id),
    log,
  });
  const simulation = createSimulation({
    rules: { ...defaultRules, ...rules },
    newId: createIds(seed),
    now: clock.now,
    baseUrl: () => url,
    deliver: delivery.enqueue,
    walkTo: (seconds) => advanceTo(() => seconds),
  });
  const api = createApi({ simulation, apiKey, settled: runDue });

  /** A draft waits while no endpoint has accepted its `invoice.created`, but not longer than three days. */
  function mayFinalize(invoice: Stripe.Invoice): boolean {
    if (clock.now() >= invoice.created + days(3)) return true;
    const created = simulation.store.creationEvents.get(invoice.id);
    return created === undefined || !delivery.wasRefused(created);
  }

  function runDue(): void {
    for (;;) {
      refreshEntitlements(simulation);
      const work = nextDue(simulation, clock.now(), mayFinalize);
      if (work === undefined) return;
      work.run();
    }
  }

  async function moveTo(moment: number): Promise<void> {
    if (moment <= clock.now()) return;
    clock.set(moment);
    await onTick?.(moment);
  }

  async function walkTo(target: number): Promise<void> {
    if (target < clock.now()) throw new Error("The simulator's clock cannot go back.");
    await delivery.idle();
    for (;;) {
      const work = nextDue(simulation, target, mayFinalize);
      if (work === undefined) break;
      await moveTo(work.at);
      runDue();
      await delivery.idle();
    }
    await moveTo(target);
    await delivery.idle();
  }

  let walking = Promise.resolve();
  /** One walk at a time. */
  function advanceTo(target: () => number): Promise<void> {
    const walk = walking.then(() => walkTo(target()));
    walking = walk.catch(() => undefined);
    return walk;
  }

  /** Acts, and waits for the webhooks of it, within reason. */
  async function whenDelivered<T>(act: () => T): Promise<T> {
    const outcome = act();
    runDue();
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, redirectPatienceMs);
    });
    await Promise.race([delivery.idle(), patience]);
    clearTimeout(timer);
    return outcome;
  }

  const simulator: StripeSimulator = {
    url,
    apiKey,
    webhookSecret,
    clock: {
      now: clock.now,
      advanceTo: (seconds) => advanceTo(() => seconds),
      advanceBy: (seconds) => advanceTo(() => clock.now() + seconds),
    },
    delivery,
    api,
    setEndpointVersion(version) {
      simulation.endpointVersion = version;
    },
    tellThinly(types) {
      simulation.thinTypes = new Set(types);
    },
    thinEvents: () => simulation.store.thinEvents.all(),
    eventAs: (event, version) => eventAs(simulation.store, event, version),
    events: () => simulation.store.events.all(),
    async pay(sessionId, { card = "4242424242424242", promotionCode } = {}) {
      const session = simulation.store.sessions.require(sessionId);
      if (promotionCode !== undefined) enterPromotionCode(simulation, session, promotionCode);
      return whenDelivered(() => payCheckout(simulation, session, requireCard(card)));
    },
    failNextPayments(count, declineCode = "generic_decline") {
      if (count === 0) simulation.forcedDeclines.length = 0;
      for (let n = 0; n < count; n += 1) simulation.forcedDeclines.push(declineCode);
    },
    disputeCharge: (charge, options) =>
      whenDelivered(() =>
        disputeCharge(simulation, simulation.store.charges.require(charge), options),
      ),
    closeDispute: (id, outcome) =>
      whenDelivered(() => {
        const dispute = simulation.store.disputes.require(id);
        closeDispute(simulation, dispute, outcome);
        return dispute;
      }),
    warnOfFraud: (charge) =>
      whenDelivered(() => warnOfFraud(simulation, simulation.store.charges.require(charge))),
    failRefund: (id) =>
      whenDelivered(() => {
        const refund = simulation.store.refunds.require(id);
        failRefund(simulation, refund);
        return refund;
      }),
    setRules: (changes) => Object.assign(simulation.rules, changes),
    failNextFinalizations(count) {
      simulation.failingFinalizations = count;
    },
    doubleNextEvents(count) {
      simulation.doubledEvents = count;
    },
    addProduct: (product) =>
      simulation.store.products.get(product.id) ?? createProduct(simulation, product),
    addPrice: (price) => simulation.store.prices.get(price.id) ?? createPrice(simulation, price),
    async stop() {
      clearInterval(ticking);
      delivery.close();
      await server.stop();
    },
  };

  const server = await startServer({
    port,
    api,
    sections: [createControl(simulator), createPages({ simulation, whenDelivered })],
  });
  url = `http://127.0.0.1:${server.port}`;
  simulator.url = url;
  const ticking = flows ? setInterval(runDue, 1_000) : undefined;
  return simulator;
}

const defaultRules: BillingRules = {
  finalizeAfter: 3_600,
  retryAfter: [days(3), days(5), days(7)],
  afterLastRetry: "cancel",
  upcomingBefore: days(7),
  trialWillEndBefore: days(3),
  incompleteFor: 23 * 3_600,
};

function requireCard(name: string) {
  const card = findTestCard(name);
  if (card === undefined) throw invalidRequest(`No test card is known as ${name}.`);
  return card;
}
