import type Stripe from "stripe";
import { collect, judge, paymentMethodFor } from "../billing/collection.ts";
import { amountFor } from "../billing/amounts.ts";
import {
  discountsOf,
  discountsParam,
  offerOf,
  removeDiscounts,
  setDiscounts,
  wantedDiscounts,
} from "../billing/discounts.ts";
import { endSubscription, hasEnded } from "../billing/ending.ts";
import { announceInvoice, draftInvoice, pendingItems } from "../billing/invoicing.ts";
import { createSubscription, endTrial, nextPeriodEnd } from "../billing/lifecycle.ts";
import { pauseSubscription, resumeSubscription } from "../billing/pausing.ts";
import { days } from "../billing/periods.ts";
import { creditRemainder, updateItems, type ItemEdit } from "../billing/updates.ts";
import { invalidRequest, noSuch, notSimulated } from "../errors.ts";
import {
  flag,
  hash,
  list,
  metadata,
  momentOr,
  natural,
  oneOf,
  range,
  required,
  text,
  unsettable,
  type Params,
} from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { cardDeclined } from "./declines.ts";
import { usablePaymentMethod } from "./payment_methods.ts";
import { subscribablePrice } from "./prices.ts";

const prorationBehavior = oneOf("always_invoice", "create_prorations", "none");
const paymentBehavior = oneOf(
  "allow_incomplete",
  "default_incomplete",
  "error_if_incomplete",
  "pending_if_incomplete",
);
const cancelAt = momentOr("min_period_end", "max_period_end");
const cancellationDetails = hash({
  comment: unsettable(text),
  feedback: unsettable(
    oneOf(
      "customer_service",
      "low_quality",
      "missing_features",
      "other",
      "switched_service",
      "too_complex",
      "too_expensive",
      "unused",
    ),
  ),
});

export const trialSettings = hash({
  end_behavior: required(
    hash({ missing_payment_method: required(oneOf("cancel", "create_invoice", "pause")) }),
  ),
});

/** Settings that say how Stripe should do what the simulator does one way only. */
const acceptedAsIs = {
  billing_mode: hash({ type: required(oneOf("flexible")) }),
  off_session: flag,
  payment_settings: hash({
    save_default_payment_method: oneOf("off", "on_subscription"),
    payment_method_types: list(text),
  }),
};

const newSubscription = {
  ...acceptedAsIs,
  customer: required(text),
  items: required(list(hash({ price: required(text), quantity: natural, metadata }))),
  metadata,
  description: text,
  default_payment_method: text,
  collection_method: oneOf("charge_automatically", "send_invoice"),
  days_until_due: natural,
  trial_period_days: natural,
  trial_end: momentOr("now"),
  trial_settings: trialSettings,
  cancel_at_period_end: flag,
  cancel_at: cancelAt,
  payment_behavior: paymentBehavior,
  proration_behavior: prorationBehavior,
  discounts: discountsParam,
};

function create(
  simulation: Simulation,
  params: Params<typeof newSubscription>,
): Stripe.Subscription {
  const { store, now } = simulation;
  const customer = store.customers.require(params.customer, "customer");
  const items = params.items.map((item, index) => ({
    price: subscribablePrice(simulation, item.price, `items[${index}][price]`),
    quantity: item.quantity,
    metadata: changedMetadata({}, item.metadata),
  }));
  if (items.length === 0) {
    throw invalidRequest("Missing required param: items.", { param: "items" });
  }
  if (params.default_payment_method !== undefined) {
    usablePaymentMethod(simulation, params.default_payment_method, customer.id);
  }
  if (params.payment_behavior === "pending_if_incomplete") {
    throw invalidRequest("`pending_if_incomplete` is for updates of subscriptions only.", {
      param: "payment_behavior",
    });
  }
  const trialEnd = trialEndOf(simulation, params);
  const method =
    params.default_payment_method === undefined
      ? paymentMethodFor(simulation, undefined, customer.id)
      : store.paymentMethods.require(params.default_payment_method);
  const charged =
    trialEnd === null && (params.collection_method ?? "charge_automatically") !== "send_invoice";
  if (charged && method === undefined && params.payment_behavior !== "default_incomplete") {
    throw invalidRequest(
      "This customer has no attached payment source or default payment method. " +
        "Please consider adding a default payment method.",
      { code: "resource_missing" },
    );
  }
  const amount = items.reduce(
    (sum, { price, quantity }) => sum + amountFor(store, price, quantity ?? 1),
    0,
  );
  const currency = items[0]?.price.currency ?? "usd";
  const offers = (params.discounts ?? []).map((request, index) =>
    offerOf(
      simulation,
      request,
      { customer: customer.id, currency, amount },
      `discounts[${index}]`,
    ),
  );
  const verdict =
    charged && params.payment_behavior === "error_if_incomplete"
      ? judge(simulation, method, { customerPresent: false })
      : undefined;
  if (verdict?.paid === false) throw cardDeclined(verdict.declineCode);

  const subscription = createSubscription(
    simulation,
    {
      customer,
      items,
      metadata: changedMetadata({}, params.metadata),
      description: params.description ?? null,
      trialEnd,
      missingPaymentMethod: params.trial_settings?.end_behavior.missing_payment_method ?? null,
      defaultPaymentMethod: params.default_payment_method ?? null,
      collectionMethod: params.collection_method ?? "charge_automatically",
      daysUntilDue: params.days_until_due ?? null,
      offers,
    },
    {
      how: params.payment_behavior === "default_incomplete" ? "wait" : "charge",
      customerPresent: false,
      ...(verdict === undefined ? {} : { verdict }),
    },
  );
  if (params.cancel_at_period_end !== undefined || params.cancel_at !== undefined) {
    change(simulation, subscription, () => scheduleEnd(subscription, params, now()));
  }
  return subscription;
}

