import type { Client } from "pg";
import { format, resolveConfig } from "prettier";
import {
  definedObject,
  isWord,
  readName,
  startsWith,
  statementsOf,
  type Finding,
  type SourceFile,
} from "./sql.ts";

/**
 * README's reference tables are generated: each stands between `<!-- begin name -->` and
 * `<!-- end name -->` and holds what a migrated database says.
 */
export async function renderReadme(
  client: Client,
  migrations: SourceFile[],
  readme: SourceFile,
): Promise<string> {
  const blocks: Record<string, string> = {
    rpcs: await rpcTable(client),
    views: await viewTable(client),
    errors: await errorTable(client),
    definers: await definerTable(client, migrations),
    triggers: await triggerTable(client, migrations),
    events: await eventTable(client),
  };
  let text = readme.text;
  for (const [name, table] of Object.entries(blocks)) text = replaceBlock(text, name, table);
  return format(text, { ...(await resolveConfig(readme.path)), parser: "markdown" });
}

/** README's tables of RPCs, views, errors, definer functions, triggers and events equal the database. */
export async function checkReadme(
  client: Client,
  migrations: SourceFile[],
  readme: SourceFile | undefined,
): Promise<Finding[]> {
  const path = "README.md";
  if (!readme) return [{ path, line: 1, message: "there is no README" }];
  const missing = ["rpcs", "views", "errors", "definers", "triggers", "events"].filter(
    (name) => !readme.text.includes(begin(name)),
  );
  const expected = (await renderReadme(client, migrations, readme)).split("\n");
  const line = readme.text.split("\n").findIndex((content, at) => content !== expected[at]) + 1;
  return [
    ...missing.map((name) => ({ path, line: 1, message: `there is no ${begin(name)}` })),
    ...(line === 0
      ? []
      : [{ path, line, message: "differs from the database; `npm run types` writes it anew" }]),
  ];
}

const begin = (name: string) => `<!-- begin ${name} -->`;
const end = (name: string) => `<!-- end ${name} -->`;

export function replaceBlock(text: string, name: string, content: string): string {
  const from = text.indexOf(begin(name));
  const to = text.indexOf(end(name));
  if (from === -1 || to < from) return text;
  return `${text.slice(0, from + begin(name).length)}\n\n${content}\n\n${text.slice(to)}`;
}

function table(header: string[], rows: string[][]): string {
  const line = (cells: string[]) =>
    `| ${cells.map((cell) => cell.replaceAll("|", "\\|").replaceAll("\n", " ")).join(" | ")} |`;
  return [line(header), line(header.map(() => "---")), ...rows.map(line)].join("\n");
}

const code = (text: string) => `\`${text}\``;

async function rpcTable(client: Client): Promise<string> {
  const { rows } = await client.query<{
    name: string;
    arguments: string;
    result: string;
    callers: string;
    summary: string;
  }>(`
    select
      namespace.nspname || '.' || function.proname as name,
      coalesce((
        select string_agg(
          case
            when argument.place > function.pronargs - function.pronargdefaults
              then '[' || argument.name || ']'
            else argument.name
          end,
          ', ' order by argument.place
        )
        from unnest(function.proargnames[1:function.pronargs])
          with ordinality as argument (name, place)
      ), '') as arguments,
      case
        when has_function_privilege('anon', function.oid, 'execute') then 'anyone'
        when has_function_privilege('authenticated', function.oid, 'execute') then 'signed-in users'
        else 'service role'
      end as callers,
      pg_get_function_result(function.oid) as result,
      split_part(coalesce(obj_description(function.oid, 'pg_proc'), ''), E'\\n', 1) as summary
    from pg_proc as function
    join pg_namespace as namespace on namespace.oid = function.pronamespace
    where namespace.nspname in ('billing', 'billing_admin')
      and function.prokind = 'f'
      and function.prorettype <> 'trigger'::regtype
      and (
        has_function_privilege('authenticated', function.oid, 'execute')
        or has_function_privilege('service_role', function.oid, 'execute')
      )
    order by 1, 2
  `);
  return table(
    ["RPC", "Returns", "Who may call it", "What it does"],
    rows.map((row) => [
      code(`${row.name}(${row.arguments})`),
      code(row.result.replace(/^TABLE\(.*\)$/s, "TABLE")),
      row.callers,
      row.summary,
    ]),
  );
}

