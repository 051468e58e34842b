/** A simulator with a webhook endpoint of its own and Stripe's SDK pointed at it. */
import { createServer } from "node:http";
import Stripe from "stripe";
import {
  createStripeSimulator,
  type StripeSimulator,
  type StripeSimulatorOptions,
} from "../../../scripts/stripe-simulator/index.ts";

export interface Harness {
  simulator: StripeSimulator;
  stripe: Stripe;
  /** Verified events in the order of their arrival. */
  received: Stripe.Event[];
  /** The endpoint's answers; 200 unless set. */
  answer: (event: Stripe.Event) => number;
  onEvent: (event: Stripe.Event) => Promise<void>;
  /** Notifications of thin events, verified too. */
  onThin: (notification: Stripe.V2.Core.EventNotification) => void;
  checkout(options?: { trialDays?: number }): Promise<Stripe.Checkout.Session>;
  subscribe(options?: {
    trialDays?: number;
    card?: string;
    amount?: number;
  }): Promise<{ id: string; customer: string; item: string }>;
  stop(): Promise<void>;
}

export function second(moment: string): number {
  return Date.parse(moment) / 1000;
}

export async function monthly(stripe: Stripe, amount: number) {
  const product = await stripe.products.create({ name: "Premium" });
  const price = await stripe.prices.create({
    product: product.id,
    currency: "usd",
    unit_amount: amount,
    recurring: { interval: "month" },
  });
  return { product, price };
}

export async function useSimulator(options: StripeSimulatorOptions = {}): Promise<Harness> {
  const received: Stripe.Event[] = [];
  const secret = "whsec_test";
  const endpoint = createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const body = Buffer.concat(chunks);
      const signature = request.headers["stripe-signature"] ?? "";
      if (body.includes('"v2.core.event"')) {
        harness.onThin(stripe.parseEventNotification(body, signature, secret));
        response.writeHead(200).end();
        return;
      }
      const event = Stripe.webhooks.constructEvent(body, signature, secret);
      const status = harness.answer(event);
      if (status === 200) {
        received.push(event);
        await harness.onEvent(event);
      }
      response.writeHead(status).end();
    })().catch((error: unknown) => response.writeHead(400).end(String(error)));
  });
  const port = await new Promise<number>((resolve) => {
    endpoint.listen(0, "127.0.0.1", () => {
      const address = endpoint.address();
      resolve(typeof address === "object" && address !== null ? address.port : 0);
    });
  });
  const simulator = await createStripeSimulator({
    webhook: { url: `http://127.0.0.1:${port}/webhook`, secret },
    retryDelaysMs: [5, 10],
    ...options,
  });
  const stripe = new Stripe(simulator.apiKey, {
    host: "127.0.0.1",
    port: new URL(simulator.url).port,
    protocol: "http",
    maxNetworkRetries: 0,
  });

  const harness: Harness = {
    simulator,
    stripe,
    received,
    answer: () => 200,
    onEvent: () => Promise.resolve(),
    onThin: () => undefined,
    async checkout({ trialDays } = {}) {
      const { price } = await monthly(stripe, 1_000);
      return stripe.checkout.sessions.create({
        mode: "subscription",
        line_items: [{ price: price.id, quantity: 1 }],
        ...(trialDays === undefined ? {} : { subscription_data: { trial_period_days: trialDays } }),
        success_url: "https://app.test/",
      });
    },
    async subscribe({ trialDays, card = "4242", amount = 1_000 } = {}) {
      const { price } = await monthly(stripe, amount);
      const session = await stripe.checkout.sessions.create({
        mode: "subscription",
        line_items: [{ price: price.id, quantity: 1 }],
        ...(trialDays === undefined ? {} : { subscription_data: { trial_period_days: trialDays } }),
        success_url: "https://app.test/",
      });
      await simulator.pay(session.id, { card });
      const paid = await stripe.checkout.sessions.retrieve(session.id, {
        expand: ["subscription"],
      });
      const subscription = paid.subscription as Stripe.Subscription;
      return {
        id: subscription.id,
        customer: String(paid.customer),
        item: subscription.items.data[0]?.id ?? "",
      };
    },
    async stop() {
      await simulator.stop();
      endpoint.closeAllConnections();
      await new Promise((resolve) => endpoint.close(resolve));
    },
  };
  return harness;
}
