// scripts/postgres: a cluster that is found again, survives crashes, and looks like a hosted project.

import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort } from "../../../scripts/lib/ports.ts";
import { run, waitUntil } from "../../../scripts/lib/processes.ts";
import { UserError } from "../../../scripts/lib/terminal.ts";
import { runningCluster } from "../../../scripts/postgres/cluster.ts";
import {
  bootstrap,
  clusterAt,
  migrate,
  seed,
  startPostgres,
  stopPostgres,
  type Postgres,
} from "../../../scripts/postgres/index.ts";
import {
  canReach,
  reachableFolder,
  type Unprivileged,
} from "../../../scripts/postgres/unprivileged.ts";

const root = process.cwd();
const temporary = mkdtempSync(join(tmpdir(), "pg-subscriptions-test-"));
chmodSync(temporary, 0o755);

const folder = (name: string) => join(temporary, name);
const quiet = { quick: true, verbose: false } as const;

async function query<T extends pg.QueryResultRow>(url: string | null, sql: string): Promise<T[]> {
  const client = new pg.Client({ connectionString: url ?? undefined });
  await client.connect();
  try {
    const result = await client.query<T>(sql);
    return result.rows;
  } finally {
    await client.end();
  }
}

const hostedRoles = [
  "anon nologin inherit",
  "authenticated nologin inherit",
  "authenticator login noinherit",
  "postgres login inherit createrole createdb replication bypassrls",
  "service_role nologin inherit bypassrls",
  "supabase_admin login inherit superuser createrole createdb replication bypassrls",
  "supabase_auth_admin login noinherit createrole",
];

async function roles(url: string | null): Promise<string[]> {
  const rows = await query<{ role: string }>(
    url,
    `select concat_ws(' ', rolname,
       case when rolcanlogin then 'login' else 'nologin' end,
       case when rolinherit then 'inherit' else 'noinherit' end,
       case when rolsuper then 'superuser' end,
       case when rolcreaterole then 'createrole' end,
       case when rolcreatedb then 'createdb' end,
       case when rolreplication then 'replication' end,
       case when rolbypassrls then 'bypassrls' end) as role
     from pg_roles
     where rolname !~ '^pg_'
     order by rolname collate "C"`,
  );
  return rows.map(({ role }) => role);
}

let postgres: Postgres;

beforeAll(async () => {
  postgres = await startPostgres({ directory: folder("main"), port: await freePort(), ...quiet });
});

afterAll(async () => {
  for (const name of ["main", "embedded", "up"]) {
    await stopPostgres(folder(name), { deleteData: true });
  }
  rmSync(temporary, { recursive: true, force: true });
});

describe("the folder of a server that runs as another user", () => {
  const stranger: Unprivileged = { name: "stranger", uid: 54_321, gid: 54_321 };

  test("is the wanted one where that user can get to it", () => {
    const wanted = folder("open/cluster");
    expect(reachableFolder(wanted, stranger)).toBe(wanted);
  });

  test("is the wanted one under a strict umask too", () => {
    const umask = process.umask(0o077);
    try {
      const wanted = folder("strict/cluster");
      expect(reachableFolder(wanted, stranger)).toBe(wanted);
      expect(canReach(wanted, stranger)).toBe(true);
    } finally {
      process.umask(umask);
    }
  });

  test("is always the same other one where a closed folder is in the way", () => {
    const closed = folder("closed");
    mkdirSync(closed, { mode: 0o700 });
    const wanted = join(closed, "cluster");

    const substitute = reachableFolder(wanted, stranger);

    expect(substitute).not.toBe(wanted);
    expect(canReach(substitute, stranger)).toBe(true);
    expect(reachableFolder(wanted, stranger)).toBe(substitute);
    expect(reachableFolder(join(closed, "other"), null)).toBe(join(closed, "other"));
    rmSync(substitute, { recursive: true });
  });
});

