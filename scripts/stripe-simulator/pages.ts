/** The pages a customer sees: checkout, portal, hosted invoice. Plain HTML without scripts or outside assets. */
import type Stripe from "stripe";
import { hasEnded } from "./billing/ending.ts";
import { money } from "./billing/invoicing.ts";
import { nextPeriodEnd } from "./billing/lifecycle.ts";
import { StripeApiError } from "./errors.ts";
import { matchPath } from "./http/routes.ts";
import type { HttpAnswer, Section } from "./http/server.ts";
import { lineItemsOf, productName } from "./objects/checkout_line_items.ts";
import { enterPromotionCode, payCheckout } from "./billing/checkout.ts";
import { payInvoice } from "./objects/invoices.ts";
import { declineDetails } from "./objects/declines.ts";
import {
  cancelInPortal,
  confirmInPortal,
  flowSubscription,
  keepInPortal,
  pauseInPortal,
  portalSubscription,
  switchCard,
  switchPriceInPortal,
} from "./objects/portal_sessions.ts";
import { findTestCard } from "./objects/test_cards.ts";
import { change, idOf, type Simulation } from "./simulation.ts";

export interface PagesDeps {
  simulation: Simulation;
  /** Acts, then waits for webhooks, within reason, before the browser goes on. */
  whenDelivered: <T>(act: () => T) => Promise<T>;
}

interface PageRequest {
  id: string;
  method: string;
  url: URL;
  form: URLSearchParams;
}

export function createPages({ simulation, whenDelivered }: PagesDeps): Section {
  const pages = [
    { path: ["c", "pay", ":id"], show: checkoutPage },
    { path: ["p", "session", ":id"], show: portalPage },
    { path: ["i", ":id"], show: invoicePage },
  ];
  return async ({ method, url, body }) => {
    for (const { path, show } of pages) {
      const ids = matchPath(path, url.pathname);
      if (ids === null) continue;
      try {
        const form = new URLSearchParams(body);
        const answer = () => show(simulation, { id: ids[0] ?? "", method, url, form });
        return method === "POST" ? await whenDelivered(answer) : answer();
      } catch (error) {
        if (!(error instanceof StripeApiError)) throw error;
        return html(error.status, "Not possible", `<p>${escape(error.message)}</p>`);
      }
    }
    return null;
  };
}

function checkoutPage(simulation: Simulation, { id, method, form }: PageRequest): HttpAnswer {
  const { store } = simulation;
  const session = store.sessions.require(id);
  let notice = "";
  const typed = form.get("promotion_code");
  if (method === "POST" && session.status === "open" && typed !== null) {
    notice = refusedAs(() => enterPromotionCode(simulation, session, typed));
  } else if (method === "POST" && session.status === "open") {
    const outcome = payCheckout(simulation, session, cardNamed(form.get("card")));
    if (outcome.complete) return redirect(outcome.redirectTo);
    notice = declineDetails(outcome.declineCode).message;
  }
  if (session.status !== "open") {
    return html(
      200,
      "Checkout",
      session.status === "complete"
        ? "<p>You’re all done here. This checkout has been paid.</p>"
        : "<p>This checkout has expired. Please start again.</p>",
    );
  }

  return session.mode === "setup"
    ? html(200, "Save a card", cardForm(session, notice, "Save"))
    : html(
        200,
        session.mode === "payment" ? "Pay" : "Subscribe",
        `${orderOf(simulation, session)}${cardForm(session, notice, "Pay with")}`,
      );
}

/** What is bought, and what is due today. */
function orderOf({ store }: Simulation, session: Stripe.Checkout.Session): string {
  const currency = session.currency ?? "usd";
  const trialDays = store.checkoutPlans.get(session.id)?.trialPeriodDays ?? null;
  const rows = lineItemsOf(store, session.id).map((item) => {
    const interval = item.price?.recurring?.interval;
    return (
      `<tr><td>${escape(item.description ?? "")}${item.quantity === 1 ? "" : ` × ${item.quantity}`}</td>` +
      `<td>${money(item.amount_total, currency)}${interval === undefined ? "" : ` / ${escape(interval)}`}</td></tr>`
    );
  });
  const off = session.total_details?.amount_discount ?? 0;
  return `<table>${rows.join("")}</table>
    ${off === 0 ? "" : `<p class="total">Discount <strong>−${money(off, currency)}</strong></p>`}
    ${session.allow_promotion_codes === true ? promotionCodeForm : ""}
    ${trialDays === null ? "" : `<p>${trialDays} days free.</p>`}
    <p class="total">Due today <strong>${money(session.amount_total ?? 0, currency)}</strong></p>`;
}

