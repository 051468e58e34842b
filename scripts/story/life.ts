/** One subscriber's life on the running stack: every line is a fact that was checked the moment it is told. */

import { randomUUID } from "node:crypto";
import { waitUntil } from "../lib/processes.ts";
import { note } from "../lib/terminal.ts";
import { withClient } from "../stack/database.ts";
import type { Stack } from "../stack/index.ts";
import type { StripeSimulator } from "../stripe-simulator/index.ts";
import { connect, expectData, signUp, type Reader } from "./reader.ts";
import { createTimeline, expect, formatMoment, type Timeline } from "./timeline.ts";

const premiumClub = "An Evening with the Author";
const hour = 3_600;
const day = 24 * hour;

export interface Life {
  stack: Stack;
  simulator: StripeSimulator;
  reader: Reader;
  timeline: Timeline;
}

export async function playLife(stack: Stack, simulator: StripeSimulator): Promise<Reader> {
  const timeline = createTimeline();
  timeline.chapter("A reader signs up", await moment(stack));
  const reader = await signUp(
    { apiUrl: stack.urls.api, key: stack.keys.publishable },
    `reader-${randomUUID().slice(0, 8)}@booktalks.example`,
  );
  timeline.saw("signed up through supabase-js", reader.email);

  const life = { stack, simulator, reader, timeline };
  await choosePlan(life);
  await subscribe(life);
  await upgrade(life);
  await renew(life);
  await failAndRecover(life);
  await refund(life);
  await failToPay(life);
  await loseAccess(life);
  await catchUp(life);
  await lookBack(life);
  return reader;
}

async function choosePlan({ reader, timeline }: Life): Promise<void> {
  const plans = await reader.plans();
  const privileged = plans.find(({ price_key }) => price_key === "privileged_monthly");
  expect(privileged !== undefined, "the price privileged_monthly on offer", plans);
  timeline.saw(
    "plans are listed",
    `${plans.length} offers; ${privileged.plan_name} for ${money(privileged.unit_amount_minor, privileged.currency)} a month`,
  );

  const clubs = await reader.clubs();
  expect(!clubs.includes(premiumClub), "the premium club hidden", clubs);
  timeline.saw("row level security shows the open clubs only", clubs.join(", "));
}

async function subscribe({ stack, simulator, reader, timeline }: Life): Promise<void> {
  timeline.chapter("Subscribes and pays", await moment(stack));
  const { url } = await reader.openCheckout("privileged_monthly");
  timeline.saw("the checkout function opened Stripe's page", url);
  const again = await reader.openCheckout("privileged_monthly");
  expect(again.url === url, "the same page for a second click", again.url);
  timeline.saw("a second click opens the same page, not a second one");

  const outcome = await simulator.pay(sessionOf(url), { card: "4242" });
  expect(outcome.complete, "a paid checkout", outcome);
  const accepted = simulator.delivery.attempts().filter(({ ok }) => ok).length;
  timeline.saw("paid; Stripe's signed webhooks were accepted", `${accepted} events`);

  const subscription = await reader.subscription();
  expect(subscription.status === "active", "an active subscription", subscription);
  timeline.saw("my_subscription()", `${subscription.plan_name}, ${subscription.status}`);
  expect(await reader.hasFeature("premium_clubs"), "the feature", false);
  timeline.saw("has_entitlement('premium_clubs')", "true");
  const clubs = await reader.clubs();
  expect(clubs.includes(premiumClub), "the premium club visible", clubs);
  timeline.saw("row level security now shows the premium club", premiumClub);
}

async function upgrade({ stack, simulator, reader, timeline }: Life): Promise<void> {
  const started = await reader.subscription();
  await stack.clock.advanceTo(seconds(started.current_period_end) - 15 * day);
  timeline.chapter("Upgrades half-way through the month", await moment(stack));

  const preview = await reader.previewChange("privileged_plus_monthly");
  const due = money(preview.due_now_minor, preview.currency);
  expect(due === "$5.00", "half of the difference of $10.00", preview);
  timeline.saw("checkout/preview-change: Stripe's own amounts, to the second", `${due} now`);

  const changed = await reader.changePlan("privileged_plus_monthly", preview.proration_date);
  expect(changed.plan_name === "Privileged Plus", "the higher plan", changed);
  timeline.saw("checkout/change-plan", changed.plan_name);
  await simulator.delivery.idle();
  const { paid } = await lastPayment(reader);
  expect(paid === due, "a payment of just that", paid);
  timeline.saw("charged just that", paid);
  timeline.saw("the profile is in step already", `tier ${await reader.membershipTier()}`);
}

