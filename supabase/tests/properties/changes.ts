/** What can happen to the sources of access: each change is one statement, made at random. */
import type { Client } from "pg";
import type { Random } from "../support/random.ts";
import { idOf } from "../support/readers.ts";
import type { Instant } from "./reference.ts";
import { accounts, features, isoOf, plans } from "./world.ts";

type Change = (owner: Client, random: Random, now: Instant) => Promise<unknown>;

const hour = 3_600_000_000n;

/** Some hours from now, before it or after, not always full ones. */
function near(random: Random, now: Instant, fromHours: number, toHours: number): string {
  const jitter = random.chance(0.5) ? BigInt(random.whole(0, 999_999)) : 0n;
  return isoOf(now + BigInt(random.whole(fromHours, toHours)) * hour + jitter);
}

const statuses = [
  ...(["active", "active", "active", "trialing", "past_due", "past_due", "incomplete"] as const),
  ...(["unpaid", "paused", "canceled", "incomplete_expired", "hibernating"] as const),
] as const;

const newId = (random: Random, kind: string) => `${kind}_${random.whole(0, 1_000_000_000)}`;

const subscribe: Change = async (owner, random, now) => {
  const key = newId(random, "sub");
  const begins = near(random, now, -48, 6);
  await owner.query(
    `insert into billing.subscriptions
      (id, account_id, status, started_at, past_due_since, stripe_subscription_id,
        stripe_latest_invoice_id)
    values (md5($1)::uuid, $2, $3, $4, case when $3 = 'past_due' then $5::timestamptz end, $1,
      'in_' || $1)`,
    [
      key,
      idOf(random.pick(accounts)),
      random.pick(["active", "trialing", "past_due"]),
      random.chance(0.9) ? begins : null,
      isoOf(now),
    ],
  );
  await addItemTo(owner, random, now, key);
};

const addItem: Change = async (owner, random, now) => {
  const key = await anySubscription(owner, random);
  if (key !== undefined) await addItemTo(owner, random, now, key);
};

async function addItemTo(owner: Client, random: Random, now: Instant, key: string): Promise<void> {
  const hasPeriod = random.chance(0.9);
  await owner.query(
    `insert into billing.subscription_items
      (subscription_id, price_id, current_period_start, current_period_end,
        stripe_subscription_item_id)
    values (md5($1)::uuid, md5('price ' || $2::text)::uuid, $3, $4, $5)`,
    [
      key,
      random.pick(plans),
      hasPeriod ? near(random, now, -24, 0) : null,
      hasPeriod ? near(random, now, 1, 31 * 24) : null,
      newId(random, "si"),
    ],
  );
}

const removeItem: Change = (owner, random) =>
  owner.query(
    `delete from billing.subscription_items
    where id = (
      select id from billing.subscription_items
      order by md5(stripe_subscription_item_id || $1) limit 1)`,
    [String(random.whole(0, 1_000_000))],
  );

const renew: Change = async (owner, random, now) => {
  const key = await anySubscription(owner, random);
  await owner.query(
    `update billing.subscription_items set current_period_start = $2, current_period_end = $3
    where subscription_id = md5($1)::uuid`,
    [key ?? "none", near(random, now, -2, 0), near(random, now, 1, 31 * 24)],
  );
};

const changeStatus: Change = async (owner, random, now) => {
  const key = await anySubscription(owner, random);
  await owner.query(
    `update billing.subscriptions
    set status = $2::text,
        past_due_since = case when $2 = 'past_due' then $3::timestamptz end,
        ended_at = case when $2 = 'canceled' and $4 then $3::timestamptz end
    where id = md5($1)::uuid`,
    [key ?? "none", random.pick(statuses), near(random, now, -30, 0), random.chance(0.5)],
  );
};

const scheduleEnd: Change = async (owner, random, now) => {
  const key = await anySubscription(owner, random);
  await owner.query(
    `update billing.subscriptions set cancel_at = $2, cancel_at_period_end = $3
    where id = md5($1)::uuid`,
    [key ?? "none", random.chance(0.5) ? near(random, now, 1, 600) : null, random.chance(0.5)],
  );
};

