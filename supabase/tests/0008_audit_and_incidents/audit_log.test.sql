-- Who, why, from where: what each row of the audit says beside the change, and who may read it.
begin;
\ir ../helpers.psql
select plan(26);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

-- Actor, role, cause and request of the newest audit row of a table.
create function pg_temp.newest(p_table_name text) returns text
language sql security definer as $$
  select format(
    '%s %s %s %s %s', coalesce(actor_id::text, 'nobody'), actor_role,
    coalesce(cause ->> 'kind', '-'), coalesce(cause ->> 'reference', '-'),
    coalesce(request_id, '-'))
  from billing_private.audit_log
  where table_name = p_table_name
  order by id desc
  limit 1;
$$;

-- ---- a database session -----------------------------------------------------

insert into billing.stores (id, key, name) values (md5('cave')::uuid, 'cave', 'Cave');
select is(
  pg_temp.newest('billing.stores'), 'nobody postgres - - -',
  'what somebody does in SQL is recorded under the role they connected with'
);
select is(
  (select occurred_at from billing_private.audit_log order by id desc limit 1),
  '2026-01-10'::timestamptz,
  'each row says when'
);

-- ---- Stripe -----------------------------------------------------------------

select tests.account('ann');
select set_config('request.headers', '{"x-request-id": "req_1"}', true);
select tests.subscribe('ann');
select is(
  pg_temp.newest('billing.subscriptions'),
  'nobody service_role stripe_event evt_ann_active_1768003200 req_1',
  'what an event brings is recorded with the event, and the request that brought it'
);
select is(
  pg_temp.newest('billing.entitlements'),
  'nobody service_role stripe_event evt_ann_active_1768003200 req_1',
  'so is the access that follows from it'
);

-- ---- a user -----------------------------------------------------------------

select tests.sign_in('bob');
select set_config('billing.cause', '', true); -- as in a request of its own
select set_config('request.headers', '{"x-request-id": "req_2"}', true);
select billing.prepare_checkout('plus_monthly', 'https://example.com/s', 'https://example.com/c')
  is not null as prepared;
select is(
  pg_temp.newest('billing.accounts'),
  format('%s authenticated - - req_2', md5('bob')::uuid),
  'what a user does is recorded under the user, with the request'
);
select matches(
  pg_temp.newest('billing.checkout_sessions'),
  format('^%s authenticated \S+ \S+ req_2$', md5('bob')::uuid),
  'each row of it'
);

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');
select set_config('request.headers', '{"x-request-id": "req_3"}', true);
select billing_admin.grant_entitlement(md5('ann')::uuid, 'hosting', 'a gift') is not null
  as granted;
select is(
  pg_temp.newest('billing.entitlement_grants'),
  format('%1$s authenticated admin %1$s req_3', md5('ada')::uuid),
  'what an administrator does is recorded as an administrator''s'
);
select is(
  pg_temp.newest('billing_private.admin_actions'),
  format('%1$s authenticated admin %1$s req_3', md5('ada')::uuid),
  'and the action itself'
);

-- ---- requests that are none -------------------------------------------------

select tests.be_owner();
select set_config('request.headers', 'no json', true);
update billing.stores set name = 'Grotto' where key = 'cave';
select is(
  pg_temp.newest('billing.stores') ~ ' -$', true,
  'headers nobody can read are no reason to fail'
);
select set_config(
  'request.headers', jsonb_build_object('x-request-id', repeat('x', 1000))::text,
  true
);
update billing.stores set name = 'Cellar' where key = 'cave';
select is(
  (select length(request_id) from billing_private.audit_log order by id desc limit 1), 200,
  'a request id is cut to a sensible length'
);
select set_config('request.headers', '', true);

-- ---- a task -----------------------------------------------------------------

select tests.set_time('2026-02-10 03:00');
select billing_private.run_due_tasks() > 0 as ran;
select is(
  (
    select format('%s %s', cause ->> 'kind', cause ->> 'reference')
    from billing_private.audit_log
    where table_name = 'billing.entitlements' and operation = 'delete'
    limit 1
  ),
  'task expire_subscriptions',
  'what a task does is recorded with the task'
);

