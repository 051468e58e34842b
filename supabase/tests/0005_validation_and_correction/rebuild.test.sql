-- Rebuilding what is mirrored from Stripe from the inbox: what it finds, what it leaves, what it
-- repairs.
begin;
\ir ../helpers.psql
select plan(37);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-20');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
select tests.account('bob');

select tests.subscribe('ann', 'incomplete', '2026-01-10 08:00');
select tests.deliver('evt_active', 'customer.subscription.updated', '2026-01-10 08:00',
  tests.subscription('ann', 'active', '2026-01-10 08:00'), '{"status": "incomplete"}');
select tests.deliver('evt_due', 'customer.subscription.updated', '2026-01-12',
  tests.subscription('ann', 'past_due', '2026-01-10 08:00'), '{"status": "active"}');
select tests.subscribe('bob');
select tests.deliver('evt_bob_over', 'customer.subscription.deleted', '2026-01-15',
  tests.subscription('bob', 'canceled', '2026-01-10', p_extra => '{"ended_at": 1768435200}'));
-- A late word about a subscription that is over.
select tests.deliver('evt_bob_late', 'customer.subscription.updated', '2026-01-16',
  tests.subscription('bob', 'active', '2026-01-10'));
select tests.deliver('evt_in', 'invoice.finalized', '2026-01-12', '{
  "id": "in_ann", "object": "invoice", "status": "open", "currency": "usd", "customer": "cus_ann",
  "subscription": "sub_ann", "total": 1000, "amount_due": 1000, "lines": {"has_more": false,
  "data": [{"id": "il_1", "amount": 1000, "currency": "usd", "description": "Plus"}]}}');
select tests.deliver('evt_charge', 'charge.succeeded', '2026-01-12', '{
  "id": "ch_1", "object": "charge", "status": "succeeded", "amount": 1000, "currency": "usd",
  "customer": "cus_bob", "payment_intent": "pi_1"}');

create view tests.found as
select object_id, class, differences, problem, is_repaired
from billing_private.rebuild(null, false);

create function tests.contents() returns text
language sql as $$
  select md5(string_agg(content, ';' order by content))
  from (
    select to_jsonb(subscriptions)::text from billing.subscriptions
    union all
    select to_jsonb(subscription_items)::text from billing.subscription_items
    union all
    select to_jsonb(invoices)::text from billing.invoices
    union all
    select to_jsonb(invoice_lines)::text from billing.invoice_lines
    union all
    select to_jsonb(payments)::text from billing.payments
    union all
    select to_jsonb(entitlements)::text from billing.entitlements
    union all
    select to_jsonb(subscription_changes)::text from billing.subscription_changes
    union all
    select to_jsonb(stripe_objects)::text from billing_private.stripe_objects
    union all
    select to_jsonb(stripe_events)::text from billing_private.stripe_events
    union all
    select to_jsonb(drifts)::text from billing_private.drifts
  ) as contents (content);
$$;

savepoint s;

-- ---- the owner: all is well -------------------------------------------------

create temporary table before as select tests.contents() as contents;
select is_empty($$ select * from tests.found $$, 'D5: what the inbox tells is what is stored');
select is(tests.contents(), (select contents from before), 'rebuilding leaves nothing behind');
select is_empty(
  $$ select * from billing_private.audit_log where cause ->> 'kind' = 'rebuild' $$,
  'not even in the audit'
);
select is_empty(
  $$ select * from billing_private.rebuild(array['sub_nobody', null], true) $$,
  'of what nobody told there is nothing to rebuild'
);
rollback to s;

-- ---- the owner: a row that was changed --------------------------------------

