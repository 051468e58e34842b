-- billing_admin.preview_plan_migration() and migrate_plan(): subscribers are moved to other
-- contents, or to another plan, when an administrator says so.
begin;
\ir ../helpers.psql
select plan(55);

select tests.catalog();
select tests.set_time('2026-01-10');
update billing.plan_versions set published_at = '2025-01-01' where version = 1;
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account(name) from unnest(array['ann', 'bob', 'cem', 'dee']) as name;
insert into billing.accounts (id) values (md5('eve')::uuid);
insert into billing.prices
  (id, key, plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id)
values
  (md5('basic_yearly')::uuid, 'basic_yearly', md5('basic')::uuid, 'usd', 4999, 'year', null);

create function tests.has(p_name text) returns text
language sql security definer as $$
  select string_agg(
    format('%s %s', feature_key, coalesce(limit_value::text, '-')), ', ' order by feature_key)
  from billing.entitlements
  where account_id = md5(p_name)::uuid;
$$;
create function tests.answer(p_response jsonb) returns text
language sql security definer as $$
  select (billing.complete_command(claimed.id, claimed.lease, 200, p_response)).status
  from billing.claim_commands(1) as claimed;
$$;

select tests.subscribe('ann', 'active', '2026-01-10');
select tests.subscribe('bob', 'past_due', '2026-01-10');
select tests.subscribe('cem', 'active', '2026-01-10', 'price_plus_yearly');
select tests.subscribe('dee', 'active', '2026-01-10', 'price_basic_monthly');
select billing_admin.grant_subscription(md5('eve')::uuid, 'plus_monthly', 'a gift');

-- ---- to other contents ------------------------------------------------------

select tests.sign_in('ada');
select tests.set_time('2026-01-20');
select is_empty(
  $$ select * from billing_admin.preview_plan_migration('plus', 'plus') $$,
  'while a plan has one version there is nobody to move'
);
select billing_admin.publish_plan_version('plus', '{"clubs": 5, "hosting": true}', 'it changes');
select results_eq(
  $$ select * from billing_admin.preview_plan_migration('plus', 'plus') $$,
  $$
    values (1, 'usd', 4::bigint, 4::bigint, 3833::bigint, 3833::bigint,
      '{"hosting": true}'::jsonb, '{"clubs": 10, "premium": true}'::jsonb, 0::bigint, '{}'::jsonb)
  $$,
  'a preview says how many are concerned, what they pay a month, what they gain and lose'
);
select is(tests.has('ann'), 'clubs 10, premium -', 'and changes nothing');
select results_eq(
  $$
    select accounts, mrr_before_minor
    from billing_admin.preview_plan_migration('plus', 'plus', price_key => 'plus_yearly')
  $$,
  $$ values (1::bigint, 833::bigint) $$,
  'of one price alone; a year is twelve months'
);

savepoint s;
select row_eq(
  $$
    select from_plan, to_plan, to_version, steps, pending, moved, skipped
    from billing_admin.migrate_plan(
      'plus', 'plus', 'they agreed', accounts => array[md5('ann')::uuid, md5('dee')::uuid])
  $$,
  row('plus'::text, 'plus'::text, 2, 1::bigint, 0::bigint, 1::bigint, 0::bigint),
  'some accounts can be moved alone'
);
select is(
  format('%s; %s', tests.has('ann'), tests.has('cem')),
  'clubs 5, hosting -; clubs 10, premium -', 'and nobody else is'
);
rollback to s;

select results_eq(
  $$ select steps, moved from billing_admin.migrate_plan('plus', 'plus', 'it was announced') $$,
  $$ values (4::bigint, 4::bigint) $$,
  'all are moved, whoever carries them'
);
select results_eq(
  $$ select tests.has(name) from unnest(array['ann', 'bob', 'cem', 'eve', 'dee']) as name $$,
  array['clubs 5, hosting -', null, 'clubs 5, hosting -', 'clubs 5, hosting -', 'clubs 3'],
  'and have the contents on sale at once, or when they pay again'
);
select results_eq(
  $$ select steps, moved from billing_admin.migrate_plan('plus', 'plus', 'once more') $$,
  $$ values (0::bigint, 0::bigint) $$,
  'twice moves nobody'
);
select tests.be_owner();
select is_empty(
  $$
    select * from billing_private.validate_entitlements(array(select id from billing.accounts))
  $$,
  'which is what the sources say'
);
select tests.deliver('evt_ann_2', 'customer.subscription.updated', '2026-02-10',
  tests.subscription('ann', 'active', '2026-02-10'));
select tests.deliver('evt_ann_0', 'customer.subscription.updated', '2026-01-11',
  tests.subscription('ann', 'active', '2026-01-10'));
