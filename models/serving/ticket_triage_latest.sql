with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'ticket_intents') }}
)

select triage.*
from {{ source('ml', 'ticket_triage') }} as triage
inner join latest on triage.as_of_date = latest.as_of_date
