-- billing_admin.publish_catalog(), publish_plan(), change_price() and create_coupon(): the catalog
-- that was written here becomes Stripe's, call by call.
begin;
\ir ../helpers.psql
select plan(68);

select tests.set_time('2026-01-10 12:00');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

insert into billing.plans (id, key, name, description, tier_rank) values
  (md5('basic')::uuid, 'basic', 'Basic', 'For a start', 10),
  (md5('plus')::uuid, 'plus', 'Plus', null, 20);
insert into billing.prices
  (id, key, plan_id, currency, unit_amount_minor, unit_amount_decimal, billing_interval,
    interval_count, usage_type, billing_scheme, tiers_mode, tiers, stripe_meter_id, is_active)
values
  (md5('basic_monthly')::uuid, 'basic_monthly', md5('basic')::uuid, 'usd', 500, null, 'month', 1,
    'licensed', 'per_unit', null, null, null, true),
  (md5('basic_old')::uuid, 'basic_old', md5('basic')::uuid, 'usd', 400, null, 'month', 1,
    'licensed', 'per_unit', null, null, null, false),
  (md5('plus_quarter')::uuid, 'plus_quarter', md5('plus')::uuid, 'jpy', null, 0.5, 'month', 3,
    'metered', 'per_unit', null, null, 'mtr_1', true),
  (md5('plus_tiers')::uuid, 'plus_tiers', md5('plus')::uuid, 'usd', null, null, 'month', 1,
    'licensed', 'tiered', 'volume',
    '[{"up_to": 10, "unit_amount": 500, "unit_amount_decimal": "500", "flat_amount": null},
      {"up_to": null, "unit_amount": 400, "flat_amount": 100}]', null, true),
  (md5('plus_once')::uuid, null, md5('plus')::uuid, 'eur', 4900, null, null, 1,
    'licensed', 'per_unit', null, null, null, true);

-- What is to be carried to Stripe, in order.
create view tests.calls as
select kind, path, params, subject_id, id, position
from billing_private.commands
where status in ('pending', 'leased')
order by position;
create function tests.kinds() returns text[]
language sql as $$
  select coalesce(array_agg(kind || ' ' || coalesce(params ->> 'lookup_key', params ->> 'name', path)
    order by position), '{}')
  from tests.calls;
$$;

-- What Stripe makes of the parameters of the oldest call of a kind.
create function tests.made(p_kind text, p_object jsonb) returns jsonb
language sql as $$
  select '{"livemode": false, "active": true, "created": 1768046400}' || params || p_object
  from tests.calls
  where kind = p_kind
  limit 1;
$$;

-- Stripe answers the oldest call of a kind: with what it made of it, or with an error.
create function tests.carry(p_kind text, p_object jsonb, p_http_status integer default 200)
returns text
language plpgsql as $$
declare
  v_response jsonb := case
    when p_http_status = 200 then tests.made(p_kind, p_object) else p_object end;
  v_status text;
begin
  update billing_private.commands
  set status = 'leased', lease = md5('lease')::uuid, lease_expires_at = '2026-01-11',
    sequence = nextval('billing_private.stripe_events_sequence_seq'),
    target_event_id = (
      select event_id from billing_private.stripe_objects where object_id = target_object_id)
  where id = (select id from tests.calls where kind = p_kind limit 1);
  select outcome.status into strict v_status
  from billing_private.commands
  cross join lateral billing.complete_command(commands.id, md5('lease')::uuid, p_http_status,
    v_response, null, 'Sat, 10 Jan 2026 12:00:00 GMT', 0) as outcome
  where commands.lease = md5('lease')::uuid;
  return v_status;
end;
$$;
create function tests.price_object(p_id text, p_extra jsonb default '{}') returns jsonb
language sql as $$
  select jsonb_build_object('id', p_id, 'object', 'price') || p_extra;
$$;

savepoint written;

-- ---- a new plan -------------------------------------------------------------

select tests.sign_in('ada');
select is(
  billing_admin.publish_plan('basic', 'a new plan'), 1::bigint,
  'A4: a plan that Stripe does not know takes one call'
);
select is(billing_admin.publish_plan('basic', 'again'), 0::bigint, 'asked twice, still one');
select is(
  billing_admin.publish_catalog('all of it'), 1::bigint,
  'as part of the whole catalog too: only the other plan is missing'
);
select tests.be_owner();
rollback to written;

