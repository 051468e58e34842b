-- billing.change_plan(): more at once and paid for, less at period end; asked twice, asked once.
begin;
\ir ../helpers.psql
select plan(104);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');
select billing_private.ensure_account(md5('bob')::uuid);
select tests.subscribe('ann');

insert into billing.plans (id, key, name, tier_rank) values (md5('top')::uuid, 'top', 'Top', 30);
insert into billing.prices
  (id, key, plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id)
values
  (md5('plus_eur')::uuid, 'plus_eur', md5('plus')::uuid, 'eur', 900, 'month', 'price_plus_eur'),
  (md5('plus_other')::uuid, 'plus_other', md5('plus')::uuid, 'usd', 1000, 'month',
    'price_plus_other'),
  (md5('plus_weekly')::uuid, 'plus_weekly', md5('plus')::uuid, 'usd', 9000, 'week',
    'price_plus_weekly'),
  (md5('plus_cheap')::uuid, 'plus_cheap', md5('plus')::uuid, 'usd', 999, 'month',
    'price_plus_cheap'),
  (md5('plus_dear')::uuid, 'plus_dear', md5('plus')::uuid, 'usd', 1001, 'month', 'price_plus_dear'),
  (md5('top_weekly')::uuid, 'top_weekly', md5('top')::uuid, 'usd', 1, 'week', 'price_top_weekly');

create function tests.sub(
  p_status text,
  p_extra jsonb default '{}',
  p_price text default 'price_plus_monthly'
) returns text
language sql as $$
  select tests.deliver('evt_' || md5(p_status || p_extra || p_price),
    'customer.subscription.updated', '2026-01-11',
    tests.subscription('ann', p_status, '2026-01-10', p_price, p_extra));
$$;

create function tests.details(p_statement text) returns jsonb
language plpgsql as $$
declare
  v_details text;
begin
  execute p_statement;
  return null;
exception when others then
  get stacked diagnostics v_details = pg_exception_detail;
  return v_details;
end;
$$;

create view tests.asked as
select kind, method, path, params
from billing_private.commands
where status in ('pending', 'leased')
order by position;

-- The schedule Stripe makes of ann's subscription; p_items are those of its running phase.
create function tests.schedule(
  p_items jsonb default '[{"price": "price_plus_monthly", "quantity": 1, "metadata": {}}]',
  p_extra jsonb default '{}'
) returns jsonb
language sql as $$
  select jsonb_build_object(
    'id', 'sub_sched_1', 'object', 'subscription_schedule', 'livemode', false,
    'status', 'active', 'subscription', 'sub_ann', 'customer', 'cus_ann',
    'end_behavior', 'release',
    'current_phase', jsonb_build_object('start_date', 1768003200, 'end_date', 1770681600),
    'phases', jsonb_build_array(jsonb_build_object(
      'start_date', 1768003200, 'end_date', 1770681600, 'trial_end', null, 'items', p_items,
      'discounts', '[]'::jsonb, 'default_tax_rates', null, 'metadata', '{}'::jsonb,
      'proration_behavior', 'create_prorations') || p_extra));
$$;

-- The same with its next phase, as Stripe takes it from us.
create function tests.schedule_to(p_price text, p_quantity bigint default 1) returns jsonb
language sql as $$
  select jsonb_set(tests.schedule(), '{phases,1}', jsonb_build_object(
    'start_date', 1770681600, 'end_date', 1773100800,
    'items', jsonb_build_array(jsonb_build_object('price', p_price, 'quantity', p_quantity))));
$$;

-- Stripe answers the oldest call.
create function tests.answer(p_response jsonb, p_http_status integer default 200) returns text
language plpgsql as $$
declare
  v_claimed billing.claimed_command;
begin
  select * into strict v_claimed from billing_private.claim_commands(1, null);
  perform billing.complete_command(
    v_claimed.id, v_claimed.lease, p_http_status, p_response, null);
  return (select kind from billing_private.commands where id = v_claimed.id);
end;
$$;

-- Ann asks for this, and is herself again.
create function tests.change(p_price_key text, p_at_period_end boolean default null) returns void
language plpgsql as $$
begin
  perform tests.sign_in('ann');
  perform billing.change_plan(p_price_key, p_at_period_end);
  perform tests.be_owner();
end;
$$;

-- Ann asks for other seats.
create function tests.seats(p_quantity bigint, p_at_period_end boolean default null) returns void
language plpgsql as $$
begin
  perform tests.sign_in('ann');
  perform billing.change_plan(null, p_at_period_end, quantity => p_quantity);
  perform tests.be_owner();
