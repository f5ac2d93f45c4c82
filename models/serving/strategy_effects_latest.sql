with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'strategy_effects') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    effects.as_of_date,
    effects.dimension,
    effects.level,
    effects.first_sent,
    effects.last_sent,
    effects.horizon_days,
    effects.n_treated,
    effects.n_control,
    effects.purchase_rate_treated,
    effects.purchase_rate_control,
    effects.expected_profit,
    effects.profit,
    effects.ci_low,
    effects.ci_high,
    effects.p_value,
    effects.p_value_adjusted,
    effects.run_id
from {{ source('ml', 'strategy_effects') }} as effects
inner join latest on effects.as_of_date = latest.as_of_date
