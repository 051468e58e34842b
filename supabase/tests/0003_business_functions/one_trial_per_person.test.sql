-- One trial per person: by account, address and card; offered once, and had once.
begin;
\ir ../helpers.psql
select plan(37);

select tests.catalog();
select tests.set_time('2026-01-15 08:00');
select tests.account('ann');
select tests.account('bob');
update billing.prices set trial_days = 14 where key = 'plus_monthly';

-- A checkout by whoever is signed in; the trial it begins with.
create function tests.offered(p_price text default 'plus_monthly') returns integer
language sql as $$
  select trial_days from billing.prepare_checkout(
    p_price, 'https://app.example/ok', 'https://app.example/no');
$$;

create function tests.sign_in_as(p_name text, p_email text) returns void
language sql as $$
  select tests.sign_in(p_name, jsonb_build_object('email', p_email));
$$;

-- The trial of this customer, begun on a day of January.
create function tests.try(p_name text, p_day integer default 10, p_status text default 'trialing')
returns text
language sql as $$
  select tests.deliver('evt_try_' || p_name || p_day || p_status, 'customer.subscription.updated',
    timestamptz '2026-01-15', tests.subscription(p_name, p_status,
      make_timestamptz(2026, 1, p_day, 0, 0, 0), p_extra => jsonb_build_object(
        'trial_start', extract(epoch from make_timestamptz(2026, 1, p_day, 0, 0, 0))::bigint,
        'trial_end', extract(epoch from make_timestamptz(2026, 1, 24, 0, 0, 0))::bigint)));
$$;

create function tests.card(p_name text, p_fingerprint text) returns text
language sql as $$
  select tests.deliver('evt_pm_' || p_name || p_fingerprint, 'payment_method.attached', '2026-01-15',
    jsonb_build_object('id', 'pm_' || p_name || p_fingerprint, 'object', 'payment_method',
      'type', 'card', 'customer', 'cus_' || p_name, 'card',
      jsonb_build_object('fingerprint', p_fingerprint)));
$$;

create view tests.ended as
select path, params from billing_private.commands where kind = 'end_trial';

grant execute on all functions in schema tests to authenticated, service_role;
savepoint s;

-- ---- an address is a person -------------------------------------------------

select results_eq(
  $$
    select address, billing_private.normal_email(address)
    from unnest(array['Ann.Reader+shop@GMail.com', ' annreader@googlemail.com ', 'a.b+c@example.com',
      'A.B@Example.com', '+x@example.com', 'nobody', 'a@b@c', '', null]) as address
  $$,
  $$
    values ('Ann.Reader+shop@GMail.com', 'annreader@gmail.com'),
      (' annreader@googlemail.com ', 'annreader@gmail.com'), ('a.b+c@example.com', 'a.b@example.com'),
      ('A.B@Example.com', 'a.b@example.com'), ('+x@example.com', null), ('nobody', null),
      ('a@b@c', null), ('', null), (null, null)
  $$,
  'one mailbox is one address, however it is written'
);

-- ---- offering it ------------------------------------------------------------

