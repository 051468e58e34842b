import { createHash } from "node:crypto";
import type Stripe from "stripe";
import { invalidRequest, noSuch, StripeApiError } from "../errors.ts";
import { flag, hash, metadata, oneOf, range, required, text, unsettable } from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { cardDeclined } from "./declines.ts";
import { findTestCard, isCardToken, type TestCard } from "./test_cards.ts";

export function createPaymentMethod(
  { store, newId, now }: Simulation,
  card: TestCard,
): Stripe.PaymentMethod {
  const method: Stripe.PaymentMethod = {
    id: newId("pm"),
    object: "payment_method",
    allow_redisplay: "unspecified",
    billing_details: { address: null, email: null, name: null, phone: null, tax_id: null },
    ...(card.brand === "bank"
      ? { us_bank_account: bankDetails(card) }
      : { card: cardDetails(card, card.brand, now()) }),
    created: now(),
    customer: null,
    customer_account: null,
    livemode: false,
    metadata: {},
    type: card.brand === "bank" ? "us_bank_account" : "card",
  };
  store.cards.set(method.id, card);
  return store.paymentMethods.add(method);
}

function cardDetails(
  card: TestCard,
  brand: "mastercard" | "visa",
  now: number,
): Stripe.PaymentMethod.Card {
  return {
    brand,
    checks: {
      address_line1_check: null,
      address_postal_code_check: null,
      cvc_check: "pass",
    },
    country: "US",
    display_brand: brand,
    exp_month: 12,
    exp_year: new Date(now * 1000).getUTCFullYear() + 8,
    fingerprint: fingerprintOf(card),
    funding: "credit",
    generated_from: null,
    last4: card.number.slice(-4),
    networks: { available: [brand], preferred: null },
    regulated_status: "unregulated",
    three_d_secure_usage: { supported: true },
    wallet: null,
  };
}

function bankDetails(account: TestCard): Stripe.PaymentMethod.UsBankAccount {
  return {
    account_holder_type: "individual",
    account_type: "checking",
    bank_name: "STRIPE TEST BANK",
    financial_connections_account: null,
    fingerprint: fingerprintOf(account),
    last4: account.number.slice(-4),
    networks: { preferred: "ach", supported: ["ach"] },
    routing_number: "110000000",
    status_details: {},
  };
}

function fingerprintOf({ number }: TestCard): string {
  return createHash("sha256").update(number).digest("hex").slice(0, 16);
}

/** The payment method of this id, or a new one made from Stripe's token (`pm_card_visa`). */
export function paymentMethodNamed(simulation: Simulation, idOrToken: string) {
  const card = isCardToken(idOrToken) ? findTestCard(idOrToken) : undefined;
  return card === undefined
    ? simulation.store.paymentMethods.require(idOrToken, "payment_method")
    : createPaymentMethod(simulation, card);
}

/** Attaches a payment method, or a new one made from Stripe's token (`pm_card_visa`), to a customer. */
export function attachPaymentMethod(
  simulation: Simulation,
  idOrToken: string,
  customer: Stripe.Customer,
): Stripe.PaymentMethod {
  const { store, emit } = simulation;
  const method = paymentMethodNamed(simulation, idOrToken);
  if (method.customer === customer.id) return method;
  if (method.customer !== null) {
    throw invalidRequest(
      "The payment method you provided has already been attached to a customer.",
    );
  }
  const behaviour = store.cards.get(method.id);
  if (behaviour?.behaviour === "declined") throw cardDeclined(behaviour.declineCode);
  method.customer = customer.id;
  emit("payment_method.attached", method);
  return method;
}

/** The payment method, provided it may be charged for this customer. */
export function usablePaymentMethod(
  { store }: Simulation,
  id: string,
  customer: string,
): Stripe.PaymentMethod {
  const method = store.paymentMethods.get(id);
  if (method === undefined) throw noSuch("PaymentMethod", id, "default_payment_method");
  if (method.customer !== customer) {
    throw invalidRequest(
      "The customer does not have a payment method with the ID " +
        `${id}. The payment method must be attached to the customer.`,
      { code: "resource_missing", param: "default_payment_method" },
    );
  }
  return method;
}

