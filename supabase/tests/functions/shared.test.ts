// What both functions stand on: settings under old and new names, the Data API's keys, calls to Stripe, the log.
import { describe, expect, it } from "vitest";
import { createDataApi } from "../../functions/_shared/data_api.ts";
import { createEnvironment } from "../../functions/_shared/env.ts";
import { createLog, describeError, withoutSecrets } from "../../functions/_shared/log.ts";
import { createStripeCaller } from "../../functions/checkout/stripe.ts";
import { fakeDataApi, fakeStripe, keys } from "./fakes.ts";

const environment = (variables: Record<string, string>) =>
  createEnvironment((name) => variables[name]);

describe("F3: the project's keys", () => {
  it("are read under their new names, the default first", () => {
    const env = environment({
      SUPABASE_PUBLISHABLE_KEYS: JSON.stringify({ default: "sb_publishable_1" }),
      SUPABASE_SECRET_KEYS: JSON.stringify({ jobs: "sb_secret_2", default: "sb_secret_1" }),
    });
    expect(env.publishableKey()).toBe("sb_publishable_1");
    expect(env.secretKey()).toBe("sb_secret_1");
    expect(env.secretKeys()).toEqual(["sb_secret_1", "sb_secret_2"]);
  });

  it("are read under their legacy names", () => {
    const env = environment({ SUPABASE_ANON_KEY: "anon", SUPABASE_SERVICE_ROLE_KEY: " service\n" });
    expect(env.publishableKey()).toBe("anon");
    expect(env.secretKey()).toBe("service");
  });

  it("are taken from the new names first where both are there, and all are known", () => {
    const env = environment({
      SUPABASE_SECRET_KEYS: JSON.stringify({ jobs: "sb_secret_2" }),
      SUPABASE_SERVICE_ROLE_KEY: "service",
    });
    expect(env.secretKey()).toBe("sb_secret_2");
    expect(env.secretKeys()).toEqual(["sb_secret_2", "service"]);
  });

  it("are none where nothing is set, and missing where one is needed", () => {
    const env = environment({ SUPABASE_SECRET_KEYS: " " });
    expect(env.secretKeys()).toEqual([]);
    expect(() => env.secretKey()).toThrow("SUPABASE_SECRET_KEYS is not set");
    expect(() => env.supabaseUrl()).toThrow("SUPABASE_URL is not set");
  });

  it.each(["sb_secret_x", "[]", '"sb_secret_x"'])("that are %s are refused unseen", (value) => {
    const env = environment({ SUPABASE_SECRET_KEYS: value });
    expect(() => env.secretKeys()).toThrow(
      /^SUPABASE_SECRET_KEYS is not a JSON object of keys by name$/,
    );
  });
});

describe("the webhook's secrets", () => {
  it("F6: come from a list, from a single variable, or both, trimmed and without blanks", () => {
    expect(
      environment({
        STRIPE_WEBHOOK_SECRETS: "whsec_1, whsec_2,\n",
        STRIPE_WEBHOOK_SECRET: "whsec_3\n",
      }).webhookSecrets(),
    ).toEqual(["whsec_1", "whsec_2", "whsec_3"]);
    expect(environment({ STRIPE_WEBHOOK_SECRET: " \n" }).webhookSecrets()).toEqual([]);
    expect(environment({}).webhookSecrets()).toEqual([]);
  });
});

describe("the Data API", () => {
  const call = { request: new Request("http://x"), requestId: "req-1", log: () => {} };

  it.each([
    ["a new secret key goes in apikey alone", keys.secret, undefined, null],
    [
      "a legacy service key is also the token",
      keys.legacyService,
      undefined,
      `Bearer ${keys.legacyService}`,
    ],
    [
      "a user's token stands beside a legacy anon key",
      keys.legacyAnon,
      keys.accessToken,
      `Bearer ${keys.accessToken}`,
    ],
  ])("%s", async (_what, key, accessToken, authorization) => {
    const dataApi = fakeDataApi({ f: 1 });
    const options = { url: "http://data-api.test/", key, accessToken, fetch: dataApi.fetch };
    await createDataApi(options, call).rpc("f", {});
    expect(dataApi.calls[0]?.headers.get("apikey")).toBe(key);
    expect(dataApi.calls[0]?.headers.get("authorization")).toBe(authorization);
  });

  it("gives rows as a list, whatever a function returns", async () => {
    const dataApi = fakeDataApi({ one: { a: 1 }, many: [{ a: 1 }, { a: 2 }], none: undefined });
    const options = { url: "http://data-api.test", key: keys.secret, fetch: dataApi.fetch };
    const api = createDataApi(options, call);
    expect(await api.rpc("one", {})).toEqual([{ a: 1 }]);
    expect(await api.rpc("many", {})).toEqual([{ a: 1 }, { a: 2 }]);
    expect(await api.rpc("none", {})).toEqual([]);
  });

  it("is asked once, also when a read fails in a way that may pass", async () => {
    const dataApi = fakeDataApi({ checkout_sessions: new Response("", { status: 503 }) });
    const options = { url: "http://data-api.test", key: keys.secret, fetch: dataApi.fetch };
    const read = createDataApi(options, call).find("checkout_sessions", "id", "x");
    await expect(read).rejects.toMatchObject({ status: 503, code: "UPSTREAM_UNAVAILABLE" });
    expect(dataApi.calls).toHaveLength(1);
  });
});