async function renew({ stack, reader, timeline }: Life): Promise<void> {
  const before = await reader.subscription();
  await stack.clock.advanceTo(seconds(before.current_period_end) + 2 * hour);
  timeline.chapter("A month later: renewed", await moment(stack));

  const after = await reader.subscription();
  expect(
    after.status === "active" &&
      seconds(after.current_period_end) > seconds(before.current_period_end),
    "a renewed subscription",
    after,
  );
  timeline.saw("paid through to", formatTime(after.current_period_end));
  expect(await reader.hasFeature("premium_clubs"), "the feature", false);
  timeline.saw("has_entitlement('premium_clubs')", "true");
}

async function failAndRecover({ stack, simulator, reader, timeline }: Life): Promise<void> {
  const before = await reader.subscription();
  simulator.failNextPayments(1, "insufficient_funds");
  await stack.clock.advanceTo(seconds(before.current_period_end) + 2 * hour);
  timeline.chapter("The card fails once, and the reader pays", await moment(stack));

  const owing = await reader.subscription();
  expect(owing.status === "past_due", "a subscription that is past due", owing);
  expect(owing.open_invoice_url !== null, "an invoice to pay", owing);
  timeline.saw("my_subscription()", `past_due; to pay: ${owing.open_invoice_url}`);

  await fetch(owing.open_invoice_url, {
    method: "POST",
    body: new URLSearchParams({ card: "4242424242424242" }),
  });
  const after = await reader.subscription();
  expect(after.status === "active", "an active subscription", after);
  expect(await reader.hasFeature("premium_clubs"), "the feature", false);
  timeline.saw("paid with another card; access is as it was", "active");
}

async function refund({ stack, simulator, reader, timeline }: Life): Promise<void> {
  await stack.clock.advanceTo((await stack.clock.now()) + 2 * day);
  timeline.chapter("A complaint, and some money back", await moment(stack));

  const { id } = await lastPayment(reader);
  const admin = connect({ apiUrl: stack.urls.api, key: stack.keys.secret }).schema("billing_admin");
  const asked = { payment_id: id, amount_minor: 500, reason: "a complaint", reference: "ticket 7" };
  expectData("the refund", await admin.rpc("refund_payment", asked));
  await stack.doorbell.now();
  await simulator.delivery.idle();
  const { refunded } = await lastPayment(reader);
  expect(refunded === "$5.00", "a refund of $5.00", refunded);
  timeline.saw("refund_payment() by an administrator; the reader's payment says so", refunded);
  expect(await reader.hasFeature("premium_clubs"), "the feature", false);
  timeline.saw("the plan's policy for partial refunds keeps access", "true");
}

async function failToPay({ stack, simulator, reader, timeline }: Life): Promise<void> {
  const before = await reader.subscription();
  simulator.failNextPayments(4, "insufficient_funds");
  await stack.clock.advanceTo(seconds(before.current_period_end) + 2 * hour);
  timeline.chapter("Another month: the card fails", await moment(stack));

  const after = await reader.subscription();
  expect(after.status === "past_due", "a subscription that is past due", after);
  timeline.saw("my_subscription()", `past_due since ${formatTime(after.past_due_since)}`);
  expect(await reader.hasFeature("premium_clubs"), "grace", false);
  timeline.saw("the plan's grace keeps access, until", formatTime(after.access_until));
}

async function loseAccess({ stack, reader, timeline }: Life): Promise<void> {
  const { access_until } = await reader.subscription();
  const end = seconds(access_until);
  await stack.clock.advanceTo(end - 60);
  timeline.chapter("The grace runs out", await moment(stack));
  expect(await reader.hasFeature("premium_clubs"), "access in the last minute", false);
  timeline.saw("a minute before the end", "true");

  // Between two of the scheduler's minutes, so that it is the clock alone that ends access.
  await waitUntil("a moment between two scheduled runs", async () => betweenMinutes(), 60_000);
  await stack.clock.advanceTo(end);
  const [has, clubs, tier] = await Promise.all([
    reader.hasFeature("premium_clubs"),
    reader.clubs(),
    reader.membershipTier(),
  ]);
  expect(!has, "no access at the end", has);
  timeline.saw("at the end, before any job has run", "false");
  expect(!clubs.includes(premiumClub), "the premium club hidden", clubs);
  timeline.saw("row level security hides the premium club again");
  expect(tier === "privileged_plus", "a profile that no job has touched", tier);
  timeline.saw("the stored profile has not been touched yet", `tier ${tier}`);
}