select is(
  tests.has('ann'), 'clubs 5, hosting -',
  'neither a renewal nor an older event that comes late moves them back'
);
select is_empty(
  $$ select * from billing_private.rebuild(array['sub_ann'], false) $$,
  'nor would rebuilding'
);

select tests.sign_in('ada');
select results_eq(
  $$
    select to_version, moved
    from billing_admin.migrate_plan('plus', 'plus', 'a mistake', to_version => 1)
  $$,
  $$ values (1, 4::bigint) $$,
  'they can be moved back'
);
select is(tests.has('ann'), 'clubs 10, premium -', 'to what they had');

-- ---- to another plan --------------------------------------------------------

select results_eq(
  $$
    select from_version, currency, accounts, mrr_before_minor, mrr_after_minor, gained, lost,
      skipped, problems
    from billing_admin.preview_plan_migration('plus', 'basic')
  $$,
  $$
    values (1, 'usd', 2::bigint, 2000::bigint, 1000::bigint, '{}'::jsonb,
      '{"clubs": 10, "premium": true}'::jsonb, 2::bigint,
      '{"not_running": 1, "price_not_at_stripe": 1}'::jsonb)
  $$,
  'a preview of another plan says what is in the way of some'
);
select results_eq(
  $$
    select steps, asked, moved, skipped, problems
    from billing_admin.migrate_plan('plus', 'basic', 'plus is no more')
  $$,
  $$
    values (4::bigint, 1::bigint, 1::bigint, 2::bigint,
      '{"not_running": 1, "price_not_at_stripe": 1}'::jsonb)
  $$,
  'Stripe is asked for its own, others are moved at once'
);
select is(tests.has('eve'), 'clubs 3', 'a manual subscription is on the other plan');
select is(tests.has('ann'), 'clubs 10, premium -', 'one at Stripe when Stripe has done it');
select tests.be_owner();
select results_eq(
  $$
    select path, params from billing_private.commands where kind = 'change_plan'
  $$,
  $$
    values ('/v1/subscriptions/sub_ann', '{"items": [{"id": "si_ann",
      "price": "price_basic_monthly", "quantity": 1}], "proration_behavior": "none"}'::jsonb)
  $$,
  'which is asked by item, with the seats there are'
);
select results_eq(
  $$
    select from_price_id, to_price_id, cause ->> 'reason', actor_id
    from billing.subscription_changes
    where account_id = md5('eve')::uuid and from_price_id <> to_price_id
  $$,
  $$
    values (md5('plus_monthly')::uuid, md5('basic_monthly')::uuid, 'plus is no more',
      md5('ada')::uuid)
  $$,
  'the history says what changed, and why'
);

select tests.sign_in('ada');
select results_eq(
  $$ select problems from billing_admin.preview_plan_migration(
    'plus', 'basic', accounts => array[md5('ann')::uuid]) $$,
  $$ values ('{"change_pending": 1}'::jsonb) $$,
  'who is being moved is not moved twice'
);
select tests.be_service();
select is(
  tests.answer(tests.subscription('ann', 'active', '2026-02-10', 'price_basic_monthly')),
  'succeeded', 'Stripe answers'
);
select tests.sign_in('ada');
select is(tests.has('ann'), 'clubs 3', 'and the other plan is there');
select results_eq(
  $$ select asked, moved, skipped from billing_admin.plan_migrations
    where reason = 'plus is no more' $$,
  $$ values (0::bigint, 2::bigint, 2::bigint) $$,
  'which the progress shows'
);

-- ---- in batches, and what happens meanwhile ---------------------------------

select tests.be_owner();
insert into billing.accounts (id)
select md5('many ' || number)::uuid from generate_series(1, 203) as number;
select count(billing_private.start_manual_subscription(
  md5('many ' || number)::uuid, md5('plus_monthly')::uuid, 1, null, 'complimentary', null, null))
from generate_series(1, 203) as number;
select tests.sign_in('ada');
select results_eq(
  $$ select steps, pending, moved from billing_admin.migrate_plan(
    'plus', 'basic', 'in batches', accounts => array(
      select md5('many ' || number)::uuid from generate_series(1, 203) as number)) $$,
  $$ values (203::bigint, 103::bigint, 100::bigint) $$,
  'a hundred are moved at once'
);
select results_eq(
  $$ select steps, pending from billing_admin.migrate_plan('plus', 'basic', 'impatient',
    accounts => array(
      select md5('many ' || number)::uuid from generate_series(1, 203) as number)) $$,
  $$ values (0::bigint, 0::bigint) $$,
  'what waits is not planned twice; asking again only takes the next hundred'
);
select tests.be_owner();
create temporary table waiting as
select row_number() over (order by subscription_item_id) as place, steps.*
from billing_private.plan_migration_steps as steps
where status = 'pending';
update billing.subscriptions set price_id = md5('basic_monthly')::uuid
where id = (select subscription_id from waiting where place = 1);
select billing_private.sync_manual_items(
  array(select subscription_id from waiting where place = 1));