const pause: Change = async (owner, random) => {
  const key = await anySubscription(owner, random);
  const behavior = random.pick(["void", "void", "keep_as_draft", "mark_uncollectible"]);
  await owner.query(
    "update billing.subscriptions set pause_collection = $2 where id = md5($1)::uuid",
    [key ?? "none", random.chance(0.6) ? JSON.stringify({ behavior }) : null],
  );
};

/** An invoice is open before it is paid or void, and neither goes back. */
const invoice: Change = async (owner, random) => {
  const key = await anySubscription(owner, random);
  if (key === undefined) return;
  const isNext = random.chance(0.3);
  if (isNext) {
    await owner.query(
      "update billing.subscriptions set stripe_latest_invoice_id = $2 where id = md5($1)::uuid",
      [key, newId(random, `in_${key}`)],
    );
  }
  await owner.query(
    `insert into billing.invoices
      (account_id, status, currency, subtotal_minor, total_minor, amount_due_minor,
        amount_paid_minor, amount_remaining_minor, stripe_invoice_id, stripe_subscription_id)
    select account_id, $2, 'usd', 0, 0, 0, 0, 0, stripe_latest_invoice_id, stripe_subscription_id
    from billing.subscriptions
    where id = md5($1)::uuid
    on conflict (stripe_invoice_id) do update set status = excluded.status
    where invoices.status = 'open'`,
    [key, random.pick(["open", "paid", "paid", "void", "void"])],
  );
};

const grant: Change = (owner, random, now) =>
  owner.query(
    `insert into billing.entitlement_grants
      (account_id, feature_key, kind, limit_value, valid_from, valid_until, reason)
    values ($1, $2, $3, $4, $5, coalesce($6::timestamptz, 'infinity'), 'a test')`,
    [
      idOf(random.pick(accounts)),
      random.pick(features),
      random.pick(["gift", "support", "promotion", "trial_extension"]),
      random.chance(0.7) ? random.whole(0, 20) : null,
      near(random, now, 0, 48),
      random.chance(0.8) ? near(random, now, 49, 400) : null,
    ],
  );

const agree: Change = async (owner, random, now) => {
  const reference = newId(random, "contract");
  const begins = near(random, now, -24, 48);
  await owner.query(
    `insert into billing.contracts
      (id, account_id, status, starts_at, ends_at, first_ends_at, term_starts_at, reference, reason)
    values (md5($1)::uuid, $2, 'active', $3, $4, $4, $3, $1, 'a test')`,
    [reference, idOf(random.pick(accounts)), begins, near(random, now, 49, 600)],
  );
  await owner.query(
    `insert into billing.contract_features (contract_id, feature_key, limit_value)
    select md5($1)::uuid, key, $3 from unnest($2::text[]) as key`,
    [
      reference,
      random.shuffled(features).slice(0, random.whole(1, 2)),
      random.chance(0.7) ? random.whole(0, 12) : null,
    ],
  );
};

const endContract: Change = (owner, random) =>
  owner.query(
    `update billing.contracts
    set status = 'ended', ended_at = greatest(starts_at, billing_private.now()), end_reason = 'a test'
    where ended_at is null
      and account_id = $1`,
    [idOf(random.pick(accounts))],
  );

const revoke: Change = (owner, random) =>
  owner.query(
    `update billing.entitlement_grants
    set revoked_at = billing_private.now(), revoked_reason = 'a test'
    where revoked_at is null
      and feature_key = $1
      and account_id = $2`,
    [random.pick(features), idOf(random.pick(accounts))],
  );

const restrict: Change = async (owner, random, now) => {
  const key = await anySubscription(owner, random);
  if (key === undefined) return;
  await owner.query(
    `insert into billing.access_restrictions
      (account_id, subscription_id, cause, reference, access_level, begins_at, periods_before)
    select account_id, id, $2, $3, $4, $5::timestamptz, coalesce($6::timestamptz, 'infinity')
    from billing.subscriptions
    where id = md5($1)::uuid`,
    [
      key,
      random.pick(["full_refund", "partial_refund", "dispute_opened", "dispute_lost"]),
      newId(random, "re"),
      random.pick(["full", "read_only", "none"]),
      near(random, now, -5, 5),
      random.chance(0.5) ? near(random, now, -20, 20) : null,
    ],
  );
};

