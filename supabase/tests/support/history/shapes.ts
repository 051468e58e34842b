/** Objects as API versions before 2025-03-31 (basil) showed them. */
import { snapshot } from "../../../../scripts/stripe-simulator/snapshots.ts";
import type { JsonObject, StripeObject } from "../stripe-objects.ts";

/** The period stood on the subscription, the invoice's links at its top. */
export function asBeforeBasil(object: StripeObject): JsonObject {
  const shown = snapshot(object) as JsonObject;
  if (object.object === "subscription") {
    const { data } = shown["items"] as unknown as { data: JsonObject[] };
    const period = ["current_period_start", "current_period_end"];
    for (const key of period) shown[key] = data[0]![key]!;
    for (const item of data) for (const key of period) delete item[key];
  }
  if (object.object === "invoice") {
    const { parent, lines } = shown as unknown as {
      parent: { subscription_details: { subscription: string } };
      lines: { data: JsonObject[] };
    };
    shown["subscription"] = parent.subscription_details.subscription;
    delete shown["parent"];
    for (const line of lines.data) lineBeforeBasil(line);
  }
  if (object.object === "discount") {
    const { coupon } = shown["source"] as { coupon: string };
    shown["coupon"] = { id: coupon, object: "coupon" };
    delete shown["source"];
  }
  return shown;
}

function lineBeforeBasil(line: JsonObject): void {
  const { subscription_item_details: details } = line["parent"] as Record<string, JsonObject>;
  Object.assign(line, details, { price: (line["pricing"] as JsonObject)["price_details"]! });
  line["price"] = { id: (line["price"] as JsonObject)["price"]!, object: "price" };
  delete line["parent"];
  delete line["pricing"];
}
