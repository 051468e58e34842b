-- Access by status and date, to the second: what each status of a subscription gives, and until
-- when.
begin;
\ir ../helpers.psql
select plan(58);

select tests.catalog();
select tests.set_time('2026-01-10');

-- Whether somebody has what plan Plus gives, asked at an instant.
create function pg_temp.has(p_name text, p_at timestamptz) returns boolean
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  return billing.has_entitlement('premium', md5(p_name)::uuid);
end;
$$;

-- A customer with a subscription to Plus from 10 January to 10 February 2026.
create function pg_temp.given(p_name text, p_status text, p_extra jsonb default '{}') returns void
language plpgsql as $$
begin
  perform tests.set_time('2026-01-10');
  perform tests.account(p_name);
  perform tests.subscribe(p_name, p_status, '2026-01-10', 'price_plus_monthly', p_extra);
end;
$$;

-- What Stripe says next about it; the new period begins on 10 February.
create function pg_temp.then(
  p_name text,
  p_status text,
  p_at timestamptz,
  p_extra jsonb default '{}'
) returns void
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  perform tests.deliver(
    format('evt_%s_%s_%s', p_name, p_status, p_at), 'customer.subscription.updated', p_at,
    tests.subscription(p_name, p_status, '2026-02-10', 'price_plus_monthly',
      jsonb_build_object('start_date', extract(epoch from timestamptz '2026-01-10')::bigint)
        || p_extra));
end;
$$;

create function pg_temp.invoice(p_id text, p_name text, p_status text, p_at timestamptz)
returns void
language plpgsql as $$
begin
  perform tests.set_time(p_at);
  perform tests.deliver(
    format('evt_%s_%s', p_id, p_status),
    case p_status when 'paid' then 'invoice.paid' else 'invoice.payment_failed' end, p_at,
    jsonb_build_object(
      'id', p_id, 'object', 'invoice', 'status', p_status, 'customer', 'cus_' || p_name,
      'currency', 'usd', 'total', 1000, 'created', extract(epoch from p_at)::bigint,
      'parent', jsonb_build_object('subscription_details', jsonb_build_object(
        'subscription', 'sub_' || p_name))));
end;
$$;

create function pg_temp.at(p_at timestamptz) returns bigint
language sql as $$
  select extract(epoch from p_at)::bigint;
$$;

-- ---- active -----------------------------------------------------------------

select pg_temp.given('active', 'active');

select ok(
  not pg_temp.has('active', '2026-01-09 23:59:59'),
  'an active subscription gives nothing before it begins'
);
select ok(
  pg_temp.has('active', '2026-01-10 00:00:00'),
  'an active subscription gives access from its first second'
);
select ok(
  pg_temp.has('active', '2026-02-10 00:00:00'),
  'an active subscription outlives its period: the renewal may be late'
);
select ok(
  pg_temp.has('active', '2026-02-10 02:59:59'),
  'an active subscription gives access to the last second of the renewal grace'
);
select ok(
  not pg_temp.has('active', '2026-02-10 03:00:00'),
  'an active subscription that nobody renewed gives nothing after the renewal grace'
);

select pg_temp.given('renewed', 'active');
select pg_temp.then('renewed', 'active', '2026-02-10 00:00:10');

select ok(
  pg_temp.has('renewed', '2026-03-10 02:59:59'),
  'a renewal prolongs access to the end of the new period and its grace'
);
select ok(
  not pg_temp.has('renewed', '2026-03-10 03:00:00'),
  'a renewal prolongs access by one period only'
);

select tests.set_time('2026-01-10');
update billing.plans set renewal_grace = '0' where key = 'plus';
select pg_temp.given('punctual', 'active');

select ok(
  pg_temp.has('punctual', '2026-02-09 23:59:59'),
  'without renewal grace access lasts to the last second of the period'
);
select ok(
  not pg_temp.has('punctual', '2026-02-10 00:00:00'),
  'without renewal grace access ends with the period'
);

update billing.plans set renewal_grace = '3 hours' where key = 'plus';

-- ---- a scheduled end --------------------------------------------------------

select pg_temp.given('leaving', 'active', '{"cancel_at_period_end": true}');

