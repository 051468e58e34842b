/** What the scripts print: one mark, one sentence. */

const coloured = process.stdout.isTTY && !process.env["NO_COLOR"];
const paint = (code: number) => (text: string) =>
  coloured ? `\u001b[${code}m${text}\u001b[0m` : text;

export const bold = paint(1);
export const dim = paint(2);
export const green = paint(32);
export const red = paint(31);
export const yellow = paint(33);

export function heading(text: string): void {
  console.log(`\n${bold(text)}`);
}

/** Something that is being done or is good to know. */
export function note(text: string): void {
  console.log(`${dim("•")} ${text}`);
}

export function done(text: string): void {
  console.log(`${green("✓")} ${text}`);
}

export function warn(text: string): void {
  console.log(`${yellow("!")} ${text}`);
}

export function failed(text: string): void {
  console.error(`${red("✗")} ${text}`);
}

export interface Progress {
  /** How far it is; `note` is said beside the bar, in a word or two. */
  at(done: number, note?: string): void;
  /** Leaves the last state on its line. */
  end(): void;
}

/**
 * A bar that is drawn again in its place. Where nobody watches, a line is written for every tenth instead.
 * `total` null: nobody knows yet how much there is, so only what is done is counted.
 */
export function progress(label: string, total: number | null): Progress {
  const write = (text: string) => void process.stdout.write(text);
  let said = -1;
  let last = "";

  function at(done: number, note = ""): void {
    last = progressLine(label, done, total, note);
    if (process.stdout.isTTY) {
      write(`\r${last.slice(0, process.stdout.columns)}\u001b[K`);
      return;
    }
    const tenth = total === null ? Math.floor(done / 1000) : Math.floor((10 * done) / total);
    if (tenth > said) write(`${last}\n`);
    said = Math.max(said, tenth);
  }

  return { at, end: () => void (process.stdout.isTTY && last !== "" && write("\n")) };
}

export function progressLine(
  label: string,
  done: number,
  total: number | null,
  note: string,
): string {
  const said = note === "" ? "" : `  ${note}`;
  if (total === null) return `${label}  ${done}${said}`;
  const share = total === 0 ? 1 : Math.min(done / total, 1);
  const filled = Math.floor(share * 30);
  const bar = "█".repeat(filled) + "░".repeat(30 - filled);
  const percent = `${Math.floor(share * 100)}`.padStart(3);
  return `${label}  ${bar} ${percent} %  ${done} of ${total}${said}`;
}

/** An expected failure: the message is all the user needs, so no stack is shown. */
export class UserError extends Error {}

/**
 * Runs a script's main function: prints `help` for --help, shows an expected failure as one line,
 * and makes any failure the exit status.
 */
export async function runScript(
  help: string,
  main: (args: string[]) => Promise<void>,
): Promise<void> {
  const args = process.argv.slice(2);
  if (args.includes("--help") || args.includes("-h")) {
    console.log(help.trim());
    return;
  }
  try {
    await main(args);
  } catch (error) {
    if (error instanceof UserError) failed(error.message);
    else failed(error instanceof Error ? (error.stack ?? error.message) : String(error));
    process.exitCode = 1;
  }
}
