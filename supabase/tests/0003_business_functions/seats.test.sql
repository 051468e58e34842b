-- Seats: an organization's members drive the quantity of its subscription, where the plan says so.
begin;
\ir ../helpers.psql
select plan(43);

select tests.catalog();
select tests.set_time('2026-01-10');
update billing.plans set seat_policy = 'members' where key = 'plus';
update billing.plans set seat_policy = 'members_and_invitations' where key = 'basic';

create function tests.team(p_name text, p_members integer) returns uuid
language plpgsql as $$
begin
  insert into billing.accounts (id, kind, name) values (md5(p_name)::uuid, 'organization', p_name);
  insert into billing.memberships (account_id, user_id, role)
  select
    md5(p_name)::uuid, md5(p_name || ' ' || number)::uuid,
    case when number = 1 then 'owner' else 'member' end
  from generate_series(1, p_members) as number;
  insert into billing.customers (account_id, is_primary, stripe_customer_id)
  values (md5(p_name)::uuid, true, 'cus_' || p_name);
  return md5(p_name)::uuid;
end;
$$;
create function tests.come(p_name text, p_number integer) returns text
language plpgsql as $$
declare
  v_token text;
begin
  perform tests.sign_in(p_name || ' 1');
  select token into v_token
  from billing.invite_member(md5(p_name)::uuid, p_number || '@example.com');
  perform tests.sign_in(p_name || ' ' || p_number);
  perform billing.accept_invitation(v_token);
  perform tests.be_owner();
  return v_token;
end;
$$;
create function tests.go(p_name text, p_number integer) returns void
language plpgsql as $$
begin
  perform tests.sign_in(p_name || ' 1');
  perform billing.remove_member(md5(p_name)::uuid, md5(p_name || ' ' || p_number)::uuid);
  perform tests.be_owner();
end;
$$;
create function tests.asked(p_name text) returns table (kind text, seats text, status text)
language sql as $$
  select kind, params #>> '{items,0,quantity}', status
  from billing_private.commands
  where account_id = md5(p_name)::uuid and status <> 'succeeded'
  order by position;
$$;
create function tests.told(p_name text, p_at timestamptz, p_seats integer, p_price text default 'price_plus_monthly')
returns text
language sql as $$
  select tests.deliver(
    'evt_' || p_name || '_' || extract(epoch from p_at)::bigint, 'customer.subscription.updated',
    p_at,
    jsonb_set(
      tests.subscription(p_name, 'active', '2026-01-10', p_price),
      '{items,data,0,quantity}', to_jsonb(p_seats)));
$$;

-- ---- buying -----------------------------------------------------------------

select tests.team('acme', 3);
select tests.sign_in('acme 1');
select is(
  (billing.prepare_checkout('plus_monthly', 'https://a.example', 'https://a.example', 1,
    md5('acme')::uuid)).quantity,
  3::bigint, 'a team buys a seat for each member, whatever number it names'
);
select is(
  (billing.prepare_checkout('plus_monthly', 'https://a.example', 'https://a.example', 2)).quantity,
  2::bigint, 'a personal account, which has no members, buys as many as it names'
);
select tests.be_owner();
select is(
  (select params #>> '{line_items,0,quantity}' from billing_private.commands
   where account_id = md5('acme')::uuid and kind = 'create_checkout'),
  '3', 'and Stripe is told so'
);

-- ---- Stripe bills -----------------------------------------------------------

select tests.subscribe('acme');
delete from billing_private.commands where account_id = md5('acme')::uuid;
select tests.told('acme', '2026-01-10 01:00', 3);
select is_empty(
  $$ select * from billing_admin.seat_drift $$, 'three members and three seats are in step'
);

select tests.come('acme', 4) is not null;
select results_eq(
  $$ select * from tests.asked('acme') $$, $$ values ('change_plan', '4', 'pending') $$,
  'Stripe is asked for a seat for whoever comes'
);
select is(
  (select params ->> 'proration_behavior' from billing_private.commands
   where account_id = md5('acme')::uuid),
  'create_prorations', 'which is on the next invoice'
);
select tests.come('acme', 5) is not null;
select tests.come('acme', 6) is not null;
select results_eq(
  $$ select * from tests.asked('acme') where status = 'pending' $$,
  $$ values ('change_plan', '6', 'pending') $$,
  'three who come before Stripe is told are one question'
);
select results_eq(
  $$ select wanted, running, asked, blocked_by from billing_admin.seat_drift $$,
  $$ values (6::bigint, 3::bigint, 6::bigint, null::text) $$,
  'until Stripe has answered, administrators see it'
);
select tests.go('acme', 6);
select tests.go('acme', 5);
select tests.go('acme', 4);
select is_empty(
  $$ select * from tests.asked('acme') where status = 'pending' $$,
  'whoever goes before Stripe is told costs nothing'
);

