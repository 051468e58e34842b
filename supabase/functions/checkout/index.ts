import { createDataApi } from "../_shared/data_api.ts";
import { createEnvironment } from "../_shared/env.ts";
import { createCheckoutHandler } from "./handler.ts";
import { createStripeCaller, type CallStripe } from "./stripe.ts";

const env = createEnvironment((name) => Deno.env.get(name));

let stripe: CallStripe | undefined;

Deno.serve(
  { hostname: "127.0.0.1", port: env.port() },
  createCheckoutHandler({
    asUser: (accessToken, call) =>
      createDataApi({ url: env.supabaseUrl(), key: env.publishableKey(), accessToken }, call),
    asService: (call) => createDataApi({ url: env.supabaseUrl(), key: env.secretKey() }, call),
    secretKeys: env.secretKeys,
    publishableKeys: env.publishableKeys,
    stripe: () =>
      (stripe ??= createStripeCaller({
        secretKey: env.stripeSecretKey(),
        apiBase: env.stripeApiBase(),
      })),
    keepAlive: globalThis.EdgeRuntime?.waitUntil.bind(globalThis.EdgeRuntime),
    now: Date.now,
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    writeLog: console.log,
  }),
);
