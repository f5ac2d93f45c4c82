{{ config(materialized='view') }}

select
    event_date,
    count(*) as events,
    bit_xor({{ event_row_hash() }}) as day_hash
from {{ ref('int_events') }}
group by event_date
