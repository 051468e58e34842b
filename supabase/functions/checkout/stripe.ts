import Stripe from "stripe";

/** A call to Stripe as the database wants it made. */
export interface StripeRequest {
  id: string;
  idempotency_key: string;
  method: string;
  path: string;
  params: Record<string, unknown> | null;
}

/** What Stripe answered; without an answer the status is null and the response holds only a message. */
export interface StripeAnswer {
  http_status: number | null;
  response: Record<string, unknown>;
  retry_after_seconds: number | null;
  /** Whether Stripe had the answer ready, from an earlier request under the same key. */
  is_replay: boolean;
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
 * Makes the calls, each once: whether and when to try again, and under which idempotency key, is decided by the
 * database.
 *
 * Never throws for what Stripe or the network does.
 */
export function createStripeCaller(options: StripeOptions): CallStripe {
  const client = createClient(options);

  return async ({ idempotency_key, method, path, params }, timeoutMs) => {
    // The stripe package sends the parameters of a POST only.
    const query = method === "POST" ? "" : queryOf(params ?? {});
    try {
      const object = await client.rawRequest(
        method,
        query === "" ? path : `${path}?${query}`,
        method === "POST" ? (params ?? undefined) : undefined,
        { idempotencyKey: idempotency_key, timeout: timeoutMs },
      );
      return answer(200, storable(object), object.lastResponse);
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
  meta: { requestId?: string; headers?: unknown } = {},
): StripeAnswer {
  // The stripe package gives errors plain headers, and answers those of fetch.
  const headers = new Headers((meta.headers ?? {}) as HeadersInit);
  return {
    http_status: status,
    response,
    retry_after_seconds: secondsUntil(headers.get("retry-after")),
    is_replay: headers.get("idempotent-replayed") === "true",
    stripe_date: headers.get("date"),
    stripe_request_id: meta.requestId ?? null,
  };
}

/** Parameters as Stripe reads them from a query: nested ones with their keys in brackets. */
function queryOf(params: Record<string, unknown>): string {
  const pairs = (name: string, value: unknown): [string, string][] => {
    if (value === null || value === undefined) return [[name, ""]];
    if (typeof value !== "object") return [[name, String(value)]];
    return Object.entries(value).flatMap(([key, inner]) => pairs(`${name}[${key}]`, inner));
  };
  return new URLSearchParams(
    Object.entries(params).flatMap(([name, value]) => pairs(name, value)),
  ).toString();
}

/** Without the characters that Postgres refuses in jsonb: one customer's name would hold up a whole page. */
function storable(object: Record<string, unknown>): Record<string, unknown> {
  return JSON.parse(JSON.stringify(object), (_key, value: unknown) =>
    typeof value === "string"
      ? value.replaceAll("\0", "").replace(/\p{Surrogate}/gu, "\ufffd")
      : value,
  ) as Record<string, unknown>;
}

/** The `error` of Stripe's answer, without what the stripe package wrote into it. */
function rawError(error: Stripe.errors.StripeError): Record<string, unknown> {
  const own: Record<string, unknown> = { ...(error.raw as object) };
  for (const added of ["headers", "statusCode", "requestId"]) delete own[added];
  return own;
}

/** Retry-After is a number of seconds or a date. */
function secondsUntil(retryAfter: string | null): number | null {
  if (!retryAfter) return null;
  if (/^\d+$/.test(retryAfter)) return Number(retryAfter);
  const time = Date.parse(retryAfter);
  return Number.isNaN(time) ? null : Math.max(0, Math.ceil((time - Date.now()) / 1000));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : "the request could not be made";
}
