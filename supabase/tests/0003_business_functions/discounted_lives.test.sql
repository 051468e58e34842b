-- Sixty lives of invoiced subscriptions with codes, seats and prices that change at random: every
-- invoice adds up, no code takes more than there is, and nobody gets back what was never charged.
begin;
\ir ../helpers.psql
select plan(7);

select tests.catalog();
insert into billing_private.discount_codes (code, percent_off, amount_off_minor, currency, periods)
values
  ('third', 33.33, null, null, 3), ('half', 50, null, null, null), ('all', 100, null, null, 2),
  ('few', null, 137, 'usd', null), ('much', null, 99999, 'usd', 2);

create function tests.live(p_number integer) returns void
language plpgsql as $$
declare
  v_account_id uuid := md5('life ' || p_number)::uuid;
  v_at timestamptz := timestamptz '2026-01-31 10:00' + p_number * interval '7 hours';
  v_code text := (array['third', 'half', 'all', 'few', 'much', null])[1 + p_number % 6];
  v_id uuid;
begin
  perform tests.set_time(v_at);
  perform billing_private.ensure_account(v_account_id);
  v_id := billing_private.start_manual_subscription(
    v_account_id, md5('plus_monthly')::uuid, 1 + p_number % 4, null, 'invoiced', null, 14, v_code);
  for v_step in 1 .. 8 loop
    v_at := v_at + random() * interval '25 days';
    perform tests.set_time(v_at);
    perform billing_private.renew_manual_subscriptions(100);
    perform billing_private.set_manual_terms(
      v_id,
      md5((array['plus_monthly', 'basic_monthly', 'plus_yearly'])[
        1 + floor(random() * case when v_step = 8 then 3 else 2 end)::integer])::uuid,
      1 + floor(random() * 5)::bigint, v_at);
  end loop;
end;
$$;

select setseed(0.2026);
select tests.live(number) from generate_series(1, 60) as number;

create view tests.bills as
select
  invoices.*, lines.amount_minor as lines_minor, lines.discount_minor as lines_off_minor,
  lines.periods_minor, lines.periods_off_minor
from billing.invoices
cross join lateral (
  select
    sum(amount_minor) as amount_minor,
    sum(discount_minor) as discount_minor,
    sum(amount_minor) filter (where not is_proration) as periods_minor,
    sum(discount_minor) filter (where not is_proration) as periods_off_minor
  from billing.invoice_lines
  where invoice_id = invoices.id
) as lines;

select cmp_ok(
  (select count(*) from tests.bills where discount_minor > 0), '>', 60::bigint,
  'many invoices have a discount'
);
select is_empty(
  $$
    select number, subtotal_minor, discount_minor, total_minor
    from tests.bills
    where lines_minor <> subtotal_minor
      or lines_off_minor <> discount_minor
      or total_minor <> subtotal_minor - discount_minor
  $$,
  'lines add up to the subtotal, their discounts to the discount, and the total is what is left'
);
select is_empty(
  $$
    select invoices.number, invoice_lines.*
    from billing.invoice_lines
    join billing.invoices on invoices.id = invoice_id
    where abs(invoice_lines.discount_minor) > abs(invoice_lines.amount_minor)
      or sign(invoice_lines.discount_minor) = -sign(invoice_lines.amount_minor)
        and invoice_lines.discount_minor <> 0
  $$,
  'no line is discounted by more than it is, nor the wrong way'
);
select is_empty(
  $$
    select account_id, sum(total_minor)
    from tests.bills
    group by account_id
    having sum(total_minor) < 0
  $$,
  'nobody is given more than was charged'
);
select is_empty(
  $$
    select discount_codes.code, periods_used, periods
    from billing.discount_redemptions
    join billing_private.discount_codes on discount_codes.id = discount_code_id
    where periods_used > periods
  $$,
  'no code is used for more periods than it is for'
);
select is_empty(
  $$
    select tests.bills.number, periods_minor, periods_off_minor, percent_off
    from tests.bills
    join billing.discount_redemptions using (subscription_id)
    join billing_private.discount_codes on discount_codes.id = discount_code_id
    where periods_off_minor not in (
      0, least(periods_minor, coalesce(
        amount_off_minor, round(periods_minor * percent_off / 100))))
  $$,
  'a period has all of its code''s discount or none, to the unit'
);
select is_empty(
  $$ select * from billing_private.money_violations_of(array(select id from billing.accounts)) $$,
  'and the books balance'
);

select * from finish();
rollback;
