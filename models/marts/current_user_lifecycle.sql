{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        tags=['current'],
        meta={
            'loads_from': 'int_events',
            'inputs': ['scoring_date', 'forgotten_users']
        },
        pre_hook='{{ forget_touched_users() }}',
        post_hook=['{{ record_loads() }}', '{{ record_build() }}']
    )
}}
{%- set now = current_moment() %}

with touched as (
    {{ touched_users(now.as_of) }}
),

stages as (
    {{ user_lifecycle_at(now.as_of, users='touched') }}
),

-- Where each user stood at the last full scoring.
before as (
    select
        user_id,
        stage,
        stage_since_date
    from {{ ref('user_lifecycle') }}
    where as_of_date = {{ scoring_date() }}
),

dated as (
    select
        stages.*,
        before.stage as previous_stage,
        case when before.stage = stages.stage then before.stage_since_date else {{ now.as_of }} end as stage_since_date
    from stages
    left join before on stages.user_id = before.user_id
)

select
    user_id,
    {{ now.as_of }} as as_of_date,
    {{ now.as_of_ts }} as as_of_ts,
    {{ newest_load() }} as load_id,
    stage,
    previous_stage,
    stage_since_date,
    cast({{ days_between('stage_since_date', now.as_of) }} as integer) as days_in_stage,
    first_seen_date,
    first_purchase_date,
    last_purchase_date,
    purchase_days,
    days_since_last_purchase,
    typical_gap_days,
    at_risk_after_days,
    dormant_after_days,
    churned_after_days
from dated