end;
$$;

-- Whether Stripe is asked to change now or at period end when the catalog decides; undone again.
create function tests.decided(p_price_key text) returns text
language plpgsql as $$
declare
  v_kind text;
begin
  perform tests.change(p_price_key);
  select kind into v_kind from tests.asked;
  raise exception sqlstate 'TS001';
exception when sqlstate 'TS001' then
  return case v_kind when 'change_plan' then 'now' when 'create_schedule' then 'later' end;
end;
$$;

-- The SQLSTATE of ann's change with a subscription in this status, or null; undone again.
create function tests.refusal(p_status text) returns text
language plpgsql as $$
begin
  update billing.subscriptions set status = p_status;
  perform tests.change('plus_yearly');
  raise exception sqlstate 'TS001';
exception when others then
  return nullif(sqlstate, 'TS001');
end;
$$;

grant execute on all functions in schema tests to authenticated, service_role;
savepoint s;

-- ---- a member: now ----------------------------------------------------------

select tests.sub('active', '{"items": {"data": [{"id": "si_ann", "quantity": 3,
  "price": {"id": "price_plus_monthly"}, "current_period_start": 1768003200,
  "current_period_end": 1770681600}]}}');
select tests.sign_in('ann');
select results_eq(
  $$ select status, price_key, pending_command from billing.change_plan('plus_yearly') $$,
  $$ values ('active', 'plus_monthly', 'change_plan') $$,
  'a member asks for more; until Stripe has answered, nothing has changed'
);
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('change_plan', 'POST', '/v1/subscriptions/sub_ann', '{
      "items": [{"id": "si_ann", "price": "price_plus_yearly", "quantity": 3}],
      "proration_behavior": "always_invoice",
      "payment_behavior": "pending_if_incomplete"}'::jsonb)
  $$,
  'D21, D22: Stripe is told the item and its seats, and changes it only if that is paid'
);
select tests.change('plus_yearly');
select is((select count(*) from tests.asked), 1::bigint, 'a double click is one command');
select tests.change('top_weekly');
select tests.change('plus_yearly');
select is(
  (select array_agg(params #>> '{items,0,price}') from tests.asked),
  '{price_plus_yearly}',
  'who changes her mind is followed: what Stripe was not told is left out'
);
rollback to s;

select tests.change('plus_yearly');
create temporary table calling as select * from billing.claim_commands();
select tests.change('plus_yearly');
select is((select count(*) from tests.asked), 1::bigint,
  'a click while Stripe is being asked is the same wish');
select tests.change('top_weekly');
select tests.change('plus_monthly', false);
select results_eq(
  $$ select kind, params #>> '{items,0,price}' from tests.asked $$,
  $$ values ('change_plan', 'price_plus_yearly'), ('change_plan', 'price_plus_monthly') $$,
  'what Stripe may have done already is undone after it, even to what still seems to run'
);
select billing.complete_command(id, lease, null, '{"error": {"message": "Timeout"}}') from calling;
select tests.change('plus_yearly');
select is(
  (select array_agg(params #>> '{items,0,price}') from tests.asked), '{price_plus_yearly}',
  'back to what Stripe may have done: the undoing is left out, and the call is made again'
);
rollback to s;

select tests.change('basic_monthly');
select tests.change('plus_yearly');
select is((select array_agg(kind) from tests.asked), '{change_plan}',
  'a change at once supersedes one for later');
select tests.change('basic_monthly');
select is((select array_agg(kind) from tests.asked), '{create_schedule}',
  'and one for later a change at once');
rollback to s;

-- ---- a member: seats --------------------------------------------------------

select tests.sub('active', '{"items": {"data": [{"id": "si_ann", "quantity": 5,
  "price": {"id": "price_plus_monthly"}, "current_period_start": 1768003200,
  "current_period_end": 1770681600}]}}');
savepoint five;
select tests.seats(8);
select is(
  (select params -> 'items' from tests.asked),
  '[{"id": "si_ann", "price": "price_plus_monthly", "quantity": 8}]',
  'D21: more seats are had at once, at the price that runs'
);
rollback to five;

select tests.seats(3);
select is((select kind from tests.asked), 'create_schedule', 'fewer wait for the period''s end');
select tests.answer(tests.schedule('[{"price": "price_plus_monthly", "quantity": 5}]'));
select is(
  (select params #> '{phases,1,items}' from tests.asked),
  '[{"price": "price_plus_monthly", "quantity": 3}]',
  'the next phase has that many'
);
select tests.answer(tests.schedule_to('price_plus_monthly', 3));
select tests.sign_in('ann');
select results_eq(
  $$ select quantity, pending_price_key, pending_quantity from billing.my_subscription() $$,
  $$ values (5::bigint, 'plus_monthly', 3::bigint) $$,
  'and the member sees what waits'
);
select tests.be_owner();
savepoint three_waiting;
select tests.seats(3);
select is_empty($$ select * from tests.asked $$, 'asking that twice changes nothing');
select tests.seats(5);
select is((select kind from tests.asked), 'release_schedule',
  'naming the seats there are takes it back');
rollback to three_waiting;
select tests.sub('active', '{"items": {"data": [{"id": "si_ann", "quantity": 5,
  "price": {"id": "price_plus_monthly"}, "current_period_start": 1768003200,
  "current_period_end": 1770681600}]}, "metadata": {"note": "x"}, "schedule": "sub_sched_1"}');
