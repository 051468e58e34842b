import { days } from "../billing/periods.ts";
import { noSuch } from "../errors.ts";
import { flag, list, range, text } from "../http/params.ts";
import { page, pagination, route } from "../http/routes.ts";

/** Stripe keeps events readable for this long. */
const retention = days(30);

export const eventRoutes = [
  route(
    "GET /v1/events",
    { ...pagination, type: text, types: list(text), created: range, delivery_success: flag },
    ({ store, now }, params) =>
      page(
        "/v1/events",
        store.events
          .all()
          .filter(
            (event) =>
              event.created > now() - retention &&
              (params.type === undefined || matches(event.type, params.type)) &&
              (params.types === undefined || params.types.includes(event.type)) &&
              (params.created === undefined || params.created(event.created)) &&
              (params.delivery_success === undefined ||
                params.delivery_success === (event.pending_webhooks === 0)),
          ),
        params,
      ),
  ),

  route("GET /v1/events/:id", {}, ({ store, now }, _params, id) => {
    const event = store.events.require(id);
    if (event.created <= now() - retention) throw noSuch("event", id);
    return event;
  }),
];

/** `type=invoice.*` asks for a family. */
function matches(type: string, wanted: string): boolean {
  return wanted.endsWith("*") ? type.startsWith(wanted.slice(0, -1)) : type === wanted;
}