select tests.sign_in('ann');
select is(tests.offered(), 14, 'who has never tried may');
select is(tests.offered(), 14, 'a second click is the same offer');
select tests.be_owner();
select is(
  (select array_agg(params #> '{subscription_data,trial_period_days}') from billing_private.commands),
  array['14'::jsonb], 'Stripe is told'
);
select is_empty(
  $$
    select * from billing_private.trial_claims
    where identity_hash ~ '@' or identity_hash ~ 'ann' or length(identity_hash) <> 64
  $$,
  'no address is kept, only what tells it again'
);
savepoint offered;

select tests.sign_in_as('bob', 'Ann+again@example.com');
select is(tests.offered(), 0, 'G4: the same person under another account is not offered a second');
select is(
  (select notes from billing.check_eligibility('plus_monthly')), '{TRIAL_USED,CHECKOUT_OPEN}',
  'and can see it'
);
select tests.be_owner();
select is(
  (select params #> '{subscription_data,trial_period_days}' from billing_private.commands
    where account_id = md5('bob')::uuid),
  null, 'Stripe gives none then'
);
rollback to offered;

select tests.sign_in('bob');
select is(tests.offered(), 14, 'somebody else is');
select tests.be_owner();
rollback to offered;

update billing.checkout_sessions set status = 'expired';
select tests.sign_in_as('bob', 'ann@example.com');
select is(tests.offered(), 14, 'an offer that was not taken is free again');
select tests.sign_in('ann');
select is(tests.offered(), 0, 'for one');
select tests.be_owner();
rollback to offered;

update billing.checkout_sessions set status = 'open', expires_at = '2026-01-15 08:00:01';
select tests.sign_in_as('bob', 'ann@example.com');
select is((select trial_days from billing.check_eligibility('plus_monthly')), 0,
  'it is held for as long as the page can be paid');
select tests.be_owner();
update billing.checkout_sessions set expires_at = '2026-01-15 08:00:00';
select tests.sign_in_as('bob', 'ann@example.com');
select is((select trial_days from billing.check_eligibility('plus_monthly')), 14,
  'and not a second longer');
select tests.be_owner();
update billing.checkout_sessions
set status = 'complete', completed_at = '2026-01-15 07:00:01', expires_at = null;
select tests.sign_in_as('bob', 'ann@example.com');
select is((select trial_days from billing.check_eligibility('plus_monthly')), 0,
  'while Stripe is about to tell of the trial it is taken');
select tests.be_owner();
rollback to s;

select tests.be_service();
select is(
  (select trial_days from billing.prepare_checkout('plus_monthly', 'https://a.example',
    'https://a.example', 1, md5('ann')::uuid)),
  14, 'the service offers it for whom it acts'
);
select tests.be_owner();
select is(
  (select array_agg(kind order by kind) from billing_private.trial_claims), '{account}',
  'and not by its own address'
);
rollback to s;

-- ---- having it --------------------------------------------------------------

select tests.try('ann');
select tests.try('ann', 10, 'canceled');
select tests.sign_in('ann');
select is(tests.offered(), 0, 'G4: who has tried does not try again');
select tests.be_owner();
rollback to s;

select tests.deliver('evt_mail', 'customer.updated', '2026-01-09',
  '{"id": "cus_ann", "object": "customer", "email": "ann@example.com"}');
select tests.card('ann', 'visa1');
select tests.try('ann');
select results_eq(
  $$ select kind, account_id, started_at from billing_private.trial_claims order by kind $$,
  $$
    values ('account', md5('ann')::uuid, '2026-01-10 00:00+00'::timestamptz),
      ('card', md5('ann')::uuid, '2026-01-10 00:00+00'), ('email', md5('ann')::uuid, '2026-01-10 00:00+00')
  $$,
  'a trial is remembered by account, address and card'
);
savepoint tried;
select tests.sign_in_as('carol', 'ann+2@example.com');
select is(tests.offered(), 0, 'G4: by the address');
select tests.sign_in('bob');
select is(tests.offered(), 14, 'somebody else may');
select tests.be_owner();
rollback to tried;
select tests.card('bob', 'visa1');
select tests.sign_in('bob');
select is(tests.offered(), 0, 'G4: by the card');
select tests.be_owner();
rollback to s;

-- The order in which things become known does not matter.
select tests.try('ann');
select tests.card('ann', 'visa1');
select tests.deliver('evt_mail', 'customer.updated', '2026-01-16',
  '{"id": "cus_ann", "object": "customer", "email": "ann@example.com"}');
select is(
  (select array_agg(kind order by kind) from billing_private.trial_claims
    where started_at = '2026-01-10'),
  '{account,card,email}', 'also when card and address come after the trial'
);
rollback to s;

select tests.try('bob', 12);
select tests.card('bob', 'visa1');
select tests.try('ann', 10);
select tests.card('ann', 'visa1');
select is(
  (select account_id from billing_private.trial_claims where kind = 'card'), md5('ann')::uuid,
  'the first trial has the claim, whichever is heard of first'
);
rollback to s;
select tests.try('ann', 10);
select tests.card('ann', 'visa1');
select tests.try('bob', 12);
select tests.card('bob', 'visa1');
select is(
  (select account_id from billing_private.trial_claims where kind = 'card'), md5('ann')::uuid,
  'in the other order too'
);
savepoint repeated;

-- ---- a second one that was begun all the same -------------------------------

select results_eq(
  $$ select account_id, kind, first_account_id from billing_private.repeated_trials() $$,
  $$ values (md5('bob')::uuid, 'card', md5('ann')::uuid) $$,
  'G4: a trial begun with a card that has had one is seen'
);
select results_eq(
  $$ select severity, account_id, details ->> 'same' from billing_admin.critical_issues
    where issue = 'repeated_trial' $$,
  $$ values ('warning', md5('bob')::uuid, 'card') $$,
  'and shown to admins'
);
select is_empty($$ select * from tests.ended $$, 'as installed nothing else happens');
select tests.try('bob', 12, 'active');
select is_empty($$ select * from billing_private.repeated_trials() $$, 'until it is over');
rollback to repeated;

update billing_private.settings set repeated_trial = 'end_trial' where only_row;
select tests.deliver('evt_again', 'customer.updated', '2026-01-16',
  '{"id": "cus_bob", "object": "customer", "name": "Bob"}');
select results_eq(
  $$ select * from tests.ended $$,
  $$ values ('/v1/subscriptions/sub_bob',
    '{"trial_end": "now", "proration_behavior": "none"}'::jsonb) $$,
  'by the other policy Stripe is asked to collect at once'
);
select tests.card('bob', 'visa2');
select tests.try('bob', 12);
select is((select count(*) from tests.ended), 1::bigint, 'once');
select is_empty(
  $$ select * from billing_private.commands
    where kind = 'end_trial' and account_id = md5('ann')::uuid $$,
  'the first trial goes on'
);
create temporary table calling as select * from billing.claim_commands();
select billing.complete_command(id, lease, 200,
  tests.subscription('bob', 'active', '2026-01-12', p_extra =>
    '{"trial_start": 1768176000, "trial_end": 1768464000}'))
from calling;
select is(
  (select status from billing.subscriptions where stripe_subscription_id = 'sub_bob'), 'active',
  'and the answer is applied'
);
rollback to s;

-- ---- whose customer it is turns out later -----------------------------------

select tests.deliver('evt_dora', 'customer.subscription.created', '2026-01-15',
  tests.subscription('dora', 'trialing', '2026-01-11', p_extra =>
    '{"trial_start": 1768089600, "trial_end": 1769299200}'));
select is_empty($$ select * from billing_private.trial_claims $$, 'a trial of nobody is nobody''s');
select billing_private.ensure_account(md5('dora')::uuid);
select billing_private.bind_customer('cus_dora', md5('dora')::uuid);
select results_eq(
  $$ select kind, account_id, started_at from billing_private.trial_claims $$,
  $$ values ('account', md5('dora')::uuid, '2026-01-11 00:00+00'::timestamptz) $$,
  'until they are known'
);
rollback to s;

-- ---- what the tables hold ---------------------------------------------------

select throws_ok(
  $$ update billing_private.settings set repeated_trial = 'forgive' where only_row $$,
  '23514',
  'new row for relation "settings" violates check constraint "settings_repeated_trial_is_known"',
  'there are two policies'
);
select tests.sign_in('ann');
select throws_ok(
  $$ select * from billing_private.trial_claims $$,
  '42501', 'permission denied for schema billing_private',
  'nobody sees who has tried'
);
select tests.be_owner();
select is(
  (select count(*) from billing_private.trial_claims), 0::bigint,
  'and nothing is claimed where nothing was offered'
);

select * from finish();
rollback;
