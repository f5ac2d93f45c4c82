{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('as_of_dates')) }}",
        post_hook=[
            "{{ insert_other_dates(ref('as_of_dates'), dated_user_lifecycle_at, this) }}",
            "{{ record_as_of_dates(ref('as_of_dates')) }}",
            '{{ record_build() }}'
        ]
    )
}}
{%- set dates = pending_as_of_dates(ref('as_of_dates')) %}

-- The first date to compute; insert_other_dates follows it, as each date continues from the one before.
{% if dates -%}
    {{ dated_user_lifecycle_at(dates[0], this if is_incremental() else none) }}
{%- else -%}
    select *
    from ({{ dated_user_lifecycle_at("date '1900-01-01'") }})
    where false
{%- endif %}
