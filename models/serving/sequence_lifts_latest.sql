with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'sequence_lifts') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    sequence_lifts.as_of_date,
    sequence_lifts.days,
    sequence_lifts.outcome,
    sequence_lifts.step_kind,
    sequence_lifts.sequence,
    sequence_lifts.length,
    sequence_lifts.users_with,
    sequence_lifts.users_without,
    sequence_lifts.rate_with,
    sequence_lifts.rate_without,
    sequence_lifts.lift,
    sequence_lifts.ci_low,
    sequence_lifts.ci_high,
    sequence_lifts.p_value,
    sequence_lifts.q_value,
    sequence_lifts.is_significant,
    sequence_lifts.lift_rank,
    sequence_lifts.run_id
from {{ source('ml', 'sequence_lifts') }} as sequence_lifts
inner join latest on sequence_lifts.as_of_date = latest.as_of_date
