-- The newest date that was looked at, even where nothing was proposed then.
with latest as (
    select max(as_of_date) as as_of_date
    from {{ source('ml', 'strategy_effects') }}
    where as_of_date <= {{ scoring_date() }}
)

select
    changes.as_of_date,
    changes.proposal_id,
    changes.target,
    changes.name,
    changes.parameter,
    changes.old_value,
    changes.new_value,
    changes.evidence,
    changes.profit,
    changes.ci_low,
    changes.ci_high,
    changes.p_value_adjusted,
    changes.n_treated,
    changes.n_control,
    changes.is_applied,
    changes.run_id
from {{ source('ml', 'strategy_proposals') }} as changes
inner join latest on changes.as_of_date = latest.as_of_date
