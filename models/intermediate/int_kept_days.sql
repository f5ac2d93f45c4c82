{{ config(materialized='view') }}

-- A kept row that is forgotten or changes, or whose product gets another category, changes the hash of its day.
with kept as (
    select
        session_date as known_date,
        events,
        {{ row_hash([
            "'session'", 'user_id', 'session_key', 'session_date', 'events', 'views', 'carts', 'cart_removals', 'searches',
            'wishlistings', 'shares', 'support_requests', 'reviews', 'ratings', 'rating_sum', 'rating_min', 'channel',
            'device'
        ]) }} as kept_hash
    from {{ kept_rows('kept_sessions') }}

    union all

    select
        order_date,
        0,
        {{ row_hash([
            "'order'", 'user_id', 'order_key', 'order_date', 'ordered_at', 'order_hour', 'channel', 'device', 'lines',
            'products', 'discounted_lines', 'amount', 'discount'
        ]) }}
    from {{ kept_rows('kept_orders') }}

    union all

    select
        bought.purchase_date,
        0,
        {{ row_hash([
            "'product'", 'bought.user_id', 'bought.order_key', 'bought.purchase_date', 'bought.product_id',
            'bought.amount', 'bought.last_at', 'bought.last_amount', 'products.category', 'products.brand'
        ]) }}
    from {{ kept_rows('kept_order_products') }} as bought
    left join {{ ref('stg_products') }} as products on bought.product_id = products.product_id

    union all

    select
        refund_date,
        0,
        {{ row_hash([
            "'refund'", 'event_id', 'user_id', 'refund_date', 'product_id', 'refunded_order_key', 'purchased_at', 'amount'
        ]) }}
    from {{ kept_rows('kept_refunds') }}
)

select
    known_date,
    cast(sum(events) as bigint) as events,
    bit_xor(kept_hash) as day_hash
from kept
group by known_date
