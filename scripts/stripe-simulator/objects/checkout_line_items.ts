import type Stripe from "stripe";
import { amountFor } from "../billing/amounts.ts";
import type { Store } from "../store.ts";

export function lineItemsOf(store: Store, session: string): Stripe.LineItem[] {
  const items = store.checkoutPlans.get(session)?.items ?? [];
  return items.map(({ id, price: priceId, quantity }) => {
    const price = store.prices.require(priceId);
    const amount = amountFor(store, price, quantity);
    return {
      id,
      object: "item",
      adjustable_quantity: null,
      amount_discount: 0,
      amount_subtotal: amount,
      amount_tax: 0,
      amount_total: amount,
      currency: price.currency,
      description: productName(store, price),
      metadata: {},
      price,
      quantity,
    };
  });
}

export function productName(store: Store, price: Stripe.Price): string {
  const product = typeof price.product === "string" ? price.product : price.product.id;
  return store.products.get(product)?.name ?? product;
}
