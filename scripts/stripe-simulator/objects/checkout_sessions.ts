import type Stripe from "stripe";
import { amountFor } from "../billing/amounts.ts";
import { applyDiscounts, expireSession } from "../billing/checkout.ts";
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
import type { Simulation } from "../simulation.ts";
import { lineItemsOf } from "./checkout_line_items.ts";
import { createSetupIntent } from "./payment_methods.ts";
import { createPrice, subscribablePrice } from "./prices.ts";
import { createProduct } from "./products.ts";
import { trialSettings } from "./subscriptions.ts";

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