update billing.subscriptions
set status = 'active', past_due_since = null
where stripe_subscription_id = 'sub_ann';
select results_eq(
  $$ select object_id, class, problem, is_repaired from tests.found $$,
  $$ values ('sub_ann', 'different', null::text, false) $$,
  'D5: a row that says something else is found'
);
select is(
  (select differences from tests.found),
  '[{"table": "billing.subscriptions", "key": "sub_ann",
    "before": {"status": "active", "past_due_since": null},
    "after": {"status": "past_due", "past_due_since": "2026-01-12T00:00:00+00:00"}}]',
  'H5: with the columns that differ: what is stored, and what was rebuilt'
);
select is(
  (select status from billing.subscriptions where stripe_subscription_id = 'sub_ann'), 'active',
  'looking repairs nothing'
);
select is_empty($$ select * from billing_private.drifts $$, 'nor records it');
select results_eq(
  $$ select object_id, is_repaired from billing_private.rebuild(null, true) $$,
  $$ values ('sub_ann', true) $$,
  'asked to, it repairs'
);
select results_eq(
  $$
    select status, past_due_since
    from billing.subscriptions
    where stripe_subscription_id = 'sub_ann'
  $$,
  $$ values ('past_due', '2026-01-12 00:00+00'::timestamptz) $$,
  'the row says what the inbox tells'
);
select results_eq(
  $$
    select object_id, class, found_by, repaired_at is not null
    from billing_private.drifts
  $$,
  $$ values ('sub_ann', 'different', 'rebuild', true) $$,
  'H5: the repair is recorded'
);
select is_empty($$ select * from tests.found $$, 'after that all is well');
select is(
  (
    select array_agg(to_status order by effective_at, created_at)
    from billing.subscription_changes
    where account_id = md5('ann')::uuid
  ) @> array['incomplete', 'active', 'past_due'],
  true,
  'the history is not written a second time from its beginning'
);
rollback to s;

-- ---- the owner: rows that are gone, or too many ------------------------------

delete from billing.invoice_lines where stripe_line_id = 'il_1';
select results_eq(
  $$ select object_id, class from tests.found $$,
  $$ values ('in_ann', 'missing') $$,
  'a part that is gone is found'
);
rollback to s;

delete from billing.invoice_lines where stripe_line_id = 'il_1';
delete from billing.invoices where stripe_invoice_id = 'in_ann';
select results_eq(
  $$ select object_id, class, is_repaired from billing_private.rebuild(null, true) $$,
  $$ values ('in_ann', 'missing', true) $$,
  'P2: a row that is gone comes back'
);
select results_eq(
  $$
    select invoices.status, total_minor, account_id, amount_minor
    from billing.invoices
    join billing.invoice_lines on invoice_id = invoices.id
  $$,
  $$ values ('open', 1000::bigint, md5('ann')::uuid, 1000::bigint) $$,
  'P2: with its parts, and its owner'
);
rollback to s;

insert into billing.subscription_items (subscription_id, quantity, stripe_subscription_item_id)
select id, 3, 'si_invented'
from billing.subscriptions
where stripe_subscription_id = 'sub_ann';
select results_eq(
  $$ select object_id, class from tests.found $$,
  $$ values ('sub_ann', 'surplus') $$,
  'a part that nothing told of is found'
);
rollback to s;

update billing.payments set amount_minor = 1 where stripe_payment_key = 'pi_1';
select results_eq(
  $$ select object_id, class from tests.found $$,
  $$ values ('ch_1', 'different') $$,
  'a payment is compared with the charge that made it'
);
rollback to s;

-- ---- the owner: what is noted of the snapshots is not believed ---------------

update billing_private.stripe_objects
set event_id = 'evt_bob_late', occurred_at = '2026-01-16', is_final = false
where object_id = 'sub_bob';
update billing.subscriptions
set status = 'active', ended_at = null
where stripe_subscription_id = 'sub_bob';
select is(
  (select event_id from billing_private.newest_of_all('sub_bob')), 'evt_bob_over',
  'A6: the final snapshot counts, whatever is noted'
);
select results_eq(
  $$ select object_id, class from billing_private.rebuild(null, true) $$,
  $$ values ('sub_bob', 'different') $$,
  'A6: so what came back to life is found'
);
select results_eq(
  $$
    select status, event_id, is_final
    from billing.subscriptions
    join billing_private.stripe_objects on object_id = stripe_subscription_id
    where stripe_subscription_id = 'sub_bob'
  $$,
  $$ values ('canceled', 'evt_bob_over', true) $$,
  'A6: and what is noted is put right as well'
);
rollback to s;

