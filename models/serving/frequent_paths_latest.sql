with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'frequent_paths') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    frequent_paths.as_of_date,
    frequent_paths.days,
    frequent_paths.unit,
    frequent_paths.path,
    frequent_paths.steps,
    frequent_paths.path_rank,
    frequent_paths.trails,
    frequent_paths.users,
    frequent_paths.share,
    frequent_paths.ends_in_purchase,
    frequent_paths.purchase_share,
    frequent_paths.run_id
from {{ source('ml', 'frequent_paths') }} as frequent_paths
inner join latest on frequent_paths.as_of_date = latest.as_of_date