select ok(
  pg_temp.has('leaving', '2026-02-09 23:59:59'),
  'whoever cancels at period end keeps access to the last second of the period'
);
select ok(
  not pg_temp.has('leaving', '2026-02-10 00:00:00'),
  'whoever cancels at period end gets no renewal grace'
);

select pg_temp.given('staying', 'active', '{"cancel_at_period_end": true}');
select pg_temp.then('staying', 'active', '2026-02-01', jsonb_build_object(
  'items', tests.subscription('staying', 'active', '2026-01-10') -> 'items'));

select ok(
  pg_temp.has('staying', '2026-02-10 00:00:00'),
  'whoever takes the cancellation back has the renewal grace back'
);

select pg_temp.given(
  'midway', 'active', jsonb_build_object('cancel_at', pg_temp.at('2026-01-20 12:00')));

select ok(
  pg_temp.has('midway', '2026-01-20 11:59:59'),
  'a cancellation inside the period leaves access until its instant'
);
select ok(
  not pg_temp.has('midway', '2026-01-20 12:00:00'),
  'a cancellation inside the period ends access at its instant'
);

select pg_temp.given(
  'portal', 'active', jsonb_build_object('cancel_at', pg_temp.at('2026-02-10')));

select ok(
  not pg_temp.has('portal', '2026-02-10 00:00:00'),
  'G7: an end the portal writes as a date is an end like any other, without grace'
);

select pg_temp.then('portal', 'active', '2026-02-01', jsonb_build_object(
  'items', tests.subscription('portal', 'active', '2026-01-10') -> 'items'));

select ok(
  pg_temp.has('portal', '2026-02-10 00:00:00'),
  'G7: taking the cancellation back gives the renewal grace back'
);

select pg_temp.given(
  'ingrace', 'active', jsonb_build_object('cancel_at', pg_temp.at('2026-02-10 01:00')));

select ok(
  pg_temp.has('ingrace', '2026-02-10 00:59:59'),
  'an end scheduled within the renewal grace leaves access until its instant'
);
select ok(
  not pg_temp.has('ingrace', '2026-02-10 01:00:00'),
  'an end scheduled within the renewal grace cuts the grace short'
);

select pg_temp.given(
  'lateend', 'active', jsonb_build_object('cancel_at', pg_temp.at('2026-05-10')));

select ok(
  pg_temp.has('lateend', '2026-02-10 02:59:59'),
  'an end scheduled beyond the period leaves the renewal grace: a renewal is due before'
);
select ok(
  not pg_temp.has('lateend', '2026-02-10 03:00:00'),
  'an end scheduled beyond the period gives nothing that is not paid for'
);

-- ---- trialing ---------------------------------------------------------------

select pg_temp.given('trying', 'trialing', jsonb_build_object(
  'trial_start', pg_temp.at('2026-01-10'), 'trial_end', pg_temp.at('2026-02-10')));

select ok(
  pg_temp.has('trying', '2026-01-10 00:00:00'),
  'a trial gives access from its first second'
);
select ok(
  pg_temp.has('trying', '2026-02-10 02:59:59'),
  'a trial outlives its end by the renewal grace'
);
select ok(
  not pg_temp.has('trying', '2026-02-10 03:00:00'),
  'G3: a trial whose end nobody reported does not last for ever'
);

select pg_temp.given('notrial', 'trialing', jsonb_build_object(
  'trial_end', pg_temp.at('2026-02-10'), 'cancel_at_period_end', true));

select ok(
  not pg_temp.has('notrial', '2026-02-10 00:00:00'),
  'a canceled trial ends with its last day'
);

-- ---- past due ---------------------------------------------------------------

select pg_temp.given('owing', 'active');
select pg_temp.then('owing', 'past_due', '2026-02-10 01:00');

select ok(
  pg_temp.has('owing', '2026-02-10 03:00:00'),
  'a failed payment locks nobody out at once'
);
select ok(
  pg_temp.has('owing', '2026-02-13 00:59:59'),
  'access lasts to the last second of the grace for failed payments'
);
select ok(
  not pg_temp.has('owing', '2026-02-13 01:00:00'),
  'access ends with the grace for failed payments, with no event and no job'
);

select pg_temp.then('owing', 'past_due', '2026-02-12');

select ok(
  not pg_temp.has('owing', '2026-02-13 01:00:00'),
  'a second failed payment does not prolong the grace'
);

