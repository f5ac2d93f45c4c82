with latest as (
    select
        experiment_id,
        max(as_of_date) as as_of_date
    from {{ source('ml', 'experiment_results') }}
    where as_of_date <= {{ scoring_date() }}
    group by experiment_id
)

select
    results.experiment_id,
    results.as_of_date,
    results.look,
    results.information_fraction,
    results.role,
    results.metric,
    results.arm,
    results.dimension,
    results.level,
    results.n_users,
    results.mean,
    results.effect,
    results.ci_low,
    results.ci_high,
    results.relative_effect,
    results.relative_ci_low,
    results.relative_ci_high,
    results.ci_level,
    results.p_value,
    results.p_adjusted,
    results.alpha_at_look,
    results.interaction_p_value,
    results.variance_reduction,
    results.verdict,
    results.srm_p_value,
    results.decision,
    results.run_id
from {{ source('ml', 'experiment_results') }} as results
inner join latest
    on
        results.experiment_id = latest.experiment_id
        and results.as_of_date = latest.as_of_date
