-- Between neighbouring grid dates, and from the last grid date to the scoring date.
select
    as_of_date,
    coalesce(previous_stage, 'unseen') as from_stage,
    stage as to_stage,
    cast(count(*) as bigint) as users
from {{ ref('user_lifecycle') }}
group by as_of_date, from_stage, to_stage
