import type Stripe from "stripe";
import { amountFor } from "../billing/amounts.ts";
import { collect } from "../billing/collection.ts";
import { hasEnded } from "../billing/ending.ts";
import { createSubscription } from "../billing/lifecycle.ts";
import { days } from "../billing/periods.ts";
import { invalidRequest, notSimulated } from "../errors.ts";
import {
  flag,
  hash,
  list,
  metadata,
  natural,
  oneOf,
  range,
  required,
  text,
  type Params,
} from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { lineItemsOf } from "./checkout_line_items.ts";
import { createCustomer } from "./customers.ts";
import { attachPaymentMethod, createPaymentMethod, createSetupIntent } from "./payment_methods.ts";
import { subscribablePrice } from "./prices.ts";
import { trialEndOf, trialSettings } from "./subscriptions.ts";
import type { TestCard } from "./test_cards.ts";

const newSession = {
  mode: oneOf("payment", "setup", "subscription"),
  customer: text,
  customer_email: text,
  client_reference_id: text,
  line_items: list(hash({ price: required(text), quantity: natural })),
  metadata,
  subscription_data: hash({
    metadata,
    description: text,
    trial_period_days: natural,
    trial_end: natural,
    trial_settings: trialSettings,
    billing_mode: hash({ type: required(oneOf("flexible")) }),
  }),
  success_url: text,
  cancel_url: text,
  expires_at: natural,
  payment_method_collection: oneOf("always", "if_required"),
  allow_promotion_codes: flag,
  billing_address_collection: oneOf("auto", "required"),
  customer_update: hash({
    address: oneOf("auto", "never"),
    name: oneOf("auto", "never"),
    shipping: oneOf("auto", "never"),
  }),
  locale: text,
  ui_mode: oneOf("elements", "embedded_page", "form", "hosted_page"),
};

const minutes = (count: number) => count * 60;

function create(
  simulation: Simulation,
  params: Params<typeof newSession>,
): Stripe.Checkout.Session {
  const { store, newId, now, baseUrl } = simulation;
  if (params.mode !== "subscription") {
    throw params.mode === undefined
      ? invalidRequest("Missing required param: mode.", {
          code: "parameter_missing",
          param: "mode",
        })
      : notSimulated(`checkout sessions of mode ${params.mode}`, "mode");
  }
  if (params.ui_mode !== undefined && params.ui_mode !== "hosted_page") {
    throw notSimulated(`ui_mode ${params.ui_mode}`, "ui_mode");
  }
  if (params.success_url === undefined) {
    throw invalidRequest("Missing required param: success_url.", {
      code: "parameter_missing",
      param: "success_url",
    });
  }
  if (params.customer !== undefined && params.customer_email !== undefined) {
    throw invalidRequest("You may only specify one of these parameters: customer, customer_email.");
  }
  const items = (params.line_items ?? []).map(({ price, quantity }, index) => ({
    id: newId("li"),
    price: subscribablePrice(simulation, price, `line_items[${index}][price]`),
    quantity: quantity ?? 1,
  }));
  const first = items[0];
  if (first === undefined) {
    throw invalidRequest("You must specify line_items in subscription mode.", {
      code: "parameter_missing",
      param: "line_items",
    });
  }
  if (items.some(({ price }) => price.currency !== first.price.currency)) {
    throw invalidRequest("All prices of a checkout session must have the same currency.");
  }
  const customer =
    params.customer === undefined ? null : store.customers.require(params.customer, "customer");
  const expiresAt = params.expires_at ?? now() + days(1);
  if (expiresAt < now() + minutes(30) || expiresAt > now() + days(1)) {
    throw invalidRequest(
      "The `expires_at` timestamp must be at least 30 minutes and at most 24 hours from Checkout Session creation.",
      { param: "expires_at" },
    );
  }

  const settings = params.subscription_data;
  const trial = trialEndOf(simulation, settings ?? {}) !== null;
  const total = items.reduce((sum, { price, quantity }) => sum + amountFor(price, quantity), 0);
  const id = newId("cs_test");
  store.checkoutPlans.set(id, {
    items: items.map(({ id: item, price, quantity }) => ({ id: item, price: price.id, quantity })),
    subscriptionMetadata: changedMetadata({}, settings?.metadata),
    description: settings?.description ?? null,
    trialEnd: settings?.trial_end ?? null,
    trialPeriodDays: settings?.trial_period_days ?? null,
    missingPaymentMethod: settings?.trial_settings?.end_behavior.missing_payment_method ?? null,
  });
  return store.sessions.add({
    id,
    object: "checkout.session",
    adaptive_pricing: null,
    after_expiration: null,
    allow_promotion_codes: params.allow_promotion_codes ?? null,
    allowed_payment_method_types: null,
    amount_subtotal: trial ? 0 : total,
    amount_total: trial ? 0 : total,
    automatic_tax: { enabled: false, liability: null, provider: null, status: null },
    billing_address_collection: params.billing_address_collection ?? null,
    cancel_url: params.cancel_url ?? null,
    client_reference_id: params.client_reference_id ?? null,
    client_secret: null,
    collected_information: null,
    consent: null,
    consent_collection: null,
    created: now(),
    currency: first.price.currency,
    currency_conversion: null,
    custom_fields: [],
    custom_text: {
      after_submit: null,
      shipping_address: null,
      submit: null,
      terms_of_service_acceptance: null,
    },
    customer: customer?.id ?? null,
    customer_account: null,
    customer_creation: customer === null ? "always" : null,
    customer_details: null,
    customer_email: params.customer_email ?? null,
    discounts: [],
    expires_at: expiresAt,
    integration_identifier: null,
    invoice: null,
    invoice_creation: null,
    livemode: false,
    locale: params.locale ?? null,
    managed_payments: { enabled: false },
    metadata: changedMetadata({}, params.metadata),
    mode: "subscription",
    origin_context: null,
    payment_intent: null,
    payment_link: null,
    payment_method_collection: params.payment_method_collection ?? "always",
    payment_method_configuration_details: null,
    payment_method_options: { card: { request_three_d_secure: "automatic" } },
    payment_method_types: ["card"],
    payment_status: trial || total === 0 ? "no_payment_required" : "unpaid",
    permissions: null,
    phone_number_collection: { enabled: false },
    recovered_from: null,
    saved_payment_method_options: {
      allow_redisplay_filters: ["always"],
      payment_method_remove: "disabled",
      payment_method_save: null,
    },
    setup_intent: null,
    shipping_address_collection: null,
    shipping_cost: null,
    shipping_options: [],
    status: "open",
    submit_type: null,
    subscription: null,
    success_url: params.success_url,
    total_details: { amount_discount: 0, amount_shipping: 0, amount_tax: 0 },
    ui_mode: "hosted_page",
    url: `${baseUrl()}/c/pay/${id}`,
    wallet_options: null,
  });
}

