// The dispatch route of the checkout function: who may ring it, and how it works the outbox off.
import { describe, expect, it } from "vitest";
import type { StripeAnswer } from "../../functions/checkout/stripe.ts";
import { checkoutFunction, fakeClock, fakeDataApi, fakeStripe, keys, read } from "./fakes.ts";

const command = (id: string) => ({
  id,
  lease: `lease-${id}`,
  idempotency_key: `key-${id}`,
  method: "POST",
  path: `/v1/subscriptions/sub_${id}`,
  params: { cancel_at_period_end: true, pause_collection: null },
});

function ring(headers: Record<string, string> = { apikey: keys.secret }, body?: string): Request {
  const url = "http://local/functions/v1/checkout/dispatch";
  return new Request(url, { method: "POST", headers, ...(body !== undefined && { body }) });
}

describe("F2: the dispatch route", () => {
  it.each([
    ["no key", {}],
    ["a publishable key", { apikey: keys.publishable }],
    ["a user's token", { apikey: keys.publishable, authorization: `Bearer ${keys.accessToken}` }],
    ["a part of the secret key", { apikey: keys.secret.slice(0, -1) }],
    ["an empty key", { apikey: "", authorization: "Bearer " }],
    ["the key under another scheme", { authorization: `Basic ${keys.secret}` }],
  ])("is closed to %s", async (_what, headers) => {
    const dataApi = fakeDataApi({});
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(ring(headers as Record<string, string>)));
    expect(answer.status).toBe(401);
    expect(answer.body.error?.code).toBe("UNAUTHENTICATED");
    expect(dataApi.calls).toEqual([]);
  });

  it.each([
    ["the secret key", { apikey: keys.secret }],
    ["another of the secret keys", { apikey: keys.otherSecret }],
    ["a secret key as bearer", { authorization: `Bearer ${keys.secret}` }],
  ])("is open to %s", async (_what, headers) => {
    const dataApi = fakeDataApi({ claim_commands: [] });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(ring(headers as Record<string, string>)));
    expect(answer.body.data).toEqual({ claimed: 0, succeeded: 0, retrying: 0, failed: 0 });
  });

  it("is open to nobody when no secret key is configured", async () => {
    const { handler } = checkoutFunction({
      dataApi: fakeDataApi({}),
      overrides: { secretKeys: () => [] },
    });
    expect((await handler(ring({ apikey: "", authorization: "Bearer x" }))).status).toBe(401);
  });
});

describe("working the outbox off", () => {
  it("claims until nothing is due and counts what became of each command", async () => {
    const rounds = [[command("1"), command("2")], [command("3"), command("4")], []];
    const outcomes: Record<string, string> = {
      "1": "succeeded",
      "2": "pending",
      "3": "dead",
      "4": "succeeded",
    };
    const dataApi = fakeDataApi({
      claim_commands: (_args: unknown, nth: number) => rounds[nth],
      complete_command: ({ command_id }: Record<string, unknown>) => ({
        status: outcomes[String(command_id)],
        retry_at: null,
      }),
    });
    const stripe = fakeStripe(Response.json({ id: "sub" }));
    const { handler } = checkoutFunction({ dataApi, stripe });
    const answer = await read(await handler(ring()));
    expect(answer.body.data).toEqual({ claimed: 4, succeeded: 2, retrying: 1, failed: 1 });
    expect(dataApi.named("claim_commands").map(({ args }) => args)).toEqual(
      Array(3).fill({ batch: 8 }),
    );
    expect(stripe.calls.map(({ form }) => form)).toEqual(
      Array(4).fill("cancel_at_period_end=true&pause_collection="),
    );
  });

  it("twice at once makes each call once: what one holds the other does not get", async () => {
    const due = [command("1"), command("2"), command("3")];
    const dataApi = fakeDataApi({
      claim_commands: () => due.splice(0, 2),
      complete_command: { status: "succeeded", retry_at: null },
    });
    const stripe = fakeStripe(Response.json({ id: "sub" }));
    const { handler } = checkoutFunction({ dataApi, stripe });
    const answers = await Promise.all(
      [handler(ring()), handler(ring())].map(async (r) => read(await r)),
    );
    const claimed = answers.map(({ body }) => Number(body.data?.["claimed"]));
    expect(claimed.reduce((sum, count) => sum + count)).toBe(3);
    expect(stripe.calls.map(({ headers }) => headers.get("idempotency-key")).sort()).toEqual([
      "key-1",
      "key-2",
      "key-3",
    ]);
  });

  it("a command made again goes out under the same idempotency key", async () => {
    const dataApi = fakeDataApi({
      claim_commands: (_args: unknown, nth: number) => (nth < 2 ? [command("1")] : []),
      complete_command: (_args: unknown, nth: number) =>
        nth === 0 ? new TypeError("fetch failed") : { status: "succeeded", retry_at: null },
    });
    const stripe = fakeStripe(Response.json({ id: "sub" }));
    const { handler, log } = checkoutFunction({ dataApi, stripe });
    const answer = await read(await handler(ring()));
    expect(answer.body.data).toEqual({ claimed: 2, succeeded: 1, retrying: 1, failed: 0 });
    expect(stripe.calls.map(({ headers }) => headers.get("idempotency-key"))).toEqual([
      "key-1",
      "key-1",
    ]);
    expect(log.text()).toContain("command not completed");
  });

  it("gives each call 20 seconds and starts no round after 100", async () => {
    const clock = fakeClock();
    const timeouts: number[] = [];
    const dataApi = fakeDataApi({
      claim_commands: (_args: unknown, nth: number) => [command(String(nth))],
      complete_command: { status: "pending", retry_at: null },
    });
    const callStripe = async (_request: unknown, timeoutMs: number): Promise<StripeAnswer> => {
      timeouts.push(timeoutMs);
      clock.advance(timeoutMs);
      return {
        http_status: null,
        response: {},
        retry_after_seconds: null,
        is_replay: false,
        stripe_date: null,
        stripe_request_id: null,
      };
    };
    const { handler } = checkoutFunction({
      dataApi,
      clock,
      overrides: { stripe: () => callStripe },
    });
    const answer = await read(await handler(ring()));
    expect(answer.body.data).toMatchObject({ claimed: 5, retrying: 5 });
    expect(timeouts).toEqual(Array(5).fill(20_000));
  });

  it("reads without parameters in the body, as Stripe's GET and DELETE want it", async () => {
    const dataApi = fakeDataApi({
      claim_commands: (_args: unknown, nth: number) =>
        nth === 0 ? [{ ...command("1"), method: "DELETE", params: {} }] : [],
      complete_command: { status: "succeeded", retry_at: null },
    });
    const stripe = fakeStripe(Response.json({ id: "sub", status: "canceled" }));
    const { handler } = checkoutFunction({ dataApi, stripe });
    await handler(ring());
    expect(stripe.calls).toMatchObject([{ method: "DELETE", form: "" }]);
  });
});

