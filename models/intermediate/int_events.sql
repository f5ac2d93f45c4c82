{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        meta={'inputs': ['events', 'stg_products', 'stg_identities', 'stg_currency_rates']},
        post_hook='{{ record_build() }}'
    )
}}

-- Narrow and ordered by user, so that every feature pass reads few bytes and finds a user's rows together.
with local_events as (
    select
        *,
        {{ shop_time('event_time') }} as local_time
    from {{ ref('stg_events') }}
    where {{ is_rebuilding() }}
)

select
    events.event_id,
    events.user_id,
    identities.user_id as linked_user_id,
    identities.linked_date,
    cast(events.local_time as date) as event_date,
    events.event_time,
    cast(extract(hour from events.local_time) as tinyint) as event_hour,
    events.event_type,
    events.session_id,
    -- Purchases without an order id belong to one order when they happen at the same moment.
    coalesce(events.order_id, events.session_id, cast(events.event_time as varchar)) as order_key,
    events.product_id,
    events.quantity,
    events.amount,
    events.discount,
    events.rating,
    events.channel,
    events.device,
    products.category,
    products.brand,
    products.product_id is not null as is_known_product
from local_events as events
left join {{ ref('stg_products') }} as products
    on events.product_id = products.product_id
left join {{ ref('stg_identities') }} as identities
    on events.user_id = identities.anonymous_id
order by events.user_id, events.event_time, events.event_id