/** A trial of `trial_period_days`, or until `trial_end`; none when that is over already. */
export function trialEndOf(
  { now }: Simulation,
  {
    trial_period_days,
    trial_end,
  }: { trial_period_days?: number | undefined; trial_end?: number | "now" | undefined },
): number | null {
  if (trial_end !== undefined && trial_end !== "now") {
    if (trial_end > now() + days(731)) {
      throw invalidRequest("Invalid timestamp: can be no more than two years in the future", {
        param: "trial_end",
      });
    }
    return trial_end > now() ? trial_end : null;
  }
  return trial_period_days ? now() + days(trial_period_days) : null;
}

export interface EndRequest {
  cancel_at_period_end?: boolean | undefined;
  cancel_at?: number | "min_period_end" | "max_period_end" | null | undefined;
}

/** Sets or clears the end the customer asked for. */
export function scheduleEnd(
  subscription: Stripe.Subscription,
  { cancel_at_period_end, cancel_at }: EndRequest,
  now: number,
): void {
  if (cancel_at_period_end === true && cancel_at) {
    throw invalidRequest(
      "You may only specify one of these parameters: cancel_at, cancel_at_period_end.",
    );
  }
  if (typeof cancel_at === "number" && cancel_at <= now) {
    throw invalidRequest("`cancel_at` must be in the future.", { param: "cancel_at" });
  }
  const ends = subscription.items.data.map((item) => item.current_period_end);
  const end = {
    wanted: cancel_at_period_end === true || (cancel_at !== undefined && cancel_at !== null),
    cleared:
      (cancel_at_period_end === false && subscription.cancel_at_period_end) || cancel_at === null,
  };
  if (end.wanted) {
    subscription.cancel_at_period_end = cancel_at_period_end === true;
    subscription.cancel_at =
      typeof cancel_at === "number"
        ? cancel_at
        : cancel_at === "max_period_end"
          ? Math.max(...ends)
          : Math.min(...ends);
  } else if (end.cleared) {
    subscription.cancel_at_period_end = false;
    subscription.cancel_at = null;
  } else {
    return;
  }
  subscription.canceled_at = end.wanted ? now : null;
  subscription.cancellation_details = {
    comment: null,
    feedback: null,
    feedback_option: null,
    reason: end.wanted ? "cancellation_requested" : null,
  };
}

const itemEdit = {
  id: text,
  price: text,
  quantity: natural,
  deleted: flag,
  clear_usage: flag,
  metadata,
};

const editable = {
  ...acceptedAsIs,
  items: list(hash(itemEdit)),
  metadata,
  description: unsettable(text),
  default_payment_method: unsettable(text),
  collection_method: oneOf("charge_automatically", "send_invoice"),
  days_until_due: natural,
  cancel_at_period_end: flag,
  cancel_at: unsettable(cancelAt),
  cancellation_details: cancellationDetails,
  pause_collection: unsettable(
    hash({
      behavior: required(oneOf("keep_as_draft", "mark_uncollectible", "void")),
      resumes_at: natural,
    }),
  ),
  trial_end: momentOr("now"),
  trial_settings: trialSettings,
  billing_cycle_anchor: hash({ type: required(oneOf("now", "unchanged")) }),
  payment_behavior: paymentBehavior,
  proration_behavior: prorationBehavior,
  proration_date: natural,
  discounts: discountsParam,
};

