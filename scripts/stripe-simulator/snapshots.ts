export type Json = null | boolean | number | string | Json[] | JsonHash;
export interface JsonHash {
  [key: string]: Json;
}

/** Lists inside an object show this many members; the rest is read from the list's own URL. */
const embeddedListLimit = 10;

/** A copy of an object as the API and webhooks show it, embedded lists cut. */
export function snapshot(object: object): JsonHash {
  return cutLists(JSON.parse(JSON.stringify(object)) as Json) as JsonHash;
}

function cutLists(value: Json): Json {
  if (Array.isArray(value)) return value.map(cutLists);
  if (!isHash(value)) return value;
  const copy = Object.fromEntries(
    Object.entries(value).map(([key, child]) => [key, cutLists(child)]),
  );
  const data = copy["data"];
  if (copy["object"] === "list" && Array.isArray(data) && data.length > embeddedListLimit) {
    return { ...copy, data: data.slice(0, embeddedListLimit), has_more: true };
  }
  return copy;
}

/**
 * What an update overwrote: inside hashes only the keys that differ, an array whole when any member differs, null
 * for what was not there. Undefined when nothing changed.
 */
export function previousAttributes(before: JsonHash, after: JsonHash): JsonHash | undefined {
  const previous: JsonHash = {};
  for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const old = before[key] ?? null;
    const current = after[key] ?? null;
    if (JSON.stringify(old) === JSON.stringify(current)) continue;
    previous[key] =
      isHash(old) && isHash(current) ? (previousAttributes(old, current) ?? null) : old;
  }
  return Object.keys(previous).length > 0 ? previous : undefined;
}

function isHash(value: Json): value is JsonHash {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
