with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'forecasts') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    forecasts.series,
    forecasts.grain,
    forecasts.date,
    forecasts.as_of_date,
    forecasts.value,
    forecasts.low_80,
    forecasts.high_80,
    forecasts.low_95,
    forecasts.high_95,
    forecasts.model_name,
    forecasts.run_id
from {{ source('ml', 'forecasts') }} as forecasts
inner join latest on forecasts.as_of_date = latest.as_of_date
