/** One of the processes that hand events over: told what by its parent, it answers how long each call took. */

import { performance } from "node:perf_hooks";
import { createContender, type Contender, type ContenderKey } from "./contenders.ts";

export interface Job {
  contender: ContenderKey;
  ownerUrl: string;
  serviceUrl: string;
  connections: number;
  /** Handed over before: a server process has compiled and planned everything when time is taken. */
  warmUp: string[][];
  /** Lives; the events of one are handed over one after the other. */
  lives: string[][];
}

export interface JobResult {
  events: number;
  /** Milliseconds since the epoch. */
  begun: number;
  ended: number;
  /** Of each call, in milliseconds. */
  latencies: number[];
  /** Of this process, in milliseconds. */
  cpu: number;
}

export type FromParent = { job: Job } | { go: true } | { end: true };
export type FromWorker = { ready: true } | { result: JobResult } | { error: string };

let job: Job | undefined;
let contender: Contender | undefined;

process.on("message", (message: FromParent) => {
  handle(message).then(answer, (error: unknown) => answer({ error: String(error) }));
});
process.on("disconnect", () => process.exit(0));

function answer(message: FromWorker | undefined): void {
  if (message !== undefined) process.send?.(message);
}

async function handle(message: FromParent): Promise<FromWorker | undefined> {
  if ("job" in message) {
    job = message.job;
    contender = await createContender(job.contender, job);
    await handOver({ ...job, lives: job.warmUp }, contender);
    return { ready: true };
  }
  if ("go" in message && job !== undefined && contender !== undefined) {
    return { result: await handOver(job, contender) };
  }
  await contender?.stop();
  contender = undefined;
  return { ready: true };
}

async function handOver({ lives, connections }: Job, taker: Contender): Promise<JobResult> {
  const queue = grouped(lives, taker.batch);
  const latencies: number[] = [];
  const cpuBefore = process.cpuUsage();
  const begun = performance.timeOrigin + performance.now();
  const connection = async () => {
    for (let calls = queue.shift(); calls !== undefined; calls = queue.shift()) {
      for (const payloads of calls) {
        const before = performance.now();
        await taker.take(payloads);
        latencies.push(performance.now() - before);
      }
    }
  };
  await Promise.all(Array.from({ length: connections }, connection));
  const ended = performance.timeOrigin + performance.now();
  const { user, system } = process.cpuUsage(cpuBefore);
  return { events: lives.flat().length, begun, ended, latencies, cpu: (user + system) / 1_000 };
}

/** The calls of each life, or of as many lives as fill a batch. */
function grouped(lives: string[][], batch: number): string[][][] {
  if (batch === 1) return lives.map((events) => events.map((event) => [event]));
  const events = lives.flat();
  const calls: string[][][] = [];
  for (let at = 0; at < events.length; at += batch) calls.push([events.slice(at, at + batch)]);
  return calls;
}
