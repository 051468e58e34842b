/** What a step of `npm test` found. A test counts as one, and so does a check. */
export interface Outcome {
  passed: number;
  failed: number;
  skipped: number;
  /** What to read about each failure, one entry per failure where that is known. */
  problems: string[];
  /** Why something was skipped, or what was looked at. */
  remark?: string;
}

/** A check passes as a whole, or fails with everything it found. */
export function checkOutcome(problems: string[], remark?: string): Outcome {
  const ok = problems.length === 0;
  return {
    passed: ok ? 1 : 0,
    failed: ok ? 0 : 1,
    skipped: 0,
    problems,
    ...(remark !== undefined && { remark }),
  };
}

export function skippedOutcome(count: number, remark: string): Outcome {
  return { passed: 0, failed: 0, skipped: count, problems: [], remark };
}
