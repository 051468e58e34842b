/**
 * The settings of the functions. Each is read when it is needed, so that a missing one is an error answer and
 * a log line that names it, not a function that does not start.
 *
 * Supabase injects its keys under new names (JSON objects, key by key name) and, until they are gone, legacy ones.
 */
export type Environment = ReturnType<typeof createEnvironment>;

export function createEnvironment(get: (name: string) => string | undefined) {
  const setting = (name: string) => get(name)?.trim() || undefined;

  function required(name: string): string {
    const value = setting(name);
    if (value === undefined) throw new Error(`${name} is not set`);
    return value;
  }

  /** All keys of one kind, the one to use first: `default`, else the first named, else the legacy one. */
  function keys(name: string, legacyName: string): string[] {
    const named = namedKeys(name, setting(name));
    const legacy = setting(legacyName);
    const { default: preferred, ...others } = named;
    const all = [preferred, ...Object.values(others), legacy];
    return all.flatMap((key) => (key ? [key] : []));
  }

  function firstKey(all: string[], name: string): string {
    const [key] = all;
    if (key === undefined) throw new Error(`${name} is not set`);
    return key;
  }

  const publishableKeys = () => keys("SUPABASE_PUBLISHABLE_KEYS", "SUPABASE_ANON_KEY");
  const secretKeys = () => keys("SUPABASE_SECRET_KEYS", "SUPABASE_SERVICE_ROLE_KEY");

  return {
    supabaseUrl: () => required("SUPABASE_URL"),
    publishableKeys,
    publishableKey: () => firstKey(publishableKeys(), "SUPABASE_PUBLISHABLE_KEYS"),
    secretKeys,
    secretKey: () => firstKey(secretKeys(), "SUPABASE_SECRET_KEYS"),

    stripeSecretKey: () => required("STRIPE_SECRET_KEY"),
    /** Where Stripe's API is; only a simulator is elsewhere. */
    stripeApiBase: () => setting("STRIPE_API_BASE") ?? "https://api.stripe.com",
    /** Several while a secret is rolled, or where test and live mode share the address. */
    webhookSecrets: () =>
      [get("STRIPE_WEBHOOK_SECRETS"), get("STRIPE_WEBHOOK_SECRET")]
        .flatMap((list) => (list ?? "").split(","))
        .map((secret) => secret.trim())
        .filter((secret) => secret !== ""),

    /** Where a local process listens; the hosted runtime gives functions no choice. */
    port: () => Number(setting("PORT") ?? 8000),
  };
}

function namedKeys(name: string, json: string | undefined): Record<string, string> {
  if (json === undefined) return {};
  // The parser's own message would quote the keys.
  const refuse = () => new Error(`${name} is not a JSON object of keys by name`);
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw refuse();
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw refuse();
  return Object.fromEntries(
    Object.entries(value).filter(
      (entry): entry is [string, string] => typeof entry[1] === "string",
    ),
  );
}
