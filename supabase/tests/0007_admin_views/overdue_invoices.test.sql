-- billing_admin.overdue_invoices, and money that came when there was nothing to give for it.
begin;
\ir ../helpers.psql
\ir ../0003_business_functions/dunning.psql
select plan(10);

select tests.catalog();

create function pg_temp.issues() returns setof text
language sql as $$
  select subject from billing_admin.critical_issues where issue = 'paid_after_end' order by 1;
$$;

-- ---- what is unpaid ---------------------------------------------------------

select tests.owing('ann', 'stolen_card', '{"number": "A-1",
  "hosted_invoice_url": "https://stripe.example/in_ann"}');
select results_eq(
  $$
    select account_id, invoice_number, amount_remaining_minor, status, blocked_by, last_decline,
      hosted_invoice_url
    from billing_admin.overdue_invoices
  $$,
  $$
    values (md5('ann')::uuid, 'A-1', 1000::bigint, 'open', 'hard_decline', 'stolen_card',
      'https://stripe.example/in_ann')
  $$,
  'an admin sees what is owed, why nobody collects it, and where it can be paid'
);
select tests.hear(tests.bill('ann', 'invoice.paid', '2026-02-11', tests.paid('2026-02-11')));
select is_empty('select * from billing_admin.overdue_invoices', 'what is paid is off the list');

-- ---- paid after the end -----------------------------------------------------

create function pg_temp.ended(p_name text) returns void
language plpgsql as $$
begin
  perform tests.owing(p_name, 'insufficient_funds', jsonb_build_object('lines',
    jsonb_build_object('data', jsonb_build_array(jsonb_build_object(
      'id', 'il_' || p_name, 'amount', 1000, 'period', jsonb_build_object(
        'start', tests.seconds('2026-02-10'), 'end', tests.seconds('2026-03-10')))))));
  perform tests.deliver('evt_end_' || p_name, 'customer.subscription.deleted', '2026-02-15',
    tests.subscription(p_name, 'canceled', '2026-02-10', 'price_plus_monthly', jsonb_build_object(
      'ended_at', tests.seconds('2026-02-15'))));
end;
$$;

select pg_temp.ended('bob');
select is_empty('select * from pg_temp.issues()', 'a subscription that ended unpaid is no issue');
select tests.hear(tests.bill('bob', 'invoice.paid', '2026-02-20', tests.paid('2026-02-20')));
select results_eq(
  'select * from pg_temp.issues()', array['in_bob'],
  'G12: money that comes for a period after the end is told to an admin'
);
select is(
  billing.access_level('premium', md5('bob')::uuid), 'none',
  'G12: it does not bring the subscription back'
);
select results_eq(
  $$
    select details ->> 'amount_paid_minor', details ->> 'currency', details ->> 'subscription'
    from billing_admin.critical_issues
    where issue = 'paid_after_end'
  $$,
  $$ values ('1000', 'usd', 'sub_bob') $$,
  'G12: with how much it was, and for what'
);
select tests.hear(tests.event('evt_pi_bob', 'payment_intent.succeeded', '2026-02-20',
  jsonb_build_object('id', 'pi_bob', 'object', 'payment_intent', 'status', 'succeeded',
    'amount', 1000, 'amount_received', 1000, 'currency', 'usd', 'customer', 'cus_bob',
    'invoice', 'in_bob', 'created', tests.seconds('2026-02-20'))));
select tests.hear(tests.event('evt_re_bob', 'refund.created', '2026-02-21', jsonb_build_object(
  'id', 're_bob', 'object', 'refund', 'status', 'succeeded', 'amount', 999, 'currency', 'usd',
  'payment_intent', 'pi_bob', 'created', tests.seconds('2026-02-21'))));
select results_eq(
  'select * from pg_temp.issues()', array['in_bob'], 'a part given back leaves the rest'
);
select tests.hear(tests.event('evt_re_bob2', 'refund.created', '2026-02-22', jsonb_build_object(
  'id', 're_bob2', 'object', 'refund', 'status', 'succeeded', 'amount', 1, 'currency', 'usd',
  'payment_intent', 'pi_bob', 'created', tests.seconds('2026-02-22'))));
select is_empty('select * from pg_temp.issues()', 'given back in full it is settled');

select pg_temp.ended('eve');
select tests.hear(tests.bill('eve', 'invoice.marked_uncollectible', '2026-02-16',
  '{"status": "uncollectible"}'));
select tests.hear(tests.bill('eve', 'invoice.paid', '2026-02-20', tests.paid('2026-02-20')));
select results_eq(
  'select * from pg_temp.issues()', array['in_eve'],
  'G12: so is one that had been written off'
);
select tests.set_time('2026-05-22');
select is_empty('select * from pg_temp.issues()', 'after 90 days nobody is bothered any more');

select * from finish();
rollback;
