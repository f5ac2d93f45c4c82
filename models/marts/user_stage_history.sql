-- A visitor who turned out to be a user is no longer there at the scoring date: its stays are left out.
with stays as (
    select distinct
        lifecycle.user_id,
        lifecycle.stage,
        lifecycle.stage_since_date as from_date,
        now.as_of_date
    from {{ ref('user_lifecycle') }} as lifecycle
    inner join {{ ref('user_lifecycle') }} as now
        on lifecycle.user_id = now.user_id and now.as_of_date = {{ scoring_date() }}
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
