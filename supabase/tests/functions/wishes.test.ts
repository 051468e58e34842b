// The checkout function's routes that change a subscription: what is asked, how long the user waits, and how it fails.
import { describe, expect, it } from "vitest";
import { checkoutFunction, fakeClock, fakeDataApi, fakeStripe, keys, read } from "./fakes.ts";

const running = {
  id: "subscription-1",
  account_id: "account-1",
  status: "active",
  price_key: "plus_monthly",
  pending_command: null,
  refusal: null,
};
const asked = { ...running, pending_command: "change_plan" };
const changed = { ...running, price_key: "plus_yearly" };
const updateSubscription = {
  id: "command-1",
  idempotency_key: "command-1",
  lease: "lease-1",
  method: "POST",
  path: "/v1/subscriptions/sub_1",
  params: { items: [{ id: "si_1", price: "price_plus_yearly", quantity: 1 }] },
};
const succeeded = { status: "succeeded", retry_at: null };
const dead = { status: "dead", retry_at: null };

function post(path: string, body: unknown): Request {
  return new Request(`http://local${path}`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { authorization: `Bearer ${keys.accessToken}` },
  });
}

/** Answers claims with these commands, one by one, then with none. */
const queue = (...commands: object[]) => ({
  claim_commands: (_args: unknown, nth: number) => commands.slice(nth, nth + 1),
});

describe("a change of the subscription", () => {
  it("is asked of the database as the user, then of Stripe, and answers the subscription", async () => {
    const dataApi = fakeDataApi({
      change_plan: [asked],
      ...queue(updateSubscription),
      complete_command: succeeded,
      my_subscription: [changed],
    });
    const stripe = fakeStripe(Response.json({ id: "sub_1", object: "subscription" }));
    const { handler } = checkoutFunction({ dataApi, stripe });
    const answer = await read(
      await handler(post("/functions/v1/checkout/change-plan", { price_key: "plus_yearly" })),
    );

    expect(answer.status).toBe(200);
    expect(answer.body).toEqual({ success: true, data: changed });
    expect(
      dataApi.calls.map(({ name, args, headers }) => [name, args, headers.get("apikey")]),
    ).toEqual([
      ["change_plan", { price_key: "plus_yearly" }, keys.publishable],
      ["claim_commands", { batch: 1, subject_id: "subscription-1" }, keys.secret],
      ["complete_command", expect.objectContaining({ command_id: "command-1" }), keys.secret],
      ["my_subscription", { account_id: "account-1" }, keys.publishable],
    ]);
    expect(stripe.calls[0]?.headers.get("idempotency-key")).toBe("command-1");
  });

  it("that needs no call to Stripe is answered at once", async () => {
    const dataApi = fakeDataApi({ cancel_subscription: [running] });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout/cancel", {})));
    expect(answer.body.data).toEqual(running);
    expect(dataApi.calls.map(({ name }) => name)).toEqual(["cancel_subscription"]);
  });

  it("is waited for through all of its steps", async () => {
    const scheduled = { ...running, pending_command: "update_schedule" };
    const dataApi = fakeDataApi({
      change_plan: [{ ...running, pending_command: "create_schedule" }],
      ...queue(updateSubscription, { ...updateSubscription, id: "command-2" }),
      complete_command: succeeded,
      my_subscription: (_args: unknown, nth: number) => [nth === 0 ? scheduled : changed],
    });
    const stripe = fakeStripe(Response.json({ id: "sub_sched_1" }));
    const { handler } = checkoutFunction({ dataApi, stripe });
    const answer = await read(await handler(post("/checkout/change-plan", {})));
    expect(answer.body.data).toEqual(changed);
    expect(stripe.calls).toHaveLength(2);
  });

  it("that another worker is making is watched", async () => {
    const clock = fakeClock();
    const startedAt = clock.now();
    const dataApi = fakeDataApi({
      change_plan: [asked],
      ...queue(),
      my_subscription: (_args: unknown, nth: number) => [nth < 2 ? asked : changed],
    });
    const { handler } = checkoutFunction({ dataApi, clock });
    expect((await read(await handler(post("/checkout/change-plan", {})))).body.data).toEqual(
      changed,
    );
    expect(clock.now() - startedAt).toBe(500);
  });
});