select pg_temp.given('owingleaving', 'active');
select pg_temp.then('owingleaving', 'past_due', '2026-02-10', jsonb_build_object(
  'cancel_at', pg_temp.at('2026-02-11')));

select ok(
  pg_temp.has('owingleaving', '2026-02-10 23:59:59'),
  'a scheduled end leaves the grace for failed payments until its instant'
);
select ok(
  not pg_temp.has('owingleaving', '2026-02-11 00:00:00'),
  'a scheduled end cuts the grace for failed payments short'
);

update billing.plans set past_due_grace = '0' where key = 'plus';
select pg_temp.given('nograce', 'active');

select ok(
  pg_temp.has('nograce', '2026-02-10 00:59:59'),
  'without grace for failed payments access lasts until the failure'
);

select pg_temp.then('nograce', 'past_due', '2026-02-10 01:00');

select ok(
  not pg_temp.has('nograce', '2026-02-10 01:00:00'),
  'without grace for failed payments access ends in the second of the failure'
);

update billing.plans set past_due_grace = '3 days' where key = 'plus';

-- ---- past due, and paid -----------------------------------------------------

select pg_temp.given('payer', 'active');
select pg_temp.then('payer', 'past_due', '2026-02-10', '{"latest_invoice": "in_february"}');
select pg_temp.invoice('in_february', 'payer', 'open', '2026-02-10');

select ok(
  not pg_temp.has('payer', '2026-02-14'),
  'an open invoice gives nothing after the grace'
);

select pg_temp.invoice('in_january', 'payer', 'paid', '2026-02-14');

select ok(
  not pg_temp.has('payer', '2026-02-14'),
  'paying another invoice than the latest restores nothing'
);

select pg_temp.invoice('in_february', 'payer', 'paid', '2026-02-14');

select ok(
  pg_temp.has('payer', '2026-02-14'),
  'H4: paying restores access in the transaction that records the payment'
);
select ok(
  pg_temp.has('payer', '2026-03-10 02:59:59'),
  'H4: what was paid lasts to the end of its period and the renewal grace'
);
select ok(
  not pg_temp.has('payer', '2026-03-10 03:00:00'),
  'H4: one payment pays one period'
);

select pg_temp.given('quickpayer', 'active');
select pg_temp.invoice('in_quick', 'quickpayer', 'paid', '2026-02-10 00:00:05');
select pg_temp.then(
  'quickpayer', 'past_due', '2026-02-10 00:00:06', '{"latest_invoice": "in_quick"}');

select ok(
  pg_temp.has('quickpayer', '2026-02-20'),
  'a failure that is reported after its payment locks nobody out'
);

select pg_temp.given('switcher', 'active');
select pg_temp.then('switcher', 'past_due', '2026-02-10', '{"latest_invoice": "in_first"}');
select pg_temp.invoice('in_second', 'switcher', 'paid', '2026-02-14');
select pg_temp.then('switcher', 'past_due', '2026-02-15', '{"latest_invoice": "in_second"}');

select ok(
  pg_temp.has('switcher', '2026-02-20'),
  'H4: an invoice that was paid before it became the latest restores access'
);

select pg_temp.given('starter', 'incomplete', '{"latest_invoice": "in_first"}');
select pg_temp.invoice('in_first', 'starter', 'open', '2026-01-10');
select ok(not pg_temp.has('starter', '2026-01-10'), 'a first invoice that is open gives nothing');
select pg_temp.invoice('in_first', 'starter', 'paid', '2026-01-11');
select ok(
  pg_temp.has('starter', '2026-01-11'),
  'H4: the first payment gives access, also before Stripe says that the subscription is active'
);
select pg_temp.given('straggler', 'unpaid', '{"latest_invoice": "in_long_due"}');
select pg_temp.invoice('in_long_due', 'straggler', 'open', '2026-01-10');
select ok(not pg_temp.has('straggler', '2026-01-10'), 'an invoice nobody pays gives nothing');
select pg_temp.invoice('in_long_due', 'straggler', 'paid', '2026-01-14');
select ok(pg_temp.has('straggler', '2026-01-14'), 'H4: once it is paid, access is back at once');

-- ---- statuses that give nothing ---------------------------------------------