update billing.subscriptions set status = 'canceled', ended_at = '2026-01-20'
where id = (select subscription_id from waiting where place = 2);
select is(billing_private.task_migrate_plans(), 3::bigint, 'the task takes the rest');
select results_eq(
  $$ select steps.status, steps.problem
    from waiting join billing_private.plan_migration_steps as steps
      using (migration_id, subscription_item_id)
    order by place $$,
  $$ values ('skipped', 'changed_meanwhile'), ('skipped', 'changed_meanwhile'),
    ('moved', null) $$,
  'who has changed plan or ended meanwhile is left alone'
);
select is(billing_private.task_migrate_plans(), 0::bigint, 'then nothing is left');

-- ---- stopping ---------------------------------------------------------------

select tests.sign_in('ada');
create temporary table stopped as
select migration_id from billing_admin.migrate_plan(
  'basic', 'plus', 'back again', accounts => array(
    select md5('many ' || number)::uuid from generate_series(1, 203) as number));
select results_eq(
  $$ select pending, moved, skipped, problems from billing_admin.stop_plan_migration(
    (select migration_id from stopped), 'no, do not') $$,
  $$ values (0::bigint, 100::bigint, 102::bigint, '{"stopped": 102}'::jsonb) $$,
  'the rest of a migration can be left undone'
);
select throws_ok(
  $$ select billing_admin.stop_plan_migration(md5('none')::uuid, 'a reason') $$,
  'PT400', 'the request is not valid', 'if there is such a migration'
);

-- ---- what is published meanwhile --------------------------------------------

-- Five on Stripe are asked for, then the plan they go to changes, then Stripe answers.
select tests.be_owner();
select tests.account(name), tests.subscribe(name, 'active', '2026-01-21')
from unnest(array['flo', 'gil', 'hal', 'ivy', 'jon']) as name;
insert into billing.accounts (id) values (md5('kim')::uuid);
select billing_private.start_manual_subscription(
  md5('kim')::uuid, md5('plus_monthly')::uuid, 1, null, 'complimentary', null, null);
create function tests.ids(variadic p_names text[]) returns uuid[]
language sql as $$ select array_agg(md5(name)::uuid) from unnest(p_names) as name; $$;
create function tests.on_basic(p_name text, p_at timestamptz) returns jsonb
language sql as $$
  select tests.subscription(p_name, 'active', '2026-01-21', 'price_basic_monthly');
$$;
-- The answer to a call for somebody, whenever it comes.
create function tests.answer_for(p_name text, p_status integer default 200) returns text
language plpgsql security definer as $$
declare
  v_claimed record;
begin
  select id, lease into strict v_claimed
  from billing_private.commands
  where path = '/v1/subscriptions/sub_' || p_name and status = 'leased';
  return (billing.complete_command(
    v_claimed.id, v_claimed.lease, p_status,
    case
      when p_status = 200 then tests.on_basic(p_name, billing_private.now())
      else '{"error": {"type": "card_error", "code": "card_declined", "message": "no"}}'
    end,
    stripe_date => to_char(billing_private.now(), 'Dy, DD Mon YYYY HH24:MI:SS "GMT"'))).status;
end;
$$;

select tests.set_time('2026-01-22');
select tests.sign_in('ada');
select results_eq(
  $$ select steps, asked from billing_admin.migrate_plan('plus', 'basic', 'plus goes',
    accounts => tests.ids('flo', 'gil', 'hal', 'ivy')) $$,
  $$ values (4::bigint, 4::bigint) $$,
  'four on Stripe are asked for'
);
select tests.be_service();
select count(*) from billing.claim_commands(20);
select tests.set_time('2026-01-22 00:02');
select tests.sign_in('ada');
select billing_admin.publish_plan_version('basic', '{"clubs": 4}', 'a better one');

select tests.answer_for('flo');
select tests.deliver('evt_flo_moved', 'customer.subscription.updated', '2026-01-22 00:02:10',
  tests.on_basic('flo', '2026-01-22'), '{"items": {"data": []}}');
select is(
  tests.has('flo'), 'clubs 3',
  'what the migration said is what they get, though more has been published before Stripe''s answer'
);
select tests.deliver('evt_gil_moved', 'customer.subscription.updated', '2026-01-22 00:02:10',
  tests.on_basic('gil', '2026-01-22'));
select is(tests.has('gil'), 'clubs 3', 'also where the event comes before the answer');
select tests.set_time('2026-01-22 00:30');
select is(tests.answer_for('gil'), 'succeeded', 'which is late');
select is(tests.has('gil'), 'clubs 3', 'and changes nothing');
select tests.deliver('evt_gil_older', 'customer.subscription.updated', '2026-01-21 12:00',
  tests.subscription('gil', 'active', '2026-01-21'));
