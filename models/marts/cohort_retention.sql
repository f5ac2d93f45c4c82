-- Each user counts from the own first purchase: period k is days 28k to 28k + 27 after it (with as_of_step_days = 28).
-- A cohort has a row only for periods that all its users have behind them on the scoring date: time that is still to
-- come is no user who stays away.
{%- set step = var('as_of_step_days') %}

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
        purchases.user_id,
        purchases.as_of_date,
        min(purchases.purchase_date) as first_date,
        max(accounts.acquisition_channel) as acquisition_channel
    from purchases
    left join {{ ref('stg_users') }} as accounts on purchases.user_id = accounts.user_id
    group by purchases.user_id, purchases.as_of_date
),

known as (
    select count(acquisition_channel) as users
    from firsts
),

-- Where nobody has a channel, (unknown) would only say again what (all) says.
members as (
    select
        user_id,
        as_of_date,
        first_date,
        cast(date_trunc('month', first_date) as date) as cohort_month,
        '(all)' as acquisition_channel
    from firsts
    union all
    select
        firsts.user_id,
        firsts.as_of_date,
        firsts.first_date,
        cast(date_trunc('month', firsts.first_date) as date) as cohort_month,
        coalesce(firsts.acquisition_channel, '(unknown)') as acquisition_channel
    from firsts
    inner join known on known.users > 0
),

cohorts as (
    select
        acquisition_channel,
        cohort_month,
        as_of_date,
        last_day(cohort_month) as last_first_date,
        count(*) as cohort_users
    from members
    group by acquisition_channel, cohort_month, as_of_date
),

-- The last user of a cohort may have come on its last day.
observed as (
    select
        acquisition_channel,
        cohort_month,
        as_of_date,
        last_first_date,
        cohort_users,
        0 as period
    from cohorts
    where {{ add_days('last_first_date', step) }} <= as_of_date
    union all
    select
        acquisition_channel,
        cohort_month,
        as_of_date,
        last_first_date,
        cohort_users,
        period + 1
    from observed
    where {{ add_days('last_first_date', '(period + 2) * ' ~ step) }} <= as_of_date
),

returned as (
    select
        members.acquisition_channel,
        members.cohort_month,
        cast(floor({{ days_between('members.first_date', 'purchases.purchase_date') }} / {{ step }}.0) as integer)
            as period,
        count(distinct members.user_id) as buyers,
        sum(purchases.amount) as amount
    from members
    inner join purchases on members.user_id = purchases.user_id
    group by 1, 2, 3
)

select
    observed.acquisition_channel,
    observed.cohort_month,
    cast(observed.period as integer) as period,
    cast(observed.cohort_users as bigint) as cohort_users,
    cast(coalesce(returned.buyers, 0) as bigint) as buyers,
    cast(coalesce(returned.buyers, 0) as double) / observed.cohort_users as retention,
    cast(coalesce(returned.amount, 0) as decimal(18, 4)) as amount
from observed
left join returned
    on
        observed.acquisition_channel = returned.acquisition_channel
        and observed.cohort_month = returned.cohort_month
        and observed.period = returned.period
