-- Stages are complete: who has features at a date has a stage there too, and one only (see unique_rows).
select
    features.user_id,
    features.as_of_date
from {{ ref('user_features') }} as features
left join {{ ref('user_lifecycle') }} as lifecycle
    on
        features.user_id = lifecycle.user_id
        and features.as_of_date = lifecycle.as_of_date
where lifecycle.stage is null