select is((select pending_quantity from billing.subscriptions), 3::bigint,
  'news of the subscription as it is leave it waiting');
select tests.deliver('evt_three', 'customer.subscription.updated', '2026-02-10',
  tests.subscription('ann', 'active', '2026-02-10', p_extra => '{"items": {"data": [
    {"id": "si_ann", "quantity": 3, "price": {"id": "price_plus_monthly"},
      "current_period_start": 1770681600, "current_period_end": 1773100800}]}}'));
select results_eq(
  $$ select quantity, pending_price_id, pending_quantity, pending_change_at
    from billing.subscriptions $$,
  $$ values (3::bigint, null::uuid, null::bigint, null::timestamptz) $$,
  'it waits until Stripe has done it'
);
rollback to five;

select tests.seats(3, false);
select tests.seats(5);
select is_empty($$ select * from tests.asked $$,
  'G17: 5, 3 and 5 seats in a minute: what was not sent is left out, and nothing is asked');
select tests.seats(3, false);
create temporary table calling as select * from billing.claim_commands();
select tests.seats(4);
select tests.seats(5);
select results_eq(
  $$ select params #>> '{items,0,quantity}' from tests.asked $$,
  $$ values ('3'), ('5') $$,
  'G17: what was sent is followed by the last wish alone'
);
select billing.complete_command(id, lease, 200,
  tests.subscription('ann', 'active', '2026-01-10', p_extra => '{"items": {"data": [
    {"id": "si_ann", "quantity": 3, "price": {"id": "price_plus_monthly"},
      "current_period_start": 1768003200, "current_period_end": 1770681600}]}}'))
from calling;
select tests.seats(5);
select is((select count(*) from tests.asked), 1::bigint, 'G17: a double click adds nothing');
select tests.answer(tests.subscription('ann', 'active', '2026-01-10', p_extra => '{"items": {
  "data": [{"id": "si_ann", "quantity": 5, "price": {"id": "price_plus_monthly"},
    "current_period_start": 1768003200, "current_period_end": 1770681600}]}}'));
select is((select quantity from billing.subscriptions), 5::bigint, 'G17: five it is');
rollback to five;

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.change_plan(null, quantity => 5) $$,
  'PT422', 'the subscription is already on this price',
  'as many seats as there are is no change'
);
select is_empty(
  $$
    select quantity
    from unnest(array[-1, 0, 1000000]) as quantity
    cross join lateral tests.details(
      format('select billing.change_plan(null, quantity => %L)', quantity)) as details
    where (details ->> 'code', details ->> 'field')
      is distinct from ('VALIDATION_FAILED', 'quantity')
  $$,
  'fewer than one seat and a million are refused'
);
select lives_ok($$ select billing.change_plan(null, quantity => 999999) $$, '999999 are not');
select tests.be_owner();
rollback to five;

update billing.prices set is_listed = false where key = 'plus_monthly';
select lives_ok($$ select tests.seats(6) $$,
  'seats can be changed at a price that is no longer on offer');
rollback to five;

update billing.prices set usage_type = 'metered' where key = 'plus_yearly';
select tests.sign_in('ann');
select is(
  tests.details($$ select billing.change_plan('plus_yearly', quantity => 2) $$) ->> 'problem',
  'a metered price has no seats',
  'a metered price takes no seats'
);
select tests.be_owner();
rollback to s;

-- ---- a member: what the preview showed --------------------------------------

