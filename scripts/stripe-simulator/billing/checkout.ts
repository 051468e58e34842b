/** What happens to a checkout session: discounts, the customer's click, its end. */
import type Stripe from "stripe";
import { invalidRequest } from "../errors.ts";
import { createCustomer } from "../objects/customers.ts";
import {
  attachPaymentMethod,
  confirmSetupIntent,
  createPaymentMethod,
  createSetupIntent,
} from "../objects/payment_methods.ts";
import {
  decline,
  defaultPayment,
  newPaymentIntent,
  startDebit,
  succeed,
} from "../objects/payments.ts";
import { trialEndOf } from "../objects/subscriptions.ts";
import type { TestCard } from "../objects/test_cards.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { amountFor } from "./amounts.ts";
import { collect, judge } from "./collection.ts";
import {
  discountAmounts,
  offerOf,
  plannedDiscounts,
  redeem,
  type DiscountRequest,
  type Offer,
} from "./discounts.ts";
import { hasEnded } from "./ending.ts";
import { createSubscription } from "./lifecycle.ts";

/** Takes discounts off a session's total; they are redeemed when it completes. */
export function applyDiscounts(
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
