-- billing_admin.publish_plan_version(): a plan is sold with other contents, and whoever bought the
-- earlier ones keeps them.
begin;
\ir ../helpers.psql
select plan(37);

select tests.catalog();
select tests.set_time('2026-01-10');
update billing.plan_versions set published_at = '2025-01-01' where plan_id = md5('plus')::uuid;
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann'), tests.account('bob'), tests.account('cem'), tests.account('dee');
insert into billing.accounts (id) values (md5('eve')::uuid);

create function tests.has(p_name text) returns text
language sql as $$
  select string_agg(
    format('%s %s', feature_key, coalesce(limit_value::text, '-')), ', ' order by feature_key)
  from billing.entitlements
  where account_id = md5(p_name)::uuid;
$$;

select tests.subscribe('ann', 'active', '2026-01-10');
select is(tests.has('ann'), 'clubs 10, premium -', 'ann bought the first version');

-- ---- an administrator -------------------------------------------------------

select tests.sign_in('ada');
select tests.set_time('2026-01-20');
select row_eq(
  $$
    select plan_id, version, published_at, reason
    from billing_admin.publish_plan_version('plus', '{"clubs": 5, "hosting": true}', 'less is more')
  $$,
  row(md5('plus')::uuid, 2, '2026-01-20'::timestamptz, 'less is more'::text),
  'publishing makes the next version'
);
select row_eq(
  $$
    select plan_id, version, published_at, reason
    from billing_admin.publish_plan_version('plus', '{"hosting": true, "clubs": 5}', 'once more')
  $$,
  row(md5('plus')::uuid, 2, '2026-01-20'::timestamptz, 'less is more'::text),
  'the same contents again make none'
);
select is(
  (select features from billing.list_plans() where price_key = 'plus_monthly'),
  '{"clubs": 5, "hosting": true}',
  'the offers show what is on sale'
);
select is(
  (select features from billing.list_plans() where price_key = 'basic_monthly'),
  '{"clubs": 3}',
  'other plans stay'
);

select throws_ok(
  $$ select billing_admin.publish_plan_version('none', '{}', 'a reason') $$,
  'PT404', 'there is no such plan', 'the plan must exist'
);
select throws_ok(
  $$ select billing_admin.publish_plan_version('plus', '{"wings": true}', 'a reason') $$,
  'PT404', 'there is no such feature', 'so must its features'
);
select throws_ok(
  format($$ select billing_admin.publish_plan_version('plus', %L, 'a reason') $$, features),
  'PT400', 'the request is not valid', problem || ' is refused'
)
from (values
  ('{"clubs": -1}'::jsonb, 'a negative limit'),
  ('{"clubs": 1.5}', 'half a unit'),
  ('{"clubs": false}', 'a feature that is not given'),
  ('["clubs"]', 'a list'),
  ('null', 'nothing')
) as refused (features, problem);
select throws_ok(
  $$ select billing_admin.publish_plan_version('plus', '{}', ' ') $$,
  'PT400', 'the request is not valid', 'it needs a reason'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.publish_plan_version('plus', '{}', 'a reason') $$,
  'PT403', 'this needs a billing administrator', 'a member may not publish'
);
select is((select max(version) from billing.plan_versions), 2, 'what was refused left nothing');

-- ---- who has which ----------------------------------------------------------

select tests.be_owner();
select is(tests.has('ann'), 'clubs 10, premium -', 'whoever bought the first version keeps it');
select is_empty(
  $$ select * from billing_private.validate_entitlements(array[md5('ann')::uuid]) $$,
  'which is what the sources say'
);

select tests.subscribe('bob', 'active', '2026-01-20');
select is(tests.has('bob'), 'clubs 5, hosting -', 'whoever buys as it is published has the second');
select tests.subscribe('cem', 'active', '2026-01-19 23:59:59');
select is(
  tests.has('cem'), 'clubs 10, premium -',
  'an event that comes after publishing tells of what was bought before'
);
select is(
  (select plan_key from billing_admin.grant_subscription(md5('eve')::uuid, 'plus_yearly', 'a gift')),
  'plus', 'a subscription without Stripe is granted'
);
select is(tests.has('eve'), 'clubs 5, hosting -', 'and has what is on sale');

