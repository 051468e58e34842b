import type Stripe from "stripe";
import { noSuch } from "./errors.ts";
import type { DiscountRequest } from "./billing/discounts.ts";
import type { ThinEvent } from "./thin.ts";
import type { TestCard } from "./objects/test_cards.ts";

export interface Tombstone {
  id: string;
  object: string;
  deleted: true;
}

/** Objects of one type by id, in the order they were made. */
export class Collection<T extends { id: string; object: string }> {
  private readonly objects = new Map<string, T>();
  private readonly open = new Set<T>();
  private readonly tombstones = new Map<string, Tombstone>();

  /** `name` is how Stripe's messages call an object of this type. */
  constructor(private readonly name: string) {}

  add(object: T): T {
    this.objects.set(object.id, object);
    this.open.add(object);
    return object;
  }

  get(id: string): T | undefined {
    return this.objects.get(id);
  }

  /** The object, or Stripe's 404; `param` is the request parameter that named it. */
  require(id: string, param?: string): T {
    const object = this.objects.get(id);
    if (object === undefined) throw noSuch(this.name, id, param);
    return object;
  }

  /** As `require`, but answers a deleted object as `{ id, object, deleted: true }`. */
  requireOrDeleted(id: string): T | Tombstone {
    return this.tombstones.get(id) ?? this.require(id);
  }

  getOrDeleted(id: string): T | Tombstone | undefined {
    return this.objects.get(id) ?? this.tombstones.get(id);
  }

  remove(object: T): Tombstone {
    const tombstone: Tombstone = { id: object.id, object: object.object, deleted: true };
    this.objects.delete(object.id);
    this.open.delete(object);
    this.tombstones.set(object.id, tombstone);
    return tombstone;
  }

  /** Those that time may still change, oldest first; one that is final once is not looked at again. */
  unsettled(isFinal: (object: T) => boolean): T[] {
    const result: T[] = [];
    for (const object of this.open) {
      if (isFinal(object)) this.open.delete(object);
      else result.push(object);
    }
    return result;
  }

  /** Oldest first. */
  all(): T[] {
    return [...this.objects.values()];
  }
}

/** What a checkout session will sell its customer; Stripe shows it only as line items. */
export interface CheckoutPlan {
  items: { id: string; price: string; quantity: number }[];
  subscriptionMetadata: { [key: string]: string };
  description: string | null;
  trialEnd: number | null;
  trialPeriodDays: number | null;
  missingPaymentMethod: "cancel" | "create_invoice" | "pause" | null;
  /** What a one-time payment carries, and whether its card is kept for later. */
  paymentMetadata: Stripe.Metadata;
  /** Coupons and promotion codes that were asked for, or entered on the page. */
  discounts: DiscountRequest[];
  savesPaymentMethod: "off_session" | "on_session" | null;
}

/** One event a meter was told. */
export interface MeteredUse {
  identifier: string;
  eventName: string;
  payload: { [key: string]: string };
  timestamp: number;
  createdAt: number;
  /** False for what no meter could use, and for what was taken back. */
  counts: boolean;
}

/** A paid-for change that waits for its payment (`payment_behavior: pending_if_incomplete`). */
export interface PendingChange {
  invoice: string;
  apply: () => void;
}

/** A paused subscription that wakes when its invoice is paid (`resume_on_payment_success`). */
export interface PendingResume extends PendingChange {
  expiresAt: number;
}

