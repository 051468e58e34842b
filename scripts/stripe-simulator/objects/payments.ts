/** Payment intents, charges and the invoice payments that tie them to invoices. */
import type Stripe from "stripe";
import { days } from "../billing/periods.ts";
import { hash, oneOf, range, text } from "../http/params.ts";
import { page, pagination, route } from "../http/routes.ts";
import { idOf, type Simulation } from "../simulation.ts";
import { declineDetails } from "./declines.ts";
import { disputeCharge, warnOfFraud } from "./disputes.ts";
import type { TestCard } from "./test_cards.ts";

export interface NewPaymentIntent {
  amount: number;
  currency: string;
  customer: string | null;
  description: string | null;
  metadata: Stripe.Metadata;
  setupFutureUsage: "off_session" | "on_session" | null;
}

/** Announcing it is the caller's. */
export function newPaymentIntent(
  { store, newId, now }: Simulation,
  params: NewPaymentIntent,
): Stripe.PaymentIntent {
  const id = newId("pi");
  return store.paymentIntents.add({
    id,
    object: "payment_intent",
    allowed_payment_method_types: null,
    amount: params.amount,
    amount_capturable: 0,
    amount_details: { tip: {} },
    amount_received: 0,
    application: null,
    application_fee_amount: null,
    automatic_payment_methods: null,
    canceled_at: null,
    cancellation_reason: null,
    capture_method: "automatic",
    client_secret: `${id}_secret_${newId("x").slice(2)}`,
    confirmation_method: "automatic",
    created: now(),
    currency: params.currency,
    customer: params.customer,
    customer_account: null,
    description: params.description,
    excluded_payment_method_types: null,
    last_payment_error: null,
    latest_charge: null,
    livemode: false,
    managed_payments: null,
    metadata: params.metadata,
    next_action: null,
    on_behalf_of: null,
    payment_method: null,
    payment_method_configuration_details: null,
    payment_method_options: null,
    payment_method_types: ["card"],
    payment_record: null,
    processing: null,
    receipt_email: null,
    review: null,
    setup_future_usage: params.setupFutureUsage,
    shipping: null,
    source: null,
    statement_descriptor: null,
    statement_descriptor_suffix: null,
    status: "requires_payment_method",
    transfer_data: null,
    transfer_group: null,
  });
}

/** What an open invoice waits to be paid with. */
export function createInvoicePayment(
  simulation: Simulation,
  invoice: Stripe.Invoice,
): Stripe.PaymentIntent {
  const { store, newId, now } = simulation;
  const intent = newPaymentIntent(simulation, {
    amount: invoice.amount_due,
    currency: invoice.currency,
    customer: idOf(invoice.customer),
    description:
      invoice.parent === null
        ? "Payment for Invoice"
        : invoice.billing_reason === "subscription_create"
          ? "Subscription creation"
          : "Subscription update",
    metadata: {},
    setupFutureUsage: "off_session",
  });
  const payment: Stripe.InvoicePayment = {
    id: newId("inpay"),
    object: "invoice_payment",
    amount_paid: null,
    amount_requested: invoice.amount_due,
    created: now(),
    currency: invoice.currency,
    invoice: invoice.id,
    is_default: true,
    livemode: false,
    payment: { type: "payment_intent", payment_intent: intent.id },
    status: "open",
    status_transitions: { canceled_at: null, paid_at: null },
  };
  store.invoicePayments.add(payment);
  store.defaultPayments.set(invoice.id, payment);
  simulation.emit("payment_intent.created", intent);
  return intent;
}

export function defaultPayment(
  { store }: Simulation,
  invoice: Stripe.Invoice,
): { payment: Stripe.InvoicePayment; intent: Stripe.PaymentIntent } | undefined {
  const payment = store.defaultPayments.get(invoice.id);
  const intent = store.paymentIntents.get(idOf(payment?.payment.payment_intent) ?? "");
  return payment && intent && { payment, intent };
}

/** Cancels what an invoice was waiting to be paid with. */
export function cancelPayment(simulation: Simulation, invoice: Stripe.Invoice): void {
  const waiting = defaultPayment(simulation, invoice);
  if (waiting === undefined || waiting.payment.status !== "open") return;
  const { payment, intent } = waiting;
  payment.status = "canceled";
  payment.status_transitions.canceled_at = simulation.now();
  intent.status = "canceled";
  intent.canceled_at = simulation.now();
  intent.cancellation_reason = "void_invoice";
  simulation.emit("payment_intent.canceled", intent);
}

/** A charge that went through. */
export function succeed(
  simulation: Simulation,
  intent: Stripe.PaymentIntent,
  method: Stripe.PaymentMethod,
): void {
  const charge = createCharge(simulation, intent, method, null);
  intent.payment_method = method.id;
  intent.latest_charge = charge.id;
  intent.amount_received = intent.amount;
  intent.status = "succeeded";
  intent.last_payment_error = null;
  intent.next_action = null;
  simulation.emit("charge.succeeded", charge);
  simulation.emit("payment_intent.succeeded", intent);
  followUp(simulation, charge, simulation.store.cards.get(method.id)?.afterwards);
}

