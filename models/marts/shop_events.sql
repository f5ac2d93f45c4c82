{{ config(materialized='view') }}

select
    event_id,
    user_id,
    linked_user_id,
    linked_date,
    event_date,
    event_time,
    cast(event_hour as integer) as event_hour,
    event_type,
    -- Where a shop has no session ids, a day is a session.
    coalesce(session_id, cast(event_date as varchar)) as session_key,
    order_key,
    product_id,
    quantity,
    amount,
    discount,
    rating,
    channel,
    category,
    brand
from {{ ref('int_events') }}