const promotionCodeForm = `<form method="post">
      <input name="promotion_code" placeholder="Promotion code"><button>Apply</button></form>`;

function cardForm(session: Stripe.Checkout.Session, notice: string, verb: string): string {
  return `${noticeOf(notice)}
    <form method="post">
      ${cardButton("4242424242424242", `${verb} 4242 4242 4242 4242`, "primary")}
      ${cardButton("4000000000000341", `${verb} a card that will fail at renewal`)}
      ${cardButton("4000000000000002", `${verb} a card that is declined`)}
    </form>
    ${session.cancel_url === null ? "" : `<p><a href="${escape(session.cancel_url)}">Cancel</a></p>`}`;
}

function portalPage(simulation: Simulation, request: PageRequest): HttpAnswer {
  const { store } = simulation;
  const session = store.portalSessions.require(request.id);
  const customer = store.customers.require(session.customer);
  const flow = request.url.searchParams.has("home") ? null : session.flow;
  let notice = "";
  if (request.method === "POST") {
    notice = declinedAs(() => actInPortal(simulation, session, customer, request.form));
    if (notice === "") return afterPortalAction(session, flow);
  }
  return flow === null
    ? portalHome(simulation, session, customer, notice)
    : html(200, "Your subscription", noticeOf(notice) + flowPanel(simulation, customer, flow));
}

/** A finished task leads where its flow says; elsewhere the portal shows what it did. */
function afterPortalAction(
  session: Stripe.BillingPortal.Session,
  flow: Stripe.BillingPortal.Session.Flow | null,
): HttpAnswer {
  if (flow === null) return redirect(session.flow === null ? session.url : `${session.url}?home`);
  const { redirect: leads, hosted_confirmation: confirmation } = flow.after_completion;
  if (leads !== null) return redirect(leads.return_url);
  if (confirmation !== null) {
    return html(200, "Done", `<p>${escape(confirmation.custom_message ?? "Thank you.")}</p>`);
  }
  return redirect(`${session.url}?home`);
}

function portalHome(
  simulation: Simulation,
  session: Stripe.BillingPortal.Session,
  customer: Stripe.Customer,
  notice: string,
): HttpAnswer {
  const { store } = simulation;
  const subscriptions = store.subscriptions
    .all()
    .filter((candidate) => candidate.customer === customer.id && !hasEnded(candidate));
  const invoices = store.invoices
    .all()
    .filter((invoice) => invoice.customer === customer.id && invoice.status !== "draft")
    .toReversed();
  return html(
    200,
    "Your subscription",
    `${noticeOf(notice)}
    ${subscriptions.map((subscription) => subscriptionPanel(simulation, subscription)).join("") || "<p>No subscription.</p>"}
    ${cardPanel(simulation, customer, subscriptions[0])}
    <h2>Invoices</h2>
    <table>${invoices.map(invoiceRow).join("")}</table>
    ${session.return_url === null ? "" : `<p><a href="${escape(session.return_url)}">Return</a></p>`}`,
  );
}

function cardPanel(
  { store }: Simulation,
  customer: Stripe.Customer,
  subscription?: Stripe.Subscription,
): string {
  const cardId =
    idOf(customer.invoice_settings.default_payment_method) ??
    idOf(subscription?.default_payment_method);
  const card = store.paymentMethods.get(cardId ?? "")?.card;
  return `<h2>Card</h2>
    <p>${card ? `${escape(card.brand)} ending in ${escape(card.last4)}` : "None saved."}</p>
    <form method="post"><input type="hidden" name="action" value="card">
      ${cardButton("4242424242424242", "Use 4242 4242 4242 4242")}
      ${cardButton("5555555555554444", "Use 5555 5555 5555 4444")}
      ${cardButton("4000000000000341", "Use a card that will fail")}
    </form>`;
}

