-- Store admins: what belongs to their stores is theirs to see and manage, and nothing else.
begin;
\ir ../helpers.psql
select plan(49);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann'), tests.account('bob');
insert into billing.stores (id, key, name) values (md5('lark')::uuid, 'lark', 'Lark');
update billing.plans set store_id = md5('night-owl')::uuid where key = 'plus';
update billing.plans set store_id = md5('lark')::uuid where key = 'basic';
insert into billing.plans (id, key, name) values (md5('platform')::uuid, 'platform', 'Platform');
insert into billing.prices (id, key, plan_id, currency, unit_amount_minor, billing_interval)
values (md5('platform_monthly')::uuid, 'platform_monthly', md5('platform')::uuid, 'usd', 1, 'month');
select tests.subscribe('ann', 'active', '2026-01-10', 'price_plus_monthly');
select tests.subscribe('bob', 'active', '2026-01-10', 'price_basic_monthly');

-- ---- who becomes one --------------------------------------------------------

select tests.sign_in('sam');
select throws_ok(
  $$ select * from billing_admin.subscription_overview $$,
  'PT403', 'this needs a billing administrator', 'whoever administers nothing is refused'
);
select throws_ok(
  $$ select billing_admin.add_store_admin('night-owl', md5('sam')::uuid, 'I want to') $$,
  'PT403', 'this needs a billing administrator', 'nobody makes themselves one'
);

select tests.sign_in('ada');
select lives_ok(
  $$
    select billing_admin.add_store_admin('night-owl', md5('sam')::uuid, 'it is his store');
    select billing_admin.add_store_admin('night-owl', md5('sam')::uuid, 'once more')
  $$,
  'an administrator names one; twice changes nothing'
);
select throws_ok(
  $$ select billing_admin.add_store_admin('none', md5('sam')::uuid, 'a reason') $$,
  'PT404', 'there is no such store', 'the store must exist'
);
select throws_ok(
  $$ select billing_admin.add_store_admin('night-owl', null, 'a reason') $$,
  'PT400', 'the request is not valid', 'a user is needed'
);
select throws_ok(
  $$ select billing_admin.add_store_admin(null, md5('sam')::uuid, 'a reason') $$,
  'PT400', 'the request is not valid', 'and a store'
);
select throws_ok(
  $$ select billing_admin.add_store_admin('night-owl', md5('sam')::uuid, '') $$,
  'PT400', 'the request is not valid', 'and a reason'
);

select tests.sign_in('sam');
select lives_ok(
  $$ select billing_admin.add_store_admin('night-owl', md5('tess')::uuid, 'she helps me') $$,
  'a store admin names others'
);
select throws_ok(
  $$ select billing_admin.add_store_admin('lark', md5('sam')::uuid, 'I want that too') $$,
  'PT403', 'this needs an administrator of the store', 'but not of another store'
);
select results_eq(
  $$ select store_key, plans_on_sale, running_subscriptions, admins from billing_admin.stores $$,
  $$
    values ('night-owl', 1::bigint, 1::bigint,
      array(select md5(name)::uuid from unnest(array['sam', 'tess']) as name order by 1))
  $$,
  'and sees the own store alone'
);

-- ---- what they see ----------------------------------------------------------

select results_eq(
  $$ select store_key, plan_key, account_id from billing_admin.subscription_overview $$,
  $$ values ('night-owl', 'plus', md5('ann')::uuid) $$,
  'the subscriptions of the own store''s plans'
);
select is_empty(
  $$ select * from billing_admin.expiring_soon $$, 'which none is expiring of'
);
select tests.be_owner();
select tests.deliver('evt_ends', 'customer.subscription.updated', '2026-01-11', tests.subscription(
  'bob', 'active', '2026-01-10', 'price_basic_monthly', '{"cancel_at": 1768608000}'));
select tests.sign_in('sam');
select is_empty(
  $$ select * from billing_admin.expiring_soon $$, 'another store''s are not shown'
);
select throws_ok(
  format('select * from billing_admin.%I', view),
  'PT403', 'this needs a billing administrator',
  format('%s is for administrators alone', view)
)
from unnest(array[
  'system_health', 'critical_issues', 'problem_accounts', 'unbound_customers', 'event_backlog',
  'command_backlog', 'audit_log', 'money_invariants', 'entitlement_drift'
]) as view;
select throws_ok(
  $$ select billing_admin.grant_entitlement(md5('bob')::uuid, 'premium', 'a gift') $$,
  'PT403', 'this needs a billing administrator', 'grants too'
);
select is_empty(
  $$ select * from billing.subscriptions $$, 'nobody''s rows are theirs to read'
);
select tests.sign_in('ada');
select is(
  (select count(*) from billing_admin.subscription_overview), 2::bigint,
  'an administrator sees all stores'
);
select is((select count(*) from billing_admin.stores), 2::bigint, 'and the stores themselves');