select billing_admin.publish_plan('basic', 'a new plan');
select results_eq(
  'select kind, path, params from tests.calls',
  $$
    values ('create_product', '/v1/products', '{"id": "prod_basic", "name": "Basic",
      "description": "For a start", "active": true, "metadata": {"plan_key": "basic"}}'::jsonb)
  $$,
  'A4: the product has an id of ours, so that one plan cannot become two'
);
select is(
  (select account_id from billing_private.commands), null, 'it stands in no account''s line'
);
select tests.be_service();
select is(
  (select path from billing.claim_commands()), '/v1/products', 'the dispatcher is given it'
);
select tests.be_owner();
select is(
  tests.carry('create_product', '{"object": "product"}'), 'succeeded', 'Stripe makes the product'
);
select results_eq(
  $$ select stripe_product_id, name, is_listed from billing.plans where key = 'basic' $$,
  $$ values ('prod_basic', 'Basic', true) $$,
  'the plan has its id'
);
select results_eq(
  'select kind, path, params from tests.calls',
  format($$
    values ('create_price', '/v1/prices', '{"product": "prod_basic", "currency": "usd",
      "unit_amount": 500, "lookup_key": "basic_monthly", "metadata": {"price_id": "%s"},
      "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}}'::jsonb)
  $$, md5('basic_monthly')::uuid),
  'its active prices follow, the others do not'
);
select is(
  tests.carry('create_price', tests.price_object('price_1')), 'succeeded', 'Stripe makes the price'
);
select results_eq(
  $$
    select stripe_price_id, stripe_product_id, unit_amount_minor, is_listed
    from billing.prices where key = 'basic_monthly'
  $$,
  $$ values ('price_1', 'prod_basic', 500::bigint, true) $$,
  'the price has its id, and is on offer'
);
select is(tests.kinds(), '{}', 'nothing is left to tell');
select is(
  (select count(*) from billing.list_plans() where price_key = 'basic_monthly'), 1::bigint,
  'users see it'
);
select is(billing_admin.publish_catalog('again'), 1::bigint, 'and asked again, only the other plan is missing');
select is((select count(*) from billing.plans), 2::bigint, 'no plan is made twice');
select is((select count(*) from billing.prices), 5::bigint, 'and no price');
rollback to written;

-- ---- what the events may do before ------------------------------------------

select billing_admin.publish_plan('basic', 'a new plan');
select tests.deliver('evt_prod', 'product.created', '2026-01-10 12:00',
  tests.made('create_product', '{"object": "product"}'));
select is(
  (select stripe_product_id from billing.plans where key = 'basic'), 'prod_basic',
  'the event may be faster than the answer'
);
select is(tests.carry('create_product', '{"object": "product"}'), 'succeeded', 'which then comes');
select is(tests.kinds(), '{"create_price basic_monthly"}', 'and goes on as ever');
select tests.deliver('evt_price', 'price.created', '2026-01-10 12:00',
  tests.made('create_price', tests.price_object('price_1')) - 'metadata');
select is(
  (select id from billing.prices where stripe_price_id = 'price_1'), md5('basic_monthly')::uuid,
  'the price''s too: it is claimed by its key'
);
select is(
  tests.carry('create_price', tests.price_object('price_1')), 'succeeded', 'its answer comes later'
);
select results_eq(
  $$ select count(*), count(stripe_price_id) from billing.prices where plan_id = md5('basic')::uuid $$,
  'values (2::bigint, 1::bigint)',
  'and makes no second one'
);
rollback to written;

-- ---- prices of every kind ---------------------------------------------------

select billing_admin.publish_plan('plus', 'a new plan');
select tests.carry('create_product', '{"object": "product"}');
select results_eq(
  $$ select params - 'metadata' - 'product' from tests.calls order by params ->> 'lookup_key' nulls first $$,
  $$
    values
      ('{"currency": "eur", "unit_amount": 4900}'::jsonb),
      ('{"currency": "jpy", "unit_amount_decimal": "0.5", "lookup_key": "plus_quarter",
        "recurring": {"interval": "month", "interval_count": 3, "usage_type": "metered",
          "meter": "mtr_1"}}'),
      ('{"currency": "usd", "billing_scheme": "tiered", "tiers_mode": "volume", "tiers": [
          {"up_to": 10, "unit_amount_decimal": "500"},
          {"up_to": "inf", "unit_amount_decimal": "400", "flat_amount_decimal": "100"}],
        "lookup_key": "plus_tiers",
        "recurring": {"interval": "month", "interval_count": 1, "usage_type": "licensed"}}')
  $$,
  'A1: once, fractional and metered, in tiers: each as Stripe wants it'
);
select tests.carry('create_price', tests.price_object('price_' || n))
from generate_series(1, 3) as n;
select results_eq(
  $$
    select id, stripe_price_id is not null, key
    from billing.prices where plan_id = md5('plus')::uuid order by key nulls first
  $$,
  $$
    values (md5('plus_once')::uuid, true, null), (md5('plus_quarter')::uuid, true, 'plus_quarter'),
      (md5('plus_tiers')::uuid, true, 'plus_tiers')
  $$,
  'a price without a key is known again by the id in its metadata'
);
select results_eq(
  $$ select tiers_mode, jsonb_array_length(tiers), stripe_meter_id from billing.prices
    where key in ('plus_tiers', 'plus_quarter') order by key $$,
  $$ values (null, null::integer, 'mtr_1'), ('volume', 2, null) $$,
  'tiers and meter are kept'
);
rollback to written;

