with latest as (
    select
        level,
        max(as_of_date) as as_of_date
    from {{ source('ml', 'association_rules') }}
    where as_of_date <= {{ scoring_date() }}
    group by level
)

select
    association_rules.as_of_date,
    association_rules.level,
    association_rules.antecedent,
    association_rules.consequent,
    association_rules.antecedent_names,
    association_rules.consequent_name,
    association_rules.antecedent_size,
    association_rules.baskets,
    association_rules.support,
    association_rules.antecedent_support,
    association_rules.consequent_support,
    association_rules.confidence,
    association_rules.ci_low,
    association_rules.ci_high,
    association_rules.lift,
    association_rules.conviction,
    association_rules.leverage,
    association_rules.p_value,
    association_rules.q_value,
    association_rules.run_id
from {{ source('ml', 'association_rules') }} as association_rules
inner join latest on association_rules.as_of_date = latest.as_of_date and association_rules.level = latest.level