async function catchUp({ stack, reader, timeline }: Life): Promise<void> {
  if (stack.database.hasCron) {
    note("Waiting for pg_cron's next minute …");
  } else {
    await stack.heartbeat.now();
  }
  await waitUntil(
    "the scheduled job",
    async () => (await reader.membershipTier().catch(() => null)) === null,
    90_000,
  );
  timeline.chapter("The scheduled job comes by", await moment(stack));
  timeline.saw("the profile is in step", "no tier");
}

async function lookBack({ stack, reader, timeline }: Life): Promise<void> {
  timeline.chapter("What an administrator sees", await moment(stack));
  const admin = connect({ apiUrl: stack.urls.api, key: stack.keys.secret }).schema("billing_admin");

  const [problem] = expectData(
    "problem accounts",
    await admin.from("problem_accounts").select("*").eq("account_id", reader.accountId),
  );
  expect(problem?.problem === "past_due", "the account among the problems", problem);
  timeline.saw(
    "problem_accounts",
    `${problem.problem}, owes ${money(problem.amount_minor, problem.currency)}`,
  );

  const runs = expectData(
    "task runs",
    await admin
      .from("task_runs")
      .select("*")
      .eq("task_key", "expire_subscriptions")
      .gt("rows_affected", 0)
      .limit(1),
  );
  expect(runs.length === 1, "the run that brought the state in step", runs);
  timeline.saw("task_runs", `expire_subscriptions changed ${runs[0]?.rows_affected} account`);

  const trail = expectData(
    "audit",
    await admin.rpc("audit_of_account", { account_id: reader.accountId }),
  );
  const causes = new Set(trail.map(({ cause }) => (cause as { kind?: string }).kind ?? "user"));
  expect(causes.has("stripe_event") && causes.has("task"), "every cause in the audit", [...causes]);
  timeline.saw(
    "audit_of_account()",
    `${trail.length} changes, caused by ${[...causes].join(", ")}`,
  );

  const explained = await withClient(stack.database.url, async (client) => {
    const { rows } = await client.query<{ reason: string; gives_access: boolean }>(
      "select reason, gives_access from billing.explain_entitlement('premium_clubs', $1)",
      [reader.accountId],
    );
    return rows[0];
  });
  expect(explained?.gives_access === false, "an explanation", explained);
  timeline.saw("explain_entitlement()", `no access: ${explained.reason}`);
}

/** What the reader's application shows of the newest payment. */
async function lastPayment(reader: Reader) {
  const payment = await reader.lastPayment();
  expect(payment !== undefined, "a payment", payment);
  const show = (minor: number) => money(minor, payment.currency);
  return {
    id: payment.id,
    paid: show(payment.amount_received_minor),
    refunded: show(payment.amount_refunded_minor),
  };
}

export async function moment(stack: Stack): Promise<Date> {
  return new Date((await stack.clock.now()) * 1_000);
}

/** The checkout session's id is the last part of its page's address. */
export function sessionOf(url: string): string {
  return new URL(url).pathname.split("/").at(-1) ?? "";
}

function seconds(time: string | null): number {
  expect(time !== null, "a time", time);
  return Math.floor(Date.parse(time) / 1_000);
}

function formatTime(time: string | null): string {
  return time === null ? "never" : formatMoment(new Date(time));
}

function money(minor: number | null, currency: string | null): string {
  const format = new Intl.NumberFormat("en", { style: "currency", currency: currency ?? "usd" });
  const { maximumFractionDigits = 2 } = format.resolvedOptions();
  return format.format((minor ?? 0) / 10 ** maximumFractionDigits);
}

function betweenMinutes(): boolean {
  const second = new Date().getSeconds();
  return second >= 4 && second <= 50;
}
