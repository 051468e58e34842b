// The checkout function's route preview-change: Stripe's amounts, told in the words of the database.
import { describe, expect, it } from "vitest";
import { checkoutFunction, fakeDataApi, fakeStripe, keys, read } from "./fakes.ts";

const prepared = {
  subject_id: "preview-1",
  provider: "stripe",
  price_key: "plus_yearly",
  quantity: 1,
  at_period_end: false,
  effective_at: "2026-01-25T12:00:00+00:00",
  proration_date: "2026-01-25T12:00:00+00:00",
  currency: "usd",
  lines: null,
  total_minor: null,
  due_now_minor: null,
  credit_minor: null,
};
const createPreview = {
  id: "preview-1",
  lease: "lease-1",
  method: "POST",
  path: "/v1/invoices/create_preview",
  params: { subscription: "sub_1" },
};
const { subject_id: _subject, ...promised } = prepared;

const line = (amount: number, parent: object | null) => ({
  object: "line_item",
  description: `about ${amount}`,
  amount,
  quantity: 1,
  period: { start: 1_769_342_400, end: 1_770_681_600 },
  parent,
});
const invoice = (overrides: object) => ({
  object: "invoice",
  currency: "usd",
  total: 9_500,
  amount_due: 9_500,
  total_taxes: [{ amount: 300 }, { amount: 20 }],
  lines: {
    object: "list",
    data: [
      line(-500, { subscription_item_details: { proration: true } }),
      line(10_000, { subscription_item_details: { proration: false } }),
      line(0, { invoice_item_details: { proration: true }, subscription_item_details: null }),
      line(0, null),
    ],
  },
  ...overrides,
});

function post(body: unknown): Request {
  return new Request("http://local/functions/v1/checkout/preview-change", {
    method: "POST",
    body: JSON.stringify(body),
    headers: { authorization: `Bearer ${keys.accessToken}` },
  });
}

const waiting = (preview: object, status = "succeeded") =>
  fakeDataApi({
    preview_change: preview,
    claim_commands: (_args: unknown, nth: number) => (nth === 0 ? [createPreview] : []),
    complete_command: { status, retry_at: null },
  });

describe("POST /checkout/preview-change", () => {
  it("answers the amounts Stripe would charge, and as of which second", async () => {
    const dataApi = waiting(prepared);
    const stripe = fakeStripe(Response.json(invoice({})));
    const { handler } = checkoutFunction({ dataApi, stripe });
    const wish = { price_key: "plus_yearly", at_period_end: false, quantity: 1, account_id: "a" };
    const answer = await read(await handler(post({ ...wish, subscription: "sub_of_others" })));

    expect(answer.status).toBe(200);
    expect(dataApi.named("preview_change")[0]?.args).toEqual(wish);
    const told = {
      quantity: 1,
      period_start: "2026-01-25T12:00:00.000Z",
      period_end: "2026-02-10T00:00:00.000Z",
    };
    expect(answer.body.data).toEqual({
      ...promised,
      lines: [
        { ...told, description: "about -500", amount_minor: -500, is_proration: true },
        { ...told, description: "about 10000", amount_minor: 10_000, is_proration: false },
        { ...told, description: "about 0", amount_minor: 0, is_proration: true },
        { ...told, description: "about 0", amount_minor: 0, is_proration: false },
      ],
      tax_minor: 320,
      total_minor: 9_500,
      due_now_minor: 9_500,
      credit_minor: 0,
    });
  });

  it("G11: what is given back is credit, and nothing is due", async () => {
    const stripe = fakeStripe(Response.json(invoice({ total: -250, amount_due: 0 })));
    const { handler } = checkoutFunction({ dataApi: waiting(prepared), stripe });
    const answer = await read(await handler(post({})));
    expect(answer.body.data).toMatchObject({
      total_minor: -250,
      due_now_minor: 0,
      credit_minor: 250,
    });
  });

  it("of a change for later nothing is due now", async () => {
    const stripe = fakeStripe(Response.json(invoice({ total: 500, amount_due: 500 })));
    const dataApi = waiting({ ...prepared, at_period_end: true });
    const { handler } = checkoutFunction({ dataApi, stripe });
    const answer = await read(await handler(post({})));
    expect(answer.body.data).toMatchObject({ total_minor: 500, due_now_minor: 0, credit_minor: 0 });
  });

  it("an invoice without lists is told as far as it goes", async () => {
    const bare = { object: "invoice", total: 5, amount_due: 5, lines: null, total_taxes: null };
    const stripe = fakeStripe(Response.json(bare));
    const { handler } = checkoutFunction({ dataApi: waiting(prepared), stripe });
    const answer = await read(await handler(post({})));
    expect(answer.body.data).toMatchObject({ lines: [], tax_minor: 0, total_minor: 5 });
  });

  it("what the database knows by itself is answered at once", async () => {
    const own = { ...prepared, subject_id: null, lines: [], total_minor: 0 };
    const dataApi = fakeDataApi({ preview_change: own });
    const { handler } = checkoutFunction({ dataApi });
    const answer = await read(await handler(post({ price_key: "basic_monthly" })));
    expect(answer.body.data).toEqual({ ...promised, lines: [], total_minor: 0 });
    expect(dataApi.calls).toHaveLength(1);
  });

  it("is 502 with Stripe's reason where Stripe has none", async () => {
    const error = { type: "invalid_request_error", code: "invoice_upcoming_none", message: "None" };
    const stripe = fakeStripe(Response.json({ error }, { status: 404 }));
    const { handler } = checkoutFunction({ dataApi: waiting(prepared, "dead"), stripe });
    const answer = await read(await handler(post({})));
    expect(answer.status).toBe(502);
    expect(answer.body.error).toMatchObject({
      code: "STRIPE_REQUEST_FAILED",
      details: { stripe_code: "invoice_upcoming_none" },
    });
  });
});
