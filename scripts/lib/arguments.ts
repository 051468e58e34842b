import { parseArgs, type ParseArgsConfig } from "node:util";
import { UserError } from "./terminal.ts";

type Options = NonNullable<ParseArgsConfig["options"]>;

/**
 * A script's arguments by `node:util` rules; what it does not know is an expected failure, not a stack.
 * Positional ones are named by the caller; with `more`, any number may follow.
 */
export function readArguments<const T extends Options>(
  args: string[],
  options: T,
  { positionals = [], more = false }: { positionals?: string[]; more?: boolean } = {},
) {
  const parsed = parse(args, options);
  const [missing] = positionals.slice(parsed.positionals.length);
  if (missing !== undefined) throw new UserError(`The ${missing} is missing. See --help.`);
  const surplus = parsed.positionals[positionals.length];
  if (surplus !== undefined && !more) {
    throw new UserError(`"${surplus}" is one argument too many. See --help.`);
  }
  return parsed;
}

function parse<const T extends Options>(args: string[], options: T) {
  try {
    return parseArgs({ args, options, allowPositionals: true });
  } catch (error) {
    const [reason] = String(error instanceof Error ? error.message : error).split(". ");
    throw new UserError(`${reason}. See --help.`);
  }
}
