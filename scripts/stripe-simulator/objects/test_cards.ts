/** Stripe's test cards that matter to a subscription, and how each behaves. */
export interface TestCard {
  number: string;
  /** What it is: a card of a brand, or a bank account whose debits take days. */
  brand: "bank" | "mastercard" | "visa";
  title: string;
  /**
   * `fails_later`: the first payment in a checkout goes through, every later charge is declined. (Stripe's own
   * 0341 would decline the first one too; here it lets a story begin.)
   * `settles`, `bounces`: a bank debit, which succeeds or fails only days after it was taken.
   * `authenticates`: needs the customer present; off session it is declined with authentication_required.
   */
  behaviour: "succeeds" | "fails_later" | "declined" | "authenticates" | "settles" | "bounces";
  declineCode: string;
  /** What follows a charge that went through, or its refund. */
  afterwards?: "disputed" | "inquired" | "refund_fails" | "refund_takes_time" | "warned";
}

function card(
  number: string,
  title: string,
  behaviour: TestCard["behaviour"],
  declineCode = "generic_decline",
): TestCard {
  return {
    number,
    title,
    behaviour,
    declineCode,
    brand: number.startsWith("5") ? "mastercard" : "visa",
  };
}

function bankAccount(
  number: string,
  title: string,
  behaviour: "bounces" | "settles",
  declineCode = "generic_decline",
): TestCard {
  return { number, title, behaviour, declineCode, brand: "bank" };
}

function troubled(
  number: string,
  title: string,
  afterwards: NonNullable<TestCard["afterwards"]>,
): TestCard {
  return { ...card(number, title, "succeeds"), afterwards };
}

export const testCards = [
  card("4242424242424242", "succeeds", "succeeds"),
  card("5555555555554444", "succeeds (Mastercard)", "succeeds"),
  card("4000000000000341", "will fail at renewal", "fails_later"),
  card("4000000000000002", "is declined", "declined"),
  card("4000000000009995", "has insufficient funds", "declined", "insufficient_funds"),
  card("4000000000009987", "was lost", "declined", "lost_card"),
  card("4000000000009979", "was stolen", "declined", "stolen_card"),
  card("4000000000000069", "has expired", "declined", "expired_card"),
  card("4000000000000127", "has a wrong security code", "declined", "incorrect_cvc"),
  card("4000000000000119", "meets a processing error", "declined", "processing_error"),
  card("4000000000006975", "is used too often", "declined", "card_velocity_exceeded"),
  card("4100000000000019", "is refused as fraud", "declined", "highest_risk_level"),
  troubled("4000000000000259", "is disputed as fraud", "disputed"),
  troubled("4000000000001976", "is inquired about", "inquired"),
  troubled("4000000000005423", "brings an early fraud warning", "warned"),
  troubled("4000000000005126", "cannot be refunded in the end", "refund_fails"),
  troubled("4000000000007726", "is refunded after a while", "refund_takes_time"),
  card(
    "4000002760003184",
    "always needs authentication",
    "authenticates",
    "authentication_required",
  ),
  bankAccount("000123456789", "is a bank account", "settles"),
  bankAccount("000111111116", "is a bank account without funds", "bounces", "insufficient_funds"),
] satisfies readonly TestCard[];

/** Stripe's names for ready-made payment methods, in place of a card's number. */
const tokens: Record<string, string> = {
  pm_card_visa: "4242424242424242",
  tok_visa: "4242424242424242",
  pm_card_mastercard: "5555555555554444",
  tok_mastercard: "5555555555554444",
  pm_card_chargeCustomerFail: "4000000000000341",
  tok_chargeCustomerFail: "4000000000000341",
  pm_card_chargeDeclined: "4000000000000002",
  pm_card_visa_chargeDeclined: "4000000000000002",
  pm_card_chargeDeclinedInsufficientFunds: "4000000000009995",
  pm_card_visa_chargeDeclinedInsufficientFunds: "4000000000009995",
  pm_card_chargeDeclinedLostCard: "4000000000009987",
  pm_card_visa_chargeDeclinedLostCard: "4000000000009987",
  pm_card_visa_chargeDeclinedStolenCard: "4000000000009979",
  pm_card_authenticationRequired: "4000002760003184",
  pm_card_visa_chargeDeclinedExpiredCard: "4000000000000069",
  pm_card_chargeDeclinedExpiredCard: "4000000000000069",
  pm_card_chargeDeclinedIncorrectCvc: "4000000000000127",
  pm_card_chargeDeclinedProcessingError: "4000000000000119",
  pm_card_radarBlock: "4100000000000019",
  pm_card_createDispute: "4000000000000259",
  pm_card_createDisputeInquiry: "4000000000001976",
  pm_card_createIssuerFraudRecord: "4000000000005423",
  pm_usBankAccount_success: "000123456789",
  pm_usBankAccount_insufficientFunds: "000111111116",
  pm_card_refundFail: "4000000000005126",
  pm_card_pendingRefund: "4000000000007726",
};

/** Finds a card by number (spaces allowed), by its last four digits, or by Stripe's token. */
export function findTestCard(name: string): TestCard | undefined {
  const digits = (tokens[name] ?? name).replaceAll(" ", "");
  return testCards.find(
    (candidate) =>
      candidate.number === digits || (digits.length === 4 && candidate.number.endsWith(digits)),
  );
}

/** Whether a name is one of Stripe's tokens, which stand for a new payment method at every use. */
export function isCardToken(name: string): boolean {
  return Object.hasOwn(tokens, name);
}
