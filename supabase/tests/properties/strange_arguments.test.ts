// Whatever anybody passes to whatever they may call, they get an answer or an error of the catalog: never one of
// Postgres itself, which would tell of the tables behind.
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { createRandom, type Random } from "../support/random.ts";
import { addCatalog, addReader, idOf, setClock } from "../support/readers.ts";

/** Another one passes other things: PG_SUBSCRIPTIONS_SEED=7000 npx vitest run … */
const seed = Number(process.env["PG_SUBSCRIPTIONS_SEED"] ?? 1);
const callsPerFunction = 12;
const readers = ["ann", "bob", "cyd"] as const;

interface Callable {
  name: string;
  types: string[];
  names: string[];
  defaults: number;
  role: string;
}

interface Surprise {
  call: string;
  role: string;
  sqlstate: string;
  message: string;
}

let database: TestDatabase;
let owner: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  await addCatalog(owner);
  await setClock(owner, "2026-01-20 00:00Z");
  for (const name of readers) {
    await owner.query("insert into auth.users (id, email) values ($1, $2)", [
      idOf(name),
      `${name}@example.com`,
    ]);
    await addReader(owner, name);
  }
  await owner.query(
    "insert into billing_private.administrators (user_id, reason) values ($1, 'a test')",
    [idOf("bob")],
  );
});

afterAll(() => database?.drop());

it(`answers or refuses ${callsPerFunction} calls of each function in each role`, async () => {
  const random = createRandom(seed);
  const surprises: Surprise[] = [];
  for (const callable of await callables()) {
    for (let turn = 0; turn < callsPerFunction; turn += 1) {
      const call = callOf(callable, random);
      const error = await refusal(call, callable.role, random);
      if (error !== undefined && !error.sqlstate.startsWith("PT")) {
        surprises.push({ call, role: callable.role, ...error });
      }
    }
  }
  expect(surprises).toEqual([]);
});

async function callables(): Promise<Callable[]> {
  const { rows } = await owner.query<Callable>(`
    select
      pg_proc.oid::regproc::text as name, pg_proc.pronargdefaults as defaults, role,
      coalesce(pg_proc.proargnames, '{}') as names,
      array(select format_type(type, null) from unnest(pg_proc.proargtypes) as type) as types
    from pg_proc
    cross join unnest(array['anon', 'authenticated', 'service_role']) as role
    where pg_proc.pronamespace in ('billing'::regnamespace, 'billing_admin'::regnamespace)
      and pg_proc.prorettype <> 'trigger'::regtype
      and has_function_privilege(role, pg_proc.oid, 'execute')
    order by 1, 2, role`);
  return rows;
}

/** What the call fails with; what it does is undone. */
async function refusal(call: string, role: string, random: Random) {
  const reader = random.pick(readers);
  const claims = { sub: idOf(reader), role, aal: "aal2", email: `${reader}@example.com` };
  await owner.query("begin");
  try {
    await owner.query("select set_config('request.jwt.claims', $1, true)", [
      JSON.stringify(role === "anon" ? { role } : claims),
    ]);
    await owner.query(`set local role ${role}`);
    await owner.query(call);
    return undefined;
  } catch (error) {
    const { code: sqlstate, message } = error as { code: string; message: string };
    return { sqlstate, message };
  } finally {
    await owner.query("rollback");
  }
}

function callOf({ name, types, names, defaults }: Callable, random: Random): string {
  const count = types.length - random.whole(0, defaults);
  const values = types
    .slice(0, count)
    .map((type, place) => valueOf(type, names[place] ?? "", random));
  return `select * from ${name}(${values.join(", ")})`;
}

function valueOf(type: string, name: string, random: Random): string {
  if (type.includes(".") || random.chance(0.1)) return `null::${type}`;
  if (type.endsWith("[]")) {
    const items = Array.from({ length: random.whole(0, 3) }, () =>
      valueOf(type.slice(0, -2), name, random),
    );
    return `array[${items.join(", ")}]::${type}`;
  }
  const value =
    type === "text" && random.chance(0.7) ? textFor(name, random) : strange(type, random);
  return `'${value.replaceAll("'", "''")}'::${type}`;
}

/** Something that leads past the first checks. */
function textFor(name: string, random: Random): string {
  const fitting: [RegExp, readonly [string, ...string[]]][] = [
    [/reason/, ["because"]],
    [/price/, ["basic_monthly", "plus_monthly"]],
    [/plan/, ["basic", "plus"]],
    [/feature/, ["reading", "clubs"]],
    [/currency/, ["usd"]],
    [/url/, ["https://example.com/"]],
    [/email/, ["cyd@example.com"]],
    [/role/, ["owner", "admin", "member"]],
  ];
  const found = fitting.find(([pattern]) => pattern.test(name));
  return random.pick(found?.[1] ?? ["a_key", "another_key"]);
}

function strange(type: string, random: Random): string {
  const times = [
    "infinity",
    "-infinity",
    "294276-12-31",
    "0001-01-01 BC",
    "2026-01-10",
    "2027-01-01",
  ];
  const records = [
    "null",
    "{}",
    "[]",
    '"x"',
    "1",
    "[null]",
    "[1]",
    "[{}]",
    '[{"quantity": "many"}]',
  ];
  const values: Record<string, readonly string[]> = {
    uuid: [...readers.map(idOf), idOf("nobody")],
    text: [
      "",
      " ",
      "x".repeat(5_000),
      "'; --",
      "%",
      "\\",
      "👍",
      "javascript:alert(1)",
      "-1",
      "NaN",
    ],
    bigint: ["0", "1", "-1", "9223372036854775807", "-9223372036854775808"],
    integer: ["0", "1", "-1", "2147483647", "-2147483648"],
    numeric: ["0", "1", "-1", "0.5", "NaN", "Infinity", "1e30", "-1e30"],
    boolean: ["true", "false"],
    regclass: ["billing.plans", "auth.users", "pg_class", "12345"],
    interval: ["0", "1 day", "-1 day", "170000000 years"],
    jsonb: [...records, '{"a": null}', '[{"up_to": null}]', '{"key": [{"up_to": "inf"}]}'],
  };
  const [first, ...rest] = values[type] ?? times;
  return random.pick([first ?? "", ...rest]);
}
