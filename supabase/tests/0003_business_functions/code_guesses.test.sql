-- Guessing at discount codes: so many wrong ones an hour are answered, then none; honest callers
-- notice nothing.
begin;
\ir ../helpers.psql
select plan(18);

select tests.catalog();
select tests.set_time('2026-01-31 10:20');
select tests.account(name) from unnest(array['ann', 'bob']) as name;
insert into billing_private.discount_codes (code, percent_off, periods)
values ('WELCOME', 20, 1);

create function tests.guess(p_code text default 'wrong') returns text
language sql as $$ select coalesce(reason, 'valid') from billing.check_code(p_code, 'plus_monthly'); $$;
create function tests.guess_often(p_times integer) returns bigint
language sql as $$
  select count(*) filter (where tests.guess('wrong-' || n) = 'not_valid')
  from generate_series(1, p_times) as n;
$$;
create function tests.retry_after() returns text
language plpgsql as $$
declare
  v_details text;
begin
  perform tests.guess();
  return null;
exception when others then
  get stacked diagnostics v_details = pg_exception_detail;
  return v_details::jsonb ->> 'retry_after';
end;
$$;
create function tests.come_from(p_headers jsonb) returns text
language sql as $$ select set_config('request.headers', p_headers::text, true); $$;
grant execute on all functions in schema tests to authenticated, service_role;
savepoint s;

-- ---- a user -----------------------------------------------------------------

select tests.sign_in('ann');
select is(tests.guess_often(9), 9::bigint, 'nine wrong codes are answered');
select is(tests.guess('welcome'), 'valid', 'the right one, too');
select is(tests.guess(), 'not_valid', 'and a tenth wrong one');
select throws_ok(
  $$ select tests.guess() $$, 'PT429', 'too many tries', 'the eleventh in an hour is not'
);
select throws_ok(
  $$ select tests.guess('welcome') $$, 'PT429', 'too many tries',
  'nor is a right one then: it would tell which one is'
);
select throws_ok(
  $$
    select billing.prepare_checkout(
      'plus_monthly', 'https://app.example/a', 'https://app.example/b', discount_code => 'welcome')
  $$,
  'PT429', 'too many tries', 'nor can it be tried at a checkout'
);
select throws_ok(
  $$ select billing.find_discount('at-stripes') $$, 'PT429', 'too many tries', 'nor at Stripe'
);
select is(tests.retry_after(), '2400', 'it says when to come back, in seconds');
select lives_ok(
  $$
    select billing.prepare_checkout(
      'plus_monthly', 'https://app.example/a', 'https://app.example/b')
  $$,
  'without a code the checkout opens'
);
select tests.sign_in('bob');
select is(tests.guess(), 'not_valid', 'others are not concerned');
select tests.sign_in('ann');
select tests.set_time('2026-01-31 10:59:59');
select throws_ok($$ select tests.guess() $$, 'PT429', 'too many tries', 'until the hour is over');
select tests.set_time('2026-01-31 11:00');
select is(tests.guess('welcome'), 'valid', 'in the next one it goes on');
select tests.be_owner();
select is_empty(
  $$ select from billing_private.code_guesses where subject_hash ~ 'user|ann' $$,
  'who guessed is not to be read from what is kept'
);
rollback to s;

-- ---- honest callers ---------------------------------------------------------

select tests.sign_in('ann');
select tests.guess('welcome') from generate_series(1, 20);
select tests.be_owner();
select is_empty('select from billing_private.code_guesses', 'right codes are not counted: nothing is written');
select tests.be_service();
select is(
  (
    select count(*)
    from generate_series(1, 20)
    cross join lateral billing.check_code('wrong', 'plus_monthly', 1, md5('ann')::uuid) as quote
    where quote.reason = 'not_valid'
  ),
  20::bigint, 'a server that asks for its users is not limited'
);
select tests.be_owner();
rollback to s;

-- ---- an address -------------------------------------------------------------

insert into billing_private.code_guesses (hour, subject_hash, count)
select '2026-01-31 10:00', billing_private.salted_hash('address 192.0.2.7'), 99;
select tests.sign_in('ann');
select tests.come_from('{"cf-connecting-ip": "192.0.2.7", "x-forwarded-for": "198.51.100.1"}');
select is(tests.guess(), 'not_valid', 'a hundred wrong codes are answered from one address');
select tests.sign_in('bob');
select throws_ok(
  $$ select tests.guess() $$, 'PT429', 'too many tries', 'no more, whoever signs in there'
);
select tests.come_from('{"x-forwarded-for": "198.51.100.1, 192.0.2.7"}');
select is(tests.guess(), 'not_valid', 'from elsewhere it goes on');

select * from finish();
rollback;
