// The checkout function for users: opening a checkout page, opening the billing portal, who may, and how it fails.
import { describe, expect, it } from "vitest";
import {
  checkoutFunction,
  fakeClock,
  fakeDataApi,
  fakeStripe,
  keys,
  raised,
  read,
} from "./fakes.ts";

const url = "https://stripe.test/pay/cs_1";
const expires_at = "2026-11-21T12:00:00+00:00";
const creating = {
  id: "checkout-1",
  status: "creating",
  url: null,
  expires_at: null,
  failure: null,
};
const open = { ...creating, status: "open", url, expires_at };
const order = {
  price_key: "member_monthly",
  success_url: "https://app.test/thanks",
  cancel_url: "https://app.test/plans",
};

const createCustomer = {
  id: "command-1",
  lease: "lease-1",
  idempotency_key: "key-1",
  method: "POST",
  path: "/v1/customers",
  params: { email: "reader@example.com", metadata: { account_id: "a" } },
};
const createSession = {
  id: "command-2",
  lease: "lease-2",
  idempotency_key: "key-2",
  method: "POST",
  path: "/v1/checkout/sessions",
  params: {
    mode: "subscription",
    line_items: [{ price: "price_1", quantity: 2 }],
    subscription_data: { metadata: {}, trial_end: null },
    allow_promotion_codes: true,
  },
};
const succeeded = { status: "succeeded", retry_at: null };
const stripeError = (status: number, error: object, headers: Record<string, string> = {}) =>
  Response.json({ error }, { status, headers });

function post(path: string, body: unknown, headers: Record<string, string> = {}): Request {
  return new Request(`http://local${path}`, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    headers: { authorization: `Bearer ${keys.accessToken}`, ...headers },
  });
}

/** Answers claims with these commands, one by one, then with none. */
const queue = (...commands: object[]) => ({
  claim_commands: (_args: unknown, nth: number) => commands.slice(nth, nth + 1),
});

