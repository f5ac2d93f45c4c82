with latest as (
    select max(as_of_date) as as_of_date
    from {{ ref('churn_scores_history') }}
    where as_of_date <= {{ scoring_date() }}
)

select scores.*
from {{ ref('churn_scores_history') }} as scores
inner join latest on scores.as_of_date = latest.as_of_date
