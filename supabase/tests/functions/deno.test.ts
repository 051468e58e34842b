// Both functions as they are deployed: index.ts under the hosted version of Deno, over HTTP.
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import Stripe from "stripe";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startFunctions, type Functions } from "../../../scripts/stack/functions.ts";
import { keys, read } from "./fakes.ts";

const webhookSecret = "whsec_smoke_test";
const checkout = { id: "checkout-1", status: "creating", url: null, failure: null };
const pageUrl = "https://stripe.test/pay";

let upstream: Server;
let functions: Functions;
let directory: string;
/** Everything the functions sent to the Data API and to Stripe, which one server stands in for. */
const received: { path: string; body: string; headers: IncomingMessage["headers"] }[] = [];

/** A checkout whose one command is due until it is completed. */
function answerTo(path: string): unknown {
  const wasSent = (to: string) => received.some((sent) => sent.path === to);
  switch (path.replace(/\?.*/, "")) {
    case "/rest/v1/rpc/ingest_stripe_event":
      return { event_id: "evt_1", status: "applied", duplicate: false };
    case "/rest/v1/rpc/report_rejected_webhook":
      return undefined;
    case "/rest/v1/rpc/prepare_checkout":
      return checkout;
    case "/rest/v1/rpc/claim_commands":
      return wasSent("/v1/checkout/sessions")
        ? []
        : [
            {
              id: "command-1",
              lease: "l",
              idempotency_key: "key-1",
              method: "POST",
              path: "/v1/checkout/sessions",
              params: {},
            },
          ];
    case "/v1/checkout/sessions":
      return { id: "cs_1", object: "checkout.session", url: pageUrl };
    case "/rest/v1/rpc/complete_command":
      return { status: "succeeded", retry_at: null };
    case "/rest/v1/checkout_sessions":
      return [{ ...checkout, status: "open", url: pageUrl, expires_at: null }];
    default:
      throw new Error(`nobody expected ${path}`);
  }
}

beforeAll(async () => {
  upstream = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += String(chunk);
    const path = request.url ?? "";
    const answer = answerTo(path);
    received.push({ path, body, headers: request.headers });
    response.writeHead(answer === undefined ? 204 : 200, { "content-type": "application/json" });
    response.end(answer === undefined ? undefined : JSON.stringify(answer));
  });
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
  directory = mkdtempSync(join(tmpdir(), "functions-"));
  functions = await startFunctions({
    apiUrl: url,
    keys: { publishable: keys.publishable, secret: keys.secret, jwtSecret: "not used here" },
    stripe: { apiKey: keys.stripe, apiBase: url, webhookSecret },
    directory,
  });
});

afterAll(async () => {
  await functions.stop();
  await new Promise((resolve) => upstream.close(resolve));
  rmSync(directory, { recursive: true });
});

async function post(name: string, path: string, body: string, headers: Record<string, string>) {
  received.length = 0;
  const url = `${functions.urls[name]}${path}`;
  return read(await fetch(url, { method: "POST", body, headers }));
}

describe("stripe-webhook under Deno", () => {
  const body = JSON.stringify({ id: "evt_1", object: "event", type: "invoice.paid", title: "Zoë" });

  it("stores a signed event", async () => {
    const signature = Stripe.webhooks.generateTestHeaderString({
      payload: body,
      secret: webhookSecret,
    });
    const headers = { "stripe-signature": signature, "x-request-id": "req-1" };
    const answer = await post("stripe-webhook", "/stripe-webhook", body, headers);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("x-request-id")).toBe("req-1");
    expect(answer.body.data).toEqual({ event_id: "evt_1", status: "applied", duplicate: false });
    expect(received.map(({ path }) => path)).toEqual(["/rest/v1/rpc/ingest_stripe_event"]);
    expect(JSON.parse(received[0]?.body ?? "")).toEqual({ payload: body });
    expect(received[0]?.headers).toMatchObject({ apikey: keys.secret, "x-request-id": "req-1" });
  });

  it("refuses a forged one", async () => {
    const signature = Stripe.webhooks.generateTestHeaderString({
      payload: body,
      secret: "whsec_x",
    });
    const headers = { "stripe-signature": signature };
    const answer = await post("stripe-webhook", "/stripe-webhook", body, headers);
    expect(answer.status).toBe(400);
    expect(answer.body.error?.code).toBe("SIGNATURE_INVALID");
    expect(received.map(({ path }) => path)).toEqual(["/rest/v1/rpc/report_rejected_webhook"]);
  });
});

describe("checkout under Deno", () => {
  it("opens a page at Stripe", async () => {
    const headers = { authorization: `Bearer ${keys.accessToken}` };
    const answer = await post("checkout", "/checkout", JSON.stringify({ price_key: "x" }), headers);
    expect(answer.status).toBe(200);
    expect(answer.body.data).toEqual({ checkout_id: "checkout-1", url: pageUrl, expires_at: null });
    const call = received.find(({ path }) => path === "/v1/checkout/sessions");
    expect(call?.headers).toMatchObject({
      "idempotency-key": "key-1",
      "stripe-version": "2026-10-28.endive",
      authorization: `Bearer ${keys.stripe}`,
    });
  });

  it("dispatches for the secret key and for nobody else", async () => {
    const path = "/functions/v1/checkout/dispatch";
    expect((await post("checkout", path, "", { apikey: keys.publishable })).status).toBe(401);
    expect(received).toEqual([]);
    const answer = await post("checkout", path, "", { apikey: keys.secret });
    expect(answer.body.data).toEqual({ claimed: 1, succeeded: 1, retrying: 0, failed: 0 });
  });

  it("answers a browser's preflight", async () => {
    const answer = await fetch(`${functions.urls["checkout"]}/checkout`, { method: "OPTIONS" });
    expect(answer.status).toBe(204);
    expect(answer.headers.get("access-control-allow-origin")).toBe("*");
  });
});

describe("the functions' logs", () => {
  it("hold no key and no body", () => {
    const logs = functions.logFiles.map((file) => readFileSync(file, "utf8")).join("\n");
    expect(logs).toContain('"message":"event stored"');
    for (const secret of [keys.secret, keys.stripe, keys.accessToken, webhookSecret, "Zoë"]) {
      expect(logs).not.toContain(secret);
    }
  });
});
