/** Subscription schedules: a subscription in phases, running already or yet to begin. */
import type Stripe from "stripe";
import { endSubscription, hasEnded } from "../billing/ending.ts";
import { createSubscription, nextPeriodEnd } from "../billing/lifecycle.ts";
import { addIntervals } from "../billing/periods.ts";
import { editsTowards, updateItems } from "../billing/updates.ts";
import { invalidRequest, notSimulated } from "../errors.ts";
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
  type Params,
} from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { recurrence, subscribablePrice } from "./prices.ts";

const phaseSpec = {
  items: required(list(hash({ price: required(text), quantity: natural, metadata }))),
  start_date: momentOr("now"),
  end_date: momentOr("now"),
  duration: hash({
    interval: required(oneOf("day", "week", "month", "year")),
    interval_count: natural,
  }),
  proration_behavior: oneOf("always_invoice", "create_prorations", "none"),
  trial: flag,
  trial_end: natural,
  metadata,
};

type PhaseParams = Params<typeof phaseSpec>;

function createFrom(
  simulation: Simulation,
  subscription: Stripe.Subscription,
): Stripe.SubscriptionSchedule {
  const { store } = simulation;
  if (hasEnded(subscription)) {
    throw invalidRequest("A subscription that has ended cannot be given a schedule.");
  }
  if (subscription.schedule !== null) {
    throw invalidRequest(
      `You cannot migrate a subscription that is already attached to a schedule: ${idOf(subscription.schedule)}.`,
    );
  }
  const start = Math.min(...subscription.items.data.map((item) => item.current_period_start));
  const end = nextPeriodEnd(subscription);
  return store.schedules.add({
    ...newSchedule(simulation, {
      customer: idOf(subscription.customer) ?? "",
      defaultPaymentMethod: idOf(subscription.default_payment_method),
      endBehavior: "release",
    }),
    current_phase: { start_date: start, end_date: end },
    phases: [
      newPhase(subscription.currency, {
        start,
        end,
        items: subscription.items.data.map(({ price, quantity }) => ({
          price: price.id,
          quantity,
        })),
        prorationBehavior: "create_prorations",
        trialEnd: subscription.trial_end,
        metadata: {},
      }),
    ],
    status: "active",
    subscription: subscription.id,
  });
}

/** A schedule without phases; it is nowhere kept yet. */
function newSchedule(
  { newId, now }: Simulation,
  params: {
    customer: string;
    defaultPaymentMethod: string | null;
    endBehavior: "cancel" | "release";
  },
): Stripe.SubscriptionSchedule {
  return {
    id: newId("sub_sched"),
    object: "subscription_schedule",
    application: null,
    billing_mode: { type: "flexible", flexible: { proration_discounts: "included" } },
    canceled_at: null,
    completed_at: null,
    created: now(),
    current_phase: null,
    customer: params.customer,
    customer_account: null,
    default_settings: {
      application_fee_percent: null,
      automatic_tax: { disabled_reason: null, enabled: false, liability: null },
      billing_cycle_anchor: "automatic",
      billing_thresholds: null,
      collection_method: "charge_automatically",
      default_payment_method: params.defaultPaymentMethod,
      description: null,
      invoice_settings: {
        account_tax_ids: null,
        custom_fields: null,
        days_until_due: null,
        description: null,
        footer: null,
        issuer: { type: "self" },
      },
      on_behalf_of: null,
      transfer_data: null,
    },
    end_behavior: params.endBehavior,
    livemode: false,
    metadata: {},
    pause_schedules: [],
    phases: [],
    released_at: null,
    released_subscription: null,
    status: "not_started",
    subscription: null,
    test_clock: null,
  };
}

const newScheduleSpec = {
  from_subscription: text,
  customer: text,
  start_date: momentOr("now"),
  phases: list(hash(phaseSpec)),
  end_behavior: oneOf("cancel", "release"),
  default_settings: hash({ default_payment_method: text }),
  metadata,
};