select tests.deliver('evt_renewed', 'customer.subscription.updated', '2026-02-10',
  tests.subscription('ann', 'active', '2026-02-10'));
select is(tests.has('ann'), 'clubs 10, premium -', 'a renewal changes no contents');
select tests.deliver('evt_seats', 'customer.subscription.updated', '2026-02-11', jsonb_set(
  tests.subscription('ann', 'active', '2026-02-10'), '{items,data,0,quantity}', '2'));
select is(tests.has('ann'), 'clubs 10, premium -', 'nor do seats');
select tests.deliver('evt_yearly', 'customer.subscription.updated', '2026-02-12',
  tests.subscription('ann', 'active', '2026-02-12', 'price_plus_yearly'));
select is(tests.has('ann'), 'clubs 5, hosting -', 'another price is bought as it is sold then');

-- ---- any order --------------------------------------------------------------

select tests.deliver('evt_dee_2', 'customer.subscription.updated', '2026-01-25',
  tests.subscription('dee', 'active', '2026-01-12', 'price_plus_yearly'));
select is(
  tests.has('dee'), 'clubs 5, hosting -',
  'of what is only heard of later, the first snapshot dates the purchase'
);
select tests.deliver('evt_dee_1', 'customer.subscription.created', '2026-01-12',
  tests.subscription('dee', 'active', '2026-01-12', 'price_plus_yearly'));
select is(
  tests.has('dee'), 'clubs 10, premium -',
  'an older one that comes later dates it back'
);
select tests.deliver('evt_dee_between', 'customer.subscription.updated', '2026-01-22',
  tests.subscription('dee', 'active', '2026-01-12', 'price_plus_monthly'));
select is(
  tests.has('dee'), 'clubs 5, hosting -',
  'one between that tells of another price: the present one was bought after it'
);
select tests.account('fay');
select tests.deliver('evt_fay', 'customer.subscription.updated', '2026-01-25',
  jsonb_set(
    tests.subscription('fay', 'active', '2026-01-12'),
    '{items,data,0,created}', to_jsonb(extract(epoch from timestamptz '2026-01-12')::bigint)));
select is(
  tests.has('fay'), 'clubs 10, premium -',
  'an item that says when it was made needs no older snapshot'
);

-- ---- corrections ------------------------------------------------------------

update billing.plan_features set limit_value = 6
where plan_id = md5('plus')::uuid and version = 2 and feature_key = 'clubs';
select is(
  format('%s; %s', tests.has('bob'), tests.has('cem')),
  'clubs 6, hosting -; clubs 10, premium -',
  'what is written to a version reaches those who have it, and nobody else'
);

-- ---- terms of usage ---------------------------------------------------------

create function tests.terms_of_clubs() returns text
language sql security definer as $$
  select format('%s %s %s %s', limit_value, overage, rollover_cap, resets_every)
  from billing.plan_features
  join billing.plans on plans.id = plan_id and plans.version = plan_features.version
  where plans.key = 'plus' and feature_key = 'clubs';
$$;
select tests.sign_in('ada');
select is(
  (select version from billing_admin.publish_plan_version('plus', '{"clubs": {"limit": 6,
    "overage": "allow", "rollover_cap": 3, "resets_every": "1 week"}, "hosting": true}', 'terms')),
  3, 'terms of usage belong to a version'
);
select is(tests.terms_of_clubs(), '6 allow 3 7 days', 'and are written with it');
select is(
  (select version from billing_admin.publish_plan_version('plus', '{"clubs": {"limit": 6,
    "overage": "allow"}, "hosting": true}', 'terms')),
  3, 'the same again makes none'
);
select billing_admin.publish_plan_version('plus', '{"clubs": 7, "hosting": true}', 'one more');
select is(tests.terms_of_clubs(), '7 allow 3 7 days', 'what is not said stays as it is');
select throws_ok(
  format($$ select billing_admin.publish_plan_version('plus', %L, 'a reason') $$, features),
  'PT400', 'the request is not valid', 'refused: ' || features
)
from (values
  ('{"clubs": {"limit": 1, "overage": "beg"}}'), ('{"clubs": {"overage": "allow"}}'),
  ('{"clubs": {"limit": 1, "colour": "red"}}'), ('{"clubs": {"limit": 1, "resets_every": "soon"}}')
) as refused (features);

select * from finish();
rollback;
