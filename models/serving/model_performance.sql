with latest_fit as (
    select max(run_id) as run_id
    from {{ source('ml', 'model_runs') }}
    where command = 'fit' and status = 'ok'
)

select
    metrics.model_name,
    metrics.model_version,
    metrics.split,
    metrics.as_of_date,
    metrics.metric,
    metrics.value,
    metrics.ci_low,
    metrics.ci_high,
    metrics.n_users,
    metrics.n_churned,
    metrics.run_id
from {{ source('ml', 'model_metrics') }} as metrics
inner join latest_fit on metrics.run_id = latest_fit.run_id