describe("a ring that does not wait", () => {
  const oneCommand = () =>
    fakeDataApi({
      claim_commands: (_args: unknown, nth: number) => (nth === 0 ? [command("1")] : []),
      complete_command: { status: "succeeded", retry_at: null },
    });
  const done = { claimed: 1, succeeded: 1, retrying: 0, failed: 0 };

  function withHost(dataApi: ReturnType<typeof oneCommand>) {
    const kept: Promise<unknown>[] = [];
    const stripe = fakeStripe(Response.json({ id: "sub" }));
    const overrides = { keepAlive: (work: Promise<unknown>) => void kept.push(work) };
    return { kept, stripe, ...checkoutFunction({ dataApi, stripe, overrides }) };
  }

  it("is answered before the work is done, which the host is asked to wait for", async () => {
    const { kept, stripe, handler, log } = withHost(oneCommand());
    const answer = await read(await handler(ring(undefined, '{"wait": false}')));
    expect(answer).toMatchObject({ status: 200, body: { data: { started: true } } });
    expect(kept).toHaveLength(1);
    await kept[0];
    expect(stripe.calls).toHaveLength(1);
    expect(log.entries()).toContainEqual(
      expect.objectContaining({ message: "commands dispatched", context: done }),
    );
  });

  it("is answered well, and the log tells, when the database is down", async () => {
    const dataApi = fakeDataApi({ claim_commands: new TypeError("fetch failed") });
    const { kept, handler, log } = withHost(dataApi);
    const answer = await read(await handler(ring(undefined, '{"wait": false}')));
    expect(answer.status).toBe(200);
    await expect(kept[0]).resolves.toBeUndefined();
    expect(log.entries()).toContainEqual(expect.objectContaining({ message: "dispatch failed" }));
  });

  it("is kept waiting where the host could not wait for the work", async () => {
    const stripe = fakeStripe(Response.json({ id: "sub" }));
    const { handler } = checkoutFunction({ dataApi: oneCommand(), stripe });
    const answer = await read(await handler(ring(undefined, '{"wait": false}')));
    expect(answer.body.data).toEqual(done);
  });

  it.each([["{}"], [""], ["null"], ["wait=false"], ['{"wait": true}'], ['{"wait": "false"}']])(
    "is not what %j says",
    async (body) => {
      const { kept, handler } = withHost(oneCommand());
      const answer = await read(await handler(ring(undefined, body)));
      expect(answer.body.data).toEqual(done);
      expect(kept).toEqual([]);
    },
  );

  it("is refused before anything is begun when its key is wrong", async () => {
    const { kept, stripe, handler } = withHost(oneCommand());
    const answer = await read(await handler(ring({ apikey: "x" }, '{"wait": false}')));
    expect(answer.status).toBe(401);
    expect([...kept, ...stripe.calls]).toEqual([]);
  });
});