export function createStore() {
  const store = {
    customers: new Collection<Stripe.Customer>("customer"),
    products: new Collection<Stripe.Product>("product"),
    prices: new Collection<Stripe.Price>("price"),
    paymentMethods: new Collection<Stripe.PaymentMethod>("PaymentMethod"),
    setupIntents: new Collection<Stripe.SetupIntent>("setupintent"),
    features: new Collection<Stripe.Entitlements.Feature>("feature"),
    productFeatures: new Collection<Stripe.ProductFeature>("product feature"),
    taxIds: new Collection<Stripe.TaxId>("tax_id"),
    testClocks: new Collection<Stripe.TestHelpers.TestClock>("test clock"),
    meters: new Collection<Stripe.Billing.Meter>("meter"),
    thinEvents: new Collection<ThinEvent>("event"),
    coupons: new Collection<Stripe.Coupon>("coupon"),
    promotionCodes: new Collection<Stripe.PromotionCode>("promotion code"),
    discounts: new Collection<Stripe.Discount>("discount"),
    sessions: new Collection<Stripe.Checkout.Session>("checkout.session"),
    portalSessions: new Collection<Stripe.BillingPortal.Session>("billing_portal session"),
    subscriptions: new Collection<Stripe.Subscription>("subscription"),
    schedules: new Collection<Stripe.SubscriptionSchedule>("subscription schedule"),
    invoices: new Collection<Stripe.Invoice>("invoice"),
    invoiceItems: new Collection<Stripe.InvoiceItem>("invoiceitem"),
    invoicePayments: new Collection<Stripe.InvoicePayment>("invoice payment"),
    paymentIntents: new Collection<Stripe.PaymentIntent>("payment_intent"),
    charges: new Collection<Stripe.Charge>("charge"),
    disputes: new Collection<Stripe.Dispute>("dispute"),
    earlyFraudWarnings: new Collection<Stripe.Radar.EarlyFraudWarning>("early fraud warning"),
    creditNotes: new Collection<Stripe.CreditNote>("credit note"),
    refunds: new Collection<Stripe.Refund>("refund"),
    events: new Collection<Stripe.Event>("event"),
  };
  const deletedCoupons = new Map<string, Stripe.Coupon>();
  const collections = Object.values(store) as unknown as Collection<{
    id: string;
    object: string;
  }>[];

  return {
    ...store,

    /** How each payment method behaves when it is charged. */
    cards: new Map<string, TestCard>(),
    /** Coupons that can be redeemed no more, while discounts from them run on. */
    deletedCoupons,
    /** The product each attached feature belongs to. */
    productOfFeature: new Map<string, string>(),
    /** Active entitlements by customer. */
    entitlements: new Map<string, Stripe.Entitlements.ActiveEntitlement[]>(),
    meteredUses: new Array<MeteredUse>(),
    /** Tiers by price; Stripe shows them only when asked to expand them. */
    tiers: new Map<string, Stripe.Price.Tier[]>(),
    /** What each finalized invoice is paid with. */
    defaultPayments: new Map<string, Stripe.InvoicePayment>(),
    /** The event that told of each invoice. */
    creationEvents: new Map<string, Stripe.Event>(),
    /** Bank debits under way, and when the bank will answer. */
    debits: new Map<string, number>(),
    /** What an item's running period was billed at, discounts taken off: the basis of its credit. */
    debited: new Map<string, number>(),
    checkoutPlans: new Map<string, CheckoutPlan>(),
    /** The subscription a checkout session has started, while its first payment is declined. */
    startedBy: new Map<string, string>(),
    pendingChanges: new Map<string, PendingChange>(),
    pendingResumes: new Map<string, PendingResume>(),
    /** Paused subscriptions whose unused time was credited, and is owed again when they resume. */
    creditedPauses: new Set<string>(),
    /** Announcements that are made once, such as the end of a trial. */
    announced: new Set<string>(),

    /** A coupon, deleted or not. */
    couponOf(id: string): Stripe.Coupon | undefined {
      return store.coupons.get(id) ?? deletedCoupons.get(id);
    },

    /** Any object by id, for `expand`. Items live inside their subscription and are not found here. */
    find(id: string): object | undefined {
      for (const collection of collections) {
        const object = collection.getOrDeleted(id);
        if (object !== undefined) return object;
      }
      return undefined;
    },
  };
}

export type Store = ReturnType<typeof createStore>;
