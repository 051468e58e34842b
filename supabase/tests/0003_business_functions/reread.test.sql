-- Asking Stripe how an object is: when it is asked, what the answer outranks, and what outranks it.
-- And the answers to commands, which tell of the same second as their events.
begin;
\ir ../helpers.psql
select plan(66);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');

create view tests.questions as
select method, path, params, target_object_id, cause
from billing_private.commands
where kind = 'reread'
  and status in ('pending', 'leased')
order by position;

create function tests.sub(p_status text, p_is_ending boolean default false) returns jsonb
language sql as $$
  select tests.subscription('ann', p_status, '2026-01-10', 'price_plus_monthly',
    jsonb_build_object('cancel_at_period_end', p_is_ending));
$$;

create function tests.hear(
  p_event_id text,
  p_at timestamptz,
  p_object jsonb,
  p_previous jsonb default null,
  p_type text default 'customer.subscription.updated'
) returns text
language sql as $$
  select tests.deliver(p_event_id, p_type, p_at, p_object, p_previous);
$$;

create function tests.claim() returns void
language sql as $$
  select billing_private.claim_commands(1, null);
$$;

-- Answers the call that was claimed; Stripe's clock and the length of the call as said.
create function tests.say(
  p_response jsonb,
  p_stripe_date text default null,
  p_elapsed_seconds numeric default 0.4,
  p_http_status integer default 200
) returns text
language plpgsql as $$
declare
  v_claimed billing_private.commands;
begin
  select * into strict v_claimed from billing_private.commands where status = 'leased';
  return (billing.complete_command(
    v_claimed.id, v_claimed.lease, p_http_status, p_response, null,
    p_stripe_date, p_elapsed_seconds)).status;
end;
$$;

create function tests.stored() returns text
language sql as $$
  select status || case when cancel_at_period_end then ', ending' else '' end
    || case when is_ambiguous then ', in doubt' else '' end
  from billing.subscriptions
  join billing_private.stripe_objects on object_id = stripe_subscription_id;
$$;

select tests.hear('evt_start', '2026-01-10', tests.sub('active'), null,
  'customer.subscription.created');
savepoint s;

-- ---- the machine: when Stripe is asked --------------------------------------

select is_empty($$ select * from tests.questions $$, 'what is clear is not asked');

select tests.hear('evt_1', '2026-01-12', tests.sub('active'), '{"metadata": {"a": "1"}}');
select tests.hear('evt_2', '2026-01-12', tests.sub('past_due'), '{"metadata": {"b": "1"}}');
select results_eq(
  $$ select * from tests.questions $$,
  $$
    values ('GET', '/v1/subscriptions/sub_ann', '{}'::jsonb, 'sub_ann',
      '{"reason": "ambiguous"}'::jsonb)
  $$,
  'A2: snapshots of one second that contradict each other are a question to Stripe'
);
select matches(tests.stored(), 'in doubt$', 'until it answers, the object is in doubt');
savepoint in_doubt;

select tests.hear('evt_3', '2026-01-12', tests.sub('unpaid'), '{"metadata": {"c": "1"}}');
select is((select count(*) from tests.questions), 1::bigint, 'a question that waits is asked once');

select tests.claim();
select tests.hear('evt_4', '2026-01-12', tests.sub('trialing'), '{"metadata": {"d": "1"}}');
select is(
  (select count(*) from tests.questions), 2::bigint,
  'one that is under way may be too early: it is asked again'
);
rollback to in_doubt;

select tests.hear('evt_5', '2026-01-12 00:00:01', tests.sub('active'));
select is(tests.stored(), 'active', 'a newer event settles it as well');
rollback to in_doubt;

select results_eq(
  $$ select kind from billing_private.commands where account_id is null $$,
  $$ values ('reread') $$,
  'a question is no account''s'
);
select tests.sign_in('ann');
select billing.cancel_subscription();
select tests.be_owner();
select is(
  (select method from billing_private.claim_commands(1, null)), 'POST',
  'what users wait for goes first'
);
select is(
  (select method from billing_private.claim_commands(1, null)), 'GET',
  'and no question waits for it'
);
rollback to in_doubt;

select lives_ok(
  $$ select billing_private.request_reread('unheard_of', 'x_1', 'test') $$,
  'nothing is asked about a kind of object nobody can read'
);
select is((select count(*) from tests.questions), 1::bigint, 'there is no question about it');

-- ---- the machine: the answer ------------------------------------------------

