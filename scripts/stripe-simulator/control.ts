/** The simulator's remote control: JSON under /_control, made for curl. */
import type { StripeSimulator } from "./index.ts";
import { StripeApiError } from "./errors.ts";
import type { Fault } from "./http/api.ts";
import { matchPath } from "./http/routes.ts";
import type { HttpAnswer, Section } from "./http/server.ts";
import { addIntervals, days } from "./billing/periods.ts";

/** Values from the query string and the JSON body together; the body wins. */
type Values = Record<string, unknown>;

interface Command {
  method: "GET" | "POST";
  path: string;
  about: string;
  run: (simulator: StripeSimulator, values: Values, id: string) => unknown;
}

const commands: Command[] = [
  {
    method: "GET",
    path: "/_control/clock",
    about: "What time it is.",
    run: ({ clock }) => shownTime(clock.now()),
  },
  {
    method: "POST",
    path: "/_control/clock",
    about:
      "Advances: ?days=3, ?hours=1, ?months=1, ?seconds=10, or ?to=<unix seconds or ISO 8601>.",
    async run({ clock }, values) {
      await clock.advanceTo(destination(clock.now(), values));
      return shownTime(clock.now());
    },
  },
  {
    method: "GET",
    path: "/_control/events",
    about: "Events, newest first; ?type=invoice.paid, ?limit=20.",
    run: (simulator, values) =>
      simulator
        .events()
        .filter(({ type }) => values["type"] === undefined || type === values["type"])
        .toReversed()
        .slice(0, number(values, "limit") ?? 20)
        .map(({ id, type, created, pending_webhooks, data }) => ({
          id,
          type,
          created,
          delivered: pending_webhooks === 0,
          object: "id" in data.object ? data.object.id : null,
        })),
  },
  {
    method: "POST",
    path: "/_control/events/:id/resend",
    about: "Sends one event again.",
    async run({ delivery }, _values, id) {
      await delivery.resend(id);
      return delivery.attempts().filter(({ event }) => event === id);
    },
  },
  {
    method: "GET",
    path: "/_control/delivery",
    about: "How webhooks are delivered, and what was.",
    run: ({ delivery }) => ({
      ...delivery.settings(),
      held: delivery.held().map(named),
      dropped: delivery.dropped().map(named),
      attempts: delivery.attempts().slice(-20),
    }),
  },
  {
    method: "POST",
    path: "/_control/delivery",
    about:
      "Sets hold, duplicates, delayMs, dropNext (numbers), dropTypes (a,b) the endpoint's apiVersion (2025-02-24.acacia), and the types told thinly as well (thinTypes=* or a,b).",
    run({ delivery, setEndpointVersion, tellThinly }, values) {
      const thinTypes = text(values, "thinTypes");
      if (thinTypes !== undefined) tellThinly(thinTypes.split(","));
      const version = text(values, "apiVersion");
      if (version !== undefined) setEndpointVersion(version);
      const types = values["dropTypes"];
      delivery.configure(
        defined({
          hold: values["hold"] === undefined ? undefined : String(values["hold"]) === "true",
          duplicates: number(values, "duplicates"),
          delayMs: number(values, "delayMs"),
          dropNext: number(values, "dropNext"),
          dropTypes: Array.isArray(types)
            ? types.map(String)
            : text(values, "dropTypes")?.split(","),
        }),
      );
      return delivery.settings();
    },
  },
  {
    method: "POST",
    path: "/_control/delivery/release",
    about: "Sends what was held, shuffled with ?seed=1.",
    async run({ delivery }, values) {
      const count = delivery.held().length;
      await delivery.release(defined({ seed: number(values, "seed") }));
      return { released: count };
    },
  },
  {
    method: "POST",
    path: "/_control/payments/fail",
    about: "The next charges are declined: ?times=1&code=insufficient_funds.",
    run(simulator, values) {
      const times = number(values, "times") ?? 1;
      simulator.failNextPayments(times, text(values, "code"));
      return { declining: times };
    },
  },
  {
    method: "POST",
    path: "/_control/invoices/fail",
    about: "The next invoices cannot be finalized: ?times=1.",
    run(simulator, values) {
      const times = number(values, "times") ?? 1;
      simulator.failNextFinalizations(times);
      return { failing: times };
    },
  },
  {
    method: "POST",
    path: "/_control/events/double",
    about: "The next events are made twice, with two ids: ?times=1.",
    run(simulator, values) {
      const times = number(values, "times") ?? 1;
      simulator.doubleNextEvents(times);
      return { doubling: times };
    },
  },
  {
    method: "POST",
    path: "/_control/checkout/:id/pay",
    about: "Pays a checkout session: ?card=4242424242424242&promotionCode=SPRING.",
    run: (simulator, values, id) =>
      simulator.pay(
        id,
        defined({ card: text(values, "card"), promotionCode: text(values, "promotionCode") }),
      ),
  },
  {
    method: "POST",
    path: "/_control/charges/:id/dispute",
    about: "The customer's bank disputes a charge: ?reason=fraudulent&kind=chargeback|inquiry.",
    run: (simulator, values, id) =>
      simulator.disputeCharge(
        id,
        defined({
          reason: text(values, "reason"),
          kind: text(values, "kind") === "inquiry" ? ("inquiry" as const) : undefined,
        }),
      ),
  },
  {
    method: "POST",
    path: "/_control/charges/:id/warn",
    about: "An early fraud warning comes for a charge.",
    run: (simulator, _values, id) => simulator.warnOfFraud(id),
  },
  {
    method: "POST",
    path: "/_control/disputes/:id/close",
    about: "The bank decides: ?outcome=won|lost|warning_closed.",
    run: (simulator, values, id) =>
      simulator.closeDispute(id, oneOf(values, "outcome", ["won", "lost", "warning_closed"])),
  },
  {
    method: "POST",
    path: "/_control/refunds/:id/fail",
    about: "A refund fails, even one that had succeeded.",
    run: (simulator, _values, id) => simulator.failRefund(id),
  },
  {
    method: "POST",
    path: "/_control/rules",
    about:
      "Billing settings: ?afterLastRetry=cancel|unpaid|past_due|pause&retryAfter=<seconds>,<seconds>&finalizeAfter=<seconds>.",
    run(simulator, values) {
      const waits = text(values, "retryAfter");
      return simulator.setRules(
        defined({
          afterLastRetry:
            values["afterLastRetry"] === undefined
              ? undefined
              : oneOf(values, "afterLastRetry", ["cancel", "past_due", "pause", "unpaid"]),
          retryAfter:
            waits === undefined ? undefined : waits.split(",").filter(Boolean).map(Number),
          finalizeAfter: number(values, "finalizeAfter"),
        }),
      );
    },
  },
  {
    method: "POST",
    path: "/_control/api/fail",
    about:
      "The next API requests fail: ?when=before|after|saved&status=500&code=lock_timeout&times=1&path=/v1/…&object=sub_….",
    run({ api }, values) {
      const fault: Fault = defined({
        when:
          values["when"] === undefined
            ? ("before" as const)
            : oneOf(values, "when", ["after", "before", "saved"]),
        status: number(values, "status"),
        code: text(values, "code"),
        message: text(values, "message"),
        path: text(values, "path"),
        object: text(values, "object"),
        times: number(values, "times"),
        retryAfterSeconds: number(values, "retryAfterSeconds"),
      });
      api.fail(fault);
      return fault;
    },
  },
  {
    method: "POST",
    path: "/_control/api/limit",
    about: "At most ?requestsPerSecond=25 of the simulator's clock; without a number, no limit.",
    run({ api }, values) {
      const requestsPerSecond = number(values, "requestsPerSecond") ?? null;
      api.limit(requestsPerSecond);
      return { requestsPerSecond };
    },
  },
  {
    method: "POST",
    path: "/_control/api/delay",
    about: "Each API request takes ?ms=… longer.",
    run({ api }, values) {
      const milliseconds = number(values, "ms") ?? 0;
      api.delay(milliseconds);
      return { delayMs: milliseconds };
    },
  },
];

