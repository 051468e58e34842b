-- What refunds and disputes leave of access: each is a recorded row that is lifted when its cause
-- is gone, in whatever order its events come.
begin;
\ir ../helpers.psql
\ir convergence.psql
select plan(43);

select tests.catalog();
select tests.set_time('2026-01-10');

create function pg_temp.at(p_at timestamptz) returns bigint
language sql as $$
  select extract(epoch from p_at)::bigint;
$$;

create function pg_temp.level(p_name text, p_at timestamptz) returns text
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  return billing.access_level('premium', md5(p_name)::uuid);
end;
$$;

-- The bill of a month that begins at p_start, and the payment of 1000 that paid it.
create function pg_temp.invoice(p_name text, p_start timestamptz) returns text
language sql as $$
  select tests.event('evt_in_' || p_name || pg_temp.at(p_start), 'invoice.paid', p_start,
    jsonb_build_object(
      'id', 'in_' || p_name || pg_temp.at(p_start), 'object', 'invoice', 'status', 'paid',
      'customer', 'cus_' || p_name, 'currency', 'usd', 'total', 1000, 'amount_paid', 1000,
      'parent', jsonb_build_object('subscription_details', jsonb_build_object(
        'subscription', 'sub_' || p_name)),
      'lines', jsonb_build_object('data', jsonb_build_array(jsonb_build_object(
        'id', 'il_' || p_name || pg_temp.at(p_start), 'amount', 1000, 'currency', 'usd',
        'period', jsonb_build_object(
          'start', pg_temp.at(p_start), 'end', pg_temp.at(p_start + interval '1 month')))))));
$$;

create function pg_temp.payment(p_name text, p_start timestamptz) returns text
language sql as $$
  select tests.event('evt_pi_' || p_name || pg_temp.at(p_start), 'payment_intent.succeeded',
    p_start, jsonb_build_object(
      'id', 'pi_' || p_name || pg_temp.at(p_start), 'object', 'payment_intent',
      'status', 'succeeded', 'customer', 'cus_' || p_name, 'currency', 'usd', 'amount', 1000,
      'amount_received', 1000, 'created', pg_temp.at(p_start)));
$$;

create function pg_temp.link(p_name text, p_start timestamptz) returns text
language sql as $$
  select tests.event('evt_inpay_' || p_name || pg_temp.at(p_start), 'invoice_payment.paid',
    p_start, jsonb_build_object(
      'id', 'inpay_' || p_name || pg_temp.at(p_start), 'object', 'invoice_payment',
      'status', 'paid', 'currency', 'usd', 'amount_requested', 1000,
      'invoice', 'in_' || p_name || pg_temp.at(p_start),
      'payment', jsonb_build_object('payment_intent', 'pi_' || p_name || pg_temp.at(p_start))));
$$;

create function pg_temp.refund(
  p_name text, p_start timestamptz, p_at timestamptz, p_amount bigint, p_status text,
  p_created timestamptz default null
) returns text
language sql as $$
  select tests.event(format('evt_re_%s_%s_%s_%s', p_name, p_amount, p_status, pg_temp.at(p_at)),
    'refund.updated', p_at, jsonb_build_object(
      'id', format('re_%s_%s', p_name, p_amount), 'object', 'refund', 'status', p_status,
      'amount', p_amount, 'currency', 'usd', 'created', pg_temp.at(coalesce(p_created, p_at)),
      'payment_intent', 'pi_' || p_name || pg_temp.at(p_start)));
$$;

create function pg_temp.dispute(
  p_name text, p_start timestamptz, p_at timestamptz, p_status text, p_created timestamptz
) returns text
language sql as $$
  select tests.event(format('evt_dp_%s_%s', p_name, p_status),
    case when p_status in ('won', 'lost') then 'charge.dispute.closed'
      else 'charge.dispute.updated' end,
    p_at, jsonb_build_object(
      'id', 'dp_' || p_name, 'object', 'dispute', 'status', p_status, 'amount', 1000,
      'currency', 'usd', 'created', pg_temp.at(p_created), 'charge', 'ch_' || p_name,
      'payment_intent', 'pi_' || p_name || pg_temp.at(p_start)));
$$;

-- Delivers at the clock the event has.
create function pg_temp.deliver(p_events text[]) returns void
language plpgsql as $$
declare
  v_event text;
begin
  foreach v_event in array p_events loop
    perform tests.set_time(to_timestamp((v_event::jsonb ->> 'created')::bigint));
    perform billing_private.ingest_stripe_event(v_event);
  end loop;
end;
$$;