export type CheckoutOutcome =
  { complete: true; redirectTo: string } | { complete: false; declineCode: string };

/**
 * What the customer's click on "Subscribe" does. A declined card leaves the session open and its subscription
 * incomplete; another card may be tried on the same one.
 */
export function payCheckout(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  card: TestCard,
): CheckoutOutcome {
  if (session.status !== "open") {
    throw invalidRequest(
      `This Checkout Session is ${String(session.status)} and can no longer be paid.`,
    );
  }
  const { store } = simulation;
  const customer = customerOf(simulation, session);
  const method = createPaymentMethod(simulation, card);
  method.billing_details.email = customer.email;

  const started = incompleteSubscriptionOf(simulation, session);
  const subscription = started ?? subscribe(simulation, session, customer, method);
  if (started !== undefined) {
    const invoice = store.invoices.require(idOf(started.latest_invoice) ?? "");
    // A customer in front of the page may be charged with a card that is not saved yet.
    attachQuietly(method, customer);
    collect(simulation, invoice, {
      attempt: "manual",
      customerPresent: true,
      paymentMethod: method.id,
    });
    if (started.status === "active") {
      change(simulation, started, () => {
        started.default_payment_method = method.id;
      });
    }
  }
  if (subscription.status === "incomplete") {
    return { complete: false, declineCode: card.declineCode };
  }
  complete(simulation, session, subscription, customer);
  return { complete: true, redirectTo: successUrl(session) };
}

function customerOf(simulation: Simulation, session: Stripe.Checkout.Session): Stripe.Customer {
  const existing = idOf(session.customer);
  if (existing !== null) return simulation.store.customers.require(existing, "customer");
  const customer = createCustomer(simulation, {
    email: session.customer_email ?? "customer@example.com",
  });
  session.customer = customer.id;
  return customer;
}

