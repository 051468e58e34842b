import Stripe from "stripe";
import { UserError } from "../lib/terminal.ts";

/** The version every endpoint is pinned to: the one the functions call Stripe with. */
export const apiVersion = "2026-10-28.endive";

export interface Endpoint {
  id: string;
  /** Stripe shows it once, when the endpoint is made. */
  secret: string | null;
  events: number;
}

/**
 * Makes sure Stripe delivers these events to this address in our API version: makes the endpoint, or brings the one
 * that is there up to date. An endpoint's version cannot be changed, so one of another version is refused.
 */
export async function ensureEndpoint(
  stripe: Stripe,
  url: string,
  events: string[],
): Promise<Endpoint> {
  const found = await findEndpoint(stripe, url);
  const enabled_events = events as Stripe.WebhookEndpointCreateParams.EnabledEvent[];
  if (found === undefined) {
    const { id, secret = null } = await stripe.webhookEndpoints.create({
      url,
      enabled_events,
      api_version: apiVersion as Stripe.WebhookEndpointCreateParams.ApiVersion,
      description: "pg-subscriptions",
    });
    return { id, secret, events: events.length };
  }
  if (found.api_version !== apiVersion) {
    throw new UserError(
      `The endpoint ${found.id} has API version ${found.api_version ?? "of the account"}, which Stripe does not let anybody change. ` +
        `Disable it in Stripe's dashboard and run this again; ${apiVersion} is needed.`,
    );
  }
  await stripe.webhookEndpoints.update(found.id, { enabled_events, disabled: false });
  return { id: found.id, secret: null, events: events.length };
}

async function findEndpoint(
  stripe: Stripe,
  url: string,
): Promise<Stripe.WebhookEndpoint | undefined> {
  for await (const endpoint of stripe.webhookEndpoints.list({ limit: 100 })) {
    if (endpoint.url === url && endpoint.status === "enabled") return endpoint;
  }
  return undefined;
}

/** Only names Stripe delivers in a classic endpoint: thin events have a destination of their own. */
export function snapshotEvents(handled: string[]): string[] {
  return handled.filter((type) => !/^v\d+\./.test(type)).sort();
}