describe("what is passed on", () => {
  it.each([
    [
      "/checkout/change-plan",
      "change_plan",
      { price_key: "a", at_period_end: false, quantity: 3, proration_date: "2026-01-15T08:00:00Z" },
      { price_key: null },
    ],
    ["/checkout/cancel", "cancel_subscription", { at_period_end: false, reason: "too dear" }, {}],
    ["/checkout/undo-cancel", "undo_cancel", {}, {}],
    [
      "/checkout/pause",
      "pause_subscription",
      { behavior: "void", resumes_at: "2026-03-01T00:00:00Z", at_period_end: false },
      {},
    ],
    ["/checkout/resume", "resume_subscription", {}, {}],
  ])("%s takes its own fields and the account, and no others", async (path, rpc, fields, empty) => {
    const dataApi = fakeDataApi({ [rpc]: [running] });
    const { handler } = checkoutFunction({ dataApi });
    await handler(post(path, { ...fields, account_id: "a", subscription_id: "sub_of_others" }));
    await handler(post(path, { at_period_end: null, account_id: null }));
    expect(dataApi.calls.map(({ args }) => args)).toEqual([{ ...fields, account_id: "a" }, empty]);
  });

  it("nothing is, without a user's token", async () => {
    const dataApi = fakeDataApi({});
    const { handler } = checkoutFunction({ dataApi });
    for (const path of [
      "/checkout/change-plan",
      "/checkout/cancel",
      "/checkout/undo-cancel",
      "/checkout/pause",
      "/checkout/resume",
    ]) {
      const request = new Request(`http://local${path}`, { method: "POST", body: "{}" });
      expect((await handler(request)).status).toBe(401);
    }
    expect(dataApi.calls).toEqual([]);
  });
});

describe("when Stripe does not make the change", () => {
  const refusing = (refusal: object) =>
    fakeDataApi({
      change_plan: [asked],
      ...queue(updateSubscription),
      complete_command: dead,
      my_subscription: [{ ...running, refusal }],
    });
  const decline = Response.json(
    { error: { type: "card_error", code: "card_declined", message: "Declined." } },
    { status: 402 },
  );

  it("a declined payment is 402, with the reason as the database tells it", async () => {
    const told = {
      command: "change_plan",
      stripe_code: "card_declined",
      decline_code: "insufficient_funds",
      stripe_message: "Your card has insufficient funds.",
    };
    const dataApi = refusing({ code: "PAYMENT_DECLINED", ...told });
    const { handler } = checkoutFunction({ dataApi, stripe: fakeStripe(decline) });
    const answer = await read(await handler(post("/checkout/change-plan", {})));
    expect(answer.status).toBe(402);
    expect(answer.body).toEqual({
      success: false,
      error: {
        code: "PAYMENT_DECLINED",
        message: "the payment was declined",
        details: { subscription_id: "subscription-1", ...told },
      },
    });
  });

  it.each(["STRIPE_REQUEST_FAILED", "SOMETHING_NEWER", "toString", null])(
    "any other refusal is 502 (%s)",
    async (code) => {
      const dataApi = refusing({ code, stripe_code: "resource_missing" });
      const { handler } = checkoutFunction({ dataApi, stripe: fakeStripe(decline) });
      const answer = await read(await handler(post("/checkout/change-plan", {})));
      expect(answer.status).toBe(502);
      expect(answer.body.error?.code).toBe("STRIPE_REQUEST_FAILED");
      expect(answer.body.error?.details["stripe_code"]).toBe("resource_missing");
      expect(answer.text).not.toContain("    at ");
    },
  );

  it.each([
    ["shortly after", 3, "https://stripe.test/invoice"],
    ["not at all", 99, null],
  ])(
    "a change that waits for its invoice waits for it when it comes %s",
    async (_when, at, url) => {
      const unpaid = (open_invoice_url: string | null) => [
        { ...running, refusal: { code: "PAYMENT_REQUIRED", open_invoice_url } },
      ];
      const clock = fakeClock();
      const startedAt = clock.now();
      const dataApi = fakeDataApi({
        change_plan: [asked],
        ...queue(updateSubscription),
        complete_command: succeeded,
        my_subscription: (_args: unknown, nth: number) =>
          unpaid(nth >= at ? "https://stripe.test/invoice" : null),
      });
      const stripe = fakeStripe(Response.json({ id: "sub_1" }));
      const { handler } = checkoutFunction({ dataApi, stripe, clock });
      const answer = await read(await handler(post("/checkout/change-plan", {})));
      expect(answer.status).toBe(402);
      expect(answer.body.error).toMatchObject({
        code: "PAYMENT_REQUIRED",
        details: { subscription_id: "subscription-1", open_invoice_url: url },
      });
      expect(clock.now() - startedAt).toBeLessThanOrEqual(2_000);
    },
  );

  it("an old refusal is not taken for the answer to a wish that asked nothing", async () => {
    const refused = { ...running, refusal: { code: "PAYMENT_DECLINED" } };
    const dataApi = fakeDataApi({ undo_cancel: [refused] });
    const { handler } = checkoutFunction({ dataApi });
    expect((await handler(post("/checkout/undo-cancel", {}))).status).toBe(200);
  });

  it("a slow Stripe is 504 after 20 seconds, with what is still being asked", async () => {
    const dataApi = fakeDataApi({ change_plan: [asked], ...queue(), my_subscription: [asked] });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post("/checkout/change-plan", {})));
    expect(answer.status).toBe(504);
    expect(answer.headers.get("retry-after")).toBe("5");
    expect(answer.body.error).toMatchObject({
      code: "STRIPE_TIMEOUT",
      details: { subscription_id: "subscription-1", pending_command: "change_plan" },
    });
  });
});
