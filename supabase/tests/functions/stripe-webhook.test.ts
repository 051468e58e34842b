// The stripe-webhook function: what it accepts as Stripe's, what it hands on, what it answers.
import Stripe from "stripe";
import { describe, expect, it } from "vitest";
import { createDataApi } from "../../functions/_shared/data_api.ts";
import { createWebhookHandler, type WebhookDeps } from "../../functions/stripe-webhook/handler.ts";
import { collectLog, fakeDataApi, keys, raised, read } from "./fakes.ts";

const secret = "whsec_current";
const now = Date.parse("2026-11-20T12:00:00Z");
const seconds = now / 1000;
const stored = { event_id: "evt_1", status: "applied", duplicate: false };
const event = JSON.stringify({ id: "evt_1", object: "event", type: "invoice.paid", data: {} });
const thinEvent = JSON.stringify({ id: "evt_2", object: "v2.core.event", type: "v1.billing.x" });

function sign(payload: string, options: { secret?: string; timestamp?: number } = {}): string {
  const { timestamp = seconds } = options;
  return Stripe.webhooks.generateTestHeaderString({
    payload,
    timestamp,
    secret: options.secret ?? secret,
  });
}

const v1Of = (header: string) => header.split(",")[1] ?? "";

function delivery(body: BodyInit | null, headers: Record<string, string> = {}): Request {
  return new Request("http://local/functions/v1/stripe-webhook", {
    method: "POST",
    body,
    headers,
    // Node asks for this where a body is a stream.
    ...({ duplex: "half" } as object),
  });
}

const signed = (body: string, header = sign(body)) =>
  delivery(body, { "stripe-signature": header });

function webhook(
  answers: Parameters<typeof fakeDataApi>[0] = {},
  overrides: Partial<WebhookDeps> = {},
) {
  const log = collectLog();
  const dataApi = fakeDataApi({
    ingest_stripe_event: stored,
    report_rejected_webhook: undefined,
    ...answers,
  });
  const handler = createWebhookHandler({
    secrets: () => [secret],
    asService: (call) =>
      createDataApi({ url: "http://data-api.test", key: keys.secret, fetch: dataApi.fetch }, call),
    now: () => now,
    writeLog: log.writeLog,
    ...overrides,
  });
  return {
    log,
    dataApi,
    deliver: async (request: Request) => read(await handler(request)),
  };
}

/** Refused as not Stripe's: 400, counted once under its reason, nothing stored. */
async function expectRefused(
  request: Request,
  code: string,
  overrides: Partial<WebhookDeps> = {},
): Promise<void> {
  const { deliver, dataApi } = webhook({}, overrides);
  const answer = await deliver(request);
  expect(answer.status).toBe(400);
  expect(answer.body).toMatchObject({ success: false, error: { code } });
  expect(dataApi.calls.map(({ name, args }) => [name, args])).toEqual([
    ["report_rejected_webhook", { reason: code }],
  ]);
}

describe("an event signed by Stripe", () => {
  it("is handed to the database character for character, once", async () => {
    const body = '\ufeff{ "id":"evt_1",\n\t"object":"event", "name":"Zoë \\u0000 \u{1F4DA}" }\n';
    const { deliver, dataApi } = webhook();
    const answer = await deliver(signed(body));
    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({ success: true, data: stored });
    expect(dataApi.calls.map(({ name, args }) => [name, args])).toEqual([
      ["ingest_stripe_event", { payload: body }],
    ]);
  });

  it("goes to schema billing with the service key and no other", async () => {
    const { deliver, dataApi } = webhook();
    await deliver(signed(event));
    const [call] = dataApi.calls;
    expect(call?.headers.get("content-profile")).toBe("billing");
    expect(call?.headers.get("apikey")).toBe(keys.secret);
    expect(call?.headers.get("authorization")).toBeNull();
  });

  // Stripe does not follow redirects: one would be a failed delivery.
  it.each(["", "/", "?source=stripe"])("F14: is answered 200 at once, also at …%s", async (end) => {
    const { deliver } = webhook();
    const { url, headers } = signed(event);
    const request = new Request(url + end, { method: "POST", headers, body: event });
    expect((await deliver(request)).status).toBe(200);
  });

  it("is accepted when it is a thin event", async () => {
    const { deliver, dataApi } = webhook();
    expect((await deliver(signed(thinEvent))).status).toBe(200);
    expect(dataApi.calls[0]?.args).toEqual({ payload: thinEvent });
  });

  it("F5: is verified as it came: the same JSON written anew is refused", async () => {
    const header = sign(event);
    await expectRefused(
      signed(JSON.stringify(JSON.parse(event), null, 2), header),
      "SIGNATURE_INVALID",
    );
  });

  it("F7: passes with several v1 of which the last is right, and with either of two secrets", async () => {
    const old = sign(event, { secret: "whsec_old" });
    const both = `${old},${v1Of(sign(event))}`;
    expect((await webhook().deliver(signed(event, both))).status).toBe(200);

    const secrets = () => ["whsec_old", secret];
    expect((await webhook({}, { secrets }).deliver(signed(event))).status).toBe(200);
    expect((await webhook({}, { secrets }).deliver(signed(event, old))).status).toBe(200);
  });

  it("delivered twice is answered 200 both times, with what the database says", async () => {
    const { deliver } = webhook({
      ingest_stripe_event: (_args: unknown, nth: number) => ({ ...stored, duplicate: nth > 0 }),
    });
    expect((await deliver(signed(event))).body.data).toMatchObject({ duplicate: false });
    const second = await deliver(signed(event));
    expect(second.status).toBe(200);
    expect(second.body.data).toMatchObject({ duplicate: true });
  });

  it("F15: is answered 2xx although applying it failed: it is stored", async () => {
    const { deliver } = webhook({ ingest_stripe_event: { ...stored, status: "failed" } });
    expect((await deliver(signed(event))).status).toBe(200);
  });
});

