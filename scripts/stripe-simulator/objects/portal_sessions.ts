import type Stripe from "stripe";
import { pauseSubscription } from "../billing/pausing.ts";
import { hash, list, natural, oneOf, required, text, type Params } from "../http/params.ts";
import { route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { hasEnded } from "../billing/ending.ts";
import { invalidRequest } from "../errors.ts";
import { attachPaymentMethod, createPaymentMethod } from "./payment_methods.ts";
import { updateSubscription } from "./subscriptions.ts";
import type { TestCard } from "./test_cards.ts";

const flowData = {
  type: required(
    oneOf(
      "customer_update",
      "payment_method_update",
      "subscription_cancel",
      "subscription_pause",
      "subscription_update",
      "subscription_update_confirm",
    ),
  ),
  after_completion: hash({
    type: required(oneOf("hosted_confirmation", "portal_homepage", "redirect")),
    hosted_confirmation: hash({ custom_message: text }),
    redirect: hash({ return_url: required(text) }),
  }),
  subscription_cancel: hash({ subscription: required(text) }),
  subscription_pause: hash({ subscription: required(text) }),
  subscription_update: hash({ subscription: required(text) }),
  subscription_update_confirm: hash({
    subscription: required(text),
    items: required(list(hash({ id: required(text), price: text, quantity: natural }))),
  }),
};

/** A flow opens the portal at one task, and says where its end leads. */
function readFlow(
  simulation: Simulation,
  customer: string,
  data: Params<typeof flowData>,
): Stripe.BillingPortal.Session.Flow {
  const { after_completion: after, subscription_update_confirm: confirm } = data;
  const needed = data.type.startsWith("subscription_") ? flowSubscription(data) : undefined;
  if (data.type.startsWith("subscription_")) {
    if (needed === undefined) {
      throw invalidRequest(`Missing required param: flow_data[${data.type}].`, {
        code: "parameter_missing",
        param: `flow_data[${data.type}]`,
      });
    }
    const subscription = simulation.store.subscriptions.require(needed, "subscription");
    if (subscription.customer !== customer || hasEnded(subscription)) {
      throw invalidRequest(
        "The subscription of this flow does not belong to the customer, or has ended.",
        { param: `flow_data[${data.type}][subscription]` },
      );
    }
  }
  return {
    type: data.type,
    after_completion: {
      type: after?.type ?? "portal_homepage",
      hosted_confirmation:
        after?.type === "hosted_confirmation"
          ? { custom_message: after.hosted_confirmation?.custom_message ?? null }
          : null,
      redirect: after?.redirect === undefined ? null : { return_url: after.redirect.return_url },
    },
    customer_update: data.type === "customer_update" ? {} : null,
    subscription_cancel:
      data.subscription_cancel === undefined
        ? null
        : { retention: null, subscription: data.subscription_cancel.subscription },
    subscription_pause: data.subscription_pause ?? null,
    subscription_update: data.subscription_update ?? null,
    subscription_update_confirm:
      confirm === undefined
        ? null
        : {
            discounts: null,
            items: confirm.items.map(({ id, price, quantity }) => ({
              id,
              price: price ?? null,
              ...(quantity === undefined ? {} : { quantity }),
            })),
            subscription: confirm.subscription,
          },
  };
}

/** The subscription a flow is about; undefined for one about the customer. */
export function flowSubscription(flow: {
  [
    key in
      | "subscription_cancel"
      | "subscription_pause"
      | "subscription_update"
      | "subscription_update_confirm"
  ]?: { subscription: string } | null | undefined;
}): string | undefined {
  return (
    flow.subscription_cancel ??
    flow.subscription_pause ??
    flow.subscription_update ??
    flow.subscription_update_confirm
  )?.subscription;
}

export const portalRoutes = [
  route(
    "POST /v1/billing_portal/sessions",
    {
      customer: required(text),
      return_url: text,
      configuration: text,
      flow_data: hash(flowData),
      locale: text,
    },
    (simulation, params): Stripe.BillingPortal.Session => {
      const { store, newId, now, baseUrl } = simulation;
      const customer = store.customers.require(params.customer, "customer");
      const id = newId("bps");
      return store.portalSessions.add({
        id,
        object: "billing_portal.session",
        configuration: params.configuration ?? "bpc_simulator",
        created: now(),
        customer: customer.id,
        customer_account: null,
        flow:
          params.flow_data === undefined
            ? null
            : readFlow(simulation, customer.id, params.flow_data),
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

/** Puts the subscription's first item on another price, charged for at once as Stripe's portal does by default. */
export function switchPriceInPortal(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  price: string,
  quantity: number | undefined,
): void {
  const [item] = subscription.items.data;
  confirmInPortal(simulation, subscription, [
    { id: item?.id ?? null, price, quantity: quantity ?? item?.quantity ?? 1 },
  ]);
}

export function confirmInPortal(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  items: Stripe.BillingPortal.Session.Flow.SubscriptionUpdateConfirm.Item[],
): void {
  updateSubscription(simulation, subscription, {
    items: items.map(({ id, price, quantity }) => ({
      id: id ?? undefined,
      price: price ?? undefined,
      quantity,
      deleted: undefined,
      clear_usage: undefined,
      metadata: undefined,
    })),
    proration_behavior: "always_invoice",
    payment_behavior: "pending_if_incomplete",
  });
}

export function pauseInPortal(simulation: Simulation, subscription: Stripe.Subscription): void {
  pauseSubscription(simulation, subscription, { credits: true, invoiceNow: false });
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
