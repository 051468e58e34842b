/** Stripe's own entitlements: features of products, and what each customer has by its live subscriptions. */
import type Stripe from "stripe";
import { invalidRequest, noSuch } from "../errors.ts";
import { flag, metadata, required, text } from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { idOf, type Simulation } from "../simulation.ts";
import { previousAttributes, snapshot } from "../snapshots.ts";

const entitling = new Set(["active", "past_due", "trialing"]);

/** The features a customer's live subscriptions give, by the order they were attached in. */
function featuresOf({ store }: Simulation, customer: string): Stripe.Entitlements.Feature[] {
  const products = new Set(
    store.subscriptions
      .all()
      .filter((each) => each.customer === customer && entitling.has(each.status))
      .flatMap((each) => each.items.data.map(({ price }) => idOf(price.product))),
  );
  const attached = store.productFeatures
    .all()
    .filter(({ id }) => products.has(store.productOfFeature.get(id) ?? ""))
    .map(({ entitlement_feature }) => entitlement_feature.id);
  return [...new Set(attached)].flatMap((id) => store.features.get(id) ?? []);
}

/**
 * Brings the active entitlements of every customer in step with its subscriptions, and announces each difference in one
 * summary; called after everything that happens.
 */
export function refreshEntitlements(simulation: Simulation): void {
  const { store } = simulation;
  if (store.productFeatures.all().length === 0 && store.entitlements.size === 0) return;
  const customers = new Set([
    ...store.entitlements.keys(),
    ...store.subscriptions.all().map(({ customer }) => idOf(customer) ?? ""),
  ]);
  for (const customer of customers) refreshCustomer(simulation, customer);
}

function refreshCustomer(simulation: Simulation, customer: string): void {
  const { store, newId, emit } = simulation;
  const before = store.entitlements.get(customer) ?? [];
  const features = featuresOf(simulation, customer);
  const same =
    before.length === features.length &&
    features.every(({ id }) => before.some(({ feature }) => feature === id));
  if (same) return;
  const after = features.map(
    (feature): Stripe.Entitlements.ActiveEntitlement =>
      before.find((each) => each.feature === feature.id) ?? {
        id: newId("ent_test"),
        object: "entitlements.active_entitlement",
        feature: feature.id,
        livemode: false,
        lookup_key: feature.lookup_key,
      },
  );
  store.entitlements.set(customer, after);
  const summary = summaryOf(customer, after);
  emit(
    "entitlements.active_entitlement_summary.updated",
    summary,
    previousAttributes(snapshot(summaryOf(customer, before)), snapshot(summary)),
  );
}

/** It has no id; its list is cut at ten wherever it is shown. */
function summaryOf(
  customer: string,
  data: Stripe.Entitlements.ActiveEntitlement[],
): Stripe.Entitlements.ActiveEntitlementSummary {
  return {
    object: "entitlements.active_entitlement_summary",
    customer,
    entitlements: {
      object: "list",
      data,
      has_more: false,
      url: `/v1/customers/${customer}/entitlements`,
    },
    livemode: false,
  };
}

export const entitlementRoutes = [
  route(
    "POST /v1/entitlements/features",
    { lookup_key: required(text), name: required(text), metadata },
    ({ store, newId }, params) => {
      const taken = store.features
        .all()
        .some(({ active, lookup_key }) => active && lookup_key === params.lookup_key);
      if (taken) {
        throw invalidRequest(`A feature with the lookup key ${params.lookup_key} exists already.`, {
          param: "lookup_key",
        });
      }
      return store.features.add({
        id: newId("feat_test"),
        object: "entitlements.feature",
        active: true,
        livemode: false,
        lookup_key: params.lookup_key,
        metadata: changedMetadata({}, params.metadata),
        name: params.name,
      });
    },
  ),

  route(
    "GET /v1/entitlements/features",
    { ...pagination, archived: flag, lookup_key: text },
    ({ store }, params) =>
      page(
        "/v1/entitlements/features",
        store.features
          .all()
          .filter(
            ({ active, lookup_key }) =>
              (params.archived === undefined || active !== params.archived) &&
              (params.lookup_key === undefined || lookup_key === params.lookup_key),
          ),
        params,
      ),
  ),

  route("GET /v1/entitlements/features/:id", {}, ({ store }, _params, id) =>
    store.features.require(id),
  ),

  route(
    "POST /v1/entitlements/features/:id",
    { active: flag, name: text, metadata },
    ({ store }, params, id) => {
      const feature = store.features.require(id);
      if (params.active !== undefined) feature.active = params.active;
      if (params.name !== undefined) feature.name = params.name;
      feature.metadata = changedMetadata(feature.metadata, params.metadata);
      return feature;
    },
  ),

  route(
    "POST /v1/products/:id/features",
    { entitlement_feature: required(text) },
    ({ store, newId }, params, product) => {
      store.products.require(product);
      const feature = store.features.require(params.entitlement_feature, "entitlement_feature");
      const attached: Stripe.ProductFeature = store.productFeatures.add({
        id: newId("prodft"),
        object: "product_feature",
        entitlement_feature: feature,
        livemode: false,
      });
      store.productOfFeature.set(attached.id, product);
      return attached;
    },
  ),

  route("GET /v1/products/:id/features", pagination, ({ store }, params, product) =>
    page(
      `/v1/products/${product}/features`,
      store.productFeatures.all().filter(({ id }) => store.productOfFeature.get(id) === product),
      params,
    ),
  ),

  route("DELETE /v1/products/:product/features/:id", {}, ({ store }, _params, product, id) => {
    const attached = store.productFeatures.require(id);
    if (store.productOfFeature.get(attached.id) !== product) {
      throw noSuch("product feature", attached.id);
    }
    return store.productFeatures.remove(attached);
  }),

  route(
    "GET /v1/entitlements/active_entitlements",
    { ...pagination, customer: required(text) },
    ({ store }, params) =>
      page(
        "/v1/entitlements/active_entitlements",
        (store.entitlements.get(params.customer) ?? []).toReversed(),
        params,
      ),
  ),

  route("GET /v1/entitlements/active_entitlements/:id", {}, ({ store }, _params, id) => {
    const found = [...store.entitlements.values()].flat().find((each) => each.id === id);
    if (found === undefined) throw noSuch("active entitlement", id);
    return found;
  }),
];