describe("POST /checkout", () => {
  it("asks the database as the user, makes its calls to Stripe in turn, and answers the page", async () => {
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(createCustomer, createSession),
      complete_command: succeeded,
      checkout_sessions: (_args: unknown, nth: number) => [nth === 0 ? creating : open],
    });
    const stripe = fakeStripe(
      Response.json({ id: "cus_1", object: "customer" }),
      Response.json({ id: "cs_1", object: "checkout.session", url }),
    );
    const { handler } = checkoutFunction({ dataApi, stripe });
    const answer = await read(await handler(post("/functions/v1/checkout", order)));

    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({
      success: true,
      data: { checkout_id: "checkout-1", url, expires_at },
    });
    expect(dataApi.calls.map(({ name, args }) => [name, args])).toEqual([
      ["prepare_checkout", order],
      ["claim_commands", { batch: 1, subject_id: "checkout-1" }],
      [
        "complete_command",
        {
          command_id: "command-1",
          lease: "lease-1",
          http_status: 200,
          response: { id: "cus_1", object: "customer" },
          retry_after_seconds: null,
          is_replay: false,
          stripe_date: null,
          elapsed_seconds: 0,
        },
      ],
      ["checkout_sessions", { select: "id,status,url,expires_at,failure", id: "eq.checkout-1" }],
      ["claim_commands", { batch: 1, subject_id: "checkout-1" }],
      [
        "complete_command",
        {
          command_id: "command-2",
          lease: "lease-2",
          http_status: 200,
          response: { id: "cs_1", object: "checkout.session", url },
          retry_after_seconds: null,
          is_replay: false,
          stripe_date: null,
          elapsed_seconds: 0,
        },
      ],
      ["checkout_sessions", { select: "id,status,url,expires_at,failure", id: "eq.checkout-1" }],
    ]);
  });

  it("sends Stripe the command's id as idempotency key, form-encoded, in the pinned version", async () => {
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(createSession),
      complete_command: succeeded,
      checkout_sessions: [open],
    });
    const stripe = fakeStripe(Response.json({ id: "cs_1" }));
    const { handler } = checkoutFunction({ dataApi, stripe });
    await handler(post("/checkout", order));
    expect(stripe.calls).toHaveLength(1);
    const [call] = stripe.calls;
    expect(call?.url).toBe("https://stripe.test/v1/checkout/sessions");
    expect(call?.form).toBe(
      "mode=subscription&line_items[0][price]=price_1&line_items[0][quantity]=2" +
        "&subscription_data[trial_end]=&allow_promotion_codes=true",
    );
    expect(call?.headers.get("idempotency-key")).toBe("key-2");
    expect(call?.headers.get("stripe-version")).toBe("2026-10-28.endive");
    expect(call?.headers.get("authorization")).toBe(`Bearer ${keys.stripe}`);
  });

  it("uses the user's token for what the user may, and the secret key for the outbox", async () => {
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(createSession),
      complete_command: succeeded,
      checkout_sessions: [open],
    });
    const { handler } = checkoutFunction({ dataApi, stripe: fakeStripe(Response.json({})) });
    await handler(post("/checkout", order, { "x-request-id": "req-9" }));
    const credentials = dataApi.calls.map(({ name, headers }) => [
      name,
      headers.get("apikey"),
      headers.get("authorization"),
      headers.get("x-request-id"),
    ]);
    const token = `Bearer ${keys.accessToken}`;
    expect(credentials).toEqual([
      ["prepare_checkout", keys.publishable, token, "req-9"],
      ["claim_commands", keys.secret, null, "req-9"],
      ["complete_command", keys.secret, null, "req-9"],
      ["checkout_sessions", keys.publishable, token, "req-9"],
    ]);
    expect(dataApi.named("checkout_sessions")[0]?.headers.get("accept-profile")).toBe("billing");
  });

  it("answers a page that is open already without asking Stripe", async () => {
    const dataApi = fakeDataApi({ prepare_checkout: open });
    const { handler } = checkoutFunction({ dataApi });
    const twice = [post("/checkout", order), post("/checkout/", order)];
    for (const request of twice) {
      const answer = await read(await handler(request));
      expect(answer.body.data).toEqual({ checkout_id: "checkout-1", url, expires_at });
    }
    expect(dataApi.calls.map(({ name }) => name)).toEqual(["prepare_checkout", "prepare_checkout"]);
  });

  it("waits for another worker that is opening the same page", async () => {
    const clock = fakeClock();
    const startedAt = clock.now();
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(),
      checkout_sessions: (_args: unknown, nth: number) => [nth < 3 ? creating : open],
    });
    const { handler } = checkoutFunction({ dataApi, clock });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.body.data).toMatchObject({ url });
    expect(clock.now() - startedAt).toBe(750);
  });

  it("goes on when its command was completed by another worker", async () => {
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(createSession),
      complete_command: raised(409, "LEASE_LOST", "the command is no longer leased to this worker"),
      checkout_sessions: [open],
    });
    const { handler } = checkoutFunction({ dataApi, stripe: fakeStripe(Response.json({})) });
    expect((await read(await handler(post("/checkout", order)))).status).toBe(200);
  });

  it("passes only the fields it knows; null and absence leave the defaults to the database", async () => {
    const dataApi = fakeDataApi({ find_discount: { subject_id: null }, prepare_checkout: open });
    const { handler } = checkoutFunction({ dataApi });
    const more = { quantity: 3, account_id: "a", discount_code: "SPRING" };
    await handler(post("/checkout", { ...order, ...more, amount: 1 }));
    await handler(post("/checkout", { quantity: null, status: "open" }));
    expect(dataApi.named("prepare_checkout").map(({ args }) => args)).toEqual([
      { ...order, ...more },
      { price_key: null, success_url: null, cancel_url: null },
    ]);
  });

  it("has Stripe asked for a code the database does not know, before the claim", async () => {
    const found = { object: "list", data: [{ id: "promo_1", object: "promotion_code" }] };
    const look = { ...createCustomer, id: "look", method: "GET", path: "/v1/promotion_codes" };
    const dataApi = fakeDataApi({
      find_discount: { subject_id: "look" },
      ...queue({ ...look, params: { code: "NEW", active: true } }),
      complete_command: succeeded,
      prepare_checkout: open,
    });
    const stripe = fakeStripe(Response.json(found));
    const { handler } = checkoutFunction({ dataApi, stripe });
    const wanted = { ...order, discount_code: "NEW", account_id: "account-1" };
    expect((await read(await handler(post("/checkout", wanted)))).status).toBe(200);

    expect(dataApi.calls.map(({ name }) => name)).toEqual([
      "find_discount",
      "claim_commands",
      "complete_command",
      "prepare_checkout",
    ]);
    expect(dataApi.calls[0]?.args).toEqual({ discount_code: "NEW", account_id: "account-1" });
    expect(dataApi.calls[2]?.args).toMatchObject({ command_id: "look", response: found });
    expect(dataApi.calls[3]?.args).toEqual(wanted);
    expect(stripe.calls.map(({ method, url: called }) => [method, called])).toEqual([
      ["GET", "https://stripe.test/v1/promotion_codes?code=NEW&active=true"],
    ]);
  });

  it("asks Stripe nothing when the database says there is nothing to ask", async () => {
    const dataApi = fakeDataApi({ find_discount: { subject_id: null }, prepare_checkout: open });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout", { ...order, discount_code: "X" })));
    expect(answer.status).toBe(200);
    expect(dataApi.calls.map(({ name }) => name)).toEqual(["find_discount", "prepare_checkout"]);
  });
});