update billing_private.stripe_events
set status = 'discarded', status_reason = 'never happened'
where event_id = 'evt_due';
select is(
  (select differences #>> '{0,after,status}' from tests.found where object_id = 'sub_ann'),
  'active',
  'A1: of one second the last counts; what an administrator discarded does not'
);
rollback to s;

-- ---- the owner: poison ------------------------------------------------------

update billing.subscriptions set status = 'unpaid' where stripe_subscription_id = 'sub_ann';
update billing.payments set amount_minor = 1 where stripe_payment_key = 'pi_1';
alter table billing.payments add constraint not_1000 check (amount_minor <> 1000);
select results_eq(
  $$ select object_id, problem is not null, is_repaired from billing_private.rebuild(null, true) $$,
  $$ values ('ch_1', true, false), ('sub_ann', false, true) $$,
  'B14: an object that cannot be rebuilt says so and stops no other'
);
rollback to s;

-- ---- the owner: by policy ---------------------------------------------------

update billing_private.drift_policies set repairs = false where class = 'different';
update billing.subscriptions set status = 'unpaid' where stripe_subscription_id = 'sub_ann';
select is(billing_private.task_rebuild(), 1::bigint, 'a task rebuilds and compares');
select results_eq(
  $$ select object_id, class, repaired_at from billing_private.drifts $$,
  $$ values ('sub_ann', 'different', null::timestamptz) $$,
  'what its policy does not repair is reported'
);
select is(
  (select status from billing.subscriptions where stripe_subscription_id = 'sub_ann'), 'unpaid',
  'and left as it is'
);
update billing_private.drift_policies set repairs = true where class = 'different';
select is(billing_private.task_rebuild(), 1::bigint, 'the list begins again');
select is(
  (select status from billing.subscriptions where stripe_subscription_id = 'sub_ann'), 'past_due',
  'what its policy repairs is repaired'
);
select is(billing_private.task_rebuild(), 0::bigint, 'then there is nothing left to do');
rollback to s;

-- ---- an administrator -------------------------------------------------------

update billing.subscriptions set status = 'unpaid' where stripe_subscription_id = 'sub_ann';
update billing.invoices set total_minor = 5 where stripe_invoice_id = 'in_ann';
update billing.payments set amount_minor = 1 where stripe_payment_key = 'pi_1';
create temporary table ids as
select id from billing.subscriptions where stripe_subscription_id = 'sub_ann';
grant select on ids to public;
select tests.sign_in('ada');
select results_eq(
  $$
    select object_id, class, is_repaired
    from billing_admin.rebuild_subscription((select id from ids), 'a complaint')
  $$,
  $$ values ('sub_ann', 'different', false), ('in_ann', 'different', false) $$,
  'an administrator compares a subscription and its bills with the inbox'
);
select is(
  (select count(*) from billing_admin.rebuild_subscription((select id from ids), 'mend', true)
    where is_repaired),
  2::bigint, 'and has them repaired'
);
select results_eq(
  $$
    select rebuilt, resume_after, cardinality(found), (found[1]).object_id
    from billing_admin.rebuild_all('monthly check', at_most => 1)
  $$,
  $$ values (1, 'ch_1', 1, 'ch_1') $$,
  'or compares everything, batch by batch'
);
select results_eq(
  $$
    select rebuilt > 0, resume_after, cardinality(found)
    from billing_admin.rebuild_all('monthly check', 'ch_1')
  $$,
  $$ values (true, null::text, 0) $$,
  'to the end'
);
select throws_ok(
  $$ select * from billing_admin.rebuild_subscription(md5('nobody')::uuid, 'a typo') $$,
  'PT404', 'the account has no such subscription',
  'a subscription that does not exist cannot be rebuilt'
);
select throws_ok(
  $$ select * from billing_admin.rebuild_all('too much', at_most => 5001) $$,
  'PT400', 'the request is not valid',
  'a batch has its limit'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing_admin.rebuild_subscription((select id from ids), 'mine') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot rebuild her subscription'
);
select throws_ok(
  $$ select * from billing_admin.rebuild_all('all') $$,
  'PT403', 'this needs a billing administrator',
  'nor everybody''s'
);

select * from finish();
rollback;