-- Subscribed to Plus since 10 January, and paid for the first month.
create function pg_temp.given(p_name text) returns void
language plpgsql as $$
begin
  perform tests.set_time('2026-01-10');
  perform tests.account(p_name);
  perform tests.subscribe(p_name);
  perform pg_temp.deliver(array[
    pg_temp.invoice(p_name, '2026-01-10'), pg_temp.payment(p_name, '2026-01-10'),
    pg_temp.link(p_name, '2026-01-10')]);
end;
$$;

create function pg_temp.renewed(p_name text) returns void
language plpgsql as $$
begin
  perform pg_temp.deliver(array[
    pg_temp.invoice(p_name, '2026-02-10'), pg_temp.payment(p_name, '2026-02-10'),
    pg_temp.link(p_name, '2026-02-10')]);
  perform tests.deliver('evt_renewed_' || p_name, 'customer.subscription.updated', '2026-02-10',
    tests.subscription(p_name, 'active', '2026-02-10'));
end;
$$;

create function pg_temp.restrictions(p_name text) returns setof text
language sql as $$
  select format('%s %s%s', cause, access_level, case when lifted_at is not null then ', lifted' end)
  from billing.access_restrictions
  where account_id = md5(p_name)::uuid
  order by cause;
$$;

-- ---- refunds ----------------------------------------------------------------

select pg_temp.given('full');
select pg_temp.deliver(array[
  pg_temp.refund('full', '2026-01-10', '2026-01-15 12:00', 1000, 'succeeded')]);

select is(
  pg_temp.level('full', '2026-01-15 12:00'), 'none',
  'G9, G10: a refund in full ends access to the period it was for'
);
select results_eq(
  $$ select * from pg_temp.restrictions('full') $$, array['full_refund none'],
  'by a row that says why'
);
select results_eq(
  $$
    select begins_at, periods_before
    from billing.access_restrictions
    where account_id = md5('full')::uuid
  $$,
  $$ values ('2026-01-15 12:00'::timestamptz, '2026-02-10'::timestamptz) $$,
  'and from when until which period'
);
select results_eq(
  $$
    select gives_access, reason
    from billing.explain_entitlement('premium', md5('full')::uuid)
  $$,
  $$ values (false, 'full_refund') $$,
  'and which the explanation names'
);
select ok(
  billing.has_entitlement_at('premium', '2026-01-15 11:59:59', md5('full')::uuid),
  'what was before stays as it was'
);
select is(
  pg_temp.level('full', '2026-02-10 01:00'), 'none',
  'the grace of a renewal brings nothing back'
);

select pg_temp.renewed('full');
select is(
  pg_temp.level('full', '2026-02-10 01:00'), 'full',
  'the next period is paid for anew'
);

select pg_temp.deliver(array[
  pg_temp.refund('full', '2026-01-10', '2026-02-15', 999, 'succeeded')]);
select is(
  pg_temp.level('full', '2026-02-15'), 'full',
  'and refunds of a period that is over do not touch it'
);

select pg_temp.given('part');
select pg_temp.deliver(array[
  pg_temp.refund('part', '2026-01-10', '2026-01-15', 400, 'succeeded')]);
select is(
  pg_temp.level('part', '2026-01-16'), 'full',
  'G9: a refund in part takes nothing, as shipped'
);
select results_eq(
  $$ select * from pg_temp.restrictions('part') $$, array['partial_refund full'],
  'and is recorded all the same'
);
select pg_temp.deliver(array[
  pg_temp.refund('part', '2026-01-10', '2026-01-17', 599, 'succeeded')]);
select is(
  pg_temp.level('part', '2026-01-17'), 'full',
  'G9: two refunds that leave a unit paid are still a part'
);
select pg_temp.deliver(array[
  pg_temp.refund('part', '2026-01-10', '2026-01-18', 1, 'succeeded')]);
select is(
  pg_temp.level('part', '2026-01-18'), 'none',
  'G9: together in full they end access'
);
select results_eq(
  $$ select * from pg_temp.restrictions('part') $$,
  array['full_refund none', 'partial_refund full, lifted'],
  'by another row, which takes the place of the first'
);

select pg_temp.deliver(array[
  pg_temp.refund('part', '2026-01-10', '2026-01-20', 1, 'failed', '2026-01-18')]);
select is(
  pg_temp.level('part', '2026-01-20'), 'full',
  'a refund that fails after all gives access back'
);
select results_eq(
  $$ select * from pg_temp.restrictions('part') $$,
  array['full_refund none, lifted', 'partial_refund full'],
  'by lifting what it had led to: nothing is removed'
);

select pg_temp.given('waiting');
select pg_temp.deliver(array[
  pg_temp.refund('waiting', '2026-01-10', '2026-01-15', 1000, 'requires_action')]);
select is(
  pg_temp.level('waiting', '2026-01-16'), 'full',
  'a refund nobody has confirmed changes nothing'
);
select pg_temp.deliver(array[
  pg_temp.refund('waiting', '2026-01-10', '2026-01-17', 1000, 'pending')]);
