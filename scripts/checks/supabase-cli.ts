import { join } from "node:path";
import { run, type RunResult } from "../lib/processes.ts";
import { projectRoot } from "./index.ts";

/**
 * Runs the Supabase CLI from node_modules. The databases it meets here are local and speak no TLS,
 * which it would otherwise remark on in the middle of its output.
 */
export function supabase(args: string[], workdir = projectRoot): Promise<RunResult> {
  const script = join(projectRoot, "node_modules/supabase/dist/supabase.js");
  return run(process.execPath, [script, ...args, "--workdir", workdir], {
    env: {
      ...process.env,
      SUPABASE_TELEMETRY_DISABLED: "1",
      DO_NOT_TRACK: "1",
      NO_COLOR: "1",
      PGSSLMODE: "disable",
    },
  });
}

/** What a command printed as JSON under `results`; anything else is an error with its words. */
export function resultsOf<T>({ stdout, stderr }: RunResult): T[] {
  const start = stdout.indexOf("{");
  const answer: unknown = start === -1 ? undefined : JSON.parse(stdout.slice(start));
  if (typeof answer !== "object" || answer === null || !("results" in answer)) {
    throw new Error((stderr || stdout).trim());
  }
  return answer.results as T[];
}
