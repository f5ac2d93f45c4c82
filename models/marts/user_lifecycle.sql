{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        pre_hook="{{ forget_stale_as_of_dates(ref('as_of_dates')) }}",
        post_hook=[
            "{{ insert_other_dates(ref('as_of_dates'), dated_user_lifecycle_at, this) }}",
            "{{ record_as_of_dates(ref('as_of_dates')) }}"
        ]
    )
}}

-- Each date continues from the one before, so they are computed in their order.
{{ first_date(ref('as_of_dates'), dated_user_lifecycle_at, this if is_incremental() else none) }}
