// A13: whatever the order in which the events of a life arrive, however often each, over however many
// connections at once, with backends that are killed: the same rows are stored as when each had come once
// and in order. Many more lives: npm run simulate -- convergence
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { checkCases } from "../../../scripts/simulate/convergence.ts";
import { openWorld, type World } from "../../../scripts/simulate/world.ts";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";

const casesPerGroup = 60;
const groups = 4;
/** Another one tells other lives: PG_SUBSCRIPTIONS_SEED=7000 npx vitest run … */
const seed = Number(process.env["PG_SUBSCRIPTIONS_SEED"] ?? 1);

let database: TestDatabase;
let world: World;

beforeAll(async () => {
  database = await createTestDatabase();
  world = await openWorld(database, 6);
});

afterAll(() => database?.drop());

describe.each(Array.from({ length: groups }, (_, group) => group * casesPerGroup))(
  `cases of seed ${seed} from %i on, ${casesPerGroup} at once`,
  (first) => {
    it("end in the rows of an orderly delivery, and these say how the life ended", async () => {
      const cases = Array.from({ length: casesPerGroup }, (_, index) => ({
        seed,
        number: first + index,
      }));
      expect(await checkCases(world, cases)).toEqual([]);
    }, 180_000);
  },
);
