-- One plain query per as_of_date over the staged events: all columns of marts.user_features, with no table in between.
-- What the project keeps as int_orders, int_sessions, int_product_days and int_refunds is made of the events each time.
-- $as_of is the date. `make bench` compares its values with marts.user_features.
with events as (
    select
        events.event_id,
        events.user_id,
        identities.user_id as linked_user_id,
        identities.linked_date,
        cast(events.event_time as date) as event_date,
        events.event_time,
        extract(hour from events.event_time) as event_hour,
        events.event_type,
        events.session_id,
        coalesce(events.order_id, events.session_id, cast(events.event_time as varchar)) as order_key,
        events.product_id,
        events.amount,
        events.discount,
        events.rating,
        events.channel,
        events.device,
        products.category,
        products.brand
    from staging.stg_events as events
    left join staging.stg_products as products on events.product_id = products.product_id
    left join staging.stg_identities as identities on events.user_id = identities.anonymous_id
    where cast(events.event_time as date) < $as_of
),

orders_of_events as (
    select
        user_id,
        order_key,
        event_date as order_date,
        any_value(linked_user_id) as linked_user_id,
        any_value(linked_date) as linked_date,
        min(event_hour) as order_hour,
        min(channel) as channel,
        count(*) as lines,
        count(distinct product_id) as products,
        count(distinct category) as categories,
        count(*) filter (where discount > 0) as discounted_lines,
        coalesce(sum(amount), 0) as amount,
        coalesce(sum(discount), 0) as discount
    from events
    where event_type = 'purchase'
    group by user_id, order_key, event_date
),

sessions_of_events as (
    select
        user_id,
        coalesce(session_id, 'day') as session_key,
        event_date as session_date,
        any_value(linked_user_id) as linked_user_id,
        any_value(linked_date) as linked_date,
        count(*) as events,
        count(*) filter (where event_type = 'view') as views,
        count(*) filter (where event_type = 'cart') as carts,
        count(*) filter (where event_type = 'remove_from_cart') as cart_removals,
        count(*) filter (where event_type = 'search') as searches,
        count(*) filter (where event_type = 'wishlist') as wishlistings,
        count(*) filter (where event_type = 'share') as shares,
        count(*) filter (where event_type = 'support') as support_requests,
        count(*) filter (where event_type = 'review') as reviews,
        count(rating) filter (where event_type = 'review') as ratings,
        sum(cast(rating as decimal(5, 2))) filter (where event_type = 'review') as rating_sum,
        min(rating) filter (where event_type = 'review') as rating_min,
        min(channel) as channel,
        min(device) as device
    from events
    group by user_id, session_key, event_date
),

product_days as (
    select
        user_id,
        product_id,
        event_date as purchase_date,
        any_value(linked_user_id) as linked_user_id,
        any_value(linked_date) as linked_date,
        any_value(category) as category,
        any_value(brand) as brand,
        sum(amount) as amount
    from events
    where event_type = 'purchase' and product_id is not null
    group by user_id, product_id, event_date
),

refund_candidates as (
    select
        given_back.event_id,
        bought.order_key,
        bought.amount,
        row_number() over (
            partition by given_back.event_id
            order by
                bought.order_key = given_back.order_key desc,
                bought.product_id is not distinct from given_back.product_id desc,
                bought.event_time desc,
                bought.order_key desc,
                bought.amount desc
        ) as preference
    from events as given_back
    inner join events as bought
        on
            given_back.user_id = bought.user_id
            and given_back.event_time >= bought.event_time
            and (given_back.order_key = bought.order_key or given_back.product_id = bought.product_id)
    where given_back.event_type = 'refund' and bought.event_type = 'purchase'
),

