select
    experiment_id,
    user_id,
    arm,
    stratum,
    place,
    method,
    as_of_date,
    assigned_at,
    run_id
from {{ source('ml', 'experiment_assignments') }}
