import type Stripe from "stripe";
import { invalidRequest } from "../errors.ts";
import {
  decimalText,
  flag,
  hash,
  list,
  metadata,
  natural,
  oneOf,
  range,
  required,
  text,
  unsettable,
  type Params,
} from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, type Simulation } from "../simulation.ts";
import { createPrice } from "./prices.ts";

const editable = {
  active: flag,
  description: unsettable(text),
  images: unsettable(list(text)),
  marketing_features: unsettable(list(hash({ name: required(text) }))),
  metadata,
  statement_descriptor: text,
  tax_code: unsettable(text),
  unit_label: unsettable(text),
  url: unsettable(text),
};

export type ProductEdit = Partial<Params<typeof editable>>;

export function createProduct(
  { store, newId, now, emit }: Simulation,
  { id, name, ...params }: ProductEdit & { id?: string; name: string },
): Stripe.Product {
  if (id !== undefined && store.products.get(id) !== undefined) {
    throw invalidRequest("Product already exists.", { code: "resource_already_exists" });
  }
  const product: Stripe.Product = {
    id: id ?? newId("prod").slice(0, 19),
    object: "product",
    active: true,
    created: now(),
    default_price: null,
    description: null,
    images: [],
    livemode: false,
    marketing_features: [],
    metadata: {},
    name,
    package_dimensions: null,
    shippable: null,
    statement_descriptor: null,
    tax_code: null,
    tax_details: null,
    type: "service",
    unit_label: null,
    updated: now(),
    url: null,
  };
  edit(product, params);
  store.products.add(product);
  emit("product.created", product);
  return product;
}

function edit(product: Stripe.Product, params: ProductEdit & { name?: string }): void {
  if (params.name !== undefined) product.name = params.name;
  if (params.active !== undefined) product.active = params.active;
  if (params.description !== undefined) product.description = params.description;
  if (params.images !== undefined) product.images = params.images ?? [];
  if (params.marketing_features !== undefined) {
    product.marketing_features = params.marketing_features ?? [];
  }
  if (params.statement_descriptor !== undefined) {
    product.statement_descriptor = params.statement_descriptor;
  }
  if (params.tax_code !== undefined) product.tax_code = params.tax_code;
  if (params.unit_label !== undefined) product.unit_label = params.unit_label;
  if (params.url !== undefined) product.url = params.url;
  product.metadata = changedMetadata(product.metadata, params.metadata);
}

export const productRoutes = [
  route(
    "POST /v1/products",
    {
      ...editable,
      id: text,
      name: required(text),
      type: oneOf("service", "good"),
      default_price_data: hash({
        currency: required(text),
        unit_amount: natural,
        unit_amount_decimal: decimalText,
        recurring: hash({
          interval: required(oneOf("day", "week", "month", "year")),
          interval_count: natural,
        }),
      }),
    },
    (simulation, { default_price_data, type: _type, ...params }) => {
      const product = createProduct(simulation, params);
      if (default_price_data !== undefined) {
        const price = createPrice(simulation, { ...default_price_data, product: product.id });
        change(simulation, product, () => {
          product.default_price = price.id;
        });
      }
      return product;
    },
  ),

  route(
    "GET /v1/products",
    { ...pagination, active: flag, ids: list(text), created: range },
    ({ store }, params) =>
      page(
        "/v1/products",
        store.products
          .all()
          .filter(
            ({ id, active, created }) =>
              (params.active === undefined || active === params.active) &&
              (params.ids === undefined || params.ids.includes(id)) &&
              (params.created === undefined || params.created(created)),
          ),
        params,
      ),
  ),

  route("GET /v1/products/:id", {}, ({ store }, _params, id) => store.products.require(id)),

  route(
    "POST /v1/products/:id",
    { ...editable, name: text, default_price: unsettable(text) },
    (simulation, { default_price, ...params }, id) => {
      const { store, now } = simulation;
      const product = store.products.require(id);
      if (default_price) store.prices.require(default_price, "default_price");
      change(simulation, product, () => {
        edit(product, params);
        if (default_price !== undefined) product.default_price = default_price;
        product.updated = now();
      });
      return product;
    },
  ),

  route("DELETE /v1/products/:id", {}, ({ store, emit }, _params, id) => {
    const product = store.products.require(id);
    if (store.prices.all().some((price) => price.product === id)) {
      throw invalidRequest(
        "This product cannot be deleted because it has one or more user-created prices.",
      );
    }
    emit("product.deleted", product);
    return store.products.remove(product);
  }),
];