select tests.sign_in('ann');
select billing.change_plan('plus_yearly', proration_date => '2026-01-15 07:30:00.7');
select tests.be_owner();
select is(
  (select params -> 'proration_date' from tests.asked),
  to_jsonb(extract(epoch from timestamptz '2026-01-15 07:30')::bigint),
  'the date of the preview goes to Stripe, which then charges what it showed'
);
rollback to s;
select tests.sign_in('ann');
select is_empty(
  $$
    select at, accepted
    from (values
      ('2026-01-15 06:59:59', false), ('2026-01-15 07:00', true),
      ('2026-01-15 08:01', true), ('2026-01-15 08:01:01', false)) as dates (at, accepted)
    cross join lateral tests.details(format(
      'select billing.change_plan(''plus_yearly'', proration_date => %L)', at)) as details
    where (details ->> 'field' = 'proration_date') is not distinct from accepted
  $$,
  'it is of the last hour: nobody picks the day that is cheapest'
);
select tests.be_owner();
rollback to s;

-- ---- a member: what waits for its payment -------------------------------------

select tests.change('plus_yearly');
select tests.answer(tests.subscription('ann', 'active', '2026-01-10', p_extra => '{
  "pending_update": {"expires_at": 1768550400, "subscription_items": [
    {"id": "si_ann", "price": {"id": "price_plus_yearly"}, "quantity": 1}]}}'));
select tests.sign_in('ann');
select results_eq(
  $$ select price_key, pending_command, refusal from billing.my_subscription() $$,
  $$ values ('plus_monthly', null, '{"code": "PAYMENT_REQUIRED", "command": "change_plan",
    "price_keys": ["plus_yearly"], "expires_at": "2026-01-16T08:00:00+00:00",
    "open_invoice_url": null}'::jsonb) $$,
  'a change whose payment failed is not made; the member learns what is to be paid, and until when'
);
select tests.be_owner();
select tests.deliver('evt_paid', 'customer.subscription.pending_update_applied',
  '2026-01-15 09:00', tests.subscription('ann', 'active', '2026-01-10', 'price_plus_yearly'));
select is((select refusal from billing_private.summarize_subscription(
    (select id from billing.subscriptions))), null, 'once it is paid it is made');
rollback to s;

-- ---- a member: what Stripe refuses ------------------------------------------

select tests.change('plus_yearly');
select tests.answer('{"error": {"type": "card_error", "code": "card_declined",
  "decline_code": "stolen_card", "message": "Your card was declined."}}', 402);
select tests.sign_in('ann');
select is(
  (select refusal from billing.my_subscription()),
  '{"code": "PAYMENT_DECLINED", "command": "change_plan", "stripe_code": "card_declined",
    "decline_code": "generic_decline", "stripe_message": "Your card was declined."}',
  'the member is told that the payment was declined, and no thief that the card is known as stolen'
);
select tests.be_owner();
select tests.change('plus_dear');
select is((select refusal from billing_private.summarize_subscription(
    (select id from billing.subscriptions))), null,
  'the next wish is not refused yet');
select tests.answer('{"error": {"type": "invalid_request_error", "message": "No."}}', 400);
select is(
  (select refusal from billing_private.summarize_subscription(
    (select id from billing.subscriptions))),
  '{"code": "STRIPE_REQUEST_FAILED", "command": "change_plan",
    "stripe_code": "invalid_request_error", "decline_code": null, "stripe_message": "No."}',
  'other refusals say what Stripe says'
);
select tests.change('plus_yearly');
select tests.answer('{"error": {"type": "card_error", "code": "card_declined",
  "decline_code": "insufficient_funds", "message": "No funds."}}', 402);
select is(
  (select refusal ->> 'decline_code' from billing_private.summarize_subscription(
    (select id from billing.subscriptions))),
  'insufficient_funds',
  'a reason the customer can do something about is told'
);
rollback to s;

select tests.sub('active', '{"collection_method": "send_invoice"}');
select tests.change('plus_yearly');
select is(
  (select params ->> 'payment_behavior' from tests.asked), null,
  'where invoices are sent Stripe cannot wait for the payment, and is not told to'
);
rollback to s;

update billing.prices set usage_type = 'metered' where key = 'plus_yearly';
select tests.change('plus_yearly');
select is(
  (select params #> '{items,0}' from tests.asked),
  '{"id": "si_ann", "price": "price_plus_yearly"}',
  'a metered price has no seats'
);
rollback to s;

select tests.sub('active', '{"items": {"data": [
  {"id": "si_addon", "quantity": 7, "price": {"id": "price_unheard_of"},
    "current_period_start": 1768003200, "current_period_end": 1770681600},
  {"id": "si_base", "quantity": 2, "price": {"id": "price_plus_monthly"},
    "current_period_start": 1768003200, "current_period_end": 1770681600}]}}');