describe("F6: a request without Stripe's signature", () => {
  it("is refused without the header", () => expectRefused(delivery(event), "SIGNATURE_MISSING"));

  it("is refused with another secret's signature", () =>
    expectRefused(signed(event, sign(event, { secret: "whsec_other" })), "SIGNATURE_INVALID"));

  it("is refused with a right signature in scheme v0 only", () =>
    expectRefused(signed(event, sign(event).replace("v1=", "v0=")), "SIGNATURE_INVALID"));

  it("is refused with an empty body", () =>
    expectRefused(delivery(null, { "stripe-signature": sign("") }), "SIGNATURE_INVALID"));

  it.each([
    ["no time", v1Of(sign(event))],
    ["no signature", `t=${seconds}`],
    ["a signature without a value", `t=${seconds},v1`],
    ["a time that is no number", sign(event).replace(/t=\d+/, "t=soon")],
    ["another time", sign(event).replace(/t=\d+/, `t=${seconds - 1}`)],
    ["noise", "\u00e9,,=,v1=,t="],
  ])("is refused with a header that has %s", (_what, header) =>
    expectRefused(signed(event, header), "SIGNATURE_INVALID"),
  );

  it("is answered 400 although it cannot be counted", async () => {
    const { deliver, dataApi, log } = webhook({
      report_rejected_webhook: new TypeError("connection refused"),
    });
    expect((await deliver(delivery(event))).status).toBe(400);
    expect(dataApi.calls).toHaveLength(1);
    expect(log.text()).toContain("rejection not counted");
  });
});

describe("F8: a signature's time", () => {
  it.each([300, -300])("may be %i seconds away", async (away) => {
    const header = sign(event, { timestamp: seconds - away });
    expect((await webhook().deliver(signed(event, header))).status).toBe(200);
  });

  it.each([
    ["301 seconds ago", seconds - 301],
    ["301 seconds ahead", seconds + 301],
    ["10 minutes ahead", seconds + 600],
  ])("is refused when it is %s", (_when, timestamp) =>
    expectRefused(signed(event, sign(event, { timestamp })), "SIGNATURE_EXPIRED"),
  );

  it("is new with each retry, which then passes", async () => {
    const { deliver } = webhook();
    const late = sign(event, { timestamp: seconds - 301 });
    expect((await deliver(signed(event, late))).status).toBe(400);
    expect((await deliver(signed(event))).status).toBe(200);
  });
});

describe("F10: a request that no database call is made for", () => {
  it.each(["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])("%s is answered 405", async (method) => {
    const { deliver, dataApi } = webhook();
    const answer = await deliver(new Request("http://local/stripe-webhook", { method }));
    expect(answer.status).toBe(405);
    expect(answer.headers.get("allow")).toBe("POST");
    expect(answer.body.error?.code).toBe("METHOD_NOT_ALLOWED");
    expect(dataApi.calls).toEqual([]);
  });

  it("a body of 5 MB is answered 413, by its stated length", async () => {
    const { deliver, dataApi } = webhook();
    const request = delivery("{}", {
      "stripe-signature": sign("{}"),
      "content-length": "5000000",
    });
    const answer = await deliver(request);
    expect(answer.status).toBe(413);
    expect(answer.body.error).toMatchObject({
      code: "PAYLOAD_TOO_LARGE",
      details: { limit_bytes: 1_048_576 },
    });
    expect(dataApi.calls).toEqual([]);
  });

  it("a body without a length is read no further than the limit", async () => {
    let sent = 0;
    let canceled = false;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        sent += 65_536;
        controller.enqueue(new Uint8Array(65_536));
      },
      cancel() {
        canceled = true;
      },
    });
    const { deliver, dataApi } = webhook();
    const answer = await deliver(delivery(endless, { "stripe-signature": sign("x") }));
    expect(answer.status).toBe(413);
    expect(canceled).toBe(true);
    expect(sent).toBeLessThan(2 * 1_048_576);
    expect(dataApi.calls).toEqual([]);
  });

  it("a body of exactly the limit is read", async () => {
    const body = "x".repeat(1_048_576);
    expect((await webhook().deliver(signed(body))).status).toBe(200);
    await expect(webhook().deliver(signed(`${body}x`))).resolves.toMatchObject({ status: 413 });
  });
});

