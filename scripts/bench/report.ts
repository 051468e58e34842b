import type { Sample, Scenario } from "./scenarios.ts";

export interface Figure {
  scenario: string;
  name: string;
  connections: number;
  /** Median of the rounds. */
  perSecond: number;
  /** Median of the rounds' ratios to the baseline. */
  ratio: number;
  /** Smallest and largest of these ratios. */
  spread: [number, number];
}

/** Each round is compared with itself alone, so that a machine that slows down slows down both. */
export function figures({ key, baseline }: Scenario, rounds: Sample[][]): Figure[] {
  const measured = rounds.map((samples) =>
    samples.map((sample) => {
      const base = samples.find(
        ({ name, connections }) => name === baseline && connections === sample.connections,
      );
      return { ...sample, ratio: base === undefined ? NaN : sample.perSecond / base.perSecond };
    }),
  );
  return (measured[0] ?? []).map(({ name, connections }) => {
    const same = measured
      .flat()
      .filter((sample) => sample.name === name && sample.connections === connections);
    const ratios = same.map(({ ratio }) => ratio);
    return {
      scenario: key,
      name,
      connections,
      perSecond: median(same.map(({ perSecond }) => perSecond)),
      ratio: median(ratios),
      spread: [Math.min(...ratios), Math.max(...ratios)],
    };
  });
}

function median(values: number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** One line per measurement, with the figures of each number of connections beside each other. */
export function table(scenario: Scenario, results: Figure[]): string {
  const counts = [...new Set(results.map(({ connections }) => connections))];
  const names = [...new Set(results.map(({ name }) => name))];
  const width = Math.max(...names.map((name) => name.length));
  const cell = (name: string, count: number) => {
    const found = results.find((each) => each.name === name && each.connections === count);
    if (found === undefined) return "".padStart(18);
    const speed = found.perSecond.toFixed(found.perSecond < 100 ? 1 : 0);
    return `${speed.padStart(10)} ${found.ratio.toFixed(2).padStart(7)}`;
  };
  const head = counts.map((count) => `${count} connection${count === 1 ? "" : "s"}`.padStart(18));
  return [
    `${"".padEnd(width)} ${head.join(" ")}`,
    ...names.map(
      (name) => `${name.padEnd(width)} ${counts.map((count) => cell(name, count)).join(" ")}`,
    ),
    `per second, and the ratio to: ${scenario.baseline}`,
  ].join("\n");
}
