/** The simulator's time, in unix seconds: held where it was set, or flowing on from there. */
export interface HeldClock {
  now(): number;
  set(seconds: number): void;
}

export function createHeldClock({
  startAt,
  flows,
}: {
  startAt: number;
  flows: boolean;
}): HeldClock {
  let moment = startAt;
  let setAt = performance.now();
  return {
    now: () => (flows ? moment + Math.floor((performance.now() - setAt) / 1000) : moment),
    set(seconds) {
      moment = seconds;
      setAt = performance.now();
    },
  };
}
