-- billing_admin.start_backfill(), sweeps, drifts and set_drift_policy(): what an administrator sees
-- and does about Stripe's lists.
begin;
\ir ../helpers.psql
select plan(17);

select tests.catalog();
select tests.set_time('2026-01-20 08:00');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
select tests.account('ann');
select tests.subscribe('ann');
select tests.sign_in('ada');

-- ---- back-fill --------------------------------------------------------------

select is_empty($$ select * from billing_admin.sweeps $$, 'nothing has been read yet');
select is(billing_admin.start_backfill('we move in') > 10, true, 'all lists are put in line');
select is(
  (select array_agg(distinct is_backfill) from billing_admin.sweeps), array[true],
  'as a back-fill, by which nothing is drift'
);
select results_eq(
  $$ select list_key, status from billing_admin.sweeps where status <> 'waiting' $$,
  $$ values ('events', 'running') $$,
  'one after the other'
);
select is(
  billing_admin.start_backfill('impatient'), (select count(*) from billing_admin.sweeps),
  'asked for again, it goes on'
);
select throws_ok(
  $$ select billing_admin.start_backfill('') $$,
  'PT400', 'the request is not valid',
  'it needs a reason'
);
select tests.be_owner();
select results_eq(
  $$ select action, reason from billing_private.admin_actions order by id $$,
  $$ values ('start_backfill', 'we move in'), ('start_backfill', 'impatient') $$,
  'the audit says who asked for it, and why'
);

-- ---- drift ------------------------------------------------------------------

insert into billing_private.drifts (object_type, object_id, class, differences, found_by)
values ('subscription', 'sub_ann', 'stale', '[{"table": "billing.subscriptions"}]', 'sweep');
select tests.sign_in('ada');
select results_eq(
  $$ select object_id, class, differences, repaired_at from billing_admin.drifts $$,
  $$ values ('sub_ann', 'stale', '[{"table": "billing.subscriptions"}]'::jsonb,
    null::timestamptz) $$,
  'H5: what was found to differ is shown'
);
select is(
  (select count(*) from billing_admin.critical_issues where issue = 'drift'), 1::bigint,
  'H5: while it is not repaired, it needs somebody'
);
select lives_ok(
  $$ select billing_admin.set_drift_policy('stale', false, 'we look first') $$,
  'a class may be left to people'
);
select tests.be_owner();
select is(
  (select array_agg(class) from billing_private.drift_policies where not repairs),
  array['stale'], 'that class alone'
);
select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.set_drift_policy('stail', true, 'a typo') $$,
  'PT400', 'the request is not valid',
  'a class that does not exist is refused'
);
select throws_ok(
  $$ select billing_admin.set_drift_policy('stale', null, 'undecided') $$,
  'PT400', 'the request is not valid',
  'so is no decision'
);

-- ---- a user -----------------------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing_admin.start_backfill('curious') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot start a back-fill'
);
select throws_ok(
  $$ select billing_admin.set_drift_policy('stale', true, 'curious') $$,
  'PT403', 'this needs a billing administrator',
  'nor set a policy'
);
select throws_ok(
  $$ select * from billing_admin.drifts $$,
  'PT403', 'this needs a billing administrator',
  'nor see drift'
);
select throws_ok(
  $$ select * from billing_admin.sweeps $$,
  'PT403', 'this needs a billing administrator',
  'nor see how far a back-fill is'
);

select * from finish();
rollback;
