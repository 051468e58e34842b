import {
  createServer,
  request as forward,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";

export interface GatewayOptions {
  port: number;
  /** Where the Data API and Auth are. */
  apiUrl: string;
  /** Where each function listens, by name; looked up at every request. */
  functions: Record<string, string>;
  /** Where `/` and `/studio` lead. */
  studioUrl: string;
}

export interface Gateway {
  url: string;
  stop(): Promise<void>;
}

/** Concern one connection, not the message (RFC 9110 §7.6.1). */
const hopByHop = [
  ...["connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"],
  // Answered here already.
  "expect",
];

/**
 * Puts Data API, Auth and functions under one URL, as a hosted project does. Bodies and headers pass
 * untouched, so that a webhook's signature still fits what arrives.
 */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const server = createServer((request, response) => route(options, request, response));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(options.port, "127.0.0.1", resolve);
  });
  return {
    url: `http://127.0.0.1:${options.port}`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function route(
  { apiUrl, functions, studioUrl }: GatewayOptions,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const url = parse(request.url ?? "/");
  if (url === null) return answer(response, 400, { message: "the request's path is not valid" });
  const [, area, version, name = ""] = url.pathname.split("/");

  if (area === "functions" && version === "v1") {
    const target = Object.hasOwn(functions, name) ? functions[name] : undefined;
    if (target !== undefined) return proxy(`function ${name}`, target, url, request, response);
    return answer(response, 404, {
      code: "NOT_FOUND",
      message: "Requested function was not found",
    });
  }
  if (area === "rest" && version === "v1") {
    // Lite takes a local request without a key for Studio's and lets it do everything; a host does not.
    if (request.method !== "OPTIONS" && !hasKey(request, url)) {
      return answer(response, 401, {
        message: "No API key found in request",
        hint: "No `apikey` request header or url param was found.",
      });
    }
    return proxy("Data API", apiUrl, url, request, response);
  }
  if (area === "auth" && version === "v1") return proxy("Auth", apiUrl, url, request, response);
  if (area === "" || area === "studio") {
    response.writeHead(302, { location: `${studioUrl}/` }).end();
    return;
  }
  answer(response, 404, { message: "no Route matched with those values" });
}

/** Resolves dot segments, so that what is decided here is about the path the upstream sees. */
function parse(target: string): URL | null {
  try {
    return new URL(`http://gateway${target}`);
  } catch {
    return null;
  }
}

function hasKey(request: IncomingMessage, url: URL): boolean {
  return Boolean(request.headers["apikey"]) || Boolean(url.searchParams.get("apikey"));
}

function proxy(
  name: string,
  target: string,
  url: URL,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const { hostname, port } = new URL(target);
  const upstream = forward({
    hostname,
    port,
    method: request.method,
    path: url.pathname + url.search,
    headers: withoutHopByHop(request.headers),
    agent: false,
  });

  upstream.on("response", (reply) => {
    response.writeHead(
      reply.statusCode ?? 502,
      reply.statusMessage,
      withoutHopByHop(reply.headers),
    );
    reply.pipe(response);
    reply.on("error", () => response.destroy());
  });
  upstream.on("error", () => {
    if (response.headersSent) return response.destroy();
    answer(response, 502, {
      success: false,
      error: { code: "BAD_GATEWAY", message: `${name} of the local stack does not answer` },
    });
  });
  response.on("close", () => upstream.destroy());
  request.pipe(upstream);
}

function withoutHopByHop(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !hopByHop.includes(name)));
}

/** Applications in a browser must be able to read the failure too. */
function answer(response: ServerResponse, status: number, body: object): void {
  response
    .writeHead(status, {
      "content-type": "application/json; charset=utf-8",
      "access-control-allow-origin": "*",
    })
    .end(JSON.stringify(body));
}