describe("when Stripe does not open the page", () => {
  it("answers 502 with Stripe's reason once the database has given up", async () => {
    const failure = { code: "resource_missing", message: "No such price: 'price_1'" };
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(createSession),
      complete_command: { status: "dead", retry_at: null },
      checkout_sessions: [{ ...creating, status: "failed", failure }],
    });
    const error = { type: "invalid_request_error", param: "line_items", ...failure };
    const stripe = fakeStripe(stripeError(400, error, { "request-id": "req_stripe" }));
    const { handler, log } = checkoutFunction({ dataApi, stripe });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.status).toBe(502);
    expect(answer.body.error).toEqual({
      code: "STRIPE_REQUEST_FAILED",
      message: "stripe refused the request",
      details: {
        checkout_id: "checkout-1",
        status: "failed",
        stripe_code: failure.code,
        stripe_message: failure.message,
      },
    });
    expect(dataApi.named("complete_command")[0]?.args).toMatchObject({
      http_status: 400,
      response: { error },
    });
    expect(dataApi.named("complete_command")[0]?.args["response"]).toEqual({ error });
    expect(log.text()).toContain("req_stripe");
  });

  it.each([
    ["a number of seconds", "7", 7],
    ["a date", new Date(Date.now() + 60_000).toUTCString(), expect.any(Number)],
    ["nonsense", "soon", null],
  ])("tells the database when Stripe said %s in Retry-After", async (_what, header, seconds) => {
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(createSession),
      complete_command: { status: "pending", retry_at: "2026-11-20T12:00:07Z" },
      checkout_sessions: [open],
    });
    const error = { type: "invalid_request_error", code: "lock_timeout", message: "busy" };
    const stripe = fakeStripe(stripeError(429, error, { "retry-after": header }));
    const { handler } = checkoutFunction({ dataApi, stripe });
    await handler(post("/checkout", order));
    expect(stripe.calls).toHaveLength(1);
    expect(dataApi.named("complete_command")[0]?.args).toMatchObject({
      http_status: 429,
      response: { error },
      retry_after_seconds: seconds,
    });
  });

  it.each([
    ["the connection fails", new TypeError("fetch failed")],
    ["a proxy answers HTML", new Response("<html>", { status: 502 })],
  ])("reports no status when %s", async (_what, broken) => {
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(createSession),
      complete_command: { status: "pending", retry_at: null },
      checkout_sessions: [open],
    });
    const { handler } = checkoutFunction({ dataApi, stripe: fakeStripe(broken) });
    await handler(post("/checkout", order));
    expect(dataApi.named("complete_command")[0]?.args).toEqual({
      command_id: "command-2",
      lease: "lease-2",
      http_status: null,
      response: { error: { message: expect.any(String) as string } },
      retry_after_seconds: null,
      is_replay: false,
      stripe_date: null,
      elapsed_seconds: 0,
    });
  });

  it("answers 504 after 20 seconds, with when to try again", async () => {
    const clock = fakeClock();
    const startedAt = clock.now();
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(),
      checkout_sessions: [creating],
    });
    const { handler } = checkoutFunction({ dataApi, clock });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.status).toBe(504);
    expect(answer.headers.get("retry-after")).toBe("5");
    expect(answer.body.error).toMatchObject({
      code: "STRIPE_TIMEOUT",
      details: { checkout_id: "checkout-1", retry_after_seconds: 5 },
    });
    expect(clock.now() - startedAt).toBe(20_000);
  });

  it("gives one call no longer than the user waits, and a late one still a few seconds", async () => {
    const clock = fakeClock();
    const timeouts: number[] = [];
    const dataApi = fakeDataApi({
      prepare_checkout: creating,
      ...queue(createCustomer, createSession),
      complete_command: { status: "pending", retry_at: null },
      checkout_sessions: [creating],
    });
    const callStripe = async (_request: unknown, timeoutMs: number) => {
      timeouts.push(timeoutMs);
      clock.advance(19_000);
      return {
        http_status: null,
        response: {},
        retry_after_seconds: null,
        is_replay: false,
        stripe_date: null,
        stripe_request_id: null,
      };
    };
    const overrides = { stripe: () => callStripe };
    const { handler } = checkoutFunction({ dataApi, clock, overrides });
    expect((await handler(post("/checkout", order))).status).toBe(504);
    expect(timeouts).toEqual([20_000, 5_000]);
  });

  it("shows no key that Stripe repeats", async () => {
    const message = "Invalid API Key provided: sk_test_0123****6789";
    const dataApi = fakeDataApi({
      prepare_checkout: { ...creating, status: "failed", failure: { code: "unknown", message } },
    });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.body.error?.details).toMatchObject({
      stripe_message: "Invalid API Key provided: [secret]",
    });
  });

  it("claims nothing while there is no key for Stripe", async () => {
    const dataApi = fakeDataApi({});
    const stripe = () => {
      throw new Error("STRIPE_SECRET_KEY is not set");
    };
    const { handler, log } = checkoutFunction({ dataApi, overrides: { stripe } });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.status).toBe(500);
    expect(answer.text).not.toContain("STRIPE_SECRET_KEY");
    expect(log.text()).toContain("STRIPE_SECRET_KEY is not set");
    expect(dataApi.calls).toEqual([]);
  });
});

