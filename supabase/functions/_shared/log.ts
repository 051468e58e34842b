export type LogLevel = "info" | "warn" | "error";

/** Logs about one request. Context holds ids, codes and counts; never bodies, tokens or keys. */
export type Log = (level: LogLevel, message: string, context?: Record<string, unknown>) => void;

/** Writes one JSON line per event, which is what log viewers search by field. */
export function createLog(
  functionName: string,
  requestId: string,
  write: (line: string) => void,
): Log {
  return (level, message, context = {}) =>
    write(
      withoutSecrets(
        JSON.stringify({
          timestamp: new Date().toISOString(),
          level,
          function: functionName,
          request_id: requestId,
          message,
          context,
        }),
      ),
    );
}

const secrets = /\b(?:(?:sk|rk|whsec|sb_secret)_[\w*-]+|eyJ[\w-]+\.[\w-]+\.[\w-]*)/g;

/** Blanks whatever looks like a key or a token; Stripe quotes a part of a wrong key in its message. */
export function withoutSecrets(text: string): string {
  return text.replace(secrets, "[secret]");
}

/** What of an error belongs in the log: no stack, for it can quote arguments. */
export function describeError(error: unknown): Record<string, unknown> {
  return error instanceof Error
    ? { error: error.name, reason: error.message }
    : { error: typeof error };
}
