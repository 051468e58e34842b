// scripts/stack/gateway: one URL for API, Auth and functions, through which everything passes untouched.

import { createHash, randomBytes } from "node:crypto";
import {
  createServer,
  request,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type Server,
} from "node:http";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { freePort, isFree } from "../../../scripts/lib/ports.ts";
import { startGateway, type Gateway } from "../../../scripts/stack/gateway.ts";

interface Seen {
  upstream: string;
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  body: Buffer;
}

let seen: Seen[] = [];
const upstreams: Server[] = [];
let gateway: Gateway;

async function startUpstream(name: string): Promise<string> {
  const server = createServer(async (incoming, response) => {
    const { method = "", url = "", headers } = incoming;
    seen.push({ upstream: name, method, url, headers, body: await bodyOf(incoming) });
    response.writeHead(418, { "x-from": name, "set-cookie": ["a=1", "b=2"] });
    response.write("first ");
    response.end("second");
  });
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve));
  upstreams.push(server);
  return `http://127.0.0.1:${port}`;
}

async function bodyOf(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** Unlike fetch, leaves the path as it is. */
function rawGet(path: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const { port } = new URL(gateway.url);
    request({ host: "127.0.0.1", port, path, agent: false }, async (message) => {
      resolve({ status: message.statusCode ?? 0, text: String(await bodyOf(message)) });
    })
      .on("error", reject)
      .end();
  });
}

beforeAll(async () => {
  gateway = await startGateway({
    port: await freePort(),
    apiUrl: await startUpstream("api"),
    functions: {
      "stripe-webhook": await startUpstream("stripe-webhook"),
      gone: `http://127.0.0.1:${await freePort()}`,
    },
    studioUrl: "http://studio.example",
  });
});

beforeEach(() => {
  seen = [];
});

afterAll(async () => {
  await gateway.stop();
  for (const server of upstreams) server.close();
});

test("a function gets the exact bytes and headers that were sent, and the answer comes back whole", async () => {
  const body = randomBytes(300_000);
  const response = await fetch(`${gateway.url}/functions/v1/stripe-webhook?a=%20b`, {
    method: "POST",
    headers: { "stripe-signature": "t=1,v1=ab", "x-request-id": "r-1", "content-type": "text/x" },
    body: new Uint8Array(body),
  });

  expect(response.status).toBe(418);
  expect(response.headers.get("x-from")).toBe("stripe-webhook");
  expect(response.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
  expect(await response.text()).toBe("first second");

  const [call] = seen;
  expect(call).toMatchObject({
    method: "POST",
    url: "/functions/v1/stripe-webhook?a=%20b",
    headers: {
      host: new URL(gateway.url).host,
      "stripe-signature": "t=1,v1=ab",
      "x-request-id": "r-1",
      "content-type": "text/x",
    },
  });
  const digest = (bytes: Buffer | undefined) =>
    createHash("sha256")
      .update(bytes ?? "")
      .digest("hex");
  expect(digest(call?.body)).toBe(digest(body));
});

test("the Data API and Auth are the same server", async () => {
  await fetch(`${gateway.url}/rest/v1/plans?select=*`, { headers: { apikey: "k" } });
  await fetch(`${gateway.url}/rest/v1/plans?apikey=k`);
  await fetch(`${gateway.url}/auth/v1/signup`, { method: "POST" });
  expect(seen.map(({ upstream, url }) => [upstream, url])).toEqual([
    ["api", "/rest/v1/plans?select=*"],
    ["api", "/rest/v1/plans?apikey=k"],
    ["api", "/auth/v1/signup"],
  ]);
});

test("the Data API needs a key, which a browser's preflight does not have yet", async () => {
  const keyless = await fetch(`${gateway.url}/rest/v1/plans`);
  expect(keyless.status).toBe(401);
  expect(await keyless.json()).toMatchObject({ message: "No API key found in request" });
  expect(seen).toEqual([]);

  await fetch(`${gateway.url}/rest/v1/plans`, { method: "OPTIONS" });
  expect(seen).toHaveLength(1);
});

test("dot segments lead nowhere that has not been checked", async () => {
  expect((await rawGet("/auth/v1/../../rest/v1/plans")).status).toBe(401);
  expect((await rawGet("/auth/v1/%2e%2e/%2e%2e/rest/v1/plans")).status).toBe(401);
  expect((await rawGet("/rest/v1/../../_system/info")).status).toBe(404);
  expect(seen).toEqual([]);
});

test("a path that is no path is refused, and the gateway lives on", async () => {
  expect((await rawGet("//")).status).toBe(302);
  expect((await rawGet("@:99999")).status).toBe(400);
  expect((await rawGet("/auth/v1/health")).status).toBe(418);
});

test("an unknown function is not found", async () => {
  for (const name of ["nothing", "toString", ""]) {
    const response = await fetch(`${gateway.url}/functions/v1/${name}`);
    expect([name, response.status]).toEqual([name, 404]);
    await response.arrayBuffer();
  }
});

test("a function that does not answer is a 502 in the usual shape, which a browser may read", async () => {
  const response = await fetch(`${gateway.url}/functions/v1/gone`, { method: "POST", body: "{}" });
  expect(response.status).toBe(502);
  expect(response.headers.get("access-control-allow-origin")).toBe("*");
  expect(await response.json()).toMatchObject({ success: false, error: { code: "BAD_GATEWAY" } });
});

test("the root and /studio lead to Studio", async () => {
  for (const path of ["/", "/studio"]) {
    const response = await fetch(gateway.url + path, { redirect: "manual" });
    expect([response.status, response.headers.get("location")]).toEqual([
      302,
      "http://studio.example/",
    ]);
  }
});

test("a stopped gateway has freed its port", async () => {
  const port = await freePort();
  const other = await startGateway({ port, apiUrl: "", functions: {}, studioUrl: "" });
  expect(await isFree(port)).toBe(false);
  await other.stop();
  expect(await isFree(port)).toBe(true);
});
