import type Stripe from "stripe";
import { invalidRequest } from "../errors.ts";
import type { Simulation } from "../simulation.ts";
import type { FormHash } from "./form.ts";
import {
  readParams,
  text,
  natural,
  type MetadataChange,
  type Params,
  type Spec,
} from "./params.ts";

/** One endpoint. `prepare` validates the parameters; what it returns executes the request. */
export interface Route {
  method: string;
  segments: string[];
  prepare(form: FormHash, ids: string[]): (simulation: Simulation) => object;
}

/** Declares an endpoint such as `"POST /v1/customers/:id"`; the handler gets the path's ids after the parameters. */
export function route<S extends Spec>(
  methodAndPath: string,
  spec: S,
  handle: (simulation: Simulation, params: Params<S>, ...ids: string[]) => object,
): Route {
  const [method = "", path = ""] = methodAndPath.split(" ");
  return {
    method,
    segments: path.split("/").slice(1),
    prepare(form, ids) {
      const params = readParams(form, spec);
      return (simulation) => handle(simulation, params, ...ids);
    },
  };
}

/** The ids in a path that fits the route, or null. */
export function matchPath(segments: string[], path: string): string[] | null {
  const parts = path.split("/").slice(1).map(decodeURIComponent);
  if (parts.length !== segments.length) return null;
  const ids: string[] = [];
  for (const [position, segment] of segments.entries()) {
    const part = parts[position] ?? "";
    if (segment.startsWith(":")) ids.push(part);
    else if (segment !== part) return null;
  }
  return ids;
}

export const pagination = { limit: natural, starting_after: text, ending_before: text };

/** One page of a list, newest first. `objects` are given oldest first. */
export function page<T extends { id: string }>(
  url: string,
  objects: T[],
  params: Params<typeof pagination>,
): Stripe.ApiList<T> {
  const limit = params.limit ?? 10;
  if (limit < 1 || limit > 100) {
    throw invalidRequest("Limit must be between 1 and 100.", { param: "limit" });
  }
  const newestFirst = objects.toReversed();
  const positionOf = (id: string, param: string) => {
    const position = newestFirst.findIndex((object) => object.id === id);
    if (position < 0) throw invalidRequest(`No such object: '${id}'`, { param });
    return position;
  };
  if (params.ending_before !== undefined) {
    const end = positionOf(params.ending_before, "ending_before");
    const start = Math.max(0, end - limit);
    return { object: "list", url, has_more: start > 0, data: newestFirst.slice(start, end) };
  }
  const start =
    params.starting_after === undefined
      ? 0
      : positionOf(params.starting_after, "starting_after") + 1;
  return {
    object: "list",
    url,
    has_more: newestFirst.length > start + limit,
    data: newestFirst.slice(start, start + limit),
  };
}

export function changedMetadata(
  current: Stripe.Metadata | null,
  edit: MetadataChange | undefined,
): Stripe.Metadata {
  if (edit === undefined) return { ...current };
  if (edit === null) return {};
  const merged = { ...current, ...edit };
  return Object.fromEntries(Object.entries(merged).filter(([, value]) => value !== ""));
}
