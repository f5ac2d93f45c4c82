with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'response_scores') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    scores.as_of_date,
    scores.user_id,
    scores.campaign_kind,
    scores.channel,
    scores.is_open,
    scores.horizon_days,
    scores.response_probability,
    scores.response_decile,
    scores.expected_spend,
    scores.model_name,
    scores.spend_model_name,
    scores.run_id
from {{ source('ml', 'response_scores') }} as scores
inner join latest on scores.as_of_date = latest.as_of_date