/** A schedule for a subscription that does not exist yet: it begins with the first phase. */
function createFromPhases(
  simulation: Simulation,
  params: Params<typeof newScheduleSpec>,
): Stripe.SubscriptionSchedule {
  const { store, now } = simulation;
  const [first] = params.phases ?? [];
  if (params.customer === undefined || first === undefined) {
    throw invalidRequest("You must pass either `from_subscription`, or `customer` and `phases`.", {
      code: "parameter_missing",
      param: params.customer === undefined ? "customer" : "phases",
    });
  }
  const customer = store.customers.require(params.customer, "customer");
  const start = params.start_date === "now" ? now() : params.start_date;
  if (start === undefined || start < now()) {
    throw invalidRequest("`start_date` must be now or in the future.", { param: "start_date" });
  }
  const schedule = newSchedule(simulation, {
    customer: customer.id,
    defaultPaymentMethod: params.default_settings?.default_payment_method ?? null,
    endBehavior: params.end_behavior ?? "release",
  });
  const price = store.prices.require(first.items[0]?.price ?? "", "phases[0][items][0][price]");
  schedule.phases = readPhases(
    simulation,
    { ...schedule, phases: [{ ...newPhaseStub(price.currency, start) }] },
    params.phases ?? [],
  );
  return store.schedules.add(schedule);
}

/** Where the first phase starts when it does not say so itself. */
function newPhaseStub(currency: string, start: number): Stripe.SubscriptionSchedule.Phase {
  return newPhase(currency, {
    start,
    end: start,
    items: [],
    prorationBehavior: "create_prorations",
    trialEnd: null,
    metadata: {},
  });
}

/** not_started → active: the subscription begins with the first phase. */
export function startSchedule(simulation: Simulation, schedule: Stripe.SubscriptionSchedule): void {
  const { store } = simulation;
  const [phase] = schedule.phases;
  if (phase === undefined) return;
  const subscription = createSubscription(
    simulation,
    {
      customer: store.customers.require(idOf(schedule.customer) ?? ""),
      items: phase.items.map(({ price, quantity }) => ({
        price: store.prices.require(idOf(price) ?? ""),
        quantity,
      })),
      metadata: { ...phase.metadata },
      description: null,
      trialEnd: phase.trial_end,
      missingPaymentMethod: null,
      defaultPaymentMethod: idOf(schedule.default_settings.default_payment_method),
      collectionMethod: "charge_automatically",
      daysUntilDue: null,
      offers: [],
      schedule: schedule.id,
    },
    { how: "charge", customerPresent: false },
  );
  change(simulation, schedule, () => {
    schedule.status = "active";
    schedule.subscription = subscription.id;
    schedule.current_phase = { start_date: phase.start_date, end_date: phase.end_date };
  });
}

interface NewPhase {
  start: number;
  end: number;
  items: { price: string; quantity: number | undefined }[];
  prorationBehavior: Stripe.SubscriptionSchedule.Phase.ProrationBehavior;
  trialEnd: number | null;
  metadata: Stripe.Metadata;
}

function newPhase(
  currency: string,
  { start, end, items, prorationBehavior, trialEnd, metadata: entries }: NewPhase,
): Stripe.SubscriptionSchedule.Phase {
  return {
    add_invoice_items: [],
    application_fee_percent: null,
    billing_cycle_anchor: null,
    billing_thresholds: null,
    collection_method: null,
    currency,
    default_payment_method: null,
    default_tax_rates: [],
    description: null,
    discounts: [],
    end_date: end,
    invoice_settings: null,
    items: items.map(({ price, quantity }) => ({
      billing_thresholds: null,
      discounts: [],
      metadata: {},
      plan: price,
      price,
      ...(quantity === undefined ? {} : { quantity }),
      tax_rates: [],
    })),
    metadata: entries,
    on_behalf_of: null,
    proration_behavior: prorationBehavior,
    start_date: start,
    transfer_data: null,
    trial_end: trialEnd,
  };
}

