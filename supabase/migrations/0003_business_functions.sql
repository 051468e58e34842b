-- =============================================================================
-- 0003  business functions
--
-- What happens: Stripe's events become rows, users' wishes become commands, manual
-- subscriptions live by the same rules. Who has access because of it is decided in 0005.
--
-- Reads      0001 tables and helpers, 0002 inbox, outbox, handlers
-- Read by    0005 access, 0006 automation, 0007 admin
--
-- Invariants
--   * A verified event is stored whatever happens to it afterwards; applying it is a
--     subtransaction whose failure is kept and retried.
--   * What is stored of an object is a function of the set of its snapshots, not of their order.
--   * Whoever writes what belongs to a customer holds that customer's lock; whoever decides
--     about an account's subscriptions holds that account's lock.
--   * Nothing here calls Stripe. Commands are rows; the checkout function carries them.
--
-- Contents
--   1  reading Stripe's JSON
--   2  which snapshot is newest
--   3  whose customer it is
--   4  projector: customer
--   5  projector: product and price
--   6  projector: subscription schedule
--   7  projector: subscription
--   8  projectors: coupon, promotion code, discount
--   9  projector: invoice
--   10  projectors: payment intent, charge, refund, payment method
--   11  projectors: dispute, early fraud warning, credit note
--   12  projector: entitlement summary
--   13  lists beyond what a snapshot shows
--   14  projectors: setup intent, tax id, test clock, meter
--   15  what refunds and disputes leave
--   16  projector: checkout session
--   17  applying an event
--   18  billing.ingest_stripe_event() and ingest_stripe_events()
--   19  billing.report_rejected_webhook()
--   20  history of subscriptions
--   21  what a price comes to
--   22  billing.plan_offers and list_plans()
--   23  billing.my_subscription()
--   24  commands
--   25  one trial per person
--   26  billing.prepare_checkout()
--   27  billing.prepare_portal()
--   28  billing.find_discount()
--   29  billing.claim_commands() and complete_command()
--   30  rules of the lifecycle
--   31  billing.cancel_subscription() and undo_cancel()
--   32  billing.change_plan()
--   33  billing.preview_change()
--   34  billing.pause_subscription() and resume_subscription()
--   35  billing.prepare_payment_method()
--   36  manual subscriptions
--   37  invoices of manual subscriptions
--   38  proration
--   39  reconciliation with Stripe
--   40  publishing the catalog
--   41  reporting usage to Stripe's meters
--   42  which invoices are overdue
--   43  whether and when to collect again
--   44  doing what dunning policies say
--   45  discount codes
--   46  discounts on our own invoices
--   47  what a contract says
--   48  the life of a contract
--   49  billing.payment_history
--   50  usage: terms
--   51  usage: what a period allows
--   52  usage: periods and what they leave
--   53  usage: deciding and counting
--   54  billing.consume()
--   55  organizations and their members
--   56  seats
--   57  rows of the application's tables
--   58  moving subscribers to other plans
--   59  closing accounts
--   60  billing.record_usage() and record_usage_batch()
--   61  billing.reserve(), settle() and release()
--   62  usage: corrections
--   63  billing.usage_summary()
--   64  hook events
--   65  who may call what
-- =============================================================================


-- -----------------------------------------------------------------------------
-- 1  reading Stripe's JSON
-- -----------------------------------------------------------------------------

create function billing_private.parse_json(p_text text)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- jsonb refuses \u0000 and unpaired surrogates; Stripe's customers can type both. Most texts have
  -- no escape at all, which is found in a tenth of the time.
  if strpos(p_text, '\u') > 0 and p_text ~ '\\u(0000|[dD][89a-fA-F])' then
    -- A backslash that is text is spelt in letters first: what follows it is no escape.
    p_text := regexp_replace(p_text, '\\\\', '\\u005c', 'g');
    p_text := regexp_replace(p_text, '\\u0000', '', 'g');
    p_text := regexp_replace(
      p_text, '\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])', '\\ufffd', 'g');
    p_text := regexp_replace(
      p_text, '(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}', '\\ufffd', 'g');
  end if;
  return p_text::jsonb;
end;
$$;

comment on function billing_private.parse_json(text) is
  'jsonb of a JSON text as other systems write it: NUL characters are dropped, half surrogate '
  'pairs replaced.';


create function billing_private.stripe_id(p_value jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case jsonb_typeof(p_value)
    when 'string' then nullif(p_value #>> '{}', '')
    when 'object' then nullif(p_value ->> 'id', '')
  end;
end;
$$;

comment on function billing_private.stripe_id(jsonb) is
  'The id behind an expandable field: given as id, as object, as deleted object, or null.';


create function billing_private.stripe_time(p_value jsonb)
returns timestamptz
language plpgsql
immutable
set search_path = ''
as $$
begin
  if p_value #>> '{}' ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$' then
    begin
      return (p_value #>> '{}')::timestamptz;
    exception when datetime_field_overflow then
      return null;
    end;
  end if;

  -- Milliseconds taken for seconds would be the year 57,000: such a value is no time at all.
  if jsonb_typeof(p_value) <> 'number'
    or (p_value #>> '{}')::numeric not between 0 and 32503680000
  then
    return null;
  end if;
  return to_timestamp((p_value #>> '{}')::double precision);
end;
$$;

comment on function billing_private.stripe_time(jsonb) is
  'A time as timestamptz: Unix seconds, or text as in thin events; null for null, for anything '
  'else, and beyond the year 3000.';


create function billing_private.stripe_integer(p_value jsonb)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_text text := p_value #>> '{}';
begin
  if v_text !~ '^-?[0-9]{1,18}$' then
    return null;
  end if;
  return v_text::bigint;
end;
$$;

comment on function billing_private.stripe_integer(jsonb) is
  'A whole number as bigint; null for null, fractions and what does not fit.';


create function billing_private.stripe_count(p_value jsonb)
returns integer
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_count bigint := billing_private.stripe_integer(p_value);
begin
  return case when v_count between 0 and 2147483647 then v_count end;
end;
$$;

comment on function billing_private.stripe_count(jsonb) is
  'How many, as integer; null for null, fractions, and what is below zero or does not fit.';


create function billing_private.stripe_currency(p_value jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_code text := lower(p_value #>> '{}');
begin
  return case when v_code ~ '^[a-z]{3}$' then v_code else 'xxx' end;
end;
$$;

comment on function billing_private.stripe_currency(jsonb) is
  'A three-letter code in lower case; xxx, which is no currency in ISO 4217, for all else.';


create function billing_private.stripe_decimal(p_value jsonb)
returns numeric
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- A text in events, a number in what some clients pass on.
  return (
    case when p_value #>> '{}' ~ '^-?[0-9]{1,30}(\.[0-9]{1,30})?$' then p_value #>> '{}' end
  )::numeric;
end;
$$;

comment on function billing_private.stripe_decimal(jsonb) is
  'A decimal number, written as text or as number; null for null and anything else.';


create function billing_private.price_of(p_item jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- price since 2020-08-27, beside it plan; only plan before. On lines under pricing since basil.
  return coalesce(
    billing_private.stripe_id(p_item #> '{pricing,price_details,price}'),
    billing_private.stripe_id(p_item -> 'price'),
    billing_private.stripe_id(p_item -> 'plan'));
end;
$$;

comment on function billing_private.price_of(jsonb) is
  'The price of an item of a subscription, of a phase, or of an invoice, from any API version.';


create function billing_private.sum_of(
  p_object jsonb,
  p_path jsonpath
)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return coalesce(
    (
      select sum(billing_private.stripe_integer(amount))::bigint
      from jsonb_path_query(p_object, p_path) as amount
    ),
    0);
end;
$$;

comment on function billing_private.sum_of(jsonb, jsonpath) is
  'The whole numbers a path leads to, added up; 0 when it leads nowhere.';


create function billing_private.tax_of(p_invoice jsonb)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- A list of amounts since basil (2025-03-31), one number before.
  return coalesce(
    billing_private.stripe_integer(p_invoice -> 'tax'),
    billing_private.sum_of(p_invoice, '$.total_taxes[*].amount'));
end;
$$;

comment on function billing_private.tax_of(jsonb) is
  'The tax on an invoice, from any API version.';


create function billing_private.subscription_of(p_invoice jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- Since basil under parent, which one-off invoices do not have; before at the top.
  return coalesce(
    billing_private.stripe_id(p_invoice #> '{parent,subscription_details,subscription}'),
    billing_private.stripe_id(p_invoice -> 'subscription'));
end;
$$;

comment on function billing_private.subscription_of(jsonb) is
  'The subscription an invoice is for, from any API version; null for a one-off invoice.';


create function billing_private.subscription_metadata_of(p_invoice jsonb)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- Under parent since basil.
  return coalesce(
    nullif(p_invoice #> '{parent,subscription_details,metadata}', 'null'),
    nullif(p_invoice #> '{subscription_details,metadata}', 'null'));
end;
$$;

comment on function billing_private.subscription_metadata_of(jsonb) is
  'The metadata of its subscription that an invoice repeats, from any API version.';


create function billing_private.item_of(p_line jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- Under parent since basil.
  return coalesce(
    billing_private.stripe_id(p_line #> '{parent,subscription_item_details,subscription_item}'),
    billing_private.stripe_id(p_line -> 'subscription_item'));
end;
$$;

comment on function billing_private.item_of(jsonb) is
  'The subscription item a line of an invoice is for, from any API version.';


create function billing_private.is_proration(p_line jsonb)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- Under parent since basil.
  return coalesce(p_line #> '{parent,subscription_item_details,proration}' = 'true', false)
    or coalesce(p_line #> '{parent,invoice_item_details,proration}' = 'true', false)
    or coalesce(p_line -> 'proration' = 'true', false);
end;
$$;

comment on function billing_private.is_proration(jsonb) is
  'Whether a line of an invoice settles a change within a period, from any API version.';


create function billing_private.period_of(
  p_item jsonb,
  p_subscription jsonb,
  out period_start timestamptz,
  out period_end timestamptz
)
returns record
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- Up to acacia the period is the subscription's, since basil (2025-03-31) each item's.
  period_start := coalesce(
    billing_private.stripe_time(p_item -> 'current_period_start'),
    billing_private.stripe_time(p_subscription -> 'current_period_start'));
  period_end := coalesce(
    billing_private.stripe_time(p_item -> 'current_period_end'),
    billing_private.stripe_time(p_subscription -> 'current_period_end'));
  -- Stripe's own sample objects have such: it says nothing about when anything ends.
  if period_end < period_start then
    period_start := null;
    period_end := null;
  end if;
end;
$$;

comment on function billing_private.period_of(jsonb, jsonb) is
  'The period an item of a subscription is in, end exclusive, from any API version; nulls where '
  'nobody says, or what is said cannot be.';


create function billing_private.uuid_or_null(p_text text)
returns uuid
language plpgsql
immutable
set search_path = ''
as $$
begin
  if p_text ~* '^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$' then
    return p_text::uuid;
  end if;
  return null;
end;
$$;

comment on function billing_private.uuid_or_null(text) is
  'A uuid from outside, or null when it is none: metadata is free text.';


-- -----------------------------------------------------------------------------
-- 2  which snapshot is newest
-- -----------------------------------------------------------------------------

-- Stripe's created has whole seconds and events come in any order, so no single comparison decides.
-- Chosen instead of a "last synced" guard, which either keeps or loses the second of two equals.

create function billing_private.is_final_snapshot(
  p_event_type text,
  p_object jsonb
)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_status text := p_object ->> 'status';
begin
  -- A coupon's id may be given to another one after it was deleted.
  return p_object ->> 'object' is distinct from 'coupon' and (
    p_event_type like '%.deleted'
    or p_event_type = 'payment_method.detached'
    or coalesce(p_object -> 'deleted' = 'true', false)
    or case p_object ->> 'object'
      when 'subscription' then coalesce(v_status in ('canceled', 'incomplete_expired'), false)
      when 'invoice' then coalesce(v_status in ('paid', 'void'), false)
      when 'checkout.session' then coalesce(v_status in ('complete', 'expired'), false)
      when 'payment_intent' then coalesce(v_status in ('succeeded', 'canceled'), false)
      when 'refund' then coalesce(v_status in ('failed', 'canceled'), false)
      when 'subscription_schedule' then
        coalesce(v_status in ('canceled', 'completed', 'released'), false)
      when 'setup_intent' then coalesce(v_status in ('succeeded', 'canceled'), false)
      when 'credit_note' then coalesce(v_status = 'void', false)
      else false
    end);
end;
$$;

comment on function billing_private.is_final_snapshot(text, jsonb) is
  'True for a state nothing leads out of. Needs no clock, so it outranks every time stamp.';


create function billing_private.status_rank(p_object jsonb)
returns integer
language plpgsql
immutable
set search_path = ''
as $$
begin
  return coalesce(case p_object ->> 'object'
    when 'subscription' then array_position(array['incomplete', 'trialing'], p_object ->> 'status')
    when 'invoice' then
      array_position(array['draft', 'open', 'uncollectible', 'void'], p_object ->> 'status')
    when 'charge' then array_position(array['pending'], p_object ->> 'status')
    when 'refund' then array_position(array['pending', 'requires_action'], p_object ->> 'status')
    when 'checkout.session' then array_position(array['open'], p_object ->> 'status')
    -- An inquiry may become a dispute, and what is lost or won is open to appeal: none is final.
    when 'dispute' then array_position(
      array['warning_needs_response', 'warning_under_review', 'warning_closed', 'needs_response',
        'under_review'],
      p_object ->> 'status')
    when 'subscription_schedule' then
      array_position(array['not_started'], p_object ->> 'status')
    when 'radar.early_fraud_warning' then
      case when p_object -> 'actionable' = 'true' then 1 end
  end, 9);
end;
$$;

comment on function billing_private.status_rank(jsonb) is
  'How far an object has come in its life, as far as the order is forced; 9 for all later states, '
  'which can alternate.';


create function billing_private.undo_change(
  p_object jsonb,
  p_previous jsonb
)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  if jsonb_typeof(p_object) is distinct from 'object'
    or jsonb_typeof(p_previous) is distinct from 'object'
  then
    return p_previous;
  end if;
  return p_object || coalesce(
    (
      select jsonb_object_agg(key, case
        when jsonb_typeof(value) = 'object'
          then billing_private.undo_change(p_object -> key, value)
        else value
      end)
      from jsonb_each(p_previous)
    ),
    '{}');
end;
$$;

comment on function billing_private.undo_change(jsonb, jsonb) is
  'An object as it was before a change, from what it is and the change''s previous_attributes: in '
  'hashes only the keys that changed, lists whole.';


-- Its body is long because it is one query over one set.
create function billing_private.newest_of_second(
  p_object_id text,
  p_occurred_at timestamptz,
  out event_id text,
  out is_ambiguous boolean
)
language plpgsql
stable
set search_path = ''
as $$
begin
  with found as materialized (
    select
      stored.event_id,
      stored.source,
      stored.sequence,
      stored.api_version,
      stored.builds_on,
      stored.type like '%.created' as is_creation,
      billing_private.is_final_snapshot(stored.type, stored.object)::integer as is_final,
      billing_private.status_rank(stored.object) as rank,
      -- Stripe writes null for what is not there, and leaves it out as well.
      jsonb_strip_nulls(stored.object) as object,
      stored.previous,
      case when stored.previous is not null then
        jsonb_strip_nulls(billing_private.undo_change(stored.object, stored.previous))
      end as state_before,
      coalesce(stored.sequence < max(stored.sequence) filter (
        where stored.source = 'reread'
      ) over (), false) as is_outdated
    from (
      select
        stripe_events.event_id, stripe_events.source, stripe_events.api_version,
        stripe_events.builds_on, stripe_events.type, stripe_events.sequence,
        parsed.data -> 'object' as object,
        nullif(nullif(parsed.data -> 'previous_attributes', '{}'), 'null') as previous
      from billing_private.stripe_events
      cross join lateral (
        select billing_private.parse_json(stripe_events.payload) -> 'data' as data
        -- Keeps Postgres from parsing anew wherever the result is named.
        offset 0
      ) as parsed
      where stripe_events.object_id = p_object_id
        and stripe_events.occurred_at = p_occurred_at
        and coalesce(stripe_events.status_reason, 'superseded') = 'superseded'
        -- One that came in the same batch and has not had its turn; it shows nothing.
        and not billing_private.is_thin(stripe_events.type)
      offset 0
    ) as stored
  ),
  known as materialized (
    select
      found.*,
      -- A re-read that found what was known tells of no change: it is where later ones set out.
      nullif(
        coalesce(found.state_before, (
          select base.object from found as base where base.event_id = found.builds_on
        )),
        case when found.source = 'reread' then found.object end
      ) as origin
    from found
  ),
  -- A re-read knows of all that had come when Stripe was asked.
  snapshots as materialized (
    select *
    from known
    where not is_outdated
      or is_final = 1
        and not exists (
          select from known as answer where answer.source = 'reread' and answer.is_final = 1)
  ),
  -- One change may be told twice, by its event and by the answer to the command that made it.
  changes as materialized (
    select
      origin,
      object,
      greatest(
        count(*) filter (where source = 'webhook'), count(*) filter (where source <> 'webhook')
      ) as times,
      -- An answer that does not know what it changed may tell of the same as an event; and so may
      -- one that knows it in another API version than the event.
      bool_and(source = 'command') and exists (
        select
        from snapshots as other
        where other.object = snapshots.object
          and other.origin is not null
          and other.origin is distinct from snapshots.origin
          and (snapshots.origin is null or other.source = 'webhook')
      ) as is_repeated
    from snapshots
    where previous is not null
      or is_creation
      or source <> 'webhook'
    group by origin, object
  ),
  -- Rule after rule, each judging only those that are left: the later ones cost more.
  candidates as materialized (
    select *
    from (
      select
        snapshots.*,
        dense_rank() over (order by snapshots.is_final desc, snapshots.is_creation) as place
      from snapshots
    ) as ranked
    where ranked.place = 1
  ),
  arrived as materialized (
    select *
    from (
      select
        candidates.event_id, candidates.source, candidates.sequence, candidates.object,
        candidates.rank,
        -- Each change leads from one state to another: the last one is come to more often than
        -- left, also where the object goes back and forth. By times and by ways, because Stripe may
        -- tell one change in two events; where these differ, nobody knows.
        dense_rank() over (
          order by coming.times <= leaving.times or coming.ways <= leaving.ways
        ) as place
      from candidates
      cross join lateral (
        select
          coalesce(sum(changes.times), 0) as times,
          count(*) filter (where not changes.is_repeated) as ways
        from changes
        where changes.object = candidates.object
      ) as coming
      cross join lateral (
        select
          coalesce(sum(changes.times), 0) as times,
          count(*) filter (where not changes.is_repeated) as ways
        from changes
        where changes.origin = candidates.object
      ) as leaving
    ) as ranked
    where ranked.place = 1
  ),
  ranked as (
    select
      arrived.event_id,
      arrived.object,
      (
        select max(answer.sequence)
        from arrived as answer
        where answer.source = 'command' and answer.object = arrived.object
      ) as answered,
      dense_rank() over (
        -- Where a link is missing: what somebody else's "before" says came before that one.
        order by (select count(*) from arrived) > 1 and exists (
          select
          from snapshots as later
          where later.event_id <> arrived.event_id
            and (
              arrived.object = later.origin
              or later.previous is not null
                and arrived.object = jsonb_strip_nulls(
                  billing_private.undo_change(arrived.object, later.previous))
            )
        ),
        arrived.rank desc
      ) as place
    from arrived
  )
  select
    -- Our commands about an object are carried one after the other: of what is left, the state that
    -- the last of them was answered with.
    (array_agg(ranked.event_id order by ranked.answered desc nulls last, ranked.event_id desc))[1],
    count(distinct ranked.object) > 1
      -- What one API version says was there before is not what another one shows.
      or (select count(*) from (select distinct arrived.object from arrived) as ends) > 1
        and (
          select count(distinct coalesce(snapshots.api_version, snapshots.source))
          from snapshots
          where snapshots.source = 'webhook'
            -- An answer that an event repeats is of the event's version.
            or not exists (
              select
              from snapshots as told
              where told.source = 'webhook' and told.object = snapshots.object
            )
        ) > 1
      -- What came after the re-read was asked for may have happened before.
      or (
        select count(distinct candidates.object) > 1 and bool_or(candidates.source = 'reread')
        from candidates
      )
      -- An answer no event confirms, where an event tells of another way from the same state: that
      -- state may have been come to twice, and nobody knows from which time the answer is.
      or bool_or(exists (
        select
        from snapshots as answer
        join snapshots as other using (origin)
        where answer.event_id = ranked.event_id
          and answer.source = 'command'
          and other.source = 'webhook'
          and other.object <> answer.object
          and not exists (
            select
            from snapshots as confirming
            where confirming.source = 'webhook'
              and confirming.object = answer.object
          )
      ))
  into newest_of_second.event_id, newest_of_second.is_ambiguous
  from ranked
  where place = 1;
end;
$$;

comment on function billing_private.newest_of_second(text, timestamptz) is
$$Which of an object's snapshots of one second is the last: final states, then what came after the
last re-read was asked for, then chains of previous_attributes and of answers to commands,
then the rank of the status. Depends on the set alone. Ambiguous when those rules leave several
different ones; of these it is the one that our last command was answered with, if any.$$;


create function billing_private.state_of(p_object jsonb)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return jsonb_hash_extended(jsonb_strip_nulls(p_object), 0);
end;
$$;

comment on function billing_private.state_of(jsonb) is
  'A number for what a snapshot says, the same for the same; Stripe writes null for what is not '
  'there, and leaves it out as well.';


create function billing_private.link_of(
  p_stored billing_private.stripe_objects,
  p_event billing_private.stripe_events,
  p_data jsonb,
  out link text,
  out states bigint[]
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_state bigint := billing_private.state_of(p_data -> 'object');
  v_previous jsonb := nullif(nullif(p_data -> 'previous_attributes', '{}'), 'null');
  v_first billing_private.stripe_events;
begin
  if p_stored.states is null or p_event.source <> 'webhook' or p_event.type like '%.created' then
    return;
  end if;

  states := p_stored.states;
  if cardinality(states) = 1 then
    select * into v_first
    from billing_private.stripe_events
    where event_id = p_stored.event_id;
    states := billing_private.state_before(v_first) || states;
  end if;

  -- What creates an object gives way to what else says the same.
  if v_previous is null then
    link := case
      when v_state = states[cardinality(states)]
        and coalesce(v_first.type not like '%.created', true)
        then 'repeats'
    end;
  elsif v_state <> all (states)
    and states[cardinality(states)] = billing_private.state_of(
      billing_private.undo_change(p_data -> 'object', v_previous))
  then
    link := 'follows';
    states := states || v_state;
  end if;
end;
$$;

comment on function billing_private.link_of(
  billing_private.stripe_objects, billing_private.stripe_events, jsonb
) is
$$What a snapshot is to the stored one of the same second, where that can be told without looking at
the others: follows (it tells of a change of what is stored, to a state that is new) or repeats (it
says what is stored); else null. As long as each follows the one before, newest_of_second() would
choose the last. And the states to store then, the one before the first in front.$$;


create function billing_private.state_before(p_event billing_private.stripe_events)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_data jsonb := billing_private.parse_json(p_event.payload) -> 'data';
begin
  return case
    when jsonb_typeof(v_data -> 'previous_attributes') = 'object'
      then billing_private.state_of(
        billing_private.undo_change(v_data -> 'object', v_data -> 'previous_attributes'))
    else 0
  end;
end;
$$;

comment on function billing_private.state_before(billing_private.stripe_events) is
  'state_of() what an object was before an event, as far as the event tells; else zero.';


create type billing_private.snapshot_verdict as (
  newest_id text,
  is_known boolean
);

comment on type billing_private.snapshot_verdict is
  'The snapshot to project, null when what is stored is as new; and whether the event says just '
  'what is stored.';


-- Long because it is one decision, case by case, each noted as it is made.
create function billing_private.accept_snapshot(
  p_event billing_private.stripe_events,
  p_data jsonb
)
returns billing_private.snapshot_verdict
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_stored billing_private.stripe_objects;
  v_is_final boolean := billing_private.is_final_snapshot(p_event.type, p_data -> 'object');
  v_states bigint[] := case
    when p_event.source = 'webhook' then array[billing_private.state_of(p_data -> 'object')]
  end;
  -- Two that show the same of a list may differ in what they do not show.
  v_is_cut boolean := coalesce(
    'true' in (p_data #> '{object,items,has_more}', p_data #> '{object,lines,has_more}'), false);
  v_link record;
  v_newest record;
begin
  select * into v_stored
  from billing_private.stripe_objects
  where object_id = p_event.object_id
  for update;

  if not found then
    v_stored := billing_private.first_snapshot(p_event, v_is_final, v_states);
  end if;
  if v_stored.event_id = p_event.event_id then
    return row(p_event.event_id, false);
  end if;

  if v_is_final <> v_stored.is_final or p_event.occurred_at <> v_stored.occurred_at then
    if (v_is_final, p_event.occurred_at) < (v_stored.is_final, v_stored.occurred_at) then
      return row(null::text, false);
    end if;
    update billing_private.stripe_objects
    set event_id = p_event.event_id,
        occurred_at = p_event.occurred_at,
        states = v_states,
        is_final = v_is_final,
        is_ambiguous = false
    where object_id = p_event.object_id;
    return row(p_event.event_id, false);
  end if;

  v_link := billing_private.link_of(v_stored, p_event, p_data);
  if v_link.link = 'follows' or v_link.link is not null and not v_is_cut then
    update billing_private.stripe_objects
    set event_id = case v_link.link
          when 'repeats' then greatest(event_id, p_event.event_id)
          else p_event.event_id
        end,
        states = v_link.states
    where object_id = p_event.object_id;
    return row(
      case v_link.link when 'follows' then p_event.event_id end, v_link.link = 'repeats');
  end if;

  v_newest := billing_private.newest_of_second(p_event.object_id, p_event.occurred_at);

  update billing_private.stripe_objects
  set event_id = v_newest.event_id,
      states = null,
      is_ambiguous = v_newest.is_ambiguous
  where object_id = p_event.object_id
    and (event_id, is_ambiguous, states is null)
      is distinct from (v_newest.event_id, v_newest.is_ambiguous, true);

  if v_newest.is_ambiguous then
    perform billing_private.request_reread(v_stored.object_type, v_stored.object_id, 'ambiguous');
  end if;
  return row(
    case
      when v_newest.event_id <> v_stored.event_id or v_is_cut then v_newest.event_id
    end,
    false);
end;
$$;

comment on function billing_private.accept_snapshot(billing_private.stripe_events, jsonb) is
  'Takes note of a snapshot, given the data of its event, and says which one to project now.';


create function billing_private.first_snapshot(
  p_event billing_private.stripe_events,
  p_is_final boolean,
  p_states bigint[]
)
returns billing_private.stripe_objects
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_stored billing_private.stripe_objects;
begin
  -- Two first snapshots may come at once: not every event names the customer whose lock would keep
  -- them apart.
  insert into billing_private.stripe_objects (
    object_id, object_type, event_id, occurred_at, states, is_final
  )
  values (
    p_event.object_id, coalesce(p_event.object_type, 'unknown'), p_event.event_id,
    p_event.occurred_at, p_states, p_is_final
  )
  on conflict (object_id) do nothing
  returning * into v_stored;

  if not found then
    select * into v_stored
    from billing_private.stripe_objects
    where object_id = p_event.object_id
    for update;
  end if;
  return v_stored;
end;
$$;

comment on function billing_private.first_snapshot(
  billing_private.stripe_events, boolean, bigint[]
) is
  'Takes note of an object''s first snapshot; returns what is stored, which may have come just '
  'before.';


-- -----------------------------------------------------------------------------
-- 3  whose customer it is
-- -----------------------------------------------------------------------------

-- Locks are taken in this order, by everybody: catalog, customer, account, payment; then rows. Of
-- payments the invoice's comes before its payments'. Whoever comes without the customer's lock
-- takes none but these two, so whoever has it may take an account's in between.

create function billing_private.is_catalog_object(p_object_type text)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  return coalesce(p_object_type in ('product', 'price'), false);
end;
$$;

comment on function billing_private.is_catalog_object(text) is
  'True for objects of Stripe that others refer to: whoever writes one holds the catalog''s lock '
  'alone.';


create function billing_private.lock_catalog(p_object_type text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_key constant bigint := hashtextextended('billing.catalog', 0);
begin
  -- A subscription and its price that come at once would each miss what the other has not
  -- committed.
  if billing_private.is_catalog_object(p_object_type) then
    perform pg_advisory_xact_lock(v_key);
  else
    perform pg_advisory_xact_lock_shared(v_key);
  end if;
end;
$$;

comment on function billing_private.lock_catalog(text) is
  'Held until the transaction ends by whoever writes a product or price, alone, and by whoever '
  'writes what refers to them, together with others of this kind.';


create function billing_private.try_lock_catalog(p_object_type text)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_key constant bigint := hashtextextended('billing.catalog', 0);
begin
  return case
    when billing_private.is_catalog_object(p_object_type)
      then pg_try_advisory_xact_lock(v_key)
    else pg_try_advisory_xact_lock_shared(v_key)
  end;
end;
$$;

comment on function billing_private.try_lock_catalog(text) is
  'lock_catalog() for those who rather come back later than wait; false when it is not free.';


create function billing_private.lock_customer(p_key text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('billing.customer:' || p_key, 0));
end;
$$;

comment on function billing_private.lock_customer(text) is
  'Held until the transaction ends by whoever writes what belongs to a Stripe customer.';


create function billing_private.lock_account(p_account_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('billing.account:' || p_account_id, 0));
end;
$$;

comment on function billing_private.lock_account(uuid) is
  'Held until the transaction ends by whoever decides about an account''s subscriptions.';


create function billing_private.lock_payment(p_stripe_payment_key text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('billing.payment:' || p_stripe_payment_key, 0));
end;
$$;

comment on function billing_private.lock_payment(text) is
  'Held until the transaction ends by whoever binds a payment''s refunds and disputes or detaches '
  'a payment method, which name no customer: who comes second finds what the first has written.';


create function billing_private.account_of_customer(p_stripe_customer_id text)
returns uuid
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select account_id from billing.customers where stripe_customer_id = p_stripe_customer_id
  );
end;
$$;

comment on function billing_private.account_of_customer(text) is
  'The account a Stripe customer is bound to, or null while nobody knows.';


create function billing_private.bind_customer(
  p_stripe_customer_id text,
  p_account_id uuid
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if p_stripe_customer_id is null
    or billing_private.known_account(p_account_id) is null
    or billing_private.account_of_customer(p_stripe_customer_id) is not null
  then
    return;
  end if;

  -- Two customers of one account may come at once: one of them is the primary.
  perform billing_private.lock_account(p_account_id);

  -- The claim taken before the customer was created becomes this customer.
  delete from billing.customers
  where account_id = p_account_id
    and stripe_customer_id is null
    and exists (
      select from billing.customers where stripe_customer_id = p_stripe_customer_id
    );
  update billing.customers
  set stripe_customer_id = p_stripe_customer_id
  where account_id = p_account_id
    and stripe_customer_id is null;

  insert into billing.customers (stripe_customer_id, account_id)
  values (p_stripe_customer_id, p_account_id)
  on conflict (stripe_customer_id) do update
  set account_id = excluded.account_id
  where customers.account_id is null;

  perform billing_private.elect_primary_customer(p_account_id);
  perform billing_private.bind_customer_rows(p_stripe_customer_id, p_account_id);
  perform billing_private.note_trials(p_account_id);
end;
$$;

comment on function billing_private.bind_customer(text, uuid) is
  'Makes an account the owner of a Stripe customer and of all that came in for it. Never by '
  'e-mail, never away from another account.';


create function billing_private.elect_primary_customer(p_account_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_primary_id uuid;
begin
  perform billing_private.lock_account(p_account_id);

  -- By what Stripe says of them, never by who came first: they come in any order.
  select id into v_primary_id
  from billing.customers
  where account_id = p_account_id
    and deleted_at is null
  order by stripe_customer_id is null, created_at, stripe_customer_id
  limit 1;

  -- Nearly always it is already, and a statement has its triggers run all the same.
  if not exists (
    select
    from billing.customers
    where account_id = p_account_id
      and is_primary <> (id is not distinct from v_primary_id)
  ) then
    return;
  end if;

  update billing.customers
  set is_primary = false
  where account_id = p_account_id
    and is_primary
    and id is distinct from v_primary_id;
  update billing.customers
  set is_primary = true
  where id = v_primary_id
    and not is_primary;
end;
$$;

comment on function billing_private.elect_primary_customer(uuid) is
  'Makes the oldest of an account''s customers that are left its primary one; a claim only where '
  'there is no customer yet.';


-- Its body is long because it is a list: one update for each table.
create function billing_private.bind_customer_rows(
  p_stripe_customer_id text,
  p_account_id uuid
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_payment_keys text[];
begin
  perform billing_private.lock_payments_of(stripe_invoice_id, p_stripe_customer_id)
  from (
    select stripe_invoice_id
    from billing.invoices
    where stripe_customer_id = p_stripe_customer_id
    order by stripe_invoice_id
  ) as bills;
  v_payment_keys := array(
    select stripe_payment_key
    from billing.payments
    where stripe_customer_id = p_stripe_customer_id and account_id is null
    order by stripe_payment_key
  );
  perform billing_private.lock_payment(payment_key)
  from unnest(v_payment_keys) as payment_key;

  update billing.invoices
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;

  update billing.payment_methods
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;

  update billing.subscription_schedules
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;

  update billing.setup_intents
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;

  update billing.stripe_entitlements
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;

  update billing.tax_ids
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;

  update billing.credit_notes
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;

  update billing.discounts
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;

  update billing.payments
  set account_id = p_account_id
  where stripe_customer_id = p_stripe_customer_id and account_id is null;
  perform billing_private.bind_payment_rows(payment_key)
  from unnest(v_payment_keys) as payment_key;

  with bound as (
    update billing.subscriptions
    set account_id = p_account_id
    where stripe_customer_id = p_stripe_customer_id and account_id is null
    returning id
  ),
  restricted as (
    update billing.access_restrictions
    set account_id = p_account_id
    from bound
    where access_restrictions.subscription_id = bound.id
      and access_restrictions.account_id is null
  )
  update billing.subscription_changes
  set account_id = p_account_id
  from bound
  where subscription_changes.subscription_id = bound.id
    and subscription_changes.account_id is null;
end;
$$;

comment on function billing_private.bind_customer_rows(text, uuid) is
  'Gives an account the rows that were mirrored before anybody knew whose customer it is.';


create function billing_private.note_customer(
  p_stripe_customer_id text,
  p_metadata jsonb
)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.account_of_customer(p_stripe_customer_id);
begin
  if p_stripe_customer_id is null or v_account_id is not null then
    return v_account_id;
  end if;

  perform billing_private.bind_customer(
    p_stripe_customer_id, billing_private.uuid_or_null(p_metadata ->> 'account_id'));

  insert into billing.customers (stripe_customer_id)
  values (p_stripe_customer_id)
  on conflict (stripe_customer_id) do nothing;

  return billing_private.account_of_customer(p_stripe_customer_id);
end;
$$;

comment on function billing_private.note_customer(text, jsonb) is
  'Makes sure a customer mentioned by some object has a row, binds it if the metadata our commands'
  ' set name an account, and returns that account.';


-- -----------------------------------------------------------------------------
-- 4  projector: customer
-- -----------------------------------------------------------------------------

create function billing_private.project_customer(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id text := p_object ->> 'id';
  v_is_deleted boolean := p_event.type = 'customer.deleted'
    or coalesce(p_object -> 'deleted' = 'true', false);
  v_created_at timestamptz := billing_private.stripe_time(p_object -> 'created');
  v_account_id uuid;
  v_is_to_elect boolean;
begin
  perform billing_private.note_customer(v_id, p_object -> 'metadata');
  v_account_id := billing_private.account_of_customer(v_id);
  v_is_to_elect := exists (
    select
    from billing.customers
    where stripe_customer_id = v_id
      and (created_at, deleted_at is not null) is distinct from (v_created_at, v_is_deleted)
  );
  -- Before its row, as whoever elects among an account's customers does.
  if v_is_to_elect then
    perform billing_private.lock_account(v_account_id);
  end if;
  if p_object ? 'discount' then
    perform billing_private.list_discounts(p_object, v_account_id);
  end if;

  -- Stripe goes on knowing whom we forgot.
  if billing_private.is_closed(billing_private.account_of_customer(v_id)) then
    p_object := p_object - '{email,name}'::text[];
  end if;
  update billing.customers
  set email = p_object ->> 'email',
      name = p_object ->> 'name',
      currency = p_object ->> 'currency',
      is_delinquent = coalesce(p_object -> 'delinquent' = 'true', false),
      stripe_default_payment_method_id = billing_private.attached_payment_method(
        billing_private.default_method_of(p_object)),
      is_primary = is_primary and not v_is_deleted,
      deleted_at = case when v_is_deleted then p_event.occurred_at end,
      created_at = coalesce(v_created_at, created_at)
  where stripe_customer_id = v_id;

  if v_is_to_elect then
    perform billing_private.elect_primary_customer(v_account_id);
  end if;
  if v_is_deleted then
    perform billing_private.end_with_customer(v_id);
  end if;
  perform billing_private.note_trials(v_account_id);
end;
$$;

comment on function billing_private.project_customer(jsonb, billing_private.stripe_events) is
  'Mirrors a Stripe customer. Its deletion ends its subscriptions, as it does at Stripe.';


create function billing_private.default_method_of(p_customer jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return coalesce(
    billing_private.stripe_id(p_customer #> '{invoice_settings,default_payment_method}'),
    billing_private.stripe_id(p_customer -> 'default_source'));
end;
$$;

comment on function billing_private.default_method_of(jsonb) is
  'What a Stripe customer pays with: a payment method, or a source as they were before.';


create function billing_private.attached_payment_method(p_stripe_payment_method_id text)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return case
    when not exists (
      select
      from billing.payment_methods
      where stripe_payment_method_id = p_stripe_payment_method_id
        and detached_at is not null
    ) then p_stripe_payment_method_id
  end;
end;
$$;

comment on function billing_private.attached_payment_method(text) is
  'A payment method''s id, or null once it was detached: the snapshot that names it may be older.';


create function billing_private.end_with_customer(p_stripe_customer_id text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing.subscriptions
  set status = 'canceled',
      ended_at = customers.deleted_at,
      canceled_at = coalesce(subscriptions.canceled_at, customers.deleted_at),
      past_due_since = null,
      pending_price_id = null,
      pending_quantity = null,
      pending_change_at = null,
      updated_at = greatest(subscriptions.updated_at, customers.deleted_at)
  from billing.customers
  where customers.stripe_customer_id = p_stripe_customer_id
    and customers.deleted_at is not null
    and subscriptions.stripe_customer_id = p_stripe_customer_id
    and subscriptions.status not in ('canceled', 'incomplete_expired');
end;
$$;

comment on function billing_private.end_with_customer(text) is
  'Cancels what is left of a deleted customer''s subscriptions, whether or not Stripe''s own '
  'events about them have come.';


-- -----------------------------------------------------------------------------
-- 5  projector: product and price
-- -----------------------------------------------------------------------------

create function billing_private.is_waiting_plan(p_plan billing.plans)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(p_plan.key = p_plan.stripe_product_id, false)
    and not p_plan.is_listed
    and not exists (select from billing.plan_features where plan_id = p_plan.id);
end;
$$;

comment on function billing_private.is_waiting_plan(billing.plans) is
  'True for a plan that was made from a product nobody knew, and that nobody has made anything of.';


create function billing_private.claim_plan(
  p_plan_key text,
  p_stripe_product_id text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_plan_id uuid := (
    select id from billing.plans where key = p_plan_key and stripe_product_id is null
  );
  v_waiting billing.plans;
  v_price_ids uuid[];
begin
  select * into v_waiting
  from billing.plans
  where stripe_product_id = p_stripe_product_id;
  if v_plan_id is null
    or v_waiting.id is not null and not billing_private.is_waiting_plan(v_waiting)
  then
    return;
  end if;

  update billing.plans
  set stripe_product_id = null,
      is_active = false
  where id = v_waiting.id;
  update billing.plans
  set stripe_product_id = p_stripe_product_id
  where id = v_plan_id;

  -- Who bought the product while it waited has bought this plan.
  with moved as (
    update billing.prices
    set plan_id = v_plan_id
    where plan_id = v_waiting.id
    returning id
  )
  select array_agg(id) into v_price_ids from moved;
  perform billing_private.settle_prices(v_price_ids);

  -- What was migrated from or to it, or what a grant gave, still names it.
  begin
    delete from billing.plans where id = v_waiting.id;
  exception when foreign_key_violation then
    null;
  end;
end;
$$;

comment on function billing_private.claim_plan(text, text) is
  'Gives a Stripe product to the plan of this key, where that has none and nobody else has made '
  'anything of the product. Whichever of the two came first.';


create function billing_private.settle_prices(p_price_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Only where something was bound: a product may have more subscribers than one event can visit.
  if p_price_ids is null then
    return;
  end if;
  perform billing_private.settle_versions(array(
    select id from billing.subscription_items where price_id = any (p_price_ids)));
  perform billing_private.follow_base_item(array(
    select distinct subscription_items.subscription_id
    from billing.subscription_items
    where subscription_items.price_id = any (p_price_ids)));
  perform billing_private.follow_schedules_to(array(
    select stripe_price_id
    from billing.prices
    where id = any (p_price_ids) and stripe_price_id is not null));
end;
$$;

comment on function billing_private.settle_prices(uuid[]) is
  'What follows for those who have these prices from the plan that they were bound to.';


create function billing_private.find_products()
returns trigger
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_event billing_private.stripe_events;
begin
  if not exists (select from rows_after where stripe_product_id is null) then
    return null;
  end if;
  perform billing_private.lock_catalog('product');

  for v_event in
    select stripe_events.*
    from billing.plans as waiting
    join billing_private.stripe_objects on stripe_objects.object_id = waiting.stripe_product_id
    join billing_private.stripe_events using (event_id)
    cross join lateral (
      select billing_private.parse_json(stripe_events.payload) #> '{data,object}' as object
      offset 0
    ) as product
    join rows_after as written on written.key = product.object #>> '{metadata,plan_key}'
    where waiting.key = waiting.stripe_product_id
      and written.stripe_product_id is null
    order by product.object -> 'created', stripe_events.object_id
  loop
    perform billing_private.project_product(
      billing_private.parse_json(v_event.payload) #> '{data,object}', v_event);
  end loop;
  return null;
end;
$$;

comment on function billing_private.find_products() is
  'Gives new plans the products that were mirrored before them and name them by their key.';

create trigger t060_product
  after insert on billing.plans
  referencing new table as rows_after
  for each statement execute function billing_private.find_products();


create function billing_private.project_product(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id text := p_object ->> 'id';
  v_is_active boolean := p_event.type <> 'product.deleted'
    and coalesce(p_object -> 'active' = 'true', true);
  v_price_ids uuid[];
begin
  -- What is gone can be no plan's.
  if p_event.type <> 'product.deleted' then
    perform billing_private.claim_plan(p_object #>> '{metadata,plan_key}', v_id);
  end if;

  -- A product nobody knows waits unlisted until an admin has looked at it.
  insert into billing.plans (key, name, description, stripe_product_id, is_active, is_listed)
  values (
    v_id, coalesce(p_object ->> 'name', v_id), p_object ->> 'description', v_id, v_is_active, false
  )
  on conflict (stripe_product_id) do update
  set name = coalesce(p_object ->> 'name', plans.name),
      description = excluded.description,
      is_active = excluded.is_active;

  with bound as (
    update billing.prices
    set plan_id = plans.id
    from billing.plans
    where plans.stripe_product_id = v_id
      and prices.stripe_product_id = v_id
      and prices.plan_id is null
    returning prices.id
  )
  select array_agg(id) into v_price_ids from bound;

  perform billing_private.settle_prices(v_price_ids);
end;
$$;

comment on function billing_private.project_product(jsonb, billing_private.stripe_events) is
  'Keeps a plan''s name, description and activity as its Stripe product says; binds prices that '
  'came first.';


create function billing_private.settle_price_key(
  p_key text,
  p_stripe_price_id text
)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_holder text;
begin
  select prices.stripe_price_id into v_holder
  from billing.prices
  where prices.key = p_key
    and prices.is_active
    and prices.stripe_price_id is distinct from p_stripe_price_id
    and prices.stripe_price_id is not null;

  if v_holder is null then
    return p_key;
  end if;
  -- A lookup key moves from price to price; the two events may come in either order.
  if (select (occurred_at, object_id) from billing_private.stripe_objects
      where object_id = v_holder)
    > (select (occurred_at, object_id) from billing_private.stripe_objects
      where object_id = p_stripe_price_id)
  then
    return null;
  end if;

  update billing.prices
  set key = null,
      is_listed = false
  where stripe_price_id = v_holder;
  return p_key;
end;
$$;

comment on function billing_private.settle_price_key(text, text) is
  'Decides who holds a lookup key two active prices claim: the one whose snapshot is newer.';


create function billing_private.claim_price(
  p_object jsonb,
  p_key text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing.prices
  set stripe_price_id = p_object ->> 'id'
  where id = (
      select written.id
      from billing.prices as written
      cross join lateral (
        select coalesce(
          written.id = billing_private.uuid_or_null(p_object #>> '{metadata,price_id}'), false)
      ) as by_id (is_named)
      where written.stripe_price_id is null
        and (is_named or written.key = p_key and written.is_active)
      order by is_named desc
      limit 1
    )
    and not exists (select from billing.prices where stripe_price_id = p_object ->> 'id');
end;
$$;

comment on function billing_private.claim_price(jsonb, text) is
  'Gives Stripe''s id to the price that was written here first: named by its id, or else by its '
  'key.';


-- Long because it names every column twice.
create function billing_private.project_price(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id text := p_object ->> 'id';
  v_product_id text := billing_private.stripe_id(p_object -> 'product');
  v_is_active boolean := p_event.type <> 'price.deleted'
    and coalesce(p_object -> 'active' = 'true', true);
  v_key text := nullif(p_object ->> 'lookup_key', '');
  v_currency text := billing_private.stripe_currency(p_object -> 'currency');
  v_package_size bigint := nullif(greatest(
    billing_private.stripe_integer(p_object #> '{transform_quantity,divide_by}'), 0), 0);
begin
  if v_key is not null and v_is_active then
    v_key := billing_private.settle_price_key(v_key, v_id);
  end if;

  perform billing_private.claim_price(p_object, v_key);
  insert into billing.prices as stored (
    key, plan_id, currency, unit_amount_minor, unit_amount_decimal, billing_interval,
    interval_count, usage_type, billing_scheme, tiers_mode, tiers, package_size,
    package_rounding, trial_days, is_active, is_listed, stripe_price_id, stripe_product_id,
    stripe_meter_id
  )
  values (
    v_key,
    (select id from billing.plans where stripe_product_id = v_product_id),
    v_currency,
    billing_private.stripe_integer(p_object -> 'unit_amount'),
    billing_private.stripe_decimal(p_object -> 'unit_amount_decimal'),
    p_object #>> '{recurring,interval}',
    coalesce(nullif(billing_private.stripe_count(p_object #> '{recurring,interval_count}'), 0), 1),
    coalesce(p_object #>> '{recurring,usage_type}', 'licensed'),
    coalesce(p_object ->> 'billing_scheme', 'per_unit'),
    p_object ->> 'tiers_mode',
    case jsonb_typeof(p_object -> 'tiers') when 'array' then p_object -> 'tiers' end,
    v_package_size,
    case when v_package_size is not null
      then coalesce(p_object #>> '{transform_quantity,round}', 'up') end,
    billing_private.stripe_count(p_object #> '{recurring,trial_period_days}'),
    v_is_active,
    -- Only prices with a name are on offer: one made in the dashboard for one customer stays
    -- private.
    v_key is not null and v_currency <> 'xxx',
    v_id,
    v_product_id,
    billing_private.stripe_id(p_object #> '{recurring,meter}')
  )
  on conflict (stripe_price_id) do update
  set key = excluded.key,
      plan_id = coalesce(stored.plan_id, excluded.plan_id),
      currency = excluded.currency,
      unit_amount_minor = excluded.unit_amount_minor,
      unit_amount_decimal = excluded.unit_amount_decimal,
      billing_interval = excluded.billing_interval,
      interval_count = excluded.interval_count,
      usage_type = excluded.usage_type,
      billing_scheme = excluded.billing_scheme,
      tiers_mode = excluded.tiers_mode,
      -- Events leave them out; they never change.
      tiers = coalesce(excluded.tiers, stored.tiers),
      package_size = excluded.package_size,
      package_rounding = excluded.package_rounding,
      trial_days = coalesce(excluded.trial_days, stored.trial_days),
      is_active = excluded.is_active,
      -- An admin's word on a price that has a name stands.
      is_listed = excluded.is_listed and (stored.is_listed or stored.key is null),
      stripe_product_id = excluded.stripe_product_id,
      stripe_meter_id = excluded.stripe_meter_id;

  perform billing_private.bind_price(v_id);
  if p_object ->> 'billing_scheme' = 'tiered'
    and p_event.source <> 'reread'
    and exists (select from billing.prices where stripe_price_id = v_id and tiers is null)
  then
    perform billing_private.request_reread('price', v_id, 'its tiers are not in its events');
  end if;
end;
$$;

comment on function billing_private.project_price(jsonb, billing_private.stripe_events) is
  'Mirrors a Stripe price. What it costs is what Stripe charges, also where the catalog was '
  'written here first.';


create function billing_private.bind_price(p_stripe_price_id text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_subscription_ids uuid[];
  v_item_ids uuid[];
begin
  with bound as (
    update billing.subscription_items
    set price_id = prices.id
    from billing.prices
    where prices.stripe_price_id = p_stripe_price_id
      and subscription_items.stripe_price_id = p_stripe_price_id
      and subscription_items.price_id is null
    returning subscription_items.id, subscription_items.subscription_id
  )
  select array_agg(distinct subscription_id), array_agg(id)
  into v_subscription_ids, v_item_ids
  from bound;

  perform billing_private.settle_versions(v_item_ids);
  perform billing_private.follow_base_item(v_subscription_ids);
  perform billing_private.follow_schedules_to(array[p_stripe_price_id]);
end;
$$;

comment on function billing_private.bind_price(text) is
  'Gives a price to the subscription items and schedules that were mirrored before it.';


-- -----------------------------------------------------------------------------
-- 6  projector: subscription schedule
-- -----------------------------------------------------------------------------

create function billing_private.project_subscription_schedule(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
  v_account_id uuid := billing_private.note_customer(v_customer_id, null);
  v_phases jsonb := billing_private.phases_of(p_object);
  v_next jsonb := billing_private.next_phase(p_object, v_phases);
  v_subscription_id text := coalesce(
    billing_private.stripe_id(p_object -> 'subscription'),
    billing_private.stripe_id(p_object -> 'released_subscription'));
begin
  insert into billing.subscription_schedules as stored (
    account_id, status, end_behavior, phases, next_change_at, next_items, canceled_at,
    completed_at, released_at, stripe_schedule_id, stripe_subscription_id, stripe_customer_id,
    updated_at
  )
  values (
    v_account_id, p_object ->> 'status', p_object ->> 'end_behavior', v_phases,
    (v_next ->> 'starts_at')::timestamptz, v_next -> 'items',
    billing_private.stripe_time(p_object -> 'canceled_at'),
    billing_private.stripe_time(p_object -> 'completed_at'),
    billing_private.stripe_time(p_object -> 'released_at'),
    p_object ->> 'id', v_subscription_id, v_customer_id, p_event.occurred_at
  )
  on conflict (stripe_schedule_id) do update
  set account_id = coalesce(stored.account_id, excluded.account_id),
      status = excluded.status,
      end_behavior = excluded.end_behavior,
      phases = excluded.phases,
      next_change_at = excluded.next_change_at,
      next_items = excluded.next_items,
      canceled_at = excluded.canceled_at,
      completed_at = excluded.completed_at,
      released_at = excluded.released_at,
      -- What is over may not say any more whose it was.
      stripe_subscription_id = coalesce(
        excluded.stripe_subscription_id, stored.stripe_subscription_id),
      stripe_customer_id = coalesce(excluded.stripe_customer_id, stored.stripe_customer_id),
      updated_at = excluded.updated_at
  returning stripe_subscription_id into v_subscription_id;

  perform billing_private.follow_schedule(v_subscription_id);
end;
$$;

comment on function billing_private.project_subscription_schedule(
  jsonb, billing_private.stripe_events
) is
  'Mirrors a subscription schedule, from which follows what its subscription waits for.';


create function billing_private.phases_of(p_object jsonb)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return coalesce(
    (
      select jsonb_agg(
        jsonb_build_object(
          'starts_at', billing_private.stripe_time(phase -> 'start_date'),
          'ends_at', billing_private.stripe_time(phase -> 'end_date'),
          'items', billing_private.items_of_phase(phase))
        order by billing_private.stripe_time(phase -> 'start_date'))
      from jsonb_path_query(p_object, '$.phases[*] ? (@ != null)') as phase
    ),
    '[]');
end;
$$;

comment on function billing_private.phases_of(jsonb) is
  'The phases of a Stripe schedule in order, as billing.subscription_schedules keeps them.';


create function billing_private.items_of_phase(p_phase jsonb)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- plans in 2020, items since.
  return coalesce(
    (
      select jsonb_agg(jsonb_build_object(
        'stripe_price_id', billing_private.price_of(item),
        'quantity', billing_private.stripe_integer(item -> 'quantity')))
      from jsonb_path_query(
        coalesce(nullif(p_phase -> 'items', 'null'), p_phase -> 'plans'), '$[*] ? (@ != null)'
      ) as item
    ),
    '[]');
end;
$$;

comment on function billing_private.items_of_phase(jsonb) is
  'The items of a phase of a Stripe schedule, from any API version.';


create function billing_private.next_phase(
  p_object jsonb,
  p_phases jsonb
)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_running_until timestamptz := billing_private.stripe_time(
    p_object #> '{current_phase,end_date}');
begin
  return (
    select phase
    from jsonb_array_elements(p_phases) with ordinality as phases (phase, place)
    where p_object ->> 'status' in ('active', 'not_started')
      and (phase ->> 'starts_at')::timestamptz >= coalesce(v_running_until, '-infinity')
    order by place
    limit 1
  );
end;
$$;

comment on function billing_private.next_phase(jsonb, jsonb) is
  'The phase of a Stripe schedule that follows the running one; null when none does.';


create type billing_private.scheduled_change as (
  price_id uuid,
  quantity bigint,
  change_at timestamptz,
  stripe_schedule_id text
);

comment on type billing_private.scheduled_change is
  'What a subscription waits for, and by which schedule.';


create function billing_private.scheduled_change(
  p_stripe_subscription_id text,
  p_stripe_schedule_id text,
  p_as_of timestamptz,
  p_base billing.subscription_items
)
returns billing_private.scheduled_change
language plpgsql
stable
set search_path = ''
as $$
declare
  v_schedule billing.subscription_schedules;
  v_change billing_private.scheduled_change;
begin
  -- The subscription and its schedule are told in any order: what the newer one says counts.
  select * into v_schedule
  from billing.subscription_schedules
  where stripe_subscription_id = p_stripe_subscription_id
    and (
      stripe_schedule_id = p_stripe_schedule_id
      or (updated_at >= p_as_of and status in ('active', 'not_started'))
    )
  order by (status in ('active', 'not_started')) desc, updated_at desc, stripe_schedule_id
  limit 1;

  if not found then
    v_change.stripe_schedule_id := p_stripe_schedule_id;
  elsif v_schedule.status in ('active', 'not_started') then
    v_change := billing_private.leading_item(v_schedule.next_items);
    v_change.change_at := v_schedule.next_change_at;
    v_change.stripe_schedule_id := v_schedule.stripe_schedule_id;
  end if;

  v_change.quantity := nullif(v_change.quantity, p_base.quantity);
  if v_change.price_id is null
    or (v_change.price_id = p_base.price_id and v_change.quantity is null)
  then
    v_change.price_id := null;
    v_change.quantity := null;
    v_change.change_at := null;
  end if;
  return v_change;
end;
$$;

comment on function billing_private.scheduled_change(
  text, text, timestamptz, billing.subscription_items
) is
  'What a Stripe subscription waits for by its schedule, given the schedule its snapshot names, '
  'how old that is, and what it runs on; nulls when it waits for nothing.';


create function billing_private.leading_item(p_items jsonb)
returns billing_private.scheduled_change
language plpgsql
stable
set search_path = ''
as $$
declare
  v_item billing_private.scheduled_change;
begin
  -- In the order of base_item().
  select prices.id, (item ->> 'quantity')::bigint into v_item.price_id, v_item.quantity
  from jsonb_array_elements(p_items) with ordinality as items (item, place)
  join billing.prices on prices.stripe_price_id = item ->> 'stripe_price_id'
  left join billing.plans on plans.id = prices.plan_id
  order by (plans.kind = 'base') desc nulls last, plans.tier_rank desc nulls last, place
  limit 1;
  return v_item;
end;
$$;

comment on function billing_private.leading_item(jsonb) is
  'Price and quantity of the item a subscription will be named after; nulls while no price of them '
  'is in the catalog.';


create function billing_private.follow_schedule(p_stripe_subscription_id text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing.subscriptions
  set pending_price_id = change.price_id,
      pending_quantity = change.quantity,
      pending_change_at = change.change_at,
      stripe_schedule_id = change.stripe_schedule_id
  from billing.subscriptions as stored
  cross join lateral billing_private.base_item(stored.id) as base
  cross join lateral billing_private.scheduled_change(
    stored.stripe_subscription_id, stored.stripe_schedule_id, stored.updated_at, base
  ) as change
  where stored.stripe_subscription_id = p_stripe_subscription_id
    and subscriptions.id = stored.id
    and subscriptions.status not in ('canceled', 'incomplete_expired')
    and (subscriptions.pending_price_id, subscriptions.pending_quantity,
        subscriptions.pending_change_at, subscriptions.stripe_schedule_id)
      is distinct from
      (change.price_id, change.quantity, change.change_at, change.stripe_schedule_id);
end;
$$;

comment on function billing_private.follow_schedule(text) is
  'Writes what a Stripe subscription waits for into its row.';


create function billing_private.follow_schedules_to(p_stripe_price_ids text[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_stripe_price_id text;
begin
  foreach v_stripe_price_id in array p_stripe_price_ids loop
    perform billing_private.follow_schedule(subscription_schedules.stripe_subscription_id)
    from billing.subscription_schedules
    where next_items is not null
      and next_items @> jsonb_build_array(
        jsonb_build_object('stripe_price_id', v_stripe_price_id));
  end loop;
end;
$$;

comment on function billing_private.follow_schedules_to(text[]) is
  'Writes what waits into the rows of subscriptions whose schedules lead to prices that have just '
  'become known.';


-- -----------------------------------------------------------------------------
-- 7  projector: subscription
-- -----------------------------------------------------------------------------

create function billing_private.base_item(p_subscription_id uuid)
returns billing.subscription_items
language plpgsql
stable
set search_path = ''
as $$
declare
  v_item billing.subscription_items;
begin
  select subscription_items.* into v_item
  from billing.subscription_items
  left join billing.prices on prices.id = subscription_items.price_id
  left join billing.plans on plans.id = prices.plan_id
  where subscription_items.subscription_id = p_subscription_id
  order by
    (plans.kind = 'base') desc nulls last,
    plans.tier_rank desc nulls last,
    subscription_items.stripe_subscription_item_id
  limit 1;
  return v_item;
end;
$$;

comment on function billing_private.base_item(uuid) is
  'The item a subscription is named after: its base plan, of the highest tier where there are '
  'several.';


create function billing_private.follow_base_item(p_subscription_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing.subscriptions
  set price_id = base.price_id,
      quantity = base.quantity,
      current_period_start = base.current_period_start,
      current_period_end = base.current_period_end,
      pending_price_id = case when waits then stored.pending_price_id end,
      pending_quantity = case when waits then stored.pending_quantity end,
      pending_change_at = case when waits then stored.pending_change_at end
  from unnest(p_subscription_ids) as followed (id)
  cross join lateral billing_private.base_item(followed.id) as base
  join billing.subscriptions as stored on stored.id = followed.id
  cross join lateral billing_private.change_waits(stored, base) as waits
  where subscriptions.id = followed.id
    and (
      subscriptions.pending_price_id is not null and not waits
      or (subscriptions.price_id, subscriptions.quantity, subscriptions.current_period_start,
          subscriptions.current_period_end)
        is distinct from
        (base.price_id, base.quantity, base.current_period_start, base.current_period_end)
    );

  -- What a schedule changes is told from the base item.
  perform billing_private.follow_schedule(stripe_subscription_id)
  from billing.subscriptions
  where id = any (p_subscription_ids)
    and stripe_schedule_id is not null;
end;
$$;

comment on function billing_private.follow_base_item(uuid[]) is
  'What subscriptions take from their base items: price, quantity and period. A change that waited'
  ' for just that is in force then.';


create function billing_private.change_waits(
  p_subscription billing.subscriptions,
  p_base billing.subscription_items
)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  return p_subscription.pending_price_id is distinct from p_base.price_id
    or coalesce(p_subscription.pending_quantity <> p_base.quantity, false);
end;
$$;

comment on function billing_private.change_waits(
  billing.subscriptions, billing.subscription_items
) is
  'False once the base item has the price and the seats that a subscription waits for.';


create function billing_private.past_due_since(
  p_stripe_subscription_id text,
  p_as_of timestamptz
)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
declare
  v_since timestamptz;
begin
  -- Read from the inbox, so it does not depend on the order in which the events came. An answer is
  -- dated by when it was asked for, so it may seem older than what it shows: where the event of the
  -- change is there, that one says when.
  with snapshots as materialized (
    select
      stripe_events.occurred_at,
      parsed.data #>> '{object,status}' = 'past_due' as is_past_due,
      parsed.data #>> '{previous_attributes,status}' <> 'past_due' as is_change
    from billing_private.stripe_events
    cross join lateral (
      select billing_private.parse_json(stripe_events.payload) -> 'data' as data
      offset 0
    ) as parsed
    where stripe_events.object_id = p_stripe_subscription_id
      and stripe_events.occurred_at <= p_as_of
      and coalesce(stripe_events.status_reason, 'superseded') = 'superseded'
  )
  select coalesce(max(occurred_at) filter (where is_change), min(occurred_at)) into v_since
  from snapshots
  where is_past_due
    and occurred_at >= coalesce(
      (select max(occurred_at) from snapshots where not is_past_due), '-infinity');
  return coalesce(v_since, p_as_of);
end;
$$;

comment on function billing_private.past_due_since(text, timestamptz) is
  'When the series of past_due snapshots that a subscription is in began: at the event that tells '
  'of the change, or else at the first of them.';


create function billing_private.feedback_of(p_object jsonb)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return nullif(jsonb_strip_nulls(jsonb_build_object(
    'feedback', p_object #> '{cancellation_details,feedback}',
    'comment', p_object #> '{cancellation_details,comment}')), '{}');
end;
$$;

comment on function billing_private.feedback_of(jsonb) is
  'What a customer who canceled said about it; null where nothing was said.';


-- Its body is long because it is one row, column by column.
create function billing_private.project_subscription(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id text := p_object ->> 'id';
  v_status text := coalesce(nullif(p_object ->> 'status', ''), 'unknown');
  v_is_over boolean := billing_private.is_final_snapshot(p_event.type, p_object);
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
  v_account_id uuid := billing_private.note_customer(v_customer_id, p_object -> 'metadata');
  v_orphaned_at timestamptz;
  v_stored_id uuid := (
    select id from billing.subscriptions where stripe_subscription_id = v_id
  );
  v_written_id uuid;
  v_payment_keys text[];
  v_base billing.subscription_items;
  v_change billing_private.scheduled_change;
begin
  -- Stripe ends a deleted customer's subscriptions, whether or not an event says so.
  if not v_is_over then
    select deleted_at into v_orphaned_at
    from billing.customers
    where stripe_customer_id = v_customer_id;
    v_is_over := v_orphaned_at is not null;
    v_status := case when v_is_over then 'canceled' else v_status end;
  end if;

  -- Stripe goes on knowing whom we forgot.
  if v_is_over and billing_private.is_closed(v_account_id) then
    p_object := p_object - '{metadata,cancellation_details}'::text[];
  end if;

  -- The header says who and since when; its price and period follow from its items, which are
  -- written first once there is a header, so that it is written only once.
  if v_stored_id is not null then
    perform billing_private.project_subscription_items(v_stored_id, p_object);
    v_base := billing_private.base_item(v_stored_id);
  else
    -- Refunds may have come before what they concern.
    select array_agg(payment_key) into v_payment_keys
    from (
      select stripe_invoice_id
      from billing.invoices
      where stripe_subscription_id = v_id
      order by stripe_invoice_id
    ) as bills
    cross join lateral unnest(
      billing_private.lock_payments_of(bills.stripe_invoice_id, v_customer_id)) as payment_key;
  end if;
  if not v_is_over then
    v_change := billing_private.scheduled_change(
      v_id, billing_private.stripe_id(p_object -> 'schedule'), p_event.occurred_at, v_base);
  end if;

  insert into billing.subscriptions as stored (
    account_id, provider, status, currency, started_at, billing_anchor, trial_start, trial_end,
    past_due_since, cancel_at, cancel_at_period_end, canceled_at, cancellation_reason,
    cancellation_feedback, ended_at, collection_method, pause_collection, pending_update,
    pending_price_id, pending_quantity, pending_change_at, stripe_subscription_id,
    stripe_customer_id, stripe_latest_invoice_id, stripe_default_payment_method_id,
    stripe_schedule_id, metadata, updated_at
  )
  values (
    v_account_id, 'stripe', v_status, p_object ->> 'currency',
    billing_private.stripe_time(coalesce(p_object -> 'start_date', p_object -> 'created')),
    billing_private.stripe_time(p_object -> 'billing_cycle_anchor'),
    billing_private.stripe_time(p_object -> 'trial_start'),
    billing_private.stripe_time(p_object -> 'trial_end'),
    case when v_status = 'past_due'
      then billing_private.past_due_since(v_id, p_event.occurred_at) end,
    billing_private.stripe_time(p_object -> 'cancel_at'),
    coalesce(p_object -> 'cancel_at_period_end' = 'true', false),
    coalesce(billing_private.stripe_time(p_object -> 'canceled_at'), v_orphaned_at),
    p_object #>> '{cancellation_details,reason}',
    billing_private.feedback_of(p_object),
    coalesce(v_orphaned_at, billing_private.stripe_time(p_object -> 'ended_at')),
    p_object ->> 'collection_method',
    nullif(p_object -> 'pause_collection', 'null'),
    nullif(p_object -> 'pending_update', 'null'),
    v_change.price_id, v_change.quantity, v_change.change_at,
    v_id, v_customer_id,
    billing_private.stripe_id(p_object -> 'latest_invoice'),
    billing_private.stripe_id(p_object -> 'default_payment_method'),
    v_change.stripe_schedule_id,
    coalesce(nullif(p_object -> 'metadata', 'null'), '{}'),
    greatest(p_event.occurred_at, v_orphaned_at)
  )
  on conflict (stripe_subscription_id) do update
  set (
    account_id, status, price_id, quantity, current_period_start, current_period_end, currency,
    started_at, billing_anchor, trial_start, trial_end, past_due_since, cancel_at,
    cancel_at_period_end, canceled_at, cancellation_reason, cancellation_feedback, ended_at,
    collection_method, pause_collection, pending_update, pending_price_id, pending_quantity,
    pending_change_at,
    stripe_customer_id, stripe_latest_invoice_id, stripe_default_payment_method_id,
    stripe_schedule_id, metadata, updated_at
  ) = row(
    coalesce(stored.account_id, excluded.account_id), excluded.status, v_base.price_id,
    v_base.quantity, v_base.current_period_start, v_base.current_period_end, excluded.currency,
    excluded.started_at, excluded.billing_anchor, excluded.trial_start, excluded.trial_end,
    excluded.past_due_since, excluded.cancel_at, excluded.cancel_at_period_end,
    excluded.canceled_at, excluded.cancellation_reason, excluded.cancellation_feedback,
    excluded.ended_at,
    excluded.collection_method, excluded.pause_collection, excluded.pending_update,
    excluded.pending_price_id, excluded.pending_quantity, excluded.pending_change_at,
    excluded.stripe_customer_id, excluded.stripe_latest_invoice_id,
    excluded.stripe_default_payment_method_id, excluded.stripe_schedule_id, excluded.metadata,
    excluded.updated_at
  )
  returning id into v_written_id;

  if p_object ?| '{discounts,discount}' then
    perform billing_private.list_discounts(p_object, v_account_id);
  end if;
  if p_object #> '{items,has_more}' = 'true' then
    perform billing_private.request_list('list_subscription_items', v_id, p_event.event_id);
  end if;
  if v_stored_id is null then
    perform billing_private.project_subscription_items(v_written_id, p_object);
    perform billing_private.follow_base_item(array[v_written_id]);
    perform billing_private.restrict_access(v_payment_keys);
    perform billing_private.follow_schedule(v_id);
  end if;

  if nullif(p_object -> 'trial_start', 'null') is not null then
    perform billing_private.note_trials(v_account_id);
  end if;
end;
$$;

comment on function billing_private.project_subscription(jsonb, billing_private.stripe_events) is
  'Mirrors a Stripe subscription with its items, from any API version. Not split: it is one row, '
  'column by column.';


create type billing_private.told_item as (
  stripe_subscription_item_id text,
  price_id uuid,
  quantity bigint,
  current_period_start timestamptz,
  current_period_end timestamptz,
  stripe_price_id text,
  stripe_product_id text
);

create function billing_private.told_items(p_object jsonb)
returns setof billing_private.told_item
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    item ->> 'id',
    prices.id,
    billing_private.stripe_integer(item -> 'quantity'),
    period.period_start,
    period.period_end,
    read.price_id,
    billing_private.stripe_id(coalesce(
      nullif(item #> '{price,product}', 'null'), item #> '{plan,product}'))
  from jsonb_path_query(p_object, '$.items.data[*]') as item
  cross join lateral (
    select billing_private.price_of(item) as price_id
    offset 0
  ) as read
  cross join lateral billing_private.period_of(item, p_object) as period
  left join billing.prices on prices.stripe_price_id = read.price_id
  where item ->> 'id' is not null
  order by 1;
end;
$$;

comment on function billing_private.told_items(jsonb) is
  'The items a snapshot of a subscription shows, as they are stored.';


create function billing_private.project_subscription_items(
  p_subscription_id uuid,
  p_object jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_told billing_private.told_item[] := array(
    select told from billing_private.told_items(p_object) as told
  );
  v_stored billing_private.told_item[] := array(
    select row(
      stripe_subscription_item_id, price_id, quantity, current_period_start, current_period_end,
      stripe_price_id, stripe_product_id
    )::billing_private.told_item
    from billing.subscription_items
    where subscription_id = p_subscription_id
    order by stripe_subscription_item_id
  );
begin
  -- Most snapshots change none of them, and a statement has its triggers run all the same.
  if v_told = v_stored then
    return;
  end if;

  insert into billing.subscription_items as stored (
    subscription_id, price_id, plan_version, quantity, current_period_start, current_period_end,
    stripe_subscription_item_id, stripe_price_id, stripe_product_id
  )
  select
    p_subscription_id, told.price_id,
    case
      when before.price_id = told.price_id then before.plan_version
      when plans.version > 1 then billing_private.version_bought(
        plans.id, p_object ->> 'id', told.stripe_subscription_item_id, told.stripe_price_id)
      else 1
    end,
    told.quantity, told.current_period_start, told.current_period_end,
    told.stripe_subscription_item_id, told.stripe_price_id, told.stripe_product_id
  from unnest(v_told) as told
  left join billing.subscription_items as before using (stripe_subscription_item_id)
  left join billing.prices on prices.id = told.price_id
  left join billing.plans on plans.id = prices.plan_id
  on conflict (stripe_subscription_item_id) do update
  set price_id = excluded.price_id,
      plan_version = excluded.plan_version,
      version_moved_at = case
        when stored.price_id = excluded.price_id then stored.version_moved_at
      end,
      quantity = excluded.quantity,
      current_period_start = excluded.current_period_start,
      current_period_end = excluded.current_period_end,
      stripe_price_id = excluded.stripe_price_id,
      stripe_product_id = excluded.stripe_product_id;

  -- A list that is cut short says nothing about what it does not show.
  delete from billing.subscription_items
  where subscription_id = p_subscription_id
    and jsonb_typeof(p_object #> '{items,data}') = 'array'
    and coalesce(p_object #> '{items,has_more}' <> 'true', true)
    and not stripe_subscription_item_id = any (
      array(select stripe_subscription_item_id from unnest(v_told)));
end;
$$;

comment on function billing_private.project_subscription_items(uuid, jsonb) is
  'Mirrors the items of a subscription''s newest snapshot.';


create function billing_private.version_bought(
  p_plan_id uuid,
  p_stripe_subscription_id text,
  p_stripe_subscription_item_id text,
  p_stripe_price_id text
)
returns integer
language plpgsql
stable
set search_path = ''
as $$
declare
  v_bought_at timestamptz;
begin
  -- Read from the inbox, so it does not depend on the order in which the events came.
  with snapshots as materialized (
    select
      stripe_events.occurred_at,
      billing_private.price_of(item) = p_stripe_price_id as is_on_price,
      billing_private.stripe_time(item -> 'created') as item_created_at
    from billing_private.stripe_events
    cross join lateral jsonb_path_query(
      billing_private.parse_json(stripe_events.payload), '$.data.object.items.data[*]') as item
    where stripe_events.object_id = p_stripe_subscription_id
      and coalesce(stripe_events.status_reason, 'superseded') = 'superseded'
      and item ->> 'id' = p_stripe_subscription_item_id
  ),
  changed as (
    select max(occurred_at) as at from snapshots where not is_on_price
  )
  select
    -- An item that was never on another price was bought when it was made.
    case
      when changed.at is null then least(min(occurred_at), min(item_created_at))
      else min(occurred_at) filter (where occurred_at >= changed.at)
    end
  into v_bought_at
  from changed
  left join snapshots on snapshots.is_on_price
  group by changed.at;

  v_bought_at := coalesce(v_bought_at, billing_private.now());
  return coalesce(
    billing_private.version_migrated_to(
      p_stripe_subscription_item_id, p_stripe_price_id, v_bought_at),
    (
      select max(version)
      from billing.plan_versions
      where plan_id = p_plan_id
        and published_at <= v_bought_at
    ),
    1);
end;
$$;

comment on function billing_private.version_bought(uuid, text, text, text) is
  'Which version of a plan''s contents was on sale when an item of a Stripe subscription came on '
  'the price it has, or the one it was migrated to.';


create function billing_private.version_migrated_to(
  p_stripe_subscription_item_id text,
  p_stripe_price_id text,
  p_came_at timestamptz
)
returns integer
language plpgsql
stable
set search_path = ''
as $$
declare
  -- Stripe's clock tells when it came, ours when it was asked: as far apart as a signature may be.
  v_tolerance constant interval := interval '5 minutes';
begin
  return (
    select plan_migrations.to_version
    from billing.subscription_items
    join billing_private.plan_migration_steps
      on plan_migration_steps.subscription_item_id = subscription_items.id
    join billing_private.plan_migrations
      on plan_migrations.id = plan_migration_steps.migration_id
    join billing.prices on prices.id = plan_migration_steps.to_price_id
    join billing_private.commands on commands.id = plan_migration_steps.command_id
    where subscription_items.stripe_subscription_item_id = p_stripe_subscription_item_id
      and plan_migration_steps.status = 'asked'
      and prices.stripe_price_id = p_stripe_price_id
      and commands.status <> 'canceled'
      and p_came_at >= commands.created_at - v_tolerance
      and (
        commands.finished_at is null
        or p_came_at <= commands.finished_at
          + case when commands.status = 'succeeded' then v_tolerance else interval '0' end
      )
    order by commands.position desc
    limit 1
  );
end;
$$;

comment on function billing_private.version_migrated_to(text, text, timestamptz) is
  'The version a migration meant for an item that came on a price while Stripe was asked for it, '
  'whatever has been published since; null where no migration put it there.';


create function billing_private.settle_versions(p_item_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_item_id uuid;
  v_version integer;
begin
  -- Most plans have one version, and a statement that changes nothing runs its triggers all the
  -- same.
  for v_item_id, v_version in
    select subscription_items.id, bought.version
    from billing.subscription_items
    join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
    join billing.prices on prices.id = subscription_items.price_id
    join billing.plans on plans.id = prices.plan_id
    cross join lateral billing_private.version_bought(
      plans.id, subscriptions.stripe_subscription_id,
      subscription_items.stripe_subscription_item_id, subscription_items.stripe_price_id
    ) as bought (version)
    where subscription_items.id = any (p_item_ids)
      and subscription_items.version_moved_at is null
      and subscriptions.provider = 'stripe'
      and plans.version > 1
      and bought.version <> subscription_items.plan_version
  loop
    update billing.subscription_items set plan_version = v_version where id = v_item_id;
  end loop;
end;
$$;

comment on function billing_private.settle_versions(uuid[]) is
  'Finds anew which versions these items were bought with: their price has just become known, or an'
  ' older snapshot tells that they were bought earlier. What an administrator moved stays.';


-- -----------------------------------------------------------------------------
-- 8  projectors: coupon, promotion code, discount
-- -----------------------------------------------------------------------------

create function billing_private.project_coupon(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing.coupons (
    name, percent_off, amount_off_minor, currency, duration, duration_in_months, max_redemptions,
    times_redeemed, redeem_until, is_valid, deleted_at, stripe_coupon_id
  )
  values (
    p_object ->> 'name',
    billing_private.stripe_decimal(p_object -> 'percent_off'),
    billing_private.stripe_integer(p_object -> 'amount_off'),
    p_object ->> 'currency', p_object ->> 'duration',
    billing_private.stripe_integer(p_object -> 'duration_in_months'),
    billing_private.stripe_integer(p_object -> 'max_redemptions'),
    coalesce(billing_private.stripe_integer(p_object -> 'times_redeemed'), 0),
    billing_private.stripe_time(p_object -> 'redeem_by'),
    p_event.type <> 'coupon.deleted' and coalesce(p_object -> 'valid' = 'true', false),
    case when p_event.type = 'coupon.deleted' then p_event.occurred_at end,
    p_object ->> 'id'
  )
  on conflict (stripe_coupon_id) do update
  set name = excluded.name,
      percent_off = excluded.percent_off,
      amount_off_minor = excluded.amount_off_minor,
      currency = excluded.currency,
      duration = excluded.duration,
      duration_in_months = excluded.duration_in_months,
      max_redemptions = excluded.max_redemptions,
      times_redeemed = excluded.times_redeemed,
      redeem_until = excluded.redeem_until,
      is_valid = excluded.is_valid,
      deleted_at = excluded.deleted_at;
end;
$$;

comment on function billing_private.project_coupon(jsonb, billing_private.stripe_events) is
  'Mirrors a coupon.';


create function billing_private.project_promotion_code(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing_private.promotion_codes (
    code, is_active, expires_at, max_redemptions, times_redeemed, first_time_only,
    minimum_amount_minor, minimum_currency, stripe_promotion_code_id, stripe_coupon_id,
    stripe_customer_id, created_at
  )
  values (
    coalesce(p_object ->> 'code', ''),
    coalesce(p_object -> 'active' = 'true', false),
    billing_private.stripe_time(p_object -> 'expires_at'),
    billing_private.stripe_integer(p_object -> 'max_redemptions'),
    coalesce(billing_private.stripe_integer(p_object -> 'times_redeemed'), 0),
    coalesce(p_object #> '{restrictions,first_time_transaction}' = 'true', false),
    billing_private.stripe_integer(p_object #> '{restrictions,minimum_amount}'),
    p_object #>> '{restrictions,minimum_amount_currency}',
    p_object ->> 'id',
    billing_private.coupon_of(p_object),
    billing_private.stripe_id(p_object -> 'customer'),
    coalesce(billing_private.stripe_time(p_object -> 'created'), p_event.occurred_at)
  )
  on conflict (stripe_promotion_code_id) do update
  set code = excluded.code,
      is_active = excluded.is_active,
      expires_at = excluded.expires_at,
      max_redemptions = excluded.max_redemptions,
      times_redeemed = excluded.times_redeemed,
      first_time_only = excluded.first_time_only,
      minimum_amount_minor = excluded.minimum_amount_minor,
      minimum_currency = excluded.minimum_currency,
      stripe_coupon_id = excluded.stripe_coupon_id,
      stripe_customer_id = excluded.stripe_customer_id,
      created_at = excluded.created_at;
end;
$$;

comment on function billing_private.project_promotion_code(jsonb, billing_private.stripe_events) is
  'Mirrors a promotion code.';


create function billing_private.project_discount(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
  v_account_id uuid := billing_private.note_customer(v_customer_id, null);
begin
  insert into billing.discounts as stored (
    account_id, starts_at, ends_at, removed_at, stripe_discount_id, stripe_coupon_id,
    stripe_promotion_code_id, stripe_customer_id, stripe_subscription_id,
    stripe_subscription_item_id
  )
  values (
    v_account_id,
    billing_private.stripe_time(p_object -> 'start'),
    billing_private.stripe_time(p_object -> 'end'),
    case when p_event.type = 'customer.discount.deleted' then p_event.occurred_at end,
    p_object ->> 'id',
    billing_private.coupon_of(p_object),
    billing_private.stripe_id(p_object -> 'promotion_code'),
    v_customer_id,
    billing_private.stripe_id(p_object -> 'subscription'),
    billing_private.stripe_id(p_object -> 'subscription_item')
  )
  on conflict (stripe_discount_id) do update
  set account_id = coalesce(stored.account_id, excluded.account_id),
      starts_at = excluded.starts_at,
      ends_at = excluded.ends_at,
      removed_at = excluded.removed_at,
      stripe_coupon_id = excluded.stripe_coupon_id,
      stripe_promotion_code_id = excluded.stripe_promotion_code_id,
      stripe_customer_id = excluded.stripe_customer_id,
      stripe_subscription_id = excluded.stripe_subscription_id,
      stripe_subscription_item_id = excluded.stripe_subscription_item_id;
end;
$$;

comment on function billing_private.project_discount(jsonb, billing_private.stripe_events) is
  'Mirrors a discount. Whether it is still in use is what its subscription or customer says.';


create function billing_private.list_discounts(
  p_object jsonb,
  p_account_id uuid
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_is_customer boolean := p_object ->> 'object' = 'customer';
  v_customer_id text := case
    when v_is_customer then p_object ->> 'id'
    else billing_private.stripe_id(p_object -> 'customer')
  end;
  v_subscription_id text := case when not v_is_customer then p_object ->> 'id' end;
begin
  -- Most have none, and come often.
  if not exists (select from billing_private.discounts_of(p_object))
    and not exists (
      select from billing.discounts where stripe_customer_id = v_customer_id and is_listed
    )
  then
    return;
  end if;
  perform billing_private.unlist_discounts(p_object, v_customer_id, v_subscription_id);

  insert into billing.discounts as stored (
    account_id, is_listed, starts_at, ends_at, stripe_discount_id, stripe_coupon_id,
    stripe_promotion_code_id, stripe_customer_id, stripe_subscription_id,
    stripe_subscription_item_id
  )
  select distinct on (discount_id)
    p_account_id, true,
    billing_private.stripe_time(discount -> 'start'),
    billing_private.stripe_time(discount -> 'end'),
    discount_id,
    billing_private.coupon_of(discount),
    billing_private.stripe_id(discount -> 'promotion_code'),
    v_customer_id, v_subscription_id, item_id
  from billing_private.discounts_of(p_object)
  on conflict (stripe_discount_id) do update
  set (
    account_id, is_listed, starts_at, ends_at, stripe_coupon_id, stripe_promotion_code_id,
    stripe_customer_id, stripe_subscription_id, stripe_subscription_item_id
  ) = (
    -- Its own snapshot knows better, where there is one; otherwise the newest list does.
    select
      coalesce(stored.account_id, excluded.account_id), true, known.starts_at, known.ends_at,
      known.stripe_coupon_id, known.stripe_promotion_code_id, known.stripe_customer_id,
      known.stripe_subscription_id, known.stripe_subscription_item_id
    from (
      select (
        case
          when billing_private.is_told(stored.stripe_discount_id) then stored
          else excluded
        end
      ).*
    ) as known
  );
end;
$$;

comment on function billing_private.list_discounts(jsonb, uuid) is
  'Notes which discounts a snapshot of a subscription or customer names, and that its others are '
  'not in use.';


create function billing_private.unlist_discounts(
  p_object jsonb,
  p_stripe_customer_id text,
  p_stripe_subscription_id text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_unlisted text[];
begin
  -- Items beyond the first ones are not shown, nor are their discounts.
  with unlisted as (
    update billing.discounts
    set is_listed = false
    where stripe_customer_id = p_stripe_customer_id
      and stripe_subscription_id is not distinct from p_stripe_subscription_id
      and is_listed
      and stripe_discount_id <> all (array(
        select discount_id from billing_private.discounts_of(p_object)))
      and (
        stripe_subscription_item_id is null
        or coalesce(p_object #> '{items,has_more}' <> 'true', true)
      )
    returning stripe_discount_id
  )
  select array_agg(stripe_discount_id) into v_unlisted from unlisted;

  -- What was only ever named by a list goes with it.
  delete from billing.discounts
  where stripe_discount_id = any (v_unlisted)
    and not billing_private.is_told(stripe_discount_id);
end;
$$;

comment on function billing_private.unlist_discounts(jsonb, text, text) is
  'Notes which discounts of a subscription or customer its newest snapshot does not name.';


create function billing_private.is_told(p_object_id text)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return exists (
    select from billing_private.stripe_objects where object_id = p_object_id
  );
end;
$$;

comment on function billing_private.is_told(text) is
  'Whether Stripe has told of an object itself, not only named it in another one.';


create function billing_private.discounts_of(
  p_object jsonb,
  out discount_id text,
  out item_id text,
  out discount jsonb
)
returns setof record
language plpgsql
immutable
set search_path = ''
as $$
declare
  -- Up to acacia one object, since 2022 beside the list; in 2020 it had no id of its own.
  v_single jsonb := p_object -> 'discount';
  v_single_id text := coalesce(
    billing_private.stripe_id(v_single), 'discount:' || (p_object ->> 'id'));
  v_item jsonb;
begin
  -- Not one query: its plan would expect a thousand discounts of a thousand items, and be compiled.
  if jsonb_typeof(v_single) = 'object' then
    discount_id := v_single_id;
    discount := v_single;
    return next;
  end if;

  for discount in select * from jsonb_path_query(p_object, '$.discounts[*] ? (@ != null)') loop
    discount_id := billing_private.stripe_id(discount);
    continue when discount_id is null;
    if jsonb_typeof(v_single) is distinct from 'object' or discount_id <> v_single_id then
      return next;
    end if;
  end loop;

  for v_item in
    select * from jsonb_path_query(p_object, '$.items.data[*] ? (exists (@.discounts[*]))')
  loop
    item_id := v_item ->> 'id';
    for discount in select * from jsonb_path_query(v_item, '$.discounts[*] ? (@ != null)') loop
      discount_id := billing_private.stripe_id(discount);
      continue when discount_id is null;
      return next;
    end loop;
  end loop;
end;
$$;

comment on function billing_private.discounts_of(jsonb) is
  'The discounts a snapshot of a subscription or customer names, from any API version; the item '
  'where it is one of the items.';


create function billing_private.coupon_of(p_object jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- Since clover (2025-09-30) in the source of a discount and the promotion of a promotion code.
  return coalesce(
    billing_private.stripe_id(p_object #> '{source,coupon}'),
    billing_private.stripe_id(p_object #> '{promotion,coupon}'),
    billing_private.stripe_id(p_object -> 'coupon'));
end;
$$;

comment on function billing_private.coupon_of(jsonb) is
  'The coupon of a discount or promotion code, from any API version.';


-- -----------------------------------------------------------------------------
-- 9  projector: invoice
-- -----------------------------------------------------------------------------

create function billing_private.failed_attempts(
  p_stripe_invoice_id text,
  out failed_at timestamptz,
  out action_required_at timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Read from the inbox, so it does not depend on the order in which the events came.
  select
    min(occurred_at),
    case
      when coalesce(
        max(occurred_at) filter (where type = 'invoice.payment_action_required')
          < max(occurred_at) filter (where type = 'invoice.payment_failed'),
        false) then null
      else max(occurred_at) filter (where type = 'invoice.payment_action_required')
    end
  into failed_at, action_required_at
  from billing_private.stripe_events
  where object_id = p_stripe_invoice_id
    and type in ('invoice.payment_failed', 'invoice.payment_action_required')
    and coalesce(status_reason, 'superseded') = 'superseded';
end;
$$;

comment on function billing_private.failed_attempts(text) is
  'When collecting an invoice failed first, and when it last failed for want of the customer''s '
  'confirmation; null where a later attempt failed otherwise.';


create function billing_private.inferred_failure(p_object jsonb)
returns timestamptz
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- A single attempt of which nobody says that it failed may be a bank debit on its way.
  return case
    when (p_object ->> 'status') in ('open', 'paid', 'uncollectible')
      and (
        billing_private.stripe_integer(p_object -> 'attempt_count') > 1
        or billing_private.stripe_integer(p_object -> 'attempt_count') = 1
          and p_object ->> 'status' = 'open'
          and billing_private.stripe_time(p_object -> 'next_payment_attempt') is not null
      )
      then coalesce(
        billing_private.stripe_time(p_object #> '{status_transitions,finalized_at}'),
        billing_private.stripe_time(p_object -> 'created'))
  end;
end;
$$;

comment on function billing_private.inferred_failure(jsonb) is
  'When an invoice that was tried more than once, or is to be tried again, failed first, where no '
  'event of a failure is known: it was tried when it was finalized.';


-- Its body is long because it is one row, column by column.
create function billing_private.project_invoice(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
  -- Before the customer is bound: that locks payments, and an invoice's lock comes before theirs.
  v_payment_keys text[] := billing_private.lock_payments_of(
    p_object ->> 'id', v_customer_id);
  v_account_id uuid := billing_private.note_customer(
    v_customer_id, billing_private.subscription_metadata_of(p_object));
  v_failure record := billing_private.failed_attempts(p_object ->> 'id');
begin
  insert into billing.invoices as stored (
    account_id, number, status, billing_reason, currency, subtotal_minor, total_minor,
    amount_due_minor, amount_paid_minor, amount_remaining_minor, amount_overpaid_minor, tax_minor,
    discount_minor, collection_method, attempt_count, next_payment_attempt_at, payment_failed_at,
    action_required_at, issued_at, due_at, finalized_at, paid_at, voided_at,
    marked_uncollectible_at, uncollectible_reason, finalization_error, deleted_at,
    hosted_invoice_url, invoice_pdf_url,
    stripe_invoice_id, stripe_customer_id, stripe_subscription_id
  )
  values (
    v_account_id, p_object ->> 'number', p_object ->> 'status', p_object ->> 'billing_reason',
    -- No currency, here and with all that is mirrored below: see billing.invoices.currency.
    billing_private.stripe_currency(p_object -> 'currency'),
    coalesce(billing_private.stripe_integer(p_object -> 'subtotal'), 0),
    coalesce(billing_private.stripe_integer(p_object -> 'total'), 0),
    coalesce(billing_private.stripe_integer(p_object -> 'amount_due'), 0),
    coalesce(billing_private.stripe_integer(p_object -> 'amount_paid'), 0),
    coalesce(billing_private.stripe_integer(p_object -> 'amount_remaining'), 0),
    coalesce(billing_private.stripe_integer(p_object -> 'amount_overpaid'), 0),
    billing_private.tax_of(p_object),
    billing_private.sum_of(p_object, '$.total_discount_amounts[*].amount'),
    p_object ->> 'collection_method',
    coalesce(billing_private.stripe_count(p_object -> 'attempt_count'), 0),
    billing_private.stripe_time(p_object -> 'next_payment_attempt'),
    coalesce(v_failure.failed_at, billing_private.inferred_failure(p_object)),
    v_failure.action_required_at,
    billing_private.stripe_time(p_object -> 'created'),
    billing_private.stripe_time(p_object -> 'due_date'),
    billing_private.stripe_time(p_object #> '{status_transitions,finalized_at}'),
    billing_private.stripe_time(p_object #> '{status_transitions,paid_at}'),
    billing_private.stripe_time(p_object #> '{status_transitions,voided_at}'),
    billing_private.stripe_time(p_object #> '{status_transitions,marked_uncollectible_at}'),
    p_object #>> '{status_details,uncollectible,reason}',
    case
      when jsonb_typeof(p_object -> 'last_finalization_error') = 'object' then jsonb_build_object(
        'code', p_object #> '{last_finalization_error,code}',
        'message', p_object #> '{last_finalization_error,message}')
    end,
    case when p_event.type = 'invoice.deleted' then p_event.occurred_at end,
    p_object ->> 'hosted_invoice_url', p_object ->> 'invoice_pdf', p_object ->> 'id',
    v_customer_id, billing_private.subscription_of(p_object)
  )
  on conflict (stripe_invoice_id) do update
  set (
    account_id, number, status, billing_reason, currency, subtotal_minor, total_minor,
    amount_due_minor, amount_paid_minor, amount_remaining_minor, amount_overpaid_minor, tax_minor,
    discount_minor, collection_method, attempt_count, next_payment_attempt_at, payment_failed_at,
    action_required_at, issued_at, due_at, finalized_at, paid_at, voided_at,
    marked_uncollectible_at, uncollectible_reason, finalization_error, deleted_at,
    hosted_invoice_url, invoice_pdf_url,
    stripe_customer_id, stripe_subscription_id
  ) = row(
    coalesce(stored.account_id, excluded.account_id), excluded.number, excluded.status,
    excluded.billing_reason, excluded.currency, excluded.subtotal_minor, excluded.total_minor,
    excluded.amount_due_minor, excluded.amount_paid_minor, excluded.amount_remaining_minor,
    excluded.amount_overpaid_minor, excluded.tax_minor, excluded.discount_minor,
    excluded.collection_method, excluded.attempt_count, excluded.next_payment_attempt_at,
    -- What an older snapshot showed has happened, also where this one does not show it any more.
    coalesce(excluded.payment_failed_at, stored.payment_failed_at), excluded.action_required_at,
    excluded.issued_at, excluded.due_at,
    excluded.finalized_at, excluded.paid_at, excluded.voided_at, excluded.marked_uncollectible_at,
    excluded.uncollectible_reason, excluded.finalization_error, excluded.deleted_at,
    excluded.hosted_invoice_url, excluded.invoice_pdf_url,
    excluded.stripe_customer_id, excluded.stripe_subscription_id
  );

  perform billing_private.project_invoice_lines(p_object);
  if p_object #> '{lines,has_more}' = 'true' then
    perform billing_private.request_list(
      'list_invoice_lines', p_object ->> 'id', p_event.event_id);
  end if;
  perform billing_private.restrict_access(v_payment_keys);
end;
$$;

comment on function billing_private.project_invoice(jsonb, billing_private.stripe_events) is
  'Mirrors a Stripe invoice with its lines, from any API version. Not split: it is one row, column'
  ' by column.';


create type billing_private.told_line as (
  stripe_line_id text,
  description text,
  amount_minor bigint,
  currency text,
  quantity bigint,
  period_start timestamptz,
  period_end timestamptz,
  is_proration boolean,
  stripe_price_id text,
  stripe_subscription_item_id text
);

create function billing_private.told_lines(p_object jsonb)
returns setof billing_private.told_line
language plpgsql
immutable
set search_path = ''
as $$
begin
  return query
  select
    line ->> 'id',
    line ->> 'description',
    coalesce(billing_private.stripe_integer(line -> 'amount'), 0),
    billing_private.stripe_currency(coalesce(
      nullif(line -> 'currency', 'null'), p_object -> 'currency')),
    billing_private.stripe_integer(line -> 'quantity'),
    billing_private.stripe_time(line #> '{period,start}'),
    billing_private.stripe_time(line #> '{period,end}'),
    billing_private.is_proration(line),
    billing_private.price_of(line),
    billing_private.item_of(line)
  from jsonb_path_query(p_object, '$.lines.data[*]') as line
  where line ->> 'id' is not null
  order by 1;
end;
$$;

comment on function billing_private.told_lines(jsonb) is
  'The lines a snapshot of an invoice shows, as they are stored.';


create function billing_private.project_invoice_lines(p_object jsonb)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice_id uuid := (
    select id from billing.invoices where stripe_invoice_id = p_object ->> 'id'
  );
  v_told billing_private.told_line[] := array(
    select told from billing_private.told_lines(p_object) as told
  );
  v_stored billing_private.told_line[] := array(
    select row(
      stripe_line_id, description, amount_minor, currency, quantity, period_start, period_end,
      is_proration, stripe_price_id, stripe_subscription_item_id
    )::billing_private.told_line
    from billing.invoice_lines
    where invoice_id = v_invoice_id
    order by stripe_line_id
  );
begin
  -- Most snapshots change none of them, and a statement has its triggers run all the same.
  if v_told = v_stored then
    return;
  end if;

  insert into billing.invoice_lines (
    invoice_id, description, amount_minor, currency, quantity, period_start, period_end,
    is_proration, stripe_line_id, stripe_price_id, stripe_subscription_item_id
  )
  select
    v_invoice_id, description, amount_minor, currency, quantity, period_start, period_end,
    is_proration, stripe_line_id, stripe_price_id, stripe_subscription_item_id
  from unnest(v_told)
  on conflict (invoice_id, stripe_line_id) do update
  set description = excluded.description,
      amount_minor = excluded.amount_minor,
      currency = excluded.currency,
      quantity = excluded.quantity,
      period_start = excluded.period_start,
      period_end = excluded.period_end,
      is_proration = excluded.is_proration,
      stripe_price_id = excluded.stripe_price_id,
      stripe_subscription_item_id = excluded.stripe_subscription_item_id;

  -- Events show the first ten lines; a list that is cut short removes nothing.
  delete from billing.invoice_lines
  where invoice_id = v_invoice_id
    and jsonb_typeof(p_object #> '{lines,data}') = 'array'
    and coalesce(p_object #> '{lines,has_more}' <> 'true', true)
    and not stripe_line_id = any (array(select stripe_line_id from unnest(v_told)));
end;
$$;

comment on function billing_private.project_invoice_lines(jsonb) is
  'Mirrors the lines of an invoice''s newest snapshot.';


-- -----------------------------------------------------------------------------
-- 10  projectors: payment intent, charge, refund, payment method
-- -----------------------------------------------------------------------------

create function billing_private.project_payment_intent(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
  v_account_id uuid := billing_private.note_customer(v_customer_id, null);
begin
  perform billing_private.lock_payment(p_object ->> 'id');

  insert into billing.payments as stored (
    account_id, stripe_payment_key, status, amount_minor, amount_received_minor, currency,
    failure_code, decline_code, failure_message, stripe_invoice_id, stripe_customer_id,
    stripe_payment_method_id, created_at
  )
  values (
    v_account_id, p_object ->> 'id', p_object ->> 'status',
    coalesce(billing_private.stripe_integer(p_object -> 'amount'), 0),
    coalesce(billing_private.stripe_integer(p_object -> 'amount_received'), 0),
    billing_private.stripe_currency(p_object -> 'currency'),
    p_object #>> '{last_payment_error,code}',
    p_object #>> '{last_payment_error,decline_code}',
    p_object #>> '{last_payment_error,message}',
    billing_private.stripe_id(p_object -> 'invoice'),
    v_customer_id,
    billing_private.stripe_id(p_object -> 'payment_method'),
    coalesce(billing_private.stripe_time(p_object -> 'created'), p_event.occurred_at)
  )
  on conflict (stripe_payment_key) do update
  set account_id = coalesce(stored.account_id, excluded.account_id),
      status = excluded.status,
      amount_minor = excluded.amount_minor,
      amount_received_minor = excluded.amount_received_minor,
      currency = excluded.currency,
      failure_code = excluded.failure_code,
      decline_code = excluded.decline_code,
      failure_message = excluded.failure_message,
      stripe_invoice_id = coalesce(excluded.stripe_invoice_id, stored.stripe_invoice_id),
      stripe_customer_id = excluded.stripe_customer_id,
      stripe_payment_method_id = excluded.stripe_payment_method_id,
      created_at = excluded.created_at;

  perform billing_private.bind_payment_rows(p_object ->> 'id');
end;
$$;

comment on function billing_private.project_payment_intent(jsonb, billing_private.stripe_events) is
  'Mirrors a payment intent into billing.payments: everything but what its charge knows better.';


-- Its body is long because it is one row, column by column.
create function billing_private.project_charge(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_intent_id text := billing_private.stripe_id(p_object -> 'payment_intent');
  v_is_intent_known boolean := exists (
    select from billing_private.stripe_objects where object_id = v_intent_id
  );
  v_is_paid boolean := p_object ->> 'status' = 'succeeded';
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
  v_account_id uuid := billing_private.note_customer(v_customer_id, null);
  v_created_at timestamptz := billing_private.stripe_time(p_object -> 'created');
begin
  if p_object ->> 'status' = 'failed' then
    perform billing_private.note_decline(p_object, p_event.occurred_at);
  end if;
  -- What a failed attempt says of the payment is told by its intent, which outlives it.
  if v_intent_id is not null and not v_is_paid then
    perform billing_private.refresh_cases_of_customer(v_customer_id);
    return;
  end if;
  perform billing_private.lock_payment(coalesce(v_intent_id, p_object ->> 'id'));

  insert into billing.payments as stored (
    account_id, stripe_payment_key, status, amount_minor, amount_received_minor,
    amount_refunded_minor, currency, failure_code, decline_code, failure_message, is_disputed,
    paid_at, stripe_charge_id, stripe_invoice_id, stripe_customer_id, stripe_payment_method_id,
    created_at
  )
  values (
    v_account_id, coalesce(v_intent_id, p_object ->> 'id'), p_object ->> 'status',
    coalesce(billing_private.stripe_integer(p_object -> 'amount'), 0),
    case when v_is_paid
      then coalesce(billing_private.stripe_integer(
        coalesce(p_object -> 'amount_captured', p_object -> 'amount')), 0)
      else 0 end,
    coalesce(billing_private.stripe_integer(p_object -> 'amount_refunded'), 0),
    billing_private.stripe_currency(p_object -> 'currency'),
    p_object ->> 'failure_code', p_object #>> '{outcome,reason}', p_object ->> 'failure_message',
    coalesce(p_object -> 'disputed' = 'true', false),
    case when v_is_paid then v_created_at end,
    p_object ->> 'id',
    billing_private.stripe_id(p_object -> 'invoice'),
    v_customer_id,
    billing_private.stripe_id(p_object -> 'payment_method'),
    coalesce(v_created_at, p_event.occurred_at)
  )
  on conflict (stripe_payment_key) do update
  set (
        status, amount_minor, amount_received_minor, currency, failure_code, decline_code,
        failure_message, stripe_customer_id, stripe_payment_method_id, created_at
      ) = (
        -- The intent knows these better, where there is one and it has been told.
        select
          known.status, known.amount_minor, known.amount_received_minor, known.currency,
          known.failure_code, known.decline_code, known.failure_message,
          known.stripe_customer_id, known.stripe_payment_method_id, known.created_at
        from (
          select (
            case when v_is_intent_known then stored else excluded end
          ).*
        ) as known
      ),
      account_id = coalesce(stored.account_id, excluded.account_id),
      amount_refunded_minor = excluded.amount_refunded_minor,
      is_disputed = excluded.is_disputed,
      paid_at = excluded.paid_at,
      stripe_charge_id = excluded.stripe_charge_id,
      stripe_invoice_id = coalesce(stored.stripe_invoice_id, excluded.stripe_invoice_id);

  perform billing_private.bind_payment_rows(coalesce(v_intent_id, p_object ->> 'id'));
  if not v_is_paid then
    perform billing_private.refresh_cases_of_customer(v_customer_id);
  end if;
end;
$$;

comment on function billing_private.project_charge(jsonb, billing_private.stripe_events) is
  'Mirrors a successful charge, or one without intent, into billing.payments: when it was paid, '
  'refunded, disputed. A failed one is a decline.';


create function billing_private.note_decline(
  p_charge jsonb,
  p_heard_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := billing_private.stripe_id(p_charge -> 'customer');
  v_method_id text := coalesce(
    billing_private.stripe_id(p_charge -> 'payment_method'),
    billing_private.stripe_id(p_charge -> 'source'));
begin
  insert into billing_private.declines (
    stripe_charge_id, stripe_payment_key, stripe_customer_id, stripe_payment_method_id,
    method_hash, decline_code, advice_code, network_advice_code, network_decline_code, declined_at
  )
  values (
    p_charge ->> 'id',
    coalesce(billing_private.stripe_id(p_charge -> 'payment_intent'), p_charge ->> 'id'),
    v_customer_id, v_method_id,
    billing_private.method_hash(
      p_charge #>> '{payment_method_details,type}', p_charge -> 'payment_method_details',
      v_method_id),
    -- outcome.reason is the decline code, and failure_code what is known without one.
    coalesce(p_charge #>> '{outcome,reason}', p_charge ->> 'failure_code'),
    p_charge #>> '{outcome,advice_code}',
    p_charge #>> '{outcome,network_advice_code}',
    p_charge #>> '{outcome,network_decline_code}',
    coalesce(billing_private.stripe_time(p_charge -> 'created'), p_heard_at)
  )
  on conflict (stripe_charge_id) do update
  set stripe_customer_id = excluded.stripe_customer_id,
      stripe_payment_method_id = excluded.stripe_payment_method_id,
      method_hash = excluded.method_hash,
      decline_code = excluded.decline_code,
      advice_code = excluded.advice_code,
      network_advice_code = excluded.network_advice_code,
      network_decline_code = excluded.network_decline_code,
      declined_at = excluded.declined_at;
end;
$$;

comment on function billing_private.note_decline(jsonb, timestamptz) is
  'Keeps why a charge failed, and on which card: whether and when it may be tried again depends on '
  'it.';


create function billing_private.project_invoice_payment(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_payment_key text := coalesce(
    billing_private.stripe_id(p_object #> '{payment,payment_intent}'),
    billing_private.stripe_id(p_object #> '{payment,charge}'));
begin
  -- It names no customer: whoever writes the invoice meanwhile would miss the link.
  perform billing_private.lock_payment(billing_private.stripe_id(p_object -> 'invoice'));
  perform billing_private.lock_payment(v_payment_key);

  -- Since basil the only link between an invoice and its payment.
  insert into billing.payments as stored (
    stripe_payment_key, amount_minor, currency, stripe_invoice_id, created_at
  )
  select
    v_payment_key,
    coalesce(billing_private.stripe_integer(p_object -> 'amount_requested'), 0),
    billing_private.stripe_currency(p_object -> 'currency'),
    billing_private.stripe_id(p_object -> 'invoice'),
    p_event.occurred_at
  where v_payment_key is not null
  on conflict (stripe_payment_key) do update
  set stripe_invoice_id = excluded.stripe_invoice_id;

  perform billing_private.bind_payment_rows(v_payment_key);
end;
$$;

comment on function billing_private.project_invoice_payment(jsonb, billing_private.stripe_events) is
  'Links a payment to the invoice it pays.';


create function billing_private.bind_payment_rows(p_stripe_payment_key text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Nearly always nothing waits for it, and a statement has its triggers run all the same.
  if exists (
      select from billing.refunds
      where stripe_payment_key = p_stripe_payment_key and account_id is null)
    or exists (
      select from billing.disputes
      where stripe_payment_key = p_stripe_payment_key and account_id is null)
    or exists (
      select from billing_private.early_fraud_warnings
      where stripe_payment_key = p_stripe_payment_key and account_id is null)
  then
    update billing.refunds
    set account_id = payments.account_id
    from billing.payments
    where payments.stripe_payment_key = p_stripe_payment_key
      and refunds.stripe_payment_key = p_stripe_payment_key
      and refunds.account_id is null
      and payments.account_id is not null;

    update billing.disputes
    set account_id = payments.account_id
    from billing.payments
    where payments.stripe_payment_key = p_stripe_payment_key
      and disputes.stripe_payment_key = p_stripe_payment_key
      and disputes.account_id is null
      and payments.account_id is not null;

    update billing_private.early_fraud_warnings
    set account_id = payments.account_id
    from billing.payments
    where payments.stripe_payment_key = p_stripe_payment_key
      and early_fraud_warnings.stripe_payment_key = p_stripe_payment_key
      and early_fraud_warnings.account_id is null
      and payments.account_id is not null;
  end if;

  perform billing_private.restrict_access(array[p_stripe_payment_key]);
end;
$$;

comment on function billing_private.bind_payment_rows(text) is
  'Gives refunds, disputes and warnings that came before their payment its account, and what was '
  'bought with it the access they leave. Whoever calls it holds the payment''s lock.';


create function billing_private.told_first(
  p_object_id text,
  p_status text,
  p_since timestamptz default '-infinity'
)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Read from the inbox, so it does not depend on the order in which the events came.
  return (
    select min(occurred_at)
    from billing_private.stripe_events
    where object_id = p_object_id
      and occurred_at >= p_since
      and coalesce(status_reason, 'superseded') = 'superseded'
      and billing_private.parse_json(payload) #>> '{data,object,status}' = p_status
  );
end;
$$;

comment on function billing_private.told_first(text, text, timestamptz) is
  'When Stripe first told, from an instant on, that an object had a status; null where it never '
  'did, or where there is no such instant.';


create function billing_private.refund_returned_at(
  p_stripe_refund_id text,
  p_status text
)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_status is null or p_status not in ('failed', 'canceled') then
    return null;
  end if;
  return billing_private.told_first(
    p_stripe_refund_id, p_status, billing_private.told_first(p_stripe_refund_id, 'succeeded'));
end;
$$;

comment on function billing_private.refund_returned_at(text, text) is
  'When a refund that had succeeded was told to have failed, as it is now.';


create function billing_private.project_refund(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_payment_key text := coalesce(
    billing_private.stripe_id(p_object -> 'payment_intent'),
    billing_private.stripe_id(p_object -> 'charge'));
begin
  perform billing_private.lock_payment(v_payment_key);

  insert into billing.refunds as stored (
    stripe_payment_key, status, amount_minor, currency, reason, failure_reason, refunded_at,
    returned_at, stripe_refund_id
  )
  values (
    v_payment_key, p_object ->> 'status',
    coalesce(billing_private.stripe_integer(p_object -> 'amount'), 0),
    billing_private.stripe_currency(p_object -> 'currency'),
    p_object ->> 'reason', p_object ->> 'failure_reason',
    coalesce(billing_private.stripe_time(p_object -> 'created'), p_event.occurred_at),
    billing_private.refund_returned_at(p_object ->> 'id', p_object ->> 'status'),
    p_object ->> 'id'
  )
  on conflict (stripe_refund_id) do update
  set stripe_payment_key = excluded.stripe_payment_key,
      status = excluded.status,
      amount_minor = excluded.amount_minor,
      reason = excluded.reason,
      failure_reason = excluded.failure_reason,
      returned_at = excluded.returned_at;

  perform billing_private.bind_payment_rows(v_payment_key);
end;
$$;

comment on function billing_private.project_refund(jsonb, billing_private.stripe_events) is
  'Mirrors a refund. It names no customer: its account is its payment''s.';


create function billing_private.method_hash(
  p_type text,
  p_details jsonb,
  p_stripe_payment_method_id text
)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return billing_private.salted_hash(coalesce(
    p_details #>> array[p_type, 'fingerprint'], p_stripe_payment_method_id));
end;
$$;

comment on function billing_private.method_hash(text, jsonb, text) is
  'The same for the same card or bank account, however often it is added again; of a method '
  'without fingerprint, its own.';


create function billing_private.project_payment_method(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := coalesce(
    billing_private.stripe_id(p_object -> 'customer'), p_event.stripe_customer_id);
  v_account_id uuid := billing_private.note_customer(v_customer_id, null);
  -- Reading it shows nobody's method as well, when the event was missed.
  v_is_detached boolean := billing_private.stripe_id(p_object -> 'customer') is null;
begin
  -- Before its own row, as whoever binds a customer's rows does.
  update billing.customers
  set stripe_default_payment_method_id = null
  where stripe_default_payment_method_id = p_object ->> 'id'
    and v_is_detached;

  insert into billing.payment_methods as stored (
    account_id, type, card_brand, card_last4, card_exp_month, card_exp_year, detached_at,
    fingerprint_hash, stripe_payment_method_id, stripe_customer_id, created_at
  )
  values (
    v_account_id, coalesce(p_object ->> 'type', 'unknown'),
    p_object #>> '{card,brand}', p_object #>> '{card,last4}',
    billing_private.stripe_count(p_object #> '{card,exp_month}'),
    billing_private.stripe_count(p_object #> '{card,exp_year}'),
    case when v_is_detached then p_event.occurred_at end,
    billing_private.method_hash(p_object ->> 'type', p_object, p_object ->> 'id'),
    p_object ->> 'id', v_customer_id,
    coalesce(billing_private.stripe_time(p_object -> 'created'), p_event.occurred_at)
  )
  on conflict (stripe_payment_method_id) do update
  set account_id = coalesce(stored.account_id, excluded.account_id),
      type = excluded.type,
      card_brand = excluded.card_brand,
      card_last4 = excluded.card_last4,
      card_exp_month = excluded.card_exp_month,
      card_exp_year = excluded.card_exp_year,
      detached_at = excluded.detached_at,
      fingerprint_hash = excluded.fingerprint_hash,
      stripe_customer_id = coalesce(excluded.stripe_customer_id, stored.stripe_customer_id);

  perform billing_private.note_trials(v_account_id);
end;
$$;

comment on function billing_private.project_payment_method(jsonb, billing_private.stripe_events) is
  'Mirrors what Stripe shows of a payment method. Detached ones stay, and are nobody''s default.';


-- -----------------------------------------------------------------------------
-- 11  projectors: dispute, early fraud warning, credit note
-- -----------------------------------------------------------------------------

create function billing_private.decided_at(
  p_stripe_dispute_id text,
  p_status text
)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_status is null or p_status not in ('won', 'lost') then
    return null;
  end if;
  -- Read from the inbox, so it does not depend on the order in which the events came.
  return (
    select min(occurred_at)
    from billing_private.stripe_events
    where object_id = p_stripe_dispute_id
      and source = 'webhook'
      and coalesce(status_reason, 'superseded') = 'superseded'
      and billing_private.parse_json(payload) #>> '{data,object,status}' = p_status
  );
end;
$$;

comment on function billing_private.decided_at(text, text) is
  'When Stripe told first that a dispute is won or lost, as it is now; a re-read tells that it is, '
  'not since when.';


create function billing_private.dispute_returned_at(
  p_stripe_dispute_id text,
  p_status text
)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_status is distinct from 'won' then
    return null;
  end if;
  return billing_private.told_first(
    p_stripe_dispute_id, 'won', billing_private.told_first(p_stripe_dispute_id, 'lost'));
end;
$$;

comment on function billing_private.dispute_returned_at(text, text) is
  'When a dispute that had been lost was told to be won, as it is now.';


create function billing_private.project_dispute(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_charge_id text := billing_private.stripe_id(p_object -> 'charge');
  v_payment_key text := coalesce(
    billing_private.stripe_id(p_object -> 'payment_intent'), v_charge_id);
begin
  perform billing_private.lock_payment(v_payment_key);

  insert into billing.disputes as stored (
    stripe_payment_key, status, reason, network_reason_code, amount_minor, currency, is_withdrawn,
    is_refundable, evidence_due_at, has_evidence, disputed_at, decided_at, lost_at, returned_at,
    stripe_dispute_id, stripe_charge_id, updated_at
  )
  values (
    v_payment_key, p_object ->> 'status', p_object ->> 'reason', p_object ->> 'network_reason_code',
    coalesce(billing_private.stripe_integer(p_object -> 'amount'), 0),
    billing_private.stripe_currency(p_object -> 'currency'),
    billing_private.is_withdrawn(p_object),
    coalesce(p_object -> 'is_charge_refundable' = 'true', false),
    billing_private.stripe_time(p_object #> '{evidence_details,due_by}'),
    coalesce(p_object #> '{evidence_details,has_evidence}' = 'true', false),
    coalesce(billing_private.stripe_time(p_object -> 'created'), p_event.occurred_at),
    billing_private.decided_at(p_object ->> 'id', p_object ->> 'status'),
    billing_private.told_first(p_object ->> 'id', 'lost'),
    billing_private.dispute_returned_at(p_object ->> 'id', p_object ->> 'status'),
    p_object ->> 'id', v_charge_id, p_event.occurred_at
  )
  on conflict (stripe_dispute_id) do update
  set stripe_payment_key = excluded.stripe_payment_key,
      status = excluded.status,
      reason = excluded.reason,
      network_reason_code = excluded.network_reason_code,
      amount_minor = excluded.amount_minor,
      currency = excluded.currency,
      is_withdrawn = excluded.is_withdrawn,
      is_refundable = excluded.is_refundable,
      evidence_due_at = excluded.evidence_due_at,
      has_evidence = excluded.has_evidence,
      disputed_at = excluded.disputed_at,
      decided_at = coalesce(
        excluded.decided_at, case when stored.status = excluded.status then stored.decided_at end),
      lost_at = excluded.lost_at,
      returned_at = excluded.returned_at,
      stripe_charge_id = excluded.stripe_charge_id,
      updated_at = excluded.updated_at;

  perform billing_private.bind_payment_rows(v_payment_key);
end;
$$;

comment on function billing_private.project_dispute(jsonb, billing_private.stripe_events) is
  'Mirrors a dispute or inquiry. It names no customer: its account is its payment''s.';


create function billing_private.is_withdrawn(p_object jsonb)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- One entry takes the money, a second brings it back.
  return coalesce(
    (
      select sum(billing_private.stripe_integer(entry -> 'amount')) < 0
      from jsonb_path_query(p_object, '$.balance_transactions[*]') as entry
    ),
    false);
end;
$$;

comment on function billing_private.is_withdrawn(jsonb) is
  'Whether a dispute''s money is out of our Stripe balance, by its balance transactions.';


create function billing_private.project_early_fraud_warning(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_charge_id text := billing_private.stripe_id(p_object -> 'charge');
  v_payment_key text := coalesce(
    billing_private.stripe_id(p_object -> 'payment_intent'), v_charge_id);
begin
  perform billing_private.lock_payment(v_payment_key);

  insert into billing_private.early_fraud_warnings (
    stripe_payment_key, fraud_type, is_actionable, warned_at, stripe_early_fraud_warning_id,
    stripe_charge_id
  )
  values (
    v_payment_key, p_object ->> 'fraud_type', coalesce(p_object -> 'actionable' = 'true', false),
    coalesce(billing_private.stripe_time(p_object -> 'created'), p_event.occurred_at),
    p_object ->> 'id', v_charge_id
  )
  on conflict (stripe_early_fraud_warning_id) do update
  set stripe_payment_key = excluded.stripe_payment_key,
      fraud_type = excluded.fraud_type,
      is_actionable = excluded.is_actionable,
      warned_at = excluded.warned_at,
      stripe_charge_id = excluded.stripe_charge_id;

  perform billing_private.bind_payment_rows(v_payment_key);
end;
$$;

comment on function billing_private.project_early_fraud_warning(
  jsonb, billing_private.stripe_events
) is
  'Mirrors an issuer''s warning of fraud. It names no customer: its account is its payment''s.';


create function billing_private.project_credit_note(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
  v_account_id uuid := billing_private.note_customer(v_customer_id, null);
  v_amount bigint := coalesce(billing_private.stripe_integer(p_object -> 'amount'), 0);
begin
  insert into billing.credit_notes as stored (
    account_id, number, status, reason, memo, currency, amount_minor, before_payment_minor,
    after_payment_minor, out_of_band_minor, issued_at, effective_at, voided_at, pdf_url,
    stripe_credit_note_id, stripe_invoice_id, stripe_customer_id, stripe_refund_ids
  )
  values (
    v_account_id, p_object ->> 'number', p_object ->> 'status', p_object ->> 'reason',
    p_object ->> 'memo', billing_private.stripe_currency(p_object -> 'currency'), v_amount,
    -- Before a note could be both (basil), its type said which it was.
    coalesce(
      billing_private.stripe_integer(p_object -> 'pre_payment_amount'),
      case p_object ->> 'type' when 'pre_payment' then v_amount else 0 end),
    coalesce(
      billing_private.stripe_integer(p_object -> 'post_payment_amount'),
      case p_object ->> 'type' when 'post_payment' then v_amount else 0 end),
    coalesce(billing_private.stripe_integer(p_object -> 'out_of_band_amount'), 0),
    coalesce(billing_private.stripe_time(p_object -> 'created'), p_event.occurred_at),
    billing_private.stripe_time(p_object -> 'effective_at'),
    billing_private.stripe_time(p_object -> 'voided_at'),
    p_object ->> 'pdf', p_object ->> 'id', billing_private.stripe_id(p_object -> 'invoice'),
    v_customer_id, billing_private.refunds_of_credit_note(p_object)
  )
  on conflict (stripe_credit_note_id) do update
  set account_id = coalesce(stored.account_id, excluded.account_id),
      number = excluded.number,
      status = excluded.status,
      reason = excluded.reason,
      memo = excluded.memo,
      currency = excluded.currency,
      amount_minor = excluded.amount_minor,
      before_payment_minor = excluded.before_payment_minor,
      after_payment_minor = excluded.after_payment_minor,
      out_of_band_minor = excluded.out_of_band_minor,
      issued_at = excluded.issued_at,
      effective_at = excluded.effective_at,
      voided_at = excluded.voided_at,
      pdf_url = excluded.pdf_url,
      stripe_invoice_id = excluded.stripe_invoice_id,
      stripe_customer_id = excluded.stripe_customer_id,
      stripe_refund_ids = excluded.stripe_refund_ids;
end;
$$;

comment on function billing_private.project_credit_note(jsonb, billing_private.stripe_events) is
  'Mirrors a credit note.';


create function billing_private.refunds_of_credit_note(p_object jsonb)
returns text[]
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- A list since basil (2025-03-31), one refund before.
  return array(
    select billing_private.stripe_id(entry -> 'refund')
    from jsonb_path_query(p_object, '$.refunds[*]') as entry
    where billing_private.stripe_id(entry -> 'refund') is not null
    union
    select billing_private.stripe_id(p_object -> 'refund')
    where billing_private.stripe_id(p_object -> 'refund') is not null
    order by 1);
end;
$$;

comment on function billing_private.refunds_of_credit_note(jsonb) is
  'The ids of the refunds a credit note stands for, from any API version, sorted.';


-- -----------------------------------------------------------------------------
-- 12  projector: entitlement summary
-- -----------------------------------------------------------------------------

create function billing_private.project_entitlement_summary(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
begin
  perform billing_private.note_customer(v_customer_id, null);
  perform billing_private.project_entitlements(v_customer_id, p_object -> 'entitlements');

  -- Events show the first ten; a list that is cut short removes nothing.
  if p_object #> '{entitlements,has_more}' = 'true' then
    perform billing_private.request_list(
      'list_entitlements', p_event.object_id, p_event.event_id);
  else
    perform billing_private.keep_entitlements(v_customer_id, array(
      select jsonb_path_query(p_object, '$.entitlements.data[*].id') #>> '{}'));
  end if;
end;
$$;

comment on function billing_private.project_entitlement_summary(
  jsonb, billing_private.stripe_events
) is
  'Mirrors what Stripe says a customer is entitled to. The summary has no id: it is told apart by '
  'its customer.';


create function billing_private.project_entitlements(
  p_stripe_customer_id text,
  p_list jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing.stripe_entitlements (
    account_id, lookup_key, stripe_entitlement_id, stripe_feature_id, stripe_customer_id
  )
  select
    billing_private.account_of_customer(p_stripe_customer_id),
    entitlement ->> 'lookup_key', entitlement ->> 'id',
    billing_private.stripe_id(entitlement -> 'feature'),
    p_stripe_customer_id
  from jsonb_path_query(p_list, '$.data[*] ? (@.id != null)') as entitlement
  on conflict (stripe_entitlement_id) do update
  set lookup_key = excluded.lookup_key,
      stripe_feature_id = excluded.stripe_feature_id;
end;
$$;

comment on function billing_private.project_entitlements(text, jsonb) is
  'Mirrors entitlements of a customer, given as one of Stripe''s lists.';


create function billing_private.keep_entitlements(
  p_stripe_customer_id text,
  p_ids text[]
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  delete from billing.stripe_entitlements
  where stripe_customer_id = p_stripe_customer_id
    and stripe_entitlement_id <> all (p_ids);
end;
$$;

comment on function billing_private.keep_entitlements(text, text[]) is
  'Removes all entitlements of a customer but these.';


-- -----------------------------------------------------------------------------
-- 13  lists beyond what a snapshot shows
-- -----------------------------------------------------------------------------

create function billing_private.request_list(
  p_kind text,
  p_object_id text,
  p_event_id text,
  p_after text default null,
  p_seen text[] default '{}'
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- One that has not begun will read for the newer snapshot, too. Not one that begins just now:
  -- whoever hands its answer in will wait for the customer's lock, which our caller holds.
  if p_after is null then
    update billing_private.commands
    set wish = jsonb_build_object('event_id', p_event_id)
    where id in (
      select id
      from billing_private.commands
      where target_object_id = p_object_id
        and kind = p_kind
        and status = 'pending'
        and not params ? 'starting_after'
      for update skip locked
    );
    if found then
      return;
    end if;
  end if;

  insert into billing_private.commands (
    kind, method, path, params, target_object_id, wish, cause, request_id
  )
  select
    p_kind, 'GET', list.path,
    list.params || jsonb_strip_nulls(jsonb_build_object('limit', 100, 'starting_after', p_after)),
    p_object_id, jsonb_build_object('event_id', p_event_id, 'seen', p_seen),
    billing_private.cause(), billing_private.request_id()
  from (values
    ('list_invoice_lines', format('/v1/invoices/%s/lines', p_object_id), '{}'::jsonb),
    ('list_subscription_items', '/v1/subscription_items',
      jsonb_build_object('subscription', p_object_id)),
    ('list_entitlements', '/v1/entitlements/active_entitlements',
      jsonb_build_object('customer', replace(p_object_id, 'entitlements:', '')))
  ) as list (kind, path, params)
  where list.kind = p_kind;
end;
$$;

comment on function billing_private.request_list(text, text, text, text, text[]) is
  'Asks Stripe for a page of a list that a snapshot, given by its event, shows only the beginning '
  'of.';


create function billing_private.apply_list_page(
  p_command billing_private.commands,
  p_response jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_object_id text := p_command.target_object_id;
  v_event billing_private.stripe_events;
  v_page text[] := array(select jsonb_path_query(p_response, '$.data[*].id') #>> '{}');
  v_seen text[] := array(select jsonb_array_elements_text(p_command.wish -> 'seen')) || v_page;
begin
  select * into strict v_event
  from billing_private.stripe_events
  where event_id = p_command.wish ->> 'event_id';
  perform billing_private.lock_catalog(v_event.object_type);
  perform billing_private.lock_customer(coalesce(v_event.stripe_customer_id, v_object_id));

  -- A newer snapshot has its own list, which is being read for it if it is a long one.
  if not exists (
    select
    from billing_private.stripe_objects
    where object_id = v_object_id
      and event_id = v_event.event_id
  ) then
    return;
  end if;

  perform billing_private.add_listed(p_command.kind, v_object_id, p_response);
  if p_response -> 'has_more' = 'true' and v_page <> '{}' then
    perform billing_private.request_list(
      p_command.kind, v_object_id, v_event.event_id, v_page[cardinality(v_page)], v_seen);
  else
    perform billing_private.keep_listed(p_command.kind, v_object_id, v_seen);
  end if;
end;
$$;

comment on function billing_private.apply_list_page(billing_private.commands, jsonb) is
  'Applies a page of a long list to the snapshot it was asked for, and asks for the next one. What '
  'the list does not name goes when it has come to its end.';


create function billing_private.add_listed(
  p_kind text,
  p_object_id text,
  p_page jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_list jsonb := p_page || '{"has_more": true}';
begin
  case p_kind
    when 'list_invoice_lines' then
      perform billing_private.project_invoice_lines(
        jsonb_build_object('id', p_object_id, 'lines', v_list));
    when 'list_subscription_items' then
      perform billing_private.project_subscription_items(
        subscriptions.id, jsonb_build_object('items', v_list))
      from billing.subscriptions
      where stripe_subscription_id = p_object_id;
    when 'list_entitlements' then
      perform billing_private.project_entitlements(
        replace(p_object_id, 'entitlements:', ''), v_list);
  end case;
end;
$$;

comment on function billing_private.add_listed(text, text, jsonb) is
  'Mirrors a page of a long list.';


create function billing_private.keep_listed(
  p_kind text,
  p_object_id text,
  p_ids text[]
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_subscription_id uuid;
begin
  case p_kind
    when 'list_invoice_lines' then
      delete from billing.invoice_lines
      using billing.invoices
      where invoices.stripe_invoice_id = p_object_id
        and invoice_lines.invoice_id = invoices.id
        and invoice_lines.stripe_line_id <> all (p_ids);
    when 'list_subscription_items' then
      select id into strict v_subscription_id
      from billing.subscriptions
      where stripe_subscription_id = p_object_id;
      delete from billing.subscription_items
      where subscription_id = v_subscription_id
        and stripe_subscription_item_id <> all (p_ids);
      perform billing_private.follow_base_item(array[v_subscription_id]);
      perform billing_private.follow_schedule(p_object_id);
    when 'list_entitlements' then
      perform billing_private.keep_entitlements(
        replace(p_object_id, 'entitlements:', ''), p_ids);
      -- Which of two summaries of one second was the last is settled now.
      update billing_private.stripe_objects
      set is_ambiguous = false
      where object_id = p_object_id
        and is_ambiguous;
  end case;
end;
$$;

comment on function billing_private.keep_listed(text, text, text[]) is
  'Removes what a long list, read to its end, does not name.';


-- -----------------------------------------------------------------------------
-- 14  projectors: setup intent, tax id, test clock, meter
-- -----------------------------------------------------------------------------

create function billing_private.project_setup_intent(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := billing_private.stripe_id(p_object -> 'customer');
  v_account_id uuid := billing_private.note_customer(v_customer_id, null);
begin
  insert into billing.setup_intents as stored (
    account_id, status, usage, failure_code, decline_code, failure_message, cancellation_reason,
    stripe_setup_intent_id, stripe_customer_id, stripe_payment_method_id, created_at
  )
  values (
    v_account_id, p_object ->> 'status', p_object ->> 'usage',
    p_object #>> '{last_setup_error,code}',
    p_object #>> '{last_setup_error,decline_code}',
    p_object #>> '{last_setup_error,message}',
    p_object ->> 'cancellation_reason',
    p_object ->> 'id', v_customer_id,
    billing_private.stripe_id(p_object -> 'payment_method'),
    coalesce(billing_private.stripe_time(p_object -> 'created'), p_event.occurred_at)
  )
  on conflict (stripe_setup_intent_id) do update
  set account_id = coalesce(stored.account_id, excluded.account_id),
      status = excluded.status,
      usage = excluded.usage,
      failure_code = excluded.failure_code,
      decline_code = excluded.decline_code,
      failure_message = excluded.failure_message,
      cancellation_reason = excluded.cancellation_reason,
      stripe_customer_id = excluded.stripe_customer_id,
      stripe_payment_method_id = excluded.stripe_payment_method_id,
      created_at = excluded.created_at;
  perform billing_private.adopt_payment_method(p_object);
end;
$$;

comment on function billing_private.project_setup_intent(jsonb, billing_private.stripe_events) is
  'Mirrors a setup intent.';


create function billing_private.project_tax_id(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := coalesce(
    billing_private.stripe_id(p_object -> 'customer'),
    billing_private.stripe_id(p_object #> '{owner,customer}'));
  v_account_id uuid := billing_private.note_customer(v_customer_id, null);
begin
  insert into billing.tax_ids as stored (
    account_id, type, value, country, verification_status, deleted_at, stripe_tax_id,
    stripe_customer_id
  )
  values (
    v_account_id, p_object ->> 'type',
    -- Stripe goes on knowing whom we forgot.
    case when not billing_private.is_closed(v_account_id) then p_object ->> 'value' end,
    p_object ->> 'country',
    p_object #>> '{verification,status}',
    case when p_event.type = 'customer.tax_id.deleted' then p_event.occurred_at end,
    p_object ->> 'id', v_customer_id
  )
  on conflict (stripe_tax_id) do update
  set account_id = coalesce(stored.account_id, excluded.account_id),
      type = excluded.type,
      value = excluded.value,
      country = excluded.country,
      verification_status = excluded.verification_status,
      deleted_at = excluded.deleted_at,
      stripe_customer_id = excluded.stripe_customer_id;
end;
$$;

comment on function billing_private.project_tax_id(jsonb, billing_private.stripe_events) is
  'Mirrors a customer''s tax number.';


create function billing_private.project_test_clock(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing_private.test_clocks (
    stripe_test_clock_id, name, status, frozen_at, deletes_after, deleted_at
  )
  values (
    p_object ->> 'id', p_object ->> 'name', p_object ->> 'status',
    billing_private.stripe_time(p_object -> 'frozen_time'),
    billing_private.stripe_time(p_object -> 'deletes_after'),
    case when p_event.type = 'test_helpers.test_clock.deleted' then p_event.occurred_at end
  )
  on conflict (stripe_test_clock_id) do update
  set name = excluded.name,
      status = excluded.status,
      frozen_at = excluded.frozen_at,
      deletes_after = excluded.deletes_after,
      deleted_at = excluded.deleted_at;
end;
$$;

comment on function billing_private.project_test_clock(jsonb, billing_private.stripe_events) is
  'Mirrors a test clock.';


create function billing_private.project_meter(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing_private.meters (
    stripe_meter_id, event_name, display_name, status, formula, customer_key, value_key
  )
  values (
    p_event.object_id, p_object ->> 'event_name', p_object ->> 'display_name',
    p_object ->> 'status',
    p_object #>> '{default_aggregation,formula}',
    p_object #>> '{customer_mapping,event_payload_key}',
    p_object #>> '{value_settings,event_payload_key}'
  )
  on conflict (stripe_meter_id) do update
  set event_name = excluded.event_name,
      display_name = excluded.display_name,
      status = excluded.status,
      formula = excluded.formula,
      customer_key = excluded.customer_key,
      value_key = excluded.value_key;
end;
$$;

comment on function billing_private.project_meter(jsonb, billing_private.stripe_events) is
  'Mirrors a meter.';


create function billing_private.project_meter_error_report(
  p_thin jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing_private.meter_error_reports (event_id, stripe_meter_id, reported_at)
  values (p_event.event_id, p_event.object_id, p_event.occurred_at)
  on conflict (event_id) do nothing;

  if p_thin ? 'data' then
    perform billing_private.fill_meter_error_report(p_thin);
  elsif not exists (
    select
    from billing_private.commands
    where kind = 'read_event'
      and target_object_id = p_event.event_id
      and status = 'pending'
  ) then
    -- What is delivered says that there were errors, not which.
    insert into billing_private.commands (
      kind, method, path, target_object_id, cause, request_id
    )
    values (
      'read_event', 'GET', '/v2/core/events/' || p_event.event_id, p_event.event_id,
      billing_private.cause(), billing_private.request_id()
    );
  end if;
end;
$$;

comment on function billing_private.project_meter_error_report(
  jsonb, billing_private.stripe_events
) is
  'Notes that Stripe could not count reported usage, and asks for the details.';


create function billing_private.fill_meter_error_report(p_thin jsonb)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing_private.meter_error_reports
  set validation_start = billing_private.stripe_time(p_thin #> '{data,validation_start}'),
      validation_end = billing_private.stripe_time(p_thin #> '{data,validation_end}'),
      error_count = billing_private.stripe_integer(p_thin #> '{data,reason,error_count}'),
      summary = p_thin #>> '{data,developer_message_summary}',
      error_types = p_thin #> '{data,reason,error_types}'
  where event_id = p_thin ->> 'id';
end;
$$;

comment on function billing_private.fill_meter_error_report(jsonb) is
  'Fills in what a meter''s error report says, once Stripe has told it.';


-- -----------------------------------------------------------------------------
-- 15  what refunds and disputes leave
-- -----------------------------------------------------------------------------

create function billing_private.lock_payments_of(
  p_stripe_invoice_id text,
  p_stripe_customer_id text
)
returns text[]
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_payment_keys text[];
begin
  perform billing_private.lock_payment(p_stripe_invoice_id);

  select array_agg(stripe_payment_key order by stripe_payment_key) into v_payment_keys
  from (
    select stripe_payment_key
    from billing.payments
    where stripe_customer_id = p_stripe_customer_id
      and stripe_invoice_id = p_stripe_invoice_id
    union all
    -- What only the invoice payment told of so far.
    select stripe_payment_key
    from billing.payments
    where stripe_customer_id is null
      and stripe_invoice_id = p_stripe_invoice_id
  ) as made;
  perform billing_private.lock_payment(payment_key)
  from unnest(v_payment_keys) as payment_key;
  return v_payment_keys;
end;
$$;

comment on function billing_private.lock_payments_of(text, text) is
  'The payments of an invoice, locked together with it before rows are: a refund or dispute that '
  'comes meanwhile is applied by whoever is second.';


-- Its body is long because it is one query: a branch for each cause.
create function billing_private.restrictions_of(p_payment_keys text[])
returns setof billing.access_restrictions
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  with bought as materialized (
    select
      payments.stripe_payment_key as payment_key,
      payments.amount_received_minor,
      subscriptions.id as subscription_id,
      subscriptions.account_id,
      access_policies as policy,
      (
        select coalesce(max(invoice_lines.period_end), 'infinity')
        from billing.invoice_lines
        where invoice_lines.invoice_id = invoices.id
      ) as period_end
    from billing.payments
    join billing.invoices on invoices.stripe_invoice_id = payments.stripe_invoice_id
    join billing.subscriptions
      on subscriptions.stripe_subscription_id = invoices.stripe_subscription_id
    left join billing.prices on prices.id = subscriptions.price_id
    left join billing.plans on plans.id = prices.plan_id
    join billing.access_policies
      on access_policies.key = coalesce(plans.access_policy_key, 'standard')
    where payments.stripe_payment_key = any (p_payment_keys)
  ),
  -- A refund counts from its beginning: a pending one fails rarely, and then it is taken back.
  refunded as (
    select
      bought.payment_key,
      sum(refunds.amount_minor) >= bought.amount_received_minor as is_full,
      max(coalesce(refunds.refunded_at, refunds.created_at)) as refunded_at
    from bought
    join billing.refunds on refunds.stripe_payment_key = bought.payment_key
    where refunds.status in ('succeeded', 'pending')
      and bought.amount_received_minor > 0
    group by bought.payment_key, bought.amount_received_minor
  ),
  causes as (
    select
      bought.*,
      case when refunded.is_full then 'full_refund' else 'partial_refund' end as cause,
      bought.payment_key as reference,
      case
        when refunded.is_full then (bought.policy).full_refund
        else (bought.policy).partial_refund
      end as access_level,
      refunded.refunded_at as begins_at,
      bought.period_end as periods_before,
      null::timestamptz as lifted_at
    from bought
    join refunded using (payment_key)
    union all
    select
      bought.*, 'dispute_opened', disputes.stripe_dispute_id, (bought.policy).dispute_opened,
      coalesce(disputes.disputed_at, disputes.created_at), 'infinity',
      case
        when disputes.status in ('won', 'lost')
          then coalesce(disputes.decided_at, disputes.updated_at)
      end
    from bought
    join billing.disputes on disputes.stripe_payment_key = bought.payment_key
    -- In an inquiry no money has moved, and what was prevented never became a dispute.
    where disputes.status !~ '^(warning_|prevented$)'
    union all
    select
      bought.*, 'dispute_' || disputes.status, disputes.stripe_dispute_id,
      case disputes.status
        when 'lost' then (bought.policy).dispute_lost
        else (bought.policy).dispute_won
      end,
      coalesce(disputes.decided_at, disputes.disputed_at, disputes.created_at),
      greatest(disputes.decided_at, bought.period_end), null
    from bought
    join billing.disputes on disputes.stripe_payment_key = bought.payment_key
    where disputes.status in ('won', 'lost')
  )
  select
    gen_random_uuid(), account_id, subscription_id, cause, reference, access_level, begins_at,
    periods_before, lifted_at, billing_private.now()
  from causes;
end;
$$;

comment on function billing_private.restrictions_of(text[]) is
$$What the refunds and disputes of these payments leave of the subscriptions that were paid with
them, by the access policy of their plan.

A refund concerns the period that was paid. A dispute concerns the subscription until the bank has
decided; a lost one, until the period that is running then is over. Where nobody told when that was,
it concerns the period that was paid: one that is paid later is not blocked by a late re-read.$$;


create function billing_private.restrict_access(p_payment_keys text[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Nearly all payments are neither refunded nor disputed.
  if p_payment_keys is null
    or not exists (select from billing.refunds where stripe_payment_key = any (p_payment_keys))
    and not exists (select from billing.disputes where stripe_payment_key = any (p_payment_keys))
  then
    return;
  end if;

  with expected as materialized (
    select * from billing_private.restrictions_of(p_payment_keys)
  ),
  lifted as (
    update billing.access_restrictions
    set lifted_at = billing_private.now()
    where access_restrictions.lifted_at is null
      and access_restrictions.reference = any (
        p_payment_keys || array(
          select stripe_dispute_id
          from billing.disputes
          where stripe_payment_key = any (p_payment_keys)))
      and access_restrictions.subscription_id in (
        select subscriptions.id
        from billing.payments
        join billing.invoices using (stripe_invoice_id)
        join billing.subscriptions
          on subscriptions.stripe_subscription_id = invoices.stripe_subscription_id
        where payments.stripe_payment_key = any (p_payment_keys)
      )
      and not exists (
        select
        from expected
        where (expected.subscription_id, expected.cause, expected.reference)
          = (access_restrictions.subscription_id, access_restrictions.cause,
            access_restrictions.reference)
      )
  )
  insert into billing.access_restrictions as stored
  select * from expected
  on conflict (subscription_id, cause, reference) do update
  set begins_at = excluded.begins_at,
      periods_before = excluded.periods_before,
      lifted_at = excluded.lifted_at
  where (stored.begins_at, stored.periods_before, stored.lifted_at)
    is distinct from (excluded.begins_at, excluded.periods_before, excluded.lifted_at);
end;
$$;

comment on function billing_private.restrict_access(text[]) is
  'Records what refunds and disputes of these payments leave of access, and lifts what no longer '
  'holds. Whoever calls it holds the locks of the payments.';


-- -----------------------------------------------------------------------------
-- 16  projector: checkout session
-- -----------------------------------------------------------------------------

create function billing_private.project_checkout_session(
  p_object jsonb,
  p_event billing_private.stripe_events
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_status text := p_object ->> 'status';
  v_session billing.checkout_sessions;
begin
  -- Of sessions made by others (payment links, the dashboard) only the customer is of interest:
  -- what they sell arrives as a subscription.
  select * into v_session
  from billing.checkout_sessions
  where stripe_session_id = p_object ->> 'id'
    or (
      stripe_session_id is null
      and id = billing_private.uuid_or_null(p_object #>> '{metadata,checkout_id}')
    );
  if found then
    perform billing_private.lock_account(v_session.account_id);
  end if;

  update billing.checkout_sessions
  set stripe_session_id = p_object ->> 'id',
      -- What was closed here while Stripe was being asked for its page does not open again.
      status = case
        when v_status in ('complete', 'expired') then v_status
        when v_status = 'open' and status = 'creating' then v_status
        else status
      end,
      url = case
        when v_status = 'open' and status in ('creating', 'open') then p_object ->> 'url'
      end,
      expires_at = billing_private.stripe_time(p_object -> 'expires_at'),
      completed_at = case
        when v_status = 'complete' then coalesce(completed_at, p_event.occurred_at)
      end,
      stripe_subscription_id = billing_private.stripe_id(p_object -> 'subscription'),
      failure = null
  where id = v_session.id
  returning * into v_session;

  -- Who pays is known from our claim, or from what whoever made the session said.
  perform billing_private.bind_customer(
    billing_private.stripe_id(p_object -> 'customer'),
    coalesce(
      v_session.account_id,
      billing_private.uuid_or_null(p_object #>> '{metadata,account_id}'),
      billing_private.uuid_or_null(p_object ->> 'client_reference_id')));

  if v_session.id is not null and v_status = 'complete' then
    perform billing_private.retire_checkouts(v_session.account_id, v_session.id);
  elsif v_status = 'open' and v_session.status <> 'open' then
    perform billing_private.enqueue_session_expiry(v_session);
  end if;
end;
$$;

comment on function billing_private.project_checkout_session(
  jsonb, billing_private.stripe_events
) is
  'Follows the checkout sessions we opened, and learns from any session whose customer it is. '
  'complete is not paid: access waits for the subscription itself.';


-- -----------------------------------------------------------------------------
-- 17  applying an event
-- -----------------------------------------------------------------------------

create function billing_private.refusal_of(p_event billing_private.stripe_events)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return case
    when p_event.connected_account_id is not null then 'connected_account'
    when p_event.livemode <> (select stripe_livemode from billing_private.settings)
      then 'other_livemode'
    when exists (
      select from billing_private.event_handlers where event_type = p_event.type
    ) then
      case
        when p_event.object_id is null and not billing_private.is_thin(p_event.type)
          then 'object_without_id'
      end
    when not billing_private.is_thin(p_event.type) then 'unhandled_type'
    when p_event.object_id is null then 'no_related_object'
    when billing_private.related_resource(p_event) is null then 'unhandled_type'
  end;
end;
$$;

comment on function billing_private.refusal_of(billing_private.stripe_events) is
  'Why an event is stored but not applied, or null when it is to be applied.';


create function billing_private.is_thin(p_event_type text)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  return p_event_type ~ '^v[0-9]+\.';
end;
$$;

comment on function billing_private.is_thin(text) is
  'Whether a type is one of the thin events (v2.core.event), which name an object without showing '
  'it.';


create function billing_private.related_resource(p_event billing_private.stripe_events)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_related jsonb := billing_private.parse_json(p_event.payload) -> 'related_object';
begin
  return (
    select object_type
    from billing_private.stripe_resources
    where replace(retrieve_path, '{id}', v_related ->> 'id') = v_related ->> 'url'
      or object_type = v_related ->> 'type'
    order by (object_type = v_related ->> 'type') desc
    limit 1
  );
end;
$$;

comment on function billing_private.related_resource(billing_private.stripe_events) is
  'The kind of object a thin event is about, by its address or its name; null for what is not '
  'mirrored.';


create function billing_private.follow_thin_event(p_event billing_private.stripe_events)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_event jsonb := billing_private.parse_json(p_event.payload);
  v_projector text := (
    select projector from billing_private.event_handlers where event_type = p_event.type
  );
begin
  if v_projector is not null then
    execute format('select billing_private.%I($1, $2)', v_projector) using v_event, p_event;
    return 'thin';
  end if;

  -- Many come beside an event that shows the object.
  if not exists (
    select from billing_private.stripe_events where event_id = v_event ->> 'snapshot_event'
  ) then
    perform billing_private.request_reread(
      billing_private.related_resource(p_event), p_event.object_id, 'thin_event');
  end if;
  return 'thin';
end;
$$;

comment on function billing_private.follow_thin_event(billing_private.stripe_events) is
  'Asks Stripe how the object of a thin event is now, unless the event that shows it has come. '
  'Returns the status reason that keeps it out of the object''s snapshots.';


create function billing_private.date_back_invoice(p_event billing_private.stripe_events)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing.invoices
  set payment_failed_at = known.failed_at,
      action_required_at = failure.action_required_at
  from billing_private.failed_attempts(p_event.object_id) as failure
  cross join lateral (
    select coalesce(
      failure.failed_at, stored.payment_failed_at,
      billing_private.inferred_failure(
        billing_private.parse_json(p_event.payload) #> '{data,object}')) as failed_at
    from billing.invoices as stored
    where stored.stripe_invoice_id = p_event.object_id
  ) as known
  where invoices.stripe_invoice_id = p_event.object_id
    and (invoices.payment_failed_at, invoices.action_required_at)
      is distinct from (known.failed_at, failure.action_required_at);
end;
$$;

comment on function billing_private.date_back_invoice(billing_private.stripe_events) is
  'Notes that collecting an invoice had failed, where only an older snapshot shows it.';


create function billing_private.date_back(p_event billing_private.stripe_events)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_payment_key text;
begin
  if p_event.object_type = 'subscription' then
    update billing.subscriptions
    set past_due_since = series.began_at
    from billing_private.stripe_objects
    cross join lateral billing_private.past_due_since(
      p_event.object_id, stripe_objects.occurred_at) as series (began_at)
    where subscriptions.stripe_subscription_id = p_event.object_id
      and stripe_objects.object_id = p_event.object_id
      and subscriptions.status = 'past_due'
      and subscriptions.past_due_since is distinct from series.began_at;
    perform billing_private.settle_versions(array(
      select subscription_items.id
      from billing.subscription_items
      join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
      where subscriptions.stripe_subscription_id = p_event.object_id));
  elsif p_event.object_type = 'checkout.session' then
    update billing.checkout_sessions
    set completed_at = p_event.occurred_at
    where stripe_session_id = p_event.object_id
      and completed_at > p_event.occurred_at
      and billing_private.parse_json(p_event.payload) #>> '{data,object,status}' = 'complete';
  elsif p_event.object_type = 'invoice' then
    perform billing_private.date_back_invoice(p_event);
  elsif p_event.object_type = 'payment_method' then
    update billing.payment_methods
    set stripe_customer_id = p_event.stripe_customer_id,
        account_id = coalesce(
          account_id, billing_private.account_of_customer(p_event.stripe_customer_id))
    where stripe_payment_method_id = p_event.object_id
      and stripe_customer_id is null
      and p_event.stripe_customer_id is not null;
  elsif p_event.object_type = 'dispute' then
    select stripe_payment_key into v_payment_key
    from billing.disputes
    where stripe_dispute_id = p_event.object_id;
    perform billing_private.lock_payment(v_payment_key);
    update billing.disputes
    set decided_at = billing_private.decided_at(stripe_dispute_id, status),
        lost_at = billing_private.told_first(stripe_dispute_id, 'lost'),
        returned_at = billing_private.dispute_returned_at(stripe_dispute_id, status)
    where stripe_dispute_id = p_event.object_id;
    perform billing_private.restrict_access(array[v_payment_key]);
  elsif p_event.object_type = 'refund' then
    update billing.refunds
    set returned_at = billing_private.refund_returned_at(stripe_refund_id, status)
    where stripe_refund_id = p_event.object_id;
  end if;
end;
$$;

comment on function billing_private.date_back(billing_private.stripe_events) is
  'An older snapshot changes no state, but it may tell that a state began earlier, or whose a '
  'detached payment method was.';


create function billing_private.project_event(
  p_event billing_private.stripe_events,
  p_data jsonb
)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_object jsonb := p_data -> 'object';
  v_verdict billing_private.snapshot_verdict;
  v_newest billing_private.stripe_events;
begin
  perform billing_private.lock_catalog(p_event.object_type);
  perform billing_private.lock_customer(coalesce(
    p_event.stripe_customer_id,
    case when p_event.object_type = 'payment_method' then (
      select stripe_customer_id
      from billing.payment_methods
      where stripe_payment_method_id = p_event.object_id
    ) end,
    p_event.object_id));
  -- A method that is detached need not name the customer, and the customer may not be known of it
  -- yet.
  perform billing_private.lock_payment(case p_event.object_type
    when 'payment_method' then p_event.object_id
    when 'customer' then billing_private.default_method_of(v_object)
  end);
  if p_event.source <> 'webhook' then
    perform billing_private.set_cause(
      'command', replace(p_event.event_id, 'command:', ''), p_event.type);
  else
    perform billing_private.set_cause('stripe_event', p_event.event_id, p_event.type);
  end if;
  if billing_private.is_thin(p_event.type) then
    return billing_private.follow_thin_event(p_event);
  end if;

  v_verdict := billing_private.accept_snapshot(p_event, p_data);
  if v_verdict.newest_id = p_event.event_id then
    perform billing_private.call_projector(p_event, v_object);
    return null;
  end if;

  -- Whoever is named by any snapshot is the owner, also when a newer one names nobody.
  if p_event.object_type in ('customer', 'subscription') then
    perform billing_private.note_customer(p_event.stripe_customer_id, v_object -> 'metadata');
  end if;
  if v_verdict.newest_id is null then
    perform billing_private.date_back(p_event);
    return case when not v_verdict.is_known then 'superseded' end;
  end if;

  select * into v_newest
  from billing_private.stripe_events
  where event_id = v_verdict.newest_id;
  perform billing_private.call_projector(
    v_newest, billing_private.parse_json(v_newest.payload) #> '{data,object}');
  return null;
end;
$$;

comment on function billing_private.project_event(billing_private.stripe_events, jsonb) is
  'Brings what an event says into the tables, given its data; returns superseded when something '
  'newer is there already.';


create function billing_private.call_projector(
  p_event billing_private.stripe_events,
  p_object jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_projector text := (
    select projector from billing_private.event_handlers where event_type = p_event.type
  );
begin
  -- What comes most often is called by its name: a dynamic statement is planned anew each time.
  case v_projector
    when 'project_charge' then
      perform billing_private.project_charge(p_object, p_event);
    when 'project_customer' then
      perform billing_private.project_customer(p_object, p_event);
    when 'project_invoice' then
      perform billing_private.project_invoice(p_object, p_event);
    when 'project_invoice_payment' then
      perform billing_private.project_invoice_payment(p_object, p_event);
    when 'project_payment_intent' then
      perform billing_private.project_payment_intent(p_object, p_event);
    when 'project_subscription' then
      perform billing_private.project_subscription(p_object, p_event);
    else
      execute format('select billing_private.%I($1, $2)', v_projector) using p_object, p_event;
  end case;
end;
$$;

comment on function billing_private.call_projector(billing_private.stripe_events, jsonb) is
  'Calls the projector that event_handlers names for the snapshot''s event.';


create type billing_private.event_outcome as (
  status text,
  reason text,
  was_tried integer,
  error jsonb
);


-- All that follows, triggers included, looks up single rows: one plan for all keys is right, and
-- planning anew at each call would cost more than the work.
create function billing_private.try_event(
  p_event billing_private.stripe_events,
  p_data jsonb
)
returns billing_private.event_outcome
language plpgsql
volatile
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_outcome billing_private.event_outcome;
  v_message text;
  v_context text;
  v_sqlstate text;
begin
  v_outcome.reason := billing_private.project_event(p_event, p_data);
  v_outcome.status := 'applied';
  v_outcome.was_tried := 1;
  return v_outcome;
exception when others then
  get stacked diagnostics
    v_message = message_text, v_context = pg_exception_context, v_sqlstate = returned_sqlstate;
  -- Somebody else was in the way: that says nothing about the event, however often it happens.
  v_outcome.was_tried := (v_sqlstate !~ '^40' and v_sqlstate <> '55P03')::integer;
  v_outcome.status := case
    when p_event.attempts >= 7 and v_outcome.was_tried = 1 then 'dead' else 'failed'
  end;
  v_outcome.reason := null;
  v_outcome.error := jsonb_build_object('message', v_message, 'context', v_context);
  return v_outcome;
end;
$$;

comment on function billing_private.try_event(billing_private.stripe_events, jsonb) is
  'Applies an event, given its data, in a subtransaction and says what came of it: applied '
  '(superseded, where something newer is there), failed (to be retried) or dead (after eight '
  'tries).';


create function billing_private.note_outcome(
  p_event_id text,
  p_outcome billing_private.event_outcome,
  p_attempts integer
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing_private.stripe_events
  set status = p_outcome.status,
      status_reason = p_outcome.reason,
      attempts = p_attempts + p_outcome.was_tried,
      -- 1 minute, then twice as long each time: eight tries within about two hours.
      next_attempt_at = case
        when p_outcome.status = 'failed'
          then billing_private.now()
            + interval '1 minute' * (2 ^ (p_attempts * p_outcome.was_tried))
      end,
      last_error = p_outcome.error,
      finished_at = case when p_outcome.status <> 'failed' then billing_private.now() end
  where event_id = p_event_id;
end;
$$;

comment on function billing_private.note_outcome(
  text, billing_private.event_outcome, integer
) is
  'Notes what came of trying an event that had been tried so often before.';


create function billing_private.apply_event(p_event_id text)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_event billing_private.stripe_events;
  v_reason text;
  v_outcome billing_private.event_outcome;
begin
  select * into strict v_event
  from billing_private.stripe_events
  where event_id = p_event_id
  for update;

  v_reason := billing_private.refusal_of(v_event);
  if v_reason is not null then
    v_outcome := ('ignored', v_reason, 1, null);
  else
    v_outcome := billing_private.try_event(
      v_event, billing_private.parse_json(v_event.payload) -> 'data');
  end if;

  perform billing_private.note_outcome(p_event_id, v_outcome, v_event.attempts);
  return v_outcome.status;
end;
$$;

comment on function billing_private.apply_event(text) is
  'Applies a stored event and notes the outcome: applied, ignored, failed (will be retried) or '
  'dead (after eight tries; being in somebody''s way is none).';


-- -----------------------------------------------------------------------------
-- 18  billing.ingest_stripe_event() and ingest_stripe_events()
-- -----------------------------------------------------------------------------

create type billing.ingest_result as (
  event_id text,
  status text,
  duplicate boolean
);

comment on type billing.ingest_result is
  'What became of a delivered event: its id, its status in the inbox, and whether it was there '
  'before.';


create function billing_private.parse_event(p_payload text)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return billing_private.parse_json(p_payload);
exception when others then
  perform billing_private.fail('EVENT_INVALID', '{"problem": "not JSON"}');
  return null;
end;
$$;

comment on function billing_private.parse_event(text) is
  'jsonb of a request''s body. Refuses what is not JSON (EVENT_INVALID, 400).';


create function billing_private.read_envelope(
  p_payload text,
  p_event jsonb
)
returns billing_private.stripe_events
language plpgsql
stable
set search_path = ''
as $$
declare
  v_object jsonb := p_event #> '{data,object}';
  v_event billing_private.stripe_events;
begin
  v_event.event_id := nullif(p_event ->> 'id', '');
  v_event.source := 'webhook';
  v_event.type := nullif(p_event ->> 'type', '');
  -- Thin events (v2.core.event) only name their object; an entitlement summary is a customer's.
  v_event.object_id := coalesce(
    nullif(v_object ->> 'id', ''),
    p_event #>> '{related_object,id}',
    case when v_object ->> 'object' = 'entitlements.active_entitlement_summary'
      then 'entitlements:' || billing_private.stripe_id(v_object -> 'customer') end);
  v_event.object_type := coalesce(v_object ->> 'object', p_event #>> '{related_object,type}');
  v_event.stripe_customer_id := case
    when v_object ->> 'object' = 'customer' then v_object ->> 'id'
    else coalesce(
      billing_private.stripe_id(v_object -> 'customer'),
      billing_private.stripe_id(v_object #> '{owner,customer}'),
      billing_private.stripe_id(p_event #> '{data,previous_attributes,customer}'))
  end;
  -- What a thin event calls context, under which its object would have to be asked for.
  v_event.connected_account_id := coalesce(
    nullif(p_event ->> 'account', ''),
    case when p_event ->> 'object' = 'v2.core.event' then nullif(p_event ->> 'context', '') end);
  v_event.api_version := p_event ->> 'api_version';
  v_event.livemode := coalesce(p_event -> 'livemode' = 'true', false);
  v_event.occurred_at := coalesce(
    billing_private.stripe_time(p_event -> 'created'), billing_private.now());
  v_event.payload := p_payload;
  v_event.request_id := billing_private.request_id();

  if v_event.event_id is null or v_event.type is null
    or coalesce(p_event ->> 'object', '') not in ('event', 'v2.core.event')
  then
    perform billing_private.fail('EVENT_INVALID', jsonb_build_object(
      'problem', 'id, type or object is missing'));
  end if;
  return v_event;
end;
$$;

comment on function billing_private.read_envelope(text, jsonb) is
  'What the inbox keeps beside the raw text of an event. Refuses what is not an event '
  '(EVENT_INVALID, 400).';


-- The row is written as what most events become, so that most are written once; where it turns out
-- otherwise, the same transaction says so.
create function billing_private.ingest_stripe_event(p_payload text)
returns billing.ingest_result
language plpgsql
volatile
security definer -- the inbox is writable by nobody
set search_path = ''
as $$
declare
  v_json jsonb := billing_private.parse_event(p_payload);
  v_event billing_private.stripe_events := billing_private.read_envelope(p_payload, v_json);
  v_reason text := billing_private.refusal_of(v_event);
  v_outcome billing_private.event_outcome;
begin
  -- Waits for a concurrent delivery of the same event, and then finds it done.
  insert into billing_private.stripe_events (
    event_id, type, object_id, object_type, stripe_customer_id, connected_account_id, api_version,
    livemode, occurred_at, payload, request_id, status, status_reason, attempts, finished_at
  )
  values (
    v_event.event_id, v_event.type, v_event.object_id, v_event.object_type,
    v_event.stripe_customer_id, v_event.connected_account_id, v_event.api_version,
    v_event.livemode, v_event.occurred_at, v_event.payload, v_event.request_id,
    case when v_reason is null then 'applied' else 'ignored' end, v_reason, 1,
    billing_private.now()
  )
  on conflict (event_id) do nothing
  returning * into v_event;

  if not found then
    return (
      select row(event_id, status, true)::billing.ingest_result
      from billing_private.stripe_events
      where event_id = v_json ->> 'id'
    );
  end if;

  if v_reason is null then
    v_outcome := billing_private.try_event(v_event, v_json -> 'data');
    if (v_outcome.status, v_outcome.reason) is distinct from ('applied', null) then
      perform billing_private.note_outcome(v_event.event_id, v_outcome, 0);
    end if;
  end if;
  return row(v_event.event_id, coalesce(v_outcome.status, 'ignored'), false);
end;
$$;


create function billing.ingest_stripe_event(payload text)
returns billing.ingest_result
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.ingest_stripe_event(payload);
end;

comment on function billing.ingest_stripe_event(text) is
$$Stores a verified Stripe event and applies it, in one transaction. For service_role.

payload: the raw request body, whose signature the caller has checked. The same event twice
changes nothing.
A failure to apply does not fail the call: the event is kept, retried with back-off, and shown in
billing_admin.event_backlog. Only a failure to store is an error, so that Stripe delivers again.

Errors
  EVENT_INVALID  400  not JSON, or not an event$$;


create function billing_private.envelope_or_null(p_payload text)
returns billing_private.stripe_events
language plpgsql
stable
set search_path = ''
as $$
begin
  return billing_private.read_envelope(p_payload, billing_private.parse_event(p_payload));
exception when sqlstate 'PT400' then
  return null;
end;
$$;

comment on function billing_private.envelope_or_null(text) is
  'read_envelope() for one of many: null for what is not an event.';


create function billing_private.lock_for_events(p_events billing_private.stripe_events[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- The strongest lock on the catalog that any of them needs: taken again later, it is there.
  perform billing_private.lock_catalog(object_type)
  from unnest(p_events)
  order by billing_private.is_catalog_object(object_type) desc
  limit 1;

  perform billing_private.lock_customer(lock_key)
  from (
    select distinct coalesce(stripe_customer_id, object_id, event_id) as lock_key
    from unnest(p_events)
    order by lock_key
  ) as keys;
end;
$$;

comment on function billing_private.lock_for_events(billing_private.stripe_events[]) is
  'Takes the locks of many events at once, in an order that is the same for everybody.';


-- Of many events each may want an account that somebody else holds who wants one of these: who is
-- in no hurry gives way. The event is tried again like one that failed.
create function billing_private.apply_events(p_event_ids text[])
returns void
language plpgsql
volatile
set search_path = ''
set lock_timeout = '200ms'
as $$
begin
  perform billing_private.apply_event(event_id)
  from unnest(p_event_ids) with ordinality as given (event_id, position)
  order by given.position;
end;
$$;

comment on function billing_private.apply_events(text[]) is
  'Applies stored events one after the other, each for itself: one that fails stops no other.';


-- Gives way as apply_events() does. Each row says already what most events become.
create function billing_private.try_events(p_events billing_private.stripe_events[])
returns void
language plpgsql
volatile
set search_path = ''
set lock_timeout = '200ms'
as $$
declare
  v_event billing_private.stripe_events;
  v_outcome billing_private.event_outcome;
begin
  foreach v_event in array p_events loop
    v_outcome := billing_private.try_event(
      v_event, billing_private.parse_json(v_event.payload) -> 'data');
    if (v_outcome.status, v_outcome.reason) is distinct from ('applied', null) then
      perform billing_private.note_outcome(v_event.event_id, v_outcome, 0);
    end if;
  end loop;
end;
$$;

comment on function billing_private.try_events(billing_private.stripe_events[]) is
  'Tries events that were just stored as applied, one after the other, each for itself, and notes '
  'what came otherwise.';


-- Long because it is one call: read, store, lock, try, and tell of each.
create function billing_private.ingest_stripe_events(p_payloads text[])
returns setof billing.ingest_result
language plpgsql
volatile
security definer -- the inbox is writable by nobody
set search_path = ''
as $$
declare
  v_limit constant integer := 1000;
  v_events billing_private.stripe_events[];
  v_new billing_private.stripe_events[];
  v_new_ids text[];
begin
  if cardinality(p_payloads) > v_limit then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'payloads', 'problem', format('must not be more than %s', v_limit)));
  end if;

  select array_agg(billing_private.envelope_or_null(payload) order by position) into v_events
  from unnest(p_payloads) with ordinality as given (payload, position);

  -- In the order of their ids: two batches that share events do not wait for each other in a
  -- circle.
  with stored as (
    insert into billing_private.stripe_events (
      event_id, type, object_id, object_type, stripe_customer_id, connected_account_id, api_version,
      livemode, occurred_at, payload, request_id, status, status_reason, attempts, finished_at
    )
    select
      given.event_id, given.type, given.object_id, given.object_type, given.stripe_customer_id,
      given.connected_account_id, given.api_version, given.livemode, given.occurred_at,
      given.payload, given.request_id,
      case when refusal.reason is null then 'applied' else 'ignored' end, refusal.reason, 1,
      billing_private.now()
    from unnest(v_events) as given
    cross join lateral (select billing_private.refusal_of(given) as reason offset 0) as refusal
    where given.event_id is not null
    order by given.event_id
    on conflict (event_id) do nothing
    returning stripe_events as event
  )
  select array_agg(event), array_agg((event).event_id) into v_new, v_new_ids from stored;

  perform billing_private.lock_for_events(v_new);
  -- Object by object, the newest second first: what is older then costs next to nothing. Only what
  -- has a history is told as it happened; the final state needs no order.
  perform billing_private.try_events(array(
    select event
    from unnest(v_new) as event
    join (
      select event_id, min(given.ordinality) as position
      from unnest(v_events) with ordinality as given
      group by event_id
    ) as delivered using (event_id)
    where event.status = 'applied'
    order by
      min(event.occurred_at) over (partition by event.object_id),
      event.object_id,
      case when event.object_type is distinct from 'subscription' then event.occurred_at end desc,
      event.occurred_at,
      delivered.position
  ));

  return query
  select
    given.event_id,
    coalesce(stripe_events.status, 'invalid'),
    coalesce(
      not given.event_id = any (coalesce(v_new_ids, '{}'))
        or row_number() over (partition by given.event_id order by given.ordinality) > 1,
      false)
  from unnest(v_events) with ordinality as given
  left join billing_private.stripe_events on stripe_events.event_id = given.event_id
  order by given.ordinality;
end;
$$;


create function billing.ingest_stripe_events(payloads text[])
returns setof billing.ingest_result
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.ingest_stripe_events(payloads);
end;

comment on function billing.ingest_stripe_events(text[]) is
$$Stores and applies many Stripe events in one transaction: the same as
billing.ingest_stripe_event() for each, in less time. For service_role.

payloads: at most 1,000 events as Stripe rendered them, in any order. Returns one row for each, in
the order given. One that is not an event has the status invalid and no id; one that cannot be
applied is kept and tried again. Neither stops the others.

Errors
  VALIDATION_FAILED  400  more than 1,000 events$$;


-- -----------------------------------------------------------------------------
-- 19  billing.report_rejected_webhook()
-- -----------------------------------------------------------------------------

create function billing_private.report_rejected_webhook(p_reason text)
returns void
language plpgsql
volatile
security definer -- the counter is writable by nobody
set search_path = ''
as $$
begin
  insert into billing_private.webhook_rejections as stored (reason, minute)
  values (
    -- Reasons come from the catalog, so a caller cannot make the table grow.
    coalesce((select code from billing.error_codes where code = p_reason), 'INTERNAL_ERROR'),
    date_trunc('minute', billing_private.now(), 'UTC')
  )
  on conflict (reason, minute) do update
  set count = stored.count + 1;
end;
$$;


create function billing.report_rejected_webhook(reason text)
returns void
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.report_rejected_webhook(reason);
end;

comment on function billing.report_rejected_webhook(text) is
$$Counts a webhook request that was refused, so that a burst of them raises an alert. For
service_role.

reason: the error code the request was answered with.$$;


-- -----------------------------------------------------------------------------
-- 20  history of subscriptions
-- -----------------------------------------------------------------------------

create function billing_private.record_subscription_changes()
returns trigger
language plpgsql
volatile
security definer -- history is writable by nobody
set search_path = ''
as $$
begin
  insert into billing.subscription_changes (
    subscription_id, account_id, kind, from_status, to_status, from_price_id, to_price_id,
    from_quantity, to_quantity, amount_minor, currency, effective_at, actor_id, cause
  )
  select
    after.id, after.account_id, kind,
    before.status, after.status, before.price_id, after.price_id,
    before.quantity, after.quantity,
    billing_private.amount_of(prices, after.quantity), prices.currency,
    -- What waits is learned from a schedule, which leaves the subscription as it is.
    case
      when kind in ('change_scheduled', 'change_undone') then billing_private.now()
      else after.updated_at
    end,
    billing_private.user_id(), billing_private.cause()
  from subscriptions_after as after
  join subscriptions_before as before on before.id = after.id
  cross join lateral billing_private.kinds_of_change(before, after) as kind
  left join billing.prices on prices.id = after.price_id;

  -- What was bought is learned after the start: the items of a subscription come after its row, and
  -- the price of an item may come days later.
  if not exists (select from subscriptions_before where price_id is null) then
    return null;
  end if;
  update billing.subscription_changes as start
  set to_price_id = after.price_id,
      to_quantity = after.quantity,
      amount_minor = billing_private.amount_of(prices, after.quantity),
      currency = prices.currency
  from subscriptions_after as after
  join subscriptions_before as before on before.id = after.id
  join billing.prices on prices.id = after.price_id
  where before.price_id is null
    and start.subscription_id = after.id
    and start.kind = 'started';
  return null;
end;
$$;

comment on function billing_private.record_subscription_changes() is
  'Writes what an update changed into subscription_changes, whoever made it.';


create function billing_private.record_subscription_starts()
returns trigger
language plpgsql
volatile
security definer -- history is writable by nobody
set search_path = ''
as $$
begin
  insert into billing.subscription_changes (
    subscription_id, account_id, kind, to_status, to_price_id, to_quantity, amount_minor,
    currency, effective_at, actor_id, cause
  )
  select
    after.id, after.account_id, 'started', after.status, after.price_id, after.quantity,
    billing_private.amount_of(prices, after.quantity), prices.currency,
    coalesce(after.started_at, after.updated_at), billing_private.user_id(), billing_private.cause()
  from subscriptions_after as after
  left join billing.prices on prices.id = after.price_id;
  return null;
end;
$$;

comment on function billing_private.record_subscription_starts() is
  'Writes the start of each new subscription into subscription_changes.';


create function billing_private.kinds_of_change(
  p_before billing.subscriptions,
  p_after billing.subscriptions
)
returns setof text
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_was_ending boolean := p_before.cancel_at_period_end or p_before.cancel_at is not null;
  v_is_ending boolean := p_after.cancel_at_period_end or p_after.cancel_at is not null;
begin
  if p_after.status <> p_before.status then
    return next 'status';
  end if;
  -- From null it is the mirror learning what was bought, not a change of it.
  if p_after.price_id <> p_before.price_id then
    return next 'price';
  end if;
  if p_after.quantity <> p_before.quantity then
    return next 'quantity';
  end if;
  if p_after.current_period_start > p_before.current_period_start then
    return next 'renewed';
  end if;
  if v_is_ending and not v_was_ending then
    return next 'cancel_scheduled';
  end if;
  if v_was_ending and not v_is_ending and p_after.ended_at is null then
    return next 'cancel_undone';
  end if;
  if p_after.pending_price_id is not null
    and (p_after.pending_price_id, p_after.pending_quantity)
      is distinct from (p_before.pending_price_id, p_before.pending_quantity)
  then
    return next 'change_scheduled';
  end if;
  if p_before.pending_price_id is not null and p_after.pending_price_id is null
    and p_after.price_id is not distinct from p_before.price_id
    and p_after.quantity is not distinct from p_before.quantity and p_after.ended_at is null
  then
    return next 'change_undone';
  end if;
end;
$$;

comment on function billing_private.kinds_of_change(billing.subscriptions, billing.subscriptions) is
  'Names what differs between two states of a subscription, for its history.';

create trigger t050_history_of_updates
  after update on billing.subscriptions
  referencing old table as subscriptions_before new table as subscriptions_after
  for each statement execute function billing_private.record_subscription_changes();

create trigger t050_history_of_inserts
  after insert on billing.subscriptions
  referencing new table as subscriptions_after
  for each statement execute function billing_private.record_subscription_starts();


-- -----------------------------------------------------------------------------
-- 21  what a price comes to
-- -----------------------------------------------------------------------------

create function billing_private.tiered_amount(
  p_tiers jsonb,
  p_tiers_mode text,
  p_quantity numeric
)
returns numeric
language plpgsql
immutable
set search_path = ''
as $$
begin
  return (
    with tiers as (
      select
        place,
        billing_private.stripe_decimal(tier -> 'up_to') as up_to,
        coalesce(
          lag(billing_private.stripe_decimal(tier -> 'up_to')) over (order by place), 0) as below,
        coalesce(
          billing_private.stripe_decimal(tier -> 'unit_amount_decimal'),
          billing_private.stripe_decimal(tier -> 'unit_amount'), 0) as unit_amount,
        coalesce(
          billing_private.stripe_decimal(tier -> 'flat_amount_decimal'),
          billing_private.stripe_decimal(tier -> 'flat_amount'), 0) as flat_amount
      from jsonb_array_elements(p_tiers) with ordinality as listed (tier, place)
    )
    select sum(
      flat_amount + unit_amount * case p_tiers_mode
        when 'volume' then p_quantity
        else least(p_quantity, up_to) - below
      end)
    from tiers
    where case p_tiers_mode
        -- All units cost what the tier says that the last one falls into.
        when 'volume' then
          (place = 1 or p_quantity > below) and (up_to is null or p_quantity <= up_to)
        -- The flat amount of the first tier is due even for nothing.
        else place = 1 or p_quantity > below
      end
  );
end;
$$;

comment on function billing_private.tiered_amount(jsonb, text, numeric) is
$$What a quantity costs by tiers, in the smallest unit of the currency, exactly, with its fractions.

p_tiers: as in billing.prices.tiers. p_tiers_mode: graduated or volume
(https://docs.stripe.com/subscriptions/pricing-models/tiered-pricing). Null where there are no
tiers, or the volume is beyond the last one.$$;


create function billing_private.amount_of(
  p_price billing.prices,
  p_quantity numeric
)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- A fraction of the smallest unit is rounded half up, once, at the end.
  return round(case
    when p_price.billing_scheme = 'tiered' then
      billing_private.tiered_amount(p_price.tiers, p_price.tiers_mode, p_quantity)
    else coalesce(p_price.unit_amount_minor, p_price.unit_amount_decimal) * case
      when p_price.package_size is null then p_quantity
      when p_price.package_rounding = 'down' then floor(p_quantity / p_price.package_size)
      else ceil(p_quantity / p_price.package_size)
    end
  end);
end;
$$;

comment on function billing_private.amount_of(billing.prices, numeric) is
  'What a quantity costs for one interval, in the smallest unit; null while the tiers of a price '
  'are not known.';


create function billing_private.monthly_amount(
  p_price billing.prices,
  p_quantity numeric
)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- What is used is not recurring: nobody knows it before.
  return case when p_price.usage_type = 'metered' then 0 else round(
    billing_private.amount_of(p_price, coalesce(p_quantity, 1))
      * case p_price.billing_interval
        when 'day' then 365 / 12.0
        when 'week' then 52 / 12.0
        when 'month' then 1
        when 'year' then 1 / 12.0
      end
      / p_price.interval_count)
  end;
end;
$$;

comment on function billing_private.monthly_amount(billing.prices, numeric) is
  'What a quantity adds to the monthly recurring revenue, in the smallest unit, before discounts: '
  'a year is 12 months, 52 weeks or 365 days.';


create type billing.price_quote as (
  price_key text,
  quantity numeric,
  amount_minor bigint,
  currency text,
  billing_interval text,
  interval_count integer
);

comment on type billing.price_quote is
  'What a quantity costs at a price for one interval, before discounts and taxes.';


create function billing_private.price_amount(
  p_price_key text,
  p_quantity numeric
)
returns billing.price_quote
language plpgsql
stable
security definer -- the arithmetic is out of the reach of visitors
set search_path = ''
as $$
declare
  v_price billing.prices;
begin
  if coalesce(p_quantity not between 0 and 1e15, true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'quantity', 'problem', 'must not be negative, nor beyond 10^15'));
  end if;
  select prices.* into v_price
  from billing.prices
  where prices.key = p_price_key
    and prices.is_active
    and exists (select from billing.plan_offers where plan_offers.price_key = p_price_key);
  if not found then
    perform billing_private.fail('PRICE_NOT_FOUND', jsonb_build_object('price_key', p_price_key));
  end if;

  return row(
    v_price.key, p_quantity, billing_private.amount_of(v_price, p_quantity), v_price.currency,
    v_price.billing_interval, v_price.interval_count
  )::billing.price_quote;
end;
$$;


create function billing.price_amount(
  price_key text,
  quantity numeric default 1
)
returns billing.price_quote
language sql
stable
set search_path = ''
begin atomic
  select billing_private.price_amount(price_key, quantity);
end;

comment on function billing.price_amount(text, numeric) is
$$What a quantity of an offer costs for one interval, before discounts and taxes, as Stripe reckons
it: per unit, in packages, in graduated or volume tiers; rounded once, half up. Anyone may call it;
use GET, so it can be cached.

amount_minor: in the currency's smallest unit; null while Stripe has not told the tiers yet.

Errors
  VALIDATION_FAILED  400  a negative quantity
  PRICE_NOT_FOUND    404  there is no such price on offer$$;


-- -----------------------------------------------------------------------------
-- 22  billing.plan_offers and list_plans()
-- -----------------------------------------------------------------------------

create view billing.plan_offers with (security_invoker = true) as
select
  plans.key as plan_key,
  plans.name as plan_name,
  plans.description,
  plans.kind,
  stores.key as store_key,
  stores.name as store_name,
  plans.tier,
  plans.tier_rank,
  prices.key as price_key,
  prices.currency,
  prices.unit_amount_minor,
  prices.billing_interval,
  prices.interval_count,
  prices.trial_days,
  prices.unit_amount_decimal,
  prices.usage_type,
  prices.tiers_mode,
  prices.tiers,
  prices.package_size,
  prices.package_rounding,
  (
    select coalesce(
      jsonb_object_agg(feature_key, coalesce(to_jsonb(limit_value), 'true')), '{}')
    from billing.plan_features
    where plan_features.plan_id = plans.id
      and plan_features.version = plans.version
  ) as features
from billing.plans
join billing.prices on prices.plan_id = plans.id
left join billing.stores on stores.id = plans.store_id
where plans.is_active
  and plans.is_listed
  and prices.is_active
  and prices.is_listed
  and prices.key is not null
  and prices.billing_interval is not null
  and (plans.store_id is null or stores.is_active);

comment on view billing.plan_offers is
  'What can be bought now: one row per plan and price.';
comment on column billing.plan_offers.features is
  'Feature keys with their limit; true where there is none.';
comment on column billing.plan_offers.unit_amount_minor is
  'Per interval, in the currency''s smallest unit; null where billing.price_amount() must reckon.';


-- plpgsql keeps its plan, which costs more to make than the offers cost to read.
create function billing.list_plans(
  store text default null,
  currency text default null
)
returns setof billing.plan_offers
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select plan_offers.*
  from billing.plan_offers
  where (list_plans.store is null or plan_offers.store_key = list_plans.store)
    and (list_plans.currency is null or plan_offers.currency = lower(list_plans.currency))
  order by plan_offers.store_key nulls first, plan_offers.tier_rank, plan_offers.unit_amount_minor;
end;
$$;

comment on function billing.list_plans(text, text) is
$$The offers for a pricing page, cheapest tier first. Anyone may call it; use GET, so it can be
cached.

store: only this store's plans; currency: only prices in it (ISO 4217).$$;


-- -----------------------------------------------------------------------------
-- 23  billing.my_subscription()
-- -----------------------------------------------------------------------------

create type billing.subscription_summary as (
  id uuid,
  account_id uuid,
  provider text,
  status text,
  plan_key text,
  plan_name text,
  tier text,
  price_key text,
  quantity bigint,
  unit_amount_minor bigint,
  currency text,
  billing_interval text,
  interval_count integer,
  current_period_start timestamptz,
  current_period_end timestamptz,
  trial_end timestamptz,
  past_due_since timestamptz,
  ends_at timestamptz,
  access_until timestamptz,
  pending_price_key text,
  pending_quantity bigint,
  pending_change_at timestamptz,
  pause_at timestamptz,
  is_paused boolean,
  resumes_at timestamptz,
  pending_command text,
  refusal jsonb,
  open_invoice_url text
);

comment on type billing.subscription_summary is
  'An account''s subscription as a client shows it. ends_at: the scheduled end, null while it '
  'renews. access_until: null where there is none, and where no end is in sight. pause_at: when a '
  'pause that waits begins; is_paused, resumes_at: the one in force. pending_command: what Stripe '
  'has been asked and not answered yet. refusal: why Stripe would not do what it was asked last, '
  'as {"code", "command", "stripe_code", "decline_code", "stripe_message"}; null after the '
  'next wish. Amounts in the smallest unit.';


create function billing_private.current_subscription(p_account_id uuid)
returns billing.subscriptions
language plpgsql
stable
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions;
begin
  select subscriptions.* into v_subscription
  from billing.subscriptions
  left join billing.prices on prices.id = subscriptions.price_id
  left join billing.plans on plans.id = prices.plan_id
  where subscriptions.account_id = p_account_id
  order by
    (subscriptions.status in ('canceled', 'incomplete_expired')),
    (subscriptions.status not in ('active', 'trialing', 'past_due')),
    plans.tier_rank desc nulls last,
    subscriptions.started_at desc nulls last,
    subscriptions.id
  limit 1;
  return v_subscription;
end;
$$;

comment on function billing_private.current_subscription(uuid) is
  'The one subscription to show or act on: running before stalled before ended, then the highest '
  'tier, then the newest.';


create function billing_private.last_wish(p_subscription_id uuid)
returns billing_private.commands
language plpgsql
stable
set search_path = ''
as $$
declare
  v_command billing_private.commands;
begin
  select * into v_command
  from billing_private.commands
  where subscription_id = p_subscription_id
    and kind in (
      'update_subscription', 'cancel_subscription', 'undo_cancel', 'change_plan',
      'create_schedule', 'update_schedule', 'release_schedule',
      'pause_collection', 'resume_collection', 'resume_subscription'
    )
    and status <> 'canceled'
  order by position desc
  limit 1;
  return v_command;
end;
$$;

comment on function billing_private.last_wish(uuid) is
  'The last thing Stripe was asked about a subscription because somebody wanted it so.';


create function billing_private.told_refusal(p_command billing_private.commands)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_error jsonb := p_command.last_error -> 'error';
  v_is_decline boolean := coalesce(
    p_command.last_error -> 'http_status' = '402' or v_error ->> 'type' = 'card_error', false);
begin
  return jsonb_build_object(
    'code', case when v_is_decline then 'PAYMENT_DECLINED' else 'STRIPE_REQUEST_FAILED' end,
    'command', p_command.kind,
    'stripe_code', coalesce(v_error ->> 'code', v_error ->> 'type'),
    -- Whoever stole a card is not told that the bank knows
    -- (https://docs.stripe.com/declines/codes).
    'decline_code', case
      when v_error ->> 'decline_code' in (
        'fraudulent', 'lost_card', 'merchant_blacklist', 'pickup_card', 'restricted_card',
        'stolen_card'
      ) then 'generic_decline'
      else v_error ->> 'decline_code'
    end,
    'stripe_message', coalesce(v_error ->> 'message', 'Stripe did not answer'));
end;
$$;

comment on function billing_private.told_refusal(billing_private.commands) is
  'What a user is told of a command that Stripe refused for good; code is of the error catalog.';


create function billing_private.unpaid_change(
  p_subscription billing.subscriptions,
  p_invoice_url text
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_build_object(
    'code', 'PAYMENT_REQUIRED',
    'command', 'change_plan',
    'price_keys', (
      select jsonb_agg(prices.key)
      from jsonb_path_query(p_subscription.pending_update, '$.subscription_items[*]') as item
      join billing.prices
        on prices.stripe_price_id = billing_private.stripe_id(item -> 'price')
    ),
    'expires_at', billing_private.stripe_time(p_subscription.pending_update -> 'expires_at'),
    'open_invoice_url', p_invoice_url);
end;
$$;

comment on function billing_private.unpaid_change(billing.subscriptions, text) is
  'What a user is told of a change that Stripe makes once its invoice is paid, and forgets when it '
  'is not.';


create function billing_private.summarize_subscription(p_subscription_id uuid)
returns setof billing.subscription_summary
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    subscriptions.id, subscriptions.account_id, subscriptions.provider, subscriptions.status,
    plans.key, plans.name, plans.tier, prices.key,
    subscriptions.quantity, prices.unit_amount_minor, prices.currency,
    prices.billing_interval, prices.interval_count,
    subscriptions.current_period_start, subscriptions.current_period_end,
    subscriptions.trial_end, subscriptions.past_due_since,
    coalesce(
      subscriptions.ended_at,
      subscriptions.cancel_at,
      case when subscriptions.cancel_at_period_end then subscriptions.current_period_end end),
    (
      select nullif(max(entitlements.valid_until), 'infinity')
      from billing.entitlements
      join billing.subscription_items on subscription_items.id = entitlements.source_id
      where entitlements.account_id = subscriptions.account_id
        and subscription_items.subscription_id = subscriptions.id
    ),
    pending_prices.key, subscriptions.pending_quantity, subscriptions.pending_change_at,
    subscriptions.pause_at,
    subscriptions.ended_at is null
      and (subscriptions.status = 'paused' or subscriptions.pause_collection is not null),
    billing_private.stripe_time(subscriptions.pause_collection -> 'resumes_at'),
    case when asked.status in ('pending', 'leased') then asked.kind end,
    case
      when asked.status = 'dead' then billing_private.told_refusal(asked)
      when asked.kind = 'change_plan' and asked.status = 'succeeded'
        and subscriptions.pending_update is not null
        then billing_private.unpaid_change(subscriptions, invoices.hosted_invoice_url)
    end,
    invoices.hosted_invoice_url
  from billing.subscriptions
  left join billing.prices on prices.id = subscriptions.price_id
  left join billing.plans on plans.id = prices.plan_id
  left join billing.prices as pending_prices
    on pending_prices.id = subscriptions.pending_price_id
  left join billing.invoices
    on invoices.stripe_invoice_id = subscriptions.stripe_latest_invoice_id
    and invoices.status = 'open'
  left join lateral billing_private.last_wish(subscriptions.id) as asked on true
  where subscriptions.id = p_subscription_id;
end;
$$;

comment on function billing_private.summarize_subscription(uuid) is
  'A subscription as a client shows it; no row when there is none.';


create function billing_private.my_subscription(p_account_id uuid)
returns setof billing.subscription_summary
language plpgsql
stable
security definer -- shows plans that are no longer listed, and unanswered commands
set search_path = ''
as $$
declare
  v_account_id uuid := coalesce(p_account_id, billing_private.user_id());
  v_summary billing.subscription_summary;
begin
  if v_account_id is null then
    perform billing_private.fail('UNAUTHENTICATED');
  elsif not (v_account_id = any (array(select billing_private.my_account_ids())))
    and not billing_private.is_trusted()
  then
    perform billing_private.fail('NOT_A_MEMBER', jsonb_build_object('account_id', v_account_id));
  end if;

  for v_summary in
    select *
    from billing_private.summarize_subscription(
      (billing_private.current_subscription(v_account_id)).id)
  loop
    -- The link opens the invoice.
    if not (v_account_id = any (array(select billing_private.my_account_ids('view_billing'))))
      and not billing_private.is_trusted()
    then
      v_summary.open_invoice_url := null;
      v_summary.refusal := v_summary.refusal - 'open_invoice_url';
    end if;
    return next v_summary;
  end loop;
end;
$$;


create function billing.my_subscription(account_id uuid default null)
returns setof billing.subscription_summary
language sql
stable
set search_path = ''
begin atomic
  select * from billing_private.my_subscription(my_subscription.account_id);
end;

comment on function billing.my_subscription(uuid) is
$$The account's current or last subscription; no row when it never had one. Times in UTC, amounts in
the smallest unit.

account_id: null for the caller's own account.

Errors
  UNAUTHENTICATED  401  nobody is signed in
  NOT_A_MEMBER     403  the account is not one of the caller's$$;


-- -----------------------------------------------------------------------------
-- 24  commands
-- -----------------------------------------------------------------------------

create function billing_private.enqueue_command(
  p_kind text,
  p_account_id uuid,
  p_path text,
  p_params jsonb default '{}',
  p_method text default 'POST',
  p_subject_id uuid default null,
  p_subscription billing.subscriptions default null,
  p_target_object_id text default null
)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id uuid;
begin
  insert into billing_private.commands (
    kind, account_id, subscription_id, subject_id, method, path, params, target_object_id,
    actor_id, cause, request_id
  )
  values (
    p_kind, p_account_id, p_subscription.id, p_subject_id, p_method, p_path, p_params,
    coalesce(p_target_object_id, p_subscription.stripe_subscription_id), billing_private.user_id(),
    billing_private.cause(),
    billing_private.request_id()
  )
  returning id into v_id;
  return v_id;
end;
$$;

comment on function billing_private.enqueue_command(
  text, uuid, text, jsonb, text, uuid, billing.subscriptions, text
) is
  'Writes a call to Stripe into the outbox, in the transaction that wants it. Returns its id.';


create function billing_private.request_reread(
  p_object_type text,
  p_object_id text,
  p_reason text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if p_object_type = 'entitlements.active_entitlement_summary' then
    perform billing_private.request_list('list_entitlements', p_object_id, event_id)
    from billing_private.stripe_objects
    where object_id = p_object_id;
    return;
  end if;

  -- One that waits will answer this question too; one that is under way may be too early for it.
  insert into billing_private.commands (
    kind, method, path, params, target_object_id, cause, request_id
  )
  select
    'reread', 'GET', replace(retrieve_path, '{id}', p_object_id), params, p_object_id,
    jsonb_build_object('reason', p_reason), billing_private.request_id()
  from billing_private.stripe_resources
  where object_type = p_object_type
    and not exists (
      select
      from billing_private.commands
      where target_object_id = p_object_id
        and kind = 'reread'
        and status = 'pending'
    );
end;
$$;

comment on function billing_private.request_reread(text, text, text) is
  'Asks Stripe how an object is now, unless that question already waits in the outbox.';


create function billing_private.enqueue_customer_creation(p_account_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing.customers (account_id, is_primary)
  values (p_account_id, true)
  on conflict (account_id) where is_primary and deleted_at is null do nothing;

  if not exists (
    select
    from billing_private.commands
    where account_id = p_account_id
      and kind = 'create_customer'
      and status in ('pending', 'leased')
  ) then
    perform billing_private.enqueue_command(
      'create_customer', p_account_id, '/v1/customers',
      jsonb_strip_nulls(jsonb_build_object(
        'email', auth.jwt() ->> 'email',
        'metadata', jsonb_build_object('account_id', p_account_id))));
  end if;
end;
$$;

comment on function billing_private.enqueue_customer_creation(uuid) is
  'Claims the account''s customer and asks Stripe for it, unless that is already under way.';


create function billing_private.discount_params(p_checkout billing.checkout_sessions)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return case
    when p_checkout.discount_code_id is not null then (
      select jsonb_build_object('discounts', jsonb_build_array(jsonb_build_object(
        'coupon', billing_private.coupon_id(discount_codes, prices))))
      from billing_private.discount_codes
      join billing.prices on prices.id = p_checkout.price_id
      where discount_codes.id = p_checkout.discount_code_id
    )
    when p_checkout.stripe_promotion_code_id is not null then jsonb_build_object(
      'discounts', jsonb_build_array(jsonb_build_object(
        'promotion_code', p_checkout.stripe_promotion_code_id)))
    -- A field for a code where there is none to have only sends people away to look for one.
    when exists (select from billing_private.promotion_codes where is_active)
      then '{"allow_promotion_codes": true}'::jsonb
    else '{}'
  end;
end;
$$;

comment on function billing_private.discount_params(billing.checkout_sessions) is
  'The discount of a checkout: the code its user named, else Stripe''s page asks for one where the '
  'account has any.';


create function billing_private.tell_customers(p_account_ids uuid[])
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer record;
  v_count bigint := 0;
begin
  for v_customer in
    select
      customers.id, customers.account_id, customers.stripe_customer_id, account.email, account.name,
      -- What somebody entered at Stripe stands: an address for invoices need not be the login's.
      jsonb_strip_nulls(jsonb_build_object(
        'email', case
          when customers.email is not distinct from customers.told_email
            and customers.email is distinct from account.email then account.email
        end,
        'name', case
          when customers.name is not distinct from customers.told_name
            and customers.name is distinct from account.name then account.name
        end)) as params
    from unnest(p_account_ids) as wanted (account_id)
    -- One by one: few of many.
    cross join lateral (
      select *
      from billing.customers
      where customers.account_id = wanted.account_id
        and customers.is_primary
        and customers.deleted_at is null
      limit 1
    ) as customers
    cross join lateral (
      select
        coalesce(
          (select users.email from auth.users where users.id = accounts.id), customers.told_email
        ) as email,
        coalesce(accounts.name, customers.told_name) as name
      from billing.accounts
      where accounts.id = customers.account_id
        and accounts.closed_at is null
      limit 1
    ) as account
    where customers.stripe_customer_id is not null
      and (customers.told_email, customers.told_name) is distinct from (account.email, account.name)
  loop
    update billing.customers
    set told_email = v_customer.email,
        told_name = v_customer.name
    where id = v_customer.id;
    if v_customer.params <> '{}' then
      perform billing_private.enqueue_command(
        'update_customer', v_customer.account_id,
        format('/v1/customers/%s', v_customer.stripe_customer_id), v_customer.params,
        'POST', null, null, v_customer.stripe_customer_id);
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.tell_customers(uuid[]) is
  'Tells Stripe the new e-mail address or name of accounts where it changed since Stripe was told '
  'last, and nobody entered another one there. Returns how many it tells.';


create function billing_private.enqueue_session_creation(p_checkout billing.checkout_sessions)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_price billing.prices;
  v_metadata jsonb := jsonb_build_object(
    'account_id', p_checkout.account_id, 'checkout_id', p_checkout.id);
begin
  select * into strict v_price from billing.prices where id = p_checkout.price_id;
  perform billing_private.ensure_coupon(discount_codes, v_price, p_checkout.account_id)
  from billing_private.discount_codes
  where id = p_checkout.discount_code_id;

  perform billing_private.enqueue_command(
    'create_checkout', p_checkout.account_id, '/v1/checkout/sessions',
    jsonb_build_object(
      'mode', 'subscription',
      'customer', (
        select stripe_customer_id
        from billing.customers
        where account_id = p_checkout.account_id and is_primary and deleted_at is null
      ),
      'client_reference_id', p_checkout.account_id,
      'line_items', jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'price', v_price.stripe_price_id,
        'quantity', billing_private.seats_at(v_price, p_checkout.quantity)))),
      'success_url', p_checkout.success_url,
      'cancel_url', p_checkout.cancel_url,
      'metadata', v_metadata,
      'subscription_data', jsonb_strip_nulls(jsonb_build_object(
        'metadata', v_metadata,
        'trial_period_days', nullif(p_checkout.trial_days, 0))))
      || billing_private.discount_params(p_checkout),
    'POST', p_checkout.id);
end;
$$;

comment on function billing_private.enqueue_session_creation(billing.checkout_sessions) is
  'Asks Stripe for the hosted page of a claimed checkout. The metadata lead every event that '
  'follows back to the account.';


create function billing_private.enqueue_session_expiry(p_checkout billing.checkout_sessions)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.enqueue_command(
    'expire_checkout', p_checkout.account_id,
    format('/v1/checkout/sessions/%s/expire', p_checkout.stripe_session_id));
end;
$$;

comment on function billing_private.enqueue_session_expiry(billing.checkout_sessions) is
  'Asks Stripe to close the page of a checkout that was closed here.';


create function billing_private.retire_checkouts(
  p_account_id uuid,
  p_except uuid
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_session billing.checkout_sessions;
begin
  for v_session in
    update billing.checkout_sessions
    set status = 'expired',
        url = null
    where account_id = p_account_id
      and id is distinct from p_except
      and status in ('creating', 'open')
    returning *
  loop
    if v_session.stripe_session_id is not null
      and coalesce(v_session.expires_at > billing_private.now(), true)
    then
      perform billing_private.enqueue_session_expiry(v_session);
    end if;
  end loop;

  update billing_private.commands
  set status = 'canceled',
      finished_at = billing_private.now()
  where id in (
    select id
    from billing_private.commands
    where account_id = p_account_id
      and kind = 'create_checkout'
      and subject_id is distinct from p_except
      and status = 'pending'
    -- One that is being made just now waits for the lock of the customer, which may be held here;
    -- its page is closed once it opens.
    for update skip locked
  );
end;
$$;

comment on function billing_private.retire_checkouts(uuid, uuid) is
  'Closes the account''s other open checkouts, here at once and at Stripe by command, so that none'
  ' can be paid twice.';


-- -----------------------------------------------------------------------------
-- 25  one trial per person
-- -----------------------------------------------------------------------------

create function billing_private.normal_email(p_email text)
returns text
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_parts text[] := regexp_match(lower(btrim(p_email)), '^([^@+]+)[^@]*@([^@]+)$');
begin
  -- Gmail delivers with and without dots; what follows a plus sign is a label nearly everywhere.
  return case
    when v_parts[2] in ('gmail.com', 'googlemail.com')
      then replace(v_parts[1], '.', '') || '@gmail.com'
    else v_parts[1] || '@' || v_parts[2]
  end;
end;
$$;

comment on function billing_private.normal_email(text) is
  'An address as one mailbox writes it: without case, labels, and Gmail''s dots. Null for what is '
  'none.';


create type billing_private.identity as (
  kind text,
  identity_hash text
);

comment on type billing_private.identity is
  'A sign by which a person is recognised: account, email or card, as a salted hash.';


create function billing_private.identities_of(
  p_account_id uuid,
  p_email text
)
returns setof billing_private.identity
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select 'account', billing_private.salted_hash('account:' || p_account_id)
  union
  select 'email', billing_private.salted_hash('email:' || address)
  from (
    select billing_private.normal_email(p_email) as address
    union all
    select billing_private.normal_email(customers.email)
    from billing.customers
    where customers.account_id = p_account_id
  ) as addresses
  where address is not null
  union
  select 'card', fingerprint_hash
  from billing.payment_methods
  where payment_methods.account_id = p_account_id
    and fingerprint_hash is not null
  order by 1, 2;
end;
$$;

comment on function billing_private.identities_of(uuid, text) is
  'The signs by which an account''s person is recognised; p_email: one more address, or null.';


create function billing_private.caller_email()
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return case when not billing_private.is_trusted() then auth.jwt() ->> 'email' end;
end;
$$;

comment on function billing_private.caller_email() is
  'The address of the signed-in user; null for the service, which acts for others.';


create function billing_private.may_try(
  p_account_id uuid,
  p_email text
)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  return not exists (
      select
      from billing.subscriptions
      where account_id = p_account_id
        and trial_start is not null
    )
    and not exists (
      select
      from billing_private.identities_of(p_account_id, p_email) as identity
      join billing_private.trial_claims using (kind, identity_hash)
      where trial_claims.started_at is not null
        -- Offered to somebody else right now, who may take it.
        or trial_claims.account_id <> p_account_id
          and exists (
            select
            from billing.checkout_sessions
            where checkout_sessions.account_id = trial_claims.account_id
              and checkout_sessions.trial_days > 0
              and (
                status in ('creating', 'open') and coalesce(expires_at > v_now, true)
                or status = 'complete' and completed_at > v_now - interval '1 hour'
              )
          )
    );
end;
$$;

comment on function billing_private.may_try(uuid, text) is
  'True when nobody who looks like this account''s person has had a trial, or is being offered one.'
  ' Stripe does not keep count: it would give one with every new subscription.';


create function billing_private.claim_trial(
  p_account_id uuid,
  p_email text
)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Two accounts of one person at once: who comes second sees what the first has claimed.
  perform pg_advisory_xact_lock(
    hashtextextended('billing.trial:' || identity.kind || identity.identity_hash, 0))
  from billing_private.identities_of(p_account_id, p_email) as identity;

  if not billing_private.may_try(p_account_id, p_email) then
    return false;
  end if;

  insert into billing_private.trial_claims (kind, identity_hash, account_id)
  select kind, identity_hash, p_account_id
  from billing_private.identities_of(p_account_id, p_email)
  on conflict (kind, identity_hash) do update
  set account_id = excluded.account_id,
      claimed_at = excluded.claimed_at;
  return true;
end;
$$;

comment on function billing_private.claim_trial(uuid, text) is
  'Claims the one trial of a person for a checkout of this account; false when it is had or taken. '
  'The claim ends with the checkout.';


create function billing_private.note_trials(p_account_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_started_at timestamptz := (
    select min(trial_start)
    from billing.subscriptions
    where account_id = p_account_id
  );
begin
  if v_started_at is null then
    return;
  end if;

  -- The earliest trial has the claim, in whatever order they become known. Only what changes, and
  -- in one order: several accounts may share several identities.
  insert into billing_private.trial_claims as stored (
    kind, identity_hash, account_id, started_at
  )
  select identities.kind, identities.identity_hash, p_account_id, v_started_at
  from billing_private.identities_of(p_account_id, null) as identities
  where not exists (
    select
    from billing_private.trial_claims as held
    where held.kind = identities.kind
      and held.identity_hash = identities.identity_hash
      and (held.started_at, held.account_id) <= (v_started_at, p_account_id)
  )
  order by identities.kind, identities.identity_hash
  on conflict (kind, identity_hash) do update
  set account_id = excluded.account_id,
      started_at = excluded.started_at
  where stored.started_at is null
    or (excluded.started_at, excluded.account_id) < (stored.started_at, stored.account_id);

  perform billing_private.end_trial(subscriptions)
  from billing_private.repeated_trials(p_account_id) as repeated
  join billing.subscriptions on subscriptions.id = repeated.subscription_id
  where (select repeated_trial from billing_private.settings) = 'end_trial';
end;
$$;

comment on function billing_private.note_trials(uuid) is
  'Remembers that an account has had a trial, with the addresses and cards it has shown, and acts '
  'on a trial that is somebody''s second.';


create function billing_private.repeated_trials(p_account_id uuid default null)
returns table (
  subscription_id uuid,
  account_id uuid,
  kind text,
  first_account_id uuid,
  trial_start timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select distinct on (subscriptions.id)
    subscriptions.id, subscriptions.account_id, trial_claims.kind, trial_claims.account_id,
    subscriptions.trial_start
  from billing.subscriptions
  cross join lateral billing_private.identities_of(subscriptions.account_id, null) as identity
  join billing_private.trial_claims
    on trial_claims.kind = identity.kind
    and trial_claims.identity_hash = identity.identity_hash
  where subscriptions.status = 'trialing'
    and subscriptions.ended_at is null
    and subscriptions.account_id = coalesce(p_account_id, subscriptions.account_id)
    and trial_claims.account_id <> subscriptions.account_id
    and trial_claims.started_at is not null
  order by subscriptions.id, trial_claims.kind;
end;
$$;

comment on function billing_private.repeated_trials(uuid) is
  'Trials that run now and are not their person''s first, with the sign that tells; null for all '
  'accounts.';


create function billing_private.end_trial(p_subscription billing.subscriptions)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if p_subscription.provider <> 'stripe' or exists (
    select
    from billing_private.commands
    where subscription_id = p_subscription.id
      and kind = 'end_trial'
  ) then
    return;
  end if;
  perform billing_private.enqueue_command(
    'end_trial', p_subscription.account_id,
    format('/v1/subscriptions/%s', p_subscription.stripe_subscription_id),
    '{"trial_end": "now", "proration_behavior": "none"}', 'POST', null, p_subscription);
end;
$$;

comment on function billing_private.end_trial(billing.subscriptions) is
  'Asks Stripe to end a trial now and to collect, once for each subscription.';


-- -----------------------------------------------------------------------------
-- 26  billing.prepare_checkout()
-- -----------------------------------------------------------------------------

create function billing_private.require_url(
  p_field text,
  p_url text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_url is null or p_url !~ '^https?://[^[:space:]/]+[^[:space:]]*$' or length(p_url) > 2000 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', p_field,
      'problem', 'an absolute http(s) address of at most 2000 characters is needed'));
  end if;
end;
$$;

comment on function billing_private.require_url(text, text) is
  'Refuses what is not an absolute http(s) address (VALIDATION_FAILED, 400).';


create function billing_private.offered_price(p_price_key text)
returns billing.prices
language plpgsql
stable
set search_path = ''
as $$
declare
  v_price billing.prices;
begin
  select prices.* into v_price
  from billing.prices
  join billing.plan_offers on plan_offers.price_key = prices.key
  where prices.key = p_price_key
    and prices.is_active;

  if not found then
    perform billing_private.fail('PRICE_NOT_FOUND', jsonb_build_object('price_key', p_price_key));
  end if;
  return v_price;
end;
$$;

comment on function billing_private.offered_price(text) is
  'The price that is on offer under a key (PRICE_NOT_FOUND, 404, when there is none).';


create function billing_private.require_stripe_price(p_price billing.prices)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_price.stripe_price_id is null then
    perform billing_private.fail('PRICE_NOT_FOUND', jsonb_build_object(
      'price_key', p_price.key, 'problem', 'the price does not exist at Stripe yet'));
  end if;
end;
$$;

comment on function billing_private.require_stripe_price(billing.prices) is
  'Refuses a price of the catalog that Stripe does not know yet (PRICE_NOT_FOUND, 404).';


create type billing_private.obstacle as (
  code text,
  details jsonb
);

comment on type billing_private.obstacle is
  'Why an account cannot subscribe now: an error of the catalog, with its values.';


create function billing_private.obstacles_to_subscribing(p_account_id uuid)
returns setof billing_private.obstacle
language plpgsql
stable
set search_path = ''
as $$
declare
  v_running billing.subscriptions := billing_private.current_subscription(p_account_id);
  v_is_over boolean := v_running.id is null
    or v_running.status in ('canceled', 'incomplete_expired');
begin
  -- Whoever owes is led to the open invoice, not to a second subscription.
  if not v_is_over and v_running.status in ('past_due', 'unpaid', 'incomplete') then
    return next row('PAYMENT_REQUIRED'::text, jsonb_build_object(
      'subscription_id', v_running.id, 'status', v_running.status));
  elsif not v_is_over then
    return next row('ALREADY_SUBSCRIBED'::text, jsonb_build_object(
      'subscription_id', v_running.id, 'status', v_running.status,
      'is_ending', v_running.cancel_at_period_end or v_running.cancel_at is not null));
  end if;

  if v_is_over then
    -- Who has just paid, and whose subscription Stripe is about to tell us. After an hour it is
    -- missed, not late.
    return query
    select 'ALREADY_SUBSCRIBED', jsonb_build_object('checkout_id', id)
    from billing.checkout_sessions
    where account_id = p_account_id
      and status = 'complete'
      and completed_at > billing_private.now() - interval '1 hour'
      and not exists (
        select
        from billing.subscriptions
        where subscriptions.stripe_subscription_id = checkout_sessions.stripe_subscription_id
      )
    limit 1;

    -- What was left unpaid; an admin may forgive it by writing it off.
    return query
    select 'PAYMENT_REQUIRED', jsonb_build_object(
      'invoice_id', id, 'amount_remaining_minor', amount_remaining_minor, 'currency', currency,
      'hosted_invoice_url', hosted_invoice_url)
    from billing.invoices
    where account_id = p_account_id
      and status = 'open'
      and amount_remaining_minor > 0
    order by created_at
    limit 1;
  end if;
end;
$$;

comment on function billing_private.obstacles_to_subscribing(uuid) is
  'Why an account cannot have a new base subscription: it has one, is getting one, or owes; no rows'
  ' when it can.';


create function billing_private.require_eligible(p_account_id uuid)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_obstacle billing_private.obstacle;
begin
  select * into v_obstacle
  from billing_private.obstacles_to_subscribing(p_account_id)
  limit 1;
  if v_obstacle.code = 'PAYMENT_REQUIRED' then
    perform billing_private.fail('PAYMENT_REQUIRED', v_obstacle.details);
  elsif v_obstacle.code is not null then
    perform billing_private.fail('ALREADY_SUBSCRIBED', v_obstacle.details);
  end if;
end;
$$;

comment on function billing_private.require_eligible(uuid) is
  'Refuses a second base subscription, and a new one to who owes, with the reason '
  '(ALREADY_SUBSCRIBED, 409; PAYMENT_REQUIRED, 402).';


create function billing_private.refuse_second_base()
returns trigger
language plpgsql
volatile
security definer -- whoever writes, all of the account's subscriptions count
set search_path = ''
as $$
declare
  v_begun record;
begin
  -- Rows of both tables, of which only what we begin ourselves is of interest.
  for v_begun in
    select began.id, began.account_id
    from began
    where coalesce(
      to_jsonb(began) ->> 'provider' = 'manual',
      to_jsonb(began) ->> 'status' in ('creating', 'open'))
      and to_jsonb(began) ->> 'ended_at' is null
    order by 2
  loop
    perform billing_private.lock_account(v_begun.account_id);
    if exists (
      select
      from billing.subscriptions
      where account_id = v_begun.account_id
        and id <> v_begun.id
        and ended_at is null
        and status not in ('canceled', 'incomplete_expired')
    ) then
      perform billing_private.fail('ALREADY_SUBSCRIBED', jsonb_build_object(
        'account_id', v_begun.account_id));
    elsif tg_table_name = 'subscriptions' and exists (
      select
      from billing.checkout_sessions
      where account_id = v_begun.account_id
        and status in ('creating', 'open')
    ) then
      perform billing_private.fail('CHECKOUT_IN_PROGRESS', jsonb_build_object(
        'account_id', v_begun.account_id));
    end if;
  end loop;
  return null;
end;
$$;

comment on function billing_private.refuse_second_base() is
  'Lets nobody begin a second base subscription for an account, whatever they write: neither a '
  'checkout nor a manual one. Stripe''s own are mirrored as they are: where it has two, access is '
  'the union, and admins are told.';

create trigger t010_one_base_subscription
  after insert on billing.checkout_sessions
  referencing new table as began
  for each statement execute function billing_private.refuse_second_base();

create trigger t010_one_base_subscription
  after insert on billing.subscriptions
  referencing new table as began
  for each statement execute function billing_private.refuse_second_base();


create type billing.eligibility as (
  eligible boolean,
  reasons text[],
  notes text[],
  details jsonb,
  trial_days integer
);

comment on type billing.eligibility is
  'Whether an account may subscribe to a price. reasons: why not, as error codes; notes: what does '
  'not stand in the way (TRIAL_USED, CHECKOUT_OPEN); details: values by code; trial_days: the '
  'trial it would begin with.';


create function billing_private.price_obstacle(p_price_key text)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_price record;
begin
  select prices.*, plans.is_active and plans.is_listed as plan_is_offered,
    coalesce(stores.is_active, true) as store_is_open
  into v_price
  from billing.prices
  left join billing.plans on plans.id = prices.plan_id
  left join billing.stores on stores.id = plans.store_id
  where prices.key = p_price_key
  order by prices.is_active desc
  limit 1;

  return case
    when v_price.id is null or v_price.plan_is_offered is null then 'there is no such price'
    when not v_price.store_is_open then 'its store is closed'
    when not (v_price.plan_is_offered and v_price.is_active and v_price.is_listed)
      or v_price.billing_interval is null
      then 'it is not on offer'
    when v_price.stripe_price_id is null then 'the price does not exist at Stripe yet'
  end;
end;
$$;

comment on function billing_private.price_obstacle(text) is
  'Why a price cannot be bought now, as a sentence; null when it can.';


create function billing_private.check_eligibility(
  p_price_key text,
  p_account_id uuid
)
returns billing.eligibility
language plpgsql
stable
security definer -- reads claims and hidden prices for the user
set search_path = ''
as $$
declare
  v_account_id uuid := coalesce(p_account_id, billing_private.user_id());
  v_price_problem text := billing_private.price_obstacle(p_price_key);
  v_result billing.eligibility;
  v_open_id uuid;
begin
  if v_account_id is null then
    perform billing_private.fail('UNAUTHENTICATED');
  elsif not (v_account_id = any (array(select billing_private.my_account_ids())))
    and not billing_private.is_trusted()
  then
    perform billing_private.fail('NOT_A_MEMBER', jsonb_build_object('account_id', v_account_id));
  end if;

  select coalesce(array_agg(code), '{}'), coalesce(jsonb_object_agg(code, details), '{}')
  into v_result.reasons, v_result.details
  from billing_private.obstacles_to_subscribing(v_account_id);
  if v_price_problem is not null then
    v_result.reasons := v_result.reasons || '{PRICE_NOT_FOUND}';
    v_result.details := v_result.details || jsonb_build_object(
      'PRICE_NOT_FOUND', jsonb_build_object(
        'price_key', p_price_key, 'problem', v_price_problem));
  end if;
  v_result.eligible := v_result.reasons = '{}';

  v_result.notes := '{}';
  v_result.trial_days := coalesce(
    (select max(trial_days) from billing.prices where key = p_price_key and is_active), 0);
  if v_result.trial_days > 0
    and not billing_private.may_try(v_account_id, billing_private.caller_email())
  then
    v_result.trial_days := 0;
    v_result.notes := v_result.notes || '{TRIAL_USED}';
  end if;

  select id into v_open_id
  from billing.checkout_sessions
  where account_id = v_account_id
    and status in ('creating', 'open');
  if found then
    v_result.notes := v_result.notes || '{CHECKOUT_OPEN}';
    v_result.details := v_result.details || jsonb_build_object(
      'CHECKOUT_OPEN', jsonb_build_object('checkout_id', v_open_id));
  end if;
  return v_result;
end;
$$;


create function billing.check_eligibility(
  price_key text,
  account_id uuid default null
)
returns billing.eligibility
language sql
stable
set search_path = ''
begin atomic
  select billing_private.check_eligibility(price_key, account_id);
end;

comment on function billing.check_eligibility(text, uuid) is
$$Whether the account may subscribe to a price now, and if not, why: what billing.prepare_checkout()
would say, without beginning anything. Use GET.

account_id: null for the caller's own account.

Errors
  UNAUTHENTICATED  401  nobody is signed in
  NOT_A_MEMBER     403  the account is not one of the caller's$$;


create function billing_private.redeemable_promotion_code(
  p_code text,
  p_account_id uuid
)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  -- What it is worth, and for whom besides, Stripe decides when the page is opened.
  return (
    select stripe_promotion_code_id
    from billing_private.promotion_codes
    left join billing.coupons using (stripe_coupon_id)
    where lower(code) = lower(btrim(p_code))
      and is_active
      and coalesce(expires_at > billing_private.now(), true)
      and coalesce(promotion_codes.times_redeemed < promotion_codes.max_redemptions, true)
      and coalesce(coupons.is_valid and coupons.deleted_at is null, true)
      and (
        stripe_customer_id is null
        or billing_private.account_of_customer(stripe_customer_id) = p_account_id
      )
    limit 1
  );
end;
$$;

comment on function billing_private.redeemable_promotion_code(text, uuid) is
  'Stripe''s promotion code behind what a user types; null where the account can use none.';


create function billing_private.valid_discount(
  p_code text,
  p_account_id uuid
)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_id text;
begin
  -- Our own code of that name is the one that is meant.
  if p_code is null or (billing_private.discount_code(p_code)).id is not null then
    return null;
  end if;
  v_id := billing_private.redeemable_promotion_code(p_code, p_account_id);
  if v_id is null then
    perform billing_private.fail('DISCOUNT_NOT_VALID', '{"field": "discount_code"}');
  end if;
  return v_id;
end;
$$;

comment on function billing_private.valid_discount(text, uuid) is
  'Stripe''s promotion code behind what a user types; null for null, and for codes of our own '
  '(DISCOUNT_NOT_VALID, 422).';


create function billing_private.claim_checkout(p_wanted billing.checkout_sessions)
returns billing.checkout_sessions
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_session billing.checkout_sessions;
begin
  insert into billing.checkout_sessions (
    account_id, price_id, quantity, success_url, cancel_url, trial_days, discount_code_id,
    stripe_promotion_code_id
  )
  values (
    p_wanted.account_id, p_wanted.price_id, p_wanted.quantity, p_wanted.success_url,
    p_wanted.cancel_url, coalesce(p_wanted.trial_days, 0), p_wanted.discount_code_id,
    p_wanted.stripe_promotion_code_id
  )
  returning * into v_session;
  perform billing_private.reserve_code(v_session);
  return v_session;
end;
$$;

comment on function billing_private.claim_checkout(billing.checkout_sessions) is
  'Writes the claim of a checkout, with the discount code it keeps.';


create function billing_private.reusable_checkout(
  p_account_id uuid,
  p_wanted billing.checkout_sessions
)
returns billing.checkout_sessions
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_open billing.checkout_sessions;
begin
  select * into v_open
  from billing.checkout_sessions
  where account_id = p_account_id
    and status in ('creating', 'open');
  if not found then
    return null;
  end if;

  if (v_open.expires_at is null or v_open.expires_at > billing_private.now())
    and (v_open.price_id, v_open.quantity, v_open.success_url, v_open.cancel_url)
      = (p_wanted.price_id, p_wanted.quantity, p_wanted.success_url, p_wanted.cancel_url)
    and (v_open.discount_code_id, v_open.stripe_promotion_code_id)
      is not distinct from (p_wanted.discount_code_id, p_wanted.stripe_promotion_code_id)
  then
    return v_open;
  end if;

  -- Waits for a worker that is just claiming the command. While Stripe is being asked for the
  -- other page, nobody knows its id to close it.
  perform
  from billing_private.commands
  where subject_id = v_open.id
    and status = 'pending'
  for update;
  perform billing_private.retire_checkouts(p_account_id, null);
  if exists (
    select
    from billing_private.commands
    where subject_id = v_open.id
      and status = 'leased'
  ) then
    perform billing_private.fail('CHECKOUT_IN_PROGRESS', jsonb_build_object(
      'checkout_id', v_open.id));
  end if;
  return null;
end;
$$;

comment on function billing_private.reusable_checkout(uuid, billing.checkout_sessions) is
  'The account''s open checkout if it asks for the same; another one is closed first.';


create function billing_private.prepare_checkout(
  p_price_key text,
  p_success_url text,
  p_cancel_url text,
  p_quantity bigint,
  p_account_id uuid,
  p_discount_code text
)
returns billing.checkout_sessions
language plpgsql
volatile
security definer -- takes the claim and writes commands for the user
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.resolve_account(p_account_id, 'manage_billing');
  v_price billing.prices;
  v_wanted billing.checkout_sessions;
  v_session billing.checkout_sessions;
begin
  perform billing_private.require_url('success_url', p_success_url);
  perform billing_private.require_url('cancel_url', p_cancel_url);
  if p_quantity is null or p_quantity not between 1 and 999999 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'quantity', 'problem', 'must be from 1 to 999999'));
  end if;

  if p_discount_code is not null then
    perform billing_private.require_guesses_left();
  end if;
  v_price := billing_private.offered_price(p_price_key);
  perform billing_private.require_stripe_price(v_price);
  v_wanted.account_id := v_account_id;
  v_wanted.price_id := v_price.id;
  v_wanted.quantity := coalesce(
    billing_private.seats_wanted(v_account_id, v_price), p_quantity);
  v_wanted.success_url := p_success_url;
  v_wanted.cancel_url := p_cancel_url;
  v_wanted.discount_code_id := (billing_private.discount_code(p_discount_code)).id;
  v_wanted.stripe_promotion_code_id := billing_private.valid_discount(
    p_discount_code, v_account_id);

  perform billing_private.lock_account(v_account_id);
  perform billing_private.require_eligible(v_account_id);
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'checkout');

  v_session := billing_private.reusable_checkout(v_account_id, v_wanted);
  if v_session.id is not null then
    return v_session;
  end if;

  if v_price.trial_days > 0
    and billing_private.claim_trial(v_account_id, billing_private.caller_email())
  then
    v_wanted.trial_days := v_price.trial_days;
  end if;
  v_session := billing_private.claim_checkout(v_wanted);

  if exists (
    select
    from billing.customers
    where account_id = v_account_id
      and is_primary
      and deleted_at is null
      and stripe_customer_id is not null
  ) then
    perform billing_private.enqueue_session_creation(v_session);
  else
    perform billing_private.enqueue_customer_creation(v_account_id);
  end if;
  return v_session;
end;
$$;


create function billing.prepare_checkout(
  price_key text,
  success_url text,
  cancel_url text,
  quantity bigint default 1,
  account_id uuid default null,
  discount_code text default null
)
returns billing.checkout_sessions
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.prepare_checkout(
    price_key, success_url, cancel_url, quantity, account_id, discount_code);
end;

comment on function billing.prepare_checkout(text, text, text, bigint, uuid, text) is
$$Claims a checkout for the account; the checkout function then has Stripe open its page. Twice or
at once: one checkout.

price_key: from billing.list_plans(). quantity: seats. account_id: null for the caller's own
account.
discount_code: as the user typed it; one that is not known here is refused, unless
billing.find_discount() has asked Stripe for it. Without one Stripe's page asks, where there are any
to give.
An open checkout for something else is closed first. The price's trial is given once per person.

Errors
  VALIDATION_FAILED     400  an address or the quantity is not acceptable
  UNAUTHENTICATED       401  nobody is signed in
  PAYMENT_REQUIRED      402  a subscription exists and its invoice is unpaid
  NOT_A_MEMBER          403  the account is not one of the caller's
  NOT_ALLOWED           403  the caller's role in it lacks manage_billing
  PRICE_NOT_FOUND       404  the price is not on offer
  ALREADY_SUBSCRIBED    409  the account has a running subscription
  CHECKOUT_IN_PROGRESS  409  a different checkout is being opened right now
  DISCOUNT_NOT_VALID    422  there is no such code, or it is used up, over, or another's
  ACCOUNT_CLOSED        422  the account was closed
  RATE_LIMITED          429  too many codes were tried; details.retry_after is in seconds$$;


-- -----------------------------------------------------------------------------
-- 27  billing.prepare_portal()
-- -----------------------------------------------------------------------------

create type billing.stripe_request as (
  subject_id uuid
);

comment on type billing.stripe_request is
  'A request to Stripe for a user who waits for its answer; subject_id is its command.';


create function billing_private.enqueue_request(
  p_kind text,
  p_account_id uuid,
  p_path text,
  p_params jsonb,
  p_method text default 'POST'
)
returns billing.stripe_request
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id uuid := billing_private.enqueue_command(
    p_kind, p_account_id, p_path, p_params, p_method);
begin
  update billing_private.commands
  set subject_id = id
  where id = v_id;
  return row(v_id);
end;
$$;

comment on function billing_private.enqueue_request(text, uuid, text, jsonb, text) is
  'Asks Stripe something for a user who waits for the answer.';


create function billing_private.customer_in_use(
  p_account_id uuid,
  p_subscription billing.subscriptions
)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_customer_id text := coalesce(
    case when p_subscription.ended_at is null then p_subscription.stripe_customer_id end,
    (
      select stripe_customer_id
      from billing.customers
      where account_id = p_account_id
        and is_primary
        and deleted_at is null
    ));
begin
  if v_customer_id is null then
    perform billing_private.fail('CUSTOMER_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  end if;
  return v_customer_id;
end;
$$;

comment on function billing_private.customer_in_use(uuid, billing.subscriptions) is
  'The Stripe customer who pays for the account''s subscription, else its primary one '
  '(CUSTOMER_NOT_FOUND, 404).';


create function billing_private.portal_flow(
  p_flow text,
  p_return_url text,
  p_subscription billing.subscriptions
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_flow jsonb := jsonb_build_object(
    'type', p_flow,
    'after_completion', jsonb_build_object(
      'type', 'redirect', 'redirect', jsonb_build_object('return_url', p_return_url)));
begin
  if p_flow is null or p_flow = 'payment_method_update' then
    return case when p_flow is not null then v_flow end;
  elsif p_flow not in ('subscription_cancel', 'subscription_update') then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'flow',
      'problem', 'must be payment_method_update, subscription_cancel or subscription_update'));
  elsif p_subscription.stripe_subscription_id is null then
    perform billing_private.fail('SUBSCRIPTION_NOT_FOUND', jsonb_build_object(
      'problem', 'there is none at Stripe'));
  end if;
  perform billing_private.require_transition(p_subscription, 'canceled');
  return v_flow || jsonb_build_object(
    p_flow, jsonb_build_object('subscription', p_subscription.stripe_subscription_id));
end;
$$;

comment on function billing_private.portal_flow(text, text, billing.subscriptions) is
  'flow_data of a portal session that leads straight to one thing, and back from there; null for '
  'the portal as a whole.';


create function billing_private.prepare_portal(
  p_return_url text,
  p_account_id uuid,
  p_flow text
)
returns billing.stripe_request
language plpgsql
volatile
security definer -- writes a command for the user
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.resolve_account(p_account_id, 'manage_billing');
  v_subscription billing.subscriptions := billing_private.current_subscription(v_account_id);
begin
  perform billing_private.require_url('return_url', p_return_url);
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'portal');
  return billing_private.enqueue_request(
    'create_portal', v_account_id, '/v1/billing_portal/sessions',
    jsonb_strip_nulls(jsonb_build_object(
      'customer', billing_private.customer_in_use(v_account_id, v_subscription),
      'return_url', p_return_url,
      'flow_data', billing_private.portal_flow(p_flow, p_return_url, v_subscription))));
end;
$$;


create function billing.prepare_portal(
  return_url text,
  account_id uuid default null,
  flow text default null
)
returns billing.stripe_request
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.prepare_portal(return_url, account_id, flow);
end;

comment on function billing.prepare_portal(text, uuid, text) is
$$Asks for a session of Stripe's billing portal; the checkout function opens it and answers with its
address.

flow: payment_method_update, subscription_cancel or subscription_update, to lead straight there and
back to return_url; null for the portal as a whole. account_id: null for the caller's own account.
The customer and the subscription are always the account's own.

Errors
  VALIDATION_FAILED       400  return_url is not an absolute http(s) address, or an unknown flow
  UNAUTHENTICATED         401  nobody is signed in
  NOT_A_MEMBER            403  the account is not one of the caller's
  NOT_ALLOWED             403  the caller's role in it lacks manage_billing
  CUSTOMER_NOT_FOUND      404  the account has never been a customer
  SUBSCRIPTION_NOT_FOUND  404  the flow is about a subscription, and Stripe has none
  INVALID_TRANSITION      422  it has ended already
  ACCOUNT_CLOSED          422  the account was closed$$;


-- -----------------------------------------------------------------------------
-- 28  billing.find_discount()
-- -----------------------------------------------------------------------------

create function billing_private.find_discount(
  p_discount_code text,
  p_account_id uuid
)
returns billing.stripe_request
language plpgsql
volatile
security definer -- reads the codes and writes a command for the user
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.resolve_account(p_account_id, 'manage_billing');
  v_code text := btrim(p_discount_code);
begin
  if coalesce(v_code, '') !~ '^[^[:space:]]+$'
    or length(v_code) > 500
    or (billing_private.discount_code(v_code)).id is not null
    or exists (
      select
      from billing_private.promotion_codes
      where lower(code) = lower(v_code)
        and is_active
        and (
          stripe_customer_id is null
          or billing_private.account_of_customer(stripe_customer_id) = v_account_id
        )
    )
    -- Who goes on after so many guesses: Stripe's rate limit is for those who pay.
    or (
      select count(*)
      from billing_private.commands
      where account_id = v_account_id
        and kind = 'find_promotion_code'
        and created_at > billing_private.now() - interval '1 hour'
    ) >= 10
  then
    return row(null::uuid);
  end if;

  perform billing_private.note_guess();
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'discount code');
  return billing_private.enqueue_request(
    'find_promotion_code', v_account_id, '/v1/promotion_codes',
    jsonb_build_object('code', v_code, 'active', true, 'limit', 100), 'GET');
end;
$$;


create function billing.find_discount(
  discount_code text,
  account_id uuid default null
)
returns billing.stripe_request
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.find_discount(discount_code, account_id);
end;

comment on function billing.find_discount(text, uuid) is
$$Has Stripe asked for a discount code that is not known here, perhaps because its event is late.

subject_id is null where there is nothing to ask: the code is known, is none at all, or ten unknown
ones have been asked for within the hour.

The checkout function does this before billing.prepare_checkout(), which decides whether the code is
valid. account_id: null for the caller's own account.

Errors
  UNAUTHENTICATED  401  nobody is signed in
  NOT_A_MEMBER     403  the account is not one of the caller's
  NOT_ALLOWED      403  the caller's role in it lacks manage_billing
  ACCOUNT_CLOSED   422  the account was closed
  RATE_LIMITED     429  too many codes were tried; details.retry_after is in seconds$$;


create function billing_private.take_promotion_codes(
  p_command billing_private.commands,
  p_response jsonb,
  p_asked_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- A page is not of one mode as a single object is; each customer's lock in one order.
  perform billing_private.apply_response(
    p_command, found.member, 'promotion_code.updated', p_asked_at)
  from (
    select member
    from jsonb_path_query(p_response, '$.data[*]') as member
    where member -> 'livemode' = (
      select to_jsonb(stripe_livemode) from billing_private.settings
    )
    order by coalesce(billing_private.stripe_id(member -> 'customer'), member ->> 'id')
  ) as found;
end;
$$;

comment on function billing_private.take_promotion_codes(
  billing_private.commands, jsonb, timestamptz
) is
  'Mirrors the promotion codes that Stripe has under what a user typed.';


-- -----------------------------------------------------------------------------
-- 29  billing.claim_commands() and complete_command()
-- -----------------------------------------------------------------------------

create type billing.claimed_command as (
  id uuid,
  lease uuid,
  idempotency_key uuid,
  method text,
  path text,
  params jsonb
);

comment on type billing.claimed_command is
  'A call to Stripe to be made now, under this idempotency key; lease proves the claim on '
  'completion.';


create function billing_private.account_behind(p_subject_id uuid)
returns uuid
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(
    (
      select account_id
      from billing_private.commands
      where subject_id = p_subject_id
      limit 1
    ),
    (select account_id from billing.checkout_sessions where id = p_subject_id),
    (select account_id from billing.subscriptions where id = p_subject_id));
end;
$$;

comment on function billing_private.account_behind(uuid) is
  'The account whose user waits for a checkout, for a change of a subscription, or for the answer '
  'to one request.';


create function billing_private.old_since()
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return billing_private.now() - interval '23 hours';
end;
$$;

comment on function billing_private.old_since() is
  'Keys first used before this may be forgotten by Stripe before a call under them is through: it '
  'keeps them for 24 hours.';


create function billing_private.request_of(
  p_command billing_private.commands,
  out method text,
  out path text,
  out params jsonb
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_kind billing_private.command_kinds;
  v_command jsonb;
begin
  method := p_command.method;
  path := p_command.path;
  params := p_command.params;
  if p_command.looking_up is null then
    return;
  end if;

  select * into strict v_kind from billing_private.command_kinds where kind = p_command.kind;
  v_command := to_jsonb(p_command) || jsonb_build_object(
    'since', extract(epoch from p_command.first_attempt_at - interval '1 hour')::bigint);
  method := 'GET';
  path := v_kind.look_up_path;
  for v_part in 2..4 loop
    path := replace(path, format('{%s}', v_part), split_part(p_command.path, '/', v_part + 1));
  end loop;
  path := replace(path, '{id}', coalesce(p_command.params ->> 'id', ''));
  path := replace(path, '{target}', coalesce(p_command.target_object_id, ''));
  params := jsonb_strip_nulls(jsonb_build_object('starting_after', p_command.looked_up_to))
    || coalesce(
      (
        select jsonb_strip_nulls(jsonb_object_agg(key, case
          when value #>> '{}' like '$%'
            then jsonb_path_query_first(v_command, (value #>> '{}')::jsonpath)
          else value
        end))
        from jsonb_each(v_kind.look_up_params)
      ),
      '{}');
end;
$$;

comment on function billing_private.request_of(billing_private.commands) is
  'The request a command makes of Stripe now: the call it is for, or the look-up whether that took '
  'effect.';


-- Long because it is one statement over one set: who is due, and what each is told to do.
create function billing_private.claim_commands(
  p_batch integer,
  p_subject_id uuid
)
returns setof billing.claimed_command
language plpgsql
volatile
security definer -- the outbox is readable by nobody
set search_path = ''
as $$
declare
  v_batch integer := least(greatest(coalesce(p_batch, 20), 1), 100);
  v_account_id uuid := billing_private.account_behind(p_subject_id);
  v_now timestamptz := billing_private.now();
  v_old_since timestamptz := billing_private.old_since();
begin
  if p_subject_id is null then
    update billing_private.dispatcher
    set last_claim_at = v_now
    where only_row
      and coalesce(last_claim_at < v_now - interval '5 seconds', true);
  end if;

  return query
  with due as (
    select
      commands.id,
      coalesce(command_kinds.when_old, 'drop') as when_old,
      coalesce(commands.first_attempt_at <= v_old_since, false) as is_old
    from billing_private.commands
    left join billing_private.command_kinds using (kind)
    where commands.status in ('pending', 'leased')
      and case commands.status
        when 'pending' then commands.next_attempt_at
        else commands.lease_expires_at
      end <= v_now
      -- Whoever waits for a checkout also runs what stands before it in the account's line.
      and (p_subject_id is null or commands.account_id = v_account_id)
      and (commands.subject_id = p_subject_id or not commands.is_awaited)
      -- Left to give_up_old_commands().
      and not coalesce(
        commands.first_attempt_at <= v_old_since
          and coalesce(command_kinds.when_old, 'drop') = 'drop',
        false)
      -- A later one may be under way: positions are given before they are committed.
      and not exists (
        select
        from billing_private.commands as other
        where other.account_id = commands.account_id
          and other.id <> commands.id
          and other.status in ('pending', 'leased')
          and (
            other.position < commands.position
            or other.status = 'leased' and other.lease_expires_at > v_now
          )
          and not (other.is_awaited or commands.is_awaited)
      )
    order by commands.account_id is null, commands.position
    limit v_batch
    for update of commands skip locked
  ),
  claimed as (
    update billing_private.commands
    set status = 'leased',
        attempts = commands.attempts + 1,
        lease = gen_random_uuid(),
        -- Each call may take 20 seconds and the claimed ones are made one after the other.
        lease_expires_at = v_now + interval '30 seconds' + interval '20 seconds' * v_batch,
        idempotency_key = case
          when due.is_old and due.when_old = 'repeat' then gen_random_uuid()
          else commands.idempotency_key
        end,
        first_attempt_at = case
          when due.is_old and due.when_old = 'repeat' then v_now
          else coalesce(commands.first_attempt_at, v_now)
        end,
        looking_up = coalesce(
          commands.looking_up, case when due.is_old and due.when_old like 'find%' then 'old' end),
        -- Stripe answers a repeated call with what it answered the first time.
        target_event_id = case
          when commands.attempts > 0 and commands.method <> 'GET'
            and commands.looking_up is null and not due.is_old then commands.target_event_id
          else (
            select stripe_objects.event_id
            from billing_private.stripe_objects
            where stripe_objects.object_id = commands.target_object_id
          )
        end,
        sequence = nextval('billing_private.stripe_events_sequence_seq')
    from due
    where commands.id = due.id
    returning commands as command
  )
  select
    (claimed.command).id, (claimed.command).lease,
    coalesce((claimed.command).idempotency_key, (claimed.command).id),
    request.method, request.path, request.params
  from claimed
  cross join lateral billing_private.request_of(claimed.command) as request
  order by (claimed.command).account_id is null, (claimed.command).position;
end;
$$;


create function billing.claim_commands(
  batch integer default 20,
  subject_id uuid default null
)
returns setof billing.claimed_command
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.claim_commands(batch, subject_id);
end;

comment on function billing.claim_commands(integer, uuid) is
$$Leases calls to Stripe that are due, at most one per account, oldest first. For service_role.

batch: at most this many (1 to 100). subject_id: only the account behind this checkout, portal
request or subscription.
A lease that runs out is given to the next caller; Stripe's idempotency key keeps the effect
single. Instead of a call whose key Stripe may have forgotten, the look-up comes that tells whether
it took effect.$$;


create type billing.command_outcome as (
  status text,
  retry_at timestamptz
);

comment on type billing.command_outcome is
  'What became of a command: succeeded, pending (will be tried again at retry_at) or dead.';


create function billing_private.may_pass(
  p_http_status integer,
  p_response jsonb
)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- No answer, server errors, rate limits, lock time-outs, requests in flight, and keys that are
  -- not accepted (somebody will correct them). Any other refusal would be refused again.
  return coalesce(
    p_http_status is null or p_http_status >= 500 or p_http_status in (401, 403, 408, 409, 429)
      or p_response #>> '{error,code}' = 'lock_timeout',
    false);
end;
$$;

comment on function billing_private.may_pass(integer, jsonb) is
  'True for an answer after which the same call, under the same key, may fare better.';


create function billing_private.retry_at(
  p_command billing_private.commands,
  p_retry_after_seconds integer
)
returns timestamptz
language plpgsql
volatile
set search_path = ''
as $$
begin
  return billing_private.now() + make_interval(secs => greatest(
    least(coalesce(p_retry_after_seconds, 0), 3600),
    least(2.5 * 2 ^ p_command.attempts, 1800) * (0.75 + random() / 2)));
end;
$$;

comment on function billing_private.retry_at(billing_private.commands, integer) is
  'When a failed command is tried again: doubling, with jitter, never before Retry-After.';


create type billing_private.verdict as (
  status text,
  retry_at timestamptz,
  object jsonb,
  error jsonb,
  looking_up text,
  looked_up_to text,
  needs_fresh_key boolean
);

comment on type billing_private.verdict is
  'What follows from an answer: the command''s next status, with the object that came of it, or '
  'the error and what is to be done next.';


create function billing_private.judge_answer(
  p_command billing_private.commands,
  p_http_status integer,
  p_response jsonb,
  p_retry_after_seconds integer,
  p_is_replay boolean
)
returns billing_private.verdict
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_kind billing_private.command_kinds;
  v_verdict billing_private.verdict;
begin
  select * into v_kind from billing_private.command_kinds where kind = p_command.kind;
  v_verdict.status := 'dead';
  v_verdict.error := jsonb_build_object('http_status', p_http_status)
    || coalesce(p_response, '{}');

  if p_http_status between 200 and 299 or billing_private.is_gone(p_command, p_response) then
    v_verdict.status := 'succeeded';
    v_verdict.object := p_response;
  elsif billing_private.may_pass(p_http_status, p_response) then
    -- Twelve tries take about two hours: well inside the 24 hours Stripe keeps a key.
    if p_command.attempts < coalesce(v_kind.max_attempts, 12)
      -- Stripe keeps a server error for the key as it keeps any answer: it would never pass.
      and not (p_is_replay and p_http_status >= 500 and coalesce(v_kind.when_old, 'drop') = 'drop')
    then
      v_verdict.status := 'pending';
      v_verdict.retry_at := billing_private.retry_at(p_command, p_retry_after_seconds);
      if p_is_replay and p_http_status >= 500 then
        v_verdict.needs_fresh_key := v_kind.when_old = 'repeat';
        v_verdict.looking_up := case when v_kind.when_old like 'find%' then 'spent' end;
      end if;
    end if;
  elsif p_command.kind = 'pay_invoice' and p_http_status = 402 then
    v_verdict.status := 'declined';
  elsif v_kind.verify_refusals and p_http_status <> 402 then
    v_verdict.status := 'pending';
    v_verdict.retry_at := billing_private.now();
    v_verdict.looking_up := 'refused';
  end if;
  return v_verdict;
end;
$$;

comment on function billing_private.judge_answer(
  billing_private.commands, integer, jsonb, integer, boolean
) is
  'What follows from Stripe''s answer to a call.';


create function billing_private.judge_look_up(
  p_command billing_private.commands,
  p_http_status integer,
  p_response jsonb,
  p_retry_after_seconds integer
)
returns billing_private.verdict
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_kind billing_private.command_kinds;
  v_verdict billing_private.verdict;
begin
  select * into strict v_kind from billing_private.command_kinds where kind = p_command.kind;
  v_verdict.status := 'dead';
  v_verdict.error := jsonb_build_object('http_status', p_http_status)
    || coalesce(p_response, '{}');
  v_verdict.object := case when p_http_status between 200 and 299 then
    jsonb_path_query_first(p_response, v_kind.effect, to_jsonb(p_command), true) end;

  if v_verdict.object is not null then
    v_verdict.status := 'succeeded';
  elsif p_http_status between 200 and 299 and p_response -> 'has_more' = 'true' then
    v_verdict.status := 'pending';
    v_verdict.retry_at := billing_private.now();
    v_verdict.error := p_command.last_error;
    v_verdict.looking_up := p_command.looking_up;
    v_verdict.looked_up_to := p_response #>> '{data,-1,id}';
  elsif p_http_status between 200 and 299
    or p_response #>> '{error,code}' = 'resource_missing'
  then
    -- It did not take effect.
    if p_command.looking_up = 'refused' then
      v_verdict.error := p_command.last_error;
    elsif v_kind.when_old = 'find_or_drop' then
      v_verdict.error := billing_private.too_old_error();
    else
      v_verdict.status := 'pending';
      v_verdict.retry_at := billing_private.now();
      v_verdict.error := p_command.last_error;
      v_verdict.needs_fresh_key := true;
    end if;
  elsif billing_private.may_pass(p_http_status, p_response)
    and p_command.attempts < v_kind.max_attempts
  then
    v_verdict.status := 'pending';
    v_verdict.retry_at := billing_private.retry_at(p_command, p_retry_after_seconds);
    v_verdict.error := case p_command.looking_up
      when 'refused' then p_command.last_error
      else v_verdict.error
    end;
    v_verdict.looking_up := p_command.looking_up;
    v_verdict.looked_up_to := p_command.looked_up_to;
  end if;
  return v_verdict;
end;
$$;

comment on function billing_private.judge_look_up(
  billing_private.commands, integer, jsonb, integer
) is
  'What follows from Stripe''s answer to the question whether a call took effect: found, the call '
  'is done; not found, it is made under a fresh key, or given up.';


create function billing_private.too_old_error()
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return jsonb_build_object('error', jsonb_build_object(
    'code', 'too_old',
    'message', 'Tried too long ago to be tried again; whether it took effect is not known.'));
end;
$$;

comment on function billing_private.too_old_error() is
  'Why a call is given up that Stripe might take for a new one.';


create function billing_private.complete_command(
  p_command_id uuid,
  p_lease uuid,
  p_http_status integer,
  p_response jsonb,
  p_retry_after_seconds integer,
  p_stripe_date text,
  p_elapsed_seconds numeric,
  p_is_replay boolean
)
returns billing.command_outcome
language plpgsql
volatile
security definer -- the outbox is writable by nobody
set search_path = ''
as $$
declare
  v_command billing_private.commands;
  v_verdict billing_private.verdict;
begin
  select * into v_command
  from billing_private.commands
  where id = p_command_id
  for update;

  if not found then
    perform billing_private.fail('COMMAND_NOT_FOUND', jsonb_build_object(
      'command_id', p_command_id));
  elsif v_command.lease is distinct from p_lease or p_lease is null then
    perform billing_private.fail('LEASE_LOST', jsonb_build_object(
      'command_id', p_command_id, 'status', v_command.status));
  end if;

  if p_response -> 'livemode'
    <> (select to_jsonb(stripe_livemode) from billing_private.settings)
  then
    v_verdict.status := 'dead';
    v_verdict.error := jsonb_build_object('http_status', p_http_status, 'error', jsonb_build_object(
      'code', 'other_livemode',
      'message', 'The secret key is of the other Stripe mode than this database.'));
  elsif v_command.looking_up is not null then
    v_verdict := billing_private.judge_look_up(
      v_command, p_http_status, p_response, p_retry_after_seconds);
  else
    v_verdict := billing_private.judge_answer(
      v_command, p_http_status, p_response, p_retry_after_seconds, coalesce(p_is_replay, false));
  end if;

  update billing_private.commands
  set status = v_verdict.status,
      lease = null,
      lease_expires_at = null,
      next_attempt_at = coalesce(v_verdict.retry_at, next_attempt_at),
      result_id = case when v_verdict.status = 'succeeded' then v_verdict.object ->> 'id' end,
      last_error = case when v_verdict.status <> 'succeeded' then v_verdict.error end,
      looking_up = v_verdict.looking_up,
      looked_up_to = v_verdict.looked_up_to,
      idempotency_key = case
        when v_verdict.needs_fresh_key then gen_random_uuid() else idempotency_key end,
      first_attempt_at = case when v_verdict.needs_fresh_key then null else first_attempt_at end,
      finished_at = case when v_verdict.status <> 'pending' then billing_private.now() end
  where id = p_command_id;

  perform billing_private.set_cause('command', p_command_id::text, v_command.kind);
  if v_verdict.status = 'succeeded' then
    perform billing_private.command_succeeded(
      v_command, v_verdict.object,
      billing_private.asked_at(p_stripe_date, p_elapsed_seconds));
  elsif v_verdict.status in ('dead', 'declined') then
    perform billing_private.command_refused(v_command, v_verdict.error);
  end if;
  if v_verdict.status = 'succeeded' and billing_private.is_closed(v_command.account_id) then
    perform billing_private.forget_calls(v_command.account_id);
  end if;
  return row(v_verdict.status, v_verdict.retry_at);
end;
$$;


create function billing_private.give_up_old_commands(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_command billing_private.commands;
  v_count bigint := 0;
begin
  for v_command in
    select commands.*
    from billing_private.commands
    left join billing_private.command_kinds using (kind)
    where commands.status in ('pending', 'leased')
      and commands.first_attempt_at <= billing_private.old_since()
      and coalesce(commands.lease_expires_at <= billing_private.now(), true)
      and coalesce(command_kinds.when_old, 'drop') = 'drop'
    order by commands.position
    limit p_limit
    for update of commands skip locked
  loop
    update billing_private.commands
    set status = 'dead',
        lease = null,
        lease_expires_at = null,
        last_error = billing_private.too_old_error(),
        finished_at = billing_private.now()
    where id = v_command.id;
    perform billing_private.set_cause('command', v_command.id::text, v_command.kind);
    perform billing_private.command_refused(v_command, billing_private.too_old_error());
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.give_up_old_commands(integer) is
  'Gives up calls that were first tried 23 hours ago and are of no use any more, or whose '
  'repetition could take effect twice. Returns how many.';


create function billing_private.asked_at(
  p_stripe_date text,
  p_elapsed_seconds numeric
)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  -- Stripe's clock only: ours may be minutes off. Its Date has whole seconds and is written last.
  if p_stripe_date ~ '^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$' then
    return date_trunc('second',
      p_stripe_date::timestamptz - make_interval(secs => coalesce(p_elapsed_seconds, 0)));
  end if;
  return null;
exception when datetime_field_overflow or invalid_datetime_format then
  return null;
end;
$$;

comment on function billing_private.asked_at(text, numeric) is
  'When Stripe got a question at the earliest, by Stripe''s clock: the Date of its answer less how '
  'long the call took; null when the answer has no date.';


create function billing_private.is_gone(
  p_command billing_private.commands,
  p_response jsonb
)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return p_command.kind = 'reread'
    and coalesce(p_response #>> '{error,code}' = 'resource_missing', false)
    and exists (
      select
      from billing_private.stripe_resources
      where deletion_type is not null
        and p_command.path = replace(retrieve_path, '{id}', p_command.target_object_id)
    );
end;
$$;

comment on function billing_private.is_gone(billing_private.commands, jsonb) is
  'True when Stripe says that an object does not exist, and it is of a kind that can be deleted.';


-- Its body is long because it is a list: what each kind of command leads to.
create function billing_private.command_succeeded(
  p_command billing_private.commands,
  p_response jsonb,
  p_asked_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_checkout billing.checkout_sessions;
begin
  case p_command.kind
    when 'create_customer' then
      perform billing_private.lock_catalog('customer');
      perform billing_private.lock_customer(p_response ->> 'id');
      perform billing_private.lock_account(p_command.account_id);
      perform billing_private.apply_response(
        p_command, p_response, 'customer.created', p_asked_at);
      perform billing_private.bind_customer(p_response ->> 'id', p_command.account_id);
      select * into v_checkout
      from billing.checkout_sessions
      where account_id = p_command.account_id
        and status = 'creating';
      if found then
        perform billing_private.enqueue_session_creation(v_checkout);
      end if;
    when 'create_checkout' then
      perform billing_private.apply_response(
        p_command, p_response, 'checkout.session.completed', p_asked_at);
    when 'expire_checkout' then
      perform billing_private.apply_response(
        p_command, p_response, 'checkout.session.expired', p_asked_at);
    when
      'update_subscription', 'cancel_subscription', 'undo_cancel', 'change_plan',
      'pause_collection', 'resume_collection', 'resume_subscription', 'end_trial'
    then
      perform billing_private.apply_response(
        p_command, p_response, 'customer.subscription.updated', p_asked_at);
      if p_command.kind = 'pause_collection' then
        perform billing_private.withdraw_invoices(p_command.subscription_id);
      end if;
    when 'apply_discount' then
      perform billing_private.apply_response(
        p_command, p_response, 'customer.subscription.updated', p_asked_at);
      perform billing_private.settle_applied_code(p_command, 'confirmed');
    when 'set_payment_method' then
      perform billing_private.apply_response(
        p_command, p_response,
        case
          when p_response ->> 'object' = 'customer' then 'customer.updated'
          else 'customer.subscription.updated'
        end,
        p_asked_at);
    when
      'pay_invoice', 'mark_uncollectible', 'finalize_invoice', 'hold_invoice', 'void_invoice'
    then
      perform billing_private.apply_response(p_command, p_response, 'invoice.updated', p_asked_at);
      if p_command.kind = 'finalize_invoice' then
        perform billing_private.withdraw_invoices(id)
        from billing.subscriptions
        where stripe_subscription_id = billing_private.subscription_of(p_response);
      end if;
    when 'create_product', 'create_price', 'update_product', 'update_price' then
      perform billing_private.catalog_published(p_command, p_response, p_asked_at);
    when 'refund_charge' then
      perform billing_private.apply_response(p_command, p_response, 'refund.created', p_asked_at);
    when 'create_coupon' then
      perform billing_private.apply_response(p_command, p_response, 'coupon.created', p_asked_at);
    when 'update_customer' then
      perform billing_private.apply_response(
        p_command, p_response, 'customer.updated', p_asked_at);
    when 'reread' then
      perform billing_private.apply_reread(p_command, p_response, p_asked_at);
    when 'sweep_page' then
      perform billing_private.apply_sweep_page(p_command, p_response, p_asked_at);
    when 'list_invoice_lines', 'list_subscription_items', 'list_entitlements' then
      perform billing_private.apply_list_page(p_command, p_response);
    when 'find_features' then
      perform billing_private.take_features(p_command, p_response);
    when 'read_entitlements' then
      perform billing_private.take_entitlements(p_command, p_response, p_asked_at);
    when 'find_promotion_code' then
      perform billing_private.take_promotion_codes(p_command, p_response, p_asked_at);
    when 'read_event' then
      perform billing_private.fill_meter_error_report(p_response);
    when 'create_schedule' then
      perform billing_private.apply_response(
        p_command, p_response, 'subscription_schedule.created', p_asked_at);
      perform billing_private.enqueue_schedule_phases(p_command, p_response);
    when 'update_schedule' then
      perform billing_private.apply_response(
        p_command, p_response, 'subscription_schedule.updated', p_asked_at);
    when 'release_schedule' then
      perform billing_private.apply_response(
        p_command, p_response, 'subscription_schedule.released', p_asked_at);
    else
      -- Pages and previews: the answer is for the user who waits, never stored. meter_event: Stripe
      -- only says that it has taken it.
      null;
  end case;
end;
$$;

comment on function billing_private.command_succeeded(
  billing_private.commands, jsonb, timestamptz
) is
  'What follows from Stripe''s answer to a command.';


create function billing_private.command_refused(
  p_command billing_private.commands,
  p_response jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- The user who waits behind a checkout is told; the claim is free for another try.
  update billing.checkout_sessions
  set status = 'failed',
      failure = jsonb_build_object(
        'code', coalesce(p_response #>> '{error,code}', p_response #>> '{error,type}', 'unknown'),
        'message', coalesce(p_response #>> '{error,message}', 'Stripe did not answer'))
  where account_id = p_command.account_id
    and status = 'creating'
    and (id = p_command.subject_id or p_command.kind = 'create_customer');

  if p_command.kind = 'sweep_page' then
    perform billing_private.interrupt_sweep(p_command.subject_id, p_response);
  end if;

  -- A schedule that was never made needs no letting go.
  update billing_private.commands
  set status = 'canceled',
      finished_at = billing_private.now()
  where kind = 'release_schedule'
    and subject_id = p_command.id
    and status = 'pending';

  if p_command.kind = 'pay_invoice' then
    perform billing_private.note_refused_payment(p_command, p_response -> 'error');
  end if;
  perform billing_private.settle_applied_code(p_command, 'released');
end;
$$;

comment on function billing_private.command_refused(billing_private.commands, jsonb) is
  'What follows when Stripe refuses a command for good.';


create function billing_private.answer_id(
  p_command billing_private.commands,
  p_object jsonb
)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return concat_ws(
    ':', 'command', p_command.id,
    case when p_command.kind in ('sweep_page', 'find_promotion_code') then p_object ->> 'id' end);
end;
$$;

comment on function billing_private.answer_id(billing_private.commands, jsonb) is
  'The id in the inbox of an object that Stripe returned; one call may return many.';


create function billing_private.last_thin_event(
  p_object_id text,
  p_sequence bigint
)
returns timestamptz
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select date_trunc('second', max(occurred_at))
    from billing_private.stripe_events
    where object_id = p_object_id
      and status_reason = 'thin'
      and sequence < p_sequence
  );
end;
$$;

comment on function billing_private.last_thin_event(text, bigint) is
  'The second of the last thin event about an object that came before Stripe was asked: what it '
  'told of has happened by then, whatever the clocks say.';


-- Stamped by Stripe's clock, and with no less than the snapshot it builds on: whatever Stripe did
-- after it was asked still counts as newer, whatever it had told before does not.
create function billing_private.apply_response(
  p_command billing_private.commands,
  p_object jsonb,
  p_as_type text,
  p_asked_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_event_id text := billing_private.answer_id(p_command, p_object);
  v_is_read boolean := p_command.kind in (
      'reread', 'sweep_page', 'find_promotion_code', 'read_entitlements')
    or p_command.looking_up is not null;
  -- What Stripe kept from an earlier attempt is as old as that one, whatever the answer's Date.
  v_may_be_kept boolean := p_command.attempts > 1 and not v_is_read;
  v_customer_id text := case
    when p_object ->> 'object' = 'customer' then p_object ->> 'id'
    else billing_private.stripe_id(p_object -> 'customer')
  end;
  -- Of a page nobody knew what it would show: it builds on what had come when it was asked for.
  v_builds_on text := case
    when p_command.kind not in ('sweep_page', 'find_promotion_code') then p_command.target_event_id
    else (
      select event_id
      from billing_private.stripe_objects
      join billing_private.stripe_events using (event_id)
      where stripe_objects.object_id = p_object ->> 'id'
        and stripe_events.sequence < p_command.sequence
    )
  end;
  v_occurred_at timestamptz := greatest(
    case when not v_may_be_kept then p_asked_at end,
    billing_private.stripe_time(p_object -> 'created'),
    (select occurred_at
    from billing_private.stripe_events
    where event_id = v_builds_on),
    case when v_is_read
      then billing_private.last_thin_event(p_object ->> 'id', p_command.sequence) end);
begin
  perform billing_private.lock_catalog(p_object ->> 'object');
  perform billing_private.lock_customer(coalesce(v_customer_id, p_object ->> 'id'));

  insert into billing_private.stripe_events (
    event_id, source, sequence, builds_on, type, object_id, object_type, stripe_customer_id,
    livemode, occurred_at, payload, request_id
  )
  select
    v_event_id,
    case when v_is_read then 'reread' else 'command' end,
    case
      when v_is_read then p_command.sequence
      else nextval('billing_private.stripe_events_sequence_seq')
    end,
    v_builds_on,
    p_as_type, p_object ->> 'id', p_object ->> 'object', v_customer_id,
    -- Not every object says of which mode it is; that of the answer has been compared.
    settings.stripe_livemode,
    coalesce(v_occurred_at, billing_private.now()),
    jsonb_build_object('data', jsonb_build_object('object', p_object)),
    billing_private.request_id()
  from billing_private.settings;
  perform billing_private.apply_event(v_event_id);
  if v_may_be_kept then
    perform billing_private.request_reread(p_object ->> 'object', p_object ->> 'id', 'kept_answer');
  end if;
end;
$$;

comment on function billing_private.apply_response(
  billing_private.commands, jsonb, text, timestamptz
) is
  'Puts an object that Stripe returned into the inbox and applies it like an event''s. What cannot '
  'be applied is tried again like an event; the call is not made again for it.';


create function billing_private.apply_reread(
  p_command billing_private.commands,
  p_response jsonb,
  p_asked_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_resource billing_private.stripe_resources;
  v_object jsonb := p_response;
  v_as_type text;
begin
  -- What is gone has no fields left to tell: it is what it was, and deleted.
  if p_response -> 'deleted' = 'true' or p_response ? 'error' then
    select billing_private.parse_json(payload) #> '{data,object}' || '{"deleted": true}'
    into v_object
    from billing_private.stripe_objects
    join billing_private.stripe_events using (event_id)
    where stripe_objects.object_id = p_command.target_object_id;
    v_object := coalesce(v_object, p_response);
  end if;

  -- Gone before anybody told of it: there is nothing to delete.
  if not v_object ? 'object' then
    return;
  end if;

  select * into strict v_resource
  from billing_private.stripe_resources
  where object_type = v_object ->> 'object';

  v_as_type := case
    when v_object -> 'deleted' = 'true'
      then coalesce(v_resource.deletion_type, v_resource.snapshot_type)
    else v_resource.snapshot_type
  end;
  -- Asked because it should have been told, and is not because of something that was.
  if exists (select from billing_private.reread_rules where key = p_command.cause ->> 'reason') then
    perform billing_private.observe_object(
      p_command, v_object, v_as_type, p_asked_at, p_command.cause ->> 'reason');
  else
    perform billing_private.apply_response(p_command, v_object, v_as_type, p_asked_at);
  end if;
end;
$$;

comment on function billing_private.apply_reread(billing_private.commands, jsonb, timestamptz) is
  'Applies what Stripe answered to the question how an object is now.';


create function billing.complete_command(
  command_id uuid,
  lease uuid,
  http_status integer,
  response jsonb,
  retry_after_seconds integer default null,
  stripe_date text default null,
  elapsed_seconds numeric default null,
  is_replay boolean default null
)
returns billing.command_outcome
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.complete_command(
    command_id, lease, http_status, response, retry_after_seconds, stripe_date, elapsed_seconds,
    is_replay);
end;

comment on function billing.complete_command(
  uuid, uuid, integer, jsonb, integer, text, numeric, boolean
) is
$$Reports what Stripe answered to a claimed command. For service_role.

http_status: null when no answer came. response: Stripe's body. retry_after_seconds: from
Retry-After. stripe_date: the answer's Date header; elapsed_seconds: how long the call took. From
them follows which events are newer than the answer. is_replay: Stripe had this answer ready for the
key.
A returned object is applied at once, through the same code as an event.

Errors
  COMMAND_NOT_FOUND  404  there is no such command
  LEASE_LOST         409  the lease ran out, or the command is completed already$$;


-- -----------------------------------------------------------------------------
-- 30  rules of the lifecycle
-- -----------------------------------------------------------------------------

create function billing_private.require_transition(
  p_subscription billing.subscriptions,
  p_to_status text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if not exists (
    select
    from billing.subscription_transitions
    where from_status = p_subscription.status
      and to_status = p_to_status
  ) then
    perform billing_private.fail('INVALID_TRANSITION', jsonb_build_object(
      'subscription_id', p_subscription.id,
      'from', p_subscription.status, 'to', p_to_status));
  end if;
end;
$$;

comment on function billing_private.require_transition(billing.subscriptions, text) is
  'Refuses a change of status that billing.subscription_transitions does not list '
  '(INVALID_TRANSITION, 422).';


create function billing_private.lock_subscription(p_account_id uuid)
returns billing.subscriptions
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions;
begin
  perform billing_private.lock_account(p_account_id);
  v_subscription := billing_private.current_subscription(p_account_id);
  if v_subscription.id is null then
    perform billing_private.fail('SUBSCRIPTION_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  elsif billing_private.contract_binds(v_subscription) then
    perform billing_private.fail('CONTRACT_IN_FORCE', jsonb_build_object(
      'subscription_id', v_subscription.id));
  end if;
  return v_subscription;
end;
$$;

comment on function billing_private.lock_subscription(uuid) is
  'The account''s current subscription, for a decision nobody else takes meanwhile '
  '(SUBSCRIPTION_NOT_FOUND, 404; CONTRACT_IN_FORCE, 409, where a contract decides).';


create function billing_private.last_asked(
  p_subscription_id uuid,
  p_kinds text[]
)
returns billing_private.commands
language plpgsql
stable
set search_path = ''
as $$
declare
  v_command billing_private.commands;
begin
  select * into v_command
  from billing_private.commands
  where subscription_id = p_subscription_id
    and kind = any (p_kinds)
    and status in ('pending', 'leased')
  order by position desc
  limit 1;
  return v_command;
end;
$$;

comment on function billing_private.last_asked(uuid, text[]) is
  'The newest of these wishes about a subscription that Stripe has not answered; what was answered'
  ' is in the subscription''s row.';


create function billing_private.ask_once(
  p_subscription billing.subscriptions,
  p_kind text,
  p_path text,
  p_params jsonb default '{}'
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_asked billing_private.commands := billing_private.last_asked(
    p_subscription.id, array[p_kind]);
begin
  -- A double click is one command.
  if (v_asked.path, v_asked.params) = (p_path, p_params) then
    return;
  end if;
  perform billing_private.enqueue_command(
    p_kind, p_subscription.account_id, p_path, p_params, 'POST', null, p_subscription);
end;
$$;

comment on function billing_private.ask_once(billing.subscriptions, text, text, jsonb) is
  'Asks Stripe to change a subscription, unless that was the last wish of its kind and has no '
  'answer yet.';


create function billing_private.withdraw_change(p_subscription billing.subscriptions)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_making_id uuid;
begin
  -- What Stripe has never been told is left out.
  update billing_private.commands
  set status = 'canceled',
      finished_at = billing_private.now()
  where subscription_id = p_subscription.id
    and kind in ('create_schedule', 'update_schedule', 'change_plan')
    and status = 'pending'
    and attempts = 0;

  -- A schedule that is being made will lead nowhere, and is let go when its id is known.
  update billing_private.commands
  set wish = null
  where subscription_id = p_subscription.id
    and kind = 'create_schedule'
    and status in ('pending', 'leased')
    and wish is not null
  returning id into v_making_id;

  if v_making_id is not null then
    perform billing_private.enqueue_command(
      'release_schedule', p_subscription.account_id, '/v1/subscription_schedules/{id}/release',
      '{}', 'POST', v_making_id, p_subscription);
  elsif p_subscription.stripe_schedule_id is not null then
    perform billing_private.ask_once(
      p_subscription, 'release_schedule',
      format('/v1/subscription_schedules/%s/release', p_subscription.stripe_schedule_id));
  end if;
end;
$$;

comment on function billing_private.withdraw_change(billing.subscriptions) is
  'Takes back the changes a Stripe subscription waits for, however far they have come, but for one'
  ' at once that Stripe may have made already. While a schedule is attached, Stripe refuses direct '
  'changes.';


create function billing_private.is_to_end(p_subscription billing.subscriptions)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(
    (billing_private.last_asked(
      p_subscription.id, '{update_subscription,undo_cancel,cancel_subscription}'
    )).kind <> 'undo_cancel',
    p_subscription.cancel_at_period_end
      or coalesce(p_subscription.cancel_at <= p_subscription.current_period_end, false));
end;
$$;

comment on function billing_private.is_to_end(billing.subscriptions) is
  'True when a subscription ends with its period or before, by the last word on it: the user''s, '
  'where Stripe has not answered it yet.';


-- -----------------------------------------------------------------------------
-- 31  billing.cancel_subscription() and undo_cancel()
-- -----------------------------------------------------------------------------

create function billing_private.cancel_subscription(
  p_at_period_end boolean,
  p_reason text,
  p_account_id uuid
)
returns setof billing.subscription_summary
language plpgsql
volatile
security definer -- users ask; only this may write
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions := billing_private.lock_subscription(
    billing_private.resolve_account(p_account_id, 'manage_billing'));
  -- One that was never paid has no period to wait for, and Stripe would refuse.
  v_at_period_end boolean := coalesce(p_at_period_end, true)
    and v_subscription.status <> 'incomplete';
  v_now timestamptz := billing_private.now();
begin
  perform billing_private.require_transition(v_subscription, 'canceled');
  perform billing_private.set_cause('user', billing_private.user_id()::text, p_reason);

  if v_subscription.provider = 'stripe' then
    perform billing_private.cancel_stripe_subscription(v_subscription, v_at_period_end, p_reason);
  elsif v_at_period_end then
    update billing.subscriptions
    set cancel_at_period_end = true,
        canceled_at = coalesce(canceled_at, v_now),
        cancellation_reason = coalesce(p_reason, 'cancellation_requested'),
        pending_price_id = null,
        pending_quantity = null,
        pending_change_at = null,
        updated_at = v_now
    where id = v_subscription.id
      and not cancel_at_period_end;
  else
    update billing.subscriptions
    set status = 'canceled',
        canceled_at = v_now,
        cancellation_reason = coalesce(p_reason, 'cancellation_requested'),
        ended_at = v_now,
        pending_price_id = null,
        pending_quantity = null,
        pending_change_at = null,
        updated_at = v_now
    where id = v_subscription.id;
  end if;

  return query select * from billing_private.summarize_subscription(v_subscription.id);
end;
$$;


create function billing_private.cancel_stripe_subscription(
  p_subscription billing.subscriptions,
  p_at_period_end boolean,
  p_reason text default null
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_path text := format('/v1/subscriptions/%s', p_subscription.stripe_subscription_id);
  v_details jsonb := case
    when p_reason ~ '\S'
      then jsonb_build_object('cancellation_details', jsonb_build_object(
        'comment', left(p_reason, 500)))
    else '{}'
  end;
begin
  if p_at_period_end and billing_private.is_to_end(p_subscription)
    or (billing_private.last_asked(p_subscription.id, '{cancel_subscription}')).id is not null
  then
    return; -- twice changes nothing more
  end if;

  perform billing_private.withdraw_change(p_subscription);
  update billing.subscriptions
  set pause_at = null,
      pause_terms = null
  where id = p_subscription.id
    and pause_at is not null;
  if p_at_period_end then
    perform billing_private.enqueue_command(
      'update_subscription', p_subscription.account_id, v_path,
      '{"cancel_at_period_end": true}' || v_details, 'POST', null, p_subscription);
  else
    perform billing_private.enqueue_command(
      'cancel_subscription', p_subscription.account_id, v_path,
      v_details, 'DELETE', null, p_subscription);
  end if;
end;
$$;

comment on function billing_private.cancel_stripe_subscription(
  billing.subscriptions, boolean, text
) is
  'Asks Stripe to end a subscription, unless it is ending or is being asked that already. The '
  'reason goes along as the customer''s comment.';


create function billing.cancel_subscription(
  at_period_end boolean default true,
  reason text default null,
  account_id uuid default null
)
returns setof billing.subscription_summary
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.cancel_subscription(at_period_end, reason, account_id);
end;

comment on function billing.cancel_subscription(boolean, text, uuid) is
$$Ends the account's subscription, at the end of the paid period or at once. Twice changes nothing
more. One that was never paid (incomplete) ends at once.

For Stripe subscriptions this asks Stripe: pending_command shows it until Stripe has answered.
account_id: null for the caller's own account.

Errors
  UNAUTHENTICATED         401  nobody is signed in
  NOT_A_MEMBER            403  the account is not one of the caller's
  NOT_ALLOWED             403  the caller's role in it lacks manage_billing
  SUBSCRIPTION_NOT_FOUND  404  the account never had a subscription
  CONTRACT_IN_FORCE       409  a contract says how it goes on
  INVALID_TRANSITION      422  it has ended already
  ACCOUNT_CLOSED          422  the account was closed$$;


create function billing_private.undo_cancel(p_account_id uuid)
returns setof billing.subscription_summary
language plpgsql
volatile
security definer -- users ask; only this may write
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions := billing_private.lock_subscription(
    billing_private.resolve_account(p_account_id, 'manage_billing'));
  v_asked text := (billing_private.last_asked(
    v_subscription.id, '{update_subscription,undo_cancel,cancel_subscription}')).kind;
begin
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'undo cancellation');

  if v_asked = 'undo_cancel' then
    null; -- twice changes nothing more
  elsif v_asked = 'update_subscription' or (
    v_asked is null
    and v_subscription.ended_at is null
    and (
      v_subscription.cancel_at_period_end
      -- The date of a manual subscription is the term it was granted for.
      or (v_subscription.cancel_at is not null and v_subscription.provider = 'stripe')
    )
  ) then
    perform billing_private.take_back_cancel(v_subscription);
  else
    perform billing_private.fail('INVALID_TRANSITION', jsonb_build_object(
      'subscription_id', v_subscription.id, 'from', v_subscription.status, 'to', 'active',
      'problem', 'no cancellation is scheduled'));
  end if;

  return query select * from billing_private.summarize_subscription(v_subscription.id);
end;
$$;


create function billing_private.take_back_cancel(p_subscription billing.subscriptions)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if p_subscription.provider = 'stripe' then
    -- Stripe's portal sets cancel_at where the API sets the flag: clear whichever is set.
    perform billing_private.enqueue_command(
      'undo_cancel', p_subscription.account_id,
      format('/v1/subscriptions/%s', p_subscription.stripe_subscription_id),
      case
        when p_subscription.cancel_at is not null and not p_subscription.cancel_at_period_end
          then '{"cancel_at": ""}'::jsonb
        else '{"cancel_at_period_end": false}'
      end,
      'POST', null, p_subscription);
    return;
  end if;

  update billing.subscriptions
  set cancel_at_period_end = false,
      canceled_at = null,
      cancellation_reason = null,
      updated_at = billing_private.now()
  where id = p_subscription.id;
end;
$$;

comment on function billing_private.take_back_cancel(billing.subscriptions) is
  'Takes back a scheduled cancellation: by a command to Stripe, or directly.';


create function billing.undo_cancel(account_id uuid default null)
returns setof billing.subscription_summary
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.undo_cancel(undo_cancel.account_id);
end;

comment on function billing.undo_cancel(uuid) is
$$Takes back a scheduled cancellation, so that the subscription renews.

account_id: null for the caller's own account.

Errors
  UNAUTHENTICATED         401  nobody is signed in
  NOT_A_MEMBER            403  the account is not one of the caller's
  NOT_ALLOWED             403  the caller's role in it lacks manage_billing
  SUBSCRIPTION_NOT_FOUND  404  the account never had a subscription
  CONTRACT_IN_FORCE       409  a contract says how it goes on
  INVALID_TRANSITION      422  no cancellation is scheduled, or it has ended already
  ACCOUNT_CLOSED          422  the account was closed$$;


-- -----------------------------------------------------------------------------
-- 32  billing.change_plan()
-- -----------------------------------------------------------------------------

create type billing_private.terms as (
  price_id uuid,
  quantity bigint
);

comment on type billing_private.terms is
  'What a subscription is for: a price, and its seats (null where it is metered).';


create function billing_private.is_upgrade(
  p_from billing_private.terms,
  p_to billing_private.terms
)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
declare
  v_from record;
  v_to record;
begin
  select
    coalesce(plans.tier_rank, 0) as rank,
    billing_private.interval_of(prices.billing_interval, prices.interval_count) as length,
    billing_private.amount_of(prices, p_from.quantity) as amount
  into v_from
  from billing.prices
  left join billing.plans on plans.id = prices.plan_id
  where prices.id = p_from.price_id;

  select
    coalesce(plans.tier_rank, 0) as rank,
    billing_private.interval_of(prices.billing_interval, prices.interval_count) as length,
    billing_private.amount_of(prices, p_to.quantity) as amount
  into v_to
  from billing.prices
  left join billing.plans on plans.id = prices.plan_id
  where prices.id = p_to.price_id;

  -- Within a tier a longer or dearer period is the upgrade: it starts a new, larger invoice.
  return (v_to.rank, v_to.length, coalesce(v_to.amount, 0), coalesce(p_to.quantity, 0))
    > (coalesce(v_from.rank, 0), coalesce(v_from.length, '0'), coalesce(v_from.amount, 0),
      coalesce(p_from.quantity, 0));
end;
$$;

comment on function billing_private.is_upgrade(billing_private.terms, billing_private.terms) is
  'True when moving from one to the other gives more: a higher tier, then a longer period, then a '
  'higher amount, then more seats.';


create function billing_private.interval_of(
  p_billing_interval text,
  p_interval_count integer
)
returns interval
language plpgsql
immutable
strict
set search_path = ''
as $$
begin
  return case p_billing_interval
    when 'day' then make_interval(days => p_interval_count)
    when 'week' then make_interval(weeks => p_interval_count)
    when 'month' then make_interval(months => p_interval_count)
    when 'year' then make_interval(years => p_interval_count)
  end;
end;
$$;

comment on function billing_private.interval_of(text, integer) is
  'A price''s period as an interval; null for a one-time price.';


create type billing_private.plan_change as (
  price billing.prices,
  quantity bigint,
  new_quantity bigint,
  at_period_end boolean,
  is_back boolean,
  is_asked boolean,
  proration_date timestamptz
);

comment on type billing_private.plan_change is
  'A change of plan somebody wants. new_quantity: the seats where they were named, else null; '
  'is_back: it leads back to what runs; is_asked: it is under way already.';


create function billing_private.change_plan(
  p_price_key text,
  p_at_period_end boolean,
  p_account_id uuid,
  p_quantity bigint,
  p_proration_date timestamptz
)
returns setof billing.subscription_summary
language plpgsql
volatile
security definer -- users ask; only this may write
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions := billing_private.lock_subscription(
    billing_private.resolve_account(p_account_id, 'manage_billing'));
  v_change billing_private.plan_change := billing_private.judge_change(
    v_subscription, p_price_key, p_quantity, p_at_period_end);
begin
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'change plan');
  perform billing_private.require_recent(p_proration_date, v_subscription);
  v_change.proration_date := date_trunc('second', p_proration_date);

  if v_change.is_asked then
    null; -- twice changes nothing more
  elsif v_subscription.provider = 'stripe' then
    perform billing_private.change_stripe_plan(v_subscription, v_change);
  else
    perform billing_private.change_manual_plan(v_subscription, v_change);
  end if;
  return query select * from billing_private.summarize_subscription(v_subscription.id);
end;
$$;


create function billing_private.judge_change(
  p_subscription billing.subscriptions,
  p_price_key text,
  p_quantity bigint,
  p_at_period_end boolean
)
returns billing_private.plan_change
language plpgsql
stable
set search_path = ''
as $$
declare
  v_running billing_private.terms := billing_private.running_terms(p_subscription);
  v_asked billing_private.terms := billing_private.asked_terms(p_subscription);
  v_waiting billing_private.terms := billing_private.waiting_terms(p_subscription);
  v_wanted billing_private.terms;
  v_is_upgrade boolean;
  v_change billing_private.plan_change;
begin
  v_change.price := billing_private.wanted_price(v_running, p_price_key, p_quantity);
  v_change.new_quantity := coalesce(
    billing_private.counted_seats(p_subscription.account_id, v_change.price, p_quantity),
    billing_private.valid_quantity(v_change.price, p_quantity));
  v_change.quantity := billing_private.seats_at(
    v_change.price, coalesce(v_change.new_quantity, v_running.quantity));
  v_wanted := row((v_change.price).id, v_change.quantity);
  v_is_upgrade := billing_private.is_upgrade(v_running, v_wanted);
  v_change.is_back := v_wanted is not distinct from v_running;
  v_change.at_period_end := not v_change.is_back and coalesce(p_at_period_end, not v_is_upgrade);

  perform billing_private.require_changeable(
    p_subscription, v_change.price, v_change.at_period_end);
  v_change.is_asked := case
    when v_change.at_period_end then v_wanted is not distinct from v_waiting
    else v_wanted is not distinct from v_asked and v_waiting is null
  end;

  if v_change.is_back and not v_change.is_asked and v_waiting is null and v_asked is null then
    perform billing_private.fail('ALREADY_ON_THIS_PRICE', jsonb_build_object(
      'price_key', (v_change.price).key, 'quantity', v_change.quantity));
  elsif p_subscription.provider = 'manual' and v_is_upgrade and not billing_private.is_admin() then
    -- Nobody would pay for it.
    perform billing_private.fail('NOT_AN_ADMIN', jsonb_build_object(
      'problem', 'a subscription without Stripe is upgraded by whoever grants it'));
  end if;
  return v_change;
end;
$$;

comment on function billing_private.judge_change(billing.subscriptions, text, bigint, boolean) is
  'What a wished change of plan comes to: now or at period end, back, under way already; or the '
  'refusal of one that cannot be.';


create function billing_private.wanted_price(
  p_running billing_private.terms,
  p_price_key text,
  p_quantity bigint
)
returns billing.prices
language plpgsql
stable
set search_path = ''
as $$
declare
  v_price billing.prices;
begin
  -- Who only wants other seats keeps a price that is no longer on offer.
  if p_price_key is null and p_quantity is not null and p_running.price_id is not null then
    select * into strict v_price from billing.prices where id = p_running.price_id;
    return v_price;
  end if;
  return billing_private.offered_price(p_price_key);
end;
$$;

comment on function billing_private.wanted_price(billing_private.terms, text, bigint) is
  'The price a change leads to: the one named, else the running one where seats are named '
  '(PRICE_NOT_FOUND, 404).';


create function billing_private.valid_quantity(
  p_price billing.prices,
  p_quantity bigint
)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_quantity not between 1 and 999999 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'quantity', 'problem', 'must be from 1 to 999999'));
  elsif p_quantity is not null and p_price.usage_type = 'metered' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'quantity', 'problem', 'a metered price has no seats'));
  end if;
  return p_quantity;
end;
$$;

comment on function billing_private.valid_quantity(billing.prices, bigint) is
  'The seats somebody names for a price, or null (VALIDATION_FAILED, 400, for a number that cannot '
  'be).';


create function billing_private.counted_seats(
  p_account_id uuid,
  p_price billing.prices,
  p_quantity bigint
)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_seats bigint := billing_private.seats_wanted(p_account_id, p_price);
begin
  if p_quantity <> v_seats then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'quantity', 'problem', 'the seats of this plan follow the members',
      'seats', v_seats));
  end if;
  return v_seats;
end;
$$;

comment on function billing_private.counted_seats(uuid, billing.prices, bigint) is
  'The seats at a price whose plan counts the organization''s members, else null '
  '(VALIDATION_FAILED, 400, for somebody who names another number).';


create function billing_private.require_recent(
  p_proration_date timestamptz,
  p_subscription billing.subscriptions
)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  -- Whoever could choose it freely would choose the end of the period, and pay nothing.
  if p_proration_date not between v_now - interval '1 hour' and v_now + interval '1 minute'
    or p_proration_date < p_subscription.current_period_start
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'proration_date',
      'problem', 'must come from a preview of the last hour, in this period'));
  end if;
end;
$$;

comment on function billing_private.require_recent(timestamptz, billing.subscriptions) is
  'Refuses a proration date that no preview of the last hour has shown (VALIDATION_FAILED, 400).';


create function billing_private.require_changeable(
  p_subscription billing.subscriptions,
  p_price billing.prices,
  p_at_period_end boolean
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_subscription.status in ('past_due', 'unpaid', 'incomplete') then
    perform billing_private.fail('PAYMENT_REQUIRED', jsonb_build_object(
      'subscription_id', p_subscription.id, 'status', p_subscription.status));
  elsif p_subscription.status not in ('active', 'trialing') then
    perform billing_private.fail('INVALID_TRANSITION', jsonb_build_object(
      'subscription_id', p_subscription.id, 'from', p_subscription.status, 'to', 'active'));
  elsif p_price.currency is distinct from coalesce(p_subscription.currency, p_price.currency) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'price_key', 'problem', 'a subscription keeps its currency',
      'currency', p_subscription.currency));
  elsif p_at_period_end and billing_private.is_to_end(p_subscription) then
    perform billing_private.fail('INVALID_TRANSITION', jsonb_build_object(
      'subscription_id', p_subscription.id, 'from', p_subscription.status, 'to', 'active',
      'problem', 'it ends with the period: undo the cancellation first'));
  end if;
end;
$$;

comment on function billing_private.require_changeable(
  billing.subscriptions, billing.prices, boolean
) is
  'Refuses a change of plan where an invoice is unpaid (PAYMENT_REQUIRED, 402), into another '
  'currency (VALIDATION_FAILED, 400), and of what is paused, ending or over (INVALID_TRANSITION, '
  '422).';


create function billing_private.terms_of(
  p_wish jsonb,
  p_subscription billing.subscriptions
)
returns billing_private.terms
language plpgsql
stable
set search_path = ''
as $$
declare
  v_terms billing_private.terms;
begin
  if p_wish is null then
    return null;
  end if;
  select id, billing_private.seats_at(
    prices, coalesce((p_wish ->> 'quantity')::bigint, p_subscription.quantity))
  into strict v_terms
  from billing.prices
  where id = (p_wish ->> 'price_id')::uuid;
  return v_terms;
end;
$$;

comment on function billing_private.terms_of(jsonb, billing.subscriptions) is
  'What a wish about a subscription leads to; null for none.';


create function billing_private.running_terms(p_subscription billing.subscriptions)
returns billing_private.terms
language plpgsql
stable
set search_path = ''
as $$
declare
  v_sent_wish jsonb := (
    select wish
    from billing_private.commands
    where subscription_id = p_subscription.id
      and kind = 'change_plan'
      and (status = 'leased' or status = 'pending' and attempts > 0)
    order by position desc
    limit 1
  );
begin
  if v_sent_wish is null then
    return row(p_subscription.price_id, p_subscription.quantity);
  end if;
  return billing_private.terms_of(v_sent_wish, p_subscription);
end;
$$;

comment on function billing_private.running_terms(billing.subscriptions) is
  'What a subscription is for, counting a change that Stripe may have made already and has not '
  'answered; what it was not told can be left out.';


create function billing_private.asked_terms(p_subscription billing.subscriptions)
returns billing_private.terms
language plpgsql
stable
set search_path = ''
as $$
begin
  return billing_private.terms_of(
    (billing_private.last_asked(p_subscription.id, '{change_plan}')).wish, p_subscription);
end;
$$;

comment on function billing_private.asked_terms(billing.subscriptions) is
  'The change at once that Stripe is being asked for; null when it is not.';


create function billing_private.waiting_terms(p_subscription billing.subscriptions)
returns billing_private.terms
language plpgsql
stable
set search_path = ''
as $$
declare
  v_asked billing_private.commands := billing_private.last_asked(
    p_subscription.id, '{create_schedule,update_schedule,release_schedule}');
begin
  return billing_private.terms_of(
    case
      when v_asked.id is not null then v_asked.wish
      when p_subscription.pending_price_id is not null then jsonb_build_object(
        'price_id', p_subscription.pending_price_id, 'quantity', p_subscription.pending_quantity)
    end,
    p_subscription);
end;
$$;

comment on function billing_private.waiting_terms(billing.subscriptions) is
  'What takes over at period end by the last word on it: the user''s, where Stripe has not '
  'answered it yet; null when nothing does.';


create function billing_private.enqueue_wish(
  p_wish jsonb,
  p_kind text,
  p_subscription billing.subscriptions,
  p_path text,
  p_params jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id uuid := billing_private.enqueue_command(
    p_kind, p_subscription.account_id, p_path, p_params, 'POST', null, p_subscription);
begin
  update billing_private.commands set wish = p_wish where id = v_id;
end;
$$;

comment on function billing_private.enqueue_wish(
  jsonb, text, billing.subscriptions, text, jsonb
) is
  'Asks Stripe for a step towards a change of plan, and notes where it leads.';


create function billing_private.change_stripe_plan(
  p_subscription billing.subscriptions,
  p_change billing_private.plan_change
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_wish jsonb := jsonb_build_object(
    'price_id', (p_change.price).id, 'quantity', p_change.new_quantity);
begin
  perform billing_private.require_stripe_price(p_change.price);

  if p_change.at_period_end then
    -- The price comes with the phases: a schedule that is still being made can lead elsewhere.
    update billing_private.commands
    set wish = v_wish
    where subscription_id = p_subscription.id
      and kind = 'create_schedule'
      and status in ('pending', 'leased')
      and wish is not null;
    if found then
      return;
    end if;
  end if;

  -- A change that waits is superseded.
  perform billing_private.withdraw_change(p_subscription);

  if p_change.is_back then
    null; -- back to what runs: that was all
  elsif p_change.at_period_end then
    perform billing_private.enqueue_wish(
      v_wish, 'create_schedule', p_subscription, '/v1/subscription_schedules',
      jsonb_build_object('from_subscription', p_subscription.stripe_subscription_id));
  else
    perform billing_private.enqueue_wish(
      v_wish, 'change_plan', p_subscription,
      format('/v1/subscriptions/%s', p_subscription.stripe_subscription_id),
      billing_private.change_params(p_subscription, p_change));
  end if;
end;
$$;

comment on function billing_private.change_stripe_plan(
  billing.subscriptions, billing_private.plan_change
) is
  'Asks Stripe to change a price or its seats: now with proration, or at period end through a '
  'subscription schedule.';


create function billing_private.changed_items(
  p_subscription billing.subscriptions,
  p_change billing_private.plan_change
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  -- By item id, or Stripe adds a second item; with the quantity, or Stripe resets it to one.
  return jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
    'id', (billing_private.base_item(p_subscription.id)).stripe_subscription_item_id,
    'price', (p_change.price).stripe_price_id,
    'quantity', p_change.quantity)));
end;
$$;

comment on function billing_private.changed_items(
  billing.subscriptions, billing_private.plan_change
) is
  'The items parameter of a change: the base item with its new price and seats, and no other.';


create function billing_private.change_params(
  p_subscription billing.subscriptions,
  p_change billing_private.plan_change
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return jsonb_strip_nulls(jsonb_build_object(
    'items', billing_private.changed_items(p_subscription, p_change),
    'proration_behavior', 'always_invoice',
    'proration_date', extract(epoch from p_change.proration_date)::bigint,
    -- Applied only if its invoice is paid; where invoices are sent, Stripe cannot wait.
    'payment_behavior', case
      when p_subscription.collection_method is distinct from 'send_invoice'
        then 'pending_if_incomplete'
    end));
end;
$$;

comment on function billing_private.change_params(
  billing.subscriptions, billing_private.plan_change
) is
  'How Stripe is asked for a change at once: with proration, invoiced now.';


create function billing_private.seats_at(
  p_price billing.prices,
  p_quantity bigint
)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case when p_price.usage_type <> 'metered' then coalesce(p_quantity, 1) end;
end;
$$;

comment on function billing_private.seats_at(billing.prices, bigint) is
  'The quantity Stripe takes at a price: the seats there are, at least one; none where it is '
  'metered.';


create function billing_private.enqueue_schedule_phases(
  p_command billing_private.commands,
  p_schedule jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_phase jsonb := p_schedule #> '{phases,0}';
  v_from_stripe_price_id text := case jsonb_array_length(v_phase -> 'items')
    when 1 then billing_private.stripe_id(v_phase #> '{items,0,price}')
    else (billing_private.base_item(p_command.subscription_id)).stripe_price_id
  end;
  v_wish jsonb := p_command.wish;
  v_subscription billing.subscriptions;
  v_price billing.prices;
begin
  update billing.subscriptions
  set stripe_schedule_id = p_schedule ->> 'id'
  where id = p_command.subscription_id
  returning * into strict v_subscription;

  if v_wish is null then
    -- Withdrawn while it was being made.
    update billing_private.commands
    set path = replace(path, '{id}', p_schedule ->> 'id')
    where kind = 'release_schedule'
      and subject_id = p_command.id;
    return;
  end if;

  select * into strict v_price from billing.prices where id = (v_wish ->> 'price_id')::uuid;

  perform billing_private.enqueue_wish(
    v_wish, 'update_schedule', v_subscription,
    format('/v1/subscription_schedules/%s', p_schedule ->> 'id'),
    jsonb_build_object(
      'end_behavior', 'release',
      'phases', jsonb_build_array(
        -- The running phase as it is: what is left out of it would be taken away.
        billing_private.kept_terms(v_phase) || jsonb_strip_nulls(jsonb_build_object(
          'start_date', v_phase -> 'start_date',
          'end_date', v_phase -> 'end_date',
          'trial_end', v_phase -> 'trial_end',
          'items', billing_private.phase_items(v_phase, null, v_price, null))),
        billing_private.kept_terms(v_phase) || jsonb_build_object(
          'items', billing_private.phase_items(
            v_phase, v_from_stripe_price_id, v_price, (v_wish ->> 'quantity')::bigint),
          'proration_behavior', 'none',
          'duration', jsonb_build_object(
            'interval', v_price.billing_interval, 'interval_count', v_price.interval_count)))));
end;
$$;

comment on function billing_private.enqueue_schedule_phases(billing_private.commands, jsonb) is
  'Second half of a change at period end: the schedule Stripe made of the subscription gets the '
  'new price as its next phase.';


create function billing_private.phase_items(
  p_phase jsonb,
  p_from_stripe_price_id text,
  p_to billing.prices,
  p_quantity bigint
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select jsonb_agg(billing_private.kept_terms(item) || jsonb_strip_nulls(case
      when billing_private.stripe_id(item -> 'price') = p_from_stripe_price_id
        then jsonb_build_object(
          'price', p_to.stripe_price_id,
          'quantity', billing_private.seats_at(
            p_to, coalesce(p_quantity, billing_private.stripe_integer(item -> 'quantity'))))
      else jsonb_build_object(
        'price', billing_private.stripe_id(item -> 'price'),
        'quantity', item -> 'quantity')
    end))
    from jsonb_path_query(p_phase, '$.items[*]') as item
  );
end;
$$;

comment on function billing_private.phase_items(jsonb, text, billing.prices, bigint) is
  'The items of a schedule''s phase as parameters, with one price replaced (p_quantity: null for as'
  ' many seats as there are); add-ons stay as they are.';


create function billing_private.kept_terms(p_part jsonb)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return jsonb_strip_nulls(jsonb_build_object(
    'discounts', (
      select jsonb_agg(case
        when billing_private.stripe_id(discount -> 'discount') is not null
          then jsonb_build_object('discount', billing_private.stripe_id(discount -> 'discount'))
        else jsonb_build_object('coupon', billing_private.stripe_id(discount -> 'coupon'))
      end)
      from jsonb_path_query(p_part, '$.discounts[*] ? (@ != null)') as discount
    ),
    'tax_rates', (
      select jsonb_agg(billing_private.stripe_id(rate))
      from jsonb_path_query(p_part, '$.tax_rates[*] ? (@ != null)') as rate
    ),
    'default_tax_rates', (
      select jsonb_agg(billing_private.stripe_id(rate))
      from jsonb_path_query(p_part, '$.default_tax_rates[*] ? (@ != null)') as rate
    )));
end;
$$;

comment on function billing_private.kept_terms(jsonb) is
  'Discounts and tax rates of a schedule''s phase, or of one of its items, as parameters.';


create function billing_private.change_manual_plan(
  p_subscription billing.subscriptions,
  p_change billing_private.plan_change
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_waits boolean := p_change.at_period_end and not p_change.is_back;
begin
  if p_change.at_period_end or p_change.is_back then
    update billing.subscriptions
    set pending_price_id = case when v_waits then (p_change.price).id end,
        pending_quantity = case when v_waits then p_change.new_quantity end,
        pending_change_at = case when v_waits then current_period_end end,
        updated_at = billing_private.now()
    where id = p_subscription.id;
    return;
  end if;

  perform billing_private.set_manual_terms(
    p_subscription.id, (p_change.price).id, p_change.new_quantity,
    coalesce(p_change.proration_date, billing_private.now()));
end;
$$;

comment on function billing_private.change_manual_plan(
  billing.subscriptions, billing_private.plan_change
) is
  'Changes a manual subscription''s price or seats: now, at period end, or back to what runs.';


create function billing.change_plan(
  price_key text,
  at_period_end boolean default null,
  account_id uuid default null,
  quantity bigint default null,
  proration_date timestamptz default null
)
returns setof billing.subscription_summary
language sql
volatile
set search_path = ''
begin atomic
  select *
  from billing_private.change_plan(
    price_key, at_period_end, account_id, quantity, proration_date);
end;

comment on function billing.change_plan(text, boolean, uuid, bigint, timestamptz) is
$$Moves the account's subscription to another price, or to more or fewer seats. Naming what runs
takes back a change that waits. The last wish counts; what Stripe was not told yet is left out.

price_key: null for the running price, with a quantity. at_period_end: null decides by the catalog:
more at once (with proration), less at period end. quantity: null for as many seats as there are.
proration_date: as the preview said, to pay just what it showed.
For Stripe subscriptions this asks Stripe: pending_command shows it until Stripe has answered.
account_id: null for the caller's own account.

Errors
  VALIDATION_FAILED       400  another currency, or a quantity or date that cannot be
  UNAUTHENTICATED         401  nobody is signed in
  PAYMENT_REQUIRED        402  an invoice is unpaid
  NOT_A_MEMBER            403  the account is not one of the caller's
  NOT_ALLOWED             403  the caller's role in it lacks manage_billing
  NOT_AN_ADMIN            403  an upgrade of a subscription that lives without Stripe
  PRICE_NOT_FOUND         404  the price is not on offer
  SUBSCRIPTION_NOT_FOUND  404  the account never had a subscription
  CONTRACT_IN_FORCE       409  a contract says how it goes on
  ALREADY_ON_THIS_PRICE   422  nothing would change
  INVALID_TRANSITION      422  it is paused, ending or over
  ACCOUNT_CLOSED          422  the account was closed$$;


-- -----------------------------------------------------------------------------
-- 33  billing.preview_change()
-- -----------------------------------------------------------------------------

create type billing.preview_line as (
  description text,
  amount_minor bigint,
  quantity bigint,
  period_start timestamptz,
  period_end timestamptz,
  is_proration boolean
);

comment on type billing.preview_line is
  'A line of the invoice a change would lead to; less than nothing is given back.';


create type billing.change_preview as (
  subject_id uuid,
  provider text,
  price_key text,
  quantity bigint,
  at_period_end boolean,
  effective_at timestamptz,
  proration_date timestamptz,
  currency text,
  lines billing.preview_line[],
  total_minor bigint,
  due_now_minor bigint,
  credit_minor bigint
);

comment on type billing.change_preview is
  'What a change of plan comes to. at_period_end: nothing is due now, and the lines are what a '
  'period costs from then on. credit_minor: what is kept for coming invoices, never paid out. '
  'subject_id: of the request to Stripe that is to say the amounts, which are null until then.';


create function billing_private.preview_params(
  p_subscription billing.subscriptions,
  p_change billing_private.plan_change
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_details jsonb := jsonb_build_object(
    'items', billing_private.changed_items(p_subscription, p_change));
begin
  return jsonb_build_object('subscription', p_subscription.stripe_subscription_id) || case
    when p_change.at_period_end then jsonb_build_object(
      'preview_mode', 'recurring',
      'subscription_details', v_details || '{"proration_behavior": "none"}')
    else jsonb_build_object(
      'subscription_details', v_details || jsonb_build_object(
        'proration_behavior', 'always_invoice',
        'proration_date', extract(epoch from p_change.proration_date)::bigint))
  end;
end;
$$;

comment on function billing_private.preview_params(
  billing.subscriptions, billing_private.plan_change
) is
  'How Stripe is asked what a change would cost: the very change that change_params() asks for.';


create function billing_private.preview_manual_change(
  p_subscription billing.subscriptions,
  p_change billing_private.plan_change,
  p_preview billing.change_preview
)
returns billing.change_preview
language plpgsql
stable
set search_path = ''
as $$
declare
  v_discount bigint;
begin
  -- What is given away costs nothing, and what waits is invoiced when its period begins.
  p_preview.lines := case
    when p_change.is_back then '{}'
    when not p_change.at_period_end then array(
      select row(line.*)::billing.preview_line
      from billing_private.lines_of_change(
        p_subscription, (p_change.price).id, p_change.quantity, p_change.proration_date) as line)
    when p_subscription.manual_kind = 'invoiced' then array[row(
      (select name from billing.plans where id = (p_change.price).plan_id),
      billing_private.contract_amount(
        billing_private.contract_at(p_subscription.account_id, p_preview.effective_at),
        p_change.price, p_change.quantity),
      p_change.quantity, p_preview.effective_at,
      p_preview.effective_at + billing_private.interval_of(
        (p_change.price).billing_interval, (p_change.price).interval_count),
      false)::billing.preview_line]
    else '{}'
  end;
  v_discount := billing_private.foreseen_discount(p_subscription.id, p_preview.lines);
  if v_discount <> 0 then
    p_preview.lines := p_preview.lines
      || row('Discount', -v_discount, null, null, null, false)::billing.preview_line;
  end if;
  p_preview.total_minor := coalesce(
    (select sum(amount_minor) from unnest(p_preview.lines)), 0);
  p_preview.due_now_minor := case
    when p_change.at_period_end then 0
    else greatest(p_preview.total_minor, 0)
  end;
  p_preview.credit_minor := case
    when p_change.at_period_end then 0
    else greatest(-p_preview.total_minor, 0)
  end;
  return p_preview;
end;
$$;

comment on function billing_private.preview_manual_change(
  billing.subscriptions, billing_private.plan_change, billing.change_preview
) is
  'The amounts of a change that Stripe has no part in.';


create function billing_private.preview_change(
  p_price_key text,
  p_at_period_end boolean,
  p_account_id uuid,
  p_quantity bigint
)
returns billing.change_preview
language plpgsql
volatile
security definer -- writes a command for the user
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions := billing_private.lock_subscription(
    billing_private.resolve_account(p_account_id, 'manage_billing'));
  v_change billing_private.plan_change := billing_private.judge_change(
    v_subscription, p_price_key, p_quantity, p_at_period_end);
  v_preview billing.change_preview;
begin
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'preview');
  v_change.proration_date := date_trunc('second', greatest(
    billing_private.now(), v_subscription.current_period_start));
  v_preview.provider := v_subscription.provider;
  v_preview.price_key := (v_change.price).key;
  v_preview.quantity := v_change.quantity;
  v_preview.at_period_end := v_change.at_period_end;
  v_preview.effective_at := case
    when v_change.at_period_end then v_subscription.current_period_end
    else v_change.proration_date
  end;
  v_preview.proration_date := case
    when not v_change.at_period_end then v_change.proration_date
  end;
  v_preview.currency := coalesce(v_subscription.currency, (v_change.price).currency);

  if v_subscription.provider = 'manual' or v_change.is_back then
    return billing_private.preview_manual_change(v_subscription, v_change, v_preview);
  end if;

  perform billing_private.require_stripe_price(v_change.price);
  v_preview.subject_id := (billing_private.enqueue_request(
    'preview_change', v_subscription.account_id, '/v1/invoices/create_preview',
    billing_private.preview_params(v_subscription, v_change))).subject_id;
  return v_preview;
end;
$$;


create function billing.preview_change(
  price_key text,
  at_period_end boolean default null,
  account_id uuid default null,
  quantity bigint default null
)
returns billing.change_preview
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.preview_change(price_key, at_period_end, account_id, quantity);
end;

comment on function billing.preview_change(text, boolean, uuid, bigint) is
$$What billing.change_plan() with the same arguments would cost. Changes nothing.

The amounts of Stripe's subscriptions are Stripe's own: they come through the checkout function's
route preview-change, and this only prepares the question. Given to change_plan() within an hour,
proration_date makes the invoice just what was shown.
account_id: null for the caller's own account. Amounts in the smallest unit.

Errors
  VALIDATION_FAILED       400  another currency, or a quantity that cannot be
  UNAUTHENTICATED         401  nobody is signed in
  PAYMENT_REQUIRED        402  an invoice is unpaid
  NOT_A_MEMBER            403  the account is not one of the caller's
  NOT_ALLOWED             403  the caller's role in it lacks manage_billing
  NOT_AN_ADMIN            403  an upgrade of a subscription that lives without Stripe
  PRICE_NOT_FOUND         404  the price is not on offer
  SUBSCRIPTION_NOT_FOUND  404  the account never had a subscription
  ALREADY_ON_THIS_PRICE   422  nothing would change
  INVALID_TRANSITION      422  it is paused, ending or over
  ACCOUNT_CLOSED          422  the account was closed$$;


-- -----------------------------------------------------------------------------
-- 34  billing.pause_subscription() and resume_subscription()
-- -----------------------------------------------------------------------------

create function billing_private.pause_terms(
  p_behavior text,
  p_resumes_at timestamptz
)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return jsonb_strip_nulls(jsonb_build_object(
    'behavior', p_behavior, 'resumes_at', extract(epoch from p_resumes_at)::bigint));
end;
$$;

comment on function billing_private.pause_terms(text, timestamptz) is
  'pause_collection as Stripe takes it.';


create function billing_private.pause_in_force(p_subscription billing.subscriptions)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_asked billing_private.commands := billing_private.last_asked(
    p_subscription.id, '{pause_collection,resume_collection}');
begin
  return case
    when v_asked.kind = 'pause_collection' then v_asked.params -> 'pause_collection'
    when v_asked.kind is null then jsonb_strip_nulls(p_subscription.pause_collection)
  end;
end;
$$;

comment on function billing_private.pause_in_force(billing.subscriptions) is
  'How collection is paused by the last word on it: the user''s, where Stripe has not answered it '
  'yet; null while it is not.';


create function billing_private.require_pausable(
  p_subscription billing.subscriptions,
  p_behavior text,
  p_resumes_at timestamptz,
  p_at_period_end boolean
)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_begins_at timestamptz := case
    when p_at_period_end then p_subscription.current_period_end
    else billing_private.now()
  end;
begin
  if p_behavior is null or p_behavior not in ('void', 'keep_as_draft', 'mark_uncollectible') then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'behavior', 'problem', 'must be void, keep_as_draft or mark_uncollectible'));
  elsif p_behavior <> 'void' and not billing_private.is_admin() then
    -- Service goes on and the invoices wait or are written off: that is not the customer's to give.
    perform billing_private.fail('NOT_AN_ADMIN', jsonb_build_object('behavior', p_behavior));
  end if;

  perform billing_private.require_transition(p_subscription, 'paused');
  if p_subscription.status in ('past_due', 'unpaid') then
    perform billing_private.fail('PAYMENT_REQUIRED', jsonb_build_object(
      'subscription_id', p_subscription.id, 'status', p_subscription.status));
  elsif p_at_period_end and billing_private.is_to_end(p_subscription) then
    perform billing_private.fail('INVALID_TRANSITION', jsonb_build_object(
      'subscription_id', p_subscription.id, 'from', p_subscription.status, 'to', 'paused',
      'problem', 'it ends with the period: undo the cancellation first'));
  elsif p_resumes_at <= v_begins_at then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'resumes_at', 'problem', 'must be after the pause begins'));
  end if;
end;
$$;

comment on function billing_private.require_pausable(
  billing.subscriptions, text, timestamptz, boolean
) is
  'Refuses a pause of what is over, ending or unpaid, one that ends before it begins, and from '
  'anybody but an admin one that gives service without payment.';


create function billing_private.pause_subscription(
  p_behavior text,
  p_resumes_at timestamptz,
  p_at_period_end boolean,
  p_account_id uuid
)
returns setof billing.subscription_summary
language plpgsql
volatile
security definer -- users ask; only this may write
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions := billing_private.lock_subscription(
    billing_private.resolve_account(p_account_id, 'manage_billing'));
  v_terms jsonb := billing_private.pause_terms(p_behavior, p_resumes_at);
  v_at_period_end boolean := coalesce(p_at_period_end, true);
begin
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'pause');
  perform billing_private.require_pausable(
    v_subscription, p_behavior, p_resumes_at, v_at_period_end);

  if v_at_period_end and v_subscription.status <> 'paused' then
    update billing.subscriptions
    set pause_at = current_period_end,
        pause_terms = v_terms,
        updated_at = billing_private.now()
    where id = v_subscription.id
      and (pause_at, pause_terms) is distinct from (current_period_end, v_terms)
      and billing_private.pause_in_force(v_subscription) is distinct from v_terms;
  elsif v_subscription.provider = 'manual' then
    perform billing_private.pause_manual_subscription(
      v_subscription, v_terms, billing_private.now());
  else
    perform billing_private.set_stripe_pause(v_subscription, v_terms);
  end if;
  return query select * from billing_private.summarize_subscription(v_subscription.id);
end;
$$;


create function billing_private.set_stripe_pause(
  p_subscription billing.subscriptions,
  p_terms jsonb,
  p_begins_at timestamptz default null
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id uuid;
begin
  update billing.subscriptions
  set pause_at = null,
      pause_terms = null
  where id = p_subscription.id
    and pause_at is not null;
  if billing_private.pause_in_force(p_subscription) is not distinct from p_terms then
    return; -- twice changes nothing more
  end if;

  -- What Stripe has never been told is left out.
  update billing_private.commands
  set status = 'canceled',
      finished_at = billing_private.now()
  where subscription_id = p_subscription.id
    and kind in ('pause_collection', 'resume_collection')
    and status = 'pending'
    and attempts = 0;
  if billing_private.pause_in_force(p_subscription) is not distinct from p_terms then
    return;
  end if;

  v_id := billing_private.enqueue_command(
    case when p_terms is not null then 'pause_collection' else 'resume_collection' end,
    p_subscription.account_id,
    format('/v1/subscriptions/%s', p_subscription.stripe_subscription_id),
    -- An empty text takes it away; null would be left out on the way.
    jsonb_build_object('pause_collection', coalesce(p_terms, '""')),
    'POST', null, p_subscription);
  if p_begins_at is not null then
    update billing_private.commands
    set wish = jsonb_build_object('begins_at', p_begins_at)
    where id = v_id;
  end if;
end;
$$;

comment on function billing_private.set_stripe_pause(
  billing.subscriptions, jsonb, timestamptz
) is
  'Asks Stripe to pause the collection of a subscription, or with null to take it up again, unless '
  'that is so or is being asked already. begins_at: of a pause that should have begun then, if '
  'Stripe hears of it late.';


-- "Invoices created before subscriptions are paused continue to be retried unless you void them":
-- https://docs.stripe.com/billing/subscriptions/pause-payment
create function billing_private.withdraw_invoices(p_subscription_id uuid default null)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice record;
  v_kind text;
  v_count bigint := 0;
begin
  for v_invoice in
    select distinct
      invoices.id, invoices.account_id, invoices.stripe_invoice_id, invoices.status,
      subscriptions.pause_collection ->> 'behavior' as behavior
    from billing_private.commands
    join billing.subscriptions on subscriptions.id = commands.subscription_id
    join billing.invoices
      on invoices.stripe_subscription_id = subscriptions.stripe_subscription_id
    left join billing_private.stripe_events as answer
      on answer.event_id = 'command:' || commands.id
    where commands.kind = 'pause_collection'
      and commands.status = 'succeeded'
      and commands.wish is not null
      and commands.finished_at > billing_private.now() - interval '3 days'
      and (p_subscription_id is null or commands.subscription_id = p_subscription_id)
      and subscriptions.pause_collection is not null
      and invoices.billing_reason = 'subscription_cycle'
      and invoices.status in ('draft', 'open')
      and invoices.issued_at >= (commands.wish ->> 'begins_at')::timestamptz
      -- By whichever clock is ahead. One that was made under the pause is void already.
      and invoices.issued_at <= greatest(commands.finished_at, answer.occurred_at)
    order by invoices.id
  loop
    v_kind := case
      when v_invoice.behavior = 'keep_as_draft' then 'hold_invoice'
      -- A draft of a subscription can neither be deleted nor voided.
      when v_invoice.status = 'draft' then 'finalize_invoice'
      when v_invoice.behavior = 'void' then 'void_invoice'
      else 'mark_uncollectible'
    end;
    -- Whoever comes second finds what the first has asked.
    perform from billing.invoices where id = v_invoice.id for update;
    if not exists (
      select
      from billing_private.commands
      where subject_id = v_invoice.id
        and kind = v_kind
        and status <> 'canceled'
    ) then
      perform billing_private.enqueue_command(
        v_kind, v_invoice.account_id,
        format('/v1/invoices/%s%s', v_invoice.stripe_invoice_id, case v_kind
          when 'finalize_invoice' then '/finalize'
          when 'void_invoice' then '/void'
          when 'mark_uncollectible' then '/mark_uncollectible'
        end),
        case when v_kind in ('finalize_invoice', 'hold_invoice')
          then '{"auto_advance": false}'::jsonb else '{}' end,
        'POST', v_invoice.id, null, v_invoice.stripe_invoice_id);
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.withdraw_invoices(uuid) is
  'Takes back, step by step, the invoice that Stripe made for a period under a pause it heard of '
  'too late, as the pause would have treated it. Returns how many calls that takes now; null for '
  'all subscriptions. What was paid by then stands among the critical issues.';


create function billing_private.begin_scheduled_pauses(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_due billing.subscriptions;
  v_count bigint := 0;
begin
  for v_due in
    select *
    from billing.subscriptions
    where pause_at <= billing_private.now() + interval '10 minutes'
      -- Where nobody but us makes the next invoice, the second is kept.
      and (provider = 'stripe' or pause_at <= billing_private.now())
    limit p_limit
    for update skip locked
  loop
    if v_due.ended_at is null and v_due.provider = 'manual' then
      perform billing_private.pause_manual_subscription(v_due, v_due.pause_terms, v_due.pause_at);
    elsif v_due.ended_at is null then
      perform billing_private.set_stripe_pause(v_due, v_due.pause_terms, v_due.pause_at);
    else
      update billing.subscriptions
      set pause_at = null,
          pause_terms = null
      where id = v_due.id;
    end if;
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.begin_scheduled_pauses(integer) is
  'Asks Stripe for the pauses that are to begin at a period''s end, ten minutes before it: the '
  'invoice Stripe makes then is to fall under the pause. Where Stripe hears of it later, '
  'withdraw_invoices() takes that invoice back. Those of manual subscriptions begin then. Returns '
  'how many.';


create function billing.pause_subscription(
  behavior text default 'void',
  resumes_at timestamptz default null,
  at_period_end boolean default true,
  account_id uuid default null
)
returns setof billing.subscription_summary
language sql
volatile
set search_path = ''
begin atomic
  select *
  from billing_private.pause_subscription(behavior, resumes_at, at_period_end, account_id);
end;

comment on function billing.pause_subscription(text, timestamptz, boolean, uuid) is
$$Pauses the account's subscription: from the end of the paid period, or at once. Twice changes
nothing more; other terms replace the ones before.

behavior: what becomes of invoices meanwhile. void: nothing is owed, and the plan's policy says
what may be used; keep_as_draft (collected later) and mark_uncollectible (written off) are for
admins. resumes_at: when it goes on by itself; null until it is resumed.
At Stripe this is pause_collection, which leaves the status as it is
(https://docs.stripe.com/billing/subscriptions/pause-payment). A subscription without Stripe has
the status paused, and what is left of its period follows when it is resumed.
Where nobody carried it to Stripe in time, the invoice of the next period is taken back; if it was
paid by then, the pause begins a period later and an admin is told.
account_id: null for the caller's own account.

Errors
  VALIDATION_FAILED       400  an unknown behavior, or it would resume before it begins
  UNAUTHENTICATED         401  nobody is signed in
  PAYMENT_REQUIRED        402  an invoice is unpaid
  NOT_A_MEMBER            403  the account is not one of the caller's
  NOT_ALLOWED             403  the caller's role in it lacks manage_billing
  NOT_AN_ADMIN            403  a behavior that gives service without payment
  SUBSCRIPTION_NOT_FOUND  404  the account never had a subscription
  CONTRACT_IN_FORCE       409  a contract says how it goes on
  INVALID_TRANSITION      422  it is ending, over, or paused by Stripe
  ACCOUNT_CLOSED          422  the account was closed$$;


create function billing_private.resume_subscription(p_account_id uuid)
returns setof billing.subscription_summary
language plpgsql
volatile
security definer -- users ask; only this may write
set search_path = ''
as $$
declare
  v_subscription billing.subscriptions := billing_private.lock_subscription(
    billing_private.resolve_account(p_account_id, 'manage_billing'));
begin
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'resume');

  if v_subscription.status = 'paused' and v_subscription.provider = 'stripe' then
    perform billing_private.ask_once(
      v_subscription, 'resume_subscription',
      format('/v1/subscriptions/%s/resume', v_subscription.stripe_subscription_id));
  elsif v_subscription.status = 'paused' then
    perform billing_private.resume_manual_subscription(v_subscription, billing_private.now());
  elsif v_subscription.pause_at is not null and v_subscription.provider = 'manual' then
    update billing.subscriptions
    set pause_at = null,
        pause_terms = null,
        updated_at = billing_private.now()
    where id = v_subscription.id;
  elsif v_subscription.pause_at is not null
    or billing_private.pause_in_force(v_subscription) is not null
    or (billing_private.last_asked(v_subscription.id, '{resume_collection}')).id is not null
  then
    perform billing_private.set_stripe_pause(v_subscription, null);
  else
    perform billing_private.fail('INVALID_TRANSITION', jsonb_build_object(
      'subscription_id', v_subscription.id, 'from', v_subscription.status, 'to', 'active',
      'problem', 'it is not paused'));
  end if;
  return query select * from billing_private.summarize_subscription(v_subscription.id);
end;
$$;


create function billing.resume_subscription(account_id uuid default null)
returns setof billing.subscription_summary
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.resume_subscription(resume_subscription.account_id);
end;

comment on function billing.resume_subscription(uuid) is
$$Takes a paused subscription up again, or takes back a pause that waits. One that Stripe paused for
want of a payment method starts a new period, and is invoiced for it.

account_id: null for the caller's own account.

Errors
  UNAUTHENTICATED         401  nobody is signed in
  NOT_A_MEMBER            403  the account is not one of the caller's
  NOT_ALLOWED             403  the caller's role in it lacks manage_billing
  SUBSCRIPTION_NOT_FOUND  404  the account never had a subscription
  CONTRACT_IN_FORCE       409  a contract says how it goes on
  INVALID_TRANSITION      422  it is not paused
  ACCOUNT_CLOSED          422  the account was closed$$;


-- -----------------------------------------------------------------------------
-- 35  billing.prepare_payment_method()
-- -----------------------------------------------------------------------------

create function billing_private.prepare_payment_method(
  p_success_url text,
  p_cancel_url text,
  p_account_id uuid
)
returns billing.stripe_request
language plpgsql
volatile
security definer -- writes a command for the user
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.resolve_account(p_account_id, 'manage_billing');
  v_subscription billing.subscriptions := billing_private.current_subscription(v_account_id);
  v_customer_id text;
  v_request billing.stripe_request;
begin
  perform billing_private.require_url('success_url', p_success_url);
  perform billing_private.require_url('cancel_url', p_cancel_url);
  v_customer_id := billing_private.customer_in_use(v_account_id, v_subscription);
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'payment method');

  v_request := billing_private.enqueue_request(
    'create_setup', v_account_id, '/v1/checkout/sessions',
    jsonb_strip_nulls(jsonb_build_object(
      'mode', 'setup',
      'customer', v_customer_id,
      'client_reference_id', v_account_id,
      'currency', coalesce(
        v_subscription.currency,
        (select currency from billing.customers where stripe_customer_id = v_customer_id)),
      'success_url', p_success_url,
      'cancel_url', p_cancel_url)));
  -- What comes of it is recognised by the request that led to it.
  update billing_private.commands
  set params = params || jsonb_build_object('setup_intent_data', jsonb_build_object(
    'metadata', jsonb_build_object('account_id', v_account_id, 'setup_id', id)))
  where id = v_request.subject_id;
  return v_request;
end;
$$;


create function billing_private.adopt_payment_method(p_setup_intent jsonb)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_method_id text := billing_private.stripe_id(p_setup_intent -> 'payment_method');
  v_request billing_private.commands;
begin
  if p_setup_intent ->> 'status' is distinct from 'succeeded' or v_method_id is null then
    return;
  end if;

  select * into v_request
  from billing_private.commands
  where id = billing_private.uuid_or_null(p_setup_intent #>> '{metadata,setup_id}')
    and kind = 'create_setup'
    and params ->> 'customer' = billing_private.stripe_id(p_setup_intent -> 'customer');
  -- Once for each time a user asked for it, however often Stripe tells.
  if not found or exists (
    select
    from billing_private.commands
    where subject_id = v_request.id
      and kind = 'set_payment_method'
  ) then
    return;
  end if;
  perform billing_private.set_payment_method(v_request, v_method_id);
end;
$$;

comment on function billing_private.adopt_payment_method(jsonb) is
  'A payment method that a user has put on file through prepare_payment_method() is charged from '
  'then on.';


create function billing_private.set_payment_method(
  p_request billing_private.commands,
  p_stripe_payment_method_id text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := p_request.params ->> 'customer';
  v_subscription billing.subscriptions := billing_private.current_subscription(
    p_request.account_id);
  v_id uuid;
begin
  -- At the level that was charged before: a subscription's own method outranks the customer's
  -- (https://docs.stripe.com/billing/subscriptions/payment-methods-setting).
  if v_subscription.stripe_customer_id = v_customer_id
    and v_subscription.stripe_default_payment_method_id is not null
    and v_subscription.ended_at is null
  then
    perform billing_private.enqueue_command(
      'set_payment_method', p_request.account_id,
      format('/v1/subscriptions/%s', v_subscription.stripe_subscription_id),
      jsonb_build_object('default_payment_method', p_stripe_payment_method_id),
      'POST', p_request.id, v_subscription);
    return;
  end if;

  v_id := billing_private.enqueue_command(
    'set_payment_method', p_request.account_id, format('/v1/customers/%s', v_customer_id),
    jsonb_build_object('invoice_settings', jsonb_build_object(
      'default_payment_method', p_stripe_payment_method_id)),
    'POST', p_request.id);
  update billing_private.commands
  set target_object_id = v_customer_id
  where id = v_id;
end;
$$;

comment on function billing_private.set_payment_method(billing_private.commands, text) is
  'Asks Stripe to charge another payment method: of the subscription where it has one of its own, '
  'else of the customer.';


create function billing.prepare_payment_method(
  success_url text,
  cancel_url text,
  account_id uuid default null
)
returns billing.stripe_request
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.prepare_payment_method(success_url, cancel_url, account_id);
end;

comment on function billing.prepare_payment_method(text, text, uuid) is
$$Asks for a page of Stripe's that puts a payment method on file; the checkout function opens it and
answers with its address. Once the user is through, that method is charged: of the subscription
where it has one of its own, else of the customer.

account_id: null for the caller's own account. The customer is always the account's own.

Errors
  VALIDATION_FAILED   400  an address is not absolute http(s)
  UNAUTHENTICATED     401  nobody is signed in
  NOT_A_MEMBER        403  the account is not one of the caller's
  NOT_ALLOWED         403  the caller's role in it lacks manage_billing
  CUSTOMER_NOT_FOUND  404  the account has never been a customer
  ACCOUNT_CLOSED      422  the account was closed$$;


-- -----------------------------------------------------------------------------
-- 36  manual subscriptions
-- -----------------------------------------------------------------------------

-- What an invoice of ours charges for; Stripe's lines are mirrored as they come.
create type billing_private.manual_line as (
  description text,
  amount_minor bigint,
  quantity bigint,
  period_start timestamptz,
  period_end timestamptz,
  is_proration boolean
);

comment on type billing_private.manual_line is
  'A line of a manual subscription''s invoice, in the currency''s smallest unit.';


create function billing_private.period_at(
  p_anchor timestamptz,
  p_interval interval,
  p_at timestamptz,
  out period_start timestamptz,
  out period_end timestamptz
)
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_anchor timestamp := p_anchor at time zone 'UTC';
  -- Never too late: no month or year is 4 % longer than Postgres counts it.
  v_number integer := greatest(
    floor(date_part('epoch', p_at - p_anchor) / (date_part('epoch', p_interval) * 1.04)), 0);
begin
  while (v_anchor + (v_number + 1) * p_interval) at time zone 'UTC' <= p_at loop
    v_number := v_number + 1;
  end loop;
  period_start := (v_anchor + v_number * p_interval) at time zone 'UTC';
  period_end := (v_anchor + (v_number + 1) * p_interval) at time zone 'UTC';
end;
$$;

comment on function billing_private.period_at(timestamptz, interval, timestamptz) is
$$The billing period that contains an instant: anchor + n × interval in UTC, so 31 January leads to
28 February and 31 March.
The rule of Stripe's billing cycle anchors
(https://docs.stripe.com/billing/subscriptions/billing-cycle).$$;


create function billing_private.start_manual_subscription(
  p_account_id uuid,
  p_price_id uuid,
  p_quantity bigint,
  p_ends_at timestamptz,
  p_kind text default 'complimentary',
  p_starts_at timestamptz default null,
  p_payment_terms_days integer default null,
  p_discount_code text default null
)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_start timestamptz := coalesce(p_starts_at, v_now);
  v_price billing.prices;
  v_quantity bigint;
  v_length interval;
  v_period record;
  v_subscription billing.subscriptions;
begin
  perform billing_private.lock_account(p_account_id);
  perform billing_private.require_eligible(p_account_id);
  perform billing_private.retire_checkouts(p_account_id, null);
  select * into strict v_price from billing.prices where id = p_price_id;
  v_quantity := coalesce(billing_private.seats_wanted(p_account_id, v_price), p_quantity);
  v_length := billing_private.interval_of(v_price.billing_interval, v_price.interval_count);
  v_period := billing_private.period_at(v_start, v_length, greatest(v_start, v_now));

  insert into billing.subscriptions (
    account_id, provider, status, price_id, quantity, currency, started_at, billing_anchor,
    current_period_start, current_period_end, cancel_at, manual_kind, payment_terms_days,
    updated_at
  )
  values (
    p_account_id, 'manual', 'active', p_price_id, v_quantity, v_price.currency, v_start, v_start,
    v_period.period_start, v_period.period_end, p_ends_at, p_kind,
    case when p_kind = 'invoiced' then coalesce(p_payment_terms_days, 14) end, v_now
  )
  returning * into v_subscription;

  insert into billing.subscription_items (
    subscription_id, price_id, plan_version, quantity, current_period_start, current_period_end
  )
  values (
    v_subscription.id, p_price_id, billing_private.version_on_sale(p_price_id), v_quantity,
    v_period.period_start, v_period.period_end
  );
  perform billing_private.redeem_code(p_discount_code, v_subscription);
  -- One that began in the past owes for what it has had.
  perform billing_private.invoice_manual_periods(v_subscription, v_start);
  return v_subscription.id;
end;
$$;

comment on function billing_private.start_manual_subscription(
  uuid, uuid, bigint, timestamptz, text, timestamptz, integer, text
) is
  'Starts a subscription that lives without Stripe. p_ends_at: null to renew until canceled. '
  'p_starts_at: null for now; it may lie in the past or in the future. p_payment_terms_days: of an '
  'invoiced one, 14 unless said.';


create function billing_private.set_manual_terms(
  p_subscription_id uuid,
  p_price_id uuid,
  p_quantity bigint,
  p_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_before billing.subscriptions;
  v_after billing.subscriptions;
  v_lines billing_private.manual_line[];
begin
  select * into strict v_before from billing.subscriptions where id = p_subscription_id;
  v_lines := array(
    select row(line.*)::billing_private.manual_line
    from billing_private.lines_of_change(
      v_before, p_price_id, coalesce(p_quantity, v_before.quantity), p_at) as line);

  -- Another period length begins a new period now, as it does at Stripe.
  update billing.subscriptions
  set price_id = p_price_id,
      quantity = coalesce(p_quantity, quantity),
      billing_anchor = priced.anchor,
      current_period_start = period.period_start,
      current_period_end = period.period_end,
      pending_price_id = null,
      pending_quantity = null,
      pending_change_at = null,
      updated_at = p_at
  from (
    select
      case
        when billing_private.has_same_interval(v_before.price_id, p_price_id)
          then v_before.billing_anchor
        else p_at
      end as anchor,
      billing_private.interval_of(billing_interval, interval_count) as length
    from billing.prices
    where prices.id = p_price_id
  ) as priced
  cross join lateral (
    select period_start, period_end
    from billing_private.period_at(priced.anchor, priced.length, p_at)
    where priced.anchor = p_at or p_at >= v_before.current_period_end
    union all
    select v_before.current_period_start, v_before.current_period_end
    where priced.anchor <> p_at and p_at < v_before.current_period_end
  ) as period
  where subscriptions.id = p_subscription_id
  returning subscriptions.* into v_after;

  if p_at >= v_before.current_period_end then
    perform billing_private.invoice_manual_periods(v_after, p_at);
  elsif cardinality(v_lines) > 0 then
    perform billing_private.write_manual_invoice(v_after, 'subscription_update', p_at, v_lines);
  end if;
  perform billing_private.sync_manual_items(array[p_subscription_id]);
end;
$$;

comment on function billing_private.set_manual_terms(uuid, uuid, bigint, timestamptz) is
  'Puts a manual subscription on another price, or (p_quantity not null) another number of seats, '
  'from an instant on, and invoices what that changes; whatever change was waiting is gone.';


create function billing_private.version_on_sale(p_price_id uuid)
returns integer
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select plans.version
    from billing.prices
    join billing.plans on plans.id = prices.plan_id
    where prices.id = p_price_id
  );
end;
$$;

comment on function billing_private.version_on_sale(uuid) is
  'The version of its plan''s contents that is bought with a price now.';


create function billing_private.sync_manual_items(p_subscription_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing.subscription_items
  set price_id = subscriptions.price_id,
      plan_version = case
        when subscription_items.price_id = subscriptions.price_id
          then subscription_items.plan_version
        else billing_private.version_on_sale(subscriptions.price_id)
      end,
      version_moved_at = case
        when subscription_items.price_id = subscriptions.price_id
          then subscription_items.version_moved_at
      end,
      quantity = subscriptions.quantity,
      current_period_start = subscriptions.current_period_start,
      current_period_end = subscriptions.current_period_end
  from billing.subscriptions
  where subscriptions.id = any (p_subscription_ids)
    and subscription_items.subscription_id = subscriptions.id;
end;
$$;

comment on function billing_private.sync_manual_items(uuid[]) is
  'Manual subscriptions have one item, which follows its subscription.';


create function billing_private.expire_manual_subscriptions(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_count bigint;
begin
  -- Not `id in (select … limit …)`: a plan may run that again for each row, and end them all.
  with due as materialized (
    select subscriptions.id, ending.at
    from billing.subscriptions
    cross join lateral least(
      subscriptions.cancel_at,
      case when subscriptions.cancel_at_period_end then subscriptions.current_period_end end
    ) as ending (at)
    where subscriptions.provider = 'manual'
      and subscriptions.ended_at is null
      and ending.at <= v_now
      -- Periods that were missed are invoiced first, by renew_manual_subscriptions().
      and (
        subscriptions.manual_kind <> 'invoiced'
        or ending.at <= subscriptions.current_period_end
        or subscriptions.status = 'paused'
        or subscriptions.pending_price_id is not null
      )
    limit p_limit
    for update of subscriptions skip locked
  )
  update billing.subscriptions
  set status = 'canceled',
      ended_at = due.at,
      canceled_at = coalesce(subscriptions.canceled_at, v_now),
      pending_price_id = null,
      pending_quantity = null,
      pending_change_at = null,
      updated_at = due.at
  from due
  where subscriptions.id = due.id;
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function billing_private.expire_manual_subscriptions(integer) is
  'Ends manual subscriptions whose end has passed; access ended by itself at that instant. Returns'
  ' how many.';


create function billing_private.apply_manual_changes(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_due billing.subscriptions;
  v_count bigint := 0;
begin
  for v_due in
    select *
    from billing.subscriptions
    where provider = 'manual'
      and ended_at is null
      and status <> 'paused'
      and pending_change_at <= billing_private.now()
    limit p_limit
    for update skip locked
  loop
    perform billing_private.set_manual_terms(
      v_due.id, v_due.pending_price_id, v_due.pending_quantity, v_due.pending_change_at);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.apply_manual_changes(integer) is
  'Brings changes of price that were scheduled for a period end into force. Returns how many.';


create function billing_private.pause_manual_subscription(
  p_subscription billing.subscriptions,
  p_terms jsonb,
  p_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing.subscriptions
  set status = 'paused',
      -- Paused already, it gets other terms, and has been paused since it was.
      pause_collection = p_terms || jsonb_build_object('paused_at', coalesce(
        pause_collection -> 'paused_at', to_jsonb(extract(epoch from p_at)::bigint))),
      pause_at = null,
      pause_terms = null,
      updated_at = p_at
  where id = p_subscription.id
    and (status, pause_collection - 'paused_at') is distinct from ('paused', p_terms);
end;
$$;

comment on function billing_private.pause_manual_subscription(
  billing.subscriptions, jsonb, timestamptz
) is
  'Stops a manual subscription from an instant on: what may be used is up to its plan''s policy, '
  'and no period begins.';


create function billing_private.resume_manual_subscription(
  p_subscription billing.subscriptions,
  p_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_away interval := p_at - coalesce(
    billing_private.stripe_time(p_subscription.pause_collection -> 'paused_at'), p_at);
begin
  -- What was left of the period is still to come; the next ones are counted from its end.
  update billing.subscriptions
  set status = 'active',
      pause_collection = null,
      current_period_start = current_period_start + v_away,
      current_period_end = current_period_end + v_away,
      billing_anchor = current_period_end + v_away,
      pending_change_at = pending_change_at + v_away,
      updated_at = p_at
  where id = p_subscription.id;

  perform billing_private.sync_manual_items(array[p_subscription.id]);
end;
$$;

comment on function billing_private.resume_manual_subscription(
  billing.subscriptions, timestamptz
) is
  'Takes a paused manual subscription up again, with as much of its period as was left.';


create function billing_private.resume_manual_subscriptions(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_due billing.subscriptions;
  v_count bigint := 0;
begin
  for v_due in
    select *
    from billing.subscriptions
    where provider = 'manual'
      and ended_at is null
      and status = 'paused'
      and billing_private.stripe_time(pause_collection -> 'resumes_at') <= billing_private.now()
    limit p_limit
    for update skip locked
  loop
    perform billing_private.resume_manual_subscription(
      v_due, billing_private.stripe_time(v_due.pause_collection -> 'resumes_at'));
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.resume_manual_subscriptions(integer) is
  'Takes manual subscriptions up again whose pause has a date that has come. Returns how many.';


create function billing_private.renew_manual_subscriptions(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_due record;
  v_renewed uuid[] := array[]::uuid[];
  v_subscription billing.subscriptions;
begin
  for v_due in
    select
      subscriptions.id, subscriptions.current_period_end as missed_from,
      period.period_start, period.period_end
    from billing.subscriptions
    join billing.prices on prices.id = subscriptions.price_id
    cross join lateral billing_private.period_at(
      subscriptions.billing_anchor,
      billing_private.interval_of(prices.billing_interval, prices.interval_count),
      least(v_now, subscriptions.cancel_at - interval '1 microsecond')
    ) as period
    where subscriptions.provider = 'manual'
      and subscriptions.ended_at is null
      and subscriptions.status <> 'paused'
      and subscriptions.current_period_end <= v_now
      and not subscriptions.cancel_at_period_end
      and coalesce(subscriptions.cancel_at > subscriptions.current_period_end, true)
      and subscriptions.pending_price_id is null
    limit p_limit
    for update of subscriptions skip locked
  loop
    update billing.subscriptions
    set current_period_start = v_due.period_start,
        current_period_end = v_due.period_end,
        updated_at = v_due.period_start
    where id = v_due.id
    returning * into v_subscription;
    perform billing_private.invoice_manual_periods(v_subscription, v_due.missed_from);
    v_renewed := v_renewed || v_due.id;
  end loop;

  perform billing_private.sync_manual_items(v_renewed);
  return cardinality(v_renewed);
end;
$$;

comment on function billing_private.renew_manual_subscriptions(integer) is
  'Rolls manual subscriptions into the period that contains now, also over several missed ones, '
  'each of which is invoiced. Returns how many.';


-- -----------------------------------------------------------------------------
-- 37  invoices of manual subscriptions
-- -----------------------------------------------------------------------------

create function billing_private.next_invoice_number(p_at timestamptz)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_year integer := extract(year from p_at at time zone 'UTC');
  v_number integer;
begin
  insert into billing_private.invoice_numbers as stored (year, last_number)
  values (v_year, 1)
  on conflict (year) do update
  set last_number = stored.last_number + 1
  returning last_number into v_number;
  return format('INV-%s-%s', v_year, lpad(v_number::text, 6, '0'));
end;
$$;

comment on function billing_private.next_invoice_number(timestamptz) is
  'The next number of the year''s series. Held until the transaction ends, so that none is skipped '
  'and none given twice.';


create function billing_private.invoice_manual_periods(
  p_subscription billing.subscriptions,
  p_from timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_price billing.prices;
  v_start timestamptz := p_from;
  v_end timestamptz;
begin
  if p_subscription.manual_kind <> 'invoiced' then
    return;
  end if;
  select * into strict v_price from billing.prices where id = p_subscription.price_id;

  while v_start <= p_subscription.current_period_start loop
    v_end := (billing_private.period_at(
      p_subscription.billing_anchor,
      billing_private.interval_of(v_price.billing_interval, v_price.interval_count),
      v_start)).period_end;
    perform billing_private.write_manual_invoice(
      p_subscription, 'subscription_cycle', v_start,
      billing_private.lines_of_period(p_subscription, v_price, v_start, v_end));
    v_start := v_end;
  end loop;
end;
$$;

comment on function billing_private.invoice_manual_periods(billing.subscriptions, timestamptz) is
  'Writes the invoices of an invoiced subscription for its periods from an instant up to and with '
  'the current one.';


create function billing_private.lines_of_period(
  p_subscription billing.subscriptions,
  p_price billing.prices,
  p_from timestamptz,
  p_until timestamptz
)
returns billing_private.manual_line[]
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_lines billing_private.manual_line[] := array[row(
    (select name from billing.plans where id = p_price.plan_id),
    billing_private.contract_amount(
      billing_private.contract_at(p_subscription.account_id, p_from), p_price,
      p_subscription.quantity),
    p_subscription.quantity, p_from, p_until, false
  )::billing_private.manual_line];
begin
  v_lines := v_lines || array(
    select row(line.*)::billing_private.manual_line
    from billing_private.usage_lines(
      p_subscription, p_from, v_lines[1].amount_minor,
      (billing_private.contract_at(p_subscription.account_id, p_from)).minimum_minor) as line);
  v_lines := v_lines || array(
    select row(line.*)::billing_private.manual_line
    from billing_private.minimum_lines(p_subscription, p_from, v_lines) as line);
  -- They belong to other periods: this one's minimum is not for them.
  return v_lines || array(
    select row(line.*)::billing_private.manual_line
    from billing_private.late_usage_lines(p_subscription, p_from) as line);
end;
$$;

comment on function billing_private.lines_of_period(
  billing.subscriptions, billing.prices, timestamptz, timestamptz
) is
  'Bills a period: the one ahead, by the catalog or a contract, and what a contract charges for '
  'the usage of the one before, and for what was heard late of others.';


create function billing_private.write_manual_invoice(
  p_subscription billing.subscriptions,
  p_billing_reason text,
  p_issued_at timestamptz,
  p_lines billing_private.manual_line[]
)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_subtotal bigint := (select coalesce(sum(amount_minor), 0) from unnest(p_lines));
  v_discounts bigint[] := billing_private.discount_lines(p_subscription.id, p_lines);
  v_discount bigint := (select coalesce(sum(discount), 0) from unnest(v_discounts) as discount);
  v_total bigint := v_subtotal - v_discount;
  v_credit bigint;
  v_due bigint;
  v_id uuid;
begin
  -- The row of the moment: an earlier invoice of the same call may have used the credit up.
  select least(greatest(v_total, 0), credit_minor) into strict v_credit
  from billing.subscriptions
  where id = p_subscription.id
  for update;
  v_due := greatest(v_total, 0) - v_credit;

  update billing.subscriptions
  set credit_minor = credit_minor - v_credit + greatest(-v_total, 0)
  where id = p_subscription.id
    and (v_credit > 0 or v_total < 0);

  insert into billing.invoices (
    account_id, subscription_id, number, status, billing_reason, currency, subtotal_minor,
    discount_minor, total_minor, amount_due_minor, amount_paid_minor, amount_remaining_minor,
    issued_at, due_at, finalized_at, paid_at
  )
  values (
    p_subscription.account_id, p_subscription.id,
    billing_private.next_invoice_number(p_issued_at),
    case when v_due = 0 then 'paid' else 'open' end,
    p_billing_reason, p_subscription.currency, v_subtotal, v_discount, v_total, v_due, 0, v_due,
    p_issued_at, p_issued_at + make_interval(days => p_subscription.payment_terms_days),
    p_issued_at, case when v_due = 0 then p_issued_at end
  )
  returning id into v_id;

  insert into billing.invoice_lines (
    invoice_id, description, amount_minor, currency, quantity, period_start, period_end,
    is_proration, discount_minor
  )
  select
    v_id, description, amount_minor, p_subscription.currency, quantity, period_start, period_end,
    is_proration, discount
  from unnest(p_lines, v_discounts) as line (
    description, amount_minor, quantity, period_start, period_end, is_proration, discount
  );
  return v_id;
end;
$$;

comment on function billing_private.write_manual_invoice(
  billing.subscriptions, text, timestamptz, billing_private.manual_line[]
) is
  'Writes an invoice with its lines, less what a discount code takes off. Credit of the '
  'subscription is taken off what is due; a total below zero becomes credit.';


create function billing_private.settle_manual_subscription(p_subscription_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_overdue_since timestamptz := (
    select min(due_at)
    from billing.invoices
    where subscription_id = p_subscription_id
      and status = 'open'
      and due_at <= v_now
  );
begin
  update billing.subscriptions
  set status = case when v_overdue_since is null then 'active' else 'past_due' end,
      past_due_since = v_overdue_since,
      updated_at = v_now
  where id = p_subscription_id
    and status in ('active', 'past_due')
    and past_due_since is distinct from v_overdue_since;
end;
$$;

comment on function billing_private.settle_manual_subscription(uuid) is
  'An invoiced subscription is past_due from when its oldest unpaid invoice was due, and active '
  'from the moment none is.';


create function billing_private.note_overdue_invoices(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_overdue uuid;
  v_count bigint := 0;
begin
  for v_overdue in
    select subscriptions.id
    from billing.subscriptions
    where subscriptions.manual_kind = 'invoiced'
      and subscriptions.status = 'active'
      and subscriptions.ended_at is null
      and exists (
        select
        from billing.invoices
        where invoices.subscription_id = subscriptions.id
          and invoices.status = 'open'
          and invoices.due_at <= billing_private.now()
      )
    limit p_limit
    for update skip locked
  loop
    perform billing_private.settle_manual_subscription(v_overdue);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.note_overdue_invoices(integer) is
  'Marks invoiced subscriptions past_due whose invoice is unpaid beyond its terms. Returns how '
  'many.';


create function billing_private.record_payment(
  p_invoice_id uuid,
  p_amount_minor bigint,
  p_method text,
  p_reference text,
  p_paid_at timestamptz
)
returns billing.invoices
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice billing.invoices := billing_private.lock_manual_invoice(p_invoice_id);
  v_paid_at timestamptz := coalesce(p_paid_at, billing_private.now());
begin
  -- The same payment reported twice is one.
  if exists (
    select
    from billing.payments
    where invoice_id = p_invoice_id
      and reference = p_reference
  ) then
    return v_invoice;
  end if;
  if v_invoice.status not in ('open', 'uncollectible') then
    perform billing_private.fail('INVOICE_CLOSED', jsonb_build_object(
      'invoice_id', p_invoice_id, 'from', v_invoice.status, 'to', 'paid'));
  elsif p_amount_minor is null
    or p_amount_minor not between 1 and v_invoice.amount_remaining_minor
  then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'amount_minor', 'problem', 'must be from 1 to what remains to be paid',
      'amount_remaining_minor', v_invoice.amount_remaining_minor));
  end if;

  insert into billing.payments (
    account_id, invoice_id, method, reference, status, amount_minor, amount_received_minor,
    currency, paid_at
  )
  values (
    v_invoice.account_id, p_invoice_id, p_method, p_reference, 'succeeded', p_amount_minor,
    p_amount_minor, v_invoice.currency, v_paid_at
  );

  update billing.invoices
  set amount_paid_minor = amount_paid_minor + p_amount_minor,
      amount_remaining_minor = amount_remaining_minor - p_amount_minor,
      status = case when amount_remaining_minor = p_amount_minor then 'paid' else status end,
      paid_at = case when amount_remaining_minor = p_amount_minor then v_paid_at end
  where id = p_invoice_id
  returning * into v_invoice;

  perform billing_private.settle_manual_subscription(v_invoice.subscription_id);
  return v_invoice;
end;
$$;

comment on function billing_private.record_payment(uuid, bigint, text, text, timestamptz) is
  'Books a payment that came outside Stripe on a manual subscription''s invoice; the last one '
  'restores access in the same transaction.';


create function billing_private.lock_manual_invoice(p_invoice_id uuid)
returns billing.invoices
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice billing.invoices;
begin
  select * into v_invoice
  from billing.invoices
  where id = p_invoice_id
    and subscription_id is not null;
  if not found then
    perform billing_private.fail('INVOICE_NOT_FOUND', jsonb_build_object(
      'invoice_id', p_invoice_id));
  end if;

  perform billing_private.lock_account(v_invoice.account_id);
  select * into strict v_invoice
  from billing.invoices
  where id = p_invoice_id
  for update;
  return v_invoice;
end;
$$;

comment on function billing_private.lock_manual_invoice(uuid) is
  'An invoice of a manual subscription, for a change nobody else makes meanwhile '
  '(INVOICE_NOT_FOUND, 404, also for Stripe''s: those are changed at Stripe).';


create function billing_private.close_invoice(
  p_invoice_id uuid,
  p_status text
)
returns billing.invoices
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice billing.invoices := billing_private.lock_manual_invoice(p_invoice_id);
begin
  if v_invoice.status = p_status then
    return v_invoice; -- twice changes nothing more
  elsif v_invoice.status <> 'open'
    and (v_invoice.status, p_status) <> ('uncollectible', 'void')
  then
    perform billing_private.fail('INVOICE_CLOSED', jsonb_build_object(
      'invoice_id', p_invoice_id, 'from', v_invoice.status, 'to', p_status));
  elsif p_status = 'void' and v_invoice.amount_paid_minor > 0 then
    perform billing_private.fail('INVOICE_CLOSED', jsonb_build_object(
      'invoice_id', p_invoice_id, 'from', v_invoice.status, 'to', p_status,
      'problem', 'a part of it is paid'));
  end if;

  update billing.invoices
  set status = p_status,
      voided_at = case when p_status = 'void' then billing_private.now() end,
      marked_uncollectible_at = case
        when p_status = 'uncollectible' then billing_private.now()
        else marked_uncollectible_at
      end
  where id = p_invoice_id
  returning * into v_invoice;

  perform billing_private.settle_manual_subscription(v_invoice.subscription_id);
  return v_invoice;
end;
$$;

comment on function billing_private.close_invoice(uuid, text) is
  'Voids a manual subscription''s invoice, or gives it up as uncollectible.';


-- -----------------------------------------------------------------------------
-- 38  proration
-- -----------------------------------------------------------------------------

create function billing_private.prorate(
  p_amount_minor bigint,
  p_period_start timestamptz,
  p_period_end timestamptz,
  p_at timestamptz
)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- Multiplied before it is divided, so that whole amounts stay whole.
  return round(
    p_amount_minor
      * extract(epoch from p_period_end - least(greatest(p_at, p_period_start), p_period_end))
      / extract(epoch from p_period_end - p_period_start));
end;
$$;

comment on function billing_private.prorate(bigint, timestamptz, timestamptz, timestamptz) is
$$The part of an amount that falls on what is left of its period, to the second, rounded to whole
minor units. All times are absolute, so days of 23 and 25 hours count as what they are.
The rule of Stripe's prorations (https://docs.stripe.com/billing/subscriptions/prorations).$$;


create function billing_private.has_same_interval(
  p_price_id uuid,
  p_other_price_id uuid
)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return exists (
    select
    from billing.prices
    join billing.prices as other using (billing_interval, interval_count)
    where prices.id = p_price_id
      and other.id = p_other_price_id
  );
end;
$$;

comment on function billing_private.has_same_interval(uuid, uuid) is
  'True when two prices are paid for periods of the same length.';


create function billing_private.lines_of_change(
  p_subscription billing.subscriptions,
  p_price_id uuid,
  p_quantity bigint,
  p_at timestamptz
)
returns setof billing_private.manual_line
language plpgsql
stable
set search_path = ''
as $$
declare
  v_contract billing.contracts := billing_private.contract_at(p_subscription.account_id, p_at);
  v_before billing.prices;
  v_after billing.prices;
  v_after_name text;
begin
  if p_subscription.manual_kind is distinct from 'invoiced' then
    return;
  end if;
  select * into v_before from billing.prices where id = p_subscription.price_id;
  select * into v_after from billing.prices where id = p_price_id;
  v_after_name := (select name from billing.plans where id = v_after.plan_id);

  -- Metered prices are paid for afterwards: nothing is paid ahead, so nothing is given back.
  if v_before.usage_type <> 'metered' then
    return next row(
      format('Unused time on %s', (select name from billing.plans where id = v_before.plan_id)),
      -billing_private.prorate(
        billing_private.contract_amount(
          billing_private.contract_until(p_subscription.account_id, p_at), v_before,
          p_subscription.quantity),
        p_subscription.current_period_start, p_subscription.current_period_end, p_at),
      p_subscription.quantity, p_at, p_subscription.current_period_end, true);
  end if;
  if v_after.usage_type = 'metered' then
    return;
  elsif billing_private.has_same_interval(p_subscription.price_id, p_price_id) then
    return next row(
      format('Remaining time on %s', v_after_name),
      billing_private.prorate(
        billing_private.contract_amount(v_contract, v_after, p_quantity),
        p_subscription.current_period_start, p_subscription.current_period_end, p_at),
      p_quantity, p_at, p_subscription.current_period_end, true);
  else
    return next row(
      v_after_name, billing_private.contract_amount(v_contract, v_after, p_quantity), p_quantity,
      p_at,
      (billing_private.period_at(
        p_at,
        billing_private.interval_of(v_after.billing_interval, v_after.interval_count),
        p_at)).period_end,
      false);
  end if;
end;
$$;

comment on function billing_private.lines_of_change(
  billing.subscriptions, uuid, bigint, timestamptz
) is
  'What an invoiced subscription is charged and given back when its price or quantity changes '
  'within a period. A period of another length begins anew.';


-- -----------------------------------------------------------------------------
-- 39  reconciliation with Stripe
-- -----------------------------------------------------------------------------

-- What Stripe shows is read like an event and compared with what is stored. A list says nothing
-- about what it does not show: only a question about an object itself can tell that it is gone.

create type billing_private.mirrored_row as (
  table_name text,
  key text,
  content jsonb
);

create function billing_private.differing(
  p_row jsonb,
  p_other jsonb
)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return (
    select jsonb_object_agg(key, value)
    from jsonb_each(p_row)
    where value is distinct from p_other -> key
  );
end;
$$;

comment on function billing_private.differing(jsonb, jsonb) is
  'The part of a row that another one has differently; null when there is none.';


create function billing_private.mirror_key(p_object jsonb)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case p_object ->> 'object'
    when 'charge'
      then coalesce(billing_private.stripe_id(p_object -> 'payment_intent'), p_object ->> 'id')
    when 'invoice_payment' then coalesce(
      billing_private.stripe_id(p_object #> '{payment,payment_intent}'),
      billing_private.stripe_id(p_object #> '{payment,charge}'))
    else p_object ->> 'id'
  end;
end;
$$;

comment on function billing_private.mirror_key(jsonb) is
  'The Stripe id under which an object is mirrored: several kinds of object make one payment.';


create function billing_private.mirrored_rows(p_object jsonb)
returns setof billing_private.mirrored_row
language plpgsql
stable
set search_path = ''
as $$
declare
  v_table billing_private.mirrored_tables;
begin
  for v_table in
    select *
    from billing_private.mirrored_tables
    where object_type = p_object ->> 'object'
    order by table_name
  loop
    return query execute format(
      'select %L, %I, to_jsonb(mirrored) - %L::text[] from %s as mirrored where %I = any (',
      v_table.table_name, v_table.key_column,
      -- Ours, not Stripe's.
      array['id', 'created_at', 'updated_at']
        || case when v_table.owner_table is not null then array[v_table.match_column] end,
      v_table.table_name, v_table.match_column)
      || case
        when v_table.owner_table is null then '$1)'
        else format(
          'array(select id from %s where %I = any ($1)))',
          v_table.owner_table, v_table.owner_key_column)
      end
    using array[billing_private.mirror_key(p_object), p_object ->> 'id'];
  end loop;
end;
$$;

comment on function billing_private.mirrored_rows(jsonb) is
  'The stored rows that mirror an object of Stripe, without what Stripe does not know of them.';


create function billing_private.row_differences(
  p_before billing_private.mirrored_row[],
  p_after billing_private.mirrored_row[]
)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return coalesce(
    (
      select jsonb_agg(
        jsonb_build_object(
          'table', table_name,
          'key', key,
          'before', case when after.content is null then before.content
            else billing_private.differing(before.content, after.content) end,
          'after', case when before.content is null then after.content
            else billing_private.differing(after.content, before.content) end)
        order by table_name, key)
      from unnest(p_before) as before
      full join unnest(p_after) as after using (table_name, key)
      where before.content is distinct from after.content
    ),
    '[]');
end;
$$;

comment on function billing_private.row_differences(
  billing_private.mirrored_row[], billing_private.mirrored_row[]
) is
  'What two states of an object''s rows have differently, as billing_private.drifts tells it.';


create function billing_private.note_drift(p_drift billing_private.drifts)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- One that was only reported until now.
  update billing_private.drifts
  set last_seen_at = billing_private.now(),
      differences = coalesce(p_drift.differences, differences),
      repaired_at = p_drift.repaired_at
  where object_id = p_drift.object_id
    and class = p_drift.class
    and coalesce(event_id, '') = coalesce(p_drift.event_id, '')
    and repaired_at is null;
  if found then
    return;
  end if;

  insert into billing_private.drifts (
    object_type, object_id, class, event_id, differences, found_by, repaired_at
  )
  values (
    coalesce(p_drift.object_type, 'unknown'), p_drift.object_id, p_drift.class, p_drift.event_id,
    coalesce(p_drift.differences, '[]'), p_drift.found_by, p_drift.repaired_at
  );
end;
$$;

comment on function billing_private.note_drift(billing_private.drifts) is
  'Records a difference that was found. One that is still open is not recorded twice.';


create function billing_private.observe_object(
  p_command billing_private.commands,
  p_object jsonb,
  p_as_type text,
  p_asked_at timestamptz,
  p_found_by text
)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_known billing_private.stripe_objects;
  v_drift billing_private.drifts;
  v_repairs boolean := true;
  v_before billing_private.mirrored_row[];
  v_is_applied boolean;
  v_is_undone boolean := false;
begin
  select * into v_known from billing_private.stripe_objects where object_id = p_object ->> 'id';
  v_drift.object_type := p_object ->> 'object';
  v_drift.object_id := p_object ->> 'id';
  v_drift.found_by := p_found_by;
  v_drift.class := case
    when p_object -> 'deleted' = 'true' then 'gone'
    when v_known.object_id is null then 'missing'
    else 'stale'
  end;
  if p_found_by is not null then
    select repairs into v_repairs
    from billing_private.drift_policies
    where class = v_drift.class;
  end if;

  begin
    v_before := array(select rows from billing_private.mirrored_rows(p_object) as rows);
    perform billing_private.apply_response(p_command, p_object, p_as_type, p_asked_at);
    v_drift.differences := billing_private.row_differences(
      v_before, array(select rows from billing_private.mirrored_rows(p_object) as rows));
    v_is_applied := (
      select status = 'applied'
      from billing_private.stripe_events
      where event_id = billing_private.answer_id(p_command, p_object)
    );

    -- What says nothing new does not stay in the inbox; what is only to be reported is taken back.
    if v_is_applied
      and not coalesce(v_known.is_ambiguous, false)
      and not (v_repairs and (v_known.object_id is null or v_drift.differences <> '[]'))
    then
      v_is_undone := true;
      perform billing_private.fail('INTERNAL_ERROR');
    end if;
  exception when sqlstate 'PT500' then
    if not v_is_undone then
      raise;
    end if;
  end;

  if p_found_by is null
    or v_drift.differences = '[]'
    -- What was made a moment ago may be on its way.
    or v_drift.class = 'missing'
      and billing_private.stripe_time(p_object -> 'created') > p_asked_at - interval '10 minutes'
  then
    return case when v_is_undone then 'unchanged' else 'stored' end;
  end if;
  v_drift.repaired_at := case when not v_is_undone then billing_private.now() end;
  perform billing_private.note_drift(v_drift);
  return 'drifted';
end;
$$;

comment on function billing_private.observe_object(
  billing_private.commands, jsonb, text, timestamptz, text
) is
$$Applies an object as Stripe shows it and records what was stored differently: unchanged, stored
or drifted.

found_by: null where a difference is no drift. What its class does not repair is applied in a
subtransaction that is rolled back, its locks with it.$$;


-- Each may want an account that somebody else holds who wants one of these: who is in no hurry
-- gives way. What could not be applied is tried again like an event.
create function billing_private.observe_objects(
  p_command billing_private.commands,
  p_objects jsonb[],
  p_as_type text,
  p_asked_at timestamptz,
  p_found_by text
)
returns setof text
language plpgsql
volatile
set search_path = ''
set lock_timeout = '200ms'
as $$
begin
  return query
  select billing_private.observe_object(p_command, object, p_as_type, p_asked_at, p_found_by)
  from unnest(p_objects) with ordinality as given (object, position)
  order by position desc;
end;
$$;

comment on function billing_private.observe_objects(
  billing_private.commands, jsonb[], text, timestamptz, text
) is
  'observe_object() for each of a list that is newest first, oldest first.';


create function billing_private.sweep_objects(
  p_command billing_private.commands,
  p_objects jsonb[],
  p_asked_at timestamptz,
  p_found_by text
)
returns setof text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_news jsonb[];
begin
  perform billing_private.lock_for_events(array(
    select jsonb_populate_record(null::billing_private.stripe_events, jsonb_build_object(
      'object_type', object ->> 'object',
      'object_id', object ->> 'id',
      'stripe_customer_id', case
        when object ->> 'object' <> 'customer'
          then billing_private.stripe_id(object -> 'customer') end))
    from unnest(p_objects) as object
  ));

  -- Most of a list is as it was told.
  v_news := array(
    select object
    from unnest(p_objects) with ordinality as given (object, position)
    left join billing_private.stripe_objects on stripe_objects.object_id = object ->> 'id'
    left join billing_private.stripe_events using (event_id)
    where jsonb_strip_nulls(object) is distinct from jsonb_strip_nulls(
      billing_private.parse_json(stripe_events.payload) #> '{data,object}')
    order by position
  );

  return query
  select billing_private.observe_objects(
    p_command, v_news, snapshot_type, p_asked_at, p_found_by)
  from billing_private.stripe_resources
  where object_type = p_objects[1] ->> 'object';
end;
$$;

comment on function billing_private.sweep_objects(
  billing_private.commands, jsonb[], timestamptz, text
) is
  'Compares a page of Stripe''s objects with what is stored; a row for each that said something.';


create function billing_private.sweep_events(
  p_events jsonb[],
  p_asked_at timestamptz,
  p_found_by text
)
returns setof text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_repairs boolean := p_found_by is null
    or (select repairs from billing_private.drift_policies where class = 'event_missed');
  v_missed jsonb[];
  v_event jsonb;
  v_drift billing_private.drifts;
begin
  v_missed := array(
    select event
    from unnest(p_events) as event
    where not exists (
        select from billing_private.stripe_events where event_id = event ->> 'id'
      )
      -- What nobody handles need not be delivered.
      and exists (
        select from billing_private.event_handlers where event_type = event ->> 'type'
      )
  );
  if v_repairs then
    perform billing_private.ingest_stripe_events(array(
      select event::text from unnest(v_missed) as event
    ));
  end if;

  foreach v_event in array v_missed loop
    if p_found_by is null
      -- What was made a moment ago may be on its way.
      or billing_private.stripe_time(v_event -> 'created') > p_asked_at - interval '10 minutes'
      -- What newer events had told already was no loss.
      or exists (
        select
        from billing_private.stripe_events
        where event_id = v_event ->> 'id'
          and status_reason is not null
      )
    then
      return next case when v_repairs then 'stored' else 'unchanged' end;
      continue;
    end if;
    v_drift.object_type := v_event #>> '{data,object,object}';
    v_drift.object_id := coalesce(v_event #>> '{data,object,id}', v_event ->> 'id');
    v_drift.class := 'event_missed';
    v_drift.event_id := v_event ->> 'id';
    v_drift.found_by := p_found_by;
    v_drift.repaired_at := case when v_repairs then billing_private.now() end;
    perform billing_private.note_drift(v_drift);
    return next 'drifted';
  end loop;
end;
$$;

comment on function billing_private.sweep_events(jsonb[], timestamptz, text) is
  'Delivers the events of a page that were never delivered; a row for each.';


create function billing_private.apply_sweep_page(
  p_command billing_private.commands,
  p_response jsonb,
  p_asked_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_sweep billing_private.sweeps;
  v_found_by text;
  v_members jsonb[] := array(
    select member from jsonb_path_query(p_response, '$.data[*]') as member);
  v_outcomes text[];
begin
  select * into v_sweep
  from billing_private.sweeps
  where id = p_command.subject_id
    and status = 'running'
  for update;
  if not found then
    return;
  end if;

  if to_jsonb((select stripe_livemode from billing_private.settings)) <> any (
    select member -> 'livemode' from unnest(v_members) as member
  ) then
    perform billing_private.end_sweep(v_sweep.id, '{"error": {"code": "other_livemode",
      "message": "The secret key is of the other Stripe mode than this database."}}');
    return;
  end if;

  v_found_by := case when not v_sweep.is_backfill then 'sweep' end;
  if (select object_type is null from billing_private.stripe_lists where key = v_sweep.list_key)
  then
    v_outcomes := array(
      select billing_private.sweep_events(v_members, p_asked_at, v_found_by));
  else
    v_outcomes := array(
      select billing_private.sweep_objects(p_command, v_members, p_asked_at, v_found_by));
  end if;

  update billing_private.sweeps
  set pages = pages + 1,
      members = members + cardinality(v_members),
      changed = changed + cardinality(array_remove(v_outcomes, 'unchanged')),
      drifted = drifted + cardinality(array_positions(v_outcomes, 'drifted')),
      cursor = coalesce(v_members[cardinality(v_members)] ->> 'id', cursor),
      failures = 0,
      last_error = null,
      asked_at = coalesce(asked_at, p_asked_at, billing_private.now())
  where id = v_sweep.id
  returning * into v_sweep;

  if p_response -> 'has_more' = 'true' and cardinality(v_members) > 0 then
    perform billing_private.enqueue_sweep_page(v_sweep);
  else
    perform billing_private.end_sweep(v_sweep.id, null);
  end if;
end;
$$;

comment on function billing_private.apply_sweep_page(
  billing_private.commands, jsonb, timestamptz
) is
  'Takes in a page of a list, and asks for the next one in the same transaction: whatever crashes, '
  'the sweep goes on where it was.';


create type billing_private.overdue_object as (
  rule_key text,
  object_type text,
  object_id text
);

-- Its body is long because it is a list: one select for each rule.
create function billing_private.overdue_objects(p_as_of timestamptz)
returns setof billing_private.overdue_object
language plpgsql
stable
set search_path = ''
as $$
declare
  v_latest jsonb := (
    select jsonb_object_agg(key, p_as_of - margin)
    from billing_private.reread_rules
    where is_enabled
  );
begin
  return query
  select rules.key, 'subscription', stripe_subscription_id
  from billing.subscriptions
  cross join lateral (
    values
      ('period_ended', status in ('active', 'past_due', 'unpaid'), current_period_end),
      ('trial_ended', status = 'trialing', trial_end),
      ('end_passed', status not in ('canceled', 'incomplete_expired'), cancel_at)
  ) as rules (key, is_asked, moment)
  where provider = 'stripe'
    and ended_at is null
    and least(current_period_end, cancel_at) < p_as_of
    and rules.is_asked
    and rules.moment < (v_latest ->> rules.key)::timestamptz
  union all
  select 'incomplete', 'subscription', stripe_subscription_id
  from billing.subscriptions
  where provider = 'stripe'
    and status = 'incomplete'
    and started_at < (v_latest ->> 'incomplete')::timestamptz
  union all
  select 'session_expired', 'checkout.session', stripe_session_id
  from billing.checkout_sessions
  where status = 'open'
    and stripe_session_id is not null
    and expires_at < (v_latest ->> 'session_expired')::timestamptz
  union all
  select 'attempt_passed', 'invoice', stripe_invoice_id
  from billing.invoices
  where status = 'open'
    and next_payment_attempt_at < (v_latest ->> 'attempt_passed')::timestamptz
  union all
  select 'unknown_price', 'price', subscription_items.stripe_price_id
  from billing.subscription_items
  join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
  where subscription_items.price_id is null
    and subscriptions.ended_at is null
    and subscriptions.updated_at < (v_latest ->> 'unknown_price')::timestamptz;
end;
$$;

comment on function billing_private.overdue_objects(timestamptz) is
  'Objects about which Stripe should have told something by now, and the rule that says so.';


create function billing_private.request_rereads(
  p_as_of timestamptz,
  p_limit integer
)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_object record;
  v_count bigint := 0;
begin
  for v_object in
    select distinct on (overdue.object_id) overdue.*
    from billing_private.overdue_objects(p_as_of) as overdue
    join billing_private.reread_rules on reread_rules.key = overdue.rule_key
    where not exists (
      select
      from billing_private.commands
      where kind = 'reread'
        and target_object_id = overdue.object_id
        and (status = 'pending' or created_at > p_as_of - reread_rules.repeat_after)
    )
    order by overdue.object_id, overdue.rule_key
    limit p_limit
  loop
    perform billing_private.request_reread(
      v_object.object_type, v_object.object_id, v_object.rule_key);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.request_rereads(timestamptz, integer) is
  'Asks Stripe about objects that are overdue, each at most once in the time its rule says.';


create function billing_private.enqueue_sweep_page(p_sweep billing_private.sweeps)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_list billing_private.stripe_lists;
  v_command_id uuid;
begin
  select * into strict v_list from billing_private.stripe_lists where key = p_sweep.list_key;
  v_command_id := billing_private.enqueue_command(
    'sweep_page', null, v_list.path,
    v_list.params || jsonb_strip_nulls(jsonb_build_object(
      'limit', 100,
      'created', case when p_sweep.created_from is not null
        then jsonb_build_object('gte', extract(epoch from p_sweep.created_from)::bigint) end,
      'starting_after', p_sweep.cursor)),
    'GET', p_sweep.id);
  if v_list.pause > interval '0' and p_sweep.pages > 0 then
    update billing_private.commands
    set next_attempt_at = billing_private.now() + v_list.pause
    where id = v_command_id;
  end if;
end;
$$;

comment on function billing_private.enqueue_sweep_page(billing_private.sweeps) is
  'Asks Stripe for the page after the sweep''s cursor.';


create function billing_private.continue_sweeps()
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_sweep billing_private.sweeps;
begin
  -- Nobody waits for this one: whoever comes too late is followed by a task.
  if not pg_try_advisory_xact_lock(hashtextextended('billing.sweeps', 0)) then
    return;
  end if;
  update billing_private.sweeps
  set status = 'running',
      started_at = coalesce(started_at, billing_private.now())
  where id = (
      select sweeps.id
      from billing_private.sweeps
      join billing_private.stripe_lists on stripe_lists.key = sweeps.list_key
      where sweeps.status = 'waiting'
      order by stripe_lists.position
      limit 1
    )
    and not exists (select from billing_private.sweeps where status = 'running')
  returning * into v_sweep;
  if found then
    perform billing_private.enqueue_sweep_page(v_sweep);
  end if;
end;
$$;

comment on function billing_private.continue_sweeps() is
  'Lets the next sweep in line begin, or go on, unless one is running.';


create function billing_private.request_payment_methods(p_sweep_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not exists (
    select
    from billing_private.sweeps
    where id = p_sweep_id
      and list_key = 'subscriptions'
  ) then
    return;
  end if;

  perform billing_private.request_reread('payment_method', referred.id, 'swept')
  from (
    select distinct coalesce(
      subscriptions.stripe_default_payment_method_id,
      customers.stripe_default_payment_method_id) as id
    from billing.subscriptions
    left join billing.customers using (stripe_customer_id)
    where subscriptions.provider = 'stripe'
      and subscriptions.ended_at is null
  ) as referred
  where referred.id is not null
    and not exists (
      select from billing.payment_methods where stripe_payment_method_id = referred.id
    );
end;
$$;

comment on function billing_private.request_payment_methods(uuid) is
  'Stripe lists payment methods only customer by customer: after a sweep of the subscriptions, '
  'those they are paid with and that never came are asked for one by one.';


create function billing_private.request_entitlements(p_sweep_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not exists (
    select
    from billing_private.sweeps
    where id = p_sweep_id
      and list_key = 'subscriptions'
  ) then
    return;
  end if;

  -- All at once: request_list() looks for each among all that wait.
  insert into billing_private.commands (
    kind, method, path, params, target_object_id, wish, cause, request_id
  )
  select
    'list_entitlements', 'GET', '/v1/entitlements/active_entitlements',
    jsonb_build_object('customer', replace(object_id, 'entitlements:', ''), 'limit', 100),
    object_id, jsonb_build_object('event_id', event_id, 'seen', '{}'::text[]),
    '{"reason": "swept"}', billing_private.request_id()
  from billing_private.stripe_objects
  where object_id like 'entitlements:%'
    and object_id not in (
      select target_object_id
      from billing_private.commands
      where kind = 'list_entitlements'
        and status in ('pending', 'leased')
    )
  order by object_id;
end;
$$;

comment on function billing_private.request_entitlements(uuid) is
  'Stripe lists entitlements only customer by customer: after a sweep of the subscriptions they '
  'are read again for each customer of whom a summary ever came. Of the others, see '
  'request_features().';


create function billing_private.request_features(p_sweep_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if not exists (
    select
    from billing_private.sweeps
    where id = p_sweep_id
      and list_key = 'subscriptions'
  ) then
    return;
  end if;

  insert into billing_private.commands (
    kind, method, path, params, target_object_id, cause, request_id
  )
  select
    'find_features', 'GET', format('/v1/products/%s/features', sold.stripe_product_id),
    '{"limit": 1}', sold.stripe_product_id, '{"reason": "swept"}', billing_private.request_id()
  from (
    select distinct prices.stripe_product_id
    from billing.subscriptions
    join billing.subscription_items on subscription_items.subscription_id = subscriptions.id
    join billing.prices on prices.id = subscription_items.price_id
    where subscriptions.provider = 'stripe'
      and subscriptions.ended_at is null
      and prices.stripe_product_id is not null
  ) as sold
  where not exists (
    select
    from billing_private.commands
    where commands.target_object_id = sold.stripe_product_id
      and commands.kind = 'find_features'
      and commands.status in ('pending', 'leased')
  )
  order by sold.stripe_product_id;
end;
$$;

comment on function billing_private.request_features(uuid) is
  'After a sweep of the subscriptions, asks of each product that somebody has whether it gives '
  'features of Stripe Entitlements: whoever has none of these is not asked about.';


create function billing_private.take_features(
  p_command billing_private.commands,
  p_response jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if jsonb_path_exists(p_response, '$.data[0]') is not true then
    return;
  end if;

  insert into billing_private.commands (
    kind, method, path, params, target_object_id, cause, request_id
  )
  select
    'read_entitlements', 'GET', '/v1/entitlements/active_entitlements',
    jsonb_build_object('customer', entitled.stripe_customer_id, 'limit', 100),
    'entitlements:' || entitled.stripe_customer_id, '{"reason": "swept"}',
    billing_private.request_id()
  from (
    select distinct subscriptions.stripe_customer_id
    from billing.prices
    join billing.subscription_items on subscription_items.price_id = prices.id
    join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
    where prices.stripe_product_id = p_command.target_object_id
      and subscriptions.provider = 'stripe'
      and subscriptions.ended_at is null
      and subscriptions.stripe_customer_id is not null
  ) as entitled
  where not exists (
      select
      from billing_private.stripe_objects
      where stripe_objects.object_id = 'entitlements:' || entitled.stripe_customer_id
    )
    and not exists (
      select
      from billing_private.commands
      where commands.target_object_id = 'entitlements:' || entitled.stripe_customer_id
        and commands.kind = 'read_entitlements'
        and commands.status in ('pending', 'leased')
    )
  order by entitled.stripe_customer_id;
end;
$$;

comment on function billing_private.take_features(billing_private.commands, jsonb) is
  'Where a product gives features, asks for the entitlements of those who have it and of whom no '
  'summary ever came.';


create function billing_private.take_entitlements(
  p_command billing_private.commands,
  p_response jsonb,
  p_asked_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Of whom Stripe knows none there is nothing to keep. Not so if a summary came meanwhile.
  if jsonb_path_exists(p_response, '$.data[0]') is not true
    and p_command.target_event_id is null
  then
    return;
  end if;

  -- As its event would have told it; it has no id but this.
  perform billing_private.apply_response(
    p_command,
    jsonb_build_object(
      'id', p_command.target_object_id,
      'object', 'entitlements.active_entitlement_summary',
      'customer', p_command.params -> 'customer',
      'entitlements', p_response),
    'entitlements.active_entitlement_summary.updated', p_asked_at);
end;
$$;

comment on function billing_private.take_entitlements(
  billing_private.commands, jsonb, timestamptz
) is
  'Mirrors the entitlements of a customer as if their summary had come; a list of more than a '
  'hundred is then read like that of an event.';


create function billing_private.end_sweep(
  p_sweep_id uuid,
  p_error jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing_private.sweeps
  set status = case when p_error is null then 'finished' else 'failed' end,
      last_error = p_error,
      finished_at = billing_private.now()
  where id = p_sweep_id
    and status = 'running';
  if p_error is null then
    perform billing_private.request_payment_methods(p_sweep_id);
    perform billing_private.request_entitlements(p_sweep_id);
    perform billing_private.request_features(p_sweep_id);
  end if;
  perform billing_private.continue_sweeps();
end;
$$;

comment on function billing_private.end_sweep(uuid, jsonb) is
  'Ends a sweep, which failed if there is an error, and lets the next one begin.';


create function billing_private.interrupt_sweep(
  p_sweep_id uuid,
  p_response jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_sweep billing_private.sweeps;
begin
  update billing_private.sweeps
  set failures = failures + 1,
      last_error = p_response,
      -- Where the member it was to go on after is gone, it begins again.
      cursor = case
        when coalesce(p_response #>> '{error,param}' = 'starting_after', false) then null
        else cursor
      end
  where id = p_sweep_id
    and status = 'running'
  returning * into v_sweep;

  if v_sweep.cursor is null and v_sweep.pages > 0 and v_sweep.failures < 3 then
    perform billing_private.enqueue_sweep_page(v_sweep);
  elsif found then
    perform billing_private.end_sweep(p_sweep_id, p_response);
  end if;
end;
$$;

comment on function billing_private.interrupt_sweep(uuid, jsonb) is
  'What follows when Stripe refuses a page for good. The cursor stays, so that the sweep can go on '
  'when it is asked for again.';


create function billing_private.request_sweep(
  p_list_key text,
  p_is_backfill boolean,
  p_created_from timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_last billing_private.sweeps;
begin
  select * into v_last
  from billing_private.sweeps
  where list_key = p_list_key
  order by position desc
  limit 1;

  if v_last.status = 'failed' and v_last.is_backfill = p_is_backfill then
    update billing_private.sweeps
    set status = 'waiting',
        failures = 0,
        finished_at = null
    where id = v_last.id;
  elsif coalesce(v_last.status, 'finished') in ('finished', 'failed') then
    insert into billing_private.sweeps (list_key, is_backfill, created_from)
    values (p_list_key, p_is_backfill, p_created_from)
    on conflict do nothing;
  end if;
end;
$$;

comment on function billing_private.request_sweep(text, boolean, timestamptz) is
  'Puts a list in line to be swept, unless it is already; one that failed goes on where it was.';


-- -----------------------------------------------------------------------------
-- 40  publishing the catalog
-- -----------------------------------------------------------------------------

-- What differs from Stripe's newest snapshot is told to Stripe, one call at a time for each plan
-- and price; when it has answered, what follows from that. So it does not matter how often, or
-- when, anybody asks for it. No answer makes the same call again.

create function billing_private.newest_snapshot(p_stripe_object_id text)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select billing_private.parse_json(stripe_events.payload) #> '{data,object}'
    from billing_private.stripe_objects
    join billing_private.stripe_events using (event_id)
    where stripe_objects.object_id = p_stripe_object_id
  );
end;
$$;

comment on function billing_private.newest_snapshot(text) is
  'An object of Stripe''s as it is stored; null when it was never told of.';


create function billing_private.is_being_published(p_id uuid)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return exists (
    select
    from billing_private.commands
    where subject_id = p_id
      and status in ('pending', 'leased')
      and kind in ('create_product', 'create_price', 'update_product', 'update_price')
  );
end;
$$;

comment on function billing_private.is_being_published(uuid) is
  'True while a call about this plan or price has no answer.';


create function billing_private.publish_product(p_plan billing.plans)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_snapshot jsonb := billing_private.newest_snapshot(p_plan.stripe_product_id);
  v_default_price_id text := (
    select successor.stripe_price_id
    from billing.prices
    join billing.prices as successor on successor.id = prices.replaced_by
    where prices.stripe_price_id = billing_private.stripe_id(v_snapshot -> 'default_price')
  );
  v_params jsonb;
begin
  if p_plan.stripe_product_id is null then
    if billing_private.is_being_published(p_plan.id) then
      return 0;
    end if;
    -- An id of our own choice: the same plan cannot become two products.
    perform billing_private.enqueue_command(
      'create_product', null, '/v1/products',
      jsonb_strip_nulls(jsonb_build_object(
        'id', 'prod_' || p_plan.key,
        'name', p_plan.name,
        'description', nullif(p_plan.description, ''),
        'active', p_plan.is_active,
        'metadata', jsonb_build_object('plan_key', p_plan.key))),
      'POST', p_plan.id);
    return 1;
  elsif (p_plan.name, coalesce(p_plan.description, ''), to_jsonb(p_plan.is_active))
      is not distinct from (
        v_snapshot ->> 'name', coalesce(v_snapshot ->> 'description', ''), v_snapshot -> 'active')
    and v_default_price_id is null
  then
    return 0;
  end if;

  v_params := jsonb_build_object(
    'name', p_plan.name,
    'description', coalesce(p_plan.description, ''),
    'active', p_plan.is_active,
    'metadata', jsonb_build_object('plan_key', p_plan.key))
    || jsonb_strip_nulls(jsonb_build_object('default_price', v_default_price_id));
  -- The last wish counts, as long as nobody has told Stripe of the one before.
  update billing_private.commands
  set params = v_params
  where subject_id = p_plan.id
    and kind = 'update_product'
    and status = 'pending'
    and attempts = 0;
  if found or billing_private.is_being_published(p_plan.id) then
    return 0;
  end if;
  perform billing_private.enqueue_command(
    'update_product', null, format('/v1/products/%s', p_plan.stripe_product_id), v_params,
    'POST', p_plan.id, null, p_plan.stripe_product_id);
  return 1;
end;
$$;

comment on function billing_private.publish_product(billing.plans) is
  'Makes a plan a product at Stripe, or brings its product in step. Returns how many calls that '
  'takes now: 0 or 1.';


create function billing_private.tier_params(p_tiers jsonb)
returns jsonb
language plpgsql
immutable
set search_path = ''
as $$
begin
  return (
    select jsonb_agg(jsonb_strip_nulls(
      jsonb_build_object(
        'up_to', coalesce(nullif(tier -> 'up_to', 'null'), '"inf"'),
        'unit_amount_decimal', coalesce(tier ->> 'unit_amount_decimal', tier ->> 'unit_amount'),
        'flat_amount_decimal', coalesce(tier ->> 'flat_amount_decimal', tier ->> 'flat_amount')
      )) order by place)
    from jsonb_array_elements(p_tiers) with ordinality as listed (tier, place)
  );
end;
$$;

comment on function billing_private.tier_params(jsonb) is
  'A price''s tiers as parameters: Stripe writes null for the last one''s end, and reads inf.';


create function billing_private.price_params(
  p_price billing.prices,
  p_stripe_product_id text
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_is_tiered boolean := p_price.billing_scheme = 'tiered';
begin
  return jsonb_strip_nulls(jsonb_build_object(
    'product', p_stripe_product_id,
    'currency', p_price.currency,
    'unit_amount', case when not v_is_tiered then p_price.unit_amount_minor end,
    'unit_amount_decimal', case
      when not v_is_tiered and p_price.unit_amount_minor is null
        then p_price.unit_amount_decimal::text
    end,
    'billing_scheme', case when v_is_tiered then 'tiered' end,
    'tiers_mode', case when v_is_tiered then p_price.tiers_mode end,
    'tiers', case when v_is_tiered then billing_private.tier_params(p_price.tiers) end,
    'transform_quantity', case
      when p_price.package_size is not null then jsonb_build_object(
        'divide_by', p_price.package_size,
        'round', p_price.package_rounding)
    end,
    'recurring', case
      when p_price.billing_interval is not null then jsonb_build_object(
        'interval', p_price.billing_interval,
        'interval_count', p_price.interval_count,
        'usage_type', p_price.usage_type,
        'meter', p_price.stripe_meter_id)
    end,
    'lookup_key', p_price.key,
    'metadata', jsonb_build_object('price_id', p_price.id)));
end;
$$;

comment on function billing_private.price_params(billing.prices, text) is
  'A price as parameters of its creation. The id in its metadata leads every event back to it.';


create function billing_private.publish_price(
  p_price billing.prices,
  p_plan billing.plans
)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_snapshot jsonb := billing_private.newest_snapshot(p_price.stripe_price_id);
  v_changes jsonb;
begin
  if p_plan.stripe_product_id is null or billing_private.is_being_published(p_price.id) then
    return 0; -- follows when the product is there
  elsif p_price.stripe_price_id is null then
    if not p_price.is_active then
      return 0;
    end if;
    perform billing_private.enqueue_command(
      'create_price', null, '/v1/prices',
      billing_private.price_params(p_price, p_plan.stripe_product_id), 'POST', p_price.id);
    return 1;
  end if;

  v_changes := jsonb_strip_nulls(jsonb_build_object(
    'active', case
      when exists (
          select
          from billing.prices as successor
          where successor.id = p_price.replaced_by
            and successor.stripe_price_id is not null
        )
        -- Stripe keeps the default price of a product on sale.
        and p_price.stripe_price_id is distinct from billing_private.stripe_id(
          billing_private.newest_snapshot(p_plan.stripe_product_id) -> 'default_price')
        then case when v_snapshot -> 'active' = 'true' then false end
      when p_price.replaced_by is null and to_jsonb(p_price.is_active) <> v_snapshot -> 'active'
        then p_price.is_active
    end,
    'lookup_key', case when p_price.key <> coalesce(v_snapshot ->> 'lookup_key', '')
      then p_price.key end));
  if v_changes = '{}' then
    return 0;
  end if;
  perform billing_private.enqueue_command(
    'update_price', null, format('/v1/prices/%s', p_price.stripe_price_id),
    v_changes || case when v_changes ? 'lookup_key' then '{"transfer_lookup_key": true}'::jsonb
      else '{}' end,
    'POST', p_price.id, null, p_price.stripe_price_id);
  return 1;
end;
$$;

comment on function billing_private.publish_price(billing.prices, billing.plans) is
  'Makes a price of the catalog one at Stripe, or brings its activity and its key in step. Returns '
  'how many calls that takes now: 0 or 1.';


create function billing_private.publish_plans(
  p_plan_ids uuid[],
  p_answered uuid default null
)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_plan billing.plans;
  v_price billing.prices;
  v_count bigint := 0;
begin
  -- Alone: two at once would each find that nobody has asked Stripe yet.
  perform billing_private.lock_catalog('product');

  for v_plan in
    select * from billing.plans where id = any (p_plan_ids) order by tier_rank, key
  loop
    if v_plan.id is distinct from p_answered then
      v_count := v_count + billing_private.publish_product(v_plan);
    end if;
    for v_price in
      select *
      from billing.prices
      where plan_id = v_plan.id
        and id is distinct from p_answered
      order by created_at, key, id
    loop
      v_count := v_count + billing_private.publish_price(v_price, v_plan);
    end loop;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.publish_plans(uuid[], uuid) is
  'Brings Stripe in step with these plans and their prices, except for the one it has just '
  'answered about. Returns how many calls that takes now; more follow the answers.';


create function billing_private.catalog_published(
  p_command billing_private.commands,
  p_response jsonb,
  p_asked_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.apply_response(
    p_command, p_response,
    case p_command.kind
      when 'create_product' then 'product.created'
      when 'create_price' then 'price.created'
      when 'update_product' then 'product.updated'
      else 'price.updated'
    end,
    p_asked_at);

  perform billing_private.publish_plans(
    array(
      select id from billing.plans where id = p_command.subject_id
      union
      select plan_id from billing.prices where id = p_command.subject_id),
    p_command.subject_id);
end;
$$;

comment on function billing_private.catalog_published(
  billing_private.commands, jsonb, timestamptz
) is
  'Takes up what Stripe made of a plan or price, and goes on with what still differs.';


create function billing_private.replace_price(
  p_price billing.prices,
  p_unit_amount_minor bigint
)
returns billing.prices
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_new billing.prices := p_price;
begin
  v_new.id := gen_random_uuid();
  v_new.unit_amount_minor := p_unit_amount_minor;
  v_new.unit_amount_decimal := p_unit_amount_minor;
  v_new.created_at := billing_private.now();
  v_new.stripe_price_id := null;
  v_new.replaced_by := null;
  -- At Stripe the old one is sold until the new one is there, and gives the key away with it.
  v_new.key := case when p_price.stripe_price_id is null then p_price.key end;
  v_new.is_active := p_price.stripe_price_id is null;

  if p_price.stripe_price_id is null then
    update billing.prices set is_active = false, is_listed = false where id = p_price.id;
  end if;
  insert into billing.prices select v_new.* returning * into v_new;
  update billing.prices set replaced_by = v_new.id where id = p_price.id;

  if p_price.stripe_price_id is not null then
    perform billing_private.enqueue_command(
      'create_price', null, '/v1/prices',
      billing_private.price_params(v_new, p_price.stripe_product_id)
        || jsonb_build_object('lookup_key', p_price.key, 'transfer_lookup_key', true),
      'POST', v_new.id);
  end if;
  return v_new;
end;
$$;

comment on function billing_private.replace_price(billing.prices, bigint) is
  'Puts another amount on sale under a price''s key. Whoever has the price keeps it: neither here '
  'nor at Stripe does a price ever change what it costs.';


-- -----------------------------------------------------------------------------
-- 41  reporting usage to Stripe's meters
-- -----------------------------------------------------------------------------

create function billing_private.enqueue_meter_event(
  p_id uuid,
  p_account_id uuid,
  p_event_name text,
  p_value numeric,
  p_occurred_at timestamptz,
  p_problem jsonb default null
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_customer_id text := (
    select stripe_customer_id
    from billing.customers
    where account_id = p_account_id and is_primary and deleted_at is null
  );
  -- Limits of Stripe's: https://docs.stripe.com/api/billing/meter-event/create
  v_problem jsonb := case
    when p_occurred_at not between v_now - interval '35 days' and v_now + interval '5 minutes' then
      jsonb_build_object(
        'code', 'timestamp_out_of_range',
        'message', 'Stripe takes usage of the past 35 days, and up to 5 minutes ahead.')
    else p_problem
  end;
  v_meter billing_private.meters;
begin
  if v_customer_id is null then
    perform billing_private.fail('CUSTOMER_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  end if;
  select * into v_meter from billing_private.meters where event_name = p_event_name;

  -- In no account's line: a busy account's reports would hold up what its user waits for.
  insert into billing_private.commands (
    id, kind, path, params, status, last_error, finished_at, cause, request_id
  )
  values (
    p_id, 'meter_event', '/v1/billing/meter_events',
    jsonb_build_object(
      'event_name', p_event_name,
      'identifier', p_id,
      'timestamp', extract(epoch from p_occurred_at)::bigint,
      'payload', jsonb_build_object(
        coalesce(v_meter.customer_key, 'stripe_customer_id'), v_customer_id,
        coalesce(v_meter.value_key, 'value'), p_value::text)),
    case when v_problem is null then 'pending' else 'dead' end,
    case when v_problem is not null then jsonb_build_object('error', v_problem) end,
    case when v_problem is not null then v_now end,
    billing_private.cause(), billing_private.request_id()
  )
  on conflict (id) do nothing;
end;
$$;

comment on function billing_private.enqueue_meter_event(
  uuid, uuid, text, numeric, timestamptz, jsonb
) is
$$Reports usage to a meter of Stripe's, once for each id: it is Stripe's identifier as well.

Stripe knows an identifier again for 24 hours, so a report whose outcome is not known after 23 is
given up, as is one of a time Stripe does not take and one that has a problem of its own; all stand
in the command backlog.

Errors
  CUSTOMER_NOT_FOUND  404  the account is not known to Stripe$$;


-- Its body is long because it is a table of cases: what a meter makes of a number below zero.
create function billing_private.problem_of_correction(
  p_formula text,
  p_units numeric,
  p_report billing_private.commands,
  p_period_end timestamptz
)
returns jsonb
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  return case
    when p_formula not in ('sum', 'count') then jsonb_build_object(
      'code', 'meter_is_not_a_sum',
      'message', 'What this meter shows cannot be corrected by a difference.')
    when p_units > 0 then null
    when p_report.status in ('dead', 'declined') then jsonb_build_object(
      'code', 'usage_not_reported',
      'message', 'Stripe was not told of the usage this takes back.')
    -- An hour after its period Stripe finalizes an invoice, and does not touch it again:
    -- https://docs.stripe.com/billing/subscriptions/usage-based/meters/configure
    when p_period_end + interval '1 hour' <= v_now then jsonb_build_object(
      'code', 'period_already_invoiced',
      'message', 'Stripe takes nothing off an invoice that is final: give the difference back.')
    -- Of the 24 hours in which Stripe cancels an event one is for the way.
    when p_formula = 'count' and p_report.finished_at <= v_now - interval '23 hours' then
      jsonb_build_object(
        'code', 'too_old_to_cancel',
        'message', 'Stripe takes an event back within 24 hours: give the difference back.')
  end;
end;
$$;

comment on function billing_private.problem_of_correction(
  text, numeric, billing_private.commands, timestamptz
) is
  'Why Stripe''s meter cannot be told of a correction, as an error; null where it can.';


create function billing_private.cancel_report(
  p_id uuid,
  p_report billing_private.commands,
  p_problem jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Nobody has carried it yet: it stays here.
  update billing_private.commands
  set status = 'canceled',
      finished_at = billing_private.now()
  where id = p_report.id
    and status = 'pending'
    and attempts = 0;
  if found then
    return;
  end if;

  insert into billing_private.commands (
    id, kind, subject_id, path, params, status, last_error, finished_at, cause, request_id
  )
  values (
    p_id, 'cancel_meter_event', p_report.id, '/v1/billing/meter_event_adjustments',
    jsonb_build_object(
      'type', 'cancel',
      'event_name', p_report.params -> 'event_name',
      'cancel', jsonb_build_object('identifier', p_report.params -> 'identifier')),
    case when p_problem is null then 'pending' else 'dead' end,
    case when p_problem is not null then jsonb_build_object('error', p_problem) end,
    case when p_problem is not null then billing_private.now() end,
    billing_private.cause(), billing_private.request_id()
  );
end;
$$;

comment on function billing_private.cancel_report(uuid, billing_private.commands, jsonb) is
  'Takes a report to a meter back: before it goes out, or by asking Stripe to cancel it.';


create function billing_private.report_correction(
  p_correction billing.usage_records,
  p_event_name text,
  p_units numeric,
  p_period_end timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_formula text := coalesce(
    (select formula from billing_private.meters where event_name = p_event_name), 'sum');
  v_report billing_private.commands;
  v_problem jsonb;
begin
  -- The last one that adds to the record and was not taken back.
  select commands.* into v_report
  from billing.usage_records
  join billing_private.commands
    on commands.id = usage_records.id
    and commands.kind = 'meter_event'
    and commands.status <> 'canceled'
  where usage_records.account_id = p_correction.account_id
    and usage_records.feature_key = p_correction.feature_key
    and usage_records.occurred_at = p_correction.occurred_at
    and p_correction.corrects_key in (usage_records.idempotency_key, usage_records.corrects_key)
    and usage_records.quantity > 0
    and not exists (
      select
      from billing_private.commands as taken_back
      where taken_back.subject_id = commands.id
        and taken_back.kind = 'cancel_meter_event'
    )
  order by commands.position desc
  limit 1
  for update of commands;
  -- What Stripe was never to be told of it need not forget.
  if not found and p_units < 0 then
    return;
  end if;

  v_problem := billing_private.problem_of_correction(
    v_formula, p_units, v_report, p_period_end);
  if v_formula = 'count' and p_units < 0 then
    perform billing_private.cancel_report(p_correction.id, v_report, v_problem);
  elsif exists (
    select
    from billing.customers
    where account_id = p_correction.account_id and is_primary and deleted_at is null
  ) then
    perform billing_private.enqueue_meter_event(
      p_correction.id, p_correction.account_id, p_event_name, p_units, p_correction.occurred_at,
      v_problem);
  end if;
end;
$$;

comment on function billing_private.report_correction(
  billing.usage_records, text, numeric, timestamptz
) is
$$Tells Stripe's meter of a correction, p_units being what the total changes by: a sum takes it as a
number below zero, of a count the event is canceled. What Stripe does not take stands in the command
backlog as given up, with the reason.$$;


-- -----------------------------------------------------------------------------
-- 42  which invoices are overdue
-- -----------------------------------------------------------------------------

create function billing_private.dunning_state(
  p_invoice billing.invoices,
  p_subscription billing.subscriptions,
  out status text,
  out opened_at timestamptz,
  out closed_at timestamptz
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_is_sent boolean := p_invoice.stripe_invoice_id is null
    or coalesce(p_invoice.collection_method = 'send_invoice', false);
begin
  status := case
    when p_invoice.status = 'paid' then 'recovered'
    when p_invoice.status in ('void', 'uncollectible') or p_invoice.deleted_at is not null
      or p_subscription.ended_at is not null then 'closed'
    else 'open'
  end;
  closed_at := case
    when status = 'open' then null
    when p_invoice.status = 'paid' then p_invoice.paid_at
    else coalesce(
      p_invoice.deleted_at, p_invoice.voided_at, p_invoice.marked_uncollectible_at,
      p_subscription.ended_at)
  end;
  opened_at := case
    when v_is_sent and p_invoice.due_at <= coalesce(closed_at, billing_private.now())
      then p_invoice.due_at
    -- Whoever fails to pay the first invoice is still in the checkout; Stripe gives up by itself.
    when not v_is_sent and p_invoice.billing_reason is distinct from 'subscription_create'
      then coalesce(
        p_invoice.payment_failed_at,
        -- Nobody told of the failure, but the subscription is what only a failure makes it.
        case
          when p_invoice.status = 'open'
            and p_invoice.attempt_count > 0
            and p_subscription.status in ('past_due', 'unpaid')
            and p_subscription.stripe_latest_invoice_id = p_invoice.stripe_invoice_id
            then coalesce(p_invoice.finalized_at, p_invoice.issued_at)
        end)
  end;
end;
$$;

comment on function billing_private.dunning_state(billing.invoices, billing.subscriptions) is
  'Since when an invoice is or was overdue, and what has become of it; opened_at is null where it '
  'never was.';


create function billing_private.lock_dunning_cases(p_invoice_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform
  from billing.dunning_cases
  where invoice_id = any (p_invoice_ids)
  order by invoice_id
  for update;
end;
$$;

comment on function billing_private.lock_dunning_cases(uuid[]) is
  'Taken before cases are judged: not everybody who does holds the customer''s lock (a detached '
  'payment method names nobody), and what was judged before waiting would be written after it.';


-- Its body is long because it is two steps over one set, and one row, column by column.
create function billing_private.refresh_dunning_cases(p_invoice_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.lock_dunning_cases(p_invoice_ids);
  with overdue as (
    select
      invoices.account_id, invoices.id as invoice_id, subscriptions.id as subscription_id,
      coalesce(plans.dunning_policy_key, 'standard') as policy_key,
      state.status,
      -- What was overdue once stays a case, also where that turns out to be a guess.
      coalesce(state.opened_at, known.opened_at) as opened_at,
      state.closed_at
    from billing.invoices
    left join billing.dunning_cases as known on known.invoice_id = invoices.id
    left join lateral (
      select * from billing.subscriptions where id = invoices.subscription_id
      union all
      select *
      from billing.subscriptions
      where stripe_subscription_id = invoices.stripe_subscription_id
    ) as subscriptions on true
    left join billing.prices on prices.id = subscriptions.price_id
    left join billing.plans on plans.id = prices.plan_id
    cross join lateral billing_private.dunning_state(
      invoices, subscriptions::billing.subscriptions) as state
    where invoices.id = any (p_invoice_ids)
  )
  insert into billing.dunning_cases as stored (
    account_id, invoice_id, subscription_id, policy_key, status, opened_at, closed_at, runs_from
  )
  select
    account_id, invoice_id, subscription_id, policy_key, status, opened_at, closed_at,
    greatest(opened_at, billing_private.now() - interval '1 day')
  from overdue
  where opened_at is not null
  on conflict (invoice_id) do update
  set account_id = excluded.account_id,
      subscription_id = excluded.subscription_id,
      policy_key = excluded.policy_key,
      status = excluded.status,
      opened_at = excluded.opened_at,
      closed_at = excluded.closed_at,
      -- An earlier failure may be heard of later; what counts is when the first one was heard of.
      runs_from = greatest(excluded.opened_at, stored.created_at - interval '1 day')
  where (stored.account_id, stored.subscription_id, stored.policy_key, stored.opened_at,
      stored.closed_at, replace(stored.status, 'exhausted', 'open'))
    is distinct from
    (excluded.account_id, excluded.subscription_id, excluded.policy_key, excluded.opened_at,
      excluded.closed_at, excluded.status);

  -- What is settled needs no call any more that nobody has made.
  update billing_private.commands
  set status = 'canceled',
      finished_at = billing_private.now()
  where id in (
    select commands.id
    from billing.dunning_cases
    join billing.dunning_events on dunning_events.case_id = dunning_cases.id
    join billing_private.commands on commands.id = dunning_events.command_id
    where dunning_cases.invoice_id = any (p_invoice_ids)
      and dunning_cases.status in ('recovered', 'closed')
      and commands.status = 'pending'
      and commands.attempts = 0
    -- One that is being made just now waits for the lock of the customer, which is held here.
    for update of commands skip locked
  );

  -- Of several overdue invoices of a subscription only the latest is collected.
  perform billing_private.plan_dunning(p_invoice_ids || array(
    select siblings.invoice_id
    from billing.dunning_cases
    join billing.dunning_cases as siblings
      on siblings.subscription_id = dunning_cases.subscription_id
    where dunning_cases.invoice_id = any (p_invoice_ids)
      and siblings.status = 'open'));
end;
$$;

comment on function billing_private.refresh_dunning_cases(uuid[]) is
  'Brings the cases of these invoices in step with what is stored of them: opens, settles, plans.';


create function billing_private.open_due_cases(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice_ids uuid[] := array(
    select id
    from billing.invoices
    where status = 'open'
      and due_at <= billing_private.now()
      and not exists (
        select from billing.dunning_cases where dunning_cases.invoice_id = invoices.id
      )
    order by due_at
    limit p_limit
  );
begin
  perform billing_private.refresh_dunning_cases(v_invoice_ids);
  return cardinality(v_invoice_ids);
end;
$$;

comment on function billing_private.open_due_cases(integer) is
  'Opens cases for invoices that were sent and are due by now. Returns how many.';


create function billing_private.refresh_cases_of_invoices()
returns trigger
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice_ids uuid[];
begin
  if tg_op = 'INSERT' then
    select array_agg(id) into v_invoice_ids
    from rows_after
    where payment_failed_at is not null
      or due_at is not null
      or status = 'open' and attempt_count > 0;
  else
    select array_agg(id) into v_invoice_ids
    from rows_after as after
    join rows_before as before using (id)
    where (
        coalesce(after.payment_failed_at, after.due_at, before.payment_failed_at) is not null
        or after.status = 'open' and after.attempt_count > 0
        -- Opened by a guess that nothing bears out any more.
        or exists (select from billing.dunning_cases where invoice_id = after.id)
      )
      and (before.account_id, before.status, before.deleted_at, before.payment_failed_at,
          before.action_required_at, before.due_at, before.next_payment_attempt_at,
          before.paid_at, before.attempt_count > 0, before.stripe_subscription_id)
        is distinct from
        (after.account_id, after.status, after.deleted_at, after.payment_failed_at,
          after.action_required_at, after.due_at, after.next_payment_attempt_at,
          after.paid_at, after.attempt_count > 0, after.stripe_subscription_id);
  end if;

  if v_invoice_ids is not null then
    perform billing_private.refresh_dunning_cases(v_invoice_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_cases_of_invoices() is
  'Opens and settles dunning cases in the transaction that records a failure or a payment.';


create function billing_private.refresh_cases_of_subscriptions()
returns trigger
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice_ids uuid[];
begin
  if tg_op = 'INSERT' then
    select array_agg(invoices.id) into v_invoice_ids
    from rows_after
    join billing.invoices using (stripe_subscription_id)
    where invoices.payment_failed_at is not null
      or invoices.due_at is not null
      or invoices.status = 'open' and invoices.attempt_count > 0
      or exists (select from billing.dunning_cases where invoice_id = invoices.id);
  else
    select array_agg(concerned.invoice_id) into v_invoice_ids
    from rows_after as after
    join rows_before as before using (id)
    cross join lateral (
      -- Closed ones too: when a subscription ended may be told twice, and better the second time.
      select dunning_cases.invoice_id
      from billing.dunning_cases
      where dunning_cases.subscription_id = after.id
      union
      select invoices.id
      from billing.invoices
      where invoices.stripe_invoice_id = after.stripe_latest_invoice_id
        and invoices.status = 'open'
        and invoices.attempt_count > 0
        and after.status in ('past_due', 'unpaid')
    ) as concerned
    where (before.status, before.price_id, before.ended_at,
        before.stripe_default_payment_method_id)
      is distinct from
      (after.status, after.price_id, after.ended_at, after.stripe_default_payment_method_id)
      or after.status in ('past_due', 'unpaid')
        and before.stripe_latest_invoice_id is distinct from after.stripe_latest_invoice_id;
  end if;

  if v_invoice_ids is not null then
    perform billing_private.refresh_dunning_cases(v_invoice_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_cases_of_subscriptions() is
  'Keeps dunning cases in step with the subscription they are about: its end, its plan, its card.';


create function billing_private.refresh_cases_of_methods()
returns trigger
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice_ids uuid[];
begin
  -- Not those of the account's other customers: they pay with their own methods, and whoever writes
  -- them holds their customer's lock.
  select array_agg(dunning_cases.invoice_id) into v_invoice_ids
  from rows_after
  join billing.dunning_cases on dunning_cases.account_id = rows_after.account_id
  join billing.invoices on invoices.id = dunning_cases.invoice_id
  where dunning_cases.status = 'open'
    and invoices.stripe_customer_id = rows_after.stripe_customer_id;

  if v_invoice_ids is not null then
    perform billing_private.plan_dunning(v_invoice_ids);
  end if;
  return null;
end;
$$;

comment on function billing_private.refresh_cases_of_methods() is
  'Plans cases anew when a payment method came or went, or became the default.';


create function billing_private.refresh_cases_of_customer(p_stripe_customer_id text)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_invoice_ids uuid[];
begin
  select array_agg(invoices.id) into v_invoice_ids
  from billing.invoices
  join billing.dunning_cases on dunning_cases.invoice_id = invoices.id
  where invoices.stripe_customer_id = p_stripe_customer_id
    and dunning_cases.status = 'open';

  if v_invoice_ids is not null then
    perform billing_private.plan_dunning(v_invoice_ids);
  end if;
end;
$$;

comment on function billing_private.refresh_cases_of_customer(text) is
  'Plans a customer''s cases anew when one of its attempts to pay is heard of.';


create trigger t060_dunning_of_inserts
  after insert on billing.invoices
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_cases_of_invoices();

create trigger t060_dunning_of_updates
  after update on billing.invoices
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.refresh_cases_of_invoices();

create trigger t060_dunning_of_inserts
  after insert on billing.subscriptions
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_cases_of_subscriptions();

create trigger t060_dunning_of_updates
  after update on billing.subscriptions
  referencing old table as rows_before new table as rows_after
  for each statement execute function billing_private.refresh_cases_of_subscriptions();

create trigger t060_dunning_of_updates
  after update on billing.customers
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_cases_of_methods();

create trigger t060_dunning_of_inserts
  after insert on billing.payment_methods
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_cases_of_methods();

create trigger t060_dunning_of_updates
  after update on billing.payment_methods
  referencing new table as rows_after
  for each statement execute function billing_private.refresh_cases_of_methods();


-- -----------------------------------------------------------------------------
-- 43  whether and when to collect again
-- -----------------------------------------------------------------------------

create function billing_private.is_hard_decline(p_decline billing_private.declines)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  return coalesce(
      p_decline.decline_code in (
        'authentication_required', 'highest_risk_level', 'incorrect_number', 'lost_card',
        'pickup_card', 'revocation_of_all_authorizations', 'revocation_of_authorization',
        'stolen_card', 'transaction_not_allowed'
      ), false)
    or coalesce(p_decline.advice_code in ('do_not_try_again', 'confirm_card_data'), false)
    -- Mastercard's 03 and 21: never again.
    or coalesce(p_decline.network_advice_code in ('03', '21'), false)
    -- What a Visa issuer will never approve, and 14: there is no such account.
    or coalesce(
      p_decline.network_decline_code in ('04', '14', '41', '43', '46', 'R0', 'R1', 'R3'), false);
end;
$$;

comment on function billing_private.is_hard_decline(billing_private.declines) is
$$True when the same card must not be charged again for it.

The codes Stripe does not retry
(https://docs.stripe.com/billing/revenue-recovery/smart-retries#non-retryable-decline-codes), the
advice of bank and network
(https://docs.stripe.com/declines/card#retrying-issuer-declines).$$;


create function billing_private.retry_instant(
  p_policy billing.dunning_policies,
  p_opened_at timestamptz,
  p_retries integer,
  p_attempts timestamptz[],
  p_at_once boolean,
  p_now timestamptz
)
returns timestamptz
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_latest timestamptz[] := array(
    select attempt from unnest(p_attempts) as attempt order by attempt desc
  );
  v_at timestamptz := p_now;
begin
  if p_retries >= least(p_policy.max_retries, cardinality(p_policy.retry_offsets)) then
    return null;
  end if;
  if not p_at_once then
    v_at := greatest(v_at, p_opened_at + coalesce(
      p_policy.retry_offsets[p_retries + 1], interval '1 day' * 2 ^ least(p_retries, 10)));
  end if;

  -- Visa allows 15 attempts in 30 days, Mastercard 10 in a day and 35 in 30 days; a day between two
  -- and 8 in 14 days is what Stripe itself keeps to.
  v_at := greatest(
    v_at,
    v_latest[1] + interval '24 hours',
    v_latest[8] + interval '14 days',
    v_latest[15] + interval '30 days');
  return case when v_at <= p_opened_at + p_policy.retry_window then v_at end;
end;
$$;

comment on function billing_private.retry_instant(
  billing.dunning_policies, timestamptz, integer, timestamptz[], boolean, timestamptz
) is
$$When an invoice may be collected next, or null when no more.

p_retries: how often we have tried. p_attempts: when the card was tried, by whomever, at least in
the last 30 days. p_at_once: for another card than the one that failed, which waits for no offset.

Limits of the networks: https://docs.stripe.com/declines#card-network-retry-limits.$$;


create function billing_private.charged_method(p_invoice billing.invoices)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(
    (
      select stripe_default_payment_method_id
      from billing.subscriptions
      where stripe_subscription_id = p_invoice.stripe_subscription_id
    ),
    (
      select stripe_default_payment_method_id
      from billing.customers
      where stripe_customer_id = p_invoice.stripe_customer_id
    ));
end;
$$;

comment on function billing_private.charged_method(billing.invoices) is
  'The payment method Stripe charges for an invoice: the subscription''s own default before the '
  'customer''s, so that a new card in the wrong place changes nothing.';


create function billing_private.blocked_by(
  p_case billing.dunning_cases,
  p_invoice billing.invoices
)
returns text
language plpgsql
stable
set search_path = ''
as $$
begin
  return case
    when p_invoice.stripe_invoice_id is null
      or coalesce(p_invoice.collection_method = 'send_invoice', false) then 'sent_invoice'
    when p_invoice.next_payment_attempt_at is not null then 'stripe_retries'
    when p_case.account_id is null then 'no_customer'
    when exists (
      select
      from billing_private.commands
      where account_id = p_case.account_id
        and status in ('pending', 'leased')
        and kind = 'pay_invoice'
        and target_object_id = p_invoice.stripe_invoice_id
    ) then 'in_progress'
    when exists (
      select
      from billing.dunning_events
      where case_id = p_case.id
        and action in ('mark_uncollectible', 'cancel')
    ) then 'given_up'
    -- Paying the latest is what makes a subscription active again.
    when exists (
      select
      from billing.dunning_cases as other
      join billing.invoices as later on later.id = other.invoice_id
      where other.subscription_id = p_case.subscription_id
        and other.id <> p_case.id
        and other.status in ('open', 'exhausted')
        and (later.issued_at, later.id) > (p_invoice.issued_at, p_invoice.id)
    ) then 'later_invoice'
  end;
end;
$$;

comment on function billing_private.blocked_by(billing.dunning_cases, billing.invoices) is
  'Why an overdue invoice is not for us to collect now, apart from its payment method.';


-- Its body is long because it weighs one card's past from every side.
create function billing_private.plan_retry(
  p_case billing.dunning_cases,
  out next_retry_at timestamptz,
  out blocked_by text
)
language plpgsql
stable
set search_path = ''
as $$
declare
  v_invoice billing.invoices;
  v_policy billing.dunning_policies;
  v_method billing.payment_methods;
  v_method_id text;
  v_latest billing_private.declines;
  v_attempts timestamptz[];
  v_is_other boolean;
begin
  select * into strict v_invoice from billing.invoices where id = p_case.invoice_id;
  select * into strict v_policy from billing.dunning_policies where key = p_case.policy_key;
  blocked_by := billing_private.blocked_by(p_case, v_invoice);
  if blocked_by is not null then
    return;
  end if;

  v_method_id := billing_private.charged_method(v_invoice);
  select * into v_method
  from billing.payment_methods
  where stripe_payment_method_id = v_method_id;
  if v_method_id is null or v_method.detached_at is not null then
    blocked_by := 'no_payment_method';
    return;
  elsif v_method.fingerprint_hash is null then
    blocked_by := 'unknown_method';
    return;
  end if;

  select * into v_latest
  from billing_private.declines
  where method_hash = v_method.fingerprint_hash
  order by declined_at desc, stripe_charge_id desc
  limit 1;
  -- Another card failed since, and this one has not: it waits for nothing.
  v_is_other := exists (
      select
      from billing_private.declines
      where stripe_customer_id = v_invoice.stripe_customer_id
        and declined_at >= p_case.opened_at - interval '1 hour'
        and method_hash <> v_method.fingerprint_hash
    )
    and coalesce(v_latest.declined_at < p_case.opened_at - interval '1 hour', true);

  if billing_private.is_hard_decline(v_latest) and not exists (
    select
    from billing.payments
    where stripe_customer_id = v_invoice.stripe_customer_id
      and stripe_payment_method_id = v_method_id
      and paid_at > v_latest.declined_at
  ) then
    blocked_by := case v_latest.decline_code
      when 'authentication_required' then 'customer_action'
      else 'hard_decline'
    end;
    return;
  elsif v_invoice.action_required_at is not null
    and not v_is_other
    and v_method.created_at <= v_invoice.action_required_at
  then
    blocked_by := 'customer_action';
    return;
  end if;

  v_attempts := array(
    select declined_at
    from billing_private.declines
    where method_hash = v_method.fingerprint_hash
      and declined_at > billing_private.now() - interval '30 days'
  );
  -- One of ours whose end nobody has heard of.
  if not v_is_other
    and p_case.last_retry_at > coalesce(v_latest.declined_at, '-infinity')
  then
    v_attempts := v_attempts || p_case.last_retry_at;
  end if;
  next_retry_at := billing_private.retry_instant(
    v_policy, p_case.opened_at, p_case.retries, v_attempts, v_is_other, billing_private.now());
  if next_retry_at is null then
    blocked_by := 'retries_used';
  end if;
end;
$$;

comment on function billing_private.plan_retry(billing.dunning_cases) is
  'When we collect an overdue invoice again, or what has to happen first.';


-- Its body is long because it is one statement over a set.
create function billing_private.plan_dunning(p_invoice_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  perform billing_private.lock_dunning_cases(p_invoice_ids);
  with planned as (
    select
      dunning_cases.id,
      case when is_over then 'over' end as over,
      reached.action as stage,
      case when not is_over then coming.at end as next_stage_at,
      case when not is_over then retry.next_retry_at end as next_retry_at,
      case when not is_over then retry.blocked_by end as blocked_by
    from billing.dunning_cases
    cross join lateral (
      select dunning_cases.status in ('recovered', 'closed') as is_over
    ) as settled
    left join lateral (
      select dunning_events.action
      from billing.dunning_events
      where dunning_events.case_id = dunning_cases.id
        and dunning_events.stage_id is not null
        and not settled.is_over
      order by dunning_events.planned_at desc, dunning_events.action
      limit 1
    ) as reached on true
    cross join lateral (
      select min(dunning_cases.runs_from + dunning_stages.begins_after) as at
      from billing.dunning_stages
      where dunning_stages.policy_key = dunning_cases.policy_key
        and not exists (
          select
          from billing.dunning_events
          where dunning_events.case_id = dunning_cases.id
            and dunning_events.stage_id = dunning_stages.id
        )
    ) as coming
    left join lateral billing_private.plan_retry(dunning_cases) as retry on not settled.is_over
    where dunning_cases.invoice_id = any (p_invoice_ids)
  ),
  judged as (
    select
      planned.*,
      planned.over is null and next_stage_at is null
        and coalesce(blocked_by in ('retries_used', 'given_up'), false) as is_exhausted
    from planned
  )
  update billing.dunning_cases
  set status = case
        when judged.over is not null then dunning_cases.status
        when judged.is_exhausted then 'exhausted'
        else 'open'
      end,
      stage = judged.stage,
      next_stage_at = judged.next_stage_at,
      next_retry_at = judged.next_retry_at,
      blocked_by = judged.blocked_by,
      due_at = case
        when judged.over is null and not judged.is_exhausted
          and dunning_cases.account_id is not null
          then least(judged.next_stage_at, judged.next_retry_at, v_now + interval '1 day')
      end
  from judged
  where dunning_cases.id = judged.id
    and (
      (dunning_cases.stage, dunning_cases.next_stage_at, dunning_cases.next_retry_at,
          dunning_cases.blocked_by, dunning_cases.status = 'exhausted')
        is distinct from
        (judged.stage, judged.next_stage_at, judged.next_retry_at, judged.blocked_by,
          judged.is_exhausted)
      or (dunning_cases.due_at is null or dunning_cases.due_at <= v_now)
        is distinct from (judged.over is not null or judged.is_exhausted)
    );
end;
$$;

comment on function billing_private.plan_dunning(uuid[]) is
  'Notes what comes next for the cases of these invoices, and when run_dunning is to look at them.';


-- -----------------------------------------------------------------------------
-- 44  doing what dunning policies say
-- -----------------------------------------------------------------------------

create function billing_private.enqueue_invoice_command(
  p_kind text,
  p_case billing.dunning_cases,
  p_path text
)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id uuid;
begin
  insert into billing_private.commands (
    kind, account_id, subscription_id, method, path, target_object_id, cause
  )
  select
    p_kind, p_case.account_id, p_case.subscription_id, 'POST',
    format(p_path, stripe_invoice_id), stripe_invoice_id, billing_private.cause()
  from billing.invoices
  where id = p_case.invoice_id
  returning id into strict v_id;
  return v_id;
end;
$$;

comment on function billing_private.enqueue_invoice_command(text, billing.dunning_cases, text) is
  'Writes a call to Stripe about an overdue invoice into the outbox and returns its id.';


create function billing_private.run_stage(
  p_case billing.dunning_cases,
  p_stage billing.dunning_stages
)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_planned_at timestamptz := p_case.runs_from + p_stage.begins_after;
  v_command_id uuid;
begin
  if p_stage.action = 'cancel' and not billing_private.is_confirmed(p_case, v_planned_at) then
    return false;
  end if;

  v_command_id := case p_stage.action
    when 'mark_uncollectible' then billing_private.write_off(p_case)
    when 'cancel' then billing_private.end_overdue_subscription(p_case)
  end;
  insert into billing.dunning_events (
    case_id, account_id, stage_id, action, planned_at, command_id
  )
  values (
    p_case.id, p_case.account_id, p_stage.id, p_stage.action, v_planned_at, v_command_id
  );
  return true;
end;
$$;

comment on function billing_private.run_stage(billing.dunning_cases, billing.dunning_stages) is
  'Does what a stage says, once per case; false when Stripe has to be asked first. What read_only '
  'and suspend leave is read from the policy itself, so access changes on time without this.';


create function billing_private.is_confirmed(
  p_case billing.dunning_cases,
  p_planned_at timestamptz
)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_stripe_invoice_id text := (
    select stripe_invoice_id from billing.invoices where id = p_case.invoice_id
  );
begin
  if v_stripe_invoice_id is null or exists (
    select
    from billing_private.stripe_events
    where object_id = v_stripe_invoice_id
      and source = 'reread'
      and received_at >= p_planned_at
  ) then
    return true;
  end if;
  -- It may have been paid while nobody told us: what cannot be undone waits for Stripe's word.
  perform billing_private.request_reread('invoice', v_stripe_invoice_id, 'dunning');
  return false;
end;
$$;

comment on function billing_private.is_confirmed(billing.dunning_cases, timestamptz) is
  'True when Stripe has been asked since a stage was due whether the invoice is still unpaid; asks '
  'it otherwise.';


create function billing_private.write_off(p_case billing.dunning_cases)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
begin
  if exists (
    select from billing.invoices where id = p_case.invoice_id and stripe_invoice_id is not null
  ) then
    return billing_private.enqueue_invoice_command(
      'mark_uncollectible', p_case, '/v1/invoices/%s/mark_uncollectible');
  end if;
  perform billing_private.close_invoice(p_case.invoice_id, 'uncollectible');
  return null;
end;
$$;

comment on function billing_private.write_off(billing.dunning_cases) is
  'Gives an invoice up as uncollectible: Stripe''s by command, ours here.';


create function billing_private.end_overdue_subscription(p_case billing.dunning_cases)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_subscription billing.subscriptions;
begin
  select * into v_subscription
  from billing.subscriptions
  where id = p_case.subscription_id
    and ended_at is null;

  if v_subscription.provider = 'stripe' then
    perform billing_private.cancel_stripe_subscription(v_subscription, false);
    return (billing_private.last_asked(v_subscription.id, '{cancel_subscription}')).id;
  end if;

  update billing.subscriptions
  set status = 'canceled',
      canceled_at = v_now,
      cancellation_reason = 'payment_failed',
      ended_at = v_now,
      past_due_since = null,
      pending_price_id = null,
      pending_quantity = null,
      pending_change_at = null,
      updated_at = v_now
  where id = v_subscription.id;
  return null;
end;
$$;

comment on function billing_private.end_overdue_subscription(billing.dunning_cases) is
  'Ends the subscription an overdue invoice is for: Stripe''s by command, ours here.';


create function billing_private.retry_overdue(p_case billing.dunning_cases)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_plan record := billing_private.plan_retry(p_case);
begin
  if v_plan.blocked_by = 'unknown_method' then
    perform billing_private.request_reread(
      'payment_method', billing_private.charged_method(invoices), 'dunning')
    from billing.invoices
    where id = p_case.invoice_id;
  end if;
  if coalesce(v_plan.next_retry_at > v_now, true) then
    return;
  end if;

  insert into billing.dunning_events (case_id, account_id, action, planned_at, command_id)
  values (
    p_case.id, p_case.account_id, 'retry', v_plan.next_retry_at,
    billing_private.enqueue_invoice_command('pay_invoice', p_case, '/v1/invoices/%s/pay')
  );
  update billing.dunning_cases
  set retries = retries + 1,
      last_retry_at = v_now
  where id = p_case.id;
end;
$$;

comment on function billing_private.retry_overdue(billing.dunning_cases) is
  'Asks Stripe to collect an overdue invoice, if that is due.';


create function billing_private.run_dunning_case(p_case_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_case billing.dunning_cases;
  v_stage billing.dunning_stages;
begin
  select * into strict v_case from billing.dunning_cases where id = p_case_id for update;

  for v_stage in
    select *
    from billing.dunning_stages
    where policy_key = v_case.policy_key
      and v_case.runs_from + begins_after <= billing_private.now()
      and not exists (
        select
        from billing.dunning_events
        where dunning_events.case_id = v_case.id
          and dunning_events.stage_id = dunning_stages.id
      )
    order by begins_after, action desc
  loop
    exit when v_case.status <> 'open' or not billing_private.run_stage(v_case, v_stage);
    select * into strict v_case from billing.dunning_cases where id = p_case_id;
  end loop;

  if v_case.status = 'open' then
    perform billing_private.retry_overdue(v_case);
  end if;
  perform billing_private.plan_dunning(array[v_case.invoice_id]);
end;
$$;

comment on function billing_private.run_dunning_case(uuid) is
  'Runs the stages of an open case that are due, in their order, and retries where that is due.';


create function billing_private.note_refused_payment(
  p_command billing_private.commands,
  p_error jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- The charge's own event says the same, and may be hours away.
  insert into billing_private.declines (
    stripe_charge_id, stripe_payment_key, stripe_customer_id, stripe_payment_method_id,
    method_hash, decline_code, advice_code, network_advice_code, network_decline_code, declined_at
  )
  select
    p_error ->> 'charge',
    coalesce(billing_private.stripe_id(p_error -> 'payment_intent'), p_error ->> 'charge'),
    invoices.stripe_customer_id,
    billing_private.stripe_id(p_error -> 'payment_method'),
    billing_private.method_hash(
      p_error #>> '{payment_method,type}', p_error -> 'payment_method',
      billing_private.stripe_id(p_error -> 'payment_method')),
    coalesce(p_error ->> 'decline_code', p_error ->> 'code'),
    p_error ->> 'advice_code',
    p_error ->> 'network_advice_code',
    p_error ->> 'network_decline_code',
    billing_private.now()
  from billing.invoices
  where invoices.stripe_invoice_id = p_command.target_object_id
    and p_error ->> 'charge' is not null
  on conflict (stripe_charge_id) do nothing;

  perform billing_private.plan_dunning(array(
    select id from billing.invoices where stripe_invoice_id = p_command.target_object_id));
end;
$$;

comment on function billing_private.note_refused_payment(billing_private.commands, jsonb) is
  'Keeps why Stripe could not collect an invoice when we asked it to.';


-- -----------------------------------------------------------------------------
-- 45  discount codes
-- -----------------------------------------------------------------------------

create function billing_private.discount_code(p_code text)
returns billing_private.discount_codes
language plpgsql
stable
set search_path = ''
as $$
declare
  v_code billing_private.discount_codes;
begin
  select * into v_code
  from billing_private.discount_codes
  where lower(code) = lower(btrim(p_code));
  return v_code;
end;
$$;

comment on function billing_private.discount_code(text) is
  'Our own code behind what a user types, whatever has become of it; null where there is none.';


create function billing_private.was_billed(p_account_id uuid)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return exists (
    select
    from billing.invoices
    where account_id = p_account_id
      and status in ('open', 'paid', 'uncollectible')
  ) or exists (
    select
    from billing.payments
    where account_id = p_account_id
      and status = 'succeeded'
  );
end;
$$;

comment on function billing_private.was_billed(uuid) is
  'Whether an account had an invoice or a payment so far.';


create function billing_private.refusal_of_code(
  p_code billing_private.discount_codes,
  p_price billing.prices,
  p_quantity bigint,
  p_account_id uuid,
  p_is_at_stripe boolean
)
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_plan_key text;
  v_store_key text;
begin
  select plans.key, stores.key into v_plan_key, v_store_key
  from billing.plans
  left join billing.stores on stores.id = plans.store_id
  where plans.id = p_price.plan_id;

  -- Unknown, over and used up are one answer: guessing is not to find the codes there were.
  return case
    when p_code.id is null
      or p_code.deactivated_at is not null
      or p_code.expires_at <= billing_private.now()
      or (
        select count(*)
        from billing.discount_redemptions
        where discount_code_id = p_code.id
          and status <> 'released'
      ) >= p_code.max_redemptions
      then 'not_valid'
    when p_code.currency <> p_price.currency
      or not coalesce(p_price.key = any (p_code.price_keys), p_code.price_keys is null)
      or not coalesce(v_plan_key = any (p_code.plan_keys), p_code.plan_keys is null)
      or not coalesce(v_store_key = any (p_code.store_keys), p_code.store_keys is null)
      -- Stripe's coupons last for months.
      or p_is_at_stripe and p_code.periods > 1
        and p_price.billing_interval is distinct from 'month'
        and p_price.billing_interval is distinct from 'year'
      then 'not_for_this_price'
    when coalesce(billing_private.amount_of(p_price, p_quantity), 0) < p_code.minimum_amount_minor
      then 'below_minimum'
    when (
      select count(*)
      from billing.discount_redemptions
      where discount_code_id = p_code.id
        and account_id = p_account_id
        and status <> 'released'
    ) >= p_code.max_per_account
      then 'already_used'
    when p_code.first_time_only and billing_private.was_billed(p_account_id)
      then 'first_time_only'
  end;
end;
$$;

comment on function billing_private.refusal_of_code(
  billing_private.discount_codes, billing.prices, bigint, uuid, boolean
) is
  'Why an account cannot use a code for a purchase (as in billing.discount_quote), or null where '
  'it can. p_is_at_stripe: it is for a checkout, not for a manual subscription.';


create function billing_private.take_code(
  p_code_id uuid,
  p_price billing.prices,
  p_quantity bigint,
  p_account_id uuid,
  p_is_at_stripe boolean
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_code billing_private.discount_codes;
  v_reason text;
begin
  -- Only who might take the last one has to wait for others. The count is a later statement, which
  -- sees what they did.
  if exists (
    select
    from billing_private.discount_codes
    where id = p_code_id
      and max_redemptions is not null
  ) then
    select * into v_code
    from billing_private.discount_codes
    where id = p_code_id
    for no key update;
  else
    select * into v_code from billing_private.discount_codes where id = p_code_id for share;
  end if;

  v_reason := billing_private.refusal_of_code(
    v_code, p_price, p_quantity, p_account_id, p_is_at_stripe);
  if v_reason is not null then
    perform billing_private.fail('DISCOUNT_NOT_VALID', jsonb_build_object(
      'field', 'discount_code', 'reason', v_reason));
  end if;
end;
$$;

comment on function billing_private.take_code(
  uuid, billing.prices, bigint, uuid, boolean
) is
  'Makes sure that a code is there to be used until the transaction ends (DISCOUNT_NOT_VALID, '
  '422). The account is locked.';


create function billing_private.reserve_code(p_checkout billing.checkout_sessions)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_price billing.prices;
begin
  if p_checkout.discount_code_id is null then
    return;
  end if;
  select * into strict v_price from billing.prices where id = p_checkout.price_id;
  perform billing_private.take_code(
    p_checkout.discount_code_id, v_price, p_checkout.quantity, p_checkout.account_id, true);
  insert into billing.discount_redemptions (discount_code_id, account_id, checkout_id, status)
  values (p_checkout.discount_code_id, p_checkout.account_id, p_checkout.id, 'reserved');
end;
$$;

comment on function billing_private.reserve_code(billing.checkout_sessions) is
  'Keeps the code a checkout names for it, until it is complete or given up.';


create function billing_private.follow_checkouts()
returns trigger
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Also where a checkout that was closed here was completed at Stripe all the same: what Stripe
  -- gave is given, be it one more than the limit.
  update billing.discount_redemptions
  set status = case rows_after.status
    when 'complete' then 'confirmed'
    when 'creating' then 'reserved'
    when 'open' then 'reserved'
    else 'released'
  end
  from rows_after
  where discount_redemptions.checkout_id = rows_after.id
    and rows_after.discount_code_id is not null
    and discount_redemptions.status <> case rows_after.status
      when 'complete' then 'confirmed'
      when 'creating' then 'reserved'
      when 'open' then 'reserved'
      else 'released'
    end;
  return null;
end;
$$;

comment on function billing_private.follow_checkouts() is
  'Confirms the code of a checkout that is complete, and gives it back where it will not be.';

create trigger t070_discounts_of_updates
  after update on billing.checkout_sessions
  referencing new table as rows_after
  for each statement execute function billing_private.follow_checkouts();


create function billing_private.coupon_months(
  p_code billing_private.discount_codes,
  p_price billing.prices
)
returns integer
language plpgsql
immutable
set search_path = ''
as $$
begin
  return case when p_code.periods > 1 then
    p_code.periods * p_price.interval_count
      * case p_price.billing_interval when 'year' then 12 else 1 end
  end;
end;
$$;

comment on function billing_private.coupon_months(
  billing_private.discount_codes, billing.prices
) is
  'How many months Stripe takes a code off that is for several periods of a price; null for once '
  'and for ever.';


create function billing_private.coupon_id(
  p_code billing_private.discount_codes,
  p_price billing.prices
)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return concat_ws(
    '_', 'code', replace(p_code.id::text, '-', ''),
    billing_private.coupon_months(p_code, p_price) || 'm');
end;
$$;

comment on function billing_private.coupon_id(billing_private.discount_codes, billing.prices) is
  'The coupon that stands for a code at Stripe: one for each number of months it comes to.';


create function billing_private.ensure_coupon(
  p_code billing_private.discount_codes,
  p_price billing.prices,
  p_account_id uuid
)
returns text
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id text := billing_private.coupon_id(p_code, p_price);
  v_months integer := billing_private.coupon_months(p_code, p_price);
begin
  if exists (
    select
    from billing.coupons
    where stripe_coupon_id = v_id
      and deleted_at is null
  ) then
    return v_id;
  end if;

  -- In the account's own line, before its checkout. Of two accounts at once the second is told that
  -- there is such a coupon, which is looked up and found.
  perform billing_private.enqueue_command(
    'create_coupon', p_account_id, '/v1/coupons',
    jsonb_strip_nulls(jsonb_build_object(
      'id', v_id,
      'name', left(p_code.code, 40),
      'percent_off', p_code.percent_off,
      'amount_off', p_code.amount_off_minor,
      'currency', case when p_code.amount_off_minor is not null then p_code.currency end,
      'duration', case
        when p_code.periods is null then 'forever'
        when v_months is null then 'once'
        else 'repeating'
      end,
      'duration_in_months', v_months)));
  return v_id;
end;
$$;

comment on function billing_private.ensure_coupon(
  billing_private.discount_codes, billing.prices, uuid
) is
  'The coupon that stands for a code at Stripe, which is asked for it where it is not known yet. '
  'Nobody can type it: the code''s limits are kept here.';


create type billing.discount_quote as (
  is_valid boolean,
  reason text,
  percent_off numeric,
  amount_off_minor bigint,
  periods integer,
  currency text,
  amount_minor bigint,
  discount_minor bigint,
  total_minor bigint
);

comment on type billing.discount_quote is
  'What a code would take off the first period of a price. reason, where it cannot be used: '
  'not_valid (unknown, over or used up), not_for_this_price, below_minimum, already_used, '
  'first_time_only. periods: how many it is taken off, null for all.';


create function billing_private.discount_of(
  p_code billing_private.discount_codes,
  p_amount_minor bigint
)
returns bigint
language plpgsql
immutable
set search_path = ''
as $$
begin
  -- A fraction of the smallest unit is rounded half up, once.
  return least(
    greatest(p_amount_minor, 0),
    coalesce(
      p_code.amount_off_minor, round(greatest(p_amount_minor, 0) * p_code.percent_off / 100)));
end;
$$;

comment on function billing_private.discount_of(billing_private.discount_codes, bigint) is
  'What a code takes off what a period costs: never more than that.';


create function billing_private.stripe_code(
  p_code text,
  p_account_id uuid
)
returns billing_private.discount_codes
language plpgsql
stable
set search_path = ''
as $$
declare
  v_code billing_private.discount_codes;
begin
  select
    promotion_codes.id, promotion_codes.code, coupons.percent_off, coupons.amount_off_minor,
    coalesce(coupons.currency, promotion_codes.minimum_currency), promotion_codes.first_time_only,
    promotion_codes.minimum_amount_minor, case coupons.duration when 'once' then 1 end
  into
    v_code.id, v_code.code, v_code.percent_off, v_code.amount_off_minor, v_code.currency,
    v_code.first_time_only, v_code.minimum_amount_minor, v_code.periods
  from billing_private.promotion_codes
  join billing.coupons using (stripe_coupon_id)
  where stripe_promotion_code_id
    = billing_private.redeemable_promotion_code(p_code, p_account_id);
  return v_code;
end;
$$;

comment on function billing_private.stripe_code(text, uuid) is
  'What a code of Stripe''s gives, told as one of ours; null where the account cannot use it. Its '
  'limits are Stripe''s to count.';


create function billing_private.caller_address()
returns text
language plpgsql
stable
set search_path = ''
as $$
declare
  v_headers jsonb := nullif(current_setting('request.headers', true), '')::jsonb;
begin
  -- What the platform's edge writes itself comes before what a caller may have written.
  return left(
    btrim(coalesce(
      v_headers ->> 'cf-connecting-ip', split_part(v_headers ->> 'x-forwarded-for', ',', 1))),
    100);
exception when invalid_text_representation or untranslatable_character then
  return null;
end;
$$;

comment on function billing_private.caller_address() is
  'The address a Data API request came from, as far as its headers tell; null outside of one.';


create function billing_private.guessers()
returns table (subject_hash text, most integer)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select billing_private.salted_hash(guesser.subject), guesser.most
  from (values
    ('user ' || billing_private.user_id(), 10),
    -- Behind one address there may be many people.
    ('address ' || billing_private.caller_address(), 100)
  ) as guesser (subject, most)
  where billing_private.user_id() is not null
    and guesser.subject is not null
  order by 1;
end;
$$;

comment on function billing_private.guessers() is
  'Who is asking for a discount code, and how many wrong ones an hour that may be; nobody where a '
  'server asks.';


create function billing_private.require_guesses_left(p_more integer default 0)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  if exists (
    select
    from billing_private.guessers() as guesser
    join billing_private.code_guesses using (subject_hash)
    where hour = date_trunc('hour', v_now, 'UTC')
      and count >= guesser.most + p_more
  ) then
    perform billing_private.fail('RATE_LIMITED', jsonb_build_object(
      'field', 'discount_code',
      'retry_after', ceil(extract(
        epoch from date_trunc('hour', v_now, 'UTC') + interval '1 hour' - v_now))));
  end if;
end;
$$;

comment on function billing_private.require_guesses_left(integer) is
  'Refuses whoever has asked for too many discount codes that do not exist (RATE_LIMITED, 429).';


create function billing_private.note_guess()
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing_private.code_guesses as stored (hour, subject_hash)
  select date_trunc('hour', billing_private.now(), 'UTC'), subject_hash
  from billing_private.guessers()
  on conflict (hour, subject_hash) do update
  set count = stored.count + 1;
  -- Of many at once each waits for the one before, so that the one too many sees it is.
  perform billing_private.require_guesses_left(1);
end;
$$;

comment on function billing_private.note_guess() is
  'Counts a discount code that does not exist; the answer to one too many is RATE_LIMITED (429).';


create function billing_private.check_code(
  p_code text,
  p_price_key text,
  p_quantity bigint,
  p_account_id uuid
)
returns billing.discount_quote
language plpgsql
volatile
security definer -- codes are readable by nobody
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.resolve_account(p_account_id, 'manage_billing');
  v_price billing.prices := billing_private.offered_price(p_price_key);
  v_code billing_private.discount_codes;
  v_quote billing.discount_quote;
begin
  if coalesce(p_quantity not between 1 and 999999, true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'quantity', 'problem', 'must be from 1 to 999999'));
  end if;
  perform billing_private.require_guesses_left();
  v_code := billing_private.discount_code(p_code);
  if v_code.id is null then
    v_code := billing_private.stripe_code(p_code, v_account_id);
  end if;

  v_quote.reason := billing_private.refusal_of_code(
    v_code, v_price, p_quantity, v_account_id, v_price.stripe_price_id is not null);
  v_quote.is_valid := v_quote.reason is null;
  if v_quote.reason = 'not_valid' then
    perform billing_private.note_guess();
  end if;
  v_quote.currency := v_price.currency;
  v_quote.amount_minor := coalesce(billing_private.amount_of(v_price, p_quantity), 0);
  if v_quote.is_valid then
    v_quote.percent_off := v_code.percent_off;
    v_quote.amount_off_minor := v_code.amount_off_minor;
    v_quote.periods := v_code.periods;
    v_quote.discount_minor := billing_private.discount_of(v_code, v_quote.amount_minor);
  else
    v_quote.discount_minor := 0;
  end if;
  v_quote.total_minor := v_quote.amount_minor - v_quote.discount_minor;
  return v_quote;
end;
$$;


create function billing.check_code(
  discount_code text,
  price_key text,
  quantity bigint default 1,
  account_id uuid default null
)
returns billing.discount_quote
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.check_code(discount_code, price_key, quantity, account_id);
end;

comment on function billing.check_code(text, text, bigint, uuid) is
$$What a discount code would take off a price, or why it cannot be used. Reserves nothing: that does
billing.prepare_checkout().

discount_code: as the user typed it, in any case. account_id: null for the caller's own account. Ten
codes that are not valid are answered in an hour, a hundred from one address.

Errors
  VALIDATION_FAILED  400  the quantity is not acceptable
  UNAUTHENTICATED    401  nobody is signed in
  NOT_ALLOWED        403  the caller may not buy for this account
  NOT_A_MEMBER       403  the account is not one of the caller's
  PRICE_NOT_FOUND    404  the price is not on offer
  RATE_LIMITED       429  too many codes were tried; details.retry_after is in seconds$$;


-- -----------------------------------------------------------------------------
-- 46  discounts on our own invoices
-- -----------------------------------------------------------------------------

create function billing_private.redeem_code(
  p_code text,
  p_subscription billing.subscriptions
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_code billing_private.discount_codes := billing_private.discount_code(p_code);
  v_price billing.prices;
begin
  if p_code is null then
    return;
  end if;
  select * into strict v_price from billing.prices where id = p_subscription.price_id;
  perform billing_private.take_code(
    v_code.id, v_price, p_subscription.quantity, p_subscription.account_id, false);
  if p_subscription.manual_kind <> 'invoiced'
    or (billing_private.contract_at(p_subscription.account_id, billing_private.now())).id
      is not null
    or exists (
      select
      from billing.discount_redemptions
      where subscription_id = p_subscription.id
        and ended_at is null
    )
  then
    perform billing_private.fail('DISCOUNT_NOT_VALID', jsonb_build_object(
      'field', 'discount_code', 'reason', 'not_for_this_subscription'));
  end if;
  insert into billing.discount_redemptions (
    discount_code_id, account_id, subscription_id, status
  )
  values (v_code.id, p_subscription.account_id, p_subscription.id, 'confirmed');
end;
$$;

comment on function billing_private.redeem_code(text, billing.subscriptions) is
  'Has a code taken off the invoices of a manual subscription, from the next period on '
  '(DISCOUNT_NOT_VALID, 422): one code at a time, none under a contract. The account is locked.';


create function billing_private.apply_code_at_stripe(
  p_code text,
  p_subscription billing.subscriptions
)
returns billing.discount_redemptions
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_code billing_private.discount_codes := billing_private.discount_code(p_code);
  v_price billing.prices;
  v_redemption billing.discount_redemptions;
begin
  select * into strict v_price from billing.prices where id = p_subscription.price_id;
  perform billing_private.take_code(
    v_code.id, v_price, p_subscription.quantity, p_subscription.account_id, true);
  -- The call replaces whatever comes off now.
  if p_subscription.status not in ('active', 'trialing', 'past_due')
    or exists (
      select
      from billing.discount_redemptions
      where subscription_id = p_subscription.id
        and ended_at is null
    )
    or exists (
      select
      from billing.discounts
      where stripe_subscription_id = p_subscription.stripe_subscription_id
        and stripe_subscription_item_id is null
        and is_listed
        and removed_at is null
        and coalesce(ends_at > billing_private.now(), true)
    )
  then
    perform billing_private.fail('DISCOUNT_NOT_VALID', jsonb_build_object(
      'field', 'discount_code', 'reason', 'not_for_this_subscription'));
  end if;

  insert into billing.discount_redemptions (
    discount_code_id, account_id, subscription_id, status
  )
  values (v_code.id, p_subscription.account_id, p_subscription.id, 'reserved')
  returning * into v_redemption;
  perform billing_private.enqueue_command(
    'apply_discount', p_subscription.account_id,
    '/v1/subscriptions/' || p_subscription.stripe_subscription_id,
    jsonb_build_object('discounts', jsonb_build_array(jsonb_build_object(
      'coupon', billing_private.ensure_coupon(v_code, v_price, p_subscription.account_id)))),
    'POST', v_redemption.id, p_subscription);
  return v_redemption;
end;
$$;

comment on function billing_private.apply_code_at_stripe(text, billing.subscriptions) is
  'Keeps a code for a running subscription of Stripe''s and has Stripe take it off from the next '
  'invoice on (DISCOUNT_NOT_VALID, 422): one at a time. The account is locked.';


create function billing_private.settle_applied_code(
  p_command billing_private.commands,
  p_status text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  update billing.discount_redemptions
  set status = p_status,
      ended_at = coalesce(ended_at, billing_private.now())
  where id = p_command.subject_id
    and p_command.kind = 'apply_discount';
end;
$$;

comment on function billing_private.settle_applied_code(billing_private.commands, text) is
  'Confirms the code of a running subscription that Stripe takes off now, or gives it back where '
  'Stripe refused.';


create function billing_private.spread(
  p_amount bigint,
  p_shares bigint[]
)
returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_sum numeric := (select sum(share) from unnest(p_shares) as share);
begin
  return array(
    select
      cut.whole
        + (row_number() over (order by cut.exact - cut.whole desc, cut.place)
          <= p_amount - sum(cut.whole) over ())::integer
    from (
      select
        place, p_amount * share / nullif(v_sum, 0) as exact,
        coalesce(floor(p_amount * share / nullif(v_sum, 0)), 0)::bigint as whole
      from unnest(p_shares) with ordinality as listed (share, place)
    ) as cut
    order by cut.place
  );
end;
$$;

comment on function billing_private.spread(bigint, bigint[]) is
  'An amount cut in proportion to shares, to the last unit: what rounding leaves goes to those it '
  'took most from (largest remainder).';


-- What a change gives back of the running period is lessened by the rate that period was. What it
-- charges anew is lessened by the same percentage, or by as much of an amount as was not used up.
create function billing_private.prorated_discounts(
  p_redemption billing.discount_redemptions,
  p_code billing_private.discount_codes,
  p_amounts bigint[]
)
returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_amount bigint;
  v_off bigint;
  v_left bigint := 0;
  v_offs bigint[] := array[]::bigint[];
begin
  foreach v_amount in array p_amounts loop
    if v_amount < 0 then
      v_off := coalesce(round(
        v_amount::numeric * p_redemption.period_off_minor
          / nullif(p_redemption.period_base_minor, 0)), 0);
      v_left := v_left - v_off;
    elsif p_redemption.period_off_minor = 0 then
      v_off := 0;
    elsif p_code.percent_off is not null then
      v_off := billing_private.discount_of(p_code, v_amount);
    else
      v_off := least(v_amount, v_left);
      v_left := v_left - v_off;
    end if;
    v_offs := v_offs || v_off;
  end loop;
  return v_offs;
end;
$$;

comment on function billing_private.prorated_discounts(
  billing.discount_redemptions, billing_private.discount_codes, bigint[]
) is
  'What comes off the lines of a change within a period; below zero off what is given back.';


create function billing_private.discounts_of_lines(
  p_redemption billing.discount_redemptions,
  p_code billing_private.discount_codes,
  p_lines billing_private.manual_line[]
)
returns bigint[]
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_prorations bigint[] := array(
    select case when is_proration then amount_minor else 0 end from unnest(p_lines));
  v_periods bigint[] := array(
    select case when is_proration then 0 else greatest(amount_minor, 0) end
    from unnest(p_lines));
  v_off bigint := case
    when coalesce(p_redemption.periods_used < p_code.periods, true)
      then billing_private.discount_of(
        p_code, (select sum(amount)::bigint from unnest(v_periods) as amount))
    else 0
  end;
begin
  return array(
    select prorated + periodic
    from unnest(
      billing_private.prorated_discounts(p_redemption, p_code, v_prorations),
      billing_private.spread(v_off, v_periods)
    ) with ordinality as sides (prorated, periodic, place)
    order by place
  );
end;
$$;

comment on function billing_private.discounts_of_lines(
  billing.discount_redemptions, billing_private.discount_codes, billing_private.manual_line[]
) is
  'What a code takes off each line of an invoice: off a period that begins, if any is left for it, '
  'and off what a change gives back and charges.';


create function billing_private.foreseen_discount(
  p_subscription_id uuid,
  p_lines billing.preview_line[]
)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_lines billing_private.manual_line[] := array(
    select row(line.*)::billing_private.manual_line from unnest(p_lines) as line);
begin
  return coalesce(
    (
      select sum(discount)
      from billing.discount_redemptions
      join billing_private.discount_codes
        on discount_codes.id = discount_redemptions.discount_code_id
      cross join lateral unnest(billing_private.discounts_of_lines(
        discount_redemptions, discount_codes, v_lines)) as discount
      where discount_redemptions.subscription_id = p_subscription_id
        and discount_redemptions.ended_at is null
    ),
    0);
end;
$$;

comment on function billing_private.foreseen_discount(uuid, billing.preview_line[]) is
  'What the code of a manual subscription would take off an invoice, as things stand.';


create function billing_private.discount_lines(
  p_subscription_id uuid,
  p_lines billing_private.manual_line[]
)
returns bigint[]
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_redemption billing.discount_redemptions;
  v_code billing_private.discount_codes;
  v_base bigint := (
    select sum(greatest(amount_minor, 0)) from unnest(p_lines) where not is_proration);
  v_is_left boolean;
begin
  select * into v_redemption
  from billing.discount_redemptions
  where subscription_id = p_subscription_id
    and ended_at is null
  for update;
  if not found then
    return array(select 0 from unnest(p_lines));
  end if;
  select * into strict v_code
  from billing_private.discount_codes
  where id = v_redemption.discount_code_id;

  -- Where a period begins, with or without it.
  v_is_left := coalesce(v_redemption.periods_used < v_code.periods, true);
  update billing.discount_redemptions
  set periods_used = periods_used + v_is_left::integer,
      period_base_minor = case when v_is_left then v_base else 0 end,
      period_off_minor = case
        when v_is_left then billing_private.discount_of(v_code, v_base) else 0 end,
      ended_at = case when not v_is_left then billing_private.now() end
  where id = v_redemption.id
    and v_base is not null;
  return billing_private.discounts_of_lines(v_redemption, v_code, p_lines);
end;
$$;

comment on function billing_private.discount_lines(uuid, billing_private.manual_line[]) is
  'What the code of a manual subscription takes off each line of its next invoice, noting the '
  'period it is used for.';


-- -----------------------------------------------------------------------------
-- 47  what a contract says
-- -----------------------------------------------------------------------------

create function billing_private.contract_at(
  p_account_id uuid,
  p_at timestamptz
)
returns billing.contracts
language plpgsql
stable
set search_path = ''
as $$
declare
  v_contract billing.contracts;
begin
  select * into v_contract
  from billing.contracts
  where account_id = p_account_id
    and status <> 'draft'
    and starts_at <= p_at
    and p_at < in_force_until;
  return v_contract;
end;
$$;

comment on function billing_private.contract_at(uuid, timestamptz) is
  'The contract in force with an account from an instant on; at most one is.';


create function billing_private.contract_until(
  p_account_id uuid,
  p_at timestamptz
)
returns billing.contracts
language plpgsql
stable
set search_path = ''
as $$
declare
  v_contract billing.contracts;
begin
  select * into v_contract
  from billing.contracts
  where account_id = p_account_id
    and status <> 'draft'
    and starts_at < p_at
    and p_at <= in_force_until;
  return v_contract;
end;
$$;

comment on function billing_private.contract_until(uuid, timestamptz) is
  'The contract in force with an account up to an instant: under which what lies before it was '
  'billed.';


create function billing_private.contract_amount(
  p_contract billing.contracts,
  p_price billing.prices,
  p_quantity numeric
)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
declare
  v_terms billing.contract_prices;
begin
  select * into v_terms
  from billing.contract_prices
  where contract_id = p_contract.id
    and price_id = p_price.id;
  if found then
    p_price.unit_amount_minor := v_terms.unit_amount_minor;
    p_price.tiers := v_terms.tiers;
    p_price.tiers_mode := v_terms.tiers_mode;
    p_price.billing_scheme := case when v_terms.tiers is null then 'per_unit' else 'tiered' end;
    p_price.package_size := null;
    p_price.package_rounding := null;
  end if;
  return coalesce(billing_private.amount_of(p_price, coalesce(p_quantity, 1)), 0);
end;
$$;

comment on function billing_private.contract_amount(
  billing.contracts, billing.prices, numeric
) is
  'What a quantity costs for one period: by the contract where it names the price, else by the '
  'catalog. A null quantity is one.';


create function billing_private.used_in(
  p_account_id uuid,
  p_feature_key text,
  p_from timestamptz,
  p_until timestamptz
)
returns numeric
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select coalesce(sum(used + coalesce(adjusted.quantity, 0)), 0)
    from billing.usage_totals
    left join lateral (
      select sum(usage_adjustments.quantity) as quantity
      from billing.usage_adjustments
      where usage_adjustments.account_id = usage_totals.account_id
        and usage_adjustments.feature_key = usage_totals.feature_key
        and usage_adjustments.period_start = usage_totals.period_start
    ) as adjusted on true
    where usage_totals.account_id = p_account_id
      and usage_totals.feature_key = p_feature_key
      and usage_totals.period_start >= p_from
      and usage_totals.period_start < p_until
  );
end;
$$;

comment on function billing_private.used_in(uuid, text, timestamptz, timestamptz) is
  'What was used in the periods that begin within an interval, with all that was heard of since.';


create function billing_private.usage_lines(
  p_subscription billing.subscriptions,
  p_until timestamptz,
  p_others_minor bigint default 0,
  p_minimum_minor bigint default null
)
returns setof billing_private.manual_line
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_contract billing.contracts := billing_private.contract_until(
    p_subscription.account_id, p_until);
  v_from timestamptz;
begin
  if v_contract.price_id is null or p_until <= p_subscription.started_at then
    return;
  end if;
  select greatest(period.period_start, p_subscription.started_at) into v_from
  from billing.prices
  cross join lateral billing_private.period_at(
    p_subscription.billing_anchor,
    billing_private.interval_of(prices.billing_interval, prices.interval_count),
    p_until - interval '1 microsecond') as period
  where prices.id = p_subscription.price_id;

  return query
  with charges as materialized (
    select
      contract_prices.price_id, contract_prices.feature_key, usage.used,
      billing_private.contract_amount(v_contract, prices, usage.used) as amount_minor
    from billing.contract_prices
    join billing.prices on prices.id = contract_prices.price_id
    cross join lateral billing_private.used_in(
      p_subscription.account_id, contract_prices.feature_key, v_from, p_until) as usage (used)
    where contract_prices.contract_id = v_contract.id
      and contract_prices.feature_key is not null
  ),
  noted as (
    insert into billing_private.billed_usage (
      account_id, subscription_id, contract_id, price_id, feature_key, period_start, period_end,
      quantity, amount_minor, first_amount_minor, invoice_minor, minimum_minor
    )
    select
      p_subscription.account_id, p_subscription.id, v_contract.id, price_id, feature_key, v_from,
      p_until, used, amount_minor, amount_minor,
      p_others_minor + (sum(amount_minor) over ())::bigint, p_minimum_minor
    from charges
    on conflict (account_id, subscription_id, contract_id, price_id, period_start) do nothing
    returning *
  )
  select
    format('%s: %s', features.name, trim_scale(noted.quantity)),
    noted.amount_minor,
    case when noted.quantity = trunc(noted.quantity) then noted.quantity::bigint end,
    v_from, p_until, false
  from noted
  join billing.features on features.key = noted.feature_key
  order by features.key;
end;
$$;

comment on function billing_private.usage_lines(
  billing.subscriptions, timestamptz, bigint, bigint
) is
  'Bills what a contract charges for the usage of the period that ended at an instant, and notes '
  'it, once. p_others_minor: what else stands on the invoice. The account is locked.';


create function billing_private.covered_line(
  p_label text,
  p_covered_minor bigint,
  p_before_minor bigint,
  p_late_minor bigint,
  p_period billing_private.billed_usage
)
returns setof billing_private.manual_line
language plpgsql
immutable
set search_path = ''
as $$
declare
  -- What was charged anyway is not charged again, nor given back below it.
  v_amount bigint := greatest(p_before_minor + p_late_minor, p_covered_minor)
    - greatest(p_before_minor, p_covered_minor) - p_late_minor;
begin
  if v_amount <> 0 then
    return next row(
      p_label, v_amount, null, p_period.period_start, p_period.period_end, false
    )::billing_private.manual_line;
  end if;
end;
$$;

comment on function billing_private.covered_line(
  text, bigint, bigint, bigint, billing_private.billed_usage
) is
  'The line that sets off late usage against what was charged at least for its time: '
  'p_before_minor had come together, p_covered_minor was charged. None where it changes nothing.';


-- Its body is long because it is one account: the differences, then what covers them already.
create function billing_private.late_usage_lines(
  p_subscription billing.subscriptions,
  p_before timestamptz
)
returns setof billing_private.manual_line
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_billed billing_private.billed_usage;
  v_settlement billing.contract_settlements;
  v_reference text;
  v_used numeric;
  v_amount bigint;
  v_late bigint;
  v_line billing_private.manual_line;
begin
  for v_billed in
    select *
    from billing_private.billed_usage
    where subscription_id = p_subscription.id
      and period_end < p_before
    order by period_start, feature_key, price_id
    for update
  loop
    v_used := billing_private.used_in(
      v_billed.account_id, v_billed.feature_key, v_billed.period_start, v_billed.period_end);
    continue when v_used = v_billed.quantity;
    select
      billing_private.contract_amount(contracts, prices, greatest(v_used, 0)), contracts.reference
    into v_amount, v_reference
    from billing.contracts
    join billing.prices on prices.id = v_billed.price_id
    where contracts.id = v_billed.contract_id;
    v_late := v_amount - v_billed.amount_minor;

    return next row(
      format(
        '%s: %s of %s to %s', (select name from billing.features where key = v_billed.feature_key),
        case when v_used > v_billed.quantity then '+' else '' end
          || trim_scale(v_used - v_billed.quantity),
        to_char(v_billed.period_start at time zone 'UTC', 'YYYY-MM-DD'),
        to_char(v_billed.period_end at time zone 'UTC', 'YYYY-MM-DD')),
      v_late, null, v_billed.period_start, v_billed.period_end, false
    )::billing_private.manual_line;

    -- What of that invoice had come together before, late usage included.
    for v_line in
      select line.*
      from billing_private.covered_line(
        format('Within the minimum of contract %s', v_reference),
        v_billed.minimum_minor,
        v_billed.invoice_minor + (
          select sum(others.amount_minor - others.first_amount_minor)
          from billing_private.billed_usage as others
          where others.subscription_id = v_billed.subscription_id
            and others.contract_id = v_billed.contract_id
            and others.period_start = v_billed.period_start
        )::bigint,
        v_late, v_billed) as line
      where v_billed.minimum_minor is not null
    loop
      return next v_line;
      v_late := v_late + v_line.amount_minor;
    end loop;
    update billing_private.billed_usage
    set quantity = v_used,
        amount_minor = v_amount
    where account_id = v_billed.account_id
      and subscription_id = v_billed.subscription_id
      and contract_id = v_billed.contract_id
      and price_id = v_billed.price_id
      and period_start = v_billed.period_start;

    update billing.contract_settlements
    set late_minor = late_minor + v_late
    where contract_id = v_billed.contract_id
      and term_starts_at <= v_billed.period_start
      and v_billed.period_start < term_ends_at
    returning * into v_settlement;
    if found and not v_settlement.is_waived then
      return query
      select *
      from billing_private.covered_line(
        format('Within the commitment of contract %s', v_reference),
        v_settlement.committed_minor,
        v_settlement.charged_minor + v_settlement.late_minor - v_late, v_late, v_billed);
    end if;
  end loop;
end;
$$;

comment on function billing_private.late_usage_lines(billing.subscriptions, timestamptz) is
  'Bills what was heard of the usage of earlier periods since they were billed, or gives it back, '
  'once: a line for each, naming the period. What a minimum or a commitment has covered is set off.'
  ' The account is locked.';


create function billing_private.minimum_lines(
  p_subscription billing.subscriptions,
  p_at timestamptz,
  p_lines billing_private.manual_line[]
)
returns setof billing_private.manual_line
language plpgsql
stable
set search_path = ''
as $$
declare
  v_contract billing.contracts := billing_private.contract_at(p_subscription.account_id, p_at);
  v_sum bigint := (select coalesce(sum(amount_minor), 0) from unnest(p_lines));
begin
  if v_sum < v_contract.minimum_minor then
    return next row(
      format('Up to the minimum of contract %s', v_contract.reference),
      v_contract.minimum_minor - v_sum, null, null, null, false
    )::billing_private.manual_line;
  end if;
end;
$$;

comment on function billing_private.minimum_lines(
  billing.subscriptions, timestamptz, billing_private.manual_line[]
) is
  'The line that brings the invoice of a period up to what a contract says it comes to at least.';


create function billing_private.contract_binds(p_subscription billing.subscriptions)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return p_subscription.provider = 'manual' and exists (
    select
    from billing.contracts
    where subscription_id = p_subscription.id
      and status = 'active'
      and in_force_until > billing_private.now()
  );
end;
$$;

comment on function billing_private.contract_binds(billing.subscriptions) is
  'Whether a subscription is billed by a contract that runs, or is to begin.';


-- -----------------------------------------------------------------------------
-- 48  the life of a contract
-- -----------------------------------------------------------------------------

create function billing_private.lock_contract(p_contract_id uuid)
returns billing.contracts
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_contract billing.contracts;
begin
  select * into v_contract from billing.contracts where id = p_contract_id;
  if not found then
    perform billing_private.fail('CONTRACT_NOT_FOUND', jsonb_build_object(
      'contract_id', p_contract_id));
  end if;
  perform billing_private.lock_account(v_contract.account_id);
  select * into strict v_contract from billing.contracts where id = p_contract_id for update;
  return v_contract;
end;
$$;

comment on function billing_private.lock_contract(uuid) is
  'A contract, for a decision nobody else takes meanwhile (CONTRACT_NOT_FOUND, 404).';


create function billing_private.require_status(
  p_contract billing.contracts,
  p_status text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_contract.status <> p_status then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'contract_id', 'problem', format('must be %s', p_status),
      'status', p_contract.status));
  end if;
end;
$$;

comment on function billing_private.require_status(billing.contracts, text) is
  'Refuses a contract in another state (VALIDATION_FAILED, 400).';


create function billing_private.activate_contract(p_contract billing.contracts)
returns billing.contracts
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_contract billing.contracts;
  v_subscription_id uuid;
  v_other_id uuid;
begin
  select id into v_other_id
  from billing.contracts
  where account_id = p_contract.account_id
    and status <> 'draft'
    and tstzrange(starts_at, in_force_until)
      && tstzrange(p_contract.starts_at, p_contract.in_force_until)
  limit 1;
  if found then
    perform billing_private.fail('CONTRACT_IN_FORCE', jsonb_build_object(
      'contract_id', v_other_id, 'account_id', p_contract.account_id));
  end if;

  -- In force before its subscription begins, whose first invoice is by its prices.
  update billing.contracts
  set status = 'active'
  where id = p_contract.id
  returning * into v_contract;
  if v_contract.price_id is not null then
    v_subscription_id := billing_private.start_manual_subscription(
      v_contract.account_id, v_contract.price_id, v_contract.quantity,
      nullif(v_contract.in_force_until, 'infinity'), 'invoiced', v_contract.starts_at,
      v_contract.payment_terms_days);
    update billing.contracts
    set subscription_id = v_subscription_id
    where id = v_contract.id
    returning * into v_contract;
  end if;
  return v_contract;
end;
$$;

comment on function billing_private.activate_contract(billing.contracts) is
  'Brings a draft into force, with the subscription that bills it. Refused beside another contract '
  'for any of its time (CONTRACT_IN_FORCE, 409).';


create function billing_private.replace_contract(
  p_contract billing.contracts,
  p_wanted billing.contracts
)
returns billing.contracts
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_new billing.contracts;
begin
  insert into billing.contracts (
    account_id, supersedes, price_id, quantity, starts_at, ends_at, first_ends_at,
    term_starts_at, term_months, notice_days, notice_at, payment_terms_days, minimum_minor,
    commitment_minor, subscription_id, reference, reason
  )
  values (
    p_contract.account_id, p_contract.id, p_wanted.price_id, p_wanted.quantity, v_now,
    p_wanted.ends_at,
    case when p_wanted.ends_at = p_contract.ends_at then p_contract.first_ends_at
      else p_wanted.ends_at end,
    p_contract.term_starts_at, p_wanted.term_months, p_wanted.notice_days, p_contract.notice_at,
    p_wanted.payment_terms_days, p_wanted.minimum_minor, p_wanted.commitment_minor,
    p_contract.subscription_id, p_wanted.reference, p_wanted.reason
  )
  returning * into v_new;
  insert into billing.contract_features (contract_id, feature_key, limit_value)
  select v_new.id, feature_key, limit_value
  from billing.contract_features
  where contract_id = p_contract.id;
  insert into billing.contract_prices (
    contract_id, price_id, feature_key, unit_amount_minor, tiers_mode, tiers
  )
  select v_new.id, price_id, feature_key, unit_amount_minor, tiers_mode, tiers
  from billing.contract_prices
  where contract_id = p_contract.id;
  return v_new;
end;
$$;

comment on function billing_private.replace_contract(billing.contracts, billing.contracts) is
  'A draft that is to supersede a contract from now on, with its features and prices.';


create function billing_private.put_in_force(
  p_old billing.contracts,
  p_new billing.contracts
)
returns billing.contracts
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_new billing.contracts;
  v_subscription billing.subscriptions;
begin
  update billing.contracts
  set status = 'amended',
      ended_at = v_now
  where id = p_old.id;
  update billing.contracts
  set status = 'active'
  where id = p_new.id
  returning * into v_new;

  select * into v_subscription from billing.subscriptions where id = v_new.subscription_id;
  if not found then
    return v_new;
  end if;
  update billing.subscriptions
  set payment_terms_days = v_new.payment_terms_days,
      cancel_at = nullif(v_new.in_force_until, 'infinity')
  where id = v_subscription.id
    and (payment_terms_days, cancel_at)
      is distinct from (v_new.payment_terms_days, nullif(v_new.in_force_until, 'infinity'));
  if (p_old.price_id, p_old.quantity) <> (v_new.price_id, v_new.quantity)
    or exists (
      select
      from billing.prices
      where prices.id = v_new.price_id
        and billing_private.contract_amount(p_old, prices, p_old.quantity)
          <> billing_private.contract_amount(v_new, prices, v_new.quantity)
    )
  then
    perform billing_private.set_manual_terms(
      v_subscription.id, v_new.price_id, v_new.quantity, v_now);
  end if;
  return v_new;
end;
$$;

comment on function billing_private.put_in_force(billing.contracts, billing.contracts) is
  'Lets a draft take the place of a contract from now on; what it changes of the running period is '
  'invoiced, to the second.';


create function billing_private.terminate_contract(
  p_contract billing.contracts,
  p_ends_at timestamptz,
  p_waives_commitment boolean,
  p_reason text
)
returns billing.contracts
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_contract billing.contracts := p_contract;
begin
  update billing.contracts
  set ends_at = p_ends_at,
      notice_at = coalesce(notice_at, billing_private.now()),
      is_commitment_waived = p_waives_commitment,
      end_reason = p_reason
  where id = p_contract.id
  returning * into v_contract;
  update billing.subscriptions
  set cancel_at = p_ends_at,
      canceled_at = coalesce(canceled_at, billing_private.now()),
      cancellation_reason = coalesce(cancellation_reason, p_reason),
      updated_at = billing_private.now()
  where id = v_contract.subscription_id
    and ended_at is null;
  if p_ends_at <= billing_private.now() then
    update billing.subscriptions
    set status = 'canceled',
        ended_at = p_ends_at
    where id = v_contract.subscription_id
      and ended_at is null;
    v_contract := billing_private.settle_contract(v_contract);
  end if;
  return v_contract;
end;
$$;

comment on function billing_private.terminate_contract(
  billing.contracts, timestamptz, boolean, text
) is
  'Has a contract, and the subscription that bills it, end at an instant and not be renewed.';


create function billing_private.withdraw_contract(
  p_contract billing.contracts,
  p_reason text
)
returns billing.contracts
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_contract billing.contracts;
begin
  update billing.contracts
  set status = 'ended',
      ended_at = starts_at,
      end_reason = p_reason
  where id = p_contract.id
  returning * into v_contract;
  update billing.subscriptions
  set status = 'canceled',
      ended_at = v_contract.starts_at,
      cancellation_reason = p_reason,
      updated_at = billing_private.now()
  where id = v_contract.subscription_id
    and ended_at is null;
  perform billing_private.close_invoice(invoices.id, 'void')
  from billing.invoices
  where subscription_id = v_contract.subscription_id
    and status = 'open'
    and amount_paid_minor = 0;
  return v_contract;
end;
$$;

comment on function billing_private.withdraw_contract(billing.contracts, text) is
  'Ends a contract that has not begun: nothing is owed by it.';


create function billing_private.end_contracts(
  p_account_id uuid,
  p_reason text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_contract billing.contracts;
begin
  for v_contract in
    select *
    from billing.contracts
    where account_id = p_account_id
      and status in ('draft', 'active')
    for update
  loop
    if v_contract.status = 'draft' or v_contract.starts_at >= v_now then
      perform billing_private.withdraw_contract(v_contract, p_reason);
    else
      perform billing_private.terminate_contract(
        v_contract, least(v_contract.ends_at, v_now), false, p_reason);
    end if;
  end loop;
end;
$$;

comment on function billing_private.end_contracts(uuid, text) is
  'Ends the contracts of an account at once; what is missing of their commitments is owed. The '
  'account is locked.';


create function billing_private.charged_in_term(p_contract billing.contracts)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select coalesce(sum(invoice_lines.amount_minor - invoice_lines.discount_minor), 0)
    from billing.invoices
    join billing.invoice_lines on invoice_lines.invoice_id = invoices.id
    cross join lateral coalesce(invoice_lines.period_start, invoices.issued_at) as charged (at)
    where invoices.subscription_id = p_contract.subscription_id
      and invoices.status <> 'void'
      and charged.at >= p_contract.term_starts_at
      and charged.at < p_contract.ends_at
      -- What was missing of a term before is of that term.
      and (invoice_lines.period_start is not null
        or invoices.billing_reason <> 'contract_settlement')
  );
end;
$$;

comment on function billing_private.charged_in_term(billing.contracts) is
  'What was invoiced for the running term of a contract, in the smallest unit: what is drawn of '
  'its commitment.';


-- Long because it is one settlement, in order: what is billed, what is noted, what follows.
create function billing_private.settle_contract(p_contract billing.contracts)
returns billing.contracts
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_contract billing.contracts := p_contract;
  v_subscription billing.subscriptions;
  v_lines billing_private.manual_line[] := array[]::billing_private.manual_line[];
  v_charged bigint;
  v_missing bigint;
  v_invoice_id uuid;
begin
  select * into v_subscription
  from billing.subscriptions
  where id = p_contract.subscription_id
  for update;
  -- All that falls into the term is to be invoiced first.
  if v_subscription.ended_at is null
    and v_subscription.current_period_start < p_contract.ends_at
  then
    return p_contract;
  end if;

  if p_contract.in_force_until <= p_contract.ends_at and v_subscription.id is not null then
    v_lines := array(
      select row(line.*)::billing_private.manual_line
      from billing_private.usage_lines(v_subscription, p_contract.ends_at) as line)
    || array(
      select row(line.*)::billing_private.manual_line
      from billing_private.late_usage_lines(v_subscription, p_contract.ends_at) as line);
  end if;
  v_charged := billing_private.charged_in_term(p_contract)
    + (
      select coalesce(sum(amount_minor), 0)
      from unnest(v_lines)
      where period_start >= p_contract.term_starts_at
    );
  v_missing := greatest(coalesce(p_contract.commitment_minor, 0) - v_charged, 0);
  if v_missing > 0 and not p_contract.is_commitment_waived then
    v_lines := v_lines || row(
      format('Up to the commitment of contract %s', p_contract.reference),
      v_missing, null, null, null, false)::billing_private.manual_line;
  end if;
  if v_lines <> '{}' then
    v_invoice_id := billing_private.write_manual_invoice(
      v_subscription, 'contract_settlement', p_contract.ends_at, v_lines);
  end if;

  if p_contract.commitment_minor is not null then
    insert into billing.contract_settlements (
      contract_id, account_id, term_starts_at, term_ends_at, committed_minor, charged_minor,
      shortfall_minor, is_waived, invoice_id
    )
    values (
      p_contract.id, p_contract.account_id, p_contract.term_starts_at, p_contract.ends_at,
      p_contract.commitment_minor, v_charged, v_missing, p_contract.is_commitment_waived,
      v_invoice_id
    );
  end if;
  -- Term n ends at the first one's end + n terms, so that month ends do not drift.
  update billing.contracts
  set status = case when in_force_until <= ends_at then 'ended' else status end,
      ended_at = case when in_force_until <= ends_at then ends_at end,
      term_starts_at = case when in_force_until <= ends_at then term_starts_at else ends_at end,
      ends_at = case
        when in_force_until <= ends_at then ends_at
        else (billing_private.period_at(
          first_ends_at, make_interval(months => term_months), ends_at)).period_end
      end
  where id = p_contract.id
  returning * into v_contract;
  return v_contract;
end;
$$;

comment on function billing_private.settle_contract(billing.contracts) is
  'Settles a contract''s term that has ended: bills the last usage and what is missing of the '
  'commitment, then ends it, or begins the next term. The account is locked.';


create function billing_private.settle_contracts(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_due record;
  v_contract billing.contracts;
  v_count bigint := 0;
begin
  for v_due in
    select id, account_id, ends_at
    from billing.contracts
    where status = 'active'
      and ends_at <= billing_private.now()
    order by ends_at
    limit p_limit
  loop
    -- Whoever is busy with the account is waited for by the next run.
    if not pg_try_advisory_xact_lock(
      hashtextextended('billing.account:' || v_due.account_id, 0))
    then
      continue;
    end if;
    select * into v_contract
    from billing.contracts
    where id = v_due.id
      and status = 'active'
      and ends_at = v_due.ends_at
    for update skip locked;
    if found and billing_private.settle_contract(v_contract) is distinct from v_contract then
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.settle_contracts(integer) is
  'Settles the terms of contracts that have ended. Returns how many.';


-- -----------------------------------------------------------------------------
-- 49  billing.payment_history
-- -----------------------------------------------------------------------------

create view billing.payment_history with (security_invoker = true) as
select
  invoices.account_id,
  coalesce(invoices.issued_at, invoices.created_at) as occurred_at,
  'invoice' as kind,
  invoices.status,
  invoices.total_minor as amount_minor,
  invoices.currency,
  invoices.number as invoice_number,
  invoices.billing_reason as reason,
  null::text as method,
  null::text as card_brand,
  null::text as card_last4,
  coalesce(invoices.invoice_pdf_url, invoices.hosted_invoice_url) as document_url,
  coalesce(invoices.stripe_invoice_id, invoices.id::text) as reference
from billing.invoices
where invoices.status <> 'draft'
  and invoices.deleted_at is null
union all
select
  payments.account_id, coalesce(payments.paid_at, payments.created_at), 'payment', payments.status,
  payments.amount_minor, payments.currency, invoices.number,
  -- Lost, stolen and fraud are told as a plain decline.
  case when payments.failure_code is not null and payments.status <> 'succeeded'
    then 'declined' end,
  coalesce(payments.method, payment_methods.type), payment_methods.card_brand,
  payment_methods.card_last4, null, coalesce(payments.stripe_payment_key, payments.reference)
from billing.payments
left join billing.invoices
  on invoices.stripe_invoice_id = payments.stripe_invoice_id
  or invoices.id = payments.invoice_id
left join billing.payment_methods
  on payment_methods.stripe_payment_method_id = payments.stripe_payment_method_id
where payments.status is not null
union all
select
  refunds.account_id, coalesce(refunds.refunded_at, refunds.created_at), 'refund', refunds.status,
  -refunds.amount_minor, refunds.currency, null, refunds.reason, null, null, null, null,
  refunds.stripe_refund_id
from billing.refunds
union all
select
  disputes.account_id, coalesce(disputes.disputed_at, disputes.created_at), 'dispute',
  disputes.status, -disputes.amount_minor, disputes.currency, null, disputes.reason, null, null,
  null, null, disputes.stripe_dispute_id
from billing.disputes
union all
select
  credit_notes.account_id, coalesce(credit_notes.issued_at, credit_notes.created_at),
  'credit_note', credit_notes.status, -credit_notes.amount_minor, credit_notes.currency,
  credit_notes.number, credit_notes.reason, null, null, null, credit_notes.pdf_url,
  credit_notes.stripe_credit_note_id
from billing.credit_notes
order by occurred_at desc, reference;

comment on view billing.payment_history is
  'All that concerns money of an account, newest first: invoices, payments, refunds, disputes and '
  'credit notes.';
comment on column billing.payment_history.amount_minor is
  'In the currency''s smallest unit; below zero where it goes to the customer. Of a dispute, see '
  'status: it takes it while it is open and when it is lost.';
comment on column billing.payment_history.reason is
  'Why there is an invoice, a refund, a dispute or a credit note; declined for a payment that was.';
comment on column billing.payment_history.document_url is
  'Where the document can be seen or paid.';


-- -----------------------------------------------------------------------------
-- 50  usage: terms
-- -----------------------------------------------------------------------------

create type billing_private.usage_terms as (
  kind text,
  aggregation text,
  alert_percents integer[],
  stripe_event_name text,
  is_included boolean,
  limit_value bigint,
  anchor timestamptz,
  length interval,
  period_start timestamptz,
  period_end timestamptz,
  overage text,
  overage_limit bigint,
  rollover_floor bigint,
  rollover_cap bigint,
  on_plan_change text
);

comment on type billing_private.usage_terms is
  'What an account may use of a feature at an instant, in which period, and what the leading plan '
  'says about the rest. limit_value is null for unlimited.';


create function billing_private.usage_period(
  p_anchor timestamptz,
  p_length interval,
  p_at timestamptz,
  out period_start timestamptz,
  out period_end timestamptz
)
language plpgsql
immutable
strict
set search_path = ''
as $$
declare
  v_anchor timestamp := p_anchor at time zone 'UTC';
  v_number integer;
  v_period record;
begin
  if p_at >= p_anchor then
    v_period := billing_private.period_at(p_anchor, p_length, p_at);
    period_start := v_period.period_start;
    period_end := v_period.period_end;
  elsif p_at < p_anchor then
    -- A trial comes before its subscription's anchor: periods are counted back from there. Never
    -- too many: no month or year is 4 % longer than Postgres counts it.
    v_number := greatest(
      floor(extract(epoch from p_anchor - p_at) / (extract(epoch from p_length) * 1.04)), 1);
    while (v_anchor - v_number * p_length) at time zone 'UTC' > p_at loop
      v_number := v_number + 1;
    end loop;
    period_start := (v_anchor - v_number * p_length) at time zone 'UTC';
    period_end := (v_anchor - (v_number - 1) * p_length) at time zone 'UTC';
  end if;
end;
$$;

comment on function billing_private.usage_period(timestamptz, interval, timestamptz) is
  'The period of usage that contains an instant: anchor + n × length in UTC; n is negative before '
  'the anchor.';


-- Its body is long because it is one look-up: the sources, their plan, their anchor. One plan for
-- all accounts: to plan for one at each call would take longer than the answer.
create function billing_private.usage_terms_of(
  p_account_ids uuid[],
  p_feature_keys text[],
  p_instants timestamptz[]
)
returns setof billing_private.usage_terms
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return query
  with best as materialized (
    -- A gift may raise the limit; the period stays the subscription's, or it would reset what was
    -- used.
    select distinct on (asked.place)
      asked.place, asked.at, features.kind, features.aggregation, features.alert_percents,
      features.stripe_event_name,
      entitlements.source_id is not null as is_included,
      case when not bool_or(entitlements.limit_value is null) over by_place
        then max(entitlements.limit_value) over by_place end as limit_value,
      coalesce(
        subscriptions.billing_anchor,
        (select created_at from billing.accounts where id = asked.account_id)) as anchor,
      coalesce(
        plan_features.resets_every,
        billing_private.interval_of(prices.billing_interval, prices.interval_count),
        interval '1 month') as length,
      plan_features.overage, plan_features.overage_limit, plan_features.rollover_floor,
      plan_features.rollover_cap, plan_features.on_plan_change
    from unnest(p_account_ids, p_feature_keys, p_instants)
      with ordinality as asked (account_id, feature_key, at, place)
    left join billing.features on features.key = asked.feature_key
    left join billing.entitlements
      on entitlements.account_id = asked.account_id
      and entitlements.feature_key = asked.feature_key
      and entitlements.access_level = 'full'
      and entitlements.valid_from <= asked.at
      and entitlements.valid_until > asked.at
    left join billing.subscription_items
      on entitlements.source_kind = 'subscription_item'
      and subscription_items.id = entitlements.source_id
    left join billing.contracts
      on contracts.id
        = case when entitlements.source_kind = 'contract' then entitlements.source_id end
    left join billing.subscriptions
      on subscriptions.id
        = coalesce(subscription_items.subscription_id, contracts.subscription_id)
    left join billing.prices
      on prices.id = coalesce(subscription_items.price_id, contracts.price_id)
    left join billing.plan_features
      on plan_features.plan_id = entitlements.plan_id
      and plan_features.version = subscription_items.plan_version
      and plan_features.feature_key = entitlements.feature_key
    window by_place as (partition by asked.place)
    order by
      asked.place, subscriptions.billing_anchor is null,
      entitlements.limit_value desc nulls first, entitlements.source_id
  )
  select
    kind, aggregation, alert_percents, stripe_event_name, is_included, limit_value, anchor, length,
    case when kind = 'metered' then period.period_start else '-infinity' end,
    case when kind = 'metered' then period.period_end else 'infinity' end,
    coalesce(overage, 'refuse'), overage_limit, coalesce(rollover_floor, 0),
    coalesce(rollover_cap, 0), coalesce(on_plan_change, 'keep')
  from best
  left join lateral billing_private.usage_period(anchor, length, at) as period
    on kind = 'metered' and anchor is not null
  order by place;
end;
$$;

comment on function billing_private.usage_terms_of(uuid[], text[], timestamptz[]) is
$$What accounts may use of features at instants, and in which periods: one row for each, in the
order asked. kind is null where there is no such feature, anchor where there is no such account.

The period is that of the subscription item that gives the feature, of several the one with the best
limit; where none does, months since the account was made (UTC). The limit is the best of all
sources. A limit feature has one period, without beginning and end.$$;


-- Long because it is the same look-up again: every count waits for it, and a set of one takes twice
-- as long. A test compares them.
create function billing_private.usage_terms(
  p_account_id uuid,
  p_feature_key text,
  p_at timestamptz
)
returns billing_private.usage_terms
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_terms billing_private.usage_terms;
  v_period record;
begin
  select
    features.kind, features.aggregation, features.alert_percents, features.stripe_event_name,
    best.is_included is not null, best.limit_value,
    coalesce(
      best.billing_anchor, (select created_at from billing.accounts where id = p_account_id)),
    coalesce(
      best.resets_every,
      billing_private.interval_of(best.billing_interval, best.interval_count),
      interval '1 month'),
    timestamptz '-infinity', timestamptz 'infinity',
    coalesce(best.overage, 'refuse'), best.overage_limit,
    coalesce(best.rollover_floor, 0), coalesce(best.rollover_cap, 0),
    coalesce(best.on_plan_change, 'keep')
  into v_terms
  from billing.features
  left join (
    select
      true as is_included,
      case when not bool_or(entitlements.limit_value is null) over ()
        then max(entitlements.limit_value) over () end as limit_value,
      subscriptions.billing_anchor, prices.billing_interval, prices.interval_count,
      plan_features.resets_every, plan_features.overage, plan_features.overage_limit,
      plan_features.rollover_floor, plan_features.rollover_cap, plan_features.on_plan_change
    from billing.entitlements
    left join billing.subscription_items
      on entitlements.source_kind = 'subscription_item'
      and subscription_items.id = entitlements.source_id
    left join billing.contracts
      on contracts.id
        = case when entitlements.source_kind = 'contract' then entitlements.source_id end
    left join billing.subscriptions
      on subscriptions.id
        = coalesce(subscription_items.subscription_id, contracts.subscription_id)
    left join billing.prices
      on prices.id = coalesce(subscription_items.price_id, contracts.price_id)
    left join billing.plan_features
      on plan_features.plan_id = entitlements.plan_id
      and plan_features.version = subscription_items.plan_version
      and plan_features.feature_key = entitlements.feature_key
    where entitlements.account_id = p_account_id
      and entitlements.feature_key = p_feature_key
      and entitlements.access_level = 'full'
      and entitlements.valid_from <= p_at
      and entitlements.valid_until > p_at
    order by
      subscriptions.billing_anchor is null, entitlements.limit_value desc nulls first,
      entitlements.source_id
    limit 1
  ) as best on true
  where features.key = p_feature_key;
  if not found then
    perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object('feature', p_feature_key));
  end if;

  if v_terms.kind = 'metered' and v_terms.anchor is not null then
    v_period := billing_private.usage_period(v_terms.anchor, v_terms.length, p_at);
    v_terms.period_start := v_period.period_start;
    v_terms.period_end := v_period.period_end;
  end if;
  return v_terms;
end;
$$;

comment on function billing_private.usage_terms(uuid, text, timestamptz) is
$$What an account may use of a feature at an instant, and in which period: what usage_terms_of()
says of it, sooner.

Errors
  FEATURE_NOT_FOUND  404  there is no such feature$$;


-- -----------------------------------------------------------------------------
-- 51  usage: what a period allows
-- -----------------------------------------------------------------------------

create function billing_private.limits_over(
  p_account_id uuid,
  p_feature_key text,
  p_from timestamptz,
  p_until timestamptz
)
returns table (is_of_plan boolean, limit_value bigint, begins_at timestamptz, ends_at timestamptz)
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return query
  with versions as (
    select
      source_kind, source_id, entitlements.limit_value, valid_from, valid_until, recorded_at,
      timestamptz 'infinity' as replaced_at
    from billing.entitlements
    where account_id = p_account_id and feature_key = p_feature_key and access_level = 'full'
    union all
    select
      source_kind, source_id, entitlement_history.limit_value, valid_from, valid_until,
      recorded_at, replaced_at
    from billing_private.entitlement_history
    where account_id = p_account_id
      and feature_key = p_feature_key
      and replaced_at > p_from
      and access_level = 'full'
  ),
  spans as (
    select
      source_kind = 'subscription_item' as is_of_plan, versions.limit_value,
      -- What is heard of late has been so from its beginning; what changes it, from then on.
      greatest(
        valid_from, p_from,
        case when lag(recorded_at) over by_source is not null then recorded_at end) as begins_at,
      least(valid_until, replaced_at, p_until) as ends_at
    from versions
    window by_source as (partition by source_kind, source_id order by recorded_at, replaced_at)
  )
  select spans.* from spans where spans.begins_at < spans.ends_at;
end;
$$;

comment on function billing_private.limits_over(uuid, text, timestamptz, timestamptz) is
  'The limits an account had of a feature within an interval, source by source, with spans.';


create function billing_private.included_units(
  p_account_id uuid,
  p_feature_key text,
  p_terms billing_private.usage_terms,
  p_at timestamptz
)
returns numeric
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_units numeric;
  v_from timestamptz;
  v_is_unlimited boolean;
begin
  if p_terms.kind <> 'metered' or p_terms.limit_value is null then
    return p_terms.limit_value;
  end if;

  select max(limits.limit_value), min(limits.begins_at), bool_or(limits.limit_value is null)
  into v_units, v_from, v_is_unlimited
  from billing_private.limits_over(
    p_account_id, p_feature_key, p_terms.period_start, p_at) as limits
  where is_of_plan;

  if p_terms.on_plan_change = 'keep' then
    return case when not coalesce(v_is_unlimited, false)
      then greatest(v_units, p_terms.limit_value) end;
  elsif v_from is null then
    return p_terms.limit_value;
  end if;

  with limits as (
    select *
    from billing_private.limits_over(p_account_id, p_feature_key, p_terms.period_start, p_at)
    where is_of_plan
  ),
  edges as (
    select begins_at as edge from limits
    union
    select ends_at from limits
    union
    select p_at
  ),
  spans as (
    select
      edge as begins_at,
      coalesce(lead(edge) over (order by edge), p_terms.period_end) as ends_at
    from edges
  )
  select ceil(
    sum(best.units * extract(epoch from spans.ends_at - spans.begins_at))
    / extract(epoch from p_terms.period_end - v_from))
  into v_units
  from spans
  cross join lateral (
    select case
      when spans.begins_at >= p_at or bool_or(limits.limit_value is null)
        then p_terms.limit_value::numeric
      else coalesce(max(limits.limit_value), 0)
    end as units
    from limits
    where limits.begins_at <= spans.begins_at and limits.ends_at > spans.begins_at
  ) as best
  where spans.begins_at < spans.ends_at;
  return v_units;
end;
$$;

comment on function billing_private.included_units(
  uuid, text, billing_private.usage_terms, timestamptz
) is
$$Units a period includes, as seen at an instant; null for unlimited. Leftovers and prepaid units
come on top.

keep: the best limit a plan has given in this period, or any source gives now. scale: each plan's
limit by its share of the time, the running one until the end, rounded up.$$;


-- -----------------------------------------------------------------------------
-- 52  usage: periods and what they leave
-- -----------------------------------------------------------------------------

create function billing_private.close_usage_period(
  p_totals billing.usage_totals,
  p_terms billing_private.usage_terms
)
returns billing.usage_totals
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_totals billing.usage_totals;
  v_terms billing_private.usage_terms := p_terms;
  v_last timestamptz := p_totals.period_end - interval '1 microsecond';
  v_count bigint;
  v_limited bigint;
begin
  select * into strict v_totals
  from billing.usage_totals
  where account_id = p_totals.account_id
    and feature_key = p_totals.feature_key
    and period_start = p_totals.period_start
  for update;
  if v_totals.closed_at is not null then
    return v_totals;
  end if;

  select max(limits.limit_value), count(*), count(limits.limit_value)
  into v_terms.limit_value, v_count, v_limited
  from billing_private.limits_over(
    p_totals.account_id, p_totals.feature_key, v_last, p_totals.period_end) as limits;
  if v_count = 0 then
    v_terms.limit_value := 0;
  elsif v_count > v_limited then
    v_terms.limit_value := null;
  end if;
  v_terms.period_start := p_totals.period_start;
  v_terms.period_end := p_totals.period_end;

  update billing.usage_totals
  set included = billing_private.included_units(
        p_totals.account_id, p_totals.feature_key, v_terms, p_totals.period_end),
      reserved = 0,
      closed_at = billing_private.now()
  where account_id = p_totals.account_id
    and feature_key = p_totals.feature_key
    and period_start = p_totals.period_start
  returning * into v_totals;
  return v_totals;
end;
$$;

comment on function billing_private.close_usage_period(
  billing.usage_totals, billing_private.usage_terms
) is
  'Closes a period that is over: notes what it included; what comes later are adjustments.';


create function billing_private.leftover_units(
  p_account_id uuid,
  p_feature_key text,
  p_terms billing_private.usage_terms
)
returns numeric
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_totals billing.usage_totals;
  v_at timestamptz;
  v_units numeric := 0;
  v_limit bigint;
  v_skipped billing_private.usage_terms := p_terms;
begin
  if p_terms.rollover_cap = 0 then
    return 0;
  end if;

  select * into v_totals
  from billing.usage_totals
  where account_id = p_account_id
    and feature_key = p_feature_key
    and period_end <= p_terms.period_start
  order by period_start desc
  limit 1;
  if found then
    v_totals := billing_private.close_usage_period(v_totals, p_terms);
    v_units := least(
      p_terms.rollover_cap,
      greatest(
        v_totals.included + v_totals.rollover - v_totals.used, p_terms.rollover_floor));
    v_at := v_totals.period_end;
  else
    select min(begins_at) into v_at
    from billing_private.limits_over(
      p_account_id, p_feature_key, '-infinity', p_terms.period_start)
    where is_of_plan;
  end if;

  -- Periods in which nothing was used have no row. More of them than this fill any cap that a few
  -- dozen periods can fill.
  v_at := greatest(v_at, p_terms.period_start - 60 * p_terms.length);
  while v_at < p_terms.period_start loop
    select * into v_skipped.period_start, v_skipped.period_end
    from billing_private.usage_period(p_terms.anchor, p_terms.length, v_at);
    select max(limits.limit_value) into v_limit
    from billing_private.limits_over(
      p_account_id, p_feature_key, v_skipped.period_end - interval '1 microsecond',
      v_skipped.period_end) as limits;
    v_units := case when v_limit is null then 0 else least(
      p_terms.rollover_cap, greatest(v_limit + v_units, p_terms.rollover_floor)) end;
    v_at := v_skipped.period_end;
  end loop;
  return coalesce(v_units, 0);
end;
$$;

comment on function billing_private.leftover_units(uuid, text, billing_private.usage_terms) is
$$What the periods before leave to this one: least(cap, greatest(left, floor)), period by period,
and nothing across one that the account did not have the feature in.$$;


create function billing_private.open_usage_period(
  p_account_id uuid,
  p_feature_key text,
  p_terms billing_private.usage_terms
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if exists (
    select
    from billing.usage_totals
    where account_id = p_account_id
      and feature_key = p_feature_key
      and period_start = p_terms.period_start
  ) then
    return;
  end if;
  insert into billing.usage_totals (account_id, feature_key, period_start, period_end, rollover)
  values (
    p_account_id, p_feature_key, p_terms.period_start, p_terms.period_end,
    billing_private.leftover_units(p_account_id, p_feature_key, p_terms)
  )
  on conflict do nothing;
end;
$$;

comment on function billing_private.open_usage_period(uuid, text, billing_private.usage_terms) is
  'Makes the row a period is counted in, with what the period before left. Twice or at once: one '
  'row.';


-- -----------------------------------------------------------------------------
-- 53  usage: deciding and counting
-- -----------------------------------------------------------------------------

create type billing.usage_decision as (
  is_allowed boolean,
  feature_key text,
  quantity numeric,
  used numeric,
  reserved numeric,
  allowance numeric,
  remaining numeric,
  overage numeric,
  period_start timestamptz,
  period_end timestamptz,
  reason text,
  is_repeated boolean
);

comment on type billing.usage_decision is
  'Whether units may be used, and where the period stands with them. allowance is what the period '
  'includes, with leftovers and the prepaid units it has taken, null for unlimited; remaining does '
  'not show prepaid units that are still untouched. reason: not_included or limit_reached where it '
  'is not allowed. is_repeated: the key was answered before, and this is that answer.';


create type billing_private.usage_state as (
  totals billing.usage_totals,
  included numeric,
  is_allowed boolean
);

comment on type billing_private.usage_state is
  'A period''s row, what it includes without leftovers (null for unlimited), and whether the units '
  'asked for are counted in it.';


create function billing_private.decision_of(
  p_state billing_private.usage_state,
  p_quantity numeric
)
returns billing.usage_decision
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_decision billing.usage_decision;
begin
  v_decision.is_allowed := p_state.is_allowed;
  v_decision.feature_key := (p_state.totals).feature_key;
  v_decision.quantity := p_quantity;
  v_decision.used := (p_state.totals).used;
  v_decision.reserved := (p_state.totals).reserved;
  v_decision.allowance := p_state.included + (p_state.totals).rollover + (p_state.totals).prepaid;
  v_decision.remaining := greatest(
    v_decision.allowance - v_decision.used - v_decision.reserved, 0);
  v_decision.overage := coalesce(greatest(v_decision.used - v_decision.allowance, 0), 0);
  v_decision.period_start := (p_state.totals).period_start;
  v_decision.period_end := (p_state.totals).period_end;
  v_decision.reason := case when not p_state.is_allowed then 'limit_reached' end;
  v_decision.is_repeated := false;
  return v_decision;
end;
$$;

comment on function billing_private.decision_of(billing_private.usage_state, numeric) is
  'A state of a period as callers are told it.';


create function billing_private.expire_reservations(p_totals billing.usage_totals)
returns numeric
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_units numeric;
begin
  with expired as (
    update billing.usage_reservations
    set status = 'expired',
        finished_at = expires_at
    where account_id = p_totals.account_id
      and feature_key = p_totals.feature_key
      and period_start = p_totals.period_start
      and status = 'open'
      and expires_at <= billing_private.now()
    returning quantity
  )
  select coalesce(sum(quantity), 0) into v_units from expired;
  return v_units;
end;
$$;

comment on function billing_private.expire_reservations(billing.usage_totals) is
  'Ends the reservations of a period whose time has run out, and returns how much they held. The '
  'caller holds the period''s row and takes it off.';


create function billing_private.burn_grants(
  p_totals billing.usage_totals,
  p_units numeric
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  with usable as materialized (
    select id, quantity - burnt as units, priority, valid_until, created_at
    from billing.usage_grants
    where account_id = p_totals.account_id
      and feature_key = p_totals.feature_key
      and revoked_at is null
      and burnt < quantity
      and valid_from <= billing_private.now()
      and valid_until > billing_private.now()
    order by id
    for update
  ),
  in_line as (
    select
      id, units,
      sum(units) over (order by priority, valid_until, created_at, id) - units as units_before
    from usable
  ),
  burnt as (
    update billing.usage_grants
    set burnt = burnt + least(in_line.units, p_units - in_line.units_before)
    from in_line
    where usage_grants.id = in_line.id
      and in_line.units_before < p_units
    returning usage_grants.id, least(in_line.units, p_units - in_line.units_before) as units
  )
  insert into billing.usage_burns (account_id, feature_key, period_start, grant_id, quantity)
  select p_totals.account_id, p_totals.feature_key, p_totals.period_start, id, units
  from burnt
  on conflict (account_id, feature_key, period_start, grant_id) do update
  set quantity = usage_burns.quantity + excluded.quantity;
end;
$$;

comment on function billing_private.burn_grants(billing.usage_totals, numeric) is
  'Takes units from prepaid grants: by priority, then by end, then by age. The caller holds the '
  'period''s row.';


create function billing_private.prepaid_units(p_account_id uuid, p_feature_key text)
returns numeric
language plpgsql
stable
set search_path = ''
as $$
begin
  return coalesce(
    (
      select sum(quantity - burnt)
      from billing.usage_grants
      where account_id = p_account_id
        and feature_key = p_feature_key
        and revoked_at is null
        and valid_from <= billing_private.now()
        and valid_until > billing_private.now()
    ),
    0);
end;
$$;

comment on function billing_private.prepaid_units(uuid, text) is
  'Units of prepaid grants an account can use now.';


-- Long because it is one decision: what is free, what grants pay for, what a soft limit lets pass.
create function billing_private.take_units(
  p_account_id uuid,
  p_feature_key text,
  p_units numeric,
  p_terms billing_private.usage_terms,
  p_is_reservation boolean default false
)
returns billing_private.usage_state
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_state billing_private.usage_state;
  v_totals billing.usage_totals;
  v_allowance numeric;
  v_prepaid numeric;
  v_uncovered numeric;
  v_needed numeric;
begin
  perform billing_private.open_usage_period(p_account_id, p_feature_key, p_terms);
  select * into strict v_totals
  from billing.usage_totals
  where account_id = p_account_id
    and feature_key = p_feature_key
    and period_start = p_terms.period_start
  for update;
  if v_totals.reserved > 0 then
    v_totals.reserved := v_totals.reserved - billing_private.expire_reservations(v_totals);
  end if;

  v_state.included := billing_private.included_units(
    p_account_id, p_feature_key, p_terms, billing_private.now());
  v_allowance := v_state.included + v_totals.rollover + v_totals.prepaid;
  -- What a change of plan left uncovered, or a soft limit let pass, is no debt to be paid now.
  v_uncovered := greatest(v_totals.used - v_allowance, 0);
  v_needed := coalesce(greatest(
    v_totals.used + v_totals.reserved + p_units - v_allowance, 0) - v_uncovered, 0);
  v_prepaid := case when v_needed > 0 and p_terms.kind = 'metered'
    then billing_private.prepaid_units(p_account_id, p_feature_key) else 0 end;
  v_state.is_allowed := v_needed <= v_prepaid
    or (
      p_terms.overage = 'allow'
      and coalesce(v_uncovered + v_needed - v_prepaid <= p_terms.overage_limit, true)
    );

  if v_state.is_allowed and p_is_reservation then
    v_totals.reserved := v_totals.reserved + p_units;
  elsif v_state.is_allowed then
    v_needed := least(
      v_prepaid, coalesce(greatest(v_totals.used + p_units - v_allowance, 0) - v_uncovered, 0));
    if v_needed > 0 then
      perform billing_private.burn_grants(v_totals, v_needed);
    end if;
    v_totals.used := v_totals.used + p_units;
    v_totals.prepaid := v_totals.prepaid + v_needed;
  end if;

  update billing.usage_totals
  set used = v_totals.used,
      reserved = v_totals.reserved,
      prepaid = v_totals.prepaid
  where account_id = p_account_id
    and feature_key = p_feature_key
    and period_start = p_terms.period_start;
  v_state.totals := v_totals;
  return v_state;
end;
$$;

comment on function billing_private.take_units(
  uuid, text, numeric, billing_private.usage_terms, boolean
) is
  'Decides under the lock of the period''s row, with everything that may bear on it: reservations '
  'that have expired, the plans of the period, prepaid grants, a soft limit. All or none.';


create function billing_private.note_thresholds(
  p_state billing_private.usage_state,
  p_terms billing_private.usage_terms
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_totals billing.usage_totals := p_state.totals;
  v_allowance numeric := p_state.included + v_totals.rollover;
  v_percents integer[] := array(
    select percent
    from unnest(p_terms.alert_percents) as percent
    where percent > v_totals.alerted_percent
      and v_totals.used * 100 >= percent * v_allowance
  );
begin
  if v_percents = '{}' then
    return;
  end if;
  insert into billing.usage_alerts (
    account_id, feature_key, period_start, percent, used, allowance
  )
  select
    v_totals.account_id, v_totals.feature_key, v_totals.period_start, percent, v_totals.used,
    v_allowance
  from unnest(v_percents) as percent
  on conflict do nothing;

  update billing.usage_totals
  set alerted_percent = (select max(percent) from unnest(v_percents) as percent)
  where account_id = v_totals.account_id
    and feature_key = v_totals.feature_key
    and period_start = v_totals.period_start;
end;
$$;

comment on function billing_private.note_thresholds(
  billing_private.usage_state, billing_private.usage_terms
) is
  'Writes a row for each threshold that was reached and not told yet in this period.';


create function billing_private.is_at_threshold(
  p_state billing_private.usage_state,
  p_terms billing_private.usage_terms
)
returns boolean
language plpgsql
immutable
set search_path = ''
as $$
begin
  return p_state.included + (p_state.totals).rollover > 0
    and (p_state.totals).alerted_percent < any (p_terms.alert_percents)
    and least(
      (p_state.totals).used * 100 / (p_state.included + (p_state.totals).rollover), 1000000
    )::integer >= any (p_terms.alert_percents);
end;
$$;

comment on function billing_private.is_at_threshold(
  billing_private.usage_state, billing_private.usage_terms
) is
  'False where no threshold can have been reached, so that counting writes nothing else.';


create function billing_private.usage_month(p_at timestamptz)
returns timestamptz
language plpgsql
immutable
set search_path = ''
as $$
begin
  return date_trunc('month', p_at at time zone 'UTC') at time zone 'UTC';
end;
$$;

comment on function billing_private.usage_month(timestamptz) is
  'Beginning of an instant''s month (UTC): which partition of usage_records it belongs to.';


create function billing_private.recorded_decision(p_account_id uuid, p_idempotency_key text)
returns billing.usage_decision
language plpgsql
stable
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_record billing.usage_records;
  v_decision billing.usage_decision;
begin
  -- This month and the two before: 59 days at least.
  select * into v_record
  from billing.usage_records
  where account_id = p_account_id
    and idempotency_key = p_idempotency_key
    and recorded_month >= billing_private.usage_month(
      billing_private.now() - interval '2 months')
  order by recorded_month desc
  limit 1;
  if not found then
    return null;
  end if;

  v_decision.is_allowed := true;
  v_decision.feature_key := v_record.feature_key;
  v_decision.quantity := v_record.quantity;
  v_decision.used := v_record.used_after;
  v_decision.allowance := v_record.allowance;
  v_decision.remaining := greatest(v_record.allowance - v_record.used_after, 0);
  v_decision.overage := coalesce(greatest(v_record.used_after - v_record.allowance, 0), 0);
  v_decision.period_start := v_record.period_start;
  v_decision.period_end := (
    select period_end
    from billing.usage_totals
    where account_id = p_account_id
      and feature_key = v_record.feature_key
      and period_start = v_record.period_start
  );
  v_decision.is_repeated := true;
  return v_decision;
end;
$$;

comment on function billing_private.recorded_decision(uuid, text) is
  'The answer an idempotency key was given before; null when it is new.';


create function billing_private.lock_usage_keys(p_account_ids uuid[])
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  -- A key is unique within a month''s partition, and looked for in those before: only around the
  -- turn of a month could two at once miss each other.
  if billing_private.usage_month(v_now - interval '1 hour')
    <> billing_private.usage_month(v_now + interval '1 hour')
  then
    perform pg_advisory_xact_lock(hashtextextended('billing.usage_keys:' || account_id, 0))
    from (
      select distinct account_id from unnest(p_account_ids) as account_id order by account_id
    ) as accounts;
  end if;
end;
$$;

comment on function billing_private.lock_usage_keys(uuid[]) is
  'Keeps others from using idempotency keys of these accounts until the transaction ends, within '
  'an hour of the turn of a month (UTC); nothing at other times.';


create function billing_private.refuse_consuming(p_feature_key text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
    'field', 'feature', 'problem', 'only a sum or a count can be consumed',
    'feature', p_feature_key));
end;
$$;

comment on function billing_private.refuse_consuming(text) is
  'Raises the error of whoever consumes what cannot be consumed (VALIDATION_FAILED, 400).';


create function billing_private.not_included(p_feature_key text, p_quantity numeric)
returns billing.usage_decision
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_decision billing.usage_decision;
begin
  v_decision.is_allowed := false;
  v_decision.feature_key := p_feature_key;
  v_decision.quantity := p_quantity;
  v_decision.reason := 'not_included';
  v_decision.is_repeated := false;
  return v_decision;
end;
$$;

comment on function billing_private.not_included(text, numeric) is
  'The answer to whoever asks for units of a feature the account does not have.';


create function billing_private.write_record(
  p_state billing_private.usage_state,
  p_id uuid,
  p_idempotency_key text,
  p_quantity numeric,
  p_properties jsonb
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_totals billing.usage_totals := p_state.totals;
begin
  insert into billing.usage_records (
    account_id, idempotency_key, recorded_month, id, feature_key, quantity, occurred_at,
    recorded_at, period_start, used_after, allowance, properties
  )
  values (
    v_totals.account_id, p_idempotency_key, billing_private.usage_month(v_now), p_id,
    v_totals.feature_key, p_quantity, v_now, v_now, v_totals.period_start, v_totals.used,
    p_state.included + v_totals.rollover + v_totals.prepaid, p_properties
  );
end;
$$;

comment on function billing_private.write_record(
  billing_private.usage_state, uuid, text, numeric, jsonb
) is
  'Writes the record of units that were counted, with the answer.';


create function billing_private.follow_count(
  p_state billing_private.usage_state,
  p_terms billing_private.usage_terms,
  p_id uuid,
  p_units numeric
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if billing_private.is_at_threshold(p_state, p_terms) then
    perform billing_private.note_thresholds(p_state, p_terms);
  end if;
  if p_terms.stripe_event_name is not null then
    perform billing_private.report_usage(
      p_id, (p_state.totals).account_id, p_terms.stripe_event_name, p_units,
      billing_private.now());
  end if;
end;
$$;

comment on function billing_private.follow_count(
  billing_private.usage_state, billing_private.usage_terms, uuid, numeric
) is
  'What follows from units that were counted: a threshold, a report to Stripe.';


create function billing_private.report_usage(
  p_id uuid,
  p_account_id uuid,
  p_event_name text,
  p_value numeric,
  p_occurred_at timestamptz
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Whom Stripe does not know it does not bill.
  if exists (
    select
    from billing.customers
    where account_id = p_account_id and is_primary and deleted_at is null
  ) then
    perform billing_private.enqueue_meter_event(
      p_id, p_account_id, p_event_name, p_value, p_occurred_at);
  end if;
end;
$$;

comment on function billing_private.report_usage(uuid, uuid, text, numeric, timestamptz) is
  'Has Stripe''s meter told of usage, of accounts that are customers; the record''s id is '
  'Stripe''s identifier.';


create function billing_private.require_quantity(p_quantity numeric, p_field text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  -- NaN is greater than every number.
  if p_quantity > 0 and p_quantity <= 1e15 then
    return;
  end if;
  perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
    'field', p_field, 'problem', 'must be greater than zero, and at most 10^15'));
end;
$$;

comment on function billing_private.require_quantity(numeric, text) is
  'Refuses a quantity that is no quantity (VALIDATION_FAILED, 400).';


create function billing_private.require_key(p_idempotency_key text)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if length(p_idempotency_key) not between 1 and 255 then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'idempotency_key', 'problem', 'must have 1 to 255 characters'));
  end if;
end;
$$;

comment on function billing_private.require_key(text) is
  'Refuses an idempotency key that is none (VALIDATION_FAILED, 400); null is no key.';


create function billing_private.take_key(
  p_account_id uuid,
  p_idempotency_key text,
  p_id uuid,
  p_feature_key text,
  p_quantity numeric,
  p_period_start timestamptz,
  p_properties jsonb
)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
begin
  insert into billing.usage_records (
    account_id, idempotency_key, recorded_month, id, feature_key, quantity, occurred_at,
    recorded_at, period_start, properties
  )
  values (
    p_account_id, p_idempotency_key, billing_private.usage_month(v_now), p_id, p_feature_key,
    p_quantity, v_now, v_now, p_period_start, p_properties
  )
  on conflict do nothing;
  return found;
end;
$$;

comment on function billing_private.take_key(
  uuid, text, uuid, text, numeric, timestamptz, jsonb
) is
  'Writes the record of a key before its units are counted; false where somebody else has done so '
  'meanwhile, after they have come to an end.';


create function billing_private.answer_key(
  p_state billing_private.usage_state,
  p_idempotency_key text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_totals billing.usage_totals := p_state.totals;
  v_month timestamptz := billing_private.usage_month(billing_private.now());
begin
  if p_state.is_allowed then
    update billing.usage_records
    set used_after = v_totals.used,
        allowance = p_state.included + v_totals.rollover + v_totals.prepaid
    where account_id = v_totals.account_id
      and idempotency_key = p_idempotency_key
      and recorded_month = v_month;
  else
    delete from billing.usage_records
    where account_id = v_totals.account_id
      and idempotency_key = p_idempotency_key
      and recorded_month = v_month;
  end if;
end;
$$;

comment on function billing_private.answer_key(billing_private.usage_state, text) is
  'Completes the record of a key with the answer, or takes it back: a refusal is not kept.';


-- Long because the quick way is written out: terms, one statement that decides, counts and records.
-- Asks nobody who they are: it is for triggers, and for definer functions of the application, which
-- run as whoever signed in.
create function billing_private.try_consume(
  p_account_id uuid,
  p_feature_key text,
  p_quantity numeric,
  p_idempotency_key text default null,
  p_properties jsonb default null
)
returns billing.usage_decision
language plpgsql
volatile
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_now timestamptz := billing_private.now();
  v_month timestamptz := date_trunc('month', v_now, 'UTC');
  v_id uuid := gen_random_uuid();
  v_terms billing_private.usage_terms;
  v_state billing_private.usage_state;
  v_totals billing.usage_totals;
  v_earlier billing.usage_decision;
  v_units numeric;
  v_allowance numeric;
begin
  if (p_quantity > 0 and p_quantity <= 1e15) is not true then
    perform billing_private.require_quantity(p_quantity, 'quantity');
  end if;
  if p_idempotency_key is not null then
    perform billing_private.require_key(p_idempotency_key);
    perform billing_private.lock_usage_keys(array[p_account_id]);
    v_earlier := billing_private.recorded_decision(p_account_id, p_idempotency_key);
    if v_earlier.is_repeated then
      return v_earlier;
    end if;
  end if;

  v_terms := billing_private.usage_terms(p_account_id, p_feature_key, v_now);
  if v_terms.kind = 'boolean' or v_terms.aggregation not in ('sum', 'count') then
    perform billing_private.refuse_consuming(p_feature_key);
  elsif not v_terms.is_included then
    return billing_private.not_included(p_feature_key, p_quantity);
  end if;
  v_units := case when v_terms.aggregation = 'count' then 1 else p_quantity end;

  -- The key before the count, as in a batch: whoever comes with the same key waits here, and holds
  -- nothing that somebody else waits for.
  if p_idempotency_key is not null and not billing_private.take_key(
    p_account_id, p_idempotency_key, v_id, p_feature_key, p_quantity, v_terms.period_start,
    p_properties)
  then
    return billing_private.recorded_decision(p_account_id, p_idempotency_key);
  end if;

  -- The condition and the count are one statement: two callers cannot both take the last unit.
  -- What it lets pass, every policy lets pass; the rest is looked at in full.
  with counted as (
    update billing.usage_totals
    set used = used + v_units
    where account_id = p_account_id
      and feature_key = p_feature_key
      and period_start = v_terms.period_start
      and (
        v_terms.limit_value is null
        or (used + reserved + v_units <= v_terms.limit_value + rollover
          and v_terms.on_plan_change = 'keep')
      )
    returning *
  ),
  recorded as (
    insert into billing.usage_records (
      account_id, idempotency_key, recorded_month, id, feature_key, quantity, occurred_at,
      recorded_at, period_start, used_after, allowance, properties
    )
    select
      p_account_id, v_id::text, v_month, v_id, p_feature_key, p_quantity, v_now, v_now,
      period_start, used, v_terms.limit_value + rollover + prepaid, p_properties
    from counted
    where v_terms.kind = 'metered' and p_idempotency_key is null
  )
  select * into v_totals from counted;
  if found
    and p_idempotency_key is null
    and v_terms.stripe_event_name is null
    and coalesce(v_totals.used * 100 < v_terms.limit_value, true)
  then
    -- Nothing follows: no threshold is below one percent. What decision_of() says, at once.
    v_allowance := v_terms.limit_value + v_totals.rollover + v_totals.prepaid;
    return row(
      true, p_feature_key, p_quantity, v_totals.used, v_totals.reserved, v_allowance,
      v_allowance - v_totals.used - v_totals.reserved, 0, v_totals.period_start,
      v_totals.period_end, null, false)::billing.usage_decision;
  elsif found then
    v_state.totals := v_totals;
    v_state.included := v_terms.limit_value;
    v_state.is_allowed := true;
  else
    v_state := billing_private.take_units(p_account_id, p_feature_key, v_units, v_terms);
    v_totals := v_state.totals;
    if v_state.is_allowed and v_terms.kind = 'metered' and p_idempotency_key is null then
      perform billing_private.write_record(v_state, v_id, v_id::text, p_quantity, p_properties);
    end if;
  end if;

  if p_idempotency_key is not null then
    perform billing_private.answer_key(v_state, p_idempotency_key);
  end if;
  if v_state.is_allowed then
    perform billing_private.follow_count(v_state, v_terms, v_id, v_units);
  end if;
  return billing_private.decision_of(v_state, p_quantity);
end;
$$;

comment on function billing_private.try_consume(uuid, text, numeric, text, jsonb) is
$$Counts units of a feature in the running period, all or none, and says whether it did. Undone with
the transaction it is called in.

p_idempotency_key: the same key counts once and is given the first answer, for at least 59 days. A
refusal is no answer to keep: when more is allowed, the same key may pass.

Errors
  VALIDATION_FAILED  400  a quantity or key that is none, or a feature that is not counted
  FEATURE_NOT_FOUND  404  there is no such feature$$;


create function billing_private.release_usage(
  p_account_id uuid,
  p_feature_key text,
  p_quantity numeric
)
returns billing.usage_decision
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_terms billing_private.usage_terms := billing_private.usage_terms(
    p_account_id, p_feature_key, billing_private.now());
  v_state billing_private.usage_state;
  v_totals billing.usage_totals;
begin
  perform billing_private.require_quantity(p_quantity, 'quantity');
  v_state.is_allowed := true;
  v_state.included := case when v_terms.is_included then v_terms.limit_value else 0 end;
  if v_terms.kind = 'limit' then
    -- Never below nothing: what was held before counting began may be released too.
    update billing.usage_totals
    set used = greatest(used - p_quantity, 0)
    where account_id = p_account_id
      and feature_key = p_feature_key
      and period_start = v_terms.period_start
    returning * into v_totals;
  else
    select * into v_totals
    from billing.usage_totals
    where account_id = p_account_id
      and feature_key = p_feature_key
      and period_start = v_terms.period_start;
  end if;
  v_state.totals := v_totals;
  return billing_private.decision_of(v_state, p_quantity);
end;
$$;

comment on function billing_private.release_usage(uuid, text, numeric) is
$$Gives back units of a limit feature, which counts what is held. What a metered feature has counted
was used: it stays.

Errors
  VALIDATION_FAILED  400  a quantity that is none
  FEATURE_NOT_FOUND  404  there is no such feature$$;


-- -----------------------------------------------------------------------------
-- 54  billing.consume()
-- -----------------------------------------------------------------------------

create function billing_private.require_counting(p_account_id uuid, p_feature_key text)
returns uuid
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.resolve_account(p_account_id);
begin
  if not billing_private.is_trusted()
    and exists (
      select from billing.features where key = p_feature_key and not clients_may_consume
    )
  then
    perform billing_private.fail('SERVER_ONLY', jsonb_build_object('feature', p_feature_key));
  end if;
  return v_account_id;
end;
$$;

comment on function billing_private.require_counting(uuid, text) is
  'The account a caller may count units for: the server any, members their own where the feature '
  'lets them.';


create function billing_private.refuse_usage(p_decision billing.usage_decision)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_details jsonb := jsonb_build_object(
    'feature', p_decision.feature_key, 'requested', p_decision.quantity,
    'used', p_decision.used, 'allowed', p_decision.allowance,
    'period_end', p_decision.period_end);
begin
  if p_decision.reason = 'not_included' then
    perform billing_private.fail('FEATURE_NOT_INCLUDED', v_details);
  end if;
  perform billing_private.fail('LIMIT_REACHED', v_details);
end;
$$;

comment on function billing_private.refuse_usage(billing.usage_decision) is
  'Raises the error that a refusal is to its caller.';


create function billing_private.consume(
  p_feature_key text,
  p_quantity numeric,
  p_account_id uuid,
  p_idempotency_key text,
  p_properties jsonb
)
returns billing.usage_decision
language plpgsql
volatile
security definer -- members may read what they used, never write it
set search_path = ''
as $$
declare
  v_is_trusted boolean := p_account_id is not null and billing_private.is_trusted();
  v_decision billing.usage_decision;
begin
  v_decision := billing_private.try_consume(
    case when v_is_trusted then p_account_id
      else billing_private.require_counting(p_account_id, p_feature_key) end,
    p_feature_key, p_quantity, p_idempotency_key, p_properties);
  if not v_decision.is_allowed then
    -- An account that does not exist has nothing, which is found out without looking for it.
    if v_is_trusted then
      perform billing_private.resolve_account(p_account_id);
    end if;
    perform billing_private.refuse_usage(v_decision);
  end if;
  return v_decision;
end;
$$;


create function billing.consume(
  feature text,
  quantity numeric default 1,
  account_id uuid default null,
  idempotency_key text default null,
  properties jsonb default null
)
returns billing.usage_decision
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.consume(feature, quantity, account_id, idempotency_key, properties);
end;

comment on function billing.consume(text, numeric, uuid, text, jsonb) is
$$Takes units of a feature, all or none: of a metered one from the running period, of a limit one
until they are released. Taken with the transaction it is called in, or not at all.

account_id: null for the caller's own account. Only the server may call it (service_role, or a
definer function of yours through billing_private.try_consume()), unless the feature lets clients.
idempotency_key: the same key counts once per account and is given the first answer (is_repeated),
for at least 59 days; a refusal is not kept.
properties: kept with the record.

Errors
  VALIDATION_FAILED     400  a quantity or key that is none, or a feature that is not counted
  UNAUTHENTICATED       401  nobody is signed in
  FEATURE_NOT_INCLUDED  402  no source gives the account this feature
  LIMIT_REACHED         402  the limit leaves less than asked for
  NOT_A_MEMBER          403  the account is not one of the caller's
  SERVER_ONLY           403  only the server counts this feature
  ACCOUNT_NOT_FOUND     404  there is no such account
  FEATURE_NOT_FOUND     404  there is no such feature$$;


-- -----------------------------------------------------------------------------
-- 55  organizations and their members
-- -----------------------------------------------------------------------------

-- Whoever changes who belongs to an organization holds its account's lock: two owners who leave at
-- once, or two guests who take the last seat, come one after the other.

create function billing_private.lock_organization(
  p_account_id uuid,
  p_permission text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_account billing.accounts;
begin
  -- Before the lock, so that no stranger holds it; and again under it, as roles may have changed.
  perform billing_private.require_permission(p_account_id, p_permission);
  perform billing_private.lock_account(p_account_id);
  perform billing_private.require_permission(p_account_id, p_permission);

  select * into v_account from billing.accounts where id = p_account_id;
  if v_account.kind = 'personal' or p_account_id = billing_private.user_id() then
    perform billing_private.fail('NOT_AN_ORGANIZATION', jsonb_build_object(
      'account_id', p_account_id));
  elsif v_account.id is null then
    perform billing_private.fail('ACCOUNT_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id));
  elsif v_account.closed_at is not null then
    perform billing_private.fail('ACCOUNT_CLOSED', jsonb_build_object(
      'account_id', p_account_id, 'closed_at', v_account.closed_at));
  end if;
end;
$$;

comment on function billing_private.lock_organization(uuid, text) is
$$Takes an organization's lock for a caller who may do something in it.

Errors
  UNAUTHENTICATED      401  nobody is signed in
  NOT_A_MEMBER         403  the caller does not belong to it
  NOT_ALLOWED          403  the caller's role lacks the permission
  ACCOUNT_NOT_FOUND    404  a trusted caller named an account that does not exist
  NOT_AN_ORGANIZATION  422  it is a personal account
  ACCOUNT_CLOSED       422  it was closed$$;


create function billing_private.require_text(
  p_field text,
  p_value text,
  p_pattern text,
  p_problem text
)
returns text
language plpgsql
immutable
set search_path = ''
as $$
declare
  v_value text := btrim(p_value, E' \t\r\n');
begin
  if coalesce(v_value !~ p_pattern or length(v_value) > 200, true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', p_field, 'problem', p_problem));
  end if;
  return v_value;
end;
$$;

comment on function billing_private.require_text(text, text, text, text) is
  'A text without the blanks around it; refused when it does not look as it should or is longer '
  'than 200 characters (VALIDATION_FAILED, 400).';


create function billing_private.require_role(p_role text)
returns void
language plpgsql
immutable
set search_path = ''
as $$
begin
  if coalesce(p_role not in ('owner', 'admin', 'member'), true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'role', 'problem', 'must be owner, admin or member'));
  end if;
end;
$$;

comment on function billing_private.require_role(text) is
  'Refuses a role nobody knows (VALIDATION_FAILED, 400).';


create function billing_private.membership(
  p_account_id uuid,
  p_user_id uuid
)
returns billing.memberships
language plpgsql
stable
set search_path = ''
as $$
declare
  v_membership billing.memberships;
begin
  select * into v_membership
  from billing.memberships
  where account_id = p_account_id
    and user_id = p_user_id;
  if not found then
    perform billing_private.fail('MEMBER_NOT_FOUND', jsonb_build_object(
      'account_id', p_account_id, 'user_id', p_user_id));
  end if;
  return v_membership;
end;
$$;

comment on function billing_private.membership(uuid, uuid) is
  'The membership of a user in an organization (MEMBER_NOT_FOUND, 404).';


create function billing_private.require_other_owner(p_membership billing.memberships)
returns void
language plpgsql
stable
set search_path = ''
as $$
begin
  if p_membership.role = 'owner' and not exists (
    select
    from billing.memberships
    where account_id = p_membership.account_id
      and role = 'owner'
      and user_id <> p_membership.user_id
  ) then
    perform billing_private.fail('LAST_OWNER', jsonb_build_object(
      'account_id', p_membership.account_id, 'user_id', p_membership.user_id));
  end if;
end;
$$;

comment on function billing_private.require_other_owner(billing.memberships) is
  'Refuses that the last owner goes or becomes something else (LAST_OWNER, 422). Only under the '
  'organization''s lock.';


create function billing_private.create_organization(p_name text)
returns billing.accounts
language plpgsql
volatile
security definer -- accounts and memberships are writable by nobody
set search_path = ''
as $$
declare
  v_user_id uuid := billing_private.user_id();
  v_account billing.accounts;
begin
  if v_user_id is null then
    perform billing_private.fail('UNAUTHENTICATED');
  end if;
  perform billing_private.set_cause('user', v_user_id::text, 'create organization');

  insert into billing.accounts (kind, name)
  values (
    'organization', billing_private.require_text('name', p_name, '\S', 'a name is required')
  )
  returning * into v_account;
  insert into billing.memberships (account_id, user_id, role)
  values (v_account.id, v_user_id, 'owner');
  return v_account;
end;
$$;


create function billing.create_organization(name text)
returns billing.accounts
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.create_organization(name);
end;

comment on function billing.create_organization(text) is
$$Makes an account for a team, whose owner is the caller. It subscribes like a personal one: pass
its id as account_id.

name: up to 200 characters; two organizations may have the same.

Errors
  VALIDATION_FAILED  400  no name, or too long a one
  UNAUTHENTICATED    401  nobody is signed in$$;


create function billing_private.rename_organization(
  p_account_id uuid,
  p_name text
)
returns billing.accounts
language plpgsql
volatile
security definer -- accounts are writable by nobody
set search_path = ''
as $$
declare
  v_account billing.accounts;
begin
  perform billing_private.lock_organization(p_account_id, 'manage_account');
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'rename');
  update billing.accounts
  set name = billing_private.require_text('name', p_name, '\S', 'a name is required')
  where id = p_account_id
  returning * into v_account;
  return v_account;
end;
$$;


create function billing.rename_organization(
  account_id uuid,
  name text
)
returns billing.accounts
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.rename_organization(account_id, name);
end;

comment on function billing.rename_organization(uuid, text) is
$$Gives an organization another name, which its Stripe customer gets too. For owners and admins.

Errors
  VALIDATION_FAILED    400  no name, or too long a one
  UNAUTHENTICATED      401  nobody is signed in
  NOT_A_MEMBER         403  the caller does not belong to it
  NOT_ALLOWED          403  the caller's role lacks manage_account
  ACCOUNT_NOT_FOUND    404  a server named an account that does not exist
  NOT_AN_ORGANIZATION  422  it is a personal account
  ACCOUNT_CLOSED       422  it was closed$$;


create type billing.new_invitation as (
  id uuid,
  account_id uuid,
  email text,
  role text,
  token text,
  expires_at timestamptz
);

comment on type billing.new_invitation is
  'An invitation as whoever made it sees it, once: token is for the mail to the guest and is not '
  'kept.';


create function billing_private.invite_member(
  p_account_id uuid,
  p_email text,
  p_role text,
  p_expires_in interval
)
returns billing.new_invitation
language plpgsql
volatile
security definer -- invitations are writable by nobody
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  -- 244 random bits of the server's own generator; their hash needs no salt.
  v_token text := replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
  v_email text;
  v_invitation billing.invitations;
begin
  perform billing_private.lock_organization(p_account_id, 'manage_members');
  perform billing_private.require_role(p_role);
  if p_role = 'owner' then
    perform billing_private.require_permission(p_account_id, 'own_account');
  end if;
  v_email := lower(billing_private.require_text(
    'email', p_email, '^[^@[:space:]]+@[^@[:space:]]+$', 'an e-mail address is required'));
  if coalesce(p_expires_in not between interval '1 minute' and interval '90 days', true) then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'expires_in', 'problem', 'must be from a minute to 90 days'));
  elsif exists (
    select
    from auth.users
    join billing.memberships on memberships.user_id = users.id
    where lower(users.email) = v_email
      and memberships.account_id = p_account_id
  ) then
    perform billing_private.fail('ALREADY_A_MEMBER', jsonb_build_object('email', v_email));
  end if;
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'invite');

  update billing.invitations
  set revoked_at = v_now
  where account_id = p_account_id
    and email = v_email
    and accepted_at is null
    and revoked_at is null;
  perform billing_private.require_seat(p_account_id);

  insert into billing.invitations (account_id, email, role, invited_by, created_at, expires_at)
  values (
    p_account_id, v_email, p_role, billing_private.user_id(), v_now, v_now + p_expires_in
  )
  returning * into v_invitation;
  insert into billing_private.invitation_tokens (token_hash, invitation_id)
  values (billing_private.token_hash(v_token), v_invitation.id);
  perform billing_private.sync_seats(p_account_id);

  return row(
    v_invitation.id, p_account_id, v_email, p_role, v_token, v_invitation.expires_at
  )::billing.new_invitation;
end;
$$;


create function billing_private.token_hash(p_token text)
returns text
language plpgsql
immutable
set search_path = ''
as $$
begin
  return encode(sha256(convert_to(p_token, 'UTF8')), 'hex');
end;
$$;

comment on function billing_private.token_hash(text) is
  'What is kept of a token: its SHA-256, in hex.';


create function billing.invite_member(
  account_id uuid,
  email text,
  role text default 'member',
  expires_in interval default '7 days'
)
returns billing.new_invitation
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.invite_member(account_id, email, role, expires_in);
end;

comment on function billing.invite_member(uuid, text, text, interval) is
$$Invites somebody into an organization and returns the token for the mail to them, this once. An
earlier invitation to the same address stops working. For owners and admins; only owners invite
owners.

role: owner, admin or member. expires_in: from a minute to 90 days.

Errors
  VALIDATION_FAILED    400  no address, an unknown role, or another time than allowed
  UNAUTHENTICATED      401  nobody is signed in
  SEAT_LIMIT_REACHED   402  members and open invitations take all seats of the plan
  NOT_A_MEMBER         403  the caller does not belong to it
  NOT_ALLOWED          403  the caller's role lacks manage_members, or own_account for an owner
  ACCOUNT_NOT_FOUND    404  a server named an account that does not exist
  ALREADY_A_MEMBER     409  a member has this address
  NOT_AN_ORGANIZATION  422  it is a personal account
  ACCOUNT_CLOSED       422  it was closed$$;


create function billing_private.open_invitation(p_token text)
returns billing.invitations
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_id uuid := (
    select invitation_id
    from billing_private.invitation_tokens
    where token_hash = billing_private.token_hash(p_token)
  );
  v_invitation billing.invitations;
begin
  select * into v_invitation from billing.invitations where id = v_id;
  if not found then
    perform billing_private.fail('INVITATION_NOT_FOUND');
  end if;

  -- What it says is read under the lock: who comes second finds it used.
  perform billing_private.lock_account(v_invitation.account_id);
  select * into v_invitation from billing.invitations where id = v_id;
  return v_invitation;
end;
$$;

comment on function billing_private.open_invitation(text) is
  'The invitation behind a token, under its organization''s lock (INVITATION_NOT_FOUND, 404).';


create function billing_private.accept_invitation(p_token text)
returns billing.memberships
language plpgsql
volatile
security definer -- memberships are writable by nobody
set search_path = ''
as $$
declare
  v_user_id uuid := billing_private.user_id();
  v_invitation billing.invitations;
  v_membership billing.memberships;
begin
  if v_user_id is null then
    perform billing_private.fail('UNAUTHENTICATED');
  end if;
  v_invitation := billing_private.open_invitation(p_token);
  select * into v_membership
  from billing.memberships
  where account_id = v_invitation.account_id
    and user_id = v_user_id;

  if v_invitation.accepted_by = v_user_id and v_membership.user_id is not null then
    return v_membership; -- twice changes nothing more
  end if;
  perform billing_private.require_open(v_invitation);
  if v_membership.user_id is not null then
    perform billing_private.fail('ALREADY_A_MEMBER', jsonb_build_object(
      'account_id', v_membership.account_id, 'role', v_membership.role));
  end if;
  perform billing_private.require_seat(v_invitation.account_id, v_invitation.id);
  perform billing_private.set_cause('user', v_user_id::text, 'accept invitation');

  update billing.invitations
  set accepted_at = billing_private.now(),
      accepted_by = v_user_id
  where id = v_invitation.id;
  insert into billing.memberships (account_id, user_id, role)
  values (v_invitation.account_id, v_user_id, v_invitation.role)
  returning * into v_membership;
  perform billing_private.sync_seats(v_invitation.account_id);
  return v_membership;
end;
$$;


create function billing_private.require_open(p_invitation billing.invitations)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_problem text := case
    when p_invitation.accepted_at is not null then 'it was used'
    when p_invitation.revoked_at is not null then 'it was withdrawn'
    when p_invitation.expires_at <= billing_private.now() then 'it is too old'
  end;
begin
  if v_problem is not null then
    perform billing_private.fail('INVITATION_CLOSED', jsonb_build_object(
      'invitation_id', p_invitation.id, 'problem', v_problem));
  end if;
end;
$$;

comment on function billing_private.require_open(billing.invitations) is
  'Refuses an invitation that was used or withdrawn or is too old (INVITATION_CLOSED, 422).';


create function billing.accept_invitation(token text)
returns billing.memberships
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.accept_invitation(token);
end;

comment on function billing.accept_invitation(text) is
$$Makes the caller a member of the organization they were invited into. The token is the proof: they
may have signed in with another address than it was sent to. Twice changes nothing more.

Errors
  UNAUTHENTICATED       401  nobody is signed in
  SEAT_LIMIT_REACHED    402  the plan has fewer seats than when they were invited, and all are taken
  INVITATION_NOT_FOUND  404  nobody was invited with this token
  ALREADY_A_MEMBER      409  the caller belongs to the organization already
  INVITATION_CLOSED     422  it was used or withdrawn, or is too old$$;


create function billing_private.revoke_invitation(
  p_account_id uuid,
  p_invitation_id uuid
)
returns billing.invitations
language plpgsql
volatile
security definer -- invitations are writable by nobody
set search_path = ''
as $$
declare
  v_invitation billing.invitations;
begin
  perform billing_private.lock_organization(p_account_id, 'manage_members');
  select * into v_invitation
  from billing.invitations
  where account_id = p_account_id
    and id = p_invitation_id;
  if not found then
    perform billing_private.fail('INVITATION_NOT_FOUND', jsonb_build_object(
      'invitation_id', p_invitation_id));
  elsif v_invitation.revoked_at is not null then
    return v_invitation; -- twice changes nothing more
  elsif v_invitation.accepted_at is not null then
    perform billing_private.require_open(v_invitation);
  end if;
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'revoke invitation');

  update billing.invitations
  set revoked_at = billing_private.now()
  where id = p_invitation_id
  returning * into v_invitation;
  perform billing_private.sync_seats(p_account_id);
  return v_invitation;
end;
$$;


create function billing.revoke_invitation(
  account_id uuid,
  invitation_id uuid
)
returns billing.invitations
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.revoke_invitation(account_id, invitation_id);
end;

comment on function billing.revoke_invitation(uuid, uuid) is
$$Withdraws an invitation, whose token then lets nobody in. Twice changes nothing more. For owners
and admins.

Errors
  UNAUTHENTICATED       401  nobody is signed in
  NOT_A_MEMBER          403  the caller does not belong to the organization
  NOT_ALLOWED           403  the caller's role lacks manage_members
  ACCOUNT_NOT_FOUND     404  a server named an account that does not exist
  INVITATION_NOT_FOUND  404  the organization has no such invitation
  NOT_AN_ORGANIZATION   422  it is a personal account
  INVITATION_CLOSED     422  it was used: remove the member instead
  ACCOUNT_CLOSED        422  the organization was closed$$;


create function billing_private.change_role(
  p_account_id uuid,
  p_user_id uuid,
  p_role text
)
returns billing.memberships
language plpgsql
volatile
security definer -- memberships are writable by nobody
set search_path = ''
as $$
declare
  v_membership billing.memberships;
begin
  perform billing_private.lock_organization(p_account_id, 'manage_members');
  perform billing_private.require_role(p_role);
  v_membership := billing_private.membership(p_account_id, p_user_id);
  if v_membership.role = p_role then
    return v_membership; -- twice changes nothing more
  elsif 'owner' in (v_membership.role, p_role) then
    perform billing_private.require_permission(p_account_id, 'own_account');
    perform billing_private.require_other_owner(v_membership);
  end if;
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'change role');

  update billing.memberships
  set role = p_role,
      updated_at = billing_private.now()
  where account_id = p_account_id
    and user_id = p_user_id
  returning * into v_membership;
  perform billing_private.revoke_invitations_by(p_account_id, p_user_id);
  perform billing_private.sync_seats(p_account_id);
  return v_membership;
end;
$$;


create function billing.change_role(
  account_id uuid,
  user_id uuid,
  role text
)
returns billing.memberships
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.change_role(account_id, user_id, role);
end;

comment on function billing.change_role(uuid, uuid, text) is
$$Makes a member owner, admin or member. For owners and admins; only owners make and unmake owners.
Open invitations they could not make in their new role are withdrawn.

Errors
  VALIDATION_FAILED    400  an unknown role
  UNAUTHENTICATED      401  nobody is signed in
  NOT_A_MEMBER         403  the caller does not belong to the organization
  NOT_ALLOWED          403  the caller's role lacks manage_members, or own_account where it takes an
                            owner
  ACCOUNT_NOT_FOUND    404  a server named an account that does not exist
  MEMBER_NOT_FOUND     404  the user does not belong to it
  LAST_OWNER           422  it would have no owner
  NOT_AN_ORGANIZATION  422  it is a personal account
  ACCOUNT_CLOSED       422  it was closed$$;


create function billing_private.revoke_invitations_by(
  p_account_id uuid,
  p_user_id uuid
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Whoever invites has the token in hand, and could come in again with it, as what they were.
  update billing.invitations
  set revoked_at = billing_private.now()
  where account_id = p_account_id
    and invited_by = p_user_id
    and accepted_at is null
    and revoked_at is null
    and not exists (
      select
      from billing.memberships
      join billing.role_permissions on role_permissions.role = memberships.role
      where memberships.account_id = p_account_id
        and memberships.user_id = p_user_id
        and role_permissions.permission = case invitations.role
          when 'owner' then 'own_account'
          else 'manage_members'
        end
    );
end;
$$;

comment on function billing_private.revoke_invitations_by(uuid, uuid) is
  'Withdraws the open invitations of somebody who could not make them any more: they have left, or '
  'have another role.';


create function billing_private.end_membership(p_membership billing.memberships)
returns billing.memberships
language plpgsql
volatile
set search_path = ''
as $$
begin
  perform billing_private.require_other_owner(p_membership);
  delete from billing.memberships
  where account_id = p_membership.account_id
    and user_id = p_membership.user_id;
  perform billing_private.revoke_invitations_by(
    p_membership.account_id, p_membership.user_id);
  perform billing_private.sync_seats(p_membership.account_id);
  return p_membership;
end;
$$;

comment on function billing_private.end_membership(billing.memberships) is
  'Takes a member out of an organization, unless they are its last owner (LAST_OWNER, 422).';


create function billing_private.remove_member(
  p_account_id uuid,
  p_user_id uuid
)
returns billing.memberships
language plpgsql
volatile
security definer -- memberships are writable by nobody
set search_path = ''
as $$
declare
  v_membership billing.memberships;
begin
  perform billing_private.lock_organization(p_account_id, 'manage_members');
  v_membership := billing_private.membership(p_account_id, p_user_id);
  if v_membership.role = 'owner' then
    perform billing_private.require_permission(p_account_id, 'own_account');
  end if;
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'remove member');
  return billing_private.end_membership(v_membership);
end;
$$;


create function billing.remove_member(
  account_id uuid,
  user_id uuid
)
returns billing.memberships
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.remove_member(account_id, user_id);
end;

comment on function billing.remove_member(uuid, uuid) is
$$Takes a member out of an organization: what it has is theirs no more, at once. Returns the
membership that ended. For owners and admins; only owners remove owners.

Errors
  UNAUTHENTICATED      401  nobody is signed in
  NOT_A_MEMBER         403  the caller does not belong to the organization
  NOT_ALLOWED          403  the caller's role lacks manage_members, or own_account for an owner
  ACCOUNT_NOT_FOUND    404  a server named an account that does not exist
  MEMBER_NOT_FOUND     404  the user does not belong to it
  LAST_OWNER           422  it would have no owner
  NOT_AN_ORGANIZATION  422  it is a personal account
  ACCOUNT_CLOSED       422  it was closed$$;


create function billing_private.leave_organization(p_account_id uuid)
returns billing.memberships
language plpgsql
volatile
security definer -- memberships are writable by nobody
set search_path = ''
as $$
declare
  v_user_id uuid := billing_private.user_id();
begin
  if v_user_id is null then
    perform billing_private.fail('UNAUTHENTICATED');
  end if;
  -- Everybody may go, whatever their role allows.
  perform billing_private.lock_organization(
    p_account_id,
    (
      select min(permission)
      from billing.role_permissions
      join billing.memberships using (role)
      where account_id = p_account_id
        and user_id = v_user_id
    ));
  perform billing_private.set_cause('user', v_user_id::text, 'leave');
  return billing_private.end_membership(
    billing_private.membership(p_account_id, v_user_id));
end;
$$;


create function billing.leave_organization(account_id uuid)
returns billing.memberships
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.leave_organization(account_id);
end;

comment on function billing.leave_organization(uuid) is
$$Takes the caller out of an organization. Returns the membership that ended.

Errors
  UNAUTHENTICATED      401  nobody is signed in
  NOT_A_MEMBER         403  the caller does not belong to it
  LAST_OWNER           422  it would have no owner
  NOT_AN_ORGANIZATION  422  it is a personal account
  ACCOUNT_CLOSED       422  it was closed$$;


create function billing_private.transfer_ownership(
  p_account_id uuid,
  p_user_id uuid
)
returns billing.memberships
language plpgsql
volatile
security definer -- memberships are writable by nobody
set search_path = ''
as $$
declare
  v_user_id uuid := billing_private.user_id();
begin
  perform billing_private.lock_organization(p_account_id, 'own_account');
  perform billing_private.membership(p_account_id, p_user_id);
  perform billing_private.set_cause('user', v_user_id::text, 'transfer ownership');

  update billing.memberships
  set role = case when user_id = p_user_id then 'owner' else 'admin' end,
      updated_at = billing_private.now()
  where account_id = p_account_id
    and (
      user_id = p_user_id and role <> 'owner'
      or user_id = v_user_id and role = 'owner' and v_user_id <> p_user_id
    );
  perform billing_private.revoke_invitations_by(p_account_id, v_user_id);
  perform billing_private.sync_seats(p_account_id);
  return billing_private.membership(p_account_id, p_user_id);
end;
$$;


create function billing.transfer_ownership(
  account_id uuid,
  user_id uuid
)
returns billing.memberships
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.transfer_ownership(account_id, user_id);
end;

comment on function billing.transfer_ownership(uuid, uuid) is
$$Makes another member an owner, and the caller an admin. Other owners stay what they are. Twice
changes nothing more, as whoever is no owner any more is refused.

Errors
  UNAUTHENTICATED      401  nobody is signed in
  NOT_A_MEMBER         403  the caller does not belong to the organization
  NOT_ALLOWED          403  the caller is no owner
  ACCOUNT_NOT_FOUND    404  a server named an account that does not exist
  MEMBER_NOT_FOUND     404  the user does not belong to it
  NOT_AN_ORGANIZATION  422  it is a personal account
  ACCOUNT_CLOSED       422  it was closed$$;


-- -----------------------------------------------------------------------------
-- 56  seats
-- -----------------------------------------------------------------------------

create function billing_private.seats_taken(
  p_account_id uuid,
  p_with_invitations boolean,
  p_except_invitation_id uuid default null
)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  return (select count(*) from billing.memberships where account_id = p_account_id)
    + (
      select count(*)
      from billing.invitations
      where account_id = p_account_id
        and accepted_at is null
        and revoked_at is null
        and expires_at > billing_private.now()
        and p_with_invitations
        and id is distinct from p_except_invitation_id
    );
end;
$$;

comment on function billing_private.seats_taken(uuid, boolean, uuid) is
  'How many members an organization has, with those who are invited or without.';


create function billing_private.require_seat(
  p_account_id uuid,
  p_invitation_id uuid default null
)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_limit bigint;
  v_taken bigint := billing_private.seats_taken(p_account_id, true, p_invitation_id);
begin
  -- The best of several sources, of which one without a limit is the best.
  select case when count(*) = count(limit_value) then max(limit_value) end into v_limit
  from billing.entitlements
  where account_id = p_account_id
    and feature_key = 'seats'
    and access_level = 'full'
    and valid_from <= v_now
    and valid_until > v_now;

  if v_taken >= v_limit then
    perform billing_private.fail('SEAT_LIMIT_REACHED', jsonb_build_object(
      'account_id', p_account_id, 'limit', v_limit, 'taken', v_taken));
  end if;
end;
$$;

comment on function billing_private.require_seat(uuid, uuid) is
  'Refuses one more in an organization whose feature ''seats'' is used up by members and open '
  'invitations (SEAT_LIMIT_REACHED, 402); without that feature there is no limit. p_invitation_id: '
  'the one whose seat is being taken. Only under the organization''s lock.';


create function billing_private.seats_wanted(
  p_account_id uuid,
  p_price billing.prices
)
returns bigint
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    select greatest(
      1,
      billing_private.seats_taken(accounts.id, plans.seat_policy = 'members_and_invitations'))
    from billing.accounts
    join billing.plans on plans.id = p_price.plan_id
    where accounts.id = p_account_id
      and accounts.kind = 'organization'
      and plans.seat_policy <> 'fixed'
      and p_price.usage_type <> 'metered'
  );
end;
$$;

comment on function billing_private.seats_wanted(uuid, billing.prices) is
  'The quantity an organization pays for at a price whose plan counts members, at least one; null '
  'where whoever buys names it.';


create type billing_private.seat_state as (
  account_id uuid,
  subscription_id uuid,
  plan_key text,
  seat_policy text,
  wanted bigint,
  running bigint,
  asked bigint,
  blocked_by text
);

comment on type billing_private.seat_state is
  'The seats of a subscription that counts members: wanted by who is there, running at present, '
  'asked of Stripe (null: nothing is). blocked_by: why they cannot be brought in step now.';


create function billing_private.counted_subscriptions()
returns setof uuid
language plpgsql
stable
set search_path = ''
as $$
begin
  -- From the few plans that count: one by one.
  return query
  select counted.id
  from billing.plans
  join billing.prices on prices.plan_id = plans.id
  cross join lateral (
    select subscriptions.id
    from billing.subscriptions
    where subscriptions.price_id = prices.id
      and subscriptions.ended_at is null
    offset 0
  ) as counted
  where plans.seat_policy <> 'fixed';
end;
$$;

comment on function billing_private.counted_subscriptions() is
  'The running subscriptions to plans that count members.';


create function billing_private.seat_states(p_subscription_ids uuid[])
returns setof billing_private.seat_state
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    subscriptions.account_id, subscriptions.id, plans.key, plans.seat_policy, seats.wanted,
    (seats.running).quantity, (seats.asked).quantity,
    case
      when subscriptions.status not in ('active', 'trialing') then subscriptions.status
      when subscriptions.pending_update is not null then 'unpaid_change'
      when exists (
        select
        from billing_private.commands
        where subscription_id = subscriptions.id
          and kind = 'change_plan'
          and status in ('dead', 'declined')
          and finished_at > billing_private.now() - interval '1 day'
          and (wish ->> 'quantity')::bigint = seats.wanted
      ) then 'refused'
    end
  from unnest(p_subscription_ids) as named (id)
  join billing.subscriptions on subscriptions.id = named.id
  join billing.prices on prices.id = subscriptions.price_id
  join billing.plans on plans.id = prices.plan_id
  cross join lateral (
    select
      billing_private.seats_wanted(subscriptions.account_id, prices) as wanted,
      billing_private.running_terms(subscriptions) as running,
      billing_private.asked_terms(subscriptions) as asked
  ) as seats
  where seats.wanted is not null
    and subscriptions.ended_at is null
    and subscriptions.status not in ('canceled', 'incomplete_expired');
end;
$$;

comment on function billing_private.seat_states(uuid[]) is
  'The seats of these subscriptions, wherever an organization runs one whose plan counts members.';


create function billing_private.sync_seats(p_account_id uuid)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_state billing_private.seat_state;
  v_count bigint := 0;
begin
  for v_state in
    select *
    from billing_private.seat_states(
      array(select id from billing.subscriptions where account_id = p_account_id))
    where coalesce(asked, running) is distinct from wanted
      and blocked_by is null
  loop
    perform billing_private.set_seats(subscriptions, v_state.wanted)
    from billing.subscriptions
    where id = v_state.subscription_id;
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.sync_seats(uuid) is
  'Brings the quantity of an organization''s subscription in step with its members: at once where '
  'it lives here, by a command where Stripe bills. Several changes before Stripe is told are one. '
  'Returns how many subscriptions it changed. Only under the account''s lock.';


create function billing_private.set_seats(
  p_subscription billing.subscriptions,
  p_quantity bigint
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_waiting billing_private.terms := billing_private.waiting_terms(p_subscription);
begin
  if p_subscription.provider = 'stripe' then
    perform billing_private.set_stripe_seats(p_subscription, p_quantity);
  else
    perform billing_private.set_manual_terms(
      p_subscription.id, p_subscription.price_id, p_quantity, billing_private.now());
  end if;

  -- A change of plan that waits for the period's end waits on, with the seats there are then.
  if v_waiting.price_id is null or v_waiting.price_id = p_subscription.price_id then
    return;
  elsif p_subscription.provider = 'stripe' then
    perform billing_private.enqueue_wish(
      jsonb_build_object('price_id', v_waiting.price_id, 'quantity', null),
      'create_schedule', p_subscription, '/v1/subscription_schedules',
      jsonb_build_object('from_subscription', p_subscription.stripe_subscription_id));
  else
    update billing.subscriptions
    set pending_price_id = p_subscription.pending_price_id,
        pending_change_at = p_subscription.pending_change_at
    where id = p_subscription.id;
  end if;
end;
$$;

comment on function billing_private.set_seats(billing.subscriptions, bigint) is
  'Gives a subscription as many seats, now and with proration.';


create function billing_private.set_stripe_seats(
  p_subscription billing.subscriptions,
  p_quantity bigint
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_running billing_private.terms := billing_private.running_terms(p_subscription);
  v_asked billing_private.terms := billing_private.asked_terms(p_subscription);
  v_price billing.prices;
  v_change billing_private.plan_change;
begin
  select * into strict v_price
  from billing.prices
  where id = coalesce(v_asked.price_id, v_running.price_id);
  v_change.price := v_price;
  v_change.quantity := p_quantity;

  perform billing_private.withdraw_change(p_subscription);
  if v_running is not distinct from row(v_price.id, p_quantity)::billing_private.terms then
    return; -- back to what runs: that was all
  end if;

  perform billing_private.enqueue_wish(
    jsonb_build_object('price_id', v_price.id, 'quantity', p_quantity),
    'change_plan', p_subscription,
    format('/v1/subscriptions/%s', p_subscription.stripe_subscription_id),
    case
      -- A change of plan somebody asked for, which Stripe has not been told: with these seats.
      when v_price.id <> v_running.price_id
        then billing_private.change_params(p_subscription, v_change)
      -- On the next invoice: nobody is kept out of a team because a card is declined just now.
      else jsonb_build_object(
        'items', billing_private.changed_items(p_subscription, v_change),
        'proration_behavior', 'create_prorations')
    end);
end;
$$;

comment on function billing_private.set_stripe_seats(billing.subscriptions, bigint) is
  'Asks Stripe for as many seats, in place of whatever it was to be asked for before.';


-- -----------------------------------------------------------------------------
-- 57  rows of the application's tables
-- -----------------------------------------------------------------------------

-- A table is metered by the triggers it carries and by nothing else: they go where it goes,
-- renamed, dumped and restored, and no list of ours can disagree with them.
--
-- They are statement triggers with transition tables: a thousand rows of one owner are counted
-- once, and owners in one order, so that two statements never wait for each other crosswise. A
-- statement that names a partition fires the partition's own triggers and not its root's, so
-- each has them.


create function billing_private.with_partitions(p_relation regclass)
returns table (relation regclass)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select p_relation
  union
  select tree.relid from pg_catalog.pg_partition_tree(p_relation) as tree;
end;
$$;

comment on function billing_private.with_partitions(regclass) is
  'A table and all its partitions, theirs included.';


create function billing_private.metered_tables()
returns table (
  relation regclass,
  feature_key text,
  owner_column text,
  is_broken boolean
)
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  with counting as (
    select
      pg_trigger.tgrelid, pg_trigger.tgenabled,
      -- The arguments stand one after the other, each with a zero byte behind it.
      string_to_array(
        convert_from(
          decode(
            replace(regexp_replace(encode(pg_trigger.tgargs, 'hex'), '(..)', '\1 ', 'g'),
              '00 ', '0a '),
            'hex'),
          getdatabaseencoding()),
        e'\n') as arguments
    from pg_catalog.pg_trigger
    where pg_trigger.tgfoid = 'billing_private.count_rows()'::regprocedure
  ),
  metered as (
    select distinct counting.tgrelid as root, counting.arguments
    from counting
    join pg_catalog.pg_class on pg_class.oid = counting.tgrelid
    where not pg_class.relispartition
  )
  select
    metered.root::regclass, metered.arguments[1], metered.arguments[2],
    not exists (
      select
      from pg_catalog.pg_attribute
      where pg_attribute.attrelid = metered.root
        and pg_attribute.attname = metered.arguments[2]
        and not pg_attribute.attisdropped
    )
    or exists (
      select
      from billing_private.with_partitions(metered.root) as members
      where (
        select count(*)
        from counting
        where counting.tgrelid = members.relation
          and counting.arguments = metered.arguments
          and counting.tgenabled in ('O', 'A')
      ) < case features.kind when 'limit' then 4 else 2 end
    )
  from metered
  left join billing.features on features.key = metered.arguments[1];
end;
$$;

comment on function billing_private.metered_tables() is
  'The tables whose rows are counted, as their triggers say. is_broken: a trigger is switched off '
  'or gone, a partition has come that has none, or the column has gone; '
  'billing_admin.meter_table() sets it right.';


create function billing_private.count_rows()
returns trigger
language plpgsql
volatile
security definer -- whoever may write the table must not be able to write what is counted
set search_path = ''
as $$
declare
  v_feature_key constant text := tg_argv[0];
  v_sides text[] := array[]::text[];
  v_change record;
  v_decision billing.usage_decision;
begin
  if tg_op = 'TRUNCATE' then
    perform billing_private.correct_metering(v_feature_key, null, true);
    return null;
  end if;

  if tg_op in ('INSERT', 'UPDATE') then
    v_sides := v_sides || format(
      'select %I as owner_id, count(*) as quantity from rows_after group by 1', tg_argv[1]);
  end if;
  if tg_op in ('UPDATE', 'DELETE') then
    v_sides := v_sides || format(
      'select %I as owner_id, -count(*) as quantity from rows_before group by 1', tg_argv[1]);
  end if;

  for v_change in execute format(
    'select owner_id, sum(quantity) as quantity
    from (%s) as sides
    where owner_id is not null
    group by owner_id
    having sum(quantity) <> 0
    order by owner_id', array_to_string(v_sides, ' union all '))
  loop
    if v_change.quantity < 0 then
      perform billing_private.release_usage(
        v_change.owner_id, v_feature_key, -v_change.quantity);
    else
      v_decision := billing_private.try_consume(
        v_change.owner_id, v_feature_key, v_change.quantity);
      if not v_decision.is_allowed then
        perform billing_private.refuse_usage(v_decision);
      end if;
    end if;
  end loop;
  return null;
end;
$$;

comment on function billing_private.count_rows() is
$$Counts what a statement did to a metered table: new rows are consumed, rows that are gone are
released, for each owner at once. A refusal is an error, so the statement has done nothing. Rows
without an owner are not counted.

Its arguments are the feature and the column with the owner, a user or an account.

Errors
  FEATURE_NOT_INCLUDED  402  no source gives the owner this feature
  LIMIT_REACHED         402  the limit leaves less than the statement adds$$;


create type billing_private.held_rows as (
  account_id uuid,
  held bigint
);

comment on type billing_private.held_rows is
  'How many rows an owner has.';


create function billing_private.held_rows(p_feature_key text, p_account_ids uuid[])
returns setof billing_private.held_rows
language plpgsql
stable
set search_path = ''
as $$
declare
  v_tables text;
begin
  select string_agg(
    format(
      'select %1$I as owner_id, count(*) as quantity from %2$s where %1$I is not null and '
        '($1 is null or %1$I = any ($1)) group by 1',
      metered_tables.owner_column, metered_tables.relation),
    ' union all ')
  into v_tables
  from billing_private.metered_tables() as metered_tables
  where metered_tables.feature_key = p_feature_key;
  if v_tables is null then
    return;
  end if;

  return query execute
    'select owner_id::uuid, sum(quantity)::bigint from (' || v_tables || ') as tables group by 1'
    using p_account_ids;
end;
$$;

comment on function billing_private.held_rows(text, uuid[]) is
  'How many rows of the tables metered for a feature each owner has; of these accounts, or with '
  'null of all. Owners without rows are left out.';


create function billing_private.metering_drift(
  p_feature_key text,
  p_account_ids uuid[] default null
)
returns table (account_id uuid, counted numeric, held bigint)
language plpgsql
stable
set search_path = ''
as $$
begin
  -- One statement, one snapshot: whoever counts commits rows and total together.
  return query
  select
    coalesce(totals.account_id, rows_held.account_id), coalesce(totals.used, 0),
    coalesce(rows_held.held, 0)
  from billing_private.held_rows(p_feature_key, p_account_ids) as rows_held
  full join (
    select usage_totals.account_id, usage_totals.used
    from billing.usage_totals
    where usage_totals.feature_key = p_feature_key
      and usage_totals.period_start = '-infinity'
      and (p_account_ids is null or usage_totals.account_id = any (p_account_ids))
  ) as totals using (account_id)
  where coalesce(totals.used, 0) <> coalesce(rows_held.held, 0)
    and exists (
      select
      from billing.accounts
      where accounts.id = coalesce(totals.account_id, rows_held.account_id)
    );
end;
$$;

comment on function billing_private.metering_drift(text, uuid[]) is
  'Where the total of a limit feature is not what the tables metered for it hold.';


create type billing_private.metering_correction as (
  account_id uuid,
  feature_key text,
  counted numeric,
  held bigint
);

comment on type billing_private.metering_correction is
  'A total that was not what the tables hold, and what it has been set to.';


create function billing_private.correct_metering(
  p_feature_key text,
  p_account_ids uuid[] default null,
  p_waits boolean default false
)
returns setof billing_private.metering_correction
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_account_ids uuid[];
begin
  -- Nobody begins or ends metering meanwhile: they lock the row for themselves.
  perform from billing.features where key = p_feature_key for share;

  v_account_ids := array(
    select drift.account_id
    from billing_private.metering_drift(p_feature_key, p_account_ids) as drift
  );
  -- `on conflict` alone would wait for those who are counting in a row that is there.
  insert into billing.usage_totals (account_id, feature_key, period_start, period_end)
  select account_id, p_feature_key, '-infinity', 'infinity'
  from unnest(v_account_ids) as accounts (account_id)
  where not exists (
    select
    from billing.usage_totals
    where usage_totals.account_id = accounts.account_id
      and usage_totals.feature_key = p_feature_key
      and usage_totals.period_start = '-infinity'
  )
  on conflict (account_id, feature_key, period_start) do nothing;

  -- Whoever has counted and not yet committed holds the row: behind it, rows and total agree.
  if p_waits then
    perform
    from billing.usage_totals
    where account_id = any (v_account_ids)
      and feature_key = p_feature_key
      and period_start = '-infinity'
    order by account_id
    for no key update;
  else
    v_account_ids := array(
      select account_id
      from billing.usage_totals
      where account_id = any (v_account_ids)
        and feature_key = p_feature_key
        and period_start = '-infinity'
      order by account_id
      for no key update skip locked
    );
  end if;

  return query
  update billing.usage_totals
  set used = drift.held
  from billing_private.metering_drift(p_feature_key, v_account_ids) as drift
  where usage_totals.account_id = drift.account_id
    and usage_totals.feature_key = p_feature_key
    and usage_totals.period_start = '-infinity'
  returning drift.account_id, p_feature_key, drift.counted, drift.held;
end;
$$;

comment on function billing_private.correct_metering(text, uuid[], boolean) is
$$Sets the totals of a limit feature to what its tables hold and returns those that were wrong: of
these accounts, or with null of all. Unless told to wait it leaves out accounts that are counted at
the moment. Whoever holds more than is allowed keeps it, and can add nothing.$$;


create function billing_private.metering_triggers(p_feature_key text)
returns table (trigger_name text, event text, transition text)
language plpgsql
stable
set search_path = ''
as $$
declare
  -- Names have 63 bytes; a feature's key may be longer.
  v_key text := case
    when length(p_feature_key) <= 40 then p_feature_key
    else md5(p_feature_key)
  end;
begin
  return query
  select 'billing_meter_' || v_key || '_' || wanted.event, wanted.event, wanted.transition
  from (values
    ('insert', 'referencing new table as rows_after'),
    ('update', 'referencing old table as rows_before new table as rows_after'),
    ('delete', 'referencing old table as rows_before'),
    ('truncate', '')
  ) as wanted (event, transition)
  join billing.features
    on features.key = p_feature_key
    -- What a metered feature has counted was used: no row that goes gives it back.
    and (features.kind = 'limit' or wanted.event in ('insert', 'update'));
end;
$$;

comment on function billing_private.metering_triggers(text) is
  'The triggers that make a table metered for a feature.';


-- Its body is long because it is a list: what cannot be metered, and why.
create function billing_private.require_meterable(
  p_relation regclass,
  p_feature_key text,
  p_owner_column text
)
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_class pg_catalog.pg_class;
  v_feature billing.features;
  v_type oid;
  v_field text := 'table_name';
  v_problem text;
begin
  select * into v_feature from billing.features where key = p_feature_key;
  if not found then
    perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object('feature', p_feature_key));
  end if;
  select * into v_class from pg_catalog.pg_class where oid = p_relation;
  select atttypid into v_type
  from pg_catalog.pg_attribute
  where attrelid = p_relation
    and attname = p_owner_column
    and attnum > 0
    and not attisdropped;

  if p_relation is null then
    v_problem := 'is required';
  elsif v_class.relkind not in ('r', 'p') then
    v_problem := 'is no table: what is behind it can be metered';
  elsif v_class.relispartition then
    v_problem := 'is a partition: the table it belongs to can be metered';
  elsif v_class.relkind = 'r'
    and exists (select from pg_catalog.pg_inherits where p_relation in (inhrelid, inhparent))
  then
    v_problem := 'inherits or is inherited from: its rows would be counted twice, or not at all';
  elsif v_class.relpersistence = 't' then
    v_problem := 'is temporary';
  elsif v_class.relnamespace::regnamespace::text in (
    'billing', 'billing_admin', 'billing_private', 'pg_catalog', 'information_schema')
  then
    v_problem := 'is not one of the application''s';
  elsif not pg_has_role(v_class.relowner, 'usage') then
    v_problem := 'belongs to ' || v_class.relowner::regrole::text || ', and only its owner can';
  elsif v_feature.kind = 'boolean' or v_feature.aggregation <> 'sum' then
    v_field := 'feature';
    v_problem := 'must be a limit, or metered as a sum';
  elsif v_type is null then
    v_field := 'owner_column';
    v_problem := 'is no column of the table';
  elsif v_type <> 'uuid'::regtype
    and coalesce((select typbasetype from pg_catalog.pg_type where oid = v_type), 0)
      <> 'uuid'::regtype
  then
    v_field := 'owner_column';
    v_problem := 'must be a uuid: the id of a user or an account';
  end if;

  if v_problem is not null then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', v_field, 'problem', v_problem,
      'table', p_relation::text, 'feature', p_feature_key, 'owner_column', p_owner_column));
  end if;
end;
$$;

comment on function billing_private.require_meterable(regclass, text, text) is
$$Refuses what cannot be metered and says why.

Errors
  VALIDATION_FAILED  400  not a table of the caller's, a feature that counts, or a column with ids
  FEATURE_NOT_FOUND  404  there is no such feature$$;


create function billing_private.drop_metering_triggers(
  p_relation regclass,
  p_feature_key text,
  p_but text[] default '{}'
)
returns integer
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_trigger record;
  v_count integer := 0;
begin
  for v_trigger in
    select pg_trigger.tgname, pg_trigger.tgrelid::regclass as relation
    from pg_catalog.pg_trigger
    where pg_trigger.tgfoid = 'billing_private.count_rows()'::regprocedure
      and starts_with(
        encode(pg_trigger.tgargs, 'hex'),
        encode(convert_to(p_feature_key, getdatabaseencoding()), 'hex') || '00')
      and pg_trigger.tgrelid in (
        select members.relation from billing_private.with_partitions(p_relation) as members)
      and pg_trigger.tgname <> all (p_but)
  loop
    execute format('drop trigger %I on %s', v_trigger.tgname, v_trigger.relation);
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.drop_metering_triggers(regclass, text, text[]) is
  'Takes the triggers of a feature, but these, from a table and its partitions; returns how many.';


create function billing_private.meter_table(
  p_relation regclass,
  p_feature_key text,
  p_owner_column text
)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_relation regclass;
  v_trigger record;
  v_names text[] := array[]::text[];
begin
  -- One at a time for each feature: what several tables hold is one total.
  perform from billing.features where key = p_feature_key for no key update;
  perform billing_private.require_meterable(p_relation, p_feature_key, p_owner_column);
  update billing.features set counts_rows = true where key = p_feature_key and not counts_rows;

  -- Making a trigger waits for everybody who is writing the table and lets nobody begin to, until
  -- this transaction ends: no row is missed and none counted twice.
  for v_relation in
    select members.relation from billing_private.with_partitions(p_relation) as members
  loop
    for v_trigger in select * from billing_private.metering_triggers(p_feature_key) loop
      execute format(
        'create or replace trigger %I after %s on %s %s
        for each statement execute function billing_private.count_rows(%L, %L)',
        v_trigger.trigger_name, v_trigger.event, v_relation, v_trigger.transition,
        p_feature_key, p_owner_column);
      execute format(
        'alter table %s enable trigger %I', v_relation, v_trigger.trigger_name);
      v_names := v_names || v_trigger.trigger_name;
    end loop;
  end loop;
  -- The feature may have been of another kind.
  perform billing_private.drop_metering_triggers(p_relation, p_feature_key, v_names);
  return billing_private.count_held_rows(p_relation, p_feature_key, p_owner_column);
end;
$$;

comment on function billing_private.meter_table(regclass, text, text) is
  'Has a table''s rows counted, and counts those that are there. Described at '
  'billing_admin.meter_table().';


create function billing_private.count_held_rows(
  p_relation regclass,
  p_feature_key text,
  p_owner_column text
)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_count bigint;
begin
  if (select kind from billing.features where key = p_feature_key) <> 'limit' then
    return 0;
  end if;
  -- A user who has never come near billing may own rows already.
  execute format(
    'insert into billing.accounts (id, kind)
    select distinct users.id, ''personal''
    from %s as metered
    join auth.users on users.id = metered.%I
    on conflict (id) do nothing', p_relation, p_owner_column);
  perform billing_private.correct_metering(p_feature_key, null, true);
  execute format('select count(%I) from %s', p_owner_column, p_relation) into v_count;
  return v_count;
end;
$$;

comment on function billing_private.count_held_rows(regclass, text, text) is
  'Sets every total of a limit feature to what the tables metered for it hold, and returns how '
  'many rows of this one have an owner; 0 of a metered feature.';


create function billing_private.unmeter_table(p_relation regclass, p_feature_key text)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_owner_column text;
begin
  perform from billing.features where key = p_feature_key for no key update;
  if not found then
    perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object('feature', p_feature_key));
  end if;
  select metered_tables.owner_column into v_owner_column
  from billing_private.metered_tables() as metered_tables
  where metered_tables.relation = p_relation
    and metered_tables.feature_key = p_feature_key;
  if not found then
    return 0;
  end if;
  perform billing_private.drop_metering_triggers(p_relation, p_feature_key);
  update billing.features
  set counts_rows = false
  where key = p_feature_key
    and not exists (
      select
      from billing_private.metered_tables() as metered_tables
      where metered_tables.feature_key = p_feature_key
    );
  return billing_private.count_held_rows(p_relation, p_feature_key, v_owner_column);
end;
$$;

comment on function billing_private.unmeter_table(regclass, text) is
  'Ends the counting of a table''s rows and gives back what they held. Described at '
  'billing_admin.unmeter_table().';


create function billing_private.repair_metering(
  p_feature_key text,
  p_account_ids uuid[] default null,
  p_waits boolean default false
)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_count bigint;
begin
  insert into billing_private.metering_corrections (account_id, feature_key, counted, held, cause)
  select account_id, feature_key, counted, held, billing_private.cause()
  from billing_private.correct_metering(p_feature_key, p_account_ids, p_waits);
  get diagnostics v_count = row_count;
  return v_count;
end;
$$;

comment on function billing_private.repair_metering(text, uuid[], boolean) is
  'Corrects the totals of a limit feature and keeps each correction; returns how many there were.';


create function billing_private.follow_partitions()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_new record;
  v_trigger record;
  v_count bigint := 0;
begin
  for v_new in
    select members.relation, metered_tables.feature_key, metered_tables.owner_column
    from billing_private.metered_tables() as metered_tables
    cross join lateral billing_private.with_partitions(metered_tables.relation) as members
    join pg_catalog.pg_class on pg_class.oid = members.relation
    where metered_tables.is_broken
      and pg_class.relispartition
      -- One that was switched off or dropped is somebody's wish, or mistake, and is told.
      and not exists (
        select
        from pg_catalog.pg_trigger
        join billing_private.metering_triggers(metered_tables.feature_key) as wanted
          on wanted.trigger_name = pg_trigger.tgname
        where pg_trigger.tgrelid = members.relation
      )
    order by members.relation::text, metered_tables.feature_key
  loop
    begin
      -- Better later than holding up who writes the table.
      perform set_config('lock_timeout', '500ms', true);
      for v_trigger in
        select * from billing_private.metering_triggers(v_new.feature_key)
      loop
        execute format(
          'create trigger %I after %s on %s %s
          for each statement execute function billing_private.count_rows(%L, %L)',
          v_trigger.trigger_name, v_trigger.event, v_new.relation, v_trigger.transition,
          v_new.feature_key, v_new.owner_column);
      end loop;
      v_count := v_count + 1;
    exception when lock_not_available or insufficient_privilege then
      -- It stays one of the critical issues.
      continue;
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
  return v_count;
end;
$$;

comment on function billing_private.follow_partitions() is
  'Has the rows of partitions counted that came after their table was metered; returns how many. '
  'What is in them by then, a recount finds.';


create function billing_private.release_dropped_tables()
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_feature_key text;
  v_count bigint := 0;
begin
  for v_feature_key in
    select key
    from billing.features
    where counts_rows
      and not exists (
        select
        from billing_private.metered_tables() as metered_tables
        where metered_tables.feature_key = features.key
      )
    order by key
    for no key update
  loop
    update billing.features set counts_rows = false where key = v_feature_key;
    if (select kind from billing.features where key = v_feature_key) = 'limit' then
      v_count := v_count + billing_private.repair_metering(v_feature_key, null, true);
    end if;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.release_dropped_tables() is
  'Gives back what tables held that were dropped without an end to their metering; returns how many'
  ' accounts held something.';


-- -----------------------------------------------------------------------------
-- 58  moving subscribers to other plans
-- -----------------------------------------------------------------------------

-- One step for each subscription item, each judged anew when its turn comes: whoever changes plan
-- meanwhile is left alone. Locks are only tried, so a batch stands in nobody's way.

create type billing_private.migration_candidate as (
  account_id uuid,
  subscription_id uuid,
  subscription_item_id uuid,
  from_version integer,
  to_price_id uuid,
  currency text,
  monthly_before bigint,
  monthly_after bigint,
  problem text
);

comment on type billing_private.migration_candidate is
  'A subscription item that a migration would move, at which price, and what is in its way; '
  'monthly amounts in the smallest unit.';


create function billing_private.price_after_migration(
  p_from billing.prices,
  p_to_plan_id uuid
)
returns billing.prices
language plpgsql
stable
set search_path = ''
as $$
declare
  v_price billing.prices;
begin
  if p_from.plan_id = p_to_plan_id then
    return p_from;
  end if;
  select * into v_price
  from billing.prices
  where plan_id = p_to_plan_id
    and is_active
    and (currency, billing_interval, interval_count, usage_type)
      = (p_from.currency, p_from.billing_interval, p_from.interval_count, p_from.usage_type)
  order by is_listed desc, created_at desc, id
  limit 1;
  return v_price;
end;
$$;

comment on function billing_private.price_after_migration(billing.prices, uuid) is
  'The price a plan has for the same currency and interval, the newest that is shown; the same '
  'price within a plan; null where there is none.';


-- Long because it is one query: all that bears on whether an item can be moved.
create function billing_private.migration_candidates(
  p_from_plan_id uuid,
  p_to_plan_id uuid,
  p_to_version integer,
  p_account_ids uuid[] default null,
  p_price_key text default null
)
returns setof billing_private.migration_candidate
language plpgsql
stable
set search_path = ''
as $$
begin
  return query
  select
    subscriptions.account_id, subscriptions.id, subscription_items.id,
    subscription_items.plan_version, (after.price).id, prices.currency,
    billing_private.monthly_amount(prices, subscription_items.quantity),
    billing_private.monthly_amount(after.price, subscription_items.quantity),
    case
      when p_from_plan_id = p_to_plan_id then null
      when billing_private.contract_binds(subscriptions) then 'contract'
      when subscriptions.status not in ('active', 'trialing') then 'not_running'
      when subscriptions.pending_price_id is not null
        or subscriptions.stripe_schedule_id is not null
        or subscriptions.pending_update is not null
        or (billing_private.last_asked(
          subscriptions.id,
          '{change_plan,create_schedule,update_schedule,release_schedule,cancel_subscription}'
        )).id is not null
        then 'change_pending'
      when (after.price).id is null then 'no_price'
      when subscriptions.provider = 'stripe' and (after.price).stripe_price_id is null
        then 'price_not_at_stripe'
    end
  from billing.prices
  join billing.subscription_items on subscription_items.price_id = prices.id
  join billing.subscriptions on subscriptions.id = subscription_items.subscription_id
  cross join lateral (
    select billing_private.price_after_migration(prices, p_to_plan_id) as price
    offset 0
  ) as after
  where prices.plan_id = p_from_plan_id
    and (p_price_key is null or prices.key = p_price_key)
    and (p_account_ids is null or subscriptions.account_id = any (p_account_ids))
    and subscriptions.account_id is not null
    and subscriptions.ended_at is null
    and subscriptions.status not in ('canceled', 'incomplete_expired')
    and (p_from_plan_id <> p_to_plan_id or subscription_items.plan_version <> p_to_version);
end;
$$;

comment on function billing_private.migration_candidates(uuid, uuid, integer, uuid[], text) is
  'What moving a plan''s subscribers to a version of it, or to another plan, concerns. Of some '
  'accounts alone, of one price alone, or (null) of all.';


create function billing_private.run_plan_migrations(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_step billing_private.plan_migration_steps;
  v_count bigint := 0;
begin
  if not billing_private.try_lock_catalog('subscription') then
    return 0; -- another time
  end if;
  for v_step in
    select *
    from billing_private.plan_migration_steps
    where status = 'pending'
    order by subscription_item_id
    limit p_limit
    for update skip locked
  loop
    v_count := v_count + billing_private.take_migration_step(v_step)::integer;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.run_plan_migrations(integer) is
  'Takes the next steps of all migrations; returns how many are behind it. Who is in somebody''s '
  'way comes back later.';


create function billing_private.take_migration_step(p_step billing_private.plan_migration_steps)
returns boolean
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_customer_id text := (
    select stripe_customer_id from billing.subscriptions where id = p_step.subscription_id
  );
  v_status text;
  v_problem text;
begin
  if v_customer_id is not null
    and not pg_try_advisory_xact_lock(hashtextextended('billing.customer:' || v_customer_id, 0))
    or not pg_try_advisory_xact_lock(hashtextextended('billing.account:' || p_step.account_id, 0))
  then
    return false;
  end if;

  begin
    select status, problem into v_status, v_problem
    from billing_private.migrate_item(p_step);
  exception
  when deadlock_detected or lock_not_available or serialization_failure then
    return false;
  when others then
    -- What is wrong with one keeps nobody else.
    v_status := 'skipped';
    v_problem := sqlerrm;
  end;
  update billing_private.plan_migration_steps
  set status = v_status,
      problem = v_problem,
      finished_at = billing_private.now()
  where migration_id = p_step.migration_id
    and subscription_item_id = p_step.subscription_item_id;
  return true;
end;
$$;

comment on function billing_private.take_migration_step(billing_private.plan_migration_steps) is
  'Moves one item, unless somebody is at work on its account: then false, and another time.';


create function billing_private.migrate_item(
  p_step billing_private.plan_migration_steps,
  out status text,
  out problem text
)
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_migration billing_private.plan_migrations;
  v_candidate billing_private.migration_candidate;
  v_subscription billing.subscriptions;
begin
  select * into strict v_migration
  from billing_private.plan_migrations
  where id = p_step.migration_id;
  select * into v_candidate
  from billing_private.migration_candidates(
    v_migration.from_plan_id, v_migration.to_plan_id, v_migration.to_version,
    array[p_step.account_id])
  where subscription_item_id = p_step.subscription_item_id;
  status := 'skipped';
  problem := coalesce(
    v_candidate.problem, case when v_candidate.account_id is null then 'changed_meanwhile' end);
  if problem is not null then
    return;
  end if;

  perform billing_private.set_cause('admin', v_migration.created_by::text, v_migration.reason);
  select * into strict v_subscription
  from billing.subscriptions
  where id = p_step.subscription_id;
  if v_migration.from_plan_id = v_migration.to_plan_id then
    update billing.subscription_items
    set plan_version = v_migration.to_version,
        version_moved_at = billing_private.now()
    where id = p_step.subscription_item_id;
    status := 'moved';
  elsif v_subscription.provider = 'stripe' then
    perform billing_private.ask_to_migrate(v_subscription, p_step, v_candidate, v_migration);
    status := 'asked';
  else
    perform billing_private.migrate_manual(
      v_subscription.id, v_candidate.to_price_id, v_migration.to_version, v_migration.proration);
    status := 'moved';
  end if;
end;
$$;

comment on function billing_private.migrate_item(billing_private.plan_migration_steps) is
  'Moves one item as it is now, or says what is in the way.';


create function billing_private.ask_to_migrate(
  p_subscription billing.subscriptions,
  p_step billing_private.plan_migration_steps,
  p_candidate billing_private.migration_candidate,
  p_migration billing_private.plan_migrations
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_item billing.subscription_items;
  v_command_id uuid;
begin
  select * into strict v_item
  from billing.subscription_items
  where id = p_step.subscription_item_id;
  -- By item id, or Stripe adds a second item; with the quantity, or Stripe resets it to one.
  v_command_id := billing_private.enqueue_command(
    'change_plan', p_subscription.account_id,
    format('/v1/subscriptions/%s', p_subscription.stripe_subscription_id),
    jsonb_build_object(
      'items', jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'id', v_item.stripe_subscription_item_id,
        'price', (select stripe_price_id from billing.prices where id = p_candidate.to_price_id),
        'quantity', v_item.quantity))),
      'proration_behavior', p_migration.proration),
    'POST', null, p_subscription);
  update billing_private.commands
  set wish = case
    when v_item.id = (billing_private.base_item(p_subscription.id)).id
      then jsonb_build_object('price_id', p_candidate.to_price_id, 'quantity', v_item.quantity)
  end
  where id = v_command_id;
  update billing_private.plan_migration_steps
  set command_id = v_command_id,
      to_price_id = p_candidate.to_price_id
  where migration_id = p_step.migration_id
    and subscription_item_id = p_step.subscription_item_id;
end;
$$;

comment on function billing_private.ask_to_migrate(
  billing.subscriptions, billing_private.plan_migration_steps,
  billing_private.migration_candidate, billing_private.plan_migrations
) is
  'Asks Stripe to put an item on another price; its answer is told as any change of plan is.';


create function billing_private.migrate_manual(
  p_subscription_id uuid,
  p_price_id uuid,
  p_to_version integer,
  p_proration text
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  if p_proration <> 'none' then
    perform billing_private.set_manual_terms(
      p_subscription_id, p_price_id, null, billing_private.now());
  else
    update billing.subscriptions
    set price_id = p_price_id,
        updated_at = billing_private.now()
    where id = p_subscription_id;
    perform billing_private.sync_manual_items(array[p_subscription_id]);
  end if;

  -- Another version may have been published since the migration was begun.
  update billing.subscription_items
  set plan_version = p_to_version,
      version_moved_at = billing_private.now()
  where subscription_id = p_subscription_id
    and plan_version <> p_to_version;
end;
$$;

comment on function billing_private.migrate_manual(uuid, uuid, integer, text) is
  'Puts a manual subscription on another price of the same interval, with this version of its '
  'plan''s contents: at once, and on the invoice with the next period unless it is to be prorated.';


-- -----------------------------------------------------------------------------
-- 59  closing accounts
-- -----------------------------------------------------------------------------

-- What was paid stays: invoices, payments and what hangs on them are kept, and who paid becomes a
-- number. Stripe's copy is Stripe's to erase (https://docs.stripe.com/privacy/redaction).

create function billing_private.close_account(p_account_id uuid)
returns billing.accounts
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_account billing.accounts;
begin
  perform billing_private.lock_account(p_account_id);
  select * into v_account from billing.accounts where id = p_account_id;
  if v_account.id is null or v_account.closed_at is not null then
    return v_account; -- twice changes nothing more
  end if;

  perform billing_private.retire_checkouts(p_account_id, null);
  perform billing_private.end_contracts(p_account_id, 'the account was closed');
  perform billing_private.end_subscriptions(p_account_id);
  update billing.entitlement_grants
  set revoked_at = v_now,
      revoked_reason = 'the account was closed'
  where account_id = p_account_id
    and revoked_at is null
    and valid_until > v_now;
  delete from billing.memberships where account_id = p_account_id;
  update billing.invitations
  set revoked_at = case when accepted_at is null then coalesce(revoked_at, v_now) end,
      email = 'closed@invalid'
  where account_id = p_account_id;

  update billing.accounts
  set name = null,
      closed_at = v_now
  where id = p_account_id
  returning * into v_account;
  perform billing_private.forget_person(p_account_id);
  return v_account;
end;
$$;

comment on function billing_private.close_account(uuid) is
  'Ends what an account has and pays for, lets its members go, and forgets who it was. Returns the '
  'account, or null when there is none.';


create function billing_private.end_subscriptions(p_account_id uuid)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_count bigint;
begin
  -- Asked for once, however often this is called.
  perform billing_private.cancel_stripe_subscription(subscriptions, false)
  from billing.subscriptions
  where account_id = p_account_id
    and provider = 'stripe'
    and status not in ('canceled', 'incomplete_expired');
  get diagnostics v_count = row_count;

  update billing.subscriptions
  set status = 'canceled',
      canceled_at = v_now,
      cancellation_reason = 'account_closed',
      ended_at = v_now,
      pending_price_id = null,
      pending_quantity = null,
      pending_change_at = null,
      updated_at = v_now
  where account_id = p_account_id
    and provider = 'manual'
    and status not in ('canceled', 'incomplete_expired');
  return v_count;
end;
$$;

comment on function billing_private.end_subscriptions(uuid) is
  'Ends all subscriptions of an account at once: here, or by a command where Stripe bills. Returns '
  'how many Stripe has to end.';


-- What Stripe wrote stays as it is where it belongs to the bill (lines, links to documents, why a
-- payment failed), and so do the reasons administrators gave: both are part of the record.
create function billing_private.forget_person(p_account_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Their names can no longer be looked up once they are gone from here.
  update billing_private.drifts
  set differences = '[]'
  where object_id = any (array(
    select stripe_customer_id from billing.customers where account_id = p_account_id
    union all
    select stripe_subscription_id from billing.subscriptions where account_id = p_account_id
    union all
    select stripe_tax_id from billing.tax_ids where account_id = p_account_id));
  update billing.customers
  set email = null,
      name = null,
      told_email = null,
      told_name = null
  where account_id = p_account_id;
  update billing.subscriptions
  set metadata = '{}',
      cancellation_feedback = null
  where account_id = p_account_id;
  update billing.subscription_changes
  set cause = cause - 'reason'
  where account_id = p_account_id
    and cause ->> 'kind' = 'user';
  update billing.tax_ids
  set value = null
  where account_id = p_account_id;
  update billing.checkout_sessions
  set success_url = 'https://closed.invalid/',
      cancel_url = 'https://closed.invalid/',
      url = null,
      failure = null
  where account_id = p_account_id;
  perform billing_private.forget_usage(p_account_id);
  perform billing_private.forget_calls(p_account_id);
end;
$$;

comment on function billing_private.forget_person(uuid) is
  'Takes the names, addresses, numbers and remarks of a closed account''s person out of what is '
  'kept.';


create function billing_private.forget_usage(p_account_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Hashed, not taken away: how many different ones there were goes on being true.
  update billing_private.usage_unique_values
  set value = billing_private.salted_hash(value)
  where account_id = p_account_id;
  update billing.usage_records
  set properties = null,
      unique_value = billing_private.salted_hash(unique_value)
  where account_id = p_account_id
    and (properties is not null or unique_value is not null);
end;
$$;

comment on function billing_private.forget_usage(uuid) is
  'Takes out of a closed account''s usage what its application wrote beside the numbers.';


create function billing_private.forget_calls(p_account_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  -- Of whoever is gone Stripe need not be told a new address.
  update billing_private.commands
  set status = 'canceled',
      finished_at = billing_private.now()
  where account_id = p_account_id
    and kind = 'update_customer'
    and status = 'pending'
    and attempts = 0;
  -- What may still be called again keeps what it is called with.
  update billing_private.commands
  set params = '{}',
      last_error = null,
      looked_up_to = null,
      cause = cause - 'reason'
  where account_id = p_account_id
    and status in ('succeeded', 'declined', 'canceled');
end;
$$;

comment on function billing_private.forget_calls(uuid) is
  'Takes what Stripe was told out of a closed account''s calls that are done; those that are not '
  'follow when they are.';


create function billing_private.is_closed(p_account_id uuid)
returns boolean
language plpgsql
stable
set search_path = ''
as $$
begin
  return exists (
    select
    from billing.accounts
    where id = p_account_id
      and closed_at is not null
  );
end;
$$;

comment on function billing_private.is_closed(uuid) is
  'True for an account that was closed.';


create function billing_private.close_my_account(p_account_id uuid)
returns billing.accounts
language plpgsql
volatile
security definer -- accounts are writable by nobody
set search_path = ''
as $$
declare
  v_account_id uuid := billing_private.resolve_account(p_account_id, 'own_account');
begin
  perform billing_private.set_cause('user', billing_private.user_id()::text, 'close account');
  return billing_private.close_account(v_account_id);
end;
$$;


create function billing.close_account(account_id uuid default null)
returns billing.accounts
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.close_my_account(account_id);
end;

comment on function billing.close_account(uuid) is
$$Closes an account: its subscriptions end at once, what is still to be paid stays owed, names and
addresses are forgotten, invoices and payments are kept. Nothing comes back by signing up again. An
organization is closed by an owner, and has no members then. Twice changes nothing more.

account_id: null for the caller's own account.

Errors
  VALIDATION_FAILED  400  a server named no account
  UNAUTHENTICATED    401  nobody is signed in
  NOT_A_MEMBER       403  the account is not one of the caller's
  NOT_ALLOWED        403  the caller is no owner
  ACCOUNT_NOT_FOUND  404  a server named an account that does not exist$$;


-- Deleting a user must never fail or wait because of billing: all this does is note it down. What
-- follows is done by the task settle_accounts.
create function billing_private.note_deleted_user()
returns trigger
language plpgsql
volatile
security definer -- deleted_users is writable by nobody
set search_path = ''
as $$
begin
  insert into billing_private.deleted_users (user_id)
  values (old.id)
  on conflict (user_id) do update
  set deleted_at = excluded.deleted_at,
      settled_at = null;
  return null;
exception when others then
  raise warning 'billing: could not note that user % was deleted: %', old.id, sqlerrm;
  return null;
end;
$$;

comment on function billing_private.note_deleted_user() is
  'Notes that a user of Supabase Auth is gone; never fails.';

-- Where the platform does not let us, settle_accounts finds such users by itself, later.
do $$
begin
  if has_table_privilege('auth.users', 'trigger') then
    create trigger pg_subscriptions_note_deleted_user
      after delete on auth.users
      for each row
      execute function billing_private.note_deleted_user();
  end if;
end;
$$;


create function billing_private.settle_deleted_user(p_user_id uuid)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_membership billing.memberships;
begin
  for v_membership in
    select * from billing.memberships where user_id = p_user_id order by account_id
  loop
    perform billing_private.lock_account(v_membership.account_id);
    delete from billing.memberships
    where account_id = v_membership.account_id
      and user_id = p_user_id;
    perform billing_private.revoke_invitations_by(v_membership.account_id, p_user_id);
    if exists (select from billing.memberships where account_id = v_membership.account_id) then
      -- Without an owner, if they were the last: nobody is made one unasked. Administrators see it.
      perform billing_private.sync_seats(v_membership.account_id);
    else
      perform billing_private.close_account(v_membership.account_id);
    end if;
  end loop;

  delete from billing.external_identities where user_id = p_user_id;
  delete from billing_private.administrators where user_id = p_user_id;
  delete from billing_private.store_admins where user_id = p_user_id;
  update billing.invitations
  set email = 'closed@invalid'
  where accepted_by = p_user_id;
  perform billing_private.close_account(p_user_id);
  update billing_private.deleted_users
  set settled_at = billing_private.now(),
      problem = null
  where user_id = p_user_id;
end;
$$;

comment on function billing_private.settle_deleted_user(uuid) is
  'Does what follows from the end of a user: no memberships, no rights, their account closed, and '
  'the organizations nobody else is in.';


-- -----------------------------------------------------------------------------
-- 60  billing.record_usage() and record_usage_batch()
-- -----------------------------------------------------------------------------

create type billing_private.usage_line as (
  place bigint,
  account_id uuid,
  feature_key text,
  quantity numeric,
  idempotency_key text,
  id uuid,
  occurred_at timestamptz,
  unique_value text,
  properties jsonb,
  corrects_key text,
  units numeric,
  terms billing_private.usage_terms
);

comment on type billing_private.usage_line is
  'A record on its way in: what was told, what it counts, and on which terms.';


create type billing.recorded_usage as (
  account_id uuid,
  feature_key text,
  idempotency_key text,
  quantity numeric,
  period_start timestamptz,
  is_repeated boolean
);

comment on type billing.recorded_usage is
  'What was recorded, or, where is_repeated, what the key was recorded with the first time.';


-- That there are many of them the planner can only learn from a function: it takes an array for ten
-- rows, and would compare each with each.
create function billing_private.lines_of(p_lines billing_private.usage_line[])
returns setof billing_private.usage_line
language plpgsql
immutable
rows 1000
set search_path = ''
as $$
begin
  return query select * from unnest(p_lines);
end;
$$;

comment on function billing_private.lines_of(billing_private.usage_line[]) is
  'The records of a batch as rows.';


create function billing_private.require_lines(p_lines billing_private.usage_line[])
returns void
language plpgsql
stable
set search_path = ''
as $$
declare
  v_latest timestamptz := billing_private.now() + interval '5 minutes';
  v_problem record;
begin
  select lines.*, problem.* into v_problem
  from unnest(p_lines) as lines
  cross join lateral (
    select case
      when lines.account_id is null then 'account_id'
      when lines.quantity >= 0 and lines.quantity <= 1e15 then
        case
          when length(lines.idempotency_key) not between 1 and 255 then 'idempotency_key'
          when lines.occurred_at > v_latest or lines.occurred_at < '2000-01-01' then 'at'
          when (lines.terms).kind <> 'metered' then 'feature'
          when (lines.terms).aggregation = 'unique'
            and length(lines.unique_value) between 1 and 255 is not true then 'unique_value'
        end
      else 'quantity'
    end as field
  ) as problem
  where problem.field is not null
    or (lines.terms).kind is null
    or (lines.terms).anchor is null
  order by lines.place
  limit 1;
  if not found then
    return;
  elsif v_problem.field is null and (v_problem.terms).kind is null then
    perform billing_private.fail('FEATURE_NOT_FOUND', jsonb_build_object(
      'feature', v_problem.feature_key, 'record', v_problem.place));
  elsif v_problem.field is null then
    perform billing_private.fail('ACCOUNT_NOT_FOUND', jsonb_build_object(
      'account_id', v_problem.account_id, 'record', v_problem.place));
  end if;
  perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
    'field', v_problem.field, 'record', v_problem.place,
    'problem', case v_problem.field
      when 'account_id' then 'the account must be named'
      when 'quantity' then 'must be a number from zero to 10^15'
      when 'idempotency_key' then 'must have 1 to 255 characters'
      when 'at' then 'must not be more than five minutes ahead'
      when 'feature' then 'only what is metered is recorded'
      else 'a feature that counts unique values needs one of 1 to 255 characters'
    end));
end;
$$;

comment on function billing_private.require_lines(billing_private.usage_line[]) is
  'Refuses the first record that cannot be one; its place in the batch is in the details.';


create function billing_private.add_records(p_lines billing_private.usage_line[])
returns billing_private.usage_line[]
language plpgsql
volatile
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
declare
  v_now timestamptz := billing_private.now();
  v_month timestamptz := billing_private.usage_month(v_now);
  v_month_before timestamptz := billing_private.usage_month(v_now - interval '1 month');
  v_month_before_that timestamptz := billing_private.usage_month(v_now - interval '2 months');
  v_inserted billing_private.usage_line[];
begin
  -- In one order, so that two batches with the same keys do not wait for each other.
  with unheard as (
    select distinct on (lines.account_id, lines.idempotency_key) lines.*
    from billing_private.lines_of(p_lines) as lines
    where lines.idempotency_key = lines.id::text
      or not exists (
        select
        from billing.usage_records
        where usage_records.account_id = lines.account_id
          and usage_records.idempotency_key = lines.idempotency_key
          and usage_records.recorded_month in (v_month_before, v_month_before_that)
      )
    order by lines.account_id, lines.idempotency_key, lines.place
  ),
  inserted as (
    insert into billing.usage_records (
      account_id, idempotency_key, recorded_month, id, feature_key, quantity, occurred_at,
      recorded_at, period_start, unique_value, corrects_key, properties
    )
    select
      account_id, idempotency_key, v_month, id, feature_key, quantity, occurred_at, v_now,
      (terms).period_start, unique_value, corrects_key, properties
    from unheard
    on conflict do nothing
    returning id
  )
  select array_agg(unheard::billing_private.usage_line) into v_inserted
  from unheard
  join inserted using (id);
  return v_inserted;
end;
$$;

comment on function billing_private.add_records(billing_private.usage_line[]) is
  'Writes the records whose keys are new, and returns those.';


create function billing_private.mark_unique_values(p_lines billing_private.usage_line[])
returns billing_private.usage_line[]
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_lines billing_private.usage_line[];
begin
  with seen as (
    insert into billing_private.usage_unique_values (account_id, feature_key, period_start, value)
    select distinct account_id, feature_key, (terms).period_start, unique_value
    from billing_private.lines_of(p_lines)
    where (terms).aggregation = 'unique' and quantity > 0
    order by 1, 2, 3, 4
    on conflict do nothing
    returning *
  ),
  firsts as (
    select distinct on (lines.account_id, lines.feature_key, (lines.terms).period_start,
      lines.unique_value) lines.place
    from billing_private.lines_of(p_lines) as lines
    join seen
      on seen.account_id = lines.account_id
      and seen.feature_key = lines.feature_key
      and seen.period_start = (lines.terms).period_start
      and seen.value = lines.unique_value
    where (lines.terms).aggregation = 'unique' and lines.quantity > 0
    order by
      lines.account_id, lines.feature_key, (lines.terms).period_start, lines.unique_value,
      lines.place
  )
  select array_agg(row(
    place, account_id, feature_key, quantity, idempotency_key, id, occurred_at, unique_value,
    properties, corrects_key,
    case when (terms).aggregation <> 'unique' then units
      when place in (select firsts.place from firsts) then 1 else 0 end,
    terms)::billing_private.usage_line)
  into v_lines
  from unnest(p_lines);
  return v_lines;
end;
$$;

comment on function billing_private.mark_unique_values(billing_private.usage_line[]) is
  'Has only the first record of each value and period count, where unique values count.';


-- Long because it is one upsert, the five aggregations side by side.
create function billing_private.add_to_totals(
  p_lines billing_private.usage_line[],
  p_kind text,
  p_reason text default null
)
returns setof billing.usage_totals
language plpgsql
volatile
set search_path = ''
set plan_cache_mode = 'force_generic_plan'
as $$
begin
  return query
  with lines as materialized (
    select
      place, account_id, feature_key, quantity, units, occurred_at, idempotency_key,
      (terms).period_start as period_start, (terms).period_end as period_end,
      (terms).aggregation as aggregation
    from billing_private.lines_of(p_lines)
  ),
  latest as materialized (
    select distinct on (account_id, feature_key, period_start)
      account_id, feature_key, period_start, quantity
    from lines
    where aggregation = 'latest'
    order by account_id, feature_key, period_start, occurred_at desc, place desc
  ),
  sums as materialized (
    select
      account_id, feature_key, period_start, aggregation, min(period_end) as period_end,
      case aggregation
        when 'max' then max(lines.quantity)
        when 'latest' then min(latest.quantity)
        else sum(units)
      end as units,
      max(occurred_at) as latest_at, min(idempotency_key) as idempotency_key
    from lines
    left join latest using (account_id, feature_key, period_start)
    group by account_id, feature_key, period_start, aggregation
  ),
  counted as (
    insert into billing.usage_totals (
      account_id, feature_key, period_start, period_end, used, latest_at
    )
    select
      account_id, feature_key, period_start, period_end, units,
      case when aggregation = 'latest' then latest_at end
    from sums
    order by account_id, feature_key, period_start
    on conflict (account_id, feature_key, period_start) do update
    set used = case (select aggregation from billing.features where key = usage_totals.feature_key)
          when 'max' then greatest(usage_totals.used, excluded.used)
          when 'latest' then
            case when excluded.latest_at >= coalesce(usage_totals.latest_at, '-infinity')
              then excluded.used else usage_totals.used end
          else usage_totals.used + excluded.used
        end,
        latest_at = greatest(usage_totals.latest_at, excluded.latest_at)
    where usage_totals.closed_at is null
    returning *
  ),
  uncounted as materialized (
    select sums.*
    from sums
    where not exists (
      select
      from counted
      where counted.account_id = sums.account_id
        and counted.feature_key = sums.feature_key
        and counted.period_start = sums.period_start
    )
  ),
  adjusted as (
    insert into billing.usage_adjustments (
      account_id, feature_key, period_start, quantity, kind, idempotency_key, reason
    )
    select
      sums.account_id, sums.feature_key, sums.period_start, difference.units, p_kind,
      sums.idempotency_key, p_reason
    from uncounted as sums
    join billing.usage_totals as closed using (account_id, feature_key, period_start)
    cross join lateral (
      select case
        when sums.aggregation in ('max', 'latest') then
          billing_private.recounted_usage(closed, sums.aggregation) - closed.used
            - coalesce(
              (
                select sum(earlier.quantity)
                from billing.usage_adjustments as earlier
                where earlier.account_id = sums.account_id
                  and earlier.feature_key = sums.feature_key
                  and earlier.period_start = sums.period_start
              ), 0)
        else sums.units
      end as units
    ) as difference
    where difference.units <> 0
  )
  select * from counted;
end;
$$;

comment on function billing_private.add_to_totals(billing_private.usage_line[], text, text) is
  'Counts records in the totals of their periods, by each feature''s aggregation, and returns '
  'those; of closed periods it writes adjustments instead.';


create function billing_private.pay_from_grants(
  p_totals billing.usage_totals,
  p_terms billing_private.usage_terms,
  p_units numeric
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_allowance numeric := p_totals.rollover + p_totals.prepaid + billing_private.included_units(
    p_totals.account_id, p_totals.feature_key, p_terms, billing_private.now());
  -- Of what was uncovered before nothing is paid now.
  v_units numeric := least(
    greatest(p_totals.used - v_allowance, 0)
      - greatest(p_totals.used - p_units - v_allowance, 0),
    billing_private.prepaid_units(p_totals.account_id, p_totals.feature_key));
begin
  if coalesce(v_units <= 0, true) then
    return;
  end if;
  perform billing_private.burn_grants(p_totals, v_units);
  update billing.usage_totals
  set prepaid = prepaid + v_units
  where account_id = p_totals.account_id
    and feature_key = p_totals.feature_key
    and period_start = p_totals.period_start;
end;
$$;

comment on function billing_private.pay_from_grants(
  billing.usage_totals, billing_private.usage_terms, numeric
) is
  'Has prepaid grants pay for what was recorded beyond what a period includes.';


create function billing_private.follow_records(
  p_lines billing_private.usage_line[],
  p_totals billing.usage_totals[]
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_line record;
begin
  for v_line in
    select totals, sums.terms, sums.units
    from unnest(p_totals) as totals
    join (
      select
        account_id, feature_key, (terms).period_start, (array_agg(terms))[1] as terms,
        sum(units) as units
      from billing_private.lines_of(p_lines)
      where (terms).is_included and (terms).limit_value is not null
      group by account_id, feature_key, (terms).period_start
    ) as sums
      on sums.account_id = totals.account_id
      and sums.feature_key = totals.feature_key
      and sums.period_start = totals.period_start
    where totals.period_end > v_now
      and totals.used * 100 >= (sums.terms).limit_value * coalesce(
        (select min(percent) from unnest((sums.terms).alert_percents) as percent), 100)
    order by totals.account_id, totals.feature_key, totals.period_start
  loop
    perform billing_private.note_thresholds(
      row(v_line.totals, (v_line.terms).limit_value, true)::billing_private.usage_state,
      v_line.terms);
    if (v_line.terms).aggregation in ('sum', 'count', 'unique') then
      perform billing_private.pay_from_grants(v_line.totals, v_line.terms, v_line.units);
    end if;
  end loop;

  perform billing_private.report_usage(
    id, account_id, (terms).stripe_event_name, units, occurred_at)
  from billing_private.lines_of(p_lines)
  where (terms).stripe_event_name is not null
    and units <> 0;
end;
$$;

comment on function billing_private.follow_records(
  billing_private.usage_line[], billing.usage_totals[]
) is
  'What follows from records: thresholds that were reached, prepaid units that pay, reports to '
  'Stripe.';


create function billing_private.count_lines(
  p_lines billing_private.usage_line[],
  p_kind text,
  p_reason text default null
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_lines billing_private.usage_line[] := p_lines;
  v_totals billing.usage_totals[];
begin
  -- A period that takes over what the one before left is opened with it.
  perform billing_private.open_usage_period(account_id, feature_key, terms)
  from (
    select distinct account_id, feature_key, terms
    from billing_private.lines_of(p_lines)
    where (terms).rollover_cap > 0
    order by account_id, feature_key
  ) as periods;

  if exists (select from unnest(p_lines) where (terms).aggregation = 'unique') then
    v_lines := billing_private.mark_unique_values(p_lines);
  end if;
  select array_agg(totals) into v_totals
  from billing_private.add_to_totals(v_lines, p_kind, p_reason) as totals;
  perform billing_private.follow_records(v_lines, v_totals);
end;
$$;

comment on function billing_private.count_lines(billing_private.usage_line[], text, text) is
  'Counts records that are written, and does what follows.';


create function billing_private.on_terms(p_lines billing_private.usage_line[])
returns billing_private.usage_line[]
language plpgsql
stable
set search_path = ''
as $$
declare
  v_latest timestamptz := billing_private.now() + interval '1 day';
  v_terms billing_private.usage_terms[];
  v_lines billing_private.usage_line[];
begin
  select array_agg(terms) into v_terms
  from billing_private.usage_terms_of(
    array(select account_id from unnest(p_lines)), array(select feature_key from unnest(p_lines)),
    -- What is no time is refused later, by name.
    array(
      select least(greatest(occurred_at, '2000-01-01'), v_latest)
      from unnest(p_lines)
    )) as terms;

  select array_agg(row(
    lines.place, lines.account_id, lines.feature_key, lines.quantity, lines.idempotency_key,
    lines.id, lines.occurred_at, lines.unique_value, lines.properties, lines.corrects_key,
    case (lines.agreed).aggregation
      when 'count' then (lines.quantity > 0)::integer else lines.quantity end,
    lines.agreed)::billing_private.usage_line)
  into v_lines
  from (
    select written.*, agreed
    from rows from (unnest(p_lines), unnest(v_terms))
      as written (
        place, account_id, feature_key, quantity, idempotency_key, id, occurred_at, unique_value,
        properties, corrects_key, units, terms,
        kind, aggregation, alert_percents, stripe_event_name, is_included, limit_value, anchor,
        length, period_start, period_end, overage, overage_limit, rollover_floor, rollover_cap,
        on_plan_change)
    cross join lateral (
      select row(
        kind, aggregation, alert_percents, stripe_event_name, is_included, limit_value, anchor,
        length, period_start, period_end, overage, overage_limit, rollover_floor, rollover_cap,
        on_plan_change)::billing_private.usage_terms as agreed
    ) as agreement
  ) as lines;
  return v_lines;
end;
$$;

comment on function billing_private.on_terms(billing_private.usage_line[]) is
  'The same records with the terms they were used on, and with what each counts.';


create function billing_private.record_lines(p_lines billing_private.usage_line[])
returns setof billing.recorded_usage
language plpgsql
volatile
security definer -- members may read what they used, never write it
set search_path = ''
as $$
declare
  v_lines billing_private.usage_line[] := billing_private.on_terms(p_lines);
  v_new billing_private.usage_line[];
begin
  perform billing_private.require_lines(v_lines);
  perform billing_private.lock_usage_keys(array(select account_id from unnest(v_lines)));

  v_new := billing_private.add_records(v_lines);
  if v_new is not null then
    perform billing_private.count_lines(v_new, 'late');
  end if;

  return query
  select
    answers.account_id,
    coalesce((answers.earlier).feature_key, answers.feature_key),
    answers.idempotency_key,
    coalesce((answers.earlier).quantity, answers.quantity),
    coalesce((answers.earlier).period_start, (answers.terms).period_start),
    (answers.earlier).is_repeated is not null
  from (
    select
      lines.*,
      case when new.id is null then
        billing_private.recorded_decision(lines.account_id, lines.idempotency_key)
      end as earlier
    from billing_private.lines_of(v_lines) as lines
    left join billing_private.lines_of(v_new) as new on new.id = lines.id
    offset 0
  ) as answers
  order by answers.place;
end;
$$;


create function billing.record_usage(
  feature text,
  quantity numeric default 1,
  account_id uuid default null,
  idempotency_key text default null,
  at timestamptz default null,
  unique_value text default null,
  properties jsonb default null
)
returns billing.recorded_usage
language sql
volatile
set search_path = ''
begin atomic
  select recorded
  from (select gen_random_uuid() as id) as new
  cross join lateral billing_private.record_lines(array[row(
    1, record_usage.account_id, feature, record_usage.quantity,
    coalesce(record_usage.idempotency_key, new.id::text), new.id,
    coalesce(at, billing_private.now()), unique_value, properties, null, null, null
  )::billing_private.usage_line]) as recorded;
end;

comment on function billing.record_usage(text, numeric, uuid, text, timestamptz, text, jsonb) is
$$Records usage that has happened: it counts whether it is within the limit or not. To ask first,
use billing.consume(). For the server (service_role).

idempotency_key: the same key counts once per account, at least 59 days, whatever at says; again, it
is answered with what was recorded first.
at: when it happened (now); it counts in the period of that instant, if that is closed as an
adjustment. unique_value: what is counted once in a period, where unique values count.

Errors
  VALIDATION_FAILED  400  a quantity, key or time that is none, or a feature that is not metered
  ACCOUNT_NOT_FOUND  404  there is no such account
  FEATURE_NOT_FOUND  404  there is no such feature$$;


create function billing_private.refuse_unreadable_record(p_records jsonb)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_record jsonb;
  v_place bigint;
begin
  for v_record, v_place in
    select * from jsonb_array_elements(p_records) with ordinality
  loop
    if jsonb_typeof(v_record) <> 'object' then
      perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
        'record', v_place, 'field', 'records', 'problem', 'must be an object'));
    end if;
    perform
    from jsonb_to_record(v_record) as (account_id uuid, quantity numeric, at timestamptz);
  end loop;
exception when data_exception then
  perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
    'record', v_place, 'field', 'records', 'problem', sqlerrm));
end;
$$;

comment on function billing_private.refuse_unreadable_record(jsonb) is
  'Names the first of many records that is no object, or has what cannot be an id, a quantity or a '
  'time (VALIDATION_FAILED, 400).';


create function billing_private.record_usage_batch(p_records jsonb)
returns setof billing.recorded_usage
language plpgsql
volatile
security definer -- members may read what they used, never write it
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_lines billing_private.usage_line[];
begin
  if jsonb_typeof(p_records) is distinct from 'array' then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'records', 'problem', 'must be a list'));
  end if;
  begin
    select array_agg(row(
      listed.place, listed.account_id, listed.feature, coalesce(listed.quantity, 1),
      coalesce(listed.idempotency_key, new.id::text), new.id, coalesce(listed.at, v_now),
      listed.unique_value, listed.properties, null, null, null
    )::billing_private.usage_line order by listed.place)
    into v_lines
    from rows from (
      jsonb_to_recordset(p_records) as (
        account_id uuid, feature text, quantity numeric, idempotency_key text, at timestamptz,
        unique_value text, properties jsonb)
    ) with ordinality as listed (
      account_id, feature, quantity, idempotency_key, at, unique_value, properties, place)
    -- One for each record, not one for all.
    cross join lateral (select gen_random_uuid() as id where listed.place > 0) as new;
  exception when data_exception then
    perform billing_private.refuse_unreadable_record(p_records);
  end;

  return query select * from billing_private.record_lines(v_lines);
end;
$$;


create function billing.record_usage_batch(records jsonb)
returns setof billing.recorded_usage
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.record_usage_batch(records);
end;

comment on function billing.record_usage_batch(jsonb) is
$$Records many usages in one call: a list of objects with account_id, feature, quantity (1),
idempotency_key, at (now), unique_value and properties, each as billing.record_usage() takes
them. All or none: the first that is not valid is named by its place (record). For the server
(service_role).

A thousand at a time is a good number.

Errors
  VALIDATION_FAILED  400  a quantity, key or time that is none, or a feature that is not metered
  ACCOUNT_NOT_FOUND  404  there is no such account
  FEATURE_NOT_FOUND  404  there is no such feature$$;


-- -----------------------------------------------------------------------------
-- 61  billing.reserve(), settle() and release()
-- -----------------------------------------------------------------------------

create function billing_private.reserve(
  p_feature_key text,
  p_quantity numeric,
  p_account_id uuid,
  p_expires_in interval,
  p_idempotency_key text
)
returns billing.usage_reservations
language plpgsql
volatile
security definer -- members may read what they used, never write it
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_account_id uuid := billing_private.require_counting(p_account_id, p_feature_key);
  v_terms billing_private.usage_terms;
  v_state billing_private.usage_state;
  v_reservation billing.usage_reservations;
begin
  perform billing_private.require_quantity(p_quantity, 'quantity');
  perform billing_private.require_key(p_idempotency_key);
  if p_expires_in between interval '1 second' and interval '30 days' is not true then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'expires_in', 'problem', 'must be from one second to 30 days'));
  end if;
  v_terms := billing_private.usage_terms(v_account_id, p_feature_key, v_now);
  if v_terms.kind = 'boolean' or v_terms.aggregation not in ('sum', 'count') then
    perform billing_private.refuse_consuming(p_feature_key);
  end if;

  begin
    select * into v_reservation
    from billing.usage_reservations
    where account_id = v_account_id
      and idempotency_key = p_idempotency_key;
    if found then
      return v_reservation;
    end if;
    if not v_terms.is_included then
      perform billing_private.refuse_usage(
        billing_private.not_included(p_feature_key, p_quantity));
    end if;
    v_state := billing_private.take_units(
      v_account_id, p_feature_key, p_quantity, v_terms, true);
    if v_state.is_allowed then
      insert into billing.usage_reservations (
        account_id, feature_key, period_start, idempotency_key, quantity, expires_at
      )
      values (
        v_account_id, p_feature_key, v_terms.period_start, p_idempotency_key, p_quantity,
        least(v_now + p_expires_in, v_terms.period_end)
      )
      returning * into v_reservation;
      return v_reservation;
    end if;
  exception when unique_violation then
    null;
  end;
  -- The same key at once: it took the last units, or the key.
  select * into v_reservation
  from billing.usage_reservations
  where account_id = v_account_id
    and idempotency_key = p_idempotency_key;
  if not found then
    perform billing_private.refuse_usage(billing_private.decision_of(v_state, p_quantity));
  end if;
  return v_reservation;
end;
$$;


create function billing_private.lock_reservation(p_account_id uuid, p_reservation_id uuid)
returns billing.usage_reservations
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_reservation billing.usage_reservations;
begin
  select * into v_reservation
  from billing.usage_reservations
  where account_id = p_account_id
    and id = p_reservation_id;
  if not found then
    perform billing_private.fail('RESERVATION_NOT_FOUND', jsonb_build_object(
      'reservation_id', p_reservation_id));
  end if;

  -- The period before its reservations: the order of everybody who decides.
  perform
  from billing.usage_totals
  where account_id = p_account_id
    and feature_key = v_reservation.feature_key
    and period_start = v_reservation.period_start
  for update;
  select * into strict v_reservation
  from billing.usage_reservations
  where account_id = p_account_id
    and id = p_reservation_id
  for update;
  return v_reservation;
end;
$$;

comment on function billing_private.lock_reservation(uuid, uuid) is
  'A reservation, with its period''s row, until the transaction ends (RESERVATION_NOT_FOUND, 404).';


create function billing_private.settle_open(
  p_reservation billing.usage_reservations,
  p_quantity numeric
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_terms billing_private.usage_terms := billing_private.usage_terms(
    p_reservation.account_id, p_reservation.feature_key, billing_private.now());
  v_id uuid := gen_random_uuid();
  v_totals billing.usage_totals;
  v_state billing_private.usage_state;
  v_units numeric := case
    when v_terms.aggregation = 'count' then least(p_quantity, 1) else p_quantity end;
  -- What was promised is given, also where the plan has changed since.
  v_promised numeric := least(v_units, p_reservation.quantity);
begin
  update billing.usage_totals
  set reserved = reserved - p_reservation.quantity,
      used = used + v_promised
  where account_id = p_reservation.account_id
    and feature_key = p_reservation.feature_key
    and period_start = p_reservation.period_start
  returning * into v_totals;
  v_terms.period_start := v_totals.period_start;
  v_terms.period_end := v_totals.period_end;
  if v_terms.kind = 'metered' and v_terms.is_included then
    perform billing_private.pay_from_grants(v_totals, v_terms, v_promised);
  end if;
  v_state.totals := v_totals;
  v_state.included := v_terms.limit_value;
  v_state.is_allowed := true;

  if v_units > v_promised then
    v_state := billing_private.take_units(
      p_reservation.account_id, p_reservation.feature_key, v_units - v_promised, v_terms);
    if not v_state.is_allowed then
      perform billing_private.refuse_usage(billing_private.decision_of(v_state, p_quantity));
    end if;
  end if;
  if p_quantity > 0 then
    perform billing_private.write_record(
      v_state, v_id, 'reservation ' || p_reservation.id, p_quantity, null);
    perform billing_private.follow_count(v_state, v_terms, v_id, v_units);
  end if;
end;
$$;

comment on function billing_private.settle_open(billing.usage_reservations, numeric) is
  'Turns a reservation that still holds into use: as much as it holds in any case, more if there '
  'is more.';


create function billing_private.settle(
  p_reservation_id uuid,
  p_quantity numeric,
  p_account_id uuid
)
returns billing.usage_reservations
language plpgsql
volatile
security definer -- members may read what they used, never write it
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_reservation billing.usage_reservations := billing_private.lock_reservation(
    billing_private.resolve_account(p_account_id), p_reservation_id);
  v_quantity numeric := coalesce(p_quantity, v_reservation.quantity);
  v_decision billing.usage_decision;
begin
  perform billing_private.require_counting(v_reservation.account_id, v_reservation.feature_key);
  if v_quantity <> 0 then
    perform billing_private.require_quantity(v_quantity, 'quantity');
  end if;
  if v_reservation.status = 'settled' then
    return v_reservation;
  elsif v_reservation.status = 'released' then
    perform billing_private.fail('RESERVATION_RELEASED', jsonb_build_object(
      'reservation_id', p_reservation_id));
  elsif v_reservation.status = 'open' and v_reservation.expires_at > v_now then
    perform billing_private.settle_open(v_reservation, v_quantity);
  else
    -- It holds nothing any more: what was used is counted if there is room for it.
    if v_reservation.status = 'open' then
      update billing.usage_totals
      set reserved = reserved - v_reservation.quantity
      where account_id = v_reservation.account_id
        and feature_key = v_reservation.feature_key
        and period_start = v_reservation.period_start
        and closed_at is null;
    end if;
    if v_quantity > 0 then
      v_decision := billing_private.try_consume(
        v_reservation.account_id, v_reservation.feature_key, v_quantity,
        'reservation ' || v_reservation.id);
      if not v_decision.is_allowed then
        perform billing_private.refuse_usage(v_decision);
      end if;
    end if;
  end if;

  update billing.usage_reservations
  set status = 'settled',
      settled_quantity = v_quantity,
      finished_at = v_now
  where account_id = v_reservation.account_id
    and id = p_reservation_id
  returning * into v_reservation;
  return v_reservation;
end;
$$;


create function billing_private.release(p_reservation_id uuid, p_account_id uuid)
returns billing.usage_reservations
language plpgsql
volatile
security definer -- members may read what they used, never write it
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_reservation billing.usage_reservations := billing_private.lock_reservation(
    billing_private.resolve_account(p_account_id), p_reservation_id);
begin
  perform billing_private.require_counting(v_reservation.account_id, v_reservation.feature_key);
  if v_reservation.status = 'settled' then
    perform billing_private.fail('RESERVATION_SETTLED', jsonb_build_object(
      'reservation_id', p_reservation_id));
  elsif v_reservation.status <> 'open' then
    return v_reservation;
  end if;

  update billing.usage_totals
  set reserved = reserved - v_reservation.quantity
  where account_id = v_reservation.account_id
    and feature_key = v_reservation.feature_key
    and period_start = v_reservation.period_start
    and closed_at is null;
  update billing.usage_reservations
  set status = case when expires_at <= v_now then 'expired' else 'released' end,
      finished_at = least(expires_at, v_now)
  where account_id = v_reservation.account_id
    and id = p_reservation_id
  returning * into v_reservation;
  return v_reservation;
end;
$$;


create function billing_private.expire_due_reservations(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_period record;
  v_count bigint := 0;
begin
  for v_period in
    select distinct account_id, feature_key, period_start
    from (
      select account_id, feature_key, period_start
      from billing.usage_reservations
      where status = 'open'
        and expires_at <= billing_private.now()
      order by expires_at
      limit p_limit
    ) as due
    order by account_id, feature_key, period_start
  loop
    update billing.usage_totals
    set reserved = greatest(reserved - billing_private.expire_reservations(usage_totals), 0)
    where account_id = v_period.account_id
      and feature_key = v_period.feature_key
      and period_start = v_period.period_start;
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.expire_due_reservations(integer) is
  'Ends reservations whose time has run out, which have long stopped counting. Returns how many '
  'periods they were in.';


create function billing.reserve(
  feature text,
  quantity numeric default 1,
  account_id uuid default null,
  expires_in interval default '15 minutes',
  idempotency_key text default null
)
returns billing.usage_reservations
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.reserve(feature, quantity, account_id, expires_in, idempotency_key);
end;

comment on function billing.reserve(text, numeric, uuid, interval, text) is
$$Sets units aside for work whose outcome is not known yet: nobody else can have them until they are
settled, released or expired. For whom billing.consume() is for.

expires_in: how long they are held (15 minutes; a second to 30 days), at most until the period ends.
idempotency_key: the same key reserves once per account and is given the first answer.

Errors
  VALIDATION_FAILED     400  a quantity, key or time that is none, or a feature that is not counted
  UNAUTHENTICATED       401  nobody is signed in
  FEATURE_NOT_INCLUDED  402  no source gives the account this feature
  LIMIT_REACHED         402  the limit leaves less than asked for
  NOT_A_MEMBER          403  the account is not one of the caller's
  SERVER_ONLY           403  only the server counts this feature
  ACCOUNT_NOT_FOUND     404  there is no such account
  FEATURE_NOT_FOUND     404  there is no such feature$$;


create function billing.settle(
  reservation_id uuid,
  quantity numeric default null,
  account_id uuid default null
)
returns billing.usage_reservations
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.settle(reservation_id, quantity, account_id);
end;

comment on function billing.settle(uuid, numeric, uuid) is
$$Counts what was used of a reservation, and gives back the rest. Twice: the first answer.

quantity: what was used, null for all that was reserved. As much as was reserved is always counted;
more, and after the reservation has expired any, only if there is room.

Errors
  VALIDATION_FAILED      400  a quantity that is none, or no account
  UNAUTHENTICATED        401  nobody is signed in
  FEATURE_NOT_INCLUDED   402  it has expired, and no source gives the account this feature
  LIMIT_REACHED          402  the limit leaves less than was used
  NOT_A_MEMBER           403  the account is not one of the caller's
  SERVER_ONLY            403  only the server counts this feature
  ACCOUNT_NOT_FOUND      404  there is no such account
  RESERVATION_NOT_FOUND  404  the account has no such reservation
  RESERVATION_RELEASED   422  it was released$$;


create function billing.release(
  reservation_id uuid,
  account_id uuid default null
)
returns billing.usage_reservations
language sql
volatile
set search_path = ''
begin atomic
  select billing_private.release(reservation_id, account_id);
end;

comment on function billing.release(uuid, uuid) is
$$Gives back all that a reservation holds. Twice, or after it has expired: nothing more.

Errors
  VALIDATION_FAILED      400  no account
  UNAUTHENTICATED        401  nobody is signed in
  NOT_A_MEMBER           403  the account is not one of the caller's
  SERVER_ONLY            403  only the server counts this feature
  ACCOUNT_NOT_FOUND      404  there is no such account
  RESERVATION_NOT_FOUND  404  the account has no such reservation
  RESERVATION_SETTLED    422  it was settled$$;


-- -----------------------------------------------------------------------------
-- 62  usage: corrections
-- -----------------------------------------------------------------------------

create function billing_private.recounted_usage(
  p_totals billing.usage_totals,
  p_aggregation text
)
returns numeric
language plpgsql
stable
set search_path = ''
as $$
begin
  return (
    with effective as (
      select
        coalesce(corrects_key, idempotency_key) as key, sum(quantity) as quantity,
        max(unique_value) as unique_value, min(occurred_at) as occurred_at,
        min(recorded_at) as recorded_at
      from billing.usage_records
      where account_id = p_totals.account_id
        and feature_key = p_totals.feature_key
        and period_start = p_totals.period_start
        and occurred_at >= p_totals.period_start
        and occurred_at < p_totals.period_end
      group by 1
    )
    select coalesce(
      case p_aggregation
        when 'max' then max(quantity)
        when 'unique' then count(distinct unique_value) filter (where quantity > 0)
        when 'latest' then (array_agg(quantity order by occurred_at desc, recorded_at desc))[1]
        when 'count' then count(*) filter (where quantity > 0)
        else sum(quantity)
      end,
      0)
    from effective
  );
end;
$$;

comment on function billing_private.recounted_usage(billing.usage_totals, text) is
  'What the records of a period come to, corrections applied, for as long as they are kept.';


create function billing_private.note_unique_value(p_record billing.usage_records)
returns void
language plpgsql
volatile
set search_path = ''
as $$
begin
  delete from billing_private.usage_unique_values
  where account_id = p_record.account_id
    and feature_key = p_record.feature_key
    and period_start = p_record.period_start
    and value = p_record.unique_value;
  insert into billing_private.usage_unique_values (account_id, feature_key, period_start, value)
  select p_record.account_id, p_record.feature_key, p_record.period_start, p_record.unique_value
  where exists (
    select
    from billing.usage_records
    where account_id = p_record.account_id
      and feature_key = p_record.feature_key
      and period_start = p_record.period_start
      and unique_value = p_record.unique_value
    group by coalesce(corrects_key, idempotency_key)
    having sum(quantity) > 0
  );
end;
$$;

comment on function billing_private.note_unique_value(billing.usage_records) is
  'Whether the value of a corrected record has been seen in its period is asked anew.';


create function billing_private.give_back(
  p_totals billing.usage_totals,
  p_terms billing_private.usage_terms
)
returns void
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_included numeric := p_totals.rollover + billing_private.included_units(
    p_totals.account_id, p_totals.feature_key, p_terms, billing_private.now());
  -- Unlimited by now, all of it was paid for nothing.
  v_units numeric := p_totals.prepaid - coalesce(
    least(greatest(p_totals.used - v_included, 0), p_totals.prepaid), 0);
begin
  if v_units <= 0 then
    return;
  end if;
  with in_line as (
    select
      usage_burns.grant_id, usage_burns.quantity,
      sum(usage_burns.quantity) over (
        order by usage_grants.priority desc, usage_grants.valid_until desc,
          usage_grants.created_at desc, usage_grants.id desc
      ) - usage_burns.quantity as units_before
    from billing.usage_burns
    join billing.usage_grants on usage_grants.id = usage_burns.grant_id
    where usage_burns.account_id = p_totals.account_id
      and usage_burns.feature_key = p_totals.feature_key
      and usage_burns.period_start = p_totals.period_start
  ),
  returned as (
    update billing.usage_burns
    set quantity = usage_burns.quantity
      - least(in_line.quantity, v_units - in_line.units_before)
    from in_line
    where usage_burns.account_id = p_totals.account_id
      and usage_burns.feature_key = p_totals.feature_key
      and usage_burns.period_start = p_totals.period_start
      and usage_burns.grant_id = in_line.grant_id
      and in_line.units_before < v_units
    returning
      usage_burns.grant_id, least(in_line.quantity, v_units - in_line.units_before) as units
  )
  update billing.usage_grants
  set burnt = burnt - returned.units
  from returned
  where usage_grants.id = returned.grant_id;

  update billing.usage_totals
  set prepaid = prepaid - v_units
  where account_id = p_totals.account_id
    and feature_key = p_totals.feature_key
    and period_start = p_totals.period_start;
end;
$$;

comment on function billing_private.give_back(
  billing.usage_totals, billing_private.usage_terms
) is
  'Returns prepaid units that turn out not to have been needed, last taken first.';


-- Long because it is one correction from the record to what follows from it.
create function billing_private.apply_correction(
  p_account_id uuid,
  p_idempotency_key text,
  p_quantity numeric,
  p_reason text
)
returns billing.recorded_usage
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_id uuid := gen_random_uuid();
  v_record billing.usage_records;
  v_correction billing.usage_records;
  v_totals billing.usage_totals;
  v_terms billing_private.usage_terms;
  v_before numeric;
  v_units numeric;
begin
  select * into v_record
  from billing.usage_records
  where account_id = p_account_id
    and idempotency_key = p_idempotency_key
    and corrects_key is null
  order by recorded_month desc
  limit 1;
  if not found then
    perform billing_private.fail('USAGE_NOT_FOUND', jsonb_build_object(
      'idempotency_key', p_idempotency_key));
  elsif (p_quantity >= 0 and p_quantity <= 1e15) is not true then
    perform billing_private.fail('VALIDATION_FAILED', jsonb_build_object(
      'field', 'quantity', 'problem', 'must be a number from zero to 10^15'));
  end if;

  select * into strict v_totals
  from billing.usage_totals
  where account_id = p_account_id
    and feature_key = v_record.feature_key
    and period_start = v_record.period_start
  for update;
  v_terms := billing_private.usage_terms(
    p_account_id, v_record.feature_key, v_record.occurred_at);
  select sum(quantity) into v_before
  from billing.usage_records
  where account_id = p_account_id
    and feature_key = v_record.feature_key
    and occurred_at = v_record.occurred_at
    and p_idempotency_key in (idempotency_key, corrects_key);
  if v_before <> p_quantity then
    insert into billing.usage_records (
      account_id, idempotency_key, recorded_month, id, feature_key, quantity, occurred_at,
      recorded_at, period_start, unique_value, corrects_key, properties
    )
    values (
      p_account_id, v_id::text, billing_private.usage_month(v_now), v_id, v_record.feature_key,
      p_quantity - v_before, v_record.occurred_at, v_now, v_record.period_start,
      v_record.unique_value, p_idempotency_key, jsonb_build_object('reason', p_reason)
    )
    returning * into v_correction;
    v_units := case v_terms.aggregation
      when 'sum' then p_quantity - v_before
      when 'count' then (p_quantity > 0)::integer - (v_before > 0)::integer
      else billing_private.recounted_usage(v_totals, v_terms.aggregation) - v_totals.used
        - coalesce(
          (
            select sum(quantity)
            from billing.usage_adjustments
            where account_id = p_account_id
              and feature_key = v_record.feature_key
              and period_start = v_record.period_start
          ), 0)
    end;

    if v_terms.aggregation = 'unique' then
      perform billing_private.note_unique_value(v_record);
    end if;

    if v_totals.closed_at is not null and v_units <> 0 then
      insert into billing.usage_adjustments (
        account_id, feature_key, period_start, quantity, kind, idempotency_key, reason
      )
      values (
        p_account_id, v_record.feature_key, v_record.period_start, v_units, 'correction',
        p_idempotency_key, p_reason
      );
    elsif v_units <> 0 then
      update billing.usage_totals
      set used = used + v_units
      where account_id = p_account_id
        and feature_key = v_record.feature_key
        and period_start = v_record.period_start
      returning * into v_totals;
      if v_units < 0 then
        perform billing_private.give_back(v_totals, v_terms);
      elsif v_terms.is_included and v_terms.aggregation in ('sum', 'count') then
        perform billing_private.pay_from_grants(v_totals, v_terms, v_units);
      end if;
    end if;
    if v_terms.stripe_event_name is not null
      and v_terms.aggregation in ('sum', 'count')
      and v_units <> 0
    then
      perform billing_private.report_correction(
        v_correction, v_terms.stripe_event_name, v_units, v_totals.period_end);
    end if;
  end if;
  return row(
    p_account_id, v_record.feature_key, p_idempotency_key, p_quantity, v_record.period_start,
    v_before = p_quantity)::billing.recorded_usage;
end;
$$;

comment on function billing_private.apply_correction(uuid, text, numeric, text) is
$$Has a record count as another quantity, 0 for not at all: a record of the difference, and what
follows from it. Of a closed period, an adjustment. Twice: once.

Errors
  VALIDATION_FAILED  400  a quantity that is none
  USAGE_NOT_FOUND    404  the account has no record with this key$$;


create function billing_private.close_usage_periods(p_limit integer)
returns bigint
language plpgsql
volatile
set search_path = ''
as $$
declare
  v_totals billing.usage_totals;
  v_count bigint := 0;
begin
  for v_totals in
    select *
    from billing.usage_totals
    where closed_at is null
      and period_end < 'infinity'
      and period_end <= billing_private.now()
        - (select usage_closes_after from billing_private.settings)
    order by period_end, account_id, feature_key
    limit p_limit
  loop
    perform billing_private.close_usage_period(
      v_totals,
      billing_private.usage_terms(
        v_totals.account_id, v_totals.feature_key,
        v_totals.period_end - interval '1 microsecond'));
    v_count := v_count + 1;
  end loop;
  return v_count;
end;
$$;

comment on function billing_private.close_usage_periods(integer) is
  'Closes periods that have been over for settings.usage_closes_after. Returns how many.';


-- -----------------------------------------------------------------------------
-- 63  billing.usage_summary()
-- -----------------------------------------------------------------------------

create type billing.usage_state as (
  feature_key text,
  kind text,
  period_start timestamptz,
  period_end timestamptz,
  used numeric,
  reserved numeric,
  included numeric,
  rollover numeric,
  prepaid_used numeric,
  prepaid_left numeric,
  remaining numeric,
  overage numeric,
  is_soft boolean
);

comment on type billing.usage_state is
  'Where a period stands. included, rollover, prepaid_used and prepaid_left are what it may use; '
  'remaining is what is left of all of them, null for unlimited; overage is what a soft limit let '
  'pass. Of a limit feature, used is what is held.';


-- Long because it is one row, column by column.
create function billing_private.usage_summary(p_account_id uuid)
returns setof billing.usage_state
language plpgsql
volatile
security definer -- members may read what they used, never write it
set search_path = ''
as $$
declare
  v_now timestamptz := billing_private.now();
  v_account_id uuid := billing_private.resolve_account(p_account_id);
  v_terms billing_private.usage_terms;
  v_totals billing.usage_totals;
  v_feature_key text;
  v_state billing.usage_state;
begin
  for v_feature_key in
    select key
    from billing.features
    where kind <> 'boolean'
      and (
        exists (
          select
          from billing.entitlements
          where account_id = v_account_id and feature_key = features.key
            and access_level = 'full' and valid_from <= v_now and valid_until > v_now
        )
        or exists (
          select
          from billing.usage_totals
          where account_id = v_account_id and feature_key = features.key
        )
      )
    order by key
  loop
    v_terms := billing_private.usage_terms(v_account_id, v_feature_key, v_now);
    select * into v_totals
    from billing.usage_totals
    where account_id = v_account_id
      and feature_key = v_feature_key
      and period_start = v_terms.period_start;

    v_state.feature_key := v_feature_key;
    v_state.kind := v_terms.kind;
    v_state.period_start := v_terms.period_start;
    v_state.period_end := v_terms.period_end;
    v_state.used := coalesce(v_totals.used, 0);
    v_state.reserved := (
      select coalesce(sum(quantity), 0)
      from billing.usage_reservations
      where account_id = v_account_id
        and feature_key = v_feature_key
        and period_start = v_terms.period_start
        and status = 'open'
        and expires_at > v_now
    );
    v_state.included := case when v_terms.is_included
      then billing_private.included_units(v_account_id, v_feature_key, v_terms, v_now) else 0 end;
    v_state.rollover := coalesce(
      v_totals.rollover, billing_private.leftover_units(v_account_id, v_feature_key, v_terms));
    v_state.prepaid_used := coalesce(v_totals.prepaid, 0);
    v_state.prepaid_left := billing_private.prepaid_units(v_account_id, v_feature_key);
    v_state.remaining := greatest(
      greatest(
        v_state.included + v_state.rollover + v_state.prepaid_used - v_state.used
          - v_state.reserved,
        0)
      + case when v_terms.is_included then v_state.prepaid_left else 0 end
      - greatest(
        least(
          v_state.reserved,
          v_state.used + v_state.reserved - v_state.included - v_state.rollover
            - v_state.prepaid_used),
        0),
      0);
    v_state.overage := coalesce(greatest(
      v_state.used - v_state.included - v_state.rollover - v_state.prepaid_used, 0), 0);
    v_state.is_soft := v_terms.overage = 'allow';
    return next v_state;
  end loop;
end;
$$;


create function billing.usage_summary(account_id uuid default null)
returns setof billing.usage_state
language sql
volatile
set search_path = ''
begin atomic
  select * from billing_private.usage_summary(account_id);
end;

comment on function billing.usage_summary(uuid) is
$$How much of what: one row for each feature the account has or has used that is counted, in its
running period.

account_id: null for the caller's own account.

Errors
  VALIDATION_FAILED  400  the server named no account
  UNAUTHENTICATED    401  nobody is signed in
  NOT_A_MEMBER       403  the account is not one of the caller's
  ACCOUNT_NOT_FOUND  404  there is no such account$$;


-- -----------------------------------------------------------------------------
-- 64  hook events
-- -----------------------------------------------------------------------------

create function billing_private.tell_thresholds()
returns trigger
language plpgsql
volatile
set search_path = ''
as $$
begin
  insert into billing.hook_events (account_id, type, fact, data, occurred_at)
  select
    alerts.account_id, 'usage.threshold_reached',
    format(
      '%s:%s:%s', alerts.feature_key, extract(epoch from alerts.period_start), alerts.percent),
    jsonb_build_object(
      'feature', alerts.feature_key,
      'percent', alerts.percent,
      'used', alerts.used,
      'allowance', alerts.allowance,
      'period_start', alerts.period_start,
      'period_end', usage_totals.period_end),
    alerts.created_at
  from alerts
  join billing.usage_totals using (account_id, feature_key, period_start)
  on conflict (account_id, type, fact) do nothing;
  return null;
end;
$$;

comment on function billing_private.tell_thresholds() is
  'Tells whoever reads billing.hook_events of the thresholds that were reached.';

create trigger t500_notify
  after insert on billing.usage_alerts
  referencing new table as alerts
  for each statement execute function billing_private.tell_thresholds();


-- -----------------------------------------------------------------------------
-- 65  who may call what
-- -----------------------------------------------------------------------------

revoke all on function
  billing_private.tell_thresholds,
  billing_private.price_after_migration,
  billing_private.migration_candidates,
  billing_private.run_plan_migrations,
  billing_private.take_migration_step,
  billing_private.migrate_item,
  billing_private.ask_to_migrate,
  billing_private.migrate_manual,
  billing_private.monthly_amount,
  billing_private.parse_json,
  billing_private.stripe_id,
  billing_private.stripe_time,
  billing_private.stripe_integer,
  billing_private.stripe_count,
  billing_private.stripe_currency,
  billing_private.stripe_decimal,
  billing_private.price_of,
  billing_private.sum_of,
  billing_private.tax_of,
  billing_private.subscription_of,
  billing_private.subscription_metadata_of,
  billing_private.item_of,
  billing_private.is_proration,
  billing_private.period_of,
  billing_private.uuid_or_null,
  billing_private.is_final_snapshot,
  billing_private.status_rank,
  billing_private.undo_change,
  billing_private.newest_of_second,
  billing_private.state_of,
  billing_private.link_of,
  billing_private.state_before,
  billing_private.accept_snapshot,
  billing_private.first_snapshot,
  billing_private.is_catalog_object,
  billing_private.lock_catalog,
  billing_private.try_lock_catalog,
  billing_private.lock_customer,
  billing_private.lock_account,
  billing_private.lock_payment,
  billing_private.account_of_customer,
  billing_private.bind_customer,
  billing_private.elect_primary_customer,
  billing_private.bind_customer_rows,
  billing_private.note_customer,
  billing_private.project_customer,
  billing_private.default_method_of,
  billing_private.attached_payment_method,
  billing_private.end_with_customer,
  billing_private.is_waiting_plan,
  billing_private.claim_plan,
  billing_private.settle_prices,
  billing_private.find_products,
  billing_private.project_product,
  billing_private.settle_price_key,
  billing_private.project_price,
  billing_private.tiered_amount,
  billing_private.amount_of,
  billing_private.price_amount,
  billing.price_amount,
  billing_private.bind_price,
  billing_private.base_item,
  billing_private.follow_base_item,
  billing_private.change_waits,
  billing_private.past_due_since,
  billing_private.feedback_of,
  billing_private.project_subscription,
  billing_private.told_items,
  billing_private.project_subscription_items,
  billing_private.version_bought,
  billing_private.version_migrated_to,
  billing_private.settle_versions,
  billing_private.version_on_sale,
  billing_private.project_subscription_schedule,
  billing_private.phases_of,
  billing_private.items_of_phase,
  billing_private.next_phase,
  billing_private.scheduled_change,
  billing_private.leading_item,
  billing_private.follow_schedule,
  billing_private.follow_schedules_to,
  billing_private.project_coupon,
  billing_private.project_promotion_code,
  billing_private.project_discount,
  billing_private.list_discounts,
  billing_private.unlist_discounts,
  billing_private.is_told,
  billing_private.discounts_of,
  billing_private.coupon_of,
  billing_private.failed_attempts,
  billing_private.inferred_failure,
  billing_private.project_invoice,
  billing_private.told_lines,
  billing_private.project_invoice_lines,
  billing_private.project_payment_intent,
  billing_private.project_charge,
  billing_private.project_invoice_payment,
  billing_private.bind_payment_rows,
  billing_private.lock_payments_of,
  billing_private.restrictions_of,
  billing_private.restrict_access,
  billing_private.project_refund,
  billing_private.note_decline,
  billing_private.refresh_cases_of_customer,
  billing_private.method_hash,
  billing_private.project_payment_method,
  billing_private.decided_at,
  billing_private.told_first,
  billing_private.refund_returned_at,
  billing_private.dispute_returned_at,
  billing_private.project_dispute,
  billing_private.is_withdrawn,
  billing_private.project_early_fraud_warning,
  billing_private.project_credit_note,
  billing_private.refunds_of_credit_note,
  billing_private.project_entitlement_summary,
  billing_private.project_entitlements,
  billing_private.keep_entitlements,
  billing_private.request_list,
  billing_private.apply_list_page,
  billing_private.add_listed,
  billing_private.keep_listed,
  billing_private.project_setup_intent,
  billing_private.project_tax_id,
  billing_private.project_test_clock,
  billing_private.project_meter,
  billing_private.project_meter_error_report,
  billing_private.fill_meter_error_report,
  billing_private.project_checkout_session,
  billing_private.refusal_of,
  billing_private.is_thin,
  billing_private.related_resource,
  billing_private.follow_thin_event,
  billing_private.date_back_invoice,
  billing_private.date_back,
  billing_private.project_event,
  billing_private.call_projector,
  billing_private.try_event,
  billing_private.note_outcome,
  billing_private.apply_event,
  billing_private.parse_event,
  billing_private.read_envelope,
  billing_private.ingest_stripe_event,
  billing.ingest_stripe_event,
  billing_private.envelope_or_null,
  billing_private.lock_for_events,
  billing_private.apply_events,
  billing_private.try_events,
  billing_private.ingest_stripe_events,
  billing.ingest_stripe_events,
  billing_private.report_rejected_webhook,
  billing.report_rejected_webhook,
  billing_private.record_subscription_changes,
  billing_private.record_subscription_starts,
  billing_private.kinds_of_change,
  billing.list_plans,
  billing_private.current_subscription,
  billing_private.last_wish,
  billing_private.told_refusal,
  billing_private.unpaid_change,
  billing_private.summarize_subscription,
  billing_private.my_subscription,
  billing.my_subscription,
  billing_private.enqueue_command,
  billing_private.request_reread,
  billing_private.enqueue_customer_creation,
  billing_private.tell_customers,
  billing_private.discount_params,
  billing_private.enqueue_session_creation,
  billing_private.enqueue_session_expiry,
  billing_private.retire_checkouts,
  billing_private.normal_email,
  billing_private.identities_of,
  billing_private.caller_email,
  billing_private.may_try,
  billing_private.claim_trial,
  billing_private.note_trials,
  billing_private.repeated_trials,
  billing_private.end_trial,
  billing_private.require_url,
  billing_private.offered_price,
  billing_private.require_stripe_price,
  billing_private.obstacles_to_subscribing,
  billing_private.require_eligible,
  billing_private.refuse_second_base,
  billing_private.price_obstacle,
  billing_private.check_eligibility,
  billing.check_eligibility,
  billing_private.valid_discount,
  billing_private.discount_code,
  billing_private.was_billed,
  billing_private.refusal_of_code,
  billing_private.take_code,
  billing_private.reserve_code,
  billing_private.follow_checkouts,
  billing_private.coupon_months,
  billing_private.coupon_id,
  billing_private.ensure_coupon,
  billing_private.discount_of,
  billing_private.stripe_code,
  billing_private.caller_address,
  billing_private.guessers,
  billing_private.require_guesses_left,
  billing_private.note_guess,
  billing_private.check_code,
  billing.check_code,
  billing_private.redeem_code,
  billing_private.apply_code_at_stripe,
  billing_private.settle_applied_code,
  billing_private.spread,
  billing_private.prorated_discounts,
  billing_private.discounts_of_lines,
  billing_private.foreseen_discount,
  billing_private.discount_lines,
  billing_private.contract_at,
  billing_private.contract_until,
  billing_private.contract_amount,
  billing_private.used_in,
  billing_private.usage_lines,
  billing_private.covered_line,
  billing_private.late_usage_lines,
  billing_private.minimum_lines,
  billing_private.contract_binds,
  billing_private.lock_contract,
  billing_private.require_status,
  billing_private.activate_contract,
  billing_private.replace_contract,
  billing_private.put_in_force,
  billing_private.terminate_contract,
  billing_private.withdraw_contract,
  billing_private.end_contracts,
  billing_private.charged_in_term,
  billing_private.settle_contract,
  billing_private.settle_contracts,
  billing_private.redeemable_promotion_code,
  billing_private.claim_checkout,
  billing_private.lines_of_period,
  billing_private.reusable_checkout,
  billing_private.prepare_checkout,
  billing.prepare_checkout,
  billing_private.enqueue_request,
  billing_private.customer_in_use,
  billing_private.portal_flow,
  billing_private.prepare_portal,
  billing.prepare_portal,
  billing_private.find_discount,
  billing.find_discount,
  billing_private.take_promotion_codes,
  billing_private.account_behind,
  billing_private.claim_price,
  billing_private.newest_snapshot,
  billing_private.is_being_published,
  billing_private.publish_product,
  billing_private.tier_params,
  billing_private.price_params,
  billing_private.publish_price,
  billing_private.publish_plans,
  billing_private.catalog_published,
  billing_private.replace_price,
  billing_private.enqueue_meter_event,
  billing_private.problem_of_correction,
  billing_private.cancel_report,
  billing_private.report_correction,
  billing_private.claim_commands,
  billing.claim_commands,
  billing_private.old_since,
  billing_private.request_of,
  billing_private.may_pass,
  billing_private.retry_at,
  billing_private.judge_answer,
  billing_private.judge_look_up,
  billing_private.too_old_error,
  billing_private.give_up_old_commands,
  billing_private.complete_command,
  billing_private.asked_at,
  billing_private.is_gone,
  billing_private.command_succeeded,
  billing_private.command_refused,
  billing_private.answer_id,
  billing_private.last_thin_event,
  billing_private.apply_response,
  billing_private.apply_reread,
  billing.complete_command,
  billing_private.require_transition,
  billing_private.lock_subscription,
  billing_private.last_asked,
  billing_private.ask_once,
  billing_private.withdraw_change,
  billing_private.is_to_end,
  billing_private.cancel_subscription,
  billing_private.cancel_stripe_subscription,
  billing.cancel_subscription,
  billing_private.undo_cancel,
  billing_private.take_back_cancel,
  billing.undo_cancel,
  billing_private.is_upgrade,
  billing_private.interval_of,
  billing_private.change_plan,
  billing_private.require_changeable,
  billing_private.judge_change,
  billing_private.wanted_price,
  billing_private.valid_quantity,
  billing_private.require_recent,
  billing_private.terms_of,
  billing_private.running_terms,
  billing_private.asked_terms,
  billing_private.waiting_terms,
  billing_private.enqueue_wish,
  billing_private.changed_items,
  billing_private.change_params,
  billing_private.change_stripe_plan,
  billing_private.seats_at,
  billing_private.enqueue_schedule_phases,
  billing_private.phase_items,
  billing_private.kept_terms,
  billing_private.change_manual_plan,
  billing.change_plan,
  billing_private.prepare_payment_method,
  billing_private.adopt_payment_method,
  billing_private.set_payment_method,
  billing.prepare_payment_method,
  billing_private.preview_params,
  billing_private.preview_manual_change,
  billing_private.preview_change,
  billing.preview_change,
  billing_private.pause_terms,
  billing_private.pause_in_force,
  billing_private.require_pausable,
  billing_private.pause_subscription,
  billing_private.set_stripe_pause,
  billing_private.begin_scheduled_pauses,
  billing_private.withdraw_invoices,
  billing.pause_subscription,
  billing_private.resume_subscription,
  billing.resume_subscription,
  billing_private.period_at,
  billing_private.start_manual_subscription,
  billing_private.set_manual_terms,
  billing_private.sync_manual_items,
  billing_private.expire_manual_subscriptions,
  billing_private.apply_manual_changes,
  billing_private.pause_manual_subscription,
  billing_private.resume_manual_subscription,
  billing_private.resume_manual_subscriptions,
  billing_private.renew_manual_subscriptions,
  billing_private.next_invoice_number,
  billing_private.invoice_manual_periods,
  billing_private.write_manual_invoice,
  billing_private.settle_manual_subscription,
  billing_private.note_overdue_invoices,
  billing_private.record_payment,
  billing_private.lock_manual_invoice,
  billing_private.close_invoice,
  billing_private.prorate,
  billing_private.close_account,
  billing_private.end_subscriptions,
  billing_private.forget_person,
  billing_private.forget_usage,
  billing_private.forget_calls,
  billing_private.is_closed,
  billing_private.close_my_account,
  billing.close_account,
  billing_private.note_deleted_user,
  billing_private.settle_deleted_user,
  billing_private.lock_organization,
  billing_private.require_text,
  billing_private.require_role,
  billing_private.membership,
  billing_private.require_other_owner,
  billing_private.create_organization,
  billing.create_organization,
  billing_private.rename_organization,
  billing.rename_organization,
  billing_private.invite_member,
  billing_private.token_hash,
  billing.invite_member,
  billing_private.open_invitation,
  billing_private.accept_invitation,
  billing_private.require_open,
  billing.accept_invitation,
  billing_private.revoke_invitation,
  billing.revoke_invitation,
  billing_private.change_role,
  billing.change_role,
  billing_private.revoke_invitations_by,
  billing_private.end_membership,
  billing_private.remove_member,
  billing.remove_member,
  billing_private.leave_organization,
  billing.leave_organization,
  billing_private.transfer_ownership,
  billing.transfer_ownership,
  billing_private.seats_taken,
  billing_private.require_seat,
  billing_private.seats_wanted,
  billing_private.counted_subscriptions,
  billing_private.seat_states,
  billing_private.sync_seats,
  billing_private.set_seats,
  billing_private.set_stripe_seats,
  billing_private.counted_seats,
  billing_private.has_same_interval,
  billing_private.dunning_state,
  billing_private.lock_dunning_cases,
  billing_private.refresh_dunning_cases,
  billing_private.open_due_cases,
  billing_private.refresh_cases_of_invoices,
  billing_private.refresh_cases_of_subscriptions,
  billing_private.refresh_cases_of_methods,
  billing_private.is_hard_decline,
  billing_private.retry_instant,
  billing_private.charged_method,
  billing_private.blocked_by,
  billing_private.plan_retry,
  billing_private.plan_dunning,
  billing_private.enqueue_invoice_command,
  billing_private.run_stage,
  billing_private.is_confirmed,
  billing_private.write_off,
  billing_private.end_overdue_subscription,
  billing_private.retry_overdue,
  billing_private.run_dunning_case,
  billing_private.note_refused_payment,
  billing_private.lines_of_change,
  billing_private.differing,
  billing_private.mirror_key,
  billing_private.mirrored_rows,
  billing_private.row_differences,
  billing_private.note_drift,
  billing_private.observe_object,
  billing_private.observe_objects,
  billing_private.sweep_objects,
  billing_private.sweep_events,
  billing_private.apply_sweep_page,
  billing_private.overdue_objects,
  billing_private.request_rereads,
  billing_private.enqueue_sweep_page,
  billing_private.continue_sweeps,
  billing_private.request_payment_methods,
  billing_private.request_entitlements,
  billing_private.request_features,
  billing_private.take_features,
  billing_private.take_entitlements,
  billing_private.end_sweep,
  billing_private.interrupt_sweep,
  billing_private.request_sweep,
  billing_private.usage_period,
  billing_private.usage_terms,
  billing_private.limits_over,
  billing_private.included_units,
  billing_private.close_usage_period,
  billing_private.leftover_units,
  billing_private.open_usage_period,
  billing_private.decision_of,
  billing_private.expire_reservations,
  billing_private.burn_grants,
  billing_private.prepaid_units,
  billing_private.take_units,
  billing_private.note_thresholds,
  billing_private.is_at_threshold,
  billing_private.usage_month,
  billing_private.recorded_decision,
  billing_private.lock_usage_keys,
  billing_private.report_usage,
  billing_private.require_quantity,
  billing_private.require_key,
  billing_private.try_consume,
  billing_private.release_usage,
  billing_private.require_counting,
  billing_private.refuse_usage,
  billing_private.consume,
  billing.consume,
  billing_private.with_partitions,
  billing_private.metered_tables,
  billing_private.count_rows,
  billing_private.held_rows,
  billing_private.metering_drift,
  billing_private.correct_metering,
  billing_private.metering_triggers,
  billing_private.require_meterable,
  billing_private.drop_metering_triggers,
  billing_private.meter_table,
  billing_private.count_held_rows,
  billing_private.unmeter_table,
  billing_private.repair_metering,
  billing_private.follow_partitions,
  billing_private.release_dropped_tables,
  billing_private.usage_terms_of,
  billing_private.refuse_consuming,
  billing_private.not_included,
  billing_private.write_record,
  billing_private.follow_count,
  billing_private.take_key,
  billing_private.answer_key,
  billing_private.lines_of,
  billing_private.require_lines,
  billing_private.add_records,
  billing_private.mark_unique_values,
  billing_private.add_to_totals,
  billing_private.pay_from_grants,
  billing_private.follow_records,
  billing_private.count_lines,
  billing_private.on_terms,
  billing_private.record_lines,
  billing.record_usage,
  billing_private.refuse_unreadable_record,
  billing_private.record_usage_batch,
  billing.record_usage_batch,
  billing_private.reserve,
  billing_private.lock_reservation,
  billing_private.settle_open,
  billing_private.settle,
  billing_private.release,
  billing_private.expire_due_reservations,
  billing.reserve,
  billing.settle,
  billing.release,
  billing_private.recounted_usage,
  billing_private.note_unique_value,
  billing_private.give_back,
  billing_private.apply_correction,
  billing_private.close_usage_periods,
  billing_private.usage_summary,
  billing.usage_summary
from public, anon, authenticated, service_role;

revoke all on billing.payment_history from public, anon, authenticated, service_role;
grant select on billing.payment_history to authenticated, service_role;
revoke all on billing.plan_offers from public, anon, authenticated, service_role;
grant select on billing.plan_offers to anon, authenticated, service_role;
grant execute on function
  billing.list_plans,
  billing.price_amount,
  billing_private.price_amount
to anon, authenticated, service_role;

-- The functions behind the wrappers: callable only through them, for want of usage on the schema.
grant execute on function
  billing.my_subscription,
  billing_private.my_subscription,
  billing.prepare_checkout,
  billing_private.prepare_checkout,
  billing.prepare_portal,
  billing_private.prepare_portal,
  billing.find_discount,
  billing_private.find_discount,
  billing.check_code,
  billing_private.check_code,
  billing.cancel_subscription,
  billing_private.cancel_subscription,
  billing.undo_cancel,
  billing_private.undo_cancel,
  billing.close_account,
  billing_private.close_my_account,
  billing.create_organization,
  billing_private.create_organization,
  billing.rename_organization,
  billing_private.rename_organization,
  billing.invite_member,
  billing_private.invite_member,
  billing.accept_invitation,
  billing_private.accept_invitation,
  billing.revoke_invitation,
  billing_private.revoke_invitation,
  billing.change_role,
  billing_private.change_role,
  billing.remove_member,
  billing_private.remove_member,
  billing.leave_organization,
  billing_private.leave_organization,
  billing.transfer_ownership,
  billing_private.transfer_ownership,
  billing.change_plan,
  billing_private.change_plan,
  billing.check_eligibility,
  billing_private.check_eligibility,
  billing.preview_change,
  billing_private.preview_change,
  billing.prepare_payment_method,
  billing_private.prepare_payment_method,
  billing.pause_subscription,
  billing_private.pause_subscription,
  billing.resume_subscription,
  billing_private.resume_subscription,
  billing.consume,
  billing_private.consume,
  billing.reserve,
  billing_private.reserve,
  billing.settle,
  billing_private.settle,
  billing.release,
  billing_private.release,
  billing.usage_summary,
  billing_private.usage_summary
to authenticated, service_role;

grant execute on function
  billing.ingest_stripe_event,
  billing_private.ingest_stripe_event,
  billing.ingest_stripe_events,
  billing_private.ingest_stripe_events,
  billing.report_rejected_webhook,
  billing_private.report_rejected_webhook,
  billing.claim_commands,
  billing_private.claim_commands,
  billing.complete_command,
  billing_private.complete_command,
  billing.record_usage,
  billing_private.record_lines,
  billing.record_usage_batch,
  billing_private.record_usage_batch
to service_role;
