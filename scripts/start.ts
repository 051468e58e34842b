/** `npm start`: everything on this machine, and the life of a subscriber and of a team played on it. */

import { readArguments } from "./lib/arguments.ts";
import { defaultPorts } from "./lib/ports.ts";
import { dim, done, heading, note, runScript } from "./lib/terminal.ts";
import { startStack, stripeFromEnvironment, type Stack } from "./stack/index.ts";
import { playCheckout } from "./story/checkout.ts";
import { playLife } from "./story/life.ts";
import { playTeam } from "./story/team.ts";

const help = `
Starts Postgres, the Data API, Auth, Studio, both Edge Functions and a Stripe simulator on this
machine, plays a subscriber's and a team's life on them, and stays up until Ctrl-C.

Usage: npm start -- [--once]

  --once   play, then end everything and exit with a status

DATABASE_URL                  a Postgres to use instead of making one (its data stays)
STRIPE_SECRET_KEY             sk_test_…: Stripe itself instead of the simulator
STRIPE_WEBHOOK_SECRET         goes with it: \`stripe listen --print-secret\` shows it
PG_SUBSCRIPTIONS_POSTGRES     system or embedded: where the server comes from
${Object.values(defaultPorts)
  .map(({ variable, port }) => `${variable.padEnd(30)}a port (default ${port})`)
  .join("\n")}
`;

await runScript(help, async (args) => {
  const { values } = readArguments(args, { once: { type: "boolean" } });
  const databaseUrl = process.env["DATABASE_URL"];

  heading("Starting");
  const stack = await startStack({
    directory: ".local/start",
    databaseUrl,
    // The simulator forgets when it ends, so a database of its time would point at nothing.
    fresh: databaseUrl === undefined,
    stripe: stripeFromEnvironment(process.env),
  });

  try {
    if (stack.simulator) {
      await playLife(stack, stack.simulator);
      await playTeam(stack, stack.simulator);
    } else {
      await playCheckout(stack);
    }
    if (values.once) {
      done("The story is told.");
      return;
    }
    showWhatToTry(stack);
    await new Promise(() => undefined);
  } finally {
    await stack.stop();
  }
});

function showWhatToTry({ urls, keys }: Stack): void {
  heading("It stays up until Ctrl-C");
  const rows: [string, string][] = [
    ["API", urls.api],
    ["Studio", urls.studio],
    ["Functions", urls.functions],
    ["Stripe", urls.stripe ?? "your test account"],
    ["publishable key", keys.publishable],
    ["secret key", keys.secret],
  ];
  for (const [name, value] of rows) console.log(`  ${name.padEnd(16)} ${value}`);

  heading("Three things to try");
  const rest = `${urls.api}/rest/v1`;
  console.log(`  1  The pricing page's data, as a visitor:
     ${dim(`curl '${rest}/rpc/list_plans?currency=usd' -H 'Accept-Profile: billing' -H 'apikey: ${keys.publishable}'`)}
  2  What needs an administrator now:
     ${dim(`curl '${rest}/problem_accounts' -H 'Accept-Profile: billing_admin' -H 'apikey: ${keys.secret}'`)}`);
  if (urls.stripe) {
    console.log(`  3  Let another month pass, and look at the audit in Studio (billing_admin.audit_log):
     ${dim(`curl -X POST ${urls.stripe}/_control/clock -H 'Content-Type: application/json' -d '{"months": 1}'`)}`);
  } else {
    console.log(
      `  3  Cancel the subscription in Stripe's dashboard and read billing_admin.audit_log in Studio.`,
    );
  }
  note("Ctrl-C ends everything.");
}