-- ---- tiers that came from Stripe --------------------------------------------

select tests.deliver('evt_tiered', 'price.created', '2026-01-10', '{"id": "price_t",
  "object": "price", "product": "prod_x", "currency": "usd", "billing_scheme": "tiered",
  "tiers_mode": "graduated", "active": true, "recurring": {"interval": "month"}}');
select results_eq(
  'select kind, path, params from tests.calls',
  $$ values ('reread', '/v1/prices/price_t', '{"expand": ["tiers"]}'::jsonb) $$,
  'tiers are not in the events: Stripe is asked for them'
);
select is(
  tests.carry('reread', '{"id": "price_t", "object": "price", "product": "prod_x",
    "currency": "usd", "billing_scheme": "tiered", "tiers_mode": "graduated",
    "recurring": {"interval": "month"},
    "tiers": [{"up_to": null, "unit_amount": 5, "unit_amount_decimal": "5"}]}'),
  'succeeded', 'and tells'
);
select results_eq(
  $$ select tiers_mode, tiers -> 0 ->> 'unit_amount_decimal' from billing.prices
    where stripe_price_id = 'price_t' $$,
  $$ values ('graduated', '5') $$,
  'they are stored'
);
select tests.deliver('evt_tiered_2', 'price.updated', '2026-01-11', '{"id": "price_t",
  "object": "price", "product": "prod_x", "currency": "usd", "billing_scheme": "tiered",
  "tiers_mode": "graduated", "active": false, "recurring": {"interval": "month"}}');
select is(tests.kinds(), '{}', 'an event without them asks no more');
select is(
  (select jsonb_array_length(tiers) from billing.prices where stripe_price_id = 'price_t'), 1,
  'and takes nothing away'
);
rollback to written;

-- ---- changes ----------------------------------------------------------------

select billing_admin.publish_plan('basic', 'a new plan');
select tests.carry('create_product', '{"object": "product"}');
select tests.carry('create_price', tests.price_object('price_1'));
savepoint published;

update billing.plans set name = 'Basics', description = null where key = 'basic';
select is(billing_admin.publish_plan('basic', 'renamed'), 1::bigint, 'a plan that was renamed');
select results_eq(
  'select kind, path, params from tests.calls',
  $$
    values ('update_product', '/v1/products/prod_basic', '{"name": "Basics", "description": "",
      "active": true, "metadata": {"plan_key": "basic"}}'::jsonb)
  $$,
  'is renamed at Stripe'
);
update billing.plans set name = 'Basic too' where key = 'basic';
select is(
  billing_admin.publish_plan('basic', 'renamed again'), 0::bigint,
  'a second change before Stripe has heard of the first'
);
select is((select params ->> 'name' from tests.calls), 'Basic too', 'takes its place');
select is(
  tests.carry('update_product', '{"id": "prod_basic", "object": "product"}'), 'succeeded',
  'Stripe takes it'
);
select results_eq(
  $$ select name, description from billing.plans where key = 'basic' $$,
  $$ values ('Basic too', '') $$,
  'the answer says how the product is'
);
select is(billing_admin.publish_plan('basic', 'to be sure'), 0::bigint, 'nothing is left to tell');
rollback to published;

update billing.prices set is_active = false where key = 'basic_monthly';
select is(billing_admin.publish_plan('basic', 'off sale'), 1::bigint, 'a price that is off sale');
select results_eq(
  'select kind, path, params from tests.calls',
  $$ values ('update_price', '/v1/prices/price_1', '{"active": false}'::jsonb) $$,
  'is taken off sale at Stripe'
);
select tests.carry('update_price', jsonb_build_object('id', 'price_1', 'object', 'price',
  'product', 'prod_basic', 'currency', 'usd', 'unit_amount', 500, 'lookup_key', 'basic_monthly',
  'recurring', '{"interval": "month"}'::jsonb));
