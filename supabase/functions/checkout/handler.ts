import { looksLikeJwt, type DataApi } from "../_shared/data_api.ts";
import { apiError, isObject } from "../_shared/errors.ts";
import { createFunction, readObject, readText, requirePost, type Call } from "../_shared/http.ts";
import { describeError } from "../_shared/log.ts";
import { isOneOf } from "./keys.ts";
import { dispatchCommands } from "./dispatch.ts";
import { openPage } from "./pages.ts";
import { previewChange } from "./previews.ts";
import { given, openCheckout } from "./session.ts";
import type { CallStripe } from "./stripe.ts";
import type { WaitingDeps } from "./waiting.ts";
import { changeSubscription } from "./wishes.ts";

export interface CheckoutDeps {
  /** The Data API with a user's token, which it verifies; it decides what the user may. */
  asUser: (accessToken: string, call: Call) => DataApi;
  /** The Data API with the service key. */
  asService: (call: Call) => DataApi;
  /** The project's own keys. */
  secretKeys: () => string[];
  publishableKeys: () => string[];
  /** Asked for before anything is claimed, so that a missing key holds no command back. */
  stripe: () => CallStripe;
  /** Lets the host keep this instance until some work is done, after its answer; undefined where it cannot. */
  keepAlive?: ((work: Promise<unknown>) => void) | undefined;
  now: () => number;
  sleep: (ms: number) => Promise<void>;
  writeLog: (line: string) => void;
}

type Route = (call: Call, deps: CheckoutDeps) => Promise<unknown>;

const changePlanFields = ["at_period_end", "quantity", "proration_date"];

const pauseFields = ["behavior", "resumes_at", "at_period_end"];

const routes = new Map<string, Route>([
  ["/checkout", checkout],
  ["/checkout/portal", page("prepare_portal", ["return_url"], ["flow"])],
  ["/checkout/payment-method", page("prepare_payment_method", ["success_url", "cancel_url"], [])],
  ["/checkout/preview-change", previewRoute],
  ["/checkout/change-plan", wish("change_plan", ["price_key"], changePlanFields)],
  ["/checkout/cancel", wish("cancel_subscription", [], ["at_period_end", "reason"])],
  ["/checkout/undo-cancel", wish("undo_cancel", [], [])],
  ["/checkout/pause", wish("pause_subscription", [], pauseFields)],
  ["/checkout/resume", wish("resume_subscription", [], [])],
  ["/checkout/dispatch", dispatch],
]);

/**
 * All that goes to Stripe: pages to pay on and changes of subscriptions for users, and the outbox for the machine.
 *
 * The database decides what Stripe is asked and what follows from the answer; this carries both.
 */
export function createCheckoutHandler(deps: CheckoutDeps): (request: Request) => Promise<Response> {
  const options = { name: "checkout", cors: true, writeLog: deps.writeLog };
  return createFunction(options, async (call) => {
    const route = routes.get(pathOf(call.request));
    if (!route) throw apiError("ROUTE_NOT_FOUND");
    requirePost(call.request);
    return route(call, deps);
  });
}

async function checkout(call: Call, deps: CheckoutDeps) {
  const user = deps.asUser(requireAccessToken(call, deps), call);
  return openCheckout(await readObject(call.request), user, waitingDeps(call, deps));
}

/** A route that changes the subscription through one of the database's functions. */
function wish(rpc: string, required: string[], optional: string[]): Route {
  return async (call, deps) => {
    const user = deps.asUser(requireAccessToken(call, deps), call);
    const args = pick(await readObject(call.request), required, optional);
    return changeSubscription(rpc, args, user, waitingDeps(call, deps));
  };
}

async function previewRoute(call: Call, deps: CheckoutDeps) {
  const user = deps.asUser(requireAccessToken(call, deps), call);
  const args = pick(await readObject(call.request), ["price_key"], ["at_period_end", "quantity"]);
  return previewChange(args, user, waitingDeps(call, deps));
}

/** A route that opens a page at Stripe which one of the database's functions prepares. */
function page(rpc: string, required: string[], optional: string[]): Route {
  return async (call, deps) => {
    const user = deps.asUser(requireAccessToken(call, deps), call);
    const args = pick(await readObject(call.request), required, optional);
    return openPage(rpc, args, user, waitingDeps(call, deps));
  };
}

/**
 * The fields of the body that a function of the database takes, and no others. Those it has no default for are sent
 * also when they are missing: it says what is wrong then.
 */
function pick(body: Record<string, unknown>, required: string[], optional: string[]) {
  const taken = (names: string[]) =>
    Object.fromEntries(names.map((name) => [name, body[name] ?? null]));
  return { ...taken(required), ...given(taken([...optional, "account_id"])) };
}

/** `{"wait": false}` is answered at once, where the host lets the work go on after the answer. */
async function dispatch(call: Call, deps: CheckoutDeps) {
  requireSecretKey(call, deps);
  const { wait } = await readOptions(call.request);
  const work = dispatchCommands(waitingDeps(call, deps));
  if (wait !== false || !deps.keepAlive) return work;

  deps.keepAlive(
    work.then(
      (counts) => call.log("info", "commands dispatched", { ...counts }),
      (error: unknown) => call.log("error", "dispatch failed", describeError(error)),
    ),
  );
  return { started: true };
}

/** A scheduler need not send a body, and what it sends may be anything. */
async function readOptions(request: Request): Promise<Record<string, unknown>> {
  const text = await readText(request, 65_536);
  try {
    const body: unknown = JSON.parse(text);
    return isObject(body) ? body : {};
  } catch {
    return {};
  }
}

function waitingDeps(call: Call, deps: CheckoutDeps): WaitingDeps {
  const { stripe, asService, now, sleep } = deps;
  return { callStripe: stripe(), service: asService(call), now, sleep, log: call.log };
}

/** The host may or may not leave its own prefix in front of the function's name. */
function pathOf(request: Request): string {
  return new URL(request.url).pathname.replace(/^\/functions\/v1(?=\/)/, "").replace(/\/$/, "");
}

/** The user's token. A project key in its place names nobody, although the host lets it pass. */
function requireAccessToken({ request }: Call, deps: CheckoutDeps): string {
  const token = bearerOf(request);
  const ownKeys = [...deps.publishableKeys(), ...deps.secretKeys()];
  if (!token || !looksLikeJwt(token) || isOneOf(token, ownKeys)) throw apiError("UNAUTHENTICATED");
  return token;
}

function requireSecretKey({ request }: Call, deps: CheckoutDeps): void {
  const presented = [request.headers.get("apikey"), bearerOf(request)];
  const keys = deps.secretKeys();
  if (!presented.some((key) => key && isOneOf(key, keys))) throw apiError("UNAUTHENTICATED");
}

function bearerOf(request: Request): string | undefined {
  return /^Bearer +(\S+)$/i.exec(request.headers.get("authorization") ?? "")?.[1];
}