select tests.change('plus_yearly');
select is(
  (select params -> 'items' from tests.asked),
  '[{"id": "si_base", "price": "price_plus_yearly", "quantity": 2}]',
  'D22: of several items the base plan''s is changed, and no other'
);
rollback to s;

select tests.sub('trialing', '{"trial_end": 1768608000}');
select lives_ok($$ select tests.change('plus_yearly') $$, 'a trial can be changed');
rollback to s;

-- ---- a member: now or later -------------------------------------------------

select results_eq(
  $$
    select key, tests.decided(key)
    from unnest(array['top_weekly', 'plus_yearly', 'plus_dear', 'plus_other', 'plus_cheap',
      'plus_weekly', 'basic_monthly']) as key
  $$,
  $$
    values
      ('top_weekly', 'now'),
      ('plus_yearly', 'now'),
      ('plus_dear', 'now'),
      ('plus_other', 'later'),
      ('plus_cheap', 'later'),
      ('plus_weekly', 'later'),
      ('basic_monthly', 'later')
  $$,
  'a higher tier, then a longer period, then a higher amount is more: now; the rest later'
);
select tests.change('basic_monthly', false);
select is((select kind from tests.asked), 'change_plan', 'less may be asked for now');
rollback to s;
select tests.change('plus_yearly', true);
select is((select kind from tests.asked), 'create_schedule', 'and more for later');
rollback to s;

select tests.sub('active', '{}', 'price_unheard_of');
select is(
  tests.decided('basic_monthly'), 'now',
  'C1: from a price nobody knows, any plan is more'
);
rollback to s;

-- ---- a member: at period end ------------------------------------------------

select tests.sign_in('ann');
select is(
  (select pending_command from billing.change_plan('basic_monthly')), 'create_schedule',
  'a member asks for less'
);
select tests.be_owner();
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('create_schedule', 'POST', '/v1/subscription_schedules',
      '{"from_subscription": "sub_ann"}'::jsonb)
  $$,
  'Stripe is asked to make a schedule of the subscription'
);
select tests.change('basic_monthly');
select tests.change('basic_monthly', true);
select is((select count(*) from tests.asked), 1::bigint, 'a double click is one command');

select is(
  tests.answer(tests.schedule('[{"price": "price_plus_monthly", "quantity": 3, "metadata": {}}]')),
  'create_schedule',
  'Stripe makes it'
);
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('update_schedule', 'POST', '/v1/subscription_schedules/sub_sched_1', '{
      "end_behavior": "release",
      "phases": [
        {"start_date": 1768003200, "end_date": 1770681600,
          "items": [{"price": "price_plus_monthly", "quantity": 3}]},
        {"items": [{"price": "price_basic_monthly", "quantity": 3}],
          "proration_behavior": "none", "duration": {"interval": "month", "interval_count": 1}}
      ]}'::jsonb)
  $$,
  'D21: and is told to go on as it is, and then with the new price and as many seats'
);
select is(
  (select stripe_schedule_id from billing.subscriptions), 'sub_sched_1',
  'its id is kept, to let go of it if need be'
);
select tests.change('basic_monthly');
select is((select count(*) from tests.asked), 1::bigint, 'a click meanwhile is the same wish');
select tests.answer(tests.schedule_to('price_basic_monthly'));
select tests.sign_in('ann');
select results_eq(
  $$
    select price_key, pending_price_key, pending_change_at, pending_command
    from billing.change_plan('basic_monthly')
  $$,
  $$ values ('plus_monthly', 'basic_monthly', '2026-02-10 00:00+00'::timestamptz, null) $$,
  'a click after that is told what waits, and asks nothing'
);
select tests.be_owner();
select set_eq(
  $$ select feature_key from billing.entitlements where account_id = md5('ann')::uuid $$,
  array['clubs', 'premium'],
  'access follows what runs, not what waits'
);
savepoint waiting;

select tests.change('plus_monthly');
select results_eq(
  $$ select * from tests.asked $$,
  $$
    values ('release_schedule', 'POST', '/v1/subscription_schedules/sub_sched_1/release',
      '{}'::jsonb)
  $$,
  'naming the running price takes the change back'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.change_plan('plus_monthly') $$,
  'PT422', 'the subscription is already on this price',
  'asking that twice is already done'
);
select tests.be_owner();
select tests.change('basic_monthly');
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('release_schedule'), ('create_schedule') $$,
  'who changes her mind before Stripe has let go of it gets a new one'
);
rollback to waiting;

