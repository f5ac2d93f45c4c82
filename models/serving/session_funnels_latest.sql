with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'session_funnels') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    session_funnels.as_of_date,
    session_funnels.days,
    session_funnels.channel,
    session_funnels.step,
    session_funnels.event_type,
    session_funnels.sessions,
    session_funnels.users,
    session_funnels.sessions_with_type,
    session_funnels.share_of_first,
    session_funnels.share_of_previous,
    session_funnels.ci_low,
    session_funnels.ci_high,
    session_funnels.drop_off,
    session_funnels.median_seconds,
    session_funnels.p90_seconds,
    session_funnels.run_id
from {{ source('ml', 'session_funnels') }} as session_funnels
inner join latest on session_funnels.as_of_date = latest.as_of_date