describe("a cluster as a hosted project is", () => {
  test("has the roles of a hosted project", async () => {
    expect(await roles(postgres.adminUrl)).toEqual(hostedRoles);
  });

  test("lets postgres become the API's roles, and not the Auth server's", async () => {
    const [may] = await query(
      postgres.url,
      `select
         pg_has_role('anon', 'usage') as anon,
         pg_has_role('service_role', 'usage') as service_role,
         pg_has_role('supabase_auth_admin', 'member') as auth_admin`,
    );
    expect(may).toEqual({ anon: true, service_role: true, auth_admin: false });
  });

  test("keeps postgres from changing schema auth, but not from referring to it", async () => {
    await expect(query(postgres.url, "create table auth.mine ()")).rejects.toThrow(
      "permission denied for schema auth",
    );
    await expect(
      query(
        postgres.url,
        "create or replace function auth.uid() returns uuid language sql as 'select null::uuid'",
      ),
    ).rejects.toThrow("permission denied for schema auth");
    await query(
      postgres.url,
      `begin;
       create table public.profile (id uuid primary key references auth.users (id));
       create function public.react() returns trigger language plpgsql as 'begin return new; end';
       create trigger react after insert on auth.users for each row execute function public.react();
       insert into auth.users (id, email) values (gen_random_uuid(), 'a@example.com');
       rollback`,
    );
  });

  test("answers who is asking, from either form of the claims", async () => {
    const id = "11111111-1111-4111-8111-111111111111";
    const ask = (settings: string) =>
      query(postgres.url, `select auth.uid() as id, auth.role() as role from (${settings}) as s`);
    const claims = JSON.stringify({ sub: id, role: "authenticated" });
    expect(await ask(`select set_config('request.jwt.claims', '${claims}', false)`)).toEqual([
      { id, role: "authenticated" },
    ]);
    expect(await ask(`select set_config('request.jwt.claim.sub', '${id}', false)`)).toEqual([
      { id, role: null },
    ]);
    expect(await ask("select set_config('request.jwt.claims', '', false)")).toEqual([
      { id: null, role: null },
    ]);
  });

  test("is the same after a second bootstrap", async () => {
    const state = () =>
      query(
        postgres.adminUrl,
        `select 'acl ' || oid::regclass as what, relacl::text as value
         from pg_class where relnamespace in ('auth'::regnamespace, to_regnamespace('cron'))
         union all
         select 'default ' || defaclrole::regrole || ' ' || defaclobjtype::text, defaclacl::text
         from pg_default_acl
         union all
         select 'schema ' || nspname, nspacl::text from pg_namespace
         union all
         select 'member ' || roleid::regrole || ' ' || member::regrole, to_jsonb(m)::text
         from pg_auth_members as m
         union all
         select 'role ' || rolname, rolconfig::text from pg_roles
         order by 1, 2`,
      );
    const before = await state();
    await bootstrap(postgres.adminUrl ?? "");
    expect(await state()).toEqual(before);
    expect(await roles(postgres.adminUrl)).toEqual(hostedRoles);
  });

  test("lets postgres schedule jobs where pg_cron is", async ({ skip }) => {
    if (!postgres.hasCron) skip("this Postgres has no pg_cron");
    await query(postgres.url, "select cron.schedule('test', '0 0 1 1 *', 'select 1')");
    expect(await query(postgres.url, "select username from cron.job")).toEqual([
      { username: "postgres" },
    ]);
    await query(postgres.url, "select cron.unschedule('test')");
    await expect(query(postgres.url, "delete from cron.job where true")).rejects.toThrow(
      "permission denied",
    );
  });
});

describe("starting", () => {
  const again = () =>
    startPostgres({ directory: folder("main"), port: postgres.port, keepRunning: true, ...quiet });

  test("a second time finds the same server", async () => {
    const before = await clusterAt(folder("main"));
    const second = await again();
    expect(second.url).toBe(postgres.url);
    expect(await clusterAt(folder("main"))).toEqual(before);
    await second.stop();
    expect(await clusterAt(folder("main"))).toEqual(before);
  });

  test("on a busy port is refused, and says which", async () => {
    const start = startPostgres({ directory: folder("second"), port: postgres.port, ...quiet });
    await expect(start).rejects.toThrow(`Port ${postgres.port} is in use`);
    await expect(start).rejects.toBeInstanceOf(UserError);
  });

  test("does not touch a folder that holds something else, or another version's data", async () => {
    const port = await freePort();
    mkdirSync(folder("foreign/data"), { recursive: true });
    writeFileSync(folder("foreign/data/thesis.txt"), "years of work");
    await expect(
      startPostgres({ directory: folder("foreign"), port, fresh: true, ...quiet }),
    ).rejects.toThrow("is no Postgres cluster");
    expect(readFileSync(folder("foreign/data/thesis.txt"), "utf8")).toBe("years of work");

    mkdirSync(folder("old/data"), { recursive: true });
    writeFileSync(folder("old/data/PG_VERSION"), "9\n");
    await expect(startPostgres({ directory: folder("old"), port, ...quiet })).rejects.toThrow(
      "is of Postgres 9",
    );
    expect(readFileSync(folder("old/data/PG_VERSION"), "utf8")).toBe("9\n");
  });

  test("after a crash brings the data back, even if the process id means another program", async () => {
    await query(postgres.url, "create table public.kept as select 1 as n");
    // A quick cluster does not wait for the disk when it commits.
    await query(postgres.adminUrl, "checkpoint");
    for (const forge of [false, true]) {
      const { pid } = (await clusterAt(folder("main"))) ?? { pid: 0 };
      process.kill(pid, "SIGKILL");
      const file = folder("main/data/postmaster.pid");
      await waitUntil("the crash", async () => runningCluster(folder("main")) === null);
      if (forge) {
        // The server's children notice on their own; nothing may be alive before the file is forged.
        await new Promise((resolve) => setTimeout(resolve, 500));
        const lines = readFileSync(file, "utf8").split("\n");
        writeFileSync(file, [process.pid, ...lines.slice(1)].join("\n"));
      }
      const revived = await again();
      expect(await query(revived.url, "select n from public.kept")).toEqual([{ n: 1 }]);
      expect((await clusterAt(folder("main")))?.pid).not.toBe(pid);
    }
  });

  test("with a given URL uses that database as it is", async () => {
    const given = await startPostgres({
      directory: folder("unused"),
      port: 1,
      databaseUrl: postgres.url,
      ...quiet,
    });
    expect(given).toMatchObject({ kind: "given", url: postgres.url, adminUrl: null });
    expect(given.version).toBe(postgres.version);
    await expect(
      startPostgres({
        directory: folder("unused"),
        port: 1,
        databaseUrl: `postgresql://postgres:wrong@127.0.0.1:${postgres.port}/postgres`,
        ...quiet,
      }),
    ).rejects.toThrow("DATABASE_URL cannot be reached: password authentication failed");
  });
});

