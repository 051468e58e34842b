/** Refunds: in parts or whole, and their fates later. */
import type Stripe from "stripe";
import { days } from "../billing/periods.ts";
import { invalidRequest } from "../errors.ts";
import { metadata, natural, oneOf, range, text } from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";

const refundReasons = oneOf("duplicate", "fraudulent", "requested_by_customer");

export function createRefund(
  simulation: Simulation,
  charge: Stripe.Charge,
  amount: number,
  details: { reason: string | null; metadata: Stripe.Metadata },
): Stripe.Refund {
  const { store, newId, now, emit } = simulation;
  if (charge.status !== "succeeded") {
    throw invalidRequest(`Charge ${charge.id} was not successful and cannot be refunded.`);
  }
  const refundable = charge.amount - charge.amount_refunded;
  if (refundable === 0) {
    throw invalidRequest(`Charge ${charge.id} has already been refunded.`, {
      code: "charge_already_refunded",
    });
  }
  if (amount < 1 || amount > refundable) {
    throw invalidRequest(
      `Refund amount (${amount}) is greater than unrefunded amount on charge (${refundable}).`,
      { param: "amount" },
    );
  }
  const afterwards = store.cards.get(charge.payment_method ?? "")?.afterwards;
  const refund = store.refunds.add({
    id: newId("re"),
    object: "refund",
    amount,
    balance_transaction: newId("txn"),
    charge: charge.id,
    created: now(),
    currency: charge.currency,
    customer: idOf(charge.customer),
    customer_account: null,
    destination_details: {
      type: "card",
      card: {
        type: "refund",
        reference_status: "pending",
        reference_type: "acquirer_reference_number",
      },
    },
    metadata: details.metadata,
    payment_intent: idOf(charge.payment_intent),
    payment_method: charge.payment_method,
    reason: details.reason,
    receipt_number: null,
    source_transfer_reversal: null,
    status: afterwards === "refund_takes_time" ? "pending" : "succeeded",
    transfer_reversal: null,
  });
  if (afterwards === "refund_takes_time") refund.pending_reason = "processing";
  emit("refund.created", refund);
  charge.amount_refunded += amount;
  charge.refunded = charge.amount_refunded === charge.amount;
  emit("charge.refunded", charge, {
    amount_refunded: charge.amount_refunded - amount,
    ...(charge.refunded ? { refunded: false } : {}),
  });
  return refund;
}

/** Refunds of certain test cards are settled, or fail, this long after they were made. */
const refundsTake = days(1);

/** Refunds whose fate time decides: pending ones succeed, and those of one test card come back. */
export function refundDue(
  simulation: Simulation,
  refund: Stripe.Refund,
): { at: number; run: () => void } | undefined {
  const charge = simulation.store.charges.get(idOf(refund.charge) ?? "");
  const afterwards = simulation.store.cards.get(charge?.payment_method ?? "")?.afterwards;
  const at = refund.created + refundsTake;
  if (refund.status === "pending") return { at, run: () => settleRefund(simulation, refund) };
  if (refund.status === "succeeded" && afterwards === "refund_fails") {
    return { at, run: () => failRefund(simulation, refund) };
  }
  return undefined;
}

function settleRefund(simulation: Simulation, refund: Stripe.Refund): void {
  change(
    simulation,
    refund,
    () => {
      refund.status = "succeeded";
      delete refund.pending_reason;
    },
    "charge.refund.updated",
  );
}

/** The bank could not pass the money on: the refund fails, even after it had succeeded. */
export function failRefund(
  simulation: Simulation,
  refund: Stripe.Refund,
  reason = "expired_or_canceled_card",
): void {
  if (refund.status === "failed" || refund.status === "canceled") {
    throw invalidRequest(`Refund ${refund.id} is already ${refund.status}.`);
  }
  change(
    simulation,
    refund,
    () => {
      refund.status = "failed";
      refund.failure_reason = reason;
      refund.failure_balance_transaction = simulation.newId("txn");
    },
    "refund.failed",
    "charge.refund.updated",
  );
  const charge = simulation.store.charges.get(idOf(refund.charge) ?? "");
  if (charge === undefined) return;
  change(simulation, charge, () => {
    charge.amount_refunded -= refund.amount;
    charge.refunded = false;
  });
}

export const refundRoutes = [
  route(
    "POST /v1/refunds",
    { charge: text, payment_intent: text, amount: natural, reason: refundReasons, metadata },
    (simulation, params) => {
      const { store } = simulation;
      const intent =
        params.payment_intent === undefined
          ? undefined
          : store.paymentIntents.require(params.payment_intent, "payment_intent");
      const charge = params.charge ?? idOf(intent?.latest_charge);
      if (charge === null) {
        throw invalidRequest(
          "One of the following params should be provided: payment_intent or charge.",
        );
      }
      const target = store.charges.require(charge, "charge");
      return createRefund(
        simulation,
        target,
        params.amount ?? target.amount - target.amount_refunded,
        {
          reason: params.reason ?? null,
          metadata: changedMetadata({}, params.metadata),
        },
      );
    },
  ),

  route(
    "GET /v1/refunds",
    { ...pagination, charge: text, payment_intent: text, created: range },
    ({ store }, params) =>
      page(
        "/v1/refunds",
        store.refunds
          .all()
          .filter(
            ({ charge, payment_intent, created }) =>
              (params.created === undefined || params.created(created)) &&
              (params.charge === undefined || charge === params.charge) &&
              (params.payment_intent === undefined || payment_intent === params.payment_intent),
          ),
        params,
      ),
  ),

  route("GET /v1/refunds/:id", {}, ({ store }, _params, id) => store.refunds.require(id)),

  route("POST /v1/refunds/:id/cancel", {}, (_simulation, _params, id) => {
    throw invalidRequest(`Refund ${id} of a card cannot be canceled.`);
  }),

  route("POST /v1/refunds/:id", { metadata }, (simulation, params, id) => {
    const refund = simulation.store.refunds.require(id);
    change(simulation, refund, () => {
      refund.metadata = changedMetadata(refund.metadata, params.metadata);
    });
    return refund;
  }),
];
