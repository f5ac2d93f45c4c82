{#
    One row per user with all features, from what happened strictly before `as_of`.

    as_of       a SQL date: the grid's dates, the scoring date, or now for the current state.
    population  `active`: an event in the last active_window_days; `lapsed`: the last event between that and
                lapsed_window_days.
    reached     true: only the users that the new loads reach; the model holds the others' rows of this date.
    users       a relation with user_id: only these users.
    others      with `users`: SQL of user_id, log_events and log_amount of all others of the population.

    Missing source tables and missing values: counts, sums and shares of a total are 0 where nothing happened; a
    time since, an average, a ratio or a habit is null where there is nothing to take it from. No campaigns, no
    reviews or no users table therefore give zeros and nulls, never an error.
#}
{% macro user_features_at(as_of, population='active', reached=false, users=none, others=none) -%}
    {#- The windows are part of the columns' names, so they are fixed; the var only decides who is in. -#}
    {%- set active_from = add_days(as_of, -var('active_window_days')) -%}
    {%- set last_84_days = add_days(as_of, -84) -%}
    {#- What a visitor does besides buying, as int_sessions counts it. -#}
    {%- set browsing = ['views', 'carts', 'cart_removals', 'searches', 'wishlistings', 'shares', 'support_requests'] -%}

    {% if reached -%}
        with reached as (
            {{ users_reached_by_new_loads(as_of) }}
        ),

        users as (
    {%- else -%}
        with users as (
    {%- endif %}
        select
            {{ user_at('s', as_of) }} as user_id,
            max(s.session_date) as last_event_date
        from {{ ref('int_sessions') }} as s
        {% if reached -%}
            inner join reached on {{ user_at('s', as_of) }} = reached.user_id
        {%- elif users -%}
            inner join {{ users }} as wanted on {{ user_at('s', as_of) }} = wanted.user_id
        {%- endif %}
        where s.session_date < {{ as_of }}
        group by 1
        {% if population == 'active' -%}
            having max(s.session_date) >= {{ active_from }}
        {%- else -%}
            having
                max(s.session_date) < {{ active_from }}
                and max(s.session_date) >= {{ add_days(as_of, -var('lapsed_window_days')) }}
        {%- endif %}
    ),

    sessions as (
        select
            {{ user_at('s', as_of) }} as user_id,
            {{ days_between('s.session_date', as_of) }} as days_ago,
            s.events,
            {% for column in browsing -%}
                s.{{ column }},
            {% endfor -%}
            s.reviews,
            s.ratings,
            s.rating_sum,
            s.rating_min,
            s.channel,
            s.device
        from {{ ref('int_sessions') }} as s
        inner join users on {{ user_at('s', as_of) }} = users.user_id
        where s.session_date < {{ as_of }}
    ),

    activity as (
        select
            user_id,
            min(days_ago) as days_since_last_event,
            max(days_ago) as days_since_first_event,
            min(days_ago) filter (where views > 0) as days_since_last_view,
            min(days_ago) filter (where carts > 0) as days_since_last_cart,
            {{ count_distinct_small("case when days_ago <= 84 then days_ago end") }} as active_days_84d,
            count(*) filter (where days_ago <= 28) as sessions_28d,
            count(*) filter (where days_ago <= 84) as sessions_84d,
            count(*) filter (where days_ago > 28 and days_ago <= 56) as sessions_28d_before,
            count(*) as sessions_total,
            {% for days in [28, 84] -%}
                {% for column in ['events'] + browsing -%}
                    coalesce(sum({{ column }}) filter (where days_ago <= {{ days }}), 0) as {{ column }}_{{ days }}d,
                {% endfor %}
            {%- endfor %}
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
            {{ user_at('o', as_of) }} as user_id,
            {{ days_between('o.order_date', as_of) }} as days_ago,
            o.order_date,
            o.order_hour,
            o.channel,
            o.lines,
            o.products,
            o.categories,
            o.discounted_lines,
            o.amount,
            o.discount
        from {{ ref('int_orders') }} as o
        inner join users on {{ user_at('o', as_of) }} = users.user_id
        where o.order_date < {{ as_of }}
    ),

    purchases as (
        select
            user_id,
            max(order_date) as last_order_date,
            min(days_ago) as days_since_last_purchase,
            max(days_ago) as days_since_first_purchase,
            {% for days in [7, 14, 28, 56, 84, 168] -%}
                count(*) filter (where days_ago <= {{ days }}) as orders_{{ days }}d,
            {% endfor -%}
            count(*) as orders_total,
            {% for days in [28, 84, 168] -%}
                cast(coalesce(sum(amount) filter (where days_ago <= {{ days }}), 0) as double) as amount_{{ days }}d,
            {% endfor -%}
            cast(sum(amount) as double) as amount_total,
            count(*) filter (where days_ago > 28 and days_ago <= 56) as orders_28d_before,
            cast(coalesce(sum(amount) filter (where days_ago > 28 and days_ago <= 56), 0) as double) as amount_28d_before,
            count(*) filter (where days_ago > 84 and days_ago <= 168)
                as orders_84d_before,
            {{ count_distinct_small("case when days_ago <= 84 then days_ago // 7 end") }} as purchase_weeks_84d,
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
            {{ median_by_group('gap_days') }} as gap_median_days,
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
            {{ heaviest('weekday', 'orders') }} as favourite_weekday,
            max(orders) filter (where weekday is not null) as favourite_weekday_orders,
            {{ heaviest('channel', 'orders') }} as favourite_channel
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
            {{ user_at('p', as_of) }} as user_id,
            p.product_id,
            any_value(p.category) as category,
            any_value(p.brand) as brand,
            max(p.purchase_date) as last_date,
            sum(p.amount) as amount_all,
            coalesce(sum(p.amount) filter (where p.purchase_date >= {{ last_84_days }}), 0) as amount_recent,
            coalesce(sum(p.amount) filter (where p.purchase_date < {{ last_84_days }}), 0) as amount_earlier
        from {{ ref('int_product_days') }} as p
        inner join users on {{ user_at('p', as_of) }} = users.user_id
        where p.purchase_date < {{ as_of }}
        group by 1, 2
    ),

    products as (
        select
            user_id,
            count(*) as products_total,
            count(*) filter (where last_date >= {{ last_84_days }}) as products_84d
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
            count(*) filter (where last_date >= {{ last_84_days }}) as categories_84d,
            {{ heaviest('category', 'amount_all') }} as favourite_category,
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
            {{ heaviest('brand', 'amount_all') }} as favourite_brand,
            cast(max(amount_all) as double) / nullif(cast(sum(amount_all) as double), 0) as favourite_brand_share
        from brand_spend
        group by user_id
    ),

    refunds as (
        select
            {{ user_at('r', as_of) }} as user_id,
            count(*) as refunds_total,
            count(*) filter (where r.refund_date >= {{ last_84_days }}) as refunds_84d,
            count(distinct r.refunded_order_key) as refunded_orders_total,
            cast(sum(r.amount) as double) as refunded_amount_total
        from {{ ref('int_refunds') }} as r
        where r.refund_date < {{ as_of }}
        group by 1
    ),

    touches as (
        select
            user_id,
            count(*) as touches_total,
            count(*) filter (where touched_date >= {{ last_84_days }}) as touches_84d,
            min({{ days_between('touched_date', as_of) }}) as days_since_last_touch,
            -- A response that came later is not known yet.
            count(*) filter (where responded_date < {{ as_of }}) as responses_total,
            count(*) filter (where responded_date < {{ as_of }} and responded_date >= {{ last_84_days }})
                as responses_84d
        from {{ ref('stg_campaign_touches') }}
        where touched_date < {{ as_of }} and arm != 'control'
        group by user_id
    ),

    tickets as (
        select
            user_id,
            count(*) as tickets_total,
            count(*) filter (where created_date >= {{ last_84_days }}) as tickets_84d
        from {{ ref('stg_support_tickets') }}
        where created_date < {{ as_of }}
        group by user_id
    ),

    intensity as (
        select
            users.user_id,
            {{ log_intensity('activity') }},
            {{ log_spending('purchases') }}
        from users
        left join activity on users.user_id = activity.user_id
        left join purchases on users.user_id = purchases.user_id
        {% if reached -%}
            -- The rest of the date's population, as the model holds it.
            union all
            select
                held.user_id,
                {{ log_intensity('held') }},
                {{ log_spending('held') }}
            from {{ this }} as held
            where held.as_of_date = {{ as_of }}
        {%- elif others -%}
            union all
            {{ others }}
        {%- endif %}
    ),

    {{ outlier_flags() }}

    select
        users.user_id,
        coalesce(purchases.last_order_date >= {{ active_from }}, false) as is_active_buyer,

        -- recency and tenure
        cast(purchases.days_since_last_purchase as integer) as days_since_last_purchase,
        cast(activity.days_since_last_event as integer) as days_since_last_event,
        cast(activity.days_since_last_view as integer) as days_since_last_view,
        cast(activity.days_since_last_cart as integer) as days_since_last_cart,
        cast(purchases.days_since_first_purchase as integer) as days_since_first_purchase,
        cast(activity.days_since_first_event as integer) as days_since_first_event,
        cast({{ days_between('cast(' ~ shop_time('accounts.signed_up_at') ~ ' as date)', as_of) }} as integer)
            as days_since_sign_up,

        -- frequency
        {% for days in [7, 14, 28, 56, 84, 168] -%}
            cast(coalesce(purchases.orders_{{ days }}d, 0) as integer) as orders_{{ days }}d,
        {% endfor -%}
        cast(coalesce(purchases.orders_total, 0) as integer) as orders_total,
        cast(coalesce(gaps.purchase_days_84d, 0) as integer) as purchase_days_84d,
        cast(coalesce(gaps.purchase_days_total, 0) as integer) as purchase_days_total,
        cast(coalesce(purchases.purchase_weeks_84d, 0) as integer) as purchase_weeks_84d,
        cast(coalesce(gaps.purchase_days_total, 0) / purchases.days_since_first_purchase as double)
            as purchase_days_per_day,

        -- monetary value, in base currency
        {% for days in [28, 84, 168] -%}
            coalesce(purchases.amount_{{ days }}d, 0) as amount_{{ days }}d,
        {% endfor -%}
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
        {% for days in [28, 84] -%}
            cast(activity.events_{{ days }}d as integer) as events_{{ days }}d,
            {% for column in browsing -%}
                cast(activity.{{ column }}_{{ days }}d as integer) as {{ column }}_{{ days }}d,
            {% endfor %}
        {%- endfor %}
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
        cast(extract(month from {{ as_of }}) as integer) as as_of_month,

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
    left join {{ ref('stg_users') }} as accounts
        on users.user_id = accounts.user_id
        and (accounts.signed_up_at is null or cast({{ shop_time('accounts.signed_up_at') }} as date) < {{ as_of }})
    {% if var('exclude_flagged_users') -%}
        where not (flags.is_suspected_bot or flags.is_suspected_reseller)
    {%- endif %}
{%- endmacro %}

{# The rows of user_features_at with their date: of everybody, or of the users that the new loads reach. #}
{% macro dated_user_features_at(as_of, population, reached=false) -%}
    select
        {{ as_of }} as as_of_date,
        *
    from ({{ user_features_at(as_of, population, reached) }})
{%- endmacro %}

{#
    What a model of features begins with: the first date to compute, which insert_other_dates follows, and the users
    that the new loads reach on the dates of which it holds the others.
#}
{% macro first_user_features(spine, population) -%}
    {#- Read for the reached users alone; said here, so that dbt draws the edge. -#}
    {%- set _ = ref('int_events') -%}
    {%- set reached_dates = reached_as_of_dates(spine) -%}
    {%- for as_of in pending_as_of_dates(spine)[:1] + reached_dates %}
        {{ dated_user_features_at(as_of, population, as_of in reached_dates) }}
        {% if not loop.last %}union all{% endif %}
    {%- else %}
        {{ dated_user_features_at("date '1900-01-01'", population) }}
        where false
    {%- endfor %}
{%- endmacro %}
