{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        meta={
            'loads_from': 'int_events',
            'inputs': ['stg_currency_rates', 'forgotten_users']
        },
        full_refresh=true if judges_across_loads() else none,
        pre_hook=['{{ follow_identities() }}', "{{ forget_what_new_loads_reach('session_date') }}"],
        post_hook=['{{ record_loads() }}']
    )
}}

with events as (
    select all_events.*
    from {{ ref('int_events') }} as all_events
    where {{ is_reached_by_new_loads('all_events') }}
),

summed as (
    select
        user_id,
        -- Where a shop has no session ids, a day is a session.
        coalesce(session_id, 'day') as session_key,
        event_date as session_date,
        any_value(linked_user_id) as linked_user_id,
        any_value(linked_date) as linked_date,
        cast(count(*) as integer) as events,
        cast(count(*) filter (where event_type = 'view') as integer) as views,
        cast(count(*) filter (where event_type = 'cart') as integer) as carts,
        cast(count(*) filter (where event_type = 'remove_from_cart') as integer) as cart_removals,
        cast(count(*) filter (where event_type = 'search') as integer) as searches,
        cast(count(*) filter (where event_type = 'wishlist') as integer) as wishlistings,
        cast(count(*) filter (where event_type = 'share') as integer) as shares,
        cast(count(*) filter (where event_type = 'support') as integer) as support_requests,
        cast(count(*) filter (where event_type = 'review') as integer) as reviews,
        cast(count(rating) filter (where event_type = 'review') as integer) as ratings,
        -- Whole hundredths, so that sums do not depend on the order of rows.
        cast(sum(cast(rating as decimal(5, 2))) filter (where event_type = 'review') as decimal(18, 2)) as rating_sum,
        min(rating) filter (where event_type = 'review') as rating_min,
        min(channel) as channel,
        min(device) as device
    from events
    group by user_id, session_key, event_date
),

-- What `lcm-ml prune` kept of sessions whose events are gone.
kept as (
    select
        sessions.user_id,
        sessions.session_key,
        sessions.session_date,
        identities.user_id as linked_user_id,
        identities.linked_date,
        sessions.events,
        sessions.views,
        sessions.carts,
        sessions.cart_removals,
        sessions.searches,
        sessions.wishlistings,
        sessions.shares,
        sessions.support_requests,
        sessions.reviews,
        sessions.ratings,
        sessions.rating_sum,
        sessions.rating_min,
        sessions.channel,
        sessions.device
    from {{ kept_rows('kept_sessions') }} as sessions
    left join {{ ref('stg_identities') }} as identities
        on sessions.user_id = identities.anonymous_id
    where {{ is_reached_by_new_loads('sessions', 'session_date') }}
)

select * from summed
union all
select * from kept
order by user_id, session_date, session_key