-- ---- what they manage -------------------------------------------------------

select tests.sign_in('sam');
select throws_ok(
  call, 'PT403', 'this needs an administrator of the store', format('refused: %s', call)
)
from (values
  ($$ select billing_admin.publish_plan_version('basic', '{}', 'sabotage') $$),
  ($$ select billing_admin.publish_plan('basic', 'sabotage') $$),
  ($$ select billing_admin.update_plan('basic', 'sabotage', name => 'Worse') $$),
  ($$ select billing_admin.archive_plan('basic', 'sabotage') $$),
  ($$ select billing_admin.create_price('basic', 'mine', 'usd', 'sabotage', 1) $$),
  ($$ select billing_admin.change_price('basic_monthly', 1, 'sabotage') $$),
  ($$ select billing_admin.update_price('basic_monthly', 'sabotage', 99) $$),
  ($$ select billing_admin.archive_price('basic_monthly', 'sabotage') $$),
  ($$ select billing_admin.archive_price('platform_monthly', 'sabotage') $$),
  ($$ select billing_admin.create_plan('more', 'More', 'sabotage', 'lark') $$),
  ($$ select billing_admin.create_plan('more', 'More', 'sabotage') $$),
  ($$ select billing_admin.update_store('lark', 'sabotage', is_active => false) $$),
  ($$ select billing_admin.remove_store_admin('lark', md5('lou')::uuid, 'sabotage') $$)
) as calls (call);
select throws_ok(
  call, 'PT403', 'this needs a billing administrator', format('for administrators alone: %s', call)
)
from (values
  ($$ select billing_admin.set_revenue_share('night-owl', 10000, 'all of it') $$),
  ($$ select billing_admin.create_store('mine', 'Mine', 'a branch') $$),
  ($$ select billing_admin.create_feature('wings', 'Wings', 'to fly') $$),
  ($$ select billing_admin.publish_catalog('all of it') $$)
) as calls (call);

select lives_ok(
  $$
    select billing_admin.create_plan(
      'owl_nights', 'Owl nights', 'a new offer', 'night-owl', features => '{"clubs": 4}');
    select billing_admin.create_price('owl_nights', 'owl_nights_monthly', 'usd', 'a new offer', 900);
    select billing_admin.update_plan('owl_nights', 'a better name', name => 'Nights');
    select billing_admin.publish_plan_version('owl_nights', '{"clubs": 5}', 'a better offer');
    select billing_admin.update_price('owl_nights_monthly', 'try it', 14);
    select billing_admin.change_price('owl_nights_monthly', 1000, 'a dearer offer');
    select billing_admin.update_store('night-owl', 'a shorter name', 'Owl')
  $$,
  'what belongs to the own store is theirs to manage'
);
select row_eq(
  $$
    select plan_name, store_name, unit_amount_minor, trial_days, features
    from billing.list_plans('night-owl')
    where plan_key = 'owl_nights'
  $$,
  row('Nights'::text, 'Owl'::text, 1000::bigint, 14, '{"clubs": 5}'::jsonb),
  'and is on offer so'
);
select tests.be_owner();
select results_eq(
  $$
    select action, subject, actor_id, reason
    from billing_private.admin_actions
    where action in ('create_plan', 'create_price')
    order by action
  $$,
  $$
    values
      ('create_plan', 'owl_nights', md5('sam')::uuid, 'a new offer'),
      ('create_price', 'owl_nights', md5('sam')::uuid, 'a new offer')
  $$,
  'each action is noted with who and why, and none that was refused'
);

-- ---- no longer --------------------------------------------------------------

update billing_private.settings set require_mfa_for_admins = true where only_row;
select tests.sign_in('sam');
select throws_ok(
  $$ select * from billing_admin.stores $$, 'PT403', null,
  'where administrators need a second factor, store admins do too'
);
select tests.be_owner();
update billing_private.settings set require_mfa_for_admins = false where only_row;

select tests.sign_in('tess');
select lives_ok(
  $$ select billing_admin.remove_store_admin('night-owl', md5('sam')::uuid, 'he left') $$,
  'a store admin can be removed'
);
select tests.sign_in('sam');
select throws_ok(
  $$ select * from billing_admin.stores $$,
  'PT403', 'this needs a billing administrator', 'and is refused from then on'
);

select * from finish();
rollback;
