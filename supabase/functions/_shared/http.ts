import { ApiError, apiError, isObject } from "./errors.ts";
import { createLog, describeError, withoutSecrets, type Log } from "./log.ts";

/** One request on its way through a function. */
export interface Call {
  request: Request;
  /** The caller's x-request-id, or a new one; goes to the database with every call and back with the answer. */
  requestId: string;
  log: Log;
}

export interface FunctionOptions {
  name: string;
  /** Whether browsers call it: preflights are answered, and every answer carries the CORS headers. */
  cors: boolean;
  writeLog: (line: string) => void;
}

const corsHeaders = {
  "access-control-allow-origin": "*",
  "access-control-allow-methods": "POST, OPTIONS",
  // What supabase-js sends (see @supabase/supabase-js/cors), and the request id.
  "access-control-allow-headers":
    "authorization, x-client-info, apikey, content-type, x-retry-count, traceparent, tracestate, baggage, x-request-id",
  "access-control-expose-headers": "x-request-id, retry-after",
  "access-control-max-age": "86400",
};

/**
 * Makes a request handler of a function that answers with data or throws.
 *
 * Every answer has the one shape of the package and echoes x-request-id. An ApiError is answered as it is; whatever
 * else is thrown is logged and answered as INTERNAL_ERROR.
 */
export function createFunction(
  options: FunctionOptions,
  answer: (call: Call) => Promise<unknown>,
): (request: Request) => Promise<Response> {
  return async (request) => {
    const requestId = requestIdOf(request);
    const log = createLog(options.name, requestId, options.writeLog);
    const headers = { ...(options.cors ? corsHeaders : {}), "x-request-id": requestId };

    if (options.cors && request.method === "OPTIONS") {
      return new Response(null, { status: 204, headers });
    }
    try {
      const data = await answer({ request, requestId, log });
      return json(200, { success: true, data }, headers);
    } catch (error) {
      return failure(error, { requestId, log, headers });
    }
  };
}

function failure(
  thrown: unknown,
  { requestId, log, headers }: { requestId: string; log: Log; headers: Record<string, string> },
): Response {
  const known = thrown instanceof ApiError;
  const error = known ? thrown : apiError("INTERNAL_ERROR");
  const { status, code, message } = error;
  const details = code === "INTERNAL_ERROR" ? { request_id: requestId } : error.details;
  const cause = known ? {} : describeError(thrown);
  log(status >= 500 ? "error" : "warn", "request refused", { status, code, ...cause });

  const { allow, retry_after_seconds: wait } = details as Record<string, unknown>;
  return json(
    status,
    { success: false, error: { code, message, details } },
    {
      ...headers,
      ...(typeof allow === "string" ? { allow } : {}),
      ...(typeof wait === "number" ? { "retry-after": String(wait) } : {}),
    },
  );
}

function json(status: number, body: unknown, headers: Record<string, string>): Response {
  const text = JSON.stringify(body);
  return new Response(status < 400 ? text : withoutSecrets(text), {
    status,
    headers: { ...headers, "content-type": "application/json", "cache-control": "no-store" },
  });
}

function requestIdOf(request: Request): string {
  const given = request.headers.get("x-request-id") ?? "";
  return /^[\w.:/+=-]{1,200}$/.test(given) ? given : crypto.randomUUID();
}

export function requirePost(request: Request): void {
  if (request.method !== "POST") throw apiError("METHOD_NOT_ALLOWED", { allow: "POST" });
}

/** The body as text, character for character; a longer one than `limit` bytes is refused before it is all read. */
export async function readText(request: Request, limit: number): Promise<string> {
  const tooLarge = () => apiError("PAYLOAD_TOO_LARGE", { limit_bytes: limit });
  if (Number(request.headers.get("content-length") ?? 0) > limit) throw tooLarge();
  if (!request.body) return "";

  // A byte order mark is part of the text: it is signed like every other character.
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const reader = request.body.getReader();
  let text = "";
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text + decoder.decode();
    size += value.byteLength;
    if (size > limit) {
      await reader.cancel();
      throw tooLarge();
    }
    text += decoder.decode(value, { stream: true });
  }
}

/** The body as a JSON object. What its fields may hold is the database's to say. */
export async function readObject(request: Request): Promise<Record<string, unknown>> {
  const text = await readText(request, 65_536);
  try {
    const body: unknown = JSON.parse(text);
    if (isObject(body)) return body;
  } catch {
    // Answered below, like every other body that is not an object.
  }
  throw apiError("VALIDATION_FAILED", { field: "body", problem: "must be a JSON object" });
}
