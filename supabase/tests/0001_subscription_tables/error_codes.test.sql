-- billing.error_codes and billing_private.fail(): what every error looks like to a caller.
begin;
\ir ../helpers.psql
select plan(20);

-- What a caller gets of an error, as PostgREST would take it apart.
create function tests.raised(p_code text, p_details jsonb default '{}') returns jsonb
language plpgsql as $$
declare
  v_detail text;
  v_hint text;
begin
  perform billing_private.fail(p_code, p_details);
  return null;
exception when others then
  get stacked diagnostics v_detail = pg_exception_detail, v_hint = pg_exception_hint;
  return jsonb_build_object(
    'sqlstate', sqlstate, 'message', sqlerrm, 'details', v_detail::jsonb, 'hint', v_hint);
end;
$$;

-- ---- the catalog ------------------------------------------------------------

select is_empty(
  $$
    select code, tests.raised(code)
    from billing.error_codes
    where tests.raised(code) is distinct from jsonb_build_object(
      'sqlstate', 'PT' || status, 'message', message, 'details', jsonb_build_object('code', code),
      'hint', hint)
  $$,
  'every error says its HTTP status, its constant sentence, its code and what to do'
);

select is_empty(
  $$ select code, message from billing.error_codes where message !~ '^[a-z][^.]*[a-z]$' $$,
  'messages are sentences without capital and full stop, to be put into other sentences'
);

select is_empty(
  $$ select code, hint from billing.error_codes where hint !~ '^[A-Z].*[.]$' $$,
  'hints are whole sentences'
);

select is_empty(
  $$
    select message, array_agg(code)
    from billing.error_codes
    group by message
    having count(*) > 1
  $$,
  'no two errors say the same'
);

select is_empty(
  $$
    select distinct status
    from billing.error_codes
    where status not in (400, 401, 402, 403, 404, 405, 409, 413, 422, 429, 500, 502, 503, 504)
  $$,
  'statuses are the ones of the families: validation, authentication, payment, permission, …'
);

-- ---- raising ----------------------------------------------------------------

select throws_ok(
  $$ select billing_private.fail('PRICE_NOT_FOUND') $$,
  'PT404', 'there is no such price on offer',
  'the HTTP status is the SQLSTATE, so that PostgREST answers with it'
);

select is(
  tests.raised('PRICE_NOT_FOUND', '{"price_key": "gold"}') -> 'details',
  '{"code": "PRICE_NOT_FOUND", "price_key": "gold"}',
  'details carry the values beside the code'
);

select is(
  tests.raised('STRIPE_REQUEST_FAILED', '{"code": "card_declined"}') #>> '{details,code}',
  'STRIPE_REQUEST_FAILED',
  'no value takes the place of the code'
);

select is(
  tests.raised('VALIDATION_FAILED', '{"problem": "50 % of \"it\"\nis {odd}"}')
    #>> '{details,problem}',
  E'50 % of "it"\nis {odd}',
  'values may hold any text'
);

select throws_ok(
  $$ select billing_private.fail('NO_SUCH_CODE') $$,
  'P0002', 'query returned no rows',
  'a code that is not in the catalog is our mistake, not one of the caller''s'
);

-- ---- what the catalog may hold ----------------------------------------------

prepare add_code(text, integer) as
insert into billing.error_codes (code, status, message, hint) values ($1, $2, 'it failed', 'Why.');

select lives_ok($$ execute add_code('A', 400) $$, 'a code may be one letter, a status 400');
select lives_ok($$ execute add_code('A_1', 599) $$, 'digits may follow; 599 is the last status');

select throws_ok(
  $$ execute add_code('a_1', 400) $$,
  '23514', 'new row for relation "error_codes" violates check constraint '
    '"error_codes_code_is_upper_snake"',
  'a code is upper case'
);

select throws_ok(
  $$ execute add_code('1A', 400) $$,
  '23514', 'new row for relation "error_codes" violates check constraint '
    '"error_codes_code_is_upper_snake"',
  'a code begins with a letter'
);

select throws_ok(
  $$ execute add_code('B', 399) $$,
  '23514', 'new row for relation "error_codes" violates check constraint '
    '"error_codes_status_is_http_error"',
  'below 400 nothing is an error'
);

select throws_ok(
  $$ execute add_code('B', 600) $$,
  '23514', 'new row for relation "error_codes" violates check constraint '
    '"error_codes_status_is_http_error"',
  'from 600 on there are no statuses'
);

select throws_ok(
  $$ execute add_code('NOT_A_MEMBER', 400) $$,
  '23505', 'duplicate key value violates unique constraint "error_codes_pkey"',
  'a code stands for one error'
);

-- ---- clients ----------------------------------------------------------------

select tests.sign_out();

select isnt_empty(
  $$ select from billing.error_codes where code = 'NOT_A_MEMBER' and status = 403 $$,
  'a visitor may read the catalog'
);

select throws_ok(
  $$ select billing_private.fail('NOT_A_MEMBER') $$,
  '42501', 'permission denied for schema billing_private',
  'a visitor cannot raise our errors'
);

select tests.sign_in('ann');

select throws_ok(
  $$ select billing_private.fail('NOT_A_MEMBER') $$,
  '42501', 'permission denied for schema billing_private',
  'a user cannot raise our errors'
);

select * from finish();
rollback;
