-- billing.report_rejected_webhook(): refusals are counted by minute and reason, never listed.
begin;
\ir ../helpers.psql
select plan(8);

select tests.set_time('2026-01-10 08:00:59');

-- ---- the service ------------------------------------------------------------

select tests.be_service();
select lives_ok(
  $$
    select billing.report_rejected_webhook('SIGNATURE_INVALID') from generate_series(1, 3);
    select billing.report_rejected_webhook('SIGNATURE_EXPIRED')
  $$,
  'refusals are reported'
);
select tests.be_owner();
select tests.set_time('2026-01-10 08:01:00');
select tests.be_service();
select billing.report_rejected_webhook('SIGNATURE_INVALID');
select tests.be_owner();
select results_eq(
  $$
    select reason, minute, count
    from billing_private.webhook_rejections
    order by minute, reason
  $$,
  $$
    values ('SIGNATURE_EXPIRED', '2026-01-10 08:00+00'::timestamptz, 1),
      ('SIGNATURE_INVALID', '2026-01-10 08:00+00', 3),
      ('SIGNATURE_INVALID', '2026-01-10 08:01+00', 1)
  $$,
  'and counted by minute and reason'
);

select tests.be_service();
select lives_ok(
  $$
    select billing.report_rejected_webhook('made up ' || n) from generate_series(1, 100) as n;
    select billing.report_rejected_webhook(null)
  $$,
  'reasons that are in no catalog are reported too'
);
select tests.be_owner();
select results_eq(
  $$
    select reason, count from billing_private.webhook_rejections
    where minute = '2026-01-10 08:01' and reason <> 'SIGNATURE_INVALID'
  $$,
  $$ values ('INTERNAL_ERROR', 101) $$,
  'as one: nobody can make the table grow from outside'
);
set local timezone = 'Asia/Kolkata';
select lives_ok(
  $$ select billing.report_rejected_webhook('SIGNATURE_MISSING') $$,
  'minutes are whole in any time zone'
);

-- ---- a member, a visitor ----------------------------------------------------

select tests.sign_in('ann');
select throws_ok(
  $$ select billing.report_rejected_webhook('SIGNATURE_INVALID') $$,
  '42501', 'permission denied for function report_rejected_webhook',
  'a member cannot raise the alarm'
);
select tests.sign_out();
select throws_ok(
  $$ select billing.report_rejected_webhook('SIGNATURE_INVALID') $$,
  '42501', 'permission denied for function report_rejected_webhook',
  'a visitor cannot either'
);
select throws_ok(
  $$ select * from billing_private.webhook_rejections $$,
  '42501', 'permission denied for schema billing_private',
  'nor see whether it rang'
);

select * from finish();
rollback;
