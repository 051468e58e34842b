import { parseArgs } from "node:util";
import { runScript, note, done } from "../lib/terminal.ts";
import { createStripeSimulator } from "./index.ts";

const help = `
Runs the Stripe simulator by itself until Ctrl-C.

  node --import tsx scripts/stripe-simulator/main.ts [options]

  --port <number>          a free port unless given
  --webhook-url <url>      where events are delivered; nowhere unless given
  --webhook-secret <text>  signs them (whsec_…)
`;

await runScript(help, async (args) => {
  const { values } = parseArgs({
    args,
    options: {
      port: { type: "string" },
      "webhook-url": { type: "string" },
      "webhook-secret": { type: "string", default: "whsec_simulator" },
    },
  });
  const webhookUrl = values["webhook-url"];
  const simulator = await createStripeSimulator({
    port: Number(values.port ?? 0),
    flows: true,
    log: note,
    ...(webhookUrl === undefined
      ? {}
      : { webhook: { url: webhookUrl, secret: values["webhook-secret"] } }),
  });
  done(`The Stripe simulator listens at ${simulator.url}; its API key is ${simulator.apiKey}.`);
  note(`curl ${simulator.url}/_control lists what it can be told.`);
  await new Promise((resolve) => process.once("SIGINT", resolve).once("SIGTERM", resolve));
  await simulator.stop();
});
