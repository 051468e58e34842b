-- billing_private.set_cause() and cause(): why the writes of a transaction are made.
begin;
\ir ../helpers.psql
select plan(9);

select is(billing_private.cause(), '{}'::jsonb, 'writes nobody explained have no cause');

select billing_private.set_cause('stripe_event', 'evt_1', 'invoice.paid');
select is(
  billing_private.cause(),
  '{"kind": "stripe_event", "reference": "evt_1", "reason": "invoice.paid"}'::jsonb,
  'a cause says what kind it is, which one, and why'
);

select billing_private.set_cause('task', 'clean_up');
select is(
  billing_private.cause(),
  '{"kind": "task", "reference": "clean_up", "reason": null}'::jsonb,
  'a cause need not say why; the last one named holds, whole'
);

select billing_private.set_cause('admin', 'eve', 'she said: "50 % off"');
select is(
  billing_private.cause() ->> 'reason', 'she said: "50 % off"',
  'a reason may be any text'
);

savepoint undone;
select billing_private.set_cause('user', 'ann');
rollback to savepoint undone;
select is(
  billing_private.cause() ->> 'kind', 'admin',
  'a cause is forgotten with the work that is rolled back'
);

-- What is left of a transaction-local setting when its transaction is over.
select set_config('billing.cause', '', true);
select is(billing_private.cause(), '{}'::jsonb, 'the cause of a transaction before is none');

-- ---- where it goes ----------------------------------------------------------

select tests.catalog();
select tests.account('ann');
select billing_private.set_cause('task', 'renew', 'a period ended');
update billing.customers set name = 'Ann' where stripe_customer_id = 'cus_ann';

select is(
  (select cause from billing_private.audit_log where table_name = 'billing.customers'
   order by id desc limit 1),
  '{"kind": "task", "reference": "renew", "reason": "a period ended"}'::jsonb,
  'the audit of a write names its cause'
);

-- ---- users ------------------------------------------------------------------

select tests.sign_in('ann');

select throws_ok(
  $$ select billing_private.set_cause('admin', 'eve') $$,
  '42501', 'permission denied for schema billing_private',
  'a user cannot name causes'
);

-- They could only over SQL, which the Data API does not offer; who acted is never taken from it.
select set_config('billing.cause', '{"kind": "admin", "reference": "eve"}', true);
select tests.be_service();
select billing.prepare_portal('https://app.example/', md5('ann')::uuid);
select tests.be_owner();
select is(
  (select cause from billing_private.commands order by position desc limit 1),
  '{"kind": "user", "reference": null, "reason": "portal"}'::jsonb,
  'an RPC names its own cause, whatever was there before'
);

select * from finish();
rollback;
