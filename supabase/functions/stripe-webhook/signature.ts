import Stripe from "stripe";

/** How far a signature's time may be from ours, in either direction. */
const toleranceSeconds = 300;

export type Verdict = "valid" | "SIGNATURE_INVALID" | "SIGNATURE_EXPIRED";

/**
 * Checks a stripe-signature header against the exact body and any of several secrets.
 *
 * The time is checked here and not by the stripe package, which accepts any time in the future. Its signature
 * helper is used without its event parser, which refuses thin events.
 */
export async function verifySignature(
  body: string,
  header: string,
  { secrets, now }: { secrets: string[]; now: number },
): Promise<Verdict> {
  const parts = header.split(",");
  const time = parts.find((part) => /^t=\d{1,12}$/.test(part));
  // Only v1 is a signature; v0 is Stripe's scheme for test tools and proves nothing.
  const signatures = parts.filter((part) => /^v1=[0-9a-f]{64}$/.test(part));
  if (time === undefined || signatures.length === 0) return "SIGNATURE_INVALID";

  const proof = [time, ...signatures].join(",");
  if (!(await matchesAny(body, proof, secrets))) return "SIGNATURE_INVALID";

  const age = Math.floor(now / 1000) - Number(time.slice("t=".length));
  return Math.abs(age) > toleranceSeconds ? "SIGNATURE_EXPIRED" : "valid";
}

async function matchesAny(body: string, proof: string, secrets: string[]): Promise<boolean> {
  // Asynchronous Web Crypto: the runtime of Edge Functions has no synchronous one.
  const crypto = Stripe.createSubtleCryptoProvider();
  const anyTime = 0;
  for (const secret of secrets) {
    try {
      await Stripe.webhooks.signature?.verifyHeaderAsync(body, proof, secret, anyTime, crypto);
      return true;
    } catch (error) {
      if (!(error instanceof Stripe.errors.StripeSignatureVerificationError)) throw error;
    }
  }
  return false;
}
