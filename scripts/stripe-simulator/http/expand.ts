import type Stripe from "stripe";
import { invalidRequest } from "../errors.ts";
import type { Simulation } from "../simulation.ts";
import { snapshot } from "../snapshots.ts";
import { idOf } from "../simulation.ts";
import { lineItemsOf } from "../objects/checkout_line_items.ts";

type Shown = { [key: string]: unknown };

/** A response's JSON: the object with what `expand[]` asked for in place of ids. */
export function render(simulation: Simulation, object: object, expand: string[]): object {
  const shown: Shown = snapshot(object);
  // A list page is not an embedded list: nothing of it is cut.
  if ("data" in object && Array.isArray(object.data)) {
    shown["data"] = object.data.map((member: object) => snapshot(member));
    if ("has_more" in object) shown["has_more"] = object.has_more;
  }
  for (const path of expand) {
    const segments = path.split(".");
    if (segments.length > 5) throw cannotExpand(path);
    expandPath(simulation, shown, segments, path);
  }
  return shown;
}

function expandPath(
  simulation: Simulation,
  target: Shown,
  [segment, ...rest]: string[],
  path: string,
): void {
  if (segment === undefined) return;
  const included = includable(simulation, target, segment);
  const value = included === undefined ? target[segment] : included;
  if (value === undefined) throw cannotExpand(path);

  const expanded = Array.isArray(value)
    ? value.map((member: unknown) => replaced(simulation, member))
    : replaced(simulation, value);
  target[segment] = expanded;
  for (const member of Array.isArray(expanded) ? expanded : [expanded]) {
    if (isShown(member)) expandPath(simulation, member, rest, path);
    else if (member !== null && rest.length > 0) throw cannotExpand(path);
  }
}

function replaced(simulation: Simulation, value: unknown): unknown {
  if (typeof value !== "string") return value;
  const found = simulation.store.find(value);
  return found === undefined ? value : snapshot(found);
}

/** Fields that are not there at all unless expanded. */
function includable({ store }: Simulation, target: Shown, field: string): unknown {
  const id = String(target["id"]);
  const listOf = (url: string, objects: object[]) =>
    snapshot({ object: "list", data: objects, has_more: false, url });

  switch (`${String(target["object"])}.${field}`) {
    case "invoice.payments":
      return listOf(
        `/v1/invoice_payments?invoice=${id}`,
        store.invoicePayments.all().filter((payment) => payment.invoice === id),
      );
    case "invoice.confirmation_secret":
      return confirmationSecret(store, id);
    case "customer.subscriptions":
      return listOf(
        `/v1/customers/${id}/subscriptions`,
        store.subscriptions
          .all()
          .filter(({ customer, status }) => customer === id && status !== "canceled"),
      );
    // A price that is not tiered has none; Stripe does not mind being asked.
    case "price.tiers":
      return store.tiers.get(id)?.map((tier) => snapshot(tier)) ?? null;
    case "charge.refunds":
      return listOf(
        `/v1/charges/${id}/refunds`,
        store.refunds.all().filter((refund) => refund.charge === id),
      );
    case "checkout.session.line_items":
      return listOf(`/v1/checkout/sessions/${id}/line_items`, lineItemsOf(store, id));
    default:
      return undefined;
  }
}

function confirmationSecret(
  store: Simulation["store"],
  invoice: string,
): Stripe.Invoice.ConfirmationSecret | null {
  const payment = store.invoicePayments.all().find((candidate) => candidate.invoice === invoice);
  const intent = store.paymentIntents.get(idOf(payment?.payment.payment_intent) ?? "");
  return intent?.client_secret
    ? { client_secret: intent.client_secret, type: "payment_intent" }
    : null;
}

function isShown(value: unknown): value is Shown {
  return typeof value === "object" && value !== null;
}

function cannotExpand(path: string) {
  return invalidRequest(`This property cannot be expanded (${path}).`, { param: "expand" });
}
