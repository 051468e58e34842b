import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { run } from "../lib/processes.ts";
import { UserError } from "../lib/terminal.ts";

/** One statement, sent again and again over some connections as one role. */
export interface Load {
  statement: string;
  /** Who asks: as PostgREST does it, a role of its own with claims set. */
  role: "authenticated" | "service_role";
  /** The signed-in user. */
  user?: string;
  connections: number;
  /** How long, or how often in all; `:n` counts the transactions on from `first`. */
  length: { seconds: number } | { transactions: number; first: number };
}

export interface Pgbench {
  /** Statements per second. Fails when one of them fails. */
  run(load: Load): Promise<number>;
}

interface PgbenchDeps {
  binDir: string;
  port: number;
  database: string;
  /** Where script files may be written. */
  folder: string;
}

/** pgbench comes with every server package, but not with the Postgres from npm. */
export async function createPgbench(deps: PgbenchDeps): Promise<Pgbench> {
  const program = await find(deps.binDir);
  mkdirSync(deps.folder, { recursive: true });
  return { run: (load) => measure(program, deps, load) };
}

async function find(binDir: string): Promise<string> {
  for (const program of [join(binDir, "pgbench"), "pgbench"]) {
    if ((await run(program, ["--version"])).code === 0) return program;
  }
  throw new UserError(
    "There is no pgbench. Install Postgres's server package (postgresql, or postgresql-contrib) and try again.",
  );
}

async function measure(program: string, deps: PgbenchDeps, load: Load): Promise<number> {
  const { connections, length } = load;
  const file = join(deps.folder, "statement.pgbench");
  // Each connection counts for itself; together they meet every number once.
  writeFileSync(
    file,
    `\\set i :i + 1\n\\set n :first + :i * :connections + :client_id\n${load.statement};\n`,
  );

  const result = await run(
    program,
    [
      ...["--no-vacuum", "--protocol=prepared", `--client=${connections}`],
      `--jobs=${Math.min(connections, 2)}`,
      ...("seconds" in length
        ? [`--time=${length.seconds}`, "--define=first=0"]
        : [
            `--transactions=${Math.floor(length.transactions / connections)}`,
            `--define=first=${length.first}`,
          ]),
      ...["--define=i=-1", `--define=connections=${connections}`, `--file=${file}`],
      ...["--host=127.0.0.1", `--port=${deps.port}`, "--username=authenticator", deps.database],
    ],
    {
      env: {
        PATH: process.env["PATH"],
        LC_ALL: "C",
        PGPASSWORD: "postgres",
        PGOPTIONS: options(load),
      },
    },
  );
  const rate = /^tps = ([0-9.]+) \(without initial/m.exec(result.stdout)?.[1];
  if (result.code !== 0 || rate === undefined || /failed transactions: [1-9]/.test(result.stdout)) {
    throw new Error(`pgbench failed on: ${load.statement}\n${result.stderr.trim()}`);
  }
  return Number(rate);
}

function options({ role, user }: Load): string {
  const issuer = "http://127.0.0.1:54321/auth/v1";
  const claims = JSON.stringify({ role, ...(user !== undefined && { sub: user, iss: issuer }) });
  return `-c role=${role} -c request.jwt.claims=${claims} -c statement_timeout=0`;
}