select tests.come('acme', 7) is not null;
update billing_private.commands
set status = 'leased', attempts = 1, lease = gen_random_uuid(), lease_expires_at = '2026-01-11'
where account_id = md5('acme')::uuid and status = 'pending';
select tests.come('acme', 8) is not null;
select results_eq(
  $$ select seats, status from tests.asked('acme') where status in ('pending', 'leased') $$,
  $$ values ('4', 'leased'), ('5', 'pending') $$,
  'what Stripe is being told stands; what came since is the next question'
);
update billing_private.commands
set status = 'succeeded', lease = null, lease_expires_at = null, finished_at = '2026-01-10'
where account_id = md5('acme')::uuid and status in ('pending', 'leased');
select tests.told('acme', '2026-01-10 02:00', 5);
select is_empty('select * from billing_admin.seat_drift', 'its answer brings all in step');

-- ---- somebody changes it at Stripe -----------------------------------------

select tests.told('acme', '2026-01-10 03:00', 9);
select results_eq(
  $$ select account_id, wanted, running from billing_admin.seat_drift $$,
  $$ values (md5('acme')::uuid, 5::bigint, 9::bigint) $$,
  'a quantity somebody set at Stripe is seen as drift'
);
select is(billing_private.task_sync_seats(), 1::bigint, 'and the task repairs it');
select is(billing_private.task_sync_seats(), 0::bigint, 'by asking once');
select results_eq(
  $$ select seats from tests.asked('acme') where status = 'pending' $$, $$ values ('5') $$,
  'for the seats there are'
);
update billing_private.commands
set status = 'dead', finished_at = '2026-01-10'
where account_id = md5('acme')::uuid and status = 'pending';
select results_eq(
  $$ select blocked_by from billing_admin.seat_drift $$, $$ values ('refused') $$,
  'when Stripe refuses, administrators see it'
);
select is(billing_private.task_sync_seats(), 0::bigint, 'and it is not asked again at once');
select tests.set_time('2026-01-11 00:00:01');
select is(billing_private.task_sync_seats(), 1::bigint, 'but after a day it is');
delete from billing_private.commands where account_id = md5('acme')::uuid;
select tests.told('acme', '2026-01-11 03:00', 5);

-- ---- the quantity is not to be named ----------------------------------------

select tests.sign_in('acme 1');
select throws_ok(
  $$ select billing.change_plan(null, quantity => 9, account_id => md5('acme')::uuid) $$,
  'PT400', 'the request is not valid', 'who pays by members cannot name another number'
);

-- ---- a change of plan that waits --------------------------------------------

select billing.change_plan('basic_monthly', true, md5('acme')::uuid) is not null;
select tests.be_owner();
select results_eq(
  $$ select kind from tests.asked('acme') $$, $$ values ('create_schedule') $$,
  'a team plans to go down at the end of the period'
);
select tests.come('acme', 9) is not null;
select results_eq(
  $$ select kind, seats from tests.asked('acme') where status = 'pending' $$,
  $$ values ('change_plan', '6'), ('create_schedule', null) $$,
  'who comes meanwhile is paid for now, and the plan goes on'
);
select is(
  (select pending_price_key from billing.my_subscription(md5('acme')::uuid)), null,
  'though Stripe has not confirmed it'
);

-- ---- overdue and ended ------------------------------------------------------

delete from billing_private.commands where account_id = md5('acme')::uuid;
select tests.deliver('evt_late', 'customer.subscription.updated', '2026-01-12',
  jsonb_set(tests.subscription('acme', 'past_due', '2026-01-10'),
    '{items,data,0,quantity}', '6'));
select tests.go('acme', 9);
select is_empty(
  $$ select * from tests.asked('acme') $$,
  'while payment is overdue nothing is changed, and whoever manages members still may'
);
select results_eq(
  $$ select wanted, running, blocked_by from billing_admin.seat_drift $$,
  $$ values (5::bigint, 6::bigint, 'past_due') $$, 'administrators see why'
);
select tests.deliver('evt_paid', 'customer.subscription.updated', '2026-01-13',
  jsonb_set(tests.subscription('acme', 'active', '2026-01-10'),
    '{items,data,0,quantity}', '6'));
select is(billing_private.task_sync_seats(), 1::bigint, 'once it is paid the task catches up');
delete from billing_private.commands where account_id = md5('acme')::uuid;
select tests.deliver('evt_over', 'customer.subscription.deleted', '2026-01-14',
  tests.subscription('acme', 'canceled', '2026-01-10', p_extra => '{"ended_at": 1768348800}'));
select tests.go('acme', 8);
select is_empty(
  $$ select * from tests.asked('acme') $$, 'a subscription that has ended is left alone'
);
select is_empty('select * from billing_admin.seat_drift', 'and is in nobody''s list');

-- ---- invitations that hold a seat -------------------------------------------

