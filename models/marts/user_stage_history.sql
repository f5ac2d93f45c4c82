-- A visitor who turned out to be a user is no longer there at the scoring date: its stays are left out.
with users as (
    select
        lifecycle.user_id,
        lifecycle.as_of_date
    from {{ ref('user_lifecycle') }} as lifecycle
    inner join {{ ref('as_of_dates') }} as dates
        on lifecycle.as_of_date = dates.as_of_date
    where dates.is_scoring_date
),

stays as (
    select distinct
        lifecycle.user_id,
        lifecycle.stage,
        lifecycle.stage_since_date as from_date,
        users.as_of_date
    from {{ ref('user_lifecycle') }} as lifecycle
    inner join users on lifecycle.user_id = users.user_id
),

ended as (
    select
        *,
        lead(from_date) over (partition by user_id order by from_date) as to_date
    from stays
)

select
    user_id,
    from_date,
    to_date,
    stage,
    cast({{ days_between('from_date', 'coalesce(to_date, as_of_date)') }} as integer) as days
from ended
