// Whatever stands where Stripe writes something else, an event is taken in: nothing throws, nothing is left to be
// tried again, and what is told rightly afterwards is applied.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Client } from "pg";
import { createTestDatabase, type TestDatabase } from "../support/database.ts";
import { tellHistory } from "../support/history/index.ts";
import { createRandom, type Random } from "../support/random.ts";
import { addCatalog, failuresOf, ingest, setClock } from "../support/readers.ts";
import {
  product,
  second,
  subscription,
  subscriptionItem,
  type Json,
  type JsonObject,
} from "../support/stripe-objects.ts";

/** Another one mangles other things: PG_SUBSCRIPTIONS_SEED=7000 npx vitest run … */
const seed = Number(process.env["PG_SUBSCRIPTIONS_SEED"] ?? 1);
const rounds = 4;
const eventsPerRound = 300;

const oddities: readonly [Json, ...Json[]] = [
  null,
  ...[true, "", "x", "\u0000", "\ud800", "2020-13-45T00:00:00Z", "99999999999999999999"],
  ...[-1, 0, 1.5, 1e30, -1e19, 9_223_372_036_854_775, 253_402_300_800],
  ...[[], [null], [[]], {}, { id: null }, { object: "list", data: null }, { data: [{}] }],
];

let database: TestDatabase;
let owner: Client;
let service: Client;

beforeAll(async () => {
  database = await createTestDatabase();
  owner = await database.connect();
  service = await database.connect("service_role");
  await addCatalog(owner);
  await setClock(owner, "2026-01-20 00:00Z");
});

afterAll(() => database?.drop());

describe.each(Array.from({ length: rounds }, (_, number) => seed + number))(
  `${eventsPerRound} mangled events of seed %i`,
  (round) => {
    it("are all taken in", async () => {
      const random = createRandom(round);
      for (const body of mangledEvents(random, round)) {
        const { rows } = await service.query(
          "select status, $1 as body from billing.ingest_stripe_event($1)",
          [body],
        );
        expect(rows).toEqual([{ status: expect.stringMatching(/^(applied|ignored)$/), body }]);
      }
      expect(await failuresOf(owner)).toEqual([]);
    });
  },
);

describe("what is told rightly after all that", () => {
  it("is applied", async () => {
    const item = subscriptionItem("si_sound", "price_plus", second("2026-01-19"));
    const answers = [
      await ingest(service, {
        id: "evt_sound_product",
        type: "product.updated",
        created: second("2026-01-19"),
        object: product("prod_plus"),
      }),
      await ingest(service, {
        id: "evt_sound",
        type: "customer.subscription.created",
        created: second("2026-01-19"),
        object: subscription("sub_sound", "cus_sound", [item]),
      }),
    ];
    expect(answers.map(({ status }) => status)).toEqual(["applied", "applied"]);
    const { rows } = await owner.query(
      "select status from billing.subscriptions where stripe_subscription_id = 'sub_sound'",
    );
    expect(rows).toEqual([{ status: "active" }]);
  });
});

/** Each about an object of its own, so that none is older than another one. */
function mangledEvents(random: Random, round: number): string[] {
  const bodies = Array.from({ length: 12 }, (_, life) =>
    tellHistory(100 * round + life, "A", ["price_basic", "price_plus", "price_extra"]),
  ).flatMap(({ happenings }) => happenings.flatMap(({ body, twin }) => [body, twin]));
  return random
    .shuffled(bodies)
    .slice(0, eventsPerRound)
    .map((body, number) => {
      const event = JSON.parse(body) as JsonObject;
      const data = event["data"] as JsonObject | undefined;
      const object = data?.["object"] as JsonObject | undefined;
      event["id"] = `evt_mangled_${round}_${number}`;
      if (object !== undefined) object["id"] = `${String(object["id"])}_${round}_${number}`;
      for (let times = random.pick([1, 1, 2, 4]); times > 0; times -= 1) {
        mangle(random, data ?? (event["related_object"] as JsonObject));
      }
      return JSON.stringify(event);
    });
}

/** Takes something out, or puts something odd in its place. */
function mangle(random: Random, root: JsonObject): void {
  const places = placesIn(root).filter(({ key }) => key !== "id" || random.chance(0.1));
  const place = random.shuffled(places)[0];
  if (place === undefined) return;
  const { parent, key } = place;
  if (random.chance(0.3) && !Array.isArray(parent)) {
    delete parent[key];
  } else {
    (parent as JsonObject)[key] = structuredClone(random.pick(oddities));
  }
}

interface Place {
  parent: JsonObject | Json[];
  key: string;
}

function placesIn(parent: JsonObject | Json[]): Place[] {
  return Object.entries(parent).flatMap(([key, value]) => [
    { parent, key },
    ...(value !== null && typeof value === "object" ? placesIn(value) : []),
  ]);
}
