import { bold, dim, done, heading } from "../lib/terminal.ts";

/** Tells a story on the terminal: chapters, and in them what was seen to be true. */
export interface Timeline {
  chapter(title: string, moment: Date): void;
  /** States a fact that has been checked; `seen` is what the client got. */
  saw(fact: string, seen?: string): void;
}

export function createTimeline(): Timeline {
  return {
    chapter: (title, moment) => heading(`${title}  ${dim(formatMoment(moment))}`),
    saw: (fact, seen) => done(seen === undefined ? fact : `${fact}  ${dim("→")} ${bold(seen)}`),
  };
}

export function formatMoment(moment: Date): string {
  return `${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** The next fact of the story, or its end: what was expected and what was there instead. */
export function expect(condition: boolean, expected: string, found: unknown): asserts condition {
  if (!condition) {
    throw new Error(`The story stops: expected ${expected}, found ${JSON.stringify(found)}.`);
  }
}
