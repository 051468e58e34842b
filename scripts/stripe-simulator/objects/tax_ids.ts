import type Stripe from "stripe";
import { required, text } from "../http/params.ts";
import { page, pagination, route } from "../http/routes.ts";
import { noSuch } from "../errors.ts";
import { change, idOf, type Simulation } from "../simulation.ts";

/** Checking a number with the authorities takes this long. */
const verificationTakes = 60;

function createTaxId(
  { store, newId, now, emit }: Simulation,
  customer: string,
  { type, value }: { type: string; value: string },
): Stripe.TaxId {
  store.customers.require(customer, "customer");
  const checked = type === "eu_vat" || type === "gb_vat";
  const taxId = store.taxIds.add({
    id: newId("txi"),
    object: "tax_id",
    country: type === "eu_vat" ? value.slice(0, 2) : type.slice(0, 2).toUpperCase(),
    created: now(),
    customer,
    customer_account: null,
    livemode: false,
    owner: { type: "customer", customer, customer_account: null },
    type,
    value,
    verification: {
      status: checked ? "pending" : "unavailable",
      verified_address: null,
      verified_name: null,
    },
  });
  emit("customer.tax_id.created", taxId);
  return taxId;
}

/** The authorities' answer; Stripe's test number of nine ones is unknown to them. */
export function taxIdDue(
  simulation: Simulation,
  taxId: Stripe.TaxId,
): { at: number; run: () => void } | undefined {
  if (taxId.verification?.status !== "pending") return undefined;
  const unknown = taxId.value.endsWith("111111111");
  return {
    at: taxId.created + verificationTakes,
    run: () =>
      change(simulation, taxId, () => {
        taxId.verification = {
          status: unknown ? "unverified" : "verified",
          verified_address: unknown ? null : "123 Test Street",
          verified_name: unknown ? null : "Test Company",
        };
      }),
  };
}

function taxIdOf({ store }: Simulation, customer: string, id: string): Stripe.TaxId {
  const taxId = store.taxIds.require(id);
  if (idOf(taxId.customer) !== customer) throw noSuch("tax_id", id);
  return taxId;
}

export const taxIdRoutes = [
  route(
    "POST /v1/customers/:id/tax_ids",
    { type: required(text), value: required(text) },
    (simulation, params, customer) => createTaxId(simulation, customer, params),
  ),

  route("GET /v1/customers/:id/tax_ids", pagination, ({ store }, params, customer) =>
    page(
      `/v1/customers/${customer}/tax_ids`,
      store.taxIds.all().filter((taxId) => taxId.customer === customer),
      params,
    ),
  ),

  route("GET /v1/customers/:customer/tax_ids/:id", {}, (simulation, _params, customer, id) =>
    taxIdOf(simulation, customer, id),
  ),

  route("DELETE /v1/customers/:customer/tax_ids/:id", {}, (simulation, _params, customer, id) => {
    const taxId = taxIdOf(simulation, customer, id);
    simulation.emit("customer.tax_id.deleted", taxId);
    return simulation.store.taxIds.remove(taxId);
  }),

  route("GET /v1/tax_ids/:id", {}, ({ store }, _params, id) => store.taxIds.require(id)),
];