select is(tests.has('gil'), 'clubs 3', 'nor does an older event that comes last');
select is(
  format('%s; %s', tests.answer_for('hal', 402), tests.answer_for('ivy', 400)),
  'dead; dead', 'Stripe refuses two of them'
);
select tests.be_owner();
select tests.set_time('2026-01-22 00:31');
select tests.deliver('evt_hal_self', 'customer.subscription.updated', '2026-01-22 00:31',
  tests.on_basic('hal', '2026-01-22'));
select tests.deliver('evt_ivy_self', 'customer.subscription.updated', '2026-01-22 00:31',
  tests.on_basic('ivy', '2026-01-22'));
select is(
  format('%s; %s', tests.has('hal'), tests.has('ivy')), 'clubs 4; clubs 4',
  'who then changes alone buys what is on sale'
);
select is_empty(
  $$ select * from billing_private.rebuild(array['sub_flo', 'sub_gil', 'sub_hal'], false) $$,
  'rebuilding says the same'
);

select tests.set_time('2026-01-24');
select tests.deliver('evt_flo_back', 'customer.subscription.updated', '2026-01-23',
  tests.subscription('flo', 'active', '2026-01-21'));
select tests.deliver('evt_flo_again', 'customer.subscription.updated', '2026-01-24',
  tests.on_basic('flo', '2026-01-24'));
select is(tests.has('flo'), 'clubs 4', 'who leaves and comes back buys what is on sale');

-- A step that waited while more was published.
insert into billing_private.plan_migrations (id, from_plan_id, to_plan_id, to_version, proration,
  reason)
values (md5('waits')::uuid, md5('plus')::uuid, md5('basic')::uuid, 1, 'none', 'it waited');
insert into billing_private.plan_migration_steps
  (migration_id, subscription_item_id, subscription_id, account_id)
select md5('waits')::uuid, subscription_items.id, subscriptions.id, account_id
from billing.subscription_items
join billing.subscriptions on subscriptions.id = subscription_id
where account_id = md5('kim')::uuid;
select is(billing_private.task_migrate_plans(), 1::bigint, 'a manual one whose step had to wait');
select is(tests.has('kim'), 'clubs 3', 'gets what the migration said too');

update billing_private.commands set finished_at = finished_at - interval '1 year'
where kind = 'change_plan' and finished_at is not null;
select billing_private.task_clean_up();
select tests.sign_in('ada');
select results_eq(
  $$ select moved, skipped from billing_admin.plan_migrations where reason = 'plus goes' $$,
  $$ values (2::bigint, 2::bigint) $$,
  'what became of a migration is told for as long as it is kept'
);

-- ---- refusals ---------------------------------------------------------------

select tests.be_owner();
insert into billing.plans (key, name, kind) values ('extra', 'Extra', 'add_on');
select tests.sign_in('ada');
select throws_ok(
  format('select billing_admin.migrate_plan(%s)', arguments), expected, null,
  format('refused: %s', arguments)
)
from (values
  ($$'plus', 'none', 'a reason'$$, 'PT404'),
  ($$'plus', 'extra', 'a reason'$$, 'PT400'),
  ($$'plus', 'plus', 'a reason', to_version => 3$$, 'PT400'),
  ($$'plus', 'basic', 'a reason', to_version => 1$$, 'PT400'),
  ($$'plus', 'basic', 'a reason', proration => 'some'$$, 'PT400'),
  ($$'plus', 'basic', ''$$, 'PT400')
) as calls (arguments, expected);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.preview_plan_migration('plus', 'basic') $$,
  'PT403', 'this needs a billing administrator', 'a member may not look'
);
select throws_ok(
  $$ select billing_admin.migrate_plan('plus', 'basic', 'I want it') $$,
  'PT403', 'this needs a billing administrator', 'nor move anybody'
);
select tests.be_owner();
update billing.plans set store_id = md5('night-owl')::uuid where key = 'plus';
insert into billing_private.store_admins (store_id, user_id, reason)
values (md5('night-owl')::uuid, md5('sam')::uuid, 'test');
select tests.sign_in('sam');
select lives_ok(
  $$ select billing_admin.preview_plan_migration('plus', 'plus') $$,
  'a store admin moves within the own store'
);
select throws_ok(
  $$ select billing_admin.migrate_plan('basic', 'plus', 'I want them') $$,
  'PT403', 'this needs an administrator of the store', 'but takes nobody from elsewhere'
);
select is_empty(
  $$ select * from billing_admin.plan_migrations where from_plan <> to_plan $$,
  'and sees no migrations of others'
);

select * from finish();
rollback;
