import type Stripe from "stripe";

/** An error as Stripe's API answers it; the server turns it into the JSON body and status. */
export class StripeApiError extends Error {
  constructor(
    readonly status: number,
    readonly body: StripeErrorBody,
    readonly headers: Record<string, string> = {},
  ) {
    super(body.message);
  }
}

export interface StripeErrorBody {
  type:
    "api_error" | "card_error" | "idempotency_error" | "invalid_request_error" | "rate_limit_error";
  message: string;
  code?: string;
  decline_code?: string;
  advice_code?: string;
  param?: string;
  charge?: string;
  payment_intent?: Stripe.PaymentIntent | undefined;
  payment_method?: Stripe.PaymentMethod | undefined;
  setup_intent?: Stripe.SetupIntent | undefined;
}

export function invalidRequest(
  message: string,
  details: Partial<StripeErrorBody> = {},
): StripeApiError {
  return new StripeApiError(400, { type: "invalid_request_error", message, ...details });
}

/**
 * `name` is how Stripe's sentence calls the object: `No such customer: 'cus_1'`. An id in the path is a 404; one that a
 * parameter refers to makes the request itself wrong, a 400.
 */
export function noSuch(name: string, id: string, param = "id"): StripeApiError {
  return new StripeApiError(param === "id" ? 404 : 400, {
    type: "invalid_request_error",
    code: "resource_missing",
    message: `No such ${name}: '${id}'`,
    param,
  });
}

/** What the simulator leaves out is said, never silently ignored. */
export function notSimulated(what: string, param?: string): StripeApiError {
  return invalidRequest(`The Stripe simulator does not simulate ${what}.`, { param });
}
