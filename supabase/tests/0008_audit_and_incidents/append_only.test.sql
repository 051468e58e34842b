-- What only takes new rows: the audit, the record of admin actions, the timeline of incidents.
begin;
\ir ../helpers.psql
select plan(30);

select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
insert into billing_private.incidents (id, rule_key, severity, title)
values (md5('incident')::uuid, 'test', 'low', 'a test');
insert into billing_private.incident_events (incident_id, kind, note)
values (md5('incident')::uuid, 'opened', 'by hand');
insert into billing_private.admin_actions (action, reason, actor_role)
values ('nod', 'politeness', 'postgres');
select isnt_empty('select * from billing_private.audit_log', 'there is something to change');

-- ---- the owner --------------------------------------------------------------

select throws_ok(
  $$ update billing_private.audit_log set actor_role = 'nobody' where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot change the audit'
);
select throws_ok(
  $$ update billing_private.audit_log set actor_role = 'nobody' where false $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot even try'
);
select throws_ok(
  $$ delete from billing_private.audit_log where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot delete from the audit'
);
select throws_ok(
  'truncate billing_private.audit_log',
  'PT403', 'this table only takes new rows',
  'the owner cannot empty the audit'
);
select throws_ok(
  $$
    insert into billing_private.audit_log
      (id, occurred_at, table_name, operation, row_key, actor_role, cause)
    overriding system value
    select id, occurred_at, table_name, operation, row_key, 'nobody', cause
    from billing_private.audit_log
    on conflict (id) do update set actor_role = excluded.actor_role
  $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot change the audit by inserting into it'
);
select throws_ok(
  $$
    merge into billing_private.audit_log
    using (values (1)) as nothing on true
    when matched then delete
  $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot delete from the audit by merging into it'
);

select throws_ok(
  $$ update billing_private.admin_actions set reason = 'none' where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot change what an administrator did'
);
select throws_ok(
  $$ delete from billing_private.admin_actions where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot delete what an administrator did'
);
select throws_ok(
  'truncate billing_private.admin_actions',
  'PT403', 'this table only takes new rows',
  'the owner cannot empty what administrators did'
);

select throws_ok(
  $$ update billing_private.incident_events set note = 'all well' where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot change the timeline of an incident'
);
select throws_ok(
  $$ delete from billing_private.incident_events where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'the owner cannot delete from the timeline of an incident'
);
select throws_ok(
  'truncate billing_private.incident_events',
  'PT403', 'this table only takes new rows',
  'the owner cannot empty the timeline of incidents'
);
select throws_ok(
  'truncate billing_private.incidents cascade',
  'PT403', 'this table only takes new rows',
  'the owner cannot empty it along with the incidents'
);
select throws_ok(
  $$ delete from billing_private.incidents where id = md5('incident')::uuid $$,
  '23503',
  'update or delete on table "incidents" violates foreign key constraint '
    '"incident_events_incident_id_fkey" on table "incident_events"',
  'an incident that has a timeline cannot be deleted'
);

-- ---- everybody else ---------------------------------------------------------

create temporary table attempts (statement text);
grant select on attempts to public;
insert into attempts
select format(pattern, table_name)
from (values ('audit_log'), ('admin_actions'), ('incident_events')) as tables (table_name)
cross join (values
  ('select * from billing_private.%I'), ('insert into billing_private.%I default values'),
  ('update billing_private.%I set id = 0 where false'),
  ('delete from billing_private.%I where false'), ('truncate billing_private.%I')
) as patterns (pattern);

create function pg_temp.outcome(p_statement text) returns text
language plpgsql as $$
begin
  execute p_statement;
  return 'ok';
exception when others then
  return sqlstate || ' ' || sqlerrm;
end;
$$;

select is(
  (select count(*) from attempts), 15::bigint,
  'there are five ways for each of three tables'
);

select tests.be_service();
select is(
  (select array_agg(distinct pg_temp.outcome(statement)) from attempts),
  array['42501 permission denied for schema billing_private'],
  'the service can neither read nor write any of them'
);
select tests.sign_in('ada');
select is(
  (select array_agg(distinct pg_temp.outcome(statement)) from attempts),
  array['42501 permission denied for schema billing_private'],
  'an administrator can neither'
);
select tests.sign_in('bob');
select is(
  (select array_agg(distinct pg_temp.outcome(statement)) from attempts),
  array['42501 permission denied for schema billing_private'],
  'a user can neither'
);
select tests.sign_out();
select is(
  (select array_agg(distinct pg_temp.outcome(statement)) from attempts),
  array['42501 permission denied for schema billing_private'],
  'a visitor can neither'
);

-- Even if somebody granted all of it: the tables defend themselves.
select tests.be_owner();
grant usage on schema billing_private to service_role, authenticated, anon;
grant all on billing_private.audit_log, billing_private.admin_actions,
  billing_private.incident_events to service_role, authenticated, anon;
grant execute on function billing_private.fail, billing_private.refuse_change
to service_role, authenticated, anon;

select tests.be_service();
select throws_ok(
  $$ update billing_private.audit_log set actor_role = 'nobody' where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'the service could not change the audit if it were granted to'
);
select throws_ok(
  $$ delete from billing_private.audit_log where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'nor delete from it'
);
select throws_ok(
  'truncate billing_private.audit_log',
  'PT403', 'this table only takes new rows',
  'nor empty it'
);
select throws_ok(
  $$ delete from billing_private.admin_actions where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'nor hide what an administrator did'
);
select tests.sign_in('bob');
select throws_ok(
  $$ update billing_private.audit_log set actor_role = 'nobody' where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'a user could not change the audit if it were granted to'
);
select is_empty(
  'select * from billing_private.audit_log',
  'a user could not read it either: no policy lets anybody in'
);
select throws_ok(
  $$
    insert into billing_private.audit_log
      (occurred_at, table_name, operation, row_key, actor_role, cause)
    values ('2026-01-10', 'billing.stores', 'insert', '1', 'somebody', '{}')
  $$,
  '42501', 'new row violates row-level security policy for table "audit_log"',
  'nor write into it'
);
select tests.sign_out();
select throws_ok(
  $$ delete from billing_private.audit_log where id > 0 $$,
  'PT403', 'this table only takes new rows',
  'nor could a visitor'
);

-- ---- it still takes new rows ------------------------------------------------

select tests.be_owner();
create temporary table before as select count(*) as audited from billing_private.audit_log;
insert into billing.stores (key, name) values ('cave', 'Cave');
select is(
  (select count(*) from billing_private.audit_log), (select audited + 1 from before),
  'new rows are taken after all of this'
);
select is_empty(
  $$ select * from billing_private.audit_log where actor_role = 'nobody' $$,
  'and none has changed'
);

select * from finish();
rollback;
