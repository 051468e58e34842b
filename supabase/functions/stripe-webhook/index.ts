import { createDataApi } from "../_shared/data_api.ts";
import { createEnvironment } from "../_shared/env.ts";
import { createWebhookHandler } from "./handler.ts";

const env = createEnvironment((name) => Deno.env.get(name));

Deno.serve(
  { hostname: "127.0.0.1", port: env.port() },
  createWebhookHandler({
    secrets: env.webhookSecrets,
    asService: (call) => createDataApi({ url: env.supabaseUrl(), key: env.secretKey() }, call),
    now: Date.now,
    writeLog: console.log,
  }),
);
