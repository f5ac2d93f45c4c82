with latest_run as (
    select max(run_id) as run_id
    from {{ source('ml', 'model_runs') }}
    where command = 'monitor' and status = 'ok'
)

select
    alerts.as_of_date,
    alerts.severity,
    alerts.cause,
    alerts.subject,
    alerts.message,
    alerts.advice,
    alerts.model_version,
    alerts.alert_id,
    alerts.run_id,
    alerts.raised_at
from {{ source('ml', 'alerts') }} as alerts
inner join latest_run on alerts.run_id = latest_run.run_id