select tests.claim();
select is(
  tests.say(tests.sub('past_due'), 'Thu, 15 Jan 2026 08:00:00 GMT'), 'succeeded',
  'Stripe answers'
);
select is(tests.stored(), 'past_due', 'A2: what it says is so, and no longer in doubt');
select results_eq(
  $$
    select source, type, occurred_at
    from billing_private.stripe_events
    where source <> 'webhook'
  $$,
  $$
    values ('reread', 'customer.subscription.updated', '2026-01-15 07:59:59+00'::timestamptz)
  $$,
  'A7: it counts from when Stripe was asked, by Stripe''s clock'
);

select tests.hear('evt_late', '2026-01-13', tests.sub('unpaid'));
select is(tests.stored(), 'past_due', 'A7: events from before the question are in it already');
select tests.hear('evt_next', '2026-01-15 08:00', tests.sub('active'));
select is(tests.stored(), 'active', 'A7: one from after it is newer');
rollback to in_doubt;

select tests.claim();
select tests.hear('evt_next', '2026-01-15 08:00', tests.sub('active'));
select tests.say(tests.sub('past_due'), 'Thu, 15 Jan 2026 08:00:00 GMT', 2);
select is(tests.stored(), 'active', 'A8: a slow answer does not overwrite what came meanwhile');
rollback to in_doubt;

select tests.claim();
select tests.say(tests.sub('past_due'), null);
select is(tests.stored(), 'past_due', 'an answer without a date counts as of what was stored');
select tests.hear('evt_2', '2026-01-12', tests.sub('past_due'), '{"metadata": {"b": "1"}}');
select is(tests.stored(), 'past_due', 'A2: what it knew of does not contradict it again');
select tests.hear('evt_same', '2026-01-12', tests.sub('past_due'), '{"metadata": {"e": "1"}}');
select is(tests.stored(), 'past_due', 'nor does an event of that second that says the same');
select tests.hear('evt_other', '2026-01-12', tests.sub('unpaid'), '{"metadata": {"e": "1"}}');
select matches(tests.stored(), 'in doubt$', 'one that says something else may be older or newer');
select is((select count(*) from tests.questions), 1::bigint, 'so Stripe is asked again');
select tests.claim();
select tests.say(tests.sub('unpaid'), null);
select is(tests.stored(), 'unpaid', 'A8: of two answers the later question''s stands');
rollback to in_doubt;

-- Two questions at once, answered in the other order.
select tests.claim();
select tests.hear('evt_3', '2026-01-12', tests.sub('unpaid'), '{"metadata": {"c": "1"}}');
select tests.claim();
select billing.complete_command(id, lease, 200, tests.sub('unpaid'))
from (select * from billing_private.commands where status = 'leased' order by position desc limit 1)
  as later;
select tests.say(tests.sub('past_due'), null);
select is(tests.stored(), 'unpaid', 'A8: an earlier question''s late answer changes nothing');
rollback to in_doubt;

select tests.claim();
select is(
  tests.say('{"error": {"type": "api_error"}}', null, 0.4, 500), 'pending',
  'a question Stripe cannot answer is asked again later'
);
select matches(tests.stored(), 'in doubt$', 'it stays open');
rollback to in_doubt;

select tests.claim();
select is(
  tests.say('{"error": {"code": "resource_missing"}}', null, 0.4, 404), 'dead',
  'E3: a subscription Stripe does not know is a contradiction for people'
);
rollback to s;

-- ---- the machine: what is gone ----------------------------------------------

select tests.hear('evt_product', '2026-01-12', '{"id": "prod_plus", "object": "product",
  "name": "Plus", "active": true, "created": 1768176000}', null, 'product.updated');
select billing_private.request_reread('product', 'prod_plus', 'test');
select tests.claim();
select is(
  tests.say('{"error": {"code": "resource_missing"}}', null, 0.4, 404), 'succeeded',
  'E3: a product Stripe does not know any more is an answer'
);
select is(
  (select is_active from billing.plans where key = 'plus'), false, 'E3: it is deleted here too'
);
select is((select name from billing.plans where key = 'plus'), 'Plus', 'under the name it had');
select tests.hear('evt_stale', '2026-01-14', '{"id": "prod_plus", "object": "product",
  "name": "Plus", "active": true, "created": 1768176000}', null, 'product.updated');
select is(
  (select is_active from billing.plans where key = 'plus'), false,
  'E4: and stays so, whatever comes late'
);
rollback to s;

