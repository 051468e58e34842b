import { createHash, randomBytes } from "node:crypto";

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

export type NewId = (prefix: string) => string;

/**
 * Makes ids of Stripe's form (`cus_` and 24 letters). The same seed gives the same ids in the same order;
 * without one they are random, so that two runs never collide in one database.
 */
export function createIds(seed: string = randomBytes(16).toString("hex")): NewId {
  let count = 0;
  return (prefix) => {
    count += 1;
    const hash = createHash("sha256").update(`${seed}:${count}`).digest();
    const letters = Array.from(hash.subarray(0, 24), (byte) => alphabet[byte % alphabet.length]);
    return `${prefix}_${letters.join("")}`;
  };
}

/** The id of an expandable field, whose type allows an object although the store keeps ids. */
export function idOf(reference: string | { id: string } | null | undefined): string | null {
  if (reference === null || reference === undefined) return null;
  return typeof reference === "string" ? reference : reference.id;
}