/** Detaches a payment method and forgets it wherever it was the default. */
function detachPaymentMethod(simulation: Simulation, method: Stripe.PaymentMethod): void {
  const { store, emit } = simulation;
  const customer = store.customers.get(idOf(method.customer) ?? "");
  if (customer?.invoice_settings.default_payment_method === method.id) {
    change(simulation, customer, () => {
      customer.invoice_settings.default_payment_method = null;
    });
  }
  for (const subscription of store.subscriptions.all()) {
    if (subscription.default_payment_method !== method.id) continue;
    change(simulation, subscription, () => {
      subscription.default_payment_method = null;
    });
  }
  const previous = { customer: method.customer };
  method.customer = null;
  emit("payment_method.detached", method, previous);
}

export const paymentMethodRoutes = [
  route(
    "POST /v1/payment_methods",
    {
      type: required(oneOf("card")),
      card: required(
        hash({ number: text, token: text, exp_month: text, exp_year: text, cvc: text }),
      ),
      metadata,
    },
    (simulation, params) => {
      const name = params.card.token ?? params.card.number ?? "";
      const card = findTestCard(name);
      if (card === undefined) {
        throw new StripeApiError(402, {
          type: "card_error",
          code: "incorrect_number",
          message: "Your card number is incorrect: the simulator knows Stripe's test cards only.",
          param: "card[number]",
        });
      }
      const method = createPaymentMethod(simulation, card);
      method.metadata = changedMetadata({}, params.metadata);
      return method;
    },
  ),

  route(
    "GET /v1/payment_methods",
    { ...pagination, customer: text, type: text },
    ({ store }, params) =>
      page(
        "/v1/payment_methods",
        store.paymentMethods
          .all()
          .filter(
            ({ customer, type }) =>
              (params.customer === undefined || customer === params.customer) &&
              (params.type === undefined || type === params.type),
          ),
        params,
      ),
  ),

  route("GET /v1/payment_methods/:id", {}, ({ store }, _params, id) =>
    store.paymentMethods.require(id),
  ),

  route(
    "POST /v1/payment_methods/:id",
    {
      metadata,
      allow_redisplay: oneOf("always", "limited", "unspecified"),
      billing_details: hash({
        email: unsettable(text),
        name: unsettable(text),
        phone: unsettable(text),
      }),
    },
    (simulation, params, id) => {
      const method = simulation.store.paymentMethods.require(id);
      change(simulation, method, () => {
        const { email, name, phone } = params.billing_details ?? {};
        if (email !== undefined) method.billing_details.email = email;
        if (name !== undefined) method.billing_details.name = name;
        if (phone !== undefined) method.billing_details.phone = phone;
        if (params.allow_redisplay !== undefined) method.allow_redisplay = params.allow_redisplay;
        method.metadata = changedMetadata(method.metadata, params.metadata);
      });
      return method;
    },
  ),

  route(
    "POST /v1/payment_methods/:id/attach",
    { customer: required(text) },
    (simulation, params, id) =>
      attachPaymentMethod(
        simulation,
        id,
        simulation.store.customers.require(params.customer, "customer"),
      ),
  ),

  route("POST /v1/payment_methods/:id/detach", {}, (simulation, _params, id) => {
    const method = simulation.store.paymentMethods.require(id);
    if (method.customer === null) {
      throw invalidRequest(
        "The payment method you provided is not attached to a customer so detachment is impossible.",
      );
    }
    detachPaymentMethod(simulation, method);
    return method;
  }),
];

