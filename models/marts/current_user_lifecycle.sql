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

{#- Where each user stood at the last full scoring. #}
{%- set before %}
    select
        user_id,
        stage,
        stage_since_date
    from {{ ref('user_lifecycle') }}
    where as_of_date = {{ scoring_date() }}
{%- endset %}

with touched as (
    {{ touched_users(now.as_of) }}
)

select
    user_id,
    as_of_date,
    {{ now.as_of_ts }} as as_of_ts,
    {{ newest_load() }} as load_id,
    * exclude (user_id, as_of_date)
from ({{ user_lifecycle_since(now.as_of, before, users='touched') }})