select tests.team('band', 2);
select tests.subscribe('band', p_price => 'price_basic_monthly');
select tests.told('band', '2026-01-14', 2, 'price_basic_monthly');
select tests.set_time('2026-01-15');
select tests.sign_in('band 1');
select id as invitation
from billing.invite_member(md5('band')::uuid, 'drummer@example.com', expires_in => '1 day') \gset
select tests.be_owner();
select results_eq(
  $$ select seats from tests.asked('band') where status = 'pending' $$, $$ values ('3') $$,
  'where invitations hold a seat it is paid for from the invitation on'
);
select tests.sign_in('band 1');
select billing.revoke_invitation(md5('band')::uuid, :'invitation') is not null;
select tests.be_owner();
select is_empty(
  $$ select * from tests.asked('band') where status = 'pending' $$,
  'until it is withdrawn'
);
select tests.sign_in('band 1');
select billing.invite_member(md5('band')::uuid, 'drummer@example.com', expires_in => '1 day') is not null;
select tests.be_owner();
select tests.set_time('2026-01-16');
select is(billing_private.task_sync_seats(), 1::bigint, 'or has run out, which the task finds');
select is_empty(
  $$ select * from tests.asked('band') where status = 'pending' $$, 'then nothing is asked for'
);

-- ---- without Stripe ---------------------------------------------------------

select tests.team('club', 2);
select billing_admin.grant_subscription(
  md5('club')::uuid, 'plus_monthly', 'a handshake', quantity => 7, manual_kind => 'invoiced') is not null;
select is(
  (select quantity from billing.subscriptions where account_id = md5('club')::uuid), 2::bigint,
  'a manual subscription counts members, too'
);
select tests.set_time('2026-01-31 12:00');
select tests.come('club', 3) is not null;
select results_eq(
  $$ select quantity from billing.subscriptions where account_id = md5('club')::uuid $$,
  $$ values (3::bigint) $$, 'and changes at once'
);
select results_eq(
  $$
    select total_minor
    from billing.invoices
    where account_id = md5('club')::uuid
    order by issued_at, number
  $$,
  $$ values (2000::bigint), (500) $$,
  'with proration: half the period is left, so a seat of 1000 costs 500'
);
select tests.go('club', 3);
select is(
  (select credit_minor from billing.subscriptions where account_id = md5('club')::uuid),
  500::bigint, 'what a seat that is given up leaves is a credit'
);
select is_empty('select * from billing_admin.seat_drift', 'nothing has to be repaired');

update billing.subscriptions
set pending_price_id = md5('basic_monthly')::uuid, pending_change_at = current_period_end
where account_id = md5('club')::uuid;
select tests.come('club', 4) is not null;
select results_eq(
  $$
    select quantity, pending_price_id, pending_change_at = current_period_end
    from billing.subscriptions
    where account_id = md5('club')::uuid
  $$,
  $$ values (3::bigint, md5('basic_monthly')::uuid, true) $$,
  'a change of plan that waits goes on waiting'
);

-- ---- a limit of seats -------------------------------------------------------

insert into billing.features (key, name, kind) values ('seats', 'Seats', 'limit');
insert into billing.plan_features (plan_id, feature_key, limit_value)
values (md5('plus')::uuid, 'seats', 4);
select billing_private.refresh_entitlements(array[md5('club')::uuid]) is not null;
select is(
  (select max(limit_value) from billing.entitlements
   where account_id = md5('club')::uuid and feature_key = 'seats'), 4::bigint,
  'a plan may have four seats'
);
select tests.sign_in('club 1');
select token from billing.invite_member(md5('club')::uuid, '5@example.com') \gset
select throws_ok(
  $$ select billing.invite_member(md5('club')::uuid, '6@example.com') $$,
  'PT402', 'all seats of the plan are taken',
  'with three members and one who is invited, nobody else is'
);
select isnt(
  (billing.invite_member(md5('club')::uuid, '5@example.com')).token, null,
  'but the same guest may be invited anew'
);
select tests.be_owner();
update billing.entitlements set limit_value = 3
where account_id = md5('club')::uuid and feature_key = 'seats';
select tests.sign_in('club 1');
select throws_ok(
  $$ select billing.invite_member(md5('club')::uuid, '5@example.com') $$,
  'PT402', 'all seats of the plan are taken',
  'unless the plan has become smaller'
);
select tests.be_owner();
update billing.entitlements set limit_value = 4
where account_id = md5('club')::uuid and feature_key = 'seats';
select tests.sign_in('club 1');
select token from billing.invite_member(md5('club')::uuid, '5@example.com') \gset
select tests.be_owner();
update billing.entitlements set limit_value = 3
where account_id = md5('club')::uuid and feature_key = 'seats';
select tests.sign_in('club 5');
select throws_ok(
  format('select billing.accept_invitation(%L)', :'token'),
  'PT402', 'all seats of the plan are taken',
  'also between invitation and answer'
);
select tests.be_owner();
update billing.entitlements set limit_value = 4
where account_id = md5('club')::uuid and feature_key = 'seats';
select tests.sign_in('club 5');
select is(
  (billing.accept_invitation(:'token')).role, 'member',
  'the last seat is the guest''s who was invited to it'
);

select * from finish();
rollback;
