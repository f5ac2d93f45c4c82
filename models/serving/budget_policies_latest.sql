with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'budget_policies') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    policies.as_of_date,
    policies.policy,
    policies.budget,
    policies.is_asked,
    policies.n_contacts,
    policies.contact_cost,
    policies.discount_cost,
    policies.expected_profit,
    policies.ci_low,
    policies.ci_high,
    policies.shadow_price,
    policies.upper_bound,
    policies.run_id
from {{ source('ml', 'budget_policies') }} as policies
inner join latest on policies.as_of_date = latest.as_of_date