/** Phases follow each other without a gap; a last one without an end lasts one interval of its price. */
function readPhases(
  simulation: Simulation,
  schedule: Stripe.SubscriptionSchedule,
  phases: PhaseParams[],
): Stripe.SubscriptionSchedule.Phase[] {
  const { now } = simulation;
  const currency = schedule.phases[0]?.currency ?? "usd";
  let previousEnd: number | undefined;
  return phases.map((phase, index) => {
    const param = `phases[${index}]`;
    const asked = phase.start_date === "now" ? now() : phase.start_date;
    const start = asked ?? previousEnd ?? schedule.phases[0]?.start_date ?? now();
    if (previousEnd !== undefined && start !== previousEnd) {
      throw invalidRequest("Phases must be contiguous: each starts when the one before ends.", {
        param: `${param}[start_date]`,
      });
    }
    if (phase.end_date === "now") throw notSimulated("end_date=now", `${param}[end_date]`);
    const prices = phase.items.map((item, position) =>
      subscribablePrice(simulation, item.price, `${param}[items][${position}][price]`),
    );
    const price = prices[0];
    if (price === undefined) {
      throw invalidRequest("Missing required param: items.", { param: `${param}[items]` });
    }
    const { interval, interval_count } = phase.duration ?? recurrence(price);
    const end =
      phase.end_date ?? addIntervals(start, { interval, interval_count: interval_count ?? 1 }, 1);
    if (end <= start) {
      throw invalidRequest("A phase must end after it starts.", { param: `${param}[end_date]` });
    }
    previousEnd = end;
    return newPhase(currency, {
      start,
      end,
      items: phase.items.map(({ price: id, quantity }) => ({ price: id, quantity })),
      prorationBehavior: phase.proration_behavior ?? "create_prorations",
      trialEnd: phase.trial === true ? end : (phase.trial_end ?? null),
      metadata: changedMetadata({}, phase.metadata),
    });
  });
}

/** Leaves the subscription as it is, without a schedule. */
function release(simulation: Simulation, schedule: Stripe.SubscriptionSchedule): void {
  const { store, now } = simulation;
  const subscription = store.subscriptions.get(idOf(schedule.subscription) ?? "");
  change(
    simulation,
    schedule,
    () => {
      schedule.status = "released";
      schedule.released_at = now();
      schedule.released_subscription = idOf(schedule.subscription);
      schedule.subscription = null;
      schedule.current_phase = null;
    },
    "subscription_schedule.released",
  );
  if (subscription === undefined) return;
  change(simulation, subscription, () => {
    subscription.schedule = null;
  });
}

/** The current phase is over: the next one begins, or the schedule ends as its end behaviour says. */
export function advanceSchedule(
  simulation: Simulation,
  schedule: Stripe.SubscriptionSchedule,
): void {
  const { store, now } = simulation;
  const subscription = store.subscriptions.get(idOf(schedule.subscription) ?? "");
  const next = schedule.phases.find((phase) => phase.start_date <= now() && phase.end_date > now());
  if (next !== undefined && subscription !== undefined) {
    change(simulation, schedule, () => {
      schedule.current_phase = { start_date: next.start_date, end_date: next.end_date };
    });
    updateItems(simulation, subscription, {
      items: editsTowards(
        subscription,
        next.items.map(({ price, quantity }) => ({ price: idOf(price) ?? "", quantity })),
      ),
      prorationBehavior: next.proration_behavior === "none" ? "none" : "create_prorations",
      prorationDate: now(),
      paymentBehavior: "allow_incomplete",
      restart: false,
    });
    change(simulation, subscription, () => {
      Object.assign(subscription.metadata, next.metadata);
    });
    return;
  }
  if (schedule.end_behavior === "cancel" && subscription !== undefined) {
    change(
      simulation,
      schedule,
      () => {
        schedule.status = "completed";
        schedule.completed_at = now();
        schedule.current_phase = null;
      },
      "subscription_schedule.completed",
    );
    subscription.schedule = null;
    endSubscription(simulation, subscription);
    return;
  }
  release(simulation, schedule);
}

function inRange(wanted: ((moment: number) => boolean) | undefined, moment: number | null) {
  return wanted === undefined || (moment !== null && wanted(moment));
}

