/** What may happen after a payment: disputes, warnings of fraud, credit notes. */
import { day, type StripeObject } from "../stripe-objects.ts";
import type { Bought, Cast } from "./cast.ts";
import type { Stage } from "./stage.ts";
import { inAnyOrder } from "./steps.ts";

type Scene = (stage: Stage, cast: Cast, bought: Bought) => void;

/** A charge is disputed; who is right is found later, or not yet. */
export const dispute: Scene = (stage, _cast, bought) => {
  const paid = bought.paid.at(-1);
  if (paid === undefined || paid.charge["disputed"] === true) return;
  const claim: StripeObject = {
    id: stage.id("du"),
    object: "dispute",
    amount: 1000,
    balance_transactions: [],
    charge: paid.charge.id,
    created: stage.now(),
    currency: "usd",
    evidence_details: { due_by: stage.now() + 7 * day, has_evidence: false },
    is_charge_refundable: false,
    livemode: false,
    metadata: {},
    payment_intent: paid.intent,
    reason: "fraudulent",
    status: "needs_response",
  };
  inAnyOrder(stage, [
    () => stage.announce("charge.dispute.created", claim),
    () => stage.change(paid.charge, { disputed: true }, "charge.updated"),
  ]);
  if (stage.random.chance(0.3)) return;
  stage.pass(stage.random.whole(0, 2 * day));
  const evidence = { due_by: Number(claim["created"]) + 7 * day, has_evidence: true };
  stage.change(
    claim,
    { evidence_details: evidence, status: "under_review" },
    "charge.dispute.updated",
  );
  if (stage.random.chance(0.3)) return;
  stage.breathe();
  stage.change(
    claim,
    { status: stage.random.pick(["won", "lost"]) },
    "charge.dispute.closed",
    "charge.dispute.updated",
  );
};

export const warnOfFraud: Scene = (stage, _cast, bought) => {
  const paid = bought.paid.at(-1);
  if (paid === undefined) return;
  const warning: StripeObject = {
    id: stage.id("issfr"),
    object: "radar.early_fraud_warning",
    actionable: true,
    charge: paid.charge.id,
    created: stage.now(),
    fraud_type: "misc",
    livemode: false,
    payment_intent: paid.intent,
  };
  stage.announce("radar.early_fraud_warning.created", warning);
  stage.breathe();
  if (stage.random.chance(0.5)) {
    stage.change(warning, { actionable: false }, "radar.early_fraud_warning.updated");
  }
};

export const credit: Scene = (stage, cast, bought) => {
  const note: StripeObject = {
    id: stage.id("cn"),
    object: "credit_note",
    amount: 300,
    created: stage.now(),
    currency: "usd",
    customer: cast.reader.id,
    effective_at: stage.now(),
    invoice: String(bought.agreement["latest_invoice"]),
    livemode: false,
    memo: null,
    metadata: {},
    number: `${stage.id("CN")}`,
    out_of_band_amount: 0,
    post_payment_amount: 300,
    pre_payment_amount: 0,
    reason: "order_change",
    refunds: [],
    status: "issued",
    voided_at: null,
  };
  stage.announce("credit_note.created", note);
  stage.breathe();
  if (stage.random.chance(0.3)) stage.change(note, { memo: "Sorry." }, "credit_note.updated");
  if (stage.random.chance(0.3)) {
    stage.change(note, { status: "void", voided_at: stage.now() }, "credit_note.voided");
  }
};
