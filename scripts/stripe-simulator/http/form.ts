/** A decoded form: text, or a hash whose keys are names or list positions. */
export type FormValue = string | FormHash;
export type FormHash = Map<string, FormValue>;

/**
 * Decodes Stripe's form encoding, for bodies and query strings: `items[0][price]=price_1&expand[]=customer`.
 * Lists stay hashes with numeric keys; which is which is for the reader of the value to say.
 */
export function decodeForm(encoded: string): FormHash {
  const root: FormHash = new Map();
  for (const [name, value] of new URLSearchParams(encoded)) {
    const [first = "", ...inner] = name.split("[").map((part) => part.replace(/\]$/, ""));
    let hash = root;
    let key = first;
    for (const next of inner) {
      const existing = hash.get(key);
      const child: FormHash = existing instanceof Map ? existing : new Map();
      hash.set(key, child);
      hash = child;
      key = next === "" ? String(child.size) : next;
    }
    hash.set(key, value);
  }
  return root;
}

/** One text for equal parameters, whatever their order: what an idempotency key is bound to. */
export function canonicalForm(value: FormValue): string {
  if (typeof value === "string") return JSON.stringify(value);
  const entries = [...value].sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, child]) => `${JSON.stringify(key)}:${canonicalForm(child)}`).join()}}`;
}

/** A JSON body (the second API) as the same tree: scalars become text. */
export function decodeJson(body: string): FormHash {
  const value: unknown = body.trim() === "" ? {} : JSON.parse(body);
  const tree = toFormValue(value);
  return typeof tree === "string" ? new Map() : tree;
}

function toFormValue(value: unknown): FormValue {
  if (typeof value !== "object" || value === null) return String(value ?? "");
  return new Map(Object.entries(value).map(([key, child]) => [key, toFormValue(child)]));
}