describe("when the event cannot be stored", () => {
  it.each([
    ["the database is down", new TypeError("fetch failed"), 503, "UPSTREAM_UNAVAILABLE"],
    [
      "it does not answer in time",
      new DOMException("late", "TimeoutError"),
      503,
      "UPSTREAM_UNAVAILABLE",
    ],
    [
      "the gateway has no upstream",
      new Response("<html>", { status: 502 }),
      503,
      "UPSTREAM_UNAVAILABLE",
    ],
    ["the insert fails", Response.json({ code: "53100" }, { status: 500 }), 500, "INTERNAL_ERROR"],
    [
      "the key is refused",
      Response.json({ message: "no" }, { status: 401 }),
      500,
      "INTERNAL_ERROR",
    ],
    [
      "the function is missing",
      Response.json({ code: "PGRST202" }, { status: 404 }),
      500,
      "INTERNAL_ERROR",
    ],
    ["the database refuses", raised(409, "LEASE_LOST", "lost"), 500, "INTERNAL_ERROR"],
    ["nothing comes back", Response.json([]), 500, "INTERNAL_ERROR"],
  ])("F11: Stripe is asked to deliver again: %s", async (_why, failure, status, code) => {
    const { deliver, dataApi } = webhook({ ingest_stripe_event: failure });
    const answer = await deliver(signed(event));
    expect(answer.status).toBe(status);
    expect(answer.body.error?.code).toBe(code);
    expect(dataApi.calls).toHaveLength(1);
  });

  it("F11: an answer is not awaited for ever", async () => {
    const never: typeof fetch = (_input, init) =>
      new Promise((_resolve, reject) =>
        init?.signal?.addEventListener("abort", () => reject(init.signal?.reason)),
      );
    const call = { request: delivery(null), requestId: "r", log: () => {} };
    const dataApi = createDataApi({ url: "http://x", key: keys.secret, fetch: never }, call);
    await expect(dataApi.rpc("ingest_stripe_event", {}, 20)).rejects.toMatchObject({ status: 503 });
  });

  it("a body that is not an event is answered 400 with the database's reason", async () => {
    const problem = { problem: "id is missing" };
    const { deliver } = webhook({
      ingest_stripe_event: raised(
        400,
        "EVENT_INVALID",
        "the payload is not a stripe event",
        problem,
      ),
    });
    const answer = await deliver(signed("{}"));
    expect(answer.status).toBe(400);
    expect(answer.body.error).toEqual({
      code: "EVENT_INVALID",
      message: "the payload is not a stripe event",
      details: problem,
    });
  });
});

describe("whatever happens", () => {
  it("without any secret the answer is 500 and the log says why", async () => {
    const { deliver, dataApi, log } = webhook({}, { secrets: () => [] });
    const answer = await deliver(signed(event));
    expect(answer.status).toBe(500);
    expect(answer.body.error?.code).toBe("WEBHOOK_NOT_CONFIGURED");
    expect(log.entries()).toMatchObject([
      { level: "error", context: { code: "WEBHOOK_NOT_CONFIGURED" } },
    ]);
    expect(dataApi.calls).toEqual([]);
  });

  it("the request id goes to the database, into the log and back", async () => {
    const { deliver, dataApi, log } = webhook();
    const request = signed(event);
    request.headers.set("x-request-id", "req-7");
    expect((await deliver(request)).headers.get("x-request-id")).toBe("req-7");
    expect(dataApi.calls[0]?.headers.get("x-request-id")).toBe("req-7");
    expect(log.entries()[0]).toMatchObject({ request_id: "req-7", function: "stripe-webhook" });
  });

  it("a request id is made where none, or a strange one, was sent", async () => {
    const { deliver } = webhook();
    const request = signed(event);
    request.headers.set("x-request-id", "a b<script>");
    const uuid = /^[0-9a-f-]{36}$/;
    expect((await deliver(request)).headers.get("x-request-id")).toMatch(uuid);
    expect((await deliver(signed(event))).headers.get("x-request-id")).toMatch(uuid);
  });

  it("F13: an unexpected error is answered 500 without stack or secret, also in the log", async () => {
    const { deliver, log } = webhook(
      {},
      {
        secrets: () => {
          throw new Error(`cannot use ${secret} and ${keys.legacyService}`);
        },
      },
    );
    const answer = await deliver(signed(event));
    expect(answer.status).toBe(500);
    expect(answer.body.error).toEqual({
      code: "INTERNAL_ERROR",
      message: "something went wrong on our side",
      details: { request_id: answer.headers.get("x-request-id") },
    });
    expect(log.text()).toContain("cannot use [secret] and [secret]");
    for (const text of [answer.text, log.text()]) {
      expect(text).not.toContain(secret);
      expect(text).not.toContain(keys.legacyService);
      expect(text).not.toMatch(/\bat .*\.ts/);
    }
  });

  it("bodies are not logged", async () => {
    const { deliver, log } = webhook();
    const body = JSON.stringify({ id: "evt_1", email: "reader@example.com" });
    await deliver(signed(body));
    expect(log.text()).not.toContain("reader@example.com");
  });
});
