// scripts/stack/lite: Supabase Lite answers as PostgREST would, and leaves the database as it found it.

import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createClient } from "@supabase/supabase-js";
import type { Client } from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import ws from "ws";
import { freePort } from "../../../scripts/lib/ports.ts";
import { exposedSchemas } from "../../../scripts/stack/index.ts";
import { createKeys, keepKeys } from "../../../scripts/stack/keys.ts";
import { startLite, type Lite } from "../../../scripts/stack/lite.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";

const directory = mkdtempSync(join(tmpdir(), "pg-subscriptions-lite-"));
const keys = createKeys();
let database: TestDatabase;
let postgres: Client;
let lite: Lite;
let before: unknown;

const sample = `
  create function public.echo(document jsonb)
  returns jsonb
  language sql
  stable
  as $$ select jsonb_build_object('type', jsonb_typeof(document), 'value', document) $$;

  create function public.moment()
  returns table (at timestamptz, tags text[])
  language sql
  stable
  as $$ select timestamptz '2026-01-31 10:00:00.5+00', array['a', 'b'] $$;

  create function public.request()
  returns jsonb
  language sql
  stable
  as $$
    select jsonb_build_object(
      'role', current_user,
      'user', auth.uid(),
      'email', auth.email(),
      'request_id', current_setting('request.headers', true)::jsonb ->> 'x-request-id',
      'time limit', current_setting('statement_timeout')
    )
  $$;

  create function public.refuse()
  returns void
  language plpgsql
  as $$
  begin
    raise sqlstate 'PT409'
      using message = 'it exists', detail = '{"code":"ALREADY_THERE"}', hint = 'go on';
  end;
  $$;
`;

/** Everything that decides who may do what. */
async function privileges(): Promise<unknown> {
  const queries = [
    "select oid::regclass::text as name, relkind, relacl::text, relrowsecurity from pg_class where relnamespace::regnamespace::text !~ '^pg_'",
    "select nspname as name, nspacl::text from pg_namespace where nspname !~ '^pg_'",
    "select oid::regprocedure::text as name, proacl::text, md5(prosrc) from pg_proc where pronamespace::regnamespace::text !~ '^pg_'",
    "select defaclrole::regrole::text as name, defaclnamespace::regnamespace::text, defaclobjtype, defaclacl::text from pg_default_acl",
    "select rolname as name, rolconfig::text, rolsuper, rolbypassrls from pg_roles",
  ];
  const results = [];
  for (const query of queries) results.push((await postgres.query(`${query} order by 1, 2`)).rows);
  return results;
}

function supabase(key: string) {
  return createClient(lite.url, key, {
    auth: { persistSession: false },
    realtime: { transport: ws as never },
  });
}

beforeAll(async () => {
  database = await createTestDatabase();
  postgres = await database.connect();
  await postgres.query(sample);
  before = await privileges();
  lite = await startLite({
    databaseUrl: database.url,
    port: await freePort(),
    schemas: exposedSchemas,
    directory,
    keys,
  });
});

afterAll(async () => {
  await lite.stop();
  await database.drop();
  rmSync(directory, { recursive: true });
});

test("signing up gives a session at once, whose user the database knows", async () => {
  const client = supabase(keys.publishable);
  const email = "reader@example.com";
  const { data, error } = await client.auth.signUp({ email, password: "long-enough-1" });
  expect(error).toBeNull();
  expect(data.session?.access_token).toBeTruthy();

  const { rows } = await postgres.query("select id from auth.users where email = $1", [email]);
  expect(rows).toEqual([{ id: data.user?.id }]);

  const answer = await client.rpc("request").setHeader("x-request-id", "r-1");
  expect(answer.data).toEqual({
    role: "authenticated",
    user: data.user?.id,
    email,
    request_id: "r-1",
    "time limit": "8s",
  });
});

test("the publishable key alone is anon, the secret key the service role, no other key anybody", async () => {
  expect((await supabase(keys.publishable).rpc("request")).data).toMatchObject({ role: "anon" });
  expect((await supabase(keys.secret).rpc("request")).data).toMatchObject({
    role: "service_role",
  });
  expect((await supabase(createKeys().secret).rpc("request")).status).toBe(401);
});

test("JSON arguments arrive as what they are", async () => {
  const client = supabase(keys.publishable);
  const documents: [string, unknown][] = [
    ["object", { a: [1, { b: null }], text: 'quote " and \\u0041' }],
    ["array", [1, "2"]],
    ["number", 5],
    ["string", "plain words"],
    ["boolean", true],
  ];
  for (const [type, document] of documents) {
    const { data } = await client.rpc("echo", { document });
    expect(data).toEqual({ type, value: document });
  }
});

test("timestamps and arrays come as PostgREST writes them", async () => {
  const { data } = await supabase(keys.publishable).rpc("moment");
  expect(data).toEqual([{ at: "2026-01-31T10:00:00.5+00:00", tags: ["a", "b"] }]);
});

test("an error's SQLSTATE PTxyz is the answer's status", async () => {
  const { status, error } = await supabase(keys.publishable).rpc("refuse");
  expect(status).toBe(409);
  expect(error).toMatchObject({
    code: "PT409",
    message: "it exists",
    details: '{"code":"ALREADY_THERE"}',
    hint: "go on",
  });
});

test("the private schema is not exposed to any key", async () => {
  const answer = await supabase(keys.secret).schema("billing_private").from("commands").select();
  expect(answer.status).toBe(406);
});

test("Studio, which has no key, sees the exposed schemas' tables and views, and no others", async () => {
  const response = await fetch(`${lite.url}/_system/introspect`);
  const { tables } = (await response.json()) as { tables: { schema: string; name: string }[] };
  const names = tables.map(({ schema, name }) => `${schema}.${name}`);
  expect(names).toContain("billing.plans");
  expect(names).toContain("billing_admin.system_health");
  expect(tables.filter(({ schema }) => !exposedSchemas.includes(schema))).toEqual([]);

  const rows = await fetch(`${lite.url}/rest/v1/system_health`, {
    headers: { "accept-profile": "billing_admin" },
  });
  expect(rows.status).toBe(200);
});

test("after all of that, no privilege, function, relation or role is other than before", async () => {
  expect(await privileges()).toEqual(before);
});

describe("a start that fails", () => {
  const start = (changes: Partial<Parameters<typeof startLite>[0]>) =>
    startLite({
      databaseUrl: database.url,
      port: 0,
      schemas: exposedSchemas,
      directory: join(directory, "other"),
      keys,
      ...changes,
    });

  test("says so when the database cannot be reached", async () => {
    const databaseUrl = `postgresql://postgres:postgres@127.0.0.1:${await freePort()}/postgres`;
    await expect(start({ databaseUrl })).rejects.toThrow(/ECONNREFUSED/);
  });

  test("shows what Lite said when its port is taken", async () => {
    const intruder = createServer((socket) => socket.destroy());
    const port = await freePort();
    await new Promise<void>((resolve) => intruder.listen(port, "127.0.0.1", resolve));
    try {
      await expect(start({ port })).rejects.toThrow(
        /Supabase Lite ended with code 1[^]*already in use/,
      );
    } finally {
      await new Promise((resolve) => intruder.close(resolve));
    }
  });
});

test("keys are made once per folder", () => {
  const folder = join(directory, "keys");
  const first = keepKeys(folder);
  expect(first.publishable).toMatch(/^sb_publishable_[\w-]{22}_[\w-]{8}$/);
  expect(first.secret).toMatch(/^sb_secret_[\w-]{22}_[\w-]{8}$/);
  expect(keepKeys(folder)).toEqual(first);
});
