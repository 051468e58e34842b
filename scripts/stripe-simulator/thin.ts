/** Thin events: Stripe's second kind, which name an object instead of showing it. */
import type Stripe from "stripe";
import type { Simulation } from "./simulation.ts";

export interface ThinEvent extends Stripe.V2.Core.EventBase {
  related_object?: Stripe.V2.Core.Events.RelatedObject;
  /** Only in the event itself, never in the notification of it. */
  data?: object;
}

export interface NewThinEvent {
  type: string;
  relatedObject?: { id: string; type: string; url: string };
  data?: object;
  snapshotEvent?: string;
}

/** Records a thin event and sends the notification of it. */
export function emitThin(
  { store, newId, now, cause, deliver }: Simulation,
  { type, relatedObject, data, snapshotEvent }: NewThinEvent,
): ThinEvent {
  const notification: ThinEvent = {
    id: newId("evt_test"),
    object: "v2.core.event",
    created: isoTime(now()),
    livemode: false,
    ...(cause.id === null
      ? {}
      : {
          reason: {
            type: "request",
            request: { id: cause.id, idempotency_key: cause.idempotency_key ?? "" },
          },
        }),
    ...(relatedObject === undefined ? {} : { related_object: relatedObject }),
    ...(snapshotEvent === undefined ? {} : { snapshot_event: snapshotEvent }),
    type,
  };
  store.thinEvents.add(data === undefined ? notification : { ...notification, data });
  deliver(notification);
  return notification;
}

/** Where an object of a snapshot event is read. */
const paths: Record<string, string> = {
  "billing.meter": "/v1/billing/meters",
  charge: "/v1/charges",
  "checkout.session": "/v1/checkout/sessions",
  coupon: "/v1/coupons",
  credit_note: "/v1/credit_notes",
  customer: "/v1/customers",
  dispute: "/v1/disputes",
  invoice: "/v1/invoices",
  invoice_payment: "/v1/invoice_payments",
  payment_intent: "/v1/payment_intents",
  payment_method: "/v1/payment_methods",
  price: "/v1/prices",
  product: "/v1/products",
  promotion_code: "/v1/promotion_codes",
  refund: "/v1/refunds",
  setup_intent: "/v1/setup_intents",
  subscription: "/v1/subscriptions",
  subscription_schedule: "/v1/subscription_schedules",
};

/** The thin twin of a snapshot event; none for objects without an id or a path. */
export function thinTwin(event: Stripe.Event): NewThinEvent | undefined {
  const { id, object } = event.data.object as { id?: string; object: string };
  const path = paths[object];
  if (id === undefined || path === undefined) return undefined;
  return {
    type: `v1.${event.type}`,
    relatedObject: { id, type: object, url: `${path}/${id}` },
    snapshotEvent: event.id,
  };
}

export function isoTime(seconds: number): string {
  return new Date(seconds * 1000).toISOString();
}
