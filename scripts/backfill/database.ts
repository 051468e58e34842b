/** The database as the dispatcher's code sees it through the Data API, here on a connection of its own. */
import pg from "pg";
import type { DataApi } from "../../supabase/functions/_shared/data_api.ts";
import { fromDataApi } from "../../supabase/functions/_shared/errors.ts";
import { UserError } from "../lib/terminal.ts";

/** Connects as whoever the URL names: the owner, or another role that may administer billing. */
export async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  try {
    await client.connect();
  } catch (error) {
    throw new UserError(`The database cannot be reached: ${messageOf(error)}`);
  }
  return client;
}

export function dataApiOn(client: pg.Client): DataApi {
  // A connection does one thing at a time; calls to Stripe end whenever they do.
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = <Result>(work: () => Promise<Result>): Promise<Result> => {
    const result = last.then(work);
    last = result.catch(() => {});
    return result;
  };

  return {
    async rpc<Row>(name: string, args: Record<string, unknown>): Promise<Row[]> {
      const named = Object.keys(args).map((key, place) => `"${key}" => $${place + 1}`);
      const values = Object.values(args).map((value) =>
        typeof value === "object" && value !== null ? JSON.stringify(value) : value,
      );
      try {
        const { rows } = await inTurn(() =>
          client.query(`select * from billing.${name}(${named.join(", ")})`, values),
        );
        return rows as Row[];
      } catch (error) {
        throw raised(error);
      }
    },
    find: () => Promise.reject(new Error("a back-fill waits for no row")),
  };
}

/** What the database raised on purpose, as the functions know it; anything else as it is. */
function raised(error: unknown): unknown {
  if (!(error instanceof pg.DatabaseError) || !error.code?.startsWith("PT")) return error;
  const { code, message, detail = "", hint = "" } = error;
  return fromDataApi(
    { status: Number(code.slice(2)), code, message, details: detail, hint },
    "service",
  );
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message || String(error) : String(error);
}