/** The one task a flow is for. */
function flowPanel(
  simulation: Simulation,
  customer: Stripe.Customer,
  flow: Stripe.BillingPortal.Session.Flow,
): string {
  const subscription = simulation.store.subscriptions.get(flowSubscription(flow) ?? "");
  const button = (action: string, label: string, more = "") =>
    `<form method="post"><input type="hidden" name="subscription" value="${subscription?.id ?? ""}">
      ${more}<button class="primary" name="action" value="${action}">${escape(label)}</button></form>`;
  switch (flow.type) {
    case "payment_method_update":
      return cardPanel(simulation, customer);
    case "subscription_cancel":
      return button("cancel", "Cancel at the end of the period");
    case "subscription_pause":
      return button("pause", "Pause my subscription");
    case "subscription_update":
      return otherPrices(simulation, subscription)
        .map((price) =>
          button(
            "update",
            `${productName(simulation.store, price)}: ${money(price.unit_amount ?? 0, price.currency)} / ${price.recurring?.interval ?? ""}`,
            `<input type="hidden" name="price" value="${price.id}">`,
          ),
        )
        .join("");
    case "subscription_update_confirm":
      return button("confirm", "Confirm the change");
    default:
      return `<form method="post"><input name="email" type="email" value="${escape(customer.email ?? "")}">
        <button class="primary" name="action" value="customer">Save</button></form>`;
  }
}

function otherPrices(
  { store }: Simulation,
  subscription: Stripe.Subscription | undefined,
): Stripe.Price[] {
  const current = subscription?.items.data[0]?.price;
  return store.prices
    .all()
    .filter(
      ({ id, active, recurring, currency }) =>
        active && recurring !== null && id !== current?.id && currency === current?.currency,
    );
}

function actInPortal(
  simulation: Simulation,
  session: Stripe.BillingPortal.Session,
  customer: Stripe.Customer,
  form: URLSearchParams,
): void {
  const subscription = () =>
    portalSubscription(simulation, session, form.get("subscription") ?? "");
  switch (form.get("action")) {
    case "cancel":
      cancelInPortal(simulation, subscription());
      break;
    case "keep":
      keepInPortal(simulation, subscription());
      break;
    case "pause":
      pauseInPortal(simulation, subscription());
      break;
    case "update": {
      const quantity = form.get("quantity");
      switchPriceInPortal(
        simulation,
        subscription(),
        form.get("price") ?? "",
        quantity === null ? undefined : Number(quantity),
      );
      break;
    }
    case "confirm":
      confirmInPortal(
        simulation,
        subscription(),
        session.flow?.subscription_update_confirm?.items ?? [],
      );
      break;
    case "customer":
      change(simulation, customer, () => {
        customer.email = form.get("email");
      });
      break;
    case "card":
      switchCard(simulation, customer, cardNamed(form.get("card")));
      break;
  }
}

function subscriptionPanel(simulation: Simulation, subscription: Stripe.Subscription): string {
  const names = subscription.items.data.map(({ price }) => productName(simulation.store, price));
  const ends = subscription.cancel_at;
  return `<section><h2>${escape(names.join(", "))}</h2>
    <p>${escape(subscription.status)} · ${ends === null ? `renews ${day(nextPeriodEnd(subscription))}` : `ends ${day(ends)}`}</p>
    <form method="post">
      <input type="hidden" name="subscription" value="${subscription.id}">
      <button name="action" value="${ends === null ? "cancel" : "keep"}">
        ${ends === null ? "Cancel at the end of the period" : "Keep my subscription"}
      </button>
    </form></section>`;
}

function invoiceRow(invoice: Stripe.Invoice): string {
  return `<tr><td><a href="/i/${invoice.id}">${escape(invoice.number ?? "")}</a></td>
    <td>${day(invoice.created)}</td><td>${escape(invoice.status ?? "")}</td>
    <td>${money(invoice.amount_due, invoice.currency)}</td></tr>`;
}

