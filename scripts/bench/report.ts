import type { Sample, Scenario } from "./scenarios.ts";

export interface Figure {
  scenario: string;
  /** Title of the table it stands in. */
  group: string;
  name: string;
  connections: number;
  /** Median of the rounds. */
  perSecond: number;
  /** Median of the rounds' ratios to the baseline. */
  ratio: number;
  /** Smallest and largest of these ratios. */
  spread: [number, number];
  /** Medians of what else was measured. */
  details: Record<string, number>;
}

/** Each round is compared with itself alone, so that a machine that slows down slows down both. */
export function figures({ key, title, baseline }: Scenario, rounds: Sample[][]): Figure[] {
  const measured = rounds.map((samples) =>
    samples.map((sample) => {
      const base = samples.find((other) => isSame(other, { ...sample, name: baseline }));
      return { ...sample, ratio: base === undefined ? NaN : sample.perSecond / base.perSecond };
    }),
  );
  return (measured[0] ?? []).map((first) => {
    const same = measured.flat().filter((sample) => isSame(sample, first));
    const ratios = same.map(({ ratio }) => ratio);
    const details = Object.keys(first.details ?? {}).map((name) => [
      name,
      median(same.map((sample) => sample.details?.[name] ?? NaN)),
    ]);
    return {
      scenario: key,
      group: first.group ?? title,
      name: first.name,
      connections: first.connections,
      perSecond: median(same.map(({ perSecond }) => perSecond)),
      ratio: median(ratios),
      spread: [Math.min(...ratios), Math.max(...ratios)],
      details: Object.fromEntries(details) as Record<string, number>,
    };
  });
}

function isSame(one: Sample, other: Sample): boolean {
  return (
    one.group === other.group && one.name === other.name && one.connections === other.connections
  );
}

function median(values: number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** The figures of each group under its title. */
export function tables(scenario: Scenario, results: Figure[]): { title: string; text: string }[] {
  const titles = [...new Set(results.map(({ group }) => group))];
  return titles.map((title) => ({
    title,
    text: table(
      scenario,
      results.filter(({ group }) => group === title),
    ),
  }));
}

/** One line per measurement, with the figures of each number of connections beside each other. */
function table(scenario: Scenario, results: Figure[]): string {
  const counts = [...new Set(results.map(({ connections }) => connections))];
  const names = [...new Set(results.map(({ name }) => name))];
  const details = [...new Set(results.flatMap((result) => Object.keys(result.details)))];
  const width = Math.max(...names.map((name) => name.length));
  const cell = (name: string, count: number) => {
    const found = results.find((each) => each.name === name && each.connections === count);
    if (found === undefined) return "".padStart(18);
    return `${amount(found.perSecond).padStart(10)} ${found.ratio.toFixed(2).padStart(7)}`;
  };
  const detail = (name: string, count: number, key: string) =>
    amount(
      results.find((each) => each.name === name && each.connections === count)?.details[key] ?? NaN,
    );
  const head = counts.map((count) => `${count} connection${count === 1 ? "" : "s"}`.padStart(18));
  return [
    `${"".padEnd(width)} ${head.join(" ")}`,
    ...names.map(
      (name) => `${name.padEnd(width)} ${counts.map((count) => cell(name, count)).join(" ")}`,
    ),
    `per second, and the ratio to: ${scenario.baseline}`,
    ...details.flatMap((key) => [
      key,
      ...names.map(
        (name) =>
          `${name.padEnd(width)} ${counts.map((count) => detail(name, count, key).padStart(18)).join(" ")}`,
      ),
    ]),
  ].join("\n");
}

function amount(value: number): string {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}
