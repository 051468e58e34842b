-- Reading Stripe's JSON: what other systems can write, ids in every shape, times and numbers.
begin;
\ir ../helpers.psql
select plan(47);

-- ---- the owner: texts -------------------------------------------------------

select is(
  billing_private.parse_json('{"a": "x\u0000y"}'), '{"a": "xy"}',
  'D16: a NUL character is dropped'
);
select is(
  billing_private.parse_json('{"a": "x\\u0000y"}') ->> 'a', 'x\u0000y',
  'D16: a backslash before "u0000" that is text stays text'
);
select is(
  billing_private.parse_json('{"a": "x\\\u0000y"}') ->> 'a', 'x\y',
  'D16: a backslash that is text and then a NUL lose the NUL alone'
);
select is(
  billing_private.parse_json('{"a": "\ud83d\ude00"}') ->> 'a', '😀',
  'D16: a surrogate pair is the character it stands for'
);
select is(
  billing_private.parse_json('{"a": "x\ud83dy"}') ->> 'a', 'x�y',
  'D16: the first half of a pair alone is replaced'
);
select is(
  billing_private.parse_json('{"a": "x\ude00y"}') ->> 'a', 'x�y',
  'D16: the second half of a pair alone is replaced'
);
select is(
  billing_private.parse_json('{"a": "\uD83D\uD83D\uDE00\uDE00"}') ->> 'a', '�😀�',
  'D16: a pair between two halves is kept'
);
select is(
  billing_private.parse_json('{"a": "\\ud83d\ude00"}') ->> 'a', '\ud83d�',
  'D16: a half after a backslash that is text is a half'
);
select is(
  billing_private.parse_json('{"a": "\\ud83d"}') ->> 'a', '\ud83d',
  'D16: a backslash before "ud83d" that is text stays text'
);
select is(
  billing_private.parse_json('{"\u0000a": ["\u0000", {"b": "\u0000"}]}'), '{"a": ["", {"b": ""}]}',
  'D16: NUL characters are dropped from keys and at any depth'
);
select is(
  billing_private.parse_json('{"a": 123456789012345678901234567890.5}') ->> 'a',
  '123456789012345678901234567890.5',
  'D15: a number keeps every digit'
);
select throws_ok(
  $$ select billing_private.parse_json('{"a": ') $$,
  '22P02', 'invalid input syntax for type json',
  'what is no JSON is an error'
);

-- ---- the owner: ids ---------------------------------------------------------

select is(billing_private.stripe_id('"cus_1"'), 'cus_1', 'D11: an id is itself');
select is(
  billing_private.stripe_id('{"id": "cus_1", "email": "a@b.c"}'), 'cus_1',
  'D11: the id of an expanded object'
);
select is(
  billing_private.stripe_id('{"id": "cus_1", "deleted": true}'), 'cus_1',
  'D11: the id of a deleted object'
);
select is(billing_private.stripe_id('null'), null, 'D11: null has no id');
select is(billing_private.stripe_id(null), null, 'D11: an absent field has no id');
select is(billing_private.stripe_id('""'), null, 'an empty text is no id');
select is(billing_private.stripe_id('["cus_1"]'), null, 'a list is no id');

-- ---- the owner: times -------------------------------------------------------

select is(
  billing_private.stripe_time('1768003200'), '2026-01-10 00:00:00+00'::timestamptz,
  'a Unix time in seconds'
);
select is(
  billing_private.stripe_time('0'), '1970-01-01 00:00:00+00'::timestamptz,
  'second zero is a time'
);
select is(billing_private.stripe_time('null'), null, 'null is never 1970');
select is(billing_private.stripe_time(null), null, 'an absent time is no time');
select is(
  billing_private.stripe_time('32503680000'), '3000-01-01 00:00:00+00'::timestamptz,
  'a time in the year 3000'
);
select is(
  billing_private.stripe_time('1768003200000'), null,
  'G19: milliseconds taken for seconds are no time'
);
select is(billing_private.stripe_time('-1'), null, 'a negative time is no time');
select is(
  billing_private.stripe_time('"2026-01-10T08:00:00.250Z"'),
  '2026-01-10 08:00:00.25+00'::timestamptz,
  'D18: a time as thin events write it'
);
select is(
  billing_private.stripe_time('"2026-02-30T00:00:00Z"'), null,
  'a day that is in no calendar is no time'
);
select is(billing_private.stripe_time('"now"'), null, 'a word is no time');

-- ---- the owner: numbers -----------------------------------------------------

select is(
  billing_private.stripe_integer('999999999999999999'), 999999999999999999,
  'D15: eighteen digits fit'
);
select is(billing_private.stripe_integer('-250'), -250::bigint, 'a credit is negative');
select is(billing_private.stripe_integer('0.5'), null, 'D17: half a cent is no whole number');
select is(
  billing_private.stripe_integer('99999999999999999999'), null,
  'D15: what does not fit is unknown, and no error'
);
select is(billing_private.stripe_integer('null'), null, 'null is never zero');
select is(billing_private.stripe_count('2147483647'), 2147483647, 'a count fits an integer');
select is(billing_private.stripe_count('2147483648'), null, 'a larger one is unknown');
select is(billing_private.stripe_count('0'), 0, 'none is a count');
select is(billing_private.stripe_count('-1'), null, 'less than none is not');

-- ---- the owner: currencies --------------------------------------------------

select is(billing_private.stripe_currency('"USD"'), 'usd', 'a currency is in lower case');
select is(billing_private.stripe_currency('"dollar"'), 'xxx', 'a word is no currency');
select is(billing_private.stripe_currency('null'), 'xxx', 'nor is null');
select is(billing_private.stripe_currency(null), 'xxx', 'nor is what is not there');

-- ---- the owner: periods and discounts ---------------------------------------

select is(
  billing_private.period_of('{"current_period_start": 200, "current_period_end": 200}', '{}')::text,
  row(to_timestamp(200), to_timestamp(200))::text,
  'a period may be empty'
);
select is(
  billing_private.period_of('{"current_period_start": 200, "current_period_end": 199}', '{}')::text,
  '(,)',
  'one that ends before it begins is unknown'
);
select is(
  array(
    select discount_id
    from billing_private.discounts_of(
      '{"discounts": [{"id": null}, "di_1"], "items": {"data": [{"discounts": [{}]}]}}')
  ),
  array['di_1'],
  'a discount without id is none'
);

-- ---- the owner: account ids in metadata -------------------------------------

select is(
  billing_private.uuid_or_null(md5('ann')::uuid::text), md5('ann')::uuid,
  'an account id is read'
);
select is_empty(
  $$
    select text
    from unnest(array['', 'ann', '1', md5('ann'), md5('ann')::uuid || 'x']) as text
    where billing_private.uuid_or_null(text) is not null
  $$,
  'any other text is nobody''s id, and no error'
);

select * from finish();
rollback;
