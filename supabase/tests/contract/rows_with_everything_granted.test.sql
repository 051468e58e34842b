-- Row level security holds alone: after every role was granted everything on every table, as some
-- local tools do on start, still nobody sees or writes another's rows.
-- service_role bypasses row level security, and truncate is not subject to it; the Data API, which
-- is all that users reach, has no truncate.
begin;
\ir two_accounts.psql
select plan(13);

grant usage on schema billing, billing_admin, billing_private
to anon, authenticated, service_role;
grant all on all tables in schema billing, billing_admin, billing_private
to anon, authenticated, service_role;
grant all on all sequences in schema billing, billing_admin, billing_private
to anon, authenticated, service_role;

-- ---- the grants -------------------------------------------------------------

select is_empty(
  $$
    select name, actor, tests.outcome_as(actor, format('select from %s', name))
    from tests.relations('{billing,billing_private}')
    cross join unnest(array['ann', 'visitor']) as actor
    where tests.outcome_as(actor, format('select from %s', name)) !~ ' rows$'
  $$,
  'there is no table or view left that users and visitors are refused'
);

-- ---- reading ----------------------------------------------------------------

select is_empty(
  $$ select * from tests.wrongly_seen('ann', md5('ann')::uuid) $$,
  'ann sees all that is hers, and nothing of anybody else'
);

select is_empty(
  $$ select * from tests.wrongly_seen('bob', md5('bob')::uuid) $$,
  'bob sees all that is his, and nothing of anybody else'
);

select is_empty(
  $$ select * from tests.wrongly_seen('carl', md5('carl')::uuid) $$,
  'whoever is signed in and has no account sees nothing of any'
);

select is_empty(
  $$ select * from tests.wrongly_seen('visitor', null) $$,
  'a visitor sees nothing of any account'
);

select is_empty(
  $$
    select actor, relation, contents
    from unnest(array['ann', 'eve', 'carl', 'visitor']) as actor
    cross join lateral tests.seen_by(actor, '{billing_private}')
  $$,
  'the machine''s tables are empty for members, administrators, strangers and visitors'
);

select is_empty(
  $$
    select contents ->> 'key'
    from tests.seen_by('ann')
    where relation in ('billing.stores', 'billing.plans', 'billing.prices')
      and contents ->> 'key' in ('closed', 'secret', 'secret_monthly', 'plus_friend', 'no_plan')
  $$,
  'what is not listed stays hidden'
);

-- ---- writing ----------------------------------------------------------------

select is_empty(
  $$
    select *
    from tests.writing_as('ann', '{billing,billing_private}')
    where outcome <> '42501'
      and (outcome, operation) not in (('0 rows', 'update'), ('0 rows', 'delete'))
  $$,
  'a member can insert no row, and finds none to update or delete'
);

select is_empty(
  $$
    select *
    from tests.writing_as('visitor', '{billing,billing_private}')
    where outcome <> '42501'
      and (outcome, operation) not in (('0 rows', 'update'), ('0 rows', 'delete'))
  $$,
  'a visitor can insert no row, and finds none to update or delete'
);

select is_empty(
  $$
    select statement
    from unnest(array[
      'update billing_private.audit_log set cause = cause',
      'delete from billing_private.audit_log',
      'truncate billing_private.audit_log',
      'update billing_private.incident_events set note = note',
      'delete from billing_private.incident_events',
      'truncate billing_private.incident_events'
    ]) as statement
    where tests.outcome_as('service', statement) not in ('42501', 'PT403')
  $$,
  'what is append-only stays so for a role that bypasses row level security'
);

select is_empty(
  $$
    select name, operation
    from tests.relations('{billing,billing_admin}')
    cross join unnest(array['insert', 'update', 'delete']) as operation
    where kind = 'v'
      and pg_relation_is_updatable(name::regclass, true) <> 0
  $$,
  'no view leads to a row that could be written through it'
);

select is_empty(
  $$
    (table tests.all_rows
     except all
     select relation, contents, tests.owner_of(relation, contents)
     from tests.seen_by('owner', '{billing,billing_private}'))
  $$,
  'after all these tries not one row is gone or different'
);

-- ---- the administrators' views ----------------------------------------------

select is_empty(
  $$
    select name
    from tests.relations('{billing_admin}')
    where tests.outcome_as('visitor', format('select * from %s', name)) not in ('42501', 'PT403')
  $$,
  'a visitor is refused every view of billing_admin'
);

select * from finish();
rollback;
