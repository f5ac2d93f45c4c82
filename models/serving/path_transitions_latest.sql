with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'path_transitions') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    path_transitions.as_of_date,
    path_transitions.days,
    path_transitions.unit,
    path_transitions.from_state,
    path_transitions.to_state,
    path_transitions.transitions,
    path_transitions.probability,
    path_transitions.ci_low,
    path_transitions.ci_high,
    path_transitions.median_seconds,
    path_transitions.run_id
from {{ source('ml', 'path_transitions') }} as path_transitions
inner join latest on path_transitions.as_of_date = latest.as_of_date