describe("migrate and seed", () => {
  test("apply each file once, and keep their history out of public", async () => {
    const files = folder("migrations");
    mkdirSync(files);
    writeFileSync(join(files, "0001_one.sql"), "create table public.one (n integer);\n");
    writeFileSync(join(files, "0002_two.sql"), "create table public.two (n integer);\n");
    expect(await migrate(postgres.url, files)).toEqual(["0001_one", "0002_two"]);
    expect(await migrate(postgres.url, files)).toEqual([]);
    expect(
      await query(
        postgres.url,
        "select schemaname from pg_tables where tablename = 'pgmigrations'",
      ),
    ).toEqual([{ schemaname: "node_pg_migrate" }]);

    writeFileSync(join(files, "0003_three.sql"), "create table public.three (n integer);\n");
    writeFileSync(join(files, "0004_four.sql"), "select 1;\n\nselect *\nfrom public.nowhere;\n");
    await expect(migrate(postgres.url, files)).rejects.toThrow(
      `${join(files, "0004_four.sql")}:4: relation "public.nowhere" does not exist (42P01)`,
    );
    expect(await query(postgres.url, "select to_regclass('public.three') as three")).toEqual([
      { three: null },
    ]);
  });

  test("seed is all or nothing", async () => {
    const file = folder("seed.sql");
    writeFileSync(file, "create table public.seeded ();\nselect 1 / 0;\n");
    await expect(seed(postgres.url, [file])).rejects.toThrow("division by zero");
    writeFileSync(file, "create table public.seeded ();\n");
    await seed(postgres.url, [file]);
    await expect(seed(postgres.url, [folder("none.sql")])).rejects.toThrow("There is no");
  });
});

describe("the embedded Postgres", () => {
  test("starts, is a hosted project in all but pg_cron, and ends", async () => {
    const embedded = await startPostgres({
      directory: folder("embedded"),
      port: await freePort(),
      kind: "embedded",
      ...quiet,
    });
    expect(embedded).toMatchObject({ kind: "embedded", hasCron: false, hasTap: false });
    expect(embedded.version).toMatch(/^18\./);
    expect(await roles(embedded.adminUrl)).toEqual(hostedRoles);
    await embedded.stop();
    expect(await clusterAt(folder("embedded"))).toBeNull();
  });
});

describe("the scripts", () => {
  const script = (name: string, ...args: string[]) =>
    run(process.execPath, ["--import", "tsx", `scripts/${name}.ts`, ...args], {
      cwd: root,
      env: { ...process.env, NO_COLOR: "1" },
    });
  const urls = (output: string) =>
    output.split("\n").filter((line) => line.includes("postgresql://"));

  test("db-up leaves a server running, db-up finds it again, db-down ends it", async () => {
    const directory = ["--directory", folder("up")];
    const port = String(await freePort());
    const first = await script("db-up", ...directory, "--port", port);
    expect(first).toMatchObject({ code: 0, stderr: "" });
    expect(urls(first.stdout)).toEqual([
      `postgres:       postgresql://postgres:postgres@127.0.0.1:${port}/postgres`,
      `supabase_admin: postgresql://supabase_admin:postgres@127.0.0.1:${port}/postgres`,
    ]);

    await query(`postgresql://postgres:postgres@127.0.0.1:${port}/postgres`, "create table t ()");
    const second = await script("db-up", ...directory);
    expect(urls(second.stdout)).toEqual(urls(first.stdout));
    await query(`postgresql://postgres:postgres@127.0.0.1:${port}/postgres`, "select from t");

    expect(await script("db-down", ...directory, "--delete")).toMatchObject({ code: 0 });
    expect(await clusterAt(folder("up"))).toBeNull();
  });

  test("say in one line what is wrong with their arguments", async () => {
    const wrong = [
      ["db-migrate", [], "The database URL is missing. See --help."],
      ["db-migrate", ["nonsense"], '"nonsense" is no database URL; it begins with postgresql://'],
      ["db-seed", ["postgresql://a", "b"], '"b" is one argument too many. See --help.'],
      ["db-down", ["--what"], "Unknown option '--what'. See --help."],
      ["db-up", ["--port", "high"], '"high" is not a port.'],
    ] as const;
    for (const [name, args, message] of wrong) {
      const result = await script(name, ...args);
      expect(result).toEqual({ code: 1, stdout: "", stderr: `✗ ${message}\n` });
    }
  });
});
