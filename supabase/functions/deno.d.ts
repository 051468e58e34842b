/** The part of Deno the functions use, for the type checker of the project. Deno itself never reads this. */
declare namespace Deno {
  const env: { get(name: string): string | undefined };

  function serve(
    options: { hostname: string; port: number },
    handler: (request: Request) => Promise<Response>,
  ): unknown;
}

/** What Supabase's runtime adds; a plain Deno has none of it. */
declare var EdgeRuntime: { waitUntil(work: Promise<unknown>): void } | undefined;