export function createControl(simulator: StripeSimulator): Section {
  return async ({ method, url, body }) => {
    if (!url.pathname.startsWith("/_control")) return null;
    if (url.pathname === "/_control") return json(200, help(simulator));
    for (const command of commands) {
      const ids = matchPath(command.path.split("/").slice(1), url.pathname);
      if (ids === null || command.method !== method) continue;
      try {
        const values = readValues(url, body);
        return json(200, await command.run(simulator, values, ids[0] ?? ""));
      } catch (error) {
        const status = error instanceof StripeApiError ? error.status : 400;
        return json(status, { error: error instanceof Error ? error.message : String(error) });
      }
    }
    return json(404, { error: `There is no ${method} ${url.pathname}.`, ...help(simulator) });
  };
}

function help(simulator: StripeSimulator) {
  return {
    commands: commands.map(({ method, path, about }) => ({
      command: `curl -X ${method} '${simulator.url}${path}'`,
      about,
    })),
  };
}

function readValues(url: URL, body: string): Values {
  const parsed: unknown = body.trim() === "" ? {} : JSON.parse(body);
  if (typeof parsed !== "object" || parsed === null)
    throw new Error("The body is not a JSON object.");
  return { ...Object.fromEntries(url.searchParams), ...parsed };
}

function destination(now: number, values: Values): number {
  const to = text(values, "to");
  if (to !== undefined) {
    const seconds = /^\d+$/.test(to) ? Number(to) : Date.parse(to) / 1000;
    if (!Number.isInteger(seconds)) throw new Error(`Not a moment: ${to}`);
    return seconds;
  }
  const months = number(values, "months") ?? 0;
  return (
    addIntervals(now, { interval: "month", interval_count: 1 }, months) +
    days(number(values, "days") ?? 0) +
    3_600 * (number(values, "hours") ?? 0) +
    (number(values, "seconds") ?? 0)
  );
}

function text(values: Values, name: string): string | undefined {
  const value = values[name];
  return value === undefined ? undefined : String(value);
}

function oneOf<const T extends string>(values: Values, name: string, allowed: T[]): T {
  const found = allowed.find((candidate) => candidate === values[name]);
  if (found === undefined) throw new Error(`${name} must be one of ${allowed.join(", ")}.`);
  return found;
}

function number(values: Values, name: string): number | undefined {
  const value = values[name];
  if (value === undefined) return undefined;
  const result = Number(value);
  if (!Number.isInteger(result)) throw new Error(`${name} is not a whole number: ${String(value)}`);
  return result;
}

/** Without its undefined members, so that it can be spread over defaults. */
function defined<T extends object>(values: T): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T;
}

function named({ id, type }: { id: string; type: string }) {
  return { id, type };
}

function shownTime(seconds: number) {
  return { now: seconds, iso: new Date(seconds * 1000).toISOString() };
}

function json(status: number, value: unknown): HttpAnswer {
  return {
    status,
    headers: { "content-type": "application/json" },
    body: `${JSON.stringify(value, null, 2)}\n`,
  };
}