select pg_temp.given('paused', 'paused');
select pg_temp.given('unpaid', 'unpaid');
select pg_temp.given('incomplete', 'incomplete');
select pg_temp.given('expired', 'incomplete_expired');
select pg_temp.given('canceled', 'canceled', jsonb_build_object(
  'ended_at', pg_temp.at('2026-01-10'), 'canceled_at', pg_temp.at('2026-01-10')));
select pg_temp.given('novel', 'hibernating');
select pg_temp.given('empty', '');

select ok(not pg_temp.has('paused', '2026-01-11'), 'G5: a paused subscription gives nothing');
select ok(not pg_temp.has('unpaid', '2026-01-11'), 'an unpaid subscription gives nothing');
select ok(
  not pg_temp.has('incomplete', '2026-01-11'),
  'a subscription whose first payment is missing gives nothing'
);
select ok(
  not pg_temp.has('expired', '2026-01-11'),
  'a subscription whose first payment never came gives nothing'
);
select ok(not pg_temp.has('canceled', '2026-01-11'), 'a canceled subscription gives nothing');
select ok(
  not pg_temp.has('novel', '2026-01-11'),
  'D10: a status nobody knows gives nothing, and is stored'
);
select ok(not pg_temp.has('empty', '2026-01-11'), 'D10: no status gives nothing');
select is(
  (
    select array_agg(status order by status)
    from billing.subscriptions
    where account_id in (md5('novel')::uuid, md5('empty')::uuid)
  ),
  array['hibernating', 'unknown'],
  'D10: a status nobody knows is kept as it came'
);

select pg_temp.given('collecting', 'active', '{"pause_collection": {"behavior": "void"}}');

select ok(
  pg_temp.has('collecting', '2026-01-11'),
  'G5: pausing collection is not pausing the subscription: its status decides'
);

-- ---- the end ----------------------------------------------------------------

select pg_temp.given('gone', 'active');
select tests.set_time('2026-01-15');
select tests.deliver(
  'evt_gone', 'customer.subscription.deleted', '2026-01-15',
  tests.subscription('gone', 'canceled', '2026-01-10', 'price_plus_monthly', jsonb_build_object(
    'ended_at', pg_temp.at('2026-01-15'))));

select ok(
  not pg_temp.has('gone', '2026-01-15 00:00:00'),
  'a subscription that is ended in its period gives nothing from then on'
);

select pg_temp.then('gone', 'active', '2026-01-14');

select ok(
  not pg_temp.has('gone', '2026-01-15 00:00:00'),
  'A6: an older report of an ended subscription brings nothing back'
);

select pg_temp.given('contradiction', 'active', jsonb_build_object(
  'ended_at', pg_temp.at('2026-01-10')));

select ok(
  not pg_temp.has('contradiction', '2026-01-11'),
  'what has ended gives nothing, whatever its status says'
);

-- ---- no period --------------------------------------------------------------

select pg_temp.given('timeless', 'active', jsonb_build_object('items', jsonb_build_object(
  'data', jsonb_build_array(jsonb_build_object(
    'id', 'si_timeless', 'price', jsonb_build_object('id', 'price_plus_monthly'))))));

select ok(
  not pg_temp.has('timeless', '2026-01-11'),
  'D8: a subscription without a period gives nothing'
);

select pg_temp.given('timelessowing', 'past_due', jsonb_build_object('items', jsonb_build_object(
  'data', jsonb_build_array(jsonb_build_object(
    'id', 'si_timelessowing', 'price', jsonb_build_object('id', 'price_plus_monthly'))))));

select ok(
  not pg_temp.has('timelessowing', '2026-01-11'),
  'D8: a subscription without a period has no grace either'
);

select pg_temp.given('acacia', 'active', jsonb_build_object(
  'current_period_start', pg_temp.at('2026-01-10'),
  'current_period_end', pg_temp.at('2026-02-10'),
  'items', jsonb_build_object('data', jsonb_build_array(jsonb_build_object(
    'id', 'si_acacia', 'price', jsonb_build_object('id', 'price_plus_monthly'))))));

select ok(
  pg_temp.has('acacia', '2026-02-10 02:59:59') and not pg_temp.has('acacia', '2026-02-10 03:00:00'),
  'D2: a period of the older API shape gives the same access'
);

select * from finish();
rollback;
