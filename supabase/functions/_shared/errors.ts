import { errorCodes, type ErrorCode } from "./error_codes.ts";

export type Details = Record<string, unknown>;

/** An answer that is an error: what the caller may know, and nothing else. */
export class ApiError extends Error {
  readonly status: number;
  readonly code: string;
  readonly details: Details;

  constructor(status: number, code: string, message: string, details: Details = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.details = details;
  }
}

/** An error of the catalog. */
export function apiError(code: ErrorCode, details: Details = {}): ApiError {
  const { status, message } = errorCodes[code];
  return new ApiError(status, code, message, details);
}

/** What the Data API answered instead of data; `status` 0 means that no answer came. */
export interface DataApiFailure {
  status: number;
  code: string;
  message: string;
  details: string;
  hint: string;
}

/**
 * Translates a failure of the Data API. What the database raised on purpose (`PT<status>`) passes through.
 * Anything else says only INTERNAL_ERROR to the caller: texts of Postgres and of proxies stay in the log.
 *
 * `as` tells whose token was sent: a refused token is the user's to renew, a refused key is ours to correct.
 */
export function fromDataApi(failure: DataApiFailure, as: "user" | "service"): ApiError {
  const raised = raisedError(failure);
  if (raised) return raised;
  if ([0, 502, 503, 504].includes(failure.status)) return apiError("UPSTREAM_UNAVAILABLE");
  if (as === "user") {
    // Not allowed to call at all: the token names no user.
    if (failure.code === "42501") return apiError("UNAUTHENTICATED");
    if (failure.status === 401) return apiError("INVALID_TOKEN");
    // An argument that cannot be read as its type. The text quotes only what the caller sent.
    if (failure.code === "22P02" || failure.code === "22003") {
      return apiError("VALIDATION_FAILED", { problem: failure.message });
    }
  }
  return apiError("INTERNAL_ERROR");
}

function raisedError({ code, message, details, hint }: DataApiFailure): ApiError | undefined {
  const status = Number(/^PT([45]\d\d)$/.exec(code)?.[1]);
  const values = parseObject(details);
  if (!status || typeof values?.["code"] !== "string") return undefined;
  const { code: catalogCode, ...rest } = values;
  return new ApiError(status, String(catalogCode), message, hint ? { ...rest, hint } : rest);
}

function parseObject(text: string): Details | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
