import type Stripe from "stripe";
import { amountFor } from "../billing/amounts.ts";
import { collect, judge } from "../billing/collection.ts";
import {
  discountAmounts,
  offerOf,
  plannedDiscounts,
  redeem,
  type DiscountRequest,
  type Offer,
} from "../billing/discounts.ts";
import { hasEnded } from "../billing/ending.ts";
import { createSubscription } from "../billing/lifecycle.ts";
import { days } from "../billing/periods.ts";
import { invalidRequest, notSimulated, type StripeApiError } from "../errors.ts";
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
import {
  attachPaymentMethod,
  confirmSetupIntent,
  createPaymentMethod,
  createSetupIntent,
} from "./payment_methods.ts";
import { decline, defaultPayment, newPaymentIntent, startDebit, succeed } from "./payments.ts";
import { createPrice, subscribablePrice } from "./prices.ts";
import { createProduct } from "./products.ts";
import { trialEndOf, trialSettings } from "./subscriptions.ts";
import type { TestCard } from "./test_cards.ts";

const newSession = {
  mode: oneOf("payment", "setup", "subscription"),
  customer: text,
  customer_email: text,
  customer_creation: oneOf("always", "if_required"),
  client_reference_id: text,
  currency: text,
  line_items: list(
    hash({
      price: text,
      quantity: natural,
      price_data: hash({
        currency: required(text),
        product: text,
        product_data: hash({ name: required(text), metadata }),
        unit_amount: natural,
        recurring: hash({
          interval: required(oneOf("day", "week", "month", "year")),
          interval_count: natural,
        }),
      }),
    }),
  ),
  metadata,
  subscription_data: hash({
    metadata,
    description: text,
    trial_period_days: natural,
    trial_end: natural,
    trial_settings: trialSettings,
    billing_mode: hash({ type: required(oneOf("flexible")) }),
  }),
  payment_intent_data: hash({
    metadata,
    description: text,
    setup_future_usage: oneOf("off_session", "on_session"),
  }),
  setup_intent_data: hash({ metadata, description: text }),
  success_url: text,
  cancel_url: text,
  expires_at: natural,
  payment_method_collection: oneOf("always", "if_required"),
  allow_promotion_codes: flag,
  discounts: list(hash({ coupon: text, promotion_code: text })),
  billing_address_collection: oneOf("auto", "required"),
  customer_update: hash({
    address: oneOf("auto", "never"),
    name: oneOf("auto", "never"),
    shipping: oneOf("auto", "never"),
  }),
  locale: text,
  ui_mode: oneOf("elements", "embedded_page", "form", "hosted_page"),
};

type NewSession = Params<typeof newSession>;

const minutes = (count: number) => count * 60;

function missing(param: string): StripeApiError {
  return invalidRequest(`Missing required param: ${param}.`, { code: "parameter_missing", param });
}

function create(simulation: Simulation, params: NewSession): Stripe.Checkout.Session {
  const { store, newId, now } = simulation;
  const { mode } = params;
  if (mode === undefined) throw missing("mode");
  refuseForeignSettings(mode, params);
  if (params.ui_mode !== undefined && params.ui_mode !== "hosted_page") {
    throw notSimulated(`ui_mode ${params.ui_mode}`, "ui_mode");
  }
  if (params.success_url === undefined) throw missing("success_url");
  if (params.customer !== undefined && params.customer_email !== undefined) {
    throw invalidRequest("You may only specify one of these parameters: customer, customer_email.");
  }
  if (params.customer !== undefined) store.customers.require(params.customer, "customer");
  const expiresAt = params.expires_at ?? now() + days(1);
  if (expiresAt < now() + minutes(30) || expiresAt > now() + days(1)) {
    throw invalidRequest(
      "The `expires_at` timestamp must be at least 30 minutes and at most 24 hours from Checkout Session creation.",
      { param: "expires_at" },
    );
  }
  const items = mode === "setup" ? [] : readItems(simulation, mode, params.line_items ?? []);

  if (params.discounts !== undefined && params.allow_promotion_codes !== undefined) {
    throw invalidRequest(
      "You may only specify one of these parameters: allow_promotion_codes, discounts.",
    );
  }
  if ((params.discounts?.length ?? 0) > 1) {
    throw invalidRequest("A checkout session takes at most one discount.", { param: "discounts" });
  }

  const settings = params.subscription_data;
  const id = newId("cs_test");
  store.checkoutPlans.set(id, {
    items: items.map(({ price, quantity }) => ({ id: newId("li"), price: price.id, quantity })),
    subscriptionMetadata: changedMetadata({}, settings?.metadata),
    description: settings?.description ?? params.payment_intent_data?.description ?? null,
    trialEnd: settings?.trial_end ?? null,
    trialPeriodDays: settings?.trial_period_days ?? null,
    missingPaymentMethod: settings?.trial_settings?.end_behavior.missing_payment_method ?? null,
    paymentMetadata: changedMetadata({}, params.payment_intent_data?.metadata),
    savesPaymentMethod: params.payment_intent_data?.setup_future_usage ?? null,
    discounts: [],
  });
  const session = store.sessions.add(
    newSessionObject(simulation, id, mode, { ...params, expires_at: expiresAt }, items),
  );
  if (params.discounts !== undefined) applyDiscounts(simulation, session, params.discounts);
  if (mode === "setup") {
    const customer = store.customers.get(params.customer ?? "") ?? null;
    const intent = createSetupIntent(simulation, customer);
    intent.metadata = changedMetadata({}, params.setup_intent_data?.metadata);
    intent.description = params.setup_intent_data?.description ?? null;
    session.setup_intent = intent.id;
  }
  return session;
}

