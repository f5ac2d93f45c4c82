{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('as_of_dates')) }}",
        post_hook=["{{ record_as_of_dates(ref('as_of_dates')) }}", '{{ record_build() }}']
    )
}}
{%- set pending = pending_as_of_dates(ref('as_of_dates')) %}

with dates as (
    select as_of_date
    from {{ ref('as_of_dates') }}
    where {% if pending %}as_of_date in ({{ pending | join(', ') }}){% else %}false{% endif %}
),

spend as (
    select
        dates.as_of_date,
        {{ user_at('days', 'dates.as_of_date') }} as user_id,
        max(days.purchase_date) as last_purchase_date,
        sum(days.orders) as orders_total,
        sum(days.amount) as amount_total
    from {{ ref('purchase_days') }} as days
    inner join dates on days.purchase_date < dates.as_of_date
    group by 1, 2
),

-- Fifths of the date's buyers, 5 is best; user_id settles ties, so that a rebuild gives the same scores.
scored as (
    select
        user_id,
        as_of_date,
        orders_total,
        amount_total,
        6 - ntile(5) over (partition by as_of_date order by last_purchase_date desc, user_id) as recency_score,
        ntile(5) over (partition by as_of_date order by orders_total, user_id) as frequency_score,
        ntile(5) over (partition by as_of_date order by amount_total, user_id) as monetary_score
    from spend
)

select
    user_id,
    as_of_date,
    cast(orders_total as integer) as orders_total,
    cast(amount_total as decimal(18, 4)) as amount_total,
    cast(recency_score as integer) as recency_score,
    cast(frequency_score as integer) as frequency_score,
    cast(monetary_score as integer) as monetary_score,
    {{ rfm_segment('recency_score', 'frequency_score') }} as rfm_segment
from scored
