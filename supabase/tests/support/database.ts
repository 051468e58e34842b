import { Client } from "pg";
import { inDatabase, templateName, withAdmin } from "../../../scripts/checks/test-cluster.ts";
import { sharedCluster, type SharedCluster } from "./cluster.ts";

/** A migrated, unseeded database that belongs to one test file. */
export interface TestDatabase {
  /** As role postgres, which is not a superuser. */
  url: string;
  /** As supabase_admin. */
  adminUrl: string;
  /**
   * A new connection: as postgres, or as one of the API's roles with these JWT claims, which hold for the
   * whole session.
   */
  connect(role?: ApiRole, claims?: Record<string, unknown>): Promise<Client>;
  /** Ends the connections that are left and removes the database. */
  drop(): Promise<void>;
}

export type ApiRole = "anon" | "authenticated" | "service_role";

let made = 0;

/** Copies the migrated database of the tests' cluster, or of another one; a copy takes a fraction of a second. */
export async function createTestDatabase(of?: SharedCluster): Promise<TestDatabase> {
  const cluster = of ?? (await sharedCluster());
  made += 1;
  const name = `pg_subscriptions_test_${process.pid}_${made}`;
  await withAdmin(cluster.adminUrl, (client) =>
    client.query(`create database ${name} template ${templateName} owner postgres`),
  );
  const url = inDatabase(cluster.url, name);
  const clients: Client[] = [];

  return {
    url,
    adminUrl: inDatabase(cluster.adminUrl, name),
    connect: async (role, claims = {}) => {
      const client = new Client({ connectionString: url });
      await client.connect();
      clients.push(client);
      if (role !== undefined) await actAs(client, role, claims);
      return client;
    },
    drop: async () => {
      await Promise.all(clients.map((client) => client.end()));
      await withAdmin(cluster.adminUrl, (client) =>
        client.query(`drop database if exists ${name} with (force)`),
      );
    },
  };
}

/** Makes a session look as the Data API's do: its role, and the token's claims as it passes them on. */
async function actAs(
  client: Client,
  role: ApiRole,
  claims: Record<string, unknown>,
): Promise<void> {
  const settings = {
    role,
    "request.jwt.claims": JSON.stringify({ role, ...claims }),
    // Supabase Lite's auth.uid() reads this one.
    "request.jwt.claim.sub": String(claims["sub"] ?? ""),
  };
  for (const [name, value] of Object.entries(settings)) {
    await client.query("select set_config($1, $2, false)", [name, value]);
  }
}