select tests.change('plus_cheap');
select results_eq(
  $$ select kind, path from tests.asked $$,
  $$
    values ('release_schedule', '/v1/subscription_schedules/sub_sched_1/release'),
      ('create_schedule', '/v1/subscription_schedules')
  $$,
  'another price at period end takes the place of the one that waits'
);
select tests.change('plus_cheap');
select is((select count(*) from tests.asked), 2::bigint, 'once');
rollback to waiting;

select tests.change('plus_yearly');
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('release_schedule'), ('change_plan') $$,
  'a change now lets go of the one that waits: Stripe would refuse it otherwise'
);
select tests.change('plus_yearly');
select is((select count(*) from tests.asked), 2::bigint, 'once');
rollback to s;

-- ---- a member: before Stripe has answered -----------------------------------

select tests.change('basic_monthly');
select tests.change('plus_cheap');
select tests.answer(tests.schedule());
select results_eq(
  $$ select kind, params #> '{phases,1,items}' from tests.asked $$,
  $$ values ('update_schedule', '[{"price": "price_plus_cheap", "quantity": 1}]'::jsonb) $$,
  'another price before the schedule is made: it is made once, and leads to the last one'
);
rollback to s;

select tests.change('basic_monthly');
create temporary table making as select * from billing.claim_commands();
select tests.change('plus_cheap');
select billing.complete_command(id, lease, 200, tests.schedule()) from making;
select results_eq(
  $$ select kind, params #> '{phases,1,items}' from tests.asked $$,
  $$ values ('update_schedule', '[{"price": "price_plus_cheap", "quantity": 1}]'::jsonb) $$,
  'also while Stripe is making it'
);
rollback to s;

select tests.change('basic_monthly');
select tests.answer(tests.schedule());
select tests.change('plus_cheap');
select results_eq(
  $$ select kind from tests.asked $$,
  $$ values ('release_schedule'), ('create_schedule') $$,
  'once it is made it is let go, and another one made'
);
rollback to s;

select tests.change('basic_monthly');
select tests.change('plus_monthly');
select is_empty($$ select * from tests.asked $$,
  'taking back what Stripe was not told leaves nothing');
rollback to s;

select tests.change('basic_monthly');
create temporary table making as select * from billing.claim_commands();
select tests.change('plus_monthly');
select tests.change('basic_monthly');
select billing.complete_command(id, lease, 200, tests.schedule()) from making;
select results_eq(
  $$ select kind, path from tests.asked $$,
  $$
    values ('release_schedule', '/v1/subscription_schedules/sub_sched_1/release'),
      ('create_schedule', '/v1/subscription_schedules')
  $$,
  'taking back and asking again while Stripe is making a schedule: that one goes, another comes'
);
select is(
  tests.answer(tests.schedule() || '{"status": "released", "current_phase": null}'),
  'release_schedule',
  'in this order'
);
select tests.answer(tests.schedule());
select results_eq(
  $$ select kind, params #> '{phases,1,items}' from tests.asked $$,
  $$ values ('update_schedule', '[{"price": "price_basic_monthly", "quantity": 1}]'::jsonb) $$,
  'and leads where it was asked to'
);
rollback to s;

-- ---- a member: what a schedule must not take away ---------------------------

