import type Stripe from "stripe";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import {
  hash,
  integer,
  list,
  metadata,
  range,
  text,
  unsettable,
  type Params,
} from "../http/params.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { endSubscription } from "../billing/ending.ts";
import { cancelUnstarted } from "./subscription_schedules.ts";
import { attachPaymentMethod, usablePaymentMethod } from "./payment_methods.ts";

export const addressSpec = {
  city: text,
  country: text,
  line1: text,
  line2: text,
  postal_code: text,
  state: text,
};

const editable = {
  email: unsettable(text),
  name: unsettable(text),
  description: unsettable(text),
  phone: unsettable(text),
  address: unsettable(hash(addressSpec)),
  balance: integer,
  preferred_locales: list(text),
  metadata,
  invoice_settings: hash({ default_payment_method: unsettable(text) }),
};

export type CustomerEdit = Partial<Params<typeof editable>>;

/** Makes a customer; its default payment method is set afterwards, once one is attached. */
export function createCustomer(
  simulation: Simulation,
  { invoice_settings, ...params }: CustomerEdit,
  paymentMethod?: string,
  testClock?: string,
): Stripe.Customer {
  const { store, newId, now, emit } = simulation;
  const id = newId("cus").slice(0, 18);
  const customer: Stripe.Customer = {
    id,
    object: "customer",
    address: null,
    balance: 0,
    created: now(),
    currency: null,
    customer_account: null,
    default_source: null,
    delinquent: false,
    description: null,
    discount: null,
    email: null,
    invoice_prefix: id.slice(4, 12).toUpperCase(),
    invoice_settings: {
      custom_fields: null,
      default_payment_method: null,
      footer: null,
      rendering_options: null,
    },
    livemode: false,
    metadata: {},
    name: null,
    next_invoice_sequence: 1,
    phone: null,
    preferred_locales: [],
    shipping: null,
    tax_exempt: "none",
    test_clock: testClock ?? null,
  };
  edit(simulation, customer, params);
  store.customers.add(customer);
  emit("customer.created", customer);

  if (paymentMethod !== undefined) attachPaymentMethod(simulation, paymentMethod, customer);
  if (invoice_settings !== undefined) {
    change(simulation, customer, () => edit(simulation, customer, { invoice_settings }));
  }
  return customer;
}

function edit(simulation: Simulation, customer: Stripe.Customer, params: CustomerEdit): void {
  const method = params.invoice_settings?.default_payment_method;
  if (method) usablePaymentMethod(simulation, method, customer.id);
  if (params.email !== undefined) customer.email = params.email;
  if (params.name !== undefined) customer.name = params.name;
  if (params.description !== undefined) customer.description = params.description;
  if (params.phone !== undefined) customer.phone = params.phone;
  if (params.address !== undefined) {
    const { city, country, line1, line2, postal_code, state } = params.address ?? {};
    customer.address = params.address && {
      city: city ?? null,
      country: country ?? null,
      line1: line1 ?? null,
      line2: line2 ?? null,
      postal_code: postal_code ?? null,
      state: state ?? null,
    };
  }
  if (params.balance !== undefined) customer.balance = params.balance;
  if (params.preferred_locales !== undefined) customer.preferred_locales = params.preferred_locales;
  if (method !== undefined) customer.invoice_settings.default_payment_method = method;
  customer.metadata = changedMetadata(customer.metadata, params.metadata);
}

export const customerRoutes = [
  route(
    "POST /v1/customers",
    { ...editable, payment_method: text, test_clock: text },
    (simulation, { payment_method, test_clock, ...params }) => {
      if (test_clock !== undefined) simulation.store.testClocks.require(test_clock, "test_clock");
      return createCustomer(simulation, params, payment_method, test_clock);
    },
  ),

  route("GET /v1/customers", { ...pagination, email: text, created: range }, ({ store }, params) =>
    page(
      "/v1/customers",
      store.customers
        .all()
        .filter(
          (customer) =>
            (params.email === undefined || customer.email === params.email) &&
            (params.created === undefined || params.created(customer.created)),
        ),
      params,
    ),
  ),

  route("GET /v1/customers/:id", {}, ({ store }, _params, id) =>
    store.customers.requireOrDeleted(id),
  ),

  route("POST /v1/customers/:id", editable, (simulation, params, id) => {
    const customer = simulation.store.customers.require(id);
    change(simulation, customer, () => edit(simulation, customer, params));
    return customer;
  }),

  route("DELETE /v1/customers/:id", {}, (simulation, _params, id) => {
    const { store, emit } = simulation;
    const customer = store.customers.require(id);
    for (const subscription of store.subscriptions.all()) {
      if (idOf(subscription.customer) === id) endSubscription(simulation, subscription);
    }
    for (const schedule of store.schedules.all()) {
      if (schedule.customer === id && schedule.status === "not_started") {
        cancelUnstarted(simulation, schedule);
      }
    }
    emit("customer.deleted", customer);
    return store.customers.remove(customer);
  }),

  route("GET /v1/customers/:id/payment_methods", pagination, ({ store }, params, id) => {
    store.customers.require(id);
    return page(
      `/v1/customers/${id}/payment_methods`,
      store.paymentMethods.all().filter((method) => method.customer === id),
      params,
    );
  }),
];