refunds_of_events as (
    select
        given_back.event_id,
        given_back.user_id,
        given_back.linked_user_id,
        given_back.linked_date,
        given_back.event_date as refund_date,
        refund_candidates.order_key as refunded_order_key,
        coalesce(abs(given_back.amount), refund_candidates.amount, 0) as amount
    from events as given_back
    left join refund_candidates
        on given_back.event_id = refund_candidates.event_id and refund_candidates.preference = 1
    where given_back.event_type = 'refund'
),

users as (
    select
        case when s.linked_date < $as_of then s.linked_user_id else s.user_id end as user_id,
        max(s.session_date) as last_event_date
    from sessions_of_events as s

    where s.session_date < $as_of
    group by 1
    having max(s.session_date) >= cast($as_of + (-84) * interval 1 day as date)
),

sessions as (
    select
        case when s.linked_date < $as_of then s.linked_user_id else s.user_id end as user_id,
        ($as_of - s.session_date) as days_ago,
        s.events,
        s.views,
        s.carts,
        s.cart_removals,
        s.searches,
        s.wishlistings,
        s.shares,
        s.support_requests,
        s.reviews,
        s.ratings,
        s.rating_sum,
        s.rating_min,
        s.channel,
        s.device
    from sessions_of_events as s
    inner join users on case when s.linked_date < $as_of then s.linked_user_id else s.user_id end = users.user_id
    where s.session_date < $as_of
),

activity as (
    select
        user_id,
        min(days_ago) as days_since_last_event,
        max(days_ago) as days_since_first_event,
        min(days_ago) filter (where views > 0) as days_since_last_view,
        min(days_ago) filter (where carts > 0) as days_since_last_cart,
        count(distinct case when days_ago <= 84 then days_ago end) as active_days_84d,
        count(*) filter (where days_ago <= 28) as sessions_28d,
        count(*) filter (where days_ago <= 84) as sessions_84d,
        count(*) filter (where days_ago > 28 and days_ago <= 56) as sessions_28d_before,
        count(*) as sessions_total,
        coalesce(sum(events) filter (where days_ago <= 28), 0) as events_28d,
            coalesce(sum(views) filter (where days_ago <= 28), 0) as views_28d,
            coalesce(sum(carts) filter (where days_ago <= 28), 0) as carts_28d,
            coalesce(sum(cart_removals) filter (where days_ago <= 28), 0) as cart_removals_28d,
            coalesce(sum(searches) filter (where days_ago <= 28), 0) as searches_28d,
            coalesce(sum(wishlistings) filter (where days_ago <= 28), 0) as wishlistings_28d,
            coalesce(sum(shares) filter (where days_ago <= 28), 0) as shares_28d,
            coalesce(sum(support_requests) filter (where days_ago <= 28), 0) as support_requests_28d,
            coalesce(sum(events) filter (where days_ago <= 84), 0) as events_84d,
            coalesce(sum(views) filter (where days_ago <= 84), 0) as views_84d,
            coalesce(sum(carts) filter (where days_ago <= 84), 0) as carts_84d,
            coalesce(sum(cart_removals) filter (where days_ago <= 84), 0) as cart_removals_84d,
            coalesce(sum(searches) filter (where days_ago <= 84), 0) as searches_84d,
            coalesce(sum(wishlistings) filter (where days_ago <= 84), 0) as wishlistings_84d,
            coalesce(sum(shares) filter (where days_ago <= 84), 0) as shares_84d,
            coalesce(sum(support_requests) filter (where days_ago <= 84), 0) as support_requests_84d,

        sum(events) as events_total,
        sum(views) as views_total,
        sum(carts) as carts_total,
        sum(shares) as shares_total,
        sum(reviews) as reviews_total,
        coalesce(sum(reviews) filter (where days_ago <= 84), 0) as reviews_84d,
        cast(sum(rating_sum) as double) / nullif(sum(ratings), 0) as rating_mean,
        min(rating_min) filter (where days_ago <= 84) as rating_min_84d,
        count(distinct case when days_ago <= 84 then channel end) as channels_84d,
        count(*) filter (where device = 'mobile' and days_ago <= 84)
        / nullif(count(device) filter (where days_ago <= 84), 0) as mobile_share_84d
    from sessions
    group by user_id
),

