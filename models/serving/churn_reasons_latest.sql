select
    reasons.user_id,
    reasons.as_of_date,
    reasons.reason_rank,
    reasons.feature,
    reasons.feature_value,
    reasons.usual_value,
    reasons.contribution,
    reasons.reason,
    reasons.method,
    reasons.model_version
from {{ source('ml', 'churn_score_reasons') }} as reasons
inner join {{ ref('churn_scores_latest') }} as scores
    on
        reasons.user_id = scores.user_id
        and reasons.as_of_date = scores.as_of_date
        and reasons.model_version = scores.model_version
