// What slow scripts say of how far they are.
import { describe, expect, it } from "vitest";
import { progressLine } from "../../../scripts/lib/terminal.ts";

describe("a progress line", () => {
  it("fills its bar with what is done, never early", () => {
    expect(progressLine("Lives", 0, 30, "")).toBe(`Lives  ${"░".repeat(30)}   0 %  0 of 30`);
    expect(progressLine("Lives", 29, 30, "")).toBe(`Lives  ${"█".repeat(29)}░  96 %  29 of 30`);
    expect(progressLine("Lives", 30, 30, "")).toBe(`Lives  ${"█".repeat(30)} 100 %  30 of 30`);
  });

  it("says a note beside it", () => {
    expect(progressLine("Lives", 3, 3, "2 a second")).toMatch(/3 of 3 {2}2 a second$/);
  });

  it("only counts where nobody knows how much there is", () => {
    expect(progressLine("Events", 12, null, "")).toBe("Events  12");
  });

  it("is whole where there was nothing to do", () => {
    expect(progressLine("Lives", 0, 0, "")).toContain("100 %");
  });
});
