/** Disputes and the early fraud warnings that may come before them. */
import type Stripe from "stripe";
import { days } from "../billing/periods.ts";
import { invalidRequest } from "../errors.ts";
import { flag, hash, metadata, range, text } from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";

/** An inquiry moves no money and may become nothing; a chargeback takes the money at once. */
export type DisputeKind = "chargeback" | "inquiry";

/** How long the merchant has to answer. */
const answerWithin = days(14);

export function disputeCharge(
  simulation: Simulation,
  charge: Stripe.Charge,
  { reason = "fraudulent", kind = "chargeback" }: { reason?: string; kind?: DisputeKind } = {},
): Stripe.Dispute {
  const { store, now, emit, newId } = simulation;
  if (!charge.paid) throw invalidRequest(`Charge ${charge.id} took no money to dispute.`);
  if (charge.disputed) throw invalidRequest(`Charge ${charge.id} is disputed already.`);
  const chargeback = kind === "chargeback";
  const dispute = store.disputes.add({
    id: newId("du"),
    object: "dispute",
    amount: charge.amount,
    balance_transactions: [],
    charge: charge.id,
    created: now(),
    currency: charge.currency,
    enhanced_eligibility_types: [],
    evidence: noEvidence(),
    evidence_details: {
      due_by: now() + answerWithin,
      enhanced_eligibility: {},
      has_evidence: false,
      past_due: false,
      submission_count: 0,
      submission_method: "not_submitted",
    },
    intended_submission_method: null,
    is_charge_refundable: !chargeback,
    livemode: false,
    metadata: {},
    payment_intent: idOf(charge.payment_intent),
    payment_method_details: {
      type: "card",
      card: {
        brand: charge.payment_method_details?.card?.brand ?? "visa",
        case_type: kind,
        network: charge.payment_method_details?.card?.network ?? "visa",
        network_reason_code: reason === "fraudulent" ? "10.4" : "13.1",
      },
    },
    reason,
    status: chargeback ? "needs_response" : "warning_needs_response",
  });
  change(simulation, charge, () => {
    charge.disputed = true;
  });
  emit("charge.dispute.created", dispute);
  if (chargeback) moveMoney(simulation, dispute, -1);
  return dispute;
}

/** Takes the disputed amount and Stripe's fee, or gives the amount back. */
function moveMoney({ newId, now, emit }: Simulation, dispute: Stripe.Dispute, sign: -1 | 1): void {
  const fee = sign < 0 ? 1_500 : 0;
  dispute.balance_transactions.push({
    id: newId("txn"),
    object: "balance_transaction",
    amount: sign * dispute.amount,
    available_on: now(),
    balance_type: "payments",
    created: now(),
    currency: dispute.currency,
    description: `Chargeback ${sign < 0 ? "withdrawal" : "reversal"} for ${String(dispute.charge)}`,
    exchange_rate: null,
    fee,
    fee_details:
      fee === 0
        ? []
        : [
            {
              amount: fee,
              application: null,
              currency: dispute.currency,
              description: "Dispute fee",
              type: "stripe_fee",
            },
          ],
    net: sign * dispute.amount - fee,
    reporting_category: sign < 0 ? "dispute" : "dispute_reversal",
    source: dispute.id,
    status: "available",
    type: "adjustment",
  });
  emit(sign < 0 ? "charge.dispute.funds_withdrawn" : "charge.dispute.funds_reinstated", dispute);
}

export type DisputeOutcome = "lost" | "warning_closed" | "won";

/** The bank has decided. */
export function closeDispute(
  simulation: Simulation,
  dispute: Stripe.Dispute,
  outcome: DisputeOutcome,
): void {
  if (isClosed(dispute)) throw invalidRequest(`This dispute is already ${dispute.status}.`);
  const inquiry = dispute.status.startsWith("warning_");
  if (inquiry !== (outcome === "warning_closed")) {
    throw invalidRequest(
      inquiry ? "An inquiry ends as `warning_closed`." : "A chargeback is won or lost.",
    );
  }
  change(simulation, dispute, () => {
    dispute.status = outcome;
  });
  if (outcome === "won") moveMoney(simulation, dispute, 1);
  simulation.emit("charge.dispute.closed", dispute);
}

export function isClosed({ status }: Stripe.Dispute): boolean {
  return ["lost", "won", "warning_closed", "prevented"].includes(status);
}

/** Nobody answered in time: the dispute is lost, an inquiry forgotten. */
export function lapseDispute(simulation: Simulation, dispute: Stripe.Dispute): void {
  change(simulation, dispute, () => {
    dispute.evidence_details.past_due = true;
  });
  closeDispute(
    simulation,
    dispute,
    dispute.status.startsWith("warning_") ? "warning_closed" : "lost",
  );
}

