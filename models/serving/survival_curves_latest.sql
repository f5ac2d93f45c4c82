with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'survival_curves') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    found.as_of_date,
    found.curve,
    found.dimension,
    found.level,
    found.days,
    found.at_risk,
    found.events,
    found.survival,
    found.ci_low,
    found.ci_high,
    found.run_id
from {{ source('ml', 'survival_curves') }} as found
inner join latest on found.as_of_date = latest.as_of_date