type Mode = "payment" | "setup" | "subscription";

/** Each mode has settings of its own, and refuses the others'. */
function refuseForeignSettings(mode: Mode, params: NewSession): void {
  const settings: Record<Mode, (keyof NewSession)[]> = {
    payment: [
      "payment_intent_data",
      "line_items",
      "allow_promotion_codes",
      "discounts",
      "customer_creation",
    ],
    setup: ["setup_intent_data", "customer_creation"],
    subscription: [
      "subscription_data",
      "line_items",
      "allow_promotion_codes",
      "discounts",
      "payment_method_collection",
    ],
  };
  for (const param of new Set(Object.values(settings).flat())) {
    if (params[param] === undefined || settings[mode].includes(param)) continue;
    throw invalidRequest(`You can not pass \`${param}\` in \`${mode}\` mode.`, { param });
  }
}

interface SessionItem {
  price: Stripe.Price;
  quantity: number;
}

function readItems(
  simulation: Simulation,
  mode: "payment" | "subscription",
  asked: NonNullable<NewSession["line_items"]>,
): SessionItem[] {
  const items = asked.map((item, index) => ({
    price: itemPrice(simulation, mode, item, `line_items[${index}]`),
    quantity: item.quantity ?? 1,
  }));
  const first = items[0];
  if (first === undefined) {
    throw invalidRequest(`You must specify line_items in ${mode} mode.`, {
      code: "parameter_missing",
      param: "line_items",
    });
  }
  if (items.some(({ price }) => price.currency !== first.price.currency)) {
    throw invalidRequest("All prices of a checkout session must have the same currency.");
  }
  return items;
}

function itemPrice(
  simulation: Simulation,
  mode: "payment" | "subscription",
  { price, price_data }: NonNullable<NewSession["line_items"]>[number],
  param: string,
): Stripe.Price {
  const id = price ?? (price_data && inlinePrice(simulation, price_data, param).id);
  if (id === undefined) throw missing(`${param}[price]`);
  if (mode === "subscription") return subscribablePrice(simulation, id, `${param}[price]`);
  const found = simulation.store.prices.require(id, `${param}[price]`);
  if (found.recurring !== null) {
    throw invalidRequest(
      "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use only one-time prices.",
      { param: `${param}[price]` },
    );
  }
  return found;
}

/** A price made on the spot; it is not offered to anybody else. */
function inlinePrice(
  simulation: Simulation,
  data: NonNullable<NonNullable<NewSession["line_items"]>[number]["price_data"]>,
  param: string,
): Stripe.Price {
  const { product_data, ...price } = data;
  const product =
    price.product ??
    (product_data &&
      createProduct(simulation, { name: product_data.name, metadata: product_data.metadata }).id);
  if (product === undefined) throw missing(`${param}[price_data][product]`);
  return createPrice(simulation, { ...price, product });
}

