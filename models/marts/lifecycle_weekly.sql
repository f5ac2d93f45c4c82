{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('int_as_of_weeks')) }}",
        post_hook=[
            "{{ insert_other_dates(ref('int_as_of_weeks'), lifecycle_counts_at) }}",
            "{{ record_as_of_dates(ref('int_as_of_weeks')) }}",
            '{{ record_build() }}'
        ]
    )
}}
{%- set dates = pending_as_of_dates(ref('int_as_of_weeks')) %}

-- The first date to compute; insert_other_dates follows it.
{% if dates -%}
    {{ lifecycle_counts_at(dates[0]) }}
{%- else -%}
    select *
    from ({{ lifecycle_counts_at("date '1900-01-01'") }})
    where false
{%- endif %}
