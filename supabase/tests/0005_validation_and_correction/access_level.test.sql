-- billing.access_level(): what the policies of a plan leave while a subscription is overdue or
-- paused, to the second.
begin;
\ir ../helpers.psql
select plan(37);

select tests.catalog();
select tests.set_time('2026-01-10');

insert into billing.access_policies (key, description, paused) values
  ('readable', 'a pause leaves reading', 'read_only'),
  ('generous', 'a pause takes nothing', 'full');
insert into billing.dunning_policies (key, description) values
  ('gradual', 'reading after two days, nothing after five'),
  ('patient', 'reading after two days, for ever'),
  ('strict', 'nothing after a day');
insert into billing.dunning_stages (policy_key, begins_after, action) values
  ('gradual', '0', 'notify'),
  ('gradual', '2 days', 'read_only'),
  ('gradual', '5 days', 'suspend'),
  ('patient', '2 days', 'read_only'),
  ('strict', '1 day', 'suspend');

create function pg_temp.at(p_at timestamptz) returns bigint
language sql as $$
  select extract(epoch from p_at)::bigint;
$$;

create function pg_temp.level(p_name text, p_at timestamptz) returns text
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  return billing.access_level('premium', md5(p_name)::uuid);
end;
$$;

create function pg_temp.given(p_name text, p_status text, p_extra jsonb default '{}') returns void
language plpgsql as $$
begin
  perform tests.set_time('2026-01-10');
  perform tests.account(p_name);
  perform tests.subscribe(p_name, p_status, '2026-01-10', 'price_plus_monthly', p_extra);
end;
$$;

create function pg_temp.invoice(p_name text, p_status text, p_at timestamptz) returns void
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  perform tests.deliver(
    format('evt_in_%s_%s', p_name, p_status), 'invoice.updated', p_at,
    jsonb_build_object(
      'id', 'in_' || p_name, 'object', 'invoice', 'status', p_status,
      'customer', 'cus_' || p_name, 'currency', 'usd', 'total', 1000,
      'subscription', 'sub_' || p_name));
end;
$$;

-- ---- while paid -------------------------------------------------------------

select pg_temp.given('active', 'active');

select is(
  pg_temp.level('active', '2026-01-10'), 'full',
  'whoever has a feature may use it in full'
);
select is(
  billing.access_level('hosting', md5('active')::uuid), 'none',
  'nothing is left of a feature nobody gave'
);
select is(
  billing.access_level('unheard of', md5('active')::uuid), 'none',
  'nor of one that does not exist'
);
select is(
  pg_temp.level('active', '2026-02-10 03:00'), 'none',
  'an end is an end: a policy leaves something only where it says so'
);

-- ---- overdue ----------------------------------------------------------------

select pg_temp.given('graced', 'past_due');

select is(
  pg_temp.level('graced', '2026-01-12 23:59:59'), 'full',
  'without stages of access the grace of the plan leaves everything to its last second'
);
select is(
  pg_temp.level('graced', '2026-01-13'), 'none',
  'and nothing after it'
);

select tests.set_time('2026-01-10');
update billing.plans set dunning_policy_key = 'gradual' where key = 'plus';

select is(
  pg_temp.level('graced', '2026-01-11 23:59:59'), 'full',
  'another policy for the plan is at once that of its subscribers: full access before its stage'
);
select is(
  pg_temp.level('graced', '2026-01-12'), 'read_only',
  'reading from the second its stage begins'
);
select ok(
  not billing.has_entitlement('premium', md5('graced')::uuid),
  'which has_entitlement() does not call having it'
);
select is_empty(
  $$ select * from billing.my_entitlements(md5('graced')::uuid) $$,
  'nor does the list of what the account has'
);
select is(
  pg_temp.level('graced', '2026-01-14 23:59:59'), 'read_only',
  'reading to the last second before the suspension'
);
select is(
  pg_temp.level('graced', '2026-01-15'), 'none',
  'and nothing from the suspension on'
);

select tests.set_time('2026-01-13');
select is(
  (select membership_tier from billing.profiles where account_id = md5('graced')::uuid), 'plus',
  'the profile tells of full access as long as nobody looks at the clock'
);
select billing_private.task_expire_subscriptions();
select results_eq(
  $$
    select membership_tier, features, access_until
    from billing.profiles
    where account_id = md5('graced')::uuid
  $$,
  $$ values (null::text, '{}'::text[], null::timestamptz) $$,
  'and then no longer: reading is no membership'
);
select is(
  pg_temp.level('graced', '2026-01-13'), 'read_only',
  'which takes nothing of the reading'
);
select is_empty(
  $$ select * from billing_private.validate_entitlements(array[md5('graced')::uuid]) $$,
  'and is what the sources say'
);

select results_eq(
  $$
    select gives_access, access_level, reason, valid_from, valid_until
    from billing.explain_entitlement('premium', md5('graced')::uuid)
  $$,
  $$
    values
      (true, 'read_only', 'past_due_grace', '2026-01-12'::timestamptz, '2026-01-15'::timestamptz),
      (false, 'full', 'expired', '2026-01-10', '2026-01-12')
  $$,
  'the explanation names both levels, each with its interval'
);
select ok(
  not billing.has_entitlement_at('premium', '2026-01-13', md5('graced')::uuid),
  'has_entitlement_at() asks for full access'
);
select ok(
  billing.has_entitlement_at('premium', '2026-01-11', md5('graced')::uuid),
  'which there was before'
);

