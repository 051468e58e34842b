-- billing_admin.problem_accounts: accounts that owe, stall or pay twice.
begin;
\ir ../helpers.psql
select plan(18);

select tests.catalog();
select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');

create function pg_temp.problems(p_name text default null) returns text[]
language sql as $$
  select coalesce(array_agg(
    format('%s %s %s', problem, coalesce(amount_minor::text, '-'), since::date)
    order by problem), '{}')
  from billing_admin.problem_accounts
  where p_name is null or account_id = md5(p_name)::uuid;
$$;

create function pg_temp.invoice(
  p_name text,
  p_status text,
  p_at timestamptz,
  p_extra jsonb default '{}'
) returns text
language sql as $$
  select tests.deliver(
    format('evt_in_%s_%s', p_name, p_at), 'invoice.updated', p_at, jsonb_build_object(
      'id', 'in_' || p_name, 'object', 'invoice', 'status', p_status, 'customer', 'cus_' || p_name,
      'currency', 'usd', 'total', 1000, 'amount_due', 1000, 'amount_remaining', 1000,
      'attempt_count', 1, 'created', extract(epoch from p_at)::bigint,
      'next_payment_attempt', extract(epoch from p_at + interval '3 days')::bigint,
      'parent', jsonb_build_object('subscription_details', jsonb_build_object(
        'subscription', 'sub_' || p_name))) || p_extra);
$$;

-- ---- no problem -------------------------------------------------------------

select tests.account('ann');
select tests.subscribe('ann');
select pg_temp.invoice('ann', 'paid', '2026-01-10');
select tests.account('trying');
select tests.subscribe('trying', 'trialing');
select tests.account('ended');
select tests.subscribe('ended', 'canceled', '2026-01-10', 'price_plus_monthly',
  '{"ended_at": 1768003200}');
select is(pg_temp.problems(), '{}', 'whoever pays, tries or has left is no problem');

-- ---- who owes ---------------------------------------------------------------

select tests.account('owing');
select tests.subscribe('owing', 'past_due');
select is(
  pg_temp.problems('owing'), array['past_due - 2026-01-10'],
  'a failed payment is a problem, also before its invoice is known'
);
select pg_temp.invoice('owing', 'open', '2026-01-10');
select is(
  pg_temp.problems('owing'), array['past_due 1000 2026-01-10'],
  'its invoice says how much is owed'
);
select is(
  (
    select array_agg(currency || ' ' || (subscription_id is not null))
    from billing_admin.problem_accounts
  ),
  array['usd true'],
  'in which currency, and for which subscription'
);
select pg_temp.invoice('owing', 'open', '2026-01-13', '{"next_payment_attempt": null}');
select is(
  pg_temp.problems('owing'), array['nobody_retries 1000 2026-01-13', 'past_due 1000 2026-01-10'],
  'an open invoice that nobody tries to collect any more is a problem of its own'
);
select pg_temp.invoice(
  'owing', 'paid', '2026-01-14', '{"amount_remaining": 0, "next_payment_attempt": null}');
select is(
  pg_temp.problems('owing'), array['past_due - 2026-01-10'],
  'a paid invoice is owed no more'
);

select tests.account('new');
select tests.subscribe('new', 'active');
select pg_temp.invoice(
  'new', 'open', '2026-01-10', '{"attempt_count": 0, "next_payment_attempt": null}');
select is(pg_temp.problems('new'), '{}', 'an invoice that was never tried is no problem yet');

-- ---- who stalls -------------------------------------------------------------

select tests.account('unpaid');
select tests.subscribe('unpaid', 'unpaid');
select tests.account('incomplete');
select tests.subscribe('incomplete', 'incomplete');
select tests.account('paused');
select tests.subscribe('paused', 'paused');
select is(
  pg_temp.problems('unpaid'), array['unpaid - 2026-01-10'],
  'an unpaid subscription is a problem'
);
select is(
  pg_temp.problems('incomplete'), array['incomplete - 2026-01-10'],
  'a subscription whose first payment is missing is a problem'
);
select is(
  pg_temp.problems('paused'), array['paused - 2026-01-10'],
  'a paused subscription is a problem'
);

-- ---- who pays twice ---------------------------------------------------------

create function pg_temp.second(p_name text, p_status text, p_price text, p_at timestamptz)
returns text
language sql as $$
  select tests.deliver(
    format('evt_second_%s_%s', p_name, p_at), 'customer.subscription.updated', p_at,
    tests.subscription(p_name || '_second', p_status, '2026-01-10', p_price,
      jsonb_build_object('customer', 'cus_' || p_name)));
$$;

insert into billing.plans (id, key, name, kind)
values (md5('stage')::uuid, 'stage', 'Stage', 'add_on');
insert into billing.prices
  (plan_id, currency, unit_amount_minor, billing_interval, stripe_price_id)
values (md5('stage')::uuid, 'usd', 200, 'month', 'price_stage');

select pg_temp.second('ann', 'active', 'price_stage', '2026-01-11');
select is(pg_temp.problems('ann'), '{}', 'an add-on beside a base plan is no problem');
select pg_temp.second('ann', 'active', 'price_basic_monthly', '2026-01-12');
select is(
  pg_temp.problems('ann'), array['several_subscriptions - 2026-01-10'],
  'G22: two base plans at once are a problem: somebody pays twice'
);
select pg_temp.second('ann', 'canceled', 'price_basic_monthly', '2026-01-13');
select is(pg_temp.problems('ann'), '{}', 'when one of them has ended it is none');

-- ---- nobody's ---------------------------------------------------------------

select tests.subscribe('unclaimed', 'past_due');
select is(
  (select array_agg(problem) from billing_admin.problem_accounts where account_id is null),
  array['past_due'],
  'A5: a failed payment of a customer nobody has claimed is listed too'
);

-- ---- others -----------------------------------------------------------------

select tests.sign_in('ada');
select isnt_empty('select * from billing_admin.problem_accounts', 'an administrator may look');
select tests.sign_in('owing');
select throws_ok(
  'select * from billing_admin.problem_accounts',
  'PT403', 'this needs a billing administrator',
  'a user is refused'
);
select tests.sign_out();
select throws_ok(
  'select * from billing_admin.problem_accounts',
  '42501', 'permission denied for schema billing_admin',
  'a visitor is refused'
);
select tests.be_service();
select isnt_empty('select * from billing_admin.problem_accounts', 'the service may look');

select * from finish();
rollback;