describe("POST /checkout/portal", () => {
  const createPortal = {
    id: "portal-1",
    lease: "lease-3",
    idempotency_key: "key-3",
    method: "POST",
    path: "/v1/billing_portal/sessions",
    params: { customer: "cus_1" },
  };
  const wish = {
    return_url: "https://app.test/account",
    flow: "payment_method_update",
    account_id: "a",
  };

  it("answers the address Stripe gave, after the commands that stand before it", async () => {
    const dataApi = fakeDataApi({
      prepare_portal: { subject_id: "portal-1" },
      ...queue(createCustomer, createPortal),
      complete_command: succeeded,
    });
    const stripe = fakeStripe(
      Response.json({ id: "cus_1", url: "https://stripe.test/not-the-portal" }),
      Response.json({ id: "bps_1", url: "https://stripe.test/portal" }),
    );
    const { handler } = checkoutFunction({ dataApi, stripe });
    const answer = await read(await handler(post("/functions/v1/checkout/portal", wish)));
    expect(answer.body).toEqual({ success: true, data: { url: "https://stripe.test/portal" } });
    expect(dataApi.calls.map(({ name }) => name)).toEqual([
      "prepare_portal",
      "claim_commands",
      "complete_command",
      "claim_commands",
      "complete_command",
    ]);
    expect(dataApi.calls[0]?.args).toEqual(wish);
    expect(dataApi.calls[1]?.args).toEqual({ batch: 1, subject_id: "portal-1" });
    expect(stripe.calls[1]?.headers.get("idempotency-key")).toBe("key-3");
  });

  it("is not in the log", async () => {
    const dataApi = fakeDataApi({
      prepare_portal: { subject_id: "portal-1" },
      ...queue(createPortal),
      complete_command: succeeded,
    });
    const stripe = fakeStripe(Response.json({ url: "https://stripe.test/portal/secret-session" }));
    const { handler, log } = checkoutFunction({ dataApi, stripe });
    await handler(post("/checkout/portal", wish));
    expect(log.text()).not.toContain("secret-session");
  });

  it("is tried again while the database says so", async () => {
    const dataApi = fakeDataApi({
      prepare_portal: { subject_id: "portal-1" },
      ...queue(createPortal, createPortal),
      complete_command: (_args: unknown, nth: number) =>
        nth === 0 ? { status: "pending", retry_at: null } : succeeded,
    });
    const stripe = fakeStripe(
      stripeError(429, { type: "rate_limit_error", message: "slow down" }),
      Response.json({ url: "https://stripe.test/portal" }),
    );
    const { handler } = checkoutFunction({ dataApi, stripe });
    expect((await handler(post("/checkout/portal", wish))).status).toBe(200);
  });

  it("is 502 with Stripe's reason once the database has given up", async () => {
    const dataApi = fakeDataApi({
      prepare_portal: { subject_id: "portal-1" },
      ...queue(createPortal),
      complete_command: { status: "dead", retry_at: null },
    });
    const message = "No configuration provided";
    const stripe = fakeStripe(stripeError(400, { type: "invalid_request_error", message }));
    const { handler } = checkoutFunction({ dataApi, stripe });
    const answer = await read(await handler(post("/checkout/portal", wish)));
    expect(answer.status).toBe(502);
    expect(answer.body.error?.details).toEqual({
      stripe_code: "invalid_request_error",
      stripe_message: message,
    });
  });

  it("is 504 when another worker took the command, for then the address is not here", async () => {
    const dataApi = fakeDataApi({ prepare_portal: { subject_id: "portal-1" }, ...queue() });
    const { handler } = checkoutFunction({ dataApi });
    expect((await handler(post("/checkout/portal", wish))).status).toBe(504);
  });
});