function newSessionObject(
  { store, now, baseUrl }: Simulation,
  id: string,
  mode: Mode,
  params: NewSession & { expires_at: number },
  items: SessionItem[],
): Stripe.Checkout.Session {
  const { trial_period_days = 0, trial_end = 0 } = params.subscription_data ?? {};
  const trial = trial_period_days > 0 || trial_end > now();
  const total = items.reduce(
    (sum, { price, quantity }) => sum + amountFor(store, price, quantity),
    0,
  );
  const due = trial ? 0 : total;
  return {
    id,
    object: "checkout.session",
    adaptive_pricing: null,
    after_expiration: null,
    allow_promotion_codes: params.allow_promotion_codes ?? null,
    allowed_payment_method_types: null,
    amount_subtotal: mode === "setup" ? null : due,
    amount_total: mode === "setup" ? null : due,
    automatic_tax: { enabled: false, liability: null, provider: null, status: null },
    billing_address_collection: params.billing_address_collection ?? null,
    cancel_url: params.cancel_url ?? null,
    client_reference_id: params.client_reference_id ?? null,
    client_secret: null,
    collected_information: null,
    consent: null,
    consent_collection: null,
    created: now(),
    currency: items[0]?.price.currency ?? params.currency?.toLowerCase() ?? null,
    currency_conversion: null,
    custom_fields: [],
    custom_text: {
      after_submit: null,
      shipping_address: null,
      submit: null,
      terms_of_service_acceptance: null,
    },
    customer: params.customer ?? null,
    customer_account: null,
    customer_creation:
      params.customer !== undefined
        ? null
        : mode === "subscription"
          ? "always"
          : (params.customer_creation ?? "if_required"),
    customer_details: null,
    customer_email: params.customer_email ?? null,
    discounts: [],
    expires_at: params.expires_at,
    integration_identifier: null,
    invoice: null,
    invoice_creation:
      mode === "payment"
        ? {
            enabled: false,
            invoice_data: {
              account_tax_ids: null,
              custom_fields: null,
              description: null,
              footer: null,
              issuer: null,
              metadata: {},
              rendering_options: null,
            },
          }
        : null,
    livemode: false,
    locale: params.locale ?? null,
    managed_payments: { enabled: false },
    metadata: changedMetadata({}, params.metadata),
    mode,
    origin_context: null,
    payment_intent: null,
    payment_link: null,
    payment_method_collection: params.payment_method_collection ?? "always",
    payment_method_configuration_details: null,
    payment_method_options: { card: { request_three_d_secure: "automatic" } },
    payment_method_types: ["card"],
    payment_status: mode === "setup" || due === 0 ? "no_payment_required" : "unpaid",
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
    success_url: params.success_url ?? null,
    total_details:
      mode === "setup" ? null : { amount_discount: 0, amount_shipping: 0, amount_tax: 0 },
    ui_mode: "hosted_page",
    url: `${baseUrl()}/c/pay/${id}`,
    wallet_options: null,
  };
}

/** Takes discounts off a session's total; they are redeemed when it completes. */
function applyDiscounts(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  requests: DiscountRequest[],
): void {
  const { store } = simulation;
  const plan = store.checkoutPlans.get(session.id);
  if (plan === undefined) return;
  const offers = sessionOffers(simulation, session, requests);
  const lines = plan.items.map(({ price: id, quantity }) => {
    const price = store.prices.require(id);
    return {
      amount: amountFor(store, price, quantity),
      product: idOf(price.product),
      discountable: true,
    };
  });
  const inTrial = session.amount_subtotal === 0;
  const off = inTrial
    ? 0
    : discountAmounts(
        simulation,
        plannedDiscounts(simulation, idOf(session.customer), offers),
        lines,
      )
        .flat()
        .reduce((sum, { amount }) => sum + amount, 0);
  plan.discounts = requests;
  session.discounts = offers.map(({ coupon, promotionCode }) => ({
    coupon: coupon.id,
    promotion_code: promotionCode?.id ?? null,
  }));
  session.amount_total = (session.amount_subtotal ?? 0) - off;
  if (session.total_details !== null) session.total_details.amount_discount = off;
  session.payment_status = session.amount_total === 0 ? "no_payment_required" : "unpaid";
}

function sessionOffers(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  requests: DiscountRequest[],
): Offer[] {
  const purchase = {
    customer: idOf(session.customer),
    currency: session.currency ?? "usd",
    amount: session.amount_subtotal ?? 0,
  };
  return requests.map((request, index) =>
    offerOf(simulation, request, purchase, `discounts[${index}]`),
  );
}

/** What the customer types into the page's field; Stripe's refusal when the code is not good. */
export function enterPromotionCode(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  typed: string,
): void {
  const code = simulation.store.promotionCodes
    .all()
    .find((each) => each.code.toLowerCase() === typed.trim().toLowerCase());
  if (session.allow_promotion_codes !== true || code === undefined) {
    throw invalidRequest("This code is invalid.", { param: "promotion_code" });
  }
  applyDiscounts(simulation, session, [{ promotion_code: code.id }]);
}

export type CheckoutOutcome =
  { complete: true; redirectTo: string } | { complete: false; declineCode: string };

