/** How Stripe words a declined charge: codes for the program, a sentence for the customer. */
import { StripeApiError } from "../errors.ts";

interface Decline {
  /** The error's code; most declines are `card_declined`. */
  code?: string;
  message?: string;
  /** The card network's own code. */
  network: string;
  /** Soft declines may be tried again, later. */
  advice?: "confirm_card_data" | "do_not_try_again" | "try_again_later";
}

const declines: Record<string, Decline> = {
  authentication_required: {
    code: "authentication_required",
    message: "Your card was declined. This transaction requires authentication.",
    network: "65",
    advice: "confirm_card_data",
  },
  card_velocity_exceeded: { network: "61" },
  do_not_honor: { network: "05" },
  expired_card: {
    code: "expired_card",
    message: "Your card has expired.",
    network: "54",
    advice: "confirm_card_data",
  },
  fraudulent: { network: "59", advice: "do_not_try_again" },
  generic_decline: { network: "05" },
  highest_risk_level: { network: "59", advice: "do_not_try_again" },
  incorrect_cvc: {
    code: "incorrect_cvc",
    message: "Your card's security code is incorrect.",
    network: "N7",
    advice: "confirm_card_data",
  },
  incorrect_number: {
    code: "incorrect_number",
    message: "Your card number is incorrect.",
    network: "14",
    advice: "do_not_try_again",
  },
  insufficient_funds: { message: "Your card has insufficient funds.", network: "51" },
  lost_card: { network: "41", advice: "do_not_try_again" },
  pickup_card: { network: "04", advice: "do_not_try_again" },
  processing_error: {
    code: "processing_error",
    message: "An error occurred while processing your card. Try again in a little bit.",
    network: "96",
  },
  revocation_of_all_authorizations: { network: "R1", advice: "do_not_try_again" },
  revocation_of_authorization: { network: "R0", advice: "do_not_try_again" },
  stolen_card: { network: "43", advice: "do_not_try_again" },
  transaction_not_allowed: { network: "57", advice: "do_not_try_again" },
  try_again_later: { network: "91" },
};

/** Declines after which the same card must not be tried again. */
export const hardDeclines = new Set([
  "authentication_required",
  "highest_risk_level",
  "incorrect_number",
  "lost_card",
  "pickup_card",
  "revocation_of_all_authorizations",
  "revocation_of_authorization",
  "stolen_card",
  "transaction_not_allowed",
]);

export interface DeclineDetails {
  code: string;
  message: string;
  adviceCode: "confirm_card_data" | "do_not_try_again" | "try_again_later";
  networkDeclineCode: string;
  /** Mastercard's merchant advice; other networks send none. */
  networkAdviceCode: string | null;
}

export function declineDetails(declineCode: string, brand = "visa"): DeclineDetails {
  const {
    code,
    message,
    network,
    advice = "try_again_later",
  } = declines[declineCode] ?? {
    network: "05",
  };
  const mastercardAdvice = {
    confirm_card_data: "01",
    do_not_try_again: "03",
    try_again_later: "02",
  };
  return {
    code: code ?? "card_declined",
    message: message ?? "Your card was declined.",
    adviceCode: advice,
    networkDeclineCode: network,
    networkAdviceCode: brand === "mastercard" ? mastercardAdvice[advice] : null,
  };
}

/** Stripe's 402. */
export function cardDeclined(
  declineCode: string,
  details: Partial<StripeApiError["body"]> = {},
): StripeApiError {
  const { code, message } = declineDetails(declineCode);
  return new StripeApiError(402, {
    type: "card_error",
    code,
    decline_code: declineCode,
    message,
    ...details,
  });
}
