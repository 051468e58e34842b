/** The API's outside: authentication, idempotency keys, faults on request, errors as Stripe words them. */
import { randomBytes } from "node:crypto";
import { StripeApiError } from "../errors.ts";
import { checkoutRoutes } from "../objects/checkout_sessions.ts";
import { couponRoutes, promotionCodeRoutes } from "../objects/coupons.ts";
import { creditNoteRoutes } from "../objects/credit_notes.ts";
import { customerRoutes } from "../objects/customers.ts";
import { disputeRoutes } from "../objects/disputes.ts";
import { entitlementRoutes } from "../objects/entitlements.ts";
import { eventRoutes } from "../objects/events.ts";
import { invoiceRoutes } from "../objects/invoices.ts";
import { meterRoutes } from "../objects/meters.ts";
import { oneOffInvoiceRoutes } from "../objects/one_off_invoices.ts";
import { paymentMethodRoutes, setupIntentRoutes } from "../objects/payment_methods.ts";
import { paymentRoutes } from "../objects/payments.ts";
import { portalRoutes } from "../objects/portal_sessions.ts";
import { refundRoutes } from "../objects/refunds.ts";
import { priceRoutes } from "../objects/prices.ts";
import { productRoutes } from "../objects/products.ts";
import { scheduleRoutes } from "../objects/subscription_schedules.ts";
import { taxIdRoutes } from "../objects/tax_ids.ts";
import { testClockRoutes } from "../objects/test_clocks.ts";
import { subscriptionRoutes } from "../objects/subscriptions.ts";
import { apiVersion, noCause, type Simulation } from "../simulation.ts";
import { render } from "./expand.ts";
import { canonicalForm, decodeForm, decodeJson, type FormHash } from "./form.ts";
import { list, text } from "./params.ts";
import { matchPath, type Route } from "./routes.ts";

const routes: Route[] = [
  ...customerRoutes,
  ...productRoutes,
  ...priceRoutes,
  ...couponRoutes,
  ...promotionCodeRoutes,
  ...checkoutRoutes,
  ...portalRoutes,
  ...paymentMethodRoutes,
  ...setupIntentRoutes,
  ...subscriptionRoutes,
  ...scheduleRoutes,
  ...invoiceRoutes,
  ...oneOffInvoiceRoutes,
  ...paymentRoutes,
  ...refundRoutes,
  ...disputeRoutes,
  ...creditNoteRoutes,
  ...meterRoutes,
  ...entitlementRoutes,
  ...taxIdRoutes,
  ...testClockRoutes,
  ...eventRoutes,
];

export interface ApiRequest {
  method: string;
  path: string;
  query: string;
  body: string;
  header: (name: string) => string | undefined;
}

