select
    user_id,
    {{ utc_time('cast(as_of_date as timestamp)') }} as as_of_ts,
    as_of_date,
    stage,
    previous_stage,
    stage_since_date,
    days_in_stage,
    first_seen_date,
    first_purchase_date,
    last_purchase_date,
    purchase_days,
    days_since_last_purchase,
    typical_gap_days
from {{ ref('lifecycle_current') }}
where user_id not in (select newer.user_id from {{ ref('current_user_lifecycle') }} as newer)

union all

select
    user_id,
    as_of_ts,
    as_of_date,
    stage,
    previous_stage,
    stage_since_date,
    days_in_stage,
    first_seen_date,
    first_purchase_date,
    last_purchase_date,
    purchase_days,
    days_since_last_purchase,
    typical_gap_days
from {{ ref('current_user_lifecycle') }}