/** A bank debit is known to have worked, or not, this long after it was taken. */
const debitsTake = days(4);

/** Hands a payment to the bank: neither paid nor failed for days. */
export function startDebit(
  simulation: Simulation,
  intent: Stripe.PaymentIntent,
  method: Stripe.PaymentMethod,
): void {
  const charge = createCharge(simulation, intent, method, null);
  charge.status = "pending";
  charge.paid = false;
  charge.balance_transaction = null;
  intent.payment_method = method.id;
  intent.latest_charge = charge.id;
  intent.status = "processing";
  simulation.store.debits.set(intent.id, simulation.now() + debitsTake);
  simulation.emit("charge.pending", charge);
  simulation.emit("payment_intent.processing", intent);
}

/** The bank's answer; undefined when the money came, else why it did not. */
export function finishDebit(
  simulation: Simulation,
  intent: Stripe.PaymentIntent,
): string | undefined {
  const { store, newId, emit } = simulation;
  store.debits.delete(intent.id);
  const charge = store.charges.require(idOf(intent.latest_charge) ?? "");
  const method = store.paymentMethods.require(idOf(intent.payment_method) ?? "");
  const account = store.cards.get(method.id);
  if (account?.behaviour !== "bounces") {
    charge.status = "succeeded";
    charge.paid = true;
    charge.balance_transaction = newId("txn");
    intent.status = "succeeded";
    intent.amount_received = intent.amount;
    emit("charge.succeeded", charge);
    emit("payment_intent.succeeded", intent);
    return undefined;
  }
  charge.status = "failed";
  charge.failure_code = account.declineCode;
  charge.failure_message =
    "The customer's bank account has insufficient funds to cover this payment.";
  intent.status = "requires_payment_method";
  intent.payment_method = null;
  intent.last_payment_error = {
    type: "invalid_request_error",
    charge: charge.id,
    code: "payment_method_provider_decline",
    decline_code: account.declineCode,
    message: charge.failure_message,
    payment_method: method,
  };
  emit("charge.failed", charge);
  emit("payment_intent.payment_failed", intent);
  return account.declineCode;
}

/** What Stripe's test cards for fraud do once their charge went through. */
function followUp(
  simulation: Simulation,
  charge: Stripe.Charge,
  afterwards: TestCard["afterwards"],
): void {
  if (afterwards === "warned") warnOfFraud(simulation, charge);
  if (afterwards === "disputed") disputeCharge(simulation, charge);
  if (afterwards === "inquired") {
    disputeCharge(simulation, charge, { kind: "inquiry", reason: "product_not_received" });
  }
}

/** A charge that was declined, or one that waits for the customer to authenticate. */
export function decline(
  simulation: Simulation,
  intent: Stripe.PaymentIntent,
  method: Stripe.PaymentMethod | undefined,
  declineCode: string,
): void {
  if (method === undefined) {
    intent.status = "requires_payment_method";
    return;
  }
  const charge = createCharge(simulation, intent, method, declineCode);
  const needsCustomer = declineCode === "authentication_required";
  intent.payment_method = needsCustomer ? method.id : null;
  intent.latest_charge = charge.id;
  intent.last_payment_error = {
    type: "card_error",
    charge: charge.id,
    code: charge.failure_code ?? undefined,
    decline_code: declineCode,
    advice_code: charge.outcome?.advice_code ?? undefined,
    network_advice_code: charge.outcome?.network_advice_code ?? undefined,
    network_decline_code: charge.outcome?.network_decline_code ?? undefined,
    message: charge.failure_message ?? undefined,
    payment_method: method,
  };
  intent.status = needsCustomer ? "requires_action" : "requires_payment_method";
  intent.next_action = needsCustomer
    ? { type: "use_stripe_sdk", use_stripe_sdk: { type: "three_d_secure_redirect" } }
    : null;
  simulation.emit("charge.failed", charge);
  if (needsCustomer) simulation.emit("payment_intent.requires_action", intent);
  simulation.emit("payment_intent.payment_failed", intent);
}