export type SubscriptionEdit = Partial<Params<typeof editable>>;

export function updateSubscription(
  simulation: Simulation,
  subscription: Stripe.Subscription,
  params: SubscriptionEdit,
): void {
  const { now } = simulation;
  refuseForbidden(subscription, params);
  const method = params.default_payment_method;
  if (method) usablePaymentMethod(simulation, method, idOf(subscription.customer) ?? "");
  if (params.pause_collection?.resumes_at && params.pause_collection.resumes_at <= now()) {
    throw invalidRequest("`resumes_at` must be in the future.", { param: "pause_collection" });
  }

  const restart = params.billing_cycle_anchor?.type === "now";
  const discounts =
    params.discounts === undefined
      ? undefined
      : wantedDiscounts(simulation, subscription, params.discounts);
  if (params.items === undefined && !restart && discounts !== undefined) {
    change(simulation, subscription, () => setDiscounts(simulation, subscription, discounts));
  }
  if (params.items !== undefined || restart) {
    updateItems(simulation, subscription, {
      items: (params.items ?? []).map((item) => itemEditOf(subscription, item)),
      prorationBehavior: params.proration_behavior ?? "create_prorations",
      prorationDate: params.proration_date ?? now(),
      paymentBehavior: params.payment_behavior ?? "allow_incomplete",
      restart,
      discounts,
    });
  }
  change(simulation, subscription, () => {
    if (method !== undefined) subscription.default_payment_method = method;
    if (params.description !== undefined) subscription.description = params.description;
    if (params.collection_method !== undefined) {
      subscription.collection_method = params.collection_method;
    }
    if (params.days_until_due !== undefined) subscription.days_until_due = params.days_until_due;
    subscription.metadata = changedMetadata(subscription.metadata, params.metadata);
    scheduleEnd(subscription, params, now());
    if (params.cancellation_details !== undefined) {
      const { comment, feedback } = params.cancellation_details;
      subscription.cancellation_details = {
        comment: comment ?? null,
        feedback: feedback ?? null,
        feedback_option: null,
        reason: subscription.cancellation_details?.reason ?? null,
      };
    }
    if (params.pause_collection !== undefined) {
      subscription.pause_collection = params.pause_collection && {
        behavior: params.pause_collection.behavior,
        resumes_at: params.pause_collection.resumes_at ?? null,
      };
    }
    if (params.trial_settings !== undefined) {
      subscription.trial_settings = {
        end_behavior: {
          billing_cycle_anchor: null,
          missing_payment_method: params.trial_settings.end_behavior.missing_payment_method,
        },
      };
    }
    if (typeof params.trial_end === "number") {
      moveTrialEnd(simulation, subscription, params.trial_end);
    }
  });
  if (params.trial_end === "now" && subscription.status === "trialing") {
    endTrial(simulation, subscription, { immediately: true });
  }
}

function itemEditOf(subscription: Stripe.Subscription, item: Params<typeof itemEdit>): ItemEdit {
  const current = subscription.items.data.find(({ id }) => id === item.id);
  return {
    id: item.id,
    price: item.price,
    quantity: item.quantity,
    deleted: item.deleted,
    metadata:
      item.metadata === undefined
        ? undefined
        : changedMetadata(current?.metadata ?? {}, item.metadata),
  };
}

/** A trial may be given or moved; until its end nothing is charged. */
function moveTrialEnd(
  { now }: Simulation,
  subscription: Stripe.Subscription,
  trialEnd: number,
): void {
  if (trialEnd <= now())
    throw invalidRequest("`trial_end` must be in the future.", { param: "trial_end" });
  if (subscription.status !== "trialing") subscription.trial_start = now();
  subscription.status = "trialing";
  subscription.trial_end = trialEnd;
  subscription.billing_cycle_anchor = trialEnd;
  for (const item of subscription.items.data) {
    item.current_period_start = subscription.trial_start ?? now();
    item.current_period_end = trialEnd;
  }
}

/** What an update that waits for its payment may change. */
const pendingUpdatesTake = [
  "billing_cycle_anchor",
  "items",
  "metadata",
  "off_session",
  "payment_behavior",
  "proration_behavior",
  "proration_date",
  "trial_end",
];