select tests.change('basic_monthly');
savepoint asked;
select tests.answer(tests.schedule('[
  {"price": {"id": "price_addon", "object": "price"}, "quantity": 2, "tax_rates": []},
  {"price": "price_plus_monthly", "quantity": 5,
    "discounts": [{"coupon": null, "discount": "di_item", "promotion_code": null}]},
  {"price": "price_meter"}]'));
select is(
  (select params #> '{phases,0,items}' from tests.asked),
  '[{"price": "price_addon", "quantity": 2},
    {"price": "price_plus_monthly", "quantity": 5, "discounts": [{"discount": "di_item"}]},
    {"price": "price_meter"}]',
  'the running phase keeps its add-ons, meters and discounts'
);
select is(
  (select params #> '{phases,1,items}' from tests.asked),
  '[{"price": "price_addon", "quantity": 2},
    {"price": "price_basic_monthly", "quantity": 5, "discounts": [{"discount": "di_item"}]},
    {"price": "price_meter"}]',
  'and so does the next one: only the base plan changes'
);
rollback to asked;

select tests.answer(tests.schedule(p_extra => '{"trial_end": 1768608000,
  "discounts": [{"coupon": {"id": "half"}, "discount": null}],
  "default_tax_rates": [{"id": "txr_1", "object": "tax_rate"}]}'));
select is(
  (select params #> '{phases,0}' from tests.asked),
  '{"start_date": 1768003200, "end_date": 1770681600, "trial_end": 1768608000,
    "discounts": [{"coupon": "half"}], "default_tax_rates": ["txr_1"],
    "items": [{"price": "price_plus_monthly", "quantity": 1}]}',
  'the running phase keeps its trial, discounts and taxes'
);
select is(
  (select (params #> '{phases,1}') - 'items' from tests.asked),
  '{"discounts": [{"coupon": "half"}], "default_tax_rates": ["txr_1"],
    "proration_behavior": "none", "duration": {"interval": "month", "interval_count": 1}}',
  'the next one keeps discounts and taxes, and has no trial'
);
rollback to asked;

select tests.answer(tests.schedule('[{"price": "price_changed_meanwhile", "quantity": 4}]'));
select is(
  (select params #> '{phases,1,items}' from tests.asked),
  '[{"price": "price_basic_monthly", "quantity": 4}]',
  'where there is one item it is the one that changes, whatever it costs by now'
);
rollback to s;

update billing.prices
set billing_interval = 'year', interval_count = 2, usage_type = 'metered'
where key = 'basic_monthly';
select tests.change('basic_monthly', true);
select tests.answer(tests.schedule());
select is(
  (select params #> '{phases,1}' from tests.asked),
  '{"items": [{"price": "price_basic_monthly"}], "proration_behavior": "none",
    "duration": {"interval": "year", "interval_count": 2}}',
  'the next phase lasts one period of the new price, without seats where it is metered'
);
rollback to s;

select tests.change('basic_monthly');
select tests.answer('{"error": {"message": "No."}}', 400);
select is_empty($$ select * from tests.asked $$,
  'a schedule Stripe refuses is not asked for again');
select is((select pending_price_id from billing.subscriptions), null, 'and nothing waits');
rollback to s;

-- ---- a member: what is refused ----------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.change_plan('plus_monthly') $$,
  'PT422', 'the subscription is already on this price',
  'the price that runs, with nothing waiting, is no change'
);
select throws_ok(
  $$ select billing.change_plan('gold_monthly') $$,
  'PT404', 'there is no such price on offer',
  'nor is one that nobody offers'
);
select throws_ok(
  $$ select billing.change_plan(null) $$,
  'PT404', 'there is no such price on offer',
  'or none'
);
select throws_ok(
  $$ select billing.change_plan('plus_eur') $$,
  'PT400', 'the request is not valid',
  'a subscription keeps its currency'
);
select is(
  tests.details($$ select billing.change_plan('plus_eur') $$),
  '{"code": "VALIDATION_FAILED", "field": "price_key", "currency": "usd",
    "problem": "a subscription keeps its currency"}',
  'and the refusal names it'
);
select tests.be_owner();

update billing.prices set stripe_price_id = null where key = 'plus_yearly';
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.change_plan('plus_yearly') $$,
  'PT404', 'there is no such price on offer',
  'a price Stripe does not know yet cannot be changed to'
);
select tests.be_owner();
rollback to s;

select is_empty(
  $$
    select wanted.status
    from (values ('past_due', 'PT402'), ('unpaid', 'PT402'), ('incomplete', 'PT402'),
      ('paused', 'PT422'), ('hibernating', 'PT422'), ('canceled', 'PT422'),
      ('incomplete_expired', 'PT422'), ('active', null), ('trialing', null))
      as wanted (status, sqlstate)
    where tests.refusal(wanted.status) is distinct from wanted.sqlstate
  $$,
  'who owes is sent to pay; what is paused, over or unknown cannot be changed'
);
select tests.sub('paused');
select tests.sign_in('ann');
select is(
  tests.details($$ select billing.change_plan('plus_yearly') $$) - 'subscription_id',
  '{"code": "INVALID_TRANSITION", "from": "paused", "to": "active"}',
  'the refusal names both states'
);
select tests.be_owner();
rollback to s;

select tests.sub('active', '{"cancel_at_period_end": true}');
select tests.sign_in('ann');
select throws_ok(
  $$ select billing.change_plan('basic_monthly') $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'what ends with the period has no other plan after it'
);
select is(
  tests.details($$ select billing.change_plan('basic_monthly') $$) ->> 'problem',
  'it ends with the period: undo the cancellation first',
  'and the refusal says what to do'
);
select lives_ok($$ select billing.change_plan('plus_yearly') $$, 'it may still become more, now');
select tests.be_owner();
rollback to s;

select tests.sign_in('ann');
select billing.cancel_subscription();
select throws_ok(
  $$ select billing.change_plan('basic_monthly') $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'the same before Stripe has answered the cancellation'
);
select tests.be_owner();
rollback to s;

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.change_plan('plus_monthly') $$,
  'PT404', 'the account has no such subscription',
  'who never subscribed has nothing to change'
);
select tests.be_owner();

