{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('int_as_of_weeks')) }}",
        post_hook=[
            "{{ insert_other_dates(ref('int_as_of_weeks'), lifecycle_counts_at) }}",
            "{{ record_as_of_dates(ref('int_as_of_weeks')) }}"
        ]
    )
}}

{{ first_date(ref('int_as_of_weeks'), lifecycle_counts_at) }}
