import type Stripe from "stripe";
import { text, required } from "../http/params.ts";
import { route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { hasEnded } from "../billing/ending.ts";
import { invalidRequest } from "../errors.ts";
import { attachPaymentMethod, createPaymentMethod } from "./payment_methods.ts";
import { updateSubscription } from "./subscriptions.ts";
import type { TestCard } from "./test_cards.ts";

export const portalRoutes = [
  route(
    "POST /v1/billing_portal/sessions",
    { customer: required(text), return_url: text, configuration: text, locale: text },
    ({ store, newId, now, baseUrl }, params): Stripe.BillingPortal.Session => {
      const customer = store.customers.require(params.customer, "customer");
      const id = newId("bps");
      return store.portalSessions.add({
        id,
        object: "billing_portal.session",
        configuration: params.configuration ?? "bpc_simulator",
        created: now(),
        customer: customer.id,
        customer_account: null,
        flow: null,
        livemode: false,
        locale: params.locale ?? null,
        on_behalf_of: null,
        return_url: params.return_url ?? null,
        url: `${baseUrl()}/p/session/${id}`,
      });
    },
  ),
];

/** The live subscription a portal's button is about. */
export function portalSubscription(
  { store }: Simulation,
  session: Stripe.BillingPortal.Session,
  id: string,
): Stripe.Subscription {
  const subscription = store.subscriptions.require(id);
  if (subscription.customer !== session.customer || hasEnded(subscription)) {
    throw invalidRequest(`No such subscription: '${id}'`);
  }
  return subscription;
}

/** Cancels at the period's end the way Stripe's portal does for flexible billing: by date, not by flag. */
export function cancelInPortal(simulation: Simulation, subscription: Stripe.Subscription): void {
  updateSubscription(simulation, subscription, { cancel_at: "min_period_end" });
}

export function keepInPortal(simulation: Simulation, subscription: Stripe.Subscription): void {
  updateSubscription(simulation, subscription, { cancel_at: null });
}

/** Makes a card the default of the customer and of every live subscription. */
export function switchCard(
  simulation: Simulation,
  customer: Stripe.Customer,
  card: TestCard,
): Stripe.PaymentMethod {
  const method = attachPaymentMethod(
    simulation,
    createPaymentMethod(simulation, card).id,
    customer,
  );
  change(simulation, customer, () => {
    customer.invoice_settings.default_payment_method = method.id;
  });
  for (const subscription of simulation.store.subscriptions.all()) {
    if (idOf(subscription.customer) !== customer.id || hasEnded(subscription)) continue;
    change(simulation, subscription, () => {
      subscription.default_payment_method = method.id;
    });
  }
  return method;
}