/** The subscription an earlier, declined attempt left behind. */
function incompleteSubscriptionOf(
  { store }: Simulation,
  session: Stripe.Checkout.Session,
): Stripe.Subscription | undefined {
  const subscription = store.subscriptions.get(store.startedBy.get(session.id) ?? "");
  return subscription === undefined || hasEnded(subscription) ? undefined : subscription;
}

function attachQuietly(method: Stripe.PaymentMethod, customer: Stripe.Customer): void {
  method.customer = customer.id;
}

function subscribe(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  customer: Stripe.Customer,
  method: Stripe.PaymentMethod,
): Stripe.Subscription {
  const { store, emit } = simulation;
  const plan = store.checkoutPlans.get(session.id);
  if (plan === undefined) throw invalidRequest(`No such checkout.session: '${session.id}'`);
  const trialEnd = trialEndOf(simulation, {
    trial_end: plan.trialEnd ?? undefined,
    trial_period_days: plan.trialPeriodDays ?? undefined,
  });

  if (store.cards.get(method.id)?.behaviour === "declined") attachQuietly(method, customer);
  else attachPaymentMethod(simulation, method.id, customer);
  if (trialEnd !== null) {
    const intent = createSetupIntent(simulation, customer);
    intent.payment_method = method.id;
    intent.status = "succeeded";
    emit("setup_intent.succeeded", intent);
    session.setup_intent = intent.id;
  }
  const subscription = createSubscription(
    simulation,
    {
      customer,
      items: plan.items.map(({ price, quantity }) => ({
        price: store.prices.require(price),
        quantity,
      })),
      metadata: { ...plan.subscriptionMetadata },
      description: plan.description,
      trialEnd,
      missingPaymentMethod: plan.missingPaymentMethod,
      defaultPaymentMethod: method.id,
      collectionMethod: "charge_automatically",
      daysUntilDue: null,
    },
    { how: "charge", customerPresent: true },
  );
  store.startedBy.set(session.id, subscription.id);
  return subscription;
}

function complete(
  { emit }: Simulation,
  session: Stripe.Checkout.Session,
  subscription: Stripe.Subscription,
  customer: Stripe.Customer,
): void {
  session.status = "complete";
  session.url = null;
  session.subscription = subscription.id;
  session.invoice = idOf(subscription.latest_invoice);
  if (session.payment_status === "unpaid") session.payment_status = "paid";
  session.customer_details = {
    address: customer.address ?? null,
    business_name: null,
    email: customer.email,
    individual_name: null,
    name: customer.name ?? null,
    phone: customer.phone ?? null,
    tax_exempt: "none",
    tax_ids: [],
  };
  emit("checkout.session.completed", session);
}

export function successUrl(session: Stripe.Checkout.Session): string {
  return (session.success_url ?? "/").replaceAll("{CHECKOUT_SESSION_ID}", session.id);
}

export function expireSession({ emit }: Simulation, session: Stripe.Checkout.Session): void {
  session.status = "expired";
  session.url = null;
  emit("checkout.session.expired", session);
}

export const checkoutRoutes = [
  route("POST /v1/checkout/sessions", newSession, create),

  route(
    "GET /v1/checkout/sessions",
    {
      ...pagination,
      customer: text,
      subscription: text,
      payment_intent: text,
      status: oneOf("complete", "expired", "open"),
      created: range,
    },
    ({ store }, params) =>
      page(
        "/v1/checkout/sessions",
        store.sessions
          .all()
          .filter(
            (session) =>
              (params.created === undefined || params.created(session.created)) &&
              (params.customer === undefined || session.customer === params.customer) &&
              (params.subscription === undefined || session.subscription === params.subscription) &&
              (params.payment_intent === undefined ||
                session.payment_intent === params.payment_intent) &&
              (params.status === undefined || session.status === params.status),
          ),
        params,
      ),
  ),

  route("GET /v1/checkout/sessions/:id", {}, ({ store }, _params, id) =>
    store.sessions.require(id),
  ),

  route("GET /v1/checkout/sessions/:id/line_items", pagination, ({ store }, params, id) => {
    store.sessions.require(id);
    return page(
      `/v1/checkout/sessions/${id}/line_items`,
      lineItemsOf(store, id).toReversed(),
      params,
    );
  }),

  route("POST /v1/checkout/sessions/:id/expire", {}, (simulation, _params, id) => {
    const session = simulation.store.sessions.require(id);
    if (session.status !== "open") {
      throw invalidRequest(
        `Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of ${String(session.status)}.`,
      );
    }
    expireSession(simulation, session);
    return session;
  }),
];
