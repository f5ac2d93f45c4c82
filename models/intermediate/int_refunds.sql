{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        meta={
            'loads_from': 'int_events',
            'inputs': ['stg_currency_rates', 'forgotten_users']
        },
        full_refresh=true if judges_across_loads() else none,
        pre_hook=['{{ follow_identities() }}', "{{ forget_what_new_loads_reach(none) }}"],
        post_hook=['{{ record_loads() }}']
    )
}}

with refunds as (
    select
        given_back.event_id,
        given_back.user_id,
        given_back.linked_user_id,
        given_back.linked_date,
        given_back.event_date,
        given_back.event_time,
        given_back.order_key,
        given_back.product_id,
        -- Shops write refunds with either sign.
        abs(given_back.amount) as amount
    from {{ ref('int_events') }} as given_back
    where
        given_back.event_type = 'refund'
        and {{ is_reached_by_new_loads('given_back', none) }}
),

purchases as (
    select
        user_id,
        order_key,
        product_id,
        event_time,
        amount
    from {{ ref('int_events') }}
    where event_type = 'purchase'

    union all

    -- What `lcm-ml prune` kept of them, the last line of a product in an order: it would be found first.
    select
        user_id,
        order_key,
        product_id,
        last_at,
        last_amount
    from {{ kept_rows('kept_order_products') }}
),

-- Only what was bought before it was given back: a match never changes with later events. The order's own
-- line comes first, then the newest line of the same product.
candidates as (
    select
        refunds.event_id,
        purchases.order_key,
        purchases.event_time as purchased_at,
        purchases.amount,
        row_number() over (
            partition by refunds.event_id
            order by
                purchases.order_key = refunds.order_key desc,
                purchases.product_id is not distinct from refunds.product_id desc,
                purchases.event_time desc,
                purchases.order_key desc,
                purchases.amount desc
        ) as preference
    from refunds
    inner join purchases
        on
            refunds.user_id = purchases.user_id
            and refunds.event_time >= purchases.event_time
            and (
                refunds.order_key = purchases.order_key
                or refunds.product_id = purchases.product_id
            )
),

matched as (
    select
        refunds.event_id,
        refunds.user_id,
        refunds.linked_user_id,
        refunds.linked_date,
        refunds.event_date as refund_date,
        refunds.product_id,
        candidates.order_key as refunded_order_key,
        candidates.purchased_at,
        cast(coalesce(refunds.amount, candidates.amount, 0) as decimal(18, 4)) as amount
    from refunds
    left join candidates
        on
            refunds.event_id = candidates.event_id
            and candidates.preference = 1
),

-- Refunds whose own events are gone were matched before they went.
kept as (
    select
        given_back.event_id,
        given_back.user_id,
        identities.user_id as linked_user_id,
        identities.linked_date,
        given_back.refund_date,
        given_back.product_id,
        given_back.refunded_order_key,
        given_back.purchased_at,
        given_back.amount
    from {{ kept_rows('kept_refunds') }} as given_back
    left join {{ ref('stg_identities') }} as identities
        on given_back.user_id = identities.anonymous_id
    where {{ is_reached_by_new_loads('given_back', none) }}
)

select * from matched
union all
select * from kept
order by user_id, refund_date, event_id
