with newer_reasons as (
    select
        reasons.user_id,
        scores.as_of_ts,
        reasons.as_of_date,
        reasons.reason_rank,
        reasons.feature,
        reasons.feature_value,
        reasons.usual_value,
        reasons.contribution,
        reasons.reason,
        reasons.method,
        reasons.model_version
    from {{ source('ml', 'current_churn_reasons') }} as reasons
    inner join {{ ref('churn_scores_now') }} as scores
        on
            reasons.user_id = scores.user_id
            and reasons.as_of_date = scores.as_of_date
            and reasons.model_version = scores.model_version
)

select
    user_id,
    {{ utc_time('cast(as_of_date as timestamp)') }} as as_of_ts,
    as_of_date,
    reason_rank,
    feature,
    feature_value,
    usual_value,
    contribution,
    reason,
    method,
    model_version
from {{ ref('churn_reasons_latest') }}
where user_id not in (select newer_reasons.user_id from newer_reasons)

union all

select * from newer_reasons