function refuseForbidden(subscription: Stripe.Subscription, params: SubscriptionEdit): void {
  const asked = Object.entries(params)
    .filter(([, value]) => value !== undefined)
    .map(([key]) => key);
  const allowed = hasEnded(subscription)
    ? ["cancellation_details", "metadata"]
    : subscription.status === "incomplete"
      ? ["default_payment_method", "metadata"]
      : undefined;
  const refused = allowed && asked.find((key) => !allowed.includes(key));
  const schedule = idOf(subscription.schedule);
  if (schedule !== null && asked.some((key) => key.startsWith("cancel_at"))) {
    throw invalidRequest(
      `The subscription is managed by the subscription schedule \`${schedule}\`, and updating any cancelation ` +
        "behavior directly is not allowed. Please update the schedule instead.",
    );
  }
  const unpayable =
    params.payment_behavior === "pending_if_incomplete"
      ? asked.find((key) => !pendingUpdatesTake.includes(key))
      : undefined;
  if (unpayable !== undefined) {
    throw invalidRequest(
      `When \`payment_behavior\` is set to \`pending_if_incomplete\`, you cannot update ${unpayable}.`,
      { param: unpayable },
    );
  }
  if (allowed === undefined || refused === undefined) return;
  throw invalidRequest(
    hasEnded(subscription)
      ? "A canceled subscription can only update its cancellation_details and metadata."
      : "This subscription is incomplete: only its metadata and default payment method can be updated.",
    { param: refused },
  );
}

const statuses = [
  "active",
  "canceled",
  "incomplete",
  "incomplete_expired",
  "past_due",
  "paused",
  "trialing",
  "unpaid",
] as const;

export const subscriptionRoutes = [
  route("POST /v1/subscriptions", newSubscription, create),

  route(
    "GET /v1/subscriptions",
    {
      ...pagination,
      customer: text,
      price: text,
      status: oneOf(...statuses, "all", "ended"),
      created: range,
      current_period_end: range,
      collection_method: oneOf("charge_automatically", "send_invoice"),
    },
    ({ store }, params) =>
      page(
        "/v1/subscriptions",
        store.subscriptions
          .all()
          .filter(
            (subscription) =>
              hasWantedStatus(subscription, params.status) &&
              (params.customer === undefined || subscription.customer === params.customer) &&
              (params.price === undefined ||
                subscription.items.data.some(({ price }) => price.id === params.price)) &&
              (params.created === undefined || params.created(subscription.created)) &&
              (params.current_period_end === undefined ||
                params.current_period_end(nextPeriodEnd(subscription))) &&
              (params.collection_method === undefined ||
                subscription.collection_method === params.collection_method),
          ),
        params,
      ),
  ),

  route("GET /v1/subscriptions/:id", {}, ({ store }, _params, id) =>
    store.subscriptions.require(id),
  ),

  route("POST /v1/subscriptions/:id", editable, (simulation, params, id) => {
    const subscription = simulation.store.subscriptions.require(id);
    updateSubscription(simulation, subscription, params);
    return subscription;
  }),

  route(
    "DELETE /v1/subscriptions/:id",
    { invoice_now: flag, prorate: flag, cancellation_details: cancellationDetails },
    (simulation, params, id) => {
      const subscription = simulation.store.subscriptions.require(id);
      if (hasEnded(subscription)) {
        throw invalidRequest(`No such subscription: '${id}' (it has ended)`, {
          code: "resource_missing",
          param: "id",
        });
      }
      if (params.prorate === true) creditRemainder(simulation, subscription);
      endSubscription(simulation, subscription, params.cancellation_details);
      if (params.invoice_now === true) invoiceRemainder(simulation, subscription);
      return subscription;
    },
  ),

  route("DELETE /v1/subscriptions/:id/discount", {}, (simulation, _params, id) => {
    const subscription = simulation.store.subscriptions.require(id);
    const discounts = discountsOf(simulation, subscription);
    const [first] = discounts;
    if (first === undefined) throw noSuch("discount for subscription", id, "subscription");
    removeDiscounts(simulation, subscription, discounts);
    const { end: _end, ...deleted } = first;
    return { ...deleted, deleted: true };
  }),

  route(
    "POST /v1/subscriptions/:id/resume",
    {
      billing_cycle_anchor: hash({ type: required(oneOf("now", "unchanged")) }),
      payment_behavior: oneOf("resume_on_payment_attempt", "resume_on_payment_success"),
      proration_behavior: prorationBehavior,
      proration_date: natural,
    },
    (simulation, params, id) => {
      const subscription = simulation.store.subscriptions.require(id);
      resumeSubscription(simulation, subscription, {
        anchor: params.billing_cycle_anchor?.type ?? "now",
        onSuccess: params.payment_behavior === "resume_on_payment_success",
        prorationBehavior: params.proration_behavior ?? "create_prorations",
        prorationDate: params.proration_date ?? simulation.now(),
      });
      return subscription;
    },
  ),

  route(
    "POST /v1/subscriptions/:id/pause",
    {
      type: oneOf("subscription"),
      invoicing_behavior: oneOf("invoice", "pending_invoice_item"),
      bill_for: hash({
        outstanding_usage_through: hash({ type: required(oneOf("none", "now")) }),
        unused_time_from: hash({
          type: required(oneOf("item_current_period_start", "none", "now")),
        }),
      }),
    },
    (simulation, params, id) => {
      const subscription = simulation.store.subscriptions.require(id);
      const unused = params.bill_for?.unused_time_from?.type ?? "now";
      if (unused === "item_current_period_start") {
        throw notSimulated(unused, "bill_for[unused_time_from][type]");
      }
      pauseSubscription(simulation, subscription, {
        credits: unused === "now",
        invoiceNow: params.invoicing_behavior === "invoice",
      });
      return subscription;
    },
  ),

  route(
    "GET /v1/subscription_items",
    { ...pagination, subscription: required(text) },
    ({ store }, params) =>
      page(
        "/v1/subscription_items",
        store.subscriptions.require(params.subscription, "subscription").items.data,
        params,
      ),
  ),

  route(
    "POST /v1/subscription_items",
    {
      subscription: required(text),
      price: required(text),
      quantity: natural,
      metadata,
      payment_behavior: paymentBehavior,
      proration_behavior: prorationBehavior,
      proration_date: natural,
    },
    (simulation, { subscription: id, price, quantity, metadata: entries, ...params }) => {
      const subscription = simulation.store.subscriptions.require(id, "subscription");
      const before = new Set(subscription.items.data.map((item) => item.id));
      const item = { ...noItem, price, quantity, metadata: entries };
      updateSubscription(simulation, subscription, { ...params, items: [item] });
      return subscription.items.data.find((candidate) => !before.has(candidate.id)) ?? subscription;
    },
  ),

  route(
    "GET /v1/subscription_items/:id",
    {},
    (simulation, _params, id) => itemOf(simulation, id).item,
  ),

  route(
    "POST /v1/subscription_items/:id",
    {
      price: text,
      quantity: natural,
      metadata,
      payment_behavior: paymentBehavior,
      proration_behavior: prorationBehavior,
      proration_date: natural,
    },
    (simulation, { price, quantity, metadata: entries, ...params }, id) => {
      const { subscription } = itemOf(simulation, id);
      const item = { ...noItem, id, price, quantity, metadata: entries };
      updateSubscription(simulation, subscription, { ...params, items: [item] });
      return itemOf(simulation, id).item;
    },
  ),

  route(
    "DELETE /v1/subscription_items/:id",
    { proration_behavior: prorationBehavior, proration_date: natural, clear_usage: flag },
    (simulation, { clear_usage: _clearUsage, ...params }, id) => {
      const { subscription } = itemOf(simulation, id);
      updateSubscription(simulation, subscription, {
        ...params,
        items: [{ ...noItem, id, deleted: true }],
      });
      return { id, object: "subscription_item", deleted: true };
    },
  ),
];