describe("who is asking", () => {
  it.each([
    ["nothing", undefined],
    ["another scheme", "Basic dXNlcjpwYXNz"],
    ["a publishable key", `Bearer ${keys.publishable}`],
    ["a secret key", `Bearer ${keys.secret}`],
    ["the legacy anon key, which is a JWT", `Bearer ${keys.legacyAnon}`],
    ["words", "Bearer a b.c.d"],
  ])("F3: %s in Authorization is 401 without asking the database", async (_what, authorization) => {
    const dataApi = fakeDataApi({});
    const { handler } = checkoutFunction({ dataApi });
    for (const path of ["/checkout", "/checkout/portal"]) {
      const request = post(path, order, { apikey: keys.publishable });
      if (authorization) request.headers.set("authorization", authorization);
      else request.headers.delete("authorization");
      const answer = await read(await handler(request));
      expect(answer.status).toBe(401);
      expect(answer.body.error?.code).toBe("UNAUTHENTICATED");
    }
    expect(dataApi.calls).toEqual([]);
  });

  it.each([
    ["expired", 401, { code: "PGRST303", message: "JWT expired" }, 401, "INVALID_TOKEN"],
    ["signed by another", 401, { code: "PGRST301", message: "x" }, 401, "INVALID_TOKEN"],
    ["refused by the gateway", 401, { message: "Invalid JWT" }, 401, "INVALID_TOKEN"],
    ["of no user", 403, { code: "42501", message: "x" }, 401, "UNAUTHENTICATED"],
  ])("a token that is %s is 401", async (_what, status, body, answered, code) => {
    const dataApi = fakeDataApi({ prepare_checkout: Response.json(body, { status }) });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.status).toBe(answered);
    expect(answer.body.error?.code).toBe(code);
  });

  it("a secret key that is refused is our fault, not the user's", async () => {
    const refused = Response.json({ message: "Invalid API key" }, { status: 401 });
    const dataApi = fakeDataApi({ prepare_checkout: creating, claim_commands: refused });
    const { handler } = checkoutFunction({ dataApi });
    expect((await read(await handler(post("/checkout", order)))).body.error?.code).toBe(
      "INTERNAL_ERROR",
    );
  });
});

