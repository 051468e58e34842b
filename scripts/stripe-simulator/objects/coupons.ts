import type Stripe from "stripe";
import { isCodeRedeemable, isRedeemable } from "../billing/discounts.ts";
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
  type Params,
} from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";

const newCoupon = {
  id: text,
  name: text,
  percent_off: decimalText,
  amount_off: natural,
  currency: text,
  duration: oneOf("forever", "once", "repeating"),
  duration_in_months: natural,
  max_redemptions: natural,
  redeem_by: natural,
  applies_to: hash({ products: list(text) }),
  metadata,
};

function createCoupon(simulation: Simulation, params: Params<typeof newCoupon>): Stripe.Coupon {
  const { store, newId, now, emit } = simulation;
  const duration = params.duration ?? "once";
  const percent = params.percent_off === undefined ? null : Number(params.percent_off);
  if ((percent === null) === (params.amount_off === undefined)) {
    throw invalidRequest("You must pass exactly one of `percent_off` and `amount_off`.");
  }
  if (percent !== null && (percent <= 0 || percent > 100)) {
    throw invalidRequest("Invalid percent_off: must be above 0 and at most 100.", {
      param: "percent_off",
    });
  }
  if (params.amount_off !== undefined && params.currency === undefined) {
    throw invalidRequest("Missing required param: currency.", {
      code: "parameter_missing",
      param: "currency",
    });
  }
  if ((duration === "repeating") !== (params.duration_in_months !== undefined)) {
    throw invalidRequest("`duration_in_months` is for coupons whose duration is `repeating`.", {
      param: "duration_in_months",
    });
  }
  if (params.id !== undefined && store.coupons.get(params.id) !== undefined) {
    throw invalidRequest("Coupon already exists.", { code: "resource_already_exists" });
  }
  const coupon: Stripe.Coupon = {
    id: params.id ?? newId("coupon").slice(7, 15),
    object: "coupon",
    amount_off: params.amount_off ?? null,
    created: now(),
    currency: params.currency?.toLowerCase() ?? null,
    duration,
    duration_in_months: params.duration_in_months ?? null,
    livemode: false,
    max_redemptions: params.max_redemptions ?? null,
    metadata: changedMetadata({}, params.metadata),
    name: params.name ?? null,
    percent_off: percent,
    redeem_by: params.redeem_by ?? null,
    times_redeemed: 0,
    valid: true,
  };
  if (params.applies_to?.products !== undefined) {
    coupon.applies_to = { products: params.applies_to.products };
  }
  coupon.valid = isRedeemable(coupon, now());
  store.coupons.add(coupon);
  emit("coupon.created", coupon);
  return coupon;
}

export const couponRoutes = [
  route("POST /v1/coupons", newCoupon, createCoupon),

  route("GET /v1/coupons", { ...pagination, created: range }, ({ store }, params) =>
    page(
      "/v1/coupons",
      store.coupons
        .all()
        .filter(({ created }) => params.created === undefined || params.created(created)),
      params,
    ),
  ),

  route("GET /v1/coupons/:id", {}, ({ store }, _params, id) => store.coupons.require(id)),

  route("POST /v1/coupons/:id", { name: text, metadata }, (simulation, params, id) => {
    const coupon = simulation.store.coupons.require(id);
    change(simulation, coupon, () => {
      if (params.name !== undefined) coupon.name = params.name;
      coupon.metadata = changedMetadata(coupon.metadata, params.metadata);
    });
    return coupon;
  }),

  // Who has the discount keeps it; nobody can redeem the coupon any more.
  route("DELETE /v1/coupons/:id", {}, ({ store, emit }, _params, id) => {
    const coupon = store.coupons.require(id);
    store.deletedCoupons.set(id, coupon);
    emit("coupon.deleted", coupon);
    return store.coupons.remove(coupon);
  }),
];

const restrictions = {
  first_time_transaction: flag,
  minimum_amount: natural,
  minimum_amount_currency: text,
};

const newPromotionCode = {
  promotion: required(hash({ type: required(oneOf("coupon")), coupon: required(text) })),
  active: flag,
  code: text,
  customer: text,
  expires_at: natural,
  max_redemptions: natural,
  metadata,
  restrictions: hash(restrictions),
};

function createPromotionCode(
  simulation: Simulation,
  params: Params<typeof newPromotionCode>,
): Stripe.PromotionCode {
  const { store, newId, now, emit } = simulation;
  const coupon = store.coupons.require(params.promotion.coupon, "promotion[coupon]");
  if (params.customer !== undefined) store.customers.require(params.customer, "customer");
  const code = params.code ?? newId("code").slice(5, 13).toUpperCase();
  const taken = store.promotionCodes
    .all()
    .some((other) => other.active && other.code.toLowerCase() === code.toLowerCase());
  if (taken) {
    throw invalidRequest(
      `An active promotion code with \`code: ${code}\` already exists. Update the active promotion code or use a different code.`,
      { param: "code" },
    );
  }
  const promotionCode = store.promotionCodes.add({
    id: newId("promo"),
    object: "promotion_code",
    active: params.active ?? true,
    code,
    created: now(),
    customer: params.customer ?? null,
    customer_account: null,
    expires_at: params.expires_at ?? null,
    livemode: false,
    max_redemptions: params.max_redemptions ?? null,
    metadata: changedMetadata({}, params.metadata),
    promotion: { type: "coupon", coupon: coupon.id },
    restrictions: {
      first_time_transaction: params.restrictions?.first_time_transaction ?? false,
      minimum_amount: params.restrictions?.minimum_amount ?? null,
      minimum_amount_currency: params.restrictions?.minimum_amount_currency ?? null,
    },
    times_redeemed: 0,
  });
  emit("promotion_code.created", promotionCode);
  return promotionCode;
}

export const promotionCodeRoutes = [
  route("POST /v1/promotion_codes", newPromotionCode, createPromotionCode),

  route(
    "GET /v1/promotion_codes",
    {
      ...pagination,
      active: flag,
      code: text,
      coupon: text,
      customer: text,
      created: range,
    },
    ({ store, now }, params) =>
      page(
        "/v1/promotion_codes",
        store.promotionCodes
          .all()
          .filter(
            (found) =>
              (params.active === undefined || params.active === isCodeRedeemable(found, now())) &&
              (params.code === undefined ||
                found.code.toLowerCase() === params.code.toLowerCase()) &&
              (params.coupon === undefined || idOf(found.promotion.coupon) === params.coupon) &&
              (params.customer === undefined || found.customer === params.customer) &&
              (params.created === undefined || params.created(found.created)),
          ),
        params,
      ),
  ),

  route("GET /v1/promotion_codes/:id", {}, ({ store }, _params, id) =>
    store.promotionCodes.require(id),
  ),

  route("POST /v1/promotion_codes/:id", { active: flag, metadata }, (simulation, params, id) => {
    const promotionCode = simulation.store.promotionCodes.require(id);
    change(simulation, promotionCode, () => {
      if (params.active !== undefined) promotionCode.active = params.active;
      promotionCode.metadata = changedMetadata(promotionCode.metadata, params.metadata);
    });
    return promotionCode;
  }),
];