const noItem = {
  id: undefined,
  price: undefined,
  quantity: undefined,
  deleted: undefined,
  clear_usage: undefined,
  metadata: undefined,
};

function itemOf({ store }: Simulation, id: string) {
  for (const subscription of store.subscriptions.all()) {
    const item = subscription.items.data.find((candidate) => candidate.id === id);
    if (item !== undefined) return { subscription, item };
  }
  throw invalidRequest(`No such subscription_item: '${id}'`, {
    code: "resource_missing",
    param: "id",
  });
}

/** Without a status Stripe leaves out what was canceled. */
function hasWantedStatus(
  subscription: Stripe.Subscription,
  wanted: (typeof statuses)[number] | "all" | "ended" | undefined,
): boolean {
  if (wanted === "all") return true;
  if (wanted === "ended") return hasEnded(subscription);
  if (wanted === undefined) return !hasEnded(subscription);
  return subscription.status === wanted;
}

/** Bills what a canceled subscription still owed, or turns its credit into customer balance. */
function invoiceRemainder(simulation: Simulation, subscription: Stripe.Subscription): void {
  const { now } = simulation;
  if (pendingItems(simulation, subscription).length === 0) return;
  const invoice = draftInvoice(simulation, subscription, {
    reason: "subscription_update",
    lines: [],
    window: { start: now(), end: now() },
  });
  subscription.latest_invoice = invoice.id;
  announceInvoice(simulation, subscription, invoice);
  collect(simulation, invoice, { attempt: "automatic", customerPresent: false });
}
