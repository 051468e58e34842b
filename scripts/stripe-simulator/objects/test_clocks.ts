/**
 * Stripe's test clocks, as far as one clock allows: every test clock shows the simulator's own time, and advancing one
 * moves everything.
 */
import type Stripe from "stripe";
import { days } from "../billing/periods.ts";
import { invalidRequest } from "../errors.ts";
import { natural, required, text } from "../http/params.ts";
import { page, pagination, route } from "../http/routes.ts";
import type { Simulation } from "../simulation.ts";

/** Stripe deletes a test clock after this long. */
const clocksLast = days(30);

/** Starts the walk; the clock is ready again when everything due on the way has happened and is delivered. */
function advance(
  simulation: Simulation,
  clock: Stripe.TestHelpers.TestClock,
  target: number,
): void {
  clock.status = "advancing";
  clock.status_details = { advancing: { target_frozen_time: target } };
  simulation.emit("test_helpers.test_clock.advancing", clock);
  void simulation.walkTo(target).then(
    () => {
      clock.status = "ready";
      clock.status_details = {};
      clock.frozen_time = target;
      simulation.emit("test_helpers.test_clock.ready", clock);
    },
    () => {
      clock.status = "internal_failure";
      simulation.emit("test_helpers.test_clock.internal_failure", clock);
    },
  );
}

export const testClockRoutes = [
  route(
    "POST /v1/test_helpers/test_clocks",
    { frozen_time: required(natural), name: text },
    (simulation, params) => {
      const { store, newId, now, emit } = simulation;
      if (params.frozen_time < now()) {
        throw invalidRequest("The simulator has one clock, which cannot go back.", {
          param: "frozen_time",
        });
      }
      const clock = store.testClocks.add({
        id: newId("clock"),
        object: "test_helpers.test_clock",
        created: now(),
        deletes_after: now() + clocksLast,
        frozen_time: params.frozen_time,
        livemode: false,
        name: params.name ?? null,
        status: "ready",
        status_details: {},
      });
      emit("test_helpers.test_clock.created", clock);
      if (params.frozen_time > now()) advance(simulation, clock, params.frozen_time);
      return clock;
    },
  ),

  route("GET /v1/test_helpers/test_clocks", pagination, ({ store }, params) =>
    page("/v1/test_helpers/test_clocks", store.testClocks.all(), params),
  ),

  route("GET /v1/test_helpers/test_clocks/:id", {}, ({ store }, _params, id) =>
    store.testClocks.require(id),
  ),

  route(
    "POST /v1/test_helpers/test_clocks/:id/advance",
    { frozen_time: required(natural) },
    (simulation, params, id) => {
      const clock = simulation.store.testClocks.require(id);
      if (clock.status !== "ready") {
        throw invalidRequest("This test clock is still advancing.", {
          code: "test_clock_advancing",
        });
      }
      if (params.frozen_time <= simulation.now()) {
        throw invalidRequest("You must advance a test clock to a later time.", {
          param: "frozen_time",
        });
      }
      advance(simulation, clock, params.frozen_time);
      return clock;
    },
  ),

  route("DELETE /v1/test_helpers/test_clocks/:id", {}, ({ store, emit }, _params, id) => {
    const clock = store.testClocks.require(id);
    emit("test_helpers.test_clock.deleted", clock);
    return store.testClocks.remove(clock);
  }),
];
