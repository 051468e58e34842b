import Stripe from "stripe";

/** A call to Stripe as the database wants it made. */
export interface StripeRequest {
  id: string;
  method: string;
  path: string;
  params: Record<string, unknown> | null;
}

/** What Stripe answered; without an answer the status is null and the response holds only a message. */
export interface StripeAnswer {
  http_status: number | null;
  response: Record<string, unknown>;
  retry_after_seconds: number | null;
  /** Stripe's clock when it answered. */
  stripe_date: string | null;
  stripe_request_id: string | null;
}

export type CallStripe = (request: StripeRequest, timeoutMs: number) => Promise<StripeAnswer>;

export interface StripeOptions {
  secretKey: string;
  apiBase: string;
  fetch?: typeof fetch;
}

/**
 * Makes the calls, each once: whether and when to try again is decided by the database. The request's id is the
 * idempotency key, so the same request made twice has one effect.
 *
 * Never throws for what Stripe or the network does.
 */
export function createStripeCaller(options: StripeOptions): CallStripe {
  const client = createClient(options);

  return async ({ id, method, path, params }, timeoutMs) => {
    try {
      const object = await client.rawRequest(method, path, params ?? undefined, {
        idempotencyKey: id,
        timeout: timeoutMs,
      });
      return answer(200, object, object.lastResponse);
    } catch (error) {
      if (!(error instanceof Stripe.errors.StripeError)) {
        return answer(null, { error: { message: messageOf(error) } });
      }
      if (error.statusCode === undefined) {
        return answer(null, { error: { message: error.message } }, { requestId: error.requestId });
      }
      return answer(error.statusCode, { error: rawError(error) }, error);
    }
  };
}

function createClient({ secretKey, apiBase, fetch }: StripeOptions): Stripe {
  const { protocol, hostname, port } = new URL(apiBase);
  return new Stripe(secretKey, {
    apiVersion: "2026-10-28.endive",
    protocol: protocol === "http:" ? "http" : "https",
    host: hostname,
    port: port || (protocol === "http:" ? 80 : 443),
    httpClient: Stripe.createFetchHttpClient(fetch),
    maxNetworkRetries: 0,
    telemetry: false,
    appInfo: { name: "pg-subscriptions" },
  });
}

function answer(
  status: number | null,
  response: Record<string, unknown>,
  meta: { requestId?: string; headers?: Record<string, string> } = {},
): StripeAnswer {
  return {
    http_status: status,
    response,
    retry_after_seconds: secondsUntil(meta.headers?.["retry-after"]),
    stripe_date: meta.headers?.["date"] ?? null,
    stripe_request_id: meta.requestId ?? null,
  };
}

/** The `error` of Stripe's answer, without what the stripe package wrote into it. */
function rawError(error: Stripe.errors.StripeError): Record<string, unknown> {
  const own: Record<string, unknown> = { ...(error.raw as object) };
  for (const added of ["headers", "statusCode", "requestId"]) delete own[added];
  return own;
}

/** Retry-After is a number of seconds or a date. */
function secondsUntil(retryAfter: string | undefined): number | null {
  if (!retryAfter) return null;
  if (/^\d+$/.test(retryAfter)) return Number(retryAfter);
  const time = Date.parse(retryAfter);
  return Number.isNaN(time) ? null : Math.max(0, Math.ceil((time - Date.now()) / 1000));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : "the request could not be made";
}
