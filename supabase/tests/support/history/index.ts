/**
 * Random but lawful lives of Stripe customers, told as the events Stripe would send: what is bought, renewed,
 * owed, changed, canceled, refunded, disputed and deleted, with bursts of events inside one second.
 */
import { day } from "../stripe-objects.ts";
import { subscribe } from "./beginning.ts";
import { comeBack, introduce, type Cast } from "./cast.ts";
import { burst, playScene } from "./scenes.ts";
import { copyMark, setStage, type History } from "./stage.ts";
import { isRunning } from "./steps.ts";

export { copyMark, type Call, type Happening, type History, type State } from "./stage.ts";

/** All that tells the copies of a life apart, taken out of a text. */
export function withoutCopy(text: string, { account, checkout, copy }: History): string {
  const neutral = text.replaceAll(account.id, account.name).replaceAll(`${copyMark}${copy}`, "");
  return checkout === null ? neutral : neutral.replaceAll(checkout.id, "checkout");
}

/** One life. Prices that are not the life's own are named in `catalog`. */
export function tellHistory(
  seed: number,
  copy: string,
  catalog: readonly [string, ...string[]],
): History {
  const stage = setStage(seed, copy);
  let cast = introduce(stage, catalog);
  let other: Cast | null = null;
  const scenes = stage.random.whole(2, 7);
  const isTwoCustomers = stage.random.chance(0.15);
  subscribe(stage, cast);
  for (let scene = 0; scene < scenes; scene += 1) {
    stage.pass(stage.random.whole(0, 3 * day));
    if (isTwoCustomers && other === null && stage.random.chance(0.5)) {
      other = comeBack(stage, cast);
    } else if (other !== null && !other.isGone && stage.random.chance(0.5)) {
      playScene(stage, other);
    } else if (!cast.isGone) {
      playScene(stage, cast);
    } else if (stage.random.chance(0.5)) {
      cast = comeBack(stage, cast);
    }
  }
  // What came last decides the rows: often it is a burst.
  if (cast.bought !== null && isRunning(cast.bought) && stage.random.chance(0.6)) {
    stage.pass(1);
    burst(stage, cast, cast.bought);
  }
  return stage.history;
}
