import { endRun, prepareRun } from "./cluster.ts";

/** Called by vitest before the first and after the last test file. */
export async function setup(): Promise<void> {
  await prepareRun();
}

export async function teardown(): Promise<void> {
  await endRun();
}
