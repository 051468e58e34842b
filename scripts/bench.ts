import { createBenchDatabase } from "./bench/database.ts";
import { lifeTemplates } from "./bench/events.ts";
import { figures, tables, type Figure } from "./bench/report.ts";
import { scenarios, type Sample, type Scenario } from "./bench/scenarios.ts";
import { readArguments } from "./lib/arguments.ts";
import { heading, note, runScript, UserError } from "./lib/terminal.ts";

const help = `
Measures what the package costs, as ratios to what plain SQL, or another package, does in the same
minute.

It starts a throw-away system Postgres with default durability, fills it, and measures in interleaved
rounds: statements by pgbench, events by processes of Node. Figures are medians of the rounds. Whatever else the machine does spoils
the speeds, and the ratios least.

Usage: npm run bench -- [<scenario> …] [--rounds 3] [--seconds 2] [--json]

Scenarios, all unless some are named; a topic names all of its own:
${scenarios({ seconds: 1 })
  .map(({ key, topic = "", title }) => `  ${key.padEnd(13)}${topic.padEnd(9)}${title}`)
  .join("\n")}

Options:
  --rounds     how often each is measured
  --seconds    about how long each measurement takes
  --json       the figures as JSON, and nothing else
`;

// Without this the process would end at once, and its Postgres would stay behind.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130));

runScript(help, async (args) => {
  const { values, positionals } = readArguments(
    args,
    {
      rounds: { type: "string", default: "3" },
      seconds: { type: "string", default: "2" },
      json: { type: "boolean", default: false },
    },
    { more: true },
  );
  const rounds = positive("--rounds", values.rounds);
  const wanted = choose(positionals, positive("--seconds", values.seconds));
  const say = values.json ? () => {} : note;

  say("Starting Postgres and filling it …");
  const database = await createBenchDatabase(await lifeTemplates());
  const results: Figure[] = [];
  try {
    say(`Measuring on Postgres ${database.version} …`);
    for (const scenario of wanted) {
      const samples: Sample[][] = [];
      for (let round = 0; round < rounds; round += 1) samples.push(await scenario.round(database));
      const measured = figures(scenario, samples);
      results.push(...measured);
      if (values.json) continue;
      for (const { title, text } of tables(scenario, measured)) {
        heading(title);
        console.log(text);
      }
    }
  } finally {
    await database.stop();
  }
  if (values.json) console.log(JSON.stringify(results, null, 2));
});

function positive(option: string, given: string): number {
  const number = Number(given);
  if (!(number > 0)) throw new UserError(`${option} takes a number above 0, not ${given}.`);
  return number;
}

function choose(keys: string[], seconds: number) {
  const all = scenarios({ seconds });
  const named = ({ key, topic }: Scenario) => keys.filter((name) => name === key || name === topic);
  const unknown = keys.find((name) => !all.some((scenario) => named(scenario).includes(name)));
  if (unknown !== undefined) throw new UserError(`There is no scenario ${unknown}. See --help.`);
  return keys.length === 0 ? all : all.filter((scenario) => named(scenario).length > 0);
}