/**
 * What the customer's click on the page's button does. A declined card leaves the session open; another may be tried.
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
  const customer = customerOf(simulation, session);
  const method = createPaymentMethod(simulation, card);
  method.billing_details.email = customer?.email ?? session.customer_email;
  const declineCode =
    session.mode === "setup"
      ? saveCard(simulation, session, customer, method)
      : session.mode === "payment"
        ? payOnce(simulation, session, customer, method)
        : paySubscription(simulation, session, customer, method);
  if (declineCode !== undefined) return { complete: false, declineCode };
  complete(simulation, session, customer);
  return { complete: true, redirectTo: successUrl(session) };
}

/** Sets a card up for later; nothing is charged. The decline code when the card is refused. */
function saveCard(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  customer: Stripe.Customer | null,
  method: Stripe.PaymentMethod,
): string | undefined {
  const intent = simulation.store.setupIntents.require(idOf(session.setup_intent) ?? "");
  intent.customer = customer?.id ?? null;
  intent.payment_method = method.id;
  return confirmSetupIntent(simulation, intent);
}

/** One payment without an invoice. The decline code when the card is refused. */
function payOnce(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  customer: Stripe.Customer | null,
  method: Stripe.PaymentMethod,
): string | undefined {
  const plan = simulation.store.checkoutPlans.get(session.id);
  const amount = session.amount_total ?? 0;
  const offers = sessionOffers(simulation, session, plan?.discounts ?? []);
  const redeemAll = () => {
    for (const offer of offers) {
      redeem(simulation, offer, { customer: customer?.id ?? null, session: session.id });
    }
  };
  if (amount === 0) {
    redeemAll();
    return undefined;
  }
  const tried = simulation.store.paymentIntents.get(idOf(session.payment_intent) ?? "");
  const intent =
    tried ??
    newPaymentIntent(simulation, {
      amount,
      currency: session.currency ?? "usd",
      customer: customer?.id ?? null,
      description: plan?.description ?? null,
      metadata: { ...plan?.paymentMetadata },
      setupFutureUsage: plan?.savesPaymentMethod ?? null,
    });
  session.payment_intent = intent.id;
  if (tried === undefined) simulation.emit("payment_intent.created", intent);
  const verdict = judge(simulation, method, { customerPresent: true });
  if (!verdict.paid) {
    decline(simulation, intent, method, verdict.declineCode);
    return verdict.declineCode;
  }
  if (customer !== null && plan?.savesPaymentMethod) {
    attachPaymentMethod(simulation, method.id, customer);
  }
  redeemAll();
  if (verdict.later === true) startDebit(simulation, intent, method);
  else succeed(simulation, intent, method);
  return undefined;
}

/** A declined card leaves the session's subscription incomplete; the next one is tried on the same subscription. */
function paySubscription(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  customer: Stripe.Customer | null,
  method: Stripe.PaymentMethod,
): string | undefined {
  const { store } = simulation;
  if (customer === null) throw new Error(`Session ${session.id} subscribes nobody.`);
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
  const latest = store.invoices.get(idOf(subscription.latest_invoice) ?? "");
  const debited =
    latest !== undefined && defaultPayment(simulation, latest)?.intent.status === "processing";
  if (subscription.status === "incomplete" && !debited) {
    return store.cards.get(method.id)?.declineCode ?? "generic_decline";
  }
  session.subscription = subscription.id;
  session.invoice = idOf(subscription.latest_invoice);
  return undefined;
}

/** The session's customer, made now when it has none and its mode or wish asks for one. */
function customerOf(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
): Stripe.Customer | null {
  const existing = idOf(session.customer);
  if (existing !== null) return simulation.store.customers.require(existing, "customer");
  if (session.customer_creation === "if_required") return null;
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
      offers: sessionOffers(simulation, session, plan.discounts),
      session: session.id,
    },
    { how: "charge", customerPresent: true },
  );
  store.startedBy.set(session.id, subscription.id);
  return subscription;
}

function complete(
  simulation: Simulation,
  session: Stripe.Checkout.Session,
  customer: Stripe.Customer | null,
): void {
  const { store, emit } = simulation;
  session.status = "complete";
  session.url = null;
  const invoice = store.invoices.get(idOf(session.invoice) ?? "");
  const intent =
    store.paymentIntents.get(idOf(session.payment_intent) ?? "") ??
    (invoice && defaultPayment(simulation, invoice)?.intent);
  // A bank debit leaves the session complete and unpaid until the bank answers.
  if (session.payment_status === "unpaid" && intent?.status !== "processing") {
    session.payment_status = "paid";
  }
  session.customer_details = {
    address: customer?.address ?? null,
    business_name: null,
    email: customer?.email ?? session.customer_email,
    individual_name: null,
    name: customer?.name ?? null,
    phone: customer?.phone ?? null,
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
