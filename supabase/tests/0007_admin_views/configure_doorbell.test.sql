-- billing_admin.configure_doorbell(): where the dispatcher is, and which secret opens it.
begin;
\ir ../helpers.psql
\ir ../0006_scheduled_automation/doorbell.psql
\if :has_pg_net
select plan(1);
select skip('pg_net is installed: there is no place for a stand-in');
\else
select plan(20);

select tests.set_time('2026-01-10');
insert into billing_private.administrators (user_id, reason) values (md5('ada')::uuid, 'test');
insert into vault.secrets values ('key', 'sb_secret_1');

create function pg_temp.settings() returns text
language sql security definer as $$
  select format('%s %s', functions_url, functions_secret_name) from billing_private.settings;
$$;
savepoint installed;

-- ---- switching it on --------------------------------------------------------

select tests.sign_in('ada');
select is(
  billing_admin.configure_doorbell('https://p.supabase.co/functions/v1/', 'key', 'going live'),
  'ready', 'an administrator switches the doorbell on'
);
select is(
  pg_temp.settings(), 'https://p.supabase.co/functions/v1 key',
  'the address is kept, without a slash at its end'
);
select is(
  billing_admin.configure_doorbell('https://p.supabase.co/functions/v1', 'key', 'again'),
  'ready', 'twice changes nothing'
);
select is(
  billing_admin.configure_doorbell('https://p.supabase.co/functions/v1', 'other', 'a new key'),
  'the Vault has no secret named other', 'what is missing is told'
);
select is(
  pg_temp.settings(), 'https://p.supabase.co/functions/v1 other',
  'and it rings as soon as that is there'
);
select is(billing_admin.configure_doorbell(null, null, 'off'), 'off', 'it can be switched off');
select is(pg_temp.settings(), ' ', 'then nothing is kept');
select tests.be_owner();
select results_eq(
  $$
    select count(*), count(*) filter (where actor_id = md5('ada')::uuid and reason = 'going live')
    from billing_private.admin_actions
    where action = 'configure_doorbell'
  $$,
  'values (4::bigint, 1::bigint)',
  'who did it and why is on record'
);
rollback to installed;

drop schema net cascade;
select is(
  billing_admin.configure_doorbell('https://p.supabase.co/functions/v1', 'key', 'early'),
  'pg_net is not installed', 'a missing extension is told'
);
rollback to installed;

-- ---- what is no address -----------------------------------------------------

create function pg_temp.accepts(p_url text) returns boolean
language plpgsql as $$
begin
  perform billing_admin.configure_doorbell(p_url, 'key', 'a try');
  return true;
exception when sqlstate 'PT400' then
  return false;
end;
$$;

select is_empty(
  $$
    select url
    from unnest(array[
      'https://p.supabase.co', 'https://p.supabase.co:8443/functions/v1', 'http://localhost:55321',
      'http://127.0.0.1:54321/functions/v1', 'http://kong:8000/functions/v1',
      'http://host.docker.internal:54321/functions/v1'
    ]) as url
    where not pg_temp.accepts(url)
  $$,
  'https anywhere, and http within the machine or its containers'
);
select is_empty(
  $$
    select url
    from unnest(array[
      '', 'p.supabase.co', 'ftp://p.supabase.co', 'http://p.supabase.co/functions/v1',
      'https://', 'https:///functions', 'https://p.supabase.co?key=1', 'https://p.supabase.co/#x',
      'https://user:secret@p.supabase.co', 'https://p.supabase.co/a b', 'http://127.0.0.1.evil.com',
      E'https://p.supabase.co\nhttps://q', 'http://localhost:55321?x'
    ]) as url
    where pg_temp.accepts(url)
  $$,
  'a secret key is never sent in clear text, or to what is no address'
);
rollback to installed;
select tests.sign_in('ada');
select throws_ok(
  $$ select billing_admin.configure_doorbell('https://p.supabase.co', null, 'a try') $$,
  'PT400', 'the request is not valid', 'an address needs a key'
);
select throws_ok(
  $$ select billing_admin.configure_doorbell(null, 'key', 'a try') $$,
  'PT400', 'the request is not valid', 'and a key an address'
);
select throws_ok(
  $$ select billing_admin.configure_doorbell('https://p.supabase.co', '  ', 'a try') $$,
  'PT400', 'the request is not valid', 'a key has a name'
);
select throws_ok(
  $$ select billing_admin.configure_doorbell('https://p.supabase.co', 'key', '') $$,
  'PT400', 'the request is not valid', 'a reason has to be given'
);
select is(pg_temp.settings(), ' ', 'none of these changed anything');

-- ---- who may ----------------------------------------------------------------

select tests.sign_in('bob');
select throws_ok(
  $$ select billing_admin.configure_doorbell('https://evil.example', 'key', 'mine') $$,
  'PT403', 'this needs a billing administrator',
  'a user cannot have the key sent elsewhere'
);
select tests.sign_out();
select throws_ok(
  $$ select billing_admin.configure_doorbell('https://evil.example', 'key', 'mine') $$,
  '42501', 'permission denied for schema billing_admin',
  'nor can a visitor'
);
select tests.be_service();
select lives_ok(
  $$ select billing_admin.configure_doorbell(null, null, 'deployment') $$,
  'the service may'
);
select tests.be_owner();
select throws_ok(
  $$ update billing_private.settings set functions_url = 'https://x' where only_row $$,
  '23514',
  'new row for relation "settings" violates check constraint "settings_doorbell_is_whole"',
  'half a doorbell cannot be stored'
);
\endif

select * from finish();
rollback;
