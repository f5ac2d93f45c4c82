with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'uplift_scores') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    scores.as_of_date,
    scores.user_id,
    scores.campaign_kind,
    scores.outcome,
    scores.horizon_days,
    scores.learner,
    scores.effect,
    scores.standard_error,
    scores.baseline_probability,
    scores.uplift_segment,
    scores.is_best_kind,
    scores.run_id
from {{ source('ml', 'uplift_scores') }} as scores
inner join latest on scores.as_of_date = latest.as_of_date