async function eventTable(client: Client): Promise<string> {
  const { rows } = await client.query<{ family: string; types: string }>(`
    select
      regexp_replace(event_type, '\\.[^.]+$', '') as family,
      string_agg(regexp_replace(event_type, '^.*\\.', ''), ', ' order by event_type) as types
    from billing_private.event_handlers
    group by 1
    order by 1
  `);
  return table(
    ["Events of", "Types"],
    rows.map(({ family, types }) => [code(family), types]),
  );
}

async function viewTable(client: Client): Promise<string> {
  const { rows } = await client.query<{ name: string; summary: string }>(`
    select
      namespace.nspname || '.' || class.relname as name,
      split_part(coalesce(obj_description(class.oid, 'pg_class'), ''), E'\\n', 1) as summary
    from pg_class as class
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname in ('billing', 'billing_admin')
      and class.relkind in ('v', 'm')
    order by 1
  `);
  return table(
    ["View", "What it shows"],
    rows.map(({ name, summary }) => [code(name), summary]),
  );
}

async function errorTable(client: Client): Promise<string> {
  const { rows } = await client.query<{
    code: string;
    status: number;
    message: string;
    hint: string;
  }>('select code, status, message, hint from billing.error_codes order by code collate "C"');
  return table(
    ["Code", "Status", "Message", "What to do"],
    rows.map((row) => [code(row.code), String(row.status), row.message, row.hint]),
  );
}

async function definerTable(client: Client, migrations: SourceFile[]): Promise<string> {
  const { rows } = await client.query<{ name: string }>(`
    select distinct namespace.nspname || '.' || function.proname as name
    from pg_proc as function
    join pg_namespace as namespace on namespace.oid = function.pronamespace
    where namespace.nspname in ('billing', 'billing_admin', 'billing_private')
      and function.prosecdef
    order by 1
  `);
  const reasons = definerReasons(migrations);
  return table(
    ["Function", "Why it runs with its owner's rights"],
    rows.map(({ name }) => [code(`${name}()`), reasons.get(name) ?? ""]),
  );
}

/** What stands behind `security definer --` in the one definition of each function. */
function definerReasons(migrations: SourceFile[]): Map<string, string> {
  const reasons = new Map<string, string>();
  for (const statement of migrations.flatMap(({ text }) => statementsOf(text))) {
    const object = definedObject(statement);
    const definer = statement.tokens.find((token) => isWord(token, "definer"));
    const comment = statement.comments.find(({ line }) => line === definer?.line);
    if (object && comment) reasons.set(object.name, comment.value.replace(/^--\s*/, ""));
  }
  return reasons;
}

/** One row for each trigger function: after which tables, in which order, it follows. */
async function triggerTable(client: Client, migrations: SourceFile[]): Promise<string> {
  const { rows } = await client.query<{ name: string; relations: string[]; summary: string }>(`
    select
      min(trigger.tgname) as name,
      array_agg(distinct namespace.nspname || '.' || class.relname) as relations,
      split_part(coalesce(obj_description(trigger.tgfoid, 'pg_proc'), ''), E'\\n', 1) as summary
    from pg_trigger as trigger
    join pg_class as class on class.oid = trigger.tgrelid
    join pg_namespace as namespace on namespace.oid = class.relnamespace
    where namespace.nspname in ('billing', 'billing_admin', 'billing_private')
      and not trigger.tgisinternal
      and trigger.tgparentid = 0
    group by substring(trigger.tgname from '^t[0-9]+'), trigger.tgfoid
    order by substring(min(trigger.tgname) from '^t[0-9]+'), 2
  `);
  const homes = triggerHomes(migrations);
  return table(
    ["Order", "Follows", "Of", "What follows"],
    rows.map((row) => [
      code(/^t\d+/.exec(row.name)?.[0] ?? row.name),
      row.relations.map(code).join(", "),
      homes.get(row.name) ?? "",
      row.summary,
    ]),
  );
}

/** The number of the migration that creates triggers of a name. */
function triggerHomes(migrations: SourceFile[]): Map<string, string> {
  const homes = new Map<string, string>();
  for (const { path, text } of migrations) {
    const number = /(\d+)_[^/]*$/.exec(path)?.[1] ?? "";
    for (const match of text.matchAll(/\btrigger (t\d+_\w+)/g)) homes.set(match[1] ?? "", number);
    for (const statement of statementsOf(text)) {
      if (!startsWith(statement, "create", "trigger")) continue;
      homes.set(readName(statement.tokens, 2).name, number);
    }
  }
  return homes;
}
