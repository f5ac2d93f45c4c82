with spend as (
    select
        {{ user_at('days', 'dates.as_of_date') }} as user_id,
        sum(days.orders) as orders_total,
        sum(days.amount) as amount_total
    from {{ ref('purchase_days') }} as days
    inner join {{ ref('as_of_dates') }} as dates
        on dates.is_scoring_date and days.purchase_date < dates.as_of_date
    group by 1
),

-- Fifths of the buyers, 5 is best, as RFM tables have them.
rfm as (
    select
        lifecycle.user_id,
        6 - ntile(5) over (order by lifecycle.days_since_last_purchase, lifecycle.user_id) as recency_score,
        ntile(5) over (order by spend.orders_total, lifecycle.user_id) as frequency_score,
        ntile(5) over (order by spend.amount_total, lifecycle.user_id) as monetary_score
    from {{ ref('lifecycle_current') }} as lifecycle
    inner join spend on lifecycle.user_id = spend.user_id
)

select
    lifecycle.user_id,
    lifecycle.as_of_date,
    lifecycle.stage,
    lifecycle.previous_stage,
    lifecycle.days_in_stage,
    lifecycle.first_purchase_date,
    lifecycle.last_purchase_date,
    lifecycle.days_since_last_purchase,
    lifecycle.typical_gap_days,
    cast(coalesce(spend.orders_total, 0) as integer) as orders_total,
    cast(coalesce(spend.amount_total, 0) as double) as amount_total,
    cast(rfm.recency_score as integer) as recency_score,
    cast(rfm.frequency_score as integer) as frequency_score,
    cast(rfm.monetary_score as integer) as monetary_score,
    features.order_value_total,
    features.discount_share_total,
    features.favourite_category,
    features.favourite_brand,
    features.favourite_channel,
    features.favourite_weekday,
    scores.churn_probability,
    scores.churn_decile,
    scores.risk_band,
    scores.is_predicted_churn,
    scores.model_version,
    accounts.signed_up_at,
    accounts.country,
    accounts.acquisition_channel,
    accounts.marketing_consent,
    accounts.age_band,
    accounts.gender,
    accounts.income_band,
    accounts.marital_status,
    accounts.household_size,
    accounts.home_ownership
from {{ ref('lifecycle_current') }} as lifecycle
left join spend on lifecycle.user_id = spend.user_id
left join rfm on lifecycle.user_id = rfm.user_id
left join {{ ref('user_features') }} as features
    on
        lifecycle.user_id = features.user_id
        and lifecycle.as_of_date = features.as_of_date
-- A score of another date is no score of this profile.
left join {{ ref('churn_scores_latest') }} as scores
    on
        lifecycle.user_id = scores.user_id
        and lifecycle.as_of_date = scores.as_of_date
left join {{ ref('stg_users') }} as accounts
    on lifecycle.user_id = accounts.user_id
