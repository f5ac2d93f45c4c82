-- Each user counts from the own first purchase: period k is days 28k to 28k + 27 after it (with as_of_step_days = 28).
-- A cohort has a row only for periods that all its users have behind them on the scoring date: time that is still to
-- come is no user who stays away.
{%- set step = var('as_of_step_days') %}
{%- set anchor = "date '" ~ var('as_of_anchor_date') ~ "'" %}

with recursive purchases as (
    select
        {{ user_at('days', 'dates.as_of_date') }} as user_id,
        days.purchase_date,
        days.amount,
        dates.as_of_date
    from {{ ref('purchase_days') }} as days
    inner join {{ ref('as_of_dates') }} as dates
        on dates.is_scoring_date and days.purchase_date < dates.as_of_date
),

firsts as (
    select
        user_id,
        as_of_date,
        min(purchase_date) as first_date
    from purchases
    group by user_id, as_of_date
),

members as (
    select
        user_id,
        as_of_date,
        first_date,
        {{ add_days(
            anchor,
            'cast(floor(' ~ days_between(anchor, 'first_date') ~ ' / ' ~ step ~ '.0) as integer) * ' ~ step
        ) }} as cohort_date
    from firsts
),

cohorts as (
    select
        cohort_date,
        as_of_date,
        count(*) as cohort_users
    from members
    group by cohort_date, as_of_date
),

-- The last user of a cohort may have come on its last day.
observed as (
    select
        cohort_date,
        as_of_date,
        cohort_users,
        0 as period
    from cohorts
    where {{ add_days('cohort_date', 2 * step - 1) }} <= as_of_date
    union all
    select
        cohort_date,
        as_of_date,
        cohort_users,
        period + 1
    from observed
    where {{ add_days('cohort_date', '(period + 3) * ' ~ step ~ ' - 1') }} <= as_of_date
),

returned as (
    select
        members.cohort_date,
        cast(floor({{ days_between('members.first_date', 'purchases.purchase_date') }} / {{ step }}.0) as integer)
            as period,
        count(distinct members.user_id) as buyers,
        sum(purchases.amount) as amount
    from members
    inner join purchases on members.user_id = purchases.user_id
    group by 1, 2
)

select
    observed.cohort_date,
    cast(observed.period as integer) as period,
    cast(observed.cohort_users as bigint) as cohort_users,
    cast(coalesce(returned.buyers, 0) as bigint) as buyers,
    cast(coalesce(returned.buyers, 0) as double) / observed.cohort_users as retention,
    cast(coalesce(returned.amount, 0) as decimal(18, 4)) as amount
from observed
left join returned
    on
        observed.cohort_date = returned.cohort_date
        and observed.period = returned.period