describe("errors of the database", () => {
  it("pass through with status, code, sentence, values and hint", async () => {
    const dataApi = fakeDataApi({
      prepare_checkout: raised(
        409,
        "ALREADY_SUBSCRIBED",
        "the account already has a subscription",
        { subscription_id: "s" },
        "Change it instead.",
      ),
    });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.status).toBe(409);
    expect(answer.body).toEqual({
      success: false,
      error: {
        code: "ALREADY_SUBSCRIBED",
        message: "the account already has a subscription",
        details: { subscription_id: "s", hint: "Change it instead." },
      },
    });
  });

  it("an argument of the wrong type is the caller's", async () => {
    const message = 'invalid input syntax for type uuid: "x"';
    const dataApi = fakeDataApi({
      prepare_checkout: Response.json({ code: "22P02", message }, { status: 400 }),
    });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout", { ...order, account_id: "x" })));
    expect(answer.status).toBe(400);
    expect(answer.body.error).toMatchObject({
      code: "VALIDATION_FAILED",
      details: { problem: message },
    });
  });

  it("any other is 500, and its text stays in the log", async () => {
    const message = 'duplicate key value violates unique constraint "x"';
    const body = { code: "23505", message, details: "Key (email)=(reader@example.com)" };
    const dataApi = fakeDataApi({ prepare_checkout: Response.json(body, { status: 409 }) });
    const { handler, log } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.status).toBe(500);
    expect(answer.text).not.toContain("duplicate key");
    expect(log.text()).toContain("23505");
    expect(log.text()).not.toContain("reader@example.com");
  });
});

describe("F9: browsers", () => {
  const expectCors = (headers: Headers) => {
    expect(headers.get("access-control-allow-origin")).toBe("*");
    const allowed = headers.get("access-control-allow-headers")?.split(", ");
    expect(allowed).toEqual(
      expect.arrayContaining(["authorization", "apikey", "content-type", "x-client-info"]),
    );
    expect(headers.get("access-control-expose-headers")).toContain("x-request-id");
  };

  it.each(["/checkout", "/functions/v1/checkout/portal", "/checkout/dispatch"])(
    "get a preflight of %s answered",
    async (path) => {
      const { handler } = checkoutFunction({ dataApi: fakeDataApi({}) });
      const answer = await handler(new Request(`http://local${path}`, { method: "OPTIONS" }));
      expect(answer.status).toBe(204);
      expectCors(answer.headers);
    },
  );

  it.each([
    [200, post("/checkout", order), { prepare_checkout: open }],
    [400, post("/checkout", "no JSON"), {}],
    [401, new Request("http://local/checkout", { method: "POST" }), {}],
    [404, post("/checkout/nowhere", {}), {}],
    [405, new Request("http://local/checkout"), {}],
    [413, post("/checkout", "x".repeat(70_000)), {}],
    [500, post("/checkout", order), { prepare_checkout: [] }],
    [503, post("/checkout", order), { prepare_checkout: new TypeError("down") }],
  ])("may read an answer with status %i", async (status, request, answers) => {
    const { handler } = checkoutFunction({ dataApi: fakeDataApi(answers) });
    const answer = await read(await handler(request));
    expect(answer.status).toBe(status);
    expect(answer.body.success).toBe(status === 200);
    expectCors(answer.headers);
  });

  it("F13: may read the answer to an error before everything else", async () => {
    const publishableKeys = () => {
      throw new Error(`bad keys: ${keys.secret}`);
    };
    const { handler, log } = checkoutFunction({
      dataApi: fakeDataApi({}),
      overrides: { publishableKeys },
    });
    const answer = await read(await handler(post("/checkout", order)));
    expect(answer.status).toBe(500);
    expect(answer.body.error).toMatchObject({ code: "INTERNAL_ERROR" });
    expectCors(answer.headers);
    expect(log.text()).toContain("bad keys: [secret]");
    expect(log.text()).not.toContain(keys.secret);
  });
});

describe("requests that are none", () => {
  it.each(["[]", "null", '"text"', "", "{"])("a body that is %j is refused", async (body) => {
    const dataApi = fakeDataApi({});
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout", body)));
    expect(answer.body.error).toMatchObject({
      code: "VALIDATION_FAILED",
      details: { field: "body", problem: "must be a JSON object" },
    });
    expect(dataApi.calls).toEqual([]);
  });

  it.each(["/", "/checkout2", "/checkout/portal/x", "/other/checkout", "/functions/v1"])(
    "%s is no route",
    async (path) => {
      const { handler } = checkoutFunction({ dataApi: fakeDataApi({}) });
      const answer = await read(await handler(post(path, order)));
      expect(answer.status).toBe(404);
      expect(answer.body.error?.code).toBe("ROUTE_NOT_FOUND");
    },
  );

  it("another method is 405 and says which is allowed", async () => {
    const { handler } = checkoutFunction({ dataApi: fakeDataApi({}) });
    const answer = await handler(new Request("http://local/checkout/portal"));
    expect(answer.status).toBe(405);
    expect(answer.headers.get("allow")).toBe("POST");
  });
});
