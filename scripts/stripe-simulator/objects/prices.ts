import type Stripe from "stripe";
import { decimal } from "../billing/amounts.ts";
import { invalidRequest } from "../errors.ts";
import {
  decimalText,
  flag,
  hash,
  list,
  metadata,
  momentOr,
  natural,
  oneOf,
  range,
  required,
  text,
  unsettable,
  type Params,
} from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { createProduct } from "./products.ts";
import { change, idOf, type Simulation } from "../simulation.ts";

const recurringSpec = {
  interval: required(oneOf("day", "week", "month", "year")),
  interval_count: natural,
  meter: text,
  trial_period_days: natural,
  usage_type: oneOf("licensed", "metered"),
};

const newPrice = {
  active: flag,
  billing_scheme: oneOf("per_unit", "tiered"),
  currency: required(text),
  lookup_key: text,
  metadata,
  nickname: text,
  product: text,
  product_data: hash({ name: required(text), metadata, unit_label: text }),
  recurring: hash(recurringSpec),
  tax_behavior: oneOf("exclusive", "inclusive", "unspecified"),
  tiers: list(
    hash({
      up_to: required(momentOr("inf")),
      unit_amount: natural,
      unit_amount_decimal: decimalText,
      flat_amount: natural,
      flat_amount_decimal: decimalText,
    }),
  ),
  tiers_mode: oneOf("graduated", "volume"),
  transfer_lookup_key: flag,
  transform_quantity: hash({
    divide_by: required(natural),
    round: required(oneOf("down", "up")),
  }),
  unit_amount: natural,
  unit_amount_decimal: decimalText,
};

export interface NewPrice extends Partial<Omit<Params<typeof newPrice>, "currency" | "recurring">> {
  currency: string;
  recurring?: { interval: "day" | "week" | "month" | "year" } & Partial<
    Params<typeof recurringSpec>
  >;
  /** Stripe chooses ids itself; a local catalog that already names its prices may bring them. */
  id?: string;
}

export function createPrice(simulation: Simulation, params: NewPrice): Stripe.Price {
  const { store, newId, now, emit } = simulation;
  const { recurring } = params;
  const product = productOf(simulation, params);
  const tiers = tiersOf(params);
  const amount = params.unit_amount_decimal ?? params.unit_amount?.toString();
  if ((amount === undefined) === (tiers === undefined)) {
    throw invalidRequest("You must specify one of unit_amount, unit_amount_decimal or tiers.");
  }
  if (recurring?.interval_count === 0) {
    throw invalidRequest("`interval_count` must be at least 1.", {
      param: "recurring[interval_count]",
    });
  }
  if (recurring?.usage_type === "metered" && recurring.meter === undefined) {
    throw invalidRequest("A metered price needs a meter.", { param: "recurring[meter]" });
  }

  const price: Stripe.Price = {
    id: params.id ?? newId("price"),
    object: "price",
    active: params.active ?? true,
    billing_scheme: tiers === undefined ? "per_unit" : "tiered",
    created: now(),
    currency: params.currency.toLowerCase(),
    custom_unit_amount: null,
    livemode: false,
    lookup_key: null,
    metadata: changedMetadata({}, params.metadata),
    nickname: params.nickname ?? null,
    product,
    recurring:
      recurring === undefined
        ? null
        : {
            interval: recurring.interval,
            interval_count: recurring.interval_count ?? 1,
            meter: recurring.meter ?? null,
            trial_period_days: recurring.trial_period_days ?? null,
            usage_type: recurring.usage_type ?? "licensed",
          },
    tax_behavior: params.tax_behavior ?? "unspecified",
    tiers_mode: params.tiers_mode ?? null,
    transform_quantity: params.transform_quantity ?? null,
    type: recurring === undefined ? "one_time" : "recurring",
    unit_amount: wholeOrNull(amount),
    unit_amount_decimal: amount === undefined ? null : decimal(amount),
  };
  if (tiers !== undefined) store.tiers.set(price.id, tiers);
  takeLookupKey(simulation, price, params.lookup_key, params.transfer_lookup_key);
  store.prices.add(price);
  emit("price.created", price);
  return price;
}

function productOf(simulation: Simulation, { product, product_data }: NewPrice): string {
  if ((product === undefined) === (product_data === undefined)) {
    throw invalidRequest("You must specify either `product` or `product_data`.", {
      code: "parameter_missing",
      param: "product",
    });
  }
  if (product !== undefined) return simulation.store.products.require(product, "product").id;
  return createProduct(simulation, { name: "", ...product_data }).id;
}