-- ---- one account ------------------------------------------------------------

select tests.sign_in('ada');
select is(
  (
    select array_agg(distinct table_name order by table_name)
    from billing_admin.audit_of_account(md5('ann')::uuid)
  ),
  array[
    'billing.accounts', 'billing.customers', 'billing.entitlement_grants', 'billing.entitlements',
    'billing.profiles', 'billing.subscription_items', 'billing.subscriptions'],
  'an account''s audit has every row that belongs to it'
);
select is_empty(
  $$
    select *
    from billing_admin.audit_of_account(md5('ann')::uuid)
    where account_id <> md5('ann')::uuid
  $$,
  'and no row of another account'
);
select is(
  (select table_name from billing_admin.audit_of_account(md5('bob')::uuid) order by id limit 1),
  'billing.accounts',
  'it goes back to the beginning'
);
select results_eq(
  $$ select id from billing_admin.audit_of_account(md5('ann')::uuid) $$,
  $$ select id from billing_admin.audit_of_account(md5('ann')::uuid) order by id desc $$,
  'newest first'
);
select is_empty(
  $$ select * from billing_admin.audit_of_account(md5('nobody')::uuid) $$,
  'an account that does not exist has no audit'
);

-- ---- rows that find their owner ---------------------------------------------

select tests.be_owner();
select tests.subscribe('unclaimed');
select billing_private.ensure_account(md5('unclaimed')::uuid);
select tests.deliver('evt_claimed', 'customer.updated', '2026-02-10', jsonb_build_object(
  'id', 'cus_unclaimed', 'object', 'customer',
  'metadata', jsonb_build_object('account_id', md5('unclaimed')::uuid)));
select results_eq(
  $$
    select operation, account_id
    from billing_private.audit_log
    where table_name = 'billing.subscriptions'
      and row_key = (
        select id::text from billing.subscriptions where stripe_customer_id = 'cus_unclaimed')
      and (operation = 'insert' or after ? 'account_id')
    order by id
  $$,
  $$ values ('insert', null::uuid), ('update', md5('unclaimed')::uuid) $$,
  'A5: a row that came before its owner was known is its owner''s from the change on that says so'
);
select tests.sign_in('ada');

-- ---- the view ---------------------------------------------------------------

select results_eq(
  $$ select id from billing_admin.audit_log $$,
  $$ select id from billing_admin.audit_log order by id desc $$,
  'the view shows the newest change first'
);
select tests.be_owner();
insert into billing.features (key, name)
select 'feature-' || n, 'Feature' from generate_series(1, 10000) as n;
select tests.sign_in('ada');
select is(
  (select count(*) from billing_admin.audit_log), 10000::bigint,
  'the view shows the last ten thousand changes'
);
select isnt_empty(
  $$ select * from billing_admin.audit_of_account(md5('ann')::uuid) $$,
  'an account''s audit is complete however much else has happened since'
);

-- ---- others -----------------------------------------------------------------

select tests.be_service();
select isnt_empty('select * from billing_admin.audit_log', 'the service may look');
select throws_ok(
  'select * from billing_private.audit_log',
  '42501', 'permission denied for schema billing_private',
  'through the view, not past it'
);
select tests.sign_in('ann');
select throws_ok(
  'select * from billing_admin.audit_log',
  'PT403', 'this needs a billing administrator',
  'a user is refused'
);
select throws_ok(
  $$ select * from billing_admin.audit_of_account(md5('ann')::uuid) $$,
  'PT403', 'this needs a billing administrator',
  'a user is refused the audit of the own account too'
);
select tests.sign_out();
select throws_ok(
  'select * from billing_admin.audit_log',
  '42501', 'permission denied for schema billing_admin',
  'a visitor is refused'
);
select throws_ok(
  $$ select * from billing_admin.audit_of_account(md5('ann')::uuid) $$,
  '42501', 'permission denied for schema billing_admin',
  'a visitor is refused the audit of an account'
);

select * from finish();
rollback;
