with latest as (
    select
        method,
        max(as_of_date) as as_of_date
    from {{ source('ml', 'segment_profiles') }}
    where as_of_date <= {{ scoring_date() }}
    group by method
)

select
    profiles.method,
    profiles.segment_id,
    profiles.as_of_date,
    profiles.name,
    profiles.description,
    profiles.n_users,
    profiles.share,
    profiles.silhouette,
    profiles.run_id
from {{ source('ml', 'segment_profiles') }} as profiles
inner join latest
    on
        profiles.method = latest.method
        and profiles.as_of_date = latest.as_of_date
