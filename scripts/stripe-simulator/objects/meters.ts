/** Meters, what they are told, and what they make of it. */
import type Stripe from "stripe";
import { days, type Period } from "../billing/periods.ts";
import { invalidRequest, noSuch } from "../errors.ts";
import {
  dictionary,
  hash,
  isoMoment,
  natural,
  oneOf,
  required,
  text,
  type Params,
} from "../http/params.ts";
import { page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import type { MeteredUse } from "../store.ts";
import { emitThin, isoTime } from "../thin.ts";

const newMeter = {
  display_name: required(text),
  event_name: required(text),
  event_time_window: oneOf("day", "hour"),
  default_aggregation: required(hash({ formula: required(oneOf("count", "last", "sum")) })),
  customer_mapping: hash({ type: required(oneOf("by_id")), event_payload_key: required(text) }),
  value_settings: hash({ event_payload_key: required(text) }),
};

function createMeter(
  { store, newId, now, emit }: Simulation,
  params: Params<typeof newMeter>,
): Stripe.Billing.Meter {
  const taken = store.meters
    .all()
    .some(({ status, event_name }) => status === "active" && event_name === params.event_name);
  if (taken) {
    throw invalidRequest(
      `An active meter for the event name ${params.event_name} exists already.`,
      {
        param: "event_name",
      },
    );
  }
  const meter = store.meters.add({
    id: newId("mtr_test"),
    object: "billing.meter",
    created: now(),
    customer_mapping: {
      type: "by_id",
      event_payload_key: params.customer_mapping?.event_payload_key ?? "stripe_customer_id",
    },
    default_aggregation: params.default_aggregation,
    display_name: params.display_name,
    event_name: params.event_name,
    event_time_window: params.event_time_window ?? null,
    livemode: false,
    status: "active",
    status_transitions: { deactivated_at: null },
    updated: now(),
    value_settings: { event_payload_key: params.value_settings?.event_payload_key ?? "value" },
  });
  emit("billing.meter.created", meter);
  return meter;
}

function setStatus(
  simulation: Simulation,
  meter: Stripe.Billing.Meter,
  status: "active" | "inactive",
): Stripe.Billing.Meter {
  if (meter.status === status) throw invalidRequest(`This meter is already ${status}.`);
  change(
    simulation,
    meter,
    () => {
      meter.status = status;
      meter.updated = simulation.now();
      meter.status_transitions.deactivated_at = status === "inactive" ? simulation.now() : null;
    },
    status === "active" ? "billing.meter.reactivated" : "billing.meter.deactivated",
  );
  return meter;
}

export interface NewMeterEvent {
  event_name: string;
  payload: { [key: string]: string };
  identifier?: string | undefined;
  timestamp?: number | undefined;
}

/** How far back an event may be dated, and how far ahead. */
const oldest = days(35);
const farthestAhead = 300;
/** For at least this long an identifier counts once. */
const identifiersKeptFor = days(1);

/**
 * Takes an event. Its time and its identifier are judged at once; whether a meter can use it only afterwards, which
 * Stripe tells in a thin event.
 */
function recordEvent(simulation: Simulation, params: NewMeterEvent): Stripe.Billing.MeterEvent {
  const { store, newId, now } = simulation;
  const timestamp = params.timestamp ?? now();
  if (timestamp < now() - oldest || timestamp > now() + farthestAhead) {
    throw invalidRequest(
      "The timestamp must be within the past 35 calendar days and at most 5 minutes in the future.",
      { param: "timestamp" },
    );
  }
  const identifier = params.identifier ?? newId("me").slice(3);
  const known = store.meteredUses.some(
    (use) => use.identifier === identifier && use.createdAt > now() - identifiersKeptFor,
  );
  if (known) {
    throw invalidRequest(`An event already exists with identifier ${identifier}.`, {
      code: "duplicate_meter_event",
      param: "identifier",
    });
  }
  const use: MeteredUse = {
    identifier,
    eventName: params.event_name,
    payload: params.payload,
    timestamp,
    createdAt: now(),
    counts: true,
  };
  store.meteredUses.push(use);
  validate(simulation, use);
  return {
    object: "billing.meter_event",
    created: now(),
    event_name: params.event_name,
    identifier,
    livemode: false,
    payload: params.payload,
    timestamp,
  };
}

/** What Stripe does a while later: an event that no meter can use is dropped, and reported. */
function validate(simulation: Simulation, use: MeteredUse): void {
  const { store } = simulation;
  const named = store.meters.all().filter(({ event_name }) => event_name === use.eventName);
  const meter = named.find(({ status }) => status === "active") ?? named.at(-1);
  if (meter === undefined) {
    use.counts = false;
    reportErrors(simulation, use, "no_meter", `No meter was found for ${use.eventName}.`);
    return;
  }
  const customer = use.payload[meter.customer_mapping.event_payload_key];
  const value = use.payload[meter.value_settings.event_payload_key];
  const counted = meter.default_aggregation.formula === "count";
  const problem =
    meter.status !== "active"
      ? (["archived_meter", `The meter ${meter.id} is inactive.`] as const)
      : customer === undefined
        ? (["meter_event_no_customer_defined", "The payload names no customer."] as const)
        : store.customers.get(customer) === undefined
          ? (["meter_event_customer_not_found", `No such customer: ${customer}.`] as const)
          : !counted && (value === undefined || !/^-?\d{1,15}(\.\d+)?$/.test(value))
            ? (["meter_event_invalid_value", "The payload's value is not a number."] as const)
            : undefined;
  if (problem === undefined) return;
  use.counts = false;
  reportErrors(simulation, use, problem[0], problem[1], meter);
}

function reportErrors(
  simulation: Simulation,
  use: MeteredUse,
  code: string,
  message: string,
  meter?: Stripe.Billing.Meter,
): void {
  const data = {
    developer_message_summary: `There is 1 invalid event. ${message}`,
    reason: {
      error_count: 1,
      error_types: [
        {
          code,
          error_count: 1,
          sample_errors: [{ error_message: message, request: { identifier: use.identifier } }],
        },
      ],
    },
    validation_start: isoTime(simulation.now()),
    validation_end: isoTime(simulation.now() + 10),
  };
  emitThin(
    simulation,
    meter === undefined
      ? { type: "v1.billing.meter.no_meter_found", data }
      : {
          type: "v1.billing.meter.error_report_triggered",
          relatedObject: {
            id: meter.id,
            type: "billing.meter",
            url: `/v1/billing/meters/${meter.id}`,
          },
          data,
        },
  );
}

/** What a meter counted for a customer in a period. */
export function meteredUsage(
  { store }: Simulation,
  meterId: string,
  customer: string,
  { start, end }: Period,
): number {
  const meter = store.meters.get(meterId);
  if (meter === undefined) return 0;
  const values = store.meteredUses
    .filter(
      (use) =>
        use.counts &&
        use.eventName === meter.event_name &&
        use.payload[meter.customer_mapping.event_payload_key] === customer &&
        use.timestamp >= start &&
        use.timestamp < end,
    )
    .sort((a, b) => a.timestamp - b.timestamp)
    .map(({ payload }) => Number(payload[meter.value_settings.event_payload_key] ?? 0));
  switch (meter.default_aggregation.formula) {
    case "count":
      return values.length;
    case "last":
      return values.at(-1) ?? 0;
    default:
      return values.reduce((sum, value) => sum + value, 0);
  }
}

/** Takes an event back, within a day of its coming. */
function adjust(
  { store, now }: Simulation,
  eventName: string,
  identifier: string,
): Stripe.Billing.MeterEventAdjustment {
  const use = store.meteredUses.find(
    (each) => each.identifier === identifier && each.eventName === eventName,
  );
  if (use === undefined) throw noSuch("meter event", identifier, "cancel[identifier]");
  if (use.createdAt <= now() - days(1)) {
    throw invalidRequest("An event can be cancelled within 24 hours of being received.", {
      param: "cancel[identifier]",
    });
  }
  use.counts = false;
  return {
    object: "billing.meter_event_adjustment",
    cancel: { identifier },
    event_name: eventName,
    livemode: false,
    status: "pending",
    type: "cancel",
  };
}

export const meterRoutes = [
  route("POST /v1/billing/meters", newMeter, createMeter),

  route(
    "GET /v1/billing/meters",
    { ...pagination, status: oneOf("active", "inactive") },
    ({ store }, params) =>
      page(
        "/v1/billing/meters",
        store.meters
          .all()
          .filter(({ status }) => params.status === undefined || status === params.status),
        params,
      ),
  ),

  route("GET /v1/billing/meters/:id", {}, ({ store }, _params, id) => store.meters.require(id)),

  route("POST /v1/billing/meters/:id", { display_name: text }, (simulation, params, id) => {
    const meter = simulation.store.meters.require(id);
    change(simulation, meter, () => {
      if (params.display_name !== undefined) meter.display_name = params.display_name;
      meter.updated = simulation.now();
    });
    return meter;
  }),

  route("POST /v1/billing/meters/:id/deactivate", {}, (simulation, _params, id) =>
    setStatus(simulation, simulation.store.meters.require(id), "inactive"),
  ),

  route("POST /v1/billing/meters/:id/reactivate", {}, (simulation, _params, id) =>
    setStatus(simulation, simulation.store.meters.require(id), "active"),
  ),

  route(
    "GET /v1/billing/meters/:id/event_summaries",
    {
      ...pagination,
      customer: required(text),
      start_time: required(natural),
      end_time: required(natural),
      value_grouping_window: oneOf("day", "hour"),
    },
    (simulation, params, id) => {
      const meter = simulation.store.meters.require(id);
      const step = { day: days(1), hour: 3_600 }[params.value_grouping_window ?? "day"];
      const whole = params.end_time - params.start_time;
      const width = params.value_grouping_window === undefined ? whole : step;
      if (params.start_time % 60 !== 0 || params.end_time % 60 !== 0 || whole <= 0) {
        throw invalidRequest("start_time and end_time must be whole minutes, in order.", {
          param: "start_time",
        });
      }
      const summaries = Array.from({ length: Math.ceil(whole / width) }, (_, index) => {
        const start = params.start_time + index * width;
        const end = Math.min(start + width, params.end_time);
        return {
          id: `mtrsum_${meter.id}_${start}`,
          object: "billing.meter_event_summary" as const,
          aggregated_value: meteredUsage(simulation, id, params.customer, { start, end }),
          end_time: end,
          livemode: false,
          meter: id,
          start_time: start,
        } satisfies Stripe.Billing.MeterEventSummary;
      });
      return page(`/v1/billing/meters/${id}/event_summaries`, summaries, params);
    },
  ),

  route(
    "POST /v1/billing/meter_events",
    {
      event_name: required(text),
      payload: required(dictionary),
      identifier: text,
      timestamp: natural,
    },
    recordEvent,
  ),

  route(
    "POST /v2/billing/meter_events",
    {
      event_name: required(text),
      payload: required(dictionary),
      identifier: text,
      timestamp: isoMoment,
    },
    (simulation, params): Stripe.V2.Billing.MeterEvent => {
      const { created, timestamp, ...event } = recordEvent(simulation, params);
      return {
        ...event,
        object: "v2.billing.meter_event",
        created: isoTime(created),
        timestamp: isoTime(timestamp),
      };
    },
  ),

  route(
    "POST /v1/billing/meter_event_adjustments",
    {
      event_name: required(text),
      type: required(oneOf("cancel")),
      cancel: required(hash({ identifier: required(text) })),
    },
    (simulation, params) => adjust(simulation, params.event_name, params.cancel.identifier),
  ),

  route("GET /v2/core/events/:id", {}, ({ store }, _params, id) => store.thinEvents.require(id)),
];

/** The customer a subscription's usage is counted for. */
export function usageOf(
  simulation: Simulation,
  item: Stripe.SubscriptionItem,
  period: Period,
): number {
  const meter = item.price.recurring?.meter ?? null;
  const subscription = simulation.store.subscriptions.get(item.subscription);
  if (meter === null || subscription === undefined) return 0;
  // Corrections below zero count; an invoice shows none where they outweigh the rest.
  return Math.max(0, meteredUsage(simulation, meter, idOf(subscription.customer) ?? "", period));
}
