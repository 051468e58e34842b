/** What is stored, table by table, in a form in which two copies of one life can be compared. */
import type { Client } from "pg";
import { copyMark } from "./history/index.ts";

export interface StoredRow {
  /** The table. */
  of: string;
  /** Its columns; ids of our own are replaced by the names of what they stand for. */
  row: Record<string, unknown>;
}

/** What differs by nature: it tells what was noticed, in the order in which it was noticed. */
const journals = ["subscription_changes"];

interface Table {
  name: string;
  /** Text columns that are unique: what its rows are called by. */
  names: string[];
}

/**
 * All rows of schema billing that belong to copies of lives, by `seed~copy`. A table that is added later is
 * read like the others.
 */
export async function readStoredRows(client: Client): Promise<Map<string, StoredRow[]>> {
  const { rows: tables } = await client.query<Table>(
    `select
      pg_class.relname::text as name,
      array(
        select pg_attribute.attname::text
        from pg_index
        join pg_attribute on attrelid = indrelid and attnum = indkey[0]
        where indrelid = pg_class.oid
          and indisunique
          and indnatts = 1
          and atttypid = 'text'::regtype
        order by attname like 'stripe%' desc, attname
      ) as names
    from pg_class
    where relnamespace = 'billing'::regnamespace
      and relkind in ('r', 'p')
      and not relispartition
      and relname <> all ($1)
    order by relname`,
    [journals],
  );
  const stored: StoredRow[] = [];
  const called = new Map<string, string>();
  for (const { name: of, names } of tables) {
    const { rows } = await client.query<StoredRow>(
      `select to_jsonb(stored) as row from billing.${of} as stored`,
    );
    for (const { row } of rows) {
      stored.push({ of, row });
      const name = [...names, "name"].map((column) => row[column]).find(Boolean);
      if (typeof row["id"] === "string") called.set(row["id"], String(name ?? `one of ${of}`));
    }
  }
  return byLife([...stored, ...(await newestSnapshots(client))], called);
}

async function newestSnapshots(client: Client): Promise<StoredRow[]> {
  const { rows } = await client.query<{ row: StoredRow["row"] }>(
    `select jsonb_build_object(
      'object', object_id, 'event', event_id, 'is_final', is_final,
      'is_ambiguous', is_ambiguous) as row
    from billing_private.stripe_objects`,
  );
  return rows.map(({ row }) => ({ of: "newest snapshots", row }));
}

const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;
const life = new RegExp(`_(\\d+)(?:_\\d+)?${copyMark}([A-Z]+)`);

function byLife(stored: StoredRow[], called: Map<string, string>): Map<string, StoredRow[]> {
  const lives = new Map<string, StoredRow[]>();
  for (const { of, row } of stored) {
    const text = JSON.stringify(row).replace(uuid, (id) => called.get(id) ?? id);
    const [, seed, copy] = life.exec(text) ?? [];
    if (seed === undefined) continue;
    const key = `${seed}${copyMark}${copy}`;
    const rows = lives.get(key) ?? [];
    rows.push({ of, row: JSON.parse(text) as StoredRow["row"] });
    lives.set(key, rows);
  }
  return lives;
}
