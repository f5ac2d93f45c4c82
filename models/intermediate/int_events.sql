{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        meta={
            'loads_from': 'stg_events_checked',
            'inputs': ['stg_currency_rates', 'forgotten_users']
        },
        full_refresh=true if judges_across_loads() else none,
        pre_hook=['{{ follow_identities() }}', '{{ follow_products("is_known_product") }}'],
        post_hook=['{{ record_loads() }}']
    )
}}

-- Narrow and ordered by user, so that every feature pass reads few bytes and finds a user's rows together. A new load's
-- rows come behind, in order among themselves.
with local_events as (
    select
        *,
        {{ shop_time('event_time') }} as local_time
    from {{ ref('stg_events') }}
    where load_id in ({{ load_list(pending_loads()) }})
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
    products.product_id is not null as is_known_product,
    events.load_id
from local_events as events
left join {{ ref('stg_products') }} as products
    on events.product_id = products.product_id
left join {{ ref('stg_identities') }} as identities
    on events.user_id = identities.anonymous_id
order by events.user_id, events.event_time, events.event_id
