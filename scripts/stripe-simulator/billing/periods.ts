/** Stripe's calendar, in UTC seconds. */
export interface BillingInterval {
  interval: string;
  interval_count: number;
}

export interface Period {
  start: number;
  end: number;
}

const secondsPerDay = 86_400;
export const days = (count: number) => count * secondsPerDay;

/**
 * `anchor + count × interval`. Months are added to the anchor itself and cut to the month's last day, so a period
 * that begins on the 31st returns to the 31st after February.
 */
export function addIntervals(
  anchor: number,
  { interval, interval_count }: BillingInterval,
  count: number,
): number {
  const steps = interval_count * count;
  if (interval === "day") return anchor + days(steps);
  if (interval === "week") return anchor + days(7 * steps);

  const date = new Date(anchor * 1000);
  const months = date.getUTCMonth() + steps * (interval === "year" ? 12 : 1);
  const lastDay = new Date(Date.UTC(date.getUTCFullYear(), months + 1, 0)).getUTCDate();
  const shifted = Date.UTC(
    date.getUTCFullYear(),
    months,
    Math.min(date.getUTCDate(), lastDay),
    date.getUTCHours(),
    date.getUTCMinutes(),
    date.getUTCSeconds(),
  );
  return shifted / 1000;
}

/** The period counted from `anchor` that holds `moment`: start ≤ moment < end. */
export function periodAt(anchor: number, interval: BillingInterval, moment: number): Period {
  const longest = { day: 1, week: 7, month: 31, year: 366 }[interval.interval] ?? 1;
  let count = Math.floor((moment - anchor) / days(longest * interval.interval_count));
  while (addIntervals(anchor, interval, count + 1) <= moment) count += 1;
  return {
    start: addIntervals(anchor, interval, count),
    end: addIntervals(anchor, interval, count + 1),
  };
}

export function sameInterval(a: BillingInterval, b: BillingInterval): boolean {
  return a.interval === b.interval && a.interval_count === b.interval_count;
}
