/** Processes that hand events over together, so that no contender waits for one thread of Node. */

import { fork, type ChildProcess } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { fileURLToPath } from "node:url";
import type { ContenderKey } from "./contenders.ts";
import type { FromParent, FromWorker, Job, JobResult } from "./worker.ts";

export interface Handover {
  contender: ContenderKey;
  ownerUrl: string;
  serviceUrl: string;
  connections: number;
  warmUp: string[][];
  lives: string[][];
  /** Called when all are warm. */
  onStart(): Promise<void>;
}

export interface HandoverResult {
  events: number;
  perSecond: number;
  /** Of calls, in milliseconds. */
  p99: number;
  /** Per event in milliseconds; of the server NaN where the system does not tell. */
  clientCpu: number;
  serverCpu: number;
}

export interface Workers {
  run(handover: Handover): Promise<HandoverResult>;
  stop(): void;
}

export function startWorkers({ serverPid }: { serverPid: number }): Workers {
  const file = fileURLToPath(new URL("worker.ts", import.meta.url));
  const children = Array.from({ length: availableParallelism() }, () =>
    fork(file, { execArgv: ["--disable-warning=ExperimentalWarning", "--import", "tsx"] }),
  );
  return {
    async run(handover) {
      const jobs = split(handover, children.length);
      const used = children.slice(0, jobs.length);
      await tell(used, (index) => ({ job: jobs[index] as Job }));
      await handover.onStart();
      const before = cpuOfChildren(serverPid);
      const answers = await tell(used, () => ({ go: true }));
      const serverCpu = cpuOfChildren(serverPid) - before;
      await tell(used, () => ({ end: true }));
      return summary(
        answers.flatMap((each) => ("result" in each ? [each.result] : [])),
        serverCpu,
      );
    },
    stop: () => children.forEach((child) => child.disconnect()),
  };
}

function split(handover: Handover, processes: number): Job[] {
  const { contender, ownerUrl, serviceUrl, connections, warmUp, lives } = handover;
  const count = Math.min(connections, processes);
  return Array.from({ length: count }, (_, index) => {
    const share = (all: string[][]) => all.filter((_life, number) => number % count === index);
    return {
      contender,
      ownerUrl,
      serviceUrl,
      connections: connections / count,
      warmUp: share(warmUp),
      lives: share(lives),
    };
  });
}

async function tell(
  children: ChildProcess[],
  message: (index: number) => FromParent,
): Promise<FromWorker[]> {
  return Promise.all(
    children.map(
      (child, index) =>
        new Promise<FromWorker>((resolve, reject) => {
          child.once("message", (answer: FromWorker) =>
            "error" in answer ? reject(new Error(answer.error)) : resolve(answer),
          );
          child.send(message(index));
        }),
    ),
  );
}

function summary(results: JobResult[], serverCpu: number): HandoverResult {
  const total = (of: (result: JobResult) => number) =>
    results.reduce((sum, result) => sum + of(result), 0);
  const events = total((result) => result.events);
  const begun = Math.min(...results.map((result) => result.begun));
  const ended = Math.max(...results.map((result) => result.ended));
  const latencies = results.flatMap((result) => result.latencies).sort((one, other) => one - other);
  return {
    events,
    perSecond: (events * 1_000) / (ended - begun),
    p99: latencies[Math.floor(latencies.length * 0.99)] ?? NaN,
    clientCpu: total(({ cpu }) => cpu) / events,
    serverCpu: serverCpu / events,
  };
}

/** Milliseconds the server's processes have computed so far, where /proc tells. */
function cpuOfChildren(serverPid: number): number {
  const tick = 10;
  try {
    const pids = readdirSync("/proc").filter((entry) => /^\d+$/.test(entry));
    let ticks = 0;
    for (const pid of pids) {
      const fields = statistics(pid);
      // Parent, then user and system time, counted from behind the name, which may hold anything.
      if (fields[1] !== String(serverPid)) continue;
      ticks += Number(fields[11]) + Number(fields[12]);
    }
    return ticks * tick;
  } catch {
    return NaN;
  }
}

function statistics(pid: string): string[] {
  try {
    const line = readFileSync(`/proc/${pid}/stat`, "utf8");
    return line.slice(line.lastIndexOf(")") + 2).split(" ");
  } catch {
    return [];
  }
}