select is(
  pg_temp.level('waiting', '2026-01-17'), 'none',
  'one that is on its way counts'
);

insert into billing.access_policies (key, description, full_refund, partial_refund)
values ('kind', 'leaves reading', 'read_only', 'read_only');
update billing.plans set access_policy_key = 'kind' where key = 'plus';
select pg_temp.given('kind');
select pg_temp.deliver(array[
  pg_temp.refund('kind', '2026-01-10', '2026-01-15', 1, 'succeeded')]);
select is(
  pg_temp.level('kind', '2026-01-15'), 'read_only',
  'a policy of the plan may leave reading'
);
select ok(
  billing.has_entitlement_at('premium', '2026-01-14 23:59:59', md5('kind')::uuid),
  'from the refund on'
);
update billing.access_policies set partial_refund = 'none' where key = 'kind';
select is(
  pg_temp.level('kind', '2026-01-16'), 'read_only',
  'a policy that is changed later does not rewrite what was decided'
);
select is(
  pg_temp.level('kind', '2026-02-10 03:00'), 'none',
  'reading ends with the period as well'
);
update billing.plans set access_policy_key = 'standard' where key = 'plus';

-- ---- disputes ---------------------------------------------------------------

select pg_temp.given('won');
select pg_temp.deliver(array[
  pg_temp.dispute('won', '2026-01-10', '2026-01-20', 'warning_needs_response', '2026-01-20')]);
select is(
  pg_temp.level('won', '2026-01-20'), 'full', 'an inquiry changes nothing: no money has moved'
);
select pg_temp.deliver(array[
  pg_temp.dispute('won', '2026-01-10', '2026-01-22', 'needs_response', '2026-01-20')]);
select is(
  pg_temp.level('won', '2026-01-22'), 'read_only', 'a dispute leaves reading, as shipped'
);
select pg_temp.renewed('won');
select is(
  pg_temp.level('won', '2026-02-11'), 'read_only',
  'a renewal does not settle it: the next payment may be disputed too'
);
select pg_temp.deliver(array[
  pg_temp.dispute('won', '2026-01-10', '2026-02-20', 'under_review', '2026-01-20')]);
select is(
  pg_temp.level('won', '2026-02-20'), 'read_only', 'nor does sending evidence'
);
select pg_temp.deliver(array[
  pg_temp.dispute('won', '2026-01-10', '2026-02-25', 'won', '2026-01-20')]);
select is(
  pg_temp.level('won', '2026-02-25'), 'full', 'G9: a dispute that is won gives everything back'
);
select results_eq(
  $$ select * from pg_temp.restrictions('won') $$,
  array['dispute_opened read_only, lifted', 'dispute_won full'],
  'and its rows tell the story'
);

select pg_temp.given('lost');
select pg_temp.deliver(array[
  pg_temp.dispute('lost', '2026-01-10', '2026-01-20', 'needs_response', '2026-01-20'),
  pg_temp.dispute('lost', '2026-01-10', '2026-01-25', 'lost', '2026-01-20')]);
select is(
  pg_temp.level('lost', '2026-01-25'), 'none', 'G9: a dispute that is lost ends access'
);
select is(
  (select reason from billing.explain_entitlement('premium', md5('lost')::uuid)), 'dispute_lost',
  'and says so'
);
select pg_temp.renewed('lost');
select is(
  pg_temp.level('lost', '2026-02-11'), 'full',
  'whoever pays for the next period after that has it'
);

select pg_temp.given('late');
select pg_temp.renewed('late');
select pg_temp.deliver(array[
  pg_temp.dispute('late', '2026-01-10', '2026-02-20', 'lost', '2026-02-15')]);
select is(
  pg_temp.level('late', '2026-02-20'), 'none',
  'a dispute about an older period ends the running one when it is lost'
);

-- The event that it was lost never comes; somebody reads it weeks later.
select pg_temp.given('missed');
select pg_temp.renewed('missed');
select pg_temp.deliver(array[
  pg_temp.dispute('missed', '2026-01-10', '2026-01-20', 'needs_response', '2026-01-20')]);
select billing_private.request_reread('dispute', 'dp_missed', 'test');
select tests.set_time('2026-02-20');
select billing.complete_command(
  claimed.id, claimed.lease, 200,
  pg_temp.dispute('missed', '2026-01-10', '2026-01-25', 'lost', '2026-01-20')::jsonb
    #> '{data,object}',
  null, 'Fri, 20 Feb 2026 00:00:00 GMT', 0)