export interface ApiResponse {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** A fault for the next requests. */
export interface Fault {
  /** How many requests it strikes; 1 unless said. */
  times?: number;
  /** Instead of a number of times: all requests before this second of the simulator's clock. */
  until?: number;
  /** Only requests whose path starts so. */
  path?: string;
  /** Only requests that name this object, in their path or in a parameter. */
  object?: string;
  /**
   * `before`: the request is refused and nothing happens. `saved`: the same, but the refusal is kept for the request's
   * idempotency key and replayed, as Stripe does with its 500s. `after`: the request is carried out, but the answer is
   * lost and the connection cut, as when a time-out strikes.
   */
  when: "after" | "before" | "saved";
  status?: number;
  type?: "api_error" | "invalid_request_error" | "rate_limit_error";
  code?: string;
  message?: string;
  retryAfterSeconds?: number;
}

export interface ApiControl {
  fail(fault: Fault): void;
  /** Real milliseconds each request takes before it is carried out; its idempotency key is in use meanwhile. */
  delay(milliseconds: number): void;
  /** At most so many requests in a second of the simulator's clock; more are answered 429. Null lifts the limit. */
  limit(requestsPerSecond: number | null): void;
}

export interface Api extends ApiControl {
  /** Null when the answer is lost. */
  handle(request: ApiRequest): Promise<ApiResponse | null>;
}

interface KeptAnswer {
  fingerprint: string;
  endpoint: string;
  keptAt: number;
  /** Undefined while the first request runs. */
  answer?: { status: number; body: string; requestId: string };
}

const keepAnswersFor = 86_400;

export interface ApiDeps {
  simulation: Simulation;
  apiKey: string;
  /** Called after each request that was carried out. */
  settled: () => void;
}

export function createApi({ simulation, apiKey, settled }: ApiDeps): Api {
  const kept = new Map<string, KeptAnswer>();
  const faults: Fault[] = [];
  let delayMs = 0;
  let limit: number | null = null;
  let counted = { second: 0, requests: 0 };

  async function handle(request: ApiRequest): Promise<ApiResponse | null> {
    const requestId = `req_${randomBytes(10).toString("base64url").replaceAll(/[-_]/g, "0").slice(0, 14)}`;
    const key = request.method === "POST" ? request.header("idempotency-key") : undefined;
    const headers: Record<string, string> = {
      "content-type": "application/json",
      date: new Date(simulation.now() * 1000).toUTCString(),
      "request-id": requestId,
      "stripe-version": request.header("stripe-version") ?? apiVersion,
      ...(key === undefined ? {} : { "idempotency-key": key }),
    };
    const respond = (status: number, body: string, more: Record<string, string> = {}) => ({
      status,
      // The simulator's own time, as readers judge by it how old an answer is.
      headers: { date: new Date(simulation.now() * 1000).toUTCString(), ...headers, ...more },
      body,
    });

    try {
      authenticate(request, apiKey);
      const { execute, fingerprint } = prepare(request);
      refuseAboveLimit();
      const fault = takeFault(request);
      if (fault?.when === "before") {
        return respond(fault.status ?? 500, JSON.stringify({ error: faultBody(fault) }), {
          ...(fault.retryAfterSeconds === undefined
            ? {}
            : { "retry-after": String(fault.retryAfterSeconds) }),
        });
      }
      const endpoint = `${request.method} ${request.path}`;
      const known = key === undefined ? undefined : recall(key, endpoint, fingerprint);
      if (known?.answer !== undefined) {
        if (fault?.when === "after") return null;
        return respond(known.answer.status, known.answer.body, {
          "idempotent-replayed": "true",
          "original-request": known.answer.requestId,
        });
      }
      const keep: KeptAnswer = { fingerprint, endpoint, keptAt: simulation.now() };
      if (key !== undefined) kept.set(key, keep);
      if (delayMs > 0) await new Promise((resolve) => setTimeout(resolve, delayMs));

      const answer =
        fault?.when === "saved"
          ? { status: fault.status ?? 500, body: JSON.stringify({ error: faultBody(fault) }) }
          : carryOut(execute, { id: requestId, idempotency_key: key ?? null });
      keep.answer = { ...answer, requestId };
      settled();
      return fault?.when === "after" ? null : respond(answer.status, answer.body);
    } catch (error) {
      const { status, body } = errorAnswer(error);
      return respond(status, body, error instanceof StripeApiError ? error.headers : {});
    }
  }

  /** An earlier request with this key; undefined for a new key, or one that is a day old. */
  function recall(key: string, endpoint: string, fingerprint: string): KeptAnswer | undefined {
    const known = kept.get(key);
    if (known === undefined || simulation.now() - known.keptAt >= keepAnswersFor) return undefined;
    if (known.endpoint !== endpoint || known.fingerprint !== fingerprint) {
      throw new StripeApiError(400, {
        type: "idempotency_error",
        message:
          "Keys for idempotent requests can only be used with the same parameters they were first used with. " +
          `Try using a key other than '${key}' if you meant to execute a different request.`,
      });
    }
    if (known.answer === undefined) {
      throw new StripeApiError(409, {
        type: "idempotency_error",
        code: "idempotency_key_in_use",
        message: `There is currently another in-progress request using this Idempotent Key (${key}).`,
      });
    }
    return known;
  }

  function carryOut(
    execute: (simulation: Simulation) => object,
    cause: Simulation["cause"],
  ): { status: number; body: string } {
    simulation.cause = cause;
    try {
      return { status: 200, body: JSON.stringify(execute(simulation), null, 2) };
    } catch (error) {
      return errorAnswer(error);
    } finally {
      simulation.cause = noCause;
    }
  }

  function refuseAboveLimit(): void {
    const second = simulation.now();
    if (second !== counted.second) counted = { second, requests: 0 };
    counted.requests += 1;
    if (limit === null || counted.requests <= limit) return;
    throw new StripeApiError(
      429,
      {
        type: "rate_limit_error",
        code: "rate_limit",
        message:
          "Request rate limit exceeded. Learn more about rate limits here https://docs.stripe.com/rate-limits.",
      },
      { "retry-after": "1", "stripe-rate-limited-reason": "global-rate" },
    );
  }

  function takeFault({ path, query, body }: ApiRequest): Fault | undefined {
    const position = faults.findIndex(
      (fault) =>
        !(fault.until !== undefined && simulation.now() >= fault.until) &&
        path.startsWith(fault.path ?? "/") &&
        (fault.object === undefined || `${path} ${query} ${body}`.includes(fault.object)),
    );
    const fault = faults[position];
    if (fault === undefined || fault.until !== undefined) return fault;
    fault.times = (fault.times ?? 1) - 1;
    if (fault.times <= 0) faults.splice(position, 1);
    return fault;
  }

  return {
    handle,
    fail: (fault) => void faults.push({ ...fault, times: fault.times ?? 1 }),
    delay(milliseconds) {
      delayMs = milliseconds;
    },
    limit(requestsPerSecond) {
      limit = requestsPerSecond;
    },
  };
}

/** Finds the endpoint and validates the parameters; nothing is carried out yet, so nothing is kept for a key. */
function prepare({ method, path, query, body }: ApiRequest): {
  execute: (simulation: Simulation) => object;
  fingerprint: string;
} {
  for (const route of routes) {
    if (route.method !== method) continue;
    const ids = matchPath(route.segments, path);
    if (ids === null) continue;
    const form: FormHash = new Map([
      ...decodeForm(method === "POST" ? "" : query),
      ...(path.startsWith("/v2/") ? decodeJson(body) : decodeForm(body)),
    ]);
    const fingerprint = canonicalForm(form);
    const wanted = form.get("expand");
    const expand = wanted === undefined ? [] : list(text)(wanted, "expand");
    form.delete("expand");
    const execute = route.prepare(form, ids);
    return {
      fingerprint,
      execute: (simulation) => render(simulation, execute(simulation), expand),
    };
  }
  throw new StripeApiError(404, {
    type: "invalid_request_error",
    message: `Unrecognized request URL (${method}: ${path}). If Stripe has it, the simulator does not simulate it yet.`,
  });
}

function authenticate({ header }: ApiRequest, apiKey: string): void {
  const authorization = header("authorization") ?? "";
  const given = authorization.startsWith("Basic ")
    ? Buffer.from(authorization.slice(6), "base64").toString().split(":")[0]
    : authorization.replace(/^Bearer /, "");
  if (given === apiKey) return;
  throw new StripeApiError(401, {
    type: "invalid_request_error",
    message: given
      ? `Invalid API Key provided: ${given.slice(0, 8)}****`
      : "You did not provide an API key. You need to provide your API key in the Authorization header, " +
        "using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
  });
}

function faultBody({ status = 500, type, code, message }: Fault): object {
  return {
    type: type ?? (status === 429 ? "rate_limit_error" : "api_error"),
    message: message ?? "The simulator was asked to refuse this request.",
    ...(code === undefined ? {} : { code }),
  };
}

function errorAnswer(error: unknown): { status: number; body: string } {
  if (error instanceof StripeApiError) {
    return { status: error.status, body: JSON.stringify({ error: error.body }, null, 2) };
  }
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return {
    status: 500,
    body: JSON.stringify({ error: { type: "api_error", message: `Simulator fault: ${message}` } }),
  };
}