select is(tests.kinds(), '{}', 'and that was all');
select is(
  (select is_active from billing.prices where id = md5('basic_monthly')::uuid), false,
  'it stays off sale'
);
rollback to published;

update billing.prices set key = 'basic_month' where key = 'basic_monthly';
select billing_admin.publish_plan('basic', 'another key');
select is(
  (select params from tests.calls),
  '{"lookup_key": "basic_month", "transfer_lookup_key": true}', 'so is its key'
);
rollback to published;

-- ---- another amount ---------------------------------------------------------

select tests.account('ann');
select tests.subscribe('ann', p_price => 'price_1');
select tests.sign_in('ada');
create temporary table changed as
select * from billing_admin.change_price('basic_monthly', 700, 'inflation');
select results_eq(
  'select key, unit_amount_minor, is_active, stripe_price_id from changed',
  $$ values (null::text, 700::bigint, false, null::text) $$,
  'another amount is another price, which waits for Stripe'
);
select tests.be_owner();
select is(
  (select stripe_price_id from billing.prices where key = 'basic_monthly'), 'price_1',
  'until then the old one is sold'
);
select results_eq(
  $$ select kind, params - 'metadata' - 'recurring' from tests.calls $$,
  $$
    values ('create_price', '{"product": "prod_basic", "currency": "usd", "unit_amount": 700,
      "lookup_key": "basic_monthly", "transfer_lookup_key": true}'::jsonb)
  $$,
  'Stripe is asked for it, and to give it the key'
);
select is(
  (select id from billing_admin.change_price('basic_monthly', 700, 'again')),
  (select id from changed),
  'twice changes nothing more'
);
select throws_ok(
  $$ select billing_admin.change_price('basic_monthly', 800, 'on second thoughts') $$,
  'PT400', 'the request is not valid', 'one change at a time'
);
select tests.carry('create_price', tests.price_object('price_2'));
select results_eq(
  $$ select stripe_price_id, unit_amount_minor, is_listed, replaced_by is null
    from billing.prices where key = 'basic_monthly' $$,
  $$ values ('price_2', 700::bigint, true, true) $$,
  'once Stripe has it, it is what is sold'
);
select results_eq(
  $$
    select unit_amount_minor, prices.key
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
  $$,
  $$ values (500::bigint, null::text) $$,
  'A3: whoever has the old one keeps it'
);
select results_eq(
  'select kind, path, params from tests.calls',
  $$ values ('update_price', '/v1/prices/price_1', '{"active": false}'::jsonb) $$,
  'which goes off sale at Stripe'
);
select tests.carry('update_price', jsonb_build_object('id', 'price_1', 'object', 'price',
  'product', 'prod_basic', 'currency', 'usd', 'unit_amount', 500,
  'recurring', '{"interval": "month"}'::jsonb));
select is(tests.kinds(), '{}', 'and that was all');
rollback to published;

select tests.deliver('evt_default', 'product.updated', '2026-01-10 12:01', '{"id": "prod_basic",
  "object": "product", "name": "Basic", "description": "For a start", "active": true,
  "default_price": "price_1", "metadata": {"plan_key": "basic"}}');
select billing_admin.change_price('basic_monthly', 700, 'inflation');
select tests.carry('create_price', tests.price_object('price_2'));
select is(
  (select array_agg(kind || ' ' || (params ->> 'default_price')) from tests.calls),
  '{"update_product price_2"}',
  'where the old one was the product''s default price, the new one becomes that first'
);
select tests.carry('update_product', '{"id": "prod_basic", "object": "product"}');
select is(
  (select array_agg(kind || ' ' || path) from tests.calls), '{"update_price /v1/prices/price_1"}',
  'then the old one can go'
);
rollback to published;

-- ---- what Stripe has already ------------------------------------------------

select billing_admin.publish_plan('plus', 'a new plan');
select is(
  tests.carry('create_product', '{"error": {"code": "resource_already_exists"}}', 400), 'pending',
  'a product of that id may be ours, of an earlier installation'
);
select is(
  tests.carry('create_product', '{"id": "prod_plus", "object": "product"}'), 'succeeded',
  'if it bears the plan''s key, it is'
);
rollback to published;
select billing_admin.publish_plan('plus', 'a new plan');
select tests.carry('create_product', '{"error": {"code": "resource_already_exists"}}', 400);
select is(
  tests.carry('create_product', '{"id": "prod_plus", "object": "product", "metadata": {}}'), 'dead',
  'if not, it is somebody else''s: a person has to look'
);
select is(
  (select stripe_product_id from billing.plans where key = 'plus'), null, 'nothing is taken over'
);
rollback to published;

