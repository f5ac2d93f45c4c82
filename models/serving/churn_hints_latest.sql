select
    hints.user_id,
    hints.as_of_date,
    hints.churn_probability,
    hints.probability_after,
    hints.n_changes,
    hints.changes,
    hints.hint,
    hints.model_version
from {{ source('ml', 'churn_hints') }} as hints
-- A later scoring of the same date may have moved the user out of the band.
inner join {{ ref('churn_scores_latest') }} as scores
    on
        hints.user_id = scores.user_id
        and hints.as_of_date = scores.as_of_date
        and hints.model_version = scores.model_version
        and hints.run_id = scores.run_id