const lift: Change = (owner, random) =>
  owner.query(
    `update billing.access_restrictions set lifted_at = billing_private.now()
    where lifted_at is null and access_level = $1`,
    [random.pick(["full", "read_only", "none"])],
  );

const giveFeature: Change = (owner, random) =>
  owner.query(
    `insert into billing.plan_features (plan_id, feature_key, limit_value)
    values (md5($1)::uuid, $2, $3)
    on conflict (plan_id, version, feature_key) do update set limit_value = excluded.limit_value`,
    [random.pick(plans), random.pick(features), random.chance(0.7) ? random.whole(0, 30) : null],
  );

const takeFeature: Change = (owner, random) =>
  owner.query(
    "delete from billing.plan_features where plan_id = md5($1)::uuid and feature_key = $2",
    [random.pick(plans), random.pick(features)],
  );

const changeGraces: Change = (owner, random) =>
  owner.query(
    `update billing.plans
    set renewal_grace = make_interval(hours => $2), past_due_grace = make_interval(hours => $3)
    where key = $1`,
    [random.pick(plans), random.whole(0, 12), random.whole(0, 96)],
  );

const changePolicies: Change = (owner, random) =>
  owner.query(
    "update billing.plans set access_policy_key = $2, dunning_policy_key = $3 where key = $1",
    [
      random.pick(plans),
      random.pick(["standard", "reading", "lenient"]),
      random.pick(["standard", "firm", "short"]),
    ],
  );

const changePause: Change = (owner, random) =>
  owner.query("update billing.access_policies set paused = $2 where key = $1", [
    random.pick(["standard", "reading", "lenient"]),
    random.pick(["full", "read_only", "none"]),
  ]);

const changeStage: Change = (owner, random) =>
  random.chance(0.5)
    ? owner.query(
        `insert into billing.dunning_stages (policy_key, begins_after, action)
        values ($1, make_interval(hours => $2), $3)
        on conflict do nothing`,
        [
          random.pick(["firm", "short"]),
          random.whole(0, 100),
          random.pick(["read_only", "suspend"]),
        ],
      )
    : owner.query("delete from billing.dunning_stages where policy_key = $1 and action = $2", [
        random.pick(["firm", "short"]),
        random.pick(["read_only", "suspend"]),
      ]);

const movePrice: Change = (owner, random) =>
  owner.query(
    "update billing.prices set plan_id = md5($2)::uuid where id = md5('price ' || $1::text)::uuid",
    [random.pick(plans), random.pick(plans)],
  );

const moveToStore: Change = (owner, random) =>
  owner.query(
    "update billing.plans set store_id = case when $2 then md5('night-owl')::uuid end where key = $1",
    [random.pick(plans), random.chance(0.5)],
  );

const moveToAccount: Change = async (owner, random) => {
  const key = await anySubscription(owner, random);
  await owner.query("update billing.subscriptions set account_id = $2 where id = md5($1)::uuid", [
    key ?? "none",
    random.chance(0.8) ? idOf(random.pick(accounts)) : null,
  ]);
};

/** Nothing has to run, and nothing is spoilt by what does. */
const runTasks: Change = (owner) =>
  owner.query(
    `select
      billing_private.refresh_elapsed(100),
      billing_private.correct_entitlements(array(select id from billing.accounts))`,
  );

async function anySubscription(owner: Client, random: Random): Promise<string | undefined> {
  const { rows } = await owner.query<{ key: string }>(
    "select stripe_subscription_id as key from billing.subscriptions order by id",
  );
  return rows[random.whole(0, Math.max(rows.length - 1, 0))]?.key;
}

export const changes: readonly [Change, ...Change[]] = [
  ...([subscribe, subscribe, subscribe, addItem, removeItem] as const),
  ...([renew, renew, changeStatus, changeStatus, changeStatus] as const),
  ...([scheduleEnd, pause, invoice, invoice, invoice] as const),
  ...([agree, agree, endContract] as const),
  ...([grant, grant, revoke, restrict, restrict, lift] as const),
  ...([giveFeature, takeFeature, changeGraces, changePolicies, changePause] as const),
  ...([changeStage, movePrice, moveToStore, moveToAccount, runTasks] as const),
];