select tests.hear('evt_customer', '2026-01-12', '{"id": "cus_ann", "object": "customer",
  "email": "ann@example.com", "created": 1768176000}', null, 'customer.updated');
select billing_private.request_reread('customer', 'cus_ann', 'test');
select tests.claim();
select tests.say('{"id": "cus_ann", "object": "customer", "deleted": true}', null);
select results_eq(
  $$ select email, deleted_at is not null from billing.customers $$,
  $$ values ('ann@example.com', true) $$,
  'E1: a deleted customer is found, says so, and loses nothing'
);
select is(tests.stored(), 'canceled', 'E2: with it end its subscriptions');
rollback to s;

select billing_private.request_reread('invoice', 'in_new', 'test');
select tests.claim();
select is(
  tests.say('{"id": "in_new", "object": "invoice", "livemode": true}'), 'dead',
  'E5: an answer of the other mode is refused'
);
rollback to s;

select billing_private.request_reread('invoice', 'in_new', 'test');
select tests.claim();
select tests.say('{"id": "in_new", "object": "invoice", "livemode": false, "status": "open",
  "currency": "usd", "customer": "cus_ann", "created": 1768176000}');
select results_eq(
  $$ select stripe_invoice_id, status, account_id from billing.invoices $$,
  $$ values ('in_new', 'open', md5('ann')::uuid) $$,
  'H2: what no event told of is learned by asking'
);
rollback to s;

-- ---- the machine: the answer to a command, and its event --------------------

create function tests.ask_to_end() returns void
language plpgsql as $$
begin
  perform tests.sign_in('ann');
  perform billing.cancel_subscription();
  perform tests.be_owner();
  perform tests.claim();
end;
$$;

create function tests.ask_to_stay() returns void
language plpgsql as $$
begin
  perform tests.sign_in('ann');
  perform billing.undo_cancel();
  perform tests.be_owner();
  perform tests.claim();
end;
$$;
grant execute on all functions in schema tests to anon, authenticated, service_role;
savepoint asked;

