with latest as (
    select
        method,
        max(as_of_date) as as_of_date
    from {{ source('ml', 'user_segments') }}
    where as_of_date <= {{ scoring_date() }}
    group by method
)

select
    segments.user_id,
    segments.method,
    segments.as_of_date,
    segments.segment_id,
    segments.segment_name,
    segments.distance,
    segments.run_id
from {{ source('ml', 'user_segments') }} as segments
inner join latest
    on
        segments.method = latest.method
        and segments.as_of_date = latest.as_of_date
