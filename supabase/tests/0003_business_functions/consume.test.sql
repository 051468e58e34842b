-- billing.consume(): who may call it, what it takes, what it refuses, and what it answers.
begin;
\ir ../helpers.psql
select plan(31);

select tests.catalog();
insert into billing.features (key, name, kind, aggregation, clients_may_consume) values
  ('exports', 'Exports', 'metered', 'sum', false),
  ('searches', 'Searches', 'metered', 'count', true),
  ('peak', 'Peak', 'metered', 'max', false);
insert into billing.plan_features (plan_id, feature_key, limit_value) values
  (md5('plus')::uuid, 'exports', 10),
  (md5('plus')::uuid, 'searches', 2),
  (md5('plus')::uuid, 'peak', 5);
select tests.set_time('2026-01-10');
select tests.account('ann');
select tests.subscribe('ann');
select tests.account('bob');

-- ---- the server -------------------------------------------------------------

select tests.be_service();

select results_eq(
  $$ select is_allowed, used, allowance, remaining from billing.consume('exports', 7, md5('ann')::uuid) $$,
  $$ values (true, 7::numeric, 10::numeric, 3::numeric) $$,
  'consume() counts, and says what is left'
);
select throws_ok(
  $$ select billing.consume('exports', 4, md5('ann')::uuid) $$,
  'PT402', 'the limit of this feature is reached',
  'more than is left is refused, in whole'
);
select results_eq(
  $$ select used, remaining from billing.consume('exports', 3, md5('ann')::uuid) $$,
  $$ values (10::numeric, 0::numeric) $$,
  'what is left, to the last unit, is given'
);
select throws_ok(
  $$ select billing.consume('exports', 0.001, md5('ann')::uuid) $$,
  'PT402', 'the limit of this feature is reached',
  'and not a thousandth more'
);
select throws_ok(
  $$ select billing.consume('exports', 1, md5('bob')::uuid) $$,
  'PT402', 'no plan of the account includes this feature',
  'an account without the feature is told so'
);
select throws_ok(
  $$ select billing.consume('exports', 1) $$,
  'PT400', 'the request is not valid',
  'the server names the account'
);
select throws_ok(
  $$ select billing.consume('exports', 1, md5('nobody')::uuid) $$,
  'PT404', 'there is no such account',
  'which must exist'
);
select throws_ok(
  $$ select billing.consume('exprots', 1, md5('ann')::uuid) $$,
  'PT404', 'there is no such feature',
  'as must the feature'
);
select throws_ok(
  format($$ select billing.consume('exports', %L, md5('ann')::uuid) $$, quantity),
  'PT400', 'the request is not valid',
  format('%s is no quantity', quantity)
)
from unnest(array['0', '-1', 'NaN', 'Infinity', '1e16']) as quantity;
select throws_ok(
  format($$ select billing.consume(%L, 1, md5('ann')::uuid) $$, feature),
  'PT400', 'the request is not valid',
  format('%s is nothing that is consumed', feature)
)
from unnest(array['premium', 'peak']) as feature;

-- ---- a key ------------------------------------------------------------------

select tests.be_owner();
delete from billing.usage_records where account_id = md5('ann')::uuid;
update billing.usage_totals set used = 0 where account_id = md5('ann')::uuid;
select tests.be_service();

select results_eq(
  $$
    select used, remaining, is_repeated
    from billing.consume('exports', 6, md5('ann')::uuid, 'order-1')
  $$,
  $$ values (6::numeric, 4::numeric, false) $$,
  'a key that is new counts'
);
select billing.consume('exports', 2, md5('ann')::uuid, 'order-2');
select results_eq(
  $$
    select used, remaining, is_repeated
    from billing.consume('exports', 6, md5('ann')::uuid, 'order-1')
  $$,
  $$ values (6::numeric, 4::numeric, true) $$,
  'the same key counts nothing and is given the first answer'
);
select is(
  (select used from billing.usage_totals where account_id = md5('ann')::uuid),
  8::numeric,
  'so it was counted once'
);
select throws_ok(
  $$ select billing.consume('exports', 3, md5('ann')::uuid, 'order-3') $$,
  'PT402', 'the limit of this feature is reached',
  'a refusal with a key'
);
select tests.be_owner();
update billing.plan_features set limit_value = 20 where feature_key = 'exports';
select tests.be_service();
select is(
  (select is_repeated from billing.consume('exports', 3, md5('ann')::uuid, 'order-3')), false,
  'is not kept: when more is allowed the same key passes'
);
select throws_ok(
  format($$ select billing.consume('exports', 1, md5('ann')::uuid, %L) $$, key),
  'PT400', 'the request is not valid',
  format('a key of %s characters is none', length(key))
)
from unnest(array['', repeat('k', 256)]) as key;

select tests.set_time('2026-03-31 23:59');
select tests.be_owner();
select tests.deliver('evt_renewed', 'customer.subscription.updated', '2026-03-10',
  tests.subscription('ann', 'active', '2026-03-10'));
select tests.be_service();
select ok(
  (select is_repeated from billing.consume('exports', 6, md5('ann')::uuid, 'order-1')),
  'a key is known until the end of the second month after it'
);
select tests.set_time('2026-04-01');
select ok(
  (select not is_repeated from billing.consume('exports', 6, md5('ann')::uuid, 'order-1')),
  'and new again from then on'
);

-- ---- a member ---------------------------------------------------------------

select tests.sign_in('ann');

select throws_ok(
  $$ select billing.consume('exports', 1) $$,
  'PT403', 'only the server may do this',
  'a member counts nothing herself'
);
select lives_ok(
  $$ select billing.consume('searches', 5) $$,
  'unless the feature lets her'
);
select is(
  (select used from billing.usage_totals where feature_key = 'searches'), 1::numeric,
  'where the count counts, the quantity does not'
);
select billing.consume('searches');
select throws_ok(
  $$ select billing.consume('searches') $$,
  'PT402', 'the limit of this feature is reached',
  'the limit is the same for her'
);

-- ---- a stranger, a visitor --------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing.consume('searches', 1, md5('ann')::uuid) $$,
  'PT403', 'you are not a member of this account',
  'a stranger counts nothing for her'
);
select is_empty(
  $$ select * from billing.usage_totals $$,
  'and sees nothing of what she used'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.consume('searches') $$,
  '42501', 'permission denied for function consume',
  'a visitor may not call it'
);

select * from finish();
rollback;
