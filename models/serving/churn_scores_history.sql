select
    scores.user_id,
    scores.as_of_date,
    scores.horizon_days,
    scores.churn_probability,
    scores.churn_decile,
    scores.risk_band,
    scores.is_predicted_churn,
    scores.is_in_training_data,
    scores.model_name,
    scores.model_version,
    scores.run_id,
    scores.scored_at
from {{ source('ml', 'churn_scores') }} as scores
where scores.is_served
