{{ config(materialized='view') }}

select
    event_id,
    user_id,
    event_time,
    case
        when event_type = 'purchase' and (quantity < 0 or amount < 0) then 'refund'
        else event_type
    end as event_type,
    session_id,
    order_id,
    product_id,
    quantity,
    unit_price,
    cast(cast(amount as decimal(24, 4)) * rate as decimal(18, 4)) as amount,
    currency,
    cast(cast(discount as decimal(24, 4)) * rate as decimal(18, 4)) as discount,
    rating,
    text,
    channel,
    device,
    load_id
from {{ ref('stg_events_checked') }}
where rule is null