select pg_temp.invoice('graced', 'paid', '2026-01-13 12:00');
select is(
  pg_temp.level('graced', '2026-01-13 12:00'), 'full',
  'paying gives everything back in the same transaction'
);

update billing.plans set dunning_policy_key = 'patient' where key = 'plus';
select pg_temp.given('reader', 'past_due');
select is(
  pg_temp.level('reader', '2027-01-10'), 'read_only',
  'without a stage that suspends, reading goes on for as long as payment is overdue'
);

select tests.set_time('2026-01-10');
update billing.plans set dunning_policy_key = 'strict' where key = 'plus';
select is(
  pg_temp.level('reader', '2026-01-10 23:59:59') || ' ' || pg_temp.level('reader', '2026-01-11'),
  'full none',
  'without a stage of reading, suspension follows full access'
);

select tests.set_time('2026-01-10');
update billing.dunning_stages set begins_after = '4 days' where policy_key = 'strict';
select is(
  pg_temp.level('reader', '2026-01-13 23:59:59') || ' ' || pg_temp.level('reader', '2026-01-14'),
  'full none',
  'a stage that is moved moves at once for those it concerns'
);
select tests.set_time('2026-01-10');
delete from billing.dunning_stages where policy_key = 'strict';
select is(
  pg_temp.level('reader', '2026-01-12 23:59:59') || ' ' || pg_temp.level('reader', '2026-01-13'),
  'full none',
  'and where the last stage goes, the grace of the plan is back'
);
select tests.set_time('2026-01-10');
insert into billing.dunning_stages (policy_key, begins_after, action)
values ('strict', '0', 'read_only');
select is(
  pg_temp.level('reader', '2026-01-10'), 'read_only',
  'a new stage holds at once too'
);

select pg_temp.given('leaving', 'past_due', jsonb_build_object(
  'cancel_at', pg_temp.at('2026-01-20')));
select is(
  pg_temp.level('leaving', '2026-01-19 23:59:59') || ' ' || pg_temp.level('leaving', '2026-01-20'),
  'read_only none',
  'a scheduled end ends reading as well'
);

-- ---- paused -----------------------------------------------------------------

select pg_temp.given('paused', 'paused');
select is(
  pg_temp.level('paused', '2026-01-11'), 'none',
  'G5: as shipped, a paused subscription gives nothing'
);

select tests.set_time('2026-01-10');
update billing.plans set access_policy_key = 'readable' where key = 'plus';
select is(
  pg_temp.level('paused', '2026-06-10'), 'read_only',
  'G5: a policy may leave reading, however long the pause'
);

select tests.set_time('2026-01-10');
update billing.access_policies set paused = 'full' where key = 'readable';
select is(
  pg_temp.level('paused', '2026-06-10'), 'full',
  'G5: or everything; changing the policy changes it at once'
);

update billing.plans set access_policy_key = 'standard' where key = 'plus';
select pg_temp.given('voiding', 'active', '{"pause_collection": {"behavior": "void"}}');
select pg_temp.invoice('voiding', 'paid', '2026-01-10');
select is(
  pg_temp.level('voiding', '2026-01-11'), 'full',
  'G5: whoever pauses within a period that is paid keeps it'
);
select pg_temp.given('voided', 'active', '{"pause_collection": {"behavior": "void"}}');
select pg_temp.invoice('voided', 'void', '2026-01-10');
select is(
  pg_temp.level('voided', '2026-01-11'), 'none',
  'G5: a period whose invoice is voided because of the pause is not given'
);

select pg_temp.given('free', 'active', '{"pause_collection": {"behavior": "mark_uncollectible"}}');
select pg_temp.invoice('free', 'uncollectible', '2026-01-10');
select is(
  pg_temp.level('free', '2026-01-11'), 'full',
  'G5: collection that is written off means that the service goes on'
);
select pg_temp.given('simply_void', 'active');
select pg_temp.invoice('simply_void', 'void', '2026-01-10');
select is(
  pg_temp.level('simply_void', '2026-01-11'), 'full',
  'a voided invoice alone pauses nothing'
);

-- ---- several sources --------------------------------------------------------

select tests.set_time('2026-01-10');
insert into billing.entitlement_grants (account_id, feature_key, valid_from, valid_until, reason)
values (md5('leaving')::uuid, 'premium', '2026-01-10', '2026-01-12', 'a fair');
select is(
  pg_temp.level('leaving', '2026-01-11'), 'full',
  'of two sources the better one counts'
);
select is(
  pg_temp.level('leaving', '2026-01-12'), 'read_only',
  'and when it ends, the other'
);

-- ---- who asks ---------------------------------------------------------------

select tests.set_time('2026-01-11');
select tests.sign_in('leaving');
select is(billing.access_level('premium'), 'full', 'a member asks about her own account unnamed');
select is(
  billing.access_level('premium', md5('active')::uuid), 'none',
  'and learns nothing about another''s'
);

select * from finish();
rollback;
