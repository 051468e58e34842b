import { PostgrestClient } from "@supabase/postgrest-js";
import { fromDataApi } from "./errors.ts";
import type { Call } from "./http.ts";

/** The package's own schema behind the Data API. Failures are thrown as ApiError. */
export interface DataApi {
  /** Calls a function of the database. Rows come as a list, whether it returns one, many or none. */
  rpc<Row>(name: string, args: Record<string, unknown>, timeoutMs?: number): Promise<Row[]>;
  /** Reads the row with this id, if the caller may see it. */
  find<Row>(table: string, columns: string, id: string): Promise<Row | undefined>;
}

export interface DataApiOptions {
  url: string;
  /** A publishable or secret key, of the new or the legacy kind. */
  key: string;
  /** A user's access token. Without it the key itself decides who is calling. */
  accessToken?: string;
  fetch?: typeof fetch;
}

const defaultTimeoutMs = 8_000;

/**
 * Connects to the Data API for one call of a function, whose request id goes along.
 *
 * Only the REST part of supabase-js is used: the whole client would load Auth, Storage and Realtime into every
 * cold start. Nothing is retried here; whoever called the function retries.
 */
export function createDataApi(options: DataApiOptions, { requestId, log }: Call): DataApi {
  const client = new PostgrestClient(`${options.url.replace(/\/+$/, "")}/rest/v1`, {
    schema: "billing",
    headers: { ...authentication(options), "x-request-id": requestId },
    fetch: options.fetch,
  });
  const as = options.accessToken === undefined ? "service" : "user";

  async function rowsOf(
    what: string,
    request: PromiseLike<{ data: unknown; status: number; error: Failure | null }>,
  ): Promise<unknown[]> {
    const { data, status, error } = await request;
    if (error) {
      const failure = fromDataApi({ ...complete(error), status }, as);
      // Without error.details: that can be a row of a table, or a stack trace.
      log(failure.status >= 500 ? "error" : "info", "data api refused", {
        what,
        status,
        sqlstate: error.code,
        reason: error.message,
      });
      throw failure;
    }
    if (Array.isArray(data)) return data;
    return data === null || data === undefined ? [] : [data];
  }

  return {
    async rpc<Row>(name: string, args: Record<string, unknown>, timeoutMs = defaultTimeoutMs) {
      const request = client.rpc(name, args).abortSignal(AbortSignal.timeout(timeoutMs));
      return (await rowsOf(name, request)) as Row[];
    },
    async find<Row>(table: string, columns: string, id: string) {
      const request = client
        .from(table)
        .select(columns)
        .eq("id", id)
        .retry(false)
        .abortSignal(AbortSignal.timeout(defaultTimeoutMs));
      const [row] = await rowsOf(table, request);
      return row as Row | undefined;
    },
  };
}

interface Failure {
  code?: string;
  message?: string;
  details?: string | null;
  hint?: string | null;
}

function complete({ code, message, details, hint }: Failure) {
  return { code: code ?? "", message: message ?? "", details: details ?? "", hint: hint ?? "" };
}

/** New keys are no tokens and go in `apikey` alone; a legacy key is a JWT that must also stand as the token. */
function authentication({ key, accessToken }: DataApiOptions): Record<string, string> {
  const token = accessToken ?? (looksLikeJwt(key) ? key : undefined);
  return { apikey: key, ...(token ? { authorization: `Bearer ${token}` } : {}) };
}

export function looksLikeJwt(token: string): boolean {
  return /^[\w-]+\.[\w-]+\.[\w-]+$/.test(token);
}
