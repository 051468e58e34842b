import { describe, expect, it } from "vitest";
import { tableWithHeader } from "../../../scripts/checks/markdown.ts";
import { checkOutcome } from "../../../scripts/checks/outcome.ts";
import { readTap } from "../../../scripts/checks/pgtap.ts";
import { replaceBlock } from "../../../scripts/checks/readme.ts";
import { selectSteps } from "../../../scripts/checks/runner.ts";
import { firstDifference } from "../../../scripts/checks/schema-dump.ts";
import type { Step } from "../../../scripts/checks/steps.ts";
import { resultsOf } from "../../../scripts/checks/supabase-cli.ts";
import { readReport, type VitestReport } from "../../../scripts/checks/vitest-run.ts";

describe("what pg_prove printed", () => {
  it("is counted test by test, with what a failure said", () => {
    const printed = `supabase/tests/a.test.sql ......
1..4
ok 1 - first works
not ok 2 - one is two
# Failed test 2: "one is two"
#         have: 1
#         want: 2
ok 3 # SKIP not here
not ok 4 - later # TODO some day
# Looks like you failed 1 test of 4
Failed 1/4 subtests
supabase/tests/b.test.sql ..
ok 1 - fine
1..1
ok

Test Summary Report
-------------------
ok 99 - not a test
`;
    expect(readTap(printed, "", 1)).toEqual({
      passed: 3,
      failed: 1,
      skipped: 1,
      problems: ["supabase/tests/a.test.sql: one is two", "    have: 1", "    want: 2"],
      remark: "2 files",
    });
  });

  it("counts the planned tests that a broken file never ran, and says where it broke", () => {
    const printed = `b.test.sql ..
1..3
ok 1 - first works
Dubious, test returned 3 (wstat 768, 0x300)
Failed 2/3 subtests
`;
    const said =
      "psql:b.test.sql:4: ERROR:  function nothing() does not exist\nLINE 1: select nothing();";
    const { passed, failed, problems } = readTap(printed, said, 1);
    expect([passed, failed]).toEqual([1, 2]);
    expect(problems).toEqual([
      expect.stringContaining("b.test.sql: broke off, 2 tests lost\n    psql:b.test.sql:4: ERROR"),
    ]);
  });

  it("never passes on a bad exit status, whatever was printed", () => {
    const plain = "c.test.sql ..\n1..1\nok 1 - fine\nok\n";
    expect(readTap(plain, "", 0)).toMatchObject({ passed: 1, failed: 0 });
    expect(readTap(plain, "cannot read d", 2)).toMatchObject({ passed: 1, failed: 1 });
    const dubious = "c.test.sql ..\n1..1\nok 1 - fine\nDubious, test returned 3\n";
    expect(readTap(dubious, "", 1)).toMatchObject({ passed: 1, failed: 1 });
  });
});

describe("vitest's report", () => {
  const report = (changes: Partial<VitestReport>): VitestReport => ({
    numPassedTests: 2,
    numFailedTests: 0,
    numPendingTests: 1,
    numTodoTests: 0,
    testResults: [],
    ...changes,
  });

  it("is counted test by test", () => {
    const testResults = [
      {
        name: "a.test.ts",
        status: "failed",
        message: "",
        assertionResults: [
          { fullName: "it holds", status: "failed", failureMessages: ["1 is not 2\nat a"] },
        ],
      },
    ];
    const outcome = readReport(report({ numFailedTests: 1, testResults }), 1, "");
    expect(outcome).toMatchObject({ passed: 2, failed: 1, skipped: 1, remark: "1 files" });
    expect(outcome.problems).toEqual([
      expect.stringMatching(/a\.test\.ts: it holds\n {4}1 is not 2\n {4}at a$/),
    ]);
  });

  it("counts a file that could not be loaded, and an error outside all tests", () => {
    const broken = {
      name: "b.test.ts",
      status: "failed",
      message: "no such",
      assertionResults: [],
    };
    expect(readReport(report({ testResults: [broken] }), 1, "")).toMatchObject({ failed: 1 });
    expect(readReport(report({}), 1, "unhandled")).toMatchObject({
      failed: 1,
      problems: ["unhandled"],
    });
  });
});

describe("choosing steps", () => {
  const step = (name: string, files?: string[]): Step => ({
    name,
    about: "",
    ...(files && { files }),
    run: async () => checkOutcome([]),
  });
  const steps = [
    step("tsc"),
    step("pgtap", ["0003/consume.test.sql", "0005/explain.test.sql"]),
    step("vitest", ["races/consume.test.ts"]),
    step("empty", []),
  ];
  const chosen = (...filters: string[]) =>
    selectSteps(steps, filters).map(({ step: { name }, files }) => [name, ...files].join(" "));

  it("takes all that have something to run when nothing is asked for", () => {
    expect(chosen()).toHaveLength(3);
  });

  it("takes a step by name, and files of any step by part of their path", () => {
    expect(chosen("tsc")).toEqual(["tsc"]);
    expect(chosen("consume")).toEqual([
      "pgtap 0003/consume.test.sql",
      "vitest races/consume.test.ts",
    ]);
    expect(chosen("pgtap", "races")).toEqual([
      "pgtap 0003/consume.test.sql 0005/explain.test.sql",
      "vitest races/consume.test.ts",
    ]);
  });

  it("refuses a filter that selects nothing", () => {
    expect(() => chosen("tsc", "nonsense")).toThrow('"nonsense"');
  });
});

describe("the Supabase CLI's answers", () => {
  it("are read past what it says first, and an error keeps its words", () => {
    const answer = (stdout: string, stderr = "") => ({ code: 1, stdout, stderr });
    expect(resultsOf(answer('connected\n{"results":[1]}'))).toEqual([1]);
    expect(() => resultsOf(answer("", "cannot connect"))).toThrow("cannot connect");
    expect(() => resultsOf(answer('{"error":"nope"}'))).toThrow("nope");
  });
});

describe("two dumps", () => {
  it("are equal, or differ in a line that is named", () => {
    expect(firstDifference("a\nb\n", "a\nb\n")).toBeUndefined();
    expect(firstDifference("a\nb\n", "a\nc\n")).toBe('line 2: "b" against "c"');
    expect(firstDifference("a", "a\nb")).toBe('line 2: "" against "b"');
  });
});

describe("README's blocks", () => {
  it("are replaced between their marks and nowhere else", () => {
    const text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb";
    expect(replaceBlock(text, "x", "new")).toBe("a\n<!-- begin x -->\n\nnew\n\n<!-- end x -->\nb");
    expect(replaceBlock(text, "y", "new")).toBe(text);
  });

  it("are read as tables, with escaped bars inside cells", () => {
    const text = "x\n\n| Code | Status |\n| --- | --- |\n| `A` | a \\| b |\n\n| other |";
    expect(tableWithHeader(text, ["code", "status"])).toEqual({
      line: 3,
      rows: [{ line: 5, cells: ["A", "a | b"] }],
    });
    expect(tableWithHeader(text, ["status"])).toBeUndefined();
  });
});
