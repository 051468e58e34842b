-- The task validate_entitlements: works through all accounts in batches and repairs what disagrees.
begin;
\ir ../helpers.psql
select plan(14);

select tests.take_tasks();
select tests.catalog();
select tests.set_time('2026-01-10');

-- 2,001 accounts, the first and the last of which have a gift.
insert into billing.accounts (id)
select lpad(to_hex(n), 32, '0')::uuid from generate_series(1, 2001) as n;
insert into billing.entitlement_grants (account_id, feature_key, valid_from, reason)
select lpad(to_hex(n), 32, '0')::uuid, 'premium', '2026-01-10', 'a gift'
from (values (1), (2001)) as gifted (n);

create function pg_temp.resumes_after() returns text
language sql as $$
  select resume_after from billing_private.tasks where key = 'validate_entitlements';
$$;

select is(
  (select count(*) from billing.accounts), 2001::bigint,
  'there is one account more than a batch holds'
);

-- ---- nothing to repair ------------------------------------------------------

select is(
  billing_private.task_validate_entitlements(), 0::bigint,
  'where nothing disagrees it changes nothing'
);
select is(
  pg_temp.resumes_after(), lpad(to_hex(2000), 32, '0')::uuid::text,
  'a run looks at 2,000 accounts and remembers how far it came'
);
select is(billing_private.task_validate_entitlements(), 0::bigint, 'the next run goes on');
select is(pg_temp.resumes_after(), null, 'at the end of the list it begins again');

-- ---- something to repair ----------------------------------------------------

delete from billing.entitlements where feature_key = 'premium';
select is(
  billing_private.task_validate_entitlements(), 1::bigint,
  'the first run repairs what is in its batch'
);
select ok(
  billing.has_entitlement('premium', lpad(to_hex(1), 32, '0')::uuid)
    and not billing.has_entitlement('premium', lpad(to_hex(2001), 32, '0')::uuid),
  'the first account has its gift back, the last still waits'
);
select is(
  billing_private.task_validate_entitlements(), 1::bigint,
  'the second run repairs what is in the next batch'
);
select ok(
  billing.has_entitlement('premium', lpad(to_hex(2001), 32, '0')::uuid),
  'nobody is left out'
);
select is(
  (select count(*) from billing_private.entitlement_corrections), 2::bigint,
  'every repair is logged'
);

-- ---- an empty rest ----------------------------------------------------------

update billing_private.tasks set resume_after = lpad(to_hex(2001), 32, '0')::uuid
where key = 'validate_entitlements';
select is(
  billing_private.task_validate_entitlements(), 0::bigint,
  'where no account is left there is nothing to do'
);
select is(pg_temp.resumes_after(), null, 'and the list begins again');

-- ---- run by the heartbeat ---------------------------------------------------

delete from billing.entitlements where feature_key = 'premium';
select is(billing_private.run_task('validate_entitlements'), 'succeeded', 'the heartbeat runs it');
select is(
  (
    select cause ->> 'reference'
    from billing_private.entitlement_corrections
    order by id desc
    limit 1
  ),
  'validate_entitlements',
  'the log says that the task did it'
);

select * from finish();
rollback;
