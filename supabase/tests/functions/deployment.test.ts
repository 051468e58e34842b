// What a deployment of the functions depends on: their settings in config.toml, their imports, their runtime.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const supabase = fileURLToPath(new URL("../../", import.meta.url));
const functions = join(supabase, "functions");
const names = readdirSync(functions).filter((name) =>
  existsSync(join(functions, name, "index.ts")),
);
const readJson = (path: string) => JSON.parse(readFileSync(path, "utf8")) as unknown;
const { devDependencies } = readJson(join(supabase, "../package.json")) as {
  devDependencies: Record<string, string>;
};

/** The settings and the comment above each [functions.<name>] of config.toml. */
function functionSettings(): Map<string, { comment: string; settings: string }> {
  const config = readFileSync(join(supabase, "config.toml"), "utf8");
  const section = /((?:^#.*\n)*)^\[functions\.([\w-]+)\]\n((?:^(?!\[|#).*\n?)*)/gm;
  return new Map(
    [...config.matchAll(section)].map(([, comment = "", name = "", settings = ""]) => [
      name,
      { comment, settings },
    ]),
  );
}

describe("config.toml", () => {
  it("knows exactly the functions there are", () => {
    expect(names).toEqual(["checkout", "stripe-webhook"]);
    expect([...functionSettings().keys()].sort()).toEqual(names);
  });

  // F1: by default the platform refuses requests without a JWT: every event from Stripe.
  // F3: of those who have a JWT it refuses secret keys, and lets publishable keys pass as if they were users.
  it.each(names)("F1, F3: turns verify_jwt off for %s, which checks its callers itself", (name) => {
    const { comment, settings } = functionSettings().get(name) ?? { comment: "", settings: "" };
    expect(settings).toMatch(/^verify_jwt = false$/m);
    expect(comment, "the reason stands above the section").toMatch(/JWT/);
  });
});

describe("the functions' imports", () => {
  it.each(names)("of %s are the versions that are tested here, from npm alone", (name) => {
    const { imports } = readJson(join(functions, name, "deno.json")) as {
      imports: Record<string, string>;
    };
    for (const [specifier, target] of Object.entries(imports)) {
      expect(target).toBe(`npm:${specifier}@${devDependencies[specifier]}`);
    }
  });

  it.each(["_shared", ...names])("of %s are named in deno.json, relative or node's", (name) => {
    const { imports } = readJson(
      join(functions, name === "_shared" ? "checkout" : name, "deno.json"),
    ) as { imports: Record<string, string> };
    const sources = readdirSync(join(functions, name)).filter((file) => file.endsWith(".ts"));
    const specifiers = sources.flatMap((file) =>
      [...readFileSync(join(functions, name, file), "utf8").matchAll(/\bfrom "([^"]+)"/g)].map(
        ([, specifier = ""]) => specifier,
      ),
    );
    const known = (specifier: string) =>
      specifier in imports || /^(?:\.{1,2}\/.+\.ts|node:.+)$/.test(specifier);
    expect(specifiers.filter((specifier) => !known(specifier))).toEqual([]);
  });

  // F4: the synchronous verification throws on the hosted runtime, after passing every test in Node.
  it("F4: nothing verifies a signature synchronously", () => {
    const sources = ["_shared", ...names].flatMap((name) =>
      readdirSync(join(functions, name)).map((file) =>
        readFileSync(join(functions, name, file), "utf8"),
      ),
    );
    const synchronous = /\b(?:constructEvent|verifyHeader|computeHMACSignature)\(/;
    expect(sources.filter((source) => synchronous.test(source))).toEqual([]);
  });
});

describe("the runtime", () => {
  it("is tested in the version that is hosted", () => {
    expect(devDependencies["deno"]).toBe("2.1.4");
  });
});

describe("what is asked of Stripe", () => {
  // B11: it lags behind, up to an hour: what was created a moment ago would be created again.
  it("B11: is never its search, which does not show what was just created", () => {
    const folders = [
      "migrations",
      "functions/_shared",
      ...names.map((name) => `functions/${name}`),
    ];
    const searching = folders
      .flatMap((folder) => readdirSync(join(supabase, folder)).map((file) => join(folder, file)))
      .filter((file) => /\.(sql|ts)$/.test(file))
      .filter((file) => /\/search\b|\.search\(/.test(readFileSync(join(supabase, file), "utf8")));
    expect(searching).toEqual([]);
  });
});
