{# One row per user with a purchase before `as_of`: recency, frequency and money in fifths of that date's buyers. #}
{% macro user_rfm_at(as_of) -%}
    with spend as (
        select
            {{ user_at('days', as_of) }} as user_id,
            max(days.purchase_date) as last_purchase_date,
            sum(days.orders) as orders_total,
            sum(days.amount) as amount_total
        from {{ ref('purchase_days') }} as days
        where days.purchase_date < {{ as_of }}
        group by 1
    ),

    -- 5 is best; user_id settles ties, so that a rebuild gives the same scores.
    scored as (
        select
            user_id,
            orders_total,
            amount_total,
            6 - ntile(5) over (order by last_purchase_date desc, user_id) as recency_score,
            ntile(5) over (order by orders_total, user_id) as frequency_score,
            ntile(5) over (order by amount_total, user_id) as monetary_score
        from spend
    )

    select
        user_id,
        {{ as_of }} as as_of_date,
        cast(orders_total as integer) as orders_total,
        cast(amount_total as decimal(18, 4)) as amount_total,
        cast(recency_score as integer) as recency_score,
        cast(frequency_score as integer) as frequency_score,
        cast(monetary_score as integer) as monetary_score,
        {{ rfm_segment('recency_score', 'frequency_score') }} as rfm_segment
    from scored
{%- endmacro %}
