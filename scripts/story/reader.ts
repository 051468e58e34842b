import { createClient } from "@supabase/supabase-js";
import WebSocket from "ws";
import type { Database, Tables } from "../../types/index.ts";
import { bookClubs } from "./book_clubs.ts";

export interface ReaderOptions {
  apiUrl: string;
  key: string;
}

/** A client of the stack, as an application makes one. Node 20 has no WebSocket of its own to give it. */
export function connect({ apiUrl, key }: ReaderOptions) {
  return createClient<Database, "billing">(apiUrl, key, {
    db: { schema: "billing" },
    auth: { persistSession: false, autoRefreshToken: false },
    // The types of ws and of the browser's WebSocket differ only in what is not used here.
    realtime: { transport: WebSocket as unknown as typeof globalThis.WebSocket },
  });
}

export type Client = ReturnType<typeof connect>;

/** The data of an answer; an error of the API becomes an exception that says what was asked. */
export function expectData<T>(
  what: string,
  { data, error }: { data: T; error: { message: string } | null },
): NonNullable<T> {
  if (error) throw new Error(`${what}: ${error.message}`);
  if (data === null || data === undefined) throw new Error(`${what}: no answer`);
  return data;
}

/** What a signed-in reader's application shows. */
export interface Reader {
  client: Client;
  accountId: string;
  email: string;
  plans(): Promise<Tables<{ schema: "billing" }, "plan_offers">[]>;
  /** For a team, if one is named. */
  openCheckout(priceKey: string, teamId?: string): Promise<{ checkoutId: string; url: string }>;
  hasFeature(feature: string): Promise<boolean>;
  /** Names of the clubs row level security lets the reader see. */
  clubs(): Promise<string[]>;
  previewChange(priceKey: string): Promise<ChangePreview>;
  /** With the date of a preview the reader pays just what that showed. */
  changePlan(priceKey: string, prorationDate: string | null): Promise<ReaderSubscription>;
  subscription(): Promise<ReaderSubscription>;
  /** The newest payment, as row level security lets the reader see it. */
  lastPayment(): Promise<Tables<{ schema: "billing" }, "payments"> | undefined>;
  membershipTier(): Promise<string | null>;
}

export interface ChangePreview {
  proration_date: string | null;
  due_now_minor: number | null;
  currency: string | null;
}

export interface ReaderSubscription {
  status: string | null;
  plan_name: string | null;
  current_period_end: string | null;
  access_until: string | null;
  past_due_since: string | null;
  open_invoice_url: string | null;
}

export async function signUp(options: ReaderOptions, email: string): Promise<Reader> {
  const client = connect(options);
  const { user } = expectData(
    "sign up",
    await client.auth.signUp({ email, password: "a long enough password" }),
  );
  if (!user) throw new Error("sign up: no user came back");

  return {
    client,
    accountId: user.id,
    email,
    plans: async () => expectData("list plans", await client.rpc("list_plans", {}, { get: true })),
    openCheckout: async (priceKey, teamId) => {
      const answer = await client.functions.invoke<{
        data: { checkout_id: string; url: string };
      }>("checkout", {
        body: {
          price_key: priceKey,
          ...(teamId && { account_id: teamId }),
          success_url: "https://booktalks.example/welcome",
          cancel_url: "https://booktalks.example/plans",
        },
      });
      const { data } = expectData("checkout", answer);
      return { checkoutId: data.checkout_id, url: data.url };
    },
    hasFeature: async (feature) =>
      expectData("entitlement", await client.rpc("has_entitlement", { feature }, { get: true })),
    clubs: () => bookClubs(client).names(),
    previewChange: async (price_key) => {
      const answer = await client.functions.invoke<{ data: ChangePreview }>(
        "checkout/preview-change",
        { body: { price_key } },
      );
      return expectData("preview", answer).data;
    },
    changePlan: async (price_key, proration_date) => {
      const answer = await client.functions.invoke<{ data: ReaderSubscription }>(
        "checkout/change-plan",
        { body: { price_key, proration_date } },
      );
      return expectData("change plan", answer).data;
    },
    lastPayment: async () => {
      const answer = await client
        .from("payments")
        .select("*")
        .order("created_at", { ascending: false })
        .limit(1);
      return expectData("payments", answer)[0];
    },
    subscription: async () => {
      const [subscription] = expectData("subscription", await client.rpc("my_subscription", {}));
      if (!subscription) throw new Error("subscription: there is none");
      return subscription;
    },
    membershipTier: async () => {
      const answer = await client.from("profiles").select("membership_tier").maybeSingle();
      return expectData("profile", answer).membership_tier;
    },
  };
}