-- There and back within one second, the events before, after and between the answers.
select tests.ask_to_end();
select tests.say(tests.sub('active', true), 'Sat, 10 Jan 2026 00:00:00 GMT');
select is(tests.stored(), 'active, ending', 'H8: the answer is applied at once');
select tests.hear('evt_end', '2026-01-10', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select is(tests.stored(), 'active, ending', 'H8: its event changes nothing more');
select tests.ask_to_stay();
select tests.say(tests.sub('active'), 'Sat, 10 Jan 2026 00:00:00 GMT');
select is(tests.stored(), 'active', 'A1: back in the same second, by the answer');
select tests.hear('evt_stay', '2026-01-10', tests.sub('active'), '{"cancel_at_period_end": true}');
select is(tests.stored(), 'active', 'A1: and by its event');
rollback to asked;

select tests.ask_to_end();
select tests.hear('evt_end', '2026-01-10', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select tests.say(tests.sub('active', true), 'Sat, 10 Jan 2026 00:00:00 GMT');
select is(tests.stored(), 'active, ending', 'H8: an event that is faster than the answer agrees');
select tests.ask_to_stay();
select tests.say(tests.sub('active'), 'Sat, 10 Jan 2026 00:00:00 GMT');
select is(tests.stored(), 'active', 'A1: and back by the answer, before its event');
rollback to asked;

select tests.ask_to_end();
select tests.say(tests.sub('active', true), 'Sat, 10 Jan 2026 00:00:00 GMT');
select tests.ask_to_stay();
select tests.hear('evt_stay', '2026-01-10', tests.sub('active'), '{"cancel_at_period_end": true}');
select tests.say(tests.sub('active'), 'Sat, 10 Jan 2026 00:00:00 GMT');
select tests.hear('evt_end', '2026-01-10', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select is(tests.stored(), 'active', 'A1: the first event last of all is no news');
select tests.ask_to_end();
select tests.say(tests.sub('active', true), 'Sat, 10 Jan 2026 00:00:00 GMT');
select matches(
  tests.stored(), 'in doubt$', 'A1: there once more in that second is more than a set can tell'
);
select is((select count(*) from tests.questions), 1::bigint, 'so Stripe is asked');
select tests.claim();
select tests.say(tests.sub('active', true), null);
select is(tests.stored(), 'active, ending', 'and its answer stands');
rollback to asked;

select tests.ask_to_end();
select tests.say(tests.sub('active', true), 'Thu, 15 Jan 2026 08:00:00 GMT', 20);
select tests.hear('evt_other', '2026-01-15 07:59:50', tests.sub('past_due'));
select is(tests.stored(), 'past_due', 'A7: what Stripe did while it was being asked is not lost');
rollback to asked;

-- The worker dies before it hands the answer in. Meanwhile somebody undoes it in the dashboard, and
-- then the call is repeated: Stripe answers as it did.
select tests.ask_to_end();
select tests.hear('evt_end', '2026-01-12', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select tests.hear('evt_undone', '2026-01-13', tests.sub('active'), '{"cancel_at_period_end": true}');
update billing_private.commands
set lease_expires_at = billing_private.now()
where status = 'leased';
select tests.claim();
select tests.say(tests.sub('active', true), 'Wed, 14 Jan 2026 00:00:00 GMT');
select is(tests.stored(), 'active', 'B10: an answer Stripe kept is as old as the first attempt');
select is(
  (select cause ->> 'reason' from tests.questions), 'kept_answer',
  'B10: and because nobody knows how old that is, Stripe is asked'
);
rollback to asked;

-- There and back within one second that did not begin with the subscription: a circle has no end, so
-- Stripe is asked; until it answers, the last of the wishes it granted stands.
select tests.ask_to_end();
select tests.say(tests.sub('active', true), 'Mon, 12 Jan 2026 00:00:00 GMT', 0);
select tests.hear('evt_end', '2026-01-12', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
savepoint one_way;
select tests.ask_to_stay();
select tests.say(tests.sub('active'), 'Mon, 12 Jan 2026 00:00:00 GMT', 0);
select is(tests.stored(), 'active, in doubt', 'A1: the answer to the second wish is believed');
select tests.hear('evt_a_stay', '2026-01-12', tests.sub('active'),
  '{"cancel_at_period_end": true}');
select is(tests.stored(), 'active, in doubt', 'A1: with its event as well');
select is((select count(*) from tests.questions), 1::bigint, 'A1: and Stripe is asked, once');
select tests.ask_to_end();
select tests.say(tests.sub('active', true), 'Mon, 12 Jan 2026 00:00:00 GMT', 0);
select is(tests.stored(), 'active, ending, in doubt', 'A1: and so is that to a third');
rollback to one_way;

select tests.ask_to_stay();
select tests.hear('evt_a_stay', '2026-01-12', tests.sub('active'),
  '{"cancel_at_period_end": true}');
select tests.say(tests.sub('active'), 'Mon, 12 Jan 2026 00:00:00 GMT', 0);
select is(
  tests.stored(), 'active, in doubt', 'A1: nor does it matter whether its event came first'
);
rollback to asked;

-- ---- the machine: what comes after the question and is older ----------------

select tests.hear('evt_back', '2026-01-12', tests.sub('active'), '{"cancel_at_period_end": true}');
select billing_private.request_reread('subscription', 'sub_ann', 'test');
select tests.claim();
select tests.say(tests.sub('active'), 'Mon, 12 Jan 2026 00:00:00 GMT', 0);
select is(tests.stored(), 'active', 'a re-read that finds what is known changes nothing');
select tests.hear('evt_forth', '2026-01-12', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select matches(
  tests.stored(), 'in doubt$',
  'A8: an event that comes after the question, of a state that had been left before it, is doubted'
);
select tests.claim();
select tests.say(tests.sub('active'), 'Mon, 12 Jan 2026 00:00:00 GMT', 0);
select is(tests.stored(), 'active', 'A8: and the next answer settles it');
rollback to asked;

select tests.hear('evt_forth', '2026-01-12', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select billing_private.request_reread('subscription', 'sub_ann', 'test');
select tests.claim();
select tests.say(tests.sub('active', true), 'Mon, 12 Jan 2026 00:00:00 GMT', 0);
select tests.hear('evt_forth_again', '2026-01-12', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select is(tests.stored(), 'active, ending', 'B2: what was known before the question, told again');
select tests.hear('evt_back', '2026-01-12', tests.sub('active'), '{"cancel_at_period_end": true}');
select matches(tests.stored(), 'in doubt$', 'A8: then which of the two was last nobody knows');
rollback to asked;

select tests.hear('evt_back', '2026-01-12', tests.sub('active') || '{"old_field": 1}',
  '{"cancel_at_period_end": true}');
select billing_private.request_reread('subscription', 'sub_ann', 'test');
select tests.claim();
select tests.say(tests.sub('active'), 'Mon, 12 Jan 2026 00:00:00 GMT', 0);
select tests.hear('evt_forth', '2026-01-12', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select matches(
  tests.stored(), 'in doubt$',
  'A8, D7: so is one whose undoing was told in another API version before the question'
);
rollback to asked;

-- The answer builds on an event of another API version: it tells of the same change as its own event.
select tests.hear('evt_noted', '2026-01-12', tests.sub('active') || '{"old_field": 1}',
  '{"metadata": {"note": null}}');
select tests.ask_to_end();
select tests.say(tests.sub('active', true), 'Mon, 12 Jan 2026 00:00:00 GMT');
select tests.hear('evt_end', '2026-01-12', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select tests.ask_to_stay();
select tests.say(tests.sub('active'), 'Mon, 12 Jan 2026 00:00:00 GMT');
select tests.hear('evt_stay', '2026-01-12', tests.sub('active'), '{"cancel_at_period_end": true}');
select matches(
  tests.stored(), 'in doubt$',
  'B2, D7: a change told by its event and by an answer in another version happened once, or twice'
);
rollback to asked;

-- An answer in another API version than the events equals none of them; and back and forth, with one
-- change told twice, no event is the end of a chain.
select tests.hear('evt_end', '2026-01-10', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select tests.ask_to_stay();
select tests.say(tests.sub('active') || '{"new_field": 1}', 'Sat, 10 Jan 2026 00:00:00 GMT');
select tests.hear('evt_stay', '2026-01-10', tests.sub('active'), '{"cancel_at_period_end": true}');
select tests.hear('evt_end_2', '2026-01-10', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select tests.hear('evt_end_2_again', '2026-01-10', tests.sub('active', true),
  '{"cancel_at_period_end": false}');
select matches(
  tests.stored(), 'in doubt$',
  'A1: an answer no event confirms is not the last word on a state that was left in two ways'
);
rollback to asked;

-- ---- the machine: since when payment fails, by an answer and by the event ------

create function tests.past_due_since() returns timestamptz
language sql as $$
  select past_due_since from billing.subscriptions;
$$;

create function tests.read_past_due() returns void
language sql as $$
  select billing_private.request_reread('subscription', 'sub_ann', 'test');
  select tests.claim();
  select tests.say(tests.sub('past_due'), 'Mon, 12 Jan 2026 00:00:02 GMT', 3);
$$;
savepoint failing;

select tests.read_past_due();
select is(
  tests.past_due_since(), '2026-01-11 23:59:59+00'::timestamptz,
  'where only an answer tells, payment fails since Stripe was asked'
);
select tests.hear('evt_fails', '2026-01-12', tests.sub('past_due'), '{"status": "active"}');
select is(
  tests.past_due_since(), '2026-01-12 00:00+00'::timestamptz,
  'A13: the event of the change, that comes after, knows better'
);
rollback to failing;

select tests.hear('evt_fails', '2026-01-12', tests.sub('past_due'), '{"status": "active"}');
select tests.hear('evt_noted', '2026-01-14', tests.sub('past_due'), '{"metadata": {"a": "1"}}');
select tests.read_past_due();
select is(
  tests.past_due_since(), '2026-01-12 00:00+00'::timestamptz,
  'A13: an answer from before it changes nothing about that'
);
select tests.hear('evt_again', '2026-01-13', tests.sub('past_due'), '{"status": "active"}');
select is(
  tests.past_due_since(), '2026-01-13 00:00+00'::timestamptz,
  'A12: who fails again was paid in between, also where that event was lost'
);
rollback to asked;

-- ---- the machine: Stripe's clock --------------------------------------------

select results_eq(
  $$
    select billing_private.asked_at(stripe_date, elapsed_seconds)
    from (values
      ('Thu, 15 Jan 2026 08:00:00 GMT', 0.0),
      ('Thu, 15 Jan 2026 08:00:00 GMT', 0.001),
      ('Thu, 15 Jan 2026 08:00:00 GMT', 61),
      ('Thu, 15 Jan 2026 08:00:00 GMT', null),
      ('Thu, 35 Jan 2026 08:00:00 GMT', 0),
      ('yesterday', 0),
      (null, 1)
    ) as answers (stripe_date, elapsed_seconds)
  $$,
  $$
    values ('2026-01-15 08:00:00+00'::timestamptz), ('2026-01-15 07:59:59+00'),
      ('2026-01-15 07:58:59+00'), ('2026-01-15 08:00:00+00'), (null), (null), (null)
  $$,
  'H10: the time of a question is the answer''s date less the length of the call'
);

select * from finish();
rollback;