describe("a call to Stripe", () => {
  const request = {
    id: "command-1",
    idempotency_key: "key-1",
    method: "POST",
    path: "/v1/customers",
    params: {},
  };

  it("goes to the simulator where one is named", async () => {
    const stripe = fakeStripe(Response.json({ id: "cus_1" }));
    const options = { secretKey: keys.stripe, apiBase: "http://127.0.0.1:55325/", ...stripe };
    await createStripeCaller(options)(request, 1_000);
    expect(stripe.calls[0]?.url).toBe("http://127.0.0.1:55325/v1/customers");
  });

  it("D16: is answered without the characters that the database could not store", async () => {
    const names = ["A\0nn", "\ud83d nn", "Ann 😀", "back\\u0000slash"];
    const stripe = fakeStripe(Response.json({ data: names.map((name) => ({ name })) }));
    const options = { secretKey: keys.stripe, apiBase: "https://stripe.test", ...stripe };
    const { response } = await createStripeCaller(options)(request, 1_000);
    expect(response["data"]).toEqual(
      ["Ann", "\ufffd nn", "Ann 😀", "back\\u0000slash"].map((name) => ({ name })),
    );
  });

  it("ends after its time, without an answer", async () => {
    const never: typeof fetch = (_input, init) =>
      new Promise((_resolve, reject) =>
        init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)),
      );
    const options = { secretKey: keys.stripe, apiBase: "https://stripe.test", fetch: never };
    expect(await createStripeCaller(options)(request, 20)).toMatchObject({
      http_status: null,
      response: { error: { message: expect.stringContaining("timeout") as string } },
    });
  });

  it.each([409, 429, 500])("answered %i is made once: the database retries", async (status) => {
    const error = { type: "api_error", message: "try again" };
    const headers = { "stripe-should-retry": "true" };
    const stripe = fakeStripe(Response.json({ error }, { status, headers }));
    const options = { secretKey: keys.stripe, apiBase: "https://stripe.test", ...stripe };
    expect(await createStripeCaller(options)(request, 1_000)).toMatchObject({
      http_status: status,
      response: { error },
    });
    expect(stripe.calls).toHaveLength(1);
  });
});

describe("the log", () => {
  it("is one JSON line per event, with the request it belongs to", () => {
    const lines: string[] = [];
    createLog("checkout", "req-1", (line) => lines.push(line))("warn", "a\nb", { count: 1 });
    expect(lines).toHaveLength(1);
    expect(lines[0]).not.toContain("\n");
    expect(JSON.parse(lines[0] ?? "")).toEqual({
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string,
      level: "warn",
      function: "checkout",
      request_id: "req-1",
      message: "a\nb",
      context: { count: 1 },
    });
  });

  it("blanks keys and tokens, and nothing else", () => {
    expect(
      withoutSecrets(`a ${keys.stripe} b ${keys.secret} c whsec_x d ${keys.accessToken} e`),
    ).toBe("a [secret] b [secret] c [secret] d [secret] e");
    const harmless = "task_1 cs_test_a1 price_1 sub_1 sb_publishable_1 eyJ";
    expect(withoutSecrets(harmless)).toBe(harmless);
  });

  it("shows an error's name and message, never its stack", () => {
    expect(describeError(new TypeError("no"))).toEqual({ error: "TypeError", reason: "no" });
    expect(describeError("a thrown text")).toEqual({ error: "string" });
  });
});