/** A schedule whose subscription never began. */
export function cancelUnstarted(
  simulation: Simulation,
  schedule: Stripe.SubscriptionSchedule,
): void {
  change(
    simulation,
    schedule,
    () => {
      schedule.status = "canceled";
      schedule.canceled_at = simulation.now();
    },
    "subscription_schedule.canceled",
  );
}

function requireActive({ store }: Simulation, id: string): Stripe.SubscriptionSchedule {
  const schedule = store.schedules.require(id);
  if (schedule.status !== "active" && schedule.status !== "not_started") {
    throw invalidRequest(
      `You cannot change a subscription schedule that is in the \`${schedule.status}\` status.`,
    );
  }
  return schedule;
}

export const scheduleRoutes = [
  route("POST /v1/subscription_schedules", newScheduleSpec, (simulation, params) => {
    if (params.from_subscription === undefined) {
      const created = createFromPhases(simulation, params);
      created.metadata = changedMetadata({}, params.metadata);
      simulation.emit("subscription_schedule.created", created);
      return created;
    }
    if (params.phases !== undefined) {
      throw invalidRequest("`from_subscription` brings its own phases; change them afterwards.", {
        param: "phases",
      });
    }
    const subscription = simulation.store.subscriptions.require(
      params.from_subscription,
      "from_subscription",
    );
    const schedule = createFrom(simulation, subscription);
    schedule.metadata = changedMetadata({}, params.metadata);
    simulation.emit("subscription_schedule.created", schedule);
    change(simulation, subscription, () => {
      subscription.schedule = schedule.id;
    });
    return schedule;
  }),

  route(
    "GET /v1/subscription_schedules",
    {
      ...pagination,
      customer: text,
      scheduled: flag,
      created: range,
      canceled_at: range,
      completed_at: range,
      released_at: range,
    },
    ({ store }, params) =>
      page(
        "/v1/subscription_schedules",
        store.schedules
          .all()
          .filter(
            (schedule) =>
              (params.customer === undefined || schedule.customer === params.customer) &&
              (params.scheduled !== true || schedule.status === "not_started") &&
              (["created", "canceled_at", "completed_at", "released_at"] as const).every((field) =>
                inRange(params[field], schedule[field]),
              ),
          ),
        params,
      ),
  ),

  route("GET /v1/subscription_schedules/:id", {}, ({ store }, _params, id) =>
    store.schedules.require(id),
  ),

  route(
    "POST /v1/subscription_schedules/:id",
    {
      phases: list(hash(phaseSpec)),
      end_behavior: oneOf("cancel", "release"),
      proration_behavior: oneOf("always_invoice", "create_prorations", "none"),
      metadata,
    },
    (simulation, params, id) => {
      const schedule = requireActive(simulation, id);
      const phases = params.phases && readPhases(simulation, schedule, params.phases);
      change(simulation, schedule, () => {
        if (phases !== undefined) {
          schedule.phases = phases;
          const current = phases.find(
            ({ start_date, end_date }) =>
              start_date <= simulation.now() && end_date > simulation.now(),
          );
          schedule.current_phase = current
            ? { start_date: current.start_date, end_date: current.end_date }
            : null;
        }
        if (params.end_behavior !== undefined) schedule.end_behavior = params.end_behavior;
        schedule.metadata = changedMetadata(schedule.metadata, params.metadata);
      });
      return schedule;
    },
  ),

  route(
    "POST /v1/subscription_schedules/:id/release",
    { preserve_cancel_date: flag },
    (simulation, _params, id) => {
      const schedule = requireActive(simulation, id);
      release(simulation, schedule);
      return schedule;
    },
  ),

  route(
    "POST /v1/subscription_schedules/:id/cancel",
    { invoice_now: flag, prorate: flag },
    (simulation, _params, id) => {
      const schedule = requireActive(simulation, id);
      const subscription = simulation.store.subscriptions.get(idOf(schedule.subscription) ?? "");
      if (subscription !== undefined) endSubscription(simulation, subscription);
      else cancelUnstarted(simulation, schedule);
      return schedule;
    },
  ),
];
