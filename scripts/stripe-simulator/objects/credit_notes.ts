/** Credit notes: less to pay on an open invoice; balance, refund or nothing on a paid one. */
import type Stripe from "stripe";
import { markPaid } from "../billing/collection.ts";
import { invalidRequest } from "../errors.ts";
import {
  hash,
  list,
  metadata,
  natural,
  oneOf,
  range,
  required,
  text,
  type Params,
} from "../http/params.ts";
import { changedMetadata, page, pagination, route } from "../http/routes.ts";
import { change, idOf, type Simulation } from "../simulation.ts";
import { defaultPayment } from "./payments.ts";
import { createRefund } from "./refunds.ts";

const newCreditNote = {
  invoice: required(text),
  amount: natural,
  lines: list(
    hash({
      type: required(oneOf("custom_line_item", "invoice_line_item")),
      invoice_line_item: text,
      description: text,
      amount: natural,
      quantity: natural,
      unit_amount: natural,
    }),
  ),
  credit_amount: natural,
  refund_amount: natural,
  out_of_band_amount: natural,
  reason: oneOf("duplicate", "fraudulent", "order_change", "product_unsatisfactory"),
  memo: text,
  metadata,
};

type NewCreditNote = Params<typeof newCreditNote>;

function createCreditNote(simulation: Simulation, params: NewCreditNote): Stripe.CreditNote {
  const { store, now, newId, emit, baseUrl } = simulation;
  const invoice = store.invoices.require(params.invoice, "invoice");
  if (invoice.status !== "open" && invoice.status !== "paid") {
    throw invalidRequest(
      `You cannot create a credit note for an invoice that is ${String(invoice.status)}.`,
      { param: "invoice" },
    );
  }
  const id = newId("cn");
  const lines = linesOf(simulation, invoice, params);
  const total = lines.reduce((sum, { amount }) => sum + amount, 0);
  const paid = invoice.status === "paid";
  const parts = split(params, total, paid);
  const creditable = paid
    ? invoice.total -
      invoice.pre_payment_credit_notes_amount -
      invoice.post_payment_credit_notes_amount
    : invoice.amount_remaining;
  if (total < 1 || total > creditable) {
    throw invalidRequest(
      `The sum of credit amount, refund amount and out of band amount (${total}) must be at least 1 and at most the creditable amount (${creditable}).`,
      { param: "amount" },
    );
  }

  const refund = parts.refund === 0 ? null : refundOf(simulation, invoice, parts.refund);
  const sequence = store.creditNotes.all().filter((note) => note.invoice === invoice.id).length + 1;
  const note = store.creditNotes.add({
    id,
    object: "credit_note",
    amount: total,
    amount_shipping: 0,
    created: now(),
    currency: invoice.currency,
    customer: idOf(invoice.customer) ?? "",
    customer_account: null,
    customer_balance_transaction: parts.credit === 0 ? null : newId("cbtxn"),
    discount_amount: 0,
    discount_amounts: [],
    effective_at: now(),
    invoice: invoice.id,
    lines: {
      object: "list",
      data: lines,
      has_more: false,
      url: `/v1/credit_notes/${id}/lines`,
    },
    livemode: false,
    memo: params.memo ?? null,
    metadata: changedMetadata({}, params.metadata),
    number: `${invoice.number ?? "NONE"}-CN-${String(sequence).padStart(2, "0")}`,
    out_of_band_amount: parts.outOfBand === 0 ? null : parts.outOfBand,
    pdf: `${baseUrl()}/i/${invoice.id}?credit_note=${id}`,
    post_payment_amount: paid ? total : 0,
    pre_payment_amount: paid ? 0 : total,
    pretax_credit_amounts: [],
    reason: params.reason ?? null,
    refunds:
      refund === null
        ? []
        : [
            {
              amount_refunded: refund.amount,
              payment_record_refund: null,
              refund: refund.id,
              type: "refund",
            },
          ],
    shipping_cost: null,
    status: "issued",
    subtotal: total,
    subtotal_excluding_tax: total,
    total,
    total_excluding_tax: total,
    total_taxes: [],
    type: paid ? "post_payment" : "pre_payment",
    voided_at: null,
  });
  emit("credit_note.created", note);
  applyNote(simulation, invoice, note, parts.credit, 1);
  return note;
}

interface Parts {
  credit: number;
  refund: number;
  outOfBand: number;
}

/** Where a paid invoice's credit goes; without a word it becomes customer balance. */
function split(
  { credit_amount, refund_amount, out_of_band_amount }: NewCreditNote,
  total: number,
  paid: boolean,
): Parts {
  const named = [credit_amount, refund_amount, out_of_band_amount];
  const asked = named.some((amount) => amount !== undefined);
  if (!paid && asked) {
    throw invalidRequest("An open invoice's credit note only lowers what is due.");
  }
  if (!paid) return { credit: 0, refund: 0, outOfBand: 0 };
  if (!asked) return { credit: total, refund: 0, outOfBand: 0 };
  const sum = named.reduce<number>((all, amount) => all + (amount ?? 0), 0);
  if (sum !== total) {
    throw invalidRequest(
      "The sum of credit amount, refund amount and out of band amount must equal the credit note's amount.",
    );
  }
  return {
    credit: credit_amount ?? 0,
    refund: refund_amount ?? 0,
    outOfBand: out_of_band_amount ?? 0,
  };
}

