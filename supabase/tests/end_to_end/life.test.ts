// The story of `npm start`, as a test: every line of it is a checked fact.
import { afterAll, beforeAll, expect, it } from "vitest";
import { playLife } from "../../../scripts/story/life.ts";
import { playTeam } from "../../../scripts/story/team.ts";
import { startTestStack, type TestStack } from "./stack.ts";

let stack: TestStack;

beforeAll(async () => {
  stack = await startTestStack();
});
afterAll(() => stack?.stop());

it("plays a subscriber's life from sign-up to lost access on real components", async () => {
  const reader = await playLife(stack, stack.simulator);

  expect(await reader.hasFeature("premium_clubs")).toBe(false);
  expect(stack.simulator.delivery.attempts().every(({ ok }) => ok)).toBe(true);
}, 240_000);

it("plays a team's life from invitation to limit on real components", async () => {
  await playTeam(stack, stack.simulator);

  expect(stack.simulator.delivery.attempts().every(({ ok }) => ok)).toBe(true);
}, 60_000);