/** Tiers that follow each other, the last one open. */
function tiersOf({ billing_scheme, tiers, tiers_mode }: NewPrice): Stripe.Price.Tier[] | undefined {
  if (billing_scheme !== "tiered") return undefined;
  if (tiers === undefined || tiers.length === 0 || tiers_mode === undefined) {
    throw invalidRequest("A tiered price needs `tiers` and `tiers_mode`.", { param: "tiers" });
  }
  let below = 0;
  return tiers.map(({ up_to, ...amounts }, index) => {
    const last = index === tiers.length - 1;
    if ((up_to === "inf") !== last || (up_to !== "inf" && up_to <= below)) {
      throw invalidRequest("Each tier must reach further than the one before, the last to `inf`.", {
        param: `tiers[${index}][up_to]`,
      });
    }
    below = up_to === "inf" ? below : up_to;
    const unit = amounts.unit_amount_decimal ?? amounts.unit_amount?.toString();
    const flat = amounts.flat_amount_decimal ?? amounts.flat_amount?.toString();
    return {
      flat_amount: wholeOrNull(flat),
      flat_amount_decimal: flat === undefined ? null : decimal(flat),
      unit_amount: wholeOrNull(unit),
      unit_amount_decimal: unit === undefined ? null : decimal(unit),
      up_to: up_to === "inf" ? null : up_to,
    };
  });
}

function wholeOrNull(amount: string | undefined): number | null {
  return amount !== undefined && /^\d+$/.test(amount) ? Number(amount) : null;
}

/** A lookup key belongs to one price at a time; it moves only when asked to. */
function takeLookupKey(
  simulation: Simulation,
  price: Stripe.Price,
  key: string | null | undefined,
  transfer = false,
): void {
  if (key === undefined) return;
  const holder = simulation.store.prices
    .all()
    .find((candidate) => candidate.lookup_key === key && candidate.id !== price.id);
  if (key !== null && holder !== undefined) {
    if (!transfer) {
      throw invalidRequest(
        `A price (\`${holder.id}\`) already uses that lookup key. Pass transfer_lookup_key=true to move it.`,
        { param: "lookup_key" },
      );
    }
    change(simulation, holder, () => {
      holder.lookup_key = null;
    });
  }
  price.lookup_key = key;
}

/** The recurrence of a price on a subscription; anything else is refused where it is used. */
export function recurrence(price: Stripe.Price): Stripe.Price.Recurring {
  if (price.recurring !== null) return price.recurring;
  throw invalidRequest(
    `The price specified is set to \`type=one_time\` but this field only accepts prices with \`type=recurring\`.`,
  );
}

/** A price that may be newly subscribed to. */
export function subscribablePrice(
  { store }: Simulation,
  id: string,
  param: string,
): Stripe.Price & { recurring: Stripe.Price.Recurring } {
  const price = store.prices.require(id, param);
  const recurring = recurrence(price);
  if (!price.active) {
    throw invalidRequest(
      `The price specified is inactive. This field only accepts active prices.`,
      { param },
    );
  }
  const product = store.products.get(idOf(price.product) ?? "");
  if (product?.active === false) {
    throw invalidRequest(`The price specified is associated with an inactive product.`, { param });
  }
  return Object.assign(price, { recurring });
}

/** The legacy plan object that Stripe still shows beside a subscription item's price. */
export function planOf(price: Stripe.Price): Stripe.Plan {
  const { interval, interval_count, meter, trial_period_days, usage_type } = recurrence(price);
  return {
    id: price.id,
    object: "plan",
    active: price.active,
    amount: price.unit_amount,
    amount_decimal: price.unit_amount_decimal,
    billing_scheme: price.billing_scheme,
    created: price.created,
    currency: price.currency,
    interval,
    interval_count,
    livemode: false,
    metadata: price.metadata,
    meter,
    nickname: price.nickname,
    product: price.product,
    tiers_mode: price.tiers_mode,
    transform_usage: price.transform_quantity,
    trial_period_days,
    usage_type,
  };
}

export const priceRoutes = [
  route("POST /v1/prices", newPrice, (simulation, params) => createPrice(simulation, params)),

  route(
    "GET /v1/prices",
    {
      ...pagination,
      active: flag,
      created: range,
      currency: text,
      lookup_keys: list(text),
      product: text,
      type: oneOf("one_time", "recurring"),
    },
    ({ store }, params) =>
      page(
        "/v1/prices",
        store.prices
          .all()
          .filter(
            (price) =>
              (params.active === undefined || price.active === params.active) &&
              (params.created === undefined || params.created(price.created)) &&
              (params.currency === undefined || price.currency === params.currency) &&
              (params.product === undefined || price.product === params.product) &&
              (params.type === undefined || price.type === params.type) &&
              (params.lookup_keys === undefined ||
                (price.lookup_key !== null && params.lookup_keys.includes(price.lookup_key))),
          ),
        params,
      ),
  ),

  route("GET /v1/prices/:id", {}, ({ store }, _params, id) => store.prices.require(id)),

  route(
    "POST /v1/prices/:id",
    {
      active: flag,
      lookup_key: unsettable(text),
      metadata,
      nickname: unsettable(text),
      tax_behavior: oneOf("exclusive", "inclusive", "unspecified"),
      transfer_lookup_key: flag,
    },
    (simulation, params, id) => {
      const price = simulation.store.prices.require(id);
      change(simulation, price, () => {
        takeLookupKey(simulation, price, params.lookup_key, params.transfer_lookup_key);
        if (params.active !== undefined) price.active = params.active;
        if (params.nickname !== undefined) price.nickname = params.nickname;
        if (params.tax_behavior !== undefined) price.tax_behavior = params.tax_behavior;
        price.metadata = changedMetadata(price.metadata, params.metadata);
      });
      return price;
    },
  ),
];
