import { createServer } from "node:net";
import { UserError } from "./terminal.ts";

/** Ports of `npm start` and `npm run db:up`; each can be moved by its environment variable. Tests take free ones. */
export const defaultPorts = {
  api: { variable: "PG_SUBSCRIPTIONS_API_PORT", port: 55321 },
  database: { variable: "PG_SUBSCRIPTIONS_DB_PORT", port: 55322 },
  lite: { variable: "PG_SUBSCRIPTIONS_LITE_PORT", port: 55323 },
  functions: { variable: "PG_SUBSCRIPTIONS_FUNCTIONS_PORT", port: 55324 },
  dbUp: { variable: "PG_SUBSCRIPTIONS_DB_UP_PORT", port: 55326 },
  stripe: { variable: "PG_SUBSCRIPTIONS_STRIPE_PORT", port: 55325 },
} as const;

export type PortName = keyof typeof defaultPorts;

/** The configured port of a service; a busy one is an error that says how to choose another. */
export async function requirePort(name: PortName): Promise<number> {
  const { variable, port: standard } = defaultPorts[name];
  const port = Number(process.env[variable] ?? standard);
  if (!Number.isInteger(port) || port < 1 || port > 65_535) {
    throw new UserError(`${variable} is not a port: ${process.env[variable]}`);
  }
  if (!(await isFree(port))) {
    throw new UserError(
      `Port ${port} (${name}) is in use. Set ${variable} to a free one and try again.`,
    );
  }
  return port;
}

/** A port nobody listens on now. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}

/** Whether nobody listens on this port now. */
export function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
