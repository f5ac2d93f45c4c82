{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('as_of_dates'), 'label_hash', 'is_labelled') }}",
        post_hook=[
            "{{ record_as_of_dates(ref('as_of_dates'), 'label_hash', 'is_labelled') }}"
        ]
    )
}}
{%- set dates = pending_as_of_dates(ref('as_of_dates'), 'label_hash', 'is_labelled') %}

-- A few rows of dates and one pass over the days of purchase: no loop is needed here.
with dates as (
    select
        as_of_date,
        horizon_ends_on
    from {{ ref('as_of_dates') }}
    where
        is_labelled
        and as_of_date in ({% for as_of in dates %}{{ as_of }}, {% endfor %}date '1900-01-01')
),

population as (
    select distinct
        dates.as_of_date,
        dates.horizon_ends_on,
        {{ user_at('p', 'dates.as_of_date') }} as user_id
    from dates
    inner join {{ ref('purchase_days') }} as p
        on
            dates.as_of_date > p.purchase_date
            and p.purchase_date >= {{ add_days('dates.as_of_date', -var('active_window_days')) }}
),

-- What happened in the horizon is told with what was known at its end: a purchase as an anonymous visitor counts
-- for the user when the link was made in the meantime.
outcomes as (
    select
        dates.as_of_date,
        {{ user_at('p', 'dates.horizon_ends_on') }} as user_id,
        min(p.purchase_date) as next_purchase_date,
        count(distinct p.purchase_date) as purchase_days,
        sum(p.amount) as amount
    from dates
    inner join {{ ref('purchase_days') }} as p
        on
            dates.as_of_date <= p.purchase_date
            and dates.horizon_ends_on > p.purchase_date
    group by 1, 2
)

select
    population.user_id,
    population.as_of_date,
    cast({{ var('churn_horizon_days') }} as integer) as horizon_days,
    outcomes.user_id is null as is_churned,
    outcomes.next_purchase_date,
    cast(coalesce(outcomes.purchase_days, 0) as integer) as purchase_days_in_horizon,
    cast(coalesce(outcomes.amount, 0) as decimal(18, 4)) as amount_in_horizon
from population
left join outcomes
    on
        population.user_id = outcomes.user_id
        and population.as_of_date = outcomes.as_of_date
{% if var('exclude_flagged_users') -%}
    inner join {{ ref('user_features') }} as features
        on
            population.user_id = features.user_id
            and population.as_of_date = features.as_of_date
{%- endif %}
