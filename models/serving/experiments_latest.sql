with assigned as (
    select
        experiment_id,
        count(*) as n_users
    from {{ source('ml', 'experiment_assignments') }}
    group by experiment_id
),

compared as (
    select
        experiment_id,
        sum(n_users) as n_users
    from {{ ref('experiment_results_latest') }}
    where role = 'primary'
    group by experiment_id
),

ranked as (
    select
        *,
        row_number() over (partition by experiment_id order by p_value nulls last, arm) as place
    from {{ ref('experiment_results_latest') }}
    where role = 'primary' and effect is not null
)

select
    experiments.experiment_id,
    experiments.hypothesis,
    experiments.kind,
    experiments.metric,
    experiments.secondary,
    experiments.guardrails,
    experiments.arms,
    experiments.shares,
    experiments.salt,
    experiments.layer,
    experiments.slot_from,
    experiments.slot_to,
    experiments.strata,
    experiments.stages,
    experiments.needs_consent,
    experiments.alpha,
    experiments.power,
    experiments.mde,
    experiments.baseline_mean,
    experiments.baseline_sd,
    experiments.pre_correlation,
    experiments.n_per_arm,
    experiments.n_available,
    experiments.mde_available,
    experiments.uses_cuped,
    experiments.window_days,
    experiments.pre_days,
    experiments.looks,
    experiments.starts_on,
    experiments.ends_on,
    experiments.planned_days,
    experiments.status,
    experiments.as_of_date,
    experiments.run_id,
    cast(coalesce(assigned.n_users, compared.n_users) as bigint) as n_users,
    ranked.as_of_date as result_as_of_date,
    ranked.decision,
    ranked.srm_p_value,
    ranked.arm,
    ranked.relative_effect,
    ranked.relative_ci_low,
    ranked.relative_ci_high
from {{ source('ml', 'experiments') }} as experiments
left join assigned on experiments.experiment_id = assigned.experiment_id
left join compared on experiments.experiment_id = compared.experiment_id
left join ranked on experiments.experiment_id = ranked.experiment_id and ranked.place = 1
