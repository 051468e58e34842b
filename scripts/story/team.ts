/** A team on the running stack: one subscription for several people, and a limit they share. */

import { randomUUID } from "node:crypto";
import type { Stack } from "../stack/index.ts";
import type { StripeSimulator } from "../stripe-simulator/index.ts";
import { bookClubs, type Refusal } from "./book_clubs.ts";
import { moment, sessionOf } from "./life.ts";
import { expectData, signUp, type Reader } from "./reader.ts";
import { createTimeline, expect } from "./timeline.ts";

export async function playTeam(stack: Stack, simulator: StripeSimulator): Promise<void> {
  const timeline = createTimeline();
  timeline.chapter("Two readers become a team", await moment(stack));
  const [founder, colleague] = [await readerOf(stack), await readerOf(stack)];
  const team = expectData(
    "create organization",
    await founder.client.rpc("create_organization", { name: "The Reading Circle" }),
  );
  const { token } = expectData(
    "invite",
    await founder.client.rpc("invite_member", { account_id: team.id, email: colleague.email }),
  );
  expect(token !== null, "a token for the invitation's mail", token);
  expectData("accept", await colleague.client.rpc("accept_invitation", { token }));
  timeline.saw("invited by a token that works once; a member now", colleague.email);

  // Of the failures of an earlier chapter some may be left.
  simulator.failNextPayments(0);
  const { url } = await founder.openCheckout("reading_circle_monthly", team.id);
  const outcome = await simulator.pay(sessionOf(url), { card: "4242" });
  expect(outcome.complete, "a paid checkout", outcome);
  const [subscription] = expectData(
    "subscription",
    await founder.client.rpc("my_subscription", { account_id: team.id }),
  );
  expect(subscription?.quantity === 2, "a seat for each of two members", subscription);
  timeline.saw("subscribed; seats follow the members", `${subscription.quantity} seats`);

  const [founders, colleagues] = [bookClubs(founder.client), bookClubs(colleague.client)];
  const seen = await colleagues.names();
  expect(seen.includes("An Evening with the Author"), "the premium club", seen);
  timeline.saw("what the team pays for, its members see", "An Evening with the Author");

  timeline.chapter("The team founds clubs until its limit", await moment(stack));
  const [first, second, third] = ["Monday", "Friday", "Sunday"].map(
    (day) => `${day} Circle ${team.id.slice(0, 4)}`,
  ) as [string, string, string];
  expectFounded(await founders.found(first, team.id));
  expectFounded(await colleagues.found(second, team.id));
  timeline.saw("two clubs founded, by whoever came first", `${first}, ${second}`);

  const refusal = await founders.found(third, team.id);
  const { code, used, allowed } = JSON.parse(refusal?.details ?? "{}") as Record<string, unknown>;
  expect(code === "LIMIT_REACHED", "the third club refused", refusal);
  timeline.saw("the table itself refuses the third", `${code}: ${used} of ${allowed}`);

  const [reason] = expectData(
    "explain",
    await founder.client.rpc("explain_entitlement", {
      feature: "club_hosting",
      account_id: team.id,
    }),
  );
  expect(reason?.limit_value === 2, "the limit's source", reason);
  timeline.saw(
    "explain_entitlement('club_hosting')",
    `${reason.reason}, from ${reason.plan_key}, limit ${reason.limit_value}`,
  );

  await colleagues.close(second);
  expectFounded(await founders.found(third, team.id));
  timeline.saw("a club that is closed makes room for another", third);
}

function readerOf(stack: Stack): Promise<Reader> {
  return signUp(
    { apiUrl: stack.urls.api, key: stack.keys.publishable },
    `reader-${randomUUID().slice(0, 8)}@booktalks.example`,
  );
}

function expectFounded(refusal: Refusal | null): void {
  expect(refusal === null, "a club founded", refusal);
}
