// The webhook endpoint at Stripe: made once, pinned to our version, kept in step with what is handled.
import Stripe from "stripe";
import { describe, expect, it } from "vitest";
import { apiVersion, ensureEndpoint, snapshotEvents } from "../../../scripts/stripe/endpoint.ts";

const url = "https://project.example/functions/v1/stripe-webhook";

/** A Stripe that has these endpoints; what it is asked is kept. */
function stripeWith(endpoints: Partial<Stripe.WebhookEndpoint>[]) {
  const asked: { method: string; path: string; body: URLSearchParams }[] = [];
  const answer = async (input: string | URL | Request, init?: RequestInit) => {
    const { pathname } = new URL(String(input));
    const method = init?.method ?? "GET";
    asked.push({ method, path: pathname, body: new URLSearchParams(String(init?.body ?? "")) });
    await Promise.resolve();
    if (method === "GET")
      return Response.json({ object: "list", data: endpoints, has_more: false });
    return Response.json({ id: "we_new", object: "webhook_endpoint", secret: "whsec_new" });
  };
  const stripe = new Stripe("sk_test_x", { httpClient: Stripe.createFetchHttpClient(answer) });
  return { stripe, asked };
}

describe("the webhook endpoint", () => {
  it("is made with the version pinned and the events named, and shows its secret", async () => {
    const { stripe, asked } = stripeWith([]);
    const endpoint = await ensureEndpoint(stripe, url, ["invoice.paid", "price.created"]);
    expect(endpoint).toEqual({ id: "we_new", secret: "whsec_new", events: 2 });
    const { method, path, body } = asked.at(-1) ?? { body: new URLSearchParams() };
    expect([method, path]).toEqual(["POST", "/v1/webhook_endpoints"]);
    expect(Object.fromEntries(body)).toEqual({
      url,
      "enabled_events[0]": "invoice.paid",
      "enabled_events[1]": "price.created",
      api_version: apiVersion,
      description: "pg-subscriptions",
    });
  });

  it("is brought up to date when it is there, under its old secret", async () => {
    const there = { id: "we_1", url, status: "enabled", api_version: apiVersion };
    const { stripe, asked } = stripeWith([{ ...there, url: `${url}/other` }, there]);
    const endpoint = await ensureEndpoint(stripe, url, ["invoice.paid"]);
    expect(endpoint).toEqual({ id: "we_1", secret: null, events: 1 });
    expect(asked.at(-1)).toMatchObject({ method: "POST", path: "/v1/webhook_endpoints/we_1" });
    expect(asked.at(-1)?.body.get("enabled_events[0]")).toBe("invoice.paid");
  });

  it.each(["2024-06-20", null])("is refused when it has API version %s", async (version) => {
    const there = { id: "we_1", url, status: "enabled", api_version: version };
    const { stripe, asked } = stripeWith([there]);
    await expect(ensureEndpoint(stripe, url, ["invoice.paid"])).rejects.toThrow(apiVersion);
    expect(asked.map(({ method }) => method)).toEqual(["GET"]);
  });

  it("does not count one that was disabled", async () => {
    const there = { id: "we_1", url, status: "disabled", api_version: "2024-06-20" };
    const { stripe } = stripeWith([there]);
    expect((await ensureEndpoint(stripe, url, [])).id).toBe("we_new");
  });

  it("is not asked for thin events, which go to a destination of their own", () => {
    expect(snapshotEvents(["v1.billing.meter.no_meter_found", "price.created", "a.b"])).toEqual([
      "a.b",
      "price.created",
    ]);
  });
});
