import type { DataApi } from "../_shared/data_api.ts";
import { ApiError, apiError } from "../_shared/errors.ts";
import { createFunction, readText, requirePost, type Call } from "../_shared/http.ts";
import { describeError } from "../_shared/log.ts";
import { verifySignature } from "./signature.ts";

export interface WebhookDeps {
  /** The endpoint's signing secrets; any one of them may have signed. */
  secrets: () => string[];
  /** The Data API with the service key. */
  asService: (call: Call) => DataApi;
  /** Milliseconds of the machine's clock, which is what Stripe signs against. */
  now: () => number;
  writeLog: (line: string) => void;
}

interface IngestResult {
  event_id: string;
  status: string;
  duplicate: boolean;
}

/** Far above any event: Stripe cuts the lists inside one at ten entries. */
const bodyLimit = 1_048_576;
/** Stripe's own limit is not published; third parties report 10 to 30 seconds. */
const ingestTimeoutMs = 8_000;
const reportTimeoutMs = 2_000;

/**
 * Receives Stripe events. What an event means is decided in SQL; this only proves who sent it and hands it over.
 *
 * Stripe delivers again after anything but a 2xx: failing to store answers 5xx. A request that can never succeed
 * answers 4xx, and is counted in the database if it lacked a good signature.
 */
export function createWebhookHandler(deps: WebhookDeps): (request: Request) => Promise<Response> {
  const options = { name: "stripe-webhook", cors: false, writeLog: deps.writeLog };

  return createFunction(options, async (call) => {
    requirePost(call.request);
    const secrets = deps.secrets();
    if (secrets.length === 0) throw apiError("WEBHOOK_NOT_CONFIGURED");

    const header = call.request.headers.get("stripe-signature");
    if (!header) return refuse("SIGNATURE_MISSING", call);

    // The signature covers these exact characters, so they are what is verified and stored.
    const body = await readText(call.request, bodyLimit);
    const verdict = await verifySignature(body, header, { secrets, now: deps.now() });
    if (verdict !== "valid") return refuse(verdict, call);

    return ingest(body, call);
  });

  async function ingest(payload: string, call: Call): Promise<IngestResult> {
    try {
      const [result] = await deps
        .asService(call)
        .rpc<IngestResult>("ingest_stripe_event", { payload }, ingestTimeoutMs);
      if (!result) throw new Error("ingest_stripe_event returned nothing");
      call.log("info", "event stored", { ...result });
      return result;
    } catch (error) {
      // Not an event: no delivery of it will ever be one. Everything else is worth another delivery.
      if (!(error instanceof ApiError) || error.status === 400 || error.status >= 500) throw error;
      throw apiError("INTERNAL_ERROR");
    }
  }

  /** Counting helps to see an attack or a wrong secret; the answer does not depend on it. */
  async function refuse(
    code: "SIGNATURE_MISSING" | "SIGNATURE_INVALID" | "SIGNATURE_EXPIRED",
    call: Call,
  ): Promise<never> {
    try {
      await deps.asService(call).rpc("report_rejected_webhook", { reason: code }, reportTimeoutMs);
    } catch (error) {
      call.log("warn", "rejection not counted", describeError(error));
    }
    throw apiError(code);
  }
}
