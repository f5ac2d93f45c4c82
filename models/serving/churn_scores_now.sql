with full_scores as (
    select
        user_id,
        {{ utc_time('cast(as_of_date as timestamp)') }} as as_of_ts,
        as_of_date,
        horizon_days,
        churn_probability,
        churn_decile,
        risk_band,
        is_predicted_churn,
        cast(null as double) as previous_probability,
        cast(null as integer) as previous_decile,
        cast(null as varchar) as previous_risk_band,
        model_name,
        model_version,
        run_id,
        scored_at
    from {{ ref('churn_scores_latest') }}
),

-- What a later full scoring reaches is behind it.
newer_scores as (
    select
        user_id,
        as_of_ts,
        as_of_date,
        horizon_days,
        churn_probability,
        churn_decile,
        risk_band,
        is_predicted_churn,
        previous_probability,
        previous_decile,
        previous_risk_band,
        model_name,
        model_version,
        run_id,
        scored_at
    from {{ source('ml', 'current_churn_scores') }}
    where as_of_date > (select max(full_scores.as_of_date) from full_scores)
)

select *
from full_scores
where user_id not in (select newer_scores.user_id from newer_scores)

union all

select * from newer_scores