-- ---- a member: a manual subscription ----------------------------------------

select billing_private.start_manual_subscription(
  md5('bob')::uuid, md5('plus_monthly')::uuid, 2, null);
savepoint manual;
select tests.sign_in('bob');
select results_eq(
  $$
    select price_key, pending_price_key, pending_change_at, pending_command
    from billing.change_plan('basic_monthly')
  $$,
  $$ values ('plus_monthly', 'basic_monthly', '2026-02-15 08:00+00'::timestamptz, null) $$,
  'less of a manual subscription waits for the end of the period'
);
select results_eq(
  $$ select price_key, pending_price_key from billing.change_plan('plus_monthly') $$,
  $$ values ('plus_monthly', null) $$,
  'and can be taken back'
);
select throws_ok(
  $$ select billing.change_plan('plus_monthly') $$,
  'PT422', 'the subscription is already on this price',
  'once'
);
select results_eq(
  $$ select price_key, pending_price_key from billing.change_plan('basic_monthly', false) $$,
  $$ values ('basic_monthly', null) $$,
  'or be had at once'
);
select is(
  (select count(*) from billing.subscription_items
    where price_id = md5('basic_monthly')::uuid and quantity = 2),
  1::bigint,
  'with as many seats'
);
select results_eq(
  $$ select feature_key, limit_value from billing.entitlements $$,
  $$ values ('clubs', 3::bigint) $$,
  'and access follows'
);
select results_eq(
  $$
    select quantity, pending_quantity
    from billing.change_plan('basic_monthly', true, quantity => 1)
  $$,
  $$ values (2::bigint, 1::bigint) $$,
  'fewer seats wait for the period''s end'
);
select throws_ok(
  $$ select billing.change_plan(null, quantity => 3) $$,
  'PT403', 'this needs a billing administrator',
  'more seats nobody pays for are not for their owner to take'
);
select throws_ok(
  $$ select billing.change_plan('plus_yearly') $$,
  'PT403', 'this needs a billing administrator',
  'more of what nobody pays for is not for its owner to take'
);
select throws_ok(
  $$ select billing.change_plan('plus_monthly', true) $$,
  'PT403', 'this needs a billing administrator',
  'nor for later'
);
select tests.be_owner();
select is_empty($$ select * from tests.asked $$, 'Stripe has no part in any of it');
rollback to manual;

select tests.sign_in('bob');
select billing.cancel_subscription();
select throws_ok(
  $$ select billing.change_plan('basic_monthly') $$,
  'PT422', 'the subscription cannot go from its state to the one asked for',
  'a manual subscription that ends with the period has no other plan after it either'
);
select tests.be_owner();
rollback to manual;

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select results_eq(
  $$
    select price_key, current_period_start, current_period_end
    from billing.change_plan('plus_yearly', null, md5('bob')::uuid)
  $$,
  $$
    values ('plus_yearly', '2026-01-15 08:00+00'::timestamptz, '2027-01-15 08:00+00'::timestamptz)
  $$,
  'who grants a manual subscription may give more of it; another period begins now'
);
select throws_ok(
  $$ select billing.change_plan('plus_yearly') $$,
  'PT400', 'the request is not valid',
  'and has to name the account'
);

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.change_plan('basic_monthly', null, md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: nobody can change the subscription of somebody else'
);
select throws_ok(
  $$ select billing.change_plan('basic_monthly', null, md5('nobody')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'E11: with the same answer for an account that does not exist'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.change_plan('basic_monthly') $$,
  '42501', 'permission denied for function change_plan',
  'a visitor has to sign in first'
);
select tests.be_owner();
select is_empty($$ select * from tests.asked $$, 'E11: no refusal has asked Stripe for anything');

select * from finish();
rollback;
