import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Api } from "./api.ts";

export interface HttpAnswer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

/** A part of the server: answers null for a path that is not its own. */
export type Section = (request: {
  method: string;
  url: URL;
  body: string;
}) => Promise<HttpAnswer | null>;

const bodyLimit = 1024 * 1024;

/** Serves the API under /v1 and the other sections beside it, on this machine only. */
export async function startServer({
  port,
  api,
  sections,
}: {
  port: number;
  api: Api;
  sections: Section[];
}): Promise<{ port: number; stop(): Promise<void> }> {
  const server = createServer((request, response) => {
    answer(request, response, api, sections).catch((error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      if (response.headersSent) response.destroy();
      else
        send(response, { status: 500, headers: { "content-type": "text/plain" }, body: message });
    });
  });
  await listen(server, port);
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : port,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  api: Api,
  sections: Section[],
): Promise<void> {
  const method = request.method ?? "GET";
  const url = new URL(request.url ?? "/", "http://localhost");
  const body = await readBody(request);

  if (url.pathname.startsWith("/v1/") || url.pathname.startsWith("/v2/")) {
    const result = await api.handle({
      method,
      path: url.pathname,
      query: url.search,
      body,
      header: (name) => request.headers[name]?.toString(),
    });
    if (result === null) request.socket.destroy();
    else send(response, result);
    return;
  }
  for (const section of sections) {
    const result = await section({ method, url, body });
    if (result === null) continue;
    send(response, result);
    return;
  }
  send(response, {
    status: 404,
    headers: { "content-type": "text/plain" },
    body: `There is nothing at ${url.pathname}. GET /_control lists what the simulator can be told.\n`,
  });
}

function send(response: ServerResponse, { status, headers, body }: HttpAnswer): void {
  response.writeHead(status, { ...headers, "content-length": Buffer.byteLength(body) }).end(body);
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request) {
    const bytes = Buffer.from(chunk as Uint8Array);
    length += bytes.length;
    if (length > bodyLimit) throw new Error("The request body is larger than 1 MiB.");
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      server.off("error", reject);
      resolve();
    });
  });
}
