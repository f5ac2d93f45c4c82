-- One row per shop day: how much happened, and a hash of everything that became known on it. A row that comes late,
-- changes or vanishes changes the hash of its day, and with it all as_of_dates after that day, and no others.
with known_rows as (
    select
        event_date as known_date,
        events,
        day_hash as known_hash
    from {{ ref('int_event_days') }}

    union all

    -- Days whose events were pruned: what is kept of them, and what was not, so that together the hash is what it was.
    select
        known_date,
        events,
        day_hash
    from {{ ref('int_kept_days') }}

    union all

    select
        known_date,
        0,
        day_hash
    from {{ kept_rows('kept_days') }}

    union all

    select
        linked_date,
        0,
        {{ row_hash(["'identity'", 'anonymous_id', 'user_id', 'linked_at']) }}
    from {{ ref('stg_identities') }}

    union all

    -- An account without a date is known at all dates, as the stages count it.
    select
        coalesce(cast({{ shop_time('signed_up_at') }} as date), date '1900-01-01'),
        0,
        {{ row_hash(["'user'", 'user_id', 'signed_up_at', 'country', 'acquisition_channel']) }}
    from {{ ref('stg_users') }}

    union all

    select
        touched_date,
        0,
        {{ row_hash(["'touch'", 'campaign_id', 'user_id', 'touched_at', 'arm']) }}
    from {{ ref('stg_campaign_touches') }}

    union all

    select
        responded_date,
        0,
        {{ row_hash(["'response'", 'campaign_id', 'user_id', 'touched_at', 'responded_at']) }}
    from {{ ref('stg_campaign_touches') }}
    where responded_date is not null

    union all

    select
        created_date,
        0,
        {{ row_hash(["'ticket'", 'ticket_id', 'user_id', 'created_at']) }}
    from {{ ref('stg_support_tickets') }}
)

select
    known_date,
    cast(sum(events) as bigint) as events,
    bit_xor(known_hash) as day_hash
from known_rows
group by known_date
