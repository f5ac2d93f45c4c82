with users as (
    select * from {{ ref('lifecycle_current') }}
),

stages as (
    select
        user_id,
        string_agg(stage || ' ' || cast(from_date as varchar), ', ' order by from_date) as stage_history
    from {{ ref('user_stage_history') }}
    group by user_id
),

interests as (
    select
        user_id,
        string_agg(
            category || ' ' || cast(round(100 * strength) as integer) || ' %' || coalesce(', ' || trend, ''), '; '
            order by interest_rank
        ) as interests
    from {{ ref('user_interests') }}
    where interest_rank <= 5
    group by user_id
),

reasons as (
    select
        user_id,
        as_of_date,
        string_agg(reason, '; ' order by reason_rank) as churn_reasons
    from {{ ref('churn_reasons_latest') }}
    where feature is not null
    group by user_id, as_of_date
),

recommended as (
    select
        user_id,
        as_of_date,
        string_agg(coalesce(title, product_id), '; ' order by rank) as next_products
    from {{ ref('recommendations_latest') }}
    where rank <= 3
    group by user_id, as_of_date
),

contacts as (
    select
        user_id,
        max(contacted_date) as last_contact_date,
        string_agg(
            cast(contacted_date as varchar) || coalesce(' ' || channel, '') || coalesce(' ' || kind, '')
            || case when responded_date is null then '' else ', responded' end, '; '
            order by contact_rank
        ) as last_contacts
    from {{ ref('user_contacts') }}
    group by user_id
)

select
    users.user_id,
    users.as_of_date,
    -- who it is
    accounts.signed_up_at,
    accounts.country,
    accounts.acquisition_channel,
    accounts.marketing_consent,
    accounts.age_band,
    accounts.gender,
    accounts.income_band,
    accounts.marital_status,
    accounts.household_size,
    accounts.home_ownership,
    -- where it stands
    users.stage,
    users.previous_stage,
    users.days_in_stage,
    stages.stage_history,
    users.first_purchase_date,
    users.last_purchase_date,
    users.days_since_last_purchase,
    users.typical_gap_days,
    cast(coalesce(rfm.orders_total, 0) as integer) as orders_total,
    cast(coalesce(rfm.amount_total, 0) as double) as amount_total,
    cast(rfm.amount_total as double) / rfm.orders_total as order_value_total,
    rfm.recency_score,
    rfm.frequency_score,
    rfm.monetary_score,
    rfm.rfm_segment,
    segments.segment_id,
    segments.segment_name,
    -- what it likes
    preferences.top_categories,
    preferences.top_brands,
    interests.interests,
    preferences.price_level,
    preferences.price_band,
    preferences.discounted_line_share,
    preferences.discount_affinity,
    preferences.favourite_daypart,
    preferences.favourite_weekday,
    preferences.favourite_channel,
    -- whether it stays
    scores.churn_probability,
    scores.churn_decile,
    scores.risk_band,
    scores.is_predicted_churn,
    scores.model_version,
    reasons.churn_reasons,
    -- what it is worth
    worth.probability_alive,
    worth.expected_purchases_30d,
    worth.expected_purchases_90d,
    worth.expected_purchases_365d,
    worth.expected_amount_30d,
    worth.expected_amount_90d,
    worth.expected_amount_365d,
    worth.amount_low_90d,
    worth.amount_high_90d,
    worth.lifetime_value,
    worth.value_decile,
    -- what to offer next, and what it was told
    recommended.next_products,
    actions.action as next_action,
    actions.why as next_action_why,
    contacts.last_contact_date,
    contacts.last_contacts
from users
left join stages on users.user_id = stages.user_id
left join interests on users.user_id = interests.user_id
left join {{ ref('user_rfm') }} as rfm
    on
        users.user_id = rfm.user_id
        and users.as_of_date = rfm.as_of_date
left join {{ ref('user_preferences') }} as preferences
    on users.user_id = preferences.user_id
-- What was found for another date is not of this profile.
left join {{ ref('churn_scores_latest') }} as scores
    on
        users.user_id = scores.user_id
        and users.as_of_date = scores.as_of_date
left join reasons
    on
        users.user_id = reasons.user_id
        and users.as_of_date = reasons.as_of_date
left join {{ ref('user_segments_latest') }} as segments
    on
        users.user_id = segments.user_id
        and users.as_of_date = segments.as_of_date
        and segments.method = 'kmeans'
left join {{ ref('user_values_latest') }} as worth
    on
        users.user_id = worth.user_id
        and users.as_of_date = worth.as_of_date
left join recommended
    on
        users.user_id = recommended.user_id
        and users.as_of_date = recommended.as_of_date
left join {{ ref('next_best_actions_latest') }} as actions
    on
        users.user_id = actions.user_id
        and users.as_of_date = actions.as_of_date
left join contacts on users.user_id = contacts.user_id
left join {{ ref('stg_users') }} as accounts
    on users.user_id = accounts.user_id
