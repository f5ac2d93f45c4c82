with latest_run as (
    select
        run_id,
        finished_at
    from {{ source('ml', 'model_runs') }}
    where command = 'monitor' and status = 'ok'
    qualify row_number() over (order by run_id desc) = 1
),

-- What a watch that came later says of loads and files takes the place of what monitor said of them.
watching as (
    select run_id
    from {{ source('ml', 'model_runs') }}
    where
        command = 'watch'
        and status = 'ok'
        and finished_at > coalesce((select max(latest_run.finished_at) from latest_run), timestamp '1900-01-01')
    qualify row_number() over (order by finished_at desc) = 1
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
where
    alerts.run_id in (select watching.run_id from watching)
    or (
        alerts.run_id in (select latest_run.run_id from latest_run)
        and not (
            alerts.cause in ('stale_data', 'quarantine', 'failed_files')
            and exists (select 1 from watching)
        )
    )
