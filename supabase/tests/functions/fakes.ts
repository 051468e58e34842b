import { createDataApi } from "../../functions/_shared/data_api.ts";
import type { Call } from "../../functions/_shared/http.ts";
import { createCheckoutHandler, type CheckoutDeps } from "../../functions/checkout/handler.ts";
import { createStripeCaller } from "../../functions/checkout/stripe.ts";

/** The keys and tokens of the tests; none opens anything. */
export const keys = {
  secret: "sb_secret_tests_0123456789",
  otherSecret: "sb_secret_other_0123456789",
  publishable: "sb_publishable_tests_0123456789",
  legacyService: "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl",
  legacyAnon: "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiJ9.c2lnbmF0dXJl",
  accessToken: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1c2VyIn0.c2lnbmF0dXJl",
  stripe: "sk_test_0123456789",
};

export interface DataApiCall {
  /** The function that was called, or the table that was read. */
  name: string;
  args: Record<string, unknown>;
  headers: Headers;
}

type Answer = unknown | ((args: Record<string, unknown>, nth: number) => unknown);

/**
 * A Data API that answers each function (or table) with a value or with what a function returns; a Response is
 * answered as it is, an Error is a failed connection. Records every call.
 */
export function fakeDataApi(answers: Record<string, Answer>) {
  const calls: DataApiCall[] = [];
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const url = new URL(String(input));
    const name = url.pathname.replace(/^\/rest\/v1\/(rpc\/)?/, "");
    const args = init?.body
      ? (JSON.parse(String(init.body)) as Record<string, unknown>)
      : Object.fromEntries(url.searchParams);
    const nth = calls.filter((call) => call.name === name).length;
    calls.push({ name, args, headers: new Headers(init?.headers) });
    if (!(name in answers)) throw new Error(`nobody expected ${name}`);
    const answer = answers[name];
    const value: unknown = typeof answer === "function" ? await answer(args, nth) : answer;
    if (value instanceof Error) throw value;
    if (value instanceof Response) return value;
    return value === undefined ? new Response(null, { status: 204 }) : Response.json(value);
  };
  return { fetch, calls, named: (name: string) => calls.filter((call) => call.name === name) };
}

/** What PostgREST answers when the database raises an error of the catalog. */
export function raised(
  status: number,
  code: string,
  message: string,
  details: Record<string, unknown> = {},
  hint: string | null = null,
): Response {
  return Response.json(
    { code: `PT${status}`, message, details: JSON.stringify({ code, ...details }), hint },
    { status },
  );
}

export interface StripeCall {
  method: string;
  url: string;
  form: string;
  headers: Headers;
}

/** A Stripe that gives the answers in their order, the last one for ever; an Error is a failed connection. */
export function fakeStripe(...answers: (Response | Error)[]) {
  const calls: StripeCall[] = [];
  const fetch: typeof globalThis.fetch = async (input, init) => {
    const answer = answers[Math.min(calls.length, answers.length - 1)];
    calls.push({
      method: String(init?.method),
      url: String(input),
      form: String(init?.body ?? ""),
      headers: new Headers(init?.headers),
    });
    if (answer === undefined) throw new Error("nobody expected a call to Stripe");
    if (answer instanceof Error) throw answer;
    return answer.clone();
  };
  return { fetch, calls };
}

export function collectLog() {
  const lines: string[] = [];
  return {
    writeLog: (line: string) => void lines.push(line),
    text: () => lines.join("\n"),
    entries: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}

/** A clock that only moves when somebody sleeps. */
export function fakeClock(start = Date.parse("2026-11-20T12:00:00Z")) {
  let time = start;
  return {
    now: () => time,
    sleep: async (ms: number) => void (time += ms),
    advance: (ms: number) => void (time += ms),
  };
}

interface CheckoutParts {
  dataApi: ReturnType<typeof fakeDataApi>;
  stripe?: ReturnType<typeof fakeStripe>;
  clock?: ReturnType<typeof fakeClock>;
  overrides?: Partial<CheckoutDeps>;
}

/** The checkout function, wired as its index.ts does, on a fake Data API, a fake Stripe and a fake clock. */
export function checkoutFunction({ dataApi, stripe, clock, overrides }: CheckoutParts) {
  const log = collectLog();
  const { now, sleep } = clock ?? fakeClock();
  const url = "http://data-api.test";
  const handler = createCheckoutHandler({
    asUser: (accessToken, call: Call) =>
      createDataApi({ url, key: keys.publishable, accessToken, fetch: dataApi.fetch }, call),
    asService: (call: Call) => createDataApi({ url, key: keys.secret, fetch: dataApi.fetch }, call),
    secretKeys: () => [keys.secret, keys.otherSecret],
    publishableKeys: () => [keys.publishable, keys.legacyAnon],
    stripe: () =>
      createStripeCaller({
        secretKey: keys.stripe,
        apiBase: "https://stripe.test",
        fetch: (stripe ?? fakeStripe()).fetch,
      }),
    now,
    sleep,
    writeLog: log.writeLog,
    ...overrides,
  });
  return { handler, log };
}

/** The answer of a function, as far as tests look at it. */
export interface Answered {
  status: number;
  headers: Headers;
  body: {
    success: boolean;
    data?: Record<string, unknown>;
    error?: { code: string; message: string; details: Record<string, unknown> };
  };
  text: string;
}

export async function read(response: Response): Promise<Answered> {
  const text = await response.text();
  const body = (text === "" ? {} : JSON.parse(text)) as Answered["body"];
  return { status: response.status, headers: response.headers, body, text };
}