/** Hands the evidence to the bank; Stripe's two test sentences decide at once. */
function submitEvidence(simulation: Simulation, dispute: Stripe.Dispute): void {
  const inquiry = dispute.status.startsWith("warning_");
  change(simulation, dispute, () => {
    dispute.status = inquiry ? "warning_under_review" : "under_review";
    dispute.evidence_details.submission_count += 1;
    dispute.evidence_details.submission_method = "manual";
  });
  const sentence = dispute.evidence.uncategorized_text;
  if (sentence !== "winning_evidence" && sentence !== "losing_evidence") return;
  const outcome = sentence === "winning_evidence" ? "won" : "lost";
  closeDispute(simulation, dispute, inquiry ? "warning_closed" : outcome);
}

export function warnOfFraud(
  { store, newId, now, emit }: Simulation,
  charge: Stripe.Charge,
  fraudType = "made_with_stolen_card",
): Stripe.Radar.EarlyFraudWarning {
  const intent = idOf(charge.payment_intent);
  const warning = store.earlyFraudWarnings.add({
    id: newId("issfr"),
    object: "radar.early_fraud_warning",
    actionable: !charge.refunded && !charge.disputed,
    charge: charge.id,
    created: now(),
    fraud_type: fraudType,
    livemode: false,
    ...(intent === null ? {} : { payment_intent: intent }),
  });
  emit("radar.early_fraud_warning.created", warning);
  return warning;
}

function noEvidence(): Stripe.Dispute.Evidence {
  return {
    access_activity_log: null,
    billing_address: null,
    cancellation_policy: null,
    cancellation_policy_disclosure: null,
    cancellation_rebuttal: null,
    customer_communication: null,
    customer_email_address: null,
    customer_name: null,
    customer_purchase_ip: null,
    customer_signature: null,
    duplicate_charge_documentation: null,
    duplicate_charge_explanation: null,
    duplicate_charge_id: null,
    enhanced_evidence: {},
    product_description: null,
    receipt: null,
    refund_policy: null,
    refund_policy_disclosure: null,
    refund_refusal_explanation: null,
    service_date: null,
    service_documentation: null,
    shipping_address: null,
    shipping_carrier: null,
    shipping_date: null,
    shipping_documentation: null,
    shipping_tracking_number: null,
    uncategorized_file: null,
    uncategorized_text: null,
  };
}

const charged = { ...pagination, charge: text, payment_intent: text, created: range };

export const disputeRoutes = [
  route("GET /v1/disputes", charged, ({ store }, params) =>
    page(
      "/v1/disputes",
      store.disputes
        .all()
        .filter(
          ({ charge, payment_intent, created }) =>
            (params.charge === undefined || charge === params.charge) &&
            (params.payment_intent === undefined || payment_intent === params.payment_intent) &&
            (params.created === undefined || params.created(created)),
        ),
      params,
    ),
  ),

  route("GET /v1/disputes/:id", {}, ({ store }, _params, id) => store.disputes.require(id)),

  route(
    "POST /v1/disputes/:id",
    {
      evidence: hash({
        customer_email_address: text,
        customer_name: text,
        product_description: text,
        uncategorized_text: text,
      }),
      submit: flag,
      metadata,
    },
    (simulation, { evidence, submit = true, metadata: entries }, id) => {
      const dispute = simulation.store.disputes.require(id);
      if (evidence !== undefined && isClosed(dispute)) {
        throw invalidRequest("This dispute is closed; its evidence can no longer be changed.");
      }
      change(simulation, dispute, () => {
        for (const [key, value] of Object.entries(evidence ?? {})) {
          if (value !== undefined) Object.assign(dispute.evidence, { [key]: value });
        }
        if (evidence !== undefined) dispute.evidence_details.has_evidence = true;
        dispute.metadata = changedMetadata(dispute.metadata, entries);
      });
      if (evidence !== undefined && submit) submitEvidence(simulation, dispute);
      return dispute;
    },
  ),

  route("POST /v1/disputes/:id/close", {}, (simulation, _params, id) => {
    const dispute = simulation.store.disputes.require(id);
    closeDispute(
      simulation,
      dispute,
      dispute.status.startsWith("warning_") ? "warning_closed" : "lost",
    );
    return dispute;
  }),

  route("GET /v1/radar/early_fraud_warnings", charged, ({ store }, params) =>
    page(
      "/v1/radar/early_fraud_warnings",
      store.earlyFraudWarnings
        .all()
        .filter(
          ({ charge, payment_intent, created }) =>
            (params.charge === undefined || charge === params.charge) &&
            (params.payment_intent === undefined || payment_intent === params.payment_intent) &&
            (params.created === undefined || params.created(created)),
        ),
      params,
    ),
  ),

  route("GET /v1/radar/early_fraud_warnings/:id", {}, ({ store }, _params, id) =>
    store.earlyFraudWarnings.require(id),
  ),
];
