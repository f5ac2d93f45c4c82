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
        post_hook=['{{ record_loads() }}']
    )
}}
{%- set now = current_moment() %}

with touched as (
    {{ touched_users(now.as_of) }}
),

features as (
    {{ user_features_at(now.as_of, 'active', users='touched', others=intensities_of_others('touched')) }}
)

select
    {{ now.as_of }} as as_of_date,
    {{ now.as_of_ts }} as as_of_ts,
    {{ newest_load() }} as load_id,
    *
from features