function refundOf(simulation: Simulation, invoice: Stripe.Invoice, amount: number): Stripe.Refund {
  const charge = idOf(defaultPayment(simulation, invoice)?.intent.latest_charge);
  if (charge === null) throw invalidRequest("This invoice was not paid with a charge.");
  return createRefund(simulation, simulation.store.charges.require(charge), amount, {
    reason: null,
    metadata: {},
  });
}

function linesOf(
  { newId, store }: Simulation,
  invoice: Stripe.Invoice,
  { amount, lines }: NewCreditNote,
): Stripe.CreditNoteLineItem[] {
  if ((amount === undefined) === (lines === undefined)) {
    throw invalidRequest("You must pass exactly one of `amount` and `lines`.");
  }
  const asked = lines ?? [
    {
      type: "custom_line_item" as const,
      invoice_line_item: undefined,
      description: "Credit",
      amount,
      quantity: undefined,
      unit_amount: undefined,
    },
  ];
  return asked.map((line) => {
    const source = store.invoices
      .get(invoice.id)
      ?.lines.data.find(({ id }) => id === line.invoice_line_item);
    if (line.type === "invoice_line_item" && source === undefined) {
      throw invalidRequest(`No such invoice line item: '${line.invoice_line_item ?? ""}'`, {
        code: "resource_missing",
        param: "lines",
      });
    }
    const quantity = line.quantity ?? 1;
    const given =
      line.amount ?? (line.unit_amount === undefined ? undefined : line.unit_amount * quantity);
    const value = given ?? source?.amount ?? 0;
    return {
      id: newId("cnli"),
      object: "credit_note_line_item",
      amount: value,
      description: line.description ?? source?.description ?? null,
      discount_amount: 0,
      discount_amounts: [],
      ...(source === undefined ? {} : { invoice_line_item: source.id }),
      livemode: false,
      metadata: {},
      pretax_credit_amounts: [],
      quantity: line.quantity ?? null,
      tax_rates: [],
      taxes: [],
      type: line.type,
      unit_amount: line.unit_amount ?? null,
      unit_amount_decimal: null,
    };
  });
}

/** Lets a note take effect (`sign` 1), or takes that back. */
function applyNote(
  simulation: Simulation,
  invoice: Stripe.Invoice,
  note: Stripe.CreditNote,
  credit: number,
  sign: 1 | -1,
): void {
  const { store } = simulation;
  change(simulation, invoice, () => {
    invoice.post_payment_credit_notes_amount += sign * note.post_payment_amount;
    invoice.pre_payment_credit_notes_amount += sign * note.pre_payment_amount;
    invoice.amount_due -= sign * note.pre_payment_amount;
    invoice.amount_remaining -= sign * note.pre_payment_amount;
  });
  const waiting = defaultPayment(simulation, invoice);
  if (waiting !== undefined && note.pre_payment_amount > 0) {
    waiting.intent.amount = invoice.amount_due;
    waiting.payment.amount_requested = invoice.amount_due;
  }
  const customer = store.customers.get(idOf(invoice.customer) ?? "");
  if (customer !== undefined && credit > 0) {
    change(simulation, customer, () => {
      customer.balance -= sign * credit;
    });
  }
  if (invoice.status === "open" && invoice.amount_remaining === 0) markPaid(simulation, invoice);
}

export const creditNoteRoutes = [
  route("POST /v1/credit_notes", newCreditNote, createCreditNote),

  route(
    "GET /v1/credit_notes",
    { ...pagination, customer: text, invoice: text, created: range },
    ({ store }, params) =>
      page(
        "/v1/credit_notes",
        store.creditNotes
          .all()
          .filter(
            ({ customer, invoice, created }) =>
              (params.customer === undefined || customer === params.customer) &&
              (params.invoice === undefined || invoice === params.invoice) &&
              (params.created === undefined || params.created(created)),
          ),
        params,
      ),
  ),

  route("GET /v1/credit_notes/:id", {}, ({ store }, _params, id) => store.creditNotes.require(id)),

  route("GET /v1/credit_notes/:id/lines", pagination, ({ store }, params, id) =>
    page(
      `/v1/credit_notes/${id}/lines`,
      store.creditNotes.require(id).lines.data.toReversed(),
      params,
    ),
  ),

  route("POST /v1/credit_notes/:id", { memo: text, metadata }, (simulation, params, id) => {
    const note = simulation.store.creditNotes.require(id);
    change(simulation, note, () => {
      if (params.memo !== undefined) note.memo = params.memo;
      note.metadata = changedMetadata(note.metadata, params.metadata);
    });
    return note;
  }),

  route("POST /v1/credit_notes/:id/void", {}, (simulation, _params, id) => {
    const { store, now, emit } = simulation;
    const note = store.creditNotes.require(id);
    const invoice = store.invoices.require(idOf(note.invoice) ?? "");
    if (note.status === "void" || invoice.status !== "open") {
      throw invalidRequest("Only the credit note of an open invoice can be voided, once.");
    }
    note.status = "void";
    note.voided_at = now();
    emit("credit_note.voided", note);
    applyNote(simulation, invoice, note, 0, -1);
    return note;
  }),
];
