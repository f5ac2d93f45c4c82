{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        meta={
            'loads_from': 'int_events',
            'inputs': ['stg_products', 'stg_currency_rates', 'forgotten_users']
        },
        full_refresh=true if judges_across_loads() else none,
        pre_hook=['{{ follow_identities() }}', "{{ forget_what_new_loads_reach('order_date') }}"],
        post_hook=['{{ record_loads() }}', '{{ record_build() }}']
    )
}}

with purchase_lines as (
    select lines.*
    from {{ ref('int_events') }} as lines
    where
        lines.event_type = 'purchase'
        and {{ is_reached_by_new_loads('lines') }}
)

select
    user_id,
    order_key,
    event_date as order_date,
    any_value(linked_user_id) as linked_user_id,
    any_value(linked_date) as linked_date,
    min(event_time) as ordered_at,
    min(event_hour) as order_hour,
    min(channel) as channel,
    min(device) as device,
    cast(count(*) as integer) as lines,
    cast(count(distinct product_id) as integer) as products,
    cast(count(distinct category) as integer) as categories,
    cast(count(*) filter (where discount > 0) as integer) as discounted_lines,
    cast(coalesce(sum(amount), 0) as decimal(18, 4)) as amount,
    cast(coalesce(sum(discount), 0) as decimal(18, 4)) as discount
from purchase_lines
group by user_id, order_key, event_date
order by user_id, order_date, order_key