-- ---- a plan that cannot be stored -------------------------------------------

update billing.plans set name = 'Basics' where key = 'basic';
select billing_admin.publish_plan('basic', 'renamed');
alter table billing.plans add constraint no_basics check (name <> 'Basics') not valid;
select tests.carry('update_product', '{"id": "prod_basic", "object": "product", "name": "Basics"}');
select is(tests.kinds(), '{}', 'an answer that cannot be applied does not make the call again');
rollback to written;

-- ---- without Stripe ---------------------------------------------------------

select results_eq(
  $$ select key, unit_amount_minor, is_active from billing_admin.change_price('basic_monthly', 0, 'x') $$,
  $$ values ('basic_monthly', 0::bigint, true) $$,
  'a price that is not at Stripe is replaced at once, if need be by nothing'
);
select results_eq(
  $$ select unit_amount_minor, is_active, replaced_by is not null from billing.prices
    where key = 'basic_monthly' order by is_active $$,
  'values (500::bigint, false, true), (0, true, false)',
  'the old one stays for those who have it'
);
rollback to written;

-- ---- coupons ----------------------------------------------------------------

select tests.sign_in('ada');
select billing_admin.create_coupon('spring', 'a sale', percent_off => 12.5) is not null as asked;
select billing_admin.create_coupon('five', 'a gift', null, 500, 'usd', 3) is not null as asked;
select billing_admin.create_coupon('ever', 'friends', 100, duration_in_months => null) is not null
  as asked;
select tests.be_owner();
select results_eq(
  'select kind, path, params from tests.calls',
  $$
    values
      ('create_coupon', '/v1/coupons',
        '{"id": "spring", "percent_off": 12.5, "duration": "once"}'::jsonb),
      ('create_coupon', '/v1/coupons', '{"id": "five", "amount_off": 500, "currency": "usd",
        "duration": "repeating", "duration_in_months": 3}'),
      ('create_coupon', '/v1/coupons',
        '{"id": "ever", "percent_off": 100, "duration": "forever"}')
  $$,
  'I1: coupons are made at Stripe: for one invoice, for some months, for ever'
);
select tests.carry('create_coupon', '{"object": "coupon", "valid": true}');
select results_eq(
  'select stripe_coupon_id, percent_off, duration from billing.coupons',
  $$ values ('spring', 12.5, 'once') $$,
  'and stand here when Stripe has answered'
);

create function tests.refused(p_percent numeric, p_amount bigint, p_currency text, p_key text default 'c',
  p_months bigint default 0) returns boolean
language plpgsql as $$
begin
  perform billing_admin.create_coupon(p_key, 'a try', p_percent, p_amount, p_currency, p_months);
  return false;
exception when sqlstate 'PT400' then
  return true;
end;
$$;
select ok(
  tests.refused(null, null, null) and tests.refused(10, 100, 'usd') and tests.refused(101, null, null)
    and tests.refused(0, null, null) and tests.refused(null, 0, 'usd')
    and tests.refused(null, 100, null) and tests.refused(10, null, 'usd')
    and tests.refused(null, 100, 'USD') and tests.refused(10, null, null, 'a b')
    and tests.refused(10, null, null, null) and tests.refused(10, null, null, 'c', -1),
  'what is no discount is refused'
);

-- ---- errors -----------------------------------------------------------------

select throws_ok(
  $$ select billing_admin.publish_plan('nothing', 'a try') $$,
  'PT404', 'there is no such plan', 'a plan that does not exist cannot be published'
);
select throws_ok(
  $$ select billing_admin.change_price('nothing', 1, 'a try') $$,
  'PT404', 'there is no such price on offer', 'nor can a price be changed'
);
select throws_ok(
  $$ select billing_admin.change_price('basic_monthly', -1, 'a try') $$,
  'PT400', 'the request is not valid', 'nor to less than nothing'
);
select throws_ok(
  $$ select billing_admin.change_price('plus_tiers', 100, 'a try') $$,
  'PT400', 'the request is not valid', 'nor where it is in tiers'
);
select tests.sign_in('bob');
select throws_ok(
  $$ select billing_admin.change_price('basic_monthly', 0, 'cheap') $$,
  'PT403', 'this needs a billing administrator', 'a user changes no price'
);

select * from finish();
rollback;
