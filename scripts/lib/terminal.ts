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