orders as (
    select
        case when o.linked_date < $as_of then o.linked_user_id else o.user_id end as user_id,
        ($as_of - o.order_date) as days_ago,
        o.order_date,
        o.order_hour,
        o.channel,
        o.lines,
        o.products,
        o.categories,
        o.discounted_lines,
        o.amount,
        o.discount
    from orders_of_events as o
    inner join users on case when o.linked_date < $as_of then o.linked_user_id else o.user_id end = users.user_id
    where o.order_date < $as_of
),

purchases as (
    select
        user_id,
        max(order_date) as last_order_date,
        min(days_ago) as days_since_last_purchase,
        max(days_ago) as days_since_first_purchase,
        count(*) filter (where days_ago <= 7) as orders_7d,
        count(*) filter (where days_ago <= 14) as orders_14d,
        count(*) filter (where days_ago <= 28) as orders_28d,
        count(*) filter (where days_ago <= 56) as orders_56d,
        count(*) filter (where days_ago <= 84) as orders_84d,
        count(*) filter (where days_ago <= 168) as orders_168d,
        count(*) as orders_total,
        cast(coalesce(sum(amount) filter (where days_ago <= 28), 0) as double) as amount_28d,
        cast(coalesce(sum(amount) filter (where days_ago <= 84), 0) as double) as amount_84d,
        cast(coalesce(sum(amount) filter (where days_ago <= 168), 0) as double) as amount_168d,
        cast(sum(amount) as double) as amount_total,
        count(*) filter (where days_ago > 28 and days_ago <= 56) as orders_28d_before,
        cast(coalesce(sum(amount) filter (where days_ago > 28 and days_ago <= 56), 0) as double) as amount_28d_before,
        count(*) filter (where days_ago > 84 and days_ago <= 168)
            as orders_84d_before,
        count(distinct case when days_ago <= 84 then days_ago // 7 end)
            as purchase_weeks_84d,
        cast(sum(amount) filter (where days_ago <= 84) as double)
        / nullif(count(*) filter (where days_ago <= 84), 0) as order_value_84d,
        cast(sum(amount) as double) / count(*) as order_value_total,
        cast(max(amount) as double) as order_value_max,
        cast(sum(lines) filter (where days_ago <= 84) as double)
        / nullif(count(*) filter (where days_ago <= 84), 0) as lines_per_order_84d,
        cast(sum(products) as double) / count(*) as products_per_order_total,
        cast(sum(categories) as double) / count(*) as categories_per_order_total,
        cast(sum(amount) filter (where days_ago <= 84) as double)
        / nullif(sum(lines) filter (where days_ago <= 84), 0) as line_value_84d,
        cast(sum(amount) as double) / nullif(sum(lines), 0) as line_value_total,
        cast(sum(discount) filter (where days_ago <= 84) as double)
        / nullif(cast(sum(amount + discount) filter (where days_ago <= 84) as double), 0)
            as discount_share_84d,
        cast(sum(discount) as double) / nullif(cast(sum(amount + discount) as double), 0) as discount_share_total,
        cast(sum(discounted_lines) as double) / nullif(sum(lines), 0) as discounted_line_share_total,
        count(*) filter (where isodow(order_date) >= 6) / count(*) as weekend_share_total,
        count(*) filter (where order_hour >= 18 or order_hour < 5) / count(*) as evening_share_total,
        cast(sum(order_hour) as double) / count(*) as order_hour_mean
    from orders
    group by user_id
),

days_of_purchase as (
    select distinct
        user_id,
        days_ago
    from orders
),

with_gaps as (
    select
        user_id,
        days_ago,
        lag(days_ago) over (partition by user_id order by days_ago desc) - days_ago as gap_days
    from days_of_purchase
),

gaps as (
    select
        user_id,
        count(*) as purchase_days_total,
        count(*) filter (where days_ago <= 84) as purchase_days_84d,
        cast(sum(gap_days) as double) / nullif(count(gap_days), 0) as gap_mean_days,
        median(gap_days) as gap_median_days,
        max(gap_days) as gap_max_days,
        max_by(gap_days, -days_ago) as gap_last_days,
        -- From integer sums, so that the order of rows cannot show in the last digits.
        sqrt(
            greatest(
                cast(sum(gap_days * gap_days) as double) / nullif(count(gap_days), 0)
                - pow(cast(sum(gap_days) as double) / nullif(count(gap_days), 0), 2), 0
            )
        ) as gap_spread_days
    from with_gaps
    group by user_id
),

favourite_habits as (
    select
        user_id,
        max(case when weekday is not null then {'weight': orders, 'value': weekday} end).value as favourite_weekday,
        max(orders) filter (where weekday is not null) as favourite_weekday_orders,
        max(case when channel is not null then {'weight': orders, 'value': channel} end).value as favourite_channel
    from (
        select
            user_id,
            cast(isodow(order_date) as integer) as weekday,
            cast(null as varchar) as channel,
            count(*) as orders
        from orders
        group by 1, 2
        union all
        select
            user_id,
            null,
            channel,
            count(*)
        from orders
        group by 1, 3
    )
    group by user_id
),

product_spend as (
    select
        case when p.linked_date < $as_of then p.linked_user_id else p.user_id end as user_id,
        p.product_id,
        any_value(p.category) as category,
        any_value(p.brand) as brand,
        max(p.purchase_date) as last_date,
        sum(p.amount) as amount_all,
        coalesce(sum(p.amount) filter (where p.purchase_date >= cast($as_of + (-84) * interval 1 day as date)), 0) as amount_recent,
        coalesce(sum(p.amount) filter (where p.purchase_date < cast($as_of + (-84) * interval 1 day as date)), 0) as amount_earlier
    from product_days as p
    inner join users on case when p.linked_date < $as_of then p.linked_user_id else p.user_id end = users.user_id
    where p.purchase_date < $as_of
    group by 1, 2
),

products as (
    select
        user_id,
        count(*) as products_total,
        count(*) filter (where last_date >= cast($as_of + (-84) * interval 1 day as date)) as products_84d
    from product_spend
    group by user_id
),

category_spend as (
    select
        user_id,
        category,
        max(last_date) as last_date,
        sum(amount_all) as amount_all,
        cast(sum(amount_recent) as double) as amount_recent,
        cast(sum(amount_earlier) as double) as amount_earlier
    from product_spend
    where category is not null
    group by user_id, category
),

categories as (
    select
        user_id,
        count(*) as categories_total,
        count(*) filter (where last_date >= cast($as_of + (-84) * interval 1 day as date)) as categories_84d,
        max(case when category is not null then {'weight': coalesce(amount_all, 0), 'value': category} end).value as favourite_category,
        cast(max(amount_all) as double) / nullif(cast(sum(amount_all) as double), 0) as favourite_category_share,
        -- 1 less the cosine of the spending per category, recent against earlier: 0 is the same taste.
        round(
            1 - sum(amount_recent * amount_earlier)
            / nullif(sqrt(sum(amount_recent * amount_recent)) * sqrt(sum(amount_earlier * amount_earlier)), 0), 9
        ) as interest_drift
    from category_spend
    group by user_id
),

brand_spend as (
    select
        user_id,
        brand,
        sum(amount_all) as amount_all
    from product_spend
    where brand is not null
    group by user_id, brand
),

brands as (
    select
        user_id,
        count(*) as brands_total,
        max(case when brand is not null then {'weight': coalesce(amount_all, 0), 'value': brand} end).value as favourite_brand,
        cast(max(amount_all) as double) / nullif(cast(sum(amount_all) as double), 0) as favourite_brand_share
    from brand_spend
    group by user_id
),

refunds as (
    select
        case when r.linked_date < $as_of then r.linked_user_id else r.user_id end as user_id,
        count(*) as refunds_total,
        count(*) filter (where r.refund_date >= cast($as_of + (-84) * interval 1 day as date)) as refunds_84d,
        count(distinct r.refunded_order_key) as refunded_orders_total,
        cast(sum(r.amount) as double) as refunded_amount_total
    from refunds_of_events as r
    where r.refund_date < $as_of
    group by 1
),

touches as (
    select
        user_id,
        count(*) as touches_total,
        count(*) filter (where touched_date >= cast($as_of + (-84) * interval 1 day as date)) as touches_84d,
        min(($as_of - touched_date)) as days_since_last_touch,
        -- A response that came later is not known yet.
        count(*) filter (where responded_date < $as_of) as responses_total,
        count(*) filter (where responded_date < $as_of and responded_date >= cast($as_of + (-84) * interval 1 day as date))
            as responses_84d
    from staging.stg_campaign_touches
    where touched_date < $as_of and arm != 'control'
    group by user_id
),

tickets as (
    select
        user_id,
        count(*) as tickets_total,
        count(*) filter (where created_date >= cast($as_of + (-84) * interval 1 day as date)) as tickets_84d
    from staging.stg_support_tickets
    where created_date < $as_of
    group by user_id
),

intensity as (
    select
        users.user_id,
        ln(1 + activity.events_84d / nullif(activity.active_days_84d, 0)) as log_events,
        ln(1 + greatest(coalesce(purchases.amount_84d, 0), 0)) as log_amount
    from users
    left join activity on users.user_id = activity.user_id
    left join purchases on users.user_id = purchases.user_id

),

medians as (
    select
        median(log_events) as log_events_median,
        median(log_amount) filter (where log_amount > 0) as log_amount_median
    from intensity
),

-- Robust z-scores (Iglewicz and Hoaglin 1993): the median absolute deviation is not moved by the outliers it is to
-- find. A floor keeps a population of equals from making everybody else an outlier.
spreads as (
    select
        greatest(1.4826 * median(abs(intensity.log_events - medians.log_events_median)), 0.1) as log_events_spread,
        greatest(
            1.4826 * median(abs(intensity.log_amount - medians.log_amount_median))
            filter (where intensity.log_amount > 0), 0.1
        ) as log_amount_spread
    from intensity
    cross join medians
),

flags as (
    select
        intensity.user_id,
        coalesce(
            (intensity.log_events - medians.log_events_median) / spreads.log_events_spread > 6.0, false
        ) as is_suspected_bot,
        coalesce(
            (intensity.log_amount - medians.log_amount_median) / spreads.log_amount_spread > 6.0,
            false
        ) as is_suspected_reseller
    from intensity
    cross join medians
    cross join spreads
)

select
    users.user_id,
    coalesce(purchases.last_order_date >= cast($as_of + (-84) * interval 1 day as date), false) as is_active_buyer,

    -- recency and tenure
    cast(purchases.days_since_last_purchase as integer) as days_since_last_purchase,
    cast(activity.days_since_last_event as integer) as days_since_last_event,
    cast(activity.days_since_last_view as integer) as days_since_last_view,
    cast(activity.days_since_last_cart as integer) as days_since_last_cart,
    cast(purchases.days_since_first_purchase as integer) as days_since_first_purchase,
    cast(activity.days_since_first_event as integer) as days_since_first_event,
    cast(($as_of - cast(accounts.signed_up_at as date)) as integer)
        as days_since_sign_up,

    -- frequency
    cast(coalesce(purchases.orders_7d, 0) as integer) as orders_7d,
    cast(coalesce(purchases.orders_14d, 0) as integer) as orders_14d,
    cast(coalesce(purchases.orders_28d, 0) as integer) as orders_28d,
    cast(coalesce(purchases.orders_56d, 0) as integer) as orders_56d,
    cast(coalesce(purchases.orders_84d, 0) as integer) as orders_84d,
    cast(coalesce(purchases.orders_168d, 0) as integer) as orders_168d,
    cast(coalesce(purchases.orders_total, 0) as integer) as orders_total,
    cast(coalesce(gaps.purchase_days_84d, 0) as integer) as purchase_days_84d,
    cast(coalesce(gaps.purchase_days_total, 0) as integer) as purchase_days_total,
    cast(coalesce(purchases.purchase_weeks_84d, 0) as integer) as purchase_weeks_84d,
    cast(coalesce(gaps.purchase_days_total, 0) / purchases.days_since_first_purchase as double)
        as purchase_days_per_day,

    -- monetary value, in base currency
    coalesce(purchases.amount_28d, 0) as amount_28d,
    coalesce(purchases.amount_84d, 0) as amount_84d,
    coalesce(purchases.amount_168d, 0) as amount_168d,
    coalesce(purchases.amount_total, 0) as amount_total,
    purchases.order_value_84d,
    purchases.order_value_total,
    purchases.order_value_max,

    -- rhythm
    gaps.gap_mean_days,
    cast(gaps.gap_median_days as double) as gap_median_days,
    gaps.gap_spread_days,
    cast(gaps.gap_max_days as integer) as gap_max_days,
    cast(gaps.gap_last_days as integer) as gap_last_days,
    purchases.days_since_last_purchase / nullif(gaps.gap_mean_days, 0) as gap_now_to_mean,
    purchases.days_since_last_purchase / nullif(cast(gaps.gap_median_days as double), 0) as gap_now_to_median,
    (purchases.days_since_last_purchase - gaps.gap_mean_days) / nullif(gaps.gap_spread_days, 0) as gap_now_z,

    -- trend
    cast(coalesce(purchases.orders_28d - purchases.orders_28d_before, 0) as integer) as orders_trend_28d,
    coalesce(purchases.amount_28d - purchases.amount_28d_before, 0) as amount_trend_28d,
    cast(activity.sessions_28d - activity.sessions_28d_before as integer) as sessions_trend_28d,
    purchases.orders_28d / nullif(purchases.orders_84d, 0) as orders_28d_share,
    cast(coalesce(purchases.orders_84d - purchases.orders_84d_before, 0) as integer)
        as orders_trend_84d,

    -- basket, price level, discounts
    purchases.lines_per_order_84d,
    purchases.products_per_order_total,
    purchases.categories_per_order_total,
    purchases.line_value_84d,
    purchases.line_value_total,
    purchases.discount_share_84d,
    purchases.discount_share_total,
    purchases.discounted_line_share_total,

    -- refunds
    cast(coalesce(refunds.refunds_84d, 0) as integer) as refunds_84d,
    cast(coalesce(refunds.refunds_total, 0) as integer) as refunds_total,
    coalesce(refunds.refunded_orders_total, 0) / nullif(purchases.orders_total, 0) as refund_rate_total,
    coalesce(refunds.refunded_amount_total, 0) as refunded_amount_total,

    -- breadth and interests
    cast(coalesce(products.products_84d, 0) as integer) as products_84d,
    cast(coalesce(products.products_total, 0) as integer) as products_total,
    cast(coalesce(categories.categories_84d, 0) as integer) as categories_84d,
    cast(coalesce(categories.categories_total, 0) as integer) as categories_total,
    cast(coalesce(brands.brands_total, 0) as integer) as brands_total,
    categories.favourite_category,
    categories.favourite_category_share,
    brands.favourite_brand,
    brands.favourite_brand_share,
    categories.interest_drift,

    -- browsing
    cast(activity.active_days_84d as integer) as active_days_84d,
    cast(activity.sessions_28d as integer) as sessions_28d,
    cast(activity.sessions_84d as integer) as sessions_84d,
    cast(activity.sessions_total as integer) as sessions_total,
    cast(activity.events_28d as integer) as events_28d,
        cast(activity.views_28d as integer) as views_28d,
        cast(activity.carts_28d as integer) as carts_28d,
        cast(activity.cart_removals_28d as integer) as cart_removals_28d,
        cast(activity.searches_28d as integer) as searches_28d,
        cast(activity.wishlistings_28d as integer) as wishlistings_28d,
        cast(activity.shares_28d as integer) as shares_28d,
        cast(activity.support_requests_28d as integer) as support_requests_28d,
        cast(activity.events_84d as integer) as events_84d,
        cast(activity.views_84d as integer) as views_84d,
        cast(activity.carts_84d as integer) as carts_84d,
        cast(activity.cart_removals_84d as integer) as cart_removals_84d,
        cast(activity.searches_84d as integer) as searches_84d,
        cast(activity.wishlistings_84d as integer) as wishlistings_84d,
        cast(activity.shares_84d as integer) as shares_84d,
        cast(activity.support_requests_84d as integer) as support_requests_84d,

    cast(activity.events_total as integer) as events_total,
    cast(activity.views_total as integer) as views_total,
    cast(activity.carts_total as integer) as carts_total,
    cast(activity.shares_total as integer) as shares_total,
    activity.carts_84d / nullif(activity.views_84d, 0) as view_to_cart_84d,
    coalesce(purchases.orders_84d, 0) / nullif(activity.carts_84d, 0)
        as cart_to_order_84d,
    coalesce(purchases.orders_84d, 0) / nullif(activity.sessions_84d, 0)
        as session_to_order_84d,

    -- reviews
    cast(activity.reviews_84d as integer) as reviews_84d,
    cast(activity.reviews_total as integer) as reviews_total,
    activity.rating_mean,
    activity.rating_min_84d,

    -- campaigns and support
    cast(coalesce(touches.touches_84d, 0) as integer) as touches_84d,
    cast(coalesce(touches.touches_total, 0) as integer) as touches_total,
    cast(touches.days_since_last_touch as integer) as days_since_last_touch,
    cast(coalesce(touches.responses_84d, 0) as integer) as responses_84d,
    cast(coalesce(touches.responses_total, 0) as integer) as responses_total,
    touches.responses_total / nullif(touches.touches_total, 0) as response_rate_total,
    cast(coalesce(tickets.tickets_84d, 0) as integer) as tickets_84d,
    cast(coalesce(tickets.tickets_total, 0) as integer) as tickets_total,

    -- habits
    purchases.weekend_share_total,
    purchases.evening_share_total,
    purchases.order_hour_mean,
    favourite_habits.favourite_weekday,
    favourite_habits.favourite_weekday_orders / nullif(purchases.orders_total, 0) as favourite_weekday_share,
    favourite_habits.favourite_channel,
    cast(activity.channels_84d as integer) as channels_84d,
    activity.mobile_share_84d,

    -- account and season
    accounts.country,
    accounts.acquisition_channel,
    cast(extract(month from $as_of) as integer) as as_of_month,

    -- suspicions, by this date's own population
    flags.is_suspected_bot,
    flags.is_suspected_reseller
from users
left join activity on users.user_id = activity.user_id
left join purchases on users.user_id = purchases.user_id
left join gaps on users.user_id = gaps.user_id
left join favourite_habits on users.user_id = favourite_habits.user_id
left join categories on users.user_id = categories.user_id
left join brands on users.user_id = brands.user_id
left join products on users.user_id = products.user_id
left join refunds on users.user_id = refunds.user_id
left join touches on users.user_id = touches.user_id
left join tickets on users.user_id = tickets.user_id
left join flags on users.user_id = flags.user_id
left join staging.stg_users as accounts
    on users.user_id = accounts.user_id
    and (accounts.signed_up_at is null or cast(accounts.signed_up_at as date) < $as_of)