export const setupIntentRoutes = [
  route(
    "POST /v1/setup_intents",
    {
      customer: text,
      payment_method: text,
      confirm: flag,
      usage: oneOf("off_session", "on_session"),
      metadata,
    },
    (simulation, params) => {
      const customer =
        params.customer === undefined
          ? null
          : simulation.store.customers.require(params.customer, "customer");
      const intent = createSetupIntent(simulation, customer);
      intent.metadata = changedMetadata({}, params.metadata);
      intent.usage = params.usage ?? "off_session";
      if (params.payment_method !== undefined) {
        intent.payment_method = paymentMethodNamed(simulation, params.payment_method).id;
        intent.status = "requires_confirmation";
      }
      if (params.confirm === true) confirmOrThrow(simulation, intent);
      return intent;
    },
  ),

  route(
    "GET /v1/setup_intents",
    { ...pagination, customer: text, payment_method: text, created: range },
    ({ store }, params) =>
      page(
        "/v1/setup_intents",
        store.setupIntents
          .all()
          .filter(
            (intent) =>
              (params.customer === undefined || intent.customer === params.customer) &&
              (params.payment_method === undefined ||
                intent.payment_method === params.payment_method) &&
              (params.created === undefined || params.created(intent.created)),
          ),
        params,
      ),
  ),

  route("GET /v1/setup_intents/:id", {}, ({ store }, _params, id) =>
    store.setupIntents.require(id),
  ),

  route("POST /v1/setup_intents/:id/cancel", {}, (simulation, _params, id) => {
    const intent = simulation.store.setupIntents.require(id);
    if (intent.status === "succeeded" || intent.status === "canceled") {
      throw invalidRequest(
        `You cannot cancel this SetupIntent because it has a status of ${intent.status}.`,
        { code: "setup_intent_unexpected_state" },
      );
    }
    intent.status = "canceled";
    simulation.emit("setup_intent.canceled", intent);
    return intent;
  }),

  route(
    "POST /v1/setup_intents/:id/confirm",
    { payment_method: text },
    (simulation, params, id) => {
      const intent = simulation.store.setupIntents.require(id);
      if (params.payment_method !== undefined) {
        intent.payment_method = paymentMethodNamed(simulation, params.payment_method).id;
      }
      confirmOrThrow(simulation, intent);
      return intent;
    },
  ),
];

export function createSetupIntent(
  { store, newId, now, emit }: Simulation,
  customer: Stripe.Customer | null,
): Stripe.SetupIntent {
  const id = newId("seti");
  const intent = store.setupIntents.add({
    id,
    object: "setup_intent",
    allowed_payment_method_types: null,
    application: null,
    automatic_payment_methods: null,
    cancellation_reason: null,
    client_secret: `${id}_secret_${newId("x").slice(2)}`,
    created: now(),
    customer: customer?.id ?? null,
    customer_account: null,
    description: null,
    excluded_payment_method_types: null,
    flow_directions: null,
    last_setup_error: null,
    latest_attempt: null,
    livemode: false,
    mandate: null,
    metadata: {},
    next_action: null,
    on_behalf_of: null,
    payment_method: null,
    payment_method_configuration_details: null,
    payment_method_options: null,
    payment_method_types: ["card"],
    single_use_mandate: null,
    status: "requires_payment_method",
    usage: "off_session",
  });
  emit("setup_intent.created", intent);
  return intent;
}

/**
 * Saves the intent's payment method for its customer. A card that is refused at once leaves the intent waiting for
 * another; its decline code is returned.
 */
export function confirmSetupIntent(
  simulation: Simulation,
  intent: Stripe.SetupIntent,
): string | undefined {
  const { store, emit } = simulation;
  const method = store.paymentMethods.get(idOf(intent.payment_method) ?? "");
  if (method === undefined) {
    throw invalidRequest(
      "You cannot confirm this SetupIntent because it's missing a payment method.",
    );
  }
  const card = store.cards.get(method.id);
  if (card?.behaviour === "declined") {
    intent.status = "requires_payment_method";
    intent.payment_method = null;
    intent.last_setup_error = { ...cardDeclined(card.declineCode).body, payment_method: method };
    emit("setup_intent.setup_failed", intent);
    return card.declineCode;
  }
  const customer = store.customers.get(idOf(intent.customer) ?? "");
  if (customer !== undefined) attachPaymentMethod(simulation, method.id, customer);
  intent.status = "succeeded";
  intent.last_setup_error = null;
  emit("setup_intent.succeeded", intent);
  return undefined;
}

/** As `confirmSetupIntent`, for the API: a refused card is a 402. */
function confirmOrThrow(simulation: Simulation, intent: Stripe.SetupIntent): void {
  const declineCode = confirmSetupIntent(simulation, intent);
  if (declineCode !== undefined) throw cardDeclined(declineCode, { setup_intent: intent });
}
