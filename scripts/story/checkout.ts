/** The first chapter with Stripe itself, whose clock and cards are not ours: a person pays on Stripe's page. */

import { randomUUID } from "node:crypto";
import { waitUntil } from "../lib/processes.ts";
import { note } from "../lib/terminal.ts";
import type { Stack } from "../stack/index.ts";
import { signUp } from "./reader.ts";
import { createTimeline } from "./timeline.ts";

const patienceMs = 10 * 60_000;

export async function playCheckout(stack: Stack): Promise<void> {
  const timeline = createTimeline();
  timeline.chapter("A reader subscribes at Stripe", new Date());
  const reader = await signUp(
    { apiUrl: stack.urls.api, key: stack.keys.publishable },
    `reader-${randomUUID().slice(0, 8)}@booktalks.example`,
  );
  timeline.saw("signed up through supabase-js", reader.email);

  const { url } = await reader.openCheckout("privileged_monthly");
  timeline.saw("the checkout function opened Stripe's page", url);
  note("Open it, pay with 4242 4242 4242 4242, any future date and any CVC …");
  await waitUntil("the payment", () => reader.hasFeature("premium_clubs"), patienceMs);
  timeline.saw("has_entitlement('premium_clubs')", "true");
  timeline.saw("row level security shows", (await reader.clubs()).join(", "));
}
