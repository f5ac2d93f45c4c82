with spells as (
    select
        user_id,
        stage,
        stage_since_date,
        max(as_of_date) as last_seen_date
    from {{ ref('user_lifecycle') }}
    group by user_id, stage, stage_since_date
)

select
    user_id,
    stage_since_date as from_date,
    lead(stage_since_date) over (partition by user_id order by stage_since_date) as to_date,
    stage,
    cast(
        {{ days_between(
            'stage_since_date',
            'coalesce(lead(stage_since_date) over (partition by user_id order by stage_since_date), last_seen_date)'
        ) }} as integer
    ) as days
from spells