from billing.claim_commands(1) as claimed;
select is(
  (select status || ' ' || coalesce(decided_at::text, 'at no known time')
    from billing.disputes where stripe_dispute_id = 'dp_missed'),
  'lost at no known time',
  'a re-read says that a dispute was lost, not when'
);
select is(
  pg_temp.level('missed', '2026-02-20'), 'full',
  'H1: a loss that is found late does not block a period that was paid later'
);
select results_eq(
  $$
    select begins_at, periods_before
    from billing.access_restrictions
    where reference = 'dp_missed' and cause = 'dispute_lost'
  $$,
  $$ values ('2026-01-20 00:00+00'::timestamptz, '2026-02-10 00:00+00'::timestamptz) $$,
  'it concerns what was paid with the disputed money'
);
select pg_temp.deliver(array[
  pg_temp.dispute('missed', '2026-01-10', '2026-02-12', 'lost', '2026-01-20')]);
select results_eq(
  $$
    select decided_at, begins_at, periods_before
    from billing.access_restrictions
    join billing.disputes on stripe_dispute_id = reference
    where reference = 'dp_missed' and cause = 'dispute_lost'
  $$,
  $$
    values ('2026-02-12 00:00+00'::timestamptz, '2026-02-12 00:00+00'::timestamptz,
      '2026-02-12 00:00+00'::timestamptz)
  $$,
  'A7: its event, though older than what was read, tells when, whenever it comes'
);

select pg_temp.given('stopped');
select pg_temp.deliver(array[
  pg_temp.dispute('stopped', '2026-01-10', '2026-01-20', 'prevented', '2026-01-20')]);
select is(
  pg_temp.level('stopped', '2026-01-20'), 'full', 'what was prevented never became a dispute'
);

-- ---- others -----------------------------------------------------------------

select pg_temp.given('bystander');
select tests.set_time('2026-01-20');
select is(
  pg_temp.level('bystander', '2026-01-20'), 'full', 'nobody else is concerned'
);
select is_empty(
  $$ select * from pg_temp.restrictions('bystander') $$, 'or has a row'
);

select pg_temp.deliver(array[
  tests.event('evt_re_alone', 'refund.created', '2026-01-20', '{"id": "re_alone",
    "object": "refund", "status": "succeeded", "amount": 1, "currency": "usd",
    "payment_intent": "pi_unknown"}')]);
select is_empty(
  $$ select * from billing.access_restrictions where reference = 'pi_unknown' $$,
  'a refund of a payment nobody knows waits for it'
);

-- ---- the service: in every order --------------------------------------------

select tests.set_time('2026-01-25');
select tests.account('ann');

create function pg_temp.story(p_last text) returns text[]
language sql as $$
  select array[
    tests.event('evt_ann', 'customer.subscription.created', '2026-01-10',
      tests.subscription('ann', 'active', '2026-01-10')),
    pg_temp.invoice('ann', '2026-01-10'), pg_temp.payment('ann', '2026-01-10'),
    pg_temp.link('ann', '2026-01-10'), p_last];
$$;

select is_empty(
  $$
    select *
    from tests.differences(array[
      tests.event('evt_ann', 'customer.subscription.created', '2026-01-10',
        tests.subscription('ann', 'active', '2026-01-10')),
      pg_temp.invoice('ann', '2026-01-10'),
      -- Before basil the payment itself names its invoice.
      replace(pg_temp.payment('ann', '2026-01-10'), '"amount_received"',
        format('"invoice": "in_ann%s", "amount_received"', pg_temp.at('2026-01-10'))),
      pg_temp.dispute('ann', '2026-01-10', '2026-01-20', 'lost', '2026-01-15')
    ])
  $$,
  'G9, A13: a lost dispute ends the same access whether it comes before or after what it concerns'
);
select is_empty(
  $$
    select *
    from tests.differences(array[
      pg_temp.invoice('bob', '2026-01-10'), pg_temp.payment('bob', '2026-01-10'),
      pg_temp.link('bob', '2026-01-10'),
      pg_temp.refund('bob', '2026-01-10', '2026-01-15', 1000, 'succeeded'),
      tests.event('evt_bob', 'customer.subscription.created', '2026-01-10',
        tests.subscription('bob', 'active', '2026-01-10',
          p_extra => jsonb_build_object('metadata', jsonb_build_object(
            'account_id', md5('ann')::uuid))))
    ])
  $$,
  'G10, A13: so does a refund, also for a customer nobody knew at first'
);

-- The comparison sees a restriction at all.
select tests.set_time('2026-01-25');
select pg_temp.deliver(pg_temp.story(
  pg_temp.refund('ann', '2026-01-10', '2026-01-15', 1000, 'succeeded')));
select isnt_empty(
  $$ select * from jsonb_array_elements(tests.state() -> 'restrictions') $$,
  'the comparison looks at what is left of access'
);
select is(pg_temp.level('ann', '2026-01-15'), 'none', 'and in that story nothing is');

select * from finish();
rollback;
