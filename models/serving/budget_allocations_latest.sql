-- The date is that of the policies: a newer run that contacts nobody has no allocations.
with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'budget_policies') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    allocations.as_of_date,
    allocations.user_id,
    allocations.offer,
    allocations.campaign_kind,
    allocations.channel,
    allocations.contact_cost,
    allocations.discount_cost,
    allocations.expected_profit,
    allocations.standard_error,
    allocations.gain_source,
    allocations.run_id
from {{ source('ml', 'budget_allocations') }} as allocations
inner join latest on allocations.as_of_date = latest.as_of_date
