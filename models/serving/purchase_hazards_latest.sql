with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'purchase_hazards') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    found.as_of_date,
    found.days_since_last_purchase,
    found.days_to,
    found.at_risk,
    found.exposure_days,
    found.purchases,
    found.hazard,
    found.ci_low,
    found.ci_high,
    found.probability_back,
    found.back_ci_low,
    found.back_ci_high,
    found.horizon_days,
    found.run_id
from {{ source('ml', 'purchase_hazards') }} as found
inner join latest on found.as_of_date = latest.as_of_date