describe("what Stripe is sent and what the database is told", () => {
  /** Carries one command and tells the request Stripe got and the answer the database got. */
  async function carry(commandOf: Record<string, unknown>, answer: Response | Error) {
    const dataApi = fakeDataApi({
      claim_commands: (_args: unknown, nth: number) =>
        nth === 0 ? [{ ...command("1"), ...commandOf }] : [],
      complete_command: { status: "pending", retry_at: null },
    });
    const stripe = fakeStripe(answer);
    const { handler } = checkoutFunction({ dataApi, stripe });
    await handler(ring());
    const [call] = stripe.calls;
    const [completion] = dataApi.named("complete_command");
    if (!call || !completion) throw new Error("nothing was carried");
    return { call, told: completion.args };
  }
  const gone = {
    error: { type: "invalid_request_error", code: "resource_missing", message: "No" },
  };

  it("a POST is a form, under the pinned version, the key of the account and that of the call", async () => {
    const params = {
      items: [{ id: "si_1", price: "price_2", quantity: 3 }],
      metadata: { note: "a&b=c ü", empty: "" },
      pause_collection: null,
      proration_behavior: "always_invoice",
    };
    const { call } = await carry({ params }, Response.json({ id: "sub_1" }));
    expect(call.method).toBe("POST");
    expect(call.url).toBe("https://stripe.test/v1/subscriptions/sub_1");
    expect(Object.fromEntries(call.headers)).toMatchObject({
      authorization: `Bearer ${keys.stripe}`,
      "content-type": "application/x-www-form-urlencoded",
      "idempotency-key": "key-1",
      "stripe-version": "2026-10-28.endive",
    });
    expect(Object.fromEntries(new URLSearchParams(call.form))).toEqual({
      "items[0][id]": "si_1",
      "items[0][price]": "price_2",
      "items[0][quantity]": "3",
      "metadata[note]": "a&b=c ü",
      "metadata[empty]": "",
      pause_collection: "",
      proration_behavior: "always_invoice",
    });
  });

  it.each(["GET", "DELETE"])("a %s has its parameters in the address", async (method) => {
    const params = {
      expand: ["tiers", "product"],
      "created[gte]": 1767225600,
      limit: 100,
      email: "a+b@example.com",
      nested: { yes: true },
    };
    const { call } = await carry({ method, path: "/v1/prices", params }, Response.json({}));
    expect(call.method).toBe(method);
    expect(call.form).toBe("");
    const { pathname, searchParams } = new URL(call.url);
    expect(pathname).toBe("/v1/prices");
    expect(Object.fromEntries(searchParams)).toEqual({
      "expand[0]": "tiers",
      "expand[1]": "product",
      "created[gte]": "1767225600",
      limit: "100",
      email: "a+b@example.com",
      "nested[yes]": "true",
    });
  });

  it("an answer is told with Stripe's own time", async () => {
    const date = "Sat, 10 Jan 2026 08:00:00 GMT";
    const { told } = await carry({}, Response.json({ id: "sub_1" }, { headers: { date } }));
    expect(told).toEqual({
      command_id: "1",
      lease: "lease-1",
      http_status: 200,
      response: { id: "sub_1" },
      retry_after_seconds: null,
      stripe_date: date,
      elapsed_seconds: 0,
      is_replay: false,
    });
  });

  it("a server error that Stripe repeats for its key is told as such", async () => {
    const headers = { "idempotent-replayed": "true" };
    const error = { type: "api_error", message: "An error occurred" };
    const { told } = await carry({}, Response.json({ error }, { status: 500, headers }));
    expect(told).toMatchObject({ http_status: 500, response: { error }, is_replay: true });
  });

  it.each([
    ["H7: a lock time-out", 429, { code: "lock_timeout", type: "invalid_request_error" }],
    ["H6: a rate limit", 429, { code: "rate_limit", type: "invalid_request_error" }],
    ["a key in use", 409, { code: "idempotency_key_in_use", type: "idempotency_error" }],
    ["B9: a key used for something else", 400, { type: "idempotency_error" }],
    ["a declined card", 402, { code: "card_declined", type: "card_error" }],
  ])("%s is told with Stripe's code, and never tried twice here", async (_what, status, error) => {
    const headers = { "retry-after": "7" };
    const { told } = await carry({}, Response.json({ error }, { status, headers }));
    expect(told).toMatchObject({
      http_status: status,
      response: { error },
      retry_after_seconds: 7,
    });
  });

  it("E3: what does not exist is told by its code", async () => {
    const { told } = await carry({}, Response.json(gone, { status: 404 }));
    expect(told).toMatchObject({ http_status: 404, response: gone, is_replay: false });
  });

  it("B10: no answer is told as none", async () => {
    const { told } = await carry({}, new TypeError("connection reset"));
    expect(told).toMatchObject({ http_status: null, stripe_date: null, is_replay: false });
  });
});