function invoicePage(simulation: Simulation, { id, method, form }: PageRequest): HttpAnswer {
  const { store } = simulation;
  const invoice = store.invoices.require(id);
  const customer = store.customers.get(idOf(invoice.customer) ?? "");
  let notice = "";
  if (method === "POST" && customer !== undefined) {
    notice = declinedAs(() => {
      const card = switchCard(simulation, customer, cardNamed(form.get("card")));
      payInvoice(simulation, invoice, { paymentMethod: card.id, customerPresent: true });
    });
    if (notice === "") return redirect(`/i/${id}`);
  }
  const rows = invoice.lines.data.map(
    (line) =>
      `<tr><td>${escape(line.description ?? "")}</td><td>${money(line.amount, line.currency)}</td></tr>`,
  );
  const payable = invoice.status === "open" || invoice.status === "uncollectible";
  return html(
    200,
    `Invoice ${invoice.number ?? ""}`,
    `<p>${escape(invoice.status ?? "")}</p><table>${rows.join("")}</table>
    <p class="total">Amount due <strong>${money(invoice.amount_remaining, invoice.currency)}</strong></p>
    ${noticeOf(notice)}
    ${payable ? `<form method="post">${cardButton("4242424242424242", "Pay with 4242 4242 4242 4242", "primary")}</form>` : ""}`,
  );
}

/** Runs an action; the message of a declined card is for the customer, anything else is an error page. */
function declinedAs(act: () => void): string {
  try {
    act();
    return "";
  } catch (error) {
    if (error instanceof StripeApiError && error.status === 402) return error.message;
    throw error;
  }
}

/** As `declinedAs`, for what the customer typed. */
function refusedAs(act: () => void): string {
  try {
    act();
    return "";
  } catch (error) {
    if (error instanceof StripeApiError && error.status === 400) return error.message;
    throw error;
  }
}

function cardNamed(number: string | null) {
  const card = findTestCard(number ?? "");
  if (card === undefined) {
    throw new StripeApiError(400, { type: "invalid_request_error", message: "Unknown test card." });
  }
  return card;
}

function cardButton(number: string, label: string, style = ""): string {
  return `<button class="${style}" name="card" value="${number}">${escape(label)}</button>`;
}

function noticeOf(message: string): string {
  return message === "" ? "" : `<p class="notice" role="alert">${escape(message)}</p>`;
}

function day(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 10);
}

function redirect(location: string): HttpAnswer {
  return { status: 303, headers: { location }, body: "" };
}

function escape(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
    "'": "&#39;",
  };
  return text.replaceAll(/[&<>"']/g, (character) => entities[character] ?? character);
}

const styles = `
  body { margin: 0; background: #f4f5f8; color: #1d2433; font: 16px/1.5 system-ui, sans-serif; }
  main { max-width: 30rem; margin: 4rem auto; padding: 2rem; background: #fff; border-radius: 12px;
    box-shadow: 0 2px 16px rgb(29 36 51 / 8%); }
  h1 { margin: 0 0 1rem; font-size: 1.4rem; } h2 { margin: 1.5rem 0 .25rem; font-size: 1.05rem; }
  table { width: 100%; border-collapse: collapse; } td { padding: .4rem 0; border-bottom: 1px solid #e6e8ee; }
  td:last-child { text-align: right; } .total { display: flex; justify-content: space-between; }
  form { display: grid; gap: .5rem; margin: .75rem 0; }
  button { padding: .7rem 1rem; font: inherit; border: 1px solid #c9cedb; border-radius: 8px; background: #fff;
    cursor: pointer; }
  button.primary { background: #4b45c6; border-color: #4b45c6; color: #fff; }
  .notice { padding: .6rem .8rem; border-radius: 8px; background: #fdecec; color: #9b1c1c; }
  footer { margin-top: 1.5rem; font-size: .8rem; color: #6b7385; } a { color: #4b45c6; }`;

function html(status: number, title: string, content: string): HttpAnswer {
  return {
    status,
    headers: { "content-type": "text/html; charset=utf-8" },
    body: `<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>${escape(title)}</title>
<style>${styles}</style></head>
<body><main><h1>${escape(title)}</h1>${content}
<footer>Stripe simulator: no real money moves.</footer></main></body></html>`,
  };
}
