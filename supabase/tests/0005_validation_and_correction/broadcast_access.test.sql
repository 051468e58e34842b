-- A change of access is broadcast to the account's subscribers, where Realtime is installed.
begin;
\ir ../helpers.psql
select plan(17);

select tests.catalog();
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.account('bob');

select is(
  to_regprocedure('realtime.send(jsonb, text, text, boolean)'), null, 'Realtime is not installed'
);
select is(tests.subscribe('bob'), 'applied', 'without Realtime everything else happens');

-- Realtime's own function, as its migrations make it, writes a row that is sent after the commit.
create schema realtime;
create table realtime.messages (
  topic text not null,
  extension text not null,
  payload jsonb,
  event text,
  private boolean default false,
  inserted_at timestamp without time zone not null default now(),
  id uuid not null default gen_random_uuid()
);
create function realtime.send(
  payload jsonb,
  event text,
  topic text,
  private boolean default true
) returns void
language plpgsql as $$
begin
  begin
    execute format('set local realtime.topic to %L', topic);
    insert into realtime.messages (payload, event, topic, private, extension)
    values (payload, event, topic, private, 'broadcast');
  exception when others then
    raise warning 'ErrorSendingBroadcastMessage: %', sqlerrm;
  end;
end;
$$;

create function pg_temp.sent() returns text[]
language sql as $$
  with taken as (delete from realtime.messages where id is not null returning *)
  select coalesce(array_agg(distinct format('%s %s %s', topic, event, payload ->> 'membership_tier')
    order by format('%s %s %s', topic, event, payload ->> 'membership_tier')), '{}')
  from taken;
$$;

create function pg_temp.topic(p_name text) returns text
language sql as $$ select 'billing:account:' || md5(p_name)::uuid $$;

-- ---- what is told -----------------------------------------------------------

select tests.subscribe('ann');
select results_eq(
  $$
    select topic, event, private, extension, payload
    from realtime.messages
    order by inserted_at desc
    limit 1
  $$,
  $$
    select
      pg_temp.topic('ann'), 'access_changed', true, 'broadcast',
      jsonb_build_object(
        'account_id', md5('ann')::uuid, 'membership_tier', 'plus', 'version', 1768003200000)
  $$,
  'who subscribes is told on the account''s own private topic'
);
select is(
  (select distinct payload ->> 'version' from realtime.messages),
  (select version::text from billing.my_access(md5('ann')::uuid)),
  'the version is that of my_access()'
);
select is(
  pg_temp.sent(), array[pg_temp.topic('ann') || ' access_changed plus'],
  'nobody else is told anything'
);

-- ---- what is not ------------------------------------------------------------

select tests.subscribe('ann');
select is(pg_temp.sent(), '{}', 'the same event again is told to nobody');

select tests.deliver('evt_metadata', 'customer.subscription.updated', '2026-01-10 00:00:01',
  tests.subscription('ann', 'active', '2026-01-10', 'price_plus_monthly',
    '{"metadata": {"color": "red"}}'));
select is(pg_temp.sent(), '{}', 'a change that access does not depend on is told to nobody');

select billing_private.refresh_entitlements(array[md5('ann')::uuid, md5('bob')::uuid]);
select is(pg_temp.sent(), '{}', 'where nothing differs, nothing is told');

-- ---- limits, plans, the clock -----------------------------------------------

update billing.plan_features set limit_value = 12
where plan_id = md5('plus')::uuid and feature_key = 'clubs';
select is(
  pg_temp.sent(),
  array(
    select pg_temp.topic(name) || ' access_changed plus'
    from unnest(array['ann', 'bob']) as name order by 1),
  'all whose plan changes are told, each on the own topic'
);

insert into billing.entitlement_grants
  (account_id, feature_key, kind, valid_from, valid_until, reason)
values (md5('bob')::uuid, 'hosting', 'gift', '2026-01-11', '2026-01-12', 'a day');
select pg_temp.sent();
select tests.set_time('2026-01-11');
select billing_private.refresh_elapsed(10);
select is(
  pg_temp.sent(), array[pg_temp.topic('bob') || ' access_changed plus'],
  'what begins by the clock is told when the task finds it'
);
select tests.set_time('2026-01-12');
select billing_private.refresh_elapsed(10);
select is(
  pg_temp.sent(), array[pg_temp.topic('bob') || ' access_changed plus'],
  'and so is what ends'
);

-- ---- who listens ------------------------------------------------------------

-- As README says: whoever is in an account may hear what is told about it.
alter table realtime.messages enable row level security;
create function realtime.topic() returns text
language sql stable as $$ select nullif(current_setting('realtime.topic', true), '') $$;
grant usage on schema realtime to authenticated;
grant select on realtime.messages to authenticated;
create policy select_billing on realtime.messages
  for select
  to authenticated
  using (
    (select realtime.topic()) = 'billing:accounts'
    or (select realtime.topic()) in (select 'billing:account:' || id from billing.accounts)
  );
insert into realtime.messages (topic, extension) values (pg_temp.topic('ann'), 'broadcast');

select set_config('realtime.topic', pg_temp.topic('ann'), true);
select tests.sign_in('ann');
select isnt_empty($$ select * from realtime.messages $$, 'a member may listen to the own topic');
select tests.sign_in('bob');
select is_empty($$ select * from realtime.messages $$, 'a stranger may not');
select tests.be_owner();
select pg_temp.sent();

-- ---- many at once -----------------------------------------------------------

insert into billing.accounts (id) select md5('many ' || n)::uuid from generate_series(1, 1001) as n;
insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
select md5('many ' || n)::uuid, 'premium', '2026-01-10', 'many' from generate_series(1, 1000) as n;
select is(cardinality(pg_temp.sent()), 1000, 'a thousand accounts are told each on its own');

update billing.entitlement_grants set revoked_at = now(), revoked_reason = 'anew'
where reason = 'many';
select pg_temp.sent();
insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
select md5('many ' || n)::uuid, 'premium', '2026-01-10', 'more' from generate_series(1, 1001) as n;
select is(
  pg_temp.sent(), array['billing:accounts access_changed '],
  'more are told at once, on the topic of all'
);

-- ---- whatever fails ---------------------------------------------------------

create or replace function realtime.send(
  payload jsonb,
  event text,
  topic text,
  private boolean default true
) returns void
language plpgsql as $$
begin
  raise exception 'no room';
end;
$$;
set local client_min_messages = error;
select lives_ok(
  $$ update billing.plan_features set limit_value = 13 where plan_id = md5('plus')::uuid and limit_value = 12 $$,
  'what Realtime fails at is not for billing to fail at'
);
select is(
  billing.entitlement_limit('clubs', md5('ann')::uuid), 13::bigint,
  'access has changed all the same'
);

select * from finish();
rollback;
