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
        post_hook=['{{ record_loads() }}']
    )
}}

with purchase_lines as (
    select lines.*
    from {{ ref('int_events') }} as lines
    where
        lines.event_type = 'purchase'
        and {{ is_reached_by_new_loads('lines') }}
),

summed as (
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
),

kept_categories as (
    select
        bought.user_id,
        bought.order_key,
        bought.purchase_date,
        count(distinct products.category) as categories
    from {{ kept_rows('kept_order_products') }} as bought
    inner join {{ ref('stg_products') }} as products on bought.product_id = products.product_id
    group by bought.user_id, bought.order_key, bought.purchase_date
),

-- What `lcm-ml prune` kept of orders whose events are gone.
kept as (
    select
        orders.user_id,
        orders.order_key,
        orders.order_date,
        identities.user_id as linked_user_id,
        identities.linked_date,
        orders.ordered_at,
        orders.order_hour,
        orders.channel,
        orders.device,
        orders.lines,
        orders.products,
        cast(coalesce(kept_categories.categories, 0) as integer) as categories,
        orders.discounted_lines,
        orders.amount,
        orders.discount
    from {{ kept_rows('kept_orders') }} as orders
    left join kept_categories
        on
            orders.user_id = kept_categories.user_id
            and orders.order_key = kept_categories.order_key
            and orders.order_date = kept_categories.purchase_date
    left join {{ ref('stg_identities') }} as identities
        on orders.user_id = identities.anonymous_id
    where {{ is_reached_by_new_loads('orders', 'order_date') }}
)

select * from summed
union all
select * from kept
order by user_id, order_date, order_key