function createCharge(
  { store, newId, now }: Simulation,
  intent: Stripe.PaymentIntent,
  method: Stripe.PaymentMethod,
  declineCode: string | null,
): Stripe.Charge {
  const card = method.card;
  const paid = declineCode === null;
  const refusal = declineCode === null ? null : declineDetails(declineCode, card?.brand);
  return store.charges.add({
    id: newId("ch"),
    object: "charge",
    amount: intent.amount,
    amount_captured: paid ? intent.amount : 0,
    amount_refunded: 0,
    application: null,
    application_fee: null,
    application_fee_amount: null,
    balance_transaction: paid ? newId("txn") : null,
    billing_details: method.billing_details,
    calculated_statement_descriptor: "SIMULATOR",
    captured: paid,
    created: now(),
    currency: intent.currency,
    customer: idOf(intent.customer),
    description: intent.description,
    disputed: false,
    failure_balance_transaction: null,
    failure_code: refusal?.code ?? null,
    failure_message: refusal?.message ?? null,
    fraud_details: {},
    livemode: false,
    metadata: {},
    on_behalf_of: null,
    outcome: {
      advice_code: refusal?.adviceCode ?? null,
      network_advice_code: refusal?.networkAdviceCode ?? null,
      network_decline_code: refusal?.networkDeclineCode ?? null,
      network_status: paid ? "approved_by_network" : "declined_by_network",
      reason: declineCode,
      risk_level: "normal",
      seller_message: paid ? "Payment complete." : "The bank declined the charge.",
      type: paid ? "authorized" : "issuer_declined",
    },
    paid,
    payment_intent: intent.id,
    payment_method: method.id,
    payment_method_details: detailsOf(intent, method, paid),
    receipt_email: null,
    receipt_number: null,
    receipt_url: null,
    refunded: false,
    review: null,
    shipping: null,
    source: null,
    source_transfer: null,
    statement_descriptor: null,
    statement_descriptor_suffix: null,
    status: paid ? "succeeded" : "failed",
    transfer_data: null,
    transfer_group: null,
  });
}

function detailsOf(
  intent: Stripe.PaymentIntent,
  { card, us_bank_account: account }: Stripe.PaymentMethod,
  paid: boolean,
): Stripe.Charge.PaymentMethodDetails {
  if (account !== undefined) {
    return {
      type: "us_bank_account",
      us_bank_account: {
        account_holder_type: account.account_holder_type,
        account_type: account.account_type,
        bank_name: account.bank_name,
        fingerprint: account.fingerprint,
        last4: account.last4,
        payment_reference: null,
        routing_number: account.routing_number,
      },
    };
  }
  return {
    type: "card",
    card: {
      amount_authorized: paid ? intent.amount : null,
      authorization_code: null,
      brand: card?.brand ?? "visa",
      checks: card?.checks ?? null,
      country: card?.country ?? null,
      electronic_commerce_indicator: null,
      exp_month: card?.exp_month ?? 12,
      exp_year: card?.exp_year ?? 2034,
      extended_authorization: { status: "disabled" },
      fingerprint: card?.fingerprint ?? null,
      funding: card?.funding ?? null,
      incremental_authorization: { status: "unavailable" },
      installments: null,
      last4: card?.last4 ?? null,
      mandate: null,
      multicapture: { status: "unavailable" },
      network: card?.brand ?? null,
      network_token: { used: false },
      network_transaction_id: null,
      overcapture: { maximum_amount_capturable: paid ? intent.amount : 0, status: "unavailable" },
      regulated_status: "unregulated",
      three_d_secure: null,
      transaction_link_id: null,
      wallet: null,
    },
  };
}

export const paymentRoutes = [
  route(
    "GET /v1/payment_intents",
    { ...pagination, customer: text, created: range },
    ({ store }, params) =>
      page(
        "/v1/payment_intents",
        store.paymentIntents
          .all()
          .filter(
            ({ customer, created }) =>
              (params.customer === undefined || customer === params.customer) &&
              (params.created === undefined || params.created(created)),
          ),
        params,
      ),
  ),

  route("GET /v1/payment_intents/:id", {}, ({ store }, _params, id) =>
    store.paymentIntents.require(id),
  ),

  route(
    "GET /v1/charges",
    { ...pagination, customer: text, payment_intent: text, created: range },
    ({ store }, params) =>
      page(
        "/v1/charges",
        store.charges
          .all()
          .filter(
            ({ customer, payment_intent, created }) =>
              (params.customer === undefined || customer === params.customer) &&
              (params.payment_intent === undefined || payment_intent === params.payment_intent) &&
              (params.created === undefined || params.created(created)),
          ),
        params,
      ),
  ),

  route("GET /v1/charges/:id", {}, ({ store }, _params, id) => store.charges.require(id)),

  route(
    "GET /v1/invoice_payments",
    {
      ...pagination,
      invoice: text,
      status: oneOf("open", "paid", "canceled"),
      created: range,
      payment: hash({ type: oneOf("payment_intent"), payment_intent: text }),
    },
    ({ store }, params) =>
      page(
        "/v1/invoice_payments",
        store.invoicePayments
          .all()
          .filter(
            ({ invoice, status, payment, created }) =>
              (params.created === undefined || params.created(created)) &&
              (params.invoice === undefined || invoice === params.invoice) &&
              (params.status === undefined || status === params.status) &&
              (params.payment?.payment_intent === undefined ||
                payment.payment_intent === params.payment.payment_intent),
          ),
        params,
      ),
  ),

  route("GET /v1/invoice_payments/:id", {}, ({ store }, _params, id) =>
    store.invoicePayments.require(id),
  ),
];
