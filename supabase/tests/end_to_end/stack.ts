import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../../scripts/lib/ports.ts";
import { startStack, type Stack } from "../../../scripts/stack/index.ts";
import { connect, type Client } from "../../../scripts/story/reader.ts";
import type { StripeSimulator } from "../../../scripts/stripe-simulator/index.ts";

export interface TestStack extends Stack {
  simulator: StripeSimulator;
  /** A client with no user, as a visitor's browser has it. */
  visitor(): Client;
  /** A client with the secret key. */
  service(): Client;
  /** A client of a user who has just signed up. */
  user(name: string): Promise<{ client: Client; id: string }>;
}

/** The whole stack on free ports, with time standing still between advances, and no job unless asked for. */
export async function startTestStack(): Promise<TestStack> {
  const directory = mkdtempSync(join(tmpdir(), "pg-subscriptions-e2e-"));
  const stack = await startStack({
    directory,
    ports: {
      api: await freePort(),
      database: await freePort(),
      lite: await freePort(),
      stripe: await freePort(),
    },
    fresh: true,
    quick: true,
    simulator: { flows: false },
    heartbeatMs: null,
    doorbellMs: null,
    signals: false,
    verbose: false,
  });
  if (!stack.simulator) throw new Error("The stack came up without the Stripe simulator.");

  const api = { apiUrl: stack.urls.api };
  const visitor = () => connect({ ...api, key: stack.keys.publishable });
  return {
    ...stack,
    simulator: stack.simulator,
    visitor,
    service: () => connect({ ...api, key: stack.keys.secret }),
    user: async (name) => {
      const client = visitor();
      const { data, error } = await client.auth.signUp({
        email: `${name}@example.com`,
        password: "a long enough password",
      });
      if (error || !data.user) throw new Error(`${name} could not sign up: ${error?.message}`);
      return { client, id: data.user.id };
    },
    stop: async () => {
      await stack.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** Opens a checkout through the function, for a team if one is named, and pays it as its customer would. */
export async function subscribe(
  stack: TestStack,
  client: Client,
  priceKey: string,
  card = "4242",
  teamId?: string,
): Promise<void> {
  const answer = await client.functions.invoke<{ data: { url: string } }>("checkout", {
    body: {
      price_key: priceKey,
      ...(teamId && { account_id: teamId }),
      success_url: "https://app.example/welcome",
      cancel_url: "https://app.example/plans",
    },
  });
  if (answer.error || !answer.data) throw new Error(`checkout: ${String(answer.error)}`);
  const sessionId = new URL(answer.data.data.url).pathname.split("/").at(-1) ?? "";
  await stack.simulator.pay(sessionId, { card });
}
