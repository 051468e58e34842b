import { readFileSync } from "node:fs";
import type { SpawnOptions } from "node:child_process";
import { startService, waitUntil, type Service } from "../lib/processes.ts";

export interface ChildOptions {
  name: string;
  command: string;
  args: string[];
  /** Its whole environment: nothing of this program's leaks into it. */
  env: Record<string, string | undefined>;
  cwd: string;
  logFile: string;
  ready: () => Promise<boolean>;
  timeoutMs?: number;
}

/**
 * Starts a process and waits until it answers. One that ends or stays silent is stopped, and its last words
 * are the error. It does not outlive this program, however that ends short of SIGKILL.
 */
export async function startChild(options: ChildOptions): Promise<Service> {
  const { name, command, args, env, cwd, logFile, ready, timeoutMs = 30_000 } = options;
  // The type wants NODE_ENV, which tools other than this one add to it.
  const spawnOptions = { cwd, env } as SpawnOptions;
  const service = startService(name, command, args, logFile, spawnOptions);
  const endWithProgram = () => {
    try {
      process.kill(service.pid, "SIGTERM");
    } catch {
      // It has ended already.
    }
  };
  process.once("exit", endWithProgram);
  let exitCode: number | undefined;
  void service.exited.then((code) => {
    exitCode = code;
    process.removeListener("exit", endWithProgram);
  });

  try {
    await waitUntil(name, async () => exitCode !== undefined || (await ready()), timeoutMs);
    if (exitCode !== undefined) throw new Error(`${name} ended with code ${exitCode}.`);
    return service;
  } catch (error) {
    await service.stop();
    const message = error instanceof Error ? error.message : String(error);
    throw new Error([message, ...lastLines(logFile)].join("\n"));
  }
}

function lastLines(file: string): string[] {
  try {
    return readFileSync(file, "utf8").trimEnd().split("\n").slice(-10);
  } catch {
    return [];
  }
}

/** Whether something answers HTTP there, with whatever status. */
export async function answers(url: string): Promise<boolean> {
  const response = await fetch(url, { signal: AbortSignal.timeout(2_000) });
  await response.arrayBuffer();
  return true;
}
